"""A query on a mixture of prompts: each sample has one of several prompts, in shares that a pilot run estimates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.energy.rule import SEMANTICS
from energyql.errors import ArgumentError, NotAcceptedError
from energyql.language import Expr
from energyql.numerics.random import uniforms
from energyql.pipeline.draw import STREAM_BATCH, Pipeline, PreparedQuery, rows_of
from energyql.pipeline.pilot import ENOUGH, PICTURE_SAMPLES, SAMPLES, prevalence
from energyql.pipeline.result import Result
from energyql.pipeline.settings import DrawSettings
from energyql.pipeline.verified import PILOT_ROUND
from energyql.progress import Report, reporting
from energyql.sampling import SampleResult
from energyql.sampling.base import EnergyLike
from energyql.sampling.registry import describe_sampler, strengths


def prepare_mixture(
    pipeline: Pipeline, query: str | Expr, settings: DrawSettings, prompts: Sequence[str]
) -> PreparedMixture:
    """Compile a query for a generator and a list of prompts; each picture will be drawn with one of the prompts.

    Before the query is known, all prompts are equally probable.

    Args:
        pipeline: the model on a device.
        query: text or expression.
        settings: settings of the run, whose `condition` is ignored.
        prompts: the prompts.

    Raises:
        ArgumentError: under these settings the shares of the prompts cannot be estimated, or the generator takes no
            such prompt.
        EnergyQLError: the query, a name or a setting is wrong.
    """
    parts = [pipeline.prepare(query, settings, condition=prompt) for prompt in prompts]
    first = parts[0]
    if first.settings.verify == "faithful" or settings.realism or not SEMANTICS[settings.semantics].has_floor:
        problem = "the shares of several prompts are estimated without realism, jem and faithful pictures"
        raise ArgumentError(problem, hint="draw with verify=sure or off and another semantics, or give one prompt")
    copied = {each.name: getattr(first, each.name) for each in fields(PreparedQuery)}
    copied["provenance"] = first.provenance | {"condition": tuple(prompts)}
    return PreparedMixture(**copied, prompts=tuple(prompts), parts=parts)


@dataclass(frozen=True, eq=False)
class PreparedMixture(PreparedQuery):
    """A query that is compiled for each of several prompts.

    Each sample has one of the prompts, drawn at random from the seed and the number of the sample. The probability of a
    prompt is P(prompt | query), its share among the satisfying pictures if all prompts are equally common before the
    query is known.

    Attributes:
        prompts: the prompts.
        parts: the compiled query for each prompt.
    """

    prompts: tuple[str, ...] = field(kw_only=True)
    parts: Sequence[PreparedQuery] = field(kw_only=True)

    def __post_init__(self) -> None:
        for part in self.parts:
            vars(part)["calls"] = self.calls  # one budget for all prompts

    @cached_property
    def shares(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """P(prompt | query) for each prompt, and its standard error, by a pilot run that is the same for all seeds.

        Both arrays are (prompts,).

        Raises:
            NotAcceptedError: the pilot run met no picture that satisfies the query.
        """
        return self._learn(lambda *_: None)

    def _learn(self, report: Report) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        estimates = []
        for number, part in enumerate(self.parts):
            estimates.append(_mass(part))
            report("pilot", (number + 1) / len(self.parts))
        mass, error = np.array(estimates).T
        if not mass.sum():
            problem = "a pilot run met no picture that satisfies the query under any of the prompts"
            raise NotAcceptedError(problem, hint="give prompts whose pictures may satisfy it")
        share, variance = mass / mass.sum(), (error / mass.sum()) ** 2
        others = variance.sum() - variance
        return share, np.sqrt((1 - share) ** 2 * variance + share**2 * others)

    @contextmanager
    def after_pilot(self, progress: bool | Report, end: float = math.inf) -> Iterator[Report]:
        """Context that makes the pilot run for `shares`, once for a query, and yields a function that shows progress.

        Args:
            progress: whether to show a progress bar; or a function of the name of a stage and the fraction of it done.
            end: ignored, because all samples need the shares.
        """
        with reporting(progress) as report:
            if "shares" not in vars(self):
                with self.calls.pilot():
                    vars(self)["shares"] = self._learn(report)
            yield report

    def _numbers(self, index: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Return for each sample the position of its prompt in `prompts`, (n,).

        Prompts are drawn at random in the proportions `shares`, from the seed and the number of the sample in the run.

        Args:
            index: number of each sample in the run, (n,).
        """
        low = int(index.min())
        rows, place = np.unique(index - low, return_inverse=True)
        count, seed = int(rows[-1]) + 1, self.settings.seed
        chances = uniforms(seed, low, count, 1, stream="prompt", rows=rows.tolist()).numpy()[place, 0]
        numbers: npt.NDArray[np.int64] = np.searchsorted(np.cumsum(self.shares[0])[:-1], chances, side="right")
        return numbers

    def _groups(self, index: npt.NDArray[Any]) -> list[tuple[PreparedQuery, npt.NDArray[np.int64]]]:
        """Group samples by their prompts.

        Args:
            index: number of each sample in the run, (n,).

        Returns:
            For each prompt that a sample has: the query compiled for this prompt, and the positions of its samples in
                `index`.
        """
        numbers = self._numbers(index)
        return [(part, rows) for k, part in enumerate(self.parts) if len(rows := np.flatnonzero(numbers == k))]

    def _attempt(
        self, energy: EnergyLike | None, first: int, offsets: Sequence[int], *rest: Any, **options: Any
    ) -> SampleResult:
        """Run the sampler for some samples of the run, each with the energy of the query compiled for its own prompt.

        The arguments are those of `PreparedQuery._attempt`, but `energy` is ignored.
        """
        places = np.asarray(offsets)
        groups = self._groups(first + places)
        ends = [part._attempt(part.energy, first, places[rows].tolist(), *rest, **options) for part, rows in groups]
        back = torch.from_numpy(np.concatenate([rows for _, rows in groups]).argsort())
        joined = SampleResult.join([replace(end, diagnostics={}) for end in ends])
        return rows_of(joined, back)

    def _pictures(self, z: Tensor, index: npt.NDArray[Any], w: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        for some in np.split(np.arange(len(z)), range(STREAM_BATCH, len(z), STREAM_BATCH)):
            groups = [(part, torch.from_numpy(some[rows])) for part, rows in self._groups(index[some])]
            drawn = [
                batch
                for part, rows in groups
                for batch in part._pictures(z[rows], index[rows.numpy()], None if w is None else w[rows])
            ]
            back = torch.cat([rows for _, rows in groups]).argsort()
            yield torch.cat([latents for latents, _ in drawn])[back], torch.cat([images for _, images in drawn])[back]

    def _expected(self, z: Tensor, index: npt.NDArray[Any]) -> int:
        groups = ((part, torch.from_numpy(rows)) for part, rows in self._groups(index))
        return sum(part._expected(z[rows], index[rows.numpy()]) for part, rows in groups)

    def _result(self, sampled: SampleResult, index: npt.NDArray[Any], *rest: Any, **options: Any) -> Result:
        result = super()._result(sampled, index, *rest, **options)
        shares, errors = (numbers.tolist() for numbers in self.shares)
        facts = {"mixture": {"shares": shares, "errors": errors}}
        prompt = np.array(self.prompts)[self._numbers(index)]
        return replace(result, prompt=prompt, provenance=result.provenance | facts)


def _mass(part: PreparedQuery) -> tuple[float, float]:
    """Estimate the share of the pictures of one prompt that satisfy the query and that the verifier, if any, accepts.

    Args:
        part: the query, compiled for the prompt.

    Returns:
        The share, in [0, 1], and its standard error; 0 for both if no picture of the prompt is within reach.
    """
    reads, verifier = part.model.bank.reads_pictures, part.verifier
    energies = part.prior_energies()
    share, error = prevalence(energies)
    rare = error * math.sqrt(ENOUGH) > share
    count = 1 if not rare else PICTURE_SAMPLES if reads else SAMPLES  # one shows whether any sample can be drawn
    draw = partial(part._attempt, part.energy, 0, progress=lambda *_: None, seed=0)
    try:
        few = draw(range(count))
        # A sampler of another strength does not draw from the posterior whose share is asked for.
        if rare and not strengths(describe_sampler(part.sampler)) - {1.0}:
            by_sampler = prevalence(energies, few)
            share, error = min((share, error), by_sampler, key=lambda each: each[1] / each[0] if each[0] else math.inf)
        if verifier is None or not share:
            return share, error
        sampled = draw(range(PILOT_ROUND), purpose="verify/")
    except NotAcceptedError:
        if part.calls.refused:  # the budget of the run has ended
            raise
        return 0.0, 0.0
    pictures = part._pictures(sampled.z, np.arange(PILOT_ROUND))
    rate = float(np.mean(np.concatenate([verifier(images).accepted for _, images in pictures])))
    return rate * share, float(np.hypot(rate * error, share * np.sqrt(rate * (1 - rate) / PILOT_ROUND)))
