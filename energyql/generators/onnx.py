"""Generators that are ONNX models: an input takes noise, and an output is the picture. They have no gradients.

onnxruntime computes a model on the CPU, one picture at a time, so the bits of a picture do not depend on its batch. A
model is one file without code: it is refused if it needs other files, or operators that onnxruntime lacks.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from energyql.errors import ArgumentError, CheckpointWarning, caller_level, either
from energyql.files import as_path, refuse_address, replacing
from energyql.generators.base import Family, block_means
from energyql.generators.checkpoints.reading import CheckpointError, file_bytes, reading, shown
from energyql.numerics.pool import in_pool
from energyql.numerics.random import normals
from energyql.numerics.shapes import Float
from energyql.plugins import import_optional

if TYPE_CHECKING:
    from typing_extensions import Unpack

INSTALL = 'pip install "onnx>=1.16" "onnxruntime>=1.17"'
BLOCKS = 8
"""Blocks along each of the last two axes of the noise, whose means are features. Shorter axes than twice this have
none."""
DRAWS = 8
"""Number of pictures from which the range of the values of the output is measured."""
RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0))
"""Usual ranges of the values of pictures, of which the first that fits is taken if a user states none."""
_DTYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(bool)": np.bool_,
}  # fmt: skip
Numbers = float | Sequence[float]


@dataclass(frozen=True)
class OnnxConfig:
    """Settings of a generator that is an ONNX model.

    Attributes:
        noise: name of the input that takes the noise.
        z_shape: shape of the noise of one picture, such as (1, 128, 128).
        output: name of the output that is the picture.
        low: value of the output that becomes -1 in pictures.
        high: value of the output that becomes 1.
        scale: standard deviation of the noise that the input takes.
        fixed: name of an input -> the number, or list of numbers, that it takes for every picture.
        conditions: name of an input -> the least and the largest of its numbers, which are distributed uniformly, a new
            one for each picture; whole if the input takes whole numbers.
    """

    noise: str
    z_shape: tuple[int, ...]
    output: str
    low: float = -1.0
    high: float = 1.0
    scale: float = 1.0
    fixed: Mapping[str, Numbers] = field(default_factory=dict)
    conditions: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("low", "high", "scale"):
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("fixed", "conditions"):  # equal settings have equal texts, and so equal fingerprints
            entries = getattr(self, name).items()
            object.__setattr__(self, name, {entry: np.asarray(value, float).tolist() for entry, value in entries})
        for name, (least, largest) in {"the output": (self.low, self.high), **self.conditions}.items():
            if not (math.isfinite(least) and math.isfinite(largest) and least < largest):
                raise CheckpointError(f"{least:g}..{largest:g} is no range of {shown(name)}", hint="such as 0..1")
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise CheckpointError(f"the scale of the noise must be above 0, not {self.scale:g}")

    @property
    def z_dim(self) -> int:
        """Size of z: the numbers of the noise, then one number for each condition."""
        return math.prod(self.z_shape) + len(self.conditions)

    w_dim = z_dim


class OnnxGenerator(nn.Module):
    """An ONNX model that draws pictures from noise.

    z is the noise, row by row, and then one number for each condition, an input with another number for each picture.
    The cumulative distribution function of the standard normal maps this number to the range of the condition, so that
    z is normally distributed as for other generators.

    Attributes:
        z_shape: shape of the noise of one picture.
        differentiable: false, because autograd cannot differentiate the pictures.

    Args:
        data: content of the ONNX file.
        session: session of onnxruntime with the model, by `open_session`.

    Raises:
        CheckpointError: the model has no such inputs or output, or its inputs are of other shapes, or need a value.
    """

    mark: Tensor
    differentiable = False

    def __init__(self, config: OnnxConfig, data: bytes, session: Any) -> None:
        super().__init__()
        self.config, self.z_dim, self.z_shape = config, config.z_dim, config.z_shape
        self._data, self._session = data, session
        self._inputs = {each.name: each for each in session.get_inputs()}
        outputs = [each.name for each in session.get_outputs()]
        if config.output not in outputs:
            raise CheckpointError(f"it has no output {shown(config.output)}", hint=f"it has {_listed(outputs)}")
        named = [config.noise, *config.fixed, *config.conditions]
        for name in named:
            if name not in self._inputs:
                raise CheckpointError(f"it has no input {shown(name)}", hint=self._described())
            if named.count(name) > 1:
                raise CheckpointError(
                    f"its input {shown(name)} takes noise, fixed numbers or a condition, not two of them"
                )
        if missing := [name for name in self._inputs if name not in named]:
            name = missing[0]
            fixed = either(f"fixed={{{name!r}: 80}}", f"--fixed {name}=80")
            condition = either(f"conditions={{{name!r}: (0, 1)}}", f"--condition {name}=0..1")
            hint = f"give it, such as {fixed} or {condition}; {self._described()}"
            raise CheckpointError(f"its input {shown(name)} needs a value", hint=hint)
        self._check_noise()
        self._fixed = {name: self._filled(name, numbers) for name, numbers in config.fixed.items()}
        for name, ends in config.conditions.items():
            if any(self._filled(name, end).size != 1 for end in ends):
                raise CheckpointError(f"its input {shown(name)} takes several numbers, so it is no condition")
        # Not only the file: a model with another scale is another generator.
        digest = hashlib.sha256(data)
        digest.update(repr(config).encode())
        self.register_buffer("mark", torch.tensor(list(digest.digest()), dtype=torch.uint8))
        if len(self.z_shape) > 1 and min(self.z_shape[-2:]) >= 2 * BLOCKS:
            self.features = self._block_means
        self.eval()

    def _described(self) -> str:
        """Names and shapes of all inputs, for the hint of an error."""
        return f"its inputs are {_listed(_with_shape(each) for each in self._inputs.values())}"

    def _check_noise(self) -> None:
        """Raise a `CheckpointError` unless the input `config.noise` takes floats of the shape (1, *z_shape)."""
        name, entry = self.config.noise, self._inputs[self.config.noise]
        if not np.issubdtype(self._dtype(name), np.floating):
            raise CheckpointError(f"its input {shown(name)} takes {entry.type}, not noise", hint=self._described())
        batch, *shape = entry.shape or [0]
        if not shape or (isinstance(batch, int) and batch != 1):
            problem = f"its input {shown(name)} has no first axis for a batch of any size, or of 1"
            raise CheckpointError(problem, hint=self._described())
        fits = len(shape) == len(self.z_shape) and all(
            type(size) is int and size > 0 and (size == axis or not isinstance(axis, int))
            for size, axis in zip(self.z_shape, shape, strict=True)
        )
        if not fits:
            raise CheckpointError(f"its noise is not of the shape {self.z_shape}", hint=self._described())

    def _dtype(self, name: str) -> type[np.generic]:
        """Type of the numbers that an input takes."""
        kind = self._inputs[name].type
        if kind not in _DTYPES:
            raise CheckpointError(f"its input {shown(name)} takes {kind}", hint=f"possible are {', '.join(_DTYPES)}")
        return _DTYPES[kind]

    def _filled(self, name: str, numbers: Numbers) -> npt.NDArray[Any]:
        """Array that an input takes for one picture, in its shape and type; a single number fills it."""
        shape = [size if isinstance(size, int) else 1 for size in self._inputs[name].shape]
        values = np.asarray(numbers, np.float64)
        dtype = self._dtype(name)
        if values.size not in (1, math.prod(shape)):
            problem = f"its input {shown(name)} takes {math.prod(shape)} numbers, not {values.size}"
            raise CheckpointError(problem, hint=self._described())
        with np.errstate(all="ignore"):
            converted = values.astype(dtype)
        if not np.issubdtype(dtype, np.floating) and (converted != values).any():
            kind = self._inputs[name].type
            raise CheckpointError(f"its input {shown(name)} takes {kind}, not {values[converted != values][0]:g}")
        return np.broadcast_to(converted.ravel(), (math.prod(shape),)).reshape(shape)

    def encode(self, z: Float[Tensor, "batch z_dim"], truncation: float = 1.0) -> Float[Tensor, "batch z_dim"]:
        """Return w, which is `truncation * z`."""
        return truncation * z

    def _block_means(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch features"]:
        """Features of z: the means of blocks of the noise, with unit variance, and the numbers for conditions."""
        size = math.prod(self.z_shape)
        means = block_means(z[:, :size].reshape(len(z), -1, *self.z_shape[-2:]), BLOCKS)
        return torch.cat([means, z[:, size:]], 1)

    def synthesize(self, w: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch channels height width"]:
        """Map w to pictures in [-1, 1], shape (batch, 1 or 3, height, width).

        Raises:
            ArgumentError: w requires a gradient, and an ONNX model has none.
            CheckpointError: the model fails, or its output is no picture.
        """
        if torch.is_grad_enabled() and w.requires_grad:
            raise ArgumentError("pictures of an ONNX model have no gradient, and this needs one")
        rows = w.detach().float().cpu().split(1)
        low, high = self.config.low, self.config.high
        images = torch.cat(in_pool(self.raw_picture, [(row,) for row in rows])).to(w.device)
        return (images * (2 / (high - low)) - (high + low) / (high - low)).clamp_(-1, 1)

    def raw_picture(self, w: Float[Tensor, "1 z_dim"]) -> Float[Tensor, "1 channels height width"]:
        """Output of the model for one w, in float32; a `CheckpointError` is raised if it is no picture."""
        size, config = math.prod(self.z_shape), self.config
        noise = (config.scale * w[:, :size]).reshape(1, *self.z_shape).numpy()
        inputs = {config.noise: noise.astype(self._dtype(config.noise), copy=False), **self._fixed}
        shares = torch.special.ndtr(w[0, size:].double()).tolist()
        for share, (name, (least, largest)) in zip(shares, config.conditions.items(), strict=True):
            number = least + (largest - least) * share
            if not np.issubdtype(self._dtype(name), np.floating):
                number = min(largest, least + math.floor((largest - least + 1) * share))
            inputs[name] = self._filled(name, number)
        try:
            (output,) = self._session.run([config.output], inputs)
        except Exception as error:  # onnxruntime has many kinds, without a class of their own
            raise CheckpointError(f"onnxruntime cannot run the ONNX model: {shown(str(error), 300)}") from None
        shape, numeric = np.shape(output), isinstance(output, np.ndarray) and output.dtype != object
        if not numeric or len(shape) != 4 or shape[0] != 1 or not {shape[1], shape[3]} & {1, 3}:
            problem = f"output {shown(config.output)} of the ONNX model has the shape {shape}, which is no picture"
            raise CheckpointError(problem, hint="(1, 1 or 3, height, width) or (1, height, width, 1 or 3) is one")
        image = torch.from_numpy(np.ascontiguousarray(output, np.float32))
        return image if shape[1] in (1, 3) else image.permute(0, 3, 1, 2).contiguous()

    def save(self, path: Path) -> None:
        """Write the ONNX file, byte for byte as it was read."""
        with replacing(path) as target, target.open("wb") as file:
            file.write(self._data)


class OnnxOptions(TypedDict, total=False):
    """Types of the keyword arguments of `load_onnx`: the fields of `OnnxSettings`, again for type checkers."""

    noise: str | None
    shape: Sequence[int] | None
    scale: float
    fixed: Mapping[str, Numbers]
    conditions: Mapping[str, Sequence[float]]
    output: str | None
    values: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class OnnxSettings:
    """The settings of `load_onnx`: how the inputs and the output of an ONNX model are used.

    Attributes:
        noise: name of the input that takes noise; by default the only input that is neither fixed nor a condition.
        shape: shape of the noise of one picture, without the axis of the batch; needed if the model leaves it open.
        scale: standard deviation of the noise; for a diffusion model in one step, its largest sigma.
        fixed: input -> number, or list of numbers, that it takes for every picture.
        conditions: input -> least and largest value. The value of a picture is a part of its z, distributed uniformly.
        output: name of the output that is the picture; by default the only one.
        values: range of the output, which becomes [-1, 1]. By default the first of 0..1, -1..1 and 0..255 that holds
            all values of 8 pictures, and a warning says so.

    Raises:
        ArgumentError: a value has a wrong type.
    """

    noise: str | None = None
    shape: Sequence[int] | None = None
    scale: float = 1.0
    fixed: Mapping[str, Numbers] = field(default_factory=dict)
    conditions: Mapping[str, Sequence[float]] = field(default_factory=dict)
    output: str | None = None
    values: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        values = (0, 1) if self.values is None else self.values
        _check_arguments(self.shape, {"scale": self.scale}, self.fixed, {**self.conditions, "values": values})


def load_onnx(path: str | Path, **options: Unpack[OnnxOptions]) -> OnnxGenerator:
    """Return the generator in an ONNX file, whose model must draw a picture from noise.

    The same noise must always give the same picture. Only the operators of the model are executed, by onnxruntime on
    the CPU. A few pictures are drawn as a test.

    Args:
        path: the file.
        options: fields of `OnnxSettings` by name, such as `fixed` or `values`.

    Raises:
        ModelError: the file is missing or no ONNX model, or needs further files; inputs and outputs do not fit the
            arguments; the output is no picture, is the same for every noise, or differs between two calls with the same
            noise; or onnx or onnxruntime is not installed.
        ArgumentError: the path is an address such as `https://...`, or an argument has a wrong type.

    Warns:
        CheckpointWarning: the range of the values is assumed.
    """
    refuse_address(path)
    path, asked = as_path(path), OnnxSettings(**options)
    noise, shape, scale, output, values = asked.noise, asked.shape, asked.scale, asked.output, asked.values
    with reading(path):
        data = bytes(file_bytes(path))  # a copy, because the file may be overwritten before `save`
        session = open_session(data)
        fixed, conditions = dict(asked.fixed), dict(asked.conditions)
        shapes = {each.name: each.shape for each in session.get_inputs()}
        free = [each for each in session.get_inputs() if each.name not in {**fixed, **conditions}]
        noise = _only("input", free, "noise") if noise is None else noise
        output = _only("output", session.get_outputs(), "output") if output is None else output
        axes = shapes.get(noise, [1])[1:] if shape is None else list(shape)
        if not all(isinstance(axis, int) for axis in axes):
            problem = f"its input {shown(noise)} leaves the shape of the noise open: {' x '.join(map(str, axes))}"
            raise CheckpointError(problem, hint="give " + either("shape=(1, 128, 128)", "--shape 1x128x128"))
        low, high = (-1.0, 1.0) if values is None else values
        config = OnnxConfig(noise, tuple(axes), output, low, high, scale, fixed, conditions)
        generator = OnnxGenerator(config, data, session)
        z = normals(0, 0, DRAWS if values is None else 2, generator.z_dim, stream="range")
        pictures = torch.cat(in_pool(generator.raw_picture, [(row,) for row in z.split(1)]))
        if not pictures.isfinite().all():
            raise CheckpointError(f"its output {shown(output)} has values that are not finite")
        if not pictures[:1].equal(generator.raw_picture(z[:1])):
            raise CheckpointError("it draws another picture each time", hint="all its randomness must be an input")
        if pictures[0].equal(pictures[1]):
            hint = f"name its input: {either('noise=', '--noise')}"
            raise CheckpointError("it draws the same picture for each noise", hint=hint)
        if values is None:
            low, high = _measured(output, pictures)
            generator = OnnxGenerator(replace(config, low=low, high=high), data, session)
    return generator


def _check_arguments(
    shape: object, numbers: Mapping[str, object], lists: Mapping[str, object], ranges: Mapping[str, object]
) -> None:
    """Raise an `ArgumentError` if an argument of `load_onnx` has a wrong type; `ranges` must be pairs of numbers."""

    def number(value: object) -> bool:
        return isinstance(value, Real) and not isinstance(value, bool)

    def several(value: object) -> bool:
        return isinstance(value, Sequence) and all(map(number, value))

    if shape is not None and not (isinstance(shape, Sequence) and all(isinstance(size, int) for size in shape)):
        raise ArgumentError(f"shape is a sequence of sizes, not {shape!r}", hint="such as (1, 128, 128)")
    for name, value in numbers.items():
        if not number(value):
            raise ArgumentError(f"{name} is a number, not {value!r}")
    for name, value in lists.items():
        if not (number(value) or several(value)):
            raise ArgumentError(f"fixed: {name} is a number or numbers, not {value!r}", hint='such as {"sigma": 80}')
    for name, value in ranges.items():
        if not (several(value) and len(value) == 2):  # type: ignore[arg-type]
            raise ArgumentError(f"{name} is a pair of numbers, not {value!r}", hint="such as (-1, 1)")


def _only(what: str, entries: Sequence[Any], argument: str) -> str:
    """Name of the only input or output in a list; if there are several, the error says which argument chooses one."""
    if len(entries) != 1:
        problem = f"it has {len(entries)} {what}s for {argument}: {_listed(map(_with_shape, entries))}"
        raise CheckpointError(problem, hint=f"choose one with {either(f'{argument}=', f'--{argument}')}")
    return str(entries[0].name)


def _with_shape(entry: Any) -> str:
    """Name and shape of an input or output of a model, such as "noise (batch x 1 x 128 x 128)"."""
    return f"{entry.name} ({' x '.join(map(str, entry.shape))})"


def _listed(names: Iterable[str]) -> str:
    """Texts of a file for an error message: shortened, in ASCII, and separated by commas."""
    return ", ".join(shown(name) for name in names) or "none"


def _measured(output: str, pictures: Tensor) -> tuple[float, float]:
    """First of `RANGES` that contains all values of some pictures, with a warning that it is assumed."""
    least, largest = pictures.min().item(), pictures.max().item()
    measured = f"values of output {shown(output)} were from {least:.3g} to {largest:.3g} in {len(pictures)} pictures"
    hint = f"give the range: {either('values=(low, high)', '--range LOW..HIGH')}"
    for low, high in RANGES:
        if low <= least and largest <= high:
            warnings.warn(
                CheckpointWarning(f"{measured}; {low:g}..{high:g} is assumed, or {hint}"), stacklevel=caller_level()
            )
            return low, high
    raise CheckpointError(f"{measured}, which is no usual range of a picture", hint=hint)


def open_session(data: bytes) -> Any:
    """Open a session of onnxruntime with the model in `data`, the content of an ONNX file.

    Raises:
        CheckpointError: it is no ONNX model, needs other files, or has an operator that onnxruntime lacks; or onnx or
            onnxruntime is not installed.
    """
    try:
        onnx, runtime = (import_optional(name, f"it needs {name}", INSTALL) for name in ("onnx", "onnxruntime"))
    except ArgumentError as error:
        raise CheckpointError(error.message, hint=error.hint) from None
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # of protobuf, whose class depends on its version
        model = onnx.ModelProto()
    if not model.graph.node:
        raise CheckpointError("it is no ONNX model")
    if any(tensor.external_data or tensor.data_location for tensor in _tensors(model)):
        hint = "save it as one file: onnx.save(onnx.load(path), new_path)"
        raise CheckpointError("its weights lie in other files, which are not read", hint=hint)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # bits of pictures depend on the number of threads
    options.log_severity_level = 4  # errors are raised
    options.add_session_config_entry("session.load_model_format", "ONNX")  # what was checked, not its own format
    try:
        return runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has many kinds, without a class of their own
        raise CheckpointError(f"onnxruntime cannot run the ONNX model: {shown(str(error), 300)}") from None


def _tensors(message: Any) -> Iterator[Any]:
    """The tensors at any depth of an ONNX model, or of a part of one."""
    for entry, value in message.ListFields():
        if entry.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                if entry.message_type.name == "TensorProto":
                    yield part
                yield from _tensors(part)


def read_onnx(path: Path, config: OnnxConfig) -> OnnxGenerator:
    """Read the ONNX file of a model folder, as the family "onnx" does."""
    data = bytes(file_bytes(path))
    return OnnxGenerator(config, data, open_session(data))


FAMILY = Family("onnx", OnnxGenerator, OnnxConfig, truncation=1.0, weights="generator.onnx", read=read_onnx)
