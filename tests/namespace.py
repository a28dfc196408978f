"""A network of the loopback device alone, for what does not keep to it by itself; and processes that end together."""

from __future__ import annotations

import shutil
import subprocess

UNSHARE = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
           "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]  # fmt: skip


def cannot_unshare() -> str:
    """Why a namespace cannot be had here; empty where it can."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        return "unshare (util-linux) or ip (iproute2) is not installed"
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"unshare is not permitted: {tried.stderr.strip()}"
