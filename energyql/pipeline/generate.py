"""From a query to pictures: the public calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from energyql.energy.rule import compile_energy_rule
from energyql.errors import ArgumentError
from energyql.generators.classes import as_condition
from energyql.generators.encoder import encoder
from energyql.language import Expr, as_query, bind
from energyql.models import DEFAULT_MODEL, model_folder
from energyql.pipeline.arguments import choose_device, choose_precision, choose_sampler, finite_number, whole_number
from energyql.pipeline.model import Model, load_model
from energyql.pipeline.prepared import PreparedQuery
from energyql.pipeline.result import Result
from energyql.pipeline.until import draw_until_satisfied
from energyql.progress import Report, reporting
from energyql.sampling import DEFAULT_SAMPLER, Sampler, SampleResult
from energyql.version import __version__


class Pipeline:
    """A model on a device, ready for queries.

    Args:
        model: a loaded model; its torch modules are moved to the device.
        device: where to compute.
    """

    def __init__(self, model: Model, device: torch.device) -> None:
        self.model = model.to(device)
        self.device = device

    def prepare(
        self,
        query: str | Expr,
        *,
        semantics: str = "exact",
        sampler: str | Sampler = DEFAULT_SAMPLER,
        strength: float | None = None,
        precision: str = "float32",
        truncation: float | None = None,
        label: int | Sequence[float] | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        relations: bool = True,
    ) -> PreparedQuery:
        """Check and compile everything; see `energyql.generate` for the arguments and errors.

        Args of its own:
            relations: see `compile_energy_rule`.
        """
        batch_size = None if batch_size is None else whole_number("batch_size", batch_size)
        psi, checked = self._truncation(truncation), self.model.check_label(label)
        condition = as_condition(checked, self.model.generator)
        chosen = choose_sampler(sampler, strength)
        expr, text = as_query(query)
        bound = bind(expr, self.model.vocabulary, query=text)
        return PreparedQuery(
            model=self.model,
            device=self.device,
            expr=bound,
            rule=compile_energy_rule(bound, self.model.vocabulary, semantics, query=text, relations=relations),
            encode=encoder(self.model.generator, psi, condition),
            sampler=chosen,
            precision=choose_precision(precision),
            seed=whole_number("seed", seed, least=0, most=2**64 - 1),
            batch_size=batch_size,
            provenance={
                "query": text,
                "canonical": str(expr),
                "seed": int(seed),
                "model": self.model.name,
                "fingerprints": dict(self.model.fingerprints),
                "semantics": semantics,
                "sampler": repr(chosen),
                "precision": precision,
                "truncation": psi,
                "label": checked,
                "device": str(self.device),
                "versions": {"energyql": __version__, "torch": torch.__version__},
            },
        )

    def generate(
        self, query: str | Expr, n: int = 16, *, first: int = 0, progress: bool | Report = True, **settings: Any
    ) -> Result:
        """See `energyql.generate`."""
        n, first = whole_number("n", n), whole_number("first", first, least=0, most=2**62)
        prepared = self.prepare(query, **settings)
        with reporting(progress) as report:
            return prepared.generate(first, n, report)[0]

    def until_satisfied(
        self,
        query: str | Expr,
        n: int = 16,
        *,
        budget: int | None = None,
        progress: bool | Report = True,
        **settings: Any,
    ) -> Result:
        """See `energyql.until_satisfied`."""
        n = whole_number("n", n)
        budget = 10 * n if budget is None else whole_number("budget", budget, least=n)
        prepared = self.prepare(query, **settings)
        with reporting(progress) as report:
            return draw_until_satisfied(prepared, n, budget, report)

    def sample_latents(
        self, query: str | Expr, n: int, *, first: int = 0, progress: bool | Report = True, **settings: Any
    ) -> Iterator[SampleResult]:
        """See `energyql.sample_latents`."""
        n, first = whole_number("n", n, most=2**62), whole_number("first", first, least=0, most=2**62)
        prepared = self.prepare(query, **settings)

        def batches() -> Iterator[SampleResult]:
            with reporting(progress) as report:
                yield from prepared.sample(first, n, report)

        return batches()

    def _truncation(self, truncation: float | None) -> float:
        psi = self.model.truncation if truncation is None else finite_number("truncation", truncation)
        low, high = self.model.bank.truncation
        if not low <= psi <= high:
            allowed = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            raise ArgumentError(
                f"the attributes of model {self.model.name!r} do not hold at truncation {psi:g}",
                hint=f"they were fitted at truncation {allowed}: use that, or train them for {psi:g}",
            )
        return psi


def generate(
    query: str | Expr,
    n: int = 16,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    semantics: str = "exact",
    sampler: str | Sampler = DEFAULT_SAMPLER,
    strength: float | None = None,
    precision: str = "float32",
    truncation: float | None = None,
    label: int | Sequence[float] | None = None,
    seed: int = 0,
    first: int = 0,
    device: str = "auto",
    batch_size: int | None = None,
    progress: bool | Report = True,
) -> Result:
    """Draw pictures that satisfy a query.

    Args:
        query: text such as `"smile AND NOT (glasses OR beard)"`, or `E.smile & ~(E.glasses | E.beard)`.
        n: number of pictures, at least 1.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        semantics: "exact", "product" or "lace".
        sampler: a name out of `energyql.sampling.SAMPLERS`, or a sampler with settings of its own.
        strength: lambda > 0, multiplies the energy: 1 is the query as stated, more is more certain and less varied.
            By default the sampler's own.
        precision: "float32"; or "bfloat16" for the mapping network and the heads while they sample, on a processor that
            has it: energies are then off by a hundredth, and a large mapping network takes two thirds of the time.
            What a `Result` tells is computed in float32 all the same.
        truncation: psi in [0, 1]: pulls w toward its mean, less varied and safer. By default the model's own.
        label: of a conditional generator: a class, or as many numbers as it has classes. By default the one that the
            attributes were fitted under, if they were fitted under one.
        seed: 0 to 2**64 - 1. Picture i depends on (seed, i) alone, whatever n, batch size or device count.
        first: the i of the first picture, so that a later call can go on where this one ends.
        device: "auto" (where a `Model` in memory is, else a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
        batch_size: samples that are computed together; by default as many as suit the model.
        progress: show a progress bar, or a function that is called with the name of a stage and the fraction of it that
            is done; an exception that it raises ends the run.

    Returns:
        Pictures with their latents, energies, verdicts and provenance.

    Raises:
        EnergyQLError: the query, a name or a setting is wrong; the message says what, where and what to do.
    """
    return pipeline_for(model, device).generate(
        query, n, first=first, semantics=semantics, sampler=sampler, strength=strength, precision=precision,
        truncation=truncation, label=label, seed=seed, batch_size=batch_size, progress=progress,
    )  # fmt: skip


def until_satisfied(
    query: str | Expr,
    n: int = 16,
    *,
    budget: int | None = None,
    model: str | Path | Model = DEFAULT_MODEL,
    device: str = "auto",
    **settings: Any,
) -> Result:
    """Keep drawing until n pictures satisfy the query, by the judge, or by the heads of a model without one.

    Args:
        query, n, model, device: as for `generate`.
        budget: most samples to draw, at least n; by default 10 n.
        settings: the other arguments of `generate`.

    Returns:
        The first n samples of the run that satisfy the query; all there are, and perhaps none, if the budget ends
        before: `summary()` says so. `statistics["drawn"]` is how many were looked at, and `index` which they are.

    Raises:
        EnergyQLError: as for `generate`.
    """
    return pipeline_for(model, device).until_satisfied(query, n, budget=budget, **settings)


def sample_latents(
    query: str | Expr, n: int, *, model: str | Path | Model = DEFAULT_MODEL, device: str = "auto", **settings: Any
) -> Iterator[SampleResult]:
    """Latents that satisfy a query, without their pictures, in batches: memory does not grow with n.

    Args:
        query, n, model, device: as for `generate`; there is no largest n.
        settings: the other arguments of `generate`; `batch_size` is 4096 by default.

    Returns:
        An iterator over consecutive batches of latents z, with status, evaluations and diagnostics. They are those
        that `generate` draws for the same seed and index.

    Raises:
        EnergyQLError: as for `generate`, at the call and not at the first batch.
    """
    return pipeline_for(model, device).sample_latents(query, n, **settings)


def pipeline_for(model: str | Path | Model, device: str) -> Pipeline:
    """A model ready for queries: as `generate` takes it; packaged models and folders stay loaded."""
    if isinstance(model, Model):
        return Pipeline(model, model.device if device == "auto" else choose_device(device))
    folder = model_folder(model).resolve()
    written = max((file.stat().st_mtime_ns for file in folder.iterdir()), default=0)
    return _pipeline(folder, str(choose_device(device)), written)


@lru_cache(maxsize=4)
def _pipeline(folder: Path, device: str, written: int) -> Pipeline:
    """Models stay loaded, as long as nothing is `written` to their folder."""
    return Pipeline(load_model(folder, device), torch.device(device))
