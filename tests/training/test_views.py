"""Heads on a view of z that the generator offers: measured on a terrain model, and wherever heads are read."""

import numpy as np
import pytest
import torch
from terrain import Terrain, survey
from toys import VOCABULARY, random_heads

from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.editing.edit import edit
from energyql.editing.settings import Preset
from energyql.errors import ArgumentError, DataError, ModelError
from energyql.evaluation.judged import EvaluatedModel
from energyql.evaluation.methods import PublishedEnergy
from energyql.generators.base import head_reader, latent_size, offers_features
from energyql.generators.families import module_fingerprint
from energyql.pipeline.generate import generate
from energyql.pipeline.model import Model, load_model
from energyql.pipeline.plan import plan_query
from energyql.pipeline.session import open_session
from energyql.sampling import prior_latents
from energyql.training.heads import HeadSettings
from energyql.training.labels import LabelTable
from energyql.training.run import train_attributes

QUICK = {"settings": HeadSettings(steps=20, hidden=4), "judge": None, "progress": False}


class Layered(torch.nn.Module):
    """z of 32 numbers, and a layer that is called features, which is no view of z."""

    z_dim = 32

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(1.0))
        self.features = torch.nn.Identity()

    def encode(self, z, truncation=1.0):
        return truncation * z

    def synthesize(self, w):
        return torch.tanh(w[:, :27].reshape(-1, 3, 3, 3))


class Halves(Layered):
    """The same with a view of 4 numbers."""

    def __init__(self):
        super().__init__()
        del self.features

    def features(self, z):
        return self.scale * torch.tanh(z.view(-1, 4, 8).mean(2) * 8**0.5)


def explained(model: Model, z: torch.Tensor, name: str) -> float:
    """Share of the variance of a true value that the heads explain."""
    with torch.no_grad():
        read = head_reader(model.generator, model.bank.space, lambda z: z)
        truth = survey(model.generator.synthesize(z))[name]
        return float(1 - (model.bank.predict(read(z))[name].mean - truth).square().mean() / truth.var())


@pytest.fixture(scope="module")
def lands(tmp_path_factory):
    """Models with heads on a terrain generator's noise and on its view, fitted to the same 800 labels."""
    found = {}
    for space, settings in (("w", HeadSettings(steps=30, hidden=4)), (None, HeadSettings(steps=400, hidden=32))):
        folder = tmp_path_factory.mktemp("land") / "m"
        bank = train_attributes(
            Terrain(), survey, folder, n=800, space=space, settings=settings, judge=None, progress=False
        ).bank
        found[bank.space] = Model("land", Terrain(), bank, judge=survey)
    return found


def test_heads_learn_from_the_view_what_they_cannot_learn_from_noise(lands):
    z = prior_latents(99, 0, 500, Terrain.z_dim)
    assert list(lands) == ["w", "features"]
    assert explained(lands["w"], z, "height") < 0.2
    assert explained(lands["w"], z, "lowest") < 0.1
    assert explained(lands["features"], z, "height") > 0.95
    assert explained(lands["features"], z, "lowest") > 0.5


def test_queries_on_the_view_are_true(lands):
    """By the function itself, with the default sampler; 5 to 6 % of the pictures without a query."""
    query = "lowest < -0.4 AND height > -0.05"
    weak = ["height", "lowest"]  # the heads on the noise, which queries refuse
    noise, view = (
        generate(query, 48, model=model, allow_weak=weak, progress=False).satisfied.mean() for model in lands.values()
    )
    assert view > noise + 0.4
    assert generate("lowest > -0.05 AND hill", 48, model=lands["features"], progress=False).satisfied.mean() > 0.9


def random_model(judge=None) -> Model:
    halves = Halves()
    bank = AttributeBank(VOCABULARY, random_heads(VOCABULARY, 4), fitted=FittedUnder("features"))
    return Model("halves", halves, bank, judge)


def test_what_offers_a_view(tmp_path):
    assert offers_features(Halves())
    assert not offers_features(Layered())
    assert latent_size(Halves(), "features") == 4

    def never(images):
        raise AssertionError("labelled")

    for make in (
        lambda: latent_size(Layered(), "features"),
        lambda: train_attributes(Layered(), never, tmp_path / "m", space="features"),
    ):
        with pytest.raises(
            ArgumentError, match="a Layered has no features of z that heads could read\ngive it a method"
        ):
            make()
    assert not (tmp_path / "m").exists()


def test_energies_and_gradients_are_those_of_the_view():
    model = random_model()
    z = prior_latents(0, 0, 5, 32)
    prepared = plan_query(open_session(model, "cpu"), "smile AND (hair = brown OR age > 0.5)")
    energy, gradient = prepared.energy.gradient(z)
    assert torch.allclose(energy, prepared.energy.of_latent(model.generator.features(z)), atol=1e-5)
    variable = z.clone().requires_grad_()
    (expected,) = torch.autograd.grad(prepared.energy(variable).sum(), variable)
    assert torch.allclose(gradient, expected, atol=1e-5)
    assert gradient.abs().amin() > 0


def test_results_have_the_energies_that_were_sampled():
    result = generate("smile AND age > 0.5", 16, model=random_model(), progress=False)
    energy = plan_query(open_session(random_model(), "cpu"), "smile AND age > 0.5").energy
    assert np.allclose(result.energy, energy(result.z).detach().numpy(), atol=1e-5)
    assert (result.probability > 0.5).mean() > 0.7


def test_a_view_has_all_threads_in_an_edit(monkeypatch):
    numbers, before, features = set(), torch.get_num_threads(), Halves.features
    monkeypatch.setattr(Halves, "features", lambda self, z: numbers.add(torch.get_num_threads()) or features(self, z))
    torch.set_num_threads(2)
    try:
        edit(0, "smile", n=1, model=random_model(), preset=Preset(max_evaluations=3), progress=False)
    finally:
        torch.set_num_threads(before)
    assert numbers == {2}


def test_read_outs_follow_a_view_of_a_small_z():
    prepared = plan_query(open_session(random_model(), "cpu"), "smile")
    z = prior_latents(3, 0, 500, 32)
    pairs = (
        (prepared.surrogates().linear(("smile",)), z),
        (prepared.model.bank, prepared.model.generator.features(z)),
    )
    own, heads = (bank.predict(read)["smile"].logit for bank, read in pairs)
    assert torch.corrcoef(torch.stack([own, heads]))[0, 1] > 0.9


def test_edits_on_a_view():
    model = random_model()
    done = edit(3, "smile AND glasses", n=8, model=model, progress=False)
    last = done.steps[-1]
    with torch.no_grad():
        read = model.bank.predict(model.generator.features(last.z))
    assert (read["smile"].logit > 0).float().mean() > 0.8
    assert (last.z - prior_latents(3, 0, 8, 32)).norm(dim=1).mean() < 32**0.5


def test_evaluation_on_a_view():
    model = random_model(judge=lambda images: {})
    subject, z = EvaluatedModel(model), prior_latents(0, 0, 4, 32)
    with torch.no_grad():
        read = model.bank.predict(model.generator.features(z))
    assert (subject.read_heads(z)["smile"] == (read["smile"].logit > 0).numpy()).all()
    prepared = subject.plan("smile AND glasses", semantics="lace")
    assert torch.allclose(PublishedEnergy(prepared.rule, subject.reads, model.bank)(z), prepared.energy(z), atol=1e-5)


def look(images):
    return {"bright": images.mean((1, 2, 3)) > 0}


def test_labelled_latents_are_z(tmp_path):
    z = prior_latents(5, 0, 80, 32)
    with torch.no_grad():
        cells = look(Halves().synthesize(z))["bright"].tolist()
    by_index = train_attributes(
        Halves(), LabelTable({"bright": cells}, index=torch.arange(80)), tmp_path / "a", seed=5, n=0, **QUICK
    )
    by_latents = train_attributes(Halves(), LabelTable({"bright": cells}, latents=z), tmp_path / "b", seed=5, **QUICK)
    assert by_index.bank.space == by_latents.bank.space == "features"
    heads = [made.bank.heads["bright"].tensors() for made in (by_index, by_latents)]
    assert all(torch.allclose(heads[0][name], tensor) for name, tensor in heads[1].items())
    with pytest.raises(DataError, match="latents of 4 numbers, but z has 32"):
        train_attributes(Halves(), LabelTable({"bright": cells}, latents=z[:, :4]), tmp_path / "c", **QUICK)


def test_a_folder_of_heads_on_a_view(tmp_path):
    bank = train_attributes(Halves(), look, tmp_path / "m", n=60, **QUICK).bank
    assert bank.space == "features"
    again = train_attributes(Halves(), lambda x: {"dark": x.mean((1, 2, 3)) < 0}, tmp_path / "m", n=60, **QUICK).bank
    assert (again.space, list(again.vocabulary)) == ("features", ["bright", "dark"])
    assert load_model(tmp_path / "m", generator=Halves()).bank.latent_dim == 4
    AttributeBank(bank.vocabulary, bank.heads, fitted=FittedUnder("features")).save(tmp_path / "m")
    with pytest.raises(ModelError, match="m: a Layered has no features of z"):
        load_model(tmp_path / "m", generator=Layered())

    class Other(Halves):
        def features(self, z):
            return z[:, :7]

    with pytest.raises(ModelError, match="heads read 4 numbers but features has 7"):
        load_model(tmp_path / "m", generator=Other())
    assert bank.generator == module_fingerprint(Halves())
