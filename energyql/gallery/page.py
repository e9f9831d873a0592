"""The page: one HTML file with its style, script and pictures inside, which loads nothing."""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from energyql.attributes.doubt import DOUBT
from energyql.errors import ArgumentError
from energyql.files import as_path, check_writable
from energyql.gallery import words
from energyql.gallery.sections import QuerySection, Section, Traversal, TruthTable, judged_results, number_table
from energyql.pipeline.description import MARK
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
_TEMPLATES.globals |= {
    "words": words, "judged_results": judged_results, "number_table": number_table, "mark": MARK, "doubt": DOUBT
}  # fmt: skip


def summary(sections: Sequence[Section]) -> str:
    """Return one line: the number of pictures and of those that satisfy their query."""
    kinds = ((QuerySection, "query", "queries"), (TruthTable, "truth table", ""), (Traversal, "traversal", ""))
    counts = [(sum(isinstance(section, kind) for section in sections), one, several) for kind, one, several in kinds]
    parts = [words.plural(count, one, several) for count, one, several in counts if count]
    results = [result for section in sections for result in section.results]
    if not results:
        return ", ".join(parts) or "empty"
    parts.append(words.plural(sum(map(len, results)), "picture"))
    wanted = [result for section in sections for result in judged_results(section)]
    share = words.share(wanted)
    if share is None:
        return ", ".join(parts) + (f"; not judged: {wanted[0].provenance['unjudged']}" if wanted else "")
    satisfied, total = share
    verdict = f"{satisfied:,} of {total:,} satisfied ({words.percent(satisfied, total)})"
    left = sum(map(len, wanted)) - total
    others = f"; {words.plural(left, 'picture')} not judged" if left else ""
    return f"{', '.join(parts)}; {verdict}, says the {results[0].provenance['judge']}{others}"


def render(sections: Sequence[Section], *, title: str = "", about: str = "") -> str:
    """Return the page of some sections; by default its title names the model. `about` is text under the title."""
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
        about=[part for part in re.split(r"\n\s*\n", about) if part.strip()],
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
    """Return the name of an inline script or style in the security policy, which allows no other."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"


@cache
def _asset(name: str) -> Markup:
    return Markup(files("energyql.gallery").joinpath(name).read_text(encoding="utf-8"))


def page_path(path: str | Path) -> Path:
    """Return the path of the page that is saved as `path`.

    Raises:
        ArgumentError: nothing can be written there.
    """
    path = as_path(path)
    target = path
    if os.path.isdir(path) or not path.suffix:
        target = path / "index.html"
    elif path.suffix.lower() not in PAGE_SUFFIXES:
        raise ArgumentError(f"a gallery cannot be saved as {path.suffix}", hint="end the path in .html, or in /")
    if os.path.isdir(target):
        raise ArgumentError(f"cannot write {target}: it is a folder", hint="name a file")
    check_writable(target, target.parent)
    return target
