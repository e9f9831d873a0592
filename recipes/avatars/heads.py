"""Label the generator's own pictures with the judge, and fit the attribute heads to the labels."""

from __future__ import annotations

import torch
from torch import Tensor

from energyql.attributes.bank import AttributeBank
from energyql.attributes.predictions import Categorical, Continuous, Prediction
from energyql.attributes.training import HeadReport, train_heads
from energyql.evaluation.judge import Judge
from energyql.generators.stylegan2 import StyleGAN2
from energyql.sampling import prior_latents
from recipes.avatars.vocabulary import VOCABULARY

LATENT_SEED = 404
HIDDEN, WEIGHT_DECAY = 96, 0.75  # smooth heads guide better than accurate ones: see docs/decisions/avatar-codes.md


def label(prediction: Prediction) -> Tensor:
    """The judge's decision as a float: 0/1, class index or number, (batch,)."""
    if isinstance(prediction, Categorical):
        return prediction.logits.argmax(1).float()
    if isinstance(prediction, Continuous):
        return prediction.mean
    return (prediction.logit > 0).float()


@torch.no_grad()
def labelled_latents(generator: StyleGAN2, judge: Judge, count: int) -> tuple[Tensor, dict[str, Tensor]]:
    """z of `count` prior samples, and what the judge sees in their pictures."""
    latents, labels = [], []
    synthesize = torch.compile(generator.synthesis)
    for start in range(0, count, 64):
        z = prior_latents(LATENT_SEED, start, min(64, count - start), generator.z_dim)
        w = generator.encode(z)
        with torch.autocast("cpu", torch.bfloat16):
            images = synthesize(w)
        latents.append(z)
        labels.append({name: label(prediction) for name, prediction in judge(images.float()).items()})
        if start % 6400 == 0:
            print(f"labels {start}/{count}", flush=True)
    return torch.cat(latents), {name: torch.cat([part[name] for part in labels]) for name in VOCABULARY}


def fit_heads(
    generator: StyleGAN2, judge: Judge, fingerprint: str, *, count: int = 60000, steps: int = 5000
) -> tuple[AttributeBank, dict[str, HeadReport]]:
    """The attribute bank of the generator with that fingerprint.

    The heads read the direction of z: see docs/decisions/avatar-codes.md.
    """
    latents, labels = labelled_latents(generator, judge, count)
    return train_heads(
        latents,
        labels,
        VOCABULARY,
        hidden=HIDDEN,
        steps=steps,
        weight_decay=WEIGHT_DECAY,
        patience=6,
        space="direction",
        generator=fingerprint,
        seed=LATENT_SEED,
    )
