"""Folders of saved edits and inversions.

The folder of an edit contains `edit.json`, `filmstrip.png`, and saved results: `0-start/`, then `1/` for the first
step, `2/` and so on. The folder of an inversion contains the saved result of the reconstructions, the photographs in
`originals/`, and `comparison.png`, which shows both. After an edit of photographs, `0-start/` is the folder of an
inversion.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from energyql.errors import ArgumentError, DataError
from energyql.files import finish_saving, read_whole
from energyql.pipeline.provenance import Provenance
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
    """The fields of a saved `Result` from which an edit can start.

    Attributes:
        z: latents, (n, z_dim) float32.
        w: w of the pictures, (n, w_dim), or (n, num_ws, w_dim) in W+; float32.
        index: number of each sample in its run of `generate`, (n,).
        provenance: the settings with which the result can be drawn again, such as seed and truncation.
    """

    z: Tensor
    w: Tensor
    index: npt.NDArray[np.int64]
    provenance: Provenance


def read_saved(folder: Path) -> SavedResult:
    """Read a saved result, or the result of the last step of a saved edit.

    Raises:
        ArgumentError: the folder contains no result or a damaged one, or a run in several folders, which must be named.
        DataError: a program was interrupted while it saved to the folder, and its files are damaged.
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
    complete = isinstance(provenance.get("fingerprints"), dict) and {"truncation", "condition"} <= provenance.keys()
    if not complete or z.ndim != 2 or not z.isfinite().all() or not w.isfinite().all():
        raise ArgumentError(f"{folder} holds a damaged result: its latents or provenance are wrong")
    return SavedResult(z, w, fields["index"], provenance)


def check_place(folder: Path) -> None:
    """Raise unless an edit or inversion can be saved to a folder without replacing anything but another of these.

    Raises:
        ArgumentError: the folder contains a result of `generate`, pictures to label, or foreign files with names that
            an edit or inversion uses.
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
    """Files of a saved edit or inversion in a folder, which a new one replaces; empty without either."""
    files = inversion_files(folder) if holds_inversion(folder) else []
    if (folder / EDIT).is_file():
        files += [folder / EDIT, folder / FILMSTRIP, *inversion_files(folder / START)]
        files += [path for step in _steps(folder) for path in result_files(step)]
    return files


def inversion_files(folder: Path) -> list[Path]:
    """Files of a saved result or inversion in a folder; empty without `result.json`."""
    files = result_files(folder)
    return [*files, folder / COMPARISON, *numbered_files(folder / ORIGINALS)] if files else []


def _steps(folder: Path) -> list[Path]:
    """Folders of the steps of a saved edit, the last step first."""
    numbers = {path: read_whole(path.name) for path in folder.iterdir() if not path.is_symlink()}
    steps = {path: number for path, number in numbers.items() if number is not None}
    return sorted(steps, key=steps.__getitem__, reverse=True)
