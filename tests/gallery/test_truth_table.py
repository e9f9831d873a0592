import pytest
from toys import VOCABULARY

from energyql import E, parse
from energyql.errors import ArgumentError, DataError, EnergyQLError
from energyql.gallery.gallery import check_literals, negated, split_literals


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("smile", ["smile"]),
        ("smile,glasses , beard", ["smile", "glasses", "beard"]),
        ('hair IN {black, "dark red"}, age > 0.5', ['hair IN {black, "dark red"}', "age > 0.5"]),
        ('"a, b", c', ['"a, b"', "c"]),
        ("(smile OR beard), NOT glasses", ["smile OR beard", "NOT glasses"]),
    ],
)
def test_literals_with_commas(text, expected):
    assert [str(literal) for literal in split_literals(text)] == expected


@pytest.mark.parametrize(
    ("text", "carets"),
    [
        ("smile, NOT", "            ^"),
        ("smile glasses", "        ^^^^^^^"),
        ("smile,", "        ^"),
        ("", None),
        (") AND (", None),
        ("smile) AND ALL OF (beard", None),
    ],
)
def test_mistakes_point_into_the_text(text, carets):
    with pytest.raises(EnergyQLError) as caught:
        split_literals(text)
    assert caught.value.query == text or isinstance(caught.value, ArgumentError)
    if carets is not None:
        assert str(caught.value).splitlines()[1] == f"  {text}"
        assert str(caught.value).splitlines()[2].lstrip() == carets.lstrip()


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        ("smile", "NOT smile"),
        ("NOT smile", "smile"),
        ("hair = black", "hair != black"),
        ("hair NOT IN {black, brown}", "hair IN {black, brown}"),
        ("age > 0.6", "age <= 0.6"),
        ("age <= 0.6", "age > 0.6"),
        ("0.2 < age < 0.4", "NOT 0.2 < age < 0.4"),
        ("smile OR beard", "NOT (smile OR beard)"),
    ],
)
def test_negations(literal, expected):
    assert str(negated(parse(literal))) == expected


def test_checked_literals():
    assert check_literals(["smile", E.beard], VOCABULARY) == [E.smile, E.beard]
    with pytest.raises(ArgumentError, match="hair = black is in the truth table twice"):
        check_literals(["hair = black", "smile", E.hair.eq("black")], VOCABULARY)
    with pytest.raises(ArgumentError, match='"smile" is in the truth table twice'):
        check_literals(["smile", '"smile"'], VOCABULARY)
    with pytest.raises(DataError, match=r"truth table: 2 queries are wrong\n\nattribute 1: .*'smil'"):
        check_literals(["smil", "hair = black", "age"], VOCABULARY)
    for literals in ([], ["smile", "beard", "glasses", "age > 0.5", "hair = black"]):
        with pytest.raises(ArgumentError, match=f"1 to 4 attributes, not {len(literals)}"):
            check_literals(literals, VOCABULARY)
