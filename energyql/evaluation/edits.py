"""Sequential edits, measured step by step: strength, leaks, identity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from energyql.editing.edit import Edit, edit
from energyql.evaluation.judged import EvaluatedModel, Truths
from energyql.evaluation.metrics import Features, conditional_accuracy
from energyql.files import write_picture
from energyql.language import Expr, bind
from energyql.progress import Report

PICTURES_AT_ONCE = 32
"""Pictures whose features are computed together."""
SHOWN = 6
"""Rows of a filmstrip."""


def identity_distance(before: Tensor, after: Tensor) -> Tensor:
    """Return one minus the cosine of features of the picture before and after, (n,), in [0, 2].

    Features of the same pictures are given, (n, dim) each. With those of a face recogniser (ArcFace: Deng et al. 2019,
    arXiv 1801.07698) this is the ID of Nie et al. 2021 (arXiv 2110.10873). With those of an attribute judge it also
    grows by the change that the query asked for; so compare it between edits of the same queries only.
    """
    return 1 - F.cosine_similarity(before.double(), after.double(), dim=1)


def edit_strength(before: Truths, after: Truths, leaked: Mapping[str, Truths]) -> dict[str, Any]:
    """Measure effect and side effect of one edit of n pictures.

    After the disentangled edit strength (DES) of Nie et al. 2021 (arXiv 2110.10873): the change of the attribute that
    was asked for, minus the largest change of any other one. Here a change is one of the decided values of an
    independent judge, which is defined for every kind of attribute and every query. The published program does not
    contain the code of their formula; numbers are not to be compared with theirs.

    Args:
        before: whether the pictures satisfied the query before the edit, (n,).
        after: the same after it, (n,).
        leaked: attribute that was not asked for -> whether it changed without need, (n,).

    Returns:
        - `strength`: share of pictures that satisfy the query after the edit, minus the share before;
        - `leak`: the largest share of pictures in which one attribute changed that was not asked for, and `leaking`,
          that attribute; empty if there is none;
        - `disentangled`: `strength - leak`, at most 1; below 0 the edit did more harm than good.
    """
    shares = {name: float(rows.mean()) for name, rows in leaked.items()}
    worst = max(shares, key=lambda name: shares[name], default="")
    leak, strength = shares.get(worst, 0.0), float(after.mean()) - float(before.mean())
    return {"strength": strength, "leak": leak, "leaking": worst if leak else "", "disentangled": strength - leak}


def measure_sequence(
    model: EvaluatedModel, steps: Sequence[Expr], preset: str, n: int, seed: int, folder: Path, report: Report
) -> dict[str, Any]:
    """Edit the samples 0 … n - 1 of a seed with a preset, and measure every step, one query each.

    The filmstrip is written to the folder. `report` is called with the stages of `energyql.edit`.

    Returns:
        `steps`, see `measure_step`; `seconds` of editing all of them, without drawing; and the name of the `filmstrip`.
    """
    done = edit(
        seed, list(steps), model=model.model, n=n, preset=preset, device=str(model.device), progress=report,
        truncation=model.truncation, label=model.label, allow_weak=tuple(model.vocabulary),
    )  # fmt: skip
    name = f"filmstrip-{preset}.png"
    write_picture(folder / name, done.filmstrip(range(min(n, SHOWN))))
    return {
        "preset": preset,
        "steps": [measure_step(done, k, step, model) for k, step in enumerate(steps)],
        "seconds": sum(result.statistics["seconds_sampling"] for result in done.steps),
        "filmstrip": name,
    }


def measure_step(done: Edit, k: int, step: Expr, model: EvaluatedModel) -> dict[str, Any]:
    """Measure the k-th step of an edit.

    Returns:
        - `satisfied`: share of pictures that satisfy the query of the step, by the judge; `all`: the queries of all
          steps so far that are not superseded; `accuracy`: see `conditional_accuracy`;
        - `identity`: mean identity distance to the picture before the first step, `None` without features;
        - `leak_rate`: of all attributes that were not asked for, in all pictures, the share that changed without need;
        - `strength`, `leak`, `leaking`, `disentangled`: see `edit_strength`.
    """
    before, after = (done.start if k == 0 else done.steps[k - 1]), done.steps[k]
    bound = bind(step, model.vocabulary)
    holds = model.satisfied(bound, after.judged)
    assert after.satisfied is not None  # the judge of an evaluated model reads every attribute
    identity = None
    if model.features is not None:
        ends = (_features(model.features, result.images) for result in (done.start, after))
        identity = float(identity_distance(*ends).mean())
    return {
        "query": str(step),
        "satisfied": float(holds.mean()),
        "all": float(after.satisfied.mean()),
        "accuracy": conditional_accuracy(bound, after.judged, model.vocabulary),
        "identity": identity,
        "leak_rate": done.leaks[k].rate,
        **edit_strength(model.satisfied(bound, before.judged), holds, done.leaks[k].leaked),
    }


def _features(features: Features, pictures: list[Image.Image]) -> Tensor:
    """Return the features of finished pictures, read as images in [-1, 1], (n, dim)."""
    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
    return torch.cat([features.read(part.float() / 127.5 - 1) for part in pixels.split(PICTURES_AT_ONCE)])
