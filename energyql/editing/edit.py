"""Editing of pictures in steps: the function `edit` and its result."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from energyql.editing.filmstrip import draw_filmstrip, start_columns, step_column, write_traversal
from energyql.editing.folder import FILMSTRIP, START, SavedResult, check_place, edit_files, read_saved, save_picture
from energyql.editing.invert import Inversion, invert_pictures, load_inversion
from energyql.editing.latents import Embed, Latents, LatentSpace, Layers, draw_result
from energyql.editing.settings import EditSettings, Preset, check_settings, choose_preset
from energyql.editing.start import EditStart, Start, as_pictures, noise_of, read_start
from energyql.editing.step import DependenceEstimator, Leaks, estimate_dependence, run_step
from energyql.errors import ArgumentError
from energyql.files import as_path, check_destination, saving, write_json, write_picture
from energyql.language import Expr
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.draw import PreparedQuery, pipeline_for
from energyql.pipeline.model import Model
from energyql.pipeline.result import Result
from energyql.pipeline.result_folder import EDIT
from energyql.pipeline.settings import EXACT, DrawSettings, Noise, Semantics
from energyql.progress import Report, reporting
from energyql.render.pictures import png_bytes
from energyql.sampling import SampleResult


@dataclass(frozen=True, eq=False)
class Edit:
    """Pictures before and after each step of an edit. Sample i of every result is the same picture, edited further.

    Attributes:
        start: the pictures before the first step.
        steps: the pictures after each step. `satisfied` refers to the query of the step, in mode "cumulative" together
            with the earlier ones.
        leaks: for each step, the attributes that changed although its query does not ask for it.
        queries: the texts of the queries.
        provenance: the settings that replay the edit.
        space: the model's latent space.
        inversion: the inversion of the photographs that were edited, whose reconstructions are `start`; `None` for any
            other start.
    """

    start: Result
    steps: list[Result]
    leaks: list[Leaks]
    queries: list[str]
    provenance: dict[str, Any] = field(repr=False)
    space: LatentSpace = field(repr=False)
    inversion: Inversion | None = None

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.start)

    @property
    def final(self) -> Result:
        """The pictures after the last step."""
        return self.steps[-1]

    def summary(self) -> str:
        """Return a line for each step: how many pictures satisfy it, by which judge, and the attributes that leaked.

        For photographs, the first line gives the quality of the reconstructions.
        """
        start = [] if self.inversion is None else [f"0. {self.inversion.summary()}"]
        steps = enumerate(zip(self.steps, self.leaks, strict=True), 1)
        return "\n".join([*start, *(f"{i}. {result.verdict()}; {leaks}" for i, (result, leaks) in steps)])

    def __repr__(self) -> str:
        pictures, steps = len(self), len(self.steps)
        count = f"{pictures} picture{'s' * (pictures != 1)} in {steps} step{'s' * (steps != 1)}"
        return f"<Edit of {count}>\n{self.summary()}"

    def filmstrip(self, rows: Sequence[int] | None = None) -> Image.Image:
        """Draw a row for each picture (by default the first eight), a column for the start and each step.

        Photographs stand beside their reconstructions. Under a step stand a tick or a cross by the judge, and the names
        of the attributes that leaked.

        Raises:
            ArgumentError: there is no such picture.
        """
        steps = map(step_column, self.steps, self.leaks, self.queries)
        return draw_filmstrip([*start_columns(self.start, self.inversion), *steps], rows)

    def animate(
        self, path: str | Path, *, rows: Sequence[int] | None = None, frames: int = 8, seconds: float = 0.06,
        progress: bool | Report = True,
    ) -> Path:  # fmt: skip
        """Write an animation of the path from the start through all steps, and return the path of the file.

        The arguments are those of `energyql.animate`.

        Raises:
            ArgumentError: the path cannot be written, or an argument is outside its range.
        """
        stops = [self.start, *self.steps]
        return write_traversal(self.space, stops, path, rows, frames, seconds, progress)

    def save(self, folder: str | Path) -> Path:
        """Write everything to a folder: `filmstrip.png`, `edit.json`, and a folder for the start and for each step.

        Photographs are in `0-start/originals/`. An earlier edit or inversion in the folder is replaced.

        Raises:
            ArgumentError: it cannot be written, or the folder holds a run or pictures to label.
        """
        folder = check_destination(as_path(folder))
        if folder.suffix and not folder.is_dir():
            raise ArgumentError(f"an edit is saved to a folder, not to {folder}", hint="or save edit.filmstrip()")
        check_place(folder)
        with saving(folder, edit_files) as staged:
            (self.inversion or self.start).write_files(staged / START)
            for i, result in enumerate(self.steps, 1):
                result.write_files(staged / str(i))
            write_picture(staged / FILMSTRIP, self.filmstrip())
            write_json(staged / EDIT, self.to_dict())
        return folder

    def save_filmstrip(self, path: str | Path) -> Path:
        """Write the filmstrip of all pictures as .png, .jpg or .webp, and return the path.

        Raises:
            ArgumentError: the path cannot be written.
        """
        path = check_destination(as_path(path))
        if not path.suffix:
            raise ArgumentError(f"{path} does not end like a picture", hint="name a .png, or save(folder)")
        return save_picture(path, self.filmstrip(range(len(self))))

    def to_dict(self) -> dict[str, Any]:
        """Return provenance, verdicts and leaks as JSON values, without pictures and latents."""
        steps = [
            leaks.to_dict()
            | {
                "satisfied": None if result.satisfied is None else result.satisfied.tolist(),
                "statistics": result.statistics,
            }
            for result, leaks in zip(self.steps, self.leaks, strict=True)
        ]
        return {"provenance": self.provenance, "steps": steps}

    def _repr_png_(self) -> bytes:
        return png_bytes(self.filmstrip())


def edit(
    start: Start,
    queries: str | Expr | Sequence[str | Expr],
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    n: int | None = None,
    mode: str = "cumulative",
    keep: str | Iterable[str] = "everything",
    preset: str | Preset = "default",
    layers: Layers | None = None,
    identity: Embed | None = None,
    semantics: Semantics | None = None,
    strength: float | None = None,
    truncation: float | None = None,
    label: int | Sequence[float] | None = None,
    noise: Noise | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    allow_weak: Sequence[str] = (),
    anyway: bool = False,
    progress: bool | Report = True,
) -> Edit:
    """Edit pictures step by step, each step a query, and report the other attributes that changed.

    Each step makes the smallest change that satisfies its query, and keeps the attributes that the query does not name.
    Values that the query makes impossible are not kept (`frown` needs another mouth than a smile); they are estimated
    from draws of the model.

    Args:
        start: a seed, a list of seeds (one picture each), latents z of shape (n, z_dim), an earlier `Result` or
            `Edit`, the folder that it was saved to, an `Inversion`, or pictures (a path, a PIL image, or a list of
            them), which are inverted first, see `energyql.invert`.
        queries: one query for each step, in order.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        n: number of pictures, if `start` is one seed; 1 by default.
        mode: "cumulative": a step also keeps the earlier queries satisfied, except those that its query makes
            impossible; "alone": a step uses its own query only, and keeps attributes of earlier ones like all others.
        keep: names of the attributes to keep, or "everything". Those of the step's query are never kept.
        preset: weights and solver: a name out of `energyql.editing.settings.PRESETS` ("default", "lace",
            "lace-reweighted", "query-only"), or a `Preset`.
        layers: numbers of the layers of W+ that may change in all steps; or attribute -> layers, where a step may
            change the layers of the attributes that its query names, or all layers if one of these has no entry.
        identity: a function or module from pictures in [-1, 1] to features, whose direction is kept.
        semantics: "exact", "product", "lace" or "jem"; by default the preset's.
        strength: λ > 0, multiplies the energy of the query; by default the preset's.
        truncation: psi in [0, 1]; by default that of the `Result` that is edited, or of the model.
        label: class, or label vector, of a conditional generator; by default that of the `Result` that is edited.
        noise: "const", "random" or "none", see `generate`; by default that of the `Result` that is edited, or "const".
            Random noise of picture i is that of `generate` for the seed of the `Result`, or for the one seed that the
            edit starts from, else for seed 0. A photograph is inverted with "const".
        device: "cpu", "cuda" and so on; "auto" is that of a `Model` in memory, else a GPU if there is one.
        batch_size: number of pictures that are drawn together; the default depends on the model.
        allow_weak: attributes whose heads may be used although their quality on held-out labels is low.
        anyway: also edit photographs that the generator cannot draw; see `invert`.
        progress: whether to show a bar; or a function of the name of a stage and the fraction of it that is done.

    Returns:
        An `Edit`: the start, a `Result` and a report of leaks for each step, filmstrip and animation.

    Raises:
        OutOfDomainError: the generator cannot draw a photograph.
        EnergyQLError: a query, a name or a setting is wrong; all queries are checked before the first step begins.
    """
    inversion: Inversion | None = None
    if isinstance(start, Edit):
        start = start.final
    if isinstance(start, Inversion):
        inversion, start = start, start.result
    if isinstance(start, str | Path) and os.path.isdir(start):
        inversion = load_inversion(Path(start))
        start = read_saved(Path(start)) if inversion is None else inversion.result
    noise, seed = noise_of(start, noise)
    if isinstance(start, Result | SavedResult):
        truncation = start.provenance["truncation"] if truncation is None else truncation
        label = start.provenance["label"] if label is None else label
    settings = check_settings(
        pipeline_for(model, device), [queries] if isinstance(queries, str | Expr) else queries, mode, keep,
        choose_preset(preset, strength, semantics), identity,
        DrawSettings(
            truncation=truncation, label=label, noise=noise, seed=seed, batch_size=batch_size,
            allow_weak=allow_weak,
        ),
    )  # fmt: skip
    prepared = [settings.prepare(query) for query in settings.queries]
    space = LatentSpace(settings.pipeline.model, prepared[0].provenance["truncation"], prepared[0].provenance["label"])
    masks = [space.layer_mask(layers, query.rule.attributes) for query in prepared]
    with reporting(progress) as report:
        pictures = as_pictures(start) if n is None else None
        if pictures is not None:
            inversion = invert_pictures(settings.pipeline, pictures, settings.draw, anyway=anyway, report=report)
            start = inversion.result
        begin = read_start(start, n, space)
        return replace(_run(settings, begin, prepared, masks, space, report), inversion=inversion)


def _run(
    settings: EditSettings, start: EditStart, prepared: list[PreparedQuery], masks: list[Tensor | None],
    space: LatentSpace, report: Report,
) -> Edit:  # fmt: skip
    """Make the steps of an edit, given each query prepared and each mask of layers (num_ws,)."""
    count, latents = len(prepared), start.latents
    estimator = DependenceEstimator(space)
    facts = settings.facts() | start.facts

    def draw(query: PreparedQuery, latents: Latents, done: int, run: SampleResult | None = None) -> Result:
        provenance = query.provenance | {"edit": facts | {"step": done}, "sampler": facts["preset"]["solver"]}
        part = _part(report, "drawing", done, count + 1)
        return draw_result(replace(query, provenance=provenance), space, latents, start.index, part, run)

    before = start.result
    if before is None:
        before = draw(settings.prepare("TRUE", semantics=EXACT), latents, 0)
    first, earlier, extended = before, list[int](), list[PreparedQuery]()
    results, leaks = list[Result](), list[Leaks]()
    for i, (query, mask) in enumerate(zip(prepared, masks, strict=True)):
        began = time.perf_counter()
        dependence, extended_query = estimate_dependence(estimator, settings, query, settings.queries[i])
        superseded = [j for j in earlier if dependence.excludes_query(prepared[j].expr)]
        earlier = [j for j in earlier if j not in superseded]
        extended.append(extended_query)
        names = query.rule.attributes
        rules = [extended[j].rule for j in (i, *earlier)]
        part = _part(report, "editing", i, count)
        latents, run = run_step(rules, query, dependence, mask, latents, space, settings, part)
        if earlier:
            query = settings.prepare(reduce(and_, [settings.queries[j] for j in (*earlier, i)]))
        solved = time.perf_counter()
        after = draw(query, latents, i + 1, run)
        after.statistics.update({"seconds_sampling": solved - began, "seconds_drawing": time.perf_counter() - solved})
        results.append(after)
        texts = [settings.texts[j] for j in (i, *superseded)]
        leaks.append(Leaks.between(before.values, after.values, dependence, *texts, asked=names, kept=settings.keep))
        earlier, before = [*earlier, i] if settings.mode == "cumulative" else [], after
    return Edit(first, results, leaks, settings.texts, facts, space)


def _part(report: Report, stage: str, done: int, count: int) -> Report:
    """Return the progress of part `done` of `count` equal parts of a stage."""
    return lambda _, fraction: report(stage, (done + fraction) / count)
