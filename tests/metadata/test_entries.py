"""Entry lists: order, credit, caps, what is set aside, hashes, and files that are not what they say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldclip.errors import DataError, MissingData
from worldclip.metadata import Caps, entry_list, metadata_info, read_entries, read_metadata
from worldclip.metadata.entries import NUMBERS, entries_hash, write_entries, write_manifest
from worldclip.schema import ENTRIES
from worldclip.storage import write_table

SOURCES = [
    ("t", [("Mona_Lisa", 9.0), ("Talk:Dog", 8.0), ("dog", 99.0), ("cat", 1.0)]),
    ("u", [("the", 50.0), ("dog", 20.0), ("!?", 40.0), ("42", 30.0)]),
    ("b", [("hot dog", 12.0), ("hot  dog", 13.0)]),
    (
        "w",
        [("hot_dog", 1.0), ("a+b", 2.0), ("dog", 7.0), ("Zürich", 1.0), ("", 3.0), ("x" * 257, 1.0), ("x" * 256, 1.0)],
    ),
]

scored = st.lists(
    st.tuples(st.text(alphabet="ab _+:.!¿é犬9 \n", max_size=4), st.integers(-3, 3).map(float)), max_size=12
)
source_lists = st.lists(st.tuples(st.sampled_from("wubt"), scored), max_size=6)
small_caps = st.builds(Caps, unigrams=st.integers(0, 6), bigrams=st.integers(0, 6), titles=st.integers(0, 6))


def test_order_credit_and_reasons() -> None:
    set_aside: Counter[str] = Counter()
    table = entry_list(SOURCES, Caps(), set_aside)
    assert table.schema == ENTRIES
    rows = [tuple(row.values()) for row in table.to_pylist()]
    assert rows[:100] == [(str(number), "n", 0.0) for number in range(100)]
    assert rows[100:] == [
        ("dog", "w", 7.0), ("ab", "w", 2.0), ("Zürich", "w", 1.0), ("hot dog", "w", 1.0), ("x" * 256, "w", 1.0),
        ("the", "u", 50.0), ("Mona Lisa", "t", 9.0), ("cat", "t", 1.0),
    ]  # fmt: skip
    assert {reason: count for reason, count in set_aside.items() if count} == {
        "w: empty": 1, "w: longer than 256 characters": 1, "u: punctuation only": 1, "u: in an earlier source": 2,
        "b: repeated": 1, "b: in an earlier source": 1, "t: title with a colon": 1, "t: in an earlier source": 1,
    }  # fmt: skip


@given(source_lists, small_caps)
def test_everything_is_listed_or_counted(sources: list[tuple[str, list[tuple[str, float]]]], caps: Caps) -> None:
    set_aside: Counter[str] = Counter()
    table = entry_list(sources, caps, set_aside)
    entries = table.column("entry").to_pylist()
    assert sum(len(scored) for _, scored in sources) == len(entries) - len(NUMBERS) + sum(set_aside.values())
    assert len(set(entries)) == len(entries)
    rows = table.to_pylist()[100:]
    assert rows == sorted(rows, key=lambda row: ("wubt".index(row["source"]), -row["score"], row["entry"]))
    credited = Counter(row["source"] for row in rows)
    assert credited["u"] <= caps.unigrams
    assert credited["b"] <= caps.bigrams
    assert credited["t"] <= caps.titles


@given(source_lists, small_caps, st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(sources, caps, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = [(letter, random.sample(scored, len(scored))) for letter, scored in random.sample(sources, len(sources))]
    assert entry_list(sources, caps).equals(entry_list(shuffled, caps))


def test_a_cap_counts_what_an_earlier_source_already_had() -> None:
    sources = [("w", [("dog", 1.0)]), ("u", [("dog", 9.0), ("cat", 8.0), ("emu", 7.0)])]
    assert entry_list(sources, Caps(unigrams=2)).column("entry").to_pylist()[100:] == ["dog", "cat"]


def test_unknown_source() -> None:
    with pytest.raises(DataError, match="'x' is not known; allowed: w, u, b, t, c"):
        entry_list([("x", [])], Caps())


def test_hash_is_of_language_entries_and_order() -> None:
    table = entry_list(SOURCES, Caps())
    assert entries_hash(table, "en") == entries_hash(pa.concat_tables([table[:3], table[3:]]), "en")
    others = [entries_hash(table, "de"), entries_hash(table.take([1, 0]), "en")]
    split = [pa.table({"entry": pair}) for pair in (["ab", "c"], ["a", "bc"], ["", "abc"], [])]
    assert len({entries_hash(table, "en"), *others, *(entries_hash(each, "en") for each in split)}) == 7


def test_files_keep_entries_and_facts(tmp_path: Path) -> None:
    table = entry_list(SOURCES, Caps())
    hashed = write_entries(tmp_path / "en.parquet", table, "en")
    read = read_entries(tmp_path / "en.parquet")
    assert read.equals(table)
    assert read.schema.metadata[b"worldclip.hash"].decode() == hashed == entries_hash(table, "en")
    assert read.schema.metadata[b"worldclip.language"] == b"en"
    first = (tmp_path / "en.parquet").read_bytes()
    write_entries(tmp_path / "en.parquet", pa.concat_tables([table[:7], table[7:]]), "en")
    assert (tmp_path / "en.parquet").read_bytes() == first


def test_entries_under_another_hash_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "en.parquet"
    write_entries(path, entry_list(SOURCES, Caps()), "en")
    table = read_entries(path)
    write_table(path, table.take([1, 0, *range(2, len(table))]).replace_schema_metadata(table.schema.metadata))
    with pytest.raises(DataError, match="ids would mean other concepts"):
        read_entries(path)
    write_table(path, table.replace_schema_metadata(None))
    with pytest.raises(DataError, match="no hash"):
        read_entries(path)
    with pytest.raises(DataError, match="1 nulls"):
        write_entries(path, pa.table([["a", None], ["w", "w"], [1.0, 1.0]], schema=ENTRIES), "en")


def _folder(folder: Path, **lists: list[str]) -> str:
    hashes = {}
    for language, entries in lists.items():
        table = entry_list([("w", [(entry, 1.0) for entry in entries])], Caps())
        hashes[language] = write_entries(folder / f"{language}.parquet", table, language)
    return write_manifest(folder, hashes, {"made_by": "test"})


def test_a_folder_of_lists(tmp_path: Path) -> None:
    whole = _folder(tmp_path, sw=["mbwa"], en=["dog", "cat"], other=["inja"])
    metadata = read_metadata(tmp_path)
    assert list(metadata.entries) == ["en", "other", "sw"]
    assert metadata.entries["en"].to_pylist()[100:] == ["cat", "dog"]
    assert metadata.hash == whole
    columns = ["lang", "name", "script", "entries", "wordnet", "titles"]
    assert metadata_info(tmp_path).select(columns).to_pylist()[0] == {
        "lang": "en", "name": "English", "script": "Latn", "entries": 102, "wordnet": 2, "titles": 0,
    }  # fmt: skip
    assert _folder(tmp_path, en=["dog", "cat"]) != whole
    assert {path.name for path in tmp_path.iterdir()} == {"en.parquet", "manifest.json"}


def test_unfinished_or_mixed_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="no finished metadata"):
        read_metadata(tmp_path)
    _folder(tmp_path, en=["dog"], sw=["mbwa"])
    write_entries(tmp_path / "en.parquet", entry_list([("w", [("wolf", 1.0)])], Caps()), "en")
    with pytest.raises(DataError, match=r"not the list that .* names"):
        read_metadata(tmp_path)
    (tmp_path / "en.parquet").unlink()
    with pytest.raises(MissingData, match=r"en\.parquet"):
        metadata_info(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(DataError, match="needs 'lists'"):
        read_metadata(tmp_path)
