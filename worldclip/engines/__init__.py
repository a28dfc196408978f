"""Where shard tasks run. An engine decides where and when, never what the answer is."""

from __future__ import annotations

from worldclip.engines.contract import Engine, Task
from worldclip.engines.local import LocalEngine, kept_workers

__all__ = ["Engine", "LocalEngine", "Task", "kept_workers"]
