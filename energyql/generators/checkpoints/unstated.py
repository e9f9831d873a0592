"""Settings that no tensor holds: the caller gives them, or usual values are assumed if the weights agree with them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from energyql.errors import CheckpointWarning, caller_level
from energyql.generators.checkpoints.reading import CheckpointError, shown
from energyql.generators.mapping import StyleGAN
from energyql.numerics.shapes import Float

DEFAULT_LR_MULTIPLIER = 0.01
"""Usual learning-rate multiplier of mapping networks."""
DEFAULT_CLAMP = 256.0
"""Usual limit of activations."""
MEAN_SAMPLES = 4096
"""Number of latents of which `mean_w` is the mean."""
_CHUNK = 128
"""Latents that are mapped together."""
_PICTURES = 4
"""Pictures that are drawn to see whether activations reach the limit."""
_LIKELY_SIZE = 0.6, 3.0
"""Limits of the root mean square of stored mapping weights, times the multiplier: 1 before training, which adds to it.
"""
_LIKELY_MEAN = 4.0
"""Largest ratio of the mean of w to the stored mean, and of the stored mean to it.

A wrong multiplier changes w by its error to the power of the number of layers.
"""
_LIKELY_W = 50.0
"""Largest root mean square of w; the smallest is its inverse."""

Network = TypeVar("Network", bound=StyleGAN)


@dataclass(frozen=True)
class GivenSettings:
    """Settings from the caller, because the file may not hold them.

    Attributes:
        lr_multiplier: learning-rate multiplier of the mapping network; `None` if the caller gives none.
        conv_clamp: limit of activations, infinity for no limit; `None` if the caller gives none.
    """

    lr_multiplier: float | None = None
    conv_clamp: float | None = None

    def check(self, lr_multiplier: float | None, conv_clamp: float | None) -> None:
        """Check that the settings in a file are those of the caller.

        Args:
            lr_multiplier: setting in the file.
            conv_clamp: setting in the file; `None` for no limit.

        Raises:
            CheckpointError: one differs.
        """
        for name, ours, theirs in (
            ("lr_multiplier", self.lr_multiplier, lr_multiplier),
            ("conv_clamp", self.conv_clamp, math.inf if conv_clamp is None else conv_clamp),
        ):
            if ours is not None and ours != theirs:
                raise CheckpointError(f"its {name} is {shown(theirs)}, not {ours:g}", hint="leave the setting out")


def completed(
    settings: GivenSettings, build: Callable[[float, float | None], Network], *, clamped: bool, has_mean: bool
) -> Network:
    """Return a network whose settings are not in its file.

    Its multiplier is that of the caller, else the usual one if the sizes of the weights and of w agree with that. Its
    limit of activations is that of the caller, else the usual one if no activation of some pictures reaches it.

    Args:
        settings: settings of the caller.
        build: function from the multiplier and the limit, `None` for no limit, to the network.
        clamped: whether networks of this kind may have a limit.
        has_mean: whether the file holds the mean of w.

    Raises:
        CheckpointError: a setting cannot be assumed, so the caller must give it.

    Warns:
        CheckpointWarning: a setting is assumed.
    """
    multiplier = DEFAULT_LR_MULTIPLIER if settings.lr_multiplier is None else settings.lr_multiplier
    limit = (DEFAULT_CLAMP if clamped else math.inf) if settings.conv_clamp is None else settings.conv_clamp
    if limit != math.inf and not clamped:
        raise CheckpointError("networks of this kind do not clamp activations", hint="leave out conv_clamp")
    network = build(multiplier, None if limit == math.inf else limit)
    if settings.lr_multiplier is None:
        _check_multiplier(network, has_mean)
    if clamped and settings.conv_clamp is None:
        pictures, free = (_pictures(variant) for variant in (network, build(multiplier, None)))
        if not torch.equal(pictures, free):
            raise CheckpointError(
                f"its activations exceed {DEFAULT_CLAMP:g}, and the file does not say whether they are clamped",
                hint=f"it is {DEFAULT_CLAMP:g} after a training with mixed precision, as is usual for StyleGAN2-ADA "
                f"and StyleGAN3, or inf for no limit. {_how_to_give('conv_clamp', '--conv-clamp')}",
            )
    assumed = [f"a learning-rate multiplier of {multiplier:g}"] if settings.lr_multiplier is None else []
    if settings.conv_clamp is None:
        assumed.append(f"a limit of {DEFAULT_CLAMP:g} of activations")
    if clamped and assumed:  # programs whose networks are never clamped offer no such settings
        text = " and ".join(assumed)
        warn_assumed(
            f"a state dict holds no settings: assumed are leaky ReLU, and {text}, with which its weights agree"
        )
    return network


def warn_assumed(assumed: str) -> None:
    """Warn with a `CheckpointWarning` that pictures depend on an assumption, which the text `assumed` states."""
    warnings.warn(CheckpointWarning(assumed), stacklevel=caller_level())


@torch.no_grad()
def mean_w(generator: StyleGAN, seed: int = 0) -> Float[Tensor, " w_dim"]:
    """Return the mean of w over `MEAN_SAMPLES` random latents from `seed`, each class in turn being their label."""
    z = torch.randn(MEAN_SAMPLES, generator.z_dim, generator=torch.Generator().manual_seed(seed))
    total = torch.zeros(generator.config.w_dim)
    for first in range(0, MEAN_SAMPLES, _CHUNK):  # labels of many classes need much memory
        total += generator.encode(z[first : first + _CHUNK], label=_labels(generator, _CHUNK, first)).sum(0)
    return total / MEAN_SAMPLES


def _labels(generator: StyleGAN, count: int, first: int = 0) -> Tensor | None:
    """Return one-hot labels (count, c_dim), each class in turn from `first` on; `None` without classes."""
    classes = generator.config.c_dim
    if not classes:
        return None
    label = torch.zeros(count, classes)
    label[torch.arange(count), torch.arange(first, first + count) % classes] = 1.0
    return label


def _check_multiplier(network: StyleGAN, has_mean: bool) -> None:
    """Raise a CheckpointError if the size of the weights, of w or of its mean is unlikely for the multiplier."""
    multiplier, layers = network.config.mapping_lr_multiplier, network.mapping.layers
    weights = _size(torch.cat([layer.weight.flatten() for layer in layers]))
    mean, stored = _size(mean_w(network)), _size(network.mapping.w_avg.reshape(-1, network.config.w_dim).mean(0))
    scale = _size(network.encode(_latents(network, _CHUNK), label=_labels(network, _CHUNK)))
    if not _LIKELY_SIZE[0] < weights * multiplier < _LIKELY_SIZE[1]:
        reason = f"its weights have the size {weights:.3g}, and {1 / multiplier:g} is usual for {multiplier:g}"
        likely = 1 / weights
    elif has_mean and stored > 0 and not 1 / _LIKELY_MEAN < mean / stored < _LIKELY_MEAN:
        reason = f"with {multiplier:g} the mean of w has the size {mean:.3g}, and the stored one {stored:.3g}"
        likely = multiplier * (stored / mean) ** (1 / len(layers))
    elif not 1 / _LIKELY_W < scale < _LIKELY_W:
        reason = f"with {multiplier:g}, w has the size {scale:.3g}, and about 1 is usual"
        likely = multiplier * (1 / scale) ** (1 / len(layers))
    else:
        return
    raise CheckpointError(
        f"it does not hold the learning-rate multiplier of its mapping network: {reason}",
        hint="it is the lr_mlp or mapping_lr of its training, probably about "
        f"{likely:.2g}. {_how_to_give('lr_multiplier', '--lr-mlp')}",
    )


def _how_to_give(argument: str, option: str) -> str:
    """Return a hint how to give a setting, on the command line and in Python."""
    return (
        f"Convert the file with energyql convert {option}, and use the folder in its place; "
        f"in Python, give {argument} to load_generator"
    )


def _latents(network: StyleGAN, count: int) -> Tensor:
    return torch.randn(count, network.z_dim, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _pictures(network: Any) -> Tensor:
    pictures: Tensor = network.synthesis(
        network.encode(_latents(network, _PICTURES), label=_labels(network, _PICTURES))
    )
    return pictures


def _size(numbers: Tensor) -> float:
    """Return the root mean square of numbers."""
    return float(numbers.double().square().mean().sqrt())
