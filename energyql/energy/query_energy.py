"""The energy of a query as a differentiable function of the latent."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from energyql.attributes.predictions import Categorical, Continuous, Prediction, Predictions
from energyql.energy.circuit_rule import CircuitRule
from energyql.energy.semantics import EnergyRule
from energyql.errors import ArgumentError
from energyql.logic.circuit import Circuit

Encode = Callable[[Tensor], Tensor]
"""From z `(batch, z_dim)` to w `(batch, ...)`: the generator's mapping network, truncation applied."""
Predict = Callable[[Tensor, tuple[str, ...]], Predictions]
"""From w and names to the predictions of these attributes."""


class QueryEnergy:
    """`E(z) = -log P(query | z)` in nats, lower is better, one value per sample.

    One evaluation encodes z once and asks for the predictions of the attributes that the query uses once.

    Args:
        rule: what `compile_energy_rule` or `compile_query` returned.
        encode: from z `(batch, z_dim)` to w `(batch, ...)`.
        predict: from w and the names needed to a prediction of each.

    Example:
        >>> energy = QueryEnergy(compile_energy_rule(expr, vocabulary), generator.encode, bank)  # doctest: +SKIP
        >>> energy(z).shape  # doctest: +SKIP
        torch.Size([64])
    """

    def __init__(self, rule: EnergyRule | Circuit, encode: Encode, predict: Predict) -> None:
        self.rule: EnergyRule = CircuitRule(rule) if isinstance(rule, Circuit) else rule
        self.encode = encode
        self.predict = predict
        self._checked: set[tuple[torch.device, torch.dtype, int]] = set()

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes that the energy depends on."""
        return self.rule.attributes

    def __call__(self, z: Tensor) -> Tensor:
        """The energy of each sample, `(batch,)`, in nats.

        Args:
            z: `(batch, z_dim)`, floating point.

        Raises:
            ArgumentError: z, or what `encode` and `predict` make of it, does not have the right shape, type or device.
                What they make is checked at the first call with a device, dtype and dimension.
        """
        if z.ndim != 2 or not z.is_floating_point():
            raise ArgumentError(f"z must be floating point of shape (batch, z_dim), not {_described(z)}")
        names = self.rule.attributes
        if not names:  # always true
            return z.new_zeros(len(z))
        predictions = self.predict(self.encode(z), names)
        key = (z.device, z.dtype, z.shape[1])
        if key not in self._checked:
            _check(predictions, names, z)
            self._checked.add(key)
        return -self.rule.log_value(predictions)

    def gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The energy and its gradient with respect to z, both detached.

        Args:
            z: `(batch, z_dim)`, floating point. Works also under `no_grad` and `inference_mode`, and leaves z as it is.

        Returns:
            The energy `(batch,)`, in nats, and the gradient `(batch, z_dim)`.

        Raises:
            ArgumentError: as a call; or the energy does not depend on z, because `encode` or `predict` detach it.
        """
        # A copy made outside inference mode can be differentiated wherever z comes from.
        with torch.inference_mode(False), torch.enable_grad():
            variable = z.detach().clone().requires_grad_()
            energy = self(variable)
            if not self.rule.attributes:
                return energy, torch.zeros_like(z)
            if not energy.requires_grad:
                raise ArgumentError(
                    "the energy does not depend on z, so it has no gradient",
                    hint="encode and predict must not detach their input or switch gradients off",
                )
            # Samples do not interact, so the gradient of the sum holds every sample's own gradient.
            (gradient,) = torch.autograd.grad(energy.sum(), variable)
        return energy.detach(), gradient


def _check(predictions: Predictions, names: tuple[str, ...], z: Tensor) -> None:
    for name in names:
        if name not in predictions:
            raise ArgumentError(f"predict returned nothing for attribute {name!r}")
        for what, tensor, shape in _tensors(predictions[name], len(z)):
            if tuple(tensor.shape) != shape or not tensor.is_floating_point():
                expected = f"floating point of shape {shape}"
                raise ArgumentError(f"the {what} of attribute {name!r} must be {expected}, not {_described(tensor)}")
            if tensor.device != z.device or tensor.dtype != z.dtype:
                raise ArgumentError(
                    f"the {what} of attribute {name!r} is {_described(tensor)}, and z is {_described(z)}",
                    hint="move the heads and z to one device and dtype",
                )


def _tensors(prediction: Prediction, batch: int) -> list[tuple[str, Tensor, tuple[int, ...]]]:
    """The tensors of a prediction, each with what it is called and the shape it must have."""
    if isinstance(prediction, Categorical):
        return [("logits", prediction.logits, (batch, len(prediction.values)))]
    if isinstance(prediction, Continuous):
        std = prediction.std
        spread = [std] if isinstance(std, Tensor) and std.ndim else []
        return [("mean", prediction.mean, (batch,)), *(("std", tensor, (batch,)) for tensor in spread)]
    return [("logit", prediction.logit, (batch,))]


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)} on {tensor.device}"
