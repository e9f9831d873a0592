"""The energy of a query as a differentiable function of a latent; its least value; and a cheap approximation of it."""

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

from energyql.attributes.bank import Bank, FittedUnder
from energyql.attributes.heads import AttributeBank, RawOutputs
from energyql.attributes.predictions import Continuous, Predictions, split_outputs
from energyql.energy.circuit import TAIL, CircuitEnergy, CircuitRule, EnergyRule, leaf_kind
from energyql.errors import ArgumentError
from energyql.logic.circuit import Circuit, Leaf
from energyql.numerics.linear import WHOLE_VECTORS, few_sizes, in_batches, in_graph
from energyql.numerics.pullback import Convertible, Identity, by_autograd, pullback_of
from energyql.numerics.shapes import Float
from energyql.vocabulary import Vocabulary

SURE = 0.9
"""Probability of a query from which samplers by default count it as satisfied; `explain` reports if no latent can reach
it."""
_NEVER = -700.0
"""Log-probability, in nats, that replaces -infinity in the search for the least energy."""
_FAR = 40.0
"""The search for the least energy also tries means this many standard deviations beyond the outer bounds of an
attribute."""
_MOST_CENTRES = 256
"""Most means in the middle of two bounds that the search for the least energy tries for one attribute."""
_SWEEPS = 8


def least_energy(rule: EnergyRule, std: Mapping[str, Tensor]) -> float:
    """Search the least energy, in nats, that a query has for any predictions; -infinity if there is no lower bound.

    It is above 0 for narrow intervals: with a standard deviation of 0.1, `0.4 < age < 0.6` has at most a probability of
    0.68. It is 0 if no interval has two finite bounds, if `std` lacks the fixed standard deviation of an attribute with
    an interval, or if the energy is not -log of a probability. Some prediction always has the energy that is returned;
    for a few queries with several alternatives, another has a lower one, because the search sets one attribute after
    another to its best prediction.
    """
    if not rule.has_floor:
        return -math.inf
    if not isinstance(rule, CircuitRule) or not rule.is_probability or not rule.circuit.has_intervals:
        return 0.0
    fold = rule.fold
    if any(leaf_kind(leaf) >= TAIL and leaf.attribute not in std for leaf in fold.leaves):
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
    """Predictions of one attribute to try, as columns of log-probabilities of its leaves, in nats, float64."""
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
"""A surrogate ignores directions of z with a singular value, in the heads' weights, of less than `_FLAT` times the
largest."""


@dataclass(frozen=True)
class Surrogate:
    """A cheap approximation of the energy of a query, computed by small heads that depend on few directions of z.

    A call takes v, the coordinates of latents z along these directions. Two surrogates are equal if their rules and
    devices are equal, and `bank` is the same object.

    Attributes:
        bank: the small heads, as functions of z, on the CPU. Each is linear or has one hidden layer.
        device: the device on which energies are computed.
    """

    rule: EnergyRule
    bank: AttributeBank
    device: torch.device | str = "cpu"

    @cached_property
    def basis(self) -> Float[Tensor, "r z_dim"]:
        """Orthonormal vectors, as rows, that span the directions of z on which the heads of the query depend."""
        return self._basis.to(self.device)

    @cached_property
    def _basis(self) -> Float[Tensor, "r z_dim"]:
        heads = [self.bank.heads[name] for name in self.rule.attributes]
        weights = torch.cat([weight for head in heads for weight in (head.skip_weight, head.hidden_weight)])
        rows = F.normalize(weights.double())  # of numbers in any unit
        _, sizes, directions = torch.linalg.svd(rows, full_matrices=False)
        return cast(Tensor, directions[sizes >= _FLAT * sizes[:1]].to(weights))

    @cached_property
    def _of_v(self) -> AttributeBank:
        """The heads of the query's attributes as functions of v."""
        heads = {}
        for name in self.rule.attributes:
            head = self.bank.heads[name]
            hidden, skip = (weight @ self._basis.t() for weight in (head.hidden_weight, head.skip_weight))
            heads[name] = replace(head, hidden_weight=hidden, skip_weight=skip)
        vocabulary = Vocabulary([self.bank.vocabulary[name] for name in heads])
        return AttributeBank(vocabulary, heads, fitted=FittedUnder("z")).to(self.device)

    @cached_property
    def _direct(self) -> CircuitEnergy | None:
        """The energy as a function of v in fewer operations, for other devices than the CPU; `None` on the CPU."""
        if torch.device(self.device).type == "cpu" or not isinstance(self.rule, CircuitRule):
            return None
        return CircuitEnergy(self.rule.fold, self._of_v.raw_outputs(self.rule.attributes))

    @torch.no_grad()
    def __call__(self, v: Float[Tensor, "batch r"]) -> Float[Tensor, " batch"]:
        """Return the approximate energy, in nats, of latents z whose coordinates along the rows of `basis` are `v`."""
        if self._direct is not None and v.dtype == self._direct.heads.bias.dtype:
            return self._direct(v)
        return -self.rule.log_value(self._of_v.predict(v, self.rule.attributes))

    def lift(self, v: Float[Tensor, "batch r"], z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch z_dim"]:
        """Return the latents `z` with their coordinates along the rows of `basis` replaced by `v`.

        A row of the result depends on the same rows of `v` and `z` only, bit for bit, and not on other samples of a
        batch.
        """
        basis, width = self.basis, v.shape[1]

        def replaced(both: Tensor) -> tuple[Tensor]:
            # Copies, because products of rows that are not aligned round differently on some processors.
            v, z = both[:, :width].contiguous(), both[:, width:].contiguous()
            return (torch.addmm(z, v - z @ basis.t(), basis),)

        both = torch.cat([v, z], 1)
        return in_batches(replaced, both, few_sizes(len(both)))[0]


Encode = Callable[[Tensor], Tensor]
"""Function from z `(batch, z_dim)` to w `(batch, ...)`: the generator's mapping network, followed by truncation."""
Predict = Callable[[Tensor, tuple[str, ...]], Predictions]
"""Function from w, and names of attributes, to the predictions of these attributes."""


class QueryEnergy:
    """The energy of a query as a function of z, in nats, lower is better; `-log P(query | z)` under `exact` semantics.

    An evaluation calls `encode` once and computes the heads of the query's attributes once. Gradients of the heads, and
    of an `encode` that has a method `pullback`, take little more time than the matrix products. Other functions are
    differentiated by autograd.

    Args:
        rule: the compiled query: a rule from `compile_energy_rule`, or a circuit from `compile_query`.
        encode: function from z `(batch, z_dim)` to w `(batch, ...)`; `Identity()` if z is the input of the heads.
        predict: an attribute bank; or a function from w, and names of attributes, to the predictions of these
            attributes.
        surrogate: function that returns a cheap approximation of this energy, from which samplers draw proposals.

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
        heads = predict if isinstance(predict, AttributeBank) else None
        # Code of users may change between two runs, and may not work in several threads.
        self._without_user_code = heads is not None and isinstance(encode, Convertible)
        self.sampler_cache: MutableMapping[Hashable, Any] | None = {} if self._without_user_code else None
        self.predict = predict.predict if isinstance(predict, Bank) else predict
        self._pullback = pullback_of(encode)
        self._direct: CircuitEnergy | _RuleEnergy | None = None
        self._std: Mapping[str, Tensor] = {}
        if heads is not None and self.rule.attributes:
            raw = heads.raw_outputs(self.rule.attributes)
            rule, self._std = self.rule, raw.std
            self._direct = CircuitEnergy(rule.fold, raw) if isinstance(rule, CircuitRule) else _RuleEnergy(rule, raw)

    @cached_property
    def least(self) -> float:
        """The least energy that a latent can have, in nats: `least_energy` with the standard deviations of the heads.

        It is 0 for most queries, above 0 for a narrow interval such as `0.4 < age < 0.41`, and -infinity under `jem`.
        """
        return least_energy(self.rule, self._std)

    def computed_in(self, dtype: torch.dtype) -> QueryEnergy:
        """Return the same energy with matrix products in `dtype`, such as bfloat16.

        Latents, energies and gradients keep their dtype. Mapping network and heads compute in `dtype`; under `lace` and
        `jem`, or with a `predict` that is no bank, only the mapping network.

        Raises:
            ArgumentError: `encode` is no `Convertible`: it has no method `computed_in`.
        """
        if not isinstance(self.encode, Convertible):
            raise ArgumentError(
                f"the mapping from z to w cannot be computed in {_type(dtype)}",
                hint="that takes a mapping network of this library's StyleGANs; use float32",
            )
        converted = copy.copy(self)
        converted.encode = self.encode.computed_in(dtype)
        converted.sampler_cache = {} if self._without_user_code else None
        converted._pullback = pullback_of(converted.encode)
        converted._direct = None if self._direct is None else self._direct.computed_in(dtype)
        return converted

    def __call__(self, z: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the energy `(batch,)`, in nats, of latents `(batch, z_dim)`, floating point; `rows` is ignored.

        Raises:
            ArgumentError: z or a prediction has a wrong shape, dtype or device.
        """
        return self._values(z, self.encode)

    def of_latent(self, latent: Tensor) -> Tensor:
        """Return the energy, `(batch,)`, in nats, of latents that `encode` has returned, `(batch, latent_dim)`."""
        return self._values(latent, Identity())

    def gradient(self, z: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the energy `(batch,)`, in nats, and its gradient `(batch, z_dim)`, detached; `rows` is ignored.

        It also works inside `no_grad` and `inference_mode`.

        Raises:
            ArgumentError: z or a prediction has a wrong shape, dtype or device; or autograd cannot differentiate the
                energy, because `encode` or `predict` detaches its result.
        """
        self._check(z)
        if not self.rule.attributes:
            return z.new_zeros(len(z)), torch.zeros_like(z)
        with torch.no_grad():
            energy, gradient = in_batches(self._with_gradient, z.detach(), self._sizes_of(z), pooled=self._pooled(z))
        return energy, gradient

    def _values(self, z: Tensor, encode: Encode) -> Tensor:
        def energy(z: Tensor) -> tuple[Tensor]:
            latent = encode(z)
            followed = latent.requires_grad and torch.is_grad_enabled()  # by autograd
            return (self._direct(latent) if self._direct and not followed else self._by_predictions(z, latent),)

        self._check(z)
        if not self.rule.attributes:  # always true
            return z.new_zeros(len(z))
        return in_batches(energy, z, self._sizes_of(z), pooled=self._pooled(z))[0]

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
        check_predictions(predictions, self.rule.attributes, z)
        return 0.0 - self.rule.log_value(predictions)  # and not -value, which makes -0.0 of 0

    def _sizes_of(self, z: Tensor) -> list[int]:
        return [len(z)] if self._direct is None else few_sizes(len(z), self._direct.sizes)

    def _pooled(self, z: Tensor) -> bool:
        """Whether several threads may compute the energies of z: on the CPU, without code of users and autograd."""
        in_threads = self._without_user_code and self._direct is not None
        return in_threads and z.device.type == "cpu" and not in_graph(z)

    def _check(self, z: Tensor) -> None:
        if z.ndim != 2 or not z.is_floating_point():
            raise ArgumentError(f"z must be floating point of shape (batch, z_dim), not {_described(z)}")
        if self._direct is not None:
            heads = self._direct.heads.bias
            if z.dtype != heads.dtype or z.device != heads.device:
                raise ArgumentError(f"the heads are {_type(heads.dtype)} on {heads.device}, and z is {_described(z)}")


class _RuleEnergy:
    """The function from latents to energies, with its gradient, for a rule that is no circuit (`lace` and `jem`).

    Autograd differentiates only the rule: its matrix products for the heads would round differently.
    """

    sizes = WHOLE_VECTORS

    def __init__(self, rule: EnergyRule, raw: RawOutputs) -> None:
        self.rule, self.raw, self.heads = rule, raw, raw.function

    def computed_in(self, dtype: torch.dtype) -> _RuleEnergy:
        """Return this object: under `lace` and `jem` the heads are never computed in another dtype."""
        return self

    def __call__(self, latent: Float[Tensor, "batch latent_dim"]) -> Float[Tensor, " batch"]:
        """Return the energy of each latent, in nats; autograd cannot differentiate it."""
        return self._of_outputs(self.heads(latent))

    def gradient(
        self, latent: Float[Tensor, "batch latent_dim"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch latent_dim"]]:
        """Return the energy of each latent, in nats, and its gradient with respect to this latent."""
        outputs, back_to_latent = self.heads.pullback(latent)
        energy, back_to_outputs = by_autograd(self._of_outputs, outputs)
        return energy, back_to_latent(back_to_outputs(torch.ones_like(energy)))

    def _of_outputs(self, outputs: Float[Tensor, "batch outputs"]) -> Float[Tensor, " batch"]:
        return 0.0 - self.rule.log_value(split_outputs(outputs, self.raw.specs, self.raw.std))


def check_predictions(predictions: Predictions, names: tuple[str, ...], z: Tensor) -> None:
    """Raise an `ArgumentError` unless each attribute has predictions for each row of z, with its dtype and device."""
    for name in names:
        if name not in predictions:
            raise ArgumentError(f"predict returned nothing for attribute {name!r}")
        for what, tensor, shape in predictions[name].tensors(len(z)):
            if (tuple(tensor.shape), tensor.dtype, tensor.device) != (shape, z.dtype, z.device):
                expected = f"{_type(z.dtype)} of shape {shape} on {z.device}"
                raise ArgumentError(f"the {what} of attribute {name!r} must be {expected}, not {_described(tensor)}")


def _described(tensor: Tensor) -> str:
    return f"{_type(tensor.dtype)} of shape {tuple(tensor.shape)} on {tensor.device}"


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
