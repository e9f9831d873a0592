"""What the parts of an evaluation share: the model, the numbers of samples, and where results are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from energyql.evaluation.judged import EvaluatedModel
from energyql.evaluation.settings import SampleCounts
from energyql.progress import Report


@dataclass(frozen=True, eq=False)
class Bench:
    """A model under measurement, and where its results are kept, so that an interrupted run can be continued.

    Attributes:
        folder: where results are written; outcomes of an earlier run with the same settings there are used again.
        report: called with the stages "prior", "queries", "oracle", "sampling" and "judging", and those of edits.
        shared: folder for judged and exact samples, which several comparisons can share; by default `folder`.
    """

    model: EvaluatedModel
    counts: SampleCounts
    folder: Path
    report: Report
    shared: Path | None = None

    @property
    def cache(self) -> Path:
        """Folder for judged and exact samples."""
        return self.shared or self.folder
