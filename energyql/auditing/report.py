"""The result of an audit: estimated shares with intervals, errors of the judge, and the agreement of people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from energyql.auditing.estimate import Estimate


@dataclass(frozen=True)
class Frequency:
    """How often one condition of queries, such as "hair = red", holds in the audited pictures.

    Attributes:
        share: estimated share of the pictures for which the condition holds.
        judged: the same share by the judge alone, 0 to 1; `None` if the judge does not read the attribute.
        pictures: number of pictures whose query has the condition; other pictures do not count.
    """

    share: Estimate
    judged: float | None
    pictures: int


@dataclass(frozen=True)
class Agreement:
    """How well two people agree on the pictures for which both said yes or no.

    Attributes:
        pictures: number of these pictures.
        share: share of these pictures for which the two answers are equal, 0 to 1.
        kappa: Cohen's kappa: 1 if all answers are equal, 0 if they agree no more often than by chance; `None`, as it is
            not defined, if both people gave the same answer for all pictures.
    """

    people: tuple[str, str]
    pictures: int
    share: float
    kappa: float | None

    @classmethod
    def of(cls, one: tuple[str, Mapping[int, bool]], other: tuple[str, Mapping[int, bool]]) -> Agreement | None:
        """Agreement of two people, each a name and a dict from pictures to answers; `None` without a common picture."""
        shared = one[1].keys() & other[1].keys()
        if not shared:
            return None
        equal = sum(one[1][key] == other[1][key] for key in shared) / len(shared)
        first, second = (sum(answers[key] for key in shared) / len(shared) for answers in (one[1], other[1]))
        chance = first * second + (1 - first) * (1 - second)
        return cls((one[0], other[0]), len(shared), equal, None if chance == 1 else (equal - chance) / (1 - chance))

    def __str__(self) -> str:
        kappa = "" if self.kappa is None else f", kappa {self.kappa:.2f}"
        return f"{' and '.join(self.people)} agree on {100 * self.share:.0f} % of {self.pictures} pictures{kappa}"


@dataclass(frozen=True)
class Audit:
    """The result of an audit. `str(audit)` is the share with its interval, such as "96.1 % (93.8 to 98.0)".

    Attributes:
        name: path of what was audited.
        pictures: number of all pictures.
        looked: number of pictures that people looked at.
        decided: number of pictures for which somebody said yes or no.
        share: estimated share of all pictures that satisfy their query, with its 95 % interval.
        anytime: whether the intervals are valid at whatever moment the audit ends. If false, they are shorter, and
            valid because the number of pictures was fixed in advance.
        accepted: number of pictures that satisfy their query according to the judge; `None` without a judge.
        judged: number of pictures with a verdict of the judge.
        false_yes: of the pictures that the judge accepts, the estimated share that does not satisfy the query; `None`
            if people decided about no such picture.
        false_no: of the pictures that the judge rejects, the estimated share that satisfies the query, or `None`.
        frequencies: text of a condition -> how often it holds; empty if people were asked only about the whole query.
        people: names of the people who answered.
        agreements: agreement of each pair of people.
    """

    name: str
    pictures: int
    looked: int
    decided: int
    share: Estimate
    anytime: bool
    accepted: int | None
    judged: int
    false_yes: Estimate | None
    false_no: Estimate | None
    frequencies: Mapping[str, Frequency]
    people: Sequence[str]
    agreements: Sequence[Agreement]

    def __str__(self) -> str:
        return str(self.share)

    def summary(self) -> str:
        """Text of several lines: the share, the errors of the judge, frequencies, and agreement."""
        many = f"{self.decided:,} of {self.pictures:,} pictures"
        lines = [f"audited: {self} satisfy the query; {many} were looked at"]
        if self.anytime:
            lines.append("intervals are valid whenever the audit ends; those of a finished fixed number are shorter")
        if self.accepted is None:
            lines.append("no judge read the pictures, so the interval is that of the answers alone")
        else:
            lines.append(f"the judge accepts {100 * self.accepted / self.judged:.1f} %")
            rejected = self.judged - self.accepted
            for count, wrong, what in (
                (self.accepted, self.false_yes, ("accepts", "does not satisfy")),
                (rejected, self.false_no, ("rejects", "satisfies")),
            ):
                if count:
                    share = "an unknown share" if wrong is None else str(wrong)
                    lines.append(f"of the {count:,} that the judge {what[0]}, {share} {what[1]} the query")
        for name, frequency in self.frequencies.items():
            judge = "" if frequency.judged is None else f"; by the judge {100 * frequency.judged:.1f} %"
            lines.append(f"{name}: {frequency.share}{judge}")
        if not self.frequencies:
            lines.append("frequencies of attributes were not asked")
        if left := self.looked - self.decided:
            lines.append(f"{left} could not be told: they are left out, and others took their place")
        for agreement in self.agreements:
            different = round((1 - agreement.share) * agreement.pictures)
            half = f"; the {different} others count half, and the interval covers both answers" if different else ""
            lines.append(f"{agreement}{half}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Attributes as a dict of JSON values; the entry `text` is `str` of the audit."""
        return {"text": str(self), **asdict(self)}
