"""The evaluated model, and samples with the attribute values that its judge reads in their pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.labels import labeller_name
from energyql.attributes.pictures import heads_of
from energyql.attributes.predictions import decide
from energyql.errors import DataError, ModelError
from energyql.evaluation.metrics import Features, judge_features
from energyql.files import check_file, naming_target, replacing
from energyql.generators.base import as_condition, draw_batches, encode_under, head_reader
from energyql.generators.families import module_fingerprint
from energyql.language import Expr
from energyql.logic.truth import satisfied
from energyql.pipeline.draw import PreparedQuery, pipeline_for
from energyql.pipeline.model import Model, Values
from energyql.pipeline.result import concatenate
from energyql.pipeline.settings import DrawOptions, DrawSettings
from energyql.progress import Report
from energyql.render.pictures import to_pictures

if TYPE_CHECKING:
    from typing_extensions import Unpack

Truths = np.ndarray[Any, np.dtype[np.bool_]]
Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, eq=False)
class JudgedSamples:
    """Latents of samples, and the judge's readings of their pictures; a row is a sample.

    Attributes:
        z: latents, (n, z_dim) float32 on the CPU.
        w: their w, flattened to (n, w_dim) or more columns, float32 on the CPU.
        values: attribute -> values that the judge decides on, (n,).
        features: features of the pictures, (n, dim) float32 on the CPU; `None` without a feature network.
        pictures: pictures of the first rows, perhaps of none.
    """

    z: Tensor
    w: Tensor
    values: Values
    features: Tensor | None
    pictures: tuple[Image.Image, ...] = ()

    def __len__(self) -> int:
        return len(self.z)

    def select(self, rows: Sequence[int] | np.ndarray[Any, Any]) -> JudgedSamples:
        """Return the samples with these indices, in their order, without pictures."""
        at = torch.from_numpy(np.asarray(rows, dtype=np.int64))
        values = {name: column[at.numpy()] for name, column in self.values.items()}
        return JudgedSamples(self.z[at], self.w[at], values, None if self.features is None else self.features[at])

    @classmethod
    def join(cls, parts: Sequence[JudgedSamples]) -> JudgedSamples:
        """Return the samples of all parts, at least one, without pictures."""
        features = [part.features for part in parts if part.features is not None]
        return cls(
            torch.cat([part.z for part in parts]),
            torch.cat([part.w for part in parts]),
            concatenate([part.values for part in parts]),
            torch.cat(features) if len(features) == len(parts) else None,
        )

    def save(self, path: Path, parts: Sequence[str], **more: np.ndarray[Any, Any]) -> None:
        """Write an .npz file.

        Args:
            path: the file.
            parts: the fields that are written, out of "z", "w", "values" and "features".
            more: further arrays, by name.

        Raises:
            ArgumentError: the file cannot be written.
        """
        arrays = dict(more)
        for part in parts:
            if part == "values":
                arrays |= {f"value/{name}": column for name, column in self.values.items()}
            elif (tensor := getattr(self, part)) is not None:
                arrays[part] = tensor.numpy()
        with naming_target(path), replacing(path) as temporary:
            np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]  # names are no keywords of savez

    @classmethod
    def load(cls, path: Path, z: Tensor | None = None) -> tuple[JudgedSamples, Arrays] | None:
        """Return the samples and all arrays in a file that `save` wrote; `None` if it is missing or damaged.

        Args:
            path: the file.
            z: latents of the samples, for a file without them.
        """
        try:
            check_file(path)
            with path.open("rb") as file, np.load(file) as archive:
                arrays: Arrays = dict(archive.items())
            latents = torch.from_numpy(arrays["z"]) if z is None else z
            w = torch.from_numpy(arrays["w"])
        except (ModelError, OSError, ValueError, EOFError, KeyError, BadZipFile):
            return None
        values = {name.removeprefix("value/"): column for name, column in arrays.items() if name.startswith("value/")}
        features = torch.from_numpy(arrays["features"]) if "features" in arrays else None
        return cls(latents, w, values, features), arrays


class EvaluatedModel:
    """A model with a judge, under one truncation and label.

    Args:
        model: name of a packaged model, a model folder, or a `Model` in memory.
        device: "auto", "cpu", "cuda" and so on.
        truncation: psi in [0, 1] of everything that is drawn; by default that of the model.
        label: a class, or c_dim numbers, for a conditional generator.
        features: features by which distances between pictures are measured; by default the judge's, if it has any.

    Attributes:
        truncation: psi.
        reads: function from latents z to the input of the heads.
        read_latents: function from latents (n, z_dim) to the values in their pictures, if a subclass sets it because
            its model needs no pictures for them; otherwise `None`.
        identity: SHA-256 of everything that can change a judged sample: weights, judge, truncation, label, features.

    Raises:
        ModelError: the model cannot be loaded, or has no judge.
        ArgumentError: the label or the device does not fit.
    """

    def __init__(
        self,
        model: str | Path | Model,
        *,
        device: str = "auto",
        truncation: float | None = None,
        label: int | Sequence[float] | None = None,
        features: Features | None = None,
    ) -> None:
        self.pipeline = pipeline_for(model, device)
        self.model, self.device = self.pipeline.model, self.pipeline.device
        self.vocabulary, self.z_dim = self.model.vocabulary, self.model.generator.z_dim
        if self.model.judge is None:
            raise ModelError(
                f"model {self.model.name!r} has no judge, and heads cannot judge themselves",
                hint="give the Model one: judge=, a function from pictures to attributes",
            )
        self.truncation = self.model.truncation if truncation is None else truncation
        self.label = label
        checked = self.model.check_label(label)
        condition = as_condition(checked, self.model.generator)
        self.encode = partial(encode_under, self.model.generator, truncation=self.truncation, condition=condition)
        self.reads = head_reader(self.model.generator, self.model.bank.space, self.encode)
        self.read_latents: Callable[[Tensor], Values] | None = None
        self.features = judge_features(self.model.judge) if features is None else features
        features_name = None if self.features is None else self.features.name
        self.identity = _digest([_fingerprints(self.model), self.truncation, checked, features_name])

    def prepare(self, query: str | Expr, **options: Unpack[DrawOptions]) -> PreparedQuery:
        """Return a query, prepared under the truncation and label of this model; see `Pipeline.prepare`.

        Weak heads are allowed, because the judge measures their effect.
        """
        settings = DrawSettings(truncation=self.truncation, label=self.label, allow_weak=tuple(self.vocabulary))
        return self.pipeline.prepare(query, settings, **options)

    def judge(
        self, z: Tensor, report: Report = lambda stage, fraction: None, *, picture_count: int = 0
    ) -> JudgedSamples:
        """Return the samples with latents z (n, z_dim), drawn and judged, with the first `picture_count` pictures.

        `report` is called with the stage "judging".

        Raises:
            DataError: the judge does not read every attribute.
        """
        parts: list[JudgedSamples] = []
        pictures: list[Image.Image] = []
        count = 0
        for w, images in draw_batches(self.model.generator.synthesize, self.encode, z.to(self.device)):
            features = None if self.features is None else self.features.read(images)
            latents = z[count : count + len(images)].float().cpu(), w.flatten(1).float().cpu()
            values = self.model.judge_images(images)
            if missing := [name for name in self.vocabulary if name not in values]:
                raise DataError(
                    f"the judge returns no {', '.join(map(repr, missing))}",
                    hint="give a judge that reads these attributes, or queries about others",
                )
            parts.append(JudgedSamples(*latents, values, features))
            pictures += to_pictures(images[: picture_count - count]) if count < picture_count else []
            count += len(images)
            report("judging", count / len(z))
        return replace(JudgedSamples.join(parts), pictures=tuple(pictures))

    def read_heads(self, z: Tensor) -> Values:
        """Return for each attribute the likeliest values by the heads, (n,), of latents z (n, z_dim)."""
        with torch.inference_mode():
            return decide(self.model.bank.predict(self.reads(z)))

    def satisfied(self, query: Expr, values: Values) -> Truths:
        """Return for each sample whether its values (attribute -> values, (n,)) satisfy a bound query, (n,)."""
        rows = len(next(iter(values.values())))
        return np.broadcast_to(satisfied(query, values, self.vocabulary), (rows,))


def _fingerprints(model: Model) -> dict[str, str]:
    """Return a fingerprint of each network of a model, computed if the model has none."""
    facts = dict(model.fingerprints)
    facts.setdefault("generator", module_fingerprint(model.generator))
    if "judge" not in facts and model.judge is not None:
        facts["judge"] = labeller_name(model.judge)
    if "attributes" not in facts:
        if (reader := model.bank.reader) is not None:
            return facts | {"attributes": f"{labeller_name(reader)} {module_fingerprint(reader)}"}
        heads = heads_of(model.bank, "an evaluation").heads
        weights = {name: [part.tolist() for part in head.tensors().values()] for name, head in heads.items()}
        facts["attributes"] = _digest(weights)
    return facts


def _digest(facts: object) -> str:
    """Return the SHA-256 of the JSON text of a value."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
