"""Tree to text: upper-case keywords and the fewest parentheses, so that `parse(to_text(e)) == e` for every tree.

The nodes print themselves with this module, so it knows them by the names of their classes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from energyql.language.checks import show_number

if TYPE_CHECKING:
    from energyql.language.ast import Expr

KEYWORDS = frozenset(
    {"ALL", "AND", "ANY", "AT", "EXACTLY", "FALSE", "IFF", "IMPLIES", "IN", "LEAST", "MOST", "NONE", "NOT", "OF"}
    | {"OR", "TRUE", "XOR"}
)
"""Words that are no attribute names, in any case, unless they stand in double quotes."""

# The lexer's expression too: without regard to case, it takes a dotted capital I for an i, as `upper` does not.
_KEYWORD = re.compile("|".join(sorted(KEYWORDS)), re.IGNORECASE)

_ATOM = 8
_PRECEDENCE = {"Not": 7, "Weight": 7, "And": 6, "Xor": 5, "Or": 4, "Implies": 3, "Iff": 2}
"""How tightly a node binds; everything that is not listed binds tightest. The grammar says the same by its nesting."""


def quote(name: str) -> str:
    """A name or value as it is written in a query: in double quotes where it needs them."""
    if name.isidentifier() and not _KEYWORD.fullmatch(name):
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def to_text(expr: Expr) -> str:
    """The text of a tree: the shortest spelling that parses to an equal tree."""
    done: list[str] = []
    stack: list[tuple[Expr, bool]] = [(expr, False)]
    while stack:
        node, expanded = stack.pop()
        children = node.children
        if children and not expanded:
            stack.append((node, True))
            stack.extend((child, False) for child in reversed(children))
            continue
        texts = done[len(done) - len(children) :]
        del done[len(done) - len(children) :]
        done.append(_print(node, children, texts))
    return done[0]


def _print(node: Any, children: tuple[Expr, ...], texts: list[str]) -> str:
    kind = type(node).__name__
    if kind == "Not" and type(node.operand).__name__ == "Near":
        return _near(node.operand, "!=")
    if kind == "Cardinality":
        count = "" if node.count is None else f" {node.count}"
        return f"{node.quantifier}{count} OF ({', '.join(texts)})"
    if not children:
        return _leaf(kind, node)
    level = _PRECEDENCE[kind]
    # NOT and weight may be stacked, and IMPLIES groups to the right; any other operand must bind tighter than its node.
    limits = [level - (kind in ("Not", "Weight"))] * len(children)
    if kind == "Implies":
        limits[1] = level - 1
    shown = [
        f"({text})" if _level(child) <= limit else text
        for child, text, limit in zip(children, texts, limits, strict=True)
    ]
    if kind == "Not":
        return f"NOT {shown[0]}"
    if kind == "Weight":
        return f"{show_number(node.factor)} * {shown[0]}"
    return f" {kind.upper()} ".join(shown)


def _level(node: Any) -> int:
    kind = type(node).__name__
    if kind == "Not" and type(node.operand).__name__ == "Near":
        return _ATOM  # printed as one comparison, with !=
    return _PRECEDENCE.get(kind, _ATOM)


def _leaf(kind: str, node: Any) -> str:
    if kind == "Constant":
        return "TRUE" if node.value else "FALSE"
    if kind == "Near":
        return _near(node, "=")
    name = quote(node.name)
    if kind == "Attribute":
        return name
    if kind == "OneOf":
        if len(node.values) == 1:
            return f"{name} {'!=' if node.negated else '='} {quote(node.values[0])}"
        return f"{name} {'NOT IN' if node.negated else 'IN'} {{{', '.join(map(quote, node.values))}}}"
    above, below = "<=" if node.low_closed else "<", "<=" if node.high_closed else "<"
    if node.low is None:
        return f"{name} {below} {show_number(node.high)}"
    if node.high is None:
        return f"{name} {'>=' if node.low_closed else '>'} {show_number(node.low)}"
    return f"{show_number(node.low)} {above} {name} {below} {show_number(node.high)}"


def _near(node: Any, sign: str) -> str:
    tolerance = "" if node.tolerance is None else f" +- {show_number(node.tolerance)}"
    return f"{quote(node.name)} {sign} {show_number(node.value)}{tolerance}"
