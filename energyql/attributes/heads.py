"""One attribute's network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from energyql.errors import ModelError

SLOPE = 0.2  # of the leaky ReLU after each hidden layer
MOST_LAYERS = 16


@dataclass(frozen=True)
class Head:
    """`out(h) + skip(x)` on a latent x, where h is x after one or more hidden layers, each with a leaky ReLU.

    The linear path keeps a gradient where the rest is flat. Without hidden units (width 0) it is all there is.

    Attributes:
        hidden_weight: (width, latent_dim); hidden_bias: (width,), the first hidden layer.
        out_weight: (outputs, last width); skip_weight: (outputs, latent_dim); out_bias: (outputs,).
        std: residual standard deviation of a continuous attribute, a scalar; 1 for the others.
        deeper: weight (width, width before) and bias (width,) of each further hidden layer.
    """

    hidden_weight: Tensor
    hidden_bias: Tensor
    out_weight: Tensor
    skip_weight: Tensor
    out_bias: Tensor
    std: Tensor
    deeper: tuple[tuple[Tensor, Tensor], ...] = ()

    def tensors(self) -> dict[str, Tensor]:
        """All numbers of the head, by the names they are stored under."""
        found = {field: getattr(self, field) for field in FIELDS}
        for i, (weight, bias) in enumerate(self.deeper):
            found |= {f"deeper{i}_weight": weight, f"deeper{i}_bias": bias}
        return found

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Head:
        """Undoes `tensors`; what it does not know it leaves alone.

        Raises:
            KeyError: one is missing.
        """
        deeper: list[tuple[Tensor, Tensor]] = []
        while f"deeper{len(deeper)}_weight" in tensors and len(deeper) < MOST_LAYERS:
            i = len(deeper)
            deeper.append((tensors[f"deeper{i}_weight"], tensors[f"deeper{i}_bias"]))
        return cls(**{field: tensors[field] for field in FIELDS}, deeper=tuple(deeper))

    def to(self, device: torch.device | str) -> Head:
        """The same head on another device."""
        return Head.from_tensors({name: tensor.to(device) for name, tensor in self.tensors().items()})

    def check(self, name: str, outputs: int, latent_dim: int) -> None:
        """Raises ModelError unless the shapes are those of a head with so many outputs on such latents."""
        width = len(self.hidden_bias) if self.hidden_bias.ndim else 0
        shapes: dict[str, tuple[int, ...]] = {"hidden_weight": (width, latent_dim), "hidden_bias": (width,)}
        for i, (_, bias) in enumerate(self.deeper):
            before, width = width, len(bias) if bias.ndim else 0
            shapes |= {f"deeper{i}_weight": (width, before), f"deeper{i}_bias": (width,)}
        shapes |= {"out_weight": (outputs, width), "skip_weight": (outputs, latent_dim), "out_bias": (outputs,)}
        shapes |= {"std": ()}
        tensors = self.tensors()
        for field, shape in shapes.items():
            if tuple(tensors[field].shape) != shape:
                raise ModelError(f"the head of {name!r}: {field} has shape {tuple(tensors[field].shape)}, not {shape}")


FIELDS = ("hidden_weight", "hidden_bias", "out_weight", "skip_weight", "out_bias", "std")
