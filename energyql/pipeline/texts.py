"""Texts in quotes, such as "a person in a hat", as attributes of a model that has a reader of words.

The reader scores random pictures of the model for each text; a head on latents is fitted to the scores and guides the
sampler, and the reader becomes a part of the verifier.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.attributes.words import TextReader, Words, with_texts
from energyql.errors import ArgumentError, EnergyQLError
from energyql.files import cache_folder, json_digest, read_tensors, write_tensors
from energyql.generators.base import Condition, condition_vector, draw_batches, head_reader
from energyql.generators.families import module_fingerprint
from energyql.generators.mapping import encoder
from energyql.language import Expr, predicates
from energyql.language.binder import is_words
from energyql.numerics.random import normals
from energyql.pipeline.model import Model
from energyql.vocabulary import Vocabulary

COUNT = 2048
"""Number of random pictures to which the heads of texts are fitted."""


def texts_of(expr: Expr, vocabulary: Vocabulary) -> list[str]:
    """Return the different texts in quotes of a query that `bind` has checked, in its order."""
    return list(dict.fromkeys(str(node.name) for node in predicates(expr) if is_words(node, vocabulary)))


class PriorPictures:
    """Random pictures of a model, and their embeddings by its reader of texts, which are cached on disk."""

    def __init__(self, model: Model, psi: float, condition: Condition | None) -> None:
        assert model.words is not None
        self.model, self.words, self.psi, self.condition = model, model.words, psi, condition
        self.encode = encoder(model.generator, psi, condition_vector(condition, model.generator))
        self.z = normals(0, 0, COUNT, model.generator.z_dim, stream="words").to(model.device)

    @cached_property
    def latents(self) -> Tensor:
        """For each picture the latent that the heads take as input, (COUNT, dim)."""
        read = head_reader(self.model.generator, self.model.bank.space, self.encode)
        with torch.inference_mode():
            return torch.cat([read(z) for z in self.z.split(256)])

    @cached_property
    def _embedded(self) -> Tensor | None:
        """Embeddings of the pictures, (COUNT, width); `None` if the reader has no method `embed`."""
        embed = getattr(self.words.reader, "embed", None)
        if embed is None:
            return None
        path = self.path()
        if path is not None and path.is_file():
            with suppress(EnergyQLError, KeyError):  # damaged: computed again
                return read_tensors(path)["embedded"].to(self.model.device)
        with torch.inference_mode():
            embedded = torch.cat([embed(images) for images in self.images()])
        if path is not None:
            with suppress(ArgumentError):  # a cache is optional
                write_tensors(path, {"embedded": embedded.cpu()})
        return embedded

    def path(self, what: str = "", suffix: str = ".safetensors") -> Path | None:
        """Return the path of the cache file of `what` is known about these pictures; by default of their embeddings.

        `None` if there is no folder for caches, or the generator has no fingerprint.
        """
        folder = cache_folder()
        mark = self.model.fingerprints.get("generator") or module_fingerprint(self.model.generator)
        if folder is None or not mark:
            return None
        facts = [mark, self.words.mark, self.psi, self.condition, COUNT]
        name = json_digest([*facts, what, [*self.model.vocabulary], self.model.fingerprints] if what else facts)[:32]
        return folder / "words" / f"{name}{suffix}"

    def images(self, count: int = COUNT) -> Iterator[Tensor]:
        """Draw the first `count` of the pictures, and yield them in batches, in [-1, 1]."""
        for _, images in draw_batches(self.model.generator.synthesize, self.encode, self.z[:count]):
            yield images

    @torch.inference_mode()
    def log_odds(self, texts: Sequence[str]) -> Tensor:
        """Return the reader's log-odds that each text is true of each picture, (COUNT, texts)."""
        if self._embedded is None:
            return torch.cat([self.words.log_odds(images, texts) for images in self.images()])
        return self.words.log_odds(self._embedded, texts, embedded=True)

    @cached_property
    def uncalibrated(self) -> Words:
        """The model's reader of texts without its calibrations to labels (zero-shot), and with log-odds not clipped."""
        return replace(self.words, calibrations={}, bounded=False)

    @torch.inference_mode()
    def zero_shot(self, texts: Sequence[str], count: int) -> npt.NDArray[np.float64]:
        """Return zero-shot log-odds (by `uncalibrated`) of texts for the first `count` pictures, (count, texts)."""
        if self._embedded is not None:
            odds = self.uncalibrated.log_odds(self._embedded[:count], texts, embedded=True)
        else:
            odds = torch.cat([self.uncalibrated.log_odds(images, texts) for images in self.images(count)])
        return odds.double().cpu().numpy()


def with_texts_read(model: Model, texts: Sequence[str], prior: PriorPictures, *, defined: bool = False) -> Model:
    """Return a model with texts as further attributes, whose verifier reads the texts besides what was read before.

    Args:
        defined: whether code defines the attributes by reading them off pictures; it then decides too.
    """
    words = model.words
    assert words is not None
    bank = with_texts(model.bank, words, texts, lambda: (prior.latents, prior.log_odds(texts)))
    verifier = None
    if defined or not bank.reads_pictures:
        own = model.bank.reader if defined else model.judge
        other = own if model.verifier is None else model.verifier
        verifier = TextReader(words, texts, other, model.bank.vocabulary)
    return replace(model, bank=bank, verifier=verifier)
