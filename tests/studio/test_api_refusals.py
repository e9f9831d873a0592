"""Requests that the HTTP API refuses, and how."""

import pytest

QUERY = "smile AND NOT (glasses OR beard)"


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
            ({"query": "smile", "seed": -1}, "seed: Input should be greater than or equal to 0"),
            ({"query": "smile", "seed": 2**53}, "seed: Input should be less than or equal to 9007199254740991"),
            ({"query": "smile", "sampler": "magic"}, "there is no sampler 'magic'"),
            ({"query": "smile", "semantics": "fuzzy"}, "no semantics is called 'fuzzy': choose one of exact, "),
            ({"query": "smile", "strength": 0}, "strength: Input should be greater than 0"),
            ({"query": "smile", "truncation": 0.1}, "do not hold at truncation 0.1"),
            ({"query": "smile", "model": "/etc/passwd"}, "this studio has no model '/etc/passwd'"),
            ({"query": "smile", "colour": "red"}, "colour: Extra inputs are not permitted"),
            ({"query": 5}, "query: Input should be a valid string"),
            ({"query": "smile" * 1000}, "this studio takes 4,000"),
            ({}, "query: Field required"),
            ([], "the request: Input should be a valid dictionary"),
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
        assert answer.json()["hint"]

    @pytest.mark.parametrize("path", ["/", "/static/gallery.css", "/static/main.js"])
    def test_the_page_can_be_asked_whether_it_is_there(self, studio, path):
        answer = studio.request("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")

    def test_wrong_method(self, studio):
        assert studio.request("DELETE", "/api/info").status == 405
