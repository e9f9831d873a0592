"""The older name `label` of the argument, option and stored field `condition` is read everywhere."""

import dataclasses
import json

import pytest
import torch
from commands import invoke
from toys import CONFIG, VOCABULARY, random_generator, random_heads

from energyql import (
    ArgumentError,
    DataError,
    DatasetClass,
    DatasetPlan,
    Directions,
    Gallery,
    Model,
    ModelError,
    Result,
    find_directions,
    generate,
    load_model,
    stream,
)
from energyql.attributes.heads import AttributeBank
from energyql.dataset.plan import read_plan
from energyql.dataset.shard import PreparedPlan
from energyql.editing.folder import read_saved
from energyql.pipeline.model import save_model
from energyql.pipeline.plan import plan_query
from energyql.pipeline.session import open_session
from energyql.training.labels import Drawn, read_label_table

OLDER = "label is the older name of condition"
BOTH = "condition and label are one setting, and both are given"


@pytest.fixture(scope="module")
def model():
    generator = random_generator(dataclasses.replace(CONFIG, c_dim=3))
    return Model("classes", generator, AttributeBank(VOCABULARY, random_heads(VOCABULARY, CONFIG.w_dim)))


@pytest.fixture
def folder(model, tmp_path):
    mark = save_model(tmp_path / "m", "m", model.generator)
    bank = AttributeBank(VOCABULARY, random_heads(VOCABULARY, CONFIG.w_dim), condition=2, generator=mark)
    bank.save(tmp_path / "m")
    return tmp_path / "m"


def respell(path, change):
    """Change the JSON of a file, as a version wrote it that did not know the name `condition`."""
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def older(entries):
    entries["label"] = entries.pop("condition")


def test_arguments_of_calls(model):
    expected = generate("smile", 2, model=model, condition=1, progress=False)
    with pytest.warns(DeprecationWarning, match=OLDER) as warned:
        again = generate("smile", 2, model=model, label=1, progress=False)
    assert warned[0].filename == __file__
    assert torch.equal(again.w, expected.w)
    assert again.provenance["condition"] == 1
    assert "label" not in again.provenance
    with pytest.warns(DeprecationWarning, match=OLDER):
        assert torch.equal(next(stream("smile", 2, model=model, label=1, progress=False)).w, expected.w)
    with pytest.warns(DeprecationWarning, match=OLDER):
        assert Gallery(model=model, label=1).settings.condition == 1
    with pytest.warns(DeprecationWarning, match=OLDER):
        assert AttributeBank(VOCABULARY, random_heads(VOCABULARY, 16), label="random").condition == "random"
    z, one = torch.zeros(1, CONFIG.z_dim), torch.eye(3)[:1]
    with pytest.warns(DeprecationWarning, match=OLDER):
        w = model.generator.encode(z, label=one)
    assert torch.equal(w, model.generator.encode(z, condition=one))
    with pytest.warns(DeprecationWarning, match=OLDER), pytest.raises(ArgumentError, match=BOTH):
        generate("smile", 2, model=model, label=1, condition=1, progress=False)


def test_options_of_commands(folder, tmp_path):
    arguments = ["generate", "smile", "-n", 1, "-m", folder, "--device", "cpu", "-q"]
    assert invoke(*arguments, "-o", tmp_path / "run", "--label", "2").exit_code == 0
    assert Result.load(tmp_path / "run").provenance["condition"] == 2
    with pytest.raises(ArgumentError, match=BOTH):
        raise invoke(*arguments, "-o", tmp_path / "other", "--label", "2", "--condition", "2").exception
    with pytest.raises(ArgumentError, match="7 is not a condition"):
        raise invoke("sample", folder, "-n", 1, "-o", tmp_path / "pictures", "--label", "7").exception
    help_of_generate = invoke("generate", "--help-all").output
    assert "--condition" in help_of_generate
    assert "--label" not in help_of_generate


def test_a_result_that_was_saved(folder, tmp_path):
    draw = {"model": folder, "save_to": tmp_path / "run", "progress": False}
    list(stream("smile", 2, **draw))
    respell(tmp_path / "run" / "result.json", lambda data: older(data["provenance"]))
    assert "condition" not in (tmp_path / "run" / "result.json").read_text()
    assert read_saved(tmp_path / "run").provenance["condition"] == 2
    list(stream("smile", 3, **draw))  # the run is continued
    loaded = Result.load(tmp_path / "run")
    assert len(loaded) == 3
    assert loaded.provenance["condition"] == 2
    assert "label" not in loaded.provenance


def test_a_model_folder(folder):
    respell(folder / "vocabulary.json", older)
    assert load_model(folder).bank.condition == 2
    assert generate("smile", 1, model=folder, progress=False).provenance["condition"] == 2
    respell(folder / "vocabulary.json", lambda data: data.update(condition=2))
    with pytest.raises(ModelError, match=BOTH):
        load_model(folder)


def test_directions_and_tables_of_labels(model, tmp_path):
    find_directions(model.generator, "sefa", 1, condition=1, truncation=0.7).save(tmp_path)
    respell(tmp_path / "directions.json", older)
    assert Directions.load(tmp_path).condition == 1
    old = Drawn.parse("seed=7 truncation=0.6 generator=0123456789ab label=0.5,0.5", "a.csv")
    assert old == Drawn(7, 0.6, "0123456789ab", (0.5, 0.5))
    assert "condition=0.5,0.5" in str(old)
    table = tmp_path / "labels.csv"
    here = Drawn.by(model.generator, 7, 0.6, 1)
    older_row = str(here).replace("condition", "label")
    table.write_text(f"index,chosen,drawn,hat\n0,random,{here},yes\n1,random,{older_row},no\n")
    assert read_label_table(table).drawn == here


PLAN = """\
model = "m"
label = 1

[[class]]
name = "all"
query = "smile"
count = 3
"""


def test_a_plan(tmp_path):
    path = tmp_path / "plan.toml"
    path.write_text(PLAN + "label = 2\n\n" + PLAN.partition("\n\n")[2].replace("all", "more"))
    plan, _ = read_plan(path)
    assert [one.settings["condition"] for one in plan.classes] == [2, 1]
    assert DatasetClass(name="a", query="smile", count=1, settings={"label": 2}).settings == {"condition": 2}
    for text, line in ((PLAN + "condition = 1\nlabel = 1\n", 9), (PLAN.replace("label", "condition = 1\nlabel"), 3)):
        path.write_text(text)
        with pytest.raises(DataError, match=f"has one mistake.*\n\nline {line}: ArgumentError: {BOTH}"):
            read_plan(path)


def test_the_fingerprint_of_a_data_set_is_that_of_older_versions(model):
    """A data set that is not finished is continued, so its identity has the older name."""
    plan = DatasetPlan(classes=[DatasetClass(name="a", query="smile", count=1, model=model, settings={"condition": 1})])
    identity = PreparedPlan(plan, [plan_query(open_session(model, "cpu"), "smile", condition=1)]).identity
    assert identity["classes"][0]["label"] == 1
    assert "condition" not in identity["classes"][0]
