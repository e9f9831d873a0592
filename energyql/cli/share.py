"""The commands that convert, download and upload models, and export energies."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from energyql.cli import options
from energyql.cli.options import out, out_option, read_pairs, read_range
from energyql.errors import ArgumentError
from energyql.files import check_writable, read_whole


@dataclass(frozen=True)
class Described:
    """Values of the options for what the model folder says about the generator."""

    name: str = ""
    truncation: Annotated[float | None, typer.Option(min=0, max=1)] = None
    render: Annotated[str | None, typer.Option(metavar="MODULE:FUNCTION")] = None


@dataclass(frozen=True)
class Unstated:
    """Values of the options for what the file of a checkpoint, or the folder of a pipeline, does not state."""

    lr_mlp: float | None = None
    conv_clamp: float | None = None
    call: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE")] = None

    @property
    def arguments(self) -> dict[str, Any]:
        """Values of --call by name."""
        calls = read_pairs("--call", self.call, "NAME=VALUE", "num_inference_steps=4")
        return {name: read_value(text) for name, text in calls.items()}


@dataclass(frozen=True)
class Onnx:
    """Values of the options for inputs and output of an ONNX model; see `OnnxSettings`."""

    noise: str | None = None
    shape: Annotated[str | None, typer.Option(metavar="SIZExSIZE...")] = None
    scale: float | None = None
    fixed: Annotated[list[str] | None, typer.Option(metavar="INPUT=NUMBER")] = None
    condition: Annotated[list[str] | None, typer.Option(metavar="INPUT=LOW..HIGH")] = None
    output: str | None = None
    values: Annotated[str | None, typer.Option("--range", metavar="LOW..HIGH")] = None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of `load_onnx` that are given, by name."""
        numbers = read_pairs("--fixed", self.fixed, "INPUT=NUMBER", "sigma=80")
        ranges = read_pairs("--condition", self.condition, "INPUT=LOW..HIGH", "difficulty=0..1")
        settings: dict[str, Any] = {
            "noise": self.noise, "shape": None if self.shape is None else read_shape(self.shape), "scale": self.scale,
            "output": self.output, "fixed": {name: read_fixed(text) for name, text in numbers.items()},
            "conditions": {name: read_range("--condition", text) for name, text in ranges.items()},
            "values": None if self.values is None else read_range("--range", self.values),
        }  # fmt: skip
        return {name: value for name, value in settings.items() if value not in (None, {})}


@options.with_options()
def convert(
    checkpoint: str,
    save_to: Annotated[Path, out_option()],
    *,
    described: Described,
    unstated: Unstated,
    onnx: Onnx,
) -> None:
    """Convert a published checkpoint or an ONNX model to a model folder. No code in the file is executed.

    The options from --noise to --range are for an ONNX model, which draws a picture from an input of noise.

    For a pipeline of diffusers, the model folder records where it is and how it is called; the weights stay there.

    Args:
        checkpoint: An ONNX model (.onnx); a file of StyleGAN2, 3 or XL, R3GAN, FastGAN or projected GAN: .pkl, .pt,
            .pth or .safetensors; or the folder of a pipeline of diffusers, or its name on a hub, hub:owner/name.
        save_to: The model folder to write.
        name: Name of the model; by default that of the file.
        truncation: Default psi of the model; if not given, 0.7, or 1 for R3GAN, FastGAN and ONNX.
        lr_mlp: Learning-rate multiplier of the mapping network, if the file does not hold it.
        conv_clamp: Limit of activations, or inf for none, if the file does not hold it.
        noise: The input that takes noise; by default the only input without --fixed and --condition.
        shape: Shape of the noise, such as 1x128x128, if the model leaves it open.
        scale: Standard deviation of the noise; 1 if not given.
        fixed: An input that takes the same number, or numbers, for all pictures, such as sigma=80. May be repeated.
        condition: An input that takes a number of its own for each picture, uniform in a range. May be repeated.
        output: The output that is the picture; by default the only one.
        values: Range of its values, such as -1..1; if not given, it is measured, and a warning says what is assumed.
        render: Name of a function that draws what people see of a picture, such as a map of its heights. It needs
            --allow-plugins later.
        call: An argument of a pipeline's call, as name=value, such as num_inference_steps=4; repeat for more.
    """
    import torch

    from energyql.files import sole_writer
    from energyql.generators.base import show_pictures
    from energyql.generators.families import RENDER, default_truncation, render_by, save_model
    from energyql.generators.load import is_foreign, load_generator, save_converted
    from energyql.generators.onnx import load_onnx

    source = Path(checkpoint)
    if source.is_dir() and not is_foreign(checkpoint):
        hint = "give a checkpoint of another program, or the folder of a pipeline of diffusers, with model_index.json"
        raise ArgumentError(f"{source} is a folder", hint=hint)
    name, truncation, render = described.name, described.truncation, described.render
    lr_mlp, conv_clamp, arguments, settings = unstated.lr_mlp, unstated.conv_clamp, unstated.arguments, onnx.settings
    if settings and (arguments or (lr_mlp, conv_clamp) != (None, None)):
        problem = "--lr-mlp and --conv-clamp are not for ONNX models, which other options here are for; nor is --call"
        raise ArgumentError(problem, hint="leave out the one or the others")
    if settings and is_foreign(checkpoint) and not source.is_file():
        hint = "--call gives an argument of its call, such as --call num_inference_steps=4"
        raise ArgumentError(f"{checkpoint} is a pipeline, and the options from --noise to --range are not", hint=hint)
    with sole_writer(save_to, "a conversion"):
        generator: Any = (
            load_onnx(checkpoint, **settings)
            if settings
            else load_generator(checkpoint, lr_multiplier=lr_mlp, conv_clamp=conv_clamp, **arguments)
        )
        if render is not None:
            render_by(generator, render)
            w_dim = (generator if hasattr(generator, "w_dim") else generator.config).w_dim
            show_pictures(generator, generator.synthesize(torch.zeros(1, w_dim)))
        if source.is_file():
            save_converted(save_to, name or source.stem, generator, source, truncation=truncation, render=render)
            facts = {size: getattr(generator.config, size, None) for size in ("resolution", "z_dim", "w_dim", "c_dim")}
        else:
            psi = default_truncation(generator) if truncation is None else truncation
            save_model(save_to, name or save_to.name, generator, truncation=psi, facts={RENDER: render})
            facts = {"size": generator.description["size"], "noise": generator.z_shape, "classes": generator.c_dim}
    facts["parameters"] = sum(parameter.numel() for parameter in generator.parameters()) or None
    texts = (f"{fact} {value}" for fact, value in facts.items() if value is not None)
    kind = getattr(generator, "kind", type(generator).__name__)
    out.print(escape(f"Saved {save_to}: {', '.join((f'kind {kind}', *texts))}"))


def read_fixed(text: str) -> float | list[float]:
    """Value of --fixed: a number for a text such as "80", a list for one such as "0,0,1"; else an `ArgumentError`."""
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        raise ArgumentError(f"--fixed: {text!r} are not numbers", hint="such as 80, or 0,0,1") from None
    return numbers if "," in text else numbers[0]


def read_shape(text: str) -> tuple[int, ...]:
    """Sizes in a value of --shape such as "1x128x128"; else an `ArgumentError`."""
    sizes = [read_whole(part) for part in text.split("x")]
    if not all(sizes):
        raise ArgumentError(f"--shape: {text!r} is no shape", hint="such as 1x128x128")
    return tuple(size for size in sizes if size)


def read_value(text: str) -> Any:
    """Value of a text in JSON, such as "4", "true" or "[1, 2]"; any other text is returned unchanged."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


@options.with_options("semantics", "truncation", "condition", "allow_weak")
def export(
    query: options.Query,
    save_to: Annotated[Path, out_option()] = Path("energy.onnx"),
    *,
    source: options.GeneratorSource,
    **settings: Any,
) -> None:
    """Write the energy of a query as an ONNX model, which other programs can sample.

    It maps z (batch, z_dim) to energies (batch,), in nats, lower is better: -log P(query | z).

    Args:
        save_to: The ONNX model to write (.onnx).
    """
    from energyql.pipeline.export import export_energy
    from energyql.pipeline.model import load_model

    check_writable(save_to, save_to.parent)
    energy = export_energy(query, model=load_model(source, "cpu"), device="cpu", **settings)
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

    url = load_model(model, "cpu").push_to_hub(name, license=license_, private=private, message=message)
    out.print(escape(f"Uploaded {model}: {url}"))
