"""Train the synthesis network on rendered avatars: code -> embedding in w -> picture.

A code names every drawing and paint of its picture, so pictures can be learned by heart, pixel by pixel: no
discriminator and no features are needed for sharp edges. Training grows from 32 x 32 pictures to the full side.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from energyql.generators.stylegan2 import ModulatedConv, SynthesisNetwork
from energyql.generators.stylegan_config import StyleGAN2Config
from recipes.avatars.drawing import CROP_LEFT, CROP_SIZE, CROP_TOP, Drawing
from recipes.avatars.factors import CODE_DIM, Z_DIM, Avatars, Factors
from recipes.avatars.mapping import embedding
from recipes.avatars.muon import Muon
from recipes.avatars.sharpness import compare
from recipes.avatars.training_pass import draw

CONFIG = StyleGAN2Config(
    resolution=256,
    z_dim=Z_DIM,
    w_dim=128,
    mapping_layers=5,
    layer_features=160,
    mapping_lr_multiplier=0.1,
    channel_base=4096,
    channel_max=128,
)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A training at one side of the pictures; the learning rate falls to 0 over the last part of it, `decay`."""

    side: int
    steps: int
    lr: float
    decay: float


STAGES = (
    Stage(32, 1600, 1e-2, 0.2),
    Stage(64, 2000, 1e-2, 0.25),
    Stage(128, 3000, 8e-3, 0.25),
    Stage(256, 2500, 7e-3, 0.6),
)
BATCH = 8
FACE = (62, 6, 202, 186)  # left, top, right, bottom in drawing units
FACE_WEIGHT = 2.0
EMA_DECAY = 0.998
WARMUP, SAVED_EVERY = 100, 500
HELD_OUT, HELD_OUT_SEED = 96, 999


def face_weights(side: int) -> Tensor:
    """Return weights (1, 1, side, side): `FACE_WEIGHT` on the face, else 1, divided by the mean."""
    scale = side / CROP_SIZE
    left, right = (int((FACE[i] - CROP_LEFT) * scale) for i in (0, 2))
    top, bottom = (int((FACE[i] - CROP_TOP) * scale) for i in (1, 3))
    weights = torch.ones(1, 1, side, side)
    weights[:, :, top:bottom, left:right] = FACE_WEIGHT
    return weights / weights.mean()


def picture_loss(drawn: Tensor, rendered: Tensor, weights: Tensor) -> Tensor:
    """Return absolute and squared errors, and those of finite differences at three scales, for sharp lines."""
    error = drawn - rendered
    loss = ((error.abs() + error.square()) * weights).mean() + _differences(error, weights)
    for _ in range(2):
        error, weights = F.avg_pool2d(error, 2), F.avg_pool2d(weights, 2)
        loss = loss + 0.5 * _differences(error, weights)
    return loss


def _differences(error: Tensor, weights: Tensor) -> Tensor:
    dx, dy = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
    return (dx.abs() * weights[..., 1:]).mean() + (dy.abs() * weights[..., 1:, :]).mean()


class Trainer:
    """One stage of the training, with logs, a moving average, and checkpoints to resume from.

    Args:
        folder: where checkpoints and pictures go.
        stage: side, length and learning rate.
        start: weights of the stage before; layers that it lacks start at random.
        device: where to train.
        seed: same seed, same pictures.
    """

    def __init__(
        self, folder: Path, stage: Stage, *, start: dict[str, Tensor] | None = None, device: str = "cpu", seed: int = 7
    ) -> None:
        torch.manual_seed(seed)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.stage, self.device, self.seed = folder, stage, device, seed
        self.factors, self.drawing = Factors(), Drawing(stage.side)
        self.config = dataclasses.replace(CONFIG, resolution=stage.side)
        self.network = SynthesisNetwork(self.config)
        if start is not None:
            known = {name: value for name, value in start.items() if not name.endswith("noise_const")}
            self.network.load_state_dict(known, strict=False)
            with torch.no_grad():  # the first picture is about the last one of the stage before, up-sampled
                cast(ModulatedConv, self.network.get_submodule(f"b{stage.side}.torgb.conv")).weight.mul_(0.1)
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(not name.endswith("noise_strength"))
        self.average = {name: value.detach().clone() for name, value in self.network.named_parameters()}
        self.optimizer = Muon(self.network, stage.lr)
        self.embedding = embedding(CONFIG.w_dim)[:, :CODE_DIM].to(device)
        self.weights = face_weights(stage.side).to(device)
        self.step = 0

    def render(self, count: int, generator: torch.Generator) -> tuple[Tensor, Avatars]:
        """Render new avatars: pictures in [-1, 1], (count, 3, side, side), and what is in them."""
        avatars = self.factors(torch.randn(count, Z_DIM, generator=generator))
        return self.drawing.compose(avatars.parts, avatars.paints), avatars

    def run(self) -> None:
        """Train to the last step; an interrupted run goes on from its last checkpoint."""
        self._resume()
        began, first = time.time(), self.step
        while self.step < self.stage.steps:
            loss = self._train(torch.Generator().manual_seed(self.seed * 1_000_003 + self.step))
            self.step += 1
            if self.step % SAVED_EVERY == 0 or self.step == self.stage.steps:
                self._save()
                rate = (self.step - first) * BATCH / (time.time() - began)
                print(
                    f"{self.stage.side}: {self.step}/{self.stage.steps} loss {loss:.4f} {self.evaluate()} "
                    f"pictures/s {rate:.0f}",
                    flush=True,
                )

    def _train(self, generator: torch.Generator) -> float:
        left = 1 - self.step / self.stage.steps
        self.optimizer.lr = self.stage.lr * min(1.0, self.step / WARMUP, left / self.stage.decay)
        rendered, avatars = self.render(BATCH, generator)
        w = avatars.code.to(self.device) @ self.embedding.T
        loss = picture_loss(draw(self.network, w), rendered.to(self.device), self.weights)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        decay = min(EMA_DECAY, (self.step + 1) / (self.step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.network.parameters()), 1 - decay)
        return loss.item()

    def averaged(self) -> SynthesisNetwork:
        """Return the moving average of the network, on the CPU."""
        network = SynthesisNetwork(self.config)
        network.load_state_dict({name: value.cpu() for name, value in self.average.items()}, strict=False)
        return network.eval().requires_grad_(False)

    def evaluate(self) -> str:
        """Compare held-out pictures with their renderings, and write a picture of twice twelve pairs."""
        rendered, avatars = self.render(HELD_OUT, torch.Generator().manual_seed(HELD_OUT_SEED))
        drawn = self.averaged()(avatars.code @ self.embedding.cpu().T, "none").clamp(-1, 1)
        rows = torch.stack([rendered[:12], drawn[:12], rendered[12:24], drawn[12:24]])
        sheet = rows.permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2)
        path = self.folder / f"synthesis{self.stage.side}.png"
        Image.fromarray(((sheet + 1) * 127.5).round().byte().numpy()).save(path)
        return str(compare(drawn, rendered))

    @property
    def checkpoint(self) -> Path:
        """The file with the state."""
        return self.folder / f"synthesis{self.stage.side}.pt"

    def _save(self) -> None:
        state = {
            "network": self.network.state_dict(), "average": self.average, "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }  # fmt: skip
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def _resume(self) -> None:
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average, self.step = state["average"], state["step"]
