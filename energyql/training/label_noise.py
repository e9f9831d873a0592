"""Wrong labels: how often each class is mislabelled, estimated from readings by readers that did not see the labels.

Class-conditional noise (Natarajan et al. 2013): a picture of class i has a wrong label with probability `rates[i]`,
each wrong class equally often. Rates and calibration are fitted together, by the probability of the given labels.
Wrong labels are not pruned: leaving them out costs more right ones (docs/decisions/features.md).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from energyql.kinds import KINDS
from energyql.numerics.shapes import Float, Int
from energyql.training.steps import minimise
from energyql.vocabulary import AttributeSpec

SCALE_PENALTY = 15.0
"""Factor, in nats, of the penalty log(scale)² on the sum of losses in a calibration: without it, a network that by
chance reads a hundred labels right would become much too certain."""
USUAL_RATE = 0.1
"""Mean of the exponential prior of a rate: without evidence, labels count as right."""
MOST_LOG_SCALE = 5.0
"""Largest logarithm of a scale, up or down, that a calibration tries."""
ROUNDS = 30
"""Rounds of expectation maximisation for wrong numbers."""
CLEAR_GAIN = 3.0
"""`gain` that chance reaches in at most 5 % of cases: half of a chi-squared number with two degrees (Wilks 1938)."""
LEAST_RATE, LEAST_NUMBER_RATE = 0.02, 0.04
"""Estimated rates of wrong labels of a class, and of wrong numbers, above which labels are corrected: the largest
errors of right numbers look like a few wrong ones."""
MOST_RATE = 0.4
"""Largest rate of wrong labels of a class; a fit begins at a quarter of it."""


class Calibration(NamedTuple):
    """How outputs become log-odds of the true classes: factor * outputs + shift.

    Attributes:
        scale: factor of the outputs, one number.
        shift: (outputs,).
        rates: probability that a picture of a class has a wrong label, (classes,); empty for a number.
    """

    scale: Tensor
    shift: Tensor
    rates: Float[Tensor, " classes"]


def as_logits(outputs: Float[Tensor, "rows outputs"]) -> Float[Tensor, "rows classes"]:
    """A logit for each class, also of yes/no: (0, logit of yes)."""
    return torch.cat([torch.zeros_like(outputs), outputs], 1) if outputs.shape[1] == 1 else outputs


def calibration(
    outputs: Float[Tensor, "rows outputs"],
    labels: Float[Tensor, " rows"],
    spec: AttributeSpec,
    exact: bool = False,
) -> Calibration:
    """Scale, shift and rates of wrong labels with which the labels are most probable; rates of 0 for `exact` labels.

    Temperature scaling has a factor alone (Guo et al. 2017, arXiv 1706.04599). Shifts (Platt 1999) are needed because
    networks that learned as if all classes were equally frequent predict rare ones too often. A number keeps scale 1
    and shift 0.
    """
    if KINDS[spec.kind].numeric:
        return Calibration(torch.ones(()), torch.zeros(outputs.shape[1]), torch.zeros(0))
    present = ~labels.isnan()
    own, given = outputs[present], labels[present].long()
    classes = as_logits(own).shape[1]
    log_scale, shift = torch.zeros(()).requires_grad_(), torch.zeros(outputs.shape[1]).requires_grad_()
    free = torch.full((classes,), -1.1).requires_grad_()

    def loss() -> Tensor:
        rates = torch.zeros(classes) if exact else MOST_RATE * free.sigmoid()
        penalty = SCALE_PENALTY * log_scale.square() + rates.sum() / USUAL_RATE
        scale = log_scale.clamp(-MOST_LOG_SCALE, MOST_LOG_SCALE).exp()
        return penalty / max(1, len(given)) + label_loss(own * scale + shift, given, rates)

    minimise(loss, [log_scale, shift] if exact else [log_scale, shift, free], 200)
    rates = torch.zeros(classes) if exact else MOST_RATE * free.detach().sigmoid()
    scale = log_scale.detach().clamp(-MOST_LOG_SCALE, MOST_LOG_SCALE).exp()
    return Calibration(scale, shift.detach(), rates)


def gain(
    outputs: Float[Tensor, "rows outputs"], labels: Float[Tensor, " rows"], spec: AttributeSpec, exact: bool = False
) -> float:
    """Nats by which calibrated outputs make the labels more probable than the frequencies of the classes alone do.

    Where many labels of a rare class are wrong, this tells a good reader from chance, and an area under the ROC curve
    does not. `CLEAR_GAIN` is clearly above chance. A number has none: 0.
    """
    given = labels[~labels.isnan()].long()
    if KINDS[spec.kind].numeric or not len(given):
        return 0.0
    fitted = calibration(outputs, labels, spec, exact)
    own = outputs[~labels.isnan()] * fitted.scale + fitted.shift
    shares = given.bincount().double() / len(given)
    frequencies = -torch.special.xlogy(shares, shares).sum()
    return float(len(given) * (frequencies - label_loss(own.double(), given, fitted.rates.double())))


def label_loss(
    outputs: Float[Tensor, "rows outputs"], given: Int[Tensor, " rows"], rates: Float[Tensor, " classes"]
) -> Float[Tensor, ""]:
    """Cross-entropy of noisy labels, in nats: each true class has a rate of wrong labels.

    Args:
        outputs: logits of the true classes; one column for yes/no, the logit of yes.
        given: the labels, as class numbers.
        rates: share of wrong labels of each true class.
    """
    log_p = as_logits(outputs).log_softmax(1)
    return -(log_p + _log_transitions(rates)[:, given].T).logsumexp(1).mean()


def true_classes(
    outputs: Float[Tensor, "rows outputs"], labels: Float[Tensor, " rows"], fitted: Calibration
) -> Float[Tensor, "rows classes"]:
    """P(true class | reading, label); that of the reading alone where a label is missing (NaN)."""
    log_p = as_logits(outputs * fitted.scale + fitted.shift).log_softmax(1)
    given = torch.where(labels.isnan(), 0, labels).long()
    seen = _log_transitions(fitted.rates)[:, given].T
    return (log_p + torch.where(labels.isnan()[:, None], 0.0, seen)).softmax(1)


def _log_transitions(rates: Float[Tensor, " classes"]) -> Float[Tensor, "classes classes"]:
    """Log P(label j | true class i)."""
    count = len(rates)
    others = (rates / (count - 1))[:, None].expand(-1, count)
    return torch.where(torch.eye(count, dtype=torch.bool), (1 - rates)[:, None], others).clamp(min=1e-12).log()


def wrong_labels(
    outputs: Float[Tensor, "rows outputs"],
    labels: Float[Tensor, " rows"],
    spec: AttributeSpec,
    rates: Float[Tensor, " classes"],
) -> Float[Tensor, " rows"]:
    """P(label is wrong | reading, label), by calibrated outputs; NaN where a label is missing.

    Errors of right numbers are normal; a wrong number may be any of the range of the labels.
    """
    if KINDS[spec.kind].numeric:
        return _wrong_numbers(labels - outputs[:, 0], labels)
    true = true_classes(outputs, labels, Calibration(torch.ones(()), torch.zeros(outputs.shape[1]), rates))
    given = torch.where(labels.isnan(), 0, labels).long()
    return torch.where(labels.isnan(), torch.nan, 1 - true.gather(1, given[:, None])[:, 0])


def _wrong_numbers(errors: Float[Tensor, " rows"], labels: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """P(number is wrong | its error), by expectation maximisation of its rate and the deviation of right numbers."""
    known = errors[~errors.isnan()]
    span = labels[~labels.isnan()].max() - labels[~labels.isnan()].min()
    deviation, rate, least = known.abs().median() / 0.6745, torch.tensor(USUAL_RATE), 1e-3 * span

    def wrong(own: Tensor) -> Tensor:
        right = (-0.5 * (own / deviation).square()).exp() / (deviation * math.sqrt(2 * math.pi))
        return rate / span / (rate / span + (1 - rate) * right)

    for _ in range(ROUNDS):
        deviation = deviation.clamp(min=least)
        share = wrong(known)
        deviation = ((1 - share) @ known.square() / (1 - share).sum().clamp(min=1)).sqrt()
        rate = share.mean().clamp(max=MOST_RATE)
    deviation = deviation.clamp(min=least)
    return wrong(errors)


def corrected_labels(
    outputs: Float[Tensor, "rows outputs"],
    labels: Float[Tensor, " rows"],
    spec: AttributeSpec,
    rates: Float[Tensor, " classes"],
    random: torch.Generator,
) -> Float[Tensor, " rows"]:
    """Labels with errors corrected at random, by calibrated outputs, so that shares of classes fit.

    Classes are drawn from P(true class | reading, label). A number tells nothing if it is wrong, so it becomes NaN with
    P(wrong), where more than `LEAST_NUMBER_RATE` of the numbers seem wrong.
    """
    if KINDS[spec.kind].numeric:
        wrong = wrong_labels(outputs, labels, spec, rates)
        dropped = torch.rand(len(labels), generator=random) < wrong
        return torch.where(dropped, torch.nan, labels) if wrong.nanmean() > LEAST_NUMBER_RATE else labels
    if not rates.any():
        return labels
    fitted = Calibration(torch.ones(()), torch.zeros(outputs.shape[1]), rates)
    drawn = torch.multinomial(true_classes(outputs, labels, fitted), 1, generator=random)[:, 0].float()
    return torch.where(labels.isnan(), torch.nan, drawn)
