"""How the documentation is built: `pip install -e ".[docs]"`, then `sphinx-build -W docs build/docs`.

Nothing is fetched when pages are read: no fonts, scripts or styles from elsewhere.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst.states import Inliner
from docutils.utils import unescape
from pygments.lexer import RegexLexer
from pygments.lexers.special import TextLexer
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String, Text
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole
from sphinx.ext.napoleon.docstring import GoogleDocstring

from energyql import __version__
from energyql.language.lexical import keywords

project = "energyql"
author = "the energyql authors"
copyright = "the energyql authors, Apache-2.0"
release = version = __version__

sys.path.insert(0, str(Path(__file__).parent))
extensions = [
    "myst_parser",
    "notebook",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]
myst_heading_anchors = 3

default_role = "code-or-name"  # what single backticks mean in docstrings; see below
add_module_names = False
autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
python_maximum_signature_line_length = 90
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"energyql {__version__}"
html_static_path = ["_static"]
html_css_files = ["energyql.css"]
html_copy_source = False
html_show_sphinx = False
html_show_search_summary = False  # they would be fetched, which a page from disk may not do
pygments_style = "tango"
pygments_dark_style = "github-dark"
copybutton_prompt_text = "$ "


class QueryLexer(RegexLexer):
    """Colours for boxes of queries."""

    name = "energyql query"
    aliases = ("query",)
    flags = re.MULTILINE
    tokens = {  # noqa: RUF012  (as Pygments wants it)
        "root": [
            (r"#.*$", Comment.Single),
            (r'"(?:[^"\\]|\\.)*"', String),
            (rf"(?i)\b(?:{'|'.join(sorted(keywords()))})\b", Keyword),
            (r"(?<![\w.])[+-]?(?:\d[\d.]*|\.\d+)(?:e[+-]?\d+)?", Number),
            (r"[^\W\d]\w*", Name),
            (r"[=!<>&|^~*±+-]+", Operator),
            (r"[(){}\[\],;]", Punctuation),
            (r"\s+", Text),
            (r".", Text),
        ]
    }


class PlainLexer(TextLexer):
    """For boxes that have no colours."""

    name = "plain"
    aliases = ("error", "csv")


def code_or_name(
    name: str, rawtext: str, text: str, lineno: int, inliner: Inliner, options: Any = None, content: Any = ()
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """A name links to what is documented under it, if anything is; all else is code as it stands."""
    text = unescape(text, restore_backslashes=True)
    if re.fullmatch(r"[A-Za-z_][\w.]*", text):
        return PyXRefRole()("py:obj", rawtext, text, lineno, inliner, options or {}, content)
    return [nodes.literal(rawtext, text)], []


def untyped_returns(self: GoogleDocstring, preprocess_types: bool = False) -> list[tuple[str, str, list[str]]]:
    """`Returns:` is prose; Napoleon would take all before its first colon for a type, which annotations give."""
    lines = self._dedent(self._consume_to_next_section())
    return [("", "", lines)] if lines else []


def untyped_attribute(self: GoogleDocstring) -> tuple[str, list[str]]:
    """The same for the docstring of a property or a constant."""
    return "", [self._lines.next(), *self._dedent(self._consume_to_end())]


def plurals(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Let a letter follow a backtick, as in `Sampler`s, for which reStructuredText wants an escaped blank."""
    # Span by span from the left, so that the blank between two spans is never taken for one.
    lines[:] = re.sub(r"(`[^`]+`)(\w?)", lambda m: f"{m[1]}\\ {m[2]}" if m[2] else m[1], "\n".join(lines)).split("\n")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    GoogleDocstring._consume_returns_section = untyped_returns  # type: ignore[method-assign]
    GoogleDocstring._consume_inline_attribute = untyped_attribute  # type: ignore[method-assign]
    app.connect("autodoc-process-docstring", plurals)
    app.add_role("code-or-name", code_or_name)
    app.add_lexer("query", QueryLexer)
    for alias in PlainLexer.aliases:
        app.add_lexer(alias, PlainLexer)
