"""Files that would take all memory or never end: all end as ModelError, within bounds."""

from __future__ import annotations

import io
import struct
from typing import Any

import pytest
import torch

from generators.checkpoints.writer import LEGACY_HEAD, PERSISTENT, Call, Named, dumps, official, text


def test_memo_index_takes_no_memory(refused: Any) -> None:
    refused(b"\x80\x04Nr\xff\xff\xff\x7f.")


def test_operations_are_capped(refused: Any) -> None:
    assert "operations" in refused(b"\x80\x04" + b"N" * 400_000 + b".").message


@pytest.mark.slow
def test_deep_nesting(refused: Any) -> None:
    for opening in (b"\x85", b"]\x94", b"ctorch\nSize\n\x85"):
        refused(b"\x80\x04N" + opening * 20_000 + b".")
    refused(b"\x80\x04}N" + b"\x85" * 100_000 + b"Ns.")  # as a key, whose hash would run deep
    refused(LEGACY_HEAD + b"\x80\x02N.\x80\x02]N" + b"\x85" * 100_000 + b"a.", "model.pt")
    refused(b"\x80\x02" + b"(" * 100_000 + b".")


@pytest.mark.parametrize("name", [("torch", "Size"), ("builtins", "set"), ("collections", "OrderedDict")])
def test_the_same_argument_copied_again_and_again(refused: Any, name: tuple[str, str]) -> None:
    numbers = b"](" + b"N" * 100_000 + b"eq\x00"
    again = b"".join(b"c%s\n%s\nh\x00\x85R" % (name[0].encode(), name[1].encode()) for _ in range(1000))
    refused(b"\x80\x02" + numbers + again + b".")


def test_text_encoded_again_and_again(refused: Any) -> None:
    again = b"c_codecs\nencode\nh\x00h\x01\x86R" * 5000
    error = refused(b"\x80\x02" + text("x" * 100_000) + b"q\x00" + text("latin1") + b"q\x01" + again + b".")
    assert "again and again" in error.message


def test_shared_modules_do_not_multiply(refused: Any) -> None:
    network: Any = official({})
    for _ in range(30):
        state = {"_parameters": {}, "_buffers": {}, "_modules": {"a": network, "b": network}}
        network = Call(Named(*PERSISTENT), ({"type": "class", "class_name": "Generator", "state": state},))
    error = refused(dumps({"G_ema": network}))
    assert "without end" in error.message


def test_shared_settings_do_not_multiply(refused: Any) -> None:
    settings: Any = []
    for _ in range(9):
        settings = [settings] * 10
    refused(dumps({"G_ema": official({}, init_kwargs={"x": settings})}))
    refused(dumps(settings))
    refused(dumps({"G_ema": Call(Named("numpy", "dtype"), (settings,))}))


def test_endless_settings(refused: Any) -> None:
    settings: dict[str, Any] = {}
    settings["self"] = settings
    assert "one holds itself" in refused(dumps({"G_ema": official({}, init_kwargs=settings)})).message


def test_shared_tensors_do_not_multiply(refused: Any) -> None:
    tensor = torch.zeros(100_000)
    tensors = {f"t{i}": tensor for i in range(1000)}
    assert "larger than the file" in refused(dumps({"G_ema": official(tensors)})).message
    stream = io.BytesIO()
    torch.save({"g_ema": {"input.input": tensor} | {f"convs.0.{i}": tensor for i in range(1000)}}, stream)
    refused(stream.getvalue(), "model.pt")


def test_arrays_in_settings_do_not_multiply(refused: Any) -> None:
    dtype = Call(Named("numpy", "dtype"), ("u1",))
    array = Call(Named("numpy.core.multiarray", "_reconstruct"), (), (1, (4096,), dtype, False, b"x" * 4096))
    error = refused(dumps({"G_ema": official({}, init_kwargs={"x": [array] * 9000})}))
    assert "larger than the file" in error.message


def test_a_zip_of_countless_entries(refused: Any) -> None:
    entry = struct.pack("<4s24xH16x", b"PK\x01\x02", 1) + b"x"
    directory = entry * 1_000_000
    end = struct.pack("<4s4xHHLLH", b"PK\x05\x06", 65535, 65535, len(directory), 4, 0)
    assert "entries" in refused(b"PK\x03\x04" + directory + end, "model.pt").message
