"""A pilot run: estimates of the share of all pictures that satisfy a query, and of the cost of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from energyql.energy.rule import SEMANTICS, check_semantics
from energyql.errors import ArgumentError
from energyql.language import Expr, Weight
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.calibrate import PICTURE_SAMPLES, SAMPLES, clips_of, prevalence, standard_error, sure
from energyql.pipeline.clips import Clip
from energyql.pipeline.ledger import Ledger
from energyql.pipeline.model import Model
from energyql.pipeline.plan import metered, plan_query
from energyql.pipeline.propose import prior_energies
from energyql.pipeline.run import run_latents
from energyql.pipeline.session import open_session
from energyql.pipeline.settings import DEFAULT_SEMANTICS, EXACT, Semantics
from energyql.pipeline.verifier import Threshold
from energyql.progress import Report, reporting


@dataclass(frozen=True)
class Pilot:
    """Estimates of how common a query is and what a sample costs, by the predictions of the heads, or of the reader.

    All runs use the same random numbers, so the estimates are the same in every run.

    Attributes:
        prevalence: share of the model's pictures that satisfy the query, in [0, 1]: the mean of P(query) under the
            prior. Weights in the query do not count.
        prevalence_error: standard error of `prevalence`.
        satisfied: mean of P(query) over the samples of the pilot, in [0, 1]: about the share of samples that satisfy
            the query, if the probabilities of the heads are right.
        evaluations: mean number of evaluations of the energy for one sample.
        evaluations_error: standard error of `evaluations`.
        finished: share of the samples that the sampler could finish, in [0, 1].
        generator_calls: mean number of calls of the generator for one sample, if attributes are read off pictures; an
            evaluation with gradient counts as two. `None` for attributes of heads on latents.
        threshold: probability from which the model's verifier accepts a picture with `verify="sure"`. `None` for a
            model without a verifier, and for a verifier that is code, because it may return values instead of
            probabilities.
        clips: for `verify="faithful"`, each bound at which the energy may be clipped, with the share of satisfying
            pictures that is missed and the number of pictures drawn for one that is kept; () for a model without a
            verifier.
    """

    prevalence: float
    prevalence_error: float
    satisfied: float
    evaluations: float
    evaluations_error: float
    finished: float
    generator_calls: float | None = None
    threshold: Threshold | None = None
    clips: Sequence[Clip] = ()

    def __repr__(self) -> str:
        share = f"{self.prevalence:.2%} ± {self.prevalence_error:.2%}"
        if self.prevalence < 0.001:
            share = f"a share of {self.prevalence:.2g} ± {self.prevalence_error:.1g}"
        guide = "the heads" if self.generator_calls is None else "the reader"
        lines = [
            f"expect {share} of the model's pictures to satisfy it, by {guide}",
            f"       {self.satisfied:.0%} of its samples, by {guide}, whose errors `energyql report --full` shows",
            f"cost   {self.evaluations:.1f} ± {self.evaluations_error:.1f} evaluations of the energy a sample",
        ]
        if self.generator_calls is not None:
            rejection = f"{1 / self.prevalence:,.0f}" if self.prevalence else "countless"
            lines.append(f"       about {self.generator_calls:.0f} calls of the generator; by rejection {rejection}")
        if self.finished < 1:
            lines.append(f"the sampler cannot finish {1 - self.finished:.0%} of the samples")
        if self.threshold is not None:
            right = "" if self.threshold.precision is None else f", of which {self.threshold.precision:.0%} are right"
            lines.append(f"verify sure: keeps pictures from P {self.threshold.probability:.2f} on{right}")
        for clip in self.clips:
            calls = "none was kept" if clip.calls is None else f"{clip.calls:.1f} pictures for one that is kept"
            lines.append(f"verify faithful, clip {clip.probability:g}: {calls}, {clip.lost:.0%} under-represented")
        return "\n".join(lines)


def run_pilot(
    query: str | Expr,
    model: str | Path | Model = DEFAULT_MODEL,
    semantics: Semantics = DEFAULT_SEMANTICS,
    device: str = "auto",
    progress: bool | Report = True,
) -> Pilot:
    """Draw a few samples by the default sampler, and estimate how common the query is and what a sample costs.

    Raises:
        ArgumentError: the energies of the semantics have no lower bound ("jem"), or there is no such semantics.
        UnreachableError: the query cannot be reached; the message estimates how rare it is.
        EnergyQLError: the query, a name or the device is wrong, or the query needs a weak head.
    """
    if not SEMANTICS[check_semantics(semantics)].has_floor:
        raise ArgumentError(f"a pilot cannot be made under {semantics}, whose energies are no probabilities")
    session = open_session(model, device)
    reads = session.model.bank.reads_pictures
    verifier = plan_query(session, query).verifier  # it reads all attributes of the query
    allowed = () if verifier is None else tuple(session.model.vocabulary)
    plan = plan_query(session, query, semantics=semantics, verify="off", allow_weak=allowed)
    (sampled,) = run_latents(plan, PICTURE_SAMPLES if reads else SAMPLES, progress=False)
    evaluations = sampled.evaluations.double()
    unweighted = plan.expr.map(lambda node: node.operand if isinstance(node, Weight) else node)
    as_sampled = semantics == EXACT and unweighted == plan.expr
    exact = plan if as_sampled else plan_query(session, unweighted, verify="off", allow_weak=allowed)
    share, error = prevalence(prior_energies(exact), sampled if as_sampled else None)
    satisfied = exact.energy_in_float32(sampled.z).double().neg().exp().mean().item()
    finished = sampled.ok.double().mean().item()
    calls = (evaluations + sampled.gradients).mean().item() if reads else None
    mean, deviation = evaluations.mean().item(), standard_error(evaluations)
    estimates = Pilot(share, error, satisfied, mean, deviation, finished, calls)
    if verifier is None or semantics != EXACT:
        return estimates
    ledger = Ledger()
    surely, faithful = (metered(plan_query(session, query, verify=mode), ledger) for mode in ("sure", "faithful"))
    with reporting(progress) as report:
        threshold = sure(surely, ledger, report).threshold if verifier.is_network else None
        return replace(estimates, threshold=threshold, clips=clips_of(faithful, ledger, report))
