"""The energy of a query on given predictions, without a model, and the ranking of a CSV table of predictions by it."""

from __future__ import annotations

import csv
import io
import math
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt
import torch

from energyql.attributes.predictions import PREDICTIONS
from energyql.energy.rule import SEMANTICS, EnergyRule, check_semantics, compile_energy_rule
from energyql.errors import ArgumentError, DataError, KindError, UnknownAttribute
from energyql.files import refuse_special, what_is_there
from energyql.kinds import KINDS, as_number, is_missing
from energyql.language import Expr, Interval, Near, Predicate, as_query, bind, predicates
from energyql.pipeline.settings import DEFAULT_SEMANTICS, Semantics
from energyql.vocabulary import AttributeSpec, Vocabulary, closest, repeated

Array = npt.NDArray[np.float64]
AttributeData = npt.ArrayLike | Mapping[str, npt.ArrayLike] | tuple[npt.ArrayLike, npt.ArrayLike]

SUM_TOLERANCE = 1e-3
"""Largest error of the sum of the probabilities of a categorical attribute; they are then scaled to the sum 1."""


def score(
    query: str | Expr,
    attributes: Mapping[str, AttributeData],
    semantics: Semantics = DEFAULT_SEMANTICS,
    *,
    vocabulary: Mapping[str, AttributeSpec] | None = None,
) -> Array:
    """Compute the energy of every row under a query.

    Args:
        query: text, or an expression.
        attributes: for each name, its predictions in each of n rows; a number holds for all rows.
            yes/no: probabilities `(n,)` of yes. Categorical: a dict from each class to probabilities `(n,)`, which add
            up to 1. Continuous: a tuple (mean, std) of arrays `(n,)`, std above 0.
        semantics: "exact", "product" or "lace".
        vocabulary: a model's description of the attributes: the range of a continuous one and its tolerance of `=`.
            Without it continuous attributes have no bounds, and classes are those of `attributes`.

    Returns:
        Energies `(n,)`, in nats, lower is better. Under `exact` that is `-log P(query)`, 0 where the query is certain
        and infinity where it is impossible.

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
) -> tuple[Array, EnergyRule]:
    """Return the energies of `score` and the compiled query."""
    if not isinstance(attributes, Mapping):
        raise DataError(
            f"attributes must be a dict from names to predictions, not {type(attributes).__name__}",
            hint='write {"smile": [0.9, 0.2]}',
        )
    specs: list[AttributeSpec] = []
    columns: dict[str, dict[str, Array]] = {}  # attribute -> label in errors -> predictions
    for name, data in attributes.items():
        spec, parts = _read(name, data)
        specs.append(spec)
        columns[spec.name] = {label: _array(label, part) for label, part in parts.items()}
    lengths = {label: len(values) for parts in columns.values() for label, values in parts.items() if values.ndim}
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"{label}: {length}" for label, length in list(lengths.items())[:6])
        raise DataError(
            f"arrays have different lengths ({listing})", hint="give a prediction of each attribute for each sample"
        )
    rows = next(iter(lengths.values()), 1)
    for spec in specs:
        columns[spec.name] = {label: np.broadcast_to(part, (rows,)) for label, part in columns[spec.name].items()}
        _check(spec, columns[spec.name])
    if vocabulary is not None:
        specs = [_known(spec, vocabulary, columns) for spec in specs]
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
    predictions = {
        spec.name: PREDICTIONS[spec.kind].of_table(_tensors(columns[spec.name]), spec)
        for spec in specs
        if spec.name in rule.attributes
    }
    with torch.no_grad():
        energy = 0.0 - rule.log_value(predictions)  # and not -value, which makes -0.0 of 0
    return energy.numpy(), rule


def _read(name: str, data: AttributeData) -> tuple[AttributeSpec, dict[str, Any]]:
    """Return the description of one attribute, and its predictions by their labels in errors."""
    if isinstance(data, Mapping):
        if not data or not all(isinstance(value, str) for value in data):
            raise DataError(
                f"attribute {name!r} needs at least one class, and classes are text",
                hint="give a dict of probabilities, class by class",
            )
        parts = {f"{name} = {value}": part for value, part in data.items()}
        return AttributeSpec(name, "categorical", values=tuple(data)), parts
    if isinstance(data, tuple):
        if len(data) != 2:
            raise DataError(
                f"attribute {name!r} is a tuple of {len(data)}, and (mean, std) has 2: write a list or array"
            )
        # nothing is known of its range
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


def _known(
    spec: AttributeSpec, vocabulary: Mapping[str, AttributeSpec], columns: dict[str, dict[str, Array]]
) -> AttributeSpec:
    """Return the vocabulary's description of an attribute, and put its classes in `columns` into the same order.

    Raises:
        DataError: the vocabulary has no such attribute, or one of another kind or with other classes.
    """
    entry = vocabulary.get(spec.name)
    if entry is None:
        raise DataError(f"the vocabulary has no attribute {spec.name!r}", hint=f"attributes: {', '.join(vocabulary)}")
    ends = KINDS[entry.kind].columns(entry)
    if set(ends) != set(KINDS[spec.kind].columns(spec)):
        expected = ", ".join(entry.values) or entry.kind
        raise DataError(f"attribute {spec.name!r} is {', '.join(spec.values) or spec.kind}, and should be {expected}")
    if entry.values:
        labels = [f"{spec.name} = {value}" for value in entry.values]
        columns[spec.name] = {label: columns[spec.name][label] for label in labels}
    return entry


def _check(spec: AttributeSpec, columns: Mapping[str, Array]) -> None:
    for label, values in columns.items():
        _refuse(label, values, ~np.isfinite(values), "a finite number")
        if not KINDS[spec.kind].numeric:
            _refuse(label, values, (values < 0) | (values > 1), "a probability from 0 to 1")
        elif label.startswith("std"):
            _refuse(label, values, values <= 0, "above 0")
    if len(columns) > 1 and not KINDS[spec.kind].numeric:
        total = np.sum(list(columns.values()), axis=0)
        label = f"sum of the probabilities of {spec.name}"
        _refuse(label, total, np.abs(total - 1) > SUM_TOLERANCE, "1")


def _refuse(label: str, values: Array, wrong: npt.NDArray[np.bool_], expected: str) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        more = f" (and {int(wrong.sum()) - 1} more rows)" if wrong.sum() > 1 else ""
        raise DataError(f"{label} is {values[row]:g} in row {row}{more}; it must be {expected}")


def _tensors(columns: Mapping[str, Array]) -> list[torch.Tensor]:
    return [torch.from_numpy(np.array(values)) for values in columns.values()]


MOST_CHARACTERS = 1 << 27
"""Longest table that is read, so that memory stays below some gigabytes, also for an input that never ends."""
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
        column = []
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
            column.append(number)
        return column

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
    """Return the delimiter, comma, semicolon or tab, that gives most columns; first those that give rows of one length.

    Args:
        read: function from a delimiter to the rows. They are not stored, because they take several times the memory of
            the text.
    """
    sizes = {mark: [len(cells) for cells in read(mark) if cells] for mark in ",;\t"}
    even = {mark: widths for mark, widths in sizes.items() if len(set(widths)) == 1 < widths[0]}
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
    if isinstance(source, Path):
        refuse_special(source, DataError)
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
        numbers: the numbers in these columns, a list for each row.
        header: names of the columns of the table.
        rows: the cells of the table, a list for each row.
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
    nodes, path = predicates(expr), _name(source)
    columns = {name: [row[k] for row in rows] for k, name in enumerate(header)}
    data = read_predictions(columns, {node.name for node in nodes}, path, lines)
    _check_columns(nodes, data, header, path, text)
    energy, rule = score_with_rule(query, data, semantics)
    energy = np.broadcast_to(energy, (len(rows),))
    added = ["rank", "energy", *(["probability"] if rule.is_probability else [])]
    if clashes := [name for name in added if name in header]:
        raise DataError(
            f"{path} has a column {clashes[0]!r} already",
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
    """Return the name of the attribute in the header of a column, such as `hair=black` or `age.mean`."""
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
        names = [_attribute(column) for column in header]
        suggestions = list(dict.fromkeys(filter(None, (closest(node.name, names) for node in missing))))
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
