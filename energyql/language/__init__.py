"""The query language: text and Python operators to one tree, and back. Nothing here imports torch."""

from energyql.language.ast import (
    And,
    Attribute,
    Cardinality,
    Constant,
    Expr,
    Iff,
    Implies,
    Interval,
    Near,
    Not,
    OneOf,
    Or,
    Weight,
    Xor,
)
from energyql.language.binder import bind
from energyql.language.namespace import FALSE, TRUE, E, all_of, any_of, at_least, at_most, exactly, none_of
from energyql.language.parser import as_query, parse
from energyql.language.printer import quote, to_text

__all__ = [
    "FALSE",
    "TRUE",
    "And",
    "Attribute",
    "Cardinality",
    "Constant",
    "E",
    "Expr",
    "Iff",
    "Implies",
    "Interval",
    "Near",
    "Not",
    "OneOf",
    "Or",
    "Weight",
    "Xor",
    "all_of",
    "any_of",
    "as_query",
    "at_least",
    "at_most",
    "bind",
    "exactly",
    "none_of",
    "parse",
    "quote",
    "to_text",
]
