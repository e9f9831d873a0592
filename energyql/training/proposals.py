"""Latents that a sampler draws with finished heads for random queries, so that their pictures can be labelled.

Judges and verifiers must decide on pictures that a sampler draws. These differ from random ones: the heads are certain
about them, rightly or wrongly, and rare classes are frequent.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from typing import cast

import torch
from torch import Tensor

from energyql.attributes.bank import Bank
from energyql.attributes.heads import AttributeBank
from energyql.errors import EnergyQLError
from energyql.kinds import KINDS
from energyql.language import Attribute, Expr
from energyql.numerics.shapes import Float, Int
from energyql.pipeline.model import Model
from energyql.pipeline.plan import plan_query
from energyql.pipeline.run import run_latents
from energyql.pipeline.session import open_session
from energyql.training.samples import LABEL_SEED, Prior
from energyql.training.steps import StepFile, digest
from energyql.training.target import Task
from energyql.vocabulary import AttributeSpec, Vocabulary

A_FORMULA = 16
"""Number of latents for each random query."""
SIZES = (2, 3)
"""Possible numbers of attributes in a random query, if the model has that many."""
SHARES = (0.25, 0.75)
"""A random query compares a continuous attribute with a quantile of its labels between these two."""
TRIES = 2
"""Most random queries that are tried for each that is needed: some of them cannot be sampled."""


@dataclass(frozen=True)
class Proposed(Prior):
    """Samples whose latents z, (n, z_dim), were drawn by a sampler, in the form of prior samples."""

    latents: Tensor

    def z(self, index: Int[Tensor, " n"]) -> Float[Tensor, "n z_dim"]:
        """Latents z of the samples."""
        return self.latents[index]


def propose(task: Task, bank: Bank, specs: Vocabulary, labels: Mapping[str, Tensor], count: int) -> Proposed:
    """Draw latents with a sampler for random queries, conjunctions of conditions on two or three attributes.

    Args:
        task: its samples have one truncation and one class. Drawn latents are stored, for an interrupted training.
        labels: attribute -> labels of random pictures, NaN where missing, whose quantiles are limits such as 0.4 in
            `age > 0.4`.

    Returns:
        At most `count` samples: fewer if some queries cannot be sampled, none if no attribute has a label.
    """
    prior, psi = task.prior, task.prior.fitted.truncation[1]
    specs = Vocabulary(spec for name, spec in specs.items() if not labels[name].isnan().all())
    heads = bank.heads.values() if isinstance(bank, AttributeBank) else ()
    tensors = [tensor for head in heads for tensor in head.tensors().values()]
    identity = digest((prior.seed, prior.fitted, specs.to_dict(), count), *tensors)
    with task.target.work.step("proposals") as path:
        file = StepFile(path, identity)
        if (stored := file.read_tensors()) is None:
            source, parts = random.Random(identity), list[Tensor]()
            session = open_session(Model("the heads", prior.generator, bank, truncation=psi), "auto")
            for attempt in range(TRIES * -(-count // A_FORMULA) if specs else 0):
                if len(parts) * A_FORMULA >= count:
                    break
                with suppress(EnergyQLError):
                    plan = plan_query(
                        session,
                        _formula(specs, labels, source), seed=LABEL_SEED + attempt, verify="off",
                        allow_weak=list(specs),
                    )  # fmt: skip
                    batches = run_latents(plan, A_FORMULA, progress=False)
                    parts.append(torch.cat([torch.as_tensor(batch.z).cpu().float() for batch in batches]))
                task.report("proposing", len(parts) * A_FORMULA / count)
            none = torch.zeros(0, prior.generator.z_dim)
            stored = {"z": torch.cat([none, *parts])[:count]}
            file.write_tensors(stored)
    return Proposed(prior.generator, int(identity[:12], 16), prior.fitted, prior.device, stored["z"])


def _formula(specs: Vocabulary, labels: Mapping[str, Tensor], source: random.Random) -> Expr:
    """Random query on two or three attributes, such as `smile AND NOT hair = red`."""
    names = source.sample(sorted(specs), min(len(specs), source.choice(SIZES)))
    return reduce(lambda one, other: one & other, (_condition(specs[name], labels[name], source) for name in names))


def _condition(spec: AttributeSpec, labels: Tensor, source: random.Random) -> Expr:
    """Random condition on one attribute, such as `NOT hat`, `hair = red` or `age > 0.4`."""
    kind = KINDS[spec.kind]
    if not kind.numeric:
        return cast(Expr, source.choice(kind.queries.conditions(Attribute(spec.name), spec)))
    value = labels[~labels.isnan()].quantile(source.uniform(*SHARES)).clamp(spec.low, spec.high).item()
    attribute = Attribute(spec.name)
    return source.choice([attribute > value, attribute < value])
