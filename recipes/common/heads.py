"""Fit the attribute heads to the true attributes of latents; docs/decisions/avatar-heads.md explains the choices."""

from __future__ import annotations

import dataclasses

import torch

from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.training.heads import train_heads
from energyql.training.labelled import Labelled
from energyql.training.report import report_quality
from energyql.training.steps import Course
from recipes.common.domain import Domain
from recipes.common.factors import Factors
from recipes.common.labelling import LATENT_SEED, label_tensors, prior_and_beyond

CALIBRATION, TEST = 20_000, 20_000
"""Samples of the prior for the temperature of each head, and for the report."""


def fit_heads(domain: Domain, fingerprint: str, *, scale: float = 1.0) -> AttributeBank:
    """Fit the attribute bank of a generator, with reports on held-out samples; it reads the direction of z.

    Args:
        domain: what is drawn.
        fingerprint: that of the generator.
        scale: multiplies the number of latents and of steps.
    """
    factors = Factors(domain)
    known, calibration, test, steps = (
        max(2, int(scale * count)) for count in (domain.head_latents, CALIBRATION, TEST, domain.heads.steps)
    )
    z = prior_and_beyond(factors, known + calibration + test, known)
    labels = label_tensors(factors(z).labels, domain.vocabulary)
    seen, unseen = (
        {name: label[rows] for name, label in labels.items()} for rows in (slice(-test), slice(-test, None))
    )
    bank, _ = train_heads(
        Labelled(z[:-test], seen, domain.vocabulary),
        dataclasses.replace(domain.heads, steps=steps),
        Course(LATENT_SEED),
        held_out=calibration,
        fitted=FittedUnder("direction", generator=fingerprint),
    )
    with torch.no_grad():
        return bank.with_reports(report_quality(bank.predict(z[-test:]), unseen, domain.vocabulary, seen))
