"""Texts as kernels take them: the bytes and offsets of one Arrow array, whatever a user gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from worldclip.errors import DataError

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
