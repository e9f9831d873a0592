"""Random numbers of a batch of samples, each belonging to a sample and a purpose."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from energyql.numerics.random import normals, uniforms
from energyql.numerics.shapes import Float, Int


@dataclass(frozen=True, slots=True)
class RandomStreams:
    """Random numbers of the samples `start`, `start + 1`, … of a run: row i of a result depends on (seed, start + i).

    Normals and uniforms of one stream come from the same words: independent numbers need streams of different names.

    Args:
        seed: of the run, 0 to 2⁶⁴ - 1.
        start: index of the first sample of the batch in the run.
        purpose: prefix of the name of every stream; see `part`.
    """

    seed: int = 0
    start: int = 0
    purpose: str = ""

    def part(self, name: str) -> RandomStreams:
        """Return streams that are independent of these, for a part of the work that names its streams freely."""
        return replace(self, purpose=f"{self.purpose}{name}/")

    def normals(
        self, like: Float[Tensor, "batch z_dim"], stream: str, rows: Int[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "rows z_dim"]:
        """Return draws from N(0, I) of the shape, dtype and device of `like`, for its rows or for some, ascending."""
        chosen = None if rows is None else rows.tolist()
        return normals(self.seed, self.start, *like.shape, stream=self.purpose + stream, rows=chosen).to(like)

    def several_normals(
        self, like: Float[Tensor, "batch z_dim"], stream: str, rows: Int[Tensor, " rows"], numbers: Tensor, of: int
    ) -> Float[Tensor, "rows draws z_dim"]:
        """Return draws from N(0, I) for samples that have `of` of them each.

        `rows`, ascending, are the samples, and `numbers` (rows, draws), ascending and below `of`, their draws.
        """
        chosen = (rows[:, None] * of + numbers).flatten().tolist()
        count, width = len(like) * of, like.shape[1]
        drawn = normals(self.seed, self.start * of, count, width, stream=self.purpose + stream, rows=chosen)
        return drawn.to(like).view(*numbers.shape, width)

    def uniforms(
        self, like: Float[Tensor, "batch z_dim"], width: int, stream: str, rows: Int[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "rows width"]:
        """Return float64 draws from the open interval (0, 1), on the device of `like`; `rows` as for `normals`."""
        chosen = None if rows is None else rows.tolist()
        drawn = uniforms(self.seed, self.start, len(like), width, stream=self.purpose + stream, rows=chosen)
        # Clamped before the move: a device without float64 gets the largest float32 below 1 in place of 1.
        return drawn.to(like.device) if like.device.type != "mps" else drawn.float().clamp(max=1 - 2**-24).to("mps")


FIRST_RUN = RandomStreams()
"""The streams of seed 0, from its first sample on."""
