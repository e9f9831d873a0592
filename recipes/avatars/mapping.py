"""The mapping network from z to w, with computed instead of trained weights.

Except for two smooth curves, the code of an avatar is piecewise linear in z, like a network of leaky ReLUs. The layers
compute, in order: scores; maxima of two scores; maxima of two maxima; the margin of every choice, and the curves as a
few linear pieces; the embedding. A trained network explains nine tenths of the variance after ten minutes, and the rest
is visible as blends of two choices.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from energyql.generators.mapping import ACTIVATION_GAIN, ACTIVATION_SLOPE, MappingNetwork
from energyql.generators.stylegan2 import ModulatedConv
from recipes.avatars.factors import CHOICES, CONTINUOUS, SCORES, SWITCHES, Factors
from recipes.avatars.synthesis import CONFIG, Painter

SHIFT = 8.0  # added to a signal, so that it is positive and a leaky ReLU does not change it: scores are below |z|
W_SHIFT = 4.0  # the same for w
SATURATING_NODES = (-3.0, -1.65, -0.75, 0.75, 1.65, 3.0)  # of tanh, over its sharpness
LEVEL_NODES = (-2.2, -1.3, -0.6, 0.6, 1.3, 2.2)


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
        shifted = signal.clone()
        shifted[-1] += shift
        after = self._unit(shifted)
        after[-1] -= shift
        return after

    def rectified(self, before: Tensor, carried: Tensor) -> Tensor:
        """Add a unit; return the form of max(x, 0), where `before` and `carried` are x before and after this layer."""
        return (self._unit(before) - ACTIVATION_SLOPE * carried) / (1 - ACTIVATION_SLOPE)

    def larger(self, a: Tensor, b: Tensor, carried_a: Tensor, carried_b: Tensor) -> Tensor:
        """Add a unit; return the form of max(a, b) = b + max(a - b, 0)."""
        return carried_b + self.rectified(a - b, carried_a - carried_b)

    def fill(self, layer: nn.Module) -> None:
        """Copy the weights into a fully connected layer."""
        layer.weight.copy_(self.weight[:, :-1] / layer.weight_gain)
        layer.bias.copy_(self.weight[:, -1] / layer.bias_gain)


Signals = dict[str, Tensor]


def _next(layer: Layer, signals: Signals, maxima: dict[str, tuple[str, str]]) -> Signals:
    """Carry all signals and add the maxima of pairs of them."""
    carried = {name: layer.carry(form) for name, form in signals.items()}
    found = {name: layer.larger(signals[a], signals[b], carried[a], carried[b]) for name, (a, b) in maxima.items()}
    return carried | found


def _best_others(options: list[str]) -> list[dict[str, tuple[str, str]]]:
    """Plan the maxima of each layer, so that in the end "-x" is the maximum of all options except x."""
    if len(options) == 3:
        a, b, c = options
        return [{f"-{a}": (b, c), f"-{b}": (a, c), f"-{c}": (a, b)}, {}, {}]
    a, b, c, d, *rest = options
    pairs = {f"{a}|{b}": (a, b), f"{c}|{d}": (c, d)}
    goal = "~" if rest else "-"  # with a fifth option, one layer more
    second = {f"{goal}{x}": (y, f"{c}|{d}") for x, y in ((a, b), (b, a))}
    second |= {f"{goal}{x}": (y, f"{a}|{b}") for x, y in ((c, d), (d, c))}
    if not rest:
        return [pairs, second, {}]
    (e,) = rest
    return [pairs, second | {f"-{e}": (f"{a}|{b}", f"{c}|{d}")}, {f"-{x}": (f"~{x}", e) for x in (a, b, c, d)}]


def _pieces(
    layer: Layer, signal: Tensor, carried: Tensor, curve: Tensor, grid: Tensor, nodes: tuple[float, ...]
) -> Tensor:
    """Return the form of a curve of the signal as linear pieces between nodes, by least squares on the grid."""
    basis = torch.stack([torch.ones_like(grid), grid, *((grid - node).clamp(min=0) for node in nodes)], 1)
    factors = torch.linalg.lstsq(basis, curve[:, None]).solution[:, 0].tolist()
    total = factors[1] * carried
    total[-1] += factors[0]
    for factor, node in zip(factors[2:], nodes, strict=True):
        before, after = signal.clone(), carried.clone()
        before[-1] -= node
        after[-1] -= node
        total = total + factor * layer.rectified(before, after)
    return total


@torch.no_grad()
def write_mapping(embed: nn.Linear, factors: Factors) -> MappingNetwork:
    """Return the network from z to `embed(code of z) + W_SHIFT`, up to the linear pieces; see `shift_styles`."""
    mapping = MappingNetwork(CONFIG)
    width = CONFIG.w_dim
    inputs = {name: torch.cat([row, torch.zeros(1)]).double() for name, row in zip(SCORES, factors.matrix, strict=True)}
    for name, options in CHOICES.items():
        for option, bias in options.items():
            inputs[f"{name}.{option}"][-1] += bias
    signals: Signals = inputs
    plans = [_best_others([f"{name}.{option}" for option in options]) for name, options in CHOICES.items()]
    sizes = [CONFIG.z_dim, width, width]
    for depth, size in enumerate(sizes):
        layer = Layer(size, width)
        signals = _next(layer, signals, {name: pair for plan in plans for name, pair in plan[depth].items()})
        layer.fill(mapping.get_submodule(f"fc{depth}"))
    margins = {}
    for name in SWITCHES:
        margins[name] = signals[name].clone()
        margins[name][-1] -= factors.threshold[name]
    for name, options in CHOICES.items():
        margins |= {
            f"{name}.{option}": signals[f"{name}.{option}"] - signals[f"-{name}.{option}"] for option in options
        }
    layer = Layer(width, width)
    carried = {name: layer.carry(form) for name, form in margins.items()}
    plain = {name: layer.carry(signals[name]) for name in CONTINUOUS}
    grid = torch.linspace(-4, 4, 4001, dtype=torch.float64)
    bend, level = torch.tanh(factors.sharpness * grid), 2 * torch.special.ndtr(grid) - 1
    bends = tuple(node / factors.sharpness for node in SATURATING_NODES)
    code = [
        *(_pieces(layer, margins[name], carried[name], bend, grid, bends) for name in margins),
        *(0.5 * form for form in carried.values()),
        *(1.7 * _pieces(layer, signals[name], plain[name], level, grid, LEVEL_NODES) for name in CONTINUOUS),
        *(0.5 * form for form in plain.values()),
    ]
    layer.fill(mapping.fc3)
    w = embed.weight.double() @ torch.stack(code)
    w[:, -1] += embed.bias.double() + W_SHIFT
    layer = Layer(width, width)
    layer.weight[:] = w / ACTIVATION_GAIN
    layer.fill(mapping.fc4)
    return mapping.eval().requires_grad_(False)


@torch.no_grad()
def shift_styles(painter: Painter) -> None:
    """Change the synthesis network so that its input is w + `W_SHIFT` instead of w."""
    for module in painter.synthesis.modules():
        if isinstance(module, ModulatedConv):
            affine = module.affine
            affine.bias -= W_SHIFT * (affine.weight * affine.weight_gain).sum(1)
