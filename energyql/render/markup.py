"""Elements of HTML and SVG as text, with everything escaped that is not markup already; tables of Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from markupsafe import Markup

__all__ = ["Markup", "clean", "element", "markdown_table"]

# Characters that no HTML or XML document may hold, in any spelling; a title in a file or a model's name may hold them.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def clean(value: object) -> object:
    """Return a text with each character that no document may hold replaced by U+FFFD; any other value as it is."""
    return _FORBIDDEN.sub("\ufffd", value) if isinstance(value, str) and not isinstance(value, Markup) else value


def element(name: str, *children: str | None, **attributes: str | float | None) -> Markup:
    """Return one element, well-formed as HTML and as XML.

    Args:
        name: of the element.
        children: markup or text; text is escaped, `None` is left out.
        attributes: by name, with `_` for `-` and at the end of Python's keywords (`class_`); `None` leaves the
            attribute out; a float is written with at most 10 digits.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_escape(f"{value:.10g}" if isinstance(value, float) else str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name == "img":
        return Markup(f"<{name}{shown}/>")
    content = "".join(_escape(child) for child in children if child is not None)
    return Markup(f"<{name}{shown}>{content}</{name}>")


def _escape(text: str) -> str:
    return text if isinstance(text, Markup) else html.escape(str(clean(text)))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table whose first column is text and whose others are numbers."""
    head = [f"| {' | '.join(header)} |", f"|---|{'---:|' * (len(header) - 1)}"]
    return head + [f"| {' | '.join(row)} |" for row in rows]
