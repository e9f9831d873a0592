"""Attribute heads: small networks that each predict one attribute from a latent.

A `Head` is the network of one attribute, `FusedHeads` are several that are computed together, and an `AttributeBank`
has all heads of a model. A sampler moves to latents where the heads are certain, often far from all labelled latents,
where a head can be certain and wrong. So a model can have second heads, fitted to other labels of the same attributes.
Where first and second heads disagree, a sample is doubtful.
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

from energyql.attributes.bank import SPACES, Bank, Described, FittedUnder
from energyql.attributes.predictions import Prediction, output_count, split_outputs
from energyql.attributes.quality import READER, HeadReport, naming_damage, read_reports, write_reports
from energyql.errors import ArgumentError, ModelError, VocabularyError
from energyql.files import read_tensors, write_tensors
from energyql.kinds import KINDS
from energyql.numerics.linear import Dense, DenseStack, Linear
from energyql.numerics.pullback import Back, inverse_norm, normalized, normalized_back
from energyql.numerics.shapes import Bool, Float
from energyql.vocabulary import AttributeSpec, Vocabulary

SLOPE = 0.2  # of the leaky ReLU after each hidden layer
FIELDS = ("hidden_weight", "hidden_bias", "out_weight", "skip_weight", "out_bias", "std")


@dataclass(frozen=True)
class Head:
    """The network of one attribute: `out(h) + skip(x)`, where h is the latent x after one or more hidden layers.

    Each hidden layer ends with a leaky ReLU. The linear path `skip` has a gradient even where h hardly changes with x.
    Without hidden units (width 0) the head is linear.

    Attributes:
        hidden_weight, hidden_bias: the first hidden layer, (width, latent_dim) and (width,).
        out_weight, skip_weight, out_bias: the last layer: weights of h and of x, and the bias.
        std: standard deviation of the prediction of a continuous attribute, from the errors on labels; else 1.
        deeper: (weight, bias) of each further hidden layer, (width, width before) and (width,).
    """

    hidden_weight: Float[Tensor, "width latent_dim"]
    hidden_bias: Float[Tensor, " width"]
    out_weight: Float[Tensor, "outputs last_width"]
    skip_weight: Float[Tensor, "outputs latent_dim"]
    out_bias: Float[Tensor, " outputs"]
    std: Float[Tensor, ""]
    deeper: tuple[tuple[Tensor, Tensor], ...] = ()

    def tensors(self) -> dict[str, Tensor]:
        """All parameters by name, such as "deeper0_weight"; files of heads have the same names."""
        tensors = {field: getattr(self, field) for field in FIELDS}
        for i, (weight, bias) in enumerate(self.deeper):
            tensors |= {f"deeper{i}_weight": weight, f"deeper{i}_bias": bias}
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], prefix: str = "") -> Head:
        """Make a head from the result of `tensors`, in which a prefix such as "smile/" may come before each name."""
        layers = [f"{prefix}deeper{i}" for i in range(len(tensors)) if f"{prefix}deeper{i}_weight" in tensors]
        deeper = tuple((tensors[f"{layer}_weight"], tensors[f"{layer}_bias"]) for layer in layers)
        return cls(**{field: tensors[prefix + field] for field in FIELDS}, deeper=deeper)

    def to(self, device: torch.device | str) -> Head:
        """The same head on another device."""
        return Head.from_tensors({name: tensor.to(device) for name, tensor in self.tensors().items()})

    def check(self, name: str, outputs: int, latent_dim: int) -> None:
        """Raise a `ModelError` unless the shapes of all parameters fit one another, `outputs` and `latent_dim`."""
        width = self.hidden_bias.numel()
        shapes: dict[str, tuple[int, ...]] = {"hidden_weight": (width, latent_dim), "hidden_bias": (width,), "std": ()}
        for i, (_, bias) in enumerate(self.deeper):
            before, width = width, bias.numel()
            shapes |= {f"deeper{i}_weight": (width, before), f"deeper{i}_bias": (width,)}
        shapes |= {"out_weight": (outputs, width), "skip_weight": (outputs, latent_dim), "out_bias": (outputs,)}
        tensors = self.tensors()
        for field, shape in shapes.items():
            if tensors[field].shape != shape:
                raise ModelError(f"the head of {name!r}: {field} has shape {tuple(tensors[field].shape)}, not {shape}")

    def check_numbers(self, name: str) -> None:
        """Raise a `ModelError` if a parameter is not finite, or `std` not above 0; this waits for a GPU."""
        if not all(tensor.isfinite().all() for tensor in self.tensors().values()):
            raise ModelError(f"the head of {name!r} has a number that is not finite")
        if not (self.std > 0).all():
            raise ModelError(f"the head of {name!r} has a std that is not above 0")


def write_heads(path: Path, heads: Mapping[str, Head]) -> None:
    """Write heads, by attribute, into a safetensors file; an old file stays if that or `Head.check_numbers` fails."""
    for name, head in heads.items():
        head.check_numbers(name)
    write_tensors(path, _tensors_of(heads))


def read_heads(path: Path, vocabulary: Vocabulary) -> dict[str, Head]:
    """Read the heads that `write_heads` wrote, in the order of the vocabulary, without attributes that have none.

    A `ModelError` says that the file is missing or damaged, or has tensors that belong to no attribute.
    """
    tensors = {name: tensor.float() for name, tensor in read_tensors(path).items()}
    names = {name.rpartition("/")[0] for name in tensors}
    with naming_damage(path):
        heads = {name: Head.from_tensors(tensors, f"{name}/") for name in vocabulary if name in names}
        if unused := sorted(tensors.keys() - _tensors_of(heads).keys()):
            raise ModelError(f"it holds tensors that no attribute needs: {', '.join(unused[:5])}")
        for name, head in heads.items():
            head.check_numbers(name)
    return heads


def _tensors_of(heads: Mapping[str, Head]) -> dict[str, Tensor]:
    return {f"{name}/{field}": tensor for name, head in heads.items() for field, tensor in head.tensors().items()}


@dataclass(frozen=True)
class FusedHeads:
    """Several heads as one function from latents to outputs, computed by few matrix products.

    It has the protocols `Differentiable` (`pullback`) and `Convertible` to another dtype (`computed_in`).

    Attributes:
        groups: groups of networks; the results, (batch, outputs) of all heads, are added, and `bias` too.
        direction: whether latents are first scaled to a mean square of 1, so that their length has no effect.
    """

    groups: tuple[_Group, ...]
    bias: Float[Tensor, " outputs"]
    direction: bool = False

    @classmethod
    def of(cls, heads: Sequence[Head], *, direction: bool = False) -> FusedHeads:
        """One function for heads that take the same latents, with their outputs side by side, in this order."""
        deep: dict[tuple[int, ...], list[int]] = {}
        for i, head in enumerate(heads):
            if head.deeper:
                deep.setdefault((len(head.hidden_bias), *(len(bias) for _, bias in head.deeper)), []).append(i)
        groups = (_shallow(heads), *(_deep(heads, members) for members in deep.values()))
        return cls(groups, torch.cat([head.out_bias for head in heads]), direction)

    def then(self, matrix: Float[Tensor, "rows outputs"], offset: Float[Tensor, " rows"]) -> FusedHeads:
        """New function from latents to `matrix @ outputs + offset`, such as the inputs of a query's energy.

        It takes no more time, because the matrix is multiplied into the last layer. The arguments are float64 on the
        CPU, and offsets may be infinite.
        """
        layers = [*(group.out.weight for group in self.groups), self.bias]
        if self.bias.device.type == "cpu":
            layers = [layer.double() for layer in layers]
        else:  # in float32, because a copy on the CPU would wait for the device
            matrix, offset = matrix.to(self.bias), offset.to(self.bias)
        *weights, bias = layers
        last = [Linear((matrix @ weight).to(self.bias)) for weight in weights]
        groups = tuple(replace(group, out=out) for group, out in zip(self.groups, last, strict=True))
        return replace(self, groups=groups, bias=(matrix @ bias + offset).to(self.bias))

    def computed_in(self, dtype: torch.dtype) -> FusedHeads:
        """The same function with hidden layers in `dtype`, such as half precision; the outputs keep their dtype."""
        return replace(self, groups=tuple(group.computed_in(dtype) for group in self.groups))

    def __call__(self, latent: Float[Tensor, "batch latent_dim"]) -> Float[Tensor, "batch outputs"]:
        """Outputs of all heads (logits, and means of continuous attributes), side by side."""
        latent = normalized(latent) if self.direction else latent
        return self._total(group.run(latent) for group in self.groups)

    def pullback(self, latent: Float[Tensor, "batch latent_dim"]) -> tuple[Float[Tensor, "batch outputs"], Back]:
        """The outputs, and a function from a gradient with respect to them to that with respect to the latents."""
        if not self.direction:
            layers = [group.run(latent) for group in self.groups]
            return self._total(layers), partial(self._back, layers)
        scale = inverse_norm(latent)
        scaled = latent * scale
        outputs, back = replace(self, direction=False).pullback(scaled)
        return outputs, lambda grad: normalized_back(back(grad), scaled, scale)

    def _total(self, results: Iterable[list[Tensor]]) -> Float[Tensor, "batch outputs"]:
        total = self.bias
        for group, layers in zip(self.groups, results, strict=True):
            last = _side_by_side(layers[-1]).to(total)
            if last.device.type == "cpu":
                total = total + group.out(last)
            else:  # in one operation, which rounds in another way
                total = torch.addmm(total, last, group.out.weight.t())
        return total

    def _back(self, results: list[list[Tensor]], grad: Tensor) -> Float[Tensor, "batch latent_dim"]:
        first, *others = (group.back(layers, grad) for group, layers in zip(self.groups, results, strict=True))
        for more in others:
            first += more
        return first.to(grad)


class RawOutputs(NamedTuple):
    """Several heads as one function from latents to outputs side by side: `output_count(spec)` for each of `specs`.

    `std` has the standard deviation of the prediction, (), of each continuous attribute.
    """

    function: FusedHeads
    specs: Sequence[AttributeSpec]
    std: Mapping[str, Float[Tensor, ""]]


@dataclass(frozen=True)
class _Group:
    """Networks of several heads that are computed together: one hidden layer of any width each, or equal widths.

    Layers are side by side. `out` has a column for each output of all heads, which is 0 for heads outside the group.
    """

    first: Dense
    deeper: tuple[DenseStack, ...]
    out: Linear

    def computed_in(self, dtype: torch.dtype) -> _Group:
        """The same networks with all layers but the last (`out`) computed in `dtype`."""
        return _Group(self.first.computed_in(dtype), tuple(layer.computed_in(dtype) for layer in self.deeper), self.out)

    def run(self, latent: Float[Tensor, "batch latent_dim"]) -> list[Tensor]:
        """Result of each hidden layer: (batch, units) for the first, (heads, batch, width) for others."""
        layers = [self.first(latent.to(self.first.weight))]
        if self.deeper:
            heads, _, width = self.deeper[0].weight.shape
            x = layers[0].view(len(latent), heads, width).transpose(0, 1)
            for layer in self.deeper:
                x = layer(x)
                layers.append(x)
        return layers

    def back(self, layers: list[Tensor], grad: Float[Tensor, "batch outputs"]) -> Float[Tensor, "batch latent_dim"]:
        """Return the gradient with respect to the latents.

        Args:
            layers: what `run` returned for these latents.
            grad: gradient with respect to the outputs.
        """
        x = self.out.back(grad).to(self.first.weight)
        if self.deeper:
            heads, width, _ = self.deeper[-1].weight.shape
            x = x.view(len(x), heads, width).transpose(0, 1)
            for layer, result in zip(reversed(self.deeper), reversed(layers), strict=False):
                x = layer.back_through(x, result)
            x = _side_by_side(x)
        return self.first.back_through(x, layers[0])


def _side_by_side(x: Tensor) -> Float[Tensor, "batch units"]:
    """Reshape (heads, batch, width) to (batch, heads * width); (batch, units) stays."""
    return x if x.ndim == 2 else x.transpose(0, 1).flatten(1)


def _shallow(heads: Sequence[Head]) -> _Group:
    """Group of the heads with one hidden layer, and of the linear paths of all heads.

    An output of a linear path is two more hidden units, because (f(x) - f(-x)) / (1 + slope) = x for a leaky ReLU f.
    """
    plain = [head for head in heads if not head.deeper]
    skip = torch.cat([head.skip_weight for head in heads])
    path = torch.eye(len(skip), dtype=skip.dtype, device=skip.device) / (1 + SLOPE)
    first = torch.cat([*(head.hidden_weight for head in plain), skip, -skip])
    bias = torch.cat([*(head.hidden_bias for head in plain), skip.new_zeros(2 * len(skip))])
    blocks = [head.out_weight[:, :0] if head.deeper else head.out_weight for head in heads]
    return _Group(Dense(first, bias, SLOPE), (), Linear(torch.cat([torch.block_diag(*blocks), path, -path], 1)))


def _deep(heads: Sequence[Head], members: list[int]) -> _Group:
    """Group of some heads, given by their indices, with several hidden layers of the same widths."""
    own = [heads[i] for i in members]
    layers = (zip(*layer, strict=True) for layer in zip(*(head.deeper for head in own), strict=True))
    deeper = [DenseStack(torch.stack(weights), torch.stack(biases)[:, None], SLOPE) for weights, biases in layers]
    first = torch.cat([head.hidden_weight for head in own])
    bias = torch.cat([head.hidden_bias for head in own])
    blocks = [head.out_weight if i in members else head.out_weight[:, :0] for i, head in enumerate(heads)]
    return _Group(Dense(first, bias, SLOPE), tuple(deeper), Linear(torch.block_diag(*blocks)))


def remove_reader(folder: Path) -> None:
    """Delete the network that predicts attributes from pictures, `reader.*`, from a model folder, if it has one."""
    for suffix in ("safetensors", "json"):
        (folder / f"{READER}.{suffix}").unlink(missing_ok=True)


class AttributeBank(Bank):
    """The heads of a model, one for each attribute: small networks that predict attributes from latents.

    Args:
        vocabulary: the attributes.
        heads: one head for each attribute, in the order of the vocabulary.
        fitted: the conditions under which the heads are valid.
        reports: quality of the heads on held-out latents, by attribute; heads that were not measured are missing.

    Raises:
        ModelError: there is no head; the attributes of `heads` and `vocabulary` differ; a head has wrong shapes; or
            the heads read none of `SPACES`.
    """

    part = "attributes"

    def __init__(
        self,
        vocabulary: Vocabulary,
        heads: Mapping[str, Head],
        *,
        fitted: FittedUnder = FittedUnder(),  # noqa: B008 (frozen)
        reports: Mapping[str, HeadReport] | None = None,
    ) -> None:
        if list(heads) != list(vocabulary):
            raise ModelError(f"heads {list(heads)} do not match the vocabulary {list(vocabulary)}")
        if not heads:
            raise ModelError("a bank needs at least one head")
        if fitted.space not in SPACES:
            raise ModelError(f"heads read one of {', '.join(SPACES)}, not {fitted.space!r}")
        self.fitted = fitted
        self._first = next(iter(heads.values()))
        latent_dim = self._first.skip_weight.shape[-1]
        for name, head in heads.items():
            head.check(name, output_count(vocabulary[name]), latent_dim)
        self.vocabulary = vocabulary
        self.heads = dict(heads)
        self.reports = {name: report for name, report in (reports or {}).items() if name in vocabulary}
        self._raw: dict[tuple[str, ...], RawOutputs] = {}

    @property
    def latent_dim(self) -> int:
        """Size of the latents that the heads take."""
        return self._first.hidden_weight.shape[1]

    @property
    def device(self) -> torch.device:
        """Device of the heads."""
        return self._first.hidden_weight.device

    @property
    def std(self) -> dict[str, Tensor]:
        """Standard deviation of the prediction of each continuous attribute, a tensor of shape (), by its name."""
        return {name: self.heads[name].std for name, spec in self.vocabulary.items() if KINDS[spec.kind].numeric}

    def to(self, device: torch.device | str) -> AttributeBank:
        """The same heads on another device."""
        if self.device == torch.device(device):
            return self
        heads = {name: head.to(device) for name, head in self.heads.items()}
        return self._having(self.vocabulary, heads, self.reports)

    def predict(self, latent: Tensor, names: Sequence[str] | None = None) -> dict[str, Prediction]:
        """Predictions of the attributes `names` from latents, (batch, latent_dim): w, features, or z, see `space`."""
        raw = self.raw_outputs(tuple(self.vocabulary if names is None else names))
        return split_outputs(raw.function(latent), raw.specs, raw.std)

    def raw_outputs(self, names: tuple[str, ...]) -> RawOutputs:
        """The heads of some attributes as one function to logits and means; the same object for the same names.

        Without such a head, an `UnknownAttribute` is raised, and without names an `ArgumentError`.
        """
        if not names:
            raise ArgumentError("name at least one attribute")
        if names not in self._raw:
            specs = [self.vocabulary[name] for name in names]
            with torch.inference_mode(False):  # tensors made in inference mode have no gradients
                heads = FusedHeads.of([self.heads[name] for name in names], direction=self.space == "direction")
            self._raw[names] = RawOutputs(heads, specs, self.std)
        return self._raw[names]

    def with_heads(self, other: AttributeBank, *, replace: bool = False) -> AttributeBank:
        """New bank with the heads of this one and those of `other`, which take the same latents, and their reports.

        Raises:
            VocabularyError: both banks have a head of the same name, and `replace` is false.
            ModelError: the heads of `other` take latents of another size.
        """
        if (old := [name for name in other.vocabulary if name in self.vocabulary]) and not replace:
            raise VocabularyError(f"the model already has {', '.join(map(repr, old))}", hint="replace it, or rename")
        specs = dict(self.vocabulary) | dict(other.vocabulary)
        vocabulary = Vocabulary(specs.values(), model=self.vocabulary.model, relations=self.vocabulary.relations)
        reports = {name: report for name, report in self.reports.items() if name not in other.vocabulary}
        return self._having(vocabulary, self.heads | other.heads, reports | other.reports)

    def with_reports(self, reports: Mapping[str, HeadReport]) -> AttributeBank:
        """New bank with the same heads and other reports on their quality, by attribute."""
        return self._having(self.vocabulary, self.heads, reports)

    def _having(
        self, vocabulary: Vocabulary, heads: Mapping[str, Head], reports: Mapping[str, HeadReport]
    ) -> AttributeBank:
        """Bank with other heads, which are valid under the same conditions."""
        return AttributeBank(vocabulary, heads, fitted=self.fitted, reports=reports)

    def save(self, folder: Path) -> None:
        """Write `attributes.safetensors`, `vocabulary.json` and `report.json` into the model folder `folder`.

        If that fails, no file is half written. Old files of a network that predicts from pictures (`reader.*`) are
        deleted, and an old `report.json` if there are no reports.
        """
        write_heads(folder / "attributes.safetensors", self.heads)
        Described(self.fitted, self.vocabulary).write(folder)
        write_reports(folder, self.reports)
        remove_reader(folder)

    @classmethod
    def load(cls, folder: Path) -> AttributeBank:
        """Read the bank that `save` wrote; a `ModelError` if a file is missing or damaged, or does not fit others."""
        path = folder / "attributes.safetensors"
        described, reports = Described.read(folder), read_reports(folder)
        heads = read_heads(path, described.vocabulary)
        with naming_damage(path):
            return cls(described.vocabulary, heads, fitted=described.fitted, reports=reports)


SECOND = "second.safetensors"
"""File of the second heads in a model folder."""
DOUBT = "two sets of heads disagree, or the latent is too far out"
"""Text for users: when a sample is marked as doubtful, because its attributes may be predicted wrongly."""
_DEVIATIONS = 3.090
"""99.9 % quantile of the standard normal, for the limit of |z|² that one latent of the prior in a thousand exceeds."""


def outside_shell(z: Float[Tensor, "n z_dim"]) -> Bool[Tensor, " n"]:
    """For each latent, whether its squared norm is above the 99.9 % quantile of latents of the prior.

    A sampler ends there if the energy is low only far from the prior, where heads are often wrong. It may do so for a
    StyleGAN too, whose pictures do not depend on the norm: any step at a right angle to z makes z longer.
    """
    part = 2 / (9 * z.shape[1])
    limit = z.shape[1] * (1 - part + _DEVIATIONS * math.sqrt(part)) ** 3  # Wilson and Hilferty 1931
    return z.square().sum(1) > limit


def second_bank(bank: AttributeBank, heads: Mapping[str, Head]) -> AttributeBank:
    """Copy of `bank` with second heads in place of its own, where it has them; the two disagree on doubtful samples."""
    new = {name: head.to(bank.device) for name, head in heads.items()}
    return AttributeBank(bank.vocabulary, bank.heads | new, fitted=bank.fitted)


def save_second(folder: Path, heads: Mapping[str, Head]) -> None:
    """Write second heads, by attribute, to `second.safetensors` in a model folder; for {}, delete the file."""
    if heads:
        write_heads(folder / SECOND, heads)
    else:
        (folder / SECOND).unlink(missing_ok=True)


def load_second(folder: Path, bank: Bank) -> dict[str, Head]:
    """Read the second heads of a model folder, by attribute; {} if it has none, or its `bank` has no heads at all."""
    path = folder / SECOND
    if not path.is_file() or not isinstance(bank, AttributeBank):
        return {}
    heads = read_heads(path, bank.vocabulary)
    with naming_damage(path):
        second_bank(bank, heads)  # checks the shapes
    return heads


def replace_second(folder: Path, bank: Bank, names: Iterable[str], heads: Mapping[str, Head]) -> None:
    """Replace the second heads of the attributes `names` in a model folder; those that `heads` lacks have none then."""
    replaced = set(names)
    kept = {name: head for name, head in load_second(folder, bank).items() if name not in replaced}
    save_second(folder, kept | dict(heads))
