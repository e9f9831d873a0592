"""How close generated pictures are to the renderings of the same latents, and whether the judge sees what was meant."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from energyql.attributes.judge import Judge
from energyql.attributes.predictions import Categorical, YesNo
from energyql.generators.base import Generator
from energyql.sampling import prior_latents
from recipes.common.domain import Domain
from recipes.common.factors import Factors, Scenes
from recipes.common.labelling import label_tensors
from recipes.common.sharpness import Sharpness, compare

SEED = 909
BATCH = 32
COLUMNS = 8


@dataclass(frozen=True)
class Measures:
    """Measures on latents that no training used.

    Attributes:
        closeness: of all pictures to their renderings.
        watched: the same, of pictures with the attribute that the domain watches.
        seen: share of pictures in which the judge sees every choice that was meant.
        rendered: pictures in [-1, 1] of the first latents, (`COLUMNS`, 3, side, side).
        drawn: the same latents by the generator.
    """

    closeness: Sharpness
    watched: Sharpness
    seen: float
    rendered: Tensor
    drawn: Tensor

    def side_by_side(self) -> Tensor:
        """Return a picture with renderings above and generated pictures below, (3, 2 sides, columns x side)."""
        return torch.cat([torch.cat(list(row), 2) for row in (self.rendered, self.drawn)], 1)


@torch.no_grad()
def measure(domain: Domain, generator: Generator, judge: Judge, count: int = 512) -> Measures:
    """Draw and render the same latents, and read the drawn pictures."""
    factors, drawing = Factors(domain), domain.drawing(domain.config.resolution)
    found, right, watched = [], [], []
    first: tuple[Tensor, Tensor] | None = None
    for z in prior_latents(SEED, 0, count, generator.z_dim).split(BATCH):
        scenes = factors(z)
        rendered = drawing.compose(scenes.parts, scenes.paints)
        drawn = generator.synthesize(generator.encode(z))
        found.append(compare(drawn, rendered))
        right.append(_seen(judge, drawn, scenes))
        watched.append(scenes.labels[domain.watched])
        first = first or (rendered[:COLUMNS], drawn[:COLUMNS])
    assert first is not None
    psnr, energy = (torch.cat([getattr(each, name) for each in found]) for name in ("psnr", "energy"))
    rows = torch.cat(watched)
    return Measures(
        Sharpness(psnr, energy), Sharpness(psnr[rows], energy[rows]), torch.cat(right).float().mean().item(), *first
    )


def _seen(judge: Judge, drawn: Tensor, scenes: Scenes) -> Tensor:
    """Return whether the judge sees every choice, (batch,) bool; numbers are no choices."""
    labels = label_tensors(scenes.labels, judge.vocabulary)
    seen = torch.ones(len(drawn), dtype=torch.bool)
    for name, read in judge(drawn).items():
        if isinstance(read, YesNo):
            seen &= (read.logit > 0) == labels[name].bool()
        elif isinstance(read, Categorical):
            seen &= read.logits.argmax(1) == labels[name].long()
    return seen
