"""Models on a hub, such as huggingface.co: download and upload with huggingface_hub. This module imports no torch.

Nothing is downloaded unless the user calls a function for downloads with the name of a model, `owner/name`. Only files
with the names of a model's files are downloaded: safetensors, ONNX, JSON and the card; and nothing from a repository
with code, such as a pickle or a Python file.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from energyql.errors import ArgumentError, EnergyQLError, ModelError, first_line
from energyql.files import (
    MOST_JSON,
    fingerprint,
    finish_saving,
    read_bytes,
    read_json,
    real_path,
    saving,
    sole_writer,
    write_text,
)
from energyql.models.fetch import COMMIT, RemoteFile, ask_listing, fetch, read_listing, write_listing
from energyql.plugins import import_optional

README = "README.md"
"""File with the card of a model, in its folder and its repository on a hub."""
LIBRARY = "energyql"
"""Name of this library on hubs."""
MOST_CARD = 1 << 20
"""Largest card that is read, in bytes."""
_CONFIG, _VOCABULARY = "config.json", "vocabulary.json"
_MAIN = "main"
"""Branch of a repository that is used by default."""
_LISTS = "energyql"
"""Folder in the cache of a repository, beside `snapshots`, for the lists of files that the hub sent."""
_ID = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""Form of `owner/name`."""
_REVISION = re.compile(r"(?!.*\.\.)[^\s./\\:~^?*\[\x00-\x1f]+(?:[./][^\s./\\:~^?*\[\x00-\x1f]+)*")
"""Form of the names of branches, tags and commits in git that, as paths, do not lead out of a folder."""
_OURS = re.compile(
    r"(?:config|vocabulary|report|judge_report|reader|words|(?:judge|verifier)(?:-\d+)?)\.json"
    r"|generator\.onnx|(?:generator|attributes|second|reader|judge(?:-\d+)?|verifier(?:-\d+)?(?:-held-out)?)\.safetensors|card\.md"
)
"""Names of the files of a model, without README.md."""
_HARMLESS = re.compile(
    r"(?:.*\.(?:safetensors|json|md|txt|csv|ya?ml|png|jpe?g|webp|onnx)"
    r"|(?:.*/)?(?:\.gitattributes|\.gitignore|licen[cs]e|notice))",
    re.IGNORECASE,
)
"""Names of files that hold only data, which programs do not execute."""


def is_hub_id(name: object) -> bool:
    """Whether `name` is a text of the form `owner/name`, and there is no file or folder of that path."""
    return isinstance(name, str) and _ID.fullmatch(name) is not None and not os.path.exists(name)


def model_files(folder: Path) -> list[Path]:
    """Sorted paths of the files in a folder with names of a model's files, such as `config.json`, without README.md."""
    return [path for path in sorted(folder.glob("*")) if path.is_file() and _OURS.fullmatch(path.name)]


def download(name: str, revision: str | None = None) -> Path:
    """Download a model from a hub into the cache of huggingface_hub, and return the model's folder in the cache.

    Files that are in the cache already are not downloaded again. If the hub cannot be reached, the cache is used. The
    environment variables `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` of huggingface_hub decide on the hub, the
    access token, and whether only the cache is used.

    Args:
        name: `owner/name` of the model.
        revision: a branch, a tag or a commit; by default the main branch.

    Raises:
        ModelError: the hub has no such model; the repository has files that are not data, or no complete model of this
            library; a file does not arrive in time, or its size or digest is wrong; or the hub cannot be reached and
            the cache does not have the whole model.
        ArgumentError: `name` or `revision` has a wrong form, huggingface_hub is not installed, or the cache cannot be
            written.
    """
    hub, api = open_hub(name)
    at = f"{name} at {revision}" if revision else name
    if revision is not None and not _REVISION.fullmatch(revision):
        raise ArgumentError(f"{revision!r} is no revision", hint="give a branch, a tag or a commit")
    repo = Path(hub.constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    try:
        listing = ask_listing(hub, api, name, revision)
    except (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError) as error:
        hint = f"see to its name and revision, and to HF_TOKEN if it is private; and there is no folder {name}"
        raise ModelError(f"the hub has no model {at}: {first_line(error)}", hint=hint) from error
    except ModelError:
        raise
    except Exception as error:  # of the HTTP library too: versions of huggingface_hub use different ones
        return _cached(repo, name, revision, at, error)
    files = _own_files(listing.files, name)
    folder = repo / "snapshots" / listing.commit
    fetch(hub, api, name, listing.commit, [file for file in files if not _is_there(folder, file)], folder)
    notes = {repo / _LISTS / f"{listing.commit}.json": write_listing(listing)}
    if revision != listing.commit:
        notes[repo / "refs" / (revision or _MAIN)] = listing.commit
    for path, text in notes.items():
        with suppress(ArgumentError):  # without the notes, in a read-only cache, only use without a network fails
            if not path.is_file() or path.read_text() != text:
                write_text(path, text)
    return _checked(folder, name)


def download_to(folder: Path, name: str, revision: str | None = None) -> None:
    """Copy a model of a hub into a folder of the user, outside the cache.

    Args:
        folder: the folder, which is made if it is missing.
        name: `owner/name` of the model.
        revision: see `download`.

    Raises:
        ArgumentError: the folder has a model, or a README.md that is no card of a model, or cannot be written; or as
            for `download`.
        ModelError: the model cannot be downloaded.
    """
    with sole_writer(folder, "a download"):
        if model_files(folder):
            raise ArgumentError(f"{folder} holds a model already", hint="name another folder")
        check_folder(folder)
        source = download(name, revision)
        with saving(folder, lambda _: ()) as staged:
            for file in [*(path.name for path in model_files(source)), README]:
                if path := own_file(source, file):
                    shutil.copyfile(path, staged / file)


def own_file(folder: Path, name: str) -> Path | None:
    """Path of a file in a model folder, without links; `None` if it is missing, or a link to elsewhere.

    In the cache of huggingface_hub, links to its folder `blobs` are allowed.
    """
    root = real_path(folder)
    path = real_path(root / name)
    blobs = root.parent.parent / "blobs"
    inside = path.is_relative_to(root) or (root.parent.name == "snapshots" and path.is_relative_to(blobs))
    return path if inside and path.is_file() else None


def check_folder(folder: Path) -> None:
    """Check that a model may be written to a folder, which need not exist: only files of an earlier model may be lost.

    Raises:
        ArgumentError: other files have names of a model's files, such as README.md; or a saving cannot be completed.
    """
    finish_saving(folder)
    _check_replaceable(folder, [path.name for path in folder.glob("*") if path.is_file()], folder)


def upload(folder: Path, name: str, *, private: bool = False, message: str) -> str:
    """Upload the files of a model folder to a repository of a hub, in one commit, and return the URL of the commit.

    The repository is made if it does not exist. In a repository that exists, files of an earlier model are removed or
    replaced, and other files stay.

    Args:
        folder: a folder that `Model.save_pretrained` wrote; all files in it are uploaded.
        name: `owner/name` of the repository.
        private: whether a new repository is private. If true, a repository that exists must be private.
        message: message of the commit.

    Raises:
        ModelError: the hub refuses, or cannot be reached.
        ArgumentError: `name` is not of the form `owner/name`, or huggingface_hub is not installed; or the repository is
            public although `private` is true, has a model or README.md that this library did not write, or has files
            with code, for which `download` would refuse it.
    """
    hub, api = open_hub(name)
    files = {path.name: path for path in sorted(folder.iterdir())}
    try:
        api.create_repo(name, private=private, exist_ok=True)
        listing = ask_listing(hub, api, name)
        if private and not listing.private:
            raise ArgumentError(f"{name} is there already, and it is public", hint="make it private on the hub")
        _refuse_harmful(listing.files, name, ArgumentError)
        with TemporaryDirectory() as place:
            read = [listing.files[file] for file in (README, _CONFIG) if file in listing.files]
            fetch(hub, api, name, listing.commit, read, Path(place))
            _check_replaceable(name, listing.files, Path(place))
        stale = [file for file in listing.files if _OURS.fullmatch(file) and file not in files]
        operations = [hub.CommitOperationAdd(file, str(path)) for file, path in files.items()]
        operations += [hub.CommitOperationDelete(file) for file in stale]
        done = api.create_commit(name, operations, commit_message=message, parent_commit=listing.commit)
    except EnergyQLError:
        raise
    except Exception as error:
        hint = "see to the network, HF_ENDPOINT, and a token that may write (hf auth login, or HF_TOKEN)"
        raise ModelError(f"{name} cannot be uploaded: {first_line(error)}", hint=hint) from error
    return str(done.commit_url)


def model_card(facts: Mapping[str, str | Sequence[str]], body: str) -> str:
    """Text of a model card: `facts` in YAML that hubs read (front matter), then Markdown for people."""
    lines = []
    for key, value in facts.items():
        items = "".join(f"\n- {json.dumps(item)}" for item in value)
        lines.append(f"{key}: {json.dumps(value)}" if isinstance(value, str) else f"{key}:{items}")
    return "---\n" + "\n".join(lines) + f"\n---\n\n{body.strip()}\n"


def is_card(text: bytes) -> bool:
    """Whether the content of a README.md is the card of a model of this library."""
    return _fact(text, "library_name") == LIBRARY


def card_licence(text: bytes) -> str | None:
    """Licence that the card of a model names, such as "apache-2.0"; `None` for none, or for other texts than cards."""
    return _fact(text, "license") if is_card(text) else None


def _fact(text: bytes, key: str) -> str | None:
    """Value of a key in the front matter of a model card, the YAML at its beginning; `None` without the key."""
    front = text.partition(b"\n---\n")[0].decode(errors="replace")
    match = re.search(rf"^{key}: *([\"']?)(.+?)\1\s*$", front, re.MULTILINE)
    return match[2] if match else None


def _check_replaceable(place: str | Path, files: Iterable[str], folder: Path) -> None:
    """Raise an `ArgumentError` if files are called like a model's, but are of none, by card and config in `folder`."""
    names = {*files}
    if README in names and not is_card(read_bytes(folder / README, MOST_CARD, ArgumentError)):
        raise ArgumentError(f"{place}/{README} is another text than the card of a model", hint="choose another place")
    model = sorted(name for name in names if _OURS.fullmatch(name))
    configuration: Mapping[str, Any] = {}
    if _CONFIG in model:
        with suppress(ModelError):
            configuration = read_json(folder / _CONFIG)
    if model and not {"format", "generator"} <= configuration.keys():
        wrong = f"holds a {_CONFIG if _CONFIG in model else model[0]} that is not of a model of energyql"
        raise ArgumentError(f"{place} {wrong}, and it would be lost", hint="choose another place")


def open_hub(name: str) -> tuple[Any, Any]:
    """Module huggingface_hub and its `HfApi`, if `name` is of the form `owner/name`; no connection is made."""
    if not _ID.fullmatch(name):
        raise ArgumentError(f"a model on a hub is called owner/name, not {name!r}", hint="name the account first")
    hub = import_optional("huggingface_hub", "a hub needs huggingface_hub", 'pip install "huggingface_hub>=1.31"')
    return hub, hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name=LIBRARY)


def _cached(repo: Path, name: str, revision: str | None, at: str, error: Exception) -> Path:
    """Folder of a whole model in the cache, after an `error` of the hub; `at` is name and revision, for messages."""
    try:
        ref = repo / "refs" / (revision or _MAIN)
        commit = read_bytes(ref, 100).decode() if ref.is_file() else str(revision)
        if not COMMIT.fullmatch(commit):
            raise ModelError("no commit")
        listing = read_listing(read_bytes(repo / _LISTS / f"{commit}.json", MOST_JSON), name)
        files, folder = _own_files(listing.files, name), repo / "snapshots" / commit
        if not all(_is_there(folder, file) for file in files):
            raise ModelError("not all of it")
    except (ModelError, UnicodeDecodeError) as missing:
        hint = "it is not in the cache either, or not all of it; see to the network, HF_ENDPOINT, HF_TOKEN"
        hint = f"{hint} and HF_HUB_OFFLINE; and there is no folder {name}"
        raise ModelError(f"{at} cannot be downloaded: {first_line(error)}", hint=hint) from missing
    return _checked(folder, name)


def _is_there(folder: Path, file: RemoteFile) -> bool:
    """Whether `folder` has a file with the name, size and digest of `file`."""
    path = own_file(folder, file.name)
    return path is not None and file.is_at(path)


def _refuse_harmful(files: Iterable[str], name: str, kind: type[EnergyQLError] = ModelError) -> None:
    """Raise an error of the class `kind` if names of files in a repository, such as "run.py", may be those of code."""
    if harmful := sorted(file for file in files if not _HARMLESS.fullmatch(file)):
        allowed = "models are loaded from repositories of safetensors, ONNX, JSON, text and pictures"
        raise kind(f"{name} holds {harmful[0]}, and {allowed}")


def _own_files(files: Mapping[str, RemoteFile], name: str) -> list[RemoteFile]:
    """Files of a repository that are to be downloaded: those with names of a model's files, and README.md."""
    _refuse_harmful(files, name)
    if not files.keys() >= {_CONFIG, _VOCABULARY}:
        raise ModelError(f"{name} is no model of energyql: it has no config.json with vocabulary.json")
    return [file for file in files.values() if _OURS.fullmatch(file.name) or file.name == README]


def _checked(folder: Path, name: str) -> Path:
    """Return the folder of a model in the cache if its files are only data, complete, and those of one model."""
    _refuse_harmful([path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()], name)
    there = {path.name for path in model_files(folder)}

    def described(file: str, *keys: str) -> Any:
        """Value in a JSON file, to which the keys lead from its outermost object; `None` if a part is missing."""
        entry: Any = read_json(folder / file) if file in there else None
        for key in keys:
            entry = entry.get(key) if isinstance(entry, dict) else None
        return entry

    marks: dict[str, Any] = {}
    kind = described(_CONFIG, "generator", "kind")
    if kind == "onnx":
        marks["generator.onnx"] = None  # loading compares its digest with that in the vocabulary, and its settings
    elif kind != "named":  # else the generator is code
        marks["generator.safetensors"] = described(_VOCABULARY, "generator")
    networks = {Path(file).stem for file in there if re.match(r"(?:(?:judge|verifier)(?:-\d+)?|reader)\.", file)}
    if described(_VOCABULARY, "space") != "picture":
        marks["attributes.safetensors"] = described("report.json", "heads")
    elif described(_VOCABULARY, "reader") is None:
        networks.add("reader")
    for network in networks:
        marks |= {f"{network}.json": None, f"{network}.safetensors": described(f"{network}.json", "report", "weights")}
    hint = "ask its owner to upload the whole model again"
    for file, mark in marks.items():
        if file not in there:
            raise ModelError(f"{name} has no {file}, and its model needs it", hint=hint)
        if mark and mark != fingerprint(folder / file):
            raise ModelError(f"{name} has a {file} of another model: its fingerprint differs", hint=hint)
    return folder
