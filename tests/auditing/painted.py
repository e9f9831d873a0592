"""Results whose pictures show their truth: red says that there is a smile, green that there are glasses."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from energyql import Result, generate
from energyql.vocabulary import ByAttribute

QUERY = "smile AND NOT glasses"


@cache
def _drawn(tiny: Path, count: int) -> Result:
    return generate(QUERY, count, model=tiny, progress=False)


def painted(tiny: Path, count: int = 40, *, accuracy: float = 0.8, prevalence: float = 0.7, seed: int = 0) -> Result:
    """A result of pictures with random truths, which the judge reads wrongly now and then."""
    rng = np.random.default_rng(seed)
    smile, glasses = rng.random(count) < prevalence, rng.random(count) >= prevalence
    read = {"smile": smile ^ (rng.random(count) >= accuracy), "glasses": glasses ^ (rng.random(count) >= accuracy)}
    # The blue value makes the bytes of each picture its own.
    colours = [
        (255 * bool(a), 255 * bool(b), number % 251) for number, (a, b) in enumerate(zip(smile, glasses, strict=True))
    ]
    images = [Image.new("RGB", (16, 16), colour) for colour in colours]
    satisfied = read["smile"] & ~read["glasses"]
    judged = ByAttribute({name: read.get(name, values) for name, values in _drawn(tiny, count).judged.items()})
    return replace(_drawn(tiny, count), images=images, judged=judged, satisfied=satisfied)


def look(images):
    """A labeller that sees the truth."""
    means = images.mean((2, 3))
    return {"smile": (means[:, 0] > 0).tolist(), "glasses": (means[:, 1] > 0).tolist()}


def truth(result: Result) -> np.ndarray:
    """Whether each picture satisfies the query."""
    corners = np.array([image.getpixel((0, 0)) for image in result.images])
    return (corners[:, 0] > 0) & (corners[:, 1] == 0)
