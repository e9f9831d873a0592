"""Prior samples of a generator, their small pictures, and their labels by a function that reads pictures."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from energyql.attributes.bank import FittedUnder
from energyql.attributes.judge import thumbnails
from energyql.attributes.labels import Column, ImageLabeller, label_images, labeller_name
from energyql.errors import DataError, LabelWarning, caller_level
from energyql.generators.base import (
    Generator,
    as_condition,
    check_pictures,
    class_count,
    draw_batches,
    encode_under,
    head_reader,
)
from energyql.numerics.pullback import Identity
from energyql.numerics.shapes import Float, Int
from energyql.progress import Report
from energyql.sampling import prior_latents, uniforms
from energyql.training.steps import StepFile, digest

PICTURES = "pictures"
"""Subfolder for the pictures with labels, which judge and teacher read."""
PICTURE = "energyql/picture"
"""The column of the thumbnails, which no attribute can be called."""


def draw_thumbnails(
    prior: Prior,
    index: Int[Tensor, " n"],
    side: int,
    folder: Path,
    *,
    labeller: ImageLabeller | None = None,
    report: Report,
) -> tuple[Tensor, dict[str, Column]]:
    """Draw the pictures of these samples as a network reads them, and label them.

    Pictures that are in `folder` are not drawn again, as for `label_prior`.

    Returns:
        The pictures, (n, 3, side, side) uint8, and the labels, which are empty without a labeller.
    """
    columns = label_prior(
        prior, index, Thumbnails(labeller, side, "" if labeller is not None else str(index.tolist())), folder,
        progress=lambda done: report("drawing", done),
    )  # fmt: skip
    return read_thumbnails(columns.pop(PICTURE)), columns


def kept_thumbnails(folder: Path, prior: Prior, index: Int[Tensor, " n"], side: int) -> Tensor | None:
    """Return the pictures that `draw_thumbnails` has drawn to a folder without a labeller; nothing is written.

    `None` if they are others, or not all are there, or a file is damaged.
    """
    found = kept_labels(folder, prior, Thumbnails(None, side, str(index.tolist())), len(index))
    return None if found is None else read_thumbnails(found[PICTURE])


@torch.no_grad()
def draw_small(prior: Prior, count: int, side: int, report: Report) -> Float[Tensor, "count numbers"]:
    """Return the first samples as pictures of `side` pixels a side, float64, and keep nothing on disk."""
    found: list[Tensor] = []
    w = prior.w(torch.arange(count)).to(prior.device)
    for _, images in draw_batches(prior.generator.synthesize, lambda w: w, w):
        found += thumbnails(images, side).flatten(1).double().cpu()
        report("drawing", len(found) / count)
    return torch.stack(found)


class Thumbnails:
    """A labeller that adds a thumbnail of each picture to the labels of another one, as the text of a PNG.

    So thumbnails are drawn, kept and continued together with the labels.

    Args:
        labeller: the other one; `None` where the labels are known.
        side: largest side of a thumbnail, in pixels.
        about: what else identifies the thumbnails, for the resumption.
    """

    def __init__(self, labeller: ImageLabeller | None, side: int, about: str = "") -> None:
        self.labeller, self.side = labeller, side
        self.identity = f"thumbnails {side} {about} {'' if labeller is None else labeller_name(labeller)}"

    def __call__(self, images: Float[Tensor, "batch channels height width"]) -> dict[str, list[Any]]:
        """Return labels and thumbnails of pictures in [-1, 1]."""
        labels = {} if self.labeller is None else label_images(self.labeller, images)
        small = thumbnails(images.float(), min(self.side, max(images.shape[-2:])))
        pixels = ((small.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return {**labels, PICTURE: [_as_text(picture) for picture in pixels]}


def _as_text(pixels: np.ndarray[Any, Any]) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def read_thumbnails(cells: Sequence[str]) -> Tensor:
    """Return thumbnails from their texts, (n, 3, side, side) uint8."""
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(cell))).convert("RGB")) for cell in cells]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


LABEL_SEED = 2**32
"""Seed of the samples for labellers, outside the range of seeds that pictures are usually drawn with."""
LATENTS_AT_ONCE = 256
PICTURES_A_PART = 256
"""Pictures that are labelled between two writes, at most lost by an interruption."""
PIXELS_AT_ONCE = 1 << 21
FAR, FAR_SHARE = 1.5, 0.05
"""Pictures lie in [-1, 1] up to a few pixels: a larger share of them beyond `FAR` means another range, as 0 to 255."""


@dataclass(frozen=True)
class Prior:
    """Prior samples of a generator.

    Attributes:
        generator: maps z to w and w to pictures.
        seed: sample i depends on (seed, i) only.
        fitted: what attributes are learned under from these samples: each has its own psi from the range of truncation,
            and its own random class if the label is "random".
        device: where to compute.
    """

    generator: Generator
    seed: int
    fitted: FittedUnder
    device: torch.device

    def under(self, **changes: Any) -> Prior:
        """Return the prior with other fields of `fitted`."""
        return replace(self, fitted=replace(self.fitted, **changes))

    def z(self, index: Int[Tensor, " n"]) -> Float[Tensor, "n z_dim"]:
        """Return z of the samples with these indices, on the CPU."""
        return _in_runs(index, lambda start, count: prior_latents(self.seed, start, count, self.generator.z_dim))

    @torch.no_grad()
    def w(self, index: Int[Tensor, " n"]) -> Float[Tensor, "n w_dim"]:
        """Return w of the samples with these indices, on the CPU."""
        parts = []
        low, high = self.fitted.truncation
        for rows in index.split(LATENTS_AT_ONCE):
            z, condition = self.z(rows).to(self.device), self._condition(rows)
            if low == high:
                parts.append(encode_under(self.generator, z, low, condition).cpu())
                continue
            share = self._uniforms(rows, "truncation").float()
            # Truncation moves w along a line from psi = 0 to psi = 1.
            start, end = (encode_under(self.generator, z, psi, condition).cpu() for psi in (0.0, 1.0))
            parts.append(start + (low + share * (high - low)) * (end - start))
        return torch.cat(parts)

    def read(self, index: Int[Tensor, " n"], space: str) -> Float[Tensor, "n latent_dim"]:
        """Return what heads on `space` read of the samples with these indices, on the CPU."""
        if space == "w":
            return self.w(index)
        return torch.cat([self.view(self.z(rows), space) for rows in index.split(LATENTS_AT_ONCE)])

    @torch.no_grad()
    def view(self, z: Float[Tensor, "n z_dim"], space: str) -> Float[Tensor, "n latent_dim"]:
        """Return what heads on `space`, which is not w, read of z, on the CPU."""
        return head_reader(self.generator, space, Identity())(z.to(self.device)).cpu()

    def _condition(self, index: Tensor) -> Tensor | None:
        """Return the labels of samples, (n, c_dim), or the label of all of them, (c_dim,)."""
        if not isinstance(self.fitted.label, str):
            return as_condition(self.fitted.label, self.generator)
        count = class_count(self.generator)
        return F.one_hot((self._uniforms(index, "class")[:, 0] * count).long(), count).float()

    def _uniforms(self, index: Int[Tensor, " n"], stream: str) -> Float[Tensor, "n 1"]:
        """Return a number in (0, 1) for each sample, float64."""
        return _in_runs(index, lambda start, count: uniforms(self.seed, start, count, 1, stream=stream))


def _in_runs(index: Int[Tensor, " n"], draw: Callable[[int, int], Tensor]) -> Tensor:
    """Return what `draw(start, count)` returns for consecutive samples, (n, width): together, for speed."""
    parts, numbers, first = [], index.tolist(), 0
    for i in range(1, len(numbers) + 1):
        if i == len(numbers) or numbers[i] != numbers[i - 1] + 1:
            parts.append(draw(numbers[first], i - first))
            first = i
    return torch.cat(parts)


@torch.no_grad()
def label_prior(
    prior: Prior,
    index: Int[Tensor, " n"],
    labeller: ImageLabeller,
    folder: Path,
    *,
    check: Callable[[list[str]], None] = lambda names: None,
    progress: Callable[[float], None],
) -> dict[str, Column]:
    """Label the pictures of the samples with these indices.

    Labels are written to `folder` part by part. The same call after an interruption continues from there, unless the
    fingerprint of the generator is another one. `check` is called with the names of the attributes, once the first part
    is labelled; `progress` with the fraction done.

    Returns:
        Attribute -> n cells.
    """
    columns: dict[str, list[Any]] = {}
    identity = _identity(prior, labeller)
    for start in range(0, len(index), PICTURES_A_PART):
        rows = index[start : start + PICTURES_A_PART]
        stop, file = start + len(rows), _part(folder, identity, start, len(index))
        part = file.read_json()
        if part is None:
            part = _label(prior, rows, labeller, partial(_progress, progress, start, len(index)))
            file.write_json(part)
        if start and list(part) != list(columns):
            raise DataError(
                f"the labeller returned {', '.join(columns)} first, and {', '.join(part)} now",
                hint="return every attribute for every batch, with None for no label",
            )
        if not start:
            check(list(part))
        for name, cells in part.items():
            columns.setdefault(name, []).extend(cells)
        progress(stop / len(index))
    return dict(columns)


def kept_labels(folder: Path, prior: Prior, labeller: ImageLabeller, count: int) -> dict[str, Column] | None:
    """Return the labels of `count` samples that `label_prior` has written to a folder; `None` if not all are there."""
    columns: dict[str, list[Any]] = {}
    identity = _identity(prior, labeller)
    for start in range(0, count, PICTURES_A_PART):
        part = _part(folder, identity, start, count).read_json()
        if part is None:
            return None
        for name, cells in part.items():
            columns.setdefault(name, []).extend(cells)
    return dict(columns)


def _part(folder: Path, identity: str, start: int, count: int) -> StepFile:
    """Return the file of the labels from a position on."""
    part = f"{start}-{min(start + PICTURES_A_PART, count)}"
    return StepFile(folder / part, f"{identity} {part}")


def _identity(prior: Prior, labeller: ImageLabeller) -> str:
    where = prior.device.type
    fitted = prior.fitted
    return digest((labeller_name(labeller), prior.seed, fitted.truncation, fitted.label, fitted.generator, where))


def _progress(progress: Callable[[float], None], start: int, count: int, done: int) -> None:
    progress((start + done) / count)


def _label(
    prior: Prior, index: Tensor, labeller: ImageLabeller, progress: Callable[[int], None]
) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    w = prior.w(index).to(prior.device)
    at, size = 0, 1  # the size of the first picture decides how many fit
    while at < len(w):
        images = check_pictures(prior.generator.synthesize(w[at : at + size]))
        if (images.abs() > FAR).float().mean() > FAR_SHARE:
            warnings.warn(
                "the generator's pictures are far outside of [-1, 1], where labellers and judges expect them",
                LabelWarning,
                stacklevel=caller_level(),
            )
        for name, cells in label_images(labeller, images).items():
            columns.setdefault(name, []).extend(cells)
        at += size
        size = max(1, min(64, PIXELS_AT_ONCE // (images.shape[-1] * images.shape[-2])))
        progress(min(at, len(w)))
    if any(len(cells) != len(w) for cells in columns.values()):
        raise DataError(
            "the labeller does not return the same attributes each time",
            hint="return every attribute for every batch, with None for no label",
        )
    return columns


def estimate_truncation(prior: Prior, w: Tensor, source: str) -> float:
    """Estimate psi of latents w (n, w_dim): their spread over the spread of the prior at psi = 1.

    Seed and truncation of the prior are not used; messages name the latents by `source`.

    Raises:
        DataError: mean or spread is not that of latents of the generator.
    """
    index = torch.arange(2048)
    centre, free = (replace(prior, seed=0).under(truncation=(psi, psi)).w(index) for psi in (0.0, 1.0))
    if w.shape[1] != free.shape[1]:
        raise DataError(
            f"{source}: latents have {w.shape[1]} numbers, but the generator's w has {free.shape[1]}",
            hint="give the latents of this generator",
        )
    spread, own = (x.std(0).norm().item() for x in (w, free))
    if not own > 0:
        return 1.0
    psi = spread / own
    middle = centre.mean(0)
    shift = (w.mean(0) - torch.lerp(middle, free.mean(0), psi)).norm().item()
    if not 0.02 <= psi <= 1.25 or shift > (0.5 + 4 / len(w) ** 0.5) * spread:
        raise DataError(
            f"{source}: these are probably not latents of this generator: their spread is {psi:.3g} of the expected "
            f"one, and their mean is {shift / max(spread, 1e-12):.2g} of that away from the expected mean",
            hint="if they are, give the truncation that they were drawn with",
        )
    return float(min(1.0, round(psi, 2)))
