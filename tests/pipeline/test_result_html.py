import numpy as np
import pytest
from markup import Document, decode
from PIL import Image

from energyql import generate
from energyql.pipeline.result_html import MOST_PICTURES, MOST_QUERY, alternative_text, reading, result_html

JUDGED = {
    "smile": np.array([True, False]),
    "hair": np.array(["red", "dark brown"]),
    "age": np.array([0.125, 0.5]),
    "hat": np.array([False, False]),
}


def page(count=2, **changes):
    settings = {
        "title": "smile AND <hat>",
        "captions": [f"P {i}" for i in range(count)],
        "verdicts": [i % 2 == 0 for i in range(count)],
        "words": [f"words {i}" for i in range(count)],
        "footer": "1 of 2",
    }
    return result_html([Image.new("RGB", (16, 16), (i, 0, 0)) for i in range(count)], **(settings | changes))


@pytest.mark.parametrize(
    ("index", "only", "expected"),
    [
        (0, None, "smile, hair = red, age = 0.12; no hat"),
        (1, None, "hair = dark brown, age = 0.50; no smile, hat"),
        (1, ["hat"], "no hat"),
        (0, ["smile", "bald"], "smile"),
        (0, [], ""),
    ],
)
def test_a_reading(index, only, expected):
    assert reading(JUDGED, index, only) == expected


def test_alternative_text():
    assert alternative_text(JUDGED, 0, 2, "image judge", [("smile", True), ("hat", False)]) == (
        "Picture 1 of 2. Image judge: smile, hair = red, age = 0.12; no hat. "
        "The query smile holds. The query hat does not hold."
    )
    assert alternative_text({}, 0, 1, "attribute heads", [("x" * 9999, True)]) == (
        f"Picture 1 of 1. The query {'x' * MOST_QUERY}… holds."
    )


def test_pictures_verdicts_and_words():
    document = Document(page())
    images = document.all("img")
    assert [image["alt"] for image in images] == ["words 0", "words 1"]
    assert [decode(image["src"]).getpixel((0, 0))[0] for image in images] == [0, 1]
    assert document.texts("code") == ["smile AND <hat>"]
    paths = [attributes["d"] for attributes in document.all("path")]
    assert len(set(paths)) == 2


def test_many_pictures_are_cut():
    document = Document(page(MOST_PICTURES + 3))
    assert len(document.all("img")) == MOST_PICTURES
    assert "Not shown: 3 more" in page(MOST_PICTURES + 3)


def test_no_pictures():
    assert Document(page(0)).all("img") == []


def test_a_notebook_shows_a_result(tiny):
    result = generate("smile OR beard", 3, model=tiny, seed=4, progress=False)
    document = Document(result._repr_html_())
    images = document.all("img")
    assert [decode(image["src"]).convert("RGB").tobytes() for image in images] == [
        image.tobytes() for image in result.images
    ]
    assert images[2]["alt"].startswith("Picture 3 of 3. Image judge: ")
    assert f"{result.summary()}. Model tiny, seed 4, exact semantics" in document.texts("div")
    assert result._repr_png_().startswith(b"\x89PNG")
