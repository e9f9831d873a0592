"""The function `audit`, which estimates the true share of pictures that satisfy their query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from energyql.attributes.labels import ImageLabeller, import_labeller
from energyql.auditing.answers import AnswerBook, AuditPlan
from energyql.auditing.evidence import Evidence
from energyql.auditing.questions import QUERY, Answer, Answers
from energyql.auditing.report import Audit
from energyql.auditing.session import Session
from energyql.auditing.subject import Subject, open_subject
from energyql.errors import ArgumentError, DataError
from energyql.files import as_path, sole_writer
from energyql.pipeline.result import Result
from energyql.vocabulary import repeated

ByPicture = Mapping[str | int, Answer | Answers]
"""Picture, named by its file ("00012.png") or by its position -> true, false or `None` (the person cannot tell); or a
dict from conditions such as "hair = red" to these."""


def audit(
    result: str | Path | Result,
    answers: ByPicture | Mapping[str, ByPicture] | Sequence[ByPicture] | ImageLabeller | str | None = None,
    *,
    clicks: int = 60,
    width: float | None = None,
    attributes: bool = False,
) -> Audit:
    """Estimate which share of pictures truly satisfies their query, by prediction-powered inference.

    The judge's verdicts on all pictures are corrected by answers of people about a few of the pictures. The estimate
    has a 95 % interval. See docs/audit.md.

    Args:
        result: a folder that `generate`, `edit` or `write_dataset` wrote; the page of a gallery; or a `Result`.
        answers: one of these:

            - `None`: the answers in the folder, which the command `energyql audit` wrote. The arguments `clicks`,
              `width` and `attributes` are then ignored.
            - A dict from pictures to answers. The pictures must be a random choice of those that the judge accepts, and
              a random choice of those that it rejects.
            - A list of such dicts, one for each person; or a dict from names of people to such dicts.
            - A function that labels pictures, or its name `module:function`. `audit` chooses pictures at random, and
              takes the labels of the function in place of answers of a person.
        clicks: with a function, number of pictures with an answer of yes or no at which to end.
        width: with a function, end as soon as the interval is at most this wide, between 0 and 1; `clicks` is then
            ignored. The interval is valid although its width decides when to end.
        attributes: with a function, whether the frequency of each condition of the query is estimated too.

    Raises:
        DataError: there are no pictures or no answers, or the answers are about other pictures.
        ArgumentError: an argument is out of range or of another form.

    Example:
        >>> audited = energyql.audit("run", {"00000.png": True, "00007.png": False})  # doctest: +SKIP
        >>> print(audited, audited.share.low)  # doctest: +SKIP
    """
    subject = open_subject(result if isinstance(result, Result) else as_path(result))
    if answers is None:
        if subject.folder is None or not subject.folder.is_dir():
            hint = f"energyql audit {subject.name} asks for them; or give answers"
            raise DataError(f"{subject.name} has no answers yet", hint=hint)
        with sole_writer(subject.folder, "an audit"):
            return Evidence(subject, AnswerBook.open(subject, None)).report()
    plan = AuditPlan(clicks, width, attributes)
    if callable(answers) or isinstance(answers, str):
        session = Session(subject, AnswerBook(plan), "function")
        session.simulate(import_labeller(answers) if isinstance(answers, str) else answers)
        return session.evidence.report()
    people = _people(answers, subject)
    looked = {key for given in people.values() for key in given}
    return Evidence(subject, AnswerBook(AuditPlan(max(1, len(looked))), people=people)).report()


def _people(answers: Any, subject: Subject) -> dict[str, dict[str, Answers]]:
    """Convert the argument `answers` of `audit`: name of a person -> key of a picture -> answers."""
    several = isinstance(answers, Mapping) and all(isinstance(value, Mapping) for value in answers.values())
    if several and not any(key in subject.by_key or isinstance(key, int) for key in answers):
        named = dict(answers)
    elif isinstance(answers, Mapping):
        named = {"one": answers}
    elif isinstance(answers, Sequence) and all(isinstance(value, Mapping) for value in answers):
        named = {f"person {number}": value for number, value in enumerate(answers, 1)}
    else:
        hint = "give a dict from pictures to True, False or None, or one for each person"
        raise ArgumentError(f"{type(answers).__name__} are no answers", hint=hint)
    people = {}
    for by, given in named.items():
        keys = [_key(key, subject) for key in given]
        if (twice := repeated(keys)) is not None:
            raise DataError(f"two answers are about {twice}, which is named by its file and by its position")
        people[str(by)] = {key: _answers(value, key, subject) for key, value in zip(keys, given.values(), strict=True)}
    return people


def _key(key: object, subject: Subject) -> str:
    if isinstance(key, str) and key in subject.by_key:
        return key
    if isinstance(key, int | np.integer) and 0 <= key < len(subject.pictures):
        return subject.pictures[int(key)].key
    keys = list(subject.by_key)
    hint = f"its pictures are {keys[0]} to {keys[-1]}, or 0 to {len(keys) - 1}"
    raise DataError(f"{subject.name} has no picture {key!r:.40}", hint=hint)


def _answers(value: Any, key: str, subject: Subject) -> Answers:
    given = dict(value) if isinstance(value, Mapping) else {QUERY: value}
    given = {str(name): bool(answer) if isinstance(answer, np.bool_) else answer for name, answer in given.items()}
    if not all(answer is None or isinstance(answer, bool) for answer in given.values()):
        raise DataError(f"the answer about {key!r:.40} is {value!r:.40}, not True, False or None")
    known = subject.questions[subject.pictures[subject.by_key[key]].query].conditions
    if unknown := [name for name in given if name != QUERY and name not in known]:
        raise DataError(f"the query of {key} has no condition {unknown[0]!r:.40}", hint=f"it has {', '.join(known)}")
    return given
