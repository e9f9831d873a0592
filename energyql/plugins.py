"""Code from elsewhere: optional libraries, and generators and judges by name.

A plugin is `module:factory`, for code of one's own, or the name under which a package offers one.

To look up a name is to run code. So names are taken from a user, and from a model folder only with a user's permission.
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

GENERATORS, JUDGES = "energyql.generators", "energyql.judges"
"""Groups of entry points. Those of judges label pictures too: a labeller is a judge."""
_OBJECT = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_WRITTEN = re.compile(r"[\w.-]{1,100}(:[\w.]{1,100})?")
"""What may be a name in a model folder: nothing that a shell or a terminal could take for more."""
_NOT_OWN = (str(Path(__file__).parent), *(sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")))
"""Folders of code that nobody named: this package and libraries."""
_FRAMES = 3
"""Most places of somebody's code that a message shows."""
_named: dict[str, str] = {}
"""The names that were looked up, and the top-level module of each."""
_helpers: set[str] = set()
"""The top-level modules in the working directory that these imported."""


def import_optional(module: str, need: str, hint: str) -> Any:
    """Import a library that is no requirement of this one.

    Args:
        module: its name in Python.
        need: what needs which library, such as "a table needs pandas".
        hint: the command that installs it.

    Raises:
        ArgumentError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise ArgumentError(f"{need}, which is not installed", hint=hint) from None


def is_plugin(name: str, group: str) -> bool:
    """Whether a text is of the form `module:object`, or the name of an installed plugin; nothing is imported."""
    return bool(_OBJECT.fullmatch(name) or entry_points(group=group, name=name))


def load_plugin(name: str, group: str) -> Any:
    """Import the object called `module:object`, or the plugin of that name; the working directory is searched as well.

    Args:
        name: what a user wrote, or allowed.
        group: `GENERATORS` or `JUDGES`.

    Raises:
        ArgumentError: there is no such module, object or plugin, or two packages offer different ones.
    """
    return _imported(name) if ":" in name else _installed(name, group)


def blame(error: BaseException) -> EnergyQLError | None:
    """Return what to tell of an exception that code looked up by name raised; `None` if it comes from elsewhere."""
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
    """Whether a frame is of a module that was looked up, or that such a one imported."""
    return _module(frame) in {*_named.values(), *_helpers} - {"energyql", "__main__"}


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def make_plugin(factory: Callable[[], Any], name: str) -> Any:
    """Return what a factory makes, a class or a function.

    Raises:
        ArgumentError: it needs arguments.
    """
    if wrong := misfit(factory):
        hint = "name a function or a class that needs no arguments"
        raise ArgumentError(f"{name} cannot be called without arguments: {wrong}", hint=hint)
    return factory()


def check_allowed(name: object, kind: str, place: object, allowed: bool) -> str:
    """Return the name of a generator, judge or reader that a model folder gives, where it may be followed.

    Args:
        name: as the folder has it.
        kind: "generator", "judge" or "reader", which is also the name of the argument.
        place: the folder, for messages.
        allowed: whether the user allows the names of the folder.

    Raises:
        ModelError: it may not, or it is no name.
    """
    if not isinstance(name, str) or not _WRITTEN.fullmatch(name):
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
        found: Any = importlib.import_module(module)
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
        if not hasattr(found, part):
            near = closest(part, dir(found))
            place = getattr(sys.modules[module], "__file__", module)
            hint = f"did you mean {near}?" if near else f"the module is {place}"
            raise ArgumentError(f"module {module!r} has no {attribute!r}", hint=hint)
        found = getattr(found, part)
    return found


def _installed(name: str, group: str) -> Any:
    points = {point.value: point for point in entry_points(group=group) if point.name == name}
    kind = group.rpartition(".")[2]
    if len(points) > 1:
        hint = f"name one as {' or '.join(sorted(points))}"
        raise ArgumentError(f"{name!r} is the name of several {kind}", hint=hint)
    if not points:
        names = sorted({point.name for point in entry_points(group=group)})
        known = f"installed {kind}: {', '.join(names)}; or name" if names else "name"
        raise ArgumentError(
            f"no installed package has {name!r} among its {kind}", hint=f"{known} code of your own as module:function"
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
