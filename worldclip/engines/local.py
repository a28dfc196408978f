"""Shard tasks on one machine: each done exactly once, whatever is killed.

A task writes one output, whole or not at all (`storage.replacing`); that the output exists means that the task is done.
So nothing else is recorded: the same command after kill -9 goes on where it stopped.

The pool is `multiprocessing` processes with a pipe each, not `concurrent.futures`: that one says only "a process
died" and fails every task in flight, so a task that kills its worker takes innocent ones with it. Here the
driver knows which task each worker holds, charges only that one, and replaces only that worker.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from worldclip.engines.contract import ONE_THREAD, Ledger, Task, attempt, check_tries, ledger_of
from worldclip.errors import ConfigError

#: Seconds a worker whose pipe has ended gets to end by itself before it is killed.
PATIENCE = 5.0

PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class LocalEngine:
    """Runs tasks in `workers` processes of one thread each; `workers=0` runs them in this process, one by one.

    A task is tried `tries` times in all. The driver hands out one task a worker at a time, so memory does not
    grow with the number of tasks.

    Raises:
        ConfigError: `workers` below 0 or `tries` below 1.
    """

    workers: int
    tries: int = 3

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ConfigError(f"workers: found {self.workers}; allowed are 0 (this process) and above.")
        check_tries(self.tries)

    def run(self, tasks: Sequence[Task], progress: Callable[[int, int], None] | None = None) -> None:
        """Do every task whose output is not there yet; return when all outputs are.

        `progress(done, all)`, in sizes of tasks, is called once at the start and after each that is done. One run at a
        time may write to a folder: temporary files that killed runs left below the outputs' folders are removed.

        Raises:
            ShardsFailed: some tasks failed every try; all others are done.
            ConfigError: two tasks share a name or an output.
        """
        with ledger_of(tasks, self.tries, progress) as ledger:
            if self.workers:
                _run_in_pool(ledger, self.workers)
            else:
                _run_here(ledger)


def _run_here(ledger: Ledger) -> None:
    while ledger.todo:
        task = ledger.todo.popleft()
        ledger.settle(task, attempt(task.function, task.arguments))


#: Idle workers that outlive a run, one list for each `kept_workers` that lasts.
_kept: list[list[_Worker]] = []


@contextmanager
def kept_workers() -> Iterator[None]:
    """Local runs within this share their workers: one starts once, and keeps what it has loaded.

    For runs whose files, once there, stay what they are: a worker does not read again what it holds.
    """
    _kept.append([])
    try:
        yield
    finally:
        _end(_kept.pop())


def _end(idle: list[_Worker]) -> None:
    for worker in idle:
        worker.pipe.close()  # all are told before one is waited for
    for worker in idle:
        worker.end(PATIENCE)


def _run_in_pool(ledger: Ledger, limit: int) -> None:
    idle = _kept[-1] if _kept else []
    busy: dict[Connection, tuple[_Worker, Task]] = {}
    try:
        while ledger.todo or busy:
            while ledger.todo and len(busy) < limit:
                task = ledger.todo.popleft()
                worker = idle.pop() if idle else _Worker()
                busy[worker.pipe] = worker, task
                worker.give(task)
            ready = wait(list(busy))
            for pipe in [pipe for pipe in busy if pipe in ready]:
                worker, task = busy.pop(pipe)
                try:
                    error = pipe.recv()
                    idle.append(worker)
                except (EOFError, OSError):
                    # It may have been killed after its work was done: what counts is the output.
                    died = worker.end(PATIENCE)
                    error = None if task.output.exists() else died
                ledger.settle(task, error)
    finally:
        # Those still busy are here only when this process is interrupted; their work is not waited for.
        for worker, _ in busy.values():
            worker.end(0)
        if not _kept:
            _end(idle)


class _Worker:
    """A process that does one task after another, told and answering through a pipe.

    It is spawned, not forked: a fork copies the locks of threads (torch, numba, Arrow) without the threads.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True, name="worldclip-worker")
        try:
            self._process.start()
        finally:
            theirs.close()  # or its death would not end the pipe

    def give(self, task: Task) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it died: reading its answer will tell
            self.pipe.send_bytes(pickle.dumps((task.function, task.arguments)))

    def end(self, patience: float) -> str:
        """End the process and say how it ended. An idle one ends by itself when its pipe does: give it the seconds."""
        self.pipe.close()
        self._process.join(patience)
        self._process.kill()  # does nothing to one that has ended
        self._process.join()
        code = self._process.exitcode or 0
        self._process.close()
        if code >= 0:
            return f"its worker process ended with exit code {code}"
        name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        memory = "; where memory ran out, use fewer workers or smaller shards" if -code == signal.SIGKILL else ""
        return f"its worker process was killed by {name}{memory}"


def _work(pipe: Connection) -> None:
    """A worker's life: do what comes through the pipe until the pipe ends."""
    os.environ.update(ONE_THREAD)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver decides
    _end_with_parent()
    while True:
        try:
            message = pipe.recv_bytes()
        except EOFError:
            return
        pipe.send(attempt(_unpack_and_call, (message,)))


def _unpack_and_call(message: bytes) -> None:
    # The message is from our own driver through a private pipe; no file is ever unpickled.
    function, arguments = pickle.loads(message)  # noqa: S301
    function(*arguments)


def _end_with_parent() -> None:
    """Make this process die when its parent does, in whatever state it is.

    The thread works on every system, but needs Python's lock, which a long call into native code may hold; on Linux
    the kernel needs nothing.
    """
    parent = multiprocessing.parent_process()
    if parent is None:  # not a worker
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    # Started after the kernel was told: a parent that died in between has ended the sentinel already.
    threading.Thread(target=watch, daemon=True, name="worldclip-parent-watch").start()
