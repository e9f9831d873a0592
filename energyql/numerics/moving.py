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
    flat = [tensor.detach().reshape(-1) for tensor in tensors]
    dense = [x if x.stride(0) == 1 else x.clone(memory_format=torch.contiguous_format) for x in flat]
    raw = [x.view(torch.uint8) for x in dense]
    parts = torch.cat(raw).cpu().split([len(part) for part in raw])
    # Copies, because a number must not begin in the middle of a word.
    return [part.clone().view(tensor.dtype).view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
