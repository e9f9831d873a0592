"""Rows scaled to unit second moment, as StyleGAN's mapping network does with z, and the derivative of that."""

from __future__ import annotations

import torch
from torch import Tensor

NORM_EPSILON = 1e-8


def inverse_norm(x: Tensor) -> Tensor:
    """What scales each row of (batch, dim) to unit second moment, (batch, 1)."""
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    inverse: Tensor = (norm.square() / x.shape[1] + NORM_EPSILON).rsqrt()
    return inverse


def normalized(x: Tensor) -> Tensor:
    """Each row of (batch, dim) scaled to unit second moment."""
    return x * inverse_norm(x)


def normalized_back(grad: Tensor, scaled: Tensor, scale: Tensor) -> Tensor:
    """From the gradient with respect to `scaled = x * scale` to that with respect to x: what points along x is lost.

    Args:
        grad: (batch, dim); a new tensor is returned.
        scaled: (batch, dim), as `normalized` returns it.
        scale: (batch, 1), as `inverse_norm` returns it.
    """
    along = (grad * scaled).sum(1, keepdim=True)
    return torch.addcmul(grad, along, scaled, value=-1 / scaled.shape[1]).mul_(scale)
