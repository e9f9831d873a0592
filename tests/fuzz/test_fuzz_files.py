"""Damaged files of every kind: each reader returns something or raises an `EnergyQLError`."""

import io
import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from generators.checkpoints.writer import DATA
from PIL import Image
from safetensors.torch import save

from energyql import Result
from energyql.editing.folder import read_saved
from energyql.editing.pictures import open_picture
from energyql.files import read_tensors
from energyql.generators.load import load_generator
from energyql.labelling.folder import PictureFolder
from energyql.pipeline.generate import generate
from energyql.pipeline.model import load_model
from energyql.pipeline.queries import read_queries
from energyql.pipeline.score import rank_table
from energyql.training import foreign as foreign_module
from energyql.training.clip_labels import read_prompts
from energyql.training.foreign import import_boundary, import_lace
from energyql.training.labels import infer, read_label_table, read_latents
from energyql.vocabulary import AttributeSpec, Vocabulary
from fuzz.cases import damage, damage_json, fuzz

LATENTS = np.arange(48, dtype=np.float32).reshape(6, 8)
LABELS = "index,smile,hair\n" + "".join(f"{i},{i % 2},{'black' if i % 3 else 'red'}\n" for i in range(12))
SMILE = AttributeSpec("smile", "yes/no")


def picture_bytes(kind, mode="RGB", **options):
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (24, 20, 3), np.uint8)  # an icon has at least 16 pixels a side
    Image.fromarray(pixels).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def npy_bytes(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def torch_bytes(value, **options):
    stream = io.BytesIO()
    torch.save(value, stream, **options)
    return stream.getvalue()


def lace():
    """A classifier of LACE in miniature: two hidden layers, and two outputs."""
    weights = {"net.0": torch.ones(4, 8), "net.2": torch.ones(3, 4), "heads": torch.ones(2, 3)}
    biases = {f"{name}.bias": weight[:, 0].clone() for name, weight in weights.items()}
    return {f"{name}.weight": weight for name, weight in weights.items()} | biases


def read_labels(path):
    infer(read_label_table(path).columns)


READERS = {
    "a.npy": (read_latents, [npy_bytes(LATENTS), npy_bytes(np.asfortranarray(LATENTS.astype("f8")))]),
    "b.npy": (lambda path: import_boundary(path, SMILE), [npy_bytes(LATENTS[:1])]),
    "a.safetensors": (read_latents, [save({"w": torch.from_numpy(LATENTS)})]),
    "b.safetensors": (read_tensors, [save({"a": torch.ones(3), "b": torch.zeros(2, 2).half()})]),
    "lace.pt": (
        lambda path: import_lace(path, Vocabulary([SMILE])),
        [torch_bytes(lace()), torch_bytes(lace(), _use_new_zipfile_serialization=False)],
    ),
    "a.csv": (read_labels, [LABELS.encode(), LABELS.replace(",", ";").replace("red", "0,5").encode()]),
    "b.csv": (
        lambda path: rank_table("smile AND hair = black AND age > 0.5", path),
        [b"smile,hair=black,hair=red,age,age_std\n0.5,0.25,0.75,0.1,0.2\n0.1,0.5,0.5,0.3,0.1\n"],
    ),
    "a.txt": (read_queries, [b"# queries\nElder: age > 0.5\nsmile AND hat\n"]),
    "prompts.json": (read_prompts, [b'{"a": ["yes", "no"], "b": {"x": "an x", "y": "a y"}}']),
    "a.png": (open_picture, [picture_bytes("PNG"), picture_bytes("PNG", "P"), picture_bytes("PNG", "I;16")]),
    "a.jpg": (
        open_picture,
        [picture_bytes("JPEG"), picture_bytes("JPEG", "CMYK"), picture_bytes("JPEG", progressive=True)],
    ),
    "a.img": (
        open_picture,
        [picture_bytes(kind) for kind in ("WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "DDS", "TGA", "JPEG2000", "PCX")],
    ),
    "model.pkl": (
        load_generator,
        [(DATA / name).read_bytes() for name in ("ada_conditional.pkl", "tensorflow_conditional.pkl", "rosinality.pt")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", READERS)
def test_a_file(tmp_path, name):
    read, files = READERS[name]
    for number, data in enumerate(files):
        path = tmp_path / f"{number}-{name}"
        path.write_bytes(data)
        read(path)  # it is valid before it is damaged

    def work(random):
        path = tmp_path / name
        path.write_bytes(damage(random, random.choice(files)))
        read(path)

    fuzz(work, 60, 1)


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"index": range(20), "smile": [i % 2 == 0 for i in range(20)], "hair": ["a", "b"] * 10})
    parquet.write_table(table, tmp_path / "whole.parquet")
    data, path = (tmp_path / "whole.parquet").read_bytes(), tmp_path / "a.parquet"

    def work(random):
        path.write_bytes(damage(random, data))
        read_labels(path)

    fuzz(work, 40, 0.2)


def test_styleflow(tmp_path):
    labels = np.full((8, 21), None, dtype=object)
    labels[:] = [[float(i + j) for j in range(21)] for i in range(8)]
    labels[:, 11] = [str(i % 5) for i in range(8)]
    labels[:, [2, 6, 8, 9]] = [[float(i % 2)] * 4 for i in range(8)]
    latents = np.repeat(np.random.default_rng(0).random((8, 1, 1, 4), np.float32), 3, 2)
    files = {foreign_module.LATENTS: {"Latent": latents}, foreign_module.LABELS: {"att_light": [labels]}}
    data = {name: pickle.dumps(value, protocol=2) for name, value in files.items()}
    for name, content in data.items():
        (tmp_path / name).write_bytes(content)
    foreign_module.read_styleflow(tmp_path)

    def work(random):
        name = random.choice(list(data))
        for each, content in data.items():
            (tmp_path / each).write_bytes(damage(random, content) if each == name else content)
        foreign_module.read_styleflow(tmp_path)

    fuzz(work, 60, 1)


@pytest.fixture
def result(tiny, tmp_path):
    """The folder of a saved result."""
    generate("smile", 2, model=tiny, device="cpu", progress=False).save(tmp_path / "result")
    return tmp_path / "result"


@pytest.fixture
def model(tiny, tmp_path):
    """A model folder with heads, a judge, second heads and reports of its own."""
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    return folder


@pytest.mark.parametrize("kind", ["model", "result"])
def test_a_folder(kind, request):
    folder = request.getfixturevalue(kind)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    read = load_model if kind == "model" else lambda folder: (Result.load(folder), read_saved(folder))
    read(folder)

    def work(random):
        name = random.choice(sorted(files))
        data = files[name]
        if name.endswith(".json") and random.random() < 0.7:
            data = json.dumps(damage_json(random, json.loads(data))).encode()
        else:
            data = damage(random, data)
        (folder / name).write_bytes(data)
        try:
            read(folder)
        finally:
            (folder / name).write_bytes(files[name])

    fuzz(work, 120, 2)


def test_records_of_pictures(tmp_path):
    record = {"energyql": "0", "drawn": "seed=3 psi=0.7 generator=0123456789ab", "random": 3, "unsure": [7]}
    (tmp_path / "pictures.json").write_text(json.dumps(record))

    def work(random):
        (tmp_path / "pictures.json").write_text(json.dumps(damage_json(random, record)))
        PictureFolder.read(tmp_path)

    fuzz(work, 200, 1)


VOCABULARY = {
    "version": 1,
    "model": "a",
    "attributes": [
        {"name": "smile", "kind": "yes/no", "description": "x"},
        {"name": "hair", "kind": "categorical", "values": ["a", "b"]},
        {"name": "age", "kind": "continuous", "low": 0, "high": 1, "tolerance": 0.1},
    ],
    "relations": ["smile IMPLIES hair = a"],
}


def test_vocabularies():
    assert Vocabulary.from_dict(VOCABULARY).to_dict()["model"] == "a"

    def work(random):
        found = Vocabulary.from_dict(damage_json(random, VOCABULARY))
        assert repr(found)

    fuzz(work, 500, 5)
