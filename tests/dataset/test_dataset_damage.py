"""Every file of a data set is damaged in many ways: the same call mends it, or says in one error what to do."""

import json
import os
import random
import shutil

import pytest

from dataset.plans import ALWAYS, files, known_plan, write
from energyql.dataset.destination import Folder
from energyql.dataset.shard import sealed
from energyql.errors import DataError, EnergyQLError

FINISHED = ("README.md", "index.parquet", "manifest.jsonl", "plan.json", "shards/000000.tar", "shards/000001.tar")
UNFINISHED = ("plan.json", *(f"{name[:-4]}{kind}" for name in ("parts/000000.tar", "parts/000001.tar")
                             for kind in (".json", ".parquet")), "shards/000001.tar")  # fmt: skip
DEEP = 100_000
ODD = ["[" * DEEP, '{"a":' * DEEP, '{"a":NaN}', "[]", "{}", "null", "9" * 5000, "-1e999", '"text"', "[[1]]", "true"]
CHANCE = (
    ["flip"] * 13 + ["cut"] * 5 + ["append"] * 3 + ["noise"] * 2 + ["value"] * 6 + ["drop line", "double line", "CRLF"]
    + [f"odd {k}" for k in range(len(ODD))] + ["empty", "delete", "folder", "full folder", "pipe", "link", "zeros"]
)  # fmt: skip
"""Fifty ways to damage a file."""


def small_plan():
    return known_plan(**ALWAYS, shard_size=18)


class Stopped(Exception):
    pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "out"
    write(small_plan(), out)
    assert tuple(files(out)) == FINISHED
    return out


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    """The same set before its index is written."""
    out = tmp_path_factory.mktemp("unfinished") / "out"
    original = Folder.writing

    def failing(self, name):
        if name == "index.parquet":
            raise Stopped
        return original(self, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Folder, "writing", failing)
        with pytest.raises(Stopped):
            write(small_plan(), out)
    assert set(UNFINISHED) < set(files(out))
    return out


def damage(path, way, chance):
    """Damage one file; what it then holds differs from what it held."""
    data = path.read_bytes()
    kind, _, number = way.partition(" ")
    if kind in ("delete", "folder", "full", "pipe", "link"):
        path.unlink()
        if kind == "folder" or kind == "full":
            path.mkdir()
        if kind == "full":
            (path / "mine.txt").write_text("mine")
        if kind == "pipe":
            os.mkfifo(path)
        if kind == "link":
            path.symlink_to(path.with_name("nowhere"))
        return
    new = bytearray(data)
    lines = data.splitlines(keepends=True)
    if kind == "flip":
        new[chance.randrange(len(new))] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        del new[chance.randrange(len(new)) :]
    elif kind == "append":
        new += chance.choice([b"\n", b"{}\n", data, b"\0"])
    elif kind == "noise":
        new = bytearray(chance.randbytes(len(new)))
    elif kind == "odd":
        new = bytearray(ODD[int(number)].encode())
    elif kind == "drop":
        new = bytearray(b"".join(lines[1:]))
    elif kind == "double":
        new = bytearray(b"".join([*lines, lines[0]]))
    elif kind == "CRLF":
        new = bytearray(data.replace(b"\n", b"\r\n") + b"\r\n")
    elif kind == "zeros":
        new = bytearray(len(data))
    elif kind == "value" and path.suffix in (".json", ".jsonl"):
        new = bytearray(other_value(path, chance))
    elif kind == "value":
        new[: len(new) // 2] = b""
    else:
        new = bytearray()
    path.write_bytes(new)
    assert new != data


def other_value(path, chance):
    """The JSON of a file with one value of another type."""
    texts = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    number = chance.randrange(len(texts))
    data = json.loads(texts[number])
    places = list(inside(data))
    table, key = chance.choice(places)
    table[key] = "MARK"
    texts[number] = json.dumps(data).replace('"MARK"', chance.choice(ODD))
    return "\n".join(texts).encode()


def inside(data):
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        yield data, key
        if isinstance(value, dict | list):
            yield from inside(value)


def outcome(folder, name, way, seed, copy, whole):
    """Damage a file of a copy and write the set again: "mended" or "told"; anything else fails."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(folder, copy)
    damage(copy / name, way, random.Random(f"{name} {way} {seed}"))
    try:
        write(small_plan(), copy)
    except EnergyQLError as error:
        assert error.hint, (name, way, seed, str(error))
        assert len(str(error)) < 1000
        return "told"
    assert files(copy) == whole, (name, way, seed)
    return "mended"


TOLD = ("folder", "full folder", "pipe", "link")
"""What takes the place of a file is left for its owner to remove."""


@pytest.mark.parametrize("way", ["flip", "cut", "value", "odd 0", "odd 2", "empty", "delete", "folder", "pipe"])
@pytest.mark.parametrize("name", FINISHED[:-1])
def test_a_damaged_file_is_mended_or_told(finished, tmp_path, name, way):
    assert outcome(finished, name, way, 0, tmp_path / "copy", files(finished)) == ("told" if way in TOLD else "mended")


@pytest.mark.parametrize("way", ["flip", "cut", "value", "odd 0", "delete"])
@pytest.mark.parametrize("name", UNFINISHED[:3])
def test_a_damaged_file_of_an_unfinished_set_is_mended(finished, unfinished, tmp_path, name, way):
    assert outcome(unfinished, name, way, 0, tmp_path / "copy", files(finished)) == "mended"


@pytest.mark.slow
@pytest.mark.parametrize("state", ["finished", "unfinished"])
def test_every_file_in_fifty_ways(finished, unfinished, tmp_path, state):
    assert len(CHANCE) == 50
    folder, names = (finished, FINISHED) if state == "finished" else (unfinished, UNFINISHED)
    counts = {}
    for name in names:
        for seed, way in enumerate(CHANCE):
            key = name, outcome(folder, name, way, seed, tmp_path / "copy", files(finished))
            counts[key] = counts.get(key, 0) + 1
    print(counts)
    assert sum(counts.values()) == 50 * len(names)
    assert sum(count for (_, kind), count in counts.items() if kind == "told") == len(TOLD) * len(names)


@pytest.mark.parametrize("lost", ["shards/000000.tar", "README.md", "index.parquet"])
def test_a_lost_file_beside_a_damaged_index(finished, tmp_path, lost):
    """What the index cannot give is read from the shards that are there."""
    copy = shutil.copytree(finished, tmp_path / "copy")
    damage(copy / "index.parquet", "flip", random.Random(0))
    (copy / lost).unlink()
    assert write(small_plan(), copy).kept == 2 - lost.startswith("shards")
    assert files(copy) == files(finished)


def test_a_lost_plan_of_another_set_is_not_written_again(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    (copy / "plan.json").unlink()
    before = files(copy)
    with pytest.raises(DataError, match=r"holds other files, such as README\.md"):
        write(known_plan(**ALWAYS, shard_size=17), copy)
    assert files(copy) == before


def test_a_plan_with_odd_classes_and_the_right_fingerprint_is_another(finished, tmp_path):
    from energyql.files import json_digest

    copy = shutil.copytree(finished, tmp_path / "copy")
    known = json.loads((copy / "plan.json").read_text())["plan"]
    for classes in (5, [5], [{}], [{"name": []}], None):
        theirs = known | {"classes": classes}
        text = json.dumps({"fingerprint": json_digest(theirs), "plan": theirs})
        (copy / "plan.json").write_text(text)
        with pytest.raises(DataError, match="holds a data set of another plan"):
            write(small_plan(), copy)


def test_manifest_lines_are_sealed_for_one_plan(finished):
    line = json.loads((finished / "manifest.jsonl").read_text().splitlines()[0])
    mark = json.loads((finished / "plan.json").read_text())["fingerprint"]
    data = {key: value for key, value in line.items() if key != "check"}
    assert sealed(data, mark) == line
    assert sealed(data, "another") != line
