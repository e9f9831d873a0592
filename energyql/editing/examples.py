"""Pictures of the prior, from which an inversion learns: how much pictures vary, and a linear map from them to w.

A ridge regression on little more than a hundred pictures predicts w of another picture well (measured in
docs/decisions/inversion.md), but not z, which the mapping network hides from it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.editing.kept_examples import Seen, kept_or, place_of
from energyql.editing.latents import LatentSpace
from energyql.editing.terms import Embed, flat_features
from energyql.generators.base import Generator
from energyql.numerics.shapes import Float
from energyql.progress import Report
from energyql.sampling import normals

DRAWN_TOGETHER = 16
"""Examples drawn together, unless a call sets a batch size."""
THUMBNAIL = 16
"""Side of the pictures, in pixels, that are compared and regressed on."""
RIDGE = 0.1
"""Ridge penalty, as a share of the mean squared norm of an example's description."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Pictures of the prior and their latents.

    Attributes:
        z: (m, z_dim).
        w: (m, ...).
        like: of the shape, type and device of a picture, (1, channels, height, width).
        thumbnails: the pictures, reduced, (m, numbers).
        features: of the pictures, (m, numbers); `None` without an embedding module.
        pixel_variance: of a pixel over the pictures, the mean over all pixels.
    """

    z: Tensor
    w: Tensor
    like: Tensor
    thumbnails: Tensor
    features: Tensor | None
    pixel_variance: float

    @property
    def feature_variance(self) -> float:
        """Variance of a feature over the pictures, the mean over all features."""
        return 1.0 if self.features is None else max(float(self.features.var(0).mean()), 1e-12)

    def predict_w(self, thumbnails: Tensor, features: Tensor | None) -> tuple[Float[Tensor, "n w_dim"], float]:
        """Predict w of other pictures by ridge regression.

        Args:
            thumbnails: of n pictures, (n, numbers).
            features: of n pictures, (n, numbers).

        Returns:
            w; and the mean squared error of a coordinate, by leaving out one example at a time.
        """
        known, given = _standard(self.thumbnails, thumbnails)
        if self.features is not None and features is not None:
            more = _standard(self.features, features)
            known, given = torch.cat([known, more[0]], 1), torch.cat([given, more[1]], 1)
        mean = self.w.mean(0)
        gram = known @ known.T
        inverse = torch.linalg.inv(gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device))
        centred = self.w - mean
        residual = (centred - gram @ inverse @ centred) / (1 - (gram @ inverse).diagonal())[:, None]
        return given @ known.T @ inverse @ centred + mean, float(residual.square().mean())


def draw_examples(
    space: LatentSpace, count: int, embed: Embed | None, batch_size: int | None, report: Report
) -> Examples:
    """Draw `count` pictures of the prior, always the same, and keep what an inversion needs of them, also on disk."""
    size, generator = batch_size or DRAWN_TOGETHER, space.model.generator
    z = normals(0, 0, count, generator.z_dim, stream="inversion").to(space.model.device)
    with torch.no_grad():
        w = torch.cat([space.encode(part) for part in z.split(size)])
        place = place_of(generator, w, embed, size)
        seen = kept_or(place, w, embed is not None, lambda: _draw(generator, w, embed, size, report))
    report("examples", 1.0)
    like = seen.thumbnails.new_zeros(1, *seen.shape)
    return Examples(z, w, like, seen.thumbnails, seen.features, seen.pixel_variance)


def _draw(generator: Generator, w: Tensor, embed: Embed | None, batch_size: int, report: Report) -> Seen:
    """Draw the pictures of w, and return what an inversion needs of them."""
    thumbnails, features = [], []
    total, squares, done = torch.zeros(()), torch.zeros(()), 0
    for part in w.split(batch_size):
        images = generator.synthesize(part)
        thumbnails.append(thumbnail(images))
        if embed is not None:
            features.append(flat_features(embed, images))
        pixels = images.cpu().double()
        total, squares = total + pixels.sum(0), squares + pixels.square().sum(0)
        done += len(part)
        report("examples", done / len(w))
    variance = float((squares / done - (total / done).square()).mean()) * done / (done - 1)
    channels, height, width = images.shape[1:]
    return Seen(
        (channels, height, width), torch.cat(thumbnails), torch.cat(features) if features else None,
        max(variance, 1e-12),
    )  # fmt: skip


def thumbnail(images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n numbers"]:
    """Return images reduced to at most `THUMBNAIL` pixels a side, as rows."""
    side = [min(THUMBNAIL, length) for length in images.shape[2:]]
    return F.interpolate(images, size=side, mode="area").flatten(1)


def _standard(known: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and scale examples to mean 0 and mean squared length 1, and other pictures in the same way."""
    mean, scale = known.mean(0), known.var(0).sum().sqrt().clamp_min(1e-12)
    return (known - mean) / scale, (given - mean) / scale
