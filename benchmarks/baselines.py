"""Baselines of the evaluation benchmark: bare matrix products, random heads, and the cost structure of LACE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from benchmarks.heads import LACE_SIZES
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank, Head
from energyql.attributes.predictions import Prediction, output_count, split_outputs
from energyql.energy.rule import EnergyRule
from energyql.generators.mapping import MappingNetwork, StyleGANConfig
from energyql.numerics.linear import Linear
from energyql.vocabulary import AttributeSpec, Vocabulary


class Bare:
    """The matrix products of one evaluation and nothing else, with weights laid out as is fastest on a CPU.

    The first layers of all heads are one product. The linear paths of heads with one hidden layer are one more; LACE's
    heads, which have more layers, have none.

    Args:
        layers: of the mapping network; 0 where heads read z.
        dim: numbers in a latent.
        heads: whose products; all of the same widths.
        batch: latents.
    """

    def __init__(self, layers: int, dim: int, heads: Sequence[Head], batch: int) -> None:
        first, outputs = heads[0], sum(len(head.out_bias) for head in heads)
        self._width = len(first.hidden_bias)
        self._flat = [_product(dim, dim) for _ in range(layers)] + [_product(len(heads) * self._width, dim)]
        self._deep = [[_product(*weight.shape) for weight, _ in first.deeper] for _ in heads] if first.deeper else []
        self._out = _product(outputs, len(heads) * first.out_weight.shape[1])
        self._path = None if first.deeper else _product(outputs, dim)
        self._x, self._grad = torch.randn(batch, dim), torch.randn(batch, outputs)

    def forward(self) -> Tensor:
        """Run the products of the value, and return the outputs, (batch, outputs)."""
        x = latent = self._x
        for product in self._flat:
            x, latent = product(x), x
        if self._path is not None:
            self._path(latent)
        if self._deep:
            ends = []
            for products, end in zip(self._deep, x.split(self._width, 1), strict=True):
                for product in products:
                    end = product(end)
                ends.append(end)
            x = torch.cat(ends, 1)
        return self._out(x)

    def both(self) -> Tensor:
        """Run the products of the value and of the gradient, and return the gradient, (batch, dim)."""
        self.forward()
        if self._path is not None:
            self._path.back(self._grad)
        x = self._out.back(self._grad)
        if self._deep:
            starts = []
            for products, start in zip(self._deep, x.chunk(len(self._deep), 1), strict=True):
                for product in reversed(products):
                    start = product.back(start)
                starts.append(start)
            x = torch.cat(starts, 1)
        for product in reversed(self._flat):
            x = product.back(x)
        return x


def _product(outputs: int, inputs: int) -> Linear:
    return Linear(torch.randn(outputs, inputs) / inputs**0.5)


class Published:
    """An energy of z at the cost of LACE: its rules, the mapping network once an attribute, separate heads of its size.

    Args:
        rule: of the semantics `lace`.
        vocabulary: its attributes.
        encode: from z to what the heads read.
        dim: numbers in that.
    """

    def __init__(self, rule: EnergyRule, vocabulary: Vocabulary, encode: Callable[[Tensor], Tensor], dim: int) -> None:
        self._rule, self._encode = rule, encode
        self._heads = [(vocabulary[name], _network(vocabulary[name], dim)) for name in rule.attributes]

    def __call__(self, z: Tensor) -> Tensor:
        """Return the energies of latents, (batch,), in nats."""
        predictions: dict[str, Prediction] = {}
        for spec, head in self._heads:
            outputs = head(self._encode(z))
            if spec.kind == "yes/no":
                outputs = outputs[:, 1:] - outputs[:, :1]
            predictions |= split_outputs(outputs, [spec], {spec.name: 0.1})
        return -self._rule.log_value(predictions)


def random_bank(vocabulary: Vocabulary, dim: int, widths: Sequence[int], space: str) -> AttributeBank:
    """Return random heads of these widths; with one hidden layer they have a linear path, deeper ones (LACE's) none."""
    heads = {}
    for name, spec in vocabulary.items():
        layers = [(torch.randn(b, a) / a**0.5, torch.randn(b)) for a, b in pairwise([dim, *widths])]
        outputs = output_count(spec)
        path = torch.zeros(outputs, dim) if len(widths) > 1 else torch.randn(outputs, dim) / dim**0.5
        out = torch.randn(outputs, widths[-1]) / widths[-1] ** 0.5
        heads[name] = Head(*layers[0], out, path, torch.zeros(outputs), torch.tensor(0.3), tuple(layers[1:]))
    return AttributeBank(vocabulary, heads, fitted=FittedUnder(space))


def random_mapping(config: StyleGANConfig) -> MappingNetwork:
    """Return a mapping network as before training, with a random mean of w."""
    network = MappingNetwork(config).requires_grad_(False)
    network.w_avg.normal_()
    return network


def gradient_by_autograd(energy: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Return energies (batch,) and gradients (batch, z_dim) by autograd."""
    with torch.enable_grad():
        variable = z.detach().requires_grad_()
        value = energy(variable)
        (gradient,) = torch.autograd.grad(value.sum(), variable)
    return value.detach(), gradient


def _network(spec: AttributeSpec, dim: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise([dim, *LACE_SIZES]):
        layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
    outputs = 2 if spec.kind == "yes/no" else output_count(spec)
    return nn.Sequential(*layers, nn.Linear(LACE_SIZES[-1], outputs)).requires_grad_(False)
