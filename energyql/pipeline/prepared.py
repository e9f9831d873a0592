"""A query compiled for a model, and the run from it to latents, pictures and verdicts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.attributes.doubt import outside_shell, second_bank
from energyql.attributes.pictures import PictureBank, heads_of
from energyql.attributes.predictions import Predictions, Table, decide, tabulate
from energyql.attributes.surrogates import SurrogateHeads
from energyql.energy.picture_energy import REALISM_PILOT, PictureEnergy, energy_of_pictures, reader_energy, with_realism
from energyql.energy.query_energy import Encode, QueryEnergy, check_predictions
from energyql.energy.rule import EnergyRule
from energyql.energy.surrogate import Surrogate
from energyql.generators.base import synthesizer
from energyql.generators.noise import draw_batches, drawing, noise_options
from energyql.language import Expr, predicates
from energyql.logic.truth import satisfied
from energyql.pipeline.columns import concatenate
from energyql.pipeline.evidence import accepted, cannot_count, next_round, unjudged, verdict
from energyql.pipeline.model import Model
from energyql.pipeline.result import Result
from energyql.pipeline.settings import DrawSettings, whole_number
from energyql.progress import Report, reporting
from energyql.render.pictures import to_pictures
from energyql.sampling import RandomStreams, Sampler, SampleResult, Status, normals, prior_latents, summarize
from energyql.sampling.base import draw_with
from energyql.vocabulary import ByAttribute

LATENT_BATCH = 4096
"""Latents sampled together, unless a call says otherwise."""
STREAM_BATCH = 64
"""Samples in one result of a stream, unless more are computed together."""

_Read = tuple[dict[str, Table], npt.NDArray[np.float64], npt.NDArray[np.bool_]]
"""Predictions of all attributes, energies of the query, and doubts, of n samples."""


@dataclass(frozen=True, eq=False)
class PreparedQuery:
    """A query on a model, checked and compiled; made by `Pipeline.prepare`.

    Attributes:
        model: on its device.
        device: that device.
        expr: the query, bound to the model's vocabulary.
        rule: its energy as a function of the predictions.
        encode: from z to w, truncation and label applied.
        reads: from z to what the heads, or a reader of pictures, read.
        surrogates: returns heads on z in place of the model's under that truncation and label; `None` where z has too
            many numbers for them, or attributes are read off pictures.
        sampler: moves latents to low energy.
        settings: seed, precision and batch size of the run.
        provenance: the facts that replay the run.
    """

    model: Model
    device: torch.device
    expr: Expr
    rule: EnergyRule
    encode: Encode
    reads: Encode
    surrogates: Callable[[], SurrogateHeads] | None
    sampler: Sampler
    settings: DrawSettings
    provenance: dict[str, Any]

    @cached_property
    def energy_in_float32(self) -> QueryEnergy | PictureEnergy:
        """The energy of the query as a function of z, in float32."""
        if isinstance(self.model.bank, PictureBank):
            return self._by_picture(torch.float32)
        # Without a reference to `self`: in a cycle, megabytes of packed weights would wait for the garbage collector.
        surrogate = None if self.surrogates is None else cache(partial(_surrogate, self.rule, self.surrogates))
        return QueryEnergy(self.rule, self.reads, self.model.bank, surrogate)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the settings."""
        dtype: torch.dtype = getattr(torch, self.settings.precision)
        return dtype

    @cached_property
    def energy(self) -> QueryEnergy | PictureEnergy:
        """The energy that is sampled: in the precision of the settings, and with realism if they ask for it."""
        energy = self.energy_in_float32
        if self.dtype != torch.float32:
            energy = energy.computed_in(self.dtype) if isinstance(energy, QueryEnergy) else self._by_picture(self.dtype)
        critic, weight, generator = self.model.discriminator, self.settings.realism, self.model.generator
        if critic is None or not weight:
            return energy
        draw = drawing(generator, self.dtype, self.settings.noise, self.settings.seed)
        pilot = normals(0, 0, REALISM_PILOT, generator.z_dim, stream="realism").to(self.device)
        return with_realism(energy, critic, weight, self.encode, draw, pilot)

    def _by_picture(self, dtype: torch.dtype) -> PictureEnergy:
        bank, settings = self.model.bank, self.settings
        assert isinstance(bank, PictureBank)
        draw = drawing(self.model.generator, dtype, settings.noise, settings.seed)
        return reader_energy(self.rule, bank, self.encode, draw)

    def run(self, n: int, *, first: int = 0, progress: bool | Report = True) -> Result:
        """Draw the samples `first`, ..., `first + n - 1`; see `energyql.generate`."""
        n, first = whole_number("n", n), whole_number("first", first, least=0, most=2**62)
        with reporting(progress) as report:
            return self._run(first, n, report)[0]

    def stream(self, n: int, *, first: int = 0, progress: bool | Report = True) -> Iterator[Result]:
        """Check the arguments and return an iterator over results of consecutive samples; see `energyql.stream`."""
        n, first = whole_number("n", n, most=2**62), whole_number("first", first, least=0, most=2**62)
        return self._stream(n, first, progress)

    def _stream(self, n: int, first: int, progress: bool | Report) -> Iterator[Result]:
        size, done = max(STREAM_BATCH, self.settings.batch_size or 0), 0
        with reporting(progress) as report:
            while done < n:
                count = min(size, n - done)

                def share(stage: str, fraction: float, done: int = done, count: int = count) -> None:
                    report(stage, (done + fraction * count) / n)

                yield self._run(first + done, count, share)[0]
                done += count

    def run_until_satisfied(self, n: int, *, budget: int | None = None, progress: bool | Report = True) -> Result:
        """Draw until n samples satisfy the query; see `energyql.until_satisfied`."""
        n = whole_number("n", n)
        budget = 10 * n if budget is None else whole_number("budget", budget, least=n)
        self.check_judged()
        kept: list[Result] = []
        tried: list[SampleResult] = []
        found = drawn = 0
        seconds = {"seconds_sampling": 0.0, "seconds_drawing": 0.0}
        with reporting(progress) as report:
            while found < n and drawn < budget:
                count = min(budget - drawn, next_round(n, found, drawn))
                result, sampled = self._run(drawn, count, lambda stage, fraction: None)
                good = accepted(result, n - found)
                kept.append(result[good])
                tried.append(sampled)
                seconds = {name: total + result.statistics[name] for name, total in seconds.items()}
                found, drawn = found + len(good), drawn + count
                report("satisfied", found / n)
                report("budget", drawn / budget)
        joined = Result.join(kept)
        share = float(joined.doubtful.mean()) if found else 0.0
        joined.statistics.update(
            self._costs(SampleResult.join(tried)) | seconds | {"drawn": float(drawn), "doubtful": share}
        )
        joined.provenance.update({"n": found, "wanted": n, "budget": budget})
        return joined

    def check_judged(self) -> None:
        """Check that samples that satisfy the query can be counted.

        Raises:
            ModelError: the model has no judge, or its judge does not read an attribute of the query.
        """
        judge = self.model.judge
        reads = None if judge is None else getattr(judge, "vocabulary", self.model.vocabulary)
        if reason := unjudged(self.expr, reads):
            raise cannot_count(reason)

    def latents(self, n: int, *, first: int = 0, progress: bool | Report = True) -> Iterator[SampleResult]:
        """Check the arguments and return an iterator over batches; see `energyql.sample_latents`."""
        n, first = whole_number("n", n, most=2**62), whole_number("first", first, least=0, most=2**62)
        return self._latents(n, first, progress)

    def _latents(self, n: int, first: int, progress: bool | Report) -> Iterator[SampleResult]:
        size, done, energy, seed = self.settings.batch_size or LATENT_BATCH, 0, self.energy, self.settings.seed
        with reporting(progress) as report:
            while done < n:
                count = min(size, n - done)
                z0 = prior_latents(seed, first + done, count, self.model.generator.z_dim).to(self.device)

                def fraction(part: float, active: int, done: int = done, count: int = count) -> None:
                    report("sampling", (done + part * count) / n)

                yield draw_with(self.sampler, energy, z0, RandomStreams(seed, first + done), fraction)
                done += count
            report("sampling", 1.0)

    def show(self, sampled: SampleResult, index: npt.NDArray[Any], report: Report, w: Tensor | None = None) -> Result:
        """Draw sampled latents and judge the pictures.

        Args:
            sampled: latents and how the sampler ended.
            index: number of each sample in its run, (n,).
            report: called with the fraction that is drawn.
            w: of each sample, (n, w_dim) or (n, num_ws, w_dim), if it is not the mapped z.
        """
        pictures, latents, readings, by_reader = [], [], [], []
        settings, generator, bank = self.settings, self.model.generator, self.model.bank
        synthesize = synthesizer(generator, self.dtype)

        def options(rows: slice) -> dict[str, Any]:
            return noise_options(generator, settings.noise, settings.seed, index[rows].tolist())

        for drawn, images in draw_batches(synthesize, self.encode, sampled.z, settings.batch_size, w, options):
            pictures += to_pictures(images)
            latents.append(drawn)
            readings.append(self.model.judge_images(images))
            if isinstance(bank, PictureBank):
                by_reader.append(self._by_reader(bank, images))
            report("drawing", len(pictures) / len(sampled.z))
        placed, w = w is not None, torch.cat(latents)
        judged = {name: np.concatenate([part[name] for part in readings]) for name in readings[0]}
        holds, reason = verdict(self.expr, None if self.model.judge is None else judged, self.model.vocabulary)
        probabilities, energy, doubtful = concatenate(by_reader) if by_reader else self._by_heads(sampled.z, w)
        if not placed:  # the z of a sample that was placed in w says nothing of it
            doubtful |= outside_shell(sampled.z).cpu().numpy()
        return Result(
            images=pictures,
            z=sampled.z.cpu(),
            w=w.cpu(),
            index=index,
            energy=energy,
            probabilities=ByAttribute(probabilities),
            judged=ByAttribute(judged),
            satisfied=holds,
            doubtful=doubtful,
            status=[Status(code) for code in sampled.status.tolist()],
            statistics={"doubtful": float(doubtful.mean())},
            provenance=self.provenance | {"n": len(w), "unjudged": reason},
        )

    @torch.inference_mode()
    def _by_heads(self, z: Tensor, w: Tensor) -> _Read:
        bank, energy = heads_of(self.model.bank, "this"), self.energy_in_float32
        read = w if bank.space == "w" else self.reads(z)
        read = read.mean(1) if read.ndim == 3 else read  # of W+ what layers share
        predictions = bank.predict(read)
        assert isinstance(energy, QueryEnergy)
        return tabulate(predictions), energy.of_latent(read).double().cpu().numpy(), self._doubtful(read, predictions)

    @torch.inference_mode()
    def _by_reader(self, bank: PictureBank, images: Tensor) -> _Read:
        predictions = bank.predict(images)
        check_predictions(predictions, tuple(predictions), images)
        energy = energy_of_pictures(self.rule, lambda _, names: predictions, images)
        return tabulate(predictions), energy.double().cpu().numpy(), np.zeros(len(images), bool)

    def _doubtful(self, read: Tensor, predictions: Predictions) -> npt.NDArray[np.bool_]:
        """Whether the second heads, where there are some, disagree with the first about the query, (n,)."""
        second, names = self.model.second, list(dict.fromkeys(node.name for node in predicates(self.expr)))
        if not second.keys() & set(names):
            return np.zeros(len(read), bool)
        sets = (
            {name: predictions[name] for name in names},
            second_bank(heads_of(self.model.bank, "a second head"), second).predict(read, names),
        )
        first, other = (satisfied(self.expr, decide(heads), self.model.vocabulary) for heads in sets)
        return np.asarray(first != other)

    def _costs(self, sampled: SampleResult) -> dict[str, float]:
        """Return the statistics of a run; of an energy that draws pictures, also the mean calls of the generator."""
        found = summarize(sampled)
        if isinstance(self.energy, PictureEnergy):
            found["generator_calls_mean"] = found["evaluations_mean"] + found["gradients_mean"]
        return found

    def _run(self, first: int, n: int, report: Report) -> tuple[Result, SampleResult]:
        started = time.perf_counter()
        sampled = SampleResult.join(list(self._latents(n, first, report)))
        drawn = time.perf_counter()
        result = self.show(sampled, np.arange(first, first + n), report)
        seconds = {"seconds_sampling": drawn - started, "seconds_drawing": time.perf_counter() - drawn}
        result.statistics.update(self._costs(sampled) | seconds)
        return result, sampled


def _surrogate(rule: EnergyRule, surrogates: Callable[[], SurrogateHeads]) -> Surrogate:
    """Return the energy of a rule by small networks in place of the heads."""
    return Surrogate(rule, surrogates().distilled(rule.attributes))
