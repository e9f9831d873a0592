"""Learn directions of the latent w through the generator, as in steerability and GANalyze.

A goal states how pictures should change for an amount alpha from -1 to 1. Its direction d is learned such that the
pictures of `w + alpha d` differ so from those of `w`, with the least squared error. In steerability (Jahanian et al.
2020, arXiv 1907.07171) pictures change as by an edit such as zoom; in GANalyze (Goetschalckx et al. 2019, arXiv
1906.10112) a number that is read off pictures rises.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.heads import AttributeBank
from energyql.attributes.judge import thumbnails
from energyql.attributes.labels import ImageLabeller, Numbers, as_numbers, call_labeller
from energyql.errors import ArgumentError, DataError, either
from energyql.generators.base import Generator
from energyql.numerics.pool import to_device
from energyql.numerics.shapes import Float
from energyql.progress import Report
from energyql.sampling import uniforms
from energyql.training.samples import PIXELS_AT_ONCE, Prior
from energyql.training.steps import learning_rate

Goal = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(pictures before a move of w, after it, alpha (batch,) from -1 to 1) -> squared error of the change, (batch,)."""
SIDE = 64
"""Side, in pixels, at which pictures are compared with edits: on larger ones, moved edges do not overlap."""
ZOOM, SHIFT, TURN, LIGHT = 2**0.5, 0.125, 0.35, 0.5
"""Edits at alpha = 1: factor of zoom and contrast, share of the side, angle in radians, light (pixels in [-1, 1])."""
STEPS, BATCH, RATE = 64, 4, 0.1
"""Adam: steps, samples in a step, and largest learning rate, in standard deviations of w under the prior."""
MOMENTUM, SMOOTHING = 0.9, 0.999
"""Decay rates of Adam's two moments. The second is of the whole gradient, not of each number, so that a direction does
not move w where pictures would not change."""
TESTS = 32
"""Number of samples that only measure how well goals are reached."""


def move_along(
    w: Float[Tensor, "batch w_dim"],
    moves: Float[Tensor, "batch w_dim"],
    layers: Sequence[int] | None,
    generator: Generator,
) -> Tensor:
    """Add moves to w: in all layers, or as W+, (batch, num_ws, w_dim), which differs from w only in some layers."""
    if layers is None:
        return w + moves
    rows = torch.zeros(generator.config.num_ws, 1, dtype=w.dtype)  # type: ignore[attr-defined]
    rows[list(layers)] = 1
    return w[:, None] + to_device(rows, w.device) * moves[:, None]


def learn_goals(
    goals: Mapping[str, Goal],
    prior: Prior,
    scaled: Float[Tensor, "w_dim components"],
    layers: Sequence[int] | None,
    report: Report,
) -> tuple[Float[Tensor, "goals components"], Float[Tensor, " goals"]]:
    """Learn the direction of each goal by Adam, all on the same prior samples.

    Args:
        scaled: matrix that maps whitened coordinates, in which directions are learned, to differences of w.
        layers: layers of the generator in which w moves; `None` for all.

    Returns:
        In float64, the directions in whitened coordinates, each the move for alpha = 1; and the results of `_shares`.

    Raises:
        ArgumentError: the error of a goal has no gradient with respect to w, or does not depend on w.
        DataError: the error of a goal or its gradient is not finite for a sample.
    """
    scaled = scaled.to(prior.device, torch.float32)
    steps = torch.zeros(len(goals), scaled.shape[1], device=prior.device, requires_grad=True)
    mean, square = torch.zeros_like(steps), torch.zeros(len(goals), 1, device=prior.device)
    for step in range(STEPS):
        w, alpha = _samples(prior, TESTS + step * BATCH, BATCH)
        with torch.no_grad():
            before = prior.generator.synthesize(w)
        grads = torch.zeros_like(steps)
        size = max(1, PIXELS_AT_ONCE // (8 * before.shape[-1] * before.shape[-2]))  # gradients take more memory
        for i, (name, goal) in enumerate(goals.items()):
            for part in (slice(start, start + size) for start in range(0, BATCH, size)):
                moves = alpha[part, None] * (steps[i : i + 1] @ scaled.t())
                after = prior.generator.synthesize(move_along(w[part], moves, layers, prior.generator))
                error = goal(before[part], after, alpha[part]).sum() / BATCH
                slope = torch.autograd.grad(error, steps, allow_unused=True)[0] if error.requires_grad else None
                if slope is None:
                    wrong = f"what is read for the goal {name!r} has no gradient that leads to w"
                    raise ArgumentError(wrong, hint="generator and function must return tensors that autograd follows")
                grads[i] += slope[i]
        mean = torch.lerp(grads, mean, MOMENTUM)
        square = torch.lerp(grads.square().mean(1, keepdim=True), square, SMOOTHING)
        scale = (square / (1 - SMOOTHING ** (step + 1))).sqrt().clamp(min=1e-30) * (1 - MOMENTUM ** (step + 1))
        with torch.no_grad():
            steps -= RATE * learning_rate(step / STEPS) * mean / scale
        report("learning", (step + 1) / STEPS)
    shares = _shares(goals, prior, steps.detach() @ scaled.t(), layers, report)
    rows = steps.detach().cpu().double()
    for name, step, share in zip(goals, rows, shares, strict=True):
        if not step.isfinite().all() or not share.isfinite():  # checked at the end, because a device waits for a check
            raise DataError(f"what is read for the goal {name!r}, or its gradient, is not finite for all pictures")
        if not step.any():
            raise ArgumentError(
                f"no move of w changes what the goal {name!r} is about",
                hint=f"leave it out of {either('goals', '--goals')}",
            )
    return rows, shares


@torch.no_grad()
def _shares(
    goals: Mapping[str, Goal], prior: Prior, moves: Float[Tensor, "goals w_dim"], layers: Sequence[int] | None,
    report: Report,
) -> Float[Tensor, " goals"]:  # fmt: skip
    """How well each goal is reached on unseen samples: 1 - its error / the error of unchanged pictures, at least 0."""
    parts: list[Tensor] = []
    for start in range(0, TESTS, BATCH):
        w, alpha = _samples(prior, start, BATCH)
        before = prior.generator.synthesize(w)
        for goal, move in zip(goals.values(), moves, strict=True):
            after = prior.generator.synthesize(move_along(w, alpha[:, None] * move, layers, prior.generator))
            parts += [goal(before, x, alpha).sum() for x in (before, after)]
        report("testing", (start + BATCH) / TESTS)
    errors = torch.stack(parts).cpu().double().view(-1, len(goals), 2).sum(0).t()
    return (1 - errors[1] / errors[0].clamp(min=1e-12)).clamp(min=0)


def _samples(prior: Prior, start: int, count: int) -> tuple[Float[Tensor, "count w_dim"], Float[Tensor, " count"]]:
    """Prior samples from `start` on, as w, and for each a random alpha from -1 to 1."""
    alpha = 2 * uniforms(prior.seed, start, count, 1, stream="alpha")[:, 0] - 1
    return prior.w_there(torch.arange(start, start + count)), to_device(alpha.float(), prior.device)


def _warp(images: Tensor, alpha: Tensor, matrix: Callable[[Tensor], Sequence[Any]]) -> tuple[Tensor, Tensor]:
    """Transform square pictures, and return a mask too, (batch, 1, side, side), false outside the old pictures.

    `matrix` gives, row by row, the 2 x 3 matrix from coordinates (-1 to 1) in the new picture to those in the old.
    """
    cells = [cell if isinstance(cell, Tensor) else torch.full_like(alpha, cell) for cell in matrix(alpha)]
    grid = F.affine_grid(torch.stack(cells, 1).view(-1, 2, 3), list(images.shape), align_corners=False)
    inside = (grid.abs() <= 1).all(-1)[:, None]
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False), inside


def _zoom(alpha: Tensor) -> Sequence[Any]:
    size = ZOOM**-alpha
    return size, 0, 0, 0, size, 0


def _turn(alpha: Tensor) -> Sequence[Any]:
    cos, sin = (TURN * alpha).cos(), (TURN * alpha).sin()
    return cos, -sin, 0, sin, cos, 0


def _light(images: Tensor, alpha: Tensor, channels: Sequence[int]) -> tuple[Tensor, Tensor]:
    light = to_device(torch.tensor([LIGHT * (i in channels) for i in range(3)])[:, None, None], images.device)
    return images + alpha[:, None, None, None] * light, torch.ones_like(images[:, :1], dtype=torch.bool)


def _contrast(images: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    mean = images.mean((1, 2, 3), keepdim=True)
    factor = ZOOM ** alpha[:, None, None, None]
    return mean + factor * (images - mean), torch.ones_like(images[:, :1], dtype=torch.bool)


EDITS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "zoom": partial(_warp, matrix=_zoom),
    "shift_x": partial(_warp, matrix=lambda alpha: (1, 0, -2 * SHIFT * alpha, 0, 1, 0)),
    "shift_y": partial(_warp, matrix=lambda alpha: (1, 0, 0, 0, 1, 2 * SHIFT * alpha)),
    "rotation": partial(_warp, matrix=_turn),
    "brightness": partial(_light, channels=(0, 1, 2)),
    "red": partial(_light, channels=(0,)),
    "green": partial(_light, channels=(1,)),
    "blue": partial(_light, channels=(2,)),
    "contrast": _contrast,
}
"""Edits by name: (square pictures in [-1, 1], alpha (batch,)) -> edited pictures, and a mask, false for pixels from
outside. Positive alpha zooms in, moves right or up, turns counterclockwise, and adds light or contrast."""


def _edit_error(before: Tensor, after: Tensor, alpha: Tensor, *, edit: str) -> Tensor:
    """A `Goal`: mean squared error of `after` against the edited `before`, without the border that a move lays bare."""
    small, result = (thumbnails(images, SIDE).clamp(-1, 1) for images in (before, after))
    with torch.no_grad():
        expected, mask = EDITS[edit](small, alpha)
    errors = (result - expected.clamp(-1, 1)).square().mean(1, keepdim=True) * mask
    return errors.sum((1, 2, 3)) / mask.sum((1, 2, 3))


def edit_goals(chosen: Sequence[str] | None, count: int) -> dict[str, Goal]:
    """Goals by name: pictures change as by the edits in `EDITS` that are chosen, by default the first `count`.

    Raises:
        ArgumentError: there is no edit of a chosen name, or more than `count` are chosen.
    """
    return {name: partial(_edit_error, edit=name) for name in _choose(tuple(EDITS), chosen, count)}


def number_goals(
    labeller: ImageLabeller | None, chosen: Sequence[str] | None, count: int, prior: Prior
) -> dict[str, Goal]:
    """Goals by name: a number that is read off pictures rises by alpha times its standard deviation under the prior.

    Args:
        labeller: a judge, or another function from pictures to attribute -> prediction or numbers (batch,).
        chosen: numbers, such as "hair = red", or attributes, such as "hair" for all its classes; by default the first
            `count` numbers.

    Raises:
        ArgumentError: `labeller` is `None`, there is no number of a chosen name, more than `count` are chosen, or a
            number is the same for all pictures.
        DataError: a number is not finite, or is read off some pictures only.
    """
    if labeller is None:
        raise ArgumentError("ganalyze reads numbers from pictures, and this model has no judge", hint="give a labeller")
    w = prior.w_there(torch.arange(TESTS))
    with torch.no_grad():
        parts = [_read(labeller, prior.generator.synthesize(part)) for part in w.split(BATCH)]
    spread = {name: float(torch.cat([_number(part, name) for part in parts]).std()) for name in parts[0]}
    names = _choose(tuple(spread), chosen, count)
    for name in names:
        if not math.isfinite(spread[name]):
            raise DataError(f"the standard deviation of {name!r} is not finite")
        if not spread[name]:
            raise ArgumentError(
                f"{name!r} is the same number for all pictures", hint=f"choose others: {either('goals', '--goals')}"
            )
    return {name: partial(_number_error, name=name, labeller=labeller, spread=spread[name]) for name in names}


def _number_error(
    before: Tensor, after: Tensor, alpha: Tensor, *, name: str, labeller: ImageLabeller, spread: float
) -> Tensor:
    """A `Goal` that a number read off pictures rises by `alpha * spread`: (rise / `spread` - alpha) squared."""
    with torch.no_grad():
        start = _number(_read(labeller, before, finite=False), name)
    return ((_number(_read(labeller, after, finite=False), name) - start) / spread - alpha).square()


def _read(labeller: ImageLabeller, pictures: Tensor, *, finite: bool = True) -> Numbers:
    readings = call_labeller(labeller, pictures, gradient=torch.is_grad_enabled())
    return as_numbers(readings, len(pictures), finite=finite)


def _number(numbers: Numbers, name: str) -> Tensor:
    if name not in numbers:
        names = ", ".join(map(repr, numbers))
        raise DataError(f"the labeller returned {name!r} for the first pictures, and only {names} later")
    return numbers[name]


def head_numbers(
    prior: Prior, bank: AttributeBank | None, samples: int, chosen: Sequence[str] | None, count: int
) -> Numbers:
    """Predictions of heads for the first prior samples, as numbers by name, (samples,).

    Such as the log-odds of "smile", the mean of "age", and the logit of "hair = red" minus the mean of all classes.

    Args:
        chosen: see `number_goals`.

    Raises:
        ArgumentError: `bank` is `None`, there is no number of a chosen name, or more than `count` are chosen.
    """
    if bank is None:
        raise ArgumentError("this model has no heads, which interfacegan follows", hint="energyql train makes some")
    with torch.no_grad():
        numbers = as_numbers(bank.to("cpu").predict(prior.read(torch.arange(samples), bank.space)), samples)
    return {name: numbers[name] for name in _choose(tuple(numbers), chosen, count)}


def _choose(goals: Sequence[str], chosen: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Names of the chosen goals, in the order of `goals`: "hair" chooses "hair = red" and all other classes."""
    if chosen is None:
        return tuple(goals[:count])
    if not isinstance(chosen, list | tuple) or not chosen or not all(isinstance(name, str) for name in chosen):
        raise ArgumentError(f"goals are a list of names, not {chosen!r}", hint='such as ["zoom", "rotation"]')
    attributes = {name: name.split(" = ")[0] for name in goals}
    if unknown := [name for name in chosen if name not in attributes and name not in attributes.values()]:
        raise ArgumentError(f"there is no goal {unknown[0]!r}", hint=f"goals are {', '.join(goals)}")
    names = tuple(name for name, attribute in attributes.items() if name in chosen or attribute in chosen)
    if (total := len(names)) > count:
        raise ArgumentError(f"{total} goals are named, for at most {count} directions", hint=f"raise count, -n {total}")
    return names
