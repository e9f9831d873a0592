"""The rivals of `benchmarks.rivals`: how each samples a query and edits pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.flow import ConditionalFlow, FlowSettings, train_flow
from energyql.editing.edit import edit
from energyql.errors import ModelError
from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.evaluation.methods import read_methods
from energyql.generators.base import draw_batches
from energyql.language import Expr
from energyql.pipeline.model import Values
from energyql.progress import Report
from energyql.sampling import normals, prior_latents
from energyql.training.directions import find_directions

SAMPLERS = {
    "default": "slice+descent",
    "paper": "paper",
    "latent JEM": "jem:published-langevin",
    "products of experts": "product:slice+descent",
}
"""Rivals that sample an energy, as methods of `energyql bench`."""
PRESETS = {
    "default": ("default", "exact"),
    "paper": ("lace", "lace"),
    "latent JEM": ("lace", "jem"),
    "products of experts": ("default", "product"),
}
"""Rivals that edit by an energy: the preset and the semantics of `energyql.edit`."""
FLOWS = {
    "StyleFlow": FlowSettings(batch=20, steps=1_500),  # four times fewer and larger batches than published
    "StyleFlow, our training": FlowSettings(
        hidden=256, layers=3, pairs=20_000, batch=256, steps=1_000, rate=2e-3, tolerance=1e-3, ours=True
    ),
}
"""Rivals that a flow on w samples and edits, and their settings."""
DIRECTIONS, MOVES = "InterFaceGAN", "InterFaceGAN, our move"
"""Rivals that only edit. The second moves w as the prior does, and not along the normal of the boundary."""
STEP = 3.0
"""Standard deviations of its value by which an edit moves w along a direction: InterFaceGAN shows 3."""
PARTS = 10
"""Most parts of a training whose mean losses are told: they show whether it still gains."""
SEARCHED = 1 << 18
"""Most latents of the prior that are read by the heads for exact samples of a query."""
EDITS = ("smile", "glasses", "hat", "NOT long_hair", "beard")
"""Of yes/no attributes, which a flow and a direction know; chosen before any was measured."""


@dataclass(frozen=True, eq=False)
class Rivals:
    """The evaluated model, and what rivals learned of it.

    Attributes:
        model: with its judge.
        names: yes/no attributes, of which the flows know.
        flows: by name, trained on pairs of w and signs of the attributes by the heads; see `learn`.
        signs: those of the pairs, (pairs, names).
    """

    model: EvaluatedModel
    names: tuple[str, ...]
    flows: Mapping[str, ConditionalFlow]
    signs: Tensor

    @classmethod
    def of(cls, model: EvaluatedModel) -> Rivals:
        """Return the rivals without flows."""
        names = tuple(name for name, spec in model.vocabulary.items() if spec.kind == "yes/no")
        return cls(model, names, {}, torch.zeros(0, len(names)))

    def judge(self, w: Tensor) -> JudgedSamples:
        """Draw and judge pictures of w."""
        parts = []
        with torch.no_grad():
            for rows, images in draw_batches(self.model.model.generator.synthesize, self.model.encode, w, w=w):
                features = None if self.model.features is None else self.model.features.read(images)
                parts.append(JudgedSamples(rows, rows, self.model.model.judge_images(images), features))
        return JudgedSamples.join(parts)


def _signs(values: Values, names: Sequence[str]) -> Tensor:
    """Return yes/no attributes as 1 and -1, (n, names)."""
    return torch.from_numpy(np.stack([values[name] for name in names], 1)).float() * 2 - 1


def learn(
    rivals: Rivals, settings: Mapping[str, FlowSettings], seed: int, folder: Path, report: Report
) -> tuple[Rivals, dict[str, dict[str, Any]]]:
    """Train the flows, or read them from the folder.

    Returns:
        The rivals with flows; and of each training `nats`, its mean losses in `PARTS`, and `seconds` of CPU.
    """
    model, count = rivals.model, max(each.pairs for each in settings.values())
    z = normals(seed, 0, count, model.z_dim, stream="rivals/pairs")
    with torch.no_grad():
        w, signs = model.encode(z), _signs(model.read_heads(z), rivals.names)
    flows, facts = {}, {}
    for name, each in settings.items():
        path = folder / f"{name}.safetensors"
        known = w[: each.pairs], signs[: each.pairs]
        flows[name], losses, seconds = train_flow(*known, each, seed, path, lambda done, name=name: report(name, done))
        parts = np.array_split(losses, min(PARTS, len(losses)))
        facts[name] = {"nats": [float(np.mean(part)) for part in parts], "seconds": seconds}
    return replace(rivals, flows=flows, signs=signs), facts


def exact(model: EvaluatedModel, query: Expr, count: int, seed: int) -> JudgedSamples:
    """Return pictures of at most `count` latents of the prior that satisfy a query by the heads, and by the judge.

    Raises:
        ModelError: heads never predict it.
    """
    found: list[Tensor] = []
    for start in range(0, SEARCHED, 8192):
        z = normals(seed, start, 8192, model.z_dim, stream="rivals/exact")
        found.append(z[torch.from_numpy(model.satisfied(query, model.read_heads(z)).copy())])
        if sum(map(len, found)) >= count:
            break
    latents = torch.cat(found)[:count]
    if not len(latents):
        raise ModelError(f"by the heads, none of {SEARCHED:,} latents satisfies {query}")
    samples = model.judge(latents)
    return samples.select(model.satisfied(query, samples.values).nonzero()[0])


def sample(rivals: Rivals, name: str, query: Expr, n: int, seed: int, report: Report) -> tuple[JudgedSamples, float]:
    """Draw n samples of a bound query by a rival.

    Returns:
        The samples, and CPU seconds without drawing.
    """
    model = rivals.model
    if name in rivals.flows:
        started = time.process_time()
        asked = {each: ((rivals.signs[:, i] > 0).numpy()) for i, each in enumerate(rivals.names)}
        rows = model.satisfied(query, asked).nonzero()[0]
        random = torch.Generator().manual_seed(seed)
        chosen = torch.from_numpy(rows)[torch.randint(len(rows), (n,), generator=random)]
        flow = rivals.flows[name]
        w = flow.to_w(torch.randn(n, len(flow.mean), generator=random), rivals.signs[chosen])
        seconds = time.process_time() - started
        return rivals.judge(w), seconds
    (method,) = read_methods([SAMPLERS[name]])
    energy = method.energy(model, query)
    started = time.process_time()
    z = method.sample(energy, model, n, seed, report).z
    seconds = time.process_time() - started
    return model.judge(z), seconds


def edit_values(rivals: Rivals, name: str, n: int, seed: int, report: Report) -> list[Values]:
    """Edit n pictures of a seed by a rival, and return the judge's values of the start and after each step."""
    model = rivals.model
    if name in PRESETS:
        preset, semantics = PRESETS[name]
        done = edit(
            seed, list(EDITS), model=model.model, n=n, preset=preset, semantics=semantics, device=str(model.device),
            truncation=model.truncation, condition=model.condition, progress=report, allow_weak=tuple(model.vocabulary),
        )  # fmt: skip
        return [done.start.judged, *(result.judged for result in done.steps)]
    z = prior_latents(seed, 0, n, model.z_dim)  # as `edit` starts
    with torch.no_grad():
        w = model.encode(z)
    found, signs = [rivals.judge(w).values], _signs(model.read_heads(z), rivals.names)
    flow = rivals.flows.get(name)
    directions = None if flow is not None else find_directions(model.model, "interfacegan", len(model.vocabulary) * 99)
    for step in EDITS:
        asked, sign = step.removeprefix("NOT "), -1.0 if step.startswith("NOT ") else 1.0
        if directions is not None:
            number = directions.titles.index(asked)
            normal = directions.normal[number]
            w = w + sign * STEP * (directions.move[number] if name == MOVES else normal / normal.square().sum())
        elif flow is not None:
            noise = flow.to_noise(w, signs)
            signs = signs.clone()
            signs[:, rivals.names.index(asked)] = sign
            w = flow.to_w(noise, signs)
        found.append(rivals.judge(w).values)
    return found
