"""Reports on the quality of heads and judges on held-out samples, and the limits below which a head is too weak to use.

A head predicts an attribute from latents, a judge from pictures. Reports on heads are in `report.json` of a model
folder. A judge is either a network in the model folder, or code outside the folder. A report on a network is in the
JSON file of the network, such as `judge.json`; a report on code is in `judge_report.json`. This module does not import
torch, so that the command line can read reports quickly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from energyql.errors import ModelError, VocabularyError
from energyql.files import DAMAGED_MODEL, fingerprint, read_json, write_json
from energyql.kinds import KINDS, Kind

REPORT = "report.json"
"""The file in a model folder with the reports on its heads."""
MARGIN = 0.05
"""A head is good enough if the lower end of the 95 % interval of its AUC is above 0.5 + `MARGIN`; 0.5 is the AUC of a
head that guesses. Without a margin, a head that guesses passes in 2.2 to 2.7 % of the trainings, so in more than a
third of the trainings of 20 such heads one passes. With the margin, it passes in 1 % if 3 samples of the class are held
out, in 0.3 % with 14, and in 0.05 % with 50. In reports without AUC, the lower end of the interval of the balanced
accuracy must be `MARGIN` above chance."""
LEAST_RECALL = 0.1
"""Least recall that a head must have for every class, if its report has no AUC."""
LEAST_R2 = 0.1
"""A head of a continuous attribute is good enough if the lower end of the 95 % interval of its R2 is at least this.
Below it, a value is hardly known better with the head's prediction than without."""
WEAK_HELP = (
    "more labels (energyql sample --unsure draws the pictures), a teacher (labels in a table with the numbers of "
    "pictures), --space picture (a network that reads pictures in place of heads)"
)
"""Text for users: what to do if the head of an attribute is too weak."""
LEAST_SKILL = 0.3
"""Least skill that a judge of pictures must have, on a scale where 0 is chance and 1 is perfect."""
_Z = 1.959964
"""Quantile of the standard normal for a two-sided interval of 95 %."""


Interval = tuple[float, float, float]
"""An estimate, and the lower and upper end of its 95 % interval."""


@dataclass(frozen=True, repr=False)
class Ranking:
    """How well a head ranks held-out samples by its probability of one class.

    A head of a rare class may never predict it as the likeliest class, and still rank the samples of the class first.
    Its recall is then 0, but a sampler, which goes by the probability, is guided well.

    Attributes:
        auc: area under the ROC curve: the probability that the head ranks a random sample of the class above a random
            sample of the others, in [0, 1]; 0.5 is chance. The interval is that of Wilson for an effective number of
            samples, which is computed from DeLong's variance.
        precision: share of the class, in [0, 1], among held-out samples whose weights are the head's probabilities of
            the class. It estimates the share of the class among samples that are drawn for it under the head. The
            interval is that of Wilson for an effective number of samples.
        prevalence: share of the class among all held-out samples, in (0, 1).
    """

    auc: Interval
    precision: Interval
    prevalence: float

    @property
    def lift(self) -> Interval:
        """Precision / prevalence: how much the frequency of the class grows if samples are drawn for the class.

        The frequency among samples drawn for the class is divided by that among all held-out samples. The interval is
        the interval of the precision, divided by the prevalence.
        """
        share, low, high = self.precision
        return share / self.prevalence, low / self.prevalence, high / self.prevalence

    def __str__(self) -> str:
        """Return AUC and lift, such as `AUC 0.95 (0.84 to 0.99), lift 28 (19 to 36)`."""
        lift, *ends = (f"{value:.1f}" if value < 10 else f"{value:.0f}" for value in self.lift)
        return f"{auc_text(self.auc)}, lift {lift} ({' to '.join(ends)})"

    def __repr__(self) -> str:
        """Return AUC, lift, precision and prevalence, ending in `precision 0.62 (0.41 to 0.79), prevalence 0.02`."""
        return f"{self}, precision {_with_ends(self.precision)}, prevalence {self.prevalence:.2g}"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Ranking:
        """Make a ranking from JSON values.

        Raises:
            KeyError, TypeError, ValueError: a value is missing or wrong.
        """
        prevalence = float(data["prevalence"])
        if not 0 < prevalence < 1:
            raise ValueError(f"a prevalence is between 0 and 1, not {prevalence:g}")
        return cls(_interval(data["auc"]), _interval(data["precision"]), prevalence)


def auc_text(auc: Interval) -> str:
    """Return an AUC with its interval as text, such as `AUC 0.95 (0.84 to 0.99)`."""
    return f"AUC {_with_ends(auc)}"


def _with_ends(values: Interval) -> str:
    return f"{values[0]:.2f} ({values[1]:.2f} to {values[2]:.2f})"


def _interval(values: Sequence[Any]) -> Interval:
    value, low, high = values
    return float(value), float(low), float(high)


@dataclass(frozen=True, repr=False)
class HeadReport:
    """Quality of one head on held-out latents, or of a judge for one attribute on held-out pictures.

    Attributes:
        kind: kind of the attribute.
        fitted: number of labelled samples that were used for fit, early stopping and calibration, besides `held_out`;
            0 for a judge that was not trained by this package.
        held_out: number of labelled samples on which the quality is measured. Networks that learned from a sample do
            not take part in its prediction; others may have learned from it (cross-fitting).
        labels: class -> number of labels of that class among all labelled samples; empty for a continuous attribute.
        score: R2 for a continuous attribute; else the balanced accuracy, which is the mean of the recalls of all
            classes. `None` if the score is not defined, because no sample, or no sample of some class, was held out.
        interval: ends of the 95 % interval of the score; `None` if the score is `None`. The interval of a balanced
            accuracy combines the Wilson intervals of the recalls by Newcombe's square-and-add method. The interval of
            R2 is computed by the delta method.
        recall: class -> (recall, lower end, upper end of the 95 % Wilson interval), for classes with held-out samples.
            The recall is the share of samples of a class for which the class is predicted.
        calibration_error: mean distance between predicted probabilities and observed frequencies, in [0, 1]. For a
            continuous attribute, the probabilities are those of quantiles. `None` if no sample was held out, or a judge
            returns values without probabilities.
        details: further numbers, which are drawn in the picture `report.png`.
        ranking: class -> how well the head ranks by its probability of the class, for classes with held-out samples,
            if there are samples of other classes too. For a yes/no attribute, the only class is "yes". Empty for a
            continuous attribute, for a judge that returns values without probabilities, and in reports of earlier
            versions.
        correlation: Spearman's rank correlation of predictions and labels of a continuous attribute, and the ends of
            its 95 % interval; `None` for other kinds, for fewer than four samples, and in reports of earlier versions.
    """

    kind: Kind
    fitted: int
    held_out: int
    labels: Mapping[str, int]
    score: float | None
    interval: tuple[float, float] | None
    recall: Mapping[str, tuple[float, float, float]]
    calibration_error: float | None
    details: Mapping[str, Any] = field(default_factory=dict)
    ranking: Mapping[str, Ranking] = field(default_factory=dict)
    correlation: Interval | None = None

    @property
    def auc(self) -> Interval | None:
        """Mean of the AUC over all classes in `ranking`, with the means of the ends of the intervals.

        `None` if `ranking` is empty.
        """
        columns = zip(*(each.auc for each in self.ranking.values()), strict=True)
        return _interval([sum(column) / len(column) for column in columns]) if self.ranking else None

    @property
    def measure(self) -> str:
        """Name of the score: "balanced accuracy" or "R2"."""
        return KINDS[self.kind].measure

    @property
    def chance(self) -> float:
        """The score of a head that ignores its input: 1 / number of classes for balanced accuracy, 0 for R2."""
        return 0.0 if KINDS[self.kind].numeric else 1 / len(self.labels)

    @property
    def skill(self) -> float | None:
        """The score on a scale where 0 is chance and 1 is perfect; `None` if there is no score."""
        return None if self.score is None else (self.score - self.chance) / (1 - self.chance)

    @property
    def above_chance(self) -> bool:
        """Whether the whole 95 % interval of the score is above `chance`; false if there is no score."""
        return self.interval is not None and self.interval[0] > self.chance

    @property
    def judges(self) -> bool:
        """Whether the quality is good enough for a judge of pictures.

        The whole 95 % interval of the score must be above chance, and `skill` at least `LEAST_SKILL`, which is 0.3.
        """
        return self.skill is not None and self.above_chance and self.skill >= LEAST_SKILL

    @property
    def weak(self) -> str | None:
        """Why the head is too weak for queries, as text for users; `None` if it is good enough.

        A head for classes is weak if it ranks badly: the lower end of the interval of `auc` is not more than `MARGIN`
        above 0.5, or the AUC of one class is not more than `MARGIN` above 0.5. A head for numbers is weak if the lower
        end of the interval of R2 is below `LEAST_R2`. In reports without AUC, a head is weak if the lower end of the
        interval of its balanced accuracy is less than `MARGIN` above chance, or its recall of one class is below
        `LEAST_RECALL`.

        Queries refuse a weak head unless the user allows it.
        """
        if self.score is None or self.interval is None:
            missing = [name for name in self.labels if name not in self.recall]
            return f"no label of {missing[0]!r} was held out" if self.held_out and missing else "its quality is unknown"
        if KINDS[self.kind].numeric:
            return f"{self} is not clearly above {LEAST_R2:g}" if self.interval[0] < LEAST_R2 else None
        if self.auc is not None:
            if self.auc[1] <= 0.5 + MARGIN:
                mean = "mean " if len(self.ranking) > 1 else ""
                return f"{mean}{auc_text(self.auc)} is not clearly above {0.5 + MARGIN:.2f} (chance is 0.50)"
            bad = [name for name, each in self.ranking.items() if each.auc[0] <= 0.5 + MARGIN]
            return f"for {bad[0]!r}, {auc_text(self.ranking[bad[0]].auc)} is hardly above chance, 0.50" if bad else None
        if self.interval[0] < (least := self.chance + MARGIN):
            return f"{self} is not clearly above {least:.2f} (chance is {self.chance:.2f})"
        poor = [name for name, (recall, _, _) in self.recall.items() if recall < LEAST_RECALL]
        return f"it recognises only {100 * self.recall[poor[0]][0]:.0f} % of {poor[0]!r}" if poor else None

    @property
    def counts(self) -> str:
        """The numbers of labels as text for users, such as `measured on 150 of 300 labels`."""
        return f"measured on {self.held_out:,} of {self.fitted + self.held_out:,} labels"

    def __str__(self) -> str:
        """Return the score with its interval, such as `balanced accuracy 0.86 (0.75 to 0.93)`."""
        if self.score is None or self.interval is None:
            return f"{self.measure} unknown"
        return f"{self.measure} {_with_ends((self.score, *self.interval))}"

    def __repr__(self) -> str:
        """Return the score, and how well the head ranks, in one line."""
        return "; ".join([str(self), *self.rankings()])

    @property
    def ranking_text(self) -> str:
        """How well the head ranks, in a few words.

        AUC and lift for a yes/no attribute, the mean AUC for a categorical one, the rank correlation for a continuous
        one; "" if none was measured.
        """
        if self.auc is not None and len(self.ranking) > 1:
            return f"mean {auc_text(self.auc)}"
        return str(next(iter(self.ranking.values()))) if self.ranking else "".join(self.rankings())

    def rankings(self) -> list[str]:
        """Return lines of text on how well the head ranks: one for each class of `ranking`, or the rank correlation.

        [] if neither was measured.
        """
        if self.correlation is not None:
            return [f"rank correlation {_with_ends(self.correlation)}"]
        return [f"{name}: {each!r}" for name, each in self.ranking.items()]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HeadReport:
        """Make a report from JSON values: the entry of one attribute in the result of `report_entries`.

        Raises:
            KeyError, AttributeError, TypeError, ValueError, OverflowError: a value is missing or wrong.
        """
        kind, labels = data["kind"], {str(name): int(count) for name, count in data["labels"].items()}
        if kind not in KINDS:
            raise ValueError(f"there is no kind {kind!r}")
        if not KINDS[kind].numeric and len(labels) < 2:
            raise ValueError("an attribute has at least two classes")
        score, interval = data["score"], data["interval"]
        low, high = interval or (math.nan, math.nan)
        return cls(
            kind, int(data["fitted"]), int(data["held_out"]), labels, None if score is None else float(score),
            None if interval is None else (float(low), float(high)),
            {str(name): (float(share), float(low), float(high)) for name, (share, low, high) in data["recall"].items()},
            data["calibration_error"], dict(data["details"]),
            {str(name): Ranking.from_dict(each) for name, each in data.get("ranking", {}).items()},
            None if data.get("correlation") is None else _interval(data["correlation"]),
        )  # fmt: skip


def wilson(successes: float, trials: float) -> tuple[float, float]:
    """Return the ends of the 95 % interval (Wilson 1927) of a share, estimated as successes / trials.

    `trials` is above 0; it need not be whole, because an effective number of samples is not.
    """
    share, weight = successes / trials, _Z**2 / trials
    middle = share + weight / 2
    spread = _Z * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return max(0.0, (middle - spread) / (1 + weight)), min(1.0, (middle + spread) / (1 + weight))


def balanced(confusion: Sequence[Sequence[int]]) -> tuple[float, tuple[float, float]]:
    """Return the balanced accuracy (the mean of the recalls of all classes), and the ends of its 95 % interval.

    The interval combines the Wilson intervals of the recalls by Newcombe's square-and-add method.

    Args:
        confusion: numbers of samples, with a row for each labelled class and a column for each predicted class. No row
            is all 0.
    """
    pairs = [(row[i], sum(row)) for i, row in enumerate(confusion)]
    recalls = [hits / count for hits, count in pairs]
    limits = [wilson(hits, count) for hits, count in pairs]
    count, score = len(pairs), sum(recalls) / len(pairs)
    below = math.sqrt(sum((r - low) ** 2 for r, (low, _) in zip(recalls, limits, strict=True))) / count
    above = math.sqrt(sum((high - r) ** 2 for r, (_, high) in zip(recalls, limits, strict=True))) / count
    return score, (score - below, score + above)


def explained(errors: Sequence[float], labels: Sequence[float]) -> tuple[float, tuple[float, float]] | None:
    """Return R2 (1 - mean squared error / variance of the labels), and the ends of its 95 % interval.

    The interval is computed by the delta method.

    Args:
        errors: label minus prediction, for each sample.
        labels: the label of each sample.

    Returns:
        A pair (R2, (lower end, upper end)); `None` if there are fewer than three samples, or all labels are equal.
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


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Convert errors inside a `with` statement, which reads the file `path`, to a `ModelError` that names the file.

    Errors such as `KeyError`, `TypeError`, `ValueError` and `ModelError` are converted: the block raises them if values
    in the file are missing or wrong.
    """
    try:
        yield
    except KeyError as error:
        raise ModelError(f"{path}: {error} is missing", hint=DAMAGED_MODEL) from None
    except (AttributeError, TypeError, ValueError, RuntimeError, OverflowError, VocabularyError, ModelError) as error:
        raise ModelError(f"{path}: {error}", hint=DAMAGED_MODEL) from error


def write_reports(folder: Path, reports: Mapping[str, HeadReport]) -> None:
    """Write the reports on the heads of a model folder, by attribute, to `report.json`; for {}, delete the file.

    The heads must be in the folder already, because a digest of their file is written too. By it, `read_reports` finds
    out whether the reports are about the heads in the folder.
    """
    if not reports:
        (folder / REPORT).unlink(missing_ok=True)
        return
    heads = fingerprint(folder / "attributes.safetensors")
    write_json(folder / REPORT, {"heads": heads, "attributes": report_entries(reports)})


def report_entries(reports: Mapping[str, HeadReport]) -> dict[str, dict[str, Any]]:
    """Return reports, by attribute, as JSON values for a file; `reports_of` converts them to reports again."""
    return {name: asdict(report) | {"measure": report.measure, "weak": report.weak} for name, report in reports.items()}


def reports_of(data: Mapping[str, Any], path: Path) -> dict[str, HeadReport]:
    """Return the reports, by attribute, that `report_entries` converted to JSON values.

    Args:
        data: a dict with the JSON values under the key "attributes".
        path: the file from which `data` was read, for messages.

    Raises:
        ModelError: a value is missing or wrong; the message names the file.
    """
    with naming_damage(path):
        return {str(name): HeadReport.from_dict(entry) for name, entry in data["attributes"].items()}


def read_reports(folder: Path) -> dict[str, HeadReport]:
    """Read the reports on the heads of a model folder, by attribute.

    Returns:
        The reports; {} if `report.json` is missing, or does not say which heads it is about, or is about other heads
        than the folder has now.

    Raises:
        ModelError: `report.json` is damaged.
    """
    path, heads = folder / REPORT, folder / "attributes.safetensors"
    data = read_json(path) if path.is_file() and heads.is_file() else {}
    return reports_of(data, path) if _is_about(heads, data.get("heads")) else {}


def _is_about(weights: Path, mark: object) -> bool:
    """Return whether reports that were stored with a fingerprint `mark` are about the present file `weights`."""
    return mark is not None and weights.is_file() and fingerprint(weights) == mark


FIRST, VERIFIER = "judge", "verifier"
"""Names, without suffix, of the files of the first judge in a model folder, and of the first network of the verifier,
the networks that decide from pictures which samples are kept. The files of further networks are "judge-2", "judge-3",
"verifier-2", "verifier-3" and so on."""
READER = "reader"
"""Name, without suffix, of the files of a network that predicts attributes from pictures, in a model without heads. If
the model has code for this purpose, `vocabulary.json` has the name of the code under the key "reader"."""
GIVEN = "judge_report.json"
"""The file in a model folder with the report on a judge that is code, and not a network in the folder."""


@dataclass(frozen=True)
class JudgeReport:
    """The quality of one judge (a network or code that predicts attributes from pictures).

    Attributes:
        name: file name of the network, such as "judge.safetensors"; or the name of the code, such as "my_code:look"; or
            "verifier" for all networks of the verifier together.
        attributes: attribute -> quality of the judge for this attribute; `None` if the quality was not measured. For
            code, attributes that were not measured are missing.
        mark: digest of name, source and weights of the code, to find out whether the code has changed since; "" for a
            network.
    """

    name: str
    attributes: Mapping[str, HeadReport | None] = field(default_factory=dict)
    mark: str = ""

    @property
    def measured(self) -> dict[str, HeadReport]:
        """The reports by attribute, without the attributes for which the quality was not measured."""
        return {name: report for name, report in self.attributes.items() if report is not None}


def judge_names(folder: Path, first: str = FIRST) -> list[str]:
    """Return the names of the networks in a model folder that are judges, in ascending order: "judge", "judge-2" ...

    With `VERIFIER` as `first`, they are the networks of the verifier, which decide from pictures which samples are
    kept: "verifier", "verifier-2" ...
    """
    matches = (re.fullmatch(rf"{first}(?:-([1-9][0-9]{{0,3}}))?", path.stem) for path in folder.glob(f"{first}*.json"))
    return [judge_name(number, first) for number in sorted(int(match[1] or 1) for match in matches if match)]


def judge_name(number: int, first: str = FIRST) -> str:
    """Return the file name, without suffix, of judge `number`: "judge" for 1, "judge-2" for 2, and so on.

    `first` is the name for 1: `FIRST`, or `VERIFIER` for a network of the verifier, which decides from pictures which
    samples are kept.
    """
    return first if number == 1 else f"{first}-{number}"


def describe_reports(folder: Path, name: str, reports: Mapping[str, HeadReport]) -> dict[str, Any]:
    """Return the reports on a judge that is a network, as JSON values for the file `<name>.json` of the judge.

    The values include a digest of the weights in `<name>.safetensors`, so this file must exist. By the digest,
    `described_reports` finds out whether the reports are about these weights.

    Args:
        folder: the model folder.
        name: file name of the judge, without suffix.
        reports: the reports, by attribute; if there are none, {} is returned.
    """
    if not reports:
        return {}
    weights = folder / f"{name}.safetensors"
    return {"report": {"weights": fingerprint(weights), "attributes": report_entries(reports)}}


def described_reports(folder: Path, name: str, description: Mapping[str, Any]) -> dict[str, HeadReport]:
    """Return the reports, by attribute, on a judge that is a network.

    Args:
        folder: the model folder.
        name: file name of the judge, without suffix.
        description: the contents of the file `<name>.json`.

    Returns:
        The reports; {} if `description` has none, or has them in another form than `describe_reports` returns, or if
        they are about other weights than the folder has now.

    Raises:
        ModelError: a report is damaged.
    """
    entry, weights = description.get("report"), folder / f"{name}.safetensors"
    if not isinstance(entry, dict) or not isinstance(entry.get("attributes"), dict):
        return {}
    return reports_of(entry, folder / f"{name}.json") if _is_about(weights, entry.get("weights")) else {}


def read_guide_reports(folder: Path) -> dict[str, HeadReport]:
    """Return the reports, by attribute, on the networks whose predictions guide the sampler of a model.

    If the model folder has a network that predicts attributes from pictures (`reader.json`), the reports are about this
    network, else about the heads.

    Raises:
        ModelError: a file is damaged.
    """
    path = folder / f"{READER}.json"
    return described_reports(folder, READER, read_json(path)) if path.is_file() else read_reports(folder)


def read_judge_reports(folder: Path, given: object = None) -> list[JudgeReport]:
    """Read the reports on all judges of a model folder, without loading a judge.

    Args:
        folder: the model folder.
        given: value of "judge" in `config.json`: the name of code that is used as the only judge; or `None` if the
            judges are the networks in the folder, and the code that `judge_report.json` is about.

    Raises:
        ModelError: a file is damaged.
    """
    extra = read_given(folder)
    if isinstance(given, str):
        return [extra if extra is not None and extra.name == given else JudgeReport(given)]
    judges = [JudgeReport(f"{name}.safetensors", _reports(folder, name)) for name in judge_names(folder)]
    return judges if extra is None else [*judges, extra]


def read_verifier_reports(folder: Path) -> JudgeReport | None:
    """Read the reports on the verifier of a model folder, without its networks; `None` if the folder has no verifier.

    A verifier is one or more networks that predict attributes from pictures, and so decide which samples are kept.

    Raises:
        ModelError: a file is damaged.
    """
    names = judge_names(folder, VERIFIER)
    reports = {attribute: report for name in names for attribute, report in _reports(folder, name).items()}
    return JudgeReport(VERIFIER, reports) if names else None


def _reports(folder: Path, name: str) -> dict[str, HeadReport | None]:
    """Read the reports on the network `name` of a model folder: a dict from each of its attributes to the report.

    The entry of an attribute is `None` if the quality was not measured.
    """
    path = folder / f"{name}.json"
    description = read_json(path)
    with naming_damage(path):
        names = [str(entry["name"]) for entry in description["vocabulary"]["attributes"]]
    reports = described_reports(folder, name, description)
    return {attribute: reports.get(attribute) for attribute in names}


def read_given(folder: Path) -> JudgeReport | None:
    """Read `judge_report.json`, the report on a judge that is code; `None` if the model folder has no such file.

    Raises:
        ModelError: the file is damaged.
    """
    path = folder / GIVEN
    if not path.is_file():
        return None
    data = read_json(path)
    with naming_damage(path):
        name, mark = str(data["judge"]), str(data["mark"])
    return JudgeReport(name, reports_of(data, path), mark)


def replace_given(folder: Path, names: Iterable[str], report: JudgeReport | None) -> None:
    """Replace the reports on some attributes in `judge_report.json`, which is about a judge that is code.

    Args:
        folder: a model folder.
        names: the attributes; old reports on other attributes are kept.
        report: new reports on these attributes; `None` to remove the old reports on them. If `report` is about another
            judge than the old reports, all old reports are removed.

    Raises:
        ModelError: the old file is damaged.
    """
    old, replaced = read_given(folder), set(names)
    others = {}
    if old is not None and (report is None or (old.name, old.mark) == (report.name, report.mark)):
        others = {name: each for name, each in old.measured.items() if name not in replaced}
    now = report or old
    entries = others | ({} if report is None else report.measured)
    if now is None or not entries:
        (folder / GIVEN).unlink(missing_ok=True)
    else:
        write_json(folder / GIVEN, {"judge": now.name, "mark": now.mark, "attributes": report_entries(entries)})
