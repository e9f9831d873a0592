"""What dill writes besides plain pickles: arrays in one call, and functions with their code, which is never run.

Snapshots of StyleGAN-XL need it: the discriminator holds functions that were defined inside others.
"""

from __future__ import annotations

from typing import Any

from energyql.generators.checkpoints.arrays import ArrayRecord
from energyql.generators.checkpoints.reading import CheckpointError, shown
from energyql.generators.checkpoints.records import Names, Record, Stub, uncallable

_MODULE = "dill._dill"


class Ignored(Record):
    """A function, its code, a variable that it uses, or a method. Nothing of it is kept."""

    def set_state(self, state: Any) -> None:
        """Ignore the state."""


def _ignored(*_: Any) -> Ignored:
    return Ignored()


def _array(maker: Any, _: Any, state: Any, attributes: Any = None) -> ArrayRecord:
    """Replace the function by which dill writes an array in one call."""
    if not isinstance(maker, Stub) or not maker.name.endswith("._reconstruct") or attributes is not None:
        raise CheckpointError("a NumPy array of dill is damaged, or has attributes of its own")
    array = ArrayRecord()
    array.set_state(state)
    return array


def _getattr(owner: Any, name: Any, *_: Any) -> Stub:
    """Replace `getattr`, with which dill finds its own function that fills a variable, and nothing else."""
    if not isinstance(owner, Stub) or owner.name != _MODULE or name != "_setattr":
        raise CheckpointError("it names builtins.getattr, which no supported checkpoint needs")
    return Stub(f"{_MODULE}._setattr", _ignored)


def _load_type(name: Any) -> Stub:
    """Replace the function by which dill names types of Python, such as that of bound methods."""
    return Stub(f"a type of dill, {shown(name)}", _ignored)


DILL_NAMES: Names = {
    (_MODULE, "_create_array"): _array,
    (_MODULE, "_load_type"): _load_type,
    **{(_MODULE, name): _ignored for name in ("_create_function", "_create_code", "_create_cell")},
    ("dill", "_dill"): uncallable(_MODULE),
    **{(module, "getattr"): _getattr for module in ("builtins", "__builtin__")},
    **{(module, "setattr"): uncallable("builtins.setattr") for module in ("builtins", "__builtin__")},
}
