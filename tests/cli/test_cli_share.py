"""The command energyql export, whose models test_export.py tests."""

import pytest
from commands import invoke
from needed import needed
from toys import tiny_model

from energyql.errors import ArgumentError, UnknownAttribute

needed("onnx")
ONNXRUNTIME = needed("onnxruntime")


def test_export(tmp_path):
    folder, path = tiny_model(tmp_path / "m"), tmp_path / "smile.onnx"
    outcome = invoke("export", "smile AND age > 0.5", "-m", folder, "--truncation", "0.5", "--out", path)
    assert outcome.output == f"Saved {path}: from z (batch, 8) to energies (batch,), in nats\n"
    facts = ONNXRUNTIME.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    assert (facts["query"], facts["truncation"], facts["attributes"]) == ("smile AND age > 0.5", "0.5", "smile, age")


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("hat",), UnknownAttribute, "'hat' is not an attribute"),
        (("smile", "--out", "energy.png"), ArgumentError, "cannot be saved as energy.png"),
        (("smile", "--out", "-"), ArgumentError, "cannot write to standard output"),
        (("smile", "--out", "nowhere.txt/energy.onnx"), ArgumentError, "nowhere.txt is not a folder"),
        (("smile", "--truncation", "0.1"), ArgumentError, "do not hold at truncation 0.1"),
    ],
)
def test_mistakes(tiny, tmp_path, monkeypatch, arguments, kind, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nowhere.txt").touch()
    outcome = invoke("export", *arguments, "-m", tiny)
    assert isinstance(outcome.exception, kind)
    assert message in str(outcome.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["nowhere.txt"]
