"""All stages of the recipe, each of which continues after an interruption, and the folders that they end in."""

from __future__ import annotations

import copy
import time
from pathlib import Path

import torch
from diffusers import AutoencoderDC, DiffusionPipeline, FlowMatchEulerDiscreteScheduler, SanaPipeline
from torch import nn

from energyql.files import temporary, write_picture, write_text
from recipes.flow.captions import tokenizer
from recipes.flow.card import card, measure, sheet
from recipes.flow.networks import STEPS
from recipes.flow.readers import GUIDE, JUDGE, train_reader
from recipes.flow.training import CHUNK, Flow, make_bank, scaled, train_autoencoder, train_flow, train_student

STATES = "states"
"""Subfolder of the states of the trainings."""
FLOW, TEACHER = "flow", "teacher"
"""Subfolders of the pipelines: the flow of few steps, and the one that it learned from."""
SAID_EVERY = 20.0
"""Seconds between two lines about a stage."""


class Log:
    """Prints how far a stage is, its loss, and the time left of it."""

    def __init__(self) -> None:
        self.stage, self.first, self.began, self.said = "", 0.0, 0.0, 0.0

    def __call__(self, stage: str, fraction: float, loss: float | None) -> None:
        """Print a line at the first call of a stage, at its end, and from time to time."""
        now = time.monotonic()
        if stage != self.stage:
            self.stage, self.first, self.began, self.said = stage, fraction, now, 0.0
        if now - self.said < SAID_EVERY and fraction < 1:
            return
        self.said = now
        gained = fraction - self.first
        left = (
            f", {(now - self.began) / gained * (1 - fraction) / 60:.0f} min left" if gained > 0 and fraction < 1 else ""
        )
        print(f"{stage}: {fraction:.1%}{'' if loss is None else f', loss {loss:.4f}'}{left}", flush=True)


def pipeline(network: AutoencoderDC, flow: Flow, scheduler: FlowMatchEulerDiscreteScheduler) -> SanaPipeline:
    """Return a pipeline of diffusers in half precision, which diffusers reads as single precision.

    Transformers would read half precision as such, so the text encoder, which is small, is in single precision. A
    tokenizer saves the padding of its last call, so it is a new one.
    """
    vae, transformer = (nn.Module.to(copy.deepcopy(part), torch.float16) for part in (network, flow.transformer))
    return SanaPipeline(tokenizer(), flow.text_encoder, vae, transformer, scheduler)


def save(made: DiffusionPipeline, folder: Path) -> None:
    """Write a pipeline to a folder, in place of an earlier one."""
    with temporary(folder.parent) as part:
        made.save_pretrained(part / "new")
        if folder.exists():
            folder.rename(part / "old")
        (part / "new").rename(folder)


def make(out: Path, *, scale: float = 1.0) -> None:
    """Run all stages.

    Args:
        out: the folder. `flow` and `teacher` in it are pipelines of diffusers; `guide` and `judge` are networks that
            read pictures, see `energyql.attributes.judge.Judge.load`; `card.md` has the measures.
        scale: multiplies the length of every stage; a value far below 1 only tests that the recipe runs.
    """
    states = out / STATES
    states.mkdir(parents=True, exist_ok=True)
    log = Log()
    network = train_autoencoder(states, scale, log)
    bank = make_bank(network, states, scale, log)
    held_out, seen = bank.split(scaled(CHUNK, scale))
    teacher = train_flow(seen, states, scale, log)
    student = train_student(teacher, seen, states, scale, log)
    save(pipeline(network, teacher, FlowMatchEulerDiscreteScheduler()), out / TEACHER)
    terminal = FlowMatchEulerDiscreteScheduler(
        shift_terminal=1 / STEPS
    )  # else the last step would be as short as 0.001
    save(pipeline(network, student, terminal), out / FLOW)
    readers = {}
    for reader in (GUIDE, JUDGE):
        readers[reader.name] = train_reader(reader, network, seen, states, scale, log)
        readers[reader.name].save(out, reader.name)
    flows = {TEACHER: teacher, FLOW: student}
    measures = measure(flows, network, held_out, readers, count=scaled(512, scale))
    write_picture(out / "sample.png", sheet(measures))
    write_text(out / "card.md", card(measures))
