"""The command `energyql directions`: find directions of the latent space without labels, and name them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from energyql.cli import options
from energyql.cli.edit import read_rows
from energyql.cli.options import out, out_option, read_condition, read_names, read_pairs
from energyql.cli.reports import print_reports
from energyql.errors import ArgumentError
from energyql.files import read_whole
from energyql.models import DEFAULT_MODEL, packaged_models
from energyql.pipeline.settings import DirectionMethod


@options.with_options()
def directions(
    save_to: Annotated[Path, out_option()] = Path("directions"),
    method: Annotated[DirectionMethod | None, typer.Option(show_default=False)] = None,
    n: Annotated[int | None, typer.Option("-n", min=1)] = None,
    goals: Annotated[str | None, typer.Option(metavar="NAMES")] = None,
    labeller: str | None = None,
    model: Annotated[str, typer.Option("--model", "-m", help=options.SOURCE_HELP)] = DEFAULT_MODEL,
    layers: str | None = None,
    truncation: float | None = None,
    condition: str | None = None,
    name: Annotated[list[str] | None, typer.Option(metavar="NUMBER=NAME")] = None,
    into: Path | None = None,
    replace: bool = False,
    seed: int = 0,
    generator: options.Code = None,
    allow_plugins: options.AllowPlugins = False,
    device: str = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Find directions along which pictures vary, without labels, and make attributes of those that you name.

    Run it first without --name, and open directions.png in the folder. Then give names, such as --name 3=smile.

    Args:
        save_to: A folder for the directions and a page of pictures; with --name, the one that holds them.
        method: Method; see docs/directions.md. By default ganspace.
        n: Number of directions, by default 10.
        goals: For interfacegan, steerability and ganalyze, separated by commas: attributes, edits such as
            zoom,rotation, or numbers. By default all, up to -n.
        labeller: For ganalyze: module:function that reads numbers from pictures, in place of the judge.
        condition: For a conditional generator: a class, numbers, or random for a random class per picture.
        layers: Layers of W+ to use, for directions and for the pictures: 4-9 or 0,1,7.
        name: Make an attribute of a direction in the folder; repeat for more.
        into: The model folder for the attributes; by default that of --model.
    """
    from energyql.attributes.labels import import_labeller
    from energyql.files import sole_writer, write_picture
    from energyql.progress import reporting
    from energyql.training.directions import PAGE, Directions, draw_directions, find_directions, name_directions
    from energyql.training.target import Source, open_source

    if name:
        if any(option is not None for option in (method, n, goals, labeller, layers, truncation, condition)):
            hint = "leave out --method and its options, --truncation and --condition; or find directions without --name"
            raise ArgumentError(f"--name is for the directions that {save_to} holds", hint=hint)
        if into is None and ((packaged := model in packaged_models()) or not Path(model).is_dir()):
            wrong = f"the packaged model {model!r} is not changed" if packaged else f"{model} is no model folder"
            raise ArgumentError(wrong, hint="name a folder for a copy with attributes, --into")
        names, axes = _names(name), Directions.load(save_to)
        bank = name_directions(
            axes, names, model, into, replace=replace, generator=generator, allow_plugins=allow_plugins,
            device=device, progress=not quiet,
        )  # fmt: skip
        if not quiet:
            print_reports({each: bank.reports[each] for each in names.values() if each in bank.reports})
            out.print(f"Saved {escape(', '.join(names.values()))}; the model has {len(bank.vocabulary)} attributes now")
        return
    if into is not None or replace:
        raise ArgumentError("--into and --replace are for attributes", hint="give them with --name NUMBER=NAME")

    source = open_source(Source(model, generator, allow_plugins))
    with sole_writer(save_to, "a search for directions"), reporting(not quiet) as report:
        axes = find_directions(
            source, method or "ganspace", n or 10, goals=None if goals is None else read_names(goals),
            labeller=None if labeller is None else import_labeller(labeller),
            layers=None if layers is None else read_rows(layers), truncation=truncation,
            condition=read_condition(condition), device=device, progress=report,
        )  # fmt: skip
        page = draw_directions(axes, source.generator, seed=seed, report=report)
        axes.save(save_to)
        write_picture(save_to / PAGE, page)
    if quiet:
        return
    for title, share, (low, *_, high) in zip(axes.titles, axes.share.tolist(), axes.quantiles.tolist(), strict=True):
        out.print(f"{escape(title)}: share {100 * share:.1f} %, values {low:.1f} to {high:.1f}")
    out.print(f"Saved {escape(str(save_to))}. Look at {PAGE} there, then name directions: --name 0=NAME")


def _names(texts: list[str]) -> dict[int, str]:
    names: dict[int, str] = {}
    for digits, name in read_pairs("--name", texts, "NUMBER=NAME", "3=smile").items():
        if (number := read_whole(digits.strip())) is None or not name.strip():
            raise ArgumentError(f"--name: {digits}={name} is not NUMBER=NAME", hint="such as --name 3=smile")
        if number in names or name.strip() in names.values():  # 3 and 03 are one number
            hint = "give each direction one name of its own"
            raise ArgumentError(f"--name: {digits}={name} gives a number or a name twice", hint=hint)
        names[number] = name.strip()
    return names
