"""Invert pictures into latents: the public call and its result."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from energyql.editing.inversion import find_latents
from energyql.editing.latents import LatentSpace, draw_result
from energyql.editing.settings import InversionSettings
from energyql.editing.start import EditStart, Picture, as_pictures, open_picture
from energyql.editing.terms import Embed
from energyql.errors import ArgumentError
from energyql.files import check_destination, write_picture
from energyql.logic.satisfiability import noting_tautologies
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.generate import pipeline_for
from energyql.pipeline.model import Model
from energyql.pipeline.result import Result
from energyql.pipeline.settings import DrawSettings
from energyql.progress import Report, reporting
from energyql.render.pictures import label_grid, png_bytes


@dataclass(frozen=True, eq=False)
class Inversion:
    """Pictures, and the latents that reproduce them.

    Attributes:
        result: the reconstructions, with their latents and judged values; `edit` can start from it.
        pictures: the given ones.
        pixel_error: mean absolute error, as a fraction of the range of a pixel, (n,).
    """

    result: Result
    pictures: list[Image.Image]
    pixel_error: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.pictures)

    def __repr__(self) -> str:
        mean, worst = self.pixel_error.mean(), self.pixel_error.max()
        return f"<Inversion of {len(self)} pictures: mean absolute pixel error {mean:.3f}, worst {worst:.3f}>"

    def comparison(self) -> Image.Image:
        """Draw the given pictures, each beside its reconstruction."""
        size = self.result.images[0].size
        pairs = zip(self.pictures, self.result.images, strict=True)
        shown = [image for given, drawn in pairs for image in (given.resize(size, Image.Resampling.LANCZOS), drawn)]
        captions = [text for error in self.pixel_error for text in ("given", f"drawn, error {error:.3f}")]
        return label_grid(shown, captions=captions, columns=2 * min(4, len(self)))

    def save(self, path: str | Path) -> Path:
        """Write the comparison (a path that ends in .png, .jpg or .webp), or a folder that `edit` can start from.

        A folder gets the files of `Result.save`, and `comparison.png`. The path is returned.

        Raises:
            ArgumentError: the path cannot be written.
        """
        path = check_destination(Path(path))
        if not path.suffix:
            self.result.save(path)
        save_picture(path if path.suffix else path / "comparison.png", self.comparison())
        return path

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
    progress: bool | Report = True,
) -> Inversion:
    """Find the latents that reproduce given pictures.

    First z moves until the heads predict what the judge reads off the picture, then to where the picture is most
    similar, in pixels and in features; then w gets a small offset from the mapped z. So heads that read z predict the
    attributes of the picture, and the offset is kept through every edit.

    Args:
        pictures: paths or PIL images; cropped square around the centre and resized.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        space: "z", "w" (an offset of w) or "w+" (an offset for each layer of the synthesis).
        perceptual: a function or torch module from pictures in [-1, 1], (batch, channels, height, width), to features
            (batch, ...); by default the features of the model's judge. Without either, pixels alone count.
        settings: weights and budgets; see `InversionSettings`.
        truncation: as for `generate`.
        label: as for `generate`.
        device: as for `generate`.
        batch_size: pictures that are drawn and differentiated together.
        progress: as for `generate`.

    Returns:
        An `Inversion`. Its `result` is a start for `edit`.

    Raises:
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
    opened = [open_picture(picture) for picture in wanted]
    pipeline = pipeline_for(model, device)
    with noting_tautologies():  # nothing is asked of the pictures
        prepared = pipeline.prepare("TRUE", DrawSettings(truncation=truncation, label=label, batch_size=batch_size))
    latent_space = LatentSpace(pipeline.model, prepared.provenance["truncation"], prepared.provenance["label"])
    began = time.perf_counter()
    with reporting(progress) as report:
        latents, error, run = find_latents(opened, latent_space, chosen, space, perceptual, batch_size, report)
        facts = {"sampler": "inversion", "inverted": _facts(wanted, error, space, chosen)}
        prepared = replace(prepared, provenance=prepared.provenance | facts)
        searched = time.perf_counter()
        result = draw_result(prepared, latent_space, latents, np.arange(len(wanted)), report, run)
    drawn = time.perf_counter()
    result.statistics.update({"seconds_sampling": searched - began, "seconds_drawing": drawn - searched})
    return Inversion(result, opened, error)


def start_from_pictures(
    pictures: list[Picture], space: LatentSpace, batch_size: int | None, report: Report
) -> EditStart:
    """Return the start of an edit of pictures, which are inverted with the default settings."""
    settings = InversionSettings()
    opened = [open_picture(picture) for picture in pictures]
    latents, error, _ = find_latents(opened, space, settings, "w", None, batch_size, report)
    return EditStart(latents, np.arange(len(pictures)), {"start": _facts(pictures, error, "w", settings)})


def save_picture(path: Path, picture: Image.Image) -> Path:
    """Write a picture, and return its path.

    Raises:
        ArgumentError: the path cannot be written, or the format cannot hold the picture.
    """
    try:
        write_picture(path, picture)
    except (OSError, ValueError) as error:
        raise ArgumentError(f"cannot write {path}: {error}", hint="save to a folder") from error
    return path


def _facts(
    pictures: Sequence[Picture], error: npt.NDArray[np.float64], space: str, settings: InversionSettings
) -> dict[str, Any]:
    return {
        "pictures": [str(picture) if isinstance(picture, str | Path) else "picture in memory" for picture in pictures],
        "pixel_error": error.tolist(),
        "space": space,
        "settings": asdict(settings),
    }
