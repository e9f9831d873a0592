"""Truth tables, traversals and galleries over HTTP, with a tiny model."""

import io
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import pytest
from markup import decode

from energyql import Gallery, generate, load_model, traverse, truth_table
from energyql.gallery.gallery import check_literals
from energyql.studio.results import JobResult
from energyql.studio.tasks import draw_gallery, draw_table


def drawn(job):
    return [decode(picture["image"]).convert("RGB").tobytes() for picture in job["pictures"]]


def pixels(results):
    return [image.tobytes() for result in results for image in result.images]


@pytest.fixture(scope="module")
def table(studio):
    return studio.draw("/api/truth-tables", literals=["smile", "hair = black", "age > 0.5"], n=2, seed=3)


class TestTruthTable:
    def test_the_pictures_are_those_of_truth_table(self, table, tiny):
        expected = truth_table(
            "smile", "hair = black", "age > 0.5", n=2, seed=3, model=tiny, device="cpu", progress=False
        )
        assert (table["state"], table["kind"], table["total"], table["done"]) == ("done", "table", 16, 16)
        assert drawn(table) == pixels(expected.results)
        assert table["literals"] == ["smile", "hair = black", "age > 0.5"]
        assert table["rows"][0]["values"] == [True, True, True]
        assert table["rows"][5]["query"] == "NOT smile AND hair = black AND age <= 0.5"
        assert [(p["row"], p["column"]) for p in table["pictures"]] == [divmod(i, 2) for i in range(16)]
        assert all("of 2 satisfy" in row["summary"] for row in table["rows"])

    def test_a_contradiction_is_a_row_without_pictures(self, studio):
        job = studio.draw("/api/truth-tables", literals=["hair = black", "hair = brown"], n=1)
        assert (job["total"], job["done"], len(job["rows"])) == (3, 3, 4)
        assert [bool(row["reason"]) for row in job["rows"]] == [True, False, False, False]
        assert [picture["row"] for picture in job["pictures"]] == [1, 2, 3]
        assert studio.get(f"/api/jobs/{job['id']}/pictures/2.png").status == 200

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"literals": []}, "literals: List should have at least 1 item"),
            ({"literals": ["smile"] * 2}, "smile is in the truth table twice"),
            ({"literals": ["smile", "beard", "glasses", "age > 0.5", "hair = black"]}, "1 to 4 attributes, not 5"),
            ({"literals": ["smile", "hat"]}, "'hat' is not an attribute"),
            ({"n": 33}, "66 pictures are too many"),
            ({"literals": ["x" * 5000]}, "5,000 characters"),
        ],
    )
    def test_wrong_requests(self, studio, change, words):
        answer = studio.post("/api/truth-tables", {"literals": ["smile"], "n": 1, **change})
        assert answer.status == 422
        assert words in answer.json()["message"]


class TestTraversal:
    def test_the_pictures_are_those_of_traverse(self, studio, tiny):
        job = studio.draw("/api/traversals", start="smile", end="beard AND NOT smile", steps=5, n=2, seed=1)
        gallery = traverse(
            "smile", "beard AND NOT smile", 5, n=2, seed=1, model=tiny, device="cpu", progress=False
        )  # fmt: skip
        assert drawn(job) == pixels(gallery.results)
        assert [(p["row"], p["column"]) for p in job["pictures"]] == [divmod(i, 5) for i in range(10)]
        (section,) = gallery.sections
        for i, picture in enumerate(job["pictures"]):
            assert [clause["text"] for clause in picture["clauses"]] == ["smile", "beard AND NOT smile"]
            assert picture["clauses"][1]["probability"] == pytest.approx(section.probability[1][i])
            assert picture["satisfied"] == bool(section.holds[0][i] or section.holds[1][i])
            assert picture["verdict"].count("hold") == 2

    def test_wrong_requests(self, studio):
        for change, words in (
            ({"end": "hat"}, "'hat' is not"), ({"steps": 1}, "steps: Input should be greater than or equal to 2"),
            ({"steps": 40, "n": 2}, "80 pictures"), ({"start": "smile AND NOT smile"}, ""),
        ):  # fmt: skip
            answer = studio.post("/api/traversals", {"start": "smile", "end": "beard", **change})
            assert answer.status == 422
            assert words in answer.json()["message"]


class TestGallery:
    def test_the_pictures_are_those_of_the_queries(self, studio, tiny):
        queries = ["smile", "beard XOR glasses"]
        job = studio.draw("/api/galleries", queries=queries, n=3, seed=2, title="Two <queries>")
        expected = [generate(query, 3, model=tiny, seed=2, device="cpu", progress=False) for query in queries]
        assert drawn(job) == pixels(expected)
        assert [row["query"] for row in job["rows"]] == queries
        page = studio.get(f"/api/jobs/{job['id']}/gallery.html?title=Two+%3Cqueries%3E")
        assert page.headers["content-type"].startswith("text/html")
        assert 'filename="energyql.html"' in page.headers["content-disposition"]
        text = page.body.decode()
        assert "Two &lt;queries&gt;" in text
        assert "beard XOR glasses" in text
        assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text

    def test_wrong_requests(self, studio):
        for body, words in (
            ({"queries": ["smile", "hat"]}, "query 2: 'hat' is not"), ({"queries": []}, "queries: List should have"),
            ({"queries": ["smile"] * 65, "n": 1}, "65 pictures"),
        ):  # fmt: skip
            answer = studio.post("/api/galleries", body)
            assert answer.status == 422
            assert words in answer.json()["message"]


def test_a_query_without_accepted_pictures_is_a_row(tiny):
    """The judge sees beards alone."""

    def judge(images):
        return {"smile": [False] * len(images), "beard": [True] * len(images)}

    gallery = Gallery(n=8, model=replace(load_model(tiny), judge=judge), verify="sure", attempts=2)
    result = JobResult("gallery", 16, gallery.vocabulary)
    job = SimpleNamespace(report=lambda stage, fraction: None, check=lambda: None)
    draw_gallery(gallery, ["smile", "beard"], job, result)
    reason = "none of 8 pictures was accepted, and attempts is 2"
    assert [(row.query, row.reason) for row in result.rows] == [("smile", reason), ("beard", "")]
    assert (result.total, len(result.pictures), {picture.row for picture in result.pictures}) == (8, 8, {1})
    table = JobResult("table", 16, gallery.vocabulary)
    draw_table(gallery, check_literals(["smile"], gallery.vocabulary), job, table)
    assert [row.reason for row in table.rows] == [reason, ""]


class TestDownloads:
    def test_everything_of_a_table(self, studio, table):
        base = f"/api/jobs/{table['id']}"
        with zipfile.ZipFile(io.BytesIO(studio.get(f"{base}/result.zip").body)) as packed:
            names = set(packed.namelist())
        assert {"energyql/index.html", "energyql/00/00001.png", "energyql/07/result.json"} <= names
        assert studio.get(f"{base}/grid.png").body.startswith(b"\x89PNG")
        assert len(studio.get(f"{base}/provenance.json").json()) == 8

    def test_a_drawing_has_a_page_and_an_edit_has_none(self, studio):
        draw = studio.start(query="smile", n=2)
        edit = studio.start("/api/edits", query="smile", steps=["beard"])
        studio.finish(draw)
        studio.finish(edit)
        assert b"smile" in studio.get(f"/api/jobs/{draw}/gallery.html").body
        answer = studio.get(f"/api/jobs/{edit}/gallery.html")
        assert (answer.status, answer.json()["error"]) == (404, "NotKept")


def test_they_are_cancelled_like_all_jobs(studio):
    long = {"sampler": "published-predictor-corrector"}
    for path, body in (
        ("/api/truth-tables", {"literals": ["smile", "beard", "glasses"], "n": 8}),
        ("/api/traversals", {"start": "smile", "end": "beard", "steps": 8, "n": 8}),
        ("/api/galleries", {"queries": ["smile", "beard"], "n": 32}),
    ):
        key = studio.start(path, **body, **long)
        while studio.get(f"/api/jobs/{key}").json()["state"] == "waiting":
            pass
        studio.request("DELETE", f"/api/jobs/{key}")
        assert studio.finish(key, seconds=10)["state"] == "cancelled"
