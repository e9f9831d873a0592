"""Make a model of handwritten digits: `python -m recipes.digits.make --kind gan`, `vae` or `hierarchical`.

The data are the 1,797 pictures of 8 x 8 pixels in scikit-learn. An interrupted run continues.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import torch

from energyql.attributes.heads import AttributeBank
from energyql.attributes.judge import Judge
from energyql.attributes.quality import FIRST, HeadReport
from energyql.cli.failures import reporting_failures
from energyql.errors import ArgumentError
from energyql.files import read_json, write_json, write_picture, write_tensors, write_text
from energyql.generators.base import Generator
from energyql.generators.families import CONFIG, read_generator, save_model
from energyql.pipeline.model import save_named_model
from energyql.progress import Report, reporting
from energyql.sampling import prior_latents
from energyql.training.heads import HeadSettings
from energyql.training.run import train_attributes
from recipes.digits.card import card, sheet
from recipes.digits.data import JUDGE, LABELLER, VOCABULARY, Kind
from recipes.digits.factories import DEFAULT, MODELS
from recipes.digits.networks import DISCRIMINATOR, VAES, WEIGHTS, read_vae
from recipes.digits.readers import Labeller, train_reader
from recipes.digits.training import train_gan, train_vae

PICTURES = 10_000
HEADS = HeadSettings(hidden=96, steps=2000, batch=512, lr=4e-3, weight_decay=0.1)
SPACES = {"gan": "w", "vae": "z", "hierarchical": "w"}
"""The latent that the heads of a model read."""
BANK = "vocabulary.json"
"""The file that a model folder has once it has heads."""
STATES = "states"
"""Subfolder of the networks that read pictures and of the states of trainings."""
LENGTH = "scale.json"
"""The file there that says how long the trainings are."""


def make(kind: Kind, out: Path, *, scale: float = 1.0, progress: bool = True) -> None:
    """Run all stages.

    Args:
        kind: "gan", "vae" or "hierarchical".
        out: the folder of all models; this one is written to `out / kind`.
        scale: multiplies the length of every stage; a value far below 1 only tests that the recipe runs.
        progress: show progress bars.

    Raises:
        ArgumentError: the folder was begun with another scale.
    """
    folder, states = out / kind, out / STATES
    check_scale(out, scale)
    with reporting(progress) as report:
        train_generator(kind, folder, states, scale, report)
        labeller, judge = (
            train_reader(part, states, scale, lambda done, part=part: report(part, done))  # type: ignore[misc]
            for part in (LABELLER, JUDGE)
        )
    generator = read_made(kind, folder)
    heads = fit_heads(generator, folder, states, SPACES[kind], scale=scale, progress=progress)
    with torch.no_grad():
        images = generator.synthesize(generator.encode(prior_latents(0, 0, 100, generator.z_dim)))
    write_picture(folder / "sample.png", sheet(images))
    write_text(folder / "card.md", card(kind, heads, labeller, judge))


def check_scale(out: Path, scale: float) -> None:
    """Record the scale of a new folder, or check that an older one has the same: what is made there is kept.

    Raises:
        ArgumentError: it has another.
    """
    path = out / STATES / LENGTH
    if not path.is_file():  # a folder from before there was a record is one of full length
        write_json(path, {"scale": 1.0 if path.parent.is_dir() else scale})
    if (known := read_json(path).get("scale")) != scale:
        raise ArgumentError(
            f"{out} was begun with scale {known}, not {scale}", hint="choose another --out, or remove the folder"
        )


def train_generator(kind: Kind, folder: Path, states: Path, scale: float, report: Report) -> None:
    """Train the generator and save it, if the folder has none."""
    if (folder / CONFIG).is_file():
        return
    name = f"digits-{kind}"
    if kind == "gan":
        stylegan, discriminator = train_gan(states, scale, lambda done: report(kind, done))
        write_tensors(folder / DISCRIMINATOR, discriminator.state_dict())
        save_model(folder, name, stylegan, dtype=torch.float32)
    else:
        network = train_vae(kind, states, scale, lambda done: report(kind, done))
        write_tensors(folder / WEIGHTS, network.state_dict())
        save_named_model(folder, name, f"recipes.digits.factories:{kind}")


def read_made(kind: Kind, folder: Path) -> Generator:
    """Return the generator in the folder of a model."""
    return read_generator(folder) if kind == "gan" else read_vae(folder, kind)


def fit_heads(
    generator: Generator, folder: Path, states: Path, space: str, *, scale: float = 1.0, progress: bool = True
) -> Mapping[str, HeadReport]:
    """Fit heads on a space to pictures that the labeller labels, and put the judge beside them; return their reports.

    Heads that the folder has are not fitted again.
    """
    if not (folder / BANK).is_file():
        train_attributes(
            generator,
            Labeller(Judge.load(states, LABELLER)),
            folder,
            vocabulary=VOCABULARY,
            n=max(400, int(scale * PICTURES)),
            space=space,
            truncation=1.0,
            judge=None,
            settings=dataclasses.replace(HEADS, steps=max(2, int(scale * HEADS.steps))),
            progress=progress,
        )
    if not (folder / f"{FIRST}.json").is_file():  # also after an interruption between heads and judge
        Judge.load(states, JUDGE).save(folder)
    return AttributeBank.load(folder).reports


def main() -> None:
    """Run the command line."""
    with reporting_failures():
        run()


def run() -> None:
    """Read the arguments and make the model that they name.

    Raises:
        EnergyQLError: it cannot be made there.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=get_args(Kind), required=True)
    parser.add_argument("--out", type=Path, default=DEFAULT, help=f"folder of all models, {DEFAULT} by default")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the length of every stage")
    arguments = parser.parse_args()
    if not 0 < arguments.scale < math.inf:
        parser.error(f"--scale must be a finite number above 0, not {arguments.scale}")
    torch.set_num_threads(1)  # more are slower for networks as small as these
    make(arguments.kind, arguments.out, scale=arguments.scale)
    print(f"Made {arguments.out / arguments.kind}")
    if arguments.kind in VAES:
        print(f"Its generator is code: {MODELS}={arguments.out} energyql generate ... --allow-plugins finds it")


if __name__ == "__main__":
    main()
