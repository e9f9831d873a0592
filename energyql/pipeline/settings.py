"""The settings of a drawing, with their defaults and checks. Imports no torch, so that the command line can read it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, get_args

from energyql.errors import ArgumentError

if TYPE_CHECKING:
    from energyql.sampling import Sampler

Semantics = Literal["exact", "product", "lace", "jem"]
"""Names of the semantics; see `energyql.energy.rule`."""
SamplerName = Literal[
    "slice+descent",
    "slice+ode",
    "slice",
    "ode",
    "descent",
    "langevin",
    "predictor-corrector",
    "published-ode",
    "published-langevin",
    "published-predictor-corrector",
]
"""Names of the samplers; see `energyql.sampling.SAMPLERS`."""
Precision = Literal["float32", "bfloat16"]
"""Names of the number types that energies can be computed in while sampling."""
Noise = Literal["const", "random", "none"]
"""Kinds of noise in the pictures of a generator that adds some; see `energyql.generate`."""
DirectionMethod = Literal["ganspace", "sefa", "styles", "pictures", "interfacegan", "steerability", "ganalyze"]
"""Names of the methods that find directions of w; see `energyql.find_directions`."""
EXACT: Final = "exact"
"""The semantics whose energies are -log P(query)."""
DEFAULT_SEMANTICS: Final = EXACT
DEFAULT_SAMPLER: Final = "slice+descent"
DEFAULT_PRECISION: Final = "float32"
DEFAULT_NOISE: Final = "const"
PICTURES = 16
"""Pictures of a run, unless a number is given."""
MOST_SAMPLES = 1_000_000
"""Most samples of one call."""


def whole_number(name: str, value: int, *, least: int = 1, most: int = MOST_SAMPLES) -> int:
    """Check the argument `name`: a whole number from `least` to `most`.

    Raises:
        ArgumentError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= value <= most:
        raise ArgumentError(f"{name} must be a whole number from {least} to {most:,}, not {value!r}")
    return int(value)


def finite_number(name: str, value: float) -> float:
    """Check the argument `name`: a finite number.

    Raises:
        ArgumentError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ArgumentError(f"{name} must be a finite number, not {value!r}")
    return float(value)


def several(value: object, one: type | tuple[type, ...] = str) -> list[Any]:
    """Return the items of a list or the like; a `value` that is of type `one`, or no list, alone."""
    return list(value) if isinstance(value, Iterable) and not isinstance(value, one) else [value]


def _are_names(names: object) -> bool:
    return isinstance(names, Iterable) and not isinstance(names, str) and all(isinstance(name, str) for name in names)


class DrawOptions(TypedDict, total=False):
    """The fields of `DrawSettings` as keyword arguments of a call."""

    semantics: Semantics
    sampler: SamplerName | Sampler
    strength: float | None
    precision: Precision
    truncation: float | None
    label: int | Sequence[float] | None
    noise: Noise
    realism: float
    seed: int
    batch_size: int | None
    relations: bool
    allow_weak: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawSettings:
    """Everything besides model, query and count that decides which pictures are drawn.

    Values that depend on the model (truncation, label, and whether it has noise) or on a table of names (semantics,
    sampler) are checked by `Pipeline.prepare`, the others here.

    Attributes:
        semantics, sampler, strength, precision, truncation, label, noise, realism, seed, batch_size: as for
            `energyql.generate`.
        relations: whether the vocabulary's relations count; see `compile_energy_rule`.
        allow_weak: attributes whose heads may be used although they are weak; see `energyql.Model.report`.

    Raises:
        ArgumentError: a value is outside its range.
    """

    semantics: Semantics = DEFAULT_SEMANTICS
    sampler: SamplerName | Sampler = DEFAULT_SAMPLER
    strength: float | None = None
    precision: Precision = DEFAULT_PRECISION
    truncation: float | None = None
    label: int | Sequence[float] | None = None
    noise: Noise = DEFAULT_NOISE
    realism: float = 0.0
    seed: int = 0
    batch_size: int | None = None
    relations: bool = True
    allow_weak: Sequence[str] = ()

    def __post_init__(self) -> None:
        names = self.allow_weak
        if not _are_names(names):
            raise ArgumentError(f"allow_weak is a list of attributes, not {names!r}", hint='such as ["smile"]')
        object.__setattr__(self, "allow_weak", tuple(names))
        object.__setattr__(self, "seed", whole_number("seed", self.seed, least=0, most=2**64 - 1))
        if self.batch_size is not None:
            object.__setattr__(self, "batch_size", whole_number("batch_size", self.batch_size))
        object.__setattr__(self, "realism", finite_number("realism", self.realism))
        if self.realism < 0:
            raise ArgumentError(f"realism must be at least 0, not {self.realism:g}")
        for name in ("strength", "truncation"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, finite_number(name, value))
        for name, known in (("precision", get_args(Precision)), ("noise", get_args(Noise))):
            if (value := getattr(self, name)) not in known:
                raise ArgumentError(f"there is no {name} {value!r}", hint=f"choose {', '.join(known)}")
        if self.strength is not None and not isinstance(self.sampler, str):
            raise ArgumentError("strength belongs to the sampler", hint="set it where you make the sampler")
