"""The work of a job: the pictures that it begins with, drawing, editing and varying them, photographs, galleries.

Each function adds pictures to `result`. It reports the progress to `job`, which raises an error to end the work.
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
from energyql.language import Expr
from energyql.logic.satisfiability import noting_tautologies
from energyql.pipeline.draw import PreparedQuery
from energyql.pipeline.queries import CheckedQuery
from energyql.pipeline.result import Result
from energyql.progress import Report
from energyql.sampling import SampleResult, summarize
from energyql.sampling.traversal import vary
from energyql.studio.jobs import Job
from energyql.studio.problems import StudioError
from energyql.studio.results import JobResult
from energyql.studio.schemas import EditRequest, Row, TraversalRequest, VariationsRequest

MOST_SPACES = 4
"""Largest number of latent spaces that are kept, one for each model, truncation and label."""
_SPACES: dict[tuple[Any, ...], LatentSpace] = {}


@dataclass(frozen=True, eq=False)
class RunPictures:
    """Pictures of a run, which are drawn when they are read.

    Attributes:
        prepared: the query of the run.
        numbers: their numbers in the run.
        inversion: always `None`; see `HeldPictures`.
    """

    prepared: PreparedQuery
    numbers: Sequence[int]
    inversion: Inversion | None = None

    def read(self, job: Job) -> Result:
        """Draw and return the pictures, those of `energyql.generate`; `job` receives the progress."""
        parts = []
        for done, number in enumerate(self.numbers):

            def share(stage: str, fraction: float, done: int = done) -> None:
                job.report(stage, (done + fraction) / len(self.numbers))

            parts.append(self.prepared.run(1, first=number, progress=share))
        return Result.join(parts)


@dataclass(frozen=True, eq=False)
class HeldPictures:
    """Pictures of another job.

    Attributes:
        prepared: a query with their settings.
        pictures: the pictures; of several results only the latents, because these have no common verdict.
        inversion: the inversion of a photograph, if they are its reconstruction.
    """

    prepared: PreparedQuery
    pictures: Result | SavedResult
    inversion: Inversion | None

    def read(self, job: Job) -> Result | SavedResult:
        """Return the pictures."""
        return self.pictures


Pictures = RunPictures | HeldPictures


def held_pictures(result: JobResult, positions: Sequence[int]) -> tuple[Result | SavedResult, Inversion | None]:
    """Return pictures of a job, and the inversion if they are the reconstruction of a photograph.

    Args:
        result: the result of the job.
        positions: positions of the pictures; empty for those of the last step of an edit, or all of any other job.

    Raises:
        StudioError: the job has no such picture, or none yet.
    """
    results, positions = result.results, list(positions)
    if not results:
        raise StudioError("NotReady", "the job has no picture yet", hint="ask again when the request is done")
    if not positions:
        count = sum(map(len, results))
        positions = list(range(count - len(results[-1]) if result.kind == "edit" else 0, count))
    located = [result.locate(position) for position in positions]
    places = [place for place in located if place is not None]
    if len(places) < len(located):
        missing = positions[located.index(None)]
        hint = f"there are {len(result.pictures)}, counted from 0"
        raise StudioError("NotKept", f"there is no picture {missing}", hint=hint)
    first, rows = places[0][0], [row for _, row in places]
    if all(owner is first for owner, _ in places):
        return first[rows], result.photograph
    w = [owner.w[row] for owner, row in places]
    if layered := [part for part in w if part.ndim == 2]:  # some in W, others in W+
        w = [part if part.ndim == 2 else part.expand_as(layered[0]) for part in w]
    z, index = torch.stack([owner.z[row] for owner, row in places]), [owner.index[row] for owner, row in places]
    return SavedResult(z, torch.stack(w), np.array(index, np.int64), first.provenance), None


def shared_space(prepared: PreparedQuery) -> LatentSpace:
    """Return the latent space for a query's settings; jobs share it, because it holds a copy of the mapping network."""
    facts = prepared.provenance
    key = id(prepared.model), facts["truncation"], facts["label"]  # unique: a space keeps its model alive
    if key not in _SPACES:
        while len(_SPACES) >= MOST_SPACES:
            _SPACES.pop(next(iter(_SPACES)))
        _SPACES[key] = LatentSpace(prepared.model, facts["truncation"], facts["label"])
    return _SPACES[key]


FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
"""Media type -> format of pictures that are read; no other decoder is called."""


def check_photograph(data: bytes, most: int) -> None:
    """Read the header of a picture, to refuse a wrong one at once.

    Args:
        data: content of the file.
        most: largest number of pixels.

    Raises:
        StudioError: the data is no PNG, JPEG or WebP, or has more pixels.
    """
    with _opened(data, most):
        pass


def read_photograph(data: bytes, most: int) -> Image.Image:
    """Return a picture, upright.

    Args:
        data: content of the file.
        most: largest number of pixels.

    Raises:
        StudioError: the data is no PNG, JPEG or WebP, is damaged, or has more pixels.
    """
    with _opened(data, most) as opened:
        ImageOps.exif_transpose(opened, in_place=True)
        return opened.convert("RGB")


def text_of(data: bytes, most: int) -> str:
    """Return the text field "energyql" of a PNG; empty if it has none. Pixels are not decoded.

    Args:
        data: content of the file.
        most: largest number of pixels.

    Raises:
        StudioError: the data is no picture, or has more pixels.
    """
    with _opened(data, most) as opened:
        text = opened.info.get("energyql", "")
        return text if isinstance(text, str) else ""


@contextmanager
def _opened(data: bytes, most: int) -> Iterator[Image.Image]:
    """Yield a picture; any error of a decoder inside the block becomes a `StudioError`."""
    try:
        with Image.open(io.BytesIO(data), formats=list(FORMATS.values())) as opened:
            if opened.width * opened.height > most:
                raise Image.DecompressionBombError
            yield opened
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # from limits of Pillow
        message = f"the picture has more than {most / 1e6:g} million pixels"
        raise StudioError("TooLarge", message, hint="reduce it first") from None
    except StudioError:
        raise
    except Exception as error:  # decoders raise errors of many classes for damaged data
        hint = "send a PNG, a JPEG or a WebP"
        raise StudioError(
            "InvalidRequest", "the picture cannot be read: it is damaged or of another kind", hint=hint
        ) from error


PART_PIXELS = 1 << 17
"""Pixels drawn in one part: eight pictures of 128 x 128, about 0.3 seconds on one core."""


def draw_pictures(prepared: PreparedQuery, n: int, first: int, job: Job, result: JobResult) -> None:
    """Draw the pictures of a query that `energyql.generate` draws, and add them to `result` a few at a time.

    Args:
        prepared: the query.
        n: number of pictures.
        first: number of the first picture in its run.
        job: receives the progress, and raises an error to end the work.
        result: receives the pictures.
    """
    started = time.perf_counter()
    with interruptible(prepared.model.generator, job.check):
        sampled = SampleResult.join(list(prepared.latents(n, first=first, progress=job.report)))
        ended = time.perf_counter()
        start, size = 0, 1  # the first part is one picture, which gives their size
        while start < n:
            job.report("drawing", start / n)
            rows = range(start, min(start + size, n))
            smaller = replace(prepared, settings=replace(prepared.settings, batch_size=size))
            here = slice(start, rows.stop)
            latents = SampleResult(
                sampled.z[here], sampled.status[here], sampled.evaluations[here], sampled.gradients[here]
            )
            part = smaller.show(latents, first + np.asarray(rows), lambda stage, fraction: None)
            result.extend(prepared.expr, part)
            width, height = part.images[0].size
            start, size = rows.stop, max(1, PART_PIXELS // (width * height))
    job.report("drawing", 1.0)
    seconds = {"seconds_sampling": ended - started, "seconds_drawing": time.perf_counter() - ended}
    result.results[0].statistics.update(summarize(sampled) | seconds)


def edit_pictures(start: Pictures, request: EditRequest, job: Job, result: JobResult) -> None:
    """Edit pictures as `energyql.edit` does; add those of the start, then those after each step, to `result`."""
    with interruptible(start.prepared.model.generator, job.check):
        begun = start.read(job)
        if isinstance(begun, Result):
            result.add_step(begun)
        edited = _edit(
            start, begun, request.steps, request.keep, job, mode=request.mode, layers=request.layers,
            strength=request.edit_strength,
        )  # fmt: skip
    if not isinstance(begun, Result):
        result.add_step(edited.start)
    for step, leaks in zip(edited.steps, edited.leaks, strict=True):
        result.add_step(step, leaks)
    result.finish_edit(replace(edited, inversion=start.inversion))


def vary_pictures(start: Pictures, request: VariationsRequest, query: str, job: Job, result: JobResult) -> None:
    """Draw variations of pictures, and add them to `result`: mixtures, edited to satisfy `query` with nothing kept."""
    space = shared_space(start.prepared)
    with interruptible(start.prepared.model.generator, job.check):
        begun, device = start.read(job), space.model.device
        latents = space.from_w(begun.z.to(device), begun.w.to(device))
        z, weights = vary(latents.z, request.n, request.amount, request.variation_seed)
        offset = None if latents.offset is None else torch.tensordot(weights, latents.offset, 1)
        facts = {"amount": request.amount, "seed": request.variation_seed, "of": begun.index.tolist()}
        with torch.no_grad():
            w = space.w(Latents(z, offset)).cpu()
        moved = SavedResult(z.cpu(), w, np.arange(request.n), begun.provenance | {"variations": facts})
        edited = _edit(start, moved, [query], [], job)
    result.add_step(edited.final)


def invert_photograph(
    prepared: PreparedQuery, photograph: Callable[[], Image.Image], anyway: bool, job: Job, result: JobResult
) -> None:
    """Invert a photograph as `energyql.invert` does, and add its reconstruction to `result`.

    Args:
        prepared: a query with the settings.
        photograph: decodes the photograph; called here, so that only one decoded photograph is in memory at a time.
        anyway: accept a photograph that the generator cannot draw.
        job: receives the progress, and raises an error to end the work.
        result: receives the reconstruction.

    Raises:
        OutOfDomainError: the generator cannot draw the photograph.
    """
    with interruptible(prepared.model.generator, job.check):
        try:
            inversion = invert(
                photograph(), model=prepared.model, truncation=prepared.settings.truncation,
                device=str(prepared.device), anyway=anyway, progress=job.report,
            )  # fmt: skip
        except OutOfDomainError as error:
            hint = "crop it like the pictures of the generator, or edit it anyway"
            raise OutOfDomainError(error.message, hint=hint) from None
    result.add_photograph(inversion)


def _edit(
    start: Pictures, begun: Result | SavedResult, steps: Sequence[str], keep: list[str] | None, job: Job,
    **options: Any,
) -> Edit:  # fmt: skip
    settings = start.prepared.settings
    with noting_tautologies():
        edited = edit(
            begun, steps, model=start.prepared.model, device=str(start.prepared.device), semantics=settings.semantics,
            allow_weak=settings.allow_weak, keep="everything" if keep is None else keep, progress=job.report, **options,
        )  # fmt: skip
    return replace(edited, space=shared_space(start.prepared))


@contextmanager
def interruptible(network: object, check: Callable[[], None]) -> Iterator[None]:
    """Call `check` before every layer of a network while the block runs; an error that it raises ends the computation.

    A large network draws a picture for longer than a second, so checks between pictures would be too rare. A network
    that is no torch module is not interrupted.
    """
    modules = list(network.modules()) if isinstance(network, torch.nn.Module) else []
    handles = [module.register_forward_pre_hook(lambda module, arguments: check()) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def draw_table(gallery: Gallery, network: object, literals: Sequence[Expr], job: Job, result: JobResult) -> None:
    """Draw the combinations of checked literals, and add the rows to `result` in the end; see `interruptible`."""
    gallery.progress = _only("table", job)
    with interruptible(network, job.check):
        table = gallery.add_truth_table(*literals, n=gallery.n)
    result.literals, result.total = list(table.literals), sum(map(len, table.results))
    for row in table.rows:
        summary = "" if row.result is None else row.result.summary()
        result.add_row(Row(query=row.query, values=list(row.values), reason=row.reason, summary=summary), row.result)
    result.finish_sections(gallery.sections)


def draw_traversal(gallery: Gallery, network: object, request: TraversalRequest, job: Job, result: JobResult) -> None:
    """Draw paths from one query to another, and add them to `result` in the end; `network` is the generator."""
    gallery.progress = _only("traversal", job)
    with interruptible(network, job.check):
        traversal = gallery.add_traversal(request.start, request.end, request.steps, n=gallery.n)
    result.add_paths(traversal)
    result.finish_sections(gallery.sections)


def draw_gallery(
    gallery: Gallery, network: object, queries: Sequence[CheckedQuery], job: Job, result: JobResult
) -> None:
    """Draw several checked queries, and add each to `result` when it is drawn; `network` is the generator."""
    gallery.progress = job.report
    with interruptible(network, job.check):
        for query in queries:
            pictures = gallery.add(query.text, query.title)
            result.add_row(Row(query=str(query.expr), summary=pictures.summary()), pictures)
            result.finish_sections(gallery.sections)


def _only(stage: str, job: Job) -> Report:
    """Return a function that reports one stage to a job and ignores others; every call may end the work."""

    def report(name: str, fraction: float) -> None:
        if name == stage:
            job.report(name, fraction)
        job.check()

    return report
