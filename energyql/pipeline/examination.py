"""The examination of a reader of words on random pictures of a model, before it decides on pictures without labels.

A dual encoder, such as CLIP, gives a logit to every pair of a picture and a text, also if it cannot read them. So it is
asked what is known: the names of the model's own attributes as texts, which the heads predict for the same pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from energyql.attributes.predictions import decide
from energyql.errors import ArgumentError, EnergyQLError, WeakHeadError, either
from energyql.files import read_json, write_json
from energyql.kinds import KINDS
from energyql.pipeline.model import Model
from energyql.pipeline.texts import PriorPictures

PICTURES, COSTLY_PICTURES, SHOWN = 512, 96, 32
"""Number of random pictures on which a reader is examined; that number for a model whose attributes are read off
pictures, which are drawn for it; and the number on which a single text is tried."""
FEWEST_OF_EACH = 8
"""A name is asked about only if at least so many of the pictures have the attribute, and as many lack it."""
FEWEST_TEXTS = 4
"""Least number of names from which anything is concluded about a reader."""
NEGATIONS = frozenset(("no", "not", "without", "never"))
"""Words by which a text is taken for a negation."""
LEAST_AUC = 0.55
"""Lower end of the 95 % interval of the mean AUC over names, up to which a reader of words counts as guessing."""
LEAST_SPREAD = 1e-6
"""Standard deviation of the log-odds of a text over pictures, below which they count as equal."""
CONFIDENT = math.log(0.9 / 0.1)
"""Log-odds from which the reader counts as sure of a text: those of a probability of 0.9."""
MOST_CONTRADICTED, LEAST_RIGHT, MOST_OFF = 0.25, 0.8, 0.15
"""A reader is doubted if it holds a text and its negation for true together in more than this share of the pictures; if
less than this share of its surest answers is right; or if its P differs by more than this from the share of pictures
that have what is named."""


@dataclass(frozen=True)
class Examination:
    """What a reader of words knows about random pictures of a model, asked with the names of the model's attributes.

    Attributes:
        texts: number of names that were asked.
        auc: area under the ROC curve against the model's own predictions, a mean over the names; 0.5 is chance. `None`
            with fewer than `FEWEST_TEXTS` names, from which nothing is concluded.
        least_auc: lower end of the 95 % interval of `auc`, by its spread over the names.
        right: share of right answers where the reader is sure, with P of at least 0.9; `None` if it seldom is.
        contradicted: share of pictures for which it holds a name and its negation, such as "no hat", for true together;
            `None` without yes/no attributes.
        off: difference between the mean P of a name and the share of pictures that have it, a mean over the names.
    """

    texts: int
    auc: float | None = None
    least_auc: float | None = None
    right: float | None = None
    contradicted: float | None = None
    off: float | None = None

    @property
    def failure(self) -> str | None:
        """Why the reader cannot be used without labels; `None` if it can."""
        if self.least_auc is not None and self.least_auc <= LEAST_AUC:
            return (
                f"it tells the model's {self.texts} own attributes, asked by their names, no better than chance "
                f"(AUC {self.auc:.2f}, at least {self.least_auc:.2f}; chance is 0.50)"
            )
        return None

    def doubts(self, texts: Sequence[str]) -> str:
        """Return what is doubtful about the reader for these texts, as words for a summary; "" if nothing was found."""
        if self.failure:
            return self.failure
        found = []
        if self.right is not None and self.right < LEAST_RIGHT:
            found.append(f"{self.right:.0%} of its surest answers are right")
        if self.off is not None and self.off > MOST_OFF:
            found.append(f"its P is off by {self.off:.2f}")
        negated = any(NEGATIONS & {*text.lower().split()} for text in texts)
        if negated and self.contradicted is not None and self.contradicted > MOST_CONTRADICTED:
            found.append("it does not understand negations, so write NOT before the quotes")
        return "; ".join(found)

    def __str__(self) -> str:
        if self.auc is None:
            return "not examined, because the model has too few attributes to ask about"
        facts = [f"AUC {self.auc:.2f} on {self.texts} names of attributes"]
        facts += [] if self.right is None else [f"{self.right:.0%} of its surest answers are right"]
        if self.contradicted is not None:
            facts.append(f"a name and its negation both hold in {self.contradicted:.0%} of the pictures")
        facts += [] if self.off is None else [f"P is off by {self.off:.2f}"]
        return ", ".join(facts) + (f"; it fails: {self.failure}" if self.failure else "")


def check_examined(examination: Examination, texts: Sequence[str], prior: PriorPictures) -> None:
    """Raise unless the reader of words may decide about `texts` that no labels calibrate and no setting allows.

    Raises:
        WeakHeadError: the reader failed, or gives a text the same score for all pictures.
    """
    failure = examination.failure
    if failure is None and texts and not prior.model.bank.reads_pictures:
        spread = prior.zero_shot(texts, SHOWN).std(0)
        texts = [text for text, deviation in zip(texts, spread, strict=True) if deviation < LEAST_SPREAD]
        failure = "its scores do not depend on what a picture shows"
    if texts and failure:
        name = Path(prior.words.name).name
        listed = ", ".join(f'"{text}"' for text in texts)
        raise WeakHeadError(
            f"the reader of words {name} cannot decide about {listed}: {failure}",
            hint="use another reader; or label some thirty pictures and calibrate it (energyql calibrate); or allow "
            f"them by name: {either(f'allow_weak={list(texts)}', '--allow-weak')}",
        )


def examine(prior: PriorPictures) -> Examination:
    """Examine the reader of words of a model, or return what an earlier call stored in the user's folder for caches.

    Args:
        prior: random pictures of the model, under the truncation and condition of a run.
    """
    path = prior.path("examined", ".json")
    if path is not None and path.is_file():
        with suppress(EnergyQLError, TypeError):  # damaged: examined again
            return Examination(**read_json(path))
    examination = _examine(prior)
    if path is not None and examination.auc is not None:
        with suppress(ArgumentError):  # a cache is optional
            write_json(path, asdict(examination))
    return examination


@torch.inference_mode()
def _examine(prior: PriorPictures) -> Examination:
    bank = prior.model.bank
    if len(bank.vocabulary) == 0:
        return Examination(0)
    shown = torch.cat(list(prior.images(COSTLY_PICTURES))) if bank.reads_pictures else None
    values = decide(bank.predict(prior.latents[:PICTURES] if shown is None else shown))
    yes_no, classes = _claims(prior.model, values)
    names, truths = [text for text, _ in (*yes_no, *classes)], [truth for _, truth in (*yes_no, *classes)]
    if len(names) < FEWEST_TEXTS:
        return Examination(len(names))
    negatable = len(yes_no)
    texts = [*names, *(f"no {name}" for name in names[:negatable])]

    if shown is None:
        scores = prior.zero_shot(texts, PICTURES)
    else:
        odds = torch.cat([prior.uncalibrated.log_odds(part, texts) for part in shown.split(16)])
        scores = odds.double().cpu().numpy()
    asked = scores[:, : len(names)]
    aucs = np.array([_auc(column, truth) for column, truth in zip(asked.T, truths, strict=True)])
    error = float(aucs.std(ddof=1)) / math.sqrt(len(aucs))
    sure, truth = asked >= CONFIDENT, np.stack(truths, 1)
    both = (asked[:, :negatable] > 0) & (scores[:, len(names) :] > 0)
    return Examination(
        len(names), float(aucs.mean()), float(aucs.mean() - 1.96 * error),
        float(truth[sure].mean()) if sure.sum() >= FEWEST_OF_EACH else None,
        float(both.mean()) if negatable else None,
        float(np.abs((1 / (1 + np.exp(-asked.clip(-30, 30)))).mean(0) - truth.mean(0)).mean()),
    )  # fmt: skip


Claim = tuple[str, npt.NDArray[np.bool_]]
"""A text that names a value of an attribute, and of which of n pictures it is true, (n,)."""


def _claims(model: Model, values: dict[str, npt.NDArray[Any]]) -> tuple[list[Claim], list[Claim]]:
    """Claims about yes/no attributes and about classes, without weak heads and nearly constant claims."""
    yes_no, classes = list[Claim](), list[Claim]()
    for name, spec in model.vocabulary.items():
        report, words = model.report.get(name), name.replace("_", " ")
        if name not in values or KINDS[spec.kind].numeric or (report is not None and report.weak):
            continue
        if values[name].dtype == bool:
            yes_no.append((words, values[name]))
        else:
            classes += [(f"{value} {words}".replace("_", " "), values[name] == value) for value in spec.values]

    def both(claims: list[Claim]) -> list[Claim]:
        return [claim for claim in claims if min(claim[1].sum(), (~claim[1]).sum()) >= FEWEST_OF_EACH]

    return both(yes_no), both(classes)


def _auc(scores: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve: how often a true picture has a larger score than a false one; ties count half."""
    yes, no = scores[truth][:, None], scores[~truth][None]
    return float((yes > no).mean() + (yes == no).mean() / 2)
