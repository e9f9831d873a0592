"""Invert pictures into latents: the public call and its result."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from energyql.editing.folder import ORIGINALS, check_place, edit_files, save_picture
from energyql.editing.inversion import MOST_DISTANCE, Found, find_latents
from energyql.editing.latents import LatentSpace, draw_result
from energyql.editing.settings import InversionSettings
from energyql.editing.start import Picture, as_pictures, open_picture
from energyql.editing.terms import Embed
from energyql.errors import ArgumentError, DataError, OutOfDomainError
from energyql.files import as_path, check_destination, write_picture
from energyql.logic.satisfiability import noting_tautologies
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.folder import picture_name
from energyql.pipeline.generate import Pipeline, pipeline_for
from energyql.pipeline.model import Model
from energyql.pipeline.result import Result
from energyql.pipeline.saved import COMPARISON, EDIT
from energyql.pipeline.settings import DrawSettings
from energyql.progress import Report, reporting
from energyql.render.pictures import label_grid, png_bytes, to_pictures
from energyql.replacement import finish_saving, saving


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
    prepared = replace(prepared, provenance=prepared.provenance | {"sampler": "inversion", "inverted": facts})
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
