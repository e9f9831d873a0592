"""Every text colour of the style sheets on every ground: a contrast of at least 4.5 (WCAG 2) in both themes."""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "energyql"
SHEETS = ("gallery/page.css", "studio/static/studio.css", "studio/static/bench.css", "studio/static/view.css")
TEXT = "".join((PACKAGE / sheet).read_text(encoding="utf-8") for sheet in SHEETS)
LEAST = 4.5
COLOURS = {
    name: both
    for name, *both in re.findall(r"--(\w+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", TEXT)
}  # fmt: skip
BANNER = re.search(r"\.banner:not\(\[hidden\]\) \{[^}]*light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", TEXT).groups()
ON_GROUNDS = ("ink", "faint", "accent", "yes", "no", "b", "name")
GROUNDS = ("paper", "card", "soft", "field")
BEHIND_MARKS = ("accent", "a", "b", "yes", "no")


def parts(colour):
    return [int(colour[at : at + 2], 16) for at in (1, 3, 5)]


def luminance(colour):
    """The relative luminance of WCAG 2.2."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(text, ground):
    light, dark = sorted((luminance([part / 255 for part in each]) for each in (text, ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def weak(theme, colours=COLOURS):
    """Pairs of a text and its ground that are too much alike; the theme is 0 for light or 1 for dark."""
    shown = {name: parts(both[theme]) for name, both in colours.items()}
    pairs = {(text, ground): (shown[text], shown[ground]) for text in ON_GROUNDS for ground in GROUNDS}
    pairs |= {("mark", ground): (shown["mark"], shown[ground]) for ground in BEHIND_MARKS}
    pairs["ink", "banner"] = shown["ink"], parts(BANNER[theme])
    for ground in ("paper", "card"):  # a message of failure stands on 9 % of its own colour
        mixed = [0.09 * own + 0.91 * below for own, below in zip(shown["no"], shown[ground], strict=True)]
        pairs["no", f"failure on {ground}"] = shown["no"], mixed
    return {names: round(contrast(*pair), 2) for names, pair in pairs.items() if contrast(*pair) < LEAST}


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_every_text_stands_out(theme):
    assert weak(theme) == {}


def test_colours_of_before_did_not():
    """On the soft ground of the entry that is shown: the green of `.share.yes`, and the amber of values and numbers."""
    before = {"yes": ("#15803d", "#4ade80"), "b": ("#b45309", "#f5a94d")}
    assert weak(0, COLOURS | before) == {("yes", "soft"): 4.28, ("b", "soft"): 4.29}
    assert contrast(parts("#000000"), parts("#ffffff")) == pytest.approx(21)


def test_no_text_has_another_colour():
    """So that a colour which is added is measured, too."""
    rules = re.findall(r"(?<![-\w])color: ([^;}]+)", TEXT)
    assert rules
    assert {rule for rule in rules if not re.fullmatch(r"var\(--\w+\)|inherit|transparent", rule)} == set()
    assert {rule[6:-1] for rule in rules if rule.startswith("var")} <= {*ON_GROUNDS, "mark"}
