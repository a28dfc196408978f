"""Finished folders in a store: whole files, and their list last."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from worldclip.cli import main
from worldclip.engines import Engine, LocalEngine
from worldclip.errors import ConfigError, InputError, MissingData, ShardsFailed
from worldclip.publish import MANIFEST, publish
from worldclip.storage import TEMPORARY, read_json, read_table

HERE = LocalEngine(workers=0, tries=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished folder, with what stays: a lock and what a killed run left."""
    folder = tmp_path / "folder"
    (folder / "index").mkdir(parents=True)
    for name in ("a.parquet", "b.parquet", "index/en", ".lock", f"c.parquet.1{TEMPORARY}"):
        (folder / name).write_bytes(name.encode() * 1000)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def times(folder: Path) -> dict[str, int]:
    return {name: (folder / name).stat().st_mtime_ns for name in contents(folder) if name != MANIFEST}


@pytest.mark.parametrize("engine", [HERE, LocalEngine(workers=2)], ids=["here", "two workers"])
def test_whole_files_and_their_list(folder: Path, tmp_path: Path, engine: Engine) -> None:
    told: list[tuple[str, int, int]] = []
    there, url = tmp_path / "there", f"file://{tmp_path}/there"
    about = publish(folder, url, engine=engine, report=lambda *each: told.append(each))
    sent = {name: (folder / name).read_bytes() for name in ("a.parquet", "b.parquet", "index/en")}
    assert {name: data for name, data in contents(there).items() if name != MANIFEST} == sent
    assert read_json(there / MANIFEST) == about
    assert about["files"] == {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in sent.items()
    }
    assert told[-1] == ("publish", 26_000, 26_000)
    # What is there is not sent again; what was changed or lost, here or there, is.
    before = times(there)
    publish(folder, url, engine=engine)
    assert times(there) == before
    (folder / "a.parquet").write_bytes(b"anew")
    (there / "b.parquet").write_bytes(b"half")
    publish(folder, url, engine=engine)
    assert (there / "a.parquet").read_bytes() == b"anew"
    assert (there / "b.parquet").read_bytes() == sent["b.parquet"]
    assert times(there)["index/en"] == before["index/en"]
    assert read_json(there / MANIFEST)["files"]["a.parquet"]["sha256"] == hashlib.sha256(b"anew").hexdigest()


def test_a_store_that_has_no_folders(folder: Path) -> None:
    store = fsspec.filesystem("memory")
    try:
        about = publish(folder, "memory://bucket/curated", engine=HERE)
        names = {name.removeprefix("/bucket/curated/") for name in store.find("/bucket/curated")}
        assert names == {*about["files"], MANIFEST}
        assert store.cat("/bucket/curated/index/en") == (folder / "index" / "en").read_bytes()
    finally:
        store.rm("/bucket", recursive=True)


def test_a_file_that_cannot_be_sent_leaves_no_list(folder: Path, tmp_path: Path) -> None:
    there, url = tmp_path / "there", f"file://{tmp_path}/there"
    publish(folder, url, engine=HERE)
    (there / "b.parquet").unlink()
    (there / "b.parquet").mkdir()
    with pytest.raises(ShardsFailed, match=r"1 shard\(s\) failed(?s:.)*b\.parquet: cannot be written"):
        publish(folder, url, engine=HERE)
    assert not (there / MANIFEST).exists()
    (there / "b.parquet").rmdir()
    publish(folder, url, engine=HERE)
    assert (there / MANIFEST).exists()


DRIVER = """
import sys
from pathlib import Path
from worldclip.engines import LocalEngine
from worldclip.publish import publish
if __name__ == "__main__":
    publish(Path(sys.argv[1]), sys.argv[2], engine=LocalEngine(workers=1))
"""


def test_killed_in_the_middle(folder: Path, tmp_path: Path) -> None:
    for number in range(4):
        (folder / f"large-{number}").write_bytes(os.urandom(2**25))
    (tmp_path / "driver.py").write_text(DRIVER)
    there, url = tmp_path / "there", f"file://{tmp_path}/there"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, tmp_path / "driver.py", folder, url], env=environment) as driver:
        while not list((folder / ".published").rglob("large-0.json")):
            assert driver.poll() is None
            time.sleep(0.001)
        driver.send_signal(signal.SIGKILL)
    assert not (there / MANIFEST).exists()
    before = times(there)
    about = publish(folder, url, engine=HERE)
    assert times(there)["large-0"] == before["large-0"]
    assert {name: hashlib.sha256(data).hexdigest() for name, data in contents(there).items() if name != MANIFEST} == {
        name: each["sha256"] for name, each in about["files"].items()
    }


def test_what_is_not_published(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingData, match="nothing to publish"):
        publish(tmp_path / "empty", f"file://{tmp_path}/there", engine=HERE)
    with pytest.raises(ConfigError, match="its store cannot be reached"):
        publish(folder, "nostore://bucket", engine=HERE)
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other files \(mine\.txt\)"):
        publish(folder, f"file://{tmp_path}/there", engine=HERE)
    (folder / "question.json").write_text("{}")
    with pytest.raises(MissingData, match="is not finished"):
        publish(folder, f"file://{tmp_path}/other", engine=HERE)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "folder", "there"]


def command(*arguments: object) -> str:
    done = CliRunner().invoke(main, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
    return done.output


def test_pairs_and_list_through_stores(tmp_path: Path) -> None:
    rows = {"url": [f"https://example.org/{n}.jpg" for n in range(9)], "caption": [f"caption {n}" for n in range(9)]}
    pq.write_table(pa.table(rows), tmp_path / "table.parquet")
    pairs, listed = f"file://{tmp_path}/store/pairs", f"file://{tmp_path}/store/list.parquet"
    command("pairs", "extract", tmp_path / "table.parquet", "--out", pairs, "--work", tmp_path / "work", "--workers", 1)
    assert (tmp_path / "store" / "pairs" / MANIFEST).exists()
    assert "9 images" in command("pairs", "download-list", pairs, "--out", listed)
    table = read_table(tmp_path / "store" / "list.parquet")
    assert sorted(table.column("url").to_pylist()) == rows["url"]
    command("publish", tmp_path / "work", f"file://{tmp_path}/store/again", "--workers", 1)
    assert contents(tmp_path / "store" / "again") == contents(tmp_path / "store" / "pairs")
    extract = ("pairs", "extract", tmp_path / "table.parquet")
    for wrong, says in (
        ((*extract, "--out", pairs), "--work DIR"),
        ((*extract, "--out", "plain", "--work", "w"), "goes with a URL"),
        ((*extract, "--out", tmp_path / "table.parquet"), "is a file"),
        ((*extract, "--out", "nostore://bucket", "--work", "w"), "its store cannot be reached"),
        (("clean", "remove", tmp_path / "work", "--out", "memory://clean"), "worldclip publish FOLDER URL"),
    ):
        done = CliRunner().invoke(main, list(map(str, wrong)))
        assert done.exit_code == 2
        assert says in " ".join(done.output.split())
