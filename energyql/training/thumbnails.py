"""Small pictures for networks that read them: drawn, kept and continued together with their labels."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.judge import thumbnails
from energyql.attributes.labels import Column, ImageLabeller, label_images, labeller_name
from energyql.generators.noise import draw_batches
from energyql.numerics.shapes import Float, Int
from energyql.progress import Report
from energyql.training.samples import Prior, kept_labels, label_prior

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
    generator: str,
    report: Report,
) -> tuple[Tensor, dict[str, Column]]:
    """Draw the pictures of these samples as a network reads them, and label them.

    Pictures that are in `folder` are not drawn again, as for `label_prior`.

    Returns:
        The pictures, (n, 3, side, side) uint8, and the labels, which are empty without a labeller.
    """
    columns = label_prior(
        prior, index, Thumbnails(labeller, side, "" if labeller is not None else str(index.tolist())), folder,
        generator=generator, progress=lambda done: report("drawing", done),
    )  # fmt: skip
    return read_thumbnails(columns.pop(PICTURE)), columns


def kept_thumbnails(
    folder: Path, prior: Prior, index: Int[Tensor, " n"], side: int, *, generator: str
) -> Tensor | None:
    """Return the pictures that `draw_thumbnails` has drawn to a folder without a labeller; nothing is written.

    `None` if they are others, or not all are there, or a file is damaged.
    """
    found = kept_labels(folder, prior, Thumbnails(None, side, str(index.tolist())), len(index), generator=generator)
    try:
        return None if found is None else read_thumbnails(found[PICTURE])
    except (KeyError, TypeError, ValueError, OSError):  # Pillow's errors of damaged pictures are among them
        return None


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
