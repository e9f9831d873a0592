"""An audit in progress: the choice of the picture that a person sees next, and results from the answers so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
import torch

from energyql.attributes.labels import ImageLabeller
from energyql.auditing.answers import AnswerBook, check_name
from energyql.auditing.estimate import Estimate, Strata
from energyql.auditing.questions import QUERY, Answer, Answers
from energyql.auditing.report import Agreement, Audit, Frequency
from energyql.auditing.subject import AuditedPicture, Subject
from energyql.errors import DataError

_GUESS = {True: 1.0, False: 0.0, None: 0.5}
Labels = Mapping[int, tuple[bool, bool]]
"""Position of a picture -> the least and the largest answer of all people (false < true); two where they disagree."""


@dataclass(eq=False)
class Session:
    """An audit that one person, named `by`, continues; an `ArgumentError` for a name that `check_name` refuses."""

    subject: Subject
    book: AnswerBook
    by: str

    def __post_init__(self) -> None:
        check_name(self.by)

    @cached_property
    def _orders(self) -> list[list[int]]:
        """For each stratum, the positions of its pictures in a random order, the same in every session.

        Its pictures have the same verdict of the judge, and the same answer of the heads whether P(query) is at least
        0.5.
        """
        strata: dict[tuple[Answer, Answer], list[int]] = {}
        for number in np.random.default_rng(int(self.subject.digest[:16], 16)).permutation(len(self.subject.pictures)):
            picture = self.subject.pictures[number]
            strata.setdefault((picture.verdict, picture.sure), []).append(int(number))
        return [strata[key] for key in sorted(strata, key=str)]

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
        labels = self._labels(QUERY)
        if not waiting and not self._is_finished(labels):
            looked = {self.subject.by_key[key] for key in self.book.looked}
            left = [[number for number in order if number not in looked] for order in self._orders]
            strata, missing = self._strata(self._orders, labels, 0), count
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
        return len(self._shared) or max(0, self.book.plan.clicks - len(self._labels(QUERY)))

    @property
    def anytime(self) -> bool:
        """Whether intervals must be valid at whatever moment the audit ends, which makes them wider.

        False only if the plan was never changed, and the planned number of pictures, or all of them, were answered.
        """
        return self.book.plan.width is not None or not self.book.planned or self.fraction != 1

    def _is_finished(self, labels: Labels) -> bool:
        if self.book.plan.width is None:
            return len(labels) >= self.book.plan.clicks
        return bool(labels) and self._estimate(self._orders, labels).width <= self.book.plan.width

    @property
    def fraction(self) -> float | None:
        """Pictures with an answer of yes or no, divided by the planned number; `None` if the width decides the end.

        It is also 1, the end of the audit, if people have looked at all pictures.
        """
        if self.book.plan.width is not None:
            return None
        whole = len(self.book.looked) == len(self.subject.pictures)
        return 1.0 if whole else len(self._labels(QUERY)) / self.book.plan.clicks

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
            report(self.fraction or 0.0)

    def _decisions(self, question: str) -> list[dict[int, bool]]:
        """For each person: position of a picture -> the answer to a question, if it is yes or no."""
        people = []
        for answers in self.book.people.values():
            decisions = {}
            for key, given in answers.items():
                number = self.subject.by_key[key]
                query = self.subject.questions[self.subject.pictures[number].query]
                decision = query.holds(given) if question == QUERY else given.get(question)
                if decision is not None:
                    decisions[number] = decision
            people.append(decisions)
        return people

    def _labels(self, question: str) -> Labels:
        labels: dict[int, tuple[bool, bool]] = {}
        for decisions in self._decisions(question):
            for number, decision in decisions.items():
                least, most = labels.get(number, (decision, decision))
                labels[number] = min(least, decision), max(most, decision)
        return labels

    def _strata(
        self, groups: Sequence[Sequence[int]], labels: Labels, which: int, guess: Sequence[Answer] = ()
    ) -> Strata:
        """Count pictures and answers in each stratum; `groups` are the positions of its pictures.

        If people disagree, answer `which` counts: 0 the least, 1 the largest. `guess` is by default the judge's
        verdict.
        """
        seen = [[labels[number][which] for number in labels if number in members] for members in map(set, groups)]
        says = guess or [self.subject.pictures[group[0]].verdict for group in groups]
        columns = map(len, groups), map(len, seen), map(sum, seen), (_GUESS[value] for value in says)
        return Strata(*(np.array(list(column), float) for column in columns))

    def _estimate(self, groups: Sequence[Sequence[int]], labels: Labels, guess: Sequence[Answer] = ()) -> Estimate:
        """Estimated share of yes among the pictures of all strata.

        A picture about which people disagree counts as half a yes, and the interval covers both answers.
        """
        low = self._strata(groups, labels, 0, guess).estimate(anytime=self.anytime)
        if all(least == most for least, most in labels.values()):
            return low
        high = self._strata(groups, labels, 1, guess).estimate(anytime=self.anytime)
        return Estimate((low.share + high.share) / 2, low.low, high.high)

    def report(self) -> Audit:
        """Result of the audit: estimates for all pictures, computed from the answers so far.

        Raises:
            DataError: there is no picture for which somebody said yes or no.
        """
        pictures, labels, looked = self.subject.pictures, self._labels(QUERY), self.book.looked
        if not labels:
            why = f"of {len(looked)} pictures nobody could tell" if looked else "there are no answers yet"
            raise DataError(f"{self.subject.name} cannot be audited: {why}", hint="answer y or n for some pictures")
        verdicts = [picture.verdict for picture in pictures if picture.verdict is not None]
        errors: dict[bool, Estimate | None] = {True: None, False: None}
        for verdict in errors:
            groups = [order for order in self._orders if pictures[order[0]].verdict is verdict]
            wrong = {
                number: (not most, not least) if verdict else (least, most)
                for number, (least, most) in labels.items()
                if pictures[number].verdict is verdict
            }
            errors[verdict] = self._estimate(groups, wrong, [False] * len(groups)) if wrong else None
        return Audit(
            name=self.subject.name, pictures=len(pictures), looked=len(looked), decided=len(labels),
            share=self._estimate(self._orders, labels), anytime=self.anytime,
            accepted=sum(verdicts) if verdicts else None, judged=len(verdicts),
            false_yes=errors[True], false_no=errors[False], frequencies=self._frequencies(),
            people=[by for by, answers in self.book.people.items() if answers], agreements=self._agreements(),
        )  # fmt: skip

    def _frequencies(self) -> dict[str, Frequency]:
        """Condition -> how often it holds where a query has it; conditions without any answer are left out."""
        frequencies, count = {}, len(self.subject.pictures)
        conditions = {name for question in self.subject.questions.values() for name in question.conditions}
        for name in sorted(conditions):
            labels = self._labels(name)
            if not labels:
                continue
            readings = self.subject.readings.get(name, [None] * count)
            groups: dict[tuple[int, Answer], list[int]] = {}
            for place, order in enumerate(self._orders):
                for number in order:
                    if name in self.subject.questions[self.subject.pictures[number].query].conditions:
                        groups.setdefault((place, readings[number]), []).append(number)
            guess = [reading for _, reading in groups]
            read = [readings[number] for group in groups.values() for number in group]
            known = [value for value in read if value is not None]
            judged = sum(known) / len(known) if known else None
            estimate = self._estimate(list(groups.values()), labels, guess)
            frequencies[name] = Frequency(estimate, judged, len(read))
        return frequencies

    def _agreements(self) -> list[Agreement]:
        pairs = combinations(zip(self.book.people, self._decisions(QUERY), strict=True), 2)
        return [agreement for one, other in pairs if (agreement := Agreement.of(one, other)) is not None]
