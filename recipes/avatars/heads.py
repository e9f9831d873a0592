"""Fit the attribute heads to the labels of the judge; docs/decisions/avatar-heads.md explains every choice."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from energyql.attributes.bank import AttributeBank
from energyql.attributes.heads import Head
from energyql.training.fitting import HeadSettings, train_heads
from energyql.training.report import report_quality
from energyql.vocabulary import Vocabulary
from recipes.avatars.labelling import Labelled
from recipes.avatars.vocabulary import VOCABULARY

SEEDS = (404, 405, 406)
HELD_OUT, TEST = 0.1, 0.05
"""Shares of the prior's samples for early stopping and calibration, and for the report."""
HIDDEN = 96
SMOOTH = ("smile", "frown", "hair", "mouth", "brows")
SMOOTH_DECAY, SMOOTH_STEPS = 0.75, 5000
SHARP_DECAY, SHARP_STEPS = 0.3, 8000


def fit_heads(
    prior: Labelled, found: Labelled | None, fingerprint: str, *, scale: float = 1.0, seeds: Sequence[int] = SEEDS
) -> AttributeBank:
    """Fit the attribute bank of a generator, with reports on held-out samples; it reads the direction of z.

    Args:
        prior: labelled samples of the prior, of which the last are held out, the very last for the report.
        found: labelled latents that a sampler found, as further training data.
        fingerprint: that of the generator.
        scale: multiplies the steps of training.
        seeds: one head for each; the bank has their mean.
    """
    data = prior if found is None else Labelled.join([found, prior])  # the held-out samples come last
    first = len(data.latents) - round(TEST * len(prior.latents))
    held_out = HELD_OUT * len(prior.latents) / first
    seen, unseen = (
        {name: labels[rows] for name, labels in data.labels.items()} for rows in (slice(first), slice(first, None))
    )
    members: dict[str, list[Head]] = {name: [] for name in VOCABULARY}
    for seed in seeds:
        for smooth, decay, steps in ((True, SMOOTH_DECAY, SMOOTH_STEPS), (False, SHARP_DECAY, SHARP_STEPS)):
            bank, _ = train_heads(
                data.latents[:first],
                seen,
                Vocabulary([spec for name, spec in VOCABULARY.items() if (name in SMOOTH) == smooth]),
                HeadSettings(HIDDEN, max(2, int(scale * steps)), weight_decay=decay, patience=6),
                held_out=held_out,
                space="direction",
                seed=seed,
            )
            for name, head in bank.heads.items():
                members[name].append(head)
        print(f"heads of seed {seed} are fitted", flush=True)
    means = {name: mean_head(heads) for name, heads in members.items()}
    bank = AttributeBank(VOCABULARY, means, space="direction", generator=fingerprint)
    with torch.no_grad():
        return bank.with_reports(report_quality(bank.predict(data.latents[first:]), unseen, VOCABULARY, seen))


def mean_head(heads: Sequence[Head]) -> Head:
    """Return the mean of heads with one hidden layer as one head, with their hidden layers side by side."""
    share = 1 / len(heads)
    return Head(
        torch.cat([head.hidden_weight for head in heads]),
        torch.cat([head.hidden_bias for head in heads]),
        torch.cat([share * head.out_weight for head in heads], 1),
        share * torch.stack([head.skip_weight for head in heads]).sum(0),
        share * torch.stack([head.out_bias for head in heads]).sum(0),
        torch.stack([head.std for head in heads]).mean(),
    )
