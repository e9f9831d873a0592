"""Commands that add attributes, a judge or calibrations: `train`, `train-judge`, `import-heads`, `calibrate`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.markup import escape

from energyql.cli import options
from energyql.cli.interruption import resumable
from energyql.cli.options import out, out_option
from energyql.cli.reports import print_doubts, print_features, print_saved
from energyql.errors import ArgumentError
from energyql.kinds import KINDS, Kind
from energyql.training.settings import AUTO, JudgeSettings, TrainSettings
from energyql.vocabulary import AttributeSpec, Vocabulary

OutOption = Annotated[Path | None, out_option()]


@dataclass(frozen=True)
class TrainLabels(options.LabelSource):
    """Values of the options that say where labels come from, of pictures or of latents."""

    latents: Annotated[Path | None, options.more()] = None
    styleflow: Annotated[Path | None, options.more()] = None


@dataclass(frozen=True)
class Fit:
    """Values of the options for the fit of heads; see `HeadSettings`."""

    steps: Annotated[int, options.more(min=1)] = 2000
    hidden: Annotated[int, options.more(min=1)] = 64
    balance: Annotated[bool, options.more()] = False


_CONDITIONS = "space", "truncation", "condition"


@options.with_options("only", "kinds", "n", *_CONDITIONS, "seed", "judge", "features", "replace", record=TrainSettings)
def train(
    source: options.OwnSource,
    save_to: OutOption = None,
    *,
    label_source: TrainLabels,
    fit: Fit,
    device: str = "auto",
    quiet: options.Quiet = False,
    **settings: Any,
) -> None:
    """Train attribute heads for a generator: label latents, fit, calibrate, report, save.

    An interrupted training is continued by the same command.

    Args:
        save_to: The model folder to make or add to. By default that of the model.
        latents: The latents of the rows of --labels (.npy, .safetensors).
        styleflow: A folder with StyleFlow's two pickles.
        steps: Largest number of training steps.
        hidden: Width of each head.
        balance: Weight all classes equally.
    """
    from energyql.pipeline.model import NO_JUDGE, choose_device
    from energyql.training.foreign import read_styleflow
    from energyql.training.heads import HeadSettings
    from energyql.training.judge import default_judge
    from energyql.training.run import train_attributes

    styleflow, latents, only = label_source.styleflow, label_source.latents, settings["only"]
    label_source.check(styleflow=styleflow)
    if latents is not None and label_source.labels is None:
        raise ArgumentError("--latents belongs to --labels", hint="give the table of labels with --labels")
    where = choose_device(device)
    labels: Any = (
        label_source.open(where, latents, source.model)
        if styleflow is None
        else read_styleflow(styleflow, None if only is None else list(only))
    )
    if settings["judge"] == AUTO:
        settings["judge"] = default_judge(labels, label_source.labeller)  # by name, which the folder records
    elif settings["judge"] == NO_JUDGE:
        settings["judge"] = None
    with resumable():
        trained = train_attributes(
            source, labels, save_to, device=where, progress=not quiet, command=sys.argv[1:],
            settings=HeadSettings(**vars(fit)), **settings,
        )  # fmt: skip
    if not quiet:
        print_saved(trained.folder, trained.report)
        print_doubts(label_source.labels)
        print_features(labels, settings["features"])


@options.with_options("only", "n", "seed", "judge", "features", record=JudgeSettings)
def train_judge(
    source: options.OwnSource,
    save_to: OutOption = None,
    *,
    label_source: options.LabelSource,
    device: str = "auto",
    quiet: options.Quiet = False,
    **settings: Any,
) -> None:
    """Train a judge for a model that has heads: label pictures, fit, report, save.

    The judge reads pictures and takes no part in sampling. It replaces the judge of the attributes that are labelled;
    judges of other attributes stay. An interrupted training is continued by the same command.

    Args:
        save_to: The model folder to add to. By default that of the model.
    """
    from energyql.pipeline.model import choose_device
    from energyql.training.judge import train_judge as run

    label_source.check()
    where = choose_device(device)
    labels = label_source.open(where, model=source.model)
    with resumable():
        run(source, labels, save_to, device=where, progress=not quiet, command=sys.argv[1:], **settings)
    if not quiet:
        print_saved(save_to or source.model)
        print_doubts(label_source.labels)
        print_features(labels, settings["features"])


@options.with_options(*_CONDITIONS, "replace", record=TrainSettings)
def import_heads(
    source: options.OwnSource,
    heads: Path,
    attribute: Annotated[list[str], typer.Option()],
    save_to: OutOption = None,
    **settings: Any,
) -> None:
    """Add published attribute heads to a model folder, unchanged.

    Args:
        heads: A classifier of LACE (.pt), or a boundary of InterFaceGAN (.npy).
        attribute: For each head in the file: name, name=continuous, or name=black,brown,... (its classes).
        save_to: The model folder to make or add to. By default that of the model.
        space: The latent that the heads read: w, which is the default, z, direction or features.
        truncation: psi of the latents, or a range such as 0.5:1; by default 1.
    """
    from energyql.attributes.bank import SPACES, FittedUnder
    from energyql.attributes.heads import AttributeBank
    from energyql.training.foreign import add_heads, import_boundary, import_lace

    replace = settings.pop("replace")
    under = {name: value for name, value in settings.items() if value is not None}
    if (space := under.get("space", "w")) not in SPACES:
        raise ArgumentError(f"heads read one of {', '.join(SPACES)}, not {space!r}")
    specs = Vocabulary(_attribute(text) for text in attribute)
    if heads.suffix.lower() == ".npy":
        if len(specs) != 1:
            raise ArgumentError("a boundary has one attribute", hint="give --attribute once")
        networks = {name: import_boundary(heads, spec) for name, spec in specs.items()}
        out.print("[yellow]note[/]: a boundary has no scale, so its probabilities are not calibrated")
    else:
        networks = import_lace(heads, specs)
    bank = add_heads(source, AttributeBank(specs, networks, fitted=FittedUnder(**under)), save_to, replace=replace)
    out.print(f"Saved {escape(', '.join(networks))}; the model has {len(bank.vocabulary)} attributes now")


@options.with_options()
def calibrate(
    model: options.ModelArgument,
    labels: Path,
    reader: Annotated[str, typer.Option(metavar="NAME")],
    contrast: str | None = None,
    quiet: options.Quiet = False,
) -> None:
    """Calibrate texts of a reader of words by some thirty labels of pictures.

    The calibrations are written into the model folder, which queries with the same --reader then use.

    Args:
        model: A model folder.
        labels: The CSV of energyql label; its columns are the texts.
        contrast: Text that is true of every picture, with which the texts are compared, such as "a face".
    """
    from energyql.training.labels import read_label_table
    from energyql.training.words import calibrate as run

    contrasts = None if contrast is None else dict.fromkeys(read_label_table(labels).columns, contrast)
    for text, calibration in run(model, labels, reader, contrasts=contrasts).items():
        weak = calibration.report.weak if calibration.report else None
        if not quiet:
            out.print(escape(f'"{text}": {calibration}' + (f"; weak: {weak}" if weak else "")))


def _attribute(text: str) -> AttributeSpec:
    """Attribute of a text: yes/no ("smile"), with a kind ("age=continuous") or with values ("hair=black,brown")."""
    name, equals, what = text.partition("=")
    if not equals or what in KINDS:
        return AttributeSpec(name, cast(Kind, what or "yes/no"))
    return AttributeSpec(name, "categorical", values=tuple(value.strip() for value in what.split(",")))
