"""Templates of pages in Markdown, such as the card of a data set. This module imports jinja2, which takes some time."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def page_templates(package: str, folder: str = "") -> Environment:
    """Return an environment of jinja2, from which templates of Markdown pages can be taken and filled.

    If a template is filled without a value for one of its names, jinja2 raises an error.

    Args:
        package: name of the package that contains the templates, such as "energyql.dataset".
        folder: folder of the templates in the package; by default the folder of the package.
    """
    loader = PackageLoader(package, folder)
    return Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
