"""The columns of a table of labels that say which pictures it is about, so that the table is complete by itself.

A table that `energyql label` writes looks like

    index,chosen,drawn,glasses,hair=black|brown|blond
    0,random,seed=7 truncation=0.7 generator=1f0c5a92d3e8,yes,black
    1000452,unsure,seed=7 truncation=0.7 generator=1f0c5a92d3e8,no,blond
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from energyql.errors import ArgumentError, DataError, ModelError, VocabularyError
from energyql.files import read_json
from energyql.generators.base import Generator, Label
from energyql.generators.families import module_fingerprint
from energyql.numerics.shapes import Int
from energyql.pipeline.saved import LABELLING
from energyql.sampling import uniforms
from energyql.vocabulary import AttributeSpec, Vocabulary

INDEX, CHOSEN, DRAWN = "index", "chosen", "drawn"
"""Columns: the number of the picture, how it was chosen, and how it was drawn."""
RANDOM, UNSURE = "random", "unsure"
"""Values of `CHOSEN`: without regard to heads, or because heads were not sure about it."""
POOL_START, POOL_SIZE = 1_000_000, 5_000
"""Number of the first picture that is drawn only to choose from, since the numbers below are for random pictures; and
how many there are, unless a call says otherwise."""
POOL = ".pool"
"""Subfolder, beside a table, with thumbnails of the pictures that a teacher chose from."""
TEST_SHARE = 0.2
"""Share of the random pictures of a table with the column `CHOSEN` that only the report uses."""
TOLERANCE = 0.05
"""Default tolerance of `=` for a continuous attribute, as a share of its range."""
_DIGITS = 12
_RANGE = re.compile(r"(?P<low>[-+.\deE]+?)\.\.(?P<high>[-+.\deE]+)")


@dataclass(frozen=True)
class Drawn:
    """How pictures were drawn from the prior of a generator.

    Attributes:
        seed: picture i is prior sample i of this seed.
        truncation: psi.
        generator: the first digits of its fingerprint; "" for a generator that is not a torch module.
        label: class label of a conditional generator.
    """

    seed: int
    truncation: float
    generator: str = ""
    label: Label | None = None

    @classmethod
    def by(cls, generator: Generator, seed: int, truncation: float, label: Label | None) -> Drawn:
        """Describe pictures of this generator."""
        return cls(seed, truncation, module_fingerprint(generator)[:_DIGITS], label)

    def __str__(self) -> str:
        parts = {"seed": self.seed, "truncation": self.truncation, "generator": self.generator}
        if self.label is not None:
            numbers = self.label if isinstance(self.label, tuple) else (self.label,)
            parts["label"] = ",".join(map(repr, numbers))
        return " ".join(f"{name}={value}" for name, value in parts.items())

    @classmethod
    def parse(cls, text: str, source: str) -> Drawn:
        """Read the text of `str(drawn)`.

        Raises:
            DataError: it is something else; the message names the table, `source`.
        """
        try:
            parts = dict(part.split("=", 1) for part in text.split())
            found = parts.pop("label", None)
            label: Label | None = None
            if found is not None:
                label = tuple(map(float, found.split(","))) if "," in found else int(found)
            return cls(int(parts["seed"]), float(parts["truncation"]), parts["generator"], label)
        except (KeyError, ValueError):
            raise DataError(
                f"{source}: {text!r} does not say how the pictures were drawn",
                hint=f"the column {DRAWN!r} holds texts such as {str(cls(7, 0.7, '1f0c5a92d3e8'))!r}",
            ) from None

    @classmethod
    def beside(cls, table: Path) -> Drawn | None:
        """Read how the pictures in the folder of a table were drawn; `None` if it is no folder of pictures to label.

        Raises:
            DataError: its record is damaged.
        """
        record = table.with_name(LABELLING)
        if not record.is_file():
            return None
        try:
            text = read_json(record).get(DRAWN)
        except ModelError as error:
            raise DataError(error.message, hint=error.hint) from error
        return None if text is None else cls.parse(str(text), str(record))

    def check(self, source: str, *, seed: int | None, truncation: Any, label: Any) -> None:
        """Check settings that somebody gives besides the table `source`; `None` is not given.

        Raises:
            ArgumentError: they are about other pictures.
        """
        given = {"seed": seed, "truncation": truncation, "label": label}
        for name, value in given.items():
            value = tuple(value) if isinstance(value, list) else value
            if value is not None and value != getattr(self, name):
                raise ArgumentError(
                    f"{source} is about pictures of {name} {getattr(self, name)}, not {value}",
                    hint=f"leave out the {name}",
                )

    def check_generator(self, generator: Generator, source: str) -> None:
        """Check that the pictures are those of this generator.

        Raises:
            DataError: they are not.
        """
        own = module_fingerprint(generator)[:_DIGITS]
        if self.generator and own and self.generator != own:
            raise DataError(
                f"{source} is about pictures of another generator",
                hint="give the checkpoint or model that energyql sample drew them with",
            )


def take_drawn(columns: dict[str, list[Any]], source: str) -> Drawn | None:
    """Remove the column `DRAWN` from a table, and read it; `None` if there is none.

    Raises:
        DataError: it is damaged, or its rows differ.
    """
    if DRAWN not in columns:
        return None
    found = sorted({str(cell).strip() for cell in columns.pop(DRAWN)})
    if len(found) > 1:
        raise DataError(
            f"{source}: its pictures were drawn in different ways: {found[0]!r} and {found[1]!r}",
            hint="keep pictures of different seeds or truncations in different tables",
        )
    return Drawn.parse(found[0], source) if found else None


def held_out_order(
    index: Int[Tensor, " rows"], chosen: Sequence[Any], seed: int, source: str
) -> tuple[list[int], int, int]:
    """Order the rows of a table for a training: chosen by heads, random, and random for the report only.

    Heads must not choose the pictures that they are measured on: those are the hardest ones, and a report on them would
    be about other pictures in each round. So a fixed share of the random pictures, by a random number of each picture's
    own, is kept for the report. It stays the same when rows are added.

    Args:
        index: numbers of the pictures.
        chosen: the column `CHOSEN`.
        seed: of the pictures.
        source: name of the table in messages.

    Returns:
        The order, the number of rows that were chosen by heads, and the number of rows for the report.

    Raises:
        DataError: a cell of the column is something else.
    """
    groups: dict[str, list[int]] = {UNSURE: [], RANDOM: [], "test": []}
    for row, (number, cell) in enumerate(zip(index.tolist(), chosen, strict=True)):
        kind = str(cell).strip()
        if kind not in (RANDOM, UNSURE):
            raise DataError(
                f"{source}, row {row + 1}: {CHOSEN!r} is {cell!r}, not {RANDOM} or {UNSURE}",
                hint="energyql label writes this column: leave it as it is",
            )
        kept = kind == RANDOM and float(uniforms(seed, number, 1, 1, stream="test")) < TEST_SHARE
        groups["test" if kept else kind].append(row)
    return [*groups[UNSURE], *groups[RANDOM], *groups["test"]], len(groups[UNSURE]), len(groups["test"])


def parse_attributes(text: str) -> Vocabulary:
    """Read attributes from a text such as "glasses, hair=black|brown|blond, age=0..1".

    Raises:
        VocabularyError: a part is not `name`, `name=class|class` or `name=low..high`, or a name is used twice or is
            that of another column of the table.
    """
    specs = [parse_attribute(part.strip()) for part in text.split(",") if part.strip()]
    if not specs:
        raise VocabularyError("there are no attributes", hint='write them as in "glasses, hair=black|brown, age=0..1"')
    return Vocabulary(specs)


def parse_attribute(text: str) -> AttributeSpec:
    """Read one attribute: `name`, `name=class|class` or `name=low..high`; see `parse_attributes`."""
    name, equals, domain = (part.strip() for part in text.partition("="))
    if name in (INDEX, CHOSEN, DRAWN):
        raise VocabularyError(
            f"an attribute cannot be called {name!r}: the table has another column of that name",
            hint="choose another name",
        )
    if not equals:
        return AttributeSpec(name, "yes/no")
    try:
        if bounds := _RANGE.fullmatch(domain):
            low, high = float(bounds["low"]), float(bounds["high"])
            return AttributeSpec(name, "continuous", low=low, high=high, tolerance=TOLERANCE * abs(high - low) or 1.0)
    except ValueError:
        pass
    if "|" not in domain:
        raise VocabularyError(
            f"{text!r} is not an attribute",
            hint=f"write {name} for yes/no, {name}=black|brown for classes, {name}=0..1 for a number",
        )
    return AttributeSpec(name, "categorical", values=tuple(value.strip() for value in domain.split("|")))


def attribute_text(spec: AttributeSpec) -> str:
    """Return the text that `parse_attribute` reads."""
    low, high = (repr(bound).removesuffix(".0") for bound in (spec.low, spec.high))
    domain = {"yes/no": "", "categorical": "|".join(spec.values), "continuous": f"{low}..{high}"}[spec.kind]
    return f"{spec.name}={domain}" if domain else spec.name
