"""The engine's contract, over every way of running: the same bytes, whatever fails or is killed.

`test_ray.py` runs this file once more in a network namespace of its own, over the Ray cluster that WORLDCLIP_TEST_RAY
names.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # workers, too, must find the module

import engine_tasks as work

from worldclip.engines import Engine, LocalEngine, Task, kept_workers
from worldclip.engines.ray import RayEngine, ray_engine
from worldclip.errors import ConfigError, ShardsFailed
from worldclip.storage import TEMPORARY, read_json

RAY = os.environ.get("WORLDCLIP_TEST_RAY", "")
ALL = pytest.mark.parametrize("workers", [2] if RAY else [0, 1, 2])
POOLS = pytest.mark.parametrize("workers", [2] if RAY else [1, 2])
LOCAL = pytest.mark.skipif(bool(RAY), reason="of the local engine alone")
DRIVER = str(Path(__file__).parent / "engine_tasks.py")
#: A driver in a process of its own finds what this process finds, from whatever folder.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(path).resolve()) for path in sys.path)}


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    if not RAY:
        yield
        return
    with ray_engine(RAY, tell=print):
        yield


def engine(workers: int, tries: int = 3) -> Engine:
    return RayEngine(workers=workers, tries=tries) if RAY else LocalEngine(workers=workers, tries=tries)


def task(folder: Path, name: str, function: Callable[..., None], *more: Any) -> Task:
    return Task(name=name, function=function, arguments=(folder / name, *more), output=folder / name)


def digests(folder: Path, count: int = 7) -> list[Task]:
    return [task(folder, f"shard-{n}", work.digest_shard, folder / "marks", n) for n in range(count)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def begun(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (folder / "marks").iterdir()}


@ALL
def test_same_bytes_each_task_once_in_any_order(tmp_path: Path, workers: int) -> None:
    LocalEngine(workers=0).run(digests(tmp_path / "expected"))
    shuffled = digests(tmp_path / "found")
    random.Random(workers).shuffle(shuffled)
    told: list[tuple[int, int]] = []
    engine(workers).run(shuffled, lambda done, total: told.append((done, total)))
    assert contents(tmp_path / "found") == contents(tmp_path / "expected")
    assert begun(tmp_path / "found") == {f"shard-{n}": 1 for n in range(7)}
    assert told == [(n, 7) for n in range(8)]


@ALL
def test_progress_counts_in_sizes(tmp_path: Path, workers: int) -> None:
    tasks = [replace(each, size=10**n) for n, each in enumerate(digests(tmp_path, 3))]
    engine(workers).run(tasks[1:2])
    told: list[tuple[int, int]] = []
    engine(workers).run(tasks, lambda done, total: told.append((done, total)))
    assert told in ([(10, 111), (11, 111), (111, 111)], [(10, 111), (110, 111), (111, 111)])


@ALL
def test_what_is_done_is_not_done_again(tmp_path: Path, workers: int) -> None:
    LocalEngine(workers=0).run(digests(tmp_path)[:4])
    told: list[tuple[int, int]] = []
    engine(workers).run(digests(tmp_path), lambda done, total: told.append((done, total)))
    assert begun(tmp_path) == {f"shard-{n}": 1 for n in range(7)}
    assert (told[0], told[-1]) == ((4, 7), (7, 7))
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in contents(tmp_path)}
    engine(workers).run(digests(tmp_path))
    assert before == {name: (tmp_path / name).stat().st_mtime_ns for name in contents(tmp_path)}


@ALL
def test_failing_tasks_are_tried_then_set_aside_and_named(tmp_path: Path, workers: int) -> None:
    marks = tmp_path / "marks"
    tasks = [
        task(tmp_path, "passing-ill", work.fail_below, marks, 1, 3),
        task(tmp_path, "always-ill", work.fail_below, marks, 2, 99),
        task(tmp_path, "bad-row", work.bad_row),
        task(tmp_path, "silent", work.write_nothing),
        *digests(tmp_path, 3),
    ]
    with pytest.raises(ShardsFailed) as caught:
        engine(workers).run(tasks)
    failures = caught.value.failures
    assert sorted(failures) == ["always-ill", "bad-row", "silent"]
    assert failures["always-ill"].startswith("ValueError: the shard is ill (engine_tasks.py:")
    assert failures["bad-row"] == "bad-row: row 7 is not text."
    assert str(tmp_path / "silent") in failures["silent"]
    assert begun(tmp_path) == {"passing-ill": 3, "always-ill": 3, "shard-0": 1, "shard-1": 1, "shard-2": 1}
    assert sorted(contents(tmp_path)) == ["passing-ill", "shard-0", "shard-1", "shard-2"]
    # Once mended, the same command redoes only what had failed.
    engine(workers).run([task(tmp_path, "always-ill", work.fail_below, marks, 2, 1), *digests(tmp_path, 3)])
    assert begun(tmp_path) == {"passing-ill": 3, "always-ill": 4, "shard-0": 1, "shard-1": 1, "shard-2": 1}


@POOLS
def test_killed_worker_is_replaced_and_only_its_task_is_charged(tmp_path: Path, workers: int) -> None:
    marks = tmp_path / "marks"
    tasks = [
        task(tmp_path, "dies-once", work.killed_below, marks, 1, 2),
        task(tmp_path, "always-dies", work.killed_below, marks, 2, 99),
        task(tmp_path, "dies-when-done", work.killed_after, marks),
        task(tmp_path, "leaves", work.leave),
        *digests(tmp_path, 3),
    ]
    with pytest.raises(ShardsFailed) as caught:
        engine(workers, tries=2).run(tasks)
    assert sorted(caught.value.failures) == ["always-dies", "leaves"]
    assert "SIGKILL" in caught.value.failures["always-dies"]
    assert "exit code 5" in caught.value.failures["leaves"]
    expected = {"dies-once": 2, "always-dies": 2, "dies-when-done": 1, "shard-0": 1, "shard-1": 1, "shard-2": 1}
    assert begun(tmp_path) == expected
    assert contents(tmp_path).keys() == expected.keys() - {"always-dies"}
    assert contents(tmp_path)["dies-once"] == b"1"
    assert work.temporaries(tmp_path) == []


def running(pids: set[int]) -> set[int]:
    def state(pid: int) -> str:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return "X"

    return {pid for pid in pids if state(pid) not in "XZ"}


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.02)
    return true()


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@LINUX
@POOLS
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_killed_driver_leaves_no_process_and_resumes(tmp_path: Path, workers: int, blow: signal.Signals) -> None:
    command = [sys.executable, DRIVER, str(tmp_path), str(workers), "0.3", RAY]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as driver:
        assert driver.stdout is not None
        while driver.stdout.readline() != "[1, 6]\n":
            assert driver.poll() is None
        time.sleep(0.1)
        family = work.descendants(driver.pid) | {int(path.name) for path in (tmp_path / "pids").iterdir()}
        assert family
        driver.send_signal(blow)
        driver.wait(timeout=5)
    assert wait_until(lambda: not running(family), 10 if RAY else 2)
    if blow == signal.SIGINT:  # it had the time to clean up
        assert work.temporaries(tmp_path) == []
    assert 1 <= len([name for name in contents(tmp_path) if name.endswith(".out")]) < 6

    finished = {name: data for name, data in contents(tmp_path).items() if not name.endswith(TEMPORARY)}
    once = {name: begun(tmp_path)[name] for name in finished}
    engine(workers).run(work.slow_tasks(tmp_path, 0.0))
    assert contents(tmp_path) == {f"{n}.out": str(n).encode() for n in range(6)}
    assert {name: begun(tmp_path)[name] for name in finished} == once == dict.fromkeys(finished, 1)


@LINUX
@LOCAL
def test_worker_stuck_in_native_code_dies_with_its_driver(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
import engine_tasks
from worldclip.engines import LocalEngine, Task
output = Path({str(tmp_path / "out")!r})
LocalEngine(workers=1).run([Task(name="stuck", function=engine_tasks.stuck, arguments=(output,), output=output)])
"""
    with subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT) as driver:
        assert wait_until((tmp_path / "marks" / "out").exists, 10)
        family = work.descendants(driver.pid)
        driver.kill()
    assert family
    assert wait_until(lambda: not running(family), 2)


@ALL
def test_stale_temporaries_are_swept_at_the_start(tmp_path: Path, workers: int) -> None:
    (tmp_path / f"shard-0.1234{TEMPORARY}").write_bytes(b"half")
    engine(workers).run(digests(tmp_path, 1))
    assert sorted(contents(tmp_path)) == ["shard-0"]


@LINUX
@LOCAL
def test_runs_that_share_their_workers(tmp_path: Path) -> None:
    with kept_workers():
        for n in range(3):
            if n == 2:  # what happens to an idle worker is known when it is given work
                os.kill(read_json(tmp_path / "1")["pid"], signal.SIGKILL)
            engine(1).run([task(tmp_path, str(n), work.describe_process)])
        first, second, third = (read_json(tmp_path / str(n))["pid"] for n in range(3))
        assert first == second != third
        assert running({third})
    assert wait_until(lambda: not running({first, third}), 2)


@LOCAL
def test_interrupted_serial_run_leaves_nothing_half_written(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        LocalEngine(workers=0).run(digests(tmp_path), interrupt)
    assert sorted(contents(tmp_path)) == ["shard-0", "shard-1"]


@ALL
def test_where_and_with_how_many_threads(tmp_path: Path, workers: int) -> None:
    engine(workers).run([task(tmp_path, "process", work.describe_process)])
    found = read_json(tmp_path / "process")
    assert (found["pid"] == os.getpid()) == (workers == 0)
    if workers:
        assert (found["arrow_threads"], found["openmp"]) == (1, "1")


@ALL
def test_no_tasks(workers: int) -> None:
    told: list[tuple[int, int]] = []
    engine(workers).run([], lambda done, total: told.append((done, total)))
    assert told == [(0, 0)]


@LOCAL
def test_settings_and_clashes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="workers: found -1"):
        LocalEngine(workers=-1)
    with pytest.raises(ConfigError, match="tries: found 0"):
        LocalEngine(workers=1, tries=0)
    one, two = digests(tmp_path, 2)
    same_output = Task(name="other", function=one.function, arguments=one.arguments, output=one.output)
    with pytest.raises(ConfigError, match=r"own name.*shard-0"):
        LocalEngine(workers=0).run([one, two, one])
    with pytest.raises(ConfigError, match="own output"):
        LocalEngine(workers=0).run([one, two, same_output])
    assert not (tmp_path / "marks").exists()


def test_importing_the_engine_loads_no_heavy_library() -> None:
    code = "import sys, worldclip.engines; print(sorted({'torch', 'numpy', 'pyarrow', 'numba'} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert found.stdout == "[]\n"
