"""Labels from text prompts by CLIP, which compares pictures with texts (Radford et al. 2021, arXiv 2103.00020)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.errors import DataError, ModelError
from energyql.files import read_json
from energyql.numerics.shapes import Float
from energyql.plugins import import_optional
from energyql.vocabulary import AttributeSpec, Vocabulary

Prompts = Mapping[str, Sequence[str] | Mapping[str, str]]
"""Attribute -> [prompt of yes, prompt of no]; or attribute -> {class: prompt}."""
EXAMPLE = 'such as {"glasses": ["a face with glasses", "a face without glasses"]}'
"""Example of prompts, for the hints of error messages."""
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation, for red, green and blue, of the pictures in [0, 1] that CLIP learned from. They are used
if a model does not state the mean and standard deviation of its pictures."""


class ClipLabeller:
    """A function that labels pictures: each attribute gets the value whose prompt is most similar to the picture.

    Args:
        model: a model of open_clip, or anything with `encode_image`, `encode_text`, `logit_scale` (a logarithm) and
            `visual.image_size`, `visual.image_mean`, `visual.image_std`.
        tokenizer: function from texts to tokens.
        prompts: attribute -> [prompt of yes, prompt of no], or attribute -> {class: prompt}.
        margin: least difference between the two highest logits (similarities times the exponential of `logit_scale`).
            If the difference is smaller, the label is left out, because it would be a guess.
        identity: name of the model. An interrupted labelling is continued only by a labeller with an equal name, equal
            prompts and an equal margin.

    Raises:
        DataError: there are no prompts, or the prompts of an attribute are neither a pair nor {class: prompt}.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Callable[[list[str]], Tensor],
        prompts: Prompts,
        *,
        margin: float = 0.0,
        identity: str = "clip",
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.margin = margin
        self.texts: dict[str, tuple[list[Any], Tensor]] = {}
        specs = []
        with torch.no_grad():
            for name, options in prompts.items():
                spec, values, sentences = _attribute(name, options)
                specs.append(spec)
                self.texts[name] = values, F.normalize(model.encode_text(tokenizer(sentences)).float(), dim=-1)
        if not specs:
            raise DataError("there are no prompts", hint=EXAMPLE)
        self.vocabulary = Vocabulary(specs)
        self.identity = f"{identity} {margin} {json.dumps(prompts, sort_keys=True, default=list)}"

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "batch channels height width"]) -> dict[str, list[Any]]:
        """Label pictures in [-1, 1], (batch, 1 or 3, height, width).

        Returns:
            Attribute -> a label for each picture: true, false or the name of a class; `None` if the logits of the two
                most similar prompts differ by less than `margin`.
        """
        device = next(self.model.parameters()).device
        pictures = self.prepare(images).to(device)
        features = F.normalize(self.model.encode_image(pictures).float(), dim=-1)
        labels: dict[str, list[Any]] = {}
        for name, (values, texts) in self.texts.items():
            logits = self.model.logit_scale.exp().float() * features @ texts.to(device).T
            best = logits.topk(2, dim=1)
            clear = (best.values[:, 0] - best.values[:, 1]) >= self.margin
            labels[name] = [values[k] if c else None for k, c in zip(best.indices[:, 0].tolist(), clear, strict=True)]
        return labels

    def prepare(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 3 _ _"]:
        """Return the input of the model for pictures in [-1, 1]: resized, with three channels, and standardised."""
        visual = self.model.visual
        size = (visual.image_size,) * 2 if isinstance(visual.image_size, int) else tuple(visual.image_size)
        pictures = (images.float().clamp(-1, 1) + 1) / 2
        pictures = pictures.expand(-1, 3, -1, -1)
        if pictures.shape[-2:] != size:
            pictures = F.interpolate(pictures, size=size, mode="bicubic", antialias=True).clamp(0, 1)
        statistics = (getattr(visual, "image_mean", None) or MEAN, getattr(visual, "image_std", None) or STD)
        mean, std = (torch.tensor(numbers, device=images.device).view(3, 1, 1) for numbers in statistics)
        return (pictures - mean) / std


def load_clip_labeller(
    prompts: Prompts | Path,
    *,
    model: str = "ViT-B-32",
    weights: str = "laion2b_s34b_b79k",
    margin: float = 0.0,
    device: torch.device | str = "cpu",
) -> ClipLabeller:
    """Load a CLIP model with open_clip, which downloads missing weights, and return a labeller that uses the model.

    Args:
        prompts: attribute -> [prompt of yes, prompt of no], or attribute -> {class: prompt}; or the path of a JSON file
            with such an object.
        model: a name in `open_clip.list_models()`.
        weights: a name in `open_clip.list_pretrained_tags_by_model(model)`, or the name of a file of weights.
        margin: least difference between the two highest logits of an attribute. If the difference is smaller, the
            picture gets no label.
        device: where to compute.

    Raises:
        ArgumentError: open_clip is not installed.
        DataError: the prompts have another form, or their file cannot be read; or open_clip cannot load the model.
    """
    if isinstance(prompts, Path):
        prompts = read_prompts(prompts)
    install = 'pip install "open_clip_torch>=2.24"'
    open_clip = import_optional("open_clip", "labels from prompts need open_clip", install)
    try:
        network = open_clip.create_model(model, pretrained=weights or None, device=device)
        tokenizer = open_clip.get_tokenizer(model)
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        hint = "open_clip.list_pretrained() lists pairs of --clip-model and --clip-weights"
        raise DataError(f"open_clip cannot load {model} with {weights}: {error}", hint=hint) from error
    identity = f"{model} {weights}"
    return ClipLabeller(network, lambda texts: tokenizer(texts).to(device), prompts, margin=margin, identity=identity)


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
    """Return the attribute called `name`, its values, and a prompt for each value.

    Args:
        name: name of the attribute.
        options: [prompt of yes, prompt of no] for a yes/no attribute, {class: prompt} for a categorical attribute.

    Raises:
        DataError: `options` has another form.
    """
    prompts = list(options.values()) if isinstance(options, Mapping) else options
    if isinstance(prompts, list | tuple) and len(prompts) > 1 and all(isinstance(prompt, str) for prompt in prompts):
        if isinstance(options, Mapping):
            return AttributeSpec(name, "categorical", values=tuple(options)), list(options), list(prompts)
        if len(prompts) == 2:
            return AttributeSpec(name, "yes/no", description=prompts[0]), [True, False], list(prompts)
    hint = 'give ["a face with glasses", "a bare face"], or {"black": "black hair", "blond": "blond hair"}'
    raise DataError(f"the prompts of {name!r} are {options!r}", hint=hint)
