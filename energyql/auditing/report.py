"""What an audit says: shares with intervals, errors of the judge, and the agreement of people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from energyql.auditing.estimate import Estimate


@dataclass(frozen=True)
class Frequency:
    """How often a condition holds.

    Attributes:
        share: share of the pictures for which it holds.
        judged: the same by the judge alone; `None` if the judge does not read the attribute.
        pictures: number of pictures whose query has the condition.
    """

    share: Estimate
    judged: float | None
    pictures: int


@dataclass(frozen=True)
class Agreement:
    """Agreement of two people on the pictures for which both said yes or no.

    Attributes:
        people: their names.
        pictures: number of these pictures.
        share: share of them with equal answers.
        kappa: Cohen's kappa, which is 1 for equal answers and 0 for those of chance; `None` if both gave one and the
            same answer for all pictures, because chance would agree as well.
    """

    people: tuple[str, str]
    pictures: int
    share: float
    kappa: float | None

    @classmethod
    def of(cls, one: tuple[str, Mapping[int, bool]], other: tuple[str, Mapping[int, bool]]) -> Agreement | None:
        """Return the agreement of two people, given as (name, picture -> answer); `None` if they share no picture."""
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
    """The result of an audit. `str` of it is one short text: "96.1 % (93.8 to 98.0)".

    Attributes:
        name: path of what was audited.
        pictures: number of all pictures.
        looked: number of pictures that people looked at.
        decided: number of those for which somebody said yes or no.
        share: share of all pictures that satisfy their query, with its 95 % interval.
        anytime: whether the intervals are valid at whatever moment the audit ends. If not, they are valid because the
            number of pictures was fixed before, and shorter.
        accepted: number of pictures that the judge accepts; `None` without a judge.
        judged: number of pictures with a verdict of the judge.
        false_yes: of the pictures that the judge accepts, the share that does not satisfy the query; `None` if no such
            picture was looked at.
        false_no: of the pictures that the judge rejects, the share that satisfies the query; `None` if no such picture
            was looked at.
        frequencies: text of each condition, such as "smile" -> its frequency; empty if only the query was asked.
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
        """Return a text of several lines: the share, the errors of the judge, frequencies, and agreement."""
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
            lines.append("frequencies of attributes were not asked; --attributes asks them")
        if left := self.looked - self.decided:
            lines.append(f"{left} could not be told: they are left out, and others took their place")
        for agreement in self.agreements:
            different = round((1 - agreement.share) * agreement.pictures)
            half = f"; the {different} others count half, and the interval covers both answers" if different else ""
            lines.append(f"{agreement}{half}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as values that JSON can hold; `text` is its short text."""
        return {"text": str(self), **asdict(self)}
