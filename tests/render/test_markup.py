from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from energyql.render.markup import clean, element


def test_text_is_escaped_and_markup_is_not():
    nested = element("p", element("b", "1 < 2"), " & ", Markup("<br/>"), None)
    assert nested == "<p><b>1 &lt; 2</b> &amp; <br/></p>"
    assert isinstance(nested, Markup)


def test_attributes():
    shown = element("a", class_="x", data_id=3, aria_label='"<&', title=None, width=1.5)
    assert shown == '<a class="x" data-id="3" aria-label="&quot;&lt;&amp;" width="1.5"></a>'
    assert element("img", alt="") == '<img alt=""/>'


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\x7f", "\ud800", "\ufffe"])
def test_characters_that_no_document_may_hold(character):
    assert element("p", f"a{character}b", title=character) == '<p title="\ufffd">a\ufffdb</p>'
    assert clean(Markup(character)) == character  # markup has been cleaned already


@settings(deadline=None)
@given(st.text(), st.text())
def test_whatever_goes_in_comes_out_as_text(content, attribute):
    parsed = ElementTree.fromstring(element("p", content, title=attribute))
    assert list(parsed) == []
    kept = [character for character in content if character.isprintable()]
    assert [character for character in parsed.text or "" if character.isprintable() and character != "\ufffd"] == [
        character for character in kept if character != "\ufffd"
    ]
