"""Transfers of tensors between the CPU and an accelerator, for which a program waits as seldom as possible."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_cpu(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the same tensors on the CPU; tensors that are on one other device are moved by one transfer.

    They may have any shapes and dtypes. Tensors that are on the CPU already are returned themselves, and tensors of
    several other devices are moved one by one.
    """
    there = [tensor for tensor in tensors if tensor.device.type != "cpu"]
    if len(there) < 2 or len({tensor.device for tensor in there}) > 1:
        return [tensor.cpu() for tensor in tensors]
    groups: dict[torch.dtype, list[Tensor]] = {}
    for tensor in there:
        groups.setdefault(tensor.dtype, []).append(tensor.detach().reshape(-1))
    raw = [torch.cat(group).view(torch.uint8) for group in groups.values()]
    parts = torch.cat(raw).cpu().split([len(part) for part in raw])
    moved = {
        # A copy, because a number must not begin in the middle of a word.
        dtype: iter(part.clone().view(dtype).split([len(x) for x in group]))
        for (dtype, group), part in zip(groups.items(), parts, strict=True)
    }
    return [
        tensor if tensor.device.type == "cpu" else next(moved[tensor.dtype]).clone().view(tensor.shape)
        for tensor in tensors
    ]


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU on `device`; a program does not wait until kernels that were launched before end."""
    # MPS reads the memory of the CPU later, when it may hold other numbers.
    return tensor.to(device, non_blocking=device.type != "mps")
