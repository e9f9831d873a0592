"""Elliptical slice moves: Murray, Adams and MacKay 2010, arXiv 1001.0175, figure 2."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from energyql.sampling.draws import MOST_AHEAD, Draws, points_ahead

WHOLE = 2 * math.pi
MOST_SHRINKS = 100
"""Of one move; the bracket then is narrower than a float can tell."""


def slice_move(draws: Draws, rows: Tensor, exponents: Tensor, stream: str, bracket: float) -> None:
    """Move each of the rows once, which leaves `N(z; 0, I) exp(-βE)` as it is.

    Args:
        draws: the samples.
        rows: indices of those that move, ascending, (m,).
        exponents: β, (m,).
        stream: name of the random numbers.
        bracket: length of the arc around the sample, in radians, in which the move looks first, at a random place in
            it (Neal 2003, "Slice sampling", section 4.1, without stepping out). 2π is the whole ellipse, as published.
    """
    direction = draws.noise.normals(draws.z, f"{stream}/direction", rows)
    chances = draws.noise.uniforms(draws.z, 3, f"{stream}/level", rows).to(draws.z.dtype)
    beta, here = exponents, draws.z[rows]
    level = -beta * draws.e[rows] + chances[:, 0].log()
    if bracket < WHOLE:
        low = -bracket * chances[:, 1]
        high = low + bracket
        angle = low + bracket * chances[:, 2]
    else:  # a whole ellipse has no ends, and is cut where the move looks first
        angle = WHOLE * chances[:, 1]
        low, high = angle - WHOLE, angle
    left, shrinks = rows, 0
    while len(left) and shrinks < MOST_SHRINKS:
        number = shrinks % MOST_AHEAD
        if number == 0:
            chances = draws.noise.uniforms(draws.z, MOST_AHEAD, f"{stream}/{shrinks}", left).to(draws.z.dtype)
        tried = []
        for k in range(min(points_ahead(len(left)), MOST_AHEAD - number)):
            tried.append(angle)
            low, high = torch.where(angle < 0, angle, low), torch.where(angle < 0, high, angle)
            angle = low + chances[:, number + k] * (high - low)
        angles = torch.stack(tried, 1)[..., None]
        z = here[:, None] * angles.cos() + direction[:, None] * angles.sin()
        e = draws.evaluate(z, left)
        found, first = draws.count(left, -beta[:, None] * e > level[:, None])
        moved, which = left[found], first[found]
        draws.z[moved], draws.e[moved] = z[found, which], e[found, which]
        shrinks += len(tried)
        left, beta, level, here, direction, chances, low, high, angle = (
            x[~found] for x in (left, beta, level, here, direction, chances, low, high, angle)
        )
