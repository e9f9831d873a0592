"""Editing pictures in sequence: the public call."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from energyql.editing.presets import Preset, choose_preset
from energyql.editing.showing import show
from energyql.editing.start import Begun, Start, begin, pictures_of
from energyql.editing.step import Step, take
from energyql.editing.terms import Embed
from energyql.errors import ArgumentError, LimitError, TautologyWarning
from energyql.language import Expr, as_query
from energyql.model import Model
from energyql.models import DEFAULT_MODEL
from energyql.pipeline import Pipeline, pipeline_for
from energyql.prepared import PreparedQuery
from energyql.progress import Report, reporting
from energyql.result import Result
from energyql.vocabulary import closest

MODES = ("cumulative", "alone")
Layers = Sequence[int] | Mapping[str, Sequence[int]]


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
        start: a seed, a list of seeds (one picture each), latents z of shape (n, z_dim), an earlier `Result`, or
            pictures (a path, a PIL image, or a list of them), which are inverted first, see `energyql.invert`.
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
    settings = _settings(pipeline_for(model, device), queries, mode, keep, preset, strength, semantics, identity)
    if isinstance(start, Edit):
        start = start.final
    if isinstance(start, Inversion):
        start = start.result
    if isinstance(start, Result):
        truncation = start.provenance["truncation"] if truncation is None else truncation
        label = start.provenance["label"] if label is None else label
    told: dict[str, Any] = {"truncation": truncation, "label": label, "batch_size": batch_size}
    prepared = [settings.prepare(query, **told) for query in settings.queries]
    space = LatentSpace(settings.pipeline.model, prepared[0].provenance["truncation"], prepared[0].provenance["label"])
    masks = [_layers(layers, query.rule.attributes, space) for query in prepared]
    with reporting(progress) as report:
        pictures = pictures_of(start) if n is None else None
        begun = begin(start, n, space) if pictures is None else begin_pictures(pictures, space, batch_size, report)
        return _run(settings, begun, prepared, masks, space, told, report)


@dataclass(frozen=True)
class _Settings:
    pipeline: Pipeline
    queries: list[Expr]
    texts: list[str]
    mode: str
    keep: tuple[str, ...]
    preset: Preset
    identity: Embed | None

    def prepare(self, query: str | Expr, semantics: str | None = None, **told: Any) -> PreparedQuery:
        return self.pipeline.prepare(query, semantics=semantics or self.preset.semantics, **told)

    def facts(self) -> dict[str, Any]:
        preset = asdict(self.preset) | {"solver": repr(self.preset.solver or "descent")}
        named = None if self.identity is None else type(self.identity).__qualname__
        return {"queries": self.texts, "mode": self.mode, "keep": list(self.keep), "preset": preset, "identity": named}


def _settings(
    pipeline: Pipeline, queries: Any, mode: str, keep: Any, preset: Any, strength: Any, semantics: Any, identity: Any
) -> _Settings:
    if isinstance(queries, str | Expr):
        queries = [queries]
    if not isinstance(queries, Sequence) or not queries:
        raise ArgumentError("an edit needs at least one query", hint='such as ["smile", "hair = red"]')
    if mode not in MODES:
        raise ArgumentError(f"there is no mode {mode!r}", hint=f"choose {' or '.join(MODES)}")
    chosen = choose_preset(preset, strength, semantics)
    if identity is not None and (not callable(identity) or not chosen.identity):
        wrong = "has no weight in this preset" if callable(identity) else "must be a function or module of pictures"
        raise ArgumentError(f"identity {wrong}", hint="give a Preset with identity above 0")
    parsed = [as_query(query) for query in queries]
    return _Settings(
        pipeline,
        [expr for expr, _ in parsed],
        [text for _, text in parsed],
        mode,
        _kept(keep, pipeline.model),
        chosen,
        identity,
    )


def _kept(keep: Any, model: Model) -> tuple[str, ...]:
    if keep == "everything":
        return tuple(model.vocabulary)
    names = tuple(keep) if isinstance(keep, Iterable) and not isinstance(keep, str) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise ArgumentError(f'keep is "everything" or a list of attributes, not {keep!r}')
    for name in names:
        if name not in model.vocabulary:
            guess = closest(name, model.vocabulary)
            raise ArgumentError(
                f"model {model.name!r} has no attribute {name!r} to keep",
                hint=f"did you mean {guess}?" if guess else f"attributes: {', '.join(model.vocabulary)}",
            )
    return names


def _layers(layers: Layers | None, attributes: tuple[str, ...], space: LatentSpace) -> Any:
    if isinstance(layers, Mapping):
        if unknown := [name for name in layers if name not in space.names]:
            raise ArgumentError(f"layers are given for {unknown[0]!r}, which model {space.model.name!r} does not have")
        masks = {name: space.check_layers(list(numbers)) for name, numbers in layers.items()}
        if not attributes or not all(name in masks for name in attributes):
            return None
        return reduce(lambda a, b: a | b, (masks[name] for name in attributes))
    return None if layers is None else space.check_layers(list(layers))


def _run(
    settings: _Settings,
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TautologyWarning)  # of the start nothing is asked
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


def _leaks(settings: _Settings, i: int, step: Step, before: Result, after: Result, gone: list[str]) -> Leaks:
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


def _for_knowledge(settings: _Settings, expr: Expr, query: PreparedQuery, told: dict[str, Any]) -> PreparedQuery:
    """The query in semantics whose energies are probabilities."""
    if settings.preset.semantics == "exact":
        return query
    try:
        return settings.prepare(expr, semantics="exact", **told)
    except LimitError:  # too large for a diagram
        return settings.prepare(expr, semantics="product", **told)


def _with_consequences(
    settings: _Settings, i: int, query: PreparedQuery, company: Company, told: dict[str, Any]
) -> PreparedQuery:
    """The query, and what follows from it."""
    follows = company.consequences(query.rule.attributes) if settings.preset.release_implied else None
    return query if follows is None else settings.prepare(settings.queries[i] & follows, **told)


def _part(report: Report, stage: str, done: int, count: int) -> Report:
    return lambda _, fraction: report(stage, (done + fraction) / count)


def _moving(report: Report) -> Any:
    return lambda fraction, active: report("", fraction)
