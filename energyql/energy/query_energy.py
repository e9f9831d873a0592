"""The energy of a query as a differentiable function of the latent, its least value, and its cheap surrogate.

Heads predict a continuous attribute as a normal with a fixed standard deviation, so an interval that is narrower than a
few standard deviations is never certain: `0.4 < age < 0.6` with a standard deviation of 0.1 has a probability of at
most 0.68. The probability of a yes/no or categorical attribute can be arbitrarily near to 1.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.bank import Bank
from energyql.attributes.heads import AttributeBank, RawOutputs
from energyql.attributes.predictions import Continuous, Predictions, split_outputs
from energyql.energy.circuit import CircuitEnergy, CircuitRule
from energyql.energy.rule import EnergyRule
from energyql.errors import ArgumentError
from energyql.logic.circuit import Circuit
from energyql.logic.nodes import Leaf
from energyql.numerics.linear import WHOLE_VECTORS, few_sizes, in_batches
from energyql.numerics.pullback import Convertible, Identity, by_autograd, pullback_of
from energyql.numerics.shapes import Float
from energyql.vocabulary import Vocabulary

SURE = 0.9
"""Probability at which samplers by default take a query to hold; `explain` reports a query that cannot reach it."""
_NEVER = -700.0
"""Log-probability of a leaf that is false for a candidate."""
_FAR = 40.0
"""Distance of a candidate mean from the outermost bound, in standard deviations, where only the tail is true."""
_MOST_CENTRES = 256
"""Most candidates for the mean of one attribute."""
_SWEEPS = 8


def least_energy(rule: CircuitRule, std: Mapping[str, Tensor]) -> float:
    """Return the least energy over all predictions, in nats, at least 0; 0 for a query without narrow intervals.

    The probability is linear in the distribution of each attribute, so it is raised attribute by attribute, from even
    odds, until nothing changes: the classes one by one, and means in the middle of every two bounds. The best of two
    orders counts. Some prediction has that energy; rare formulas with several alternatives have one of lower energy.

    Args:
        rule: rule of the query.
        std: standard deviation of the heads of the continuous attributes, by name.
    """
    fold = rule.fold
    if not rule.is_probability or not rule.circuit.has_intervals:
        return 0.0
    columns = {name: _candidates(name, fold.leaves, rule, std) for name in rule.attributes}
    of = {name: [i for i, leaf in enumerate(fold.leaves) if leaf.attribute == name] for name in rule.attributes}
    least = math.inf
    for order in (list(columns), list(reversed(columns))):
        leaves = torch.empty(len(fold.leaves), 1, dtype=torch.float64)
        for name, rows in of.items():
            leaves[rows, 0] = columns[name].exp().mean(1).log()
        energy = math.inf
        for _ in range(_SWEEPS):
            before = energy
            for name in order:
                candidates = leaves.expand(-1, columns[name].shape[1]).clone()
                candidates[of[name]] = columns[name]
                energies = fold.energy(-candidates)
                leaves = candidates[:, energies.argmin(), None]
                energy = energies.min().item()
            if energy > before - 1e-6:
                break
        least = min(least, energy)
    return max(least, 0.0)


def _candidates(name: str, leaves: list[Leaf], rule: CircuitRule, std: Mapping[str, Tensor]) -> Tensor:
    """Return the log-probabilities of an attribute's leaves, (leaves, candidates), for each candidate prediction."""
    own = [leaf for leaf in leaves if leaf.attribute == name]
    if name not in std:
        atoms = rule.circuit.cells[name]
        holds = [[0.0 if set(atom) <= set(leaf.cells) else _NEVER for atom in atoms] for leaf in own]
        return torch.tensor(holds, dtype=torch.float64)
    spread = float(std[name])
    intervals = [cast("tuple[float, float]", cell) for leaf in own for cell in leaf.cells]
    bounds = sorted({bound for interval in intervals for bound in interval if math.isfinite(bound)})
    pairs = [(low + high) / 2 for i, low in enumerate(bounds) for high in bounds[i + 1 :]]
    means = [bounds[0] - _FAR * spread, *pairs[:_MOST_CENTRES], bounds[-1] + _FAR * spread]
    prediction = Continuous(torch.tensor(means, dtype=torch.float64), spread)
    return torch.stack([prediction.log_probability(leaf.cells) for leaf in own]).clamp(min=_NEVER)


_FLAT = 1e-4
"""Share of the largest singular value below which a direction of z is ignored."""


@dataclass(frozen=True)
class Surrogate:
    """The energy of a query by other heads, as a function of v, the part of z that they depend on.

    Surrogates are equal if they have the same rule and the same heads.

    Attributes:
        rule: the query.
        bank: heads on z, linear or of one hidden layer, that change along few directions; see `SurrogateHeads`.
    """

    rule: EnergyRule
    bank: AttributeBank

    @cached_property
    def basis(self) -> Float[Tensor, "r z_dim"]:
        """Orthonormal rows that span the directions of z along which the heads change."""
        heads = [self.bank.heads[name] for name in self.rule.attributes]
        weights = torch.cat([weight for head in heads for weight in (head.skip_weight, head.hidden_weight)])
        rows = F.normalize(weights.cpu().double())  # of numbers in any unit
        _, sizes, directions = torch.linalg.svd(rows, full_matrices=False)
        basis: Tensor = directions[sizes >= _FLAT * sizes[:1]].to(weights)
        return basis

    @cached_property
    def _of_v(self) -> AttributeBank:
        """The heads as functions of v."""
        heads = {}
        for name in self.rule.attributes:
            head = self.bank.heads[name]
            hidden, skip = (weight @ self.basis.t() for weight in (head.hidden_weight, head.skip_weight))
            heads[name] = replace(head, hidden_weight=hidden, skip_weight=skip)
        return AttributeBank(Vocabulary([self.bank.vocabulary[name] for name in heads]), heads, space="z")

    @torch.no_grad()
    def __call__(self, v: Float[Tensor, "batch r"]) -> Float[Tensor, " batch"]:
        """Return the energies of v = `basis` z, in nats."""
        return -self.rule.log_value(self._of_v.predict(v, self.rule.attributes))

    def lift(self, v: Float[Tensor, "batch r"], z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch z_dim"]:
        """Return z with its part along the basis replaced by v. A row of the result depends on its own row alone."""
        basis, width = self.basis, v.shape[1]

        def replaced(both: Tensor) -> tuple[Tensor]:
            # Copies, because products of rows that are not aligned round differently on some processors.
            v, z = both[:, :width].contiguous(), both[:, width:].contiguous()
            return (torch.addmm(z, v - z @ basis.t(), basis),)

        both = torch.cat([v, z], 1)
        return in_batches(replaced, both, few_sizes(len(both)))[0]


_ONE_DEVICE = "move the heads and z to one device and dtype"

Encode = Callable[[Tensor], Tensor]
"""Function from z `(batch, z_dim)` to w `(batch, ...)`: the generator's mapping network, truncation applied."""
Predict = Callable[[Tensor, tuple[str, ...]], Predictions]
"""Function from w and names to the predictions of these attributes."""


class QueryEnergy:
    """`E(z) = -log P(query | z)` in nats, lower is better, one value per sample.

    An evaluation encodes z once and runs the heads of the query's attributes once. With a bank, and an `encode` that is
    `Differentiable`, energy and gradient cost little more than the matrix products of both. Other torch functions are
    differentiated by autograd.

    Args:
        rule: rule from `compile_energy_rule`, or a circuit from `compile_query`.
        encode: function from z `(batch, z_dim)` to w `(batch, ...)`; `Identity()` where the heads read z.
        predict: an attribute bank, or a function from w and names to the predictions of these attributes.
        surrogate: function that returns a cheap approximation of this energy; see `Energy`.

    Example:
        >>> energy = QueryEnergy(compile_energy_rule(expr, vocabulary), encoder(generator), bank)  # doctest: +SKIP
        >>> energy(z).shape  # doctest: +SKIP
        torch.Size([64])
    """

    def __init__(
        self,
        rule: EnergyRule | Circuit,
        encode: Encode,
        predict: Predict | Bank,
        surrogate: Callable[[], Surrogate] | None = None,
    ) -> None:
        self.rule: EnergyRule = CircuitRule(rule) if isinstance(rule, Circuit) else rule
        self.encode = encode
        self.surrogate = surrogate
        # Other functions may change between two runs.
        heads = predict.as_heads if isinstance(predict, Bank) else None
        constant = heads is not None and isinstance(encode, Convertible)
        self.kept: MutableMapping[Hashable, Any] | None = {} if constant else None
        self.predict = predict.predict if isinstance(predict, Bank) else predict
        self._pullback = pullback_of(encode)
        self._direct: CircuitEnergy | _RuleEnergy | None = None
        self._least: Callable[[], float] | None = None
        if heads is not None and self.rule.attributes:
            raw = heads.raw_outputs(self.rule.attributes)
            if isinstance(self.rule, CircuitRule):
                self._direct = CircuitEnergy(self.rule.fold, raw)
                if self.rule.circuit.has_intervals:
                    self._least = partial(least_energy, self.rule, raw.std)
            else:
                self._direct = _RuleEnergy(self.rule, raw)
        self._checked: set[tuple[torch.device, torch.dtype, int]] = set()

    @cached_property
    def least(self) -> float:
        """The least energy that a latent can reach with these heads, in nats; see `least_energy`. `jem` has none."""
        if not self.rule.has_floor:
            return -math.inf
        return 0.0 if self._least is None else self._least()

    def computed_in(self, dtype: torch.dtype) -> QueryEnergy:
        """Return the same energy with the matrix products of the mapping network and of the heads in `dtype`.

        Latents, energies and gradients keep their dtype. So do heads under `lace` and functions in place of a bank.

        Raises:
            ArgumentError: `encode` is no `Convertible`.
        """
        if not isinstance(self.encode, Convertible):
            raise ArgumentError(
                f"the mapping from z to w cannot be computed in {str(dtype).removeprefix('torch.')}",
                hint="that takes a mapping network of this library's StyleGANs; use float32",
            )
        converted = copy.copy(self)
        converted.encode = self.encode.computed_in(dtype)
        converted.kept = None if self.kept is None else {}
        converted._pullback = pullback_of(converted.encode)
        converted._direct = None if self._direct is None else self._direct.computed_in(dtype)
        return converted

    def __call__(self, z: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the energy of each sample, `(batch,)`, in nats.

        Args:
            z: `(batch, z_dim)`, floating point.
            rows: ignored. Samplers pass the numbers of the samples, and a query is the same for all.

        Raises:
            ArgumentError: z or a prediction has a wrong shape, dtype or device. Predictions are checked at the first
                call with a device, dtype and dimension.
        """
        return self._values(z, self.encode)

    def of_latent(self, latent: Tensor) -> Tensor:
        """Return the energy, `(batch,)`, in nats, of latents that the heads read, `(batch, latent_dim)`."""
        return self._values(latent, Identity())

    def gradient(self, z: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the energy and its gradient with respect to z, both detached.

        Args:
            z: `(batch, z_dim)`, floating point; not changed. `no_grad` and `inference_mode` make no difference.
            rows: ignored, as in a call.

        Returns:
            The energy `(batch,)`, in nats, and the gradient `(batch, z_dim)`.

        Raises:
            ArgumentError: as for a call; or the energy does not depend on z, because `encode` or `predict` detach it.
        """
        self._check(z)
        if not self.rule.attributes:
            return z.new_zeros(len(z)), torch.zeros_like(z)
        with torch.no_grad():
            energy, gradient = in_batches(self._with_gradient, z.detach(), self._sizes_of(z))
        return energy, gradient

    def _values(self, z: Tensor, encode: Encode) -> Tensor:
        def energy(z: Tensor) -> tuple[Tensor]:
            latent = encode(z)
            followed = latent.requires_grad and torch.is_grad_enabled()  # by autograd
            return (self._direct(latent) if self._direct and not followed else self._by_predictions(z, latent),)

        self._check(z)
        if not self.rule.attributes:  # always true
            return z.new_zeros(len(z))
        return in_batches(energy, z, self._sizes_of(z))[0]

    def _with_gradient(self, z: Float[Tensor, "batch z_dim"]) -> tuple[Tensor, ...]:
        latent, back = self._pullback(z)
        if self._direct is not None:
            energy, gradient = self._direct.gradient(latent)
        else:
            energy, back_to_latent = by_autograd(partial(self._by_predictions, z), latent)
            # Samples do not interact, so the gradient of the sum holds every sample's own gradient.
            gradient = back_to_latent(torch.ones_like(energy))
        return energy, back(gradient)

    def _by_predictions(self, z: Float[Tensor, "batch z_dim"], latent: Tensor) -> Float[Tensor, " batch"]:
        predictions = self.predict(latent, self.rule.attributes)
        key = (z.device, z.dtype, z.shape[1])
        if key not in self._checked:
            check_predictions(predictions, self.rule.attributes, z)
            self._checked.add(key)
        return 0.0 - self.rule.log_value(predictions)  # and not -value, which makes -0.0 of 0

    def _sizes_of(self, z: Tensor) -> list[int]:
        if self._direct is None or z.device.type != "cpu":
            return [len(z)]
        return few_sizes(len(z), self._direct.sizes)

    def _check(self, z: Tensor) -> None:
        if z.ndim != 2 or not z.is_floating_point():
            raise ArgumentError(f"z must be floating point of shape (batch, z_dim), not {_described(z)}")
        if self._direct is not None:
            heads = self._direct.heads.bias
            if z.dtype != heads.dtype or z.device != heads.device:
                raise ArgumentError(
                    f"the heads are {_type(heads)} on {heads.device}, and z is {_described(z)}", hint=_ONE_DEVICE
                )


class _RuleEnergy:
    """The function from latents to the energies of a rule without a circuit, with its gradient; see `CircuitEnergy`.

    Autograd differentiates the rule alone: through the heads it would take other products, which round differently.
    """

    sizes = WHOLE_VECTORS

    def __init__(self, rule: EnergyRule, raw: RawOutputs) -> None:
        self.rule, self.raw, self.heads = rule, raw, raw.function

    def computed_in(self, dtype: torch.dtype) -> _RuleEnergy:
        """Return this energy, whose heads keep their dtype."""
        return self

    def __call__(self, latent: Float[Tensor, "batch latent_dim"]) -> Float[Tensor, " batch"]:
        """Return the energies, in nats, without a graph."""
        return self._of_outputs(self.heads(latent))

    def gradient(
        self, latent: Float[Tensor, "batch latent_dim"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch latent_dim"]]:
        """Return the energies and their gradients with respect to the latents, without a graph."""
        outputs, back_to_latent = self.heads.pullback(latent)
        energy, back_to_outputs = by_autograd(self._of_outputs, outputs)
        return energy, back_to_latent(back_to_outputs(torch.ones_like(energy)))

    def _of_outputs(self, outputs: Float[Tensor, "batch outputs"]) -> Float[Tensor, " batch"]:
        return 0.0 - self.rule.log_value(split_outputs(outputs, self.raw.specs, self.raw.std))


def check_predictions(predictions: Predictions, names: tuple[str, ...], z: Tensor) -> None:
    """Check that there are predictions of attributes for each row of z, on its device and in its dtype.

    Raises:
        ArgumentError: one is missing, or has another shape, dtype or device.
    """
    for name in names:
        if name not in predictions:
            raise ArgumentError(f"predict returned nothing for attribute {name!r}")
        for what, tensor, shape in predictions[name].tensors(len(z)):
            if tuple(tensor.shape) != shape or not tensor.is_floating_point():
                expected = f"floating point of shape {shape}"
                raise ArgumentError(f"the {what} of attribute {name!r} must be {expected}, not {_described(tensor)}")
            if tensor.device != z.device or tensor.dtype != z.dtype:
                problem = f"the {what} of attribute {name!r} is {_described(tensor)}"
                raise ArgumentError(f"{problem}, and z is {_described(z)}", hint=_ONE_DEVICE)


def _described(tensor: Tensor) -> str:
    return f"{_type(tensor)} of shape {tuple(tensor.shape)} on {tensor.device}"


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
