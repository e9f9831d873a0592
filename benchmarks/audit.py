"""Coverage and width of the intervals of `energyql audit`, by simulated audits: `python -m benchmarks.audit --help`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
    "Each audit has pictures of its own. Prevalence: probability with which one satisfies the query. Accuracy: "
    "probability with which the judge is right about it, whatever the truth; no probability of the heads tells where "
    "it is wrong. Holds truth: audits whose 95 % interval after the fixed number of clicks contains the true share of "
    "all pictures. Without judge: the same method, for as many clicks at random. Stopped: audits that end at the "
    "width, at which they look now and then; they hold if no interval on the way misses the truth."
)


@dataclass(frozen=True, eq=False)
class Population:
    """Pictures of a simulated audit: truth and verdict of each, (pictures,) bool."""

    truth: npt.NDArray[np.bool_]
    verdict: npt.NDArray[np.bool_]

    @classmethod
    def draw(cls, rng: np.random.Generator, pictures: int, accuracy: float, prevalence: float) -> Population:
        """Return random pictures with a judge that is wrong at random."""
        truth = rng.random(pictures) < prevalence
        return cls(truth, truth ^ (rng.random(pictures) >= accuracy))

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


def simulate(
    seed: int, pictures: int, accuracy: float, prevalence: float, clicks: int, width: float
) -> dict[str, tuple[float, float]]:
    """Return numbers of one audit: (whether the interval holds the truth, width or clicks), by way of auditing."""
    rng = np.random.default_rng([seed, round(1000 * accuracy), round(1000 * prevalence)])
    population = Population.draw(rng, pictures, accuracy, prevalence)
    outcome: dict[str, tuple[float, float]] = {}
    for judged in (True, False):
        strata = population.audit(rng, judged, lambda now: now.seen.sum() == clicks)
        estimate = strata.estimate(anytime=False)
        outcome[f"fixed {judged}"] = population.is_in(estimate), estimate.width
        look = Look(population, width)
        strata = population.audit(rng, judged, look)
        outcome[f"stopped {judged}"] = look.holds, float(strata.seen.sum())
    return outcome


def main(
    out: Annotated[Path, typer.Option("--out")] = Path("runs/audit"),
    audits: Annotated[int, typer.Option(min=1, help="Simulated audits of each case.")] = 500,
    pictures: Annotated[int, typer.Option(min=100, help="Of each audit.")] = 2000,
    clicks: Annotated[int, typer.Option(min=1, help="Of an audit of a fixed number.")] = 60,
    width: Annotated[float, typer.Option(help="At which the others stop.")] = 0.15,
    seed: int = 0,
    smoke: SmokeOption = False,
) -> None:
    """Simulate audits with judges of three accuracies and queries of three prevalences."""
    if smoke:
        audits, pictures, width = 2, 200, 0.2
    settings = {"audits": audits, "pictures": pictures, "clicks": clicks, "width": width, "seed": seed}
    data: dict[str, Any] = {"settings": settings | {"energyql": __version__}, "machine": machine(), "cases": []}
    cases = list(product(ACCURACIES, PREVALENCES))
    with sole_writer(out, "a benchmark"), reporting(True) as report:
        for number, (accuracy, prevalence) in enumerate(cases):
            outcomes = []
            for audit in range(audits):
                report("audits", (number + audit / audits) / len(cases))
                outcomes.append(simulate(seed + audit, pictures, accuracy, prevalence, clicks, width))
            means = {name: np.mean([outcome[name] for outcome in outcomes], 0).tolist() for name in outcomes[0]}
            data["cases"].append({"accuracy": accuracy, "prevalence": prevalence, **means})
            rows = [_row(case) for case in data["cases"]]
            write_json(out / "results.json", data)
            write_text(out / "results.md", page("Simulated audits", NOTE, HEADER, rows, data))
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
