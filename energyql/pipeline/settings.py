"""The settings of a drawing, with their defaults and checks. Imports no torch, so that the command line can read it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from functools import partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, get_args, get_type_hints

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
"""Default number of pictures of a run."""
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


def finite_number(name: str, value: float, *, least: float = -math.inf) -> float:
    """Check the argument `name`: a finite number, at least `least`.

    Raises:
        ArgumentError: it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ArgumentError(f"{name} must be a finite number, not {value!r}")
    if value < least:
        raise ArgumentError(f"{name} must be at least {least:g}, not {value:g}")
    return float(value)


def several(value: object, one: type | tuple[type, ...] = str) -> list[Any]:
    """Return the items of an iterable as a list; a `value` of type `one`, or no iterable, as a list of one item."""
    return list(value) if isinstance(value, Iterable) and not isinstance(value, one) else [value]


def _one_of(names: tuple[str, ...], name: str, value: str) -> str:
    if value not in names:
        raise ArgumentError(f"there is no {name} {value!r}", hint=f"choose {', '.join(names)}")
    return value


def _names(name: str, value: Sequence[str]) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable) or not all(isinstance(each, str) for each in value):
        raise ArgumentError(f"{name} is a list of attributes, not {value!r}", hint='such as ["smile"]')
    return tuple(value)


Surface = Literal["generate", "gallery", "request", "plan", "provenance"]
"""Places of settings besides keyword arguments: options of `energyql generate` and `energyql gallery`; requests to the
studio, out of which a saved picture is drawn again; classes of the plan of a data set; and the provenance of a result,
which pages show, and by which a run or a data set is continued."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Facts about a field of `DrawSettings` besides its type and its default.

    Attributes:
        help: text for the command line.
        request: text for requests; by default `help`.
        check: function of name and value, not called for `None`; returns the value, or raises an `ArgumentError`.
        always: whether provenance holds the default too; otherwise it has no entry, as before the setting existed.
        left_out: the places without the setting, each with the reason.
    """

    help: str = ""
    request: str = ""
    _: KW_ONLY
    check: Callable[[str, Any], object] | None = None
    always: bool = False
    left_out: Mapping[Surface, str] = field(default_factory=dict)


class DrawOptions(TypedDict, total=False):
    """The fields of `DrawSettings` as keyword arguments; repeated here because type checkers read only source."""

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


_SAME_PICTURES = "it does not change which pictures are drawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawSettings:
    """All settings, besides model, query and count, on which the pictures of a run depend.

    Each field is also an option of the command line, a field of requests to the studio, a setting of a data set and a
    fact of provenance, except in the places that its `Setting` names under `left_out`.

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

    semantics: Semantics = field(default=DEFAULT_SEMANTICS, metadata={"setting": Setting(
        "Rules of the energy; see docs/semantics.md.", "One of the semantics that /api/info lists.", always=True,
    )})  # fmt: skip
    sampler: SamplerName | Sampler = field(default=DEFAULT_SAMPLER, metadata={"setting": Setting(
        "How latents are drawn; see docs/samplers.md.", "One of the samplers that /api/info lists.", always=True,
    )})  # fmt: skip
    strength: float | None = field(default=None, metadata={"setting": Setting(
        "Multiplies the energy: larger values are more certain and less varied.",
        "Multiplies the energy. By default the sampler's own.",
        check=finite_number, left_out={"provenance": "the record of the sampler holds it"},
    )})  # fmt: skip
    precision: Precision = field(default=DEFAULT_PRECISION, metadata={"setting": Setting(
        "bfloat16 is faster and less exact.", check=partial(_one_of, get_args(Precision)), always=True,
        left_out=dict.fromkeys(("gallery", "request"), "the few pictures of a page are all drawn in float32"),
    )})  # fmt: skip
    truncation: float | None = field(default=None, metadata={"setting": Setting(
        "psi in 0..1: smaller is less varied, with fewer faulty pictures; by default the model's.",
        "psi. By default the model's own.", check=finite_number, always=True,
    )})  # fmt: skip
    label: int | Sequence[float] | None = field(default=None, metadata={"setting": Setting(
        "Label of a conditional generator: a class, or numbers separated by commas.", always=True,
        left_out={"request": "the studio draws under the label of the attributes"},
    )})  # fmt: skip
    noise: Noise = field(default=DEFAULT_NOISE, metadata={"setting": Setting(
        "If the generator adds noise: const, that of the model; random, new for each picture; none.",
        "Of a generator with noise: const, random or none.", check=partial(_one_of, get_args(Noise)), always=True,
    )})  # fmt: skip
    realism: float = field(default=0.0, metadata={"setting": Setting(
        check=partial(finite_number, least=0),
        left_out=dict.fromkeys(("generate", "gallery", "request", "plan"), "no model folder holds a discriminator"),
    )})  # fmt: skip
    seed: int = field(default=0, metadata={"setting": Setting(
        "The same seed gives the same pictures.", check=partial(whole_number, least=0, most=2**64 - 1), always=True,
        left_out={"plan": "a class has a seed beside its settings"},
    )})  # fmt: skip
    batch_size: int | None = field(default=None, metadata={"setting": Setting(
        "Samples computed together.", check=whole_number,
        left_out={"request": "the studio chooses it", "provenance": _SAME_PICTURES},
    )})  # fmt: skip
    relations: bool = field(default=True, metadata={"setting": Setting(
        left_out=dict.fromkeys(get_args(Surface), "only edits set it"),
    )})  # fmt: skip
    allow_weak: Sequence[str] = field(default=(), metadata={"setting": Setting(
        "Attributes, separated by commas, to use although their heads are weak.",
        "Attributes that may be used although their heads are weak.",
        check=_names, left_out={"provenance": _SAME_PICTURES},
    )})  # fmt: skip

    def __post_init__(self) -> None:
        for name, setting in SETTINGS.items():
            value = getattr(self, name)
            if setting.check is not None and (value is not None or DEFAULTS[name] is not None):
                object.__setattr__(self, name, setting.check(name, value))
        if self.strength is not None and not isinstance(self.sampler, str):
            raise ArgumentError("strength belongs to the sampler", hint="set it where you make the sampler")

    def record(self, **resolved: Any) -> dict[str, Any]:
        """Return the settings as provenance holds them.

        Args:
            resolved: values in place of those that depend on the model, or on a table of names.
        """
        values = {name: resolved.get(name, getattr(self, name)) for name in settings_of("provenance")}
        return {name: value for name, value in values.items() if SETTINGS[name].always or value != DEFAULTS[name]}


SETTINGS: Mapping[str, Setting] = {each.name: each.metadata["setting"] for each in fields(DrawSettings)}
"""The fields of `DrawSettings`, in their order."""
DEFAULTS: Mapping[str, Any] = {each.name: each.default for each in fields(DrawSettings)}
"""The defaults of the fields of `DrawSettings`."""


def settings_of(surface: Surface) -> tuple[str, ...]:
    """Return the names of the settings that a place of settings has, in the order of the fields."""
    return tuple(name for name, setting in SETTINGS.items() if surface not in setting.left_out)


def setting_types() -> dict[str, Any]:
    """Return the types of the settings by name; for the sampler, only the type of its names."""
    return get_type_hints(DrawSettings, localns={"Sampler": SamplerName})
