"""Rank the rows of a CSV table of predictions by a query."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from energyql.errors import DataError, UnknownAttribute
from energyql.language import Interval, Near, Predicate, as_query, predicates
from energyql.pipeline.scoring import AttributeData, score_with_rule
from energyql.pipeline.settings import DEFAULT_SEMANTICS
from energyql.vocabulary import closest

_CLASS = re.compile(r"(?P<name>.+?)\s*=\s*(?P<value>.+)")
_MOMENT = re.compile(r"(?P<name>.+)[._](?P<moment>mean|std)")


def read_predictions(
    columns: Mapping[str, Sequence[str]], wanted: set[str], source: str, lines: Sequence[int]
) -> dict[str, AttributeData]:
    """Read the columns of a table that predict the `wanted` attributes, in the form that `score` takes.

    `smile` holds the probability of yes; `hair=black`, `hair=red`, ... those of each class; `age.mean` and `age.std`
    (or `age` and `age_std`) a mean and a standard deviation. Messages name the file, `source`, and the line of a row.

    Raises:
        DataError: a cell is no number or no probability, or one of mean and standard deviation is missing.
    """
    single = [header for header in columns if header in wanted]
    classes: dict[str, dict[str, str]] = {}  # name -> class -> header
    moments: dict[str, dict[str, str]] = {}  # name -> mean or std -> header
    for header in columns:
        if header in wanted:
            continue
        if (match := _CLASS.fullmatch(header)) and match["name"] in wanted:
            classes.setdefault(match["name"], {})[match["value"]] = header
        elif (match := _MOMENT.fullmatch(header)) and match["name"] in wanted:
            moments.setdefault(match["name"], {})[match["moment"]] = header

    def numbers(header: str, low: float = -math.inf, high: float = math.inf) -> list[float]:
        found = []
        for cell, line in zip(columns[header], lines, strict=True):
            place = f"{source}, line {line}, column {header!r}"
            try:
                number = float(cell)
            except ValueError:
                raise DataError(f"{place}: {cell!r} is not a number") from None
            if not math.isfinite(number):
                raise DataError(f"{place}: {cell!r} is not a finite number")
            if not low <= number <= high:
                raise DataError(f"{place}: {cell} is not {'a probability from 0 to 1' if high == 1 else 'above 0'}")
            found.append(number)
        return found

    data: dict[str, AttributeData] = {}
    for name in dict.fromkeys([*single, *classes, *moments]):
        if name in single and name in classes:
            raise DataError(
                f"{source}: the columns {name!r} and {next(iter(classes[name].values()))!r} both predict {name!r}",
                hint="keep the one of them that the query is to use",
            )
        if name in moments:
            pair = {"mean": name, **moments[name]} if name in single else moments[name]
            for moment in ("mean", "std"):
                if moment not in pair:
                    raise DataError(f"{source}: {name!r} has no {moment}", hint=f"add a column {name}.{moment}")
            data[name] = (numbers(pair["mean"]), numbers(pair["std"], low=math.ulp(0)))
        elif name in classes:
            data[name] = {value: numbers(header, 0, 1) for value, header in classes[name].items()}
        else:
            data[name] = numbers(name, 0, 1)
    return data


def read_table(path: Path) -> tuple[list[str], list[list[str]], list[int]]:
    """Read a CSV file.

    Returns:
        Header, rows, and the line on which each row ends.

    Raises:
        DataError: the file cannot be read, has no rows, or is no table.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            numbered = [(row, reader.line_num) for row in reader if row]
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path}: it is not a text in UTF-8", hint="save it as CSV in UTF-8") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if len(numbered) < 2:
        raise DataError(f"{path} has no rows", hint="the first line names the columns, the others hold numbers")
    header = [name.strip() for name in numbered[0][0]]
    if len(set(header)) < len(header):
        raise DataError(f"{path}: column {next(n for n in header if header.count(n) > 1)!r} appears twice")
    for row, line in numbered[1:]:
        if len(row) != len(header):
            raise DataError(f"{path}, line {line}: {len(row)} cells, but {len(header)} columns")
    return header, [row for row, _ in numbered[1:]], [line for _, line in numbered[1:]]


def rank_table(query: str, path: Path, *, semantics: str = DEFAULT_SEMANTICS, top: int | None = None) -> str:
    """Rank the rows of a CSV file by their energy under a query, lowest first.

    Returns:
        CSV text: the columns `rank`, `energy` (nats, lower is better) and, under `exact`, `probability`, then those of
        the file.

    Raises:
        UnknownAttribute: the file has no column for a name in the query.
        DataError: the file cannot be read, or is not a table of numbers where the query needs them.
        EnergyQLError: the query is wrong.
    """
    expr, text = as_query(query)
    header, rows, lines = read_table(path)
    found = predicates(expr)
    columns = {name: [row[k] for row in rows] for k, name in enumerate(header)}
    data = read_predictions(columns, {node.name for node in found}, str(path), lines)
    _check_columns(found, data, header, path, text)
    energy, rule = score_with_rule(query, data, semantics)
    energy = np.broadcast_to(energy, (len(rows),))
    added = ["rank", "energy", *(["probability"] if rule.is_probability else [])]
    if taken := [name for name in added if name in header]:
        raise DataError(
            f"{path} has a column {taken[0]!r} already", hint="rename it: the result has a column of that name"
        )
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow([*added, *header])
    for rank, i in enumerate(np.argsort(energy, kind="stable")[:top], start=1):
        probability = [f"{np.exp(-energy[i]):.6g}"] if rule.is_probability else []
        writer.writerow([rank, f"{energy[i]:.6g}", *probability, *rows[i]])
    return output.getvalue()


def _check_columns(
    nodes: Sequence[Predicate], data: Mapping[str, AttributeData], header: Sequence[str], path: Path, text: str
) -> None:
    missing = [node for node in nodes if node.name not in data]
    if missing:
        matches = {column: _CLASS.fullmatch(column) or _MOMENT.fullmatch(column) for column in header}
        known = [match["name"] if match else column for column, match in matches.items()]
        suggestions = list(dict.fromkeys(filter(None, (closest(node.name, known) for node in missing))))
        raise UnknownAttribute(
            f"{path} has no column for {missing[0].name!r}",
            query=text,
            spans=[node.span for node in missing if node.span],
            hint=f"did you mean {', '.join(suggestions)}?" if suggestions else f"columns: {', '.join(header[:12])}",
            names=dict.fromkeys(node.name for node in missing),
        )
    for node in nodes:
        if isinstance(node, Interval | Near) and not isinstance(data[node.name], tuple):
            raise DataError(
                f"{path}: {node.name!r} has no std",
                hint=f"add a column {node.name}.std, or write {node.name} alone if it is the probability of yes",
            )
