"""Contents of the files that can be downloaded from a job.

A job that has not ended, or has no picture, raises a `StudioError`; a single picture can be had before the end.
"""

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
from energyql.render.pictures import Cell, label_grid, png_bytes
from energyql.studio.jobs import Job
from energyql.studio.problems import StudioError
from energyql.studio.results import JobResult


def picture(job: Job, outcome: JobResult, position: int) -> bytes:
    """One picture as PNG in full size, with its provenance as JSON in the text field "energyql" of the file.

    Raises:
        StudioError: the job has no picture at this position (from 0), or the picture is not drawn yet.
    """
    if len(outcome.pictures) <= position < outcome.total and not job.over:
        raise StudioError("NotReady", f"picture {position} is not drawn yet", hint="ask again when the request is done")
    result, row = outcome.locate(position)
    with tempfile.TemporaryDirectory() as folder:
        return (result[row].save(folder) / "00000.png").read_bytes()


def grid(job: Job, outcome: JobResult) -> bytes:
    """One PNG of all pictures of a job: a filmstrip of an edit, a photograph beside its reconstruction, else a grid.

    If a job has several results, as a table or a gallery has, the caption of a picture is its query. Else the captions
    are probabilities (or energies) and verdicts, and the PNG also holds the provenance.
    """
    results = _finished(job, outcome)
    if outcome.photograph is not None:
        return png_bytes(outcome.photograph.comparison())
    if outcome.edit is None and len(results) > 1:
        images = [image for result in results for image in result.images]
        cells = [Cell(image, drawn.query) for image, drawn in zip(images, outcome.pictures, strict=True)]
        return png_bytes(label_grid(cells, columns=len(results[0])))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grid.png"
        return (results[-1].save(path) if outcome.edit is None else outcome.edit.save_filmstrip(path)).read_bytes()


def records(job: Job, outcome: JobResult) -> list[dict[str, Any]]:
    """Provenance of each result of a job; the entry "index" lists the numbers that its pictures have in their run."""
    return [result.provenance | {"index": result.index.tolist()} for result in _finished(job, outcome)]


def archive(job: Job, outcome: JobResult) -> bytes:
    """ZIP of everything that a job made: pictures, latents, verdicts and provenance.

    For a table, a traversal or a gallery, it holds the page, `index.html`, and a folder for each result. For any other
    job, it holds what `save` writes of the result, the finished edit or the photograph; for an edit that ended early,
    only the pictures that were added last.
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
    """Gallery page of a drawing, a table, a traversal or a gallery, as HTML in UTF-8; other kinds are a `StudioError`.

    Args:
        title: title of the page; by default it names the model.
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
    """Results of a job that has ended, at least one; else a `StudioError`."""
    if not job.over:
        raise StudioError("NotReady", "the request is not done yet", hint="ask again when it is")
    if not outcome.results:
        raise StudioError("NotKept", "the request ended before its first picture", hint="send it again")
    return outcome.results
