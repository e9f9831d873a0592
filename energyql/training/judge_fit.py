"""Fit a judge to labelled pictures: a network that shares nothing with the heads but the kind of its labels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.judge import Judge
from energyql.attributes.predictions import output_count
from energyql.errors import DataError
from energyql.files import write_tensors
from energyql.numerics.shapes import Float
from energyql.training.heads import attribute_loss, balanced_accuracy, balancing_weights, base_outputs, residual
from energyql.training.steps import RUN, digest, learning_rate, optimizer_state, read_state, restore_optimizer
from energyql.vocabulary import AttributeSpec, Vocabulary

CHECKS = 24
"""Number of evaluations on the stopping rows during a training."""
STOP_SHARE, TEST_SHARE = 0.12, 0.2
"""Shares of the pictures for early stopping, and for the report."""
LEAST_SKILL = 0.3
"""Least skill of a judge: 0 is chance, 1 is perfect. A verdict of less skill says little of one picture."""
_Z = 1.96


@dataclasses.dataclass(frozen=True)
class JudgeSettings:
    """Settings of the fit of a judge.

    Attributes:
        side: largest side of the pictures that it reads, in pixels; larger ones are reduced.
        channels: width of each level; see `Judge`.
        passes: how often each picture is seen, at most.
        least, most: bounds of the number of pictures seen, all passes together.
        batch: pictures in a step.
        lr: highest learning rate of AdamW.
        weight_decay: of AdamW.
        patience: stop when the stopping rows have not improved in this many of the `CHECKS` evaluations.
    """

    side: int = 48
    channels: tuple[int, ...] = (16, 32, 64)
    passes: int = 30
    least: int = 6_000
    most: int = 50_000
    batch: int = 64
    lr: float = 3e-3
    weight_decay: float = 0.05
    patience: int = 8


def distort(images: Tensor, generator: torch.Generator) -> Tensor:
    """Zoom, shift, blur, change contrast and add noise, each picture differently."""
    batch = len(images)
    zoom = 1 + 0.06 * (torch.rand(batch, 2, generator=generator) * 2 - 1)
    shift = 0.06 * (torch.rand(batch, 2, generator=generator) * 2 - 1)
    theta = torch.cat([torch.diag_embed(zoom), shift[:, :, None]], 2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    softened = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    amount = torch.rand(batch, 1, 1, 1, generator=generator)
    images = torch.lerp(images, softened, amount)
    contrast = 1 + 0.05 * torch.randn(batch, 1, 1, 1, generator=generator)
    noise = 0.06 * torch.rand(batch, 1, 1, 1, generator=generator) * torch.randn(images.shape, generator=generator)
    return images * contrast + noise


def fit_judge(
    pictures: Tensor,
    labels: Mapping[str, Tensor],
    vocabulary: Vocabulary,
    settings: JudgeSettings | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> tuple[Judge | None, dict[str, dict[str, Any]]]:
    """Train a judge on pictures. Classes count equally, because queries ask for rare ones as well.

    Args:
        pictures: (n, 3, side, side) uint8.
        labels: attribute -> (n,) float: 0/1, class index or number; NaN where missing.
        vocabulary: the attributes; `labels` must have each.
        settings: of the fit.
        seed: same seed, same judge; it also chooses the rows for early stopping and for the report.
        device: where to train.
        checkpoint: file for the state; an interrupted training with the same data continues from it.
        progress: called with the fraction done.

    Returns:
        The judge, of the attributes that it reads clearly better than chance on the rows for the report, or `None` if
        there is none; and a report of every attribute: `accuracy` (see `balanced_accuracy`), `skill` (see `examine`)
        with its 95 % `interval`, `samples` of the report, `labels` in all, and whether the judge `reads` it. The first
        three are `None` where too few labels are among the samples of the report.

    Raises:
        DataError: the rows to learn from have no labels of an attribute.
    """
    settings = settings or JudgeSettings()
    fit = _JudgeFit(pictures, labels, vocabulary, settings, seed, torch.device(device))
    fit.run(checkpoint, progress)
    return fit.examined()


class _JudgeFit:
    """A judge in training, its data, and its best state so far."""

    def __init__(
        self,
        pictures: Tensor,
        labels: Mapping[str, Tensor],
        vocabulary: Vocabulary,
        settings: JudgeSettings,
        seed: int,
        device: torch.device,
    ) -> None:
        self.settings, self.device = settings, device
        self.specs = list(vocabulary.values())
        self.random = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):  # layers are made with global random numbers
            torch.manual_seed(seed)
            judge = Judge(vocabulary, side=pictures.shape[-1], channels=settings.channels)
        self.judge = judge.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        order = torch.randperm(len(pictures), generator=self.random)
        tested, stopped = (max(1, round(share * len(order))) for share in (TEST_SHARE, STOP_SHARE))
        self.test, self.stop, self.rows = order.split([tested, stopped, len(order) - tested - stopped])
        self.pictures = pictures
        self.targets = torch.stack([labels[spec.name].float() for spec in self.specs], 1)
        self.counts = [output_count(spec) for spec in self.specs]
        columns = list(zip(self.targets[self.rows].unbind(1), self.specs, strict=True))
        for labelled, spec in columns:
            if labelled.isnan().all():
                raise DataError(f"{spec.name!r}: none of the pictures to learn from has a label")
        base = [base_outputs(labelled, spec, balanced=True) for labelled, spec in columns]
        self.scale, self.offset = (torch.cat(parts).to(device) for parts in zip(*base, strict=True))
        self.weights = [
            None if spec.kind == "continuous" else balancing_weights(labelled, spec).to(device)
            for labelled, spec in columns
        ]
        self.identity = digest((settings, seed, vocabulary.to_dict()), pictures, self.targets)
        self.best = {name: tensor.clone() for name, tensor in self.judge.state_dict().items()}
        self.best_loss, self.since = math.inf, 0

    def run(self, checkpoint: Path | None, progress: Callable[[float], None]) -> None:
        """Train until the stopping rows no longer improve."""
        settings = self.settings
        seen = min(max(settings.passes * len(self.rows), settings.least), settings.most)
        steps = max(CHECKS, seen // settings.batch)
        optimizer = torch.optim.AdamW(self.judge.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        step = self._restore(read_state(checkpoint, self.identity), optimizer)
        every = steps // CHECKS
        while step < steps and self.since < settings.patience:
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * learning_rate(step / steps)
            self.judge.train()
            index = self.rows[torch.randint(len(self.rows), (settings.batch,), generator=self.random)]
            images = distort(self._images(index), self.random).to(self.device)
            optimizer.zero_grad()
            torch.stack(self._losses(self._outputs(images), index)).sum().backward()
            optimizer.step()
            step += 1
            if step % every == 0 or step == steps:
                self._evaluate()
                if checkpoint is not None:
                    write_tensors(checkpoint, {RUN: self.identity, **self._state(optimizer, step)})
            progress(step / steps)
        progress(1.0)

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

    @torch.no_grad()
    def _predicted(self, index: Tensor) -> Float[Tensor, "rows outputs"]:
        self.judge.eval()
        return torch.cat([self._outputs(self._images(part).to(self.device)) for part in index.split(256)])

    @torch.no_grad()
    def _evaluate(self) -> None:
        """Keep the state with the lowest loss on the stopping rows, each attribute's relative to its base rate's."""
        base = self._losses(self.offset.expand(len(self.stop), -1), self.stop)
        found = self._losses(self._predicted(self.stop), self.stop)
        loss = sum(float(loss / start) for loss, start in zip(found, base, strict=True) if start > 0)
        self.since += 1
        if loss < self.best_loss:
            self.best_loss, self.since = loss, 0
            self.best = {name: tensor.clone() for name, tensor in self.judge.state_dict().items()}

    def _state(self, optimizer: torch.optim.Optimizer, step: int) -> dict[str, Tensor]:
        state = {f"now/{name}": tensor for name, tensor in self.judge.state_dict().items()}
        state |= {f"best/{name}": tensor for name, tensor in self.best.items()} | optimizer_state(optimizer)
        numbers = torch.tensor([step, self.since, self.best_loss], dtype=torch.float64)
        return state | {"numbers": numbers, "random": self.random.get_state()}

    def _restore(self, state: Mapping[str, Tensor] | None, optimizer: torch.optim.Optimizer) -> int:
        """Load a state; return its number of steps."""
        if state is None:
            return 0
        self.judge.load_state_dict({name: state[f"now/{name}"] for name in self.best})
        self.best = {name: state[f"best/{name}"].to(self.device) for name in self.best}
        restore_optimizer(optimizer, state)
        self.random.set_state(state["random"])
        step, since, self.best_loss = state["numbers"].tolist()
        self.since = int(since)
        return int(step)

    @torch.no_grad()
    def examined(self) -> tuple[Judge | None, dict[str, dict[str, Any]]]:
        """Return the best state as a judge, rounded as it is saved, and the report on it."""
        self.judge.load_state_dict(self.best)
        head = self.judge.head  # scale and offset become part of the last layer
        head.bias.mul_(self.scale).add_(self.offset)
        head.weight.mul_(self.scale[:, None])
        self.scale, self.offset = torch.ones_like(self.scale), torch.zeros_like(self.offset)
        self.judge.half().float()
        outputs, labels = self._predicted(self.test).cpu(), self.targets[self.test]
        report: dict[str, dict[str, Any]] = {}
        for i, (part, answers, spec) in enumerate(
            zip(outputs.split(self.counts, 1), labels.unbind(1), self.specs, strict=True)
        ):
            self.judge.std[i] = residual(part, answers, spec) if not answers.isnan().all() else 1.0
            report[spec.name] = examine(part, answers, spec) | {"labels": int((~self.targets[:, i].isnan()).sum())}
        self.judge.report = report
        chosen = [name for name, numbers in report.items() if numbers["reads"]]
        judge = self.judge.to("cpu").to(memory_format=torch.contiguous_format).eval()
        return judge.only(chosen) if chosen else None, report


def examine(outputs: Tensor, labels: Float[Tensor, " batch"], spec: AttributeSpec) -> dict[str, Any]:
    """Return the quality of outputs on rows that took no part in the training; see `fit_judge`.

    The skill is 0 at chance and 1 where all is right: balanced accuracy on that scale, or R2 of a number.
    """
    known = ~labels.isnan()
    outputs, labels = outputs[known], labels[known]
    count = max(2, output_count(spec))
    unknown = {"accuracy": None, "skill": None, "interval": None, "samples": len(labels), "reads": False}
    if spec.kind == "continuous":
        squares = (labels - labels.mean()).square()
        rest = (outputs[:, 0] - labels).square()
        if len(labels) < 3 or not squares.mean() > 0:
            return unknown
        share = rest.mean() / squares.mean()
        value = 1 - share.item()
        spread = ((rest - share * squares) / squares.mean()).std().item() / math.sqrt(len(labels))
    else:
        if len(labels.unique()) < count:  # a class is missing, so nothing is known of its recall
            return unknown
        decided = outputs.argmax(1) if spec.kind == "categorical" else (outputs[:, 0] > 0).long()
        chance, variance = 1 / count, 0.0
        for k in range(count):
            right = (decided[labels == k] == k).float()
            recall = (right.sum().item() + 1) / (len(right) + 2)  # never 0 or 1, where the error would seem to be 0
            variance += recall * (1 - recall) / (len(right) + 2) / count**2
        value = (balanced_accuracy(outputs, labels, spec) - chance) / (1 - chance)
        spread = math.sqrt(variance) / (1 - chance)
    interval = [value - _Z * spread, min(1.0, value + _Z * spread)]
    return {
        "accuracy": balanced_accuracy(outputs, labels, spec),
        "skill": value,
        "interval": interval,
        "samples": len(labels),
        "reads": interval[0] > 0 and value >= LEAST_SKILL,
    }
