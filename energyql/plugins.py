"""Code outside this package: optional libraries, and generators and judges by name.

The name of a plugin is `module:factory`, for a user's own code, or the name of an entry point of an installed package.

To look up a name runs code. So a name that a model folder holds is looked up only with the user's permission.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from types import FrameType
from typing import Any

from energyql.errors import ArgumentError, EnergyQLError, ModelError, misfit
from energyql.vocabulary import closest

GENERATORS = "energyql.generators"
"""Group of the entry points of generators."""
JUDGES = "energyql.judges"
"""Group of the entry points of judges, which label pictures too."""
_OBJECT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_SAFE_NAME = re.compile(r"[\w.-]{1,100}(:[\w.]{1,100})?")
"""Form of a name in a model folder: without characters that have a meaning for a shell or terminal."""
_NOT_OWN = (str(Path(__file__).parent), *(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")))
"""Folders whose modules are no helpers of a plugin: this package and the installed libraries."""
_FRAMES = 3
"""Most lines of a plugin's code that the message of an error shows."""
_named: dict[str, str] = {}
"""Name of each plugin that was looked up -> its top-level module."""
_helpers: set[str] = set()
"""Top-level modules in the working directory that these modules imported."""


def import_optional(module: str, need: str, hint: str) -> Any:
    """Import an optional library, and return its module.

    Args:
        module: name of the module.
        need: what needs which library, such as "a table needs pandas".
        hint: the command that installs it.

    Raises:
        ArgumentError: the library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise ArgumentError(f"{need}, which is not installed", hint=hint) from None


def is_plugin(name: str, group: str) -> bool:
    """Return whether `name` has the form `module:object` or is an entry point of `group`; nothing is imported."""
    return bool(_OBJECT.fullmatch(name) or entry_points(group=group, name=name))


def load_plugin(name: str, group: str) -> Any:
    """Import an object, from the working directory as well.

    Args:
        name: `module:object`, or the name of an entry point.
        group: `GENERATORS` or `JUDGES`.

    Returns:
        The object itself; it is not called.

    Raises:
        ArgumentError: there is no such module, object or entry point, or two packages offer different ones.
    """
    return _imported(name) if ":" in name else _installed(name, group)


def blame(error: BaseException) -> EnergyQLError | None:
    """Return an error that names the plugin whose code raised `error`, and the lines of that code.

    `None` is returned if no code of a plugin was running.
    """
    steps = [step for step in traceback.walk_tb(error.__traceback__) if _is_own(step[0])]
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
    """Return whether a frame runs code of a plugin or of one of its helper modules."""
    return _module(frame) in {*_named.values(), *_helpers} - {"energyql", "__main__"}


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def make_plugin(factory: Callable[[], Any], name: str) -> Any:
    """Call a class or function without arguments, and return what it returns.

    Raises:
        ArgumentError: it needs arguments.
    """
    if wrong := misfit(factory):
        hint = "name a function or a class that needs no arguments"
        raise ArgumentError(f"{name} cannot be called without arguments: {wrong}", hint=hint)
    return factory()


def check_allowed(name: object, kind: str, place: object, allowed: bool) -> str:
    """Return the name of code that a model folder holds, if that code may be run.

    Args:
        name: the name in the folder, of any type.
        kind: "generator", "judge" or "reader", which is also the name of the argument of `load_model`.
        place: the folder, for messages.
        allowed: whether the user allows to run code that the folder names.

    Raises:
        ModelError: the code may not be run, or `name` is no name of code.
    """
    if not isinstance(name, str) or not _SAFE_NAME.fullmatch(name):
        raise ModelError(
            f"{place}: the name of its {kind} is no name of code",
            hint="train the attributes again with the name of the code",
        )
    if not allowed:
        option = "" if kind == "reader" else f"pass --{kind} {name}, "  # which has no option of its own
        raise ModelError(
            f"{place} holds no {kind}, only the name of one: {name}. It is code, which is not run without permission",
            hint=f"if you trust it, {option}in Python {kind}={name!r}; "
            "or allow what the folder names with --allow-plugins, in Python allow_plugins=True",
        )
    return name


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not _OBJECT.fullmatch(name):
        raise ArgumentError(
            f"{name!r} is not of the form module:function",
            hint="such as my_labels:look, for the function look in my_labels.py",
        )
    here, before = os.getcwd(), set(sys.modules)
    sys.path.insert(0, here)
    _named[name] = module.partition(".")[0]
    try:
        target: Any = importlib.import_module(module)
    except (ImportError, SyntaxError) as error:
        del _named[name]
        hint = f"{name} is taken as module:object, with the module in {here} or installed in this environment"
        if isinstance(error, ModuleNotFoundError) and not f"{module}.".startswith(f"{error.name}."):
            hint = f"the module was found, but not what it imports: {error.name}"
        raise ArgumentError(f"cannot import {module!r}: {error}", hint=hint) from error
    finally:
        sys.path.remove(here)
    for other in set(sys.modules) - before:
        file = os.path.abspath(getattr(sys.modules[other], "__file__", None) or os.sep)
        if file.startswith(here + os.sep) and not file.startswith(_NOT_OWN):
            _helpers.add(other.partition(".")[0])
    for part in attribute.split("."):
        if not hasattr(target, part):
            near = closest(part, dir(target))
            place = getattr(sys.modules[module], "__file__", module)
            hint = f"did you mean {near}?" if near else f"the module is {place}"
            raise ArgumentError(f"module {module!r} has no {attribute!r}", hint=hint)
        target = getattr(target, part)
    return target


def _installed(name: str, group: str) -> Any:
    points = {point.value: point for point in entry_points(group=group) if point.name == name}
    kind = group.rpartition(".")[2]
    if len(points) > 1:
        hint = f"name one as {' or '.join(sorted(points))}"
        raise ArgumentError(f"{name!r} is the name of several {kind}", hint=hint)
    if not points:
        names = sorted({point.name for point in entry_points(group=group)})
        choices = f"installed {kind}: {', '.join(names)}; or name" if names else "name"
        raise ArgumentError(
            f"no installed package has {name!r} among its {kind}", hint=f"{choices} code of your own as module:function"
        )
    (point,) = points.values()
    _named[name] = point.module.partition(".")[0]
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise ArgumentError(
            f"{name} is {point.value}, which cannot be imported: {error}",
            hint="install the package again, with what it needs",
        ) from error
