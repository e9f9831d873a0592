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
from pathlib import Path
from typing import Any

from energyql.errors import ArgumentError, ModelError
from energyql.files import finish_saving, read_bytes, read_json, real_path, saving
from energyql.locks import sole_writer
from energyql.plugins import import_optional

README, LIBRARY = "README.md", "energyql"
MOST_CARD = 1 << 20
"""Largest card, in bytes."""
_CONFIG = "config.json"
_ID = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
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
        ModelError: there is no such model, or it holds other files than data, or no model of this library; a file of
            it cannot be downloaded; or the hub cannot be reached and the cache does not have all of it.
        ArgumentError: `name` is no `owner/name`, or huggingface_hub is not installed.
    """
    hub, api = open_hub(name)
    at = f"{name} at {revision}" if revision else name
    try:
        commit = api.resolve_revision(name, revision=revision)
        listed = [file.rfilename for file in api.model_info(name, revision=commit.resolved).siblings]
    except (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError) as error:
        raise ModelError(
            f"the hub has no model {at}: {_first_line(error)}",
            hint=f"see to its name and revision, and to HF_TOKEN if it is private; and there is no folder {name}",
        ) from error
    except Exception as error:  # those of the HTTP library too, which is another one in every few versions
        return _cached(hub, name, revision, at, error)
    wanted = _wanted(listed, name)
    try:
        folder = Path(api.snapshot_download(name, revision=commit, allow_patterns=wanted))
    except Exception as error:
        raise ModelError(
            f"{at} cannot be downloaded: {_first_line(error)}",
            hint="download it again; what is there already stays in the cache",
        ) from error
    return _checked(folder, wanted, name)


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
        info = api.model_info(name)
        if private and not info.private:
            raise ArgumentError(
                f"{name} is there already, and it is public", hint="make it private on the hub, or name another one"
            )
        there = [file.rfilename for file in info.siblings]
        if harmful := _harmful(there):
            raise ArgumentError(
                f"{name} holds {harmful}, and no model is loaded from beside it", hint="choose another repository"
            )
        _check_replaceable(name, there, lambda file: Path(api.hf_hub_download(name, file, revision=info.sha)))
        stale = [file for file in there if _OURS.fullmatch(file) and file not in files]
        operations = [hub.CommitOperationAdd(file, str(path)) for file, path in files.items()]
        operations += [hub.CommitOperationDelete(file) for file in stale]
        done = api.create_commit(name, operations, commit_message=message, parent_commit=info.sha)
    except ArgumentError:
        raise
    except Exception as error:
        raise ModelError(
            f"{name} cannot be uploaded: {_first_line(error)}",
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


def _cached(hub: Any, name: str, revision: str | None, at: str, error: Exception) -> Path:
    """Return the folder in the cache, if all of the model is there, where the hub failed with an error."""
    try:
        wanted = _wanted([file.path for file in hub.get_cached_repo_tree(name, revision=revision)], name)
        folder = hub.snapshot_download(name, revision=revision, allow_patterns=wanted, local_files_only=True)
    except (hub.errors.CachedRepoTreeNotFoundError, OSError, ValueError) as missing:
        raise ModelError(
            f"{at} cannot be downloaded: {_first_line(error)}",
            hint="it is not in the cache either, or not all of it; see to the network, HF_ENDPOINT, HF_TOKEN and "
            f"HF_HUB_OFFLINE; and there is no folder {name}",
        ) from missing
    return _checked(Path(folder), wanted, name)


def _checked(folder: Path, wanted: Iterable[str], name: str) -> Path:
    """Return a folder of the cache, which other programs share, if it holds these files and nothing harmful."""
    there = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    if missing := sorted({*wanted} - {*there}):
        raise ModelError(f"{name} was not downloaded as a whole: {missing[0]} is missing", hint="download it again")
    _wanted(there, name)
    return folder


def _wanted(files: Iterable[str], name: str) -> list[str]:
    """Return those files of a repository that belong to its model."""
    listed = list(files)
    if harmful := _harmful(listed):
        raise ModelError(
            f"{name} holds {harmful}, and models are loaded from repositories of safetensors, JSON, text and pictures",
            hint="nothing of it was loaded; ask its owner to move that file elsewhere",
        )
    wanted = [file for file in listed if _OURS.fullmatch(file) or file == README]
    if not {_CONFIG, "vocabulary.json"} <= set(wanted):
        raise ModelError(
            f"{name} is no model of energyql: it has no config.json with vocabulary.json",
            hint="Model.push_to_hub makes such a repository",
        )
    return wanted


def _harmful(files: Iterable[str]) -> str | None:
    return next((file for file in sorted(files) if not _HARMLESS.fullmatch(file)), None)


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
