"""Measurements of edits with several steps: whether each step has its effect, what else changes, and how much."""

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
"""Number of pictures whose features are computed together."""
FILMSTRIP_ROWS = 6
"""Largest number of pictures in the filmstrip of `measure_sequence`."""


def identity_distance(before: Tensor, after: Tensor) -> Tensor:
    """Return for each picture one minus the cosine between its features before and after an edit, (n,), in [0, 2].

    With features of a face recogniser (ArcFace: Deng et al. 2019, arXiv 1801.07698) this distance is the measure ID of
    Nie et al. 2021 (arXiv 2110.10873). With features of an attribute judge, the distance also grows with the change
    that the query demands. Then only edits with the same queries can be compared.

    Args:
        before: features of the pictures before the edit, (n, dim).
        after: features of the same pictures after the edit, (n, dim).
    """
    return 1 - F.cosine_similarity(before.double(), after.double(), dim=1)


def edit_strength(before: Truths, after: Truths, leaked: Mapping[str, Truths]) -> dict[str, Any]:
    """Return the effect and the largest side effect of one edit of n pictures.

    The measures follow the disentangled edit strength (DES) of Nie et al. 2021 (arXiv 2110.10873): the change of the
    attribute in the query, minus the largest change of any other attribute. Here an attribute has changed if the value
    that an independent judge decides on has changed. So the measures exist for every kind of attribute and every query.
    The program of Nie et al. does not contain the code of their formula, so these numbers cannot be compared with
    theirs.

    Args:
        before: whether each picture satisfied the query before the edit, (n,).
        after: whether each picture satisfies the query after the edit, (n,).
        leaked: attribute that the query does not name -> whether it changed although the query does not make the change
            necessary, (n,).

    Returns:
        - `strength`: share of pictures that satisfy the query after the edit, minus the share before;
        - `leaking`: name of the attribute in `leaked` that changed in most pictures; "" if none changed;
        - `leak`: share of pictures in which the attribute `leaking` changed; 0 if none changed;
        - `disentangled`: `strength - leak`, at most 1; below 0 the edit did more harm than good.
    """
    shares = {name: float(rows.mean()) for name, rows in leaked.items()}
    worst = max(shares, key=lambda name: shares[name], default="")
    leak, strength = shares.get(worst, 0.0), float(after.mean()) - float(before.mean())
    return {"strength": strength, "leak": leak, "leaking": worst if leak else "", "disentangled": strength - leak}


def measure_sequence(
    model: EvaluatedModel, steps: Sequence[Expr], preset: str, n: int, seed: int, folder: Path, report: Report
) -> dict[str, Any]:
    """Edit n pictures step by step with a preset, and measure every step.

    The pictures before the first step are the first n samples of the prior for a seed.

    Args:
        model: the model with its judge.
        steps: the query of each step.
        preset: name of the preset, which has the weights and the solver of the edit.
        n: number of pictures.
        seed: seed of the pictures that are edited.
        folder: where a filmstrip of the first pictures is written.
        report: called with the stages of `energyql.edit`, such as "editing".

    Returns:
        `preset`, the name; `steps`, for each step the result of `measure_step`; `seconds`, the time of all steps
        together, without drawing; and `filmstrip`, the name of the filmstrip's file in `folder`.
    """
    result = edit(
        seed, list(steps), model=model.model, n=n, preset=preset, device=str(model.device), progress=report,
        truncation=model.truncation, condition=model.condition, allow_weak=tuple(model.vocabulary),
    )  # fmt: skip
    name = f"filmstrip-{preset}.png"
    write_picture(folder / name, result.filmstrip(range(min(n, FILMSTRIP_ROWS))))
    measured = [measure_step(result, k, step, model) for k, step in enumerate(steps)]
    seconds = sum(step.statistics["seconds_sampling"] for step in result.steps)
    return {"preset": preset, "steps": measured, "seconds": seconds, "filmstrip": name}


def measure_step(sequence: Edit, k: int, step: Expr, model: EvaluatedModel) -> dict[str, Any]:
    """Return measurements of one step of an edit.

    Args:
        sequence: the edit.
        k: number of the step, counted from 0.
        step: the query of the step.
        model: the model with its judge.

    Returns:
        - `query`: the query as text;
        - `satisfied`: share of pictures that satisfy the query, by the judge;
        - `all`: share of pictures that satisfy the queries of this step and all earlier steps, except queries that a
          later query makes impossible;
        - `accuracy`: for each condition of the query the share of pictures that satisfy it (see
          `conditional_accuracy`); `None` if the query is no conjunction of conditions;
        - `identity`: mean `identity_distance` from the pictures before the first step; `None` without features;
        - `leak_rate`: share of changes among all pairs of a picture and an attribute that is not in the query and need
          not change in this picture;
        - `strength`, `leak`, `leaking`, `disentangled`: the measurements of `edit_strength`, from the pictures before
          this step to the pictures after it.
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
    """Return the features of n PIL pictures in RGB, (n, dim) float32 on the CPU."""
    pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
    return torch.cat([features.read(part.float() / 127.5 - 1) for part in pixels.split(PICTURES_AT_ONCE)])
