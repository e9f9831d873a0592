"""Labels from text prompts, by CLIP (Radford et al. 2021, arXiv 2103.00020)."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.errors import DataError, EnergyQLError, ModelError
from energyql.files import read_json
from energyql.numerics.shapes import Float
from energyql.vocabulary import AttributeSpec, Vocabulary

Prompts = Mapping[str, Sequence[str] | Mapping[str, str]]
"""Attribute -> [prompt of yes, prompt of no], or class -> prompt."""
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Statistics of the channels of CLIP's own pictures, for a model without them."""


class ClipLabeller:
    """Labels pictures by comparing them with prompts.

    Args:
        model: a model of open_clip, or anything with `encode_image`, `encode_text`, `logit_scale` (a logarithm) and
            `visual.image_size`, `visual.image_mean`, `visual.image_std`.
        tokenizer: texts -> tokens.
        prompts: see `Prompts`.
        margin: least difference of the two highest logits; below it the label is left out, because it would be a guess.
            CLIP's own scale turns similarities into logits.
        identity: name of the model, so that an interrupted labelling is not continued with another one.
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
            raise DataError(
                "there are no prompts", hint='such as {"glasses": ["a face with glasses", "a face without glasses"]}'
            )
        self.vocabulary = Vocabulary(specs)
        self.identity = f"{identity} {margin} {json.dumps(prompts, sort_keys=True, default=list)}"

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "batch channels height width"]) -> dict[str, list[Any]]:
        """Label pictures in [-1, 1], (batch, 1 or 3, height, width): attribute -> values, `None` for a guess."""
        device = next(self.model.parameters()).device
        pictures = self.prepare(images).to(device)
        features = F.normalize(self.model.encode_image(pictures).float(), dim=-1)
        found: dict[str, list[Any]] = {}
        for name, (values, texts) in self.texts.items():
            logits = self.model.logit_scale.exp().float() * features @ texts.to(device).T
            best = logits.topk(2, dim=1)
            clear = (best.values[:, 0] - best.values[:, 1]) >= self.margin
            found[name] = [values[k] if c else None for k, c in zip(best.indices[:, 0].tolist(), clear, strict=True)]
        return found

    def prepare(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch 3 _ _"]:
        """Apply the model's own preprocessing to tensors in [-1, 1]."""
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
    """Load a labeller with a model of open_clip, which downloads missing weights.

    `model` is a name of `open_clip.list_models()`; `weights` is one of
    `open_clip.list_pretrained_tags_by_model(model)`, or a file; `prompts` may be a JSON file.

    Raises:
        EnergyQLError: open_clip is not installed.
        DataError: the prompts or the model cannot be used.
    """
    if isinstance(prompts, Path):
        prompts = read_prompts(prompts)
    try:
        open_clip: Any = importlib.import_module("open_clip")
    except ImportError as error:
        raise EnergyQLError(
            "labels from prompts need open_clip, which is not installed", hint='pip install "open_clip_torch>=2.24"'
        ) from error
    try:
        network = open_clip.create_model(model, pretrained=weights or None, device=device)
        tokenizer = open_clip.get_tokenizer(model)
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        raise DataError(
            f"open_clip cannot load {model} with {weights}: {error}",
            hint="open_clip.list_pretrained() lists pairs of --clip-model and --clip-weights",
        ) from error
    return ClipLabeller(
        network, lambda texts: tokenizer(texts).to(device), prompts, margin=margin, identity=f"{model} {weights}"
    )


def read_prompts(path: Path) -> Prompts:
    """Read prompts from a JSON file.

    Raises:
        DataError: the file is missing or holds something else.
    """
    try:
        return read_json(path)
    except ModelError as error:
        raise DataError(
            f"{error.message}: an object, attribute -> prompts, is expected",
            hint='such as {"glasses": ["a face with glasses", "a face without glasses"]}',
        ) from error


def _attribute(name: str, options: Any) -> tuple[AttributeSpec, list[Any], list[str]]:
    if isinstance(options, Mapping) and len(options) > 1 and all(isinstance(text, str) for text in options.values()):
        spec = AttributeSpec(name, "categorical", values=tuple(options))
        return spec, list(spec.values), list(options.values())
    if isinstance(options, list | tuple) and len(options) == 2 and all(isinstance(text, str) for text in options):
        return AttributeSpec(name, "yes/no", description=options[0]), [True, False], list(options)
    raise DataError(
        f"the prompts of {name!r} are {options!r}",
        hint='give ["a face with glasses", "a bare face"], or {"black": "black hair", "blond": "blond hair"}',
    )
