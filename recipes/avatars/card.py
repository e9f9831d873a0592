"""Write the model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from energyql.attributes.quality import HeadReport
from energyql.files import write_text
from recipes.avatars.vocabulary import VOCABULARY

HEAD = """# avatars

A StyleGAN2 (skip architecture, 128 x 128, z 64, w 256) that draws cartoon avatars, with attribute heads that read the
direction of z, and an image judge. Made from nothing by `python -m recipes.avatars.make`.

## Data and licence

Drawings: the Avataaars library as packaged by `python-avatars` (MIT; the drawings are free for any use), composed by
the recipe. No photographs and no real people took part. Weights: Apache-2.0, like the code.

## How it was made

Each avatar is a set of choices made by smooth Gaussian scores of z. The synthesis network learned pictures from codes
of those scores (pixels, features of a network that reads avatars, and lightly that network's answers); the mapping
network that gives the same w from z was written down rather than trained. The judge is another network, with another
seed, architecture and augmentation, trained on rendered pictures only. The heads learned the judge's answers on
generated pictures: of the prior, and of what the default sampler found with earlier heads for random queries.

## Measures

The judge on 4,096 rendered pictures that it was not trained on, and the heads on held-out latents against the judge's
answers. Balanced accuracy; for continuous attributes, 1 - mean absolute error over the range.

| attribute | kind | judge | heads |
|---|---|---|---|
"""

TAIL = """
## Known faults

- A choice close to its threshold can be drawn half: faint glasses, a mouth between two shapes.
- Eyes cannot be seen behind dark lenses: `eyes` is then `hidden`. A hat hides a bald head: `bald` is then false.
- `smile` and `frown` follow the mouth, so `smile AND frown` is a contradiction, as are `bald AND hat`,
  `bald AND long_hair`, `sunglasses AND NOT glasses`.
- `hair` is read off the brows alone where a head is bald or under a hat, and beardless.
- Dependencies are built in: beards and moustaches are rare with long hair, gray hair goes with glasses and baldness.
"""


def write_card(folder: Path, judge: Mapping[str, float], heads: Mapping[str, HeadReport]) -> None:
    """Write `card.md`, with the measures of this run."""
    rows = []
    for name, spec in VOCABULARY.items():
        report = heads[name]
        score = 1 - report.details["error"] / (spec.high - spec.low) if spec.kind == "continuous" else report.score
        rows.append(f"| {name} | {spec.kind} | {judge[name]:.1%} | {'-' if score is None else f'{score:.1%}'} |")
    write_text(folder / "card.md", HEAD + "\n".join(rows) + "\n" + TAIL)
