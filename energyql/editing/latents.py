"""Where pictures are in latent space: z, and how far their w lies from the one that z is mapped to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from energyql.attributes.fused import FusedHeads
from energyql.attributes.predictions import Prediction
from energyql.errors import ArgumentError
from energyql.generators.classes import Label, as_condition
from energyql.generators.encoder import encoder
from energyql.generators.frozen import FrozenMapping
from energyql.numerics.normalization import normalized
from energyql.numerics.pullback import pullback_of
from energyql.pipeline.model import Model

SAME_W = 1e-3
"""Largest relative difference of two w that count as the same: beyond what rounding makes."""


@dataclass(frozen=True, eq=False)
class Latents:
    """n pictures.

    Attributes:
        z: (n, z_dim).
        offset: w minus what z is mapped to, (n, w_dim), or (n, num_ws, w_dim) in W+; `None` where w is what z is mapped
            to. Photographs have one, which stays with them through all edits (as in pivotal tuning, Roich et al. 2021,
            but of the latent and not of the generator).
    """

    z: Tensor
    offset: Tensor | None = None

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows: slice | Tensor) -> Latents:
        return Latents(self.z[rows], None if self.offset is None else self.offset[rows])


class LatentSpace:
    """The latents of a model at one truncation and label.

    Args:
        model: whose; on its device.
        truncation: psi.
        label: as `Model.check_label` returned it.

    Attributes:
        heads_read_w: whether they read w, or z itself.
        length_is_free: whether neither heads nor generator see how long z is, as a StyleGAN, which scales it first.
            Edits then move z on a sphere: along the radius nothing changes, so it would be a way to come near for free.
        names: of all attributes.
    """

    def __init__(self, model: Model, truncation: float, label: Label | None) -> None:
        self.model = model
        self.encode = encoder(model.generator, truncation, as_condition(label, model.generator))
        self.pullback = pullback_of(self.encode)
        self.heads_read_w = model.bank.space == "w"
        self.length_is_free = model.bank.space in ("direction", "w") and isinstance(self.encode, FrozenMapping)
        self.names = tuple(model.vocabulary)

    @property
    def heads(self) -> FusedHeads:
        """All heads of the model as one function."""
        return self.model.bank.raw_outputs(self.names).function

    def scaled(self, z: Tensor) -> Tensor:
        """z as edits compare it: of one length, sqrt(z_dim), where its length is free."""
        return normalized(z) if self.length_is_free else z

    def w(self, latents: Latents) -> Tensor:
        """w of each picture, (n, w_dim) or (n, num_ws, w_dim)."""
        return shifted(self.encode(latents.z), latents.offset)

    def read_by_heads(self, latents: Latents) -> Tensor:
        """What the heads read: z, or w; of W+ the mean over its layers."""
        if not self.heads_read_w:
            return latents.z
        shift = mean_offset(latents.offset)
        w = self.encode(latents.z)
        return w if shift is None else w + shift

    def predict(self, latents: Latents) -> dict[str, Prediction]:
        """What the heads say of all attributes."""
        with torch.inference_mode():
            return self.model.bank.predict(self.read_by_heads(latents))

    def beside(self, z: Tensor, w: Tensor) -> Latents:
        """The latents of pictures whose z and w are given."""
        with torch.no_grad():
            mapped = self.encode(z)
        if mapped.shape[1:] != w.shape[-mapped.ndim + 1 :] or w.ndim not in (mapped.ndim, mapped.ndim + 1):
            raise ArgumentError(
                f"w has shape {tuple(w.shape)}, which does not go with z of shape {tuple(z.shape)} in this model",
                hint="start from a result of the same model",
            )
        offset = w - (mapped if w.ndim == mapped.ndim else mapped.unsqueeze(1))
        near = offset.abs().max() <= SAME_W * (1 + w.abs().max()) if len(z) else True
        return Latents(z, None if near else offset)

    @property
    def layer_count(self) -> int:
        """Layers of W+.

        Raises:
            ArgumentError: the generator has no W+.
        """
        count = getattr(getattr(self.model.generator, "config", None), "num_ws", None)
        if not isinstance(count, int):
            raise ArgumentError("this generator has no W+: its layers cannot be told apart")
        return count

    def check_layers(self, layers: Sequence[int]) -> Tensor:
        """The layers of W+ that may change, as a mask (num_ws,).

        Raises:
            ArgumentError: the generator has no W+, or not that layer.
        """
        count = self.layer_count
        bad = [layer for layer in layers if isinstance(layer, bool) or not isinstance(layer, int) or layer >= count]
        if bad or not layers or min(layers) < 0:
            raise ArgumentError(f"layers are whole numbers from 0 to {count - 1}, at least one, not {list(layers)!r}")
        mask = torch.zeros(count, dtype=torch.bool, device=self.model.device)
        mask[list(layers)] = True
        return mask


class Synthesis:
    """From what z is mapped to to the w of the edited picture, which differs from the old one in some layers only.

    Args:
        before: the pictures before the edit.
        w: their w.
        layers: mask of the layers of W+ that may change, (num_ws,); `None` for all.
    """

    def __init__(self, before: Latents, w: Tensor, layers: Tensor | None) -> None:
        self.offset, self.layers = before.offset, layers
        self.before = None if layers is None else w if w.ndim == 3 else w[:, None].expand(-1, len(layers), -1)

    def __call__(self, mapped: Tensor, rows: Tensor) -> Tensor:
        """mapped (batch, w_dim), rows (batch,) -> w (batch, w_dim) or (batch, num_ws, w_dim)."""
        w = shifted(mapped, None if self.offset is None else self.offset[rows])
        if self.layers is None or self.before is None:
            return w
        return torch.where(self.layers[:, None], w if w.ndim == 3 else w[:, None], self.before[rows])


def shifted(mapped: Tensor, offset: Tensor | None) -> Tensor:
    """What z is mapped to, (n, w_dim), plus an offset (n, w_dim) or (n, num_ws, w_dim)."""
    if offset is None:
        return mapped
    return (mapped if offset.ndim == mapped.ndim else mapped.unsqueeze(1)) + offset


def mean_offset(offset: Tensor | None) -> Tensor | None:
    """An offset as heads on w see it: of W+ the mean over the layers."""
    return offset if offset is None or offset.ndim == 2 else offset.mean(1)
