"""Small ONNX models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, load, numpy_helper
from onnx import save as write

Nodes = list[tuple[str, str, str] | tuple[str, str, str, dict[str, Any]]]


def save(
    path: Path, nodes: Nodes, inputs: dict[str, list[Any]], output: str, constants: dict[str, Any], **kinds: int
) -> Path:
    """Write a model.

    Args:
        path: the file; its folder is made.
        nodes: operator, names of its inputs separated by blanks, name of its output, and attributes.
        inputs: name -> shape.
        output: name of the output.
        constants: name -> value.
        kinds: name of an input -> its type, by default floats.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    values = [
        helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), shape) for name, shape in inputs.items()
    ]
    made = [helper.make_node(op, taken.split(), [given], **dict(*more)) for op, taken, given, *more in nodes]
    result = helper.make_tensor_value_info(output, kinds.get(output, TensorProto.FLOAT), None)
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(made, "small", values, [result], held)
    write(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def heights(path: Path, channels: int = 1, **kinds: int) -> Path:
    """tanh(noise / sigma + level): its inputs are noise (n, channels, 16, 16), sigma (n) and level (n)."""
    nodes: Nodes = [
        ("Cast", "level", "real", {"to": TensorProto.FLOAT}),
        ("Reshape", "real shape", "all"),
        ("Reshape", "sigma shape", "scale"),
        ("Div", "noise scale", "standard"),
        ("Add", "standard all", "sum"),
        ("Tanh", "sum", "land"),
    ]
    inputs: dict[str, list[Any]] = {"noise": ["n", channels, 16, 16], "sigma": ["n"], "level": ["n"]}
    return save(path, nodes, inputs, "land", {"shape": np.array([-1, 1, 1, 1])}, **kinds)


def gan(path: Path, last: Nodes | None = None, *, wide: int = 12, output: str = "image", **kinds: int) -> Path:
    """A linear network of batch 1 from z (1, 4) to images (1, 3, 2, `wide` / 6); `last` continues after `image`."""
    weights = np.random.default_rng(0).normal(size=(4, wide)).astype(np.float32)
    nodes: Nodes = [("MatMul", "z weights", "flat"), ("Tanh", "flat", "bounded"), ("Reshape", "bounded shape", "image")]
    constants = {
        "weights": weights,
        "shape": np.array([1, 3, 2, wide // 6]),
        "one": np.float32(1),
        "half": np.float32(0.5),
    }
    return save(path, [*nodes, *(last or [])], {"z": [1, 4]}, output, constants, **kinds)


def outside(path: Path, location: str) -> Path:
    """Change a model: its weights lie in the file `location` beside it."""
    model = load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0"}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    path.write_bytes(model.SerializeToString())
    return path
