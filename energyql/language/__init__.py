"""The query language, without torch: queries as text or with Python operators, and the tree that both become."""

from energyql.language.binder import bind
from energyql.language.expr import (
    FALSE,
    TRUE,
    And,
    Attribute,
    Cardinality,
    Constant,
    E,
    Expr,
    Iff,
    Implies,
    Interval,
    ModelNamespace,
    Near,
    Not,
    OneOf,
    Or,
    Predicate,
    Weight,
    Xor,
    all_of,
    any_of,
    at_least,
    at_most,
    draw_tree,
    exactly,
    none_of,
    predicates,
    to_text,
)
from energyql.language.lexical import quote
from energyql.language.parser import as_query, parse

__all__ = [
    "FALSE", "TRUE", "And", "Attribute", "Cardinality", "Constant", "E", "Expr", "Iff", "Implies", "Interval",
    "ModelNamespace", "Near", "Not", "OneOf", "Or", "Predicate", "Weight", "Xor",
    "all_of", "any_of", "as_query", "at_least", "at_most", "bind", "draw_tree", "exactly", "none_of", "parse",
    "predicates", "quote", "to_text",
]  # fmt: skip
