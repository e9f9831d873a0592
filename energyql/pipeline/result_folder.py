"""Folders of saved results: measurements as JSON, latents as safetensors, pictures as PNG.

A folder holds `result.json`, `latents.safetensors`, `grid.png` and the pictures `00000.png`, `00001.png` and so on. A
long run has further parts in folders below, `01024/`, `02048/`, named by the position of their first sample, and each
of them is such a folder itself. `result.json` is replaced last, so what it lists is complete.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from energyql.errors import ArgumentError, DataError, ModelError
from energyql.files import finish_saving, read_json, read_tensors, refuse_special, replacing, write_json, write_tensors
from energyql.sampling import Status
from energyql.sampling.registry import read_record
from energyql.vocabulary import ByAttribute

RESULT, LATENTS, GRID, EDIT = "result.json", "latents.safetensors", "grid.png", "edit.json"
COMPARISON = "comparison.png"
"""File that an inversion has beside its result."""
LABELLING = "pictures.json"
"""File of a folder of pictures to label; see `energyql.labelling.folder`."""
PROVENANCE = "energyql"
"""Text field of a PNG that holds the provenance."""
_HEAD = 512
_PICTURE, _PART = re.compile(r"\d{5,18}\.png"), re.compile(r"\d{5,18}")


def is_picture_name(name: object) -> bool:
    """Return whether a name has the form of the name of a picture in a saved result."""
    return isinstance(name, str) and _PICTURE.fullmatch(name) is not None


def _parts(folder: Path) -> list[Path]:
    """Return the folders below one that have names of parts, in order."""
    if not folder.is_dir():
        return []
    named = (path for path in folder.iterdir() if _PART.fullmatch(path.name) and not path.is_symlink())
    return sorted((path for path in named if path.is_dir()), key=lambda path: int(path.name))


def part_folders(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield the further parts of a long run, each with the position of its first sample, in order."""
    for path in _parts(folder):
        if (path / RESULT).is_file():
            yield int(path.name), path


def numbered_files(folder: Path, first: int = 0) -> list[Path]:
    """Return the files with names of pictures from position `first` on, whoever wrote them."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if is_picture_name(path.name) and int(path.stem) >= first]


def picture_files(folder: Path, first: int = 0) -> list[Path]:
    """Return the pictures of a saved result from position `first` on; no other file."""
    return [path for path in numbered_files(folder, first) if _is_ours(path)]


def _is_ours(path: Path) -> bool:
    """Return whether a file is a PNG with the text field "energyql" before its pixels, as pictures of results are."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return PROVENANCE.encode() in file.read(_HEAD)


def held_samples(folder: Path) -> int:
    """Return the number of samples of the result in a folder; 0 if there is no result that can be read."""
    with suppress(ModelError, KeyError, TypeError):
        return len(read_json(folder / RESULT)["samples"])
    return 0


def holds_inversion(folder: Path) -> bool:
    """Return whether a folder holds the result of an inversion, with its comparison."""
    with suppress(ModelError, KeyError, TypeError):
        return (folder / COMPARISON).is_file() and "inverted" in read_json(folder / RESULT)["provenance"]
    return False


def check_free(folder: Path, count: int, held: int = 0) -> None:
    """Check that pictures of samples `held` to `count - 1` would overwrite only pictures of results.

    Raises:
        ArgumentError: they would overwrite another file, or the folder holds an edit, an inversion, or pictures to
            label.
    """
    for what, there in (
        ("an edit", (folder / EDIT).is_file()),
        ("an inversion", holds_inversion(folder)),
        ("pictures to label", (folder / LABELLING).is_file()),
    ):
        if there:
            raise ArgumentError(f"{folder} holds {what}", hint="name another folder")
    new_parts = [path for path in _parts(folder) if not (path / RESULT).is_file()]
    foreign = [
        path
        for place in (folder, *new_parts)
        for path in numbered_files(place, held)
        if int(path.stem) < count and not _is_ours(path)
    ]
    grid = folder / GRID
    foreign += [grid] if grid.is_file() and not (folder / RESULT).is_file() and not _is_ours(grid) else []
    if foreign:
        raise ArgumentError(
            f"{foreign[0]} is not of this library, and a picture of that name is to be written there",
            hint="name another folder",
        )


def result_files(folder: Path, first: int = 0) -> list[Path]:
    """Return the files of a saved result with its further parts; its own pictures are numbered from `first`."""
    if not (folder / RESULT).is_file():
        return []
    named = [path for name in (RESULT, LATENTS, GRID) if (path := folder / name).is_file()]
    return [*named, *picture_files(folder, first), *part_files(folder)]


def part_files(folder: Path, first: int = 0) -> list[Path]:
    """Return the files of the further parts of a long run that begin at position `first` or later."""
    parts = [(start, part) for start, part in part_folders(folder) if start >= first]
    return [path for start, part in parts for path in result_files(part, start)]


_INFINITE = {"Infinity": math.inf, "-Infinity": -math.inf}
"""Infinite numbers, as strict JSON can hold them. NaN is null."""
_NAMED = ("query", "model", "semantics")
"""Facts of the provenance without which no result can be shown."""


def picture_name(number: int) -> str:
    """Return the name of the file of a picture."""
    return f"{number:05d}.png"


def part_name(start: int) -> str:
    """Return the name of the folder of the part that begins with sample `start`."""
    return f"{start:05d}"


def write_picture(path: Path, picture: Image.Image, provenance: Mapping[str, Any]) -> None:
    """Write a picture; a PNG holds the provenance in its text field "energyql".

    Raises:
        ArgumentError: a side is longer than the format can hold.
    """
    text = PngImagePlugin.PngInfo()
    text.add_itxt(PROVENANCE, json.dumps(provenance, ensure_ascii=False))
    with replacing(path) as temporary:
        try:
            picture.save(temporary, **({"pnginfo": text} if path.suffix.lower() == ".png" else {"quality": 92}))
        except ValueError as error:
            raise ArgumentError(f"cannot write {path}: {error}", hint="save as .png, or to a folder") from error


def write_pictures(
    folder: Path, pictures: Sequence[Image.Image], index: Sequence[int], provenance: Mapping[str, Any], start: int = 0
) -> None:
    """Write pictures to a folder, numbered from `start`; each holds the provenance and its own `index` in the run."""
    for number, (picture, place) in enumerate(zip(pictures, index, strict=True), start):
        write_picture(folder / picture_name(number), picture, {**provenance, "index": place})


def write_measurements(
    folder: Path,
    columns: Mapping[str, Any],
    statistics: Mapping[str, float],
    provenance: Mapping[str, Any],
    start: int = 0,
) -> None:
    """Write latents and then `result.json`.

    Args:
        folder: folder to write.
        columns: fields of a `Result` with an entry for each sample, without the pictures.
        statistics: statistics of the result.
        provenance: provenance of the result.
        start: the number in the name of the first picture.
    """
    write_tensors(folder / LATENTS, {"z": columns["z"], "w": columns["w"]})
    data = describe(columns, statistics, provenance)
    data["samples"] = [{"picture": picture_name(start + i), **sample} for i, sample in enumerate(data["samples"])]
    write_json(folder / RESULT, data)


def describe(
    columns: Mapping[str, Any], statistics: Mapping[str, float], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a result without pictures and latents as JSON values; NaN is null, and infinity "Infinity"."""
    rest = {name: column for name, column in columns.items() if name not in ("z", "w")}
    return {
        "provenance": dict(provenance),
        "statistics": {name: _plain(value) for name, value in statistics.items()},
        "samples": [{name: _entry(column, i) for name, column in rest.items()} for i in range(len(columns["index"]))],
    }


def read_folder(folder: Path, names: Collection[str]) -> Iterator[dict[str, Any]]:
    """Yield the fields of each part of a saved result.

    Args:
        folder: folder that `Result.save` or `energyql.stream` wrote.
        names: names of the fields with an entry for each sample; "images" may be left out.

    Raises:
        DataError: there is no result, or a part is damaged or missing.
    """
    finish_saving(folder)
    held = 0
    for start, part in [(0, folder), *part_folders(folder)]:
        if start != held:
            raise DataError(
                f"{folder} is incomplete: samples {held} to {start - 1} are missing",
                hint="give the command that wrote it again, which continues it",
            )
        fields = read_part(part, names)
        held += len(fields["index"])
        yield fields


def read_part(folder: Path, names: Collection[str]) -> dict[str, Any]:
    """Return the fields of a result from its own folder alone; see `read_folder`."""
    finish_saving(folder)
    if not (folder / RESULT).is_file():
        raise DataError(f"the folder {folder} holds no result", hint="name one that generate or Result.save wrote")
    try:
        return _read_part(folder, names)
    except KeyError as error:
        raise DataError(
            f"{folder} holds a damaged result: {error} is missing", hint="draw it again, with the command that wrote it"
        ) from error
    except (
        TypeError, ValueError, OverflowError, RecursionError, SyntaxError, OSError,
        ModelError, Image.DecompressionBombError,
    ) as error:  # fmt: skip
        raise DataError(
            f"{folder} holds a damaged result: {getattr(error, 'message', error)}",
            hint="draw it again, with the command that wrote it",
        ) from error


def _read_part(folder: Path, names: Collection[str]) -> dict[str, Any]:
    data = read_json(folder / RESULT)
    samples = _checked(data["samples"], list, "samples")
    if not samples or not all(isinstance(sample, dict) for sample in samples):
        raise ValueError("samples must be a list of objects")
    provenance = _checked(data["provenance"], dict, "provenance")
    for name in _NAMED:
        _checked(provenance[name], str, f"the {name} in the provenance")
    if provenance["judge"] is not None:
        _checked(provenance["judge"], str, "the judge in the provenance")
    if isinstance(provenance.get("label"), list):
        provenance["label"] = tuple(provenance["label"])  # of a conditional generator, as `generate` records it
    if "sampler" in provenance:
        provenance["sampler"] = read_record(provenance["sampler"])
    statistics = _checked(data["statistics"], dict, "statistics")
    fields: dict[str, Any] = {
        "provenance": provenance,
        "statistics": {name: _number(value) for name, value in statistics.items()},
    }
    tensors = read_tensors(folder / LATENTS)
    for name in ("z", "w"):
        tensor = tensors[name]
        if tensor.ndim < 2 or len(tensor) < len(samples) or not tensor.is_floating_point():
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, and there are {len(samples)} samples")
        fields[name] = tensor[: len(samples)]  # an interrupted run may have written more of them than it lists
    for name in names:
        if name == "images":
            fields[name] = [_read_picture(folder, sample["picture"]) for sample in samples]
        elif name not in fields:
            fields[name] = _FIELDS.get(name, _optional)([sample[name] for sample in samples])
    return fields


def _read_picture(folder: Path, name: object) -> Image.Image:
    if not isinstance(name, str) or not is_picture_name(name):
        raise ValueError(f"{name!r} is not the name of a picture")
    refuse_special(folder / name)
    with Image.open(folder / name, formats=["PNG"]) as picture:
        colours: Image.Image = picture.convert("RGB")
    return colours


def _entry(column: Any, row: int) -> Any:
    """Return one entry of a column as JSON has it."""
    if column is None:
        return None
    if isinstance(column, Mapping):
        return {name: _entry(part, row) for name, part in column.items()}
    if isinstance(column, tuple):
        return [_entry(part, row) for part in column]
    value = column[row]
    if isinstance(value, Status):
        return value.name
    return _plain(value.item())


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _column(entries: Sequence[Any]) -> Any:
    """Return a column from its entries: the inverse of `_entry`."""
    first = entries[0]
    if isinstance(first, dict):
        if any(not isinstance(entry, dict) or entry.keys() != first.keys() for entry in entries):
            raise ValueError("the samples have different attributes")
        return {name: _column([entry[name] for entry in entries]) for name in first}
    if isinstance(first, list):
        if any(not isinstance(entry, list) or len(entry) != len(first) for entry in entries):
            raise ValueError("the samples have different entries")
        return tuple(_column([entry[k] for entry in entries]) for k in range(len(first)))
    kinds = {type(entry) for entry in entries}
    if kinds in ({bool}, {str}):
        return np.array(entries)
    return np.array(entries, np.int64) if kinds == {int} else _floats(entries)


def _optional(entries: Sequence[Any]) -> Any:
    return None if all(entry is None for entry in entries) else _column(entries)


def _floats(entries: Sequence[Any]) -> npt.NDArray[np.float64]:
    return np.array([_number(entry) for entry in entries], np.float64)


def _number(entry: object) -> float:
    if entry is None:
        return math.nan
    if isinstance(entry, str) and entry in _INFINITE:
        return _INFINITE[entry]
    if isinstance(entry, bool) or not isinstance(entry, int | float):
        raise TypeError(f"{entry!r} is not a number")
    return float(entry)


def _indices(entries: Sequence[Any]) -> npt.NDArray[np.int64]:
    if not all(type(entry) is int and entry >= 0 for entry in entries):
        raise ValueError("an index must be a whole number")
    return np.array(entries, np.int64)


def _verdicts(entries: Sequence[Any]) -> npt.NDArray[np.bool_] | None:
    if not all(isinstance(entry, bool) for entry in entries) and any(entry is not None for entry in entries):
        raise ValueError("a verdict must be true or false, or null in every sample")
    return None if entries[0] is None else np.array(entries)


def _tables(entries: Sequence[Any]) -> Any:
    column = _column(entries)
    return ByAttribute(_checked(column, dict, "predictions and judged values"))


def _statuses(entries: Sequence[Any]) -> list[Status]:
    return [Status[entry] for entry in entries]


def _checked(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{what} must be a {kind.__name__}, not {value!r:.40}")
    return value


_FIELDS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "index": _indices,
    "energy": _floats,
    "probabilities": _tables,
    "judged": _tables,
    "satisfied": _verdicts,
    "status": _statuses,
}
"""Functions that read the columns of fields from their JSON values; other fields are read by `_column`."""
