"""What people have answered in an audit, and what follows: estimates for all pictures, and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np

from energyql.auditing.answers import AnswerBook
from energyql.auditing.estimate import Estimate, Strata
from energyql.auditing.questions import QUERY, Answer
from energyql.auditing.report import Agreement, Audit, Frequency
from energyql.auditing.subject import Subject
from energyql.errors import DataError

_GUESS = {True: 1.0, False: 0.0, None: 0.5}
Labels = Mapping[int, tuple[bool, bool]]
"""Position of a picture -> the least and the largest answer of all people (false < true); two where they disagree."""


@dataclass(eq=False)
class Evidence:
    """The answers of all people about a subject; whoever asks, and who is asked next, plays no part."""

    subject: Subject
    book: AnswerBook

    @cached_property
    def orders(self) -> list[list[int]]:
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
    def fraction(self) -> float | None:
        """Pictures with an answer of yes or no, divided by the planned number; `None` if the width decides the end.

        It is also 1, the end of the audit, if people have looked at all pictures.
        """
        if self.book.plan.width is not None:
            return None
        whole = len(self.book.looked) == len(self.subject.pictures)
        return 1.0 if whole else len(self.labels(QUERY)) / self.book.plan.clicks

    @property
    def anytime(self) -> bool:
        """Whether intervals must be valid at whatever moment the audit ends, which makes them wider.

        False only if the plan was never changed, and the planned number of pictures, or all of them, were answered.
        """
        return self.book.plan.width is not None or not self.book.planned or self.fraction != 1

    def decisions(self, question: str) -> list[dict[int, bool]]:
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

    def labels(self, question: str) -> Labels:
        """The answers of all people to a question, as far as they are yes or no."""
        labels: dict[int, tuple[bool, bool]] = {}
        for decisions in self.decisions(question):
            for number, decision in decisions.items():
                least, most = labels.get(number, (decision, decision))
                labels[number] = min(least, decision), max(most, decision)
        return labels

    def strata(
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

    def estimate(self, groups: Sequence[Sequence[int]], labels: Labels, guess: Sequence[Answer] = ()) -> Estimate:
        """Estimated share of yes among the pictures of all strata.

        A picture about which people disagree counts as half a yes, and the interval covers both answers.
        """
        low = self.strata(groups, labels, 0, guess).estimate(anytime=self.anytime)
        if all(least == most for least, most in labels.values()):
            return low
        high = self.strata(groups, labels, 1, guess).estimate(anytime=self.anytime)
        return Estimate((low.share + high.share) / 2, low.low, high.high)

    def report(self) -> Audit:
        """Result of the audit: estimates for all pictures, computed from the answers so far.

        Raises:
            DataError: there is no picture for which somebody said yes or no.
        """
        pictures, labels, looked = self.subject.pictures, self.labels(QUERY), self.book.looked
        if not labels:
            why = f"of {len(looked)} pictures nobody could tell" if looked else "there are no answers yet"
            raise DataError(f"{self.subject.name} cannot be audited: {why}", hint="answer y or n for some pictures")
        verdicts = [picture.verdict for picture in pictures if picture.verdict is not None]
        errors: dict[bool, Estimate | None] = {True: None, False: None}
        for verdict in errors:
            groups = [order for order in self.orders if pictures[order[0]].verdict is verdict]
            wrong = {
                number: (not most, not least) if verdict else (least, most)
                for number, (least, most) in labels.items()
                if pictures[number].verdict is verdict
            }
            errors[verdict] = self.estimate(groups, wrong, [False] * len(groups)) if wrong else None
        return Audit(
            name=self.subject.name, pictures=len(pictures), looked=len(looked), decided=len(labels),
            share=self.estimate(self.orders, labels), anytime=self.anytime,
            accepted=sum(verdicts) if verdicts else None, judged=len(verdicts),
            false_yes=errors[True], false_no=errors[False], frequencies=self._frequencies(),
            people=[by for by, answers in self.book.people.items() if answers], agreements=self._agreements(),
        )  # fmt: skip

    def _frequencies(self) -> dict[str, Frequency]:
        """Condition -> how often it holds where a query has it; conditions without any answer are left out."""
        frequencies, count = {}, len(self.subject.pictures)
        conditions = {name for question in self.subject.questions.values() for name in question.conditions}
        for name in sorted(conditions):
            labels = self.labels(name)
            if not labels:
                continue
            readings = self.subject.readings.get(name, [None] * count)
            groups: dict[tuple[int, Answer], list[int]] = {}
            for place, order in enumerate(self.orders):
                for number in order:
                    if name in self.subject.questions[self.subject.pictures[number].query].conditions:
                        groups.setdefault((place, readings[number]), []).append(number)
            guess = [reading for _, reading in groups]
            read = [readings[number] for group in groups.values() for number in group]
            known = [value for value in read if value is not None]
            judged = sum(known) / len(known) if known else None
            estimate = self.estimate(list(groups.values()), labels, guess)
            frequencies[name] = Frequency(estimate, judged, len(read))
        return frequencies

    def _agreements(self) -> list[Agreement]:
        pairs = combinations(zip(self.book.people, self.decisions(QUERY), strict=True), 2)
        return [agreement for one, other in pairs if (agreement := Agreement.of(one, other)) is not None]
