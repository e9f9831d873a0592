"""Records of samplers, and the `repr` that files held in their place until November 2026."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from energyql.pipeline.result import Result
from energyql.sampling import SAMPLERS, BatchSampler, DescentSampler, SliceSampler, make_sampler
from energyql.sampling.registry import (
    describe_sampler,
    registered,
    sampler_record,
    sampler_text,
    sampler_words,
    strengths,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "samplers"
TEXTS = json.loads((GOLDEN / "samplers.json").read_text(encoding="utf-8"))
PLAIN = {"name": "descent", "settings": {"strength": 1.0, "enough": 0.1, "tolerance": 0.001, "max_evaluations": 200}}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(("texts", "strength"), [("default", None), ("strength 2.5", 2.5)])
def test_texts_of_earlier_versions_are_the_records_of_now(name, texts, strength):
    record = describe_sampler(make_sampler(name, strength or 1.0))
    assert json.loads(json.dumps(record)) == record
    if name in TEXTS[texts]:  # not of a sampler that is newer
        assert sampler_record(TEXTS[texts][name]) == record
    assert sampler_record(record) == record
    assert registered(record) == (name, strength)
    assert strengths(record) == {strength or 1.0}
    assert sampler_words(record) == (f"sampler {name}, strength 2.5" if strength else f"sampler {name}")


def test_a_record_is_a_name_and_settings():
    assert describe_sampler(DescentSampler()) == PLAIN
    chain = describe_sampler(make_sampler("slice+descent"))
    assert chain["name"] == "slice+descent"
    assert chain["settings"]["samplers"][1] == PLAIN
    assert sampler_text(PLAIN) == "descent(strength=1.0, enough=0.1, tolerance=0.001, max_evaluations=200)"
    assert sampler_words([PLAIN, describe_sampler(SliceSampler(moves=5))]) == "sampler descent and slice"
    assert sampler_words(None) == ""


class Own:
    """A sampler by the protocol alone, with settings, one of them itself a plain object."""

    def __init__(self, steps, inner=None):
        self.steps, self.inner = steps, inner


@dataclass(frozen=True)
class Frozen(BatchSampler):
    steps: int = 3
    sizes: tuple[float, ...] = (0.5, float("inf"))
    table: object = field(default=None, repr=False)

    def run(self, batch):
        pass


class Steps(NamedTuple):
    steps: int


def test_a_sampler_of_a_user_is_described_by_its_class_and_settings():
    assert describe_sampler(Own(3, Own(4))) == {
        "name": "Own",
        "settings": {"steps": 3, "inner": {"name": "Own", "settings": {"steps": 4, "inner": None}}},
    }
    assert sampler_record("Own(steps=3, inner=Own(steps=4, inner=None))") == describe_sampler(Own(3, Own(4)))
    slotted = type("Slotted", (), {"__slots__": ("steps",)})()
    slotted.steps = {"first": 3}
    assert describe_sampler(slotted)["settings"] == {"steps": {"first": 3}}
    assert describe_sampler(Frozen()) == {"name": "Frozen", "settings": {"steps": 3, "sizes": [0.5, "inf"]}}
    assert registered(describe_sampler(Frozen())) is None
    own = Own(3)
    own.inner = own
    assert describe_sampler(own) == sampler_record("Own(steps=3, inner=...)")
    assert describe_sampler(Steps(3)) != describe_sampler(Steps(4))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""),
        ("'descent'", "descent"),
        ("inversion", "inversion"),
        ("Mine(3)", "Mine"),
        ("<Mine at 0>", "<Mine at 0>"),
        ("SliceSampler(strength=0)", "slice"),
        ("SliceSampler(then=1)", "SliceSampler(then=1)"),
        ("Chain(samplers=3)", "Chain(samplers=3)"),
        ("f(" * 5000, "f(" * 5000),
        ("-" * 50_000 + "1", "-" * 50_000 + "1"),
    ],
)
def test_other_texts(text, words):
    assert sampler_words(sampler_record(text)) == words


@pytest.mark.parametrize("value", [3, None, {}, {"name": 3, "settings": {}}, ["slice", 3]])
def test_what_is_no_record(value):
    with pytest.raises(ValueError, match="a sampler is recorded by"):
        sampler_record(value)


@pytest.mark.parametrize(("then", "descent"), [("descend", DescentSampler(strength=2.5, enough=1.0)), ("anneal", None)])
def test_what_followed_the_proposals_had_a_name_at_first(then, descent):
    settings = sampler_record(f"SliceSampler(strength=2.5, then={then!r})")["settings"]
    assert settings == {"strength": 2.5, "descent": descent and describe_sampler(descent)}


def test_a_descent_had_no_tolerance_at_first():
    assert sampler_record("DescentSampler(strength=1.0, enough=0.1, max_evaluations=200)") == PLAIN


def test_a_result_of_an_earlier_version_is_read():
    result = Result.load(GOLDEN / "run")
    assert result.provenance["sampler"] == describe_sampler(make_sampler("ode", 2.5))
    assert (len(result), result.provenance["seed"]) == (2, 4)
