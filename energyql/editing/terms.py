"""Terms of the energy that an edit minimises: the query, and everything that should not change.

Values are in nats, one a sample, lower is better. Each term computes its value and its gradient with respect to z, to
the mapped z (w), or to the latents that the heads read. The two ways to keep attributes are compared in
docs/decisions/editing.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.heads import RawOutputs
from energyql.attributes.predictions import output_count
from energyql.editing.latents import Latents, LatentSpace, LayerEdit, mean_offset
from energyql.energy.query_energy import QueryEnergy
from energyql.errors import ArgumentError
from energyql.numerics.pullback import by_autograd, inverse_norm, normalized_back

Variable = Literal["z", "w", "latent"]
"""What the gradient of a term refers to: z, the mapped z, or the latents that the heads read."""
Embed = Callable[[Tensor], Tensor]
"""Pictures in [-1, 1], (batch, channels, height, width), to features (batch, ...)."""


@dataclass(frozen=True, slots=True, eq=False)
class TermInput:
    """Latents of a batch at which terms are evaluated.

    Attributes:
        rows: numbers of the samples, (batch,).
        z: (batch, z_dim).
        w: the mapped z, (batch, w_dim); `None` if no term needs it.
        latent: the latents that the heads read.
    """

    rows: Tensor
    z: Tensor
    w: Tensor | None
    latent: Tensor


class Term(Protocol):
    """One term of the energy; `variable` is what its gradient refers to."""

    @property
    def variable(self) -> Variable: ...

    def __call__(self, at: TermInput, /) -> tuple[Tensor, Tensor]:
        """Return values (batch,) and gradients."""
        ...


@dataclass(frozen=True, eq=False)
class QueryTerm:
    """`weight * E_query`; the energy is a function of the latents that the heads read."""

    energy: QueryEnergy
    weight: float
    variable: ClassVar[Variable] = "latent"

    def __call__(self, at: TermInput) -> tuple[Tensor, Tensor]:
        """Return values and gradients; see `Term`."""
        value, gradient = self.energy.gradient(at.latent)
        return self.weight * value, self.weight * gradient


@dataclass(frozen=True, eq=False)
class DistanceTerm:
    """`weight * |x - x0|²` of z or w: minus the logarithm of a Gaussian around the start.

    Args:
        variable: "z" or "w".
        start: x0 of all samples, (n, ...); z as the space scales it.
        weight: of the term.
    """

    variable: Variable
    start: Tensor
    weight: float

    def __call__(self, at: TermInput) -> tuple[Tensor, Tensor]:
        """Return values and gradients; see `Term`."""
        x = at.z if self.variable == "z" else at.w
        assert x is not None
        difference = x - self.start[at.rows]
        return self.weight * difference.square().flatten(1).sum(1), 2 * self.weight * difference


@dataclass(frozen=True, eq=False)
class ShellTerm:
    """`weight * (|z| - sqrt(z_dim))²`: keeps the length of z near that of nearly all z of the prior."""

    weight: float
    variable: ClassVar[Variable] = "z"

    def __call__(self, at: TermInput) -> tuple[Tensor, Tensor]:
        """Return values and gradients; see `Term`."""
        length = at.z.norm(dim=1).clamp_min(1e-6)
        excess = length - at.z.shape[1] ** 0.5
        return self.weight * excess.square(), (2 * self.weight * excess / length)[:, None] * at.z


class KeepPredictions:
    """The Kullback-Leibler divergence from the predictions at the start, summed over the attributes kept.

    `Σ_a weight_a KL(P(a | z0) || P(a | z))`: certain predictions stay certain, uncertain ones stay uncertain.

    Args:
        raw: the heads of all attributes.
        before: their outputs at the start, (n, outputs).
        weights: (n, attributes), 0 for an attribute that may change.
    """

    variable: Variable = "latent"

    def __init__(self, raw: RawOutputs, before: Tensor, weights: Tensor) -> None:
        self.heads, self.weights, self.before = raw.function, weights, before
        self.blocks = _blocks(raw, before)

    def __call__(self, at: TermInput) -> tuple[Tensor, Tensor]:
        """Return values and gradients; see `Term`."""
        outputs, back = self.heads.pullback(at.latent)
        before, weights = self.before[at.rows], self.weights[at.rows]
        gradient, value = torch.zeros_like(outputs), torch.zeros_like(outputs[:, 0])
        for kind, columns, attributes, std in self.blocks:
            now, then, weight = outputs[:, columns], before[:, columns], weights[:, attributes]
            if kind == "categorical":  # one attribute a block
                p, log_p, log_q = then.softmax(1), then.log_softmax(1), now.log_softmax(1)
                divergence, slope = (p * (log_p - log_q)).sum(1, keepdim=True), log_q.exp() - p
            elif kind == "yes/no":
                p = then.sigmoid()
                divergence = p * (F.softplus(-now) - F.softplus(-then)) + (1 - p) * (F.softplus(now) - F.softplus(then))
                slope = now.sigmoid() - p
            else:
                difference = (now - then) / std
                divergence, slope = difference.square() / 2, difference / std
            value = value + (weight * divergence).sum(1)
            gradient[:, columns] = weight * slope
        return value, back(gradient)


class KeepLogits:
    """`Σ_a weight_a |logits_a - logits_a0|²`, the published form (Nie et al. 2021); of continuous attributes, means."""

    variable: Variable = "latent"

    def __init__(self, raw: RawOutputs, before: Tensor, weights: Tensor) -> None:
        self.heads, self.before = raw.function, before
        counts = torch.tensor([output_count(spec) for spec in raw.specs], device=before.device)
        self.weights = weights.repeat_interleave(counts, dim=1)

    def __call__(self, at: TermInput) -> tuple[Tensor, Tensor]:
        """Return values and gradients; see `Term`."""
        outputs, back = self.heads.pullback(at.latent)
        difference, weights = outputs - self.before[at.rows], self.weights[at.rows]
        return (weights * difference.square()).sum(1), back(2 * weights * difference)


@dataclass(frozen=True, eq=False)
class KeepIdentity:
    """`weight * (1 - cos(embed(picture), embed(old picture)))`, differentiated by autograd.

    Args:
        embed: pictures to features.
        synthesize: w to pictures.
        layer_edit: from the mapped z to w.
        before: features of the old pictures, (n, features).
        weight: of the term.
    """

    embed: Embed
    synthesize: Callable[[Tensor], Tensor]
    layer_edit: LayerEdit
    before: Tensor
    weight: float
    variable: ClassVar[Variable] = "w"

    def __call__(self, at: TermInput) -> tuple[Tensor, Tensor]:
        """Return values and gradients; see `Term`."""

        def distance(w: Tensor) -> Tensor:
            features = flat_features(self.embed, self.synthesize(self.layer_edit(w, at.rows)))
            return self.weight * (1 - F.cosine_similarity(features, self.before[at.rows].clone(), dim=1))

        assert at.w is not None
        value, back = by_autograd(distance, at.w)
        return value, back(torch.ones_like(value))


class EditEnergy:
    """The sum of terms as a function of z and the numbers of its samples: an `Energy`.

    Where the length of z is free, terms are evaluated at z scaled to length sqrt(z_dim).

    Args:
        space: the model's latents.
        before: latents of all samples at the start.
        terms: at least one.
    """

    def __init__(self, space: LatentSpace, before: Latents, terms: Sequence[Term]) -> None:
        self.space, self.terms = space, terms
        self.shift = mean_offset(before.offset)
        self.needs_w = space.heads_read_w or any(term.variable == "w" for term in terms)

    def __call__(self, z: Tensor, rows: Tensor) -> Tensor:
        """Return values (batch,)."""
        return self.gradient(z, rows)[0]

    def gradient(self, z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return values (batch,) and gradients (batch, z_dim)."""
        if not self.space.length_is_free:
            return self._sum(z, rows)
        scale = inverse_norm(z)
        scaled = z * scale
        value, gradient = self._sum(scaled, rows)
        return value, normalized_back(gradient, scaled, scale)

    def _sum(self, z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        w, back = self.space.pullback(z) if self.needs_w else (None, None)
        latent = z
        if self.space.heads_read_w and w is not None:
            latent = w if self.shift is None else w + self.shift[rows]
        at = TermInput(rows, z, w, latent)
        value, of_z = torch.zeros_like(z[:, 0]), torch.zeros_like(z)
        of_w = None if w is None else torch.zeros_like(w)
        for term in self.terms:
            part, gradient = term(at)
            value = value + part
            if of_w is not None and (term.variable == "w" or (term.variable == "latent" and self.space.heads_read_w)):
                of_w += gradient
            else:
                of_z += gradient
        return value, of_z if of_w is None or back is None else of_z + back(of_w)


def flat_features(embed: Embed, images: Tensor) -> Tensor:
    """Return the features of pictures, (batch, features).

    Raises:
        ArgumentError: the embedding module returns no tensor (batch, ...).
    """
    features = embed(images)
    if not isinstance(features, Tensor) or features.ndim < 2 or len(features) != len(images):
        raise ArgumentError(
            f"an embedding module must return a tensor (batch, features), not {type(features).__name__}"
            + (f" of shape {tuple(features.shape)}" if isinstance(features, Tensor) else "")
        )
    return features.flatten(1)


_Block = tuple[str, Tensor, Tensor, Tensor]
"""Outputs of one kind: the kind, their columns, the attributes they belong to, the residual spread of each."""


def _blocks(raw: RawOutputs, like: Tensor) -> list[_Block]:
    """Return a block for each categorical attribute, then one for all yes/no and one for all continuous attributes."""
    blocks: list[tuple[str, list[int], list[int]]] = []
    shared: dict[str, tuple[list[int], list[int]]] = {"yes/no": ([], []), "continuous": ([], [])}
    start = 0
    for i, spec in enumerate(raw.specs):
        columns = list(range(start, start + output_count(spec)))
        start += len(columns)
        if spec.kind == "categorical":
            blocks.append((spec.kind, columns, [i]))
        else:
            shared[spec.kind][0].extend(columns)
            shared[spec.kind][1].append(i)
    blocks += [(kind, *members) for kind, members in shared.items() if members[0]]

    def std(kind: str, i: int) -> float:
        return float(raw.std[raw.specs[i].name]) if kind == "continuous" else 1.0

    return [
        (
            kind,
            torch.tensor(columns, device=like.device),
            torch.tensor(attributes, device=like.device),
            like.new_tensor([std(kind, i) for i in attributes]),
        )
        for kind, columns, attributes in blocks
    ]
