"""The network of one attribute, and the networks of several attributes run as few matrix products."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from energyql.errors import ModelError
from energyql.numerics.linear import Dense, DenseStack, Linear
from energyql.numerics.pullback import Back, inverse_norm, normalized, normalized_back
from energyql.numerics.shapes import Float
from energyql.vocabulary import AttributeSpec

SLOPE = 0.2  # of the leaky ReLU after each hidden layer
MOST_LAYERS = 16
FIELDS = ("hidden_weight", "hidden_bias", "out_weight", "skip_weight", "out_bias", "std")


@dataclass(frozen=True)
class Head:
    """`out(h) + skip(x)` on a latent x, where h is x after one or more hidden layers, each with a leaky ReLU.

    The linear path has a gradient where the rest is flat. Without hidden units (width 0) the head is linear.

    Attributes:
        hidden_weight: of the first hidden layer, like `hidden_bias`.
        out_weight: of the last layer, like `skip_weight` and `out_bias`.
        std: residual standard deviation of a continuous attribute; 1 for the others.
        deeper: weight (width, width before) and bias (width,) of each further hidden layer.
    """

    hidden_weight: Float[Tensor, "width latent_dim"]
    hidden_bias: Float[Tensor, " width"]
    out_weight: Float[Tensor, "outputs last_width"]
    skip_weight: Float[Tensor, "outputs latent_dim"]
    out_bias: Float[Tensor, " outputs"]
    std: Float[Tensor, ""]
    deeper: tuple[tuple[Tensor, Tensor], ...] = ()

    def tensors(self) -> dict[str, Tensor]:
        """Return all parameters by the names they are stored under."""
        found = {field: getattr(self, field) for field in FIELDS}
        for i, (weight, bias) in enumerate(self.deeper):
            found |= {f"deeper{i}_weight": weight, f"deeper{i}_bias": bias}
        return found

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Head:
        """Make a head from `tensors()`; other names are ignored.

        Raises:
            KeyError: one is missing.
        """
        deeper: list[tuple[Tensor, Tensor]] = []
        while f"deeper{len(deeper)}_weight" in tensors and len(deeper) < MOST_LAYERS:
            i = len(deeper)
            deeper.append((tensors[f"deeper{i}_weight"], tensors[f"deeper{i}_bias"]))
        return cls(**{field: tensors[field] for field in FIELDS}, deeper=tuple(deeper))

    def to(self, device: torch.device | str) -> Head:
        """Return the same head on another device."""
        return Head.from_tensors({name: tensor.to(device) for name, tensor in self.tensors().items()})

    def check(self, name: str, outputs: int, latent_dim: int) -> None:
        """Check the shapes of a head called `name` with this many outputs and this latent size.

        Raises:
            ModelError: a shape is another.
        """
        width = len(self.hidden_bias) if self.hidden_bias.ndim else 0
        shapes: dict[str, tuple[int, ...]] = {"hidden_weight": (width, latent_dim), "hidden_bias": (width,)}
        for i, (_, bias) in enumerate(self.deeper):
            before, width = width, len(bias) if bias.ndim else 0
            shapes |= {f"deeper{i}_weight": (width, before), f"deeper{i}_bias": (width,)}
        shapes |= {"out_weight": (outputs, width), "skip_weight": (outputs, latent_dim), "out_bias": (outputs,)}
        shapes |= {"std": ()}
        tensors = self.tensors()
        for field, shape in shapes.items():
            if tuple(tensors[field].shape) != shape:
                raise ModelError(f"the head of {name!r}: {field} has shape {tuple(tensors[field].shape)}, not {shape}")


def take_head(name: str, tensors: dict[str, Tensor]) -> Head:
    """Remove the tensors of the head called `name` from those of a bank, and return the head.

    Raises:
        KeyError: one is missing.
    """
    prefix = f"{name}/"
    mine = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    try:
        head = Head.from_tensors(mine)
    except KeyError as error:
        raise KeyError(prefix + error.args[0]) from None
    for field in head.tensors():
        del tensors[prefix + field]
    return head


@dataclass(frozen=True)
class FusedHeads:
    """Several heads as one function; `Differentiable` and `Convertible`.

    Attributes:
        groups: networks whose outputs are added.
        bias: added to the sum.
        direction: whether latents are scaled to unit second moment first, so that their length has no effect.
    """

    groups: tuple[_Group, ...]
    bias: Float[Tensor, " outputs"]
    direction: bool = False

    @classmethod
    def of(cls, heads: Sequence[Head], *, direction: bool = False) -> FusedHeads:
        """Fuse at least one head on the same latents; outputs are side by side, in the order given."""
        deep: dict[tuple[int, ...], list[int]] = {}
        for i, head in enumerate(heads):
            if head.deeper:
                deep.setdefault((len(head.hidden_bias), *(len(bias) for _, bias in head.deeper)), []).append(i)
        groups = (_shallow(heads), *(_deep(heads, members) for members in deep.values()))
        return cls(groups, torch.cat([head.out_bias for head in heads]), direction)

    def then(self, matrix: Float[Tensor, "rows outputs"], offset: Float[Tensor, " rows"]) -> FusedHeads:
        """Return the function `matrix @ outputs + offset`, folded into the last layer.

        Both are float64 on the CPU; the offset may be infinite.
        """

        def mapped(weight: Tensor) -> Tensor:
            return matrix @ weight.cpu().double()

        groups = tuple(replace(group, out=Linear(mapped(group.out.weight).to(self.bias))) for group in self.groups)
        return replace(self, groups=groups, bias=(mapped(self.bias) + offset).to(self.bias))

    def computed_in(self, dtype: torch.dtype) -> FusedHeads:
        """See `Convertible`. The last layer is small and keeps its dtype, so that outputs are not rounded."""
        return replace(self, groups=tuple(group.computed_in(dtype) for group in self.groups))

    def __call__(self, latent: Float[Tensor, "batch latent_dim"]) -> Float[Tensor, "batch outputs"]:
        """Return the outputs of latents."""
        latent = normalized(latent) if self.direction else latent
        return self._total(group.run(latent) for group in self.groups)

    def pullback(self, latent: Float[Tensor, "batch latent_dim"]) -> tuple[Float[Tensor, "batch outputs"], Back]:
        """See `Differentiable`."""
        if not self.direction:
            kept = [group.run(latent) for group in self.groups]
            return self._total(kept), partial(self._back, kept)
        scale = inverse_norm(latent)
        scaled = latent * scale
        kept = [group.run(scaled) for group in self.groups]
        return self._total(kept), lambda grad: normalized_back(self._back(kept, grad), scaled, scale)

    def _total(self, results: Iterable[list[Tensor]]) -> Float[Tensor, "batch outputs"]:
        total = self.bias
        for group, layers in zip(self.groups, results, strict=True):
            total = total + group.out(_side_by_side(layers[-1]).to(total))
        return total

    def _back(self, kept: list[list[Tensor]], grad: Tensor) -> Float[Tensor, "batch latent_dim"]:
        first, *others = (group.back(layers, grad) for group, layers in zip(self.groups, kept, strict=True))
        for more in others:
            first += more
        return first.to(grad)


class RawOutputs(NamedTuple):
    """Several heads as one function, and the layout of its outputs.

    Attributes:
        function: from latents to the outputs of all heads side by side.
        specs: the attributes, in the order of the outputs; each has `output_count` of them.
        std: residual standard deviation of each continuous attribute.
    """

    function: FusedHeads
    specs: Sequence[AttributeSpec]
    std: Mapping[str, Float[Tensor, ""]]


@dataclass(frozen=True)
class _Group:
    """Networks that run together: of one hidden layer and any width, or of the same widths.

    Attributes:
        first: the first layers of all side by side.
        deeper: the others.
        out: from the last layers, side by side, to what they add to the outputs of all groups.
    """

    first: Dense
    deeper: tuple[DenseStack, ...]
    out: Linear

    def computed_in(self, dtype: torch.dtype) -> _Group:
        """Return the same networks with all layers before `out` in another dtype."""
        return _Group(self.first.computed_in(dtype), tuple(layer.computed_in(dtype) for layer in self.deeper), self.out)

    def run(self, latent: Float[Tensor, "batch latent_dim"]) -> list[Tensor]:
        """Return the result of each layer: the first (batch, units), the others (heads, batch, width)."""
        layers = [self.first(latent.to(self.first.weight))]
        if self.deeper:
            heads, _, width = self.deeper[0].weight.shape
            x = layers[0].view(len(latent), heads, width).transpose(0, 1)
            for layer in self.deeper:
                x = layer(x)
                layers.append(x)
        return layers

    def back(self, layers: list[Tensor], grad: Float[Tensor, "batch outputs"]) -> Float[Tensor, "batch latent_dim"]:
        """Turn the gradient with respect to the outputs into that with respect to the latents."""
        x = self.out.back(grad).to(self.first.weight)
        if self.deeper:
            heads, width, _ = self.deeper[-1].weight.shape
            x = x.view(len(x), heads, width).transpose(0, 1)
            for layer, result in zip(reversed(self.deeper), reversed(layers), strict=False):
                x = layer.back_through(x, result)
            x = _side_by_side(x)
        return self.first.back_through(x, layers[0])


def _side_by_side(x: Tensor) -> Float[Tensor, "batch units"]:
    """Return x (heads, batch, width) as (batch, heads * width); (batch, units) as it is."""
    return x if x.ndim == 2 else x.transpose(0, 1).flatten(1)


def _shallow(heads: Sequence[Head]) -> _Group:
    """Group the heads of one hidden layer, and the linear paths of all heads.

    A linear path takes two hidden units, because (f(x) - f(-x)) / (1 + slope) = x for a leaky ReLU f. So it needs no
    product of its own.
    """
    plain = [head for head in heads if not head.deeper]
    skip = torch.cat([head.skip_weight for head in heads])
    path = torch.eye(len(skip), dtype=skip.dtype, device=skip.device) / (1 + SLOPE)
    first = torch.cat([*(head.hidden_weight for head in plain), skip, -skip])
    bias = torch.cat([*(head.hidden_bias for head in plain), skip.new_zeros(2 * len(skip))])
    blocks = [head.out_weight[:, :0] if head.deeper else head.out_weight for head in heads]
    out = torch.cat([torch.block_diag(*blocks), path, -path], 1)
    return _Group(Dense(first, bias, SLOPE), (), Linear(out))


def _deep(heads: Sequence[Head], members: list[int]) -> _Group:
    """Group the heads at `members`, which have several hidden layers of the same widths."""
    chosen = [heads[i] for i in members]
    deeper = []
    for i in range(len(chosen[0].deeper)):
        weight = torch.stack([head.deeper[i][0] for head in chosen])
        bias = torch.stack([head.deeper[i][1] for head in chosen])[:, None]
        deeper.append(DenseStack(weight, bias, SLOPE))
    first = torch.cat([head.hidden_weight for head in chosen])
    bias = torch.cat([head.hidden_bias for head in chosen])
    blocks = [head.out_weight if i in members else head.out_weight[:, :0] for i, head in enumerate(heads)]
    return _Group(Dense(first, bias, SLOPE), tuple(deeper), Linear(torch.block_diag(*blocks)))
