"""Stopping a network between two of its layers, because a large one draws a single picture for longer than a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


@contextmanager
def interruptible(network: object, check: Callable[[], None]) -> Iterator[None]:
    """Call `check` before every layer of a network while the context lasts; what it raises ends the computation.

    Args:
        network: a torch module; anything else has no layers to stop at.
        check: called without arguments.
    """
    modules = list(network.modules()) if isinstance(network, torch.nn.Module) else []
    handles = [module.register_forward_pre_hook(lambda module, arguments: check()) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
