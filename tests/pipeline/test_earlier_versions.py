"""Files in a form of before the first release are refused, with what to do; nothing reads them."""

import dataclasses
import json
import re

import pytest
from toys import CONFIG, VOCABULARY, random_generator, random_heads

from energyql import (
    ArgumentError,
    DataError,
    DatasetClass,
    DatasetPlan,
    Directions,
    ModelError,
    Result,
    find_directions,
    generate,
    load_model,
    stream,
    write_dataset,
)
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.attributes.quality import HeadReport
from energyql.files import json_digest
from energyql.pipeline.model import save_model
from energyql.training.labels import Drawn, read_label_table

EARLIER = "was written by an earlier, unreleased version of energyql\n"
REPORT = HeadReport("yes/no", 30, 10, {"yes": 20, "no": 20}, 0.9, (0.85, 0.95), {"yes": (0.9, 0.8, 1.0)}, 0.1)


@pytest.fixture
def folder(tmp_path):
    """A model folder with classes, heads of class 2, and a report."""
    mark = save_model(tmp_path / "m", "m", random_generator(dataclasses.replace(CONFIG, c_dim=3)))
    heads, reports = random_heads(VOCABULARY, CONFIG.w_dim), {"smile": REPORT}
    bank = AttributeBank(VOCABULARY, heads, fitted=FittedUnder(condition=2, generator=mark), reports=reports)
    bank.save(tmp_path / "m")
    return tmp_path / "m"


def change(path, rewrite):
    data = json.loads(path.read_text())
    rewrite(data)
    path.write_text(json.dumps(data))


def rename(entries):
    """Give an entry the name that it had before the first release."""
    entries["label"] = entries.pop("condition")


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda data: rename(data["provenance"]),
        lambda data: data["provenance"].update(sampler="DescentSampler(strength=1.0, enough=0.1)"),
    ],
)
def test_a_result(folder, tmp_path, rewrite):
    draw = {"model": folder, "out": tmp_path / "run", "allow_weak": ["smile"], "progress": False}
    list(stream("smile", 2, **draw))
    list(stream("smile", 3, **draw))  # goes on
    change(tmp_path / "run" / "result.json", rewrite)
    with pytest.raises(DataError, match=f"run holds a result that {EARLIER}draw it again, with the command"):
        Result.load(tmp_path / "run")
    if "draws" in (tmp_path / "run" / "result.json").read_text():
        with pytest.raises(DataError, match=EARLIER):
            list(stream("smile", 4, **draw))


def test_a_model_folder(folder):
    change(folder / "report.json", lambda data: data["attributes"]["smile"].pop("ranking"))
    again = "copy the model folder again, or train its attributes again"
    with pytest.raises(ModelError, match=rf"report\.json: it {EARLIER}{again}"):
        load_model(folder)
    change(folder / "vocabulary.json", rename)
    with pytest.raises(ModelError, match=rf"vocabulary\.json: it {EARLIER}{again}"):
        load_model(folder)
    change(folder / "config.json", lambda data: data["generator"].pop("kind"))
    with pytest.raises(ModelError, match=rf"config\.json {EARLIER}convert its checkpoint again, or train it again"):
        load_model(folder)


def test_directions(folder, tmp_path):
    find_directions(load_model(folder).generator, "sefa", 1, condition=1, truncation=0.7).save(tmp_path)
    change(tmp_path / "directions.json", rename)
    with pytest.raises(DataError, match=rf"directions\.json {EARLIER}find the directions again"):
        Directions.load(tmp_path)


def test_a_table_of_labels(folder, tmp_path):
    drawn = Drawn.by(load_model(folder).generator, 7, 0.6, 1)
    table = tmp_path / "labels.csv"
    table.write_text(f"index,chosen,drawn,hat\n0,random,{drawn},yes\n1,random,{drawn},no\n")
    assert read_label_table(table).drawn == drawn
    table.write_text(table.read_text().replace("condition=", "label="))
    with pytest.raises(
        DataError, match=rf"labels\.csv {EARLIER}write the word condition in place of label in every 'drawn'"
    ):
        read_label_table(table)


def test_a_data_set(folder, tmp_path):
    settings = {"condition": 2, "allow_weak": ["smile"]}
    plan = DatasetPlan(classes=[DatasetClass(name="a", query="smile", count=2, model=folder, settings=settings)])
    write_dataset(plan, tmp_path / "set", progress=False)
    path = tmp_path / "set" / "plan.json"
    known = json.loads(path.read_text())["plan"]
    assert known["classes"][0]["condition"] == 2
    rename(known["classes"][0])
    path.write_text(json.dumps({"fingerprint": json_digest(known), "plan": known}))
    with pytest.raises(DataError, match=f"set holds a data set that {EARLIER}name another place, or remove"):
        write_dataset(plan, tmp_path / "set", progress=False)


def test_label_is_no_argument(folder):
    with pytest.raises(TypeError, match="label"):
        generate("smile", 1, model=folder, label=2, progress=False)
    with pytest.raises(ArgumentError, match=re.escape("'label'")):
        DatasetClass(name="a", query="smile", count=1, settings={"label": 2})
