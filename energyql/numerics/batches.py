"""Batches of few different sizes.

oneDNN compiles a product for each number of rows that comes, in a third of a millisecond, which is longer than most
products take; samplers have batches of every size, because samples end one by one. And where a CPU multiplies small
matrices in another order, samplers would enlarge the difference until a sample could be told from itself in another
batch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SIZES = (*range(16, 128, 16), *range(128, 256, 32), *range(256, 513, 64))
"""Rows of a batch, ascending: multiples of 16, as many numbers as the widest registers hold. What is left over may be
rounded in another way."""


def few_sizes(count: int) -> list[int]:
    """So many rows in batches of the largest of `SIZES`, and the rest in one of the smallest that holds it."""
    whole, rest = divmod(count, SIZES[-1])
    return [SIZES[-1]] * whole + [size for size in SIZES if size >= rest][: bool(rest)]


def in_batches(function: Callable[[Tensor], tuple[Tensor, ...]], z: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
    """What a function of rows says of `z`, (rows, z_dim), asked in batches of these sizes."""
    if sizes == [len(z)] or not sizes:
        return function(z)
    filled = torch.cat([z, z[-1:].expand(sum(sizes) - len(z), -1)])
    answers = zip(*(function(part) for part in filled.split(sizes)), strict=True)
    return tuple(torch.cat(parts)[: len(z)] for parts in answers)
