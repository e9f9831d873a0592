"""Code outside this package: optional libraries, and plugins, which are generators and judges that a user names.

A plugin is named by `module:object`, such as "my_labels:look", or by an entry point of an installed package. Its import
runs code, so one that a model folder names, which may come from a stranger, needs the user's permission. It is given
once for a folder and its code (`energyql.trust`).
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType
from typing import Any

from energyql.errors import ArgumentError, EnergyQLError, ModelError, either, misfit
from energyql.trust import LIBRARIES, distrust, own_bytecode, trust, working_directory_first
from energyql.vocabulary import closest

GENERATORS = "energyql.generators"
"""Group of the entry points of generators."""
JUDGES = "energyql.judges"
"""Group of the entry points of judges: code that reads attributes off pictures, to check results or label pictures."""
_OBJECT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_SAFE_NAME = re.compile(r"[\w.-]{1,100}(:[\w.]{1,100})?")
"""Form of a plugin's name in a model folder: no characters that have a meaning for a shell or terminal."""
_FRAMES = 3
"""Most lines of a plugin's code that the message of an error shows."""
_named: dict[str, str] = {}
"""Name of each plugin that was imported -> the first part of its module's name, such as "a" for "a.b:c"."""


def import_optional(module: str, need: str, hint: str) -> Any:
    """Import and return the module of an optional library.

    Args:
        need: what needs the library, as the start of an error's message, such as "a table needs pandas".
        hint: the command that installs the library.

    Raises:
        ArgumentError: the library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise ArgumentError(f"{need}, which is not installed", hint=hint) from None


@contextmanager
def without_bars(*libraries: Any) -> Iterator[None]:
    """Hide the progress bars of libraries such as diffusers and transformers in a `with` block."""
    logs = [library.utils.logging for library in libraries]
    shown = [log for log in logs if log.is_progress_bar_enabled()]
    for log in shown:
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log in shown:
            log.enable_progress_bar()


def is_plugin(name: str, group: str) -> bool:
    """Whether `name` has the form `module:object` or is an installed entry point of `group`; nothing is imported."""
    return bool(_OBJECT.fullmatch(name) or entry_points(group=group, name=name))


def load_plugin(name: str, group: str) -> Any:
    """Import a plugin and return it, such as a class or a function; it is not called.

    Args:
        name: `module:object`, with a module that is installed or in the working directory; or the name of an entry
            point.
        group: group of the entry points: `GENERATORS` or `JUDGES`.

    Raises:
        ArgumentError: there is no such module, object or entry point, the module cannot be imported, or two packages
            have entry points of that name with different code.
    """
    return _imported(name) if ":" in name else _installed(name, group)


def blame(error: BaseException) -> EnergyQLError | None:
    """Error that says which plugin failed, with the lines of its code that ran; `None` if no plugin ran at `error`."""
    steps = [step for step in traceback.walk_tb(error.__traceback__) if _named and _is_own(step[0])]
    if not steps:
        return None
    frame = steps[0][0]
    here = [name for name, module in _named.items() if module == _module(frame)] or list(_named)
    called = (frame.f_code.co_name, type(frame.f_locals.get("self")).__name__)
    names = [name for name in here if re.split("[:.]", name)[-1] in called] or here
    places = traceback.StackSummary.extract(iter(steps[-_FRAMES:]))
    lines = [f"{place.filename}, line {place.lineno}, in {place.name}\n  {place.line}" for place in places]
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return EnergyQLError(f"{' or '.join(names)} failed: {what}", hint="\n".join(lines))


def _is_own(frame: FrameType) -> bool:
    """Whether a frame of a traceback runs the user's code: a plugin's module, or a file of the working directory."""
    file = os.path.abspath(frame.f_code.co_filename)
    is_generated = frame.f_code.co_filename.startswith("<")  # such as the `__init__` of a dataclass
    is_helper = not is_generated and file.startswith(os.getcwd() + os.sep) and not file.startswith(LIBRARIES)
    return is_helper or _module(frame) in {*_named.values()} - {"energyql", "__main__"}


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def make_plugin(factory: Callable[[], Any], name: str) -> Any:
    """Call the class or function of a plugin without arguments, and return its result, such as a generator.

    Raises:
        ArgumentError: the class or function needs arguments.
    """
    if wrong := misfit(factory):
        raise ArgumentError(f"{name} cannot be called without arguments: {wrong}")
    return factory()


def check_allowed(name: object, kind: str, folder: Path, allowed: bool) -> str:
    """Check that the plugin that a model folder names may be run, and return its name.

    Args:
        name: the name in a file of the folder; in a damaged file it may be no text.
        kind: what the plugin is: "generator", "judge", "reader" or "render".
        allowed: whether the user permits to run plugins that the folder names, which is recorded; else what was
            permitted before decides.

    Raises:
        ModelError: there is no permission, or `name` cannot be the name of a plugin.
    """
    checked = _safe(name, kind, folder)
    code, here = _code_of(checked, JUDGES if kind in ("judge", "reader") else GENERATORS), ":" in checked
    if allowed:
        if code is not None:
            trust(folder, kind, code, here=here)
    elif (why := "" if code is None else distrust(folder, kind, code, here=here)) is not None:
        raise needs_permission(checked, kind, folder, why)
    return checked


def is_allowed(name: object, kind: str, folder: Path, allowed: bool) -> bool:
    """Whether `check_allowed` raises no error for lack of permission; for a plugin that can be left out."""
    if allowed:
        check_allowed(name, kind, folder, True)
        return True
    with suppress(ModelError):
        check_allowed(name, kind, folder, False)
        return True
    return False


def needs_permission(name: object, kind: str, folder: Path, why: str = "") -> ModelError:
    """The error for code that a folder names and that may not be run; `why` says why a permission does not hold."""
    option = "" if kind == "reader" else f"pass --{kind} {name}, or "  # --reader is for a reader of words
    wrong = f"{folder} holds no {kind}, only the name of one: {_safe(name, kind, folder)}"
    python = f"pass {kind}={name!r}, or allow what the folder names, once: allow_plugins=True"
    hint = f"if you trust it, {either(python, f'{option}allow what the folder names, once: --allow-plugins')}"
    return ModelError(f"{wrong}. It is code, which is not run without permission{why and f': {why}'}", hint=hint)


def _safe(name: object, kind: str, folder: Path) -> str:
    if not isinstance(name, str) or not _SAFE_NAME.fullmatch(name):
        raise ModelError(f"{folder}: the name of its {kind} is no name of code")
    return name


def _code_of(name: str, group: str) -> str | None:
    """`module:object` that a name stands for; `None` if it is not the name of just one installed plugin."""
    codes = {name} if ":" in name else {point.value for point in entry_points(group=group, name=name)}
    return codes.pop() if len(codes) == 1 else None


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not _OBJECT.fullmatch(name):
        hint = "such as my_labels:look, for the function look in my_labels.py"
        raise ArgumentError(f"{name!r} is not of the form module:function", hint=hint)
    _named[name] = module.partition(".")[0]
    try:
        with working_directory_first(), own_bytecode():
            target: Any = importlib.import_module(module)
    except (ImportError, SyntaxError) as error:
        del _named[name]
        hint = f"{name} is taken as module:object, with the module in {os.getcwd()} or installed in this environment"
        if isinstance(error, ModuleNotFoundError) and not f"{module}.".startswith(f"{error.name}."):
            hint = f"the module was found, but not what it imports: {error.name}"
        raise ArgumentError(f"cannot import {module!r}: {error}", hint=hint) from error
    for part in attribute.split("."):
        if not hasattr(target, part):
            near, place = closest(part, dir(target)), getattr(sys.modules[module], "__file__", module)
            hint = f"did you mean {near}?" if near else f"the module is {place}"
            raise ArgumentError(f"module {module!r} has no {attribute!r}", hint=hint)
        target = getattr(target, part)
    return target


def _installed(name: str, group: str) -> Any:
    points = {point.value: point for point in entry_points(group=group) if point.name == name}
    kind = group.rpartition(".")[2]
    if len(points) > 1:
        raise ArgumentError(f"{name!r} is the name of several {kind}", hint=f"name {' or '.join(sorted(points))}")
    if not points:
        names = ", ".join(sorted({point.name for point in entry_points(group=group)})) or "none"
        hint = f"installed {kind}: {names}; or name code of your own as module:function"
        raise ArgumentError(f"no installed package has {name!r} among its {kind}", hint=hint)
    (point,) = points.values()
    _named[name] = point.module.partition(".")[0]
    try:
        with own_bytecode():
            return point.load()
    except (ImportError, AttributeError) as error:
        raise ArgumentError(f"{name} is {point.value}, which cannot be imported: {error}") from error
