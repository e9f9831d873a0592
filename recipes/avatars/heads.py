"""Fit the attribute heads to the true attributes of latents; docs/decisions/avatar-heads.md explains every choice."""

from __future__ import annotations

import dataclasses

import torch

from energyql.attributes.bank import AttributeBank
from energyql.training.fitting import HeadSettings, train_heads
from energyql.training.report import report_quality
from recipes.avatars.factors import Factors
from recipes.avatars.labelling import LATENT_SEED, label_tensors, prior_and_beyond
from recipes.avatars.vocabulary import VOCABULARY

PRIOR, BEYOND = 300_000, 300_000
CALIBRATION, TEST = 20_000, 20_000
"""Samples of the prior for the temperature of each head, and for the report."""
SETTINGS = HeadSettings(hidden=96, steps=8000, batch=2048, lr=4e-3, weight_decay=0.02, patience=None)


def fit_heads(fingerprint: str, *, scale: float = 1.0) -> AttributeBank:
    """Fit the attribute bank of a generator, with reports on held-out samples; it reads the direction of z.

    Args:
        fingerprint: that of the generator.
        scale: multiplies the number of latents and of steps.
    """
    factors = Factors()
    prior, beyond, calibration, test, steps = (
        max(2, int(scale * count)) for count in (PRIOR, BEYOND, CALIBRATION, TEST, SETTINGS.steps)
    )
    z = prior_and_beyond(factors, prior + calibration + test, beyond)
    labels = label_tensors(factors(z))
    seen, unseen = (
        {name: label[rows] for name, label in labels.items()} for rows in (slice(-test), slice(-test, None))
    )
    bank, _ = train_heads(
        z[:-test],
        seen,
        VOCABULARY,
        dataclasses.replace(SETTINGS, steps=steps),
        held_out=calibration,
        space="direction",
        seed=LATENT_SEED,
        generator=fingerprint,
    )
    with torch.no_grad():
        return bank.with_reports(report_quality(bank.predict(z[-test:]), unseen, VOCABULARY, seen))
