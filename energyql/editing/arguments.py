"""The keyword arguments of `edit`, `invert` and `animate`, with their defaults, checks, and texts for the command line.

The module does not import torch, so that the command line starts quickly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, TypedDict, get_args

from energyql.errors import ArgumentError
from energyql.pipeline.settings import (
    SETTINGS,
    Noise,
    Semantics,
    Setting,
    check_fields,
    finite_number,
    flag,
    one_of,
    whole_number,
)

if TYPE_CHECKING:
    from energyql.editing.latents import Layers
    from energyql.editing.pictures import Embed
    from energyql.editing.settings import InversionSettings, Preset
else:
    Embed = InversionSettings = Layers = object
    Preset = str

Mode = Literal["cumulative", "alone"]
"""Whether a step of an edit also keeps the earlier queries satisfied."""
Space = Literal["z", "w", "w+"]
"""What an inversion finds: z; also an offset of w; or an offset for each layer of the generator."""


def _keep(name: str, value: str | Iterable[str]) -> object:
    if value != "everything" and (isinstance(value, str) or not isinstance(value, Iterable)):
        raise ArgumentError(f'{name} is "everything" or a list of attributes, not {value!r}', hint='such as ["hair"]')
    return value if isinstance(value, str) else tuple(value)


def _space(name: str, value: str) -> str:
    if value not in get_args(Space):
        raise ArgumentError(f"pictures are inverted into {', '.join(get_args(Space))}, not {value!r}")
    return value


def _seconds(name: str, value: float) -> float:
    seconds = finite_number(name, value)
    if not 20 <= round(1000 * seconds) <= 60_000:
        raise ArgumentError(f"{name} must lie between 0.02 and 60, not {value:g}")
    return seconds


class EditOptions(TypedDict, total=False):
    """Types of the keyword arguments of `edit`: the fields of `EditSettings`, again for type checkers."""

    mode: Mode
    keep: str | Iterable[str]
    preset: str | Preset
    layers: Layers | None
    identity: Embed | None
    semantics: Semantics | None
    strength: float | None
    truncation: float | None
    condition: int | str | Sequence[float] | None
    noise: Noise | None
    batch_size: int | None
    allow_weak: Sequence[str]
    anyway: bool


_ANYWAY = "Continue with a photograph that the generator cannot draw."


@dataclass(frozen=True, slots=True, kw_only=True)
class EditSettings:
    """All settings of an edit, besides the start, the queries and the model; `energyql.edit` describes them.

    `None` stands for the value of the preset, of the edited result, or of the model.

    Raises:
        ArgumentError: a value has the wrong type or is outside its range.
    """

    mode: Mode = field(default="cumulative", metadata={"setting": Setting(
        "cumulative: keep earlier queries satisfied; alone: use only the query of the step.",
        check=partial(one_of, get_args(Mode)), common=True,
    )})  # fmt: skip
    keep: str | Iterable[str] = field(default="everything", metadata={"setting": Setting(
        "Attributes to keep, separated by commas, or everything.", check=_keep, common=True,
    )})  # fmt: skip
    preset: str | Preset = field(
        default="default", metadata={"setting": Setting("default, lace, lace-reweighted or query-only.")}
    )
    layers: Layers | None = field(default=None, metadata={"setting": Setting(
        "Layers of W+ that may change: 4-9 or 0,1,7; or those of an attribute, repeated: hair=6-8.",
    )})  # fmt: skip
    identity: Embed | None = field(default=None, metadata={"setting": Setting()})
    semantics: Semantics | None = field(default=None, metadata={"setting": Setting("By default that of the preset.")})
    strength: float | None = field(default=None, metadata={"setting": Setting("Multiplies the energy of the query.")})
    truncation: float | None = field(default=None, metadata={"setting": SETTINGS["truncation"]})
    condition: int | str | Sequence[float] | None = field(default=None, metadata={"setting": SETTINGS["condition"]})
    noise: Noise | None = field(default=None, metadata={"setting": Setting(
        "const, random or none; by default that of the start.", check=partial(one_of, get_args(Noise)),
    )})  # fmt: skip
    batch_size: int | None = field(default=None, metadata={"setting": SETTINGS["batch_size"]})
    allow_weak: Sequence[str] = field(default=(), metadata={"setting": SETTINGS["allow_weak"]})
    anyway: bool = field(default=False, metadata={"setting": Setting(_ANYWAY, check=flag, common=True)})

    def __post_init__(self) -> None:
        check_fields(self)


class InvertOptions(TypedDict, total=False):
    """Types of the keyword arguments of `invert`: the fields of `InvertSettings`, again for type checkers."""

    space: Space
    perceptual: Embed | None
    settings: InversionSettings | None
    truncation: float | None
    condition: int | str | Sequence[float] | None
    batch_size: int | None
    anyway: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class InvertSettings:
    """All settings of an inversion, besides the pictures and the model; `energyql.invert` describes them.

    Raises:
        ArgumentError: a value has the wrong type or is outside its range.
    """

    space: Space = field(default="w", metadata={"setting": Setting(
        "z; w: z and an offset of w; or w+: z and an offset for each layer.",
        check=_space, common=True,
    )})  # fmt: skip
    perceptual: Embed | None = field(default=None, metadata={"setting": Setting()})
    settings: InversionSettings | None = field(default=None, metadata={"setting": Setting()})
    truncation: float | None = field(default=None, metadata={"setting": SETTINGS["truncation"]})
    condition: int | str | Sequence[float] | None = field(default=None, metadata={"setting": SETTINGS["condition"]})
    batch_size: int | None = field(default=None, metadata={"setting": SETTINGS["batch_size"]})
    anyway: bool = field(default=False, metadata={"setting": Setting(_ANYWAY, check=flag, common=True)})

    def __post_init__(self) -> None:
        check_fields(self)


class AnimationOptions(TypedDict, total=False):
    """Types of the keyword arguments of `animate`: the fields of `AnimationSettings`, again for type checkers."""

    rows: Sequence[int] | None
    frames: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AnimationSettings:
    """Which pictures an animation shows, and how fast; `energyql.animate` describes the fields.

    Raises:
        ArgumentError: a value has the wrong type or is outside its range.
    """

    rows: Sequence[int] | None = field(default=None, metadata={"setting": Setting()})
    frames: int = field(default=16, metadata={"setting": Setting(check=partial(whole_number, most=200))})
    seconds: float = field(default=0.06, metadata={"setting": Setting(check=_seconds)})

    def __post_init__(self) -> None:
        check_fields(self)
