"""The energy of a query as a torch module or an ONNX model, in elementary operations, for use in other programs.

`QueryEnergy`, by which this library samples, is faster, but compilers and other runtimes cannot use it.
"""

from __future__ import annotations

import copy
import inspect
import io
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.attributes.heads import AttributeBank, FusedHeads, RawOutputs
from energyql.attributes.predictions import Predictions, split_outputs
from energyql.energy.circuit import CLASSES, INTERVAL, TAIL, YES_NO, CircuitFold, CircuitRule, LeafEnergies, node_values
from energyql.energy.exact import JointRule
from energyql.energy.rule import EnergyRule
from energyql.errors import ArgumentError, first_line
from energyql.files import as_path, replacing
from energyql.generators.mapping import FrozenMapping
from energyql.generators.onnx import INSTALL
from energyql.logic.circuit import CircuitNode
from energyql.numerics.plain import Affine, Stack, UnitMoment, dense, expm1, linear, log1p, log_cdf, log_interval
from energyql.numerics.shapes import Float
from energyql.plugins import import_optional

OPSET = 17
"""Version of the ONNX operators that models use; onnxruntime 1.12 or newer reads it."""
_CHECKED = 256
_TOLERANCE = 1e-3
"""Largest difference between energies of an ONNX model and its module: this many nats, plus this times the energy."""


class EnergyModule(nn.Module):
    """The energy of a query as a torch module, from z `(batch, z_dim)` to `(batch,)`, in nats, lower is better.

    Under `exact` semantics the energy is -log P(query | z), so that exp(-energy) is a probability. With the prior z ~
    N(0, I), the posterior is in proportion to `exp(-energy - |z|² / 2)`. All weights are in `state_dict`. z must have
    the dtype and device of the weights; `to` changes them as for any module. Autograd, `torch.compile`, `torch.export`
    and `torch.func` work on the module.

    Attributes:
        encode: module from z to the latent that is the input of the heads.
        heads: module from the result of `encode` to numbers such as the logits of attributes.
        rule: module from the result of `heads` to the energy.
        metadata: facts about the query and the model, as text: at least `z_dim`, the length of z.
    """

    def __init__(self, encode: nn.Module, heads: nn.Module, rule: nn.Module, metadata: Mapping[str, str]) -> None:
        super().__init__()
        self.encode, self.heads, self.rule = encode, heads, rule
        self.metadata = dict(metadata)

    @classmethod
    def of(cls, rule: EnergyRule, encode: nn.Module, bank: AttributeBank, metadata: Mapping[str, str]) -> EnergyModule:
        """Make the module of a compiled query, with copies of the weights of its heads in `bank`.

        `encode` maps z to the input of the heads; `metadata` needs `z_dim`, and should have `query`.
        """
        if not rule.attributes:
            return cls(encode, nn.Identity(), Called(_zero), metadata).eval()
        raw = bank.raw_outputs(rule.attributes)
        circuit = rule.conditional if isinstance(rule, JointRule) else rule
        if not isinstance(circuit, CircuitRule):
            return cls(encode, _Heads(raw.function), _of_predictions(rule.log_value, raw), metadata).eval()
        leaves = LeafEnergies(circuit.fold.leaves, raw)
        matrix, offset, energy = leaves.matrix, leaves.offset, _OfCircuit(leaves, circuit.fold)
        if not isinstance(rule, JointRule):
            return cls(encode, _Heads(raw.function.then(matrix, offset)), energy, metadata).eval()
        rows, outputs = matrix.shape
        heads = raw.function.then(torch.cat([matrix, torch.eye(outputs)]), torch.cat([offset, torch.zeros(outputs)]))
        return cls(encode, _Heads(heads), _OfJoint(energy, _of_predictions(rule.log_mass, raw), rows), metadata).eval()

    def forward(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, " batch"]:
        """Return the energy of each latent, `(batch,)`, in nats."""
        return cast(Tensor, self.rule(self.heads(self.encode(z))))

    def in_float64(self) -> EnergyModule:
        """Copy this module with heads, and the mapping network of a StyleGAN, in float64 on the CPU.

        z, the energy, `rule` and the mapping of a user's generator keep their dtype. Float64 matters for attributes
        with a small standard deviation, such as 0.0012: at some tens of nats, a difference of 1e-7 in the mean is 1e-3
        nats.
        """
        z, encode = _latents(self, 1), self.encode
        double = _converted(torch.device("cpu"), torch.float64)
        if not isinstance(encode, Called):
            encode = nn.Sequential(double, copy.deepcopy(encode).cpu().double())
        heads = nn.Sequential(double, copy.deepcopy(self.heads).cpu().double(), _converted(z.device, z.dtype))
        return EnergyModule(encode, heads, self.rule, self.metadata).eval()

    def to_onnx(self, path: str | Path) -> Path:
        """Write the energy as an ONNX model, with input `z` (batch, z_dim), output `energy` (batch,) and the metadata.

        Before the file appears at `path`, onnxruntime must compute the energies of `in_float64`, up to rounding, for
        256 latents of the prior.

        Args:
            path: where to write the file; its name ends in .onnx.

        Raises:
            ArgumentError: onnx or onnxruntime is missing; the name of the file does not end in .onnx, or the file
                cannot be written; a generator of the user's own code has an operation that ONNX does not have; or the
                model gives other energies than `in_float64`.
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


def mapping_module(mapping: FrozenMapping) -> nn.Sequential:
    """The function from z to w of a StyleGAN as a torch module of operations that can be exported to ONNX."""
    layers = [module for layer in mapping.layers for module in dense(layer)]
    truncated = [] if mapping.truncation == 1.0 else [Affine(mapping.truncation, mapping.mean)]
    return nn.Sequential(UnitMoment(), *layers, *truncated)


class Called(nn.Module):
    """A function as a torch module; a result for a row of the batch must depend on this row alone.

    The parameters of `owner`, the module that has the function as a method, become those of the new module.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], owner: nn.Module | None = None) -> None:
        super().__init__()
        self.function, self.owner = function, owner

    def forward(self, x: Tensor) -> Tensor:
        """Return `function(x)`."""
        return self.function(x)


def _converted(device: torch.device, dtype: torch.dtype) -> Called:
    """Module that moves its input to a device and converts it to a dtype."""
    return Called(partial(Tensor.to, device=device, dtype=dtype))


def _zero(latent: Tensor) -> Tensor:
    return torch.zeros_like(latent[:, 0])


class _Heads(nn.Module):
    """Several heads as one module, from latents (batch, latent_dim) to outputs of all heads (batch, outputs)."""

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
    """The networks of the heads of a `group`, with equal sizes, as one module, from latents to (batch, outputs)."""

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
        return cast(Tensor, self.out(x))


class _OfCircuit(nn.Module):
    """Module from the rows of a circuit's leaves, (batch, rows), to energies, (batch,); see `LeafEnergies`."""

    widths: Tensor

    def __init__(self, leaves: LeafEnergies, fold: CircuitFold) -> None:
        super().__init__()
        self.counts, self.sizes, self.shape = leaves.counts, leaves.sizes, leaves.shape
        self.register_buffer("widths", leaves.widths.clone(), persistent=False)
        self.nodes = nn.Sequential(*(_Nodes(*group) for group in fold.plan))

    def forward(self, rows: Tensor) -> Tensor:
        logits, tails, middles, classes = rows.t().split(self.sizes)
        values = []
        if self.counts[CLASSES]:
            outside, inside = torch.logsumexp(classes.reshape(self.shape), 0)
            logits = torch.cat([logits, outside - inside]) if self.counts[YES_NO] else outside - inside
        if self.counts[YES_NO] or self.counts[CLASSES]:
            values.append(-F.softplus(logits))
        if self.counts[TAIL]:
            values.append(log_cdf(tails))
        if self.counts[INTERVAL]:
            values.append(log_interval(middles, self.widths))
        return -cast(Tensor, self.nodes(torch.cat(values)))[-1]


class _Nodes(nn.Module):
    """Module that appends to a table of values, (rows, batch), the nodes of a `_Plan` of `circuit.py`."""

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


def _of_predictions(log_value: Callable[[Predictions], Tensor], raw: RawOutputs) -> Called:
    """Module from outputs of heads, (batch, outputs), to minus a function of the predictions, (batch,)."""
    std = {name: deviation.item() for name, deviation in raw.std.items()}
    return Called(partial(_minus, log_value, raw.specs, std))


def _minus(log_value: Callable[[Predictions], Tensor], specs: Any, std: Any, outputs: Tensor) -> Tensor:
    return -log_value(split_outputs(outputs, specs, std))


class _OfJoint(nn.Module):
    """Module for `jem`: energy of the first `rows` columns by `circuit`, plus `log_mass` of the others."""

    def __init__(self, circuit: _OfCircuit, log_mass: Called, rows: int) -> None:
        super().__init__()
        self.circuit, self.log_mass, self.rows = circuit, log_mass, rows

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.circuit(x[:, : self.rows]) + self.log_mass(x[:, self.rows :]))


def _latents(energy: EnergyModule, count: int) -> Float[Tensor, "count z_dim"]:
    """Latents from the prior, the same in every call, with the dtype and device of `energy`."""
    tensors = (tensor for tensor in (*energy.parameters(), *energy.buffers()) if tensor.is_floating_point())
    z = torch.randn(count, int(energy.metadata["z_dim"]), generator=torch.Generator().manual_seed(0))
    return z.to(next(tensors, z))


def _check_saved(energy: EnergyModule, z: Float[Tensor, "batch z_dim"], path: Path) -> None:
    """Raise an `ArgumentError` unless onnxruntime computes the energies of the module with the model at `path`."""
    runtime = import_optional("onnxruntime", "an ONNX model is checked with the package onnxruntime", INSTALL)
    with torch.no_grad():
        expected = energy(z).cpu()
    options = runtime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, torch.get_num_threads()  # it would print its errors
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        actual = torch.from_numpy(session.run(["energy"], {"z": z.cpu().numpy()})[0])
    except Exception as error:  # its errors have no base class of their own
        raise ArgumentError(
            f"onnxruntime cannot compute the ONNX model of this energy: {first_line(error)}",
            hint="torch.export writes what ONNX cannot",
        ) from error
    differing = (~torch.isclose(actual, expected, rtol=_TOLERANCE, atol=_TOLERANCE, equal_nan=True)).nonzero()[:, 0]
    if len(differing):
        raise ArgumentError(
            f"the ONNX model gives other energies than torch for {len(differing)} of {len(z)} latents of the "
            f"prior: {actual[differing[0]]:g} in place of {expected[differing[0]]:g} nats",
            hint="exporting follows one call: a generator whose code branches on numbers of z has to do without",
        )


def _onnx_model(energy: EnergyModule, z: Float[Tensor, "batch z_dim"]) -> Any:
    """ONNX model of an energy, made by recording a call with the latents z."""
    onnx = import_optional("onnx", "an ONNX model needs the package onnx", INSTALL)
    # The exporter by tracing is in every torch since 2.2; the newer one needs a further package.
    write: Any = torch.onnx.export
    options: dict[str, Any] = {"dynamo": False} if "dynamo" in inspect.signature(write).parameters else {}
    options |= {"input_names": ["z"], "output_names": ["energy"], "opset_version": OPSET}
    options |= {"dynamic_axes": {"z": {0: "batch"}, "energy": {0: "batch"}}}
    data = io.BytesIO()
    torch_c = cast(Any, torch)._C
    printed = getattr(torch_c, "_jit_onnx_log", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls itself old, and says which branches it follows
        torch_c._jit_onnx_log = lambda *_: None  # where it fails it prints the whole graph, whatever its settings
        try:
            write(energy, (z,), data, **options)
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise ArgumentError(
                f"this energy cannot be written as ONNX: {first_line(error)}",
                hint="all energies with generators of this library can; torch.export takes more",
            ) from error
        finally:
            torch_c._jit_onnx_log = printed
    return onnx.load_model_from_string(data.getvalue())
