"""The model that is evaluated, and samples with the attribute values that its judge reads off the pictures."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from energyql.attributes.pictures import heads_of
from energyql.attributes.predictions import decide
from energyql.errors import DataError, ModelError
from energyql.evaluation.metrics import Features, judge_features
from energyql.files import check_file, json_digest, replacing
from energyql.generators.base import condition_vector, draw_batches, encode_under, head_reader
from energyql.generators.families import module_fingerprint
from energyql.language import Expr
from energyql.logic.satisfiability import satisfied
from energyql.pipeline.columns import concatenate, take_rows
from energyql.pipeline.model import Model, Values, judge_mark
from energyql.pipeline.plan import Plan, plan_query
from energyql.pipeline.session import open_session
from energyql.pipeline.settings import DrawOptions, DrawSettings
from energyql.progress import Report, quiet

if TYPE_CHECKING:
    from typing_extensions import Unpack

Truths = np.ndarray[Any, np.dtype[np.bool_]]
Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, eq=False)
class JudgedSamples:
    """Latents of n samples, and what the judge reads off their pictures; row i of each field belongs to sample i.

    Attributes:
        z: latents, (n, z_dim) float32 on the CPU.
        w: (n, numbers) float32 on the CPU; a w of more dimensions is flattened.
        values: attribute -> the judge's values, (n,).
        features: what distances between pictures are measured by, (n, dim) float32 on the CPU; `None` without a
            network.
    """

    z: Tensor
    w: Tensor
    values: Values
    features: Tensor | None

    def __len__(self) -> int:
        return len(self.z)

    def select(self, rows: Sequence[int] | np.ndarray[Any, Any]) -> JudgedSamples:
        """Samples with the indices `rows`, in this order."""
        columns = self.z, self.w, self.values, self.features
        return JudgedSamples(*take_rows(columns, np.asarray(rows, dtype=np.int64)))

    @classmethod
    def join(cls, parts: Sequence[JudgedSamples]) -> JudgedSamples:
        """Join groups of samples, at least one; features are kept only if all have them."""
        return cls(*concatenate([(part.z, part.w, part.values, part.features) for part in parts]))

    def save(self, path: Path, **more: np.ndarray[Any, Any]) -> None:
        """Write the samples, and further arrays by name, to an .npz file."""
        tensors = {"z": self.z, "w": self.w, "features": self.features}
        arrays = more | {name: tensor.numpy() for name, tensor in tensors.items() if tensor is not None}
        arrays |= {f"value/{name}": column for name, column in self.values.items()}
        with replacing(path) as temporary:
            np.savez_compressed(temporary, **arrays)

    @classmethod
    def load(cls, path: Path) -> tuple[JudgedSamples, Arrays] | None:
        """Read a file that `save` wrote: the samples, and all arrays by name; `None` if it is missing or damaged."""
        try:
            check_file(path)
            with path.open("rb") as file, np.load(file) as archive:
                arrays: Arrays = dict(archive.items())
            z, w = torch.from_numpy(arrays["z"]), torch.from_numpy(arrays["w"])
        except (ModelError, OSError, ValueError, EOFError, KeyError, RuntimeError, BadZipFile, zlib.error):
            return None
        values = {name.removeprefix("value/"): column for name, column in arrays.items() if name.startswith("value/")}
        features = torch.from_numpy(arrays["features"]) if "features" in arrays else None
        return cls(z, w, values, features), arrays


class EvaluatedModel:
    """A model with a judge, at one truncation and condition.

    Args:
        condition: a class, or c_dim numbers, for a conditional generator. By default the condition under which the
            heads were fitted; if they were fitted to random classes, the random class of seed 0.
        features: network whose features give distances between pictures; by default the judge, if it computes features.

    Attributes:
        condition: condition of everything that is drawn, whatever its seed; `None` for a generator without classes.
        encode: function from latents z to w.
        reads: function from latents z to the input of the heads.
        identity: SHA-256 of everything that can change a judged sample: weights, judge, truncation, condition,
            features. Files of judged samples are used again only with the same identity.

    Raises:
        ModelError: the model cannot be loaded, or has no judge.
        ArgumentError: the condition or the device does not fit.
    """

    def __init__(
        self, model: str | Path | Model, *, device: str = "auto", truncation: float | None = None,
        condition: int | str | Sequence[float] | None = None, features: Features | None = None,
    ) -> None:  # fmt: skip
        self.session = open_session(model, device)
        self.model, self.device = self.session.model, self.session.device
        self.vocabulary, self.z_dim = self.model.vocabulary, self.model.generator.z_dim
        if self.model.judge is None:
            raise ModelError(f"model {self.model.name!r} has no judge, and heads cannot judge themselves")
        self.truncation = self.model.truncation if truncation is None else truncation
        self.condition = self.model.check_condition(condition)
        vector = condition_vector(self.condition, self.model.generator)
        self.encode = partial(encode_under, self.model.generator, truncation=self.truncation, condition=vector)
        self.reads = head_reader(self.model.generator, self.model.bank.space, self.encode)
        self.features = judge_features(self.model.judge) if features is None else features
        name = getattr(self.features, "name", None)
        self.identity = json_digest([_fingerprints(self.model), self.truncation, self.condition, name])

    def plan(self, query: str | Expr, **options: Unpack[DrawOptions]) -> Plan:
        """Compile a query for sampling; heads may be weak, because the judge measures how good the samples are."""
        weak = tuple(self.vocabulary)
        settings = DrawSettings(truncation=self.truncation, condition=self.condition, verify="off", allow_weak=weak)
        return plan_query(self.session, query, settings, **options)

    def draw(self, z: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield w and the pictures in [-1, 1] for each batch of latents z (n, z_dim), in order."""
        return draw_batches(self.model.generator.synthesize, self.encode, z.to(self.device))

    def judge(self, z: Tensor, report: Report = quiet) -> JudgedSamples:
        """Draw latents z (n, z_dim), and judge the pictures; raises unless the judge reads every attribute."""
        parts, count = list[JudgedSamples](), 0
        for w, images in self.draw(z):
            features = None if self.features is None else self.features.read(images)
            latents = z[count : count + len(images)].float().cpu(), w.flatten(1).float().cpu()
            values = self.model.judge_images(images)
            if missing := [name for name in self.vocabulary if name not in values]:
                raise DataError(f"the judge returns no {', '.join(map(repr, missing))}")
            parts.append(JudgedSamples(*latents, values, features))
            count += len(images)
            report("judging", count / len(z))
        return JudgedSamples.join(parts)

    def read_heads(self, z: Tensor) -> Values:
        """Attribute -> the likeliest values for latents z (n, z_dim) by the heads, (n,)."""
        with torch.inference_mode():
            return decide(self.model.bank.predict(self.reads(z)))

    def satisfied(self, query: Expr, values: Values) -> Truths:
        """Whether each of n samples satisfies a bound query by its values, (n,)."""
        rows = len(next(iter(values.values())))
        return np.broadcast_to(satisfied(query, values, self.vocabulary), (rows,))


def _fingerprints(model: Model) -> dict[str, str]:
    """Fingerprint of each part of a model: "generator", "judge" and "attributes"."""
    facts = dict(model.fingerprints)
    if "generator" not in facts:
        facts["generator"] = module_fingerprint(model.generator)
    if "judge" not in facts and model.judge is not None:
        facts["judge"] = judge_mark(model.judge)
    if "attributes" not in facts and model.bank.reader is not None:
        facts["attributes"] = judge_mark(model.bank.reader)
    elif "attributes" not in facts:
        heads = heads_of(model.bank, "an evaluation").heads
        weights = {name: [part.tolist() for part in head.tensors().values()] for name, head in heads.items()}
        facts["attributes"] = json_digest(weights)
    return facts
