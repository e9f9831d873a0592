"""Save a generator that was read from another program's checkpoint as a model folder that says where it is from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from energyql.files import fingerprint, write_text
from energyql.generators.base import Generator
from energyql.generators.families import default_truncation
from energyql.generators.load import read_licence
from energyql.pipeline.model import save_model
from energyql.version import __version__

CARD = "card.md"
UNKNOWN = "unknown"


def save_converted(
    folder: Path, name: str, generator: Generator, checkpoint: Path, *, truncation: float | None = None
) -> str:
    """Write a model folder in full precision, so that its pictures are those of the checkpoint.

    `config.json` gets an entry `source`: name and SHA-256 of the file, its licence, and the version of this library.
    `card.md` says the same to people.

    Args:
        folder: where to write.
        name: of the model.
        generator: of a known family, read from `checkpoint`.
        checkpoint: the file.
        truncation: psi used unless a call says otherwise; by default that of the family.

    Returns:
        The fingerprint to give to the attribute bank.

    Raises:
        ModelError: a file is damaged.
    """
    truncation = default_truncation(generator) if truncation is None else truncation
    source = {
        "file": checkpoint.name,
        "sha256": fingerprint(checkpoint),
        "licence": read_licence(checkpoint) or UNKNOWN,
        "energyql": __version__,
    }
    write_text(folder / CARD, _card(name, generator, source, truncation))
    return save_model(folder, name, generator, truncation=truncation, dtype=torch.float32, source=source)


def _card(name: str, generator: Any, source: dict[str, str], truncation: float) -> str:
    """Return the model card, Markdown."""
    rows = {
        "architecture": type(generator).__name__,
        "parameters": f"{sum(parameter.numel() for parameter in generator.parameters()):,}",
        "default truncation": f"{truncation:g}",
        "source file": f"`{source['file']}`",
        "SHA-256 of the source": f"`{source['sha256']}`",
        "converted by": f"energyql {source['energyql']}",
    }
    settings = {name: str(value) for name, value in dataclasses.asdict(generator.config).items()}
    if source["licence"] == UNKNOWN:
        licence = "Unknown: the source file carries no licence. Ask its publisher before you share it or what it draws."
    else:
        licence = "The source file carries this text:\n\n" + "".join(
            f"    {line}\n" for line in source["licence"].splitlines()
        )
    return f"""# {name}

A generator of pictures. The weights are those of the source file, in full precision and under other names; other
networks in it are left out. Attributes that queries may name, if there are any, are in `vocabulary.json`.

{_table(rows)}
## Licence

{licence.rstrip()}

## Settings

{_table(settings)}"""


def _table(rows: dict[str, str]) -> str:
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows.items())
