"""The command `energyql directions`: find directions of the latent space without labels, and name them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from energyql.cli import options
from energyql.cli.options import out, out_option, read_pairs
from energyql.cli.reports import print_reports
from energyql.errors import ArgumentError
from energyql.files import read_whole
from energyql.models import packaged_models
from energyql.training.settings import DirectionSettings


@dataclass(frozen=True)
class Naming:
    """Values of the options that make attributes of directions."""

    name: Annotated[list[str] | None, typer.Option(metavar="NUMBER=NAME")] = None
    into: Path | None = None
    replace: bool = False


_SEARCH = "method", "goals", "labeller", "layers", "n", "truncation", "condition"


@options.with_options(*_SEARCH, record=DirectionSettings, method=None, n=None)
def directions(
    save_to: Annotated[Path, out_option()] = Path("directions"),
    *,
    source: options.GeneratorSource,
    seed: int = 0,
    naming: Naming,
    device: str = "auto",
    quiet: options.Quiet = False,
    **settings: Any,
) -> None:
    """Find directions along which pictures vary, without labels, and make attributes of those that you name.

    Run it first without --name, and open directions.png in the folder. Then give names, such as --name 3=smile.

    Args:
        save_to: A folder for the directions and a page of pictures; with --name, the one that holds them.
        method: Method; see docs/directions.md. By default ganspace.
        model: A checkpoint, pipeline, model folder or packaged model, or a generator: module:factory, or a plugin.
        n: Number of directions, by default 10.
        name: Make an attribute of a direction in the folder; repeat for more.
        into: The model folder for the attributes; by default that of --model.
        replace: Replace old attributes by new ones of the same name.
        seed: Seed of the pictures on the page.
    """
    from energyql.attributes.judge import open_labeller
    from energyql.files import sole_writer, write_picture
    from energyql.progress import reporting
    from energyql.training.directions import PAGE, Directions, draw_directions, find_directions, name_directions
    from energyql.training.target import open_source

    model, into = source.model, naming.into
    if naming.name:
        if any(value is not None for value in settings.values()):
            hint = "leave out --method and its options, --truncation and --condition; or find directions without --name"
            raise ArgumentError(f"--name is for the directions that {save_to} holds", hint=hint)
        if into is None and ((packaged := model in packaged_models()) or not Path(model).is_dir()):
            wrong = f"the packaged model {model!r} is not changed" if packaged else f"{model} is no model folder"
            raise ArgumentError(wrong, hint="name a folder for a copy with attributes, --into")
        names, axes = _names(naming.name), Directions.load(save_to)
        bank = name_directions(
            axes, names, source, into, replace=naming.replace, device=device, progress=not quiet
        )  # fmt: skip
        if not quiet:
            print_reports({each: bank.reports[each] for each in names.values() if each in bank.reports})
            out.print(f"Saved {escape(', '.join(names.values()))}; the model has {len(bank.vocabulary)} attributes now")
        return
    if into is not None or naming.replace:
        raise ArgumentError("--into and --replace are for attributes", hint="give them with --name NUMBER=NAME")

    target = open_source(source)
    if settings["labeller"] is not None:
        settings["labeller"] = open_labeller(settings["labeller"])
    given = {name: value for name, value in settings.items() if value is not None}
    with sole_writer(save_to, "a search for directions"), reporting(not quiet) as report:
        axes = find_directions(target, device=device, progress=report, **given)
        page = draw_directions(axes, target.generator, seed=seed, report=report)
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
