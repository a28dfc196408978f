"""The Arrow tables that the stages of the recipe exchange, and the check at each border.

    pairs    -> matches  -> counts -> thresholds -> curated
    entries  ↗

`validate(table, SCHEMA, where)` accepts any table that holds the schema's columns with the right types; further
columns pass through untouched. A wrong column is reported by name, with what was found and what is allowed.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worldclip.errors import DataError

#: One concept string of one language. The position in the file is the entry's id. File metadata (ENTRIES_METADATA).
ENTRIES = pa.schema([("entry", pa.string()), ("source", pa.string()), ("score", pa.float64())])

#: Keys of the Parquet file metadata of an entries file.
ENTRIES_METADATA = ("worldclip.language", "worldclip.builder", "worldclip.hash")

TEXT = pa.struct([("kind", pa.string()), ("text", pa.string())])

#: One row an image; `texts` are its candidate alt-texts (Algorithm 1's input). `id` is stable and unique.
PAIRS = pa.schema([("id", pa.string()), ("texts", pa.list_(TEXT))])

MATCHED_TEXT = pa.struct(
    [("kind", pa.string()), ("text", pa.string()), ("lang", pa.string()), ("matches", pa.list_(pa.uint32()))]
)

#: Pairs after stage 1: the language of each text and the ids of all its concepts (sorted, unique).
MATCHES = pa.schema([("id", pa.string()), ("texts", pa.list_(MATCHED_TEXT))])

#: Matches of each entry that occurs, in one shard or in all; merging is adding.
COUNTS = pa.schema([("list", pa.string()), ("entry", pa.uint32()), ("count", pa.int64())])

#: Stage 2, one row a language; readable by a person.
THRESHOLDS = pa.schema(
    [
        ("lang", pa.string()),
        ("t", pa.int64()),
        ("p", pa.float64()),
        ("entries", pa.int64()),
        ("head", pa.int64()),
        ("tail", pa.int64()),
        ("matches", pa.int64()),
        ("pairs", pa.int64()),
        ("expected_kept", pa.float64()),
    ]
)

#: Stage 3, one row a candidate text with at least one match; `keep_probability` is 1 - prod(1 - p_entry).
CURATED = pa.schema(
    [
        ("id", pa.string()),
        ("kind", pa.string()),
        ("text", pa.string()),
        ("lang", pa.string()),
        ("keep_probability", pa.float64()),
    ]
)

#: Columns of tables in the wild (img2dataset, LAION, DataComp) that are read as one text, in order of preference.
PLAIN_TEXT_COLUMNS = ("text", "caption", "TEXT", "alt")


def validate(table: pa.Table, schema: pa.Schema, where: str) -> pa.Table:
    """Return `table` with `schema`'s columns cast to its exact types, other columns untouched.

    Raises:
        DataError: a column is missing or of a type that does not fit without loss; names `where`, the column, what
            was found and what is allowed.
    """
    columns = table.schema.names
    for field in schema:
        if columns.count(field.name) != 1:
            raise DataError(
                f"{where}: needs one column {field.name!r} of type {field.type}, found "
                f"{columns.count(field.name)} among {', '.join(columns) or 'no columns'}."
            )
        at = columns.index(field.name)
        if table.schema.field(at).type != field.type:
            if missing := _missing_fields(table.schema.field(at).type, field.type):
                raise DataError(
                    f"{where}: column {field.name!r} is {table.schema.field(at).type}, not {field.type} (it lacks "
                    f"{', '.join(missing)})."
                )
            try:
                column = table.column(at).cast(field.type)
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
                raise DataError(
                    f"{where}: column {field.name!r} is {table.schema.field(at).type}, not {field.type} ({error})."
                ) from None
            table = table.set_column(at, field, column)
    return table


def _missing_fields(found: pa.DataType, wanted: pa.DataType) -> list[str]:
    """Fields of a struct, or of a list's structs, that are not there: Arrow's cast would fill them with nulls."""
    while pa.types.is_list(wanted) and (pa.types.is_list(found) or pa.types.is_large_list(found)):
        found, wanted = found.value_type, wanted.value_type
    if not pa.types.is_struct(wanted) or not pa.types.is_struct(found):
        return []
    return [field.name for field in wanted if found.get_field_index(field.name) < 0]


def as_pairs(table: pa.Table, where: str) -> pa.Table:
    """Read any table of images with text as `PAIRS`.

    A table with `texts` is checked as it is; a plain text column (`PLAIN_TEXT_COLUMNS`, img2dataset's and LAION's
    layouts) becomes `texts`: one candidate text an image, its kind the column's name.

    Raises:
        DataError: no text column, or no `id`.
    """
    if "texts" not in table.schema.names:
        column = next((name for name in PLAIN_TEXT_COLUMNS if name in table.schema.names), None)
        if column is None:
            raise DataError(
                f"{where}: no text column; needs `texts` (list of kind and text) or one of "
                f"{', '.join(PLAIN_TEXT_COLUMNS)}; found {', '.join(table.schema.names) or 'no columns'}."
            )
        try:
            text = pc.cast(table.column(column).combine_chunks(), pa.string())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(f"{where}: column {column!r} does not hold text ({error}).") from None
        kind = pa.repeat(pa.scalar(column, pa.string()), len(text))
        structs = pa.StructArray.from_arrays([kind, text], fields=list(TEXT))
        present = pc.is_valid(text).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.concatenate([[0], present.cumsum()]).astype(np.int32))
        table = table.set_column(
            table.schema.get_field_index(column),
            "texts",
            pa.ListArray.from_arrays(offsets, structs.filter(pa.array(present)), type=PAIRS.field("texts").type),
        )
    return validate(table, PAIRS, where)


def check_ids(table: pa.Table, where: str) -> None:
    """Check that `id` names each row.

    Raises:
        DataError: ids are null, or not unique.
    """
    ids = table.column("id")
    if ids.null_count or pc.count_distinct(ids).as_py() != len(ids):
        raise DataError(
            f"{where}: column 'id' must name each image once; found {ids.null_count} nulls and "
            f"{len(ids) - pc.count_distinct(ids).as_py()} repeats among {len(ids)} rows."
        )


def only_utf8(strings: pa.Array) -> pa.Array:
    """The strings themselves where all are UTF-8, which no file promises; else with null for those that are not."""
    try:
        strings.validate(full=True)
    except pa.ArrowInvalid:
        data = strings.cast(pa.large_binary()).to_pylist()
        good = [each if each is None or _decodes(each) else None for each in data]
        return pa.array(good, pa.binary()).cast(strings.type)
    return strings


def _decodes(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
