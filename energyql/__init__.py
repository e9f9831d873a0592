"""energyql: draw pictures of a pretrained generator that satisfy a logical query about their attributes.

>>> import energyql
>>> result = energyql.generate("smile AND NOT (glasses OR beard)", n=16)  # doctest: +SKIP

The import of this package does not import torch. A function or class of the package, such as `generate`, is imported
from its module when it is first used (PEP 562).
"""

from __future__ import annotations

import importlib.metadata
import logging
from typing import TYPE_CHECKING, Any

from energyql.errors import (
    ArgumentError,
    BudgetError,
    CheckpointWarning,
    ConstantPartWarning,
    Contradiction,
    DataError,
    EnergyQLError,
    IncompleteError,
    KindError,
    LabelWarning,
    LimitError,
    LockWarning,
    ModelError,
    NoPicturesError,
    OutOfDomainError,
    QuerySyntaxError,
    QueryWarning,
    RefusedError,
    TautologyWarning,
    UnknownAttribute,
    UnreachableError,
    VocabularyError,
    WeakHeadError,
)
from energyql.language import E, Expr, all_of, any_of, at_least, at_most, exactly, none_of, parse
from energyql.vocabulary import AttributeSpec, Vocabulary

if TYPE_CHECKING:
    from energyql.auditing.audit import audit
    from energyql.auditing.report import Audit
    from energyql.dataset import DatasetClass, DatasetPlan
    from energyql.dataset.run import write_dataset
    from energyql.dataset.shard import WrittenDataset
    from energyql.editing.edit import Edit, edit
    from energyql.editing.filmstrip import animate
    from energyql.editing.invert import Inversion, invert
    from energyql.editing.settings import Preset
    from energyql.evaluation.compare import compare_samplers
    from energyql.evaluation.evaluate import evaluate
    from energyql.gallery.gallery import Gallery, traverse, truth_table
    from energyql.generators.checkpoints.torch_file import read_weights
    from energyql.generators.load import load_generator
    from energyql.generators.onnx import load_onnx
    from energyql.labelling.sample import sample_pictures
    from energyql.pipeline.explain import Explanation, explain, list_attributes
    from energyql.pipeline.export import export_energy
    from energyql.pipeline.generate import generate, sample_latents, until_satisfied
    from energyql.pipeline.model import Model, load_model
    from energyql.pipeline.plan import Plan, plan_query
    from energyql.pipeline.result import Result
    from energyql.pipeline.run import Budget, Count, Satisfied, draw, run
    from energyql.pipeline.score import score
    from energyql.pipeline.session import Session, open_session
    from energyql.pipeline.source import ModelSource
    from energyql.pipeline.stream import stream
    from energyql.sampling import ODESolver
    from energyql.teaching.notebook import OpenLesson, open_lesson
    from energyql.training.directions import Directions, draw_directions, find_directions, name_directions
    from energyql.training.judge import train_judge
    from energyql.training.run import train_attributes

try:
    __version__ = importlib.metadata.version("energyql")
except importlib.metadata.PackageNotFoundError:  # a bare checkout
    __version__ = "0+unknown"

logging.getLogger("energyql").addHandler(logging.NullHandler())  # a program decides what it shows of our messages

_MODULES = {
    "auditing.audit": "audit", "auditing.report": "Audit",
    "dataset": "DatasetClass DatasetPlan", "dataset.shard": "WrittenDataset", "dataset.run": "write_dataset",
    "editing.edit": "Edit edit", "editing.filmstrip": "animate", "editing.invert": "Inversion invert",
    "editing.settings": "Preset", "evaluation.compare": "compare_samplers", "evaluation.evaluate": "evaluate",
    "gallery.gallery": "Gallery traverse truth_table", "generators.checkpoints.torch_file": "read_weights",
    "generators.load": "load_generator", "generators.onnx": "load_onnx", "labelling.sample": "sample_pictures",
    "pipeline.explain": "Explanation explain list_attributes", "pipeline.export": "export_energy",
    "pipeline.generate": "generate sample_latents until_satisfied", "pipeline.model": "Model load_model",
    "pipeline.plan": "Plan plan_query", "pipeline.result": "Result",
    "pipeline.run": "Budget Count Satisfied draw run", "pipeline.session": "Session open_session",
    "pipeline.score": "score", "pipeline.source": "ModelSource", "pipeline.stream": "stream", "sampling": "ODESolver",
    "teaching.notebook": "OpenLesson open_lesson",
    "training.directions": "Directions draw_directions find_directions name_directions",
    "training.judge": "train_judge", "training.run": "train_attributes",
}  # fmt: skip
_LAZY = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = [
    "ArgumentError", "AttributeSpec", "Audit", "Budget", "BudgetError", "CheckpointWarning", "ConstantPartWarning",
    "Contradiction", "Count", "DataError", "DatasetClass", "DatasetPlan", "Directions", "E", "Edit", "EnergyQLError",
    "Explanation", "Expr", "Gallery", "IncompleteError", "Inversion", "KindError", "LabelWarning", "LimitError",
    "LockWarning", "Model", "ModelError", "ModelSource", "NoPicturesError", "ODESolver", "OpenLesson",
    "OutOfDomainError", "Plan", "Preset", "QuerySyntaxError", "QueryWarning", "RefusedError", "Result", "Satisfied",
    "Session", "TautologyWarning", "UnknownAttribute", "UnreachableError", "Vocabulary", "VocabularyError",
    "WeakHeadError", "WrittenDataset", "__version__", "all_of", "animate", "any_of", "at_least", "at_most", "audit",
    "compare_samplers", "draw", "draw_directions", "edit", "evaluate", "exactly", "explain", "export_energy",
    "find_directions", "generate", "invert", "list_attributes", "load_generator", "load_model", "load_onnx",
    "name_directions", "none_of", "open_lesson", "open_session", "parse", "plan_query", "read_weights", "run",
    "sample_latents", "sample_pictures", "score", "stream", "train_attributes", "train_judge", "traverse",
    "truth_table", "until_satisfied", "write_dataset",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        globals()[name] = getattr(importlib.import_module(f"energyql.{_LAZY[name]}"), name)
        return globals()[name]
    raise AttributeError(f"module 'energyql' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
