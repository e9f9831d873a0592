"""The model card, and sheets of pictures."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from energyql.attributes.judge import Judge
from energyql.attributes.quality import HeadReport
from energyql.numerics.shapes import Float
from recipes.digits.data import SIDE, VOCABULARY, Kind

ENLARGED, FRAME = 4, 1
NETWORKS = {
    "gan": "A StyleGAN2 (8 x 8, z 32, w 64) trained against a discriminator with the non-saturating loss and R1; the\n"
    "weights are a moving average.",
    "vae": "A variational autoencoder (z 16) without a mapping network: w is z.",
    "hierarchical": "A variational autoencoder of two levels in the manner of NVAE: z1 has 8 numbers, z2 given z1 has\n"
    "32. z is the noise of both, N(0, I), and w is (z1, z2).",
}
LOADING = {
    "gan": """`discriminator.safetensors` holds the discriminator. Its score is the log odds that a picture is real; it
was trained on pictures of which 60 % were turned, sheared, zoomed or shifted a little.

```python
from pathlib import Path
from recipes.digits.networks import read_discriminator

odds = read_discriminator(Path("runs/digits/gan"))(images)  # (n, 1, 8, 8) in [-1, 1] -> (n,)
```
""",
    "vae": """The generator is code, which the folder only names:

```sh
ENERGYQL_DIGITS=runs/digits energyql generate "digit = seven" --model runs/digits/{kind} --allow-plugins
```
""",
}
LOADING["hierarchical"] = LOADING["vae"]
CARD = """# digits: {kind}

{network}
Made by `python -m recipes.digits.make --kind {kind}` from 1,400 of the 1,797 digits in scikit-learn, which come from
"Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998, UCI, CC BY 4.0). Weights: Apache-2.0, like the
code.

![100 pictures of the prior](sample.png)

{loading}
## Attributes

`digit` is one of zero to nine, `thickness` the mean width of the strokes in pixels, `slant` the lean to the right. A
network that learned 700 real digits labelled 10,000 pictures for the heads; the two numbers are plain functions of a
picture. The judge is a network of the same kind with another seed, which learned 700 other real digits, and no
generated picture. Labeller and judge are measured on the 397 real digits that no network learned from, the heads on
pictures of the prior that they did not learn from, by the labels of the labeller. Balanced accuracy; R2 for numbers.

| attribute | labeller | judge | heads |
|---|---|---|---|
{rows}
"""


def card(kind: Kind, heads: Mapping[str, HeadReport], labeller: Judge, judge: Judge) -> str:
    """Return the model card of a kind of model."""
    columns = (labeller.report, judge.report, heads)
    rows = "\n".join(f"| {name} | {' | '.join(_score(column[name]) for column in columns)} |" for name in VOCABULARY)
    return CARD.format(kind=kind, network=NETWORKS[kind], loading=LOADING[kind].replace("{kind}", kind), rows=rows)


def _score(report: HeadReport) -> str:
    return "-" if report.score is None else f"{report.score:.3f}"


def sheet(images: Float[Tensor, "n 1 8 8"], columns: int = 10) -> Image.Image:
    """Return pictures in rows, enlarged."""
    with torch.no_grad():
        framed = F.pad(images.clamp(-1, 1), (FRAME,) * 4, value=-1)
    rows = framed.reshape(-1, columns, SIDE + 2 * FRAME, SIDE + 2 * FRAME).permute(0, 2, 1, 3)
    pixels = ((rows.flatten(0, 1).flatten(1) + 1) * 127.5).round().byte().numpy()
    picture = Image.fromarray(pixels)
    return picture.resize((ENLARGED * picture.width, ENLARGED * picture.height), Image.Resampling.BICUBIC)
