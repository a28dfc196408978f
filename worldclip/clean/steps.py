"""Steps of one piece of hygiene: one function over many files, each file a task with an output of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from worldclip.engines import Engine, Task

#: Called with a step's name, tasks done and tasks in all.
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Runs `function(file, *more, output)` for every file; outputs of a step lie in `folder`."""

    folder: Path
    engine: Engine
    report: Report | None

    def run(self, what: str, function: Callable[..., None], files: Sequence[Any], *more: Any) -> list[Path]:
        """Return the outputs, one for each of `files` (paths, or whatever else tells the tasks apart)."""
        outputs = [self.folder / f"{what}-{number:05d}" for number in range(len(files))]
        self.into(what, function, files, outputs, *more)
        return outputs

    def into(
        self, what: str, function: Callable[..., None], files: Sequence[Any], outputs: Sequence[Path], *more: Any
    ) -> None:
        """As `run`, into outputs of the caller's."""
        tasks = [
            Task(
                name=f"{what} {number} ({_name(file)})",
                function=function,
                arguments=(file, *more, output),
                output=output,
            )
            for number, (file, output) in enumerate(zip(files, outputs, strict=True))
        ]
        self.engine.run(tasks, partial(self.report, what) if self.report else None)


def _name(file: Any) -> str:
    return " ".join(map(str, file)) if isinstance(file, tuple) else str(file)
