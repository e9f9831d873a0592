"""Folders of saved edits and inversions.

The folder of an edit holds `edit.json`, `filmstrip.png`, and saved results: the start in `0-start/`, the steps in
`1/`, `2/` and so on. The folder of an inversion holds the saved result of the reconstructions, the photographs in
`originals/`, and both in `comparison.png`; `0-start/` of an edit of photographs has this form.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from energyql.errors import ArgumentError, DataError
from energyql.files import finish_saving, read_whole, write_picture
from energyql.pipeline.result_folder import (
    COMPARISON,
    EDIT,
    LABELLING,
    RESULT,
    holds_inversion,
    numbered_files,
    part_folders,
    picture_name,
    read_part,
    result_files,
)

FILMSTRIP, START = "filmstrip.png", "0-start"
ORIGINALS = "originals"


@dataclass(frozen=True, eq=False)
class SavedResult:
    """The fields of a saved `Result` that an edit starts from; see `Result`."""

    z: Tensor
    w: Tensor
    index: npt.NDArray[np.int64]
    provenance: dict[str, Any]


def read_saved(folder: Path) -> SavedResult:
    """Read a result from its folder; from the folder of an edit, the result of the last step.

    Raises:
        ArgumentError: the folder holds no result, or a damaged one.
    """
    finish_saving(folder)
    if (folder / EDIT).is_file():
        folder = next(iter(_steps(folder)), folder)
    if part := next(part_folders(folder), None):
        raise ArgumentError(f"{folder} holds a run in several parts", hint=f"name one of them, such as {part[1]}")
    try:
        fields = read_part(folder, ("z", "w", "index"))
    except DataError as error:
        raise ArgumentError(error.message, hint=error.hint) from error
    z, w, provenance = fields["z"].float(), fields["w"].float(), fields["provenance"]
    complete = isinstance(provenance.get("fingerprints"), dict) and {"truncation", "label"} <= provenance.keys()
    if not complete or z.ndim != 2 or not z.isfinite().all() or not w.isfinite().all():
        raise ArgumentError(
            f"{folder} holds a damaged result: its latents or provenance are wrong",
            hint="draw it again, with the command that wrote it",
        )
    return SavedResult(z, w, fields["index"], provenance)


def check_place(folder: Path) -> None:
    """Check that an edit or inversion saved to `folder` replaces nothing but an earlier edit or inversion.

    Raises:
        ArgumentError: the folder holds a run, pictures to label, or other files of these names.
    """
    finish_saving(folder)
    if (folder / EDIT).is_file() or holds_inversion(folder):
        return
    for name, what in ((RESULT, "a run"), (LABELLING, "pictures to label")):
        if (folder / name).is_file():
            raise ArgumentError(f"{folder} holds {what}", hint="name another folder")
    first = (folder / part / picture_name(0) for part in (START, "1", ORIGINALS))
    if foreign := [path for path in (folder / FILMSTRIP, folder / COMPARISON, *first) if path.exists()]:
        raise ArgumentError(f"{foreign[0]} is there already, and of no edit", hint="name another folder")


def edit_files(folder: Path) -> list[Path]:
    """Return the files in a folder that belong to a saved edit or inversion."""
    files = inversion_files(folder) if holds_inversion(folder) else []
    if (folder / EDIT).is_file():
        files += [folder / EDIT, folder / FILMSTRIP, *inversion_files(folder / START)]
        files += [path for step in _steps(folder) for path in result_files(step)]
    return files


def inversion_files(folder: Path) -> list[Path]:
    """Return the files in a folder that belong to a saved result or inversion."""
    files = result_files(folder)
    return [*files, folder / COMPARISON, *numbered_files(folder / ORIGINALS)] if files else []


def _steps(folder: Path) -> list[Path]:
    """Return the folders of the steps in the folder of an edit, the last step first."""
    steps = {path: read_whole(path.name) for path in folder.iterdir() if not path.is_symlink()}
    numbered = {path: number for path, number in steps.items() if number is not None}
    return sorted(numbered, key=numbered.__getitem__, reverse=True)


def save_picture(path: Path, picture: Image.Image) -> Path:
    """Write a picture to `path`, and return `path`.

    Raises:
        ArgumentError: the path cannot be written, or the format does not allow the size of the picture.
    """
    try:
        write_picture(path, picture)
    except ArgumentError:
        raise
    except ValueError as error:  # a side is longer than the format allows
        raise ArgumentError(f"cannot write {path}: {error}", hint="save to a folder") from error
    return path
