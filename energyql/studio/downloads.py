"""Files to download, written as `Result.save` and `Edit.save` write them."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from energyql.pipeline.result import Result
from energyql.studio.jobs import Job
from energyql.studio.problems import StudioError
from energyql.studio.results import JobResult


def picture(job: Job, drawn: JobResult, position: int) -> bytes:
    """Return one picture as PNG in full size; its text field "energyql" holds the provenance.

    Raises:
        StudioError: there is no such picture, or it is not drawn yet.
    """
    if not 0 <= position < len(drawn.pictures):
        if 0 <= position < drawn.total and not job.over:
            raise StudioError(
                "NotReady", f"picture {position} is not drawn yet", hint="ask again when the request is done"
            )
        raise StudioError(
            "NotKept", f"there is no picture {position}", hint=f"there are {len(drawn.pictures)}, counted from 0"
        )
    # A drawing is one result, and each step of an edit has its own.
    result = drawn.results[position] if drawn.kind == "edit" else drawn.results[0][position]
    with tempfile.TemporaryDirectory() as folder:
        return (result.save(folder) / "00000.png").read_bytes()


def grid(job: Job, drawn: JobResult) -> bytes:
    """Return all pictures with captions and verdicts as one PNG with provenance; of an edit, its filmstrip."""
    results = _finished(job, drawn)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grid.png"
        return (results[-1].save(path) if drawn.edit is None else drawn.edit.save_filmstrip(path)).read_bytes()


def provenance(job: Job, drawn: JobResult) -> list[dict[str, Any]]:
    """Return the provenance: a list with an entry for each query that was drawn."""
    return [result.provenance | {"index": result.index.tolist()} for result in _finished(job, drawn)]


def archive(job: Job, drawn: JobResult) -> bytes:
    """Return a ZIP of the folder that `Result.save` or `Edit.save` writes."""
    results = _finished(job, drawn)
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as temporary, zipfile.ZipFile(buffer, "w") as packed:
        root = Path(temporary)
        (results[-1] if drawn.edit is None else drawn.edit).save(root)
        for path in sorted(root.rglob("*")):
            if path.is_file():
                packed.write(path, Path("energyql") / path.relative_to(root))
    return buffer.getvalue()


def _finished(job: Job, drawn: JobResult) -> list[Result]:
    if not job.over:
        raise StudioError("NotReady", "the request is not done yet", hint="ask again when it is")
    if not drawn.results:
        raise StudioError("NotKept", "the request ended before its first picture", hint="send it again")
    return drawn.results
