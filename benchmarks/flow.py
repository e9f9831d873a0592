"""A conditional continuous normalising flow on w, in the way of StyleFlow, as a rival.

Abdal, Zhu, Mitra, Wonka: StyleFlow (2021, arXiv 2008.02401). Attributes condition a velocity field that leads from w at
time 0 to normal noise at the end (Chen et al. 2018, arXiv 1806.07366), between two moving norms. Maximum likelihood
trains it on pairs of w and attributes, with Hutchinson's estimate of the divergence (Grathwohl et al. 2019, arXiv
1810.01367). To sample, noise is led back under the attributes that are asked for; to edit, w is led to noise under its
attributes, and back under others. Written from the papers and from the settings of the published program.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
import torchdiffeq
from torch import Tensor, nn

from energyql.sampling import normals
from energyql.training.steps import StepFile, digest, learning_rate, optimizer_state, restore_optimizer

EPSILON, DECAY = 1e-4, 0.1
"""Of the moving norms: added to variances; weight of a new batch. As published."""
NOISE = 0.1
"""Standard deviation of the noise of our training, in standard deviations of a principal component."""
KEPT_EVERY = 200
"""Steps after which the state of a training is written."""
Slope = Callable[[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]


@dataclass(frozen=True)
class FlowSettings:
    """Sizes of a flow and of its training; by default those of StyleFlow's program.

    Attributes:
        hidden: width of each of `layers` hidden layers.
        layers: how many.
        pairs: of the training, in their order again and again.
        batch: pairs of a step.
        steps: of Adam.
        rate: largest learning rate.
        tolerance: of dopri5, relative and absolute, in training and after it.
        ours: whether principal components of w are standardised in front of the flow, noise of 0.1 standard deviations
            is added to them (w of a mapping network lies near a surface of as many dimensions as z has, where a density
            has no bound), and the rate falls by a cosine. None of it is published.
    """

    hidden: int = 512
    layers: int = 5
    pairs: int = 10_000
    batch: int = 5
    steps: int = 6_000
    rate: float = 1e-3
    tolerance: float = 1e-5
    ours: bool = False


class MovingNorm(nn.Module):
    """Standardises numbers by moving statistics of the batches seen before, then scales and shifts as learned.

    Args:
        size: how many numbers.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale, self.shift = (nn.Parameter(torch.zeros(size)) for _ in range(2))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.ones(size))

    def log_slope(self) -> Tensor:
        """Return the logarithm of the derivative of each number, (size,)."""
        return self.scale - 0.5 * (self.variance + EPSILON).log()

    def forward(self, x: Tensor) -> Tensor:
        """Return standardised x, (n, size); in training, statistics then move towards those of x."""
        y: Tensor = (x - self.mean) * self.log_slope().exp() + self.shift
        if self.training:
            seen = x.detach()
            self.mean = self.mean.lerp(seen.mean(0), DECAY)
            self.variance = self.variance.lerp(seen.var(0), DECAY)
        return y

    def inverse(self, y: Tensor) -> Tensor:
        """Return x of its standardised numbers."""
        return (y - self.shift) * (-self.log_slope()).exp() + self.mean


class ConditionalFlow(nn.Module):
    """Leads w to noise and back, under attributes.

    Args:
        size: numbers in w.
        conditions: numbers that attributes are given by.
        settings: of the network.
    """

    mean: Tensor
    axes: Tensor
    inverse: Tensor

    def __init__(self, size: int, conditions: int, settings: FlowSettings) -> None:
        super().__init__()
        widths = [size, *[settings.hidden] * settings.layers, size]
        self.widths = widths[1:]
        self.maps = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.gates = nn.Linear(conditions + 1, sum(self.widths))  # of all layers
        self.shifts = nn.Linear(conditions + 1, sum(self.widths), bias=False)
        self.first, self.last = MovingNorm(size), MovingNorm(size)
        self.root_time = nn.Parameter(torch.ones(()))  # the time that the flow takes is learned
        self.tolerance = settings.tolerance
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("axes", torch.eye(size))
        self.register_buffer("inverse", torch.eye(size))

    def velocity(self, t: Tensor, x: Tensor, attributes: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
        """Return dx/dt between the norms, at a share t of the time, and its derivative along vectors.

        Args:
            t: from 0 to 1.
            x: (n, size).
            attributes: (n, conditions).
            along: one vector for each of the first points, (m, size); m may be 0.

        Returns:
            The velocity, (n, size), and the derivatives, (m, size).
        """
        time, counts = self.root_time.square(), (len(x), len(along))
        given = torch.cat([(t * time).expand(len(x), 1), attributes], 1)
        gates, shifts = self.gates(given).sigmoid().split(self.widths, 1), self.shifts(given).split(self.widths, 1)
        for i, (linear, gate, shift) in enumerate(zip(self.maps, gates, shifts, strict=True)):
            x, along = (torch.cat([x, along]) @ linear.weight.t()).split(counts)
            x, along = (x + linear.bias) * gate + shift, along * gate[: len(along)]
            if i < len(self.maps) - 1:
                x = x.tanh()
                along = along * (1 - x[: len(along)].square())
        return time * x, time * along

    def loss(self, x: Tensor, attributes: Tensor, probe: Tensor) -> Tensor:
        """Return -log p of coordinates of w by one probe of the divergence, (n, size), for each sample, in nats."""

        def slope(t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            v, moved = self.velocity(t, state[0], attributes, probe)
            return v, (moved * probe).sum(1)

        slopes = self.first.log_slope().sum() + self.last.log_slope().sum()
        noise, growth = self._solve(slope, (self.first(x), x.new_zeros(len(x))), 0.0, 1.0)
        noise = self.last(noise)
        return 0.5 * noise.square().sum(1) + 0.5 * noise.shape[1] * math.log(2 * math.pi) - growth - slopes

    @torch.no_grad()
    def to_noise(self, w: Tensor, attributes: Tensor) -> Tensor:
        """Return the noise of w, (n, size), under its attributes, (n, conditions)."""
        return self.last(self._lead(self.first((w - self.mean) @ self.axes), attributes, 0.0, 1.0))

    @torch.no_grad()
    def to_w(self, noise: Tensor, attributes: Tensor) -> Tensor:
        """Return w of noise under attributes."""
        return self.first.inverse(self._lead(self.last.inverse(noise), attributes, 1.0, 0.0)) @ self.inverse + self.mean

    def _lead(self, x: Tensor, attributes: Tensor, start: float, end: float) -> Tensor:
        none = x[:0]
        return self._solve(lambda t, state: self.velocity(t, state[0], attributes, none)[:1], (x,), start, end)[0]

    def _solve(self, slope: Slope, state: tuple[Tensor, ...], start: float, end: float) -> list[Tensor]:
        times = torch.tensor([start, end])
        paths = torchdiffeq.odeint(slope, state, times, method="dopri5", rtol=self.tolerance, atol=self.tolerance)
        return [path[-1] for path in paths]


def train_flow(
    w: Tensor, attributes: Tensor, settings: FlowSettings, seed: int, path: Path, report: Callable[[float], None]
) -> tuple[ConditionalFlow, list[float], float]:
    """Train a flow on pairs of w, (n, size), and attributes, (n, conditions), or read the one that is at `path`.

    An interrupted training resumes at the state that is there.

    Returns:
        The flow, -log p of the pairs, in nats, of each step, and the seconds of CPU time that its training took.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = ConditionalFlow(w.shape[1], attributes.shape[1], settings)
    if settings.ours:
        variances, axes = torch.linalg.eigh(torch.cov(w.t()).reshape(w.shape[1], -1).double())
        scale = variances.clamp(min=1e-6 * float(variances[-1])).sqrt()
        flow.mean, flow.axes, flow.inverse = w.mean(0), (axes / scale).float(), (axes * scale).t().float()
    x = (w - flow.mean) @ flow.axes
    optimizer = torch.optim.Adam(flow.parameters(), settings.rate)
    file = StepFile(path, digest(("flow with moving norms", seed, asdict(settings)), w, attributes))
    losses, seconds = torch.zeros(0), 0.0
    if state := file.read_tensors():
        losses, seconds = state.pop("losses"), float(state.pop("seconds"))
        restore_optimizer(optimizer, state)
        flow.load_state_dict({name: tensor for name, tensor in state.items() if name in flow.state_dict()})
    while len(losses) < settings.steps:
        started = time.process_time()
        steps = range(len(losses), min(len(losses) + KEPT_EVERY, settings.steps))
        losses = torch.cat(
            [losses, torch.tensor([_step(flow, optimizer, x, attributes, settings, seed, step) for step in steps])]
        )
        seconds += time.process_time() - started
        facts = {"losses": losses, "seconds": torch.tensor(seconds, dtype=torch.float64)}
        file.write_tensors(flow.state_dict() | optimizer_state(optimizer) | facts)
        report(len(losses) / settings.steps)
    return flow.eval(), losses.tolist(), seconds


def _step(
    flow: ConditionalFlow,
    optimizer: torch.optim.Adam,
    x: Tensor,
    attributes: Tensor,
    settings: FlowSettings,
    seed: int,
    step: int,
) -> float:
    """Take a step of the training, and return its loss."""
    first = step * settings.batch
    rows = torch.arange(first, first + settings.batch) % len(x)
    chosen = x[rows]
    if settings.ours:
        optimizer.param_groups[0]["lr"] = settings.rate * learning_rate(step / settings.steps)
        chosen = chosen + NOISE * normals(seed, first, *chosen.shape, stream="flow/noise")
    probe = normals(seed, first, *chosen.shape, stream="flow/probe")
    optimizer.zero_grad()
    loss = flow.loss(chosen, attributes[rows], probe).mean()
    loss.backward()
    optimizer.step()
    return float(loss.detach())
