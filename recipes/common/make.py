"""Make the model folder of a domain from nothing.

Every stage writes a file into the run folder; an interrupted run continues after the last finished stage.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import torch

from energyql.attributes.judge import Judge
from energyql.generators.families import read_generator, save_model
from energyql.generators.stylegan2 import StyleGAN2, SynthesisNetwork
from energyql.sampling import prior_latents
from recipes.common.card import write_card
from recipes.common.domain import Domain
from recipes.common.factors import Factors
from recipes.common.heads import fit_heads
from recipes.common.judging import examine, fit_numbers, renderer, train_judge
from recipes.common.mapping import shift_styles, write_mapping
from recipes.common.measures import measure
from recipes.common.synthesis import Trainer

PACKAGED = Path(__file__).parents[2] / "energyql" / "models"
JUDGE_STEPS = 4000
BEYOND = 0.5
"""Share of the judge's pictures of latents beyond the prior."""


def train_synthesis(domain: Domain, folder: Path, scale: float, device: str) -> SynthesisNetwork:
    """Train all stages, each from the one before."""
    network: SynthesisNetwork | None = None
    for stage in domain.stages:
        start = None if network is None else network.state_dict()
        steps = max(2, int(stage.steps * scale))
        trainer = Trainer(domain, folder, dataclasses.replace(stage, steps=steps), start=start, device=device)
        trainer.run()
        network = trainer.averaged()
    assert network is not None
    return network


@torch.no_grad()
def assemble(domain: Domain, synthesis: SynthesisNetwork) -> StyleGAN2:
    """Return the generator, with its mean w, and without noise, which drawings do not need."""
    generator = StyleGAN2(domain.config)
    generator.mapping.load_state_dict(write_mapping(Factors(domain)).state_dict())
    generator.mapping.w_avg.copy_(generator.encode(prior_latents(0, 0, 65536, domain.config.z_dim)).mean(0))
    generator.synthesis.load_state_dict(synthesis.state_dict())
    shift_styles(generator.synthesis, domain)
    for name, buffer in generator.named_buffers():
        if name.endswith("noise_const"):
            buffer.zero_()
    return generator.eval().requires_grad_(False)


def make(
    domain: Domain,
    folder: Path,
    out: Path,
    *,
    scale: float = 1.0,
    device: str = "cpu",
    trained: Path | None = None,
) -> None:
    """Run all stages.

    Args:
        domain: what is drawn.
        folder: the files of the stages.
        out: the model folder.
        scale: multiplies the length of every stage; a value far below 1 only tests that the recipe runs.
        device: where the synthesis network is trained.
        trained: a model folder whose generator is taken instead of training one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Float32, since in half precision the steps of the mapping network would be a little off.
    generator = (
        assemble(domain, train_synthesis(domain, folder, scale, device)) if trained is None else read_generator(trained)
    )
    fingerprint = save_model(out, domain.name, generator, dtype=torch.float32)
    generator = read_generator(out)  # as shipped
    rendered = renderer(domain)
    if not (out / "judge.json").exists():
        wider = renderer(domain, BEYOND)
        judge = train_judge(domain, wider, steps=max(2, int(JUDGE_STEPS * scale)))
        fit_numbers(judge, wider)
        examine(judge, rendered)
        judge.save(out)
    judge = Judge.load(out)
    bank = fit_heads(domain, fingerprint, scale=scale)
    bank.save(out)
    write_card(domain, out, examine(judge, rendered, seed=909), bank.reports, measure(domain, generator, judge))


def main(domain: Domain, description: str) -> None:
    """Run the command line of a recipe."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--run", type=Path, default=Path("runs") / domain.name, help="folder for the files of the stages"
    )
    parser.add_argument("--out", type=Path, default=PACKAGED / domain.name, help="the model folder")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the length of every stage")
    parser.add_argument("--device", default="cpu", help="where to train pictures: cpu or cuda")
    parser.add_argument("--generator", type=Path, help="a model folder whose generator is taken, not trained")
    arguments = parser.parse_args()
    make(
        domain,
        arguments.run,
        arguments.out,
        scale=arguments.scale,
        device=arguments.device,
        trained=arguments.generator,
    )
