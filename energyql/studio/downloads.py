"""Files to download, written as `Result.save` and `Edit.save` write them."""

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


def picture(job: Job, drawn: JobResult, position: int) -> bytes:
    """Return one picture as PNG in full size; its text field "energyql" holds the provenance.

    Raises:
        StudioError: there is no such picture, or it is not drawn yet.
    """
    found = drawn.locate(position) if position >= 0 else None
    if found is None:
        if 0 <= position < drawn.total and not job.over:
            raise StudioError(
                "NotReady", f"picture {position} is not drawn yet", hint="ask again when the request is done"
            )
        raise StudioError(
            "NotKept", f"there is no picture {position}", hint=f"there are {len(drawn.pictures)}, counted from 0"
        )
    result, row = found
    with tempfile.TemporaryDirectory() as folder:
        return (result[row].save(folder) / "00000.png").read_bytes()


def grid(job: Job, drawn: JobResult) -> bytes:
    """Return all pictures with captions and verdicts as one PNG; of an edit its filmstrip, of a photograph both.

    That of one result holds its provenance.
    """
    results = _finished(job, drawn)
    if drawn.photograph is not None:
        return png_bytes(drawn.photograph.comparison())
    if drawn.edit is None and len(results) > 1:
        captions = [picture.query for picture in drawn.pictures]
        images = [image for result in results for image in result.images]
        return png_bytes(label_grid(images, captions=captions, columns=len(results[0])))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grid.png"
        return (results[-1].save(path) if drawn.edit is None else drawn.edit.save_filmstrip(path)).read_bytes()


def provenance(job: Job, drawn: JobResult) -> list[dict[str, Any]]:
    """Return the provenance: a list with an entry for each query that was drawn."""
    return [result.provenance | {"index": result.index.tolist()} for result in _finished(job, drawn)]


def archive(job: Job, drawn: JobResult) -> bytes:
    """Return a ZIP of the folders that `save` writes: of a result, an edit, an inversion, or a gallery with results."""
    results = _finished(job, drawn)
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as temporary, zipfile.ZipFile(buffer, "w") as packed:
        root = Path(temporary)
        if drawn.sections:
            (root / "index.html").write_bytes(gallery(job, drawn))
            for number, result in enumerate(results):
                result.save(root / f"{number:02d}")
        else:
            (drawn.edit or drawn.photograph or results[-1]).save(root)
        for path in sorted(root.rglob("*")):
            if path.is_file():
                packed.write(path, Path("energyql") / path.relative_to(root))
    return buffer.getvalue()


def gallery(job: Job, drawn: JobResult, title: str = "") -> bytes:
    """Return the gallery page of a table, a traversal, several queries or one, as HTML in UTF-8.

    Raises:
        StudioError: the job is an edit, variations or a photograph, or it is not done.
    """
    sections, results = list(drawn.sections), _finished(job, drawn)
    if drawn.kind == "draw":
        known = results[0].provenance
        with noting_tautologies():
            query = check(ListedQuery(known["query"]), drawn.vocabulary, known["semantics"])
        sections = [QuerySection(query, results[0], drawn.joined, drawn.clauses)]
    if not sections:
        raise StudioError("NotKept", "only queries, tables and traversals have a gallery page")
    return page.render(sections, title=title).encode()


def _finished(job: Job, drawn: JobResult) -> list[Result]:
    if not job.over:
        raise StudioError("NotReady", "the request is not done yet", hint="ask again when it is")
    if not drawn.results:
        raise StudioError("NotKept", "the request ended before its first picture", hint="send it again")
    return drawn.results
