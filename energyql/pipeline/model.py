"""Models: generator, attribute heads and judge, loaded from a folder without running code from it."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from energyql.attributes.doubt import SECOND, load_second
from energyql.attributes.heads import Head
from energyql.attributes.judge import JointJudge, Judge, stored_judge
from energyql.attributes.judge_reports import READER, judge_names, read_given
from energyql.attributes.labels import ImageLabeller, import_labeller, labeller_name, read_images
from energyql.attributes.pictures import Bank, PictureBank, load_bank
from energyql.attributes.quality import REPORT, HeadReport
from energyql.errors import ArgumentError, ModelError
from energyql.files import fingerprint, read_json, real_path
from energyql.generators.base import RANDOM, Generator, Label, check_label, device_of
from energyql.generators.checkpoints.reading import reading
from energyql.generators.families import CONFIG, module_fingerprint, open_generator
from energyql.language import ModelNamespace
from energyql.models import model_folder
from energyql.models.hub import download, is_hub_id
from energyql.pipeline.evidence import check_fitted_to, check_parts
from energyql.pipeline.saving import FORMAT, Saved
from energyql.plugins import check_allowed
from energyql.vocabulary import ByAttribute, Vocabulary

BANK_FILES = ("attributes.safetensors", "vocabulary.json", REPORT, f"{READER}.safetensors", f"{READER}.json")
NO_JUDGE = "none"
"""Name in place of a judge's, for none."""
Values = dict[str, npt.NDArray[Any]]
"""Attribute -> decided values, (n,): bool, names of classes, or numbers."""


@dataclass(frozen=True, repr=False)
class Model(Saved):
    """A generator with attribute heads and, if there is one, a judge.

    Attributes:
        name: for messages and provenance.
        generator: draws the pictures.
        bank: attribute heads that guide the sampler, or a `PictureBank`, whose reader does; its vocabulary is the
            model's.
        judge: reads attributes off pictures, independent of generator and bank: a `Judge`, or a function or torch
            module such as `train_attributes` takes; `None` if there is none. Queries about other attributes get no
            verdict.
        truncation: psi used unless a call says otherwise.
        fingerprints: SHA-256 of the weights of "generator", "attributes", "second", "reader", "judge", "judge-2", ...
        second: heads of the same attributes that were fitted to other labels, to detect latents where the first heads
            are unreliable; an attribute may have none.
        judge_report: quality of the judge on labels of pictures that it did not learn from, by attribute; attributes
            that were not measured have none.
        folder: where it was loaded from; `None` for a model made in memory.
        discriminator: for `realism`: from pictures in [-1, 1] to log(D / (1 - D)), (batch,) or (batch, 1), as the
            discriminator of a StyleGAN returns it; a torch module, or a function that autograd can differentiate.

    Raises:
        ModelError: the judge is the reader that guides the sampler, which would agree with its own mistakes.
        ArgumentError: a part is something else.
    """

    name: str
    generator: Generator
    bank: Bank
    judge: ImageLabeller | None = None
    truncation: float = 1.0
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    second: Mapping[str, Head] = field(default_factory=dict)
    judge_report: Mapping[str, HeadReport] = field(default_factory=dict)
    folder: Path | None = None
    discriminator: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        check_parts(self.name, self.generator, self.bank, self.judge)

    def __repr__(self) -> str:
        return f"<Model {self.name!r}: {type(self.generator).__name__}, attributes {', '.join(self.vocabulary)}>"

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        device: torch.device | str = "cpu",
        generator: Generator | str | None = None,
        judge: ImageLabeller | str | None = None,
        reader: ImageLabeller | str | None = None,
    ) -> Model:
        """Load a model folder, a packaged model, or a model of a hub, which is downloaded.

        Args:
            model: as for `load_model`; or `owner/name` of a hub, see `energyql.models.hub.download`.
            revision: of a model of a hub: a branch, a tag or a commit.
            device: as for `load_model`.
            generator: as for `load_model`.
            judge: as for `load_model`. Names of code that a downloaded model holds are never followed.
            reader: as for `load_model`.

        Raises:
            ModelError: it cannot be downloaded, or holds other files than data; or as for `load_model`.
            ArgumentError: the model of a `revision` is on no hub, or huggingface_hub is not installed.
        """
        if is_hub_id(model):
            model = download(str(model), revision)
        elif revision is not None:
            raise ArgumentError(f"{model} is on no hub, so it has no revision {revision!r}", hint="leave out revision")
        return load_model(model, device, generator=generator, judge=judge, reader=reader)

    @property
    def judged_names(self) -> tuple[str, ...]:
        """The attributes that the judge reads: those of its `vocabulary`; of a function without one, all."""
        known = getattr(self.judge, "vocabulary", self.vocabulary if self.judge is not None else ())
        return tuple(name for name in self.vocabulary if name in known)

    @property
    def vocabulary(self) -> Vocabulary:
        """The attributes that queries may name."""
        return self.bank.vocabulary

    @property
    def report(self) -> Mapping[str, HeadReport]:
        """Quality of the heads on held-out latents, by attribute; heads that were not measured have none."""
        return ByAttribute(self.bank.reports)

    @property
    def E(self) -> ModelNamespace:
        """The attributes by name, for queries in Python: `model.E.smile & ~model.E.hat`.

        As `energyql.E`, with completion of the model's names, and an error at once where there is no such attribute.
        """
        return ModelNamespace(self.vocabulary)

    @property
    def device(self) -> torch.device:
        """The device of the generator's tensors; that of the heads if it has none."""
        return device_of(self.generator) or self.bank.device

    def check_label(self, label: int | Sequence[float] | None) -> Label | None:
        """Return a label under which the heads are valid, as it is recorded; by default the one they were fitted under.

        Raises:
            ArgumentError: the generator has no such label, or needs one, or the heads were fitted under another.
        """
        known = self.bank.label
        fallback = None if isinstance(known, str) else known
        checked = check_label(fallback if label is None else label, self.generator)
        if known == RANDOM and isinstance(checked, tuple):
            raise ArgumentError(
                f"the attributes of model {self.name!r} hold for every class, not between classes",
                hint=f"give a class from 0 to {len(checked) - 1}",
            )
        if known not in (None, RANDOM, checked):
            raise ArgumentError(
                f"the attributes of model {self.name!r} do not hold under label {checked}",
                hint=f"they were fitted under label {known}: use that, or train them for {checked}",
            )
        return checked

    def check_truncation(self, truncation: float | None) -> float:
        """Return a psi under which the heads are valid; by default the model's own.

        Raises:
            ArgumentError: the heads were fitted under others.
        """
        psi = self.truncation if truncation is None else truncation
        low, high = self.bank.truncation
        if not low <= psi <= high:
            allowed = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            raise ArgumentError(
                f"the attributes of model {self.name!r} do not hold at truncation {psi:g}",
                hint=f"they were fitted at truncation {allowed}: use that, or train them for {psi:g}",
            )
        return psi

    def judge_images(self, images: Tensor) -> Values:
        """Return the judge's values of images (n, channels, height, width), by the attributes that it reads."""
        names = self.judged_names
        if self.judge is None or not names:
            return {}
        with torch.inference_mode():
            return read_images(self.judge, images, Vocabulary(self.vocabulary[name] for name in names))

    def to(self, device: torch.device | str) -> Model:
        """Return the model on a device, in evaluation mode. Torch modules are moved in place, as in torch."""
        for part in (self.generator, self.judge, self.discriminator):
            if isinstance(part, torch.nn.Module):
                part.to(device).eval()
        return replace(self, bank=self.bank.to(device))


def load_model(
    model: str | Path,
    device: torch.device | str = "cpu",
    *,
    generator: Generator | str | None = None,
    judge: ImageLabeller | str | None = None,
    reader: ImageLabeller | str | None = None,
    allow_plugins: bool = False,
) -> Model:
    """Load a packaged model by name, or a model folder. Only code that the arguments name or allow is run.

    Args:
        model: a packaged model's name, such as "avatars", or a folder.
        device: where to compute.
        generator: for a folder that does not hold it, the generator, or the name of its code: `module:factory`, where
            the factory is a class or a function without arguments, or the name of an installed plugin.
        judge: takes the place of the folder's judge: a judge or function as for `Model`, or its name; "none" for none.
        reader: for attributes that are read off pictures, takes the place of the reader that the folder holds or names:
            a reader as for `PictureBank`, or its name.
        allow_plugins: whether to import the generator, the judge and the reader that the folder names.

    Returns:
        The model in evaluation mode, for arguments such as `generate(..., model=model)`.

    Raises:
        ModelError: it is missing or damaged, its parts do not fit together, or it names code that is not allowed.
        ArgumentError: there is no generator, judge or reader of that name.
    """
    folder = Path(model) if generator is not None and os.path.isdir(model) else model_folder(model)
    name, truncation, judge_name = real_path(folder).name, None, None
    if generator is None or (folder / CONFIG).is_file():
        name, truncation, judge_name = _read_config(folder)
    opened, mark = open_generator(folder, generator, allow_plugins=allow_plugins)
    if truncation is not None and not any((folder / file).is_file() for file in BANK_FILES[:2]):
        raise ModelError(f"model {name!r} has no attributes yet, so it cannot be queried", hint="use energyql train")
    bank = load_bank(folder, reader, allow_plugins=allow_plugins)
    check_fitted_to(folder, bank, opened, mark)
    guide = READER if isinstance(bank, PictureBank) else "attributes"
    parts = [folder / f"{part}.safetensors" for part in (guide, *judge_names(folder), Path(SECOND).stem)]
    marks = {path.stem: fingerprint(path) for path in parts if path.is_file()} | {"generator": mark}
    if isinstance(bank, PictureBank) and (reader is not None or bank.name is not None):  # not the one of the folder
        marks[READER] = judge_mark(bank.reader)
    if judge is None and judge_name is not None:
        judge = check_allowed(judge_name, "judge", folder, allow_plugins)
    if judge is None:
        judge = stored_judge(folder, bank.vocabulary)
    else:
        marks = {part: value for part, value in marks.items() if not part.startswith("judge")}
        if isinstance(judge, str):
            judge = None if judge == NO_JUDGE else import_labeller(judge)
    psi = bank.truncation[1] if truncation is None else truncation
    quality = {} if judge is None else _judge_report(folder, judge)
    return Model(name, opened, bank, judge, psi, marks, load_second(folder, bank), quality, real_path(folder)).to(
        device
    )


def _read_config(folder: Path) -> tuple[str, float, object]:
    """Return the name of a model, its truncation, and the name of its judge, if it has one by name."""
    path = folder / CONFIG
    config = read_json(path)
    with reading(path):
        if config["format"] != FORMAT:
            found = f"model format {config['format']!r}"
            raise ModelError(f"{found} is unknown; this energyql reads {FORMAT}", hint="install a newer energyql")
        name, truncation = str(config["name"]), float(config["truncation"])
        if not math.isfinite(truncation):
            raise ValueError(f"truncation is {truncation}")
    return name, truncation, config.get("judge")


def _judge_report(folder: Path, judge: ImageLabeller) -> Mapping[str, HeadReport]:
    """Return the quality of a judge: its own report, or that in the folder if it is about this judge."""
    if isinstance(judge, Judge | JointJudge):
        return judge.report
    known = read_given(folder)
    return {} if known is None or known.mark != judge_mark(judge) else known.measured


def judge_mark(judge: Any) -> str:
    """Return a digest of name, source and weights of a judge, a reader or a discriminator that is code."""
    return hashlib.sha256(f"{labeller_name(judge)}\n{module_fingerprint(judge)}".encode()).hexdigest()


def choose_device(name: str | torch.device) -> torch.device:
    """Return the device called `name`; "auto" is a GPU if there is one.

    Raises:
        ArgumentError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ArgumentError(f"device {name!r} is not available here", hint="use auto, cpu, cuda or mps") from error
    return device
