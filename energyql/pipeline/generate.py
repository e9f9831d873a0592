"""Functions of one call: pictures for a query, those that the judge accepts, and latents without pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from energyql.language import Expr
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.model import Model
from energyql.pipeline.plan import plan_call, plan_query
from energyql.pipeline.result import Result
from energyql.pipeline.run import draw, draw_until_satisfied, run_latents
from energyql.pipeline.session import open_session
from energyql.pipeline.settings import (
    DEFAULT_ATTEMPTS,
    DEFAULT_NOISE,
    DEFAULT_PRECISION,
    DEFAULT_PURITY,
    DEFAULT_SAMPLER,
    DEFAULT_SEMANTICS,
    PICTURES,
    CallOptions,
    DrawSettings,
    Noise,
    Precision,
    SamplerName,
    Semantics,
    Verify,
)
from energyql.progress import Report
from energyql.sampling import Sampler, SampleResult

if TYPE_CHECKING:
    from typing_extensions import Unpack


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
            that this share is reached on held-out labels or, where these do not show it, so that P(query) of up to 64
            pictures of a trial says so.
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
            except that a pilot run, or a trial of "sure", is left out or shortened if it would use up the budget. By
            default there is no limit.
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
        NoPicturesError: the verifier refuses nearly all pictures (`RefusedError`), the budget ended before a sample was
            complete (`BudgetError`), or the query cannot be reached (`UnreachableError`).
        EnergyQLError: the query, a name or a setting is wrong; the message says where, and how to correct it.
    """
    settings = DrawSettings(
        semantics=semantics, sampler=sampler, strength=strength, precision=precision, truncation=truncation,
        condition=condition, noise=noise, verify=verify, purity=purity, attempts=attempts, realism=realism, seed=seed,
        batch_size=batch_size, compile=compile, allow_weak=allow_weak,
    )  # fmt: skip
    plan = plan_query(open_session(model, device), query, settings)
    return draw(plan, n, first=first, budget=budget, progress=progress)


def until_satisfied(
    query: str | Expr,
    n: int = PICTURES,
    *,
    budget: int | None = None,
    model: str | Path | Model = DEFAULT_MODEL,
    progress: bool | Report = True,
    **options: Unpack[CallOptions],
) -> Result:
    """Draw until n pictures satisfy a query, by the attributes that the model's judge reads off the pictures.

    Args:
        query: text or expression, such as `"smile AND NOT hat"`.
        n: number of pictures that are to satisfy the query.
        budget: most calls of the generator, at least n; by default those of 10 n samples. If heads on latents guide,
            and no verifier decides, each sample takes one call.
        model, progress: see `generate`.
        options: other arguments of `generate` by name, such as `seed`, `sampler` or `device`.

    Returns:
        The first n samples that satisfy the query; fewer or none if the budget ends first, as `summary()` then says.
        `statistics["drawn"]` is the number of all samples drawn, and `index` has the number of each returned sample in
        the run.

    Raises:
        ModelError: the model has no judge, or its judge does not read an attribute of the query.
        EnergyQLError: the query, a name or a setting is wrong.
    """
    plan = plan_call(query, model, **options)
    return draw_until_satisfied(plan, n, budget=budget, progress=progress)


def sample_latents(
    query: str | Expr,
    n: int,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    first: int = 0,
    progress: bool | Report = True,
    **options: Unpack[CallOptions],
) -> Iterator[SampleResult]:
    """Sample latents that satisfy a query, without their pictures, in batches: memory does not grow with n.

    Args:
        query: text or expression, such as `"smile AND NOT hat"`.
        n: number of samples, of any size.
        first: number of the first sample in the run.
        model, progress: see `generate`.
        options: other arguments of `generate` by name, such as `seed` or `device`. `batch_size` is 4096 by default.

    Returns:
        An iterator over batches of latents z, with each sample's status and number of evaluations. `generate` draws the
        same latents for the same seed and sample number.

    Raises:
        EnergyQLError: the query, a name or a setting is wrong; raised at the call, before the first batch.
    """
    plan = plan_call(query, model, **options)
    return run_latents(plan, n, first=first, progress=progress)
