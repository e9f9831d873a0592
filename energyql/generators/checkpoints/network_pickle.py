"""Networks in the pickles of the official StyleGAN2-ADA and StyleGAN3 code, as names and tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class NetworkRecord:
    """One network of an official pickle.

    Attributes:
        class_name: name of its class, "Generator" for StyleGAN2 and StyleGAN3 alike; tell them apart by `tensors`.
        init_kwargs: what it was built with: numbers, strings, lists and dicts, NumPy scalars turned into Python ones.
        tensors: parameters and buffers by the names of a state dict, such as "synthesis.b4.const", as stored.
        source: the file, for messages.
    """

    class_name: str
    init_kwargs: dict[str, Any]
    tensors: dict[str, Tensor]
    source: Path


def read_network_pickle(path: Path, network: str = "G_ema") -> NetworkRecord:
    """Read one network of an official StyleGAN2-ADA or StyleGAN3 pickle, without running anything in it.

    Args:
        path: the `.pkl` file.
        network: which one; "G_ema" is the generator to draw with.

    Raises:
        ModelError: the file is missing, damaged, holds a class that is not allowed, or is another format.
    """
    raise NotImplementedError
