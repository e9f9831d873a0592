"""The benchmark of attribute heads, at its smallest."""

import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks import heads
from energyql.training.heads import attribute_loss


@pytest.mark.parametrize("name", ["yes/no 1, 50%", "3 classes", "continuous 1"])
def test_a_separate_head_learns(name, monkeypatch):
    monkeypatch.setattr(heads, "LACE_LR", 1e-3)
    latents, labels, vocabulary = heads.labelled_latents(600, 8)
    spec, answers = vocabulary[name], labels[name]
    networks = [heads.lace_head(latents, answers, 500, spec, epochs, 0) for epochs in (0, 12)]
    outputs = [heads.outputs_of(network, latents[:500], spec) for network in networks]
    before, after = (attribute_loss(output, answers[:500], spec).item() for output in outputs)
    assert after < 0.9 * before


def test_labels():
    latents, labels, vocabulary = heads.labelled_latents(500, 8)
    assert len(vocabulary) == 12
    assert latents.shape == (500, 8)
    assert labels["yes/no 6, 10%"].mean().item() == pytest.approx(0.1, abs=0.01)
    again = heads.labelled_latents(500, 8)
    assert torch.equal(latents, again[0])
    assert all(torch.equal(labels[name], again[1][name]) for name in labels)


def test_smoke(tmp_path):
    app = typer.Typer()
    app.command()(heads.main)
    outcome = CliRunner().invoke(app, ["--smoke", "--out", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    assert "times as fast" in " ".join(outcome.output.split())
    data = json.loads((tmp_path / "results.json").read_text())
    assert data["ratio"] == pytest.approx(data["seconds"]["separate"] / data["seconds"]["ours"])
    assert len(data["attributes"]) == 12
    for kind in ("ours", "separate"):
        assert set(data["mean"][kind]) == {"accuracy", "balanced", "loss"}
