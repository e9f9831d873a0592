"""Elements of HTML and SVG as text, in which all text but markup is escaped; tables of Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from markupsafe import Markup

__all__ = ["Markup", "clean", "element", "markdown_table"]

# Characters that no HTML or XML document may hold, even escaped; titles in files or names of models may hold them.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def clean(value: object) -> object:
    """Return a text with U+FFFD for each character that no document may hold; markup and other values unchanged."""
    return _FORBIDDEN.sub("\ufffd", value) if isinstance(value, str) and not isinstance(value, Markup) else value


def element(name: str, *children: str | None, **attributes: str | float | None) -> Markup:
    """Return one element, well-formed as HTML and as XML.

    Args:
        name: name of the element, such as "rect".
        children: markup or text; text is escaped, `None` is left out.
        attributes: value of each attribute; `None` leaves the attribute out, and a float has at most 10 digits. In
            names, `_` stands for `-`, and is added to keywords of Python (`class_`).
    """
    pairs = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escape(f"{value:.10g}" if isinstance(value, float) else str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name == "img":
        return Markup(f"<{name}{pairs}/>")
    content = "".join(_escape(child) for child in children if child is not None)
    return Markup(f"<{name}{pairs}>{content}</{name}>")


def _escape(text: str) -> str:
    """Return markup unchanged, and other text cleaned and escaped."""
    return text if isinstance(text, Markup) else html.escape(str(clean(text)))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table: the first column is aligned left, all others, of numbers, right."""
    head = [f"| {' | '.join(header)} |", f"|---|{'---:|' * (len(header) - 1)}"]
    return head + [f"| {' | '.join(row)} |" for row in rows]
