"""Methods to compare: a sampler under a semantics, or the paper's algorithm."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

from torch import Tensor

from energyql.attributes.pictures import heads_of
from energyql.energy.rule import WITHOUT_FLOOR, check_semantics
from energyql.errors import ArgumentError
from energyql.evaluation.judged import EvaluatedModel
from energyql.evaluation.published import PUBLISHED_BATCH, PublishedEnergy, PublishedODE
from energyql.language import Expr
from energyql.pipeline.prepared import LATENT_BATCH
from energyql.pipeline.settings import DEFAULT_SAMPLER, DEFAULT_SEMANTICS, Semantics, several
from energyql.progress import Report
from energyql.sampling import SAMPLERS, EnergyLike, RandomStreams, Sampler, SampleResult, make_sampler, prior_latents
from energyql.sampling.base import check_sampler, describe_sampler, draw_with
from energyql.sampling.energy import check_floor

PAPER = "paper"
"""Name of the paper's algorithm."""
DEFAULT_METHODS = (DEFAULT_SAMPLER, "slice", "ode", PAPER)
_NAME = re.compile(r"(?:(?P<semantics>[^:@]+):)?(?P<sampler>[^:@]+)(?:@(?P<strength>[^:@]+))?")


@dataclass(frozen=True)
class Method:
    """A way to sample a query.

    Attributes:
        name: of the method, unique in a comparison.
        semantics: under which the query is compiled.
        sampler: draws the latents. With `PublishedODE` energies are computed at the cost of the published program.
    """

    name: str
    semantics: Semantics
    sampler: Sampler

    def check(self) -> None:
        """Raise the `ArgumentError` of no sampler, or of one that needs a least energy where the semantics has none."""
        check_sampler(self.sampler)
        if self.semantics in WITHOUT_FLOOR and getattr(self.sampler, "needs_floor", False):
            check_floor(-math.inf)

    def energy(self, model: EvaluatedModel, query: str | Expr) -> Callable[[Tensor], Tensor]:
        """Return the energy of a query.

        Raises:
            EnergyQLError: as for `energyql.generate`.
        """
        prepared = model.prepare(query, semantics=self.semantics, sampler=self.sampler)
        if isinstance(self.sampler, PublishedODE):
            return PublishedEnergy(prepared.rule, model.reads, heads_of(model.model.bank, f"the method {PAPER}"))
        return prepared.energy

    def sample(self, energy: EnergyLike, model: EvaluatedModel, n: int, seed: int, report: Report) -> SampleResult:
        """Draw the samples 0 … n - 1 of a run; `report` is called with the stage "sampling"."""
        parts: list[SampleResult] = []
        size = PUBLISHED_BATCH if isinstance(self.sampler, PublishedODE) else LATENT_BATCH
        for start in range(0, n, size):
            count = min(size, n - start)

            def progress(done: float, moving: int, start: int = start, count: int = count) -> None:
                report("sampling", (start + done * count) / n)

            z0 = prior_latents(seed, start, count, model.z_dim).to(model.device)
            parts.append(draw_with(self.sampler, energy, z0, RandomStreams(seed, start), progress))
        return SampleResult.join(parts)


def read_methods(names: str | Iterable[str | Method]) -> list[Method]:
    """Return methods by name.

    Args:
        names: separated by commas, or a list. A name is that of a sampler out of `energyql.sampling.SAMPLERS`, with
            semantics `exact` and strength 1; "semantics:sampler" and "sampler@strength" choose others; "paper" (also
            "paper@strength") is the paper's algorithm at its own cost.

    Raises:
        ArgumentError: there is no such sampler or semantics, a strength is not a number above 0, a name comes twice, or
            there is none; or a sampler must know the least energy, and the semantics has none.
    """
    parts = [part.strip() for part in names.split(",") if part.strip()] if isinstance(names, str) else several(names)
    if unnamed := [part for part in parts if not isinstance(part, str | Method)]:
        raise ArgumentError(
            f"there is no sampler {describe_sampler(unnamed[0])!r}",
            hint='a sampler of your own: energyql.evaluation.methods.Method("mine", "exact", sampler)',
        )
    found = [part if isinstance(part, Method) else _read(part) for part in parts]
    if not found:
        raise ArgumentError("there is no sampler to compare", hint=_hint())
    for name, count in Counter(method.name for method in found).items():
        if count > 1:
            raise ArgumentError(f"sampler {name!r} is named twice", hint="name it once")
    for method in found:
        method.check()
    return found


def _read(name: str) -> Method:
    match = _NAME.fullmatch(name)
    paper = match is not None and match["sampler"] == PAPER and match["semantics"] is None
    if match is None or not (paper or match["sampler"] in SAMPLERS):
        raise ArgumentError(f"there is no sampler {name!r}", hint=_hint())
    semantics = cast("Semantics", check_semantics(match["semantics"] or DEFAULT_SEMANTICS))
    try:
        strength = float(match["strength"] or 1.0)
    except ValueError:
        raise ArgumentError(f"the strength of {name!r} is not a number", hint="write slice@10") from None
    if paper:
        return Method(name, "lace", PublishedODE(strength=strength))
    return Method(name, semantics, make_sampler(match["sampler"], strength))


def _hint() -> str:
    return f"samplers: {', '.join(SAMPLERS)}, {PAPER}; also semantics:sampler and sampler@strength"
