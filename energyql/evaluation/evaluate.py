"""Evaluation of a model by protocols. Each outcome is written at once, so an interrupted run can be continued."""

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

PICTURE_COUNT = 8
"""Pictures on the page of each method for each query."""


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

    The same call continues an interrupted run: outcomes with the same settings are read from disk.

    Args:
        protocols: names out of `energyql.evaluation.protocols.PROTOCOLS`, or out of the set-up; all by default.
        setup: a published experiment, which sets queries, truncation and samplers: a name out of
            `energyql.evaluation.protocols.known_setups()`, or a JSON file.
        folder: where `evaluation.json`, `evaluation.md`, pictures, and the state for the next run are written.
        model: name of a packaged model, a model folder, or a `Model` in memory; it needs a judge.
        samplers: the samplers of the queries, as for `energyql.compare_samplers`; by default this library's default and
            the paper's, or those of the set-up.
        presets: the presets of the edits, names out of `energyql.editing.settings.PRESETS`.
        n: samples for each query and sampler, at least 2.
        edits: number of pictures that are edited.
        prior: pictures of the prior that all queries share, at least 100.
        oracle: effective number of exact samples that is collected for each query, at least 30.
        features: features by which distances between pictures are measured, such as
            `energyql.evaluation.metrics.inception_features()`; by default the judge's.
        truncation: psi in [0, 1], by default that of the set-up or of the model; see `energyql.generate`.
        label: a class, or c_dim numbers, for a conditional generator.
        seed: seed of queries and samples.
        device: "auto", "cpu", "cuda" and so on; see `energyql.generate`.
        progress: whether a progress bar is shown; or a function that is called with the name of a stage and the
            fraction of it that is done.

    Returns:
        The contents of `evaluation.json`: `settings`, `machine`, `contenders` (the samplers), `presets` and `setups`,
        the protocols by name. Each has its `title`, `about`, `truncation`, and one of `comparison` (`queries` and
        `summary` of `energyql.compare_samplers`), `sequence` (preset -> result of
        `energyql.evaluation.edits.measure_sequence`), or `missing`, the reason why it was not run.

    Raises:
        EnergyQLError: a name or a setting is wrong, or the model has no judge or not the attributes of the set-up, or
            the folder cannot be written.
    """
    counts, edits, folder = SampleCounts(n, prior, oracle, seed), whole_number("edits", edits), as_path(folder)
    published = None if setup is None else read_setup(setup)
    available = PROTOCOLS if published is None else published.protocols
    protocols, presets = tuple(available) if protocols is None else several(protocols), several(presets)
    if samplers is None:
        samplers = (DEFAULT_SAMPLER, PAPER) if published is None else published.samplers
    methods = read_methods(samplers)
    for name in protocols:
        if name not in available:
            raise ArgumentError(f"there is no protocol {name!r}", hint=f"protocols: {', '.join(available)}, or all")
    for preset in presets:
        choose_preset(preset)
    if not protocols or not presets:
        raise ArgumentError("there is nothing to evaluate", hint="name at least one protocol and one preset")
    loaded = pipeline_for(model, device).model
    if published is not None:
        published.check(loaded.vocabulary, protocols)
    selection = [available[name] for name in protocols]
    truncations = [loaded.check_truncation(one.truncation if truncation is None else truncation) for one in selection]
    under: dict[float, tuple[EvaluatedModel, JudgedSamples]] = {}
    with sole_writer(folder, "an evaluation"), reporting(progress) as report:

        def at(psi: float) -> tuple[EvaluatedModel, JudgedSamples]:
            """Return the model under a truncation, and samples of its prior."""
            if psi not in under:
                one = EvaluatedModel(loaded, device=device, truncation=psi, label=label, features=features)
                under[psi] = one, prior_samples(one, counts.prior, folder / "kept" / "prior", report, seed=seed)
            return under[psi]

        evaluated, _ = at(truncations[0])
        features_name = None if evaluated.features is None else evaluated.features.name
        data: dict[str, Any] = {
            "settings": run_settings(evaluated, counts)
            | {"features": features_name, "edits": edits, "setup": setup and str(setup)},
            "machine": machine(),
            "contenders": [method.name for method in methods],
            "presets": list(presets),
            "setups": {},
        }
        for number, (protocol, psi) in enumerate(zip(selection, truncations, strict=True)):
            report("protocols", number / len(protocols))
            evaluated, samples = at(psi)
            entry: dict[str, Any] = {"title": protocol.title, "about": protocol.about}
            entry["truncation"] = evaluated.truncation
            data["setups"][protocol.name] = entry
            try:
                queries = protocol.choose_queries(evaluated.vocabulary, samples, seed)
            except EnergyQLError as error:
                entry["missing"] = error.message
            else:
                if protocol.sequential:
                    place = folder / protocol.name
                    entry["sequence"] = {
                        preset: _edit(evaluated, queries, preset, edits, seed, place, report) for preset in presets
                    }
                else:
                    comparison = compare(
                        evaluated, queries, methods, counts=counts, folder=folder / protocol.name, report=report,
                        title=protocol.title, picture_count=PICTURE_COUNT, cache=folder / "kept",
                    )  # fmt: skip
                    entry["comparison"] = {key: comparison[key] for key in ("queries", "summary")}
            with naming_target(folder):
                write_json(folder / "evaluation.json", data)
                write_text(folder / "evaluation.md", evaluation_page(data))
        report("protocols", 1.0)
    return data


def _edit(
    model: EvaluatedModel, steps: list[Expr], preset: str, n: int, seed: int, folder: Path, report: Report
) -> dict[str, Any]:
    """Return the result of `measure_sequence`, from the file of an earlier run if that had the same settings."""
    path = folder / f"{preset}.json"
    settings = {
        "identity": model.identity,
        "queries": [str(step) for step in steps],
        "preset": repr(choose_preset(preset)),
        "n": n,
        "seed": seed,
        "energyql": __version__,
    }
    stored = read_json(path) if path.is_file() else {}
    if stored.get("settings") != settings:
        stored = {"settings": settings, "found": measure_sequence(model, steps, preset, n, seed, folder, report)}
        write_json(path, stored)
    return dict(stored["found"])
