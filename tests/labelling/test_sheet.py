import pytest
from labelled import write_csv

from energyql.errors import ArgumentError, DataError, VocabularyError
from energyql.labelling.sheet import LabelSheet, labels_from_folders
from energyql.training.labels import read_label_table

TEXT = "glasses, hair=black|dark red, age=0..1"


@pytest.fixture
def sheet(folder, tmp_path):
    return LabelSheet.open(tmp_path / "labels.csv", folder, TEXT)


def test_every_decision_is_written(sheet):
    assert sheet.rows() == {}
    sheet.decide(3, {"glasses": True, "hair": " dark red ", "age": 0.25})
    sheet.decide(1_000_002, {"glasses": "no", "hair": None})
    assert sheet.path.read_text() == (
        "index,chosen,drawn,glasses,hair=black|dark red,age=0..1\n"
        "3,random,seed=7 truncation=0.7 generator=0123456789ab,yes,dark red,0.25\n"
        "1000002,unsure,seed=7 truncation=0.7 generator=0123456789ab,no,,\n"
    )
    assert list(sheet.decide(3, {})) == [1_000_002, 3]
    assert list(sheet.undo(1_000_002)) == [3]


def test_a_table_whose_only_label_is_taken_back_is_begun_again(sheet, folder):
    sheet.decide(3, {"glasses": True})
    assert sheet.undo(3) == {}
    assert not sheet.path.exists()
    again = LabelSheet.open(sheet.path, folder, TEXT)
    assert again.undo(3) == again.rows() == {}
    assert list(again.decide(4, {"glasses": True})) == [4]


def test_a_class_that_is_called_none(folder, tmp_path):
    sheet = LabelSheet.open(tmp_path / "labels.csv", folder, "hat=none|cap|NA")
    for index, cell in enumerate(("none", "NA", "cap", "", None)):
        sheet.decide(index, {"hat": cell})
    assert [cells["hat"] for cells in sheet.rows().values()] == ["none", "NA", "cap", "", ""]


def test_it_is_continued(sheet, folder):
    sheet.decide(0, {"glasses": "yes"})
    for text in (None, TEXT, "glasses,hair=black|dark red,age=0.0..1.0"):
        again = LabelSheet.open(sheet.path, folder, text)
        assert again.rows() == {0: {"glasses": "yes", "hair": "", "age": ""}}
    with pytest.raises(DataError, match=r"has the attributes glasses, hair=black\|dark red, age=0\.\.1\nleave out"):
        LabelSheet.open(sheet.path, folder, "glasses")


def test_a_table_from_a_spreadsheet(sheet):
    sheet.decide(0, {"glasses": "yes"})
    sheet.path.write_text("\ufeff" + sheet.path.read_text().replace(",", ";"), encoding="utf-8")
    assert list(sheet.decide(1, {"glasses": "no"})) == [0, 1]
    sheet.path.write_text(sheet.path.read_text().replace("glasses", "hat"))
    with pytest.raises(DataError, match="other columns or rows than before"):
        sheet.rows()


@pytest.mark.parametrize(
    ("index", "cells", "message"),
    [
        (6, {}, "has no picture 6"),
        (-1, {}, "has no picture -1"),
        (0, {"hat": "yes"}, "'hat' is not one of the attributes glasses, hair, age"),
        (0, {"glasses": "perhaps"}, "'glasses' is 'perhaps', not yes or no"),
        (0, {"hair": "red"}, "'hair' is 'red', not one of black, dark red"),
        (0, {"age": 1.5}, "'age' is 1.5, not a number from 0 to 1"),
    ],
)
def test_wrong_labels_are_not_written(sheet, index, cells, message):
    with pytest.raises(DataError, match=message):
        sheet.decide(index, cells)
    assert not sheet.path.exists()


def test_tables_that_do_not_fit(folder, tmp_path):
    with pytest.raises(ArgumentError, match="the attributes must be named"):
        LabelSheet.open(tmp_path / "a.csv", folder, None)
    for text in ("seed=8 truncation=0.7 generator=0123456789ab", "seed=7 truncation=0.5 generator=0123456789ab"):
        table = write_csv(tmp_path / "a.csv", {"index": [0], "drawn": [text], "glasses": ["yes"]})
        with pytest.raises(DataError, match="about other pictures: seed="):
            LabelSheet.open(table, folder, None)
    table = write_csv(tmp_path / "a.csv", {"index": [0], "glasses": ["yes"]})
    with pytest.raises(DataError, match="it does not say which"):
        LabelSheet.open(table, folder, "glasses")
    with pytest.raises(VocabularyError, match="is not an attribute"):
        LabelSheet.open(tmp_path / "b.csv", folder, "hair=black")


class TestFolders:
    def sort(self, folder, **places):
        for place, indices in places.items():
            (folder.path / place).mkdir(exist_ok=True)
            for index in indices:
                folder.file(index).rename(folder.path / place / folder.file(index).name)

    def test_a_folder_for_each_answer(self, folder, tmp_path):
        self.sort(folder, **{"hat": [0, 1], "no-hat": [2, 1_000_005], "hair=black": [3], "hair=red": [4]})
        copied = folder.path / "hair=red" / "0 (1).png"
        copied.write_bytes((folder.path / "hat" / folder.file(0).name).read_bytes())
        (folder.path / "hat" / "notes.txt").write_text("not a picture")
        sheet = labels_from_folders(folder, tmp_path / "a.csv")
        assert sheet.rows() == {
            0: {"hair": "red", "hat": "yes"}, 1: {"hair": "", "hat": "yes"}, 2: {"hair": "", "hat": "no"},
            3: {"hair": "black", "hat": ""}, 4: {"hair": "red", "hat": ""}, 1_000_005: {"hair": "", "hat": "no"},
        }  # fmt: skip
        self.sort(folder, **{"not-hat": [5]})
        assert len(labels_from_folders(folder, tmp_path / "a.csv").rows()) == 7
        assert read_label_table(write_csv(tmp_path / "b.csv", {"index": [1], "hat": [1]})).drawn is None

    @pytest.mark.parametrize(
        ("places", "message"),
        [
            ({}, "has no sub-folders\nsort pictures into"),
            ({"smile,hat": [0], "no-smile,hat": [1]}, "has a comma"),
            ({"hat": [0]}, "only one sub-folder of 'hat'"),
            ({"no-hat": [0]}, "only one sub-folder of 'hat'"),
            ({"hair=red": [0]}, "only one sub-folder of 'hair'"),
            ({"hat": [], "no-hat": []}, "the sub-folders hat, no-hat of .* hold no pictures"),
            ({"chosen": [0], "no-chosen": [1]}, "cannot be called 'chosen'"),
        ],
    )
    def test_nothing_to_learn(self, folder, tmp_path, places, message):
        self.sort(folder, **places)
        with pytest.raises((DataError, VocabularyError), match=message):
            labels_from_folders(folder, tmp_path / "a.csv")
        assert not (tmp_path / "a.csv").exists()

    def test_contradictions_and_strangers(self, folder, tmp_path):
        self.sort(folder, hat=[0], **{"no-hat": [1]})
        extra = folder.path / "no-hat" / folder.file(0).name
        extra.write_bytes(b"")
        with pytest.raises(DataError, match="picture 0 is in two sub-folders of 'hat'"):
            labels_from_folders(folder, tmp_path / "a.csv")
        for name in ("99.png", "holiday.jpg"):
            extra = extra.rename(extra.with_name(name))
            with pytest.raises(DataError, match=f"{name} is not a picture of"):
                labels_from_folders(folder, tmp_path / "a.csv")
