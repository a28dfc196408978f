"""What every source of pairs is read as: one row a text of an image.

    crawl, tables --Rows--> RowWriter: one file a source, its rows parted by image --merge--> pairs

A source says of each record that it could not use why (`Tally`), so that records read = records used + set aside.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ada_url
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from worldclip.curation.sample import id_keys
from worldclip.errors import DataError

#: Columns of every source; further ones speak of the image and pass through.
ROWS = pa.schema([("id", pa.string()), ("kind", pa.string()), ("text", pa.string()), ("url", pa.string())])

#: Longer texts (bytes of UTF-8) are no captions: they are set aside.
LONGEST_TEXT = 65_536
TOO_LONG = "text: longer than 64 KiB"
KNOWN = "text: the image has it already"

#: Longer URLs (characters) are set aside.
LONGEST_URL = 8_192

#: Rows, and bytes, that a writer gathers before it parts them by image. What bounds its memory.
FLUSH_ROWS = 65_536
FLUSH_BYTES = 64 * 2**20

#: Key of the Parquet file metadata that holds a file's tally.
TALLY_KEY = b"worldclip.tally"

BUCKET = "_bucket"


def normalised(url: str, base: str | None = None) -> str | None:
    """An image's URL as a browser reads it (the WHATWG URL standard), its fragment left out; None if it is none.

    Relative URLs are resolved against `base`. Host and scheme become lower case, international hosts Punycode,
    default ports and dot segments go, spaces and non-ASCII characters are percent-encoded. Only http and https count.
    """
    try:
        parsed = ada_url.URL(url, base)
    except ValueError:
        return None
    if parsed.protocol not in ("http:", "https:"):
        return None
    found = str(parsed.href).partition("#")[0]
    return found if len(found) <= LONGEST_URL else None


def url_id(url: str) -> str:
    """The id of an image known by its normalised URL: 128 bits of SHA-256, 32 hex digits."""
    return hashlib.sha256(url.encode()).hexdigest()[:32]


@dataclass
class Tally:
    """How many records were read, and how many records or texts were set aside, by reason."""

    records: int = 0
    texts: int = 0
    set_aside: Counter[str] = field(default_factory=Counter)

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add what `as_dict` gave of another one."""
        self.records += other["records"]
        self.texts += other["texts"]
        self.set_aside.update(other["set_aside"])

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"records": self.records, "texts": self.texts, "set_aside": dict(sorted((+self.set_aside).items()))}

    def as_json(self) -> str:
        """`as_dict` as a file's metadata holds it."""
        return json.dumps(self.as_dict())

    def text_fits(self, text: str | None) -> bool:
        """Whether a text can be used; counts it as read, and why not."""
        if text is None or not text.strip():
            return False  # no text: that an image has none is told of the record
        self.texts += 1
        try:
            size = len(text) if text.isascii() else len(text.encode())
        except UnicodeEncodeError:
            self.set_aside["text: not Unicode (half a surrogate pair)"] += 1
            return False
        if size > LONGEST_TEXT:
            self.set_aside[TOO_LONG] += 1
            return False
        return True


class RowWriter:
    """Writes rows to one Parquet file in row groups that each hold one bucket of images.

    An image's bucket is a hash of its id, so that a reader of one bucket reads only its row groups, of every file. Rows
    that say the same of the same image are written once a flush.
    """

    def __init__(self, path: Path, schema: pa.Schema, buckets: int) -> None:
        self._schema = schema
        self._buckets = buckets
        self._writer = pq.ParquetWriter(path, schema.append(pa.field(BUCKET, pa.int32())), compression="zstd")
        self._held: list[pa.Table] = []
        self._known = 0

    def add(self, rows: pa.Table) -> None:
        """Write rows of the writer's schema, sooner or later."""
        self._held.append(rows)
        if sum(map(len, self._held)) >= FLUSH_ROWS or sum(each.nbytes for each in self._held) >= FLUSH_BYTES:
            self._flush()

    def finish(self, tally: Tally) -> None:
        """Write what is held, and the tally; the file is whole when the writer is left."""
        self._flush()
        tally.set_aside[KNOWN] += self._known
        self._writer.add_key_value_metadata({TALLY_KEY.decode(): tally.as_json()})

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self._writer.close()

    def _flush(self) -> None:
        if not self._held:
            return
        rows = distinct(pa.concat_tables(self._held).combine_chunks())
        self._known += sum(map(len, self._held)) - len(rows)
        self._held = []
        buckets = (id_keys(rows.column("id").to_pylist()) % np.uint64(self._buckets)).astype(np.int32)
        rows = rows.append_column(pa.field(BUCKET, pa.int32()), pa.array(buckets))
        for bucket in np.unique(buckets):
            self._writer.write_table(rows.filter(pa.array(buckets == bucket)))


def bucket_of(path: Path, bucket: int) -> Iterator[pa.Table]:
    """The row groups of one bucket in a file that a `RowWriter` wrote."""
    with pq.ParquetFile(path) as file:
        at = file.schema_arrow.get_field_index(BUCKET)
        # Statistics are of the physical columns, of which a nested field has several; the bucket's is the last.
        last = file.metadata.num_columns - 1
        for group in range(file.metadata.num_row_groups):
            if file.metadata.row_group(group).column(last).statistics.min == bucket:
                yield file.read_row_group(group).remove_column(at)


def tally_of(path: Path) -> dict[str, Any]:
    """What was read and set aside in making a file that a `RowWriter` wrote.

    Raises:
        DataError: the file is none of those.
    """
    found = (pq.read_metadata(path).metadata or {}).get(TALLY_KEY)
    if found is None:
        raise DataError(f"{path}: is not a file of rows. Remove it and run the same command again.")
    return dict(json.loads(found))


#: Of two kinds that say the same text the first is kept: what a page says before what a table calls it.
KINDS = ("alt", "title", "data-image-title")
PLAIN_KINDS = ("text", "caption", "TEXT")


def _rank(kind: str) -> int:
    return KINDS.index(kind) if kind in KINDS else 4 + PLAIN_KINDS.index(kind) if kind in PLAIN_KINDS else 3


def distinct(rows: pa.Table) -> pa.Table:
    """One row for each text of each image, sorted by id, kind and text; the same for any order of the rows.

    Where rows of one image and text disagree, a flag is true if it is so in any of them; of other values the smallest
    is kept, of lists and structs the first.
    """
    kinds = rows.column("kind").unique().to_pylist()
    order = sorted(kinds, key=lambda kind: (_rank(kind), kind))
    codes = pc.index_in(rows.column("kind"), pa.array(order, pa.string()))
    found = combined(rows.set_column(rows.schema.get_field_index("kind"), "kind", codes), ["id", "text"])
    found = found.sort_by([("id", "ascending"), ("kind", "ascending"), ("text", "ascending")])
    named = pa.array(order, pa.string()).take(found.column("kind").combine_chunks())
    return found.set_column(found.schema.get_field_index("kind"), rows.schema.field("kind"), named).cast(rows.schema)


def combined(rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    """One row for each value of `keys`, by the rule of `distinct`; columns in the same order, rows in no order."""
    rows = rows.append_column("_row", pa.array(np.arange(len(rows))))
    how = {name: "max" if pa.types.is_boolean(rows.schema.field(name).type) else "min" for name in rows.column_names}
    nested = [name for name in rows.column_names if pa.types.is_nested(rows.schema.field(name).type)]
    plain = [name for name in rows.column_names if name not in (*keys, *nested)]
    grouped = rows.select([*keys, *plain]).group_by(keys, use_threads=False)
    found = grouped.aggregate([(name, how[name]) for name in plain])
    found = found.rename_columns([*keys, *plain])
    for name in nested:
        found = found.append_column(rows.schema.field(name), rows.column(name).take(found.column("_row")))
    return found.select([name for name in rows.column_names if name != "_row"])


class Rows:
    """Gathers rows that are made one by one, as columns of a schema."""

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self._columns: dict[str, list[Any]] = {name: [] for name in schema.names}
        self._bytes = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row; what it does not tell is null."""
        for name, values in self._columns.items():
            values.append(row.get(name))
        self._bytes += len(row["text"])

    def full(self) -> bool:
        """Whether it is time to take."""
        return len(self._columns["id"]) >= 8192 or self._bytes > FLUSH_BYTES // 8

    def take(self) -> pa.Table:
        """Give the rows and begin anew."""
        arrays = [pa.array(values, self.schema.field(name).type) for name, values in self._columns.items()]
        for values in self._columns.values():
            values.clear()
        self._bytes = 0
        return pa.Table.from_arrays(arrays, schema=self.schema)
