"""Heads and labels that other programs made: LACE's classifiers, InterFaceGAN's boundaries, StyleFlow's latents.

`all_latents.pickle` holds {"Latent": (n, 1, layers, latent_dim)}, w repeated over the layers; `att_light.pickle` holds
{"att_light": [(n, 21) objects]}, with `None` for what is missing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.heads import AttributeBank, Head
from energyql.attributes.pictures import heads_of
from energyql.attributes.predictions import output_count
from energyql.errors import DataError, ModelError
from energyql.files import real_path
from energyql.generators.base import Generator, latent_size
from energyql.generators.checkpoints.arrays import NUMPY_NAMES, ArrayRecord, DtypeRecord, make_dtype
from energyql.generators.checkpoints.reading import CheckpointError, file_bytes, reading, shown
from energyql.generators.checkpoints.torch_file import read_weights
from energyql.generators.checkpoints.unpickle import Budget, Names, is_shape, unpickle
from energyql.kinds import BARE, KINDS, is_missing
from energyql.numerics.shapes import Float
from energyql.training.labels import LabelTable, infer, one_per_sample
from energyql.training.tables import read_npy
from energyql.training.target import opening_target
from energyql.vocabulary import AttributeSpec, Vocabulary

LACE_STD = 0.1
"""Standard deviation that LACE gives every continuous attribute."""
_LAYER = re.compile(r"net\.(\d+)\.(weight|bias)")


def add_heads(
    model: str | Path | Generator,
    specs: Vocabulary,
    heads: Mapping[str, Head],
    out: str | Path | None = None,
    *,
    space: str = "w",
    truncation: tuple[float, float] = (1.0, 1.0),
    label: int | Sequence[float] | str | None = None,
    replace: bool = False,
    generator: str | None = None,
    allow_plugins: bool = False,
) -> AttributeBank:
    """Add heads to a model folder, as they are.

    If the folder has heads already, all must read the same latent, at the same truncation, under the same label. The
    arguments are those of `train_attributes`, with a head for each attribute; `truncation` is the range of psi in which
    the heads are valid.

    Returns:
        All heads of the folder.

    Raises:
        ArgumentError: a conditional generator needs a label, or has no such label.
        ModelError: the heads do not fit the generator or the heads in the folder.
    """
    with opening_target(model, out, truncation[1], generator=generator, allow_plugins=allow_plugins) as target:
        fitted = target.fitted(space, truncation, label)
        bank = AttributeBank(specs, heads, **vars(fitted))
        target.check_latents(fitted)
        size = latent_size(target.generator, space)
        if size not in (None, bank.latent_dim):
            raise ModelError(
                f"the heads read {bank.latent_dim} numbers, but {space} of the generator has {size}",
                hint="choose the latent that they were fitted to with --space, or their own generator",
            )
        target.check_names(list(specs), replace)
        with target.changing() as changed:
            return heads_of(changed.save(bank, real_path(target.folder).name, replace=replace), "an import")


def import_lace(path: Path, specs: Vocabulary, *, std: float = LACE_STD) -> dict[str, Head]:
    """Read the heads in a checkpoint of LACE's attribute classifiers. Nothing in the file is executed.

    The network is kept as it is: fully connected layers (512-384-256-128 as published, or of any other sizes), each
    with a leaky ReLU of slope 0.2. For yes/no it has two outputs, no and yes; their difference is the logit of yes.

    The attributes are those in the `.pt` file, in their order. It lacks the residual standard deviation of continuous
    ones, `std`.

    Raises:
        ModelError: the file is missing, damaged, unsafe, of another form, or has other attributes.
    """
    with reading(path):
        tensors = _state_dict(path)
        layers = _layers(tensors)
        weight, bias = _pair(tensors, "heads")
        counts = [max(1, len(KINDS[spec.kind].classes(spec))) for spec in specs.values()]
        if len(weight) != sum(counts):
            wanted = ", ".join(f"{count} for {name}" for name, count in zip(specs, counts, strict=True))
            raise CheckpointError(
                f"it has {len(weight)} outputs, not {wanted}", hint="name its attributes and their classes"
            )
        heads = {}
        parts = zip(specs.values(), weight.split(counts), bias.split(counts), strict=True)
        for spec, rows, offsets in parts:
            if output_count(spec) < len(rows):  # the logits of no and yes
                rows, offsets = rows[1:] - rows[:1], offsets[1:] - offsets[:1]
            head = Head(
                *layers[0], rows, torch.zeros(len(rows), layers[0][0].shape[1]), offsets,
                torch.tensor(std if KINDS[spec.kind].numeric else 1.0), tuple(layers[1:]),
            )  # fmt: skip
            head.check(spec.name, len(rows), layers[0][0].shape[1])
            heads[spec.name] = head
        return heads


def import_boundary(
    path: Path, spec: AttributeSpec, *, latents: Tensor | None = None, labels: Tensor | None = None
) -> Head:
    """Read a boundary of InterFaceGAN as a head: `scale * (normal . x) + intercept` is the logit of yes.

    The file holds only the normal. With labels, scale and intercept have the highest likelihood. Without labels, the
    boundary goes through the origin and the scale is 1: the direction is right, probabilities are not calibrated.

    The `.npy` file has the shape (1, latent_dim) or (latent_dim,). Latents are in the space of the boundary, (n,
    latent_dim); labels are 0 or 1, NaN where missing, (n,).

    Raises:
        ModelError: the file is missing, damaged or of another form; the attribute is of another kind; or all labels
            are the same.
    """
    if BARE not in KINDS[spec.kind].forms:
        raise ModelError(
            f"{path}: a boundary separates yes from no, so {spec.name!r} cannot be {spec.kind}",
            hint="give --attribute with the name alone",
        )
    with reading(path):
        normal = read_npy(path, ModelError).squeeze()
        if normal.ndim != 1 or not normal.isfinite().all() or not normal.any():
            raise CheckpointError(f"a boundary has the shape (1, numbers), not {tuple(normal.shape)}, and is not zero")
    normal = normal / normal.norm()
    scale, intercept = 1.0, 0.0
    if latents is not None and labels is not None:
        if latents.shape[1:] != normal.shape:
            raise ModelError(
                f"{path} is for latents of {len(normal)} numbers, not {latents.shape[1]}",
                hint="give the latents that it was fitted to",
            )
        known = ~labels.isnan()
        if len(labels[known].unique()) < 2:
            raise ModelError(
                f"{path}: all labels of {spec.name!r} are the same, so nothing can be fitted to them",
                hint="give labels of both answers",
            )
        scale, intercept = _logistic(latents[known] @ normal, labels[known])
    size = len(normal)
    return Head(
        torch.zeros(0, size), torch.zeros(0), torch.zeros(1, 0), scale * normal[None], torch.tensor([intercept]),
        torch.tensor(1.0),
    )  # fmt: skip


def _logistic(distance: Float[Tensor, " batch"], labels: Float[Tensor, " batch"]) -> tuple[float, float]:
    """Return scale and intercept of the highest likelihood; a weak penalty keeps them finite for separable classes."""
    unit = distance.std().clamp(min=1e-12).item()
    x, y = (distance / unit).double(), labels.double()
    numbers = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([numbers], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(numbers[0] * x + numbers[1], y)
        loss = loss + 0.5e-3 * numbers[0].square() / len(y)
        loss.backward()
        return loss

    optimizer.step(closure)
    return numbers[0].item() / unit, numbers[1].item()


def _state_dict(path: Path) -> dict[str, Tensor]:
    content = read_weights(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or "heads.weight" not in content:
        raise CheckpointError("it has no state_dict with heads.weight, so it is not a classifier of LACE")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(f"{shown(name)} is not a tensor")
    return {str(name): value.float() for name, value in content.items()}


def _layers(tensors: dict[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Return weight and bias of each hidden layer, first to last."""
    extra = [name for name in tensors if not _LAYER.fullmatch(name) and not name.startswith("heads.")]
    numbers = sorted({int(match[1]) for name in tensors if (match := _LAYER.fullmatch(name))})
    if not numbers:
        raise CheckpointError("it has no hidden layers")
    layers = [_pair(tensors, f"net.{i}") for i in numbers]
    if extra or any(weight.ndim != 2 for weight, _ in layers):
        name = extra[0] if extra else f"net.{numbers[1]}"
        raise CheckpointError(f"it has {shown(name)}: classifiers with normalisation layers are not supported")
    return layers


def _pair(tensors: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    if f"{name}.weight" not in tensors or f"{name}.bias" not in tensors:
        raise CheckpointError(f"it has no {name}.weight and {name}.bias")
    weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    if weight.ndim == 4 and weight.shape[2:] == (1, 1):
        weight = weight[:, :, 0, 0]
    if not weight.isfinite().all() or not bias.isfinite().all():
        raise CheckpointError(f"{name} has a number that is not finite")
    return weight, bias


LATENTS, LABELS = "all_latents.pickle", "att_light.pickle"
YES_NO = ("smile", "gender", "beard", "glasses")
HAIR = "haircolor"
HAIR_CLASSES = 5
COLUMNS = (
    "width", "height", "smile", "pitch", "roll", "yaw", "gender", "age", "beard", "glasses", "bald", HAIR,
    *(f"light{i}" for i in range(9)),
)  # fmt: skip
TEST_SHARE = 10
"""The last rows, one in ten, are for the report: 1,000 of 10,000, the split of earlier work."""
MAX_OPERATIONS = 10_000_000
"""Limit on pickle operations: the table has 210,000 cells, each of which may be a NumPy number."""


@dataclass(eq=False)
class _ObjectDtype(DtypeRecord):
    """The dtype of an array of Python objects."""

    kind: str = "O"

    @property
    def dtype(self) -> np.dtype[Any]:
        raise CheckpointError("an array of objects is read as if it were numbers")


@dataclass(eq=False)
class _AnyArray(ArrayRecord):
    """A NumPy array of numbers, or of objects that are plain values of the pickle."""

    cells: list[Any] = field(default_factory=list)

    def set_state(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], _ObjectDtype)):
            super().set_state(state)
            return
        _, self.shape, self.dtype, _, self.cells = state
        if not is_shape(self.shape) or not isinstance(self.cells, list) or len(self.cells) != math.prod(self.shape):
            raise CheckpointError("an array of objects is damaged")

    def rows(self) -> list[list[Any]]:
        """Return the cells of a table, row by row."""
        if not isinstance(self.dtype, _ObjectDtype):
            if len(self.shape) != 2 or math.prod(self.shape) > MAX_OPERATIONS:
                return []
            numbers: list[list[Any]] = self.array().tolist()
            return numbers
        if len(self.shape) != 2:
            return []
        rows, columns = self.shape  # objects are written row by row, regardless of their order in memory
        return [self.cells[i * columns : (i + 1) * columns] for i in range(rows)]


def _dtype(text: Any, *rest: Any) -> DtypeRecord:
    return _ObjectDtype() if text in ("O8", "O4", "O", "|O") else make_dtype(text, *rest)


_NAMES: Names = {
    **NUMPY_NAMES,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _AnyArray(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _AnyArray(),
}


def read_styleflow(folder: Path, only: Sequence[str] | None = None) -> LabelTable:
    """Read the latents and labels of a folder with StyleFlow's two pickles.

    Of the attributes in `only`, all 21 by default; continuous ones range from 0 to 1 where their values do. The last
    tenth of the rows is for the report.

    Raises:
        ModelError: a pickle is missing, damaged, unsafe, or of another form.
        DataError: `only` names an attribute that StyleFlow does not have, or a column is constant.
    """
    columns = list(COLUMNS if only is None else only)
    if unknown := [name for name in columns if name not in COLUMNS]:
        raise DataError(f"StyleFlow has no labels for {unknown[0]!r}", hint=f"it has {', '.join(COLUMNS)}")
    latents, rows = _latents(folder / LATENTS), _rows(folder / LABELS)
    if len(rows) != len(latents):
        raise ModelError(
            f"{folder} holds {len(latents)} latents, but labels for {len(rows)}",
            hint="both files must be from one download",
        )
    table = {name: [_cell(row[COLUMNS.index(name)], name) for row in rows] for name in columns}
    if only is None:  # leave out columns with one value
        table = {
            name: cells for name, cells in table.items() if len({cell for cell in cells if not is_missing(cell)}) > 1
        }
    return LabelTable(
        table,
        latents=latents,
        test=len(rows) // TEST_SHARE,
        vocabulary=Vocabulary(_spec(name, cells) for name, cells in table.items()),
        source=str(folder / LABELS),
    )


def _latents(path: Path) -> Tensor:
    with reading(path):
        found = _content(path, "Latent")
        if not isinstance(found, ArrayRecord) or isinstance(found.dtype, _ObjectDtype) or len(found.shape) < 2:
            raise CheckpointError("its Latent is not an array of numbers")
        return one_per_sample(torch.from_numpy(found.array().astype("<f4")), path)


def _rows(path: Path) -> list[list[Any]]:
    with reading(path):
        found = _content(path, "att_light")
        table = found[0] if isinstance(found, list | tuple) and found else found
        rows = table.rows() if isinstance(table, _AnyArray) else []
        if not rows or any(len(row) != len(COLUMNS) for row in rows):
            raise CheckpointError(f"its att_light is not a table of {len(COLUMNS)} columns")
        return rows


def _content(path: Path, key: str) -> Any:
    data = file_bytes(path)
    content, _ = unpickle(data, _NAMES, budget=Budget(len(data), MAX_OPERATIONS))
    if not isinstance(content, dict) or key not in content:
        raise CheckpointError(f"it has no {key}, so it is not StyleFlow's {path.name}")
    return content[key]


def _cell(cell: Any, name: str) -> Any:
    """Return a plain cell; a yes/no label that is a score is rounded."""
    if isinstance(cell, ArrayRecord) and not isinstance(cell.dtype, _ObjectDtype) and math.prod(cell.shape) == 1:
        cell = cell.array().item()
    if name in YES_NO and isinstance(cell, float) and 0 < cell < 1:
        return cell > 0.5
    if cell is not None and not isinstance(cell, bool | int | float | str):
        raise ModelError(f"a label of {name!r} is a {type(cell).__name__}", hint="download the file again")
    return cell


def _spec(name: str, cells: list[Any]) -> AttributeSpec:
    if name in YES_NO:
        return AttributeSpec(name, "yes/no")
    if name == HAIR:
        return AttributeSpec(name, "categorical", values=tuple(map(str, range(HAIR_CLASSES))))
    spec = infer({name: cells}, {name: "continuous"})[name]
    return AttributeSpec(name, "continuous") if spec.low >= 0 and spec.high <= 1 else spec
