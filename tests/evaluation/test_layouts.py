"""Readers of layouts: what they keep together, and what they refuse."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from miniature import IMAGE, image_cell, npy, write, write_arrow, write_parquet, write_shards
from PIL import Image

from worldclip.errors import DataError, MissingData
from worldclip.evaluation import pictures
from worldclip.evaluation.layouts import (
    by_name,
    by_number,
    read_class_folders,
    read_csv,
    read_file_list,
    read_jsonl,
    read_lines,
    read_rows,
    read_shards,
)
from worldclip.evaluation.pictures import Pictures, from_arrays, from_files, from_table

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n"


def test_lines_end_at_line_feeds_alone(tmp_path: Path) -> None:
    text = "one\u2028more\r\n\x85two\x0b\r\n\r\nfour\x1cx"
    assert read_lines(write(tmp_path / "a.txt", text)) == ["one\u2028more", "\x85two\x0b", "", "four\x1cx"]
    assert read_lines(write(tmp_path / "b.txt", "one\ntwo\n")) == ["one", "two"]
    assert read_lines(write(tmp_path / "c.txt", "")) == []
    assert read_lines(write(tmp_path / "d.txt", "\ufeffone\n\n")) == ["one", ""]


def test_text_is_utf_8_in_any_locale(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "สวัสดี\n")
    program = "import sys; from pathlib import Path; from worldclip.evaluation.layouts import read_lines; "
    program += "assert read_lines(Path(sys.argv[1])) == ['\\u0e2a\\u0e27\\u0e31\\u0e2a\\u0e14\\u0e35']"
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", program, str(path)], env=plain, check=True)
    with pytest.raises(DataError, match="not UTF-8"):
        read_lines(write(tmp_path / "b.txt", b"\xff\xfe"))


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "test/nshards.txt"])
def test_a_pointer_of_git_lfs_is_no_file(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, POINTER)
    readers = {
        "a.txt": read_lines,
        "a.csv": lambda path: list(read_csv(path, ("x",))),
        "a.jsonl": read_jsonl,
        "test/nshards.txt": lambda path: read_shards(path.parents[1]),
    }
    with pytest.raises(DataError, match="git lfs pull"):
        readers[name](tmp_path / name)


def test_tables_tell_what_they_lack(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'b'; found a, c"):
        list(read_csv(write(tmp_path / "a.csv", "a,c\n1,2\n"), ("a", "b")))
    with pytest.raises(DataError, match="row 3 is short"):
        list(read_csv(write(tmp_path / "b.csv", "a,b\n1,2\n3\n"), ("a", "b")))
    assert list(read_csv(write(tmp_path / "c.csv", 'a,b\r\n1,"x\ny"\r\n'), ("a",))) == [{"a": "1", "b": "x\ny"}]
    with pytest.raises(DataError, match="line 2 is not JSON"):
        read_jsonl(write(tmp_path / "a.jsonl", '{"a": 1}\n{"a":\n'))
    with pytest.raises(DataError, match="line 1 is not a JSON object"):
        read_jsonl(write(tmp_path / "b.jsonl", "[]\n"))
    with pytest.raises(MissingData, match="gone"):
        read_lines(tmp_path / "gone")


def samples(pngs: list[bytes], count: int) -> list[dict[str, bytes]]:
    return [{"png": pngs[row], "cls": str(row).encode(), "npy": npy([row, 9])} for row in range(count)]


def test_shards_are_read_by_number(pngs: list[bytes], tmp_path: Path) -> None:
    write_shards(tmp_path, samples(pngs, 24), shards=12)
    shards = read_shards(tmp_path)
    assert shards.labels().tolist() == list(range(24))  # 10.tar comes after 9.tar.
    assert shards.metadata().tolist() == [[row, 9] for row in range(24)]
    assert [data for _, data in shards.pictures] == pngs[:24]
    assert [data for _, data in shards.pictures.take([20, 3])] == [pngs[20], pngs[3]]
    assert len(set(shards.pictures.keys)) == 24


def test_captions_of_shards_keep_their_line_separators(pngs: list[bytes], tmp_path: Path) -> None:
    captions = ["one\u2028still one\ntwo\x85still two", "three\n", "four\r\nfive"]
    write_shards(tmp_path, [{"png": pngs[row], "txt": text.encode()} for row, text in enumerate(captions)])
    assert read_shards(tmp_path).captions() == [["one\u2028still one", "two\x85still two"], ["three"], ["four", "five"]]


def test_shards_that_are_not_whole_are_told(pngs: list[bytes], tmp_path: Path) -> None:
    write_shards(tmp_path / "a", samples(pngs, 6))
    (tmp_path / "a/test/1.tar").unlink()
    with pytest.raises(MissingData, match=r"1\.tar: shard not found"):
        read_shards(tmp_path / "a")
    write(tmp_path / "a/test/1.tar", POINTER)
    with pytest.raises(DataError, match="git lfs pull"):
        read_shards(tmp_path / "a")
    write(tmp_path / "a/test/1.tar", b"no tar" * 200)
    with pytest.raises(DataError, match="not a whole tar"):
        read_shards(tmp_path / "a")
    write_shards(tmp_path / "b", [{"png": pngs[0], "cls": b"0"}, {"png": pngs[1]}])
    with pytest.raises(DataError, match=r"2 samples, of which 1 have a \.cls"):
        read_shards(tmp_path / "b").labels()
    write_shards(tmp_path / "c", [{"cls": b"0"}])
    with pytest.raises(DataError, match="has 0 images"):
        read_shards(tmp_path / "c")
    write_shards(tmp_path / "d", [{"png": pngs[0], "cls": b"zero"}])
    with pytest.raises(DataError, match="not a number"):
        read_shards(tmp_path / "d").labels()
    write(tmp_path / "e/test/nshards.txt", "many")
    with pytest.raises(DataError, match="not the number of shards"):
        read_shards(tmp_path / "e")
    with pytest.raises(MissingData, match=r"nshards\.txt"):
        read_shards(tmp_path / "f")


def test_metadata_of_shards_is_never_unpickled(pngs: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "objects.npy"
    np.save(path, np.array([{}], object), allow_pickle=True)
    write_shards(tmp_path / "a", [{"png": pngs[0], "npy": path.read_bytes()}], shards=1)
    with pytest.raises(DataError, match="plain array"):
        read_shards(tmp_path / "a").metadata()


def test_folders_are_classes_by_name_never_by_place(pngs: list[bytes], tmp_path: Path) -> None:
    for folder in ("1", "10", "2", ".cache"):
        write(tmp_path / folder / "deep" / f"{folder}.PNG", pngs[0])
        write(tmp_path / folder / "readme.txt", "no image")
    found, labels = read_class_folders("flowers", tmp_path, by_number(12, first=1))
    assert found.keys == ("1/deep/1.PNG", "10/deep/10.PNG", "2/deep/2.PNG")
    assert labels.tolist() == [0, 9, 1]
    write(tmp_path / "13" / "a.png", pngs[0])
    with pytest.raises(DataError, match=r"13: '13' is no class of flowers"):
        read_class_folders("flowers", tmp_path, by_number(12, first=1))
    with pytest.raises(MissingData, match="no such folder"):
        read_class_folders("flowers", tmp_path / "gone", by_number(12))
    (tmp_path / "empty" / "0").mkdir(parents=True)
    with pytest.raises(MissingData, match="no images"):
        read_class_folders("flowers", tmp_path / "empty", by_number(12))


def test_numbers_are_padded_or_not_and_never_below_the_first() -> None:
    class_of = by_number(43)
    assert [class_of(folder) for folder in ("00007", "7", "42", "43", "-1", "x", "٣", "")] == [7, 7, 42, *[None] * 5]
    assert by_number(3, first=1)("0") is None


def test_names_are_found_whatever_case_and_punctuation_but_never_guessed() -> None:
    class_of = by_name([("a-b",), ("A B",), ("Pho", "soup"), ("x",), ("x",)], {"alias": "soup"})
    assert class_of("a-b") == 0
    assert class_of("A B") == 1
    assert class_of("a_b") is None  # Either of two.
    assert (class_of("pho"), class_of("SOUP"), class_of("alias"), class_of("x")) == (2, 2, 2, 3)
    assert class_of("ramen") is None


def test_file_lists_hold_numbers_or_names(pngs: list[bytes], tmp_path: Path) -> None:
    np.save(tmp_path / "test_images.npy", ["a.png", "b.png"])
    np.save(tmp_path / "test_labels.npy", [1, 0])
    found, labels = read_file_list("list", tmp_path, "test", by_number(2))
    assert (found.keys, labels.tolist()) == (("a.png", "b.png"), [1, 0])
    np.save(tmp_path / "test_labels.npy", [1, 0, 0])
    with pytest.raises(DataError, match="2 images but 3 labels"):
        read_file_list("list", tmp_path, "test", by_number(2))
    np.save(tmp_path / "test_labels.npy", ["yes", "no"])
    with pytest.raises(DataError, match="'no' is no class"):
        read_file_list("list", tmp_path, "test", by_name([("yes",)]))
    np.save(tmp_path / "test_labels.npy", np.array(["yes", 1], object), allow_pickle=True)
    with pytest.raises(DataError, match="plain array"):
        read_file_list("list", tmp_path, "test", by_number(2))
    with pytest.raises(MissingData, match=r"val_images\.npy"):
        read_file_list("list", tmp_path, "val", by_number(2))


@pytest.mark.parametrize("layout", ["parquet", "parquet in data", "arrow", "bytes", "paths"])
def test_tables_are_read_in_every_layout(layout: str, pngs: list[bytes], tmp_path: Path) -> None:
    texts = [f"text {row}" for row in range(20)]
    cells: list[object] = [image_cell(png) for png in pngs[:20]]
    types: dict[str, pa.DataType] = {"image": IMAGE}
    if layout == "bytes":
        cells, types = list(pngs[:20]), {}
    if layout == "paths":
        for row in range(20):
            write(tmp_path / "images" / f"{row}.png", pngs[row])
        cells = [{"bytes": None, "path": f"images/{row}.png"} for row in range(20)]
    columns = {"image": cells, "text": texts}
    if layout == "arrow":
        write_arrow(tmp_path / "test", columns, types, files=3)
    else:
        home = tmp_path / "data" if layout == "parquet in data" else tmp_path
        for part, rows in enumerate((slice(0, 12), slice(12, 20))):
            some = {name: values[rows] for name, values in columns.items()}
            write_parquet(home / f"test-{part:05d}.parquet", some, types)
        write_parquet(home / "train-00000.parquet", {"image": cells[:2], "text": ["no", "no"]}, types)
    table = read_rows(tmp_path)
    assert table.column("text") == texts
    assert "image" not in table.columns.column_names
    found = table.pictures("table", "image", texts)
    assert [data for _, data in found] == pngs[:20]
    assert [data for _, data in found] == pngs[:20]  # Again: it can be read more than once.
    for rows in ([0], [19, 0, 7, 7, 8], list(range(3, 18, 4)), []):
        assert [data for _, data in found.take(rows)] == [pngs[row] for row in rows]
    with pytest.raises(DataError, match="no column 'label'"):
        table.column("label")


def test_only_the_row_groups_that_are_asked_for_are_read(
    pngs: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_parquet(tmp_path / "a.parquet", {"image": pngs[:20]}, {}, row_group=5)
    found = from_table("a", [str(row) for row in range(20)], [tmp_path / "a.parquet"], "image")
    read: list[object] = []
    inner = pictures._batches

    def spied(file: Path, column: str, rows: list[int]) -> object:
        for batch in inner(file, column, rows):
            read.append(batch if isinstance(batch, int) else len(batch))
            yield batch

    monkeypatch.setattr(pictures, "_batches", spied)
    assert [*found.read([11, 12])] == pngs[11:13]
    assert read == [5, 5, 5]  # Two groups passed over, one read; the last is not looked at.
    assert pictures.BATCH <= 64  # Rows that are held at once.


def test_tables_that_are_not_there_or_damaged_are_told(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"no Parquet files and no state\.json"):
        read_rows(tmp_path)
    write(tmp_path / "a" / "x.parquet", POINTER)
    with pytest.raises(DataError, match="git lfs pull"):
        read_rows(tmp_path / "a")
    write(tmp_path / "b" / "x.parquet", b"PAR1 nothing")
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_rows(tmp_path / "b")
    write(tmp_path / "c" / "state.json", "{}")
    with pytest.raises(DataError, match="does not list"):
        read_rows(tmp_path / "c")


def test_pictures_are_the_same_each_time_and_known_by_their_keys(pngs: list[bytes], tmp_path: Path) -> None:
    for row in range(3):
        write(tmp_path / f"{row}.png", pngs[row])
    found = from_files("some", tmp_path, ["0.png", "1.png", "2.png"])
    assert [*found] == [*found] == [(f"{row}.png", pngs[row]) for row in range(3)]
    assert found.fingerprint == hashlib.sha256(b"0.png\n1.png\n2.png").hexdigest()
    assert found.fingerprint != found.take([0, 1]).fingerprint
    assert isinstance(found.take([2]).take([0]), Pictures)
    with pytest.raises(DataError, match="two pictures have the key 'a'"):
        from_files("some", tmp_path, ["a", "b", "a"])
    (tmp_path / "1.png").unlink()
    with pytest.raises(MissingData, match=r"1\.png: image not found"):
        list(found)
    write(tmp_path / "1.png", POINTER)
    with pytest.raises(DataError, match="git lfs pull"):
        list(found)
    write_parquet(tmp_path / "x.parquet", {"image": [{"bytes": None, "path": None}]}, {"image": IMAGE})
    with pytest.raises(DataError, match="row 0 holds no image"):
        list(from_table("x", ["0"], [tmp_path / "x.parquet"], "image"))


def test_arrays_become_pictures_without_loss() -> None:
    arrays = np.random.default_rng(0).integers(256, size=(2, 5, 7, 3), dtype=np.uint8)
    for number, (_, data) in enumerate(from_arrays("a", ["x", "y"], arrays)):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), arrays[number])


def test_a_state_without_its_files_is_told(tmp_path: Path) -> None:
    write(tmp_path / "state.json", json.dumps({"_data_files": [{"filename": "gone.arrow"}]}))
    with pytest.raises((DataError, MissingData), match=r"gone|cannot be read"):
        read_rows(tmp_path)
