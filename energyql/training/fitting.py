"""Heads while they are fitted: losses, looks at the held-out latents, calibration, and a state to go on from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from energyql.attributes.heads import Head
from energyql.training.losses import (
    attribute_loss,
    balanced_accuracy,
    balancing_weights,
    log_prior_shift,
    residual,
    temperature,
)
from energyql.training.stack import HeadStack
from energyql.vocabulary import AttributeSpec


@dataclass(frozen=True)
class HeadReport:
    """How well a head reads latents that it has not learned from.

    Attributes:
        accuracy: balanced accuracy (mean recall over classes); for a continuous attribute, 1 - mean absolute error
            divided by the range.
        temperature: what the logits were divided by to be calibrated.
        std: residual standard deviation of a continuous attribute.
        steps: after how many steps the head was at its best.
    """

    accuracy: float
    temperature: float
    std: float
    steps: int = 0


class Fit:
    """A stack, its data, and each head as it was when it did best."""

    def __init__(
        self, stack: HeadStack, x: Tensor, targets: Tensor, specs: list[AttributeSpec], split: int, balance: bool
    ) -> None:
        self.stack, self.x, self.targets, self.specs, self.split = stack, x, targets, specs, split
        self.parameters = {name: parameter.detach() for name, parameter in stack.named_parameters()}
        self.best = {name: parameter.clone() for name, parameter in self.parameters.items()}
        self.best_loss = torch.full((len(specs),), math.inf)
        self.best_step = torch.zeros(len(specs), dtype=torch.int64)
        self.since = 0  # looks in which no head became better
        self.weights: list[Tensor | None] = [None] * len(specs)
        self.shifts = [torch.zeros(count, device=x.device) for count in stack.outputs]
        for i, spec in enumerate(specs):
            stack.fit_outputs(i, targets[:split, i], spec, balanced=balance)
        if balance:
            for i, spec in enumerate(specs):
                if spec.kind != "continuous":
                    weights = balancing_weights(targets[:split, i], spec)
                    self.weights[i], self.shifts[i] = weights, log_prior_shift(weights, spec)

    def loss(self, index: Tensor) -> Tensor:
        parts = self.stack(self.x[index]).split(self.stack.outputs, 1)
        columns = zip(parts, self.targets[index].unbind(1), self.specs, self.weights, strict=True)
        return torch.stack([attribute_loss(*column) for column in columns]).sum()

    @torch.no_grad()
    def held_out(self, parameters: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Outputs and labels of each head on the held-out latents, free of the weights of classes."""
        outputs = torch.func.functional_call(self.stack, dict(parameters), (self.x[self.split :],))
        parts = outputs.split(self.stack.outputs, 1)
        labels = self.targets[self.split :].unbind(1)
        return [(part - shift, label) for part, shift, label in zip(parts, self.shifts, labels, strict=True)]

    def look(self, step: int) -> None:
        """Keep the heads that are better than ever, judged as they will be used: with their best temperature."""
        self.since += 1
        for i, (outputs, labels) in enumerate(self.held_out(self.parameters)):
            loss = temperature(outputs, labels, self.specs[i], candidates=17)[1]
            if loss < self.best_loss[i]:
                self.best_loss[i], self.best_step[i], self.since = loss, step, 0
                self.stack.copy_head(i, self.parameters, self.best)

    def finished(self, patience: int | None) -> bool:
        return patience is not None and self.since >= patience

    def state(self, optimizer: torch.optim.Optimizer, random: torch.Generator, step: int) -> dict[str, Tensor]:
        state = {f"now/{name}": tensor for name, tensor in self.parameters.items()}
        state |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        for i, moments in optimizer.state_dict()["state"].items():
            state |= {f"optimizer/{i}/{name}": tensor for name, tensor in moments.items()}
        counters = torch.tensor([step, self.since])
        return state | {
            "counters": counters, "loss": self.best_loss, "step": self.best_step, "random": random.get_state()
        }  # fmt: skip

    def restore(
        self, state: Mapping[str, Tensor] | None, optimizer: torch.optim.Optimizer, random: torch.Generator
    ) -> int:
        """Go back to a state; returns the number of steps it had taken."""
        if state is None:
            return 0
        for name in self.parameters:
            self.parameters[name].copy_(state[f"now/{name}"])
            self.best[name].copy_(state[f"best/{name}"])
        moments: dict[int, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            if key.startswith("optimizer/"):
                _, i, name = key.split("/")
                moments.setdefault(int(i), {})[name] = tensor
        optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})
        self.best_loss, self.best_step = state["loss"].clone(), state["step"].clone()
        random.set_state(state["random"])
        step, self.since = (int(number) for number in state["counters"])
        return step

    @torch.no_grad()
    def calibrated(self, mean: Tensor, std: Tensor) -> tuple[dict[str, Head], dict[str, HeadReport]]:
        """The best of each head with its temperature or residual, and what the held-out latents say of it."""
        heads, reports = {}, {}
        for i, (outputs, labels) in enumerate(self.held_out(self.best)):
            spec, head = self.specs[i], self.stack.unstandardised(i, self.best, mean, std)
            divisor, error = temperature(outputs, labels, spec)[0], residual(outputs, labels, spec)
            heads[spec.name] = Head(
                head["hidden_weight"], head["hidden_bias"], head["out_weight"] / divisor,
                head["skip_weight"] / divisor, (head["out_bias"] - self.shifts[i]) / divisor,
                torch.tensor(error, device=mean.device),
            )  # fmt: skip
            accuracy = balanced_accuracy(outputs, labels, spec)
            reports[spec.name] = HeadReport(accuracy, divisor, error, int(self.best_step[i]))
        return heads, reports
