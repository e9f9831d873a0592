import json
import shutil
import sys

import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks import digits as benchmark
from benchmarks import realism
from energyql import generate, load_model
from energyql.attributes.bank import PICTURE
from energyql.errors import ArgumentError, ModelError
from energyql.generators.families import module_fingerprint
from recipes.common import loop
from recipes.digits import training
from recipes.digits.card import sheet
from recipes.digits.data import DIGITS, JUDGE, LABELLER, TEST, real_digits, slant, thickness, vary
from recipes.digits.factories import MODELS
from recipes.digits.make import LENGTH, SPACES, STATES, fit_heads, main, make, read_made
from recipes.digits.networks import VAE, HierarchicalVAE, read_discriminator

SCALE = 1e-3
KINDS = tuple(SPACES)


def some_labels(images):
    """All classes, also for pictures of a network that has learned nothing."""
    numbers = (1e4 * images.flatten(1).abs().sum(1)).long()
    return {
        "digit": [DIGITS[i % 10] for i in numbers.tolist()],
        "thickness": 1 + numbers % 2,
        "slant": images[:, 0, 4, 4],
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of all three models after a few steps of training."""
    folder = tmp_path_factory.mktemp("digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipes.digits.make.Labeller", lambda network: some_labels)
        for kind in KINDS:
            make(kind, folder, scale=SCALE, progress=False)
    return folder


def bar(width, lean=0.0):
    """A picture of one bar of this width in pixels, which moves right by `lean` pixels a row upward."""
    rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    middle = 3.5 + lean * (3.5 - rows)
    return (((columns - middle).abs() < width / 2).float() * 2 - 1)[None, None]


def test_parts_of_the_data_have_no_picture_in_common():
    parts = [real_digits(part)[0].flatten(1) for part in (LABELLER, JUDGE, TEST)]
    assert [len(part) for part in parts] == [700, 700, 397]
    for i, part in enumerate(parts):
        for other in parts[i + 1 :]:
            assert torch.cdist(part, other, p=1).amin() > 0
    pictures, digits = real_digits(LABELLER, TEST)
    assert len(pictures) == len(digits) == 1097
    assert pictures.amin() == -1 and pictures.amax() == 1
    assert digits.unique().tolist() == list(range(10))


def test_measures_of_bars():
    assert thickness(bar(2)).item() < thickness(bar(4)).item()
    assert thickness(bar(2)).item() == pytest.approx(2 * 16 / 20, abs=0.2)
    assert slant(bar(2)).item() == pytest.approx(0, abs=1e-6)
    assert slant(bar(2, 0.5)).item() == pytest.approx(0.5, abs=0.1)
    assert slant(bar(2, -0.5)).item() == pytest.approx(-0.5, abs=0.1)
    empty = -torch.ones(1, 1, 8, 8)
    assert (thickness(empty).item(), slant(empty).item()) == (0, 0)


def test_distorted_pictures():
    pictures, random = real_digits(TEST)[0], torch.Generator().manual_seed(0)
    varied = vary(pictures, random, 0.5)
    changed = (varied != pictures).flatten(1).any(1)
    assert 0.4 < changed.float().mean() < 0.6
    assert varied.amin() >= -1 and varied.amax() <= 1
    assert (varied - pictures)[changed].abs().mean() < 0.3


def test_hierarchical_latents_are_normal_noise_through_two_levels():
    torch.manual_seed(0)
    network = HierarchicalVAE()
    top, noise = torch.randn(1, network.top), torch.randn(512, network.below)
    w = network.encode(torch.cat([top.expand(512, -1), noise], 1))
    assert torch.equal(w[:, : network.top], top.expand(512, -1))
    below = w[:, network.top :]
    mean = network.encode(torch.cat([top, torch.zeros(1, network.below)], 1))[:, network.top :]
    deviation = network.encode(torch.cat([top, torch.ones(1, network.below)], 1))[:, network.top :] - mean
    assert (deviation > 0).all()
    torch.testing.assert_close(below, mean + deviation * noise, atol=1e-5, rtol=1e-4)
    other = network.encode(torch.cat([-top, torch.zeros(1, network.below)], 1))[:, network.top :]
    assert not torch.allclose(mean, other)
    cold = network.encode(torch.cat([top, noise[:1]], 1), truncation=0.0)
    torch.testing.assert_close(cold, network.encode(torch.zeros(1, network.z_dim)))


@pytest.mark.parametrize("network", [VAE, HierarchicalVAE])
def test_a_posterior_that_is_the_prior_has_no_divergence(network):
    torch.manual_seed(0)
    vae = network().requires_grad_(False)
    images, random = real_digits(TEST)[0][:16], torch.Generator().manual_seed(1)
    assert (vae.draw(images, random)[1] > 0).all()
    for name, parameter in vae.named_parameters():
        if name.startswith("posterior"):
            parameter.zero_()
    w, divergence = vae.draw(images, random)
    torch.testing.assert_close(divergence, torch.zeros(16))
    assert vae.synthesize(w).shape == (16, 1, 8, 8)
    assert vae.synthesize(w).abs().amax() <= 1


class Stop(Exception):
    pass


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_training_continues_to_the_same_weights(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "SAVED_EVERY", 0.0)
    steps = training.GAN_STEPS if kind == "gan" else training.VAE_STEPS

    def run(folder, progress=lambda done: None):
        folder.mkdir(exist_ok=True)
        torch.rand(1)  # the global random numbers do not matter
        made = training.train_gan if kind == "gan" else lambda *rest: (training.train_vae(kind, *rest),)
        return [module_fingerprint(network) for network in made(folder, 6 / steps, progress)]

    def stop(done):
        if done >= 0.7:
            raise Stop

    whole = run(tmp_path / "whole")
    with pytest.raises(Stop):
        run(tmp_path / "parts", stop)
    resumed = []
    assert run(tmp_path / "parts", resumed.append) == whole
    assert resumed[0] == 1.0  # step 6; five were in the file


def test_the_models_answer_queries(made, monkeypatch):
    monkeypatch.setenv(MODELS, str(made))
    for kind in KINDS:
        model = load_model(made / kind, allow_plugins=True)
        assert model.bank.space == SPACES[kind]
        assert model.vocabulary["digit"].values == DIGITS
        assert set(model.judged_names) == {"digit", "thickness", "slant"} == set(model.judge.report)
        result = generate("digit = seven", n=2, model=model, progress=False, allow_weak=list(model.vocabulary))
        assert len(result.images) == 2
        assert f"# digits: {kind}" in (made / kind / "card.md").read_text()
    odds = read_discriminator(made / "gan")(real_digits(TEST)[0])
    assert odds.shape == (397,)


def test_a_made_model_is_not_trained_again(made):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*.safetensors")}
    make("vae", made, scale=SCALE, progress=False)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*.safetensors")} == before


def test_a_folder_has_one_length_of_training(made, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    with pytest.raises(ArgumentError, match=r"begun with scale 0\.001, not 0\.5"):
        make("vae", made, scale=0.5, progress=False)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before
    (tmp_path / STATES).mkdir()  # of an older run, without a record
    with pytest.raises(ArgumentError, match=r"begun with scale 1\.0"):
        make("vae", tmp_path, scale=SCALE, progress=False)


def test_a_judge_is_put_beside_heads_that_are_there(made, tmp_path):
    folder = shutil.copytree(made / "vae", tmp_path / "vae")
    for path in folder.glob("judge.*"):
        path.unlink()
    reports = fit_heads(read_made("vae", folder), folder, made / STATES, "z", scale=SCALE, progress=False)
    assert set(reports) == {"digit", "thickness", "slant"}
    assert (folder / "judge.json").read_bytes() == (made / "vae" / "judge.json").read_bytes()


@pytest.mark.parametrize("scale", ["0", "-1", "inf", "nan"])
def test_a_scale_is_a_finite_number_above_0(scale, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["make", "--kind", "vae", "--out", str(tmp_path), f"--scale={scale}"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "--scale must be a finite number above 0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_failures_of_the_command_are_messages(tmp_path, monkeypatch, capsys):
    (tmp_path / STATES).mkdir()
    (tmp_path / STATES / LENGTH).write_text('{"scale": 0.25}')
    monkeypatch.setattr(sys, "argv", ["make", "--kind", "vae", "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match=str(ArgumentError.exit_code)):
        main()
    said = capsys.readouterr().err
    assert said.startswith("ArgumentError: ")
    assert "begun with scale 0.25" in said.replace("\n", " ")


def test_the_folder_of_a_vae_names_its_generator(made, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=r"recipes\.digits\.factories:vae"):
        load_model(made / "vae")
    monkeypatch.setenv(MODELS, str(tmp_path))
    with pytest.raises(ModelError, match=r"vae\.safetensors is missing"):
        load_model(made / "vae", allow_plugins=True)


def test_sheet_of_pictures(made):
    generator = read_made("vae", made / "vae")
    picture = sheet(generator.synthesize(generator.encode(torch.randn(20, 16))))
    assert picture.size == (400, 80)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:there are few labels")
def test_the_benchmark_in_miniature(made, tmp_path, monkeypatch):
    monkeypatch.setattr("recipes.digits.make.Labeller", lambda network: some_labels)
    for limit in ("MOST_LATENTS", "LATENTS_AT_ONCE"):  # networks that learned nothing see few classes
        monkeypatch.setattr(f"energyql.evaluation.reference.{limit}", 32)
    app = typer.Typer()
    app.command()(benchmark.main)
    arguments = ["--smoke", "--models", str(made), "--kinds", "hierarchical", "--out", str(tmp_path)]
    arguments += ["--methods", "published-ode"]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, ran.output
    data = json.loads((tmp_path / "results.json").read_text())
    assert set(data["subjects"]) == {"hierarchical z", "hierarchical w"}
    for records in data["subjects"].values():
        assert list(records) == [*benchmark.CLASSES, *benchmark.COMPOSITIONS]
        for text, record in records.items():
            for outcome in record["methods"].values():
                assert 0 <= outcome["satisfied"] <= 1
                assert ("real" in outcome) == (text in benchmark.CLASSES)
    page = (tmp_path / "results.md").read_text()
    assert page.count("| hierarchical | z |") == 1 + len(benchmark.COMPOSITIONS)
    assert (tmp_path / "digits.png").is_file()
    stamp = data["subjects"]["hierarchical z"]["digit = one"]
    assert CliRunner().invoke(app, arguments).exit_code == 0  # nothing is measured again
    assert json.loads((tmp_path / "results.json").read_text())["subjects"]["hierarchical z"]["digit = one"] == stamp


@pytest.mark.slow
def test_the_benchmark_measures_the_chosen_spaces(made, tmp_path, monkeypatch):
    monkeypatch.setattr("energyql.evaluation.reference.MOST_LATENTS", 32)
    monkeypatch.setattr("energyql.evaluation.reference.LATENTS_AT_ONCE", 32)
    monkeypatch.setattr(benchmark, "CLASSES", benchmark.CLASSES[:2])
    monkeypatch.setattr(benchmark, "COMPOSITIONS", benchmark.COMPOSITIONS[:1])
    app = typer.Typer()
    app.command()(benchmark.main)
    arguments = ["--smoke", "--models", str(made), "--methods", "slice+descent", "--out", str(tmp_path)]
    refused = CliRunner().invoke(app, [*arguments, "--kinds", "gan,vae", "--spaces", PICTURE])
    assert isinstance(refused.exception, ArgumentError)
    assert "vae has z" in str(refused.exception.hint)
    ran = CliRunner().invoke(app, [*arguments, "--kinds", "gan", "--spaces", PICTURE])
    assert ran.exit_code == 0, ran.output
    assert set(json.loads((tmp_path / "results.json").read_text())["subjects"]) == {f"gan {PICTURE}"}
    assert (tmp_path / "digits.png").is_file()


def test_heads_of_a_smoke_run_are_not_those_of_a_full_one(made, tmp_path, monkeypatch):
    fitted = []

    def fit(generator, folder, states, space, *, scale):
        fitted.append((folder, scale))
        shutil.copytree(made / "gan", folder)

    monkeypatch.setattr(benchmark, "fit_heads", fit)
    for scale in (benchmark.SMOKE_SCALE, 1.0):
        benchmark.evaluated("gan", "z", made, tmp_path, scale)
    (toy, _), (full, length) = fitted
    assert length == 1.0
    assert toy != full


@pytest.mark.filterwarnings("ignore:there are few labels")
def test_realism_in_miniature(made, tmp_path):
    app = typer.Typer()
    app.command()(realism.main)
    arguments = ["--smoke", "--models", str(made), "--out", str(tmp_path)]
    for chosen, measured in ((["--rivals", realism.FLOW], {realism.FLOW}), ([], {*realism.RIVALS})):
        ran = CliRunner().invoke(app, [*arguments, *chosen])
        assert ran.exit_code == 0, ran.output
        data = json.loads((tmp_path / "results.json").read_text())
        assert set(data["rivals"]) == measured
    assert [row[0] for row in realism.rows_of(data)] == ["slice", "slice", realism.DDLS, realism.FLOW]
    known = data["rivals"][realism.FLOW]
    assert CliRunner().invoke(app, arguments).exit_code == 0  # nothing is measured again
    assert json.loads((tmp_path / "results.json").read_text())["rivals"][realism.FLOW] == known
    assert data["rivals"]["DDLS"]["work"] > realism.SMOKE_STEPS
    assert (tmp_path / "results.md").read_text().count("| slice | ") == 2
