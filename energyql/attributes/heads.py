"""One attribute's network, and the networks of several attributes run as few products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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


@dataclass(frozen=True)
class _Group:
    """Heads that run together: of one hidden layer and any width, or of the same widths."""

    hidden_weight: Tensor
    hidden_bias: Tensor
    deeper: tuple[tuple[Tensor, Tensor], ...]  # (heads, width before, width), (heads, 1, width)
    out_weight: Tensor  # block-diagonal

    def __call__(self, latent: Tensor) -> Tensor:
        x = F.leaky_relu(F.linear(latent, self.hidden_weight, self.hidden_bias), SLOPE)
        if self.deeper:
            x = x.unflatten(1, (len(self.deeper[0][0]), -1)).transpose(0, 1)
            for weight, bias in self.deeper:
                x = F.leaky_relu(torch.baddbmm(bias, x, weight), SLOPE)
            x = x.transpose(0, 1).flatten(1)
        return F.linear(x, self.out_weight)


class FusedHeads:
    """Several heads as one function, `(batch, latent_dim) -> (batch, sum of outputs)` in the order given.

    Args:
        heads: at least one, all on the same latents.
    """

    def __init__(self, heads: Sequence[Head]) -> None:
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, head in enumerate(heads):
            widths = (len(head.hidden_bias), *(len(bias) for _, bias in head.deeper)) if head.deeper else ()
            groups.setdefault(widths, []).append(i)
        order = [i for members in groups.values() for i in members]
        self._groups = [_group([heads[i] for i in members]) for members in groups.values()]
        self._skip = torch.cat([heads[i].skip_weight for i in order])
        self._bias = torch.cat([heads[i].out_bias for i in order])
        self._columns: Tensor | None = None
        if order != list(range(len(heads))):
            blocks = torch.arange(len(self._bias), device=self._bias.device).split(
                [len(heads[i].out_bias) for i in order]
            )
            self._columns = torch.cat([blocks[order.index(i)] for i in range(len(heads))])

    def __call__(self, latent: Tensor) -> Tensor:
        parts = [group(latent) for group in self._groups]
        outputs = (parts[0] if len(parts) == 1 else torch.cat(parts, 1)) + F.linear(latent, self._skip, self._bias)
        return outputs if self._columns is None else outputs[:, self._columns]


def _group(heads: list[Head]) -> _Group:
    deeper = tuple(
        (
            torch.stack([head.deeper[i][0].T for head in heads]),
            torch.stack([head.deeper[i][1] for head in heads])[:, None],
        )
        for i in range(len(heads[0].deeper))
    )
    return _Group(
        torch.cat([head.hidden_weight for head in heads]),
        torch.cat([head.hidden_bias for head in heads]),
        deeper,
        torch.block_diag(*(head.out_weight for head in heads)),
    )
