"""An S3 server that can be killed: `python -m dataset.store PORT RECORDING FAULTS`.

It is moto, which keeps everything in memory. So it writes down what is asked of it, and asks itself the same again when
it is started again, before it listens to others. It answers "SlowDown" to as many writes as the file FAULTS says.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


def serve(port, recording, faults):
    os.environ["MOTO_RECORDER_FILEPATH"] = str(recording)
    from moto.moto_api import recorder
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server, run_simple

    application = DomainDispatcherApplication(create_backend_app)
    if recording.exists():
        whole = [line for line in recording.read_text().splitlines() if is_json(line)]  # the last may be cut
        recording.write_text("".join(f"{line}\n" for line in whole))
        hidden = make_server("127.0.0.1", 0, application, threaded=True)
        threading.Thread(target=hidden.serve_forever, daemon=True).start()
        recorder.replay_recording(f"http://127.0.0.1:{hidden.port}")
    recorder.start_recording()

    def faulty(environ, start):
        left = int(faults.read_text() or 0) if faults.exists() else 0
        if left > 0 and environ["REQUEST_METHOD"] == "PUT":
            faults.write_text(str(left - 1))
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", str(len(BUSY)))])
            return [BUSY]
        return application(environ, start)

    run_simple("127.0.0.1", port, faulty, threaded=True)


def is_json(line):
    try:
        return bool(json.loads(line))
    except ValueError:
        return False


class Server:
    """The server as a process, on one port through all its lives."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address, self.faults = f"http://127.0.0.1:{self.port}", Path(folder) / "faults"
        self._command = [sys.executable, "-m", "dataset.store", str(self.port), str(Path(folder) / "log"), self.faults]
        self._process = None

    def start(self):
        paths = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [str(part) for part in self._command],
            env=os.environ | {"PYTHONPATH": paths}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(600):
            try:
                urlopen(f"{self.address}/moto-api/", timeout=5).close()
                return
            except OSError:
                assert self._process.poll() is None, "the server has ended"
                time.sleep(0.1)
        raise TimeoutError("the server does not answer")

    def kill(self):
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextmanager
def served(folder):
    """Yield a server that runs."""
    server = Server(folder)
    try:
        server.start()
        yield server
    finally:
        server.kill()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
