"""A small result of every kind of column, for the tests of results."""

import numpy as np
import torch
from PIL import Image

from energyql.pipeline.result import Result
from energyql.sampling import Status
from energyql.vocabulary import ByAttribute

QUERY = "größe AND 😀 OR smile"


def make(n=3, energy=None, semantics="exact", **changes):
    energy = np.array([0.0, 0.5, np.inf][:n] if energy is None else energy)
    fields = {
        "images": [Image.new("RGB", (16, 16), (i * 60, 0, 0)) for i in range(n)],
        "z": torch.arange(8.0 * n).reshape(n, 8),
        "w": torch.arange(16.0 * n).reshape(n, 16),
        "index": np.arange(n),
        "energy": energy,
        "probabilities": ByAttribute(
            smile=np.arange(n) / 10,
            hair={"red": np.arange(n) / 10, "black": np.ones(n)},
            age=(np.arange(n) / 10, np.full(n, 0.1)),
        ),
        "judged": ByAttribute(smile=np.array([True, False, True][:n]), hair=np.array(["red"] * n), age=np.full(n, 0.5)),
        "satisfied": np.array([True, False, True][:n]),
        "doubtful": np.zeros(n, bool),
        "status": [Status.OK, Status.STEP_LIMIT, Status.OK][:n],
        "statistics": {"evaluations_mean": 3.0},
        "provenance": {"query": QUERY, "seed": 7, "model": "tiny", "semantics": semantics, "judge": "image judge"},
    }
    if "satisfied" in changes:  # not judged
        heads = {"smile": "balanced accuracy 0.9", "hat": None}
        fields["provenance"] |= {"judge": None, "unjudged": "the model has no judge", "heads": heads}
    return Result(**(fields | changes))
