"""The settings of comparisons and evaluations, with their defaults, checks, and texts for the command line.

The module does not import torch, so that the command line starts quickly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from energyql.pipeline.settings import SETTINGS, Setting, check_fields, whole_number

if TYPE_CHECKING:
    from energyql.evaluation.methods import Method
    from energyql.evaluation.metrics import Features
else:
    Method, Features = str, object

PRIOR = 20_000
"""Default number of pictures of the prior, which no query has selected."""
ORACLE = 1_000
"""Default effective number of exact samples of a query at which the search for them ends."""

_N = Setting("Samples for each query and sampler.", check=partial(whole_number, least=2), common=True)
_PRIOR = Setting(
    "Random pictures (of the prior), judged once for all queries.", check=partial(whole_number, least=100), common=True
)
_ORACLE = Setting("Exact samples to compare with, for each query.", check=partial(whole_number, least=30), common=True)


@dataclass(frozen=True, kw_only=True)
class SampleCounts:
    """Numbers of samples of a comparison, and the seed, 0 to 2⁶⁴ - 1, from which all are drawn.

    Attributes:
        n: samples of each method for each query, at least 2.
        prior: pictures of the prior that all queries share, at least 100.
        oracle: effective number of exact samples that is collected for each query, at least 30.
    """

    n: int = field(default=500, metadata={"setting": _N})
    prior: int = field(default=PRIOR, metadata={"setting": _PRIOR})
    oracle: int = field(default=ORACLE, metadata={"setting": _ORACLE})
    seed: int = field(default=0, metadata={"setting": SETTINGS["seed"]})

    def __post_init__(self) -> None:
        check_fields(self)


class CompareOptions(TypedDict, total=False):
    """Types of keyword arguments of `compare_samplers`: the fields of `CompareSettings`, again for type checkers."""

    n: int
    prior: int
    oracle: int
    seed: int
    truncation: float | None
    condition: int | str | Sequence[float] | None


@dataclass(frozen=True, kw_only=True)
class CompareSettings(SampleCounts):
    """All settings of a comparison, besides queries, samplers and the model; see `energyql.compare_samplers`."""

    truncation: float | None = field(default=None, metadata={"setting": SETTINGS["truncation"]})
    condition: int | str | Sequence[float] | None = field(default=None, metadata={"setting": SETTINGS["condition"]})


class EvaluateOptions(CompareOptions, total=False):
    """Types of keyword arguments of `evaluate`: the fields of `EvaluateSettings`, again for type checkers."""

    edits: int
    setup: str | Path | None
    presets: str | Sequence[str]
    samplers: str | Sequence[str | Method] | None
    features: Features | None


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(CompareSettings):
    """All settings of an evaluation, besides the protocols and the model; `energyql.evaluate` describes them."""

    n: int = field(default=200, metadata={"setting": _N})
    oracle: int = field(default=500, metadata={"setting": _ORACLE})
    edits: int = field(default=64, metadata={"setting": Setting(
        "Pictures that are edited.", check=whole_number, common=True,
    )})  # fmt: skip
    setup: str | Path | None = field(default=None, metadata={"setting": Setting(
        "A published experiment for your own model, such as ffhq; an unknown name lists all names.", common=True,
    )})  # fmt: skip
    presets: str | Sequence[str] = field(default=("default", "lace"), metadata={"setting": Setting(
        "Presets of edits to compare, separated by commas.", common=True,
    )})  # fmt: skip
    samplers: str | Sequence[str | Method] | None = field(default=None, metadata={"setting": Setting(
        "Samplers to compare; by default slice+descent,paper, or those of --setup.", common=True,
    )})  # fmt: skip
    features: Features | None = field(default=None, metadata={"setting": Setting()})
