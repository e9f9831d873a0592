"""Latents of pictures: z and an offset of w; the spaces that they belong to; and drawing from them.

The *mapped z* is the output of the mapping network for z. A picture is drawn from w: the mapped z plus the offset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.pictures import heads_of
from energyql.attributes.predictions import Prediction
from energyql.errors import ArgumentError
from energyql.generators.base import Label, as_condition, head_reader
from energyql.generators.mapping import FrozenMapping, encoder
from energyql.numerics.pullback import normalized, pullback_of
from energyql.pipeline.draw import PreparedQuery
from energyql.pipeline.model import Model
from energyql.pipeline.result import Result
from energyql.progress import Report
from energyql.render.pictures import to_pictures
from energyql.sampling import SampleResult, Status, summarize

SAME_W = 1e-3
"""Largest relative difference of two w that count as equal; errors of rounding are smaller."""
DRAWN_TOGETHER = 16
"""Number of pictures in a batch where w has an offset, unless a call sets a batch size."""

Layers = Sequence[int] | Mapping[str, Sequence[int]]
"""Numbers of the layers of W+ that may change: for all steps, or by attribute."""
Embed = Callable[[Tensor], Tensor]
"""Function from pictures in [-1, 1], (batch, channels, height, width), to features, (batch, ...)."""
EditedW = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Latents:
    """Latents of n pictures.

    Attributes:
        z: (n, z_dim).
        offset: w minus the mapped z, (n, w_dim), or (n, num_ws, w_dim) in W+; `None` for zero. The offset of an
            inverted picture is kept through all edits (pivotal tuning, Roich et al. 2021, keeps a change of the
            generator instead).
    """

    z: Tensor
    offset: Tensor | None = None

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows: slice | Tensor) -> Latents:
        return Latents(self.z[rows], None if self.offset is None else self.offset[rows])

    def split(self, size: int = DRAWN_TOGETHER) -> list[Latents]:
        """Return consecutive parts of `size` pictures; the last one may be smaller."""
        return [self[start : start + size] for start in range(0, len(self), size)]


class LatentSpace:
    """The latent spaces z, W and W+ of a model at one truncation and label.

    Args:
        model: the model, on its device.
        truncation: psi.
        label: the label, as `Model.check_label` returns it.

    Attributes:
        bank: the heads of the model.
        encode: maps z to w.
        reads: maps z to the latent that the heads read.
        heads_read_w: whether that latent is w; the offset is then a part of it.
        length_is_free: whether heads and generator depend on the direction of z only, as in a StyleGAN, which
            normalises z first. Edits then compare z at one length: otherwise a change of length would reduce `|z -
            z0|²` without any effect on the picture.
        names: names of all attributes.
    """

    def __init__(self, model: Model, truncation: float, label: Label | None) -> None:
        self.model = model
        self.encode = encoder(model.generator, truncation, as_condition(label, model.generator))
        self.pullback = pullback_of(self.encode)
        self.bank = heads_of(model.bank, "an edit")
        self.reads = head_reader(model.generator, self.bank.space, self.encode)
        self.view = pullback_of(self.reads)
        self.heads_read_w = self.bank.space == "w"
        self.length_is_free = self.bank.space in ("direction", "w") and isinstance(self.encode, FrozenMapping)
        self.names = tuple(model.vocabulary)

    def scaled(self, z: Tensor) -> Tensor:
        """Return z scaled to length sqrt(z_dim) if `length_is_free`, else z itself."""
        return normalized(z) if self.length_is_free else z

    def w(self, latents: Latents) -> Tensor:
        """Return w of each picture, (n, w_dim) or (n, num_ws, w_dim)."""
        return shifted(self.encode(latents.z), latents.offset)

    def pictures(self, latents: Latents) -> list[Image.Image]:
        """Return the pictures of latents."""
        with torch.inference_mode():
            return [picture for part in latents.split() for picture in to_pictures(self.images(part))]

    def images(self, latents: Latents) -> Tensor:
        """Return the images of latents in [-1, 1], (n, channels, height, width), drawn in one batch."""
        return self.model.generator.synthesize(self.w(latents))

    def head_input(self, latents: Latents) -> Tensor:
        """Return the latents that the heads read, (n, latent_dim); an offset in W+ is averaged over the layers."""
        read = self.reads(latents.z)
        return shifted(read, mean_offset(latents.offset)) if self.heads_read_w else read

    def predict(self, latents: Latents) -> dict[str, Prediction]:
        """Return the predictions of the heads for all attributes."""
        with torch.inference_mode():
            return self.bank.predict(self.head_input(latents))

    def from_w(self, z: Tensor, w: Tensor) -> Latents:
        """Return the latents with this z, (n, z_dim), and w, (n, w_dim) or (n, num_ws, w_dim).

        Raises:
            ArgumentError: the shapes do not fit the model.
        """
        with torch.no_grad():
            mapped = self.encode(z)
        if mapped.shape[1:] != w.shape[-mapped.ndim + 1 :] or w.ndim not in (mapped.ndim, mapped.ndim + 1):
            raise ArgumentError(
                f"w has shape {tuple(w.shape)}, which does not fit z of shape {tuple(z.shape)} in this model",
                hint="start from a result of the same model",
            )
        offset = w - (mapped if w.ndim == mapped.ndim else mapped.unsqueeze(1))
        same = offset.abs().max() <= SAME_W * (1 + w.abs().max()) if len(z) else True
        return Latents(z, None if same else offset)

    @property
    def layer_count(self) -> int:
        """Number of layers of W+.

        Raises:
            ArgumentError: the generator has no W+.
        """
        count = getattr(getattr(self.model.generator, "config", None), "num_ws", None)
        if not isinstance(count, int):
            raise ArgumentError(
                "this generator has no W+: all its layers share one w", hint="leave out layers, or --layers"
            )
        return count

    def layer_mask(self, layers: Layers | None, attributes: Sequence[str] = ()) -> Tensor | None:
        """Return the mask of the layers of W+ that may change, (num_ws,); `None` for all.

        Args:
            layers: the layers for every attribute, or attribute -> layers; `None` for all.
            attributes: the attributes that may change; if one of them has no entry in `layers`, all layers may change.

        Raises:
            ArgumentError: the generator has no W+ or no such layer, or the model no such attribute.
        """
        if layers is None:
            return None
        if not isinstance(layers, Mapping):
            return self._mask(layers)
        if unknown := [name for name in layers if name not in self.names]:
            raise ArgumentError(
                f"layers are given for {unknown[0]!r}, which model {self.model.name!r} does not have",
                hint=f"attributes: {', '.join(self.names)}",
            )
        masks = {name: self._mask(numbers) for name, numbers in layers.items()}
        if not attributes or not all(name in masks for name in attributes):
            return None
        return torch.stack([masks[name] for name in attributes]).any(0)

    def _mask(self, layers: Sequence[int]) -> Tensor:
        count, layers = self.layer_count, list(layers)
        bad = [layer for layer in layers if isinstance(layer, bool) or not isinstance(layer, int) or layer >= count]
        if bad or not layers or min(layers) < 0:
            raise ArgumentError(f"layers are whole numbers from 0 to {count - 1}, at least one, not {layers!r}")
        mask = torch.zeros(count, dtype=torch.bool, device=self.model.device)
        mask[layers] = True
        return mask


def edited_w(before: Latents, w: Tensor, layers: Tensor | None) -> EditedW:
    """Return a function to the edited w of a picture.

    Args:
        before: latents before the edit.
        w: w of these latents, (n, w_dim) or (n, num_ws, w_dim).
        layers: mask of the layers of W+ that may change, (num_ws,); `None` for all.

    Returns:
        A function from the mapped z, (batch, w_dim), and the numbers of its samples, (batch,), to w, (batch, w_dim) or
        (batch, num_ws, w_dim), which differs from `w` only in the layers of the mask.
    """

    def w_of(mapped: Tensor, rows: Tensor) -> Tensor:
        new = shifted(mapped, None if before.offset is None else before.offset[rows])
        if layers is None:
            return new
        old, new = (x if x.ndim == 3 else x[:, None] for x in (w[rows], new))
        return torch.where(layers[:, None], new, old)

    return w_of


def shifted(mapped: Tensor, offset: Tensor | None) -> Tensor:
    """Return the sum of the mapped z, (n, w_dim), and an offset, (n, w_dim) or (n, num_ws, w_dim); `None` is zero."""
    if offset is None:
        return mapped
    return (mapped if offset.ndim == mapped.ndim else mapped.unsqueeze(1)) + offset


def mean_offset(offset: Tensor | None) -> Tensor | None:
    """Return an offset as (n, w_dim): one in W+ is averaged over the layers; `None` stays."""
    return offset if offset is None or offset.ndim == 2 else offset.mean(1)


def draw_result(
    prepared: PreparedQuery,
    space: LatentSpace,
    latents: Latents,
    index: npt.NDArray[np.int64],
    report: Report,
    run: SampleResult | None = None,
) -> Result:
    """Draw the pictures of latents, and judge them by a query.

    Args:
        prepared: the query.
        space: the model's latent space.
        latents: latents of n pictures.
        index: the number of each sample in its run, (n,).
        report: called with the progress.
        run: the run of a solver that led to the latents, if any, for the statistics.
    """
    if run is None:
        none = torch.zeros(len(latents), dtype=torch.int64)
        run = SampleResult(latents.z, none + Status.OK, none, none)
    w = None
    if latents.offset is not None:
        size = prepared.settings.batch_size or DRAWN_TOGETHER
        prepared = replace(prepared, settings=replace(prepared.settings, batch_size=size))
        with torch.inference_mode():
            w = torch.cat([space.w(part) for part in latents.split(size)])
    result = prepared.show(replace(run, z=latents.z), index, report, w)
    if len(result):
        result.statistics.update(summarize(run))
    return result
