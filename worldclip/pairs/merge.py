"""Rows of many sources to pairs: one row an image, its texts brought together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worldclip.errors import DataError
from worldclip.pairs.rows import BUCKET, FLUSH_BYTES, FLUSH_ROWS, KNOWN, ROWS, Tally, bucket_of, combined, distinct
from worldclip.schema import PAIRS, TEXT, validate

#: Texts of one image beyond these are set aside: a logo stands on a million pages under as many names.
MOST_TEXTS = 64


def common_schema(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """The columns of all files of rows, numbers widened where files differ.

    Raises:
        DataError: a column holds things in two files that no type holds both of.
    """
    try:
        found = pa.unify_schemas([_without_bucket(each) for each in schemas], promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise DataError(
            f"The tables do not go together: {error}. Extract them to folders of their own, or rename the column."
        ) from None
    return pa.schema([*ROWS, *(found.field(name) for name in sorted(set(found.names) - set(ROWS.names)))])


def _without_bucket(schema: pa.Schema) -> pa.Schema:
    at = schema.get_field_index(BUCKET)
    return (schema if at < 0 else schema.remove(at)).remove_metadata()


def merge_bucket(files: Sequence[Path], bucket: int, schema: pa.Schema, tally: Tally) -> pa.Table:
    """The pairs of one bucket: `PAIRS`, `url`, and what else the sources tell of an image; sorted by id.

    A text that several sources tell of the same image stands there once. What is held is the distinct rows of one
    bucket, not all that was read of it. `tally` is given the texts that went into others and those beyond the limit.
    """
    held = schema.empty_table()
    fresh: list[pa.Table] = []
    read = 0
    for path in files:
        for group in bucket_of(path, bucket):
            read += len(group)
            fresh.append(_aligned(group, schema))
            limit = max(FLUSH_ROWS, len(held))  # or a large bucket would be sorted again for every group
            if sum(map(len, fresh)) >= limit or sum(each.nbytes for each in fresh) >= max(FLUSH_BYTES, held.nbytes):
                held, fresh = distinct(pa.concat_tables([held, *fresh]).combine_chunks()), []
    rows = distinct(pa.concat_tables([held, *fresh]).combine_chunks())
    tally.set_aside[KNOWN] += read - len(rows)
    return to_pairs(rows, tally)


def _aligned(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def to_pairs(rows: pa.Table, tally: Tally) -> pa.Table:
    """Group rows that `distinct` gave by image."""
    ids = rows.column("id").to_numpy()
    first = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]])) if len(ids) else np.zeros(0, np.int64)
    counts = np.diff(np.append(first, len(ids)))
    place = np.arange(len(ids)) - np.repeat(first, counts)
    kept = rows.filter(pa.array(place < MOST_TEXTS))
    if len(kept) < len(rows):
        tally.set_aside[f"text: beyond the {MOST_TEXTS} of one image"] += len(rows) - len(kept)
    structs = pa.StructArray.from_arrays(
        [kept.column("kind").combine_chunks(), kept.column("text").combine_chunks()], fields=list(TEXT)
    )
    offsets = np.concatenate([[0], np.cumsum(np.minimum(counts, MOST_TEXTS))]).astype(np.int32)
    texts = pa.ListArray.from_arrays(pa.array(offsets), structs, type=PAIRS.field("texts").type)
    images = combined(rows.drop_columns(["kind", "text"]), ["id"]).sort_by("id")
    # Sorted in the same order as the rows are: both by the bytes of the id.
    table = images.add_column(1, PAIRS.field("texts"), texts)
    order = ["id", "texts", *sorted(set(table.column_names) - {"id", "texts"})]
    if len(table) and not pc.all(pc.equal(table.column("id"), rows.column("id").take(pa.array(first)))).as_py():
        raise DataError("Rows to be brought together are not sorted by id: give what `distinct` gives.")
    return validate(table.select(order), PAIRS, "merged pairs")
