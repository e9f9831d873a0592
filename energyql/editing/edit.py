"""Editing of pictures step by step: `edit`, and `Edit`, its result."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from numbers import Integral
from operator import and_
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from energyql.editing.arguments import AnimationSettings, EditOptions, EditSettings, InvertSettings
from energyql.editing.filmstrip import draw_filmstrip, start_columns, step_column, write_traversal
from energyql.editing.folder import FILMSTRIP, START, SavedResult, check_place, edit_files, read_saved
from energyql.editing.invert import Inversion, invert_pictures, load_inversion
from energyql.editing.latents import Latents, LatentSpace, draw_result
from energyql.editing.pictures import Picture, as_pictures
from energyql.editing.settings import choose_preset
from energyql.editing.step import EditTask, Leaks, Step, estimate_dependence, prior_values, run_step
from energyql.errors import ArgumentError, either
from energyql.files import as_path, check_destination, saving, write_json, write_picture
from energyql.generators.base import RANDOM_NOISE
from energyql.language import Expr, as_query, bind
from energyql.logic.satisfiability import check_satisfiable
from energyql.models import DEFAULT_MODEL
from energyql.numerics.pool import one_thread
from energyql.numerics.pullback import Convertible
from energyql.pipeline.model import Model
from energyql.pipeline.plan import Plan, solved_by
from energyql.pipeline.result import Result
from energyql.pipeline.result_folder import EDIT, write_result
from energyql.pipeline.result_words import verdict_sentences
from energyql.pipeline.session import Session, open_session
from energyql.pipeline.settings import DEFAULT_NOISE, EXACT, DrawSettings, Noise, several, whole_number
from energyql.progress import Report, reporting
from energyql.render.pictures import png_bytes
from energyql.sampling import SampleResult, prior_latents

if TYPE_CHECKING:
    from typing_extensions import Unpack

Start = int | Sequence[int] | Tensor | npt.NDArray[Any] | Result | SavedResult | Picture | Sequence[Picture]
"""What an edit may start from: a seed, a list of seeds, latents z (n, z_dim), a result, or pictures. `edit` replaces a
folder by what was saved in it."""


@dataclass(frozen=True, eq=False)
class Edit:
    """Result of `edit`: n pictures before the first step and after each step. Picture i stays picture i in every step.

    Attributes:
        start: the pictures before the first step; if photographs were edited, their reconstructions.
        steps: the pictures after each step. In mode "alone" their `satisfied` is about the query of the step; in mode
            "cumulative" it is about the earlier queries too, except those that a later query makes impossible.
        leaks: for each step, which attributes changed although the query does not ask for it.
        queries: the query of each step as text.
        provenance: the settings with which the edit can be repeated.
        space: the latent space of the edited model, from which `animate` draws the pictures between steps.
        inversion: the photographs, with the latents that reproduce them; `None` for any other start.
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
        """Text with a line for each step: how many pictures satisfy its query, by which judge, and what leaked."""
        start = [] if self.inversion is None else [f"0. {self.inversion.summary()}"]
        steps = enumerate(zip(self.steps, self.leaks, strict=True), 1)
        return "\n".join([*start, *(f"{i}. {verdict_sentences(result)}; {leaks}" for i, (result, leaks) in steps)])

    def __repr__(self) -> str:
        pictures, steps = len(self), len(self.steps)
        count = f"{pictures} picture{'s' * (pictures != 1)} in {steps} step{'s' * (steps != 1)}"
        return f"<Edit of {count}>\n{self.summary()}"

    def filmstrip(self, rows: Sequence[int] | None = None) -> Image.Image:
        """Draw a table with a row for each picture, and columns for the start and for each step.

        If photographs were edited, a column before the start shows them. Under the pictures of a step are ticks and
        crosses by the judge, if it reads the attributes, and the names of the attributes that changed without need.

        Args:
            rows: numbers of the pictures, from 0; by default the first eight.
        """
        steps = map(step_column, self.steps, self.leaks, self.queries)
        return draw_filmstrip([*start_columns(self.start, self.inversion), *steps], rows)

    def animate(
        self, path: str | Path, *, rows: Sequence[int] | None = None, frames: int = 8, seconds: float = 0.06,
        progress: bool | Report = True,
    ) -> Path:  # fmt: skip
        """Write an animation that goes from the start through the results of all steps, and return the file's path.

        `frames`, 1 to 200, is the number for each step. The other arguments, and the errors, are those of
        `energyql.animate`.
        """
        settings = AnimationSettings(rows=rows, frames=frames, seconds=seconds)
        return write_traversal(self.space, [self.start, *self.steps], path, settings, progress)

    def save(self, folder: str | Path) -> Path:
        """Write the edit to a folder, and return its path.

        The folder gets `filmstrip.png`, `edit.json`, and subfolders with pictures: `0-start`, then `1` for the first
        step, `2` for the second, and so on; `0-start/originals` has the photographs that were edited. An earlier edit
        or inversion in the folder is replaced.

        Raises:
            ArgumentError: `folder` cannot be written, is a file name such as `edit.png`, or contains something that is
                no edit or inversion: a result of `generate`, pictures to label, or other files of these names.
        """
        folder = check_destination(as_path(folder))
        if folder.suffix and not folder.is_dir():
            raise ArgumentError(f"an edit is saved to a folder, not to {folder}", hint="or save edit.filmstrip()")
        check_place(folder)
        with saving(folder, edit_files) as staged:
            if self.inversion is None:
                write_result(staged / START, self.start)
            else:
                self.inversion.write_files(staged / START)
            for i, result in enumerate(self.steps, 1):
                write_result(staged / str(i), result)
            write_picture(staged / FILMSTRIP, self.filmstrip())
            write_json(staged / EDIT, self.to_dict())
        return folder

    def save_filmstrip(self, path: str | Path) -> Path:
        """Write the filmstrip of all pictures to a .png, .jpg or .webp file, and return its path.

        Raises:
            ArgumentError: the name has another ending, the file cannot be written, or the format allows no such large
                picture.
        """
        path = check_destination(as_path(path))
        if not path.suffix:
            raise ArgumentError(f"{path} does not end like a picture", hint="name a .png, or save(folder)")
        write_picture(path, self.filmstrip(range(len(self))))
        return path

    def to_dict(self) -> dict[str, Any]:
        """Content of `edit.json` as JSON values, without pictures and latents.

        Returns:
            `provenance`; and `steps`, for each step the report of changed attributes (`Leaks.to_dict`), `satisfied`
            (for each picture; `None` without a judge), and `statistics` (costs of the search).
        """
        steps = []
        for result, leaks in zip(self.steps, self.leaks, strict=True):
            satisfied = None if result.satisfied is None else result.satisfied.tolist()
            steps.append(leaks.to_dict() | {"satisfied": satisfied, "statistics": result.statistics})
        return {"provenance": self.provenance, "steps": steps}

    def _repr_png_(self) -> bytes:
        return png_bytes(self.filmstrip())


def edit(
    start: Start | Edit | Inversion, queries: str | Expr | Sequence[str | Expr], *,
    model: str | Path | Model = DEFAULT_MODEL, n: int | None = None, device: str = "auto",
    progress: bool | Report = True, **options: Unpack[EditOptions],
) -> Edit:  # fmt: skip
    """Edit pictures step by step, and report which attributes changed without need.

    Each step has one query. It makes the smallest change after which the pictures satisfy the query, and keeps the
    attributes that the query does not name, except values that the query makes impossible: a frowning face, for
    example, cannot keep a smiling mouth. Which values are impossible is estimated from draws of the model. Arguments
    not listed here are those of `energyql.generate`.

    Args:
        start: a seed; a list of seeds (one picture each); latents z of shape (n, z_dim); a `Result`; an `Edit`, whose
            last step is edited; an `Inversion`; the folder to which one of these three was saved; or pictures (a file
            name, a PIL image, or a list of these), which are inverted first (see `energyql.invert`).
        queries: one query for each step, in order.
        n: number of pictures, if `start` is one seed; 1 by default.
        options: settings by name, which follow; `batch_size` and `allow_weak` are those of `energyql.generate`.
        mode: "cumulative": a step also keeps the earlier queries satisfied, except those that its query makes
            impossible. "alone": a step uses its own query only, and treats attributes of earlier queries like all
            others.
        keep: names of the attributes to keep, or "everything". Attributes that the step's query names are never kept.
        preset: weights of the energy that a step minimises, and the solver: a `Preset`, or a name out of
            `energyql.editing.settings.PRESETS`: "default", "lace", "lace-reweighted", "query-only".
        layers: numbers of the layers of the generator that may change, from 0; by default all. With a mapping attribute
            -> numbers, a step may change the layers of all attributes that its query names, or all layers if one of
            these is not in the mapping. The generator must have W+, a w for each layer.
        identity: function or module from pictures in [-1, 1], (batch, channels, height, width), to features (batch,
            ...), such as a face recogniser; edits keep the direction of the feature vector.
        semantics: "exact", "product", "lace" or "jem"; by default that of the preset.
        strength: λ > 0, the factor of the energy of the query; by default that of the preset.
        truncation: psi in [0, 1]; by default that of the edited `Result`, for other starts that of the model.
        condition: class or condition vector of a conditional generator; by default that of the edited `Result`.
        noise: "const", "random" or "none"; by default that of the edited `Result`, for other starts "const". Random
            noise has the seed of the edited `Result`, or `start` if it is one seed, else 0. A photograph is inverted
            with "const".
        anyway: edit photographs, too, that the generator cannot draw.

    Raises:
        OutOfDomainError: the generator cannot draw a photograph, and `anyway` is false.
        EnergyQLError: a query, a name or a setting is wrong; all queries are checked before the first step begins.
    """
    settings, inversion = EditSettings(**options), None
    if isinstance(start, Edit):
        start = start.final
    if isinstance(start, str | Path) and os.path.isdir(start):
        start = load_inversion(Path(start)) or read_saved(Path(start))
    if isinstance(start, Inversion):
        inversion, start = start, start.result
    facts = start.provenance if isinstance(start, Result | SavedResult) else {}
    noise, seed = _noise_of(facts, start if _is_seed(start) else 0, settings.noise)
    draw = DrawSettings(
        truncation=facts.get("truncation") if settings.truncation is None else settings.truncation,
        condition=facts.get("condition") if settings.condition is None else settings.condition,
        noise=noise, verify="off", seed=seed, batch_size=settings.batch_size, allow_weak=settings.allow_weak,
    )  # fmt: skip
    queries = several(queries, (str, Expr))
    task = _check(open_session(model, device).reading(queries, draw), queries, settings, draw)
    plans = [task.plan(query) for query in task.queries]
    under = plans[0].provenance
    space = LatentSpace(task.session.model, under["truncation"], under["condition"])
    masks = [space.layer_mask(settings.layers, query.rule.attributes) for query in plans]
    with reporting(progress) as report:
        pictures = as_pictures(start) if n is None else None
        if pictures is not None:
            how = InvertSettings(batch_size=settings.batch_size, anyway=settings.anyway)
            inversion = invert_pictures(task.session, pictures, draw, how, report)
            start = inversion.result
        begin = read_start(start, n, space)
        return replace(_run(task, begin, plans, masks, space, report), inversion=inversion)


def _run(
    task: EditTask, start: EditStart, plans: list[Plan], masks: list[Tensor | None],
    space: LatentSpace, report: Report,
) -> Edit:  # fmt: skip
    """Make all steps. Each has a mask of the layers of W+ that may change, (num_ws,) bool; `None` for all."""
    count, latents, prior = len(plans), start.latents, prior_values(space)
    facts, z_dim = task.facts() | start.facts, space.model.generator.z_dim
    small = task.identity is None and isinstance(space.reads, Convertible)  # others may be large networks of users
    products = len(start.index) * z_dim**2 if small else math.inf

    def draw(query: Plan, latents: Latents, done: int, run: SampleResult | None = None) -> Result:
        query = solved_by(query, facts["preset"]["solver"])
        provenance = query.provenance | {"edit": facts | {"step": done}}
        part = _part(report, "drawing", done, count + 1)
        return draw_result(replace(query, provenance=provenance), space, latents, start.index, part, run)

    before = start.result
    if before is None:
        before = draw(task.plan("TRUE", semantics=EXACT), latents, 0)
    first, earlier, extended = before, list[int](), list[Plan]()
    results, leaks = list[Result](), list[Leaks]()
    for i, (query, mask) in enumerate(zip(plans, masks, strict=True)):
        began = time.perf_counter()
        with one_thread(products):
            dependence, extended_query = estimate_dependence(task.queries[i], query, prior, space, task)
        extended.append(extended_query)
        superseded = [j for j in earlier if dependence.excludes_query(plans[j].expr)]
        earlier = [j for j in earlier if j not in superseded]
        names = query.rule.attributes
        rules = [extended[j].rule for j in (i, *earlier)]
        step = Step(task, space, query, rules, dependence, mask, latents)
        with one_thread(products):
            latents, run = run_step(step, _part(report, "editing", i, count))
        if earlier:
            query = task.plan(reduce(and_, [task.queries[j] for j in (*earlier, i)]))
        solved = time.perf_counter()
        after = draw(query, latents, i + 1, run)
        after.statistics.update({"seconds_sampling": solved - began, "seconds_drawing": time.perf_counter() - solved})
        results.append(after)
        texts = [task.texts[j] for j in (i, *superseded)]
        leaks.append(Leaks.between(before.values, after.values, dependence, *texts, asked=names, kept=task.keep))
        earlier, before = [*earlier, i] if task.mode == "cumulative" else [], after
    return Edit(first, results, leaks, task.texts, facts, space)


def _part(report: Report, stage: str, done: int, count: int) -> Report:
    """Report for part `done` of `count` equal parts of a stage: maps the fraction of the part to that of the stage."""
    return lambda _, fraction: report(stage, (done + fraction) / count)


def _check(session: Session, queries: Sequence[str | Expr], settings: EditSettings, draw: DrawSettings) -> EditTask:
    """Check the arguments of `edit` against the model, and parse the queries."""
    if not queries:
        raise ArgumentError("an edit needs at least one query", hint='such as ["smile", "hair = red"]')
    preset = choose_preset(settings.preset, settings.strength, settings.semantics)
    if settings.identity is not None and not preset.identity:
        raise ArgumentError("identity has no weight in this preset", hint="give a Preset with identity above 0")
    exprs, texts = zip(*map(as_query, queries), strict=True)
    vocabulary = session.model.vocabulary
    for expr, text in zip(exprs, texts, strict=True):
        bound, related = bind(expr, vocabulary, query=text), preset.semantics == EXACT
        check_satisfiable(bound, vocabulary, query=text, relations=related)
    keep = vocabulary if settings.keep == "everything" else settings.keep
    names = tuple(vocabulary[name].name for name in keep)
    return EditTask(session, list(exprs), list(texts), settings.mode, names, preset, settings.identity, draw)


@dataclass(frozen=True, eq=False)
class EditStart:
    """The latents that an edit starts from, and where they come from.

    Attributes:
        index: number of each picture, (n,): in a result its number in the run of `generate`, else 0 to n - 1.
        facts: origin of the latents, as JSON values for the provenance, such as `{"start": {"seed": 0, "n": 8}}`.
        result: the `Result` that is edited; `None` for any other start, whose pictures must be drawn first.
    """

    latents: Latents
    index: npt.NDArray[np.int64]
    facts: dict[str, Any]
    result: Result | None = None


def read_start(start: Any, n: int | None, space: LatentSpace) -> EditStart:
    """Latents of one seed (with `n`), seeds, z (n, z_dim), or a result; pictures must be inverted first."""
    model = space.model
    if n is not None and not _is_seed(start):
        raise ArgumentError("n is the number of samples of one seed", hint="leave it out for any other start")
    if isinstance(start, Result | SavedResult):
        _check_result(start, space)
        latents = space.from_w(start.z.to(model.device), start.w.to(model.device))
        result = start if isinstance(start, Result) else None
        return EditStart(latents, start.index, {"start": start.provenance}, result)
    size, facts = model.generator.z_dim, dict[str, Any]()
    seeds = [start] if _is_seed(start) else start
    if isinstance(start, Tensor | np.ndarray):
        z = _check_latents(start, size)
        facts = {"latents": len(z)}
    elif isinstance(seeds, list | tuple) and seeds and all(map(_is_seed, seeds)):
        count = whole_number("n", 1 if n is None else n)
        seeds = [whole_number("a seed", seed, least=0, most=2**64 - 1) for seed in seeds]
        z = torch.cat([prior_latents(seed, 0, count, size) for seed in seeds])
        facts = {"seed": seeds[0], "n": count} if _is_seed(start) else {"seeds": seeds}
    else:
        hint = "give a seed, a list of seeds, latents (n, z_dim), a Result or its folder, or pictures"
        raise ArgumentError(f"an edit cannot start from {start!r:.60}", hint=hint)
    return EditStart(Latents(z.to(model.device)), np.arange(len(z)), {"start": facts})


def _noise_of(facts: Mapping[str, Any], seed: Any, noise: Noise | None) -> tuple[Noise, int]:
    """Kind and seed of an edit's noise, by default those in the provenance; runs of different noise are refused."""
    kind, seed = noise or facts.get("noise", DEFAULT_NOISE), facts.get("seed", seed)
    joined = isinstance(seed, list)
    if isinstance(kind, list) or (kind == RANDOM_NOISE and joined):
        hint = "give " + either('noise="const"', "--noise const")
        raise ArgumentError("the result was joined from runs of different noise", hint=hint)
    return kind, 0 if joined else seed


def _is_seed(start: object) -> bool:
    return isinstance(start, Integral) and not isinstance(start, bool)


def _check_latents(start: Tensor | npt.NDArray[Any], size: int) -> Tensor:
    z = torch.as_tensor(start).detach()
    z = z[None] if z.ndim == 1 else z
    if z.ndim != 2 or z.shape[1] != size or not len(z) or not z.is_floating_point() or not z.isfinite().all():
        message = f"start latents must be z, finite floating point of shape (n, {size}), not {tuple(start.shape)}"
        raise ArgumentError(message, hint="of a w, give the Result that holds it, or the picture")
    return z.float()


def _check_result(start: Result | SavedResult, space: LatentSpace) -> None:
    if not len(start.z):
        raise ArgumentError("an edit cannot start from a result without pictures")
    theirs, ours = (facts.get("generator") for facts in (start.provenance["fingerprints"], space.model.fingerprints))
    if theirs != ours or start.z.shape[1] != space.model.generator.z_dim:
        raise ArgumentError(f"the result was made by another model, {start.provenance['model']!r}")
