"""Models on a hub: which files they have there, and how they come and go by huggingface_hub. Imports no torch.

Nothing is downloaded unless somebody names a model of the hub, `owner/name`, in a call that says so. What a download
takes are the files of a model folder by name: safetensors, JSON and the card. A repository that holds anything that a
program could execute, such as pickles or Python files, is refused as a whole.
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

README, LIBRARY = "README.md", "energyql"
MOST_CARD = 1 << 20
"""Largest card, in bytes."""
_CONFIG, _VOCABULARY = "config.json", "vocabulary.json"
_MAIN, _LISTS = "main", "energyql"
"""The branch by default, and the folder of what the hub says of the files, beside the snapshots in the cache."""
_ID = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_REVISION = re.compile(r"(?!.*\.\.)[^\s./\\:~^?*\[\x00-\x1f]+(?:[./][^\s./\\:~^?*\[\x00-\x1f]+)*")
"""The form that git asks of branches and tags, which is that of a path in a folder too."""
_OURS = re.compile(
    r"(?:config|vocabulary|report|judge_report|reader|judge(?:-\d+)?)\.json"
    r"|(?:generator|attributes|second|reader|judge(?:-\d+)?)\.safetensors|card\.md"
)
_HARMLESS = re.compile(
    r"(?:.*\.(?:safetensors|json|md|txt|csv|ya?ml|png|jpe?g|webp|onnx)"
    r"|(?:.*/)?(?:\.gitattributes|\.gitignore|licen[cs]e|notice))",
    re.IGNORECASE,
)
"""Files that hold data, and that are read, if at all, as data."""


def is_hub_id(name: object) -> bool:
    """Whether a text has the form of a model on a hub, `owner/name`, and is no folder here."""
    return isinstance(name, str) and _ID.fullmatch(name) is not None and not os.path.exists(name)


def model_files(folder: Path) -> list[Path]:
    """Return the files of a folder that belong to its model."""
    return [path for path in sorted(folder.glob("*")) if path.is_file() and _OURS.fullmatch(path.name)]


def download(name: str, revision: str | None = None) -> Path:
    """Return the folder of a model of a hub, in the cache of huggingface_hub, which downloads what is not there.

    Args:
        name: `owner/name`. The hub is that of huggingface_hub: `HF_ENDPOINT` and `HF_TOKEN` hold for it, and with
            `HF_HUB_OFFLINE=1` only the cache is read.
        revision: a branch, a tag or a commit; by default the main branch.

    Raises:
        ModelError: there is no such model, or it holds other files than data, or no model of this library, or not all
            of one; a file of it does not arrive in time, or with another content than the hub says; or the hub cannot
            be reached and the cache does not have all of it.
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
    except Exception as error:  # those of the HTTP library too, which is another one in every few versions
        return _cached(repo, name, revision, at, error)
    files = _own_files(listing.files, name)
    folder = repo / "snapshots" / listing.commit
    fetch(hub, api, name, listing.commit, [file for file in files if not _is_there(folder, file)], folder)
    notes = {repo / _LISTS / f"{listing.commit}.json": write_listing(listing)}
    if revision != listing.commit:
        notes[repo / "refs" / (revision or _MAIN)] = listing.commit
    for path, text in notes.items():
        with suppress(ArgumentError):  # a cache that can only be read is as good, until the network is gone
            if not path.is_file() or path.read_text() != text:
                write_text(path, text)
    return _checked(folder, files, name)


def download_to(folder: Path, name: str, revision: str | None = None) -> None:
    """Copy a model of a hub into a new folder, outside the cache; see `download`.

    Raises:
        ArgumentError: the folder holds a model or another README.md, or cannot be written; or as for `download`.
        ModelError: as for `download`.
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
    """Return the real path of a file of a model folder; `None` if it is not there, or is a link to somewhere else.

    Links inside the folder are followed, and in the cache of huggingface_hub those to its `blobs`.
    """
    root = real_path(folder)
    path = real_path(root / name)
    blobs = root.parent.parent / "blobs"
    inside = path.is_relative_to(root) or (root.parent.name == "snapshots" and path.is_relative_to(blobs))
    return path if inside and path.is_file() else None


def check_folder(folder: Path) -> None:
    """Check that what a model would replace in a folder, which need not be there, is an earlier model.

    Raises:
        ArgumentError: it holds a README.md, a config.json or other files of a model that are of something else.
    """
    finish_saving(folder)
    _check_replaceable(folder, [path.name for path in folder.glob("*") if path.is_file()], folder.joinpath)


def upload(folder: Path, name: str, *, private: bool = False, message: str) -> str:
    """Put the files of a model folder into a repository of a hub, in one commit, and return the address of the commit.

    The repository is made if it is not there. Files of an earlier model in it are removed, and all others stay.

    Args:
        folder: which `Model.save_pretrained` wrote; all files in it are uploaded.
        name: `owner/name`.
        private: whether a new repository is private; one that is there must be.
        message: of the commit.

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
    """Return a card in Markdown with facts in front, as hubs read them."""
    lines = []
    for key, value in facts.items():
        lines += [f"{key}: {json.dumps(value)}"] if isinstance(value, str) else [f"{key}:"]
        lines += [] if isinstance(value, str) else [f"- {json.dumps(each)}" for each in value]
    return "---\n" + "\n".join(lines) + f"\n---\n\n{body.strip()}\n"


def is_card(text: bytes) -> bool:
    """Whether a README.md is the card of a model of this library."""
    return _fact(text, "library_name") == LIBRARY


def card_licence(text: bytes) -> str | None:
    """Return the licence in the card of a model of this library; `None` if it names none, or is another text."""
    return _fact(text, "license") if is_card(text) else None


def _fact(text: bytes, key: str) -> str | None:
    """Return a line of text in front of a card."""
    front = text.partition(b"\n---\n")[0].decode(errors="replace")
    found = re.search(rf"^{key}: *([\"']?)(.+?)\1\s*$", front, re.MULTILINE)
    return found[2] if found else None


def _check_replaceable(place: str | Path, files: Iterable[str], locate: Callable[[str], Path]) -> None:
    """Check that the files of a folder or repository that a model would replace are those of an earlier model.

    Args:
        place: for messages.
        files: their names.
        locate: returns a path to one of them.

    Raises:
        ArgumentError: they are not.
    """
    names = {*files}
    if README in names and not is_card(read_bytes(locate(README), MOST_CARD, ArgumentError)):
        raise ArgumentError(f"{place}/{README} is another text than the card of a model", hint="choose another place")
    model = sorted(name for name in names if _OURS.fullmatch(name))
    if model and not (_CONFIG in model and _is_configuration(locate(_CONFIG))):
        found = _CONFIG if _CONFIG in model else model[0]
        raise ArgumentError(
            f"{place} holds a {found} that is not of a model of energyql, and it would be lost",
            hint="choose another place, or move that file elsewhere",
        )


def _is_configuration(path: Path) -> bool:
    try:
        return {"format", "generator"} <= read_json(path).keys()
    except ModelError:
        return False


def open_hub(name: str) -> tuple[Any, Any]:
    """Return huggingface_hub and its interface to the hub that the environment names now, for a model there.

    Raises:
        ArgumentError: `name` is no `owner/name`, or huggingface_hub is not installed.
    """
    if not _ID.fullmatch(name):
        raise ArgumentError(f"a model on a hub is called owner/name, not {name!r}", hint="name the account first")
    hub = import_optional("huggingface_hub", "a hub needs huggingface_hub", 'pip install "huggingface_hub>=1.31"')
    return hub, hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name=LIBRARY)


def _cached(repo: Path, name: str, revision: str | None, at: str, error: Exception) -> Path:
    """Return the folder in the cache, if all of the model is there, where the hub failed with an error."""
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
    """Whether a file of a model is in a folder, with the content that the hub says."""
    path = own_file(folder, file.name)
    return path is not None and file.is_at(path)


def _checked(folder: Path, files: Iterable[RemoteFile], name: str) -> Path:
    """Return a folder of the cache, which other programs share, if nothing in it is harmful and its files fit."""
    _refuse_harmful([path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()], name)
    _check_whole(folder, name)
    return folder


def _refuse_harmful(files: Iterable[str], name: str) -> None:
    if harmful := _harmful(files):
        raise ModelError(
            f"{name} holds {harmful}, and models are loaded from repositories of safetensors, JSON, text and pictures",
            hint="nothing of it was loaded; ask its owner to move that file elsewhere",
        )


def _own_files(files: Mapping[str, RemoteFile], name: str) -> list[RemoteFile]:
    """Return those files of a repository that belong to its model."""
    _refuse_harmful(files, name)
    if not files.keys() >= {_CONFIG, _VOCABULARY}:
        raise ModelError(
            f"{name} is no model of energyql: it has no config.json with vocabulary.json",
            hint="Model.push_to_hub makes such a repository",
        )
    return [file for file in files.values() if _OURS.fullmatch(file.name) or file.name == README]


def _check_whole(folder: Path, name: str) -> None:
    """Check that a model has all files that its descriptions ask for, with the fingerprints that they give.

    Raises:
        ModelError: one is missing, is of another model, or a description is damaged.
    """
    there = {path.name for path in model_files(folder)}

    def described(file: str, *keys: str) -> Any:
        entry: Any = read_json(folder / file) if file in there else None
        for key in keys:
            entry = entry.get(key) if isinstance(entry, dict) else None
        return entry

    marks: dict[str, Any] = {}
    if described(_CONFIG, "generator", "kind") != "named":  # else code that the owner names
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
    return next((file for file in sorted(files) if not _HARMLESS.fullmatch(file)), None)
