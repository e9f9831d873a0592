"""The function `edit`, which edits pictures step by step, and `Edit`, the class of its result."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from numbers import Integral
from operator import and_
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from energyql.editing.filmstrip import draw_filmstrip, start_columns, step_column, write_traversal
from energyql.editing.folder import FILMSTRIP, START, SavedResult, check_place, edit_files, read_saved
from energyql.editing.invert import Inversion, invert_pictures, load_inversion
from energyql.editing.latents import Latents, LatentSpace, Layers, draw_result
from energyql.editing.pictures import Embed, Picture, as_pictures
from energyql.editing.settings import Preset, choose_preset
from energyql.editing.step import EditSettings, Leaks, estimate_dependence, prior_values, run_step
from energyql.errors import ArgumentError
from energyql.files import as_path, check_destination, saving, write_json, write_picture
from energyql.generators.base import RANDOM_NOISE
from energyql.language import Expr, as_query, bind
from energyql.logic.satisfiability import check_satisfiable
from energyql.models import DEFAULT_MODEL
from energyql.numerics.pool import one_thread
from energyql.numerics.pullback import Convertible
from energyql.pipeline.model import Model
from energyql.pipeline.plan import Plan
from energyql.pipeline.result import Result
from energyql.pipeline.result_folder import EDIT
from energyql.pipeline.session import Session, open_session
from energyql.pipeline.settings import DEFAULT_NOISE, EXACT, DrawSettings, Noise, Semantics, several, whole_number
from energyql.progress import Report, reporting
from energyql.render.pictures import png_bytes
from energyql.sampling import SampleResult, prior_latents

MODES = ("cumulative", "alone")
Start = int | Sequence[int] | Tensor | npt.NDArray[Any] | Result | SavedResult | Picture | Sequence[Picture]
"""What an edit may start from: a seed, a list of seeds, latents z (n, z_dim), a result, or pictures.

The folder of a saved result is not in this list, because `edit` reads the folder first and continues with the
`SavedResult`.
"""


@dataclass(frozen=True, eq=False)
class Edit:
    """Result of `edit`: n pictures before the first step and after each step. Picture i stays picture i in every step.

    Attributes:
        start: the pictures before the first step.
        steps: for each step a `Result` with the pictures after the step. In mode "alone", `satisfied` of the `Result`
            tells which pictures satisfy the query of the step. In mode "cumulative", `satisfied` tells which pictures
            satisfy this query and all earlier queries, except those that a later query makes impossible.
        leaks: for each step, the report of the attributes that changed although the query does not ask for the change.
        queries: the text of each step's query.
        provenance: the settings with which the edit can be repeated.
        space: the latent space of the edited model. `animate` draws pictures between the steps from it.
        inversion: the inversion (photographs, and the latents that reproduce them) if the edit started from
            photographs; `start` then shows the reconstructions of the photographs. `None` for any other start.
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
        """Return a text with a line for each step.

        The line tells how many pictures satisfy the query of the step, by which judge, and which attributes changed
        without need. If photographs were edited, a first line tells how well their reconstructions match.
        """
        start = [] if self.inversion is None else [f"0. {self.inversion.summary()}"]
        steps = enumerate(zip(self.steps, self.leaks, strict=True), 1)
        return "\n".join([*start, *(f"{i}. {result.verdict()}; {leaks}" for i, (result, leaks) in steps)])

    def __repr__(self) -> str:
        pictures, steps = len(self), len(self.steps)
        count = f"{pictures} picture{'s' * (pictures != 1)} in {steps} step{'s' * (steps != 1)}"
        return f"<Edit of {count}>\n{self.summary()}"

    def filmstrip(self, rows: Sequence[int] | None = None) -> Image.Image:
        """Draw the edit as a table of pictures, with a row for each picture.

        There is a column for the start and one for each step. If photographs were edited, a column before the start
        shows the photographs. Under each picture of a step is a tick if the picture satisfies the query by the judge,
        else a cross; there is neither if no judge reads the attributes. Beside the tick or cross are the names of the
        attributes that changed without need.

        Args:
            rows: numbers of the pictures, counted from 0; by default the first eight.

        Raises:
            ArgumentError: `rows` is empty or contains a number that no picture has.
        """
        steps = map(step_column, self.steps, self.leaks, self.queries)
        return draw_filmstrip([*start_columns(self.start, self.inversion), *steps], rows)

    def animate(
        self, path: str | Path, *, rows: Sequence[int] | None = None, frames: int = 8, seconds: float = 0.06,
        progress: bool | Report = True,
    ) -> Path:  # fmt: skip
        """Write an animation that goes from the start through the results of all steps, and return the file's path.

        Args:
            path: name of the file, which ends in .gif or .webp.
            rows: numbers of the pictures, counted from 0, shown side by side; by default the first eight.
            frames: number of frames for each step, 1 to 200.
            seconds: duration of a frame, 0.02 to 60; a frame that shows the start or the result of a step takes ten
                times as long.
            progress: true for a progress bar, false for none; or a function, called with the stage "frames" and the
                fraction of the frames that are drawn.

        Raises:
            ArgumentError: the file cannot be written, an argument is outside its range, or the pictures were drawn with
                other noise than "const".
        """
        return write_traversal(self.space, [self.start, *self.steps], path, rows, frames, seconds, progress)

    def save(self, folder: str | Path) -> Path:
        """Write the edit to a folder, and return the path of the folder.

        The folder gets `filmstrip.png`, `edit.json`, and subfolders with pictures: `0-start` for the start, `1` for the
        first step, `2` for the second, and so on. If photographs were edited, `0-start/originals` contains the
        photographs. An earlier edit or inversion in the folder is replaced.

        Raises:
            ArgumentError: `folder` cannot be written, is a file name such as `edit.png`, or contains something that is
                no edit or inversion: a result of `generate`, pictures to label, or files with the names that this
                method writes.
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
        """Write the filmstrip, with a row for every picture, to a file, and return the path of the file.

        The name of the file ends in .png, .jpg or .webp.

        Raises:
            ArgumentError: the name has another ending, the file cannot be written, or the filmstrip is too large for
                the format.
        """
        path = check_destination(as_path(path))
        if not path.suffix:
            raise ArgumentError(f"{path} does not end like a picture", hint="name a .png, or save(folder)")
        write_picture(path, self.filmstrip(range(len(self))))
        return path

    def to_dict(self) -> dict[str, Any]:
        """Return the content of `edit.json` as JSON values, without pictures and latents.

        Returns:
            `provenance`, the settings; and `steps`, for each step the report of changed attributes (`Leaks.to_dict`),
            `satisfied` (which pictures satisfy the query; `None` without a judge), and `statistics` (costs of the
            search).
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
    model: str | Path | Model = DEFAULT_MODEL, n: int | None = None, mode: str = "cumulative",
    keep: str | Iterable[str] = "everything", preset: str | Preset = "default", layers: Layers | None = None,
    identity: Embed | None = None, semantics: Semantics | None = None, strength: float | None = None,
    truncation: float | None = None, condition: int | str | Sequence[float] | None = None, noise: Noise | None = None,
    device: str = "auto", batch_size: int | None = None, allow_weak: Sequence[str] = (), anyway: bool = False,
    progress: bool | Report = True,
) -> Edit:  # fmt: skip
    """Edit pictures step by step, and report which attributes changed without need.

    Each step has one query. The step makes the smallest change after which the pictures satisfy the query, and keeps
    the attributes that the query does not name. Values that the query makes impossible are not kept: a frowning face,
    for example, cannot keep a smiling mouth. Which values are impossible is estimated from draws of the model.

    Args:
        start: one of: a seed; a list of seeds (one picture each); latents z of shape (n, z_dim); a `Result`; an `Edit`,
            whose last step is edited; an `Inversion`; the folder to which a `Result`, `Edit` or `Inversion` was saved;
            or pictures (a file name, a PIL image, or a list of these). For pictures, latents that reproduce them are
            found first, as `energyql.invert` finds them.
        queries: one query for each step, in order.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        n: number of pictures, if `start` is one seed; 1 by default.
        mode: "cumulative": a step also keeps the earlier queries satisfied, except those that its query makes
            impossible. "alone": a step uses its own query only, and treats attributes of earlier queries like all
            others.
        keep: names of the attributes to keep, or "everything". Attributes that the step's query names are never kept.
        preset: weights of the energy that a step minimises, and the solver. Either a `Preset`, or a name out of
            `energyql.editing.settings.PRESETS`: "default", "lace", "lace-reweighted", "query-only".
        layers: which layers of the generator may change, as numbers counted from 0; by default all. One list is for all
            steps. With a mapping attribute -> list, a step may change the layers of the attributes that its query
            names. If one of these attributes is not in the mapping, the step may change all layers. The generator must
            have W+, a w for each layer.
        identity: a function or module from pictures in [-1, 1], (batch, channels, height, width), to features (batch,
            ...), such as a face recogniser; edits keep the direction of the feature vector.
        semantics: how the energy of a query is computed: "exact", "product", "lace" or "jem"; by default as in the
            preset.
        strength: λ > 0, the factor of the energy of the query; by default as in the preset.
        truncation: psi in [0, 1]; by default the psi with which the edited `Result` was drawn, or, for other starts,
            the psi of the model.
        condition: class, or condition vector, of a conditional generator; by default the condition with which the
            edited `Result` was drawn.
        noise: noise that the generator adds to a picture: "const" (stored in the model), "random" (new for each
            picture) or "none". By default as in the edited `Result`, or "const" for other starts. With "random",
            picture i has the noise of sample i of `generate`. The seed of this noise is the seed of the edited
            `Result`, or `start` if it is one seed, else 0. A photograph is inverted with "const".
        device: "cpu", "cuda" and so on. With "auto", a `Model` in memory stays on its device; another model uses a GPU
            if there is one.
        batch_size: number of pictures that are drawn together; the default depends on the model.
        allow_weak: attributes whose heads may be used although their quality on held-out labels is low.
        anyway: whether to edit photographs, too, that the generator cannot draw, instead of raising `OutOfDomainError`.
        progress: true for a progress bar, false for none; or a function, called with the name of a stage and the
            fraction of the stage that is done, 0 to 1.

    Returns:
        An `Edit`: the start, and for each step a `Result` and a report of unwanted changes. Its methods draw a
        filmstrip and an animation.

    Raises:
        OutOfDomainError: the generator cannot draw a photograph, and `anyway` is false.
        EnergyQLError: a query, a name or a setting is wrong; all queries are checked before the first step begins.
    """
    inversion: Inversion | None = None
    if isinstance(start, Edit):
        start = start.final
    if isinstance(start, str | Path) and os.path.isdir(start):
        start = load_inversion(Path(start)) or read_saved(Path(start))
    if isinstance(start, Inversion):
        inversion, start = start, start.result
    facts = start.provenance if isinstance(start, Result | SavedResult) else {}
    noise, seed = _noise_of(facts, start if _is_seed(start) else 0, noise)
    truncation = facts.get("truncation") if truncation is None else truncation
    condition = facts.get("condition") if condition is None else condition
    draw = DrawSettings(
        truncation=truncation, condition=condition, noise=noise, verify="off", seed=seed, batch_size=batch_size,
        allow_weak=allow_weak,
    )  # fmt: skip
    queries = several(queries, (str, Expr))
    settings = _check_settings(
        open_session(model, device).reading(queries, draw), queries, mode, keep,
        choose_preset(preset, strength, semantics), identity, draw,
    )  # fmt: skip
    plans = [settings.plan(query) for query in settings.queries]
    under = plans[0].provenance
    space = LatentSpace(settings.session.model, under["truncation"], under["condition"])
    masks = [space.layer_mask(layers, query.rule.attributes) for query in plans]
    with reporting(progress) as report:
        pictures = as_pictures(start) if n is None else None
        if pictures is not None:
            inversion = invert_pictures(settings.session, pictures, settings.draw, anyway=anyway, report=report)
            start = inversion.result
        begin = read_start(start, n, space)
        return replace(_run(settings, begin, plans, masks, space, report), inversion=inversion)


def _run(
    settings: EditSettings, start: EditStart, plans: list[Plan], masks: list[Tensor | None],
    space: LatentSpace, report: Report,
) -> Edit:  # fmt: skip
    """Make all steps of an edit, and return their results.

    Args:
        settings: the checked arguments of `edit`.
        start: latents and origin of the pictures before the first step.
        plans: the compiled query of each step.
        masks: for each step, which layers of W+ may change, (num_ws,) bool; or `None` if all layers may change.
        space: the model's latent space.
        report: called with the stages "editing" and "drawing".
    """
    count, latents, prior = len(plans), start.latents, prior_values(space)
    facts, z_dim = settings.facts() | start.facts, space.model.generator.z_dim
    small = settings.identity is None and isinstance(space.reads, Convertible)  # others may be large networks of users
    products = len(start.index) * z_dim**2 if small else math.inf

    def draw(query: Plan, latents: Latents, done: int, run: SampleResult | None = None) -> Result:
        provenance = query.provenance | {"edit": facts | {"step": done}, "sampler": facts["preset"]["solver"]}
        part = _part(report, "drawing", done, count + 1)
        return draw_result(replace(query, provenance=provenance), space, latents, start.index, part, run)

    before = start.result
    if before is None:
        before = draw(settings.plan("TRUE", semantics=EXACT), latents, 0)
    first, earlier, extended = before, list[int](), list[Plan]()
    results, leaks = list[Result](), list[Leaks]()
    for i, (query, mask) in enumerate(zip(plans, masks, strict=True)):
        began = time.perf_counter()
        with one_thread(products):
            dependence, extended_query = estimate_dependence(settings.queries[i], query, prior, space, settings)
        extended.append(extended_query)
        superseded = [j for j in earlier if dependence.excludes_query(plans[j].expr)]
        earlier = [j for j in earlier if j not in superseded]
        names = query.rule.attributes
        rules = [extended[j].rule for j in (i, *earlier)]
        part = _part(report, "editing", i, count)
        with one_thread(products):
            latents, run = run_step(rules, query, dependence, mask, latents, space, settings, part)
        if earlier:
            query = settings.plan(reduce(and_, [settings.queries[j] for j in (*earlier, i)]))
        solved = time.perf_counter()
        after = draw(query, latents, i + 1, run)
        after.statistics.update({"seconds_sampling": solved - began, "seconds_drawing": time.perf_counter() - solved})
        results.append(after)
        texts = [settings.texts[j] for j in (i, *superseded)]
        leaks.append(Leaks.between(before.values, after.values, dependence, *texts, asked=names, kept=settings.keep))
        earlier, before = [*earlier, i] if settings.mode == "cumulative" else [], after
    return Edit(first, results, leaks, settings.texts, facts, space)


def _part(report: Report, stage: str, done: int, count: int) -> Report:
    """Return a `Report` for one of the `count` equally long parts of a stage.

    The function is called with the fraction of the part that is done, and calls `report` with the fraction of the whole
    stage.

    Args:
        report: called with `stage` and the fraction of the whole stage.
        stage: name of the stage, such as "drawing".
        done: number of parts that are finished before this part.
        count: number of parts of the stage.
    """
    return lambda _, fraction: report(stage, (done + fraction) / count)


def _check_settings(
    session: Session, queries: Sequence[str | Expr], mode: str, keep: str | Iterable[str], preset: Preset,
    identity: Embed | None, draw: DrawSettings,
) -> EditSettings:  # fmt: skip
    """Check the arguments of `energyql.edit`, and parse the queries.

    Args:
        session: the loaded model.
        queries: the query of each step.
        mode: "cumulative" or "alone".
        keep: names of the attributes to keep, or "everything".
        preset: weights of the energy, and solver.
        identity: function from pictures to features that edits keep, or `None`.
        draw: the settings with which pictures are drawn, such as truncation and noise.

    Raises:
        EnergyQLError: a query cannot be parsed, does not fit the model or contradicts itself, or an argument is wrong.
    """
    if not queries:
        raise ArgumentError("an edit needs at least one query", hint='such as ["smile", "hair = red"]')
    if mode not in MODES:
        raise ArgumentError(f"there is no mode {mode!r}", hint=f"choose {' or '.join(MODES)}")
    if identity is not None and not preset.identity:
        raise ArgumentError("identity has no weight in this preset", hint="give a Preset with identity above 0")
    exprs, texts = zip(*map(as_query, queries), strict=True)
    vocabulary = session.model.vocabulary
    for expr, text in zip(exprs, texts, strict=True):
        bound, related = bind(expr, vocabulary, query=text), preset.semantics == EXACT
        check_satisfiable(bound, vocabulary, query=text, relations=related)
    if keep != "everything" and (isinstance(keep, str) or not isinstance(keep, Iterable)):
        raise ArgumentError(f'keep is "everything" or a list of attributes, not {keep!r}', hint='such as ["hair"]')
    names = tuple(vocabulary[name].name for name in (vocabulary if keep == "everything" else keep))
    return EditSettings(session, list(exprs), list(texts), mode, names, preset, identity, draw)


@dataclass(frozen=True, eq=False)
class EditStart:
    """The latents that an edit starts from, and where they come from.

    Attributes:
        latents: latents of n pictures.
        index: number of each picture, (n,): in a `Result` or `SavedResult`, the number of the sample in the run of
            `generate`; for any other start 0 to n - 1.
        facts: where the latents come from, as JSON values for the provenance of the edit, such as `{"start": {"seed":
            0, "n": 8}}`.
        result: the `Result` that is edited; `None` for any other start, whose pictures must be drawn first.
    """

    latents: Latents
    index: npt.NDArray[np.int64]
    facts: dict[str, Any]
    result: Result | None = None


def read_start(start: Any, n: int | None, space: LatentSpace) -> EditStart:
    """Return the latents that an edit starts from.

    Args:
        start: a seed, a list of seeds, latents z (n, z_dim), a `Result` or a `SavedResult`. Pictures are refused: they
            must be inverted first.
        n: number of pictures, if `start` is one seed; by default 1. For other starts it must be `None`.
        space: the latent space of the model.

    Raises:
        ArgumentError: `start` is of another type, or does not fit the model; or `n` is set, and `start` is not one
            seed.
    """
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
    """Return the kind of noise with which an edit draws pictures ("const", "random" or "none"), and the noise's seed.

    Args:
        facts: the provenance of the `Result` that is edited; empty for any other start.
        seed: the seed of random noise, used if the provenance has none.
        noise: the kind of noise; `None` for the kind in the provenance, or "const" if the provenance has none.

    Raises:
        ArgumentError: the `Result` was joined from results with different kinds of noise, or from results with random
            noise of different seeds.
    """
    kind, seed = noise or facts.get("noise", DEFAULT_NOISE), facts.get("seed", seed)
    joined = isinstance(seed, list)
    if isinstance(kind, list) or (kind == RANDOM_NOISE and joined):
        raise ArgumentError("the result was joined from runs of different noise", hint='give noise="const"')
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
