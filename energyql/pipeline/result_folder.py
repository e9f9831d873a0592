"""Folders of saved results: measurements as JSON, latents as safetensors, pictures as PNG.

A folder holds `result.json`, `latents.safetensors`, `grid.png` and the pictures `00000.png`, `00001.png` and so on. A
long run has further samples in subfolders `01024/`, `02048/` and so on, called parts. The name of a part is the
position of its first sample in the run. A part has the same files except `grid.png`. `result.json` is replaced last, so
that all files that it lists exist.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, PngImagePlugin

from energyql.errors import EARLIER, ArgumentError, DataError, ModelError
from energyql.files import (
    fingerprint,
    finish_saving,
    read_json,
    read_tensors,
    refuse_special,
    write_json,
    write_picture,
    write_tensors,
)
from energyql.pipeline.columns import MEASURED, checked, floats, map_columns, number, plain, texts
from energyql.pipeline.provenance import Provenance
from energyql.sampling.registry import check_record

if TYPE_CHECKING:
    from energyql.pipeline.result import Result

RESULT, LATENTS, GRID, EDIT = "result.json", "latents.safetensors", "grid.png", "edit.json"
COMPARISON = "comparison.png"
"""Picture in the folder of an inversion (latents that were found for a user's pictures). It shows pairs of a user's
picture and the picture of its latent."""
LABELLING = "pictures.json"
"""File in a folder of pictures that people label; it says how the pictures were drawn."""
AUDIT = Path("audit", "audit.json")
"""File in the folder of a result that `energyql audit` writes; see `energyql.auditing`."""
PROVENANCE = "energyql"
"""Text field of a PNG that holds the provenance."""
MOST_PICTURES = 64
"""Largest number of pictures that a notebook or `grid.png` in a folder shows; `Result.grid` and a gallery show all."""
_HEAD = 512
_AGAIN = "draw it again, with the command that wrote it"
_PICTURE, _PART = re.compile(r"\d{5,18}\.png"), re.compile(r"\d{5,18}")


def is_picture_name(name: object) -> bool:
    """Whether `name` is a file name of a picture in a saved result, such as "00012.png"."""
    return isinstance(name, str) and _PICTURE.fullmatch(name) is not None


def _parts(folder: Path) -> list[Path]:
    """Subfolders for later samples of a long run, such as `01024`, sorted by number."""
    named = [path for path in folder.glob("*") if _PART.fullmatch(path.name)]
    return sorted((path for path in named if path.is_dir() and not path.is_symlink()), key=lambda path: int(path.name))


def part_folders(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield the subfolders of a long run in order, each after the position of its first sample."""
    return ((int(path.name), path) for path in _parts(folder) if (path / RESULT).is_file())


def numbered_files(folder: Path, first: int = 0) -> list[Path]:
    """Files in `folder` with names of pictures from number `first` on, unsorted, also those of other programs."""
    return [path for path in folder.glob("*") if is_picture_name(path.name) and int(path.stem) >= first]


def picture_files(folder: Path, first: int = 0) -> list[Path]:
    """Pictures in `folder` from number `first` on that this library wrote."""
    return [path for path in numbered_files(folder, first) if _is_ours(path)]


def _is_ours(path: Path) -> bool:
    """Whether the file begins with a text field "energyql"."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return PROVENANCE.encode() in file.read(_HEAD)


def held_samples(folder: Path) -> int:
    """Number of samples in the `result.json` of a folder, without subfolders; 0 if it is missing or damaged."""
    with suppress(ModelError, KeyError, TypeError):
        return len(read_json(folder / RESULT)["samples"])
    return 0


def holds_inversion(folder: Path) -> bool:
    """Whether a folder has the result of an inversion, with a `comparison.png`."""
    with suppress(ModelError, KeyError, TypeError):
        return (folder / COMPARISON).is_file() and "inverted" in read_json(folder / RESULT)["provenance"]
    return False


def check_free(folder: Path, count: int, held: int = 0) -> None:
    """Check that a result can be written to a folder without the loss of other files in it.

    Args:
        folder: the folder, which need not exist.
        count: number of samples of the result to write.
        held: number of its samples in the folder, whose pictures may be overwritten.

    Raises:
        ArgumentError: a file of another program would be overwritten; or the folder holds an edit, an inversion, or
            pictures to label.
    """
    others = {"an edit": (folder / EDIT).is_file(), "an inversion": holds_inversion(folder)}
    others["pictures to label"] = (folder / LABELLING).is_file()
    for what in (what for what, is_there in others.items() if is_there):
        raise ArgumentError(f"{folder} holds {what}", hint="name another folder")
    new_parts = [path for path in _parts(folder) if not (path / RESULT).is_file()]
    numbered = [path for place in (folder, *new_parts) for path in numbered_files(place, held)]
    files = [path for path in numbered if int(path.stem) < count]
    files += [grid for grid in [folder / GRID] if grid.is_file() and not (folder / RESULT).is_file()]
    if foreign := [path for path in files if not _is_ours(path)]:
        raise ArgumentError(f"{foreign[0]} is not of this library, and a picture is to be written there")


def result_files(folder: Path, first: int = 0) -> list[Path]:
    """Paths of all files of a saved result, its subfolders included; [] if the folder has no result.

    `first` is the number in the name of the first picture in `folder`.
    """
    if not (folder / RESULT).is_file():
        return []
    named = [path for name in (RESULT, LATENTS, GRID) if (path := folder / name).is_file()]
    return [*named, *picture_files(folder, first), *part_files(folder)]


def part_files(folder: Path, first: int = 0) -> list[Path]:
    """Paths of all files in the subfolders of a long run whose first sample is `first` or later."""
    parts = [(start, part) for start, part in part_folders(folder) if start >= first]
    return [path for start, part in parts for path in result_files(part, start)]


def picture_name(number: int) -> str:
    """File name of a picture, such as "00012.png"."""
    return f"{number:05d}.png"


def part_name(start: int) -> str:
    """Name of a subfolder of a long run, such as "01024", by the position of its first sample."""
    return f"{start:05d}"


def write_recorded(path: Path, picture: Image.Image, provenance: Provenance) -> None:
    """Write a picture; a PNG file also gets the provenance as JSON in its text field "energyql".

    Raises:
        ArgumentError: a side is longer than the format allows, or `path` cannot be written.
    """
    text = PngImagePlugin.PngInfo()
    text.add_itxt(PROVENANCE, json.dumps(provenance, ensure_ascii=False))
    options = {"pnginfo": text} if path.suffix.lower() == ".png" else {"quality": 92}
    write_picture(path, picture, **options)


def write_pictures(folder: Path, result: Result, start: int = 0) -> None:
    """Write the pictures of a result as PNG files, each with the provenance and `index`, its number in the run.

    The number of samples is left out, so that a picture has the same bytes in runs of any length, interrupted or not.
    `start` is the number in the name of the first file.
    """
    facts = result.provenance.copy()
    facts.pop("n", None)
    for place, (picture, index) in enumerate(zip(result.images, result.index.tolist(), strict=True), start):
        write_recorded(folder / picture_name(place), picture, facts | {"index": index})


def write_measurements(folder: Path, result: Result, start: int = 0) -> None:
    """Write the latents, then `result.json`; `start` is the number in the name of the first picture."""
    write_tensors(folder / LATENTS, {"z": result.z, "w": result.w})
    data = describe(result)
    data["samples"] = [{"picture": picture_name(start + i), **sample} for i, sample in enumerate(data["samples"])]
    write_json(folder / RESULT, data)


def write_grid(folder: Path, result: Result) -> None:
    """Write `grid.png`, one labelled picture of the first 64 pictures."""
    first = result[:MOST_PICTURES]
    write_recorded(folder / GRID, first.grid(), first.provenance)


def write_result(folder: Path, result: Result) -> None:
    """Write all files of a result to an empty folder."""
    write_pictures(folder, result)
    write_measurements(folder, result)
    write_grid(folder, result)


def describe(result: Result) -> dict[str, Any]:
    """Return a result as JSON values: "provenance", "statistics", and "samples", without pictures and latents.

    NaN becomes `None`, and an infinite number the text "Infinity" or "-Infinity".
    """
    columns = {name: getattr(result, name) for name in MEASURED}
    columns = {name: values for name, values in columns.items() if values is not None or not MEASURED[name].sparse}

    def sample(row: int) -> dict[str, Any]:
        return {name: map_columns(lambda part: plain(part[row]), column) for name, column in columns.items()}

    statistics = {name: plain(value) for name, value in result.statistics.items()}
    samples = [sample(row) for row in range(len(result))]
    return {"provenance": dict(result.provenance), "statistics": statistics, "samples": samples}


def described(folder: Path) -> dict[str, str]:
    """Fingerprint of each `result.json` of a saved result, by relative path, to see later whether it has changed."""
    parts = [path for _, path in part_folders(folder)]
    return {(part / RESULT).relative_to(folder).as_posix(): fingerprint(part / RESULT) for part in (folder, *parts)}


def audited(folder: Path) -> str:
    """Share that an audit of a saved result states, such as "96.1 % (93.8 to 98.0)"; "" without an audit of it."""
    with suppress(ModelError, KeyError, TypeError):
        data = read_json(folder / AUDIT)
        return str(data["text"]) if data["of"] == described(folder) else ""
    return ""


def read_folder(folder: Path, names: Collection[str]) -> Iterator[dict[str, Any]]:
    """Read a saved result: first the folder itself, then one by one the subfolders of a long run.

    Yields:
        What `read_part` returns.

    Raises:
        DataError: there is no result, or the folder or a subfolder is damaged or missing.
    """
    finish_saving(folder)
    held = 0
    for start, part in [(0, folder), *part_folders(folder)]:
        if start != held:
            hint = "give the command that wrote it again, which continues it"
            raise DataError(f"{folder} is incomplete: samples {held} to {start - 1} are missing", hint=hint)
        columns = read_part(part, names)
        held += len(columns["index"])
        yield columns


def read_part(folder: Path, names: Collection[str]) -> dict[str, Any]:
    """Read the result in one folder, without the subfolders of a long run.

    Args:
        folder: folder with `result.json` and `latents.safetensors`.
        names: fields of `Result` to read. Without "images", no picture is read.

    Returns:
        Field -> value: those in `names`, and always `z`, `w`, `provenance` and `statistics`.

    Raises:
        DataError: the folder holds no result, or a damaged one.
    """
    finish_saving(folder)
    if not (folder / RESULT).is_file():
        raise DataError(f"the folder {folder} holds no result", hint="name one that generate or Result.save wrote")
    try:
        return _read_part(folder, names)
    except (
        KeyError, TypeError, ValueError, OverflowError, RecursionError, SyntaxError, OSError,
        ModelError, Image.DecompressionBombError,
    ) as error:  # fmt: skip
        fault = f"{error} is missing" if isinstance(error, KeyError) else getattr(error, "message", error)
        raise DataError(f"{folder} holds a damaged result: {fault}", hint=_AGAIN) from error


def _read_part(folder: Path, names: Collection[str]) -> dict[str, Any]:
    data = read_json(folder / RESULT)
    samples, provenance = checked(data["samples"], list), checked(data["provenance"], dict)
    if not samples:
        raise ValueError("it has no samples")
    needed = {name for name in names if name in MEASURED and not MEASURED[name].optional}
    if is_of_earlier_version(provenance) or not needed <= checked(samples[0], dict).keys():
        raise DataError(f"{folder} holds a result that {EARLIER}", hint=_AGAIN)
    for name in ("query", "model", "semantics"):  # without which no result can be shown
        checked(provenance[name], str)
    if provenance["judge"] is not None:
        checked(provenance["judge"], str)
    if isinstance(provenance.get("condition"), list):
        provenance["condition"] = tuple(provenance["condition"])  # of a conditional generator, as `generate` records it
    if "mixture" in provenance:
        prompts, mixture = checked(provenance["condition"], tuple), checked(provenance["mixture"], dict)
        columns = texts(prompts), floats(mixture["shares"]), floats(mixture["errors"])
        if len(set(map(len, columns))) > 1:
            raise ValueError("its prompts and their shares differ in number")
    if "sampler" in provenance:
        check_record(provenance["sampler"])
    statistics = {name: number(value) for name, value in checked(data["statistics"], dict).items()}
    part: dict[str, Any] = {"provenance": provenance, "statistics": statistics}
    tensors = read_tensors(folder / LATENTS)
    for name in ("z", "w"):
        tensor = tensors[name]
        if tensor.ndim < 2 or len(tensor) < len(samples) or not tensor.is_floating_point():
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, and there are {len(samples)} samples")
        part[name] = tensor[: len(samples)]  # an interrupted run may have written more of them than it lists
    if "images" in names:
        part["images"] = [_read_picture(folder, sample["picture"]) for sample in samples]
    return part | {name: column.read(name, samples) for name, column in MEASURED.items() if name in names}


def is_of_earlier_version(provenance: Mapping[str, Any] | Provenance) -> bool:
    """Return whether provenance has a form of before the first release: a sampler as text, or the name `label`."""
    return "label" in provenance or isinstance(provenance.get("sampler"), str)


def _read_picture(folder: Path, name: object) -> Image.Image:
    if not isinstance(name, str) or not is_picture_name(name):
        raise ValueError(f"{name!r} is not the name of a picture")
    refuse_special(folder / name)
    with Image.open(folder / name, formats=["PNG"]) as picture:
        colours: Image.Image = picture.convert("RGB")
    return colours
