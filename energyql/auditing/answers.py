"""The answers of an audit, in which people say whether pictures satisfy their query; and the file `answers.jsonl`.

Every answer is appended to the file at once, as a line of JSON. A last line without a line break was not completely
written, and is removed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from energyql.auditing.questions import Answers, read_answer
from energyql.auditing.subject import Subject
from energyql.errors import ArgumentError, DataError
from energyql.files import naming_target, parse_json, read_bytes, write_text
from energyql.pipeline.settings import finite_number, flag, whole_number

ANSWERS = "answers.jsonl"
"""Lines of JSON: first the plan; then `{"picture": "00012.png", "by": "ann", "sha256": ..., "answers": {"query":
true}}`, or `{"undo": "00012.png", "by": "ann"}` for answers that were taken back."""
CLICKS = 60
"""Default number of pictures that people say yes or no about."""
_MOST_CLICKS = 10**7
_MOST_BYTES = 1 << 30
"""Largest file of answers that is read, in bytes."""
_MOST_NAME = 200
"""Most characters of the name of a person."""
_AGAIN = "move {folder} away to begin a new audit, and keep it, for it holds the answers"


@dataclass(frozen=True)
class AuditPlan:
    """The plan of an audit: when it ends, and what people are asked about each picture.

    Args:
        clicks: pictures with an answer of yes or no at which the audit ends; without effect if `width` is given.
        width: the audit ends when the 95 % interval of the share is at most this wide, between 0 and 1.
        attributes: ask about each condition of the query, such as "hair = red", in place of the whole query.

    Raises:
        ArgumentError: a value is out of range.
    """

    clicks: int = CLICKS
    width: float | None = None
    attributes: bool = False

    def __post_init__(self) -> None:
        whole_number("clicks", self.clicks, most=_MOST_CLICKS)
        if self.width is not None and not 0 < finite_number("width", self.width) < 1:
            raise ArgumentError(f"width is between 0 and 1, not {self.width}", hint="such as 0.05 for 5 %")
        flag("attributes", self.attributes)


def check_name(by: object) -> str:
    """Return the name of a person, after a check that it can be shown.

    Raises:
        ArgumentError: it is no text, too long, or has invisible characters, such as those that control a terminal.
    """
    if not isinstance(by, str) or len(by) > _MOST_NAME or not by.isprintable():
        hint = f"a name is a text of at most {_MOST_NAME} visible characters, such as ann"
        raise ArgumentError(f"{by!r:.40} is no name of a person", hint=hint)
    return by


@dataclass(eq=False)
class AnswerBook:
    """The answers of all people of one audit, in memory, and also in the file `answers.jsonl` if there is one.

    Attributes:
        planned: whether the plan was never changed, so that the number of pictures was fixed in advance.
        people: name of a person -> key of a picture (its name) -> answers, in the order in which they were given.
        path: the file; `None` to keep the answers in memory only.
    """

    plan: AuditPlan
    planned: bool = True
    people: dict[str, dict[str, Answers]] = field(default_factory=dict)
    path: Path | None = None
    _fingerprints: dict[str, str] = field(default_factory=dict)  # of the pictures with answers, by key

    @classmethod
    def open(cls, subject: Subject, plan: AuditPlan | None) -> AnswerBook:
        """Read the file of answers in the folder of an audit; if there is none, begin the audit with a new file.

        The caller must hold the lock of the folder (`sole_writer`), because an incomplete last line is removed.

        Args:
            plan: replaces the plan of an earlier call; `None` keeps it, or begins with `AuditPlan()`.

        Raises:
            DataError: the file is damaged, no regular file, or about other pictures.
            ArgumentError: the file cannot be written.
        """
        assert subject.folder is not None  # a `Result` in memory has no file
        path = subject.folder / ANSWERS
        content = read_bytes(path, _MOST_BYTES, DataError) if os.path.lexists(path) else b""
        whole = content.rfind(b"\n") + 1
        book = cls(plan or AuditPlan(), path=path)
        if not whole:
            begin = {"plan": asdict(book.plan), "pictures": len(subject.pictures), "digest": subject.digest}
            write_text(path, _as_text(begin))
        elif whole < len(content):  # a write was interrupted
            with naming_target(path), path.open("r+b") as file:
                file.truncate(whole)
        for number, line in enumerate(content[:whole].splitlines(), 1):
            try:
                book._read(parse_json(line), subject, number > 1)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                wrong = f"{path}, line {number}, is damaged: {error}"
                raise DataError(wrong, hint="mend the line or remove it; the other answers stay") from error
        if plan is not None and plan != book.plan:
            book.plan, book.planned = plan, False
            book._append({"plan": asdict(plan)})
        book._check_pictures(subject)
        return book

    @property
    def looked(self) -> set[str]:
        """Keys of the pictures about which somebody has answered."""
        return {key for answers in self.people.values() for key in answers}

    def _read(self, line: Mapping[str, Any], subject: Subject, begun: bool) -> None:
        """Apply one line of the file to the plan and the answers in memory; the first line must have the plan."""
        if "plan" in line:
            self.plan, self.planned = AuditPlan(**line["plan"]), not begun
            if not begun and line["digest"] != subject.digest:
                was, now = line["pictures"], len(subject.pictures)
                other = f"{was:,} pictures, now {now:,}" if was != now else "other pictures, queries or verdicts"
                hint = _AGAIN.format(folder=subject.folder)
                raise DataError(f"{subject.name} has changed since its audit began: {other}", hint=hint)
        elif not begun:
            raise ValueError("there is no plan before it")
        elif "undo" in line:
            self.people.get(check_name(line["by"]), {}).pop(line["undo"], None)
        else:
            key, by = line["picture"], check_name(line["by"])
            if not isinstance(key, str):
                raise ValueError(f"{key!r:.40} is not the name of a picture")
            answers = {name: read_answer(value) for name, value in line["answers"].items()}
            self._fingerprints[key] = str(line["sha256"])
            self.people.setdefault(by, {})[key] = answers

    def _check_pictures(self, subject: Subject) -> None:
        """Raise a `DataError` unless each picture with answers has the same bytes as when they were given."""
        places = subject.by_key
        changed = sorted(
            key for key in self.looked
            if key not in places or subject.pictures[places[key]].fingerprint() != self._fingerprints[key]
        )  # fmt: skip
        if changed:
            wrong = f"{len(changed)} pictures with answers have changed since, such as {changed[0]}"
            raise DataError(f"{subject.name}: {wrong}", hint=_AGAIN.format(folder=subject.folder))

    def add(self, subject: Subject, key: str, by: str, answers: Answers) -> None:
        """Store the answers of a person about one picture; earlier answers of this person about it are replaced.

        Raises:
            ArgumentError: the file cannot be written; the answers are not kept.
        """
        if self.path is not None:
            mark = self._fingerprints[key] = subject.pictures[subject.by_key[key]].fingerprint()
            self._append({"picture": key, "by": by, "answers": dict(answers), "sha256": mark})
        self.people.setdefault(by, {}).pop(key, None)
        self.people[by][key] = answers

    def undo(self, key: str, by: str) -> None:
        """Remove the answers of a person about one picture; in the file, a further line cancels their line."""
        if self.path is not None:
            self._append({"undo": key, "by": by})
        del self.people[by][key]

    def _append(self, line: Mapping[str, Any]) -> None:
        assert self.path is not None
        rest = _as_text(line).encode()
        # The file is not made here: without its first line, the plan, it could not be read. It has no buffer, which
        # would write the rest of a line to a full disk again and again.
        with naming_target(self.path), self.path.open("r+b", buffering=0) as file:
            start = file.seek(0, os.SEEK_END)
            try:
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(start)
                raise


def _as_text(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False) + "\n"
