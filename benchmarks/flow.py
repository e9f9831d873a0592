"""A conditional continuous normalising flow on w, in the way of StyleFlow, as a rival.

Abdal, Zhu, Mitra, Wonka: StyleFlow (2021, arXiv 2008.02401). Attributes condition a velocity field that leads from w at
time 0 to normal noise at time 1 (Chen et al. 2018, arXiv 1806.07366). It is trained by maximum likelihood on pairs of w
and attributes, with Hutchinson's estimate of the divergence (Grathwohl et al. 2019, arXiv 1810.01367). To sample, noise
is led back under the attributes that are asked for; to edit, w is led to noise under its attributes, and back under
others. Written from the papers; what differs from StyleFlow's settings stands at `FlowSettings`.
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

from energyql.files import write_tensors
from energyql.training.steps import RUN, digest, learning_rate, read_state


@dataclass(frozen=True)
class FlowSettings:
    """Sizes of a flow and of its training.

    StyleFlow has w of 512 numbers, layers as wide, 17 attributes, 10,000 pairs in batches of 5 for 3 epochs at a rate
    of 1e-3, moving batch norms at both ends, and dopri5 at 1e-5 with gradients by the adjoint. Here principal
    components of w are standardised in place of the first norm, the steps of the solver in training are fixed, batches
    are larger, and the rate falls by a cosine.

    Attributes:
        hidden: width of each of `layers` hidden layers.
        layers: how many.
        pairs: of the training.
        batch: pairs of a step.
        steps: of Adam.
        rate: largest learning rate.
        solver_steps: of a fourth-order Runge-Kutta method, in training.
        noise: standard deviation of what is added to standardised w: w of a mapping network lies near a surface of as
            many dimensions as z has, where a density has no bound.
        tolerance: of dopri5, after training.
    """

    hidden: int = 256
    layers: int = 3
    pairs: int = 20_000
    batch: int = 256
    steps: int = 480
    rate: float = 2e-3
    solver_steps: int = 4
    noise: float = 0.1
    tolerance: float = 1e-3


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
        self.maps = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.gates = nn.ModuleList(nn.Linear(conditions + 1, 2 * b) for b in widths[1:])
        nn.init.zeros_(self.maps[-1].weight)  # so that the flow begins as the identity
        nn.init.zeros_(self.maps[-1].bias)
        nn.init.zeros_(self.gates[-1].weight[size:])
        nn.init.zeros_(self.gates[-1].bias[size:])
        self.settings = settings
        for name, shape in (("mean", (size,)), ("axes", (size, size)), ("inverse", (size, size))):
            self.register_buffer(name, torch.zeros(shape))

    def velocity(self, t: Tensor, x: Tensor, attributes: Tensor) -> Tensor:
        """Return dx/dt of standardised w, (n, size), at time t under attributes, (n, conditions)."""
        given = torch.cat([t.expand(len(x), 1), attributes], 1)
        for i, (linear, gate) in enumerate(zip(self.maps, self.gates, strict=True)):
            scale, shift = gate(given).chunk(2, 1)
            x = linear(x) * scale.sigmoid() + shift
            x = x.tanh() if i < len(self.maps) - 1 else x
        return x

    def loss(self, x: Tensor, attributes: Tensor, probe: Tensor) -> Tensor:
        """Return -log p of standardised w by one probe of the divergence, (n, size), for each sample, in nats."""

        def slope(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            x = state[0] if state[0].requires_grad else state[0].detach().requires_grad_()
            v = self.velocity(t, x, attributes)
            pulled = torch.autograd.grad(v, x, probe, create_graph=True)[0]
            return v, (pulled * probe).sum(1)

        times = torch.linspace(0, 1, self.settings.solver_steps + 1)
        path, growth = torchdiffeq.odeint(slope, (x, x.new_zeros(len(x))), times, method="rk4")
        noise = path[-1]
        return 0.5 * noise.square().sum(1) + 0.5 * noise.shape[1] * math.log(2 * math.pi) - growth[-1]

    @torch.no_grad()
    def to_noise(self, w: Tensor, attributes: Tensor) -> Tensor:
        """Return the noise of w, (n, size), under its attributes, (n, conditions)."""
        return self._lead((w - self.mean) @ self.axes, attributes, 0.0, 1.0)

    @torch.no_grad()
    def to_w(self, noise: Tensor, attributes: Tensor) -> Tensor:
        """Return w of noise under attributes."""
        return self._lead(noise, attributes, 1.0, 0.0) @ self.inverse + self.mean

    def _lead(self, x: Tensor, attributes: Tensor, start: float, end: float) -> Tensor:
        tolerance = self.settings.tolerance
        path: Tensor = torchdiffeq.odeint(
            lambda t, x: self.velocity(t, x, attributes), x, torch.tensor([start, end]), rtol=tolerance, atol=tolerance,
            method="dopri5",
        )  # fmt: skip
        return path[-1]


def train_flow(
    w: Tensor, attributes: Tensor, settings: FlowSettings, seed: int, path: Path, report: Callable[[float], None]
) -> tuple[ConditionalFlow, list[float], float]:
    """Train a flow on pairs of w, (n, size), and attributes, (n, conditions), or read the one that is at `path`.

    Returns:
        The flow, -log p of the pairs, in nats, of each step, and the seconds of CPU time that its training took.
    """
    started = time.process_time()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        flow = ConditionalFlow(w.shape[1], attributes.shape[1], settings)
        run = digest(("timed conditional flow", seed, asdict(settings)), w, attributes)
        state = read_state(path, run)
        if state is not None:
            losses, seconds = state.pop("losses").tolist(), float(state.pop("seconds"))
            flow.load_state_dict(state)
            return flow.eval(), losses, seconds
        variances, axes = torch.linalg.eigh(torch.cov(w.t()).reshape(w.shape[1], -1).double())
        scale = variances.clamp(min=1e-6 * float(variances[-1])).sqrt()
        flow.mean.copy_(w.mean(0))
        flow.axes.copy_(axes / scale)
        flow.inverse.copy_((axes * scale).t())
        x = (w - flow.mean) @ flow.axes
        optimizer, losses = torch.optim.Adam(flow.parameters(), settings.rate), []
        for step in range(settings.steps):
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * learning_rate(step / settings.steps)
            rows = torch.randint(len(x), (settings.batch,))
            chosen = x[rows] + settings.noise * torch.randn(settings.batch, x.shape[1])
            probe = torch.randint(2, chosen.shape).float() * 2 - 1
            optimizer.zero_grad()
            loss = flow.loss(chosen, attributes[rows], probe).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
            optimizer.step()
            losses.append(float(loss.detach()))
            report((step + 1) / settings.steps)
    seconds = time.process_time() - started
    facts = {"losses": torch.tensor(losses), "seconds": torch.tensor(seconds, dtype=torch.float64)}
    write_tensors(path, flow.state_dict() | facts | {RUN: run})
    return flow.eval(), losses, seconds
