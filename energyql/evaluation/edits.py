"""How good an edit is: did it do what was asked, did it keep the rest, is it the same picture still."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

Rows = npt.NDArray[np.bool_]


def identity_distance(before: Tensor, after: Tensor) -> Tensor:
    """One minus the cosine of features of the picture before and after, (n,), in [0, 2].

    With features of a face recogniser (ArcFace: Deng et al. 2019, arXiv 1801.07698) this is the ID of Nie et al. 2021
    (arXiv 2110.10873). With those of an attribute judge it measures how much of all that the judge sees has changed,
    what was asked for included; so compare it between edits of the same queries only.

    Args:
        before, after: (n, dim), row by row the same picture.
    """
    return 1 - F.cosine_similarity(before.double(), after.double(), dim=1)


@dataclass(frozen=True)
class EditStrength:
    """What an edit achieved, and what it cost.

    Attributes:
        strength: share of pictures that meet the query after it, minus the share before.
        leak: the largest share of pictures in which any one attribute changed that was not asked for.
        leaking: that attribute; empty if there is none.
    """

    strength: float
    leak: float
    leaking: str

    @property
    def disentangled(self) -> float:
        """The disentangled edit strength, `strength - leak`: at most 1; below 0 the edit did more harm than good."""
        return self.strength - self.leak


def edit_strength(before: Rows, after: Rows, leaked: Mapping[str, Rows]) -> EditStrength:
    """Measure one edit of n pictures.

    After the disentangled edit strength (DES) of Nie et al. 2021 (arXiv 2110.10873): the change of the attribute that
    was asked for, minus the largest change of any other one. Changes are counted here by decided values of an
    independent judge, so that every kind of attribute and every query has a change; the published program does not
    hold their formula's code, and numbers are not to be compared with theirs.

    Args:
        before, after: whether the pictures meet the query, (n,).
        leaked: attribute that was not asked for -> whether it changed without need, (n,).
    """
    shares = {name: float(rows.mean()) for name, rows in leaked.items()}
    worst = max(shares, key=lambda name: shares[name], default="")
    leak = shares.get(worst, 0.0)
    return EditStrength(float(after.mean()) - float(before.mean()), leak, worst if leak else "")


def as_images(pictures: list[npt.NDArray[np.uint8]]) -> Tensor:
    """Pictures (height, width, 3) of one size as images in [-1, 1], (n, 3, height, width)."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
