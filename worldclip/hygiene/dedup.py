"""Which images go where several are alike: equal values (bytes, URLs), near codes, evaluation images in training.

Of images that are alike the one with the smallest id stays, whatever their order, files or workers. An image goes as a
copy whether or not the one that stays is removed for another reason: who opts out an image means its copies too.
"""

from __future__ import annotations

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worldclip.hygiene.codes import CodeIndex, distances
from worldclip.hygiene.removals import REMOVALS


def exact_copies(ids: pa.StringArray, values: pa.Array, reason: str) -> pa.Table:
    """Removals of images that share a value (content hash, URL) with one of a smaller id; null is equal to nothing."""
    rows = pa.table({"id": ids, "value": values}).filter(pc.is_valid(values))
    stays = rows.group_by("value", use_threads=False).aggregate([("id", "min")])
    at = pc.index_in(rows.column("value"), stays.column("value").combine_chunks())
    stayer = stays.column("id_min").take(at)
    gone = pc.not_equal(rows.column("id"), stayer)
    return _table(rows.column("id").filter(gone), reason, stayer.filter(gone))


def near_copies(ids: pa.StringArray, codes: np.ndarray, first: np.ndarray, second: np.ndarray) -> pa.Table:
    """Removals by codes, such that each image that goes is near one that stays, and no two that stay are near.

    Images are asked in the order of their ids: each stays unless one that stays is near it. So a chain of near images
    does not go as a whole because its ends are far apart. Images of equal codes go for the same one.

    Args:
        ids, codes: [n], uint64 codes; equal codes are near.
        first, second: uint64 [pairs], codes that are near each other, in either order.
    """
    distinct, place = np.unique(codes, return_inverse=True)
    table = pa.table({"id": ids, "code": pa.array(place)})
    smallest = table.group_by("code", use_threads=False).aggregate([("id", "min")]).sort_by("code").column("id_min")
    rank = np.empty(len(distinct), np.int64)
    rank[pc.sort_indices(smallest).to_numpy()] = np.arange(len(distinct))
    code_of_rank = np.argsort(rank)
    one, other = rank[np.searchsorted(distinct, first)], rank[np.searchsorted(distinct, second)]
    low, high = np.minimum(one, other), np.maximum(one, other)
    bits = distances(distinct[code_of_rank[low]], distinct[code_of_rank[high]])
    order = np.lexsort((low, bits, high))  # the nearest that stays, and of those the one with the smallest id
    stands = _stay(len(distinct), low[order], high[order])
    winner = code_of_rank[stands[rank[place]]]
    stayer = smallest.combine_chunks().take(pa.array(winner))
    gone = pc.not_equal(ids, stayer)
    apart = pa.array(distances(distinct[winner], codes)).cast(pa.string())
    detail = pc.binary_join_element_wise(stayer, " (", apart, " bits)", "")
    return _table(ids.filter(gone), "near copy", detail.filter(gone))


def leaks(
    ids: pa.StringArray, codes: np.ndarray, evaluation: CodeIndex, names: pa.StringArray, radius: int
) -> pa.Table:
    """Removals of images within `radius` bits of an evaluation image; `detail` names the nearest of them.

    Args:
        ids, codes: [n] images, uint64 codes.
        names: of the images in `evaluation`.
    """
    rows, found = evaluation.near(codes, radius)
    bits = distances(codes[rows], np.asarray(evaluation.codes)[found])
    table = pa.table({"row": rows, "bits": bits, "name": names.take(pa.array(found))})
    table = table.sort_by([("row", "ascending"), ("bits", "ascending"), ("name", "ascending")])
    _, nearest = np.unique(table.column("row").to_numpy(), return_index=True)
    table = table.take(pa.array(nearest))
    detail = pc.binary_join_element_wise(
        table.column("name"), " (", table.column("bits").cast(pa.string()), " bits)", ""
    )
    return _table(ids.take(table.column("row").combine_chunks()), "evaluation image", detail)


def _table(ids: pa.Array, reason: str, detail: pa.Array) -> pa.Table:
    return pa.table([ids, pa.repeat(pa.scalar(reason, pa.string()), len(ids)), detail], schema=REMOVALS)


@numba.njit(nogil=True, cache=True)
def _stay(count, low, high):  # type: ignore[no-untyped-def]
    """Which stands for each: itself, or the one that stays and is near it; pairs are sorted by `high`, low < high."""
    stands = np.arange(count)
    for pair in range(len(low)):
        if stands[high[pair]] == high[pair] and stands[low[pair]] == low[pair]:
            stands[high[pair]] = low[pair]
    return stands
