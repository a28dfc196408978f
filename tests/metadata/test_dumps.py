"""Lists from dumps: readers on real and broken files, exact counts, the same bytes whatever happens."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import ClassVar
from xml.sax.saxutils import escape

import nltk.collocations
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worldclip.engines.local import LocalEngine
from worldclip.errors import DataError, MissingData, ShardsFailed
from worldclip.languages import LANGUAGES, OTHER, list_of_wikipedia
from worldclip.lists import build_lists, compare, info
from worldclip.metadata.build import Selection
from worldclip.metadata.concepts import own_concepts
from worldclip.metadata.download import Remote, articles_of, download
from worldclip.metadata.ngrams import PAIR, Limits, count_ngrams, pmi, read_counts, tokens, top_pairs, top_words
from worldclip.metadata.segment import segmenter
from worldclip.metadata.titles import views, wikipedia_of
from worldclip.metadata.wikipedia import articles, plain_text
from worldclip.metadata.wordnet import lmf_lemmas, omw_lemmas

HERE = LocalEngine(workers=0, tries=1)
ALL = Selection(word_share=1.0, title_share=1.0, least_count=1)


def xml(pages: list[tuple[str, str]], extra: str = "", head: str = "") -> bytes:
    body = "".join(
        f"<page><title>{escape(title)}</title><ns>0</ns><revision><text>{escape(text)}</text></revision></page>"
        for title, text in pages
    )
    return f"{head}<mediawiki>{extra}{body}</mediawiki>".encode()


def read(path: Path) -> tuple[list[tuple[str, str]], Counter[str]]:
    set_aside: Counter[str] = Counter()
    return list(articles(path, set_aside)), set_aside


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("'''Dog''' is a [[mammal|furry mammal]].", "Dog is a furry mammal."),
        ("a {{cite|x={{y}}}} b<ref name=z>no</ref><ref name=z/> c", "a b c"),
        ("one\n{| class=x\n|-\n| cell\n|}\ntwo", "one\ntwo"),
        ("[[File:A.jpg|thumb|a [[link]] in it]]x [[Category:C]] [[de:Hund]] [[:Category:D]]", "x Category:D"),
        ("Tom &amp; Jerry &#945;&nbsp;b [http://x.org site] <b>bold</b> <!-- no -->", "Tom & Jerry α b site bold"),
        ("== Head ==\n* item\n<math>x^2</math>__TOC__", "Head\nitem"),
    ],
)
def test_wikitext(wikitext: str, text: str) -> None:
    assert " ".join(plain_text(wikitext).replace("\n*", "\n").split()) == " ".join(text.split())


def test_forms_of_a_dump_give_the_same_articles(tmp_path: Path) -> None:
    pages = [("Mbwa", "Mbwa ni mnyama."), ("Paka", "Paka pia.")]
    raw = xml(pages, "<page><title>R</title><ns>0</ns><redirect title='x'/><text>y</text></page>"
                     "<page><title>T:R</title><ns>1</ns><text>y</text></page>")  # fmt: skip
    half = len(raw) // 2
    for name, content in (
        ("a.xml", raw),
        ("a.xml.gz", gzip.compress(raw)),
        ("a.xml.bz2", bz2.compress(raw[:half]) + bz2.compress(raw[half:])),
        ("b.xml", raw.decode().encode("utf-16")),
    ):
        (tmp_path / name).write_bytes(content)
        found, set_aside = read(tmp_path / name)
        assert found == pages
        assert set_aside == {"article: redirect": 1, "article: other namespace": 1}
    lines = [
        json.dumps(x) for title, text in pages for x in ({"index": {}}, {"namespace": 0, "title": title, "text": text})
    ]
    (tmp_path / "a.json.gz").write_bytes(gzip.compress("\n".join([*lines, "{", '{"title":"x"}']).encode()))
    assert read(tmp_path / "a.json.gz")[0] == pages
    assert sum(read(tmp_path / "a.json.gz")[1].values()) == 2
    pq.write_table(pa.table({"title": ["Mbwa", "Paka", None], "text": ["Mbwa ni mnyama.", "Paka pia.", "x"]}),
                   tmp_path / "a.parquet")  # fmt: skip
    assert read(tmp_path / "a.parquet") == (pages, {"article: null or too long": 1})


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xml", xml([("A", "x")])[:-30], "no well-formed"),
        ("a.xml", b"<mediawiki><page>\xff\xfe</page></mediawiki>", "no well-formed"),
        ("a.xml", xml([("A", "&b;")], head=BOMB), "document type"),
        ("a.xml", b"<html></html>", "its root is <html>"),
        ("a.xml.bz2", bz2.compress(xml([("A", "x " * 9999)]))[:-20], "cut short"),
        ("a.xml.gz", gzip.compress(xml([("A", "x")]))[:-9], "cut short"),
        ("a.xml.bz2", b"no bz2", "damaged"),
        ("a.parquet", b"no parquet", "Parquet"),
        ("a.json", b"{\nx\n", "no page"),
    ],
)
def test_broken_dumps_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as told:
        read(tmp_path / name)
    assert name in str(told.value)


def test_counts_are_exact_whatever_the_memory(tmp_path: Path) -> None:
    rng = random.Random(7)
    words = ["dog", "Dog", "猫", "café", ".", ",", "x\U0001f600", "naïve", "zz", "«"]
    texts = [" ".join(rng.choices(words, k=rng.randrange(60))) for _ in range(300)]
    unigrams: Counter[str] = Counter()
    bigrams: Counter[str] = Counter()
    marks = {".", ",", "«"}
    for text in texts:
        split = text.split()
        unigrams.update(word for word in split if word not in marks)
        bigrams.update(f"{a}{PAIR}{b}" for a, b in pairwise(split) if not {a, b} & marks)
    for name, limits in (("large", Limits()), ("small", Limits(words=3, pairs=50))):
        total = count_ngrams(texts, tokens, tmp_path / name, limits)
        assert total == unigrams.total()
        for kind, counts in (("words", unigrams), ("pairs", bigrams)):
            assert list(read_counts(tmp_path / name / f"{kind}.parquet")) == sorted(counts.items())
    assert (tmp_path / "large/pairs.parquet").read_bytes() == (tmp_path / "small/pairs.parquet").read_bytes()
    assert {path.name for path in (tmp_path / "small").iterdir()} == {"words.parquet", "pairs.parquet"}


def test_pmi_is_that_of_nltk(tmp_path: Path) -> None:
    rng = random.Random(3)
    documents = [[f"w{int(rng.paretovariate(0.7)) % 50}" for _ in range(40)] for _ in range(50)]
    finder = nltk.collocations.BigramCollocationFinder.from_documents(documents)
    theirs = {f"{a} {b}": score for (a, b), score in finder.score_ngrams(nltk.collocations.BigramAssocMeasures.pmi)}
    total = count_ngrams(map(" ".join, documents), tokens, tmp_path)
    words = dict(read_counts(tmp_path / "words.parquet"))
    ours = dict(top_pairs(read_counts(tmp_path / "pairs.parquet"), words, total, least_count=1, threshold=None,
                          cap=10**6, joint=" "))  # fmt: skip
    assert ours.keys() == theirs.keys()
    assert all(abs(ours[pair] - theirs[pair]) < 1e-9 for pair in ours)
    assert pmi(1, 1, 1, 2**29) == 29  # so 30 bits admit nothing below 2^30 tokens


def test_the_top_is_that_of_a_full_sort() -> None:
    counts = [(f"w{at:03d}", at * 37 % 101) for at in range(200)]
    full = sorted(counts, key=lambda each: (-each[1], each[0]))
    for share, cap, length in ((0.1, 1000, 20), (1.0, 7, 7), (0.101, 1000, 21)):
        assert top_words(iter(counts), share, cap) == full[:length]


@pytest.mark.packages
def test_real_dumps_beside_naive_counts(tmp_path: Path) -> None:
    from worldclip.packages import Cache, cache_folder

    cache = Cache(cache_folder())
    if "wikipedia-samples" not in cache.present():
        pytest.skip("the shortened dumps are not in the cache")
    folder = cache.path("wikipedia-samples") / "gensim/test/test_data"
    found, _ = read(folder / "bgwiki-latest-pages-articles-shortened.xml.bz2")
    assert len(found) == 1
    assert found[0][1].startswith("Григорианският календар")
    found, _ = read(folder / "enwiki-table-markup.xml.bz2")
    assert len(found) == 5
    texts = [text for _, text in found]
    assert not any(mark in text for text in texts for mark in ("{{", "[[", "{|", "<ref"))
    total = count_ngrams(texts, tokens, tmp_path, Limits(words=500, pairs=2000))
    naive = Counter(word for text in texts for word in tokens(text) if any(c.isalnum() for c in word))
    counted = dict(read_counts(tmp_path / "words.parquet"))
    assert {word: count for word, count in counted.items() if any(c.isalnum() for c in word)} == naive
    assert total == sum(counted.values())


def test_page_views(tmp_path: Path) -> None:
    path = tmp_path / "pageviews-20240501-000000.gz"
    lines = [
        b"en Dog 3 0", b"en.m Dog 2 0", b"en.b Dog 9 0", b"zh-yue \xe9\xa6\x99\xe6\xb8\xaf 4 0", b"en A:B 1 0",
        b"en Zero 0 0", b"junk", b"\xff\xfe x 1 0", b"en x -1 0", b"en " + b"y" * 20000 + b" 1 0",
        b"sw.wikipedia Mbwa 12 mobile-web 7 A7", b"sw.wikipedia Mbwa null desktop 1 B1", b"commons.m F 5 0",
        b"sw.wikipedia Paka desktop 2 C2", b"en 1e999 9999999999999999999 0", b"",
    ]  # fmt: skip
    path.write_bytes(gzip.compress(b"\n".join(lines)))
    set_aside: Counter[str] = Counter()
    assert list(views(path, set_aside)) == [
        ("en", "Dog", 3), ("en", "Dog", 2), ("zh_yue", "香港", 4), ("sw", "Mbwa", 7), ("sw", "Mbwa", 1),
        ("sw", "Paka", 2),
    ]  # fmt: skip
    assert set_aside == {"t: malformed line": 5, "t: other project": 2, "t: title with a colon": 1, "t: no views": 1}
    assert (wikipedia_of("yue"), wikipedia_of("be-x-old.m"), wikipedia_of("other")) == ("zh_yue", "be_tarask", None)


def test_wordnets(tmp_path: Path) -> None:
    set_aside: Counter[str] = Counter()
    (tmp_path / "a.tab").write_text("# name\n1-n\tfin:lemma\tkoira\n2-n\tlemma\tkoira\n1-n\tfin:def\t0\tx\nbad\n")
    assert dict(omw_lemmas(tmp_path / "a.tab", set_aside)) == {"koira": 2}
    entry = '<LexicalEntry id="a"><Lemma writtenForm="{}" partOfSpeech="n"/><Sense/><Sense/></LexicalEntry>'
    lexicons = "".join(f'<Lexicon language="{tag}">{entry.format(word)}</Lexicon>' for tag, word in
                       (("als", "qen"), ("nb", "hund"), ("xx", "")))  # fmt: skip
    doctype = '<!DOCTYPE LexicalResource SYSTEM "http://globalwordnet.github.io/schemas/WN-LMF-1.1.dtd">'
    (tmp_path / "a.xml").write_text(f"{doctype}<LexicalResource>{lexicons}</LexicalResource>")
    assert list(lmf_lemmas(tmp_path / "a.xml", set_aside)) == [("sq", "qen", 2), ("no", "hund", 2)]
    assert set_aside == {"w: malformed row": 2}
    (tmp_path / "a.xml").write_text(f"{BOMB.replace(' x ', ' LexicalResource ')}<LexicalResource/>")
    with pytest.raises(DataError, match="declares an entity"):
        list(lmf_lemmas(tmp_path / "a.xml", set_aside))


def test_own_concepts(tmp_path: Path) -> None:
    set_aside: Counter[str] = Counter()
    (tmp_path / "birds.sw.txt").write_text("tai\nen\teagle\nxx\ty\n")
    (tmp_path / "a.csv").write_text("lang,entry,score\nsw,tai,2\nen,eagle,x\n")
    pq.write_table(pa.table({"lang": ["sw"], "entry": ["tai"]}), tmp_path / "a.parquet")
    assert list(own_concepts(tmp_path / "birds.sw.txt", set_aside)) == [("sw", "tai", 1), ("en", "eagle", 1)]
    assert list(own_concepts(tmp_path / "a.csv", set_aside)) == [("sw", "tai", 2)]
    assert list(own_concepts(tmp_path / "a.parquet", set_aside)) == [("sw", "tai", 1)]
    assert set_aside == {"c: unknown list": 1, "c: malformed row": 1}
    (tmp_path / "a.csv").write_text("word\nx\n")
    with pytest.raises(DataError, match="needs columns lang and entry"):
        list(own_concepts(tmp_path / "a.csv", set_aside))


GOLD = {
    "ja": ("東京で寿司を食べました", "東京 で 寿司 を 食べ まし た"),
    "zh": ("我来到北京清华大学", "我 来到 北京 清华大学"),
    "zh_yue": ("我来到北京", "我 来到 北京"),
    "th": ("ฉันอยากไปโรงเรียน", "ฉัน อยาก ไป โรงเรียน"),
    "lo": ("ຂ້ອຍຢາກໄປໂຮງຮຽນ", "ຂ້ອຍ ຢາກ ໄປ ໂຮງຮຽນ"),
    "km": ("ខ្ញុំចង់ទៅសាលារៀន", "ខ្ញុំ ចង់ ទៅ សាលារៀន"),
    "my": ("ကျွန်တော်ကျောင်းသွားချင်တယ်", "ကျွန်တော် ကျောင်း သွား ချင်တယ်"),
    "bo": ("ང་སློབ་གྲྭར།", "ང སློབ གྲྭར"),
}


@pytest.mark.filterwarnings("ignore")  # of the segmenters themselves
@pytest.mark.parametrize("code", GOLD)
def test_segmenters(code: str) -> None:
    text, words = GOLD[code]
    segment = segmenter(code)
    assert segment
    assert segment(text) == words.split()


def test_a_missing_segmenter_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "khmercut", None)
    with pytest.raises(MissingData, match=r"worldclip\[segment\]"):
        segmenter("km")
    assert segmenter("sw") is None


def sources(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for code, word in (("sw", "mbwa mkubwa"), ("en", "big dog"), ("simple", "small dog"), ("zh_yue", "香港")):
        for part in (1, 2):
            pages = [(f"T{at}", f"{word} {at} {word} part{part}.") for at in range(20)]
            (folder / f"{code}wiki-20240501-pages-articles{part}.xml.bz2").write_bytes(bz2.compress(xml(pages)))
    (folder / "pageviews-20240501-000000.gz").write_bytes(gzip.compress(b"sw Nairobi 4 0\nen.m New_York 2 0\n"))
    (folder / "wn-data-fin.tab").write_text("1-n\tfin:lemma\tkoira\n")
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.parquet")} | {
        "manifest": hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    }


SCRIPT = """
import sys
from pathlib import Path
from worldclip.engines.local import LocalEngine
from worldclip.lists import build_lists
from worldclip.metadata.build import Selection
if __name__ == "__main__":
    build_lists(Path(sys.argv[1]), Path(sys.argv[2]), engine=LocalEngine(workers=int(sys.argv[3])),
                selection=Selection(word_share=1.0, title_share=1.0, least_count=1))
"""


def start(script: Path, *arguments: object, seed: str = "1") -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, script, *map(str, arguments)], env={**os.environ, "PYTHONHASHSEED": seed},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
def test_the_same_bytes_for_any_workers_hash_seed_and_kill(tmp_path: Path) -> None:
    from_dumps = sources(tmp_path / "dumps")
    build_lists(from_dumps, tmp_path / "here", engine=HERE, selection=ALL)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    assert start(script, from_dumps, tmp_path / "pool", 2, seed="2").wait() == 0
    killed = tmp_path / "killed"
    process = start(script, from_dumps, killed, 1)
    deadline = time.monotonic() + 60
    while len(list(killed.glob("work/text/*/done.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "manifest.json").exists()
    done = {path: path.stat().st_mtime_ns for path in killed.glob("work/text/*/done.json")}
    assert done
    build_lists(from_dumps, killed, engine=HERE, selection=ALL)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert hashes(tmp_path / "here") == hashes(tmp_path / "pool") == hashes(killed)
    rows = {row["lang"]: row for row in info(killed)}
    assert set(rows) == {"en", "fi", "sw", "zh_yue"}
    assert rows["en"]["titles"] == rows["sw"]["titles"] == rows["fi"]["wordnet"] == 1
    assert all(row["same"] for row in compare(killed, tmp_path / "pool"))
    build_lists(from_dumps, killed, engine=HERE, languages=("sw",), selection=ALL)
    assert {row["lang"]: row["removed"] > 0 for row in compare(tmp_path / "here", killed)} == {
        "en": True, "fi": True, "sw": False, "zh_yue": True,
    }  # fmt: skip


def test_every_wikipedia_lands_in_its_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldclip.metadata.build.segmenter", lambda _: None)  # their own test is above
    codes = [code for code in LANGUAGES if code != OTHER]
    marks = {code: f"of{code.replace('_', '')}" for code in codes}
    for code in codes:
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{code}wiki-1-pages-articles.xml").write_bytes(xml([("A", f"word {marks[code]} here")]))
    built = build_lists(tmp_path / "in", tmp_path / "out", engine=HERE, selection=ALL)
    entries = {lang: set(column.to_pylist()) for lang, column in built.entries.items()}
    for code in codes:
        assert [lang for lang, words in entries.items() if marks[code] in words] == [list_of_wikipedia(code)]


def test_a_broken_file_is_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    folder = sources(tmp_path / "dumps")
    (folder / "swwiki-20240501-pages-articles3.xml.bz2").write_bytes(b"x")
    with pytest.raises(ShardsFailed, match="pages-articles3"):
        build_lists(folder, tmp_path / "out", engine=HERE, languages=("sw",), selection=ALL)
    (folder / "swwiki-20240501-pages-articles3.xml.bz2").unlink()
    build_lists(folder, tmp_path / "out", engine=HERE, languages=("sw",), selection=ALL)


CONTENT = bytes(range(256)) * 2000


class Dumps(BaseHTTPRequestHandler):
    asked: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        ranged = self.headers.get("Range", "")
        self.asked.append((self.path, ranged))
        if self.path.endswith("sha1sums.txt"):
            name = "swwiki-20240501-pages-articles.xml.bz2"
            self._answer(200, f"{hashlib.sha1(CONTENT).hexdigest()}  {name}\n{'0' * 40}  swwiki-other.gz\n".encode())
        elif len(self.asked) == 2:
            self.send_response(503)
            self.send_header("Retry-After", "7")
            self.end_headers()
        elif not ranged:  # breaks off
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:1000])
            self.close_connection = True
        else:
            self._answer(206, CONTENT[int(ranged.removeprefix("bytes=").rstrip("-")) :])

    def _answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    Dumps.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Dumps) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_download_waits_resumes_and_checks(server: str, tmp_path: Path) -> None:
    waited: list[float] = []
    remotes = articles_of("sw", server)
    assert [remote.name for remote in remotes] == ["swwiki-20240501-pages-articles.xml.bz2"]
    (path,) = download(remotes, tmp_path, pause=waited.append)
    assert path.read_bytes() == CONTENT
    assert waited[0] == 7.0
    assert Dumps.asked[-1][1] == "bytes=1000-"
    before = len(Dumps.asked)
    download(remotes, tmp_path)
    assert len(Dumps.asked) == before
    wrong = Remote(url=remotes[0].url, name="b", sha1="0" * 40)
    with pytest.raises(DataError, match="SHA-1"):
        download([wrong], tmp_path, pause=waited.append)
    assert {each.name for each in tmp_path.iterdir()} == {path.name}


@pytest.mark.slow
@pytest.mark.packages
def test_two_gigabytes_in_flat_memory() -> None:
    from bench import metadata

    rows = list(metadata.run(check=False))
    assert rows[1]["input_mb"] >= 2000
    assert rows[2]["peak_ratio_when_input_doubles"] < 1.2
    assert rows[3]["resumed"] == "the same bytes"
