"""Drawing of pictures or latents for a query: `PreparedQuery`, a query compiled for a model, and functions of one call.

`Pipeline` holds a model on a device and compiles queries for it. `generate`, `until_satisfied` and `sample_latents`
compile a query and run it.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from energyql import __version__
from energyql.attributes.heads import outside_shell, second_bank
from energyql.attributes.judge import who_judges
from energyql.attributes.pictures import heads_of
from energyql.attributes.predictions import Predictions, Table, decide, on_cpu, tabulate
from energyql.attributes.surrogates import MOST_NUMBERS, SurrogateHeads
from energyql.energy.clipped import ClippedEnergy
from energyql.energy.picture_energy import (
    NO_GRADIENT,
    REALISM_PILOT,
    WITHOUT_GRADIENT,
    PictureEnergy,
    energy_of_pictures,
    reader_energy,
    with_realism,
)
from energyql.energy.query_energy import Encode, QueryEnergy, Surrogate, check_predictions
from energyql.energy.rule import EnergyRule, compile_energy_rule
from energyql.errors import ArgumentError, NotAcceptedError
from energyql.files import naming_source, real_path
from energyql.generators.base import (
    Calls,
    Condition,
    Generator,
    PromptedGenerator,
    check_noise,
    check_single_condition,
    class_count,
    condition_vector,
    draft_cost,
    draw_batches,
    drawing,
    head_reader,
    is_differentiable,
    noise_options,
    noise_shapes,
    show_pictures,
    synthesizer,
)
from energyql.generators.mapping import encoder
from energyql.language import Expr, as_query, bind, predicates
from energyql.language.lexical import shorten
from energyql.logic.satisfiability import satisfied
from energyql.models import DEFAULT_MODEL, model_folder
from energyql.numerics.pool import one_thread, to_cpu
from energyql.numerics.pullback import Convertible
from energyql.pipeline.checks import accepted, cannot_count, check_heads, next_round, unjudged, verdict
from energyql.pipeline.examination import Examination, check_examined, examine
from energyql.pipeline.model import (
    WORDS,
    Model,
    Values,
    choose_device,
    is_same,
    judge_mark,
    load_model,
    never_objects,
    used_marks,
)
from energyql.pipeline.result import PROBABILITY_UNIT, Result, join_statistics, probability_units
from energyql.pipeline.result_folder import concatenate
from energyql.pipeline.settings import (
    DEFAULT_ATTEMPTS,
    DEFAULT_NOISE,
    DEFAULT_PRECISION,
    DEFAULT_PURITY,
    DEFAULT_SAMPLER,
    DEFAULT_SEMANTICS,
    EXACT,
    GRADIENT_FREE,
    PICTURES,
    DrawOptions,
    DrawSettings,
    Noise,
    Precision,
    SamplerName,
    Semantics,
    Verify,
    whole_number,
)
from energyql.pipeline.texts import PriorPictures, texts_of, with_texts_read
from energyql.pipeline.verified import (
    CLIPS,
    PILOT_ROUND,
    REJECTION_ROUND,
    WAITING,
    WAITING_FOR_CODE,
    Clip,
    Forecast,
    Round,
    Verifier,
    choose_clip,
    default_verify,
    defined_names,
    ended_early,
    estimate_clips,
    forecast_of,
    names_read,
    needs_no_pilot,
    rejected,
    trial_size,
    try_rejection,
    verifier_of,
)
from energyql.progress import Report, reporting
from energyql.renamed import takes_label
from energyql.sampling import (
    SAMPLERS,
    RandomStreams,
    Sampler,
    SampleResult,
    Status,
    make_sampler,
    normals,
    summarize,
)
from energyql.sampling.base import EnergyLike, Progress, as_energy, check_sampler, draw_with, has_trait
from energyql.sampling.registry import describe_sampler, sampler_words, strengths
from energyql.vocabulary import ByAttribute, unknown_name

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from energyql.energy.compiled import CompiledEnergy

LATENT_BATCH = 4096
"""Number of latents that are sampled together, unless the setting `batch_size` is a number."""
PRIOR, FEW_PRIOR = 4096, 128
"""Number of draws from the prior that show how common a query is; the second number is for attributes that are read off
pictures, because each draw is a picture. The prevalence then has a relative standard error of about a sixth for a
common query, more for a rare query."""
STREAM_BATCH = 64
"""Number of samples in each result of a stream, unless `batch_size` is larger."""
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""Characters that no prompt has: they cannot be written to files, or are lost in arrays."""

_Read = tuple[dict[str, Table], npt.NDArray[np.float64], npt.NDArray[np.bool_]]
"""For n samples: a dict from attribute to predictions; the energies of the query, (n,); and whether the heads may be
wrong about each sample, (n,)."""


def _quiet(*_: object) -> None:
    """Do nothing. This is the function for the progress of runs that show no progress."""


class _Source(NamedTuple):
    """Where verified samples are drawn, and who decides on their pictures.

    Attributes:
        energy: the energy that the sampler follows; `None` for draws from the prior.
        verifier: the verifier, with the threshold for such draws.
        clip: bound at which the energy is clipped; `None` for the energy of the query.
    """

    energy: EnergyLike | None
    verifier: Verifier
    clip: Clip | None


class _Shown(NamedTuple):
    """A batch of pictures, and what was read off them.

    Attributes:
        pictures: the pictures.
        w: their latents w.
        values: attribute -> the values that the judge read.
        by_reader: predictions and energies, if attributes are read off pictures in place of latents.
    """

    pictures: list[Image.Image]
    w: Tensor
    values: Values
    by_reader: _Read | None


@dataclass(frozen=True, eq=False)
class PreparedQuery:
    """A query on a model, checked and compiled, so that it can be run; made by `Pipeline.prepare`.

    Attributes:
        model: the model, on `device`.
        device: device for all computations.
        expr: the query, with attributes checked against the model's vocabulary.
        rule: the energy of the query as a function of the heads' predictions.
        encode: function from z to w, the latents from which the generator draws, with the truncation and the condition
            of the run.
        synthesize: function from w to pictures in [-1, 1], in the precision of the settings.
        reads: function from z to the input of the heads. The input is latents, such as w. If a network reads attributes
            off pictures, the input is pictures.
        surrogates: function without arguments that returns small heads on z. These imitate the model's heads at a lower
            cost. `None` if z has too many numbers, or attributes are read off pictures.
        sampler: the sampler, with its settings.
        plain_verifier: the verifier, which decides which pictures are kept, with a preliminary threshold; the property
            `verifier` has the final one. `None` with `verify="off"`.
        settings: all settings of the run, such as seed, precision and batch size.
        provenance: the facts that are needed to repeat the run: query, model, settings, versions.
    """

    model: Model
    device: torch.device
    expr: Expr
    rule: EnergyRule
    encode: Encode
    synthesize: Callable[..., Tensor]
    reads: Encode
    surrogates: Callable[[], SurrogateHeads] | None
    sampler: Sampler
    plain_verifier: Verifier | None
    settings: DrawSettings
    provenance: dict[str, Any]

    @cached_property
    def energy_in_float32(self) -> QueryEnergy | PictureEnergy:
        """The energy of the query as a function of z, in float32 and without the term of the setting `realism`.

        The energies in a `Result` are of this kind, whatever precision and `realism` the samples were drawn with.
        """
        if self.model.bank.reads_pictures:
            return self._by_picture(torch.float32)
        # Without a reference to `self`: in a cycle, megabytes of packed weights would wait for the garbage collector.
        surrogate = None if self.surrogates is None else cache(partial(_surrogate, self.rule, self.surrogates))
        return QueryEnergy(self.rule, self.reads, self.model.bank, surrogate)

    @property
    def dtype(self) -> torch.dtype:
        """The number type in which energies are computed while sampling: `torch.float32` or `torch.bfloat16`."""
        return cast(torch.dtype, getattr(torch, self.settings.precision))

    @cached_property
    def energy(self) -> QueryEnergy | CompiledEnergy | PictureEnergy | ClippedEnergy:
        """The energy that the sampler follows: the energy of the query, or the clipped energy with `verify="faithful"`.

        The clipped energy is 0 wherever P(query) by the heads is at least a bound c; see `ClippedEnergy`.
        """
        return self._query_energy if self.clip is None else ClippedEnergy(self._query_energy, self.clip.probability)

    @cached_property
    def verifier(self) -> Verifier | None:
        """The verifier, which decides which pictures are kept, with its final threshold; `None` with `verify="off"`.

        A picture is kept if its P(query), as the verifier reads it, is at least the threshold. With
        `verify="faithful"` P(query) is corrected first, see `Balance`.
        """
        clip = None if self.clip is None else self.clip.probability
        return None if self.plain_verifier is None else self.plain_verifier.for_draws(clip)

    @cached_property
    def clip(self) -> Clip | None:
        """The bound at which the energy is clipped for `verify="faithful"`, with its costs; `None` for other modes.

        Raises:
            NotAcceptedError: more pictures would be drawn for one that is kept than the setting `attempts` allows.
        """
        if self.settings.verify != "faithful":
            return None
        assert self.plain_verifier is not None
        attempts = self.settings.attempts
        waiting = WAITING if self.plain_verifier.is_network else WAITING_FOR_CODE
        clip = choose_clip(self.clips, attempts / waiting)
        if clip.calls is None and attempts > clip.samples:
            return self.clips[-1]
        if clip.calls is None or clip.calls > attempts:
            digits = 0 if clip.calls is None or clip.calls >= 10 else 1
            number = f"over {clip.samples:,}" if clip.calls is None else f"about {clip.calls:,.{digits}f}"
            raise _too_many(f"{number} pictures would be drawn for one that is kept", attempts)
        return clip

    @cached_property
    def clips(self) -> list[Clip]:
        """The bounds at which the energy may be clipped, each with an estimate of its costs, for `verify="faithful"`.

        The estimates are made from held-out labels, or by a pilot run that is the same for all seeds. The settings must
        have `verify="faithful"`, so that there is a verifier.
        """
        return self._estimate_clips(_quiet)

    @contextmanager
    def after_pilot(self, progress: bool | Report, end: float = math.inf) -> Iterator[Report]:
        """Context that makes the pilot run if the samples need one, and then yields a function that shows progress.

        With `verify="faithful"`, the pilot run estimates `clips`. It is made only once for a query, and not for a run
        that ends before, see `rejected`.

        Args:
            progress: whether to show a progress bar; or a function of the name of a stage and the fraction of it done.
            end: number that the sample after the last one of the run would have.

        Raises:
            NotAcceptedError: the budget ended in the pilot run.
        """
        with reporting(progress) as report:
            self._learn_clips(end, report)
            try:
                yield report
            finally:
                if "clips" in vars(self) and ended_early(self.clips):  # a later run may have a larger budget
                    for name in ("clips", "clip", "energy", "verifier"):
                        vars(self).pop(name, None)

    def _learn_clips(self, end: float, report: Report) -> None:
        """Make the pilot run for `clips`, unless it was made, or is not needed for the samples before number `end`."""
        if self.settings.verify != "faithful" or "clips" in vars(self):
            return
        with self.calls.pilot():
            if end == math.inf or end > self._rejected(report):
                vars(self)["clips"] = self._estimate_clips(report)

    def _rejected(self, report: Report = _quiet) -> float:
        """Number of samples at the start of the run that are drawn from the prior, for "faithful"; see `rejected`.

        It is infinite with a budget in which rejection finds more than draws after a pilot run would. `report` is
        called with "trial" and the fraction of the draws that is done, if some are needed to find the number.
        """
        verifier = self.plain_verifier
        if self.settings.verify != "faithful" or verifier is None or needs_no_pilot(verifier.labelled):
            return 0
        if self.calls.budget < 2 * PILOT_ROUND:  # it does not suffice to learn anything better
            return math.inf
        if "trial" not in vars(self):
            vars(self)["trial"] = self._try_rejection(report)
        return rejected(self.trial, self._forecast, self.settings.attempts, self.calls.budget)

    @cached_property
    def trial(self) -> Clip:
        """Draws from the prior that show how many the verifier must see for one that it accepts, for "faithful".

        There are none if the heads say that a clipped energy is better from the first sample on.
        """
        return self._try_rejection(_quiet)

    @cached_property
    def _forecast(self) -> Forecast | None:
        """Shares of satisfying pictures as the heads predict them; `None` if attributes are read off pictures."""
        return None if self.model.bank.reads_pictures else forecast_of(self.prior_energies().neg().exp().numpy())

    def prior_energies(self) -> Tensor:
        """Return the energies of the query, in nats, for latents from the prior, which are the same in every run."""
        count = FEW_PRIOR if self.model.bank.reads_pictures else PRIOR
        z = normals(0, 0, count, self.model.generator.z_dim, stream="prevalence").to(self.device)
        return self.energy_in_float32(z).double().cpu()

    @cached_property
    def _rejection(self) -> _Source:
        """The prior, in place of a sampler, for the first samples of a run with `verify="faithful"`."""
        assert self.plain_verifier is not None
        return _Source(None, self.plain_verifier.for_draws(0.0), Clip(0.0, 0.0, None, 0, 0))

    def _source(self, first: int) -> _Source:
        """Return where the samples of a batch are drawn, whose first one has the number `first` in the run."""
        if first < self._rejected():
            return self._rejection._replace(clip=vars(self).get("trial") or self._rejection.clip)
        assert self.verifier is not None
        return _Source(self.energy, self.verifier, self.clip)

    def _try_rejection(self, report: Report) -> Clip:
        def draw(number: int) -> npt.NDArray[np.bool_]:
            return self._tried(None, self._rejection.verifier, number, REJECTION_ROUND, "verify/rejection/")[1]

        return try_rejection(draw, trial_size(self._forecast, self.settings.attempts), partial(report, "trial"))

    def _tried(
        self, energy: EnergyLike | None, verifier: Verifier, number: int, size: int, purpose: str
    ) -> tuple[SampleResult, npt.NDArray[np.bool_]]:
        """Draw a round of a pilot run, which is the same for all seeds, and return its samples with the decisions.

        Args:
            energy: the energy that the sampler follows; `None` for draws from the prior.
            verifier: decides which pictures are accepted.
            number: number of the round, from 0.
            size: number of samples of the round.
            purpose: start of the names of the streams of random numbers.
        """
        look, first = self._looking(self.dtype), number * size
        sampled = self._attempt(energy, first, range(size), _quiet, purpose, seed=0)
        numbers = torch.arange(first, first + size)

        def rows_of(batch: slice) -> dict[str, Any]:
            return {"rows": numbers[batch]}

        drawn = draw_batches(look, self.encode, sampled.z, self.settings.batch_size, options=rows_of)
        return sampled, np.concatenate([verifier(images).accepted for _, images in drawn])

    def _estimate_clips(self, report: Report) -> list[Clip]:
        """Return the bounds at which the energy may be clipped, each with an estimate of its costs.

        `report` is called with "pilot" and the fraction of the pilot run that is done, if the estimates need such a
        run.
        """
        assert self.plain_verifier is not None
        verifier = self.plain_verifier.for_draws(CLIPS[-1])
        energy = ClippedEnergy(self._query_energy, CLIPS[-1])

        def draw(number: int) -> Round:
            sampled, accepted = self._tried(energy, verifier, number, PILOT_ROUND, "verify/")
            return self.energy_in_float32(sampled.z).double().neg().exp().cpu().numpy(), accepted

        plain, start, most = self.plain_verifier, self.calls.made, PILOT_SHARE * self.calls.left

        def spent() -> float:
            return (self.calls.made + PILOT_ROUND - start) / most  # another round must fit

        return estimate_clips(draw, plain.labelled, plain.accepted, partial(report, "pilot"), spent)

    @cached_property
    def _query_energy(self) -> QueryEnergy | CompiledEnergy | PictureEnergy:
        """The energy of the query in the precision of the settings.

        If the setting `realism` is not 0, the energy has a further term, by which a discriminator judges the pictures.
        With the setting `compile` the energy is compiled, but not if each evaluation draws a picture.
        """
        energy = self.energy_in_float32
        if self.dtype != torch.float32:
            energy = energy.computed_in(self.dtype) if isinstance(energy, QueryEnergy) else self._by_picture(self.dtype)
        critic, weight, generator = self.model.discriminator, self.settings.realism, self.model.generator
        if critic is None or not weight:
            if self.settings.compile and isinstance(energy, QueryEnergy) and energy.rule.attributes:
                compiled: CompiledEnergy = resolve_name("energyql.pipeline.export:compiled_energy")(self, energy)
                return compiled
            return energy
        draw = self._looking(self.dtype)
        pilot = normals(0, 0, REALISM_PILOT, generator.z_dim, stream="realism").to(self.device)
        return with_realism(energy, critic, weight, self.encode, draw, pilot)

    def _by_picture(self, dtype: torch.dtype) -> PictureEnergy:
        return reader_energy(self.rule, self.model.bank, self.encode, self._looking(dtype))

    def _looking(self, dtype: torch.dtype) -> Callable[..., Tensor]:
        """Return the function that draws pictures only for networks to look at, and counts them as calls.

        The function takes w, and `rows`, the number of each picture in its run; see `drawing`. The pictures may be
        drafts.
        """
        generator = self.model.generator
        draw = drawing(generator, dtype, self.settings.noise, self.settings.seed)
        return self.calls.counted(draw, draft_cost(generator))

    @cached_property
    def calls(self) -> Calls:
        """The calls of the generator for this query so far."""
        return Calls()

    @property
    def draws_more(self) -> bool:
        """Whether a sample may take more calls of the generator than the one call that draws its picture."""
        return bool(self.model.bank.reads_pictures or self.settings.realism or self.settings.verify != "off")

    def run(self, n: int, *, first: int = 0, budget: int | None = None, progress: bool | Report = True) -> Result:
        """Sample latents for the query, draw their pictures, and return both with energies and verdicts of the judge.

        Args:
            n: number of pictures.
            first: number of the first picture in the run. The seed and the number of a picture decide on the picture.
            budget: most calls of the generator, at least n; see `generate`. If the budget ends before n samples are
                complete, the result has only the complete samples.
            progress: whether to show a progress bar; or a function of the name of a stage and the fraction of it done.

        Raises:
            ArgumentError: there is a budget, although each sample takes exactly one call.
            NotAcceptedError: the budget ended before a sample was complete.
        """
        n, first = whole_number("n", n), whole_number("first", first, least=0, most=2**62)
        budget = _check_budget(budget, n)
        if budget is not None and not self.draws_more:
            message = (
                "a budget is for samples that take several calls of the generator; here each takes one, its picture"
            )
            hint = "leave it out; or draw until the judge accepts n pictures: until_satisfied, or add --only-satisfied"
            raise ArgumentError(message, hint=hint)
        end = first + n if budget is None else 0  # a budget is for samples first
        with self.calls.at_most(budget), self.after_pilot(progress, end) as report:
            if budget is None:
                return self._run(first, n, report)[0]
            return self._collect(n, first, budget, report, lambda result, most: np.arange(len(result)))

    def stream(
        self, n: int, *, first: int = 0, opening: int | None = None, progress: bool | Report = True
    ) -> Iterator[Result]:
        """Return an iterator over results of consecutive batches; wrong arguments raise an error at the call.

        Args:
            n: number of samples in all. A batch has 64 samples, or `batch_size` of the settings if that is more.
            first: number of the first sample in the run.
            opening: number of samples in the first result, if smaller than a batch; the second result then has the rest
                of the first batch. `None` for whole batches.
            progress: whether to show a progress bar; or a function of the name of a stage and the fraction of it done.
        """
        n, first = whole_number("n", n, most=2**62), whole_number("first", first, least=0, most=2**62)
        return self._stream(n, first, opening, progress)

    def _stream(self, n: int, first: int, opening: int | None, progress: bool | Report) -> Iterator[Result]:
        with self.calls.at_most(None), self.after_pilot(progress, first + n) as report:
            size, cut = max(STREAM_BATCH, self.settings.batch_size or 0), self._rejected() - first
            for done, count, share in _batches(n, size, report, opening, cut):
                yield self._run(first + done, count, share)[0]

    def run_until_satisfied(self, n: int, *, budget: int | None = None, progress: bool | Report = True) -> Result:
        """Draw until n samples satisfy the query by the judge, or the budget ends, and return the samples that do.

        Args:
            n: number of samples that are to satisfy the query.
            budget: most calls of the generator, at least n; by default as many as 10 n samples take. If the budget ends
                before n samples satisfy the query, the result has fewer, perhaps none.
            progress: whether to show a progress bar; or a function of the name of a stage and the fraction of it done.

        Raises:
            ModelError: the model has no judge, or its judge does not read an attribute of the query.
            NotAcceptedError: the budget ended before a sample was complete.
        """
        n = whole_number("n", n)
        budget = _check_budget(budget, n)
        self.check_judged()
        with self.calls.at_most(budget), self.after_pilot(progress, 0) as report:
            return self._collect(n, 0, budget, report, accepted)

    def _collect(
        self,
        n: int,
        first: int,
        budget: int | None,
        report: Report,
        choose: Callable[[Result, int], npt.NDArray[np.int64]],
    ) -> Result:
        """Draw until n samples are chosen, or the budget ends, and return these samples.

        If a sample takes several calls of the generator, the number of samples in a batch is limited: each of them can
        take as many calls as any earlier sample took, and the budget still suffices for the batch. So hardly a sample
        is incomplete when the budget ends.

        Args:
            n: number of samples to choose.
            first: number of the first sample in the run.
            budget: most calls of the generator; `None` for at most 10 n samples.
            report: called with "satisfied" or "budget" and the fraction that is done.
            choose: function from a result and a number to the positions of at most so many samples of the result.

        Raises:
            NotAcceptedError: the budget ended before a sample was complete.
        """
        results: list[Result] = []
        runs: list[SampleResult] = []
        statistics: list[dict[str, float]] = []
        hits = trials = 0
        dearest, most = 1, 10 * n if budget is None else budget
        while hits < n and trials < most:
            count = min(most - trials, next_round(n, hits, trials))
            if budget is not None and self.draws_more:
                count = min(count, max(1, trials), max(1, int(self.calls.left) // dearest))
            try:
                if first + trials < (cut := self._rejected(report)):  # so that no pilot run comes before them
                    count = int(min(count, cut - first - trials))
                self._learn_clips(first + trials + count, report)
                result, sampled = self._run(first + trials, count, _quiet)
            except NotAcceptedError:
                if not trials or not self.calls.refused:
                    raise
                break
            good = choose(result, n - hits)
            results.append(result[good])
            runs.append(sampled)
            statistics.append(result.statistics)
            hits, trials = hits + len(good), trials + count
            dearest = max(dearest, int(self._calls_of(result, sampled).max()))
            report("satisfied", hits / n)
            report("budget", trials / most if budget is None else (self.calls.made - self.calls.start) / budget)
        joined = Result.join(results)
        share = float(joined.doubtful.mean()) if hits else 0.0
        joined.statistics.update({"drawn": float(trials)} | join_statistics(statistics, [len(run.z) for run in runs]))
        joined.statistics.update(doubtful=share, returned=float(hits))
        joined.statistics.update(self._costs(SampleResult.join(runs)))
        if self.draws_more:
            joined.statistics["generator_calls"] = float(self.calls.made - self.calls.start)
        facts = {"n": hits, "wanted": n} | ({} if budget is None else {"budget": budget})
        joined.provenance.update(facts | ({"first": first} if first else {}))  # tells two runs of one seed apart
        return joined

    def _calls_of(self, result: Result, sampled: SampleResult) -> npt.NDArray[np.int64]:
        """Return the number of calls of the generator for each sample of a batch, its pictures included, (n,)."""
        pictures = np.ones(len(sampled.z), np.int64) if result.draws is None else result.draws
        costly = isinstance(self._query_energy, PictureEnergy)
        return pictures + (sampled.evaluations + sampled.gradients).numpy() if costly else pictures

    def check_judged(self) -> None:
        """Check that the model's judge can decide whether a picture satisfies the query.

        Raises:
            ModelError: the model has no judge, or its judge does not read an attribute of the query.
        """
        judge, verifier = self.model.judge, self.plain_verifier
        if verifier is not None and verifier.is_network and verifier.reader is judge:
            raise cannot_count(OWN_CHOICE)
        if reason := unjudged(self.expr, None if judge is None else self.model.judged_names):
            raise cannot_count(reason)

    def latents(self, n: int, *, first: int = 0, progress: bool | Report = True) -> Iterator[SampleResult]:
        """Return an iterator over batches of sampled latents, without pictures; wrong arguments fail at the call.

        Args:
            n: number of samples. A batch has `batch_size` samples of the settings, by default 4096.
            first: number of the first sample in the run.
            progress: whether to show a progress bar; or a function of the name of a stage and the fraction of it done.
        """
        n, first = whole_number("n", n, most=2**62), whole_number("first", first, least=0, most=2**62)
        check_single_condition(self.provenance["condition"])  # a latent alone does not say which prompt is its own
        return self._latents(n, first, progress)

    def _latents(self, n: int, first: int, progress: bool | Report) -> Iterator[SampleResult]:
        with self.after_pilot(progress, first + n) as report:
            size = self.settings.batch_size or LATENT_BATCH
            for done, count, share in _batches(n, size, report, cut=self._rejected() - first):

                def fraction(part: float, _: int, share: Report = share) -> None:
                    share("sampling", part)

                if self.settings.verify == "off":
                    yield self._attempt(self.energy, first + done, range(count), fraction)
                else:
                    yield self._verified(first + done, count, share)[1]
            report("sampling", 1.0)

    def _attempt(
        self,
        energy: EnergyLike | None,
        first: int,
        offsets: Sequence[int],
        progress: Progress,
        purpose: str = "",
        seed: int | None = None,
    ) -> SampleResult:
        """Run the sampler for some samples of the run, and return one latent z for each.

        All random numbers of a sample, those of its start and those that the sampler uses, are determined by three
        values: the seed, the purpose, and the number of the sample in the run.

        Args:
            energy: the energy that the sampler follows, as a function of z; `None` for draws from the prior.
            first: number in the run of the sample with offset 0.
            offsets: for each sample, its number in the run minus `first`; in ascending order, with or without gaps.
            progress: function that the sampler calls with the fraction done and the number of unfinished samples.
            purpose: text put before the names of all streams of random numbers, such as "attempt/1/" in the second
                attempt: with another text, the same samples get other random numbers.
            seed: seed of the random numbers; by default that of the settings.
        """
        if len(offsets) == offsets[-1] + 1 - offsets[0]:
            first, offsets = first + offsets[0], range(len(offsets))
        streams = RandomStreams(self.settings.seed if seed is None else seed, first, purpose)
        costly = energy is not None and as_energy(energy).costly
        if costly and offsets != range(len(offsets)):  # it needs consecutive numbers
            single = [self._attempt(energy, first + i, range(1), progress, purpose, seed) for i in offsets]
            return SampleResult.join(single)
        if offsets != range(len(offsets)):
            streams = streams.of_samples(offsets)
        z0 = streams.normals(torch.empty(len(offsets), self.model.generator.z_dim), "prior").to(self.device)
        if energy is None:
            zeros = torch.zeros(len(z0), dtype=torch.int64)
            return SampleResult(z0, torch.full_like(zeros, Status.OK), zeros, zeros.clone())
        # A discriminator, and other functions than those of heads and mapping networks, may be large networks of users.
        of_heads = self.model.bank.as_heads is not None and isinstance(self.reads, Convertible)
        small = of_heads and not costly
        with one_thread(z0.shape[1] * z0.numel() if small else math.inf):
            return draw_with(self.sampler, energy, z0, streams, progress)

    def _pictures(self, z: Tensor, index: npt.NDArray[Any], w: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Draw the pictures of n samples, and yield for each batch the latents w and the pictures in [-1, 1].

        Args:
            z: latents (n, z_dim).
            index: number of each sample in its run, (n,), which decides on random noise.
            w: latents to draw in place of `encode(z)`, (n, w_dim) or (n, num_ws, w_dim).
        """
        settings, generator = self.settings, self.model.generator

        def options(rows: slice) -> dict[str, Any]:
            return noise_options(generator, settings.noise, settings.seed, index[rows].tolist())

        return draw_batches(self.calls.counted(self.synthesize), self.encode, z, settings.batch_size, w, options)

    def show(self, sampled: SampleResult, index: npt.NDArray[Any], report: Report, w: Tensor | None = None) -> Result:
        """Draw the pictures of sampled latents, and return them with energies, predictions and verdicts of the judge.

        Args:
            sampled: latents z of n samples, and for each sample how the sampler ended, such as `Status.OK`.
            index: number of each sample in its run, (n,).
            report: called with "drawing" and the fraction of the pictures that is done.
            w: latents w of the pictures, (n, w_dim), or (n, num_ws, w_dim) with one w for each layer; by default
                `encode(z)`.
        """
        shown, done = [], 0
        for latents, images in self._pictures(sampled.z, index, w):
            shown.append(self._shown(latents, images, self.model.judge_images(images)))
            done += len(images)
            report("drawing", done / len(sampled.z))
        return self._result(sampled, index, shown, of_z=w is None)

    def _shown(self, w: Tensor, images: Tensor, values: Values) -> _Shown:
        """Return pictures as PIL images, with w and what was read off them, for a `Result`.

        Args:
            w: latents of the pictures.
            images: the pictures in [-1, 1], (batch, channels, height, width).
            values: attribute -> the values that the judge read off the pictures.
        """
        by_reader = self._by_reader(images) if self.model.bank.reads_pictures else None
        return _Shown(show_pictures(self.model.generator, images), w, values, by_reader)

    def _result(
        self, sampled: SampleResult, index: npt.NDArray[Any], shown: Sequence[_Shown], *, of_z: bool = True
    ) -> Result:
        """Return the result of samples whose pictures are drawn.

        Args:
            sampled: latents z of n samples, and for each sample how the sampler ended.
            index: number of each sample in its run, (n,).
            shown: the pictures, in batches, with what was read off them.
            of_z: whether the pictures are drawn from z; false if they are drawn from a w that does not follow from z.
        """
        w = torch.cat([batch.w for batch in shown])
        judged = {name: np.concatenate([batch.values[name] for batch in shown]) for name in shown[0].values}
        readings = None if self.model.judge is None else judged
        by_reader = [batch.by_reader for batch in shown if batch.by_reader is not None]
        probabilities, energy, doubtful = concatenate(by_reader) if by_reader else self._by_heads(sampled.z, w)
        outside, z, w = to_cpu([outside_shell(sampled.z), sampled.z, w])
        if of_z:  # a sample that is given by its w does not depend on its z
            doubtful |= outside.numpy()
        return Result(
            images=[picture for batch in shown for picture in batch.pictures], z=z, w=w,
            index=index, energy=energy, probabilities=ByAttribute(probabilities), judged=ByAttribute(judged),
            satisfied=verdict(self.expr, readings, self.model.vocabulary), doubtful=doubtful,
            status=[Status(code) for code in sampled.status.tolist()],
            statistics={"doubtful": float(doubtful.mean())},
            provenance=self.provenance | {"n": len(w), "unjudged": unjudged(self.expr, readings)},
        )  # fmt: skip

    @torch.inference_mode()
    def _by_heads(self, z: Tensor, w: Tensor) -> _Read:
        bank, energy = self.model.bank, self.energy_in_float32
        read = w if bank.space == "w" else self.reads(z)
        read = read.mean(1) if read.ndim == 3 else read  # the mean over the layers of W+
        predictions = on_cpu(bank.predict(read))
        assert isinstance(energy, QueryEnergy)
        return tabulate(predictions), energy.of_latent(read).double().cpu().numpy(), self._doubtful(read, predictions)

    @torch.inference_mode()
    def _by_reader(self, images: Tensor) -> _Read:
        predictions = self.model.bank.predict(images)
        check_predictions(predictions, tuple(predictions), images)
        energy = energy_of_pictures(self.rule, lambda _, names: predictions, images)
        return tabulate(predictions), energy.double().cpu().numpy(), np.zeros(len(images), bool)

    def _doubtful(self, read: Tensor, predictions: Predictions) -> npt.NDArray[np.bool_]:
        """Return for each sample whether the model's heads and its second heads disagree about the query, (n,).

        Second heads were fitted to other labels than the heads. If no attribute of the query has a second head, the
        result is false for all samples.

        Args:
            read: latents of the samples that are the input of the heads, (n, dim).
            predictions: attribute -> predictions of the model's heads on these latents.
        """
        second, names = self.model.second, list(dict.fromkeys(node.name for node in predicates(self.expr)))
        if not second.keys() & set(names):
            return np.zeros(len(read), bool)
        others = second_bank(heads_of(self.model.bank, "a second head"), second).predict(read, names)
        sets = ({name: predictions[name] for name in names}, others)
        first, other = (satisfied(self.expr, decide(heads), self.model.vocabulary) for heads in sets)
        return np.asarray(first != other)

    def _costs(self, sampled: SampleResult) -> dict[str, float]:
        """Return numbers, by name, that say what samples cost, such as the mean number of energy evaluations a sample.

        The numbers are those of `energyql.sampling.summarize`. If each evaluation draws a picture, the mean number of
        generator calls is added as "generator_calls_mean". Of verified samples, numbers are left out that would need
        the draws that were not kept.
        """
        costs = summarize(sampled)
        if self.settings.verify != "off":
            costs = {name: value for name, value in costs.items() if name not in _OF_ALL_DRAWS}
        if isinstance(self._query_energy, PictureEnergy):
            costs["generator_calls_mean"] = costs["evaluations_mean"] + costs["gradients_mean"]
        return costs

    def _run(self, first: int, n: int, report: Report) -> tuple[Result, SampleResult]:
        if self.settings.verify != "off":
            size = self.settings.batch_size or VERIFIED_BATCH
            batches = _batches(n, size, report, cut=self._rejected() - first)
            parts = [self._verified(first + done, count, share) for done, count, share in batches]
            result, sampled = Result.join(result for result, _ in parts), SampleResult.join([end for _, end in parts])
            result.statistics.update(self._costs(sampled) | {"generator_calls": float(self.calls.untold())})
            return result, sampled
        started = time.perf_counter()
        sampled = SampleResult.join(list(self._latents(n, first, report)))
        middle = time.perf_counter()
        result = self.show(sampled, np.arange(first, first + n), report)
        seconds = {"seconds_sampling": middle - started, "seconds_drawing": time.perf_counter() - middle}
        result.statistics.update(self._costs(sampled) | seconds)
        if self.draws_more:
            result.statistics["generator_calls"] = float(self.calls.untold())
        return result, sampled

    @cached_property
    def _tally(self) -> dict[str, int]:
        """How many pictures were "drawn" and how many "accepted" for this query so far; each batch adds to both."""
        return {"drawn": 0, "accepted": 0}

    def _verified(self, first: int, n: int, report: Report) -> tuple[Result, SampleResult]:
        """Draw each of n samples again and again until the verifier accepts its picture.

        A sample without an accepted picture after as many draws as the setting `attempts` is returned with its last
        picture, and ends with `Status.NOT_ACCEPTED`.

        Args:
            first: number of the first sample in the run.
            n: number of samples.
            report: function that is called with "accepted" and the fraction of the samples that are finished.

        Returns:
            Two values. The first is the result: the samples with their pictures. The second has the latents of the
                same samples, and for each sample the number of evaluations in all its draws together.

        Raises:
            NotAcceptedError: many pictures were drawn, and none was accepted.
        """
        most, source = self.settings.attempts, self._source(first)
        verifier = source.verifier
        waiting, accepted, stated, draws = np.arange(n), 0, False, np.zeros(n, np.int64)
        ends, shown, order = list[SampleResult](), list[_Shown](), list[np.int64]()
        seconds, counts = dict.fromkeys(("seconds_sampling", "seconds_drawing"), 0.0), torch.zeros(2, n).long()
        rejected = 0  # sum of P(query) by the heads over the pictures that are not kept, see `probability_units`
        for attempt in range(most):
            started = time.perf_counter()
            offsets = range(n) if len(waiting) == n else waiting.tolist()
            sampled = self._attempt(source.energy, first, offsets, _quiet, f"attempt/{attempt}/" if attempt else "")
            middle, decisions = time.perf_counter(), list[npt.NDArray[np.bool_]]()
            for latents, images in self._pictures(sampled.z, first + waiting):
                decision = verifier(images)
                decisions.append(decision.accepted)
                stated = stated or decision.stated
                good = decision.accepted | (attempt == most - 1)
                if good.any():
                    rows = torch.from_numpy(good).to(images.device)
                    kept, values = images[rows], {name: column[good] for name, column in decision.values.items()}
                    if self.model.judge is not verifier.reader:
                        values = self.model.judge_images(kept)
                    shown.append(self._shown(latents[rows], kept, values))
            passed = np.concatenate(decisions)
            good = passed | (attempt == most - 1)  # the last pictures are kept in any case
            sampled.status[torch.from_numpy(good & ~passed)] = Status.NOT_ACCEPTED
            accepted += int(passed.sum())
            seconds["seconds_sampling"] += middle - started
            seconds["seconds_drawing"] += time.perf_counter() - middle
            counts[:, waiting] += torch.stack([sampled.evaluations, sampled.gradients])
            if isinstance(self.energy_in_float32, QueryEnergy) and not good.all():
                refused = sampled.z[torch.from_numpy(~good).to(sampled.z.device)]
                rejected += self._expected(refused, first + waiting[~good])
            ends.append(rows_of(sampled, torch.from_numpy(good)))
            order.extend(waiting[good])
            draws[waiting] += 1
            waiting = waiting[~good]
            report("accepted", len(order) / n)
            self._tally["drawn"] += len(good)
            self._tally["accepted"] += int(passed.sum())
            if not self._tally["accepted"] and self._tally["drawn"] >= REFUSED * most:
                raise _too_many(f"none of {self._tally['drawn']:,} pictures was accepted", most)
            if not len(waiting):
                break
        end, back = SampleResult.join(ends), torch.from_numpy(np.argsort(order))
        result = replace(self._result(end, first + np.asarray(order), shown)[back.numpy()], draws=draws)
        drawn, end = float(draws.sum()), rows_of(end, back)
        end = replace(end, evaluations=counts[0], gradients=counts[1])
        if (weights := end.diagnostics.get("log_weight")) is not None:
            weights[end.status == Status.NOT_ACCEPTED] = -math.inf  # no samples of the posterior
        result.statistics.update(self._costs(end) | seconds | {"drawn": drawn, "accepted": float(accepted)})
        if self.rule.is_probability and isinstance(self.energy_in_float32, QueryEnergy):
            kept_units = probability_units(np.exp(-result.energy))
            result.statistics["drawn_probability"] = (rejected + kept_units) / PROBABILITY_UNIT / drawn
        result.provenance.update(self._verified_by(source, stated))
        if not stated and self.model.judge is verifier.reader:
            result = replace(result, satisfied=None, provenance=result.provenance | {"unjudged": OWN_CHOICE})
        return result, end

    def _expected(self, z: Tensor, index: npt.NDArray[Any]) -> int:
        """Return the expected number of samples that satisfy the query by the heads, in units of P(query).

        Args:
            z: latents of the samples, (n, z_dim).
            index: number of each sample in the run, (n,). It is used only by the subclass for mixtures of prompts.
        """
        return probability_units(self.energy_in_float32(z).double().neg().exp().cpu().numpy())

    def _verified_by(self, source: _Source, stated: bool) -> dict[str, Any]:
        """Return the entry "verified" of the provenance, as a dict: who decided which pictures are kept, and how.

        Args:
            source: where the samples were drawn.
            stated: whether the verifier returned values of attributes. If false, it returned probabilities.
        """
        verifier = source.verifier
        own = self.model.judge is verifier.reader and not stated
        entry: dict[str, Any] = {"by": who_judges(verifier.reader) if own else verifier.name, "stated": stated}
        entry |= {} if stated else {"threshold": asdict(verifier.threshold)}
        return {"verified": entry | ({} if source.clip is None else {"clip": asdict(source.clip)})}


_OF_ALL_DRAWS = ("acceptance", "exact", "stages_mean", "log_probability")
"""Statistics of a sampler that the draws that are not kept belong to."""
PILOT_SHARE = 0.9
"""Largest share of the rest of a budget that a pilot run takes; the other calls are for samples."""
VERIFIED_BATCH = 1024
"""Number of verified samples that are drawn together, unless the setting `batch_size` is a number."""
OWN_CHOICE = "the judge decided which pictures are kept"
"""Why a judge gives no verdicts on pictures that it chose."""
REFUSED = 4
"""A run ends with an error when it has drawn `REFUSED` times `attempts` pictures, and the verifier has accepted none
of them."""


def _check_budget(budget: int | None, n: int) -> int | None:
    """Return a budget, after a check that it has at least one call of the generator for each of n pictures.

    Raises:
        ArgumentError: the budget is no whole number, or below n.
    """
    try:
        return None if budget is None else whole_number("budget", budget, least=n, most=2**62)
    except ArgumentError as error:
        raise ArgumentError(error.message, hint=f"each of {n:,} samples takes at least one call") from None


def _too_many(what: str, attempts: int) -> NotAcceptedError:
    """Return the error for a query of which too few pictures are accepted.

    Args:
        what: start of the message, which says how few, such as "none of 1,024 pictures was accepted".
        attempts: the setting, the most pictures that may be drawn for one that is accepted.
    """
    return NotAcceptedError(
        f"{what}, and attempts is {attempts:,}",
        hint="raise attempts (--attempts), label more pictures that satisfy the query, or draw without: --verify off",
    )


def rows_of(sampled: SampleResult, rows: Tensor | slice) -> SampleResult:
    """Return some of the samples in a `SampleResult`.

    Args:
        sampled: n samples.
        rows: the samples to return: a mask (n,) of bool, indices, or a slice.
    """
    diagnostics = {name: values[rows] for name, values in sampled.diagnostics.items()}
    counts = sampled.evaluations[rows], sampled.gradients[rows]
    return SampleResult(sampled.z[rows], sampled.status[rows], *counts, diagnostics)


def _batches(
    n: int, size: int, report: Report, opening: int | None = None, cut: float = 0
) -> Iterator[tuple[int, int, Report]]:
    """Split n samples into batches.

    Args:
        n: number of samples.
        size: largest size of a batch.
        report: called with a stage and the fraction of all n samples that is done.
        opening: size of the first batch, if smaller than `size`; the second batch then has `size - opening` samples.
            `None` for batches of `size`.
        cut: number of samples at the start that are in other batches than those after them.

    Yields:
        For each batch: the number of samples in earlier batches, the size of the batch, and a function to report
        progress. The function takes a stage and the fraction of the batch that is done, and calls `report`.
    """
    done = 0
    while done < n:
        count = min(n - done, size - done % size, opening if opening and not done else size)
        count = int(min(count, cut - done)) if done < cut else count

        def share(stage: str, fraction: float, done: int = done, count: int = count) -> None:
            report(stage, (done + fraction * count) / n)

        yield done, count, share
        done += count


def _surrogate(rule: EnergyRule, surrogates: Callable[[], SurrogateHeads]) -> Surrogate:
    """Return an approximation of a query's energy that is cheap to compute: small heads on z replace the model's heads.

    Args:
        rule: the energy of the query as a function of predictions.
        surrogates: function without arguments that returns the small heads, which imitate the model's heads.
    """
    heads = surrogates()
    return Surrogate(rule, heads.distilled(rule.attributes), heads.device)


_log = logging.getLogger("energyql")


class Pipeline:
    """A model on a device, ready for queries.

    Args:
        model: a loaded model; its torch modules are moved to the device.
        device: device for all computations.
    """

    _texts: Sequence[str] = ()
    """Texts in quotes that are attributes of the model; see `_with_texts`."""

    def __init__(self, model: Model, device: torch.device) -> None:
        self.model = model.to(device)
        self.device = device
        self._surrogates: dict[tuple[float, Condition | None], Callable[[], SurrogateHeads]] = {}
        self._reading: dict[tuple[tuple[str, ...], float, Condition | None], Pipeline] = {}
        self._prompted: dict[str, Pipeline] = {}
        self._prior: dict[tuple[float, Condition | None], PriorPictures] = {}
        self._examined: dict[tuple[float, Condition | None], Examination] = {}
        self._seen: set[str] = set()  # texts that the reader of words may decide about

    @cached_property
    def _names_read(self) -> Collection[str]:
        """Names of the attributes that the model's verifier reads, or its judge if it has no verifier."""
        return names_read(self.model)

    @cached_property
    def _defined(self) -> Collection[str]:
        """Names of the attributes that code defines, which reads them off pictures in place of heads."""
        return defined_names(self.model)

    @cached_property
    def _compiled(self) -> Callable[..., Tensor]:
        """The generator's function from w to pictures, compiled by `torch.compile`.

        All queries with the setting `compile` use the same compiled function.
        """
        generator, compiled = self.model.generator, resolve_name("energyql.numerics.compiled:compiled")
        draw: Callable[..., Tensor] = compiled(generator.synthesize, f"the pictures of a {type(generator).__name__}")
        return draw

    def check_readers(
        self, expr: Expr, rule: EnergyRule, settings: DrawSettings, query: str
    ) -> tuple[Verify, Verifier | None, str | None]:
        """Check that the heads or the verifier of the model are good enough for a query.

        Args:
            expr: the query, with attributes checked by `bind`.
            rule: the compiled query.
            settings: settings of the run.
            query: text of the query, for errors.

        Returns:
            Three values. The first is how pictures are verified: "off", "sure" or "faithful". The second is the
            verifier, for which a threshold is still to be chosen; `None` for "off", and if the query has texts in
            quotes. The third is why "off" was chosen although the model has a verifier, if the verifier cannot read the
            query; else `None`.

        Raises:
            WeakHeadError: no verifier decides, and the query needs a weak head.
            ModelError: the settings ask for a verifier, and the model has none that reads the query.
        """
        if self._check_texts(expr, settings, query):
            return settings.verify or "sure", None, None
        mode, reason, model = settings.verify, None, self.model
        alone = model.judge is not None and is_same(model.bank.reader, model.judge)  # the reader is its own judge
        asked = alone or (mode != "off" and model.verifier is None)
        defined = asked and any(name in self._defined for name in rule.attributes)
        if alone and not defined:
            raise never_objects(model.name)
        own = model.verifier is None and defined and (mode is None or model.judge is None)  # then the code decides
        reader = model.bank.reader if own else model.verifier
        reads: Collection[str] | None = None  # edits, for example, never verify
        if mode is None and reader is None:
            mode, reads = "off", model.judged_names
        elif mode is None:
            assert reader is not None
            reads = model.bank.vocabulary if own else self._names_read
            mode, reason = default_verify(reader, expr, rule.attributes, reads)
        if mode != "off":
            names = model.bank.vocabulary if own else self._names_read
            return mode, verifier_of(model, expr, rule, settings, reader or model.judge, names), None
        check_heads(expr, rule.attributes, model.report, settings.allow_weak, query=query, reads=reads)
        return mode, None, reason

    @takes_label
    def prepare(
        self, query: str | Expr, settings: DrawSettings | None = None, **options: Unpack[DrawOptions]
    ) -> PreparedQuery:
        """Check a query and its settings, and compile the query for this model. No samples are drawn.

        Args:
            query: text or expression, such as `"smile AND NOT hat"`.
            settings: settings of the run; `None` for the defaults.
            options: values for single fields of `DrawSettings`, such as `seed=1`, in place of the values in `settings`.

        Raises:
            WeakHeadError: the query needs a head whose quality on held-out labels is low.
            EnergyQLError: the query, a name or a setting is wrong.
        """
        settings, vocabulary = replace(settings or DrawSettings(), **options), self.model.vocabulary
        generator, prompt = self.model.generator, settings.condition
        if isinstance(prompt, list | tuple) and prompt and all(isinstance(each, str) for each in prompt):
            mixture = resolve_name("energyql.pipeline.mixture:prepare_mixture")
            return cast(PreparedQuery, mixture(self, query, settings, prompt))
        if isinstance(prompt, str) and isinstance(generator, PromptedGenerator) and not class_count(generator):
            prepared = self._under(prompt).prepare(query, replace(settings, condition=None))
            return replace(prepared, provenance=prepared.provenance | {"condition": prompt})
        psi = self.model.check_truncation(settings.truncation)
        condition = self.model.check_condition(settings.condition, settings.seed)
        check_noise(settings.noise, self.model.generator)
        for name in settings.allow_weak:
            if name not in vocabulary and not vocabulary.reads_words:
                raise unknown_name(name, vocabulary, f"in allow_weak is not an attribute of {vocabulary.of_model}")
        vector = condition_vector(condition, self.model.generator)
        expr, text = as_query(query)
        bound = bind(expr, vocabulary, query=text)
        if texts := self._check_texts(bound, settings, text):
            return self._with_texts(texts, settings).prepare(query, settings)
        rule = compile_energy_rule(bound, vocabulary, settings.semantics, query=text, relations=settings.relations)
        mode, verifier, reason = self.check_readers(bound, rule, settings, text)
        settings = replace(settings, verify=mode)
        bank, critic, sampler = self.model.bank, self.model.discriminator, settings.sampler
        has_gradient = self.model.has_gradient and (not settings.realism or is_differentiable(self.model.generator))
        if isinstance(sampler, str):
            strength, by_default = 1.0 if settings.strength is None else settings.strength, sampler == DEFAULT_SAMPLER
            if by_default and settings.verify == "faithful":
                sampler = make_sampler("slice", strength)  # the default one goes where the energy is lowest
            elif by_default and not has_gradient and verifier is not None and verifier.reader is bank.reader:
                sampler = SAMPLERS[GRADIENT_FREE](strength=strength, enough=None)  # the code makes sure
            else:
                sampler = make_sampler(sampler if has_gradient or not by_default else GRADIENT_FREE, strength)
        else:
            check_sampler(sampler)
        if not has_gradient and has_trait(sampler, "needs_gradient"):
            raise ArgumentError(f"this sampler follows a gradient, and {NO_GRADIENT}", hint=WITHOUT_GRADIENT)
        if settings.realism or settings.verify == "faithful":
            _check_posterior(sampler, settings, self.model)
        reports = self.model.report
        encode = encoder(self.model.generator, psi, vector)
        dtype = getattr(torch, settings.precision)
        synthesize = self._compiled if settings.compile else synthesizer(self.model.generator, dtype)
        reads = head_reader(self.model.generator, bank.space, encode)
        provenance = {
            "query": text, "canonical": str(expr), "seed": settings.seed, "model": self.model.name,
            "fingerprints": used_marks(self.model.fingerprints, texts=bool(self._texts)),
            "judge": who_judges(self.model.judge),
            **settings.record(
                sampler=describe_sampler(sampler), truncation=psi, condition=condition,
                verify=None if settings.verify == "off" else settings.verify,
            ),
            "device": str(self.device),
            "reader" if bank.reads_pictures else "heads":
                {name: str(reports[name]) if name in reports else None for name in rule.attributes},
            "versions": {"energyql": __version__, "torch": str(torch.__version__)},
        }  # fmt: skip
        if shapes := noise_shapes(self.model.generator):
            provenance["z_shape"] = [list(shape) for shape in shapes]
        if isinstance(facts := getattr(self.model.generator, "description", None), dict):
            provenance["generator"] = facts
        if reason is not None:
            provenance["unverified"] = reason
        if self._texts and (words := self.model.words):
            how = {name: str(words.calibration(name)) for name in self._texts}
            examined = self._examined.get((psi, condition))
            doubts = "" if examined is None else examined.doubts(self._texts)
            provenance[WORDS] = {"reader": words.name, "texts": how} | ({"doubts": doubts} if doubts else {})
        if settings.realism:
            provenance["discriminator"] = judge_mark(critic)
        surrogates = self._surrogates_under(psi, condition, reads)
        return PreparedQuery(
            self.model, self.device, bound, rule, encode, synthesize, reads, surrogates, sampler, verifier, settings,
            provenance,
        )  # fmt: skip

    def reading(self, queries: Sequence[str | Expr], settings: DrawSettings) -> Pipeline:
        """Return a pipeline whose model has the texts in quotes of all queries as further attributes.

        If the queries have no such texts, this pipeline is returned.

        Args:
            queries: the queries.
            settings: settings of the run.

        Raises:
            EnergyQLError: a query, the truncation or the condition is wrong.
        """
        self.model.check_truncation(settings.truncation)
        self.model.check_condition(settings.condition, settings.seed)
        texts: list[str] = []
        for expr, text in map(as_query, queries):
            texts += self._check_texts(bind(expr, self.model.vocabulary, query=text), settings, text)
        return self._with_texts(texts, settings) if texts else self

    def _check_texts(self, expr: Expr, settings: DrawSettings, query: str) -> list[str]:
        """Return the texts in quotes of a query, after a check that the model's reader of words can read each of them.

        Args:
            expr: the query, with attributes checked by `bind`.
            settings: settings of the run.
            query: text of the query, for errors.

        Raises:
            WeakHeadError: a text is calibrated, and the reader is not clearly better than chance for it.
        """
        words = self.model.words
        if words is None:  # then `bind` accepts no texts
            return []
        texts = texts_of(expr, self.model.vocabulary)
        reports = {text: report for text in texts if (report := words.calibration(text).report) is not None}
        check_heads(expr, texts, reports, settings.allow_weak, query=query, guide="reader")
        return texts

    def _under(self, prompt: str) -> Pipeline:
        """Return a pipeline whose generator draws pictures of another prompt, for a generator that takes prompts.

        The pipelines of earlier calls are kept; for the generator's own prompt, this pipeline is returned.

        Raises:
            ArgumentError: the attributes were learned from pictures of the generator's own prompt, the generator takes
                no prompt, or the prompt is no text that files can hold.
        """
        if _NO_TEXT.search(prompt):
            wrong = f"the prompt {shorten(repr(prompt))} holds a character that is no text"
            raise ArgumentError(wrong, hint="half a character or a zero: see to the encoding of your terminal or file")
        if prompt not in self._prompted:
            generator, bank = cast(PromptedGenerator, self.model.generator), self.model.bank
            other = generator.under(prompt)
            if other is generator:
                return self
            if not bank.reads_pictures or bank.fitted.generator:
                problem = f"the attributes of model {self.model.name!r} were learned from pictures of another prompt"
                hint = "give all prompts to load_generator as a list, and train with condition=random"
                raise ArgumentError(problem, hint=hint)
            model = replace(self.model, generator=other, held_out=(), judge_report={})
            self._prompted[prompt] = Pipeline(model, self.device)
        return self._prompted[prompt]

    def _with_texts(self, texts: Sequence[str], settings: DrawSettings) -> Pipeline:
        """Return a pipeline whose model has texts about pictures as further attributes; see `energyql.pipeline.texts`.

        Args:
            texts: the texts, which the model's reader of words reads.
            settings: settings of the run.

        Raises:
            ArgumentError: the truncation or the condition of the settings is impossible for the model.
        """
        names = tuple(sorted({*texts}))
        psi = self.model.check_truncation(settings.truncation)
        condition = self.model.check_condition(settings.condition, settings.seed)
        key = names, psi, condition  # the heads of texts are fitted to pictures under both
        self._check_reader(names, settings, psi, condition)
        if key not in self._reading:
            prior = self._prior_pictures(psi, condition)
            pipeline = Pipeline(with_texts_read(self.model, names, prior, defined=bool(self._defined)), self.device)
            pipeline._texts, pipeline._examined = names, self._examined  # before another thread can find it
            self._reading[key] = pipeline
        return self._reading[key]

    def _prior_pictures(self, psi: float, condition: Condition | None) -> PriorPictures:
        return self._prior.setdefault((psi, condition), PriorPictures(self.model, psi, condition))

    def examination(self, settings: DrawSettings) -> Examination:
        """Return what the examination of the model's reader of words found, which is made once for a model.

        Raises:
            ArgumentError: the model has no reader of words, or the truncation or the condition of the settings is
                impossible for it.
        """
        if self.model.words is None:
            hint = "name a folder of transformers or open_clip, or an object with the method read(pictures, texts)"
            raise ArgumentError(f"model {self.model.name!r} has no reader of words to examine", hint=hint)
        psi = self.model.check_truncation(settings.truncation)
        condition = self.model.check_condition(settings.condition, settings.seed)
        if (psi, condition) not in self._examined:
            self._examined[psi, condition] = examine(self._prior_pictures(psi, condition))
        return self._examined[psi, condition]

    def _check_reader(
        self, texts: Sequence[str], settings: DrawSettings, psi: float, condition: Condition | None
    ) -> None:
        words = self.model.words
        assert words is not None
        if zero_shot := [text for text in texts if not words.calibration(text).labels]:
            examination, allowed = self.examination(settings), {*settings.allow_weak, *self._seen}
            unseen = [text for text in zero_shot if text not in allowed]
            check_examined(examination, unseen, self._prior_pictures(psi, condition))
            self._seen.update(unseen)

    def _surrogates_under(
        self, psi: float, condition: Condition | None, reads: Encode
    ) -> Callable[[], SurrogateHeads] | None:
        """Return a function without arguments that returns small heads on z, which imitate the model's heads.

        The small heads are fitted when the function is first called, once for each pair of truncation and condition.
        `None` is returned if z has too many numbers, or attributes are read off pictures.

        Args:
            psi: the truncation.
            condition: the condition of a conditional generator; `None` for none.
            reads: function from z to the input of the model's heads.
        """
        heads, z_dim = self.model.bank.as_heads, self.model.generator.z_dim
        if heads is None or z_dim > MOST_NUMBERS:
            return None
        return self._surrogates.setdefault((psi, condition), cache(partial(SurrogateHeads, heads, reads, z_dim)))


def _check_posterior(sampler: Sampler, settings: DrawSettings, model: Model) -> None:
    """Check a run with `realism` or with `verify="faithful"`, whose samples must be draws from the posterior.

    With `realism`, a discriminator's value is added to the energy. With `verify="faithful"`, the kept pictures have the
    frequencies of the prior.

    Raises:
        ArgumentError: the sampler searches for the lowest energy, or `realism` is set for a model without a
            discriminator; or pictures cannot be faithful, because the semantics is not "exact", the strength of the
            sampler is not 1, or `realism` is set.
    """
    if settings.realism and not callable(model.discriminator):
        hint = "give it a torch module from pictures to logits: dataclasses.replace(model, discriminator=module)"
        raise ArgumentError(f"realism needs a discriminator, and model {model.name!r} has none", hint=hint)
    record = describe_sampler(sampler)
    if has_trait(sampler, "descends"):
        others = ", ".join(name for name, make in SAMPLERS.items() if not has_trait(make(), "descends"))
        why = "to pictures that deceive the discriminator" if settings.realism else "which is not faithful"
        message = f"{sampler_words(record)} goes where the energy is lowest, {why}"
        raise ArgumentError(message, hint=f"choose one that draws from the posterior: {others}")
    if settings.verify == "faithful" and (settings.semantics != EXACT or settings.realism or strengths(record) - {1.0}):
        raise ArgumentError("faithful pictures need the exact semantics and strength 1, without realism")


@takes_label
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
    condition: int | str | Sequence[float] | Sequence[str] | None = None,
    noise: Noise = DEFAULT_NOISE,
    verify: Verify | None = None,
    purity: float = DEFAULT_PURITY,
    attempts: int = DEFAULT_ATTEMPTS,
    realism: float = 0.0,
    seed: int = 0,
    first: int = 0,
    budget: int | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    compile: bool = False,
    allow_weak: Sequence[str] = (),
    progress: bool | Report = True,
) -> Result:
    """Draw pictures that satisfy a query.

    Args:
        query: text such as `"smile AND NOT (glasses OR beard)"`, or `E.smile & ~(E.glasses | E.beard)`.
        n: number of pictures, at least 1.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        semantics: how the query becomes an energy: "exact", "product", "lace" or "jem" (see docs/semantics.md).
        sampler: a name out of `energyql.sampling.SAMPLERS`, such as "slice+descent"; or a sampler object, which has its
            own settings. If the energy has no gradient, "population" takes the place of the default.
        strength: lambda > 0, by which the energy is multiplied. 1 is the query as stated; with larger values more
            pictures satisfy the query and they vary less. By default 1; a sampler object has its own strength.
        precision: "float32"; or "bfloat16", if the processor has it, for the mapping network and the heads during
            sampling, and for the feature maps of a StyleGAN. With "bfloat16" the error of energies is about a
            hundredth, the error of pictures is about a third of a grey level (58 dB for `avatars`), and large networks
            take half to two thirds of the time. The energies of the `Result` are computed in float32 in both cases.
        truncation: psi in [0, 1], by which w is moved toward its mean. Smaller values give less varied pictures with
            fewer faults. By default the truncation of the model.
        condition: class for a generator with classes (a conditional generator), or a number for each class. By default
            the condition under which the attributes were fitted, if there was one; if they were fitted to random
            classes, a random class, which the seed decides. For a pipeline of diffusers also a prompt; or a list of
            prompts, each as common as the others before the query is known. Each picture then has one of them, in
            shares that a pilot run estimates (see docs/noise.md).
        noise: which noise the generator adds besides w, as a StyleGAN2 does. "const" is the noise of the model, with
            which attributes were labelled. "random" is new noise for each picture, from the seed and the number i of
            the picture. "none" is no noise. Noise decides fine detail, such as single hairs; heads do not depend on it.
        verify: whether a verifier (the model's, or its judge if it has none) decides which drawn pictures are kept, so
            that all of them satisfy the query as far as the verifier can tell. "off": all are kept. "sure": each sample
            is drawn again until its picture is accepted; attributes that the query does not name become more or less
            frequent. "faithful": the same with draws from a clipped energy (see `ClippedEnergy`), so that the kept
            pictures have the frequencies of the prior among the pictures that the verifier accepts; this takes more
            draws. By default "sure" for a model with a verifier, which `train` makes from labels of pictures, or whose
            attributes are defined by a function that reads pictures; else "off".
        purity: share of the kept pictures that should truly satisfy the query, above 0 and below 1. A verifier that
            predicts probabilities keeps pictures whose P(query) is at least a threshold; the threshold is chosen so
            that this share is reached on held-out labels.
        attempts: most pictures that are drawn for one that the verifier accepts. A sample without an accepted picture
            then ends with the status `NOT_ACCEPTED`, and keeps its last picture.
        realism: weight of the model's discriminator D as a further term of the energy, `-realism * log(D / (1 - D))`.
            1 corrects the generator toward the data (Che et al. 2020, DDLS, arXiv 2003.06060), 0 omits the term. With
            the term, each evaluation draws a picture, and samplers that minimise the energy are refused.
        seed: 0 to 2**64 - 1. Picture i depends only on (seed, i), not on n, batch size or number of devices.
        first: number i of the first picture, so that a later call can continue where an earlier call ended.
        budget: most calls of the generator in all, at least n: one for each picture that is drawn, whether it is looked
            at, refused or returned, and one more if a gradient is computed; pilot runs count too. If the budget ends
            first, the result has the samples that are complete, and `summary()` says so. They are the first of the run,
            except that "faithful" leaves out, or shortens, a pilot run that would use up the budget. By default there
            is no limit.
            `statistics["generator_calls"]` is the number of calls. A budget is for models with a reader in place of
            heads, verified pictures and `realism`; elsewhere a picture takes one call, and a budget is refused.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps". "auto" is the device of a `Model` in memory; for a model by
            name or folder, a GPU if there is one, else the CPU.
        batch_size: number of samples that are computed together; the default depends on the model.
        compile: whether the energy of heads on latents, and the generator, are compiled by `torch.compile` first. That
            takes minutes, once in a process for the generator and once for each query, and needs a C++ compiler on a
            CPU. Samples and pictures are the same up to rounding, which may then depend on the size of a batch. On a
            CPU it does not pay (docs/performance.md).
        allow_weak: attributes whose heads may be used although they rank held-out labels badly. It is needed only where
            no verifier decides, because with a verifier no head is too weak. Also texts in quotes about which a reader
            of words may decide although it failed its examination (see docs/words.md).
        progress: whether to show a progress bar; or a function that is called with the name of a stage ("sampling",
            "drawing") and the fraction of the stage that is done. An exception that the function raises ends the run.

    Returns:
        Pictures with their latents and energies; for each picture whether it satisfies the query by the model's judge;
        and the settings of the run.

    Raises:
        WeakHeadError: the query needs a head whose quality on held-out labels is low.
        NotAcceptedError: the query cannot be reached, or the budget ended before a sample was complete.
        EnergyQLError: the query, a name or a setting is wrong; the message says where, and how to correct it.
    """
    settings = DrawSettings(
        semantics=semantics, sampler=sampler, strength=strength, precision=precision, truncation=truncation,
        condition=condition, noise=noise, verify=verify, purity=purity, attempts=attempts, realism=realism, seed=seed,
        batch_size=batch_size, compile=compile, allow_weak=allow_weak,
    )  # fmt: skip
    return pipeline_for(model, device).prepare(query, settings).run(n, first=first, budget=budget, progress=progress)


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
    """Draw until n pictures satisfy a query, by the attributes that the model's judge reads off the pictures.

    Args:
        query: text or expression, such as `"smile AND NOT hat"`.
        n: number of pictures that are to satisfy the query.
        budget: most calls of the generator, at least n, see `generate`. If heads on latents guide, and no verifier
            decides, each sample takes one call. By default as many calls as 10 n samples take.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        device: "auto" (a GPU if there is one), "cpu", "cuda" and so on.
        progress: whether to show a progress bar; or a function of the name of a stage and the fraction of it done.
        options: other arguments of `generate` by name, such as `seed` or `sampler`.

    Returns:
        The first n samples of the run that satisfy the query. If the budget ends first, the result has fewer samples or
        none, and `summary()` says so. `statistics["drawn"]` is the number of all samples drawn, and `index` has for
        each returned sample its number in the run.

    Raises:
        ModelError: the model has no judge, or its judge does not read an attribute of the query.
        EnergyQLError: the query, a name or a setting is wrong.
    """
    prepared = pipeline_for(model, device).prepare(query, **options)
    return prepared.run_until_satisfied(n, budget=budget, progress=progress)


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
        query: text or expression, such as `"smile AND NOT hat"`.
        n: number of samples, of any size.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        first: number of the first sample in the run; by default 0.
        device: "auto" (a GPU if there is one), "cpu", "cuda" and so on.
        progress: whether to show a progress bar; or a function of the name of a stage and the fraction of it done.
        options: other arguments of `generate` by name, such as `seed` or `sampler`. `batch_size` is 4096 by default.

    Returns:
        An iterator over consecutive batches of latents z. Each batch also has, for each sample, how the sampler ended
        and how often the energy was evaluated. `generate` draws the same latents for the same seed and sample number.

    Raises:
        EnergyQLError: the query, a name or a setting is wrong; raised at the call, before the first batch.
    """
    return pipeline_for(model, device).prepare(query, **options).latents(n, first=first, progress=progress)


def pipeline_for(model: str | Path | Model | Pipeline, device: str) -> Pipeline:
    """Return a model on a device as a `Pipeline`, which compiles and runs queries.

    The last four models that were loaded by name or path stay in memory. A model is loaded again after a file in its
    folder has changed.

    Args:
        model: name of a packaged model, a model folder, or a `Model` in memory. A `Pipeline` is returned unchanged, and
            `device` is ignored.
        device: "auto", "cpu", "cuda" and so on. "auto" is the device of a `Model` in memory; otherwise a GPU if there
            is one, else the CPU.

    Raises:
        ModelError: there is no such model, or it is damaged.
        ArgumentError: there is no such device.
    """
    if isinstance(model, Pipeline):
        return model
    if isinstance(model, Model):
        target = model.device if device == "auto" else choose_device(device)
        pipeline, weights = model.pipelines.get(target, (None, None))
        if pipeline is None or weights != _weights(model.generator):  # what was fitted to them holds no longer
            pipeline = Pipeline(model, target)
            model.pipelines[target] = pipeline, _weights(model.generator)
        else:
            model.to(target)  # a call with another device has moved its modules
        return cast(Pipeline, pipeline)
    folder = real_path(model_folder(model))
    with naming_source(folder):
        # Hidden files are temporary files of writers.
        files = (file for file in folder.iterdir() if not file.name.startswith("."))
        last_change = max((file.stat(follow_symlinks=file.exists()).st_mtime_ns for file in files), default=0)
    return _pipeline(folder, str(choose_device(device)), last_change)


def _weights(generator: Generator) -> list[tuple[int, int]]:
    """Return the state of a generator's parameters, by which a later call can notice that they were changed.

    The state differs after a parameter was replaced, or was changed in place by PyTorch.
    """
    parameters = generator.parameters() if isinstance(generator, torch.nn.Module) else ()
    return [(id(parameter), 0 if parameter.is_inference() else parameter._version) for parameter in parameters]


@lru_cache(maxsize=4)
def _pipeline(folder: Path, device: str, last_change: int) -> Pipeline:
    """Load a model as a `Pipeline`, or return the `Pipeline` of an earlier call with the same arguments.

    Args:
        folder: the model folder.
        device: name of the device.
        last_change: latest time, in ns, at which a file of the model changed. After a change the argument differs, so
            the files are read again.
    """
    _log.debug("loading %s on %s", folder, device)
    return Pipeline(load_model(folder, device), torch.device(device))
