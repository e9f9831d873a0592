"""The directive `notebook`: a Jupyter notebook in a page, run when the page is built, with what it prints and shows.

A cell shows what Jupyter would: what it prints, then the value of its last line. Cells are plain Python, without the
commands of IPython, and begin in an empty folder. A cell that raises fails the build.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

FENCE = "`" * 12


@contextmanager
def empty_folder() -> Iterator[None]:
    """Work in an empty folder until the block ends."""
    home = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(home)


def run_cell(code: str, place: str, names: dict[str, Any]) -> tuple[str, Any]:
    """Run a cell on shared names; return what it prints and the value of its last line, `None` if there is none."""
    body = ast.parse(code, place).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(ast.Module(body, []), place, "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), place, "eval"), names)
    return printed.getvalue(), value


def shown(value: Any, alt: str) -> str:
    """Return a value as HTML; `alt` describes a picture that does not describe itself."""
    if value is None:
        return ""
    if hasattr(value, "_repr_html_"):
        return str(value._repr_html_())
    if hasattr(value, "_repr_png_"):
        data = base64.b64encode(value._repr_png_()).decode()
        return f'<img src="data:image/png;base64,{data}" alt="{escape(alt or repr(value))}">'
    return f"<pre>{escape(repr(value))}</pre>"


def render(file: Path) -> str:
    """Run a notebook and return it as Markdown with the outputs of its cells.

    Raises:
        ExtensionError: a cell raises; the message says which, and the exception.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    parts = []
    with empty_folder():
        for number, cell in enumerate(json.loads(file.read_text(encoding="utf-8"))["cells"], 1):
            text = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                parts.append(text)
                continue
            place = f"{file.name}, cell {number}"
            try:
                printed, value = run_cell(text, place, names)
                output = (f"<pre>{escape(printed)}</pre>" if printed else "") + shown(
                    value, cell["metadata"].get("alt", "")
                )
            except Exception as error:
                raise ExtensionError(f"{place}: {type(error).__name__}: {error}", error) from error
            parts.append(f"{FENCE}python\n{text}\n{FENCE}")
            if output:
                parts.append(f'{FENCE}{{raw}} html\n<div class="cell-output">{output}</div>\n{FENCE}')
    return "\n\n".join(parts)


class Notebook(SphinxDirective):
    """`{notebook} PATH`, relative to the page, which has no other title."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the notebook as a part of the page."""
        _, file = self.env.relfn2path(self.arguments[0])
        self.env.note_dependency(file)
        return self.parse_text_to_nodes(render(Path(file)), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("notebook", Notebook)
    return {"parallel_read_safe": False}  # cells run in the working folder of the process
