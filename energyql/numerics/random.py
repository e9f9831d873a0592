"""Random numbers of samples, which depend neither on the number of samples nor on the size of batches.

Sample i of a run has its own numbers. They depend only on i, the seed, the name of a purpose (stream), and the count
of numbers per sample. So sample 3 is the same, bit for bit, in a run of 4 and in a run of 16, in batches of any size.

Numbers come from a generator in which each sample starts at another value of a counter: Philox4x64-10 (Salmon et al.
2011, "Parallel random numbers: as easy as 1, 2, 3"). NumPy guarantees that the 64-bit words of this generator do not
change (NEP 19). The words become normal numbers by +, -, *, /, sqrt and frexp only, which IEEE 754 rounds in the same
way on every machine. The log or cos of a library may differ in the last bit.
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
"""Number of values that are computed together. They fit into the cache of the processor; results do not change."""
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
    """Return the latents of the samples `start` … `start + count - 1` of a run.

    Args:
        seed: seed of the run, 0 … 2⁶⁴ - 1.
        start: index of the first sample, at least 0.
        count: number of samples, at least 0.
        z_dim: length of a latent, at least 1.

    Returns:
        Draws from N(0, I), (count, z_dim) float32 on the CPU.

    Raises:
        ArgumentError: an argument is outside its range.
    """
    return normals(seed, start, count, z_dim, stream="prior")


def normals(seed: int, start: int, count: int, width: int, *, stream: str, rows: Sequence[int] | None = None) -> Tensor:
    """Return standard normal numbers for the samples `start` … `start + count - 1` of a run.

    Args:
        seed: seed of the run, 0 … 2⁶⁴ - 1.
        start: index of the first sample, at least 0.
        count: number of samples, at least 0.
        width: numbers per sample, at least 1.
        stream: name of the purpose of the numbers, such as "langevin/17". Different names give independent numbers.
        rows: ascending indices, from 0 to count - 1, of the samples whose numbers are returned; all by default.

    Returns:
        Draws from N(0, 1), (samples, width) float32 on the CPU, never beyond ±6.4. There is a row for each of `rows`,
        or for each of the `count` samples.

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
    """Return uniform random numbers for the samples `start` … `start + count - 1` of a run.

    Args:
        seed: seed of the run, 0 … 2⁶⁴ - 1.
        start: index of the first sample, at least 0.
        count: number of samples, at least 0.
        width: numbers per sample, at least 1.
        stream: name of the purpose of the numbers. Different names give independent numbers.
        rows: ascending indices, from 0 to count - 1, of the samples whose numbers are returned; all by default.

    Returns:
        Draws from the open interval (0, 1), (samples, width) on the CPU. They are float64, because float32 would round
        some of them to 1. There is a row for each of `rows`, or for each of the `count` samples.

    Raises:
        ArgumentError: an argument is outside its range.
    """
    words = _words(seed, start, count, _integer(_COLUMNS, width, 1, 2**32), stream, rows)
    numbers = (words >> np.uint64(12)).astype(np.float64)
    numbers *= 2.0**-52
    numbers += 2.0**-53
    return torch.from_numpy(numbers)


def _words(
    seed: int, start: int, count: int, width: int, stream: str, rows: Sequence[int] | None
) -> NDArray[np.uint64]:
    """Return 64-bit words of the random generator for samples of a run, (samples, width).

    The generator gives four words for each value of its counter. Sample i uses the values from i * ceil(width / 4) on,
    so that each sample begins with a new value.

    Args:
        seed: seed of the run.
        start: index of the first sample.
        count: number of samples.
        width: words per sample.
        stream: name of the purpose of the words.
        rows: ascending indices, from 0 to count - 1, of the samples whose words are returned; `None` for all.

    Raises:
        ArgumentError: seed, start or count is outside its range.
    """
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
    """Return `value` as an integer of Python; `name` describes it in the error message.

    Raises:
        ArgumentError: `value` is no integer from `lowest` to `highest`.
    """
    # An integer of NumPy would overflow at 2**64.
    if not (isinstance(value, int | np.integer) and lowest <= value <= highest):
        raise ArgumentError(f"{name} must be an integer from {lowest} to {highest}; got {value!r}")
    return int(value)


def _normal(k: NDArray[np.int32]) -> NDArray[np.float32]:
    """Return normal numbers x, computed from uniform random integers k, one x for each k.

    Φ is the normal distribution function. x is the number with Φ(x) = ½ + q, where q = (k + ½) / 2³² is within ±½.
    The error is a few units in the last place of float32.
    """
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
    """Return the ratio of two polynomials at x, elementwise.

    `coefficients` is a pair: the coefficients of the numerator, and those of the denominator. Both begin with the
    coefficient of x⁰.
    """
    above, below = (_polynomial(side, x) for side in coefficients)
    above /= below
    return above


def _polynomial(coefficients: tuple[float, ...], x: NDArray[Real]) -> NDArray[Real]:
    """Return the value of a polynomial at x, elementwise; `coefficients` are those of x⁰, x¹, and so on."""
    total = x * x.dtype.type(coefficients[-1])
    for coefficient in coefficients[-2:0:-1]:
        total += x.dtype.type(coefficient)
        total *= x
    total += x.dtype.type(coefficients[0])
    return total


def _log(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the natural logarithm of p, elementwise, with an error of about 1e-9.

    With p = m 2ᵉ and m from ½ to 1, it is computed as e log 2 + 2 artanh((m - 1) / (m + 1)).
    """
    mantissa, exponent = np.frexp(p)
    y = (mantissa - 1.0) / (mantissa + 1.0)
    series = _polynomial(tuple(2.0 / (2 * k + 1) for k in range(8)), y * y)
    return exponent * _LN2 + y * series


@dataclass(frozen=True, slots=True)
class RandomStreams:
    """Source of random numbers for a batch of samples from a run: the samples `start`, `start + 1`, and so on.

    The methods that draw numbers take the name of a stream, the purpose of the numbers. Different streams give
    independent numbers, but normal and uniform numbers of the same stream are not independent. The numbers of sample i
    of the batch depend only on `seed`, the index of the sample in the run (`start + i`, or `start + chosen[i]`), the
    name of the stream and the count of numbers per sample.

    Args:
        seed: seed of the run, 0 to 2⁶⁴ - 1.
        start: index in the run of the first sample of the batch. With `chosen`, the number that is added to the numbers
            in `chosen` to get indices in the run.
        purpose: text that is put before the name of every stream.
        chosen: for a batch of samples that do not follow one another, their indices minus `start`, ascending; `None` if
            they follow one another.
    """

    seed: int = 0
    start: int = 0
    purpose: str = ""
    chosen: tuple[int, ...] | None = None

    def part(self, name: str) -> RandomStreams:
        """Return a source for the part `name` of a computation. Its numbers are independent of those of this object."""
        return replace(self, purpose=f"{self.purpose}{name}/")

    def of_samples(self, offsets: Sequence[int]) -> RandomStreams:
        """Return a source of the same random numbers for another batch: some samples of the run.

        Args:
            offsets: for each sample of that batch, its index in the run minus `start`; in ascending order.
        """
        return replace(self, chosen=tuple(offsets))

    def offsets(self, rows: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
        """Return the offset of each sample in `rows`: the index of the sample in the run, minus `start`.

        If the samples of the batch follow one another in the run, the offsets are equal to `rows`.

        Args:
            rows: indices of samples in the batch.
        """
        return rows if self.chosen is None else torch.tensor(self.chosen, device=rows.device)[rows]

    def _span(self, count: int, rows: Int[Tensor, " rows"] | None) -> tuple[int, list[int] | None]:
        """Return a span of the run, successive samples from sample `start` on, that contains the batch.

        Args:
            count: number of samples in the batch.
            rows: ascending indices in the batch of the samples whose numbers are drawn; `None` for all.

        Returns:
            The number of samples in the span. And the indices, in the span, of the samples in `rows`; `None` if these
                are all samples of the span.
        """
        if self.chosen is None:
            return count, None if rows is None else rows.tolist()
        span = self.chosen[-1] + 1 if self.chosen else 0
        return span, list(self.chosen) if rows is None else self.offsets(rows).tolist()

    def normals(
        self, like: Float[Tensor, "batch z_dim"], stream: str, rows: Int[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "rows z_dim"]:
        """Return draws from N(0, I) for the samples of a batch.

        Args:
            like: latents of the batch; the draws have the same width, dtype and device.
            stream: name of the purpose of the draws.
            rows: ascending indices in `like` of the samples whose draws are returned; all by default.
        """
        count, offsets = self._span(len(like), rows)
        width, name = like.shape[1], self.purpose + stream
        return normals(self.seed, self.start, count, width, stream=name, rows=offsets).to(like)

    def several_normals(
        self, like: Float[Tensor, "batch z_dim"], stream: str, rows: Int[Tensor, " rows"], numbers: Tensor, of: int
    ) -> Float[Tensor, "rows draws z_dim"]:
        """Return some of the draws from N(0, I) of each sample. Each sample has `of` draws, numbered from 0.

        Args:
            like: latents of the batch; the draws have the same width, dtype and device.
            stream: name of the purpose of the draws.
            rows: ascending indices in `like` of the samples whose draws are returned.
            numbers: for each sample in `rows`, the numbers of the draws that are returned, (rows, draws). They are
                ascending, at least 0 and below `of`.
            of: number of draws that each sample has in all.
        """
        count, _ = self._span(len(like), rows)
        indices = (self.offsets(rows)[:, None] * of + numbers).flatten().tolist()
        width, name = like.shape[1], self.purpose + stream
        draws = normals(self.seed, self.start * of, count * of, width, stream=name, rows=indices)
        return draws.to(like).view(*numbers.shape, width)

    def uniforms(
        self, like: Float[Tensor, "batch z_dim"], width: int, stream: str, rows: Int[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "rows width"]:
        """Return draws from the open interval (0, 1) for the samples of a batch. They are float64; on MPS, float32.

        Args:
            like: latents of the batch; the draws are on the same device.
            width: number of draws for each sample.
            stream: name of the purpose of the draws.
            rows: ascending indices in `like` of the samples whose draws are returned; all by default.
        """
        count, offsets = self._span(len(like), rows)
        draws = uniforms(self.seed, self.start, count, width, stream=self.purpose + stream, rows=offsets)
        # MPS has no float64. Clamped before the move, so that no number is rounded to 1.
        return draws.to(like.device) if like.device.type != "mps" else draws.float().clamp(max=1 - 2**-24).to("mps")


FIRST_RUN = RandomStreams()
"""The random numbers of a run with seed 0, from its first sample on."""
