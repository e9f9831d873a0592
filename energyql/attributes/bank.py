"""The attribute heads of one generator: small networks on its latents, run together, stored apart."""

from __future__ import annotations

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
        self.vocabulary = vocabulary
        self.heads = dict(heads)
        self.space = space
        self.truncation = truncation
        self.generator = generator
        self._fused: dict[tuple[str, ...], Fused] = {}

    @property
    def latent_dim(self) -> int:
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
        path = folder / "attributes.safetensors"
        description = read_json(folder / "vocabulary.json")
        try:
            vocabulary = Vocabulary.from_dict(description["vocabulary"])
            low, high = description["truncation"]
            tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
            fields = list(Head.__dataclass_fields__)
            heads = {name: Head(**{field: tensors.pop(f"{name}/{field}") for field in fields}) for name in vocabulary}
            if tensors:
                raise ModelError(f"{path} holds tensors that no attribute needs: {', '.join(sorted(tensors)[:5])}")
            for name, head in heads.items():
                if head.out_bias.shape != (output_count(vocabulary[name]),):
                    raise ModelError(f"{path}: the head of {name!r} does not fit its values in vocabulary.json")
            return cls(
                vocabulary,
                heads,
                space=description["space"],
                truncation=(low, high),
                generator=description["generator"],
            )
        except KeyError as error:
            raise ModelError(f"{folder}: {error} is missing in vocabulary.json or attributes.safetensors") from None
        except (OSError, SafetensorError, TypeError, ValueError, VocabularyError) as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(f"cannot read the attributes in {folder}: {error}") from error
