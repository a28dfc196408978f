"""The command line told wrong things, met by broken things: a message, an exit code, never a traceback."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
from click.testing import CliRunner

from worldclip.cli import main
from worldclip.curation import Index, LanguageId
from worldclip.packages import PACKAGES, Cache
from worldclip.pairs import packaged
from worldclip.run import locked
from worldclip.storage import read_json, read_table, write_json

needs_packages = pytest.mark.packages

#: A port of this machine on which nothing listens.
NOWHERE = "http://127.0.0.1:9"


def commands(command: click.Command = main, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every command."""
    yield path
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from commands(each, (*path, name))


def fails(code: int, *arguments: object, cache: Path, **options: Any) -> str:
    """Run the real command, which must end with `code` and one plain message; return it on one line."""
    done = tiny.worldclip(Cache(cache), *arguments, **options)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error: ") == 1
    return " ".join(done.stderr.split())


@pytest.fixture(scope="module")
def begun(small_cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose metadata and pairs are made."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    for stage in (("metadata", "build"), ("pairs", "packaged")):
        done = tiny.worldclip(small_cache, *stage, "--run", folder, *tiny.settings())
        assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("path", list(commands()), ids=lambda path: " ".join(path) or "worldclip")
def test_help_fits_a_terminal(path: tuple[str, ...]) -> None:
    found = CliRunner().invoke(main, [*path, "--help"], terminal_width=80, prog_name="worldclip")
    assert found.exit_code == 0
    lines = found.output.splitlines()
    assert len(lines) <= (24 if path else 32)  # the list of all commands may be longer
    assert max(map(len, lines)) <= 80


def test_every_stage_says_that_nothing_was_fetched(tmp_path: Path) -> None:
    for stage in (("quickstart",), ("metadata", "build"), ("pairs", "packaged")):
        said = fails(2, *stage, "--run", tmp_path / "run", cache=tmp_path / "empty")
        assert "worldclip pairs fetch" in said
        assert "WORLDCLIP_CACHE" in said or str(tmp_path / "empty") in said


@needs_packages
def test_fetch_without_a_network_names_what_is_missing(cache: Cache, tmp_path: Path) -> None:
    """One package of each client is missing; each client is led to a port where nothing listens."""
    clients = {"emoji-twemoji": "npm", "wordfreq": "pip", "stamps": "apt"}
    assert clients == {package.name: package.client for package in PACKAGES if package.name in clients}
    some = Cache(tmp_path / "some")
    some.packages.mkdir(parents=True)
    for name in cache.present() - clients.keys():
        (some.packages / cache.path(name).name).symlink_to(cache.path(name))
    apt = tmp_path / "apt.conf"
    apt.write_text(f'Acquire::http::Proxy "{NOWHERE}"; Acquire::https::Proxy "{NOWHERE}"; Acquire::Retries "0";\n')
    proxies = {name: NOWHERE for each in ("http_proxy", "https_proxy", "all_proxy") for name in (each, each.upper())}
    nowhere = {
        **proxies,
        "no_proxy": "",
        "NO_PROXY": "",
        "APT_CONFIG": str(apt),
        "PIP_INDEX_URL": NOWHERE,
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_RETRIES": "0",
        "PIP_TIMEOUT": "2",
        "npm_config_registry": NOWHERE,
        "npm_config_cache": str(tmp_path / "npm"),
    }
    done = tiny.worldclip(some, "pairs", "fetch", changes=nowhere)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for name in clients:
        assert f"without {name}: " in done.stderr
    assert "could not be fetched: emoji-twemoji." in done.stderr
    absent = len(clients) + len(PACKAGES) - len(cache.present())
    assert f"{len(PACKAGES) - absent} of {len(PACKAGES)} packages" in done.stderr
    assert sorted(path.name for path in some.packages.iterdir()) == sorted(
        cache.path(name).name for name in cache.present() - clients.keys()
    )


def test_unknown_fields_and_values_are_told(tmp_path: Path) -> None:
    run = ("quickstart", "--run", tmp_path / "run", "--set")
    for setting, told in (
        ("train.batchsize=3", "Did you mean 'batch_size'?"),
        ("trian.lr=1", "parts: name, seed, metadata, pairs, curation, tokenizer, model, train"),
        ("train.lr=fast", "needs float"),
        ("curation.texts=german", "allowed: 'all', 'english'"),
        ("train.lr", "write it as path=value"),
    ):
        found = CliRunner().invoke(main, [str(each) for each in (*run, setting)])
        assert found.exit_code == 2
        assert told in " ".join(found.stderr.split())
        assert not (tmp_path / "run" / "recipe.json").exists(), "a wrong recipe is not kept"


@pytest.mark.parametrize(
    ("stage", "first"),
    [
        ("curate", "worldclip metadata build"),
        ("train", "worldclip curate"),
        ("evaluate", "worldclip train"),
        ("report", "worldclip evaluate"),
        ("ablate", "worldclip pairs fetch"),
    ],
)
def test_a_stage_before_its_predecessor_names_the_command(
    stage: str, first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLDCLIP_CACHE", str(tmp_path / "empty"))
    found = CliRunner().invoke(main, [stage, "--run", str(tmp_path / "run")])
    assert found.exit_code == 2
    assert f"`{first}`" in " ".join(found.stderr.split())


def test_two_commands_do_not_share_a_folder(tmp_path: Path) -> None:
    with locked(tmp_path):
        said = fails(2, "metadata", "build", "--run", tmp_path, cache=tmp_path / "empty")
    assert "another worldclip command is at work in this folder" in said


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    said = fails(1, "metadata", "build", "--run", tmp_path / "file" / "run", cache=tmp_path / "empty")
    assert str(tmp_path / "file" / "run") in said


def test_a_damaged_recipe_is_named(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text('{"name": ')
    said = fails(2, "metadata", "build", "--run", tmp_path, cache=tmp_path / "empty")
    assert f"{tmp_path / 'recipe.json'}: is not JSON" in said


@needs_packages
@pytest.mark.parametrize(("stage", "left"), [(("pairs", "packaged"), "pairs"), (("curate",), "curated")], ids=str)
def test_a_full_disk_leaves_nothing_half_written(
    stage: tuple[str, ...], left: str, begun: Path, small_cache: Cache, tmp_path: Path
) -> None:
    Index.build(["dog"]).match(["a dog"])  # what is compiled is cached on the disk too: before it is full
    LanguageId.open().predict(["a dog"])
    folder = tmp_path / "run"
    shutil.copytree(begun, folder)
    if left == "pairs":
        shutil.rmtree(folder / "pairs")

    def full() -> None:
        """No file may grow above 30 kB."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))

    said = fails(1, *stage, "--run", folder, cache=small_cache.folder, before=full)
    assert "could not be written" in said
    assert "run the same command again" in said
    assert list(folder.rglob("*.tmp")) == []
    assert not (folder / "stages" / f"{stage[0]}.json").exists()
    for table in folder.rglob("*.parquet"):
        read_table(table)
    done = tiny.worldclip(small_cache, *stage, "--run", folder)
    assert done.returncode == 0, done.stderr
    whole = sorted((folder / left).rglob("*.parquet"))
    assert whole
    if left == "pairs":
        assert [path.read_bytes() for path in whole] == [
            path.read_bytes() for path in sorted((begun / left).rglob("*.parquet"))
        ]


@needs_packages
def test_json_is_json(begun: Path) -> None:
    found = CliRunner().invoke(main, ["metadata", "info", str(begun / "metadata"), "--json"])
    assert {row["lang"] for row in json.loads(found.stdout)} >= {"en", "fr", "th"}
    recipe = CliRunner().invoke(main, ["recipe", "--set", "train.lr=1e-3"])
    assert json.loads(recipe.stdout)["train"]["lr"] == 1e-3


@needs_packages
def test_an_unreadable_caption_file_is_counted(small_cache: Cache, tmp_path: Path) -> None:
    if "stamps" not in small_cache.present():
        pytest.skip("needs the stamps, which apt brings")
    broken = Cache(tmp_path / "cache")
    shutil.copytree(small_cache.packages, broken.packages, symlinks=True)
    captions = sorted((broken.path("stamps") / tiny.STAMPS).rglob("*.txt"))
    captions[0].write_bytes("Une pêche.\n".encode("latin-1"))
    captions[1].write_bytes(b"")
    told: list[str] = []
    figures = packaged.build(
        broken, tmp_path / "pairs", languages=["en", "fr"], size=16, shards=1, workers=1, report=told.append
    )
    reasons = Counter(figures["set_aside"])
    assert reasons["caption file is not UTF-8"] == reasons["caption file has no English caption"] == 1
    assert any(captions[0].stem in line and "not UTF-8" in line for line in told)
    assert figures["train"]["stamps"] + figures["test"].get("stamps", 0) == len(captions) - 2


# Pairs of one's own.


CAPTIONS = ["a red apple on a table", "un chien dans la rue", "แมว", None, "two cats and a dog"]


def write_shard(path: Path, **columns: list[Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), path)


def own(tmp_path: Path, begun: Path) -> list[object]:
    places = ("--pairs", tmp_path / "own", "--metadata", begun / "metadata", "--out", tmp_path / "out")
    return ["curate", *places, "--set", "curation.t_en=2"]


@needs_packages
def test_own_pairs_in_img2datasets_layout(begun: Path, small_cache: Cache, tmp_path: Path) -> None:
    for number in range(2):
        ids = [f"{number:05d}{row:04d}" for row in range(len(CAPTIONS))]
        urls = [f"https://example.org/{each}.jpg" for each in ids]
        write_shard(tmp_path / "own" / f"{number:05d}.parquet", id=ids, caption=CAPTIONS, url=urls)
    done = tiny.worldclip(small_cache, *own(tmp_path, begun))
    assert done.returncode == 0, done.stderr
    summary = read_json(tmp_path / "out" / "summary.json")
    assert (summary["images"], summary["texts"]) == (10, 8)
    rows = [
        row for path in sorted((tmp_path / "out").glob("curated-*.parquet")) for row in read_table(path).to_pylist()
    ]
    assert {row["text"] for row in rows} <= set(CAPTIONS)
    assert all(row["url"].endswith(f"{row['id']}.jpg") for row in rows)
    assert {row["lang"] for row in rows} >= {"en", "th"}
    again = tiny.worldclip(small_cache, *own(tmp_path, begun), "--set", "curation.t_en=3")
    assert again.returncode == 2
    assert "holds the answer to another question" in again.stderr


@needs_packages
def test_own_pairs_that_are_wrong(begun: Path, small_cache: Cache, tmp_path: Path) -> None:
    arguments = own(tmp_path, begun)
    assert "nothing to read there" in fails(2, *arguments, cache=small_cache.folder)
    assert "go together" in fails(2, *arguments[:3], cache=small_cache.folder)
    write_shard(tmp_path / "own" / "wrong.parquet", url=["https://example.org"], caption=["a cat"])
    assert "wrong.parquet: needs one column 'id'" in fails(2, *arguments, cache=small_cache.folder)
    (tmp_path / "own" / "wrong.parquet").write_bytes(b"PAR1 and no more")
    assert "wrong.parquet: cannot be read as Parquet" in fails(2, *arguments, cache=small_cache.folder)
    # Beside a good one it is set aside with its reason; mended, the same command goes on.
    write_shard(tmp_path / "own" / "good.parquet", id=["1"], caption=["a cat"])
    said = fails(1, *arguments, cache=small_cache.folder)
    assert "1 shard(s) failed every try" in said
    assert "wrong.parquet: cannot be read as Parquet" in said
    assert len(read_json(tmp_path / "out" / "summary.json")["quarantined"]) == 1
    write_shard(tmp_path / "own" / "wrong.parquet", id=["2"], caption=["a dog"])
    assert tiny.worldclip(small_cache, *arguments).returncode == 0
    # What was matched must stay what it was.
    write_shard(tmp_path / "own" / "good.parquet", id=["1"], caption=["a cow"])
    assert "good.parquet: has changed since" in fails(2, *arguments, cache=small_cache.folder)


@needs_packages
def test_metadata_that_is_swapped_while_it_is_used(begun: Path, small_cache: Cache, tmp_path: Path) -> None:
    for number in range(3):
        rows = [f"{number}-{row}" for row in range(500)]
        captions = [f"a red apple on table {row}" for row in rows]
        write_shard(tmp_path / "own" / f"{number}.parquet", id=rows, caption=captions)
    shutil.copytree(begun / "metadata", tmp_path / "metadata")
    places = ("--pairs", tmp_path / "own", "--metadata", tmp_path / "metadata", "--out", tmp_path / "out")
    curate = ("curate", *places, "--set", "curation.t_en=2", "--workers", "1")
    with subprocess.Popen(tiny.command(*curate), env=tiny.environment(small_cache), stderr=subprocess.PIPE) as process:
        while process.poll() is None and not list((tmp_path / "out").glob("matches-*.parquet")):
            time.sleep(0.01)
        manifest = read_json(tmp_path / "metadata" / "manifest.json")
        write_json(tmp_path / "metadata" / "manifest.json", {**manifest, "hash": "0" * 64})
        assert process.stderr is not None
        said = process.stderr.read().decode()
    assert process.returncode == 2
    assert "was changed while" in said
    assert not (tmp_path / "out" / "summary.json").exists()
    # Nor does the other metadata go on with what the first one began.
    shutil.copytree(tmp_path / "metadata", tmp_path / "other")
    write_json(tmp_path / "other" / "manifest.json", {**manifest, "hash": "1" * 64})
    again = [*curate]
    again[4] = tmp_path / "other"
    assert "holds the answer to another question" in fails(2, *again, cache=small_cache.folder)
    write_json(tmp_path / "metadata" / "manifest.json", manifest)
    assert tiny.worldclip(small_cache, *curate).returncode == 0
