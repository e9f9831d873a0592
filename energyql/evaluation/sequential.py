"""Sequential editing, measured step by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from energyql.editing.edit import Edit, edit
from energyql.evaluation.accuracy import conditional_accuracy
from energyql.evaluation.edits import as_images, edit_strength, identity_distance
from energyql.evaluation.features import Features
from energyql.evaluation.subject import Subject
from energyql.files import write_picture
from energyql.language import Expr, bind
from energyql.logic.truth import satisfied
from energyql.progress import Report

AT_ONCE = 32
"""Pictures whose features are read together."""
SHOWN = 6


def run_sequence(
    subject: Subject, steps: Sequence[Expr], preset: str, n: int, seed: int, folder: Path, report: Report
) -> dict[str, Any]:
    """Edit n pictures of the prior and measure every step.

    Args:
        subject: the model.
        steps: one query each.
        preset: a name out of `energyql.editing.settings.PRESETS`.
        n: pictures: the samples 0 … n - 1 of the seed.
        seed: of the pictures.
        folder: for the filmstrip, `filmstrip-PRESET.png`.
        report: called with the stages of `energyql.edit`.

    Returns:
        `steps`, see `measure_step`; `seconds` of editing all of them, without drawing; and the name of the `filmstrip`.
    """
    done = edit(
        seed, list(steps), model=subject.model, n=n, preset=preset, device=str(subject.device), progress=report,
        **subject.settings,
    )  # fmt: skip
    name = f"filmstrip-{preset}.png"
    write_picture(folder / name, done.filmstrip(range(min(n, SHOWN))))
    return {
        "preset": preset,
        "steps": [measure_step(done, k, step, subject) for k, step in enumerate(steps)],
        "seconds": sum(result.statistics["seconds_sampling"] for result in done.steps),
        "filmstrip": name,
    }


def measure_step(done: Edit, k: int, step: Expr, subject: Subject) -> dict[str, Any]:
    """What the k-th step of an edit did.

    Returns:
        - `satisfied`: share of pictures that satisfy the query of the step, by the judge; `all`: the queries of all
          steps so far that are not superseded; `accuracy`: see `conditional_accuracy`;
        - `identity`: mean identity distance to the picture before the first step, `None` without features;
        - `leak_rate`: of all attributes that were not asked for, in all pictures, the share that changed without need;
        - `strength`, `leak`, `leaking`, `disentangled`: see `edit_strength`.
    """
    before, after = (done.start if k == 0 else done.steps[k - 1]), done.steps[k]
    bound = bind(step, subject.vocabulary)
    held, holds = (
        np.broadcast_to(satisfied(bound, result.judged, subject.vocabulary), (len(done),)) for result in (before, after)
    )
    strength = edit_strength(held, holds, done.leaks[k].leaked)
    return {
        "query": str(step),
        "satisfied": float(holds.mean()),
        "all": float(after.satisfied.mean()),
        "accuracy": conditional_accuracy(bound, after.judged, subject.vocabulary),
        "identity": _identity(subject.features, done.start.images, after.images),
        "leak_rate": done.leaks[k].rate,
        "strength": strength.strength,
        "leak": strength.leak,
        "leaking": strength.leaking,
        "disentangled": strength.disentangled,
    }


def _identity(features: Features | None, before: list[Image.Image], after: list[Image.Image]) -> float | None:
    if features is None:
        return None
    return float(identity_distance(_read(features, before), _read(features, after)).mean())


def _read(features: Features, pictures: list[Image.Image]) -> Tensor:
    parts = [pictures[i : i + AT_ONCE] for i in range(0, len(pictures), AT_ONCE)]
    return torch.cat([features.read(as_images([np.asarray(picture) for picture in part])) for part in parts])
