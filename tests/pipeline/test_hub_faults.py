"""Hubs that are slow, broken or hostile: a download is whole and right, or one error in a bounded time."""

import asyncio
import hashlib
import json
import os
import socket
import threading
import time
from pathlib import Path

import hub_server
import pytest
from hub_server import NAME, cut, flip, same_pictures, silence, trickle, whole
from needed import needed

from energyql import ArgumentError, Model, ModelError, load_model
from energyql.models import fetch
from energyql.models.hub import download, download_to

CONSTANTS = needed("huggingface_hub.constants")
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub's own calls
WEIGHTS = "attributes.safetensors"


@pytest.fixture
def hurried(monkeypatch):
    """Patience of tests."""
    monkeypatch.setattr(fetch, "PATIENCE", 2)
    monkeypatch.setattr(fetch, "LEAST", 1024)


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file())


def in_cache():
    """Names of the files of models in the cache."""
    return sorted(path.name for path in Path(CONSTANTS.HF_HUB_CACHE).glob("*/snapshots/*/*"))


def gets(hub, file):
    return sum(line.startswith("GET") and line.endswith(f"/{file}") for line in hub.asked)


# Slow and cut connections


@pytest.mark.parametrize("fault", [trickle, silence])
@pytest.mark.parametrize("where", ["main", WEIGHTS])
def test_a_slow_server(hub, contents, hurried, tmp_path, fault, where):
    hub.add(NAME, contents)
    hub.faults[where] = [fault]
    start = time.monotonic()
    what = "the list of files" if where == "main" else where
    with pytest.raises(ModelError, match=f"{NAME} cannot be downloaded: {what}: less than 1 KiB arrived in 2 seconds"):
        download_to(tmp_path / "model", NAME)
    assert time.monotonic() - start < 15
    assert not (tmp_path / "model").exists()
    assert where not in in_cache()
    assert not [name for name in in_cache() if name.startswith(".")]
    hub.faults.clear()
    download_to(tmp_path / "model", NAME)
    assert load_model(tmp_path / "model").name == "tiny"


def test_slow_headers(hurried, monkeypatch, tmp_path):
    monkeypatch.setattr(CONSTANTS, "HF_HUB_CACHE", str(tmp_path))
    over = threading.Event()

    def send():
        connection, _ = server.accept()
        with connection:
            for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 10_000:
                if over.wait(0.02):
                    return
                connection.send(bytes([byte]))

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(ModelError, match="cannot be downloaded: the list of files: less than"):
            download(NAME)
        over.set()
        thread.join()


def test_a_slow_server_that_is_fast_enough(hub, contents, hurried, monkeypatch):
    """What counts is the speed, not the whole time."""
    monkeypatch.setattr(fetch, "PATIENCE", 1)
    monkeypatch.setattr(fetch, "LEAST", 3)
    hub.add(NAME, contents)
    size = len(contents["config.json"])
    assert size * 0.005 > 2 * fetch.PATIENCE
    hub.faults["config.json"] = [trickle]
    assert Model.from_pretrained(NAME).name == "tiny"


def test_a_connection_that_is_cut_once(hub, contents, hurried, tiny):
    hub.add(NAME, contents)
    hub.faults[WEIGHTS] = [cut, whole]
    assert same_pictures(Model.from_pretrained(NAME), load_model(tiny))
    assert gets(hub, WEIGHTS) == 2
    assert hub.ranges == [f"bytes={len(contents[WEIGHTS]) // 2}-"]  # it goes on


def test_a_connection_that_is_always_cut(hub, contents, hurried, tmp_path):
    hub.add(NAME, contents)
    hub.faults["judge.safetensors"] = [lambda handler, body: cut(handler, b"")]
    with pytest.raises(ModelError, match=r"tiny cannot be downloaded: judge.safetensors: .+\ndownload it again"):
        download_to(tmp_path / "model", NAME)
    assert gets(hub, "judge.safetensors") == fetch.TRIES
    assert "judge.safetensors" not in in_cache()
    assert not (tmp_path / "model").exists()
    before, _ = in_cache(), hub.asked.clear()
    hub.faults.clear()
    download_to(tmp_path / "model", NAME)
    assert before
    assert not {*before} & {*hub.downloaded()}  # what had arrived stays


def test_a_server_that_cannot_go_on(hub, contents, hurried):
    """It sends the file from its beginning again."""
    hub.add(NAME, contents)
    hub.faults[WEIGHTS] = [cut, whole]
    hub.resumes = False
    assert Model.from_pretrained(NAME).name == "tiny"


def test_a_server_with_too_much_to_do(hub, contents, hurried):
    hub.add(NAME, contents)
    hub.busy = 2
    assert Model.from_pretrained(NAME).name == "tiny"


def test_a_download_inside_a_loop(hub, contents):
    """As in a notebook."""
    hub.add(NAME, contents)

    async def cell():
        return Model.from_pretrained(NAME)

    assert asyncio.run(cell()).name == "tiny"


# Contents


@pytest.mark.parametrize("file", [WEIGHTS, "config.json", "generator.safetensors"])
def test_a_flipped_bit(hub, contents, hurried, tmp_path, tiny, file):
    hub.add(NAME, contents)
    hub.faults[file] = [flip]
    with pytest.raises(ModelError, match=f"cannot be downloaded: {file}: its content is not what the hub says"):
        download_to(tmp_path / "model", NAME)
    assert file not in in_cache()
    assert not (tmp_path / "model").exists()
    hub.faults[file] = [flip, whole]
    assert same_pictures(Model.from_pretrained(NAME), load_model(tiny))


def test_a_bit_that_flips_in_the_cache(hub, contents, monkeypatch):
    hub.add(NAME, contents)
    path = download(NAME) / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with monkeypatch.context() as offline:
        offline.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(ModelError, match="it is not in the cache either, or not all of it"):
            download(NAME)
    assert (download(NAME) / WEIGHTS).read_bytes() == contents[WEIGHTS]


def test_files_of_other_programs_in_the_cache(hub, contents, tmp_path):
    """Links to blobs, as huggingface_hub makes them; those elsewhere are not followed."""
    folder = Path(CONSTANTS.HF_HUB_CACHE) / "models--somebody--tiny/snapshots" / hub.add(NAME, contents).refs["main"]
    folder.mkdir(parents=True)
    blobs = folder.parents[1] / "blobs"
    blobs.mkdir()
    for file, place in (("config.json", blobs / "1"), ("vocabulary.json", tmp_path / "2")):
        place.write_bytes(contents[file])
        (folder / file).symlink_to(place)
    assert download(NAME) == folder
    assert "config.json" not in hub.downloaded()
    assert "vocabulary.json" in hub.downloaded()
    assert not (folder / "vocabulary.json").is_symlink()


@pytest.mark.parametrize("error", [-1, 1])
def test_a_wrong_size(hub, contents, hurried, monkeypatch, error):
    hub.add(NAME, contents)
    entry = hub_server.entry

    def wrong(name, data):
        told = entry(name, data)
        return told | {"size": told["size"] + error * (name == WEIGHTS)}

    monkeypatch.setattr(hub_server, "entry", wrong)
    why = "its content is not what the hub says" if error > 0 else "it is larger than [0-9,]+ bytes"
    with pytest.raises(ModelError, match=f"{WEIGHTS}: {why}"):
        download(NAME)
    assert WEIGHTS not in in_cache()


@pytest.mark.parametrize("file", ["generator.safetensors", WEIGHTS, "judge.json", "judge.safetensors"])
def test_a_model_that_is_not_whole(hub, contents, tmp_path, file):
    hub.add(NAME, {name: data for name, data in contents.items() if name != file})
    with pytest.raises(ModelError, match=f"somebody/tiny has no {file}, and its model needs it\nask its owner"):
        download_to(tmp_path / "model", NAME)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("described", ["vocabulary.json", "report.json", "judge.json"])
def test_fingerprints_of_the_model(hub, contents, described):
    marks = {
        "vocabulary.json": ("generator.safetensors", lambda mark: {"generator": mark}),
        "report.json": (WEIGHTS, lambda mark: {"heads": mark, "attributes": {}}),
        "judge.json": ("judge.safetensors", lambda mark: {"report": {"weights": mark, "attributes": {}}}),
    }
    file, entry = marks[described]
    for mark in (hashlib.sha256(contents[file]).hexdigest(), "0" * 64):
        data = json.loads(contents.get(described, b"{}")) | entry(mark)
        hub.add(NAME, contents | {described: json.dumps(data).encode()})
        if mark != "0" * 64:
            download(NAME)
    with pytest.raises(ModelError, match=f"somebody/tiny has a {file} of another model"):
        download(NAME)


def test_models_that_need_fewer_files(hub, contents):
    """Code by name, and a network that reads pictures in place of heads."""
    config = json.loads(contents["config.json"]) | {"generator": {"kind": "named", "name": "mine:make"}}
    vocabulary = json.loads(contents["vocabulary.json"])
    rest = {"config.json": json.dumps(config).encode()}
    hub.add(NAME, rest | {file: contents[file] for file in ("vocabulary.json", WEIGHTS)})
    assert files_below(download(NAME)) == sorted(["config.json", "vocabulary.json", WEIGHTS])
    rest["vocabulary.json"] = json.dumps(vocabulary | {"space": "picture", "reader": "mine:read"}).encode()
    hub.add(NAME, rest)
    assert files_below(download(NAME)) == ["config.json", "vocabulary.json"]
    rest["vocabulary.json"] = json.dumps(vocabulary | {"space": "picture"}).encode()
    hub.add(NAME, rest)
    with pytest.raises(ModelError, match=r"has no reader\.json"):
        download(NAME)


# Hostile answers


@pytest.mark.parametrize(
    "commit", ["../../evil", "/tmp/evil", "A" * 40, "a" * 39, "a" * 40 + "\n", "a" * 40 + "/..", "", 7, None, ["a"]]
)
def test_a_hostile_commit(hub, contents, tmp_path, commit):
    repo = hub.add(NAME, contents)
    repo.refs["main"] = key = commit if isinstance(commit, str | int | None) else tuple(commit)
    repo.commits[key] = contents
    before = files_below(tmp_path)
    with pytest.raises(ModelError, match=r"the hub describes somebody/tiny in an unknown form: .*\nis HF_ENDPOINT"):
        download(NAME)
    with pytest.raises(ModelError, match="the hub describes somebody/tiny in an unknown form"):
        load_model("avatars").push_to_hub(NAME)
    assert files_below(tmp_path) == before


@pytest.mark.parametrize("etag", ["../../../x", "/tmp/energyql-evil", "a\\..\\x"])
def test_a_hostile_etag(hub, contents, tmp_path, etag):
    """No file is named after it."""
    hub.add(NAME, contents)
    hub.etag = etag
    before = files_below(tmp_path)
    folder = download(NAME)
    assert sorted(os.listdir(folder)) == sorted(contents)
    outside = {*files_below(tmp_path)} - {*before}
    assert all(path.startswith("cache/models--somebody--tiny/") for path in outside)
    assert not Path("/tmp/energyql-evil").exists()
    hub.add("me/other", contents)
    load_model(folder).push_to_hub("me/other")
    assert {*files_below(tmp_path)} - {*before} == outside


@pytest.mark.parametrize(
    "told",
    [
        {"size": "7"}, {"size": -1}, {"size": True}, {"blobId": "../x", "lfs": None}, {"lfs": {"sha256": "a" * 63}},
        {"lfs": {"sha256": None}}, {"lfs": 7}, {"blobId": None, "lfs": None},
    ],
)  # fmt: skip
def test_a_hostile_list(hub, contents, monkeypatch, told):
    hub.add(NAME, contents)
    entry = hub_server.entry
    monkeypatch.setattr(hub_server, "entry", lambda name, data: entry(name, data) | told)
    with pytest.raises(ModelError, match="the hub describes somebody/tiny in an unknown form"):
        download(NAME)


@pytest.mark.parametrize("body", [b"[]", b"7", b"{}", b"<html>", b"[" * 100_000, b"\xff"])
def test_an_answer_of_another_server(hub, contents, body):
    hub.add(NAME, contents)
    hub.faults["main"] = [lambda handler, _: handler.wfile.write(body) and setattr(handler, "close_connection", True)]
    with pytest.raises(ModelError, match="in an unknown form|cannot be downloaded"):
        download(NAME)


def test_paths_among_the_files(hub, contents, tmp_path):
    hub.add(NAME, contents | {"../../../evil.json": b"{}", "/tmp/energyql-evil.json": b"{}", "sub/config.json": b"{}"})
    before = files_below(tmp_path)
    assert sorted(os.listdir(download(NAME))) == sorted(contents)
    assert all(path.startswith("cache/models--") for path in {*files_below(tmp_path)} - {*before})


@pytest.mark.parametrize(
    "revision", ["../x", "/x", "a//b", "a/", "", "a\\b", "a b", "a/../../b", "C:x", "a\0", ".x", "a\n"]
)
def test_names_of_no_revision(hub, contents, revision):
    hub.add(NAME, contents)
    with pytest.raises(ArgumentError, match="is no revision\ngive a branch, a tag or a commit"):
        download(NAME, revision)
    assert hub.asked == []


def test_a_cache_that_cannot_be_written(hub, contents, tmp_path, monkeypatch):
    hub.add(NAME, contents)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(CONSTANTS, "HF_HUB_CACHE", str(tmp_path / "file"))
    with pytest.raises(ArgumentError, match="cannot write .*file"):
        download(NAME)
