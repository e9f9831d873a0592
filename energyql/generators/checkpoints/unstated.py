"""Two settings of StyleGANs that no tensor contains: learning-rate multiplier, and limit of activations.

If a file does not state them, the caller gives them, or usual values are assumed if the weights do not contradict them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.errors import CheckpointWarning, EnergyQLError, caller_level, either
from energyql.generators.checkpoints.reading import CheckpointError, shown
from energyql.generators.mapping import StyleGAN
from energyql.numerics.shapes import Float

DEFAULT_LR_MULTIPLIER = 0.01
"""Usual learning-rate multiplier of mapping networks."""
DEFAULT_CLAMP = 256.0
"""Usual limit of the absolute values of activations."""
MEAN_SAMPLES = 4096
"""Number of random z over which `mean_w` averages."""
_CHUNK = 128
"""Number of latents that are mapped to w in one batch."""
_PICTURES = 4
"""Number of pictures that are drawn to find out whether activations exceed the usual limit."""
_LIKELY_SIZE = 0.6, 3.0
"""Likely range of the learning-rate multiplier times the root mean square of the stored weights: 1 before training."""
_LIKELY_MEAN = 4.0
"""Largest likely ratio, or inverse ratio, of the root mean squares of the computed and the stored mean of w."""
_LIKELY_W = 50.0
"""Largest likely root mean square of w; the smallest is 1/50."""

Network = TypeVar("Network", bound=StyleGAN)


@dataclass(frozen=True)
class GivenSettings:
    """Settings from the caller of `load_generator`, which the file may lack; `None` where the caller gives none.

    Attributes:
        lr_multiplier: learning-rate multiplier of the mapping network.
        conv_clamp: limit of the absolute values of activations, infinity for no limit.
    """

    lr_multiplier: float | None = None
    conv_clamp: float | None = None

    def check(self, lr_multiplier: float | None, conv_clamp: float | None) -> None:
        """Raise a `CheckpointError` if a setting differs from that in the file, in which `None` is no limit."""
        stated = {"lr_multiplier": lr_multiplier, "conv_clamp": math.inf if conv_clamp is None else conv_clamp}
        for name, value in stated.items():
            if getattr(self, name) not in (None, value):
                raise CheckpointError(f"its {name} is {shown(value)}, not {getattr(self, name):g}")

    def refuse(self, kind: str, error: type[EnergyQLError] = CheckpointError) -> None:
        """Raise an error if a setting is given for a generator that takes none; `kind` is its name with its article."""
        if self != GivenSettings():
            raise error(f"{kind} takes no lr_multiplier and no conv_clamp", hint="leave the setting out")


def completed(
    settings: GivenSettings, build: Callable[[float, float | None], Network], *, clamped: bool, has_mean: bool
) -> Network:
    """Return the network in a file that states neither its learning-rate multiplier nor its limit of activations.

    Settings of the caller come first. A missing multiplier is 0.01, if the sizes of the weights and of w are likely for
    it. A missing limit is 256, if this limit does not change a few test pictures, or none with `clamped=False`. If the
    weights contradict such a value, a `CheckpointError` asks the caller for it.

    Args:
        build: function from the multiplier and the limit (`None` for no limit) to the network.
        clamped: whether the program that saved the file may limit activations; if not, no limit can be given.
        has_mean: whether the file holds the mean of w.
    """
    multiplier, assumed = settings.lr_multiplier or DEFAULT_LR_MULTIPLIER, []
    limit = settings.conv_clamp or (DEFAULT_CLAMP if clamped else math.inf)
    if limit != math.inf and not clamped:
        raise CheckpointError("networks of this kind do not clamp activations", hint="leave out conv_clamp")
    network = build(multiplier, None if limit == math.inf else limit)
    if settings.lr_multiplier is None:
        _check_multiplier(network, has_mean)
        assumed.append(f"a learning-rate multiplier of {multiplier:g}")
    if settings.conv_clamp is None:
        if clamped and not torch.equal(_pictures(network), _pictures(build(multiplier, None))):
            problem = f"its activations exceed {DEFAULT_CLAMP:g}, and the file does not say whether they are clamped"
            values = f"it is {DEFAULT_CLAMP:g} after a training with mixed precision, as is usual, or inf for no limit"
            raise CheckpointError(problem, hint=f"{values}. {_give('conv_clamp', 'conv-clamp')}")
        assumed.append(f"a limit of {DEFAULT_CLAMP:g} of activations")
    if clamped and assumed:  # programs whose networks are never clamped offer no such settings
        text = f"leaky ReLU, and {' and '.join(assumed)}"
        warn_assumed(f"a state dict holds no settings: assumed are {text}, with which its weights agree")
    return network


def warn_assumed(assumed: str) -> None:
    """Warn with a `CheckpointWarning` that says what was assumed about a file."""
    warnings.warn(CheckpointWarning(assumed), stacklevel=caller_level())


@torch.no_grad()
def mean_w(generator: StyleGAN, seed: int = 0) -> Float[Tensor, " w_dim"]:
    """Mean of w over `MEAN_SAMPLES` random z; the classes, if there are any, take turns."""
    z = torch.randn(MEAN_SAMPLES, generator.z_dim, generator=torch.Generator().manual_seed(seed))
    total = torch.zeros(generator.config.w_dim)
    for first in range(0, MEAN_SAMPLES, _CHUNK):  # conditions of many classes need much memory
        total += generator.encode(z[first : first + _CHUNK], condition=_conditions(generator, _CHUNK, first)).sum(0)
    return total / MEAN_SAMPLES


def _conditions(generator: StyleGAN, count: int, first: int = 0) -> Tensor | None:
    """One-hot conditions (count, c_dim) of the classes from `first` on, again from 0 after the last; `None` without."""
    classes = generator.config.c_dim
    return F.one_hot(torch.arange(first, first + count) % classes, classes).float() if classes else None


def _check_multiplier(network: StyleGAN, has_mean: bool) -> None:
    """Raise a `CheckpointError` if the sizes of the weights, of w or of its mean make the multiplier improbable."""
    multiplier, layers = network.config.mapping_lr_multiplier, network.mapping.layers
    weights = _size(torch.cat([layer.weight.flatten() for layer in layers]))
    mean, stored = _size(mean_w(network)), _size(network.mapping.w_avg.reshape(-1, network.config.w_dim).mean(0))
    scale = _size(_some_w(network, _CHUNK))
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
    problem = f"it does not hold the learning-rate multiplier of its mapping network: {reason}"
    value = f"it is the lr_mlp or mapping_lr of its training, probably about {likely:.2g}"
    raise CheckpointError(problem, hint=f"{value}. {_give('lr_multiplier', 'lr-mlp')}")


def _give(argument: str, option: str) -> str:
    """Hint for an error message: how to give a setting in Python and on the command line."""
    return either(f"Give {argument} to load_generator", f"Use energyql convert --{option} and the new folder")


def _some_w(network: StyleGAN, count: int) -> Tensor:
    """Map `count` random z to w, (count, w_dim); the same at every call."""
    z = torch.randn(count, network.z_dim, generator=torch.Generator().manual_seed(0))
    return network.encode(z, condition=_conditions(network, count))


@torch.no_grad()
def _pictures(network: Any) -> Tensor:
    return cast(Tensor, network.synthesis(_some_w(network, _PICTURES)))


def _size(numbers: Tensor) -> float:
    """Root mean square of all numbers in a tensor."""
    return float(numbers.double().square().mean().sqrt())
