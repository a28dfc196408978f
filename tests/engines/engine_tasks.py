"""Shard functions for the engine's contract test; a module of its own, so that workers load little."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

from worldclip.engines import LocalEngine, Task
from worldclip.engines.ray import ray_engine
from worldclip.errors import DataError
from worldclip.storage import TEMPORARY, replacing, write_bytes, write_json


def leave_mark(marks: Path, name: str) -> int:
    """Note that `name` was begun once more; return how often that is."""
    marks.mkdir(parents=True, exist_ok=True)
    with open(marks / name, "ab") as file:
        file.write(b".")
    return (marks / name).stat().st_size


def digest_shard(output: Path, marks: Path, shard: int) -> None:
    leave_mark(marks, output.name)
    write_bytes(output, b"".join(hashlib.sha256(f"{shard}/{row}".encode()).digest() for row in range(200)))


def bytes_of(output: Path) -> None:
    write_bytes(output, output.name.encode())


def fail_below(output: Path, marks: Path, shard: int, tries: int) -> None:
    if leave_mark(marks, output.name) < tries:
        with replacing(output) as temporary:
            temporary.write_bytes(b"half")
            raise ValueError("the shard is ill")
    write_bytes(output, str(shard).encode())


def bad_row(output: Path) -> None:
    raise DataError(f"{output.name}: row 7 is not text.")


def write_nothing(output: Path) -> None:
    pass


def leave(output: Path) -> None:
    sys.exit(5)


def killed_below(output: Path, marks: Path, shard: int, tries: int) -> None:
    """Dies of SIGKILL in the middle of its write, as by the out-of-memory killer, until begun `tries` times."""
    begun = leave_mark(marks, output.name)
    with replacing(output) as temporary:
        temporary.write_bytes(b"half")
        if begun < tries:
            os.kill(os.getpid(), signal.SIGKILL)
        temporary.write_bytes(str(shard).encode())


def killed_after(output: Path, marks: Path) -> None:
    leave_mark(marks, output.name)
    write_bytes(output, b"whole")
    os.kill(os.getpid(), signal.SIGKILL)


def slow(output: Path, marks: Path, shard: int, seconds: float) -> None:
    leave_mark(marks, output.name)
    (output.parent / "pids").mkdir(exist_ok=True)
    (output.parent / "pids" / str(os.getpid())).touch()
    with replacing(output) as temporary:
        temporary.write_bytes(b"half")
        time.sleep(seconds)
        temporary.write_bytes(str(shard).encode())


def stuck(output: Path) -> None:
    """A native call that never lets go of Python's lock: no thread of this process can run."""
    leave_mark(output.parent / "marks", output.name)
    ctypes.PyDLL(None).sleep(60)


def describe_process(output: Path) -> None:
    import pyarrow as pa

    write_json(
        output, {"pid": os.getpid(), "arrow_threads": pa.cpu_count(), "openmp": os.environ.get("OMP_NUM_THREADS")}
    )


def slow_tasks(folder: Path, seconds: float) -> list[Task]:
    return [
        Task(
            name=f"slow-{shard}",
            function=slow,
            # All but the first take long, so that a worker without a driver does not end just by finishing.
            arguments=(folder / f"{shard}.out", folder / "marks", shard, seconds * (10 if shard else 1)),
            output=folder / f"{shard}.out",
        )
        for shard in range(6)
    ]


def temporaries(folder: Path) -> list[Path]:
    return sorted(folder.rglob(f"*{TEMPORARY}"))


def descendants(pid: int) -> set[int]:
    """Process ids below `pid` (Linux)."""
    below: set[int] = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                below |= {int(folder.name)} | descendants(int(folder.name))
    return below


if __name__ == "__main__":  # the driver that the test kills
    # A shell's background jobs ignore SIGINT, and whoever they start does too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    where, workers, pause = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])

    def tell(done: int, all_tasks: int) -> None:
        print(json.dumps([done, all_tasks]), flush=True)  # noqa: T201

    if sys.argv[4]:
        with ray_engine(sys.argv[4], workers=workers, tell=lambda _: None) as engine:
            engine.run(slow_tasks(where, pause), tell)
    else:
        LocalEngine(workers=workers).run(slow_tasks(where, pause), tell)
