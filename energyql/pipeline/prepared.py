"""A query on a model, with all that is settled before the first sample is drawn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from energyql.attributes.predictions import decide, tabulate
from energyql.energy.query_energy import QueryEnergy
from energyql.energy.rule import EnergyRule
from energyql.language import Expr
from energyql.logic.truth import satisfied
from energyql.numerics.pullback import Identity
from energyql.pipeline.drawing import Encode, draw, join_values, judge
from energyql.pipeline.model import Model
from energyql.pipeline.result import Result
from energyql.progress import Report
from energyql.render.pictures import to_pictures
from energyql.sampling import Noise, Sampler, SampleResult, Status, prior_latents, summarize

LATENT_BATCH = 4096
"""Latents that are sampled together unless a call says otherwise."""


@dataclass(frozen=True, eq=False)
class PreparedQuery:
    """What `Pipeline.prepare` makes of a query.

    Attributes:
        model: on its device.
        device: that device.
        expr: the query, bound to the model's vocabulary.
        rule: its meaning.
        encode: from z to w, truncation and label applied.
        sampler: moves latents to where the query holds.
        precision: of the energy while it samples.
        seed: of the run; sample i depends on (seed, i) alone.
        batch_size: latents, and pictures, computed together.
        provenance: what replays the run.
    """

    model: Model
    device: torch.device
    expr: Expr
    rule: EnergyRule
    encode: Encode
    sampler: Sampler
    precision: torch.dtype
    seed: int
    batch_size: int | None
    provenance: dict[str, Any]

    @property
    def energy(self) -> QueryEnergy:
        """The energy of the query as a function of z."""
        energy = QueryEnergy(self.rule, self._read, self.model.bank)
        return energy if self.precision == torch.float32 else energy.computed_in(self.precision)

    def sample(self, first: int, n: int, report: Report) -> Iterator[SampleResult]:
        """Sample `first` … `first + n - 1` of the run, a batch at a time; no more than a batch is held in memory."""
        size, done, energy = self.batch_size or LATENT_BATCH, 0, self.energy
        while done < n:
            count = min(size, n - done)
            z0 = prior_latents(self.seed, first + done, count, self.model.generator.z_dim).to(self.device)

            def fraction(part: float, active: int, done: int = done, count: int = count) -> None:
                report("sampling", (done + part * count) / n)

            yield self.sampler.sample(energy, z0, noise=Noise(self.seed, first + done), progress=fraction)
            done += count
        report("sampling", 1.0)

    def generate(self, first: int, n: int, report: Report) -> tuple[Result, SampleResult]:
        """Samples and pictures of `first` … `first + n - 1`."""
        started = time.perf_counter()
        sampled = SampleResult.join(list(self.sample(first, n, report)))
        drawn = time.perf_counter()
        result = self.show(sampled, np.arange(first, first + n), report)
        finished = time.perf_counter()
        result.statistics.update(
            summarize(sampled) | {"seconds_sampling": drawn - started, "seconds_drawing": finished - drawn}
        )
        return result, sampled

    def show(self, sampled: SampleResult, index: np.ndarray[Any, Any], report: Report) -> Result:
        """Pictures of sampled latents, and all that is known about them."""
        pictures, latents, readings = [], [], []
        for w, images in draw(self.model.generator, self.encode, sampled.z, self.batch_size):
            pictures += to_pictures(images)
            latents.append(w)
            readings.append(judge(self.model, images))
            report("drawing", len(pictures) / len(sampled.z))
        w, judged = torch.cat(latents), join_values(readings)
        with torch.inference_mode():
            read = w if self.model.bank.space == "w" else sampled.z
            read = read.mean(1) if read.ndim == 3 else read  # of W+ what layers share
            predictions = self.model.bank.predict(read)
            energy = QueryEnergy(self.rule, self._read, self.model.bank).of_latent(read)
        decided = judged or decide(predictions)
        holds = satisfied(self.expr, decided, self.model.vocabulary)
        return Result(
            images=pictures,
            z=sampled.z.cpu(),
            w=w.cpu(),
            index=index,
            energy=energy.double().cpu().numpy(),
            probabilities=tabulate(predictions),
            judged=decided,
            satisfied=np.broadcast_to(holds, (len(w),)).copy(),
            status=[Status(code) for code in sampled.status.tolist()],
            statistics={},
            provenance=self.provenance | {"n": len(w), "judge": "image judge" if judged else "attribute heads"},
        )

    @property
    def _read(self) -> Encode:
        """From z to what the heads read."""
        return self.encode if self.model.bank.space == "w" else Identity()
