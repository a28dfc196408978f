"""Pairs from sources of every kind together: the same bytes in any order, resumed, handed to img2dataset and back."""

from __future__ import annotations

import gzip
import io
import json
import random
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worldclip.engines import LocalEngine
from worldclip.errors import ConfigError, DataError, InputError, MissingData, ShardsFailed
from worldclip.extract import check, extract
from worldclip.pairs.downloads import DOWNLOAD_LIST, image_files, read_images, write_list
from worldclip.pairs.rows import url_id
from worldclip.pairs.sources import find_sources
from worldclip.storage import read_json, read_table

HERE = LocalEngine(workers=0, tries=1)


def url(number: int) -> str:
    return f"https://example.org/{number}.jpg"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A folder with a table, JSON lines, a tar and a page, whose images overlap, and a file of no kind known."""
    folder = tmp_path / "sources"
    folder.mkdir()
    columns = {"url": [url(n) for n in range(30)], "caption": [f"caption {n % 7}" for n in range(30)]}
    pq.write_table(pa.table(columns), folder / "a.parquet")
    lines = [json.dumps({"url": url(n), "alt": f"caption {n % 7}", "similarity": n / 100}) for n in range(20, 50)]
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("\n".join([*lines, "broken"]).encode(), mtime=0))
    with tarfile.open(folder / "c.tar", "w") as tar:
        for n in range(45, 60):
            for suffix, data in (("txt", f"text {n}".encode()), ("json", json.dumps({"url": url(n)}).encode())):
                info = tarfile.TarInfo(f"{n:03d}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    page = "".join(f'<img src="/{n}.jpg" alt="caption {n % 7}">' for n in range(10, 70)).encode()
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + page
    head = "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://example.org/\r\nContent-Type: application/http"
    head += f"\r\nWARC-Record-ID: <urn:uuid:1>\r\nContent-Length: {len(http)}\r\n\r\n"
    archive = head.encode() + http + b"\r\n\r\n"
    (folder / "d.warc.gz").write_bytes(gzip.compress(archive, mtime=0))
    (folder / "notes.txt").write_text("nothing to read")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def test_sources_of_every_kind_become_one_row_an_image(sources: Path, tmp_path: Path) -> None:
    summary = extract([str(sources)], tmp_path / "out", engine=HERE, shards=3)
    rows = [row for path in sorted((tmp_path / "out").glob("*.parquet")) for row in read_table(path).to_pylist()]
    found = {row["id"]: [each["text"] for each in row["texts"]] for row in rows}
    assert len(rows) == len(found) == summary["images"] == 70
    expected = {url_id(url(n)): [f"caption {n % 7}"] for n in range(70)}
    for n in range(45, 60):
        expected[url_id(url(n))].append(f"text {n}")
    assert {name: sorted(texts) for name, texts in found.items()} == expected
    assert all(row["id"] == url_id(row["url"]) for row in rows)
    assert Counter(row["page"] for row in rows) == {"https://example.org/": 60, None: 10}
    # Nothing vanishes: texts that were read are there, or were there already.
    assert summary["records"] == 30 + 31 + 15 + 60
    assert summary["set_aside"]["record: not JSON"] == 1
    assert summary["texts_read"] == summary["texts"] + summary["set_aside"]["text: the image has it already"]
    assert not (tmp_path / "out" / "rows").exists()
    assert [row["problem"] for row in check(tmp_path / "out")] == ["", "", ""]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_same_bytes_in_any_order(sources: Path, tmp_path: Path, workers: int) -> None:
    extract([str(sources)], tmp_path / "one", engine=HERE, shards=2)
    paths = [str(path) for path in sources.iterdir() if path.suffix != ".txt"]
    random.Random(4).shuffle(paths)
    extract(paths, tmp_path / "two", engine=LocalEngine(workers=workers), shards=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_what_was_read_is_not_read_again(sources: Path, tmp_path: Path) -> None:
    extract([str(sources)], tmp_path / "whole", engine=HERE, shards=2)

    def interrupt(what: str, done: int, total: int) -> None:
        if (what, done) == ("read", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract([str(sources)], tmp_path / "out", engine=HERE, shards=2, report=interrupt)
    first = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "rows").iterdir()}
    assert len(first) == 2
    told: list[tuple[str, int, int]] = []
    extract([str(sources)], tmp_path / "out", engine=HERE, shards=2, report=lambda *each: told.append(each))
    assert told[0] == ("read", 2, 4)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    pq.write_table(pa.table({"url": [url(1)], "caption": ["another"]}), sources / "a.parquet")
    with pytest.raises(InputError, match="holds the pairs of other sources"):
        extract([str(sources)], tmp_path / "out", engine=HERE, shards=2)


def test_a_source_that_cannot_be_read_is_named(sources: Path, tmp_path: Path) -> None:
    broken = (sources / "a.parquet").read_bytes()
    (sources / "a.parquet").write_bytes(broken[:300] + bytes(100) + broken[400:])
    with pytest.raises((ShardsFailed, DataError), match=r"a\.parquet"):
        extract([str(sources)], tmp_path / "out", engine=HERE)


def test_any_store_that_fsspec_knows(sources: Path, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    store.put(str(sources) + "/", "memory://crawl/", recursive=True)
    try:
        assert [each.kind for each in find_sources(["memory://crawl"])] == ["parquet", "jsonl", "tar", "crawl"]
        inputs = ["memory://crawl/*.parquet", "memory://crawl/*.gz", "memory://crawl/c.tar"]
        extract(inputs, tmp_path / "a", engine=HERE, shards=2)
    finally:
        store.rm("memory://crawl", recursive=True)
    extract([str(sources)], tmp_path / "b", engine=HERE, shards=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_places_where_nothing_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(MissingData, match="nothing to read there"):
        find_sources([str(tmp_path)])
    with pytest.raises(ConfigError, match="its name must end in one of"):
        find_sources([str(tmp_path / "notes.txt")])
    with pytest.raises(MissingData):
        find_sources([str(tmp_path / "missing.parquet")])
    with pytest.raises(ConfigError, match="its store cannot be reached"):
        find_sources(["nostore://bucket/a.parquet"])


def test_a_tar_beside_its_table_is_passed_over(tmp_path: Path) -> None:
    for name in ("00000.tar", "00000.parquet", "00001.tar"):
        (tmp_path / name).write_bytes(b"x")
    assert [Path(each.path).name for each in find_sources([str(tmp_path)])] == ["00000.parquet", "00001.tar"]


def test_files_of_pairs_that_are_not_as_they_should_be(tmp_path: Path) -> None:
    texts = [[{"kind": "alt", "text": "a"}]]
    pq.write_table(pa.table({"id": ["1"], "texts": texts}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": ["1"], "texts": texts}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"id": ["2", "2"], "texts": texts * 2}), tmp_path / "c.parquet")
    (tmp_path / "d.parquet").write_bytes(b"no table")
    problems = [row["problem"] for row in check(tmp_path)]
    assert problems[0] == ""
    assert "stand in an earlier file too" in problems[1]
    assert "1 repeats among 2 rows" in problems[2]
    assert "cannot be read as Parquet" in problems[3]


# The hand-over to img2dataset.


def test_the_list_to_download_holds_each_image_once(sources: Path, tmp_path: Path) -> None:
    extract([str(sources)], tmp_path / "pairs", engine=HERE, shards=2)
    files = sorted((tmp_path / "pairs").glob("*.parquet"))
    assert write_list(files, tmp_path / "list.parquet") == 70
    table = pq.read_table(tmp_path / "list.parquet")
    assert table.schema == DOWNLOAD_LIST
    assert sorted(table.column("url").to_pylist()) == sorted(map(url, range(70)))
    curated = {"id": ["a", "a", "b", "c"], "text": ["1", "2", "3", "4"], "url": ["u", "u", "v", None],
               "kept": [False, True, True, False]}  # fmt: skip
    pq.write_table(pa.table(curated), tmp_path / "curated.parquet")
    assert write_list([tmp_path / "curated.parquet"], tmp_path / "kept.parquet") == 2
    rows = pq.read_table(tmp_path / "kept.parquet").to_pylist()
    assert rows == [{"url": "u", "caption": "2", "id": "a"}, {"url": "v", "caption": "3", "id": "b"}]
    with pytest.raises(DataError, match="needs `id`, `url`"):
        write_list([sources / "a.parquet"], tmp_path / "no.parquet")


@pytest.mark.parametrize("form", ["webdataset", "files"])
def test_images_that_were_downloaded_find_their_pairs(tmp_path: Path, form: str) -> None:
    members = {
        "000000000.jpg": b"one", "000000000.json": json.dumps({"id": "own", "url": url(1)}).encode(),
        "000000001.jpg": b"two", "000000001.json": json.dumps({"url": url(2)}).encode(),
        "000000002.webp": b"three", "000000003.json": b'{"status": "failed"}', "000000004.jpg": b"five",
        "000000004.json": b"broken",
    }  # fmt: skip
    place = tmp_path / "images"
    place.mkdir()
    if form == "files":
        (place / "00000").mkdir()
        for name, data in members.items():
            (place / "00000" / name).write_bytes(data)
    else:
        with tarfile.open(place / "00000.tar", "w") as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    (found,) = image_files(place)
    reasons: Counter[str] = Counter()
    assert [(each.id, each.data) for each in read_images(found, reasons)] == [
        ("own", b"one"), (url_id(url(2)), b"two"), ("000000002", b"three"), ("000000004", b"five"),
    ]  # fmt: skip
    assert dict(reasons) == {"JSON beside an image that is none; its key is its id": 1}


@pytest.mark.packages
def test_the_real_crawl_whole(optional_package: Callable[[str], Path], tmp_path: Path) -> None:
    archive = optional_package("crawl-sample") / "sample_archive/warcs/iana.warc.gz"
    summary = extract([str(archive)], tmp_path / "out", engine=HERE)
    assert (summary["records"], summary["texts"], summary["files_cut_short"]) == (32, 3, [])
    assert read_json(tmp_path / "out" / "summary.json") == summary
    assert summary["texts_read"] == summary["texts"] + summary["set_aside"]["text: the image has it already"]
