"""Writing the result of an audit to the places where people see it."""

from __future__ import annotations

import re
from contextlib import nullcontext
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from energyql.auditing.report import Audit
from energyql.auditing.subject import Subject, gallery_page
from energyql.dataset.manifest import CARD, MANIFEST, PLAN
from energyql.dataset.shard import read_record
from energyql.files import read_json, saving, sole_writer, write_json, write_text
from energyql.pipeline.columns import COLUMNS
from energyql.pipeline.result import Result
from energyql.pipeline.result_folder import AUDIT, MOST_PICTURES, described, read_part, write_grid
from energyql.render.markup import element

_MARK = re.compile(r'<p class="audited">.*?</p>\n?', re.DOTALL)
_LINE = re.compile(r"^Audited: .*\n\n", re.MULTILINE)
_TABLE = "| class | number |"
"""Beginning of the table on the card of a data set, above which the line about the audit is written."""


def publish(subject: Subject, audit: Audit) -> None:
    """Write the result of an audit to `audit.json` in its folder, and where the audited pictures are shown.

    A line about the audit is added to the page of a gallery, to the card of a data set, or to the grid of a result. It
    replaces the line of an earlier audit.

    Raises:
        ArgumentError: a file cannot be written, or another process writes into the folder of the result.
    """
    assert subject.folder is not None  # a `Result` in memory is shown nowhere
    folder = Path(subject.name)
    marks = described(folder) if subject.kind == "result" else {}
    write_json(subject.folder / AUDIT.name, {"of": marks, **audit.to_dict()})
    text = f"audited: {audit}"
    if subject.kind == "gallery":
        page = gallery_page(folder)
        with nullcontext() if page == folder else sole_writer(folder, "the audit of a gallery"):
            html = _MARK.sub("", page.read_text(encoding="utf-8"))
            write_text(page, html.replace("</header>", f"{element('p', text, class_='audited')}\n</header>", 1))
    elif subject.kind == "data set":
        with sole_writer(folder, "the audit of a data set"):
            _write_card(folder, audit)
    elif subject.kind == "result":
        with sole_writer(folder, "the audit of a result"):
            first = Result(**read_part(folder, COLUMNS))[:MOST_PICTURES]
            provenance = first.provenance | {"audited": str(audit)}
            write_grid(folder, replace(first, audited=str(audit), provenance=provenance))


def _write_card(folder: Path, audit: Audit) -> None:
    """Write a line on a data set's card, and the card's checksum to the manifest: both, or neither if interrupted."""
    with saving(folder, lambda _: ()) as staged:
        old = _LINE.sub("", (folder / CARD).read_text(encoding="utf-8"))
        looked = f"by {audit.decided:,} pictures that people looked at"
        note = f"Audited: {audit} of the pictures satisfy their query, {looked}."
        content = old.replace(_TABLE, f"{note}\n\n{_TABLE}", 1).encode()
        (staged / CARD).write_bytes(content)
        plan = str(read_json(folder / PLAN)["fingerprint"])
        lines = []
        for line in (folder / MANIFEST).read_bytes().splitlines():
            record = read_record(line, plan)
            if record.file == CARD:
                record = replace(record, size=len(content), sha256=sha256(content).hexdigest())
            lines.append(record.to_json(plan) + "\n")
        (staged / MANIFEST).write_bytes("".join(lines).encode())
