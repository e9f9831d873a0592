"""The command `energyql report`, and printing of the quality of heads and judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from energyql.cli import options
from energyql.cli.options import out
from energyql.kinds import KINDS

if TYPE_CHECKING:
    from energyql.attributes.quality import HeadReport


@options.with_options()
def report(model: options.ModelArgument, as_json: options.Json = False) -> None:
    """Print the quality of heads and judges of a model on labels held out of their training."""
    from energyql.attributes.quality import read_guide_reports, read_judge_reports, read_verifier_reports
    from energyql.attributes.words import read_calibrations
    from energyql.files import read_json
    from energyql.models import model_folder, read_vocabulary

    folder, vocabulary = model_folder(model), read_vocabulary(model)
    reports, config = read_guide_reports(folder), folder / "config.json"
    named_judge = read_json(config).get("judge") if config.is_file() else None
    judges = read_judge_reports(folder, named_judge)
    verifier = read_verifier_reports(folder) if named_judge is None else None
    if as_json:
        listed = [{"judge": each.name, "attributes": _as_json(each.attributes)} for each in judges]
        facts: dict[str, Any] = {"heads": _as_json(reports), "judges": listed}
        options.print_json(facts | ({} if verifier is None else {"verifier": _as_json(verifier.attributes)}))
        return
    print_reports({name: reports[name] for name in vocabulary if name in reports})
    if unknown := [name for name in vocabulary if name not in reports]:
        out.print(f"no report: {escape(', '.join(unknown))}")
    for text, one in read_calibrations(folder)[1].items():
        out.print(escape(f'"{text}", read as words: {one}'))
    if verifier is not None:
        print_judge("Verifier, which decides which pictures are kept", verifier.measured)
    for each in judges:
        print_judge(f"Judge {each.name}", each.measured)
        unmeasured = [name for name in each.attributes if name not in each.measured]
        if unmeasured or not each.attributes:
            out.print(f"  not measured: {escape(', '.join(unmeasured) or 'no labels of pictures were at hand')}")
    read = {name for each in judges for name in each.attributes}
    if named_judge is None and (unread := [name for name in vocabulary if name not in read]):
        out.print(f"not judged: {escape(', '.join(unread))}")


def _as_json(reports: Mapping[str, HeadReport | None]) -> dict[str, Any]:
    from energyql.attributes.quality import report_entries

    reported = {name: each for name, each in reports.items() if each is not None}
    return dict.fromkeys(reports) | report_entries(reported)


def print_reports(reports: Mapping[str, HeadReport]) -> None:
    """Print the quality of each head, with its 95 % interval, and why queries refuse weak ones."""
    for name, each in reports.items():
        _print_quality(name, each, "")
        if teacher := each.details.get("teacher"):
            out.print(escape(f"  {describe_teacher(teacher, each.measure)}"))
        if words := each.details.get("reader"):
            out.print(escape(f"  its labels are those of a reader of words, {words}"))
        if each.weak:
            out.print(f"  [yellow]weak[/], so queries refuse it: {escape(each.weak)}")
    if any(each.weak for each in reports.values()):
        from energyql.attributes.quality import WEAK_HELP

        out.print(f"What helps weak heads: {WEAK_HELP}")


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


def print_trained_judge(
    judge: str, reports: Mapping[str, HeadReport], unmeasured: str, verifier: Mapping[str, HeadReport]
) -> None:
    """Print the quality of the judge that a training made, and of its verifier, or of the judge that the user named.

    For a judge and a verifier that were trained, the attributes that they did not learn are listed too.

    Args:
        judge: the option --judge: "train", or the name of the judge that the user named.
        unmeasured: why a judge that the user named was not measured; "" if it was measured.
        verifier: attribute -> quality of the verifier (networks that decide which pictures are kept).
    """
    from energyql.training.judge import TRAIN

    if judge == TRAIN:
        left = [name for name, each in verifier.items() if not each.above_chance]
        _print_learnt("The new verifier, which decides which pictures are kept", verifier, left, "Not decided")
        left = [name for name, each in reports.items() if not each.judges]
        _print_learnt("The new judge", reports, left, "Not judged")
    elif unmeasured or not reports:
        out.print(f"Judge {escape(judge)}: not measured, because {unmeasured or 'it reads none of the attributes'}")
    else:
        print_judge(f"Judge {judge}", reports)


def _print_learnt(title: str, reports: Mapping[str, HeadReport], left: Sequence[str], without: str) -> None:
    """Print the quality of a network for what it learnt; then, after the text `without`, what it did not."""
    if read := {name: each for name, each in reports.items() if name not in left}:
        print_judge(title, read)
    if left:
        scores = ", ".join(f"{name} ({reports[name]})" for name in left)
        out.print(f"{without}, because no network learnt it: {escape(scores)}")


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
