"""Files of NumPy: plain numbers are read, and any other content is refused with an error of this library."""

import io

import numpy as np
import pytest
import torch

from energyql.errors import DataError, ModelError
from energyql.training.tables import read_npy

NUMBERS = np.arange(24).reshape(2, 3, 4)


@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f4", "f8", "i1", "u1", ">i2", "u2", "i4", "u4", "i8", "u8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numbers(tmp_path, dtype, order):
    array = np.array(NUMBERS, dtype, order=order)
    np.save(tmp_path / "a.npy", array)
    found = read_npy(tmp_path / "a.npy")
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.from_numpy(NUMBERS.astype("f4")))


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("array", [NUMBERS * 1.0, np.float32(3), np.zeros((0, 4)), np.ones(5)])
def test_versions_and_shapes(tmp_path, version, array):
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, np.asarray(array), version=version)
    assert torch.equal(read_npy(tmp_path / "a.npy"), torch.from_numpy(np.array(array, "f4")))


def test_numbers_beyond_float32_are_infinite(tmp_path):
    np.save(tmp_path / "a.npy", np.array([1e300, -1e300]))
    assert read_npy(tmp_path / "a.npy").tolist() == [np.inf, -np.inf]


@pytest.mark.parametrize(
    "array",
    [
        np.ones(3, complex), np.ones(3, bool), np.array(["2020-01-01"], "M8[D]"), np.array([1], "m8[s]"),
        np.array([(1, 2.0)], [("a", "i4"), ("b", "f4")]), np.array(["a"]), np.array([b"a"]), np.ones(2, np.longdouble),
        np.array([None]), np.zeros(2, [("a", "f4", (2,))]), np.zeros(2, "V4"),
    ],
    ids=str,
)  # fmt: skip
def test_everything_else_is_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=r"cannot read .*a\.npy: it is not a \.npy file of plain numbers"):
        read_npy(tmp_path / "a.npy")


HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }"


@pytest.mark.parametrize(
    "header",
    [
        "", "{", "(" * 5000, "[" * 9000, "{'descr': '<f4', 'fortran_order': False}", HEADER + "x", HEADER[:-1],
        HEADER.replace("(2,)", "(2"), HEADER.replace("(2,)", "(-2,)"), HEADER.replace("(2,)", "(1e3,)"),
        HEADER.replace("(2,)", "(" + "9" * 5000 + ",)"), HEADER.replace("(2,)", "(" + "1," * 9 + ")"),
        HEADER.replace("False", "None"), HEADER.replace("False", "'False'"),
        HEADER.replace("'<f4'", "__import__('os')"),
        HEADER.replace("'<f4'", "'<f4'*99999999"), HEADER.replace("descr", "shape"), HEADER.replace("'<f4'", "'<f1'"),
        HEADER.replace("(2,)", "'2'"), HEADER.replace("(2,)", "(2,3)"), HEADER.replace("(2,)", "(1,)"), HEADER + "\0",
        HEADER.replace("(2,)", "(\u0662,)"), "'''", "{'descr': \\", "0x" + "f" * 9000,
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", [1, 2, 3])
def test_wrong_headers(tmp_path, header, version):
    text = header.encode("utf-8")
    size = len(text).to_bytes(2 if version == 1 else 4, "little")
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY" + bytes([version, 0]) + size + text + bytes(8))
    with pytest.raises(DataError, match=r"cannot read .*a\.npy"):
        read_npy(tmp_path / "a.npy")


def test_the_same_header_in_other_words(tmp_path):
    text = b' { "shape":(2 ,) ,"fortran_order" : True,\n"descr":"<f4" } '
    numbers = np.array([1, 2], "<f4")
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + numbers.tobytes())
    assert read_npy(tmp_path / "a.npy").tolist() == [1, 2]


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"\x93NUMPY\x09\x00", b"PK\x03\x04", b"\x93NUMPY\x02\x00\xff\xff\xff\xff"]
)
def test_other_files(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot read .*a\.npy"):
        read_npy(tmp_path / "a.npy", ModelError)


def test_every_end(tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.ones(4, "f4"))
    for end in range(len(stream.getvalue())):
        (tmp_path / "a.npy").write_bytes(stream.getvalue()[:end])
        with pytest.raises(DataError):
            read_npy(tmp_path / "a.npy")
    with pytest.raises(DataError, match="its array ends at byte 144 of 145"):
        (tmp_path / "a.npy").write_bytes(stream.getvalue() + b"x")
        read_npy(tmp_path / "a.npy")


def test_a_long_header_is_refused(tmp_path):
    text = HEADER.replace("(2,)", "(2," + " " * 10_000 + ")").encode()
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(8))
    with pytest.raises(DataError, match="not a .npy file"):
        read_npy(tmp_path / "a.npy")


def test_an_array_larger_than_its_file_takes_no_memory(tmp_path):
    for shape in ("(99999999999,)", "(4611686018427387904, 4)", "(9223372036854775807, 2)"):
        text = HEADER.replace("(2,)", shape).encode()
        (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(8))
        with pytest.raises(DataError, match="not a .npy file"):
            read_npy(tmp_path / "a.npy")
