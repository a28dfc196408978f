"""The contract over a real Ray cluster, in a network namespace that holds the loopback device alone."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from namespace import UNSHARE, cannot_unshare

HERE = Path(__file__).parent

IN_NAMESPACE = pytest.mark.skipif(
    bool(why := "Ray is not installed" if importlib.util.find_spec("ray") is None else cannot_unshare()), reason=why
)


@IN_NAMESPACE
def test_the_contract_over_a_cluster_of_two_nodes() -> None:
    files = [HERE / "ray_cluster.py", HERE / "test_contract.py", HERE / "ray_curation.py"]
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-W", "default"]
    command = [*UNSHARE, sys.executable, HERE / "in_namespace.py", *pytest_, *files]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [HERE, *HERE.parents[:2]]))}
    done = subprocess.run(
        list(map(str, command)), cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=False,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    ran = re.search(r"(\d+) passed", done.stdout)
    assert ran is not None
    assert int(ran[1]) >= 13
