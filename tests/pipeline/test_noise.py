"""Noise of a generator that adds some: that of the model, another for each picture, or none."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from toys import CONFIG, VOCABULARY, pixels, random_generator, random_heads

import energyql
from energyql import Model, Result, edit, generate, load_model, stream, truth_table, until_satisfied
from energyql.attributes.heads import AttributeBank
from energyql.errors import ArgumentError, DataError
from energyql.numerics.random import normals

QUERY = "smile OR glasses"


@pytest.fixture
def draw(tiny):
    def call(n=4, query=QUERY, **options):
        return generate(query, n, **{"model": tiny, "device": "cpu", "progress": False} | options)

    return call


def test_each_kind_is_that_of_the_generator(draw, tiny):
    generator, numbers = load_model(tiny).generator, normals(3, 0, 4, CONFIG.noise_size, stream="noise")
    for kind, noise in (("const", "const"), ("none", "none"), ("random", numbers)):
        result = draw(seed=3, noise=kind)
        exact = (generator.synthesize(result.w, noise).clamp(-1, 1) + 1).permute(0, 2, 3, 1).numpy() * 127.5
        shown = np.stack([np.asarray(image) for image in result.images]).astype(float)
        assert np.abs(shown - exact).max() < 0.6
        assert result.provenance["noise"] == kind
    assert pixels(draw(seed=3).images) == pixels(draw(seed=3, noise="const").images)
    assert len({*pixels(draw().images), *pixels(draw(noise="none").images), *pixels(draw(noise="random").images)}) == 12


def test_latents_do_not_depend_on_it(draw):
    usual, other = draw(), draw(noise="random")
    assert torch.equal(usual.z, other.z)
    assert np.array_equal(usual.energy, other.energy)
    assert usual.judged["age"].tolist() != other.judged["age"].tolist()  # the judge looks at the picture


def test_a_picture_does_not_depend_on_its_batch(draw):
    whole = pixels(draw(6, noise="random").images)
    assert pixels(draw(6, noise="random", batch_size=2).images) == whole
    assert pixels(draw(2, noise="random", first=4).images) == whole[4:]
    assert pixels(draw(6, noise="random", seed=1).images) != whole
    assert len(set(whole)) == 6


def test_runs_until_satisfied(draw, tiny):
    found = until_satisfied(QUERY, 3, model=tiny, device="cpu", progress=False, noise="random")
    drawn = draw(int(found.index.max()) + 1, noise="random")
    assert pixels(found.images) == pixels([drawn.images[i] for i in found.index])


def test_a_folder_holds_one_kind(draw, tiny, tmp_path):
    options = {"model": tiny, "device": "cpu", "progress": False, "out": tmp_path, "noise": "random"}
    list(stream(QUERY, 2, **options))
    list(stream(QUERY, 4, **options))
    loaded = Result.load(tmp_path)
    assert loaded.provenance["noise"] == "random"
    assert pixels(loaded.images) == pixels(draw(noise="random").images)
    with pytest.raises(DataError, match="another noise: random, not const"):
        stream(QUERY, 4, **options | {"noise": "const"})


def test_a_folder_of_an_earlier_version_is_continued(tiny, tmp_path):
    options = {"model": tiny, "device": "cpu", "progress": False, "out": tmp_path}
    list(stream(QUERY, 2, **options))
    data = json.loads((tmp_path / "result.json").read_text())
    del data["provenance"]["noise"]
    (tmp_path / "result.json").write_text(json.dumps(data))
    list(stream(QUERY, 3, **options))
    assert len(Result.load(tmp_path)) == 3


def test_galleries(draw, tiny):
    table = truth_table("smile", n=2, model=tiny, device="cpu", progress=False, noise="none").sections[0]
    assert pixels(table.rows[0].result.images) == pixels(draw(2, "smile", noise="none").images)


class TestEdits:
    @pytest.fixture
    def edit(self, tiny):
        return partial(edit, model=tiny, device="cpu", preset="query-only", progress=False)

    def test_noise_stays_that_of_the_start(self, draw, edit, tiny, tmp_path):
        edited = edit(draw(2, seed=5, noise="random")[[1]], "smile")
        generator, final = load_model(tiny).generator, edited.final
        noise = normals(5, 1, 1, CONFIG.noise_size, stream="noise")
        exact = (generator.synthesize(final.w, noise).clamp(-1, 1) + 1).permute(0, 2, 3, 1).numpy() * 127.5
        assert np.abs(np.asarray(final.images[0], float) - exact[0]).max() < 0.6
        assert (final.provenance["noise"], final.provenance["seed"]) == ("random", 5)
        again = edit(edited.save(tmp_path / "edit"), "glasses")
        assert again.final.provenance["noise"] == "random"

    def test_a_seed(self, edit):
        start = edit(5, "smile", n=2, noise="random").start
        assert (start.provenance["seed"], start.provenance["noise"]) == (5, "random")
        assert pixels(start.images) != pixels(edit(5, "smile", n=2).start.images)

    def test_joined_runs(self, draw, edit):
        joined = Result.join([draw(1, seed=5, noise="random"), draw(1, seed=6, noise="random")])
        with pytest.raises(ArgumentError, match='runs of different noise\ngive noise="const"'):
            edit(joined, "smile")
        assert edit(joined, "smile", noise="const").final.provenance["noise"] == "const"

    def test_animations_are_refused(self, draw, tiny, tmp_path):
        stops = [draw(2, noise="random"), draw(2, "NOT smile", noise="random")]
        with pytest.raises(ArgumentError, match='cannot be animated\ndraw them with noise="const"'):
            energyql.animate(stops, tmp_path / "a.webp", model=tiny, device="cpu")


class TestRefused:
    def test_another_generator(self):
        class Plain:
            z_dim = 16

            def encode(self, z, truncation=1.0):
                return truncation * z

            def synthesize(self, w):
                return torch.zeros(len(w), 3, 8, 8)

        model = Model("plain", Plain(), AttributeBank(VOCABULARY, random_heads(VOCABULARY, 16)))
        assert generate(QUERY, 1, model=model, progress=False, noise="const").provenance["noise"] == "const"
        with pytest.raises(ArgumentError, match="this Plain adds no noise, so it cannot be drawn with noise 'none'"):
            generate(QUERY, 1, model=model, progress=False, noise="none")

    def test_a_stylegan2_whose_noise_has_no_strength(self):
        generator = random_generator()
        for name, strength in generator.named_parameters():
            if name.endswith("noise_strength"):
                strength.zero_()
        bank = AttributeBank(VOCABULARY, random_heads(VOCABULARY, CONFIG.w_dim))
        with pytest.raises(ArgumentError, match="this StyleGAN2 adds no noise"):
            generate(QUERY, 1, model=Model("quiet", generator, bank), progress=False, noise="random")

    def test_another_kind(self, draw):
        with pytest.raises(ArgumentError, match="there is no noise 'loud'\nchoose const, random, none"):
            draw(noise="loud")


def test_the_command_line(draw, tiny, tmp_path):
    from typer.testing import CliRunner

    from energyql.cli.main import app

    command = ["--model", str(tiny), "--noise", "none", "--quiet", "--device", "cpu"]
    done = CliRunner().invoke(app, ["generate", QUERY, "-n", "1", "--out", str(tmp_path / "run"), *command])
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "run" / "00000.png") as picture:
        assert picture.tobytes() == draw(1, noise="none").images[0].tobytes()
    done = CliRunner().invoke(app, ["edit", "smile", "--out", str(tmp_path / "edit"), *command])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "edit" / "1" / "result.json").read_text())["provenance"]["noise"] == "none"
