"""Verified sampling: a sampler draws latents by the heads, and a verifier decides which of the pictures are kept.

The heads may be certain of a query that is false for the picture. So a verifier reads the picture, and a sample is
drawn again until its picture is accepted. In the mode "sure", the sampler follows the energy of the query; in the mode
"faithful", a `ClippedEnergy`, and a `Balance` evens out which kinds of pictures the verifier accepts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.attributes.held_out import HeldOut
from energyql.attributes.judge import JointJudge, Judge, who_judges
from energyql.attributes.labels import ImageLabeller, call_labeller, read_images
from energyql.attributes.predictions import HEAD_KINDS, Prediction, Predictions
from energyql.attributes.quality import VERIFIER
from energyql.attributes.words import TextReader
from energyql.energy.clipped import clipped_density
from energyql.energy.rule import EnergyRule, compile_energy_rule
from energyql.errors import ModelError, either
from energyql.generators.base import class_count, condition_vector, draw_batches, encode_under
from energyql.kinds import KINDS, Cell
from energyql.language import Expr, Weight, predicates
from energyql.logic.satisfiability import noting_tautologies, satisfied
from energyql.numerics.random import normals
from energyql.pipeline.checks import why_unjudged
from energyql.pipeline.model import Model
from energyql.pipeline.settings import EXACT, DrawSettings, Verify
from energyql.vocabulary import AttributeSpec, Vocabulary

LEAST_PROBABILITY = 0.9
"""P(query) from which a picture is accepted, where no held-out labels choose the threshold."""
LEAST_RECALL = 0.15
"""Least share of the satisfying samples that a threshold must accept, even if `purity` is then not reached."""
FAITHFUL_RECALL, POOR_RECALL, POOR_PRECISION = 0.2, 0.1, 0.8
"""`LEAST_RECALL` of faithful draws; and the smaller share that is enough if, with the first, less than `POOR_PRECISION`
of the accepted pictures are right."""
LEAST_THRESHOLD = 0.5
"""Least P(query) from which a picture may be accepted: below it, the picture is more probably wrong than right."""
LEAST_ACCEPTED = 8
"""Fewest pictures of a trial that a threshold by P(query) alone accepts, even if `purity` is then not reached."""
PRIOR_LABELS = 20.0
"""Number of held-out labels that count as much as the verifier's own probabilities when a threshold is chosen, because
few labelled pictures satisfy a rare query."""
SHRINKAGE = 40.0
"""Number of satisfying pictures with which a `Balance` corrects about half of what a kind of pictures needs."""
LEAST_VARIANCE = 0.03
"""Added to the variance of each kind of pictures in the ridge penalty of a `Balance`, so that a kind with nearly all or
none of few satisfying pictures is corrected little."""
MOST_DEVIATIONS = 3.0
"""Largest correction by a `Balance`, in standard deviations of the corrections in its fit."""
MOST_LOG_ODDS = 9.2
"""Largest absolute log-odds that a `Balance` corrects: probabilities from 0.0001 to 0.9999."""
WITHOUT = "draw with " + either('verify="off"', "--verify off")
"""Hint for runs whose pictures cannot be verified."""

Round = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]
"""Of n samples: P(query) by the heads, (n,); and whether labels or the verifier say that it is satisfied, (n,)."""


def defined_names(model: Model) -> AbstractSet[str]:
    """Names of the attributes that code defines: it reads values, not predictions, off pictures.

    The code is called with one picture of the generator to find out.
    """
    bank = model.bank
    if not bank.reads_pictures or bank.reader is None or isinstance(bank.reader, Judge | JointJudge | TextReader):
        return frozenset()
    answers = _read_one(model, bank.reader)
    return {name for name in bank.vocabulary if name in answers and not isinstance(answers[name], Prediction)}


def names_read(model: Model) -> Collection[str]:
    """Names of the attributes that the verifier reads, or the judge if there is no verifier; () without both.

    A function that does not state them is called with one picture of the generator.
    """
    reader = model.judge if model.verifier is None else model.verifier
    names: Collection[str] | None = () if reader is None else getattr(reader, "vocabulary", None)
    return _read_one(model, reader).keys() if reader is not None and names is None else names or ()


def _read_one(model: Model, reader: ImageLabeller) -> Mapping[str, Any]:
    """What code reads off one picture of the generator, by attribute."""
    generator = model.generator
    z = normals(0, 0, 1, generator.z_dim, stream="reader").to(model.device)
    condition = condition_vector(0 if class_count(generator) else None, generator)
    encode = partial(encode_under, generator, truncation=model.truncation, condition=condition)
    ((_, picture),) = draw_batches(generator.synthesize, encode, z)
    return call_labeller(reader, picture, "the verifier")


def _is_network(reader: object) -> bool:
    return isinstance(reader, Judge | JointJudge)


def default_verify(
    reader: ImageLabeller, expr: Expr, attributes: Sequence[str], names: Collection[str]
) -> tuple[Verify, str | None]:
    """Return the default of `verify`, "sure" or "off", and why the verifier cannot read the query (`None` if it can).

    It is "off" if the verifier cannot read the query, or every picture satisfies it.

    Args:
        reader: the verifier, or the code that defines attributes.
        expr: the query, with attributes checked by `bind`.
        attributes: the attributes on which P(query) depends.
        names: the attributes that `reader` reads.
    """
    if not attributes:
        return "off", None
    reason = why_unjudged(expr, names, attributes, _title(reader))
    return ("sure" if reason is None else "off"), reason


def _title(reader: ImageLabeller) -> str:
    """Words for a verifier: "the verifier" for a network, or the name of the code, such as "my_labels:look"."""
    return f"the {VERIFIER}" if _is_network(reader) else (who_judges(reader) or "").removeprefix("judge ")


@dataclass(frozen=True)
class Threshold:
    """The P(query) from which a verifier accepts a picture.

    Attributes:
        precision: estimated share of right pictures among the accepted ones, by held-out labels or, if `Verifier.surer`
            chose the threshold, by P(query); `None` if not estimated.
        recall: estimated share of the satisfying samples that are accepted, by held-out labels; `None` if not
            estimated.
    """

    probability: float
    precision: float | None = None
    recall: float | None = None


_FIXED = Threshold(LEAST_PROBABILITY)


class Decision(NamedTuple):
    """The decision of a verifier on n pictures.

    Attributes:
        kept: whether each picture is kept, (n,).
        values: attribute -> the values that the verifier read, (n,) each.
        probabilities: P(query), (n,), balanced; `None` if the verifier returned values, and not probabilities.
    """

    kept: npt.NDArray[np.bool_]
    values: dict[str, npt.NDArray[Any]]
    probabilities: npt.NDArray[np.float64] | None

    @classmethod
    def join(cls, parts: Sequence[Decision]) -> Decision:
        """Decisions of one verifier on batches of pictures as one."""
        probabilities = [part.probabilities for part in parts if part.probabilities is not None]
        values = {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values}
        kept = np.concatenate([part.kept for part in parts])
        return cls(kept, values, np.concatenate(probabilities) if probabilities else None)


@dataclass(frozen=True)
class Balance:
    """A correction of P(query), so that each kind of satisfying pictures is accepted equally often.

    A verifier is surer of some kinds of pictures, such as those with red hair, so one threshold would accept too many
    of them. A linear function of the probabilities of the kinds (cells) is subtracted from the log-odds: `log_odds - (p
    - mean) @ slopes`. Thresholds that accept an equal part of each group are called equal opportunity (Hardt, Price and
    Srebro 2016, arXiv 1610.02413); here groups overlap.

    Attributes:
        cells: pairs of an attribute outside the query and a set of its values.
        mean: mean probability of each cell among the satisfying pictures, (cells,).
        slopes: change of the log-odds by the probability of each cell, (cells,).
        most: largest absolute change of the log-odds, for kinds that the fit hardly saw.
    """

    cells: Sequence[tuple[str, Cell]]
    mean: npt.NDArray[np.float64]
    slopes: npt.NDArray[np.float64]
    most: float

    def correct(
        self, probabilities: npt.NDArray[np.float64], kinds: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Correct P(query), (n,), by the cells' probabilities, (n, cells); below `LEAST_THRESHOLD` it becomes 0."""
        change = ((kinds - self.mean) @ self.slopes).clip(-self.most, self.most)
        corrected = 1 / (1 + np.exp(change - log_odds(probabilities)))
        return np.where(probabilities < LEAST_THRESHOLD, 0.0, corrected)


@dataclass(frozen=True, eq=False)
class Verifier:
    """A reader of pictures, with all that it needs to decide which pictures are kept for one query; see `verifier_of`.

    Attributes:
        reader: network or function that reads attributes off pictures.
        expr: the query, with attributes checked by `bind`.
        rule: P(query) as a function of predictions, without the weights in the query.
        held_out: random samples with predictions of heads and verifier for all attributes of the query, and labels
            where known; `None` for none.
        purity: wanted share of right pictures among the accepted ones.
        is_own: whether the reader is the model's own verifier, made of networks, so that `held_out` tells how good it
            is.
        threshold: where pictures are accepted; unused by a reader that states values.
        balance: correction of P(query) for faithful draws; `None` for none.
    """

    reader: ImageLabeller
    expr: Expr
    rule: EnergyRule
    vocabulary: Vocabulary
    held_out: HeldOut | None
    purity: float
    is_own: bool
    threshold: Threshold = _FIXED
    balance: Balance | None = None

    def kept_per_satisfying(self, clip: float) -> float:
        """Ratio of accepted to satisfying pictures, recall / precision, if the energy of draws is clipped at `clip`.

        1 if it cannot be estimated: without held-out labels, or for a reader that is not the model's own network.
        """
        threshold = self.for_draws(clip).threshold
        return threshold.recall / threshold.precision if threshold.recall and threshold.precision else 1.0

    @property
    def is_network(self) -> bool:
        """Whether the reader is a network of this library, which predicts probabilities, not a user's function."""
        return _is_network(self.reader)

    @property
    def name(self) -> str:
        """Title: "verifier" for a network, or the name of the code, such as "my_labels:look"."""
        return VERIFIER if self.is_network else _title(self.reader)

    @torch.inference_mode()
    def __call__(self, pictures: Tensor) -> Decision:
        """Decide for each picture, (n, channels, height, width) in [-1, 1], whether it is kept.

        If the reader predicts probabilities of every attribute of the query, the balanced P(query) must reach the
        threshold. If it returns values, as a function may do, they must satisfy the query.

        Raises:
            ModelError: the reader returns nothing about an attribute of the query.
        """
        answers = call_labeller(self.reader, pictures, "the verifier")
        values = read_images(lambda _: answers, pictures, self.vocabulary)
        if missing := [node.name for node in predicates(self.expr) if node.name not in values]:
            raise ModelError(f"pictures cannot be verified: {self.name} returns no {missing[0]!r}", hint=WITHOUT)
        predictions = {name: answers.get(name) for name in self.rule.attributes}
        if any(not isinstance(prediction, Prediction) for prediction in predictions.values()):
            return Decision(satisfied(self.expr, values, self.vocabulary), values, None)
        probable = self._probabilities(cast(Predictions, predictions))
        if self.balance is not None:
            probable = self.balance.correct(probable, probabilities_of(self.balance.cells, cast(Predictions, answers)))
        return Decision(probable >= self.threshold.probability, values, probable)

    @cached_property
    def labelled(self) -> Round:
        """P(query) by the heads, and whether the labels satisfy the query, for held-out samples; both (n,).

        Samples without a label of an attribute of the query are left out, so n may be 0. The networks that read a
        held-out picture did not learn from it.
        """
        if self.held_out is None:
            return np.zeros(0), np.zeros(0, bool)
        values = {}
        for node in predicates(self.expr):
            spec = self.vocabulary[node.name]
            labels = self.held_out.labels[spec.name].numpy()[self._complete]
            values[spec.name] = HEAD_KINDS[spec.kind].decode(labels, spec)
        return self._by_heads[self._complete], satisfied(self.expr, values, self.vocabulary)

    def for_draws(self, clip: float | None = None) -> Verifier:
        """Return this verifier with the threshold and the balance that fit the pictures that the sampler will draw.

        Both come from held-out samples. Without them, or for a reader that is not the model's own network, this
        verifier is returned unchanged.

        Args:
            clip: bound at which the energy of the draws is clipped. `None` for the energy of the query itself, under
                which other attributes change their frequencies: no balance then.
        """
        if self.held_out is None or not self.is_own:
            return self
        by_heads, truth = self.labelled
        labelled = self._by_reader[self._complete]
        if clip is None:
            return replace(self, threshold=choose_threshold(labelled, by_heads, truth, purity=self.purity))
        density, (cells, kinds) = clipped_density(self._by_heads, clip), self._kinds
        balance = fit_balance(cells, kinds, self._by_reader, density * self._by_reader)
        corrected = None if balance is None else balance.correct(self._by_reader, kinds)[self._complete]
        choose = partial(
            choose_threshold, labelled, density[self._complete], truth, purity=self.purity, corrected=corrected
        )
        threshold = choose(recall=FAITHFUL_RECALL)
        if (threshold.precision or 1.0) < POOR_PRECISION:
            threshold = max(threshold, choose(recall=POOR_RECALL), key=lambda each: each.precision or 0.0)
        return replace(self, threshold=threshold, balance=balance)

    @property
    def needs_trial(self) -> bool:
        """Whether it is the model's own network, and held-out labels do not show the wanted purity."""
        return self.is_own and (self.threshold.precision or 0.0) < self.purity

    def surer(self, drawn: npt.NDArray[np.float64]) -> Verifier:
        """Return this verifier with a threshold that suits pictures of the sampler.

        It is the lowest that is not below the old one and at which the mean P(query) of the accepted pictures is the
        wanted purity; or the highest that accepts `LEAST_ACCEPTED` of these pictures.

        Args:
            drawn: P(query) of drawn pictures, (n,) of at least `LEAST_ACCEPTED`.
        """
        p = np.sort(drawn)[::-1]
        means = p.cumsum() / np.arange(1, len(p) + 1)
        accepted = max(int((means >= self.purity).sum()), LEAST_ACCEPTED)
        if p[accepted - 1] <= self.threshold.probability:
            return self
        return replace(self, threshold=Threshold(float(p[accepted - 1]), float(means[accepted - 1])))

    @cached_property
    def _kinds(self) -> tuple[Sequence[tuple[str, Cell]], npt.NDArray[np.float64]]:
        """The kinds of pictures that a `Balance` corrects, and their probabilities for each held-out sample."""
        assert self.held_out is not None
        names, readings = {node.name for node in predicates(self.expr)}, self.held_out.readings
        others = [self.vocabulary[name] for name in readings if name not in names]
        cells = [(spec.name, cell) for spec in others for cell in cells_of(spec, self.held_out.labels[spec.name])]
        return cells, probabilities_of(cells, readings)

    @cached_property
    def _by_heads(self) -> npt.NDArray[np.float64]:
        """P(query) by the heads for each held-out sample, labelled or not."""
        assert self.held_out is not None
        return self._probabilities(self.held_out.heads)

    @cached_property
    def _by_reader(self) -> npt.NDArray[np.float64]:
        """P(query) by the reader for each held-out sample, labelled or not."""
        assert self.held_out is not None
        return self._probabilities(self.held_out.readings)

    def _probabilities(self, predictions: Predictions) -> npt.NDArray[np.float64]:
        probable: npt.NDArray[np.float64] = self.rule.log_value(predictions).double().exp().cpu().numpy()
        return probable

    @cached_property
    def _complete(self) -> npt.NDArray[np.bool_]:
        """Mask of the held-out samples with labels of all attributes of the query."""
        assert self.held_out is not None
        labels = [self.held_out.labels[node.name] for node in predicates(self.expr)]
        complete: npt.NDArray[np.bool_] = (~torch.stack(labels).isnan()).all(0).numpy()
        return complete


def verifier_of(
    model: Model,
    expr: Expr,
    rule: EnergyRule,
    settings: DrawSettings,
    reader: ImageLabeller | None,
    names: Collection[str],
) -> Verifier:
    """Return the `Verifier` for a query.

    Args:
        expr: the query, with attributes checked by `bind`.
        reader: the network or code that decides; `None` if the model has none.
        names: the attributes that it reads.

    Raises:
        ModelError: there is no reader, it does not read an attribute of the query, or every picture satisfies the
            query.
    """
    if reader is None:
        given = either("load_model(..., judge=look)", "--judge module:function")
        hint = f"train one from labels of pictures, or give the function that defines its attributes: {given}"
        raise ModelError(f"pictures cannot be verified: model {model.name!r} has no verifier and no judge", hint=hint)
    reason = why_unjudged(expr, names, rule.attributes, _title(reader))
    if reason is None and not rule.attributes:
        reason = "every picture satisfies the query"
    if reason is not None:
        raise ModelError(f"pictures cannot be verified: {reason}", hint=WITHOUT)
    unweighted = expr.map(lambda node: node.operand if isinstance(node, Weight) else node)
    if unweighted != expr or not rule.is_probability:
        with noting_tautologies():  # they were issued when the query was prepared
            rule = compile_energy_rule(unweighted, model.vocabulary, EXACT, relations=settings.relations)
    needed = {node.name for node in predicates(expr)} | {*rule.attributes}
    complete = (each for each in model.held_out if needed <= each.labels.keys())
    own = reader is model.verifier and _is_network(reader)
    return Verifier(reader, expr, rule, model.vocabulary, next(complete, None), settings.purity, own)


def choose_threshold(
    probabilities: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    truth: npt.NDArray[np.bool_],
    *,
    purity: float,
    recall: float = LEAST_RECALL,
    corrected: npt.NDArray[np.float64] | None = None,
) -> Threshold:
    """Return the lowest threshold at which the share `purity` of the accepted pictures satisfies the query.

    The share is estimated from n weighted held-out samples and the verifier's probabilities (see `PRIOR_LABELS`). The
    threshold accepts at least the share `recall` of the satisfying samples; if `purity` cannot be reached so, it is the
    highest that accepts this share. It is at least `LEAST_THRESHOLD`. Above `purity`, it lies in the middle, in
    log-odds, between the samples that it divides, but not below `purity`.

    Args:
        probabilities: P(query) by the verifier, (n,).
        weights: density of the draws relative to the prior, (n,).
        truth: whether the labels satisfy the query, (n,).
        purity: in (0, 1).
        recall: in (0, 1).
        corrected: `probabilities` after a `Balance`, (n,), to which the threshold then applies.
    """
    corrected = probabilities if corrected is None else corrected
    order = np.argsort(-corrected)
    p, w, y = probabilities[order], weights[order], truth[order]
    total, expected = np.cumsum(w), np.cumsum(w * p)
    if not len(p) or not expected[-1] > 0:
        return _FIXED
    effective = total**2 / np.maximum(np.cumsum(w**2), 1e-300)
    mean, right = expected / np.maximum(total, 1e-300), np.cumsum(w * y) / np.maximum(total, 1e-300)
    precision = (effective * right + PRIOR_LABELS * mean) / (effective + PRIOR_LABELS)
    share = expected / expected[-1]
    most = int((corrected >= LEAST_THRESHOLD).sum())
    if not most:
        return Threshold(LEAST_THRESHOLD)
    enough = np.flatnonzero((precision[:most] >= purity) & (share[:most] >= recall))
    last = int(enough[-1]) if len(enough) else min(int(np.searchsorted(share, recall)), most - 1)
    accepted, refused = corrected[order][last], max([*corrected[order][last + 1 : last + 2], LEAST_THRESHOLD])
    if accepted > purity:  # nothing is known between the two, so the middle; and what is as probable as wanted will do
        middle = 1 / (1 + np.exp(-log_odds(np.array([accepted, refused])).mean()))
        accepted = min(accepted, max(purity, middle))
    return Threshold(float(accepted), float(precision[last]), float(share[last]))


def cells_of(spec: AttributeSpec, labels: Tensor) -> Sequence[Cell]:
    """Return the sets of values of one attribute whose frequencies a `Balance` corrects.

    These are all classes but the last, whose frequency follows; or the three lower quarters of a number's held-out
    `labels`.
    """
    kind = KINDS[spec.kind]
    if not kind.numeric:
        return list(kind.values(spec))[:-1]
    numbers = labels[~labels.isnan()]
    cuts = numbers.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist() if len(numbers) else []
    return list(pairwise([-math.inf, *cuts]))


def probabilities_of(cells: Sequence[tuple[str, Cell]], predictions: Predictions) -> npt.NDArray[np.float64]:
    """Return the probability of each cell, an attribute with a set of its values, for n samples, (n, cells)."""
    columns = [predictions[name].probability([cell]).double().cpu().numpy() for name, cell in cells]
    return np.stack(columns, 1) if columns else np.zeros((len(next(iter(predictions.values())).number()), 0))


def fit_balance(
    cells: Sequence[tuple[str, Cell]],
    kinds: npt.NDArray[np.float64],
    probabilities: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
) -> Balance | None:
    """Fit a `Balance`: a ridge regression of the log-odds of the query on the kinds, among the satisfying pictures.

    It needs no labels, because a picture counts by its probability to satisfy the query. The fewer satisfy it, the
    smaller the correction; `None` if none does, or there are no cells.

    Args:
        cells: pairs of an attribute and a set of its values.
        kinds: the probability of each cell for random pictures, (n, cells).
        probabilities: P(query) by the verifier for the same pictures, (n,).
        weights: P(query) times the density of the draws relative to the prior, (n,).
    """
    if not cells or not weights.any():
        return None
    shares, odds = weights / weights.sum(), log_odds(probabilities)
    mean = shares @ kinds
    moved = kinds - mean
    weighted = moved * shares[:, None]
    covariance = weighted.T @ moved
    variance = np.diag(covariance) + LEAST_VARIANCE
    ridge = np.diag(SHRINKAGE * (shares @ shares) * variance)
    slopes = np.linalg.solve(covariance + ridge, weighted.T @ odds)
    return Balance(cells, mean, slopes, MOST_DEVIATIONS * float(np.sqrt(slopes @ covariance @ slopes)))


def log_odds(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Log-odds of probabilities, limited to plus and minus `MOST_LOG_ODDS`."""
    least = 1 / (1 + math.exp(MOST_LOG_ODDS))
    p = probabilities.clip(least, 1 - least)
    return np.asarray(np.log(p) - np.log1p(-p))
