"""Directions of the latent w that are learned through the generator, to edit pictures or to raise a number.

A goal states how pictures should change for an amount alpha from -1 to 1. The direction of a goal is a vector d. It is
learned such that the pictures of `w + alpha d` differ from the pictures of `w` as the goal states, with the least
squared error. Two published methods differ in their goals only. In steerability (Jahanian et al. 2020,
arXiv 1907.07171), pictures change as by an edit such as zoom. In GANalyze (Goetschalckx et al. 2019, arXiv 1906.10112),
a number that is read from pictures rises.
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
from energyql.errors import ArgumentError, DataError
from energyql.generators.base import Generator
from energyql.numerics.pool import to_device
from energyql.numerics.shapes import Float
from energyql.progress import Report
from energyql.sampling import uniforms
from energyql.training.samples import PIXELS_AT_ONCE, Prior
from energyql.training.steps import learning_rate

Goal = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Function (pictures before a move of w, pictures after it, alpha) -> squared error of the change, (batch,).

alpha, (batch,), is the amount of the change that the goal states, from -1 to 1."""
SIDE = 64
"""Side, in pixels, to which pictures are reduced before they are compared with an edit: on larger pictures, edges that
move by some pixels do not overlap."""
ZOOM, SHIFT, TURN, LIGHT = 2**0.5, 0.125, 0.35, 0.5
"""Sizes of the edits at alpha = 1. `ZOOM` is the factor of zoom and of contrast. `SHIFT` is a share of the side. `TURN`
is an angle in radians, counterclockwise. `LIGHT` is added to pixels, whose values go from -1 to 1."""
STEPS, BATCH, RATE = 64, 4, 0.1
"""Number of steps of Adam, number of samples in a step, and largest learning rate. The unit of the rate is the standard
deviation of w under the prior."""
MOMENTUM, SMOOTHING = 0.9, 0.999
"""Decay rates of the two moments of Adam: means of gradients and of their squares. Adam divides each number of a
gradient by the size of this number. Here, all numbers are divided by the size of the whole gradient. So a direction
does not move w where pictures would not change."""
TESTS = 32
"""Number of samples that only measure how well goals are reached, and are not learned from."""


def move_along(
    w: Float[Tensor, "batch w_dim"],
    moves: Float[Tensor, "batch w_dim"],
    layers: Sequence[int] | None,
    generator: Generator,
) -> Tensor:
    """Return w + moves, for all layers or for some layers of the generator.

    Args:
        w: latents.
        moves: change of each latent.
        layers: layers for which w is changed; `None` for all.
        generator: the generator.

    Returns:
        (batch, w_dim) if `layers` is `None`. Otherwise W+, (batch, num_ws, w_dim), with a row for each layer: w + moves
            for the layers in `layers`, w for the others.
    """
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
        goals: name -> goal.
        prior: prior samples.
        scaled: matrix that maps whitened coordinates, in which prior samples have covariance 1, to differences of w.
            Directions are learned in whitened coordinates.
        layers: layers of the generator for which w moves; `None` for all.
        report: function that is called with the stage and the fraction done.

    Returns:
        Two tensors of float64. The first contains the directions in whitened coordinates; a direction is the move for
            alpha = 1. The second contains how well each goal is reached on samples that were not learned from, see
            `_shares`.

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
            raise ArgumentError(f"no move of w changes what the goal {name!r} is about", hint="leave it out: --goals")
    return rows, shares


@torch.no_grad()
def _shares(
    goals: Mapping[str, Goal], prior: Prior, moves: Float[Tensor, "goals w_dim"], layers: Sequence[int] | None,
    report: Report,
) -> Float[Tensor, " goals"]:  # fmt: skip
    """Return how well each goal is reached on the first 32 (`TESTS`) samples, from which no direction was learned.

    The number is 1 - e / u, at least 0, where e is the squared error of the moved pictures, and u is the squared error
    of unchanged pictures.

    Args:
        goals: name -> goal.
        prior: prior samples.
        moves: direction of each goal, as a difference of w.
        layers: layers of the generator for which w moves; `None` for all.
        report: function that is called with the stage and the fraction done.
    """
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
    """Return w of the prior samples `start` to `start + count - 1`, and a random alpha for each sample.

    alpha is a number from -1 to 1, the amount of the change that a goal states.
    """
    alpha = 2 * uniforms(prior.seed, start, count, 1, stream="alpha")[:, 0] - 1
    return prior.w_there(torch.arange(start, start + count)), to_device(alpha.float(), prior.device)


def _warp(images: Tensor, alpha: Tensor, matrix: Callable[[Tensor], Sequence[Any]]) -> tuple[Tensor, Tensor]:
    """Return transformed pictures, and a mask (batch, 1, side, side) that is false outside the old pictures.

    Args:
        images: square pictures, (batch, 3, side, side).
        alpha: amount of the change for each picture, (batch,).
        matrix: function from alpha to the six numbers of a 2 x 3 matrix, row by row. The matrix maps coordinates in the
            new picture to coordinates in the old picture, from -1 to 1 on both axes.
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
"""Edits by name. An edit is a function of square pictures in [-1, 1] and of alpha, the amount of the edit, (batch,). It
returns the edited pictures and a mask, which is false for pixels that come from outside the old pictures. Positive
alpha zooms in, moves to the right or up, turns counterclockwise, and adds light or contrast."""


def _edit_error(before: Tensor, after: Tensor, alpha: Tensor, *, edit: str) -> Tensor:
    """Return the squared error of each picture of `after` from the edited picture of `before`, (batch,).

    Pixels that the edit moves in from outside the old picture do not count.

    Args:
        before: pictures before a move of w, in [-1, 1].
        after: pictures after the move.
        alpha: amount of the edit, (batch,).
        edit: name of the edit in `EDITS`.
    """
    small, result = (thumbnails(images, SIDE).clamp(-1, 1) for images in (before, after))
    with torch.no_grad():
        expected, mask = EDITS[edit](small, alpha)
    errors = (result - expected.clamp(-1, 1)).square().mean(1, keepdim=True) * mask
    return errors.sum((1, 2, 3)) / mask.sum((1, 2, 3))


def edit_goals(chosen: Sequence[str] | None, count: int) -> dict[str, Goal]:
    """Return a goal for each chosen edit: name of the edit -> goal.

    The goal is that pictures change as if they were edited.

    Args:
        chosen: names of edits in `EDITS`, such as "zoom"; by default the first `count`.
        count: largest number of goals.

    Raises:
        ArgumentError: there is no edit of a chosen name, or more than `count` are chosen.
    """
    return {name: partial(_edit_error, edit=name) for name in _choose(tuple(EDITS), chosen, count)}


def number_goals(
    labeller: ImageLabeller | None, chosen: Sequence[str] | None, count: int, prior: Prior
) -> dict[str, Goal]:
    """Return a goal for each chosen number that a labeller reads from pictures: name of the number -> goal.

    The goal is that the number rises by alpha times its standard deviation among prior samples, as in GANalyze.

    Args:
        labeller: a judge, or another function from pictures to attribute -> prediction or numbers (batch,).
        chosen: names of numbers, such as "hair = red", or of attributes, such as "hair" for the numbers of all its
            classes; by default the first `count` numbers.
        count: largest number of goals.
        prior: prior samples.

    Raises:
        ArgumentError: `labeller` is `None`, there is no number of a chosen name, more than `count` are chosen, or a
            number is the same for all pictures.
        DataError: a number is not finite, or the labeller returns a number for some pictures only.
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
            raise ArgumentError(f"{name!r} is the same number for all pictures", hint="choose others with --goals")
    return {name: partial(_number_error, name=name, labeller=labeller, spread=spread[name]) for name in names}


def _number_error(
    before: Tensor, after: Tensor, alpha: Tensor, *, name: str, labeller: ImageLabeller, spread: float
) -> Tensor:
    """Return for each picture the squared error of the change of a number that a labeller reads off it, (batch,).

    The number is read from the pictures before and after a move of w. The error is (number after - number before) /
    `spread` - `alpha`.

    Args:
        before: pictures before the move.
        after: pictures after the move.
        alpha: the rise of the number that the goal states, in units of `spread`, (batch,).
        name: title of the number, see `as_numbers`: for "smile" the log-odds of a smile, for example.
        labeller: function that reads the numbers from pictures.
        spread: standard deviation of the number among prior samples.
    """
    with torch.no_grad():
        start = _number(_read(labeller, before, finite=False), name)
    return ((_number(_read(labeller, after, finite=False), name) - start) / spread - alpha).square()


def _read(labeller: ImageLabeller, pictures: Tensor, *, finite: bool = True) -> Numbers:
    """Return the numbers that a labeller reads from pictures: name -> (batch,).

    Raises:
        DataError: a number is not finite, and `finite` is true.
    """
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
    """Return the predictions of heads for the first `samples` prior samples as numbers: name -> (samples,).

    A yes/no attribute has one number, the log-odds of yes. A continuous attribute has one number, the predicted mean.
    These numbers have the name of the attribute. A categorical attribute has a number for each class: its logit minus
    the mean logit of all classes. These numbers have names such as "hair = red".

    Args:
        prior: prior samples.
        bank: the heads.
        samples: number of samples.
        chosen: names of numbers, or of attributes, such as "hair" for the numbers of all its classes; by default the
            first `count` numbers.
        count: largest number of numbers.

    Raises:
        ArgumentError: `bank` is `None`, there is no number of a chosen name, or more than `count` are chosen.
    """
    if bank is None:
        raise ArgumentError("this model has no heads, which interfacegan follows", hint="energyql train makes some")
    with torch.no_grad():
        numbers = as_numbers(bank.to("cpu").predict(prior.read(torch.arange(samples), bank.space)), samples)
    return {name: numbers[name] for name in _choose(tuple(numbers), chosen, count)}


def _choose(goals: Sequence[str], chosen: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Return the names of the chosen goals, in the order of `goals`.

    Args:
        goals: names of all goals, such as "zoom" or "hair = red".
        chosen: names of goals, or of attributes, such as "hair" for "hair = red" and the goals of other classes; by
            default the first `count` goals.
        count: largest number of goals.

    Raises:
        ArgumentError: `chosen` is no list of names, a name is not in `goals`, or more than `count` goals are chosen.
    """
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
