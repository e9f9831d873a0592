"""Hypothesis strategies: every tree that can be built, and texts that look like queries."""

from __future__ import annotations

from hypothesis import strategies as st

from energyql.language import (
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

plain_names = st.sampled_from(["smile", "hair", "orange", "android", "notable", "_x", "ıf", "größe", "मुस्कान", "年齢"])
awkward_names = st.sampled_from(
    [
        "AND",
        "or",
        "Not",
        "5 o'clock shadow",
        'say "hi"',
        "back\\slash",
        "a#b",
        "İN",
        "falſe",
        "e\u0301",
        " ",
        "٣",
        "a\u200db",
    ]
)
any_names = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1, max_size=6)
names = plain_names | awkward_names | any_names

numbers = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9).map(float)
factors = st.floats(min_value=5e-324, max_value=1.5)  # however deep, their products stay within the limit
positive = st.floats(min_value=5e-324, allow_nan=False, allow_infinity=False) | st.integers(1, 9).map(float)


@st.composite
def intervals(draw: st.DrawFn) -> Expr:
    low, high = sorted(draw(st.tuples(numbers, numbers).filter(lambda pair: pair[0] != pair[1])))
    ends = draw(st.sampled_from([(low, high), (low, None), (None, high)]))
    return Interval(draw(names), *ends, draw(st.booleans()), draw(st.booleans()))


leaves = (
    st.builds(Constant, st.booleans())
    | st.builds(Attribute, names)
    | st.builds(OneOf, names, st.lists(names, min_size=1, max_size=3).map(tuple), st.booleans())
    | intervals()
    | st.builds(Near, names, numbers, st.none() | positive)
)


@st.composite
def cardinalities(draw: st.DrawFn, children: st.SearchStrategy[Expr]) -> Expr:
    operands = tuple(draw(st.lists(children, min_size=1, max_size=4)))
    quantifier = draw(st.sampled_from(["AT LEAST", "AT MOST", "EXACTLY", "ALL", "ANY", "NONE"]))
    if quantifier in ("ALL", "ANY", "NONE"):
        return Cardinality(quantifier, None, operands)
    most = 2 * len(operands) if quantifier == "AT MOST" else len(operands)
    return Cardinality(quantifier, draw(st.integers(0, most)), operands)


def _nodes(children: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    several = st.lists(children, min_size=2, max_size=4).map(tuple)
    return (
        st.builds(Not, children)
        | st.builds(Weight, factors, children)
        | st.builds(And, several)
        | st.builds(Or, several)
        | st.builds(Xor, several)
        | st.builds(Iff, several)
        | st.builds(Implies, children, children)
        | cardinalities(children)
    )


trees = st.recursive(leaves, _nodes, max_leaves=16)

_TEXT = (
    "a b smile hair age nan AND and OR XOR NOT IMPLIES IFF IN TRUE FALSE AT LEAST MOST EXACTLY ALL ANY NONE OF BETWEEN "
    "& && | || ^ ! ~ -> <-> < <= > >= = == != <> +- ± * ( ) ( ) { } [ ] , , 0 0.5 2 -1 1e999 .5 5x "
    '"x y" "AND" "" "\\n" " \' # \n @ − ² é \u0301 \ud800 \ufeff \x00'
)
_WORDS = _TEXT.split(" ")
soups = st.lists(st.sampled_from(_WORDS), max_size=30).flatmap(
    lambda words: st.sampled_from([" ", ""]).map(lambda blank: blank.join(words))
)
