"""The page: one HTML file that needs nothing beside it, and nothing from anywhere."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from energyql.errors import ArgumentError
from energyql.gallery import words
from energyql.gallery.sections import QuerySection, Section, Traversal, TruthTable, judged_results
from energyql.gallery.tiles import number_table
from energyql.render.markup import Markup, clean, element
from energyql.version import __version__

PAGE_SUFFIXES = (".html", ".htm")
FRAME_HEIGHT = 720
"""Height of a page inside a notebook, in pixels."""

_TEMPLATES = Environment(
    loader=PackageLoader("energyql.gallery"),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=clean,
    trim_blocks=True,
    lstrip_blocks=True,
)
_FILTERS = (
    judged_results,
    number_table,
    words.draw_query,
    words.facts,
    words.plural,
    words.query_parts,
    words.settings,
    words.share,
    words.sort_key,
)
_TEMPLATES.filters |= {function.__name__: function for function in _FILTERS}


def summary(sections: Sequence[Section]) -> str:
    """One line: how many pictures there are and how many of them satisfy their query."""
    kinds = ((QuerySection, "query", "queries"), (TruthTable, "truth table", ""), (Traversal, "traversal", ""))
    counts = [(sum(isinstance(section, kind) for section in sections), one, several) for kind, one, several in kinds]
    parts = [words.plural(count, one, several) for count, one, several in counts if count]
    results = [result for section in sections for result in section.results]
    if not results:
        return ", ".join(parts) or "empty"
    parts.append(words.plural(sum(map(len, results)), "picture"))
    satisfied, total = words.share([result for section in sections for result in judged_results(section)])
    if not total:
        return ", ".join(parts)
    verdict = f"{satisfied:,} of {total:,} satisfied ({words.percent(satisfied, total)})"
    return f"{', '.join(parts)}; {verdict}, says the {results[0].provenance['judge']}"


def render(sections: Sequence[Section], *, title: str = "") -> str:
    """Return the page of some sections.

    Args:
        sections: from top to bottom.
        title: of the page; by default it names the model.
    """
    results = [result for section in sections for result in section.results]
    model = results[0].provenance["model"] if results else ""
    style, script = _asset("page.css"), _asset("page.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return _TEMPLATES.get_template("page.html").render(
        policy=policy,
        title=title or (f"Gallery of {model}" if model else "Gallery"),
        summary=summary(sections),
        sections=sections,
        version=__version__,
        style=style,
        script=script,
    )


def frame(html: str) -> Markup:
    """Return a page inside another one, for notebooks."""
    return element("iframe", srcdoc=html, width="100%", height=FRAME_HEIGHT, title="Gallery", style="border:0")


def _digest(text: str) -> str:
    """What the policy calls an inline script or style by: nothing else of the kind runs, whatever a query says."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"


@cache
def _asset(name: str) -> Markup:
    return Markup(files("energyql.gallery").joinpath(name).read_text(encoding="utf-8"))


def page_path(path: str | Path) -> Path:
    """Where the page goes that is saved as `path`.

    Raises:
        ArgumentError: nothing can be written there.
    """
    path = Path(path)
    if path.suffix.lower() in PAGE_SUFFIXES and not os.path.isdir(path):
        target = path
    elif path.suffix and not os.path.isdir(path):
        raise ArgumentError(f"a gallery cannot be saved as {path.suffix}", hint="end the path in .html, or in /")
    else:
        target = path / "index.html"
    if os.path.isdir(target):
        raise ArgumentError(f"cannot write {target}: it is a folder")
    folder = target.parent
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    if not os.path.isdir(folder):
        raise ArgumentError(f"cannot write {target}: {folder} is not a folder")
    if not os.access(folder, os.W_OK):
        raise ArgumentError(f"cannot write {target}: {folder} is not writable")
    return target
