"""Inversion: search for the latents from which the generator draws given pictures, called targets.

The targets are compared with examples, pictures drawn from latents of the prior, always the same for a model. To draw
them takes longer than all else, so they are kept in a cache on disk. The result does not depend on the cache: without
it, or if it cannot be read or written, the examples are drawn.

The search has three stages, each measured in docs/decisions/inversion.md:

1. *Start.* z moves until the heads predict what the judge clearly reads off the target, and w is near the prediction of
   a ridge regression on the examples. (About a hundred examples suffice to predict w, but not z, whose relation to the
   picture is not linear.) No pictures are drawn, so this is fast.
2. *z.* L-BFGS through the mapping network minimises the differences of pixels and features; the attribute terms stay.
3. *W or W+.* The same for a small offset of w from the mapped z, which all edits keep.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from energyql.attributes.judge import JointJudge, Judge
from energyql.editing.folder import ORIGINALS, check_place, edit_files, save_picture
from energyql.editing.latents import DRAWN_TOGETHER, Embed, Latents, LatentSpace, draw_result, shifted
from energyql.editing.settings import InversionSettings
from energyql.editing.start import Picture, as_images, as_pictures, open_picture
from energyql.editing.terms import Term, attribute_terms, distance_term, edit_energy, flat_features, shell_term
from energyql.errors import ArgumentError, DataError, ModelError, OutOfDomainError
from energyql.files import as_path, check_destination, finish_saving, read_tensors, saving, write_picture, write_tensors
from energyql.generators.base import Generator
from energyql.generators.families import family_of, module_fingerprint
from energyql.logic.satisfiability import noting_tautologies
from energyql.models import DEFAULT_MODEL
from energyql.numerics.shapes import Float
from energyql.pipeline.draw import Pipeline, pipeline_for
from energyql.pipeline.model import Model
from energyql.pipeline.result import Result
from energyql.pipeline.result_folder import COMPARISON, EDIT, picture_name
from energyql.pipeline.settings import DrawSettings
from energyql.progress import Report, reporting
from energyql.render.pictures import label_grid, png_bytes, to_pictures
from energyql.sampling import DescentSampler, Energy, GradientEnergy, SampleResult, normals
from energyql.sampling.registry import read_record
from energyql.version import __version__

EXAMPLES_TOGETHER = 16
"""Number of examples in a batch, unless a call sets a batch size."""
THUMBNAIL = 16
"""Side of a thumbnail in pixels; thumbnails are compared, and are the input of the regression."""
RIDGE = 0.1
"""Ridge penalty, as a share of the mean squared length of an example's input of the regression."""


@dataclass(frozen=True, eq=False)
class Examples:
    """m pictures of the prior, and their latents.

    Attributes:
        z: (m, z_dim).
        w: (m, w_dim), or another shape of the generator.
        like: a tensor with the shape, type and device of one picture, (1, channels, height, width).
        thumbnails: the pictures, reduced, (m, numbers).
        features: features of the pictures, (m, numbers); `None` without an embedding module.
        pixel_variance: variance of a pixel over the pictures, the mean over all pixels.
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
        """Predict w of other pictures by ridge regression on the examples.

        Args:
            thumbnails: thumbnails of n pictures, (n, numbers).
            features: features of n pictures, (n, numbers), or `None`.

        Returns:
            w, (n, w_dim); and the mean squared error of a coordinate, by leaving out one example at a time.
        """
        inputs, others = _standard(self.thumbnails, thumbnails)
        if self.features is not None and features is not None:
            more = _standard(self.features, features)
            inputs, others = torch.cat([inputs, more[0]], 1), torch.cat([others, more[1]], 1)
        mean = self.w.mean(0)
        gram = inputs @ inputs.T
        inverse = torch.linalg.inv(gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device))
        centred = self.w - mean
        residual = (centred - gram @ inverse @ centred) / (1 - (gram @ inverse).diagonal())[:, None]
        return others @ inputs.T @ inverse @ centred + mean, float(residual.square().mean())


def draw_examples(
    space: LatentSpace, count: int, embed: Embed | None, batch_size: int | None, report: Report
) -> Examples:
    """Return `count` pictures of the prior, always the same; read them from the cache, or draw and cache them.

    Args:
        space: the latent space.
        count: number of pictures.
        embed: the embedding module; `None` for no features.
        batch_size: number of pictures in a batch, by default `EXAMPLES_TOGETHER`.
        report: called with the progress.
    """
    size, generator = batch_size or EXAMPLES_TOGETHER, space.model.generator
    z = normals(0, 0, count, generator.z_dim, stream="inversion").to(space.model.device)
    with torch.no_grad():
        w = torch.cat([space.encode(part) for part in z.split(size)])
        place = place_of(generator, w, embed, size)
        facts = cached_or_drawn(place, w, embed is not None, lambda: _draw(generator, w, embed, size, report))
    report("examples", 1.0)
    like = facts.thumbnails.new_zeros(1, *facts.shape)
    return Examples(z, w, like, facts.thumbnails, facts.features, facts.pixel_variance)


def _draw(generator: Generator, w: Tensor, embed: Embed | None, batch_size: int, report: Report) -> ExampleFacts:
    """Draw the pictures of w, and return their thumbnails, features and variance; see `draw_examples`."""
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
    return ExampleFacts(
        (channels, height, width), torch.cat(thumbnails), torch.cat(features) if features else None,
        max(variance, 1e-12),
    )  # fmt: skip


def thumbnail(images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n numbers"]:
    """Return images reduced to at most `THUMBNAIL` pixels a side, each as a row of numbers."""
    side = [min(THUMBNAIL, length) for length in images.shape[2:]]
    return F.interpolate(images, size=side, mode="area").flatten(1)


def _standard(examples: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Return the inputs of examples and of other pictures, (m, numbers) and (n, numbers), shifted and scaled.

    Afterwards those of the examples have mean 0 and mean squared length 1.
    """
    mean, scale = examples.mean(0), examples.var(0).sum().sqrt().clamp_min(1e-12)
    return (examples - mean) / scale, (others - mean) / scale


FOLDER = "ENERGYQL_CACHE"
"""Environment variable with the folder of caches; empty for no cache."""
MOST_FILES = 32
"""Largest number of files in the cache; those that were used last are kept."""
MOST_BYTES = 1 << 25
"""Size in bytes of the largest examples that are cached."""


@dataclass(frozen=True, eq=False)
class ExampleFacts:
    """Measurements of the pictures of m examples, which replace the pictures themselves.

    Attributes:
        shape: shape of one picture, (channels, height, width).
        thumbnails: the pictures, reduced, (m, numbers).
        features: features of the pictures, (m, numbers); `None` without an embedding module.
        pixel_variance: variance of a pixel over the pictures, the mean over all pixels.
    """

    shape: tuple[int, int, int]
    thumbnails: Float[Tensor, "m numbers"]
    features: Float[Tensor, "m features"] | None
    pixel_variance: float


def cache_folder() -> Path | None:
    """Return the user's folder for caches; `None` if the user wants none, or the system names none."""
    named = os.environ.get(FOLDER)
    if named is not None:
        return Path(named) if named else None
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "energyql" if base and os.path.isabs(base) else None


def place_of(generator: Generator, w: Tensor, embed: object, batch_size: int) -> Path | None:
    """Return the path of the cached examples; `None` if they are not cached.

    The name of the file is a digest of all that the thumbnails and features depend on: w, which stands for the
    examples, truncation and label; weights and settings of the generator; the judge whose features are compared; and
    versions, device and batch size, which change the last bits. Code outside this package may change unnoticed, so
    nothing is cached for its generators and embedding modules.

    Args:
        generator: the generator.
        w: w of the examples.
        embed: the embedding module, or `None`.
        batch_size: number of pictures in a batch.
    """
    folder, judges = cache_folder(), _judges(embed)
    if folder is None or judges is None or family_of(generator) is None:
        return None
    parts = [
        __version__, torch.__version__, w.device.type, str(w.dtype), str(batch_size),
        type(generator).__name__, repr(getattr(generator, "config", "")), module_fingerprint(generator),
        *(f"{judge.side} {module_fingerprint(judge)}" for judge in judges),
    ]  # fmt: skip
    digest = hashlib.sha256("\n".join(parts).encode())
    digest.update(w.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return folder / "examples" / f"{digest.hexdigest()[:32]}.safetensors"


def _judges(embed: object) -> list[Judge] | None:
    """Return the judges whose features `embed` returns, none if it is `None`; `None` for any other embedding module."""
    if embed is None:
        return []
    owner = getattr(embed, "__self__", None)
    if getattr(embed, "__name__", "") != "features" or not isinstance(owner, Judge | JointJudge):
        return None
    return [owner] if isinstance(owner, Judge) else list(owner.judges)


def cached_or_drawn(
    place: Path | None, like: Tensor, has_features: bool, draw: Callable[[], ExampleFacts]
) -> ExampleFacts:
    """Return the cached examples, or draw and cache them.

    Args:
        place: path of the cached examples; `None` to draw them only.
        like: w of the examples, which has their number, type and device.
        has_features: whether features are needed.
        draw: draws the examples.
    """
    if place is None:
        return draw()
    if (cached := _read(place, like, has_features)) is not None:
        with suppress(OSError):
            os.utime(place)  # marks the file as used
        return cached
    facts = draw()
    tensors = {
        "shape": torch.tensor(facts.shape), "thumbnails": facts.thumbnails,
        "pixel_variance": torch.tensor(facts.pixel_variance, dtype=torch.float64),
    } | ({} if facts.features is None else {"features": facts.features})  # fmt: skip
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) <= MOST_BYTES:
        with suppress(OSError, ArgumentError):  # a folder that cannot be written does no harm
            write_tensors(place, tensors)
            _remove_oldest(place.parent)
    return facts


def _read(place: Path, like: Tensor, has_features: bool) -> ExampleFacts | None:
    """Return the examples in a file; `None` if it is missing, damaged or of another form. See `cached_or_drawn`."""
    try:
        tensors = read_tensors(place)
        channels, height, width = (int(size) for size in tensors["shape"])
        variance, thumbnails = float(tensors["pixel_variance"]), tensors["thumbnails"]
        features = tensors["features"] if has_features else None
    except (ModelError, KeyError, TypeError, ValueError, RuntimeError):
        return None
    for part in (thumbnails, features):
        if part is not None and not (
            part.ndim == 2 and len(part) == len(like) and part.dtype == like.dtype and bool(part.isfinite().all())
        ):
            return None
    if min(channels, height, width) < 1 or not 0 < variance < float("inf"):
        return None
    where = like.device
    return ExampleFacts(
        (channels, height, width), thumbnails.to(where), None if features is None else features.to(where), variance
    )


def _remove_oldest(folder: Path) -> None:
    files = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[MOST_FILES:]:
        path.unlink(missing_ok=True)


SPACES = ("z", "w", "w+")
FIRST_SHELL = 1.0
"""Weight of `(|z| - sqrt(z_dim))²` in the first stage."""
PREDICTED_W = (0.1, 1.0)
"""Weights of the squared distance from the predicted w, divided by twice its variance; each is tried. One is below 1,
because the errors of the coordinates of w are dependent."""
DRAWS = 1 << 14
"""Number of draws of the prior; the search for the predicted w starts from the draw whose w is nearest to it."""
DIFFERENTIATED_TOGETHER = 8
"""Number of pictures in a batch that is differentiated, unless a call sets a batch size."""
TOLERANCE = 1e-4
"""A search of a picture ends when three steps in a row lower its loss by less than this together."""
MOST_DISTANCE = 0.25
"""Distance above which the generator cannot draw a picture; see `ReconstructionLoss.distance`."""


class ReconstructionLoss:
    """Loss of reconstructions of n targets: mean absolute pixel error plus a weighted distance of features.

    The pixel error is a fraction of the range. The distance of features is their mean squared difference, in units of
    their variance over the examples, so that one weight suits any embedding module. Without one, pixels alone are
    compared.

    Args:
        generator: the generator.
        targets: the given pictures, in [-1, 1], (n, channels, height, width).
        embed: the embedding module, or `None`.
        examples: the examples.
        settings: the weights.
        batch_size: number of pictures in a batch, by default `DIFFERENTIATED_TOGETHER`.

    Raises:
        ArgumentError: the embedding module returns features of different sizes.
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
        """Return the distance of n images from their targets, (n,): the share of the examples' variety that is missed.

        That is the mean squared difference in units of the variance over the examples, of pixels or of features,
        whichever is larger.
        """
        pixels = (images - self.targets).square().flatten(1).mean(1) / self.examples.pixel_variance
        rows = torch.arange(len(images), device=images.device).split(self.batch_size)
        return pixels.maximum(torch.cat([self._features_off(images[some], some) for some in rows]))

    def of_examples(self) -> Tensor:
        """Return the loss of each of m examples, as a thumbnail, for each target, (n, m)."""
        loss = self.settings.pixels * torch.stack(
            [(self.examples.thumbnails - small).abs().mean(1) / 2 for small in thumbnail(self.targets)]
        )
        if self.features is None or self.examples.features is None:
            return loss
        distance = torch.cdist(self.features, self.examples.features).square() / self.features.shape[1]
        return loss + self.settings.features * distance / self.examples.feature_variance

    def of_images(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return the loss of images for the targets with the numbers `rows`, (batch,)."""
        loss = self.settings.pixels * pixel_error(images, self.targets[rows])
        return loss + self.settings.features * self._features_off(images, rows) if self.settings.features else loss

    def _features_off(self, images: Tensor, rows: Tensor) -> Tensor:
        """Return the mean squared difference of features from the targets', in units of their variance, (batch,)."""
        if self.embed is None or self.features is None:
            return torch.zeros_like(images[:, 0, 0, 0])
        difference = flat_features(self.embed, images) - self.features[rows]
        return difference.square().mean(1) / self.examples.feature_variance

    def with_gradient(self, w_of: Callable[[Tensor, Tensor], Tensor], x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return losses (batch,) and their gradients with respect to x.

        Args:
            w_of: maps some rows of x, and the numbers of their targets, to w.
            x: variables of the pictures, (batch, ...).
            rows: numbers of their targets, (batch,).
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
class Reconstruction:
    """The latents of the reconstructions of n pictures, and their quality.

    Attributes:
        latents: the latents.
        targets: the given pictures, cropped and resized, (n, channels, height, width) in [-1, 1].
        pixel_error: mean absolute error of the reconstructions, as a fraction of the range, (n,).
        distance: distance of the reconstructions from the targets, (n,); see `ReconstructionLoss.distance`.
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
    """Return the mean absolute difference of images in [-1, 1] and targets, as a fraction of that range, (batch,)."""
    return (images - targets).abs().flatten(1).mean(1) / 2


def find_latents(
    pictures: Sequence[Image.Image], space: LatentSpace, settings: InversionSettings, into: str,
    perceptual: Embed | None, batch_size: int | None, report: Report,
) -> Reconstruction:  # fmt: skip
    """Search for the latents of n RGB pictures; see `energyql.invert` for the arguments.

    Raises:
        ArgumentError: there is no space `into`, or this generator has none.
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
        images = torch.cat([space.images(part) for part in latents.split()]).clamp(-1, 1)
        error, distance = (x.cpu().double().numpy() for x in (pixel_error(images, loss.targets), loss.distance(images)))
    run = SampleResult(latents.z, searched.status, evaluations, evaluations)
    return Reconstruction(latents, loss.targets, error, distance, run)


def _start(loss: ReconstructionLoss, terms: list[Term], space: LatentSpace) -> Tensor:
    """Return the start of the search of z, (n, z_dim): for each target the best of some candidates.

    Candidates are the most similar example; the end of a search from there for the attributes alone; and the ends of
    searches for the attributes and the predicted w, which start from the draw of the prior with the nearest w.

    Args:
        loss: the loss, which holds the targets.
        terms: the attribute terms.
        space: the latent space.
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
        for z, goals in searches:
            if goals:
                objective = edit_energy(space, Latents(z), [*goals, shell_term(FIRST_SHELL)])
                candidates.append(DescentSampler(enough=None).sample(objective, z).z)
        rows = torch.arange(len(loss.targets), device=loss.targets.device).split(DRAWN_TOGETHER)
        losses = torch.stack([
            torch.cat([loss.of_images(space.images(Latents(z[some])), some) for some in rows]) for z in candidates
        ])  # fmt: skip
        best = losses.argmin(0)
        return torch.stack(candidates)[best, torch.arange(len(best), device=best.device)]


def _nearest_draws(w: Tensor, space: LatentSpace) -> Tensor:
    """Return, of `DRAWS` draws of the prior, z whose w is nearest to each row of `w`, (n, z_dim)."""
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
    """Return the loss plus the weighted attribute terms and shell, as a function of z."""
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
    """Search for an offset of w.

    Returns:
        The latents with this offset, and the number of evaluations, (n,).

    Raises:
        ArgumentError: the w of the generator is no vector, or the generator has no W+.
    """
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


@dataclass(frozen=True, eq=False)
class Inversion:
    """Pictures, and the latents that reproduce them.

    Attributes:
        result: the reconstructions, with their latents and judged values; `edit` can start from it.
        pictures: the given pictures, cropped and resized to the size of the reconstructions.
        pixel_error: mean absolute error of the reconstructions, as a fraction of the range of a pixel, (n,).
        drawable: whether the generator can draw each picture, (n,); otherwise the reconstruction differs too much.
    """

    result: Result
    pictures: list[Image.Image]
    pixel_error: npt.NDArray[np.float64]
    drawable: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.pictures)

    def summary(self) -> str:
        """Return one line: how well the pictures are reconstructed, and which of them the generator cannot draw."""
        mean, worst = self.pixel_error.mean(), self.pixel_error.max()
        line = f"{len(self)} reconstructed with a mean absolute pixel error of {mean:.3f}, worst {worst:.3f}"
        other = ", ".join(f"#{index}" for index in self.result.index[~self.drawable])
        return f"{line}; not the given picture, which the generator cannot draw: {other}" if other else line

    def __repr__(self) -> str:
        return f"<Inversion: {self.summary()}>"

    def comparison(self) -> Image.Image:
        """Draw the given pictures, each beside its reconstruction."""
        pairs = zip(self.pictures, self.result.images, strict=True)
        captions = [
            text
            for error, drawable in zip(self.pixel_error, self.drawable, strict=True)
            for text in ("original", f"reconstruction, error {error:.3f}" if drawable else "not this picture")
        ]
        return label_grid([each for pair in pairs for each in pair], captions=captions, columns=2 * min(4, len(self)))

    def save(self, path: str | Path) -> Path:
        """Write the comparison, or a folder that `edit` can start from, and return the path.

        A folder gets the files of `Result.save`, the given pictures in `originals/`, and `comparison.png`; an earlier
        inversion or edit in it is replaced.

        Args:
            path: a picture that ends in .png, .jpg or .webp, or a folder.

        Raises:
            ArgumentError: the path cannot be written, or the folder holds a run or pictures to label.
        """
        path = check_destination(as_path(path))
        if path.suffix and not path.is_dir():
            return save_picture(path, self.comparison())
        check_place(path)
        with saving(path, edit_files) as folder:
            self.write_files(folder)
        return path

    def write_files(self, folder: Path) -> None:
        """Write the files of `save` to an empty folder."""
        for i, picture in enumerate(self.pictures):
            write_picture(folder / ORIGINALS / picture_name(i), picture)
        self.result.write_files(folder)
        write_picture(folder / COMPARISON, self.comparison())

    @classmethod
    def load(cls, folder: str | Path) -> Inversion:
        """Read an inversion from a folder that `save` wrote.

        Raises:
            DataError: there is no inversion in the folder, or its files are damaged or do not fit together.
        """
        folder = as_path(folder)
        result = Result.load(folder)
        try:
            facts = result.provenance["inverted"]
            error, drawable = np.array(facts["pixel_error"], np.float64), np.array(facts["drawable"], np.bool_)
            pictures = [open_picture(folder / ORIGINALS / picture_name(i)) for i in range(len(result))]
        except (KeyError, TypeError, ValueError) as problem:
            raise DataError(
                f"{folder} holds no inversion, or a damaged one: {problem}",
                hint="name a folder that energyql invert wrote",
            ) from problem
        if not error.shape == drawable.shape == (len(result),):
            raise DataError(
                f"{folder} holds a damaged inversion: there are {len(result)} pictures",
                hint="invert the pictures again",
            )
        return cls(result, pictures, error, drawable)

    def _repr_png_(self) -> bytes:
        return png_bytes(self.comparison())


def invert(
    pictures: Picture | Sequence[Picture],
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    space: str = "w",
    perceptual: Embed | None = None,
    settings: InversionSettings | None = None,
    truncation: float | None = None,
    label: int | Sequence[float] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    anyway: bool = False,
    progress: bool | Report = True,
) -> Inversion:
    """Find the latents that reproduce given pictures.

    First z is fitted without drawing pictures: to the values that the judge reads off the picture, and to the w that a
    regression predicts. Then z is fitted to the picture, in pixels and features. Last, w gets a small offset from the
    output of the mapping network for z, which every edit keeps. So heads that read z predict the attributes of the
    picture.

    Args:
        pictures: paths or PIL images; cropped around the centre and resized like pictures of the generator.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        space: "z", "w" (an offset of w) or "w+" (an offset for each layer of the synthesis).
        perceptual: a function or torch module from pictures in [-1, 1], (batch, channels, height, width), to features
            (batch, ...); by default the features of the model's judge. Without both, only pixels count.
        settings: weights and budgets; see `InversionSettings`.
        truncation: psi, 0 to 1; by default that of the model.
        label: class, or label vector, of a conditional generator.
        device: "cpu", "cuda" and so on; "auto" is a GPU if there is one.
        batch_size: number of pictures that are drawn and differentiated at a time.
        anyway: also return pictures that the generator cannot draw; `drawable` is False for them.
        progress: whether to show a bar; or a function of the name of a stage and the fraction of it that is done.

    Returns:
        An `Inversion`. Its `result` is a start for `edit`.

    Raises:
        OutOfDomainError: the generator cannot draw a picture.
        EnergyQLError: a picture cannot be read, or an argument is wrong.
    """
    several = as_pictures(pictures)
    if several is None:
        raise ArgumentError(f"{type(pictures).__name__} is no picture", hint="give paths or PIL images")
    chosen = InversionSettings() if settings is None else settings
    if not isinstance(chosen, InversionSettings):
        raise ArgumentError(f"settings must be InversionSettings, not {chosen!r}")
    if perceptual is not None and not callable(perceptual):
        raise ArgumentError("perceptual must be a function or torch module of pictures")
    draw = DrawSettings(truncation=truncation, label=label, batch_size=batch_size)
    with reporting(progress) as report:
        return invert_pictures(
            pipeline_for(model, device), several, draw, space=space, perceptual=perceptual, settings=chosen,
            anyway=anyway, report=report,
        )  # fmt: skip


def invert_pictures(
    pipeline: Pipeline, pictures: Sequence[Picture], draw: DrawSettings, *, space: str = "w",
    perceptual: Embed | None = None, settings: InversionSettings | None = None, anyway: bool, report: Report,
) -> Inversion:  # fmt: skip
    """Invert pictures with a loaded model; the other arguments are those of `invert`."""
    opened, settings = [open_picture(picture) for picture in pictures], settings or InversionSettings()
    with noting_tautologies():  # no warning for the query TRUE
        prepared = pipeline.prepare("TRUE", draw)
    latent_space = LatentSpace(pipeline.model, prepared.provenance["truncation"], prepared.provenance["label"])
    began = time.perf_counter()
    fit = find_latents(opened, latent_space, settings, space, perceptual, draw.batch_size, report)
    only = len(pictures) == 1
    names = [
        str(picture) if isinstance(picture, str | Path) else "the picture" if only else f"picture {index}"
        for index, picture in enumerate(pictures)
    ]
    if not anyway:
        _check_drawable(fit, names, pipeline.model)
    facts = {
        "pictures": names,
        "pixel_error": fit.pixel_error.tolist(),
        "distance": fit.distance.tolist(),
        "drawable": fit.drawable.tolist(),
        "space": space,
        "settings": asdict(settings),
    }
    prepared = replace(
        prepared, provenance=prepared.provenance | {"sampler": read_record("inversion"), "inverted": facts}
    )
    searched = time.perf_counter()
    result = draw_result(prepared, latent_space, fit.latents, np.arange(len(names)), report, fit.run)
    ended = time.perf_counter()
    result.statistics.update({"seconds_sampling": searched - began, "seconds_drawing": ended - searched})
    return Inversion(result, to_pictures(fit.targets), fit.pixel_error, fit.drawable)


def load_inversion(folder: Path) -> Inversion | None:
    """Return the inversion in a folder; `None` if the folder holds a result or an edit."""
    finish_saving(folder)
    return Inversion.load(folder) if (folder / ORIGINALS).is_dir() and not (folder / EDIT).is_file() else None


def _check_drawable(fit: Reconstruction, names: Sequence[str], model: Model) -> None:
    """Check that the generator can draw all pictures.

    Raises:
        OutOfDomainError: it cannot; the message names up to three of the pictures.
    """
    rows = zip(names, fit.distance, fit.drawable, strict=True)
    other = [f"{name} (distance {distance:.2f})" for name, distance, drawable in rows if not drawable]
    if other:
        listed = ", ".join(other[:3]) + (f" and {len(other) - 3} more" if len(other) > 3 else "")
        raise OutOfDomainError(
            f"the generator of model {model.name!r} cannot draw {listed}: the nearest picture that was found "
            f"differs too much, by more than {MOST_DISTANCE:g}",
            hint="crop the picture like those of the generator, or go on all the same (anyway=True, --anyway)",
        )
