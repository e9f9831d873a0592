"""The attribute heads of one generator: small networks on its latents, run together, stored apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from energyql.attributes.heads import FusedHeads, Head, RawOutputs
from energyql.attributes.predictions import Prediction, output_count, split_outputs
from energyql.errors import ArgumentError, ModelError, VocabularyError
from energyql.files import read_json, write_json, write_tensors
from energyql.vocabulary import Vocabulary

__all__ = ["AttributeBank", "Head"]

SPACES = ("w", "z", "direction")
"""What heads can read. The direction is z scaled to unit second moment, which is all that a StyleGAN sees of z."""
FittedLabel = int | tuple[float, ...] | str | None


class AttributeBank:
    """Heads by attribute name.

    Args:
        vocabulary: what the heads know.
        heads: one an attribute.
        space: the latent that they read, one of `SPACES`.
        truncation: range of truncation psi whose latents they were fitted on.
        label: class label of those latents, a number or a list of them; "random" where each had one of its own; `None`
            for a generator without classes.
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
        label: FittedLabel = None,
        generator: str = "",
    ) -> None:
        if list(heads) != list(vocabulary):
            raise ModelError(f"heads {list(heads)} do not match the vocabulary {list(vocabulary)}")
        if not heads:
            raise ModelError("a bank needs at least one head")
        if space not in SPACES:
            raise ModelError(f"heads read one of {', '.join(SPACES)}, not {space!r}")
        if not -math.inf < truncation[0] <= truncation[1] < math.inf:
            raise ModelError(f"{truncation} is no range of truncation")
        if not _is_label(label):
            raise ModelError(f"{label!r} is no class label")
        if label == "random" and space != "w":
            raise ModelError(
                "heads that read z cannot tell the classes apart", hint="let them read w, or fit one class"
            )
        latent_dim = next(iter(heads.values())).skip_weight.shape[-1]
        for name, head in heads.items():
            head.check(name, output_count(vocabulary[name]), latent_dim)
        self.vocabulary = vocabulary
        self.heads = dict(heads)
        self.space = space
        self.truncation = truncation
        self.label = label
        self.generator = generator
        self._raw: dict[tuple[str, ...], RawOutputs] = {}

    @property
    def latent_dim(self) -> int:
        """Numbers in a latent that the heads read."""
        return next(iter(self.heads.values())).hidden_weight.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the heads are."""
        return next(iter(self.heads.values())).hidden_weight.device

    def to(self, device: torch.device | str) -> AttributeBank:
        """The same bank on another device."""
        if self.device == torch.device(device):
            return self
        return self._having(self.vocabulary, {name: head.to(device) for name, head in self.heads.items()})

    def predict(self, latent: Tensor, names: Sequence[str] | None = None) -> dict[str, Prediction]:
        """Run the heads of `names` (all by default) once.

        Args:
            latent: (batch, latent_dim): w, or z for the other spaces.
            names: attributes in any order.

        Raises:
            ArgumentError: there is no head of that name.
        """
        raw = self.raw_outputs(tuple(self.vocabulary if names is None else names))
        return split_outputs(raw.function(latent), raw.specs, raw.std)

    def raw_outputs(self, names: tuple[str, ...]) -> RawOutputs:
        """The heads of `names` as one function, and how to read what it returns.

        Raises:
            ArgumentError: there is no head of that name.
        """
        found = self._raw.get(names)
        if found is None:
            found = self._raw[names] = self._fuse(names)
        return found

    def with_heads(self, specs: Vocabulary, heads: Mapping[str, Head], *, replace: bool = False) -> AttributeBank:
        """A bank with more heads; those it has stay as they are, to the last bit.

        Args:
            specs: the attributes to add, in their order.
            heads: one for each of them.
            replace: let a new head take the place of one with the same name.

        Raises:
            VocabularyError: a name is taken and `replace` is false.
            ModelError: a head does not fit.
        """
        if (taken := [name for name in specs if name in self.vocabulary]) and not replace:
            raise VocabularyError(
                f"the model already has {', '.join(map(repr, taken))}",
                hint="give the attribute another name, or ask to replace the old one",
            )
        merged = dict(self.vocabulary) | dict(specs)
        known = Vocabulary(merged.values(), model=self.vocabulary.model, relations=self.vocabulary.relations)
        return self._having(known, {**self.heads, **heads})

    def _having(self, vocabulary: Vocabulary, heads: Mapping[str, Head]) -> AttributeBank:
        """A bank of other heads that read the same latents."""
        return AttributeBank(
            vocabulary, heads, space=self.space, truncation=self.truncation, label=self.label, generator=self.generator
        )

    def _fuse(self, names: tuple[str, ...]) -> RawOutputs:
        unknown = [name for name in names if name not in self.heads]
        if unknown or not names:
            raise ArgumentError(f"this bank has no heads for {unknown}" if unknown else "name at least one attribute")
        with torch.inference_mode(False):  # it is kept, and a tensor made in inference mode could not serve a gradient
            function = FusedHeads.of([self.heads[name] for name in names], direction=self.space == "direction")
        specs = [self.vocabulary[name] for name in names]
        std = {spec.name: self.heads[spec.name].std for spec in specs if spec.kind == "continuous"}
        return RawOutputs(function, specs, std)

    def save(self, folder: Path) -> None:
        """Write `attributes.safetensors` and `vocabulary.json`, each whole or not at all."""
        tensors = {
            f"{name}/{field}": tensor for name, head in self.heads.items() for field, tensor in head.tensors().items()
        }
        write_tensors(folder / "attributes.safetensors", tensors)
        write_json(
            folder / "vocabulary.json",
            {
                "space": self.space,
                "truncation": list(self.truncation),
                "label": list(self.label) if isinstance(self.label, tuple) else self.label,
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
            label = description.get("label")  # models of generators without classes may go without
            label = tuple(float(number) for number in label) if isinstance(label, list) else label
            if not _is_label(label):
                raise ValueError(f"{label!r} is no class label")
        except KeyError as error:
            raise ModelError(f"{described}: {error} is missing") from None
        except (TypeError, ValueError, OverflowError, VocabularyError) as error:
            raise ModelError(f"{described}: {error}") from error
        try:
            tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
            heads = {name: _take_head(name, tensors) for name in vocabulary}
            for name, head in heads.items():
                if not all(tensor.isfinite().all() for tensor in head.tensors().values()):
                    raise ModelError(f"the head of {name!r} has a number that is not finite")
                if not (head.std > 0).all():
                    raise ModelError(f"the head of {name!r} has a std that is not above 0")
            if tensors:
                raise ModelError(f"it holds tensors that no attribute needs: {', '.join(sorted(tensors)[:5])}")
            return cls(vocabulary, heads, space=space, truncation=(low, high), label=label, generator=generator)
        except KeyError as error:
            raise ModelError(f"{path}: {error} is missing, which {described.name} asks for") from None
        except (OSError, SafetensorError, ModelError) as error:
            raise ModelError(f"{path}: {error}") from error


def _is_label(label: object) -> bool:
    if isinstance(label, tuple):
        return all(isinstance(number, float) and math.isfinite(number) for number in label)
    return label in (None, "random") or (isinstance(label, int) and not isinstance(label, bool) and label >= 0)


def _take_head(name: str, tensors: dict[str, Tensor]) -> Head:
    """Take the head called `name` out of the tensors of a bank."""
    prefix = f"{name}/"
    mine = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    try:
        head = Head.from_tensors(mine)
    except KeyError as error:
        raise KeyError(prefix + error.args[0]) from None
    for field in head.tensors():
        del tensors[prefix + field]
    return head
