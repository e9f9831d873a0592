"""Pickles whose operations or arguments are wrong: all end as ModelError."""

from __future__ import annotations

from typing import Any

import pytest

from generators.checkpoints.writer import PERSISTENT, Call, Named, dumps

FLOAT = Call(Named("numpy", "dtype"), ("f4",))


@pytest.mark.parametrize(
    "value",
    [
        Call(Named(*PERSISTENT), ()),
        Call(Named(*PERSISTENT), ({"type": "meta", "class_name": "x", "state": {}},)),
        Call(Named(*PERSISTENT), ("text",), {"__class__": "x"}),
        Call(Named(*PERSISTENT), ("text",), ["no", "dict"]),
        Call(Named("collections", "OrderedDict"), (3,)),
        Call(Named("collections", "OrderedDict"), ([("a",)],)),
        Call(Named("numpy", "dtype"), ("O8", False, True)),
        Call(Named("numpy", "dtype"), ("f4",), (3, "x")),
        Call(Named("numpy", "ndarray"), ((10**9,),)),
        Call(
            Named("numpy.core.multiarray", "_reconstruct"),
            (),
            (1, (2,), Call(Named("numpy", "dtype"), ("f4",)), 0, [1]),
        ),
        Call(Named("numpy.core.multiarray", "scalar"), (FLOAT, b"too long")),
        Call(Named("torch", "FloatStorage"), (10**12,)),
        Call(Named("torch._utils", "_rebuild_tensor_v2"), ("no storage", 0, (1,), (1,), False, {})),
        Call(Named("torch._utils", "_rebuild_parameter"), ()),
        Call(Named("_codecs", "encode"), ("x", "rot13")),
        Call(Call(Named("collections", "OrderedDict")), ()),
        {(1, 2): 3},
        {1.5: 3},
        {2**60: 3},
        10**60,
        Call(Named("builtins", "set"), ([[1]],)),
    ],
)
def test_known_names_with_wrong_arguments(refused: Any, value: Any) -> None:
    refused(dumps({"G_ema": value}))


@pytest.mark.parametrize(
    "body",
    [
        b"\x8e" + (2**40).to_bytes(8, "little"),  # BINBYTES8
        b"\x8e" + (2**64 - 1).to_bytes(8, "little"),
        b"\x96" + (2**40).to_bytes(8, "little"),  # BYTEARRAY8
        b"\x8d" + (2**40).to_bytes(8, "little"),  # BINUNICODE8
        b"X" + (2**31).to_bytes(4, "little"),
        b"\x8b" + (2**31 - 1).to_bytes(4, "little"),  # LONG4
        b"\x8b\xff\xff\xff\xff",
        b"\x8a\xff" + b"\x01" * 255,  # LONG1
        b"\x95" + (2**40).to_bytes(8, "little"),  # FRAME
        b"j\xff\xff\xff\xff",
        b"R",
        b"t",
        b"\x87",
        b"0",
        b"s",
        b"Ne",
        b"N(NNu",
        b"}(Nu",
        b"N(N\x90",
        b"Q",
        b"PX\n",
        b"2",
        b"\x97",
        b"I1\n",
        b"L1\n",
        b"S'x'\n",
        b"cwithout end",
    ],
)
def test_damaged_operations(refused: Any, body: bytes) -> None:
    refused(b"\x80\x04" + body + b".")
    refused(b"\x80\x04" + body)
