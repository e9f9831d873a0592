"""Many connections: those within the limit are served, and one more is refused."""

import socket
from contextlib import ExitStack

from energyql.studio import web
from studio.client import serving


def test_idle_connections_within_the_limit_do_no_harm_and_one_more_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(web, "CONNECTIONS", 10)
    with serving([str(tiny)]) as client, ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(socket.create_connection(("127.0.0.1", client.port), timeout=20))
        assert client.get("/api/info").status == 200
        for _ in range(8):
            stack.enter_context(socket.create_connection(("127.0.0.1", client.port), timeout=20))
        assert client.get("/api/info").status == 503
