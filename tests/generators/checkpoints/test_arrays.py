from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from energyql.generators.checkpoints.arrays import NUMPY_NAMES, ArrayRecord
from energyql.generators.checkpoints.reading import CheckpointError
from energyql.generators.checkpoints.unpickle import unpickle


def read(content: bytes) -> Any:
    return unpickle(memoryview(content), NUMPY_NAMES)[0]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i1", "i8", "u1", "b1"])
def test_arrays(protocol: int, dtype: str) -> None:
    for shape in ((), (3,), (2, 3), (0, 4)):
        array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
        record = read(pickle.dumps(array, protocol))
        assert isinstance(record, ArrayRecord)
        np.testing.assert_array_equal(record.array(), array)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_column_order(protocol: int) -> None:
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(read(pickle.dumps(array, protocol)).array(), array)


@pytest.mark.parametrize("value", [np.float32(0.5), np.int64(7), np.bool_(True), np.float64(1e300)])
def test_scalars_become_python_numbers(value: Any) -> None:
    for protocol in (2, 4):
        number = read(pickle.dumps(value, protocol))
        assert number == value
        assert type(number) in (float, int, bool)


def test_both_module_paths() -> None:
    content = pickle.dumps(np.arange(3.0), 2)
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    for path in (new, old):
        np.testing.assert_array_equal(read(content.replace(new, path)).array(), np.arange(3.0))


@pytest.mark.parametrize(
    "value", [np.array([{}], dtype=object), np.array(["text"]), np.zeros(2, dtype="c8"), np.zeros(2, "M8[s]")]
)
def test_other_kinds_are_refused(value: Any) -> None:
    with pytest.raises(CheckpointError):
        read(pickle.dumps(value, 4))
