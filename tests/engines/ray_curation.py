"""Algorithm 1 on a Ray cluster: what the reference says, byte for byte what the local engine writes.

Run by `test_ray.py` inside a namespace.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import plain
import pytest
from in_namespace import HEAD

from worldclip.config import CurationConfig
from worldclip.engines import LocalEngine
from worldclip.engines.ray import ray_engine
from worldclip.packages import Cache, cache_folder


def test_curation_is_the_references_and_the_local_engines(tmp_path: Path) -> None:
    cache = Cache(cache_folder())
    if "cldr-annotations" not in cache.present():
        pytest.skip("the packages have not been fetched")
    world = plain.world_of(cache, tmp_path / "metadata")
    config = CurationConfig(t_en=6)
    rows = random.Random(1).sample(world.rows, len(world.rows))
    expected = plain.plainly(world, config)
    with ray_engine(HEAD, workers=2, tell=print) as engine:
        for shards in (1, 2, 5):
            found, local = (tmp_path / f"{name}{shards}" for name in ("ray", "local"))
            plain.run(replace(world, rows=rows), found, config, shards, engine)
            plain.run(replace(world, rows=rows), local, config, shards, LocalEngine(workers=0))
            plain.assert_same(plain.curated(found), expected.rows)
            here, there = plain.contents(found / "curated"), plain.contents(local / "curated")
            assert here == there
