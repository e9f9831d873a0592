"""Rank the rows of a CSV table of predictions by a query."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from energyql.attributes.labels import as_number, is_missing
from energyql.errors import DataError, UnknownAttribute
from energyql.files import what_is_there
from energyql.language import Interval, Near, Predicate, as_query, predicates
from energyql.pipeline.scoring import AttributeData, score_with_rule
from energyql.pipeline.settings import DEFAULT_SEMANTICS, Semantics
from energyql.vocabulary import closest, repeated

MOST_CHARACTERS = 1 << 27
"""Longest table that is read: of a device that never ends no more is read, and memory stays below some gigabytes."""
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")
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
        name, value = _name_and_class(header)
        if value and name in wanted:
            classes.setdefault(name, {})[value] = header
        elif (match := _MOMENT.fullmatch(header)) and match["name"] in wanted:
            moments.setdefault(match["name"], {})[match["moment"]] = header

    def numbers(header: str, low: float = -math.inf, high: float = math.inf) -> list[float]:
        found = []
        for cell, line in zip(columns[header], lines, strict=True):
            place = f"{source}, line {line}, column {header!r}"
            try:
                number = float(cell)
            except ValueError:
                raise DataError(f"{place}: {cell!r} is not a number", hint="correct it, or leave the row out") from None
            if not math.isfinite(number):
                raise DataError(f"{place}: {cell!r} is not a finite number", hint="correct it, or leave the row out")
            if not low <= number <= high:
                raise DataError(
                    f"{place}: {cell} is not {'a probability from 0 to 1' if high == 1 else 'above 0'}",
                    hint="correct it, or leave the row out",
                )
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


def find_delimiter(read: Callable[[str], Iterable[list[str]]]) -> str:
    """Return the delimiter that gives most columns: comma, semicolon or tab. Rows of one length come first.

    Args:
        read: reads the rows with a delimiter. Rows are counted and not kept, because they take several times the memory
            of the text.
    """
    sizes = {mark: [len(cells) for cells in read(mark) if cells] for mark in ",;\t"}
    even = {mark: found for mark, found in sizes.items() if len(set(found)) == 1 < found[0]}
    return max(even or sizes, key=lambda mark: sizes[mark][0] if sizes[mark] else 0)


def with_points(cells: list[str]) -> list[str]:
    """Return a column of numbers with decimal points for its decimal commas; other columns as they are."""
    changed = [cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell for cell in cells]
    return changed if all(is_missing(cell) or as_number(cell) is not None for cell in changed) else cells


def read_table(source: Path | TextIO) -> tuple[list[str], list[list[str]], list[int]]:
    """Read a CSV file, or an open text: cells separated by commas, or by semicolons or tabs with decimal commas.

    Returns:
        Header, rows, and the line on which each row ends.

    Raises:
        DataError: the file cannot be read, has no rows, or is no table.
    """
    path = _name(source)
    try:
        with source.open(newline="", encoding="utf-8-sig") if isinstance(source, Path) else nullcontext(source) as file:
            text = file.read(MOST_CHARACTERS + 1)
        if len(text) > MOST_CHARACTERS:
            hint = "give a part of the rows, or only the columns that the query names"
            raise DataError(f"{path} is longer than {MOST_CHARACTERS >> 20} Mi characters", hint=hint)
        delimiter = find_delimiter(lambda mark: csv.reader(io.StringIO(text, newline=""), delimiter=mark))
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        numbered = [(row, reader.line_num) for row in reader if row]
    except UnicodeDecodeError as error:
        raise DataError(f"cannot read {path}: it is not a text in UTF-8", hint="save it as CSV in UTF-8") from error
    except FileNotFoundError:
        raise DataError(f"{path} is missing", hint=what_is_there(Path(path))) from None
    except OSError as error:
        hint = "name a CSV file, or see to its permissions"
        raise DataError(f"cannot read {path}: {error.strerror or error}", hint=hint) from error
    except csv.Error as error:
        hint = "cells are separated by commas, semicolons or tabs; one with a comma or a line break stands in quotes"
        raise DataError(f"cannot read {path}: {error}", hint=hint) from error
    except MemoryError:
        raise DataError(f"cannot read {path}: there is not enough memory", hint="give a part of the rows") from None
    if len(numbered) < 2:
        raise DataError(f"{path} has no rows", hint="the first line names the columns, the others hold numbers")
    header = [name.strip() for name in numbered[0][0]]
    if (twice := repeated(header)) is not None:
        raise DataError(f"{path}: column {twice!r} appears twice", hint="rename one of the columns")
    for row, line in numbered[1:]:
        if len(row) != len(header):
            raise DataError(
                f"{path}, line {line}: {len(row)} cells where the first line has {len(header)}",
                hint="each line has a cell for each column; a cell with a comma stands in quotes",
            )
    rows = [row for row, _ in numbered[1:]]
    if delimiter != ",":
        rows = [list(row) for row in zip(*(with_points(list(cells)) for cells in zip(*rows, strict=True)), strict=True)]
    return header, rows, [line for _, line in numbered[1:]]


@dataclass(frozen=True)
class Ranking:
    """Rows of a table in the order of their energy under a query, the lowest first.

    Attributes:
        columns: names of the numbers that were added: `rank`, `energy` in nats, and `probability` where the energy is
            that of a probability.
        numbers: those numbers, a list a row.
        header: names of the columns of the table.
        rows: the cells of the table, a list a row.
    """

    columns: list[str]
    numbers: list[list[int | float]]
    header: list[str]
    rows: list[list[str]]

    def to_csv(self) -> str:
        """Return CSV text with the added columns first."""
        output = io.StringIO()
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow([*self.columns, *self.header])
        for numbers, row in zip(self.numbers, self.rows, strict=True):
            writer.writerow([*(f"{number:.6g}" if isinstance(number, float) else number for number in numbers), *row])
        return output.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Return the rows as JSON values: added numbers as numbers (null for infinity), cells as text."""
        plain = ([number if math.isfinite(number) else None for number in numbers] for numbers in self.numbers)
        rows = zip(plain, self.rows, strict=True)
        names = [*self.columns, *self.header]
        return {"rows": [dict(zip(names, [*numbers, *row], strict=True)) for numbers, row in rows]}


def rank_table(
    query: str, source: Path | TextIO, *, semantics: Semantics = DEFAULT_SEMANTICS, top: int | None = None
) -> Ranking:
    """Rank the rows of a CSV file, or of an open text, by their energy under a query.

    Raises:
        UnknownAttribute: the file has no column for a name in the query.
        DataError: the file cannot be read, or is not a table of numbers where the query needs them.
        EnergyQLError: the query is wrong.
    """
    expr, text = as_query(query)
    header, rows, lines = read_table(source)
    found, path = predicates(expr), _name(source)
    columns = {name: [row[k] for row in rows] for k, name in enumerate(header)}
    data = read_predictions(columns, {node.name for node in found}, path, lines)
    _check_columns(found, data, header, path, text)
    energy, rule = score_with_rule(query, data, semantics)
    energy = np.broadcast_to(energy, (len(rows),))
    added = ["rank", "energy", *(["probability"] if rule.is_probability else [])]
    if taken := [name for name in added if name in header]:
        raise DataError(
            f"{path} has a column {taken[0]!r} already",
            hint="rename it or leave it out: the result has one of that name",
        )
    order = np.argsort(energy, kind="stable")[:top]
    numbers = [
        [rank, float(energy[i]), *([math.exp(-energy[i])] if rule.is_probability else [])]
        for rank, i in enumerate(order, start=1)
    ]
    return Ranking(added, numbers, header, [rows[i] for i in order])


def _name_and_class(header: str) -> tuple[str, str]:
    """Split the header of a column such as `hair=black`; one without a class has the class "".

    In one pass: a pattern with blanks on both sides of the sign takes quadratic time for a header of blanks.
    """
    sign = header.find("=", 1)
    return (header, "") if sign < 0 else (header[:sign].rstrip(), header[sign + 1 :].lstrip())


def _attribute(header: str) -> str:
    """Return the name of the attribute that a column seems to be about."""
    name, value = _name_and_class(header)
    moment = _MOMENT.fullmatch(header)
    return name if value else moment["name"] if moment else header


def _columns(header: Sequence[str]) -> str:
    if len(header) == 1:
        return f"its only column is {header[0]!r}; columns are separated by commas, semicolons or tabs"
    return f"columns: {', '.join(header[:12])}"


def _name(source: Path | TextIO) -> str:
    return str(source) if isinstance(source, Path) else "standard input"


def _check_columns(
    nodes: Sequence[Predicate], data: Mapping[str, AttributeData], header: Sequence[str], path: str, text: str
) -> None:
    missing = [node for node in nodes if node.name not in data]
    if missing:
        known = [_attribute(column) for column in header]
        suggestions = list(dict.fromkeys(filter(None, (closest(node.name, known) for node in missing))))
        raise UnknownAttribute(
            f"{path} has no column for {missing[0].name!r}",
            query=text,
            spans=[node.span for node in missing if node.span],
            hint=f"did you mean {', '.join(suggestions)}?" if suggestions else _columns(header),
            names=dict.fromkeys(node.name for node in missing),
        )
    for node in nodes:
        if isinstance(node, Interval | Near) and not isinstance(data[node.name], tuple):
            raise DataError(
                f"{path}: {node.name!r} has no std",
                hint=f"add a column {node.name}.std, or write {node.name} alone if it is the probability of yes",
            )
