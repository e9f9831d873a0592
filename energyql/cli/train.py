"""Commands that add attributes, a judge or calibrations: `train`, `train-judge`, `import-heads`, `calibrate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.markup import escape

from energyql.cli import options
from energyql.cli.interruption import resumable
from energyql.cli.options import out, out_option, read_condition, read_names, read_range
from energyql.cli.reports import print_saved
from energyql.errors import ArgumentError
from energyql.files import read_whole
from energyql.kinds import KINDS, Kind
from energyql.vocabulary import AttributeSpec, Vocabulary

OutOption = Annotated[Path | None, out_option()]


@options.with_options()
def train(
    model: options.ModelArgument,
    save_to: OutOption = None,
    *,
    label_source: options.LabelSource,
    latents: Annotated[Path | None, options.more()] = None,
    styleflow: Annotated[Path | None, options.more()] = None,
    only: str | None = None,
    kind: Annotated[list[str] | None, options.more()] = None,
    n: Annotated[str, typer.Option("-n", metavar="N")] = "auto",
    space: str | None = None,
    truncation: Annotated[str | None, options.more()] = None,
    condition: Annotated[str | None, options.more()] = None,
    seed: int | None = None,
    generator: options.Code = None,
    judge: Annotated[str, typer.Option(metavar="NAME")] = "auto",
    allow_plugins: options.AllowPlugins = False,
    steps: Annotated[int, options.more(min=1)] = 2000,
    hidden: Annotated[int, options.more(min=1)] = 64,
    balance: Annotated[bool, options.more()] = False,
    replace: bool = False,
    device: str = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Train attribute heads for a generator: label latents, fit, calibrate, report, save.

    An interrupted training is continued by the same command.

    Args:
        save_to: The model folder to make or add to. By default that of the model.
        latents: The latents of the rows of --labels (.npy, .safetensors).
        styleflow: A folder with StyleFlow's two pickles.
        kind: name=kind, if the kind is inferred wrongly.
        n: Pictures for --labeller or CLIP; auto: from 5,000 up to 40,000, while the heads gain by it. With a table of
            picture numbers, further pictures that a teacher labels; auto: 8,000, or none if pictures are larger than
            128 x 128 pixels.
        space: Input of the heads: w, z, direction, features; or picture, to train a network of pictures.
        truncation: psi of the latents, or a range such as 0.5:1.
        condition: For a conditional generator: a class, numbers, or random for a random class per picture.
        seed: Seed of the samples, or of the pictures in --labels.
        judge: auto: a function of --labeller, because it defines the attributes; for other labels as train: a judge
            that learns from the labelled pictures; none; or one by name: module:function, or a plugin.
        steps: Largest number of training steps.
        hidden: Width of each head.
        balance: Weight all classes equally.
    """
    from energyql.pipeline.model import NO_JUDGE, choose_device
    from energyql.training.foreign import read_styleflow
    from energyql.training.heads import HeadSettings
    from energyql.training.judge import AUTO, default_judge
    from energyql.training.run import train_attributes

    label_source.check(styleflow=styleflow)
    if latents is not None and label_source.labels is None:
        raise ArgumentError("--latents belongs to --labels", hint="give the table of labels with --labels")
    if (count := read_whole(n)) is None and n != "auto":
        raise ArgumentError(f"-n is a number of pictures or auto, not {n!r}")
    psi, where = _truncation(truncation), choose_device(device)
    attributes = None if only is None else list(read_names(only))
    source: Any = read_styleflow(styleflow, attributes) if styleflow else label_source.open(where, latents, model)
    if judge == AUTO:
        judge = default_judge(source, label_source.labeller)  # by name, which the folder records
    with resumable():
        trained = train_attributes(
            model, source, save_to, kinds=_kinds(kind), only=attributes, count=count, space=space, truncation=psi,
            condition=read_condition(condition), seed=seed, replace=replace, generator=generator,
            allow_plugins=allow_plugins, judge=None if judge == NO_JUDGE else judge,
            settings=HeadSettings(steps=steps, hidden=hidden, balance=balance), device=where, progress=not quiet,
            command=sys.argv[1:],
        )  # fmt: skip
    if not quiet:
        print_saved(trained.folder, trained.report)


@options.with_options()
def train_judge(
    model: options.ModelArgument,
    save_to: OutOption = None,
    *,
    label_source: options.LabelSource,
    only: str | None = None,
    n: Annotated[int, typer.Option("-n", min=20)] = 5_000,
    seed: int | None = None,
    generator: options.Code = None,
    judge: Annotated[str, typer.Option(metavar="NAME")] = "train",
    allow_plugins: options.AllowPlugins = False,
    device: str = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Train a judge for a model that has heads: label pictures, fit, report, save.

    The judge reads pictures and takes no part in sampling. It replaces the judge of the attributes that are labelled;
    judges of other attributes stay. An interrupted training is continued by the same command.

    Args:
        save_to: The model folder to add to. By default that of the model.
        n: Pictures for --labeller or CLIP.
        seed: Seed of the samples, or of the pictures in --labels.
        judge: train: a judge that learns from the labelled pictures; or one by name, which is measured on them:
            module:function, or a plugin.
    """
    from energyql.pipeline.model import choose_device
    from energyql.training.judge import train_judge as run

    label_source.check()
    where = choose_device(device)
    source = label_source.open(where, model=model)
    with resumable():
        run(
            model, source, save_to, only=None if only is None else list(read_names(only)), count=n,
            seed=seed, generator=generator, allow_plugins=allow_plugins, judge=judge, device=where,
            progress=not quiet, command=sys.argv[1:],
        )  # fmt: skip
    if not quiet:
        print_saved(save_to or model)


@options.with_options()
def import_heads(
    model: options.ModelArgument,
    heads: Path,
    attribute: Annotated[list[str], typer.Option()],
    save_to: OutOption = None,
    space: str = "w",
    truncation: str | None = None,
    condition: str | None = None,
    replace: bool = False,
    generator: options.Code = None,
    allow_plugins: options.AllowPlugins = False,
) -> None:
    """Add published attribute heads to a model folder, unchanged.

    Args:
        heads: A classifier of LACE (.pt), or a boundary of InterFaceGAN (.npy).
        attribute: For each head in the file: name, name=continuous, or name=black,brown,... (its classes).
        save_to: The model folder to make or add to. By default that of the model.
        space: The latent that the heads read: w, z, direction or features.
        truncation: psi of the latents, or a range such as 0.5:1.
        condition: For a conditional generator: a class, numbers, or random for a random class per picture.
    """
    from energyql.attributes.bank import SPACES
    from energyql.training.foreign import add_heads, import_boundary, import_lace

    if space not in SPACES:
        raise ArgumentError(f"heads read one of {', '.join(SPACES)}, not {space!r}")
    specs = Vocabulary(_attribute(text) for text in attribute)
    if heads.suffix.lower() == ".npy":
        if len(specs) != 1:
            raise ArgumentError("a boundary has one attribute", hint="give --attribute once")
        networks = {name: import_boundary(heads, spec) for name, spec in specs.items()}
        out.print("[yellow]note[/]: a boundary has no scale, so its probabilities are not calibrated")
    else:
        networks = import_lace(heads, specs)
    bank = add_heads(
        model, specs, networks, save_to, space=space, truncation=_truncation(truncation) or (1.0, 1.0),
        condition=read_condition(condition), replace=replace, generator=generator, allow_plugins=allow_plugins,
    )  # fmt: skip
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


def _truncation(text: str | None) -> tuple[float, float] | None:
    """Range (low, high) of psi: (0.5, 1) for "0.5:1", (0.7, 0.7) for "0.7"; `None` if the option is not given."""
    return None if text is None else read_range("--truncation", text, ":", single=True)


def _kinds(texts: list[str] | None) -> dict[str, Kind]:
    """Attribute -> kind, for texts such as "age=continuous"; {} for `None`."""
    kinds: dict[str, Kind] = {}
    for text in texts or []:
        name, _, kind = text.rpartition("=")
        if not name or kind not in KINDS:
            wrong = f"{kind!r} is no kind of attribute" if name else f"{text!r} is not name=kind"
            raise ArgumentError(wrong, hint=f"kinds are {', '.join(KINDS)}")
        kinds[name] = cast(Kind, kind)
    return kinds


def _attribute(text: str) -> AttributeSpec:
    """Attribute of a text: yes/no ("smile"), with a kind ("age=continuous") or with values ("hair=black,brown")."""
    name, equals, what = text.partition("=")
    if not equals or what in KINDS:
        return AttributeSpec(name, cast(Kind, what or "yes/no"))
    return AttributeSpec(name, "categorical", values=tuple(value.strip() for value in what.split(",")))
