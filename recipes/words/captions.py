"""Captions: sentences about drawings, whether each is true of each drawing, and the tokenizer of their words."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from recipes.words.facts import SUBJECTS, UNCLEAR, Subject

CONTRAST = "a picture"
"""The caption of every picture, against which the encoder learns to compare others."""
LONGEST = 16
"""Largest number of words of a caption."""
HELD_OUT = 10
"""One in so many captions is left out of the training."""
UNKNOWN, PADDING = "<unk>", "<pad>"


@dataclass(frozen=True)
class Caption:
    """A sentence about drawings of a subject.

    Attributes:
        text: the sentence.
        subject: index in `SUBJECTS`; it is false of drawings of others.
        truth: of the truths of n drawings, (n, facts), whether it is true of each: 1, 0 or `UNCLEAR`, (n,).
        kind: "one", "and", "or" or "without".
    """

    text: str
    subject: int
    truth: Callable[[Tensor], Tensor]
    kind: str

    @property
    def held_out(self) -> bool:
        """Whether the caption is left out of the training."""
        return zlib.crc32(self.text.encode()) % HELD_OUT == 0


def truths(captions: Sequence[Caption], subject: int, facts: Tensor) -> Tensor:
    """Return whether captions are true of n drawings of a subject: 1, 0 or `UNCLEAR`, (n, captions).

    Args:
        captions: of any subjects.
        subject: that of the drawings, as index in `SUBJECTS`.
        facts: see `Subject.truths`, (n, facts).
    """
    false = torch.zeros(len(facts))
    return torch.stack([caption.truth(facts) if caption.subject == subject else false for caption in captions], 1)


class Writer:
    """Writes random captions of a subject.

    Args:
        subject: index in `SUBJECTS`.
    """

    def __init__(self, subject: int) -> None:
        self.number = subject
        self.subject: Subject = SUBJECTS[subject]
        self.facts = list(self.subject.facts.values())

    def about(self, row: Tensor, random: torch.Generator, *, held_out: bool = False) -> Caption:
        """Return a caption about one drawing; about two in three are true of it.

        Args:
            row: the truths of its facts, (facts,).
            random: source of the random numbers.
            held_out: whether it is one of the captions that are left out of the training.
        """
        while True:
            caption = self._about(row, random)
            if caption.held_out == held_out:
                return caption

    def _about(self, row: Tensor, random: torch.Generator) -> Caption:
        def pick(count: int) -> int:
            return int(torch.randint(count, (), generator=random))

        def fact(wanted: bool) -> int:
            among = (row == wanted).nonzero().flatten() if pick(6) else torch.arange(len(row))
            return int(among[pick(len(among))])

        def noun() -> int:
            while True:
                if self.facts[index := fact(True)].nouns:
                    return index

        def words(index: int, whole: bool = False) -> str:
            phrases = self.facts[index].wholes if whole else self.facts[index].nouns
            return phrases[pick(len(phrases))]

        name = self.subject.names[pick(len(self.subject.names))]
        kind, first = ("one", "one", "one", "one", "one", "and", "and", "or", "without")[pick(9)], noun()
        start = f"{name} with {words(first)}"
        truth: Callable[[Tensor], Tensor] = lambda facts: facts[:, first]  # noqa: E731
        if kind == "one" or (kind == "and" and pick(2)):
            index = fact(True)
            if self.facts[index].wholes and pick(2):
                first, start = index, words(index, True)
            elif kind == "one":
                start = (words(first), start, f"a picture of {words(first)}")[pick(3)]
        if kind == "and":
            second = noun()
            text, truth = f"{start} and {words(second)}", lambda facts: facts[:, [first, second]].amin(1)
            if not start.startswith(f"{name} with"):
                text = f"{start} with {words(second)}"
        elif kind == "or":
            second = noun() if pick(2) else fact(False)
            while not self.facts[second].nouns:
                second = fact(False)
            text, truth = f"{start} or {words(second)}", lambda facts: facts[:, [first, second]].amax(1)
        elif kind == "without":
            second = fact(False)
            while not self.facts[second].nouns:
                second = fact(False)
            text = f"{start} but without {words(second)}"
            truth = lambda facts: torch.minimum(facts[:, first], 1 - facts[:, second])  # noqa: E731
        else:
            text = start
        return Caption(text, self.number, truth, kind)


def clear(truth: Tensor) -> Tensor:
    """Return which truths are 0 or 1, and not `UNCLEAR`."""
    return truth != UNCLEAR


def tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer: one token for each word of the captions; case and punctuation do not matter."""
    phrases = [
        phrase
        for subject in SUBJECTS
        for fact in subject.facts.values()
        for phrase in (*fact.nouns, *fact.wholes, *subject.names)
    ]
    words = sorted({word for phrase in (*phrases, CONTRAST, "of with and or but without") for word in phrase.split()})
    words_only = Tokenizer(models.WordLevel({word: i for i, word in enumerate((PADDING, UNKNOWN, *words))}, UNKNOWN))
    words_only.normalizer = normalizers.Lowercase()
    words_only.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+"), behavior="removed", invert=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=words_only, pad_token=PADDING, unk_token=UNKNOWN, model_max_length=LONGEST,
        padding_side="right",
    )  # fmt: skip
