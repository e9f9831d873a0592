"""Write the model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from energyql.attributes.quality import HeadReport
from energyql.files import write_picture, write_text
from energyql.render.pictures import to_pictures
from recipes.avatars.measures import Measures
from recipes.avatars.vocabulary import VOCABULARY

HEAD = """# avatars

A StyleGAN2 (skip architecture, 256 x 256, z 64, w 256) that draws cartoon avatars, with attribute heads that read the
direction of z, and an image judge. Made from nothing by `python -m recipes.avatars.make`.

![Renderings above, generated pictures of the same latents below](side-by-side.png)

Above renderings of eight latents, below the generated pictures of the same latents.

## Data and licence

Drawings: the Avataaars library as packaged by `python-avatars` (MIT; the drawings are free for any use), composed by
the recipe. No photographs and no real people took part. Weights: Apache-2.0, like the code.

## How it was made

Each avatar is a set of choices made by smooth Gaussian scores of z. The synthesis network learned pictures pixel by
pixel from codes that name every drawing; the mapping network that gives the same codes from z was written down rather
than trained. The judge is a network that learned from rendered pictures only, and the heads learned the choices that
latents make: neither saw an answer of the other, or a generated picture.

## Measures

"""

TABLE = """
The judge on 4,096 rendered pictures that it was not trained on, and the heads on 20,000 latents that they did not learn
from. Balanced accuracy; for continuous attributes, 1 - mean absolute error over the range.

| attribute | kind | judge | heads |
|---|---|---|---|
"""

TAIL = """
## Known faults

- Two of 100 pictures lie so close to a threshold that they show a blend of two drawings.
- Eyes cannot be seen behind dark lenses: `eyes` is then `hidden`. Under a hat no head is bald: hair shows below
  it. On a bald head `hair` is `absent`.
- `smile` and `frown` follow the mouth, so `smile AND frown` is a contradiction, as are `bald AND hat`,
  `bald AND long_hair`, `sunglasses AND NOT glasses`.
- Dependencies are built in: beards and moustaches are rare with long hair, gray hair goes with glasses and baldness,
  earrings go with long hair.
"""


def write_card(folder: Path, judge: Mapping[str, float], heads: Mapping[str, HeadReport], measures: Measures) -> None:
    """Write `card.md` and its picture, with the measures of this run."""
    rows = []
    for name, spec in VOCABULARY.items():
        report = heads[name]
        score = 1 - report.details["error"] / (spec.high - spec.low) if spec.kind == "continuous" else report.score
        rows.append(f"| {name} | {spec.kind} | {judge[name]:.1%} | {'-' if score is None else f'{score:.1%}'} |")
    count = len(measures.closeness.psnr)
    close = f"""Generated pictures beside the renderings of the same {count} latents, which no training used:

| pictures | medians, and 10th percentiles in brackets |
|---|---|
| all | {measures.closeness} |
| with hats | {measures.hats} |

Gradient energy is that of the generated picture over that of the rendering. The judge sees every choice that was meant
in {measures.seen:.1%} of the pictures.
"""
    write_picture(folder / "side-by-side.png", to_pictures(measures.side_by_side()[None])[0])
    write_text(folder / "card.md", HEAD + close + TABLE + "\n".join(rows) + "\n" + TAIL)
