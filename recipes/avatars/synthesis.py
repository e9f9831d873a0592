"""Train the synthesis network on (code, picture) pairs: code -> linear embedding -> w -> picture.

The loss has three parts: pixels and their differences, with a higher weight on the face; the distance between features
of the part reader, each level divided by its spread; and, with a small weight, the predictions of the part reader.
"""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from energyql.generators.mapping import MappingNetwork
from energyql.generators.stylegan2 import StyleGAN2Config, SynthesisNetwork
from recipes.avatars.drawing import CROP_LEFT, CROP_SIZE, CROP_TOP, Drawing
from recipes.avatars.factors import CODE_DIM, Z_DIM, Avatars, Factors
from recipes.avatars.reader import PartReader, augment, prediction_loss

CONFIG = StyleGAN2Config(
    resolution=128,
    z_dim=Z_DIM,
    w_dim=256,
    mapping_layers=5,
    mapping_lr_multiplier=0.1,
    channel_base=3072,
    channel_max=192,
)
FACE = (62, 70, 202, 186)  # left, top, right, bottom in drawing units
FACE_WEIGHT = 5.0
FEATURE_WEIGHT, ANSWER_WEIGHT, GRADIENT_WEIGHT = 0.15, 0.02, 1.0
EMA_DECAY = 0.998


class Painter(nn.Module):
    """An encoder, from code or z to w, and the synthesis network behind it.

    Args:
        resolution: side of the pictures.
        mapping: the mapping network, which is not trained; by default a linear embedding of the code, which is trained.
    """

    def __init__(self, resolution: int, mapping: MappingNetwork | None = None) -> None:
        super().__init__()
        self.encoder: nn.Module
        if mapping is None:
            self.encoder = nn.Linear(CODE_DIM, CONFIG.w_dim)
            nn.init.normal_(self.encoder.weight, std=1 / math.sqrt(CODE_DIM))
        else:
            self.encoder = mapping.requires_grad_(False)
        self.synthesis = SynthesisNetwork(dataclasses.replace(CONFIG, resolution=resolution))

    def encode(self, avatars: Avatars) -> Tensor:
        """Return w of avatars, from z if there is a mapping network, else from their code."""
        w: Tensor = self.encoder(avatars.z if isinstance(self.encoder, MappingNetwork) else avatars.code)
        return w

    def forward(self, avatars: Avatars) -> Tensor:
        """Draw avatars: pictures in [-1, 1], (batch, 3, resolution, resolution)."""
        picture: Tensor = self.synthesis(self.encode(avatars), "none")
        return picture


def face_weights(resolution: int) -> Tensor:
    """Return weights (1, 1, resolution, resolution): `FACE_WEIGHT` on the face, else 1, divided by the mean."""
    scale = resolution / CROP_SIZE
    left, right = (int((FACE[i] - CROP_LEFT) * scale) for i in (0, 2))
    top, bottom = (int((FACE[i] - CROP_TOP) * scale) for i in (1, 3))
    weights = torch.ones(1, 1, resolution, resolution)
    weights[:, :, top:bottom, left:right] = FACE_WEIGHT
    return weights / weights.mean()


def pixel_loss(fake: Tensor, real: Tensor, weights: Tensor) -> Tensor:
    """Return absolute and squared error, and absolute error of the finite differences, for sharp, thin lines."""
    error = fake - real
    loss = ((error.abs() + error.square()) * weights).mean()
    dx, dy = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
    return loss + GRADIENT_WEIGHT * ((dx.abs() * weights[..., 1:]).mean() + (dy.abs() * weights[..., 1:, :]).mean())


class Trainer:
    """A training of the synthesis network, with logs, a moving average, and checkpoints to resume from.

    Args:
        folder: where checkpoints and pictures go.
        reader: the feature network.
        resolution: side of the pictures; a lower one learns the coarse layers in half the time.
        steps: length of the run; the learning rate falls along a cosine to zero at its end.
        start: weights of an earlier run, perhaps at a lower resolution.
        mapping: see `Painter`.
    """

    def __init__(
        self,
        folder: Path,
        reader: PartReader,
        resolution: int,
        steps: int,
        *,
        start: dict[str, Tensor] | None = None,
        mapping: MappingNetwork | None = None,
        batch: int = 32,
        seed: int = 7,
        lr: float = 3e-3,
    ) -> None:
        torch.manual_seed(seed)
        self.folder, self.name = folder, f"synthesis{resolution}"
        self.resolution, self.steps, self.batch, self.seed, self.lr = resolution, steps, batch, seed, lr
        folder.mkdir(parents=True, exist_ok=True)
        self.factors, self.drawing = Factors(), Drawing(resolution)
        self.mapping = mapping
        self.model = Painter(resolution, mapping).to(memory_format=torch.channels_last)
        if start is not None:
            self.model.load_state_dict(start, strict=False)
        self.synthesize, self.reader = torch.compile(self.model.synthesis), torch.compile(reader)
        self.ema = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.Adam(trained, lr=lr, betas=(0.9, 0.99))
        self.weights = face_weights(resolution)
        self.spread: list[Tensor] = []
        self.step = 0

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Avatars]:
        """Render a batch of avatars."""
        avatars = self.factors(torch.randn(batch, Z_DIM, generator=generator))
        return self.drawing.compose(avatars.parts, avatars.paints), avatars

    def loss(self, real: Tensor, avatars: Avatars, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of the current step, and numbers for the log."""
        w = self.model.encode(avatars)
        with torch.autocast("cpu", torch.bfloat16):
            fake = self.synthesize(w, "none")
        fake = fake.float()
        pixels = pixel_loss(fake, real, self.weights)
        numbers = {"l1": (fake.detach() - real).abs().mean().item()}
        if self.step % 2:  # only every second step, at twice the weight: the part reader takes a third of the time
            return pixels, numbers
        state = generator.get_state()
        seen_real = augment(real, generator)
        generator.set_state(state)  # the same shift and noise for both
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                real_features, _ = self.reader(seen_real)
            features, predicted = self.reader(augment(fake, generator))
        if not self.spread:
            self.spread = [feature.float().std() for feature in real_features]
        distance = sum(
            (
                (a.float() - b.float()).abs().mean() / s
                for a, b, s in zip(features, real_features, self.spread, strict=True)
            ),
            torch.zeros(()),
        )
        answer, right = prediction_loss(predicted, avatars)
        numbers |= {"features": distance.item(), "answers": answer.item(), "right": right}
        return pixels + 2 * (FEATURE_WEIGHT * distance + ANSWER_WEIGHT * answer), numbers

    def run(self) -> None:
        """Train to the last step."""
        self.resume()
        start, first = time.time(), self.step
        while self.step < self.steps:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
            warmup, progress = min(1.0, self.step / 200), self.step / self.steps
            for group in self.optimizer.param_groups:
                group["lr"] = self.lr * warmup * 0.5 * (1 + math.cos(math.pi * progress))
            loss, numbers = self.loss(*self.draw(self.batch, generator), generator)
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
            self.optimizer.step()
            with torch.no_grad():
                decay = min(EMA_DECAY, self.step / (self.step + 20))
                for name, value in self.model.state_dict().items():
                    self.ema[name].lerp_(value, 1 - decay)
            if self.step % 100 == 0:
                rate = (self.step - first) * self.batch / (time.time() - start)
                shown = " ".join(f"{name} {value:.4f}" for name, value in numbers.items())
                print(f"{self.name} {self.step}/{self.steps} {shown} pictures/s {rate:.0f}", flush=True)
            self.step += 1
            if self.step % 500 == 0 or self.step == self.steps:
                self.save()
            if self.step % 1000 == 0 or self.step == self.steps:
                self.picture(self.folder / f"{self.name}-{self.step:06d}.png")

    @property
    def checkpoint(self) -> Path:
        """The file with the state."""
        return self.folder / f"{self.name}.pt"

    def save(self) -> None:
        """Write the state."""
        state = {
            "model": self.model.state_dict(), "ema": self.ema, "optimizer": self.optimizer.state_dict(),
            "spread": self.spread, "step": self.step,
        }  # fmt: skip
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def resume(self) -> None:
        """Load the state, if there is one."""
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.ema, self.spread, self.step = state["ema"], state["spread"], state["step"]

    def averaged(self) -> Painter:
        """Return the moving average of the network, for evaluation."""
        model = Painter(self.resolution, self.mapping)
        model.load_state_dict(self.ema)
        return model.eval().requires_grad_(False)

    def picture(self, path: Path) -> None:
        """Write a picture: twice twelve targets above the outputs of the network."""
        real, avatars = self.draw(24, torch.Generator().manual_seed(1))
        with torch.no_grad():
            fake = self.averaged()(avatars)
        rows = torch.cat([real[:12], fake[:12], real[12:], fake[12:]])
        side = rows.shape[-1]
        grid = rows.reshape(4, 12, 3, side, side).permute(0, 3, 1, 4, 2).reshape(4 * side, 12 * side, 3)
        Image.fromarray(((grid.clamp(-1, 1) + 1) * 127.5).byte().numpy()).save(path)
