"""Make the packaged model `avatars` from nothing: `python -m recipes.avatars.make`.

Every stage writes a file into the run folder; an interrupted run continues after the last finished stage.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from energyql.attributes.judge import Judge
from energyql.generators.families import read_generator
from energyql.generators.stylegan2 import StyleGAN2
from energyql.pipeline.model import Model, save_model
from energyql.sampling import prior_latents
from recipes.avatars.card import write_card
from recipes.avatars.drawing import Drawing
from recipes.avatars.factors import Z_DIM, Avatars, Factors
from recipes.avatars.heads import SEEDS, fit_heads
from recipes.avatars.judging import examine, train_judge
from recipes.avatars.labelling import Labeller
from recipes.avatars.mapping import shift_styles, write_mapping
from recipes.avatars.reader import PartReader, train_reader
from recipes.avatars.synthesis import CONFIG, Painter, Trainer

PACKAGED = Path(__file__).parents[2] / "energyql" / "models" / "avatars"
COARSE, FINE = 64, CONFIG.resolution


Network = TypeVar("Network", bound=nn.Module)


def stage(path: Path, empty: Callable[[], Network], train: Callable[[], Network]) -> Network:
    """Load the network in the file `path`, or train it and write the file."""
    if path.exists():
        network = empty()
        network.load_state_dict(torch.load(path, weights_only=True))
        return network.eval().requires_grad_(False)
    network = train()
    torch.save(network.state_dict(), path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)
    return network


def draw(factors: Factors, drawing: Drawing, batch: int, generator: torch.Generator) -> tuple[Tensor, Avatars]:
    """Render a batch of avatars."""
    avatars = factors(torch.randn(batch, Z_DIM, generator=generator))
    return drawing.compose(avatars.parts, avatars.paints), avatars


def train_generator(folder: Path, reader: PartReader, steps: tuple[int, int]) -> Painter:
    """Train coarse pictures from codes, compute the mapping network to these codes, train fine pictures from z."""
    coarse = Trainer(folder, reader, COARSE, steps[0])
    coarse.run()
    painter = coarse.averaged()
    shift_styles(painter)
    assert isinstance(painter.encoder, nn.Linear)
    mapping = write_mapping(painter.encoder, coarse.factors)
    fine = Trainer(folder, reader, FINE, steps[1], start=painter.state_dict(), mapping=mapping, lr=2e-3)
    fine.run()
    return fine.averaged()


@torch.no_grad()
def assemble(painter: Painter) -> StyleGAN2:
    """Return the generator, with its mean w, and without noise, which avatars do not need."""
    generator = StyleGAN2(CONFIG)
    generator.mapping.load_state_dict(painter.encoder.state_dict())
    generator.mapping.w_avg.copy_(generator.encode(prior_latents(0, 0, 65536, Z_DIM)).mean(0))
    generator.synthesis.load_state_dict(painter.synthesis.state_dict())
    for name, buffer in generator.named_buffers():
        if name.endswith("noise_const"):
            buffer.zero_()
    return generator.eval().requires_grad_(False)


def make(folder: Path, out: Path, *, scale: float = 1.0) -> None:
    """Run all stages.

    Args:
        folder: the files of the stages.
        out: the model folder.
        scale: multiplies the length of every stage; a value far below 1 only tests that the recipe runs.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def steps(count: int) -> int:
        return max(2, int(count * scale))

    factors = Factors()
    coarse = partial(draw, factors, Drawing(COARSE))
    reader = stage(folder / "reader.pt", PartReader, lambda: train_reader(coarse, steps(1200)))
    painter = train_generator(folder, reader, (steps(5000), steps(6700)))
    fingerprint = save_model(out, "avatars", assemble(painter))
    generator = read_generator(out)  # as shipped, in half precision
    fine = partial(draw, factors, Drawing(FINE))
    if not (out / "judge.json").exists():
        judge = train_judge(fine, steps=steps(2500))
        examine(judge, fine)
        judge.save(out)
    judge = Judge.load(out)
    labeller = Labeller(generator, judge)
    prior = labeller.label_prior(folder / "prior", steps(96000))
    first = Model("avatars", generator, fit_heads(prior, None, fingerprint, scale=scale, seeds=SEEDS[:1]))
    found = labeller.label_found(folder / "found", first, steps(4800))
    bank = fit_heads(prior, found, fingerprint, scale=scale)
    bank.save(out)
    write_card(out, examine(judge, fine, seed=909), bank.reports)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/avatars"), help="folder for the files of the stages")
    parser.add_argument("--out", type=Path, default=PACKAGED, help="the model folder")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the length of every stage")
    arguments = parser.parse_args()
    make(arguments.run, arguments.out, scale=arguments.scale)
