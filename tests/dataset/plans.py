"""Plans that tests write, and what they read back without the library."""

import hashlib
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

from evaluation.lively import known_model
from PIL import Image

from energyql import DatasetClass, DatasetPlan, write_dataset

TOML = """\
seed = 3
shard_size = 10
model = "MODEL"

[[class]]
name = "with"
query = "glasses AND beard"
count = 21

[[class]]
name = "without"
query = "NOT glasses"
count = 12
"""

ALWAYS = {"only_satisfied": True, "budget": 8}


def known_plan(**settings):
    """A plan for a model in memory, of tiny pictures, whose heads are wrong about b in some samples."""
    model = known_model(shift=-0.9)
    classes = [DatasetClass(name="b", query="b AND c", count=23, model=model)]
    classes.append(DatasetClass(name="a | rest", query="NOT a", count=12, model=model))
    return DatasetPlan(**({"classes": classes, "seed": 5, "shard_size": 10} | settings))


def write(plan, out, **settings):
    return write_dataset(plan, out, **({"progress": False, "device": "cpu"} | settings))


def files(folder):
    """Name -> SHA-256 of every file, hidden ones included."""
    paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def samples(folder):
    """Key -> picture, JSON and number of class of every sample, read without the library."""
    found = {}
    for path in sorted(Path(folder).glob("shards/*.tar")):
        with tarfile.open(path) as archive:
            for member in archive.getmembers():
                key, _, kind = member.name.partition(".")
                found.setdefault(key, {})[kind] = archive.extractfile(member).read()
    return {
        key: (
            Image.open(io.BytesIO(next(data for kind, data in sample.items() if kind not in ("json", "cls")))),
            json.loads(sample["json"]),
            int(sample["cls"]),
        )
        for key, sample in found.items()
    }


def with_classes(plan, **changes):
    """The plan with other values in its first class."""
    first, *others = plan.classes
    return replace(plan, classes=[replace(first, **changes), *others])
