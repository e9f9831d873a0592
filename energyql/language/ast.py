"""The tree of a query: small immutable nodes, compared and hashed by structure.

Text (`parse`) and Python operators (`E.smile & ~E.hat`) build the same nodes. A node's `span` says which
characters of the text it came from; it takes no part in comparison. Nodes check and normalise what they are given:
names are in Unicode normal form C, `And`, `Or`, `Xor` and `Iff` hold no operand of their own kind.
"""

from energyql.errors import Span
from energyql.language.atoms import Attribute, Constant, Interval, Near, OneOf
from energyql.language.connectives import And, Cardinality, Expr, Iff, Implies, Not, Or, Weight, Xor

__all__ = [
    "And",
    "Attribute",
    "Cardinality",
    "Constant",
    "Expr",
    "Iff",
    "Implies",
    "Interval",
    "Near",
    "Not",
    "OneOf",
    "Or",
    "Span",
    "Weight",
    "Xor",
]
