"""Coverage and width of the intervals of `energyql audit`, by simulated audits: `python -m benchmarks.audit --help`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

from benchmarks.common import SmokeOption, page, run_command, show, table
from energyql import __version__
from energyql.auditing.estimate import Estimate, Strata
from energyql.evaluation.measure import machine
from energyql.files import sole_writer, write_json, write_text
from energyql.progress import reporting

ACCURACIES, PREVALENCES = (0.7, 0.85, 0.98), (0.2, 0.5, 0.95)
LEAST_LOOK, MOST_LOOK = 20, 0.8
"""An audit that may stop at any time looks at its interval after 20 clicks, then after at least as many more, and after
0.8 of the clicks that would make it narrow enough if its width went with one over the root of their number."""
HEADER = (
    "accuracy", "prevalence", "holds truth", "width", "without judge", "ratio",
    "stopped: holds", "clicks", "without judge", "ratio",
)  # fmt: skip
NOTE = (
    "Prevalence: share of the pictures that satisfies the query. Accuracy: share of the pictures of either kind about "
    "which the judge is right; no probability of the heads tells where it is wrong. Holds truth: audits whose 95 % "
    "interval after the fixed number of clicks contains the true share of all pictures. Without judge: the same "
    "method, for as many clicks at random. Stopped: audits that end at the width, at which they look at times; they "
    "hold if no interval on the way misses the truth."
)


@dataclass(frozen=True, eq=False)
class Population:
    """Pictures of simulated audits: truth and verdict of each, (pictures,) bool."""

    truth: npt.NDArray[np.bool_]
    verdict: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, pictures: int, accuracy: float, prevalence: float) -> Population:
        """Return pictures of which a share satisfies the query; the judge is wrong about a share of either kind."""
        truth = np.arange(pictures) < round(prevalence * pictures)
        wrong = np.zeros(pictures, bool)
        for kind in (truth, ~truth):
            rows = np.flatnonzero(kind)
            wrong[rows[: round((1 - accuracy) * len(rows))]] = True
        return cls(truth, truth ^ wrong)

    def audit(self, rng: np.random.Generator, judged: bool, stop: Callable[[Strata], bool]) -> Strata:
        """Return the counts of answers of an audit.

        Args:
            rng: random numbers for the order of pictures.
            judged: whether the judge's verdicts make two strata.
            stop: called after each answer; ends the audit.
        """
        parts = (
            [np.flatnonzero(self.verdict), np.flatnonzero(~self.verdict)] if judged else [np.arange(len(self.truth))]
        )
        orders = [rng.permutation(part) for part in parts]
        sizes, guess = np.array([len(order) for order in orders], float), np.array([1.0, 0.0] if judged else [0.5])
        strata = Strata(sizes, np.zeros(len(sizes)), np.zeros(len(sizes)), guess)
        while not stop(strata):
            place = strata.next(strata.seen < sizes)
            strata.yes[place] += self.truth[orders[place][int(strata.seen[place])]]
            strata.seen[place] += 1
        return strata

    def is_in(self, estimate: Estimate) -> bool:
        """Return whether an interval contains the true share."""
        return estimate.low - 1e-9 <= self.truth.mean() <= estimate.high + 1e-9


@dataclass(eq=False)
class Look:
    """The rule that ends an audit at a width. `holds` is whether all intervals so far contained the truth."""

    population: Population
    width: float
    due: float = LEAST_LOOK
    holds: bool = True

    def __call__(self, strata: Strata) -> bool:
        """Return whether the interval is narrow enough."""
        seen = strata.seen.sum()
        if seen < min(self.due, strata.size.sum()):
            return False
        estimate = strata.estimate(anytime=True)
        self.holds &= self.population.is_in(estimate)
        self.due = max(seen + LEAST_LOOK, MOST_LOOK * seen * (estimate.width / self.width) ** 2)
        return estimate.width <= self.width


@cache
def _estimate(
    size: tuple[float, ...], seen: tuple[float, ...], yes: tuple[float, ...], guess: tuple[float, ...]
) -> Estimate:
    return Strata(*map(np.array, (size, seen, yes, guess))).estimate(anytime=False)


def fixed(population: Population, seed: int, judged: bool, clicks: int) -> tuple[float, float]:
    """Return of an audit of a fixed number of clicks whether its interval holds the truth, and the interval's width."""
    strata = population.audit(np.random.default_rng(seed), judged, lambda now: now.seen.sum() == clicks)
    columns = (strata.size, strata.seen, strata.yes, strata.guess)
    estimate = _estimate(*(tuple(column.tolist()) for column in columns))
    return population.is_in(estimate), estimate.width


def stopped(population: Population, seed: int, judged: bool, width: float) -> tuple[float, float]:
    """Return of an audit that ends at a width whether all its intervals hold the truth, and its number of clicks."""
    look = Look(population, width)
    strata = population.audit(np.random.default_rng(seed), judged, look)
    return look.holds, float(strata.seen.sum())


def main(
    out: Annotated[Path, typer.Option("--out")] = Path("runs/audit"),
    audits: Annotated[int, typer.Option(min=1, help="Of a fixed number of clicks, of each case.")] = 500,
    stops: Annotated[int, typer.Option(min=1, help="Of those that stop at a width, of each case.")] = 500,
    pictures: Annotated[int, typer.Option(min=100, help="Of each audit.")] = 2000,
    clicks: Annotated[int, typer.Option(min=1, help="Of an audit of a fixed number.")] = 60,
    width: Annotated[float, typer.Option(help="At which the others stop.")] = 0.15,
    seed: int = 0,
    smoke: SmokeOption = False,
) -> None:
    """Simulate audits with judges of three accuracies and queries of three prevalences."""
    if smoke:
        audits, stops, pictures, width = 2, 2, 200, 0.2
    settings = {"audits": audits, "stops": stops, "pictures": pictures, "clicks": clicks, "width": width, "seed": seed}
    data: dict[str, Any] = {"settings": settings | {"energyql": __version__}, "machine": machine(), "cases": []}
    cases = list(product(ACCURACIES, PREVALENCES))
    with sole_writer(out, "a benchmark"), reporting(True) as report:
        for number, (accuracy, prevalence) in enumerate(cases):
            population = Population.of(pictures, accuracy, prevalence)
            case: dict[str, Any] = {"accuracy": accuracy, "prevalence": prevalence}
            for judged in (True, False):
                report("cases", (number + 0.5 * (not judged)) / len(cases))
                runs = [fixed(population, seed + audit, judged, clicks) for audit in range(audits)]
                ends = [stopped(population, seed + audit, judged, width) for audit in range(stops)]
                case |= {
                    f"{name} {judged}": np.mean(them, 0).tolist() for name, them in (("fixed", runs), ("stopped", ends))
                }
            data["cases"].append(case)
            rows = [_row(case) for case in data["cases"]]
            write_json(out / "results.json", data)
            write_text(out / "results.md", page("Simulated audits", NOTE, HEADER, rows, data))
        report("cases", 1.0)
    show(table(HEADER, rows), NOTE, width=110)


def _row(case: dict[str, Any]) -> list[str]:
    fixed, alone, stopped, stopped_alone = (
        case[f"{name} {judged}"] for name in ("fixed", "stopped") for judged in (True, False)
    )
    ratios = [f"{one[1] / other[1]:.2f}" for one, other in ((fixed, alone), (stopped, stopped_alone))]
    return [
        f"{case['accuracy']:.2f}", f"{case['prevalence']:.2f}",
        f"{100 * fixed[0]:.1f} %", f"{fixed[1]:.3f}", f"{alone[1]:.3f} ({100 * alone[0]:.1f} %)", ratios[0],
        f"{100 * stopped[0]:.1f} %", f"{stopped[1]:.0f}", f"{stopped_alone[1]:.0f}", ratios[1],
    ]  # fmt: skip


if __name__ == "__main__":
    run_command(main)
