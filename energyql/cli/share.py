"""The commands that give models and energies to others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rich.markup import escape

from energyql.cli import options
from energyql.cli.options import out, out_option, read_label, read_names
from energyql.files import check_writable
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.settings import DEFAULT_SEMANTICS


def export(
    query: options.Query,
    save_to: Annotated[Path, out_option("The ONNX model to write (.onnx).")] = Path("energy.onnx"),
    model: options.Model = DEFAULT_MODEL,
    generator: options.Generator = None,
    allow_plugins: options.AllowPlugins = False,
    semantics: options.Semantics = DEFAULT_SEMANTICS,
    truncation: options.Truncation = None,
    label: options.Label = None,
    allow_weak: options.AllowWeak = "",
) -> None:
    """Write the energy of a query as an ONNX model, which other programs can sample.

    It maps z (batch, z_dim) to energies (batch,), in nats, lower is better: -log P(query | z).
    """
    from energyql.pipeline.export import export_energy

    check_writable(save_to, save_to.parent)
    energy = export_energy(
        query, model=options.open_model(model, generator, None, allow_plugins, "cpu"), device="cpu",
        semantics=semantics, truncation=truncation, label=read_label(label), allow_weak=read_names(allow_weak),
    )  # fmt: skip
    energy.to_onnx(save_to)
    out.print(escape(f"Saved {save_to}: from z (batch, {energy.metadata['z_dim']}) to energies (batch,), in nats"))
