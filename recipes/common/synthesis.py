"""Train the synthesis network on renderings: code -> embedding in w -> picture.

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
from recipes.common.domain import Domain, Stage
from recipes.common.factors import Factors, Scenes
from recipes.common.mapping import embedding
from recipes.common.muon import Muon
from recipes.common.sharpness import compare
from recipes.common.training_pass import draw

BATCH = 8
EMA_DECAY = 0.998
WARMUP, SAVED_EVERY = 100, 500
HELD_OUT, HELD_OUT_SEED = 96, 999


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
        domain: what is drawn.
        folder: where checkpoints and pictures go.
        stage: side, length and learning rate.
        start: weights of the stage before; layers that it lacks start at random.
        device: where to train.
        seed: same seed, same pictures.
    """

    def __init__(
        self,
        domain: Domain,
        folder: Path,
        stage: Stage,
        *,
        start: dict[str, Tensor] | None = None,
        device: str = "cpu",
        seed: int = 7,
    ) -> None:
        torch.manual_seed(seed)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.stage, self.device, self.seed = folder, stage, device, seed
        self.factors, self.drawing = Factors(domain), domain.drawing(stage.side)
        self.config = dataclasses.replace(domain.config, resolution=stage.side)
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
        self.embedding = embedding(domain)[:, : domain.code_dim].to(device)
        self.weights = domain.loss_weights(stage.side).to(device)
        self.step = 0

    def render(self, count: int, generator: torch.Generator) -> tuple[Tensor, Scenes]:
        """Render new pictures in [-1, 1], (count, 3, side, side), and say what is in them."""
        scenes = self.factors(torch.randn(count, self.config.z_dim, generator=generator))
        return self.drawing.compose(scenes.parts, scenes.paints), scenes

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
        rendered, scenes = self.render(BATCH, generator)
        w = scenes.code.to(self.device) @ self.embedding.T
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
        rendered, scenes = self.render(HELD_OUT, torch.Generator().manual_seed(HELD_OUT_SEED))
        drawn = self.averaged()(scenes.code @ self.embedding.cpu().T, "none").clamp(-1, 1)
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
