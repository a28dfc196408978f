"""A page as headless Chromium leaves it after running its script, and what its console complained of."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

needs_chromium = pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")


def browse(folder: Path, html: str, width: int = 1280) -> tuple[str, list[str]]:
    """Write `html` to a file in `folder`, and load that in a window of `width`: the document, and complaints."""
    (folder / "page.html").write_text(html, encoding="utf-8")
    command = (
        "chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --virtual-time-budget=3000 --dump-dom "
        "--enable-logging=stderr --v=0 --disable-background-networking --disable-component-update --disable-sync "
        f"--no-first-run --user-data-dir={folder / 'profile'} --window-size={width},900"
    )
    done = subprocess.run(
        [*command.split(), (folder / "page.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
