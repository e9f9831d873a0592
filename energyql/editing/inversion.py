"""Find the latents of given pictures: z, and the offset of w from the mapped z.

The search has three stages, each measured in docs/decisions/inversion.md:

1. *Start.* z moves until the heads predict what the judge clearly reads off the picture, and w is near what a ridge
   regression on pictures of the prior predicts. This needs no pictures, so it is nearly free.
2. *z.* L-BFGS through the mapping network, on pixels and features; the attribute terms stay.
3. *W or W+.* A small offset from the mapped z, which the picture keeps through all edits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from energyql.editing.examples import Examples, draw_examples, thumbnail
from energyql.editing.latents import DRAWN_TOGETHER, Latents, LatentSpace, shifted
from energyql.editing.reading import attribute_terms
from energyql.editing.settings import InversionSettings
from energyql.editing.start import as_images
from energyql.editing.terms import Embed, Term, distance_term, edit_energy, flat_features, shell_term
from energyql.errors import ArgumentError
from energyql.generators.base import Generator
from energyql.progress import Report
from energyql.sampling import DescentSampler, Energy, GradientEnergy, SampleResult, normals

SPACES = ("z", "w", "w+")
FIRST_SHELL = 1.0
"""Weight of `(|z| - sqrt(z_dim))²` at the start."""
PREDICTED_W = (0.1, 1.0)
"""Weights of the squared distance from the predicted w, over twice its variance; each is tried. The one below 1 is
because errors of the coordinates of w depend on each other."""
DRAWS = 1 << 14
"""Draws of the prior, of which the one whose w is nearest to the predicted w is where the search for it begins."""
DIFFERENTIATED_TOGETHER = 8
"""Pictures that are drawn and differentiated together unless a call sets a batch size."""
TOLERANCE = 1e-4
"""A search of a picture ends when three steps in a row lower its loss by less than this together."""
MOST_DISTANCE = 0.25
"""Distance from which a reconstruction is another picture; see `ReconstructionLoss.distance`."""


class ReconstructionLoss:
    """Mean absolute pixel error (a fraction of the range) plus a weighted distance of features.

    Features are compared by their mean squared difference, in units of their variance over pictures of the model, so
    that one weight suits any embedding module. Without one, pixels alone are compared.

    `targets` are the given pictures, in [-1, 1], (n, channels, height, width).
    """

    def __init__(
        self, generator: Generator, targets: Tensor, embed: Embed | None, examples: Examples,
        settings: InversionSettings, batch_size: int | None = None,
    ) -> None:  # fmt: skip
        self.generator, self.targets, self.embed, self.examples = generator, targets, embed, examples
        self.settings, self.batch_size = settings, batch_size or DIFFERENTIATED_TOGETHER
        self.features: Tensor | None = None
        if embed is not None:
            with torch.no_grad():
                self.features = torch.cat([flat_features(embed, part) for part in targets.split(self.batch_size)])
            if examples.features is None or self.features.shape[1] != examples.features.shape[1]:
                raise ArgumentError(
                    "the perceptual module gives features of different sizes for pictures of one size",
                    hint="it must return features of one shape for pictures of one size",
                )

    def distance(self, images: Tensor) -> Tensor:
        """Return how far an image of each target is from it, (n,): the share of the model's variety that is missed.

        That is the squared difference in units of the variance over pictures of the model, of pixels or of features,
        whichever is larger.
        """
        pixels = (images - self.targets).square().flatten(1).mean(1) / self.examples.pixel_variance
        rows = torch.arange(len(images), device=images.device).split(self.batch_size)
        return pixels.maximum(torch.cat([self._features_off(images[some], some) for some in rows]))

    def of_examples(self) -> Tensor:
        """Return the loss of each example, as a thumbnail, against each target, (n, m)."""
        loss = self.settings.pixels * torch.stack(
            [(self.examples.thumbnails - small).abs().mean(1) / 2 for small in thumbnail(self.targets)]
        )
        if self.features is None or self.examples.features is None:
            return loss
        distance = torch.cdist(self.features, self.examples.features).square() / self.features.shape[1]
        return loss + self.settings.features * distance / self.examples.feature_variance

    def of_images(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return the loss of images against the targets `rows`, (batch,)."""
        loss = self.settings.pixels * pixel_error(images, self.targets[rows])
        return loss + self.settings.features * self._features_off(images, rows) if self.settings.features else loss

    def _features_off(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return the mean squared difference of features, in units of their variance, (batch,); 0 without features."""
        if self.embed is None or self.features is None:
            return torch.zeros_like(images[:, 0, 0, 0])
        difference = flat_features(self.embed, images) - self.features[rows]
        return difference.square().mean(1) / self.examples.feature_variance

    def with_gradient(self, w_of: Callable[[Tensor, Tensor], Tensor], x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses (batch,) and their gradients with respect to x (batch, ...), `batch_size` pictures at a time.

        `w_of` maps some rows of x, and the numbers of their targets, to w.
        """
        values, gradients = [], []
        for part, some in zip(x.split(self.batch_size), rows.split(self.batch_size), strict=True):
            with torch.enable_grad():
                variable = part.detach().clone().requires_grad_()
                value = self.of_images(self.generator.synthesize(w_of(variable, some)), some)
                (gradient,) = torch.autograd.grad(value.sum(), variable)
            values.append(value.detach())
            gradients.append(gradient)
        return torch.cat(values), torch.cat(gradients)


@dataclass(frozen=True, eq=False)
class Found:
    """The latents that were found for n pictures.

    Attributes:
        latents: of the reconstructions.
        targets: the pictures, cropped and resized, (n, channels, height, width) in [-1, 1].
        pixel_error: mean absolute error of the reconstructions, as a fraction of the range, (n,).
        distance: of the reconstructions from the pictures, (n,); see `ReconstructionLoss.distance`.
        run: the status of the search, and its evaluations.
    """

    latents: Latents
    targets: Tensor
    pixel_error: npt.NDArray[np.float64]
    distance: npt.NDArray[np.float64]
    run: SampleResult

    @property
    def drawable(self) -> npt.NDArray[np.bool_]:
        """Whether the generator can draw each picture, (n,)."""
        return self.distance <= MOST_DISTANCE


def pixel_error(images: Tensor, targets: Tensor) -> Tensor:
    """Return the mean absolute error of images in [-1, 1], as a fraction of that range, (batch,)."""
    return (images - targets).abs().flatten(1).mean(1) / 2


def find_latents(
    pictures: Sequence[Image.Image], space: LatentSpace, settings: InversionSettings, into: str,
    perceptual: Embed | None, batch_size: int | None, report: Report,
) -> Found:  # fmt: skip
    """Find the latents of n RGB pictures; see `energyql.invert`.

    Raises:
        ArgumentError: there is no space `into`.
    """
    if into not in SPACES:
        raise ArgumentError(f"pictures are inverted into {', '.join(SPACES)}, not {into!r}")
    model = space.model
    embed = perceptual if perceptual is not None else getattr(model.judge, "features", None)
    if isinstance(embed, torch.nn.Module):
        embed.eval().to(model.device)
    examples = draw_examples(space, settings.candidates, embed, batch_size, report)
    loss = ReconstructionLoss(
        model.generator, as_images(pictures, examples.like), embed, examples, settings, batch_size
    )
    terms = attribute_terms(loss.targets, space) if settings.attributes else []
    descent = DescentSampler(enough=None, tolerance=TOLERANCE, max_evaluations=settings.z_evaluations)
    searched = descent.sample(
        _z_objective(loss, space, terms, settings), _start(loss, terms, space),
        progress=lambda fraction, _: report("inverting", 0.5 * fraction),
    )  # fmt: skip
    latents, evaluations = Latents(space.scaled(searched.z)), searched.evaluations
    if into != "z":
        latents, more = _search_w(loss, latents, space, settings, into, report)
        evaluations = evaluations + more
    report("inverting", 1.0)
    with torch.no_grad():
        drawn = torch.cat([space.images(part) for part in latents.split()]).clamp(-1, 1)
        error, distance = (x.cpu().double().numpy() for x in (pixel_error(drawn, loss.targets), loss.distance(drawn)))
    run = SampleResult(latents.z, searched.status, evaluations, evaluations)
    return Found(latents, loss.targets, error, distance, run)


def _start(loss: ReconstructionLoss, terms: list[Term], space: LatentSpace) -> Tensor:
    """Return z for each picture: the most similar example, or where a search without pictures ends, if it is nearer.

    One search asks for the attributes alone, from that example; the others also for the predicted w, from the draw of
    the prior whose w is nearest.
    """
    examples = loss.examples
    with torch.no_grad():
        nearest = examples.z[loss.of_examples().argmin(1)]
        candidates, searches = [nearest], [(nearest, terms)]
        if examples.w.ndim == 2:
            w, error = examples.predict_w(thumbnail(loss.targets), loss.features)
            near = _nearest_draws(w, space)
            searches += [
                (near, [*terms, distance_term("w", w, weight / (2 * max(error, 1e-12)))]) for weight in PREDICTED_W
            ]
        for z, wanted in searches:
            if wanted:
                objective = edit_energy(space, Latents(z), [*wanted, shell_term(FIRST_SHELL)])
                candidates.append(DescentSampler(enough=None).sample(objective, z).z)
        rows = torch.arange(len(loss.targets), device=loss.targets.device).split(DRAWN_TOGETHER)
        losses = torch.stack([
            torch.cat([loss.of_images(space.images(Latents(z[some])), some) for some in rows]) for z in candidates
        ])  # fmt: skip
        best = losses.argmin(0)
        return torch.stack(candidates)[best, torch.arange(len(best), device=best.device)]


def _nearest_draws(w: Tensor, space: LatentSpace) -> Tensor:
    """Return z whose mapped w is nearest to each w, (n, z_dim), of many draws of the prior."""
    z = normals(0, 0, DRAWS, space.model.generator.z_dim, stream="inversion")
    least, best = w.new_full((len(w),), torch.inf), w.new_zeros(len(w), z.shape[1])
    for part in z.split(DRAWS // 16):
        part = part.to(w.device)
        distance, index = torch.cdist(w, space.encode(part)).min(1)
        nearer = distance < least
        least, best = torch.where(nearer, distance, least), torch.where(nearer[:, None], part[index], best)
    return best


def _z_objective(
    loss: ReconstructionLoss, space: LatentSpace, terms: list[Term], settings: InversionSettings
) -> Energy:
    factor = settings.attributes or 1.0
    shell = shell_term(settings.shell / factor)
    rest = edit_energy(space, Latents(loss.targets.new_zeros(0, space.model.generator.z_dim)), [*terms, shell])

    def objective(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = loss.with_gradient(lambda part, _: space.encode(part), z, rows)
        more, more_gradient = rest.gradient(z, rows)
        return value + factor * more, gradient + factor * more_gradient

    return GradientEnergy(objective)


def _search_w(
    loss: ReconstructionLoss, latents: Latents, space: LatentSpace, settings: InversionSettings, into: str,
    report: Report,
) -> tuple[Latents, Tensor]:  # fmt: skip
    """Return the latents with an offset of w, and the evaluations that the search took, (n,)."""
    with torch.no_grad():
        mapped = space.encode(latents.z)
    if mapped.ndim != 2:
        raise ArgumentError(
            'the w of this generator is no vector, so pictures can be inverted into "z" only',
            hint='give --space z, in Python space="z"',
        )
    layers = space.layer_count if into == "w+" else 1
    shape = (-1, layers, mapped.shape[1]) if into == "w+" else (-1, mapped.shape[1])

    def objective(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = loss.with_gradient(lambda part, some: shifted(mapped[some], part.view(shape)), x, rows)
        weight = settings.offset / layers
        return value + weight * x.square().sum(1), gradient + 2 * weight * x

    descent = DescentSampler(enough=None, tolerance=TOLERANCE, max_evaluations=settings.w_evaluations)
    searched = descent.sample(
        GradientEnergy(objective), mapped.new_zeros(len(mapped), layers * mapped.shape[1]),
        progress=lambda fraction, _: report("inverting", 0.5 + 0.5 * fraction),
    )  # fmt: skip
    return Latents(latents.z, searched.z.view(shape)), searched.evaluations
