"""The table of labels that people make on a web page, or by sorting pictures into sub-folders.

It is a CSV file. Each change writes a new file in place of the old one, so that no file is half written.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from energyql.errors import ArgumentError, DataError, either
from energyql.files import PICTURE_SUFFIXES, naming_target, read_whole, write_text
from energyql.kinds import KINDS, lacks_value
from energyql.labelling.folder import PictureFolder
from energyql.training.labels import (
    CHOSEN,
    DRAWN,
    INDEX,
    attribute_text,
    parse_attribute,
    parse_attributes,
    read_label_table,
)
from energyql.training.tables import read_columns
from energyql.vocabulary import AttributeSpec, Vocabulary

Cells = dict[str, str]
"""Labels of one picture: attribute -> its label as text; "" where a person could not decide."""
EXAMPLE = '"glasses, hair=black|brown|blond, age=0..1"'
"""Attributes as a user writes them, for messages."""


@dataclass(frozen=True)
class LabelSheet:
    """Labels of the pictures of a folder, in a CSV file. Every method reads the file again.

    Attributes:
        path: the CSV file.
        folder: the pictures.
        attributes: the attributes that are labelled, each a column of the file.
    """

    path: Path
    folder: PictureFolder
    attributes: Vocabulary

    @classmethod
    def open(cls, path: Path, folder: PictureFolder, attributes: str | None) -> LabelSheet:
        """Open the table in a file, or begin a new one, whose file is written with the first labels.

        Args:
            attributes: a text such as "glasses, hair=black|brown, age=0..1"; `None` for those of the table in the file.

        Raises:
            ArgumentError: there is no file, and `attributes` is `None`.
            DataError: the table is damaged, or is about other pictures or other attributes.
            VocabularyError: the text does not describe attributes.
        """
        vocabulary = None if attributes is None else parse_attributes(attributes)
        if not path.exists():
            if vocabulary is None:
                message = f"there is no {path} yet, so the attributes must be named"
                raise ArgumentError(message, hint="give " + either(f"attributes={EXAMPLE}", f"--attributes {EXAMPLE}"))
            return cls(path, folder, vocabulary)
        table = read_label_table(path)
        if table.drawn != folder.drawn or table.vocabulary is None:
            source = table.drawn or "it does not say which"
            message = f"{path} is about other pictures: {source}, not {folder.drawn}"
            raise DataError(message, hint="name another table" + either("", " with --out"))
        if vocabulary is not None and list(vocabulary.values()) != list(table.vocabulary.values()):
            left_out = f"leave out {either('attributes', '--attributes')}"
            message = f"{path} has the attributes {', '.join(map(attribute_text, table.vocabulary.values()))}"
            raise DataError(
                message, hint=f"{left_out} to continue it, or name another table{either('', ' with --out')}"
            )
        return cls(path, folder, table.vocabulary)

    def rows(self) -> dict[int, Cells]:
        """Return number of a picture -> its labels, in the order of the file, which ends with the latest picture.

        Raises:
            DataError: somebody has changed the file: its attributes differ, or a row has no number of a picture.
        """
        if not self.path.exists():
            return {}
        columns = read_columns(self.path)
        numbers = [read_whole(cell) for cell in columns.pop(INDEX, [""])]
        labels = {parse_attribute(name).name: cells for name, cells in columns.items() if name not in (CHOSEN, DRAWN)}
        if None in numbers or list(labels) != list(self.attributes):
            raise DataError(f"{self.path} has other columns or rows than before", hint="start energyql label again")
        lines = zip(numbers, *labels.values(), strict=True)
        return {number: dict(zip(labels, cells, strict=True)) for number, *cells in lines}

    def decide(self, index: int, cells: Mapping[str, Any]) -> dict[int, Cells]:
        """Write the labels of one picture, in place of its earlier ones, and return all as `rows` does.

        Args:
            cells: attribute -> label; an attribute that is left out gets an empty label.

        Raises:
            DataError: there is no such picture or attribute, a label is no value of it, or the file is damaged.
        """
        if index not in self.folder.indices:
            raise DataError(f"{self.folder.path} has no picture {index}")
        checked = dict.fromkeys(self.attributes, "") | self._checked(cells)
        rows = self.rows()
        rows.pop(index, None)
        return self._write(rows | {index: checked})

    def undo(self, index: int) -> dict[int, Cells]:
        """Remove the labels of a picture (and the file, if there are no others), and return the others."""
        return self._write({number: cells for number, cells in self.rows().items() if number != index})

    def update(self, labels: Mapping[int, Mapping[str, Any]]) -> dict[int, Cells]:
        """Write labels of several pictures at once, and return all as `rows` does.

        Args:
            labels: number of a picture -> attribute -> new label; attributes that are left out keep their labels.

        Raises:
            DataError: there is no such attribute, a label is no value of it, or the file is damaged.
        """
        rows = self.rows()
        for index, cells in labels.items():
            rows.setdefault(index, dict.fromkeys(self.attributes, ""))
            rows[index] |= self._checked(cells)
        return self._write(rows)

    def put(self, rows: Mapping[int, Cells | None]) -> dict[int, Cells]:
        """Write whole rows as they are, remove those that are `None`, and return all as `rows` does."""
        changed: dict[int, Cells | None] = {**self.rows(), **rows}
        return self._write({number: cells for number, cells in changed.items() if cells is not None})

    def adding(self, spec: AttributeSpec) -> LabelSheet:
        """The same table with a further attribute, which no picture has a label of yet."""
        rows = self.rows()
        wider = replace(self, attributes=Vocabulary([*self.attributes.values(), spec]))
        wider._write({number: cells | {spec.name: ""} for number, cells in rows.items()})
        return wider

    def of(self, folder: PictureFolder) -> LabelSheet:
        """The same table, after its folder got more pictures."""
        return replace(self, folder=folder)

    def _checked(self, cells: Mapping[str, Any]) -> Cells:
        if unknown := [name for name in cells if name not in self.attributes]:
            raise DataError(f"{unknown[0]!r:.40} is not one of the attributes {', '.join(self.attributes)}")
        return {name: _cell(self.attributes[name], cell) for name, cell in cells.items()}

    def _write(self, rows: dict[int, Cells]) -> dict[int, Cells]:
        """Write the file with these rows; without any, remove it, because a table has at least one row."""
        if not rows:
            with naming_target(self.path):
                self.path.unlink(missing_ok=True)
            return rows
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([INDEX, CHOSEN, DRAWN, *map(attribute_text, self.attributes.values())])
        for index, cells in rows.items():
            labels = [cells[name] for name in self.attributes]
            writer.writerow([index, self.folder.chosen(index), self.folder.drawn, *labels])
        write_text(self.path, text.getvalue())
        return rows


def _cell(spec: AttributeSpec, cell: Any) -> str:
    """Text of a label in a table, such as "yes" for true; raise a `DataError` if it is no value of the attribute."""
    if lacks_value(cell, spec):
        return ""
    label = KINDS[spec.kind].labels.label(cell, spec)
    if label is None:
        raise DataError(f"{spec.name!r} is {cell!r:.40}, not {KINDS[spec.kind].labels.asked(spec)}")
    return label


def labels_from_folders(folder: PictureFolder, table: Path) -> LabelSheet:
    """Write a table of labels from the sub-folders into which a person has sorted pictures.

    Sub-folders `glasses` and `no-glasses` (or `not-glasses`) make a yes/no attribute, `hair=black` and `hair=brown` a
    categorical one. Copies of a picture may be in sub-folders of several attributes, with the file name of the picture,
    which begins with its number. The labels are added to those that the table already has.

    Args:
        folder: the folder of the pictures, which contains the sub-folders.
        table: the CSV file to write; it need not exist.

    Returns:
        The table with all labels.

    Raises:
        DataError: there are no sub-folders, or no pictures in them; an attribute has only one sub-folder; a picture is
            in two sub-folders of one attribute; a file is no picture of `folder`; or the table is about other pictures
            or attributes.
        VocabularyError: the name of a sub-folder describes no attribute.
    """
    places = {path.name: path for path in sorted(folder.path.iterdir()) if path.is_dir() and path.name[0] != "."}
    meanings, indices, labels = {place: _meaning(place) for place in places}, set(folder.indices), dict[int, Cells]()
    attributes = ",".join(_attribute_texts(meanings, folder.path))
    for place, (name, value) in meanings.items():
        for file in sorted(places[place].iterdir()):
            if file.suffix.lower() not in PICTURE_SUFFIXES:
                continue
            index = read_whole(file.stem.split(" ")[0])  # of a copy such as "5 (1).png" as well
            if index not in indices:
                hint = "sort the pictures that energyql sample drew, and keep their file names"
                raise DataError(f"{file} is not a picture of {folder.path}", hint=hint)
            if labels.setdefault(index, {}).setdefault(name, value) != value:
                raise DataError(f"picture {index} is in two sub-folders of {name!r}", hint="keep one of its copies")
    if not labels:
        message = f"the sub-folders {', '.join(meanings)} of {folder.path} hold no pictures"
        raise DataError(message, hint="move pictures into them, and keep the names of the files")
    sheet = LabelSheet.open(table, folder, attributes)
    sheet.update(labels)
    return sheet


def _attribute_texts(meanings: dict[str, tuple[str, str]], folder: Path) -> list[str]:
    """Texts of the attributes that sub-folders mean, such as "glasses" or "hair=black|brown"."""
    values: dict[str, set[str]] = {}
    for name, value in meanings.values():
        values.setdefault(name, set()).add(value)
    hint = "sort pictures into 'glasses' and 'no-glasses', or into 'hair=black', 'hair=brown' and so on"
    if not values:
        raise DataError(f"{folder} has no sub-folders", hint=hint)
    if wrong := next((place for place in meanings if "," in place), None):
        raise DataError(f"the sub-folder {wrong!r} of {folder} has a comma, which separates attributes", hint=hint)
    for name, labels in values.items():
        if len(labels) == 1:
            raise DataError(f"{folder} has only one sub-folder of {name!r}", hint=hint)
    texts = {name: "" if labels == {"yes", "no"} else f"={'|'.join(sorted(labels))}" for name, labels in values.items()}
    return [name + text for name, text in texts.items()]


def _meaning(place: str) -> tuple[str, str]:
    """Attribute and label that a sub-folder means: "hair=black", "glasses" (yes) or "no-glasses" (no)."""
    name, equals, value = place.partition("=")
    if equals:
        return name, value
    positive = re.sub("^(no|not)-", "", place)
    return positive, "yes" if positive == place else "no"
