"""What every engine keeps to, and what they share: tasks, the ledger of a run, one try of a task.

    engine.run(tasks)   every task whose output is not there is done, exactly once; a failing one is tried again, then
                        set aside with its error while the rest is done; ShardsFailed names those that were given up

An output is written whole or not at all (`storage.replacing`); that it exists means that its task is done. So nothing
else is recorded, and the same command after kill -9 goes on where it stopped.
"""

from __future__ import annotations

import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from worldclip.errors import ConfigError, ShardsFailed, WorldclipError

# storage is imported where it is used: it brings pyarrow and NumPy, and a worker must set its threads before those.

#: Every worker is one thread of work; libraries that would start one thread a core are told so before they load.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """One shard's work: `function(*arguments)` writes `output` atomically.

    `function` is module-level and `arguments` can be pickled, as both travel to another process. `name` is what an
    error calls the task; names and outputs are unique within a run. Progress counts in `size`s.
    """

    name: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]
    output: Path
    size: int = 1


class Engine(Protocol):
    """Runs tasks somewhere."""

    @property
    def workers(self) -> int:
        """Tasks that may run at once; 0 is one, in this process."""

    def run(self, tasks: Sequence[Task], progress: Callable[[int, int], None] | None = None) -> None:
        """Do every task whose output is not there yet; return when all outputs are.

        `progress(done, all)`, in sizes of tasks, is called once at the start and after each that is done. One run at a
        time may write to a folder: temporary files that killed runs left below the outputs' folders are removed.

        Raises:
            ShardsFailed: some tasks failed every try; all others are done.
            ConfigError: two tasks share a name or an output.
        """


class Ledger:
    """What is still to do, how often each task failed, and which ones were given up."""

    def __init__(self, tasks: Sequence[Task], tries: int, progress: Callable[[int, int], None] | None) -> None:
        for what, values in (("name", [task.name for task in tasks]), ("output", [str(task.output) for task in tasks])):
            repeated = sorted(value for value, count in Counter(values).items() if count > 1)
            if repeated:
                raise ConfigError(f"tasks: each needs its own {what}; found more than once: {', '.join(repeated[:5])}.")
        self.todo = deque(task for task in tasks if not task.output.exists())
        self.failures: dict[str, str] = {}
        self._tries = tries
        self._failed: Counter[str] = Counter()
        self._all = sum(task.size for task in tasks)
        self._done = self._all - sum(task.size for task in self.todo)
        self._progress = progress
        self._report()

    def settle(self, task: Task, error: str | None) -> None:
        """Book one try. A task that failed goes to the end of the queue: what ailed it may have passed by then."""
        if error is None and not task.output.exists():
            error = f"it ended without writing {task.output}"
        if error is None:
            self._done += task.size
            self._report()
            return
        self._failed[task.name] += 1
        if self._failed[task.name] < self._tries:
            self.todo.append(task)
        else:
            self.failures[task.name] = error

    def _report(self) -> None:
        if self._progress:
            self._progress(self._done, self._all)


@contextmanager
def ledger_of(tasks: Sequence[Task], tries: int, progress: Callable[[int, int], None] | None) -> Iterator[Ledger]:
    """The ledger of one run. The folders of the outputs are swept before and after it: no worker is at work by then.

    Raises:
        ShardsFailed: at the end, if tasks were given up.
        ConfigError: two tasks share a name or an output.
    """
    from worldclip.storage import sweep  # noqa: PLC0415

    ledger = Ledger(tasks, tries, progress)
    folders = sorted({task.output.parent for task in tasks})
    for folder in folders:
        sweep(folder)
    try:
        yield ledger
    finally:
        for folder in folders:
            sweep(folder)  # Workers that were killed could not remove what they had begun.
    if ledger.failures:
        raise ShardsFailed(ledger.failures)


def check_tries(tries: int) -> None:
    """Refuse a number of tries below 1.

    Raises:
        ConfigError: it is.
    """
    if tries < 1:
        raise ConfigError(f"tries: found {tries}; allowed are 1 and above.")


def attempt(function: Callable[..., None], arguments: tuple[Any, ...]) -> str | None:
    """Call the function; return its error as one line of text, as not every exception survives a pipe."""
    try:
        function(*arguments)
    except WorldclipError as error:
        return str(error)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})"
        return f"{type(error).__name__}: {error}{place}"
    return None
