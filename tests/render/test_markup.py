from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energyql.render.markup import Markup, element, escape, join


def test_text_is_escaped_and_markup_is_not():
    nested = element("p", element("b", "1 < 2"), " & ", Markup("<br/>"), None)
    assert nested == "<p><b>1 &lt; 2</b> &amp; <br/></p>"
    assert escape(escape("<")) == "&lt;"
    assert join(["<", element("i")], ", ") == "&lt;, <i></i>"
    assert join([]) == ""


def test_attributes():
    shown = element("a", class_="x", data_id=3, aria_label='"<&', hidden=True, title=None, open=False, width=1.5)
    assert shown == '<a class="x" data-id="3" aria-label="&quot;&lt;&amp;" hidden="" width="1.5"></a>'
    assert element("img", alt="") == '<img alt=""/>'


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\x7f", "\ud800", "\ufffe"])
def test_characters_that_no_document_may_hold(character):
    assert escape(f"a{character}b") == "a\ufffdb"


@given(st.text(), st.text())
def test_whatever_goes_in_comes_out_as_text(content, attribute):
    parsed = ElementTree.fromstring(element("p", content, title=attribute))
    assert list(parsed) == []
    kept = [character for character in content if character.isprintable()]
    assert [character for character in parsed.text or "" if character.isprintable() and character != "\ufffd"] == [
        character for character in kept if character != "\ufffd"
    ]
