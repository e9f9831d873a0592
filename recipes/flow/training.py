"""Train the autoencoder, the rectified flow in its latents, and the flow of few steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC, SanaTransformer2DModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, T5EncoderModel

from energyql.training.steps import StepFile, digest, learning_rate
from recipes.avatars.domain import DOMAIN
from recipes.common.factors import Factors
from recipes.common.loop import scaled, train
from recipes.common.synthesis import picture_loss
from recipes.flow.captions import captions, classes, tokenizer
from recipes.flow.networks import LATENT, SIDE, STEPS, autoencoder, text_encoder, transformer

AUTOENCODER_STEPS, FLOW_STEPS, STUDENT_STEPS = 4_000, 4_000, 1_000
AUTOENCODER_BATCH, BATCH = 16, 64
AUTOENCODER_RATE, FLOW_RATE, STUDENT_RATE = 2e-3, 1e-3, 4e-4
NOISE = 0.3
"""Most noise in latents while the decoder learns, relative to their root mean square, so that it forgives small errors
of the flow."""
AVERAGE = 0.998
"""Decay of the moving averages."""
BANK, CHUNK = 80_000, 4_000
"""Pictures whose latents the flow learns from, and how many are in a file."""
AT_ONCE = 64
"""Pictures that the autoencoder takes in one call."""
GUIDANCE = 1.5
"""Scale of the classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598) that the flow of few steps learns."""
SUBSTEPS = 2
"""Midpoint steps by which the teacher crosses one step of the flow of few steps."""
SEED = 6
Done = Callable[[str, float, float | None], None]
"""Called with the name of a stage, the fraction of it that is done, and the recent mean of the
loss, if there is one."""


@dataclass(frozen=True)
class Bank:
    """Latents of renderings, of root mean square 1, (n, *LATENT), and their attributes, (n,) each."""

    latents: Tensor
    labels: dict[str, Tensor]

    @cached_property
    def facts(self) -> Tensor:
        """The `classes` of the pictures, (n, attributes)."""
        return classes(self.labels)

    def split(self, first: int) -> tuple[Bank, Bank]:
        """Return the first pictures and the others."""
        rows = slice(None, first), slice(first, None)
        parts = [Bank(self.latents[i], {name: label[i] for name, label in self.labels.items()}) for i in rows]
        return parts[0], parts[1]


@dataclass(frozen=True)
class Flow:
    """A flow in latents with captions."""

    transformer: SanaTransformer2DModel
    text_encoder: T5EncoderModel
    tokenizer: PreTrainedTokenizerFast

    def read(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Return the states of captions, (n, tokens, TEXT_WIDTH), and which of them are no padding, (n, tokens)."""
        tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        return self.text_encoder(**tokens)[0], tokens["attention_mask"]

    def velocity(self, x: Tensor, sigma: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """Return noise - latent, estimated from x = (1 - sigma) latent + sigma noise, sigma (n,)."""
        return self.transformer(x, states, sigma * 1000, encoder_attention_mask=mask, return_dict=False)[0]


def render(count: int, random: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """Return renderings of new avatars in [-1, 1], (count, 3, SIDE, SIDE), and their attributes, (count,) each."""
    scenes = _FACTORS(torch.randn(count, DOMAIN.config.z_dim, generator=random))
    labels = {name: label.float() for name, label in scenes.labels.items()}
    return DOMAIN.drawing(SIDE).compose(scenes.parts, scenes.paints), labels


_FACTORS = Factors(DOMAIN)


@contextmanager
def _seeded() -> Iterator[None]:
    """Make the weights of new networks depend on `SEED` only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        yield


def shapes(network: nn.Module) -> list[tuple[str, tuple[int, ...]]]:
    """Return the names and shapes of the tensors of a network. Its `config` has another order in every process."""
    return sorted((name, tuple(tensor.shape)) for name, tensor in network.state_dict().items())


def recent(mean: float | None, loss: Tensor) -> float:
    """Return the mean of about the last fifty losses, from this mean before and one more loss."""
    return loss.item() if mean is None else mean + 0.02 * (loss.item() - mean)


def _move_average(average: nn.Module, network: nn.Module, step: int) -> None:
    with torch.no_grad():
        decay = min(AVERAGE, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)


def _descend(network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()


def train_autoencoder(folder: Path, scale: float, done: Done) -> AutoencoderDC:
    """Return the autoencoder, trained on renderings, with its scaling factor."""
    with _seeded():
        network = autoencoder()
    average = copy.deepcopy(network).requires_grad_(False)
    optimizer = torch.optim.AdamW(network.parameters(), betas=(0.9, 0.99), weight_decay=1e-3)
    weights = DOMAIN.loss_weights(SIDE)
    steps, last = scaled(AUTOENCODER_STEPS, scale), None

    def step(fraction: float, random: torch.Generator) -> None:
        nonlocal last
        pictures = render(AUTOENCODER_BATCH, random)[0].contiguous(memory_format=torch.channels_last)
        latents = network.encode(pictures, return_dict=False)[0]
        amount = NOISE * torch.rand(len(latents), 1, 1, 1, generator=random) * latents.square().mean().sqrt()
        noisy = latents + amount * torch.randn(latents.shape, generator=random)
        loss = picture_loss(network.decode(noisy, return_dict=False)[0], pictures, weights)
        _descend(network, optimizer, loss, AUTOENCODER_RATE * learning_rate(fraction))
        _move_average(average, network, round(fraction * steps))
        last = recent(last, loss)

    identity = digest((shapes(network), AUTOENCODER_RATE, AUTOENCODER_BATCH, NOISE, AVERAGE, steps, SEED))
    train(
        {"network": network, "average": average}, {"optimizer": optimizer}, step, steps=steps, identity=identity,
        path=folder / "autoencoder.safetensors", seed=SEED,
        progress=lambda fraction: done("autoencoder", fraction, last),
    )  # fmt: skip
    return average.eval()


@torch.no_grad()
def make_bank(network: AutoencoderDC, folder: Path, scale: float, done: Done) -> Bank:
    """Return the latents of new renderings, and set the scaling factor of the autoencoder; see `BANK`."""
    size = scaled(CHUNK, scale)
    identity = digest(size, *network.state_dict().values())
    chunks = []
    for i in range(BANK // CHUNK):
        file = StepFile(folder / f"latents-{i:02}.safetensors", identity)
        if (chunk := file.read_tensors()) is None:
            pictures, chunk = render(size, torch.Generator().manual_seed(SEED + 1 + i))
            encoded = [network.encode(part, return_dict=False)[0] for part in pictures.split(AT_ONCE)]
            chunk[""] = torch.cat(encoded).contiguous()  # as it is read
            file.write_tensors(chunk)
        chunks.append(chunk)
        done("latents", (i + 1) / (BANK // CHUNK), None)
    labels = {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
    latents = labels.pop("")
    factor = round(1 / latents.square().mean().sqrt().item(), 4)  # the same for any number of threads
    network.register_to_config(scaling_factor=factor)
    return Bank(latents * network.config.scaling_factor, labels)


def decode(network: AutoencoderDC, latents: Tensor) -> Tensor:
    """Return the pictures in [-1, 1] of latents of root mean square 1, (n, *LATENT)."""
    pictures: Tensor = network.decode(latents / network.config.scaling_factor, return_dict=False)[0]
    return pictures.clamp(-1, 1)


def new_flow() -> Flow:
    """Return a flow with random weights."""
    words = tokenizer()
    with _seeded():
        return Flow(transformer(), text_encoder(len(words)), words)


def _drawn(bank: Bank, random: torch.Generator) -> tuple[Tensor, list[str], Tensor]:
    """Return latents of the bank with captions, and noise."""
    rows = torch.randint(len(bank.latents), (BATCH,), generator=random)
    return bank.latents[rows], captions(bank.facts[rows], random), torch.randn(BATCH, *LATENT, generator=random)


def _mixed(latents: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    amount = sigma[:, None, None, None]
    return (1 - amount) * latents + amount * noise


def train_flow(bank: Bank, folder: Path, scale: float, done: Done) -> Flow:
    """Return a rectified flow (Liu et al. 2022, arXiv 2209.03003), the moving average.

    Times are logit-normal, as in Stable Diffusion 3 (Esser et al. 2024, arXiv 2403.03206).
    """
    flow = new_flow()
    networks = nn.ModuleList([flow.transformer, flow.text_encoder])
    average = copy.deepcopy(networks).requires_grad_(False)
    optimizer = torch.optim.AdamW(networks.parameters(), betas=(0.9, 0.99), weight_decay=1e-2)
    steps, last = scaled(FLOW_STEPS, scale), None

    def step(fraction: float, random: torch.Generator) -> None:
        nonlocal last
        latents, texts, noise = _drawn(bank, random)
        sigma = torch.randn(BATCH, generator=random).sigmoid()
        velocity = flow.velocity(_mixed(latents, noise, sigma), sigma, *flow.read(texts))
        loss = F.mse_loss(velocity, noise - latents)
        _descend(networks, optimizer, loss, FLOW_RATE * learning_rate(fraction))
        _move_average(average, networks, round(fraction * steps))
        last = recent(last, loss)

    settings = (shapes(networks), FLOW_RATE, BATCH, AVERAGE, steps, SEED)
    train(
        {"networks": networks, "average": average}, {"optimizer": optimizer}, step, steps=steps,
        identity=digest(settings, bank.latents), path=folder / "flow.safetensors", seed=SEED,
        progress=lambda fraction: done("flow", fraction, last),
    )  # fmt: skip
    return Flow(*average.eval(), flow.tokenizer)


@torch.no_grad()
def cross(flow: Flow, x: Tensor, start: Tensor, end: Tensor, texts: list[str], steps: int, guidance: float) -> Tensor:
    """Return where the flow takes x (n, *LATENT) from the times `start` to `end`, (n,), by midpoint steps.

    Args:
        flow: the flow.
        x: latents at the times `start`.
        start: times, 1 for noise.
        end: times, 0 for pictures.
        texts: captions; where one is empty there is no guidance.
        steps: number of steps.
        guidance: scale of the guidance; 1 for none.
    """
    states, mask = flow.read(texts)
    captioned = torch.tensor([bool(text) for text in texts]) & (guidance != 1)
    empty, short = flow.read([""])

    def velocity(x: Tensor, sigma: Tensor) -> Tensor:
        result = flow.velocity(x, sigma, states, mask)
        if captioned.any():
            some = x[captioned]
            plain = flow.velocity(some, sigma[captioned], empty.expand(len(some), -1, -1), short.expand(len(some), -1))
            result[captioned] = torch.lerp(plain, result[captioned], guidance)
        return result

    length = (end - start) / steps
    for i in range(steps):
        now = start + i * length
        ahead = x + length[:, None, None, None] / 2 * velocity(x, now)
        x = x + length[:, None, None, None] * velocity(ahead, now + length / 2)
    return x


def train_student(teacher: Flow, bank: Bank, folder: Path, scale: float, done: Done) -> Flow:
    """Return a flow of `STEPS` steps, the moving average, which learned where the teacher goes in each of them.

    This is piecewise rectified flow (Yan et al. 2024, arXiv 2405.07510) with as many pieces as steps.
    """
    student, average = copy.deepcopy(teacher.transformer), copy.deepcopy(teacher.transformer).requires_grad_(False)
    student.requires_grad_(True)
    optimizer = torch.optim.AdamW(student.parameters(), betas=(0.9, 0.99), weight_decay=1e-2)
    flow = Flow(student, teacher.text_encoder, teacher.tokenizer)
    steps, last = scaled(STUDENT_STEPS, scale), None

    def step(fraction: float, random: torch.Generator) -> None:
        nonlocal last
        latents, texts, noise = _drawn(bank, random)
        start = 1 - torch.randint(STEPS, (BATCH,), generator=random) / STEPS
        x = _mixed(latents, noise, start)
        reached = cross(teacher, x, start, start - 1 / STEPS, texts, SUBSTEPS, GUIDANCE)
        with torch.no_grad():
            states, mask = flow.read(texts)
        loss = F.mse_loss(flow.velocity(x, start, states, mask), (x - reached) * STEPS)
        _descend(student, optimizer, loss, STUDENT_RATE * learning_rate(fraction))
        _move_average(average, student, round(fraction * steps))
        last = recent(last, loss)

    settings = (STUDENT_RATE, BATCH, AVERAGE, GUIDANCE, SUBSTEPS, STEPS, steps, SEED)
    parts = teacher.transformer.state_dict() | teacher.text_encoder.state_dict()
    train(
        {"student": student, "average": average}, {"optimizer": optimizer}, step, steps=steps,
        identity=digest(settings, *parts.values()), path=folder / "student.safetensors", seed=SEED,
        progress=lambda fraction: done("student", fraction, last),
    )  # fmt: skip
    return Flow(average.eval(), teacher.text_encoder, teacher.tokenizer)
