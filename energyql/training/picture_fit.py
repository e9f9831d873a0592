"""The fit of a small network that reads attributes off pictures, for judges and for teachers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.judge import Judge
from energyql.attributes.predictions import output_count, split_outputs
from energyql.attributes.quality import HeadReport
from energyql.errors import DataError
from energyql.kinds import KINDS
from energyql.numerics.shapes import Float, Int
from energyql.training.heads import attribute_loss, balancing_weights, base_outputs, residuals
from energyql.training.report import report_quality
from energyql.training.steps import StepFile, digest, learning_rate, optimizer_state, restore_optimizer
from energyql.vocabulary import Vocabulary

WRITES = 24
"""How often the state is written during a training."""
AT_ONCE = 256
"""Pictures that are read together."""
CALM = 0.15
"""Strength of the distortions at the end: a network is to be robust, and precise on pictures without distortions."""


@dataclasses.dataclass(frozen=True)
class PictureSettings:
    """Settings of the fit of a judge or a teacher.

    Attributes:
        side: largest side of the pictures that it reads, in pixels; larger ones are reduced.
        channels: width of each level; see `Judge`.
        passes: how often each picture is seen, at most.
        least, most: bounds of the number of pictures seen, all passes together.
        batch: pictures in a step.
        lr: highest learning rate of AdamW.
        weight_decay: of AdamW.
    """

    side: int = 48
    channels: tuple[int, ...] = (16, 32, 64)
    passes: int = 18
    least: int = 6_000
    most: int = 50_000
    batch: int = 64
    lr: float = 3e-3
    weight_decay: float = 0.05


def distort(images: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Zoom, shift, blur, change contrast and add noise, each picture differently; at `strength` 0 nothing changes."""
    batch = len(images)
    zoom = 1 + strength * 0.06 * (torch.rand(batch, 2, generator=generator) * 2 - 1)
    shift = strength * 0.06 * (torch.rand(batch, 2, generator=generator) * 2 - 1)
    theta = torch.cat([torch.diag_embed(zoom), shift[:, :, None]], 2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    softened = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    amount = strength * torch.rand(batch, 1, 1, 1, generator=generator)
    images = torch.lerp(images, softened, amount)
    contrast = 1 + strength * 0.05 * torch.randn(batch, 1, 1, 1, generator=generator)
    noise = (
        strength
        * 0.06
        * torch.rand(batch, 1, 1, 1, generator=generator)
        * torch.randn(images.shape, generator=generator)
    )
    return images * contrast + noise


def distortion_strength(done: float) -> float:
    """Return the strength of distortions at a fraction of a training: 1 in its first half, then falling to `CALM`."""
    return 1 - (1 - CALM) * min(1.0, max(0.0, 2 * done - 1))


class PictureFit:
    """A network in training, and its data. All classes count equally.

    Args:
        pictures: (n, 3, side, side) uint8.
        labels: attribute -> (n,) float: 0/1, class index or number; NaN where missing.
        vocabulary: the attributes; `labels` must have each.
        settings: of the fit.
        rows: pictures to learn from.
        seed: same seed, same network.
        device: where to train.

    Raises:
        DataError: the rows to learn from have no labels of an attribute.
    """

    def __init__(
        self,
        pictures: Tensor,
        labels: Mapping[str, Tensor],
        vocabulary: Vocabulary,
        settings: PictureSettings,
        *,
        rows: Int[Tensor, " rows"],
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings, self.device = settings, torch.device(device)
        self.specs = list(vocabulary.values())
        self.random = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):  # layers are made with global random numbers
            torch.manual_seed(seed)
            judge = Judge(vocabulary, side=pictures.shape[-1], channels=settings.channels)
        self.judge = judge.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.pictures, self.rows = pictures, rows
        self.targets = torch.stack([labels[spec.name].float() for spec in self.specs], 1)
        self.counts = [output_count(spec) for spec in self.specs]
        columns = list(zip(self.targets[self.rows].unbind(1), self.specs, strict=True))
        for labelled, spec in columns:
            if labelled.isnan().all():
                raise DataError(
                    f"{spec.name!r}: none of the pictures to learn from has a label", hint="label more pictures"
                )
        base = [base_outputs(labelled, spec, balanced=True) for labelled, spec in columns]
        self.scale, self.offset = (torch.cat(parts).to(self.device) for parts in zip(*base, strict=True))
        self.weights = [
            None if KINDS[spec.kind].numeric else balancing_weights(labelled, spec).to(self.device)
            for labelled, spec in columns
        ]
        self.identity = digest((settings, seed, vocabulary.to_dict(), self.device.type), pictures, self.targets, rows)

    def run(self, checkpoint: Path | None, progress: Callable[[float], None]) -> None:
        """Train to the end; `checkpoint` is a file for the state, from which an interrupted training continues."""
        settings = self.settings
        seen = min(max(settings.passes * len(self.rows), settings.least), settings.most)
        steps = max(WRITES, seen // settings.batch)
        optimizer = torch.optim.AdamW(self.judge.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        file = StepFile(checkpoint, self.identity)
        step = self._restore(file.read_tensors(), optimizer)
        every = steps // WRITES
        while step < steps:
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * learning_rate(step / steps)
            self.judge.train()
            index = self.rows[torch.randint(len(self.rows), (settings.batch,), generator=self.random)]
            strength = distortion_strength(step / steps)
            images = distort(self._images(index), self.random, strength).to(self.device)
            optimizer.zero_grad()
            torch.stack(self._losses(self._outputs(images), index)).sum().backward()
            optimizer.step()
            step += 1
            if checkpoint is not None and (step % every == 0 or step == steps):
                file.write_tensors(self._state(optimizer, step))
            progress(step / steps)
        progress(1.0)

    @torch.no_grad()
    def finish(self) -> Judge:
        """Return the network in evaluation mode, on the CPU, rounded as it is saved."""
        head = self.judge.head  # scale and offset become part of the last layer
        head.bias.mul_(self.scale).add_(self.offset)
        head.weight.mul_(self.scale[:, None])
        judge: Judge = self.judge.half().float().to("cpu").to(memory_format=torch.contiguous_format)
        return judge.eval()

    def _images(self, index: Tensor) -> Float[Tensor, "batch 3 side side"]:
        return self.pictures[index].float() / 127.5 - 1

    def _outputs(self, images: Tensor) -> Float[Tensor, "batch outputs"]:
        outputs: Tensor = self.judge.head(self.judge.features(images))
        return outputs * self.scale + self.offset

    def _losses(self, outputs: Tensor, index: Tensor) -> list[Tensor]:
        """Return the loss of each attribute; one whose rows have no labels adds nothing."""
        columns = zip(
            outputs.split(self.counts, 1), self.targets[index].to(self.device).unbind(1), self.specs, self.weights,
            strict=True,
        )  # fmt: skip
        return [attribute_loss(*column) for column in columns]

    def _state(self, optimizer: torch.optim.Optimizer, step: int) -> dict[str, Tensor]:
        state = {f"now/{name}": tensor for name, tensor in self.judge.state_dict().items()} | optimizer_state(optimizer)
        return state | {"step": torch.tensor(step), "random": self.random.get_state()}

    def _restore(self, state: Mapping[str, Tensor] | None, optimizer: torch.optim.Optimizer) -> int:
        """Load a state; return its number of steps."""
        if state is None:
            return 0
        self.judge.load_state_dict({name: state[f"now/{name}"] for name in self.judge.state_dict()})
        restore_optimizer(optimizer, state)
        self.random.set_state(state["random"])
        return int(state["step"])


@torch.no_grad()
def read_outputs(network: Judge, pictures: Tensor) -> Float[Tensor, "n outputs"]:
    """Return the outputs of a network for all its attributes, of pictures (n, 3, side, side) uint8."""
    parts = (network.features(part.float() / 127.5 - 1) for part in pictures.split(AT_ONCE))
    return torch.cat([network.head(features) for features in parts])


TEST_SHARE = 0.2
"""Share of the pictures for the report."""


def fit_judge(
    pictures: Tensor,
    labels: Mapping[str, Tensor],
    vocabulary: Vocabulary,
    settings: PictureSettings | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> tuple[Judge | None, dict[str, HeadReport]]:
    """Train a judge on pictures. Classes count equally, because queries ask for rare ones as well.

    Args:
        pictures: (n, 3, side, side) uint8.
        labels: attribute -> (n,) float: 0/1, class index or number; NaN where missing.
        vocabulary: the attributes; `labels` must have each.
        settings: of the fit.
        seed: same seed, same judge; it also chooses the rows for the report.
        device: where to train.
        checkpoint: file for the state; an interrupted training with the same data continues from it.
        progress: called with the fraction done.

    Returns:
        The judge, of the attributes that it reads clearly better than chance on the pictures for the report, or `None`
        if there is none (see `HeadReport.judges`); and a report of every attribute. The standard deviation of a number
        is that of the errors on the pictures for the report.

    Raises:
        DataError: the rows to learn from have no labels of an attribute.
    """
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))
    tested = max(1, round(TEST_SHARE * len(order)))
    test, rows = order.split([tested, len(order) - tested])
    fit = PictureFit(pictures, labels, vocabulary, settings or PictureSettings(), rows=rows, seed=seed, device=device)
    fit.run(checkpoint, progress)
    judge = fit.finish()
    outputs = read_outputs(judge, pictures[test])
    unseen, learnt = ({name: labels[name][part].float() for name in vocabulary} for part in (test, rows))
    std = residuals(outputs, unseen, vocabulary)
    judge.std.copy_(torch.stack(list(std.values())))
    predictions = split_outputs(outputs, vocabulary.values(), std)
    judge.report = report_quality(predictions, unseen, vocabulary, learnt)
    chosen = [name for name, report in judge.report.items() if report.judges]
    return judge.only(chosen) if chosen else None, judge.report
