"""Elements of HTML and SVG as `Markup`, and tables of Markdown.

`Markup` is a text of HTML that can be put into a page unchanged, because all text from elsewhere in it is escaped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from markupsafe import Markup

__all__ = ["Markup", "clean", "element", "markdown_table"]

# Characters that no HTML or XML document may hold, even escaped; titles in files or names of models may hold them.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def clean(value: object) -> object:
    """Replace characters that HTML forbids, such as U+0000, in a text by U+FFFD; `Markup` stays as it is."""
    return _FORBIDDEN.sub("\ufffd", value) if isinstance(value, str) and not isinstance(value, Markup) else value


def element(name: str, *children: str | None, **attributes: str | float | None) -> Markup:
    """One element, such as `<rect width="4"></rect>`, well-formed as HTML and as XML.

    Args:
        children: contents: `Markup`, or text, which is escaped. `None` is left out.
        attributes: name -> value; `None` leaves the attribute out. In names, `_` becomes `-`, and a last `_` is
            removed, so that `class_` stands for `class`.
    """
    pairs = ""
    for key, value in attributes.items():
        if value is not None:
            text = f"{value:.10g}" if isinstance(value, float) else str(value)
            pairs += f' {key.rstrip("_").replace("_", "-")}="{_escape(text)}"'
    if name == "img":
        return Markup(f"<{name}{pairs}/>")
    content = "".join(_escape(child) for child in children if child is not None)
    return Markup(f"<{name}{pairs}>{content}</{name}>")


def _escape(text: str) -> str:
    return text if isinstance(text, Markup) else html.escape(str(clean(text)))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; the first column is aligned left, and the others, for numbers, right."""
    head = [f"| {' | '.join(header)} |", f"|---|{'---:|' * (len(header) - 1)}"]
    return head + [f"| {' | '.join(row)} |" for row in rows]
