"""Words as attributes: a text in quotes in a query, such as "a person in a hat", becomes a yes/no attribute of a model.

A reader of words predicts from a picture whether a text is true of it. It is a dual encoder, such as CLIP (Radford et
al. 2021, arXiv 2103.00020) or SigLIP (Zhai et al. 2023, arXiv 2303.15343): one network for pictures, one for texts, and
a logit for each pair, which is the larger, the better the text fits the picture. The log-odds that a text is true are
its logit minus that of a contrast, a text that is true of every picture. A few labels of pictures improve them
(`Calibration`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from inspect import isclass, isfunction
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.bank import Bank, FittedUnder
from energyql.attributes.heads import AttributeBank, Head
from energyql.attributes.labels import ImageLabeller, call_labeller
from energyql.attributes.pictures import PictureBank, as_prediction
from energyql.attributes.predictions import Prediction, YesNo
from energyql.attributes.quality import HeadReport, naming_damage, report_entries
from energyql.attributes.towers import as_pixels, refuse_named_code, stated, stated_scale
from energyql.errors import ArgumentError, DataError, ModelError, first_line
from energyql.files import as_path, fingerprint, json_digest, read_json, write_json
from energyql.language.lexical import shorten
from energyql.numerics.random import normals
from energyql.numerics.shapes import Float
from energyql.plugins import JUDGES, import_optional, load_plugin, make_plugin, without_bars
from energyql.vocabulary import AttributeSpec, ByAttribute, Vocabulary

CONTRAST = "a picture"
"""Text whose logit is subtracted from the logits of other texts, unless a `Calibration` names another text for this."""
MOST_ZERO_SHOT = math.log(0.99 / 0.01)
"""Bound of the log-odds of a text without labels: no P is above 0.99 or below 0.01."""
CALIBRATIONS = "words.json"
"""File in a model folder with the calibrations of texts; see `Calibration`."""


class WordReader(Protocol):
    """An object that compares pictures with texts. Any object with the method `read` will do."""

    def read(self, pictures: Float[Tensor, "n channels height width"], texts: Sequence[str]) -> Tensor:
        """Return logits (n, texts) for pictures in [-1, 1]: the better a text fits a picture, the larger the logit."""


class DualEncoder:
    """Base of `WordReader`s like CLIP, which embed pictures and texts, and compare them by dot product.

    Subclasses define `embed` and `_encode`.

    Args:
        network: a torch module that has both networks, and a parameter `logit_scale`: the logarithm of the factor by
            which products of unit vectors are multiplied. A parameter `logit_bias`, if there is one, is added.
        tokenizer: function from texts to the input of the network.
    """

    def __init__(self, network: Any, tokenizer: Any) -> None:
        self.network, self.tokenizer = network.eval().requires_grad_(False), tokenizer
        self._encoded: dict[tuple[str, ...], Tensor] = {}

    def embed(self, pictures: Tensor) -> Float[Tensor, "n width"]:
        """Output of the network for pictures in [-1, 1], (n, channels, height, width), as unit vectors."""
        raise NotImplementedError

    def _encode(self, texts: list[str]) -> Float[Tensor, "texts width"]:
        """Output of the network for texts, a vector of any length for each."""
        raise NotImplementedError

    def score(self, embedded: Float[Tensor, "n width"], texts: Sequence[str]) -> Float[Tensor, "n texts"]:
        """Logits of texts for pictures, given as unit vectors of `embed`; it is faster for the texts of the last call.

        A text that is too long for the network raises an `ArgumentError`.
        """
        key = tuple(texts)
        encoded = self._encoded.get(key)
        if encoded is None:
            with torch.no_grad():
                encoded = F.normalize(self._encode(list(texts)).float(), dim=-1)
            self._encoded = {key: encoded}  # replaced, not changed: another thread may read it
        scale, bias = self.network.logit_scale.exp().float(), getattr(self.network, "logit_bias", None)
        logits: Tensor = scale * embedded @ encoded.to(embedded.device).T
        if bias is not None:
            logits += bias.float().to(logits.device)
        return logits

    def read(self, pictures: Tensor, texts: Sequence[str]) -> Float[Tensor, "n texts"]:
        """Logits of texts for pictures in [-1, 1]: the better the fit, the larger the logit."""
        return self.score(self.embed(pictures), texts)

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next((weight.device for weight in self.network.parameters()), torch.device("cpu"))


class OpenClip(DualEncoder):
    """A CLIP model of the library open_clip, as a `WordReader`.

    A module with `encode_image`, `encode_text`, `logit_scale` and `visual` will do. Its `visual` has the size of
    pictures (`image_size`), and may have their mean and deviation (`image_mean`, `image_std`).
    """

    def prepare(self, images: Tensor) -> Float[Tensor, "n 3 _ _"]:
        """Input of the network for pictures in [-1, 1]; see `as_pixels`."""
        visual = self.network.visual
        mean, std = (getattr(visual, name, None) for name in ("image_mean", "image_std"))
        return as_pixels(images, visual.image_size, mean, std)

    def embed(self, pictures: Tensor) -> Float[Tensor, "n width"]:
        """Output of the network for pictures in [-1, 1], as unit vectors."""
        return F.normalize(self.network.encode_image(self.prepare(pictures).to(self.device)).float(), dim=-1)

    def _encode(self, texts: list[str]) -> Tensor:
        most = getattr(self.tokenizer, "context_length", None)
        tokens = self.tokenizer(texts)
        for text, row in zip(texts, tokens, strict=True):
            if most is not None and len(row) == most and row[-1] != 0:
                raise _too_long(text, most)
        encoded: Tensor = self.network.encode_text(tokens.to(self.device))
        return encoded


class Transformers(DualEncoder):
    """A CLIP or SigLIP model of the library transformers (`CLIPModel`, `SiglipModel`), as a `WordReader`.

    `mean` and `std`, one number per colour, normalise its input pictures, whose pixels are in [0, 1]; `None` stands
    for CLIP's.
    """

    def __init__(self, network: Any, tokenizer: Any, mean: Any = None, std: Any = None) -> None:
        super().__init__(network, tokenizer)
        self.mean, self.std = mean, std

    def embed(self, pictures: Tensor) -> Float[Tensor, "n width"]:
        """Output of the network for pictures in [-1, 1], as unit vectors."""
        pixels = as_pixels(pictures, self.network.config.vision_config.image_size, self.mean, self.std)
        features = self.network.get_image_features(pixel_values=pixels.to(self.device))
        return F.normalize(_unwrapped(features).float(), dim=-1)

    def _encode(self, texts: list[str]) -> Tensor:
        most = self.network.config.text_config.max_position_embeddings
        for text in texts:
            if len(self.tokenizer(text, truncation=False)["input_ids"]) > most:
                raise _too_long(text, most)
        tokens = self.tokenizer(texts, padding="max_length", max_length=most, return_tensors="pt")
        return _unwrapped(self.network.get_text_features(**tokens.to(self.device)))


def _unwrapped(features: Any) -> Tensor:
    """Result of a model of transformers as a tensor: newer versions return an object that contains it."""
    tensor: Tensor = getattr(features, "pooler_output", features)
    return tensor


def _too_long(text: str, most: int) -> ArgumentError:
    message = f"the text {shorten(text)!r} is longer than the {most} tokens that the reader reads"
    return ArgumentError(message, hint="say less")


def _read_folder(folder: Path) -> Any:
    """Load a reader of words from a folder of open_clip or transformers, in which no code is run."""
    refuse_named_code(folder)
    try:
        if (config := folder / "open_clip_config.json").is_file():
            for place in ("model_cfg.vision_cfg.image_size", "preprocess_cfg.mean", "preprocess_cfg.std"):
                stated(config, place)
            library = import_optional("open_clip", "this reader needs open_clip", 'pip install "open_clip_torch>=3"')
            place = f"local-dir:{folder}"
            return OpenClip(library.create_model(place, precision="fp32"), library.get_tokenizer(place))
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder} has neither config.json nor open_clip_config.json")
        stated(folder / "config.json", "vision_config.image_size")
        mean, std = stated_scale(folder)
        library = import_optional("transformers", "this reader needs transformers", 'pip install "transformers>=5"')
        options = {"local_files_only": True, "trust_remote_code": False}
        with without_bars(library):
            network = library.AutoModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **options)
        if not all(hasattr(network, name) for name in ("get_image_features", "get_text_features", "logit_scale")):
            raise ModelError(f"{folder} holds a {type(network).__name__}, which does not compare pictures with texts")
        if not _has_tokenizer(folder):
            raise ModelError(f"{folder} has no tokenizer", hint="save it there: tokenizer.save_pretrained(FOLDER)")
        tokenizer = library.AutoTokenizer.from_pretrained(folder, **options)
    except (ModelError, ArgumentError) as error:
        raise type(error)(f"no reader of words: {error.message}", hint=error.hint) from None
    except Exception as error:
        hint = "a folder of transformers (CLIP, SigLIP) or open_clip, with safetensors and tokenizer"
        raise ModelError(
            f"cannot read the reader {folder}: {type(error).__name__}: {first_line(error):.200}", hint=hint
        ) from error
    return Transformers(network, tokenizer, mean, std)


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model"))


@dataclass(frozen=True)
class Calibration:
    """How the logits of a text, by a reader of words, become log-odds that the text is true of a picture.

    The log-odds are `slope * (logit - logit of the contrast) + offset`.

    Attributes:
        contrast: another text, which is true of every picture; its logit is subtracted from the logit of the text.
        slope, offset: numbers that are fitted to labels of pictures by Platt's method; 1 and 0 without labels.
        labels: number of labelled pictures of the fit; 0 if there are none, which is called "zero-shot".
        report: quality on labels that were left out of the fit, by ten-fold cross-validation; `None` without labels.
    """

    contrast: str = CONTRAST
    slope: float = 1.0
    offset: float = 0.0
    labels: int = 0
    report: HeadReport | None = None

    @property
    def title(self) -> str:
        """Text for users: "zero-shot", or "calibrated on 30 labels"."""
        return f"calibrated on {self.labels} labels" if self.labels else "zero-shot"

    def __str__(self) -> str:
        return self.title if self.report is None else f"{self.title}, {self.report}"


@dataclass(frozen=True, eq=False)
class Words:
    """A reader of words, and the calibrations by which its logits become log-odds.

    Attributes:
        reader: the reader: an object with the method `read`, such as a `DualEncoder`.
        name: name of the reader in messages: the folder, the name of the code, or the name of its class.
        mark: SHA-256 of the files of the reader, or of its code and weights.
        calibrations: text -> calibration; for other texts the log-odds are the logit minus that of `CONTRAST`.
        bounded: whether log-odds without labels are limited, see `MOST_ZERO_SHOT`.
    """

    reader: Any
    name: str
    mark: str
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    bounded: bool = True

    @property
    def calibrated_mark(self) -> str:
        """SHA-256 of the reader and its calibrations together; `mark` if there are no calibrations."""
        numbers = {text: [one.contrast, one.slope, one.offset] for text, one in self.calibrations.items()}
        return json_digest([self.mark, numbers]) if numbers else self.mark

    def calibration(self, text: str) -> Calibration:
        """The calibration of a text; the default `Calibration()` if the text was not calibrated."""
        return self.calibrations.get(text, _ZERO_SHOT)

    def log_odds(self, pictures: Tensor, texts: Sequence[str], *, embedded: bool = False) -> Float[Tensor, "n texts"]:
        """Log-odds that each text is true of each picture.

        Args:
            pictures: pictures in [-1, 1], (n, channels, height, width); if `embedded`, results of `reader.embed`, (n,
                width), which serve for several calls with other texts.

        Raises:
            DataError: the reader does not return a finite logit for each picture and text.
        """
        read = self.reader.score if embedded else self.reader.read
        each = [self.calibration(text) for text in texts]
        columns = list(dict.fromkeys([*texts, *(one.contrast for one in each)]))
        logits, shape = read(pictures, columns), (len(pictures), len(columns))
        if not isinstance(logits, Tensor) or not logits.is_floating_point() or tuple(logits.shape) != shape:
            what = f"{logits.dtype} {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise DataError(f"the reader {self.name} must return logits {shape} of floats, not {what}")
        if not logits.isfinite().all():
            raise DataError(f"the reader {self.name} returns logits that are not finite")
        column = dict(zip(columns, logits.float().unbind(1), strict=True))
        pairs = zip(texts, each, strict=True)

        def odds(text: str, c: Calibration) -> Tensor:
            value = c.slope * (column[text] - column[c.contrast]) + c.offset
            return value.clamp(-MOST_ZERO_SHOT, MOST_ZERO_SHOT) if self.bounded and not c.labels else value

        return torch.stack([odds(text, c) for text, c in pairs], 1)

    def save(self, folder: Path) -> None:
        """Write the calibrations to `words.json` in the model folder `folder`; without calibrations, write nothing."""
        if self.calibrations:
            write_json(folder / CALIBRATIONS, {"reader": self.mark, "texts": {
                text: vars(one) | {"report": None if one.report is None else report_entries({text: one.report})[text]}
                for text, one in self.calibrations.items()
            }})  # fmt: skip

    def stored(self, folder: Path) -> Words:
        """This reader with the calibrations in `words.json` of a model folder, or unchanged if there are none.

        A `ModelError` says that the calibrations are of another reader, or the file is damaged.
        """
        mark, calibrations = read_calibrations(folder)
        if calibrations and mark != self.mark:
            hint = f"use that reader, calibrate again, or delete {CALIBRATIONS} for zero-shot reading"
            what = f"is of another reader than {self.name}, or the reader changed"
            raise ModelError(f"{folder / CALIBRATIONS} {what}", hint=hint)
        return replace(self, calibrations=calibrations) if calibrations else self


def read_calibrations(folder: Path) -> tuple[str, dict[str, Calibration]]:
    """Read `words.json` of a model folder: the reader's SHA-256, and text -> calibration; ("", {}) without the file."""
    path = folder / CALIBRATIONS
    if not path.is_file():
        return "", {}
    entries = read_json(path)
    with naming_damage(path):
        calibrations = {
            str(text): Calibration(
                str(one["contrast"]), float(one["slope"]), float(one["offset"]), int(one["labels"]),
                None if one["report"] is None else HeadReport.from_dict(one["report"]),
            )
            for text, one in entries["texts"].items()
        }  # fmt: skip
        return str(entries["reader"]), calibrations


_ZERO_SHOT = Calibration()


def reads_words(reader: object) -> bool:
    """Whether `reader` is an object that compares pictures with texts, or the path of a folder with one."""
    if isinstance(reader, str | os.PathLike):
        return os.path.isdir(reader)
    return isinstance(reader, Words) or callable(getattr(reader, "read", None))


def open_words(reader: Any, mark_of: Callable[[object], str]) -> Words:
    """Open the reader of words that the user names; it has no calibrations.

    Args:
        reader: the path of a folder in the form of open_clip or transformers; or an object with the method `read`; or
            the name of such an object or of its class, `module:name`; or `Words`, which are returned unchanged.
        mark_of: function from an object to the SHA-256 of its code and weights.

    Raises:
        ModelError: the folder is damaged or contains code, or has no dual encoder.
        ArgumentError: there is no such reader, or it has no method `read`, or its library is not installed.
    """
    if isinstance(reader, Words):
        return reader
    if isinstance(reader, str | os.PathLike) and os.path.isdir(reader):
        folder = as_path(reader)
        marks = {path.name: fingerprint(path) for path in sorted(folder.glob("*")) if path.suffix in _MARKED}
        mark = json_digest(marks)
        return Words(_opened(folder, mark), str(folder), mark)
    name = reader if isinstance(reader, str) else type(reader).__name__
    if isinstance(reader, os.PathLike) or (isinstance(reader, str) and ":" not in reader):
        hint = "name a folder of transformers or open_clip, or code that makes a reader, as module:function"
        raise ArgumentError(f"there is no reader at {reader}", hint=hint)
    if isinstance(reader, str):
        code = load_plugin(reader, JUDGES)
        reader = make_plugin(code, reader) if isclass(code) or isfunction(code) else code
    if not reads_words(reader):
        raise ArgumentError(f"{name} reads no words: it has no method read(pictures, texts)")
    return Words(reader, name, mark_of(reader))


_MARKED = (".json", ".safetensors", ".txt", ".model")
_opened = lru_cache(maxsize=2)(lambda folder, mark: _read_folder(folder))


class TextReader:
    """A labeller that predicts for each picture whether texts are true of it, each text a yes/no attribute.

    If there is another labeller, its predictions of attributes in `vocabulary` are returned too.
    """

    def __init__(self, words: Words, texts: Sequence[str], other: ImageLabeller | None, vocabulary: Vocabulary) -> None:
        self.words, self.texts, self.other = words, tuple(texts), other
        names = () if other is None else getattr(other, "vocabulary", vocabulary)
        listed = [spec for name, spec in vocabulary.items() if name in names]
        self.vocabulary = Vocabulary([*listed, *specs_of(texts)])
        self.identity = f"words {words.mark} {self.texts}"
        how = dict.fromkeys(words.calibration(text).title for text in self.texts)
        self.title = f"the reader of words {Path(words.name).name}, {' and '.join(how)}"

    def __call__(self, images: Tensor) -> Mapping[str, Any]:
        """Predictions, by attribute, for pictures in [-1, 1]; values of the other labeller count as nearly certain."""
        logits = self.words.log_odds(images, self.texts).to(images.device)
        others = {} if self.other is None else call_labeller(self.other, images)
        read = {name: value for name, value in others.items() if name in self.vocabulary and name not in self.texts}
        predictions = {name: as_prediction(value, self.vocabulary[name], images) for name, value in read.items()}
        return predictions | {text: YesNo(logits[:, i]) for i, text in enumerate(self.texts)}


def specs_of(texts: Sequence[str]) -> list[AttributeSpec]:
    """A yes/no attribute for each text, whose name is the text."""
    return [AttributeSpec(text, "yes/no", description="read as words") for text in texts]


class NoBank(Bank):
    """The bank of a generator without attributes, whose queries can only name texts in quotes for a reader of words."""

    part = "attributes"

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary, self.fitted, self.reports = vocabulary, FittedUnder(truncation=(0.0, 1.0)), ByAttribute()

    @property
    def device(self) -> torch.device:
        """The CPU: there are no weights."""
        return torch.device("cpu")

    def to(self, device: torch.device | str) -> NoBank:
        """Return this bank, which has no weights to move."""
        return self

    def predict(self, read: Tensor, names: Sequence[str] | None = None) -> dict[str, Prediction]:
        """Return {}, because there are no attributes."""
        return {}

    def save(self, folder: Path) -> None:
        """Raise a `ModelError`, because there is nothing to save."""
        raise ModelError("a model without attributes is not saved", hint="train some first")


def with_texts(bank: Bank, words: Words, texts: Sequence[str], samples: Callable[[], tuple[Tensor, Tensor]]) -> Bank:
    """A bank with the attributes of `bank`, and a yes/no attribute for each text: whether the text is true.

    If `bank` predicts from pictures, the reader of words does so from the same pictures, without a gradient. Otherwise,
    a new head is fitted for each text.

    Args:
        samples: function that returns latents of n random pictures, (n, dim), and the log-odds of the texts for these
            by `words`, (n, texts), to which heads are fitted.
    """
    vocabulary = bank.vocabulary.extended(specs_of(texts))
    reports = {text: report for text in texts if (report := words.calibration(text).report) is not None}
    reports |= bank.reports
    if bank.reads_pictures:
        reader = TextReader(words, texts, bank.reader, bank.vocabulary)
        return PictureBank(reader, vocabulary, gradient=False, fitted=bank.fitted, reports=reports)
    latents, log_odds = samples()
    x = latents / latents.square().mean(1, keepdim=True).sqrt() if bank.space == "direction" else latents
    heads = bank.heads if isinstance(bank, AttributeBank) else {}
    heads = heads | {text: fit_head(x, log_odds[:, i]) for i, text in enumerate(texts)}
    return AttributeBank(vocabulary, heads, fitted=bank.fitted, reports=reports)


UNITS, STEPS, BATCH, RATE, DECAY = 48, 1200, 256, 0.01, 0.02
"""Number of hidden units of a head that `fit_head` fits, and the settings of AdamW for the fit: number of steps, number
of latents in each step, learning rate (which falls to 0 along a cosine), and weight decay."""


@torch.inference_mode(False)
@torch.enable_grad()
def fit_head(latents: Float[Tensor, "n dim"], log_odds: Float[Tensor, " n"]) -> Head:
    """Fit a head that predicts from a latent whether a text is true of its picture; the same in every run on a machine.

    It is fitted to the probabilities that a reader of words gives to the pictures of `latents`, as log-odds. On another
    machine or device it may differ by rounding errors.
    """
    x, goal = latents.detach().clone().float(), log_odds.detach().clone().float().sigmoid()
    dim, random = x.shape[1], torch.Generator().manual_seed(0)
    weights = {
        "hidden_weight": normals(0, 0, UNITS, dim, stream="words/head") / dim**0.5, "hidden_bias": torch.zeros(UNITS),
        "out_weight": torch.zeros(1, UNITS), "skip_weight": torch.zeros(1, dim),
        "out_bias": goal.mean().clamp(0.01, 0.99).logit()[None].cpu(),
    }  # fmt: skip
    weights = {name: weight.to(x).requires_grad_() for name, weight in weights.items()}
    optimizer = torch.optim.AdamW(weights.values(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(x), (BATCH,), generator=random).to(x.device)
        hidden = F.leaky_relu(F.linear(x[rows], weights["hidden_weight"], weights["hidden_bias"]), 0.2)
        outputs = hidden @ weights["out_weight"].T + F.linear(x[rows], weights["skip_weight"], weights["out_bias"])
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(outputs[:, 0], goal[rows]).backward()
        optimizer.step()
        schedule.step()
    return Head(**{name: weight.detach() for name, weight in weights.items()}, std=torch.ones((), device=x.device))
