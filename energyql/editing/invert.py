"""Photographs into latents: the public call."""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from energyql.editing.inversion import InversionSettings, Inverted, find_latents
from energyql.editing.latents import LatentSpace
from energyql.editing.photographs import Picture
from energyql.editing.showing import show
from energyql.editing.start import Begun, pictures_of
from energyql.editing.terms import Embed
from energyql.errors import ArgumentError
from energyql.files import write_picture
from energyql.logic.tautology import noting_tautologies
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.generate import pipeline_for
from energyql.pipeline.model import Model
from energyql.pipeline.result import Result, check_destination
from energyql.progress import Report, reporting
from energyql.render.pictures import label_grid
from energyql.sampling import SampleResult


@dataclass(frozen=True, eq=False)
class Inversion:
    """Pictures, and the latents that draw them again.

    Attributes:
        result: what is drawn, with its latents and what the judge reads; `edit` starts from it.
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
        """The given pictures, each beside the one that is drawn."""
        size = self.result.images[0].size
        pairs = zip(self.pictures, self.result.images, strict=True)
        shown = [image for given, drawn in pairs for image in (given.resize(size, Image.Resampling.LANCZOS), drawn)]
        captions = [text for error in self.pixel_error for text in ("given", f"drawn, error {error:.3f}")]
        return label_grid(shown, captions=captions, columns=2 * min(4, len(self)))

    def save(self, path: str | Path) -> Path:
        """Write the comparison (a path that ends in .png, .jpg or .webp), or a folder that `edit` starts from.

        A folder gets what `Result.save` writes, and `comparison.png`.

        Returns:
            The path.

        Raises:
            ArgumentError: the path cannot be written.
        """
        path = check_destination(Path(path))
        if not path.suffix:
            self.result.save(path)
        try:
            write_picture(path if path.suffix else path / "comparison.png", self.comparison())
        except (OSError, ValueError) as error:
            raise ArgumentError(f"cannot write {path}: {error}", hint="save to a folder") from error
        return path

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.comparison().save(buffer, "PNG")
        return buffer.getvalue()


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
    """Find the latents that draw given pictures.

    First z goes to where the heads say what the judge reads off the picture, then to where the picture is most alike,
    in pixels and in features; then w moves away from what z is mapped to, a little. Heads that read z so keep their
    say, and the rest of the likeness is carried along through every edit.

    Args:
        pictures: paths or PIL images; cut square from the middle and resized.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        space: "z", "w" (an offset of w) or "w+" (an offset for each layer of the synthesis).
        perceptual: a function or torch module from pictures in [-1, 1], (batch, channels, height, width), to features
            (batch, ...); by default the features of the model's judge. Without either, pixels alone count.
        settings: weights and budgets; see `InversionSettings`.
        truncation, label, device, progress: as for `generate`.
        batch_size: pictures that are drawn and differentiated together.

    Returns:
        An `Inversion`. Its `result` is a start for `edit`.

    Raises:
        EnergyQLError: a picture cannot be read, or an argument is wrong.
    """
    wanted = pictures_of(pictures)
    if wanted is None:
        raise ArgumentError(f"{type(pictures).__name__} is no picture", hint="give paths or PIL images")
    chosen = InversionSettings() if settings is None else settings
    if not isinstance(chosen, InversionSettings):
        raise ArgumentError(f"settings must be InversionSettings, not {chosen!r}")
    if perceptual is not None and not callable(perceptual):
        raise ArgumentError("perceptual must be a function or torch module of pictures")
    pipeline = pipeline_for(model, device)
    with noting_tautologies():  # nothing is asked of the pictures
        prepared = pipeline.prepare("TRUE", truncation=truncation, label=label, batch_size=batch_size)
    lens = LatentSpace(pipeline.model, prepared.provenance["truncation"], prepared.provenance["label"])
    began = time.perf_counter()
    with reporting(progress) as report:
        found = find_latents(wanted, lens, chosen, space, perceptual, batch_size, report)
        facts = _facts(wanted, found, space, chosen)
        prepared = replace(prepared, provenance=prepared.provenance | {"sampler": "inversion"} | facts)
        ended = SampleResult(found.latents.z, found.status, found.evaluations, found.evaluations)
        searched = time.perf_counter()
        result = show(prepared, lens, found.latents, np.arange(len(wanted)), report, ended)
    drawn = time.perf_counter() - searched
    result.statistics.update({"seconds_sampling": searched - began, "seconds_drawing": drawn})
    return Inversion(result, found.pictures, found.pixel_error)


def begin_pictures(pictures: list[Picture], space: LatentSpace, batch_size: int | None, report: Report) -> Begun:
    """The start of an edit of pictures, inverted with the default settings."""
    settings = InversionSettings()
    found = find_latents(pictures, space, settings, "w", None, batch_size, report)
    return Begun(found.latents, np.arange(len(pictures)), {"start": _facts(pictures, found, "w", settings)["inverted"]})


def _facts(pictures: Sequence[Any], found: Inverted, space: str, settings: InversionSettings) -> dict[str, Any]:
    names = [str(picture) if isinstance(picture, str | Path) else "picture in memory" for picture in pictures]
    return {
        "inverted": {
            "pictures": names,
            "pixel_error": found.pixel_error.tolist(),
            "space": space,
            "settings": asdict(settings),
        }
    }
