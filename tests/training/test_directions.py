"""Directions that are found are those that were planted, and named ones are attributes like any other."""

import dataclasses
import json

import pytest
import torch
from labelled import CHECKPOINTS
from planted import SPREAD, Planted, drawn
from torch.testing import assert_close

from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank, Head
from energyql.errors import ArgumentError, DataError
from energyql.files import fingerprint, write_tensors
from energyql.generators import base
from energyql.generators.load import load_generator
from energyql.generators.stylegan3 import StyleGAN3, StyleGAN3Config
from energyql.pipeline.model import Model
from energyql.pipeline.source import ModelSource
from energyql.sampling import prior_latents
from energyql.training import directions as directions_module
from energyql.training.directions import Directions, find_directions
from energyql.training.samples import Prior, draw_small
from energyql.vocabulary import AttributeSpec, Vocabulary


def aligned(a, b):
    return torch.cosine_similarity(a.double(), b.double(), dim=-1).abs()


def test_ganspace_finds_planted_axes():
    generator = Planted()
    directions = find_directions(generator, "ganspace", 4, truncation=0.5)
    assert (aligned(directions.move, generator.axes[:, :4].t()) > 0.995).all()
    assert_close(directions.move.norm(dim=1), SPREAD[:4] / 2, rtol=0.05, atol=0)
    assert_close(directions.share, SPREAD[:4].square() / SPREAD.square().sum(), rtol=0.1, atol=0)
    assert directions.titles == ("0", "1", "2", "3")
    assert (directions.truncation, directions.layers, directions.generator) == ((0.5, 0.5), None, "")
    values = directions.values(drawn(generator, 0.5))
    assert values.mean(0).abs().max() < 0.05
    assert (values.std(0) - 1).abs().max() < 0.05
    assert_close(directions.quantiles[0], torch.tensor([-2.33, -0.99, 0.0, 0.99, 2.33]), rtol=0, atol=0.15)


def test_a_move_by_one_raises_its_own_value_by_one_and_no_principal_component_else():
    directions = find_directions(Planted(), "ganspace", 4)
    assert_close(directions.move @ directions.normal.t(), torch.eye(4), rtol=0, atol=1e-4)


def test_the_same_call_finds_the_same(gan, found):
    again = find_directions(gan, "sefa", 4, truncation=0.7)
    assert torch.equal(again.normal, found.normal)
    assert torch.equal(again.quantiles, found.quantiles)
    peaks = found.move.gather(1, found.move.abs().argmax(1, keepdim=True))
    assert (peaks > 0).all()  # the sign does not hang on the library of linear algebra


@pytest.mark.parametrize("layers", [None, [1, 0], [3]])
def test_sefa_is_the_eigendecomposition_of_the_style_weights(gan, layers):
    synthesis = gan.synthesis
    affines = [synthesis.b4.conv1, synthesis.b8.conv0, synthesis.b8.conv1, synthesis.b16.conv0, synthesis.b16.conv1]
    affines = [layer.conv.affine for layer in (*affines, synthesis.b16.torgb)]
    rows = torch.cat([affines[i].weight for i in (range(6) if layers is None else layers)]).double()
    rows /= rows.norm(dim=1, keepdim=True)
    variances, vectors = torch.linalg.eigh(rows.t() @ rows)
    directions = find_directions(gan, "sefa", 3, layers=layers, truncation=0.7)
    assert directions.layers == (None if layers is None else tuple(sorted(layers)))
    assert_close(directions.share.double(), variances.flip(0)[:3] / variances.sum(), rtol=1e-4, atol=0)
    w = drawn(gan, 0.7)
    places = w.double() @ vectors.flip(1)[:, :3]
    values = directions.values(w).double()
    for i in range(3):
        assert torch.corrcoef(torch.stack([values[:, i], places[:, i]]))[0, 1].abs() > 0.999


def test_prior_samples_of_a_higher_value_lie_along_the_move(gan, found):
    """The reason why an attribute of the value does what the page shows."""
    w = drawn(gan, 0.7, 40_000)
    values = found.values(w)
    slopes = torch.stack([((v - v.mean())[:, None] * (w - w.mean(0))).mean(0) / v.var() for v in values.t()])
    assert (aligned(slopes, found.move) > 0.995).all()
    assert_close(slopes.norm(dim=1), found.move.norm(dim=1), rtol=0.05, atol=0)


def test_styles_are_the_principal_components_of_the_styles(gan):
    directions = find_directions(gan, "styles", 2, layers=[2], truncation=0.7)
    w = drawn(gan, 0.7, 20_000)
    styles = gan.synthesis.b8.conv1.conv.affine(w).double()
    variances, vectors = torch.linalg.eigh(torch.cov(styles.t()))
    assert_close(directions.share.double(), variances.flip(0)[:2] / variances.sum(), rtol=0.1, atol=0)
    scores, values = styles @ vectors.flip(1)[:, :2], directions.values(w).double()
    for i in range(2):
        assert torch.corrcoef(torch.stack([values[:, i], scores[:, i]]))[0, 1].abs() > 0.99


def test_where_w_is_isotropic_only_pictures_tell_directions_apart(monkeypatch):
    monkeypatch.setattr(directions_module, "PICTURES", 600)
    generator = Planted(torch.ones(5))
    with pytest.raises(ArgumentError, match="w varies alike in all directions") as caught:
        find_directions(generator, "ganspace")
    assert '"pictures"' in caught.value.hint
    directions = find_directions(generator, "pictures", 2)
    assert (aligned(directions.move, generator.axes[:, [3, 1]].t()) > 0.98).all()
    assert_close(directions.share, torch.tensor([1 / 1.01, 0.01 / 1.01]), rtol=0.2, atol=0)


def test_interfacegan_follows_the_heads(tmp_path):
    generator, none = Planted(), torch.zeros(0)
    vocabulary = Vocabulary(
        [AttributeSpec("up", "yes/no"), AttributeSpec("side", "categorical", values=("l", "m", "r"))]
    )
    rows = {"up": -2.0 * generator.axes[:, 2:3].t(), "side": generator.axes[:, :3].t()}
    heads = {
        name: Head(none.view(0, 5), none, none.view(len(row), 0), row, torch.zeros(len(row)), torch.ones(()))
        for name, row in rows.items()
    }
    model = Model("planted", generator, AttributeBank(vocabulary, heads))
    directions = find_directions(model, "interfacegan", 10)
    assert directions.titles == ("up", "side = l", "side = m", "side = r")
    assert_close(directions.share, torch.ones(4), rtol=1e-3, atol=0)
    up = directions.values(drawn(generator, 1.0))[:, 0]
    assert torch.corrcoef(torch.stack([up, drawn(generator, 1.0) @ rows["up"][0]]))[0, 1] > 0.999  # with the sign
    with pytest.raises(ArgumentError, match="no heads"):
        find_directions(generator, "interfacegan")


def test_the_styles_of_each_layer_of_a_stylegan3():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = StyleGAN3Config(
            resolution=16, z_dim=4, w_dim=12, num_layers=3, num_critical=1, channel_base=64, channel_max=6
        )
        generator = StyleGAN3(config).eval().requires_grad_(False)
    affines = generator.synthesis.affines
    assert len(affines) == config.num_ws
    ws = generator.encode(prior_latents(0, 0, 1, 4))[:, None].repeat(1, config.num_ws, 1)
    before = generator.synthesize(ws)
    for row, affine in enumerate(affines):  # what the weight of a row does not read has no effect there
        moved = ws.clone()
        moved[:, row] += 5 * torch.linalg.svd(affine.weight, full_matrices=True)[2][-1]
        assert_close(generator.synthesize(moved), before, rtol=1e-4, atol=1e-4)
        moved[:, row] += torch.linalg.svd(affine.weight)[2][0]
        if row:  # untrained, the place of the Fourier features does not depend on w
            assert (generator.synthesize(moved) - before).abs().max() > 1e-3
    assert len(find_directions(generator, "sefa", 3)) == 3


def test_wrong_arguments(gan, monkeypatch):
    for arguments, message in (
        ({"method": "pca"}, "no method 'pca'"),
        ({"n": 0}, "n must be a whole number from 1 to .*, not 0"),
        ({"n": "1"}, "n must be a whole number from 1 to .*, not '1'"),
        ({"n": 2.5}, "n must be a whole number from 1 to .*, not 2.5"),
        ({"n": 17}, "directions only, not 17"),
        ({"layers": [6]}, "layers are whole numbers from 0 to 5"),
        ({"layers": []}, "at least one"),
        ({"layers": 3}, "layers are whole numbers from 0 to 5, at least one, not 3"),
        ({"layers": "12"}, "layers are whole numbers from 0 to 5, at least one, not '12'"),
        ({"truncation": float("nan")}, "truncation must be a finite number, not nan"),
        ({"truncation": float("inf")}, "truncation must be a finite number, not inf"),
        ({"truncation": -0.5}, "truncation is a number from 0 to 2, not -0.5"),
        ({"device": "gpu"}, "device 'gpu' is not available here"),
    ):
        with pytest.raises(ArgumentError, match=message):
            find_directions(gan, **arguments)
    monkeypatch.setattr(directions_module, "draw_small", lambda *_: pytest.fail("pictures were drawn"))
    with pytest.raises(ArgumentError, match="directions only, not 17"):
        find_directions(gan, "pictures", 17)
    with pytest.raises(ArgumentError, match="for a model folder that names one"):
        find_directions(ModelSource(gan, generator="a:b"))
    for arguments, message in (
        ({"method": "sefa"}, "sefa reads the maps from w to styles, which a Planted does not have"),
        ({"layers": [0]}, "a Planted has no layers"),
        ({"truncation": 0.0}, "w is the same for all samples"),
    ):
        with pytest.raises(ArgumentError, match=message):
            find_directions(Planted(), **arguments)
    with pytest.raises(ArgumentError, match="maps prior samples to numbers that are not finite"):
        find_directions(Planted(SPREAD * torch.nan))


def test_saved_and_read(found, gan, tmp_path):
    found.save(tmp_path)
    again = Directions.load(tmp_path)
    for field in dataclasses.fields(Directions):
        one, other = getattr(found, field.name), getattr(again, field.name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    again.check_generator(gan)
    with pytest.raises(ArgumentError, match="another generator") as caught:
        again.check_generator(load_generator(CHECKPOINTS / "ada.pkl"))
    assert "or give the model that they were found from" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("normal", lambda part: part * torch.nan),
        ("normal", lambda part: part[0, 0]),
        ("offset", lambda part: part / 0),
        ("offset", lambda part: part[:, None]),
        ("move", lambda part: part[:, 1:]),
        ("share", lambda part: part.int()),
        ("quantiles", lambda part: part[:, 1:]),
        ("quantiles", lambda part: part.double()),
    ],
)
def test_tensors_that_do_not_fit(name, change, found, tmp_path):
    found.save(tmp_path)
    parts = {each: getattr(found, each) for each in ("normal", "offset", "move", "share", "quantiles")}
    parts[name] = change(parts[name])
    write_tensors(tmp_path / "directions.safetensors", parts)
    path = tmp_path / "directions.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"tensors": fingerprint(path.with_suffix(".safetensors"))})
    )
    with pytest.raises(DataError, match=f"{name} of 4 directions must be finite numbers, float32, of shape"):
        Directions.load(tmp_path)
    with pytest.raises(ArgumentError, match=f"{name} of 4 directions must be"):  # so none are named
        dataclasses.replace(found, **{name: parts[name]})


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"layers": [-1]}, "layers are whole numbers from 0, not"),
        ({"layers": [1.5]}, "layers are whole numbers from 0, not"),
        ({"layers": 3}, "not iterable"),
        ({"truncation": [0.5, float("nan")]}, "is no range of truncation"),
        ({"truncation": [0.5, float("inf")]}, "is no range of truncation"),
        ({"truncation": [0.7, 0.5]}, "is no range of truncation"),
        ({"truncation": [0.7, 1e308]}, "is no range of truncation"),
        ({"truncation": "ab"}, "not supported between"),
        ({"directions": []}, "there are no directions"),
        ({"method": "\x1b[31m"}, "must not hold the control character"),
        ({"method": 3}, "must be a string"),
    ],
)
def test_a_record_that_does_not_fit(record, message, found, tmp_path):
    found.save(tmp_path)
    path = tmp_path / "directions.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | record))
    with pytest.raises(DataError, match=message):
        Directions.load(tmp_path)


@pytest.mark.parametrize("damage", ["missing", "other", "fields", "text"])
def test_damaged(found, tmp_path, damage):
    found.save(tmp_path)
    path = tmp_path / "directions.json"
    data = json.loads(path.read_text())
    if damage == "missing":
        (tmp_path / "directions.safetensors").unlink()
    elif damage == "other":
        path.write_text(json.dumps(data | {"tensors": "0" * 64}))
    elif damage == "fields":
        path.write_text(json.dumps(data | {"directions": [{"title": "0"}]}))
    else:
        path.write_text("{")
    with pytest.raises(DataError) as caught:
        Directions.load(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert "energyql directions" in caught.value.hint


def test_small_pictures_are_drawn_as_many_at_a_time_as_all_others(monkeypatch):
    monkeypatch.setattr(base, "PIXEL_BATCH", 3 * 16 * 16)
    sizes, done = [], []

    class Drawn(Planted):
        def synthesize(self, w):
            sizes.append(len(w))
            return w[:, :3, None, None].expand(-1, -1, 16, 16)

    prior = Prior(Drawn(), 0, FittedUnder(), torch.device("cpu"))
    found = draw_small(prior, 8, 4, lambda _, share: done.append(share))
    assert sizes == [1, 3, 3, 1]
    assert done == [1 / 8, 4 / 8, 7 / 8, 1.0]
    expected = prior.w(torch.arange(8))[:, :3, None].expand(-1, -1, 16).flatten(1)
    assert_close(found, expected.double(), rtol=1e-5, atol=1e-5)
