"""Ray may only run where nothing but the loopback device is: a network namespace of the test's own.

    python in_namespace.py COMMAND...     run behind `namespace.UNSHARE`: starts the head of a Ray cluster, runs the
                                          command, and ends with its exit code; a test adds a second node

Everything that was started ends with the process namespace, whatever happens.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HEAD = "127.0.0.1:6399"


def start_node(*options: str) -> subprocess.Popen[bytes]:
    """Start a Ray node of this machine, in a process group of its own."""
    command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", *options]
    command += ["--node-ip-address=127.0.0.1", "--disable-usage-stats", "--object-store-memory=80000000", "--block"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, start_new_session=True, **quiet)  # type: ignore[call-overload, no-any-return]


def answers() -> bool:
    """Whether the head listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", 6399)) == 0


if __name__ == "__main__":
    if devices := {name for _, name in socket.if_nameindex()} - {"lo"}:
        sys.exit(f"in_namespace.py: there is more than loopback here ({', '.join(sorted(devices))}); nothing is run")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        os.environ["RAY_TMPDIR"] = folder
        # A token of this run's own: without one a local cluster would leave a new one in the home folder.
        token = Path(folder) / "token"
        token.write_text(secrets.token_hex(32))
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        # A lost node is noticed in seconds instead of a quarter of a minute; a busy one is not taken for lost.
        os.environ |= {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "10"}
        start_node("--head", "--port=6399", "--num-cpus=3", "--include-dashboard=false")
        until = time.monotonic() + 30
        while time.monotonic() < until and not answers():
            time.sleep(0.1)
        os.environ["WORLDCLIP_TEST_RAY"] = HEAD
        sys.exit(subprocess.run(sys.argv[1:], check=False).returncode)
