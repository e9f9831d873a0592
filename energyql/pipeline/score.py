"""The energy of a query for predictions that a user has, without a model; and rows of a CSV table ranked by energy."""

from __future__ import annotations

import csv
import io
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
import torch

from energyql.attributes.predictions import HEAD_KINDS
from energyql.energy.rule import SEMANTICS, EnergyRule, check_semantics, compile_energy_rule
from energyql.errors import ArgumentError, DataError, KindError, UnknownAttribute
from energyql.files import naming_source, read_bytes
from energyql.kinds import KINDS, as_number, is_missing
from energyql.language import Expr, Interval, Near, Predicate, as_query, bind, predicates
from energyql.language.lexical import shorten
from energyql.pipeline.settings import DEFAULT_SEMANTICS, Semantics
from energyql.vocabulary import AttributeSpec, Vocabulary, closest, repeated

Array = npt.NDArray[np.float64]
AttributeData = npt.ArrayLike | Mapping[str, npt.ArrayLike] | tuple[npt.ArrayLike, npt.ArrayLike]

SUM_TOLERANCE = 1e-3
"""Largest difference from 1 that the sum of the probabilities of a categorical attribute may have. The probabilities
are scaled so that their sum is 1."""


def score(
    query: str | Expr,
    attributes: Mapping[str, AttributeData],
    semantics: Semantics = DEFAULT_SEMANTICS,
    *,
    vocabulary: Mapping[str, AttributeSpec] | None = None,
) -> Array:
    """Compute the energy of a query for n rows of predictions, such as outputs of a classifier for n pictures.

    Args:
        query: text or expression, such as `"smile AND NOT hat"`.
        attributes: name of an attribute -> its predictions for n rows. Yes/no: probabilities of yes, `(n,)`.
            Categorical: a dict from each class to its probabilities, `(n,)`, which add up to 1 in each row. Continuous:
            a tuple (mean, std) of arrays `(n,)`, std above 0. A number in place of an array applies to all rows.
        semantics: how the query becomes an energy: "exact", "product" or "lace".
        vocabulary: attribute -> its description, such as that of a model: the classes, or the range and the tolerance
            of `=` of a continuous attribute. Without a vocabulary continuous attributes have no bounds, and the classes
            are those in `attributes`.

    Returns:
        Energies `(n,)`, in nats, lower is better. Under "exact" the energy is `-log P(query)`: 0 where the query is
        certain, and infinity where it is impossible.

    Raises:
        DataError: an array has the wrong shape, holds a value that is not a probability or does not fit the vocabulary;
            the message names the attribute and row.
        EnergyQLError: the query is wrong, or names an attribute that is missing from `attributes`.

    Example:
        >>> from energyql.pipeline.score import score
        >>> score("smile AND NOT hat", {"smile": [0.5, 1.0], "hat": [0.5, 0.0]}).round(3) + 0.0
        array([1.386, 0.   ])
    """
    return score_with_rule(query, attributes, semantics, vocabulary)[0]


def score_with_rule(
    query: str | Expr,
    attributes: Mapping[str, AttributeData],
    semantics: Semantics,
    vocabulary: Mapping[str, AttributeSpec] | None = None,
    place: Callable[[int], str] = "row {}".format,
) -> tuple[Array, EnergyRule]:
    """Return the energies of a query, (n,), as `score` does, and the compiled query.

    `place` names the row of a number, from 0, in errors.
    """
    specs: list[AttributeSpec] = []
    columns: dict[str, dict[str, Array]] = {}  # attribute -> label in errors -> predictions
    for name, data in attributes.items():
        spec, parts = _read(name, data)
        specs.append(spec)
        columns[spec.name] = {label: _array(label, part) for label, part in parts.items()}
    lengths = {label: len(values) for parts in columns.values() for label, values in parts.items() if values.ndim}
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"{label}: {length}" for label, length in list(lengths.items())[:6])
        raise DataError(f"arrays have different lengths ({listing})")
    rows = next(iter(lengths.values()), 1)
    for spec in specs:
        columns[spec.name] = {label: np.broadcast_to(part, (rows,)) for label, part in columns[spec.name].items()}
        _check(spec, columns[spec.name], place)
    if vocabulary is not None:
        specs = [_in_vocabulary(spec, vocabulary, columns) for spec in specs]
    if not SEMANTICS[check_semantics(semantics)].has_floor:
        raise ArgumentError(f"{semantics} reads logits, and predictions here are probabilities", hint="choose exact")
    own_vocabulary = Vocabulary(specs)
    expr, text = as_query(query)
    try:
        bound = bind(expr, own_vocabulary, query=text)
    except UnknownAttribute as error:
        error.message = f"there are no predictions of {error.names[0]!r}"  # there is no model that could lack it
        raise
    except KindError as error:
        if vocabulary is None:  # the form of the predictions alone says what each attribute is
            forms = "an array is P(yes), a dict has the P of each class, a tuple (mean, std) is of a number"
            error.hint = "\n".join([*filter(None, [error.hint]), f"predictions: {forms}"])
        raise
    rule = compile_energy_rule(bound, own_vocabulary, semantics, query=text)
    if not rule.attributes:
        return np.zeros(rows), rule
    predictions = {}
    for spec in (spec for spec in specs if spec.name in rule.attributes):
        tensors = [torch.from_numpy(np.array(values)) for values in columns[spec.name].values()]
        predictions[spec.name] = HEAD_KINDS[spec.kind].of_table(tensors, spec)
    with torch.no_grad():
        energy = 0.0 - rule.log_value(predictions)  # and not -value, which makes -0.0 of 0
    return energy.numpy(), rule


def _read(name: str, data: AttributeData) -> tuple[AttributeSpec, dict[str, Any]]:
    """Description of an attribute by the form of its predictions; and label in errors -> predictions."""
    if isinstance(data, Mapping):
        parts = {f"{name} = {value}": part for value, part in data.items()}
        return AttributeSpec(name, "categorical", values=tuple(data)), parts
    if isinstance(data, tuple):
        if len(data) != 2:
            raise DataError(f"attribute {name!r} is a tuple of {len(data)}, and (mean, std) has 2")
        spec = AttributeSpec(name, "continuous", low=-sys.float_info.max, high=sys.float_info.max)
        return spec, {f"mean of {name}": data[0], f"std of {name}": data[1]}
    return AttributeSpec(name, "yes/no"), {name: data}


def _array(label: str, data: Any) -> Array:
    try:
        values = np.asarray(data, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{label} is not an array of numbers: {error}") from None
    if values.ndim > 1:
        raise DataError(f"{label} has shape {values.shape}; it must be (n,) or a number")
    return values


def _in_vocabulary(
    spec: AttributeSpec, vocabulary: Mapping[str, AttributeSpec], columns: dict[str, dict[str, Array]]
) -> AttributeSpec:
    """Description of an attribute in the vocabulary; sorts its `columns` in the order of the classes."""
    entry = vocabulary.get(spec.name)
    if entry is None:
        raise DataError(f"the vocabulary has no attribute {spec.name!r}", hint=f"attributes: {', '.join(vocabulary)}")
    if set(KINDS[entry.kind].columns(entry)) != set(KINDS[spec.kind].columns(spec)):
        form, expected = (", ".join(each.values) or each.kind for each in (spec, entry))
        raise DataError(f"attribute {spec.name!r} is {form}, and should be {expected}")
    if entry.values:
        labels = [f"{spec.name} = {value}" for value in entry.values]
        columns[spec.name] = {label: columns[spec.name][label] for label in labels}
    return entry


def _check(spec: AttributeSpec, columns: Mapping[str, Array], place: Callable[[int], str]) -> None:
    """Raise a `DataError` if predictions of one attribute are not finite, or are no probabilities or deviations."""
    numeric = KINDS[spec.kind].numeric
    checks = [(label, values, ~np.isfinite(values), "a finite number") for label, values in columns.items()]
    for label, values in columns.items():
        if not numeric:
            checks.append((label, values, (values < 0) | (values > 1), "a probability from 0 to 1"))
        elif label.startswith("std"):
            checks.append((label, values, values <= 0, "above 0"))
    if len(columns) > 1 and not numeric:
        total = np.sum(list(columns.values()), axis=0)
        checks.append((f"sum of the probabilities of {spec.name}", total, np.abs(total - 1) > SUM_TOLERANCE, "1"))
    for label, values, wrong, expected in checks:
        if wrong.any():
            row, others = int(wrong.argmax()), int(wrong.sum()) - 1
            more = f" (and {others} more rows)" if others else ""
            raise DataError(f"{label} is {values[row]:g} in {place(row)}{more}; it must be {expected}")


MOST_CHARACTERS = 1 << 27
"""Longest table that is read, in characters, so that memory stays below some gigabytes even if the input never ends."""
_DECIMAL_COMMA = re.compile(r"\s*[+-]?\d+,\d+\s*")
_MOMENT = re.compile(r"(?P<name>.+)[._](?P<moment>mean|std)")


def read_predictions(
    columns: Mapping[str, Sequence[str]], names: set[str], source: str, lines: Sequence[int]
) -> dict[str, AttributeData]:
    """Read the predictions of some attributes from the columns of a table, and return them by attribute.

    A column `smile` holds the probability of yes, and gives a list of numbers. Columns `hair=black`, `hair=red`, ...
    hold the probability of each class, and give a dict from class to list. Columns `age.mean` and `age.std` (or `age`
    and `age_std`) hold a mean and a standard deviation, and give a tuple of two lists.

    Args:
        columns: header of each column -> its cells as text; columns of other attributes are ignored.
        names: the attributes to read; attributes without a column are left out of the result.
        source: name of the file, for messages.
        lines: for each row, the number of its line in the file, for messages.

    Raises:
        DataError: a cell is no number, a mean or a standard deviation is missing, or two forms of columns predict one
            attribute.
    """
    single = [header for header in columns if header in names]
    classes: dict[str, dict[str, str]] = {}  # name -> class -> header
    moments: dict[str, dict[str, str]] = {}  # name -> mean or std -> header
    for header in columns:
        if header in names:
            continue
        name, value = _name_and_class(header)
        if value and name in names:
            classes.setdefault(name, {})[value] = header
        elif (match := _MOMENT.fullmatch(header)) and match["name"] in names:
            moments.setdefault(match["name"], {})[match["moment"]] = header

    def numbers(header: str) -> list[float]:
        column = []
        for cell, line in zip(columns[header], lines, strict=True):
            try:
                column.append(float(cell))
            except ValueError:
                message = f"{source}, line {line}, column {header!r}: {cell!r} is not a number"
                raise DataError(message, hint="correct it, or leave the row out") from None
        return column

    data: dict[str, AttributeData] = {}
    for name in dict.fromkeys([*single, *classes, *moments]):
        if name in single and name in classes:
            other = next(iter(classes[name].values()))
            raise DataError(f"{source}: the columns {name!r} and {other!r} both predict {name!r}")
        if name in moments:
            pair = {"mean": name, **moments[name]} if name in single else moments[name]
            if missing := [moment for moment in ("mean", "std") if moment not in pair]:
                raise DataError(f"{source}: {name!r} has no {missing[0]}", hint=f"add a column {name}.{missing[0]}")
            data[name] = (numbers(pair["mean"]), numbers(pair["std"]))
        elif name in classes:
            data[name] = {value: numbers(header) for value, header in classes[name].items()}
        else:
            data[name] = numbers(name)
    return data


def find_delimiter(text: str) -> str:
    """Return the delimiter of a CSV table: comma, semicolon or tab, whichever splits the first row into most cells.

    Delimiters that split all rows into an equal number of cells, at least two, go before others.
    """
    tables = {mark: csv.reader(io.StringIO(text, newline=""), delimiter=mark) for mark in ",;\t"}
    sizes = {mark: [len(cells) for cells in rows if cells] for mark, rows in tables.items()}
    even = {mark: widths for mark, widths in sizes.items() if len(set(widths)) == 1 < widths[0]}
    return max(even or sizes, key=lambda mark: sizes[mark][0] if sizes[mark] else 0)


def with_points(cells: list[str]) -> list[str]:
    """Return the cells of a column with decimal points in place of decimal commas, such as "0.5" for "0,5".

    If a cell is neither a number nor missing (empty or "NA"), all cells are returned unchanged.
    """
    changed = [cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell for cell in cells]
    return changed if all(is_missing(cell) or as_number(cell) is not None for cell in changed) else cells


def read_table(source: Path | TextIO, *, strict: bool = True) -> tuple[dict[str, list[str]], list[int]]:
    """Read a table from a CSV file, or from an open text such as standard input.

    Cells are separated by commas, semicolons or tabs. With semicolons or tabs, numbers may have decimal commas, which
    are replaced by points.

    Args:
        source: the file or open text.
        strict: whether wrong quotes are an error; otherwise they are a part of the cell.

    Returns:
        Name of each column -> its cells as text, from the first row to the last; and for each row the number of the
        line in the file on which the row ends.

    Raises:
        DataError: the file cannot be read, is empty, or is no table.
    """
    path = _name(source)
    try:
        with naming_source(Path(path), DataError):
            if isinstance(source, Path):
                text = read_bytes(source, MOST_CHARACTERS, DataError).decode("utf-8-sig")
            elif len(text := source.read(MOST_CHARACTERS + 1)) > MOST_CHARACTERS:
                raise DataError(f"{path} is longer than {MOST_CHARACTERS >> 20} Mi characters")
            delimiter = find_delimiter(text)
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=strict)
            numbered = [(row, reader.line_num) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        hint = "save it again as CSV in UTF-8, with cells between commas, semicolons or tabs, and perhaps in quotes"
        raise DataError(f"cannot read {path}: {error}", hint=hint) from error
    if not numbered:
        raise DataError(f"{path} is empty", hint="the first line names the columns; a row for each picture follows")
    header, *rows = numbered
    names = [name.strip() for name in header[0]]
    if (twice := repeated(names)) is not None:
        wrong = f"column {twice!r} appears twice" if twice else "the first line does not name every column"
        raise DataError(f"{path}: {wrong}: {shorten(', '.join(names), 120)}", hint="name each column once")
    for row, line in rows:
        if len(row) != len(names):
            wrong = f"{path}, line {line}: {len(row)} cells where the first line has {len(names)}"
            raise DataError(wrong, hint="each line has a cell for each column; a cell with a comma stands in quotes")
    columns = {name: [row[k] for row, _ in rows] for k, name in enumerate(names)}
    if delimiter != ",":
        columns = {name: with_points(cells) for name, cells in columns.items()}
    return columns, [line for _, line in rows]


@dataclass(frozen=True)
class Ranking:
    """Rows of a table in the order of their energy under a query, the lowest first.

    Attributes:
        header: names of the columns. First come added columns: `rank` (from 1), `energy` in nats, and `probability` if
            the energy is -log P(query). Then come the columns of the table.
        rows: for each row, a list with the numbers of the added columns and then the cells of the table as text.
    """

    header: list[str]
    rows: list[list[int | float | str]]

    def to_csv(self) -> str:
        """Return the table as CSV text; numbers have 6 significant digits."""
        output = io.StringIO()
        writer = csv.writer(output, lineterminator="\n")
        writer.writerow(self.header)
        writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in self.rows)
        return output.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Return the rows as `{"rows": [{column: cell, ...}, ...]}`, for JSON; an infinite energy becomes `None`."""
        rows = ([None if cell in (math.inf, -math.inf) else cell for cell in row] for row in self.rows)
        return {"rows": [dict(zip(self.header, row, strict=True)) for row in rows]}


def rank_table(
    query: str, source: Path | TextIO, *, semantics: Semantics = DEFAULT_SEMANTICS, top: int | None = None
) -> Ranking:
    """Return the rows of a CSV file, or of an open text, in the order of their energy under a query, lowest first.

    Args:
        source: its columns are predictions: `smile` (probability of yes), `hair=red` (probability of a class),
            `age.mean` and `age.std`. Other columns are kept.
        semantics: "exact", "product" or "lace".
        top: number of rows to return; `None` for all.

    Raises:
        UnknownAttribute: the file has no column for a name in the query.
        DataError: the file cannot be read, or is not a table of numbers where the query needs them.
        EnergyQLError: the query is wrong.
    """
    expr, text = as_query(query)
    columns, lines = read_table(source)
    nodes, path = predicates(expr), _name(source)
    if not lines:
        raise DataError(f"{path} has no rows", hint="the first line names the columns, the others hold numbers")
    data = read_predictions(columns, {node.name for node in nodes}, path, lines)
    _check_columns(nodes, data, list(columns), path, text)
    energy, rule = score_with_rule(query, data, semantics, place=lambda row: f"{path}, line {lines[row]}")
    energy = np.broadcast_to(energy, (len(lines),))
    added = ["rank", "energy", "probability"][: 3 if rule.is_probability else 2]
    if clashes := [name for name in added if name in columns]:
        raise DataError(f"{path} has a column {clashes[0]!r} already", hint="rename it, or leave it out")
    order = np.argsort(energy, kind="stable")[:top]
    rows = list(zip(*columns.values(), strict=True))
    ranked: list[list[int | float | str]] = []
    for rank, i in enumerate(order, start=1):
        numbers = rank, float(energy[i]), math.exp(-energy[i])
        ranked.append([*numbers[: len(added)], *rows[i]])
    return Ranking([*added, *columns], ranked)


def _name_and_class(header: str) -> tuple[str, str]:
    """Split a header such as "hair=black" into attribute and class ("" without "=").

    A regular expression that allows blanks around "=" would take quadratic time on a header of blanks.
    """
    sign = header.find("=", 1)
    return (header, "") if sign < 0 else (header[:sign].rstrip(), header[sign + 1 :].lstrip())


def _attribute(header: str) -> str:
    """Attribute that a header names: "hair" for "hair=black", "age" for "age.mean"."""
    name, value = _name_and_class(header)
    moment = _MOMENT.fullmatch(header)
    return name if value else moment["name"] if moment else header


def _name(source: Path | TextIO) -> str:
    return str(source) if isinstance(source, Path) else "standard input"


def _check_columns(
    nodes: Sequence[Predicate], data: Mapping[str, AttributeData], header: Sequence[str], path: str, text: str
) -> None:
    missing = [node for node in nodes if node.name not in data]
    if missing:
        names = [_attribute(column) for column in header]
        near = dict.fromkeys(filter(None, (closest(node.name, names) for node in missing)))
        others = f"columns: {', '.join(header[:12])}; they are separated by commas, semicolons or tabs"
        raise UnknownAttribute(
            f"{path} has no column for {missing[0].name!r}",
            query=text,
            spans=[node.span for node in missing if node.span],
            hint=f"did you mean {', '.join(near)}?" if near else others,
            names=dict.fromkeys(node.name for node in missing),
        )
    for node in nodes:
        if isinstance(node, Interval | Near) and not isinstance(data[node.name], tuple):
            hint = f"add a column {node.name}.std, or write {node.name} alone if it is the probability of yes"
            raise DataError(f"{path}: {node.name!r} has no std", hint=hint)
