"""The dual encoder: its networks, its training on drawings, and its accuracy on captions that it did not learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    BertConfig,
    ConvNextConfig,
    PreTrainedTokenizerFast,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

from energyql.training.steps import digest, learning_rate
from recipes.common.factors import Factors
from recipes.common.loop import scaled, train
from recipes.words.captions import CONTRAST, LONGEST, Caption, Writer, clear, tokenizer, truths
from recipes.words.facts import SUBJECTS

SIDE, CHANNELS, WIDTH = 96, (32, 64, 96, 128, 192), 128
"""Side of the pictures; channels after each halving, of which the last leaves one pixel, so that nothing is averaged
over places (with an average, freckles and earrings were never learned); length of the embeddings."""
TEXT = {"hidden_size": 96, "intermediate_size": 192, "num_attention_heads": 4, "num_hidden_layers": 2}
PICTURE_STEPS, PICTURE_BATCH = 1_500, 8
"""Steps of the training on facts; drawings of the subject with the smallest share in a step."""
TEXT_STEPS, TEXT_BATCH, CAPTIONS = 2_500, 12, 48
"""Steps of the training on captions; drawings and captions of the subject with the smallest share in a step."""
RATE = 3e-3
SHARPEST = 3.0
"""The logarithm of the scale of logits at the start: an exponential of 20, as differences of cosines are small."""
SEED = 8


@dataclass(frozen=True)
class DualEncoder:
    """A dual encoder with its tokenizer."""

    network: VisionTextDualEncoderModel
    tokenizer: PreTrainedTokenizerFast

    def pictures(self, pictures: Tensor) -> Tensor:
        """Return unit vectors of pictures in [-1, 1], (n, 3, SIDE, SIDE)."""
        return F.normalize(self.network.get_image_features(pixel_values=pictures).pooler_output, dim=-1)

    def texts(self, texts: list[str]) -> Tensor:
        """Return unit vectors of texts, (n, WIDTH)."""
        tokens = self.tokenizer(texts, padding="max_length", truncation=True, max_length=LONGEST, return_tensors="pt")
        return F.normalize(self.network.get_text_features(**tokens).pooler_output, dim=-1)

    def compare(self, pictures: Tensor, texts: Tensor) -> Tensor:
        """Return by how much the logit of each text exceeds that of the last one, (pictures, texts - 1).

        Both are unit vectors; the last text is the one that is true of every picture.
        """
        logits = self.network.logit_scale.exp() * pictures @ texts.T
        return logits[:, :-1] - logits[:, -1:]

    def log_odds(self, pictures: Tensor, texts: list[str]) -> Tensor:
        """Return by how much the logit of each text exceeds that of `CONTRAST` for each picture, (pictures, texts)."""
        return self.compare(self.pictures(pictures), self.texts([*texts, CONTRAST]))


def encoder() -> DualEncoder:
    """Return an encoder with new weights, the same in every call."""
    words = tokenizer()
    pictures = ConvNextConfig(
        hidden_sizes=list(CHANNELS), depths=[1] * len(CHANNELS), num_stages=len(CHANNELS), image_size=SIDE,
        patch_size=SIDE >> len(CHANNELS) - 1, layer_scale_init_value=1.0,
    )  # fmt: skip
    texts = BertConfig(
        vocab_size=len(words), max_position_embeddings=LONGEST, type_vocab_size=1, pad_token_id=words.pad_token_id,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **TEXT,
    )  # fmt: skip
    config = VisionTextDualEncoderConfig(
        vision_config=pictures.to_dict() | {"hidden_size": CHANNELS[-1]}, text_config=texts.to_dict(),
        projection_dim=WIDTH, logit_scale_init_value=SHARPEST,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return DualEncoder(VisionTextDualEncoderModel(config), words)


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

    First the network of pictures learns with a vector for each fact in place of a text; then that of texts learns to
    agree with it, while the other stays as it is (Zhai et al. 2022, arXiv 2111.07991: a locked tower of pictures). Both
    together from the start had learned nothing after the same time. The logit of a caption is compared with that of
    `CONTRAST`, as the encoder is used: their difference becomes the log-odds that the caption is true.

    Args:
        folder: where the states of the training are, from which an interrupted one continues.
        scale: multiplies the number of steps.
        progress: called with the fraction done.
    """
    model = encoder()
    train_pictures(model, folder / "pictures.safetensors", scale, lambda done: progress(done / 2))
    train_texts(model, folder / "texts.safetensors", scale, lambda done: progress((1 + done) / 2))
    model.network.eval().requires_grad_(False)
    return model


def train_pictures(model: DualEncoder, path: Path, scale: float, progress: Callable[[float], None]) -> None:
    """Train the network of pictures to tell which facts are true, by a vector for each; see `train_encoder`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED + 1)
        facts = nn.Embedding(sum(len(subject.facts) for subject in SUBJECTS) + 1, WIDTH)
    seeing = nn.ModuleList([model.network.vision_model, model.network.visual_projection, facts])
    optimizer = torch.optim.AdamW(seeing.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0.02)
    steps = scaled(PICTURE_STEPS, scale)

    def step(done: float, random: torch.Generator) -> None:
        drawn = [draw(i, PICTURE_BATCH * subject.share, random) for i, subject in enumerate(SUBJECTS)]
        truth = torch.block_diag(*(truth for _, truth in drawn))  # a landscape has no beard
        embedded = model.pictures(torch.cat([pictures for pictures, _ in drawn]))
        _learn(optimizer, model.compare(embedded, F.normalize(facts.weight, dim=-1)), truth, done)

    identity = digest((SIDE, CHANNELS, WIDTH, PICTURE_BATCH, RATE, SHARPEST, steps, SEED, len(facts.weight)))
    train(
        {"seeing": seeing}, {"optimizer": optimizer}, step,
        steps=steps, identity=identity, path=path, seed=SEED, progress=progress,
    )  # fmt: skip


def train_texts(model: DualEncoder, path: Path, scale: float, progress: Callable[[float], None]) -> None:
    """Train the network of texts to tell which captions are true; see `train_encoder`."""
    reading = nn.ModuleList([model.network.text_model, model.network.text_projection])
    optimizer = torch.optim.AdamW(reading.parameters(), RATE, betas=(0.9, 0.98), weight_decay=0.02)
    steps = scaled(TEXT_STEPS, scale)

    def step(done: float, random: torch.Generator) -> None:
        pictures, captions, truth = batch(TEXT_BATCH, CAPTIONS, random)
        with torch.no_grad():
            embedded = model.pictures(pictures)
        texts = model.texts([*(caption.text for caption in captions), CONTRAST])
        _learn(optimizer, model.compare(embedded, texts), truth, done)

    locked = model.network.vision_model.state_dict().values()
    identity = digest((TEXT, len(model.tokenizer), TEXT_BATCH, CAPTIONS, RATE, steps, SEED), *locked)
    train(
        {"reading": reading}, {"optimizer": optimizer}, step,
        steps=steps, identity=identity, path=path, seed=SEED, progress=progress,
    )  # fmt: skip


def _learn(optimizer: torch.optim.Optimizer, log_odds: Tensor, truth: Tensor, done: float) -> None:
    """Take a step towards log-odds that agree with truths; both are (pictures, texts)."""
    weights = clear(truth).float()
    loss = F.binary_cross_entropy_with_logits(log_odds, truth, weights, reduction="sum") / weights.sum()
    optimizer.zero_grad()
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(done) * RATE
        torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
    optimizer.step()


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
