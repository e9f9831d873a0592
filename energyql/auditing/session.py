"""An audit in progress: the choice of the picture that a person sees next, and the storing of the answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from energyql.attributes.labels import ImageLabeller
from energyql.auditing.answers import AnswerBook, check_name
from energyql.auditing.evidence import Evidence, Labels
from energyql.auditing.questions import QUERY, Answers
from energyql.auditing.subject import AuditedPicture, Subject
from energyql.errors import DataError


@dataclass(eq=False)
class Session:
    """An audit that one person, named `by`, continues; an `ArgumentError` for a name that `check_name` refuses."""

    subject: Subject
    book: AnswerBook
    by: str

    def __post_init__(self) -> None:
        check_name(self.by)

    @cached_property
    def evidence(self) -> Evidence:
        """What all people have answered so far, this one included; its `report` is the result of the audit."""
        return Evidence(self.subject, self.book)

    @property
    def answers(self) -> dict[str, Answers]:
        """The answers of the person of this session: key of a picture -> answers, in the order of answering."""
        return self.book.people.setdefault(self.by, {})

    def asked(self, picture: AuditedPicture) -> list[str]:
        """Questions about a picture: the conditions of its query if the plan has `attributes`, else only `QUERY`."""
        return list(self.subject.questions[picture.query].conditions) if self.book.plan.attributes else [QUERY]

    def next(self, count: int) -> list[AuditedPicture]:
        """Next pictures that this person is asked about, at most `count`; [] at the end of the audit.

        Pictures that other people have answered, and this person has not, come first, so that agreement can be
        measured. Then pictures are drawn from the strata where a further answer makes the interval shortest.
        """
        waiting = self._shared
        labels = self.evidence.labels(QUERY)
        if not waiting and not self._is_finished(labels):
            looked = {self.subject.by_key[key] for key in self.book.looked}
            left = [[number for number in order if number not in looked] for order in self.evidence.orders]
            strata, missing = self.evidence.strata(self.evidence.orders, labels, 0), count
            if self.book.plan.width is None:
                missing = min(count, self.book.plan.clicks - len(labels))
            while len(waiting) < missing and any(left):
                place = strata.next(np.array([bool(numbers) for numbers in left]))
                waiting.append(left[place].pop(0))
                share = (strata.yes[place] + 1) / (strata.seen[place] + 2)
                strata.seen[place] += 1
                strata.yes[place] += share  # pictures that are loaded ahead are chosen as if the estimate stayed
        return [self.subject.pictures[number] for number in waiting[:count]]

    @property
    def _shared(self) -> list[int]:
        """Positions of the pictures about which other people have answered, but not this person."""
        others = [key for by, answers in self.book.people.items() if by != self.by for key in answers]
        return [self.subject.by_key[key] for key in dict.fromkeys(others) if key not in self.answers]

    @property
    def left(self) -> int | None:
        """Estimated number of pictures that this person is still asked about; `None` if the width decides the end.

        It grows when the person cannot tell, because another picture is then asked.
        """
        if self.book.plan.width is not None:
            return None
        return len(self._shared) or max(0, self.book.plan.clicks - len(self.evidence.labels(QUERY)))

    def _is_finished(self, labels: Labels) -> bool:
        if self.book.plan.width is None:
            return len(labels) >= self.book.plan.clicks
        return bool(labels) and self.evidence.estimate(self.evidence.orders, labels).width <= self.book.plan.width

    def answer(self, key: str, answers: Answers) -> None:
        """Store the answers of this person about the current picture, which is the first that `next` returns.

        Args:
            answers: question -> answer; a question that is left out gets `None`, the person cannot tell.

        Raises:
            DataError: `key` is not the current picture, or an answer is to something that is not asked about it.
            ArgumentError: the answers cannot be written.
        """
        now = self.next(1)
        if not now or now[0].key != key:
            raise DataError(
                f"{key!r:.40} is not the picture that is asked now", hint="another tab has answered it: load again"
            )
        asked = self.asked(now[0])
        if unknown := [name for name in answers if name not in asked]:
            raise DataError(f"{key} is asked for {', '.join(asked)}, not for {unknown[0]!r:.40}")
        self.book.add(self.subject, key, self.by, {name: answers.get(name) for name in asked})

    def undo(self) -> None:
        """Remove the last answers of this person, so that the picture comes again; a `DataError` if there are none."""
        if not self.answers:
            raise DataError("there is no answer to take back")
        self.book.undo(next(reversed(self.answers)), self.by)

    def simulate(self, labeller: ImageLabeller, report: Callable[[float], None] = lambda fraction: None) -> None:
        """Continue the audit to its end, with the answers of a labeller in place of those of a person.

        Args:
            labeller: function from pictures in [-1, 1], (batch, channels, height, width), to values by attribute.
            report: called with the fraction of the audit that is done, 0 to 1.
        """
        while pictures := self.next(1):
            question = self.subject.questions[pictures[0].query]
            pixels = torch.from_numpy(np.asarray(pictures[0].open(), np.float32) / 127.5 - 1)
            answers = question.ask(labeller, pixels.permute(2, 0, 1)[None])
            self.answer(pictures[0].key, answers if self.book.plan.attributes else {QUERY: question.holds(answers)})
            report(self.evidence.fraction or 0.0)
