"""Captions of avatars in words, the facts that a caption states, and the tokenizer of these words."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

SUBJECT = "a person"
PHRASES: Mapping[str, tuple[str, ...]] = {
    "smile": ("no smile", "a smile"),
    "frown": ("no frown", "a frown"),
    "glasses": ("no glasses", "glasses"),
    "sunglasses": ("no sunglasses", "sunglasses"),
    "beard": ("no beard", "a beard"),
    "moustache": ("no moustache", "a moustache"),
    "bald": ("no bald head", "a bald head"),
    "long_hair": ("no long hair", "long hair"),
    "hat": ("no hat", "a hat"),
    "freckles": ("no freckles", "freckles"),
    "earrings": ("no earrings", "earrings"),
    "hair": ("black hair", "brown hair", "blonde hair", "red hair", "gray hair", "no hair"),
    "mouth": ("a laughing mouth", "a grinning mouth", "a serious mouth", "a sad mouth"),
    "eyes": ("open eyes", "happy eyes", "wide eyes", "hidden eyes"),
    "brows": ("relaxed brows", "raised brows", "angry brows"),
    "skin_tone": ("light skin", "medium skin", "dark skin"),
    "background": ("a light background", "a medium background", "a dark background"),
}
"""Attribute -> the phrase of each class, or of each third of the range of a number."""
NUMBERS = ("skin_tone", "background")
MOST_NAMED = 0.7
"""Largest share of the attributes that a caption names; the share of a caption is uniform between 0 and this."""
ABSENT = 0.35
"""How often a yes/no attribute that is absent is named, relative to one that is present."""
DROPPED = 0.1
"""Share of captions that are empty, so that the flow also learns pictures without a caption."""
BEGIN, PADDING, UNKNOWN = "<s>", "<pad>", "<unk>"
_ABSENT_ROWS = torch.tensor([phrases[0].startswith("no ") and len(phrases) == 2 for phrases in PHRASES.values()])
_FACTS = {phrase: (name, i) for name, phrases in PHRASES.items() for i, phrase in enumerate(phrases)}


def classes(labels: Mapping[str, Tensor]) -> Tensor:
    """Return the index of the phrase that is true of each picture, (batch, attributes) uint8.

    Args:
        labels: attribute -> class index, or number in [0, 1], (batch,); see `recipes.common.factors.Scenes`.
    """
    columns = [(labels[name] * 3).floor().clamp(0, 2) if name in NUMBERS else labels[name].float() for name in PHRASES]
    return torch.stack(columns, 1).to(torch.uint8)


def captions(facts: Tensor, random: torch.Generator) -> list[str]:
    """Return a caption of each picture, which names a random part of its attributes in random order.

    Args:
        facts: of `classes`, (batch, attributes).
        random: source of the random numbers.
    """
    share = MOST_NAMED * torch.rand(len(facts), 1, generator=random)
    share = share * torch.where(_ABSENT_ROWS & (facts == 0), ABSENT, 1.0)
    named = torch.rand(facts.shape, generator=random) < share
    order = torch.rand(facts.shape, generator=random).argsort(1)
    kept = torch.rand(len(facts), generator=random) >= DROPPED
    phrases = list(PHRASES.values())
    return [
        _sentence([phrases[i][row[i]] for i in places if names[i]]) if keep else ""
        for row, names, places, keep in zip(facts.tolist(), named.tolist(), order.tolist(), kept.tolist(), strict=True)
    ]


def _sentence(phrases: list[str]) -> str:
    return f"{SUBJECT} with {', '.join(phrases)}" if phrases else SUBJECT


def stated(caption: str) -> dict[str, int]:
    """Return what a caption states: attribute -> index of its phrase. It undoes `captions`."""
    _, _, phrases = caption.partition(" with ")
    return dict(_FACTS[phrase] for phrase in phrases.split(", ")) if phrases else {}


def tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer: one token for each word of the captions; case and punctuation do not matter."""
    everything = _sentence([phrase for phrases in PHRASES.values() for phrase in phrases])
    words = sorted(set(everything.replace(",", "").split()))
    vocabulary = {word: i for i, word in enumerate((PADDING, BEGIN, UNKNOWN, *words))}
    words_only = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    words_only.normalizer = normalizers.Lowercase()
    words_only.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+"), behavior="removed", invert=True)
    words_only.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, vocabulary[BEGIN])]
    )
    longest = _sentence([max(phrases, key=lambda phrase: len(phrase.split())) for phrases in PHRASES.values()])
    return PreTrainedTokenizerFast(
        tokenizer_object=words_only, bos_token=BEGIN, pad_token=PADDING, unk_token=UNKNOWN,
        model_max_length=1 + len(longest.split()), padding_side="right",
    )  # fmt: skip
