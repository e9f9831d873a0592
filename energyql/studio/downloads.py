"""Content of the files that can be downloaded; it is that of the files of `Result.save` and `Edit.save`."""

from __future__ import annotations

import io
import tempfile
import zipfile
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
    """Return one picture as PNG in full size; its text field "energyql" holds the provenance.

    Args:
        job: the job.
        outcome: its result.
        position: position of the picture in the job, from 0.

    Raises:
        StudioError: there is no such picture, or it is not drawn yet.
    """
    place = outcome.locate(position) if position >= 0 else None
    if place is None:
        if 0 <= position < outcome.total and not job.over:
            raise StudioError(
                "NotReady", f"picture {position} is not drawn yet", hint="ask again when the request is done"
            )
        raise StudioError(
            "NotKept", f"there is no picture {position}", hint=f"there are {len(outcome.pictures)}, counted from 0"
        )
    result, row = place
    with tempfile.TemporaryDirectory() as folder:
        return (result[row].save(folder) / "00000.png").read_bytes()


def grid(job: Job, outcome: JobResult) -> bytes:
    """Return one PNG of all pictures with captions and verdicts; that of a single result holds its provenance.

    For an edit it is the filmstrip, for a photograph the comparison with its reconstruction.

    Raises:
        StudioError: the job is not done, or ended before its first picture.
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
    """Return the provenance of each result of a job.

    Raises:
        StudioError: the job is not done, or ended before its first picture.
    """
    return [result.provenance | {"index": result.index.tolist()} for result in _finished(job, outcome)]


def archive(job: Job, outcome: JobResult) -> bytes:
    """Return a ZIP of the folder that `save` writes for a result, an edit or an inversion.

    For a table, a traversal or a gallery it holds the page and a folder for each result.

    Raises:
        StudioError: the job is not done, or ended before its first picture.
    """
    results = _finished(job, outcome)
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as temporary, zipfile.ZipFile(buffer, "w") as bundle:
        root = Path(temporary)
        if outcome.sections:
            (root / "index.html").write_bytes(gallery(job, outcome))
            for number, result in enumerate(results):
                result.save(root / f"{number:02d}")
        else:
            (outcome.edit or outcome.photograph or results[-1]).save(root)
        for path in sorted(root.rglob("*")):
            if path.is_file():
                bundle.write(path, Path("energyql") / path.relative_to(root))
    return buffer.getvalue()


def gallery(job: Job, outcome: JobResult, title: str = "") -> bytes:
    """Return the gallery page of a drawing, a table, a traversal or a gallery, as HTML in UTF-8.

    Args:
        job: the job.
        outcome: its result.
        title: title of the page; by default it names the model.

    Raises:
        StudioError: the job is an edit, variations or a photograph, or it is not done.
    """
    sections, results = list(outcome.sections), _finished(job, outcome)
    if outcome.kind == "draw":
        facts = results[0].provenance
        with noting_tautologies():
            query = check(ListedQuery(facts["query"]), outcome.vocabulary, facts["semantics"])
        sections = [QuerySection(query, results[0], outcome.joined, outcome.clauses)]
    if not sections:
        raise StudioError("NotKept", "only queries, tables and traversals have a gallery page")
    return page.render(sections, title=title).encode()


def _finished(job: Job, outcome: JobResult) -> list[Result]:
    """Return the results of a job; raise a `StudioError` if it is not done or has none."""
    if not job.over:
        raise StudioError("NotReady", "the request is not done yet", hint="ask again when it is")
    if not outcome.results:
        raise StudioError("NotKept", "the request ended before its first picture", hint="send it again")
    return outcome.results
