"""Make the packaged model `avatars` from nothing: `python -m recipes.avatars.make`.

Every stage writes a file into the run folder; an interrupted run continues after the last finished stage.
"""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from energyql.attributes.judge import Judge
from energyql.generators.families import read_generator
from energyql.generators.stylegan2 import StyleGAN2, SynthesisNetwork
from energyql.pipeline.model import save_model
from energyql.sampling import prior_latents
from recipes.avatars.card import write_card
from recipes.avatars.drawing import Drawing
from recipes.avatars.factors import Z_DIM, Avatars, Factors
from recipes.avatars.heads import fit_heads
from recipes.avatars.judging import SIDE, examine, fit_numbers, train_judge
from recipes.avatars.mapping import shift_styles, write_mapping
from recipes.avatars.measures import measure
from recipes.avatars.synthesis import CONFIG, STAGES, Trainer

PACKAGED = Path(__file__).parents[2] / "energyql" / "models" / "avatars"


def draw(factors: Factors, drawing: Drawing, batch: int, generator: torch.Generator) -> tuple[Tensor, Avatars]:
    """Render a batch of avatars."""
    avatars = factors(torch.randn(batch, Z_DIM, generator=generator))
    return drawing.compose(avatars.parts, avatars.paints), avatars


def train_synthesis(folder: Path, scale: float, device: str) -> SynthesisNetwork:
    """Train all stages, each from the one before."""
    network: SynthesisNetwork | None = None
    for stage in STAGES:
        start = None if network is None else network.state_dict()
        steps = max(2, int(stage.steps * scale))
        trainer = Trainer(folder, dataclasses.replace(stage, steps=steps), start=start, device=device)
        trainer.run()
        network = trainer.averaged()
    assert network is not None
    return network


@torch.no_grad()
def assemble(synthesis: SynthesisNetwork) -> StyleGAN2:
    """Return the generator, with its mean w, and without noise, which avatars do not need."""
    generator = StyleGAN2(CONFIG)
    generator.mapping.load_state_dict(write_mapping(CONFIG, Factors()).state_dict())
    generator.mapping.w_avg.copy_(generator.encode(prior_latents(0, 0, 65536, Z_DIM)).mean(0))
    generator.synthesis.load_state_dict(synthesis.state_dict())
    shift_styles(generator.synthesis)
    for name, buffer in generator.named_buffers():
        if name.endswith("noise_const"):
            buffer.zero_()
    return generator.eval().requires_grad_(False)


def make(folder: Path, out: Path, *, scale: float = 1.0, device: str = "cpu", trained: Path | None = None) -> None:
    """Run all stages.

    Args:
        folder: the files of the stages.
        out: the model folder.
        scale: multiplies the length of every stage; a value far below 1 only tests that the recipe runs.
        device: where the synthesis network is trained.
        trained: a model folder whose generator is taken instead of training one.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def steps(count: int) -> int:
        return max(2, int(count * scale))

    # Float32, since in half precision the steps of the mapping network would be a little off.
    generator = assemble(train_synthesis(folder, scale, device)) if trained is None else read_generator(trained)
    fingerprint = save_model(out, "avatars", generator, dtype=torch.float32)
    generator = read_generator(out)  # as shipped
    rendered = partial(draw, Factors(), Drawing(SIDE))
    if not (out / "judge.json").exists():
        judge = train_judge(rendered, steps=steps(2500))
        fit_numbers(judge, rendered)
        examine(judge, rendered)
        judge.save(out)
    judge = Judge.load(out)
    bank = fit_heads(fingerprint, scale=scale)
    bank.save(out)
    write_card(out, examine(judge, rendered, seed=909), bank.reports, measure(generator, judge))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/avatars"), help="folder for the files of the stages")
    parser.add_argument("--out", type=Path, default=PACKAGED, help="the model folder")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the length of every stage")
    parser.add_argument("--device", default="cpu", help="where to train pictures: cpu or cuda")
    parser.add_argument("--generator", type=Path, help="a model folder whose generator is taken, not trained")
    arguments = parser.parse_args()
    make(arguments.run, arguments.out, scale=arguments.scale, device=arguments.device, trained=arguments.generator)
