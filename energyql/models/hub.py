"""Models on a hub: their files there, download and upload with huggingface_hub. This module imports no torch.

Nothing is downloaded unless the user names a model of the hub, `owner/name`, in a call for downloads. A download takes
only the files of a model folder, by name: safetensors, JSON and the card. A repository with any file that a program
could execute, such as pickles or Python files, is refused as a whole.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from energyql.errors import ArgumentError, EnergyQLError, ModelError
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
from energyql.models.fetch import COMMIT, RemoteFile, ask_listing, fetch, first_line, read_listing, write_listing
from energyql.plugins import import_optional

README = "README.md"
"""File of a model in a repository that holds its card."""
LIBRARY = "energyql"
"""Name of this library on hubs."""
MOST_CARD = 1 << 20
"""Largest card, in bytes."""
_CONFIG, _VOCABULARY = "config.json", "vocabulary.json"
_MAIN = "main"
"""Branch of a repository that is used by default."""
_LISTS = "energyql"
"""Folder in the cache, beside the snapshots, for the listings of the hub."""
_ID = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""Form of `owner/name`."""
_REVISION = re.compile(r"(?!.*\.\.)[^\s./\\:~^?*\[\x00-\x1f]+(?:[./][^\s./\\:~^?*\[\x00-\x1f]+)*")
"""Form of branches, tags and commits in git; such a text is also a relative path that stays in its folder."""
_OURS = re.compile(
    r"(?:config|vocabulary|report|judge_report|reader|judge(?:-\d+)?)\.json"
    r"|(?:generator|attributes|second|reader|judge(?:-\d+)?)\.safetensors|card\.md"
)
"""Names of the files of a model, without README.md."""
_HARMLESS = re.compile(
    r"(?:.*\.(?:safetensors|json|md|txt|csv|ya?ml|png|jpe?g|webp|onnx)"
    r"|(?:.*/)?(?:\.gitattributes|\.gitignore|licen[cs]e|notice))",
    re.IGNORECASE,
)
"""Names of files that hold only data, which programs do not execute."""


def is_hub_id(name: object) -> bool:
    """Return whether `name` is a text of the form `owner/name`, and no path that exists."""
    return isinstance(name, str) and _ID.fullmatch(name) is not None and not os.path.exists(name)


def model_files(folder: Path) -> list[Path]:
    """Return the paths of the files in a folder that belong to a model, by their names."""
    return [path for path in sorted(folder.glob("*")) if path.is_file() and _OURS.fullmatch(path.name)]


def download(name: str, revision: str | None = None) -> Path:
    """Return the folder of a model of a hub in the cache of huggingface_hub; files that are missing are downloaded.

    Args:
        name: `owner/name`. The environment variables `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` of huggingface_hub
            decide on the hub, the access token, and whether only the cache is read.
        revision: a branch, a tag or a commit; by default the main branch.

    Raises:
        ModelError: the hub has no such model; the repository holds files that are not data, or no complete model of
            this library; a file does not arrive in time, or has another content than in the hub's list; or the hub
            cannot be reached and the cache does not hold the whole model.
        ArgumentError: `name` is no `owner/name`, `revision` no revision, huggingface_hub is not installed, or the cache
            cannot be written.
    """
    hub, api = open_hub(name)
    at = f"{name} at {revision}" if revision else name
    if revision is not None and not _REVISION.fullmatch(revision):
        raise ArgumentError(f"{revision!r} is no revision", hint="give a branch, a tag or a commit")
    repo = Path(hub.constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    try:
        listing = ask_listing(hub, api, name, revision)
    except (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError) as error:
        raise ModelError(
            f"the hub has no model {at}: {first_line(error)}",
            hint=f"see to its name and revision, and to HF_TOKEN if it is private; and there is no folder {name}",
        ) from error
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
    return _checked(folder, files, name)


def download_to(folder: Path, name: str, revision: str | None = None) -> None:
    """Copy a model of a hub into a folder of the user, outside the cache; see `download` for name and revision.

    Raises:
        ArgumentError: the folder holds a model or another README.md, or cannot be written; or `name` or `revision` has
            a wrong form, or huggingface_hub is not installed.
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
    """Return the real path of the file `name` of a model folder; `None` if it is missing, or a link out of the folder.

    In the cache of huggingface_hub, links to the folder `blobs` are allowed too.
    """
    root = real_path(folder)
    path = real_path(root / name)
    blobs = root.parent.parent / "blobs"
    inside = path.is_relative_to(root) or (root.parent.name == "snapshots" and path.is_relative_to(blobs))
    return path if inside and path.is_file() else None


def check_folder(folder: Path) -> None:
    """Check that a model can be written to a folder, which need not exist: it may replace an earlier model only.

    Raises:
        ArgumentError: files in the folder have the names of a model's files (README.md, config.json, ...) but are not
            of a model of this library; or the folder cannot be written.
    """
    finish_saving(folder)
    _check_replaceable(folder, [path.name for path in folder.glob("*") if path.is_file()], folder.joinpath)


def upload(folder: Path, name: str, *, private: bool = False, message: str) -> str:
    """Put the files of a model folder into a repository of a hub, in one commit, and return the address of the commit.

    The repository is made if it is not there. Files of an earlier model in it are removed, and all others stay.

    Args:
        folder: a folder that `Model.save_pretrained` wrote; all files in it are uploaded.
        name: `owner/name`.
        private: whether a new repository is private. If true, a repository that exists must be private.
        message: message of the commit.

    Raises:
        ModelError: the hub refuses, or cannot be reached.
        ArgumentError: `name` is no `owner/name`, huggingface_hub is not installed, or the repository is public where a
            private one is asked for, holds another model or README.md, or files that would keep everybody from
            loading this one.
    """
    hub, api = open_hub(name)
    files = {path.name: path for path in sorted(folder.iterdir())}
    try:
        api.create_repo(name, private=private, exist_ok=True)
        listing = ask_listing(hub, api, name)
        if private and not listing.private:
            raise ArgumentError(
                f"{name} is there already, and it is public", hint="make it private on the hub, or name another one"
            )
        if harmful := _harmful(listing.files):
            raise ArgumentError(
                f"{name} holds {harmful}, and no model is loaded from beside it", hint="choose another repository"
            )
        with TemporaryDirectory() as place:
            read = [listing.files[file] for file in (README, _CONFIG) if file in listing.files]
            fetch(hub, api, name, listing.commit, read, Path(place))
            _check_replaceable(name, listing.files, Path(place).joinpath)
        stale = [file for file in listing.files if _OURS.fullmatch(file) and file not in files]
        operations = [hub.CommitOperationAdd(file, str(path)) for file, path in files.items()]
        operations += [hub.CommitOperationDelete(file) for file in stale]
        done = api.create_commit(name, operations, commit_message=message, parent_commit=listing.commit)
    except EnergyQLError:
        raise
    except Exception as error:
        raise ModelError(
            f"{name} cannot be uploaded: {first_line(error)}",
            hint="see to the network, HF_ENDPOINT, and a token that may write (hf auth login, or HF_TOKEN)",
        ) from error
    return str(done.commit_url)


def model_card(facts: Mapping[str, str | Sequence[str]], body: str) -> str:
    """Return the text of a model card: `facts` as YAML front matter, which hubs read, then `body` in Markdown."""
    lines = []
    for key, value in facts.items():
        lines += [f"{key}: {json.dumps(value)}"] if isinstance(value, str) else [f"{key}:"]
        lines += [] if isinstance(value, str) else [f"- {json.dumps(each)}" for each in value]
    return "---\n" + "\n".join(lines) + f"\n---\n\n{body.strip()}\n"


def is_card(text: bytes) -> bool:
    """Return whether the text of a README.md is the card of a model of this library."""
    return _fact(text, "library_name") == LIBRARY


def card_licence(text: bytes) -> str | None:
    """Return the licence that the card of a model of this library names; `None` without one, or for another text."""
    return _fact(text, "license") if is_card(text) else None


def _fact(text: bytes, key: str) -> str | None:
    """Return the value of a key in the front matter of a card; `None` if it is not there."""
    front = text.partition(b"\n---\n")[0].decode(errors="replace")
    match = re.search(rf"^{key}: *([\"']?)(.+?)\1\s*$", front, re.MULTILINE)
    return match[2] if match else None


def _check_replaceable(place: str | Path, files: Iterable[str], locate: Callable[[str], Path]) -> None:
    """Check that a folder or repository holds no files of something else that a model would replace.

    Args:
        place: its name in messages.
        files: names of all its files.
        locate: function from the name of a file to its path on the disk.

    Raises:
        ArgumentError: it holds such files.
    """
    names = {*files}
    if README in names and not is_card(read_bytes(locate(README), MOST_CARD, ArgumentError)):
        raise ArgumentError(f"{place}/{README} is another text than the card of a model", hint="choose another place")
    model = sorted(name for name in names if _OURS.fullmatch(name))
    if model and not (_CONFIG in model and _is_configuration(locate(_CONFIG))):
        file = _CONFIG if _CONFIG in model else model[0]
        raise ArgumentError(
            f"{place} holds a {file} that is not of a model of energyql, and it would be lost",
            hint="choose another place, or move that file elsewhere",
        )


def _is_configuration(path: Path) -> bool:
    """Return whether a file is the configuration of a model of this library."""
    try:
        return {"format", "generator"} <= read_json(path).keys()
    except ModelError:
        return False


def open_hub(name: str) -> tuple[Any, Any]:
    """Return the module huggingface_hub, and its `HfApi` for the hub of the variable `HF_ENDPOINT`.

    Args:
        name: a model on the hub, to be checked.

    Raises:
        ArgumentError: `name` is no `owner/name`, or huggingface_hub is not installed.
    """
    if not _ID.fullmatch(name):
        raise ArgumentError(f"a model on a hub is called owner/name, not {name!r}", hint="name the account first")
    hub = import_optional("huggingface_hub", "a hub needs huggingface_hub", 'pip install "huggingface_hub>=1.31"')
    return hub, hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name=LIBRARY)


def _cached(repo: Path, name: str, revision: str | None, at: str, error: Exception) -> Path:
    """Return the folder of a model in the cache after the hub failed with an error.

    Args:
        repo: folder of the repository in the cache.
        name: `owner/name`.
        revision: a branch, a tag or a commit; `None` for the main branch.
        at: name and revision, for messages.
        error: the error of the hub.

    Raises:
        ModelError: the cache does not hold the whole model, or the model is not fit to be loaded.
    """
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
        raise ModelError(
            f"{at} cannot be downloaded: {first_line(error)}",
            hint="it is not in the cache either, or not all of it; see to the network, HF_ENDPOINT, HF_TOKEN and "
            f"HF_HUB_OFFLINE; and there is no folder {name}",
        ) from missing
    return _checked(folder, files, name)


def _is_there(folder: Path, file: RemoteFile) -> bool:
    """Return whether a file of a model is in a folder, with the right size and digest."""
    path = own_file(folder, file.name)
    return path is not None and file.is_at(path)


def _checked(folder: Path, files: Iterable[RemoteFile], name: str) -> Path:
    """Return a folder of the cache if its files are harmless and form a whole model: other programs may write there.

    Raises:
        ModelError: they do not.
    """
    _refuse_harmful([path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()], name)
    _check_whole(folder, name)
    return folder


def _refuse_harmful(files: Iterable[str], name: str) -> None:
    """Raise a ModelError if a name of a file of the repository `name` is not in `_HARMLESS`."""
    if harmful := _harmful(files):
        raise ModelError(
            f"{name} holds {harmful}, and models are loaded from repositories of safetensors, JSON, text and pictures",
            hint="nothing of it was loaded; ask its owner to move that file elsewhere",
        )


def _own_files(files: Mapping[str, RemoteFile], name: str) -> list[RemoteFile]:
    """Return the files of a repository that belong to its model, and its README.md.

    Raises:
        ModelError: it holds harmful files, or no model of this library.
    """
    _refuse_harmful(files, name)
    if not files.keys() >= {_CONFIG, _VOCABULARY}:
        raise ModelError(
            f"{name} is no model of energyql: it has no config.json with vocabulary.json",
            hint="Model.push_to_hub makes such a repository",
        )
    return [file for file in files.values() if _OURS.fullmatch(file.name) or file.name == README]


def _check_whole(folder: Path, name: str) -> None:
    """Check that a folder has all files that the JSON files of its model mention, with the right fingerprints.

    Raises:
        ModelError: a file is missing, is of another model, or a JSON file is damaged.
    """
    there = {path.name for path in model_files(folder)}

    def described(file: str, *keys: str) -> Any:
        """Return the value under nested keys of a JSON file; `None` if the file or a key is missing."""
        entry: Any = read_json(folder / file) if file in there else None
        for key in keys:
            entry = entry.get(key) if isinstance(entry, dict) else None
        return entry

    marks: dict[str, Any] = {}
    if described(_CONFIG, "generator", "kind") != "named":  # else the generator is code
        marks["generator.safetensors"] = described(_VOCABULARY, "generator")
    networks = {Path(file).stem for file in there if re.match(r"(?:judge(?:-\d+)?|reader)\.", file)}
    if described(_VOCABULARY, "space") != "picture":
        marks["attributes.safetensors"] = described("report.json", "heads")
    elif described(_VOCABULARY, "reader") is None:
        networks.add("reader")
    for network in networks:
        marks |= {f"{network}.json": None, f"{network}.safetensors": described(f"{network}.json", "report", "weights")}
    for file, mark in marks.items():
        if file not in there:
            raise ModelError(
                f"{name} has no {file}, and its model needs it", hint="ask its owner to upload the whole model again"
            )
        if mark and mark != fingerprint(folder / file):
            raise ModelError(
                f"{name} has a {file} of another model: its fingerprint is not the one that the model gives",
                hint="ask its owner to upload the whole model again",
            )


def _harmful(files: Iterable[str]) -> str | None:
    """Return the first name that is not in `_HARMLESS`, in alphabetical order; `None` if there is none."""
    return next((file for file in sorted(files) if not _HARMLESS.fullmatch(file)), None)
