"""Which code of a model folder the user allowed on this machine: a record outside all model folders.

A folder only names code. Once allowed, it runs again without being asked for, while the folder has the same path and
names the same code, and the files of the code are the same: that of the module, and those of the user's own that it
imports. See docs/decisions/trust-once.md.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import os
import site
import stat
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from importlib.machinery import ModuleSpec
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

from energyql.errors import EnergyQLError
from energyql.files import locked, parse_json, read_bytes, real_path, replacing, state_folder

LIBRARIES = (
    str(Path(__file__).parent),
    *(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")),
    *site.getsitepackages(),
    site.getusersitepackages(),
)
"""Folders whose modules are not the user's: this package, the standard library and the installed libraries."""
RECORD = "trusted.json"
"""File of the record, in `state_folder`."""
BYTECODE = "bytecode"
"""Folder, in `state_folder`, of the compiled files of plugins."""
_MOST = 1 << 24
"""Most bytes of the record that are read."""


@dataclasses.dataclass(frozen=True)
class Trusted:
    """Code of a model folder that the user allowed.

    Attributes:
        code: `module:object`, such as "my_gan:Faces".
        files: path of each file that it runs -> SHA-256.
        when: time of the permission, in UTC.
        command: program and its first argument, such as "energyql generate".
    """

    code: str
    files: dict[str, str]
    when: str
    command: str


Record = dict[str, dict[str, Trusted]]
"""Real path of a model folder -> kind of plugin, such as "generator" -> what the user allowed."""


def trust(folder: Path, kind: str, code: str, *, here: bool) -> None:
    """Record that the user allows `code`, `module:object`, as the plugin of this kind of a model folder.

    Where nothing can be written, the permission is for this process alone. `here`: see `code_files`.
    """
    place, key, files = private_folder(), str(real_path(folder)), code_files(code.partition(":")[0], here=here)
    if place is None or not files:
        return
    command = " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:2]])
    new = Trusted(code, files, datetime.now(UTC).isoformat(timespec="seconds"), command)
    with suppress(OSError, EnergyQLError), locked(place):
        record, _ = _read(place)
        old = record.get(key, {}).get(kind)
        if old is not None and (old.code, old.files) == (code, files):
            return
        record[key] = record.get(key, {}) | {kind: new}
        entries = {
            path: {each: vars(entry) for each, entry in kinds.items()}
            for path, kinds in record.items()
            if os.path.isdir(path)
        }
        with replacing(place / RECORD) as target:
            target.chmod(0o600)
            target.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def distrust(folder: Path, kind: str, code: str, *, here: bool) -> str | None:
    """Why the record does not allow `code` in a folder, as a clause; "" if it never did, `None` if it does.

    Nothing is imported. `here`: see `code_files`.
    """
    place = state_folder()
    record, fault = ({}, "") if place is None else _read(place)
    entry = record.get(str(real_path(folder)), {}).get(kind)
    if entry is None:
        return fault
    if entry.code != code:
        return f"you allowed {entry.code} there, and now it names {code}"
    files = code_files(code.partition(":")[0], here=here)
    if changed := [path for path in sorted(files) if entry.files.get(path, files[path]) != files[path]]:
        return f"the file {changed[0]} changed since you allowed it"
    if new := sorted(files.keys() - entry.files.keys()):
        return f"the file {new[0]} would run too, or in place of another, and you have not allowed it"
    if gone := sorted(entry.files.keys() - files.keys()):
        return f"the file {gone[0]}, which you allowed, is not found from {os.getcwd()}"
    return None


def code_files(module: str, *, here: bool) -> dict[str, str]:
    """Files of the user's own that the import of a module runs -> SHA-256, followed through `import` statements.

    The file of the module itself counts also if it is an installed library's. Empty if it has none. Nothing is run.

    Args:
        here: whether the import looks in the working directory first.
    """
    files: dict[str, str] = {}
    waiting, seen = [module], set[str]()
    with working_directory_first() if here else nullcontext():
        while waiting:
            parts, places = waiting.pop().split("."), None
            for count in range(1, len(parts) + 1):
                name = ".".join(parts[:count])
                if (spec := _find(name, places)) is None:
                    break
                places = spec.submodule_search_locations
                file = os.path.realpath(spec.origin) if spec.has_location and spec.origin else ""
                if file.startswith(LIBRARIES) and not f"{module}.".startswith(f"{name}."):
                    break
                if file and name not in seen:
                    try:
                        data = Path(file).read_bytes()
                    except OSError:  # such as a module in an archive
                        break
                    seen.add(name)
                    files[file] = hashlib.sha256(data).hexdigest()
                    waiting += _imports(data, spec) if file.endswith(".py") else []
    return files if module in seen else {}


def _find(name: str, places: Iterable[str] | None) -> ModuleSpec | None:
    """Where Python would find a module, a part of a package in its `places`; unlike `find_spec`, it imports nothing."""
    if name in sys.modules:
        return getattr(sys.modules[name], "__spec__", None)
    for finder in sys.meta_path:
        spec = finder.find_spec(name, None if places is None else list(places))
        if spec is not None:
            return spec
    return None


def _imports(source: bytes, spec: ModuleSpec) -> list[str]:
    """Names of the modules, and of what may be modules, that a source file imports anywhere in it."""
    names: list[str] = []
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # then it cannot be imported either
        return names
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            with suppress(ImportError):  # beyond the package
                base = resolve_name("." * node.level + (node.module or ""), spec.parent)
                names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names


@contextmanager
def working_directory_first() -> Iterator[None]:
    """Let modules be looked for in the working directory first, as for a script there."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


@contextmanager
def own_bytecode() -> Iterator[None]:
    """Let an import read and write compiled files in the user's private folder alone.

    Python runs a compiled file beside a source file without a look at the source, if it is marked so.
    """
    place, before = private_folder(), sys.pycache_prefix
    if place is not None:
        sys.pycache_prefix = str(place / BYTECODE)
    try:
        yield
    finally:
        sys.pycache_prefix = before


def private_folder() -> Path | None:
    """`state_folder`, made if it is missing; `None` if that is not possible, or others can write it."""
    place = state_folder()
    if place is not None:
        with suppress(OSError):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _exposed(place.stat()) is None:
                return place
    return None


def _exposed(status: os.stat_result) -> str | None:
    """Why others could have written a file or folder; `None` if they could not, or the system does not tell."""
    if sys.platform == "win32":
        return None
    if status.st_uid != os.geteuid():
        return "it belongs to another user"
    return "other users can write it" if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) else None


def _read(place: Path) -> tuple[Record, str]:
    """The record in `place`; without one, or with one that cannot be relied on, it is empty, and a clause says why."""
    path = place / RECORD
    try:
        for each in (place, path):
            status = each.stat() if each == place else each.lstat()
            if (exposed := _exposed(status)) is not None:
                return {}, f"{each}, which records what you allowed, is ignored: {exposed}"
        if not stat.S_ISREG(status.st_mode):
            return {}, f"{path}, which records what you allowed, is ignored: it is no regular file"
        entries = parse_json(read_bytes(path, _MOST))
        return {path: {kind: _trusted(entry) for kind, entry in of.items()} for path, of in entries.items()}, ""
    except (FileNotFoundError, NotADirectoryError):
        return {}, ""
    except (OSError, EnergyQLError, ValueError, TypeError, LookupError, AttributeError):
        return {}, f"{path}, which records what you allowed, is ignored: it cannot be read"


def _trusted(entry: dict[str, Any]) -> Trusted:
    return Trusted(**{**entry, "files": dict(entry["files"])})
