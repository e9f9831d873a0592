"""Latents of pictures that the model never drew: `python -m benchmarks.inversion --help`. Needs the recipe extra."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.common import SmokeOption, page, run_command
from energyql import __version__
from energyql.editing.invert import invert
from energyql.evaluation.measure import machine
from energyql.files import write_json, write_text
from energyql.pipeline.model import load_model
from energyql.render.pictures import to_pictures
from energyql.vocabulary import AttributeSpec
from recipes.avatars.domain import DOMAIN
from recipes.common.factors import Factors

NOTE = (
    "Renderings of the recipe with a seed that no training used. Pixel error: mean absolute, as a fraction of the "
    "range. Read back: attributes that the image judge reads off the reconstruction as they were drawn, numbers within "
    "the attribute's tolerance; the judge's features are part of the loss, so look at the pictures too."
)


def right(spec: AttributeSpec, read: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return whether the value read is the one that was drawn, (n,)."""
    if spec.kind == "continuous":
        return np.abs(read - truth) <= spec.tolerance
    return read == (np.array(spec.values)[truth] if spec.kind == "categorical" else truth.astype(bool))


def run(n: int, seed: int, space: str, out: Path) -> dict[str, Any]:
    """Invert n renderings, and write `results.json`, `results.md` and `pictures.png`."""
    model = load_model("avatars")
    random = torch.Generator().manual_seed(seed)
    avatars = Factors(DOMAIN)(torch.randn(n, model.generator.z_dim, generator=random))
    pictures = to_pictures(DOMAIN.drawing(128).compose(avatars.parts, avatars.paints))
    began = time.perf_counter()
    inverted = invert(pictures, model=model, space=space, batch_size=8, anyway=True)
    seconds = time.perf_counter() - began
    marks = {
        name: right(spec, inverted.result.judged[name], avatars.labels[name].numpy())
        for name, spec in model.vocabulary.items()
    }
    data = {
        "settings": {"n": n, "seed": seed, "space": space, "energyql": __version__, "model": model.fingerprints},
        "machine": machine(),
        "pixel_error": {"mean": float(inverted.pixel_error.mean()), "worst": float(inverted.pixel_error.max())},
        "worst_distance": float(max(inverted.result.provenance["inverted"]["distance"])),
        "refused": int((~inverted.drawable).sum()),
        "read_back": float(np.mean(list(marks.values()))),
        "by_attribute": {name: float(mark.mean()) for name, mark in marks.items()},
        "evaluations": inverted.result.statistics["evaluations_mean"],
        "seconds_per_picture": seconds / n,
    }
    write_json(out / "results.json", data)
    write_text(out / "results.md", markdown(data))
    inverted.comparison().save(out / "pictures.png")
    return data


def markdown(data: dict[str, Any]) -> str:
    """Return the results as a page."""
    error = data["pixel_error"]
    rows = [
        ("pixel error, mean", f"{error['mean']:.4f}"),
        ("pixel error, worst", f"{error['worst']:.4f}"),
        ("distance, worst", f"{data['worst_distance']:.3f}"),
        ("refused as pictures that the generator cannot draw", f"{data['refused']}"),
        ("read back", f"{100 * data['read_back']:.2f} %"),
        *((name, f"{100 * share:.1f} %") for name, share in data["by_attribute"].items()),
        ("evaluations", f"{data['evaluations']:.0f}"),
        ("seconds a picture", f"{data['seconds_per_picture']:.1f}"),
    ]
    return page("Inversion of renderings", NOTE, ("measure", "value"), rows, data)


def main(
    n: Annotated[int, typer.Option("-n", min=1, help="Renderings.")] = 40,
    seed: Annotated[int, typer.Option(help="Of the renderings.")] = 4242,
    space: Annotated[str, typer.Option(help="z, w or w+.")] = "w",
    out: Annotated[Path, typer.Option(help="Folder of what is written.")] = Path("runs/inversion"),
    smoke: SmokeOption = False,
) -> None:
    """Invert renderings of the recipe that were never trained on."""
    data = run(2 if smoke else n, seed, space, out)
    error = data["pixel_error"]
    typer.echo(
        f"pixel error {error['mean']:.4f}, worst {error['worst']:.4f}; read back {100 * data['read_back']:.2f} %"
    )


if __name__ == "__main__":
    run_command(main)
