"""A whole model in miniature, random but loadable, and what tests ask of pictures."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank, Head
from energyql.attributes.judge import Convolutions, Judge
from energyql.attributes.predictions import output_count
from energyql.generators.families import save_model
from energyql.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from energyql.vocabulary import AttributeSpec, Vocabulary

VOCABULARY = Vocabulary(
    [
        AttributeSpec("smile", "yes/no", description="corners of the mouth up"),
        AttributeSpec("hair", "categorical", values=("black", "brown", "dark red")),
        AttributeSpec("age", "continuous"),
        AttributeSpec("glasses", "yes/no"),
        AttributeSpec("beard", "yes/no"),
    ],
    model="tiny",
)
CONFIG = StyleGAN2Config(resolution=16, z_dim=8, w_dim=16, mapping_layers=2, channel_base=256, channel_max=8)


def random_heads(vocabulary: Vocabulary, latent_dim: int, *, hidden: int = 4, seed: int = 0) -> dict[str, Head]:
    """Heads whose outputs are about standard normal; means of continuous attributes lie around 0.5."""
    random = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=random) / columns**0.5

    heads = {}
    for name, spec in vocabulary.items():
        outputs, scale = output_count(spec), 0.2 if spec.kind == "continuous" else 2.0
        heads[name] = Head(
            hidden_weight=matrix(hidden, latent_dim),
            hidden_bias=torch.randn(hidden, generator=random),
            out_weight=scale * matrix(outputs, hidden),
            skip_weight=scale * matrix(outputs, latent_dim),
            out_bias=torch.full((outputs,), 0.5 if spec.kind == "continuous" else 0.0),
            std=torch.tensor(0.1 if spec.kind == "continuous" else 1.0),
        )
    return heads


def random_generator(config: StyleGAN2Config = CONFIG, *, seed: int = 0) -> StyleGAN2:
    """Every parameter and buffer is random, biases, noise strengths and the mean w included."""
    random = torch.Generator().manual_seed(seed)
    generator = StyleGAN2(config).eval().requires_grad_(False)
    for name, tensor in (*generator.named_parameters(), *generator.named_buffers()):
        if name.endswith("resample_filter"):
            continue
        drawn = torch.randn(tensor.shape, generator=random)
        if name.startswith("mapping.fc"):
            drawn /= config.mapping_lr_multiplier
        elif name.endswith(("bias", "strength", "w_avg")):
            drawn = 0.3 * drawn + float(name.endswith("affine.bias"))
        tensor.copy_(drawn)
    return generator


def lively_judge(generator: StyleGAN2, *, seed: int = 1) -> Judge:
    """A random network whose outputs have mean 0 and a spread of about 2 over the pictures; a number, 0.5 and 0.2."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        judge = Judge(VOCABULARY, Convolutions(16, (4, 6))).eval().requires_grad_(False)
        outputs = judge.features(generator.synthesize(generator.encode(torch.randn(256, generator.z_dim))))
        outputs = outputs @ judge.head.weight.T
        scales, middles = [], []
        for spec in VOCABULARY.values():
            number = spec.kind == "continuous"
            scales += output_count(spec) * [0.2 if number else 2.0]
            middles += output_count(spec) * [0.5 * number]
        scale = torch.tensor(scales) / outputs.std(0)
        judge.head.weight.mul_(scale[:, None])
        judge.head.bias.copy_(torch.tensor(middles) - outputs.mean(0) * scale)
        return judge.half().float()  # as it is saved


def tiny_model(
    folder: Path, *, judge: bool = True, space: str = "w", truncation: tuple[float, float] = (0.5, 1.0)
) -> Path:
    """Write a model folder with attributes of every kind; its own truncation is 0.7."""
    with torch.random.fork_rng(devices=[]):  # layers are made with global random numbers
        torch.manual_seed(0)
        fingerprint = save_model(folder, "tiny", random_generator(), truncation=0.7)
        heads = random_heads(VOCABULARY, CONFIG.w_dim if space == "w" else CONFIG.z_dim)
        AttributeBank(VOCABULARY, heads, fitted=FittedUnder(space, truncation, generator=fingerprint)).save(folder)
        if judge:
            Judge(VOCABULARY, Convolutions(16, (4, 6))).eval().save(folder)
    return folder


def pixels(pictures: list[Image.Image]) -> list[bytes]:
    """For comparison."""
    return [picture.tobytes() for picture in pictures]


class NeverSampler:
    """A sampler that must not run."""

    def sample(self, energy, z0, *, noise=None, progress=None):
        raise AssertionError("sampled")
