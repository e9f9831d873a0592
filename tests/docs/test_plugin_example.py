"""The package in examples/plugin: by its entry points with a stand-in for its network, and installed for real."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from markdown import ROOT
from typer.testing import CliRunner

from energyql.cli.main import app
from energyql.generators.families import named_generator
from energyql.pipeline.model import load_model

PLUGIN = ROOT / "examples" / "plugin"
NETWORK = """
from torch import nn

class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(nn.ConvTranspose2d(108, 3, 16, bias=False), nn.Tanh())
"""


def entry_points() -> str:
    """Those of pyproject.toml in the form in which an installed package has them."""
    text = (PLUGIN / "pyproject.toml").read_text(encoding="utf-8")
    groups = re.findall(r'\[project\.entry-points\."([\w.]+)"\]\n(\w+) = "([\w:]+)"', text)
    return "\n".join(f"[{group}]\n{name} = {value}\n" for group, name, value in groups)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """The plugin, installed beside a package that has the form of `omniart-eye-generator`."""
    site = tmp_path / "site"
    package = site / "omniart_eye_generator"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('there is no GPU')\n")
    (package / "generator.py").write_text(NETWORK)
    weights = torch.randn(108, 3, 1, 1, generator=torch.Generator().manual_seed(0)).repeat(1, 1, 16, 16) / 8
    torch.save({"main.0.weight": weights}, package / "generator_model_state.pth")
    shutil.copy(PLUGIN / "energyql_eyes.py", site)
    facts = site / "energyql_eyes-0.1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: energyql-eyes\nVersion: 0.1\n")
    (facts / "entry_points.txt").write_text(entry_points())
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("energyql_eyes", None)
    yield
    sys.modules.pop("energyql_eyes", None)


def test_the_package_is_short():
    (code,) = PLUGIN.glob("*.py")
    assert len(code.read_text(encoding="utf-8").splitlines()) <= 40


def test_its_names_lead_to_a_generator_and_a_judge(stand_in):
    eyes = named_generator("eyes")
    assert (eyes.z_dim, eyes.c_dim) == (100, 8)
    small = ["-n", "40", "--steps", "9", "--hidden", "4", "-q"]
    train = ["train", "eyes", "--labeller", "eyes", "--judge", "eyes", "--label", "random", "--out", "m", *small]
    generate = ["generate", "light > 0.3", "--model", "m", "--allow-plugins", "--label", "5", "-n", "2"]
    generate += ["--allow-weak", "light"]
    for words in (train, generate):
        outcome = CliRunner().invoke(app, words, catch_exceptions=False)
        assert outcome.exit_code == 0, outcome.output
    assert "of 2 satisfy the query by the definition energyql_eyes:look" in outcome.output
    assert list(load_model("m", allow_plugins=True).vocabulary) == ["light", "vivid", "tint"]


@pytest.mark.slow
def test_the_package_itself(tmp_path):
    """Installed with pip, used from the command line; 500 pictures make heads that most pictures satisfy."""
    copy = shutil.copytree(PLUGIN, tmp_path / "plugin")
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site)]
    if subprocess.run([*pip, "omniart-eye-generator"], check=False).returncode:
        pytest.skip("omniart-eye-generator cannot be installed here")
    subprocess.run([*pip, "--no-build-isolation", str(copy)], check=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])}

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "energyql", *words]
        return subprocess.run(command, check=True, cwd=tmp_path, env=environment, capture_output=True, text=True).stdout

    run("train", "eyes", "--labeller", "eyes", "--judge", "eyes", "--label", "random", "-n", "500", "--out", "eyes")
    query = ["generate", "tint = cool AND light > 0.5", "--model", "eyes", "--label", "1", "-n", "32"]
    for words in (["--generator", "eyes", "--judge", "eyes"], ["--allow-plugins"]):
        found = re.search(r"(\d+) of 32 satisfy the query, says the judge energyql_eyes:look", run(*query, *words))
        assert int(found[1]) >= 26
    assert not (Path(tmp_path) / "eyes" / "generator.safetensors").exists()
    refused = subprocess.run(
        [sys.executable, "-m", "energyql", *query],
        check=False,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 10
    assert "--generator eyes" in refused.stderr
