"""Faults of code that is looked up by name: one message with the object and the place, and an exit code."""

import re
import sys
import warnings
from pathlib import Path

import pytest

from energyql.cli.main import main
from energyql.errors import ArgumentError
from energyql.generators.families import named_generator
from energyql.plugins import blame

FAULTY = """
import torch
import helping

class Faces:
    z_dim = 4

    def encode(self, z, truncation=1.0):
        return truncation * z

    def synthesize(self, w):
        return torch.tanh(w[:, :3, None, None].expand(-1, -1, 4, 4))

def look(images):
    return {"bright": images.mean((1, 2, 3)) > 0}

class Lost(Faces):
    def __init__(self):
        self.weights = open("weights.tar")

class Failing(Faces):
    def synthesize(self, w):
        return helping.fail(w)

class Short(Faces):
    def encode(self, z):
        return z

class Flat(Faces):
    def synthesize(self, w):
        return super().synthesize(w)[:, 0]

def blind(images):
    return {"x": images[:, 5] > 0}

def careless():
    return {}

def three(images):
    return 3

def letters(images):
    return {"x": "yes"}
"""


@pytest.mark.parametrize(
    ("generator", "labeller", "code", "message"),
    [
        ("Lost", "look", 1, r"my_faulty:Lost failed: FileNotFoundError: .*'weights\.tar'\n.*line 19, in __init__"),
        ("Failing", "look", 1, r"my_faulty:Failing failed: Zero.*\n.*in synthesize\n(.*\n)+.*helping\.py, line 2"),
        ("Faces", "blind", 1, r"EnergyQLError: my_faulty:blind failed: IndexError: .*\n.*in blind\n"),
        ("Short", "look", 2, r"my_faulty:Short is a Short that cannot be called as encode\(z, truncation\)"),
        ("Flat", "look", 2, r"synthesize returned a Tensor of torch\.float32 and shape \(1, 4, 4\).*\n.*in \[-1, 1\]"),
        ("Faces", "careless", 2, "ArgumentError: my_faulty:careless cannot be called with pictures"),
        ("Faces", "three", 9, "DataError: the labeller must return a dict .* not 3"),
        ("Faces", "letters", 9, "DataError: the labeller: 'x': 1 pictures but 'yes'"),
    ],
)  # fmt: skip
def test_faults_of_named_code_are_messages(tmp_path, monkeypatch, capsys, generator, labeller, code, message):
    monkeypatch.chdir(tmp_path)
    Path("my_faulty.py").write_text(FAULTY)
    Path("helping.py").write_text("def fail(w):\n    return 1 / 0\n")
    words = ["train", f"my_faulty:{generator}", "--labeller", f"my_faulty:{labeller}", "--out", "new", "-n", "60", "-q"]
    monkeypatch.setattr(sys, "argv", ["energyql", *words])
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # which the program replaces
    for name in ("my_faulty", "helping"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(SystemExit) as end:
        main()
    errors = capsys.readouterr().err
    assert end.value.code == code
    assert re.search(message, errors), errors
    assert "Traceback" not in errors


def test_a_module_that_is_no_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my_slip.py").write_text("def f(:\n")
    with pytest.raises(ArgumentError, match=r"cannot import 'my_slip': .*my_slip\.py, line 1"):
        named_generator("my_slip:f")


def test_only_named_code_is_blamed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        raise ValueError("ours")
    except ValueError as error:
        assert blame(error) is None
