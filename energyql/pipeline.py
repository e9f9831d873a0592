"""From a query to pictures: the only file that knows every layer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from energyql.attributes.image_labels import read_images
from energyql.attributes.outputs import decide, tabulate
from energyql.energy.query_energy import Encode, QueryEnergy
from energyql.energy.semantics import compile_energy_rule
from energyql.errors import ArgumentError
from energyql.generators.classes import as_condition, encode_under
from energyql.language import Expr, as_query, bind
from energyql.logic.truth import satisfied
from energyql.model import Model, load_model
from energyql.models import DEFAULT_MODEL, model_folder
from energyql.pictures import to_pictures
from energyql.progress import Report, reporting
from energyql.result import Result
from energyql.sampling import SAMPLERS, Sampler, SampleResult, Status, prior_latents
from energyql.version import __version__

LATENT_BATCH = 4096
"""Latents that are sampled together unless a call says otherwise."""
PIXEL_BATCH = 1 << 20
"""Pixels that are drawn together unless a call says otherwise: 64 pictures of 128 x 128, one of 1024 x 1024."""
MOST_SAMPLES = 1_000_000
"""Most pictures of one call, all of which it holds in memory."""


class Pipeline:
    """A model on a device, ready for queries.

    Args:
        model: a loaded model; its torch modules are moved to the device.
        device: where to compute.
    """

    def __init__(self, model: Model, device: torch.device) -> None:
        self.model = model.to(device)
        self.device = device

    def generate(
        self,
        query: str | Expr,
        n: int = 16,
        *,
        semantics: str = "exact",
        sampler: str | Sampler = "ode",
        strength: float | None = None,
        truncation: float | None = None,
        label: int | Sequence[float] | None = None,
        seed: int = 0,
        batch_size: int | None = None,
        progress: bool = True,
    ) -> Result:
        """See `energyql.generate`."""
        n, batch_size = _count("n", n), None if batch_size is None else _count("batch_size", batch_size)
        psi, checked = self._truncation(truncation), self.model.check_label(label)
        condition = as_condition(checked, self.model.generator)
        encode = partial(encode_under, self.model.generator, truncation=psi, condition=condition)
        solver = _sampler(sampler, strength)
        expr, text = as_query(query)
        bound = bind(expr, self.model.vocabulary, query=text)
        rule = compile_energy_rule(bound, self.model.vocabulary, semantics, query=text)
        read = encode if self.model.bank.space == "w" else lambda z: z
        energy = QueryEnergy(rule, read, self.model.bank.predict)
        z0 = prior_latents(seed, 0, n, self.model.generator.z_dim)
        with reporting(progress) as report:
            started = time.perf_counter()
            sampled = self._sample(solver, energy, z0, batch_size, report)
            drawn = time.perf_counter()
            images, w, judged = self._draw(sampled.z, encode, batch_size, report)
            finished = time.perf_counter()
        with torch.inference_mode():
            latent = w if self.model.bank.space == "w" else sampled.z
            predictions = self.model.bank.predict(latent)
            value = rule.log_value(predictions) if rule.attributes else torch.zeros(n)
            energies = (0.0 - value).double().cpu().numpy()  # and not -value, which makes -0.0 of 0
        decided = judged or decide(predictions)
        return Result(
            images=images,
            z=sampled.z.cpu(),
            w=w.cpu(),
            energy=energies,
            probabilities=tabulate(predictions),
            judged=decided,
            satisfied=np.broadcast_to(satisfied(bound, decided, self.model.vocabulary), (n,)).copy(),
            status=[Status(code) for code in sampled.status.tolist()],
            statistics={
                "evaluations_mean": sampled.evaluations.double().mean().item(),
                "evaluations_max": sampled.evaluations.max().item(),
                "steps_rejected": sampled.rejected.sum().item(),
                "seconds_sampling": drawn - started,
                "seconds_drawing": finished - drawn,
            },
            provenance={
                "query": text,
                "canonical": str(expr),
                "n": n,
                "seed": int(seed),
                "model": self.model.name,
                "fingerprints": dict(self.model.fingerprints),
                "semantics": semantics,
                "sampler": repr(solver),
                "truncation": psi,
                "label": checked,
                "judge": "image judge" if judged else "attribute heads",
                "device": str(self.device),
                "versions": {"energyql": __version__, "torch": torch.__version__},
            },
        )

    def _truncation(self, truncation: float | None) -> float:
        psi = self.model.truncation if truncation is None else _number("truncation", truncation)
        low, high = self.model.bank.truncation
        if not low <= psi <= high:
            allowed = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            raise ArgumentError(
                f"the attributes of model {self.model.name!r} do not hold at truncation {psi:g}",
                hint=f"they were fitted at truncation {allowed}: use that, or train them for {psi:g}",
            )
        return psi

    def _sample(
        self, solver: Sampler, energy: QueryEnergy, z0: Tensor, batch_size: int | None, report: Report
    ) -> SampleResult:
        size = batch_size or LATENT_BATCH
        parts = []
        for start in range(0, len(z0), size):
            chunk = z0[start : start + size].to(self.device)

            def fraction(done: float, active: int, start: int = start, count: int = len(chunk)) -> None:
                report("sampling", (start + done * count) / len(z0))

            parts.append(solver.sample(energy, chunk, progress=fraction))
        report("sampling", 1.0)
        return SampleResult.join(parts)

    @torch.inference_mode()
    def _draw(
        self, z: Tensor, encode: Encode, batch_size: int | None, report: Report
    ) -> tuple[list[Any], Tensor, dict[str, Any]]:
        """Pictures, w, and what the judge reads (nothing where there is no judge)."""
        pictures: list[Any] = []
        latents, readings = [], []
        size = batch_size or 1  # one picture first tells how many fit
        start = 0
        while start < len(z):
            w = encode(z[start : start + size])
            images = self.model.generator.synthesize(w)
            pictures += to_pictures(images)
            latents.append(w)
            if self.model.judge is not None:
                readings.append(read_images(self.model.judge, images, self.model.vocabulary))
            start += size
            size = batch_size or max(1, PIXEL_BATCH // (images.shape[-1] * images.shape[-2]))
            report("drawing", min(1.0, start / len(z)))
        judged = {name: np.concatenate([part[name] for part in readings]) for name in readings[0]} if readings else {}
        return pictures, torch.cat(latents), judged


def generate(
    query: str | Expr,
    n: int = 16,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    semantics: str = "exact",
    sampler: str | Sampler = "ode",
    strength: float | None = None,
    truncation: float | None = None,
    label: int | Sequence[float] | None = None,
    seed: int = 0,
    device: str = "auto",
    batch_size: int | None = None,
    progress: bool = True,
) -> Result:
    """Draw pictures that satisfy a query.

    Args:
        query: text such as `"smile AND NOT (glasses OR beard)"`, or `E.smile & ~(E.glasses | E.beard)`.
        n: number of pictures, at least 1.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        semantics: "exact", "product" or "lace".
        sampler: a name, or a sampler with settings of its own.
        strength: lambda > 0, multiplies the energy: 1 is the query as stated, more is more certain and less varied.
            By default the sampler's own.
        truncation: psi in [0, 1]: pulls w toward its mean, less varied and safer. By default the model's own.
        label: of a conditional generator: a class, or as many numbers as it has classes. By default the one that the
            attributes were fitted under, if they were fitted under one.
        seed: 0 to 2**64 - 1. Picture i depends on (seed, i) alone, whatever n, batch size or device count.
        device: "auto" (where a `Model` in memory is, else a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
        batch_size: samples that are computed together; by default as many as suit the model.
        progress: show a progress bar.

    Returns:
        A `Result`: pictures, latents, energies, verdicts and provenance.

    Raises:
        EnergyQLError: the query, a name or a setting is wrong; the message says what, where and what to do.
    """
    if isinstance(model, Model):
        pipeline = Pipeline(model, model.device if device == "auto" else choose_device(device))
    else:
        folder = model_folder(model).resolve()
        written = max((file.stat().st_mtime_ns for file in folder.iterdir()), default=0)
        pipeline = _pipeline(folder, str(choose_device(device)), written)
    return pipeline.generate(
        query, n, semantics=semantics, sampler=sampler, strength=strength, truncation=truncation, label=label,
        seed=seed, batch_size=batch_size, progress=progress,
    )  # fmt: skip


@lru_cache(maxsize=4)
def _pipeline(folder: Path, device: str, written: int) -> Pipeline:
    """Models stay loaded, as long as nothing is `written` to their folder."""
    return Pipeline(load_model(folder, device), torch.device(device))


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU if there is one.

    Raises:
        ArgumentError: there is no such device here.
    """
    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ArgumentError(f"device {name!r} is not available here", hint="use auto, cpu, cuda or mps") from error
    return device


def _sampler(sampler: str | Sampler, strength: float | None) -> Sampler:
    if not isinstance(sampler, str):
        if strength is not None:
            raise ArgumentError("strength belongs to the sampler", hint="set it where you make the sampler")
        if not callable(getattr(sampler, "sample", None)):
            raise ArgumentError(f"a sampler is a name or an object with a method sample, not {sampler!r}")
        return sampler
    if sampler not in SAMPLERS:
        raise ArgumentError(f"there is no sampler {sampler!r}", hint=f"samplers: {', '.join(SAMPLERS)}")
    make: Callable[..., Sampler] = SAMPLERS[sampler]
    return make() if strength is None else make(strength=_number("strength", strength))


def _count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or not 1 <= value <= MOST_SAMPLES:
        raise ArgumentError(f"{name} must be a whole number from 1 to {MOST_SAMPLES:,}, not {value!r}")
    return int(value)


def _number(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ArgumentError(f"{name} must be a finite number, not {value!r}")
    return float(value)
