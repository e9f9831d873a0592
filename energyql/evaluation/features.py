"""Features of pictures: the outputs of a network in which distances between pictures are measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from energyql.attributes.judge import Judge
from energyql.attributes.labels import ImageLabeller
from energyql.errors import ModelError
from energyql.plugins import import_optional

INCEPTION_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
"""Name of torch-fidelity's file of Inception's weights."""


@dataclass(frozen=True)
class Features:
    """A feature network with a unique name: pictures in [-1, 1], (batch, 3, height, width), to (batch, dim)."""

    name: str
    function: Callable[[Tensor], Tensor]

    @torch.inference_mode()
    def read(self, images: Tensor) -> Tensor:
        """Return the features of pictures, (batch, dim) float32 on the CPU."""
        return self.function(images).flatten(1).float().cpu()


def judge_features(judge: ImageLabeller | None) -> Features | None:
    """Return the features of a judge; `None` for a judge without features, such as a function.

    Those of a `Judge` are averaged over the positions of its last level, one a channel, as those of Inception are for
    its distance. Any other object can have a method `features`.
    """
    if isinstance(judge, Judge):
        channels = judge.channels[-1]
        return Features("judge", lambda images: judge.features(images).unflatten(1, (channels, -1)).mean(2))
    found = getattr(judge, "features", None)
    return Features("judge", found) if callable(found) else None


def inception_features(weights: Path | None = None) -> Features:
    """Return the 2,048 features of Inception of the usual Fréchet inception distance, by torch-fidelity.

    Args:
        weights: torch-fidelity's file of weights; by default the one in its own folder. Nothing is downloaded.

    Raises:
        ArgumentError: torch-fidelity is not installed.
        ModelError: the weights are missing, or hold more than tensors.
    """
    module = import_optional(
        "torch_fidelity.feature_extractor_inceptionv3", "Inception's features need torch-fidelity",
        'pip install "torch-fidelity>=0.3"',
    )  # fmt: skip
    path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_WEIGHTS if weights is None else weights
    try:
        # torch-fidelity unpickles any object, so it is given only files that hold nothing but tensors.
        torch.load(path, weights_only=True, map_location="meta")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        network = module.FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=str(path))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing", hint=f"download it: {module.URL_INCEPTION_V3}") from None
    except Exception as error:  # torch names no errors of its own for damaged files
        raise ModelError(
            f"{path} does not hold the weights of Inception: {error}", hint="download the file again"
        ) from error

    def function(images: Tensor) -> Tensor:
        network.to(images.device)
        pixels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        found: Tensor = network(pixels.expand(-1, 3, -1, -1))[0]
        return found

    return Features(f"inception {digest[:12]}", function)
