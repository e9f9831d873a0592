"""Things that are no regular files, in place of files that are read or written."""

import os


def put(path, kind, target=None):
    """Make a thing at `path`, which does not exist; "link" leads to `target`, "dangling" to a file that is missing."""
    {
        "nothing": lambda: None, "empty": path.touch, "folder": path.mkdir, "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"), "link": lambda: path.symlink_to(target),
        "dangling": lambda: path.symlink_to(path.parent / "elsewhere"), "loop": lambda: path.symlink_to(path),
    }[kind]()  # fmt: skip
