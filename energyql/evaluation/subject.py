"""The model under test: queries prepared on it, and latents looked at with its judge."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.labels import labeller_name
from energyql.attributes.predictions import decide
from energyql.errors import ModelError
from energyql.evaluation.features import Features, judge_features
from energyql.generators.checkpoints.folder import module_fingerprint
from energyql.generators.classes import as_condition, encode_under
from energyql.pipeline.arguments import choose_device
from energyql.pipeline.drawing import Values, draw, join_values, judge
from energyql.pipeline.generate import Pipeline
from energyql.pipeline.model import Model, load_model
from energyql.progress import Report
from energyql.render.pictures import to_pictures
from energyql.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Seen:
    """What the judge sees in the pictures of some latents, a row each.

    Attributes:
        z: (n, z_dim); w: (n, ...), flat; both float32 on the CPU.
        values: attribute -> decided values, (n,).
        features: of the feature network, (n, dim) float32 on the CPU; `None` where there is none.
        pictures: of the first rows, as many as were asked for.
    """

    z: Tensor
    w: Tensor
    values: Values
    features: Tensor | None
    pictures: tuple[Image.Image, ...] = ()

    def __len__(self) -> int:
        return len(self.z)

    def select(self, rows: Sequence[int] | np.ndarray[Any, Any]) -> Seen:
        """Some of the rows, in that order, without their pictures."""
        index = np.asarray(rows, dtype=np.int64)
        at = torch.from_numpy(index)
        return Seen(
            self.z[at],
            self.w[at],
            {name: column[index] for name, column in self.values.items()},
            None if self.features is None else self.features[at],
        )

    @classmethod
    def join(cls, parts: Sequence[Seen]) -> Seen:
        """Several as one, without their pictures."""
        features = [part.features for part in parts if part.features is not None]
        return cls(
            torch.cat([part.z for part in parts]),
            torch.cat([part.w for part in parts]),
            join_values([part.values for part in parts]),
            torch.cat(features) if len(features) == len(parts) else None,
        )


class Subject:
    """A model that has a judge.

    Args:
        model: a packaged model, a model folder, or a `Model` in memory.
        device: as for `energyql.generate`.
        truncation, label: as for `energyql.generate`, for all that is drawn.
        features: that distances between pictures are measured in; by default the judge's, if it has some.

    Attributes:
        settings: what `Pipeline.prepare` is given besides a query and a sampler.
        identity: SHA-256 of all that can change what is seen: weights, truncation, label.

    Raises:
        ModelError: the model has no judge, so nobody can tell whether a sample satisfies a query.
        EnergyQLError: as for `energyql.generate`.
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
        if isinstance(model, Model):
            self.pipeline = Pipeline(model, model.device if device == "auto" else choose_device(device))
        else:
            chosen = choose_device(device)
            self.pipeline = Pipeline(load_model(model, chosen), chosen)
        self.model, self.device = self.pipeline.model, self.pipeline.device
        if self.model.judge is None:
            raise ModelError(
                f"model {self.model.name!r} has no judge, and heads cannot judge themselves",
                hint="give the Model one: judge=, a function from pictures to attributes",
            )
        self.settings: dict[str, Any] = {"truncation": truncation, "label": label}
        psi = self.model.truncation if truncation is None else truncation
        checked = self.model.check_label(label)
        condition = as_condition(checked, self.model.generator)
        self.encode = partial(encode_under, self.model.generator, truncation=psi, condition=condition)
        self.features = judge_features(self.model.judge) if features is None else features
        self.identity = _identity(self.model, psi, checked, None if self.features is None else self.features.name)

    @property
    def vocabulary(self) -> Vocabulary:
        return self.model.vocabulary

    @property
    def z_dim(self) -> int:
        return self.model.generator.z_dim

    def look(self, z: Tensor, report: Report = lambda stage, fraction: None, *, shown: int = 0) -> Seen:
        """Draw latents (n, z_dim) and look at the pictures, of which the first `shown` are kept."""
        latents: list[Tensor] = []
        values: list[Values] = []
        features: list[Tensor] = []
        pictures: list[Image.Image] = []
        done = 0
        for w, images in draw(self.model.generator, self.encode, z.to(self.device)):
            latents.append(w.flatten(1).float().cpu())
            values.append(judge(self.model, images))
            if self.features is not None:
                features.append(self.features.read(images))
            pictures += to_pictures(images[: shown - done]) if done < shown else []
            done += len(images)
            report("judging", done / len(z))
        w = torch.cat(latents)
        found = torch.cat(features) if features else None
        return Seen(z.float().cpu(), w, join_values(values), found, tuple(pictures))

    def read_heads(self, z: Tensor) -> Values:
        """What the heads say of latents: the likeliest value of each attribute."""
        bank = self.model.bank
        with torch.inference_mode():
            return decide(bank.predict(self.encode(z) if bank.space == "w" else z))


def _identity(model: Model, truncation: float, label: object, features: str | None) -> str:
    facts = dict(model.fingerprints)
    facts.setdefault("generator", module_fingerprint(model.generator))
    if "judge" not in facts and model.judge is not None:
        facts["judge"] = labeller_name(model.judge)
    if "attributes" not in facts:
        facts["attributes"] = _digest(
            {name: [tensor.tolist() for tensor in head.tensors().values()] for name, head in model.bank.heads.items()}
        )
    return _digest([facts, truncation, label, features])


def _digest(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
