"""The energy of a query as a torch module of elementary operations, for other programs to sample; also as ONNX.

This library itself samples with `QueryEnergy`: packed products, derivatives by hand, batches of few sizes, which no
compiler and no other runtime knows. This module has the same layers and the same circuit, and gives the same energies
up to rounding.
"""

from __future__ import annotations

import copy
import inspect
import io
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.attributes.heads import AttributeBank, FusedHeads, RawOutputs
from energyql.attributes.predictions import Predictions, split_outputs
from energyql.energy.circuit import CLASSES, INTERVAL, TAIL, YES_NO, CircuitFold, CircuitRule, LeafEnergies, node_values
from energyql.energy.rule import EnergyRule, JointRule
from energyql.errors import ArgumentError
from energyql.files import as_path, replacing
from energyql.logic.nodes import CircuitNode
from energyql.numerics.plain import Stack, UnitMoment, dense, expm1, linear, log1p, log_cdf, log_interval
from energyql.numerics.shapes import Float
from energyql.plugins import import_optional

OPSET = 17
"""Version of the ONNX operators, which onnxruntime reads since 1.12."""
_INSTALL = 'pip install "onnx>=1.16" "onnxruntime>=1.17"'
_CHECKED = 256
_TOLERANCE = 1e-3
"""Of energies of a saved file, relative and absolute."""


class EnergyModule(nn.Module):
    """The energy of a query, from z `(batch, z_dim)` to `(batch,)`, in nats, lower is better.

    Under `exact` semantics it is -log P(query | z), so that exp(-energy) is a probability, and with the prior
    z ~ N(0, I) the posterior is proportional to exp(-energy - z² / 2). All weights are in `state_dict`; z has their
    dtype and device, which `to` changes as for any module. Autograd, `torch.compile`, `torch.export` and `torch.func`
    work on it.

    Attributes:
        encode: from z to the latent that the heads read.
        heads: from there to the numbers that the rule reads.
        rule: from there to the energy.
        metadata: facts about the query and the model, as text.
    """

    def __init__(self, encode: nn.Module, heads: nn.Module, rule: nn.Module, metadata: Mapping[str, str]) -> None:
        super().__init__()
        self.encode, self.heads, self.rule = encode, heads, rule
        self.metadata = dict(metadata)

    @classmethod
    def of(cls, rule: EnergyRule, encode: nn.Module, bank: AttributeBank, metadata: Mapping[str, str]) -> EnergyModule:
        """Make the module of a compiled query; the weights are copied.

        Args:
            rule: of the query.
            encode: from z `(batch, z_dim)` to the latent that the heads read.
            bank: the heads.
            metadata: becomes the attribute.
        """
        if not rule.attributes:
            return cls(encode, nn.Identity(), _AlwaysTrue(), metadata).eval()
        raw = bank.raw_outputs(rule.attributes)
        circuit = rule.conditional if isinstance(rule, JointRule) else rule
        if not isinstance(circuit, CircuitRule):
            return cls(encode, _Heads(raw.function), _OfPredictions(rule.log_value, raw), metadata).eval()
        leaves = LeafEnergies(circuit.fold.leaves, raw)
        matrix, offset, energy = leaves.matrix, leaves.offset, _OfCircuit(leaves, circuit.fold)
        if not isinstance(rule, JointRule):
            return cls(encode, _Heads(raw.function.then(matrix, offset)), energy, metadata).eval()
        rows, outputs = matrix.shape
        heads = raw.function.then(torch.cat([matrix, torch.eye(outputs)]), torch.cat([offset, torch.zeros(outputs)]))
        return cls(encode, _Heads(heads), _OfJoint(energy, _OfPredictions(rule.log_mass, raw), rows), metadata).eval()

    def forward(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, " batch"]:
        """Return the energy of each sample, `(batch,)`, in nats."""
        energy: Tensor = self.rule(self.heads(self.encode(z)))
        return energy

    def in_float64(self) -> EnergyModule:
        """Return the energy with its heads in float64, as `to_onnx` writes it; z and energy keep their dtype.

        The mapping network of a StyleGAN is in float64, too; the code of somebody's generator and the rule are not.
        They are computed on the CPU, because MPS has no float64. Energies differ from those of this module where an
        attribute has a small standard deviation: a difference of 1e-7 in the mean of the packaged `skin_tone`, whose
        standard deviation is 0.0012, is 1e-3 nats if its energy is some tens of nats.
        """
        z, encode = _latents(self, 1), self.encode
        double = _To(torch.device("cpu"), torch.float64)
        if not isinstance(encode, Called):
            encode = nn.Sequential(double, copy.deepcopy(encode).cpu().double())
        heads = nn.Sequential(double, copy.deepcopy(self.heads).cpu().double(), _To(z.device, z.dtype))
        return EnergyModule(encode, heads, self.rule, self.metadata).eval()

    def to_onnx(self, path: str | Path) -> Path:
        """Write the energy as an ONNX model, with input `z` (batch, z_dim), output `energy` (batch,) and the metadata.

        The file takes its place once onnxruntime computes the energies of `in_float64` from it, up to rounding, for 256
        latents of the prior.

        Args:
            path: of the file, which ends in .onnx.

        Returns:
            The path.

        Raises:
            ArgumentError: onnx or onnxruntime is missing; the path cannot be written; the code of somebody's generator
                has an operation that ONNX does not have; or the file gives other energies than this module.
        """
        path = as_path(path)
        if path.suffix != ".onnx":
            raise ArgumentError(f"an ONNX model cannot be saved as {path}", hint="end the path in .onnx")
        z, energy = _latents(self, _CHECKED), self.in_float64()
        model = _onnx_model(energy, z[:2])
        for name, value in self.metadata.items():
            model.metadata_props.add(key=name, value=value)
        model.producer_name, model.doc_string = "energyql", f"energy of {self.metadata.get('query', '')}, in nats"
        with replacing(path) as written:
            written.write_bytes(model.SerializeToString())
            _check_saved(energy, z, written)
        return path


class Called(nn.Module):
    """A function as a module; the tensors of `owner` are parts of it.

    Args:
        function: of a batch, row by row.
        owner: the module whose method it is, if it is one.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], owner: nn.Module | None = None) -> None:
        super().__init__()
        self.function, self.owner = function, owner

    def forward(self, x: Tensor) -> Tensor:
        """Return the value of the function."""
        return self.function(x)


class _To(nn.Module):
    """The function that moves a tensor to a device and converts it to a dtype."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.device, self.dtype = device, dtype

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.device, self.dtype)


class _Heads(nn.Module):
    """Heads as one module, from latents to outputs."""

    bias: Tensor

    def __init__(self, heads: FusedHeads) -> None:
        super().__init__()
        self.scale: nn.Module = UnitMoment() if heads.direction else nn.Identity()
        self.networks = nn.ModuleList(_Network(group) for group in heads.groups)
        self.register_buffer("bias", heads.bias.detach().clone())

    def forward(self, latent: Tensor) -> Tensor:
        latent, total = self.scale(latent), self.bias
        for network in self.networks:
            total = total + network(latent)
        return total


class _Network(nn.Module):
    """The networks of a group of heads, up to what they add to the outputs."""

    def __init__(self, group: Any) -> None:
        super().__init__()
        self.first = nn.Sequential(*dense(group.first))
        self.deeper = nn.Sequential(*map(Stack, group.deeper))
        self.out = linear(group.out.weight)
        self.heads = len(group.deeper[0].weight) if group.deeper else 1

    def forward(self, latent: Tensor) -> Tensor:
        x = self.first(latent)
        if self.deeper:
            x = self.deeper(x.unflatten(1, (self.heads, -1)).transpose(0, 1)).transpose(0, 1).flatten(1)
        result: Tensor = self.out(x)
        return result


class _OfCircuit(nn.Module):
    """From rows (batch, rows) to the energy of a circuit; see `LeafEnergies` and `CircuitFold`."""

    widths: Tensor

    def __init__(self, leaves: LeafEnergies, fold: CircuitFold) -> None:
        super().__init__()
        self.counts, self.sizes, self.shape = leaves.counts, leaves.sizes, leaves.shape
        self.register_buffer("widths", leaves.widths.clone(), persistent=False)
        self.nodes = nn.Sequential(*(_Nodes(*group) for group in fold.plan))

    def forward(self, rows: Tensor) -> Tensor:
        logits, tails, middles, classes = rows.t().split(self.sizes)
        found = []
        if self.counts[CLASSES]:
            outside, inside = torch.logsumexp(classes.reshape(self.shape), 0)
            logits = torch.cat([logits, outside - inside]) if self.counts[YES_NO] else outside - inside
        if self.counts[YES_NO] or self.counts[CLASSES]:
            found.append(-F.softplus(logits))
        if self.counts[TAIL]:
            found.append(log_cdf(tails))
        if self.counts[INTERVAL]:
            found.append(log_interval(middles, self.widths))
        values: Tensor = self.nodes(torch.cat(found))
        return -values[-1]


class _Nodes(nn.Module):
    """Adds the values of nodes of one kind and width to the table of all values so far, (rows, batch)."""

    rows: Tensor
    factors: Tensor

    def __init__(
        self, kind: type[CircuitNode], children: list[tuple[int, ...]], factors: list[float], first: int
    ) -> None:
        super().__init__()
        self.kind, self.shape = kind, (len(children[0]), len(children), -1)
        rows = [row for column in zip(*children, strict=True) for row in column]
        self.register_buffer("rows", torch.tensor(rows), persistent=False)
        self.register_buffer("factors", torch.tensor(factors, dtype=torch.float32)[:, None], persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        x = values.index_select(0, self.rows).reshape(self.shape)
        return torch.cat([values, node_values(self.kind, x, self.factors, log1p, expm1)])


class _OfPredictions(nn.Module):
    """From the outputs of heads to minus a value of their predictions."""

    def __init__(self, log_value: Callable[[Predictions], Tensor], raw: RawOutputs) -> None:
        super().__init__()
        self.log_value, self.specs = log_value, raw.specs
        self.std = {name: std.item() for name, std in raw.std.items()}

    def forward(self, outputs: Tensor) -> Tensor:
        return -self.log_value(split_outputs(outputs, self.specs, self.std))


class _OfJoint(nn.Module):
    """From the rows of a circuit and the outputs of heads, side by side, to a joint energy."""

    def __init__(self, circuit: _OfCircuit, log_mass: _OfPredictions, rows: int) -> None:
        super().__init__()
        self.circuit, self.log_mass, self.rows = circuit, log_mass, rows

    def forward(self, x: Tensor) -> Tensor:
        energy: Tensor = self.circuit(x[:, : self.rows]) + self.log_mass(x[:, self.rows :])
        return energy


class _AlwaysTrue(nn.Module):
    """The energy of a query that is always true."""

    def forward(self, latent: Tensor) -> Tensor:
        return torch.zeros_like(latent[:, 0])


def _latents(energy: EnergyModule, count: int) -> Float[Tensor, "count z_dim"]:
    """Return latents of the prior, the same in every call, in the dtype and on the device of an energy."""
    tensors = (tensor for tensor in (*energy.parameters(), *energy.buffers()) if tensor.is_floating_point())
    z = torch.randn(count, int(energy.metadata["z_dim"]), generator=torch.Generator().manual_seed(0))
    return z.to(next(tensors, z))


def _check_saved(energy: EnergyModule, z: Float[Tensor, "batch z_dim"], path: Path) -> None:
    """Check that onnxruntime computes the energies of a module from an ONNX model of it."""
    runtime = import_optional("onnxruntime", "an ONNX model is checked with the package onnxruntime", _INSTALL)
    with torch.no_grad():
        expected = energy(z).cpu()
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, torch.get_num_threads()  # it would print its errors
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        actual = torch.from_numpy(session.run(["energy"], {"z": z.cpu().numpy()})[0])
    except Exception as error:  # its errors have no base class of their own
        _raise_if_memory(error)
        raise ArgumentError(
            f"onnxruntime cannot compute the ONNX model of this energy: {_first_line(error)}",
            hint="torch.export writes what ONNX cannot; energies in float32 are those that onnxruntime knows best",
        ) from error
    same = torch.isclose(actual, expected, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)
    if not same.all():
        first = int((~same).nonzero()[0])
        raise ArgumentError(
            f"the ONNX model gives other energies than torch for {int((~same).sum())} of {len(z)} latents of the "
            f"prior: {actual[first]:g} in place of {expected[first]:g} nats",
            hint="exporting follows one call: a generator whose code branches on numbers of z has to do without",
        )


def _raise_if_memory(error: Exception) -> None:
    if "bad_alloc" in str(error):
        raise MemoryError from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _onnx_model(energy: EnergyModule, z: Float[Tensor, "batch z_dim"]) -> Any:
    """Return the ONNX model of an energy, by tracing a call."""
    onnx = import_optional("onnx", "an ONNX model needs the package onnx", _INSTALL)
    # The exporter by tracing is in every torch since 2.2; the newer one needs a further package.
    write: Any = torch.onnx.export
    older = {"dynamo": False} if "dynamo" in inspect.signature(write).parameters else {}
    data = io.BytesIO()
    axes = {"z": {0: "batch"}, "energy": {0: "batch"}}
    printing, torch_c = "_jit_onnx_log", cast(Any, torch)._C
    printed = getattr(torch_c, printing, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls itself old, and says which branches it follows
        setattr(torch_c, printing, lambda *_: None)  # where it fails it prints the whole graph, whatever its settings
        try:
            write(
                energy, (z,), data, input_names=["z"], output_names=["energy"], dynamic_axes=axes,
                opset_version=OPSET, **older,
            )  # fmt: skip
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            _raise_if_memory(error)
            raise ArgumentError(
                f"this energy cannot be written as ONNX: {_first_line(error)}",
                hint="all energies with generators of this library can; torch.export takes more",
            ) from error
        finally:
            setattr(torch_c, printing, printed)
    return onnx.load_model_from_string(data.getvalue())
