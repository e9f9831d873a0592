"""Moving pictures of the way from samples of one query to samples of another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from energyql.editing.animation import Film, check_path
from energyql.editing.latents import LatentSpace
from energyql.errors import ArgumentError
from energyql.generators.classes import Label
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.generate import pipeline_for
from energyql.pipeline.model import Model
from energyql.pipeline.result import Result


def animate(
    stops: Sequence[Result],
    path: str | Path,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    rows: Sequence[int] | None = None,
    frames: int = 16,
    seconds: float = 0.06,
    device: str = "auto",
) -> Path:
    """Write the way through latent space from result to result as a moving picture; it rests at each of them.

    z goes on great arcs, which stay where the prior has its mass; w beside it, if any, in straight lines.

    Args:
        stops: results of one model, truncation and label, such as two of `generate`, at least two.
        path: ends in .gif or .webp.
        model, device: that they are from; as for `generate`.
        rows: which pictures of each, side by side; by default the first eight.
        frames: pictures from one stop to the next, 1 to 200.
        seconds: for which each is shown, at least 0.02.

    Returns:
        The path.

    Raises:
        ArgumentError: the results do not belong together, an argument is outside its range, or nothing can be written.
    """
    if not isinstance(stops, Sequence) or len(stops) < 2 or not all(isinstance(stop, Result) for stop in stops):
        raise ArgumentError("a way needs at least two results", hint="such as those of two calls of generate")
    check_path(path)
    settings = {(str(stop.provenance["truncation"]), str(stop.provenance["label"])) for stop in stops}
    pipeline = pipeline_for(model, device)
    ours = pipeline.model.fingerprints.get("generator")
    if len(settings) > 1 or any(stop.provenance["fingerprints"].get("generator") != ours for stop in stops):
        raise ArgumentError("the results are not all of this model at one truncation and label")
    facts = stops[0].provenance
    label: Label | None = tuple(facts["label"]) if isinstance(facts["label"], list) else facts["label"]
    space = LatentSpace(pipeline.model, facts["truncation"], label)
    return Film(space).write(stops, path, rows=rows, frames=frames, seconds=seconds)
