"""The border check: what fits passes untouched, what does not is named."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from worldclip.errors import DataError
from worldclip.schema import (
    CURATED,
    ENTRIES,
    MATCHES,
    PAIRS,
    PLAIN_TEXT_COLUMNS,
    THRESHOLDS,
    as_pairs,
    check_ids,
    validate,
)

SCHEMAS = {"entries": ENTRIES, "pairs": PAIRS, "matches": MATCHES, "thresholds": THRESHOLDS, "curated": CURATED}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_table_that_fits_is_returned_as_it_is(name: str) -> None:
    table = SCHEMAS[name].empty_table().append_column("further", pa.array([], pa.int8()))
    assert validate(table, SCHEMAS[name], "here").equals(table)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_missing_column_is_named(name: str) -> None:
    for field in SCHEMAS[name]:
        table = SCHEMAS[name].empty_table().drop([field.name])
        with pytest.raises(DataError, match=rf"shard-7: needs one column '{field.name}' of type .*, found 0 among"):
            validate(table, SCHEMAS[name], "shard-7")


def test_types_that_fit_without_loss_are_cast() -> None:
    table = pa.table(
        {
            "score": pa.array([1, 2], pa.int32()),
            "entry": pa.array(["a", "b"]).dictionary_encode(),
            "source": pa.array(["w", "u"], pa.large_string()),
            "more": [b"x", None],
        }
    )
    fitted = validate(table, ENTRIES, "here")
    assert fitted.schema.names == table.schema.names
    assert [fitted.schema.field(field.name).type for field in ENTRIES] == ENTRIES.types
    assert fitted.to_pylist() == [
        {"score": 1.0, "entry": "a", "source": "w", "more": b"x"},
        {"score": 2.0, "entry": "b", "source": "u", "more": None},
    ]


@pytest.mark.parametrize(
    "score",
    [pa.array(["much"]), pa.array([[1.0]]), pa.array([2**63 - 1], pa.int64())],
    ids=["text", "list", "too exact"],
)
def test_types_that_do_not_fit_are_named(score: pa.Array) -> None:
    table = pa.table({"entry": ["a"], "source": ["w"], "score": score})
    with pytest.raises(DataError, match=r"here: column 'score' is .*, not double"):
        validate(table, ENTRIES, "here")


def test_a_column_that_stands_there_twice_is_refused() -> None:
    table = pa.table([["a"], ["b"], ["w"], [1.0]], names=["entry", "entry", "source", "score"])
    with pytest.raises(DataError, match="needs one column 'entry' of type string, found 2"):
        validate(table, ENTRIES, "here")


def test_no_columns_at_all() -> None:
    with pytest.raises(DataError, match="among no columns"):
        validate(pa.table({}), ENTRIES, "here")
    with pytest.raises(DataError, match=r"no text column; .* found no columns"):
        as_pairs(pa.table({}), "here")


TEXTS = [[{"kind": "alt", "text": "a dog"}, {"kind": "title", "text": None}], [], None]


def test_pairs_pass_with_all_their_columns() -> None:
    table = pa.table({"url": [1, 2, 3], "id": ["a", "b", "c"], "texts": pa.array(TEXTS, PAIRS.field("texts").type)})
    assert as_pairs(table, "here").equals(table)


@pytest.mark.parametrize(
    "kind",
    [
        pa.large_list(pa.struct([("kind", pa.large_string()), ("text", pa.large_string())])),
        pa.list_(pa.field("element", pa.struct([("kind", pa.string()), ("text", pa.string())]))),
        pa.list_(pa.struct([("text", pa.string()), ("kind", pa.string())])),
    ],
    ids=["large", "Parquet's name of items", "fields in another order"],
)
def test_texts_as_others_write_them(kind: pa.DataType) -> None:
    table = as_pairs(pa.table({"id": ["a", "b", "c"], "texts": pa.array(TEXTS, kind)}), "here")
    assert table.schema.field("texts").type == PAIRS.field("texts").type
    assert table.column("texts").to_pylist() == TEXTS


def test_texts_that_are_all_empty() -> None:
    for texts in (pa.array([[], None]), pa.nulls(2)):
        table = as_pairs(pa.table({"id": ["a", "b"], "texts": texts}), "here")
        assert table.column("texts").to_pylist() == texts.to_pylist()


@pytest.mark.parametrize(
    "texts", [["a dog"], [["a dog"]], [[{"kind": "alt"}]], [7]], ids=["text", "texts", "no text", "number"]
)
def test_texts_of_another_shape_are_refused(texts: list[Any]) -> None:
    with pytest.raises(DataError, match=r"here: column 'texts' is .*, not list<"):
        as_pairs(pa.table({"id": ["a"], "texts": texts}), "here")


@pytest.mark.parametrize("name", PLAIN_TEXT_COLUMNS)
@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_a_plain_column_is_one_text(name: str, kind: pa.DataType) -> None:
    column = (
        pa.array(["a dog", None, ""]).cast(kind) if kind != pa.string_view() else pa.array(["a dog", None, ""], kind)
    )
    table = as_pairs(pa.table({"id": ["a", "b", "c"], name: column}), "here")
    assert table.column("texts").to_pylist() == [[{"kind": name, "text": "a dog"}], [], [{"kind": name, "text": ""}]]
    assert table.schema.names == ["id", "texts"]


def test_plain_columns_in_chunks_none_and_only_nulls() -> None:
    chunks = pa.chunked_array([["a", None], [], ["b"]], pa.string())
    table = as_pairs(pa.table({"id": ["1", "2", "3"], "text": chunks}), "here")
    assert [[each["text"] for each in row] for row in table.column("texts").to_pylist()] == [["a"], [], ["b"]]
    none = as_pairs(pa.table({"id": pa.array([], pa.string()), "text": pa.chunked_array([], pa.string())}), "here")
    assert (len(none), none.schema.field("texts").type) == (0, PAIRS.field("texts").type)
    assert as_pairs(pa.table({"id": ["1"], "text": pa.nulls(1)}), "here").column("texts").to_pylist() == [[]]


def test_the_first_plain_column_is_taken() -> None:
    table = as_pairs(pa.table({"id": ["1"], "alt": ["no"], "caption": ["yes"]}), "here")
    assert table.column("texts").to_pylist() == [[{"kind": "caption", "text": "yes"}]]


@pytest.mark.parametrize("column", [[["a"]], [{"a": 1}], [b"\xff"]], ids=["list", "struct", "bytes"])
def test_a_plain_column_that_is_not_text_is_refused(column: list[Any]) -> None:
    with pytest.raises(DataError, match="here: column 'caption' does not hold text"):
        as_pairs(pa.table({"id": ["1"], "caption": column}), "here")


@pytest.mark.parametrize(
    ("ids", "says"), [(["a", None], "1 nulls"), (["a", "a"], "1 repeats among 2 rows"), ([None, None], "2 nulls")]
)
def test_ids_name_each_image_once(ids: list[str | None], says: str) -> None:
    with pytest.raises(DataError, match=f"here: column 'id' must name each image once; found .*{says}"):
        check_ids(pa.table({"id": pa.array(ids, pa.string()), "text": ["x", "y"]}), "here")


def test_a_table_without_ids_is_refused() -> None:
    with pytest.raises(DataError, match="needs one column 'id'"):
        as_pairs(pa.table({"text": ["x"]}), "here")
