"""The quality of a judge that is given, a function or a network, on pictures whose labels are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.judge_reports import JudgeReport
from energyql.attributes.labels import (
    Column,
    ImageLabeller,
    call_labeller,
    encode_column,
    import_labeller,
    known_cells,
    label_images,
    labeller_name,
    read_images,
)
from energyql.attributes.predictions import Categorical, Continuous, Prediction, YesNo
from energyql.attributes.quality import HeadReport
from energyql.numerics.shapes import Float
from energyql.pipeline.model import judge_mark
from energyql.progress import Report
from energyql.training.labels import LabelTable
from energyql.training.report import report_quality
from energyql.training.samples import Prior, label_prior
from energyql.training.target import WORK, Target
from energyql.vocabulary import AttributeSpec, Vocabulary

MOST_TESTS = 1_000
"""Most pictures that a judge is measured on: an interval of balanced accuracy is then about 0.05 wide."""
VALUE, OUTPUTS = "energyql/value/", "energyql/outputs/"
"""Beginnings of the columns of what a judge reads, which no attribute can be called."""


def unmeasured(judge: ImageLabeller, labels: LabelTable | ImageLabeller) -> str | None:
    """Return why a judge cannot be measured by these labels, or `None` if it can."""
    if isinstance(labels, LabelTable):
        return "it is not known which pictures the labels are about" if labels.index is None else None
    return "it gave the labels itself" if labeller_name(judge) == labeller_name(labels) else None


def measure_judge(
    judge: ImageLabeller,
    target: Target,
    prior: Prior,
    labels: LabelTable | ImageLabeller,
    vocabulary: Vocabulary,
    *,
    count: int = MOST_TESTS,
    report: Report,
) -> dict[str, HeadReport]:
    """Draw pictures whose labels are known, let a judge read them, and report on its quality.

    A judge that is given has learnt from none of these labels, so all random pictures of a table measure it. Pictures
    for a labeller have another seed than those of the heads. The intermediate results are in the folder of the target,
    for a resumption.

    Args:
        judge: a function or a network that reads pictures.
        target: the model folder.
        prior: of the labelled pictures.
        labels: their numbers and labels, or a labeller.
        vocabulary: the attributes.
        count: most pictures.
        report: told the progress.

    Returns:
        By attribute, for those that the judge reads and that have labels; nothing if `unmeasured`.

    Raises:
        DataError: the judge returns no value of an attribute for some picture, or one that the attribute cannot have.
    """
    if unmeasured(judge, labels) is not None:
        return {}
    count, columns, labeller = min(count, MOST_TESTS), {}, None
    if isinstance(labels, LabelTable):
        assert labels.index is not None
        rows = slice(max(labels.learned, len(labels.index) - count), None)
        index = labels.index[rows]
        columns = {name: cells[rows] for name, cells in labels.columns.items()}
    else:
        prior, index, labeller = replace(prior, seed=prior.seed + 1), torch.arange(count), labels
    read = label_prior(
        prior, index, _Reader(labeller, judge, vocabulary, index), target.folder / WORK / "given",
        generator=target.fingerprint, progress=lambda done: report("judge", done),
    )  # fmt: skip
    columns = columns or read
    specs = Vocabulary(
        spec for name, spec in vocabulary.items() if name in columns and {VALUE + name, OUTPUTS + name} & set(read)
    )
    answers = {name: encode_column(known_cells(columns[name], spec), spec) for name, spec in specs.items()}
    predictions = {name: _prediction(read, spec) for name, spec in specs.items()}
    return report_quality(predictions, answers, specs, {name: torch.empty(0) for name in specs})


class _Reader:
    """A labeller that adds what a judge reads off each picture to the labels of another labeller.

    Values are cells. Predictions are kept whole, as texts of numbers, so that their probabilities can be measured.

    Args:
        labeller: the other one; `None` where the labels are known.
        judge: the judge.
        vocabulary: the attributes.
        index: the pictures, which identify what is read, for the resumption.
    """

    def __init__(self, labeller: ImageLabeller | None, judge: ImageLabeller, vocabulary: Vocabulary, index: Tensor):
        self.labeller, self.judge, self.vocabulary = labeller, judge, vocabulary
        names = "" if labeller is None else labeller_name(labeller)
        self.identity = f"judge {judge_mark(judge)} {index.tolist()} {vocabulary.to_dict()} {names}"

    def __call__(self, images: Float[Tensor, "batch channels height width"]) -> dict[str, list[Any]]:
        """Return labels and readings of pictures in [-1, 1]."""
        found = {} if self.labeller is None else label_images(self.labeller, images)
        read = call_labeller(self.judge, images, "the judge")
        values = read_images(lambda _: read, images, self.vocabulary)
        for name, decided in values.items():
            outputs = _outputs(read[name], self.vocabulary[name])
            if outputs is None:
                found[VALUE + name] = decided.tolist()
            else:
                found[OUTPUTS + name] = [" ".join(map(str, row)) for row in outputs.double().cpu().tolist()]
        return found


def _outputs(read: Any, spec: AttributeSpec) -> Float[Tensor, "batch outputs"] | None:
    """Return the numbers of a prediction; `None` for values without probabilities."""
    if isinstance(read, YesNo) and spec.kind == "yes/no":
        return read.logit[:, None]
    if isinstance(read, Categorical) and read.values == spec.values:
        return read.logits
    if isinstance(read, Continuous) and spec.kind == "continuous":
        std = torch.as_tensor(read.std, device=read.mean.device).expand(read.mean.shape)
        return torch.stack([read.mean, std], 1)
    return None


def _prediction(read: Mapping[str, Column], spec: AttributeSpec) -> Prediction | Tensor:
    """Return what a judge read of an attribute, from the columns of `_Reader`."""
    if VALUE + spec.name in read:
        return encode_column(read[VALUE + spec.name], spec, "the judge")
    cells = read[OUTPUTS + spec.name]
    outputs = torch.tensor([[float(number) for number in cell.split()] for cell in cells])
    if spec.kind == "yes/no":
        return YesNo(outputs[:, 0])
    if spec.kind == "categorical":
        return Categorical(outputs, spec.values)
    return Continuous(outputs[:, 0], outputs[:, 1])


def given_judge(judge: ImageLabeller | str) -> ImageLabeller:
    """Return a judge that is given as itself or by its name."""
    return import_labeller(judge) if isinstance(judge, str) else judge


def code_report(name: str | None, judge: ImageLabeller, reports: Mapping[str, HeadReport]) -> JudgeReport:
    """Return the report on a judge that is code, for its model folder."""
    shown = name or labeller_name(judge).partition("\n")[0]
    return JudgeReport(shown, reports, judge_mark(judge))
