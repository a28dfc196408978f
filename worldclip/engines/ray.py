"""Shard tasks on many machines: Ray Core actors that run the very same tasks as the local engine.

    with ray_engine("10.0.0.5:6379", tell=print) as engine:
        curate(..., engine=engine)

The driver hands one task at a time to each actor and books it in the same ledger as the local engine does, so that the
contract is the same: the outputs, on storage that all machines share under the same path, are the only record.

Ray is never started by the way: a cluster is named, or a local one is asked for, and it is told where that listens.
Ray listens on the machine's own address, whatever it is told, and runs what whoever holds its token sends: keep it in a
private network, with token authentication (docs/guides/ray-cluster.md).
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from worldclip.engines.contract import ONE_THREAD, Ledger, Task, attempt, check_tries, ledger_of
from worldclip.errors import ConfigError, MissingData, WorldclipError

#: What is asked for instead of an address to have a cluster of this machine alone.
START = "start"

#: Bytes of Ray's shared memory on a local cluster: what passes through it are tasks' arguments, not their data.
OBJECT_STORE = 256 * 2**20

#: Seconds after which the driver looks again how many CPUs the cluster has.
POLL = 5.0

#: Seconds that the head of a cluster gets to answer.
CONNECT = 10.0


@dataclass(frozen=True, kw_only=True)
class RayEngine:
    """Runs tasks on at most `workers` actors of one CPU each of the cluster that this process is connected to.

    One CPU of the cluster is left free: actors on all of them can starve what else the cluster has to do. Tasks of a
    machine that is lost are tried again on the others; each counts one of its `tries`.
    """

    workers: int
    tries: int = 3

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise ConfigError(f"workers: found {self.workers}; a Ray engine needs at least 1.")
        check_tries(self.tries)

    def run(self, tasks: Sequence[Task], progress: Callable[[int, int], None] | None = None) -> None:
        """Do every task whose output is not there yet, see `contract.Engine`."""
        with ledger_of(tasks, self.tries, progress) as ledger:
            _run_on_actors(ledger, self.workers)


@contextmanager
def ray_engine(
    address: str, *, workers: int | None = None, tries: int = 3, tell: Callable[[str], None]
) -> Iterator[RayEngine]:
    """Connect to the cluster at `address`, or with "start" start one of this machine alone, for as long as this lasts.

    Args:
        address: `host:port` of a cluster's head, seen from one of its machines; `ray://host:port` from elsewhere.
        workers: actors; by default one for each CPU but one.
        tell: is told where Ray listens.

    Raises:
        MissingData: Ray is not installed, or no cluster answers.
        ConfigError: no address, or a number that is not allowed.
    """
    if not address:
        raise ConfigError("Name the Ray cluster: its head's host:port, or `start` for one of this machine alone.")
    try:
        import ray
    except ImportError:
        raise MissingData("Ray is not installed. `pip install 'worldclip[ray]'` brings it.") from None
    if ray.is_initialized():
        raise ConfigError("This process is connected to a Ray cluster already; leave that first (`ray.shutdown()`).")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "worldclip"}
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        if address == START:
            workers = workers or max(1, (os.cpu_count() or 2) - 1)
            tell("Ray: starting a cluster of this machine; it listens on the machine's own address, not on loopback")
            ray.init(address="local", num_cpus=workers + 1, include_dashboard=False,
                     object_store_memory=OBJECT_STORE, **quiet)  # fmt: skip
        else:
            _probe(address)
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise MissingData(f"{address}: no Ray cluster answers there ({' '.join(str(error).split())[:300]}).") from None
    try:
        nodes = sorted(node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"])
        tell(f"Ray: {len(nodes)} node(s), {_cpus()} CPUs, listening on {', '.join(dict.fromkeys(nodes))}")
        yield RayEngine(workers=workers or max(1, _cpus() - 1), tries=tries)
    finally:
        ray.shutdown()


def _probe(address: str) -> None:
    """Knock at the door first: Ray itself would try for minutes.

    Raises:
        ConfigError: the address is not host:port.
        MissingData: nothing listens there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(
            f"{address}: is not the address of a Ray cluster; allowed are host:port, ray://host:port, start."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT).close()
    except OSError as error:
        raise MissingData(f"{address}: no Ray cluster answers there ({error}).") from None


def _cpus() -> int:
    import ray

    return int(ray.cluster_resources().get("CPU", 0))


class _Worker:
    """What an actor is: one thread of work, one task after another."""

    def __init__(self) -> None:
        os.environ.update(ONE_THREAD)  # before the first task imports what reads it

    def run(self, function: Callable[..., None], arguments: tuple[Any, ...]) -> str | None:
        return attempt(function, arguments)


def _run_on_actors(ledger: Ledger, limit: int) -> None:
    import ray

    # Ray itself neither restarts nor retries: the ledger does, and counts.
    worker = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Worker)
    idle: list[Any] = []
    busy: dict[Any, tuple[Any, Task]] = {}
    room = min(limit, max(1, _cpus() - 1))
    try:
        while ledger.todo or busy:
            while ledger.todo and len(busy) < room:
                task = ledger.todo.popleft()
                actor = idle.pop() if idle else worker.remote()
                busy[actor.run.remote(task.function, task.arguments)] = actor, task
            while idle:
                # Nothing to do for it now, and an actor that waits for a CPU may need its own.
                ray.kill(idle.pop())
            ready, _ = ray.wait(list(busy), timeout=POLL)
            for answer in ready:
                actor, task = busy.pop(answer)
                try:
                    error = ray.get(answer)
                    idle.append(actor)
                except ray.exceptions.RayActorError as died:
                    # It may have been killed after its work was done: what counts is the output.
                    error = None if task.output.exists() else _death(str(died))
                    room = min(limit, max(1, _cpus() - 1))
                except ray.exceptions.RayError as refused:
                    error = f"Ray could not run it: {' '.join(str(refused).replace('^', ' ').split())[-300:]}"
                    idle.append(actor)
                ledger.settle(task, error)
            if not ready:
                room = min(limit, max(1, _cpus() - 1))
    except ray.exceptions.RaySystemError as error:
        raise WorldclipError(
            f"The Ray cluster is lost ({' '.join(str(error).split())[:300]}). "
            "Run the same command again when it is back."
        ) from error
    finally:
        for actor in [*idle, *(actor for actor, _ in busy.values())]:
            ray.kill(actor)


def _death(told: str) -> str:
    """Ray's account of an actor's death, as one line."""
    told = " ".join(told.split())
    if code := re.search(r"exit code (\d+)", told):
        return f"its worker process ended with exit code {code[1]}"
    if "node" in told.lower() and re.search(r"node (has |was )?(died|dead|terminated|failed|removed)", told.lower()):
        return "its machine was lost"
    if "connection error code 2" in told:
        return "its worker process was killed (SIGKILL or a crash); where memory ran out, use smaller shards"
    return f"its worker died: {told.partition('The actor is dead because')[2].strip()[:300] or told[:300]}"
