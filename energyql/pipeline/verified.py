"""Verified sampling: heads say where to look, and a reader of pictures decides which draws are kept.

Samplers go to latents for which the heads are certain of the query. That is not where the query is true of the picture.
So a verifier, which reads pictures, looks at every draw, and a sample is drawn again until a picture is accepted. In
the mode "sure" the draws are those of the sampler. In the mode "faithful" they come from the clipped energy (see
`ClippedEnergy`), under which every latent that the heads think possible is as likely as under the prior; so the
accepted pictures have the frequencies of the prior among the pictures of which the verifier is sure. It is not equally
sure of all kinds of pictures; a `Balance` corrects the frequencies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
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
from energyql.attributes.predictions import PREDICTIONS, Prediction, Predictions
from energyql.attributes.quality import VERIFIER
from energyql.energy.clipped import clipped_density
from energyql.energy.rule import EnergyRule, compile_energy_rule
from energyql.errors import ModelError
from energyql.generators.base import class_count, condition_vector, draw_batches, encode_under
from energyql.kinds import KINDS, Cell
from energyql.language import Expr, Weight, predicates
from energyql.logic.satisfiability import noting_tautologies, satisfied
from energyql.numerics.random import normals
from energyql.pipeline.checks import unjudged
from energyql.pipeline.model import Model
from energyql.pipeline.settings import EXACT, DrawSettings, Verify
from energyql.vocabulary import AttributeSpec, Vocabulary

LEAST_PROBABILITY = 0.9
"""Probability of the query from which a verifier accepts a picture, if no held-out labels say which is best."""
LEAST_RECALL = 0.15
"""Share of the satisfying samples that a threshold must keep, although fewer pictures are then right than wanted. With
0.5, rare queries on a DCGAN were 85 % right; with 0.15 they were 93 %, for 1.9 pictures drawn in place of 1.3."""
LEAST_THRESHOLD = 0.5
"""Least probability of the query from which a verifier may accept a picture. Below it, a picture is more probably wrong
than right."""
PRIOR_LABELS = 20.0
"""Number of held-out labels that count as much as the verifier's own probabilities, when a threshold is chosen. With a
rare query, a handful of held-out samples is left at the sampled end, and they alone would decide by chance."""
BALANCE_SAMPLES = 32
"""Number of samples with which a balance corrects about half of what would be needed. On a DCGAN it was best to correct
nearly all with 60 and more samples, and hardly anything with 25 and less."""
BALANCE_WHOLE = 0.8
"""The shares of a balance are scaled so that those of a fifth of the accepted pictures would be at least 1, and are 1.
With the largest share as 1, one unusual picture would let most others be drawn again. No other values were compared."""
BALANCE_STEPS = 50
"""Most steps of the fit of a balance."""
CLIPS = (0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.12, 0.1, 0.08, 0.06, 0.05, 0.04, 0.03, 0.02, 0.01)
"""Probabilities at which the energy may be clipped."""
MOST_LOST = 0.1
"""Share of the satisfying samples that may be missed for a cheaper clip. With 20,000 labels of a DCGAN, frequencies are
then off by 0.02, as those of 600 exact samples are; with 0.05 by 0.012, for 22 % more draws of queries of 10 to 16 %
and 35 % more of rarer ones."""
WAITING, WAITING_FOR_CODE = 12, 18
"""A smaller clip is taken only while at most `attempts` / 12 pictures are drawn for one that is kept, and / 18 if code
decides, which accepts every satisfying picture and not only those of which it is sure. With 8, 24 queries on a DCGAN
with 5,000 labels take 22 draws in place of 18, and 96.7 in place of 97.2 % are right, 90 in place of 94 % of the worst;
with 16, frequencies are worse."""
ENOUGH_POSITIVES = 32
"""Number of satisfying held-out samples from which they decide on the clip. With fewer, a pilot run decides."""
PILOT, PILOT_ROUND, PILOT_KEPT = 1024, 64, 64
"""Most pictures of the pilot run, those drawn together, and the accepted ones after which it ends."""

WITHOUT = 'draw with verify="off", or --verify off'
"""Hint for runs whose pictures cannot be verified."""

Round = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]
"""P(query) by the heads for n latents of samples, (n,), and whether each satisfies the query, (n,)."""


def names_read(model: Model) -> Collection[str]:
    """Return the names of the attributes that the verifier of a model reads, or its judge if it has no verifier.

    A function does not say what it reads, so it is called with a picture of the generator. The result is () if the
    model has neither.
    """
    reader, generator = model.judge if model.verifier is None else model.verifier, model.generator
    names: Collection[str] | None = () if reader is None else getattr(reader, "vocabulary", None)
    if reader is None or names is not None:
        return names or ()
    z = normals(0, 0, 1, generator.z_dim, stream="reader").to(model.device)
    condition = condition_vector(0 if class_count(generator) else None, generator)
    encode = partial(encode_under, generator, truncation=model.truncation, condition=condition)
    ((_, picture),) = draw_batches(generator.synthesize, encode, z)
    return call_labeller(reader, picture, "the verifier").keys()


def default_verify(
    model: Model, expr: Expr, attributes: Sequence[str], names: Collection[str]
) -> tuple[Verify, str | None]:
    """Return the mode of verified sampling for runs that name none: "sure" if the model has a verifier, else "off".

    It is "off" as well if the verifier does not read an attribute of the query, or every picture satisfies the query.

    Args:
        model: the model.
        expr: the query, with attributes checked by `bind`.
        attributes: the attributes on which P(query) depends.
        names: the attributes that the verifier reads, see `names_read`.

    Returns:
        The mode; and, if the verifier cannot read the query, the reason.
    """
    if model.verifier is None or not attributes:
        return "off", None
    reason = _unread(model.verifier, expr, attributes, names)
    return ("sure" if reason is None else "off"), reason


def _unread(reader: ImageLabeller, expr: Expr, further: Sequence[str], names: Collection[str]) -> str | None:
    """Return why a reader cannot decide on a query; `None` if it can.

    Args:
        reader: the reader.
        expr: the query, with attributes checked by `bind`.
        further: attributes on which P(query) depends too, because of relations of the model.
        names: the attributes that the reader reads.
    """
    reason = unjudged(expr, names)
    if reason is None and (unread := [name for name in further if name not in names]):
        reason = f"the judge does not read {unread[0]!r}"
    name = _reader_name(reader)
    return None if reason is None else reason.replace("the judge", "the verifier" if name == VERIFIER else name)


def _reader_name(reader: ImageLabeller) -> str:
    """Return words for a verifier: `VERIFIER` for a network, or the name of the code, such as "my_labels:look"."""
    return VERIFIER if isinstance(reader, Judge | JointJudge) else (who_judges(reader) or "").removeprefix("judge ")


@dataclass(frozen=True)
class Threshold:
    """The probability of a query from which a verifier accepts a picture.

    Attributes:
        probability: the threshold.
        precision: estimated share of right pictures among those that are accepted; `None` without held-out labels.
        recall: estimated share of the satisfying samples that are accepted; `None` without held-out labels.
    """

    probability: float
    precision: float | None = None
    recall: float | None = None


@dataclass(frozen=True)
class Clip:
    """The probability at which the energy of a query is clipped, and what that costs.

    Attributes:
        probability: c, see `ClippedEnergy`.
        lost: estimated share of the satisfying samples that are missed: the mean of 1 - `clipped_density` over them.
        calls: estimated number of pictures drawn for one that is kept; `None` if none of the samples satisfies the
            query.
        satisfying: number of satisfying samples by which the estimates were made.
        samples: number of all samples by which the estimates were made.
        held_out: whether the samples are held-out labels; else they were drawn for the estimate.
    """

    probability: float
    lost: float
    calls: float | None
    satisfying: int
    samples: int
    held_out: bool = False


_FIXED = Threshold(LEAST_PROBABILITY)


class Decision(NamedTuple):
    """What a verifier says about n pictures.

    Attributes:
        accepted: whether each picture is kept, (n,).
        values: attribute -> the values that the verifier read, (n,) each.
        stated: whether the verifier returned values, and not probabilities.
    """

    accepted: npt.NDArray[np.bool_]
    values: dict[str, npt.NDArray[Any]]
    stated: bool


@dataclass(frozen=True)
class Balance:
    """Probabilities with which accepted pictures are kept, so that attributes outside the query have true frequencies.

    These are their frequencies among the held-out labels that satisfy the query.
    A verifier is surer of some pictures that satisfy the query than of others. So of all pictures that a threshold
    accepts, too many are of the kinds of which the verifier is sure. A cell is such a kind: an attribute and a set of
    its values. The probability of keeping a picture is an exponential function of the probabilities that the verifier
    gives to the cells. Of all densities with these frequencies, this one is nearest to that of the accepted pictures
    (iterative proportional fitting; Ireland and Kullback 1968).

    Attributes:
        cells: pairs of an attribute that is not in the query, and a set of its values.
        slopes: for each cell, the change of the logarithm of the share with the probability of the cell.
        offset: logarithm of the share where all probabilities are 0; shares are at most 1.
        kept: mean share that is kept of the accepted pictures.
    """

    cells: Sequence[tuple[str, Cell]]
    slopes: npt.NDArray[np.float64]
    offset: float
    kept: float

    def share(self, predictions: Predictions) -> npt.NDArray[np.float64]:
        """Return for each picture the probability with which it is kept if it is accepted, (n,)."""
        return np.exp(np.minimum(self.offset + probabilities_of(self.cells, predictions) @ self.slopes, 0))


@dataclass(frozen=True, eq=False)
class Verifier:
    """The decision of a reader of pictures on one query; made by `verifier_of`.

    Attributes:
        reader: the reader.
        expr: the query, with attributes checked by `bind`.
        rule: P(query) as a function of predictions; weights in the query make no difference.
        vocabulary: the attributes of the model.
        held_out: labelled samples of the prior with all attributes of the query; `None` if there are none.
        purity: wanted share of right pictures among those that are accepted.
        is_own: whether the reader is the network of the model by which the held-out samples were read.
        threshold: probability from which pictures are accepted. A reader that states values does not need it.
        balance: shares of the accepted pictures that are kept; `None` to keep all.
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

    def accepted(self, clip: float) -> float:
        """Return the estimated number of accepted pictures, divided by that of drawn pictures that satisfy the query.

        It is 1 if the threshold was not chosen by held-out labels. `clip` is the probability at which the energy of the
        draws is clipped.
        """
        chosen = self.for_draws(clip)
        threshold, kept = chosen.threshold, 1.0 if chosen.balance is None else chosen.balance.kept
        return kept * threshold.recall / threshold.precision if threshold.recall and threshold.precision else kept

    @property
    def is_network(self) -> bool:
        """Whether the reader is a network of this library, which gives probabilities; code may give values."""
        return isinstance(self.reader, Judge | JointJudge)

    @property
    def name(self) -> str:
        """Words for the verifier: "verifier" for a network, or the name of the code, such as "my_labels:look"."""
        return _reader_name(self.reader)

    @torch.inference_mode()
    def __call__(self, pictures: Tensor, chances: npt.NDArray[np.float64]) -> Decision:
        """Decide on pictures.

        A reader that predicts every attribute of the query accepts a picture if the probability of the whole query is
        at least the threshold. A reader that returns values, such as a function, accepts what satisfies the query.

        Args:
            pictures: (n, channels, height, width), in [-1, 1].
            chances: a random number from 0 to 1 for each picture, (n,). A picture whose share by the balance is less
                is not accepted.

        Raises:
            ModelError: the reader returns nothing about an attribute of the query.
        """
        answers = call_labeller(self.reader, pictures, "the verifier")
        values = read_images(lambda _: answers, pictures, self.vocabulary)
        if missing := [node.name for node in predicates(self.expr) if node.name not in values]:
            raise ModelError(f"pictures cannot be verified: {self.name} returns no {missing[0]!r}", hint=WITHOUT)
        predictions = {name: answers.get(name) for name in self.rule.attributes}
        if any(not isinstance(prediction, Prediction) for prediction in predictions.values()):
            holds = np.broadcast_to(satisfied(self.expr, values, self.vocabulary), len(pictures)).copy()
            return Decision(holds, values, stated=True)
        probable = self.rule.log_value(cast(Predictions, predictions)).double().exp().cpu().numpy()
        accepted = probable >= self.threshold.probability
        if self.balance is not None:
            accepted &= chances < self.balance.share(cast(Predictions, answers))
        return Decision(accepted, values, stated=False)

    @cached_property
    def labelled(self) -> Round:
        """For held-out samples P(query) by the heads, and whether the labels satisfy the query.

        Samples without a label of an attribute of the query are left out; the number of samples may be 0.
        """
        if self.held_out is None:
            return np.zeros(0), np.zeros(0, bool)
        rows, names = self._complete(), {node.name for node in predicates(self.expr)}
        values = {}
        for name in names:
            spec = self.vocabulary[name]
            values[name] = PREDICTIONS[spec.kind].decode(self.held_out.labels[name].numpy()[rows], spec)
        truth = np.broadcast_to(satisfied(self.expr, values, self.vocabulary), int(rows.sum())).copy()
        return self.rule.log_value(self.held_out.heads).double().exp().numpy()[rows], truth

    def for_draws(self, clip: float | None = None) -> Verifier:
        """Return this verifier with the best threshold and balance for draws of the prior times P, the P of the heads.

        Both are chosen by held-out labels. Without any, or for a reader that is no network of the model, the threshold
        is `LEAST_PROBABILITY`, and there is no balance.

        Args:
            clip: c, if the energy is clipped: the density of the draws is that of `clipped_density`.
                `None` if it is not; then frequencies are not those of the prior in any case, and are not balanced.
        """
        if self.held_out is None or not self.is_own:
            return self
        by_heads, truth = self.labelled
        weights = by_heads if clip is None else clipped_density(by_heads, clip)
        threshold = choose_threshold(self._readings, weights, truth, purity=self.purity)
        if clip is None:
            return replace(self, threshold=threshold)
        rows, names = self._complete(), {node.name for node in predicates(self.expr)}
        cells = [(spec.name, cell) for spec in self._others(names) for cell in self._cells(spec)]
        probable = probabilities_of(cells, self.held_out.readings)[rows]
        balance = fit_balance(cells, probable, weights * (self._readings >= threshold.probability), truth)
        return replace(self, threshold=threshold, balance=balance)

    def _others(self, names: Collection[str]) -> list[AttributeSpec]:
        """Return the attributes that the held-out samples have labels of, except those in `names`."""
        assert self.held_out is not None
        return [self.vocabulary[name] for name in self.held_out.readings if name not in names]

    def _cells(self, spec: AttributeSpec) -> Sequence[Cell]:
        """Return the sets of values of one attribute whose frequencies a `Balance` corrects.

        For classes, there is one set for each class but the last, whose frequency follows from the others. For numbers,
        there are three: the first, second and third quarter of the values in the held-out labels.
        """
        assert self.held_out is not None
        kind, labels = KINDS[spec.kind], self.held_out.labels[spec.name]
        if not kind.numeric:
            return list(kind.values(spec))[:-1]
        numbers = labels[~labels.isnan()]
        cuts = numbers.quantile(torch.tensor([0.25, 0.5, 0.75])).tolist() if len(numbers) else []
        return list(pairwise([-math.inf, *cuts]))

    @cached_property
    def _readings(self) -> npt.NDArray[np.float64]:
        """P(query) by the reader for the samples of `labelled`, (n,)."""
        assert self.held_out is not None
        probable: npt.NDArray[np.float64] = self.rule.log_value(self.held_out.readings).double().exp().numpy()
        return probable[self._complete()]

    def _complete(self) -> npt.NDArray[np.bool_]:
        """Return for each held-out sample whether it has labels of all attributes of the query."""
        assert self.held_out is not None
        labels = [self.held_out.labels[node.name] for node in predicates(self.expr)]
        complete: npt.NDArray[np.bool_] = (~torch.stack(labels).isnan()).all(0).numpy()
        return complete


def verifier_of(model: Model, expr: Expr, rule: EnergyRule, settings: DrawSettings, names: Collection[str]) -> Verifier:
    """Return the verifier of a query: that of the model, or the model's judge if it has no verifier.

    Args:
        model: the model.
        expr: the query, with attributes checked by `bind`.
        rule: the compiled query.
        settings: settings of the run.
        names: the attributes that the reader reads, see `names_read`.

    Raises:
        ModelError: the model has neither, or the reader does not read an attribute of the query.
    """
    reader = model.judge if model.verifier is None else model.verifier
    if reader is None:
        hint = "train one from labels of pictures, or give the model a function that reads its attributes as judge="
        raise ModelError(f"pictures cannot be verified: model {model.name!r} has no verifier and no judge", hint=hint)
    reason = _unread(reader, expr, rule.attributes, names)
    if reason is None and not rule.attributes:
        reason = "every picture satisfies the query"
    if reason is not None:
        raise ModelError(f"pictures cannot be verified: {reason}", hint=WITHOUT)
    unweighted = expr.map(lambda node: node.operand if isinstance(node, Weight) else node)
    if unweighted != expr or not rule.is_probability:
        with noting_tautologies():  # they were issued when the query was prepared
            rule = compile_energy_rule(unweighted, model.vocabulary, EXACT, relations=settings.relations)
    needed = {node.name for node in predicates(expr)} | {*rule.attributes}
    complete = (
        each for each in model.held_out if needed <= each.readings.keys() & each.heads.keys() & each.labels.keys()
    )
    own = reader is model.verifier and isinstance(reader, Judge | JointJudge)
    return Verifier(reader, expr, rule, model.vocabulary, next(complete, None), settings.purity, own)


def choose_threshold(
    probabilities: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    truth: npt.NDArray[np.bool_],
    *,
    purity: float,
) -> Threshold:
    """Return the lowest threshold at which the wanted share of accepted pictures is right.

    The share is estimated from held-out samples, weighted as they would be drawn, together with the probabilities
    themselves; see `PRIOR_LABELS`. If no threshold reaches the wanted share, or only one that keeps less than
    `LEAST_RECALL` of the satisfying samples, the highest threshold is returned that keeps so many, but at least
    `LEAST_THRESHOLD`.

    Args:
        probabilities: P(query) by the verifier, (n,).
        weights: density of the draws at each sample, as a multiple of the density of the prior, (n,).
        truth: whether the labels satisfy the query, (n,).
        purity: wanted share of right pictures, in (0, 1).
    """
    order = np.argsort(-probabilities)
    p, w, y = probabilities[order], weights[order], truth[order]
    total, expected = np.cumsum(w), np.cumsum(w * p)
    if not len(p) or not expected[-1] > 0:
        return _FIXED
    effective = total**2 / np.maximum(np.cumsum(w**2), 1e-300)
    mean, right = expected / np.maximum(total, 1e-300), np.cumsum(w * y) / np.maximum(total, 1e-300)
    precision = (effective * right + PRIOR_LABELS * mean) / (effective + PRIOR_LABELS)
    recall = expected / expected[-1]
    enough = np.flatnonzero((precision >= purity) & (recall >= LEAST_RECALL))
    last = int(enough[-1]) if len(enough) else int(np.searchsorted(recall, LEAST_RECALL))
    last = min(last, int((p >= LEAST_THRESHOLD).sum()) - 1)
    if last < 0:
        return Threshold(LEAST_THRESHOLD)
    return Threshold(float(p[last]), float(precision[last]), float(recall[last]))


def probabilities_of(cells: Sequence[tuple[str, Cell]], predictions: Predictions) -> npt.NDArray[np.float64]:
    """Return the probabilities of pairs of an attribute and a set of its values, (n, pairs)."""
    columns = [predictions[name].probability([cell]).double().cpu().numpy() for name, cell in cells]
    return np.stack(columns, 1) if columns else np.zeros((len(next(iter(predictions.values())).number()), 0))


def fit_balance(
    cells: Sequence[tuple[str, Cell]],
    probable: npt.NDArray[np.float64],
    accepted: npt.NDArray[np.float64],
    truth: npt.NDArray[np.bool_],
) -> Balance | None:
    """Return the balance with which accepted pictures have the mean probabilities of those that satisfy the query.

    Args:
        cells: see `Balance`.
        probable: the probability of each cell by the verifier for held-out samples, (n, cells).
        accepted: how often each sample is drawn and accepted, as a multiple of the density of the prior, (n,).
        truth: whether the labels satisfy the query, (n,).

    Returns:
        The balance, pulled towards keeping all alike the more, the fewer samples are accepted or satisfy the query;
            `None` if there is no such sample, or no cell.
    """
    if not cells or not truth.any() or not accepted.any():
        return None
    aim, rows = probable[truth].mean(0), accepted > 0
    density = accepted[rows] / accepted.sum()
    samples = 1 / (1 / truth.sum() + (density**2).sum())
    moved, slopes = probable[rows] - aim, np.zeros(len(cells))
    pull = (BALANCE_SAMPLES / samples) ** 2 * (moved.var(0) + 1e-3)
    for _ in range(BALANCE_STEPS):  # Newton's; at a minimum of log E exp(moved @ slopes), the mean of `moved` is 0
        tilted = density * np.exp(moved @ slopes - (moved @ slopes).max())
        tilted /= tilted.sum()
        mean = tilted @ moved
        curvature = (moved * tilted[:, None]).T @ moved - np.outer(mean, mean) + np.diag(pull)
        step = np.linalg.solve(curvature, mean + pull * slopes)
        largest = float(np.abs(moved @ step).max())
        slopes -= step / max(1.0, largest)
        if largest < 1e-9:
            break
    change = moved @ slopes
    order = np.argsort(change)
    whole = np.searchsorted(np.cumsum(density[order]), BALANCE_WHOLE)
    highest = float(change[order][min(whole, len(order) - 1)])
    kept = float((density * np.exp(np.minimum(change - highest, 0))).sum())
    return Balance(cells, slopes, -highest - float(aim @ slopes), kept)


def estimate_clips(
    draw: Callable[[int], Round],
    held_out: Round,
    accepted: Callable[[float], float] = lambda clip: 1.0,
    progress: Callable[[float], None] = lambda done: None,
) -> list[Clip]:
    """Return what each of `CLIPS` misses and costs, by held-out labels, or by a pilot run if they are too few.

    Args:
        draw: function from the number of a round to `PILOT_ROUND` draws with the energy clipped at the smallest of
            `CLIPS`.
        held_out: samples of the prior with labels.
        accepted: function from a clip to the number of accepted pictures for each satisfying one that is drawn.
        progress: called with the fraction of the pilot run that is done.
    """
    p, good = held_out
    by_labels = int(good.sum()) >= ENOUGH_POSITIVES
    density = np.ones_like(p)
    if not by_labels:
        rounds, done = list[Round](), 0.0
        while done < 1:
            rounds.append(draw(len(rounds)))
            accepted_pictures = sum(int(kept.sum()) for _, kept in rounds)
            done = max(len(rounds) * PILOT_ROUND / PILOT, accepted_pictures / PILOT_KEPT)
            progress(min(done, 1.0))
        p, good = (np.concatenate(column) for column in zip(*rounds, strict=True))
        density = clipped_density(p, CLIPS[-1])  # of the draws, as a multiple of the prior's
    density = np.maximum(density, 1e-300)
    mass = (1 / density)[good]
    clips, in_pilot = [], 1.0 if by_labels else accepted(CLIPS[-1])
    for c in CLIPS:
        share = clipped_density(p, c)
        weights = share / density
        # In a pilot, `good` are accepted pictures, with the threshold of the smallest clip.
        kept = weights[good].sum() * accepted(c) / in_pilot
        lost = float((mass * (1 - share[good])).sum() / mass.sum()) if good.any() else 1.0
        clips.append(Clip(c, lost, float(weights.sum() / kept) if kept else None, int(good.sum()), len(p), by_labels))
    return clips


def choose_clip(clips: Sequence[Clip], most: float) -> Clip:
    """Return the largest clip by which at most `MOST_LOST` are missed, or less if that takes too many pictures.

    Args:
        clips: the estimates for each of `CLIPS`.
        most: most pictures that a smaller clip may take for one that is kept.

    Returns:
        The clip. If it took more than `most` pictures for one that is kept, the smallest clip that takes no more is
        returned; if there is none, the cheapest.
    """
    enough = next((clip for clip in clips if clip.lost <= MOST_LOST), clips[-1])
    if enough.calls is None or enough.calls <= most:
        return enough
    affordable = [clip for clip in clips if clip.calls is not None and clip.calls <= most]
    return affordable[-1] if affordable else clips[0]
