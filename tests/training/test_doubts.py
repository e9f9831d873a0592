"""Labels that readers doubt: how probably each is wrong, and which are stored beside a table."""

import json

import pytest
import torch
from labelling.pages import picture_folder

from energyql.errors import DataError, LabelWarning
from energyql.files import sole_writer
from energyql.labelling.sheet import LabelSheet
from energyql.training import doubts
from energyql.training.doubts import Doubt, open_doubts, read_settled, store_doubts, write_settled
from energyql.training.feature_fit import SIMPLE, FeatureSettings
from energyql.training.label_noise import wrong_labels
from energyql.training.labelled import Labelled, Seen
from energyql.training.labels import read_label_table
from energyql.training.picture_fit import Family, fit_verifier, leave_out
from energyql.training.steps import Course
from energyql.vocabulary import AttributeSpec, Vocabulary

NAN = float("nan")
HAT = AttributeSpec("hat", "yes/no")
AGE = AttributeSpec("age", "continuous", low=0, high=1)


def test_a_label_against_a_sure_reading_is_wrong():
    outputs = torch.tensor([[4.0], [4.0], [0.0], [4.0]])
    labels = torch.tensor([0.0, 1.0, 0.0, NAN])
    wrong = wrong_labels(outputs, labels, HAT, torch.tensor([0.1, 0.1]))
    yes = outputs[0, 0].sigmoid()
    assert wrong[0] == pytest.approx(float(yes * 0.1 / (yes * 0.1 + (1 - yes) * 0.9)))
    assert wrong[:3].tolist() == sorted(wrong[:3].tolist(), reverse=True) or wrong[1] < wrong[2] < wrong[0]
    assert wrong[2] == pytest.approx(0.1)
    assert wrong[3].isnan()
    assert wrong_labels(outputs, labels, HAT, torch.zeros(2))[0] < 1e-6  # nobody errs


def test_a_number_far_from_its_reading_is_wrong():
    random = torch.Generator().manual_seed(0)
    labels = torch.rand(300, generator=random)
    read = labels + 0.05 * torch.randn(300, generator=random)
    assert wrong_labels(read[:, None], labels, AGE, torch.zeros(0)).nansum() < 3
    labels[:30] = torch.rand(30, generator=random)
    labels[40] = NAN
    wrong, far = wrong_labels(read[:, None], labels, AGE, torch.zeros(0)), (labels - read).abs() > 0.25
    assert far[:30].sum() > 15 and not far[30:].any()
    assert wrong[far].min() > 0.99
    assert wrong[30:].nanmedian() < 0.04 and wrong[40].isnan()
    assert wrong.nansum() == pytest.approx(30, abs=6)


def test_a_verifier_finds_labels_that_were_turned_around():
    """Also of chosen pictures, which do not calibrate it, and of an attribute that it reads poorly."""
    random = torch.Generator().manual_seed(1)
    inputs = torch.randn(240, 8, generator=random)
    clear, poor = (inputs[:, k] + noise * torch.randn(240, generator=random) > 0 for k, noise in ((0, 0.02), (1, 2.0)))
    labels = {"clear": clear.float(), "poor": poor.float()}
    turned = torch.arange(0, 240, 10)
    labels["clear"][turned] = 1 - labels["clear"][turned]
    labels["clear"][5] = NAN
    features = torch.cat([inputs, torch.zeros(240, SIMPLE)], 1).half()
    seen = Seen(torch.zeros(240, 3, 8, 8, dtype=torch.uint8), {"layer": features})
    specs = Vocabulary(AttributeSpec(name, "yes/no") for name in labels)
    order = torch.randperm(240, generator=random)
    splits, settings = leave_out([order[::2], order[1::2]], 60), FeatureSettings("none", "", "layer", 64)
    fitted = fit_verifier(Labelled(seen, labels, specs), splits, [Family([settings], 2)], Course(), fresh=seen)
    wrong = fitted.wrong["clear"]
    found = wrong.nan_to_num().argsort(descending=True)[: len(turned)]
    assert torch.isin(found, turned).sum() >= 18
    assert wrong[5].isnan() and not wrong[turned].isnan().any()
    assert 0.3 * len(turned) < wrong.nansum() < 1.2 * len(turned)  # the estimate is cautious
    assert fitted.wrong["poor"].max() > 0.03
    exact = Labelled(seen, labels, specs, exact=True)
    assert fit_verifier(exact, splits, [Family([settings], 2)], Course(), fresh=seen).wrong == {}


@pytest.fixture
def table(tmp_path):
    """A table of four pictures in their folder."""
    sheet = LabelSheet.open(tmp_path / "p" / "labels.csv", picture_folder(tmp_path / "p"), "hat, hair=red|brown")
    sheet.update({index: {"hat": index % 2 == 0, "hair": "red"} for index in range(4)})
    return sheet


def rows_of(table, **wrong):
    """Probabilities by number of picture, in the order of rows."""
    numbers = read_label_table(table.path).pictures.tolist()
    return {name: torch.tensor([shares.get(index, NAN) for index in numbers]) for name, shares in wrong.items()}


def stored(table):
    store_doubts(read_label_table(table.path), rows_of(table, hat={0: 0.4, 1: 0.9, 2: 0.01}, hair={1: 0.2}))


def test_doubted_labels_are_stored_beside_their_table(table):
    assert open_doubts(table.path) is None
    stored(table)
    found = [Doubt(1, "hat", "no", 0.9), Doubt(0, "hat", "yes", 0.4), Doubt(1, "hair", "red", 0.2)]
    assert open_doubts(table.path) == found
    assert (table.path.parent / "labels.doubts.json").is_file()
    assert not list(table.path.parent.glob(".energyql*"))


def test_a_changed_label_is_not_doubted(table):
    stored(table)
    table.path.write_text(table.path.read_text().replace("no,red", "0,red"))  # the same label
    assert len(open_doubts(table.path)) == 3
    table.update({1: {"hat": "yes"}})
    assert [doubt.picture for doubt in open_doubts(table.path)] == [0, 1]
    table.update({1: {"hair": ""}})
    table.undo(0)
    assert open_doubts(table.path) == []


def test_a_kept_label_stays_settled_after_another_training(table):
    stored(table)
    write_settled(table.path, {"1": {"hat": "no"}})
    assert read_settled(table.path) == {"1": {"hat": "no"}}
    stored(table)
    assert [(doubt.picture, doubt.attribute) for doubt in open_doubts(table.path)] == [(0, "hat"), (1, "hair")]
    table.update({1: {"hat": "yes"}})  # another label may be doubted
    stored(table)
    assert open_doubts(table.path)[0] == Doubt(1, "hat", "yes", 0.9)


def test_a_table_without_its_pictures_stores_nothing(table, tmp_path):
    elsewhere = tmp_path / "elsewhere.csv"
    table.path.rename(elsewhere)
    store_doubts(read_label_table(elsewhere), {"hat": torch.ones(4)})
    store_doubts(None, {"hat": torch.ones(4)})
    assert open_doubts(elsewhere) is None
    (tmp_path / "of_latents.csv").write_text("hat\n1\n")
    assert open_doubts(tmp_path / "of_latents.csv") is None
    (tmp_path / "of_latents.csv").unlink()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["elsewhere.csv"]


def test_a_file_in_use_is_only_a_warning(table, monkeypatch):
    """A training of hours must not end with an error because of it."""
    monkeypatch.setattr(doubts, "write_json", None)  # never called
    import threading

    def other():
        with pytest.warns(
            LabelWarning, match="labels that readers doubt are not stored: .* is being written by a test"
        ):
            stored(table)

    with sole_writer(table.path.parent, "a test", "labels.doubts.json"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert open_doubts(table.path) is None


@pytest.mark.parametrize(
    "data", [[], {}, {"doubts": 1}, {"doubts": [1]}, {"doubts": [{"picture": 1}]},
             {"doubts": [{"picture": "1", "attribute": "hat", "label": "no", "wrong": 1}]},
             {"doubts": [{"picture": 1, "attribute": "hat", "label": "no", "wrong": "x"}]}],
)  # fmt: skip
def test_damaged_files_are_named(table, data):
    (table.path.parent / "labels.doubts.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match=r"labels\.doubts\.json"):
        open_doubts(table.path)
    stored(table)
    (table.path.parent / "labels.settled.json").write_text('{"1": 2}')
    with pytest.raises(DataError, match=r"labels\.settled\.json is damaged"):
        open_doubts(table.path)
