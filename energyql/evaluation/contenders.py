"""What is compared: a sampler under a semantics, or the paper's algorithm."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from energyql.energy.rule import SEMANTICS
from energyql.errors import ArgumentError
from energyql.evaluation.published import PUBLISHED_BATCH, PublishedEnergy, PublishedODE
from energyql.evaluation.subject import Subject
from energyql.language import Expr
from energyql.progress import Report
from energyql.sampling import SAMPLERS, EnergyLike, Noise, Sampler, SampleResult, make_sampler, prior_latents

PAPER = "paper"
"""Names the paper's algorithm."""
DEFAULT_CONTENDERS = ("slice+descent", "slice", "ode", PAPER)
BATCH = 4096
"""Latents that are sampled together."""
_NAME = re.compile(r"(?:(?P<semantics>[^:@]+):)?(?P<sampler>[^:@]+)(?:@(?P<strength>[^:@]+))?")


@dataclass(frozen=True)
class Contender:
    """Somebody who samples.

    Attributes:
        name: as it was asked for.
        semantics: what the query means to it.
        sampler: how it samples.
        batch: latents that it samples together.
        published: whether energies are computed at the published cost.
    """

    name: str
    semantics: str
    sampler: Sampler
    batch: int = BATCH
    published: bool = False

    def energy(self, subject: Subject, query: str | Expr) -> Callable[[Tensor], Tensor]:
        """The energy of a query, prepared once.

        Raises:
            EnergyQLError: as for `energyql.generate`.
        """
        prepared = subject.pipeline.prepare(query, semantics=self.semantics, sampler=self.sampler, **subject.settings)
        if self.published:
            return PublishedEnergy(prepared.rule, subject.encode, subject.model.bank)
        return prepared.energy

    def sample(self, energy: EnergyLike, subject: Subject, n: int, seed: int, report: Report) -> SampleResult:
        """The samples 0 … n - 1 of a run."""
        parts: list[SampleResult] = []
        for start in range(0, n, self.batch):
            count = min(self.batch, n - start)
            z0 = prior_latents(seed, start, count, subject.z_dim).to(subject.device)
            progress = partial(_share, report, start, count, n)
            parts.append(self.sampler.sample(energy, z0, noise=Noise(seed, start), progress=progress))
        return SampleResult.join(parts)


def _share(report: Report, start: int, count: int, n: int, done: float, moving: int) -> None:
    report("sampling", (start + done * count) / n)


def read_contenders(names: str | Iterable[str | Contender]) -> list[Contender]:
    """Contenders by name.

    Args:
        names: separated by commas, or a list. A name is that of a sampler out of `energyql.sampling.SAMPLERS`;
            "semantics:sampler" and "sampler@strength" change what is 1 and `exact` otherwise; "paper" is the paper's
            algorithm at its own cost.

    Raises:
        ArgumentError: there is no such sampler or semantics, a strength is no number above 0, a name comes twice, or
            there is none.
    """
    parts = [part.strip() for part in names.split(",") if part.strip()] if isinstance(names, str) else list(names)
    found = [part if isinstance(part, Contender) else _read(part) for part in parts]
    if not found:
        raise ArgumentError("there is no sampler to compare", hint=_hint())
    twice = [one.name for i, one in enumerate(found) if one.name in {other.name for other in found[:i]}]
    if twice:
        raise ArgumentError(f"sampler {twice[0]!r} is named twice")
    return found


def _read(name: str) -> Contender:
    if name == PAPER:
        return Contender(PAPER, "lace", PublishedODE(), PUBLISHED_BATCH, published=True)
    match = _NAME.fullmatch(name)
    if match is None or match["sampler"] not in SAMPLERS:
        raise ArgumentError(f"there is no sampler {name!r}", hint=_hint())
    semantics = match["semantics"] or "exact"
    if semantics not in SEMANTICS:
        raise ArgumentError(f"no semantics is called {semantics!r}", hint=f"choose one of {', '.join(SEMANTICS)}")
    try:
        strength = float(match["strength"] or 1.0)
    except ValueError:
        raise ArgumentError(f"the strength of {name!r} is no number", hint="write slice@10") from None
    return Contender(name, semantics, make_sampler(match["sampler"], strength))


def _hint() -> str:
    return f"samplers: {', '.join(SAMPLERS)}, {PAPER}; also semantics:sampler and sampler@strength"
