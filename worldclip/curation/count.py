"""How often each concept occurs (paper, section 3.2, stage 1). Counts are exact and merge by addition."""

from __future__ import annotations

import numba
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


def add(counts: np.ndarray, matches: pa.ListArray, times: np.ndarray) -> None:
    """Add the matches of some texts, each as often as it stands there, to counts.

    Args:
        counts: int64 [entries], changed in place.
        matches: list<uint32> [n], the sorted unique ids of each text.
        times: int64 [n].
    """
    lengths = matches.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    _add(counts, lengths, matches.flatten().to_numpy(zero_copy_only=False), times)


@numba.njit(cache=True, nogil=True)
def _add(counts, lengths, ids, times):  # type: ignore[no-untyped-def]
    at = 0
    for text in range(len(lengths)):
        for position in range(at, at + lengths[text]):
            counts[ids[position]] += times[text]
        at += lengths[text]
