"""Attribute heads: ours in one pass, against separate ones of LACE's size: `python -m benchmarks.heads --help`.

Labelled latents are made here: w of a random mapping network of StyleGAN2's shape, and attributes that depend on a few
directions of w, partly curved, with noise. Both kinds of heads get the same latents and are measured on the same last
1,000; early stopping and the choice of the best epoch use the same held-out rows.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from rich.table import Table
from torch import Tensor, nn

from benchmarks.common import SmokeOption, run_command, show
from energyql.evaluation.measure import machine
from energyql.files import write_json
from energyql.progress import reporting
from energyql.training.bank_fit import HELD_OUT_SHARE
from energyql.training.heads import HeadSettings, attribute_loss, train_heads
from energyql.training.labelled import Labelled
from energyql.training.steps import Course
from energyql.vocabulary import AttributeSpec, Vocabulary
from recipes.common.judging import balanced_accuracy

COUNT, TEST, DIM = 10_000, 1_000, 512
SMOKE_COUNT, SMOKE_TEST, SMOKE_DIM = 400, 100, 16
SEED = 2026
NOISE = 0.3
SHARES = (0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.05)
"""Share of yes, attribute by attribute."""
LACE_SIZES, LACE_EPOCHS, LACE_BATCH, LACE_LR = (384, 256, 128), 50, 128, 1e-4
"""Nie et al. 2021, arXiv 2110.10873; the optimizer is Adam."""


def labelled_latents(count: int, dim: int) -> tuple[Tensor, dict[str, Tensor], Vocabulary]:
    """Return w (count, dim), labels of twelve attributes (count,) each, and their vocabulary."""
    random = torch.Generator().manual_seed(SEED)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    w = F.normalize(normal(count, dim), dim=1) * dim**0.5
    for _ in range(8):
        w = F.leaky_relu(w @ normal(dim, dim) * (2 / dim) ** 0.5, 0.2)
    w = (w - w.mean(0)) / w.std()

    def trait() -> Tensor:
        directions = w @ F.normalize(normal(dim, 4), dim=0)
        directions = directions / directions.std(0)
        curved = directions[:, 0] + 0.4 * directions[:, 1] * directions[:, 2] + 0.3 * torch.tanh(2 * directions[:, 3])
        return curved / curved.std() + NOISE * normal(count)

    specs, labels = [], {}
    for i, share in enumerate(SHARES):
        value = trait()
        specs.append(AttributeSpec(f"yes/no {i + 1}, {share:.0%}", "yes/no"))
        labels[specs[-1].name] = (value > value.quantile(1 - share)).float()
    for classes in (3, 5):
        values = tuple(f"class {k}" for k in range(classes))
        specs.append(AttributeSpec(f"{classes} classes", "categorical", values=values))
        labels[specs[-1].name] = torch.stack([trait() for _ in range(classes)], 1).argmax(1).float()
    for i in range(3):
        specs.append(AttributeSpec(f"continuous {i + 1}", "continuous", low=0, high=1))
        labels[specs[-1].name] = torch.sigmoid(trait())
    return w, labels, Vocabulary(specs)


def lace_head(x: Tensor, y: Tensor, split: int, spec: AttributeSpec, epochs: int, seed: int) -> nn.Sequential:
    """Train one head as LACE does, and return it at the epoch with the best accuracy on the rows from `split` on.

    Returns:
        The network; a yes/no attribute has an output for no and one for yes.
    """
    outputs = {"yes/no": 2, "categorical": len(spec.values), "continuous": 1}[spec.kind]
    sizes = (x.shape[1], *LACE_SIZES)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for i in range(len(LACE_SIZES)):
            layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.LeakyReLU(0.2)]
        network = nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))

    optimizer = torch.optim.Adam(network.parameters(), lr=LACE_LR)
    random = torch.Generator().manual_seed(seed)
    best, kept = -1.0, {name: value.clone() for name, value in network.state_dict().items()}
    for _ in range(epochs):
        for rows in torch.randperm(split, generator=random).split(LACE_BATCH):
            outputs_, targets = network(x[rows]), y[rows]
            if spec.kind == "continuous":
                loss = 0.5 * (outputs_[:, 0] - targets).square().mean()
            else:
                loss = F.cross_entropy(outputs_, targets.long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            accuracy = _plain_accuracy(outputs_of(network, x[split:], spec), y[split:], spec)
        if accuracy > best:
            best, kept = accuracy, {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(kept)
    return network


def outputs_of(network: nn.Module, latents: Tensor, spec: AttributeSpec) -> Tensor:
    """Return the outputs of a network as `attribute_loss` takes them."""
    found: Tensor = network(latents)
    return found[:, 1:] - found[:, :1] if spec.kind == "yes/no" else found


def _plain_accuracy(outputs: Tensor, labels: Tensor, spec: AttributeSpec) -> float:
    """Return the share of right predictions; 1 - mean absolute error for a continuous attribute, as in LACE."""
    if spec.kind == "continuous":
        return 1 - (outputs[:, 0] - labels).abs().mean().item()
    decided = outputs.argmax(1) if spec.kind == "categorical" else (outputs[:, 0] > 0).long()
    return (decided == labels).float().mean().item()


def measured(outputs: Tensor, labels: Tensor, spec: AttributeSpec) -> dict[str, float]:
    """Return accuracy, balanced accuracy and loss of outputs on the test rows."""
    return {
        "accuracy": _plain_accuracy(outputs, labels, spec),
        "balanced": balanced_accuracy(outputs, labels, spec),
        "loss": attribute_loss(outputs, labels, spec).item(),
    }


def run(count: int, test: int, dim: int, settings: HeadSettings, epochs: int) -> dict[str, Any]:
    """Train both kinds of heads and return the contents of `results.json`."""
    latents, labels, vocabulary = labelled_latents(count, dim)
    fitted = count - test
    split = int(fitted * (1 - HELD_OUT_SHARE))
    x = latents[:fitted]
    with reporting(True) as report:
        started = time.perf_counter()
        bank, _ = train_heads(
            Labelled(x, {name: values[:fitted] for name, values in labels.items()}, vocabulary), settings,
            Course(SEED, progress=lambda done: report("ours", done)), held_out=HELD_OUT_SHARE,
        )  # fmt: skip
        seconds = {"ours": time.perf_counter() - started, "separate": 0.0}
        rows: dict[str, dict[str, dict[str, float]]] = {}
        for i, (name, spec) in enumerate(vocabulary.items()):
            prediction = raw_outputs(bank.predict(latents[fitted:], (name,))[name])
            targets = labels[name]
            started = time.perf_counter()
            separate = lace_head(x, targets[:fitted], split, spec, epochs, SEED + i)
            seconds["separate"] += time.perf_counter() - started
            report("separate", (i + 1) / len(vocabulary))
            with torch.no_grad():
                rows[name] = {
                    "ours": measured(prediction, targets[fitted:], spec),
                    "separate": measured(outputs_of(separate, latents[fitted:], spec), targets[fitted:], spec),
                }
    mean = {
        kind: {
            key: sum(row[kind][key] for row in rows.values()) / len(rows) for key in ("accuracy", "balanced", "loss")
        }
        for kind in ("ours", "separate")
    }
    return {
        "settings": {"count": count, "test": test, "dim": dim, "epochs": epochs, "seed": SEED, **vars(settings)},
        "machine": machine(),
        "seconds": seconds,
        "ratio": seconds["separate"] / seconds["ours"],
        "attributes": rows,
        "mean": mean,
    }


def raw_outputs(prediction: Any) -> Tensor:
    """Return the raw outputs behind a prediction, (batch, outputs)."""
    for field in ("logits", "logit", "mean"):
        if hasattr(prediction, field):
            found: Tensor = getattr(prediction, field)
            return found.reshape(len(found), -1)
    raise TypeError(type(prediction).__name__)


def main(
    out: Annotated[Path, typer.Option(help="Folder for results.json.")] = Path("runs/heads"),
    smoke: SmokeOption = False,
) -> None:
    """Time and accuracy of twelve heads on 10,000 labelled latents, ours against separate ones of LACE's size."""
    if smoke:
        data = run(SMOKE_COUNT, SMOKE_TEST, SMOKE_DIM, HeadSettings(steps=20, hidden=8, batch=64), 1)
    else:
        data = run(COUNT, TEST, DIM, HeadSettings(), LACE_EPOCHS)
    write_json(out / "results.json", data)
    table = Table("attribute", "ours: accuracy", "balanced", "loss", "separate: accuracy", "balanced", "loss")
    for name, row in [*data["attributes"].items(), ("mean", data["mean"])]:
        table.add_row(name, *(f"{row[kind][key]:.3f}" for kind in ("ours", "separate") for key in row[kind]))
    seconds = data["seconds"]
    note = (
        f"ours {seconds['ours']:.1f} s, separate {seconds['separate']:.1f} s: {data['ratio']:.1f} times as fast. "
        f"Losses are in nats; those of separate heads are without a temperature, as LACE uses them."
    )
    show(table, note, width=110)


if __name__ == "__main__":
    run_command(main)
