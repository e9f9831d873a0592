"""Find the latents of given pictures: z, and the offset of w from the mapped z.

The search has three stages, each measured in docs/decisions/inversion.md:

1. *Attributes.* z moves until the heads predict what the judge reads off the picture. This needs no pictures, and gives
   the later stages a start from which they converge.
2. *z.* L-BFGS through the mapping network, on pixels and features; the attribute terms stay.
3. *W or W+.* A small offset from the mapped z, which the picture keeps through all edits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.predictions import output_count
from energyql.editing.latents import DRAWN_TOGETHER, Latents, LatentSpace, shifted
from energyql.editing.settings import InversionSettings
from energyql.editing.start import as_images
from energyql.editing.terms import Embed, Term, edit_energy, flat_features, keep_predictions, shell_term
from energyql.errors import ArgumentError
from energyql.generators.base import Generator
from energyql.pipeline.model import Values
from energyql.pipeline.result import concatenate
from energyql.progress import Report
from energyql.sampling import DescentSampler, Energy, GradientEnergy, SampleResult, normals
from energyql.vocabulary import Vocabulary

SPACES = ("z", "w", "w+")
TARGET_LOGIT = 6.0
"""Log-odds that the heads should have for what the judge reads."""
FIRST_SHELL = 1.0
"""Weight of `(|z| - sqrt(z_dim))²` in the first stage."""
DIFFERENTIATED_TOGETHER = 8
"""Pictures that are drawn and differentiated together unless a call sets a batch size."""


class ReconstructionLoss:
    """Mean absolute pixel error (a fraction of the range) plus a weighted distance of features.

    Features are compared by their mean squared difference, in units of their variance over pictures of the model, so
    that one weight suits any embedding module. Without one, pixels alone are compared.

    `targets` are the given pictures, in [-1, 1], (n, channels, height, width); `examples` are two or more of the model.
    """

    def __init__(
        self, generator: Generator, targets: Tensor, embed: Embed | None, examples: Tensor,
        settings: InversionSettings, batch_size: int | None = None,
    ) -> None:  # fmt: skip
        self.generator, self.targets, self.embed, self.examples = generator, targets, embed, examples
        self.settings, self.batch_size = settings, batch_size or DIFFERENTIATED_TOGETHER
        if embed is not None:
            if isinstance(embed, torch.nn.Module):
                embed.eval().to(targets.device)
            with torch.no_grad():
                self.features, self.example_features = (
                    torch.cat([flat_features(embed, part) for part in images.split(self.batch_size)])
                    for images in (targets, examples)
                )
            if self.features.shape[1] != self.example_features.shape[1]:
                raise ArgumentError("the perceptual module gives features of different sizes for pictures of one size")
            self.variance = self.example_features.var(0).mean().clamp_min(1e-12)

    def of_examples(self) -> Tensor:
        """Return the loss of each example against each target, (n, m)."""
        loss = self.settings.pixels * torch.stack([pixel_error(self.examples, target) for target in self.targets])
        if self.embed is None:
            return loss
        distance = torch.cdist(self.features, self.example_features).square() / self.features.shape[1]
        return loss + self.settings.features * distance / self.variance

    def of_images(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return the loss of images against the targets `rows`, (batch,)."""
        loss = self.settings.pixels * pixel_error(images, self.targets[rows])
        if self.embed is not None and self.settings.features:
            difference = flat_features(self.embed, images) - self.features[rows]
            loss = loss + self.settings.features * difference.square().mean(1) / self.variance
        return loss

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


def pixel_error(images: Tensor, targets: Tensor) -> Tensor:
    """Return the mean absolute error of images in [-1, 1], as a fraction of that range, (batch,)."""
    return (images - targets).abs().flatten(1).mean(1) / 2


def find_latents(
    pictures: Sequence[Image.Image], space: LatentSpace, settings: InversionSettings, into: str,
    perceptual: Embed | None, batch_size: int | None, report: Report,
) -> tuple[Latents, npt.NDArray[np.float64], SampleResult]:  # fmt: skip
    """Find the latents of n RGB pictures; see `energyql.invert`.

    Returns:
        The latents; the mean absolute pixel error as a fraction of the range, (n,); and a run with the status of the
        search in z and the evaluations of both searches together.

    Raises:
        ArgumentError: there is no space `into`.
    """
    if into not in SPACES:
        raise ArgumentError(f"pictures are inverted into {', '.join(SPACES)}, not {into!r}")
    model = space.model
    prior = normals(0, 0, settings.candidates, model.generator.z_dim, stream="inversion").to(model.device)
    with torch.no_grad():
        examples = torch.cat([model.generator.synthesize(space.encode(z)) for z in prior.split(16)])
    embed = perceptual if perceptual is not None else getattr(model.judge, "features", None)
    loss = ReconstructionLoss(model.generator, as_images(pictures, examples), embed, examples, settings, batch_size)
    terms = _attribute_terms(loss.targets, space) if settings.attributes else []
    descent = DescentSampler(enough=None, tolerance=1e-4, max_evaluations=settings.z_evaluations)
    searched = descent.sample(
        _z_objective(loss, space, terms, settings), _start(loss, prior, terms, space),
        progress=lambda fraction, _: report("inverting", 0.7 * fraction),
    )  # fmt: skip
    latents, evaluations = Latents(space.scaled(searched.z)), searched.evaluations
    if into != "z":
        latents, more = _search_w(loss, latents, space, settings, into, report)
        evaluations = evaluations + more
    report("inverting", 1.0)
    with torch.no_grad():
        drawn = torch.cat([space.images(part) for part in latents.split()])
        error = pixel_error(drawn.clamp(-1, 1), loss.targets).double().cpu().numpy()
    return latents, error, SampleResult(latents.z, searched.status, evaluations, evaluations)


def _attribute_terms(targets: Tensor, space: LatentSpace) -> list[Term]:
    """Return the divergence of the heads from what the judge reads off the pictures; nothing without a judge."""
    values = concatenate([space.model.judge_images(part) for part in targets.split(64)])
    if not values:
        return []
    outputs = _as_outputs(values, space.model.vocabulary).to(targets)
    raw = space.model.bank.raw_outputs(tuple(values))
    return [keep_predictions(raw, outputs, torch.ones(len(targets), len(values), device=targets.device))]


def _as_outputs(values: Values, vocabulary: Vocabulary) -> Tensor:
    """Return the outputs, (n, outputs), of heads that predict the values with certainty."""
    columns = []
    for name in values:
        spec = vocabulary[name]
        if spec.kind == "continuous":
            columns.append(torch.from_numpy(values[name]).float()[:, None])
        elif spec.kind == "categorical":
            columns.append(torch.from_numpy(values[name][:, None] == np.array(spec.values)).float() * 2 * TARGET_LOGIT)
        else:
            columns.append((torch.from_numpy(values[name]).float()[:, None] * 2 - 1) * TARGET_LOGIT)
        assert columns[-1].shape[1] == output_count(spec)
    return torch.cat(columns, 1)


def _start(loss: ReconstructionLoss, prior: Tensor, terms: list[Term], space: LatentSpace) -> Tensor:
    """Return the better z for each picture: the most similar one of the prior, or that after the first stage."""
    with torch.no_grad():
        least, best = loss.of_examples().min(1)
        z = prior[best]
        if not terms:
            return z
        objective = edit_energy(space, Latents(z), [*terms, shell_term(FIRST_SHELL)])
        moved = DescentSampler(enough=None).sample(objective, z).z
        rows = torch.arange(len(z), device=z.device).split(DRAWN_TOGETHER)
        parts = [
            loss.of_images(space.images(part), some) for part, some in zip(Latents(moved).split(), rows, strict=True)
        ]
        return torch.where((torch.cat(parts) < least)[:, None], moved, z)


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
        raise ArgumentError('the w of this generator is no vector, so pictures can be inverted into "z" only')
    layers = space.layer_count if into == "w+" else 1
    shape = (-1, layers, mapped.shape[1]) if into == "w+" else (-1, mapped.shape[1])

    def objective(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = loss.with_gradient(lambda part, some: shifted(mapped[some], part.view(shape)), x, rows)
        weight = settings.offset / layers
        return value + weight * x.square().sum(1), gradient + 2 * weight * x

    descent = DescentSampler(enough=None, tolerance=1e-4, max_evaluations=settings.w_evaluations)
    searched = descent.sample(
        GradientEnergy(objective), mapped.new_zeros(len(mapped), layers * mapped.shape[1]),
        progress=lambda fraction, _: report("inverting", 0.7 + 0.3 * fraction),
    )  # fmt: skip
    return Latents(latents.z, searched.z.view(shape)), searched.evaluations
