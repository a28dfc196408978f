"""Real drawings for the miniatures of benchmarks."""

from __future__ import annotations

import miniature
import pytest

from worldclip.packages import Cache


@pytest.fixture(scope="session")
def pngs(cache: Cache) -> list[bytes]:
    return miniature.drawn(cache)
