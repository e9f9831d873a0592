"""What a recipe says about its drawings: the choices, which drawing follows from them, paints, and labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from energyql.generators.stylegan2 import StyleGAN2Config
from energyql.training.heads import HeadSettings
from energyql.vocabulary import AttributeSpec, Vocabulary

Condition = tuple["str | Condition", ...]
"""A name is a switch or an option of a choice ("choice.option"), "-" negates a switch, all names must hold, and a tuple
within is a condition that must not hold."""
Batch = Mapping[str, Tensor]
Labels = Callable[[Batch, Batch, Batch], dict[str, Tensor]]


class Drawing(Protocol):
    """Composes pictures at one resolution."""

    def compose(self, parts: dict[str, Tensor], paints: dict[str, Tensor]) -> Tensor:
        """Return pictures in [-1, 1], (batch, 3, side, side), of drawings by slot and RGB by paint."""
        ...


@dataclass(frozen=True)
class Stage:
    """A training at one side of the pictures; the learning rate falls to 0 over the last part of it, `decay`."""

    side: int
    steps: int
    lr: float
    decay: float


@dataclass(frozen=True)
class CardText:
    """What the model card says in words.

    Attributes:
        summary: one sentence: what is drawn, and how the model is built.
        licence: where the drawings come from.
        faults: a Markdown list of what a user should know.
    """

    summary: str
    licence: str
    faults: str


@dataclass(frozen=True)
class Domain:
    """What is drawn.

    Attributes:
        vocabulary: the attributes of the model, with its name.
        switches: yes/no choices: name -> prevalence.
        choices: one-of-many choices: name -> option -> bias added to its score, in standard deviations.
        numbers: names of the continuous factors.
        hidden: dependencies as in reality: for each hidden factor, its loadings on scores.
        drawn: slot -> the condition of each of its drawings; an empty one holds where no other does.
        paints: name -> the number that it follows.
        palettes: paint -> its stops, RGB in [0, 1], (k, 3), evenly spaced in the quantile of its number.
        chosen_paints: slot that is no drawing -> the paint that it chooses, and the colours, (drawings, 3).
        labels: of the choices (bool or index), the drawings by slot and the quantiles of the numbers: attribute ->
            class index, or value in [0, 1], (batch,).
        drawing: of a side in pixels, what composes pictures.
        config: of the generator.
        stages: of the training of the synthesis network.
        loss_weights: of a side, how much errors count, (1, 1, side, side), with mean 1.
        judge_side, judge_channels: of the judge: side of the pictures that it reads, and width of its levels.
        heads: settings of the attribute heads.
        head_latents: number of latents of the prior that the heads learn from, and of as many beside it.
        watched: a yes/no attribute whose pictures are measured apart as well, because they are the most difficult.
        card: title, licence and known faults for the model card.
        factor_seed, embedding_seed: of the directions of scores in z, and of codes in w.
    """

    vocabulary: Vocabulary
    switches: Mapping[str, float]
    choices: Mapping[str, Mapping[str, float]]
    numbers: tuple[str, ...]
    hidden: tuple[Mapping[str, float], ...]
    drawn: Mapping[str, tuple[Condition, ...]]
    paints: Mapping[str, str]
    palettes: Mapping[str, Tensor]
    labels: Labels
    drawing: Callable[[int], Drawing]
    config: StyleGAN2Config
    stages: tuple[Stage, ...]
    judge_side: int
    judge_channels: tuple[int, ...]
    heads: HeadSettings
    head_latents: int
    watched: str
    card: CardText
    chosen_paints: Mapping[str, tuple[str, Tensor]] = field(default_factory=dict)
    loss_weights: Callable[[int], Tensor] = lambda side: torch.ones(1, 1, side, side)
    factor_seed: int = 20
    embedding_seed: int = 21

    @property
    def name(self) -> str:
        """The name of the model."""
        return self.vocabulary.model

    @cached_property
    def scores(self) -> tuple[str, ...]:
        """The names of the scores: switches, options of choices, numbers."""
        options = (f"{name}.{option}" for name, options in self.choices.items() for option in options)
        return (*self.switches, *options, *self.numbers)

    @cached_property
    def drawings(self) -> tuple[tuple[str, int], ...]:
        """The drawings that have a number in the code: slot, and index in it."""
        return tuple((slot, i) for slot, conditions in self.drawn.items() for i, one in enumerate(conditions) if one)

    @property
    def code_dim(self) -> int:
        """Numbers in a code: one for each drawing, three for each paint."""
        return len(self.drawings) + 3 * len(self.paints)


def palette(colours: Sequence[str]) -> Tensor:
    """Return colours such as "#FFE0C0" as RGB in [0, 1], (k, 3)."""
    return torch.tensor([[int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)] for colour in colours])


def yes_no(name: str, description: str) -> AttributeSpec:
    """Return a yes/no attribute."""
    return AttributeSpec(name, "yes/no", description=description)
