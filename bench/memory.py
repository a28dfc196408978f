"""Peak memory of `curate` while one shard grows: one process, all texts in one file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.curate import alone, build_indexes, make_metadata, make_pairs, metadata_of
from worldclip.errors import WorldclipError

#: Texts of the runs that are compared.
SIZES, CHECK_SIZES = (1_000_000, 20_000_000), (100_000, 300_000)

#: The larger run may need so much more.
ALLOWED = 1.15


def run(*, check: bool) -> Iterator[dict[str, Any]]:
    """One row a size.

    Raises:
        WorldclipError: images are lost, or the memory grows with the shard.
    """
    peaks = []
    with tempfile.TemporaryDirectory() as root:
        home = Path(root)
        phrases = make_metadata(home, check)
        for texts in CHECK_SIZES if check else SIZES:
            folder = home / str(texts)
            make_pairs(folder / "pairs", phrases, texts, texts)
            build_indexes(folder, metadata_of(home))
            _, seconds, peak = alone(home, folder, 0, texts)
            peaks.append(peak)
            yield {"texts_in_one_shard": texts, "peak_mb": round(peak), "cpu_seconds": round(seconds, 1)}
    if not check and peaks[-1] > ALLOWED * peaks[0]:
        raise WorldclipError(f"bench: memory: grows with the shard, from {peaks[0]:.0f} to {peaks[-1]:.0f} MiB.")
