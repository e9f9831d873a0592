"""Reader of PyTorch checkpoints of FastGAN and of projected GAN, whose generator is a FastGAN too.

FastGAN saves state dicts; projected GAN saves pickles, and state dicts are read as well. The settings follow from names
and shapes. Spectral and batch normalisation are constant after training, so the weights are multiplied by their
factors.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from energyql.generators.checkpoints.network_pickle import Checkpoint
from energyql.generators.checkpoints.reading import CheckpointError, build_network, check_weights, shown
from energyql.generators.checkpoints.state_dicts import StateDict, find_state_dict
from energyql.generators.checkpoints.unpickle import Quota
from energyql.generators.fastgan import EXCITED, MOST_SIDE, FastGAN, FastGANConfig

_MARKER = "init.init.0.weight_orig"
"""Name of a tensor that every FastGAN has and no other generator, perhaps after a prefix."""
_NO_PARAMETER = re.compile(r"(weight_[uv]|running_(mean|var)|num_batches_tracked|stored_(mean|var))$")
"""Matches the end of the name of a tensor that is a buffer, not a parameter."""
_EPSILON = 1e-5
"""Added to variances in batch normalisation."""
_PLAIN = {1: (("1", "", "2"),), 2: (("1", "2", "3"), ("5", "6", "7"))}
"""Number of convolutions of a stage (the layers of one side of feature maps) -> for each the names of the convolution,
its noise ("" for none) and its normalisation, in files of generators without classes."""
_CLASSES = {1: (("conv", "", "bn"),), 2: (("conv1", "noise", "bn1"), ("conv2", "noise", "bn2"))}
"""The same table as `_PLAIN`, for files of generators with classes."""


def read_fastgan(checkpoint: Checkpoint) -> FastGAN | None:
    """Return the generator in a checkpoint of FastGAN or projected GAN; `None` if the file holds no FastGAN.

    Weights averaged over the training are used if the file holds some. The official programs draw new noise for every
    picture and save none, so the stored noise is drawn from seed 0.
    """
    record = checkpoint.network
    if record is not None:
        tensors, attributes = dict(record.tensors), record.attributes
        if f"synthesis.{_MARKER}" not in tensors:
            return None
        tensors = {name.removeprefix("synthesis."): tensor for name, tensor in tensors.items()}
    else:
        state = find_state_dict(checkpoint.content, _MARKER)
        if state is None:
            return None
        tensors, attributes = _averaged(state, Quota(checkpoint.size)), {}
    checkpoint.given.refuse("a FastGAN")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    check_weights(tensors)
    return _build(_Parts({name: tensor.double() for name, tensor in tensors.items()}), attributes)


def _averaged(state: StateDict, quota: Quota) -> dict[str, Tensor]:
    """Tensors of a state dict; averages over the training, the list `g_ema` beside it, take the place of parameters."""
    tensors, average = state.tensors(quota), state.beside("g_ema")
    if not isinstance(average, list | tuple):
        return tensors
    names = [name for name in tensors if not _NO_PARAMETER.search(name)]
    if len(average) != len(names):
        entries = f"its g_ema is a list of {len(average)} entries, and its generator has {len(names)} parameters"
        raise CheckpointError(entries, hint="save the state dict of the averaged generator alone")
    for name, part in zip(names, average, strict=True):
        if part.size != tensors[name].shape:
            raise CheckpointError(f"its g_ema has the shape {part.size} for {shown(name, 120)}")
        tensors[name] = part.tensor(quota)
    return tensors


@dataclass
class _Parts:
    """The tensors of a file that are not used yet. The methods remove the tensors that they use."""

    tensors: dict[str, Tensor]

    def take(self, name: str) -> Tensor:
        """Remove the tensor called `name`, and return it."""
        if name not in self.tensors:
            raise CheckpointError(f"it has no tensor {name}, which a FastGAN has")
        return self.tensors.pop(name)

    def weight(self, name: str, axis: int = 0) -> Tensor:
        """Weight with spectral normalisation: over the largest singular value of its matrix with rows along `axis`."""
        weight, left, right = (self.take(f"{name}.weight_{part}") for part in ("orig", "u", "v"))
        matrix = weight.transpose(0, axis).flatten(1)
        if matrix.shape != (len(left), len(right)):
            raise CheckpointError(f"{name} has vectors of other lengths than its weight of shape {tuple(weight.shape)}")
        return weight / (left @ matrix @ right)

    def norm(self, name: str) -> tuple[Tensor, Tensor]:
        """Factor and shift for each channel that do the same as a batch normalisation, apart from its part by class."""
        if f"{name}.stored_mean" in self.tensors:
            factor = (self.take(f"{name}.stored_var") + _EPSILON).rsqrt()
            return factor, -factor * self.take(f"{name}.stored_mean")
        factor = self.take(f"{name}.weight") * (self.take(f"{name}.running_var") + _EPSILON).rsqrt()
        return factor, self.take(f"{name}.bias") - factor * self.take(f"{name}.running_mean")

    def drop(self, *starts: str) -> None:
        """Remove the tensors whose names begin with one of `starts`."""
        self.tensors = {name: tensor for name, tensor in self.tensors.items() if not name.startswith(starts)}


def _build(parts: _Parts, attributes: dict[str, Any]) -> FastGAN:
    """Build the FastGAN of a file, all of whose tensors must be used; `attributes` are those of a pickled network."""
    projected = "to_big.bias" in parts.tensors
    if projected == ("to_128.weight_orig" in parts.tensors):
        raise CheckpointError("it is neither FastGAN, which has to_128 and no bias in to_big, nor projected GAN")
    start, (factor, shift) = parts.weight("init.init.0", 1), parts.norm("init.init.1")
    weights = {"start": (start * factor[:, None, None]).permute(1, 2, 3, 0), "start_bias": shift}
    weights["colours"] = parts.weight("to_big")
    weights["colours_bias"] = parts.take("to_big.bias") if projected else torch.zeros(len(weights["colours"]))
    side_of_picture = _side(parts, weights["colours"].shape[1], attributes.get("img_resolution"))
    classes = features = 0
    if "embed.weight" in parts.tensors:
        # The official code has a row for each of 1,000 classes, however few there are.
        weights["embed"] = parts.take("embed.weight")[: attributes.get("c_dim")].T
        features, classes = weights["embed"].shape
    random = torch.Generator().manual_seed(0)
    widths, layers = [len(shift) // 2], []
    for side in (8 << stage for stage in range(MOST_SIDE.bit_length() - 3)):
        if side > side_of_picture:
            parts.drop(f"feat_{side}.", f"se_{side}.")
            continue
        names = _CLASSES if features else _PLAIN
        count = 2 if f"feat_{side}.{names[2][1][0]}.weight_orig" in parts.tensors else 1
        for i, layer in enumerate(names[count]):
            convolution = _layer(parts, f"feat_{side}.", *layer, last=i == count - 1)
            if "noise_strength" in convolution:
                convolution["noise_const"] = torch.randn(side, side, generator=random)
            weights |= {f"b{side}.{i}.{name}": tensor for name, tensor in convolution.items()}
        widths.append(len(weights[f"b{side}.0.bias"]) // 2)
        layers.append(count)
        if side in EXCITED:
            weights[f"excite{side}.gather"] = parts.weight(f"se_{side}.main.1")
            weights[f"excite{side}.mix"] = parts.weight(f"se_{side}.main.3")
    parts.drop("to_128.")  # a small picture for the discriminator
    if parts.tensors:
        raise CheckpointError(f"it has a tensor {shown(min(parts.tensors), 120)} that a FastGAN has not")
    check_weights(weights)
    tanh, colours = not projected and side_of_picture == MOST_SIDE, len(weights["colours"])
    sizes = {"z_dim": len(start), "c_dim": classes, "embed_features": features, "image_channels": colours}
    config = FastGANConfig(widths=tuple(widths), layers=tuple(layers), normalize_z=projected, tanh=tanh, **sizes)
    return build_network(FastGAN, config, weights)


def _layer(parts: _Parts, prefix: str, conv: str, noise: str, norm: str, *, last: bool) -> dict[str, Tensor]:
    """Weights of one `Convolution` of our FastGAN by name, with both normalisations multiplied in.

    `conv`, `noise` and `norm` are names in the file, as in `_PLAIN`. The convolutions of a stage may share the noise
    strength "noise"; only the call for the `last` of them removes it from `parts`.
    """
    factor, shift = parts.norm(prefix + norm)
    tensors = {"weight": parts.weight(prefix + conv) * factor[:, None, None, None], "bias": shift}
    if noise:
        name = f"{prefix}{noise}.weight"
        strength = parts.take(name) if last or noise != "noise" else parts.tensors[name]
        tensors["noise_strength"] = strength * factor
    if f"{prefix}{norm}.gain.bias" in parts.tensors:
        ways = [f"{prefix}{norm}.{way}" for way in ("gain", "bias")]
        tensors["by_class"] = torch.cat([parts.weight(way) for way in ways])
        tensors["of_all"] = torch.cat([parts.take(f"{way}.bias") for way in ways])
    return tensors


def _side(parts: _Parts, channels: int, stated: Any) -> int:
    """Side of the pictures: that of the largest stage above 256, or of a stage with `channels` output channels.

    Files of small pictures may hold larger stages, because the official code saves all up to side 256. `channels` are
    the inputs of `to_big`, the layer that draws the picture; `stated` is the side that the file states, or `None`.
    """
    sides = (64, 128, 256, 512, 1024)
    names = [(side, f"feat_{side}.{layer}.weight_orig") for side in sides for layer in ("1", "conv", "conv1")]
    widths = {side: len(parts.tensors[name]) // 2 for side, name in names if name in parts.tensors}
    if stated in widths:
        return int(stated)
    fitting = [side for side, width in widths.items() if side == max(widths) > 256 or width == channels]
    if not fitting or (len(fitting) > 1 and max(fitting) <= 256):
        problem = f"the side of its pictures is not certain: to_big takes {channels} channels, and stages have {widths}"
        raise CheckpointError(problem, hint="give the pickle of the training, which states it")
    return max(fitting)


READERS = (read_fastgan,)
