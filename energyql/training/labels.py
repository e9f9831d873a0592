"""Labels of given samples: tables, the pictures that they are about, and the attributes that their columns hold.

A table that `energyql label` writes looks like

    index,chosen,drawn,glasses,hair=black|brown|blond
    0,random,seed=7 truncation=0.7 generator=1f0c5a92d3e8,yes,black
    1000452,unsure,seed=7 truncation=0.7 generator=1f0c5a92d3e8,no,blond
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.labels import Column
from energyql.errors import ArgumentError, DataError, LabelWarning, ModelError, VocabularyError, caller_level
from energyql.files import read_json, read_tensors
from energyql.generators.base import Generator, Label
from energyql.generators.families import module_fingerprint
from energyql.kinds import KINDS, Kind, as_number, as_text, as_yes_no, is_missing
from energyql.numerics.shapes import Int
from energyql.pipeline.result_folder import LABELLING
from energyql.sampling import uniforms
from energyql.training.tables import read_columns, read_npy
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
_DIGITS = 12


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
    for kind in KINDS.values():
        if (fields := kind.parse_domain(equals + domain)) is not None:
            return AttributeSpec(name, kind.name, **fields)
    raise VocabularyError(
        f"{text!r} is not an attribute",
        hint=f"write {name} for yes/no, {name}=black|brown for classes, {name}=0..1 for a number",
    )


def attribute_text(spec: AttributeSpec) -> str:
    """Return the text that `parse_attribute` reads."""
    return spec.name + KINDS[spec.kind].domain(spec)


ENOUGH, RARE = 100, 20
"""Labels for each class on average (twice as many of a number), and of the rarest class, below which a training warns:
of a fifth that is held out, four labels of a class put its recall somewhere between 0.3 and 0.95."""


@dataclass(frozen=True)
class LabelTable:
    """Labels of given samples.

    Attributes:
        columns: attribute -> n cells.
        index: indices of prior samples, (n,); `None` where `latents` are given.
        latents: (n, latent_dim), in the space that the heads will read; `None` where `index` is given.
        learned: number of rows at the beginning that heads are fitted to, and that measure nothing.
        test: number of rows at the end that only the report uses; by default the training shuffles and chooses.
        vocabulary: the attributes of the columns, where they are known for certain.
        drawn: how the pictures were drawn, where the table says so.
        beside: how those in the folder of the table were drawn, where the table does not say so.
        pool: folder in which `sample_pictures` keeps thumbnails of the pictures that it chose from, if there is one.
        source: name of the table in messages.
    """

    columns: Mapping[str, Column]
    index: Tensor | None = None
    latents: Tensor | None = None
    learned: int = 0
    test: int | None = None
    vocabulary: Vocabulary | None = None
    drawn: Drawn | None = None
    beside: Drawn | None = None
    pool: Path | None = None
    source: str = "the table"

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))


def infer(
    columns: Mapping[str, Column], kinds: Mapping[str, Kind] | None = None, known: Vocabulary | None = None
) -> Vocabulary:
    """Infer the kind of each column.

    0/1, true/false and yes/no are yes/no; numbers are continuous; other text is categorical. A column of texts that
    mostly differ, such as file names, is left out with a warning. A kind in `kinds` is not inferred; other attributes
    in `known` are used as they are.

    Raises:
        DataError: a column is empty or constant, or has too many classes, or no column is left.
        VocabularyError: a name in `kinds` is no column.

    Warns:
        LabelWarning: a column is left out.
    """
    kinds, known = kinds or {}, known or Vocabulary([])
    if unknown := [name for name in kinds if name not in columns]:
        raise VocabularyError(f"there is no column {unknown[0]!r}", hint=f"columns: {', '.join(columns)}")
    given = {*kinds, *known}
    left_out = [name for name, cells in columns.items() if name not in given and _is_free_text(cells)]
    for name in left_out:
        cells = ", ".join(repr(cell) for cell in columns[name][:2])
        warnings.warn(
            f"column {name!r} is left out: its texts, such as {cells}, mostly differ, so they are no classes",
            LabelWarning,
            stacklevel=caller_level(),
        )
    if len(left_out) == len(columns):
        raise DataError("there is no column of labels", hint="a column for each attribute, such as smile with yes, no")
    return Vocabulary(
        known[name] if name in known and name not in kinds else _infer_one(name, cells, kinds.get(name))
        for name, cells in columns.items()
        if name not in left_out
    )


def _is_free_text(cells: Column) -> bool:
    texts = [as_text(cell) for cell in cells if not is_missing(cell)]
    if all(as_number(text) is not None for text in texts) or all(as_yes_no(text) is not None for text in texts):
        return False
    return len(texts) >= 10 and len(set(texts)) > len(texts) / 2


def warn_of_few_labels(labels: Mapping[str, Tensor], specs: Mapping[str, AttributeSpec]) -> None:
    """Warn of attributes with few labels, all in one message.

    Labels are (rows,): 0/1, class index or number; NaN where missing.

    Warns:
        LabelWarning: there are few labels, or few of one class.
    """
    few = []
    for name, spec in specs.items():
        known = labels[name][~labels[name].isnan()]
        classes = KINDS[spec.kind].classes(spec)
        if len(known) < ENOUGH * max(2, len(classes)):
            few.append(f"{name!r} has {len(known)}")
        elif classes:
            counts = torch.bincount(known.long(), minlength=len(classes))
            least = int(counts.argmin())
            if counts[least] < RARE:
                few.append(f"{name!r} has {counts[least]} of {classes[least]}")
    if few:
        warnings.warn(
            f"there are few labels: {', '.join(few)}; a head needs about {ENOUGH} of each class, {RARE} of a rare one, "
            "and its report says how well it did on those held out",
            LabelWarning,
            stacklevel=caller_level(),
        )


def _infer_one(name: str, cells: Column, kind: Kind | None) -> AttributeSpec:
    known = [cell for cell in cells if not is_missing(cell)]
    if not known:
        raise DataError(f"column {name!r} has no values", hint="leave it out with --only, or label some pictures")
    record = KINDS[kind] if kind else next(record for record in KINDS.values() if record.fits(known))
    return AttributeSpec(name, record.name, **record.infer(f"column {name!r}", known))


def read_label_table(path: Path, latents: Path | None = None) -> LabelTable:
    """Read labels: a column for each attribute, a row for each sample.

    The column `index` is the number of a picture of `energyql.sample_pictures`: of the folder in which the table is, or
    else under the seed of the training. With
    `latents`, it is a row of that file; without the column, the rows of both files are in the same order.

    A table with the column `drawn`, as `energyql label` writes it, says itself how its pictures were drawn and what its
    attributes are; see `energyql.training.labels`.

    The file is CSV (comma, semicolon or tab; decimal commas with the latter two), or Parquet by its name, which needs
    pyarrow or polars; `read_latents` reads the latents.

    Raises:
        DataError: a file is missing, damaged, or does not fit the other, or the table does not say what it is about.

    Warns:
        LabelWarning: the rows are taken in the order of the latents.
    """
    columns = read_columns(path)
    rows = len(next(iter(columns.values()), ()))
    name = next((name for name in columns if name.lower() == INDEX), INDEX)
    cells = columns.pop(name, None)
    drawn = take_drawn(columns, str(path))
    chosen = None if drawn is None else columns.pop(CHOSEN, None)
    if not columns:
        raise DataError(
            f"{path} has no column of labels", hint="add a column for each attribute, such as index,glasses,age"
        )
    if not rows:
        raise DataError(f"{path} has no rows", hint="add a row for each labelled picture")
    if latents is None:
        if cells is None:
            raise DataError(
                f"{path} has no column {INDEX!r}, so nothing says which picture a row is about",
                hint="add the number of each picture in its run of energyql sample --seed; or give --latents",
            )
        table = LabelTable(columns, index=_index(cells, path), source=str(path))
        return replace(table, beside=Drawn.beside(path)) if drawn is None else _of_drawn(table, drawn, chosen)
    if drawn is not None:
        raise DataError(
            f"{path} says how its pictures were drawn, so it takes no latents", hint="leave out the latents"
        )
    found = read_latents(latents)
    if cells is None:
        if len(found) != rows:
            raise DataError(
                f"{path} has {rows} rows and no column {INDEX!r}, but {latents} holds {len(found)} latents",
                hint="a row for each latent, in their order; or a column index with the row of the latent",
            )
        note = f"{path} has no column {INDEX!r}, so its rows are about the latents of {latents} in their order"
        warnings.warn(note, LabelWarning, stacklevel=caller_level())
        return LabelTable(columns, latents=found, source=str(path))
    index = _index(cells, path)
    if int(index.max()) >= len(found):
        raise DataError(
            f"{path} is about sample {int(index.max())}, but {latents} holds only {len(found)}",
            hint="the index is the row in the file of latents, counted from 0",
        )
    return LabelTable(columns, latents=found[index], source=str(path))


def _of_drawn(table: LabelTable, drawn: Drawn, chosen: Column | None) -> LabelTable:
    """Read the attributes off the headers, and order the rows by how their pictures were chosen."""
    specs = Vocabulary(parse_attribute(header) for header in table.columns)
    columns = dict(zip(specs, table.columns.values(), strict=True))
    table = replace(table, columns=columns, vocabulary=specs, drawn=drawn, pool=Path(table.source).with_name(POOL))
    if chosen is None:
        return table
    assert table.index is not None
    order, learned, test = held_out_order(table.index, chosen, drawn.seed, table.source)
    columns = {name: [cells[row] for row in order] for name, cells in columns.items()}
    return replace(table, columns=columns, index=table.index[torch.tensor(order)], learned=learned, test=test)


def read_latents(path: Path) -> Tensor:
    """Read the latents of a `.npy` file, or of a `.safetensors` file with one tensor, as (n, latent_dim) float32.

    Between these, the file may have axes along which the latent is repeated, as in W+.

    Raises:
        DataError: the file is missing or damaged, or its latents differ along a layer.
    """
    if path.suffix.lower() != ".safetensors":
        return one_per_sample(read_npy(path), path)
    try:
        tensors = read_tensors(path)
    except ModelError as error:
        raise DataError(error.message, hint=error.hint) from error
    if len(tensors) != 1:
        raise DataError(f"{path} holds {len(tensors)} tensors", hint="save the latents alone")
    (found,) = tensors.values()
    return one_per_sample(found, path)


def one_per_sample(latents: Tensor, path: Path) -> Tensor:
    """Reduce latents (n, ..., latent_dim) that are constant along the middle axes to (n, latent_dim) float32.

    Raises:
        DataError: they are not constant there, or not finite.
    """
    if latents.ndim < 2 or not latents.numel():
        raise DataError(
            f"{path}: latents have shape {tuple(latents.shape)}, not (samples, numbers)",
            hint="save an array with a row for each sample",
        )
    rows = latents.flatten(1, -2) if latents.ndim > 2 else latents[:, None]
    first = rows[:, 0]
    if not rows.isfinite().all():
        raise DataError(f"{path}: a latent has a number that is not finite", hint="leave such samples out")
    if not torch.equal(rows, first[:, None].expand_as(rows)):
        raise DataError(
            f"{path}: the latents differ from layer to layer (W+), but heads read one latent a sample",
            hint="label the output of the mapping network",
        )
    return first.float().clone()


def _index(cells: list[Any], path: Path) -> Tensor:
    rows: dict[int, int] = {}  # number of a sample -> its row
    for row, cell in enumerate(cells, 1):
        try:
            number = int(cell)
            if not 0 <= number < 2**63 or number != float(cell):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise DataError(
                f"{path}, row {row}: the index is {cell!r}, not a whole number from 0",
                hint="it is the number in the name of the picture",
            ) from None
        if number in rows:
            raise DataError(
                f"{path}: sample {number} has two rows, {rows[number]} and {row}", hint="leave one of them out"
            )
        rows[number] = row
    return torch.tensor(list(rows), dtype=torch.int64)
