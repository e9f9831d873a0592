"""A model under test: its pictures as the judge and the heads read them, and samplers run on it."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from energyql.attributes.outputs import decide
from energyql.drawing import Values, draw, join_values, judge
from energyql.energy.query_energy import QueryEnergy
from energyql.energy.semantics import compile_energy_rule
from energyql.errors import ModelError
from energyql.files import fingerprint, replacing
from energyql.language import Expr
from energyql.logic.truth import satisfied
from energyql.model import load_model
from energyql.models import model_folder
from energyql.progress import Report
from energyql.sampling import Sampler, normals, prior_latents


class Subject:
    """A model, with all that a measurement asks of it.

    Args:
        model: a packaged model, or a model folder; it needs a judge.
        device: where to compute.

    Attributes:
        identity: SHA-256 over all files of the model that can change a result: generator, heads and judge.
    """

    def __init__(self, model: str, device: torch.device | str = "cpu") -> None:
        self.folder = model_folder(model)
        self.model = load_model(model, device)
        if self.model.judge is None:
            raise ModelError(f"model {self.model.name!r} has no judge, and heads cannot judge themselves")
        self.device = torch.device(device)
        self.vocabulary = self.model.vocabulary
        files = sorted(path for path in self.folder.iterdir() if path.suffix in (".json", ".safetensors"))
        digests = "".join(f"{path.name} {fingerprint(path)}\n" for path in files)
        self.identity = hashlib.sha256(digests.encode()).hexdigest()

    def encode(self, z: Tensor) -> Tensor:
        return self.model.generator.encode(z, self.model.truncation)

    def latent(self, z: Tensor) -> Tensor:
        """What the heads read."""
        return self.encode(z) if self.model.bank.space == "w" else z

    def read(self, z: Tensor, report: Report = lambda stage, fraction: None) -> Values:
        """What the judge sees in the pictures of z, (n, z_dim). Pictures are thrown away."""
        parts: list[Values] = []
        done = 0
        for _, images in draw(self.model.generator, self.encode, z.to(self.device)):
            parts.append(judge(self.model, images))
            done += len(images)
            report("judging", done / len(z))
        return join_values(parts)

    def prior(self, count: int, seed: int, folder: Path, report: Report) -> Values:
        """Judged samples of the prior, kept in `folder` so that they are judged once for a model."""
        path = folder / f"prior-{self.identity[:16]}-{seed}-{count}.npz"
        if path.is_file():
            with np.load(path) as stored:
                return {name: stored[name] for name in self.vocabulary}
        z = normals(seed, 0, count, self.model.generator.z_dim, stream="benchmark prior")
        values = self.read(z, report)
        with replacing(path) as temporary:
            np.savez_compressed(temporary, **values)  # type: ignore[arg-type]  # names are no keywords of savez
        return values

    def measure(self, formula: Expr, semantics: str, sampler: Sampler, n: int, seed: int) -> dict[str, Any]:
        """Sample a bound formula and count.

        Returns:
            Fractions satisfied by the word of the judge and of the heads (`judge`, `heads`), mean `evaluations` of the
            gradient, number of `failures` of the solver, how they ended (`statuses`), and `seconds` of sampling.
            Samples that the solver could not finish are judged like all others.
        """
        rule = compile_energy_rule(formula, self.vocabulary, semantics)
        energy = QueryEnergy(rule, self.latent, self.model.bank.predict)
        z0 = prior_latents(seed, 0, n, self.model.generator.z_dim).to(self.device)
        started = time.perf_counter()
        sampled = sampler.sample(energy, z0)
        seconds = time.perf_counter() - started
        with torch.inference_mode():
            headed = decide(self.model.bank.predict(self.latent(sampled.z)))
        return {
            "judge": self.fraction(formula, self.read(sampled.z)),
            "heads": self.fraction(formula, headed),
            "evaluations": sampled.evaluations.double().mean().item(),
            "failures": int((~sampled.ok).sum()),
            "statuses": {status.name: count for status, count in sampled.counts().items()},
            "seconds": round(seconds, 3),
        }

    def fraction(self, formula: Expr, values: Values) -> float:
        """How many rows of `values` satisfy a bound formula, in [0, 1]."""
        return float(satisfied(formula, values, self.vocabulary).mean())
