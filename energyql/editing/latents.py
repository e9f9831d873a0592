"""Latents of edited pictures, and the latent spaces of a model.

A picture is drawn from w, which is the *mapped z* (the output of the mapping network for z) plus an offset. In *W+*
each layer of the generator has its own w, so the w of a picture has the shape (num_ws, w_dim).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.pictures import heads_of
from energyql.attributes.predictions import Prediction
from energyql.editing.terms import AnyTerm, EditedW, HeadTerm, Term, TermInput, Variable, joined_term
from energyql.errors import ArgumentError
from energyql.generators.base import Condition, condition_vector, head_reader, show_pictures
from energyql.generators.mapping import FrozenMapping, encoder
from energyql.numerics.pullback import Back, inverse_norm, normalized, normalized_back, pullback_of
from energyql.pipeline.model import Model
from energyql.pipeline.read import show
from energyql.progress import Report
from energyql.sampling import Energy, GradientEnergy, SampleResult, Status, summarize

if TYPE_CHECKING:
    from energyql.pipeline.plan import Plan
    from energyql.pipeline.result import Result

SAME_W = 1e-3
"""Largest difference, relative to the size of w, at which two w count as equal; errors of rounding are smaller."""
DRAWN_TOGETHER = 16
"""Number of pictures that are drawn in one batch, unless a call sets a batch size."""

Layers = Sequence[int] | Mapping[str, Sequence[int]]
"""Numbers of the layers of W+ that an edit may change, from 0: one list for all steps, or attribute -> list for the
steps whose queries name the attribute."""


@dataclass(frozen=True, eq=False)
class Latents:
    """Latents of n pictures.

    Attributes:
        z: (n, z_dim).
        offset: w minus the mapped z, (n, w_dim), or (n, num_ws, w_dim) in W+; `None` for zero. Edits change z and leave
            the offset of an inverted picture as it is. (Pivotal tuning, Roich et al. 2021, changes the generator
            instead.)
    """

    z: Tensor
    offset: Tensor | None = None

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, rows: slice | Tensor) -> Latents:
        return Latents(self.z[rows], None if self.offset is None else self.offset[rows])

    def split(self, size: int = DRAWN_TOGETHER) -> list[Latents]:
        """Consecutive groups of `size` pictures; the last may be smaller."""
        return [self[start : start + size] for start in range(0, len(self), size)]


class LatentSpace:
    """The latent spaces z, W and W+ of a model with heads on latents, at one truncation and condition.

    Attributes:
        encode: function from z to the mapped z.
        pullback: function from z to the mapped z, and a function from gradients by this to gradients by z.
        reads: function from z to the input of the heads, without an offset.
        view: function from z to the input of the heads, and a function from gradients by this to gradients by z.
        heads_read_w: whether the input of the heads is w; an offset is then added to it.
        length_is_free: whether only the direction of z matters for heads and generator, as in a StyleGAN, which
            normalises z first. Edits then scale z to length sqrt(z_dim) before they compare it with the z before the
            edit; else a search could lower `|z - z0|²` by a change of length, which does not change the picture.
        names: names of all attributes.

    Raises:
        ArgumentError: the model predicts attributes from pictures, not from latents.
    """

    def __init__(self, model: Model, truncation: float, condition: Condition | None) -> None:
        self.model = model
        self.encode = encoder(model.generator, truncation, condition_vector(condition, model.generator))
        self.pullback = pullback_of(self.encode)
        self.bank = heads_of(model.bank, "an edit")
        self.reads = head_reader(model.generator, self.bank.space, self.encode)
        self.view = pullback_of(self.reads)
        self.heads_read_w = self.bank.space == "w"
        self.length_is_free = self.bank.space in ("direction", "w") and isinstance(self.encode, FrozenMapping)
        self.names = tuple(model.vocabulary)

    def scaled(self, z: Tensor) -> Tensor:
        """Scale z to length sqrt(z_dim) if its length does not matter (`length_is_free`)."""
        return normalized(z) if self.length_is_free else z

    def w(self, latents: Latents) -> Tensor:
        """Compute w of each picture with its offset, (n, w_dim) or (n, num_ws, w_dim)."""
        return shifted(self.encode(latents.z), latents.offset)

    def pictures(self, latents: Latents) -> list[Image.Image]:
        """Draw latents in batches of `DRAWN_TOGETHER`, as PIL images."""
        with torch.inference_mode():
            parts = (self.images(part) for part in latents.split())
            return [picture for images in parts for picture in show_pictures(self.model.generator, images)]

    def images(self, latents: Latents) -> Tensor:
        """Draw latents in one batch, as a tensor in [-1, 1], (n, channels, height, width)."""
        return self.model.generator.synthesize(self.w(latents))

    def head_input(self, latents: Latents) -> Tensor:
        """Input of the heads, (n, latent_dim); if this is w, the offset is added, in W+ its mean over the layers."""
        read = self.reads(latents.z)
        return shifted(read, mean_offset(latents.offset)) if self.heads_read_w else read

    def predict(self, latents: Latents) -> dict[str, Prediction]:
        """Predictions of the heads: attribute -> prediction for n latents."""
        with torch.inference_mode():
            return self.bank.predict(self.head_input(latents))

    def energy(self, before: Latents, terms: Sequence[AnyTerm]) -> Energy:
        """Energy as a sum of terms in nats, a function of z, (batch, z_dim), and of sample numbers, (batch,).

        Where the length of z has no effect (`length_is_free`), terms are evaluated at z scaled to length sqrt(z_dim).
        Of the latents `before` the edit only the offset is used: it is added to the w of each z.
        """
        shift = mean_offset(before.offset)
        of_heads = [term for term in terms if isinstance(term, HeadTerm)]
        parts = [term for term in terms if isinstance(term, Term)]
        if of_heads:
            parts.append(joined_term(of_heads, scaled=self.length_is_free and self.bank.space == "direction"))
        needs_w = self.heads_read_w or any(term.variable == "w" for term in parts)

        def total(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            w, backs = None, dict[Variable, Back]()
            if needs_w:
                w, backs["w"] = self.pullback(z)
            if w is not None and self.heads_read_w:
                latent = w if shift is None else w + shift[rows]
            else:
                latent, backs["latent"] = self.view(z)
            at = TermInput(rows, z, w, latent)
            values, gradients = list[Tensor](), dict[Variable, Tensor]()
            for term in parts:
                value, gradient = term.evaluate(at)
                values.append(value)
                variable: Variable = "w" if self.heads_read_w and term.variable == "latent" else term.variable
                gradients[variable] = gradients[variable] + gradient if variable in gradients else gradient
            of_z = [gradients.pop("z")] if "z" in gradients else []
            of_z += [backs[variable](gradient) for variable, gradient in gradients.items()]
            return reduce(add, values), reduce(add, of_z)

        def scaled_total(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            scale = inverse_norm(z)
            scaled = z * scale
            value, gradient = total(scaled, rows)
            return value, normalized_back(gradient, scaled, scale)

        return GradientEnergy(scaled_total if self.length_is_free else total)

    def from_w(self, z: Tensor, w: Tensor) -> Latents:
        """Latents of pictures with known z, (n, z_dim), and w, (n, w_dim) or (n, num_ws, w_dim).

        The offset is `None` if w differs from the mapped z by errors of rounding only.
        """
        with torch.no_grad():
            mapped = self.encode(z)
        if mapped.shape[1:] != w.shape[-mapped.ndim + 1 :] or w.ndim not in (mapped.ndim, mapped.ndim + 1):
            raise ArgumentError(f"w of shape {tuple(w.shape)} does not fit z of shape {tuple(z.shape)} in this model")
        offset = w - (mapped if w.ndim == mapped.ndim else mapped.unsqueeze(1))
        return Latents(z, offset if offset.abs().max() > SAME_W * (1 + w.abs().max()) else None)

    @property
    def layer_count(self) -> int:
        """Number of layers with a w of their own in W+; raises without W+."""
        count: int | None = getattr(getattr(self.model.generator, "config", None), "num_ws", None)
        if count is None:
            raise ArgumentError("this generator has no W+: all its layers share one w", hint="leave out layers")
        return count

    def layer_mask(self, layers: Layers | None, attributes: Sequence[str] = ()) -> Tensor | None:
        """Mask of the layers of W+ that a step may change, (num_ws,) bool; `None` if it may change all.

        With a mapping `layers`, these are the layers of all `attributes` that the step's query names; or all layers, if
        one of these is not in the mapping or there are none.

        Raises:
            ArgumentError: the generator has no W+, or no such layer.
        """
        if layers is None:
            return None
        if not isinstance(layers, Mapping):
            return self._mask(layers)
        masks = {self.model.vocabulary[name].name: self._mask(numbers) for name, numbers in layers.items()}
        limited = attributes and all(name in masks for name in attributes)
        return torch.stack([masks[name] for name in attributes]).any(0) if limited else None

    def _mask(self, layers: Sequence[int]) -> Tensor:
        count = self.layer_count
        possible, chosen = range(count), [*layers] if isinstance(layers, Iterable) else []
        if not chosen or not all(layer in possible and not isinstance(layer, bool) for layer in chosen):
            raise ArgumentError(f"layers are whole numbers from 0 to {count - 1}, at least one, not {layers!r}")
        mask = torch.zeros(count, dtype=torch.bool, device=self.model.device)
        mask[[int(layer) for layer in chosen]] = True
        return mask


def edited_w(before: Latents, w: Tensor, layers: Tensor | None) -> EditedW:
    """Function from the mapped z and sample numbers to the w from which edited pictures are drawn.

    In the layers of the mask, (num_ws,) bool or `None` for all, this is the mapped z plus the offset; else `w` before
    the edit.
    """

    def w_of(mapped: Tensor, rows: Tensor) -> Tensor:
        new = shifted(mapped, None if before.offset is None else before.offset[rows])
        if layers is None:
            return new
        old, new = (x if x.ndim == 3 else x[:, None] for x in (w[rows], new))
        return torch.where(layers[:, None], new, old)

    return w_of


def shifted(mapped: Tensor, offset: Tensor | None) -> Tensor:
    """`mapped + offset`, for mapped z (n, w_dim) and an offset (n, w_dim) or (n, num_ws, w_dim); `None` is zero."""
    if offset is None:
        return mapped
    return (mapped if offset.ndim == mapped.ndim else mapped.unsqueeze(1)) + offset


def mean_offset(offset: Tensor | None) -> Tensor | None:
    """Mean over layers of an offset in W+, (n, w_dim); other offsets stay."""
    return offset if offset is None or offset.ndim == 2 else offset.mean(1)


def draw_result(
    plan: Plan, space: LatentSpace, latents: Latents, index: npt.NDArray[np.int64], report: Report,
    run: SampleResult | None = None,
) -> Result:  # fmt: skip
    """Draw latents as the result of a query, with the judge's verdicts.

    Args:
        index: number of each sample in its run, (n,).
        run: result of the solver that found the latents, for statuses and costs; without one all are OK and 0.
    """
    if run is None:
        none = torch.zeros(len(latents), dtype=torch.int64)
        run = SampleResult(latents.z, none + Status.OK, none, none)
    w = size = None
    if latents.offset is not None:
        size = plan.settings.batch_size or DRAWN_TOGETHER
        with torch.inference_mode():
            w = torch.cat([space.w(part) for part in latents.split(size)])
    result = show(plan, replace(run, z=latents.z), index, report, w, size)
    result.statistics.update(summarize(run))
    return result
