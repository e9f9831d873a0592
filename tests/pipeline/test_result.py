"""What a result says and shows: summaries, grids, words, notebooks."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from made_results import QUERY, make
from markup import Document, decode
from PIL import Image, ImageColor

from energyql import generate
from energyql.errors import ArgumentError, UnknownAttribute
from energyql.pipeline import result as module
from energyql.pipeline.result import Result
from energyql.pipeline.result_folder import MOST_PICTURES
from energyql.pipeline.result_words import (
    MOST_QUERY,
    alternative_text,
    captions,
    cells,
    failures,
    reading,
    verdict_sentences,
)
from energyql.render.pictures import NO, YES
from energyql.vocabulary import ByAttribute

JUDGED = {
    "smile": np.array([True, False]),
    "hair": np.array(["red", "dark brown"]),
    "age": np.array([0.125, 0.5]),
    "hat": np.array([False, False]),
}
PREDICTED = ByAttribute(
    smile=np.ones(2), hat=np.ones(2), hair={"red": np.ones(2), "black": np.zeros(2)}, age=(np.ones(2), np.ones(2))
)


def test_a_summary_counts_and_says_who_says_so():
    assert make().summary() == "2 of 3 satisfy the query, says the image judge. The solver could not finish 1"
    assert make(1).summary() == "1 of 1 satisfy the query, says the image judge"
    one = make(1, doubtful=np.ones(1, bool)).summary()
    assert one.endswith(". 1 is doubtful: two sets of heads disagree, or the latent is too far out")
    assert len(make()) == 3
    assert repr(make()).startswith(f"<Result of '{QUERY}': 2 of 3")


@pytest.mark.parametrize(
    ("judge", "precision", "words"),
    [
        ("image judge", 0.583, f". About 58 % are truly right: label more pictures of `{QUERY}`"),
        ("image judge", 0.9, ""),
        ("image judge", None, ""),
        ("judge faces:look", 0.583, ""),  # code, which knows
    ],
)
def test_a_summary_says_that_a_verifier_is_seldom_right(judge, precision, words):
    threshold = {"probability": 0.5, "precision": precision, "recall": 0.15}
    whole = make(1, statistics={"drawn": 31.0, "drawn_probability": 0.92})
    verified = {"by": "verifier", "stated": False, "threshold": threshold}
    result = replace(whole, provenance=whole.provenance | {"verified": verified, "purity": 0.97, "judge": judge})
    said = f"1 of 1 satisfy the query, says the {judge}, accepted by the verifier. 31 pictures were drawn{words}"
    assert verdict_sentences(result) == result.summary() == said


def test_what_nobody_judged_has_no_tick_and_no_cross(tmp_path):
    result = make(2, satisfied=None, judged={})
    heads = "by the attribute heads (smile: balanced accuracy 0.9, hat: quality not measured)"
    assert verdict_sentences(result) == f"not judged: the model has no judge; mean P 0.80 {heads}"
    assert verdict_sentences(make(2, semantics="lace", satisfied=None)).endswith(f"mean energy 0.25 {heads}")
    assert result[[1]].satisfied is Result.join([result, result]).satisfied is None
    marks = {ImageColor.getrgb(YES), ImageColor.getrgb(NO)}
    assert not {colour for _, colour in result.grid().getcolors(1 << 16)} & marks
    assert {colour for _, colour in make(2).grid().getcolors(1 << 16)} >= marks
    page = Document(result._repr_html_())
    assert page.all("svg") == page.all("path") == []
    assert page.all("img")[0]["alt"] == f"Picture 1 of 2. The query {QUERY} is not judged."
    saved = json.loads((result.save(tmp_path / "run") / "result.json").read_text(encoding="utf-8"))
    assert [sample["satisfied"] for sample in saved["samples"]] == [None, None]
    values = make(2, satisfied=None, judged={"hair": np.array(["red", "black"])}).values
    assert {name: column.tolist() for name, column in values.items()} == {
        "smile": [False, False], "hair": ["red", "black"], "age": [0.0, 0.1]
    }  # fmt: skip
    assert result.values["hair"].tolist() == ["black", "black"]


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".jpeg", ".webp"])
def test_a_grid_in_every_format(tmp_path, suffix):
    path = tmp_path / "new" / f"faces{suffix}"
    assert make().save(path) == path
    with Image.open(path) as picture:
        assert picture.size == make().grid().size
        assert picture.format == {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}.get(suffix, "PNG")
    assert list(path.parent.iterdir()) == [path]


def test_a_png_carries_its_provenance(tmp_path):
    with Image.open(make().save(str(tmp_path / "faces.png"))) as picture:
        assert json.loads(picture.text["energyql"]) == make().provenance


@pytest.mark.parametrize("table", ["probabilities", "judged", "values"])
def test_a_table_says_which_attributes_it_has(table):
    for result in (make(), make()[1:], make() + make()):
        found = getattr(result, table)
        with pytest.raises(UnknownAttribute, match="'smlie' is none of the attributes here\ndid you mean smile?"):
            found["smlie"]
        with pytest.raises(KeyError, match="attributes: smile, hair, age"):
            found["x"]
        assert found.get("smlie") is None
        assert "smlie" not in found
    assert isinstance(pickle.loads(pickle.dumps(found)), ByAttribute)


def test_drawn_and_loaded_tables_say_so_too(tiny, tmp_path):
    drawn = generate("smile", 2, model=tiny, progress=False)
    for result in (drawn, Result.load(drawn.save(tmp_path / "saved"))):
        for found in (result.probabilities, result.judged, result.values):
            with pytest.raises(UnknownAttribute, match="did you mean smile?"):
                found["smlie"]


@pytest.mark.parametrize("path", [5, None, ""])
def test_what_is_no_path_to_save_to(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError, match="is not a path"):
        make().save(path)
    assert list(tmp_path.iterdir()) == []


class TestGrid:
    @pytest.mark.parametrize("columns", [0, "2", 1.5])
    def test_what_is_no_number_of_columns(self, columns):
        with pytest.raises(ArgumentError, match="at least one column, not"):
            make().grid(columns)

    def test_columns(self):
        assert make().grid(columns=1).height > make().grid().height
        with pytest.raises(ArgumentError, match="at least one column, not 0"):
            make().grid(columns=0)

    @pytest.mark.parametrize(
        ("semantics", "caption"), [("exact", "P 0.050"), ("lace", "E 2.996"), ("product", "E 2.996")]
    )
    def test_only_exact_energies_are_probabilities(self, monkeypatch, semantics, caption):
        seen = {}
        monkeypatch.setattr(module, "label_grid", lambda cells, **settings: seen.update(settings, cells=cells))
        make(1, energy=[-np.log(0.05)], semantics=semantics).grid()
        assert [cell.caption for cell in seen["cells"]] == [caption]
        probability = make(energy=[0.0, np.inf, np.log(2)], semantics=semantics).probability
        assert probability is None if semantics != "exact" else probability == pytest.approx([1, 0, 0.5])
        assert seen["title"] == QUERY
        assert [cell.satisfied for cell in seen["cells"]] == [True]

    def test_energies_without_bounds(self):
        make(energy=[np.nan, np.inf, -2000.0], semantics="lace").grid()


@pytest.mark.parametrize(
    ("index", "only", "expected"),
    [
        (0, None, "smile, hair = red, age = 0.12; no hat"),
        (1, None, "hair = dark brown, age = 0.50; no smile, no hat"),
        (1, ["hat"], "no hat"),
        (0, ["smile", "bald"], "smile"),
        (0, [], ""),
    ],
)
def test_a_reading(index, only, expected):
    assert reading(JUDGED, index, only) == expected


def test_alternative_text():
    assert alternative_text(make(2, judged=JUDGED), 0, [("smile", True), ("hat", False)], False) == (
        "Picture 1 of 2. Image judge: smile, hair = red, age = 0.12; no hat. "
        "The query smile holds. The query hat does not hold."
    )
    assert alternative_text(make(1, judged={}), 0, [("x" * 9999, True)], False, 7) == (
        f"Picture 1 of 7. The query {'x' * MOST_QUERY}… holds."
    )


def many(count):
    return make(3)[[0, 1] * (count // 2) + [2] * (count % 2)]


def test_a_notebook_shows_pictures_verdicts_and_words():
    html = make(3)._repr_html_()
    document = Document(html)
    images = document.all("img")
    assert [decode(image["src"]).getpixel((0, 0))[0] for image in images] == [0, 60, 120]
    read = "Image judge: hair = red, age = 0.50; no smile"
    assert images[1]["alt"] == f"Picture 2 of 3. {read}. The query {QUERY} does not hold."
    assert document.texts("code") == [QUERY]
    assert len({attributes["d"] for attributes in document.all("path")}) == 2
    assert f"{make().summary()}. Model tiny, seed 7, exact semantics" in document.texts("div")
    assert make()._repr_png_().startswith(b"\x89PNG")


def test_a_notebook_shows_not_too_many_pictures():
    html = many(MOST_PICTURES + 3)._repr_html_()
    assert len(Document(html).all("img")) == MOST_PICTURES
    assert "Not shown: 3 more" in html
    assert Document(many(0)._repr_html_()).all("img") == []


def test_numbers_that_hardly_differ_are_left_out():
    alike = make(3, energy=-np.log([0.921, 0.926, 0.929]))
    assert captions(alike) == ["", "", ""]
    assert captions(make(3, energy=-np.log([0.921, 0.926, 0.94]))) == ["P 0.921", "P 0.926", "P 0.940"]
    assert captions(alike[0]) == ["P 0.921"]
    assert captions(make(2, energy=[2.5, 2.501], semantics="lace")) == ["", ""]
    assert captions(make(2, energy=[np.inf, np.inf], semantics="lace")) == ["E inf", "E inf"]


class TestWhyACross:
    @staticmethod
    def of(query, *, satisfied, **judged):
        judged = {name: np.array(column) for name, column in judged.items()}
        result = make(2, judged=ByAttribute(judged), probabilities=PREDICTED)
        facts = {"query": query, "canonical": query}
        return replace(result, satisfied=np.array(satisfied), provenance=result.provenance | facts)

    @pytest.mark.parametrize(
        ("query", "satisfied", "failed"),
        [
            ("smile AND hat", [False, False], ["hat", "smile, hat"]),
            ("smile AND NOT hat", [True, False], ["", "smile"]),
            ("2 * smile AND hair = red", [True, False], ["", "smile, hair = red"]),
            ("NONE OF (smile, hat)", [False, True], ["NOT smile", ""]),
            ("smile AND (hat OR age > 0.4)", [False, False], ["hat OR age > 0.4", "smile"]),
            ("smile", [True, True], ["", ""]),
            ("smile AND hat", [True, False], ["", "smile AND hat"]),  # not what the values say
            ("smile AND age = 0.5", [False, False], ["smile AND age = 0.5"] * 2),  # the tolerance is the model's
            ("smile AND beard", [False, True], ["smile AND beard", ""]),
        ],
    )
    def test_the_parts_that_fail(self, query, satisfied, failed):
        columns = {"smile": [True, False], "hat": [False, False], "hair": ["red", "black"], "age": [0.1, 0.9]}
        assert failures(self.of(query, satisfied=satisfied, **columns)) == failed

    def test_what_nobody_judged(self):
        assert failures(make(2, satisfied=None)) == ["", ""]

    def test_sheet_and_notebook_say_it(self):
        result = self.of("smile AND hat", satisfied=[True, False], smile=[True, True], hat=[True, False])
        assert [cell.note for cell in cells(result)] == ["", "no: hat, says the image judge"]
        assert "no: hat, says the image judge" in result._repr_html_()
        assert result.grid().height > replace(result, satisfied=np.ones(2, bool)).grid().height
