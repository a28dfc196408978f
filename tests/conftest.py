"""What all tests share: the fetched packages, and hypothesis that tries the same examples each time.

Beside this file lies `reference.py`, Algorithm 1 in plain lines. Pytest puts this folder on the path, so that a test
says `import reference`.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from worldclip.packages import PACKAGES, Cache, cache_folder

settings.register_profile(
    "worldclip", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("worldclip")

#: What comes with Python and npm or pip alone; what apt brings is optional everywhere.
NEEDED = frozenset(package.name for package in PACKAGES if package.client != "apt")


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
