"""The VAEs by name, for `--generator`: `recipes.digits.factories:vae` and `recipes.digits.factories:hierarchical`.

The folder of all models is `runs/digits`, or that in the environment variable `ENERGYQL_DIGITS`.
"""

from __future__ import annotations

import os
from pathlib import Path

from recipes.digits.networks import VAE, HierarchicalVAE, read_vae

MODELS = "ENERGYQL_DIGITS"
DEFAULT = Path("runs/digits")


def models() -> Path:
    """Return the folder with a model folder for each kind."""
    return Path(os.environ.get(MODELS) or DEFAULT)


def vae() -> VAE | HierarchicalVAE:
    """Return the VAE."""
    return read_vae(models() / "vae", "vae")


def hierarchical() -> VAE | HierarchicalVAE:
    """Return the VAE of two levels."""
    return read_vae(models() / "hierarchical", "hierarchical")
