"""Reads HTML as a strict parser: every element closed, in order; nothing from outside."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

from PIL import Image

VOID = {"br", "col", "hr", "img", "input", "link", "meta"}


class Document(HTMLParser):
    """The elements of a page as (name, attributes, text directly inside)."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(html)
        self.close()
        assert self._open == [], f"not closed: {[name for name, *_ in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute of {tag} is there twice"
        found = (tag, dict(attrs), [])
        self.elements.append(found)
        if tag not in VOID:
            self._open.append(found)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID or self._in_svg(), f"{tag} is closed in its start tag"
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self._open.pop()

    def _in_svg(self) -> bool:
        return any(name == "svg" for name, *_ in self._open)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        name = self._open.pop()[0]
        assert name == tag, f"</{tag}> closes <{name}>"

    def handle_data(self, data: str) -> None:
        if self._open:
            self._open[-1][2].append(data)

    def all(self, name: str, class_: str | None = None) -> list[dict[str, str | None]]:
        """The attributes of every element of a name, and of a class."""
        return [
            attributes
            for tag, attributes, _ in self.elements
            if tag == name and (class_ is None or class_ in (attributes.get("class") or "").split())
        ]

    def texts(self, name: str) -> list[str]:
        return ["".join(text) for tag, _, text in self.elements if tag == name]


def decode(uri: str) -> Image.Image:
    """The picture of a data URI."""
    kind, data = re.fullmatch(r"data:image/(webp|png);base64,([A-Za-z0-9+/=]+)", uri).groups()
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
        picture.load()
        assert picture.format.lower() == kind
        return picture
