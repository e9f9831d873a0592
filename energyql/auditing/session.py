"""An audit in progress: which picture is next, and what the answers so far say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from energyql.auditing.answers import AnswerBook
from energyql.auditing.estimate import Estimate, Strata
from energyql.auditing.questions import QUERY, Answer, Answers
from energyql.auditing.report import Agreement, Audit, Frequency
from energyql.auditing.subject import AuditedPicture, Subject
from energyql.errors import DataError

_GUESS = {True: 1.0, False: 0.0, None: 0.5}
Labels = Mapping[int, tuple[bool, bool]]
"""Position of a picture -> its least and its largest label: they differ where people disagree."""


@dataclass(eq=False)
class Session:
    """An audit, as one person continues it.

    Attributes:
        subject: the pictures.
        book: the answers of all people.
        by: name of the person.
    """

    subject: Subject
    book: AnswerBook
    by: str

    @cached_property
    def _orders(self) -> list[list[int]]:
        """For each stratum, a list of its pictures in random order, the same in every session.

        A stratum has the pictures of one verdict of the judge, and of one side of P(query) = 0.5 by the heads.
        """
        strata: dict[tuple[Answer, Answer], list[int]] = {}
        for number in np.random.default_rng(int(self.subject.digest[:16], 16)).permutation(len(self.subject.pictures)):
            picture = self.subject.pictures[number]
            strata.setdefault((picture.verdict, picture.sure), []).append(int(number))
        return [strata[key] for key in sorted(strata, key=str)]

    @property
    def answers(self) -> dict[str, Answers]:
        """The answers of this person: key of a picture -> answers, in the order in which they were given."""
        return self.book.people.setdefault(self.by, {})

    def asked(self, picture: AuditedPicture) -> list[str]:
        """Return the questions about a picture: the whole query, or each of its conditions."""
        return list(self.subject.questions[picture.query].conditions) if self.book.plan.attributes else [QUERY]

    def next(self, count: int) -> list[AuditedPicture]:
        """Return the next pictures to look at, at most `count`; [] at the end of the audit.

        Pictures that another person has looked at come first, so that agreement can be measured.
        """
        waiting = self._shared
        labels = self._labels(QUERY)
        if not waiting and not self._is_finished(labels):
            looked = {self.subject.by_key[key] for answers in self.book.people.values() for key in answers}
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
        """Positions of the pictures that only other people have looked at."""
        others = [key for by, answers in self.book.people.items() if by != self.by for key in answers]
        return [self.subject.by_key[key] for key in dict.fromkeys(others) if key not in self.answers]

    @property
    def left(self) -> int | None:
        """Number of pictures that this person is still asked about; `None` if the width of the interval decides.

        It is more if the person cannot tell about one, and less if there are no further pictures.
        """
        if self.book.plan.width is not None:
            return None
        return len(self._shared) or max(0, self.book.plan.clicks - len(self._labels(QUERY)))

    @property
    def anytime(self) -> bool:
        """Whether intervals must be valid at any time: unless as many pictures are decided as were planned at first."""
        return self.book.plan.width is not None or not self.book.planned or self.fraction != 1

    def _is_finished(self, labels: Labels) -> bool:
        if self.book.plan.width is None:
            return len(labels) >= self.book.plan.clicks
        return bool(labels) and self._estimate(self._orders, labels).width <= self.book.plan.width

    @property
    def fraction(self) -> float | None:
        """The fraction of the planned pictures with a decision, 0 to 1; `None` if the width of the interval decides.

        It is 1 too if people have looked at all pictures.
        """
        if self.book.plan.width is not None:
            return None
        looked = {key for answers in self.book.people.values() for key in answers}
        whole = len(looked) == len(self.subject.pictures)
        return 1.0 if whole else len(self._labels(QUERY)) / self.book.plan.clicks

    def answer(self, key: str, answers: Answers) -> None:
        """Keep the answers of this person about the picture that is asked now.

        Args:
            key: key of the picture.
            answers: question -> answer; a question that is left out counts as one that nobody can tell.

        Raises:
            DataError: another picture is asked now, or there is an answer to no question about it.
            ArgumentError: the answers cannot be written.
        """
        now = self.next(1)
        if not now or now[0].key != key:
            raise DataError(
                f"{key} is not the picture that is asked now", hint="another tab has answered it: load again"
            )
        asked = self.asked(now[0])
        if unknown := [name for name in answers if name not in asked]:
            raise DataError(f"{key} is asked for {', '.join(asked)}, not for {unknown[0]}")
        self.book.add(self.subject, key, self.by, {name: answers.get(name) for name in asked})

    def undo(self) -> None:
        """Take back the last answers of this person.

        Raises:
            DataError: there are none.
        """
        if not self.answers:
            raise DataError("there is no answer to take back")
        self.book.undo(next(reversed(self.answers)), self.by)

    def simulate(self, ask: Callable[[AuditedPicture], Answers], report: Callable[[float], None]) -> None:
        """Let a function answer in place of a person, to the end of the audit.

        Args:
            ask: function from a picture to answers to the conditions of its query.
            report: function that is called with the fraction of the audit that is done.
        """
        while pictures := self.next(1):
            answers = ask(pictures[0])
            if not self.book.plan.attributes:
                answers = {QUERY: self.subject.questions[pictures[0].query].holds(answers)}
            self.answer(pictures[0].key, answers)
            report(self.fraction or 0.0)

    def _decisions(self, question: str) -> list[dict[int, bool]]:
        """Return for each person the pictures with a decision, and the decision.

        Args:
            question: `QUERY`, which may follow from answers to conditions; or a condition.
        """
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
        """Return counts of answers.

        Args:
            groups: the pictures of each stratum.
            labels: the answers.
            which: 0 for the least label of each picture, 1 for the largest.
            guess: what the judge says for the pictures of each stratum; by default its verdict.
        """
        seen = [[labels[number][which] for number in labels if number in members] for members in map(set, groups)]
        says = guess or [self.subject.pictures[group[0]].verdict for group in groups]
        columns = map(len, groups), map(len, seen), map(sum, seen), (_GUESS[value] for value in says)
        return Strata(*(np.array(list(column), float) for column in columns))

    def _estimate(self, groups: Sequence[Sequence[int]], labels: Labels, guess: Sequence[Answer] = ()) -> Estimate:
        """Return an estimated share of yes; where people disagree, half a yes, and the interval covers both answers."""
        low = self._strata(groups, labels, 0, guess).estimate(anytime=self.anytime)
        if all(least == most for least, most in labels.values()):
            return low
        high = self._strata(groups, labels, 1, guess).estimate(anytime=self.anytime)
        return Estimate((low.share + high.share) / 2, low.low, high.high)

    def report(self) -> Audit:
        """Return what the answers so far say about all pictures.

        Raises:
            DataError: no answer decides anything.
        """
        pictures, labels = self.subject.pictures, self._labels(QUERY)
        looked = {key for answers in self.book.people.values() for key in answers}
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
        """Return the frequency of each condition that was asked, among the pictures whose query has it."""
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
