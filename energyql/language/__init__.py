"""The query language: text and Python operators to one tree, and back. Nothing here imports torch."""

from energyql.language.binder import bind
from energyql.language.cardinality import Cardinality, all_of, any_of, at_least, at_most, exactly, none_of
from energyql.language.connectives import And, Expr, Iff, Implies, Not, Or, Weight, Xor
from energyql.language.lexical import quote
from energyql.language.node import draw_tree, to_text
from energyql.language.parser import as_query, parse
from energyql.language.predicates import (
    FALSE,
    TRUE,
    Attribute,
    Constant,
    E,
    Interval,
    ModelNamespace,
    Near,
    OneOf,
    Predicate,
    predicates,
)

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
    "ModelNamespace",
    "Near",
    "Not",
    "OneOf",
    "Or",
    "Predicate",
    "Weight",
    "Xor",
    "all_of",
    "any_of",
    "as_query",
    "at_least",
    "at_most",
    "bind",
    "draw_tree",
    "exactly",
    "none_of",
    "parse",
    "predicates",
    "quote",
    "to_text",
]
