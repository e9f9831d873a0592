"""Random damage to valid checkpoints: they load or raise ModelError, nothing else."""

from __future__ import annotations

import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from energyql.errors import CheckpointWarning, ModelError
from energyql.generators.load import load_generator
from generators.checkpoints.writer import DATA

FILES = [
    "ada_conditional.pkl",
    "stylegan3-r-conditional.pkl",
    "tensorflow_conditional.pkl",
    "rosinality.pt",
    "rosinality_training.pt",
    "r3gan-conditional.pkl",
    "projected-gan-conditional.pkl",
    "fastgan.pth",
    "stylegan-xl.pkl",
]
RELAXED = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def try_loading(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with suppress(ModelError), warnings.catch_warnings():
        warnings.simplefilter("ignore", CheckpointWarning)  # what is missing is said
        load_generator(path)


@pytest.mark.parametrize("name", FILES)
@RELAXED
@given(data=st.data())
def test_flipped_bytes(tmp_path: Path, name: str, data: st.DataObject) -> None:
    content = bytearray((DATA / name).read_bytes())
    anywhere = st.integers(0, len(content) - 1)
    structure = st.integers(0, 3000)  # most of the file is numbers, where damage only changes the picture
    end = st.integers(len(content) - 600, len(content) - 1)  # a zip file has its directory there
    for position in data.draw(st.lists(st.one_of(anywhere, structure, end), min_size=1, max_size=4)):
        content[position] = data.draw(st.integers(0, 255))
    try_loading(tmp_path / "model", content)


@pytest.mark.parametrize("name", FILES)
@RELAXED
@given(data=st.data())
def test_cut_short(tmp_path: Path, name: str, data: st.DataObject) -> None:
    content = (DATA / name).read_bytes()
    cut = data.draw(st.one_of(st.integers(0, len(content) - 1), st.integers(0, 2000)))
    (tmp_path / "model").write_bytes(content[:cut])
    with pytest.raises(ModelError):
        load_generator(tmp_path / "model")


@pytest.mark.parametrize("name", FILES)
@RELAXED
@given(data=st.data())
def test_pieces_moved(tmp_path: Path, name: str, data: st.DataObject) -> None:
    content = (DATA / name).read_bytes()
    start, length, target = (data.draw(st.integers(0, 4000)) for _ in range(3))
    piece = content[start : start + length % 200]
    rest = content[:start] + content[start + len(piece) :]
    try_loading(tmp_path / "model", rest[:target] + piece + rest[target:])


@RELAXED
@given(body=st.binary(max_size=300), head=st.sampled_from([b"\x80\x02", b"\x80\x04", b"PK\x03\x04", b""]))
def test_random_bytes(tmp_path: Path, body: bytes, head: bytes) -> None:
    (tmp_path / "model").write_bytes(head + body)
    with pytest.raises(ModelError):
        load_generator(tmp_path / "model")
