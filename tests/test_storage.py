"""Files are whole or not there: after an error, a full disk, or kill -9."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldclip.curation import Index
from worldclip.errors import DataError, MissingData, StorageError
from worldclip.storage import (
    digest,
    file_digest,
    free_bytes,
    read_json,
    read_table,
    replacing,
    sweep,
    write_bytes,
    write_json,
    write_table,
)

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
TABLE = pa.table({"id": ["a", "犬", None], "n": [1, 2, 3]})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_written_whole_and_in_a_new_folder(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a/b/file", b"new")
    write_bytes(tmp_path / "a/b/file", b"newer")
    assert (tmp_path / "a/b/file").read_bytes() == b"newer"
    assert names(tmp_path / "a/b") == ["file"]


def test_an_error_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:  # noqa: PT012
        temporary.write_bytes(b"half")
        _ = 1 / 0
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("moment", ["before", "half", "whole"])
def test_kill_9_leaves_the_old_file(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    program = f"""
import os, signal
from pathlib import Path
from worldclip.storage import replacing
with replacing(Path({str(path)!r})) as temporary:
    if {moment!r} != "before":
        file = open(temporary, "wb")
        file.write(b"new" * ({moment!r} == "half" or 1000))
        file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    left = [name for name in names(tmp_path) if name != "file"]
    assert len(left) == (moment != "before")
    assert sweep(tmp_path) == len(left)
    assert names(tmp_path) == ["file"]


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np, pyarrow as pa
from worldclip.curation import Index
from worldclip.errors import StorageError
from worldclip.storage import write_bytes, write_json, write_table
folder = Path(sys.argv[1])
noise = np.random.default_rng(0).bytes(400_000).hex()
index = Index.build([noise])
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for name, write in {
    "bytes": lambda path: write_bytes(path, noise.encode()),
    "json": lambda path: write_json(path, noise),
    "table": lambda path: write_table(path, pa.table({"text": [noise]})),
    "index": index.save,
}.items():
    try:
        write(folder / name)
    except StorageError as error:
        print(name, error)
"""


def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    # A limit on the size of files fails the very call that a full disk fails.
    for name in ("bytes", "json", "table"):
        write_bytes(tmp_path / name, b"old")
    Index.build(["old"]).save(tmp_path / "index")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["bytes", "json", "table", "index"]
    assert all("could not be written" in line and "again" in line for line in lines)
    assert names(tmp_path) == ["bytes", "index", "json", "table"]
    assert {(tmp_path / name).read_bytes() for name in ("bytes", "json", "table")} == {b"old"}
    assert len(Index.open(tmp_path / "index")) == 1


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"file/inside: could not be written"):
        write_bytes(tmp_path / "file" / "inside", b"x")
    with pytest.raises(StorageError, match="could not be written"):
        Index.build(["a"]).save(tmp_path / "file" / "index")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder: could not be written"):
        write_bytes(tmp_path / "folder", b"x")
    assert names(tmp_path) == ["file", "folder"]


def test_sweeping_takes_what_is_temporary_alone(tmp_path: Path) -> None:
    for name in ("keep", "a.7.tmp", "deep/b.7.tmp", "deep/keep.tmp.json", "index.7.tmp/ids.npy", "index.7.tmp/c.tmp"):
        write_bytes(tmp_path / name, b"x")
    assert sweep(tmp_path) == 4
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "deep",
        "deep/keep.tmp.json",
        "keep",
    ]
    assert sweep(tmp_path / "nowhere") == 0


def test_json_is_the_same_bytes_in_any_order(tmp_path: Path) -> None:
    write_json(tmp_path / "one", {"b": 1, "a": ["犬", None, 0.1]})
    write_json(tmp_path / "two", {"a": ["犬", None, 0.1], "b": 1})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert "犬" in (tmp_path / "one").read_text("utf-8")
    assert read_json(tmp_path / "one") == {"a": ["犬", None, 0.1], "b": 1}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"{} {}"])
def test_what_is_not_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.json: is not JSON .* Delete it"):
        read_json(tmp_path / "x.json")
    with pytest.raises(MissingData, match=r"y\.json: not found"):
        read_json(tmp_path / "y.json")


def test_the_same_table_is_the_same_bytes(tmp_path: Path) -> None:
    write_table(tmp_path / "one", TABLE)
    write_table(tmp_path / "two", TABLE)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert read_table(tmp_path / "one").equals(TABLE)
    assert read_table(tmp_path / "one", ["n"]).equals(TABLE.select(["n"]))


def test_a_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    write_table(tmp_path / "lang=en/seed=1/table.parquet", TABLE)
    assert read_table(tmp_path / "lang=en/seed=1/table.parquet").equals(TABLE)


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    write_table(tmp_path / "whole", pa.table({"x": np.random.default_rng(0).random(10_000)}))
    whole = (tmp_path / "whole").read_bytes()
    for number, content in enumerate([b"", b"PAR1", whole[:-1], whole[: len(whole) // 2], b"x" * len(whole)]):
        (tmp_path / f"cut-{number}").write_bytes(content)
        with pytest.raises(DataError, match=f"cut-{number}: cannot be read as Parquet"):
            read_table(tmp_path / f"cut-{number}")
    with pytest.raises(MissingData, match="nowhere: not found"):
        read_table(tmp_path / "nowhere")


@given(parts=st.lists(st.text(max_size=3), max_size=4), others=st.lists(st.text(max_size=3), max_size=4))
def test_digests_tell_lists_of_parts_apart(parts: list[str], others: list[str]) -> None:
    assert (digest(*parts) == digest(*others)) == (parts == others)
    assert digest(*parts) == digest(*(part.encode() for part in parts))


def test_digest_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    assert file_digest(tmp_path / "file") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_free_space_of_a_folder_that_is_yet_to_be(tmp_path: Path) -> None:
    assert 0 < free_bytes(tmp_path / "a/b/c") <= os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
