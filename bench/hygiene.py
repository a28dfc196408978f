"""Near codes at scale beside brute force, and removal of near copies, one core.

The peer compares every query with every code by NumPy (XOR and bit counts); no approximate index is exact enough to be
one.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from worldclip.clean import Rules, remove
from worldclip.clean.look import write_looks
from worldclip.engines import LocalEngine
from worldclip.errors import WorldclipError
from worldclip.hygiene.codes import CodeIndex
from worldclip.storage import read_table, write_table

RADII = (0, 3, 6)


def run(*, check: bool) -> Iterator[dict[str, Any]]:
    """Rows of look-ups by radius, and of a removal.

    Raises:
        WorldclipError: an answer is not that of brute force.
    """
    draw = np.random.default_rng(0)
    count = 50_000 if check else 4_000_000
    codes = _codes(draw, count)
    yield from _look_ups(draw, codes, 200 if check else 100_000, 100)
    yield _removal(draw, codes[: count // 2], files=4)


def _codes(draw: np.random.Generator, count: int) -> np.ndarray:
    """Random codes of which every tenth is near the one before it: 0 to 8 bits away."""
    codes = draw.integers(0, 2**64, count, np.uint64)
    copies = np.arange(1, count, 10)
    bits = draw.integers(0, 64, (8, len(copies)), np.uint64)
    flips = np.uint64(1) << bits
    flips[np.arange(8)[:, None] >= draw.integers(0, 9, len(copies))] = 0
    codes[copies] = codes[copies - 1] ^ np.bitwise_or.reduce(flips)
    return codes


def _look_ups(draw: np.random.Generator, codes: np.ndarray, ours: int, theirs: int) -> Iterator[dict[str, Any]]:
    began = time.perf_counter()
    index = CodeIndex.build(codes)
    built = time.perf_counter() - began
    index.near(codes[:10], 3)  # compiled before it is timed
    queries = codes[draw.integers(0, len(codes), ours)]
    began = time.perf_counter()
    apart = [np.bitwise_count(codes ^ query) for query in queries[:theirs]]
    brute = (time.perf_counter() - began) / theirs
    for radius in RADII:
        began = time.perf_counter()
        rows, found = index.near(queries, radius)
        each = (time.perf_counter() - began) / ours
        for row, bits in enumerate(apart):
            if not np.array_equal(found[rows == row], np.flatnonzero(bits <= radius)):
                raise WorldclipError(f"bench: hygiene: radius {radius}: the index and brute force differ.")
        yield {
            "codes": len(codes),
            "radius": radius,
            "look_ups_per_second_and_core": round(1 / each),
            "brute_force": round(1 / brute, 1),
            "ratio": round(brute / each),
            "build_seconds": round(built, 1),
            "bytes_per_code": round(
                sum(part.nbytes for part in (index.codes, index.order, index.starts)) / len(codes), 1
            ),
            "answers": "equal",
        }


def _removal(draw: np.random.Generator, codes: np.ndarray, files: int) -> dict[str, Any]:
    """`clean remove` of near copies within 3 bits, one core; what stays is checked by looking all of it up."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        numbers = draw.permutation(len(codes))
        looks, pairs = [], []
        for number, rows in enumerate(np.array_split(np.arange(len(codes)), files)):
            ids = pa.array([f"{each:09d}" for each in numbers[rows]])
            looks.append(folder / f"looks-{number}.parquet")
            pairs.append(folder / f"pairs-{number}.parquet")
            write_looks(looks[-1], pa.table({"id": ids, "code": codes[rows]}), codes="bench")
            write_table(pairs[-1], pa.table({"id": ids}))
        began = time.process_time()
        engine = LocalEngine(workers=0)
        summary = remove(pairs, folder / "out", Rules(radius=3), looks=looks, engine=engine)
        seconds = time.process_time() - began
        left = pa.concat_tables([read_table(path) for path in sorted((folder / "out/pairs").glob("*"))])
    of = np.empty(len(codes), np.uint64)
    of[numbers] = codes
    stays = of[np.array(left.column("id").to_pylist(), np.int64)]
    rows, found = CodeIndex.build(stays).near(stays, 3)
    gone = np.setdiff1d(codes, stays)
    if not np.array_equal(rows, found) or len(np.unique(CodeIndex.build(stays).near(gone, 3)[0])) != len(gone):
        raise WorldclipError("bench: hygiene: two that stay are near, or one that went is near none.")
    return {
        "images": len(codes),
        "removed": summary["removed"],
        "images_per_cpu_second": round(len(codes) / seconds),
        "answers": "none that stay are near, all that went are near one that stays",
    }
