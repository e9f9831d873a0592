"""The model folder that a training makes or changes.

A training opens the folder with its generator, checks that both fit the training, and saves heads into the folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from energyql.attributes.bank import Bank, FittedUnder
from energyql.attributes.heads import Head, replace_second
from energyql.attributes.judge import replace_networks
from energyql.attributes.labels import Column, ImageLabeller
from energyql.attributes.pictures import heads_of, load_bank
from energyql.attributes.quality import FIRST, VERIFIER, replace_given
from energyql.errors import ArgumentError, EnergyQLError, ModelError, VocabularyError
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
from energyql.generators.base import Generator, check_fitted_condition, check_generator, offers_features
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
from energyql.plugins import GENERATORS, is_plugin
from energyql.progress import Report
from energyql.training.labels import Drawn, LabelTable
from energyql.training.report import draw_report
from energyql.training.samples import Prior, draw_thumbnails

TEACHER = "teacher"
"""Start of the names of the files with the networks of a teacher, such as "teacher-0.json". A teacher reads pictures,
and labels them for the training of heads."""


@dataclass(frozen=True)
class Source:
    """The model that a user named, with the arguments for loading it.

    Attributes:
        model: the name of a packaged model, such as "avatars"; the path of a model folder or of a checkpoint; the name
            of code that makes a generator, such as "module:factory"; or a generator as an object. `open_source` also
            takes a `Model` or a `Target`.
        generator: name of the generator's code, if `model` is a model folder without weights; else `None`.
        allow_plugins: whether to import the generator's code that a model folder names.
    """

    model: str | Path | Generator | Model | Target
    generator: str | None = None
    allow_plugins: bool = False


@dataclass(frozen=True)
class Target:
    """The model folder that a training makes or changes, with its generator and the heads from before the training.

    Attributes:
        folder: the model folder.
        generator: the generator whose latents are labelled.
        fingerprint: fingerprint of the generator.
        truncation: truncation psi of the model; `None` if the generator is an object that cannot be saved.
        bank: the attributes in the folder (heads on latents, or a network that reads pictures); `None` if there are
            none.
        code: name of the code that makes the generator, if the folder has this name in place of weights; else `None`.
        start: folder with files of the model from before the training, which are moved to `folder` at the end; `None`
            if `folder` is a model already, or there are no such files.
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
        """The subfolder for intermediate results, from which a training continues after an interruption."""
        return Work(self.folder)

    @property
    def space(self) -> str:
        """The default latent for new heads to read: the latent that the old heads read.

        Without old heads, it is "features" (numbers that some generators compute from z for heads), or "w" if the
        generator computes no features.
        """
        if self.bank is not None:
            return self.bank.space
        return "features" if offers_features(self.generator) else "w"

    @property
    def psi(self) -> tuple[float, float]:
        """The default range (low, high) of truncation psi: the range for which the old heads are valid.

        Without old heads, both ends are the psi of the model, or 1 if the model has none.
        """
        psi = 1.0 if self.truncation is None else self.truncation
        return (psi, psi) if self.bank is None else self.bank.truncation

    def fitted(
        self, space: str, truncation: tuple[float, float], condition: int | Sequence[float] | str | None
    ) -> FittedUnder:
        """Return the conditions of a training, which are saved with the heads.

        Args:
            space: latent that the heads read, such as "w".
            truncation: range (low, high) of truncation psi.
            condition: condition of the samples, or "random"; `None` for the condition of the heads in the folder.

        Raises:
            ArgumentError: the generator needs a condition, or has no such condition; or heads that read `space` cannot
                be fitted under this condition or truncation.
        """
        own = None if self.bank is None else self.bank.condition
        checked = check_fitted_condition(own if condition is None else condition, self.generator)
        try:
            return FittedUnder(space, truncation, checked, self.fingerprint)
        except ModelError as error:
            raise ArgumentError(error.message, hint=error.hint) from None

    def prior(self, seed: int, fitted: FittedUnder, device: torch.device | str) -> Prior:
        """Return prior samples of the generator.

        The generator is moved to `device` and put into evaluation mode.

        Args:
            seed: seed of the samples.
            fitted: conditions of the samples: latent space of heads, truncation, condition, generator.
            device: where to compute.
        """
        if isinstance(self.generator, torch.nn.Module):
            self.generator.to(device).eval()
        return Prior(self.generator, seed, fitted, torch.device(device))

    def prior_of(self, drawn: Drawn, device: torch.device | str) -> Prior:
        """Return the prior samples from which labelled pictures were drawn, on `device`, for heads that read w."""
        psi = drawn.truncation
        return self.prior(drawn.seed, FittedUnder("w", (psi, psi), drawn.condition, self.fingerprint), device)

    def check_names(self, names: Sequence[str], replace: bool) -> None:
        """Raise a `VocabularyError` if `replace` is false and the model already has an attribute in `names`."""
        own = {} if self.bank is None else self.bank.vocabulary
        if not replace and (taken := [name for name in names if name in own]):
            names = ", ".join(map(repr, taken))
            raise VocabularyError(f"the model already has {names}", hint="rename it, or replace the old one: --replace")

    def check_latents(self, fitted: FittedUnder) -> None:
        """Raise a `ModelError` if heads with the conditions `fitted` cannot be in one folder with the old heads.

        Latent space, truncation and condition of old and new heads must be equal.
        """
        own = None if self.bank is None else self.bank.fitted
        if own is not None and not own.is_beside(fitted):
            raise ModelError(f"the attributes of {self.folder} read {own}, so new ones cannot read {fitted}")

    @contextmanager
    def changing(self) -> Iterator[Target]:
        """Yield a copy of this target with a temporary folder, into which a `with` block writes.

        When the block ends, the files that it has written are moved to `folder`. If the process is killed, the model is
        either as before the block or as after it, never between. A training writes all its changes of the model (heads,
        judges and teacher) in one such block.
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

        The new attributes have no judge until `store_judge` is called. Heads are valid for a range of truncation psi.
        If the model has no old heads, and its psi is outside the range of the new heads, the psi is changed to the
        nearest end of the range.

        Args:
            bank: the new heads.
            name: name of the model, for the title of `report.png`.
            replace: whether new heads may replace old heads of the same attributes.
            second: attribute -> second head, which learned from only half of the samples. Where the first and the
                second head disagree, predictions are doubtful.

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
        target: the model folder, with the heads from before the training; `target.work` is for intermediate results.
        prior: prior samples; some of them are labelled. `prior.fitted` is the conditions of the training.
        labels: a table of labels, or a function that labels pictures.
        report: function that is called with the name of a stage and the fraction of it that is done.
    """

    target: Target
    prior: Prior
    labels: LabelTable | ImageLabeller
    report: Report

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
        """Whether it is known which pictures the labels are about.

        False for a table that has latents in place of the numbers of pictures.
        """
        return self.table is None or self.table.index is not None

    def draw(
        self, step: str, prior: Prior, index: Tensor, side: int, labeller: ImageLabeller | None = None
    ) -> tuple[Tensor, dict[str, Column]]:
        """Draw the pictures of prior samples in a step of the training, and return `draw_thumbnails` of them.

        Args:
            step: name under which thumbnails and labels are stored, so that an interrupted training continues.
            prior: prior samples.
            index: indices of the samples, (n,).
            side: side of the thumbnails, in pixels.
            labeller: function that labels pictures.
        """
        with self.target.work.step(step) as folder:
            return draw_thumbnails(prior, index, side, folder, labeller=labeller, report=self.report)

    def progress(self, stage: str) -> Callable[[float], None]:
        """Return a function of the fraction done of `stage`, which calls `report` with the stage and the fraction."""
        return partial(self.report, stage)


@contextmanager
def opening_target(
    source: Source, out: str | Path | None, truncation: float | None = None, command: Sequence[str] | str | None = None
) -> Iterator[Target]:
    """Open the model of a training, yield it to a `with` block, and lock the model folder until the block ends.

    The block changes the model only by `Target.changing`. All other files that it writes are intermediate results, in a
    subfolder of the model folder. What happens to the subfolder at the end depends on how the block ends:

    - If the block ends without an error or by an `EnergyQLError`, the subfolder is removed.
    - If the block ends in another way, such as by Ctrl-C, the subfolder stays, so that `command` continues the
      training; without `command`, the subfolder is removed.

    If an earlier, interrupted training has left results in the subfolder, they are removed only by a block with
    `command` that ends without an error.

    Args:
        source: the model.
        out: the model folder of the training; by default the folder of `source`.
        truncation: truncation psi of a new model; by default the psi of the generator.
        command: the command that continues the training after an interruption: words of the command line after
            `energyql`, or the text of a call. `None` if it cannot be continued.

    Raises:
        ArgumentError: another process or thread writes into the folder, there is no folder to write to, or two
            generators are named.
        ModelError: a file is damaged, or the folder contains another generator.
        KeyboardInterrupt: the block was interrupted; the message lists the finished steps, and the command.
    """
    folder = _folder(source.model, out)
    with sole_writer(folder, "a training"):
        if out is not None:
            finish_saving(folder)
        work = Work(folder)
        before = work.record
        try:
            if command is not None:
                work.begin(command)
            yield open_target(source, folder, truncation)
            if command is not None or before is None:  # else an earlier training can still be continued
                work.remove()
        except BaseException as error:
            if command is None or isinstance(error, EnergyQLError):
                work.restore(before)
            elif isinstance(error, KeyboardInterrupt) and work.record is not None:
                steps = f"interrupted; kept: {work.kept_steps()}; to continue: {work.continuation()}"
                raise KeyboardInterrupt(steps) from error
            raise


def _folder(model: object, out: str | Path | None) -> Path:
    """Return the folder of a training: `out`, or by default the folder of `model`.

    Raises:
        ArgumentError: there is no `out`, and `model` is not a folder that can be changed.
        ModelError: `model` is a name, and there is no model of this name.
    """
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
    raise ArgumentError(wrong, hint="give out=, or --out")


def call_text(function: str, model: object, out: str | Path | None) -> str:
    """Return the text of a call in Python, for a message that proposes to repeat the call.

    For example "train_attributes('faces', ..., out='mine') with the same arguments".

    Args:
        function: name of the function.
        model: its first argument.
        out: its argument `out`; left out of the text if it is `None`.
    """
    name = repr(str(model)) if isinstance(model, str | Path) else f"a {type(model).__name__}"
    return f"{function}({name}, ...{'' if out is None else f', out={str(out)!r}'}) with the same arguments"


def open_target(source: Source, folder: Path, truncation: float | None = None) -> Target:
    """Load the generator and the heads of a model for a training that will write to `folder`.

    If `folder` is no model yet, the files of the model are written to a subfolder for intermediate results (`Work`).
    `Target.changing` moves them to `folder` at the end.

    Args:
        source: the model.
        folder: the model folder of the training; it need not exist.
        truncation: truncation psi of a new model; by default the psi of the generator.

    Raises:
        ArgumentError: `source.model` and `source.generator` both name a generator.
        ModelError: a file is damaged, or `folder` contains another generator.
    """
    model = source.model
    if isinstance(model, str) and is_generator_name(model):
        if source.generator is not None:
            raise ArgumentError(f"{model} and {source.generator} are two generators; name one")
        return _named(folder, model, truncation)
    if isinstance(model, str | Path):
        if is_foreign(model):
            return _write(load_generator(model), folder, truncation, Path(model) if Path(model).is_file() else None)
        return _from_folder(source, model_folder(model), folder)
    generator = check_generator(model)
    if family_of(generator) is not None:
        return _write(generator, folder, truncation)
    mark = module_fingerprint(generator)
    return Target(folder, generator, mark, None, _bank(folder, mark))


def open_source(source: Source) -> Target:
    """Load the generator and the heads of a model, and write nothing.

    Returns:
        A target with the model folder if `source.model` is a folder or a packaged model; for a checkpoint, a generator
            or a `Model`, a target with the empty folder `Path()`. If `source.model` is a target, it is returned.

    Raises:
        ArgumentError: there is no generator of the name; or `source.generator` is stated, but the model has a generator
            of its own.
        ModelError: a file is missing or damaged.
    """
    model = source.model
    if isinstance(model, Target):
        return model
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
    """Return whether `model` is the name of a generator's code: "module:factory", or the name of an installed plugin.

    A name with a colon does not count if it is the path of a file or folder. A name without a colon does not count if
    it is the path of a file or of a pipeline, or the name of a packaged model.
    """
    taken = Path(model).exists() if ":" in model else is_foreign(model) or model in packaged_models()
    return not taken and is_plugin(model, GENERATORS)


def _from_folder(source: Source, old: Path, folder: Path) -> Target:
    """Open the model in the folder `old` for a training that will write to `folder`.

    Args:
        source: the model, with the arguments for loading it.
        old: the folder of the model.
        folder: the model folder of the training. It may be `old`, a model with the same generator, or no model yet.

    Raises:
        ModelError: `folder` contains another generator.
    """
    start = None
    if real_path(folder) != real_path(old):
        if not (folder / CONFIG).is_file():
            start = read_undisturbed(old, partial(_copy, old, folder))
        elif _identity(folder) != _identity(old):
            raise ModelError(f"{folder} holds another generator than {old}")
    return replace(_opened(start or folder, source), folder=folder, start=start)


def _new_start(folder: Path) -> Path:
    """Make an empty folder for the files of a new model while it is trained, and return the path.

    `folder` becomes the model when the training ends. The new folder is inside the subfolder of `folder` for
    intermediate results (`Work`).
    """
    start = Work(folder).folder / START
    shutil.rmtree(start, ignore_errors=True)
    start.mkdir(parents=True)
    return start


def _copy(source: Path, target: Path) -> Path:
    """Copy the files of a model to a new folder, with the name of the folder `target`, and return the new folder.

    Args:
        source: folder of the model.
        target: folder of the training, in which the new folder is; see `_new_start`.
    """
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
    """Return a value that is equal for two model folders if they have the same generator.

    The value is the digest of the file of weights; for a folder without weights, the entry `generator` of
    `config.json`.
    """
    return generator_mark(folder) if weights_file(folder).is_file() else read_json(folder / CONFIG).get("generator")


def _write(generator: Generator, folder: Path, truncation: float | None, checkpoint: Path | None = None) -> Target:
    """Open `folder` for a training on a generator that can be saved.

    If `folder` is no model yet, the model is written to a subfolder for intermediate results (`Work`).

    Args:
        generator: the generator.
        folder: the model folder of the training.
        truncation: truncation psi of a new model; `None` for the psi of the generator.
        checkpoint: the file from which the generator was loaded; `None` if it is an object of the user.

    Raises:
        ModelError: `folder` contains another generator.
    """
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
    """Open `folder` for a training on a generator that code makes; the name of the code is recorded, not weights.

    Args:
        folder: the model folder of the training.
        name: name of the code, such as "module:factory".
        truncation: truncation psi of a new model; `None` for the largest psi at which heads in the folder are valid, or
            for 1 if there are no heads.

    Raises:
        ModelError: `folder` contains another generator.
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


def _opened(folder: Path, source: Source | None = None) -> Target:
    """Open a model folder.

    Args:
        folder: the folder.
        source: the model as the user named it. It names the generator's code if the folder has no weights, or states
            whether the code that the folder names may be imported. With `None`, no code is imported.
    """
    if source is not None and source.generator is not None:
        return _named(folder, source.generator, None)
    allow_plugins = source is not None and source.allow_plugins
    _, truncation, _ = read_config(folder)
    generator, mark = open_generator(folder, allow_plugins=allow_plugins)
    return Target(folder, generator, mark, truncation, _bank(folder, mark, allow_plugins))


def _bank(folder: Path, fingerprint: str, allow_plugins: bool = False) -> Bank | None:
    """Return the attributes in a model folder (heads, or a network that reads pictures); `None` if there are none.

    Args:
        folder: the folder.
        fingerprint: fingerprint of the generator.
        allow_plugins: whether code that the folder names may be imported.

    Raises:
        ModelError: the attributes were learned for a generator with another fingerprint, or a file is damaged.
    """
    if not (folder / "vocabulary.json").is_file():
        return None
    bank = load_bank(folder, allow_plugins=allow_plugins)
    if not bank.fitted.is_of(fingerprint):
        raise ModelError(f"{folder} holds attributes of another generator; train them again, or choose another folder")
    return bank
