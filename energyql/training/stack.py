"""The heads of all attributes as stacked parameters, for training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.heads import SLOPE
from energyql.vocabulary import AttributeSpec


class HeadStack(torch.nn.Module):
    """One head an attribute, all of one width, on standardised latents.

    Args:
        latent_dim: numbers in a latent.
        outputs: outputs of each head.
        hidden: width of each head.
        random: for the initial weights.

    The outputs are those of the layers times `scale` plus `offset`, which `fit_outputs` sets: training then starts at
    the base rates, and learns as fast for an age in years as for one in 0 to 1.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, latent_dim: int, outputs: Sequence[int], hidden: int, random: torch.Generator) -> None:
        super().__init__()
        count, total = len(outputs), sum(outputs)
        self.outputs = list(outputs)
        hidden_weight = torch.randn(count, hidden, latent_dim, generator=random) / math.sqrt(latent_dim)
        self.hidden_weight = torch.nn.Parameter(hidden_weight)
        self.hidden_bias = torch.nn.Parameter(torch.zeros(count, hidden))
        self.out_weight = torch.nn.Parameter(torch.randn(total, hidden, generator=random) / math.sqrt(hidden))
        self.skip_weight = torch.nn.Parameter(torch.zeros(total, latent_dim))
        self.out_bias = torch.nn.Parameter(torch.zeros(total))
        self.register_buffer("scale", torch.ones(total))
        self.register_buffer("offset", torch.zeros(total))

    def fit_outputs(self, i: int, labels: Tensor, spec: AttributeSpec, *, balanced: bool = False) -> None:
        """Let head i start at the base rate of its labels, or at equal chances where classes are balanced."""
        known, rows = labels[~labels.isnan()], self.rows(i)
        if spec.kind == "continuous":
            self.scale[rows] = known.std(correction=0).clamp(min=1e-3 * (spec.high - spec.low))
            self.offset[rows] = known.mean()
        elif not balanced:
            # Half a label of each class keeps what never occurs finite.
            shares = torch.bincount(known.long(), minlength=max(2, self.outputs[i])).float() + 0.5
            logs = (shares / shares.sum()).log()
            self.offset[rows] = logs if spec.kind == "categorical" else (logs[1] - logs[0])

    def forward(self, x: Tensor) -> Tensor:
        """Standardised latents (batch, latent_dim) -> outputs of all heads side by side."""
        # One product for the hidden layers of all heads.
        hidden = F.leaky_relu(F.linear(x, self.hidden_weight.flatten(0, 1), self.hidden_bias.flatten()), SLOPE)
        hidden = hidden.unflatten(1, (len(self.outputs), -1))
        parts = [hidden[:, i] @ weight.T for i, weight in enumerate(self.out_weight.split(self.outputs))]
        outputs = torch.cat(parts, 1) + F.linear(x, self.skip_weight, self.out_bias)
        return outputs * self.scale + self.offset

    def rows(self, i: int) -> slice:
        """Where the outputs of head i are."""
        start = sum(self.outputs[:i])
        return slice(start, start + self.outputs[i])

    def copy_head(self, i: int, source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        """Copy what belongs to head i from one set of parameters to another."""
        for name in source:
            where: int | slice = i if name.startswith("hidden") else self.rows(i)
            target[name][where] = source[name][where]

    def unstandardised(self, i: int, parameters: Mapping[str, Tensor], mean: Tensor, std: Tensor) -> dict[str, Tensor]:
        """Head i of `parameters`, acting on latents as they come."""
        rows = self.rows(i)
        hidden_weight = parameters["hidden_weight"][i] / std
        scale = self.scale[rows]
        skip_weight = scale[:, None] * parameters["skip_weight"][rows] / std
        return {
            "hidden_weight": hidden_weight,
            "hidden_bias": parameters["hidden_bias"][i] - hidden_weight @ mean,
            "out_weight": scale[:, None] * parameters["out_weight"][rows],
            "skip_weight": skip_weight,
            "out_bias": scale * parameters["out_bias"][rows] + self.offset[rows] - skip_weight @ mean,
        }
