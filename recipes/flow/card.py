"""How well the flow draws what captions say, how well its readers read, and the card that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from diffusers import AutoencoderDC
from PIL.Image import Image
from torch import Tensor

from energyql.attributes.judge import Judge
from energyql.render.pictures import to_pictures
from recipes.avatars.vocabulary import VOCABULARY
from recipes.common.judging import examine
from recipes.flow.captions import PHRASES, captions, classes, stated
from recipes.flow.networks import LATENT, STEPS
from recipes.flow.readers import decoder
from recipes.flow.training import AT_ONCE, GUIDANCE, Bank, Flow, cross, decode, render

SEED = 909
TEACHER_STEPS = 16
"""Midpoint steps of the teacher."""
COLUMNS = 12
CARD = """# Flow

A rectified flow in the latents of an autoencoder that draws cartoon avatars, 64 x 64 pixels, from noise and a caption:
`flow` in {steps} steps, and `teacher`, from which it was distilled with guidance {guidance}. Both are folders of
diffusers (`SanaPipeline`). Made from nothing by `python -m recipes.flow`.

```python
pipe = DiffusionPipeline.from_pretrained("flow")
pipe("a person with glasses, red hair", num_inference_steps={steps}, guidance_scale=1, height=64, width=64,
     use_resolution_binning=False, complex_human_instruction=None, latents=torch.randn(1, {latent}))
```

![Renderings, pictures of the teacher, and pictures of the flow](sample.png)

Above renderings, below them pictures of the teacher and of the flow by a caption of each rendering:

{captions}

## Drawings

Drawings: the Avataaars library as packaged by `python-avatars` (MIT; the drawings are free for any use), composed by
the recipe `avatars`. Weights: Apache-2.0, like the code.

## Do pictures show what captions say?

Of {count} captions of held-out avatars: the share of stated facts that a reader sees, and of captions of which it sees
all facts.

| pictures | facts, guide | facts, judge | captions, guide | captions, judge |
|---|---|---|---|---|
{truth}

## Readers

`guide` and `judge` are two networks of other shapes, seeds and distortions. Balanced accuracy on 4,096 new renderings
and on as many held-out latents, decoded; for continuous attributes, 1 - mean absolute error over the range.

| attribute | guide, renderings | guide, decoded | judge, renderings | judge, decoded |
|---|---|---|---|---|
{readers}
"""


@dataclass(frozen=True)
class Measures:
    """Measures on avatars that no training used.

    Attributes:
        captions: of the pictures.
        pictures: "renderings" (decoded latents of renderings) or name of a flow -> pictures in [-1, 1].
        truth: name of pictures -> name of a reader -> share of the facts and of the captions that hold.
        accuracy: name of a reader -> "renderings" or "decoded" -> attribute -> accuracy.
    """

    captions: list[str]
    pictures: Mapping[str, Tensor]
    truth: Mapping[str, Mapping[str, tuple[float, float]]]
    accuracy: Mapping[str, Mapping[str, Mapping[str, float]]]


@torch.no_grad()
def draw(
    flow: Flow, network: AutoencoderDC, noise: Tensor, texts: list[str], *, steps: int, guidance: float = 1.0
) -> Tensor:
    """Return pictures in [-1, 1] of noise (n, *LATENT): by midpoint steps, or `STEPS` Euler steps.

    Args:
        flow: the flow.
        network: the autoencoder.
        noise: the noise.
        texts: captions.
        steps: midpoint steps; 0 for the steps of the distilled flow.
        guidance: scale of the guidance.
    """
    pictures = []
    for i in range(0, len(noise), AT_ONCE):
        x, some = noise[i : i + AT_ONCE], texts[i : i + AT_ONCE]
        one = torch.ones(len(x))
        if steps:
            x = cross(flow, x, one, 0 * one, some, steps, guidance)
        else:
            states, mask = flow.read(some)
            for k in range(STEPS):
                x = x - flow.velocity(x, one * (1 - k / STEPS), states, mask) / STEPS
        pictures.append(decode(network, x))
    return torch.cat(pictures)


def agreement(judge: Judge, pictures: Tensor, texts: list[str]) -> tuple[float, float]:
    """Return the share of the facts that captions state, and of the captions, that a judge sees in the pictures."""
    read = classes({name: prediction.number().float() for name, prediction in judge(pictures).items()})
    columns = list(PHRASES)
    right = [
        [read[i, columns.index(name)].item() == place for name, place in stated(text).items()]
        for i, text in enumerate(texts)
    ]
    facts = [one for row in right for one in row]
    return sum(facts) / max(1, len(facts)), sum(map(all, right)) / len(right)


def measure(
    flows: Mapping[str, Flow], network: AutoencoderDC, held_out: Bank, readers: Mapping[str, Judge], count: int
) -> Measures:
    """Return the measures of a teacher and a distilled flow, in this order, on captions of held-out avatars."""
    random = torch.Generator().manual_seed(SEED)
    texts = captions(held_out.facts[:count], random)
    count = len(texts)
    noise = torch.randn(count, *LATENT, generator=random)
    teacher, student = flows
    pictures = {
        "renderings": torch.cat([decode(network, part) for part in held_out.latents[:count].split(AT_ONCE)]),
        teacher: draw(flows[teacher], network, noise, texts, steps=TEACHER_STEPS, guidance=GUIDANCE),
        student: draw(flows[student], network, noise, texts, steps=0),
    }
    truth = {
        name: {reader: agreement(judge, drawn, texts) for reader, judge in readers.items()}
        for name, drawn in pictures.items()
    }
    sources = {"renderings": render, "decoded": decoder(network, held_out, 0.0)}
    accuracy = {
        reader: {name: examine(judge, source, count=8 * count, seed=SEED) for name, source in sources.items()}
        for reader, judge in readers.items()
    }
    return Measures(texts, pictures, truth, accuracy)


def sheet(measures: Measures) -> Image:
    """Return a picture with a row of each kind of pictures."""
    rows = [torch.cat(list(pictures[:COLUMNS]), 2) for pictures in measures.pictures.values()]
    return to_pictures(torch.cat(rows, 1)[None])[0]


def card(measures: Measures) -> str:
    """Return the text of the card."""
    truth = [
        f"| {name} | " + " | ".join(f"{each[k]:.1%}" for k in (0, 1) for each in by_reader.values()) + " |"
        for name, by_reader in measures.truth.items()
    ]
    readers = [
        f"| {name} | "
        + " | ".join(f"{scores.get(name, 0):.1%}" for by in measures.accuracy.values() for scores in by.values())
        + " |"
        for name in VOCABULARY
    ]
    return CARD.format(
        steps=STEPS,
        guidance=GUIDANCE,
        latent=", ".join(map(str, LATENT)),
        count=len(measures.captions),
        captions="\n".join(f"{i}. {text or '(none)'}" for i, text in enumerate(measures.captions[:COLUMNS], 1)),
        truth="\n".join(truth),
        readers="\n".join(readers),
    )
