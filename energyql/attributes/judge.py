"""Image judges: networks from pictures to attributes, which judge samples and never guide a sampler."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.attributes.labels import ImageLabeller
from energyql.attributes.predictions import Prediction, output_count, split_outputs
from energyql.attributes.quality import FIRST, HeadReport, describe_reports, described_reports, judge_name, judge_names
from energyql.errors import ModelError, VocabularyError
from energyql.files import DAMAGED_MODEL, read_json, read_tensors, write_json, write_tensors
from energyql.numerics.shapes import Float
from energyql.vocabulary import Vocabulary

AT_ONCE = 16
"""Pictures that are read together on a CPU where no gradient is wanted: they stay near its caches."""


_Layer = tuple[Tensor, Tensor, tuple[int, int]]
"""Weight, bias and stride of a convolution."""


def thumbnails(images: Float[Tensor, "batch channels height width"], side: int) -> Float[Tensor, "batch 3 side side"]:
    """Return pictures as a judge reads them: resized, with three channels: grey is repeated, a fourth is cut off."""
    images = images[:, :3].expand(-1, 3, -1, -1)
    rows, columns = (_averages(size, side).to(images) for size in images.shape[-2:])
    return rows @ images @ columns.t()  # half the time of `interpolate`, except for large pictures


def _averages(size: int, side: int) -> Float[Tensor, "side size"]:
    """Return the matrix that resizes a row of `size` pixels to the averages of the pixels that each new one covers."""
    return F.interpolate(torch.eye(size)[None], size=side, mode="area")[0].t().contiguous()


def _without_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> _Layer:
    """Return a convolution that does what `conv` and `norm` do in evaluation mode, in less time."""
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


class Judge(nn.Module):
    """A convolutional network from pictures to predictions of every attribute.

    Args:
        vocabulary: the attributes.
        side: side that pictures are resized to, in pixels.
        channels: width of each level. A level is two 3x3 convolutions and halves the resolution.
        report: quality by attribute, on pictures outside the training set; attributes may have none.
    """

    std: Tensor

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        side: int = 64,
        channels: Sequence[int] = (24, 48, 96, 128),
        report: Mapping[str, HeadReport] | None = None,
    ) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.report = {name: each for name, each in (report or {}).items() if name in vocabulary}
        self.side = side
        self.channels = tuple(channels)
        widths = (3, *self.channels)
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(widths[i], widths[i + 1], 3, padding=1),
                nn.BatchNorm2d(widths[i + 1]),
                nn.SiLU(),
                nn.Conv2d(widths[i + 1], widths[i + 1], 3, stride=2, padding=1),
                nn.BatchNorm2d(widths[i + 1]),
                nn.SiLU(),
            )
            for i in range(len(self.channels))
        )
        last = math.ceil(side / 2 ** len(self.channels))
        outputs = sum(output_count(spec) for spec in vocabulary.values())
        self.head = nn.Linear(self.channels[-1] * last**2, outputs)
        self.register_buffer("std", torch.full((len(vocabulary),), 0.05))

    def __repr__(self) -> str:
        return f"<Judge of pictures of {self.side} pixels: {', '.join(self.vocabulary)}>"

    def features(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        """Return the input of the last layer, of pictures in [-1, 1]."""
        x = thumbnails(images, self.side)
        if self.training or torch.is_grad_enabled() or x.device.type != "cpu":
            for level in self.levels:
                x = level(x)
            return x.flatten(1)
        layers = [_without_norm(*level[i : i + 2]) for level in self.levels for i in (0, 3)]  # type: ignore[index]
        parts = (part.contiguous(memory_format=torch.channels_last) for part in x.split(AT_ONCE))
        return torch.cat([_run(layers, part) for part in parts])

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> dict[str, Prediction]:
        """Predict every attribute of pictures in [-1, 1], (batch, channels, height, width)."""
        std = dict(zip(self.vocabulary, self.std, strict=True))
        return split_outputs(self.head(self.features(images)), self.vocabulary.values(), std)

    def only(self, names: Iterable[str]) -> Judge:
        """Return a judge that reads only the attributes `names`, with the same results.

        Raises:
            VocabularyError: this judge reads none of them.
        """
        wanted = set(names)
        chosen = [name for name in self.vocabulary if name in wanted]
        if not chosen:
            raise VocabularyError(
                f"the judge reads none of {', '.join(sorted(wanted))}", hint=f"it reads {', '.join(self.vocabulary)}"
            )
        vocabulary = Vocabulary((self.vocabulary[name] for name in chosen), model=self.vocabulary.model)
        with torch.device("meta"):  # so that no random numbers are drawn
            judge = Judge(vocabulary, side=self.side, channels=self.channels, report=self.report)
        counts = [output_count(spec) for spec in self.vocabulary.values()]
        outputs = dict(zip(self.vocabulary, torch.arange(sum(counts)).split(counts), strict=True))
        rows = torch.cat([outputs[name] for name in chosen])
        state = {key: value.detach().clone() for key, value in self.state_dict().items()}
        state |= {key: state[key][rows] for key in ("head.weight", "head.bias")}
        state["std"] = torch.stack(
            [std for name, std in zip(self.vocabulary, self.std.unbind(), strict=True) if name in chosen]
        )
        judge.load_state_dict(state, assign=True)
        return judge.train(self.training).requires_grad_(False)

    def save(self, folder: Path, name: str = FIRST) -> None:
        """Write `<name>.safetensors` (half precision) and `<name>.json`, each whole or not at all."""
        tensors = {key: value.half() for key, value in self.state_dict().items() if value.is_floating_point()}
        write_tensors(folder / f"{name}.safetensors", tensors)
        described = {"side": self.side, "channels": list(self.channels), "vocabulary": self.vocabulary.to_dict()}
        write_json(folder / f"{name}.json", described | describe_reports(folder, name, self.report))

    @classmethod
    def load(cls, folder: Path, name: str = FIRST) -> Judge:
        """Read a judge that `save` wrote, in evaluation mode.

        Raises:
            ModelError: a file is missing, damaged or does not fit the other.
        """
        described, path = folder / f"{name}.json", folder / f"{name}.safetensors"
        description = read_json(described)
        reports = described_reports(folder, name, description)
        try:
            vocabulary = Vocabulary.from_dict(description["vocabulary"])
            side, channels = description["side"], description["channels"]
            if not channels or not all(type(size) is int and 0 < size <= 1 << 16 for size in (side, *channels)):
                raise ValueError(f"side {side!r} and channels {channels!r} are no sizes of a network")
            with torch.device("meta"):  # so that wrong sizes take no memory
                judge = cls(vocabulary, side=side, channels=channels, report=reports)
        except KeyError as error:
            raise ModelError(f"{described}: {error} is missing", hint=DAMAGED_MODEL) from None
        except (AttributeError, TypeError, ValueError, RuntimeError, OverflowError, VocabularyError) as error:
            raise ModelError(f"{described}: {error}", hint=DAMAGED_MODEL) from error
        tensors = {name: value.float() for name, value in read_tensors(path).items()}
        try:
            counters = {
                name: torch.zeros(value.shape, dtype=value.dtype)
                for name, value in judge.state_dict().items()
                if not value.is_floating_point()
            }
            judge.load_state_dict(tensors | counters, assign=True)
        except RuntimeError as error:
            raise ModelError(f"{path}: {error}", hint=DAMAGED_MODEL) from error
        return judge.eval().requires_grad_(False)


class JointJudge(nn.Module):
    """Several judges as one, each of other attributes.

    Args:
        judges: at least one.
    """

    def __init__(self, judges: Sequence[Judge]) -> None:
        super().__init__()
        self.judges: Sequence[Judge] = nn.ModuleList(judges)  # type: ignore[assignment]
        self.vocabulary = Vocabulary(spec for judge in judges for spec in judge.vocabulary.values())
        self.report = {name: report for judge in judges for name, report in judge.report.items()}

    def __repr__(self) -> str:
        return f"<{' and '.join(map(repr, self.judges))}>"

    def features(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        """Return the features of all judges, side by side."""
        return torch.cat([judge.features(images) for judge in self.judges], 1)

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> dict[str, Prediction]:
        """Predict every attribute of pictures in [-1, 1], (batch, channels, height, width)."""
        predictions: dict[str, Prediction] = {}
        for judge in self.judges:
            predictions |= judge(images)
        return predictions


def who_judges(judge: ImageLabeller | None) -> str | None:
    """Return the name of a judge in results: "image judge" for networks, or that of its code; `None` if none."""
    if judge is None or isinstance(judge, Judge | JointJudge):
        return None if judge is None else "image judge"
    code: Any = judge if hasattr(judge, "__qualname__") else type(judge)
    module = "" if code.__module__ == "__main__" else f"{code.__module__}:"
    return f"judge {module}{code.__qualname__.rpartition('<locals>.')[2]}"


def load_judge(folder: Path) -> Judge | JointJudge | None:
    """Read the judges of a folder as one; `None` if there is none.

    Raises:
        ModelError: a file is missing or damaged, or two judges read the same attribute.
    """
    judges: dict[str, Judge] = {}
    for name in judge_names(folder):
        judge = Judge.load(folder, name)
        for other, known in judges.items():
            if twice := [attribute for attribute in judge.vocabulary if attribute in known.vocabulary]:
                raise ModelError(
                    f"{folder / name}.json: {other}.json reads {twice[0]!r} as well", hint="train the judge again"
                )
        judges[name] = judge
    return JointJudge(list(judges.values())).eval() if len(judges) > 1 else next(iter(judges.values()), None)


def stored_judge(folder: Path, vocabulary: Vocabulary) -> Judge | JointJudge | None:
    """Read the judges of a model folder as one; `None` if there is none.

    Raises:
        ModelError: as for `load_judge`, or they do not read attributes of the vocabulary as it describes them.
    """
    judge = load_judge(folder)
    for spec in () if judge is None else judge.vocabulary.values():
        own = vocabulary.get(spec.name)
        if own is None or (own.kind, own.values) != (spec.kind, spec.values):
            raise ModelError(
                f"{folder}: the judge reads {spec.name!r}, which the heads do not, or otherwise", hint="train it again"
            )
    return judge


def replace_judge(folder: Path, names: Iterable[str], judge: Judge | None) -> None:
    """Make `judge` the judge of the attributes `names` in a folder; with `None` they have no judge.

    The judges of the folder keep their other attributes. A judge that keeps none is removed.
    """
    taken = set(names)
    for name in judge_names(folder):
        old = Judge.load(folder, name)
        left = [attribute for attribute in old.vocabulary if attribute not in taken]
        if not left:
            for suffix in (".json", ".safetensors"):  # a judge without its description is not one
                (folder / f"{name}{suffix}").unlink(missing_ok=True)
        elif len(left) < len(old.vocabulary):
            old.only(left).save(folder, name)
    if judge is not None:
        known = judge_names(folder)
        judge.save(folder, next(name for name in map(judge_name, itertools.count(1)) if name not in known))
