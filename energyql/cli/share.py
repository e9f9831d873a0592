"""The commands that give models and energies to others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
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


def download(
    name: Annotated[str, typer.Argument(help="A model of a hub: owner/name.")],
    save_to: Annotated[Path | None, out_option("The model folder to write; by default NAME without the owner.")] = None,
    revision: Annotated[str | None, typer.Option(help="A branch, a tag or a commit.")] = None,
) -> None:
    """Download a model from a hub into a folder, for --model. Only data and the card are downloaded, never code.

    The hub is that of huggingface_hub; HF_ENDPOINT and HF_TOKEN apply.
    """
    from energyql.models.hub import download_to

    folder = Path(name.rpartition("/")[2]) if save_to is None else save_to
    download_to(folder, name, revision)
    out.print(escape(f'Saved {folder}; energyql generate "..." --model {folder} draws with it'))


def upload(
    model: Annotated[str, typer.Argument(help="A model folder, or a packaged model.")],
    name: Annotated[str, typer.Argument(help="The repository on the hub: owner/name; created if it does not exist.")],
    license_: Annotated[
        str | None,
        typer.Option(
            "--license",
            help="Licence of the weights in the form of hubs, such as apache-2.0; by default that of the card.",
        ),
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private, and refuse one that is public.")
    ] = False,
    message: Annotated[str | None, typer.Option(help="Message of the commit.")] = None,
) -> None:
    """Upload a model to a hub, with a card of its attributes and their quality. HF_TOKEN must allow writing."""
    from energyql.pipeline.model import load_model

    url = load_model(model).push_to_hub(name, license=license_, private=private, message=message)
    out.print(escape(f"Uploaded {model}: {url}"))
