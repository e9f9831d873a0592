"""A studio on a real socket, and requests to it with nothing but the standard library."""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
import traceback
from contextlib import contextmanager

from energyql.studio.app import create_app
from energyql.studio.guard import access_to
from energyql.studio.limits import Limits
from energyql.studio.serving import load_models
from energyql.studio.studio import Studio
from energyql.studio.web import listen, web_server


class Answer:
    """Status, headers and body of a response."""

    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    def json(self):
        return json.loads(self.body)


class Client:
    """Asks one studio; every call has a connection of its own, as different users have."""

    def __init__(self, port, studio):
        self.port, self.studio = port, studio
        self.url = f"http://127.0.0.1:{port}/"

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("content-type", "application/json")
        try:
            connection.request(method, path, body, headers)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.request("GET", path, headers=headers)

    def post(self, path, body, **headers):
        return self.request("POST", path, body, headers)

    def start(self, path="/api/jobs", **body):
        """Queue up a job that must be accepted."""
        answer = self.post(path, body)
        assert answer.status == 202, answer.body
        return answer.json()["id"]

    def finish(self, key, seconds=120):
        """Ask about a job until it is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            answer = self.get(f"/api/jobs/{key}")
            assert answer.status == 200, answer.body
            job = answer.json()
            if job["state"] not in ("waiting", "running"):
                return job
            time.sleep(0.02)
        raise AssertionError(f"the job is still {job['state']}: {job['stage']} {job['fraction']}")

    def draw(self, path="/api/jobs", **body):
        return self.finish(self.start(path, **body))


@contextmanager
def serving(models, limits=None, host="127.0.0.1", allowed=(), token=""):
    """A studio with some models, or one that is given, until the block ends."""
    studio = models if isinstance(models, Studio) else Studio(load_models(models, "cpu"), limits or Limits())
    socket = listen("127.0.0.1", 0)
    socket.listen(64)
    server = web_server(create_app(studio, access_to(host, allowed, token)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield Client(socket.getsockname()[1], studio)
    finally:
        server.should_exit = True
        thread.join(60)  # a job, a loaded machine
        socket.close()
        assert not thread.is_alive(), stacks()


def stacks():
    """Where all threads are, for a server that does not end."""
    return "\n\n".join("".join(traceback.format_stack(frame)) for frame in sys._current_frames().values())
