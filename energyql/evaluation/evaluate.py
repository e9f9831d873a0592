"""All set-ups on one model, one after the other, written to disk as they go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from energyql.editing.settings import choose_preset
from energyql.errors import ArgumentError, EnergyQLError
from energyql.evaluation.compare import Size, compare
from energyql.evaluation.contenders import PAPER, Contender, read_contenders
from energyql.evaluation.evaluation_report import markdown
from energyql.evaluation.machine import machine
from energyql.evaluation.prior import prior_samples
from energyql.evaluation.sequential import run_sequence
from energyql.evaluation.setups import SETUPS, Setup, choose_queries
from energyql.evaluation.subject import Subject
from energyql.files import read_json, write_json, write_text
from energyql.language import Expr
from energyql.logic.satisfiability import noting_tautologies
from energyql.pipeline.queries import check_arguments
from energyql.progress import Report
from energyql.sampling import DEFAULT_SAMPLER
from energyql.version import __version__

DEFAULT_CONTENDERS = (DEFAULT_SAMPLER, PAPER)
DEFAULT_PRESETS = ("default", "lace")
SHOWN = 8


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        setups: names out of `SETUPS`.
        contenders: who samples, ours and the paper's side by side.
        presets: who edits: names out of `energyql.editing.settings.PRESETS`.
        size: how much is drawn where samples are compared.
        edits: pictures that are edited.
    """

    setups: tuple[str, ...]
    contenders: tuple[Contender, ...]
    presets: tuple[str, ...]
    size: Size
    edits: int


def make_plan(
    setups: Sequence[str],
    contenders: str | Sequence[str | Contender] = DEFAULT_CONTENDERS,
    presets: Sequence[str] = DEFAULT_PRESETS,
    *,
    size: Size,
    edits: int = 64,
) -> Plan:
    """Check all names.

    Raises:
        ArgumentError: one of them means nothing.
    """
    for name in setups:
        if name not in SETUPS:
            raise ArgumentError(f"there is no protocol {name!r}", hint=f"protocols: {', '.join(SETUPS)}, or all")
    for preset in presets:
        choose_preset(preset)
    if not setups or not presets:
        raise ArgumentError("there is nothing to evaluate", hint="name at least one protocol and one preset")
    return Plan(tuple(setups), tuple(read_contenders(contenders)), tuple(presets), size, edits)


def evaluate(subject: Subject, plan: Plan, folder: Path, report: Report) -> dict[str, Any]:
    """Run the set-ups and write reports.

    What an earlier run in the same folder measured with the same settings is not measured again. A set-up that the
    model cannot serve, because it has too few attributes, is reported as such and the others go on.

    Args:
        subject: the model.
        plan: what to run.
        folder: for `evaluation.json`, `evaluation.md`, a folder for each set-up, and what is kept.
        report: called with stages and fractions.

    Returns:
        What `evaluation.json` holds: `settings`, `machine` and `setups`, by name. Each has a `title`, what it is
        `about`, and `comparison` (see `energyql.evaluation.compare.compare`), `sequence` (see `run_sequence`, by
        preset), or `missing`, why there is neither.

    Raises:
        ArgumentError: the folder cannot be written.
    """
    prior = prior_samples(subject, plan.size.prior, folder / "kept" / "prior", report, seed=plan.size.seed)
    settings = {
        "model": subject.model.name,
        "identity": subject.identity,
        "features": None if subject.features is None else subject.features.name,
        "truncation": subject.encode.keywords["truncation"],
        "label": subject.settings["label"],
        "n": plan.size.n,
        "edits": plan.edits,
        "prior": plan.size.prior,
        "oracle": plan.size.oracle,
        "seed": plan.size.seed,
        "device": str(subject.device),
        "energyql": __version__,
    }
    data: dict[str, Any] = {
        "settings": settings,
        "machine": machine(),
        "contenders": [one.name for one in plan.contenders],
        "presets": list(plan.presets),
        "setups": {},
    }
    for number, name in enumerate(plan.setups):
        setup = SETUPS[name]
        report("protocols", number / len(plan.setups))
        found: dict[str, Any] = {"title": setup.title, "about": setup.about}
        try:
            queries = choose_queries(setup, subject.vocabulary, prior, plan.size.seed)
        except EnergyQLError as error:
            found["missing"] = error.message
        else:
            run = _edit if setup.sequential else _sample
            found |= run(subject, setup, queries, plan, folder, report)
        data["setups"][name] = found
        try:
            write_json(folder / "evaluation.json", data)
            write_text(folder / "evaluation.md", markdown(data))
        except OSError as error:
            raise ArgumentError(f"cannot write {folder}: {error.strerror or error}") from error
    report("protocols", 1.0)
    return data


def _sample(
    subject: Subject, setup: Setup, queries: list[Expr], plan: Plan, folder: Path, report: Report
) -> dict[str, Any]:
    with noting_tautologies():
        checked = check_arguments(queries, subject.vocabulary, {one.semantics for one in plan.contenders})
    found = compare(
        subject, checked, plan.contenders, size=plan.size, folder=folder / setup.name, report=report,
        title=setup.title, shown=SHOWN, kept=folder / "kept",
    )  # fmt: skip
    return {"comparison": {key: found[key] for key in ("queries", "summary")}}


def _edit(
    subject: Subject, setup: Setup, queries: list[Expr], plan: Plan, folder: Path, report: Report
) -> dict[str, Any]:
    """Edits by every preset; those of an earlier run are read."""
    sequence: dict[str, Any] = {}
    for preset in plan.presets:
        path = folder / setup.name / f"{preset}.json"
        settings = {
            "identity": subject.identity,
            "queries": [str(query) for query in queries],
            "preset": repr(choose_preset(preset)),
            "n": plan.edits,
            "seed": plan.size.seed,
            "energyql": __version__,
        }
        known = read_json(path) if path.is_file() else {}
        if known.get("settings") != settings:
            found = run_sequence(subject, queries, preset, plan.edits, plan.size.seed, path.parent, report)
            known = {"settings": settings, "found": found}
            write_json(path, known)
        sequence[preset] = known["found"]
    return {"sequence": sequence}
