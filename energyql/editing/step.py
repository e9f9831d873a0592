"""One step of an edit: what it may change, what it costs, and where it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from energyql.attributes.outputs import decide
from energyql.editing.implied import Company, Values
from energyql.editing.insisting import insist
from energyql.editing.latents import Latents, LatentSpace, Synthesis
from energyql.editing.leaks import Rows
from energyql.editing.presets import Preset
from energyql.editing.terms import (
    Asked,
    EditEnergy,
    Embed,
    KeepIdentity,
    KeepLogits,
    KeepPredictions,
    Near,
    Term,
    flat_features,
)
from energyql.energy.query_energy import QueryEnergy
from energyql.numerics.pullback import Identity
from energyql.pipeline.prepared import PreparedQuery
from energyql.sampling import Progress, SampleResult

PICTURES = 16
"""Pictures that an identity term draws together before an edit."""


@dataclass(frozen=True, eq=False)
class Step:
    """What one step asks.

    Args:
        newest: the query of this step.
        energies: what is made true for it: the query, with what follows from it; then the earlier ones that still hold.
        kept: attributes to keep.
        company: what goes with the newest query.
        layers: mask of the layers of W+ that may change; `None` for all.
        identity: embedding module, or `None`.
    """

    newest: PreparedQuery
    energies: Sequence[PreparedQuery]
    kept: tuple[str, ...]
    company: Company
    layers: Tensor | None = None
    identity: Embed | None = None

    def implied(self, values: Values) -> dict[str, Rows]:
        """Attribute -> in which samples with these values the query makes the value impossible."""
        asked = self.newest.rule.attributes
        return {name: self.company.excludes(name, values[name]) for name in values if name not in asked}


def take(
    step: Step, before: Latents, space: LatentSpace, preset: Preset, progress: Progress | None = None
) -> tuple[Latents, SampleResult]:
    """Edit: the new latents, and the run that led to them.

    Args:
        step: what is asked.
        before: where the samples are.
        space: the model's latents.
        preset: how much everything counts.
        progress: see `Progress`.
    """
    with torch.no_grad():
        w = space.w(before)
    synthesis = Synthesis(before, w, step.layers)
    asked, held = _asked(step, space, preset), _held(step, before, w, space, preset, synthesis)
    start = space.scaled(before.z)

    def weighted(factor: float) -> EditEnergy:
        terms = [Asked(energy, factor * preset.strength * weight) for energy, weight in asked]
        return EditEnergy(space, before, [*terms, *held])

    def cost(z: Tensor, rows: Tensor) -> Tensor:
        latent = space.read_by_heads(Latents(z, before[rows].offset))
        return torch.stack([energy(latent) for energy, _ in asked]).sum(0)

    if preset.solver is None:
        ended = insist(
            weighted, cost, start, enough=preset.enough, max_evaluations=preset.max_evaluations, progress=progress
        )
    else:
        ended = preset.solver.sample(weighted(1.0), start, progress=progress)
    z, offset = space.scaled(ended.z), before.offset
    if step.layers is not None:
        with torch.no_grad():
            mapped = space.encode(z)
            offset = synthesis(mapped, torch.arange(len(mapped), device=mapped.device)) - mapped[:, None]
    return Latents(z, offset), ended


def _asked(step: Step, space: LatentSpace, preset: Preset) -> list[tuple[QueryEnergy, float]]:
    """The energies of what is asked, as functions of what the heads read, and the weight of each."""
    continuous = any(space.model.vocabulary[name].kind == "continuous" for name in step.newest.rule.attributes)
    newest = preset.newest_continuous if continuous else preset.newest
    weights = [newest, *[preset.earlier] * (len(step.energies) - 1)]
    return [
        (QueryEnergy(query.rule, Identity(), space.model.bank), weight)
        for query, weight in zip(step.energies, weights, strict=True)
        if weight
    ]


def _held(
    step: Step, before: Latents, w: Tensor, space: LatentSpace, preset: Preset, synthesis: Synthesis
) -> list[Term]:
    """What keeps the rest as it is."""
    bank, terms = space.model.bank, list[Term]()
    if preset.near_z:
        terms.append(Near("z", space.scaled(before.z), preset.near_z))
    if preset.near_w:
        with torch.no_grad():
            terms.append(Near("w", space.encode(before.z), preset.near_w))
    if preset.keep_predictions or preset.keep_logits:
        raw = bank.raw_outputs(space.names)
        with torch.no_grad():
            outputs = raw.function(space.read_by_heads(before)).contiguous()
        kept = _kept(step, before, space, preset.release_implied).to(outputs)
        if preset.keep_predictions:
            terms.append(KeepPredictions(raw, outputs, preset.keep_predictions * kept))
        if preset.keep_logits:
            terms.append(KeepLogits(raw, outputs, preset.keep_logits * kept))
    if step.identity is not None:
        terms.append(_identity(step.identity, w, space, preset.identity, synthesis))
    return terms


def _kept(step: Step, before: Latents, space: LatentSpace, release: bool) -> Tensor:
    """Which attributes of which samples are kept, (n, attributes)."""
    decided = decide(space.predict(before))
    implied = step.implied(decided) if release else {}
    asked = step.newest.rule.attributes
    columns = [
        np.full(len(before), name in step.kept and name not in asked) & ~implied.get(name, np.zeros(len(before), bool))
        for name in space.names
    ]
    return torch.from_numpy(np.stack(columns, 1))


def _identity(embed: Embed, w: Tensor, space: LatentSpace, weight: float, synthesis: Synthesis) -> Term:
    synthesize = space.model.generator.synthesize
    if isinstance(embed, torch.nn.Module):
        embed.eval().to(w.device)
    with torch.no_grad():
        before = torch.cat([flat_features(embed, synthesize(part)) for part in w.split(PICTURES)])
    return KeepIdentity(embed, synthesize, synthesis, before, weight)
