"""The commands that add attributes to a model: `energyql train` and `energyql import-heads`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer
from rich.markup import escape

from energyql.cli import options
from energyql.cli.options import out, out_option, read_label, read_names
from energyql.errors import ArgumentError
from energyql.vocabulary import AttributeSpec, Kind, Vocabulary

if TYPE_CHECKING:
    from energyql.attributes.quality import HeadReport

OutOption = Annotated[Path | None, out_option("The model folder to make or add to. By default that of the model.")]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Let new attributes replace old ones of the same name.")]
FittedLabelOption = Annotated[
    str | None,
    typer.Option(help="Of a conditional generator: a class, numbers, or random for one class per picture."),
]
TruncationRangeOption = Annotated[str | None, typer.Option(help="psi of the latents, or a range such as 0.5:1.")]


def train(
    model: options.ModelArgument,
    save_to: OutOption = None,
    labels: Annotated[Path | None, typer.Option(help="CSV or Parquet: a column for each attribute.")] = None,
    latents: Annotated[
        Path | None, typer.Option(help="The latents of the rows of --labels (.npy, .safetensors).")
    ] = None,
    labeller: Annotated[str | None, typer.Option(help="module:function that labels pictures, or a plugin.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="JSON: attribute -> prompts for CLIP.")] = None,
    clip_model: Annotated[str, typer.Option(help="A model of open_clip.")] = "ViT-B-32",
    clip_weights: Annotated[str, typer.Option(help="Its weights: a name, or a file.")] = "laion2b_s34b_b79k",
    clip_margin: Annotated[float, typer.Option(min=0, help="Least lead of the best prompt, in logits.")] = 0.0,
    styleflow: Annotated[Path | None, typer.Option(help="A folder with StyleFlow's two pickles.")] = None,
    only: Annotated[str | None, typer.Option(help="Attributes to train, separated by commas.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="name=kind, where the inferred kind is wrong.")] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "-n",
            min=0,
            help="Pictures for --labeller or CLIP, 10,000 by default. With --labels by picture numbers, further "
            "pictures for a network to label that has learnt from the table: by default 4,000 up to 128 x 128 pixels.",
            show_default=False,
        ),
    ] = None,
    space: Annotated[str | None, typer.Option(help="The latent that heads read: w, z, direction or features.")] = None,
    truncation: TruncationRangeOption = None,
    label: FittedLabelOption = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the samples, or of the pictures in --labels.")] = None,
    generator: options.Generator = None,
    judge: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="train: a judge that learns from the labelled pictures; none; or one by name: module:function, or a "
            "plugin.",
        ),
    ] = "train",
    allow_plugins: options.AllowPlugins = False,
    steps: Annotated[int, typer.Option(min=1, help="Largest number of training steps.")] = 2000,
    hidden: Annotated[int, typer.Option(min=1, help="Width of each head.")] = 64,
    balance: Annotated[bool, typer.Option("--balance", help="Weight all classes equally.")] = False,
    replace: ReplaceOption = False,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Train attribute heads for a generator: label latents, fit, calibrate, report, save.

    An interrupted training is continued by the same command.
    """
    from energyql.attributes.labels import import_labeller
    from energyql.pipeline.model import NO_JUDGE, choose_device, record_judge
    from energyql.training.clip_labels import load_clip_labeller
    from energyql.training.fitting import HeadSettings
    from energyql.training.labels import read_label_table
    from energyql.training.rounds import describe_gain
    from energyql.training.run import TRAIN, train_attributes
    from energyql.training.styleflow import read_styleflow

    sources = {"--labels": labels, "--labeller": labeller, "--prompts": prompts, "--styleflow": styleflow}
    given = [name for name, value in sources.items() if value is not None]
    if len(given) != 1:
        raise ArgumentError(
            f"labels come from {' and '.join(given) or 'nowhere'}", hint=f"give one of {', '.join(sources)}"
        )
    if latents is not None and labels is None:
        raise ArgumentError("--latents belongs to --labels")
    named = judge not in (TRAIN, NO_JUDGE)
    if named:
        import_labeller(judge)  # before any work is done
    psi, where, condition = _truncation(truncation), choose_device(device), _fitted_label(label)
    chosen = None if only is None else list(read_names(only))
    source: Any = None
    if labels is not None:
        source = read_label_table(labels, latents)
    elif styleflow is not None:
        source = read_styleflow(styleflow, chosen)
    elif labeller is not None:
        source = import_labeller(labeller)
    elif prompts is not None:
        source = load_clip_labeller(prompts, model=clip_model, weights=clip_weights, margin=clip_margin, device=where)
    trained = train_attributes(
        model, source, save_to, kinds=_kinds(kind), only=chosen, count=n, space=space, truncation=psi,
        label=condition, seed=seed, replace=replace, generator=generator, allow_plugins=allow_plugins,
        judge="train" if judge == TRAIN else None,
        settings=HeadSettings(steps=steps, hidden=hidden, balance=balance), device=where, progress=not quiet,
    )  # fmt: skip
    if named:
        record_judge(trained.folder, judge)
    if quiet:
        return
    _print_reports(trained.report)
    for name, each in trained.report.items():
        if "round" in each.details:
            out.print(f"{escape(name)}: {describe_gain(each.details['round'])}")
    for line in describe_judge(trained.judge_report, trained.bank.vocabulary):
        out.print(escape(line))
    out.print(f"Saved {escape(str(trained.folder))}; see report.png there")


def report(model: options.ModelArgument, as_json: options.Json = False) -> None:
    """Print how well the attribute heads of a model did on labels that were held out of their training."""
    from energyql.attributes.quality import read_reports
    from energyql.models import model_folder, read_vocabulary

    vocabulary, reports = read_vocabulary(model), read_reports(model_folder(model))
    if as_json:
        options.print_json({name: asdict(each) | {"weak": each.weak} for name, each in reports.items()})
        return
    _print_reports({name: reports[name] for name in vocabulary if name in reports})
    if unknown := [name for name in vocabulary if name not in reports]:
        out.print(f"no report: {escape(', '.join(unknown))}")


def _print_reports(reports: Mapping[str, HeadReport]) -> None:
    """Print the quality of heads with 95 % intervals, and why some of them are weak."""
    for name, each in reports.items():
        chance = "" if each.kind == "continuous" else f", chance {each.chance:.2f}"
        out.print(f"[bold]{escape(name)}[/], {each.kind}: {each}{chance}")
        parts = [f"{each.held_out:,} labels held out of {each.fitted + each.held_out:,}"]
        if each.calibration_error is not None:
            parts.append(f"calibration error {each.calibration_error:.3f}")
        if each.recall:
            shares = (f"{label} {recall:.2f}" for label, (recall, _, _) in each.recall.items())
            parts.append(f"recall of {', '.join(shares)}")
        out.print(escape(f"  {'; '.join(parts)}"))
        if teacher := each.details.get("teacher"):
            out.print(escape(f"  {describe_teacher(teacher, each.measure)}"))
        if each.weak:
            out.print(f"  [yellow]weak[/], so queries refuse it: {escape(each.weak)}")


def describe_teacher(found: Mapping[str, Any], measure: str) -> str:
    """Return in one line what a network that learnt from the labels has taught a head; see `teach`."""
    if not found["pictures"]:
        return "learnt from labels by hand alone: a network that read the pictures was not clearly better than chance"
    score = found["skill"] if measure == "R2" else found["accuracy"]
    return (
        f"learnt also from {found['pictures']:,} pictures labelled by a network, whose {measure} is {score:.2f} on "
        f"{found['samples']:,} labels"
    )


def describe_judge(report: Mapping[str, Mapping[str, Any]], vocabulary: Vocabulary) -> list[str]:
    """Return a line on the attributes that a trained judge reads, and one on those that it does not."""
    read = [
        f"{name} R2 {numbers['skill']:.2f}"
        if vocabulary[name].kind == "continuous"
        else f"{name} {numbers['accuracy']:.2f}"
        for name, numbers in report.items()
        if numbers["reads"]
    ]
    left = [name for name, numbers in report.items() if not numbers["reads"]]
    measured = "balanced accuracy, or R2 of numbers, on pictures that it did not learn from"
    lines = [f"The judge reads {', '.join(read)} ({measured})"] if read else []
    return lines + ([f"Not judged, because no judge learnt it: {', '.join(left)}"] if left else [])


def import_heads(
    model: options.ModelArgument,
    heads: Annotated[Path, typer.Argument(help="A classifier of LACE (.pt), or a boundary of InterFaceGAN (.npy).")],
    attribute: Annotated[
        list[str],
        typer.Option(help="Of each head in the file: name, name=continuous, or name=black,brown,... by its classes."),
    ],
    save_to: OutOption = None,
    space: Annotated[str, typer.Option(help="The latent that the heads read: w, z, direction or features.")] = "w",
    truncation: TruncationRangeOption = None,
    label: FittedLabelOption = None,
    replace: ReplaceOption = False,
    generator: options.Generator = None,
    allow_plugins: options.AllowPlugins = False,
) -> None:
    """Add published attribute heads to a model folder, unchanged."""
    from energyql.attributes.bank import SPACES
    from energyql.training.foreign import add_heads, import_boundary, import_lace

    if space not in SPACES:
        raise ArgumentError(f"heads read one of {', '.join(SPACES)}, not {space!r}")

    specs = Vocabulary(_attribute(text) for text in attribute)
    if heads.suffix.lower() == ".npy":
        if len(specs) != 1:
            raise ArgumentError("a boundary has one attribute", hint="give --attribute once")
        name, spec = next(iter(specs.items()))
        found = {name: import_boundary(heads, spec)}
        out.print("[yellow]note[/]: a boundary has no scale, so its probabilities are not calibrated")
    else:
        found = import_lace(heads, specs)
    psi = _truncation(truncation) or (1.0, 1.0)
    bank = add_heads(
        model, specs, found, save_to, space=space, truncation=psi,
        label=_fitted_label(label), replace=replace, generator=generator, allow_plugins=allow_plugins,
    )  # fmt: skip
    out.print(f"Saved {escape(', '.join(found))}; the model has {len(bank.vocabulary)} attributes now")


def _fitted_label(text: str | None) -> int | list[float] | str | None:
    return text if text == "random" else read_label(text)


def _truncation(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(":")]
        if len(numbers) in (1, 2):
            return numbers[0], numbers[-1]
    except ValueError:
        pass
    raise ArgumentError(f"truncation is a number, or a range such as 0.5:1, not {text!r}")


def _kinds(texts: list[str] | None) -> dict[str, Kind]:
    kinds: dict[str, Kind] = {}
    for text in texts or []:
        name, _, wanted = text.rpartition("=")
        if not name or wanted not in get_args(Kind):
            raise ArgumentError(f"{text!r} is not name=kind", hint=f"kinds are {', '.join(get_args(Kind))}")
        kinds[name] = cast(Kind, wanted)
    return kinds


def _attribute(text: str) -> AttributeSpec:
    name, equals, what = text.partition("=")
    if not equals or what == "yes/no":
        return AttributeSpec(name, "yes/no")
    if what == "continuous":
        return AttributeSpec(name, "continuous")
    return AttributeSpec(name, "categorical", values=tuple(value.strip() for value in what.split(",")))
