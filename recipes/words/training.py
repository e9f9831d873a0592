"""The dual encoder: its networks, its training on drawings, and its accuracy on captions that it did not learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel

from energyql.training.steps import digest, learning_rate
from recipes.common.factors import Factors
from recipes.common.loop import train
from recipes.words.captions import CONTRAST, LONGEST, Caption, Writer, clear, tokenizer, truths
from recipes.words.facts import SUBJECTS

SIDE, PATCH, WIDTH = 64, 8, 96
STEPS, BATCH, CAPTIONS = 3_000, 8, 16
"""Steps of the training; drawings and captions of the subject with the smallest share in a step."""
RATE = 2e-3
SHARPEST = 4.0
"""The logarithm of the scale of logits at the start: an exponential of 55, as differences of cosines are small."""
SEED = 8
STATE = "state.safetensors"


@dataclass(frozen=True)
class DualEncoder:
    """A dual encoder with its tokenizer."""

    network: SiglipModel
    tokenizer: PreTrainedTokenizerFast

    def pictures(self, pictures: Tensor) -> Tensor:
        """Return unit vectors of pictures in [-1, 1], (n, 3, SIDE, SIDE)."""
        return F.normalize(self.network.vision_model(pixel_values=pictures).pooler_output, dim=-1)

    def texts(self, texts: list[str]) -> Tensor:
        """Return unit vectors of texts, (n, width)."""
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, max_length=LONGEST, return_tensors="pt")
        return F.normalize(self.network.text_model(**tokens).pooler_output, dim=-1)

    def log_odds(self, pictures: Tensor, texts: list[str]) -> Tensor:
        """Return by how much the logit of each text exceeds that of `CONTRAST` for each picture, (pictures, texts)."""
        of_texts = self.texts([*texts, CONTRAST])
        logits = self.network.logit_scale.exp() * self.pictures(pictures) @ of_texts.T
        return logits[:, :-1] - logits[:, -1:]


def encoder() -> DualEncoder:
    """Return an encoder with new weights, the same in every call."""
    words = tokenizer()
    layers = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": 4}
    config = SiglipConfig(
        text_config=layers | {
            "vocab_size": len(words), "num_hidden_layers": 2, "max_position_embeddings": LONGEST,
            "pad_token_id": words.pad_token_id, "bos_token_id": None, "eos_token_id": None,
        },
        vision_config=layers | {"num_hidden_layers": 3, "image_size": SIDE, "patch_size": PATCH},
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = SiglipModel(config)
    with torch.no_grad():
        network.logit_scale.fill_(SHARPEST)
        network.logit_bias.zero_()
    return DualEncoder(network, words)


def draw(subject: int, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return new drawings of a subject in [-1, 1], (count, 3, SIDE, SIDE), and the truths of its facts."""
    chosen = SUBJECTS[subject]
    scenes = _FACTORS[subject](torch.randn(count, chosen.domain.config.z_dim, generator=random))
    return chosen.domain.drawing(SIDE).compose(scenes.parts, scenes.paints), chosen.truths(scenes)


_FACTORS = [Factors(subject.domain) for subject in SUBJECTS]


def batch(
    count: int, captions: int, random: torch.Generator, *, held_out: bool = False
) -> tuple[Tensor, list[Caption], Tensor]:
    """Return drawings, captions about them, and whether each caption is true of each drawing.

    Args:
        count: number of drawings of a subject, times its share.
        captions: number of captions of a subject, times its share.
        random: source of the random numbers.
        held_out: whether the captions are those that are left out of the training.

    Returns:
        Pictures (n, 3, SIDE, SIDE), captions, and truths (n, captions).
    """
    pictures, texts, facts = [], list[Caption](), []
    for subject in range(len(SUBJECTS)):
        share, writer = SUBJECTS[subject].share, Writer(subject)
        drawn, truth = draw(subject, count * share, random)
        rows = torch.randint(len(drawn), (captions * share,), generator=random)
        texts += (writer.about(truth[row], random, held_out=held_out) for row in rows.tolist())
        pictures.append(drawn)
        facts.append(truth)
    answers = torch.cat([truths(texts, subject, truth) for subject, truth in enumerate(facts)])
    return torch.cat(pictures), texts, answers


def train_encoder(folder: Path, scale: float, progress: Callable[[float], None]) -> DualEncoder:
    """Return the encoder, trained to tell which captions are true of which drawings.

    The logit of a caption is compared with that of `CONTRAST`, as the encoder is used: their difference becomes the
    log-odds that the caption is true.

    Args:
        folder: where the state of the training is, from which an interrupted one continues.
        scale: multiplies the number of steps.
        progress: called with the fraction done.
    """
    model = encoder()
    optimizer = torch.optim.AdamW(model.network.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0.02)
    steps = max(2, int(STEPS * scale))

    def step(done: float, random: torch.Generator) -> None:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(done) * RATE
        pictures, captions, truth = batch(BATCH, CAPTIONS, random)
        logits = model.log_odds(pictures, [caption.text for caption in captions])
        loss = F.binary_cross_entropy_with_logits(logits, truth, clear(truth).float(), reduction="sum")
        optimizer.zero_grad()
        (loss / clear(truth).sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.network.parameters(), 1.0)
        optimizer.step()

    identity = digest((len(model.tokenizer), SIDE, PATCH, WIDTH, BATCH, CAPTIONS, RATE, SHARPEST, steps, SEED))
    train(
        {"network": model.network}, {"optimizer": optimizer}, step,
        steps=steps, identity=identity, path=folder / STATE, seed=SEED, progress=progress,
    )  # fmt: skip
    model.network.eval().requires_grad_(False)
    return model


@torch.no_grad()
def accuracy(model: DualEncoder, *, count: int, captions: int, seed: int = 901) -> dict[str, dict[str, float]]:
    """Return the accuracy on new drawings, of captions by kind: "learned" and "held out".

    Drawings of another subject are left out: it is easy to see that a landscape has no beard. Classes are balanced: a
    true caption and a false one of the same kind count the same.

    Args:
        model: the encoder.
        count: number of drawings of a subject, times its share.
        captions: number of captions of a subject, times its share.
        seed: of drawings and captions.
    """
    table: dict[str, dict[str, float]] = {}
    for title, held_out in (("learned", False), ("held out", True)):
        pictures, texts, truth = batch(count, captions, torch.Generator().manual_seed(seed), held_out=held_out)
        right = (model.log_odds(pictures, [caption.text for caption in texts]) > 0) == (truth > 0.5)
        counts = torch.tensor([count * subject.share for subject in SUBJECTS])
        own = torch.arange(len(SUBJECTS)).repeat_interleave(counts)[:, None]
        counted = clear(truth) & (own == torch.tensor([caption.subject for caption in texts]))
        for kind in ("one", "and", "or", "without"):
            of_kind = counted & torch.tensor([caption.kind == kind for caption in texts])
            shares = [right[of_kind & (truth == answer)].float().mean().item() for answer in (0.0, 1.0)]
            table.setdefault(kind, {})[title] = sum(shares) / 2
    return table
