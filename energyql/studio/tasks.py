"""The work of each kind of job: drawing pictures, editing and varying them, photographs, tables, traversals, galleries.

Each function adds pictures to `result` and reports its progress to `job`, whose methods raise an error to end the work.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from energyql.editing.edit import Edit, edit
from energyql.editing.folder import SavedResult
from energyql.editing.invert import Inversion, invert
from energyql.editing.latents import Latents, LatentSpace
from energyql.errors import OutOfDomainError
from energyql.gallery.gallery import Gallery
from energyql.gallery.page import QuerySection, RefusedSection
from energyql.language import Expr
from energyql.logic.satisfiability import noting_tautologies
from energyql.pipeline.plan import Plan
from energyql.pipeline.propose import rows_of
from energyql.pipeline.read import show
from energyql.pipeline.result import Result
from energyql.pipeline.run import Count, run, run_latents
from energyql.progress import Report, quiet
from energyql.sampling import SampleResult, summarize
from energyql.sampling.traversal import vary
from energyql.studio.jobs import Job
from energyql.studio.problems import StudioError
from energyql.studio.results import JobResult
from energyql.studio.schemas import EditRequest, TraversalRequest, VariationsRequest

MOST_SPACES = 4
"""Largest number of `LatentSpace` objects, maps from latents z to latents w, in memory; the oldest is dropped first."""
_SPACES: dict[tuple[Any, ...], LatentSpace] = {}


@dataclass(frozen=True, eq=False)
class Start:
    """The pictures that an edit or variations begin with.

    Attributes:
        plan: compiled query with the model and settings: `query` for pictures of a run, TRUE for those of a job.
        count: number of pictures.
        read: draws the pictures or looks them up; only their latents (`SavedResult`) if they are from several results.
        query: query that the pictures were drawn for.
        inversion: for the reconstruction of a photograph, the photograph and its latents.
    """

    plan: Plan
    count: int
    read: Callable[[Job], Result | SavedResult]
    query: str
    inversion: Inversion | None = None


def held_pictures(result: JobResult, positions: Sequence[int]) -> Result | SavedResult:
    """Return pictures of a job; only their latents, as a `SavedResult`, if they are in several results.

    Args:
        positions: positions in the job, from 0; empty for the last step of an edit, or all pictures of any other job.

    Raises:
        StudioError: the job has no such picture, or no picture yet.
    """
    results = result.results
    if not results:
        raise StudioError("NotReady", "the job has no picture yet", hint="ask again when the request is done")
    if not positions:
        count = sum(map(len, results))
        positions = range(count - len(results[-1]) if result.kind == "edit" else 0, count)
    places = [result.locate(position) for position in positions]
    first = places[0][0]
    if all(owner is first for owner, _ in places):
        return first[[row for _, row in places]]
    w = [owner.w[row] for owner, row in places]
    layered = max(w, key=torch.Tensor.dim)  # some may be in W, others in W+
    z, index = torch.stack([owner.z[row] for owner, row in places]), [owner.index[row] for owner, row in places]
    return SavedResult(
        z, torch.stack([part.expand_as(layered) for part in w]), np.array(index, np.int64), first.provenance
    )


def shared_space(plan: Plan) -> LatentSpace:
    """Map from latents z to w for the model, truncation and condition of a query.

    Jobs share it, because it holds a copy of the mapping network.
    """
    truncation, condition = plan.provenance["truncation"], plan.provenance["condition"]
    key = id(plan.model), truncation, condition  # unique: a space keeps its model alive
    if key not in _SPACES:
        while len(_SPACES) >= MOST_SPACES:
            _SPACES.pop(next(iter(_SPACES)))
        _SPACES[key] = LatentSpace(plan.model, truncation, condition)
    return _SPACES[key]


FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
"""Media type -> Pillow format of pictures that are read; no other decoder is called."""


@contextmanager
def opened_picture(data: bytes, most: int) -> Iterator[Image.Image]:
    """Open a picture, of which only the header is read; the block of `with` may decode the pixels.

    Raises:
        StudioError: the data is damaged, no PNG, JPEG or WebP, or has more than `most` pixels.
    """
    try:
        with Image.open(io.BytesIO(data), formats=list(FORMATS.values())) as opened:
            if opened.width * opened.height > most:
                raise Image.DecompressionBombError
            yield opened
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # from limits of Pillow
        message = f"the picture has more than {most / 1e6:g} million pixels"
        raise StudioError("TooLarge", message, hint="reduce it first") from None
    except Exception as error:  # decoders raise errors of many classes for damaged data
        message = "the picture cannot be read: it is damaged or of another kind"
        raise StudioError("InvalidRequest", message, hint="send a PNG, a JPEG or a WebP") from error


def read_photograph(data: bytes, most: int) -> Image.Image:
    """Decode a picture of at most `most` pixels as upright RGB (by its EXIF data); see `opened_picture` for errors."""
    with opened_picture(data, most) as opened:
        ImageOps.exif_transpose(opened, in_place=True)
        return opened.convert("RGB")


VERIFIED = 8
"""Number of verified pictures that are drawn and shown together."""
PART_PIXELS = 1 << 17
"""Number of pixels that are drawn at a time: eight pictures of 128 x 128."""


def draw_pictures(plan: Plan, n: int, first: int, job: Job, result: JobResult) -> None:
    """Draw pictures of a query, the same as `energyql.generate` draws, and add them to `result`, a few at a time.

    Args:
        first: number of the first picture in its run.
    """
    if plan.settings.verify != "off":
        for part in run(plan, Count(n, batch=VERIFIED), first=first, progress=job.report):
            result.extend(plan.expr, part)
        return
    started = time.perf_counter()
    sampled = SampleResult.join(list(run_latents(plan, n, first=first, progress=job.report)))
    ended = time.perf_counter()
    start, size = 0, 1  # the first part is one picture, which gives their size
    while start < n:
        job.report("drawing", start / n)
        rows = slice(start, min(start + size, n))
        numbers = np.arange(first + start, first + rows.stop)
        part = show(plan, rows_of(sampled, rows), numbers, quiet, batch_size=size)
        result.extend(plan.expr, part)
        start, size = rows.stop, max(1, PART_PIXELS // (part.images[0].width * part.images[0].height))
    job.report("drawing", 1.0)
    seconds = {"seconds_sampling": ended - started, "seconds_drawing": time.perf_counter() - ended}
    result.results[0].statistics.update(summarize(sampled) | seconds)


def edit_pictures(start: Start, request: EditRequest, job: Job, result: JobResult) -> None:
    """Edit pictures as `energyql.edit` does; add the unedited pictures, the pictures after each step, and the edit."""
    pictures = start.read(job)
    if isinstance(pictures, Result):  # shown while the steps are edited
        result.add_step(pictures)
    edited = _edit(
        start, pictures, request.steps, request.keep, job, mode=request.mode, layers=request.layers,
        strength=request.edit_strength,
    )  # fmt: skip
    if not isinstance(pictures, Result):
        result.add_step(edited.start)
    for step, leaks in zip(edited.steps, edited.leaks, strict=True):
        result.add_step(step, leaks)
    result.edit = replace(edited, inversion=start.inversion)


def vary_pictures(start: Start, request: VariationsRequest, query: str, job: Job, result: JobResult) -> None:
    """Draw variations of pictures, and add them to `result`.

    Each begins at a random mixture of the latents of the pictures, moved towards a new random latent by the share
    `request.amount`. It is then edited to satisfy `query`; all other attributes may change.
    """
    space, pictures = shared_space(start.plan), start.read(job)
    latents = space.from_w(pictures.z.to(space.model.device), pictures.w.to(space.model.device))
    z, weights = vary(latents.z, request.n, request.amount, request.variation_seed)
    offset = None if latents.offset is None else torch.tensordot(weights, latents.offset, 1)
    facts = {"amount": request.amount, "seed": request.variation_seed, "of": pictures.index.tolist()}
    with torch.no_grad():
        w = space.w(Latents(z, offset)).cpu()
    mixtures = SavedResult(z.cpu(), w, np.arange(request.n), pictures.provenance | {"variations": facts})
    result.add_step(_edit(start, mixtures, [query], [], job).final)


def _edit(
    start: Start, pictures: Result | SavedResult, steps: Sequence[str], keep: list[str] | None, job: Job, **options: Any
) -> Edit:
    plan = start.plan
    with noting_tautologies():
        edited = edit(
            pictures, steps, model=plan.model, device=str(plan.device), semantics=plan.settings.semantics,
            allow_weak=plan.settings.allow_weak, keep="everything" if keep is None else keep, progress=job.report,
            **options,
        )  # fmt: skip
    return replace(edited, space=shared_space(plan))


def invert_photograph(
    plan: Plan, photograph: Callable[[], Image.Image], anyway: bool, job: Job, result: JobResult
) -> None:
    """Find the latents of a photograph as `energyql.invert` does, and add the picture of the latents to `result`.

    Args:
        plan: a compiled query, of which only the model, device and truncation are used.
        photograph: decodes the photograph; called in the job, so that only one decoded photograph is in memory.

    Raises:
        OutOfDomainError: the generator cannot draw the photograph, and `anyway` is False.
    """
    try:
        inversion = invert(
            photograph(), model=plan.model, truncation=plan.settings.truncation, device=str(plan.device),
            anyway=anyway, progress=job.report,
        )  # fmt: skip
    except OutOfDomainError as error:
        error.hint = "crop it like the pictures of the generator, or edit it anyway"
        raise
    result.add_photograph(inversion)


def draw_table(gallery: Gallery, literals: Sequence[Expr], job: Job, result: JobResult) -> None:
    """Draw every combination of some literals, and add the rows of the table to `result` when all are drawn."""
    gallery.progress = _only("table", job)
    table = gallery.add_truth_table(*literals, n=gallery.n)
    result.literals, result.total = list(table.literals), sum(map(len, table.results))
    for row in table.rows:
        result.add_row(row.result, row.query, row.values, row.reason)
    result.sections = gallery.sections


def draw_traversal(gallery: Gallery, request: TraversalRequest, job: Job, result: JobResult) -> None:
    """Draw paths from pictures of one query to pictures of another; add the paths to `result` when all are drawn."""
    gallery.progress = _only("traversal", job)
    result.add_paths(gallery.add_traversal(request.start, request.end, request.steps, n=gallery.n))
    result.sections = gallery.sections


def draw_gallery(gallery: Gallery, queries: Sequence[str], job: Job, result: JobResult) -> None:
    """Draw pictures of several queries; add the pictures of each query to `result` as soon as they are drawn."""
    gallery.progress, result.sections = job.report, gallery.sections
    for query in queries:
        (pictures,) = gallery.add_all([query])
        section = gallery.sections[-1]
        assert isinstance(section, QuerySection | RefusedSection)
        reason = section.reason if isinstance(section, RefusedSection) else ""
        result.total -= gallery.n if pictures is None else 0
        result.add_row(pictures, str(section.query.expr), reason=reason)


def _only(stage: str, job: Job) -> Report:
    """Progress function that reports one stage to `job`; at other stages it only checks whether the job is to end."""
    return lambda name, fraction: job.report(name, fraction) if name == stage else job.check()


@contextmanager
def checking_each_layer(network: object, check: Callable[[], None]) -> Iterator[None]:
    """Call `check` before every layer of a network while the block runs, so that an error of it ends the computation.

    Checks between pictures would be too rare: a large network takes longer than a second for a picture. A network that
    is no torch module is not interrupted.
    """
    modules = list(network.modules()) if isinstance(network, torch.nn.Module) else []
    handles = [module.register_forward_pre_hook(lambda module, arguments: check()) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
