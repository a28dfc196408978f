"""Curation of shards that stream, of sizes that are asked for, and of shards that cannot be read."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldclip import stages
from worldclip.config import CurationConfig
from worldclip.curate import curate
from worldclip.curation.sample import id_keys
from worldclip.curation.sha256 import first_64_bits
from worldclip.curation.size import ListSample, least, within
from worldclip.engines import LocalEngine
from worldclip.errors import ConfigError, ShardsFailed
from worldclip.metadata.entries import Metadata
from worldclip.storage import read_json, read_table

WORDS = ["dog", "cat", "house", "tree", "river", "garden", "window", "mountain", "street", "flower"]
GERMAN = ["Hund", "Katze", "Haus", "Baum", "Fluss", "Garten", "Fenster", "Berg", "Straße", "Blume"]
METADATA = Metadata(entries={"en": pa.chunked_array([WORDS]), "de": pa.chunked_array([GERMAN])}, hash="abc")
HERE = LocalEngine(workers=0, tries=1)


@given(st.lists(st.text(max_size=200), max_size=5))
def test_keys_are_of_sha256(ids: list[str]) -> None:
    expected = [int.from_bytes(hashlib.sha256(each.encode()).digest()[:8], "little") for each in ids]
    for given_as in (ids, pa.array(ids, pa.string()), pa.chunked_array([ids[:1], ids[1:]], pa.large_string())):
        assert id_keys(given_as).tolist() == expected


def test_keys_at_the_borders_of_blocks() -> None:
    texts = [b"x" * length for length in (0, 1, 54, 55, 56, 57, 63, 64, 65, 119, 120, 127, 128, 1000)]
    offsets = np.cumsum([0, *map(len, texts)])
    found = first_64_bits(np.frombuffer(b"".join(texts), np.uint8), offsets)
    assert found.tolist() == [int.from_bytes(hashlib.sha256(each).digest()[:8], "little") for each in texts]


def pairs_of(folder: Path, count: int, files: int = 1, seed: int = 3) -> list[Path]:
    """Plausible captions: a common word and a rare one, in English or German."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        one, other = (min(int(draw.expovariate(0.6)), 9) for _ in range(2))
        english = draw.random() < 0.6
        text = (
            f"a photograph of the {WORDS[one]} and the {WORDS[other]} in the morning"
            if english
            else f"ein Foto von {GERMAN[one]} und {GERMAN[other]} am frühen Morgen"
        )
        rows.append({"id": f"image-{number}", "texts": [{"kind": "alt", "text": text}]})
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"pairs-{number}.parquet" for number in range(files)]
    for number, path in enumerate(paths):
        pq.write_table(pa.Table.from_pylist(rows[number::files]), path, row_group_size=700)
    return paths


def kept_of(folder: Path) -> list[str]:
    tables = [read_table(path, ["id", "kept"]) for path in sorted(folder.glob("curated-*.parquet"))]
    table = pa.concat_tables(tables)
    return sorted(table.filter(table.column("kept")).column("id").to_pylist())


def test_a_shard_is_read_in_batches_and_that_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = pairs_of(tmp_path / "pairs", 3000)
    config = CurationConfig(t_en=100)
    one = curate(paths, METADATA, tmp_path / "one", config, seed=0, engine=HERE)
    monkeypatch.setattr(stages, "BATCH_ROWS", 111)
    two = curate(paths, METADATA, tmp_path / "two", config, seed=0, engine=HERE)
    assert one == two
    assert kept_of(tmp_path / "one") == kept_of(tmp_path / "two")
    (path,) = (tmp_path / "two").glob("curated-*.parquet")
    assert pq.ParquetFile(path).num_row_groups > 20
    assert read_table(path).equals(read_table(tmp_path / "one" / path.name))


def test_batches_are_smaller_where_rows_are_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "BATCH_BYTES", 2**20)
    texts = [f"{number} " + "x" * 20_000 for number in range(200)]
    pq.write_table(pa.table({"id": list(map(str, range(200))), "text": texts}), tmp_path / "pairs.parquet")
    with open(tmp_path / "pairs.parquet", "rb") as file:
        sizes = [table.nbytes for table in stages._batches(file, "pairs")]
    assert len(sizes) >= 4
    assert max(sizes) < 1.2 * 2**20


def odd_table(path: Path) -> None:
    """Rows as they should not be: no id, bytes that are not UTF-8 in text, kind and id, a text of 50 MB."""
    good, bad, huge = b"a photograph of the dog in the garden", b"a photo\xff of the dog", b"the dog " * 6_553_600
    ids = [b"1", None, b"3", b"4", b"\xfe5", b"6"]
    kinds, texts = [b"alt", b"alt", b"\xff", b"alt", b"alt", b"alt"], [good, good, good, bad, good, huge]
    structs = pa.StructArray.from_arrays(
        [pa.array(each, pa.binary()).view(pa.string()) for each in (kinds, texts)], names=["kind", "text"]
    )
    column = pa.ListArray.from_arrays(pa.array(range(7), pa.int32()), structs)
    pq.write_table(pa.table({"id": pa.array(ids, pa.binary()).view(pa.string()), "texts": column}), path)


def test_bad_rows_are_counted_and_the_rest_is_curated(tmp_path: Path) -> None:
    odd_table(tmp_path / "odd.parquet")
    summary = curate(
        [tmp_path / "odd.parquet"], METADATA, tmp_path / "out", CurationConfig(t_en=9), seed=0, engine=HERE
    )
    assert (summary["images"], summary["texts"], summary["matched_texts"]) == (4, 4, 2)
    assert summary["dropped"] == {
        "images without an id": 2,
        "texts that are null": 0,
        "texts that are not UTF-8": 1,
        "texts longer than 64 KiB": 1,
        "texts without a matched entry": 0,
        "images without such a text": 2,
    }
    assert kept_of(tmp_path / "out") == ["1", "3"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_quarantined_shard_and_its_return(tmp_path: Path, workers: int) -> None:
    paths = pairs_of(tmp_path / "pairs", 900, files=3)
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[: len(whole) // 2])
    config, out = CurationConfig(t_en=50), tmp_path / "out"
    engine = LocalEngine(workers=workers, tries=2)
    with pytest.raises(ShardsFailed, match=r"pairs-1\.parquet: cannot be read as Parquet"):
        curate(paths, METADATA, out, config, seed=0, engine=engine)
    summary = read_json(out / "summary.json")
    assert list(summary["quarantined"]) == [str(paths[1])]
    assert summary["images"] == 600
    curate([paths[0], paths[2]], METADATA, tmp_path / "two", config, seed=0, engine=HERE)
    assert kept_of(out) == kept_of(tmp_path / "two")
    # Mended, the same command gives what it would have given at first: counts grew, so all draws are new.
    paths[1].write_bytes(whole)
    assert curate(paths, METADATA, out, config, seed=0, engine=engine)["quarantined"] == {}
    curate(paths, METADATA, tmp_path / "three", config, seed=0, engine=HERE)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == {
        path.name: path.read_bytes() for path in (tmp_path / "three").iterdir() if path.is_file()
    }


def test_nothing_but_bad_shards(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"no table")
    with pytest.raises(ShardsFailed, match="cannot be read as Parquet"):
        curate([tmp_path / "bad.parquet"], METADATA, tmp_path / "out", CurationConfig(), seed=0, engine=HERE)
    assert not (tmp_path / "out" / "summary.json").exists()


# Sizes that are asked for.


@given(st.integers(0, 50), st.integers(0, 60))
def test_least(high: int, border: int) -> None:
    assert least(lambda each: each >= border, high) == min(border, high)


@pytest.mark.parametrize("target", [300, 1000, 1700])
def test_about_so_many_pairs_are_kept(tmp_path: Path, target: int) -> None:
    paths = pairs_of(tmp_path / "pairs", 2000, files=2)
    summary = curate(paths, METADATA, tmp_path / "out", CurationConfig(target_pairs=target), seed=0, engine=HERE)
    # One step of t_en changes a few pairs in a hundred here; draws vary around what is expected.
    assert summary["expected_images"] == pytest.approx(target, rel=0.05)
    assert summary["kept"] == pytest.approx(target, abs=4 * target**0.5 + 0.05 * target)
    other = curate(paths[::-1], METADATA, tmp_path / "other", CurationConfig(target_pairs=target), seed=0, engine=HERE)
    assert other == summary


def test_more_pairs_than_there_are_keeps_all(tmp_path: Path) -> None:
    paths = pairs_of(tmp_path / "pairs", 500)
    summary = curate(paths, METADATA, tmp_path / "out", CurationConfig(target_pairs=10**6), seed=0, engine=HERE)
    assert summary["kept"] == summary["matched_texts"]


def test_floor_and_cap_of_each_language(tmp_path: Path) -> None:
    paths = pairs_of(tmp_path / "pairs", 2000)
    plain = curate(paths, METADATA, tmp_path / "plain", CurationConfig(t_en=60), seed=0, engine=HERE)
    config = CurationConfig(t_en=60, language_floor=300, language_cap=310)
    bound = curate(paths, METADATA, tmp_path / "bound", config, seed=0, engine=HERE)
    before, after = ({row["lang"]: row["expected_kept"] for row in each["languages"]} for each in (plain, bound))
    assert before["de"] < 300 or before["en"] > 310  # or this would show nothing
    assert all(290 < after[lang] <= 310 for lang in ("de", "en"))


def test_a_floor_above_all_there_is_keeps_all() -> None:
    sample = ListSample(matches=pa.array([[0], [0], [1]], pa.list_(pa.uint32())), turns=np.ones(3), share=1.0)
    counts = np.array([2, 1])
    assert sample.expected(within(1, sample, counts, 100, None), counts) == 3
    assert sample.expected(within(2, sample, counts, None, 2), counts) <= 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"target_pairs": 0}, "needs 1 or more"),
        ({"t_en": -1}, "needs 0 or more"),
        ({"tail_share": 2.0}, "needs 0 to 1"),
        ({"t_en": 5, "target_pairs": 5}, "only one of them"),
        ({"language_floor": 9, "language_cap": 8}, "above language_cap"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, int], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        CurationConfig(**settings)
