"""A folder of pictures to label, and the page for labels on a real socket."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from studio.client import Client

from energyql.labelling.app import create_app
from energyql.labelling.folder import PictureFolder
from energyql.studio.web import listen, web_server
from energyql.training.labels import Drawn


def picture_folder(path: Path) -> PictureFolder:
    """Six random pictures and two that heads chose."""
    made = PictureFolder(path, Drawn(7, 0.7, "0123456789ab")).having(6, (1_000_005, 1_000_002))
    for index in made.indices:
        Image.new("RGB", (16, 16), (index % 256, 80, 90)).save(made.file(index))
    return made


@contextmanager
def running(app):
    """A client of an application, until the block ends."""
    socket = listen("127.0.0.1", 0)
    socket.listen(64)
    server = web_server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield Client(socket.getsockname()[1], None)
    finally:
        server.should_exit = True
        thread.join(10)
        socket.close()
        assert not thread.is_alive()


def labelling(sheet):
    """A client of the page of a table, until the block ends."""
    return running(create_app(sheet))
