"""The image judge: a network from pictures to attributes, which judges samples and never guides a sampler."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from energyql.attributes.predictions import Prediction, output_count, split_outputs
from energyql.errors import ModelError, VocabularyError
from energyql.files import read_json, write_json, write_tensors
from energyql.numerics.shapes import Float
from energyql.vocabulary import Vocabulary

AT_ONCE = 16
"""Pictures that are read together on a CPU where no gradient is wanted: they stay near its caches."""


class Judge(nn.Module):
    """A convolutional network from pictures to predictions of every attribute.

    Args:
        vocabulary: the attributes.
        side: side that pictures are resized to, in pixels.
        channels: width of each level. A level is two 3x3 convolutions and halves the resolution.
    """

    std: Tensor

    def __init__(self, vocabulary: Vocabulary, *, side: int = 64, channels: Sequence[int] = (24, 48, 96, 128)) -> None:
        super().__init__()
        self.vocabulary = vocabulary
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

    def features(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        """Return the input of the last layer, of pictures in [-1, 1]."""
        x = F.interpolate(images, size=(self.side, self.side), mode="area")
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return self._run(x)
        parts = (part.contiguous(memory_format=torch.channels_last) for part in x.split(AT_ONCE))
        return torch.cat([self._run(part) for part in parts])

    def _run(self, x: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch features"]:
        for level in self.levels:
            x = level(x)
        return x.flatten(1)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Prediction]:
        """Predict every attribute of pictures in [-1, 1], (batch, 3, height, width)."""
        std = dict(zip(self.vocabulary, self.std, strict=True))
        return split_outputs(self.head(self.features(images)), self.vocabulary.values(), std)

    def save(self, folder: Path) -> None:
        """Write `judge.safetensors` (half precision) and `judge.json`, each whole or not at all."""
        tensors = {name: value.half() for name, value in self.state_dict().items() if value.is_floating_point()}
        write_tensors(folder / "judge.safetensors", tensors)
        write_json(
            folder / "judge.json",
            {"side": self.side, "channels": list(self.channels), "vocabulary": self.vocabulary.to_dict()},
        )

    @classmethod
    def load(cls, folder: Path) -> Judge:
        """Read a judge that `save` wrote, in evaluation mode.

        Raises:
            ModelError: a file is missing, damaged or does not fit the other.
        """
        described, path = folder / "judge.json", folder / "judge.safetensors"
        description = read_json(described)
        try:
            vocabulary = Vocabulary.from_dict(description["vocabulary"])
            side, channels = description["side"], description["channels"]
            if not channels or not all(type(size) is int and 0 < size <= 1 << 16 for size in (side, *channels)):
                raise ValueError(f"side {side!r} and channels {channels!r} are no sizes of a network")
            with torch.device("meta"):  # so that wrong sizes take no memory
                judge = cls(vocabulary, side=side, channels=channels)
        except KeyError as error:
            raise ModelError(f"{described}: {error} is missing") from None
        except (TypeError, ValueError, RuntimeError, VocabularyError) as error:
            raise ModelError(f"{described}: {error}") from error
        try:
            tensors = {name: value.float() for name, value in load_file(path).items()}
            counters = {
                name: torch.zeros(value.shape, dtype=value.dtype)
                for name, value in judge.state_dict().items()
                if not value.is_floating_point()
            }
            judge.load_state_dict(tensors | counters, assign=True)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise ModelError(f"{path}: {error}") from error
        return judge.eval().requires_grad_(False)
