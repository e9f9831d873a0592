"""The mapping network from z to w, with computed instead of trained weights.

A code is piecewise linear in z but for the curves of its paints, like a network of leaky ReLUs. The
layers compute, in order: scores; minima of two, three times, which are the margins of the drawings; the steps of the
code, and the curves as a few linear pieces; the embedding. A trained network explains nine tenths of the variance after
ten minutes, and the rest is visible as blends of two choices.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from energyql.generators.mapping import ACTIVATION_GAIN, ACTIVATION_SLOPE, FullyConnected, MappingNetwork
from energyql.generators.stylegan2 import ModulatedConv, SynthesisNetwork
from recipes.common.domain import Condition, Domain
from recipes.common.factors import Factors, gradient

SHIFT = 8.0  # added to a signal, so that it is positive and a leaky ReLU does not change it: scores are below |z|
W_SHIFT = 6.0  # the same for w
MINIMA = 3
"""Layers that halve the number of terms of a condition, which has at most eight."""
PAINT_NODES = (-2.4, -1.6, -1.1, -0.674, -0.35, 0.0, 0.35, 0.674, 1.1, 1.6, 2.4)
"""Where a paint, as a function of its score, changes its slope: at the stops of its palette, and between them."""


def embedding(domain: Domain) -> Tensor:
    """Return the embedding of codes, and of scores behind them, in w: orthonormal columns, (w_dim, both)."""
    w_dim = domain.config.w_dim
    generator = torch.Generator().manual_seed(domain.embedding_seed)
    square = torch.randn(w_dim, w_dim, generator=generator, dtype=torch.float64)
    columns: Tensor = torch.linalg.qr(square)[0][:, : domain.code_dim + len(domain.scores)]
    return columns.float()


class Layer:
    """The weights of one layer, unit by unit; methods return affine forms of the outputs of the layer.

    An affine form is a row of weights on the units of the layer before, with a constant at its end.
    """

    def __init__(self, inputs: int, units: int) -> None:
        self.weight = torch.zeros(units, inputs + 1, dtype=torch.float64)
        self.used = 0

    def _unit(self, before: Tensor) -> Tensor:
        """Add a unit; return the form of leaky_relu(before)."""
        self.weight[self.used] = before
        after = torch.zeros(len(self.weight) + 1, dtype=torch.float64)
        after[self.used] = 1 / ACTIVATION_GAIN
        self.used += 1
        return after

    def carry(self, signal: Tensor, shift: float = SHIFT) -> Tensor:
        """Add a unit that passes the signal on; return its form."""
        return _plus(self._unit(_plus(signal, shift)), -shift)

    def rectified(self, before: Tensor, carried: Tensor) -> Tensor:
        """Add a unit; return the form of max(x, 0), where `before` and `carried` are x before and after this layer."""
        return (self._unit(before) - ACTIVATION_SLOPE * carried) / (1 - ACTIVATION_SLOPE)

    def step(self, margin: Tensor, sharpness: float) -> Tensor:
        """Add two units; return the form of 0.5 + sharpness x margin, limited to 0 and 1."""
        rise = sharpness * margin
        difference = self._unit(_plus(rise, 0.5)) - self._unit(_plus(rise, -0.5))
        return _plus(difference, -ACTIVATION_SLOPE) / (1 - ACTIVATION_SLOPE)

    def fill(self, layer: FullyConnected) -> None:
        """Copy the weights into a fully connected layer."""
        layer.weight.copy_(self.weight[:, :-1] / layer.weight_gain)
        layer.bias.copy_(self.weight[:, -1] / layer.bias_gain)


def _plus(form: Tensor, constant: float) -> Tensor:
    form = form.clone()
    form[-1] += constant
    return form


@dataclass(frozen=True)
class Term:
    """A weighted sum of signals, with a constant, that is above 0 where a part of a condition holds."""

    weights: dict[str, float]
    constant: float = 0.0

    def form(self, signals: dict[str, Tensor]) -> Tensor:
        """Return the affine form of the term."""
        return _plus(
            torch.stack([weight * signals[name] for name, weight in self.weights.items()]).sum(0), self.constant
        )


Signals = dict[str, Tensor]
Terms = dict[str, list[Term]]


def _terms(condition: Condition, factors: Factors) -> tuple[list[Term], list[Condition]]:
    """Return the terms whose minimum is the margin of a condition, and the conditions that must not hold."""
    terms, denied = [], []
    for name in condition:
        if isinstance(name, tuple):
            denied.append(name)
        elif "." in name:
            choice, own = name.split(".")
            options = factors.domain.choices[choice]
            terms += [
                Term({name: 1.0, f"{choice}.{other}": -1.0}, options[own] - options[other])
                for other in options
                if other != own
            ]
        else:
            sign, switch = (-1.0, name[1:]) if name[0] == "-" else (1.0, name)
            terms.append(Term({switch: sign}, -sign * factors.threshold[switch]))
    return terms, denied


def _margins(factors: Factors) -> Terms:
    """Return, by name, the terms whose minimum is the margin of each drawing, and of each condition that is denied."""
    found: Terms = {}
    for slot, index in factors.domain.drawings:
        terms, denied = _terms(factors.domain.drawn[slot][index], factors)
        for condition in denied:
            found[str(condition)] = _terms(condition, factors)[0]
            terms.append(Term({str(condition): -1.0}))
        found[f"{slot} {index}"] = terms
    return found


def _halve(layer: Layer, signals: Signals, pending: Terms) -> tuple[Signals, Terms]:
    """Carry all signals, and add the minima of pairs of terms whose signals are known; the last one is named `name`."""
    carried = {name: layer.carry(form) for name, form in signals.items()}
    added: Signals = {}
    left: Terms = {}
    for name, terms in pending.items():
        known = [term for term in terms if term.weights.keys() <= signals.keys()]
        left[name] = [term for term in terms if term not in known] + known[len(known) // 2 * 2 :]
        for first, second in zip(known[::2], known[1::2], strict=False):
            minimum = name if len(terms) == 2 else f"{name}, {len(added)} of {len(signals)}"
            before, after = (first.form(all_of) - second.form(all_of) for all_of in (signals, carried))
            added[minimum] = first.form(carried) - layer.rectified(before, after)
            left[name].append(Term({minimum: 1.0}))
    return carried | added, left


def _bends(layer: Layer, score: Tensor, carried: Tensor) -> list[Tensor]:
    """Return the forms of max(score - node, 0) for each node of the paints."""
    return [layer.rectified(_plus(score, -node), _plus(carried, -node)) for node in PAINT_NODES]


def _curves(bends: list[Tensor], carried: Tensor, stops: Tensor) -> list[Tensor]:
    """Return the forms of the three colours of a paint: linear pieces, by least squares over the prior."""
    grid = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    colours = 2 * gradient(stops.double(), torch.special.ndtr(grid)) - 1
    basis = torch.stack([torch.ones_like(grid), grid, *((grid - node).clamp(min=0) for node in PAINT_NODES)], 1)
    density = torch.exp(-(grid**2) / 4)[:, None]  # the square root of the prior's, so that errors weigh as in pictures
    factors = torch.linalg.lstsq(basis * density, colours * density).solution
    return [
        _plus(slope * carried + sum(factor * bend for factor, bend in zip(rest, bends, strict=True)), constant)
        for constant, slope, *rest in factors.T.tolist()
    ]


@torch.no_grad()
def write_mapping(factors: Factors) -> MappingNetwork:
    """Return the network from z to the embedded code and scores, plus `W_SHIFT`; see `shift_styles`."""
    domain, config = factors.domain, factors.domain.config
    mapping = MappingNetwork(config)
    *_, bent, last = mapping.layers
    width = config.layer_features or config.w_dim
    signals = {
        name: torch.cat([row, torch.zeros(1)]).double() for name, row in zip(domain.scores, factors.matrix, strict=True)
    }
    pending = _margins(factors)
    for index in range(MINIMA):
        layer = Layer(width if index else config.z_dim, width)
        signals, pending = _halve(layer, signals, pending)
        layer.fill(mapping.layers[index])
    layer = Layer(width, width)
    scores = {name: layer.carry(signals[name]) for name in domain.scores}
    code = []
    for slot, index in domain.drawings:
        (margin,) = pending[f"{slot} {index}"]
        code.append(_plus(2 * layer.step(margin.form(signals), factors.sharpness), -1.0))
    bends = {
        name: _bends(layer, signals[name], scores[name]) for name in dict.fromkeys(domain.paints.values())
    }  # shared by all paints that follow one number
    for paint, name in domain.paints.items():
        code += _curves(bends[name], scores[name], domain.palettes[paint])
    layer.fill(bent)
    layer = Layer(width, config.w_dim)
    w = embedding(domain).double() @ torch.stack([*code, *scores.values()])
    w[:, -1] += W_SHIFT
    layer.weight[:] = w / ACTIVATION_GAIN
    layer.fill(last)
    return mapping.eval().requires_grad_(False)


def read_scores(domain: Domain, w: Tensor) -> Tensor:
    """Return the scores that `write_mapping` put into w (batch, w_dim), up to rounding, (batch, scores)."""
    return (w - W_SHIFT) @ embedding(domain)[:, domain.code_dim :]


@torch.no_grad()
def shift_styles(synthesis: SynthesisNetwork, domain: Domain) -> None:
    """Change the network: its input is w + `W_SHIFT` instead of w, and scores in w have no effect."""
    codes = embedding(domain)[:, : domain.code_dim]
    for module in synthesis.modules():
        if isinstance(module, ModulatedConv):
            affine = module.affine
            affine.weight.copy_(affine.weight @ codes @ codes.T)
            affine.bias.sub_(W_SHIFT * (affine.weight * affine.weight_gain).sum(1))
