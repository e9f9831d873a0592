"""Inversion: search for the latents from which the generator draws given pictures, called targets.

Targets are compared with examples, which are pictures of the prior, always the same for a model. Drawing these takes
longer than all else, so their measurements are cached on disk. The search has three stages
(docs/decisions/inversion.md):

1. *Start*, without pictures: z moves until the heads predict the values that the judge is sure of for the target, and w
is near the w that a ridge regression on the examples predicts. (About a hundred examples suffice to predict w, but not
z, whose relation to the picture is not linear.) The few z found are then compared by their pictures.
2. *z*: L-BFGS lowers the differences of pixels and features between picture and target, plus the attributes' terms.
3. *W or W+*: L-BFGS lowers the differences by a small offset, added to the output of the mapping network for z. Every
later edit keeps this offset.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from energyql import __version__
from energyql.attributes.judge import JointJudge, Judge
from energyql.attributes.labels import ImageLabeller, call_labeller, encode_column, read_images
from energyql.attributes.predictions import HEAD_KINDS, Prediction, output_count
from energyql.editing.arguments import InvertOptions, InvertSettings
from energyql.editing.folder import ORIGINALS, check_place, edit_files
from energyql.editing.latents import DRAWN_TOGETHER, Latents, LatentSpace, draw_result, shifted
from energyql.editing.pictures import Embed, Picture, as_images, as_pictures, flat_features, open_picture
from energyql.editing.settings import InversionSettings
from energyql.editing.terms import AnyTerm, distance_term, keep_predictions, repeated_term, shell_term
from energyql.errors import ArgumentError, DataError, ModelError, OutOfDomainError, either
from energyql.files import (
    as_path,
    cache_folder,
    check_destination,
    finish_saving,
    read_tensors,
    saving,
    write_picture,
    write_tensors,
)
from energyql.generators.base import Generator
from energyql.generators.families import family_of, module_fingerprint
from energyql.logic.satisfiability import noting_tautologies
from energyql.models import DEFAULT_MODEL
from energyql.numerics.shapes import Float
from energyql.pipeline.model import Model
from energyql.pipeline.plan import plan_query, solved_by
from energyql.pipeline.result import Result
from energyql.pipeline.result_folder import COMPARISON, EDIT, picture_name, write_result
from energyql.pipeline.session import Session, open_session
from energyql.pipeline.settings import DrawSettings
from energyql.progress import Report, reporting
from energyql.render.pictures import Cell, label_grid, png_bytes, to_pictures
from energyql.sampling import DescentSampler, Energy, GradientEnergy, SampleResult, normals
from energyql.vocabulary import Vocabulary

if TYPE_CHECKING:
    from typing_extensions import Unpack

EXAMPLES_TOGETHER = 16
"""Number of examples that are drawn in one batch, unless a call sets a batch size."""
THUMBNAIL = 16
"""Side of a thumbnail in pixels. By thumbnails targets are compared with examples, and the w of a target is
predicted."""
RIDGE = 0.1
"""Ridge penalty of the regression that predicts w, as a fraction of the mean squared length of the inputs."""


@dataclass(frozen=True, eq=False)
class Examples:
    """The latents of m examples, which are pictures of the prior, and measurements of the pictures.

    Attributes:
        z: (m, z_dim).
        w: (m, w_dim), or (m, ...) if the generator's w is no vector.
        shape: number of channels, height and width of a picture, as a tensor (3,).
        thumbnails: the pictures reduced to `THUMBNAIL` pixels a side, each as a row, (m, numbers).
        pixel_variance: variance of each pixel over the pictures, averaged over all pixels; a float64 scalar.
        features: features of each picture, (m, numbers); `None` without an embedding module.
    """

    z: Tensor
    w: Tensor
    shape: Tensor
    thumbnails: Tensor
    pixel_variance: Tensor
    features: Tensor | None = None

    @property
    def like(self) -> Tensor:
        """Zeros with the shape, dtype and device of one picture, (1, channels, height, width)."""
        return self.thumbnails.new_zeros(1, *self.shape.tolist())

    @cached_property
    def feature_variance(self) -> float:
        """Variance of each feature over the examples, averaged over all features; 1 without features."""
        return 1.0 if self.features is None else max(float(self.features.var(0).mean()), 1e-12)

    def predict_w(self, thumbnails: Tensor, features: Tensor | None) -> tuple[Float[Tensor, "n w_dim"], float]:
        """Predict w of n other pictures, (n, w_dim), by ridge regression on thumbnails and, if given, features.

        Also returns the mean squared error of a coordinate of w, measured by leave-one-out over the examples.
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
    """Draw and measure `count` examples, always the same pictures, or read their measurements from the cache."""
    size, generator = batch_size or EXAMPLES_TOGETHER, space.model.generator
    z = normals(0, 0, count, generator.z_dim, stream="inversion").to(space.model.device)
    with torch.no_grad():
        w = torch.cat([space.encode(part) for part in z.split(size)])
        place = place_of(generator, w, embed, size)
        measurements = None if place is None else read_cache(place, w, embed is not None)
        if measurements is None:
            measurements = _measure(generator, w, embed, size, report)
            if place is not None:
                write_cache(place, measurements)
    report("examples", 1.0)
    return Examples(z, w, **measurements)


def _measure(
    generator: Generator, w: Tensor, embed: Embed | None, batch_size: int, report: Report
) -> dict[str, Tensor]:
    """Draw pictures from w in batches, and measure them: name of a field of `Examples` -> value."""
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
    measurements = {
        "shape": torch.tensor(images.shape[1:]), "thumbnails": torch.cat(thumbnails),
        "pixel_variance": torch.tensor(max(variance, 1e-12), dtype=torch.float64),
    }  # fmt: skip
    return measurements | {"features": torch.cat(features)} if features else measurements


def thumbnail(images: Float[Tensor, "n channels height width"]) -> Float[Tensor, "n numbers"]:
    """Reduce images to `THUMBNAIL` pixels a side, each as a row of numbers; shorter sides stay."""
    side = [min(THUMBNAIL, length) for length in images.shape[2:]]
    return F.interpolate(images, size=side, mode="area").flatten(1)


def _standard(examples: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and scale both inputs alike, so that the rows of the examples have mean 0 and mean squared length 1."""
    mean, scale = examples.mean(0), examples.var(0).sum().sqrt().clamp_min(1e-12)
    return (examples - mean) / scale, (others - mean) / scale


MOST_FILES = 32
"""Most files in the cache; beyond it, those that were not used for longest are deleted."""
MOST_BYTES = 1 << 25
"""Most bytes of measurements in one file of the cache; larger measurements are not cached."""


def place_of(generator: Generator, w: Tensor, embed: object, batch_size: int) -> Path | None:
    """Path of the cache file for the measurements of examples with this w; `None` if they are not cached.

    Its name is a digest of all that they depend on: w, the generator, the judge whose features are compared, and
    versions, device and batch size, which change the last bits. A generator or an embedding module from outside this
    package is not cached, because its code may change without notice.
    """
    folder, owner = cache_folder(), getattr(embed, "__self__", None)
    is_ours = embed is None or (isinstance(owner, Judge | JointJudge) and embed == owner.features)
    if folder is None or not is_ours or family_of(generator) is None:
        return None
    judges = owner.judges if isinstance(owner, JointJudge) else [] if owner is None else [owner]
    parts = [
        __version__, torch.__version__, w.device.type, str(w.dtype), str(batch_size),
        type(generator).__name__, repr(getattr(generator, "config", "")), module_fingerprint(generator),
        *(f"{judge.body.describe()} {module_fingerprint(judge)}" for judge in judges),
    ]  # fmt: skip
    digest = hashlib.sha256("\n".join(parts).encode())
    digest.update(w.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return folder / "examples" / f"{digest.hexdigest()[:32]}.safetensors"


def read_cache(place: Path, w: Tensor, has_features: bool) -> dict[str, Tensor] | None:
    """Cached measurements of the examples with this w, by name, on its device; `None` if missing or unfit."""
    names = {"shape", "thumbnails", "pixel_variance"} | ({"features"} if has_features else set())
    try:
        tensors = {name: tensor.to(w.device) for name, tensor in read_tensors(place).items()}
    except ModelError:
        return None
    with suppress(OSError):
        os.utime(place)  # marks the file as used
    rows = [tensor for name, tensor in tensors.items() if name in ("thumbnails", "features")]
    fits = tensors.keys() == names and all(len(each) == len(w) for each in rows)
    return tensors if fits and all(tensor.isfinite().all() for tensor in tensors.values()) else None


def write_cache(place: Path, measurements: dict[str, Tensor]) -> None:
    """Write measurements of up to `MOST_BYTES` to the cache if possible, and keep the `MOST_FILES` last used files."""
    if sum(tensor.nbytes for tensor in measurements.values()) > MOST_BYTES:
        return
    with suppress(OSError, ArgumentError):
        write_tensors(place, measurements)
        files = sorted(place.parent.glob("*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[MOST_FILES:]:
            path.unlink(missing_ok=True)


FIRST_SHELL = 1.0
"""Weight, in the first stage, of the term `(|z| - sqrt(z_dim))²`, which keeps the length of z typical of the prior."""
PREDICTED_W = (0.1, 1.0)
"""Weights, in the first stage, of the squared distance of w from the predicted w, divided by twice the variance of the
prediction. The stage searches once with each. One is below 1, because the errors of the coordinates depend on each
other."""
DRAWS = 1 << 14
"""Number of draws of the prior; a search of the first stage starts from the one whose w is nearest to the predicted
w."""
DIFFERENTIATED_TOGETHER = 8
"""Number of pictures whose loss is differentiated in one batch, unless a call sets a batch size."""
TOLERANCE = 1e-4
"""A search through pictures ends when three steps in a row together lower the loss by less than this."""
MOST_DISTANCE = 0.25
"""Largest distance of a reconstruction from its target (`ReconstructionLoss.distance`) at which the generator counts as
able to draw the picture. The distance is 0 for equal and about 2 for unrelated pictures."""


class ReconstructionLoss:
    """Loss of reconstructions of n targets: weighted sum of the pixel error and the distance of features.

    The pixel error is the mean absolute difference, as a fraction of the range of a pixel. The distance of features is
    the mean squared difference, divided by the variance of features over the examples, so that one weight suits any
    embedding module. Without an embedding module only pixels are compared.

    Args:
        targets: pictures in [-1, 1], (n, channels, height, width).
        settings: its `pixels` and `features` are the two weights; other fields are not used.

    Raises:
        ArgumentError: the embedding module returns no features, or features of another size than for the examples.
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
                raise ArgumentError("the perceptual module gives features of different sizes for pictures of one size")

    def distance(self, images: Tensor) -> Tensor:
        """Distance of n images from their targets, (n,): 0 if equal, near 2 for unrelated pictures.

        It is the larger of two mean squared differences, of pixels and of features, each divided by the variance over
        the examples.
        """
        pixels = (images - self.targets).square().flatten(1).mean(1) / self.examples.pixel_variance
        rows = torch.arange(len(images), device=images.device).split(self.batch_size)
        return pixels.maximum(torch.cat([self._features_off(images[some], some) for some in rows]))

    def of_examples(self) -> Tensor:
        """Loss of each of the m examples as a reconstruction of each of the n targets, (n, m), by thumbnails."""
        errors = [(self.examples.thumbnails - small).abs().mean(1) / 2 for small in thumbnail(self.targets)]
        loss = self.settings.pixels * torch.stack(errors)
        if self.features is None or self.examples.features is None:
            return loss
        distance = torch.cdist(self.features, self.examples.features).square() / self.features.shape[1]
        return loss + self.settings.features * distance / self.examples.feature_variance

    def of_images(self, images: Tensor, rows: Tensor) -> Tensor:
        """Loss of images in [-1, 1], (batch,), as reconstructions of the targets with the numbers `rows`, (batch,)."""
        loss = self.settings.pixels * pixel_error(images, self.targets[rows])
        return loss + self.settings.features * self._features_off(images, rows) if self.settings.features else loss

    def _features_off(self, images: Tensor, rows: Tensor) -> Tensor:
        """Distance of features of images from those of the targets `rows`, (batch,); 0 without features."""
        if self.embed is None or self.features is None:
            return torch.zeros_like(images[:, 0, 0, 0])
        difference = flat_features(self.embed, images) - self.features[rows]
        return difference.square().mean(1) / self.examples.feature_variance

    def with_gradient(self, w_of: Callable[[Tensor, Tensor], Tensor], x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each picture, (batch,), and its gradients with respect to x, which is z or an offset of w.

        `w_of` makes w of some rows of x and the numbers of their targets; `rows` are these numbers for all of x,
        (batch,).
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
    """Mean absolute difference of each image from its target, divided by the pixel range 2, (batch,)."""
    return (images - targets).abs().flatten(1).mean(1) / 2


def find_latents(
    pictures: Sequence[Image.Image], space: LatentSpace, settings: InvertSettings, report: Report
) -> tuple[Latents, SampleResult, ReconstructionLoss]:
    """Search for the latents from which the generator draws n pictures in RGB, the targets.

    Args:
        report: called with the stages "examples" and "inverting".

    Returns:
        The latents; statuses and numbers of evaluations; and the loss, whose `targets` are the pictures as a tensor.
    """
    model, weights = space.model, settings.settings or InversionSettings()
    embed = settings.perceptual if settings.perceptual is not None else getattr(model.judge, "features", None)
    if isinstance(embed, torch.nn.Module):
        embed.eval().to(model.device)
    examples = draw_examples(space, weights.candidates, embed, settings.batch_size, report)
    targets = as_images(pictures, examples.like)
    loss = ReconstructionLoss(model.generator, targets, embed, examples, weights, settings.batch_size)
    terms = attribute_terms(targets, space) if weights.attributes else []
    descent = DescentSampler(enough=None, tolerance=TOLERANCE, max_evaluations=weights.z_evaluations)
    searched = descent.sample(
        _z_objective(loss, space, terms, weights), _start(loss, terms, space),
        progress=lambda fraction, _: report("inverting", 0.5 * fraction),
    )  # fmt: skip
    latents, evaluations = Latents(space.scaled(searched.z)), searched.evaluations
    if settings.space != "z":
        latents, more = _search_w(loss, latents, space, weights, settings.space, report)
        evaluations = evaluations + more
    report("inverting", 1.0)
    return latents, SampleResult(latents.z, searched.status, evaluations, evaluations), loss


TARGET_LOGIT = 6.0
"""Log-odds that the heads should predict for a value that the judge is sure of."""
CLEAR = 0.95
"""Least probability of a value that the judge reads for an inversion to use it; less certain values are often wrong."""
AT_ONCE = 64
"""Number of pictures that the judge reads in one batch."""


def attribute_terms(targets: Tensor, space: LatentSpace) -> list[AnyTerm]:
    """List of a term that pulls the heads to the values that the judge is sure of; empty if it reads none."""
    judge, names = space.model.judge, space.model.judged_names
    if judge is None or not names:
        return []
    vocabulary = Vocabulary(space.model.vocabulary[name] for name in names)
    read, outputs, clear = zip(*(_read(judge, part, vocabulary) for part in targets.split(AT_ONCE)), strict=True)
    heads = space.bank.raw_outputs(read[0])
    return [keep_predictions(heads, torch.cat(outputs).to(targets), torch.cat(clear).to(targets))]


@torch.inference_mode()
def _read(judge: ImageLabeller, images: Tensor, vocabulary: Vocabulary) -> tuple[tuple[str, ...], Tensor, Tensor]:
    """The judge's values as targets for heads: names, outputs (n, outputs), and whether it is sure, (n, attributes)."""
    readings = call_labeller(judge, images, "the judge")
    values = read_images(lambda _: readings, images, vocabulary)
    outputs, clear = list[Tensor](), list[Tensor]()
    for name, column in values.items():
        spec, reading = vocabulary[name], readings[name]
        # Twice as large where each class has a logit, since that of yes is plus or minus `TARGET_LOGIT`.
        logit = TARGET_LOGIT * min(2, output_count(spec))
        outputs.append(HEAD_KINDS[spec.kind].certain(encode_column(column.tolist(), spec), spec, logit))
        is_sure = reading.certainty() >= CLEAR if isinstance(reading, Prediction) else torch.ones(len(images))
        clear.append(is_sure.to(images.device, torch.bool))
    return tuple(values), torch.cat(outputs, 1), torch.stack(clear, 1)


def _start(loss: ReconstructionLoss, terms: list[AnyTerm], space: LatentSpace) -> Tensor:
    """Starts of the search through pictures, z (n, z_dim): for each target the candidate with the least loss.

    Candidates are the example most similar to the target, the end of a search from it by the attribute terms, and for
    each weight in `PREDICTED_W` the end of a search that also keeps w near the predicted w. The first search needs
    attribute terms, the others a w that is a vector.
    """
    examples = loss.examples
    with torch.no_grad():
        nearest = examples.z[loss.of_examples().argmin(1)]
        count, candidates = len(nearest), nearest
        starts, weights = ([nearest], [0.0]) if terms else ([], [])  # of the distance from the predicted w
        goals = [repeated_term(term, count) for term in terms]
        if examples.w.ndim == 2:
            w, error = examples.predict_w(thumbnail(loss.targets), loss.features)
            starts += [_nearest_draws(w, space)] * len(PREDICTED_W)
            weights += [weight / (2 * max(error, 1e-12)) for weight in PREDICTED_W]
            of_each = torch.tensor(weights, dtype=w.dtype).repeat_interleave(count).to(w.device)
            goals.append(distance_term("w", w.repeat(len(starts), 1), of_each))
        if goals:
            z = torch.cat(starts)
            objective = space.energy(Latents(z), [*goals, shell_term(FIRST_SHELL)])
            candidates = torch.cat([nearest, DescentSampler(enough=None).sample(objective, z).z])
        rows = torch.arange(len(candidates), device=candidates.device) % count
        parts = zip(candidates.split(DRAWN_TOGETHER), rows.split(DRAWN_TOGETHER), strict=True)
        losses = torch.cat([loss.of_images(space.images(Latents(z)), some) for z, some in parts])
        best = losses.view(-1, count).argmin(0)
        return candidates.view(-1, count, candidates.shape[1])[best, rows[:count]]


def _nearest_draws(w: Tensor, space: LatentSpace) -> Tensor:
    """For each row of w the z, out of `DRAWS` draws of the prior, whose w is nearest, (n, z_dim)."""
    z = normals(0, 0, DRAWS, space.model.generator.z_dim, stream="inversion").to(w.device)
    distances = [torch.cdist(w, space.encode(part)) for part in z.split(DRAWS // 16)]
    return z[torch.cat(distances, 1).argmin(1)]


def _z_objective(
    loss: ReconstructionLoss, space: LatentSpace, terms: list[AnyTerm], settings: InversionSettings
) -> Energy:
    """Energy for the search of z: the loss, the attribute terms, and a term that keeps |z| near sqrt(z_dim)."""
    factor = settings.attributes or 1.0
    start = Latents(loss.targets.new_zeros(0, space.model.generator.z_dim))
    rest = space.energy(start, [*terms, shell_term(settings.shell / factor)])

    def objective(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = loss.with_gradient(lambda part, _: space.encode(part), z, rows)
        more, more_gradient = rest.gradient(z, rows)
        return value + factor * more, gradient + factor * more_gradient

    return GradientEnergy(objective)


def _search_w(
    loss: ReconstructionLoss, latents: Latents, space: LatentSpace, settings: InversionSettings, into: str,
    report: Report,
) -> tuple[Latents, Tensor]:  # fmt: skip
    """Search for the offset of w, or of each layer ("w+"), with the least loss at fixed z; count evaluations, (n,)."""
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

    descent = DescentSampler(enough=None, tolerance=TOLERANCE, max_evaluations=settings.w_evaluations)
    searched = descent.sample(
        GradientEnergy(objective), mapped.new_zeros(len(mapped), layers * mapped.shape[1]),
        progress=lambda fraction, _: report("inverting", 0.5 + 0.5 * fraction),
    )  # fmt: skip
    return Latents(latents.z, searched.z.view(shape)), searched.evaluations


@dataclass(frozen=True, eq=False)
class Inversion:
    """n pictures of a user, and the latents from which the generator draws pictures like them, the reconstructions.

    Attributes:
        result: the reconstructions, with their latents and judged values; `edit` can start from it.
        pictures: the pictures of the user, cropped and resized to the size of the reconstructions.
        pixel_error: mean absolute error of each reconstruction, as a fraction of the range of a pixel, (n,).
        drawable: whether the generator can draw each picture, (n,); false where the reconstruction differs too much.
    """

    result: Result
    pictures: list[Image.Image]
    pixel_error: npt.NDArray[np.float64]
    drawable: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.pictures)

    def summary(self) -> str:
        """One line: mean and worst pixel error, and the numbers of pictures that the generator cannot draw."""
        error = f"{self.pixel_error.mean():.3f}, worst {self.pixel_error.max():.3f}"
        line = f"{len(self)} reconstructed with a mean absolute pixel error of {error}"
        other = ", ".join(f"#{index}" for index in self.result.index[~self.drawable])
        return f"{line}; not the given picture, which the generator cannot draw: {other}" if other else line

    def __repr__(self) -> str:
        return f"<Inversion: {self.summary()}>"

    def captions(self) -> list[str]:
        """Text for each reconstruction: "error 0.031", its pixel error, or "not this picture" if not `drawable`."""
        rows = zip(self.pixel_error, self.drawable, strict=True)
        return [f"error {error:.3f}" if drawable else "not this picture" for error, drawable in rows]

    def comparison(self) -> Image.Image:
        """Draw a grid of the user's pictures, each with its reconstruction to the right and the pixel error below."""
        cells = []
        for picture, image, caption in zip(self.pictures, self.result.images, self.captions(), strict=True):
            text = caption.replace("error", "reconstruction, error")
            cells += [Cell(picture, "original"), Cell(image, text)]
        return label_grid(cells, columns=2 * min(4, len(self)))

    def save(self, path: str | Path) -> Path:
        """Write a picture file or a folder, and return its path.

        A picture file gets the grid of `comparison`. A folder gets the whole inversion, which `edit` and
        `Inversion.load` can read: the files of `Result.save`, the pictures of the user in `originals/`, and
        `comparison.png`. An earlier inversion or edit in the folder is replaced.

        Args:
            path: a name that ends in .png, .jpg or .webp, or a folder.

        Raises:
            ArgumentError: the file or folder cannot be written, or the folder contains a result of `generate`, pictures
                to label, or other files of these names.
        """
        path = check_destination(as_path(path))
        if path.suffix and not path.is_dir():
            write_picture(path, self.comparison())
            return path
        check_place(path)
        with saving(path, edit_files) as folder:
            self.write_files(folder)
        return path

    def write_files(self, folder: Path) -> None:
        """Write the files of `save` to an empty folder."""
        for i, picture in enumerate(self.pictures):
            write_picture(folder / ORIGINALS / picture_name(i), picture)
        write_result(folder, self.result)
        write_picture(folder / COMPARISON, self.comparison())

    @classmethod
    def load(cls, folder: str | Path) -> Inversion:
        """Read an inversion from a folder that `Inversion.save` wrote.

        Raises:
            DataError: there is no inversion in the folder, or its files are damaged or do not fit together.
        """
        folder = as_path(folder)
        result = Result.load(folder)
        try:
            facts = result.provenance["inverted"]
            error, drawable = np.array(facts["pixel_error"], np.float64), np.array(facts["drawable"], np.bool_)
            pictures = [open_picture(folder / ORIGINALS / picture_name(i)) for i in range(len(result))]
            if not error.shape == drawable.shape == (len(result),):
                raise ValueError(f"there are {len(result)} pictures")
        except (KeyError, TypeError, ValueError) as problem:
            raise DataError(f"{folder} holds no inversion, or a damaged one: {problem}") from problem
        return cls(result, pictures, error, drawable)

    def _repr_png_(self) -> bytes:
        return png_bytes(self.comparison())


def invert(
    pictures: Picture | Sequence[Picture], *, model: str | Path | Model = DEFAULT_MODEL, device: str = "auto",
    progress: bool | Report = True, **options: Unpack[InvertOptions],
) -> Inversion:  # fmt: skip
    """Find the latents from which the generator draws given pictures.

    First z is fitted without drawing pictures: to the attribute values that the judge reads off the picture, and to the
    w that a regression predicts from it. Then z is fitted to pixels and features of the picture. Last, a small offset
    is fitted, which is added to the output of the mapping network for z; every edit keeps this offset. As z is fitted
    before the offset, heads that take z as input predict the attributes of the picture too. For `model`, `device` and
    `progress` see `energyql.generate`.

    Args:
        pictures: file names or PIL images, one or a list; cropped around the centre and resized as the generator's
            pictures.
        options: settings by name, which follow.
        space: "z" (no offset of w), "w" (one offset) or "w+" (an offset for each layer of the generator).
        perceptual: function or module from pictures in [-1, 1], (batch, channels, height, width), to features (batch,
            ...), by which pictures are compared besides their pixels; by default the features of the model's judge, if
            it has any.
        settings: weights of the loss and limits of the searches; by default `InversionSettings()`.
        truncation: psi in [0, 1]; by default the psi of the model.
        condition: class or condition vector of a conditional generator.
        batch_size: number of pictures that are drawn and differentiated at a time.
        anyway: return pictures, too, that the generator cannot draw, with `drawable` false.

    Raises:
        OutOfDomainError: the generator cannot draw a picture, and `anyway` is false.
        EnergyQLError: a picture cannot be read, or an argument is wrong.
    """
    several = as_pictures(pictures)
    if several is None:
        raise ArgumentError(f"{type(pictures).__name__} is no picture", hint="give paths or PIL images")
    settings = InvertSettings(**options)
    draw = DrawSettings(
        truncation=settings.truncation, condition=settings.condition, batch_size=settings.batch_size
    )  # fmt: skip
    with reporting(progress) as report:
        return invert_pictures(open_session(model, device), several, draw, settings, report)


def invert_pictures(
    session: Session, pictures: Sequence[Picture], draw: DrawSettings, settings: InvertSettings, report: Report
) -> Inversion:
    """Invert pictures by a loaded model as `invert` does, under truncation, condition and noise of `draw`."""
    opened = [open_picture(picture) for picture in pictures]
    with noting_tautologies():  # no warning for the query TRUE
        plan = plan_query(session, "TRUE", draw)
    latent_space = LatentSpace(session.model, plan.provenance["truncation"], plan.provenance["condition"])
    began = time.perf_counter()
    latents, run, loss = find_latents(opened, latent_space, settings, report)
    with torch.no_grad():
        images = torch.cat([latent_space.images(part) for part in latents.split()]).clamp(-1, 1)
        error, distance = (x.cpu().double().numpy() for x in (pixel_error(images, loss.targets), loss.distance(images)))
    drawable = distance <= MOST_DISTANCE
    unnamed = ["the picture"] if len(pictures) == 1 else [f"picture {index}" for index in range(len(pictures))]
    pairs = zip(pictures, unnamed, strict=True)
    names = [str(picture) if isinstance(picture, str | Path) else name for picture, name in pairs]
    other = [f"{names[i]} (distance {distance[i]:.2f})" for i in np.flatnonzero(~drawable)]
    if other and not settings.anyway:
        listed = ", ".join(other[:3]) + (f" and {len(other) - 3} more" if len(other) > 3 else "")
        message = (
            f"the generator of model {session.model.name!r} cannot draw {listed}: the nearest picture that was found"
        )
        option = either("anyway=True", "--anyway")
        hint = f"crop the picture like those of the generator, or go on all the same: {option}"
        raise OutOfDomainError(f"{message} differs too much, by more than {MOST_DISTANCE:g}", hint=hint)
    facts = {
        "pictures": names, "pixel_error": error.tolist(), "distance": distance.tolist(), "drawable": drawable.tolist(),
        "space": settings.space, "settings": asdict(settings.settings or InversionSettings()),
    }  # fmt: skip
    plan = solved_by(plan, {"name": "inversion", "settings": {}})
    plan, searched = replace(plan, provenance=plan.provenance | {"inverted": facts}), time.perf_counter()
    result = draw_result(plan, latent_space, latents, np.arange(len(names)), report, run)
    drawing = time.perf_counter() - searched
    result.statistics.update({"seconds_sampling": searched - began, "seconds_drawing": drawing})
    return Inversion(result, to_pictures(loss.targets), error, drawable)


def load_inversion(folder: Path) -> Inversion | None:
    """Read the inversion in a folder; `None` if it contains an edit, or no `originals`."""
    finish_saving(folder)
    return Inversion.load(folder) if (folder / ORIGINALS).is_dir() and not (folder / EDIT).is_file() else None
