"""Page views of Wikipedia's articles, from the hourly and the daily files of all projects.

An hourly `pageviews-*.gz` line is `en.m Title 12 0` (project, title, views, bytes); a daily `pageview_complete` or
`-user` line is `en.wikipedia Title 736 mobile-web 12 A5C7` (project, title, page id, access, views, by hour), where the
page id may be `null` or missing. Which of the two a line is shows in its fields, so one reader takes both. Mobile and
desktop views of a language are added up. Lines of other projects, of other namespaces (titles with a colon), without
views, and malformed ones are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from worldclip.languages import ALIASES, LANGUAGES, OTHER
from worldclip.metadata.counts import COUNTED, merge_runs, write_blocks
from worldclip.metadata.reading import lines

#: Longer lines are no page views: MediaWiki's titles have at most 255 bytes, percent-coded three times as many.
LONGEST_LINE = 8192

_ACCESS = frozenset({"desktop", "mobile-web", "mobile-app", "web", "app"})
_ENDINGS = ("", "m", "zero", "wikipedia", "m.wikipedia")


def wikipedia_of(project: str) -> str | None:
    """The Wikipedia (dump code) of a project code of the page views, mobile or not; None for other projects.

    `en`, `en.m`, `en.zero`, `en.wikipedia`, `zh-yue` and `yue` are Wikipedias; `en.b`, `en.m.d`, `commons.m` are not.
    """
    site, _, ending = project.partition(".")
    code = site.replace("-", "_")
    code = ALIASES.get(code, code)
    return code if ending in _ENDINGS and code in LANGUAGES and code != OTHER else None


def views(path: Path, set_aside: Counter[str]) -> Iterator[tuple[str, str, int]]:
    """(Wikipedia, title, views) of each line that counts, titles with their `_`.

    Raises:
        MissingData: the file is not there.
        DataError: it is cut short or damaged.
    """
    for line in lines(path, LONGEST_LINE):
        if line is None:
            set_aside["t: malformed line"] += 1
        else:
            yield from _row(line, set_aside)


def _row(line: bytes, set_aside: Counter[str]) -> Iterator[tuple[str, str, int]]:
    try:
        fields = line.decode().rstrip("\r\n").split(" ")
    except UnicodeDecodeError:
        set_aside["t: malformed line"] += 1
        return
    if len(fields) == 4 and fields[3] not in _ACCESS:
        number = fields[2]
    elif len(fields) in (5, 6) and (fields[3] in _ACCESS or fields[2] in _ACCESS):
        number = fields[4] if fields[3] in _ACCESS else fields[3]
    else:
        number = ""
    if not (number.isascii() and number.isdecimal() and len(number) < 16 and fields[1]):
        set_aside["t: malformed line"] += 1
        return
    code = wikipedia_of(fields[0])
    if code is None:
        set_aside["t: other project"] += 1
    elif ":" in fields[1]:
        set_aside["t: title with a colon"] += 1
    elif fields[1] == "-":
        set_aside["t: no title"] += 1
    elif int(number) == 0:
        set_aside["t: no views"] += 1
    else:
        yield code, fields[1], int(number)


def count_views(rows: Iterable[tuple[str, str, int]], folder: Path, most: int = 1_000_000) -> list[str]:
    """Add up views into `<Wikipedia>.parquet` (`counts.py`) below `folder`; return the Wikipedias that have any.

    At most `most` titles are in memory, some 150 bytes each.
    """
    counts: dict[str, Counter[str]] = {}
    held = 0
    runs: dict[str, list[Path]] = {}

    def spill() -> None:
        for code, titles in counts.items():
            run = folder / f"{code}.run-{len(runs.setdefault(code, [])):05d}"
            write_blocks(run, [pa.table([list(titles), list(titles.values())], schema=COUNTED).sort_by("key")])
            runs[code].append(run)
        counts.clear()

    for code, title, number in rows:
        titles = counts.setdefault(code, Counter())
        before = len(titles)
        titles[title] += number
        held += len(titles) - before
        if held >= most:
            spill()
            held = 0
    spill()
    for code, written in runs.items():
        merge_runs(written, folder / f"{code}.parquet")
    return sorted(runs)
