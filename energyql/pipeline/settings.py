"""The settings with which pictures are drawn for a query, with their defaults and checks.

The module does not import torch, so that the command line starts quickly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict, cast, get_args, get_type_hints

from energyql.catalog import SAMPLER_NAMES, SEMANTICS
from energyql.errors import ArgumentError
from energyql.vocabulary import check_finite

if TYPE_CHECKING:
    from energyql.sampling import Sampler

    Semantics = str
    SamplerName = str
else:
    Semantics = Literal[tuple(SEMANTICS)]
    """Names of the semantics; see `energyql.catalog`."""
    SamplerName = Literal[tuple(SAMPLER_NAMES)]
    """Names of the samplers; see `energyql.catalog`."""
Precision = Literal["float32", "bfloat16"]
"""Names of the number types in which energies can be computed while sampling."""
Verify = Literal["off", "sure", "faithful"]
"""Which drawn pictures are kept: all with "off", else those that a verifier accepts; see `energyql.generate`."""
Noise = Literal["const", "random", "none"]
"""Noise in the pictures of a generator that adds noise: the noise of the model, new noise for each picture, or none."""
DirectionMethod = Literal["ganspace", "sefa", "styles", "pictures", "interfacegan", "steerability", "ganalyze"]
"""Names of the methods that find directions of w along which pictures change; see `energyql.find_directions`."""
EXACT: Final = "exact"
"""Name of the semantics under which an energy is -log P(query)."""
DEFAULT_SEMANTICS: Final = EXACT
DEFAULT_SAMPLER: Final = "slice+descent"
GRADIENT_FREE: Final = "population"
"""Name of the sampler that takes the place of the default one where energies have no gradient."""
DEFAULT_PRECISION: Final = "float32"
DEFAULT_NOISE: Final = "const"
DEFAULT_PURITY: Final = 0.97
"""Default of the setting `purity`: the share of the accepted pictures that should truly satisfy the query."""
DEFAULT_ATTEMPTS: Final = 256
"""Default of the setting `attempts`: the largest number of pictures that are drawn for one that a verifier accepts."""
PICTURES = 16
"""Default number of pictures of a run."""
MOST_SAMPLES = 1_000_000
"""Largest number of samples that one call may draw."""


def whole_number(name: str, value: int, *, least: int = 1, most: int = MOST_SAMPLES) -> int:
    """Return `value` as an int, or raise an `ArgumentError` unless it is whole and from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= value <= most:
        raise ArgumentError(f"{name} must be a whole number from {least} to {most:,}, not {value!r}")
    return int(value)


def finite_number(name: str, value: float, *, least: float = -math.inf) -> float:
    """Return `value` as a float, or raise an `ArgumentError` unless it is finite and at least `least`."""
    number = check_finite(value, name, ArgumentError)
    if number < least:
        raise ArgumentError(f"{name} must be at least {least:g}, not {number:g}")
    return number


def several(value: object, one: type | tuple[type, ...] = str) -> list[Any]:
    """Return the items of `value` as a list; `[value]` if it is a single item, of type `one` or not iterable."""
    return list(value) if isinstance(value, Iterable) and not isinstance(value, one) else [value]


def one_of(names: tuple[str, ...], name: str, value: str) -> str:
    """Return `value`, or raise an `ArgumentError` unless it is one of `names`."""
    if value not in names:
        raise ArgumentError(f"there is no {name} {value!r}", hint=f"choose {', '.join(names)}")
    return value


def _share(name: str, value: float) -> float:
    share = finite_number(name, value)
    if not 0 < share < 1:
        raise ArgumentError(f"{name} must be above 0 and below 1, not {value:g}")
    return share


def flag(name: str, value: bool) -> bool:
    """Return `value`, or raise an `ArgumentError` unless it is true or false; 1 and 0 are refused too."""
    if not isinstance(value, bool):
        raise ArgumentError(f"{name} is true or false, not {value!r}")
    return value


def _names(name: str, value: Sequence[str]) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable) or not all(isinstance(each, str) for each in value):
        raise ArgumentError(f"{name} is a list of attributes, not {value!r}", hint='such as ["smile"]')
    return tuple(value)


Surface = Literal["generate", "gallery", "request", "plan", "provenance"]
"""Places, besides keyword arguments, where settings occur. "generate" and "gallery" are the options of these commands.
"request" is a request to the studio, the web page. "plan" is a class in the plan of a data set. "provenance" is the
record of a result, by which a run or a data set is continued."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Facts about a field of a record of settings, such as `DrawSettings`, besides its type and its default.

    Attributes:
        help: description of the setting on the command line.
        request: description of the setting for requests to the studio (the web page); if empty, `help` is used.
        check: function of the setting's name and value that returns the checked value, or raises an `ArgumentError`. It
            is not called for the value `None` if `None` is the default. `None` for no check.
        common: whether the option is in the help of commands; else only in that of --help-all.
        always: whether provenance (the record of a result) has an entry even if the value is the default. If false, a
            default value has no entry.
        left_out: a mapping. Its keys are the places, such as "plan", in which the setting does not occur; its values
            are the reasons, as text.
    """

    help: str = ""
    request: str = ""
    _: KW_ONLY
    check: Callable[[str, Any], object] | None = None
    common: bool = False
    always: bool = False
    left_out: Mapping[Surface, str] = field(default_factory=dict)


def check_fields(record: Any) -> None:
    """Check the fields of a frozen dataclass by the `Setting` of each, and put the checked values in their place."""
    for each in fields(record):
        setting, value = each.metadata["setting"], getattr(record, each.name)
        if setting.check is not None and (value is not None or each.default is not None):
            object.__setattr__(record, each.name, setting.check(each.name, value))


class DrawOptions(TypedDict, total=False):
    """Types of the keyword arguments of `generate`: the fields of `DrawSettings`, again for type checkers."""

    semantics: Semantics
    sampler: SamplerName | Sampler
    strength: float | None
    precision: Precision
    truncation: float | None
    condition: int | str | Sequence[float] | Sequence[str] | None
    noise: Noise
    verify: Verify | None
    purity: float
    attempts: int
    realism: float
    seed: int
    batch_size: int | None
    compile: bool
    relations: bool
    allow_weak: Sequence[str]


class CallOptions(DrawOptions, total=False):
    """`DrawOptions`, and the device: the keyword arguments of a call that names a model."""

    device: str


class RecordedSettings(TypedDict, total=False):
    """Types of what `DrawSettings.record` returns: the settings in the record of a result."""

    semantics: Semantics
    sampler: dict[str, Any]
    precision: Precision
    truncation: float
    condition: Any
    noise: Noise
    verify: Verify | None
    purity: float
    attempts: int
    realism: float
    seed: int
    compile: bool


class EnergyOptions(TypedDict, total=False):
    """Those of the options of `DrawOptions` on which the energy of a query depends."""

    semantics: Semantics
    truncation: float | None
    condition: int | str | Sequence[float] | Sequence[str] | None
    allow_weak: Sequence[str]


_SAME_PICTURES = "it does not change which pictures are drawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawSettings:
    """All settings of a run, besides the query, the model and the number of pictures.

    Each field occurs in all places of `Surface`, such as the options of `energyql generate`, except those that the
    `left_out` of its `Setting` names.

    This class checks types and ranges. `plan_query` checks the names of semantics and sampler, and whether
    truncation, condition and noise are possible for the model.

    Attributes:
        semantics, sampler, strength, precision, truncation, condition, noise, verify, purity, attempts, realism, seed,
            batch_size, compile: arguments of `energyql.generate`, which describes them.
        relations: whether the relations of the vocabulary are added to the query. Relations are queries that are true
            for every picture, such as "sunglasses IMPLIES glasses".
        allow_weak: attributes whose heads may be used although they rank held-out labels badly. It is needed only where
            no verifier decides, because with a verifier no head is too weak.

    Raises:
        ArgumentError: a value has the wrong type or is outside its range; `strength` is set although `sampler` is a
            sampler object, which has its own strength; or `compile` is set, and `precision` is not float32.
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
        "bfloat16 is faster and less exact.", check=partial(one_of, get_args(Precision)), always=True,
        left_out=dict.fromkeys(("gallery", "request"), "the few pictures of a page are all drawn in float32"),
    )})  # fmt: skip
    truncation: float | None = field(default=None, metadata={"setting": Setting(
        "psi in 0..1: smaller is less varied, with fewer faulty pictures; by default the model's.",
        "psi. By default the model's own.", check=finite_number, always=True,
    )})  # fmt: skip
    condition: int | str | Sequence[float] | Sequence[str] | None = field(default=None, metadata={"setting": Setting(
        "Of a conditional generator: a class, numbers separated by commas, a prompt, or a list of prompts in JSON.",
        always=True,
        left_out={"request": "the studio draws under the condition of the attributes"},
    )})  # fmt: skip
    noise: Noise = field(default=DEFAULT_NOISE, metadata={"setting": Setting(
        "If the generator adds noise: const, that of the model; random, new for each picture; none.",
        "Of a generator with noise: const, random or none.", check=partial(one_of, get_args(Noise)), always=True,
    )})  # fmt: skip
    verify: Verify | None = field(default=None, metadata={"setting": Setting(
        "Whether the model's verifier decides which pictures are kept: sure, after few draws, but attributes that the "
        "query does not name become more or less frequent; faithful, with their natural frequencies, after more draws; "
        "off, all are kept. By default sure if the model has a verifier, or code defines its attributes.",
        "sure, faithful or off. By default sure if the model has a verifier.",
        check=partial(one_of, get_args(Verify)), common=True,
    )})  # fmt: skip
    purity: float = field(default=DEFAULT_PURITY, metadata={"setting": Setting(
        "Share of the verified pictures that is to be right.", check=_share,
    )})  # fmt: skip
    attempts: int = field(default=DEFAULT_ATTEMPTS, metadata={"setting": Setting(
        "Most pictures drawn for one that the verifier accepts.", check=partial(whole_number, most=1_000_000),
    )})  # fmt: skip
    realism: float = field(default=0.0, metadata={"setting": Setting(
        check=partial(finite_number, least=0),
        left_out=dict.fromkeys(("generate", "gallery", "request", "plan"), "no model folder holds a discriminator"),
    )})  # fmt: skip
    seed: int = field(default=0, metadata={"setting": Setting(
        "The same seed gives the same pictures.", check=partial(whole_number, least=0, most=2**64 - 1), common=True,
        always=True, left_out={"plan": "a class has a seed beside its settings"},
    )})  # fmt: skip
    batch_size: int | None = field(default=None, metadata={"setting": Setting(
        "Samples computed together.", check=whole_number,
        left_out={"request": "the studio chooses it", "provenance": _SAME_PICTURES},
    )})  # fmt: skip
    compile: bool = field(default=False, metadata={"setting": Setting(
        "Compile energy and generator by torch.compile first, which takes minutes; see docs/performance.md.",
        check=flag, left_out=dict.fromkeys(("gallery", "request"), "compiling takes longer than drawing the page"),
    )})  # fmt: skip
    relations: bool = field(default=True, metadata={"setting": Setting(
        left_out=dict.fromkeys(get_args(Surface), "only edits set it"),
    )})  # fmt: skip
    allow_weak: Sequence[str] = field(default=(), metadata={"setting": Setting(
        "Attributes, separated by commas, to use although their heads are weak, where no verifier decides.",
        "Attributes that may be used although their heads are weak, where no verifier decides.",
        check=_names, left_out={"provenance": _SAME_PICTURES},
    )})  # fmt: skip

    def __post_init__(self) -> None:
        check_fields(self)
        if self.strength is not None and not isinstance(self.sampler, str):
            raise ArgumentError("strength belongs to the sampler", hint="set it where you make the sampler")
        if self.compile and self.precision != DEFAULT_PRECISION:
            raise ArgumentError(f"a compiled energy is in {DEFAULT_PRECISION}", hint="leave out precision, or compile")

    def record(self, **resolved: Any) -> RecordedSettings:
        """Return the names and values of the settings to record in provenance, the record of a result.

        Settings whose `Setting` leaves provenance out, such as `batch_size`, are missing. So are settings that have
        their default value, unless `always` of their `Setting` is true.

        Args:
            resolved: values to record in place of the fields, by name of the setting. One use is a default that depends
                on the model, such as `truncation=0.7`. Another is the sampler, whose name and settings are recorded.
        """
        values = {name: resolved.get(name, getattr(self, name)) for name in settings_of("provenance")}
        kept = {name: value for name, value in values.items() if SETTINGS[name].always or value != DEFAULTS[name]}
        return cast("RecordedSettings", kept)


SETTINGS: Mapping[str, Setting] = {each.name: each.metadata["setting"] for each in fields(DrawSettings)}
"""Name of each field of `DrawSettings`, in the order of the fields -> its `Setting`."""
DEFAULTS: Mapping[str, Any] = {each.name: each.default for each in fields(DrawSettings)}
"""Name of each field of `DrawSettings` -> its default."""


def settings_in(record: type) -> dict[str, Setting]:
    """Return name -> `Setting` of each field of a record of settings that has one, in the order of the fields."""
    return {each.name: each.metadata["setting"] for each in fields(record) if "setting" in each.metadata}


def option(text: str, *, common: bool = True) -> dict[str, Setting]:
    """Metadata of a field that is an option of a command: its text in the help; for `common` see `Setting`."""
    return {"setting": Setting(text, common=common)}


def settings_of(surface: Surface) -> tuple[str, ...]:
    """Return the names of the settings that occur in a place, such as "generate", in the order of `DrawSettings`."""
    return tuple(name for name, setting in SETTINGS.items() if surface not in setting.left_out)


def setting_types(record: type = DrawSettings) -> dict[str, Any]:
    """Return the type of each field of a record of settings; that of `sampler` has only names, not sampler objects."""
    return get_type_hints(record, localns={"Sampler": SamplerName})
