"""Which concepts occur in a text (paper, section 3.2): exact substring search over all entries of a list at once.

The rule of the paper. A text is put between two spaces, each of `, . ; : ? ! `` ` `` is surrounded by spaces, and tabs
and line ends become spaces. An entry gets a leading space unless its first character is *unspaced* (of a script
written without spaces, or punctuation), and a trailing space unless its last one is. It matches where it occurs.

The padded entries are kept as one sorted table of UTF-8 bytes. From each byte of the text the range of entries that
begin with what follows is narrowed byte by byte; an entry that ends inside the range has been found. UTF-8 is
self-synchronising, so a match of bytes is a match of characters. The files of a saved index are these arrays:
opening maps them into memory and parses nothing.
"""

from __future__ import annotations

import os
import shutil
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numba
import numpy as np
import pyarrow as pa

from worldclip.errors import DataError, MissingData, StorageError
from worldclip.storage import TEMPORARY, digest, read_json, write_json

FORMAT = "worldclip-index"
VERSION = 1
ARRAYS = ("bytes", "offsets", "ids")

#: Scripts written without spaces, as the paper's release lists them (kana is not among them).
UNSPACED_RANGES = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0x2CEB0, 0x2EBEF), (0xF900, 0xFAFF), (0x2E80, 0x2EFF), (0x2F00, 0x2FDF), (0x2FF0, 0x2FFF),
    (0x0E00, 0x0E7F), (0x0E80, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x0F00, 0x0FFF),
)  # fmt: skip
UNSPACED_MARKS = frozenset(string.punctuation + "，。、；：？！“”‘’（）【】《》〈〉「」『』～—.")
WRAPPED_MARKS = b",.;:?!`"
BLANKS = b"\t\n\r"

_SPACE, _WRAPPED, _BLANK = 32, 1, 2
_CLASS = np.zeros(256, np.uint8)
_CLASS[list(WRAPPED_MARKS)] = _WRAPPED
_CLASS[list(BLANKS)] = _BLANK

#: Arrow types that are read as text; bytes must be UTF-8.
_TEXT_TYPES = frozenset(
    [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view(), pa.null()]
)

Texts: TypeAlias = pa.Array | pa.ChunkedArray | Sequence[str | None]


def unspaced(character: str) -> bool:
    """Whether a character needs no space beside it to count as the border of an entry."""
    code = ord(character)
    return character in UNSPACED_MARKS or any(low <= code <= high for low, high in UNSPACED_RANGES)


def padded(entry: str) -> str:
    """An entry with the spaces that the rule asks for; the empty entry, which never matches, stays empty."""
    if not entry:
        return ""
    return f"{'' if unspaced(entry[0]) else ' '}{entry}{'' if unspaced(entry[-1]) else ' '}"


class Index:
    """All entries of one list, ready to be matched. The id of an entry is its position in the list."""

    def __init__(self, header: dict[str, Any], data: np.ndarray, offsets: np.ndarray, ids: np.ndarray) -> None:
        self.header = header
        self._data, self._offsets, self._ids = map(_read_only, (data, offsets, ids))
        # Where the entries with each first byte begin: the first and widest narrowing, made once.
        first = np.asarray(data[offsets[:-1]]) if len(ids) else np.zeros(0, np.uint8)
        self._first = np.searchsorted(first, np.arange(257)).astype(np.int64)

    def __len__(self) -> int:
        return int(self.header["entries"])

    @property
    def nbytes(self) -> int:
        """Bytes of the index's arrays, in memory and on disk."""
        return int(self._data.nbytes + self._offsets.nbytes + self._ids.nbytes)

    @classmethod
    def build(cls, entries: Sequence[str] | pa.Array | pa.ChunkedArray, rule: str = "paper") -> Index:
        """Build the index of a list of entries.

        Raises:
            DataError: an unknown rule, an entry that is null or not text.
        """
        if rule != "paper":
            raise DataError(f"Index.build: rule is {rule!r}; allowed: 'paper'.")
        array = _string_array(entries, "entries")
        if array.null_count:
            raise DataError(
                f"Index.build: entry {array.is_null().index(True).as_py()} is null; every entry must be text."
            )
        texts = array.to_pylist()
        keys = sorted((padded(text).encode(), position) for position, text in enumerate(texts) if text)
        data = np.frombuffer(b"".join(key for key, _ in keys), np.uint8)
        offsets = np.zeros(len(keys) + 1, np.int64)
        np.cumsum([len(key) for key, _ in keys], out=offsets[1:])
        ids = np.array([position for _, position in keys], np.uint32)
        header = {
            "format": FORMAT,
            "version": VERSION,
            "rule": rule,
            "entries": len(texts),
            "entries_hash": digest(*texts),
            "lengths": {"bytes": len(data), "offsets": len(offsets), "ids": len(ids)},
        }
        return cls(header, data, offsets, ids)

    def save(self, path: str | Path) -> None:
        """Write the index as a folder of flat arrays and a JSON header, replacing what is there.

        Raises:
            StorageError: the disk refused; what was there before is still there.
        """
        path = Path(path)
        temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            for name, array in zip(ARRAYS, (self._data, self._offsets, self._ids), strict=True):
                np.save(temporary / f"{name}.npy", array, allow_pickle=False)
            write_json(temporary / "header.json", self.header)
            if path.exists():
                shutil.rmtree(path)
            temporary.replace(path)
        except OSError as error:
            raise StorageError(
                f"{path}: the index could not be written ({error.strerror or error}). Free space or choose another "
                "folder and run the same command again."
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @classmethod
    def open(cls, path: str | Path) -> Index:
        """Map a saved index into memory: nothing is parsed, and processes share the pages.

        Raises:
            MissingData: there is no index at `path`.
            DataError: it is foreign, of a newer version, or cut short.
        """
        path = Path(path)
        if not (path / "header.json").is_file():
            raise MissingData(
                f"{path}: no index here (a folder with header.json). Make it with Index.build(...).save(path)."
            )
        header = read_json(path / "header.json")
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise DataError(f"{path}/header.json: is not the header of a {FORMAT}. Build the index again.")
        if header.get("version") != VERSION:
            raise DataError(
                f"{path}: index version {header.get('version')}; this worldclip reads {VERSION}. Build it again."
            )
        arrays = []
        for name in ARRAYS:
            try:
                array = np.load(
                    path / f"{name}.npy", mmap_mode="r" if header["lengths"][name] else None, allow_pickle=False
                )
            except (OSError, ValueError, KeyError, EOFError) as error:
                raise DataError(f"{path}/{name}.npy: missing or cut short ({error}). Build the index again.") from None
            if len(array) != header["lengths"][name]:
                raise DataError(
                    f"{path}/{name}.npy: holds {len(array)} items, the header says {header['lengths'][name]}."
                )
            arrays.append(array)
        return cls(header, *arrays)

    def match(self, texts: Texts) -> pa.ListArray:
        """Find the entries that occur in each text.

        Args:
            texts: Arrow strings (any layout, chunked, sliced), a pandas series, or a list of str; None allowed.

        Returns:
            list<uint32> [n]: sorted, unique ids of the entries found; null for a null text. The GIL is released.
        """
        array = _string_array(texts, "texts")
        _, raw_offsets, raw_data = array.buffers()
        own = slice(
            array.offset, array.offset + len(array) + 1
        )  # The buffers are those of the whole that it is cut from.
        offsets = np.frombuffer(raw_offsets, np.int64)[own] if len(array) else _read_only(np.zeros(1, np.int64))
        data = np.frombuffer(raw_data, np.uint8) if raw_data else _read_only(np.zeros(0, np.uint8))
        found_offsets, found = _match(data, offsets, self._data, self._offsets, self._ids, self._first, _CLASS)
        mask = array.is_null() if array.null_count else None
        return pa.ListArray.from_arrays(pa.array(found_offsets), pa.array(found), mask=mask)


def _read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written to, as all mapped arrays are: the kernel is compiled for one kind alone."""
    view = array.view()
    view.flags.writeable = False
    return view


def _string_array(values: Texts, what: str) -> pa.Array:
    try:
        if isinstance(values, str | bytes):
            raise pa.ArrowTypeError("found one text, not a list of them")
        if not isinstance(values, pa.Array | pa.ChunkedArray):
            values = pa.array(values, pa.string())
        if isinstance(values, pa.ChunkedArray):
            values = values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
        kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
        if kind not in _TEXT_TYPES:
            raise pa.ArrowTypeError(f"found {kind}")
        return values.cast(pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, UnicodeEncodeError) as error:
        raise DataError(f"{what}: must be text (str or None, valid Unicode): {error}.") from None


@numba.njit(cache=True, nogil=True)
def _match(data, offsets, entries, entry_offsets, ids, first, classes):  # type: ignore[no-untyped-def]
    """Offsets int32 [n + 1] and ids uint32 of all texts; see the module's docstring for the idea."""
    n = len(offsets) - 1
    longest = 0
    for row in range(n):
        longest = max(longest, offsets[row + 1] - offsets[row])
    text = np.empty(3 * longest + 2, np.uint8)
    found = np.empty(max(1024, 4 * n), np.uint32)
    found_offsets = np.zeros(n + 1, np.int32)
    used = 0
    for row in range(n):
        length = 1
        text[0] = _SPACE
        for at in range(offsets[row], offsets[row + 1]):
            byte = data[at]
            if classes[byte] == _WRAPPED:
                text[length] = _SPACE
                text[length + 1] = byte
                text[length + 2] = _SPACE
                length += 3
            else:
                text[length] = _SPACE if classes[byte] == _BLANK else byte
                length += 1
        text[length] = _SPACE
        length += 1

        begin = used
        for start in range(length):
            low, high = first[text[start]], first[np.int64(text[start]) + 1]
            depth = 1
            while low < high:
                while low < high and entry_offsets[low + 1] - entry_offsets[low] == depth:
                    if used == len(found):
                        grown = np.empty(2 * used, np.uint32)
                        grown[:used] = found
                        found = grown
                    found[used] = ids[low]
                    used += 1
                    low += 1
                if low == high or start + depth == length:
                    break
                byte = text[start + depth]
                low = _lower(entries, entry_offsets, low, high, depth, byte)
                high = _lower(entries, entry_offsets, low, high, depth, np.int64(byte) + 1)
                depth += 1

        if used - begin > 1:  # Sort this text's ids and drop repeats, in place.
            own = np.sort(found[begin:used])
            used = begin + 1
            found[begin] = own[0]
            for at in range(1, len(own)):
                if own[at] != own[at - 1]:
                    found[used] = own[at]
                    used += 1
        found_offsets[row + 1] = used
    return found_offsets, found[:used].copy()


@numba.njit(cache=True, nogil=True, inline="always")
def _lower(entries, entry_offsets, low, high, depth, byte):  # type: ignore[no-untyped-def]
    """First entry in [low, high) whose byte at `depth` is at least `byte`; all are longer than `depth`."""
    while low < high:
        middle = (low + high) // 2
        if entries[entry_offsets[middle] + depth] < byte:
            low = middle + 1
        else:
            high = middle
    return low
