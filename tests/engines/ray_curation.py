"""Algorithm 1 on a Ray cluster: what the reference says, byte for byte what the local engine writes, by any hash seed.

Run by `test_ray.py` inside a namespace.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import plain
import pytest
from in_namespace import HEAD

from worldclip.engines import LocalEngine
from worldclip.packages import Cache, cache_folder


def test_curation_is_the_references_and_the_local_engines(tmp_path: Path) -> None:
    cache = Cache(cache_folder())
    if "cldr-annotations" not in cache.present():
        pytest.skip("the packages have not been fetched")
    world = plain.world_of(cache, tmp_path / "metadata")
    rows = random.Random(1).sample(world.rows, len(world.rows))
    expected = plain.plainly(world, plain.CONFIG)
    shuffled = replace(world, rows=rows)
    for hash_seed in ("1", "2"):
        plain.driven(shuffled, tmp_path / hash_seed, hash_seed, HEAD)
    for shards in plain.SHARDS:
        local = tmp_path / f"local{shards}"
        plain.run(shuffled, local, plain.CONFIG, shards, LocalEngine(workers=0))
        plain.assert_same(plain.curated(tmp_path / "1" / str(shards)), expected.rows)
        for hash_seed in ("1", "2"):
            assert plain.contents(tmp_path / hash_seed / str(shards)) == plain.contents(local)
