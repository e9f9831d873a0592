"""How far the pictures of latents are from given ones, and the way back to the latents."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from energyql.editing.terms import Embed, flat_features
from energyql.errors import ArgumentError
from energyql.generators.base import Generator

DRAWN_TOGETHER = 8
"""Pictures that are drawn and differentiated together unless a call says otherwise."""


class Likeness:
    """Mean absolute pixel error (a fraction of the range) plus a weighted distance of features.

    Features are compared by their mean square difference, in units of their spread over pictures of the model, so that
    any embedding module can be used with the same weight.

    Args:
        generator: draws.
        targets: the given pictures, in [-1, 1], (n, channels, height, width).
        embed: pictures to features; `None` compares pixels only.
        examples: pictures of the model, (m, channels, height, width), m at least 2.
        pixels, features: weights.
        together: pictures drawn together.
    """

    def __init__(
        self,
        generator: Generator,
        targets: Tensor,
        embed: Embed | None,
        examples: Tensor,
        *,
        pixels: float,
        features: float,
        together: int | None = None,
    ) -> None:
        self.generator, self.targets, self.embed = generator, targets, embed
        self.weights = (pixels, features)
        self.together = together or DRAWN_TOGETHER
        self.examples = examples
        if embed is not None:
            if isinstance(embed, torch.nn.Module):
                embed.eval().to(targets.device)
            self.features = self._embed(targets)
            of_examples = self.of_examples = self._embed(examples)
            if self.features.shape[1] != of_examples.shape[1]:
                raise ArgumentError("the perceptual module gives features of different sizes for pictures of one size")
            self.spread = of_examples.var(0).mean().clamp_min(1e-12)

    def _embed(self, images: Tensor) -> Tensor:
        assert self.embed is not None
        with torch.no_grad():
            return torch.cat([flat_features(self.embed, part) for part in images.split(self.together)])

    def to_examples(self) -> Tensor:
        """Distances of all examples from all targets, (n, m)."""
        pixels = torch.stack([pixel_error(self.examples, target) for target in self.targets])
        distance = self.weights[0] * pixels
        if self.embed is None:
            return distance
        away = torch.cdist(self.features, self.of_examples).square() / self.features.shape[1]
        return distance + self.weights[1] * away / self.spread

    def of_images(self, images: Tensor, rows: Tensor) -> Tensor:
        """Distances (batch,) of pictures from the targets `rows` (batch,)."""
        distance = self.weights[0] * pixel_error(images, self.targets[rows])
        if self.embed is not None and self.weights[1]:
            away = flat_features(self.embed, images) - self.features[rows]
            distance = distance + self.weights[1] * away.square().mean(1) / self.spread
        return distance

    def with_gradient(self, w_of: Callable[[Tensor, Tensor], Tensor], x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Distances (batch,) and their gradients with respect to x, a few pictures at a time.

        Args:
            w_of: from some rows of x, and which targets they belong to, to w.
            x: (batch, ...).
            rows: the targets, (batch,).
        """
        values, gradients = [], []
        for part, some in zip(x.split(self.together), rows.split(self.together), strict=True):
            with torch.enable_grad():
                variable = part.detach().clone().requires_grad_()
                value = self.of_images(self.generator.synthesize(w_of(variable, some)), some)
                (gradient,) = torch.autograd.grad(value.sum(), variable)
            values.append(value.detach())
            gradients.append(gradient)
        return torch.cat(values), torch.cat(gradients)


def pixel_error(images: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error of pictures in [-1, 1], as a fraction of that range, (batch,)."""
    return (images - targets).abs().flatten(1).mean(1) / 2
