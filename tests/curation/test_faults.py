"""Curation under faults: the same bytes in the end, nothing lost, nothing twice (docs/curation.md has the table)."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import faults
import pyarrow.parquet as pq
import pytest

from worldclip.errors import ShardsFailed, StorageError
from worldclip.storage import TEMPORARY, read_json

DRIVER = [sys.executable, str(Path(__file__).parent / "faults.py")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(path).resolve()) for path in sys.path)}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs, and `whole`: what comes of them when nothing happens."""
    home = tmp_path_factory.mktemp("home")
    faults.write_pairs(home / "pairs")
    faults.run(home / "whole", 0)
    return home


def assert_whole(home: Path, folder: Path) -> None:
    assert faults.contents(folder) == faults.contents(home / "whole")
    tables = [pq.read_table(path, columns=["id"]) for path in folder.glob("curated-*.parquet")]
    ids = [each for table in tables for each in table.column("id").to_pylist()]
    assert len(ids) == len(set(ids)) == faults.SHARDS * faults.ROWS  # one text an image, all of which match


def workers() -> dict[int, int]:
    """The worker processes that run (Linux): process id -> its parent's. One that waits to be reaped runs no more."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
            worker = "spawn_main" in (path.parent / "cmdline").read_text()
        except OSError:
            continue
        if fields[0] not in "XZ" and worker:
            found[int(path.parent.name)] = int(fields[1])
    return found


def children(pid: int) -> list[int]:
    return [worker for worker, parent in workers().items() if parent == pid]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_twenty_workers_killed_at_random_moments(home: Path, tmp_path: Path) -> None:
    draw = random.Random(7)
    killed = failed = 0
    while killed < 20:
        out = home / "killed-workers"
        shutil.rmtree(out, ignore_errors=True)
        with subprocess.Popen([*DRIVER, str(out), "2"], env=ENVIRONMENT, stderr=subprocess.DEVNULL) as driver:
            while driver.poll() is None:
                time.sleep(draw.uniform(0.2, 2.0))
                if (family := children(driver.pid)) and driver.poll() is None and killed < 20:
                    os.kill(draw.choice(family), signal.SIGKILL)
                    killed += 1
        if driver.returncode:  # one task had three blows: the same command again
            failed += 1
            subprocess.run([*DRIVER, str(out), "2"], env=ENVIRONMENT, check=True)
        assert_whole(home, out)
    print(f"workers killed: {killed}; runs that gave up a shard and were run again: {failed}")  # noqa: T201


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_twenty_drivers_killed_at_random_moments(home: Path) -> None:
    draw, out, killed, orphans = random.Random(8), home / "killed-drivers", 0, 0
    while killed < 20:
        shutil.rmtree(out, ignore_errors=True)
        while True:
            driver = subprocess.Popen([*DRIVER, str(out), "2"], env=ENVIRONMENT)
            try:
                driver.wait(draw.uniform(1.0, 8.0))
            except subprocess.TimeoutExpired:
                family = children(driver.pid)
                driver.kill()
                driver.wait()
                killed += 1
                # One that is just being started learns of its parent's end when it has imported its modules.
                until = time.monotonic() + 5
                while workers().keys() & family and time.monotonic() < until:
                    time.sleep(0.05)
                orphans += len(workers().keys() & family)
            else:
                assert driver.returncode == 0
                break
        assert_whole(home, out)
        assert not list(out.rglob(f"*{TEMPORARY}"))
    assert orphans == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk(home: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        shutil.copytree(home / "pairs", tmp_path / "pairs")
        (disk / "pairs").symlink_to(home / "pairs")
        with pytest.raises((ShardsFailed, StorageError), match="could not be written"):
            faults.run(disk / "out", 2)
        assert not list(disk.rglob(f"*{TEMPORARY}"))
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
        faults.run(disk / "out", 2)
        found, whole = faults.contents(disk / "out"), faults.contents(home / "whole")
        assert found == whole
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_shard_that_always_fails(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "pairs", tmp_path / "pairs")
    (tmp_path / "pairs" / "pairs-03.parquet").write_bytes(b"no table")
    with pytest.raises(ShardsFailed, match=r"1 shard\(s\) failed every try.*\n.*pairs-03\.parquet"):
        faults.run(tmp_path / "out", 2)
    summary = read_json(tmp_path / "out" / "summary.json")
    assert summary["images"] == (faults.SHARDS - 1) * faults.ROWS
    assert len(summary["quarantined"]) == 1
