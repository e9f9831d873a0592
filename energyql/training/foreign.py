"""Heads and labels of other programs: LACE's classifiers, InterFaceGAN's boundaries, StyleFlow's latents and labels.

StyleFlow has two files for n samples. `all_latents.pickle` has {"Latent": array (n, 1, layers, latent_dim)}, the w of a
sample repeated for each layer. `att_light.pickle` has {"att_light": [array (n, 21) of objects]}, `None` where missing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.heads import AttributeBank, Head
from energyql.attributes.pictures import heads_of
from energyql.attributes.predictions import output_count
from energyql.errors import DataError, ModelError
from energyql.files import real_path
from energyql.generators.base import latent_size
from energyql.generators.checkpoints.arrays import NUMPY_NAMES, ArrayRecord, DtypeRecord, make_dtype
from energyql.generators.checkpoints.reading import CheckpointError, file_bytes, reading, shown
from energyql.generators.checkpoints.torch_file import read_weights
from energyql.generators.checkpoints.unpickle import Names, Quota, is_shape, unpickle
from energyql.kinds import BARE, KINDS, is_missing
from energyql.numerics.shapes import Float
from energyql.training.labels import LabelTable, infer, one_per_sample
from energyql.training.steps import minimise
from energyql.training.tables import read_npy
from energyql.training.target import AnyModel, opening_target
from energyql.vocabulary import AttributeSpec, Vocabulary

LACE_STD = 0.1
"""Standard deviation that LACE assigns to every continuous attribute."""
_LAYER = re.compile(r"net\.(\d+)\.(weight|bias)")


def add_heads(
    model: AnyModel, heads: AttributeBank, out: str | Path | None = None, *, replace: bool = False
) -> AttributeBank:
    """Add heads to a model folder, without training.

    Old and new heads of a folder must read the same latent, and be valid for the same truncation and condition.

    Args:
        model: see `train_attributes`.
        heads: the heads, with the latent, truncation and condition for which they are valid; without a condition, that
            of the heads in the folder.
        out: the model folder to make or to add to; by default the folder of `model`.
        replace: whether new heads may replace old heads of the same attributes.

    Returns:
        All heads of the folder, old and new.

    Raises:
        ArgumentError: a conditional generator needs a condition, or has no such condition.
        ModelError: the heads do not fit the generator or the folder's heads. The model is then unchanged.
        VocabularyError: the model already has one of the attributes, and `replace` is false.
    """
    space, truncation, names = heads.space, heads.truncation, list(heads.vocabulary)
    with opening_target(model, out, truncation[1]) as target:
        fitted = target.fitted(space, truncation, heads.condition)
        target.check_latents(fitted)
        size = latent_size(target.generator, space)
        if size not in (None, heads.latent_dim):
            raise ModelError(f"the heads read {heads.latent_dim} numbers, but {space} of the generator has {size}")
        target.check_names(names, replace)
        bank = AttributeBank(heads.vocabulary, heads.heads, fitted=fitted)
        with target.changing() as changed:
            return heads_of(changed.save(bank, real_path(target.folder).name, replace=replace), "an import")


def import_lace(path: Path, specs: Vocabulary, *, std: float = LACE_STD) -> dict[str, Head]:
    """Read the heads in a checkpoint of LACE's attribute classifiers. Nothing in the file is executed.

    The file has one network for all attributes: fully connected layers of any size, each with a leaky ReLU of slope
    0.2. Of its two outputs for a yes/no attribute, no and yes, the head predicts the difference as the logit of yes.

    Args:
        path: a `.pt` file.
        specs: the attributes in the file, in the order of the outputs of the network.
        std: standard deviation that the heads of continuous attributes predict; the file has none.

    Raises:
        ModelError: the file is missing, damaged, unsafe or no such classifier; or it does not fit the attributes.
    """
    with reading(path):
        tensors = _state_dict(path)
        layers = _layers(tensors)
        weight, bias = _pair(tensors, "heads")
        counts = [max(1, len(KINDS[spec.kind].classes(spec))) for spec in specs.values()]
        if len(weight) != sum(counts):
            expected = ", ".join(f"{count} for {name}" for name, count in zip(specs, counts, strict=True))
            raise CheckpointError(f"it has {len(weight)} outputs, not {expected}")
        heads = {}
        for spec, rows, offsets in zip(specs.values(), weight.split(counts), bias.split(counts), strict=True):
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
    """Read a boundary of InterFaceGAN as a head: `scale * (normal @ x) + intercept` is the logit of yes for a latent x.

    The file has only `normal`. With `latents` and `labels`, scale and intercept are fitted to the labels. Without them
    they are 1 and 0: the direction is right, but probabilities are not calibrated.

    Args:
        path: a `.npy` file of shape (1, latent_dim) or (latent_dim,).
        spec: the yes/no attribute that the boundary separates.
        latents: labelled latents in the space of the boundary, (n, latent_dim).
        labels: labels of the latents, (n,): 0 or 1, NaN where missing.

    Raises:
        ModelError: the file is missing, damaged or no such array; `spec` is no yes/no attribute; the latents are not
            finite, or of another size; there is not one label for each latent; or all labels are the same.
    """
    if BARE not in KINDS[spec.kind].queries.forms:
        raise ModelError(f"{path}: a boundary separates yes from no, so {spec.name!r} cannot be {spec.kind}")
    with reading(path):
        normal = read_npy(path, ModelError).squeeze()
        if normal.ndim != 1 or not normal.isfinite().all() or not normal.any():
            raise CheckpointError(f"a boundary has the shape (1, numbers), not {tuple(normal.shape)}, and is not zero")
    normal = normal / normal.norm()
    if latents is None or labels is None:
        return linear_head(normal, torch.zeros(1), 1.0)
    if latents.shape[1:] != normal.shape:
        raise ModelError(f"{path} is for latents of {len(normal)} numbers, not {latents.shape[1]}")
    if labels.shape != (len(latents),):
        raise ModelError(f"{path}: {len(latents)} latents, but labels of shape {tuple(labels.shape)}")
    if not latents.isfinite().all():
        raise ModelError(f"{path}: a latent has a number that is not finite", hint="leave such samples out")
    present = ~labels.isnan()
    if len(labels[present].unique()) < 2:
        raise ModelError(f"{path}: all labels of {spec.name!r} are the same, so nothing can be fitted to them")
    scale, intercept = _logistic(latents[present] @ normal, labels[present])
    return linear_head(scale * normal, torch.tensor([intercept]), 1.0)


def linear_head(normal: Float[Tensor, " latent_dim"], offset: Float[Tensor, " 1"], std: float) -> Head:
    """Make a head without a hidden layer: its output for a latent x is `normal @ x + offset`.

    For a continuous attribute that is the mean, with the standard deviation `std`.
    """
    none = torch.zeros(0)
    return Head(none.view(0, len(normal)), none, none.view(1, 0), normal[None], offset, torch.tensor(std))


def _logistic(distance: Float[Tensor, " batch"], labels: Float[Tensor, " batch"]) -> tuple[float, float]:
    """Fit sigmoid(scale * distance + intercept); a weak penalty keeps both finite if labels are separable."""
    unit = distance.std().clamp(min=1e-12).item()
    x, y = (distance / unit).double(), labels.double()
    numbers = torch.zeros(2, dtype=torch.float64, requires_grad=True)

    def loss() -> Tensor:
        error = F.binary_cross_entropy_with_logits(numbers[0] * x + numbers[1], y)
        return error + 0.5e-3 * numbers[0].square() / len(y)

    minimise(loss, [numbers], 200)
    return numbers[0].item() / unit, numbers[1].item()


def _state_dict(path: Path) -> dict[str, Tensor]:
    """Weights of a classifier of LACE by name, such as "heads.weight", as float32."""
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
    """Weight and bias of each hidden layer; raise a `CheckpointError` for layers that are not fully connected."""
    extra = [name for name in tensors if not _LAYER.fullmatch(name) and not name.startswith("heads.")]
    numbers = sorted({int(match[1]) for name in tensors if (match := _LAYER.fullmatch(name))})
    if not numbers:
        raise CheckpointError("it has no hidden layers")
    layers = [_pair(tensors, f"net.{i}") for i in numbers]
    others = [f"net.{i}" for i, (weight, _) in zip(numbers, layers, strict=True) if weight.ndim != 2]
    if wrong := [*extra, *others]:
        what = "classifiers with larger convolutions or normalisation layers are not supported"
        raise CheckpointError(f"it has {shown(wrong[0])}: {what}")
    return layers


def _pair(tensors: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer such as "net.0"; the weight of a 1 x 1 convolution becomes a matrix."""
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
STYLEFLOW_COLUMNS = (
    "width", "height", "smile", "pitch", "roll", "yaw", "gender", "age", "beard", "glasses", "bald", HAIR,
    *(f"light{i}" for i in range(9)),
)  # fmt: skip
TEST_ONE_IN = 10
"""One sample in this many, the last ones of a file, is for the report on the heads only."""
MAX_OPERATIONS = 10_000_000
"""A pickle with more operations is refused. (StyleFlow's table has 210,000 cells of several operations each.)"""


@dataclass(eq=False)
class _ObjectDtype(DtypeRecord):
    """The dtype of an array of Python objects."""

    kind: str = "O"

    @property
    def dtype(self) -> np.dtype[Any]:
        raise CheckpointError("an array of objects is read as if it were numbers")


@dataclass(eq=False)
class _AnyArray(ArrayRecord):
    """A NumPy array in a pickle, either of numbers or of Python objects (`cells`, row by row)."""

    cells: list[Any] = field(default_factory=list)

    def set_state(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], _ObjectDtype)):
            super().set_state(state)
            return
        _, self.shape, self.dtype, _, self.cells = state
        if not is_shape(self.shape) or not isinstance(self.cells, list) or len(self.cells) != math.prod(self.shape):
            raise CheckpointError("an array of objects is damaged")

    def rows(self) -> list[list[Any]]:
        """Rows of a table; none if there are not two axes, or more than `MAX_OPERATIONS` cells."""
        if len(self.shape) != 2 or math.prod(self.shape) > MAX_OPERATIONS:
            return []
        rows, columns = self.shape
        if isinstance(self.dtype, _ObjectDtype):  # objects are written row by row, regardless of their order in memory
            return [self.cells[i * columns : (i + 1) * columns] for i in range(rows)]
        return cast("list[list[Any]]", self.array().tolist())


def _dtype(text: Any, *rest: Any) -> DtypeRecord:
    return _ObjectDtype() if text in ("O8", "O4", "O", "|O") else make_dtype(text, *rest)


_NAMES: Names = {
    **NUMPY_NAMES,
    ("numpy", "dtype"): _dtype,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: _AnyArray() for core in ("core", "_core")},
}


def read_styleflow(folder: Path, only: Sequence[str] | None = None) -> LabelTable:
    """Read the latents and labels of a folder with StyleFlow's two pickles. Nothing in the pickles is executed.

    A continuous attribute ranges from 0 to 1 if all its values do, else from its smallest to its largest value. The
    last tenth of the samples is only for the report on the heads.

    Args:
        folder: folder with `all_latents.pickle` and `att_light.pickle`.
        only: attributes to read; by default those of StyleFlow's 21 that have more than one value in the file.

    Returns:
        The table of labels, with the latents w of the samples.

    Raises:
        ModelError: a pickle is missing, damaged, unsafe, or not of StyleFlow's form.
        DataError: `only` names an unknown attribute, or a continuous one with fewer than two values; or latents are not
            finite, or differ from layer to layer.
    """
    columns = list(STYLEFLOW_COLUMNS if only is None else only)
    if unknown := [name for name in columns if name not in STYLEFLOW_COLUMNS]:
        raise DataError(f"StyleFlow has no labels for {unknown[0]!r}", hint=f"it has {', '.join(STYLEFLOW_COLUMNS)}")
    latents, rows = _latents(folder / LATENTS), _rows(folder / LABELS)
    if len(rows) != len(latents):
        raise ModelError(f"{folder} holds {len(latents)} latents, but labels for {len(rows)}")
    table = {name: [_cell(row[STYLEFLOW_COLUMNS.index(name)], name) for row in rows] for name in columns}
    if only is None:
        table = {
            name: cells for name, cells in table.items() if len({cell for cell in cells if not is_missing(cell)}) > 1
        }
    specs = Vocabulary(_spec(name, cells) for name, cells in table.items())
    test = len(rows) // TEST_ONE_IN
    return LabelTable(table, latents=latents, test=test, vocabulary=specs, source=str(folder / LABELS))


def _latents(path: Path) -> Tensor:
    with reading(path):
        array = _content(path, "Latent")
        if not isinstance(array, ArrayRecord) or isinstance(array.dtype, _ObjectDtype) or len(array.shape) < 2:
            raise CheckpointError("its Latent is not an array of numbers")
        return one_per_sample(torch.from_numpy(array.array().astype("<f4")), path)


def _rows(path: Path) -> list[list[Any]]:
    """StyleFlow's labels: a row for each sample, with a cell for each attribute in `STYLEFLOW_COLUMNS`."""
    with reading(path):
        content = _content(path, "att_light")
        table = content[0] if isinstance(content, list | tuple) and content else content
        rows = table.rows() if isinstance(table, _AnyArray) else []
        if not rows or any(len(row) != len(STYLEFLOW_COLUMNS) for row in rows):
            raise CheckpointError(f"its att_light is not a table of {len(STYLEFLOW_COLUMNS)} columns")
        return rows


def _content(path: Path, key: str) -> Any:
    """Value of `key` in the dict that a pickle holds; nothing in the file is executed."""
    data = file_bytes(path)
    content, _ = unpickle(data, _NAMES, quota=Quota(len(data), MAX_OPERATIONS))
    if not isinstance(content, dict) or key not in content:
        raise CheckpointError(f"it has no {key}, so it is not StyleFlow's {path.name}")
    return content[key]


def _cell(cell: Any, name: str) -> Any:
    """Convert a cell of a pickle to one of `LabelTable`; a score for yes/no between 0 and 1 becomes true above 0.5."""
    if isinstance(cell, ArrayRecord) and not isinstance(cell.dtype, _ObjectDtype) and math.prod(cell.shape) == 1:
        cell = cell.array().item()
    if name in YES_NO and isinstance(cell, float) and 0 < cell < 1:
        return cell > 0.5
    if cell is not None and not isinstance(cell, bool | int | float | str):
        raise ModelError(f"a label of {name!r} is a {type(cell).__name__}")
    return cell


def _spec(name: str, cells: list[Any]) -> AttributeSpec:
    """Attribute of StyleFlow: the name decides its kind, and the labels decide its range."""
    if name in YES_NO:
        return AttributeSpec(name, "yes/no")
    if name == HAIR:
        return AttributeSpec(name, "categorical", values=tuple(map(str, range(HAIR_CLASSES))))
    spec = infer({name: cells}, {name: "continuous"})[name]
    return AttributeSpec(name, "continuous") if spec.low >= 0 and spec.high <= 1 else spec
