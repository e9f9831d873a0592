from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from toys import CONFIG, VOCABULARY, random_generator, random_heads, tiny_model

from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.errors import ArgumentError, ModelError
from energyql.evaluation.judged import EvaluatedModel
from energyql.evaluation.methods import Method, PublishedODE, read_methods
from energyql.pipeline.generate import sample_latents
from energyql.pipeline.model import Model
from energyql.pipeline.plan import plan_query
from energyql.sampling import SAMPLERS, SliceSampler, as_energy, make_sampler
from evaluation.lively import silent


class Endless:
    """An energy that falls without end."""

    least = -math.inf

    def __call__(self, z: torch.Tensor) -> torch.Tensor:
        return z.sum(1)


def test_methods_are_read_from_their_names() -> None:
    result = read_methods("slice+ode, lace:ode,slice@10, product:slice@2.5,paper")
    assert [one.name for one in result] == ["slice+ode", "lace:ode", "slice@10", "product:slice@2.5", "paper"]
    assert [one.semantics for one in result] == ["exact", "lace", "exact", "product", "lace"]
    assert result[2].sampler == SliceSampler(strength=10)
    assert result[4].sampler == PublishedODE()


def test_own_samplers() -> None:
    own = Method("own", "exact", SliceSampler(moves=5))
    assert read_methods(["ode", own])[1] is own


def test_own_samplers_need_a_name() -> None:
    with pytest.raises(ArgumentError, match=r"no sampler 'SliceSampler\(.*\n.*methods\.Method\("):
        read_methods(["ode", SliceSampler()])  # type: ignore[list-item]
    with pytest.raises(ArgumentError, match="SliceSampler is a class"):
        read_methods([Method("own", "exact", SliceSampler)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("slize", "there is no sampler 'slize'"),
        ("", "no sampler to compare"),
        ("ode,ode", "'ode' is named twice"),
        ("fuzzy:ode", "no semantics is called 'fuzzy'"),
        ("slice@much", "not a number"),
        ("slice@-1", "strength must be"),
        ("paper@0", "strength must be"),
        ("exact:paper", "there is no sampler 'exact:paper'"),
        ("exact:", "there is no sampler 'exact:'"),
        ("a:b:c", "there is no sampler"),
    ],
)
def test_wrong_names(names: str, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        read_methods(names)


@pytest.mark.parametrize("sampler", ["slice", "descent", "slice+descent", "slice+ode"])
def test_a_sampler_that_needs_a_least_energy_is_refused_where_there_is_none(sampler: str) -> None:
    with pytest.raises(ArgumentError) as late:
        make_sampler(sampler).sample(as_energy(Endless()), torch.zeros(1, 2))
    with pytest.raises(ArgumentError, match="no lower bound") as early:
        read_methods(f"ode,jem:{sampler}")
    assert str(early.value) == str(late.value)
    with pytest.raises(ArgumentError, match="no lower bound"):
        read_methods([Method("own", "jem", make_sampler(sampler))])


NEED_FLOOR = {"slice", "descent", "slice+descent", "slice+ode", "population"}


@pytest.mark.parametrize("sampler", sorted(SAMPLERS.keys() - NEED_FLOOR))
def test_other_samplers_take_energies_without_a_least(sampler: str) -> None:
    (method,) = read_methods(f"jem:{sampler}")
    assert len(method.sampler.sample(as_energy(Endless()), torch.zeros(1, 2)).z) == 1


def test_samples_are_those_of_the_public_call(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = EvaluatedModel(str(tiny))
    (method,) = read_methods("slice")
    energy = method.energy(subject, "smile AND NOT glasses")
    ours = method.sample(energy, subject, 7, 3, silent)
    (public,) = sample_latents("smile AND NOT glasses", 7, model=tiny, sampler="slice", seed=3, progress=False)
    assert ours.z.equal(public.z)
    monkeypatch.setattr("energyql.evaluation.methods.LATENT_BATCH", 2)
    small = method.sample(energy, subject, 7, 3, silent)
    torch.testing.assert_close(small.z, public.z)


def test_a_model_without_a_judge_cannot_be_measured(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has no judge"):
        EvaluatedModel(str(tiny_model(tmp_path, judge=False)))


def test_truncation_of_the_subject_is_that_of_its_queries(tiny: Path) -> None:
    subject = EvaluatedModel(str(tiny), truncation=0.5)
    (method,) = read_methods("slice")
    z = torch.randn(2, subject.z_dim)
    expected = plan_query(subject.session, "smile", truncation=0.5).energy(z)
    torch.testing.assert_close(method.energy(subject, "smile")(z), expected)
    assert subject.identity != EvaluatedModel(str(tiny)).identity


def test_heads_of_random_labels_are_evaluated_under_one_class() -> None:
    generator = random_generator(dataclasses.replace(CONFIG, c_dim=3))
    bank = AttributeBank(VOCABULARY, random_heads(VOCABULARY, 16), fitted=FittedUnder(condition="random"))
    subject = EvaluatedModel(Model("classes", generator, bank, judge=lambda images: {"smile": images[:, 0, 0, 0] > 0}))
    z = torch.randn(2, subject.z_dim)
    for seed in range(5):
        prepared = subject.plan("smile", seed=seed)
        assert prepared.provenance["condition"] == subject.condition
        torch.testing.assert_close(prepared.encode(z), subject.encode(z))
