"""The attribute heads of one generator: small networks on its latents, run together, stored apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from energyql.attributes.outputs import output_count, split_outputs
from energyql.attributes.predictions import Prediction
from energyql.errors import ArgumentError, ModelError, VocabularyError
from energyql.files import read_json, write_json, write_tensors
from energyql.vocabulary import Vocabulary

SLOPE = 0.2  # of the leaky ReLU between the two layers


@dataclass(frozen=True)
class Head:
    """`out(leaky_relu(hidden(x))) + skip(x)` on a latent x. The linear path keeps a gradient where the rest is flat.

    Attributes:
        hidden_weight: (hidden, latent_dim); hidden_bias: (hidden,).
        out_weight: (outputs, hidden); skip_weight: (outputs, latent_dim); out_bias: (outputs,).
        std: residual standard deviation of a continuous attribute, a scalar; 1 for the others.
    """

    hidden_weight: Tensor
    hidden_bias: Tensor
    out_weight: Tensor
    skip_weight: Tensor
    out_bias: Tensor
    std: Tensor


@dataclass(frozen=True)
class Fused:
    """The heads of some attributes as two matrix products."""

    hidden_weight: Tensor
    hidden_bias: Tensor
    out_weight: Tensor  # block-diagonal
    skip_weight: Tensor
    out_bias: Tensor


class AttributeBank:
    """Heads by attribute name.

    Args:
        vocabulary: what the heads know.
        heads: one an attribute.
        space: the latent that they read, "w" or "z".
        truncation: range of truncation psi whose latents they were fitted on.
        generator: fingerprint of the generator that they belong to.

    Raises:
        ModelError: heads, vocabulary and the rest do not belong together.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        heads: Mapping[str, Head],
        *,
        space: str = "w",
        truncation: tuple[float, float] = (1.0, 1.0),
        generator: str = "",
    ) -> None:
        if list(heads) != list(vocabulary):
            raise ModelError(f"heads {list(heads)} do not match the vocabulary {list(vocabulary)}")
        if not heads:
            raise ModelError("a bank needs at least one head")
        if space not in ("w", "z"):
            raise ModelError(f'heads read "w" or "z", not {space!r}')
        if not -math.inf < truncation[0] <= truncation[1] < math.inf:
            raise ModelError(f"{truncation} is no range of truncation")
        latent_dim = next(iter(heads.values())).skip_weight.shape[-1]
        for name, head in heads.items():
            _check_head(name, head, output_count(vocabulary[name]), latent_dim)
        self.vocabulary = vocabulary
        self.heads = dict(heads)
        self.space = space
        self.truncation = truncation
        self.generator = generator
        self._fused: dict[tuple[str, ...], Fused] = {}

    @property
    def latent_dim(self) -> int:
        """Numbers in a latent that the heads read."""
        return next(iter(self.heads.values())).hidden_weight.shape[1]

    def to(self, device: torch.device | str) -> AttributeBank:
        """The same bank on another device."""
        heads = {
            name: Head(**{field: tensor.to(device) for field, tensor in vars(head).items()})
            for name, head in self.heads.items()
        }
        return AttributeBank(
            self.vocabulary, heads, space=self.space, truncation=self.truncation, generator=self.generator
        )

    def predict(self, latent: Tensor, names: Sequence[str] | None = None) -> dict[str, Prediction]:
        """Run the heads of `names` (all by default) once.

        Args:
            latent: (batch, latent_dim), in the space that the bank was fitted for.
            names: attributes in any order.

        Raises:
            ArgumentError: there is no head of that name.
        """
        chosen = tuple(self.vocabulary if names is None else names)
        fused = self._fused.get(chosen)
        if fused is None:
            fused = self._fused[chosen] = self._fuse(chosen)
        hidden = F.leaky_relu(F.linear(latent, fused.hidden_weight, fused.hidden_bias), SLOPE)
        outputs = F.linear(hidden, fused.out_weight, fused.out_bias) + F.linear(latent, fused.skip_weight)
        return split_outputs(
            outputs, [self.vocabulary[name] for name in chosen], {name: self.heads[name].std for name in chosen}
        )

    def _fuse(self, names: tuple[str, ...]) -> Fused:
        unknown = [name for name in names if name not in self.heads]
        if unknown or not names:
            raise ArgumentError(f"this bank has no heads for {unknown}" if unknown else "name at least one attribute")
        heads = [self.heads[name] for name in names]
        with torch.inference_mode(False):  # it is kept, and a tensor made in inference mode could not serve a gradient
            return Fused(
                torch.cat([head.hidden_weight for head in heads]),
                torch.cat([head.hidden_bias for head in heads]),
                torch.block_diag(*(head.out_weight for head in heads)),
                torch.cat([head.skip_weight for head in heads]),
                torch.cat([head.out_bias for head in heads]),
            )

    def save(self, folder: Path) -> None:
        """Write `attributes.safetensors` and `vocabulary.json`, each whole or not at all."""
        tensors = {
            f"{name}/{field}": tensor for name, head in self.heads.items() for field, tensor in vars(head).items()
        }
        write_tensors(folder / "attributes.safetensors", tensors)
        write_json(
            folder / "vocabulary.json",
            {
                "space": self.space,
                "truncation": list(self.truncation),
                "generator": self.generator,
                "vocabulary": self.vocabulary.to_dict(),
            },
        )

    @classmethod
    def load(cls, folder: Path) -> AttributeBank:
        """Read what `save` wrote.

        Raises:
            ModelError: a file is missing, damaged or does not fit the other.
        """
        described, path = folder / "vocabulary.json", folder / "attributes.safetensors"
        description = read_json(described)
        try:
            vocabulary = Vocabulary.from_dict(description["vocabulary"])
            low, high = (float(psi) for psi in description["truncation"])
            space, generator = str(description["space"]), str(description["generator"])
        except KeyError as error:
            raise ModelError(f"{described}: {error} is missing") from None
        except (TypeError, ValueError, OverflowError, VocabularyError) as error:
            raise ModelError(f"{described}: {error}") from error
        try:
            tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
            fields = list(Head.__dataclass_fields__)
            heads = {name: Head(**{field: tensors.pop(f"{name}/{field}") for field in fields}) for name in vocabulary}
            for name, head in heads.items():
                if not all(tensor.isfinite().all() for tensor in vars(head).values()):
                    raise ModelError(f"the head of {name!r} has a number that is not finite")
                if not (head.std > 0).all():
                    raise ModelError(f"the head of {name!r} has a std that is not above 0")
            if tensors:
                raise ModelError(f"it holds tensors that no attribute needs: {', '.join(sorted(tensors)[:5])}")
            return cls(vocabulary, heads, space=space, truncation=(low, high), generator=generator)
        except KeyError as error:
            raise ModelError(f"{path}: {error} is missing, which {described.name} asks for") from None
        except (OSError, SafetensorError, ModelError) as error:
            raise ModelError(f"{path}: {error}") from error


def _check_head(name: str, head: Head, outputs: int, latent_dim: int) -> None:
    hidden = len(head.hidden_bias) if head.hidden_bias.ndim else 0
    for field, shape in {
        "hidden_weight": (hidden, latent_dim),
        "hidden_bias": (hidden,),
        "out_weight": (outputs, hidden),
        "skip_weight": (outputs, latent_dim),
        "out_bias": (outputs,),
        "std": (),
    }.items():
        tensor: Tensor = getattr(head, field)
        if tuple(tensor.shape) != shape:
            raise ModelError(f"the head of {name!r}: {field} has shape {tuple(tensor.shape)}, not {shape}")
