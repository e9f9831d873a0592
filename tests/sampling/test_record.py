"""Records of samplers."""

import json
from dataclasses import dataclass, field
from typing import NamedTuple

import pytest

from energyql.sampling import SAMPLERS, BatchSampler, DescentSampler, SliceSampler, make_sampler
from energyql.sampling.registry import (
    check_record,
    describe_sampler,
    registered,
    sampler_text,
    sampler_words,
    strengths,
)

PLAIN = {"name": "descent", "settings": {"strength": 1.0, "enough": 0.1, "tolerance": 0.001, "max_evaluations": 200}}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("strength", [None, 2.5])
def test_a_record_makes_the_sampler_again(name, strength):
    record = describe_sampler(make_sampler(name, strength or 1.0))
    assert json.loads(json.dumps(record)) == record
    check_record(record)
    check_record([record, record])
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
    slotted = type("Slotted", (), {"__slots__": ("steps",)})()
    slotted.steps = {"first": 3}
    assert describe_sampler(slotted)["settings"] == {"steps": {"first": 3}}
    assert describe_sampler(Frozen()) == {"name": "Frozen", "settings": {"steps": 3, "sizes": [0.5, "inf"]}}
    assert registered(describe_sampler(Frozen())) is None
    own = Own(3)
    own.inner = own
    assert describe_sampler(own) == {"name": "Own", "settings": {"steps": 3, "inner": "..."}}
    assert describe_sampler(Steps(3)) != describe_sampler(Steps(4))


@pytest.mark.parametrize("value", [3, None, "slice", {}, {"name": 3, "settings": {}}, ["slice", 3]])
def test_what_is_no_record(value):
    with pytest.raises(ValueError, match="a sampler is recorded by"):
        check_record(value)
