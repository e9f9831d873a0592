"""Edits of a tiny random model: what is kept, settings, files and mistakes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from toys import CONFIG, pixels, tiny_model
from typer.testing import CliRunner

import energyql
from energyql import E, edit, generate, load_model
from energyql.cli.edit import read_keep, read_layers, read_preset, read_start
from energyql.cli.main import app
from energyql.editing.settings import PRESETS, Preset
from energyql.errors import ArgumentError, UnknownAttribute

QUERIES = ["smile", "hair = black", "age > 0.5"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(tiny_model(tmp_path_factory.mktemp("model"), space="z"))


def run(start, queries, model, **settings):
    return edit(start, queries, model=model, progress=False, **settings)


@pytest.fixture(scope="module")
def edited(model):
    return run(5, QUERIES, model, n=6)


class TestSteps:
    def test_the_heads_are_brought_to_say_what_is_asked(self, edited):
        last = edited.final.probabilities
        assert (last["smile"] > 0.9).all()
        assert (last["hair"]["black"] > 0.9).all()
        assert (edited.final.energy < 0.3).all()
        assert [str(step.provenance["query"]) for step in edited.steps] == [
            "smile",
            "smile AND hair = black",
            "smile AND hair = black AND age > 0.5",
        ]

    def test_predictions_of_the_rest_stay(self, edited, model):
        free = run(5, QUERIES, model, n=6, preset=replace(PRESETS["default"], keep_predictions=0.0))

        def moved(result):  # after two steps: in this model the query of the third takes glasses with it
            before, after = result.start.probabilities, result.steps[1].probabilities
            return np.mean([np.abs(after[name] - before[name]).mean() for name in ("glasses", "beard")])

        assert moved(edited) < 0.1
        assert moved(edited) < 0.6 * moved(free)

    def test_only_what_is_named_is_kept(self, model):
        some = run(5, ["smile"], model, n=2, keep=["beard"])
        assert some.leaks[0].kept == ("beard",)

    def test_one_picture_is_the_same_in_any_company(self, edited, model):
        alone = run(edited.start.select([3]), QUERIES, model)
        assert torch.allclose(alone.steps[0].z, edited.steps[0].z[3:4], atol=1e-3)
        # Minima are found to a thousandth of a nat, and lie in valleys that are flat: rounding moves them along.
        assert torch.allclose(alone.final.z, edited.final.z[3:4], atol=0.1)

    def test_again(self, edited, model):
        assert pixels(run(5, QUERIES, model, n=6).final.images) == pixels(edited.final.images)

    def test_alone_asks_for_its_own_query_only(self, model):
        alone = run(5, ["smile", "NOT smile"], model, n=4, mode="alone")
        assert alone.steps[1].provenance["query"] == "NOT smile"
        assert (alone.final.probabilities["smile"] < 0.1).all()

    def test_a_later_query_takes_the_place_of_one_that_it_makes_impossible(self, model):
        turned = run(5, ["smile", "NOT smile"], model, n=4)
        assert turned.leaks[1].superseded == ("smile",)
        assert (turned.final.probabilities["smile"] < 0.1).all()

    def test_trees_and_a_single_query(self, model):
        assert run(5, E.smile & ~E.beard, model).queries == ["smile AND NOT beard"]

    @pytest.mark.parametrize("preset", list(PRESETS))
    def test_presets(self, model, preset):
        result = run(5, ["smile", "age > 0.5"], model, n=2, preset=preset)
        assert result.provenance["preset"]["near_z"] == PRESETS[preset].near_z
        assert len(result.steps) == 2

    def test_heads_that_read_w(self, tiny):
        result = run(2, ["smile"], tiny, n=3, truncation=0.7)  # these heads are never surer than 0.914
        assert (result.final.probabilities["smile"] > 0.9).all()

    def test_what_is_not_yet_true_gains_weight(self, model):
        plain = run(5, ["smile"], model, n=6, strength=0.2, preset=Preset(enough=100.0))
        surer = run(5, ["smile"], model, n=6, strength=0.2, preset=Preset(enough=0.1))
        assert (plain.final.probabilities["smile"] < 0.8).any()
        assert (surer.final.probabilities["smile"] > 0.8).all()
        settled = plain.final.energy <= 0.1
        assert torch.equal(plain.final.z[settled], surer.final.z[settled])

    def test_progress_is_told_and_can_end_the_run(self, model):
        told = []

        def stop(stage, fraction):
            told.append(stage)
            if stage == "editing":
                raise InterruptedError

        with pytest.raises(InterruptedError):
            edit(0, ["smile"], model=model, progress=stop)
        assert told[-1] == "editing"


@pytest.fixture(scope="module")
def turning(tmp_path_factory):
    return load_model(tiny_model(tmp_path_factory.mktemp("direction"), space="direction"))


class TestLengthOfZ:
    """Where neither heads nor generator see how long z is, edits turn it."""

    @pytest.mark.parametrize("length", [0.01, 1.0, 30.0])
    def test_it_does_not_matter(self, turning, length):
        z = torch.randn(4, CONFIG.z_dim, generator=torch.Generator().manual_seed(1))
        expected, found = (run(start, QUERIES, turning) for start in (z, length * z))
        assert (expected.final.probabilities["smile"] > 0.9).all()
        assert torch.allclose(found.final.z, expected.final.z, atol=1e-2)
        assert torch.allclose(found.final.z.norm(dim=1), torch.tensor(CONFIG.z_dim**0.5), atol=1e-3)

    @pytest.mark.parametrize("preset", ["lace", "query-only"])
    def test_flows(self, turning, preset):
        result = run(5, QUERIES, turning, n=3, preset=preset)
        assert torch.allclose(result.final.z.norm(dim=1), torch.tensor(CONFIG.z_dim**0.5), atol=1e-3)

    def test_from_the_middle_of_all_directions(self, turning):
        result = run(torch.zeros(1, CONFIG.z_dim), ["smile"], turning)
        assert result.final.probabilities["smile"] > 0.9

    def test_it_counts_where_heads_read_it(self, model):
        z = torch.full((1, CONFIG.z_dim), 2.0)
        nearly_nothing = Preset(strength=1e-6, enough=100.0)
        assert torch.allclose(run(z, ["smile"], model, preset=nearly_nothing).final.z, z, atol=0.01)


class TestStarts:
    def test_seeds(self, model):
        both = run([5, 8], ["smile"], model)
        assert torch.equal(both.start.z[1:], run(8, ["smile"], model).start.z)

    @pytest.mark.parametrize("kind", [torch.Tensor, np.ndarray])
    def test_latents(self, model, kind):
        z = torch.randn(2, CONFIG.z_dim, generator=torch.Generator().manual_seed(0))
        begun = run(z if kind is torch.Tensor else z.double().numpy(), ["smile"], model).start
        assert torch.allclose(begun.z, z)

    def test_a_result_keeps_its_truncation(self, model):
        first = generate("beard", 2, model=model, truncation=0.6, progress=False)
        result = run(first, ["smile"], model)
        assert result.start is first
        assert result.final.provenance["truncation"] == 0.6

    def test_a_folder_that_was_saved(self, edited, model, tmp_path):
        again = run(edited.save(tmp_path / "edit"), ["glasses"], model)
        expected = run(edited, ["glasses"], model)
        assert torch.allclose(again.final.z, expected.final.z)
        assert again.final.provenance["truncation"] == edited.final.provenance["truncation"]
        assert again.start.index.tolist() == edited.final.index.tolist()
        first = run(str(tmp_path / "edit" / "1"), ["glasses"], model)
        assert torch.equal(first.start.z, edited.steps[0].z)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("latents.safetensors", None),
            ("latents.safetensors", "text"),
            ("result.json", "{}"),
            ("result.json", '{"samples": [], "provenance": {}}'),
            ("result.json", '{"samples": 3, "provenance": 3}'),
        ],
    )
    def test_a_folder_that_holds_no_result(self, edited, model, tmp_path, name, content):
        folder = edited.final.save(tmp_path / "result")
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_text(content, encoding="utf-8")
        with pytest.raises(ArgumentError, match="holds no result" if content is None else "holds a damaged result"):
            run(folder, ["glasses"], model)

    def test_an_edit_goes_on(self, edited, model):
        assert run(edited, ["glasses"], model).start is edited.final

    @pytest.mark.parametrize(
        ("start", "message"),
        [
            (None, "an edit cannot start from None"),
            (True, "an edit cannot start from True"),
            (-1, "a seed must be a whole number"),
            ([], "an edit cannot start from"),
            ([1, "x.png"], "an edit cannot start from"),
            (torch.zeros(2, 3), r"floating point of shape \(n, 8\)"),
            (torch.full((1, 8), torch.nan), "must be finite"),
            ("missing.png", "there is no picture missing.png"),
        ],
    )
    def test_nothing_to_start_from(self, model, start, message):
        with pytest.raises(ArgumentError, match=message):
            run(start, ["smile"], model)

    def test_n_is_of_a_seed(self, model):
        with pytest.raises(ArgumentError, match="n is the number of samples of one seed"):
            run([1, 2], ["smile"], model, n=2)

    def test_a_result_of_another_model(self, model, tiny):
        other = replace(generate("smile", 1, model=model, progress=False))
        other.provenance["fingerprints"]["generator"] = "another"
        with pytest.raises(ArgumentError, match="made by another model"):
            run(other, ["smile"], model)


class TestLayers:
    def test_only_some_layers_change(self, model):
        result = run(5, ["smile"], model, n=2, layers=[1, 2])
        before, after = result.start.w, result.final.w
        assert after.shape == (2, CONFIG.num_ws, CONFIG.w_dim)
        same = [(after[:, i] - before).abs().max() < 1e-5 for i in range(CONFIG.num_ws)]
        assert same == [i not in (1, 2) for i in range(CONFIG.num_ws)]
        more = run(result, ["glasses"], model)  # from W+ on
        assert more.final.w.shape == after.shape

    def test_layers_of_an_attribute(self, model):
        result = run(5, ["smile", "age > 0.5"], model, layers={"smile": [0]})
        assert (result.steps[0].w[:, 1] - result.start.w).abs().max() < 1e-5
        assert (result.steps[1].w[:, 1] - result.start.w).abs().max() > 1e-3

    def test_attributes_that_are_none(self, model):
        with pytest.raises(ArgumentError, match="layers are given for 'smirk'"):
            run(5, ["smile"], model, layers={"smirk": [0]})


class TestIdentity:
    def test_it_holds_the_picture(self, model):
        def embed(images):
            return images.flatten(1)

        def similarity(result):
            first, last = (
                torch.stack([torch.from_numpy(np.array(image)).float().flatten() - 127.5 for image in part.images])
                for part in (result.start, result.final)
            )
            return torch.cosine_similarity(first, last).mean()

        held = run(5, ["smile"], model, n=4, identity=embed, preset=Preset(identity=50.0))
        assert similarity(held) > similarity(run(5, ["smile"], model, n=4))

    def test_a_preset_without_weight_for_it(self, model):
        with pytest.raises(ArgumentError, match="identity has no weight"):
            run(5, ["smile"], model, identity=torch.nn.Flatten(), preset="lace")


class TestOutput:
    def test_filmstrip(self, edited):
        strip, two = edited.filmstrip(), edited.filmstrip([0, 1])
        assert strip.width == two.width > 4 * 100
        assert strip.height > 2 * two.height
        with pytest.raises(ArgumentError, match="there is no picture 6"):
            edited.filmstrip([6])

    @pytest.mark.parametrize("suffix", [".gif", ".webp"])
    def test_animation(self, edited, tmp_path, suffix):
        path = edited.animate(tmp_path / f"edit{suffix}", rows=[0, 1], frames=3)
        with Image.open(path) as picture:
            assert picture.n_frames >= 4
            assert picture.info["loop"] == 0

    def test_a_traversal(self, model, tmp_path):
        stops = [generate(query, 2, model=model, progress=False) for query in ("smile", "NOT smile")]
        path = energyql.animate(stops, tmp_path / "way.webp", model=model, frames=4)
        with Image.open(path) as picture:
            assert picture.n_frames == 5
        with pytest.raises(ArgumentError, match="at least two results"):
            energyql.animate(stops[:1], tmp_path / "way.webp", model=model)

    @pytest.mark.parametrize(
        ("name", "settings", "message"),
        [
            ("a.mp4", {}, "ends in .gif or .webp"),
            ("a.gif", {"frames": 0}, "frames must be"),
            ("a.gif", {"seconds": 0.001}, "seconds must lie"),
        ],
    )
    def test_animations_that_cannot_be(self, edited, tmp_path, name, settings, message):
        with pytest.raises(ArgumentError, match=message):
            edited.animate(tmp_path / name, **settings)

    def test_a_folder(self, edited, tmp_path):
        folder = edited.save(tmp_path / "all")
        data = json.loads((folder / "edit.json").read_text(encoding="utf-8"))
        assert [step["query"] for step in data["steps"]] == QUERIES
        assert len(data["steps"][0]["satisfied"]) == 6
        assert (folder / "filmstrip.png").is_file()
        assert {path.name for path in folder.iterdir() if path.is_dir()} == {"0-start", "1", "2", "3"}
        with pytest.raises(ArgumentError):
            edited.save(tmp_path / "all.txt")

    def test_summary(self, edited):
        assert edited.summary().count("of 6 satisfied, says the image judge") == 3
        assert repr(edited).startswith("<Edit of 6 pictures in 3 steps>")
        assert edited._repr_png_().startswith(b"\x89PNG")


class TestMistakes:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"mode": "both"}, "there is no mode 'both'"),
            ({"keep": ["smirk"]}, "no attribute 'smirk' to keep"),
            ({"keep": "smile"}, 'keep is "everything" or a list'),
            ({"preset": "best"}, "there is no preset 'best'"),
            ({"strength": -1.0}, "strength must be from 0 to 1,000,000"),
            ({"strength": 0.0}, "strength, newest and newest_continuous must be above 0"),
            ({"layers": [99]}, "layers are whole numbers"),
            ({"identity": 3}, "identity must be a function"),
            ({"truncation": 9.0}, "do not hold at truncation 9"),
        ],
    )
    def test_settings(self, model, settings, message):
        with pytest.raises(ArgumentError, match=message):
            run(5, ["smile"], model, **settings)

    def test_queries(self, model):
        with pytest.raises(ArgumentError, match="at least one query"):
            run(5, [], model)
        with pytest.raises(UnknownAttribute, match="smirk"):
            run(5, ["smile", "smirk"], model)


class TestCommand:
    @pytest.mark.parametrize("name", ["edit.png", "edit.gif", "edit.webp", "folder"])
    def test_edit(self, tiny, tmp_path, name):
        target = tmp_path / name
        done = CliRunner().invoke(app, ["edit", "smile", "-s", "3", "-m", str(tiny), "-o", str(target)])
        assert done.exit_code == 0, done.output
        assert target.exists()
        assert "1 of 1 satisfied" in done.output or "0 of 1 satisfied" in done.output

    def test_animate(self, tiny, tmp_path):
        target = tmp_path / "way.gif"
        done = CliRunner().invoke(
            app, ["animate", "smile", "beard", "-n", "1", "--frames", "2", "-q", "-m", str(tiny), "-o", str(target)]
        )
        assert done.exit_code == 0, done.output
        assert target.is_file()

    def test_options_are_read(self, tmp_path):
        assert read_start([str(tmp_path)]) == tmp_path
        assert read_start(["7"]) == 7
        assert read_start(["7", "8"]) == [7, 8]
        assert [str(path) for path in read_start(["a.png"])] == ["a.png"]
        with pytest.raises(ArgumentError, match="not from both"):
            read_start(["7", "a.png"])
        assert read_keep("everything") == "everything"
        assert read_keep("smile, age") == ["smile", "age"]
        assert read_layers(["0,2-4"]) == [0, 2, 3, 4]
        assert read_layers(["hair=6-8", "smile=1"]) == {"hair": [6, 7, 8], "smile": [1]}
        assert read_layers([]) is None
        with pytest.raises(ArgumentError, match="layers are written"):
            read_layers(["first"])
        with pytest.raises(ArgumentError, match="layers are given once, or for attributes"):
            read_layers(["1", "hair=2"])

    def test_weights(self):
        assert read_preset("lace", ["near_z=0.5", "keep_logits=0"]) == replace(
            PRESETS["lace"], near_z=0.5, keep_logits=0.0
        )
        with pytest.raises(ArgumentError, match="no weight 'far'") as caught:
            read_preset("default", ["far=1"])
        assert "near_w" in str(caught.value)
        with pytest.raises(ArgumentError, match="near_z=0.5, not 'near_z'"):
            read_preset("default", ["near_z"])
        with pytest.raises(ArgumentError, match="near_z must be from 0"):
            read_preset("default", ["near_z=-1"])
