"""Transfers of several tensors from an accelerator to the CPU at once, because a program waits for each transfer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_cpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the same tensors on the CPU; tensors that are on one other device are moved by one transfer.

    They may have any shapes and dtypes. Tensors that are on the CPU already are returned themselves, and tensors of
    several devices are moved one by one.
    """
    if len(tensors) < 2 or tensors[0].device.type == "cpu" or len({tensor.device for tensor in tensors}) > 1:
        return [tensor.cpu() for tensor in tensors]
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.dtype, []).append(tensor.detach().reshape(-1))
    raw = [torch.cat(group).view(torch.uint8) for group in groups.values()]
    parts = torch.cat(raw).cpu().split([len(part) for part in raw])
    moved = {
        # A copy, because a number must not begin in the middle of a word.
        dtype: iter(part.clone().view(dtype).split([len(x) for x in group]))
        for (dtype, group), part in zip(groups.items(), parts, strict=True)
    }
    return [next(moved[tensor.dtype]).clone().view(tensor.shape) for tensor in tensors]
