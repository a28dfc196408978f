"""64 bits of an embedding, and all codes near a code: exact, as brute force is (the paper's appendix).

    embedding -> random projection to 64 numbers -> their signs: one uint64 an image
    CodeIndex.build(codes)           tables of parts of the codes, opened by memory map
    index.near(queries, radius)      all pairs of codes that differ in at most `radius` bits

The look-up is multi-index hashing (Norouzi, Punjani and Fleet, CVPR 2012): codes that differ in r bits differ in at
most r // m bits of one of their m parts (pigeonhole), so only images that share such a part are compared.

An embedding is made by whatever the caller has: this module knows only arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np

from worldclip.errors import ConfigError, DataError
from worldclip.storage import replacing

BITS = 64

#: Radii above this compare nearly everything with everything.
LARGEST_RADIUS = 16


def signs(embeddings: np.ndarray, seed: int = 0) -> np.ndarray:
    """64 sign bits of each embedding: uint64 [n] of float [n, d].

    Two embeddings at an angle of a differ in 64 a / pi bits on average (Charikar, STOC 2002). Scale does not matter.

    Raises:
        DataError: not two-dimensional, or values that are not finite.
    """
    if embeddings.ndim != 2 or not np.isfinite(embeddings).all():
        raise DataError(f"embeddings: needs finite numbers [images, dimension]; found shape {embeddings.shape}.")
    directions = np.random.Generator(np.random.PCG64(seed)).standard_normal((embeddings.shape[1], BITS))
    # In float64 another order of summing hardly ever turns a sign.
    bits = embeddings.astype(np.float64) @ directions > 0
    return np.packbits(bits, axis=1, bitorder="little").view(np.uint64).ravel()


@dataclass(frozen=True, kw_only=True)
class CodeIndex:
    """Codes to look up in. `order`: for each part, the codes' places sorted by it; `starts`: where a value begins."""

    codes: np.ndarray  #: uint64 [n]
    edges: np.ndarray  #: int64 [m + 1], the bits where the parts begin
    order: np.ndarray  #: uint32 [m, n]
    starts: np.ndarray  #: uint32 [m, 2 ** width + 1]

    @staticmethod
    def build(codes: np.ndarray) -> CodeIndex:
        """Index uint64 [n] codes, n below 2**32: 8 n bytes of codes and 12 n to 16 n of tables.

        Raises:
            DataError: they are not uint64 [n].
        """
        if codes.dtype != np.uint64 or codes.ndim != 1 or len(codes) >= 2**32:
            raise DataError(f"codes: needs uint64 [n], n below 2**32; found {codes.dtype} {list(codes.shape)}.")
        parts = 4 if len(codes) < 2**20 else 3  # a part as long as log2(n) leaves about one image a value
        edges = np.linspace(0, BITS, parts + 1).round().astype(np.int64)
        width = int(np.diff(edges).max())
        order = np.empty((parts, len(codes)), np.uint32)
        starts = np.empty((parts, 2**width + 1), np.uint32)
        for part in range(parts):
            values = _part(codes, edges, part)
            order[part] = np.argsort(values, kind="stable")
            counted = np.bincount(values.astype(np.int64), minlength=2**width)
            starts[part] = np.concatenate([[0], np.cumsum(counted)])
        return CodeIndex(codes=codes, edges=edges, order=order, starts=starts)

    def save(self, folder: Path) -> None:
        """Write four .npy files."""
        for name in ("codes", "edges", "order", "starts"):
            with replacing(folder / f"{name}.npy") as temporary, open(temporary, "wb") as file:
                np.save(file, getattr(self, name))

    @staticmethod
    def open(folder: Path) -> CodeIndex:
        """Open what `save` wrote, by memory map: the processes of a machine share it.

        Raises:
            DataError: a file is missing or damaged.
        """
        try:
            arrays = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
                for name in ("codes", "edges", "order", "starts")
            }
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{folder}: is no index of codes ({error}). Remove it and run the same command.") from None
        return CodeIndex(**arrays)

    def near(self, queries: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
        """All pairs of a query and an indexed code that differ in at most `radius` bits.

        Args:
            queries: uint64 [q].

        Returns:
            int64 [pairs] of queries, ascending, and int64 [pairs] of indexed images, ascending for each query.

        Raises:
            ConfigError: a radius that is not allowed.
        """
        _check_radius(radius)
        queries = np.ascontiguousarray(queries, np.uint64)
        masks = [_flips(int(width), radius // (len(self.edges) - 1)) for width in np.diff(self.edges)]
        first = np.concatenate([[0], np.cumsum([len(each) for each in masks])])
        flips = np.concatenate(masks)
        tables = self.codes, self.edges, self.order, self.starts, flips, first
        counted = np.zeros(len(queries), np.int64)
        nowhere = np.zeros(0, np.int64)
        _look_up(queries, radius, *tables, counted, nowhere, False)
        ends = np.cumsum(counted)
        found = np.empty(int(ends[-1]) if len(ends) else 0, np.int64)
        _look_up(queries, radius, *tables, ends - counted, found, True)
        rows = np.repeat(np.arange(len(queries)), counted)
        order = np.lexsort((found, rows))
        return rows, found[order]


def _check_radius(radius: int) -> None:
    if not 0 <= radius <= LARGEST_RADIUS:
        raise ConfigError(f"radius: found {radius}; allowed are 0 (equal codes) to {LARGEST_RADIUS} bits of {BITS}.")


def _part(codes: np.ndarray, edges: np.ndarray, part: int) -> np.ndarray:
    width = np.uint64(edges[part + 1] - edges[part])
    found: np.ndarray = (codes >> np.uint64(edges[part])) & ((np.uint64(1) << width) - np.uint64(1))
    return found


def _flips(width: int, most: int) -> np.ndarray:
    """All masks of `width` bits with at most `most` set, uint64."""
    found = [np.zeros(1, np.uint64)]
    for _ in range(most):
        bits = np.uint64(1) << np.arange(width, dtype=np.uint64)
        found.append(np.unique((found[-1][:, None] ^ bits[None, :]).ravel()))
    return np.unique(np.concatenate(found))


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Bits in which codes differ, int64 [n] of uint64 [n] and [n]."""
    found: np.ndarray = np.bitwise_count(one ^ other).astype(np.int64)
    return found


@numba.njit(nogil=True, cache=True)
def _distance(one, other):  # type: ignore[no-untyped-def]
    # Bits set of a 64-bit word, by halves (Warren, Hacker's Delight, 5-1); compilers make one instruction of it.
    word = one ^ other
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@numba.njit(nogil=True, cache=True)
def _look_up(queries, radius, codes, edges, order, starts, flips, first, place, found, write):  # type: ignore[no-untyped-def]
    """Count (`place` += 1 a pair) or write (`found[place]`, `place` += 1) the pairs of each query."""
    parts = len(edges) - 1
    most = radius // parts
    for query in range(len(queries)):
        code = queries[query]
        for part in range(parts):
            mask = (np.uint64(1) << np.uint64(edges[part + 1] - edges[part])) - np.uint64(1)
            value = (code >> np.uint64(edges[part])) & mask
            for flip in range(first[part], first[part + 1]):
                near = np.int64(value ^ flips[flip])
                for at in range(starts[part, near], starts[part, near + 1]):
                    image = order[part, at]
                    if _distance(code, codes[image]) > radius:
                        continue
                    # A pair that an earlier part has told of is not told again.
                    told = False
                    for earlier in range(part):
                        width = np.uint64(edges[earlier + 1] - edges[earlier])
                        low = (np.uint64(1) << width) - np.uint64(1)
                        shift = np.uint64(edges[earlier])
                        if _distance((code >> shift) & low, (codes[image] >> shift) & low) <= most:
                            told = True
                            break
                    if not told:
                        if write:
                            found[place[query]] = image
                        place[query] += 1
