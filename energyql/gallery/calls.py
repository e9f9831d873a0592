"""Galleries of one thing, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from energyql.gallery.gallery import Gallery, Query
from energyql.pipeline.model import Model
from energyql.sampling import Sampler

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Settings(TypedDict, total=False):
    """The other arguments of `Gallery`, by name."""

    title: str
    model: str | Path | Model
    semantics: str
    sampler: str | Sampler
    strength: float | None
    truncation: float | None
    label: int | Sequence[float] | None
    seed: int
    device: str
    batch_size: int | None
    progress: bool


def truth_table(*literals: Query, n: int = 4, **settings: Unpack[Settings]) -> Gallery:
    """A gallery of every combination of up to four attributes; see `Gallery.add_truth_table`.

    Args:
        literals: such as `"smile", "hair = red", E.skin_tone > 0.6`.
        n: pictures a combination.
        settings: the other arguments of `Gallery`.

    Raises:
        EnergyQLError: a literal or a setting is wrong.
    """
    gallery = Gallery(n=n, **settings)
    gallery.add_truth_table(*literals, n=n)
    return gallery


def traverse(start: Query, end: Query, steps: int = 8, *, n: int = 3, **settings: Unpack[Settings]) -> Gallery:
    """A gallery of ways from samples of one query to samples of another; see `Gallery.add_traversal`.

    Args:
        start, end: the two queries.
        steps: pictures a way, both ends included.
        n: ways.
        settings: the other arguments of `Gallery`.

    Raises:
        EnergyQLError: a query or a setting is wrong.
    """
    gallery = Gallery(n=n, **settings)
    gallery.add_traversal(start, end, steps, n=n)
    return gallery
