"""What the evaluation benchmark times: bare matrix products, random heads, and the cost structure of LACE."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from benchmarks.heads import LACE_SIZES
from energyql.attributes.bank import AttributeBank, Head
from energyql.attributes.outputs import output_count, split_outputs
from energyql.attributes.predictions import Prediction
from energyql.energy.semantics import EnergyRule
from energyql.generators.layers import MappingConfig, MappingNetwork
from energyql.vocabulary import AttributeSpec, Vocabulary


class Bare:
    """The matrix products of one evaluation and nothing else, with weights in the order that is fastest on a CPU.

    Those of all heads are one product a layer. The linear paths of heads with one hidden layer are one more; LACE's
    heads, which have more layers, have none.

    Args:
        layers: of the mapping network; 0 where heads read z.
        dim: numbers in a latent.
        heads: whose products; all of the same widths.
        batch: latents.
    """

    def __init__(self, layers: int, dim: int, heads: Sequence[Head], batch: int) -> None:
        first, outputs = heads[0], sum(len(head.out_bias) for head in heads)
        shapes = [(dim, dim)] * layers + [(dim, len(heads) * len(first.hidden_bias))]
        self._flat = [torch.randn(shape) / shape[0] ** 0.5 for shape in shapes]
        self._deep = [torch.randn(len(heads), *weight.T.shape) / weight.shape[1] ** 0.5 for weight, _ in first.deeper]
        self._out = torch.randn(len(heads) * first.out_weight.shape[1], outputs)
        self._path = None if first.deeper else torch.randn(dim, outputs)
        self._x, self._grad = torch.randn(batch, dim), torch.randn(batch, outputs)
        self._flat_back = [weight.T.contiguous() for weight in reversed(self._flat)]
        self._deep_back = [weight.mT.contiguous() for weight in reversed(self._deep)]
        self._out_back = self._out.T.contiguous()
        self._path_back = None if self._path is None else self._path.T.contiguous()

    def forward(self) -> Tensor:
        """Those of the value."""
        x = latent = self._x
        for weight in self._flat:
            x, latent = torch.mm(x, weight), x
        if self._path is not None:
            torch.mm(latent, self._path)
        return torch.mm(self._through(x, self._deep), self._out)

    def both(self) -> Tensor:
        """Those of the value and of the gradient."""
        self.forward()
        if self._path_back is not None:
            torch.mm(self._grad, self._path_back)
        x = self._through(torch.mm(self._grad, self._out_back), self._deep_back)
        for weight in self._flat_back:
            x = torch.mm(x, weight)
        return x

    @staticmethod
    def _through(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """The deeper layers: one network a head."""
        if not weights:
            return x
        x = x.view(len(x), len(weights[0]), -1).transpose(0, 1)
        for weight in weights:
            x = torch.bmm(x, weight)
        return x.transpose(0, 1).flatten(1)


class Published:
    """z -> energy at the cost of LACE: its rules, the mapping network once an attribute, separate heads of its size.

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
        predictions: dict[str, Prediction] = {}
        for spec, head in self._heads:
            outputs = head(self._encode(z))
            if spec.kind == "yes/no":
                outputs = outputs[:, 1:] - outputs[:, :1]
            predictions |= split_outputs(outputs, [spec], {spec.name: 0.1})
        return -self._rule.log_value(predictions)


def random_bank(vocabulary: Vocabulary, dim: int, widths: Sequence[int], space: str) -> AttributeBank:
    """Random heads of these widths: with a linear path if they have one hidden layer; with none, as LACE's, if more."""
    heads = {}
    for name, spec in vocabulary.items():
        layers = [(torch.randn(b, a) / a**0.5, torch.randn(b)) for a, b in pairwise([dim, *widths])]
        outputs = output_count(spec)
        path = torch.zeros(outputs, dim) if len(widths) > 1 else torch.randn(outputs, dim) / dim**0.5
        out = torch.randn(outputs, widths[-1]) / widths[-1] ** 0.5
        heads[name] = Head(*layers[0], out, path, torch.zeros(outputs), torch.tensor(0.3), tuple(layers[1:]))
    return AttributeBank(vocabulary, heads, space=space)


def random_mapping(config: MappingConfig) -> MappingNetwork:
    """Parameters as they are before training, and a random mean."""
    network = MappingNetwork(config).requires_grad_(False)
    network.w_avg.normal_()
    return network


def gradient_by_autograd(energy: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """Energy and gradient in the plain way."""
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
