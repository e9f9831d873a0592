"""The licence text in a checkpoint, as far as it carries one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from energyql.generators.checkpoints.network_pickle import Checkpoint
from energyql.generators.checkpoints.records import ObjectRecord

MAX_LENGTH = 20_000
_ENTRIES = ("license", "licence", "LICENSE")
_SOURCES = ("module_src", "build_module_src")
"""Where official pickles of PyTorch and of TensorFlow hold the program text of a network."""


def licence_text(checkpoint: Checkpoint) -> str:
    """Return the entry "license" of the file, else the notice at the head of the program text in it; "" for neither."""
    for holder in (checkpoint.metadata, checkpoint.content):
        for name in _ENTRIES:
            if isinstance(holder, dict) and isinstance(holder.get(name), str):
                return str(holder[name]).strip()[:MAX_LENGTH]
    for text in _programs(checkpoint.content):
        comment = text[:MAX_LENGTH].lstrip().split("\n")
        end = next((i for i, line in enumerate(comment) if not line.startswith("#")), len(comment))
        notice = "\n".join(line.lstrip("# ").rstrip() for line in comment[:end]).strip()
        if "copyright" in notice.lower() or "licen" in notice.lower():
            return notice
    return ""


def _programs(content: Any) -> Iterator[str]:
    networks = content.values() if isinstance(content, dict) else content if isinstance(content, tuple) else [content]
    for network in networks:
        if isinstance(network, ObjectRecord):
            for part in (network.state, *network.arguments):
                for name in _SOURCES:
                    if isinstance(part, dict) and isinstance(part.get(name), str):
                        yield part[name]
