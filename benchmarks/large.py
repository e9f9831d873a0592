"""A model of StyleGAN2-FFHQ's size for timing: its mapping network, random, and 17 heads of LACE's size, trained.

Labels are made here: each attribute depends on directions of w of its own. The heads are trained on them as LACE trains
its heads, so they have the published size and predictions as confident as real ones, and queries can be satisfied.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.heads import LACE_SIZES, lace_head
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank, Head
from energyql.errors import EnergyQLError
from energyql.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from energyql.pipeline.model import Model
from energyql.progress import Report
from energyql.training.foreign import LACE_STD
from energyql.vocabulary import AttributeSpec, Vocabulary

TRUNCATION = 0.7
"""That of the published conditional samples."""
SHARES = {"a1": 0.5, "a2": 0.35, "a3": 0.35, "a4": 0.25, "a5": 0.5, "a6": 0.4, "a7": 0.5, "a8": 0.3}
"""Share of yes of each yes/no attribute."""
VOCABULARY = Vocabulary(
    [
        *(AttributeSpec(name, "yes/no") for name in SHARES),
        *(AttributeSpec(f"c{i}", "categorical", values=("x", "y", "z", "u", "v")) for i in (1, 2)),
        *(AttributeSpec(f"n{i}", "continuous") for i in range(1, 8)),
    ]
)
COUNT, HELD_OUT, EPOCHS = 10_000, 1_000, 15
SMOKE_COUNT, SMOKE_HELD_OUT, SMOKE_EPOCHS = 600, 100, 1
SEED = 2026


def large_model(resolution: int, folder: Path, report: Report, *, smoke: bool = False) -> Model:
    """Return the model, in memory; heads that an earlier run trained are read from the folder.

    Args:
        resolution: of the pictures. At 1024 the synthesis network is that of configuration F; at 8 there is hardly
            any, for timings without pictures. The mapping network and the heads are the same.
        folder: where trained heads are kept.
        report: called with the stage "heads".
        smoke: few latents and one epoch, in a small latent space: only that it runs.
    """
    size = 16 if smoke else 512
    config = StyleGAN2Config(
        resolution=resolution, z_dim=size, w_dim=size, mapping_layers=2 if smoke else 8,
        channel_max=512 if resolution > 8 else 8,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        mapping = StyleGAN2(StyleGAN2Config(resolution=8, z_dim=size, w_dim=size, mapping_layers=config.mapping_layers))
        generator = StyleGAN2(config).eval().requires_grad_(False)
        generator.mapping.load_state_dict(mapping.mapping.state_dict())  # the same at every resolution
        z = torch.randn(SMOKE_COUNT if smoke else COUNT, size)
        generator.mapping.w_avg.copy_(generator.encode(z).mean(0))
        w = generator.encode(z, TRUNCATION)
    place = folder / ("heads-smoke" if smoke else "heads")
    try:
        bank = AttributeBank.load(place)
    except EnergyQLError:
        held_out, epochs = (SMOKE_HELD_OUT, SMOKE_EPOCHS) if smoke else (HELD_OUT, EPOCHS)
        bank = train(w, held_out, epochs, report)
        bank.save(place)
    return Model(f"StyleGAN2, {resolution}", generator, bank, None, TRUNCATION)


def train(w: Tensor, held_out: int, epochs: int, report: Report) -> AttributeBank:
    """Train heads of LACE's size as LACE does, on labels that are made here; the last rows are held out."""
    labels = made_labels(w)
    split = len(w) - held_out
    heads = {}
    for i, (name, spec) in enumerate(VOCABULARY.items()):
        network = lace_head(w, labels[name], split, spec, epochs, SEED + i)
        heads[name] = _as_head(network, spec)
        report("heads", (i + 1) / len(VOCABULARY))
    return AttributeBank(VOCABULARY, heads, fitted=FittedUnder("w", (TRUNCATION, TRUNCATION)))


def made_labels(w: Tensor) -> dict[str, Tensor]:
    """Return labels of all attributes, by directions of w, (count,) each."""
    random = torch.Generator().manual_seed(SEED)

    def trait() -> Tensor:
        value = (w - w.mean(0)) @ torch.randn(w.shape[1], generator=random)
        return value / value.std()

    labels: dict[str, Tensor] = {}
    for name, spec in VOCABULARY.items():
        if spec.kind == "yes/no":
            value = trait()
            labels[name] = (value > value.quantile(1 - SHARES[name])).float()
        elif spec.kind == "categorical":
            labels[name] = torch.stack([trait() for _ in spec.values], 1).argmax(1).float()
        else:
            labels[name] = torch.sigmoid(1.5 * trait())
    return labels


@torch.no_grad()
def _as_head(network: nn.Sequential, spec: AttributeSpec) -> Head:
    """Return the network as a head: two outputs for yes and no become their difference."""
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    out, bias = layers[-1].weight.detach().clone(), layers[-1].bias.detach().clone()
    if spec.kind == "yes/no":
        out, bias = out[1:] - out[:1], bias[1:] - bias[:1]
    std = torch.tensor(LACE_STD if spec.kind == "continuous" else 1.0)
    hidden = [(layer.weight.detach().clone(), layer.bias.detach().clone()) for layer in layers[:-1]]
    assert tuple(len(bias) for _, bias in hidden) == LACE_SIZES
    return Head(
        hidden_weight=hidden[0][0], hidden_bias=hidden[0][1], out_weight=out,
        skip_weight=torch.zeros(len(out), hidden[0][0].shape[1]), out_bias=bias, std=std, deeper=tuple(hidden[1:]),
    )  # fmt: skip
