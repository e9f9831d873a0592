"""Settings of edits and inversions that a user can change: weights, solvers, and limits of the searches."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from energyql.errors import ArgumentError
from energyql.pipeline.settings import DEFAULT_SEMANTICS, Semantics, finite_number, whole_number
from energyql.sampling import MOST_STRENGTH, ODESolver


@dataclass(frozen=True, slots=True)
class Preset:
    """The weights of the energy that a step of an edit minimises, and the solver that minimises it.

    Weights are from 0 to a million. In the formulas, z and w belong to the edited picture, and z0 and w0 to the picture
    before the step; w is the output of the mapping network for z.

    Args:
        strength: λ > 0, the factor of the energies of all queries.
        near_z: weight of `|z - z0|²`.
        near_w: weight of `|w - w0|²`.
        keep_predictions: weight of `KL(P(z0) || P(z))` of the heads' predictions P, for each attribute to keep.
        keep_logits: weight of `|logits - logits0|²` of the heads, for each attribute to keep.
        identity: weight of one minus the cosine between the features of the pictures before and after the step; used
            only if `edit` gets a function from pictures to features.
        earlier: factor of the energies of the earlier queries, in mode "cumulative".
        newest: factor of the energy of the step's query.
        newest_continuous: factor in place of `newest`, if the step's query names a continuous attribute.
        release_implied: whether to give up values that the query makes impossible, instead of keeping them, such as a
            smiling mouth for the query `frown`.
        semantics: how the energies of the queries are computed, such as "exact"; a call can choose another.
        solver: `None` finds the minimum nearest to the start by L-BFGS (`DescentSampler`). An `ODESolver` follows the
            flow of the energy under the variance-preserving (VP) noise schedule, as Nie et al. 2021 do.
        enough: energy of the query, in nats, up to which a minimum that L-BFGS finds is accepted. Above it the search
            is repeated with the weight of the query times 3, 9 and 27, as long as that lowers the energy (the penalty
            method).
        max_evaluations: most evaluations of the energy by L-BFGS, for each sample and each weight of the query.

    Raises:
        ArgumentError: a weight, `enough` or `max_evaluations` is outside its range.
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
            raise ArgumentError("strength, newest and newest_continuous must be above 0")
        if self.max_evaluations < 1:
            raise ArgumentError(f"max_evaluations must be at least 1, not {self.max_evaluations}")


WEIGHTS = tuple(field.name for field in fields(Preset) if isinstance(field.default, float))
"""Names of the fields of a `Preset` that are floats from 0 to a million: the weights of terms, and `enough`."""
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

- "default" has the settings of this library.
- "lace" has the settings of the sequential editing of Nie et al. 2021 (arXiv 2110.10873), taken from the scripts of
  their program: VP flow by dopri5, `reg_z` 0.04 (on z and on w), `reg_logits` 0.01, no identity term.
- "lace-reweighted" adds weights that their program has and their scripts do not use: 0.1 for earlier queries, and for
  the query of the step 10 if it names a continuous attribute, else 1.
- "query-only" follows the flow of the energy of the query alone, keeping nothing, until the query is satisfied.
"""


def choose_preset(preset: str | Preset, strength: float | None = None, semantics: Semantics | None = None) -> Preset:
    """A preset by itself or by name, with another strength (above 0) or semantics if a call sets them."""
    if not isinstance(preset, Preset):
        if preset not in tuple(PRESETS):  # it may have any type
            raise ArgumentError(f"there is no preset {preset!r}", hint=f"presets: {', '.join(PRESETS)}")
        preset = PRESETS[preset]
    if strength is not None:
        preset = replace(preset, strength=strength)
    return preset if semantics is None else replace(preset, semantics=semantics)


@dataclass(frozen=True, slots=True)
class InversionSettings:
    """Weights of the loss that an inversion minimises, and limits of its searches. Weights are at least 0.

    Args:
        pixels: weight of the mean absolute pixel error, as a fraction of the range of a pixel.
        features: weight of the mean squared difference of features, divided by their variance over the examples.
        attributes: weight of the divergence, in nats, of the heads' predictions from the values that the judge is sure
            of.
        shell: weight of `(|z| - sqrt(z_dim))²`: nearly all z of the prior have about this length. It has an effect only
            if the length of z changes the picture.
        offset: weight of `|offset|²`, where the offset is the difference of w from the output of the mapping network
            for z; in W+ of its mean over the layers.
        z_evaluations: most pictures that are drawn and differentiated in the search of z, for each inverted picture.
        w_evaluations: the same for the search of the offset.
        candidates: number of examples, at least 2: pictures of the prior, from which the start of the search is
            predicted, and on which the variances of pixels and features are measured.

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
            if isinstance(field.default, float):
                finite_number(field.name, value, least=0)
            else:
                whole_number(field.name, value, least=2 if field.name == "candidates" else 1)
