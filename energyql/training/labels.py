"""Tables of labels of samples: how to read a table, which attributes it has, and how its pictures were drawn.

`energyql label` writes tables such as this one. The picture with index i is drawn from prior sample i of the seed, its
i-th random latent.

    index,chosen,drawn,glasses,hair=black|brown|blond 0,random,seed=7 truncation=0.7 generator=1f0c5a92d3e8,yes,black
    1000452,unsure,seed=7 truncation=0.7 generator=1f0c5a92d3e8,no,blond
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.labels import Column
from energyql.errors import EARLIER, ArgumentError, DataError, LabelWarning, VocabularyError, caller_level, either
from energyql.files import read_json, read_tensors
from energyql.generators.base import Condition, Generator
from energyql.generators.families import module_fingerprint
from energyql.kinds import KINDS, Kind, as_number, as_text, as_yes_no, is_missing
from energyql.numerics.shapes import Int
from energyql.pipeline.result_folder import LABELLING
from energyql.sampling import uniforms
from energyql.training.tables import read_columns, read_npy
from energyql.vocabulary import AttributeSpec, Vocabulary

INDEX, CHOSEN, DRAWN = "index", "chosen", "drawn"
"""Columns: the number of the picture, how it was chosen for labelling, and how it was drawn."""
RANDOM, UNSURE = "random", "unsure"
"""Values of the column `CHOSEN`: at random, or because predictions for the picture were uncertain."""
POOL = ".pool"
"""Subfolder beside a table, for thumbnails of the pool, if a teacher chose pictures from it."""
DOUBTS = ".doubts.json"
"""Suffix of a file with doubts, in place of that of the table."""
TEST_SHARE = 0.2
"""Share of the random pictures of a table with the column `CHOSEN` that only the report on the heads uses."""
_DIGITS = 12
"""Hexadecimal digits of a generator's fingerprint in a table."""


@dataclass(frozen=True)
class Drawn:
    """How pictures were drawn from the prior of a generator.

    Attributes:
        seed: picture i is drawn from prior sample i of this seed, its i-th random latent.
        truncation: psi.
        generator: first digits of the fingerprint of the generator; "" for one that is not a torch module.
        condition: condition of a conditional generator; `None` for others.
    """

    seed: int
    truncation: float
    generator: str = ""
    condition: Condition | None = None

    @classmethod
    def by(cls, generator: Generator, seed: int, truncation: float, condition: Condition | None) -> Drawn:
        """Make the record of pictures that `generator` draws with this seed, psi and condition."""
        return cls(seed, truncation, module_fingerprint(generator)[:_DIGITS], condition)

    def __str__(self) -> str:
        text = f"seed={self.seed} truncation={self.truncation} generator={self.generator}"
        if self.condition is None:
            return text
        numbers = self.condition if isinstance(self.condition, tuple) else (self.condition,)
        return f"{text} condition={','.join(map(repr, numbers))}"

    @classmethod
    def parse(cls, text: str, source: str) -> Drawn:
        """Read a text such as "seed=7 truncation=0.7 generator=1f0c5a92d3e8", as `str(drawn)` returns it.

        Raises:
            DataError: the text has another form.
        """
        try:
            parts = dict(part.split("=", 1) for part in text.split())
            if "label" in parts:
                hint = f"write the word condition in place of label in every {DRAWN!r}"
                raise DataError(f"{source} {EARLIER}", hint=hint)
            condition: Condition | None = None
            if (numbers := parts.get("condition")) is not None:
                condition = tuple(map(float, numbers.split(","))) if "," in numbers else int(numbers)
            return cls(int(parts["seed"]), float(parts["truncation"]), parts["generator"], condition)
        except (KeyError, ValueError):
            raise DataError(
                f"{source}: {text!r} does not say how the pictures were drawn",
                hint=f"the column {DRAWN!r} holds texts such as {str(cls(7, 0.7, '1f0c5a92d3e8'))!r}",
            ) from None

    @classmethod
    def beside(cls, table: Path) -> Drawn | None:
        """Read how the pictures in the folder of a table were drawn from `pictures.json`; `None` if it does not say."""
        record = table.with_name(LABELLING)
        if not record.is_file():
            return None
        text = read_json(record, DataError).get(DRAWN)
        return None if text is None else cls.parse(str(text), str(record))

    def check(self, source: str, *, seed: int | None, truncation: Any, condition: Any) -> None:
        """Raise an `ArgumentError` if seed, truncation or condition is stated and differs from the record."""
        for name, value in {"seed": seed, "truncation": truncation, "condition": condition}.items():
            value = tuple(value) if isinstance(value, list) else value
            own, hint = getattr(self, name), f"leave out the {name}"
            if value is not None and value != own:
                raise ArgumentError(f"{source} is about pictures of {name} {own}, not {value}", hint=hint)

    def check_generator(self, generator: Generator, source: str) -> None:
        """Raise a `DataError` if another generator drew the pictures, as fingerprints tell."""
        own = module_fingerprint(generator)[:_DIGITS]
        if self.generator and own and self.generator != own:
            raise DataError(f"{source} is about pictures of another generator", hint="give the one that drew them")


def held_out_order(
    index: Int[Tensor, " rows"], chosen: Sequence[Any], seed: int, source: str
) -> tuple[list[int], int, int]:
    """Sort the rows of a table: uncertain pictures, random ones to learn from, random ones for the report.

    The report has no uncertain pictures, because these are the hardest. The group of a random picture depends only on
    the seed and its number, and so stays when rows are added to the table.

    Returns:
        The indices of all rows, group after group; the size of the first group; and the size of the last group.

    Raises:
        DataError: a cell of `chosen`, the column `CHOSEN`, is neither "random" nor "unsure".
    """
    groups: dict[str, list[int]] = {UNSURE: [], RANDOM: [], "test": []}
    for row, (number, cell) in enumerate(zip(index.tolist(), chosen, strict=True)):
        kind = str(cell).strip()
        if kind not in (RANDOM, UNSURE):
            raise DataError(f"{source}, row {row + 1}: {CHOSEN!r} is {cell!r}, not {RANDOM} or {UNSURE}")
        for_report = kind == RANDOM and float(uniforms(seed, number, 1, 1, stream="test")) < TEST_SHARE
        groups["test" if for_report else kind].append(row)
    return [*groups[UNSURE], *groups[RANDOM], *groups["test"]], len(groups[UNSURE]), len(groups["test"])


def parse_attributes(text: str) -> Vocabulary:
    """Read attributes from a text such as "glasses, hair=black|brown|blond, age=0..1".

    Raises:
        VocabularyError: a part is no attribute, see `parse_attribute`, or a name is used twice.
    """
    specs = [parse_attribute(part.strip()) for part in text.split(",") if part.strip()]
    if not specs:
        raise VocabularyError("there are no attributes", hint='write them as in "glasses, hair=black|brown, age=0..1"')
    return Vocabulary(specs)


def parse_attribute(text: str) -> AttributeSpec:
    """Read an attribute: `name` for yes/no, `name=class|class` for classes, `name=low..high` for a number.

    Raises:
        VocabularyError: the text has another form; or the name is "index", "chosen" or "drawn".
    """
    name, equals, domain = (part.strip() for part in text.partition("="))
    if name in (INDEX, CHOSEN, DRAWN):
        raise VocabularyError(f"an attribute cannot be called {name!r}: the table has another column of that name")
    for kind in KINDS.values():
        if (fields := kind.labels.parse_domain(equals + domain)) is not None:
            return AttributeSpec(name, kind.name, **fields)
    hint = f"write {name} for yes/no, {name}=black|brown for classes, {name}=0..1 for a number"
    raise VocabularyError(f"{text!r} is not an attribute", hint=hint)


def attribute_text(spec: AttributeSpec) -> str:
    """Text for an attribute in a table, such as "glasses", "hair=black|brown" or "age=0..1"."""
    return spec.name + KINDS[spec.kind].labels.domain(spec)


ENOUGH, RARE = 100, 20
"""A training warns of fewer labels: `ENOUGH` per class on average (twice of a number), `RARE` of the rarest class."""


@dataclass(frozen=True)
class LabelTable:
    """Labels of samples, which are given by their index in the prior or by their latents.

    Attributes:
        columns: attribute -> n cells, the labels.
        index: numbers of prior samples, (n,); `None` if there are `latents`.
        latents: w or z of the samples, (n, latent_dim); `None` if there is an `index`.
        learned: number of training-only rows, which come first: of pictures that were chosen as uncertain.
        test: number of rows at the end that only the report uses. With `None`, the training chooses rows at random.
        vocabulary: the attributes of the columns, if the table states them.
        drawn: how the pictures were drawn, if the table states it.
        beside: how the pictures in the table's folder were drawn, if the folder states it and the table does not.
        pool: folder for thumbnails of the pictures among which uncertain ones were chosen. It need not exist.
        doubts: file for doubts about the labels, if the table is in the folder of its pictures. It need not exist.
        folder: folder of the labelled pictures, as `energyql sample` writes it, if the table lies in it.
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
    doubts: Path | None = None
    folder: Path | None = None
    source: str = "the table"

    @property
    def pictures(self) -> Int[Tensor, " rows"]:
        """Numbers of the pictures, the field `index`; raise a `DataError` if the labels are about latents."""
        if self.index is None:
            raise DataError(
                "the labels are about latents; a judge learns from pictures, see the column index of a table"
            )
        return self.index


def warn(message: str) -> None:
    """Issue a `LabelWarning` at the line of the user's call."""
    warnings.warn(message, LabelWarning, stacklevel=caller_level())


def infer(
    columns: Mapping[str, Column], kinds: Mapping[str, Kind] | None = None, vocabulary: Vocabulary | None = None
) -> Vocabulary:
    """Infer the kind of attribute of each column of labels from its cells.

    Columns of 0/1, true/false or yes/no are yes/no attributes, numbers continuous ones, other texts classes. A column
    of texts that mostly differ, such as file names, is left out with a warning.

    Args:
        kinds: attribute -> kind, for kinds that are stated.
        vocabulary: attributes that are taken as they are, unless they are in `kinds`.

    Raises:
        DataError: a column has no labels or only equal labels, or too many classes; or no column is left.
        VocabularyError: a name in `kinds` is no column, or a kind is none.
    """
    kinds, vocabulary = kinds or {}, vocabulary or Vocabulary([])
    if unknown := [name for name in kinds if name not in columns]:
        raise VocabularyError(f"there is no column {unknown[0]!r}", hint=f"columns: {', '.join(columns)}")
    if wrong := [kind for kind in kinds.values() if kind not in KINDS]:
        raise VocabularyError(f"{wrong[0]!r} is no kind of attribute", hint=f"the kinds are {', '.join(KINDS)}")
    specs = []
    for name, cells in columns.items():
        if name in vocabulary and name not in kinds:
            specs.append(vocabulary[name])
        elif name not in kinds and _is_free_text(cells):
            examples = ", ".join(repr(cell) for cell in cells[:2])
            warn(f"column {name!r} is left out: its texts, such as {examples}, mostly differ, so they are no classes")
        else:
            specs.append(_infer_one(name, cells, kinds.get(name)))
    if not specs:
        raise DataError("there is no column of labels", hint="a column for each attribute, such as smile with yes, no")
    return Vocabulary(specs)


def _is_free_text(cells: Column) -> bool:
    texts = [as_text(cell) for cell in cells if not is_missing(cell)]
    if len(texts) < 10 or len(set(texts)) <= len(texts) / 2:
        return False
    return not any(all(read(text) is not None for text in texts) for read in (as_number, as_yes_no))


def _infer_one(name: str, cells: Column, kind: Kind | None) -> AttributeSpec:
    labels = [cell for cell in cells if not is_missing(cell)]
    if not labels:
        hint = f"label some pictures, or name the other columns: {either('only=[...]', '--only')}"
        raise DataError(f"column {name!r} has no values", hint=hint)
    record = KINDS[kind] if kind else next(record for record in KINDS.values() if record.labels.fits(labels))
    return AttributeSpec(name, record.name, **record.labels.infer(f"column {name!r}", labels))


def warn_of_few_labels(labels: Mapping[str, Tensor], specs: Mapping[str, AttributeSpec]) -> None:
    """Warn (`LabelWarning`) of all attributes with few labels in one message, see `ENOUGH` and `RARE`.

    `labels` has, for each attribute, (rows,): 0/1, class index or number; NaN where missing.
    """
    few = []
    for name, spec in specs.items():
        numbers = labels[name][~labels[name].isnan()]
        classes = KINDS[spec.kind].classes(spec)
        if len(numbers) < ENOUGH * max(2, len(classes)):
            few.append(f"{name!r} has {len(numbers)}")
        elif classes:
            counts = torch.bincount(numbers.long(), minlength=len(classes))
            least = int(counts.argmin())
            if counts[least] < RARE:
                few.append(f"{name!r} has {counts[least]} of {classes[least]}")
    if few:
        enough = f"about {ENOUGH} of each class, {RARE} of a rare one"
        warn(f"there are few labels: {', '.join(few)}; a head needs {enough}, and its report measures it on some")


def read_label_table(path: Path, latents: Path | None = None) -> LabelTable:
    """Read a table of labels, with a column for each attribute and a row for each sample.

    Without `latents`, the column `index` has numbers of pictures: number i is the picture of prior sample i. Seed and
    truncation are stated by the table, by `pictures.json` in its folder, or else by the training.

    With `latents`, the column `index` has row numbers of the file of latents, from 0. Without this column, the rows of
    the table are in the order of the latents.

    The tables of `energyql label` have a column `drawn`, which states how the pictures were drawn; there, the names of
    the other columns describe the attributes, as in `hair=black|brown`. There, too, a column of numbers needs no range.

    Args:
        path: a CSV file (delimiter: comma, semicolon or tab; numbers may have decimal commas unless the delimiter is a
            comma); or a Parquet file (.parquet or .pq), which needs pyarrow or polars.
        latents: a `.npy` file, or a `.safetensors` file with one tensor, of latents (n, latent_dim).

    Raises:
        DataError: a file is missing or damaged; the files do not fit each other; or there is neither `index` nor
            `latents`.
        VocabularyError: a table with the column `drawn` has a column whose name describes no attribute.

    Warns:
        LabelWarning: there are latents, but there is no column `index`.
    """
    columns = read_columns(path)
    rows = len(next(iter(columns.values()), ()))
    name = next((name for name in columns if name.lower() == INDEX), INDEX)
    cells = columns.pop(name, None)
    drawn = _take_drawn(columns, str(path))
    chosen = None if drawn is None else columns.pop(CHOSEN, None)
    if not columns:
        raise DataError(f"{path} has no column of labels", hint="add a column for each attribute")
    if not rows:
        raise DataError(f"{path} has no rows")
    index = None if cells is None else _index(cells, path)
    if latents is None:
        if index is None:
            hint = "add the number of each picture that energyql sample drew; or give " + either("latents", "--latents")
            raise DataError(f"{path} has no column {INDEX!r}, so nothing says which picture a row is about", hint=hint)
        if drawn is not None:
            return _of_drawn(path, columns, index, drawn, chosen)
        return LabelTable(columns, index, beside=Drawn.beside(path), folder=_pictures_of(path), source=str(path))
    if drawn is not None:
        raise DataError(f"{path} says how its pictures were drawn, so it takes no latents")
    tensor = read_latents(latents)
    if index is None:
        if len(tensor) != rows:
            count = len(tensor)
            raise DataError(f"{path} has {rows} rows and no column {INDEX!r}, but {latents} holds {count} latents")
        warn(f"{path} has no column {INDEX!r}, so its rows are about the latents of {latents} in their order")
        return LabelTable(columns, latents=tensor, source=str(path))
    if int(index.max()) >= len(tensor):
        raise DataError(f"{path} is about sample {int(index.max())}, but {latents} holds only {len(tensor)}")
    return LabelTable(columns, latents=tensor[index], source=str(path))


def _take_drawn(columns: dict[str, list[Any]], source: str) -> Drawn | None:
    """Remove the column `DRAWN` and parse it; `None` without such a column, an error if its rows differ."""
    texts = sorted({str(cell).strip() for cell in columns.pop(DRAWN, ())})
    ways = {Drawn.parse(text, source) for text in texts}
    if len(ways) > 1:
        raise DataError(f"{source}: its pictures were drawn in different ways: {texts[0]!r} and {texts[1]!r}")
    return next(iter(ways), None)


def _pictures_of(table: Path) -> Path | None:
    """The folder of a table, if it is one of pictures to label."""
    return table.parent if table.with_name(LABELLING).is_file() else None


def _of_drawn(
    path: Path, columns: Mapping[str, Column], index: Tensor, drawn: Drawn, chosen: Column | None
) -> LabelTable:
    """Make a label table of pictures drawn from the prior; row i is about picture `index[i]` of `drawn`.

    The headers of `columns` describe the attributes. With `chosen`, the column that says "random" or "unsure", rows are
    sorted by `held_out_order`, so that the last ones are held out for the report.
    """
    specs = Vocabulary(_described(header, cells) for header, cells in columns.items())
    rows, learned, test = list(range(len(index))), 0, None
    if chosen is not None:
        rows, learned, test = held_out_order(index, chosen, drawn.seed, str(path))
    cells = {name: [column[row] for row in rows] for name, column in zip(specs, columns.values(), strict=True)}
    return LabelTable(
        cells, index[torch.tensor(rows)], learned=learned, test=test, vocabulary=specs, drawn=drawn,
        pool=path.with_name(POOL), doubts=path.with_suffix(DOUBTS) if path.with_name(LABELLING).is_file() else None,
        folder=_pictures_of(path), source=str(path),
    )  # fmt: skip


def _described(header: str, cells: Column) -> AttributeSpec:
    """The attribute of a column; if its header is only a name, a column of numbers gets the kind of its values."""
    spec, labels = parse_attribute(header), [cell for cell in cells if not is_missing(cell)]
    if "=" in header or not labels or any(as_number(cell) is None for cell in labels):
        return spec
    return _infer_one(spec.name, cells, None)


def read_latents(path: Path) -> Tensor:
    """Read latents, (n, latent_dim) float32, from a `.npy` file or a `.safetensors` file with one tensor.

    In the file they may be (n, ..., latent_dim), for example repeated for each layer of the generator.

    Raises:
        DataError: the file is missing or damaged, or as for `one_per_sample`.
    """
    if path.suffix.lower() != ".safetensors":
        return one_per_sample(read_npy(path), path)
    tensors = read_tensors(path, DataError)
    if len(tensors) != 1:
        raise DataError(f"{path} holds {len(tensors)} tensors, not only the latents")
    (latents,) = tensors.values()
    return one_per_sample(latents, path)


def one_per_sample(latents: Tensor, path: Path) -> Tensor:
    """Reduce latents (n, ..., latent_dim), equal along the axes in the middle, to (n, latent_dim) float32.

    Raises:
        DataError: the latents have fewer than two axes, differ along the axes in the middle, or are not finite.
    """
    if latents.ndim < 2 or not latents.numel():
        raise DataError(f"{path}: latents have shape {tuple(latents.shape)}, not (samples, numbers)")
    rows = latents.flatten(1, -2) if latents.ndim > 2 else latents[:, None]
    first = rows[:, 0]
    if not rows.isfinite().all():
        raise DataError(f"{path}: a latent has a number that is not finite", hint="leave such samples out")
    if not torch.equal(rows, first[:, None].expand_as(rows)):
        raise DataError(f"{path}: the latents differ from layer to layer (W+), but heads read one latent a sample")
    return first.float().clone()


def _index(cells: list[Any], path: Path) -> Tensor:
    """Numbers of samples, (rows,): whole and from 0, none of them twice, or an error."""
    rows: dict[int, int] = {}  # number of a sample -> its row
    for row, cell in enumerate(cells, 1):
        try:
            number = int(cell)
            if not 0 <= number < 2**63 or number != float(cell):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise DataError(f"{path}, row {row}: the index is {cell!r}, not a whole number from 0") from None
        if number in rows:
            raise DataError(f"{path}: sample {number} has two rows, {rows[number]} and {row}")
        rows[number] = row
    return torch.tensor(list(rows), dtype=torch.int64)
