"""Labels from sub-folders: the pictures that somebody has sorted into `glasses/` and `no-glasses/`."""

from __future__ import annotations

from pathlib import Path

from energyql.errors import DataError
from energyql.files import PICTURE_SUFFIXES
from energyql.labelling.folder import PictureFolder
from energyql.labelling.sheet import LabelSheet
from energyql.training.drawn import attribute_text
from energyql.vocabulary import AttributeSpec

NEGATIONS = ("no-", "not-")


def labels_from_folders(folder: PictureFolder, table: Path) -> LabelSheet:
    """Write a table of labels from the sub-folders of a folder of pictures.

    `glasses/` and `no-glasses/` (or `not-glasses/`) make a yes/no attribute, and `hair=black/`, `hair=brown/` a
    categorical one. A picture may be in sub-folders of several attributes, and keeps its file name, which begins with
    its number. The labels are added to those that the table has.

    Args:
        folder: the pictures, as `sample_pictures` drew them.
        table: the CSV file.

    Returns:
        The table.

    Raises:
        DataError: there are no such sub-folders or no pictures in them, a picture is in two sub-folders of one
            attribute, or the table is about other pictures or attributes.
    """
    places = {path.name: path for path in sorted(folder.path.iterdir()) if path.is_dir() and path.name[0] != "."}
    specs, values = _attributes(places, folder.path)
    found: dict[int, dict[str, str]] = {}
    known = set(folder.indices)
    for place, (name, value) in values.items():
        for file in sorted(places[place].iterdir()):
            if file.suffix.lower() not in PICTURE_SUFFIXES:
                continue
            index = _number(file)
            if index not in known:
                raise DataError(
                    f"{file} is not a picture of {folder.path}",
                    hint="sort the pictures that energyql sample drew, and keep their file names",
                )
            cells = found.setdefault(index, {})
            if cells.setdefault(name, value) != value:
                raise DataError(f"picture {index} is in two sub-folders of {name!r}", hint="keep one of its copies")
    if not found:
        raise DataError(
            f"the sub-folders {', '.join(values)} of {folder.path} hold no pictures",
            hint="move pictures into them, and keep the names of the files",
        )
    sheet = LabelSheet.open(table, folder, ",".join(map(attribute_text, specs)))
    sheet.update(found)
    return sheet


def _attributes(places: dict[str, Path], folder: Path) -> tuple[list[AttributeSpec], dict[str, tuple[str, str]]]:
    """Return the attributes that names of sub-folders describe, and the attribute and label of each sub-folder."""
    values = {place: _meaning(place) for place in places}
    specs = []
    for name in dict.fromkeys(name for name, _ in values.values()):
        labels = {value for other, value in values.values() if other == name}
        if labels == {"yes", "no"}:
            specs.append(AttributeSpec(name, "yes/no"))
        elif len(labels) > 1:
            specs.append(AttributeSpec(name, "categorical", values=tuple(sorted(labels))))
        else:
            raise DataError(
                f"{folder} has only one sub-folder of {name!r}, so there is nothing to tell apart",
                hint="sort pictures into 'glasses' and 'no-glasses', or into 'hair=black', 'hair=brown' and so on",
            )
    if not specs:
        raise DataError(
            f"{folder} has no sub-folders", hint="sort its pictures into folders such as 'glasses' and 'no-glasses'"
        )
    return specs, values


def _meaning(place: str) -> tuple[str, str]:
    """Return the attribute and the label that the name of a sub-folder describes."""
    name, equals, value = place.partition("=")
    if equals:
        return name, value
    negation = next((start for start in NEGATIONS if place.startswith(start)), "")
    return place.removeprefix(negation), "no" if negation else "yes"


def _number(file: Path) -> int | None:
    """Return the number of a picture: the digits that its name begins with, as in the copy "5 (1).png"."""
    digits = file.stem.split(" ")[0]
    return int(digits) if digits.isascii() and digits.isdigit() else None
