"""From an official file to pictures of a query by commands alone, for generators without a mapping network."""

import json
import sys

import numpy as np
import pytest
import torch
from commands import CHECKPOINTS
from PIL import Image

from energyql.generators.load import load_generator

LOOK = """
def look(images):
    images = images.clamp(-1, 1)
    return {{"bright": images.mean((1, 2, 3)) > {bright}, "even": images.std((1, 2, 3)) < {even}}}
"""
"""Labels of pictures in [-1, 1]; the limits are medians, so that half of the pictures are of each class."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "condition"), [("projected-gan", "fastgan", None), ("r3gan-conditional", "r3gan", 1)]
)
def test_convert_train_and_generate(main, tmp_path, monkeypatch, name, kind, condition):
    converted, model, result = (tmp_path / folder for folder in ("converted", "model", "result"))
    code, _, error = main("convert", CHECKPOINTS / f"{name}.pkl", "--out", converted)
    assert code == 0, error

    generator = load_generator(converted)
    under = {} if condition is None else {"condition": torch.eye(generator.c_dim)[condition].expand(100, -1)}
    z = torch.randn(100, generator.z_dim, generator=torch.Generator().manual_seed(0))
    images = generator.synthesize(generator.encode(z, **under)).clamp(-1, 1)
    limits = {"bright": images.mean((1, 2, 3)).median().item(), "even": images.std((1, 2, 3)).median().item()}
    (tmp_path / f"look_{kind}.py").write_text(LOOK.format(**limits))
    monkeypatch.syspath_prepend(tmp_path)
    code, _, error = main(
        "train", converted, "--labeller", f"look_{kind}:look", "-n", 600, "--steps", 400, "--hidden", 16,
        "--judge", "none", "--out", model, *(() if condition is None else ("--condition", condition)),
    )  # fmt: skip
    assert code == 0, error
    config = json.loads((model / "config.json").read_text())
    assert (config["generator"]["kind"], config["truncation"]) == (kind, 1.0)

    code, _, error = main("generate", "bright AND NOT even", "--model", model, "-n", 12, "--out", result)
    assert code == 0, error
    pictures = np.stack([np.asarray(Image.open(path)) for path in sorted(result.glob("0*.png"))])
    truth = sys.modules[f"look_{kind}"].look(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1)
    assert len(pictures) == 12
    assert int((truth["bright"] & ~truth["even"]).sum()) >= 10  # of 12; a quarter at random
