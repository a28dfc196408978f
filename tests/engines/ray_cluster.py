"""Two nodes of a Ray cluster, one killed in mid-run; where it listens. Run by `test_ray.py` inside a namespace."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import engine_tasks as work
from in_namespace import HEAD, start_node

from worldclip.engines import Task
from worldclip.engines.ray import ray_engine
from worldclip.errors import ConfigError, MissingData

LISTEN = "0A"
LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}


def listeners() -> dict[str, str]:
    """Hexadecimal address of every port that something in this namespace listens on."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN:
                address, _, port = fields[1].partition(":")
                found[port] = address
    return found


def wait_for_nodes(count: int) -> None:
    import ray

    until = time.monotonic() + 30
    while sum(node["Alive"] for node in ray.nodes()) != count:
        assert time.monotonic() < until, ray.nodes()
        time.sleep(0.1)


def where_am_i(output: Path, marks: Path, seconds: float) -> None:
    import ray

    work.leave_mark(marks, output.name)
    (output.parent / "nodes").mkdir(exist_ok=True)
    (output.parent / "nodes" / f"{output.name}-{ray.get_runtime_context().get_node_id()}").touch()
    work.slow(output, marks / "slow", 0, seconds)


def nodes_of(folder: Path) -> set[str]:
    """Nodes that have begun a task of `where_am_i`."""
    return {path.name.partition("-")[2] for path in (folder / "nodes").glob("*")}


def test_a_node_killed_in_mid_run(tmp_path: Path) -> None:
    told: list[str] = []
    with ray_engine(HEAD, tell=told.append) as small:
        assert told == ["Ray: 1 node(s), 3 CPUs, listening on 127.0.0.1"]
        assert small.workers == 2
    second = start_node(f"--address={HEAD}", "--num-cpus=2")
    with ray_engine(HEAD, tell=told.append):
        wait_for_nodes(2)
    with ray_engine(HEAD, workers=4, tell=told.append) as engine:
        assert told[-1] == "Ray: 2 node(s), 5 CPUs, listening on 127.0.0.1"
        assert engine.workers == 4
        tasks = [
            Task(name=f"task-{n}", function=where_am_i, output=tmp_path / f"{n}.out",
                 arguments=(tmp_path / f"{n}.out", tmp_path / "marks", 1.0))
            for n in range(20)
        ]  # fmt: skip
        killed_at: list[int] = []

        def kill_a_node(done: int, total: int) -> None:
            if len(nodes_of(tmp_path)) == 2 and not killed_at:  # both are at work
                killed_at.append(done)
                for pid in {second.pid, *work.descendants(second.pid)}:
                    with suppress(ProcessLookupError):  # it ended with its parent
                        os.kill(pid, signal.SIGKILL)

        engine.run(tasks, kill_a_node)
        wait_for_nodes(1)
    assert killed_at
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.out")} == {f"{n}.out": b"0" for n in range(20)}
    assert work.temporaries(tmp_path) == []
    begun = {path.name: path.stat().st_size for path in (tmp_path / "marks").iterdir() if path.is_file()}
    assert set(begun.values()) == {1, 2}  # what the lost node held was begun again, all else once


def test_ray_listens_on_loopback_alone() -> None:
    devices = Path("/proc/net/dev").read_text().splitlines()[2:]
    assert [line.partition(":")[0].strip() for line in devices] == ["lo"]
    found = listeners()
    assert len(found) >= 3  # the head's store, its raylet, its object manager
    assert set(found.values()) <= LOOPBACK


def test_a_local_cluster_only_when_asked_for(tmp_path: Path) -> None:
    told: list[str] = []
    with ray_engine("start", workers=1, tell=told.append) as engine:
        engine.run([Task(name="one", function=work.bytes_of, arguments=(tmp_path / "one",), output=tmp_path / "one")])
    assert (tmp_path / "one").read_bytes() == b"one"
    assert "listens on the machine's own address" in told[0]
    assert told[1].startswith("Ray: 1 node(s), 2 CPUs, listening on 127.0.0.")


def test_addresses_where_nothing_answers() -> None:
    with pytest.raises(ConfigError, match="Name the Ray cluster"), ray_engine("", tell=print):
        pass
    with pytest.raises(ConfigError, match="is not the address"), ray_engine("auto", tell=print):
        pass
    with pytest.raises(MissingData, match="no Ray cluster answers"), ray_engine("127.0.0.1:9", tell=print):
        pass
