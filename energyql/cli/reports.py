"""The command `energyql report`, and printing of the quality of heads and judges."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from energyql.cli import options
from energyql.cli.options import out
from energyql.errors import for_command_line
from energyql.kinds import KINDS
from energyql.language import Attribute

if TYPE_CHECKING:
    from energyql.attributes.quality import HeadReport, JudgeReport


@options.with_options()
def report(model: options.ModelArgument, full: bool = False, as_json: options.Json = False) -> None:
    """Say which attributes of a model are ready for queries, and which need more labels.

    Args:
        full: Print the quality of heads, verifier and judges instead, on labels held out of their training.
    """
    from energyql.attributes.quality import read_decider, read_guide_reports, read_judge_reports
    from energyql.attributes.words import read_calibrations
    from energyql.models import model_folder, read_vocabulary

    if not full and not as_json:
        print_verdicts(model)
        return
    folder, vocabulary = model_folder(model), read_vocabulary(model)
    reports, named_judge = read_guide_reports(folder), _config(folder).get("judge")
    judges = read_judge_reports(folder, named_judge)
    decider = read_decider(folder, named_judge)
    verifier = decider if named_judge is None else None
    if as_json:
        listed = [{"judge": each.name, "attributes": _as_json(each.attributes)} for each in judges]
        facts: dict[str, Any] = {"heads": _as_json(reports), "judges": listed}
        options.print_json(facts | ({} if verifier is None else {"verifier": _as_json(verifier.attributes)}))
        return
    print_reports({name: reports[name] for name in vocabulary if name in reports}, decider)
    if unknown := [name for name in vocabulary if name not in reports]:
        out.print(f"no report: {escape(', '.join(unknown))}")
    for text, one in read_calibrations(folder)[1].items():
        out.print(escape(f'"{text}", read as words: {one}'))
    if verifier is not None:
        print_judge("Verifier, which decides which pictures are kept", verifier.measured)
        if unread := [name for name in vocabulary if name not in verifier.attributes]:
            out.print(f"not verified: {escape(', '.join(unread))}")
    for each in judges:
        print_judge(f"Judge {each.name}", each.measured)
        unmeasured = [name for name in each.attributes if name not in each.measured]
        if unmeasured or not each.attributes:
            out.print(f"  not measured: {escape(', '.join(unmeasured) or 'no labels of pictures were at hand')}")
    read = {name for each in judges for name in each.attributes}
    if named_judge is None and (unread := [name for name in vocabulary if name not in read]):
        out.print(f"not judged: {escape(', '.join(unread))}")


def print_saved(model: str | Path, names: Iterable[str] | None = None) -> None:
    """Print at the end of a training what was saved, and the verdicts on the attributes `names`, or on all."""
    out.print(escape(f"Saved {model}; all numbers: energyql report {shlex.quote(str(model))} --full\n"))
    print_verdicts(model, names)


def print_doubts(table: Path | None) -> None:
    """Print how many labels of a table are probably wrong, if it is worth a look, and the command that shows them."""
    from energyql.labelling.folder import LABELS
    from energyql.training.doubts import WORTH, open_doubts

    doubts = None if table is None else open_doubts(table)
    wrong = sum(doubt.wrong for doubt in doubts or ())
    if table is None or wrong < WORTH:
        return
    where = "" if table.name == LABELS else f"--out {shlex.quote(str(table))} "
    command = f"energyql label {shlex.quote(str(table.parent))} {where}--doubtful"
    again = f"To look at the most doubtful again, type: {command}"
    out.print(escape(f"\nAt least {wrong:.0f} labels are probably wrong. {again}"))


def print_features(labels: object, features: str) -> None:
    """Print what would read better from few labels in a table, if it is not installed and the user did not decline."""
    from energyql.attributes.backbones import INSTALL
    from energyql.training.labels import LabelTable
    from energyql.training.settings import AUTO
    from energyql.training.target import backbone_name
    from energyql.training.teacher import FEW

    few = isinstance(labels, LabelTable) and labels.index is not None and len(labels.index) < FEW
    if few and features == AUTO and backbone_name(features, labels) is None:
        out.print(escape(f"\nA network that knows photographs reads better from few labels: {INSTALL}"))


def print_verdicts(model: str | Path, names: Iterable[str] | None = None) -> None:
    """Print what queries may expect of each of the attributes `names`, or of all, and the next command."""
    from energyql.attributes import quality
    from energyql.attributes.quality import READY, UNMEASURED, VERIFIED
    from energyql.generators.families import NAMED
    from energyql.models import model_folder, read_vocabulary

    folder, vocabulary = model_folder(model), read_vocabulary(model)
    config, reports = _config(folder), quality.read_guide_reports(folder)
    code = config.get("judge")
    decider, judges = quality.read_decider(folder, code), quality.read_judge_reports(folder, code)
    verdicts = quality.verdicts(vocabulary if names is None else names, reports, decider)
    width = max(map(len, verdicts))
    for name, verdict in verdicts.items():
        out.print(escape(f"{name:{width}}  {verdict}"))
    decided = {name: reports[name] for name, verdict in verdicts.items() if verdict in (READY, VERIFIED)}
    if lacks := list(_unread(decided, decider, judges)):
        out.print(escape("\n" + "\n".join(lacks)))
    usable = [name for wanted in (READY, VERIFIED, UNMEASURED) for name in verdicts if verdicts[name] == wanted]
    place = shlex.quote(str(model))
    if usable:
        spec = vocabulary[usable[0]]
        query = str(KINDS[spec.kind].queries.example(Attribute(spec.name), spec))
        query = shlex.quote(query) if set(query) & set('"$`\\!') else f'"{query}"'
        allowed = " --allow-plugins" if "judge" in config or config.get("generator", {}).get("kind") == NAMED else ""
        following = f"To draw pictures of one, type: energyql generate {query} --model {place}{allowed}"
    else:
        more = f"energyql sample {place} --unsure -n 100 --out pictures"
        following = f"To draw pictures that are worth a label, type: {more}"
    out.print(escape(f"\n{following}"))


def _config(folder: Path) -> dict[str, Any]:
    from energyql.files import read_json

    path = folder / "config.json"
    return dict(read_json(path)) if path.is_file() else {}


def _unread(
    reports: Mapping[str, HeadReport], decider: JudgeReport | None, judges: Sequence[JudgeReport]
) -> Iterator[str]:
    """A sentence for each attribute that judge or verifier could not learn, with what it needs."""
    from energyql.attributes.quality import wanted_labels

    if reports and decider is None and not judges:
        yield "No network reads pictures, so none is ticked: energyql train-judge trains one from labels of pictures."
        return
    for name, each in reports.items():
        judged, kept = any(judge.reads(name) for judge in judges), decider is not None and decider.reads(name)
        if judged and (kept or decider is None):
            continue
        who, so = ("verifier", "chosen by its head alone") if judged else ("judge" if kept else "network", "not ticked")
        yield f"No {who} reads {name} yet, so its pictures are {so}: it needs {wanted_labels(each)}."


def _as_json(reports: Mapping[str, HeadReport | None]) -> dict[str, Any]:
    from energyql.attributes.quality import report_entries

    reported = {name: each for name, each in reports.items() if each is not None}
    return dict.fromkeys(reports) | report_entries(reported)


def print_reports(reports: Mapping[str, HeadReport], decider: JudgeReport | None = None) -> None:
    """Print the quality of each head, with its 95 % interval, and why some are weak.

    For a weak head, a line says that queries refuse the attribute, or use it only where pictures are verified, if
    `decider` (the report of the verifier, or of the code in its place) says that it reads the attribute.
    """
    for name, each in reports.items():
        _print_quality(name, each, "")
        if teacher := each.details.get("teacher"):
            out.print(escape(f"  {describe_teacher(teacher, each.measure)}"))
        if words := each.details.get("reader"):
            out.print(escape(f"  its labels are those of a reader of words, {words}"))
        if each.weak:
            verified = decider is not None and decider.reads(name)
            so = "use it only where pictures are verified" if verified else "refuse it"
            out.print(f"  [yellow]weak[/], so queries {so}: {escape(each.weak)}")
    if any(each.weak for each in reports.values()):
        from energyql.attributes.quality import WEAK_HELP

        out.print(f"What helps weak heads: {for_command_line(WEAK_HELP)}")
    for name, each in reports.items():
        if "round" in each.details:
            from energyql.training.report import describe_gain

            out.print(escape(f"{name}: {describe_gain(each.details['round'])}"))


def print_judge(title: str, reports: Mapping[str, HeadReport]) -> None:
    """Print the quality of a judge for each attribute, with its 95 % interval, and "weak" where it reads badly."""
    out.print(f"[bold]{escape(title)}[/], on labels of pictures that it did not learn from:")
    for name, each in reports.items():
        _print_quality(name, each, "  ")
        if not each.judges:
            out.print("    [yellow]weak[/]: little or not clearly better than chance, so its verdicts say little")


def _print_quality(name: str, report: HeadReport, indent: str) -> None:
    chance = "" if KINDS[report.kind].numeric else f", chance {report.chance:.2f}"
    out.print(f"{indent}[bold]{escape(name)}[/], {report.kind}: {report}{chance}")
    parts = [report.counts]
    if report.calibration_error is not None:
        parts.append(f"calibration error {report.calibration_error:.3f}")
    if report.recall:
        shares = (f"{label} {recall:.2f}" for label, (recall, _, _) in report.recall.items())
        parts.append(f"recall of {', '.join(shares)}")
    for line in ("; ".join(parts), *report.rankings()):
        out.print(escape(f"{indent}  {line}"))


def describe_teacher(teacher: Mapping[str, Any], measure: str) -> str:
    """Line that tells whether a head was trained only on labels by hand, or also on labels of a teacher.

    A teacher is a network that is trained on the pictures labelled by hand, and labels further pictures.

    Args:
        teacher: "pictures" that it labelled (0 if it was not clearly better than chance), its quality "score", and the
            number "samples" of labels on which that was measured.
        measure: name of the measure of quality, such as "balanced accuracy".
    """
    if not teacher["pictures"]:
        return "learnt from labels by hand alone: a network that read the pictures was not clearly better than chance"
    quality = f"whose {measure} is {teacher['score']:.2f} on {teacher['samples']:,} labels"
    return f"learnt also from {teacher['pictures']:,} pictures labelled by a network, {quality}"
