"""The pictures of an audit, read from a saved result, edit, gallery or data set, or taken from a `Result` in memory."""

from __future__ import annotations

import base64
import io
import math
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from PIL import Image

from energyql.auditing.questions import Answer, Question, read_answer
from energyql.dataset.manifest import CARD, MANIFEST, PLAN
from energyql.dataset.shard import read_samples
from energyql.errors import DataError, ModelError
from energyql.files import (
    MOST_PICTURE,
    check_file,
    finish_saving,
    json_digest,
    naming_source,
    read_bytes,
    read_json,
    read_whole,
)
from energyql.pipeline.result import Result
from energyql.pipeline.result_folder import EDIT, RESULT, is_picture_name, part_folders, picture_name
from energyql.pipeline.settings import EXACT
from energyql.render.pictures import png_bytes

_PAGE = "index.html"
_MOST_PAGE = 1 << 30
"""Largest page of a gallery that is read, in bytes."""
_HALF = 0.5


@dataclass(frozen=True)
class AuditedPicture:
    """One picture of an audit.

    Args:
        key: unique name of the picture, such as "00012.png", "2/00000.png" or "000001-00017".
        query: the query that the picture should satisfy, in canonical form.
        verdict: whether it does according to the judge; `None` if it was not judged.
        sure: whether the heads give the query a probability of at least 0.5; `None` if the energy is no probability.
        data: returns the bytes of the picture's file, or raises a `DataError`.
        readings: attribute -> value that the judge read off the picture, such as True, "red" or 31.0.
    """

    key: str
    query: str
    verdict: Answer
    sure: Answer
    data: Callable[[], bytes]
    readings: Mapping[str, Any] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """SHA-256 of `data()`, in hexadecimal digits."""
        return sha256(self.data()).hexdigest()

    def open(self) -> Image.Image:
        """Decode the picture in RGB; a `DataError` if the file cannot be read, or is no PNG, WebP or JPEG."""
        try:
            with Image.open(io.BytesIO(self.data()), formats=["PNG", "WEBP", "JPEG"]) as picture:
                return picture.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DataError(f"the picture {self.key} cannot be read: {error}") from error


@dataclass(frozen=True, eq=False)
class Subject:
    """All pictures of an audit, and where they are from.

    Args:
        name: path of the audited folder or page, for messages.
        folder: folder of the audit's own files, such as the answers; `None` for a `Result` in memory.
        kind: "result", "edit", "data set", "gallery", or "memory" for a `Result` in memory.
        pictures: at least one.
        model: name or path of the model that drew the pictures; "" if unknown.
    """

    name: str
    folder: Path | None
    kind: str
    pictures: Sequence[AuditedPicture]
    model: str = ""

    @cached_property
    def questions(self) -> dict[str, Question]:
        """Text of each query -> the query split into its conditions; a `DataError` if one names no attribute."""
        texts = dict.fromkeys(picture.query for picture in self.pictures)
        return {text: Question(text, self.model) for text in texts}

    @cached_property
    def by_key(self) -> dict[str, int]:
        """Key of each picture -> its position in `pictures`."""
        return {picture.key: number for number, picture in enumerate(self.pictures)}

    @cached_property
    def digest(self) -> str:
        """Digest of names, queries and verdicts, not of pixels; if it changes, earlier answers do not belong here."""
        return json_digest([[one.key, one.query, one.verdict, one.sure] for one in self.pictures])

    @cached_property
    def readings(self) -> dict[str, list[Answer]]:
        """Text of each condition -> for each picture whether it holds according to the judge.

        `None` for a picture whose query does not have the condition, or where the judge does not read the attribute.
        """
        table: dict[str, list[Answer]] = {}
        for text, question in self.questions.items():
            rows = [number for number, one in enumerate(self.pictures) if one.query == text]
            names = {name for number in rows for name in self.pictures[number].readings}
            columns = {name: [self.pictures[number].readings.get(name) for number in rows] for name in names}
            for condition, truths in question.read(columns).items():
                column = table.setdefault(condition, [None] * len(self.pictures))
                for number, truth in zip(rows, truths, strict=True):
                    column[number] = truth
        return table


def open_subject(result: Path | Result) -> Subject:
    """Pictures to audit of a saved result, edit, gallery or data set, or of a `Result` in memory.

    Args:
        result: a folder that `generate`, `edit` or `write_dataset` wrote; the page of a gallery, or its folder; or a
            `Result`.

    Raises:
        DataError: there is no such folder or page; or it has no pictures with a query, or is damaged or not finished.
    """
    if isinstance(result, Result):
        return Subject("the result", None, "memory", list(_in_memory(result)), str(result.provenance["model"]))
    path, folder = result, result / "audit"
    if not os.path.exists(path):
        raise DataError(f"there is no {path}", hint="name a folder that generate, edit or dataset wrote, or a gallery")
    if (page := gallery_page(path)).is_file():
        return Subject(str(path), page.with_suffix(".audit") if page == path else folder, "gallery", _of_page(page))
    finish_saving(path)
    try:
        if (path / PLAN).is_file():
            kind, pictures, model = "data set", *_of_dataset(path)
        elif (path / EDIT).is_file():
            steps = sorted((each for each in path.iterdir() if read_whole(each.name)), key=lambda each: int(each.name))
            kind, pictures, model = "edit", *_of_results(path, [(f"{step.name}/", step) for step in steps])
        else:
            parts = [("", path), *((f"{part.name}/", part) for _, part in part_folders(path))]
            kind, pictures, model = "result", *_of_results(path, parts)
    except (KeyError, TypeError, ValueError, AttributeError, ModelError) as error:
        fault = f"{error} is missing" if isinstance(error, KeyError) else getattr(error, "message", error)
        hint = "name a folder that generate, edit or dataset wrote, or the page of a gallery"
        raise DataError(f"{path} holds no pictures to audit: {fault}", hint=hint) from error
    return Subject(str(path), folder, kind, pictures, model)


def gallery_page(path: Path) -> Path:
    """File of a gallery's page: `path` itself, or `index.html` in the folder `path`."""
    return path if path.is_file() else path / _PAGE


def _sure(energy: object, semantics: object) -> Answer:
    if semantics != EXACT or energy is None:
        return None
    return math.exp(-float(energy)) >= _HALF  # type: ignore[arg-type]


def _in_memory(result: Result) -> Iterator[AuditedPicture]:
    facts = result.provenance
    for row in range(len(result)):
        verdict = None if result.satisfied is None else bool(result.satisfied[row])
        readings = {name: values[row].item() for name, values in result.judged.items()}
        sure, data = _sure(result.energy[row], facts["semantics"]), partial(png_bytes, result.images[row])
        yield AuditedPicture(picture_name(row), facts["canonical"], verdict, sure, data, readings)


def _of_results(folder: Path, parts: Sequence[tuple[str, Path]]) -> tuple[list[AuditedPicture], str]:
    """Pictures of saved results, and their model; `parts` are pairs of a beginning of keys ("01024/") and a folder."""
    pictures: list[AuditedPicture] = []
    for prefix, part in parts:
        if not (part / RESULT).is_file():
            raise ValueError(f"there is no {RESULT}")
        data = read_json(part / RESULT)
        facts = data["provenance"]
        for sample in data["samples"]:
            if not is_picture_name(sample["picture"]):  # another path could lead to a private file
                raise ValueError(f"{sample['picture']!r:.40} is not the name of a picture")
            key, verdict = f"{prefix}{sample['picture']}", read_answer(sample["satisfied"])
            sure = _sure(sample["energy"], facts["semantics"])
            read = partial(read_bytes, folder / key, MOST_PICTURE, DataError)
            pictures.append(AuditedPicture(key, str(facts["canonical"]), verdict, sure, read, sample["judged"] or {}))
    if not pictures:
        raise ValueError("it has no samples")
    return pictures, str(facts["model"])


def _read_part(path: Path, start: int, size: int) -> bytes:
    check_file(path, kind=DataError)
    with naming_source(path, DataError), path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _of_dataset(folder: Path) -> tuple[list[AuditedPicture], str]:
    """Pictures of a finished data set, and the model of its first class."""
    if missing := [name for name in (MANIFEST, CARD) if not (folder / name).is_file()]:
        hint = "run energyql dataset again, which continues it"
        raise DataError(f"the data set {folder} is not finished: it has no {missing[0]}", hint=hint)
    classes = {one["name"]: one for one in read_json(folder / PLAN)["plan"]["classes"]}
    pictures: list[AuditedPicture] = []
    for shard in sorted((folder / "shards").glob("*.tar")):
        check_file(shard, kind=DataError)
        with naming_source(shard, DataError), shard.open("rb") as file:
            samples = read_samples(file)
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                data = {
                    member.name.partition(".")[0]: partial(_read_part, shard, member.offset_data, member.size)
                    for member in archive
                    if not member.name.endswith((".json", ".cls"))
                }
        for sample in samples:
            sure = _sure(sample["energy"], classes[sample["class"]]["semantics"])
            key, verdict = sample["key"], read_answer(sample["satisfied"])
            pictures.append(AuditedPicture(key, sample["query"], verdict, sure, data[key], sample["judged"]))
    if not pictures:
        raise ValueError("it has no pictures")
    return pictures, str(next(iter(classes.values()))["model"])


class _Tiles(HTMLParser):
    """Parser of a gallery's page, which collects the pictures that belong to one query, and so none of traversals."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[AuditedPicture] = []
        self._verdict: Answer = None
        self._row = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "li":
            self._verdict = {"yes": True, "no": False}.get(values.get("class", "").partition(" ")[0])
        self._row = values.get("data-row", self._row)
        if tag == "img" and (query := values.get("data-query")):
            content = base64.b64decode(values["src"].partition(",")[2])
            self.pictures.append(AuditedPicture(self._row, query, self._verdict, None, lambda: content))


def _of_page(page: Path) -> list[AuditedPicture]:
    tiles = _Tiles()
    try:
        tiles.feed(read_bytes(page, _MOST_PAGE, DataError).decode())
    except (ValueError, KeyError) as error:
        raise DataError(f"{page} is damaged: {error}", hint="draw the gallery again") from error
    if not tiles.pictures:
        hint = "name the page of a gallery with queries or truth tables"
        raise DataError(f"{page} holds no pictures to audit", hint=hint)
    return tiles.pictures
