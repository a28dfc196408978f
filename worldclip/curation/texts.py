"""Texts as kernels take them: the bytes and offsets of one Arrow array, whatever a user gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from worldclip.curation.wide import kernel, lowest, within
from worldclip.errors import DataError

_U0, _U1, _U2, _U3, _U61, _U62, _U63, _U64 = (np.uint64(value) for value in (0, 1, 2, 3, 61, 62, 63, 64))

#: Arrow types that are read as text; bytes must be UTF-8.
_TEXT_TYPES = frozenset(
    [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view(), pa.null()]
)

Texts: TypeAlias = pa.Array | pa.ChunkedArray | Sequence[str | None]


def string_array(values: Texts, what: str) -> pa.LargeStringArray:
    """One array of any texts: Arrow (any layout, chunked, sliced), a pandas series, or a list of str and None.

    Raises:
        DataError: something else is among them; `what` names them.
    """
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


def buffers(texts: pa.LargeStringArray) -> tuple[np.ndarray, np.ndarray]:
    """The bytes (uint8) and offsets (int64 [n + 1]) of an array, which may be a slice of a larger one."""
    _, offsets, data = texts.buffers()
    empty = np.zeros(0, np.uint8)
    own = slice(texts.offset, texts.offset + len(texts) + 1)
    return (
        read_only(np.frombuffer(data, np.uint8) if data else empty),
        read_only(np.frombuffer(offsets, np.int64)[own] if len(texts) else np.zeros(1, np.int64)),
    )


def read_only(array: np.ndarray) -> np.ndarray:
    """A view that cannot be written to, as all mapped arrays are: kernels are compiled for one kind alone."""
    view = array.view()
    view.flags.writeable = False
    return view


def require_utf8(data: np.ndarray, offsets: np.ndarray, what: str) -> None:
    """Refuse texts that are not UTF-8. Arrow promises that strings are, and does not look.

    Raises:
        DataError: one is not; `what` names them.
    """
    wrong = _first_wrong(data, offsets, np.zeros(192, np.uint8))
    if wrong < 0:
        return
    for byte in (wrong - 1, wrong):  # A text that is cut short is noticed behind its end.
        row = max(int(np.searchsorted(offsets, byte, "right")) - 1, 0)
        text = data[offsets[row] : offsets[min(row + 1, len(offsets) - 1)]].tobytes()
        try:
            text.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{what} {row} is not UTF-8: {error.reason} at byte {error.start}. Decode it with errors='replace', or "
                "leave it out."
            ) from None


@kernel
def _first_wrong(data, offsets, end_of_data):  # type: ignore[no-untyped-def]
    """Where the first byte is that cannot be there in UTF-8, or -1. `end_of_data`: 192 zeros."""
    at, end, expected = np.uint64(offsets[0]), np.uint64(offsets[-1]), _U0
    while at + _U64 < end:
        wrong, expected = _wrong(data, at, expected)
        if wrong:
            return np.int64(at + lowest(wrong))
        at += _U64
    for byte in range(end - at):
        end_of_data[byte] = data[at + byte]
    for part in range(_U0, _U64 + _U1, _U64):  # What is still expected behind the end is wrong, too.
        wrong, expected = _wrong(end_of_data, part, expected)
        if wrong:
            return np.int64(at + part + lowest(wrong))
    for row in range(np.uint64(len(offsets)) - _U1):
        begin = np.uint64(offsets[row])
        if offsets[row] < offsets[row + _U1] and data[begin] & 0xC0 == 0x80:
            return np.int64(begin)
    return np.int64(-1)


@kernel
def _wrong(data, at, expected):  # type: ignore[no-untyped-def]
    """Which of 64 bytes are wrong, and which of the next ones must go on with a character; one more can be read."""
    if not within(data, at, 0x80, 0xFF) | expected:
        return _U0, _U0
    inside, threes, fours = within(data, at, 0x80, 0xBF), within(data, at, 0xE0, 0xEF), within(data, at, 0xF0, 0xF4)
    begin = within(data, at, 0xC2, 0xDF) | threes | fours
    expected |= begin << _U1 | (threes | fours) << _U2 | fours << _U3
    wrong = (expected ^ inside) | within(data, at, 0xC0, 0xC1) | within(data, at, 0xF5, 0xFF)
    if threes | fours:  # Too long, a surrogate, or beyond what Unicode has
        after = at + _U1
        wrong |= within(data, at, 0xE0, 0xE0) & within(data, after, 0x80, 0x9F)
        wrong |= within(data, at, 0xED, 0xED) & within(data, after, 0xA0, 0xBF)
        wrong |= within(data, at, 0xF0, 0xF0) & within(data, after, 0x80, 0x8F)
        wrong |= within(data, at, 0xF4, 0xF4) & within(data, after, 0x90, 0xBF)
    return wrong, begin >> _U63 | (threes | fours) >> _U62 | fours >> _U61
