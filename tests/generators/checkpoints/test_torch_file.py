from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest
import torch
from torch import Tensor

from energyql.generators.checkpoints.reading import CheckpointError
from energyql.generators.checkpoints.torch_file import TRAINING_NAMES, is_torch_file, read_torch_file

BASE = torch.arange(24.0).reshape(2, 3, 4)
TENSORS = {
    "plain": BASE,
    "transposed": BASE.permute(2, 0, 1),
    "slice": BASE[1, :, 1:3],
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
    "parameter": torch.nn.Parameter(torch.ones(3)),
    **{str(dtype): torch.ones(5).to(dtype) for dtype in (torch.float16, torch.float64, torch.bfloat16, torch.int64)},
    **{str(dtype): torch.tensor([1, 0]).to(dtype) for dtype in (torch.uint8, torch.int8, torch.bool, torch.int32)},
}


def saved(value: Any, legacy: bool) -> memoryview:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=not legacy)
    return memoryview(stream.getvalue())


@pytest.mark.parametrize("legacy", [False, True])
def test_tensors(legacy: bool) -> None:
    data = saved(TENSORS, legacy)
    assert is_torch_file(data)
    content = read_torch_file(data, TRAINING_NAMES)
    assert list(content) == list(TENSORS)
    for name, expected in TENSORS.items():
        tensor = content[name].tensor()
        assert isinstance(tensor, Tensor)
        assert tensor.is_contiguous()
        assert tensor.dtype == expected.dtype
        assert torch.equal(tensor, expected.detach())


def test_compressed_files_are_refused() -> None:
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved(TENSORS, False))) as old,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))
    with pytest.raises(CheckpointError, match="compressed"):
        read_torch_file(memoryview(stream.getvalue()), TRAINING_NAMES)


def test_other_zip_files_are_refused() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    with pytest.raises(CheckpointError, match=r"not one of torch\.save"):
        read_torch_file(memoryview(stream.getvalue()), TRAINING_NAMES)


def test_big_endian_files_are_refused() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved({}, False))) as old, zipfile.ZipFile(stream, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, b"big" if entry.endswith("byteorder") else old.read(entry))
    with pytest.raises(CheckpointError, match="big-endian"):
        read_torch_file(memoryview(stream.getvalue()), TRAINING_NAMES)
    with pytest.raises(CheckpointError, match="big-endian"):
        read_torch_file(
            memoryview(bytes(saved({}, True)).replace(b"endianq\x02\x88", b"endianq\x02\x89")), TRAINING_NAMES
        )


def test_a_view_outside_its_storage_is_refused() -> None:
    content = bytes(saved({"a": torch.zeros(7)}, True))
    shape = b"K\x00K\x07\x85"  # offset 0, size (7,)
    assert content.count(shape) == 1
    for wrong in (b"K\x01K\x07\x85", b"K\x00K\x08\x85", b"K\x00K\xff\x85"):
        with pytest.raises(CheckpointError, match="does not fit"):
            read_torch_file(memoryview(content.replace(shape, wrong)), TRAINING_NAMES)
