"""The HTTP API on a real socket, with a tiny model."""

import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from markup import decode
from PIL import Image
from toys import VOCABULARY

from energyql import generate
from energyql.language.lexical import keywords
from energyql.sampling import SAMPLERS

QUERY = "smile AND NOT (glasses OR beard)"


def whole(result):
    """Pictures of a result as the API sends them, to compare."""
    return [image.tobytes() for image in result.images]


def sent(job):
    return [decode(picture["image"]).convert("RGB").tobytes() for picture in job["pictures"]]


class TestInfo:
    def test_all_that_can_be_chosen(self, studio):
        info = studio.get("/api/info").json()
        assert info["samplers"] == list(SAMPLERS)
        assert info["semantics"] == ["exact", "product", "lace"]
        assert set(info["keywords"]) == keywords()
        assert info["limits"]["pictures"] == 64

    def test_the_model(self, studio):
        (model,) = studio.get("/api/info").json()["models"]
        assert model["name"] == "tiny"
        assert [attribute["name"] for attribute in model["attributes"]] == list(VOCABULARY)
        hair = next(attribute for attribute in model["attributes"] if attribute["name"] == "hair")
        assert hair["values"] == ["black", "brown", '"dark red"']
        assert (model["truncation"], model["truncation_low"], model["truncation_high"]) == (0.7, 0.5, 1.0)
        assert model["judge"] == "image judge"

    def test_examples_are_queries_of_the_model(self, studio):
        (model,) = studio.get("/api/info").json()["models"]
        assert len(model["examples"]) >= 3
        for query in model["examples"]:
            assert studio.post("/api/check", {"query": query}).json()["ok"], query


class TestCheck:
    def check(self, studio, query, **settings):
        answer = studio.post("/api/check", {"query": query, **settings})
        assert answer.status == 200
        return answer.json()

    def test_a_query_and_its_circuit(self, studio):
        check = self.check(studio, "smile and (not glasses)")
        assert check["ok"]
        assert check["canonical"] == "smile AND NOT glasses"
        assert check["caption"] == "Compiled circuit"
        assert check["drawing"].startswith("<svg")
        assert "log P(query)" in check["explanation"]
        assert check["warning"] is None

    def test_other_semantics_show_the_tree(self, studio):
        assert self.check(studio, QUERY, semantics="lace")["caption"].startswith("Tree")

    def test_unknown_names_with_their_places(self, studio):
        problem = self.check(studio, "smile AND NOT (glases OR beerd)")["problem"]
        assert problem["error"] == "UnknownAttribute"
        assert problem["spans"] == [[15, 21], [25, 30]]
        assert (problem["line"], problem["column"]) == (1, 16)
        assert problem["hint"] == "did you mean glasses, beard?"
        assert "^^^^^^    ^^^^^" in problem["drawing"]

    @pytest.mark.parametrize(
        ("query", "corrected"),
        [
            (
                "smile AND NOT (glases OR beerd)",
                ["smile AND NOT (glasses OR beerd)", "smile AND NOT (glases OR beard)"],
            ),
            ("smile OR hair IN {blak, brown}", ["smile OR hair IN {black, brown}"]),
            ("NOT black", ["NOT hair = black"]),
            ("hair AND smile", [f"hair = {v} AND smile" for v in ("black", "brown", '"dark red"')]),
            ("smile = yes", ["smile", "NOT smile"]),
            ("🙂", []),
            ("age", ["age > 0.5"]),
            ("entirely_other_word", []),
        ],
    )
    def test_corrections_can_be_made_by_a_click(self, studio, query, corrected):
        problem = self.check(studio, query)["problem"]
        made = [query[: s["span"][0]] + s["text"] + query[s["span"][1] :] for s in problem["suggestions"]]
        assert made == corrected
        for text in made if len(made) != 2 or "beerd" not in query else []:
            assert self.check(studio, text)["ok"]

    @pytest.mark.parametrize(
        ("query", "error", "spans"),
        [
            ("smile AND", "QuerySyntaxError", [[9, 9]]),
            ("", "QuerySyntaxError", [[0, 0]]),
            ("smile AND NOT smile", "Contradiction", [[0, 5], [10, 19]]),
            ("🙂 AND smile", "QuerySyntaxError", [[0, 1]]),
            ("smile\nAND hair", "KindError", [[10, 14]]),
            ("age > 7", "KindError", [[6, 7]]),
        ],
    )
    def test_other_mistakes(self, studio, query, error, spans):
        check = self.check(studio, query)
        assert not check["ok"]
        assert check["problem"]["error"] == error
        assert check["problem"]["spans"] == spans

    def test_a_query_that_asks_for_nothing_is_a_warning(self, studio):
        check = self.check(studio, "smile OR NOT smile")
        assert check["ok"]
        assert "always true" in check["warning"]

    def test_a_query_that_is_too_long(self, studio):
        check = self.check(studio, "smile AND " * 500)
        assert check["problem"]["error"] == "LimitError"
        assert "4,000" in check["problem"]["message"]

    def test_markup_in_a_query_stays_text(self, studio):
        check = self.check(studio, 'smile OR hair = "<script>"')
        assert not check["ok"]
        assert self.check(studio, 'hair = "dark red"')["drawing"].count("<script") == 0


class TestDrawing:
    def test_the_pictures_are_those_of_generate(self, studio, tiny):
        job = studio.draw(query=QUERY, n=5, seed=3)
        expected = generate(QUERY, 5, model=tiny, seed=3, device="cpu", progress=False)
        assert job["state"] == "done"
        assert sent(job) == whole(expected)
        assert [picture["index"] for picture in job["pictures"]] == [0, 1, 2, 3, 4]
        assert [picture["satisfied"] for picture in job["pictures"]] == expected.satisfied.tolist()
        assert job["summary"] == expected.summary()

    def test_what_is_known_of_a_picture(self, studio):
        job = studio.draw(query=QUERY, n=3, seed=1)
        picture = job["pictures"][2]
        assert [clause["text"] for clause in picture["clauses"]] == ["smile", "NOT glasses", "NOT beard"]
        product = 1.0
        for clause in picture["clauses"]:
            product *= clause["probability"]
        assert picture["probability"] == pytest.approx(product, rel=1e-4)
        assert set(picture["judged"]) == set(VOCABULARY)
        assert picture["alt"].startswith("Picture 3 of 3. Image judge: ")
        assert f"The query {QUERY} {'holds' if picture['satisfied'] else 'does not hold'}." in picture["alt"]
        assert (picture["width"], picture["height"], picture["status"]) == (16, 16, "OK")
        assert job["joined"] == "all must hold"
        assert all(clause["needed"] for clause in job["clauses"])
        assert job["clauses"][0]["least"] == min(each["clauses"][0]["probability"] for each in job["pictures"])

    def test_every_setting_arrives(self, studio, tiny):
        settings = {
            "semantics": "product",
            "sampler": "ode",
            "strength": 3.0,
            "truncation": 0.9,
            "seed": 7,
            "noise": "random",
        }
        job = studio.draw(query="smile OR beard", n=2, **settings)
        expected = generate("smile OR beard", 2, model=tiny, device="cpu", progress=False, **settings)
        assert sent(job) == whole(expected)
        facts = {fact["name"]: fact["text"] for fact in job["facts"]}
        assert (facts["semantics"], facts["truncation"], facts["seed"]) == ("product", "0.9", "7")
        assert facts["noise"] == "random"
        assert "strength=3" in facts["sampler"]
        assert job["pictures"][0]["probability"] is None

    def test_pictures_can_be_asked_for_from_a_place_on(self, studio):
        key = studio.start(query="smile", n=4)
        assert len(studio.finish(key)["pictures"]) == 4
        later = studio.get(f"/api/jobs/{key}?after=3").json()
        assert [picture["position"] for picture in later["pictures"]] == [3]
        assert later["done"] == 4

    def test_users_at_the_same_time_get_their_own(self, studio, tiny):
        wanted = [
            (f"{word} AND hair = {colour}", seed)
            for word in ("smile", "beard")
            for colour in ("black", "brown")
            for seed in (0, 1)
        ]

        def one(pair):
            return sent(studio.draw(query=pair[0], n=3, seed=pair[1]))

        with ThreadPoolExecutor(len(wanted)) as users:
            found = list(users.map(one, wanted))
        for (query, seed), pictures in zip(wanted, found, strict=True):
            assert pictures == whole(generate(query, 3, model=tiny, seed=seed, device="cpu", progress=False))
        assert len({pictures[0] for pictures in found}) > 4


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "words"),
        [
            ({"query": "smile AND"}, "an operand is missing after AND"),
            ({"query": "smil"}, "'smil' is not an attribute"),
            ({"query": "smile", "n": 65}, "this studio draws 64 pictures at a time"),
            ({"query": "smile", "n": 0}, "n: Input should be greater than or equal to 1"),
            ({"query": "smile", "n": "many"}, "n: Input should be a valid integer"),
            ({"query": "smile", "n": "4"}, "n: Input should be a valid integer"),
            ({"query": "smile", "n": True}, "n: Input should be a valid integer"),
            ({"query": "smile", "n": 4.0}, "n: Input should be a valid integer"),
            ({"query": "smile", "strength": "2"}, "strength: Input should be a valid number"),
            ({"query": "smile", "seed": False}, "seed: Input should be a valid integer"),
            ({"query": "smile", "truncation": True}, "truncation: Input should be a valid number"),
            ({"query": "smile", "allow_weak": "smile"}, "allow_weak: Input should be a valid list"),
            ({"query": "smile", "seed": -1}, "seed: "),
            ({"query": "smile", "seed": 2**53}, "seed: "),
            ({"query": "smile", "sampler": "magic"}, "there is no sampler 'magic'"),
            ({"query": "smile", "semantics": "fuzzy"}, "semantics: "),
            ({"query": "smile", "strength": 0}, "strength: "),
            ({"query": "smile", "truncation": 0.1}, "do not hold at truncation 0.1"),
            ({"query": "smile", "model": "/etc/passwd"}, "this studio has no model '/etc/passwd'"),
            ({"query": "smile", "colour": "red"}, "colour: Extra inputs are not permitted"),
            ({"query": 5}, "query: Input should be a valid string"),
            ({"query": "smile" * 1000}, "this studio takes 4,000"),
            ({}, "query: Field required"),
            ([], "valid dictionary"),
        ],
    )
    def test_bad_requests_are_clear_messages(self, studio, body, words):
        answer = studio.post("/api/jobs", body)
        problem = answer.json()
        assert answer.status == 422
        assert words in problem["message"]
        assert set(problem) == {"error", "message", "hint", "spans", "suggestions", "line", "column", "drawing"}
        assert "Traceback" not in answer.body.decode()

    @pytest.mark.parametrize(
        "body", [b"{", b"", b"\xff\xfe", b'{"query": "\\ud800"}', b'{"query": "smile", "strength": NaN}']
    )
    def test_what_is_not_json(self, studio, body):
        answer = studio.request("POST", "/api/jobs", body, {"content-type": "application/json"})
        assert answer.status == 422
        assert answer.json()["error"] in ("InvalidRequest", "QuerySyntaxError")

    def test_where_it_is_not_json(self, studio):
        answer = studio.request("POST", "/api/check", b'{"query": smile}', {"content-type": "application/json"})
        assert answer.json()["message"] == "the request is not JSON: Expecting value at character 11"

    @pytest.mark.parametrize("body", [b'{"query": "\xff"}', b"[" * 100_000], ids=["UTF-8", "depth"])
    def test_json_that_cannot_be_read(self, studio, body):
        answer = studio.request("POST", "/api/check", body, {"content-type": "application/json"})
        assert answer.status == 400
        assert answer.json()["message"] == "the request is JSON that cannot be read"
        assert "UTF-8" in answer.json()["hint"]
        described = studio.get("/api/openapi.json").json()["paths"]
        assert "400" in described["/api/check"]["post"]["responses"]

    @pytest.mark.parametrize(
        "path", ["/api/jobs/nothing", "/api/jobs/nothing/grid.png", "/api/nowhere", "/static/../app.py"]
    )
    def test_what_is_not_there(self, studio, path):
        answer = studio.get(path)
        assert answer.status == 404
        assert answer.json()["message"]

    @pytest.mark.parametrize("path", ["/", "/static/gallery.css", "/static/main.js"])
    def test_the_page_can_be_asked_whether_it_is_there(self, studio, path):
        answer = studio.request("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")

    def test_wrong_method(self, studio):
        assert studio.request("DELETE", "/api/info").status == 405


@pytest.fixture(scope="module")
def key(studio):
    key = studio.start(query=QUERY, n=3, seed=2)
    studio.finish(key)
    return key


@pytest.fixture(scope="module")
def expected(tiny):
    return generate(QUERY, 3, model=tiny, seed=2, device="cpu", progress=False)


class TestDownloads:
    def test_a_picture_with_its_provenance(self, studio, key, expected):
        answer = studio.get(f"/api/jobs/{key}/pictures/1.png")
        assert answer.headers["content-disposition"] == 'attachment; filename="energyql-01.png"'
        with Image.open(io.BytesIO(answer.body)) as picture:
            assert picture.tobytes() == expected.images[1].tobytes()
            assert json.loads(picture.text["energyql"])["query"] == QUERY

    def test_the_grid(self, studio, key):
        with Image.open(io.BytesIO(studio.get(f"/api/jobs/{key}/grid.png").body)) as picture:
            assert picture.width > 300

    def test_provenance(self, studio, key, expected):
        (entry,) = studio.get(f"/api/jobs/{key}/provenance.json").json()
        assert entry == json.loads(json.dumps(expected.provenance | {"index": [0, 1, 2]}))

    def test_everything(self, studio, key):
        with zipfile.ZipFile(io.BytesIO(studio.get(f"/api/jobs/{key}/result.zip").body)) as packed:
            names = [f"{i:05d}.png" for i in range(3)]
            assert set(packed.namelist()) == {
                f"energyql/{name}" for name in [*names, "grid.png", "latents.safetensors", "result.json"]
            }
            assert json.loads(packed.read("energyql/result.json"))["provenance"]["seed"] == 2

    @pytest.mark.parametrize("position", ["3", "99", "x"])
    def test_pictures_that_are_not_there(self, studio, key, position):
        answer = studio.get(f"/api/jobs/{key}/pictures/{position}.png")
        assert answer.status == (422 if position == "x" else 404)
        assert answer.json()["message"]


def test_more_pictures_of_a_run(studio):
    whole_run = studio.draw(query=QUERY, n=5, seed=3)["pictures"]
    more = studio.draw(query=QUERY, n=2, first=3, seed=3)["pictures"]
    assert [picture["index"] for picture in more] == [3, 4]
    assert [picture["image"] for picture in more] == [picture["image"] for picture in whole_run[3:]]
    assert {type(picture["doubtful"]) for picture in whole_run} == {bool}
