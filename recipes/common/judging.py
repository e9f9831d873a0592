"""Train the packaged judge on rendered pictures, with distortions, so that it reads imperfect pictures as well."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from energyql.attributes.judge import Convolutions, Judge
from energyql.attributes.predictions import HEAD_KINDS, output_count
from energyql.kinds import KINDS
from energyql.numerics.shapes import Float
from energyql.training.heads import attribute_loss
from energyql.training.picture_fit import distort, distortion_strength
from energyql.vocabulary import AttributeSpec, Vocabulary
from recipes.common.domain import Domain
from recipes.common.factors import Factors
from recipes.common.labelling import beyond_prior, label_tensors

RIDGE = 1e-3
"""Of the least squares for numbers, relative to the mean square of a feature; 1e-6 to 1e-3 give the same error."""
AT_ONCE = 256
"""Pictures that are drawn and read together."""
Labels = Mapping[str, Tensor]
Draw = Callable[[int, torch.Generator], tuple[Tensor, Labels]]
"""Returns a number of pictures, and attribute -> what is true of them, (batch,)."""


def renderer(domain: Domain, beyond: float = 0.0) -> Draw:
    """Return what renders pictures of a domain at the side of its judge, with their attributes.

    Args:
        domain: what is drawn.
        beyond: share of pictures of latents beyond the prior, as samplers find them; see `beyond_prior`.
    """
    factors, drawing = Factors(domain), domain.drawing(domain.judge_side)

    def draw(batch: int, generator: torch.Generator) -> tuple[Tensor, Labels]:
        z = torch.randn(batch, domain.config.z_dim, generator=generator)
        moved = round(batch * beyond)
        scenes = factors(torch.cat([beyond_prior(factors, z[:moved], generator), z[moved:]]))
        return drawing.compose(scenes.parts, scenes.paints), scenes.labels

    return draw


def _columns(
    outputs: Tensor, labels: dict[str, Tensor], vocabulary: Vocabulary
) -> list[tuple[Tensor, Tensor, AttributeSpec]]:
    parts = outputs.split([output_count(spec) for spec in vocabulary.values()], 1)
    return [(part.float(), labels[spec.name], spec) for part, spec in zip(parts, vocabulary.values(), strict=True)]


def reader_loss(outputs: Tensor, labels: Labels, vocabulary: Vocabulary) -> Tensor:
    """Return the sum of the losses of all attributes, of the outputs (batch, outputs) of a judge."""
    columns = _columns(outputs, label_tensors(labels, vocabulary), vocabulary)
    return torch.stack([attribute_loss(*column) for column in columns]).sum()


def train_judge(domain: Domain, draw: Draw, *, steps: int, batch: int = 64, seed: int = 202) -> Judge:
    """Train on pictures of `draw(batch, generator)`, which returns pictures and what is in them.

    Distortions are strong at first and weak at the end, so that the network is robust and yet precise. Generated
    pictures differ from renderings by less than the distortions at the end.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    judge = Judge(domain.vocabulary, Convolutions(domain.judge_side, domain.judge_channels))
    judge.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compiled = torch.compile(lambda x: judge.head(judge.features(x)))
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        images, labels = draw(batch, generator)
        with torch.autocast("cpu", torch.bfloat16):
            outputs = compiled(distort(images, generator, distortion_strength(step / steps)))
        loss = reader_loss(outputs, labels, domain.vocabulary)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"judge {step}/{steps} loss {loss.item():.3f}", flush=True)
    judge.eval().requires_grad_(False)
    return judge


@torch.no_grad()
def fit_numbers(judge: Judge, draw: Draw, *, count: int = 16384, seed: int = 404) -> None:
    """Fit the last layer of the continuous attributes again, by least squares on pictures without distortions.

    Contrast and noise blur what the network can say of a colour; after this fit the mean error of the skin
    tones of avatars is 0.4 % of their range.
    """
    generator = torch.Generator().manual_seed(seed)
    numbers = [name for name, spec in judge.vocabulary.items() if spec.kind == "continuous"]
    inputs, answers = [], []
    for _ in range(-(-count // AT_ONCE)):
        images, true = draw(min(count, AT_ONCE), generator)
        inputs.append(judge.features(images).double())
        answers.append(torch.stack([true[name] for name in numbers], 1).double())
    x, y = torch.cat(inputs), torch.cat(answers)
    x_mean, y_mean = x.mean(0), y.mean(0)
    square = (x - x_mean).T @ (x - x_mean)
    square.diagonal().add_(RIDGE * square.diagonal().mean())
    weight = torch.linalg.solve(square, (x - x_mean).T @ (y - y_mean)).T
    counts = [output_count(spec) for spec in judge.vocabulary.values()]
    first = dict(zip(judge.vocabulary, torch.tensor([0, *counts]).cumsum(0).tolist(), strict=False))
    rows = [first[name] for name in numbers]
    judge.head.weight[rows] = weight.float()
    judge.head.bias[rows] = (y_mean - weight @ x_mean).float()


def examine(judge: Judge, draw: Draw, *, count: int = 4096, seed: int = 303) -> dict[str, float]:
    """Return the balanced accuracy by attribute on new pictures (1 - mean error for continuous attributes).

    Also fits the judge's residual standard deviations.
    """
    generator = torch.Generator().manual_seed(seed)
    outputs, labels = [], []
    for _ in range(-(-count // AT_ONCE)):
        images, true = draw(min(count, AT_ONCE), generator)
        outputs.append(judge.head(judge.features(images)))
        labels.append(label_tensors(true, judge.vocabulary))
    truth = {name: torch.cat([part[name] for part in labels]) for name in judge.vocabulary}
    scores = {}
    for i, (part, answers, spec) in enumerate(_columns(torch.cat(outputs), truth, judge.vocabulary)):
        scores[spec.name] = balanced_accuracy(part, answers, spec)
        if spec.kind == "continuous":
            judge.std[i] = (part[:, 0] - answers).square().mean().sqrt()
    return scores


def balanced_accuracy(outputs: Tensor, labels: Float[Tensor, " batch"], spec: AttributeSpec) -> float:
    """Return the mean recall of the classes present; for a continuous attribute 1 - mean absolute error / range."""
    present = ~labels.isnan()
    values, labels = HEAD_KINDS[spec.kind].of_outputs(outputs[present], spec, 1.0).number(), labels[present]
    if KINDS[spec.kind].numeric:
        return 1 - ((values - labels).abs().mean() / (spec.high - spec.low)).item()
    return torch.stack([(values[labels == k] == k).float().mean() for k in labels.long().unique()]).mean().item()
