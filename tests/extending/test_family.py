"""A generator family costs one new file and one line; docs/extending.md walks through it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLE = "energyql/generators/families.py"
BEFORE = '    "stylegan3": "energyql.generators.stylegan3",\n'
LINE = '    "linear": "energyql.generators.linear",\n'
NEW = "energyql/generators/linear.py"
FAMILY = '''"""A generator with one linear layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from energyql.generators.base import Family


@dataclass(frozen=True)
class LinearConfig:
    """Sizes of a linear generator; w is z."""

    z_dim: int = 4
    w_dim: int = 4
    side: int = 8


class LinearGenerator(nn.Module):
    """Draws noise in the colours of z."""

    def __init__(self, config: LinearConfig) -> None:
        super().__init__()
        self.config = config
        self.z_dim = config.z_dim
        self.paint = nn.Linear(config.w_dim, 3 * config.side**2)

    def encode(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """Map z (batch, z_dim) to w (batch, w_dim)."""
        return truncation * z

    def synthesize(self, w: Tensor) -> Tensor:
        """Map w (batch, w_dim) to pictures (batch, 3, side, side)."""
        return torch.tanh(self.paint(w)).unflatten(1, (3, self.config.side, self.config.side))


FAMILY = Family("linear", LinearGenerator, LinearConfig)
'''
CHECK = """
import sys
from pathlib import Path
import torch
import energyql
from energyql.generators.linear import LinearConfig, LinearGenerator
from energyql.generators.families import save_model
from energyql.training.heads import HeadSettings

assert energyql.__file__.startswith(sys.argv[1])
folder = Path(sys.argv[1]) / "model"
made = LinearGenerator(LinearConfig(side=12))
save_model(folder, "linear", made, dtype=torch.float32)
read = energyql.load_generator(folder)
w = read.encode(torch.randn(2, 4), 0.7)
assert torch.equal(read.synthesize(w), made.synthesize(w))

def look(images):
    return {"bright": images.mean((1, 2, 3))}

settings = HeadSettings(steps=2, hidden=2, batch=8)
energyql.train_attributes(folder, look, n=40, settings=settings, progress=False)
result = energyql.generate("bright > 0", 1, model=folder, allow_weak=["bright"], progress=False)
assert result.images[0].size == (12, 12)
print("drawn")
"""


@pytest.mark.slow
def test_a_family_costs_a_file_and_a_line(tmp_path):
    for folder in ("energyql", "grammar"):
        ignored = shutil.ignore_patterns("*.pyc.*", "avatars", "postcards")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    text = (tmp_path / TABLE).read_text(encoding="utf-8")
    assert text.count(BEFORE) == 1
    (tmp_path / TABLE).write_text(text.replace(BEFORE, BEFORE + LINE), encoding="utf-8")
    (tmp_path / NEW).write_text(FAMILY, encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(tmp_path)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert done.stdout.strip() == "drawn", done.stderr
    changed = {
        path.relative_to(tmp_path).as_posix()
        for path in (tmp_path / "energyql").rglob("*.py")
        if not (ROOT / path.relative_to(tmp_path)).exists()
        or path.read_bytes() != (ROOT / path.relative_to(tmp_path)).read_bytes()
    }
    assert changed == {TABLE, NEW}
