"""Tables, JSON lines and tars of the layouts that there are, whole and broken."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worldclip.errors import DataError
from worldclip.pairs.rows import Tally, url_id
from worldclip.pairs.tables import layout_of, read_json_lines, read_parquet, read_tar

Read = Callable[[IO[bytes], str, Tally], Iterator[pa.Table]]


def read(reader: Read, data: bytes, where: str) -> tuple[list[dict[str, Any]], Tally]:
    tally = Tally()
    rows = pa.concat_tables(reader(io.BytesIO(data), where, tally)).to_pylist()
    return [{name: value for name, value in row.items() if value is not None} for row in rows], tally


def parquet(columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


URL = "https://example.org/a.jpg"


def test_img2datasets_table() -> None:
    columns = {
        "caption": ["a cat", "a dog", None],
        "url": ["HTTPS://example.org/a.jpg#x", "https://example.org/b.jpg", "https://example.org/c.jpg"],
        "key": ["000000000", "000000001", "000000002"],
        "status": ["success", "failed_to_download", "success"],
        "error_message": [None, "<urlopen error [Errno 111]: refused>", None],
        "width": [3, None, 4],
        "sha256": ["00", None, "01"],
    }
    rows, tally = read(read_parquet, parquet(columns), "folder/00012.parquet")
    assert rows == [
        {"id": url_id(URL), "kind": "caption", "text": "a cat", "url": URL, "key": "000000000", "width": 3,
         "sha256": "00", "shard": "00012"}
    ]  # fmt: skip
    assert tally.as_dict() == {
        "records": 3,
        "texts": 1,
        "set_aside": {
            "record: image without text": 1,
            "record: not downloaded (failed_to_download, urlopen error [Errno N])": 1,
        },
    }


def test_laions_and_datacomps_tables() -> None:
    laion = {"SAMPLE_ID": [7], "URL": [URL], "TEXT": ["a cat"], "WIDTH": [9], "similarity": [0.3], "NSFW": ["UNLIKELY"]}
    rows, _ = read(read_parquet, parquet(laion), "part.parquet")
    assert rows == [{"id": url_id(URL), "kind": "TEXT", "text": "a cat", "url": URL, "SAMPLE_ID": 7, "WIDTH": 9,
                     "similarity": 0.3, "NSFW": "UNLIKELY"}]  # fmt: skip
    datacomp = {"uid": ["u1"], "url": [None], "text": ["a cat"], "sha256": ["00"], "clip_b32_similarity_score": [0.25]}
    rows, _ = read(read_parquet, parquet(datacomp), "part.parquet")
    assert rows == [{"id": "u1", "kind": "text", "text": "a cat", "uid": "u1", "sha256": "00",
                     "clip_b32_similarity_score": 0.25}]  # fmt: skip


def test_our_own_pairs_and_a_number_that_is_no_id() -> None:
    texts = [[{"kind": "alt", "text": "a"}, {"kind": "title", "text": " "}, {"kind": None, "text": "b"}], []]
    kind = pa.list_(pa.struct([("kind", pa.string()), ("text", pa.string())]))
    rows, tally = read(read_parquet, parquet({"id": ["1", "2"], "texts": pa.array(texts, kind)}), "p.parquet")
    assert [(row["id"], row["kind"], row["text"]) for row in rows] == [("1", "alt", "a"), ("1", "text", "b")]
    assert dict(tally.set_aside) == {"record: image without text": 1}
    rows, _ = read(read_parquet, parquet({"id": [5], "url": [URL], "text": ["a"]}), "p.parquet")
    assert (rows[0]["id"], rows[0]["source_id"]) == (url_id(URL), 5)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"url": [URL]}, "no text column"),
        ({"text": ["a"]}, "nothing names an image"),
        ({"id": [1], "text": ["a"]}, "nothing names an image"),
        ({"id": ["1"], "text": [7]}, "column 'text' is int64, not string"),
        ({"id": ["1"], "texts": [["a"]]}, "column 'texts' is list"),
    ],
)
def test_tables_that_cannot_be_used(columns: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=f"here: {says}"):
        layout_of(pa.table(columns).schema, "here")


def test_a_table_that_is_cut_short() -> None:
    data = parquet({"id": ["1"], "text": ["a"]})
    with pytest.raises(DataError, match=r"p\.parquet: cannot be read as Parquet"):
        read(read_parquet, data[:-9], "p.parquet")


def test_values_that_are_not_utf8() -> None:
    def broken(values: list[bytes]) -> pa.Array:
        return pa.array(values, pa.binary()).view(pa.string())

    columns = {
        "url": [URL, "https://example.org/b.jpg"],
        "text": broken([b"good", b"\xff"]),
        "page": broken([b"\xfe", b"p"]),
    }
    rows, tally = read(read_parquet, parquet(columns), "p.parquet")
    assert [(row["text"], row.get("page")) for row in rows] == [("good", None)]
    assert tally.as_dict()["set_aside"] == {
        "record: image without text": 1,
        "text: not UTF-8": 1,
        "value: column 'page' is not UTF-8": 1,
    }


LINES = [
    b'{"url": "https://example.org/a.jpg", "caption": "a", "width": 5, "similarity": "no number"}',
    b'{"id": "own", "texts": [{"kind": "alt", "text": "b"}, {"text": "c"}, 7]}',
    b"", b"not JSON", b"[1]", b'{"caption": "\xff"}', b'{"caption": "no name"}', b'{"id": "x", "caption": " "}',
    b'{"id": "\\ud800", "text": "half"}', b'{"id": "y", "text": "\\ud800"}',
    b'{"id": "z", "text": "a", "status": "failed_to_resize", "error_message": "image 7 is too small"}',
]  # fmt: skip


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines(name: str) -> None:
    data = b"\n".join(LINES)
    rows, tally = read(read_json_lines, gzip.compress(data) if name.endswith("gz") else data, name)
    assert rows == [
        {"id": url_id(URL), "kind": "caption", "text": "a", "url": URL, "width": 5},
        {"id": "own", "kind": "alt", "text": "b"},
        {"id": "own", "kind": "text", "text": "c"},
    ]
    assert tally.records == 10
    assert tally.as_dict()["set_aside"] == {
        "record: JSON, but no object": 1,
        "record: image without text": 1,
        "record: not JSON": 1,
        "record: not UTF-8": 1,
        "record: not downloaded (failed_to_resize, image N is too small)": 1,
        "record: nothing names its image (no id, no URL of http or https)": 2,
        "text: not Unicode (half a surrogate pair)": 1,
    }


def test_a_line_of_fifty_megabytes() -> None:
    data = b'{"id": "a", "text": "' + b"x" * 50_000_000 + b'"}\n' + LINES[0] + b"\n"
    data += b'{"id": "b", "text": "' + b"x" * 70_000 + b'"}\n'
    rows, tally = read(read_json_lines, data, "a.jsonl")
    assert [row["text"] for row in rows] == ["a"]
    assert dict(tally.set_aside) == {"record: longer than 16 MiB": 1, "text: longer than 64 KiB": 1}


def test_gzip_that_is_cut_short() -> None:
    lines = b"".join(b'{"id": "%d", "text": "number %d"}\n' % (each, each * 7919 % 10007) for each in range(20_000))
    data = gzip.compress(lines)
    rows, tally = read(read_json_lines, data[: len(data) // 2], "a.jsonl.gz")
    assert 5_000 < len(rows) < 15_000
    assert [row["id"] for row in rows] == [str(each) for each in range(len(rows))]
    assert any(reason.startswith("file: damaged or cut short") for reason in tally.set_aside)


def tar(members: list[tuple[str, bytes]]) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return sink.getvalue()


MEMBERS = [
    ("000.jpg", b"image bytes"), ("000.txt", b"a cat"), ("000.json", json.dumps({"url": URL, "width": 3}).encode()),
    ("001.jpg", b"other bytes"), ("001.txt", b"a dog"),
    ("002.json", b'{"id": "named", "caption": "no image here"}'),
    ("003.txt", b"\xff"), ("003.json", b'{"id": "u"}'),
]  # fmt: skip


def test_webdataset_tars() -> None:
    rows, tally = read(read_tar, tar(MEMBERS), "folder/00007.tar")
    sha = {data: hashlib.sha256(data).hexdigest() for _, data in MEMBERS}
    assert rows == [
        {"id": url_id(URL), "kind": "text", "text": "a cat", "url": URL, "width": 3, "key": "000", "shard": "00007",
         "sha256": sha[b"image bytes"]},
        {"id": sha[b"other bytes"], "kind": "text", "text": "a dog", "key": "001", "shard": "00007",
         "sha256": sha[b"other bytes"]},
        {"id": "named", "kind": "caption", "text": "no image here", "key": "002", "shard": "00007"},
    ]  # fmt: skip
    assert tally.records == 4
    assert dict(tally.set_aside) == {"text: not UTF-8": 1, "record: image without text": 1}


def test_a_tar_that_is_cut_short() -> None:
    data = tar([(f"{each:03d}.{kind}", b"text" * 300) for each in range(100) for kind in ("jpg", "txt")])
    rows, tally = read(read_tar, data[: len(data) // 2], "a.tar")
    assert 40 <= len(rows) <= 55  # a tar is filled up at its end
    assert any(reason.startswith("file: damaged or cut short") for reason in tally.set_aside)
    assert read(read_tar, data, "a.tar")[1].set_aside == {}
