"""Labels for tiny generators, in the forms that people have them."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path

import numpy as np
import torch

from energyql.generators.base import Generator
from energyql.sampling import prior_latents

CHECKPOINTS = Path(__file__).parent / "generators" / "checkpoints" / "data"
COLUMNS = [
    "width", "height", "smile", "pitch", "roll", "yaw", "gender", "age", "beard", "glasses", "bald", "haircolor",
    *(f"light{i}" for i in range(9)),
]  # fmt: skip


def latents_of(generator: Generator, count: int, truncation: float = 1.0, seed: int = 7) -> torch.Tensor:
    """w of prior samples."""
    with torch.no_grad():
        return generator.encode(prior_latents(seed, 0, count, generator.z_dim), truncation)


def answers(w: torch.Tensor) -> dict[str, np.ndarray]:
    """What w shows: `glasses`, a rare `beard`, `age` in 0 to 1 and one of five `haircolor`."""
    x = (w - w.mean(0)) / w.std(0)
    return {
        "glasses": (x[:, 0] + 0.3 * x[:, 1] > 0.2).long().numpy(),
        "beard": (x[:, 1] > 1.2).long().numpy(),
        "age": torch.sigmoid(x[:, 2] + 0.3 * x[:, 3]).numpy(),
        "haircolor": x[:, :5].argmax(1).numpy(),
    }


def write_csv(path: Path, columns: dict[str, list]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def write_styleflow(folder: Path, w: torch.Tensor, *, protocol: int = 4, numpy_cells: bool = False) -> Path:
    """Two pickles of StyleFlow's form, with every tenth label missing; columns that nothing is known of are noise."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    found = answers(w)
    table = np.empty((len(w), len(COLUMNS)), dtype=object)
    for j, name in enumerate(COLUMNS):
        values = found.get(name, random.random(len(w)) if name not in ("smile", "gender") else np.arange(len(w)) % 2)
        for i, value in enumerate(values):
            table[i, j] = None if (i + j) % 10 == 0 else value if numpy_cells else value.item()
    latents = w.numpy()[:, None, None, :].repeat(6, axis=2)
    (folder / "all_latents.pickle").write_bytes(pickle.dumps({"Latent": latents}, protocol=protocol))
    (folder / "att_light.pickle").write_bytes(pickle.dumps({"att_light": [table]}, protocol=protocol))
    return folder
