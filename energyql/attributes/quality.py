"""Reports on the quality of heads and judges on held-out samples, and the limits below which a head is too weak to use.

A head predicts an attribute from latents, a judge from pictures. A judge is a network in the model folder, or code
outside of it. Reports on heads are in `report.json`, on a network in its JSON file, such as `judge.json`, on code in
`judge_report.json`. Functions that read them raise a `ModelError` if a file is damaged. This module does not import
torch, so that the command line reads reports quickly.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from energyql.errors import EARLIER, ModelError, VocabularyError, either
from energyql.files import DAMAGED_MODEL, fingerprint, read_json, write_json
from energyql.kinds import KINDS, Kind

REPORT = "report.json"
"""The file in a model folder with the reports on its heads."""
MARGIN = 0.05
"""Distance from chance, 0.5, up to which the AUC of a single class is hardly better. See
docs/decisions/attribute-heads.md."""
LEAST_RECALL = 0.1
"""Least recall that a head must have for every class, if its report has no AUC."""
_PICTURE = either('space="picture"', "--space picture")
WEAK_HELP = (
    f"more labels ({either('sample_pictures(unsure=True)', 'energyql sample --unsure')} draws the pictures), a teacher "
    f"(labels in a table with the numbers of pictures), {_PICTURE} (a network that reads pictures in place of heads)"
)
"""Text for users: what to do if the head of an attribute is too weak."""
READY, VERIFIED, UNMEASURED = "ready", "works where pictures are verified", "not measured"
"""Verdicts on an attribute, see `verdict_on`; the last is for a head without a report."""
GAP = 0.1
"""Distance above its bound to which the measure of a weak head is expected to rise at least, with more labels."""
ENOUGH = 20
"""Fewest labels of one answer with which a head is expected not to be weak."""
MOST_TIMES = 10
"""By which factor more labels are asked for at most: a very wide interval says little about the number."""
LEAST_SKILL = 0.3
"""Least skill that a judge of pictures must have, on a scale where 0 is chance and 1 is perfect."""
_Z = 1.959964
"""Quantile of the standard normal for a two-sided interval of 95 %."""


Interval = tuple[float, float, float]
"""An estimate, and the lower and upper end of its 95 % interval."""


@dataclass(frozen=True, repr=False)
class Ranking:
    """How well a head ranks held-out samples by its probability of one class.

    A head of a rare class may rank its samples first, and so guide a sampler well, although its recall is 0, because
    the class is never the likeliest.

    Attributes:
        auc: area under the ROC curve: the probability that a random sample of the class is ranked above one of the
            others; 0.5 is chance. The interval is Wilson's for an effective number of samples, from DeLong's variance.
        precision: share of the class among held-out samples whose weights are the head's probabilities of it: an
            estimate of its share among samples drawn for it. The interval is Wilson's for an effective number of
            samples.
        prevalence: share of the class among all held-out samples, in (0, 1).
    """

    auc: Interval
    precision: Interval
    prevalence: float

    @property
    def lift(self) -> Interval:
        """Precision / prevalence, with its interval: by which factor draws for the class make it more frequent."""
        share, low, high = self.precision
        return share / self.prevalence, low / self.prevalence, high / self.prevalence

    def __str__(self) -> str:
        """AUC and lift, such as `AUC 0.95 (0.84 to 0.99), lift 28 (19 to 36)`."""
        lift, *ends = (f"{value:.1f}" if value < 10 else f"{value:.0f}" for value in self.lift)
        return f"{auc_text(self.auc)}, lift {lift} ({' to '.join(ends)})"

    def __repr__(self) -> str:
        return f"{self}, precision {_with_ends(self.precision)}, prevalence {self.prevalence:.2g}"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Ranking:
        """Make a ranking from JSON values; an error such as `KeyError` or `ValueError` if one is missing or wrong."""
        prevalence = float(data["prevalence"])
        if not 0 < prevalence < 1:
            raise ValueError(f"a prevalence is between 0 and 1, not {prevalence:g}")
        return cls(_interval(data["auc"]), _interval(data["precision"]), prevalence)


def auc_text(auc: Interval) -> str:
    """An AUC with its interval as text, such as `AUC 0.95 (0.84 to 0.99)`."""
    return f"AUC {_with_ends(auc)}"


def _with_ends(values: Interval) -> str:
    return f"{values[0]:.2f} ({values[1]:.2f} to {values[2]:.2f})"


def _interval(values: Sequence[Any]) -> Interval:
    value, low, high = values
    return float(value), float(low), float(high)


class _Weakness(NamedTuple):
    """Why a head is weak; the answer that lacks labels, "" for a number; and the measure that is below its bound."""

    reason: str
    answer: str
    value: float = 0.0
    low: float = 0.0
    bound: float = 0.0


@dataclass(frozen=True, repr=False)
class HeadReport:
    """Quality of one head on held-out latents, or of a judge for one attribute on held-out pictures.

    Attributes:
        fitted: number of labelled samples for fit, early stopping and calibration; 0 for a judge that this package did
            not train.
        held_out: number of further labelled samples, on which the quality is measured. Networks that learned from a
            sample do not take part in its prediction; others may have learned from it (cross-fitting).
        labels: class -> number of labels among all labelled samples; empty for a continuous attribute.
        score: R2 for a continuous attribute; else the balanced accuracy, the mean of the recalls of all classes. `None`
            if no sample, or no sample of some class, was held out.
        interval: ends of the 95 % interval of the score, or `None`: for a balanced accuracy, from the Wilson intervals
            of the recalls by Newcombe's square-and-add method; for R2, by the delta method.
        recall: class with held-out samples -> share of them for which it is predicted, with its 95 % Wilson interval.
        calibration_error: mean distance between predicted probabilities (of quantiles, for a continuous attribute) and
            observed frequencies, in [0, 1]; `None` if no sample was held out, or there are no probabilities.
        details: further numbers, which are drawn in the picture `report.png`.
        ranking: class of some, but not all, held-out samples -> how well the head ranks by its probability; only "yes"
            for yes/no. Empty for a continuous attribute, without probabilities, and if it was not measured.
        correlation: Spearman's rank correlation of predictions and labels of a continuous attribute, with its 95 %
            interval; `None` for other kinds, for fewer than four samples, and if it was not measured.
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
        """Mean of the AUC over all classes in `ranking`, with the mean ends of their intervals; `None` for no class."""
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
        """Whether the whole 95 % interval of the score, or of the AUC, is above chance."""
        by_score = self.interval is not None and self.interval[0] > self.chance
        return by_score or (self.auc is not None and self.auc[1] > 0.5)

    @property
    def judges(self) -> bool:
        """Whether the quality suffices for a judge of pictures: `above_chance`, and a `skill` of at least 0.3."""
        return self.skill is not None and self.above_chance and self.skill >= LEAST_SKILL

    @property
    def weak(self) -> str | None:
        """Why the head is too weak for queries, which refuse it unless the user allows it; `None` if it is good enough.

        A head is weak if it may be no better than chance: if the 95 % interval of its `auc` or R2 reaches down to
        chance, or if a class has an AUC of at most 0.5 + `MARGIN` whose interval does. In reports without AUC, balanced
        accuracy counts, and a recall of one class below `LEAST_RECALL`.
        """
        weakness = _weakness(self)
        return None if weakness is None else weakness.reason

    @property
    def counts(self) -> str:
        """The numbers of labels as text for users, such as `measured on 150 of 300 labels`."""
        return f"measured on {self.held_out:,} of {self.fitted + self.held_out:,} labels"

    def __str__(self) -> str:
        """The score with its interval, such as `balanced accuracy 0.86 (0.75 to 0.93)`."""
        if self.score is None or self.interval is None:
            return f"{self.measure} unknown"
        return f"{self.measure} {_with_ends((self.score, *self.interval))}"

    def __repr__(self) -> str:
        """The score, and how well the head ranks, in one line."""
        return "; ".join([str(self), *self.rankings()])

    @property
    def ranking_text(self) -> str:
        """How well the head ranks: AUC and lift of yes, mean AUC of classes, or rank correlation; "" if unknown."""
        if self.auc is not None and len(self.ranking) > 1:
            return f"mean {auc_text(self.auc)}"
        return str(next(iter(self.ranking.values()))) if self.ranking else "".join(self.rankings())

    def rankings(self) -> list[str]:
        """How well the head ranks, with a line for each class, or the rank correlation; [] if it was not measured."""
        if self.correlation is not None:
            return [f"rank correlation {_with_ends(self.correlation)}"]
        return [f"{name}: {each!r}" for name, each in self.ranking.items()]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> HeadReport:
        """Make a report from an entry of `report_entries`; a `KeyError` or the like if a value is missing or wrong."""
        kind = data["kind"]
        if "ranking" not in data:
            raise ValueError(f"it {EARLIER}")
        labels = {str(name): int(count) for name, count in data["labels"].items()}
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
            {str(name): Ranking.from_dict(each) for name, each in data["ranking"].items()},
            None if data["correlation"] is None else _interval(data["correlation"]),
        )  # fmt: skip


def _weakness(report: HeadReport) -> _Weakness | None:
    rarest = min(report.labels, key=lambda name: report.labels[name], default="")
    if report.score is None or report.interval is None:
        missing = [name for name in report.labels if name not in report.recall]
        if report.held_out and missing:
            return _Weakness(f"no label of {missing[0]!r} was held out", missing[0])
        return _Weakness("its quality is unknown", rarest)
    low = report.interval[0]
    if KINDS[report.kind].numeric:
        reason = f"{report} is not clearly above chance, 0"
        return _Weakness(reason, "", report.score, low, 0.0) if low <= 0 else None
    if report.auc is not None:
        if report.auc[1] <= 0.5:
            mean = "mean " if len(report.ranking) > 1 else ""
            reason = f"{mean}{auc_text(report.auc)} is not clearly above chance, 0.50"
            return _Weakness(reason, rarest, *report.auc[:2], 0.5)
        for name, each in report.ranking.items():
            if each.auc[1] <= 0.5 and each.auc[0] <= 0.5 + MARGIN:
                reason = f"for {name!r}, {auc_text(each.auc)} is hardly above chance, 0.50"
                return _Weakness(reason, name, *each.auc[:2], 0.5)
        return None
    if low <= report.chance:
        reason = f"{report} is not clearly above chance, {report.chance:.2f}"
        return _Weakness(reason, rarest, report.score, low, report.chance)
    for name, (recall, below, _) in report.recall.items():
        if recall < LEAST_RECALL:
            reason = f"it recognises only {100 * recall:.0f} % of {name!r}"
            return _Weakness(reason, name, recall, below, LEAST_RECALL)
    return None


def lacking_labels(report: HeadReport) -> tuple[int, str] | None:
    """About how many more labels a weak head needs, and with which answer ("" for a number); `None` if it is not weak.

    The interval of the measure shrinks as 1 / sqrt(labels with this answer). Enough are those with which its lower end
    would reach the bound of `HeadReport.weak`, if the measure itself lay at least `GAP` above. They are at least twice
    the present labels and `ENOUGH`, and else at most `MOST_TIMES` the present ones; the difference has one significant
    digit.
    """
    weakness = _weakness(report)
    if weakness is None:
        return None
    _, answer, value, low, bound = weakness
    return _more(report, answer, min(max(((value - low) / max(value - bound, GAP)) ** 2, 2), MOST_TIMES)), answer


def wanted_labels(report: HeadReport) -> str:
    """More labels that a head needs, or that a network could learn from, such as "about 70 more labels of yes".

    If the head is not weak, they are as many again of the rarest answer.
    """
    rarest = min(report.labels, key=lambda name: report.labels[name], default="")
    number, answer = lacking_labels(report) or (_more(report, rarest, 2), rarest)
    return f"about {number:,} more labels{f' of {answer}' if answer else ''}"


def _more(report: HeadReport, answer: str, times: float) -> int:
    """How many labels to add, to one digit, so that there are `times` as many as now, and at least `ENOUGH`.

    Counted are the labels of `answer`; for a continuous attribute, where it is "", all labels.
    """
    present = report.labels[answer] if answer else report.fitted + report.held_out
    return int(float(f"{max(present * times, ENOUGH) - present:.0e}"))


def verdict_on(report: HeadReport, verified: bool) -> str:
    """What queries may expect of the attribute, in words for users; `verified`: a verifier, or code, reads it.

    "ready", "works where pictures are verified", or "needs about 70 more labels of yes".
    """
    if lacking_labels(report) is None:
        return READY
    return VERIFIED if verified else f"needs {wanted_labels(report)}"


def wilson(successes: float, trials: float) -> tuple[float, float]:
    """Ends of the 95 % interval (Wilson 1927) of a share, successes / trials; `trials` above 0 need not be whole."""
    share, weight = successes / trials, _Z**2 / trials
    middle = share + weight / 2
    spread = _Z * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return max(0.0, (middle - spread) / (1 + weight)), min(1.0, (middle + spread) / (1 + weight))


def balanced(confusion: Sequence[Sequence[int]]) -> tuple[float, tuple[float, float]]:
    """Balanced accuracy and the ends of its 95 % interval, for a matrix of numbers of samples.

    It has a row for each labelled class, none of which is all 0, and a column for each predicted class.
    """
    pairs = [(row[i], sum(row)) for i, row in enumerate(confusion)]
    recalls = [hits / count for hits, count in pairs]
    limits = [wilson(hits, count) for hits, count in pairs]
    count, score = len(pairs), sum(recalls) / len(pairs)
    below = math.sqrt(sum((r - low) ** 2 for r, (low, _) in zip(recalls, limits, strict=True))) / count
    above = math.sqrt(sum((high - r) ** 2 for r, (_, high) in zip(recalls, limits, strict=True))) / count
    return score, (score - below, score + above)


def explained(errors: Sequence[float], labels: Sequence[float]) -> tuple[float, tuple[float, float]] | None:
    """R2 and the ends of its 95 % interval, by the delta method, from `errors` (label minus prediction) and labels.

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


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Convert errors of the block, such as a `KeyError` or `ValueError`, to a `ModelError` that names the file."""
    try:
        yield
    except KeyError as error:
        raise ModelError(f"{path}: {error} is missing", hint=DAMAGED_MODEL) from None
    except (AttributeError, TypeError, ValueError, RuntimeError, OverflowError, VocabularyError, ModelError) as error:
        raise ModelError(f"{path}: {error}", hint=DAMAGED_MODEL) from error


def write_reports(folder: Path, reports: Mapping[str, HeadReport]) -> None:
    """Write the reports on heads to `report.json` of their folder, with a digest of the heads; for {}, delete it."""
    if not reports:
        (folder / REPORT).unlink(missing_ok=True)
        return
    heads = fingerprint(folder / "attributes.safetensors")
    write_json(folder / REPORT, {"heads": heads, "attributes": report_entries(reports)})


def report_entries(reports: Mapping[str, HeadReport]) -> dict[str, dict[str, Any]]:
    """Reports, by attribute, as JSON values for a file, which `reports_of` reads."""
    return {name: asdict(report) | {"measure": report.measure, "weak": report.weak} for name, report in reports.items()}


def reports_of(data: Mapping[str, Any], path: Path) -> dict[str, HeadReport]:
    """Read the reports, by attribute, from a dict with the result of `report_entries` under the key "attributes"."""
    with naming_damage(path):
        return {str(name): HeadReport.from_dict(entry) for name, entry in data["attributes"].items()}


def read_reports(folder: Path) -> dict[str, HeadReport]:
    """Read the reports on the heads of a model folder, by attribute; {} if they are missing or about other heads."""
    path, heads = folder / REPORT, folder / "attributes.safetensors"
    data = read_json(path) if path.is_file() and heads.is_file() else {}
    return reports_of(data, path) if _is_about(heads, data.get("heads")) else {}


def _is_about(weights: Path, mark: object) -> bool:
    """Whether reports with the fingerprint `mark` are about the present file `weights`."""
    return mark is not None and weights.is_file() and fingerprint(weights) == mark


FIRST, VERIFIER = "judge", "verifier"
"""File names, without suffix, of a model folder's first judge, and of the first network of its verifier, which decides
from pictures which samples are kept. Further networks are "judge-2", "judge-3", "verifier-2" and so on."""
READER = "reader"
"""File name, without suffix, of the network that predicts attributes from pictures in a model without heads. Code for
this purpose is named under the key "reader" of `vocabulary.json`."""
GIVEN = "judge_report.json"
"""The file in a model folder with the report on a judge that is code, and not a network in the folder."""


@dataclass(frozen=True)
class JudgeReport:
    """The quality of one judge (a network or code that predicts attributes from pictures).

    Attributes:
        name: "judge.safetensors" or the like for a network, "my_code:look" for code, "verifier" for all of the
            verifier.
        attributes: attribute -> quality of the judge; `None` if it was not measured. For code, such attributes are
            missing.
        mark: digest of name, source and weights of the code, to find out whether it has changed; "" for a network.
    """

    name: str
    attributes: Mapping[str, HeadReport | None] = field(default_factory=dict)
    mark: str = ""

    @property
    def measured(self) -> dict[str, HeadReport]:
        """The reports by attribute, without attributes that were not measured."""
        return {name: report for name, report in self.attributes.items() if report is not None}

    def reads(self, name: str) -> bool:
        """Whether it reads an attribute. Code that was not measured gave the labels, so it reads all of them."""
        return not self.attributes or name in self.attributes


def judge_names(folder: Path, first: str = FIRST) -> list[str]:
    """Names of the judges, or with `VERIFIER` of the verifier's networks, in a model folder: "judge", "judge-2" ..."""
    matches = (re.fullmatch(rf"{first}(?:-([1-9][0-9]{{0,3}}))?", path.stem) for path in folder.glob(f"{first}*.json"))
    return [judge_name(number, first) for number in sorted(int(match[1] or 1) for match in matches if match)]


def judge_name(number: int, first: str = FIRST) -> str:
    """File name, without suffix, of judge `number`: "judge" (or `first`) for 1, "judge-2" for 2, and so on."""
    return first if number == 1 else f"{first}-{number}"


def describe_reports(folder: Path, name: str, reports: Mapping[str, HeadReport]) -> dict[str, Any]:
    """JSON values for a judge's file `<name>.json`: its reports, if any, with a digest of its (saved) weights."""
    if not reports:
        return {}
    weights = folder / f"{name}.safetensors"
    return {"report": {"weights": fingerprint(weights), "attributes": report_entries(reports)}}


def described_reports(folder: Path, name: str, description: Mapping[str, Any]) -> dict[str, HeadReport]:
    """Read the reports in `description`, the content of a judge's `<name>.json`; {} if they are of other weights."""
    entry, weights = description.get("report"), folder / f"{name}.safetensors"
    if not isinstance(entry, dict) or not isinstance(entry.get("attributes"), dict):
        return {}
    return reports_of(entry, folder / f"{name}.json") if _is_about(weights, entry.get("weights")) else {}


def read_guide_reports(folder: Path) -> dict[str, HeadReport]:
    """Read the reports on what guides a model's sampler: the network `reader.json` if there is one, else the heads."""
    path = folder / f"{READER}.json"
    return described_reports(folder, READER, read_json(path)) if path.is_file() else read_reports(folder)


def read_judge_reports(folder: Path, given: object = None) -> list[JudgeReport]:
    """Read the reports on all judges of a model folder, without loading a judge.

    Args:
        folder: the model folder.
        given: value of "judge" in `config.json`: the name of code that is the only judge; or `None`, if the judges are
            the networks in the folder, and the code that `judge_report.json` is about.

    Raises:
        ModelError: a file is damaged.
    """
    extra = read_given(folder)
    if isinstance(given, str):
        return [extra if extra is not None and extra.name == given else JudgeReport(given)]
    judges = [JudgeReport(f"{name}.safetensors", _reports(folder, name)) for name in judge_names(folder)]
    return judges if extra is None else [*judges, extra]


def read_verifier_reports(folder: Path) -> JudgeReport | None:
    """Read the reports on the verifier of a model folder, without its networks; `None` if there is no verifier."""
    names = judge_names(folder, VERIFIER)
    reports = {attribute: report for name in names for attribute, report in _reports(folder, name).items()}
    return JudgeReport(VERIFIER, reports) if names else None


def read_decider(folder: Path, code: object = None) -> JudgeReport | None:
    """Read the report on what decides which pictures are kept: `code`, as in `read_judge_reports`, or the verifier."""
    return read_verifier_reports(folder) if code is None else read_judge_reports(folder, code)[0]


def verdicts(names: Iterable[str], reports: Mapping[str, HeadReport], decider: JudgeReport | None) -> dict[str, str]:
    """Attribute -> what queries may expect of it, as in `verdict_on`; `decider` decides about pictures."""
    return {
        name: (
            verdict_on(reports[name], decider is not None and decider.reads(name)) if name in reports else UNMEASURED
        )
        for name in names
    }


def _reports(folder: Path, name: str) -> dict[str, HeadReport | None]:
    """Read the report on each attribute of the network `name` of a model folder; `None` if it was not measured."""
    path = folder / f"{name}.json"
    description = read_json(path)
    with naming_damage(path):
        names = [str(entry["name"]) for entry in description["vocabulary"]["attributes"]]
    reports = described_reports(folder, name, description)
    return {attribute: reports.get(attribute) for attribute in names}


def read_given(folder: Path) -> JudgeReport | None:
    """Read `judge_report.json`, the report on a judge that is code; `None` if the model folder has no such file."""
    path = folder / GIVEN
    if not path.is_file():
        return None
    data = read_json(path)
    with naming_damage(path):
        name, mark = str(data["judge"]), str(data["mark"])
    return JudgeReport(name, reports_of(data, path), mark)


def replace_given(folder: Path, names: Iterable[str], report: JudgeReport | None) -> None:
    """Replace the reports on the attributes `names` in `judge_report.json`, which is about a judge that is code.

    Without a new report, the old ones are removed; a report on another judge removes all of them.
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
