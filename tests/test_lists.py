"""Lists from dumps, whole: every Wikipedia's list, caps, the same bytes whatever happens, versions compared."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent / "metadata"))
sys.path.insert(0, str(Path(__file__).parent / "engines"))

from dumps import xml
from in_namespace import HEAD
from namespace import UNSHARE, cannot_unshare

from worldclip.cli import main
from worldclip.config import CurationConfig
from worldclip.curate import curate
from worldclip.engines.local import LocalEngine
from worldclip.errors import ConfigError, DataError, MissingData, ShardsFailed
from worldclip.languages import LANGUAGES, OTHER, list_of_wikipedia
from worldclip.lists import build_lists, compare, info
from worldclip.metadata import read_entries, read_metadata
from worldclip.metadata.build import Selection, find_sources
from worldclip.metadata.ngrams import tokens
from worldclip.storage import read_json, read_table

HERE = LocalEngine(workers=0, tries=1)
ALL = Selection(word_share=1.0, pairs_per_word=9.0, title_share=1.0, least_count=1)


def sources(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for code, word in (("sw", "mbwa mkubwa"), ("en", "big dog"), ("simple", "small dog"), ("zh_yue", "香港")):
        for part in (1, 2):
            pages = [(f"T{at}", f"{word} {at} {word} part{part}.") for at in range(20)]
            (folder / f"{code}wiki-20240501-pages-articles{part}.xml-p{part}p9.bz2").write_bytes(
                bz2.compress(xml(pages))
            )
    (folder / "pageviews-20240501-000000.gz").write_bytes(gzip.compress(b"sw Nairobi 4 0\nen.m New_York 2 0\nx\n"))
    (folder / "pageviews-20240502-user.bz2").write_bytes(bz2.compress(b"sw.wikipedia Nairobi 7 desktop 5 A5\n"))
    (folder / "wn-data-fin.tab").write_text("1-n\tfin:lemma\tkoira\nbad\n")
    entry = '<LexicalEntry id="a"><Lemma writtenForm="perro" partOfSpeech="n"/><Sense/></LexicalEntry>'
    (folder / "es.xml").write_text(f'<LexicalResource><Lexicon language="es">{entry}</Lexicon></LexicalResource>')
    return folder


def hashes(folder: Path) -> dict[str, str]:
    paths = [*folder.glob("*.parquet"), folder / "manifest.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def entries(folder: Path, lang: str) -> list[tuple[str, str, float]]:
    return [tuple(row.values()) for row in read_entries(folder / f"{lang}.parquet").to_pylist()[100:]]


def command(*arguments: object, seed: str = "1") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "worldclip", "metadata", "build", *map(str, arguments)],
        env={**os.environ, "PYTHONHASHSEED": seed}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def test_the_same_bytes_for_any_workers_hash_seed_and_kill(tmp_path: Path) -> None:
    dumps = sources(tmp_path / "dumps")
    expected, pool, killed = (tmp_path / name for name in ("here", "pool", "killed"))
    build_lists(dumps, expected, engine=HERE)
    other = command("--sources", dumps, "--out", pool, "--workers", 2, seed="2")
    process = command("--sources", dumps, "--out", killed, "--workers", 1)
    deadline = time.monotonic() + 60
    while len(list(killed.glob("work/sources/*/done.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "manifest.json").exists()
    done = {path: path.stat().st_mtime_ns for path in killed.glob("work/sources/*/done.json")}
    assert done
    build_lists(dumps, killed, engine=HERE)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert other.wait() == 0
    assert hashes(expected) == hashes(pool) == hashes(killed)


@pytest.mark.skipif(
    bool(why := "Ray is not installed" if importlib.util.find_spec("ray") is None else cannot_unshare()), reason=why
)
def test_the_same_bytes_on_a_ray_cluster(tmp_path: Path) -> None:
    dumps = sources(tmp_path / "dumps")
    build_lists(dumps, tmp_path / "here", engine=HERE)
    build = [sys.executable, "-m", "worldclip", "metadata", "build", "--sources", dumps, "--out", tmp_path / "ray"]
    namespace = Path(__file__).parent / "engines/in_namespace.py"
    done = subprocess.run(
        [*UNSHARE, sys.executable, namespace, *build, "--engine", f"ray:{HEAD}"],
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    size = sum(path.stat().st_size for path in dumps.iterdir())
    assert f"bytes read: {size:,} of {size:,}" in done.stderr
    assert hashes(tmp_path / "ray") == hashes(tmp_path / "here")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("lists")
    (folder / "own.csv").write_text("lang,entry,score\nsw,tai,2\nsw,Nairobi,1\nxx,y,1\n")
    build_lists(sources(folder / "dumps"), folder / "out", engine=HERE, concepts=folder / "own.csv", selection=ALL)
    return folder / "dumps", folder / "out"


def test_every_source_is_in_the_lists(built: tuple[Path, Path]) -> None:
    _, out = built
    rows = {row["lang"]: row for row in info(out)}
    assert set(rows) == {"en", "es", "fi", "sw", "zh_yue"}
    assert entries(out, "fi") == [("koira", "w", 1.0)]
    assert entries(out, "es") == [("perro", "w", 1.0)]
    swahili = {entry: (source, score) for entry, source, score in entries(out, "sw")}
    assert swahili["mbwa"] == ("u", 80.0)  # twice a page, 20 pages, two files
    assert swahili["Nairobi"] == ("t", 9.0)  # by the hour and by the day; first the title, then your own
    assert swahili["tai"] == ("c", 2.0)
    assert swahili["mbwa mkubwa"][0] == "b"
    assert {"small", "big"} <= {entry for entry, _, _ in entries(out, "en")}
    assert rows["sw"]["script"] == "Latn"
    assert {"dead_paper", "hash", "wordnet", "unigrams", "bigrams", "titles", "concepts"} <= rows["sw"].keys()
    assert next(entry for entry, source, _ in entries(out, "zh_yue") if source == "u") == "香港"
    manifest = read_json(out / "manifest.json")
    told = manifest["sources"]
    assert told["pageviews-20240501-000000.gz"]["set_aside"] == {"t: malformed line": 1}
    assert told["wn-data-fin.tab"]["set_aside"] == {"w: malformed row": 1}
    assert told["own.csv"]["set_aside"] == {"c: unknown list": 1}
    assert told["swwiki-20240501-pages-articles1.xml-p1p9.bz2"]["articles"] == 20
    assert manifest["unread_files"] == []
    assert manifest["languages"]["sw"]["tokens"] == 2 * 20 * 6


def test_all_that_sources_bring_is_listed_or_counted(tmp_path: Path) -> None:
    dumps, out = sources(tmp_path / "dumps"), tmp_path / "out"
    (tmp_path / "own.csv").write_text("lang,entry\nsw,tai\nsw,tai\nsw,mbwa\nsw,St. Louis\n")
    build_lists(dumps, out, engine=HERE, concepts=tmp_path / "own.csv")
    facts = read_json(out / "manifest.json")["languages"]["sw"]
    # Of both files: 24 words (mbwa, mkubwa, two of the parts, 20 numbers); pairs of them; one title; four concepts.
    text = [tokens(f"mbwa mkubwa {at} mbwa mkubwa part{part}") for at in range(20) for part in (1, 2)]
    words, pairs = {word for page in text for word in page}, {pair for page in text for pair in pairwise(page)}
    assert len(words) == 24
    assert facts["entries"] - 100 + sum(facts["set_aside"].values()) == len(words) + len(pairs) + 1 + 4
    assert facts["set_aside"]["u: less frequent"] == 24 - 3
    assert facts["set_aside"]["b: too rare or of lower PMI"] == len(pairs) - 2
    assert "t: fewer views" not in facts["set_aside"]
    (row,) = (row for row in info(out) if row["lang"] == "sw")
    assert (row["dead_paper"], row["dead_unicode"]) == (1, 0)  # "St. Louis"
    table = CliRunner().invoke(main, ["metadata", "info", str(out)], env={"COLUMNS": "80"}).output
    shown = [str(row[name]) for name in ("lang", "script", "entries", "unigrams", "bigrams", "titles", "concepts")]
    shown += ["1", "0", row["hash"][:8]]
    assert [line.split() for line in table.splitlines() if line.split()[0] == "sw"] == [
        [*shown[:3], "0", *shown[3:]]  # no lemma of this list, but of another
    ]
    assert {"unigrams", "unicode", "paper"} <= set(table.split())


def test_progress_is_by_bytes_within_one_file(tmp_path: Path) -> None:
    page = f"Mbwa {' '.join(f'w{at}' for at in range(2000))}."
    (tmp_path / "in").mkdir()
    dump = tmp_path / "in/swwiki-1-pages-articles.xml"
    dump.write_bytes(xml([("A", page)] * 1500))
    size = dump.stat().st_size
    heard: list[tuple[str, int, int]] = []
    build_lists(tmp_path / "in", tmp_path / "out", engine=LocalEngine(workers=1), report=lambda *row: heard.append(row))
    told = [done for what, done, total in heard if what == "bytes read" and total == size]
    assert told == sorted(told)
    assert told[-1] == size
    assert len({done for done in told if 0 < done < size}) >= 1
    assert heard[-1] == ("lists", 1, 1)
    assert [path.name for path in (tmp_path / "out" / "work" / "sources").iterdir() if not path.is_dir()] == []

    # The same in a terminal: a bar in bytes, its rate and the time left; and lines where there is none.
    build = [sys.executable, "-m", "worldclip", "metadata", "build", "--sources", tmp_path / "in", "--workers", "1"]
    ours, theirs = os.openpty()
    bar = subprocess.Popen([*build, "--out", tmp_path / "bar"], stderr=theirs, env={**os.environ, "COLUMNS": "100"})
    os.close(theirs)
    drawn = b""
    with suppress(OSError):  # how the end of a terminal is told
        while part := os.read(ours, 65536):
            drawn += part
    os.close(ours)
    assert bar.wait() == 0
    assert re.search(r"bytes read .*━.* [\d.]+[kM] of [\d.]+M \([\d.]+M/s\) \S+ +left", drawn.decode())
    lines = subprocess.run([*build, "--out", tmp_path / "lines"], capture_output=True, text=True, check=True).stderr
    assert re.search(r"bytes read: [\d.]+M of [\d.]+M \([\d.]+M/s, \d:\d\d:\d\d left\)", lines)
    assert len(lines.splitlines()) <= 15
    assert hashes(tmp_path / "out") == hashes(tmp_path / "bar") == hashes(tmp_path / "lines")


def test_lists_open_in_pandas_and_duckdb(built: tuple[Path, Path]) -> None:
    import duckdb
    import pandas as pd

    _, out = built
    ours = {path.stem: read_entries(path).to_pylist() for path in out.glob("*.parquet")}
    assert set(ours) == {"en", "es", "fi", "sw", "zh_yue"}
    for lang, rows in ours.items():
        frame = pd.read_parquet(out / f"{lang}.parquet")
        assert list(frame.columns) == ["entry", "source", "score"]
        assert frame.to_dict("records") == rows
    with duckdb.connect() as connection:
        assert connection.sql(f"SELECT * FROM '{out}/sw.parquet'").fetchall() == [
            tuple(row.values()) for row in ours["sw"]
        ]
        counted = f"SELECT parse_filename(filename, true), count(*) FROM read_parquet('{out}/*.parquet') GROUP BY 1"
        assert dict(connection.sql(counted).fetchall()) == {lang: len(rows) for lang, rows in ours.items()}
        # Ids are positions: DuckDB numbers the rows itself.
        third = (
            f"SELECT entry FROM read_parquet('{out}/sw.parquet', file_row_number = true) WHERE file_row_number = 102"
        )
        assert connection.sql(third).fetchall() == [(ours["sw"][102]["entry"],)]


def test_versions_are_compared(built: tuple[Path, Path], tmp_path: Path) -> None:
    dumps, out = built
    build_lists(dumps, tmp_path, engine=HERE, languages=("sw",), selection=ALL)
    rows = {row["lang"]: row for row in compare(out, tmp_path)}
    assert (rows["sw"]["removed"], rows["sw"]["added"], rows["sw"]["ids_moved"], rows["sw"]["same"]) == (1, 0, 0, False)
    assert rows["en"]["second"] == 0
    assert all(row["same"] for row in compare(out, out))
    told = CliRunner().invoke(main, ["metadata", "info", str(out), str(tmp_path), "--json"])
    assert {row["lang"] for row in json.loads(told.output)} == set(rows)


def test_what_is_counted_is_not_counted_again(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for at, word in enumerate(("mbwa", "paka")):
        (tmp_path / f"in/swwiki-1-pages-articles{at}.xml").write_bytes(xml([("A", f"{word} mmoja {word}")]))
    first = build_lists(tmp_path / "in", tmp_path / "out", engine=HERE, selection=ALL)
    counted = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "work").glob("sources/*/done.json")}
    assert len(counted) == 2
    build_lists(tmp_path / "in", tmp_path / "out", engine=HERE)  # 10 % of the words
    assert len(entries(tmp_path / "out", "sw")) < 3
    again = build_lists(tmp_path / "in", tmp_path / "out", engine=HERE, selection=ALL)
    assert again.hash == first.hash
    (tmp_path / "in/swwiki-1-pages-articles2.xml").write_bytes(xml([("A", "kuku")]))
    more = build_lists(tmp_path / "in", tmp_path / "out", engine=HERE, selection=ALL)
    assert {path: path.stat().st_mtime_ns for path in counted} == counted
    assert more.hash == build_lists(tmp_path / "in", tmp_path / "fresh", engine=HERE, selection=ALL).hash != first.hash


def test_caps_are_those_of_the_paper(tmp_path: Path) -> None:
    words = [f"w{at:04d}" for at in range(1000)]
    text = ". ".join(" ".join([word, f"{word}x"] * (1 + at % 7)) for at, word in enumerate(words))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/swwiki-1-pages-articles.xml").write_bytes(xml([("A", text)]))
    lines = "".join(f"sw T{at:03d} {at + 1} 0\n" for at in range(200))
    (tmp_path / "in/pageviews-20240501-000000").write_text(lines)
    build_lists(tmp_path / "in", tmp_path / "out", engine=HERE)
    rows = {row["lang"]: row for row in info(tmp_path / "out")}
    # 10 % of 2,000 words; 40 % as many pairs; 76 % of 200 titles.
    assert (rows["sw"]["unigrams"], rows["sw"]["bigrams"], rows["sw"]["titles"]) == (200, 80, 152)
    assert (ALL.caps.unigrams, ALL.caps.bigrams, ALL.caps.titles) == (251_465, 100_646, 61_235)
    scores = [score for _, source, score in entries(tmp_path / "out", "sw") if source == "b"]
    assert scores == sorted(scores, reverse=True)
    build_lists(tmp_path / "in", tmp_path / "fixed", engine=HERE, selection=Selection(pmi=30.0))
    assert {row["lang"]: row["bigrams"] for row in info(tmp_path / "fixed")} == {"sw": 0}


@pytest.mark.filterwarnings("ignore")  # of the segmenter
@pytest.mark.parametrize(("rule", "lang"), [("release", "zh"), ("corrected", "zh_yue")])
def test_texts_find_the_list_that_their_wikipedia_joined(rule: str, lang: str, tmp_path: Path) -> None:
    dumps, out = sources(tmp_path / "dumps"), tmp_path / "out"
    done = CliRunner().invoke(
        main, ["metadata", "build", "--sources", str(dumps), "--out", str(out), "--rule", rule, "--workers", "0"]
    )
    assert done.exit_code == 0, done.output
    assert ({"zh", "zh_yue"} & set(read_metadata(out).entries)) == {lang}
    pairs = {"id": ["1", "2"], "text": ["佢哋喺香港嘅茶餐廳食緊嘢", "a big dog in the garden with a man"]}
    pq.write_table(pa.table(pairs), tmp_path / "pairs.parquet")
    config = CurationConfig(t_en=1)
    curate([tmp_path / "pairs.parquet"], read_metadata(out), tmp_path / "curated", config, seed=0, engine=HERE)
    (path,) = (tmp_path / "curated").glob("curated-*.parquet")
    assert sorted(read_table(path, ["lang"]).column("lang").to_pylist()) == ["en", lang]


@pytest.mark.filterwarnings("ignore")  # of the segmenters
def test_every_wikipedia_lands_in_its_list(tmp_path: Path) -> None:
    codes = [code for code in LANGUAGES if code != OTHER]
    assert len(codes) == 330
    (tmp_path / "in").mkdir()
    for code in codes:
        text = f"word of{code.replace('_', '')}x here"
        (tmp_path / "in" / f"{code}wiki-1-pages-articles.xml").write_bytes(xml([("A", text)]))
    built = build_lists(tmp_path / "in", tmp_path / "out", engine=HERE, selection=ALL)
    found = {lang: set(column.to_pylist()) for lang, column in built.entries.items()}
    for code in codes:
        mark = f"of{code.replace('_', '')}x"
        assert [lang for lang, words in found.items() if mark in words] == [list_of_wikipedia(code)], code
    assert set(found) == {list_of_wikipedia(code) for code in codes}


def test_a_broken_file_is_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    folder = sources(tmp_path / "dumps")
    broken = folder / "swwiki-20240501-pages-articles3.xml-p3p9.bz2"
    broken.write_bytes(b"x")
    with pytest.raises(ShardsFailed, match="pages-articles3"):
        build_lists(folder, tmp_path / "out", engine=HERE, languages=("sw",), selection=ALL)
    done = list((tmp_path / "out").glob("work/sources/*/done.json"))
    assert len(done) == 6
    told = CliRunner().invoke(main, ["metadata", "build", "--sources", str(folder), "--out", str(tmp_path / "out")])
    assert told.exit_code == 1
    broken.unlink()
    build_lists(folder, tmp_path / "out", engine=HERE, languages=("sw",), selection=ALL)


def test_files_by_their_names(tmp_path: Path) -> None:
    names = {
        "swwiki-20240501-pages-articles.xml.bz2": ("text", "sw"),
        "zh_yuewiki-20240501-cirrussearch-content.json.gz": ("text", "zh_yue"),
        "yowiki-latest-pages-articles-multistream.xml.bz2": ("text", "yo"),
        "hawiki-20240501-pages-articles-multistream1.xml-p1p9.bz2": ("text", "ha"),
        "20231101.zh-min-nan/train-00000-of-00001.parquet": ("text", "zh_min_nan"),
        "be_x_oldwiki_content-20260809-00000.json.bz2": ("text", "be_tarask"),
        "jawiki_content-20260816-00000.json.bz2": ("text", "ja"),
        "jawiki_content-20260816-00001.json.bz2": ("text", "ja"),
        "map_bmswiki-2026-03-01-p10p1147431.xml.bz2": ("text", "map_bms"),
        "pageviews-20240501-000000.gz": ("views", ""),
        "pageviews-20240501-user.bz2": ("views", ""),
        "wn-data-als.tab": ("omw", "sq"),
        "data.noun": ("princeton", "en"),
        "oewn-2024.xml.gz": ("lmf", ""),
    }
    unknown = [
        "notes.txt", "enwikivoyage_content-20260809-00000.json.bz2", "jawiki_general-20260816-00000.json.bz2",
        "jawiktionary-2026-03-01-p1p9.xml.bz2", "pageviews-20240501-automated.bz2", "pageviews-20240501-spider.bz2",
        "yowiki-latest-pages-articles-multistream-index.txt.bz2",
    ]  # fmt: skip
    for name in [*names, *unknown]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found, unread = find_sources(tmp_path)
    assert {str(s.path.relative_to(tmp_path)): (s.kind, s.code) for s in found} == names
    assert sorted(path.name for path in unread) == sorted(unknown)
    (tmp_path / "swwiki-20240501-pages-articles-multistream.xml.bz2").touch()
    with pytest.raises(DataError, match="the text of swwiki 2 times"):
        find_sources(tmp_path)
    (tmp_path / "swwiki-20240501-pages-articles-multistream.xml.bz2").rename(tmp_path / "xxwiki-1-pages-articles.xml")
    with pytest.raises(DataError, match="no Wikipedia 'xx'"):
        find_sources(tmp_path)
    (tmp_path / "xxwiki-1-pages-articles.xml").rename(tmp_path / "jawiki_content-20260823-00000.json.bz2")
    with pytest.raises(DataError, match=r"jawiki 2 times \(content-20260816, in parts; content-20260823, in parts\)"):
        find_sources(tmp_path)


def test_what_cannot_be_built(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no list is called xx"):
        build_lists(tmp_path, tmp_path / "out", engine=HERE, languages=("xx",))
    with pytest.raises(MissingData, match="holds no dump"):
        build_lists(tmp_path, tmp_path / "out", engine=HERE)
    with pytest.raises(MissingData, match=r"own\.txt: not found"):
        build_lists(tmp_path, tmp_path / "out", engine=HERE, concepts=tmp_path / "own.txt")
    told = CliRunner().invoke(main, ["metadata", "build", "--sources", str(tmp_path)])
    assert told.exit_code == 2
    assert "need both --sources and --out" in told.output


def test_the_hub_and_concepts_alone(tmp_path: Path) -> None:
    (tmp_path / "in/20231101.sw").mkdir(parents=True)
    pq.write_table(pa.table({"title": ["A"], "text": ["mbwa paka mbwa"]}), tmp_path / "in/20231101.sw/a.parquet")
    (tmp_path / "birds.yo.txt").write_text("ẹyẹ\n")
    build_lists(tmp_path / "in", tmp_path / "out", engine=HERE, concepts=tmp_path / "birds.yo.txt", selection=ALL)
    assert entries(tmp_path / "out", "yo") == [("ẹyẹ", "c", 1.0)]
    assert entries(tmp_path / "out", "sw")[:2] == [("mbwa", "u", 2.0), ("paka", "u", 1.0)]


@pytest.mark.slow
@pytest.mark.packages
def test_two_gigabytes_in_flat_memory() -> None:
    from bench import metadata

    rows = {name: value for row in metadata.run(check=False) for name, value in row.items()}
    assert rows["input_mb"] >= 2000
    assert rows["peak_ratio_when_input_doubles"] < metadata.FLAT
    assert rows["resumed"] == "the same bytes"
