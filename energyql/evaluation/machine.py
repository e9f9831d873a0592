"""What numbers were computed on."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from energyql.version import __version__


def machine() -> dict[str, Any]:
    """Processor, system, versions and threads."""
    return {
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "energyql": __version__,
    }


def _processor() -> str:
    try:  # platform.processor() is empty or a mere "x86_64" on Linux
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} logical cores" if names else platform.processor() or platform.machine()
