import shutil
import sys
from threading import Thread

import pytest
import torch
import typer
from labelled import CHECKPOINTS
from labelling.pages import picture_folder
from typer.testing import CliRunner

from energyql.cli.pages import label, sample
from energyql.cli.reports import print_doubts
from energyql.errors import ArgumentError, DataError, EnergyQLError
from energyql.labelling.folder import PictureFolder
from energyql.labelling.sheet import LabelSheet
from energyql.studio import web
from energyql.studio.guard import Access
from energyql.studio.web import Listening
from energyql.training.doubts import store_doubts
from energyql.training.labels import read_label_table

ADA = CHECKPOINTS / "ada.pkl"
app = typer.Typer()
app.command()(sample)
app.command()(label)


@pytest.fixture
def folder(tmp_path):
    return picture_folder(tmp_path / "pictures")


def run(*words):
    outcome = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(outcome.exception, EnergyQLError):
        raise outcome.exception
    assert outcome.exit_code == 0, outcome.output
    return outcome.output


def test_sample(tmp_path, tiny):
    output = run("sample", ADA, "-n", 3, "--seed", 7, "--out", tmp_path / "my p", "--device", "cpu")
    assert "3 random pictures and 0 unsure ones, of seed 7 at truncation 0.7" in output
    assert f"energyql label '{tmp_path / 'my p'}'" in output
    words = ("--unsure", "-n", 2, "--pool", 20, "--only", "smile,hair", "-q", "--truncation", 0.5)
    assert run("sample", tiny, *words, "--out", tmp_path / "q") == ""
    assert len(PictureFolder.read(tmp_path / "q").unsure) == 2


def test_from_folders(folder):
    for place, index in (("hat", 0), ("no-hat", 1)):
        (folder.path / place).mkdir()
        folder.file(index).rename(folder.path / place / folder.file(index).name)
    table = folder.path / "labels.csv"
    assert f"2 pictures are labelled in {table}" in run("label", folder.path, "--from-folders")
    assert table.read_text().splitlines()[1].endswith(",yes")
    with pytest.raises(ArgumentError, match="names of sub-folders are the attributes"):
        run("label", folder.path, "--from-folders", "--attributes", "hat")


def test_the_page_starts(folder, monkeypatch):
    started = {}
    monkeypatch.setattr(web, "serve_app", lambda make, **settings: started.update(settings, app=make(Access())))
    opened = []
    monkeypatch.setattr(typer, "launch", opened.append)
    run("label", folder.path, "--attributes", "hat", "--out", folder.path / "hats.csv", "--open")
    assert (started["host"], started["port"], started["allowed"]) == ("127.0.0.1", 8421, [])
    started["ready"](Listening(("http://127.0.0.1:8421/",), False, False))
    assert opened == ["http://127.0.0.1:8421/"]


def test_a_table_has_one_page(folder, tmp_path, monkeypatch):
    """Two pages write over each other's labels. People who have tables of their own do not meet."""
    copy, told = shutil.copytree(folder.path, tmp_path / "copy"), []

    def meet(make, **settings):
        for place in (folder.path, copy):
            for table in (tmp_path / "a.csv", tmp_path / "b.csv", place / "labels.csv"):
                thread = Thread(target=begin, args=("label", place, "--attributes", "hat", "--out", table))
                thread.start()
                thread.join()

    def begin(*words):
        monkeypatch.setattr(web, "serve_app", lambda make, **settings: told.append("free"))
        try:
            run(*words)
        except ArgumentError as error:
            told.append(error.message)

    monkeypatch.setattr(web, "serve_app", meet)
    run("label", folder.path, "--attributes", "hat", "--out", tmp_path / "a.csv")
    busy = f"{tmp_path / 'a.csv'} is being written by a page for labels of another thread of this process"
    assert told == 2 * [busy, "free", "free"]
    assert [*tmp_path.rglob(".energyql*")] == []


def test_doubtful_labels_are_shown_again(folder, monkeypatch):
    made = []
    monkeypatch.setattr(web, "serve_app", lambda make, **settings: made.append(make(Access())))
    with pytest.raises(ArgumentError, match="--doubtful shows labels of a table again"):
        run("label", folder.path, "--doubtful", "--attributes", "hat")
    sheet = LabelSheet.open(folder.path / "labels.csv", folder, "hat")
    sheet.decide(0, {"hat": "no"})
    with pytest.raises(DataError, match=r"no training has looked for wrong labels in .*labels\.csv"):
        run("label", folder.path, "--doubtful")
    store_doubts(read_label_table(sheet.path), {"hat": torch.tensor([0.9])})
    assert run("label", folder.path, "--doubtful") == "" and len(made) == 1
    sheet.update({0: {"hat": "yes"}})
    assert "is doubted any more" in run("label", folder.path, "--doubtful").replace("\n", " ")
    assert len(made) == 1


def test_the_end_of_a_training_proposes_a_look(folder, capsys):
    sheet = LabelSheet.open(folder.path / "labels.csv", folder, "hat")
    sheet.update({index: {"hat": "no"} for index in folder.indices})
    print_doubts(None)
    print_doubts(sheet.path)
    for wrong in (0.3, 0.5):
        store_doubts(read_label_table(sheet.path), {"hat": torch.full((8,), wrong)})
        assert capsys.readouterr().out == ""
        print_doubts(sheet.path)
    printed = capsys.readouterr().out.replace("\n", " ")
    assert printed.startswith(
        " At least 4 labels are probably wrong. To look at the most doubtful again, type: energyql label"
    )
    assert printed.strip().endswith("--doubtful") and "--out" not in printed
    mine = folder.path / "my own.csv"
    sheet.path.rename(mine)
    store_doubts(read_label_table(mine), {"hat": torch.full((8,), 0.5)})
    print_doubts(mine)
    assert f"--out '{mine}' --doubtful" in capsys.readouterr().out.replace("\n", " ")


def test_mistakes(folder, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="not a folder of pictures to label"):
        run("label", tmp_path, "--attributes", "hat")
    with pytest.raises(ArgumentError, match="the attributes must be named"):
        run("label", folder.path)
    monkeypatch.delitem(sys.modules, "energyql.labelling.app", raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(ArgumentError, match="page for labels needs fastapi"):
        run("label", folder.path, "--attributes", "hat")
