"""An evaluation as a page, and as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

NOTE = (
    "Accuracy: share of samples that meet a condition of the query by the independent judge, over all conditions; for "
    "a target of a continuous attribute one minus the mean distance over the range. Satisfied: the whole query. "
    "Fréchet: on features, to exact samples of the query (oracle), and to pictures of no query (prior); floor: "
    "what exact samples of the same number would show. Freq. error: the largest difference of the frequency of any "
    "attribute from that among exact samples. Variety, nearest, dupl.: distances among samples over those among exact "
    "samples. Ms: time of sampling a sample, without drawing it. docs/evaluation.md has the references."
)
EDIT_NOTE = (
    "Asked: pictures that meet the query of the step, by the judge; all: the queries of all steps so far. Identity: "
    "one minus the cosine of features, to the start. Leak: of all that was not asked for, what changed without need. "
    "DES: disentangled edit strength, the rise of what was asked minus the largest leak of one attribute."
)
COLUMNS = (
    "accuracy %", "satisfied %", "worst %", "Fréchet, oracle", "floor", "prior", "freq. error", "floor", "variety",
    "nearest", "dupl. %", "ms",
)  # fmt: skip
EDIT_COLUMNS = ("asked %", "all %", "identity", "leak %", "DES")


def rows(comparison: dict[str, Any], names: Sequence[str], n: int) -> list[list[str]]:
    """A line for each contender: means over queries."""
    lines = []
    for name in names:
        outcomes = [record["samplers"][name] for record in comparison["queries"]]
        summary = comparison["summary"][name]
        mean = summary["mean"]
        accuracies = [share for outcome in outcomes for share in (outcome["accuracy"] or {}).values()]
        priors = [outcome["frechet"]["to_prior"] for outcome in outcomes if outcome["frechet"]]
        seconds = mean["seconds"]
        lines.append(
            [
                name,
                _shown(_mean(accuracies), 100, 1),
                _shown(mean["satisfied"], 100, 1),
                _shown(summary["worst"]["satisfied"], 100, 1),
                _shown(mean["frechet"], 1, 3),
                _shown(mean["frechet_floor"], 1, 3),
                _shown(_mean(priors), 1, 3),
                _shown(mean["frequency_error"], 1, 3),
                _shown(mean["frequency_floor"], 1, 3),
                _shown(mean["pairwise"], 1, 2),
                _shown(mean["nearest"], 1, 2),
                _shown(mean["duplicates"], 100, 1),
                _shown(seconds / n, 1000, 2),
            ]
        )
    return lines


def edit_rows(sequence: dict[str, Any]) -> list[list[str]]:
    """A line for each preset and step, and one for its mean."""
    lines = []
    for preset, found in sequence.items():
        steps = found["steps"]
        for k, step in enumerate(steps):
            lines.append([f"{preset}: {k + 1}. {step['query']}", *_edit_cells([step])])
        lines.append([f"{preset}, mean", *_edit_cells(steps)])
    return lines


def _edit_cells(steps: Sequence[dict[str, Any]]) -> list[str]:
    columns: tuple[tuple[str, float, int], ...] = (
        ("satisfied", 100, 1), ("all", 100, 1), ("identity", 1, 3), ("leak_rate", 100, 1), ("disentangled", 1, 3),
    )  # fmt: skip
    return [
        _shown(_mean([step[key] for step in steps if step[key] is not None]), factor, digits)
        for key, factor, digits in columns
    ]


def markdown(data: dict[str, Any]) -> str:
    """Everything as a page, with pictures."""
    settings, names = data["settings"], data["contenders"]
    lines = [f"# Evaluation of {settings['model']}", "", NOTE, "", EDIT_NOTE]
    for key, setup in data["setups"].items():
        lines += ["", f"## {setup['title']} (`{key}`)", "", setup["about"]]
        if "missing" in setup:
            lines += ["", f"Not run: {setup['missing']}."]
        elif "comparison" in setup:
            lines += ["", *_table("sampler", COLUMNS, rows(setup["comparison"], names, settings["n"]))]
            lines += ["", f"[All queries and plots]({key}/results.md)."]
            for record in setup["comparison"]["queries"]:
                lines += ["", f"`{record['query']}`", "", *_pictures(key, record, names)]
        else:
            lines += ["", *_table("preset and step", EDIT_COLUMNS, edit_rows(setup["sequence"]))]
            for preset, found in setup["sequence"].items():
                lines += ["", f"`{preset}`, {found['seconds']:.1f} s without drawing:", ""]
                lines.append(f"![edits by {preset}]({key}/{found['filmstrip']})")
    for heading in ("settings", "machine"):
        lines += ["", f"## {heading.capitalize()}", ""]
        lines += [f"- {name}: `{value}`" for name, value in data[heading].items()]
    return "\n".join(lines) + "\n"


def tables(data: dict[str, Any]) -> list[Table]:
    """For the terminal."""
    found = []
    header: tuple[str, ...]
    for key, setup in data["setups"].items():
        if "comparison" in setup:
            header, lines = COLUMNS, rows(setup["comparison"], data["contenders"], data["settings"]["n"])
        elif "sequence" in setup:
            header, lines = EDIT_COLUMNS, edit_rows(setup["sequence"])
        else:
            continue
        table = Table(box=box.SIMPLE, pad_edge=False, title=f"{escape(setup['title'])} ({key})", title_justify="left")
        table.add_column("", overflow="fold", min_width=20)
        for column in header:
            table.add_column(column.replace(" ", "\n"), justify="right", no_wrap=True)
        for line in lines:
            table.add_row(*map(escape, line), end_section=line[0].endswith(", mean"))
        found.append(table)
    return found


def _table(first: str, header: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    head = [f"| {' | '.join([first, *header])} |", f"|---|{'---:|' * len(header)}"]
    return head + [f"| `{line[0]}` | {' | '.join(line[1:])} |" for line in lines]


def _pictures(key: str, record: dict[str, Any], names: Sequence[str]) -> list[str]:
    lines = []
    for name in names:
        outcome = record["samplers"][name]
        accuracy = ", ".join(f"{one} {100 * share:.1f}" for one, share in (outcome["accuracy"] or {}).items())
        said = f"`{name}`: {100 * outcome['satisfied']:.1f} % satisfied"
        lines += [f"{said}; accuracy, %: {accuracy}" if accuracy else said, ""]
        if outcome["pictures"]:
            lines += [f"![{name}, of {record['query']}]({key}/{outcome['pictures']})", ""]
    return lines


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _shown(value: float | None, factor: float, digits: int) -> str:
    return "-" if value is None else f"{factor * value:.{digits}f}"
