"""The options that say where labels are from, which `energyql train` and `energyql train-judge` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from energyql.errors import ArgumentError

if TYPE_CHECKING:
    import torch

    from energyql.attributes.labels import ImageLabeller
    from energyql.training.labels import LabelTable

Labels = Annotated[Path | None, typer.Option(help="CSV or Parquet: a column for each attribute.")]
Labeller = Annotated[str | None, typer.Option(help="module:function that labels pictures, or a plugin.")]
Prompts = Annotated[Path | None, typer.Option(help="JSON: attribute -> prompts for CLIP.")]
ClipModel = Annotated[str, typer.Option(help="A model of open_clip.")]
ClipWeights = Annotated[str, typer.Option(help="Its weights: a name, or a file.")]
ClipMargin = Annotated[float, typer.Option(min=0, help="Least lead of the best prompt, in logits.")]
CLIP_MODEL, CLIP_WEIGHTS = "ViT-B-32", "laion2b_s34b_b79k"
Only = Annotated[str | None, typer.Option(help="Attributes to train, separated by commas.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the samples, or of the pictures in --labels.")]


def check_sources(**sources: object) -> None:
    """Check that exactly one of the options `sources`, by name, is given.

    Raises:
        ArgumentError: it is not.
    """
    given = [f"--{name}" for name, value in sources.items() if value is not None]
    if len(given) != 1:
        options = ", ".join(f"--{name}" for name in sources)
        raise ArgumentError(f"labels come from {' and '.join(given) or 'nowhere'}", hint=f"give one of {options}")


def read_picture_labels(
    labels: Path | None,
    latents: Path | None,
    labeller: str | None,
    prompts: Path | None,
    *,
    clip_model: str,
    clip_weights: str,
    clip_margin: float,
    device: torch.device,
) -> LabelTable | ImageLabeller:
    """Read the table, or load the labeller, that the options name; one of them is given."""
    from energyql.attributes.labels import import_labeller
    from energyql.training.clip_labels import load_clip_labeller
    from energyql.training.labels import read_label_table

    if labels is not None:
        return read_label_table(labels, latents)
    if labeller is not None:
        return import_labeller(labeller)
    assert prompts is not None
    return load_clip_labeller(prompts, model=clip_model, weights=clip_weights, margin=clip_margin, device=device)
