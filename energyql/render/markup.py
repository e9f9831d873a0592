"""HTML and SVG as strings that are escaped unless they say that they are markup already."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta"})
"""HTML elements that have no content and no end tag."""

# What no HTML or XML document may hold, in whatever spelling; a title in a file or a model's name may hold it.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")

Value = str | int | float | bool | None


class Markup(str):
    """Text that is HTML already and is taken as it is. Everything else is escaped on its way in."""

    __slots__ = ()


def escape(text: str) -> Markup:
    """Text as markup that shows it: `<script>` becomes harmless. Markup stays as it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(_FORBIDDEN.sub("\ufffd", text)))


def join(parts: Iterable[str], between: str = "") -> Markup:
    """Parts one after the other, each escaped unless it is markup."""
    return Markup(escape(between).join(escape(part) for part in parts))


def element(name: str, *children: str | None, **attributes: Value) -> Markup:
    """One element; it is well-formed as HTML and as XML.

    Args:
        name: of the element.
        children: markup or text; text is escaped, `None` is left out.
        attributes: by name, with `_` for `-` and at the end of Python's keywords (`class_`); `None` and `False` leave
            the attribute out, `True` gives it no value.
    """
    shown = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in VOID:
        return Markup(f"<{name}{shown}/>")
    return Markup(f"<{name}{shown}>{join([child for child in children if child is not None])}</{name}>")


def _attribute(key: str, value: Value) -> str:
    if value is None or value is False:
        return ""
    if value is True:
        value = ""
    elif isinstance(value, float):
        value = f"{value:.10g}"
    return f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
