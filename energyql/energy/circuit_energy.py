"""The energy of a circuit and its gradient, from the latents that attribute heads read on, without autograd.

| leaf | energy | row |
|---|---|---|
| yes/no | softplus | the logit of the other value |
| classes | softplus | log-sum-exp of all other logits minus that of its own |
| tail | -log of the normal CDF | signed distance from mean to bound, in standard deviations |
| interval | -log of a difference of normal CDFs | distance from mean to middle, in standard deviations |

Rows are linear in the outputs of the heads (for classes, the terms of the log-sum-exps are), so the last layer of the
heads computes them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.heads import RawOutputs
from energyql.attributes.predictions import output_count
from energyql.energy.exact import CLASSES, INTERVAL, TAIL, YES_NO, CircuitFold, leaf_kind
from energyql.logic.nodes import Leaf
from energyql.numerics.linear import VECTORS, sizes_for
from energyql.numerics.normal import log_normal_cdf, log_normal_cdf_slope, log_normal_interval_and_slope
from energyql.numerics.pullback import Back
from energyql.numerics.shapes import Float

_LINEAR = 40.0  # where exp(-x) is below the rounding error of x in every dtype


class CircuitEnergy:
    """The function from latents to the energies of a circuit, with its gradient.

    Attributes:
        heads: from latents (batch, latent_dim) to rows (batch, rows).
        leaves: from rows, transposed, to energies of the leaves.
        fold: from there to the energy of the circuit.
    """

    def __init__(self, fold: CircuitFold, raw: RawOutputs) -> None:
        self.fold = fold
        self.leaves = LeafEnergies(fold.leaves, raw)
        self.heads = raw.function.then(self.leaves.matrix, self.leaves.offset)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of batches that take the least time, ascending. Rows are filled up to whole vectors here."""
        return sizes_for(self.heads.groups[0].first.weight.dtype)

    def computed_in(self, dtype: torch.dtype) -> CircuitEnergy:
        """See `Convertible`."""
        converted = copy.copy(self)
        converted.heads = self.heads.computed_in(dtype)
        return converted

    def __call__(self, latent: Float[Tensor, "batch latent_dim"]) -> Float[Tensor, " batch"]:
        """Return the energies, in nats, without a graph."""
        energies, _ = self.leaves.pullback(_whole(self.heads(latent).t()))
        return self.fold.energy(energies)[: len(latent)]

    def gradient(
        self, latent: Float[Tensor, "batch latent_dim"]
    ) -> tuple[Float[Tensor, " batch"], Float[Tensor, "batch latent_dim"]]:
        """Return the energies and their gradients with respect to the latents, without a graph."""
        rows, back_to_latent = self.heads.pullback(latent)
        energies, back_to_rows = self.leaves.pullback(_whole(rows.t()))
        energy, slopes = self.fold.energy_and_slopes(energies)
        return energy[: len(latent)], back_to_latent(back_to_rows(slopes)[:, : len(latent)].t())


def _whole(rows: Float[Tensor, "rows batch"]) -> Float[Tensor, "rows more"]:
    """Return the rows with zeros at their ends, up to a multiple of `VECTORS`."""
    return F.pad(rows, (0, -rows.shape[1] % VECTORS)).contiguous()


class LeafEnergies:
    """The function from rows to the energies, -log P, of leaves.

    Args:
        leaves: one cell or set of classes each, ordered by `leaf_kind`.
        raw: heads of at least the attributes of the leaves.

    Attributes:
        matrix: (rows, outputs), float64 on the CPU; rows are `matrix @ outputs + offset`.
        offset: (rows,), float64 on the CPU.
        widths: of the intervals, in standard deviations, (intervals, 1).
        counts: leaves of each kind.
        sizes: rows of yes/no leaves, tails, intervals and classes, in this order.
        shape: of the rows of classes: terms, the other classes and the own ones, leaves, batch.
    """

    def __init__(self, leaves: Sequence[Leaf], raw: RawOutputs) -> None:
        first: dict[str, int] = {}
        outputs = 0
        for spec in raw.specs:
            first[spec.name] = outputs
            outputs += output_count(spec)
        of_kind = {kind: [leaf for leaf in leaves if leaf_kind(leaf) == kind] for kind in range(4)}
        rows = [(first[leaf.attribute], -1.0 if True in leaf.cells else 1.0, 0.0) for leaf in of_kind[YES_NO]]
        widths = []
        for leaf in (*of_kind[TAIL], *of_kind[INTERVAL]):
            column, std, cell = first[leaf.attribute], raw.std[leaf.attribute].item(), leaf.cells[0]
            assert isinstance(cell, tuple)
            low, high = cell
            if math.isinf(high):
                rows.append((column, 1 / std, -low / std))
            elif math.isinf(low):
                rows.append((column, -1 / std, high / std))
            else:
                rows.append((column, -1 / std, (low + high) / 2 / std))
                widths.append((high - low) / std)
        values = {spec.name: spec.values for spec in raw.specs}

        def columns_of(leaf: Leaf, own: bool) -> list[int]:
            """Columns of the leaf's own classes, or of the others."""
            named = enumerate(values[leaf.attribute], start=first[leaf.attribute])
            return [column for column, value in named if (value in leaf.cells) == own]

        sets = of_kind[CLASSES]
        sides = [[columns_of(leaf, own) for leaf in sets] for own in (False, True)]
        longest = max((len(columns) for side in sides for columns in side), default=0)
        # All sides are filled up to the longest one with rows that add nothing.
        table = [columns[i : i + 1] for i in range(longest) for side in sides for columns in side]
        rows += [(column[0], 1.0, 0.0) if column else (0, 0.0, -math.inf) for column in table]

        self.matrix = torch.zeros(len(rows), outputs, dtype=torch.float64)
        for row, (column, factor, _) in enumerate(rows):
            self.matrix[row, column] = factor
        self.offset = torch.tensor([offset for _, _, offset in rows], dtype=torch.float64)
        like = raw.function.bias
        self.widths = torch.tensor(widths, dtype=like.dtype, device=like.device)[:, None]
        self.counts = [len(of_kind[kind]) for kind in (YES_NO, CLASSES, TAIL, INTERVAL)]
        self.sizes = [len(of_kind[YES_NO]), len(of_kind[TAIL]), len(of_kind[INTERVAL]), len(table)]
        self.shape = (longest, 2, len(sets), -1)
        self._least = math.log(torch.finfo(like.dtype).tiny) / 3 + 1

    def pullback(self, rows: Float[Tensor, "rows batch"]) -> tuple[Float[Tensor, "leaves batch"], Back]:
        """Return the energies, in nats, and the `Back`, without a graph.

        The `Back` also takes a gradient that is the same for all samples, (leaves, 1).
        """
        yes_no, sets, _, _ = self.counts
        if yes_no == len(rows):  # fewer operations for the most common kind of query
            return self._softplus(rows), lambda grad: torch.sigmoid(rows).mul_(grad)
        logits, tails, middles, classes = rows.split(self.sizes)
        if sets:
            classes = classes.view(self.shape)
            sums = torch.logsumexp(classes, 0)
            logits = torch.cat([logits, sums[0] - sums[1]])
        found = [self._softplus(logits)]
        if len(tails):
            found.append(0.0 - log_normal_cdf(tails))  # and not -value, which makes -0.0 of 0
        if len(middles):
            value, slope = log_normal_interval_and_slope(middles, self.widths)
            found.append(0.0 - value)

        def back(grad: Tensor) -> Tensor:
            of_logits, of_tails, of_middles = grad.split([yes_no + sets, len(tails), len(middles)])
            of_logits = torch.sigmoid(logits).mul_(of_logits)
            below = [of_logits[:yes_no]]
            if len(tails):
                below.append(log_normal_cdf_slope(tails).mul_(-of_tails))
            if len(middles):
                below.append(slope().mul_(-of_middles))
            if sets:
                of_sets = of_logits[yes_no:]
                shares = (classes - sums).exp_()  # `torch.softmax` rounds a column by its place
                below.append(shares.mul_(torch.stack([of_sets, -of_sets])).flatten(0, 2))
            return torch.cat(below)

        return torch.cat(found), back

    def _softplus(self, logits: Tensor) -> Tensor:
        # The next power of exp(x) that log1p takes would be denormal below this, which is many times slower.
        return F.softplus(logits.clamp(min=self._least), threshold=_LINEAR)
