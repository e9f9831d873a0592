"""Trainings whose networks read features of an image network in a folder of the user."""

import json
import shutil
import subprocess
import sys

import pytest
import short
import torch
from brief import train
from holes import Stains, look
from needed import needed
from toys import VOCABULARY, tiny_model

from energyql.attributes import backbones
from energyql.attributes.judge import Features, Judge, networks_of
from energyql.cli.reports import print_features
from energyql.errors import ArgumentError, ModelError
from energyql.files import read_tensors
from energyql.labelling.sample import sample_pictures
from energyql.pipeline.generate import generate
from energyql.pipeline.model import load_model
from energyql.training import feature_store, target
from energyql.training.feature_store import STORE
from energyql.training.judge import train_judge
from energyql.training.labels import LabelTable, read_label_table
from energyql.training.samples import Prior
from energyql.training.settings import JudgeSettings, TrainSettings
from energyql.training.target import backbone_name

pytestmark = pytest.mark.filterwarnings("ignore:there are few labels", "ignore:too few labels")
COUNT = 120


@pytest.fixture(scope="module", autouse=True)
def forgotten():
    """Networks that were opened stay in memory; tests of damage must not find them."""
    backbones.open_backbone.cache_clear()
    yield
    backbones.open_backbone.cache_clear()


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    """A tiny image network of transformers with random weights."""
    library, folder = needed("transformers"), tmp_path_factory.mktemp("towers") / "convnext"
    config = library.ConvNextConfig(hidden_sizes=[4, 8], depths=[2, 2], num_stages=2, image_size=32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        library.ConvNextModel(config).save_pretrained(folder)
    return folder


def label(folder, count):
    """Draw pictures into a folder and write a table of right labels into it."""
    pictures = sample_pictures(Stains(), folder, count, seed=3)
    prior = target.open_source(Stains()).prior_of(pictures.drawn, "cpu")
    index = torch.arange(count)
    read = look(prior.generator.synthesize(prior.w(index)))
    rows = [f"{i},random,{pictures.drawn},{int(read['red'][i])},{int(read['bent'][i])}" for i in range(count)]
    table = folder / "labels.csv"
    table.write_text("\n".join(["index,chosen,drawn,red,bent", *rows]) + "\n")
    return table


@pytest.fixture(scope="module")
def trained(tower, tmp_path_factory):
    """A model folder and its table, trained with the tower; not to be changed."""
    place = tmp_path_factory.mktemp("trained")
    table = label(place / "pictures", COUNT)
    with pytest.MonkeyPatch.context() as patch:
        short.networks(patch)
        result = train(Stains(), table, place / "m", n=100, judge="train", features=tower, settings=None)
    return place, result, table


def test_networks_read_features(trained, tower):
    place, result, _ = trained
    networks = [*networks_of(result.verifier), *networks_of(result.judge)]
    bodies = [network.body for network in networks if isinstance(network, Judge)]
    features = [body for body in bodies if isinstance(body, Features)]
    assert features
    assert {body.backbone for body in features} == {str(tower.resolve())}
    assert result.verifier_report["red"].score > 0.8
    assert (place / "m" / "report.json").is_file()


def test_a_query_is_verified(trained):
    place, *_ = trained
    result = generate(
        "red", 4, model=load_model(place / "m", generator=Stains()), progress=False, allow_weak=["red", "bent"]
    )
    assert result.draws is not None  # else no verifier decided
    assert len(result.images) == 4


class TestStore:
    def test_features_stay_beside_the_pictures(self, trained, tower, tmp_path, monkeypatch):
        place, _, table = trained
        stored = read_tensors(table.with_name(STORE))
        layers = backbone(tower).layers
        assert set(layers) <= set(stored)
        assert {len(stored[layer]) for layer in layers} == {COUNT}
        assert all(stored[layer].dtype == torch.float16 for layer in layers)
        assert not [path for path in (place / "m").rglob("*") if path.name == STORE]
        counts = count_reads(monkeypatch)
        copy = shutil.copytree(place / "pictures", tmp_path / "pictures")
        more = label(copy, COUNT + 10)
        train(Stains(), more, tmp_path / "m", n=0, judge="train", features=tower)
        assert counts["features"] == 10
        assert len(read_tensors(copy / STORE)[layers[0]]) == COUNT + 10

    def test_what_was_read_before_an_interruption_is_kept(self, tower, tmp_path, monkeypatch):
        table = label(tmp_path / "pictures", 100)
        read, calls = feature_store.raw_features, []

        def interrupted(*arguments):
            calls.append(len(arguments[1]))
            if len(calls) == 2:
                raise KeyboardInterrupt
            return read(*arguments)

        monkeypatch.setattr(feature_store, "raw_features", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(Stains(), table, tmp_path / "m", judge="train", features=tower)
        assert len(read_tensors(table.with_name(STORE))["energyql/pictures"]) == feature_store.AT_ONCE
        train(Stains(), table, tmp_path / "m", judge="train", features=tower)
        assert calls[:3] == [64, 36, 36]

    def test_a_folder_that_another_writes_or_that_is_damaged_stops_nothing(self, tower, tmp_path, monkeypatch):
        table = label(tmp_path / "pictures", 40)
        table.with_name(STORE).write_bytes(b"damaged")

        def refuse(*_):
            raise ArgumentError("another process writes it")

        monkeypatch.setattr(feature_store, "sole_writer", refuse)
        train(Stains(), table, tmp_path / "m", judge="train", features=tower)
        assert table.with_name(STORE).read_bytes() == b"damaged"

    def test_a_table_elsewhere_has_no_folder(self, trained, tmp_path):
        _, _, table = trained
        assert read_label_table(table).folder == table.parent
        shutil.copy(table, tmp_path / "labels.csv")
        assert read_label_table(tmp_path / "labels.csv").folder is None


def backbone(folder):
    return backbones.open_backbone(str(folder.resolve()), torch.device("cpu"))


def count_reads(patch):
    """Stage of the training -> number of pictures that the backbone reads in it."""
    counts, see = {}, target.see

    def counted(network, pictures, layers, course):
        with pytest.MonkeyPatch.context() as inner:
            read = feature_store.raw_features

            def count(own, images, *others):
                stage = course.progress.args[0]
                counts[stage] = counts.get(stage, 0) + len(images)
                return read(own, images, *others)

            inner.setattr(feature_store, "raw_features", count)
            return see(network, pictures, layers, course)

    patch.setattr(target, "see", counted)
    return counts


class TestSetting:
    def test_names(self, trained, tower, monkeypatch):
        table = read_label_table(trained[2])
        assert backbone_name("auto", table) is None
        monkeypatch.setattr(target, "default_backbone", lambda: "efficientnet-lite0")
        assert backbone_name("auto", table) == "efficientnet-lite0"
        assert backbone_name("auto", look) is None
        assert backbone_name("none", table) is None
        assert backbone_name(tower, table) == backbone_name(str(tower), table) == str(tower.resolve())
        assert TrainSettings().features == JudgeSettings().features == "auto"

    @pytest.mark.parametrize(
        ("features", "error", "message"),
        [
            ("nowhere", ArgumentError, "there is no folder"),
            (".", ModelError, r"has no config\.json"),
            (3, ArgumentError, "features is auto, none or the folder of an image network, not 3"),
        ],
    )
    def test_wrong_ones_are_refused_before_a_picture_is_drawn(
        self, trained, tmp_path, monkeypatch, features, error, message
    ):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(Prior, "w_there", None)
        for run in (train, train_judge):
            with pytest.raises(error, match=message):
                run(Stains(), trained[2], tmp_path / "m", features=features)
        assert not (tmp_path / "m").exists()

    def test_a_function_needs_none(self, tower, tmp_path):
        with pytest.raises(ArgumentError, match="features are for a table") as caught:
            train(Stains(), look, tmp_path / "m", features=tower)
        assert "leave out" in caught.value.hint

    def test_a_network_of_texts_is_refused(self, tmp_path):
        library = needed("transformers")
        sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
        library.BertModel(library.BertConfig(**sizes, vocab_size=10)).save_pretrained(tmp_path)
        with pytest.raises(ModelError, match="cannot read the image network"):
            backbones.check_backbone(str(tmp_path))

    def test_a_backbone_draws_no_random_numbers_and_may_be_opened_in_inference_mode(self, tower, tmp_path):
        copy = shutil.copytree(tower, tmp_path / "copy")
        before = torch.random.get_rng_state()
        with torch.inference_mode():
            opened = backbone(copy)
        assert torch.equal(torch.random.get_rng_state(), before)
        assert not any(weight.is_inference() for weight in opened.network.parameters())


def test_a_model_whose_tower_moved_is_listed_and_says_what_it_needs(trained, tower, tmp_path):
    place, *_ = trained
    folder = shutil.copytree(place / "m", tmp_path / "m")
    for path in folder.glob("*.json"):
        text = path.read_text()
        path.write_text(text.replace(json.dumps(str(tower.resolve())), json.dumps(str(tmp_path / "moved"))))
    model = load_model(folder, generator=Stains())
    assert list(model.vocabulary) == ["red", "bent"]
    with pytest.raises(ModelError, match=r"reads pictures by features of .*moved: there is no folder") as caught:
        generate("red", 2, model=model, progress=False, allow_weak=["red", "bent"])
    assert "put the folder back there, or train verifier and judge again" in caught.value.hint


class TestCommands:
    def test_the_end_of_a_training_says_what_would_read_better(self, trained, tower, monkeypatch, capsys):
        table = read_label_table(trained[2])
        print_features(table, "auto")
        said = capsys.readouterr().out
        assert "reads better from few labels: pip install" in said
        print_features(table, "none")
        print_features(look, "auto")
        print_features(LabelTable({}, torch.arange(1_000)), "auto")
        monkeypatch.setattr(target, "default_backbone", lambda: "efficientnet-lite0")
        print_features(table, "auto")
        assert capsys.readouterr().out == ""

    def test_reports_load_no_backbone(self, tmp_path):
        folder = tiny_model(tmp_path / "m", judge=False)
        Judge(VOCABULARY, Features("efficientnet-lite0", "", ("_blocks.4",), 128, 0, 640)).save(folder)
        code = (
            f"import sys; sys.argv = ['energyql', 'report', {str(folder)!r}, '--full']\n"
            "from energyql.cli.main import main\n"
            "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
            "assert not {'transformers', 'timm', 'efficientnet_lite_pytorch'} & set(sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "Judge judge.safetensors" in done.stdout
