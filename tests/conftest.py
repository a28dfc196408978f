"""What all tests share: the fetched packages, and hypothesis that tries the same examples each time.

Beside this file lie `reference.py`, Algorithm 1 in plain lines, and `tiny.py`, the whole road at its smallest. Pytest
puts this folder on the path, so that a test says `import reference`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from hypothesis import HealthCheck, settings

from worldclip.packages import PACKAGES, Cache, cache_folder

settings.register_profile(
    "worldclip", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("worldclip")

#: What comes with Python and npm or pip alone; what apt brings is optional everywhere.
NEEDED = frozenset(package.name for package in PACKAGES if package.client != "apt" and not package.optional)


@pytest.fixture(scope="session")
def cache() -> Cache:
    """The fetched packages. Without them a test is skipped, or fails where WORLDCLIP_REQUIRE_PACKAGES=1 says so."""
    cache = Cache(cache_folder())
    if missing := sorted(NEEDED - cache.present()):
        told = f"{cache.folder} lacks {', '.join(missing)}; run `worldclip pairs fetch`, or set WORLDCLIP_CACHE."
        if os.environ.get("WORLDCLIP_REQUIRE_PACKAGES") == "1":
            pytest.fail(told)
        pytest.skip(told)
    return cache


@pytest.fixture(scope="session")
def optional_package(cache: Cache) -> Callable[[str], Path]:
    """The folder of a package that is optional; the test is skipped where it is not there."""

    def path(name: str) -> Path:
        if name not in cache.present():
            pytest.skip(f"{name} has not been fetched")
        return cache.path(name)

    return path


@pytest.fixture(scope="session")
def small_cache(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """The packages cut down to what is drawn in a second."""
    return tiny.trimmed_cache(cache, tmp_path_factory.mktemp("cache") / "small")


@pytest.fixture(scope="session")
def road(small_cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished tiny quickstart, made by the real command; whoever changes it takes a copy."""
    folder = tmp_path_factory.mktemp("road") / "run"
    done = tiny.worldclip(small_cache, "quickstart", "--run", folder, *tiny.settings())
    assert done.returncode == 0, done.stderr
    return folder
