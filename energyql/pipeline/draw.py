"""From a query to pictures or latents: the query compiled for a model, its run, and the calls that start one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.attributes.heads import outside_shell, second_bank
from energyql.attributes.judge import who_judges
from energyql.attributes.pictures import heads_of
from energyql.attributes.predictions import Predictions, Table, decide, tabulate
from energyql.attributes.surrogates import MOST_NUMBERS, SurrogateHeads
from energyql.energy.picture_energy import REALISM_PILOT, PictureEnergy, energy_of_pictures, reader_energy, with_realism
from energyql.energy.query_energy import Encode, QueryEnergy, Surrogate, check_predictions
from energyql.energy.rule import EnergyRule, compile_energy_rule
from energyql.files import naming_source, real_path
from energyql.generators.base import (
    Label,
    as_condition,
    check_noise,
    draw_batches,
    drawing,
    head_reader,
    noise_options,
    synthesizer,
)
from energyql.generators.mapping import encoder
from energyql.language import Expr, as_query, bind, predicates
from energyql.logic.truth import satisfied
from energyql.models import DEFAULT_MODEL, model_folder
from energyql.pipeline.checks import (
    accepted,
    cannot_count,
    check_allowed,
    check_gradient,
    check_heads,
    check_realism,
    next_round,
    unjudged,
    verdict,
)
from energyql.pipeline.model import Model, choose_device, judge_mark, load_model
from energyql.pipeline.result import Result, concatenate
from energyql.pipeline.settings import (
    DEFAULT_NOISE,
    DEFAULT_PRECISION,
    DEFAULT_SAMPLER,
    DEFAULT_SEMANTICS,
    PICTURES,
    DrawOptions,
    DrawSettings,
    Noise,
    Precision,
    SamplerName,
    Semantics,
    whole_number,
)
from energyql.progress import Report, reporting
from energyql.render.pictures import to_pictures
from energyql.sampling import (
    RandomStreams,
    Sampler,
    SampleResult,
    Status,
    make_sampler,
    normals,
    prior_latents,
    summarize,
)
from energyql.sampling.base import check_sampler, draw_with
from energyql.sampling.registry import describe_sampler
from energyql.version import __version__
from energyql.vocabulary import ByAttribute

if TYPE_CHECKING:
    from typing_extensions import Unpack

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
        model: the model, on `device`.
        device: device of the run.
        expr: the query, bound to the model's vocabulary.
        rule: its energy as a function of the predictions.
        encode: function from z to w, truncation and label applied.
        reads: function from z to the latents that the heads read; for a reader of pictures, to w.
        surrogates: function that returns heads on z in place of the model's; `None` if z is too large for them, or
            attributes are read off pictures.
        sampler: the sampler, with its settings.
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
        if self.model.bank.reads_pictures:
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
        """The energy that is sampled: in the precision of the settings, with the term of `realism` if it is not 0."""
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
        draw = drawing(self.model.generator, dtype, self.settings.noise, self.settings.seed)
        return reader_energy(self.rule, self.model.bank, self.encode, draw)

    def run(self, n: int, *, first: int = 0, progress: bool | Report = True) -> Result:
        """Draw the samples `first`, ..., `first + n - 1`; see `energyql.generate`."""
        n, first = whole_number("n", n), whole_number("first", first, least=0, most=2**62)
        with reporting(progress) as report:
            return self._run(first, n, report)[0]

    def stream(
        self, n: int, *, first: int = 0, opening: int | None = None, progress: bool | Report = True
    ) -> Iterator[Result]:
        """Check the arguments and return an iterator over results of consecutive samples; see `energyql.stream`.

        If `opening` is below the size of a batch, the first batch comes as two results, the first of that many samples.
        """
        n, first = whole_number("n", n, most=2**62), whole_number("first", first, least=0, most=2**62)
        return self._stream(n, first, opening, progress)

    def _stream(self, n: int, first: int, opening: int | None, progress: bool | Report) -> Iterator[Result]:
        size, done = max(STREAM_BATCH, self.settings.batch_size or 0), 0
        with reporting(progress) as report:
            while done < n:
                count = min(n - done, size - done % size, opening if opening and not done else size)

                def share(stage: str, fraction: float, done: int = done, count: int = count) -> None:
                    report(stage, (done + fraction * count) / n)

                yield self._run(first + done, count, share)[0]
                done += count

    def run_until_satisfied(self, n: int, *, budget: int | None = None, progress: bool | Report = True) -> Result:
        """Draw until n samples satisfy the query; see `energyql.until_satisfied`."""
        n = whole_number("n", n)
        budget = 10 * n if budget is None else whole_number("budget", budget, least=n)
        self.check_judged()
        results: list[Result] = []
        runs: list[SampleResult] = []
        hits = trials = 0
        seconds = {"seconds_sampling": 0.0, "seconds_drawing": 0.0}
        with reporting(progress) as report:
            while hits < n and trials < budget:
                count = min(budget - trials, next_round(n, hits, trials))
                result, sampled = self._run(trials, count, lambda stage, fraction: None)
                good = accepted(result, n - hits)
                results.append(result[good])
                runs.append(sampled)
                seconds = {name: total + result.statistics[name] for name, total in seconds.items()}
                hits, trials = hits + len(good), trials + count
                report("satisfied", hits / n)
                report("budget", trials / budget)
        joined = Result.join(results)
        share = float(joined.doubtful.mean()) if hits else 0.0
        joined.statistics.update(
            self._costs(SampleResult.join(runs)) | seconds | {"drawn": float(trials), "doubtful": share}
        )
        joined.provenance.update({"n": hits, "wanted": n, "budget": budget})
        return joined

    def check_judged(self) -> None:
        """Check that samples get a verdict on the query.

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
            report: called with "drawing" and the fraction done.
            w: the w of each sample, (n, w_dim) or (n, num_ws, w_dim); by default `encode(z)`.
        """
        pictures, latents, readings, by_reader = [], [], [], []
        settings, generator = self.settings, self.model.generator
        synthesize = synthesizer(generator, self.dtype)

        def options(rows: slice) -> dict[str, Any]:
            return noise_options(generator, settings.noise, settings.seed, index[rows].tolist())

        for latent, images in draw_batches(synthesize, self.encode, sampled.z, settings.batch_size, w, options):
            pictures += to_pictures(images)
            latents.append(latent)
            readings.append(self.model.judge_images(images))
            if self.model.bank.reads_pictures:
                by_reader.append(self._by_reader(images))
            report("drawing", len(pictures) / len(sampled.z))
        placed, w = w is not None, torch.cat(latents)
        judged = {name: np.concatenate([part[name] for part in readings]) for name in readings[0]}
        holds, reason = verdict(self.expr, None if self.model.judge is None else judged, self.model.vocabulary)
        probabilities, energy, doubtful = concatenate(by_reader) if by_reader else self._by_heads(sampled.z, w)
        if not placed:  # a sample that is given by its w does not depend on its z
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
        bank, energy = self.model.bank, self.energy_in_float32
        read = w if bank.space == "w" else self.reads(z)
        read = read.mean(1) if read.ndim == 3 else read  # the mean over the layers of W+
        predictions = bank.predict(read)
        assert isinstance(energy, QueryEnergy)
        return tabulate(predictions), energy.of_latent(read).double().cpu().numpy(), self._doubtful(read, predictions)

    @torch.inference_mode()
    def _by_reader(self, images: Tensor) -> _Read:
        predictions = self.model.bank.predict(images)
        check_predictions(predictions, tuple(predictions), images)
        energy = energy_of_pictures(self.rule, lambda _, names: predictions, images)
        return tabulate(predictions), energy.double().cpu().numpy(), np.zeros(len(images), bool)

    def _doubtful(self, read: Tensor, predictions: Predictions) -> npt.NDArray[np.bool_]:
        """Return whether the second heads, if any, disagree with the first about the query, (n,)."""
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
        costs = summarize(sampled)
        if isinstance(self.energy, PictureEnergy):
            costs["generator_calls_mean"] = costs["evaluations_mean"] + costs["gradients_mean"]
        return costs

    def _run(self, first: int, n: int, report: Report) -> tuple[Result, SampleResult]:
        started = time.perf_counter()
        sampled = SampleResult.join(list(self._latents(n, first, report)))
        middle = time.perf_counter()
        result = self.show(sampled, np.arange(first, first + n), report)
        seconds = {"seconds_sampling": middle - started, "seconds_drawing": time.perf_counter() - middle}
        result.statistics.update(self._costs(sampled) | seconds)
        return result, sampled


def _surrogate(rule: EnergyRule, surrogates: Callable[[], SurrogateHeads]) -> Surrogate:
    """Return the energy of a rule by the small networks of `surrogates` in place of the heads."""
    return Surrogate(rule, surrogates().distilled(rule.attributes))


_log = logging.getLogger("energyql")


class Pipeline:
    """A model on a device, ready for queries.

    Args:
        model: a loaded model; its torch modules are moved to the device.
        device: device for all computations.
    """

    def __init__(self, model: Model, device: torch.device) -> None:
        self.model = model.to(device)
        self.device = device
        self._surrogates: dict[tuple[float, Label | None], Callable[[], SurrogateHeads]] = {}

    def prepare(
        self, query: str | Expr, settings: DrawSettings | None = None, **options: Unpack[DrawOptions]
    ) -> PreparedQuery:
        """Check a query and compile it for this model, before anything is sampled.

        Args:
            query: text or expression.
            settings: the defaults if None.
            options: fields of `DrawSettings` that replace those of `settings`.

        Raises:
            EnergyQLError: as for `energyql.generate`.
        """
        settings, vocabulary = replace(settings or DrawSettings(), **options), self.model.vocabulary
        psi, label = self.model.check_truncation(settings.truncation), self.model.check_label(settings.label)
        check_noise(settings.noise, self.model.generator)
        check_allowed(settings.allow_weak, vocabulary)
        condition = as_condition(label, self.model.generator)
        sampler = settings.sampler
        if isinstance(sampler, str):
            sampler = make_sampler(sampler, 1.0 if settings.strength is None else settings.strength)
        else:
            check_sampler(sampler)
        bank, critic = self.model.bank, self.model.discriminator
        check_gradient(bank, sampler)
        check_realism(settings.realism, sampler, critic, self.model.name)
        expr, text = as_query(query)
        bound = bind(expr, vocabulary, query=text)
        rule = compile_energy_rule(bound, vocabulary, settings.semantics, query=text, relations=settings.relations)
        reports = self.model.report
        check_heads(bound, rule.attributes, reports, settings.allow_weak, query=text)
        encode = encoder(self.model.generator, psi, condition)
        reads = head_reader(self.model.generator, bank.space, encode)
        return PreparedQuery(
            model=self.model,
            device=self.device,
            expr=bound,
            rule=rule,
            encode=encode,
            reads=reads,
            surrogates=self._surrogates_under(psi, label, reads),
            sampler=sampler,
            settings=settings,
            provenance={
                "query": text,
                "canonical": str(expr),
                "seed": settings.seed,
                "model": self.model.name,
                "fingerprints": dict(self.model.fingerprints),
                "judge": who_judges(self.model.judge),
                **settings.record(sampler=describe_sampler(sampler), truncation=psi, label=label),
                "device": str(self.device),
                "heads": {name: str(reports[name]) if name in reports else None for name in rule.attributes},
                "versions": {"energyql": __version__, "torch": str(torch.__version__)},
            }
            | ({"discriminator": judge_mark(critic)} if settings.realism else {}),
        )

    def _surrogates_under(self, psi: float, label: Label | None, reads: Encode) -> Callable[[], SurrogateHeads] | None:
        """Return the attribute `surrogates` of a `PreparedQuery` with truncation `psi` and a label."""
        heads, z_dim = self.model.bank.as_heads, self.model.generator.z_dim
        if heads is None or z_dim > MOST_NUMBERS:
            return None
        return self._surrogates.setdefault((psi, label), cache(partial(SurrogateHeads, heads, reads, z_dim)))


def generate(
    query: str | Expr,
    n: int = PICTURES,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    semantics: Semantics = DEFAULT_SEMANTICS,
    sampler: SamplerName | Sampler = DEFAULT_SAMPLER,
    strength: float | None = None,
    precision: Precision = DEFAULT_PRECISION,
    truncation: float | None = None,
    label: int | Sequence[float] | None = None,
    noise: Noise = DEFAULT_NOISE,
    realism: float = 0.0,
    seed: int = 0,
    first: int = 0,
    device: str = "auto",
    batch_size: int | None = None,
    allow_weak: Sequence[str] = (),
    progress: bool | Report = True,
) -> Result:
    """Draw pictures that satisfy a query.

    Args:
        query: text such as `"smile AND NOT (glasses OR beard)"`, or `E.smile & ~(E.glasses | E.beard)`.
        n: number of pictures, at least 1.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        semantics: "exact", "product", "lace" or "jem".
        sampler: a name out of `energyql.sampling.SAMPLERS`, or a sampler with settings of its own.
        strength: lambda > 0, multiplies the energy: 1 is the query as stated, more is more certain and less varied.
            By default the sampler's own.
        precision: "float32"; or "bfloat16", if the processor has it, for the mapping network and the heads during
            sampling, and for the feature maps of a StyleGAN. Energies then have an error of about a hundredth, pictures
            one of about a third of a grey level (58 dB for `avatars`), and large networks take half to two thirds of
            the time. The energies of the `Result` are still computed in float32.
        truncation: psi in [0, 1], moves w toward its mean: smaller values give less varied pictures with fewer faults.
            By default that of the model.
        label: for a conditional generator: a class, or as many numbers as it has classes. By default the label under
            which the attributes were fitted, if there was one.
        noise: if the generator adds noise besides w, as a StyleGAN2 does: "const", the noise of the model, with which
            attributes were labelled; "random", new noise for each picture, from (seed, i); or "none". The noise decides
            fine detail, such as single hairs; heads do not depend on it.
        realism: weight of the model's discriminator D as a further term of the energy, `-realism * log(D / (1 - D))`.
            1 corrects the generator toward the data (Che et al. 2020, DDLS, arXiv 2003.06060), 0 omits the term. Each
            evaluation then draws a picture; samplers that minimise the energy are refused.
        seed: 0 to 2**64 - 1. Picture i depends only on (seed, i), not on n, batch size or number of devices.
        first: the i of the first picture, so that a later call can continue where this one ends.
        device: "auto" (that of a `Model` in memory, else a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
        batch_size: samples that are computed together; the default depends on the model.
        allow_weak: attributes whose heads may be used although their quality on held-out labels is low.
        progress: show a progress bar; or a function that is called with the name of a stage and the fraction of it that
            is done. An exception that the function raises ends the run.

    Returns:
        Pictures with their latents, energies, verdicts and provenance.

    Raises:
        WeakHeadError: the query needs a head whose quality on held-out labels is low.
        EnergyQLError: the query, a name or a setting is wrong; the message says which, where and what to do.
    """
    settings = DrawSettings(
        semantics=semantics, sampler=sampler, strength=strength, precision=precision, truncation=truncation,
        label=label, noise=noise, realism=realism, seed=seed, batch_size=batch_size, allow_weak=allow_weak,
    )  # fmt: skip
    return pipeline_for(model, device).prepare(query, settings).run(n, first=first, progress=progress)


def until_satisfied(
    query: str | Expr,
    n: int = PICTURES,
    *,
    budget: int | None = None,
    model: str | Path | Model = DEFAULT_MODEL,
    device: str = "auto",
    progress: bool | Report = True,
    **options: Unpack[DrawOptions],
) -> Result:
    """Draw until n pictures satisfy a query, according to the model's judge.

    Args:
        query: as for `generate`.
        n: number of pictures that satisfy it.
        budget: most samples to draw, at least n; by default 10 n.
        model: as for `generate`.
        device: as for `generate`.
        progress: as for `generate`.
        options: the settings, as for `generate`.

    Returns:
        The first n samples of the run that satisfy the query; fewer, perhaps none, if the budget ends first, which
        `summary()` reports. `statistics["drawn"]` is the number of samples drawn, and `index` their numbers in the run.

    Raises:
        ModelError: the model has no judge, or its judge does not read an attribute of the query.
        EnergyQLError: as for `generate`.
    """
    return (
        pipeline_for(model, device).prepare(query, **options).run_until_satisfied(n, budget=budget, progress=progress)
    )


def sample_latents(
    query: str | Expr,
    n: int,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    first: int = 0,
    device: str = "auto",
    progress: bool | Report = True,
    **options: Unpack[DrawOptions],
) -> Iterator[SampleResult]:
    """Sample latents that satisfy a query, without their pictures, in batches: memory does not grow with n.

    Args:
        query: as for `generate`.
        n: number of samples, of any size.
        model: as for `generate`.
        first: as for `generate`.
        device: as for `generate`.
        progress: as for `generate`.
        options: the settings, as for `generate`; `batch_size` is 4096 by default.

    Returns:
        An iterator over consecutive batches of latents z, with status, evaluations and diagnostics. They are those
        that `generate` draws for the same seed and index.

    Raises:
        EnergyQLError: as for `generate`, at the call and not at the first batch.
    """
    return pipeline_for(model, device).prepare(query, **options).latents(n, first=first, progress=progress)


def pipeline_for(model: str | Path | Model | Pipeline, device: str) -> Pipeline:
    """Return a model ready for queries; packaged models and folders stay loaded."""
    if isinstance(model, Pipeline):
        return model
    if isinstance(model, Model):
        return Pipeline(model, model.device if device == "auto" else choose_device(device))
    folder = real_path(model_folder(model))
    with naming_source(folder):
        # Hidden files are temporary files of writers.
        files = (file for file in folder.iterdir() if not file.name.startswith("."))
        written = max(map(_written, files), default=0)
    return _pipeline(folder, str(choose_device(device)), written)


def _written(file: Path) -> int:
    """Return the time of the last change of a file, in nanoseconds; for a broken link, that of the link."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return file.lstat().st_mtime_ns


@lru_cache(maxsize=4)
def _pipeline(folder: Path, device: str, written: int) -> Pipeline:
    """Load a model, or return it from the cache; `written`, the last change of its files, is part of the key."""
    _log.debug("loading %s on %s", folder, device)
    return Pipeline(load_model(folder, device), torch.device(device))
