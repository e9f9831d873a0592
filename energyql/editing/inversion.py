"""Photographs into latents: which z draws this picture, and how far beside it the best w lies.

Three stages, each measured in docs/decisions/inversion.md:

1. *Attributes.* The judge reads the picture, and z goes to where the heads say the same. Costs no picture at all, and
   starts the search in the right place, without which it is lost.
2. *z.* L-BFGS through the mapping network, on pixels and features, while the heads go on saying what the judge read.
3. *W or W+.* An offset from what z is mapped to, kept small; it stays with the picture through all edits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.outputs import output_count
from energyql.editing.latents import Latents, LatentSpace, shifted
from energyql.editing.likeness import Likeness, pixel_error
from energyql.editing.photographs import Picture, as_images, open_picture
from energyql.editing.terms import EditEnergy, Embed, KeepPredictions, Point, Term
from energyql.errors import ArgumentError
from energyql.pipeline.arguments import finite_number, whole_number
from energyql.pipeline.drawing import judge
from energyql.progress import Report
from energyql.sampling import Energy, GradientEnergy, normals
from energyql.sampling.descent import descend
from energyql.vocabulary import Vocabulary

SPACES = ("z", "w", "w+")
CERTAIN = 6.0
"""Log-odds of what the judge reads, as a target for the heads."""
SHELL_FIRST = 1.0
"""Weight of `(|z| - sqrt(z_dim))²` while only attributes count."""


@dataclass(frozen=True, slots=True)
class InversionSettings:
    """How much everything counts. Weights are at least 0.

    Args:
        pixels: of the mean absolute pixel error, a fraction of the range.
        features: of the mean square distance of features, in units of their spread.
        attributes: of the divergence of the heads from what the judge reads, in nats.
        shell: of `(|z| - sqrt(z_dim))²`, where the length of z counts: nearly all z of the prior are that long.
        offset: of `|offset|²`, the mean over the layers in W+.
        z_evaluations, w_evaluations: of the picture and its gradient, at most, in the second and third stage.
        candidates: pictures of the prior that are looked at for a better start, and that features are scaled by.
    """

    pixels: float = 1.0
    features: float = 0.1
    attributes: float = 1e-3
    shell: float = 1e-3
    offset: float = 1e-3
    z_evaluations: int = 60
    w_evaluations: int = 25
    candidates: int = 32

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, float) and finite_number(field.name, value) < 0:
                raise ArgumentError(f"{field.name} must be at least 0, not {value:g}")
            if isinstance(field.default, int):
                whole_number(field.name, value, least=2 if field.name == "candidates" else 1)


@dataclass(frozen=True, eq=False)
class Inverted:
    """Latents of given pictures.

    Attributes:
        latents: which.
        pictures: the given ones, as the generator would have drawn them, RGB.
        pixel_error: mean absolute error as a fraction of the range, (n,).
        status: how the search in z ended.
        evaluations: of each picture, both searches together, (n,).
    """

    latents: Latents
    pictures: list[Image.Image]
    pixel_error: npt.NDArray[np.float64]
    status: Tensor
    evaluations: Tensor


def find_latents(
    pictures: Sequence[Picture],
    space: LatentSpace,
    settings: InversionSettings,
    into: str,
    perceptual: Embed | None,
    together: int | None,
    report: Report,
) -> Inverted:
    """The latents of pictures; see `energyql.invert`.

    Raises:
        ArgumentError: a picture cannot be read, or there is no such space.
    """
    if into not in SPACES:
        raise ArgumentError(f"pictures are inverted into {', '.join(SPACES)}, not {into!r}")
    model = space.model
    opened = [open_picture(picture) for picture in pictures]
    size = model.generator.z_dim
    prior = normals(0, 0, settings.candidates, size, stream="inversion").to(model.device)
    with torch.no_grad():
        examples = torch.cat([model.generator.synthesize(space.encode(z)) for z in prior.split(16)])
    targets = as_images(opened, examples)
    embed = perceptual if perceptual is not None else getattr(model.judge, "features", None)
    likeness = Likeness(
        model.generator, targets, embed, examples,
        pixels=settings.pixels, features=settings.features, together=together,
    )  # fmt: skip
    terms = _read(targets, space) if settings.attributes else []
    z = _start(likeness, prior, terms, space)
    searched = descend(
        _in_z(likeness, space, terms, settings), z, tolerance=1e-4, max_evaluations=settings.z_evaluations,
        progress=lambda fraction, _: report("inverting", 0.7 * fraction),
    )  # fmt: skip
    latents, evaluations = Latents(space.scaled(searched.z)), searched.evaluations
    if into != "z":
        latents, more = _beside(likeness, latents, space, settings, into, report)
        evaluations = evaluations + more
    report("inverting", 1.0)
    with torch.no_grad():
        drawn = torch.cat([model.generator.synthesize(space.w(latents[rows])) for rows in _chunks(len(z))])
        error = pixel_error(drawn.clamp(-1, 1), targets).double().cpu().numpy()
    return Inverted(latents, opened, error, searched.status, evaluations)


def _read(targets: Tensor, space: LatentSpace) -> list[Term]:
    """That the heads say what the judge reads off the pictures; nothing where there is no judge."""
    readings = [judge(space.model, part) for part in targets.split(64)]
    if not readings[0]:
        return []
    values = {name: np.concatenate([part[name] for part in readings]) for name in readings[0]}
    outputs = _as_outputs(values, space.model.vocabulary).to(targets)
    raw = space.model.bank.raw_outputs(space.names)
    return [KeepPredictions(raw, outputs, torch.ones(len(targets), len(space.names), device=targets.device))]


def _as_outputs(values: dict[str, npt.NDArray[Any]], vocabulary: Vocabulary) -> Tensor:
    """Values as what heads would give if they were sure of them, (n, outputs)."""
    columns = []
    for name, spec in vocabulary.items():
        if spec.kind == "continuous":
            columns.append(torch.from_numpy(values[name]).float()[:, None])
        elif spec.kind == "categorical":
            columns.append(torch.from_numpy(values[name][:, None] == np.array(spec.values)).float() * 2 * CERTAIN)
        else:
            columns.append((torch.from_numpy(values[name]).float()[:, None] * 2 - 1) * CERTAIN)
        assert columns[-1].shape[1] == output_count(spec)
    return torch.cat(columns, 1)


class _Shell:
    """`weight * (|z| - sqrt(z_dim))²`."""

    def __init__(self, weight: float) -> None:
        self.of: Any = "z"
        self.weight = weight

    def __call__(self, point: Point) -> tuple[Tensor, Tensor]:
        length = point.z.norm(dim=1).clamp_min(1e-6)
        away = length - point.z.shape[1] ** 0.5
        return self.weight * away.square(), (2 * self.weight * away / length)[:, None] * point.z


def _start(likeness: Likeness, prior: Tensor, terms: list[Term], space: LatentSpace) -> Tensor:
    """For each picture the better of the most similar one of the prior, and one with the attributes that were read."""
    count = len(likeness.targets)
    rows = torch.arange(count, device=prior.device)
    with torch.no_grad():
        distance, best = likeness.to_examples().min(1)
        z = prior[best]
        if not terms:
            return z
        read = descend(EditEnergy(space, Latents(z), [*terms, _Shell(SHELL_FIRST)]), z).z
        parts = [
            likeness.of_images(likeness.generator.synthesize(space.encode(read[part])), rows[part])
            for part in _chunks(count)
        ]
        return torch.where((torch.cat(parts) < distance)[:, None], read, z)


def _in_z(likeness: Likeness, space: LatentSpace, terms: list[Term], settings: InversionSettings) -> Energy:
    prior = _Shell(settings.shell / settings.attributes if settings.attributes else settings.shell)
    factor = settings.attributes or 1.0
    beside = EditEnergy(space, Latents(likeness.targets.new_zeros(0, space.model.generator.z_dim)), [*terms, prior])

    def objective(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = likeness.with_gradient(lambda part, _: space.encode(part), z, rows)
        more, of_more = beside.gradient(z, rows)
        return value + factor * more, gradient + factor * of_more

    return GradientEnergy(objective)


def _beside(
    likeness: Likeness, latents: Latents, space: LatentSpace, settings: InversionSettings, into: str, report: Report
) -> tuple[Latents, Tensor]:
    with torch.no_grad():
        mapped = space.encode(latents.z)
    if mapped.ndim != 2:
        raise ArgumentError('the w of this generator is no vector, so pictures can be inverted into "z" only')
    layers = space.layer_count if into == "w+" else 1
    shape = (-1, layers, mapped.shape[1]) if into == "w+" else (-1, mapped.shape[1])

    def objective(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = likeness.with_gradient(lambda part, some: shifted(mapped[some], part.view(shape)), x, rows)
        weight = settings.offset / layers
        return value + weight * x.square().sum(1), gradient + 2 * weight * x

    ended = descend(
        GradientEnergy(objective), mapped.new_zeros(len(mapped), layers * mapped.shape[1]), tolerance=1e-4,
        max_evaluations=settings.w_evaluations, progress=lambda fraction, _: report("inverting", 0.7 + 0.3 * fraction),
    )  # fmt: skip
    return Latents(latents.z, ended.z.view(shape)), ended.evaluations


def _chunks(count: int, size: int = 16) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]
