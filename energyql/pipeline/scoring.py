"""The energy of a query on given predictions, without a model: for tables, tests and other generators."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from energyql.attributes.predictions import Categorical, Continuous, Prediction, YesNo
from energyql.energy.rule import WITHOUT_FLOOR, EnergyRule, compile_energy_rule
from energyql.errors import ArgumentError, DataError, KindError, UnknownAttribute
from energyql.language import Expr, as_query, bind
from energyql.pipeline.settings import DEFAULT_SEMANTICS, Semantics
from energyql.vocabulary import AttributeSpec, Vocabulary

Array = npt.NDArray[np.float64]
AttributeData = npt.ArrayLike | Mapping[str, npt.ArrayLike] | tuple[npt.ArrayLike, npt.ArrayLike]

SUM_TOLERANCE = 1e-3
"""How far the probabilities of a categorical attribute may be from adding up to 1; they are then scaled to do so."""


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
        >>> from energyql.pipeline.scoring import score
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
        shown = ", ".join(f"{label}: {length}" for label, length in list(lengths.items())[:6])
        raise DataError(
            f"arrays have different lengths ({shown})", hint="give a prediction of each attribute for each sample"
        )
    rows = next(iter(lengths.values()), 1)
    for spec in specs:
        columns[spec.name] = {label: np.broadcast_to(part, (rows,)) for label, part in columns[spec.name].items()}
        _check(spec, columns[spec.name])
    if vocabulary is not None:
        specs = [_known(spec, vocabulary, columns) for spec in specs]
    if semantics in WITHOUT_FLOOR:
        raise ArgumentError(f"{semantics} reads logits, and predictions here are probabilities", hint="choose exact")
    known = Vocabulary(specs)
    expr, text = as_query(query)
    try:
        bound = bind(expr, known, query=text)
    except UnknownAttribute as error:
        error.message = f"there are no predictions of {error.names[0]!r}"  # there is no model that could lack it
        raise
    except KindError as error:
        if vocabulary is None:  # the form of the predictions alone says what each attribute is
            forms = "an array is P(yes), a dict has the P of each class, a tuple (mean, std) is of a number"
            error.hint = "\n".join([*filter(None, [error.hint]), f"predictions: {forms}"])
        raise
    rule = compile_energy_rule(bound, known, semantics, query=text)
    if not rule.attributes:
        return np.zeros(rows), rule
    predictions = {spec.name: _prediction(spec, columns[spec.name]) for spec in specs if spec.name in rule.attributes}
    with torch.no_grad():
        energy = 0.0 - rule.log_value(predictions)  # and not -value, which makes -0.0 of 0
    return energy.numpy(), rule


def _read(name: str, data: AttributeData) -> tuple[AttributeSpec, dict[str, Any]]:
    """Return the description of one attribute, and its predictions under their labels in errors."""
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
    """Return the vocabulary's description of an attribute; its order of classes is applied to `columns`."""
    known = vocabulary.get(spec.name)
    if known is None:
        raise DataError(f"the vocabulary has no attribute {spec.name!r}", hint=f"attributes: {', '.join(vocabulary)}")
    if known.kind != spec.kind or set(known.values) != set(spec.values):
        expected = ", ".join(known.values) or known.kind
        raise DataError(f"attribute {spec.name!r} is {', '.join(spec.values) or spec.kind}, and should be {expected}")
    if known.values:
        labels = [f"{spec.name} = {value}" for value in known.values]
        columns[spec.name] = {label: columns[spec.name][label] for label in labels}
    return known


def _check(spec: AttributeSpec, columns: Mapping[str, Array]) -> None:
    for label, values in columns.items():
        _refuse(label, values, ~np.isfinite(values), "a finite number")
        if spec.kind != "continuous":
            _refuse(label, values, (values < 0) | (values > 1), "a probability from 0 to 1")
        elif label.startswith("std"):
            _refuse(label, values, values <= 0, "above 0")
    if spec.kind == "categorical":
        total = np.sum(list(columns.values()), axis=0)
        label = f"sum of the probabilities of {spec.name}"
        _refuse(label, total, np.abs(total - 1) > SUM_TOLERANCE, "1")


def _refuse(label: str, values: Array, wrong: npt.NDArray[np.bool_], expected: str) -> None:
    if wrong.any():
        row = int(wrong.argmax())
        more = f" (and {int(wrong.sum()) - 1} more rows)" if wrong.sum() > 1 else ""
        raise DataError(f"{label} is {values[row]:g} in row {row}{more}; it must be {expected}")


def _prediction(spec: AttributeSpec, columns: Mapping[str, Array]) -> Prediction:
    first, *others = [torch.from_numpy(np.array(values)) for values in columns.values()]
    if spec.kind == "yes/no":
        return YesNo(first.log() - torch.log1p(-first))  # infinite for 0 and 1, which the log-sigmoid takes
    if spec.kind == "categorical":
        return Categorical(torch.stack([first, *others], dim=1).log(), spec.values)
    return Continuous(first, others[0])
