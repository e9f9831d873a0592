"""Templates of pages in Markdown, such as the card of a data set. This module imports jinja2, which takes some time."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_templates(package: str, folder: str = "") -> Environment:
    """Environment of jinja2 for the Markdown templates in a package; a name without a value raises an error."""
    loader = PackageLoader(package, folder)
    return Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
