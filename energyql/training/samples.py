"""Prior samples of a generator (random latents), thumbnails of pictures, and labels by a function or network."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from energyql.attributes.bank import FittedUnder
from energyql.attributes.judge import thumbnails
from energyql.attributes.labels import Column, ImageLabeller, label_images
from energyql.errors import ArgumentError, DataError
from energyql.generators.base import (
    RANDOM,
    Generator,
    PreviewingGenerator,
    check_pictures,
    class_count,
    condition_vector,
    drafter,
    draw_batches,
    encode_under,
    head_reader,
)
from energyql.numerics.pool import to_device
from energyql.numerics.pullback import Identity
from energyql.numerics.shapes import Float, Int
from energyql.pipeline.model import judge_mark
from energyql.progress import Report
from energyql.sampling import prior_latents, uniforms
from energyql.training.labels import warn
from energyql.training.steps import StepFile, digest, part_of

PICTURES = "pictures"
"""Step of a training that draws the pictures from which judge and teacher learn."""
PICTURE = "energyql/picture"
"""Column of thumbnails beside columns of labels. No attribute has such a name."""


def draw_thumbnails(
    prior: Prior,
    index: Int[Tensor, " n"],
    side: int,
    folder: Path,
    *,
    labeller: ImageLabeller | None = None,
    report: Report,
) -> tuple[Tensor, dict[str, Column]]:
    """Draw small copies of the pictures of prior samples, and label them if there is a labeller.

    Both are kept in `folder`, so that an interrupted call can be repeated.

    Args:
        side: side of the thumbnails, in pixels; smaller pictures keep their size.

    Returns:
        The thumbnails, (n, 3, size, size) uint8; and attribute -> n labels, empty without a labeller.
    """
    reader = Thumbnails(labeller, side, index.tolist())
    columns = label_prior(prior, index, reader, folder, progress=lambda done: report("drawing", done))
    return read_thumbnails(columns.pop(PICTURE)), columns


def kept_thumbnails(folder: Path, prior: Prior, index: Int[Tensor, " n"], side: int) -> Tensor | None:
    """Read the thumbnails of a call of `draw_thumbnails` without a labeller; `None` if its arguments differed."""
    cells: list[Any] = []
    for _, file in _parts(folder, prior, Thumbnails(None, side, index.tolist()), index):
        if (part := file.read_json()) is None:
            return None
        cells += part[PICTURE]
    return read_thumbnails(cells)


@torch.no_grad()
def draw_small(prior: Prior, count: int, side: int, report: Report) -> Float[Tensor, "count numbers"]:
    """Draw the first pictures at `side` x `side` pixels, as rows of float64."""
    rows: list[Tensor] = []
    w = prior.w_there(torch.arange(count))
    for _, images in draw_batches(prior.generator.synthesize, lambda w: w, w):
        rows += thumbnails(images, side).flatten(1).cpu().double()
        report("drawing", len(rows) / count)
    return torch.stack(rows)


class Thumbnails:
    """A function from pictures to columns: labels by a labeller, if any, and thumbnails, each a PNG in base64.

    In place of a labeller, it makes `label_prior` write thumbnails to the files of labels. These are used again for an
    equal `identity` only: for the same `numbers` of pictures, or the same labeller.
    """

    def __init__(self, labeller: ImageLabeller | None, side: int, numbers: Sequence[int] = ()) -> None:
        self.labeller, self.side = labeller, side
        self.identity = f"thumbnails {side} " + (f"{numbers} " if labeller is None else f" {judge_mark(labeller)}")

    def __call__(self, images: Float[Tensor, "batch channels height width"]) -> dict[str, list[Any]]:
        """Label and shrink pictures in [-1, 1]."""
        labels = {} if self.labeller is None else label_images(self.labeller, images)
        small = thumbnails(images.float(), min(self.side, max(images.shape[-2:])))
        pixels = ((small.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        cells = []
        for picture in pixels:
            stream = io.BytesIO()
            Image.fromarray(picture).save(stream, "PNG", compress_level=1)
            cells.append(base64.b64encode(stream.getvalue()).decode("ascii"))
        return {**labels, PICTURE: cells}


def read_thumbnails(cells: Sequence[str]) -> Tensor:
    """Decode thumbnails, each a PNG in base64, to (n, 3, side, side) uint8."""
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(cell))).convert("RGB")) for cell in cells]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


LABEL_SEED = 2**32
"""Default seed of the samples that a labeller labels: larger than those with which users usually draw."""
LATENTS_AT_ONCE = 256
PICTURES_A_PART = 256
"""Number of pictures in a file of labels: an interruption loses fewer labels."""
PIXELS_AT_ONCE = 1 << 21
FAR, FAR_SHARE = 1.5, 0.05
"""A generator is suspect if more than this share of its pixels is beyond ±`FAR`: almost all should be in [-1, 1]."""


@dataclass(frozen=True)
class Prior:
    """Prior samples of a generator: random latents z by index, and the w and other inputs of heads computed from z.

    Attributes:
        seed: sample i depends on (seed, i) only.
        fitted: conditions of the samples. Each has a random psi in the range of truncation, and a random class if the
            condition is "random".
        preview: side of previews (`PreviewingGenerator`), which are drawn in place of pictures; `None` for pictures.
    """

    generator: Generator
    seed: int
    fitted: FittedUnder
    device: torch.device
    preview: int | None = field(default=None, kw_only=True)

    def under(self, **changes: Any) -> Prior:
        """Prior samples with the same z under other conditions, fields of `fitted` such as `truncation=(0.7, 1)`."""
        return replace(self, fitted=replace(self.fitted, **changes))

    def apart(self, number: int) -> Prior:
        """Samples under the same conditions with other latents: those of a seed that is `number` larger."""
        return replace(self, seed=(self.seed + number) % 2**64)

    @property
    def is_single(self) -> bool:
        """Whether all samples have the same truncation and the same condition."""
        return len(set(self.fitted.truncation)) == 1 and self.fitted.condition != RANDOM

    def check_single(self) -> None:
        """Raise an `ArgumentError` unless `is_single`, as pictures labelled by hand must be."""
        if not self.is_single:
            raise ArgumentError(
                "pictures that were labelled by hand have one truncation and one condition, and these have several",
                hint="label pictures that energyql sample draws, whose table states how they were drawn",
            )

    @property
    def draw(self) -> Callable[[Float[Tensor, "n w_dim"]], Float[Tensor, "n channels height width"]]:
        """Function from w to pictures for programs to look at: previews, drafts or the pictures themselves."""
        if self.preview is not None:
            return partial(cast(PreviewingGenerator, self.generator).preview, side=self.preview)
        # A generator with classes would draw the pictures of each class apart, and fill up small groups.
        draft = None if class_count(self.generator) else drafter(self.generator)
        return draft or self.generator.synthesize

    def z(self, index: Int[Tensor, " n"]) -> Float[Tensor, "n z_dim"]:
        """Random latents of the samples, on the CPU."""
        return _in_runs(index, lambda start, count: prior_latents(self.seed, start, count, self.generator.z_dim))

    def w(self, index: Int[Tensor, " n"]) -> Float[Tensor, "n w_dim"]:
        """Latents w of the samples, on the CPU."""
        return self.w_there(index).cpu()

    @torch.no_grad()
    def w_there(self, index: Int[Tensor, " n"]) -> Float[Tensor, "n w_dim"]:
        """Latents w of the samples, on `device`."""
        parts = []
        low, high = self.fitted.truncation
        for rows in index.split(LATENTS_AT_ONCE):
            z, condition = to_device(self.z(rows), self.device), self._condition(rows)
            if low == high:
                parts.append(encode_under(self.generator, z, low, condition))
                continue
            share = to_device(self._uniforms(rows, "truncation").float(), self.device)
            # Truncation moves w along a line from psi = 0 to psi = 1.
            start, end = (encode_under(self.generator, z, psi, condition) for psi in (0.0, 1.0))
            parts.append(start + (low + share * (high - low)) * (end - start))
        return torch.cat(parts)

    def read(self, index: Int[Tensor, " n"], space: str) -> Float[Tensor, "n latent_dim"]:
        """Input of heads for the samples, on the CPU; `space` is "w", "z", "direction" or "features"."""
        if space == "w":
            return self.w(index)
        return torch.cat([self.view(self.z(rows), space) for rows in index.split(LATENTS_AT_ONCE)])

    @torch.no_grad()
    def view(self, z: Float[Tensor, "n z_dim"], space: str) -> Float[Tensor, "n latent_dim"]:
        """Input of heads for latents z, on the CPU; `space` is not "w"."""
        return head_reader(self.generator, space, Identity())(z.to(self.device)).cpu()

    def _condition(self, index: Tensor) -> Tensor | None:
        """Conditions as vectors, (n, c_dim) if random, else (c_dim,); `None` for a generator without classes."""
        if not isinstance(self.fitted.condition, str):
            return condition_vector(self.fitted.condition, self.generator)
        count = class_count(self.generator)
        return F.one_hot((self._uniforms(index, "class")[:, 0] * count).long(), count).float()

    def _uniforms(self, index: Int[Tensor, " n"], stream: str) -> Float[Tensor, "n 1"]:
        """Random numbers in (0, 1) that depend only on the seed, the index and `stream`, a name such as "class"."""
        return _in_runs(index, lambda start, count: uniforms(self.seed, start, count, 1, stream=stream))


def _in_runs(index: Int[Tensor, " n"], draw: Callable[[int, int], Tensor]) -> Tensor:
    """Random rows for any indices: `draw(start, count)` is called once for each run of successive ones."""
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
    """Draw the pictures of prior samples, and label them.

    After an interruption, the same call continues from the files in `folder`, unless labeller, seed, truncation,
    condition, generator or kind of device have changed.

    `check` gets the names of the attributes after the first pictures, and may raise an error to stop early.

    Raises:
        DataError: the labeller does not return a label of the same attributes for each picture.
    """
    columns: dict[str, list[Any]] = {}
    for start, file in _parts(folder, prior, labeller, index):
        rows = index[start : start + PICTURES_A_PART]
        part = file.read_json()
        if part is None:
            part = _label(prior, rows, labeller, part_of(progress, start, len(index)))
            file.write_json(part)
        if start and list(part) != list(columns):
            raise DataError(f"the labeller returned {', '.join(columns)} first, and {', '.join(part)} now")
        if not start:
            check(list(part))
        extend(columns, part)
        progress((start + len(rows)) / len(index))
    return dict(columns)


def extend(columns: dict[str, list[Any]], part: Mapping[str, Sequence[Any]]) -> None:
    """Append the labels of `part` to those of the same attributes in `columns`."""
    for name, cells in part.items():
        columns.setdefault(name, []).extend(cells)


def _parts(folder: Path, prior: Prior, labeller: ImageLabeller, index: Tensor) -> Iterator[tuple[int, StepFile]]:
    """Yield (start, file) for each file of `label_prior`, with pictures of the samples from `index[start]` on."""
    fitted = prior.fitted
    settings = (prior.seed, fitted.truncation, fitted.condition, fitted.generator, prior.device.type)
    identity = digest((judge_mark(labeller), *settings, *([] if prior.preview is None else [prior.preview])))
    for start in range(0, len(index), PICTURES_A_PART):
        part = f"{start}-{min(start + PICTURES_A_PART, len(index))}"
        yield start, StepFile(folder / part, f"{identity} {part}")


def _label(
    prior: Prior, index: Tensor, labeller: ImageLabeller, progress: Callable[[float], None]
) -> dict[str, list[Any]]:
    """Label pictures; `progress` is called with the number done."""
    columns: dict[str, list[Any]] = {}
    w, draw = prior.w_there(index), prior.draw
    at, size = 0, 1  # the size of the first picture determines the size of a batch
    while at < len(w):
        images = check_pictures(draw(w[at : at + size]))
        if (images.abs() > FAR).float().mean() > FAR_SHARE:
            warn("the generator's pictures are far outside of [-1, 1], where labellers and judges expect them")
        extend(columns, label_images(labeller, images))
        at += size
        size = max(1, min(64, PIXELS_AT_ONCE // (images.shape[-1] * images.shape[-2])))
        progress(min(at, len(w)))
    if any(len(cells) != len(w) for cells in columns.values()):
        raise DataError("the labeller does not return the same attributes each time")
    return columns


def estimate_truncation(prior: Prior, w: Tensor, source: str) -> float:
    """Estimate psi of latents: their spread divided by that of prior samples at psi = 1.

    Returns:
        Psi, rounded to two decimals, at most 1; 1 if w is equal for all prior samples.

    Raises:
        DataError: the latents have another size than w of the generator, or an implausible mean or spread.
    """
    index = torch.arange(2048)
    centre, free = (replace(prior, seed=0).under(truncation=(psi, psi)).w(index) for psi in (0.0, 1.0))
    if w.shape[1] != free.shape[1]:
        problem = f"{source}: latents have {w.shape[1]} numbers, but the generator's w has {free.shape[1]}"
        raise DataError(problem, hint="give the latents of this generator")
    spread, own = (x.std(0).norm().item() for x in (w, free))
    if not own > 0:
        return 1.0
    psi = spread / own
    shift = (w.mean(0) - torch.lerp(centre.mean(0), free.mean(0), psi)).norm().item()
    if not 0.02 <= psi <= 1.25 or shift > (0.5 + 4 / len(w) ** 0.5) * spread:
        raise DataError(
            f"{source}: these are probably not latents of this generator: their spread is {psi:.3g} of the expected "
            f"one, and their mean is {shift / max(spread, 1e-12):.2g} of that away; if they are, give their truncation"
        )
    return float(min(1.0, round(psi, 2)))
