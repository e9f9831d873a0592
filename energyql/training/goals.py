"""Directions of w that are learned through the generator: to edit pictures, or to make a number read from them rise.

A goal says how pictures should change by an amount alpha from -1 to 1. Its direction d is the one for which the
pictures of `w + alpha d` come closest to that, in squared error. The linear walks of steerability (Jahanian et al.
2020, arXiv 1907.07171) and of GANalyze (Goetschalckx et al. 2019, arXiv 1906.10112) differ in their goals only.
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
from energyql.attributes.labels import ImageLabeller, Numbers, as_numbers
from energyql.attributes.pictures import call_reader
from energyql.errors import ArgumentError, DataError
from energyql.generators.base import Generator
from energyql.numerics.shapes import Float
from energyql.progress import Report
from energyql.sampling import uniforms
from energyql.training.samples import PIXELS_AT_ONCE, Prior
from energyql.training.steps import learning_rate

Goal = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(pictures before, pictures after, alpha (batch,)) -> the squared error of the change, (batch,)."""
SIDE = 64
"""Side of the pictures that an edit is compared on: on larger ones, edges that move by some pixels do not overlap."""
ZOOM, SHIFT, TURN, LIGHT = 2**0.5, 0.125, 0.35, 0.5
"""Of an edit by alpha = 1: the factor of its size, the share of its side that a picture moves by, the angle in radians
that it turns by against the clock, and what is added to the values of pixels, which go from -1 to 1. The factor of the
contrast is that of the size."""
STEPS, BATCH, RATE = 64, 4, 0.1
"""Steps of Adam, samples of each, and the largest learning rate, for w in standard deviations of the prior."""
MOMENTUM, SMOOTHING = 0.9, 0.999
"""Of Adam, whose gradients are here divided by their size as a whole and not number by number. So a direction has no
part along which nothing changes."""
TESTS = 32
"""Samples that only the share of a goal is measured on."""


def move_along(
    w: Float[Tensor, "batch w_dim"],
    moves: Float[Tensor, "batch w_dim"],
    layers: Sequence[int] | None,
    generator: Generator,
) -> Tensor:
    """Return moved w; where layers are given, as W+, (batch, num_ws, w_dim), of which only these rows move."""
    if layers is None:
        return w + moves
    rows = torch.zeros(generator.config.num_ws, 1).to(w)  # type: ignore[attr-defined]
    rows[list(layers)] = 1
    return w[:, None] + rows * moves[:, None]


def learn_goals(
    goals: Mapping[str, Goal],
    prior: Prior,
    scaled: Float[Tensor, "w_dim components"],
    layers: Sequence[int] | None,
    report: Report,
) -> tuple[Float[Tensor, "goals components"], Float[Tensor, " goals"]]:
    """Learn the direction of each goal by Adam, see `SMOOTHING`, all on the same prior samples.

    Args:
        goals: name -> goal.
        prior: of the samples.
        scaled: from whitened coordinates, in which directions are learned, to w.
        layers: rows of W+ that move; all by default.
        report: told the progress.

    Returns:
        The directions in whitened coordinates, as long as alpha = 1 asks for, and the share of each goal that its
        direction reaches on other samples: 1 less the squared error as a share of that of unchanged pictures, and 0
        where it is larger. Both float64.

    Raises:
        ArgumentError: the pictures, or what a goal reads of them, have no gradient, or a goal does not hang on w.
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
            for part in torch.arange(BATCH).split(size):
                moves = alpha[part, None] * (steps[i] @ scaled.t())
                after = prior.generator.synthesize(move_along(w[part], moves, layers, prior.generator))
                error = goal(before[part], after, alpha[part]).sum() / BATCH
                slope = torch.autograd.grad(error, steps, allow_unused=True)[0] if error.requires_grad else None
                if slope is None:
                    raise ArgumentError(
                        f"what is read for the goal {name!r} has no gradient that leads to w",
                        hint="it takes a generator and a function whose results are tensors that autograd follows; or "
                        "label pictures with energyql train --labeller",
                    )
                grads[i] += slope[i]
        mean = torch.lerp(grads, mean, MOMENTUM)
        square = torch.lerp(grads.square().mean(1, keepdim=True), square, SMOOTHING)
        scale = (square / (1 - SMOOTHING ** (step + 1))).sqrt().clamp(min=1e-30) * (1 - MOMENTUM ** (step + 1))
        with torch.no_grad():
            steps -= RATE * learning_rate(step / STEPS) * mean / scale
        report("learning", (step + 1) / STEPS)
    found = steps.detach()
    if still := [name for name, step in zip(goals, found, strict=True) if not step.isfinite().all() or not step.any()]:
        raise ArgumentError(f"no move of w changes what the goal {still[0]!r} is about", hint="leave it out: --goals")
    return found.double().cpu(), _shares(goals, prior, found @ scaled.t(), layers, report)


@torch.no_grad()
def _shares(
    goals: Mapping[str, Goal], prior: Prior, moves: Float[Tensor, "goals w_dim"], layers: Sequence[int] | None,
    report: Report,
) -> Float[Tensor, " goals"]:  # fmt: skip
    errors = torch.zeros(2, len(goals), dtype=torch.double)
    for start in range(0, TESTS, BATCH):
        w, alpha = _samples(prior, start, BATCH)
        before = prior.generator.synthesize(w)
        for i, (goal, move) in enumerate(zip(goals.values(), moves, strict=True)):
            after = prior.generator.synthesize(move_along(w, alpha[:, None] * move, layers, prior.generator))
            errors[:, i] += torch.stack([goal(before, x, alpha).sum() for x in (before, after)]).double().cpu()
        report("testing", (start + BATCH) / TESTS)
    return (1 - errors[1] / errors[0].clamp(min=1e-12)).clamp(min=0)


def _samples(prior: Prior, start: int, count: int) -> tuple[Float[Tensor, "count w_dim"], Float[Tensor, " count"]]:
    """Return w and alpha, uniform from -1 to 1, of prior samples."""
    alpha = 2 * uniforms(prior.seed, start, count, 1, stream="alpha")[:, 0] - 1
    return prior.w(torch.arange(start, start + count)).to(prior.device), alpha.float().to(prior.device)


def _warp(images: Tensor, alpha: Tensor, matrix: Callable[[Tensor], Sequence[Any]]) -> tuple[Tensor, Tensor]:
    """Return pictures under the map from their new places, -1 to 1 on both axes, to the old ones, and what is known."""
    rows = torch.stack([torch.as_tensor(cell).to(alpha).expand_as(alpha) for cell in matrix(alpha)], 1)
    grid = F.affine_grid(rows.view(-1, 2, 3), list(images.shape), align_corners=False)
    known = (grid.abs() <= 1).all(-1)[:, None]
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False), known


def _zoom(alpha: Tensor) -> Sequence[Any]:
    size = ZOOM**-alpha
    return size, 0, 0, 0, size, 0


def _turn(alpha: Tensor) -> Sequence[Any]:
    cos, sin = (TURN * alpha).cos(), (TURN * alpha).sin()
    return cos, -sin, 0, sin, cos, 0


def _light(images: Tensor, alpha: Tensor, channels: Sequence[int]) -> tuple[Tensor, Tensor]:
    chosen = torch.zeros(3, 1, 1).to(images)
    chosen[list(channels)] = LIGHT
    return images + alpha[:, None, None, None] * chosen, torch.ones_like(images[:, :1], dtype=torch.bool)


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
"""Edits by name: (square pictures in [-1, 1], alpha) -> the edited pictures, and which of their pixels are known. They
zoom in, move to the right and up, turn against the clock, and make pictures lighter, for positive alpha."""


def _edit_error(before: Tensor, after: Tensor, alpha: Tensor, *, edit: str) -> Tensor:
    small, result = (thumbnails(images, SIDE).clamp(-1, 1) for images in (before, after))
    with torch.no_grad():
        wanted, known = EDITS[edit](small, alpha)
    errors = (result - wanted.clamp(-1, 1)).square().mean(1, keepdim=True) * known
    return errors.sum((1, 2, 3)) / known.sum((1, 2, 3))


def edit_goals(chosen: Sequence[str] | None, count: int) -> dict[str, Goal]:
    """Return the goals of steerability: those of `EDITS` that are chosen; by default the first `count`.

    Raises:
        ArgumentError: there is no such edit, or more than `count` are chosen.
    """
    return {name: partial(_edit_error, edit=name) for name in _choose(tuple(EDITS), chosen, count)}


def number_goals(
    labeller: ImageLabeller | None, chosen: Sequence[str] | None, count: int, prior: Prior
) -> dict[str, Goal]:
    """Return goals of GANalyze: that a number rises by alpha standard deviations of it among prior samples.

    Args:
        labeller: what reads the numbers, such as a judge; see `as_numbers`.
        chosen: names of the numbers, or of attributes; all by default.
        count: most goals.
        prior: of the samples.

    Raises:
        ArgumentError: there is no labeller or no such number, more than `count` are chosen, or one is the same for all
            pictures.
        DataError: the labeller does not return the same finite numbers for all pictures.
    """
    if labeller is None:
        raise ArgumentError(
            "ganalyze reads numbers from pictures, and this model has no judge",
            hint="give labeller=, or --labeller module:function; interfacegan follows heads",
        )
    w = prior.w(torch.arange(TESTS)).to(prior.device)
    with torch.no_grad():
        parts = [_read(labeller, prior.generator.synthesize(part)) for part in w.split(BATCH)]
    spread = {name: float(torch.cat([_number(part, name) for part in parts]).std()) for name in parts[0]}
    names = _choose(tuple(spread), chosen, count)
    for name in names:
        if not math.isfinite(spread[name]):
            raise DataError(f"the standard deviation of {name!r} is not finite", hint="let the labeller scale it down")
        if not spread[name]:
            raise ArgumentError(f"{name!r} is the same number for all pictures", hint="choose others with --goals")
    return {name: partial(_number_error, name=name, labeller=labeller, spread=spread[name]) for name in names}


def _number_error(
    before: Tensor, after: Tensor, alpha: Tensor, *, name: str, labeller: ImageLabeller, spread: float
) -> Tensor:
    with torch.no_grad():
        start = _number(_read(labeller, before), name)
    return ((_number(_read(labeller, after), name) - start) / spread - alpha).square()


def _read(labeller: ImageLabeller, pictures: Tensor) -> Numbers:
    return as_numbers(call_reader(labeller, pictures), len(pictures))


def _number(numbers: Numbers, name: str) -> Tensor:
    if name not in numbers:
        raise DataError(
            f"the labeller returned {name!r} for the first pictures, and only {', '.join(map(repr, numbers))} later",
            hint="it must return the same names in every call",
        )
    return numbers[name]


def head_numbers(
    prior: Prior, bank: AttributeBank | None, samples: int, chosen: Sequence[str] | None, count: int
) -> Numbers:
    """Return the outputs of the chosen heads, by default of the first `count`, for samples; see `as_numbers`.

    Raises:
        ArgumentError: there are no heads, or not these, or more than `count` are chosen.
    """
    if bank is None:
        raise ArgumentError("this model has no heads, which interfacegan follows", hint="energyql train makes some")
    with torch.no_grad():
        found = as_numbers(bank.to("cpu").predict(prior.read(torch.arange(samples), bank.space)), samples)
    return {name: found[name] for name in _choose(tuple(found), chosen, count)}


def _choose(known: Sequence[str], chosen: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Return the known names that are chosen, in their order, by default the first; of a categorical attribute all."""
    if chosen is None:
        return tuple(known[:count])
    if not isinstance(chosen, list | tuple) or not chosen or not all(isinstance(name, str) for name in chosen):
        raise ArgumentError(f"goals are a list of names, not {chosen!r}", hint='such as ["zoom", "rotation"]')
    attributes = {name: name.split(" = ")[0] for name in known}
    if unknown := [name for name in chosen if name not in attributes and name not in attributes.values()]:
        raise ArgumentError(f"there is no goal {unknown[0]!r}", hint=f"goals are {', '.join(known)}")
    found = tuple(name for name, attribute in attributes.items() if name in chosen or attribute in chosen)
    if len(found) > count:
        raise ArgumentError(
            f"{len(found)} goals are named, for at most {count} directions", hint=f"raise count, -n {len(found)}"
        )
    return found
