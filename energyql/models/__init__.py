"""Where models live: the packaged ones by name, others by folder. Nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

from energyql.errors import ModelError
from energyql.files import read_json
from energyql.vocabulary import Vocabulary, closest

DEFAULT_MODEL = "avatars"


def packaged_models() -> list[str]:
    """Names of the models that come with energyql."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/config.json"))


def model_folder(model: str | Path) -> Path:
    """The folder of a packaged model, or the given folder.

    Raises:
        ModelError: there is neither a packaged model of that name nor a model folder there.
    """
    packaged = Path(__file__).parent / str(model)
    if isinstance(model, str) and model in packaged_models():
        return packaged
    folder = Path(model)
    if (folder / "config.json").is_file():
        return folder
    known = packaged_models()
    suggestion = closest(str(model), known)
    hint = f"did you mean {suggestion}?" if suggestion else f"packaged models: {', '.join(known)}"
    if folder.is_dir():
        raise ModelError(f"{folder} is not a model folder: it has no config.json", hint=hint)
    raise ModelError(f"there is no model {str(model)!r}", hint=f"{hint}; or give the path of a model folder")


def read_vocabulary(model: str | Path) -> Vocabulary:
    """The attributes of a model, without loading any weights."""
    path = model_folder(model) / "vocabulary.json"
    description = read_json(path)
    if "vocabulary" not in description:
        raise ModelError(f"{path} has no vocabulary")
    return Vocabulary.from_dict(description["vocabulary"])
