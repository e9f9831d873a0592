"""Connections that do nothing lock nobody out."""

import socket
import time
from contextlib import ExitStack, suppress

import pytest

from energyql.studio import guard, limits
from studio.client import serving

SLOW_BODY = (
    b"POST /api/check HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
)


def connect(client):
    return socket.create_connection(("127.0.0.1", client.port), timeout=20)


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nhost: ", SLOW_BODY], ids=["nothing", "headers", "body"])
def test_idle_connections_make_room(tiny, begun):
    with serving([str(tiny)]) as client, ExitStack() as stack:
        idle = [stack.enter_context(connect(client)) for _ in range(150)]
        for each in idle:
            with suppress(OSError):  # it may have made room already
                each.sendall(begun)
        started = time.monotonic()
        for _ in range(5):
            for path in ("/", "/static/main.js", "/api/info"):
                assert client.get(path).status == 200
        assert time.monotonic() - started < guard.REQUEST_SECONDS / 2
        assert client.draw(query="smile", n=1)["state"] == "done"


def test_the_one_that_waits_longest_goes_first(tiny, monkeypatch):
    monkeypatch.setattr(limits, "CONNECTIONS", 3)
    with serving([str(tiny)]) as client, ExitStack() as stack:
        first, second, third = (stack.enter_context(connect(client)) for _ in range(3))
        time.sleep(0.2)
        first.sendall(b"GET /api/info HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert first.recv(100).startswith(b"HTTP/1.1 200")
        stack.enter_context(connect(client))
        assert second.recv(1) == b""
        third.sendall(b"GET /api/info HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert third.recv(100).startswith(b"HTTP/1.1 200")


def test_connections_that_are_worked_for_are_kept_and_a_new_one_is_refused_in_json(tiny, monkeypatch):
    monkeypatch.setattr(limits, "CONNECTIONS", 0)
    with serving([str(tiny)]) as client, ExitStack() as stack:
        monkeypatch.setattr(limits.BoundedProtocol, "idle", False)
        refused = stack.enter_context(connect(client))
        data = b""
        while part := refused.recv(4096):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503")
    assert b"application/json" in head
    assert b"retry-after: 2" in head.lower()
    assert b'"error":"Busy"' in body


def test_a_client_that_never_takes_its_response_makes_room(tiny, monkeypatch):
    monkeypatch.setattr(limits, "CONNECTIONS", 2)
    with serving([str(tiny)]) as client, ExitStack() as stack:
        greedy = stack.enter_context(socket.socket())
        greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        greedy.connect(("127.0.0.1", client.port))
        greedy.sendall(b"GET /static/main.js HTTP/1.1\r\nhost: localhost\r\n\r\n" * 400)
        time.sleep(0.5)
        for _ in range(6):
            assert client.get("/api/info").status == 200


@pytest.mark.parametrize("text", [b"\x16\x03\x01\x02\x00\x01\x00", b"hello\r\n\r\n", b"GET /\r\n\r\n"])
def test_what_is_no_http_is_refused_in_json(studio, text):
    with connect(studio) as connection:
        connection.sendall(text + b"\r\n\r\n")
        data = b""
        while part := connection.recv(4096):
            data += part
    assert data.startswith(b"HTTP/1.1 400")
    assert b'"error":"HTTPError"' in data
