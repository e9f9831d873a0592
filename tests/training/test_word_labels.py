"""Calibration of texts by labels of pictures."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from toys import random_generator, tiny_model

from energyql.attributes.bank import FittedUnder
from energyql.attributes.predictions import YesNo
from energyql.attributes.words import Calibration, Words
from energyql.errors import ArgumentError, DataError, ModelError
from energyql.files import sole_writer
from energyql.labelling.sample import choose_unsure, sample_pictures
from energyql.labelling.sheet import LabelSheet
from energyql.pipeline.model import load_model
from energyql.training.clip_labels import ClipLabeller
from energyql.training.heads import HeadSettings
from energyql.training.run import train_attributes
from energyql.training.samples import Prior
from energyql.training.settings import POOL_START
from energyql.training.words import calibrate, calibrated, platt


def test_labels_correct_slope_and_offset():
    x = torch.linspace(-6, 6, 4000)
    labels = (torch.rand(4000, generator=torch.Generator().manual_seed(0)) < (0.5 * x - 1).sigmoid()).float()
    slope, offset = platt(x, labels)
    assert abs(slope - 0.5) < 0.06 and abs(offset + 1) < 0.15


def test_labels_that_a_reader_separates_give_a_finite_slope():
    x = torch.linspace(-6, 6, 30)
    slope, offset = platt(x, (x > 0).float())
    assert 1 < slope < 20 and abs(offset) < 2


def test_quality_is_measured_on_labels_that_were_left_out():
    random = torch.Generator().manual_seed(1)
    labels = (torch.arange(40) % 2).float()
    good = calibrated(4 * (labels - 0.5) + torch.randn(40, generator=random), labels, "a hat", "a picture")
    assert good.report is not None and good.report.weak is None
    assert (good.labels, good.report.held_out) == (40, 40)
    chance = calibrated(torch.randn(40, generator=random), labels, "a hat", "a picture")
    assert chance.report is not None and "not clearly above chance, 0.50" in (chance.report.weak or "")


def test_quality_is_that_of_random_pictures():
    labels = torch.cat([torch.ones(10), (torch.arange(40) % 10 == 0).float()])
    labels[3] = labels[-1] = torch.nan
    log_odds = 4 * (labels.nan_to_num() - 0.5) + torch.randn(50, generator=torch.Generator().manual_seed(1))
    chosen_too, at_random = (calibrated(log_odds, labels, "a hat", "a picture", learned) for learned in (0, 10))
    assert (at_random.slope, at_random.offset) == (chosen_too.slope, chosen_too.offset) and at_random.labels == 48
    report = at_random.report
    assert report is not None and (report.fitted, report.held_out) == (9, 39)
    assert report.ranking["yes"].prevalence == pytest.approx(4 / 39)
    only_chosen = calibrated(log_odds[:20], labels[:20], "a hat", "a picture", 20)
    assert only_chosen.report is not None and only_chosen.report.weak == "its quality is unknown"


@pytest.mark.parametrize(("labels", "message"), [
    ([1.0, 0.0], "only 2 labels"),
    ([1.0] * 30, "only the label yes"),
    ([torch.nan] * 30, "only 0 labels"),
])  # fmt: skip
def test_too_few_labels(labels, message):
    with pytest.raises(DataError, match=message):
        calibrated(torch.zeros(len(labels)), torch.tensor(labels), "a hat", "a picture")


class Red:
    def read(self, pictures, texts):
        red = 8 * pictures.mean((2, 3))[:, 0]
        return torch.stack([red if text == "red" else 0 * red for text in texts], 1)


def test_from_clicks_to_a_model_folder(tmp_path):
    folder = tiny_model(tmp_path / "model")
    pictures = sample_pictures(folder, tmp_path / "clicks", 30)
    sheet = LabelSheet.open(tmp_path / "clicks" / "labels.csv", pictures, "red")
    w = Prior(load_model(folder).generator, 0, FittedUnder("w", (0.7, 0.7)), torch.device("cpu")).w(torch.arange(30))
    red = load_model(folder).generator.synthesize(w).mean((2, 3))[:, 0]
    sheet.update({i: {"red": bool(red[i] > red.median())} for i in range(30)})
    words = Words(Red(), "red", "1")
    results = calibrate(folder, sheet.path, words, contrasts={"red": "a face"})
    assert results["red"].report.auc[0] == 1 and results["red"].contrast == "a face"
    model = load_model(folder, reader=words)
    assert model.words.calibrations == results
    assert model.fingerprints["words"] == model.words.calibrated_mark != words.mark
    with pytest.raises(ModelError, match="is of another reader"):
        load_model(folder, reader=Words(Red(), "red", "2"))
    with pytest.raises(DataError, match="has no column that is a text"):
        empty = tmp_path / "clicks" / "other.csv"
        LabelSheet.open(empty, pictures, "smile").update({i: {"smile": i % 2 == 0} for i in range(30)})
        calibrate(folder, empty, words)


def test_two_calibrations_at_the_same_time(tmp_path):
    with sole_writer(tiny_model(tmp_path / "model"), "a training"), ThreadPoolExecutor() as other:
        calibration = other.submit(calibrate, tmp_path / "model", tmp_path / "no.csv", Words(Red(), "red", "1"))
        with pytest.raises(ArgumentError, match="is being written by a training of another thread"):
            calibration.result()


def test_packaged_models_are_not_written_to(tmp_path):
    with pytest.raises(ArgumentError, match="avatars is a packaged model, which is not written to"):
        calibrate("avatars", tmp_path / "labels.csv", Words(Red(), "red", "1"))
    assert str(Calibration()) == "zero-shot" and load_model("avatars").words is None


PROMPTS = {"smile": ["red", "a picture"], "hair": {"black": "red", "brown": "a picture"}}


def test_labels_from_a_calibrated_reader():
    pictures = torch.zeros(2, 3, 4, 4)
    pictures[0, 0], pictures[1, 0] = 0.5, 0.1
    words = Words(Red(), "red", "1", {"red": Calibration(offset=-2, labels=30)})
    plain = ClipLabeller(Red(), PROMPTS)
    assert plain(pictures)["smile"] == [True, True] and plain.calibrations["smile"] == "zero-shot"
    labeller = ClipLabeller(Red(), PROMPTS, words=words)
    assert labeller(pictures)["smile"] == [True, False], "log-odds are 8 times the red, minus 2"
    assert labeller.calibrations == {"smile": "calibrated on 30 labels", "hair": "zero-shot"}


def test_reports_of_heads_name_the_reader(tmp_path):
    words = Words(Red(), "red", "1", {"red": Calibration(labels=30)})
    labeller = ClipLabeller(Red(), {"smile": ["red", "a picture"]}, words=words)
    trained = train_attributes(
        random_generator(), labeller, tmp_path / "model", n=60, judge=None,
        settings=HeadSettings(steps=5, hidden=2), progress=False,
    )  # fmt: skip
    assert trained.bank.reports["smile"].details["reader"] == "calibrated on 30 labels"


def test_rounds_ask_where_reader_and_heads_differ(tmp_path):
    folder = tiny_model(tmp_path / "model")
    labeller = ClipLabeller(Red(), {"smile": ["red", "a picture"], "tie": ["red", "a picture"]})
    options = {"unsure": True, "by": "reader", "pool": 40}
    chosen = sample_pictures(folder, tmp_path / "clicks", 4, reader=labeller, **options).unsure
    model, index = load_model(folder), torch.arange(POOL_START, POOL_START + 40)
    prior = Prior(model.generator, 0, FittedUnder("w", (0.7, 0.7)), torch.device("cpu"))
    heads = model.bank.predict(prior.w(index), ["smile"])["smile"].logit
    images = (model.generator.synthesize(prior.w(index)).clamp(-1, 1) * 127.5 + 127.5).round() / 127.5 - 1
    both = YesNo((heads + labeller.predict(images)["smile"].logit) / 2)
    assert sorted(chosen) == sorted(POOL_START + row for row in choose_unsure({"smile": both}, 4))
    with pytest.raises(ArgumentError, match="no reader of words for the attributes of the model"):
        sample_pictures(folder, tmp_path / "none", 4, **options)
