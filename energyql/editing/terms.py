"""What an edit is made to cost: the query, and everything that should stay. All in nats, lower is better, one a sample.

Each term gives its value and its gradient by hand, with respect to z, to what z is mapped to (w), or to what the heads
read. Which of the two forms of keeping attributes is better was measured: docs/decisions/editing.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.fused import RawOutputs
from energyql.attributes.outputs import output_count
from energyql.editing.latents import Latents, LatentSpace, Synthesis, mean_offset
from energyql.energy.query_energy import QueryEnergy
from energyql.errors import ArgumentError
from energyql.numerics.normalization import inverse_norm, normalized_back
from energyql.numerics.pullback import by_autograd

Space = Literal["z", "w", "latent"]
Embed = Callable[[Tensor], Tensor]
"""Pictures in [-1, 1], (batch, channels, height, width), to features (batch, ...)."""


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """Latents of a batch: which samples they belong to (batch,), z, w as mapped from it, and what the heads read."""

    rows: Tensor
    z: Tensor
    w: Tensor | None
    latent: Tensor


class Term(Protocol):
    """One thing that counts; `of` is what its gradient is with respect to."""

    of: Space

    def __call__(self, point: Point, /) -> tuple[Tensor, Tensor]:
        """Values (batch,) and gradients."""
        ...


class Asked:
    """`weight * E_query`.

    Args:
        energy: of the query, as a function of what the heads read.
        weight: λ.
    """

    of: Space = "latent"

    def __init__(self, energy: QueryEnergy, weight: float) -> None:
        self.energy, self.weight = energy, weight

    def __call__(self, point: Point) -> tuple[Tensor, Tensor]:
        value, gradient = self.energy.gradient(point.latent)
        return self.weight * value, self.weight * gradient


class Near:
    """`weight * |x - x0|²`, of z or of w: the smallest change that serves, as a Gaussian around the start.

    Args:
        of: what is to stay near.
        start: to where, (n, ...); z as the space scales it.
        weight: of the term.
    """

    def __init__(self, of: Space, start: Tensor, weight: float) -> None:
        self.of, self.start, self.weight = of, start, weight

    def __call__(self, point: Point) -> tuple[Tensor, Tensor]:
        here = point.z if self.of == "z" else point.w
        assert here is not None
        away = here - self.start[point.rows]
        return self.weight * away.square().flatten(1).sum(1), 2 * self.weight * away


class KeepPredictions:
    """The Kullback-Leibler divergence of what the heads say from what they said, summed over the attributes kept.

    `Σ_a weight_a KL(P(a | z0) || P(a | z))`: what was certain stays certain, and what was in doubt stays so.

    Args:
        raw: the heads of all attributes.
        before: what they gave at the start, (n, outputs).
        weights: (n, attributes), 0 for an attribute that may change.
    """

    of: Space = "latent"

    def __init__(self, raw: RawOutputs, before: Tensor, weights: Tensor) -> None:
        self.heads, self.weights, self.before = raw.function, weights, before
        self.blocks = _blocks(raw, before)

    def __call__(self, point: Point) -> tuple[Tensor, Tensor]:
        outputs, back = self.heads.pullback(point.latent)
        before, weights = self.before[point.rows], self.weights[point.rows]
        gradient, value = torch.zeros_like(outputs), torch.zeros_like(outputs[:, 0])
        for kind, columns, which, std in self.blocks:
            now, then, weight = outputs[:, columns], before[:, columns], weights[:, which]
            if kind == "categorical":  # one attribute a block
                p, log_p, log_q = then.softmax(1), then.log_softmax(1), now.log_softmax(1)
                divergence, slope = (p * (log_p - log_q)).sum(1, keepdim=True), log_q.exp() - p
            elif kind == "yes/no":
                p = then.sigmoid()
                divergence = p * (F.softplus(-now) - F.softplus(-then)) + (1 - p) * (F.softplus(now) - F.softplus(then))
                slope = now.sigmoid() - p
            else:
                away = (now - then) / std
                divergence, slope = away.square() / 2, away / std
            value = value + (weight * divergence).sum(1)
            gradient[:, columns] = weight * slope
        return value, back(gradient)


class KeepLogits:
    """`Σ_a weight_a |logits_a - logits_a0|²`, the published form (Nie et al. 2021); of numbers, their means."""

    of: Space = "latent"

    def __init__(self, raw: RawOutputs, before: Tensor, weights: Tensor) -> None:
        self.heads, self.before = raw.function, before
        counts = torch.tensor([output_count(spec) for spec in raw.specs], device=before.device)
        self.weights = weights.repeat_interleave(counts, dim=1)

    def __call__(self, point: Point) -> tuple[Tensor, Tensor]:
        outputs, back = self.heads.pullback(point.latent)
        away, weights = outputs - self.before[point.rows], self.weights[point.rows]
        return (weights * away.square()).sum(1), back(2 * weights * away)


class KeepIdentity:
    """`weight * (1 - cos(embed(picture), embed(old picture)))`, by any torch module, differentiated by autograd.

    Args:
        embed: pictures to features.
        synthesize: w to pictures.
        synthesis: from what z is mapped to to w.
        before: features of the old pictures, (n, features).
        weight: of the term.
    """

    of: Space = "w"

    def __init__(
        self, embed: Embed, synthesize: Callable[[Tensor], Tensor], synthesis: Synthesis, before: Tensor, weight: float
    ) -> None:
        self.embed, self.synthesize, self.synthesis = embed, synthesize, synthesis
        self.before, self.weight = before, weight

    def __call__(self, point: Point) -> tuple[Tensor, Tensor]:
        def distance(w: Tensor) -> Tensor:
            features = flat_features(self.embed, self.synthesize(self.synthesis(w, point.rows)))
            return self.weight * (1 - F.cosine_similarity(features, self.before[point.rows].clone(), dim=1))

        assert point.w is not None
        value, back = by_autograd(distance, point.w)
        return value, back(torch.ones_like(value))


class EditEnergy:
    """The sum of terms as a function of z and of which samples its rows are: an `Energy`.

    Where the length of z is free, the terms see z scaled to one length.

    Args:
        space: the model's latents.
        before: where the samples start.
        terms: what counts, at least one.
    """

    def __init__(self, space: LatentSpace, before: Latents, terms: list[Term]) -> None:
        self.space, self.terms = space, terms
        self.shift = mean_offset(before.offset)
        self.needs_w = space.heads_read_w or any(term.of == "w" for term in terms)

    def __call__(self, z: Tensor, rows: Tensor) -> Tensor:
        """Return the values alone, (batch,)."""
        return self.gradient(z, rows)[0]

    def gradient(self, z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return values (batch,) and gradients (batch, z_dim)."""
        if not self.space.length_is_free:
            return self._at(z, rows)
        scale = inverse_norm(z)
        scaled = z * scale
        value, gradient = self._at(scaled, rows)
        return value, normalized_back(gradient, scaled, scale)

    def _at(self, z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        w, back = self.space.pullback(z) if self.needs_w else (None, None)
        latent = z
        if self.space.heads_read_w and w is not None:
            latent = w if self.shift is None else w + self.shift[rows]
        point = Point(rows, z, w, latent)
        value, of_z = torch.zeros_like(z[:, 0]), torch.zeros_like(z)
        of_w = None if w is None else torch.zeros_like(w)
        for term in self.terms:
            part, gradient = term(point)
            value = value + part
            if of_w is not None and (term.of == "w" or (term.of == "latent" and self.space.heads_read_w)):
                of_w += gradient
            else:
                of_z += gradient
        return value, of_z if of_w is None or back is None else of_z + back(of_w)


def flat_features(embed: Embed, images: Tensor) -> Tensor:
    """What an embedding module makes of pictures, (batch, features).

    Raises:
        ArgumentError: it makes something else.
    """
    features = embed(images)
    if not isinstance(features, Tensor) or features.ndim < 2 or len(features) != len(images):
        raise ArgumentError(
            f"an embedding module must return a tensor (batch, features), not {type(features).__name__}"
            + (f" of shape {tuple(features.shape)}" if isinstance(features, Tensor) else "")
        )
    return features.flatten(1)


_Block = tuple[str, Tensor, Tensor, Tensor]


def _blocks(raw: RawOutputs, like: Tensor) -> list[_Block]:
    """Outputs that are treated alike: kind, their columns, the attributes they belong to, residual spread."""
    columns: dict[str, list[int]] = {"yes/no": [], "continuous": []}
    which: dict[str, list[int]] = {"yes/no": [], "continuous": []}
    blocks: list[tuple[str, list[int], list[int]]] = []
    start = 0
    for i, spec in enumerate(raw.specs):
        count = output_count(spec)
        if spec.kind == "categorical":
            blocks.append((spec.kind, list(range(start, start + count)), [i]))
        else:
            columns[spec.kind].append(start)
            which[spec.kind].append(i)
        start += count
    blocks += [(kind, columns[kind], which[kind]) for kind in columns if columns[kind]]
    found = []
    for kind, places, members in blocks:
        std = [float(raw.std[raw.specs[i].name]) if kind == "continuous" else 1.0 for i in members]
        index = [torch.tensor(numbers, device=like.device) for numbers in (places, members)]
        found.append((kind, index[0], index[1], like.new_tensor(std)))
    return found
