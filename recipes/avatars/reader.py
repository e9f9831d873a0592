"""A network that predicts every part and paint of an avatar: its features give the perceptual loss.

It is not used as a judge, because the generator is trained against it. The packaged judge is another network, with
another seed, architecture and augmentation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recipes.avatars.drawing import PARTS
from recipes.avatars.factors import Avatars

SLOTS = {slot: len(names) for slot, names in PARTS.items() if len(names) > 1}
PAINTS = ("background", "skin", "clothing", "hat", "hair")


class PartReader(nn.Module):
    """Strided convolutions on 64 x 64 pictures.

    Args:
        channels: width of each level; every level halves the resolution.
    """

    def __init__(self, channels: tuple[int, ...] = (32, 64, 96, 128)) -> None:
        super().__init__()
        widths = (3, *channels)
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(widths[i], widths[i + 1], 3, padding=1), nn.BatchNorm2d(widths[i + 1]), nn.LeakyReLU(0.1),
            )
            for i in range(len(channels))
        )  # fmt: skip
        side = 64 >> len(channels)
        self.head = nn.Linear(channels[-1] * side * side, sum(SLOTS.values()) + 3 * len(PAINTS))

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the features of each level and the predictions (batch, outputs) of pictures in [-1, 1], side >= 64."""
        x = F.interpolate(images, size=(64, 64), mode="area") if images.shape[-1] != 64 else images
        features = []
        for level in self.levels:
            x = level(x)
            features.append(x)
            x = F.avg_pool2d(x, 2)
        return features, self.head(x.flatten(1))


def prediction_loss(predicted: Tensor, avatars: Avatars) -> tuple[Tensor, float]:
    """Return cross-entropy of the slots plus squared error of the visible paints, and the share of correct slots."""
    loss, right, start = predicted.new_zeros(()), 0.0, 0
    for slot, options in SLOTS.items():
        logits = predicted[:, start : start + options].float()
        loss = loss + F.cross_entropy(logits, avatars.parts[slot], label_smoothing=0.02)
        right += (logits.argmax(1) == avatars.parts[slot]).float().mean().item() / len(SLOTS)
        start += options
    target = torch.cat([avatars.paints[name] for name in PAINTS], 1)
    error = (predicted[:, start:].float() - target).square().unflatten(1, (len(PAINTS), 3)).mean(2)
    worn = (avatars.parts["hat"] > 0).float()
    visible = torch.stack([torch.ones_like(worn)] * 3 + [worn, torch.ones_like(worn)], 1)
    return loss + 20 * (error * visible).mean(), right


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to two pixels and add noise."""
    dx, dy = torch.randint(-2, 3, (2,), generator=generator).tolist()
    images = torch.roll(images, (dy, dx), (2, 3))
    return images + 0.08 * torch.randn(images.shape, generator=generator)


def train_reader(draw, steps: int = 1200, batch: int = 64, seed: int = 101) -> PartReader:  # type: ignore[no-untyped-def]
    """Train on the pictures and avatars that `draw(batch, generator)` returns."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    reader = PartReader().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        images, avatars = draw(batch, generator)
        with torch.autocast("cpu", torch.bfloat16):
            _, predicted = reader(augment(images, generator).contiguous(memory_format=torch.channels_last))
        loss, right = prediction_loss(predicted, avatars)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"reader {step} loss {loss.item():.3f} correct parts {right:.3f}", flush=True)
    return reader.eval().requires_grad_(False)
