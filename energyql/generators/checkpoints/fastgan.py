"""Reader of FastGAN's state dicts, and of pickles and state dicts of projected GAN's FastGAN (PyTorch).

Settings follow from names and shapes. Spectral and batch normalisation are constant after training, so they are
multiplied into the weights.
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
from energyql.generators.checkpoints.unpickle import Budget, TensorRecord
from energyql.generators.fastgan import EXCITED, MOST_SIDE, FastGAN, FastGANConfig

_MARKER = "init.init.0.weight_orig"
"""Name of a tensor that only the generators of FastGAN have."""
_NO_PARAMETER = re.compile(r"(weight_[uv]|running_(mean|var)|num_batches_tracked|stored_(mean|var))$")
"""End of the names of tensors that are buffers, not parameters."""
_EPSILON = 1e-5
"""Added to variances in batch normalisation."""
_PLAIN = {1: (("1", "", "2"),), 2: (("1", "2", "3"), ("5", "6", "7"))}
"""Number of convolutions of a stage -> for each convolution its name and those of its noise and its normalisation."""
_CLASSES = {1: (("conv", "", "bn"),), 2: (("conv1", "noise", "bn1"), ("conv2", "noise", "bn2"))}
"""The same for generators with classes."""


def read_fastgan(checkpoint: Checkpoint) -> FastGAN | None:
    """Return the averaged generator of an official file; `None` if the file holds no FastGAN.

    The official programs draw noise at every call and store none, so the stored noise of the result is drawn from
    seed 0.

    Raises:
        CheckpointError: tensors are missing, too many, or do not fit together.
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
    if checkpoint.given.lr_multiplier is not None or checkpoint.given.conv_clamp is not None:
        raise CheckpointError("a FastGAN has no lr_multiplier and no conv_clamp", hint="leave the setting out")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    check_weights(tensors)
    return _build(_Parts({name: tensor.double() for name, tensor in tensors.items()}), attributes)


def _averaged(state: StateDict, budget: Budget) -> dict[str, Tensor]:
    """Return the tensors of a state dict, with its parameters replaced by the averages in the list `g_ema`.

    The list stands beside the state dict in the file; without it nothing is replaced.

    Raises:
        CheckpointError: the list does not fit the state dict.
    """
    tensors, average = state.tensors(budget), state.beside("g_ema")
    if not isinstance(average, list | tuple):
        return tensors
    names = [name for name in tensors if not _NO_PARAMETER.search(name)]
    if len(average) != len(names) or not all(isinstance(part, TensorRecord) for part in average):
        raise CheckpointError(
            f"its g_ema is a list of {len(average)} entries, and its generator has {len(names)} parameters",
            hint="save the state dict of the averaged generator alone",
        )
    for name, part in zip(names, average, strict=True):
        budget.take(part.nbytes)
        if part.size != tensors[name].shape:
            raise CheckpointError(f"its g_ema has the shape {part.size} for {shown(name, 120)}")
        tensors[name] = part.tensor()
    return tensors


@dataclass
class _Parts:
    """The tensors of a file that are not used yet."""

    tensors: dict[str, Tensor]

    def take(self, name: str) -> Tensor:
        """Remove a tensor and return it; raise a CheckpointError if it is missing."""
        if name not in self.tensors:
            raise CheckpointError(f"it has no tensor {name}, which a FastGAN has")
        return self.tensors.pop(name)

    def weight(self, name: str, axis: int = 0) -> Tensor:
        """Return a weight divided by its largest singular value, whose two singular vectors are in the file.

        `axis` is the axis of the weight that is the rows of the matrix in spectral normalisation.
        """
        weight, left, right = (self.take(f"{name}.weight_{part}") for part in ("orig", "u", "v"))
        matrix = weight.transpose(0, axis).flatten(1)
        if matrix.shape != (len(left), len(right)):
            raise CheckpointError(f"{name} has vectors of other lengths than its weight of shape {tuple(weight.shape)}")
        return weight / (left @ matrix @ right)

    def norm(self, name: str) -> tuple[Tensor, Tensor]:
        """Return factor and shift of a batch normalisation, without the factor and shift that depend on the class."""
        if f"{name}.stored_mean" in self.tensors:
            factor = (self.take(f"{name}.stored_var") + _EPSILON).rsqrt()
            return factor, -factor * self.take(f"{name}.stored_mean")
        factor = self.take(f"{name}.weight") * (self.take(f"{name}.running_var") + _EPSILON).rsqrt()
        return factor, self.take(f"{name}.bias") - factor * self.take(f"{name}.running_mean")

    def drop(self, *starts: str) -> None:
        """Remove the tensors whose names begin with one of `starts`."""
        self.tensors = {name: tensor for name, tensor in self.tensors.items() if not name.startswith(starts)}


def _build(parts: _Parts, attributes: dict[str, Any]) -> FastGAN:
    """Return the generator of all tensors in `parts`.

    `attributes` of the pickled network may state `img_resolution` and `c_dim`; a state dict has none.

    Raises:
        CheckpointError: tensors are missing, too many, or do not fit together.
    """
    projected = "to_big.bias" in parts.tensors
    if projected == ("to_128.weight_orig" in parts.tensors):
        raise CheckpointError(
            "it is neither the generator of FastGAN, which has to_128 and no bias in to_big, nor that of projected GAN",
            hint="wrap the network as a module of your own: see docs/any-generator.md",
        )
    start, (factor, shift) = parts.weight("init.init.0", 1), parts.norm("init.init.1")
    weights = {"start": (start * factor[:, None, None]).permute(1, 2, 3, 0), "start_bias": shift}
    weights["colours"] = parts.weight("to_big")
    weights["colours_bias"] = parts.take("to_big.bias") if projected else torch.zeros(len(weights["colours"]))
    side_of_picture = _side(parts, weights["colours"].shape[1], attributes.get("img_resolution"))
    classes = features = 0
    if "embed.weight" in parts.tensors:
        # The official code has a row for each of 1,000 classes, however few there are.
        embed = parts.take("embed.weight")[: attributes.get("c_dim")]
        (classes, features), weights["embed"] = embed.shape, embed.T
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
            for part, name in (("gather", "1"), ("mix", "3")):
                weights[f"excite{side}.{part}"] = parts.weight(f"se_{side}.main.{name}")
    parts.drop("to_128.")  # a small picture for the discriminator
    if parts.tensors:
        raise CheckpointError(f"it has a tensor {shown(min(parts.tensors), 120)} that a FastGAN has not")
    check_weights(weights)
    config = FastGANConfig(
        z_dim=len(start),
        widths=tuple(widths),
        layers=tuple(layers),
        c_dim=classes,
        embed_features=features,
        image_channels=len(weights["colours"]),
        normalize_z=projected,
        tanh=not projected and side_of_picture == MOST_SIDE,
    )
    generator: FastGAN = build_network(FastGAN, config, weights)
    return generator


def _layer(parts: _Parts, prefix: str, conv: str, noise: str, norm: str, *, last: bool) -> dict[str, Tensor]:
    """Return the tensors of one convolution under the names of `energyql.generators.fastgan.Convolution`.

    Args:
        parts: the tensors of the file.
        prefix: beginning of the names of the stage.
        conv: name of the convolution.
        noise: name of its noise, "" without noise. "noise" is shared by the two convolutions of a stage.
        norm: name of its normalisation.
        last: whether it is the last convolution of the stage, which takes the shared noise out of `parts`.
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
    """Return the side of the pictures.

    The official code makes all stages up to 256, also for smaller pictures, so the last stage does not always decide.

    Args:
        parts: the tensors of the file.
        channels: input channels of the layer that draws the picture (`to_big`); the stage before it has as many.
        stated: the side that the file states, `None` if it states none.

    Raises:
        CheckpointError: several sides, or none, are possible.
    """
    widths = {
        side: len(tensor) // 2
        for side in (64, 128, 256, 512, 1024)
        for name, tensor in parts.tensors.items()
        if name in [f"feat_{side}.{layer}.weight_orig" for layer in ("1", "conv", "conv1")]
    }
    if stated in widths:
        return int(stated)
    fitting = [side for side, width in widths.items() if side == max(widths) > 256 or width == channels]
    if not fitting or (len(fitting) > 1 and max(fitting) <= 256):
        raise CheckpointError(
            f"the side of its pictures is not certain: to_big takes {channels} channels, and stages have {widths}",
            hint="give the pickle of the training, which states it",
        )
    return max(fitting)


READERS = (read_fastgan,)
