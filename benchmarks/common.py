"""Parts that the benchmarks share: commands, timing in turns, tables and pages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console, RenderableType
from rich.table import Table
from torch import Tensor

from energyql.errors import ArgumentError, EnergyQLError
from energyql.evaluation.judged import EvaluatedModel
from energyql.evaluation.metrics import Gaussian, frechet_distance, frechet_floor
from energyql.evaluation.reference import Search, find_oracle
from energyql.evaluation.report import facts
from energyql.files import read_json
from energyql.render.markup import markdown_table

SmokeOption = Annotated[bool, typer.Option("--smoke", help="In miniature: only that it runs.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Of torch, on the CPU.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")]
JudgedModelOption = Annotated[str, typer.Option(help="A packaged model, or a model folder with a judge.")]
ChoicesOption = Annotated[
    bool,
    typer.Option("--choices", help="Judge by the choices of latents, without pictures; needs the recipe extra."),
]


def run_command(main: Callable[..., None], *, resumes: bool = False) -> None:
    """Run a benchmark as a command, with readable errors.

    Args:
        main: its function, with typer's options.
        resumes: whether an interrupted run resumes when the command is repeated.
    """
    err = Console(stderr=True, highlight=False, soft_wrap=True)

    @wraps(main)
    def command(**options: Any) -> None:
        try:
            main(**options)
        except KeyboardInterrupt:
            err.print("interrupted; run the same command again to resume" if resumes else "interrupted")
            raise typer.Exit(130) from None
        except EnergyQLError as error:
            err.print(f"{type(error).__name__}: {error}", markup=False)
            raise typer.Exit(2 if isinstance(error, ArgumentError) else 1) from None

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    app()


def judged_model(model: str, device: str, choices: bool) -> tuple[EvaluatedModel, Search]:
    """Return a model that is judged by its own judge, or by the choices of latents; and its search for exact samples.

    See `benchmarks.choices`.
    """
    if not choices:
        return EvaluatedModel(model, device=device), find_oracle
    from benchmarks.choices import ChoiceModel, find_choices  # imports the libraries that draw

    return ChoiceModel(model, device=device), find_choices


def show(*parts: RenderableType, width: int = 80) -> None:
    """Print tables and notes at least `width` wide: a narrow pipe would break the numbers."""
    console = Console(highlight=False)
    console.width = max(console.width, width)
    for part in parts:
        console.print(part)


def table(header: Iterable[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table for `show`."""
    filled = Table(*header)
    for row in rows:
        filled.add_row(*row)
    return filled


def page(
    title: str, note: str, header: Sequence[str], rows: Iterable[Sequence[str]], data: dict[str, Any], *more: str
) -> str:
    """Return a page: a heading, a note, a table, further lines, and the settings and machine of `data`."""
    return "\n".join([f"# {title}", "", note, "", *markdown_table(header, rows), *more, *facts(data)]) + "\n"


def split_names(option: str, text: str, known: Iterable[str]) -> list[str]:
    """Return the names in `text`, separated by commas.

    Raises:
        ArgumentError: a name is unknown, or there is none.
    """
    names, known = [name.strip() for name in text.split(",") if name.strip()], list(known)
    if not names or not set(names) <= set(known):
        raise ArgumentError(f"{option} {text!r} are unknown", hint=f"choose from {', '.join(known)}")
    return names


def read_take(text: str) -> Callable[[int], list[int]]:
    """Return the function from a number of formulas to the numbers of those that a run measures.

    Raises:
        ArgumentError: the text is not of the form PLACE/PARTS, such as 1/2.
    """
    place, _, parts = text.partition("/")
    if not (place.isdecimal() and parts.isdecimal() and 1 <= int(place) <= int(parts)):
        raise ArgumentError(f"--take: {text!r} is not of the form PLACE/PARTS", hint="such as 1/2, and then 2/2")
    return lambda count: list(range(int(place) - 1, count, int(parts)))


def earlier_results(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the results of an earlier run; none if there was no run with these settings."""
    data = read_json(path) if path.is_file() else {}
    return data if data.get("settings") == settings else {}


def effective_number(exact: np.ndarray[Any, Any], sampled: np.ndarray[Any, Any]) -> float:
    """Return of how many exact samples the frequencies would have the mean squared error that those of samples have.

    Args:
        exact: 1 where an exact sample has a value, else 0, (samples, values).
        sampled: the same for the other samples.
    """
    shares, count = exact.mean(0), len(sampled)
    variance = float((shares * (1 - shares)).sum())
    excess = float(np.square(sampled.mean(0) - shares).sum()) - variance / len(exact)  # of the exact samples
    return float(count) if excess <= variance / count else variance / excess


def frechet_beside_floor(features: Tensor, reference: Tensor, n: int) -> dict[str, float]:
    """Return the Fréchet distance of features to those of a reference, and that of `n` draws of the reference itself.

    Args:
        features: of samples, (samples, size).
        reference: of other pictures, (pictures, size).
        n: draws of the reference; as many as samples for a fair comparison.

    Returns:
        `distance` and `floor`.
    """
    return {
        "distance": frechet_distance(Gaussian.of(features), Gaussian.of(reference)),
        "floor": frechet_floor(reference, np.ones(len(reference)), n),
    }


def take_turns(
    calls: Mapping[str, Callable[[int], Any]], turns: int, done: Callable[[float], None]
) -> dict[str, list[tuple[float, Any]]]:
    """Time several functions in turns, so that other load on the machine affects all of them alike.

    Args:
        calls: the functions; each is called with the number of the turn, from 0 on.
        turns: how many; there is one more in front, which is not counted.
        done: called with the fraction of turns that are done.

    Returns:
        For each function the seconds and the result of every turn.
    """
    found: dict[str, list[tuple[float, Any]]] = {name: [] for name in calls}
    for turn in range(turns + 1):
        for name, call in calls.items():
            started = time.perf_counter()
            result = call(turn)
            if turn:
                found[name].append((time.perf_counter() - started, result))
        done((turn + 1) / (turns + 1))
    return found
