"""Evaluation of a model by protocols: experiments with random queries, or with the queries of a publication.

Each outcome is written as soon as it is measured, so that an interrupted run can be continued.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energyql import __version__
from energyql.editing.settings import choose_preset
from energyql.errors import ArgumentError, EnergyQLError
from energyql.evaluation.bench import Bench
from energyql.evaluation.compare import compare, run_settings
from energyql.evaluation.edits import measure_sequence
from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.evaluation.measure import machine
from energyql.evaluation.methods import PAPER, read_methods
from energyql.evaluation.protocols import PROTOCOLS, read_setup
from energyql.evaluation.reference import prior_samples
from energyql.evaluation.report import evaluation_page
from energyql.evaluation.settings import EvaluateOptions, EvaluateSettings
from energyql.files import as_path, read_json, sole_writer, write_json, write_text
from energyql.language import Expr
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.model import Model
from energyql.pipeline.session import open_session
from energyql.pipeline.settings import DEFAULT_SAMPLER, several
from energyql.progress import Report, reporting

if TYPE_CHECKING:
    from typing_extensions import Unpack

PICTURE_COUNT = 8
"""How many pictures the page with the results shows for each sampler on each query."""


def evaluate(
    protocols: str | Sequence[str] | None = None, *, out: str | Path = "evaluation",
    model: str | Path | Model = DEFAULT_MODEL, device: str = "auto", progress: bool | Report = True,
    **options: Unpack[EvaluateOptions],
) -> dict[str, Any]:  # fmt: skip
    """Run experiments like those of Nie et al. 2021 (arXiv 2110.10873) on a model.

    By default, the sampler and the edits of this library are compared with those of Nie et al., called "the paper"
    below. The same call continues an interrupted run. Arguments not listed here are those of `energyql.generate`.

    Args:
        protocols: names of the experiments, out of `energyql.evaluation.protocols.PROTOCOLS` or of the set-up; by
            default all.
        out: folder where `evaluation.json`, `evaluation.md`, pictures, and the state for the next run are written.
        model: name of a packaged model, a model folder, or a `Model` in memory; it needs a judge.
        options: settings by name, which follow; `condition` is that of `energyql.generate`.
        setup: a published experiment, which sets queries, truncation and samplers: a name out of
            `energyql.evaluation.protocols.known_setups()`, or the name of a JSON file.
        samplers: the samplers to compare, as in `energyql.compare_samplers`, such as "slice" or "ode@10". By default
            those of the set-up; without one, the default sampler of this library and the algorithm of the paper.
        presets: the presets (weights and solvers of edits) to compare, out of `energyql.editing.settings.PRESETS`.
        n: samples for each query and sampler, at least 2.
        edits: number of pictures that are edited.
        prior: pictures of the prior that all queries share, at least 100.
        oracle: effective number of exact samples that is collected for each query, at least 30.
        features: features by which distances between pictures are measured, such as
            `energyql.evaluation.metrics.inception_features()`; by default the features of the judge.
        truncation: psi in [0, 1]; by default that of the set-up or, without one, of the model.
        seed: seed of queries and samples.

    Returns:
        The contents of `evaluation.json`, a dict with these entries:

        - `settings` and `machine`: settings of the run, and facts about the computer;
        - `contenders` and `presets`: names of the samplers and of the presets;
        - `setups`: name of a protocol -> a dict with `title`, `about`, `truncation`, and one further entry:
          `comparison`, the entries `queries` and `summary` of `energyql.compare_samplers`; `sequence`, for edits,
          preset -> result of `energyql.evaluation.edits.measure_sequence`; or `missing`, the reason why the protocol
          was not run.

    Raises:
        EnergyQLError: a name or a setting is wrong, the model has no judge or lacks attributes of the set-up, or the
            folder cannot be written.
    """
    settings, folder = EvaluateSettings(**options), as_path(out)
    published = None if settings.setup is None else read_setup(settings.setup)
    available = PROTOCOLS if published is None else published.protocols
    protocols, presets = tuple(available) if protocols is None else several(protocols), several(settings.presets)
    samplers = settings.samplers
    if samplers is None:
        samplers = (DEFAULT_SAMPLER, PAPER) if published is None else published.samplers
    methods = read_methods(samplers)
    if unknown := [name for name in protocols if name not in available]:
        raise ArgumentError(f"there is no protocol {unknown[0]!r}", hint=f"protocols: {', '.join(available)}, or all")
    for preset in presets:
        choose_preset(preset)
    if not protocols or not presets:
        raise ArgumentError("there is nothing to evaluate: name at least one protocol and one preset")
    loaded = open_session(model, device).model
    if published is not None:
        published.check(loaded.vocabulary, protocols)
    selection = [available[name] for name in protocols]
    psi = settings.truncation
    truncations = [loaded.check_truncation(one.truncation if psi is None else psi) for one in selection]
    with sole_writer(folder, "an evaluation"), reporting(progress) as report:

        @cache
        def at(psi: float) -> tuple[EvaluatedModel, JudgedSamples]:
            """Return the model at the truncation `psi`, and judged samples of its prior."""
            one = EvaluatedModel(
                loaded, device=device, truncation=psi, condition=settings.condition, features=settings.features
            )  # fmt: skip
            return one, prior_samples(one, settings.prior, folder / "kept" / "prior", report, seed=settings.seed)

        evaluated, _ = at(truncations[0])
        setup = settings.setup and str(settings.setup)
        more = {"features": getattr(evaluated.features, "name", None), "edits": settings.edits, "setup": setup}
        data: dict[str, Any] = {
            "settings": run_settings(evaluated, settings) | more, "machine": machine(),
            "contenders": [method.name for method in methods], "presets": list(presets), "setups": {},
        }  # fmt: skip
        for number, (protocol, psi) in enumerate(zip(selection, truncations, strict=True)):
            report("protocols", number / len(protocols))
            evaluated, samples = at(psi)
            bench = Bench(evaluated, settings, folder / protocol.name, report, folder / "kept")
            entry = dict[str, Any](title=protocol.title, about=protocol.about)
            data["setups"][protocol.name] = entry
            entry["truncation"] = evaluated.truncation
            try:
                queries = protocol.choose_queries(evaluated.vocabulary, samples, settings.seed)
            except EnergyQLError as error:
                entry["missing"] = error.message
            else:
                if protocol.sequential:
                    results = [_edit(bench, queries, each, settings.edits) for each in presets]
                    entry["sequence"] = dict(zip(presets, results, strict=True))
                else:
                    comparison = compare(bench, queries, methods, title=protocol.title, picture_count=PICTURE_COUNT)
                    entry["comparison"] = {key: comparison[key] for key in ("queries", "summary")}
            write_json(folder / "evaluation.json", data)
            write_text(folder / "evaluation.md", evaluation_page(data))
        report("protocols", 1.0)
    return data


def _edit(bench: Bench, steps: list[Expr], preset: str, n: int) -> dict[str, Any]:
    """Result of `measure_sequence`, stored in the folder; a later run with the same settings reads it there."""
    path = bench.folder / f"{preset}.json"
    queries, weights = [str(step) for step in steps], repr(choose_preset(preset))
    settings = {"identity": bench.model.identity, "queries": queries, "preset": weights, "n": n}
    settings |= {"seed": bench.counts.seed}
    settings["energyql"] = __version__
    stored = read_json(path) if path.is_file() else {}
    if stored.get("settings") != settings:
        stored = {"settings": settings, "result": measure_sequence(bench, steps, preset, n)}
        write_json(path, stored)
    return dict(stored["result"])
