"""A random model with the attributes of the packaged avatars, for what asks for them and is no better by real ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from toys import CONFIG, random_generator, random_heads

from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.attributes.judge import Convolutions, Judge
from energyql.generators.families import save_model
from energyql.models import read_vocabulary


def random_avatars(folder: Path, side: int = 16) -> Path:
    """Write the model, whose pictures have a side of so many pixels."""
    vocabulary, config = read_vocabulary("avatars"), dataclasses.replace(CONFIG, resolution=side)
    fingerprint = save_model(folder, "tiny", random_generator(config))
    bank = AttributeBank(vocabulary, random_heads(vocabulary, config.w_dim), fitted=FittedUnder(generator=fingerprint))
    bank.save(folder)
    Judge(vocabulary, Convolutions(16, (4, 6))).eval().save(folder)
    return folder
