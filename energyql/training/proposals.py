"""Latents that a sampler draws with finished heads for random queries, so that their pictures can be labelled.

Judges and verifiers, which read pictures, must later decide on pictures that a sampler draws. Such pictures differ from
random pictures: the heads are certain about them, rightly or wrongly, and rare classes are frequent among them.
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
"""Number of latents that are drawn for each random query."""
SIZES = (2, 3)
"""Possible numbers of attributes in a random query, if the model has that many."""
SHARES = (0.25, 0.75)
"""Range of quantiles of the labels of a continuous attribute. A random query compares the attribute, by > or <, with a
value between the two quantiles."""
TRIES = 2
"""Number of random queries that are tried for each query that is needed, because some of them cannot be sampled."""


@dataclass(frozen=True)
class Proposed(Prior):
    """Samples whose latents z were drawn by a sampler, in the form of prior samples.

    Attributes:
        latents: z of each sample, (n, z_dim).
    """

    latents: Tensor

    def z(self, index: Int[Tensor, " n"]) -> Float[Tensor, "n z_dim"]:
        """Return the latents z of the samples with these indices."""
        return self.latents[index]


def propose(task: Task, bank: Bank, specs: Vocabulary, labels: Mapping[str, Tensor], count: int) -> Proposed:
    """Draw latents with a sampler for random queries, each a conjunction of conditions on two or three attributes.

    The pictures of these latents are labelled later, so that a judge and a verifier learn from them.

    Args:
        task: generator and samples, all of one truncation and one class. The drawn latents are stored, so that an
            interrupted training does not draw them again.
        bank: the heads.
        specs: the attributes.
        labels: attribute -> labels of random pictures, NaN where missing. The limits of continuous attributes in the
            queries, such as 0.4 in `age > 0.4`, are quantiles of these labels.
        count: number of latents.

    Returns:
        At most `count` samples: fewer if no samples can be drawn for some of the queries; none if no attribute has a
            label.
    """
    prior, psi = task.prior, task.prior.fitted.truncation[1]
    specs = Vocabulary(spec for name, spec in specs.items() if not labels[name].isnan().all())
    heads = [
        tensor for head in (bank.as_heads.heads.values() if bank.as_heads else ()) for tensor in head.tensors().values()
    ]
    identity = digest((prior.seed, prior.fitted, specs.to_dict(), count), *heads)
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
    """Return a random query, such as `smile AND NOT hair = red`, about two or three attributes.

    Args:
        specs: the attributes of the model.
        labels: attribute -> labels as numbers, (n,), from which the limits of continuous attributes are taken.
        source: source of random numbers.
    """
    names = source.sample(sorted(specs), min(len(specs), source.choice(SIZES)))
    return reduce(lambda one, other: one & other, (_condition(specs[name], labels[name], source) for name in names))


def _condition(spec: AttributeSpec, labels: Tensor, source: random.Random) -> Expr:
    """Return a random condition on one attribute, such as `NOT hat`, `hair = red` or `age > 0.4`.

    Args:
        spec: the attribute.
        labels: labels of the attribute as numbers, (n,), from which the limit of a comparison is taken.
        source: source of random numbers.
    """
    kind = KINDS[spec.kind]
    if not kind.numeric:
        return cast(Expr, source.choice(kind.conditions(Attribute(spec.name), spec)))
    value = labels[~labels.isnan()].quantile(source.uniform(*SHARES)).clamp(spec.low, spec.high).item()
    attribute = Attribute(spec.name)
    return source.choice([attribute > value, attribute < value])
