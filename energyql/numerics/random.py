"""Random numbers of samples, which depend neither on the number of samples nor on the size of batches.

Those of sample i depend only on i, the seed, the name of a purpose (stream), and the count of numbers per sample. They
come from Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), whose 64-bit words NumPy
guarantees (NEP 19). The words become normal numbers by +, -, *, /, sqrt and frexp only, which IEEE 754 rounds in the
same way on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.numerics.shapes import Float, Int

_WORDS_PER_COUNT = 4
"""Philox4x64 gives four 64-bit words for each value of its counter."""
_VALUES_AT_ONCE = 1 << 16
"""Number of values that are computed together, to fit into the cache of the processor; results do not change."""
_LN2 = 0.6931471805599453
_COLUMNS = "the number of columns"
"""Name of the argument `width` in messages."""

# Wichura 1988, algorithm AS 241 (PPND7): rational approximations of the inverse normal distribution function, lowest
# power first. The centre takes 0.425² - q², the tails take r - 1.6 with r = sqrt(-log p). Those beyond r = 5, where p
# is below 1e-11, are not needed.
_CENTRE = (
    (3.3871327179e0, 5.0434271938e1, 1.5929113202e2, 5.9109374720e1),
    (1.0, 1.7895169469e1, 7.8757757664e1, 6.7187563600e1),
)
_TAIL = (
    (1.4234372777e0, 2.7568153900e0, 1.3067284816e0, 1.7023821103e-1),
    (1.0, 7.3700164250e-1, 1.2021132975e-1),
)

Real = TypeVar("Real", np.float32, np.float64)


def prior_latents(seed: int, start: int, count: int, z_dim: int) -> Tensor:
    """Draw the latents of the samples `start` … `start + count - 1` of a run from N(0, I).

    They are (count, z_dim), float32 on the CPU. The other arguments, and errors, are those of `normals`.
    """
    return normals(seed, start, count, z_dim, stream="prior")


def normals(seed: int, start: int, count: int, width: int, *, stream: str, rows: Sequence[int] | None = None) -> Tensor:
    """Return standard normal numbers for the samples `start` … `start + count - 1` of a run.

    Args:
        seed: seed of the run, 0 … 2⁶⁴ - 1.
        start, count: index of the first sample, and number of samples, at least 0.
        width: numbers per sample, at least 1.
        stream: name of the purpose of the numbers, such as "langevin/17". Different names give independent numbers.
        rows: ascending indices, from 0 to count - 1, of the samples whose numbers are returned; all by default.

    Returns:
        Draws from N(0, 1), (samples, width) float32 on the CPU, never beyond ±6.4.

    Raises:
        ArgumentError: an argument is outside its range.
    """
    width = _integer(_COLUMNS, width, 1, 2**32)
    words = _words(seed, start, count, -(-width // 2), stream, rows)
    halves = words.astype("<u8", copy=False).view("<i4")[:, :width]
    flat, result = halves.ravel(), np.empty(halves.size, dtype=np.float32)
    for first in range(0, len(flat), _VALUES_AT_ONCE):
        piece = slice(first, first + _VALUES_AT_ONCE)
        result[piece] = _normal(flat[piece])
    return torch.from_numpy(result.reshape(halves.shape))


def uniforms(
    seed: int, start: int, count: int, width: int, *, stream: str, rows: Sequence[int] | None = None
) -> Tensor:
    """Return uniform random numbers for samples; the arguments, and errors, are those of `normals`.

    Returns:
        Draws from the open interval (0, 1), (samples, width) float64 on the CPU; float32 would round some of them to 1.
    """
    words = _words(seed, start, count, _integer(_COLUMNS, width, 1, 2**32), stream, rows)
    numbers = (words >> np.uint64(12)).astype(np.float64)
    numbers *= 2.0**-52
    numbers += 2.0**-53
    return torch.from_numpy(numbers)


def _words(
    seed: int, start: int, count: int, width: int, stream: str, rows: Sequence[int] | None
) -> NDArray[np.uint64]:
    """64-bit words for samples, (samples, width), where each sample begins with a new value of the counter."""
    seed, start = _integer("seed", seed, 0, 2**64 - 1), _integer("start", start, 0, 2**64 - 1)
    count = _integer("count", count, 0, 2**64 - 1)
    counts = -(-width // _WORDS_PER_COUNT)
    purpose = int.from_bytes(sha256(stream.encode()).digest()[:8], "little")
    generator = np.random.Philox(counter=start * counts, key=seed | purpose << 64)
    words: NDArray[np.uint64]
    if rows is None:
        words = generator.random_raw(count * counts * _WORDS_PER_COUNT)
        return words.reshape(count, counts * _WORDS_PER_COUNT)[:, :width]
    words = np.empty((len(rows), counts * _WORDS_PER_COUNT), np.uint64)
    ends = np.flatnonzero(np.diff(np.asarray(rows, dtype=np.uint64)) != 1) + 1
    reached = 0
    for first, last in pairwise([0, *ends.tolist(), len(rows)] if len(rows) else []):
        generator.advance((rows[first] - reached) * counts)
        words[first:last] = generator.random_raw((last - first) * words.shape[1]).reshape(last - first, -1)
        reached = rows[first] + last - first
    return words[:, :width]


def _integer(name: str, value: int, lowest: int, highest: int) -> int:
    """Return `value` as an integer of Python, or raise an `ArgumentError` with its `name`."""
    # An integer of NumPy would overflow at 2**64.
    if not (isinstance(value, int | np.integer) and lowest <= value <= highest):
        raise ArgumentError(f"{name} must be an integer from {lowest} to {highest}; got {value!r}")
    return int(value)


def _normal(k: NDArray[np.int32]) -> NDArray[np.float32]:
    """Normal numbers x with Φ(x) = ½ + (k + ½) / 2³², from uniform k; a few units off in the last place."""
    q = k.astype(np.float32)
    q *= np.float32(2.0**-32)
    q += np.float32(2.0**-33)
    result = _ratio(_CENTRE, np.float32(0.425**2) - q * q)
    result *= q
    outside = np.flatnonzero(np.abs(q) > np.float32(0.425))
    tail = (k[outside] + 0.5) * 2.0**-32
    r = np.sqrt(-_log(0.5 - np.abs(tail)))
    result[outside] = np.copysign(_ratio(_TAIL, r - 1.6), tail)
    return result


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: NDArray[Real]) -> NDArray[Real]:
    """Ratio of two polynomials at x, elementwise; coefficients of numerator and denominator, x⁰ first."""
    above, below = (_polynomial(side, x) for side in coefficients)
    above /= below
    return above


def _polynomial(coefficients: tuple[float, ...], x: NDArray[Real]) -> NDArray[Real]:
    """Polynomial at x, elementwise, with the coefficients of x⁰, x¹, and so on."""
    total = x * x.dtype.type(coefficients[-1])
    for coefficient in coefficients[-2:0:-1]:
        total += x.dtype.type(coefficient)
        total *= x
    total += x.dtype.type(coefficients[0])
    return total


def _log(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithm, elementwise, with error 1e-9, as e log 2 + 2 artanh((m - 1) / (m + 1)) for p = m 2ᵉ."""
    mantissa, exponent = np.frexp(p)
    y = (mantissa - 1.0) / (mantissa + 1.0)
    series = _polynomial(tuple(2.0 / (2 * k + 1) for k in range(8)), y * y)
    return exponent * _LN2 + y * series


@dataclass(frozen=True, slots=True)
class RandomStreams:
    """Source of random numbers for a batch of samples from a run: the samples `start`, `start + 1`, and so on.

    The methods that draw numbers take the name of a stream, the purpose of the numbers. Different streams give
    independent numbers, but normal and uniform numbers of the same stream are not independent. Numbers of a sample
    depend only on `seed`, its index in the run, the stream and the count of numbers per sample.

    Args:
        seed: seed of the run, 0 to 2⁶⁴ - 1.
        start: index in the run of the first sample of the batch, or, with `chosen`, the number to add to these.
        purpose: text that is put before the name of every stream.
        chosen: for samples that do not follow one another, their indices minus `start`, ascending.
    """

    seed: int = 0
    start: int = 0
    purpose: str = ""
    chosen: tuple[int, ...] | None = None

    def part(self, name: str) -> RandomStreams:
        """Return a source for the part `name` of a computation. Its numbers are independent of those of this object."""
        return replace(self, purpose=f"{self.purpose}{name}/")

    def of_samples(self, offsets: Sequence[int]) -> RandomStreams:
        """Return a source of the same random numbers for other samples: their indices minus `start`, ascending."""
        return replace(self, chosen=tuple(offsets))

    def offsets(self, rows: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
        """Return the index in the run, minus `start`, of each sample in `rows`; `rows` itself without `chosen`."""
        return rows if self.chosen is None else torch.tensor(self.chosen, device=rows.device)[rows]

    def _span(self, count: int, rows: Int[Tensor, " rows"] | None) -> tuple[int, list[int] | None]:
        """Size of a span of the run that contains the batch, and the indices in it of `rows`, or `None` for all."""
        if self.chosen is None:
            return count, None if rows is None else rows.tolist()
        span = self.chosen[-1] + 1 if self.chosen else 0
        return span, list(self.chosen) if rows is None else self.offsets(rows).tolist()

    def normals(
        self, like: Float[Tensor, "batch z_dim"], stream: str, rows: Int[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "rows z_dim"]:
        """Return draws from N(0, I) for the samples of a batch, or for `rows`, ascending indices in the batch.

        The draws have the width, dtype and device of `like`, the latents of the batch.
        """
        count, offsets = self._span(len(like), rows)
        width, name = like.shape[1], self.purpose + stream
        return normals(self.seed, self.start, count, width, stream=name, rows=offsets).to(like)

    def several_normals(
        self, like: Float[Tensor, "batch z_dim"], stream: str, rows: Int[Tensor, " rows"], numbers: Tensor, of: int
    ) -> Float[Tensor, "rows draws z_dim"]:
        """Return some of the draws from N(0, I) of each sample; each has `of` draws, numbered from 0.

        Args:
            like: latents of the batch; the draws have the same width, dtype and device.
            rows: ascending indices in `like` of the samples whose draws are returned.
            numbers: for each of these samples, ascending numbers of the draws, (rows, draws).
        """
        count, _ = self._span(len(like), rows)
        indices = (self.offsets(rows)[:, None] * of + numbers).flatten().tolist()
        width, name = like.shape[1], self.purpose + stream
        draws = normals(self.seed, self.start * of, count * of, width, stream=name, rows=indices)
        return draws.to(like).view(*numbers.shape, width)

    def uniforms(
        self, like: Float[Tensor, "batch z_dim"], width: int, stream: str, rows: Int[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "rows width"]:
        """Return `width` draws from (0, 1) for each sample, like `normals`, but float64; on MPS, float32."""
        count, offsets = self._span(len(like), rows)
        draws = uniforms(self.seed, self.start, count, width, stream=self.purpose + stream, rows=offsets)
        # MPS has no float64. Clamped before the move, so that no number is rounded to 1.
        return draws.to(like.device) if like.device.type != "mps" else draws.float().clamp(max=1 - 2**-24).to("mps")


FIRST_RUN = RandomStreams()
"""The random numbers of a run with seed 0, from its first sample on."""
