"""The questions that people answer about a picture in an audit: the query as a whole, or each of its conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from energyql.attributes.labels import label_images
from energyql.errors import DataError, ModelError
from energyql.kinds import BARE, CLASSES, KINDS, as_text, as_yes_no, is_missing, lacks_value
from energyql.language import Near, Predicate, bind, parse, predicates
from energyql.logic.satisfiability import combined, satisfied
from energyql.models import read_vocabulary
from energyql.vocabulary import AttributeSpec

Answer = bool | None
"""Yes, no, or `None`: the person cannot tell."""
Answers = Mapping[str, Answer]
"""Question -> answer. The question is `QUERY`, or the text of a condition such as "hair = red"."""
QUERY = "query"
_MOST_OPEN = 10
"""Most conditions without an answer for which all combinations of true and false are tried."""


def read_answer(value: object) -> Answer:
    """Return an answer in a file, which may also be 1 or 0, "yes" or "no"; `None` for null, else a `ValueError`."""
    number = as_yes_no(value)
    if number is None and value is not None:
        raise ValueError(f"{value!r:.40} is none of true, false and null")
    return None if number is None else bool(number)


class Question:
    """A query about which people are asked in an audit, split into its conditions on attributes.

    Args:
        text: the query, in canonical form.
        model: name or path of the model, "" if unknown; read only if a condition such as `age = 30` has no tolerance.

    Attributes:
        conditions: text of a condition, such as "hair = red" -> the condition as an expression.

    Raises:
        DataError: the query names no attribute, or a condition has no tolerance and the model cannot be read.
    """

    def __init__(self, text: str, model: str = "") -> None:
        self.text, self._expr = text, parse(text)
        self.conditions: dict[str, Predicate] = {}
        self._results: dict[tuple[Answer, ...], Answer] = {}
        if any(isinstance(node, Near) and node.tolerance is None for node in predicates(self._expr)):
            try:
                self._expr = bind(self._expr, read_vocabulary(model), query=text)
            except ModelError as error:
                hint = "draw pictures of a query with a tolerance, such as age = 30 +- 2"
                raise DataError(
                    f"the tolerance of a condition in {text} is not known: {error.message}", hint=hint
                ) from error
        self.conditions = {str(node): node for node in predicates(self._expr)}
        if not self.conditions:
            hint = "audit pictures of a query about attributes"
            raise DataError(f"the query {text} names no attribute, so there is nothing to ask", hint=hint)

    def holds(self, answers: Answers) -> Answer:
        """Whether a picture satisfies the query, according to answers to the query itself or to its conditions.

        `None` if the answers do not decide it, or more than 10 conditions have no answer.
        """
        if QUERY in answers:
            return answers[QUERY]
        given = tuple(answers.get(name) for name in self.conditions)
        if given not in self._results:
            self._results[given] = self._evaluate(dict(zip(self.conditions, given, strict=True)))
        return self._results[given]

    def _evaluate(self, answers: Answers) -> Answer:
        """Value of the query for all combinations of the answers that are open; `None` if it is not always the same."""
        open_conditions = [name for name, answer in answers.items() if answer is None]
        if len(open_conditions) > _MOST_OPEN:
            return None
        cases = np.arange(1 << len(open_conditions))  # a bit for each condition that is left open
        truths = {name: np.full(len(cases), answer is True) for name, answer in answers.items()}
        truths |= {name: cases >> bit & 1 == 1 for bit, name in enumerate(open_conditions)}
        possible = np.unique(combined(self._expr, truths))
        return bool(possible[0]) if len(possible) == 1 else None

    def read(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, list[Answer]]:
        """Whether several pictures satisfy each condition, from attribute values such as those of a judge.

        Args:
            columns: attribute -> its value for each picture, such as True, "red" or 31.0; missing values are `None`,
                NaN or "". Conditions on other attributes are left out.

        Raises:
            DataError: a value is no possible value of its attribute.
        """
        return {
            text: _truths(condition, columns[condition.name])
            for text, condition in self.conditions.items()
            if condition.name in columns
        }

    def ask(self, labeller: Any, image: Any) -> Answers:
        """Answers of a labeller to each condition about one picture, in place of those of a person.

        Args:
            labeller: function from pictures in [-1, 1], (batch, channels, height, width), to values by attribute.
            image: the picture, (1, channels, height, width).

        Raises:
            DataError: the labeller does not return a value of every attribute of the query.
        """
        columns = label_images(labeller, image)
        if missing := [node.name for node in self.conditions.values() if node.name not in columns]:
            raise DataError(f"the labeller does not return {missing[0]!r}, which the query {self.text} names")
        return {text: truth for text, (truth,) in self.read(columns).items()}


def _truths(condition: Predicate, cells: Sequence[Any]) -> list[Answer]:
    if condition.form == BARE:
        spec = AttributeSpec(condition.name, "yes/no")
    elif condition.form == CLASSES:
        # A class of each text, also of "none", and two more, because an attribute has at least two.
        texts = {as_text(cell) for cell in cells if isinstance(cell, str) or not is_missing(cell)} - {""}
        texts |= {*getattr(condition, "values", ()), "yes", "no"}
        spec = AttributeSpec(condition.name, "categorical", values=tuple(sorted(texts)))
    else:
        spec = AttributeSpec(condition.name, "continuous")
    known = [cell for cell in cells if not lacks_value(cell, spec)]
    encode = KINDS[spec.kind].labels.encoder(spec)
    numbers = [encode(cell) for cell in known]
    if None in numbers:
        wrong = f"{condition.name!r} is {known[numbers.index(None)]!r}, not {KINDS[spec.kind].labels.expected(spec)}"
        raise DataError(wrong, hint=f"the query asks for {condition}")
    values: npt.NDArray[Any] = np.array([float(number) for number in numbers if number is not None])
    if not KINDS[spec.kind].numeric:
        values = np.array(KINDS[spec.kind].values(spec))[values.astype(int)]
    truths = iter(satisfied(condition, {condition.name: values}, {condition.name: spec}).tolist() if known else [])
    return [None if lacks_value(cell, spec) else next(truths) for cell in cells]
