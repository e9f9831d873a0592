"""The discriminator as a term of the energy, on the GAN of digits: `python -m benchmarks.realism --help`.

Every class is asked for without the term, with it by our exact sampler, and by two rivals: DDLS (Che et al. 2020, arXiv
2003.06060) and the discriminator flow (Ansari et al. 2021, arXiv 2012.00780), both as Langevin dynamics.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.common import (
    SmokeOption,
    ThreadsOption,
    earlier_results,
    frechet_beside_floor,
    page,
    run_command,
    show,
    split_names,
    table,
)
from energyql import generate, load_model
from energyql.evaluation.judged import EvaluatedModel
from energyql.evaluation.measure import machine
from energyql.files import write_json, write_text
from energyql.pipeline.model import Model
from energyql.progress import reporting
from energyql.sampling import Sampler
from energyql.sampling.langevin import LangevinSampler
from recipes.digits.data import DIGITS, LABELLER, TEST, real_digits
from recipes.digits.networks import read_discriminator

WITHOUT, SLICE, DDLS, FLOW = "without", "slice", "DDLS", "discriminator flow"
RIVALS = (WITHOUT, SLICE, DDLS, FLOW)
SETTINGS = {DDLS: (0.005, 1000, None), FLOW: (0.1, 25, 0.0447)}
"""Step size, steps and noise of the Langevin dynamics; `None` is the noise of the posterior."""
SMOKE_N, SMOKE_STEPS, SMOKE_CLASSES = 2, 2, 2
HEADER = ["sampler", "realism", "accuracy %", "logit", "to real", "evals", "CPU s"]
NOTE = (
    "Samples of every class, as many of each. Accuracy: by the judge, which took no part. Logit: mean of "
    "log(D / (1 - D)), higher looks more real to the discriminator. To real: Fréchet distance on the judge's features "
    "to real digits that it did not learn from, and in brackets that of as many of these. Evals: of the energy for a "
    "sample, 2 where the gradient is computed too. CPU s: of sampling and drawing a sample."
)


def sampler_of(rival: str, steps: int | None = None) -> str | Sampler:
    """Return the sampler of a rival; `steps` replaces the published number."""
    if rival not in SETTINGS:
        return SLICE
    size, published, noise = SETTINGS[rival]
    return LangevinSampler(step=size, steps=steps or published, noise=noise)


def measure(model: Model, rival: str, n: int, classes: int, steps: int | None) -> dict[str, float]:
    """Return the numbers of one rival: `n` samples of each of the first classes."""
    judge = EvaluatedModel(model, device="cpu").features
    assert judge is not None
    assert model.discriminator is not None
    weight, started = 0.0 if rival == WITHOUT else 1.0, time.process_time()
    settings: dict[str, Any] = {
        "sampler": sampler_of(rival, steps),
        "realism": weight,
        "allow_weak": list(model.vocabulary),
    }
    results = [
        generate(f"digit = {digit}", n, model=model, device="cpu", progress=False, **settings)
        for digit in DIGITS[:classes]
    ]
    seconds = time.process_time() - started
    with torch.no_grad():
        pictures = torch.cat([model.generator.synthesize(result.w) for result in results])
        logit = float(model.discriminator(pictures).mean())
    real, digits = real_digits(LABELLER, TEST)
    known = judge.read(real[digits < classes])
    work = [one.statistics["evaluations_mean"] + one.statistics["gradients_mean"] for one in results]
    return {
        "satisfied": float(np.mean([np.mean(result.satisfied) for result in results])),
        "logit": logit,
        **frechet_beside_floor(judge.read(pictures), known, len(pictures)),
        "work": float(np.mean(work)),
        "seconds": seconds / len(pictures),
    }


def rows_of(data: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the table."""
    measured = [(rival, data["rivals"][rival]) for rival in RIVALS if rival in data["rivals"]]
    return [
        [
            SLICE if rival == WITHOUT else rival, "0" if rival == WITHOUT else "1", f"{100 * found['satisfied']:.1f}",
            f"{found['logit']:.2f}", f"{found['distance']:.2f} ({found['floor']:.2f})", f"{found['work']:.0f}",
            f"{found['seconds']:.2f}",
        ]
        for rival, found in measured
    ]  # fmt: skip


def main(
    models: Annotated[Path, typer.Option(help="Folder of the models of recipes.digits.")] = Path("runs/digits"),
    rivals: Annotated[str, typer.Option(help="Samplers, separated by commas.")] = ",".join(RIVALS),
    n: Annotated[int, typer.Option("--n", "-n", min=2, help="Samples of each class.")] = 12,
    threads: ThreadsOption = 1,
    out: Annotated[Path, typer.Option(help="Folder of results.")] = Path("runs/realism"),
    smoke: SmokeOption = False,
) -> None:
    """Sample digits that a discriminator takes for real. Interrupt at will: it resumes, rival by rival."""
    torch.set_num_threads(threads)
    chosen = split_names("--rivals", rivals, RIVALS)
    folder = models / "gan"
    model = replace(load_model(folder), discriminator=read_discriminator(folder))
    count, classes, steps = (SMOKE_N, SMOKE_CLASSES, SMOKE_STEPS) if smoke else (n, len(DIGITS), None)
    settings = {"n": count, "classes": classes, "steps": steps, "fingerprints": dict(model.fingerprints)}
    data = earlier_results(out / "results.json", settings) or {"settings": settings, "machine": machine(), "rivals": {}}
    with reporting(True) as report:
        for number, rival in enumerate(chosen, 1):
            if rival not in data["rivals"]:
                data["rivals"][rival] = measure(model, rival, count, classes, steps)
                write_json(out / "results.json", data)
            report("rivals", number / len(chosen))
    rows = rows_of(data)
    write_text(out / "results.md", page("Realism", NOTE, HEADER, rows, data))
    show(table(HEADER, rows), NOTE, f"Saved {out}: results.json and results.md", width=120)


if __name__ == "__main__":
    run_command(main, resumes=True)
