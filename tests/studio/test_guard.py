"""Who may ask, and how much."""

import http.client
import time

import pytest

from energyql.studio import guard
from energyql.studio import studio as module
from energyql.studio.guard import HEADERS, access_to, is_loopback
from studio.client import serving


class TestHosts:
    @pytest.mark.parametrize(
        "host", ["127.0.0.1", "localhost:{port}", "127.0.0.1:1", "[::1]:80", "LOCALHOST", "localhost."]
    )
    def test_names_of_this_machine(self, studio, host):
        assert studio.get("/api/info", host=host.format(port=studio.port)).status == 200

    @pytest.mark.parametrize(
        "host", ["evil.example", "evil.example:8420", "192.168.0.7", "", "127.0.0.1.evil.example", "[::2]"]
    )
    def test_other_names_are_refused(self, studio, host):
        answer = studio.get("/api/info", host=host)
        assert answer.status == 403
        assert answer.json()["error"] == "Forbidden"
        assert "--allow-host" in answer.json()["hint"]

    def test_a_studio_that_others_can_reach_takes_numbers_but_no_names(self, tiny):
        with serving([str(tiny)], host="0.0.0.0", allowed=["faces.example"]) as client:
            for host in ("192.168.0.7:80", "faces.example", "FACES.example:99"):
                assert client.get("/api/info", host=host).status == 200
            assert client.get("/api/info", host="evil.example").status == 403

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "0.0.0.0", "::", "faces.example"])
    def test_loopback(self, host):
        assert is_loopback(host) is (host not in ("0.0.0.0", "::", "faces.example"))
        assert access_to(host).numbers is not is_loopback(host)


class TestOtherSites:
    @pytest.mark.parametrize(
        "headers",
        [
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": "http://localhost:1"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
        ],
    )
    def test_they_are_refused(self, studio, headers):
        assert studio.post("/api/check", {"query": "smile"}, **headers).status == 403
        assert studio.get("/api/info", **headers).status == 403
        assert studio.request("DELETE", "/api/jobs/x", headers=headers).status == 403

    def test_a_link_from_elsewhere_opens_the_page_and_posts_nothing(self, studio):
        link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
        assert studio.get("/", **link).status == 200
        assert studio.post("/api/check", {"query": "smile"}, **link).status == 403

    def test_the_own_page_is_not(self, studio):
        own = {"origin": studio.url.rstrip("/"), "sec-fetch-site": "same-origin"}
        assert studio.post("/api/check", {"query": "smile"}, **own).status == 200

    def test_no_one_is_given_leave_by_cors(self, studio):
        answer = studio.request(
            "OPTIONS", "/api/jobs", headers={"origin": "https://evil.example", "access-control-request-method": "POST"}
        )
        assert answer.status == 403
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]


class TestBodies:
    @pytest.mark.parametrize(
        "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
    )
    def test_only_json(self, studio, kind):
        answer = studio.request("POST", "/api/check", b'{"query": "smile"}', {"content-type": kind})
        assert answer.status == 415
        assert "application/json" in answer.json()["hint"]

    def test_a_large_one_is_refused_by_what_it_says(self, studio):
        answer = studio.request(
            "POST", "/api/check", b"{}", {"content-type": "application/json", "content-length": "999999999"}
        )
        assert answer.status == 413
        assert answer.json()["message"] == "the request is larger than 256 KiB"

    def test_a_large_one_is_refused_by_what_it_is(self, studio):
        def endless():
            for _ in range(10_000):
                yield b" " * 4096

        connection = http.client.HTTPConnection("127.0.0.1", studio.port, timeout=10)
        try:
            connection.request(
                "POST", "/api/check", endless(), {"content-type": "application/json"}, encode_chunked=True
            )
        except (BrokenPipeError, ConnectionResetError):
            pass  # the answer came before the end of the request
        else:
            assert connection.getresponse().status == 413
        finally:
            connection.close()
        assert studio.get("/api/info").status == 200

    def test_one_that_never_comes(self, studio, monkeypatch):
        monkeypatch.setattr(guard, "REQUEST_SECONDS", 0.2)
        connection = http.client.HTTPConnection("127.0.0.1", studio.port, timeout=10)
        connection.putrequest("POST", "/api/check")
        connection.putheader("content-type", "application/json")
        connection.putheader("content-length", "18")
        connection.endheaders(b'{"query"')
        answer = connection.getresponse()
        assert answer.status == 408
        assert b"did not arrive within 0.2 seconds" in answer.read()
        connection.close()

    def test_an_answer_may_take_longer_than_the_headers(self, studio, monkeypatch):
        monkeypatch.setattr(guard, "REQUEST_SECONDS", 0.2)
        check = module.check_query

        def slow(*arguments):
            time.sleep(0.5)
            return check(*arguments)

        monkeypatch.setattr(module, "check_query", slow)
        assert studio.post("/api/check", {"query": "smile"}).status == 200


def test_headers_are_everywhere(studio):
    for path in ("/", "/static/main.js", "/api/info", "/api/nothing"):
        headers = studio.get(path).headers
        assert {name: headers[name] for name in HEADERS} == HEADERS
