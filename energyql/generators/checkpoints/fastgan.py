"""Reader of PyTorch checkpoints of FastGAN and of projected GAN, whose generator is a FastGAN too.

FastGAN saves state dicts; projected GAN saves pickles, and state dicts are read as well. The settings follow from names
and shapes of the tensors. Spectral normalisation and batch normalisation are constant after training, so the weights
are multiplied by their factors.
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
from energyql.generators.checkpoints.unpickle import Budget
from energyql.generators.fastgan import EXCITED, MOST_SIDE, FastGAN, FastGANConfig

_MARKER = "init.init.0.weight_orig"
"""Name of a tensor that every FastGAN has and no other generator; a prefix may stand before it in the file."""
_NO_PARAMETER = re.compile(r"(weight_[uv]|running_(mean|var)|num_batches_tracked|stored_(mean|var))$")
"""Matches the end of the name of a tensor that is a buffer, not a parameter."""
_EPSILON = 1e-5
"""Number that is added to variances in batch normalisation."""
_PLAIN = {1: (("1", "", "2"),), 2: (("1", "2", "3"), ("5", "6", "7"))}
"""Number of convolutions of a stage (the layers of one side of feature maps) -> for each convolution three names: of
the convolution, of its noise ("" without noise), and of its normalisation. The names are those in the files of
generators without classes."""
_CLASSES = {1: (("conv", "", "bn"),), 2: (("conv1", "noise", "bn1"), ("conv2", "noise", "bn2"))}
"""The same table as `_PLAIN`, with the names in the files of generators with classes."""


def read_fastgan(checkpoint: Checkpoint) -> FastGAN | None:
    """Return the generator in a checkpoint of FastGAN or projected GAN; `None` if the file holds no FastGAN.

    If the file holds weights averaged over the training, they are used. The official programs draw new noise for every
    picture and save no noise, so the noise that the result stores is drawn from seed 0.

    Raises:
        CheckpointError: tensors are missing, too many, or do not fit together. Or the caller gives a learning-rate
            multiplier or a limit of activations, which a FastGAN has not.
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
        tensors, attributes = _averaged(state, Budget(checkpoint.size)), {}
    checkpoint.given.refuse("a FastGAN")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    check_weights(tensors)
    return _build(_Parts({name: tensor.double() for name, tensor in tensors.items()}), attributes)


def _averaged(state: StateDict, budget: Budget) -> dict[str, Tensor]:
    """Return the tensors of a state dict by name, with averages over the training in place of the parameters.

    The averages are a list, the entry `g_ema` of a dict around the state dict, in the order of the parameters. If there
    is no such list, the parameters of the state dict are returned.

    Args:
        state: the state dict.
        budget: counts of work and memory, to which the bytes of the tensors are added.

    Raises:
        CheckpointError: the list does not fit the state dict, or the tensors are larger than the file.
    """
    tensors, average = state.tensors(budget), state.beside("g_ema")
    if not isinstance(average, list | tuple):
        return tensors
    names = [name for name in tensors if not _NO_PARAMETER.search(name)]
    if len(average) != len(names):
        entries = f"its g_ema is a list of {len(average)} entries, and its generator has {len(names)} parameters"
        raise CheckpointError(entries, hint="save the state dict of the averaged generator alone")
    for name, part in zip(names, average, strict=True):
        if part.size != tensors[name].shape:
            raise CheckpointError(f"its g_ema has the shape {part.size} for {shown(name, 120)}")
        tensors[name] = part.tensor(budget)
    return tensors


@dataclass
class _Parts:
    """The tensors of a file that are not used yet. The methods remove the tensors that they use."""

    tensors: dict[str, Tensor]

    def take(self, name: str) -> Tensor:
        """Remove the tensor called `name`, and return it.

        Raises:
            CheckpointError: there is no such tensor.
        """
        if name not in self.tensors:
            raise CheckpointError(f"it has no tensor {name}, which a FastGAN has")
        return self.tensors.pop(name)

    def weight(self, name: str, axis: int = 0) -> Tensor:
        """Remove a weight and its two singular vectors, and return the weight after spectral normalisation.

        In spectral normalisation, the weight as a matrix is divided by its largest singular value.

        Args:
            name: name of the layer of the weight.
            axis: axis of the weight that gives the rows of the matrix; all other axes give the columns.

        Raises:
            CheckpointError: a tensor is missing, or the vectors do not fit the weight.
        """
        weight, left, right = (self.take(f"{name}.weight_{part}") for part in ("orig", "u", "v"))
        matrix = weight.transpose(0, axis).flatten(1)
        if matrix.shape != (len(left), len(right)):
            raise CheckpointError(f"{name} has vectors of other lengths than its weight of shape {tuple(weight.shape)}")
        return weight / (left @ matrix @ right)

    def norm(self, name: str) -> tuple[Tensor, Tensor]:
        """Remove the tensors of the batch normalisation called `name`, and return its factors and shifts of channels.

        Factors and shifts that depend on the class are neither removed nor returned.

        Raises:
            CheckpointError: a tensor is missing.
        """
        if f"{name}.stored_mean" in self.tensors:
            factor = (self.take(f"{name}.stored_var") + _EPSILON).rsqrt()
            return factor, -factor * self.take(f"{name}.stored_mean")
        factor = self.take(f"{name}.weight") * (self.take(f"{name}.running_var") + _EPSILON).rsqrt()
        return factor, self.take(f"{name}.bias") - factor * self.take(f"{name}.running_mean")

    def drop(self, *starts: str) -> None:
        """Remove the tensors whose names begin with one of `starts`."""
        self.tensors = {name: tensor for name, tensor in self.tensors.items() if not name.startswith(starts)}


def _build(parts: _Parts, attributes: dict[str, Any]) -> FastGAN:
    """Return the FastGAN with the tensors of a file.

    Args:
        parts: all tensors of the generator. They are removed one after another; a tensor that is left is an error.
        attributes: attributes of a pickled network, which may have `img_resolution`, the side of the pictures, and
            `c_dim`, the number of classes. Empty for a state dict.

    Raises:
        CheckpointError: tensors are missing, too many, or do not fit together.
    """
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
    """Remove the tensors of one convolution from `parts`, and return them under the names in this library.

    The names are those of `energyql.generators.fastgan.Convolution`, such as "weight".

    Args:
        parts: the tensors of the file that are not used yet.
        prefix: beginning of the names of all tensors of the stage (the layers of one side of feature maps), such as
            "feat_8.".
        conv: name of the convolution, which follows the prefix.
        noise: name of the noise, which follows the prefix, "" without noise. If it is "noise", both convolutions of the
            stage have the same strength of noise.
        norm: name of the batch normalisation, which follows the prefix.
        last: whether this is the last convolution of the stage. Only then, a strength of noise that both convolutions
            have in common is removed from `parts`.

    Raises:
        CheckpointError: a tensor is missing, or tensors do not fit together.
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
    """Return the side of the pictures in pixels.

    A stage is the layers of one side of feature maps. If the largest stage in the file has a side above 256, this is
    the side of the pictures. Otherwise the largest stage may be larger than the pictures, because the official code
    saves all stages up to side 256 even for smaller pictures. The side of the pictures is then the side of a stage with
    `channels` output channels.

    Args:
        parts: the tensors of the file that are not used yet.
        channels: input channels of `to_big`, the layer that draws the picture. They are the output channels of the
            stage whose side is that of the pictures.
        stated: the side that the file states, `None` if it states no side.

    Raises:
        CheckpointError: the tensors allow several sides or none, and the file does not state one of them.
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
