"""The token of a studio that other machines can reach."""

import http.client
import re

import pytest

from energyql.studio.guard import access_to
from energyql.studio.web import addresses_of
from studio.client import serving

TOKEN = "a-token_of-a-test"


@pytest.fixture(scope="module")
def shared(tiny):
    with serving([str(tiny)], host="0.0.0.0", token=TOKEN) as client:
        yield client


def cookie_of(answer):
    return answer.headers["set-cookie"].split(";")[0]


@pytest.mark.parametrize("path", ["/", "/static/main.js", "/api/info", "/api/openapi.json", "/api/jobs/x/grid.png"])
@pytest.mark.parametrize("end", ["", "?token=", "?token=wrong", "?token=a-token_of-a-tes", "?token=%FF%00"])
def test_nothing_is_shown_without_it(shared, path, end):
    answer = shared.get(path + end)
    assert answer.status == 401
    assert answer.json()["error"] == "NoToken"
    assert "Authorization: Bearer" in answer.json()["hint"]
    assert TOKEN not in answer.body.decode()


def test_posts_and_cancels_need_it_too(shared):
    assert shared.post("/api/check", {"query": "smile"}).status == 401
    assert shared.request("DELETE", "/api/jobs/x").status == 401
    right = {"authorization": f"Bearer {TOKEN}"}
    assert shared.post("/api/check", {"query": "smile"}, **right).status == 200
    assert shared.request("DELETE", "/api/jobs/x", headers=right).status == 404
    assert shared.get("/api/info", authorization=f"Basic {TOKEN}").status == 401


def test_the_address_gives_a_cookie_and_leaves_the_token_behind(shared):
    entered = shared.get(f"/?token={TOKEN}")
    assert (entered.status, entered.headers["location"]) == (303, "/")
    attributes = {part.strip().lower() for part in entered.headers["set-cookie"].split(";")[1:]}
    assert {"httponly", "samesite=lax", "path=/"} <= attributes
    cookie = cookie_of(entered)
    assert str(shared.port) in cookie
    for path in ("/", "/static/main.js", "/api/info"):
        assert shared.get(path, cookie=f"other=1; {cookie}").status == 200
    assert shared.get("/api/info", cookie=cookie[:-1]).status == 401
    assert shared.get("/api/info", cookie=cookie.replace(str(shared.port), "1")).status == 401


def test_the_cookie_does_not_open_it_to_other_sites(shared):
    cookie = cookie_of(shared.get(f"/?token={TOKEN}"))
    headers = {"cookie": cookie, "origin": "https://evil.example"}
    assert shared.post("/api/check", {"query": "smile"}, **headers).status == 403
    assert shared.get("/api/info", cookie=cookie, host="evil.example").status == 403


def test_a_token_in_a_program_of_any_path(shared):
    assert shared.get(f"/api/info?token={TOKEN}").status == 200


@pytest.mark.parametrize(
    ("host", "given", "has"),
    [
        ("127.0.0.1", None, False), ("localhost", None, False), ("127.0.0.1", "mine", True), ("0.0.0.0", None, True),
        ("0.0.0.0", "", False), ("0.0.0.0", "mine", True), ("::", None, True), ("faces.example", None, True),
    ],
)  # fmt: skip
def test_who_needs_one(host, given, has):
    token = access_to(host, (), given).token
    assert (token is not None) is has
    assert token == given or not given
    assert not has or given or len(token) >= 32


def test_made_ones_differ():
    assert access_to("0.0.0.0").token != access_to("0.0.0.0").token


def test_addresses_can_be_opened(shared):
    """Nobody can open 0.0.0.0; the addresses that are printed lead to this studio."""
    printed = addresses_of("0.0.0.0", shared.port, ["faces.example"], TOKEN)
    assert printed[0] == f"http://127.0.0.1:{shared.port}/?token={TOKEN}"
    assert printed[-1] == f"http://faces.example:{shared.port}/?token={TOKEN}"
    assert not [address for address in printed if "0.0.0.0" in address]
    host, port, path = re.fullmatch(r"http://([^:/]+):(\d+)(/.*)", printed[0]).groups()
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("GET", path)
    assert connection.getresponse().status == 303
    connection.close()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:80/"),
        ("::1", "http://[::1]:80/"),
        ("faces.example", "http://faces.example:80/"),
        ("::", "http://[::1]:80/"),
    ],
)
def test_other_hosts(host, expected):
    assert addresses_of(host, 80, (), None)[0] == expected
