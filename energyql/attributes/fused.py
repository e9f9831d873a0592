"""The networks of several attributes run as few products."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from energyql.attributes.heads import SLOPE, Head
from energyql.numerics.linear import Dense, DenseStack, Linear
from energyql.numerics.normalization import inverse_norm, normalized, normalized_back
from energyql.numerics.pullback import Back
from energyql.vocabulary import AttributeSpec


@dataclass(frozen=True)
class FusedHeads:
    """Several heads as one function, `(batch, latent_dim) -> (batch, outputs)`; `Differentiable` and `Convertible`.

    Attributes:
        groups: what is added up.
        bias: (outputs,), the rest.
        direction: whether the networks see latents scaled to unit second moment, so that their length does not count.
    """

    groups: tuple[_Group, ...]
    bias: Tensor
    direction: bool = False

    @classmethod
    def of(cls, heads: Sequence[Head], *, direction: bool = False) -> FusedHeads:
        """Heads on the same latents, at least one; their outputs come side by side, in the order given."""
        deep: dict[tuple[int, ...], list[int]] = {}
        for i, head in enumerate(heads):
            if head.deeper:
                deep.setdefault((len(head.hidden_bias), *(len(bias) for _, bias in head.deeper)), []).append(i)
        groups = (_shallow(heads), *(_deep(heads, members) for members in deep.values()))
        return cls(groups, torch.cat([head.out_bias for head in heads]), direction)

    def then(self, matrix: Tensor, offset: Tensor) -> FusedHeads:
        """The function that maps the outputs on by `matrix` (rows, outputs) and `offset` (rows,): at no further cost.

        Both are float64, on the CPU; an offset may be infinite.
        """

        def mapped(weight: Tensor) -> Tensor:
            return matrix @ weight.cpu().double()

        groups = tuple(replace(group, out=Linear(mapped(group.out.weight).to(self.bias))) for group in self.groups)
        return replace(self, groups=groups, bias=(mapped(self.bias) + offset).to(self.bias))

    def computed_in(self, dtype: torch.dtype) -> FusedHeads:
        """See `Convertible`. The last layer, small as it is, stays exact, and so outputs are not rounded."""
        return replace(self, groups=tuple(group.computed_in(dtype) for group in self.groups))

    def __call__(self, latent: Tensor) -> Tensor:
        """Outputs (batch, outputs) of latents (batch, latent_dim)."""
        latent = normalized(latent) if self.direction else latent
        return self._total(group.run(latent) for group in self.groups)

    def pullback(self, latent: Tensor) -> tuple[Tensor, Back]:
        """See `Differentiable`."""
        if not self.direction:
            kept = [group.run(latent) for group in self.groups]
            return self._total(kept), partial(self._back, kept)
        scale = inverse_norm(latent)
        scaled = latent * scale
        kept = [group.run(scaled) for group in self.groups]
        return self._total(kept), lambda grad: normalized_back(self._back(kept, grad), scaled, scale)

    def _total(self, results: Iterable[list[Tensor]]) -> Tensor:
        total = self.bias
        for group, layers in zip(self.groups, results, strict=True):
            total = total + group.out(_side_by_side(layers[-1]).to(total))
        return total

    def _back(self, kept: list[list[Tensor]], grad: Tensor) -> Tensor:
        first, *others = (group.back(layers, grad) for group, layers in zip(self.groups, kept, strict=True))
        for more in others:
            first += more
        return first.to(grad)


class RawOutputs(NamedTuple):
    """Heads before their outputs become predictions.

    Attributes:
        function: from latents to the outputs of all heads side by side.
        specs: the attributes, in the order of the outputs; each has `output_count` of them.
        std: residual standard deviation of each continuous attribute, scalars.
    """

    function: FusedHeads
    specs: Sequence[AttributeSpec]
    std: Mapping[str, Tensor]


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
        """These with all that comes before `out` in another dtype."""
        return _Group(self.first.computed_in(dtype), tuple(layer.computed_in(dtype) for layer in self.deeper), self.out)

    def run(self, latent: Tensor) -> list[Tensor]:
        """What each layer returns: the first (batch, units), the others (heads, batch, width)."""
        layers = [self.first(latent.to(self.first.weight))]
        if self.deeper:
            heads, _, width = self.deeper[0].weight.shape
            x = layers[0].view(len(latent), heads, width).transpose(0, 1)
            for layer in self.deeper:
                x = layer(x)
                layers.append(x)
        return layers

    def back(self, layers: list[Tensor], grad: Tensor) -> Tensor:
        """From the gradient with respect to the outputs to that with respect to the latents."""
        x = self.out.back(grad).to(self.first.weight)
        if self.deeper:
            heads, width, _ = self.deeper[-1].weight.shape
            x = x.view(len(x), heads, width).transpose(0, 1)
            for layer, result in zip(reversed(self.deeper), reversed(layers), strict=False):
                x = layer.back_through(x, result)
            x = _side_by_side(x)
        return self.first.back_through(x, layers[0])


def _side_by_side(x: Tensor) -> Tensor:
    """(heads, batch, width) as (batch, heads * width); (batch, units) as it is."""
    return x if x.ndim == 2 else x.transpose(0, 1).flatten(1)


def _shallow(heads: Sequence[Head]) -> _Group:
    """The heads of one hidden layer, and the linear paths of all.

    A linear path takes two units: (f(x) - f(-x)) / (1 + slope) = x for a leaky ReLU f. So it costs no product of its
    own.
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
