"""Attribute heads: the network of one attribute, several run as few products, all of one generator, and second heads.

A sampler moves to latents where the heads are certain. These are often far from all labelled latents, where a head can
be certain and wrong. There two sets of heads, fitted to other labels, often disagree.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from energyql.attributes.bank import DESCRIBED, SPACES, Bank, Described, FittedLabel, FittedUnder
from energyql.attributes.predictions import Prediction, output_count, split_outputs
from energyql.attributes.quality import READER, HeadReport, read_reports, write_reports
from energyql.errors import ArgumentError, ModelError, VocabularyError
from energyql.files import DAMAGED_MODEL, read_tensors, write_tensors
from energyql.kinds import KINDS
from energyql.numerics.linear import Dense, DenseStack, Linear
from energyql.numerics.pullback import Back, inverse_norm, normalized, normalized_back
from energyql.numerics.shapes import Bool, Float
from energyql.vocabulary import AttributeSpec, Vocabulary

SLOPE = 0.2  # of the leaky ReLU after each hidden layer
MOST_LAYERS = 16
FIELDS = ("hidden_weight", "hidden_bias", "out_weight", "skip_weight", "out_bias", "std")


@dataclass(frozen=True)
class Head:
    """`out(h) + skip(x)` on a latent x, where h is x after one or more hidden layers, each with a leaky ReLU.

    The linear path has a gradient where the rest is flat. Without hidden units (width 0) the head is linear.

    Attributes:
        hidden_weight, hidden_bias: the first hidden layer, (width, latent_dim) and (width,).
        out_weight, skip_weight, out_bias: the last layer.
        std: residual standard deviation of a continuous attribute; 1 for the others.
        deeper: weight (width, width before) and bias (width,) of each further hidden layer.
    """

    hidden_weight: Float[Tensor, "width latent_dim"]
    hidden_bias: Float[Tensor, " width"]
    out_weight: Float[Tensor, "outputs last_width"]
    skip_weight: Float[Tensor, "outputs latent_dim"]
    out_bias: Float[Tensor, " outputs"]
    std: Float[Tensor, ""]
    deeper: tuple[tuple[Tensor, Tensor], ...] = ()

    def tensors(self) -> dict[str, Tensor]:
        """Return all parameters by the names they are stored under."""
        tensors = {field: getattr(self, field) for field in FIELDS}
        for i, (weight, bias) in enumerate(self.deeper):
            tensors |= {f"deeper{i}_weight": weight, f"deeper{i}_bias": bias}
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Head:
        """Make a head from `tensors()`; other names are ignored.

        Raises:
            KeyError: one is missing.
        """
        deeper: list[tuple[Tensor, Tensor]] = []
        while f"deeper{len(deeper)}_weight" in tensors and len(deeper) < MOST_LAYERS:
            i = len(deeper)
            deeper.append((tensors[f"deeper{i}_weight"], tensors[f"deeper{i}_bias"]))
        return cls(**{field: tensors[field] for field in FIELDS}, deeper=tuple(deeper))

    def to(self, device: torch.device | str) -> Head:
        """Return the same head on another device."""
        return Head.from_tensors({name: tensor.to(device) for name, tensor in self.tensors().items()})

    def check(self, name: str, outputs: int, latent_dim: int) -> None:
        """Check the shapes of a head called `name` with this many outputs and this latent size.

        Raises:
            ModelError: a shape is another.
        """
        width = len(self.hidden_bias) if self.hidden_bias.ndim else 0
        shapes: dict[str, tuple[int, ...]] = {"hidden_weight": (width, latent_dim), "hidden_bias": (width,)}
        for i, (_, bias) in enumerate(self.deeper):
            before, width = width, len(bias) if bias.ndim else 0
            shapes |= {f"deeper{i}_weight": (width, before), f"deeper{i}_bias": (width,)}
        shapes |= {"out_weight": (outputs, width), "skip_weight": (outputs, latent_dim), "out_bias": (outputs,)}
        shapes |= {"std": ()}
        tensors = self.tensors()
        for field, shape in shapes.items():
            if tuple(tensors[field].shape) != shape:
                raise ModelError(f"the head of {name!r}: {field} has shape {tuple(tensors[field].shape)}, not {shape}")


def take_head(name: str, tensors: dict[str, Tensor]) -> Head:
    """Remove the tensors of the head called `name` from those of a bank, and return the head.

    Raises:
        KeyError: one is missing.
    """
    prefix = f"{name}/"
    mine = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
    try:
        head = Head.from_tensors(mine)
    except KeyError as error:
        raise KeyError(prefix + error.args[0]) from None
    for field in head.tensors():
        del tensors[prefix + field]
    return head


@dataclass(frozen=True)
class FusedHeads:
    """Several heads as one function from latents to outputs; `Differentiable` and `Convertible`.

    Attributes:
        groups: networks whose outputs are added.
        bias: added to the sum.
        direction: whether latents are scaled to unit second moment first, so that their length has no effect.
    """

    groups: tuple[_Group, ...]
    bias: Float[Tensor, " outputs"]
    direction: bool = False

    @classmethod
    def of(cls, heads: Sequence[Head], *, direction: bool = False) -> FusedHeads:
        """Fuse at least one head on the same latents; outputs are side by side, in the order given."""
        deep: dict[tuple[int, ...], list[int]] = {}
        for i, head in enumerate(heads):
            if head.deeper:
                deep.setdefault((len(head.hidden_bias), *(len(bias) for _, bias in head.deeper)), []).append(i)
        groups = (_shallow(heads), *(_deep(heads, members) for members in deep.values()))
        return cls(groups, torch.cat([head.out_bias for head in heads]), direction)

    def then(self, matrix: Float[Tensor, "rows outputs"], offset: Float[Tensor, " rows"]) -> FusedHeads:
        """Return the function `matrix @ outputs + offset`, folded into the last layer.

        Both are float64 on the CPU; the offset may be infinite.
        """

        def mapped(weight: Tensor) -> Tensor:
            return matrix @ weight.cpu().double()

        groups = tuple(replace(group, out=Linear(mapped(group.out.weight).to(self.bias))) for group in self.groups)
        return replace(self, groups=groups, bias=(mapped(self.bias) + offset).to(self.bias))

    def computed_in(self, dtype: torch.dtype) -> FusedHeads:
        """See `Convertible`. The last layer is small and keeps its dtype, so that outputs are not rounded."""
        return replace(self, groups=tuple(group.computed_in(dtype) for group in self.groups))

    def __call__(self, latent: Float[Tensor, "batch latent_dim"]) -> Float[Tensor, "batch outputs"]:
        """Return the outputs of latents."""
        latent = normalized(latent) if self.direction else latent
        return self._total(group.run(latent) for group in self.groups)

    def pullback(self, latent: Float[Tensor, "batch latent_dim"]) -> tuple[Float[Tensor, "batch outputs"], Back]:
        """See `Differentiable`."""
        if not self.direction:
            layers = [group.run(latent) for group in self.groups]
            return self._total(layers), partial(self._back, layers)
        scale = inverse_norm(latent)
        scaled = latent * scale
        layers = [group.run(scaled) for group in self.groups]
        return self._total(layers), lambda grad: normalized_back(self._back(layers, grad), scaled, scale)

    def _total(self, results: Iterable[list[Tensor]]) -> Float[Tensor, "batch outputs"]:
        total = self.bias
        for group, layers in zip(self.groups, results, strict=True):
            total = total + group.out(_side_by_side(layers[-1]).to(total))
        return total

    def _back(self, kept: list[list[Tensor]], grad: Tensor) -> Float[Tensor, "batch latent_dim"]:
        first, *others = (group.back(layers, grad) for group, layers in zip(self.groups, kept, strict=True))
        for more in others:
            first += more
        return first.to(grad)


class RawOutputs(NamedTuple):
    """Several heads as one function, and the layout of its outputs.

    Attributes:
        function: function from latents to the outputs of all heads side by side.
        specs: the attributes, in the order of the outputs; each has `output_count` of them.
        std: residual standard deviation of each continuous attribute.
    """

    function: FusedHeads
    specs: Sequence[AttributeSpec]
    std: Mapping[str, Float[Tensor, ""]]


@dataclass(frozen=True)
class _Group:
    """Networks that run together: of one hidden layer and any width, or of the same widths.

    Attributes:
        first: first layers of all networks, side by side.
        deeper: further hidden layers.
        out: last layers, from the last hidden layers, side by side, to terms of the outputs of all heads.
    """

    first: Dense
    deeper: tuple[DenseStack, ...]
    out: Linear

    def computed_in(self, dtype: torch.dtype) -> _Group:
        """Return the same networks with all layers before `out` in another dtype."""
        return _Group(self.first.computed_in(dtype), tuple(layer.computed_in(dtype) for layer in self.deeper), self.out)

    def run(self, latent: Float[Tensor, "batch latent_dim"]) -> list[Tensor]:
        """Return the result of each layer: the first (batch, units), the others (heads, batch, width)."""
        layers = [self.first(latent.to(self.first.weight))]
        if self.deeper:
            heads, _, width = self.deeper[0].weight.shape
            x = layers[0].view(len(latent), heads, width).transpose(0, 1)
            for layer in self.deeper:
                x = layer(x)
                layers.append(x)
        return layers

    def back(self, layers: list[Tensor], grad: Float[Tensor, "batch outputs"]) -> Float[Tensor, "batch latent_dim"]:
        """Return the gradient with respect to the latents, from `grad`, the one with respect to the outputs."""
        x = self.out.back(grad).to(self.first.weight)
        if self.deeper:
            heads, width, _ = self.deeper[-1].weight.shape
            x = x.view(len(x), heads, width).transpose(0, 1)
            for layer, result in zip(reversed(self.deeper), reversed(layers), strict=False):
                x = layer.back_through(x, result)
            x = _side_by_side(x)
        return self.first.back_through(x, layers[0])


def _side_by_side(x: Tensor) -> Float[Tensor, "batch units"]:
    """Return x (heads, batch, width) as (batch, heads * width); (batch, units) as it is."""
    return x if x.ndim == 2 else x.transpose(0, 1).flatten(1)


def _shallow(heads: Sequence[Head]) -> _Group:
    """Group the heads of one hidden layer, and the linear paths of all heads.

    A linear path is computed by two hidden units, because (f(x) - f(-x)) / (1 + slope) = x for a leaky ReLU f. So it
    needs no matrix product of its own.
    """
    plain = [head for head in heads if not head.deeper]
    skip = torch.cat([head.skip_weight for head in heads])
    path = torch.eye(len(skip), dtype=skip.dtype, device=skip.device) / (1 + SLOPE)
    first = torch.cat([*(head.hidden_weight for head in plain), skip, -skip])
    bias = torch.cat([*(head.hidden_bias for head in plain), skip.new_zeros(2 * len(skip))])
    blocks = [head.out_weight[:, :0] if head.deeper else head.out_weight for head in heads]
    out = torch.cat([torch.block_diag(*blocks), path, -path], 1)
    return _Group(Dense(first, bias, SLOPE), (), Linear(out))


def _deep(heads: Sequence[Head], members: list[int]) -> _Group:
    """Group the heads at `members`, which have several hidden layers of the same widths."""
    chosen = [heads[i] for i in members]
    deeper = []
    for i in range(len(chosen[0].deeper)):
        weight = torch.stack([head.deeper[i][0] for head in chosen])
        bias = torch.stack([head.deeper[i][1] for head in chosen])[:, None]
        deeper.append(DenseStack(weight, bias, SLOPE))
    first = torch.cat([head.hidden_weight for head in chosen])
    bias = torch.cat([head.hidden_bias for head in chosen])
    blocks = [head.out_weight if i in members else head.out_weight[:, :0] for i, head in enumerate(heads)]
    return _Group(Dense(first, bias, SLOPE), tuple(deeper), Linear(torch.block_diag(*blocks)))


def remove_reader(folder: Path) -> None:
    """Remove the network that reads pictures from a model folder that has other attributes now."""
    for suffix in ("safetensors", "json"):
        (folder / f"{READER}.{suffix}").unlink(missing_ok=True)


class AttributeBank(Bank):
    """Heads by attribute name.

    Args:
        vocabulary: the attributes.
        heads: one head per attribute, in the order of the vocabulary.
        space: the latent that the heads read, one of `SPACES`; see `FittedUnder` for this and the next three.
        truncation: range of the truncation psi of the latents that the heads were fitted on.
        label: class label of those latents.
        generator: fingerprint of the generator.
        reports: quality of the heads on held-out latents, by attribute; heads that were not measured have none.

    Raises:
        ModelError: an argument does not fit the others.
    """

    part = "attributes"

    def __init__(
        self,
        vocabulary: Vocabulary,
        heads: Mapping[str, Head],
        *,
        space: str = "w",
        truncation: tuple[float, float] = (1.0, 1.0),
        label: FittedLabel = None,
        generator: str = "",
        reports: Mapping[str, HeadReport] | None = None,
    ) -> None:
        if list(heads) != list(vocabulary):
            raise ModelError(f"heads {list(heads)} do not match the vocabulary {list(vocabulary)}")
        if not heads:
            raise ModelError("a bank needs at least one head")
        if space not in SPACES:
            raise ModelError(f"heads read one of {', '.join(SPACES)}, not {space!r}")
        self.fitted = FittedUnder(space, truncation, label, generator)
        self._first = next(iter(heads.values()))
        latent_dim = self._first.skip_weight.shape[-1]
        for name, head in heads.items():
            head.check(name, output_count(vocabulary[name]), latent_dim)
        self.vocabulary = vocabulary
        self.heads = dict(heads)
        self.reports = {name: report for name, report in (reports or {}).items() if name in vocabulary}
        self._raw: dict[tuple[str, ...], RawOutputs] = {}

    @property
    def as_heads(self) -> AttributeBank:
        """This bank."""
        return self

    @property
    def latent_dim(self) -> int:
        """Size of the latents that the heads read."""
        return self._first.hidden_weight.shape[1]

    @property
    def device(self) -> torch.device:
        """Device of the heads."""
        return self._first.hidden_weight.device

    @property
    def std(self) -> dict[str, Tensor]:
        """Residual standard deviation of each continuous attribute, ()."""
        specs = self.vocabulary.values()
        return {spec.name: self.heads[spec.name].std for spec in specs if spec.kind == "continuous"}

    def to(self, device: torch.device | str) -> AttributeBank:
        """Return the same bank on another device."""
        if self.device == torch.device(device):
            return self
        heads = {name: head.to(device) for name, head in self.heads.items()}
        return self._having(self.vocabulary, heads, self.reports)

    def predict(self, latent: Tensor, names: Sequence[str] | None = None) -> dict[str, Prediction]:
        """Evaluate the heads of `names` (all by default) once.

        Args:
            latent: (batch, latent_dim): w, features, or z for the other spaces.
            names: attributes in any order.

        Raises:
            ArgumentError: there is no head of that name.
        """
        raw = self.raw_outputs(tuple(self.vocabulary if names is None else names))
        return split_outputs(raw.function(latent), raw.specs, raw.std)

    def raw_outputs(self, names: tuple[str, ...]) -> RawOutputs:
        """Return the heads of `names` as one function, with the layout of its outputs; it is cached.

        Raises:
            ArgumentError: there is no head of that name.
        """
        if names not in self._raw:
            unknown = [name for name in names if name not in self.heads]
            if unknown or not names:
                problem = f"there is no head of {unknown[0]!r}" if unknown else "name at least one attribute"
                raise ArgumentError(problem, hint=f"attributes: {', '.join(self.heads)}")
            with torch.inference_mode(False):  # tensors made in inference mode have no gradients
                heads = FusedHeads.of([self.heads[name] for name in names], direction=self.space == "direction")
            specs = [self.vocabulary[name] for name in names]
            std = {spec.name: self.heads[spec.name].std for spec in specs if KINDS[spec.kind].numeric}
            self._raw[names] = RawOutputs(heads, specs, std)
        return self._raw[names]

    def with_heads(self, other: AttributeBank, *, replace: bool = False) -> AttributeBank:
        """Return a bank with the heads of another one added; the old ones are unchanged, bit for bit.

        Args:
            other: heads on the same latents, with their reports.
            replace: whether new heads replace old ones of the same name.

        Raises:
            VocabularyError: a name is taken and `replace` is false.
            ModelError: a head does not fit.
        """
        if (taken := [name for name in other.vocabulary if name in self.vocabulary]) and not replace:
            raise VocabularyError(
                f"the model already has {', '.join(map(repr, taken))}",
                hint="give the attribute another name, or ask to replace the old one",
            )
        merged = dict(self.vocabulary) | dict(other.vocabulary)
        vocabulary = Vocabulary(merged.values(), model=self.vocabulary.model, relations=self.vocabulary.relations)
        reports = {name: report for name, report in self.reports.items() if name not in other.vocabulary}
        return self._having(vocabulary, self.heads | other.heads, reports | other.reports)

    def with_reports(self, reports: Mapping[str, HeadReport]) -> AttributeBank:
        """Return the same heads with other reports on their quality."""
        return self._having(self.vocabulary, self.heads, reports)

    def _having(
        self, vocabulary: Vocabulary, heads: Mapping[str, Head], reports: Mapping[str, HeadReport]
    ) -> AttributeBank:
        """Return a bank of other heads on the same latents."""
        return AttributeBank(vocabulary, heads, **vars(self.fitted), reports=reports)

    def save(self, folder: Path) -> None:
        """Write `attributes.safetensors`, `vocabulary.json` and `report.json`, each whole or not at all."""
        tensors = {
            f"{name}/{field}": tensor for name, head in self.heads.items() for field, tensor in head.tensors().items()
        }
        write_tensors(folder / "attributes.safetensors", tensors)
        Described(self.fitted, self.vocabulary).write(folder)
        write_reports(folder, self.reports)
        remove_reader(folder)

    @classmethod
    def load(cls, folder: Path) -> AttributeBank:
        """Read what `save` wrote.

        Raises:
            ModelError: a file is missing, damaged or does not fit the other.
        """
        path = folder / "attributes.safetensors"
        described, reports = Described.read(folder), read_reports(folder)
        tensors = {name: tensor.float() for name, tensor in read_tensors(path).items()}
        try:
            heads = {name: take_head(name, tensors) for name in described.vocabulary}
            for name, head in heads.items():
                if not all(tensor.isfinite().all() for tensor in head.tensors().values()):
                    raise ModelError(f"the head of {name!r} has a number that is not finite")
                if not (head.std > 0).all():
                    raise ModelError(f"the head of {name!r} has a std that is not above 0")
            if tensors:
                raise ModelError(f"it holds tensors that no attribute needs: {', '.join(sorted(tensors)[:5])}")
            return cls(described.vocabulary, heads, **vars(described.fitted), reports=reports)
        except KeyError as error:
            raise ModelError(f"{path}: {error} is missing, which {DESCRIBED} requires", hint=DAMAGED_MODEL) from None
        except ModelError as error:
            raise ModelError(f"{path}: {error}", hint=DAMAGED_MODEL) from error


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
