"""Inversion: the latents that draw given pictures, found from pictures of the prior and by gradients.

A ridge regression on little more than a hundred pictures predicts w of another picture well (measured in
docs/decisions/inversion.md), but not z, which the mapping network hides from it.

An inversion compares its pictures with examples of the prior, which are always the same, and drawing them takes longer
than all else. Nothing depends on the files: without them, or where they cannot be read or written, pictures are drawn.

The search has three stages, each measured in docs/decisions/inversion.md:

1. *Start.* z moves until the heads predict what the judge clearly reads off the picture, and w is near what a ridge
   regression on pictures of the prior predicts. This needs no pictures, so it is nearly free.
2. *z.* L-BFGS through the mapping network, on pixels and features; the attribute terms stay.
3. *W or W+.* A small offset from the mapped z, which the picture keeps through all edits.
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
from energyql.sampling.record import read_record
from energyql.version import __version__

EXAMPLES_TOGETHER = 16
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
    size, generator = batch_size or EXAMPLES_TOGETHER, space.model.generator
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


FOLDER = "ENERGYQL_CACHE"
"""Environment variable with the folder of caches; empty for none."""
MOST_FILES, MOST_BYTES = 32, 1 << 25
"""Files that are kept, those that were used last; and the most numbers of one, in bytes: larger ones are not kept."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What an inversion needs of the pictures of examples.

    Attributes:
        shape: of one picture, (channels, height, width).
        thumbnails: the pictures, reduced, (m, numbers).
        features: of the pictures, (m, numbers); `None` without an embedding module.
        pixel_variance: of a pixel over the pictures, the mean over all pixels.
    """

    shape: tuple[int, int, int]
    thumbnails: Float[Tensor, "m numbers"]
    features: Float[Tensor, "m features"] | None
    pixel_variance: float


def cache_folder() -> Path | None:
    """Return the user's folder for files that can be made again; `None` if there shall be none."""
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
    """Return where the examples with these w are kept; `None` if they are not.

    The name of the file is a digest of all that the pictures and their features depend on: w, which depends on the
    examples, truncation and label; weights and settings of the generator; the judge whose features are compared; and
    what the last bits depend on. Of code that is not the library's, nobody knows whether it is still the same, so
    nothing is kept for other generators and other embedding functions.
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
    """Return the judges whose features are compared; `None` if it is something else that is compared."""
    if embed is None:
        return []
    owner = getattr(embed, "__self__", None)
    if getattr(embed, "__name__", "") != "features" or not isinstance(owner, Judge | JointJudge):
        return None
    return [owner] if isinstance(owner, Judge) else list(owner.judges)


def kept_or(place: Path | None, like: Tensor, has_features: bool, draw: Callable[[], Seen]) -> Seen:
    """Return what is kept of the examples, or draw them and keep it.

    Args:
        place: of `place_of`.
        like: w of the examples, for their number, type and device.
        has_features: whether features are needed.
        draw: draws the examples.
    """
    if place is None:
        return draw()
    if (found := _read(place, like, has_features)) is not None:
        with suppress(OSError):
            os.utime(place)  # the files that were used last are kept
        return found
    seen = draw()
    tensors = {
        "shape": torch.tensor(seen.shape), "thumbnails": seen.thumbnails,
        "pixel_variance": torch.tensor(seen.pixel_variance, dtype=torch.float64),
    } | ({} if seen.features is None else {"features": seen.features})  # fmt: skip
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) <= MOST_BYTES:
        with suppress(OSError, ArgumentError):  # nobody needs the file, so a folder that cannot be written does no harm
            write_tensors(place, tensors)
            _remove_oldest(place.parent)
    return seen


def _read(place: Path, like: Tensor, has_features: bool) -> Seen | None:
    """Return what a file holds; `None` if it is missing, damaged or of another form."""
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
    return Seen(
        (channels, height, width), thumbnails.to(where), None if features is None else features.to(where), variance
    )


def _remove_oldest(folder: Path) -> None:
    files = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in files[MOST_FILES:]:
        path.unlink(missing_ok=True)


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


@dataclass(frozen=True, eq=False)
class Inversion:
    """Pictures, and the latents that reproduce them.

    Attributes:
        result: the reconstructions, with their latents and judged values; `edit` can start from it.
        pictures: the given ones, cropped and resized to the size of the reconstructions.
        pixel_error: mean absolute error, as a fraction of the range of a pixel, (n,).
        drawable: whether the generator can draw the picture, (n,). Otherwise the reconstruction differs too much.
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
        """Write the comparison (a path that ends in .png, .jpg or .webp), or a folder that `edit` can start from.

        A folder gets the files of `Result.save`, the given pictures in `originals/`, and `comparison.png`; an earlier
        inversion or edit in it is replaced. The path is returned.

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
        """Read what `save` wrote to a folder.

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

    First z is fitted without drawing pictures: the heads should predict the values that the judge reads off the
    picture, and w should be close to a regression's prediction. Then z is fitted to the picture, in pixels and in
    features. Last, w gets a small offset from the mapped z, which every edit keeps. So heads that read z predict the
    attributes of the picture.

    Args:
        pictures: paths or PIL images; cropped square around the centre and resized.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        space: "z", "w" (an offset of w) or "w+" (an offset for each layer of the synthesis).
        perceptual: a function or torch module from pictures in [-1, 1], (batch, channels, height, width), to features
            (batch, ...); by default the features of the model's judge. Without both, only pixels count.
        settings: weights and budgets; see `InversionSettings`.
        truncation: as for `generate`.
        label: as for `generate`.
        device: as for `generate`.
        batch_size: pictures that are drawn and differentiated together.
        anyway: also return pictures that the generator cannot draw; `drawable` is False for them.
        progress: as for `generate`.

    Returns:
        An `Inversion`. Its `result` is a start for `edit`.

    Raises:
        OutOfDomainError: the generator cannot draw a picture.
        EnergyQLError: a picture cannot be read, or an argument is wrong.
    """
    wanted = as_pictures(pictures)
    if wanted is None:
        raise ArgumentError(f"{type(pictures).__name__} is no picture", hint="give paths or PIL images")
    chosen = InversionSettings() if settings is None else settings
    if not isinstance(chosen, InversionSettings):
        raise ArgumentError(f"settings must be InversionSettings, not {chosen!r}")
    if perceptual is not None and not callable(perceptual):
        raise ArgumentError("perceptual must be a function or torch module of pictures")
    draw = DrawSettings(truncation=truncation, label=label, batch_size=batch_size)
    with reporting(progress) as report:
        return invert_pictures(
            pipeline_for(model, device), wanted, draw, space=space, perceptual=perceptual, settings=chosen,
            anyway=anyway, report=report,
        )  # fmt: skip


def invert_pictures(
    pipeline: Pipeline, pictures: Sequence[Picture], draw: DrawSettings, *, space: str = "w",
    perceptual: Embed | None = None, settings: InversionSettings | None = None, anyway: bool, report: Report,
) -> Inversion:  # fmt: skip
    """Invert pictures with a prepared pipeline; see `invert`."""
    opened, settings = [open_picture(picture) for picture in pictures], settings or InversionSettings()
    with noting_tautologies():  # nothing is asked of the pictures
        prepared = pipeline.prepare("TRUE", draw)
    latent_space = LatentSpace(pipeline.model, prepared.provenance["truncation"], prepared.provenance["label"])
    began = time.perf_counter()
    found = find_latents(opened, latent_space, settings, space, perceptual, draw.batch_size, report)
    only = len(pictures) == 1
    names = [
        str(picture) if isinstance(picture, str | Path) else "the picture" if only else f"picture {index}"
        for index, picture in enumerate(pictures)
    ]
    if not anyway:
        _check_drawable(found, names, pipeline.model)
    facts = {
        "pictures": names,
        "pixel_error": found.pixel_error.tolist(),
        "distance": found.distance.tolist(),
        "drawable": found.drawable.tolist(),
        "space": space,
        "settings": asdict(settings),
    }
    prepared = replace(
        prepared, provenance=prepared.provenance | {"sampler": read_record("inversion"), "inverted": facts}
    )
    searched = time.perf_counter()
    result = draw_result(prepared, latent_space, found.latents, np.arange(len(names)), report, found.run)
    drawn = time.perf_counter()
    result.statistics.update({"seconds_sampling": searched - began, "seconds_drawing": drawn - searched})
    return Inversion(result, to_pictures(found.targets), found.pixel_error, found.drawable)


def load_inversion(folder: Path) -> Inversion | None:
    """Read an inversion from its folder; `None` where a result or an edit was saved."""
    finish_saving(folder)
    return Inversion.load(folder) if (folder / ORIGINALS).is_dir() and not (folder / EDIT).is_file() else None


def _check_drawable(found: Found, names: Sequence[str], model: Model) -> None:
    """Raise an `OutOfDomainError` that names the pictures whose reconstruction is another picture."""
    rows = zip(names, found.distance, found.drawable, strict=True)
    other = [f"{name} (distance {distance:.2f})" for name, distance, drawable in rows if not drawable]
    if other:
        shown = ", ".join(other[:3]) + (f" and {len(other) - 3} more" if len(other) > 3 else "")
        raise OutOfDomainError(
            f"the generator of model {model.name!r} cannot draw {shown}: the nearest picture that was found "
            f"differs too much, by more than {MOST_DISTANCE:g}",
            hint="crop the picture like those of the generator, or go on all the same (anyway=True, --anyway)",
        )
