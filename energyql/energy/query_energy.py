"""The energy of a query as a differentiable function of the latent."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, MutableMapping
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.bank import AttributeBank
from energyql.attributes.predictions import Categorical, Continuous, Prediction, Predictions
from energyql.energy.circuit_energy import CircuitEnergy
from energyql.energy.exact import CircuitRule
from energyql.energy.reachable import least_energy
from energyql.energy.rule import EnergyRule, JointRule
from energyql.energy.surrogate import Surrogate
from energyql.errors import ArgumentError
from energyql.logic.circuit import Circuit
from energyql.numerics.linear import few_sizes, in_batches
from energyql.numerics.pullback import Convertible, Identity, by_autograd, pullback_of
from energyql.numerics.shapes import Float

_ONE_DEVICE = "move the heads and z to one device and dtype"

Encode = Callable[[Tensor], Tensor]
"""From z `(batch, z_dim)` to w `(batch, ...)`: the generator's mapping network, truncation applied."""
Predict = Callable[[Tensor, tuple[str, ...]], Predictions]
"""From w and names to the predictions of these attributes."""


class QueryEnergy:
    """`E(z) = -log P(query | z)` in nats, lower is better, one value per sample.

    An evaluation encodes z once and runs the heads of the query's attributes once. With a bank, and an `encode` that is
    `Differentiable`, energy and gradient cost little more than the matrix products of both. Other torch functions are
    differentiated by autograd.

    Args:
        rule: from `compile_energy_rule`, or a circuit from `compile_query`.
        encode: from z `(batch, z_dim)` to w `(batch, ...)`; `Identity()` where the heads read z.
        predict: an attribute bank, or a function from w and names to the predictions of these attributes.
        surrogate: makes a cheap energy like this one, for samplers that look for good proposals; see `Energy`.

    Example:
        >>> energy = QueryEnergy(compile_energy_rule(expr, vocabulary), encoder(generator), bank)  # doctest: +SKIP
        >>> energy(z).shape  # doctest: +SKIP
        torch.Size([64])
    """

    def __init__(
        self,
        rule: EnergyRule | Circuit,
        encode: Encode,
        predict: Predict | AttributeBank,
        surrogate: Callable[[], Surrogate] | None = None,
    ) -> None:
        self.rule: EnergyRule = CircuitRule(rule) if isinstance(rule, Circuit) else rule
        self.encode = encode
        self.surrogate = surrogate
        # Other functions may change between two runs.
        constant = isinstance(predict, AttributeBank) and isinstance(encode, Convertible)
        self.kept: MutableMapping[Hashable, Any] | None = {} if constant else None
        self.predict = predict.predict if isinstance(predict, AttributeBank) else predict
        self._pullback = pullback_of(encode)
        self._direct: CircuitEnergy | None = None
        self._least: Callable[[], float] | None = None
        if isinstance(predict, AttributeBank) and isinstance(self.rule, CircuitRule) and self.rule.attributes:
            raw = predict.raw_outputs(self.rule.attributes)
            self._direct = CircuitEnergy(self.rule.fold, raw)
            if self.rule.circuit.has_intervals:
                self._least = partial(least_energy, self.rule, raw.std)
        self._few_sizes = isinstance(predict, AttributeBank)
        self._checked: set[tuple[torch.device, torch.dtype, int]] = set()

    @cached_property
    def least(self) -> float:
        """The least energy that a latent can reach with these heads, in nats; see `least_energy`. `jem` has none."""
        if isinstance(self.rule, JointRule) and self.rule.attributes:
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
        if not self._few_sizes or z.device.type != "cpu":
            return [len(z)]
        return few_sizes(len(z)) if self._direct is None else few_sizes(len(z), self._direct.sizes)

    def _check(self, z: Tensor) -> None:
        if z.ndim != 2 or not z.is_floating_point():
            raise ArgumentError(f"z must be floating point of shape (batch, z_dim), not {_described(z)}")
        if self._direct is not None:
            heads = self._direct.heads.bias
            if z.dtype != heads.dtype or z.device != heads.device:
                raise ArgumentError(
                    f"the heads are {_type(heads)} on {heads.device}, and z is {_described(z)}", hint=_ONE_DEVICE
                )


def check_predictions(predictions: Predictions, names: tuple[str, ...], z: Tensor) -> None:
    """Check that there are predictions of attributes for each row of z, on its device and in its dtype.

    Raises:
        ArgumentError: one is missing, or has another shape, dtype or device.
    """
    for name in names:
        if name not in predictions:
            raise ArgumentError(f"predict returned nothing for attribute {name!r}")
        for what, tensor, shape in tensors_of(predictions[name], len(z)):
            if tuple(tensor.shape) != shape or not tensor.is_floating_point():
                expected = f"floating point of shape {shape}"
                raise ArgumentError(f"the {what} of attribute {name!r} must be {expected}, not {_described(tensor)}")
            if tensor.device != z.device or tensor.dtype != z.dtype:
                found = f"the {what} of attribute {name!r} is {_described(tensor)}"
                raise ArgumentError(f"{found}, and z is {_described(z)}", hint=_ONE_DEVICE)


def tensors_of(prediction: Prediction, batch: int) -> list[tuple[str, Tensor, tuple[int, ...]]]:
    """Return the name of each tensor of a prediction, the tensor, and the shape that it must have."""
    if isinstance(prediction, Categorical):
        return [("logits", prediction.logits, (batch, len(prediction.values)))]
    if isinstance(prediction, Continuous):
        std = prediction.std
        spread = [std] if isinstance(std, Tensor) and std.ndim else []
        return [("mean", prediction.mean, (batch,)), *(("std", tensor, (batch,)) for tensor in spread)]
    return [("logit", prediction.logit, (batch,))]


def _described(tensor: Tensor) -> str:
    return f"{_type(tensor)} of shape {tuple(tensor.shape)} on {tensor.device}"


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
