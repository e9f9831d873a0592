"""Write model folders: from a model in memory, from another program's checkpoint, or with the name of code."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image

from energyql.attributes.doubt import save_second
from energyql.attributes.heads import Head
from energyql.attributes.judge import JointJudge, Judge, who_judges
from energyql.attributes.judge_reports import judge_name
from energyql.attributes.labels import ImageLabeller
from energyql.attributes.pictures import Bank
from energyql.errors import ModelError
from energyql.files import as_path, check_file, fingerprint, read_bytes, read_json, read_tensors, write_json, write_text
from energyql.generators.base import Generator
from energyql.generators.families import CONFIG, NAMED, WEIGHTS, default_truncation, family_of, write_generator
from energyql.generators.load import UNKNOWN, checkpoint_card, read_licence
from energyql.language import E, Expr, OneOf
from energyql.models.hub import (
    LIBRARY,
    MOST_CARD,
    README,
    card_licence,
    check_folder,
    model_card,
    model_files,
    open_hub,
    own_file,
    upload,
)
from energyql.replacement import saving
from energyql.version import __version__
from energyql.vocabulary import AttributeSpec

FORMAT = 1
CARD = "card.md"
_MOST_PICTURE = 1 << 24
"""Largest picture of a card, in bytes."""


class Saved:
    """The methods of a `Model` that write it."""

    name: str
    generator: Generator
    bank: Bank
    judge: ImageLabeller | None
    truncation: float
    second: Mapping[str, Head]
    folder: Path | None
    discriminator: Callable[[torch.Tensor], torch.Tensor] | None

    def save_pretrained(self, folder: str | Path, *, license: str | None = None) -> Path:
        """Write the model as a folder of safetensors, JSON and a card, which `load_model` and hubs read.

        Weights are written in half precision if that is exact, else in full. A card, its pictures (PNG), the licence
        and the origin of a converted generator come along from the folder that the model was loaded from, if it is
        still there and holds the same weights of the generator. Links out of that folder are not followed.

        Args:
            folder: is made if it is not there; files of an earlier model in it are removed, others stay.
            license: of the weights, as hubs abbreviate it: "apache-2.0", "cc-by-nc-4.0", "other". By default the one
                that the model came with, else "unknown".

        Returns:
            The folder.

        Raises:
            ModelError: the generator, the judge or a discriminator is code, or a reader is code without a name.
            ArgumentError: the folder cannot be written, or holds a README.md, a config.json or other files of a model
                that this library did not write.
        """
        folder = as_path(folder)
        check_folder(folder)
        is_new = not folder.exists()
        try:
            with saving(folder, model_files) as staged:
                _write_pretrained(staged, self, license=license)
        except BaseException:
            with suppress(OSError):
                if is_new:
                    folder.rmdir()
            raise
        return folder

    def push_to_hub(
        self, name: str, *, license: str | None = None, private: bool = False, message: str | None = None
    ) -> str:
        """Upload the model to a hub, in one commit, and return the address of the commit.

        Args:
            name: `owner/name`; the repository is made if it is not there. See `energyql.models.hub.upload`.
            license: as for `save_pretrained`.
            private: whether a new repository is private; one that is there must be.
            message: of the commit.

        Raises:
            ModelError: as for `save_pretrained`; or the hub refuses, or cannot be reached.
            ArgumentError: the name is wrong, huggingface_hub is not installed, or the repository is public or holds
                something else.
        """
        open_hub(name)  # before the work of writing
        with TemporaryDirectory() as folder:
            _write_pretrained(Path(folder), self, license=license, hub_name=name)
            return upload(Path(folder), name, private=private, message=message or f"{self.name}, a model for energyql")


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
    """Write the name of the generator's code into `config.json`; of a model that is there, all else stays."""
    old = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    new = {"generator": {"kind": NAMED, "name": generator}}
    write_json(folder / CONFIG, {"format": FORMAT, "name": name, "truncation": truncation} | old | new)


def record_judge(folder: Path, name: str) -> None:
    """Write the name of a judge, as `import_labeller` takes it, into the configuration of a model folder."""
    write_json(folder / CONFIG, read_json(folder / CONFIG) | {"judge": name})


def save_converted(
    folder: Path, name: str, generator: Generator, checkpoint: Path, *, truncation: float | None = None
) -> str:
    """Write a model folder in full precision, so that its pictures are those of the checkpoint.

    `config.json` gets an entry `source`: name and SHA-256 of the file, its licence, and the version of this library.
    `card.md` says the same to people.

    Args:
        folder: where to write.
        name: of the model.
        generator: of a known family, read from `checkpoint`.
        checkpoint: the file.
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


def _write_pretrained(folder: Path, model: Saved, *, license: str | None, hub_name: str = "owner/name") -> None:
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
    """Return the configuration of a model folder, if it is still there and holds these weights, in any precision."""
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
    """Return half precision if it holds all weights exactly, as it does for those that were read in it."""
    state = generator.state_dict() if isinstance(generator, torch.nn.Module) else {}
    weights = [tensor for tensor in state.values() if tensor.is_floating_point()]
    exact = all(torch.equal(weight.half().to(weight.dtype), weight) for weight in weights)
    return torch.float16 if exact else torch.float32


def _use(model: Saved, hub_name: str, mark: str) -> str:
    """Return the part of a card that says how a model is used, and what its attributes are."""
    known, rows = model.bank.vocabulary, []
    for name, spec in known.items():
        values = ", ".join(spec.values) or (f"{spec.low:g} to {spec.high:g}" if spec.kind == "continuous" else "")
        cells = (f"`{name}`", spec.kind, values, spec.description, str(model.bank.reports.get(name, "not measured")))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n")
    query = str(_example(next(iter(known.values()))))
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


def _example(spec: AttributeSpec) -> Expr:
    """Return a query about an attribute."""
    attribute = E[spec.name]
    if spec.kind == "categorical":
        return OneOf(spec.name, (spec.values[0],))
    return attribute if spec.kind == "yes/no" else attribute > (spec.low + spec.high) / 2
