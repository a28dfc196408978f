"""What `test_faults.py` curates, and a driver that can be killed: `python faults.py FOLDER WORKERS`."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from worldclip.config import CurationConfig
from worldclip.curate import curate
from worldclip.engines import LocalEngine
from worldclip.metadata.entries import Metadata

WORDS = [f"word{number}" for number in range(2000)]
METADATA = Metadata(entries={"en": pa.chunked_array([["the", "of the", *WORDS]])}, hash="abc")
SHARDS, ROWS = 12, 4000


def write_pairs(folder: Path) -> list[Path]:
    """Shards that take a moment each."""
    folder.mkdir(parents=True)
    paths = [folder / f"pairs-{shard:02d}.parquet" for shard in range(SHARDS)]
    for shard, path in enumerate(paths):
        rows = range(shard * ROWS, (shard + 1) * ROWS)
        texts = [f"the picture of the {WORDS[row * row % 1999]} and of {WORDS[row % 97]} {row}" for row in rows]
        pq.write_table(pa.table({"id": [f"image-{row}" for row in rows], "text": texts}), path)
    return paths


def run(folder: Path, workers: int) -> dict[str, object]:
    """Curate the pairs of a folder into another one in it."""
    paths = sorted((folder.parent / "pairs").glob("*.parquet"))
    engine = LocalEngine(workers=workers, tries=3)
    return curate(paths, METADATA, folder, CurationConfig(t_en=20), seed=0, engine=engine)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file and what is in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
