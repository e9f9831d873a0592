"""What a run will do, as data: a query compiled for a model, with energy, sampler, verifier and settings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql import __version__
from energyql.attributes.judge import who_judges
from energyql.attributes.surrogates import SurrogateHeads
from energyql.energy.clipped import ClippedEnergy
from energyql.energy.compiled import CompiledEnergy
from energyql.energy.picture_energy import (
    NO_GRADIENT,
    REALISM_PILOT,
    WITHOUT_GRADIENT,
    PictureEnergy,
    reader_energy,
    with_realism,
)
from energyql.energy.query_energy import Encode, QueryEnergy, Surrogate
from energyql.energy.rule import SEMANTICS, EnergyRule, compile_energy_rule
from energyql.errors import ArgumentError, either
from energyql.generators.base import (
    PromptedGenerator,
    check_noise,
    class_count,
    condition_vector,
    draft_cost,
    drawing,
    head_reader,
    is_differentiable,
    noise_shapes,
    synthesizer,
)
from energyql.generators.mapping import encoder
from energyql.language import Expr, as_query, bind
from energyql.pipeline.checks import check_heads, weak_heads
from energyql.pipeline.clips import Clip
from energyql.pipeline.energy_module import energy_module
from energyql.pipeline.ledger import Ledger
from energyql.pipeline.model import Model, is_same, judge_mark, never_objects, used_marks
from energyql.pipeline.provenance import Provenance
from energyql.pipeline.session import Session, open_session
from energyql.pipeline.settings import (
    DEFAULT_SAMPLER,
    EXACT,
    GRADIENT_FREE,
    DrawOptions,
    DrawSettings,
    Verify,
)
from energyql.pipeline.verifier import Verifier, default_verify, verifier_of
from energyql.sampling import SAMPLERS, Sampler, make_sampler, normals
from energyql.sampling.base import EnergyLike, check_sampler, has_trait
from energyql.sampling.registry import describe_sampler, sampler_words, strengths
from energyql.vocabulary import unknown_name

if TYPE_CHECKING:
    from typing_extensions import Unpack

Draft = Callable[..., Tensor]
"""Function from w, and `rows`, the number of each picture in its run, to pictures in [-1, 1], which may be drafts."""


class Source(NamedTuple):
    """Where samples are drawn, and who decides on their pictures.

    Attributes:
        energy: the energy that the sampler follows; `None` for draws from the prior.
        verifier: the verifier, with the threshold for such draws; `None` if all pictures are kept.
        clip: bound at which the energy is clipped; `None` for the energy of the query.
    """

    energy: EnergyLike | None
    verifier: Verifier | None = None
    clip: Clip | None = None


class Shares(NamedTuple):
    """P(prompt | query) for each prompt of a mixture, and its standard error; both are (prompts,)."""

    values: npt.NDArray[np.float64]
    errors: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Calibration:
    """What is found out by pictures before the samples of a run are drawn; a pilot run is the same for all seeds.

    Attributes:
        source: of the samples from number `count_from_prior` on.
        prior_source: source of the samples before it, for `verify="faithful"`.
        count_from_prior: how many samples at the start of the run are drawn from the prior; may be infinity.
        clips: bounds at which the energy may be clipped; () before they are needed.
        shares: those of the prompts of a mixture.
    """

    source: Source
    prior_source: Source | None = None
    count_from_prior: float = 0
    clips: Sequence[Clip] = ()
    shares: Shares | None = None

    def source_of(self, first: int) -> Source:
        """Return the source of a batch whose first sample has the number `first`."""
        return self.source if self.prior_source is None or first >= self.count_from_prior else self.prior_source


class Mixture(NamedTuple):
    """Prompts of which each sample has one, and the plan of the query under each prompt."""

    prompts: Sequence[str]
    plans: Sequence[Plan]


@dataclass(frozen=True, eq=False)
class Plan:
    """A query on a model, checked and compiled, with all that a run of it needs; a run changes nothing in it.

    Attributes:
        model: the model, on `device`.
        device: device for all computations.
        expr: the query, with attributes checked against the model's vocabulary.
        rule: the energy of the query as a function of predictions.
        encode: function from z to w, with the truncation and the condition of the run.
        synthesize: function from w to pictures in [-1, 1], in the precision of the settings.
        drafts: function from a number type to a `Draft`, which draws pictures only for networks to look at.
        reads: function from z to the input of the heads.
        surrogates: function without arguments that returns small heads on z, which imitate the model's at a lower cost;
            `None` if z has too many numbers, or attributes are read off pictures.
        sampler: the sampler, with its settings.
        verifier: the verifier, whose threshold `calibrate` chooses; `None` with `verify="off"`.
        settings: all settings of the run.
        provenance: the facts that are needed to repeat the run.
        followed: function without arguments that returns `energy`.
        reported: function without arguments that returns `energy_in_float32`.
        mixture: prompts, if each sample has one of several.
        calibration: what `calibrate` found out; `None` before.
    """

    model: Model
    device: torch.device
    expr: Expr
    rule: EnergyRule
    encode: Encode
    synthesize: Callable[..., Tensor]
    drafts: Callable[[torch.dtype], Draft]
    reads: Encode
    surrogates: Callable[[], SurrogateHeads] | None
    sampler: Sampler
    verifier: Verifier | None
    settings: DrawSettings
    provenance: Provenance
    followed: Callable[[], QueryEnergy | CompiledEnergy | PictureEnergy]
    reported: Callable[[], QueryEnergy | PictureEnergy]
    mixture: Mixture | None = None
    calibration: Calibration | None = None

    @property
    def energy(self) -> QueryEnergy | CompiledEnergy | PictureEnergy:
        """The energy of the query that the sampler follows, in the precision of the settings, with `realism`."""
        return self.followed()

    @property
    def energy_in_float32(self) -> QueryEnergy | PictureEnergy:
        """The energy of the query in float32 without `realism`, as results report it whatever they were drawn with."""
        return self.reported()

    @property
    def dtype(self) -> torch.dtype:
        """Number type of energies while sampling: `torch.float32` or `torch.bfloat16`."""
        return cast(torch.dtype, getattr(torch, self.settings.precision))

    @property
    def draws_more(self) -> bool:
        """Whether a sample may take more calls of the generator than the one that draws its picture."""
        return bool(self.model.bank.reads_pictures or self.settings.realism or self.settings.verify != "off")


def metered(plan: Plan, ledger: Ledger) -> Plan:
    """Return a plan whose calls of the generator are counted in the ledger of a run, and refused beyond its budget."""
    if plan.mixture is not None:
        mixture = plan.mixture._replace(plans=[metered(part, ledger) for part in plan.mixture.plans])
        plan = replace(plan, mixture=mixture)
    cost, drafts = draft_cost(plan.model.generator), plan.drafts
    counted = replace(
        plan, synthesize=ledger.counted(plan.synthesize), drafts=lambda dtype: ledger.counted(drafts(dtype), cost)
    )
    if not (plan.model.bank.reads_pictures or plan.settings.realism):
        return counted
    counted = _with_energies(counted, None if plan.model.bank.reads_pictures else plan.reported)
    if (known := plan.calibration) is None:
        return counted
    clip, energy = known.source.clip, cast(EnergyLike, counted.energy)
    energy = energy if clip is None else ClippedEnergy(counted.energy, clip.probability)
    return replace(counted, calibration=replace(known, source=known.source._replace(energy=energy)))


def _with_energies(plan: Plan, of_heads: Callable[[], QueryEnergy | PictureEnergy] | None) -> Plan:
    """Return the plan with its energies, made when first needed; `of_heads` is `None` where pictures are read."""
    model, settings = plan.model, plan.settings
    reported = of_heads or cache(partial(reader_energy, plan.rule, model.bank, plan.encode, plan.drafts(torch.float32)))

    def followed() -> QueryEnergy | CompiledEnergy | PictureEnergy:
        energy, draft = reported(), plan.drafts(plan.dtype)
        if plan.dtype != torch.float32:
            if isinstance(energy, QueryEnergy):
                energy = energy.computed_in(plan.dtype)
            else:
                energy = reader_energy(plan.rule, model.bank, plan.encode, draft)
        critic, generator = model.discriminator, model.generator
        if critic is not None and settings.realism:
            pilot = normals(0, 0, REALISM_PILOT, generator.z_dim, stream="realism").to(plan.device)
            return with_realism(energy, critic, settings.realism, plan.encode, draft, pilot)
        if settings.compile and isinstance(energy, QueryEnergy) and energy.rule.attributes:
            return CompiledEnergy(energy, energy_module(model, plan.rule, plan.reads, plan.provenance))
        return energy

    return replace(plan, reported=reported, followed=cache(followed))


def _surrogate(rule: EnergyRule, surrogates: Callable[[], SurrogateHeads]) -> Surrogate:
    """A cheap approximation of a query's energy: small heads on z replace the model's heads."""
    heads = surrogates()
    return Surrogate(rule, heads.distilled(rule.attributes), heads.device)


def plan_call(
    query: str | Expr, model: str | Path | Model, *, device: str = "auto", **options: Unpack[DrawOptions]
) -> Plan:
    """Open a model on a device, and plan a query for it: the first two stages of every call."""
    return plan_query(open_session(model, device), query, **options)


def plan_query(
    session: Session, query: str | Expr, settings: DrawSettings | None = None, **options: Unpack[DrawOptions]
) -> Plan:
    """Check a query and its settings, and compile the query for a model. No samples are drawn.

    Args:
        session: the model on its device, from `open_session`.
        query: text or expression, such as `"smile AND NOT hat"`.
        settings: settings of the run; `None` for the defaults.
        options: values for single fields of `DrawSettings`, such as `seed=1`, in place of the values in `settings`.

    Raises:
        WeakHeadError: the query needs a head whose quality on held-out labels is low.
        EnergyQLError: the query, a name or a setting is wrong.
    """
    settings, model = replace(settings or DrawSettings(), **options), session.model
    generator, bank, vocabulary, prompt = model.generator, model.bank, model.vocabulary, settings.condition
    if isinstance(prompt, list | tuple) and prompt and all(isinstance(each, str) for each in prompt):
        return _plan_mixture(session, query, settings, prompt)
    if isinstance(prompt, str) and isinstance(generator, PromptedGenerator) and not class_count(generator):
        plan = plan_query(session.under(prompt), query, replace(settings, condition=None))
        return replace(plan, provenance=plan.provenance | {"condition": prompt})
    psi = model.check_truncation(settings.truncation)
    condition = model.check_condition(settings.condition, settings.seed)
    check_noise(settings.noise, generator)
    for name in settings.allow_weak:
        if name not in vocabulary and not vocabulary.reads_words:
            raise unknown_name(name, vocabulary, f"in allow_weak is not an attribute of {vocabulary.of_model}")
    vector = condition_vector(condition, generator)
    expr, text = as_query(query)
    bound = bind(expr, vocabulary, query=text)
    if texts := session.check_texts(bound, settings, text):
        return plan_query(session.with_texts(texts, settings), query, settings)
    rule = compile_energy_rule(bound, vocabulary, settings.semantics, query=text, relations=settings.relations)
    mode, verifier, reason = check_readers(session, bound, rule, settings, text)
    settings = replace(settings, verify=mode)
    sampler = _sampler(model, settings, verifier)
    encode = encoder(generator, psi, vector)
    reads = head_reader(generator, bank.space, encode)
    qualities = {name: str(model.report[name]) if name in model.report else None for name in rule.attributes}
    guide: Provenance = {"reader": qualities} if bank.reads_pictures else {"heads": qualities}
    provenance: Provenance = {
        "query": text, "canonical": str(expr), "seed": settings.seed, "model": model.name,
        "fingerprints": used_marks(model.fingerprints, texts=bool(session.texts)), "judge": who_judges(model.judge),
        **settings.record(
            sampler=describe_sampler(sampler), truncation=psi, condition=condition,
            verify=None if settings.verify == "off" else settings.verify,
        ),
        "device": str(session.device),
        **guide,
        "versions": {"energyql": __version__, "torch": str(torch.__version__)},
    }  # fmt: skip
    if shapes := noise_shapes(generator):
        provenance["z_shape"] = [list(shape) for shape in shapes]
    if isinstance(facts := getattr(generator, "description", None), dict):
        provenance["generator"] = facts
    if reason is not None:
        provenance["unverified"] = reason
    if said := session.about_texts(psi, condition):
        provenance["words"] = said
    if settings.realism:
        provenance["discriminator"] = judge_mark(model.discriminator)
    surrogates = session.surrogates_under(psi, condition, reads)
    surrogate = None if surrogates is None else cache(partial(_surrogate, rule, surrogates))
    of_heads = cache(partial(QueryEnergy, rule, reads, bank, surrogate))
    plan = Plan(
        model, session.device, bound, rule, encode,
        synthesize=session.compiled if settings.compile
            else synthesizer(generator, getattr(torch, settings.precision)),
        drafts=lambda dtype: drawing(generator, dtype, settings.noise, settings.seed),
        reads=reads, surrogates=surrogates, sampler=sampler, verifier=verifier, settings=settings,
        provenance=provenance, followed=of_heads, reported=of_heads,
    )  # fmt: skip
    return _with_energies(plan, None if bank.reads_pictures else of_heads)


def solved_by(plan: Plan, solver: dict[str, Any]) -> Plan:
    """Return the plan of pictures whose latents come from a solver in place of the sampler; `solver` is its record."""
    return replace(plan, provenance=plan.provenance | {"sampler": solver})


def _plan_mixture(session: Session, query: str | Expr, settings: DrawSettings, prompts: Sequence[str]) -> Plan:
    """A plan whose samples have one of several prompts each, which are equally probable before the query is known."""
    plans = [plan_query(session, query, settings, condition=prompt) for prompt in prompts]
    first = plans[0]
    if first.settings.verify == "faithful" or settings.realism or not SEMANTICS[settings.semantics].has_floor:
        problem = "the shares of several prompts are estimated without realism, jem and faithful pictures"
        ways = either('verify="sure" or "off"', "--verify sure or off")
        raise ArgumentError(problem, hint=f"draw with {ways} and another semantics, or give one prompt")
    provenance = first.provenance | {"condition": tuple(prompts)}
    return replace(first, provenance=provenance, mixture=Mixture(tuple(prompts), plans))


def _sampler(model: Model, settings: DrawSettings, verifier: Verifier | None) -> Sampler:
    """The sampler of a run: the one that the settings name, or the default for this model and way to verify."""
    sampler, generator = settings.sampler, model.generator
    has_gradient = model.has_gradient and (not settings.realism or is_differentiable(generator))
    if isinstance(sampler, str):
        strength, by_default = 1.0 if settings.strength is None else settings.strength, sampler == DEFAULT_SAMPLER
        if by_default and settings.verify == "faithful":
            sampler = make_sampler("slice", strength)  # the default one goes where the energy is lowest
        elif by_default and not has_gradient and verifier is not None and verifier.reader is model.bank.reader:
            sampler = SAMPLERS[GRADIENT_FREE](strength=strength, enough=None)  # the code makes sure
        else:
            sampler = make_sampler(sampler if has_gradient or not by_default else GRADIENT_FREE, strength)
    else:
        check_sampler(sampler)
    if not has_gradient and has_trait(sampler, "needs_gradient"):
        raise ArgumentError(f"this sampler follows a gradient, and {NO_GRADIENT}", hint=WITHOUT_GRADIENT)
    if settings.realism or settings.verify == "faithful":
        _check_posterior(sampler, settings, model)
    return sampler


def check_readers(
    session: Session, expr: Expr, rule: EnergyRule, settings: DrawSettings, query: str
) -> tuple[Verify, Verifier | None, str | None]:
    """Check that heads or verifier are good enough for a query whose attributes `bind` has checked.

    Returns:
        How pictures are verified; the verifier, without a threshold yet, or `None` for "off" and for texts in quotes;
        and why the model's verifier cannot read the query, else `None`.

    Raises:
        WeakHeadError: no verifier decides, and the query needs a weak head.
        ModelError: the settings ask for a verifier, and the model has none that reads the query.
    """
    if session.check_texts(expr, settings, query):
        return settings.verify or "sure", None, None
    mode, reason, model = settings.verify, None, session.model
    alone = model.judge is not None and is_same(model.bank.reader, model.judge)  # the reader is its own judge
    asked = alone or (mode != "off" and model.verifier is None)
    defined = asked and any(name in session.defined for name in rule.attributes)
    if alone and not defined:
        raise never_objects(model.name)
    own = model.verifier is None and defined and (mode is None or model.judge is None)  # then the code decides
    reader = model.bank.reader if own else model.verifier
    reads: Collection[str] | None = None  # edits, for example, never verify
    if mode is None and reader is None:
        mode, reads = "off", model.judged_names
    elif mode is None:
        assert reader is not None
        reads = model.bank.vocabulary if own else session.names_read
        mode, reason = default_verify(reader, expr, rule.attributes, reads)
    if mode != "off":
        names = model.bank.vocabulary if own else session.names_read
        return mode, verifier_of(model, expr, rule, settings, reader or model.judge, names), None
    check_heads(expr, weak_heads(rule.attributes, model.report, settings.allow_weak), query, reads)
    return mode, None, reason


def _check_posterior(sampler: Sampler, settings: DrawSettings, model: Model) -> None:
    """Raise unless sampler and settings draw from the posterior, as `realism` and faithful pictures need."""
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
