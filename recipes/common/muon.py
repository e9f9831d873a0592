"""Muon for the convolutions, Adam for the rest.

Muon (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks") replaces the momentum of a matrix
by the nearest orthogonal matrix, so that all its directions learn at one speed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the iteration x <- a x + b x x' x + c x x' x x' x, which moves singular values toward 1."""
ITERATIONS = 5


class Muon:
    """Optimises a network.

    Args:
        network: its 3x3 convolutions take steps of Muon, all other parameters that need a gradient steps of Adam.
        lr: of Adam; a step of Muon has the length `lr` times the norm of the weight.
    """

    def __init__(self, network: nn.Module, lr: float) -> None:
        self.lr = lr
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.kernels = [parameter for parameter in trained if parameter.ndim == 4 and parameter.shape[-1] == 3]
        own = {id(kernel) for kernel in self.kernels}
        self.adam = torch.optim.Adam(
            [parameter for parameter in trained if id(parameter) not in own], betas=(0.9, 0.99)
        )
        self.momentum = [torch.zeros_like(kernel) for kernel in self.kernels]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.adam.zero_grad()
        for kernel in self.kernels:
            kernel.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters along their gradients."""
        for group in self.adam.param_groups:
            group["lr"] = self.lr
        self.adam.step()
        for kernel, momentum in zip(self.kernels, self.momentum, strict=True):
            assert kernel.grad is not None
            momentum.lerp_(kernel.grad, 1 - MOMENTUM)
            direction = orthogonalized(kernel.grad.lerp(momentum, MOMENTUM).flatten(1)).view_as(kernel)
            kernel.add_(direction, alpha=-self.lr * (kernel.norm() / direction.norm()).item())

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on."""
        return {"adam": self.adam.state_dict(), "momentum": self.momentum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self.adam.load_state_dict(state["adam"])
        for own, kept in zip(self.momentum, state["momentum"], strict=True):
            own.copy_(kept)


def orthogonalized(matrix: Tensor) -> Tensor:
    """Return about the nearest matrix with orthonormal rows, in bfloat16 arithmetic; rows are not more than columns."""
    a, b, c = NEWTON_SCHULZ
    x = (matrix / (matrix.norm() + 1e-8)).bfloat16()
    for _ in range(ITERATIONS):
        squares = x @ x.T
        x = a * x + (b * squares + c * squares @ squares) @ x
    result: Tensor = x.float()
    return result
