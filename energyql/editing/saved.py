"""Results that were saved to a folder, as the start of an edit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from energyql.errors import ArgumentError, ModelError
from energyql.files import read_json


@dataclass(frozen=True, eq=False)
class Saved:
    """What an edit needs of a `Result`.

    Attributes:
        z, w: latents, (n, z_dim) and (n, w_dim) or (n, num_ws, w_dim).
        index: number of each sample in its run, (n,).
        provenance: what replays the run.
    """

    z: Tensor
    w: Tensor
    index: npt.NDArray[np.int64]
    provenance: dict[str, Any]

    def __len__(self) -> int:
        return len(self.z)


def read_saved(folder: Path) -> Saved:
    """Read what `Result.save` wrote; of an edit that was saved, its last step.

    Raises:
        ArgumentError: the folder holds no result, or a damaged one.
    """
    if (folder / "edit.json").is_file():
        steps = [step for step in folder.iterdir() if step.name.isdecimal()]
        folder = max(steps, key=lambda step: int(step.name), default=folder)
    latents = folder / "latents.safetensors"
    if not latents.is_file():
        raise ArgumentError(f"the folder {folder} holds no result", hint="name one that generate or edit wrote")
    try:
        data, tensors = read_json(folder / "result.json"), load_file(latents)
        z, w = tensors["z"].float(), tensors["w"].float()
        index = np.array([sample["index"] for sample in data["samples"]], np.int64)
        provenance = dict(data["provenance"])
        fingerprints, *_ = (provenance[name] for name in ("fingerprints", "model", "truncation", "label"))
        if z.ndim != 2 or not len(z) == len(w) == len(index) or not z.isfinite().all() or not w.isfinite().all():
            raise ValueError("latents and samples do not belong together")
        if not isinstance(fingerprints, dict):
            raise TypeError("fingerprints are no object")
    except (KeyError, TypeError, ValueError, OverflowError, OSError, SafetensorError, ModelError) as error:
        raise ArgumentError(f"{folder} holds a damaged result: {error}") from error
    return Saved(z, w, index, provenance)
