"""Timed cases beside their peers. Every case compares the answers before it speaks of time."""

from __future__ import annotations

import re
from pathlib import Path


def peak_mb() -> float:
    """MiB that this process has held at once at most; not `ru_maxrss`, which begins at what its parent had."""
    told = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    return int(told[1]) / 1024 if told else 0.0
