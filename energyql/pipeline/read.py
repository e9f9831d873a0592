"""What is read off samples and their pictures: predictions, energies, doubts, and verdicts of the judge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.heads import outside_shell, second_bank
from energyql.attributes.pictures import heads_of
from energyql.attributes.predictions import Predictions, Table, decide, on_cpu, tabulate
from energyql.energy.picture_energy import energy_of_pictures
from energyql.energy.query_energy import QueryEnergy, check_predictions
from energyql.generators.base import show_pictures
from energyql.language import predicates
from energyql.logic.satisfiability import satisfied
from energyql.numerics.pool import to_cpu
from energyql.pipeline.checks import satisfied_by_judge, why_unjudged
from energyql.pipeline.columns import concatenate
from energyql.pipeline.model import Values
from energyql.pipeline.plan import Plan
from energyql.pipeline.provenance import Provenance, of_samples
from energyql.pipeline.render import render
from energyql.pipeline.result import Result
from energyql.pipeline.route import prompt_numbers, route, shares_of
from energyql.progress import Report
from energyql.sampling import SampleResult, Status
from energyql.vocabulary import ByAttribute

Guided = tuple[dict[str, Table], npt.NDArray[np.float64], npt.NDArray[np.bool_]]
"""What guides the sampler, for n samples: attribute -> predictions; energies of the query, (n,); and whether the
predictions may be wrong, (n,)."""


class Readings(NamedTuple):
    """A batch of pictures, and what was read off them.

    Attributes:
        pictures: the pictures.
        w: their latents w.
        judged: attribute -> the values that the judge read.
        guided: what the reader read that guides the sampler; `None` if heads on latents do.
    """

    pictures: list[Image.Image]
    w: Tensor
    judged: Values
    guided: Guided | None


def read(plan: Plan, w: Tensor, images: Tensor, judged: Values | None = None) -> Readings:
    """Read a batch of pictures, (batch, channels, height, width) in [-1, 1], by the judge and the reader of the model.

    `judged` are the judge's values, if they were read already.
    """
    values = plan.model.judge_images(images) if judged is None else judged
    guided = _by_reader(plan, images) if plan.model.bank.reads_pictures else None
    return Readings(show_pictures(plan.model.generator, images), w, values, guided)


def show(
    plan: Plan,
    sampled: SampleResult,
    index: npt.NDArray[Any],
    report: Report,
    w: Tensor | None = None,
    batch_size: int | None = None,
) -> Result:
    """Draw the pictures of sampled latents, and return them with all that is read off them.

    Args:
        plan: the plan; calibrated, if it is for several prompts.
        sampled: latents z of n samples, and for each sample how the sampler ended, such as `Status.OK`.
        index: number of each sample in its run, (n,).
        report: called with "drawing" and the fraction of the pictures that is done.
        w: latents w of the pictures, (n, w_dim) or (n, num_ws, w_dim); by default `encode(z)`.
        batch_size: by default that of the settings.
    """
    batches, done = [], 0
    for latents, images in render(plan, sampled.z, index, w, batch_size):
        batches.append(read(plan, latents, images))
        done += len(images)
        report("drawing", done / len(sampled.z))
    return result_of(plan, sampled, index, batches, of_z=w is None)


def result_of(
    plan: Plan,
    sampled: SampleResult,
    index: npt.NDArray[Any],
    batches: Sequence[Readings],
    *,
    of_z: bool = True,
    why_not: str = "",
) -> Result:
    """Return the result of samples whose pictures are read.

    Args:
        plan: the plan; calibrated, if it is for several prompts.
        sampled: latents z of n samples, and for each sample how the sampler ended.
        index: number of each sample in its run, (n,).
        batches: the pictures, with what was read off them.
        of_z: false if the pictures are drawn from a w that does not follow from z.
        why_not: why the judge gives no verdicts, although it reads the query.
    """
    w = torch.cat([batch.w for batch in batches])
    judged = {name: np.concatenate([batch.judged[name] for batch in batches]) for name in batches[0].judged}
    verdicts = None if plan.model.judge is None else judged
    guided = [batch.guided for batch in batches if batch.guided is not None]
    probabilities, energy, doubtful = concatenate(guided) if guided else _by_heads(plan, sampled.z, w)
    outside, z, w = to_cpu([outside_shell(sampled.z), sampled.z, w])
    if of_z:  # a sample that is given by its w does not depend on its z
        doubtful |= outside.numpy()
    facts: Provenance = {"unjudged": why_not or why_unjudged(plan.expr, verdicts)}
    prompt = None
    if plan.mixture is not None:
        shares, errors = (numbers.tolist() for numbers in shares_of(plan))
        prompt = np.array(plan.mixture.prompts)[prompt_numbers(plan, index)]
        facts["mixture"] = {"shares": shares, "errors": errors}
    return Result(
        images=[picture for batch in batches for picture in batch.pictures], z=z, w=w,
        index=index, energy=energy, probabilities=ByAttribute(probabilities), judged=ByAttribute(judged),
        satisfied=None if why_not else satisfied_by_judge(plan.expr, verdicts, plan.model.vocabulary),
        doubtful=doubtful, status=[Status(code) for code in sampled.status.tolist()],
        statistics={"doubtful": float(doubtful.mean())},
        provenance=of_samples(plan.provenance, len(w)) | facts, prompt=prompt,
    )  # fmt: skip


def expected(plan: Plan, z: Tensor, index: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return P(query) by the heads for latents z, (n, z_dim), whose samples have the numbers `index`, (n,)."""
    parts = [(part, torch.from_numpy(rows)) for part, rows in route(plan, index)]
    return np.concatenate([part.energy_in_float32(z[rows]).double().neg().exp().cpu().numpy() for part, rows in parts])


@torch.inference_mode()
def _by_heads(plan: Plan, z: Tensor, w: Tensor) -> Guided:
    bank, energy = plan.model.bank, plan.energy_in_float32
    read = w if bank.space == "w" else plan.reads(z)
    read = read.mean(1) if read.ndim == 3 else read  # the mean over the layers of W+
    predictions = on_cpu(bank.predict(read))
    assert isinstance(energy, QueryEnergy)
    return tabulate(predictions), energy.of_latent(read).double().cpu().numpy(), _doubtful(plan, read, predictions)


@torch.inference_mode()
def _by_reader(plan: Plan, images: Tensor) -> Guided:
    predictions = plan.model.bank.predict(images)
    check_predictions(predictions, tuple(predictions), images)
    energy = energy_of_pictures(plan.rule, lambda _, names: predictions, images)
    return tabulate(predictions), energy.double().cpu().numpy(), np.zeros(len(images), bool)


def _doubtful(plan: Plan, read: Tensor, predictions: Predictions) -> npt.NDArray[np.bool_]:
    """For each sample, whether heads and second heads, fitted to other labels, disagree about the query, (n,)."""
    second, names = plan.model.second, list(dict.fromkeys(node.name for node in predicates(plan.expr)))
    if not second.keys() & set(names):
        return np.zeros(len(read), bool)
    others = second_bank(heads_of(plan.model.bank, "a second head"), second).predict(read, names)
    sets = ({name: predictions[name] for name in names}, others)
    first, other = (satisfied(plan.expr, decide(heads), plan.model.vocabulary) for heads in sets)
    return np.asarray(first != other)
