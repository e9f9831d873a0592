"""Doubts about samples: a second set of heads, fitted to other labels, and the shell in which prior latents lie.

A sampler moves to latents where the heads are certain. These are often far from all labelled latents, where a head can
be certain and wrong. There two sets of heads, fitted to other labels, often disagree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from energyql.attributes.bank import Bank
from energyql.attributes.heads import AttributeBank, Head, take_head
from energyql.errors import ModelError
from energyql.files import DAMAGED_MODEL, read_tensors, write_tensors
from energyql.numerics.shapes import Bool, Float

SECOND = "second.safetensors"
"""Name of the file of the second heads in a model folder."""
DOUBT = "two sets of heads disagree, or the latent is too far out"
"""The reasons why a sample is doubtful, in words."""
_DEVIATIONS = 3.090
"""The 99.9 % quantile of the standard normal, in standard deviations."""


def outside_shell(z: Float[Tensor, "n z_dim"]) -> Bool[Tensor, " n"]:
    """Return whether the squared norm of z is above its 99.9 % quantile under the prior, a chi-square distribution.

    Samplers end there if the energy falls only far from the prior. It is a sign of this for a StyleGAN too: its
    pictures do not depend on the norm of z, but every move across z makes z longer.
    """
    part = 2 / (9 * z.shape[1])
    limit = z.shape[1] * (1 - part + _DEVIATIONS * math.sqrt(part)) ** 3  # Wilson and Hilferty 1931
    return z.square().sum(1) > limit


def second_bank(bank: AttributeBank, heads: Mapping[str, Head]) -> AttributeBank:
    """Return `bank` with `heads` in place of its heads of the same names; other attributes keep their heads.

    Raises:
        ModelError: a head does not fit.
    """
    moved = {name: head.to(bank.device) for name, head in heads.items()}
    return AttributeBank(bank.vocabulary, bank.heads | moved, **vars(bank.fitted))


def save_second(folder: Path, heads: Mapping[str, Head]) -> None:
    """Write `second.safetensors`, whole or not at all; remove it if there are no heads."""
    if not heads:
        (folder / SECOND).unlink(missing_ok=True)
        return
    tensors = {f"{name}/{field}": tensor for name, head in heads.items() for field, tensor in head.tensors().items()}
    write_tensors(folder / SECOND, tensors)


def load_second(folder: Path, bank: Bank) -> dict[str, Head]:
    """Return the second heads of a model folder by attribute; `bank` holds its first heads. Attributes may have none.

    Raises:
        ModelError: the file is damaged, or does not fit the first heads.
    """
    path, first = folder / SECOND, bank.as_heads
    if not path.is_file() or first is None:
        return {}
    tensors = {name: tensor.float() for name, tensor in read_tensors(path).items()}
    try:
        heads = {name: take_head(name, tensors) for name in bank.vocabulary if f"{name}/std" in tensors}
        if tensors:
            raise ModelError(f"it holds tensors that no attribute needs: {', '.join(sorted(tensors)[:5])}")
        if not all(tensor.isfinite().all() for head in heads.values() for tensor in head.tensors().values()):
            raise ModelError("a head has a number that is not finite")
        second_bank(first, heads)  # checks the shapes
    except KeyError as error:
        raise ModelError(f"{path}: {error} is missing", hint=DAMAGED_MODEL) from None
    except ModelError as error:
        raise ModelError(f"{path}: {error}", hint="train the attributes again, or delete this file") from error
    return heads


def replace_second(folder: Path, bank: Bank, names: Iterable[str], heads: Mapping[str, Head]) -> None:
    """Replace the second heads of the attributes `names` in a model folder, whose first heads are `bank`, by `heads`.

    Attributes of `names` that `heads` lacks have no second head afterwards; others keep theirs.
    """
    replaced, old = set(names), load_second(folder, bank)
    new = {name: head for name, head in old.items() if name not in replaced} | dict(heads)
    if new != old:
        save_second(folder, new)
