"""Damage to files that a model was saved in."""

import json

import torch


def spoil(path, damage):
    """Make a file "missing", "empty", "half", "noise", a "folder" or a "pickle"."""
    data = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "pickle":
        torch.save({"std": torch.ones(5)}, path)
    elif damage != "missing":
        path.write_bytes({"empty": b"", "half": data[: len(data) // 2], "noise": b"\xff\x00\xfe" * 99}[damage])


def leave_out(path, key):
    """Remove an entry of a JSON file."""
    description = json.loads(path.read_text())
    del description[key]
    path.write_text(json.dumps(description))
