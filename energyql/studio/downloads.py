"""Files to take home, made as `Result.save` makes them."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from energyql.pipeline.result import Result
from energyql.studio.answers import Answer
from energyql.studio.jobs import Job
from energyql.studio.problems import NotKept, NotReady


def picture(job: Job, answer: Answer, position: int) -> bytes:
    """One picture as PNG, all pixels of it; its text field "energyql" holds the provenance.

    Raises:
        NotKept: the answer has no such picture.
        NotReady: it is not drawn yet.
    """
    result = answer.select(position)
    if result is None:
        if 0 <= position < answer.total and not job.over:
            raise NotReady(f"picture {position} is not drawn yet", hint="ask again when the request is done")
        raise NotKept(f"there is no picture {position}", hint=f"there are {len(answer.pictures)}, counted from 0")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        result.save(path)
        return (path / "00000.png").read_bytes()


def grid(job: Job, answer: Answer) -> bytes:
    """All pictures with captions and verdicts as one PNG, provenance inside; of an edit, its filmstrip."""
    results = _finished(job, answer)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grid.png"
        return (results[-1].save(path) if answer.edit is None else answer.edit.save_filmstrip(path)).read_bytes()


def provenance(job: Job, answer: Answer) -> list[dict[str, Any]]:
    """What replays the answer: a list with an entry for each query that was drawn."""
    return [result.provenance | {"index": result.index.tolist()} for result in _finished(job, answer)]


def archive(job: Job, answer: Answer) -> bytes:
    """Everything as a ZIP: what `Result.save` or `Edit.save` writes into a folder."""
    results = _finished(job, answer)
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as temporary, zipfile.ZipFile(buffer, "w") as packed:
        root = Path(temporary)
        (results[-1] if answer.edit is None else answer.edit).save(root)
        for path in sorted(root.rglob("*")):
            if path.is_file():
                packed.write(path, Path("energyql") / path.relative_to(root))
    return buffer.getvalue()


def _finished(job: Job, answer: Answer) -> list[Result]:
    if not job.over:
        raise NotReady("the request is not done yet", hint="ask again when it is")
    if not answer.results:
        raise NotKept("the request ended before its first picture", hint="send it again")
    return answer.results
