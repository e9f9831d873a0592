"""Fit the mapping network z -> w on unlimited pairs: no pictures are needed."""

from __future__ import annotations

import math

import torch
from torch import nn

from energyql.generators.stylegan2 import MappingNetwork
from recipes.avatars.factors import Z_DIM, Factors
from recipes.avatars.synthesis import CONFIG


def fit_mapping(
    embed: nn.Linear, *, steps: int = 5000, batch: int = 2048, lr: float = 0.1, seed: int = 11
) -> MappingNetwork:
    """The network that gives the w which `embed` makes of the code of z."""
    torch.manual_seed(seed)
    factors = Factors()
    mapping = MappingNetwork(CONFIG)
    compiled = torch.compile(mapping)
    optimizer = torch.optim.Adam(mapping.parameters(), lr=lr, betas=(0.9, 0.99))
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, step / 200) * 0.5 * (1 + math.cos(math.pi * step / steps))
        z = torch.randn(batch, Z_DIM, generator=generator)
        with torch.no_grad():
            target = embed(factors(z).code)
        with torch.autocast("cpu", torch.bfloat16):
            w = compiled(z)
        loss = (w.float() - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 200 == 0:
            share = loss.item() / target.var(0).mean().item()
            print(f"mapping {step}/{steps} error {loss.item():.4f}, {share:.1%} of the variance", flush=True)
    mapping.eval().requires_grad_(False)
    return mapping
