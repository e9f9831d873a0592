"""The model folder that attributes are trained into: opening it, checking it, and saving heads and their report."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from energyql.attributes.bank import Bank, FittedUnder
from energyql.attributes.heads import SECOND, Head, replace_second
from energyql.attributes.judge import replace_judge
from energyql.attributes.pictures import heads_of, load_bank
from energyql.attributes.quality import GIVEN, judge_names, replace_given
from energyql.errors import ArgumentError, EnergyQLError, ModelError, VocabularyError
from energyql.files import (
    DAMAGED_MODEL,
    changing,
    fingerprint,
    finish_saving,
    read_json,
    real_path,
    replacing,
    sole_writer,
    write_json,
    write_picture,
)
from energyql.generators.base import Generator, check_fitted_label, check_generator, offers_features
from energyql.generators.families import (
    CONFIG,
    NAMED,
    WEIGHTS,
    default_truncation,
    family_of,
    module_fingerprint,
    named_generator,
    open_generator,
    read_generator,
)
from energyql.generators.load import load_generator
from energyql.models import model_folder, packaged_models
from energyql.models.unfinished import START, Work
from energyql.pipeline.model import BANK_FILES, CARD, Model, save_converted, save_model, save_named_model
from energyql.plugins import GENERATORS, is_plugin
from energyql.training.report import draw_report

TEACHER = "teacher"
"""Beginning of the names of the files of a teacher's networks."""


@dataclass(frozen=True)
class Target:
    """The generator and the folder of a training.

    Attributes:
        folder: the model folder.
        generator: the generator whose latents are labelled.
        fingerprint: of its weights, for the bank.
        truncation: the model's own, `None` if the generator is not in the folder.
        bank: the heads that the folder already has.
        code: name of the code that makes the generator, for a folder that only names it.
        start: folder with the files of the model as it is before the training, where `folder` is no model yet.
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
        """The steps of the training of this folder that are finished."""
        return Work(self.folder)

    @property
    def space(self) -> str:
        """What heads read by default: what those in the folder read, else features of z if there are any, else w."""
        if self.bank is not None:
            return self.bank.space
        return "features" if offers_features(self.generator) else "w"

    def fitted(
        self, space: str, truncation: tuple[float, float], label: int | Sequence[float] | str | None
    ) -> FittedUnder:
        """Return what heads are fitted under; by default the label is that of the heads in the folder.

        Raises:
            ArgumentError: the generator needs a label, or has no such label, or heads on `space` cannot be fitted
                under it.
        """
        own = None if self.bank is None else self.bank.label
        checked = check_fitted_label(own if label is None else label, self.generator)
        try:
            return FittedUnder(space, truncation, checked, self.fingerprint)
        except ModelError as error:
            raise ArgumentError(error.message, hint=error.hint) from None

    def check_names(self, names: Sequence[str], replace: bool) -> None:
        """Check that attributes of these names can be added.

        Raises:
            VocabularyError: the model already has one of them.
        """
        own = {} if self.bank is None else self.bank.vocabulary
        if not replace and (taken := [name for name in names if name in own]):
            raise VocabularyError(
                f"the model already has {', '.join(map(repr, taken))}",
                hint="rename the attribute, or replace the old one with replace=True, or --replace",
            )

    def check_latents(self, fitted: FittedUnder) -> None:
        """Check that new heads read the same latent, at the same truncation, under the same label as those there.

        Raises:
            ModelError: the folder has heads that read another one.
        """
        if self.bank is not None and not self.bank.fitted.is_beside(fitted):
            raise ModelError(
                f"the attributes of {self.folder} read {self.bank.fitted}, so new ones cannot read {fitted}",
                hint="choose another folder",
            )

    @contextmanager
    def changing(self) -> Iterator[Target]:
        """Yield the target in a folder of its own; when the block ends, all that was written there comes into `folder`.

        A process that is killed leaves the model as it was, or as it is after the block. Work on the whole model,
        heads, judges and teacher, is one such block.
        """
        with changing(self.folder) as folder:
            for path in [] if self.start is None else list(self.start.iterdir()):
                path.replace(folder / path.name)
            if self.code is not None:
                psi = 1.0 if self.truncation is None else self.truncation
                save_named_model(folder, real_path(self.folder).name, self.code, truncation=psi)
            yield dataclasses.replace(self, folder=folder)

    def save(self, bank: Bank, name: str, *, replace: bool = False, second: Mapping[str, Head] | None = None) -> Bank:
        """Write new heads with their reports, and the second heads; all else in the folder stays as it is.

        Nothing in the folder judges the attributes of the new heads until `store_judge` is called. `name` is that of
        the model, in the picture of the reports.

        Returns:
            All heads of the folder.
        """
        merged = bank
        replace_judge(self.folder, bank.vocabulary, None)
        replace_given(self.folder, bank.vocabulary, None)
        if self.bank is not None:
            old = heads_of(self.bank, "a further head")
            replace_second(self.folder, old, bank.vocabulary, {})
            merged = old.with_heads(heads_of(bank, "a folder of heads"), replace=replace)
        elif self.truncation is not None:  # the truncation of a model without heads must be one of the new heads
            psi = min(max(self.truncation, bank.truncation[0]), bank.truncation[1])
            if psi != self.truncation:
                write_json(self.folder / CONFIG, read_json(self.folder / CONFIG) | {"truncation": psi})
        merged.save(self.folder)
        replace_second(self.folder, merged, bank.vocabulary, second or {})
        if merged.reports:
            picture = draw_report(merged.reports, f"Attribute heads of {name}")
            write_picture(self.folder / "report.png", picture)
        else:
            (self.folder / "report.png").unlink(missing_ok=True)
        return merged


@contextmanager
def opening_target(
    model: str | Path | Generator,
    out: str | Path | None,
    truncation: float | None = None,
    *,
    generator: str | None = None,
    allow_plugins: bool = False,
    command: Sequence[str] | str | None = None,
) -> Iterator[Target]:
    """Open the folder of a training as `open_target` does. Until the block ends, nothing is written but its `Work`.

    If the block raises an `EnergyQLError`, all that was written is removed, unless it is that of an earlier training.
    If it ends in another way, such as by Ctrl-C, it stays, so that `command` continues the training; without a command
    it is removed too.

    Raises:
        KeyboardInterrupt: the block does; the message says what is kept, and the command.
    """
    folder = _folder(model, out)
    with sole_writer(folder, "a training"):
        if out is not None:
            finish_saving(folder)
        work = Work(folder)
        before = work.record
        try:
            if command is not None:
                work.begin(command)
            yield open_target(model, folder, truncation, generator=generator, allow_plugins=allow_plugins)
            if command is not None or before is None:  # else an earlier training can still be continued
                work.remove()
        except BaseException as error:
            if command is None or isinstance(error, EnergyQLError):
                work.restore(before)
            elif isinstance(error, KeyboardInterrupt) and work.record is not None:
                raise KeyboardInterrupt(
                    f"interrupted; kept: {work.kept_steps()}; to continue: {work.continuation()}"
                ) from error
            raise


def _folder(model: str | Path | Generator, out: str | Path | None) -> Path:
    """Return the folder of a training.

    Raises:
        ArgumentError: there must be an `out`.
        ModelError: there is no model of that name.
    """
    if out is not None:
        return Path(out)
    if not isinstance(model, str | Path) or (isinstance(model, str) and is_generator_name(model)):
        raise ArgumentError("a generator needs a folder for its attributes", hint="give out=, or --out")
    if Path(model).is_file():
        raise ArgumentError(f"{model} is a checkpoint, so a model folder must be named", hint="give out=, or --out")
    if model in packaged_models():
        raise ArgumentError(
            f"the packaged model {model!r} is not changed", hint="name a folder for a copy: out=, or --out"
        )
    return model_folder(model)


def call_text(function: str, model: object, out: str | Path | None) -> str:
    """Return a call in Python with its essential arguments, for people who are to give it again."""
    given = repr(str(model)) if isinstance(model, str | Path) else f"a {type(model).__name__}"
    return f"{function}({given}, ...{'' if out is None else f', out={str(out)!r}'}) with the same arguments"


def open_target(
    model: str | Path | Generator,
    folder: Path,
    truncation: float | None = None,
    *,
    generator: str | None = None,
    allow_plugins: bool = False,
) -> Target:
    """Load the generator of a training into `folder`, which need not be a model yet.

    Then the model as it is before the training is written, with this truncation, beside the steps of the training; see
    `Work`. The other arguments are those of `train_attributes`.

    Raises:
        ModelError: a file is damaged, or `folder` holds another generator.
    """
    if isinstance(model, str) and is_generator_name(model):
        if generator is not None:
            raise ArgumentError(f"{model} and {generator} are two generators", hint="name one of them")
        return _named(folder, model, truncation)
    if isinstance(model, str | Path):
        if not Path(model).is_file():
            return _from_folder(model, folder, generator, allow_plugins)
        return _write(load_generator(model), folder, truncation, Path(model))
    model = check_generator(model)
    if family_of(model) is not None:
        return _write(model, folder, truncation)
    mark = module_fingerprint(model)
    return Target(folder, model, mark, None, _bank(folder, mark))


def open_source(
    model: str | Path | Generator | Model | Target, *, generator: str | None = None, allow_plugins: bool = False
) -> Target:
    """Load a generator and the heads that it has, and write nothing.

    The arguments are those of `train_attributes`; a `Model`, or what this function returned, may take the place of
    `model`. Only a folder that was given is the folder of the target.

    Raises:
        ArgumentError: there is no generator of that name, or it is named beside one that is given.
        ModelError: a file is missing or damaged.
    """
    if isinstance(model, Target):
        return model
    if isinstance(model, Model):
        return Target(Path(), model.generator, module_fingerprint(model.generator), model.truncation, model.bank)
    if isinstance(model, str | Path) and not Path(model).is_file() and not is_generator_name(str(model)):
        folder = model_folder(model)
        return _opened(folder, allow_plugins) if generator is None else _named(folder, generator, None)
    if generator is not None:
        raise ArgumentError(f"the generator {generator} is for a model folder that names one", hint="leave it out")
    if isinstance(model, str | Path):
        model = load_generator(model) if Path(model).is_file() else named_generator(str(model))
    model = check_generator(model)
    return Target(Path(), model, module_fingerprint(model), default_truncation(model), None)


def is_generator_name(model: str) -> bool:
    """Whether a model is given as the name of code. The name of a plugin is not taken for that of a folder."""
    taken = Path(model).exists() if ":" in model else Path(model).is_file() or model in packaged_models()
    return not taken and is_plugin(model, GENERATORS)


def _from_folder(model: str | Path, folder: Path, generator: str | None, allow_plugins: bool) -> Target:
    source, start = model_folder(model), None
    if real_path(folder) != real_path(source):
        if not (folder / CONFIG).is_file():
            start = _new_start(folder)
            _copy(source, start, real_path(folder).name)
        elif _identity(folder) != _identity(source):
            raise ModelError(f"{folder} holds another generator than {source}", hint="choose another folder")
    opened = start or folder
    target = _opened(opened, allow_plugins) if generator is None else _named(opened, generator, None)
    return replace(target, folder=folder, start=start)


def _new_start(folder: Path) -> Path:
    """Return an empty folder for the model as it is before the training of `folder`."""
    start = Work(folder).folder / START
    shutil.rmtree(start, ignore_errors=True)
    start.mkdir(parents=True)
    return start


def _copy(source: Path, folder: Path, name: str) -> None:
    """Copy a model; its name, which captions and messages show, becomes that of the new folder."""
    networks = [*judge_names(source), *sorted(path.stem for path in source.glob(f"{TEACHER}-*.json"))]
    read = [f"{name}{suffix}" for name in networks for suffix in (".safetensors", ".json")]
    config = read_json(source / CONFIG)
    card = [CARD] if "source" in config else []  # that of a conversion has the licence
    for file in (WEIGHTS, *BANK_FILES, SECOND, *read, GIVEN, *card):
        if (source / file).is_file():
            with replacing(folder / file) as temporary:
                shutil.copyfile(source / file, temporary)
    path = folder / "vocabulary.json"
    if path.is_file() and isinstance((described := read_json(path)).get("vocabulary"), dict):
        write_json(path, described | {"vocabulary": described["vocabulary"] | {"model": name}})
    write_json(folder / CONFIG, config | {"name": name})  # last: a folder with a configuration is a model


def _identity(folder: Path) -> object:
    weights = folder / WEIGHTS
    return fingerprint(weights) if weights.is_file() else read_json(folder / CONFIG).get("generator")


def _write(generator: Generator, folder: Path, truncation: float | None, checkpoint: Path | None = None) -> Target:
    if (folder / CONFIG).is_file():
        if module_fingerprint(read_generator(folder)) != module_fingerprint(generator):
            raise ModelError(f"{folder} holds another generator", hint="choose another folder")
        return _opened(folder)
    psi = default_truncation(generator) if truncation is None else truncation
    start, name = _new_start(folder), real_path(folder).name
    if checkpoint is None:
        save_model(start, name, generator, truncation=psi, dtype=torch.float32)
    else:
        save_converted(start, name, generator, checkpoint, truncation=psi)
    return replace(_opened(start), folder=folder, start=start)


def _named(folder: Path, name: str, truncation: float | None) -> Target:
    """Open the folder of a generator that is code; its name is written there with the attributes."""
    generator = named_generator(name)
    mark = module_fingerprint(generator)
    bank = _bank(folder, mark)
    if (folder / CONFIG).is_file():
        settings = read_json(folder / CONFIG).get("generator")
        if not isinstance(settings, dict) or settings.get("kind") != NAMED:
            raise ModelError(f"{folder} holds another generator than {name}", hint="choose another folder")
        truncation = _truncation(folder)
    elif truncation is None:
        truncation = 1.0 if bank is None else bank.truncation[1]
    return Target(folder, generator, mark, truncation, bank, name)


def _opened(folder: Path, allow_plugins: bool = False) -> Target:
    truncation = _truncation(folder)
    generator, mark = open_generator(folder, allow_plugins=allow_plugins)
    return Target(folder, generator, mark, truncation, _bank(folder, mark, allow_plugins))


def _truncation(folder: Path) -> float:
    try:
        return float(read_json(folder / CONFIG)["truncation"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / CONFIG} has no truncation", hint=DAMAGED_MODEL) from error


def _bank(folder: Path, fingerprint: str, allow_plugins: bool = False) -> Bank | None:
    if not (folder / "vocabulary.json").is_file():
        return None
    bank = load_bank(folder, allow_plugins=allow_plugins)
    if not bank.fitted.is_of(fingerprint):
        raise ModelError(
            f"{folder} holds attributes of another generator", hint="choose another folder, or train them again"
        )
    return bank
