"""Energies of all semantics in ONNX, by onnxruntime, against the torch module with the same float64 heads."""

import warnings

import pytest
import torch
from formulas import compounds
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from needed import needed

from energyql import Contradiction, LimitError, TautologyWarning, export_energy, load_model
from energyql.energy.rule import SEMANTICS
from energyql.language import Attribute, Interval, Near, OneOf, Weight

needed("onnx")
RUNTIME = needed("onnxruntime")
SYSTEMATIC = [
    "bald",
    "NOT bald",
    "hair = red",
    "hair != red",
    "hair IN {black, blonde, gray}",
    "hair NOT IN {brown, absent}",
    "skin_tone > 0.6",
    "skin_tone < 0.1",
    "0.4 < skin_tone < 0.45",
    "NOT 0.4 < skin_tone < 0.9",
    "background = 0.5",
    "background = 0.5 +- 0.2",
    "smile AND beard",
    "smile OR beard",
    "NOT (smile AND hair = red)",
    "NOT (smile OR hair = red)",
    "smile XOR glasses XOR hat",
    "smile IFF glasses",
    "bald IMPLIES hat",
    "AT LEAST 2 OF (smile, glasses, beard, hair = red)",
    "AT MOST 1 OF (smile, glasses, beard, hair = red)",
    "EXACTLY 2 OF (smile, glasses, beard, skin_tone > 0.5)",
    "NONE OF (smile, glasses, beard)",
    "2 * smile AND 0.5 * (beard OR glasses)",
    "NOT (0.001 * (skin_tone > 0.9))",
    "smile OR (beard AND (hat OR (eyes = happy AND skin_tone > 0.8)))",
    "smile AND glasses AND NOT hat AND hair = black AND mouth != sad AND skin_tone > 0.7 AND background < 0.2",
]
MODEL = load_model("avatars")
DESCRIBED = MODEL.bank.vocabulary.values()
NUMBERS = st.sampled_from(["skin_tone", "background"])
PREDICATES = st.one_of(
    st.sampled_from([spec.name for spec in DESCRIBED if spec.kind == "yes/no"]).map(Attribute),
    st.sampled_from([spec for spec in DESCRIBED if spec.kind == "categorical"]).flatmap(
        lambda spec: st.builds(
            OneOf,
            st.just(spec.name),
            st.lists(st.sampled_from(spec.values), min_size=1, max_size=2, unique=True).map(tuple),
            st.booleans(),
        )
    ),
    st.builds(Interval, NUMBERS, st.sampled_from([None, 0.1, 0.4]), st.sampled_from([0.5, 0.9])),
    st.builds(Near, NUMBERS, st.just(0.5), st.sampled_from([0.05, 0.3])),
)
WEIGHTED = st.builds(Weight, st.sampled_from([0.5, 2.0, 7.0]), st.recursive(PREDICATES, compounds, max_leaves=3))
QUERIES = st.recursive(st.one_of(PREDICATES, PREDICATES, WEIGHTED), compounds, max_leaves=6)


def difference(query, semantics, path):
    """Return the largest difference of ONNX and torch for 200 latents of the prior, in nats, where they are in 100.

    Both have the model's own heads, in float64.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TautologyWarning)
        energy = export_energy(query, model=MODEL, semantics=semantics, device="cpu")
    options = RUNTIME.SessionOptions()
    options.intra_op_num_threads = 1
    session = RUNTIME.InferenceSession(str(energy.to_onnx(path)), options, providers=["CPUExecutionProvider"])
    z = torch.randn(200, MODEL.generator.z_dim, generator=torch.Generator().manual_seed(5))
    expected = energy.in_float64()(z)
    (found,) = session.run(["energy"], {"z": z.numpy()})
    assert expected.isfinite().all()
    assert torch.allclose(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)
    near = expected.abs() <= 100
    return (torch.from_numpy(found) - expected)[near].abs().max().item() if near.any() else 0.0


@pytest.mark.parametrize("turn", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("semantics", SEMANTICS)
def test_systematic_queries(semantics, turn, tmp_path):
    """Quick tests ask each query in every other semantics."""
    queries = SYSTEMATIC[(list(SEMANTICS).index(semantics) + turn) % 2 :: 2]
    found = {query: difference(query, semantics, tmp_path / "energy.onnx") for query in queries}
    assert {query: off for query, off in found.items() if off > 1e-4} == {}


@pytest.mark.slow
@pytest.mark.parametrize("semantics", SEMANTICS)
def test_random_queries(semantics, tmp_path):
    found = []

    @settings(max_examples=500, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(QUERIES)
    def each(query):
        try:
            found.append(difference(query, semantics, tmp_path / "energy.onnx"))
        except (Contradiction, LimitError):
            assume(False)
        assert found[-1] <= 1e-4

    each()
    print(f"{semantics}: {len(found)} queries, at most {max(found):.3g} nats")
    assert len(found) >= 500
