"""Labels from text prompts by CLIP, which compares pictures with texts (Radford et al. 2021, arXiv 2103.00020)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.predictions import YesNo
from energyql.attributes.words import Calibration, OpenClip, WordReader, Words
from energyql.errors import DataError, ModelError, either
from energyql.files import read_json
from energyql.numerics.shapes import Float
from energyql.plugins import import_optional
from energyql.vocabulary import AttributeSpec, Vocabulary

Prompts = Mapping[str, Sequence[str] | Mapping[str, str]]
"""Attribute -> [prompt of yes, prompt of no]; or attribute -> {class: prompt}."""
EXAMPLE = 'such as {"glasses": ["a face with glasses", "a face without glasses"]}'
"""Example of prompts, for the hints of error messages."""


class ClipLabeller:
    """A function that labels pictures: each attribute gets the value whose prompt is most similar to the picture.

    Args:
        reader: network that compares pictures with texts.
        prompts: attribute -> [prompt of yes, prompt of no], or attribute -> {class: prompt}.
        margin: least difference between the two highest logits; with a smaller one, there is no label.
        identity: name of the reader. An interrupted labelling continues only with an equal name, prompts and margin.
        words: the reader with calibrations. A yes/no attribute whose prompt of yes has one is decided by its calibrated
            log-odds, without its prompt of no.

    Attributes:
        calibrations: attribute -> calibration of its prompt of yes, such as "calibrated on 30 labels" or "zero-shot".

    Raises:
        DataError: there are no prompts, or the prompts of an attribute are neither a pair nor {class: prompt}.
    """

    def __init__(
        self,
        reader: WordReader,
        prompts: Prompts,
        *,
        margin: float = 0.0,
        identity: str = "clip",
        words: Words | None = None,
    ) -> None:
        self.reader, self.margin, self.words = reader, margin, words
        attributes = [_attribute(name, options) for name, options in prompts.items()]
        if not attributes:
            raise DataError("there are no prompts", hint=EXAMPLE)
        self.vocabulary = Vocabulary(spec for spec, _, _ in attributes)
        self.texts = {spec.name: (values, sentences) for spec, values, sentences in attributes}
        calibrated = {} if words is None else words.calibrations
        self.calibrations = {
            name: str(calibrated.get(texts[0], Calibration()) if values == [True, False] else Calibration())
            for name, (values, texts) in self.texts.items()
        }
        self.identity = f"{identity} {margin} {json.dumps(prompts, sort_keys=True, default=list)}"

    @torch.no_grad()
    def predict(self, images: Float[Tensor, "batch channels height width"]) -> dict[str, YesNo]:
        """Predict the yes/no attributes of pictures in [-1, 1]."""
        predictions = {}
        for name, (values, texts) in self.texts.items():
            if values == [True, False]:
                if self.words is not None and texts[0] in self.words.calibrations:
                    predictions[name] = YesNo(self.words.log_odds(images, texts[:1])[:, 0])
                else:
                    logits = self.reader.read(images, texts)
                    predictions[name] = YesNo(logits[:, 0] - logits[:, 1])
        return predictions

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "batch channels height width"]) -> dict[str, list[Any]]:
        """Label pictures in [-1, 1], (batch, 1 or 3, height, width).

        Returns:
            Attribute -> a label for each picture: true, false or the name of a class; `None` below `margin`.
        """
        predictions = self.predict(images)
        labels: dict[str, list[Any]] = {}
        for name, (values, texts) in self.texts.items():
            if name in predictions:
                logits = torch.stack([predictions[name].logit, torch.zeros_like(predictions[name].logit)], 1)
            else:
                logits = self.reader.read(images, texts)
            best = logits.topk(2, dim=1)
            clear = (best.values[:, 0] - best.values[:, 1]) >= self.margin
            labels[name] = [values[k] if c else None for k, c in zip(best.indices[:, 0].tolist(), clear, strict=True)]
        return labels


def load_clip_labeller(
    prompts: Prompts | Path,
    *,
    model: str = "ViT-B-32",
    weights: str = "laion2b_s34b_b79k",
    margin: float = 0.0,
    device: torch.device | str = "cpu",
) -> ClipLabeller:
    """Load a labeller with a CLIP model of open_clip, which downloads missing weights.

    Args:
        prompts: as for `ClipLabeller`; or the path of a JSON file, see `read_prompts`.
        model: a name in `open_clip.list_models()`.
        weights: a name in `open_clip.list_pretrained_tags_by_model(model)`, or the name of a file of weights.
        margin: least difference between the two highest logits for a label, see `ClipLabeller`.

    Raises:
        ArgumentError: open_clip is not installed.
        DataError: the prompts have another form, or their file cannot be read; or open_clip cannot load the model.
    """
    if isinstance(prompts, Path):
        prompts = read_prompts(prompts)
    install = 'pip install "open_clip_torch>=3"'
    open_clip = import_optional("open_clip", "labels from prompts need open_clip", install)
    try:
        network = open_clip.create_model(model, pretrained=weights or None, device=device)
        tokenizer = open_clip.get_tokenizer(model)
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        names = either("model and weights", "--clip-model and --clip-weights")
        hint = f"open_clip.list_pretrained() of open_clip lists pairs of {names}"
        raise DataError(f"open_clip cannot load {model} with {weights}: {error}", hint=hint) from error
    identity = f"{model} {weights}"
    return ClipLabeller(OpenClip(network, tokenizer), prompts, margin=margin, identity=identity)


def read_prompts(path: Path) -> Prompts:
    """Read prompts from a JSON file, such as {"glasses": ["a face with glasses", "a face without glasses"]}.

    Raises:
        DataError: the file is missing, damaged, or does not hold a JSON object.
    """
    try:
        return read_json(path)
    except ModelError as error:
        raise DataError(f"{error.message}: an object, attribute -> prompts, is expected", hint=EXAMPLE) from error


def _attribute(name: str, options: Any) -> tuple[AttributeSpec, list[Any], list[str]]:
    """The attribute for some prompts, its values, and a prompt for each value."""
    prompts = list(options.values()) if isinstance(options, Mapping) else options
    if isinstance(prompts, list | tuple) and len(prompts) > 1 and all(isinstance(prompt, str) for prompt in prompts):
        if isinstance(options, Mapping):
            return AttributeSpec(name, "categorical", values=tuple(options)), list(options), list(prompts)
        if len(prompts) == 2:
            return AttributeSpec(name, "yes/no", description=prompts[0]), [True, False], list(prompts)
    hint = 'give ["a face with glasses", "a bare face"], or {"black": "black hair", "blond": "blond hair"}'
    raise DataError(f"the prompts of {name!r} are {options!r}", hint=hint)
