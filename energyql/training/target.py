"""The model folder that a training makes or changes: opened with its generator, checked, and written to."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from energyql.attributes.backbones import Backbone, check_backbone, default_backbone, open_backbone
from energyql.attributes.bank import Bank, FittedUnder
from energyql.attributes.heads import Head, replace_second
from energyql.attributes.judge import replace_networks
from energyql.attributes.labels import Column, ImageLabeller
from energyql.attributes.pictures import heads_of, load_bank
from energyql.attributes.quality import FIRST, VERIFIER, replace_given
from energyql.errors import ArgumentError, EnergyQLError, ModelError, VocabularyError, either
from energyql.files import (
    changing,
    finish_saving,
    read_json,
    real_path,
    replacing,
    sole_writer,
    write_json,
    write_picture,
)
from energyql.generators.base import (
    Generator,
    check_fitted_condition,
    check_generator,
    check_pictures,
    offers_features,
)
from energyql.generators.families import (
    CARD,
    CONFIG,
    NAMED,
    default_truncation,
    family_of,
    generator_mark,
    module_fingerprint,
    named_generator,
    open_generator,
    save_model,
    weights_file,
)
from energyql.generators.load import is_foreign, load_generator, save_converted
from energyql.models import model_folder, packaged_models, read_undisturbed
from energyql.models.hub import model_files
from energyql.models.unfinished import START, Work
from energyql.pipeline.model import Model, read_config, save_named_model
from energyql.pipeline.source import ModelSource
from energyql.plugins import GENERATORS, check_allowed, is_plugin
from energyql.progress import Report
from energyql.training.feature_store import STORE, see
from energyql.training.labelled import Inputs
from energyql.training.labels import Drawn, LabelTable
from energyql.training.report import draw_report
from energyql.training.samples import Prior, draw_thumbnails
from energyql.training.settings import AUTO, NONE
from energyql.training.steps import Course

AnyModel = str | Path | Generator | ModelSource
"""What a user may name for a training: a packaged model, a model folder, a checkpoint, a generator or the name of its
code (`module:factory`, or a plugin); or a `ModelSource`, which says too which code is used or allowed."""
TEACHER = "teacher"
"""Prefix of the files with the networks of a teacher, such as "teacher-0.json"."""


@dataclass(frozen=True)
class Target:
    """The model folder that a training makes or changes, with its generator and the heads from before the training.

    Attributes:
        truncation: psi of the model; `None` if the generator is an object that cannot be saved.
        bank: the attributes in the folder, if any.
        code: name of the generator's code, if the folder has it in place of weights.
        start: folder with files of a new model, which are moved to `folder` at the end.
    """

    folder: Path
    generator: Generator
    fingerprint: str
    truncation: float | None
    bank: Bank | None
    code: str | None = None
    start: Path | None = None

    @property
    def work(self) -> Work:
        """Subfolder for intermediate results, from which a training continues after an interruption."""
        return Work(self.folder)

    @property
    def space(self) -> str:
        """Default latent for new heads: that of the old ones, else "features" if the generator has some, else "w"."""
        if self.bank is not None:
            return self.bank.space
        return "features" if offers_features(self.generator) else "w"

    @property
    def psi(self) -> tuple[float, float]:
        """Default range (low, high) of psi: that of the old heads, else the psi of the model or 1 at both ends."""
        psi = 1.0 if self.truncation is None else self.truncation
        return (psi, psi) if self.bank is None else self.bank.truncation

    def fitted(
        self, space: str, truncation: tuple[float, float], condition: int | Sequence[float] | str | None
    ) -> FittedUnder:
        """Conditions of a training, which are saved with the heads.

        Args:
            space: latent that the heads read, such as "w".
            truncation: range (low, high) of psi.
            condition: condition of the samples, or "random"; `None` for that of the heads in the folder.

        Raises:
            ArgumentError: the generator needs a condition, or has no such one; or heads on `space` cannot have it.
        """
        own = None if self.bank is None else self.bank.condition
        checked = check_fitted_condition(own if condition is None else condition, self.generator)
        try:
            return FittedUnder(space, truncation, checked, self.fingerprint)
        except ModelError as error:
            raise ArgumentError(error.message, hint=error.hint) from None

    def prior(self, seed: int, fitted: FittedUnder, device: torch.device | str) -> Prior:
        """Prior samples; the generator is moved to `device` and put into evaluation mode."""
        if isinstance(self.generator, torch.nn.Module):
            self.generator.to(device).eval()
        return Prior(self.generator, seed, fitted, torch.device(device))

    def prior_of(self, drawn: Drawn, device: torch.device | str) -> Prior:
        """Prior samples of the pictures of a table, for heads that read w."""
        psi = drawn.truncation
        return self.prior(drawn.seed, FittedUnder("w", (psi, psi), drawn.condition, self.fingerprint), device)

    def check_names(self, names: Sequence[str], replace: bool) -> None:
        """Raise a `VocabularyError` if `replace` is false and the model already has an attribute in `names`."""
        own = {} if self.bank is None else self.bank.vocabulary
        if not replace and (taken := [name for name in names if name in own]):
            names, option = ", ".join(map(repr, taken)), either("replace=True", "--replace")
            raise VocabularyError(f"the model already has {names}", hint=f"rename it, or replace the old one: {option}")

    def check_latents(self, fitted: FittedUnder) -> None:
        """Raise a `ModelError` unless latent space, truncation and condition of new heads are those of the old ones."""
        own = None if self.bank is None else self.bank.fitted
        if own is not None and not own.is_beside(fitted):
            raise ModelError(f"the attributes of {self.folder} read {own}, so new ones cannot read {fitted}")

    @contextmanager
    def changing(self) -> Iterator[Target]:
        """Change the model in one step: yield a copy of this target with a temporary folder to write into.

        When the `with` block ends, its files are moved to `folder`. A killed process leaves the model as it was before
        the block or as after it. So a training writes all its changes (heads, judges and teacher) in one block.
        """
        with changing(self.folder) as folder:
            for path in [] if self.start is None else list(self.start.iterdir()):
                path.replace(folder / path.name)
            if self.code is not None:
                psi = 1.0 if self.truncation is None else self.truncation
                save_named_model(folder, real_path(self.folder).name, self.code, truncation=psi)
            yield replace(self, folder=folder)

    def save(self, bank: Bank, name: str, *, replace: bool = False, second: Mapping[str, Head] | None = None) -> Bank:
        """Write new heads with their reports, and second heads; other files in the folder stay as they are.

        The new attributes have no judge until `store_judge` is called. If these are the first heads, the psi of the
        model is moved into the range for which they are valid.

        Args:
            name: name of the model, for the title of `report.png`.
            second: attribute -> second head, see `fit_second`.

        Returns:
            All heads of the folder, old and new.

        Raises:
            ArgumentError: the attributes in the folder are read off pictures, so heads cannot be added.
            VocabularyError: the folder has one of the attributes already, and `replace` is false.
            ModelError: the new heads do not fit the old heads.
        """
        merged = bank
        for first in (FIRST, VERIFIER):
            replace_networks(self.folder, first, bank.vocabulary)
        replace_given(self.folder, bank.vocabulary, None)
        if self.bank is not None:
            old = heads_of(self.bank, "a further head")
            replace_second(self.folder, old, bank.vocabulary, {})
            merged = old.with_heads(heads_of(bank, "a folder of heads"), replace=replace)
        elif self.truncation is not None:  # the truncation of a model must be one at which its heads are valid
            psi = min(max(self.truncation, bank.truncation[0]), bank.truncation[1])
            if psi != self.truncation:
                write_json(self.folder / CONFIG, read_json(self.folder / CONFIG) | {"truncation": psi})
        merged.save(self.folder)
        replace_second(self.folder, merged, bank.vocabulary, second or {})
        if merged.reports:
            write_picture(self.folder / "report.png", draw_report(merged.reports, f"Attribute heads of {name}"))
        else:
            (self.folder / "report.png").unlink(missing_ok=True)
        return merged


@dataclass(frozen=True)
class Task:
    """What all steps of a training need: the model, the samples, the labels and the progress report.

    Attributes:
        target: the model folder, with the heads from before the training.
        prior: prior samples, some of them labelled; `prior.fitted` has the conditions of the training.
        labels: a table, or a function that labels pictures.
        report: function of a stage and the fraction of it done.
        features: name of the backbone whose features readers of a table's pictures use; `None` for none.
    """

    target: Target
    prior: Prior
    labels: LabelTable | ImageLabeller
    report: Report
    features: str | None = None

    @property
    def table(self) -> LabelTable | None:
        """The labels if they are a table, else `None`."""
        return self.labels if isinstance(self.labels, LabelTable) else None

    @property
    def labeller(self) -> ImageLabeller | None:
        """The labels if they are a function that labels pictures, else `None`."""
        return None if isinstance(self.labels, LabelTable) else self.labels

    @property
    def has_pictures(self) -> bool:
        """Whether it is known which pictures the labels are about: not for a table with latents."""
        return self.table is None or self.table.index is not None

    @cached_property
    def picture_side(self) -> int:
        """Longer side of a picture of the generator, in pixels; one is drawn to find out."""
        with torch.no_grad():
            picture = check_pictures(self.prior.generator.synthesize(self.prior.w_there(torch.arange(1))))
        return max(picture.shape[-2:])

    def draw(
        self, step: str, prior: Prior, index: Tensor, side: int, labeller: ImageLabeller | None = None
    ) -> tuple[Tensor, dict[str, Column]]:
        """Draw and label small pictures by `draw_thumbnails`, as the step `step`, which can be continued."""
        with self.target.work.step(step) as folder:
            return draw_thumbnails(prior, index, side, folder, labeller=labeller, report=self.report)

    @property
    def backbone(self) -> Backbone | None:
        """The backbone whose features readers use; `None` for none, and if a function labels."""
        if self.features is None or not (self.table and self.has_pictures):
            return None
        return open_backbone(self.features, torch.device(self.prior.device))

    def side(self, least: int) -> int:
        """Side of the pictures that readers learn from: at least `least`, and that of the backbone."""
        return least if self.backbone is None else max(least, self.backbone.side)

    def look(self, step: str, pictures: Tensor, layers: Sequence[str] | None = None) -> Inputs:
        """Add to pictures their features, if there is a backbone.

        Without `layers`, the pictures are those of the table. Features of all layers are then kept in their folder, if
        it is known, so that the next training on more labels need not read them again.
        """
        if (backbone := self.backbone) is None:
            return pictures
        own = None if layers or self.table is None else self.table.folder
        with self.target.work.step(step) as folder:
            return see(backbone, pictures, layers or backbone.layers, self.course(step, (own or folder) / STORE, 0))

    def progress(self, stage: str) -> Callable[[float], None]:
        """Make a function of the fraction done of `stage`, which calls `report`."""
        return partial(self.report, stage)

    def course(self, stage: str, checkpoint: Path | None, seed: int) -> Course:
        """How a fit of this training runs; `stage` is its name in reports of progress."""
        return Course(seed % 2**63, self.prior.device, checkpoint, self.progress(stage))


def backbone_name(asked: str | Path, labels: object) -> str | None:
    """Name of the backbone that the setting `features` asks for, after a look at it; `None` for none.

    Raises:
        ArgumentError: there is no such folder, a library is not installed, or the labels are not about pictures.
        ModelError: the folder holds no image network, or code.
    """
    with_pictures = isinstance(labels, LabelTable) and labels.index is not None
    if asked == AUTO:
        return default_backbone() if with_pictures else None
    if asked == NONE:
        return None
    if not isinstance(asked, str | Path):
        raise ArgumentError(f"features is {AUTO}, {NONE} or the folder of an image network, not {asked!r}")
    if not with_pictures:
        wrong = "features are for a table with numbers of pictures, and these labels are none"
        raise ArgumentError(wrong, hint=f"leave out {either('features', '--features')}")
    return check_backbone(str(asked)).name


@contextmanager
def opening_target(
    model: AnyModel, out: str | Path | None, truncation: float | None = None, command: Sequence[str] | str | None = None
) -> Iterator[Target]:
    """Open the model of a training, and lock its folder until the `with` block ends.

    The block changes the model only by `Target.changing`. All else that it writes are intermediate results in a
    subfolder, which is removed at the end, except after an interruption such as Ctrl-C if `command` can continue the
    training. The results of an interrupted training before it are removed only by a block with `command` that ends
    without an error.

    Args:
        out: the model folder of the training; by default the folder of `model`.
        truncation: psi of a new model; by default that of the generator.
        command: command that continues the training after an interruption, for messages; `None` if there is none.

    Raises:
        ArgumentError: another process or thread writes into the folder, there is no folder to write to, or two
            generators are named.
        ModelError: a file is damaged, or the folder contains another generator.
        KeyboardInterrupt: the block was interrupted; the message lists the finished steps, and the command.
    """
    source = source_of(model)
    folder = training_folder(source.model, out)
    with sole_writer(folder, "a training"):
        if out is not None:
            finish_saving(folder)
        work = Work(folder)
        before = work.record
        try:
            if command is not None:
                work.begin(command)
            yield open_target(source, folder, truncation)
            if source.allow_plugins and (folder / CONFIG).is_file():
                _allow_named(folder)
            if command is not None or before is None:  # else an earlier training can still be continued
                work.remove()
        except BaseException as error:
            if command is None or isinstance(error, EnergyQLError):
                work.restore(before)
            elif isinstance(error, KeyboardInterrupt) and work.record is not None:
                steps = f"interrupted; kept: {work.kept_steps()}; to continue: {work.continuation()}"
                raise KeyboardInterrupt(steps) from error
            raise


def _allow_named(folder: Path) -> None:
    """Record that the user allows the code that a model folder names, which a training with permission has written."""
    config = read_json(folder / CONFIG)
    generator = config["generator"] if config["generator"]["kind"] == NAMED else {}
    for kind, name in {"generator": generator.get("name"), "judge": config.get("judge")}.items():
        if name is not None:
            check_allowed(name, kind, folder, True)


def training_folder(model: object, out: str | Path | None) -> Path:
    """Folder of a training: `out`, or that of `model` if it can be changed."""
    if out is not None:
        return Path(out)
    if not isinstance(model, str | Path) or is_generator_name(str(model)):
        wrong = "a generator needs a folder for its attributes"
    elif is_foreign(model):
        what = "checkpoint" if Path(model).is_file() else "pipeline"
        wrong = f"{model} is a {what}, so a model folder must be named"
    elif model in packaged_models():
        wrong = f"the packaged model {model!r} is not changed; name a folder for a copy"
    else:
        return model_folder(model)
    raise ArgumentError(wrong, hint=f"give {either('out=', '--out')}")


def source_of(model: AnyModel | Model) -> ModelSource:
    """The argument `model` of a training as a `ModelSource`.

    Raises:
        ArgumentError: a judge or a reader is named, which a training is given by arguments of its own.
    """
    source = model if isinstance(model, ModelSource) else ModelSource(model)
    if named := [name for name in ("judge", "reader") if getattr(source, name) is not None]:
        problem = f"the {named[0]} of a ModelSource is for drawing; generator and allow_plugins are for all"
        raise ArgumentError(problem, hint=f"give the {named[0]} as an argument of the function, or load_model")
    return source


def call_text(function: str, model: object, out: str | Path | None) -> str:
    """Text of a Python call, such as "train_attributes('faces', ..., out='mine') with the same arguments"."""
    model = model.model if isinstance(model, ModelSource) else model
    name = repr(str(model)) if isinstance(model, str | Path) else f"a {type(model).__name__}"
    return f"{function}({name}, ...{'' if out is None else f', out={str(out)!r}'}) with the same arguments"


def open_target(model: AnyModel, folder: Path, truncation: float | None = None) -> Target:
    """Load the generator and the heads of a model for a training that will write to `folder`, which need not exist.

    If it is no model yet, the files of the model wait in a subfolder until `Target.changing` moves them. `truncation`
    is the psi of a new model, by default that of the generator.

    Raises:
        ArgumentError: `ModelSource.model` and `ModelSource.generator` both name a generator.
        ModelError: a file is damaged, or `folder` contains another generator.
    """
    source = source_of(model)
    given = source.model
    if isinstance(given, str) and is_generator_name(given):
        if source.generator is not None:
            raise ArgumentError(f"{given} and {source.generator} are two generators; name one")
        return _named(folder, given, truncation)
    if isinstance(given, str | Path):
        if is_foreign(given):
            return _write(load_generator(given), folder, truncation, Path(given) if Path(given).is_file() else None)
        return _from_folder(source, model_folder(given), folder)
    generator = check_generator(given)
    if family_of(generator) is not None:
        return _write(generator, folder, truncation)
    mark = module_fingerprint(generator)
    return Target(folder, generator, mark, None, _bank(folder, mark))


def open_source(model: AnyModel | Model | Target) -> Target:
    """Load the generator and the heads of a model, and write nothing.

    The target has the model's folder, or the empty `Path()` for a checkpoint, a generator or a `Model`.

    Raises:
        ArgumentError: there is no generator of the name; or a generator is named for a model with its own.
        ModelError: a file is missing or damaged.
    """
    if isinstance(model, Target):
        return model
    source = source_of(model)
    model = source.model
    if isinstance(model, Model):
        return Target(Path(), model.generator, module_fingerprint(model.generator), model.truncation, model.bank)
    if isinstance(model, str | Path) and not is_foreign(model) and not is_generator_name(str(model)):
        return _opened(model_folder(model), source)
    if source.generator is not None:
        raise ArgumentError(f"the generator {source.generator} is for a model folder that names one; leave it out")
    if isinstance(model, str | Path):
        model = load_generator(model) if is_foreign(model) else named_generator(str(model))
    generator = check_generator(model)
    return Target(Path(), generator, module_fingerprint(generator), default_truncation(generator), None)


def is_generator_name(model: str) -> bool:
    """Whether `model` names a generator's code, "module:factory" or a plugin; files and packaged models come first."""
    taken = Path(model).exists() if ":" in model else is_foreign(model) or model in packaged_models()
    return not taken and is_plugin(model, GENERATORS)


def _from_folder(source: ModelSource, old: Path, folder: Path) -> Target:
    """Open the model in the folder `old` for a training that will write to `folder`, with the same generator."""
    start = None
    if real_path(folder) != real_path(old):
        if not (folder / CONFIG).is_file():
            start = read_undisturbed(old, partial(_copy, old, folder))
        elif _identity(folder) != _identity(old):
            raise ModelError(f"{folder} holds another generator than {old}")
    return replace(_opened(start or folder, source), folder=folder, start=start)


def _new_start(folder: Path) -> Path:
    """Make an empty folder, among the intermediate results, for the files of a new model."""
    start = Work(folder).folder / START
    shutil.rmtree(start, ignore_errors=True)
    start.mkdir(parents=True)
    return start


def _copy(source: Path, target: Path) -> Path:
    """Copy the files of a model to a new start (`_new_start`) of the folder `target`, under its name."""
    folder, name = _new_start(target), real_path(target).name
    config = read_json(source / CONFIG)
    for file in [*model_files(source), *sorted(source.glob(f"{TEACHER}-*"))]:
        # The card of a converted checkpoint has the licence; other cards are about the old model.
        if file.name != CONFIG and (file.name != CARD or "source" in config):
            with replacing(folder / file.name) as temporary:
                shutil.copyfile(file, temporary)
    path = folder / "vocabulary.json"
    if path.is_file() and isinstance((described := read_json(path)).get("vocabulary"), dict):
        write_json(path, described | {"vocabulary": described["vocabulary"] | {"model": name}})
    write_json(folder / CONFIG, config | {"name": name})  # last: a folder with a configuration is a model
    return folder


def _identity(folder: Path) -> object:
    """Value that is equal for model folders with the same generator."""
    return generator_mark(folder) if weights_file(folder).is_file() else read_json(folder / CONFIG).get("generator")


def _write(generator: Generator, folder: Path, truncation: float | None, checkpoint: Path | None = None) -> Target:
    """Open `folder` for a training on a generator that can be saved, from `checkpoint` or as an object."""
    if (folder / CONFIG).is_file():
        opened = _opened(folder)
        if module_fingerprint(opened.generator) != module_fingerprint(generator):
            raise ModelError(f"{folder} holds another generator")
        return opened
    psi = default_truncation(generator) if truncation is None else truncation
    start, name = _new_start(folder), real_path(folder).name
    if checkpoint is None:
        mark = save_model(start, name, generator, truncation=psi, dtype=torch.float32)
        if not weights_file(start).is_file():  # they stay outside, and may be large: they are not read again
            return Target(folder, generator, mark, psi, None, start=start)
    else:
        save_converted(start, name, generator, checkpoint, truncation=psi)
    return replace(_opened(start), folder=folder, start=start)


def _named(folder: Path, name: str, truncation: float | None) -> Target:
    """Open `folder` for a training on a generator that code makes: its name is recorded, not weights.

    The psi of a new model is by default the largest at which heads in the folder are valid, or 1 without heads.
    """
    generator = named_generator(name)
    mark = module_fingerprint(generator)
    bank = _bank(folder, mark)
    if (folder / CONFIG).is_file():
        settings = read_json(folder / CONFIG).get("generator")
        if not isinstance(settings, dict) or settings.get("kind") != NAMED:
            raise ModelError(f"{folder} holds another generator than {name}")
        _, truncation, _ = read_config(folder)
    elif truncation is None:
        truncation = 1.0 if bank is None else bank.truncation[1]
    return Target(folder, generator, mark, truncation, bank, name)


def _opened(folder: Path, source: ModelSource | None = None) -> Target:
    """Open a model folder; without `source`, no code is imported."""
    if source is not None and isinstance(source.generator, str):
        return _named(folder, source.generator, None)
    own, allow_plugins = (None, False) if source is None else (source.generator, source.allow_plugins)
    _, truncation, _ = read_config(folder)
    generator, mark = open_generator(folder, own, allow_plugins=allow_plugins)
    return Target(folder, generator, mark, truncation, _bank(folder, mark, allow_plugins))


def _bank(folder: Path, fingerprint: str, allow_plugins: bool = False) -> Bank | None:
    """Attributes in a model folder, if any; raise a `ModelError` if they are of another generator."""
    if not (folder / "vocabulary.json").is_file():
        return None
    bank = load_bank(folder, allow_plugins=allow_plugins)
    if not bank.fitted.is_of(fingerprint):
        raise ModelError(f"{folder} holds attributes of another generator; train them again, or choose another folder")
    return bank
