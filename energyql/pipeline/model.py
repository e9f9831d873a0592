"""Models: generator, attribute heads and judge, in folders that are read without running code from them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.bank import Bank
from energyql.attributes.heads import SECOND, Head, load_second, save_second
from energyql.attributes.judge import JointJudge, Judge, stored_judge, who_judges
from energyql.attributes.labels import ImageLabeller, import_labeller, labeller_name, read_images
from energyql.attributes.pictures import load_bank
from energyql.attributes.quality import READER, REPORT, HeadReport, judge_name, judge_names, read_given
from energyql.errors import ArgumentError, ModelError
from energyql.files import (
    as_path,
    check_file,
    fingerprint,
    read_bytes,
    read_json,
    read_tensors,
    real_path,
    saving,
    write_json,
    write_text,
)
from energyql.generators.base import Generator, Label, check_label, device_of
from energyql.generators.checkpoints.reading import reading
from energyql.generators.families import (
    CONFIG,
    NAMED,
    WEIGHTS,
    default_truncation,
    family_of,
    module_fingerprint,
    open_generator,
    write_generator,
)
from energyql.generators.load import UNKNOWN, checkpoint_card, read_licence
from energyql.kinds import KINDS
from energyql.language import E, ModelNamespace
from energyql.models import model_folder
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
from energyql.pipeline.checks import check_fitted_to, check_parts
from energyql.plugins import check_allowed
from energyql.version import __version__
from energyql.vocabulary import ByAttribute, Vocabulary

FORMAT = 1
CARD = "card.md"
_MOST_PICTURE = 1 << 24
"""Largest picture of a card, in bytes."""
BANK_FILES = ("attributes.safetensors", "vocabulary.json", REPORT, f"{READER}.safetensors", f"{READER}.json")
NO_JUDGE = "none"
"""The name, in place of that of a judge, for no judge."""
Values = dict[str, npt.NDArray[Any]]
"""Attribute -> decided values, (n,): bool, names of classes, or numbers."""


@dataclass(frozen=True, repr=False)
class Model:
    """A generator with attribute heads and, if there is one, a judge.

    Attributes:
        name: name for messages and provenance.
        generator: the generator of the pictures.
        bank: heads that guide the sampler, or a `PictureBank`, whose reader does; its vocabulary is the model's.
        judge: reader of pictures, independent of generator and bank: a `Judge`, or a function or torch module as for
            `train_attributes`; `None` for none. Queries about attributes that it does not read get no verdict.
        truncation: psi used unless a call says otherwise.
        fingerprints: SHA-256 of the weights of "generator", "attributes", "second", "reader", "judge", "judge-2", ...
        second: heads of the same attributes that were fitted to other labels, to detect latents where the first heads
            are unreliable; an attribute may have none.
        judge_report: quality of the judge by attribute, on labelled pictures outside its training set; attributes that
            were not measured have none.
        folder: folder that it was loaded from; `None` for a model made in memory.
        discriminator: function for `realism`, from pictures in [-1, 1] to log(D / (1 - D)), (batch,) or (batch, 1), as
            the discriminator of a StyleGAN returns it; a torch module, or a function that autograd can differentiate.

    Raises:
        ModelError: the judge is the reader that guides the sampler.
        ArgumentError: a part has the wrong type.
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
            revision: branch, tag or commit of a model of a hub.
            device: as for `load_model`.
            generator: as for `load_model`.
            judge: as for `load_model`. Names of code that a downloaded model holds are never followed.
            reader: as for `load_model`.

        Raises:
            ModelError: it cannot be downloaded, or holds other files than data; or as for `load_model`.
            ArgumentError: a `revision` is set for a model that is on no hub, or huggingface_hub is not installed.
        """
        if is_hub_id(model):
            model = download(str(model), revision)
        elif revision is not None:
            raise ArgumentError(f"{model} is on no hub, so it has no revision {revision!r}", hint="leave out revision")
        return load_model(model, device, generator=generator, judge=judge, reader=reader)

    @property
    def judged_names(self) -> tuple[str, ...]:
        """Names of the attributes that the judge reads: those of its `vocabulary`, or all; () without a judge."""
        names = getattr(self.judge, "vocabulary", self.vocabulary if self.judge is not None else ())
        return tuple(name for name in self.vocabulary if name in names)

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
        """Return a label, as provenance records it, under which the heads are valid; by default that of their training.

        Raises:
            ArgumentError: the generator has no such label, or needs one, or the heads were fitted under another.
        """
        fitted = self.bank.fitted
        checked = check_label(fitted.default_label if label is None else label, self.generator)
        fitted.check_label(checked, self.name)
        return checked

    def check_truncation(self, truncation: float | None) -> float:
        """Return the truncation psi, by default the model's own, if the heads are valid at it.

        Raises:
            ArgumentError: the heads were fitted at others.
        """
        psi = self.truncation if truncation is None else truncation
        self.bank.fitted.check_truncation(psi, self.name)
        return psi

    def judge_images(self, images: Tensor) -> Values:
        """Return the judge's values for images (n, channels, height, width), by attribute; {} without a judge."""
        names = self.judged_names
        if self.judge is None or not names:
            return {}
        with torch.inference_mode():
            return read_images(self.judge, images, Vocabulary(self.vocabulary[name] for name in names))

    def to(self, device: torch.device | str) -> Model:
        """Return the model on a device, in evaluation mode. Torch modules are moved in place, as in torch."""
        device = choose_device(device)
        for part in (self.generator, self.judge, self.discriminator):
            if isinstance(part, torch.nn.Module):
                part.to(device).eval()
        return replace(self, bank=self.bank.to(device))

    def save_pretrained(self, folder: str | Path, *, license: str | None = None) -> Path:
        """Write the model as a folder of safetensors, JSON and a card, which `load_model` and hubs read.

        Weights are written in half precision if that is exact, else in full. A card, its pictures (PNG), the licence
        and the origin of a converted generator come along from the folder that the model was loaded from, if it is
        still there and holds the same weights of the generator. Links out of that folder are not followed.

        Args:
            folder: folder to write, made if it is missing; files of an earlier model in it are removed, others stay.
            license: licence of the weights, as hubs abbreviate it: "apache-2.0", "cc-by-nc-4.0", "other". By default
                that of the loaded model, else "unknown".

        Returns:
            The folder.

        Raises:
            ModelError: the generator, the judge or a discriminator is code, or a reader is code without a name.
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
            name: `owner/name`; the repository is made if it is not there. See `energyql.models.hub.upload`.
            license: as for `save_pretrained`.
            private: whether a new repository is private; one that is there must be.
            message: message of the commit.

        Raises:
            ModelError: as for `save_pretrained`; or the hub refuses, or cannot be reached.
            ArgumentError: the name is wrong, huggingface_hub is not installed, or the repository is public or holds
                something else.
        """
        open_hub(name)  # before the work of writing
        with TemporaryDirectory() as folder:
            _write_pretrained(Path(folder), self, license=license, hub_name=name)
            return upload(Path(folder), name, private=private, message=message or f"{self.name}, a model for energyql")


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
        device: device for all computations.
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
    if not any((folder / file).is_file() for file in BANK_FILES[:2]):
        check_finished(folder)
        if truncation is not None:
            hint = "use energyql train"
            raise ModelError(f"model {name!r} has no attributes yet, so it cannot be queried", hint=hint)
    bank = load_bank(folder, reader, allow_plugins=allow_plugins)
    check_fitted_to(folder, bank, opened, mark)
    parts = [folder / f"{part}.safetensors" for part in (bank.part, *judge_names(folder), Path(SECOND).stem)]
    marks = {path.stem: fingerprint(path) for path in parts if path.is_file()} | {"generator": mark}
    if reader is not None or bank.name is not None:  # not the one of the folder
        marks[bank.part] = judge_mark(bank.reader)
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
    """Return name and truncation of a model, and its entry "judge", the name of a judge that is code, or `None`."""
    path = folder / CONFIG
    config = read_json(path)
    with reading(path):
        if config["format"] != FORMAT:
            found = f"model format {config['format']!r}"
            raise ModelError(f"{found} is unknown; this energyql reads {FORMAT}", hint="install a newer energyql")
        name, truncation = str(config["name"]), float(config["truncation"])
        if not abs(truncation) <= LARGEST:
            raise ValueError(f"truncation is {truncation}")
    return name, truncation, config.get("judge")


def _judge_report(folder: Path, judge: ImageLabeller) -> Mapping[str, HeadReport]:
    """Return the quality of a judge: its own report, or that in the folder if it is about this code; else {}."""
    if isinstance(judge, Judge | JointJudge):
        return judge.report
    report = read_given(folder)
    return {} if report is None or report.mark != judge_mark(judge) else report.measured


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
        if device.type != "meta":  # which holds no numbers
            torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ArgumentError(f"device {name!r} is not available here", hint="use auto, cpu, cuda or mps") from error
    return device


def save_model(
    folder: Path,
    name: str,
    generator: Generator,
    *,
    truncation: float = 1.0,
    dtype: torch.dtype = torch.float16,
    source: Mapping[str, str] | None = None,
) -> str:
    """Write `generator.safetensors`, by default in half precision, and `config.json`.

    `source` says where the generator is from; see `save_converted`.

    Returns:
        The fingerprint to give to the attribute bank.
    """
    described = write_generator(folder, generator, dtype=dtype)
    config = {"format": FORMAT, "name": name, "truncation": truncation, **described}
    write_json(folder / CONFIG, config if source is None else config | {"source": dict(source)})
    return fingerprint(folder / WEIGHTS)


def save_named_model(folder: Path, name: str, generator: str, *, truncation: float = 1.0) -> None:
    """Write the name of the generator's code into `config.json`; other entries of an existing file stay."""
    old = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    new = {"generator": {"kind": NAMED, "name": generator}}
    write_json(folder / CONFIG, {"format": FORMAT, "name": name, "truncation": truncation} | old | new)


def record_judge(folder: Path, name: str) -> None:
    """Write the name of a judge, an argument of `import_labeller`, into `config.json` of a model folder."""
    write_json(folder / CONFIG, read_json(folder / CONFIG) | {"judge": name})


def save_converted(
    folder: Path, name: str, generator: Generator, checkpoint: Path, *, truncation: float | None = None
) -> str:
    """Write a model folder in full precision, so that its pictures are those of the checkpoint.

    `config.json` gets an entry `source`: name and SHA-256 of the file, its licence, and the version of this library.
    `card.md` says the same to people.

    Args:
        folder: folder to write.
        name: name of the model.
        generator: generator of a known family, read from `checkpoint`.
        checkpoint: the checkpoint file.
        truncation: psi used unless a call says otherwise; by default that of the family.

    Returns:
        The fingerprint to give to the attribute bank.

    Raises:
        ModelError: a file is damaged.
    """
    truncation = default_truncation(generator) if truncation is None else truncation
    source = {
        "file": checkpoint.name,
        "sha256": fingerprint(checkpoint),
        "licence": read_licence(checkpoint) or UNKNOWN,
        "energyql": __version__,
    }
    write_text(folder / CARD, checkpoint_card(name, generator, source, truncation))
    return save_model(folder, name, generator, truncation=truncation, dtype=torch.float32, source=source)


def _write_pretrained(folder: Path, model: Model, *, license: str | None, hub_name: str = "owner/name") -> None:
    """Write all parts of a model with a card, `README.md`, as `Model.save_pretrained` describes.

    Raises:
        ModelError: the generator, the judge or the discriminator is code, which no file holds.
    """
    judges = model.judge.judges if isinstance(model.judge, JointJudge) else [model.judge]
    if code := [judge for judge in judges if judge is not None and not isinstance(judge, Judge)]:
        raise ModelError(
            f"the {who_judges(code[0])} is code, and only networks are saved",
            hint="leave it out: dataclasses.replace(model, judge=None); who loads the model gives it by judge=",
        )
    if model.discriminator is not None:
        raise ModelError(
            "the discriminator is code, which no folder holds",
            hint="leave it out: dataclasses.replace(model, discriminator=None)",
        )
    mark = save_model(
        folder, model.name, model.generator, truncation=model.truncation, dtype=_smallest(model.generator)
    )
    model.bank.of_generator(mark).save(folder)
    save_second(folder, model.second)
    for number, judge in enumerate(judges, 1):
        if isinstance(judge, Judge):
            judge.save(folder, judge_name(number))
    body = f"# {model.name}\n\nA generator with attributes that logical queries may name.\n"
    if model.folder is not None and (described := _described(model.folder, folder / WEIGHTS)):
        if isinstance(source := described.get("source"), dict):
            write_json(folder / CONFIG, read_json(folder / CONFIG) | {"source": source})
        if readme := own_file(model.folder, README):
            license = license or card_licence(read_bytes(readme, MOST_CARD))
        if card := own_file(model.folder, CARD):
            body = read_bytes(card, MOST_CARD).decode(errors="replace")
            write_text(folder / CARD, body)
            for name in re.findall(r"\]\(([\w-]+\.png)\)", body):
                if (picture := own_file(model.folder, name)) and _is_png(picture):
                    shutil.copyfile(picture, folder / name)
    family = family_of(model.generator)
    facts = {
        "library_name": LIBRARY,
        "license": license or UNKNOWN,
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["energyql", family.name if family else "", "controllable-generation", "energy-based-model"],
    }
    write_text(folder / README, model_card(facts, f"{body.rstrip()}\n\n{_use(model, hub_name, mark)}"))


def _described(folder: Path, weights: Path) -> dict[str, Any] | None:
    """Return the configuration of a model folder, or `None` unless it holds the weights of the file `weights`.

    The weights may be in another precision.
    """
    try:
        described, old, new = read_json(folder / CONFIG), read_tensors(folder / WEIGHTS), read_tensors(weights)
    except ModelError:
        return None
    same = old.keys() == new.keys() and all(torch.equal(old[name].float(), new[name].float()) for name in old)
    return described if same else None


def _is_png(path: Path) -> bool:
    try:
        check_file(path, _MOST_PICTURE)
        with Image.open(path, formats=("PNG",)) as picture:
            picture.verify()
    except (ModelError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    return True


def _smallest(generator: Any) -> torch.dtype:
    """Return half precision if all weights are exact in it, else full precision."""
    state = generator.state_dict() if isinstance(generator, torch.nn.Module) else {}
    weights = [tensor for tensor in state.values() if tensor.is_floating_point()]
    exact = all(torch.equal(weight.half().to(weight.dtype), weight) for weight in weights)
    return torch.float16 if exact else torch.float32


def _use(model: Model, hub_name: str, mark: str) -> str:
    """Return the section of a card on the use of a model and on its attributes, as Markdown."""
    vocabulary, rows = model.bank.vocabulary, []
    for name, spec in vocabulary.items():
        values = KINDS[spec.kind].listed(spec)
        cells = (f"`{name}`", spec.kind, values, spec.description, str(model.bank.reports.get(name, "not measured")))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    name, first = next(iter(vocabulary.items()))
    query = str(KINDS[first.kind].example(E[name], first))
    return f"""## Use

With [energyql](https://pypi.org/project/energyql/) and `huggingface_hub`:

```python
from energyql import Model, generate

model = Model.from_pretrained("{hub_name}")
generate({query!r}, n=16, model=model).grid()
```

All weights are safetensors, and loading them runs no code. SHA-256 of the generator: `{mark}`.

## Attributes

| attribute | kind | values | meaning | quality of its head on held-out labels |
|---|---|---|---|---|
{"".join(rows)}"""
