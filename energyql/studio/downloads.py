"""Contents of the files that can be downloaded from a job. The method `save` of a result writes most of them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from energyql.gallery import page
from energyql.gallery.page import QuerySection
from energyql.logic.satisfiability import noting_tautologies
from energyql.pipeline.queries import ListedQuery, check
from energyql.pipeline.result import Result
from energyql.render.pictures import label_grid, png_bytes
from energyql.studio.jobs import Job
from energyql.studio.problems import StudioError
from energyql.studio.results import JobResult


def picture(job: Job, outcome: JobResult, position: int) -> bytes:
    """Return one picture as PNG in full size.

    The text field "energyql" of the file is the provenance of the picture (query, seed, settings) as JSON.

    Args:
        job: the job.
        outcome: the result of the job so far.
        position: position of the picture in the job, from 0.

    Raises:
        StudioError: the job has no picture at this position, or the picture is not drawn yet.
    """
    if len(outcome.pictures) <= position < outcome.total and not job.over:
        raise StudioError("NotReady", f"picture {position} is not drawn yet", hint="ask again when the request is done")
    result, row = outcome.locate(position)
    with tempfile.TemporaryDirectory() as folder:
        return (result[row].save(folder) / "00000.png").read_bytes()


def grid(job: Job, outcome: JobResult) -> bytes:
    """Return one PNG that shows all pictures of a job.

    A finished edit is shown as a filmstrip, with a column for each step. A photograph is shown beside its
    reconstruction. Any other job is shown as a grid. If the job has several results, as a table or a gallery has, the
    caption of a picture is its query. If the job has a single result, the captions are probabilities (or energies) and
    verdicts, and the PNG also holds the provenance of the result.

    Args:
        job: the job.
        outcome: the result of the job.

    Raises:
        StudioError: the job has not ended, or ended before its first picture.
    """
    results = _finished(job, outcome)
    if outcome.photograph is not None:
        return png_bytes(outcome.photograph.comparison())
    if outcome.edit is None and len(results) > 1:
        captions = [picture.query for picture in outcome.pictures]
        images = [image for result in results for image in result.images]
        return png_bytes(label_grid(images, captions=captions, columns=len(results[0])))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grid.png"
        return (results[-1].save(path) if outcome.edit is None else outcome.edit.save_filmstrip(path)).read_bytes()


def provenance(job: Job, outcome: JobResult) -> list[dict[str, Any]]:
    """Return the provenance of each result of a job: a dict with the query, the seed and the settings.

    The entry "index" of a dict lists the numbers that the pictures of the result have in their run.

    Args:
        job: the job.
        outcome: the result of the job.

    Raises:
        StudioError: the job has not ended, or ended before its first picture.
    """
    return [result.provenance | {"index": result.index.tolist()} for result in _finished(job, outcome)]


def archive(job: Job, outcome: JobResult) -> bytes:
    """Return a ZIP of everything that a job made: pictures, latents, verdicts and provenance.

    For a table, a traversal or a gallery, the ZIP holds the page, `index.html`, and a folder for each result. For any
    other job, the ZIP holds one folder, which the method `save` of the result, the finished edit or the inverted
    photograph writes. For an edit that ended early, the folder holds only the pictures that were added last.

    Args:
        job: the job.
        outcome: the result of the job.

    Raises:
        StudioError: the job has not ended, or ended before its first picture.
    """
    results = _finished(job, outcome)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "energyql"
        if outcome.sections:
            root.mkdir()
            (root / "index.html").write_bytes(gallery(job, outcome))
            for number, result in enumerate(results):
                result.save(root / f"{number:02d}")
        else:
            (outcome.edit or outcome.photograph or results[-1]).save(root)
        return Path(shutil.make_archive(f"{temporary}/all", "zip", temporary, root.name)).read_bytes()


def gallery(job: Job, outcome: JobResult, title: str = "") -> bytes:
    """Return the gallery page of a drawing, a table, a traversal or a gallery, as HTML in UTF-8.

    Args:
        job: the job.
        outcome: the result of the job.
        title: title of the page; by default it names the model.

    Raises:
        StudioError: the job is an edit, variations or a photograph; or it has not ended, or ended before its first
            picture.
    """
    sections, results = list(outcome.sections), _finished(job, outcome)
    if outcome.kind == "draw":
        facts = results[0].provenance
        with noting_tautologies():
            query = check(ListedQuery(facts["query"]), outcome.vocabulary, facts["semantics"])
        sections = [QuerySection(results[0], query, outcome.joined, outcome.clauses)]
    if not sections:
        raise StudioError("NotKept", "only queries, tables and traversals have a gallery page")
    return page.render(sections, title=title).encode()


def _finished(job: Job, outcome: JobResult) -> list[Result]:
    """Return the results of a job that has ended, at least one.

    Args:
        job: the job.
        outcome: the result of the job.

    Raises:
        StudioError: the job has not ended, or ended before its first picture.
    """
    if not job.over:
        raise StudioError("NotReady", "the request is not done yet", hint="ask again when it is")
    if not outcome.results:
        raise StudioError("NotKept", "the request ended before its first picture", hint="send it again")
    return outcome.results
