"""Tree to picture, for notebooks and pages.

As the printer does, this module knows the nodes by the names of their classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from energyql.language.checks import show_number
from energyql.language.printer import to_text
from energyql.render.graph import MOST_BOXES, Box, Role, draw_graph
from energyql.render.markup import Markup, element

if TYPE_CHECKING:
    from energyql.language.ast import Expr

_ROLES: dict[str, Role] = {"And": "and", "Or": "or", "Not": "not", "Weight": "weight"}
_NOTES = {"And": "all hold", "Or": "at least one holds", "Implies": "if the upper, then the lower"}
_PAIR_NOTES = {"Xor": "exactly one holds", "Iff": "both or neither"}
_MOST_TEXT = 2000
"""Characters of a query that a notebook shows above its tree."""


def draw_tree(expr: Expr, *, standalone: bool = False) -> Markup:
    """A tree as SVG: operators with their operands, in the order of the text; see `draw_graph`."""
    if expr.size > MOST_BOXES:
        large = Box(f"too large to draw: {expr.size:,} parts", role="root")
        return draw_graph([large], [], title="A large query", standalone=standalone)
    boxes: list[Box] = []
    edges: list[tuple[int, int]] = []
    stack: list[tuple[Expr, int | None]] = [(expr, None)]
    while stack:
        node, parent = stack.pop()
        if parent is not None:
            edges.append((parent, len(boxes)))
        stack += [(child, len(boxes)) for child in reversed(node.children)]
        boxes.append(_box(node))
    return draw_graph(boxes, edges, title=f"The tree of the query {to_text(expr)}", standalone=standalone)


def tree_html(expr: Expr) -> Markup:
    """A query with its tree, for a notebook."""
    text = to_text(expr)
    shown = text if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + "…"
    return element("div", element("code", shown), element("div", draw_tree(expr), style="overflow-x:auto"))


def _box(node: Any) -> Box:
    kind = type(node).__name__
    if not node.children:
        return Box(to_text(node), role="leaf")
    if kind == "Weight":
        return Box(f"{show_number(node.factor)} *", "weight", "weight")
    if kind == "Cardinality":
        count = "" if node.count is None else f" {node.count}"
        return Box(f"{node.quantifier}{count} OF", f"these {len(node.operands)}")
    note = _NOTES.get(kind, "")
    if kind in _PAIR_NOTES:
        note = _PAIR_NOTES[kind] if len(node.operands) == 2 else "folded from the left"
    return Box(kind.upper(), note, _ROLES.get(kind, "other"))
