"""Editing pictures in sequence: the public call."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Any

from energyql.editing.animation import Film
from energyql.editing.edited import Edit
from energyql.editing.implied import Company, Knowledge
from energyql.editing.invert import Inversion, begin_pictures
from energyql.editing.latents import Latents, LatentSpace
from energyql.editing.leaks import Leaks, find_leaks
from energyql.editing.presets import Preset
from energyql.editing.saved import Saved, read_saved
from energyql.editing.settings import Layers, Settings, read_layers, read_settings
from energyql.editing.showing import show
from energyql.editing.start import Begun, Start, begin, pictures_of
from energyql.editing.step import Step, take
from energyql.editing.terms import Embed
from energyql.errors import LimitError
from energyql.language import Expr
from energyql.logic.tautology import noting_tautologies
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.generate import pipeline_for
from energyql.pipeline.model import Model
from energyql.pipeline.prepared import PreparedQuery
from energyql.pipeline.result import Result
from energyql.progress import Report, reporting


def edit(
    start: Start,
    queries: str | Expr | Sequence[str | Expr],
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    n: int | None = None,
    mode: str = "cumulative",
    keep: str | Iterable[str] = "everything",
    preset: str | Preset = "default",
    layers: Layers | None = None,
    identity: Embed | None = None,
    semantics: str | None = None,
    strength: float | None = None,
    truncation: float | None = None,
    label: int | Sequence[float] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    progress: bool | Report = True,
) -> Edit:
    """Edit pictures step by step, each step a query, and tell what else changed.

    What is asked is made true by the smallest change that does it, while the attributes that nobody asks about are held
    where they are. What a query makes impossible (`frown` needs another mouth than a laughing one) is found by asking
    the model, and let go.

    Args:
        start: a seed, a list of seeds (one picture each), latents z of shape (n, z_dim), an earlier `Result` or
            `Edit`, a folder that one was saved to, or pictures (a path, a PIL image, or a list of them), which are
            inverted first, see `energyql.invert`.
        queries: one or more, in their order.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        n: number of pictures, where `start` is one seed; 1 by default.
        mode: "cumulative": a step holds what the earlier ones asked, unless it makes that impossible; "alone": it asks
            for its own query only, and earlier edits are kept like everything else.
        keep: names of the attributes to hold, or "everything". Those of the step's query are never held.
        preset: how much everything counts and how it is solved: a name out of `energyql.editing.presets.PRESETS`
            ("default", "lace", "lace-reweighted", "query-only"), or a `Preset`.
        layers: the layers of W+ that may change, for all steps; or attribute -> layers: a step may change those of the
            attributes that its query names, and all layers if one of them is not listed.
        identity: a function or module from pictures in [-1, 1] to features, whose direction is held.
        semantics: "exact", "product" or "lace"; by default the preset's.
        strength: λ > 0, multiplies the energy of what is asked; by default the preset's.
        truncation, label: as for `generate`; by default those of the `Result` that is edited.
        device, batch_size, progress: as for `generate`.

    Returns:
        An `Edit`: the start, a `Result` and a report of leaks for each step, filmstrip and animation.

    Raises:
        EnergyQLError: a query, a name or a setting is wrong; all queries are checked before the first is worked on.
    """
    settings = read_settings(pipeline_for(model, device), queries, mode, keep, preset, strength, semantics, identity)
    if isinstance(start, Edit):
        start = start.final
    if isinstance(start, Inversion):
        start = start.result
    if isinstance(start, str | Path) and Path(start).is_dir():
        start = read_saved(Path(start))
    if isinstance(start, Result | Saved):
        truncation = start.provenance["truncation"] if truncation is None else truncation
        label = start.provenance["label"] if label is None else label
    told: dict[str, Any] = {"truncation": truncation, "label": label, "batch_size": batch_size}
    prepared = [settings.prepare(query, **told) for query in settings.queries]
    space = LatentSpace(settings.pipeline.model, prepared[0].provenance["truncation"], prepared[0].provenance["label"])
    masks = [read_layers(layers, query.rule.attributes, space) for query in prepared]
    with reporting(progress) as report:
        pictures = pictures_of(start) if n is None else None
        begun = begin(start, n, space) if pictures is None else begin_pictures(pictures, space, batch_size, report)
        return _run(settings, begun, prepared, masks, space, told, report)


def _run(
    settings: Settings,
    begun: Begun,
    prepared: list[PreparedQuery],
    masks: list[Any],
    space: LatentSpace,
    told: dict[str, Any],
    report: Report,
) -> Edit:
    count, latents = len(prepared), begun.latents
    knowledge = Knowledge(space)
    facts = settings.facts() | begun.facts

    def draw(query: PreparedQuery, where: Latents, done: int, ended: Any = None) -> Result:
        known = query.provenance | {"edit": facts | {"step": done}, "sampler": facts["preset"]["solver"]}
        return show(
            replace(query, provenance=known),
            space,
            where,
            begun.index,
            _part(report, "drawing", done, count + 1),
            ended,
        )

    before = begun.result
    if before is None:
        with noting_tautologies():  # of the start nothing is asked
            nothing = settings.prepare("TRUE", semantics="exact", **told)
        before = draw(nothing, latents, 0)
    first, earlier, wider = before, list[int](), list[PreparedQuery]()
    steps, leaks = list[Result](), list[Leaks]()
    for i, (query, mask) in enumerate(zip(prepared, masks, strict=True)):
        began = time.perf_counter()
        exact = _for_knowledge(settings, settings.queries[i], query, told)
        company = knowledge.company(exact.expr, exact.rule)
        gone = [j for j in earlier if company.excludes_query(prepared[j].expr)]
        earlier = [j for j in earlier if j not in gone]
        wider.append(_with_consequences(settings, i, query, company, told))
        step = Step(query, [wider[j] for j in (i, *earlier)], settings.keep, company, mask, settings.identity)
        latents, ended = take(step, latents, space, settings.preset, _moving(_part(report, "editing", i, count)))
        whole = query
        if earlier:
            whole = settings.prepare(reduce(and_, [settings.queries[j] for j in (*earlier, i)]), **told)
        moved = time.perf_counter()
        after = draw(whole, latents, i + 1, ended)
        after.statistics.update({"seconds_sampling": moved - began, "seconds_drawing": time.perf_counter() - moved})
        leaks.append(_leaks(settings, i, step, before, after, [settings.texts[j] for j in gone]))
        steps.append(after)
        earlier, before = [*earlier, i] if settings.mode == "cumulative" else [], after
    return Edit(first, steps, leaks, settings.texts, facts, Film(space))


def _leaks(settings: Settings, i: int, step: Step, before: Result, after: Result, gone: list[str]) -> Leaks:
    return find_leaks(
        settings.texts[i],
        step.newest.rule.attributes,
        [name for name in settings.keep if name not in step.newest.rule.attributes],
        before.judged,
        after.judged,
        step.implied(before.judged),
        settings.pipeline.model.vocabulary,
        superseded=gone,
        known=step.company.known,
    )


def _for_knowledge(settings: Settings, expr: Expr, query: PreparedQuery, told: dict[str, Any]) -> PreparedQuery:
    """The query in semantics whose energies are probabilities."""
    if settings.preset.semantics == "exact":
        return query
    try:
        return settings.prepare(expr, semantics="exact", **told)
    except LimitError:  # too large for a diagram
        return settings.prepare(expr, semantics="product", **told)


def _with_consequences(
    settings: Settings, i: int, query: PreparedQuery, company: Company, told: dict[str, Any]
) -> PreparedQuery:
    """The query, and what follows from it."""
    follows = company.consequences(query.rule.attributes) if settings.preset.release_implied else None
    return query if follows is None else settings.prepare(settings.queries[i] & follows, **told)


def _part(report: Report, stage: str, done: int, count: int) -> Report:
    return lambda _, fraction: report(stage, (done + fraction) / count)


def _moving(report: Report) -> Any:
    return lambda fraction, active: report("", fraction)
