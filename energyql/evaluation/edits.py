"""Measurements of edits: whether each step has its effect, what else changes, and how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from energyql.editing.edit import Edit, edit
from energyql.evaluation.bench import Bench
from energyql.evaluation.judged import EvaluatedModel, Truths
from energyql.evaluation.metrics import Features, conditional_accuracy
from energyql.files import write_picture
from energyql.language import Expr, bind

PICTURES_AT_ONCE = 32
"""Number of pictures whose features are computed together."""
FILMSTRIP_ROWS = 6
"""Most pictures in the filmstrip of `measure_sequence`."""


def identity_distance(before: Tensor, after: Tensor) -> Tensor:
    """Distance of pictures before and after an edit, (n,), in [0, 2]: one minus the cosine of their features, (n, dim).

    With features of a face recogniser (ArcFace: Deng et al. 2019, arXiv 1801.07698) this is the measure ID of Nie et
    al. 2021 (arXiv 2110.10873). With features of an attribute judge, it also grows with the change that the query
    demands, so that only edits with the same queries can be compared.
    """
    return 1 - F.cosine_similarity(before.double(), after.double(), dim=1)


def edit_strength(before: Truths, after: Truths, leaked: Mapping[str, Truths]) -> dict[str, Any]:
    """Effect and largest side effect of one edit of n pictures, after the disentangled edit strength (DES).

    DES of Nie et al. 2021 (arXiv 2110.10873) is the change of the attribute in the query, minus the largest change of
    any other attribute. Here an attribute has changed if the value by an independent judge has, which suits every kind
    of attribute and query. Their program lacks the code of their formula, so the numbers cannot be compared with
    theirs.

    Args:
        before: whether each picture satisfied the query before the edit, (n,).
        after: the same after the edit, (n,).
        leaked: attribute that the query does not name -> whether it changed without need, (n,).

    Returns:
        `strength`, the rise of the share of pictures that satisfy the query; `leaking`, the attribute in `leaked` that
        changed in most pictures, or ""; `leak`, their share; and `disentangled`, which is `strength - leak`, at most 1,
        and below 0 if the edit did more harm than good.
    """
    shares = {name: float(rows.mean()) for name, rows in leaked.items()}
    worst = max(shares, key=lambda name: shares[name], default="")
    leak, strength = shares.get(worst, 0.0), float(after.mean()) - float(before.mean())
    return {"strength": strength, "leak": leak, "leaking": worst if leak else "", "disentangled": strength - leak}


def measure_sequence(bench: Bench, steps: Sequence[Expr], preset: str, n: int) -> dict[str, Any]:
    """Edit the first n samples of the prior step by step with a preset, and measure every step.

    Returns:
        `preset`, the name; `steps`, for each step the result of `measure_step`; `seconds` for all steps, without
        drawing; and `filmstrip`, the name of a file in `folder` with the first pictures.
    """
    model = bench.model
    result = edit(
        bench.counts.seed, list(steps), model=model.model, n=n, preset=preset, device=str(model.device),
        progress=bench.report,
        truncation=model.truncation, condition=model.condition, allow_weak=tuple(model.vocabulary),
    )  # fmt: skip
    name = f"filmstrip-{preset}.png"
    write_picture(bench.folder / name, result.filmstrip(range(min(n, FILMSTRIP_ROWS))))
    measured = [measure_step(result, k, step, model) for k, step in enumerate(steps)]
    seconds = sum(step.statistics["seconds_sampling"] for step in result.steps)
    return {"preset": preset, "steps": measured, "seconds": seconds, "filmstrip": name}


def measure_step(sequence: Edit, k: int, step: Expr, model: EvaluatedModel) -> dict[str, Any]:
    """Measurements of step `k`, from 0, of an edit, by the judge.

    Returns:
        The entries of `edit_strength` from before this step to after it; and

        - `query`: the query as text;
        - `satisfied`: share of pictures that satisfy the query;
        - `all`: share that satisfy this and all earlier queries, except queries that a later one makes impossible;
        - `accuracy`: `conditional_accuracy` of the pictures;
        - `identity`: mean `identity_distance` from the start; `None` without features;
        - `leak_rate`: share of changes among all pairs of a picture and an attribute that need not change in it.
    """
    before, after = (sequence.start if k == 0 else sequence.steps[k - 1]), sequence.steps[k]
    bound = bind(step, model.vocabulary)
    holds = model.satisfied(bound, after.judged)
    assert after.satisfied is not None  # the judge of an evaluated model reads every attribute
    identity = None
    if model.features is not None:
        ends = (_features(model.features, result.images) for result in (sequence.start, after))
        identity = float(identity_distance(*ends).mean())
    return {
        "query": str(step), "satisfied": float(holds.mean()), "all": float(after.satisfied.mean()),
        "accuracy": conditional_accuracy(bound, after.judged, model.vocabulary), "identity": identity,
        "leak_rate": sequence.leaks[k].rate,
        **edit_strength(model.satisfied(bound, before.judged), holds, sequence.leaks[k].leaked),
    }  # fmt: skip


def _features(features: Features, pictures: list[Image.Image]) -> Tensor:
    """Features of PIL pictures in RGB, (n, dim) float32 on the CPU."""
    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
    return torch.cat([features.read(part.float() / 127.5 - 1) for part in pixels.split(PICTURES_AT_ONCE)])
