from __future__ import annotations

import pytest

from energyql.errors import QuerySyntaxError
from energyql.language import parse


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("a ∧ b", "unexpected character '∧' (U+2227 LOGICAL AND)\n", 3),
        ("a\u200bb", "unexpected character U+200B ZERO WIDTH SPACE\n", 2),
        ("a \x00", "unexpected character U+0000\n", 3),
        ("a \ud800", "unexpected character U+D800\n", 3),
        ("\u0301", "unexpected character U+0301 COMBINING ACUTE ACCENT\n", 1),
        ("a²", "unexpected character '²' (U+00B2 SUPERSCRIPT TWO)\n", 2),
        ("٣a", "unexpected character '٣' (U+0663 ARABIC-INDIC DIGIT THREE)\n", 1),
        ("a 😀", "unexpected character '😀' (U+1F600 GRINNING FACE)\n", 3),
        ("a @ b", "unexpected character '@'\n", 3),
        ('a AND "b\nc"', "a double quote is never closed\n", 7),
        (r'"\x"', r"unknown escape '\x' in a quoted name" + "\n", 2),
    ],
)
def test_the_character_is_named(text: str, message: str, column: int) -> None:
    with pytest.raises(QuerySyntaxError) as caught:
        parse(text)
    assert f"{caught.value}\n".startswith(message)
    assert caught.value.column == column
