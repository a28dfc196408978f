"""Which concepts occur in a text (paper, section 3.2): exact search for all entries of a list at once.

`rules.py` says what an occurrence is, `prepare.py` cuts texts and entries, `trie.py` keeps entries, `search.py` finds
them; here is what users call.

A saved index is one file: a header of 4,096 bytes (one line of JSON), then flat arrays. Opening maps it into memory and
parses nothing; all processes that open it share its pages.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from worldclip.curation import trie
from worldclip.curation.rules import RULES, classes, composed, folding, padded, unspaced
from worldclip.curation.search import search
from worldclip.curation.texts import Texts, buffers, read_only, require_utf8, string_array
from worldclip.errors import DataError, MissingData
from worldclip.storage import digest, replacing

__all__ = ["Index", "padded", "unspaced"]

FORMAT = "worldclip-index"
VERSION = 4
_HEADER = 4096
_ARRAYS = {"firsts": np.bool_, "table": np.uint64, "bits": np.uint64, "records": np.uint32}


class Index:
    """All entries of one list, ready to be matched. The id of an entry is its position in the list."""

    def __init__(self, header: dict[str, Any], arrays: Sequence[np.ndarray]) -> None:
        self.header = header
        self._arrays = tuple(map(read_only, arrays))  # in the order of `_ARRAYS`
        self._record_bytes = read_only(np.asarray(arrays[-1]).view(np.uint8))
        self._rule = (header["rule"] == "paper", read_only(classes(header["rule"])), folding(header["fold_case"]))

    def __len__(self) -> int:
        return int(self.header["entries"])

    @property
    def nbytes(self) -> int:
        """Bytes of the index's arrays, in memory and on disk."""
        return sum(array.nbytes for array in self._arrays)

    @classmethod
    def build(
        cls, entries: Sequence[str] | pa.Array | pa.ChunkedArray, rule: str = "paper", *, fold_case: bool = False
    ) -> Index:
        """Build the index of a list of entries.

        Args:
            entries: fewer than 2^30 - 1, of at most 4 GiB in all.
            rule: `paper`, or `unicode` for the corrected rule (see `rules.py`).
            fold_case: with `unicode`, find an entry whatever the case of its letters and the text's.

        Raises:
            DataError: an unknown rule, an entry that is null or not text, too much of them.
        """
        if rule not in RULES:
            raise DataError(f"Index.build: rule is {rule!r}; allowed: {', '.join(map(repr, RULES))}.")
        if fold_case and rule == "paper":
            raise DataError("Index.build: fold_case goes with rule='unicode'; the paper's rule tells cases apart.")
        array = string_array(entries, "entries")
        if array.null_count:
            raise DataError(
                f"Index.build: entry {array.is_null().index(True).as_py()} is null; every entry must be text."
            )
        if len(array) >= trie.MOST_IDS:
            raise DataError(f"Index.build: {len(array):,} entries; allowed: fewer than 2^30 - 1. Split the list.")
        data, offsets = buffers(array)
        require_utf8(data, offsets, "Index.build: entry")
        hashed = digest(np.diff(offsets).tobytes(), data[offsets[0] : offsets[-1]].tobytes())
        if rule == "unicode":
            data, offsets = buffers(composed(array))
        text, borders, begins = trie.prepare_entries(data, offsets, rule == "paper", classes(rule), folding(fold_case))
        arrays = _arrays_of(text, borders, begins)
        header = {
            "format": FORMAT,
            "version": VERSION,
            "rule": rule,
            "fold_case": fold_case,
            "entries": len(array),
            "entries_hash": hashed,
            "lengths": {name: len(array) for name, array in zip(_ARRAYS, arrays, strict=True)},
        }
        return cls(header, arrays)

    def save(self, path: str | Path) -> None:
        """Write the index to one file, replacing what is there.

        Raises:
            StorageError: the disk refused; what was there before is still there.
        """
        header = json.dumps(self.header, sort_keys=True).encode()
        with replacing(Path(path)) as temporary, open(temporary, "wb") as file:
            file.write(header.ljust(_HEADER - 1) + b"\n")
            for array in self._arrays:
                array.tofile(file)

    @classmethod
    def open(cls, path: str | Path) -> Index:
        """Map a saved index into memory: nothing is parsed, and processes share the pages.

        Raises:
            MissingData: there is no index at `path`.
            DataError: it is foreign, of another version, or cut short.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingData(f"{path}: no index here. Make it with Index.build(...).save(path).")
        with open(path, "rb") as file:
            header = _header(path, file.read(_HEADER))
        lengths = header["lengths"]
        size = _HEADER + sum(lengths[name] * np.dtype(kind).itemsize for name, kind in _ARRAYS.items())
        if path.stat().st_size != size:
            raise DataError(
                f"{path}: holds {path.stat().st_size:,} bytes, its header says {size:,}: it is cut short or was "
                "changed. Build the index again."
            )
        arrays, at = [], _HEADER
        for name, kind in _ARRAYS.items():
            shape = (lengths[name],)
            arrays.append(np.memmap(path, kind, "r", at, shape) if lengths[name] else np.zeros(shape, kind))
            at += arrays[-1].nbytes
        return cls(header, arrays)

    def match(self, texts: Texts) -> pa.ListArray:
        """Find the entries that occur in each text.

        Args:
            texts: Arrow strings (any layout, chunked, sliced), a pandas series, or a list of str; None allowed.

        Returns:
            list<uint32> [n]: sorted, unique ids of the entries found; null for a null text. The GIL is released.

        Raises:
            DataError: what is given is not text; more than 2^31 - 1 matches in one call.
        """
        array = string_array(texts, "texts")
        mask = array.is_null() if array.null_count else None
        paper, kinds, folded = self._rule
        data, offsets = buffers(array)
        require_utf8(data, offsets, "Index.match: text")
        if not paper:
            data, offsets = buffers(composed(array))
        found_offsets, found, _ = search(data, offsets, paper, kinds, folded, *self._arrays, self._record_bytes)
        if len(found) >= 2**31:
            raise DataError(f"Index.match: {len(found):,} matches; allowed in one call: 2^31 - 1. Give fewer texts.")
        return pa.ListArray.from_arrays(pa.array(found_offsets.astype(np.int32)), pa.array(found), mask=mask)


def _arrays_of(text: np.ndarray, borders: np.ndarray, begins: np.ndarray) -> tuple[np.ndarray, ...]:
    """The arrays of an index of prepared entries.

    Raises:
        DataError: the records do not fit what a table can point to.
    """
    keys, filters, goes_on, node_of = trie.nodes_of(text, borders, begins)
    table = trie.table_of(keys, filters, goes_on)
    places = trie.places_of(table, node_of)
    order = np.argsort(places, kind="stable")
    order = order[np.searchsorted(places[order], 0) :]  # without the empty ones
    # Entries of one place stay together, else they keep their order: what is frequent tends to be first.
    begins_place = np.diff(places[order], prepend=-1) != 0
    order = order[np.argsort(order[begins_place][np.cumsum(begins_place) - 1], kind="stable")]
    if int(begins[-1]) + 12 * len(order) >= 4 * trie.MOST_RECORDS:
        raise DataError(f"Index.build: {int(begins[-1]):,} bytes of entries; allowed: 4 GiB in all. Split the list.")
    records = trie.records_of(text, borders, begins, table, places, order)
    at = begins[:-1][np.diff(begins) > 0]
    firsts = np.zeros(256, np.bool_)
    firsts[text[np.where(text[at] == 32, at + 1, at)]] = True
    return firsts, table, trie.bits_of(table), records


def _header(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise DataError(f"{path}: is no {FORMAT}. Make one with Index.build(...).save(path).")
    if header.get("version") != VERSION:
        raise DataError(
            f"{path}: index version {header.get('version')}; this worldclip reads {VERSION}. Build it again."
        )
    lengths = header.get("lengths")
    whole = (
        isinstance(lengths, dict)
        and all(isinstance(lengths.get(name), int) and lengths[name] >= 0 for name in _ARRAYS)
        and lengths["firsts"] == 256
        and lengths["table"] >= 8
        and lengths["table"] % 8 == 0
        and lengths["bits"].bit_count() == 1
        and header.get("rule") in RULES
        and isinstance(header.get("fold_case"), bool)
        and isinstance(header.get("entries"), int)
        and 0 <= header["entries"] < 2**32
    )
    if not whole:
        raise DataError(f"{path}: its header is not whole. Build the index again.")
    return header
