"""Evaluation of a model by several protocols. Results are written as they come, so that an interrupted run resumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from energyql.editing.settings import choose_preset
from energyql.errors import ArgumentError, EnergyQLError
from energyql.evaluation.compare import PRIOR, SampleCounts, compare, run_settings
from energyql.evaluation.edits import measure_sequence
from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.evaluation.measure import machine
from energyql.evaluation.methods import PAPER, Method, read_methods
from energyql.evaluation.metrics import Features
from energyql.evaluation.protocols import PROTOCOLS, read_setup
from energyql.evaluation.reference import prior_samples
from energyql.evaluation.report import evaluation_page
from energyql.files import as_path, naming_target, read_json, sole_writer, write_json, write_text
from energyql.language import Expr
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.draw import pipeline_for
from energyql.pipeline.model import Model
from energyql.pipeline.settings import DEFAULT_SAMPLER, several, whole_number
from energyql.progress import Report, reporting
from energyql.version import __version__

SHOWN = 8
"""Pictures of each method for each query on the page."""


def evaluate(
    protocols: str | Sequence[str] | None = None,
    *,
    setup: str | Path | None = None,
    folder: str | Path = "evaluation",
    model: str | Path | Model = DEFAULT_MODEL,
    samplers: str | Sequence[str | Method] | None = None,
    presets: str | Sequence[str] = ("default", "lace"),
    n: int = 200,
    edits: int = 64,
    prior: int = PRIOR,
    oracle: int = 500,
    features: Features | None = None,
    truncation: float | None = None,
    label: int | Sequence[float] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool | Report = True,
) -> dict[str, Any]:
    """Run published experiments on a model, with this library's settings and the paper's side by side.

    An interrupted run resumes if it is called again: outcomes with the same settings are read from disk.

    Args:
        protocols: names out of `energyql.evaluation.protocols.PROTOCOLS`, or out of the set-up; all by default.
        setup: a published experiment, which gives queries, truncation and samplers: a name out of
            `energyql.evaluation.protocols.known_setups()`, or a JSON file.
        folder: for `evaluation.json`, `evaluation.md`, pictures, and the state for the next run.
        model: name of a packaged model, a model folder, or a `Model` in memory; it needs a judge.
        samplers: sample the queries; see `energyql.compare_samplers`. By default this library's and the paper's.
        presets: make the edits: names out of `energyql.editing.settings.PRESETS`.
        n: samples for each query and sampler, at least 2.
        edits: pictures that are edited.
        prior: pictures of the prior that all queries share.
        oracle: wanted effective number of exact samples of each query.
        features: in which distances between pictures are measured, such as
            `energyql.evaluation.metrics.inception_features()`; by default the judge's.
        truncation: as for `energyql.generate`; by default that of the set-up, if there is one.
        label: as for `energyql.generate`.
        seed: of queries and samples.
        device: as for `energyql.generate`.
        progress: as for `energyql.generate`.

    Returns:
        The contents of `evaluation.json`: `settings`, `machine`, `contenders` (the samplers), `presets` and `setups`,
        the protocols by name. Each has its `title`, `about`, and one of `comparison` (see
        `energyql.compare_samplers`), `sequence` (preset -> see `energyql.evaluation.edits.measure_sequence`), or
        `missing`, the reason why it was not run: the model has too few attributes.

    Raises:
        EnergyQLError: a name or a setting is wrong, or the model has no judge, or it lacks what the set-up needs, or
            the folder cannot be written.
    """
    counts, edits, folder = SampleCounts(n, prior, oracle, seed), whole_number("edits", edits), as_path(folder)
    published = None if setup is None else read_setup(setup)
    known = PROTOCOLS if published is None else published.protocols
    protocols, presets = tuple(known) if protocols is None else several(protocols), several(presets)
    if samplers is None:
        samplers = (DEFAULT_SAMPLER, PAPER) if published is None else published.samplers
    methods = read_methods(samplers)
    for name in protocols:
        if name not in known:
            raise ArgumentError(f"there is no protocol {name!r}", hint=f"protocols: {', '.join(known)}, or all")
    for preset in presets:
        choose_preset(preset)
    if not protocols or not presets:
        raise ArgumentError("there is nothing to evaluate", hint="name at least one protocol and one preset")
    opened = pipeline_for(model, device).model
    if published is not None:
        published.check(opened.vocabulary, protocols)
    chosen = [known[name] for name in protocols]
    truncations = [opened.check_truncation(one.truncation if truncation is None else truncation) for one in chosen]
    under: dict[float, tuple[EvaluatedModel, JudgedSamples]] = {}
    with sole_writer(folder, "an evaluation"), reporting(progress) as report:

        def at(psi: float) -> tuple[EvaluatedModel, JudgedSamples]:
            """Return the model under a truncation, with its prior."""
            if psi not in under:
                one = EvaluatedModel(opened, device=device, truncation=psi, label=label, features=features)
                under[psi] = one, prior_samples(one, counts.prior, folder / "kept" / "prior", report, seed=seed)
            return under[psi]

        evaluated, _ = at(truncations[0])
        named = None if evaluated.features is None else evaluated.features.name
        data: dict[str, Any] = {
            "settings": run_settings(evaluated, counts)
            | {"features": named, "edits": edits, "setup": setup and str(setup)},
            "machine": machine(),
            "contenders": [method.name for method in methods],
            "presets": list(presets),
            "setups": {},
        }
        for number, (protocol, psi) in enumerate(zip(chosen, truncations, strict=True)):
            report("protocols", number / len(protocols))
            evaluated, samples = at(psi)
            found: dict[str, Any] = {"title": protocol.title, "about": protocol.about}
            found["truncation"] = evaluated.truncation
            data["setups"][protocol.name] = found
            try:
                queries = protocol.choose_queries(evaluated.vocabulary, samples, seed)
            except EnergyQLError as error:
                found["missing"] = error.message
            else:
                if protocol.sequential:
                    place = folder / protocol.name
                    found["sequence"] = {
                        preset: _edit(evaluated, queries, preset, edits, seed, place, report) for preset in presets
                    }
                else:
                    compared = compare(
                        evaluated, queries, methods, counts=counts, folder=folder / protocol.name, report=report,
                        title=protocol.title, shown=SHOWN, kept=folder / "kept",
                    )  # fmt: skip
                    found["comparison"] = {key: compared[key] for key in ("queries", "summary")}
            with naming_target(folder):
                write_json(folder / "evaluation.json", data)
                write_text(folder / "evaluation.md", evaluation_page(data))
        report("protocols", 1.0)
    return data


def _edit(
    model: EvaluatedModel, steps: list[Expr], preset: str, n: int, seed: int, folder: Path, report: Report
) -> dict[str, Any]:
    """Return what `measure_sequence` returns, read from disk after an earlier run with the same settings."""
    path = folder / f"{preset}.json"
    settings = {
        "identity": model.identity,
        "queries": [str(step) for step in steps],
        "preset": repr(choose_preset(preset)),
        "n": n,
        "seed": seed,
        "energyql": __version__,
    }
    known = read_json(path) if path.is_file() else {}
    if known.get("settings") != settings:
        known = {"settings": settings, "found": measure_sequence(model, steps, preset, n, seed, folder, report)}
        write_json(path, known)
    return dict(known["found"])
