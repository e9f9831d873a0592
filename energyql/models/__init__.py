"""Folders of models: models that come with energyql are found by name, other models by path.

This package does not import torch.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from energyql.errors import ArgumentError, EnergyQLError, ModelError, VocabularyError, either
from energyql.files import DAMAGED_MODEL, SAVED, file_mark, finish_saving, read_json, refuse_address, what_is_there
from energyql.models.hub import is_hub_id, model_files
from energyql.models.unfinished import check_finished
from energyql.vocabulary import Vocabulary, closest

DEFAULT_MODEL = "avatars"
"""Name of the packaged model that is used by default."""
Value = TypeVar("Value")


def _packaged() -> Path:
    """Folder of the folders of all packaged models."""
    return Path(__file__).parent


def packaged_models() -> list[str]:
    """Names of the models that come with energyql."""
    return sorted(path.parent.name for path in _packaged().glob("*/config.json"))


def model_folder(model: str | Path) -> Path:
    """Folder of a model: of a packaged one by name, such as "avatars", or by its path.

    If a process was killed while it saved files in the folder, the saving is completed first.

    Raises:
        ArgumentError: `model` is neither a name nor a path, or it is an address on the web.
        ModelError: there is no such model, or its training is not finished.
    """
    if not isinstance(model, str | os.PathLike):
        raise ArgumentError(f"a model is a name or the path of a folder, not {type(model).__name__}")
    refuse_address(model)
    names = packaged_models()
    if isinstance(model, str) and model in names:
        return _packaged() / model
    folder = Path(model)
    if folder.parent != _packaged():  # nothing is ever saved in the folder of a packaged model
        finish_saving(folder)
    if os.path.isfile(folder / "config.json"):  # also false for a text that cannot be a path
        return folder
    if os.path.isfile(folder):
        hint = "of a checkpoint, energyql train makes one with attributes (docs/newcomer.md)"
        raise ModelError(f"{folder} is a file, and a model is a folder", hint=hint)
    suggestion = closest(str(model), names)
    if os.path.isdir(folder):
        check_finished(folder)
        near = next((path.parent for path in sorted(folder.glob("*/config.json"))), suggestion)
        hint = "energyql convert makes one of a checkpoint, energyql train one with attributes"
        hint = f"did you mean {near}?" if near else hint
        if os.path.isfile(folder / "model_index.json"):
            hint = "it is a pipeline of diffusers; energyql train and energyql convert make model folders of such"
        if os.path.isfile(folder / "vocabulary.json"):
            python = f"load_model({str(model)!r}, generator=...)"
            hint = f"its attributes are of your own generator: {either(python, '--generator')}"
        raise ModelError(f"{folder} is not a model folder: it has no config.json", hint=hint)
    hint = f"did you mean {suggestion}?" if suggestion else f"packaged models: {', '.join(names) or 'none'}"
    if ":" in str(model) and len(folder.parts) == 1:
        hint = "a generator by name needs attributes first: energyql train makes a model folder of it"
    elif folder.suffix or len(folder.parts) > 1:
        hint = what_is_there(folder)
        if is_hub_id(str(model)):
            fetching = either(f"Model.from_pretrained({str(model)!r})", f"energyql download {model}")
            hint += f"; fetch a model of a hub: {fetching}"
    raise ModelError(f"there is no model {str(model)!r}", hint=f"{hint}\nor give the path of a model folder")


def read_undisturbed(folder: Path, read: Callable[[], Value]) -> Value:
    """Return the result of `read`, a function that reads several files of a model folder, all of one version.

    If another process saves the model meanwhile, `read` is called again, so that the result is never of parts of two
    models.

    Raises:
        EnergyQLError: `read` raised it, and the model did not change meanwhile; or an interrupted saving of the model
            cannot be completed.
    """
    while True:
        finish_saving(folder)
        before = _marks(folder)
        try:
            value = read()
        except EnergyQLError:
            if before == _marks(folder):
                raise
        else:
            if before == _marks(folder) and SAVED not in before:  # else it may be read while files are moved
                return value


def _marks(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name -> `file_mark` of the files of a model, and of the subfolder from which new files are moved."""
    marks = {}
    for path in [*model_files(folder), folder / SAVED]:
        with suppress(FileNotFoundError):  # another process has just replaced the model
            marks[path.name] = file_mark(path)
    return marks


def read_vocabulary(model: str | Path) -> Vocabulary:
    """Attributes of a model (names, kinds, values, ranges), without loading any weights; `model` as in `model_folder`.

    Raises:
        ModelError: there is no such model, it has no attributes, or its vocabulary.json is wrong.
    """
    folder = model_folder(model)
    path = folder / "vocabulary.json"
    if not path.is_file() and not (folder / "attributes.safetensors").is_file():
        check_finished(folder)
        raise ModelError(f"model {folder.name!r} has no attributes yet", hint="train some with energyql train")
    description = read_json(path)
    if "vocabulary" not in description:
        raise ModelError(f"{path} has no vocabulary", hint=DAMAGED_MODEL)
    try:
        return Vocabulary.from_dict(description["vocabulary"])
    except VocabularyError as error:
        raise ModelError(f"{path}: {error}", hint=DAMAGED_MODEL) from error
