"""What a call of `generate` returns."""

from __future__ import annotations

import io
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin
from torch import Tensor

from energyql.attributes.outputs import Table
from energyql.errors import ArgumentError
from energyql.files import replacing, write_json, write_tensors
from energyql.pictures import label_grid
from energyql.sampling import Status

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def check_destination(path: Path) -> Path:
    """Refuse, before any work is done, a path that no result can be saved as.

    Raises:
        ArgumentError: the path ends like another kind of file, is a folder where a file is asked for or the other way
            round, or lies where nothing can be written.
    """
    picture = path.suffix.lower() in PICTURE_SUFFIXES
    if path.suffix and not picture and not os.path.isdir(path):
        raise ArgumentError(
            f"a result cannot be saved as {path.suffix}",
            hint=f"end the path in {', '.join(PICTURE_SUFFIXES)}, or name a folder",
        )
    if picture and os.path.isdir(path):
        raise ArgumentError(f"cannot write {path}: it is a folder", hint="name a file in it, or another folder")
    folder = path.parent if picture else path
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    if not os.path.isdir(folder):
        raise ArgumentError(f"cannot write {path}: {folder} is not a folder")
    if not os.access(folder, os.W_OK):
        raise ArgumentError(f"cannot write {path}: {folder} is not writable")
    return path


@dataclass(frozen=True, eq=False)
class Result:
    """Pictures that answer a query, and everything known about them.

    Attributes:
        images: n pictures (PIL, RGB).
        z, w: latents, (n, z_dim) and (n, w_dim), float32 on the CPU.
        energy: of the query at z, in nats, lower is better, (n,) float64.
        probabilities: what the attribute heads predict, by attribute, in the form that `energyql.score` takes.
        judged: the value of each attribute according to the judge, (n,) bool, class names or numbers.
        satisfied: whether what the judge sees satisfies the query, (n,) bool.
        status: how the solver ended, one a sample.
        statistics: evaluations, steps and seconds.
        provenance: what replays this result: query, seed, model and its fingerprints, settings, versions.
    """

    images: list[Image.Image]
    z: Tensor
    w: Tensor
    energy: npt.NDArray[np.float64]
    probabilities: dict[str, Table]
    judged: dict[str, npt.NDArray[Any]]
    satisfied: npt.NDArray[np.bool_]
    status: list[Status]
    statistics: dict[str, float]
    provenance: dict[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def summary(self) -> str:
        """One line: how many satisfy the query, who says so, and at what cost."""
        failed = sum(status != Status.OK for status in self.status)
        line = f"{self.satisfied.sum()} of {len(self)} satisfy the query, says the {self.provenance['judge']}"
        return line if not failed else f"{line}; the solver could not finish {failed}"

    def __repr__(self) -> str:
        return f"<Result of {self.provenance['query']!r}: {self.summary()}>"

    def grid(self, columns: int | None = None) -> Image.Image:
        """All pictures with the probability of the query (or its energy, where that is none) and the judge's verdict.

        Raises:
            ArgumentError: `columns` is below 1.
        """
        settings = self.provenance
        exact = settings["semantics"] == "exact"
        model = (
            settings["model"] if settings.get("label") is None else f"{settings['model']}, label {settings['label']}"
        )
        footer = f"{self.summary()}. Model {model}, seed {settings['seed']}, {settings['semantics']} semantics"
        return label_grid(
            self.images,
            title=settings["query"],
            captions=[f"P {np.exp(-energy):.3f}" if exact else f"E {energy:.3f}" for energy in self.energy],
            verdicts=self.satisfied.tolist(),
            footer=footer,
            columns=columns,
        )

    def save(self, path: str | Path) -> Path:
        """Write the labelled grid (a path that ends in .png, .jpg or .webp), or everything (a folder).

        A folder gets each picture, `grid.png`, `latents.safetensors` and `result.json`. Every file appears whole or
        not at all. A PNG grid carries the provenance in its text field "energyql".

        Returns:
            The path.

        Raises:
            ArgumentError: the ending is that of another kind of file, or the path cannot be written.
        """
        path = check_destination(Path(path))
        try:
            if path.suffix.lower() in PICTURE_SUFFIXES:
                self._save_picture(self.grid(), path)
            else:
                self._save_folder(path)
        except OSError as error:
            raise ArgumentError(f"cannot write {path}: {error.strerror or error}") from error
        return path

    def _save_picture(self, picture: Image.Image, path: Path) -> None:
        text = PngImagePlugin.PngInfo()
        text.add_itxt("energyql", json.dumps(self.provenance, ensure_ascii=False))
        with replacing(path) as temporary:
            try:
                picture.save(temporary, **({"pnginfo": text} if path.suffix.lower() == ".png" else {"quality": 92}))
            except ValueError as error:  # a side that the format cannot hold
                raise ArgumentError(f"cannot write {path}: {error}", hint="save as .png, or to a folder") from error

    def _save_folder(self, folder: Path) -> None:
        for i, image in enumerate(self.images):
            self._save_picture(image, folder / f"{i:05d}.png")
        self._save_picture(self.grid(), folder / "grid.png")
        write_tensors(folder / "latents.safetensors", {"z": self.z, "w": self.w})
        samples = [
            {
                "picture": f"{i:05d}.png",
                "satisfied": bool(self.satisfied[i]),
                "energy": _plain(self.energy[i]),
                "status": self.status[i].name,
                "judged": {name: _plain(values[i]) for name, values in self.judged.items()},
            }
            for i in range(len(self))
        ]
        write_json(
            folder / "result.json",
            {"provenance": self.provenance, "statistics": self.statistics, "samples": samples},
        )

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.grid().save(buffer, "PNG")
        return buffer.getvalue()


def _plain(value: np.generic) -> Any:
    """As JSON has it, which knows neither NaN nor infinity."""
    plain = value.item()
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
