"""The commands that import, download and upload models, and export energies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from energyql.cli import options
from energyql.cli.options import out, out_option
from energyql.errors import ArgumentError
from energyql.files import check_writable
from energyql.models import DEFAULT_MODEL


@options.with_options()
def convert(
    checkpoint: str,
    save_to: Annotated[Path, out_option()],
    name: str = "",
    truncation: Annotated[float | None, typer.Option(min=0, max=1)] = None,
    lr_mlp: float | None = None,
    conv_clamp: float | None = None,
    call: list[str] | None = None,
) -> None:
    """Convert a published checkpoint to a model folder. No code in the checkpoint is executed.

    For a pipeline of diffusers, the model folder records where it is and how it is called; the weights stay there.

    Args:
        checkpoint: A file of StyleGAN2, 3 or XL, R3GAN, FastGAN or projected GAN: .pkl, .pt, .pth or .safetensors; or
            the folder of a pipeline of diffusers, or its name on a hub, hub:owner/name.
        save_to: The model folder to write.
        name: Name of the model; by default that of the file.
        truncation: Default psi of the model; if not given, 0.7, or 1 for R3GAN and FastGAN.
        lr_mlp: Learning-rate multiplier of the mapping network, if the file does not hold it.
        conv_clamp: Limit of activations, or inf for none, if the file does not hold it.
        call: An argument of a pipeline's call, as name=value, such as num_inference_steps=4; repeat for more.
    """
    from energyql.files import sole_writer
    from energyql.generators.families import default_truncation, save_model
    from energyql.generators.load import is_foreign, load_generator, save_converted

    source = Path(checkpoint)
    if source.is_dir() and not is_foreign(checkpoint):
        hint = "give a checkpoint of another program, or the folder of a pipeline of diffusers, with model_index.json"
        raise ArgumentError(f"{source} is a folder", hint=hint)
    settings = dict(map(_argument, call or ()))
    with sole_writer(save_to, "a conversion"):
        generator: Any = load_generator(checkpoint, lr_multiplier=lr_mlp, conv_clamp=conv_clamp, **settings)
        if source.is_file():
            save_converted(save_to, name or source.stem, generator, source, truncation=truncation)
            sizes = {size: getattr(generator.config, size) for size in ("resolution", "z_dim", "w_dim", "c_dim")}
        else:
            psi = default_truncation(generator) if truncation is None else truncation
            save_model(save_to, name or save_to.name, generator, truncation=psi)
            sizes = {"size": generator.description["size"], "noise": generator.z_shape, "classes": generator.c_dim}
    parameters = sum(parameter.numel() for parameter in generator.parameters())
    facts = ", ".join(f"{size} {value}" for size, value in sizes.items())
    kind = getattr(generator, "kind", type(generator).__name__)
    out.print(escape(f"Saved {save_to}: kind {kind}, {facts}, parameters {parameters}"))


def _argument(text: str) -> tuple[str, Any]:
    """Return name and value of an argument "name=value" of a pipeline's call; the value is JSON, or else the text.

    Raises:
        ArgumentError: the text has another form.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ArgumentError(f"--call takes name=value, not {text!r}", hint="such as --call num_inference_steps=4")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@options.with_options("semantics", "truncation", "label", "allow_weak")
def export(
    query: options.Query,
    save_to: Annotated[Path, out_option()] = Path("energy.onnx"),
    model: options.Model = DEFAULT_MODEL,
    generator: options.Name = None,
    allow_plugins: bool = False,
    **settings: Any,
) -> None:
    """Write the energy of a query as an ONNX model, which other programs can sample.

    It maps z (batch, z_dim) to energies (batch,), in nats, lower is better: -log P(query | z).

    Args:
        save_to: The ONNX model to write (.onnx).
    """
    from energyql.pipeline.export import export_energy

    check_writable(save_to, save_to.parent)
    opened = options.Source(model, generator, None, allow_plugins).open("cpu")
    energy = export_energy(query, model=opened, device="cpu", **settings)
    energy.to_onnx(save_to)
    out.print(escape(f"Saved {save_to}: from z (batch, {energy.metadata['z_dim']}) to energies (batch,), in nats"))


@options.with_options()
def download(name: str, save_to: Annotated[Path | None, out_option()] = None, revision: str | None = None) -> None:
    """Download a model from a hub into a folder, for --model. Only data and the card are downloaded, never code.

    The hub is that of huggingface_hub; HF_ENDPOINT and HF_TOKEN apply.

    Args:
        name: A model of a hub: owner/name.
        save_to: The model folder to write; by default NAME without the owner.
        revision: A branch, a tag or a commit.
    """
    from energyql.models.hub import download_to

    folder = Path(name.rpartition("/")[2]) if save_to is None else save_to
    download_to(folder, name, revision)
    out.print(escape(f'Saved {folder}; energyql generate "..." --model {folder} draws with it'))


@options.with_options()
def upload(
    model: str,
    name: str,
    license_: Annotated[str | None, typer.Option("--license")] = None,
    private: bool = False,
    message: str | None = None,
) -> None:
    """Upload a model to a hub, with a card of its attributes and their quality. HF_TOKEN must allow writing.

    Args:
        model: A model folder, or a packaged model.
        name: The repository on the hub: owner/name; created if it does not exist.
        license_: Licence of the weights in the form of hubs, such as apache-2.0; by default that of the card.
        private: Make a new repository private, and refuse one that is public.
        message: Message of the commit.
    """
    from energyql.pipeline.model import load_model

    url = load_model(model).push_to_hub(name, license=license_, private=private, message=message)
    out.print(escape(f"Uploaded {model}: {url}"))
