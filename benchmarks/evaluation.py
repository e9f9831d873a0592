"""Time of one evaluation of an energy, against bare matrix products: `python -m benchmarks.evaluation --help`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from rich.table import Table
from torch import Tensor

from benchmarks.baselines import Bare, Published, gradient_by_autograd, random_bank, random_mapping
from benchmarks.common import SmokeOption, ThreadsOption, page, run_command, show
from benchmarks.heads import LACE_SIZES
from energyql.attributes.heads import AttributeBank
from energyql.energy.query_energy import QueryEnergy
from energyql.energy.rule import compile_energy_rule
from energyql.evaluation.measure import machine
from energyql.files import write_json, write_text
from energyql.generators.mapping import FrozenMapping, StyleGANConfig
from energyql.generators.stylegan2 import StyleGAN2Config
from energyql.language import bind, parse
from energyql.models import DEFAULT_MODEL, model_folder
from energyql.numerics.pullback import Identity
from energyql.pipeline.model import load_model
from energyql.progress import Report, reporting
from energyql.training.heads import HeadSettings
from energyql.vocabulary import AttributeSpec, Vocabulary

FFHQ = StyleGAN2Config(resolution=1024)  # z and w of 512 numbers, 8 layers
SMALL = StyleGAN2Config(resolution=8, z_dim=16, w_dim=16, mapping_layers=2)
TRUNCATION = 0.7
WIDTHS = {"ours": (HeadSettings().hidden,), "of LACE's size": LACE_SIZES}
QUERIES = (
    "a1",
    "a1 AND NOT (a2 OR a3)",
    "a1 AND NOT (a2 OR a3) AND (c1 IN {x, y} OR n1 > 0.6) AND NOT a4",
    (
        "a1 AND NOT (a2 OR a3) AND (c1 IN {x, y} OR n1 > 0.6) AND NOT a4 "
        "AND (a5 OR a6) AND (a7 IMPLIES a8) AND c2 = z AND 0.2 < n2 < 0.7"
    ),
)
PACKAGED = ("smile AND NOT (glasses OR beard)", "hair IN {gray, black} AND skin_tone > 0.6 AND NOT hat")
VOCABULARY = Vocabulary(
    [
        *(AttributeSpec(f"a{i}", "yes/no") for i in range(1, 9)),
        *(AttributeSpec(f"c{i}", "categorical", values=("x", "y", "z", "u", "v")) for i in (1, 2)),
        *(AttributeSpec(f"n{i}", "continuous") for i in (1, 2)),
    ]
)
BATCH, LARGE_BATCH = 64, 1024
REPETITIONS, SMOKE_REPETITIONS = 100, 2
LEAST_SECONDS = 1e-3
"""Of one timing; faster functions are repeated within it."""
SEED = 2026
COLUMNS = {
    "energy": ("ours, energy", "bare energy"),
    "gradient": ("ours, energy and gradient", "bare gradient"),
    "autograd": ("our modules by autograd", "bare gradient"),
    "published": ("published structure", "bare gradient"),
}
"""Timed function -> its heading, and the one that its time is divided by."""
NOTE = (
    "Bare: the matrix products of one mapping pass and of the heads that the query uses, forward and backward, with "
    "weights packed for oneDNN, in milliseconds. The other columns are multiples of it (the energy alone: of the "
    "products forward). Published: the mapping network once for each attribute, separate heads of LACE's size, LACE's "
    "rules, autograd. Medians of runs that took turns in one process; float32."
)


def run(*, repetitions: int, mapping: StyleGANConfig, report: Report) -> dict[str, Any]:
    """Time every query.

    Returns:
        The contents of `results.json`; times are in seconds.
    """
    rows: list[dict[str, Any]] = []
    cases: list[tuple[dict[str, Any], Mapping[str, Callable[[], object]]]] = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        for heads, widths in WIDTHS.items():
            bank = random_bank(VOCABULARY, mapping.w_dim, widths, "w")
            cases += [_case(query, bank, mapping, BATCH, heads) for query in QUERIES]
        packaged = load_model(model_folder(DEFAULT_MODEL)).bank
        named = f"of {DEFAULT_MODEL}, on z"
        cases += [_case(query, packaged, None, batch, named) for query in PACKAGED for batch in (BATCH, LARGE_BATCH)]
        for i, (facts, calls) in enumerate(cases):
            seconds = _times(calls, repetitions)
            ratios = {name: seconds[name] / seconds[base] for name, (_, base) in COLUMNS.items()}
            rows.append(facts | {"seconds": seconds, "ratios": ratios})
            report("timing", (i + 1) / len(cases))
    settings = {"repetitions": repetitions, "z_dim": mapping.z_dim, "w_dim": mapping.w_dim}
    settings |= {"mapping_layers": mapping.mapping_layers, "seed": SEED}
    return {"settings": settings, "machine": machine(), "rows": rows}


def _case(
    query: str, bank: AttributeBank, mapping: StyleGANConfig | None, batch: int, heads: str
) -> tuple[dict[str, Any], dict[str, Callable[[], object]]]:
    """Return the facts of a row of the table, and the functions to time."""
    bound = bind(parse(query), bank.vocabulary)
    rule, lace = (compile_energy_rule(bound, bank.vocabulary, semantics) for semantics in ("exact", "lace"))
    layers = mapping.mapping_layers if mapping else 0
    encode: Callable[[Tensor], Tensor] = Identity()
    plain: Callable[[Tensor], Tensor] = encode
    if mapping:
        network = random_mapping(mapping)
        encode, plain = FrozenMapping(network, TRUNCATION), partial(network, truncation=TRUNCATION)
    ours = QueryEnergy(rule, encode, bank)
    by_autograd = QueryEnergy(rule, plain, bank.predict)
    published = Published(lace, bank.vocabulary, plain, bank.latent_dim)
    bare = Bare(layers, bank.latent_dim, [bank.heads[name] for name in rule.attributes], batch)
    z = torch.randn(batch, mapping.z_dim if mapping else bank.latent_dim)
    facts = {"query": query, "attributes": len(rule.attributes), "heads": heads, "batch": batch}
    return facts, {
        "bare energy": bare.forward,
        "bare gradient": bare.both,
        "energy": partial(ours, z),
        "gradient": partial(ours.gradient, z),
        "autograd": partial(gradient_by_autograd, by_autograd, z),
        "published": partial(gradient_by_autograd, published, z),
    }


def _times(calls: Mapping[str, Callable[[], object]], repetitions: int) -> dict[str, float]:
    """Return the median seconds of one call of each; they take turns, as in `take_turns`."""
    counts = {}
    for name, call in calls.items():
        call()
        started = time.perf_counter()
        call()
        counts[name] = max(1, round(LEAST_SECONDS / (time.perf_counter() - started)))
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repetitions):
        for name, call in calls.items():
            started = time.perf_counter()
            for _ in range(counts[name]):
                call()
            found[name].append((time.perf_counter() - started) / counts[name])
    return {name: median(seconds) for name, seconds in found.items()}


def cells(row: dict[str, Any]) -> list[str]:
    """Return a row of the table as text."""
    facts = [row["heads"], str(row["attributes"]), str(row["batch"]), f"{1e3 * row['seconds']['bare gradient']:.3f}"]
    return facts + [f"{row['ratios'][name]:.2f}" for name in COLUMNS]


HEADER = ["heads", "attributes", "batch", "bare, ms", *(label for label, _ in COLUMNS.values())]


def markdown(data: dict[str, Any]) -> str:
    """Return the results as a page."""
    queries = dict.fromkeys(f"- {row['attributes']}: `{row['query']}`" for row in data["rows"])
    rows = map(cells, data["rows"])
    return page("Time of one evaluation", NOTE, HEADER, rows, data, "", "## Queries", "", *queries)


def main(
    threads: ThreadsOption = 2,
    repetitions: Annotated[int, typer.Option(min=1, help="Turns of which medians are taken.")] = REPETITIONS,
    out: Annotated[Path, typer.Option(help="Folder for results.json and results.md.")] = Path("runs/evaluation"),
    smoke: SmokeOption = False,
) -> None:
    """Time an energy and its gradient on the CPU, for queries of one to twelve attributes."""
    torch.set_num_threads(threads)
    with reporting(True) as report:
        data = run(
            repetitions=SMOKE_REPETITIONS if smoke else repetitions, mapping=SMALL if smoke else FFHQ, report=report
        )
    write_json(out / "results.json", data)
    write_text(out / "results.md", markdown(data))
    table = Table(*HEADER)
    for row in data["rows"]:
        table.add_row(*cells(row))
    show(table, NOTE, f"Saved {out / 'results.json'} and results.md", width=120)


if __name__ == "__main__":
    run_command(main)
