"""Evaluation of a model by several protocols. Results are written as they come, so that an interrupted run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from energyql.editing.settings import choose_preset
from energyql.errors import ArgumentError, EnergyQLError
from energyql.evaluation.compare import SampleCounts, compare, run_settings
from energyql.evaluation.edits import measure_sequence
from energyql.evaluation.judged import EvaluatedModel
from energyql.evaluation.measure import machine
from energyql.evaluation.methods import PAPER, Method, read_methods
from energyql.evaluation.protocols import PROTOCOLS, EvaluationProtocol
from energyql.evaluation.reference import prior_samples
from energyql.evaluation.report import evaluation_page
from energyql.files import read_json, write_json, write_text
from energyql.language import Expr
from energyql.logic.satisfiability import noting_tautologies
from energyql.pipeline.queries import check_arguments
from energyql.pipeline.settings import DEFAULT_SAMPLER
from energyql.progress import Report
from energyql.version import __version__

DEFAULT_METHODS = (DEFAULT_SAMPLER, PAPER)
DEFAULT_PRESETS = ("default", "lace")
SHOWN = 8
"""Pictures of each method for each query on the page."""


@dataclass(frozen=True)
class EvaluationPlan:
    """Everything that an evaluation runs.

    Attributes:
        protocols: names out of `PROTOCOLS`.
        methods: sample the queries, this library's settings and the paper's side by side.
        presets: make the edits: names out of `energyql.editing.settings.PRESETS`.
        counts: how many samples to draw where samplers are compared.
        edits: pictures that are edited.
    """

    protocols: tuple[str, ...]
    methods: tuple[Method, ...]
    presets: tuple[str, ...]
    counts: SampleCounts
    edits: int


def make_plan(
    protocols: Sequence[str],
    methods: str | Sequence[str | Method] = DEFAULT_METHODS,
    presets: Sequence[str] = DEFAULT_PRESETS,
    *,
    counts: SampleCounts,
    edits: int = 64,
) -> EvaluationPlan:
    """Check all names and return the plan.

    Raises:
        ArgumentError: there is no protocol, sampler or preset of a name.
    """
    for name in protocols:
        if name not in PROTOCOLS:
            raise ArgumentError(f"there is no protocol {name!r}", hint=f"protocols: {', '.join(PROTOCOLS)}, or all")
    for preset in presets:
        choose_preset(preset)
    if not protocols or not presets:
        raise ArgumentError("there is nothing to evaluate", hint="name at least one protocol and one preset")
    return EvaluationPlan(tuple(protocols), tuple(read_methods(methods)), tuple(presets), counts, edits)


def evaluate(model: EvaluatedModel, plan: EvaluationPlan, folder: Path, report: Report) -> dict[str, Any]:
    """Run the protocols and write reports.

    Outcomes of an earlier run in the same folder with the same settings are read from disk. A protocol that needs more
    attributes than the model has is reported as missing, and the others are run.

    Args:
        model: the evaluated model.
        plan: what to run.
        folder: for `evaluation.json`, `evaluation.md`, a folder for each protocol, and the state for the next run.
        report: called with stages and fractions.

    Returns:
        The contents of `evaluation.json`: `settings`, `machine`, `contenders` (the names of the methods), `presets` and
        `setups`, the protocols by name. Each has its `title`, `about`, and one of `comparison` (see
        `energyql.evaluation.compare.compare`), `sequence` (preset -> see `measure_sequence`), or `missing`, the reason
        why it was not run.

    Raises:
        ArgumentError: the folder cannot be written.
    """
    counts = plan.counts
    prior = prior_samples(model, counts.prior, folder / "kept" / "prior", report, seed=counts.seed)
    features = None if model.features is None else model.features.name
    data: dict[str, Any] = {
        "settings": run_settings(model, counts) | {"features": features, "edits": plan.edits},
        "machine": machine(),
        "contenders": [method.name for method in plan.methods],
        "presets": list(plan.presets),
        "setups": {},
    }
    for number, name in enumerate(plan.protocols):
        protocol = PROTOCOLS[name]
        report("protocols", number / len(plan.protocols))
        found: dict[str, Any] = {"title": protocol.title, "about": protocol.about}
        try:
            queries = protocol.choose_queries(model.vocabulary, prior, counts.seed)
        except EnergyQLError as error:
            found["missing"] = error.message
        else:
            run = _edit if protocol.sequential else _sample
            found |= run(model, protocol, queries, plan, folder, report)
        data["setups"][name] = found
        try:
            write_json(folder / "evaluation.json", data)
            write_text(folder / "evaluation.md", evaluation_page(data))
        except OSError as error:
            raise ArgumentError(f"cannot write {folder}: {error.strerror or error}") from error
    report("protocols", 1.0)
    return data


def _sample(
    model: EvaluatedModel, protocol: EvaluationProtocol, queries: list[Expr], plan: EvaluationPlan, folder: Path,
    report: Report,
) -> dict[str, Any]:  # fmt: skip
    """Compare the methods on the queries."""
    with noting_tautologies():
        checked = check_arguments(queries, model.vocabulary, {method.semantics for method in plan.methods})
    found = compare(
        model, checked, plan.methods, counts=plan.counts, folder=folder / protocol.name, report=report,
        title=protocol.title, shown=SHOWN, kept=folder / "kept",
    )  # fmt: skip
    return {"comparison": {key: found[key] for key in ("queries", "summary")}}


def _edit(
    model: EvaluatedModel, protocol: EvaluationProtocol, queries: list[Expr], plan: EvaluationPlan, folder: Path,
    report: Report,
) -> dict[str, Any]:  # fmt: skip
    """Edit with every preset, the queries being the steps; results of an earlier run are read from disk."""
    sequence: dict[str, Any] = {}
    for preset in plan.presets:
        path = folder / protocol.name / f"{preset}.json"
        settings = {
            "identity": model.identity,
            "queries": [str(query) for query in queries],
            "preset": repr(choose_preset(preset)),
            "n": plan.edits,
            "seed": plan.counts.seed,
            "energyql": __version__,
        }
        known = read_json(path) if path.is_file() else {}
        if known.get("settings") != settings:
            found = measure_sequence(model, queries, preset, plan.edits, plan.counts.seed, path.parent, report)
            known = {"settings": settings, "found": found}
            write_json(path, known)
        sequence[preset] = known["found"]
    return {"sequence": sequence}
