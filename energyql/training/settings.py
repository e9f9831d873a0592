"""The settings of trainings and searches, each with its type, default and text of help. Imports no torch.

Keyword arguments in Python are the fields of these records, and options of commands are made from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict, get_args

from energyql.errors import ArgumentError
from energyql.pipeline.settings import DirectionMethod, finite_number, option, whole_number
from energyql.vocabulary import Kind, Vocabulary

if TYPE_CHECKING:
    from energyql.attributes.labels import ImageLabeller
    from energyql.training.heads import HeadSettings
    from energyql.training.picture_fit import PictureSettings
else:
    ImageLabeller = HeadSettings = PictureSettings = object

TRAIN: Final = "train"
"""Value of the setting `judge` with which a new judge is trained."""
AUTO: Final = "auto"
"""Value of the setting `judge` with which a function that labels is the judge, and one is trained for other labels; and
of the setting `features` with which the embedded backbone is used if it is installed."""
NONE: Final = "none"
"""Value of the setting `features` with which networks learn from pixels alone."""
MOST_PICTURES = 5_000
"""Default number of pictures that a labeller (a function or network) labels for judge and verifier."""
LEAST_PICTURES = 20
"""Fewest pictures that a labeller labels for judge and verifier."""
POOL_START, POOL_SIZE = 1_000_000, 5_000
"""The pool, from which uncertain pictures are chosen: number of its first picture (random ones are smaller), size."""
WITH_GOALS = ("interfacegan", "steerability", "ganalyze")
"""Methods that find one direction for each goal, such as an attribute or an edit."""
_FEATURES = option(
    "With a table, what networks know of pictures beforehand: auto, the embedded backbone if it is installed; none; or "
    "the folder of an image network, such as DINOv2.",
)  # fmt: skip
_CONDITION = "For a conditional generator: a class, numbers, or random for a random class per picture."


class TrainOptions(TypedDict, total=False):
    """Types of the keyword arguments of `train_attributes`: the fields of `TrainSettings`, again for type checkers."""

    vocabulary: Vocabulary | None
    kinds: Mapping[str, Kind] | None
    only: Sequence[str] | None
    n: int | None
    space: str | None
    truncation: float | tuple[float, float] | None
    condition: int | Sequence[float] | str | None
    seed: int | None
    replace: bool
    judge: ImageLabeller | str | None
    features: str | Path
    settings: HeadSettings | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """The settings of `train_attributes`.

    Attributes:
        vocabulary: the attributes; inferred from the labels by default.
        kinds: attribute -> kind, for attributes whose kind is not inferred.
        only: attributes to train; all by default.
        n: with a labeller, the number of pictures that it labels. By default 5,000 in a first round, and each
            further round doubles their number, up to 40,000; the rounds end if one lowers the held-out loss of the
            heads by at most 1 %, or if no loss can be measured. With a table that has numbers of pictures, the number
            of further pictures that a teacher (networks that learn from the table) labels for the heads. By default
            8,000, or 3,000 with `features`; 2,000 of large pictures of a StyleGAN2, which draws previews, and fewer or
            none of large pictures of others. 0 is for no teacher.
        space: the latent that heads read: "w"; "z"; "direction", which is z scaled to unit second moment, on which the
            pictures of a StyleGAN depend; or "features", numbers that the generator computes from z for heads (see
            `ViewedGenerator.features`). By default that of the model's other heads; without heads, "features" if the
            generator has some, else "w". Latents in a table must be w for "w", and z for the others. With "picture", a
            network that reads pictures is fitted in place of heads (see `PictureBank`), to at most 5,000 pictures of a
            labeller.
        truncation: psi of the samples, or a range (low, high) from which each sample has a random psi. By default the
            psi of the pictures, if the table or its folder states it; else the range of the model's other heads; else
            the psi that is estimated from w in a table; else the psi of the model.
        condition: for a conditional generator: a class for all pictures, or as many numbers as there are classes; or
            "random" for a random class of each picture, and heads that are valid for every class. By default that of
            the pictures, if the table or its folder states it, else that of the model's other heads.
        seed: seed of the samples; picture i of `sample_pictures(seed=...)` is drawn from sample i. By default the one
            that the table or its folder states, else 0; for a labeller 2**32, so that it labels no pictures that users
            draw with small seeds.
        replace: whether new heads may replace old heads of the same attributes.
        judge: reads the new attributes off pictures, and decides whether samples satisfy a query. By default a function
            that labels is the judge and the verifier, because it defines the attributes; for other labels, as always
            with "train", both are trained, if the labels are about pictures, from the table or from other pictures. A
            judge that you give is only measured: a `Judge` from another folder, which is stored; the name of code,
            `module:function` or a plugin, which is recorded; or a function or torch module, which `load_model` must be
            given again. `None` is for no judge.
        features: with a table about pictures, the backbone whose middle layers teacher, verifier and judge read: a
            frozen network that knows photographs. "auto" is the embedded one if it is installed (the extra `features`);
            "none" is for none; else the folder of an image network that transformers or timm saved.
        settings: settings of the fit of the heads.
    """

    vocabulary: Vocabulary | None = None
    kinds: Mapping[str, Kind] | None = field(default=None, metadata=option(
        "name=kind, if the kind is inferred wrongly.", common=False,
    ))  # fmt: skip
    only: Sequence[str] | None = field(default=None, metadata=option("Attributes to train, separated by commas."))
    n: int | None = field(default=None, metadata=option(
        "Pictures for --labeller or CLIP; by default from 5,000 up to 40,000, while the heads gain by it. With a "
        "table of picture numbers, further pictures that a teacher labels; by default 8,000, or fewer if they are "
        "large or it reads features.",
    ))  # fmt: skip
    space: str | None = field(default=None, metadata=option(
        "Input of the heads: w, z, direction, features; or picture, to train a network of pictures.",
    ))  # fmt: skip
    truncation: float | tuple[float, float] | None = field(default=None, metadata=option(
        "psi of the latents, or a range such as 0.5:1.", common=False,
    ))  # fmt: skip
    condition: int | Sequence[float] | str | None = field(default=None, metadata=option(_CONDITION, common=False))
    seed: int | None = field(default=None, metadata=option("Seed of the samples, or of the pictures in --labels."))
    replace: bool = field(default=False, metadata=option("Replace old attributes by new ones of the same name."))
    judge: ImageLabeller | str | None = field(default=AUTO, metadata=option(
        "auto: a function of --labeller, because it defines the attributes; for other labels as train: a judge that "
        "learns from the labelled pictures; none; or one by name: module:function, or a plugin.",
    ))  # fmt: skip
    features: str | Path = field(default=AUTO, metadata=_FEATURES)
    settings: HeadSettings | None = None


class JudgeOptions(TypedDict, total=False):
    """Types of the keyword arguments of `train_judge`: the fields of `JudgeSettings`, again for type checkers."""

    only: Sequence[str] | None
    n: int
    seed: int | None
    judge: ImageLabeller | str
    features: str | Path
    settings: PictureSettings | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSettings:
    """The settings of `train_judge`.

    Attributes:
        only: attributes to judge; by default all attributes of the model that have labels.
        n: number of pictures that a labeller labels, not those for heads; at most 1,000 for a given `judge`.
        seed: seed of the pictures; by default the one that a table states, else 0; 2**32 for a labeller.
        judge: a judge to measure in place of training: a `Judge` of another model, a function or torch module, or the
            name of code (`module:function` or a plugin).
        features: as for `train_attributes`.
        settings: settings of the fit of the judge.

    Raises:
        ArgumentError: there are too few pictures to learn from.
    """

    only: Sequence[str] | None = field(default=None, metadata=option("Attributes to judge, separated by commas."))
    n: int = field(default=MOST_PICTURES, metadata=option("Pictures for --labeller or CLIP, at least 20."))
    seed: int | None = field(default=None, metadata=option("Seed of the samples, or of the pictures in --labels."))
    judge: ImageLabeller | str = field(default=TRAIN, metadata=option(
        "train: a judge that learns from the labelled pictures; or one by name, which is measured on them: "
        "module:function, or a plugin.",
    ))  # fmt: skip
    features: str | Path = field(default=AUTO, metadata=_FEATURES)
    settings: PictureSettings | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole_number("n", self.n, least=LEAST_PICTURES))


class DirectionOptions(TypedDict, total=False):
    """Types of the keyword arguments of `find_directions`: fields of `DirectionSettings`, again for type checkers."""

    goals: Sequence[str] | None
    labeller: ImageLabeller | None
    layers: Sequence[int] | None
    truncation: float | None
    condition: int | Sequence[float] | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionSettings:
    """The settings of `find_directions`.

    Attributes:
        method: how directions are found, see `find_directions`.
        n: number of directions; for methods with goals the largest number.
        goals: attributes (for `interfacegan`), edits (`steerability`) or numbers (`ganalyze`) to find directions for,
            at most `n`; by default the first that exist. Other methods have no goals.
        labeller: for `ganalyze`, a function of pictures or a torch module that reads the numbers, in place of the
            judge. Its result, name -> tensor (batch,), must have gradients.
        layers: layers of the generator, 0 to `num_ws - 1`; by default all. Only styles of these layers count, and
            pictures are moved in these layers only.
        truncation: psi of the prior samples, 0 to 2; by default the range for which the model's heads are valid, or the
            model's psi if it has no heads.
        condition: a class, as many numbers as there are classes, or "random"; by default that of the model's heads.

    Raises:
        ArgumentError: a value is outside its range, or does not belong to the method.
    """

    method: DirectionMethod = field(default="ganspace", metadata=option("Method; see docs/directions.md."))
    n: int = field(default=10, metadata=option("Number of directions."))
    goals: Sequence[str] | None = field(default=None, metadata=option(
        "For interfacegan, steerability and ganalyze, separated by commas: attributes, edits such as "
        "zoom,rotation, or numbers. By default all, up to -n.",
    ))  # fmt: skip
    labeller: ImageLabeller | None = field(default=None, metadata=option(
        "For ganalyze: module:function that reads numbers from pictures, in place of the judge.",
    ))  # fmt: skip
    layers: Sequence[int] | None = field(default=None, metadata=option(
        "Layers of W+ to use, for directions and for the pictures: 4-9 or 0,1,7.",
    ))  # fmt: skip
    truncation: float | None = field(default=None, metadata=option(
        "psi of the samples; by default that of the heads, or of the model.",
    ))  # fmt: skip
    condition: int | Sequence[float] | str | None = field(default=None, metadata=option(_CONDITION))

    def __post_init__(self) -> None:
        if self.method not in (methods := get_args(DirectionMethod)):
            raise ArgumentError(f"there is no method {self.method!r}", hint=f"methods: {', '.join(methods)}")
        if self.goals is not None and self.method not in WITH_GOALS:
            hint = f"leave them out, or choose {', '.join(WITH_GOALS)}"
            raise ArgumentError(f"{self.method} has no goals", hint=hint)
        if self.labeller is not None and self.method != "ganalyze":
            raise ArgumentError(f"{self.method} reads no labeller; ganalyze does")
        checked: dict[str, Any] = {"n": whole_number("n", self.n), "truncation": pictures_psi(self.truncation)}
        for name, value in checked.items():
            object.__setattr__(self, name, value)


def pictures_psi(truncation: float | None) -> float | None:
    """Return the truncation psi of pictures, or raise an `ArgumentError` unless it is `None` or from 0 to 2."""
    if truncation is not None and not 0 <= (truncation := finite_number("truncation", truncation)) <= 2:
        raise ArgumentError(f"truncation is a number from 0 to 2, not {truncation:g}")
    return truncation
