"""Random numbers that belong to a sample, not to a run.

Row i of every stream depends on (seed, stream, row width, i) alone: a run of 4 and a run of 16, any chunking and any
number of workers draw the same sample 3, bit for bit. Numbers come from a counter-based generator (Philox4x64-10,
Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; NumPy guarantees its raw words, NEP 19), where row i
simply starts at its own counter. Words become normals by +, -, *, /, sqrt and frexp only, which IEEE 754 rounds the
same on every machine; a library's log or cos may differ in the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from energyql.errors import ArgumentError

_WORDS_PER_COUNT = 4
"""Philox4x64 gives four 64-bit words for each value of its counter."""
_VALUES_AT_ONCE = 1 << 16
"""Work in pieces that stay in the cache; no result depends on it."""
_LN2 = 0.6931471805599453

# Wichura 1988, algorithm AS 241 (PPND16): rational approximations of the inverse normal distribution function,
# lowest power first. The centre takes 0.425² - q², the tails take r - 1.6 and r - 5 with r = sqrt(-log p).
_CENTRE = (
    (
        3.3871328727963666080e0,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ),
    (
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ),
)
_TAIL = (
    (
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
_FAR_TAIL = (
    (
        6.65790464350110377720e0,
        5.46378491116411436990e0,
        1.78482653991729133580e0,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ),
    (
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ),
)

Doubles = NDArray[np.float64]


def prior_latents(seed: int, start: int, count: int, z_dim: int) -> Tensor:
    """Latents of the samples `start` … `start + count - 1` of a run.

    Args:
        seed: of the run, 0 … 2⁶⁴ - 1.
        start: index of the first sample, at least 0.
        count: how many samples, at least 0.
        z_dim: length of a latent, at least 1.

    Returns:
        Draws from N(0, I), (count, z_dim) float32 on the CPU.

    Raises:
        ArgumentError: an argument is outside its range.
    """
    return normals(seed, start, count, z_dim, stream="prior")


def normals(seed: int, start: int, count: int, width: int, *, stream: str, rows: Sequence[int] | None = None) -> Tensor:
    """Standard normals that belong to samples, for a purpose of their own.

    Args:
        seed, start, count: as for `prior_latents`.
        width: how many numbers each sample gets, at least 1.
        stream: names the purpose, for instance "langevin/17"; different names give independent numbers.
        rows: which of the samples, ascending, from 0 to count - 1; all by default.

    Returns:
        Draws from N(0, 1), (count or rows, width) float32 on the CPU, never beyond ±8.3.

    Raises:
        ArgumentError: an argument is outside its range.
    """
    words = _words(seed, start, count, width, stream, rows)
    result = np.empty(words.shape, dtype=np.float32)
    at_once = max(1, _VALUES_AT_ONCE // width)
    for first in range(0, len(words), at_once):
        result[first : first + at_once] = _inverse_normal(_centred(words[first : first + at_once]))
    return torch.from_numpy(result)


def uniforms(
    seed: int, start: int, count: int, width: int, *, stream: str, rows: Sequence[int] | None = None
) -> Tensor:
    """Uniform numbers that belong to samples, for instance to accept or reject; arguments as for `normals`.

    Returns:
        Draws from the open interval (0, 1), (count or rows, width) float64 on the CPU (float32 would round some of them
        to 1).

    Raises:
        ArgumentError: an argument is outside its range.
    """
    return torch.from_numpy(0.5 + _centred(_words(seed, start, count, width, stream, rows)))


def _words(
    seed: int, start: int, count: int, width: int, stream: str, rows: Sequence[int] | None
) -> NDArray[np.uint64]:
    """Raw words (count or rows, width); row i takes whole counters, from i * ceil(width / 4) on."""
    seed, start = _integer("seed", seed, 0, 2**64 - 1), _integer("start", start, 0, 2**64 - 1)
    count, width = _integer("count", count, 0, 2**64 - 1), _integer("the number of columns", width, 1, 2**32)
    counts = -(-width // _WORDS_PER_COUNT)
    purpose = int.from_bytes(sha256(stream.encode()).digest()[:8], "little")
    generator = np.random.Philox(counter=start * counts, key=seed | purpose << 64)
    words: NDArray[np.uint64]
    if rows is None or len(rows) == count:
        words = generator.random_raw(count * counts * _WORDS_PER_COUNT)
        return words.reshape(count, counts * _WORDS_PER_COUNT)[:, :width]
    words = np.empty((len(rows), width), np.uint64)
    reached = 0
    for i, row in enumerate(rows):
        generator.advance((row - reached) * counts)
        words[i] = generator.random_raw(counts * _WORDS_PER_COUNT)[:width]
        reached = row + 1
    return words


def _integer(name: str, value: int, lowest: int, highest: int) -> int:
    # A NumPy integer would wrap around at 2**64 where a Python one goes on.
    if not (isinstance(value, int | np.integer) and lowest <= value <= highest):
        raise ArgumentError(f"{name} must be an integer from {lowest} to {highest}; got {value!r}")
    return int(value)


def _centred(words: NDArray[np.uint64]) -> Doubles:
    """Uniform on (-½, ½), symmetric, never an end: 52 bits of each word and a half, which float64 holds exactly."""
    return ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52 - 0.5


def _inverse_normal(q: Doubles) -> Doubles:
    """x with Φ(x) = ½ + q, for q in (-½, ½), to about 1e-15 of x."""
    result = q * _ratio(_CENTRE, 0.425**2 - q * q)
    outside = np.abs(q) > 0.425
    tail = q[outside]
    r = np.sqrt(-_log(0.5 - np.abs(tail)))
    x = np.where(r <= 5.0, _ratio(_TAIL, r - 1.6), _ratio(_FAR_TAIL, r - 5.0))
    result[outside] = np.copysign(x, tail)
    return result


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Doubles) -> Doubles:
    above, below = (_polynomial(side, x) for side in coefficients)
    return above / below


def _polynomial(coefficients: tuple[float, ...], x: Doubles) -> Doubles:
    total = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total *= x
        total += coefficient
    return total


def _log(p: Doubles) -> Doubles:
    """Natural logarithm: log(m 2ᵉ) = e log 2 + 2 artanh((m - 1) / (m + 1)), with m from ½ to 1."""
    mantissa, exponent = np.frexp(p)
    y = (mantissa - 1.0) / (mantissa + 1.0)
    series = _polynomial(tuple(2.0 / (2 * k + 1) for k in range(18)), y * y)
    return exponent * _LN2 + y * series
