"""Batches of few different sizes.

A CPU multiplies small matrices in another order, and samplers would enlarge the difference until a sample could be told
from itself in another batch. And products in a lower precision are compiled for each number of rows that comes, in
milliseconds, which is longer than they take; samplers have batches of every size, because samples end one by one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LEAST = 8
MULTIPLE = 16
PARTS = (512, 128)
"""Rows of what a larger batch is cut into."""


def at_least(count: int) -> list[int]:
    """So many rows in one batch, filled up if they are very few."""
    return [max(count, LEAST)] if count else []


def few_sizes(count: int) -> list[int]:
    """So many rows in batches of 8, of multiples of 16 up to 128, and of 512; the last of them is filled up."""
    sizes = []
    for part in PARTS:
        sizes += [part] * (count // part)
        count %= part
    if count:
        sizes.append(LEAST if count <= LEAST else -(-count // MULTIPLE) * MULTIPLE)
    return sizes


def in_batches(function: Callable[[Tensor], tuple[Tensor, ...]], z: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
    """What a function of rows says of `z`, (rows, z_dim), asked in batches of these sizes."""
    if sizes == [len(z)] or not sizes:
        return function(z)
    filled = torch.cat([z, z[-1:].expand(sum(sizes) - len(z), -1)])
    answers = zip(*(function(part) for part in filled.split(sizes)), strict=True)
    return tuple(torch.cat(parts)[: len(z)] for parts in answers)
