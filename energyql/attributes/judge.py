"""Image judges: networks that predict attributes from pictures, to check samples independently of the heads.

A judge takes no part in sampling, except in a model without heads, where such a network also guides samplers. Several
networks can be a verifier, which decides from pictures which samples are kept.
"""

from __future__ import annotations

import itertools
import math
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.attributes.backbones import EMBEDDED, Backbone, open_backbone
from energyql.attributes.held_out import HeldOut, held_out_path
from energyql.attributes.labels import ImageLabeller, import_labeller
from energyql.attributes.predictions import Prediction, of_columns, output_count, split_outputs
from energyql.attributes.quality import (
    FIRST,
    VERIFIER,
    HeadReport,
    describe_reports,
    described_reports,
    judge_name,
    judge_names,
    naming_damage,
)
from energyql.attributes.statistics import SIDE, SIZES, picture_statistics
from energyql.errors import ArgumentError, EnergyQLError, ModelError, VocabularyError, either
from energyql.files import read_json, read_tensors, write_json, write_tensors
from energyql.numerics.pool import in_pool, one_thread, piece_count
from energyql.numerics.shapes import Float
from energyql.vocabulary import Vocabulary

AT_ONCE = 16
"""Number of pictures that a judge takes together on a CPU without gradients; more would not fit into the caches."""

IMAGE_JUDGE = "image judge"
"""Name that results have for a judge that is a network of this module."""

_Layer = tuple[Tensor, Tensor, tuple[int, int]]
"""Weight, bias and stride of a convolution."""


def thumbnails(images: Float[Tensor, "batch channels height width"], side: int) -> Float[Tensor, "batch 3 side side"]:
    """Resize pictures to `side` x `side` pixels and three channels, the form that a judge takes.

    A single channel is repeated; channels after the third are removed.
    """
    images = images[:, :3].expand(-1, 3, -1, -1)
    if images.shape[-2:] == (side, side):
        return images
    rows, columns = (_averages(size, side, images.device, images.dtype) for size in images.shape[-2:])
    return rows @ images @ columns.t()  # half the time of `interpolate`, except for large pictures


@lru_cache(maxsize=8)
def _averages(size: int, side: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "side size"]:
    """Matrix that averages `size` pixels of a row down to `side` pixels; cached."""
    with torch.inference_mode(False), torch.no_grad():  # tensors made in inference mode have no gradients
        return F.interpolate(torch.eye(size)[None], size=side, mode="area")[0].t().contiguous().to(device, dtype)


def in_half(tensor: Tensor) -> Tensor:
    """Round a tensor to half precision, in which networks are saved, unless one of its numbers is too large for it."""
    half = tensor.half()
    return half if half.isfinite().all() else tensor


def _without_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> _Layer:
    """The convolution with the result of `conv` and then `norm`, in evaluation mode, in less time."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert conv.bias is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    bias = (conv.bias - norm.running_mean) * scale + norm.bias
    return conv.weight * scale[:, None, None, None], bias, (conv.stride[0], conv.stride[1])


def _run(layers: list[_Layer], x: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch features"]:
    for weight, bias, stride in layers:
        x = F.silu(F.conv2d(x, weight, bias, stride, padding=1), inplace=True)
    return x.flatten(1)


_BODY = "body."
"""Start of the names of a body's weights in a judge, which files leave out."""


class Body(nn.Module, ABC):
    """The part of a judge below its last, linear layer: from pictures to features.

    Attributes:
        side: side, in pixels, of the pictures that it reads; larger ones are reduced.
        size: number of features.
        width: number of channels; features are (width, positions) in one row.
    """

    side: int
    size: int
    width: int

    @abstractmethod
    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch size"]:
        """Features of pictures in [-1, 1]."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """JSON values from which `body_of` makes such a body, without its weights."""


class Convolutions(Body):
    """A small convolutional network, trained with its judge.

    Args:
        side: width and height, in pixels, that pictures are resized to.
        channels: number of channels of each level, at least one level. A level has two 3x3 convolutions, and halves
            width and height.
    """

    def __init__(self, side: int = 64, channels: Sequence[int] = (24, 48, 96, 128)) -> None:
        super().__init__()
        self.side = side
        self.channels = tuple(channels)
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, stride=2, padding=1),
                nn.BatchNorm2d(width),
                nn.SiLU(),
            )
            for before, width in itertools.pairwise((3, *self.channels))
        )  # fmt: skip
        self.width = self.channels[-1]
        self.size = self.width * math.ceil(side / 2 ** len(self.channels)) ** 2

    def __repr__(self) -> str:
        return f"pictures of {self.side} pixels"

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch size"]:
        """Features of pictures in [-1, 1], the same for a picture in any batch of at least two."""
        x = thumbnails(images, self.side)
        if self.training or torch.is_grad_enabled() or x.device.type != "cpu":
            for level in self.levels:
                x = level(x)
            return x.flatten(1)
        if len(x) == 1:  # PyTorch computes a single picture in another way, with other rounding errors
            x = x.expand(2, -1, -1, -1)
        layers = [_without_norm(*level[i : i + 2]) for level in self.levels for i in (0, 3)]  # type: ignore[index]
        count = max(1, min(piece_count(len(x), AT_ONCE), len(x) // 2))  # no piece of several has only one
        pieces = [(layers, piece.contiguous(memory_format=torch.channels_last)) for piece in x.tensor_split(count)]
        return torch.cat(in_pool(_run, pieces))[: len(images)]

    def describe(self) -> dict[str, Any]:
        """Its sizes."""
        return {"side": self.side, "channels": list(self.channels)}


_TRAIN_AGAIN = f"train verifier and judge again, with another one: {either('train_judge', 'energyql train-judge')}"


class Features(Body):
    """Standardised features of pictures: middle layers of a backbone (`Backbone.read`), small pictures, statistics.

    The weights of the backbone are not part of it: it is loaded when the first picture is read.

    Args:
        backbone: its name, see `open_backbone`.
        mark: SHA-256 of the backbone's weights.
        layers: names of the layers that are read.
        side: side, in pixels, of the pictures from which its reader learned; others are resized to it.
        small: side of the small pictures whose pixels are features too.
        size: number of features.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, backbone: str, mark: str, layers: Sequence[str], side: int, small: int, size: int) -> None:
        super().__init__()
        self.backbone, self.mark, self.layers = backbone, mark, tuple(layers)
        self.side, self.small, self.size = side, small, size
        self.width = size
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def __repr__(self) -> str:
        return f"features of {self.backbone}"

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch size"]:
        """Standardised features of pictures in [-1, 1]."""
        return (self.raw(images) - self.mean) * self.scale

    def raw(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch size"]:
        """The features before they are standardised.

        Raises:
            ModelError: the backbone is not here, or has other weights than at the training.
        """
        what = f"the model reads pictures by features of {self.backbone}"
        try:
            backbone = open_backbone(self.backbone, images.device)
        except EnergyQLError as error:
            hint = error.hint if self.backbone == EMBEDDED else f"put the folder back there, or {_TRAIN_AGAIN}"
            raise ModelError(f"{what}: {error.message}", hint=hint) from error
        if backbone.mark != self.mark:
            hint = f"bring back the files with which it was trained, or {_TRAIN_AGAIN}"
            raise ModelError(f"{what}, and its weights are no longer those of the training", hint=hint)
        if images.shape[-2:] != (self.side, self.side):
            larger = max(images.shape[-2:]) > self.side
            images = thumbnails(images, self.side) if larger else F.interpolate(images, self.side, mode="bilinear")
        return torch.cat(raw_features(backbone, images, self.layers, self.small), 1)

    def describe(self) -> dict[str, Any]:
        """Its backbone and sizes."""
        return {
            "backbone": self.backbone, "mark": self.mark, "layers": list(self.layers), "side": self.side,
            "small": self.small, "size": self.size, "statistics": sum(SIZES),
        }  # fmt: skip


def raw_features(
    backbone: Backbone, images: Float[Tensor, "batch channels height width"], layers: Sequence[str], small: int
) -> list[Float[Tensor, "batch features"]]:
    """Features of each of some layers of a backbone; then, of pictures of side `small`, pixels; and statistics."""
    read, images = backbone.read(images, layers), images.float()
    simple = [thumbnails(images, small).flatten(1), picture_statistics(thumbnails(images, SIDE))]
    return [*read, torch.cat(simple, 1)]


def body_of(described: Mapping[str, Any]) -> Body:
    """Make a body, without its weights, from what `Body.describe` returned.

    A `KeyError`, `TypeError` or `ValueError` says that a value is missing or wrong.
    """
    if "backbone" not in described:
        side, channels = described["side"], described["channels"]
        if not channels or not all(type(size) is int and 0 < size <= 1 << 16 for size in (side, *channels)):
            raise ValueError(f"side {side!r} and channels {channels!r} are no sizes of a network")
        return Convolutions(side, channels)
    name, mark, layers = described["backbone"], described["mark"], described["layers"]
    side, small, size = (described[key] for key in ("side", "small", "size"))
    if described["statistics"] != sum(SIZES):
        raise ValueError("it reads no statistics of pictures as this version takes them; train it again")
    if not all(isinstance(text, str) for text in (name, mark, *layers)):
        raise ValueError("backbone, mark and layers are no texts")
    if not all(type(each) is int and 0 < each <= 1 << 20 for each in (side, small, size)):
        raise ValueError(f"side {side!r}, small {small!r} and size {size!r} are no sizes of features")
    return Features(name, mark, layers, side, small, size)


class Judge(nn.Module):
    """A network from pictures to predictions of every attribute: a body, and a linear layer.

    Args:
        vocabulary: the attributes.
        body: from pictures to the features that the linear layer reads.
        report: quality on held-out pictures, by attribute; attributes that were not measured are missing.
    """

    std: Tensor

    def __init__(
        self, vocabulary: Vocabulary, body: Body | None = None, *, report: Mapping[str, HeadReport] | None = None
    ) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.report = {name: each for name, each in (report or {}).items() if name in vocabulary}
        self.body = Convolutions() if body is None else body
        self.head = nn.Linear(self.body.size, sum(output_count(spec) for spec in vocabulary.values()))
        self.register_buffer("std", torch.full((len(vocabulary),), 0.05))

    def __repr__(self) -> str:
        return f"<Judge of {self.body!r}: {', '.join(self.vocabulary)}>"

    @property
    def side(self) -> int:
        """Side, in pixels, of the pictures that it reads; larger ones are reduced."""
        return self.body.side

    def features(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        """Input of the network's last, linear layer for pictures in [-1, 1], (batch, features)."""
        return cast(Tensor, self.body(images))

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> dict[str, Prediction]:
        """Predictions, by attribute, for pictures in [-1, 1], (batch, channels, height, width)."""
        std = dict(zip(self.vocabulary, self.std, strict=True))
        # Several threads read a single picture no faster than one.
        with one_thread(math.inf if torch.is_grad_enabled() else 0):
            outputs = self._outputs(self.features(images))
        return split_outputs(outputs, self.vocabulary.values(), std)

    def _outputs(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch outputs"]:
        if torch.is_grad_enabled() or features.device.type != "cpu" or not len(features):
            return cast(Tensor, self.head(features))
        # Products of a fixed number of rows have the same rounding errors for every number of pictures.
        rows = F.pad(features, (0, 0, 0, -len(features) % AT_ONCE))
        return torch.cat(in_pool(self.head, [(part,) for part in rows.split(AT_ONCE)]))[: len(features)]

    def only(self, names: Iterable[str]) -> Judge:
        """A smaller judge that predicts `names` exactly as this one; a `VocabularyError` if it has none of them."""
        indices = [i for i, name in enumerate(self.vocabulary) if name in set(names)]
        if not indices:
            raise VocabularyError(f"the judge reads only {', '.join(self.vocabulary)}")
        specs = list(self.vocabulary.values())
        vocabulary = Vocabulary([specs[i] for i in indices], model=self.vocabulary.model)
        with torch.device("meta"):  # so that no random numbers are drawn
            judge = Judge(vocabulary, body_of(self.body.describe()), report=self.report)
        outputs = torch.arange(len(self.head.bias)).split([output_count(spec) for spec in specs])
        rows = torch.cat([outputs[i] for i in indices])
        state = {key: value.detach().clone() for key, value in self.state_dict().items()}
        state |= {key: state[key][rows] for key in ("head.weight", "head.bias")} | {"std": state["std"][indices]}
        judge.load_state_dict(state, assign=True)
        return judge.train(self.training).requires_grad_(False)

    @torch.no_grad()
    def adjust(self, factor: Float[Tensor, " outputs"], shift: Float[Tensor, " outputs"]) -> None:
        """Make each output `factor` times as large plus `shift`, in place, by the last layer."""
        self.head.weight.mul_(factor[:, None])
        self.head.bias.mul_(factor).add_(shift)

    def round(self) -> None:
        """Round all weights, in place, to the precision in which `save` writes them; see `in_half`."""
        for value in self.state_dict().values():
            if value.is_floating_point():
                value.copy_(in_half(value))

    def save(self, folder: Path, name: str = FIRST) -> None:
        """Write the judge into `folder`: weights to `<name>.safetensors`, the rest to `<name>.json`.

        Weights are in half precision, except tensors with numbers that are too large for it. If the writing fails, no
        file is half written.
        """
        state = {key.removeprefix(_BODY): value for key, value in self.state_dict().items()}
        tensors = {key: in_half(value) for key, value in state.items() if value.is_floating_point()}
        write_tensors(folder / f"{name}.safetensors", tensors)
        described = {**self.body.describe(), "vocabulary": self.vocabulary.to_dict()}
        write_json(folder / f"{name}.json", described | describe_reports(folder, name, self.report))

    @classmethod
    def load(cls, folder: Path, name: str = FIRST) -> Judge:
        """Read the judge that `save` wrote, in evaluation mode, on the CPU, and without gradients of its weights.

        A `ModelError` says that a file is missing or damaged, or that the files do not fit each other.
        """
        described, path = folder / f"{name}.json", folder / f"{name}.safetensors"
        description = read_json(described)
        reports = described_reports(folder, name, description)
        with naming_damage(described):
            vocabulary = Vocabulary.from_dict(description["vocabulary"])
            with torch.device("meta"):  # so that wrong sizes take no memory
                judge = cls(vocabulary, body_of(description), report=reports)
        own = {"std", "head.weight", "head.bias"}
        tensors = {key if key in own else _BODY + key: value.float() for key, value in read_tensors(path).items()}
        counts = {key: value for key, value in judge.state_dict().items() if not value.is_floating_point()}
        # `zeros_like` of a tensor on "meta" would import sympy, a fifth of a second and 30 MiB.
        counters = {key: torch.zeros(value.shape, dtype=value.dtype) for key, value in counts.items()}
        with naming_damage(path):
            judge.load_state_dict(tensors | counters, assign=True)
        return judge.eval().requires_grad_(False)


class JointJudge(nn.Module):
    """Several judges as one, which predicts the attributes of all of them.

    The prediction of an attribute is the mean of the judges that predict it, which give it the same kind and classes:
    of their logits, or of the means and standard deviations of a number.
    """

    def __init__(self, judges: Sequence[Judge]) -> None:
        super().__init__()
        self.judges: Sequence[Judge] = nn.ModuleList(judges)  # type: ignore[assignment]
        specs = {name: spec for judge in judges for name, spec in judge.vocabulary.items()}
        self.vocabulary = Vocabulary(specs.values())
        self.report = {name: report for judge in judges for name, report in judge.report.items()}

    def __repr__(self) -> str:
        return f"<{' and '.join(map(repr, self.judges))}>"

    def features(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        """`Judge.features` of all judges, side by side."""
        return torch.cat([judge.features(images) for judge in self.judges], 1)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> dict[str, Prediction]:
        """Predictions, by attribute, for pictures in [-1, 1], (batch, channels, height, width)."""
        predictions: dict[str, list[Prediction]] = {name: [] for name in self.vocabulary}
        for judge in self.judges:
            for name, prediction in judge(images).items():
                predictions[name].append(prediction)
        means = {
            name: torch.stack([prediction.columns() for prediction in each]).mean(0)
            for name, each in predictions.items()
        }
        return {name: of_columns(columns, self.vocabulary[name]) for name, columns in means.items()}


def who_judges(judge: ImageLabeller | None) -> str | None:
    """Name of a judge that is written into results; `None` if `judge` is `None`.

    It is "image judge" for a network of this module, "judge " and the judge's `title` if it has one, and else the place
    of the code: "judge my_code:look", or "judge look (defined in program.py)".
    """
    if judge is None or isinstance(judge, Judge | JointJudge):
        return None if judge is None else IMAGE_JUDGE
    if isinstance(title := getattr(judge, "title", None), str):
        return f"judge {title}"
    code: Any = judge if hasattr(judge, "__qualname__") else type(judge)
    name = code.__qualname__.rpartition("<locals>.")[2]
    if code.__module__ != "__main__":
        return f"judge {code.__module__}:{name}"
    program = getattr(sys.modules["__main__"], "__file__", None)
    return f"judge {name} (defined in {Path(program).name if program else 'a notebook or console'})"


def joined(judges: Sequence[Judge]) -> Judge | JointJudge | None:
    """One judge for several: a `JointJudge`, or the only judge itself; `None` for none."""
    return JointJudge(judges).eval() if len(judges) > 1 else next(iter(judges), None)


def networks_of(judge: ImageLabeller | None) -> Sequence[ImageLabeller]:
    """The judges in a `JointJudge`; any other judge alone; () for `None`."""
    if isinstance(judge, JointJudge):
        return judge.judges
    return () if judge is None else (judge,)


def load_judge(folder: Path, vocabulary: Vocabulary | None = None) -> Judge | JointJudge | None:
    """Read all judges of a model folder that are networks, as one judge; `None` if the folder has none.

    A `ModelError` also says that two judges predict the same attribute, or one that is not in `vocabulary`, if that is
    given.
    """
    judges = _networks(folder, FIRST, vocabulary)
    owners: dict[str, str] = {}
    for name, judge in judges.items():
        for attribute in judge.vocabulary:
            if (owner := owners.setdefault(attribute, name)) != name:
                raise ModelError(f"{folder / name}.json: {owner}.json reads {attribute!r} as well")
    return joined(list(judges.values()))


def open_labeller(name: str) -> ImageLabeller:
    """Open what labels pictures by its name: the judge of a folder, as `energyql teach --pictures` makes one, or code.

    Raises:
        ArgumentError: the folder has no judge; or see `import_labeller`.
        ModelError: the judge is damaged.
    """
    if not os.path.isdir(name):  # `Path.is_dir` fails for a name that is too long
        return import_labeller(name)
    folder = Path(name)
    judge = load_judge(folder)
    if judge is None:
        hint = "energyql teach makes one from photographs; or name code, such as my_code:look"
        raise ArgumentError(f"{folder} has no judge", hint=hint)
    return judge


def load_verifier(folder: Path, vocabulary: Vocabulary) -> tuple[Judge | JointJudge | None, tuple[HeldOut, ...]]:
    """Read the verifier of a model folder as one network, and the samples that were held out of each of its trainings.

    Raises:
        ModelError: a file is missing or damaged, or an attribute is not that of `vocabulary`.
    """
    networks = _networks(folder, VERIFIER, vocabulary)
    held_out = (HeldOut.load(folder, name, network.vocabulary) for name, network in networks.items())
    return joined(list(networks.values())), tuple(samples for samples in held_out if samples is not None)


def _networks(folder: Path, first: str, vocabulary: Vocabulary | None) -> dict[str, Judge]:
    """Read all networks of a model folder, judges (`FIRST`) or verifier (`VERIFIER`), by name such as "judge-2"."""
    networks = {name: Judge.load(folder, name) for name in judge_names(folder, first)}
    for spec in (spec for network in networks.values() for spec in network.vocabulary.values()):
        own = spec if vocabulary is None else vocabulary.get(spec.name)
        if own is None or (own.kind, own.values) != (spec.kind, spec.values):
            raise ModelError(f"{folder}: the judge reads {spec.name!r}, which the heads do not, or otherwise")
    return networks


def replace_networks(
    folder: Path, first: str, names: Iterable[str], networks: Sequence[Judge] = (), held_out: HeldOut | None = None
) -> None:
    """Replace the judges, or the networks of the verifier, that predict the attributes `names` in a model folder.

    An old network still predicts its other attributes; if it has none, its files are deleted. The new networks all read
    the same attributes.

    Args:
        first: which networks are replaced: `FIRST` for judges, or `VERIFIER`.
        held_out: samples that the new networks did not learn from, to be saved beside them for thresholds.
    """
    replaced = set(names)
    for name in judge_names(folder, first):
        old = Judge.load(folder, name)
        others = [attribute for attribute in old.vocabulary if attribute not in replaced]
        if not others:
            for path in (folder / f"{name}.json", folder / f"{name}.safetensors", held_out_path(folder, name)):
                path.unlink(missing_ok=True)  # the description first: without it, there is no judge
        elif len(others) < len(old.vocabulary):
            samples = HeldOut.load(folder, name, old.vocabulary)
            old.only(others).save(folder, name)
            if samples is not None:
                samples.only(others).save(folder, name)
    in_use = judge_names(folder, first)
    free = (name for number in itertools.count(1) if (name := judge_name(number, first)) not in in_use)
    new = dict(zip(free, networks, strict=False))
    for name, network in new.items():
        network.save(folder, name)
    if held_out is not None and new:
        held_out.save(folder, next(iter(new)))
