"""Rank a CSV table of predictions by a query."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np

from energyql.errors import DataError
from energyql.language import as_query
from energyql.scoring import AttributeData, score

_CLASS = re.compile(r"(?P<name>.+?)\s*=\s*(?P<value>.+)")
_MOMENT = re.compile(r"(?P<name>.+)[._](?P<moment>mean|std)")


def read_predictions(columns: dict[str, list[str]], wanted: set[str], source: str) -> dict[str, AttributeData]:
    """The columns of a table that predict the `wanted` attributes, in the form that `score` takes.

    `smile` holds the probability of yes; `hair=black`, `hair=red`, ... those of each class; `age.mean` and `age.std`
    (or `age` and `age_std`) a mean and a standard deviation.

    Raises:
        DataError: a cell is no number, or a standard deviation has no mean.
    """
    yes: dict[str, list[float]] = {}
    classes: dict[str, dict[str, list[float]]] = {}
    moments: dict[str, dict[str, list[float]]] = {}
    for header, cells in columns.items():
        if match := _CLASS.fullmatch(header):
            if match["name"] in wanted:
                classes.setdefault(match["name"], {})[match["value"]] = _numbers(header, cells, source)
        elif (match := _MOMENT.fullmatch(header)) and header not in wanted and match["name"] in wanted:
            moments.setdefault(match["name"], {})[match["moment"]] = _numbers(header, cells, source)
        elif header in wanted:
            yes[header] = _numbers(header, cells, source)
    data: dict[str, AttributeData] = {**yes, **classes}
    for name, pair in moments.items():
        pair.setdefault("mean", yes.get(name, []))
        for moment in ("mean", "std"):
            if not pair.get(moment):
                raise DataError(f"{source}: {name!r} has no {moment}", hint=f"add a column {name}.{moment}")
        data[name] = (pair["mean"], pair["std"])
    return data


def _numbers(header: str, cells: list[str], source: str) -> list[float]:
    numbers = []
    for i, cell in enumerate(cells):
        try:
            numbers.append(float(cell))
        except ValueError:
            raise DataError(f"{source}, line {i + 2}, column {header!r}: {cell!r} is not a number") from None
    return numbers


def rank_table(query: str, path: Path, *, semantics: str = "exact", top: int | None = None) -> str:
    """The rows of a CSV file with their energy and probability under a query, most probable first.

    Returns:
        CSV text: the columns `rank`, `energy` (nats, lower is better) and `probability`, then those of the file.

    Raises:
        DataError: the file cannot be read, or is not a table of numbers where the query needs them.
        EnergyQLError: the query is wrong.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [row for row in csv.reader(file, strict=True) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    header = [name.strip() for name in header]
    if not rows:
        raise DataError(f"{path} has no rows", hint="the first line names the columns, the others hold numbers")
    if len(set(header)) < len(header):
        raise DataError(f"{path}: column {next(n for n in header if header.count(n) > 1)!r} appears twice")
    for i, row in enumerate(rows):
        if len(row) != len(header):
            raise DataError(f"{path}, line {i + 2}: {len(row)} cells, but {len(header)} columns")
    expr, _ = as_query(query)
    wanted = {node.name for node in expr.walk() if hasattr(node, "name")}
    columns = {name: [row[k] for row in rows] for k, name in enumerate(header)}
    energy = np.broadcast_to(score(query, read_predictions(columns, wanted, str(path)), semantics), (len(rows),))
    order = np.argsort(energy, kind="stable")[:top]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank", "energy", "probability", *header])
    for rank, i in enumerate(order, start=1):
        writer.writerow([rank, f"{energy[i]:.6g}", f"{np.exp(-energy[i]):.6g}", *rows[i]])
    return text.getvalue()
