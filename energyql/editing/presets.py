"""Ways to edit by name: this library's and the published ones."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from energyql.errors import ArgumentError
from energyql.pipeline.arguments import finite_number
from energyql.sampling import MOST_STRENGTH, ODESolver


@dataclass(frozen=True, slots=True)
class Preset:
    """How much everything counts in an edit, and how it is solved. Weights are from 0 to a million.

    Args:
        strength: λ > 0, multiplies the energy of what is asked.
        near_z: of `|z - z0|²`; z0 is where the step starts.
        near_w: of `|w - w0|²`, w as mapped from z.
        keep_predictions: of the divergence of what the heads say of a kept attribute from what they said.
        keep_logits: of `|logits - logits0|²` of a kept attribute.
        identity: of one minus the cosine of the embeddings of the old and the new picture, where an embedding module
            is given.
        earlier: multiplies the energies of earlier edits, in mode "cumulative".
        newest: multiplies the energy of the newest edit.
        newest_continuous: the same where the newest edit names a continuous attribute.
        release_implied: let go of what the query makes impossible: `frown` needs another mouth.
        semantics: what queries mean, unless a call says otherwise.
        solver: `None` goes to the minimum nearest to the start (`energyql.sampling.descent`); an `ODESolver` follows
            the VP flow, as published.
        enough: of the minimiser: where what is asked still costs more than this many nats, it is given three times its
            weight, and again, up to 27 times, as long as that pays (`energyql.editing.insisting`).
        max_evaluations: of the minimiser, per sample and weight.
    """

    strength: float = 3.0
    near_z: float = 0.05
    near_w: float = 0.0
    keep_predictions: float = 1.0
    keep_logits: float = 0.0
    identity: float = 1.0
    earlier: float = 1.0
    newest: float = 1.0
    newest_continuous: float = 1.0
    release_implied: bool = True
    semantics: str = "exact"
    solver: ODESolver | None = None
    enough: float = 0.03
    max_evaluations: int = 200

    def __post_init__(self) -> None:
        for name in WEIGHTS:
            if not 0 <= finite_number(name, value := getattr(self, name)) <= MOST_STRENGTH:
                raise ArgumentError(f"{name} must be from 0 to {MOST_STRENGTH:,}, not {value:g}")
        if self.strength <= 0 or self.newest <= 0 or self.newest_continuous <= 0:
            raise ArgumentError("strength, newest and newest_continuous must be above 0", hint="or nothing is asked")
        if self.max_evaluations < 1:
            raise ArgumentError(f"max_evaluations must be at least 1, not {self.max_evaluations}")


WEIGHTS = tuple(field.name for field in fields(Preset) if isinstance(field.default, float))
"""What a number can be given for by name."""
_PUBLISHED_ODE = ODESolver("dopri5", rtol=1e-3, atol=1e-3, overshoot=True)
_LACE = Preset(
    strength=1.0, near_z=0.04, near_w=0.04, keep_predictions=0.0, keep_logits=0.01, identity=0.0,
    release_implied=False, semantics="lace", solver=_PUBLISHED_ODE,
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
"""Every preset by its name.

"lace" has the settings of the published sequential editing (Nie et al. 2021, arXiv 2110.10873, the scripts of its
code): flow by dopri5, `reg_z` 0.04 (on z and on w), `reg_logits` 0.01, no identity term. "lace-reweighted" adds the
weights of its code, which its scripts leave out: 0.1 for earlier edits, 10 for a newest edit of a continuous attribute
and 1 for any other. "query-only" follows the flow of the query alone until it holds.
"""


def choose_preset(preset: str | Preset, strength: float | None, semantics: str | None) -> Preset:
    """The preset meant, with what a call says otherwise.

    Raises:
        ArgumentError: there is none of that name.
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
