"""What `benchmarks.noise` does with pipelines of `recipes.flow`: gradients, prompts in its words, LogDiff's rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from energyql.attributes.predictions import Predictions
from energyql.energy.circuit import CircuitFold, CircuitRule
from energyql.energy.rule import compile_energy_rule
from energyql.errors import ArgumentError
from energyql.generators.diffusers import PipelineGenerator
from energyql.generators.families import module_fingerprint
from energyql.kinds import KINDS, Cell
from energyql.language import Expr, Predicate
from energyql.logic.diagram import predicate_cells
from energyql.progress import Report
from energyql.sampling import normals
from energyql.vocabulary import AttributeSpec, Vocabulary
from recipes.avatars.vocabulary import VOCABULARY
from recipes.flow.captions import NUMBERS, PHRASES, SUBJECT
from recipes.flow.training import Flow, decode

AT_ONCE = 64
"""Pictures that are drawn together."""
ROUNDING = 1e-3
"""Largest difference of a picture of our loop from that of the pipeline."""
LEAST = 1e-3
"""Least probability that an attribute has none of its classes that have prompts."""


class FlowGenerator(PipelineGenerator):
    """A pipeline of the recipe, drawn by a loop of our own, so that autograd can differentiate the pictures.

    Args:
        pipeline: a `SanaPipeline` with a scheduler of flow matching.
        call: arguments of its call, as of a `PipelineGenerator`.

    Attributes:
        evaluations: number of evaluations of the transformer for a picture.

    Raises:
        ArgumentError: our loop draws other pictures than the pipeline.
    """

    differentiable = True

    def __init__(self, pipeline: Any, call: Mapping[str, Any]) -> None:
        super().__init__(pipeline, call)
        self.requires_grad_(False)
        if self.kind != "SanaPipeline":
            raise ArgumentError(f"a {self.kind} cannot be differentiated", hint="give a pipeline of recipes.flow")
        own, call = self._pipeline, self.description["call"]
        self.flow = Flow(own.transformer, own.text_encoder, own.tokenizer)
        own.scheduler.set_timesteps(call["num_inference_steps"])
        self._sigmas: list[float] = own.scheduler.sigmas.tolist()
        self._scale = call["guidance_scale"] if call["guidance_scale"] > 1 else 1.0
        self.evaluations = (len(self._sigmas) - 1) * (1 + (self._scale != 1))
        with torch.no_grad():
            self._texts = [self.flow.read([call.get(name) or ""]) for name in ("prompt", "negative_prompt")]
            z = normals(0, 0, 1, self.z_dim, stream="bench/loop")
            difference = float((self.synthesize(z) - super().synthesize(z)).abs().max())
        if difference > ROUNDING:
            hint = "give --call complex_human_instruction=null and --call use_resolution_binning=false"
            raise ArgumentError(f"our loop differs from the pipeline by {difference:.3f}", hint=hint)

    def synthesize(self, w: Tensor) -> Tensor:
        """Return the pictures of w (batch, w_dim) in [-1, 1], (batch, 3, height, width)."""
        x = w.reshape(-1, *self.z_shape[0])
        for now, then in pairwise(self._sigmas):
            step = velocity(self.flow, x, now, *self._texts[0])
            if self._scale != 1:
                step = torch.lerp(velocity(self.flow, x, now, *self._texts[1]), step, self._scale)
            x = x + (then - now) * step
        return decode(self._pipeline.vae, x)

    def phrase(self, predicate: Predicate, *, absent: bool) -> str:
        """Return the words of the captions for a condition on an avatar, or for its contrary.

        Numbers have words for thirds of their range; those are taken that the condition allows most of.
        """
        words, spec = PHRASES[predicate.name], VOCABULARY[predicate.name]
        (allowed,) = membership([predicate_cells(predicate, spec)], spec)
        if spec.kind == "yes/no":
            return words[0 if absent else 1]
        if predicate.name in NUMBERS:
            return words[int((1 - allowed if absent else allowed).argmax())]
        told = " or ".join(word for word, share in zip(words, allowed.tolist(), strict=True) if share)
        return f"no {told}" if absent else told

    def sentence(self, base: str, phrases: list[str]) -> str:
        """Return a caption of a subject with phrases."""
        return sentence(base, phrases)


def sentence(base: str, phrases: list[str]) -> str:
    """Return a caption of a subject with phrases."""
    if not phrases:
        return base
    return f"{base or SUBJECT}{',' if ' with ' in base else ' with'} {', '.join(phrases)}"


def velocity(flow: Flow, x: Tensor, sigma: float, states: Tensor, mask: Tensor) -> Tensor:
    """Return the velocity of latents (batch, *shape) at a time from 1 (noise) to 0, all under one caption."""
    many = len(x)
    return flow.velocity(x, torch.full((many,), sigma), states.expand(many, -1, -1), mask.expand(many, -1))


def membership(cell_sets: Sequence[Sequence[Cell]], spec: AttributeSpec) -> Tensor:
    """Return how much of each class of the captions is in each set of values, in [0, 1], (sets, classes) float64.

    The classes of a number are the thirds of its range; the share of a third is that of its length.
    """
    if spec.kind != "continuous":
        values = KINDS[spec.kind].values(spec)
        return torch.tensor([[float(value in cells) for value in values] for cells in cell_sets]).double()
    rows = []
    for cells in cell_sets:
        bounds = [[((end - spec.low) / (spec.high - spec.low)) for end in cell] for cell in cells]  # type: ignore[union-attr]
        rows.append([sum(max(0.0, min(high, (k + 1) / 3) - max(low, k / 3)) for low, high in bounds) * 3
                     for k in range(3)])  # fmt: skip
    return torch.tensor(rows).double()


class Named(NamedTuple):
    """What a query asks about one attribute.

    Attributes:
        classes: indices of the classes that have prompts.
        shares: how much of these classes is in each leaf of the attribute, (leaves, classes).
        rest: how much of all other classes is in each leaf, (leaves,); `None` if all classes have prompts.
        rows: rows of the leaves in the circuit.
    """

    classes: list[int]
    shares: Tensor
    rest: Tensor | None
    rows: list[int]

    @classmethod
    def of(cls, fold: CircuitFold, spec: AttributeSpec) -> Named:
        """Return the fewest classes whose probabilities give those of all leaves of an attribute in a circuit."""
        rows = [i for i, leaf in enumerate(fold.leaves) if leaf.attribute == spec.name]
        table = membership([fold.leaves[i].cells for i in rows], spec)
        if spec.kind == "continuous":
            return cls([0, 1, 2], table, None, rows)
        groups: dict[tuple[float, ...], list[int]] = {}
        for k, column in enumerate(table.t().tolist()):
            groups.setdefault(tuple(column), []).append(k)
        others = max(groups.values(), key=len)  # the first of equal ones: no, for a yes/no attribute
        classes = [k for k in range(table.shape[1]) if k not in others]
        return cls(classes, table[:, classes], table[:, others[0]], rows)

    def normal(self, logs: Tensor) -> Tensor:
        """Return estimates of log-probabilities of the classes, (classes, batch), that sum to at most 1."""
        if self.rest is None:
            return logs.log_softmax(0)
        return logs - (logs.logsumexp(0) - math.log1p(-LEAST)).clamp(min=0)

    def leaves(self, logs: Tensor) -> Tensor:
        """Return the log-probabilities of the leaves, (leaves, batch), from those of the classes, (classes, batch)."""
        if self.rest is None:
            return torch.logsumexp(self.shares.log()[:, :, None] + logs, 1)
        rest = torch.log1p(-logs.logsumexp(0).exp())
        return torch.logsumexp(torch.cat([self.shares, self.rest[:, None]], 1).log()[:, :, None]
                               + torch.cat([logs, rest[None]]), 1)  # fmt: skip


@dataclass(frozen=True)
class LogDiff:
    """LogDiff, logical guidance in every step of a flow (Alesiani et al., ICML 2026, arXiv 2602.05549).

    The paper's: each condition A has a guidance g_A = s_A - s, the score under A minus the plain one, and a probability
    p_A = P(A | x) at the present x. A recursion gives both for formulas (its table 1): NOT A has 1 - p_A and
    -p_A / (1 - p_A) g_A; A AND B, if they are independent given x, p_A p_B and g_A + g_B; A OR B, if they exclude each
    other, p_A + p_B and (p_A g_A + p_B g_B) / (p_A + p_B); if they are independent, p_A + p_B - p_A p_B and
    (p_A (1 - p_B) g_A + p_B (1 - p_A) g_B) / (p_A + p_B - p_A p_B). Formulas must be compiled into such a circuit. For
    pictures the paper learns p_A by a classifier of noisy pictures; for molecules it estimates p_A from the
    predictions of the conditional and the plain network, by the ratio of the densities of a step.

    Ours: the circuit is that of energyql, whose values of one attribute exclude each other, and which takes attributes
    as independent; the coefficient of g_A is d log P(query) / d log p_A, which is the recursion. Scores of a flow are
    linear in velocities, so velocities are combined. There is no classifier of noisy pictures: as in the paper's second
    way, p_A starts at the share of A and is multiplied in each step by the ratio of the densities of the step under A
    and without it. For that, steps are random: those of the reversed noising process (DDPM). The ratio is exact for
    small steps, and costs no evaluation; the paper draws a probe instead. Coefficients are limited to `odds`, for p_A
    near 1 below NOT. Numbers have prompts for thirds of their range only, in which they are taken as uniform. Relations
    of the vocabulary are not used.

    Attributes:
        flow: the flow of many steps.
        decode: function from latents to pictures.
        shape: of a latent.
        base: prompt of pictures without a condition.
        evaluations: evaluations of a transformer in one call of the generator that is measured.
        identity: of the teacher, for files of results.
        steps: of the flow.
        guidance: factor of the guidance; 1 for the paper's exact rule.
        odds: limit of the coefficients.
    """

    flow: Flow
    decode: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]
    base: str
    evaluations: int
    identity: str
    steps: int = 32
    guidance: float = 1.0
    odds: float = 10.0

    @classmethod
    def of(cls, teacher: PipelineGenerator, student: PipelineGenerator, **settings: Any) -> LogDiff:
        """Return the rule for a teacher; costs are in calls of the student, whose prompt is the plain one."""
        pipe, call = teacher._pipeline, student.description["call"]
        evaluations = call["num_inference_steps"] * (1 + (call["guidance_scale"] > 1))
        flow = Flow(*(part.requires_grad_(False) for part in (pipe.transformer, pipe.text_encoder)), pipe.tokenizer)
        base, identity = call.get("prompt") or "", module_fingerprint(teacher)
        return cls(flow, lambda x: decode(pipe.vae, x), teacher.z_shape[0], base, evaluations, identity, **settings)

    def prompts(self, query: Expr, vocabulary: Vocabulary) -> int:
        """Return the number of prompts of a query, the plain one included."""
        rule = self._rule(query, vocabulary)
        return 1 + sum(len(Named.of(rule.fold, vocabulary[name]).classes) for name in rule.attributes)

    def calls(self, query: Expr, vocabulary: Vocabulary) -> float:
        """Return the cost of a picture, in calls of the generator; see `evaluations`."""
        return self.steps * self.prompts(query, vocabulary) / self.evaluations

    def _rule(self, query: Expr, vocabulary: Vocabulary) -> CircuitRule:
        rule = compile_energy_rule(query, vocabulary, relations=False)
        assert isinstance(rule, CircuitRule)
        return rule

    @torch.no_grad()
    def draw(self, query: Expr, vocabulary: Vocabulary, shares: Predictions, n: int, report: Report) -> Tensor:
        """Return n pictures of a query in [-1, 1], (n, channels, height, width).

        Args:
            query: the bound query.
            vocabulary: the attributes; captions have phrases for all of them.
            shares: predictions for random pictures; their means are the shares of the classes.
            n: number of pictures.
            report: called with the stage "LogDiff".
        """
        rule = self._rule(query, vocabulary)
        named = {name: Named.of(rule.fold, vocabulary[name]) for name in rule.attributes}
        texts = [
            sentence(self.base, [PHRASES[name][k]]) for name, each in named.items() for k in each.classes
        ]  # fmt: skip
        first = torch.cat([_shares(shares[name], vocabulary[name])[each.classes] for name, each in named.items()])
        read = [self.flow.read([text]) for text in (self.base, *texts)]
        pictures = []
        for start in range(0, n, AT_ONCE):
            count = min(AT_ONCE, n - start)
            x = self._lead(rule.fold, list(named.values()), first, read, start, count)
            pictures.append(self.decode(x))
            report("LogDiff", (start + count) / n)
        return torch.cat(pictures)

    def _lead(
        self, fold: CircuitFold, named: list[Named], first: Tensor, read: list[tuple[Tensor, Tensor]], start: int,
        count: int,
    ) -> Tensor:  # fmt: skip
        """Return the latents of the samples from `start` on at time 0.

        Args:
            fold: the circuit.
            named: the classes with prompts, attribute by attribute.
            first: log-shares of these classes, (prompts,).
            read: states and masks of the plain prompt and of the others.
            start: number of the first sample.
            count: of samples.
        """
        size = math.prod(self.shape)
        x = normals(0, start, count, size, stream="bench/logdiff").view(count, *self.shape)
        logs = first[:, None].expand(-1, count).clone()
        times = torch.linspace(1, 0, self.steps + 1).tolist()
        for k, (now, then) in enumerate(pairwise(times)):
            plain, *others = (velocity(self.flow, x, now, *each) for each in read)
            differences = torch.stack(others) - plain
            coefficients = self._coefficients(fold, named, logs).float()
            turn = self.guidance * torch.einsum("pb,pb...->b...", coefficients, differences)
            if then == 0:
                return x - now * (plain + turn)
            keep = (1 - now) / (1 - then)  # of the latent in the noising from `then` to `now`
            spread = then * math.sqrt(1 - (keep * then / now) ** 2)
            pull = (1 - then) * now - keep * then**2 / now * (1 - now)  # the mean of the step is linear in velocities
            mean = (1 - then) * (x - now * plain) + keep * then**2 / now * (x + (1 - now) * plain)
            noise = normals(0, start, count, size, stream=f"bench/logdiff/{k}").view_as(x)
            x = mean - pull * turn + spread * noise
            off = (x - mean).flatten(1).double()
            along = pull * differences.flatten(2).double()
            logs = logs - (2 * (off * along).sum(2) + along.square().sum(2)) / (2 * spread**2)
        raise AssertionError("the last time is 0")

    def _coefficients(self, fold: CircuitFold, named: list[Named], logs: Tensor) -> Tensor:
        """Return d log P(query) / d log p for each class with a prompt, limited to `odds`, (prompts, batch)."""
        sizes = [len(each.classes) for each in named]
        with torch.enable_grad():
            parts = [
                each.normal(part).detach().requires_grad_() for each, part in zip(named, logs.split(sizes), strict=True)
            ]
            leaves = torch.zeros(len(fold.leaves), logs.shape[1], dtype=logs.dtype)
            for each, part in zip(named, parts, strict=True):
                leaves = leaves.index_put((torch.tensor(each.rows),), each.leaves(part))
            slopes = torch.autograd.grad(fold(leaves).sum(), parts)
        return torch.cat(slopes).clamp(-self.odds, self.odds)


def _shares(prediction: Any, spec: AttributeSpec) -> Tensor:
    """Return the logarithms of the mean probabilities of the classes of captions, (classes,) float64."""
    if spec.kind == "continuous":
        means = (prediction.mean.double() - spec.low) / (spec.high - spec.low)
        counts = torch.bincount((means * 3).floor().clamp(0, 2).long(), minlength=3).double() + 0.5
        return (counts / counts.sum()).log()
    table = prediction.table()
    columns = np.stack(list(table.values()), 1) if isinstance(table, dict) else np.stack([1 - table, table], 1)
    return torch.from_numpy(columns.mean(0)).clamp(min=1e-6).log()
