"""The quality of heads and judges on samples that took no part in their fit, and what counts as weak.

The description of a judge that a folder holds contains its report. The report on a judge that is code, and so not in
the folder, has a file of its own. Imports no torch, so that the command line can read reports quickly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from energyql.errors import ModelError
from energyql.files import DAMAGED_MODEL, fingerprint, read_json, write_json
from energyql.kinds import KINDS, Kind

REPORT = "report.json"
"""The file of the reports in a model folder."""
MARGIN = 0.05
"""The lower end of the interval of balanced accuracy must be this far above chance. A sampler looks for latents where a
head is certain, and where a head at chance is certain, it is wrong as often as right."""
LEAST_RECALL = 0.1
"""Least recall of every class. Where a head hardly ever recognises a class, latents that it takes for that class are
mostly its errors."""
LEAST_R2 = 0.1
"""The lower end of the interval of R2 must be at least this. Below it, the interval in which a value lies is hardly
narrower with the head than without it."""
LEAST_SKILL = 0.3
"""Least skill of a network that judges: 0 is chance, 1 is perfect. A verdict of less skill says little of a picture."""
_Z = 1.959964
"""Quantile of the standard normal for a two-sided interval of 95 %."""


@dataclass(frozen=True)
class HeadReport:
    """Quality of one head on held-out latents, or of a judge for one attribute on held-out pictures.

    Attributes:
        kind: kind of the attribute.
        fitted: number of labelled samples for fit, early stopping and calibration; 0 for a judge that was not trained
            here.
        held_out: number of labelled samples that only this report uses.
        labels: class -> number of its labels, fitted and held out; empty for a continuous attribute.
        score: balanced accuracy, the mean of the recalls of all classes; R2 for a continuous attribute. `None` where it
            is not defined, because nothing or not every class was held out.
        interval: 95 % interval of the score. Of balanced accuracy: Wilson intervals of the recalls, combined by
            Newcombe's square-and-add method. Of R2: delta method.
        recall: class -> (recall, lower and upper end of its 95 % Wilson interval), for the classes held out.
        calibration_error: mean distance between predicted probabilities (quantiles) and observed frequencies; `None`
            where nothing was held out, or a judge gives values without probabilities.
        details: further numbers, which `report.png` shows.
    """

    kind: Kind
    fitted: int
    held_out: int
    labels: Mapping[str, int]
    score: float | None
    interval: tuple[float, float] | None
    recall: Mapping[str, tuple[float, float, float]]
    calibration_error: float | None
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def measure(self) -> str:
        """Name of the score."""
        return KINDS[self.kind].measure

    @property
    def chance(self) -> float:
        """The score of a head that does not read its input."""
        return 0.0 if KINDS[self.kind].numeric else 1 / len(self.labels)

    @property
    def skill(self) -> float | None:
        """The score on a scale from 0 at chance to 1 where all is right; `None` where there is no score."""
        return None if self.score is None else (self.score - self.chance) / (1 - self.chance)

    @property
    def above_chance(self) -> bool:
        """Whether the interval of the score lies above chance."""
        return self.interval is not None and self.interval[0] > self.chance

    @property
    def judges(self) -> bool:
        """Whether a network of this quality may judge: `above_chance`, with at least `LEAST_SKILL`."""
        return self.skill is not None and self.above_chance and self.skill >= LEAST_SKILL

    @property
    def weak(self) -> str | None:
        """The reason why queries refuse the head unless its name is allowed; `None` if they accept it."""
        if self.score is None or self.interval is None:
            missing = [name for name in self.labels if name not in self.recall]
            return f"no label of {missing[0]!r} was held out" if self.held_out and missing else "its quality is unknown"
        if KINDS[self.kind].numeric:
            return f"{self} is not clearly above {LEAST_R2:g}" if self.interval[0] < LEAST_R2 else None
        if self.interval[0] < self.chance + MARGIN:
            return f"{self} is not clearly above chance, {self.chance:.2f}"
        poor = [name for name, (recall, _, _) in self.recall.items() if recall < LEAST_RECALL]
        return f"it recognises only {100 * self.recall[poor[0]][0]:.0f} % of {poor[0]!r}" if poor else None

    def __repr__(self) -> str:
        """Return the score with its interval, such as `balanced accuracy 0.86 (0.75 to 0.93)`."""
        if self.score is None or self.interval is None:
            return f"{self.measure} unknown"
        return f"{self.measure} {self.score:.2f} ({self.interval[0]:.2f} to {self.interval[1]:.2f})"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HeadReport:
        """Read a report from its JSON values.

        Raises:
            KeyError, TypeError, ValueError: a field is missing or wrong.
        """
        report = cls(**{part.name: data[part.name] for part in fields(cls)})
        if report.kind not in KINDS:
            raise ValueError(f"there is no kind {report.kind!r}")
        low, high = (math.nan, math.nan) if report.interval is None else map(float, report.interval)
        recall = {str(name): (float(r), float(low), float(high)) for name, (r, low, high) in report.recall.items()}
        labels = {str(name): int(count) for name, count in report.labels.items()}
        if not KINDS[report.kind].numeric and len(labels) < 2:
            raise ValueError("an attribute has at least two classes")
        score = None if report.score is None else float(report.score)
        return cls(
            report.kind, int(report.fitted), int(report.held_out), labels, score,
            None if report.interval is None else (low, high), recall,
            report.calibration_error, dict(report.details),
        )  # fmt: skip


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927); `trials` is at least 1."""
    share, weight = successes / trials, _Z**2 / trials
    middle = share + weight / 2
    spread = _Z * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return max(0.0, (middle - spread) / (1 + weight)), min(1.0, (middle + spread) / (1 + weight))


def balanced(confusion: Sequence[Sequence[int]]) -> tuple[float, tuple[float, float]]:
    """Return balanced accuracy and its 95 % interval, by Newcombe's square-and-add of the Wilson intervals.

    Args:
        confusion: counts, a row for each label and a column for each prediction; every row has a count above 0.
    """
    pairs = [(row[i], sum(row)) for i, row in enumerate(confusion)]
    recalls = [hits / count for hits, count in pairs]
    limits = [wilson(hits, count) for hits, count in pairs]
    count, score = len(pairs), sum(recalls) / len(pairs)
    below = math.sqrt(sum((r - low) ** 2 for r, (low, _) in zip(recalls, limits, strict=True))) / count
    above = math.sqrt(sum((high - r) ** 2 for r, (_, high) in zip(recalls, limits, strict=True))) / count
    return score, (score - below, score + above)


def explained(errors: Sequence[float], labels: Sequence[float]) -> tuple[float, tuple[float, float]] | None:
    """Return R2, 1 - mean squared error / variance, and its 95 % interval by the delta method.

    Args:
        errors: label minus prediction, one a sample.
        labels: one a sample.

    Returns:
        `None` if there are fewer than three samples, or all labels are equal.
    """
    count, mean = len(labels), sum(labels) / max(1, len(labels))
    squares = [(label - mean) ** 2 for label in labels]
    variance = sum(squares) / max(1, count)
    if count < 3 or not variance > 0:
        return None
    unexplained = sum(error**2 for error in errors) / count / variance
    influence = [(e**2 - unexplained * square) / variance for e, square in zip(errors, squares, strict=True)]
    spread = _Z * math.sqrt(sum(value**2 for value in influence) / (count - 1) / count)
    return 1 - unexplained, (1 - unexplained - spread, min(1.0, 1 - unexplained + spread))


def write_reports(folder: Path, reports: Mapping[str, HeadReport]) -> None:
    """Write the reports of the heads in a folder, which are written already; remove old reports if there are none."""
    if not reports:
        (folder / REPORT).unlink(missing_ok=True)
        return
    heads = fingerprint(folder / "attributes.safetensors")
    write_json(folder / REPORT, {"heads": heads, "attributes": report_entries(reports)})


def report_entries(reports: Mapping[str, HeadReport]) -> dict[str, dict[str, Any]]:
    """Return reports as JSON values, by attribute; `reports_of` is the inverse."""
    return {name: asdict(report) | {"measure": report.measure, "weak": report.weak} for name, report in reports.items()}


def reports_of(entries: Mapping[str, Any], path: Path) -> dict[str, HeadReport]:
    """Read reports from the JSON values of a file.

    Raises:
        ModelError: a value is missing or wrong; the message names the file.
    """
    try:
        return {str(name): HeadReport.from_dict(entry) for name, entry in entries.items()}
    except KeyError as error:
        raise ModelError(f"{path}: {error} is missing", hint=DAMAGED_MODEL) from None
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: {error}", hint=DAMAGED_MODEL) from error


def read_reports(folder: Path) -> dict[str, HeadReport]:
    """Read the reports of the heads in a folder; those of other heads, or of another form, count as missing.

    Raises:
        ModelError: the file is damaged.
    """
    path, heads = folder / REPORT, folder / "attributes.safetensors"
    data = read_json(path) if path.is_file() and heads.is_file() else {}
    if "heads" not in data or data["heads"] != fingerprint(heads):
        return {}
    if "attributes" not in data:
        raise ModelError(f"{path}: 'attributes' is missing", hint=DAMAGED_MODEL)
    return reports_of(data["attributes"], path)


FIRST = "judge"
"""Name of the files of the first judge of a folder; the others are "judge-2", "judge-3" and so on."""
READER = "reader"
"""Name of the files of a network that reads pictures in the place of heads, of its entry in `vocabulary.json`, and of
the argument that takes its place; see `PictureBank`."""
GIVEN = "judge_report.json"
"""The file of the report on a judge that a folder does not hold."""


@dataclass(frozen=True)
class JudgeReport:
    """The quality of one judge.

    Attributes:
        name: name of its files in the folder, or of its code.
        attributes: attribute that the judge reads -> its quality; `None` where it was not measured. Of code, the
            attributes that were measured.
        mark: digest of the code, see `judge_mark`; "" for a judge that the folder holds.
    """

    name: str
    attributes: Mapping[str, HeadReport | None] = field(default_factory=dict)
    mark: str = ""

    @property
    def measured(self) -> dict[str, HeadReport]:
        """The attributes that were measured."""
        return {name: report for name, report in self.attributes.items() if report is not None}


def judge_names(folder: Path) -> list[str]:
    """Return the names of the judges that a folder holds, the oldest first."""
    matches = (re.fullmatch(r"judge(?:-([1-9][0-9]{0,3}))?", path.stem) for path in folder.glob("judge*.json"))
    return [judge_name(number) for number in sorted(int(match[1] or 1) for match in matches if match)]


def judge_name(number: int) -> str:
    """Return the name of the files of a judge, counted from 1."""
    return FIRST if number == 1 else f"{FIRST}-{number}"


def describe_reports(folder: Path, name: str, reports: Mapping[str, HeadReport]) -> dict[str, Any]:
    """Return the reports on a judge as an entry of its description; the folder must hold its weights."""
    if not reports:
        return {}
    return {"report": {"weights": fingerprint(_weights(folder, name)), "attributes": report_entries(reports)}}


def described_reports(folder: Path, name: str, description: Mapping[str, Any]) -> dict[str, HeadReport]:
    """Return the reports in the description of a judge; none if they are on other weights, or have another form.

    Raises:
        ModelError: the description is damaged.
    """
    entry, weights = description.get("report"), _weights(folder, name)
    if not isinstance(entry, dict) or not isinstance(entry.get("attributes"), dict) or not weights.is_file():
        return {}
    if entry.get("weights") != fingerprint(weights):
        return {}
    return reports_of(entry["attributes"], folder / f"{name}.json")


def read_guide_reports(folder: Path) -> dict[str, HeadReport]:
    """Read the reports on the heads of a folder, or on the network that reads pictures in their place.

    Raises:
        ModelError: a file is damaged.
    """
    path = folder / f"{READER}.json"
    return described_reports(folder, READER, read_json(path)) if path.is_file() else read_reports(folder)


def read_judge_reports(folder: Path, given: object = None) -> list[JudgeReport]:
    """Return the quality of the judges of a folder, without running any code.

    Args:
        folder: a model folder.
        given: name of the judge that takes the place of those in the folder, if its configuration has one.

    Raises:
        ModelError: a file is damaged.
    """
    stored = read_given(folder)
    if isinstance(given, str):
        return [stored if stored is not None and stored.name == given else JudgeReport(given)]
    found = []
    for name in judge_names(folder):
        path = folder / f"{name}.json"
        description = read_json(path)
        try:
            names = [str(entry["name"]) for entry in description["vocabulary"]["attributes"]]
        except (KeyError, TypeError) as error:
            raise ModelError(f"{path}: {error} is missing or damaged", hint=DAMAGED_MODEL) from None
        reports = described_reports(folder, name, description)
        found.append(JudgeReport(f"{name}.safetensors", {attribute: reports.get(attribute) for attribute in names}))
    return found if stored is None else [*found, stored]


def read_given(folder: Path) -> JudgeReport | None:
    """Return the report on a judge that the folder does not hold, if there is one.

    Raises:
        ModelError: the file is damaged.
    """
    path = folder / GIVEN
    if not path.is_file():
        return None
    data = read_json(path)
    try:
        name, mark, entries = str(data["judge"]), str(data["mark"]), dict(data["attributes"])
    except KeyError as error:
        raise ModelError(f"{path}: {error} is missing", hint=DAMAGED_MODEL) from None
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path}: {error}", hint=DAMAGED_MODEL) from error
    return JudgeReport(name, reports_of(entries, path), mark)


def replace_given(folder: Path, names: Iterable[str], report: JudgeReport | None) -> None:
    """Replace the reports on a judge that the folder does not hold, for the attributes `names`, by those of `report`.

    Reports on other attributes stay if they are about the same judge, or if `report` is `None`.
    """
    old, taken = read_given(folder), set(names)
    others = {}
    if old is not None and (report is None or (old.name, old.mark) == (report.name, report.mark)):
        others = {name: each for name, each in old.measured.items() if name not in taken}
    now = report or old
    entries = others | ({} if report is None else report.measured)
    if now is None or not entries:
        (folder / GIVEN).unlink(missing_ok=True)
    else:
        write_json(folder / GIVEN, {"judge": now.name, "mark": now.mark, "attributes": report_entries(entries)})


def _weights(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"
