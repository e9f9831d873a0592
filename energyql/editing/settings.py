"""Settings of edits and inversions: weights, solvers, attributes to keep; checked before any work is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from energyql.editing.latents import Embed
from energyql.errors import ArgumentError, LimitError
from energyql.language import Expr, as_query, bind
from energyql.logic.satisfiability import check_satisfiable, noting_tautologies
from energyql.pipeline.draw import Pipeline, PreparedQuery
from energyql.pipeline.model import Model
from energyql.pipeline.settings import DEFAULT_SEMANTICS, EXACT, DrawSettings, Semantics, finite_number, whole_number
from energyql.sampling import MOST_STRENGTH, DescentSampler, ODESolver
from energyql.sampling.registry import describe_sampler
from energyql.vocabulary import closest

MODES = ("cumulative", "alone")


@dataclass(frozen=True, slots=True)
class Preset:
    """Weights and solver of an edit. Weights are from 0 to a million.

    Args:
        strength: λ > 0, multiplies the energy of the query.
        near_z: weight of `|z - z0|²`, where z0 is z before the step.
        near_w: weight of `|w - w0|²`, where w is the output of the mapping network for z.
        keep_predictions: weight of the divergence of the heads' predictions for a kept attribute from those at z0.
        keep_logits: weight of `|logits - logits0|²` of a kept attribute.
        identity: weight of one minus the cosine of the embeddings of the old and the new picture, if an embedding
            module is given.
        earlier: factor of the energies of the earlier queries, in mode "cumulative".
        newest: factor of the energy of the query of the step.
        newest_continuous: factor of the energy of the query of the step, if it names a continuous attribute.
        release_implied: do not keep values that the query makes impossible, such as a smiling mouth under `frown`.
        semantics: semantics of the queries, unless a call names another.
        solver: `None` finds the minimum nearest to the start by L-BFGS (`DescentSampler`); an `ODESolver` solves the VP
            flow, as published.
        enough: tolerance of the minimiser, in nats: while the query's energy is above it, its weight is tripled, up to
            27 times, as long as that lowers the energy (the penalty method, `energyql.editing.step`).
        max_evaluations: most evaluations of the minimiser, per sample and weight.

    Raises:
        ArgumentError: a weight is outside its range.
    """

    strength: float = 30.0
    near_z: float = 0.05
    near_w: float = 0.0
    keep_predictions: float = 1.0
    keep_logits: float = 0.0
    identity: float = 1.0
    earlier: float = 1.0
    newest: float = 1.0
    newest_continuous: float = 1.0
    release_implied: bool = True
    semantics: Semantics = DEFAULT_SEMANTICS
    solver: ODESolver | None = None
    enough: float = 0.001
    max_evaluations: int = 200

    def __post_init__(self) -> None:
        for name in WEIGHTS:
            if not 0 <= finite_number(name, value := getattr(self, name)) <= MOST_STRENGTH:
                raise ArgumentError(f"{name} must be from 0 to {MOST_STRENGTH:,}, not {value:g}")
        if self.strength <= 0 or self.newest <= 0 or self.newest_continuous <= 0:
            raise ArgumentError(
                "strength, newest and newest_continuous must be above 0", hint="with 0 the query has no effect"
            )
        if self.max_evaluations < 1:
            raise ArgumentError(f"max_evaluations must be at least 1, not {self.max_evaluations}")


WEIGHTS = tuple(field.name for field in fields(Preset) if isinstance(field.default, float))
"""Names of the fields of a `Preset` that are numbers."""
_LACE = Preset(
    strength=1.0, near_z=0.04, near_w=0.04, keep_predictions=0.0, keep_logits=0.01, identity=0.0,
    release_implied=False, semantics="lace", solver=ODESolver("dopri5", rtol=1e-3, atol=1e-3, overshoot=True),
)  # fmt: skip

PRESETS: dict[str, Preset] = {
    "default": Preset(),
    "lace": _LACE,
    "lace-reweighted": replace(_LACE, earlier=0.1, newest=1.0, newest_continuous=10.0),
    "query-only": Preset(
        strength=1.0, near_z=0.0, keep_predictions=0.0, identity=0.0, release_implied=False,
        solver=ODESolver(enough=0.01),
    ),
}  # fmt: skip
"""Name -> preset.

"lace" has the settings of the published sequential editing (Nie et al. 2021, arXiv 2110.10873, the scripts of its
code): VP flow by dopri5, `reg_z` 0.04 (on z and on w), `reg_logits` 0.01, no identity term. "lace-reweighted" adds the
weights of its code, which its scripts leave out: 0.1 for earlier edits, 10 for a newest edit of a continuous attribute
and 1 for any other. "query-only" solves the flow of the query alone until the query holds.
"""


def choose_preset(preset: str | Preset, strength: float | None = None, semantics: Semantics | None = None) -> Preset:
    """Return a preset, with the strength and semantics of a call if they are given.

    Args:
        preset: a preset or its name.
        strength: replaces that of the preset.
        semantics: replaces that of the preset.

    Raises:
        ArgumentError: there is no preset of that name, or `strength` is out of range.
    """
    if isinstance(preset, str):
        if preset not in PRESETS:
            raise ArgumentError(f"there is no preset {preset!r}", hint=f"presets: {', '.join(PRESETS)}")
        preset = PRESETS[preset]
    elif not isinstance(preset, Preset):
        raise ArgumentError(f"a preset is a name or a Preset, not {preset!r}")
    if strength is not None:
        preset = replace(preset, strength=strength)
    return preset if semantics is None else replace(preset, semantics=semantics)


@dataclass(frozen=True, slots=True)
class InversionSettings:
    """Weights and budgets of an inversion. Weights are at least 0.

    Args:
        pixels: weight of the mean absolute pixel error, as a fraction of the range of a pixel.
        features: weight of the mean squared distance of features, in units of their variance.
        attributes: weight of the divergence of the heads' predictions from the judge's values, in nats.
        shell: weight of `(|z| - sqrt(z_dim))²`, if the length of z matters: nearly all z of the prior are that long.
        offset: weight of the squared length of the offset of w; in W+ of its mean over the layers.
        z_evaluations: most evaluations of the picture and its gradient in the search of z.
        w_evaluations: most evaluations of the picture and its gradient in the search of w.
        candidates: number of examples, pictures of the prior that are drawn first: the start is predicted from them,
            and they give the variances of pixels and features.

    Raises:
        ArgumentError: a setting is outside its range.
    """

    pixels: float = 1.0
    features: float = 0.1
    attributes: float = 1e-3
    shell: float = 1e-3
    offset: float = 1e-3
    z_evaluations: int = 15
    w_evaluations: int = 15
    candidates: int = 128

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, float) and finite_number(field.name, value) < 0:
                raise ArgumentError(f"{field.name} must be at least 0, not {value:g}")
            if isinstance(field.default, int):
                whole_number(field.name, value, least=2 if field.name == "candidates" else 1)


@dataclass(frozen=True)
class EditSettings:
    """The checked arguments of one call of `edit`; `draw` holds those of drawing."""

    pipeline: Pipeline
    queries: list[Expr]
    texts: list[str]
    mode: str
    keep: tuple[str, ...]
    preset: Preset
    identity: Embed | None
    draw: DrawSettings

    def prepare(self, query: str | Expr, semantics: Semantics | None = None) -> PreparedQuery:
        """Check and compile a query; a tautology causes no warning, because `check_settings` has given it.

        Relations between attributes are not added to the query: `energyql.editing.step` estimates for each picture what
        must change, and every possible consequence together would change more than necessary.

        Args:
            query: the query.
            semantics: by default that of the preset.

        Raises:
            EnergyQLError: the query does not fit the model, or is too large.
        """
        semantics = semantics or self.preset.semantics
        with noting_tautologies():
            return self.pipeline.prepare(query, self.draw, semantics=semantics, relations=False)

    def facts(self) -> dict[str, Any]:
        """Return the settings as JSON values, for the provenance."""
        solver = self.preset.solver or DescentSampler(enough=None, max_evaluations=self.preset.max_evaluations)
        preset = asdict(self.preset) | {"solver": describe_sampler(solver)}
        named = None if self.identity is None else type(self.identity).__qualname__
        return {"queries": self.texts, "mode": self.mode, "keep": list(self.keep), "preset": preset, "identity": named}


def check_settings(
    pipeline: Pipeline, queries: Sequence[str | Expr], mode: str, keep: str | Iterable[str], preset: Preset,
    identity: Embed | None, draw: DrawSettings,
) -> EditSettings:  # fmt: skip
    """Check the arguments of `energyql.edit`, and parse the queries.

    Args:
        pipeline: the model.
        queries: one for each step.
        mode: "cumulative" or "alone".
        keep: names of attributes, or "everything".
        preset: weights and solver.
        identity: the embedding module.
        draw: settings of drawing.

    Raises:
        EnergyQLError: a query cannot be parsed, or an argument is wrong.
    """
    if not isinstance(queries, Sequence) or not queries:
        raise ArgumentError("an edit needs at least one query", hint='such as ["smile", "hair = red"]')
    if mode not in MODES:
        raise ArgumentError(f"there is no mode {mode!r}", hint=f"choose {' or '.join(MODES)}")
    if identity is not None and (not callable(identity) or not preset.identity):
        wrong = "has no weight in this preset" if callable(identity) else "must be a function or module of pictures"
        raise ArgumentError(f"identity {wrong}", hint="give a Preset with identity above 0")
    exprs, texts = zip(*map(as_query, queries), strict=True)
    vocabulary = pipeline.model.vocabulary
    for expr, text in zip(exprs, texts, strict=True):
        bound, related = bind(expr, vocabulary, query=text), preset.semantics == EXACT
        with suppress(LimitError):  # `EditSettings.prepare` raises it, if the query is too large for its semantics
            check_satisfiable(bound, vocabulary, query=text, relations=related)
    names = _check_kept(keep, pipeline.model)
    return EditSettings(pipeline, list(exprs), list(texts), mode, names, preset, identity, draw)


def _check_kept(keep: str | Iterable[str], model: Model) -> tuple[str, ...]:
    if keep == "everything":
        return tuple(model.vocabulary)
    names = tuple(keep) if isinstance(keep, Iterable) and not isinstance(keep, str) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise ArgumentError(f'keep is "everything" or a list of attributes, not {keep!r}', hint='such as ["hair"]')
    for name in names:
        if name not in model.vocabulary:
            guess = closest(name, model.vocabulary)
            raise ArgumentError(
                f"model {model.name!r} has no attribute {name!r} to keep",
                hint=f"did you mean {guess}?" if guess else f"attributes: {', '.join(model.vocabulary)}",
            )
    return names
