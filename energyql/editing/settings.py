"""What an edit is told: checked before the first step is worked on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

from torch import Tensor

from energyql.editing.latents import LatentSpace
from energyql.editing.presets import Preset, choose_preset
from energyql.editing.terms import Embed
from energyql.errors import ArgumentError
from energyql.language import Expr, as_query
from energyql.pipeline.generate import Pipeline
from energyql.pipeline.model import Model
from energyql.pipeline.prepared import PreparedQuery
from energyql.vocabulary import closest

MODES = ("cumulative", "alone")
Layers = Sequence[int] | Mapping[str, Sequence[int]]
"""Layers of W+ that may change: of all steps, or by attribute."""


@dataclass(frozen=True)
class Settings:
    """What an edit is told.

    Attributes:
        pipeline: of the model.
        queries, texts: of the steps.
        mode: one of `MODES`.
        keep: names of the attributes to keep.
        preset: weights and solver.
        identity: embedding module, or `None`.
    """

    pipeline: Pipeline
    queries: list[Expr]
    texts: list[str]
    mode: str
    keep: tuple[str, ...]
    preset: Preset
    identity: Embed | None

    def prepare(self, query: str | Expr, semantics: str | None = None, **told: Any) -> PreparedQuery:
        """A query, checked; `told` is passed on to `Pipeline.prepare`.

        Without relations: an edit finds out for itself what must give way (`energyql.editing.implied`), picture by
        picture, and to ask for all that may follow would change more than it has to.
        """
        return self.pipeline.prepare(query, semantics=semantics or self.preset.semantics, relations=False, **told)

    def facts(self) -> dict[str, Any]:
        """For the provenance."""
        preset = asdict(self.preset) | {"solver": repr(self.preset.solver or "descent")}
        named = None if self.identity is None else type(self.identity).__qualname__
        return {"queries": self.texts, "mode": self.mode, "keep": list(self.keep), "preset": preset, "identity": named}


def read_settings(
    pipeline: Pipeline, queries: Any, mode: str, keep: Any, preset: Any, strength: Any, semantics: Any, identity: Any
) -> Settings:
    """What a call says, checked; see `energyql.edit`.

    Raises:
        EnergyQLError: a query is no query, or a setting is wrong.
    """
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
    return Settings(
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


def read_layers(layers: Layers | None, attributes: tuple[str, ...], space: LatentSpace) -> Tensor | None:
    """Mask of the layers of W+ that a step may change which names some attributes; `None` for all.

    Raises:
        ArgumentError: the generator has no W+, or not that layer, or the model not that attribute.
    """
    if isinstance(layers, Mapping):
        if unknown := [name for name in layers if name not in space.names]:
            raise ArgumentError(f"layers are given for {unknown[0]!r}, which model {space.model.name!r} does not have")
        masks = {name: space.check_layers(list(numbers)) for name, numbers in layers.items()}
        if not attributes or not all(name in masks for name in attributes):
            return None
        return reduce(lambda a, b: a | b, (masks[name] for name in attributes))
    return None if layers is None else space.check_layers(list(layers))
