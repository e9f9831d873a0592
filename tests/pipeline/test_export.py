"""The energy of a query as a torch module and as ONNX, against the energy that is sampled."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from needed import needed
from toys import VOCABULARY, random_heads, tiny_model

import energyql
from energyql import ArgumentError, E, Model, TautologyWarning, UnknownAttribute, export_energy
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.energy.export import EnergyModule
from energyql.energy.rule import SEMANTICS
from energyql.pipeline.energy_module import energy_module
from energyql.pipeline.plan import plan_query
from energyql.pipeline.session import open_session

QUERIES = [
    "smile",
    "smile AND NOT (glasses OR beard)",
    "hair = black",
    'hair IN {black, "dark red"} AND age > 0.6',
    "0.4 < age < 0.6 OR NOT smile",
    "age = 0.5 AND NOT hair = brown",
    "AT LEAST 2 OF (smile, glasses, beard, hair = brown)",
    "smile XOR (beard IFF age <= 0.5)",
    "2 * smile AND NOT (0.5 * (beard OR glasses))",
    "NOT (0.001 * (age > 0.9))",
]
ONNX = needed("onnx")
RUNTIME = needed("onnxruntime")


def latents(n=64, dim=8, seed=0):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def slopes(energy, z):
    z = z.clone().requires_grad_()
    energy(z).sum().backward()
    return z.grad


def reference(query, model, **options):
    return plan_query(open_session(model, "cpu"), query, **options).energy


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(torch.as_tensor(actual), expected, rtol=tolerance, atol=tolerance)


def run(path, z):
    session = RUNTIME.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (energy,) = session.run(["energy"], {"z": z.numpy()})
    return energy


@pytest.fixture(scope="module", params=["w", "z", "direction"])
def model(request, tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / request.param, space=request.param)


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("query", QUERIES)
def test_values_and_slopes(model, query, semantics):
    z, ours = latents(), reference(query, model, semantics=semantics)
    energy = export_energy(query, model=model, semantics=semantics)
    value, gradient = ours.gradient(z)
    assert energy(z).shape == (64,)
    close(energy(z), value)
    close(slopes(energy, z), gradient, 1e-4)


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("query", [QUERIES[3], QUERIES[8]])  # energy/test_exported.py exports all operators
def test_onnx(tiny, tmp_path, query, semantics):
    energy = export_energy(query, model=tiny, semantics=semantics)
    path = energy.to_onnx(tmp_path / "energy.onnx")
    for n in (1, 2, 77):  # any batch
        found = run(path, latents(n))
        assert found.shape == (n,)
        close(found, reference(query, tiny, semantics=semantics)(latents(n)))


@pytest.mark.parametrize("space", ["z", "direction"])
def test_onnx_of_other_spaces(tmp_path, space):
    folder = tiny_model(tmp_path / space, space=space)
    path = export_energy(QUERIES[3], model=folder).to_onnx(tmp_path / "energy.onnx")
    close(run(path, 30 * latents()), reference(QUERIES[3], folder)(30 * latents()))


def test_far_latents_have_the_energy_of_the_samplers(tmp_path):
    """Tails of many standard deviations, where naive exponentials are zero."""
    folder, query = tiny_model(tmp_path / "z", space="z"), "0.4 < age < 0.6 AND smile AND hair != brown AND age > 0.41"
    z = 100 * latents()
    expected = reference(query, folder)(z)
    assert expected.max() > 1000
    energy = export_energy(query, model=folder)
    close(energy(z), expected)
    close(run(energy.to_onnx(tmp_path / "far.onnx"), z), expected)
    assert slopes(energy, z).isfinite().all()


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_the_packaged_model(tmp_path, semantics):
    query = "smile AND skin_tone > 0.6 AND NOT (hat OR hair = red)"
    generator = energyql.load_model("avatars").generator
    z = latents(32, generator.z_dim)
    energy, ours = export_energy(query, semantics=semantics), reference(query, "avatars", semantics=semantics)
    close(energy(z), ours(z), 1e-4)
    close(run(energy.to_onnx(tmp_path / "avatars.onnx"), z), ours(z), 1e-4)
    # The mapping network and four heads, without the network that draws.
    held = sum(tensor.numel() for tensor in energy.state_dict().values())
    assert held < sum(p.numel() for p in generator.mapping.parameters()) + 200_000


def test_deep_heads(tmp_path):
    model = energyql.load_model(tiny_model(tmp_path / "m"))
    random = torch.Generator().manual_seed(1)

    def deeper(head, width=3):
        weight, bias = torch.randn(width, 4, generator=random), torch.randn(width, generator=random)
        out = torch.randn(len(head.out_bias), width, generator=random)
        return replace(head, deeper=((weight, bias),), out_weight=out)

    heads = {n: deeper(head) if n in ("smile", "age") else head for n, head in model.bank.heads.items()}
    deep = replace(model, bank=AttributeBank(VOCABULARY, heads, fitted=FittedUnder(truncation=(0.5, 1.0))))
    energy = export_energy(QUERIES[3] + " AND smile", model=deep)
    close(energy(latents()), reference(QUERIES[3] + " AND smile", deep)(latents()))
    close(run(energy.to_onnx(tmp_path / "deep.onnx"), latents(5)), energy(latents(5)))


@pytest.mark.parametrize("truncation", [0.5, 1.0])
def test_truncation(tiny, truncation):
    energy = export_energy("smile", model=tiny, truncation=truncation)
    close(energy(latents()), reference("smile", tiny, truncation=truncation)(latents()))
    assert energy.metadata["truncation"] == str(truncation)


def test_it_stands_alone(tiny, tmp_path):
    """Other programs load what torch saved, without this library."""
    energy = export_energy(QUERIES[1], model=tiny)
    z = latents()
    program = torch.export.export(energy, (z,), dynamic_shapes=({0: torch.export.Dim("batch", min=2)},))
    close(program.module()(latents(9)), energy(latents(9)))
    compiled = torch.compile(energy, backend="aot_eager", fullgraph=True)  # without a compiler of C++
    close(compiled(z), energy(z))
    again = export_energy(QUERIES[1], model=tiny)
    for tensor in again.state_dict().values():
        tensor.zero_()
    assert not torch.allclose(again(z), energy(z))
    again.load_state_dict(energy.state_dict())
    assert torch.equal(again(z), energy(z))


def test_other_dtypes(tiny):
    energy = export_energy(QUERIES[4], model=tiny).double()
    assert energy(latents().double()).dtype == torch.float64
    close(energy(latents().double()).float(), reference(QUERIES[4], tiny)(latents()))


def test_weights_are_copies(tiny):
    model = energyql.load_model(tiny)
    before = model.generator.encode(latents()).clone()
    export_energy("smile", model=model).double()
    for tensor in export_energy("smile", model=model).state_dict().values():
        tensor.zero_()
    assert torch.equal(model.generator.encode(latents()), before)


def test_expressions_and_prepared_queries(tiny):
    z = latents()
    plan = plan_query(open_session(tiny, "cpu"), E.smile & ~E.beard)
    module = energy_module(plan.model, plan.rule, plan.reads, plan.provenance)
    assert torch.equal(
        module(z),
        export_energy("smile AND NOT beard", model=tiny)(z),
    )


def test_metadata(tiny, tmp_path):
    energy = export_energy(QUERIES[3], model=tiny)
    prints = energyql.load_model(tiny).fingerprints
    wanted = {
        "query": QUERIES[3], "attributes": "hair, age", "model": "tiny", "semantics": "exact", "truncation": "0.7",
        "space": "w", "z_dim": "8", "unit": "nats", "energyql": energyql.__version__,
    }  # fmt: skip
    assert wanted.items() <= energy.metadata.items()
    assert json.loads(energy.metadata["fingerprints"]) == prints
    stored = ONNX.load(energy.to_onnx(tmp_path / "energy.onnx"))
    ONNX.checker.check_model(stored)
    assert {entry.key: entry.value for entry in stored.metadata_props} == energy.metadata
    assert [entry.name for entry in stored.graph.input] == ["z"]
    assert [entry.name for entry in stored.graph.output] == ["energy"]
    assert all(opset.domain == "" and opset.version == 17 for opset in stored.opset_import)


def test_a_query_that_is_always_true(tiny, tmp_path):
    with pytest.warns(TautologyWarning):
        energy = export_energy("smile OR NOT smile", model=tiny)
    assert torch.equal(energy(latents()), torch.zeros(64))
    assert np.array_equal(run(energy.to_onnx(tmp_path / "true.onnx"), latents(3)), np.zeros(3))


def in_memory(generator, dim, **fitted):
    bank = AttributeBank(VOCABULARY, random_heads(VOCABULARY, dim), fitted=FittedUnder(**fitted))
    return Model("mine", generator, bank)


class Plain(torch.nn.Module):
    """A generator of somebody else, whose w is a layer away from z."""

    z_dim, w_dim = 8, 5

    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(8, 5)

    def encode(self, z, truncation=1.0):
        return truncation * torch.tanh(self.first(z))

    def features(self, z):
        return self.first(z)[:, :3]

    def synthesize(self, w):
        return torch.zeros(len(w), 3, 4, 4)


@pytest.mark.parametrize(("space", "dim"), [("w", 5), ("features", 3), ("z", 8)])
def test_generators_of_others(space, dim, tmp_path):
    model = in_memory(Plain().requires_grad_(False), dim, space=space)
    energy, expected = export_energy(QUERIES[3], model=model), reference(QUERIES[3], model)(latents())
    close(energy(latents()), expected)
    close(run(energy.to_onnx(tmp_path / "other.onnx"), latents()), expected)
    model.generator.first.weight.zero_()  # the module has a copy
    close(energy(latents()), expected)
    assert any("owner" in name for name in energy.state_dict()) == (space != "z")


def test_labels(tmp_path):
    class Labelled(Plain):
        c_dim = 3

        def encode(self, z, truncation=1.0, condition=None):
            return super().encode(z, truncation) + condition.sum(1, keepdim=True) * condition.argmax(1)[:, None]

    model = in_memory(Labelled().requires_grad_(False), 5, condition=2)
    energy, expected = export_energy("smile", model=model), reference("smile", model)(latents())
    close(energy(latents()), expected)
    assert energy.metadata["condition"] == "2"


def test_errors(tiny, tmp_path, monkeypatch):
    with pytest.raises(UnknownAttribute):
        export_energy("hat", model=tiny)
    energy = export_energy("smile", model=tiny)
    with pytest.raises(ArgumentError, match=r"energy.pt\nend the path in \.onnx"):
        energy.to_onnx(tmp_path / "energy.pt")
    for package in ("onnxruntime", "onnx"):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(
            ArgumentError, match=rf'{package}, which is not installed\npip install "onnx>=1\.16" "onnxr'
        ):
            energy.to_onnx(tmp_path / "energy.onnx")
    assert list(tmp_path.iterdir()) == []


class Foreign(Plain):
    """A generator with a further function after its own, such as one that ONNX lacks."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def encode(self, z, truncation=1.0):
        return self.function(super().encode(z, truncation))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (torch.special.erfcx, r"cannot be written as ONNX.*erfcx.*\nall energies with generators of this library"),
        (lambda w: w if len(w) == 2 else -w, r"other energies than torch for \d+ of 256 latents.*\nexporting follows"),
    ],
)
def test_a_file_that_does_not_give_the_energy_is_not_saved(function, message, tmp_path, capfd):
    path = tmp_path / "energy.onnx"
    path.write_text("the former")
    energy = export_energy("smile AND age > 0.5", model=in_memory(Foreign(function).requires_grad_(False), 5))
    with pytest.raises(ArgumentError, match=message):
        energy.to_onnx(path)
    assert path.read_text() == "the former"
    assert list(tmp_path.iterdir()) == [path]
    assert capfd.readouterr() == ("", "")


def test_what_onnxruntime_cannot_compute_is_not_saved(tiny, tmp_path, capfd):
    with pytest.raises(ArgumentError, match=r"onnxruntime cannot compute .*\ntorch.export"):
        export_energy("smile", model=tiny).double().to_onnx(tmp_path / "energy.onnx")
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_the_module_is_public():
    assert isinstance(export_energy("smile"), EnergyModule)
