"""The calls that turn a query into pictures or latents."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from energyql.attributes.bank import AttributeBank
from energyql.attributes.judge import who_judges
from energyql.attributes.readouts import MOST_NUMBERS
from energyql.attributes.surrogates import SurrogateHeads
from energyql.energy.query_energy import Encode
from energyql.energy.rule import compile_energy_rule
from energyql.files import naming_source, real_path
from energyql.generators.base import Label, as_condition, head_reader
from energyql.generators.mapping import encoder
from energyql.generators.noise import check_noise
from energyql.language import Expr, as_query, bind
from energyql.models import DEFAULT_MODEL, model_folder
from energyql.pipeline.evidence import check_allowed, check_gradient, check_heads, check_realism
from energyql.pipeline.model import Model, choose_device, judge_mark, load_model
from energyql.pipeline.prepared import PreparedQuery
from energyql.pipeline.result import Result
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
)
from energyql.progress import Report
from energyql.sampling import Sampler, SampleResult, make_sampler
from energyql.sampling.base import check_sampler, describe_sampler
from energyql.version import __version__

if TYPE_CHECKING:
    from typing_extensions import Unpack

_log = logging.getLogger("energyql")


class Pipeline:
    """A model on a device, ready for queries.

    Args:
        model: a loaded model; its torch modules are moved to the device.
        device: where to compute.
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
        check_realism(settings, critic, self.model.name)
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
                "semantics": settings.semantics,
                "sampler": describe_sampler(sampler),
                "precision": settings.precision,
                "truncation": psi,
                "label": label,
                "noise": settings.noise,
                "device": str(self.device),
                "heads": {name: str(reports[name]) if name in reports else None for name in rule.attributes},
                "versions": {"energyql": __version__, "torch": str(torch.__version__)},
            }
            | ({"realism": settings.realism, "discriminator": judge_mark(critic)} if settings.realism else {}),
        )

    def _surrogates_under(self, psi: float, label: Label | None, reads: Encode) -> Callable[[], SurrogateHeads] | None:
        """Return a function for what stands in for the heads under a truncation and a label; see `PreparedQuery`."""
        bank, z_dim = self.model.bank, self.model.generator.z_dim
        if not isinstance(bank, AttributeBank) or z_dim > MOST_NUMBERS:
            return None
        return self._surrogates.setdefault((psi, label), cache(partial(SurrogateHeads, bank, reads, z_dim)))


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
        options: semantics, sampler, strength, precision, truncation, label, noise, realism, seed, batch_size and
            allow_weak, as for `generate`.

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
        options: semantics, sampler, strength, precision, truncation, label, realism, seed, batch_size and allow_weak,
            as for `generate`; `batch_size` is 4096 by default.

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
        written = max(map(_written, folder.iterdir()), default=0)
    return _pipeline(folder, str(choose_device(device)), written)


def _written(file: Path) -> int:
    """Return when a file was written; of a link to nothing, which only matters when it is read, when the link was."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return file.lstat().st_mtime_ns


@lru_cache(maxsize=4)
def _pipeline(folder: Path, device: str, written: int) -> Pipeline:
    """Load a model once, as long as no file of its folder changes (`written`)."""
    _log.debug("loading %s on %s", folder, device)
    return Pipeline(load_model(folder, device), torch.device(device))
