"""How often each concept occurs (paper, section 3.2, stage 1). Counts are exact and merge by addition."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def count(matches: pa.ListArray, entries: int) -> np.ndarray:
    """Count the texts in which each entry occurs.

    Args:
        matches: list<uint32> [n], the sorted unique ids of each text (`Index.match`).
        entries: length of the list that the ids point into.

    Returns:
        int64 [entries].
    """
    return np.bincount(matches.flatten().to_numpy(zero_copy_only=False), minlength=entries).astype(np.int64)
