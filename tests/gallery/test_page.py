"""What the page is: one file, well-formed, safe, with words for everything that it shows."""

import base64
import hashlib
import re
import warnings

import pytest
from markup import Document, decode
from toys import CONFIG, random_generator, random_heads, tiny_model

from energyql import Gallery
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import DOUBT, AttributeBank
from energyql.gallery.words import percent, query_parts, verdict_phrase
from energyql.generators.families import save_model
from energyql.language.lexical import plural
from energyql.vocabulary import AttributeSpec, Vocabulary

QUERIES = {"Headline": "smile AND NOT (glasses OR beard)", "": "beard XOR age > 0.5", "Both": "2 * smile and (beard)"}
EVIL = '"</script><script>alert(1)</script>"'


@pytest.fixture(scope="module")
def gallery(tiny):
    made = Gallery(QUERIES, n=3, model=tiny, title="Faces & <more>", progress=False)
    made.add_truth_table("smile", "hair = black", "hair = brown", n=1)
    made.add_traversal("smile", "beard", 3, n=2)
    return made


@pytest.fixture(scope="module")
def html(gallery):
    return gallery.to_html()


@pytest.fixture(scope="module")
def page(html):
    return Document(html)


class TestSelfContained:
    def test_nothing_is_fetched(self, page, html):
        for name, attributes, _ in page.elements:
            for attribute in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
                value = attributes.get(attribute) or ""
                assert not value or value.startswith(("#", "data:image/")), (name, attribute, value[:60])
        style, script = page.texts("style")[0], page.texts("script")[0]
        assert "url(" not in style
        assert "@import" not in style
        assert not re.search(r"fetch|XMLHttp|import\(|innerHTML|eval|document\.write", script)
        assert "http://" not in html
        assert "https://" not in html

    def test_the_policy_allows_these_two_and_no_others(self, page):
        (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; img-src data:; ")
        assert "unsafe" not in policy
        for name in ("style", "script"):
            (text,) = page.texts(name)
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"{name}-src 'sha256-{digest}'" in policy

    def test_no_handlers_and_no_styles_in_elements(self, page):
        for name, attributes, _ in page.elements:
            assert not [key for key in attributes if key.startswith("on") or key == "style"], name

    def test_identities_are_unique_and_references_lead_somewhere(self, page):
        identities = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
        assert len(identities) == len(set(identities))
        for _, attributes, _ in page.elements:
            for key in ("aria-labelledby", "data-row", "data-for"):
                assert attributes.get(key) is None or attributes[key] in identities
            if (attributes.get("href") or "").startswith("#"):
                assert attributes["href"][1:] in identities

    def test_what_a_document_needs(self, page, html):
        assert html.startswith('<!DOCTYPE html>\n<html lang="en">')
        assert [meta["content"] for meta in page.all("meta") if meta.get("name") == "viewport"]
        assert page.texts("title") == page.texts("h1") == ["Faces & <more>"]


class TestContent:
    def test_every_picture_is_there_and_said_in_words(self, page, gallery):
        images = [image for image in page.all("img") if image.get("src")]
        assert len(images) == sum(map(len, gallery.results)) == 9 + 6 + 6
        for image in images:
            assert decode(image["src"]).size == (16, 16)
            assert re.match(
                r"Picture \d+ of \d+\. Image judge: .*(smile|beard).* The query .* (holds|does not hold)\.",
                image["alt"],
            )
        first = gallery.results[0]
        says = "holds" if first.satisfied[0] else "does not hold"
        assert f"The query smile AND NOT (glasses OR beard) {says}." in images[0]["alt"]

    def test_canonical_queries_can_be_copied(self, page, html):
        copied = [button["data-copy"] for button in page.all("button", "copy")]
        assert copied[:3] == ["smile AND NOT (glasses OR beard)", "beard XOR age > 0.5", "2 * smile AND beard"]
        assert html.count("written as") == html.count("written as 2 * smile and (beard)") == 1

    def test_verdicts_differ_in_shape(self, page, gallery):
        badges = [attributes["href"] for name, attributes, _ in page.elements if name == "use"]
        assert badges == ["#yes" if ok else "#no" for result in gallery.results[:-1] for ok in result.satisfied]

    def test_circuits_and_their_words(self, page, html):
        graphs = page.all("svg", "eql-graph")
        assert len(graphs) == html.count("log P(query) = ") == 3
        assert all(graph["role"] == "img" and graph["aria-label"] for graph in graphs)

    def test_numbers_of_clauses_and_pictures(self, page, gallery):
        cells = page.texts("td")
        means = {f"{clause.probability.mean():.3f}" for section in gallery.sections[:3] for clause in section.clauses}
        energies = {f"{r.energy[0]:.4g} (P {r.probability[0]:.4f})" for r in gallery.results[:3]}
        assert means | energies | {"0, picture 2"} <= set(cells)
        assert len(page.all("table", "numbers")) == 5

    def test_contradictions_are_part_of_the_table(self, html):
        assert html.count("a contradiction: hair = black and hair = brown cannot both hold") == 2

    def test_filters_know_what_they_filter(self, page, gallery):
        cards = page.all("section", "card")
        assert [card["data-text"].split()[0] for card in cards] == ["headline", "beard", "both", "truth", "traversal"]
        assert [float(card["data-energy"]) for card in cards if "data-energy" in card] == pytest.approx(
            [float(result.energy.mean()) for result in gallery.results[:3]], rel=1e-4
        )

    def test_how_it_was_drawn_and_where(self, page):
        assert {"tiny", "exact"} <= set(page.texts("dd"))
        assert [link["href"] for link in page.all("a") if "class" not in link] == [f"#s{i}" for i in range(1, 6)]


class TestOddities:
    def test_a_hostile_vocabulary_is_text(self, tmp_path):
        """Names of attributes, classes and models, titles and queries are data."""
        vocabulary = Vocabulary(
            [
                AttributeSpec("</script><script>alert(1)</script>", "yes/no"),
                AttributeSpec('x" onerror="alert(1)', "categorical", values=("<b>", "&amp;", "'")),
            ],
            model="<img src=x>",
        )
        fingerprint = save_model(tmp_path, "<img src=x onerror=alert(1)>", random_generator())
        heads = random_heads(vocabulary, CONFIG.w_dim)
        AttributeBank(vocabulary, heads, fitted=FittedUnder(generator=fingerprint)).save(tmp_path)
        made = Gallery([("<script>alert(2)</script>", EVIL)], n=1, model=tmp_path, progress=False)
        made.add_truth_table(EVIL, r'"x\" onerror=\"alert(1)" = "<b>"', n=1)
        made.add_traversal(EVIL, f"NOT {EVIL}", 2, n=1)
        page = Document(made.to_html())
        assert len(page.all("script")) == 1
        assert [image for image in page.all("img") if image.get("src") == "x"] == []
        assert page.all("b") == []
        for _, attributes, _ in page.elements:
            assert not [key for key in attributes if key.startswith("on")]
        assert EVIL in [button["data-copy"] for button in page.all("button", "copy")]

    @pytest.mark.parametrize("semantics", ["product", "lace"])
    def test_other_semantics(self, tiny, semantics):
        made = Gallery(["smile OR beard"], n=2, model=tiny, semantics=semantics, progress=False)
        made.add_truth_table("smile", n=1)
        made.add_traversal("smile", "beard", 2, n=1)
        page = Document(made.to_html())
        captions = page.texts("h3")
        assert ("Compiled circuit" in captions) == (semantics == "product")
        assert len(page.all("svg", "eql-graph")) == 1
        assert re.search(r"E -?\d+\.\d{3}", made.to_html())

    def test_a_model_without_judge(self, tmp_path):
        folder = tiny_model(tmp_path, judge=False)
        made = Gallery(["smile"], n=1, model=folder, progress=False)
        made.add_truth_table("smile", n=1)
        made.add_traversal("smile", "beard", 2, n=1)
        assert made.summary().endswith("5 pictures; not judged: the model has no judge")
        page = Document(made.to_html())
        *images, enlarged = page.all("img")
        said = r"Picture \d of \d\. The query smile is not judged\.( The query beard is not judged\.)?"
        assert enlarged["id"] == "view-picture"
        assert all(re.fullmatch(said.replace("smile", "(NOT )?smile"), image["alt"]) for image in images)
        assert page.all("use") == page.all("svg", "badge") == []
        assert page.all("li", "yes") == page.all("li", "no") == []
        assert page.texts("span").count("not judged") == page.texts("td").count("not judged") - 5 == 2
        assert "read off the picture" not in page.texts("th")
        assert "✓" not in made.to_html()

    def test_a_cross_says_which_part_failed(self, tiny):
        made = Gallery(["smile AND glasses"], n=8, model=tiny, progress=False)
        result = made.sections[0].result
        result.judged["glasses"][:] = [True, False] * 4
        result.judged["smile"][:] = True
        result.satisfied[:] = result.judged["glasses"]
        page = Document(made.to_html())
        assert len(page.all("span", "failed")) == 4
        assert page.texts("span").count("no: glasses, says the image judge") == 4

    def test_doubtful_pictures_are_marked(self, tiny):
        made = Gallery(["smile"], n=8, seed=12, model=tiny, progress=False)
        made.add_traversal("smile", "beard", 3, n=1)
        made.sections[1].result.doubtful[:] = True  # of either query, so nothing is said
        result = made.sections[0].result
        assert 0 < result.doubtful.sum() < 8
        page = Document(made.to_html())
        marks, count = page.all("span", "doubt"), int(result.doubtful.sum())
        assert [mark["title"] for mark in marks] == [DOUBT] * count
        assert page.texts("span").count("doubtful") == count
        assert page.texts("span").count(f"{count} doubtful") == 1
        items = [item["class"].split() for item in page.all("li") if "data-energy" in item]
        assert ["doubtful" in classes for classes in items] == [*result.doubtful, *[False] * 3]  # for the filter
        said = [f"It is doubtful: {DOUBT}." in image["alt"] for image in page.all("img")]
        assert said == [*result.doubtful, *[False] * 4]
        assert page.texts("th").count("doubtful") == 1
        assert [text for text in page.texts("td") if text in ("yes", "no")].count("yes") == count

    def test_nothing_is_said_where_nothing_is_doubtful(self, tiny):
        made = Gallery(["smile"], n=2, model=tiny, progress=False)
        assert not made.sections[0].result.doubtful.any()
        page = Document(made.to_html())
        assert page.all("span", "doubt") == []
        assert "doubtful" not in page.texts("th")

    def test_a_query_that_asks_for_nothing(self, tiny):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = Gallery(["TRUE", "smile OR NOT smile"], n=1, model=tiny, progress=False)
        Document(made.to_html())
        assert made.sections[1].same_as == 1

    def test_text_under_the_title(self, tiny, html):
        made = Gallery("smile", n=1, model=tiny, about="One & <two>.\n\n  \nThree,\nfour.\n\n", progress=False)
        assert Document(made.to_html()).texts("p")[:2] == ["One & <two>.", "Three,\nfour."]
        assert 'class="about"' not in html

    def test_signs_of_the_template_language_stay(self, tiny):
        made = Gallery({"{{ 7 * 7 }} {% raw %}": "smile"}, n=1, model=tiny, title="{{ style }}", progress=False)
        page = Document(made.to_html())
        assert page.texts("h1") == ["{{ style }}"]
        assert "{{ 7 * 7 }} {% raw %}" in page.texts("h2")

    def test_characters_that_no_document_may_hold(self, tiny):
        made = Gallery({"a\x00b\x1b": "smile"}, n=1, model=tiny, title="\ud800", progress=False)
        assert "a\ufffdb\ufffd" in Document(made.to_html()).texts("h2")
        made.to_html().encode("utf-8")


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("smile AND NOT orange", ["AND", "NOT"]),
        ('"AND" OR x2', ['"AND"', "OR"]),
        ("2 * a AND 0.25 < age <= 1e-3", ["2", "AND", "0.25", "1e-3"]),
        (r'"say \"AND\"" XOR b', [r'"say \"AND\""', "XOR"]),
    ],
)
def test_marked_queries(text, marked):
    parts = query_parts(text)
    assert [part for kind, part in parts if kind] == marked
    assert "".join(part for _, part in parts) == text


def test_small_words():
    shares = ((0, 3), (1, 3), (3, 3), (999, 1000), (0, 0))
    assert [percent(*share) for share in shares] == ["0 %", "33 %", "100 %", "99 %", "0 %"]
    assert plural(1, "query", "queries") == "1 query"
    assert plural(2_000, "picture") == "2,000 pictures"
    assert verdict_phrase([("a", True), ("b", True)]) == "A and B hold"
    assert verdict_phrase([("a", False), ("b", True)]) == "B holds"
    assert verdict_phrase([("a", False), ("b", False)]) == "neither A nor B holds"


@pytest.mark.parametrize("energy", [float("inf"), float("nan")])
def test_infinite_energies_sort_last(tiny, energy):
    made = Gallery(["smile"], n=1, model=tiny, progress=False)
    made.results[0].energy[:] = energy
    page = Document(made.to_html())
    assert page.all("section", "card")[0]["data-energy"] == "Infinity"
    assert [item["data-energy"] for item in page.all("li") if "data-energy" in item] == ["Infinity"]
