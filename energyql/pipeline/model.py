"""Models: a generator with attribute heads and a judge, and the folders in which models are stored.

No code from a model folder is run, unless the user allows it.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, cast

import numpy.typing as npt
import torch
from torch import Tensor

from energyql.attributes.bank import Bank
from energyql.attributes.heads import SECOND, Head, load_second, save_second
from energyql.attributes.held_out import HeldOut
from energyql.attributes.judge import (
    JointJudge,
    Judge,
    load_judge,
    load_verifier,
    networks_of,
    open_labeller,
    replace_networks,
    who_judges,
)
from energyql.attributes.labels import ImageLabeller, labeller_name, read_images
from energyql.attributes.pictures import load_bank, load_heads
from energyql.attributes.quality import READER, REPORT, VERIFIER, HeadReport, judge_name, judge_names, read_given
from energyql.attributes.words import NoBank, Words, open_words, reads_words
from energyql.errors import ArgumentError, ModelError, either, misfit
from energyql.files import (
    as_path,
    fingerprint,
    read_bytes,
    read_json,
    read_tensors,
    real_path,
    saving,
    write_json,
    write_text,
)
from energyql.generators.base import (
    RANDOM,
    Condition,
    Generator,
    check_condition,
    check_fitted_condition,
    check_generator,
    class_count,
    device_of,
    is_differentiable,
    latent_size,
)
from energyql.generators.checkpoints.reading import reading
from energyql.generators.families import (
    CARD,
    CONFIG,
    FORMAT,
    NAMED,
    RENDER,
    UNKNOWN,
    family_of,
    module_fingerprint,
    open_generator,
    save_model,
    weights_file,
)
from energyql.kinds import KINDS
from energyql.language import Attribute, ModelNamespace
from energyql.models import model_folder, packaged_models, read_undisturbed
from energyql.models.hub import (
    LIBRARY,
    MOST_CARD,
    README,
    card_licence,
    check_folder,
    download,
    is_hub_id,
    model_card,
    model_files,
    open_hub,
    own_file,
    upload,
)
from energyql.models.unfinished import check_finished
from energyql.numerics import LARGEST
from energyql.numerics.random import uniforms
from energyql.pipeline.source import CodeOptions, ModelSource
from energyql.plugins import check_allowed
from energyql.vocabulary import ByAttribute, Vocabulary

if TYPE_CHECKING:
    from typing_extensions import Unpack

_MOST_PICTURE = 1 << 24
"""Largest picture of a model card (README.md) that is copied, in bytes."""
BANK_FILES = ("attributes.safetensors", "vocabulary.json", REPORT, f"{READER}.safetensors", f"{READER}.json")
PIPELINE_TAG = "unconditional-image-generation"
"""The kind of model, as hubs call it."""
WORDS = "words"
"""Key of the reader of texts in `Model.fingerprints`, and in the provenance if the query has texts in quotes."""
NO_JUDGE = "none"
"""Text that a user gives as the name of the judge, for a model without a judge."""
NEITHER = either("judge=None", "--judge none")
"""How a user asks for a model without a judge."""
Values = dict[str, npt.NDArray[Any]]
"""Attribute -> values of n pictures, (n,): bool, names of classes, or numbers."""


def used_marks(fingerprints: Mapping[str, str], *, texts: bool) -> dict[str, str]:
    """Fingerprints of the parts that a run depends on: the reader of texts only if the query has `texts`."""
    return {part: mark for part, mark in fingerprints.items() if texts or part != WORDS}


def changed_parts(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """Return the names of the parts of a model whose fingerprints differ, for messages: "attributes, judge"."""
    return ", ".join(part for part in sorted({*old, *new}) if old.get(part) != new.get(part))


@dataclass(frozen=True, repr=False)
class Model:
    """A generator with attribute heads and, if there is one, a judge.

    Attributes:
        name: name for messages and for the records of results.
        generator: the generator of the pictures.
        bank: the heads, which predict attributes from latents and guide the sampler. A `PictureBank` has no heads but
            a network that predicts attributes from pictures, and the network guides the sampler.
        judge: function or torch module that checks results; `None` for none. Its argument is pictures in [-1, 1],
            (batch, channels, height, width). Its result is a dict from attribute to values, one for each picture. The
            judge is independent of generator and bank, unless it is the code that defines the attributes. Whether a
            picture satisfies a query is unknown (`None`) if the judge does not read an attribute of the query.
        verifier: function or torch module of the same form as the judge. It decides which drawn pictures are kept, see
            the argument `verify` of `energyql.generate`; `None` for none. A network that decides cannot be the judge
            as well. A function that defines the attributes can.
        words: reader of texts about pictures, which queries have in quotes; `None` for none.
        held_out: random samples with the predictions of networks of the verifier that did not learn from these
            samples; an item for each training of such networks. The threshold of the verifier is chosen by them.
        truncation: psi that is used unless a call says otherwise.
        fingerprints: part of the model -> SHA-256 of its weights; of an ONNX model and its settings. The parts are
            "generator", "attributes", "second", "reader", "judge", "judge-2" and so on, "verifier" and so on, and
            "words", as far as the model has them. Of code, name and source are in the SHA-256 too (`judge_mark`), and
            of a reader of words its calibrations.
        second: attribute -> a second head, fitted to other labels. Where an attribute's two heads disagree, its head in
            `bank` is unreliable. Attributes without a second head are missing.
        judge_report: attribute -> quality of the judge on labelled pictures outside its training set. Attributes that
            were not measured are missing.
        folder: folder from which the model was loaded; `None` for a model made in memory.
        discriminator: function for the setting `realism`, from pictures in [-1, 1] to log(D / (1 - D)), (batch,) or
            (batch, 1), as the discriminator of a StyleGAN returns it. It is a torch module, or a function that autograd
            can differentiate.
        sessions: device -> the `Session` that `energyql.pipeline.session.open_session` made for this model, and the
            state of the generator's weights at that time.

    Raises:
        ModelError: the judge is the same network as the one that guides the sampler, or as the verifier.
        ArgumentError: the generator lacks a method or attribute that a `Generator` needs, or the judge cannot be called
            with pictures.
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
    verifier: ImageLabeller | None = None
    held_out: Sequence[HeldOut] = ()
    words: Words | None = None
    sessions: dict[torch.device, Any] = field(default_factory=dict, init=False, compare=False)

    def __post_init__(self) -> None:
        check_generator(self.generator, f"the generator of model {self.name!r}")
        judge: Any = self.judge
        if judge is None:
            return
        if not callable(judge) or inspect.isclass(judge) or misfit(judge, None):
            raise ArgumentError(f"the judge of model {self.name!r} cannot be called with pictures: {judge!r}")
        # Code that states values defines the attributes, so it may guide, decide and judge: see `check_readers`.
        if any(isinstance(part, torch.nn.Module) for part in _parts(judge)) and is_same(self.bank.reader, judge):
            raise never_objects(self.name)
        others = []
        if isinstance(judge, Judge | JointJudge):
            what = "is the network that decides which pictures are kept"
            others.append((self.verifier, what, "train both: energyql train-judge"))
        if self.words is not None:
            readers = self.words.reader, getattr(self.words.reader, "network", None)
            others += [(reader, "is the reader of words", f"give it another, or none: {NEITHER}") for reader in readers]
        for reader, what, hint in others:
            if is_same(reader, judge):
                raise ModelError(f"the judge of model {self.name!r} {what}, so it could never object", hint=hint)

    def __repr__(self) -> str:
        return f"<Model {self.name!r}: {type(self.generator).__name__}, attributes {', '.join(self.vocabulary)}>"

    def __getstate__(self) -> dict[str, Any]:
        """Fields for a copy or a pickle, without the cache `sessions`."""
        return self.__dict__ | {"sessions": {}}

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        device: torch.device | str = "auto",
        generator: Generator | str | None = None,
        judge: ImageLabeller | str | None = None,
        reader: ImageLabeller | Words | str | Path | None = None,
    ) -> Model:
        """Load a model folder, a packaged model, or a model of a hub such as huggingface.co, which is downloaded.

        Code that the model itself names is never run. Code that the arguments name is run.

        Args:
            model: name of a packaged model, the path of a folder, or `owner/name` of a model on the hub.
            revision: branch, tag or commit of a model on the hub; by default its main branch.
            device: device for all computations; "auto" is a GPU if there is one, otherwise the CPU.
            generator, judge, reader: code to use instead of what the model holds; see `ModelSource`.

        Raises:
            ModelError: the model is missing, damaged, or cannot be downloaded; or its repository has files that are not
                data.
            ArgumentError: a `revision` is set for a model that is on no hub, huggingface_hub is not installed, or there
                is no generator, judge or reader of that name.
        """
        if is_hub_id(model):
            model = download(str(model), revision)
        elif revision is not None:
            raise ArgumentError(f"{model} is on no hub, so it has no revision {revision!r}", hint="leave out revision")
        return load_model(model, device, generator=generator, judge=judge, reader=reader)

    @property
    def judged_names(self) -> tuple[str, ...]:
        """Names of the model's attributes that the judge reads; () without a judge.

        A judge that is code may have no attribute `vocabulary`; it is then assumed to read all attributes of the model.
        """
        names = getattr(self.judge, "vocabulary", self.vocabulary if self.judge is not None else ())
        return tuple(name for name in self.vocabulary if name in names)

    @property
    def vocabulary(self) -> Vocabulary:
        """The attributes that queries may name, with kinds, values and ranges.

        If the model has a reader of words (`words`), queries may also name any text about pictures, in quotes.
        """
        return self.bank.vocabulary if self.words is None else self.bank.vocabulary.extended()

    @property
    def report(self) -> Mapping[str, HeadReport]:
        """Attribute -> quality of its head on latents that it was not fitted to. Heads not measured are missing."""
        return ByAttribute(self.bank.reports)

    @property
    def E(self) -> ModelNamespace:
        """The attributes by name, for queries in Python: `model.E.smile & ~model.E.hat`.

        Unlike `energyql.E`, this object raises an error at once for a name that the model lacks. An editor or notebook
        can complete the names.
        """
        return ModelNamespace(self.vocabulary)

    @property
    def device(self) -> torch.device:
        """The device of the generator's tensors; the device of the heads if the generator has no tensors."""
        return device_of(self.generator) or self.bank.device

    @property
    def has_gradient(self) -> bool:
        """Whether the energies of queries can be differentiated with respect to z."""
        return self.bank.gradient and (not self.bank.reads_pictures or is_differentiable(self.generator))

    def check_condition(
        self, condition: int | str | Sequence[float] | Sequence[str] | None, seed: int = 0
    ) -> Condition | None:
        """Check a condition for pictures (a class), and return it; for `None`, choose the condition of the model.

        The generator must be able to draw under the condition, and the heads must have been fitted under it.

        Args:
            condition: a class, its prompt, or a sequence with a number for each class; `None` for the condition under
                which the heads were fitted. If they were fitted to random classes, it is a random class.
            seed: seed of the random class, 0 to 2**64 - 1.

        Returns:
            The class, or the numbers as a tuple of floats; `None` for a generator without classes.

        Raises:
            ArgumentError: the generator has no such condition, or needs a condition; or the heads were fitted under
                another condition.
        """
        fitted = self.bank.fitted
        condition = fitted.default_condition if condition is None else condition
        if condition is None and fitted.condition == RANDOM:
            condition = int(uniforms(seed, 0, 1, 1, stream="label") * class_count(self.generator))
        checked = check_condition(condition, self.generator)
        fitted.check_condition(checked, self.name)
        return checked

    def check_truncation(self, truncation: float | None) -> float:
        """Check that the heads are valid at a truncation psi, and return psi; for `None`, the truncation of the model.

        Raises:
            ArgumentError: the heads were fitted at other values of psi.
        """
        psi = self.truncation if truncation is None else truncation
        self.bank.fitted.check_truncation(psi, self.name)
        return psi

    def judge_images(self, images: Tensor) -> Values:
        """Return attribute -> the judge's values, (n,), for pictures in [-1, 1]; {} without a judge."""
        names = self.judged_names
        if self.judge is None or not names:
            return {}
        with torch.inference_mode():
            return read_images(self.judge, images, Vocabulary(self.vocabulary[name] for name in names))

    def to(self, device: torch.device | str) -> Model:
        """Return the model on a device, in evaluation mode. Its torch modules are moved, so `self` changes too."""
        device = choose_device(device)
        for part in (self.generator, self.judge, self.verifier, self.discriminator):
            if isinstance(part, torch.nn.Module):
                part.to(device).eval()
        return replace(self, bank=self.bank.to(device))

    def save_pretrained(self, folder: str | Path, *, license: str | None = None) -> Path:
        """Write the model as a folder of safetensors, JSON and a card, which `load_model` and hubs can read.

        The generator's weights are written in half precision if this changes no weight, else in full. If the model
        was loaded from a folder, and the folder still has the same generator, these are copied from it: the card, the
        PNG pictures in the card, the licence, the origin of a converted generator, and the name of the code, if any,
        that converts the generator's pictures for display. Links out of the folder are not followed.

        Args:
            folder: folder to write, made if it is missing; files of an earlier model in it are removed, others stay.
            license: licence of the weights, abbreviated as on hubs, such as "apache-2.0", "cc-by-nc-4.0" or "other". By
                default the licence in the card of the loaded model; "unknown" without such a card.

        Returns:
            The folder.

        Raises:
            ModelError: a part of the model is code, which no file can hold: the generator, the judge, a discriminator,
                or a reader without a name.
            ArgumentError: the folder cannot be written, or holds a README.md, a config.json or other files of a model
                that this library did not write.
        """
        folder = as_path(folder)
        check_folder(folder)
        with saving(folder, model_files) as staged:
            _write_pretrained(staged, self, license=license)
        return folder

    def push_to_hub(
        self, name: str, *, license: str | None = None, private: bool = False, message: str | None = None
    ) -> str:
        """Upload the model to a hub, in one commit, and return the address of the commit.

        Args:
            name: `owner/name` of the repository, which is made if it does not exist. Files of an earlier model in it
                are replaced.
            license: licence of the weights, abbreviated as on hubs, such as "apache-2.0". By default the licence in the
                card of the loaded model; "unknown" without such a card.
            private: whether a new repository is private. If true, a repository that exists must be private too.
            message: message of the commit; by default it names the model.

        Raises:
            ModelError: a part of the model is code, which cannot be saved, or its generator is outside its folder; or
                the hub refuses, or cannot be reached.
            ArgumentError: the name is wrong, or huggingface_hub is not installed; or the repository is public although
                `private` is true, or it holds a model or README.md that this library did not write.
        """
        family = family_of(self.generator)
        if family is not None and family.outside:
            raise ModelError("this model only records where its generator is, so a hub could not offer it")
        open_hub(name)  # before the work of writing
        with TemporaryDirectory() as folder:
            _write_pretrained(Path(folder), self, license=license, hub_name=name)
            return upload(Path(folder), name, private=private, message=message or f"{self.name}, a model for energyql")


def load_model(
    model: str | Path | ModelSource, device: torch.device | str = "auto", **code: Unpack[CodeOptions]
) -> Model:
    """Load a packaged model by name, or a model folder. Only code that the arguments name or allow is run.

    Args:
        model: a packaged model's name, such as "avatars", or the path of a folder; or a `ModelSource` with all of it.
        device: device for all computations; "auto" is a GPU if there is one, otherwise the CPU.
        code: `generator`, `judge`, `reader` and `allow_plugins`; see `ModelSource`.

    Returns:
        The model in evaluation mode. Other functions take it as an argument, as in `generate(..., model=model)`.

    Raises:
        ModelError: the model is missing or damaged, its parts do not fit together, or it names code that was not
            allowed.
        ArgumentError: there is no generator, judge or reader of that name, or no such device.
    """
    source = replace(model, **code) if isinstance(model, ModelSource) else ModelSource(model, **code)
    path = cast("str | Path", source.model)
    folder = Path(path) if source.generator is not None and os.path.isdir(path) else model_folder(path)
    return read_undisturbed(folder, partial(_load, folder, source, choose_device(device)))


def _load(folder: Path, source: ModelSource, device: torch.device) -> Model:
    """Read a model folder, which is that of `source`."""
    generator, judge, reader, allow_plugins = source.generator, source.judge, source.reader, source.allow_plugins
    name, truncation, judge_name = real_path(folder).name, None, None
    if generator is None or (folder / CONFIG).is_file():
        name, truncation, judge_name = read_config(folder)
    opened, mark = open_generator(folder, generator, allow_plugins=allow_plugins)
    none = not any((folder / file).is_file() for file in BANK_FILES[:2])
    words = None
    if reader is not None and (none or reads_words(reader) or load_heads(folder) is not None):
        words, reader = open_words(reader, judge_mark).stored(folder), None
    if none:
        check_finished(folder)
        if truncation is not None and words is None:
            hint = f"use energyql train, or read words off pictures: {either('reader=', '--reader')}"
            raise ModelError(f"model {name!r} has no attributes yet", hint=hint)
    code = cast("ImageLabeller | str | None", reader)
    bank = (
        NoBank(Vocabulary([], model=name)) if none and words else load_bank(folder, code, allow_plugins=allow_plugins)
    )
    _check_fitted_to(folder, bank, opened, mark)
    verifiers = judge_names(folder, VERIFIER)
    networks = (*judge_names(folder), *verifiers, *(f"{name}-held-out" for name in verifiers))
    parts = [folder / f"{part}.safetensors" for part in (bank.part, *networks, Path(SECOND).stem)]
    marks = {path.stem: fingerprint(path) for path in parts if path.is_file()} | {"generator": mark}
    if reader is not None or bank.name is not None:  # not the one of the folder
        marks[bank.part] = judge_mark(bank.reader)
    if words is not None:
        marks[WORDS] = words.calibrated_mark
    if judge is None and judge_name is not None:
        judge = check_allowed(judge_name, "judge", folder, allow_plugins)
    verifier: ImageLabeller | None
    verifier, held_out = load_verifier(folder, bank.vocabulary)
    if judge is None:
        judge = load_judge(folder, bank.vocabulary)
    else:
        marks = {part: value for part, value in marks.items() if part not in judge_names(folder)}
        if isinstance(judge, str):
            judge = None if judge == NO_JUDGE else open_labeller(judge)
        if judge is not None:
            marks["judge"] = judge_mark(judge)
        # A function that reads values defines the attributes. The heads of packaged models are known to be right.
        if judge is None or (not isinstance(judge, torch.nn.Module) and name not in packaged_models()):
            verifier, marks = judge, {part: value for part, value in marks.items() if part not in verifiers}
    psi = bank.truncation[1] if truncation is None else truncation
    quality = {} if judge is None else _judge_report(folder, judge)
    second, place = load_second(folder, bank), real_path(folder)
    return Model(
        name, opened, bank, judge, psi, marks, second, quality, place, verifier=verifier, held_out=held_out, words=words
    ).to(device)


def _check_fitted_to(folder: Path, bank: Bank, generator: Generator, mark: str) -> None:
    """Raise unless the attributes were learned from the generator of SHA-256 `mark`, and fit it."""
    fault = None if bank.fitted.is_of(mark) else "the attributes were fitted to another generator"
    try:
        if bank.condition is not None:
            check_fitted_condition(bank.condition, generator)
        size = None if bank.latent_dim is None else latent_size(generator, bank.space)
        if size not in (None, bank.latent_dim):
            fault = fault or f"heads read {bank.latent_dim} numbers but {bank.space} has {size}"
    except ArgumentError as error:
        fault = fault or error.message
    if fault:
        hint = "train the attributes again, or use the generator that they were fitted to"
        raise ModelError(f"{folder}: {fault}", hint=hint)


def never_objects(name: str) -> ModelError:
    """Error for a model whose judge is the network that guides the sampler."""
    return ModelError(
        f"the judge of model {name!r} is the reader that guides the sampler, so it could never object",
        hint="train another network (energyql train-judge) with another seed, or have none: " + NEITHER,
    )


def is_same(one: object, other: object) -> bool:
    """Whether two readers of pictures, or readers inside them, are the same or have equal weights.

    A judge that also guides the sampler would repeat its errors, so it is refused.
    """
    return any(a is b or _have_same_weights(a, b) for a, b in product(_parts(one), _parts(other)))


def _parts(reader: Any) -> Iterator[Any]:
    """Yield a reader, then the readers inside it, such as the judges of a `JointJudge` or the function of a partial."""
    yield reader
    if isinstance(reader, JointJudge):
        yield from reader.judges
    inner = reader.func if isinstance(reader, partial) else getattr(reader, "__self__", None)
    if inner is not None:
        yield from _parts(inner)


def _have_same_weights(one: object, other: object) -> bool:
    if not isinstance(one, torch.nn.Module) or not isinstance(other, torch.nn.Module):
        return False
    if isinstance(one, Judge) and isinstance(other, Judge):  # their last layers may be of other attributes
        one, other = one.body, other.body
    if not set(one.parameters()).isdisjoint(other.parameters()):
        return True
    mine, theirs = one.state_dict(), other.state_dict()
    same = bool(mine) and mine.keys() == theirs.keys()
    return same and all(torch.equal(tensor.cpu(), theirs[name].cpu()) for name, tensor in mine.items())


def read_config(folder: Path) -> tuple[str, float, object]:
    """Read name, truncation psi and the entry "judge" (`None` without one) of a model folder's `config.json`.

    Raises:
        ModelError: the file is missing or damaged, or of an unknown format.
    """
    path = folder / CONFIG
    config = read_json(path)
    with reading(path):
        if config["format"] != FORMAT:
            raise ModelError(f"model format {config['format']!r} is unknown", hint="install a newer energyql")
        name, truncation = str(config["name"]), float(config["truncation"])
        if not abs(truncation) <= LARGEST:
            raise ValueError(f"truncation is {truncation}")
    return name, truncation, config.get("judge")


def _judge_report(folder: Path, judge: ImageLabeller) -> Mapping[str, HeadReport]:
    """Quality of a judge by attribute; {} if it was not measured, or its code has changed since."""
    if isinstance(judge, Judge | JointJudge):
        return judge.report
    report = read_given(folder)
    return {} if report is None or report.mark != judge_mark(judge) else report.measured


def judge_mark(judge: Any) -> str:
    """SHA-256 (hexadecimal) of name, code and weights of a reader, so that a later run knows it."""
    return hashlib.sha256(f"{labeller_name(judge)}\n{_weights(judge)}".encode()).hexdigest()


def _weights(reader: Any) -> str:
    """SHA-256 of the weights of a network, or of those inside a partial function or bound method; else ""."""
    inner: Iterable[Any] = [reader.__self__] if inspect.ismethod(reader) else []
    if isinstance(reader, partial):
        inner = reader.func, *reader.args, *(reader.keywords[name] for name in sorted(reader.keywords))
    return module_fingerprint(reader) + "".join(map(_weights, inner))


def choose_device(name: str | torch.device) -> torch.device:
    """Return the device of this name; "auto" is a GPU if there is one, otherwise the CPU.

    Raises:
        ArgumentError: this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.ones(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ArgumentError(f"device {name!r} is not available here", hint="use auto, cpu, cuda or mps") from error
    return device


def save_named_model(folder: Path, name: str, generator: str, *, truncation: float = 1.0) -> None:
    """Write `config.json` for a generator that is code; of an existing file replace only the entry "generator".

    Args:
        generator: `module:factory`, or the name of an installed plugin.
        truncation: psi.
    """
    old = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    new = {"generator": {"kind": NAMED, "name": generator}}
    write_json(folder / CONFIG, {"format": FORMAT, "name": name, "truncation": truncation} | old | new)


def record_judge(folder: Path, name: str | None) -> None:
    """Write the name of a judge that is code into the entry "judge" of `config.json` in a model folder.

    As long as there is a name, the code is the only judge of the model, and networks in the folder are not used.

    Args:
        folder: the model folder, which has a `config.json`.
        name: `module:function`, or the name of an installed plugin; `None` to remove the entry.

    Raises:
        ModelError: `config.json` is missing or damaged.
    """
    described = {entry: value for entry, value in read_json(folder / CONFIG).items() if entry != "judge"}
    write_json(folder / CONFIG, described if name is None else described | {"judge": name})


def _write_pretrained(folder: Path, model: Model, *, license: str | None, hub_name: str = "owner/name") -> None:
    """Write all parts of a model and its card, README.md, into an empty folder; code raises a `ModelError`."""
    for part in ("judge", VERIFIER, "discriminator"):
        reader = getattr(model, part)
        savable = part != "discriminator" and all(isinstance(network, Judge) for network in networks_of(reader))
        if reader is not None and not savable:
            title = who_judges(reader) if part == "judge" else part
            hint = f"leave it out: dataclasses.replace(model, {part}=None)"
            raise ModelError(f"the {title} is code, and only networks are saved", hint=hint)
    dtype = _smallest(model.generator)
    mark = save_model(folder, model.name, model.generator, truncation=model.truncation, dtype=dtype)
    model.bank.of_generator(mark).save(folder)
    if model.words is not None:
        model.words.save(folder)
    save_second(folder, model.second)
    judges, verifiers = (cast(Sequence[Judge], networks_of(part)) for part in (model.judge, model.verifier))
    for number, judge in enumerate(judges, 1):
        judge.save(folder, judge_name(number))
    by_training: dict[tuple[str, ...], list[Judge]] = {}
    for network in verifiers:
        by_training.setdefault(tuple(network.vocabulary), []).append(network)
    for names, group in by_training.items():
        held_out = next((samples for samples in model.held_out if tuple(samples.labels) == names), None)
        replace_networks(folder, VERIFIER, names, group, held_out)
    body = f"# {model.name}\n\nA generator with attributes that logical queries may name.\n"
    if model.folder is not None and (described := _described(model.folder, folder)):
        kinds = {"source": dict, RENDER: str}
        entries = {name: described[name] for name, kind in kinds.items() if isinstance(described.get(name), kind)}
        write_json(folder / CONFIG, read_json(folder / CONFIG) | entries)
        if readme := own_file(model.folder, README):
            license = license or card_licence(read_bytes(readme, MOST_CARD))
        if card := own_file(model.folder, CARD):
            body = read_bytes(card, MOST_CARD).decode(errors="replace")
            write_text(folder / CARD, body)
            for name in re.findall(r"\]\(([\w-]+\.png)\)", body):
                if (picture := own_file(model.folder, name)) and _is_png(picture):
                    shutil.copyfile(picture, folder / name)
    family = family_of(model.generator)
    tags = ["energyql", family.name if family else "", "controllable-generation", "energy-based-model"]
    facts = {"library_name": LIBRARY, "license": license or UNKNOWN, "pipeline_tag": PIPELINE_TAG, "tags": tags}
    weights = weights_file(folder)
    use = _use(model, hub_name, fingerprint(weights) if weights.is_file() else mark)
    write_text(folder / README, model_card(facts, f"{body.rstrip()}\n\n{use}"))


def _described(folder: Path, other: Path) -> dict[str, Any] | None:
    """`config.json` of `folder` if `other` has the same generator, in any precision, else `None`."""
    try:
        described, path, weights = read_json(folder / CONFIG), weights_file(folder), weights_file(other)
        if fingerprint(path) == fingerprint(weights):
            return described
        old, new = read_tensors(path), read_tensors(weights)
    except ModelError:
        return None
    same = old.keys() == new.keys() and all(torch.equal(old[name].float(), new[name].float()) for name in old)
    return described if same else None


def _is_png(path: Path) -> bool:
    """Whether a file begins like a PNG file, and has at most 16 MiB."""
    return path.stat().st_size <= _MOST_PICTURE and path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def _smallest(generator: Any) -> torch.dtype:
    """`torch.float16` if rounding to it changes no weight of the generator, else `torch.float32`."""
    state: Mapping[str, Tensor] = getattr(generator, "state_dict", dict)()
    weights = [tensor for tensor in state.values() if tensor.is_floating_point()]
    exact = all(torch.equal(weight.half().to(weight.dtype), weight) for weight in weights)
    return torch.float16 if exact else torch.float32


def _use(model: Model, hub_name: str, mark: str) -> str:
    """Markdown for a model card: an example in Python, and a table of the attributes."""
    vocabulary, rows = model.bank.vocabulary, []
    for name, spec in vocabulary.items():
        values = KINDS[spec.kind].listed(spec)
        report = model.bank.reports.get(name)
        quality = "not measured" if report is None else ", ".join(filter(None, (str(report), report.ranking_text)))
        cells = (f"`{name}`", spec.kind, values, spec.description, quality)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    calibrations = {} if model.words is None else model.words.calibrations
    texts = "".join(f'\n- `"{text}"`, read as words: {one}' for text, one in calibrations.items())
    name, first = next(iter(vocabulary.items()))
    query = str(KINDS[first.kind].queries.example(Attribute(name), first))
    return f"""## Use

With [energyql](https://pypi.org/project/energyql/) and `huggingface_hub`:

```python
from energyql import Model, generate

model = Model.from_pretrained("{hub_name}")
generate({query!r}, n=16, model=model).grid()
```

All weights are safetensors or ONNX, and loading them runs no code. SHA-256 of the generator: `{mark}`.

## Attributes

| attribute | kind | values | meaning | quality of its head on held-out labels |
|---|---|---|---|---|
{"".join(rows)}{texts}"""
