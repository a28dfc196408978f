"""Fetching dumps politely: one file at a time, resumed where a connection broke, checked by the server's SHA-1 sums.

Everything else works on files; this is the one step of the metadata that uses the network.
"""

from __future__ import annotations

import hashlib
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from worldclip import __version__
from worldclip.errors import ConfigError, DataError, MissingData
from worldclip.languages import ALIASES, LANGUAGES, OTHER

SERVER = "https://dumps.wikimedia.org"
AGENT = f"worldclip/{__version__} (builds concept lists; one connection)"

#: Seconds without an answer; tries of one file; the longest wait that a server may ask for.
PATIENCE, TRIES, LONGEST_WAIT = 60, 5, 300.0

_SUM = re.compile(r"([0-9a-f]{40})\s+\*?(\S+)")
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file on the server and its SHA-1 (hex)."""

    url: str
    name: str
    sha1: str


def articles_of(code: str, server: str = SERVER, date: str = "latest") -> list[Remote]:
    """The article dump of one Wikipedia, by the sums that the server publishes.

    Raises:
        ConfigError: there is no such Wikipedia.
        MissingData: the server has no such dump, or gives no answer.
    """
    if ALIASES.get(code, code) not in LANGUAGES or code == OTHER:
        raise ConfigError(f"--lang {code}: there is no such Wikipedia; codes are as dumps write them, e.g. zh_yue.")
    wiki = "be_x_oldwiki" if code == "be_tarask" else f"{code}wiki"  # this one alone is not named as its site is
    sums = _get(f"{server}/{wiki}/{date}/{wiki}-{date}-sha1sums.txt").decode("utf-8", "replace")
    # The sums of `latest` name the files of the newest date: those are fetched, or a new dump could come in between.
    wanted = re.compile(rf"{re.escape(wiki)}-(\d{{8}})-pages-articles\.xml\.bz2")
    found = [
        Remote(url=f"{server}/{wiki}/{dated[1]}/{row[2]}", name=row[2], sha1=row[1])
        for row in map(_SUM.match, sums.splitlines())
        if row and (dated := wanted.fullmatch(row[2]))
    ]
    if not found:
        raise MissingData(f"{server}/{wiki}/{date}: lists no pages-articles dump; give another date.")
    return found


def download(
    remotes: Sequence[Remote],
    folder: Path,
    progress: Callable[[str, int, int], None] | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Fetch files into `folder`, in order; those that are there are not fetched again.

    A file grows as `<name>.part` and gets its name when its sum is right. `progress(name, bytes, all bytes)`.

    Raises:
        MissingData: a file is not on the server, or the server gave up.
        DataError: a file has another sum; it was removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [_fetch(remote, folder, progress, pause) for remote in remotes]


def _fetch(
    remote: Remote,
    folder: Path,
    progress: Callable[[str, int, int], None] | None,
    pause: Callable[[float], None],
) -> Path:
    path, part = folder / remote.name, folder / f"{remote.name}.part"
    if path.exists():
        return path
    wait = 1.0
    for turn in range(TRIES):
        try:
            _continue(remote, part, progress)
            break
        except urllib.error.HTTPError as error:
            if error.code == 416:  # nothing is left to fetch
                break
            if error.code not in (429, 500, 502, 503, 504) or turn == TRIES - 1:
                raise MissingData(f"{remote.url}: the server answers {error.code} {error.reason}.") from None
            asked = error.headers.get("Retry-After", "")
            wait = min(float(asked), LONGEST_WAIT) if asked.isdecimal() else wait
        except (OSError, HTTPException) as error:
            if turn == TRIES - 1:
                raise MissingData(
                    f"{remote.url}: gave no whole answer in {TRIES} tries ({error}). What came is kept: "
                    "the same command goes on from there."
                ) from None
        pause(wait)
        wait *= 2
    found = _sha1(part)
    if found != remote.sha1:
        part.unlink()
        raise DataError(f"{remote.url}: SHA-1 is {found[:12]}, the server lists {remote.sha1[:12]}; it was removed.")
    part.replace(path)
    return path


def _continue(remote: Remote, part: Path, progress: Callable[[str, int, int], None] | None) -> None:
    have = part.stat().st_size if part.exists() else 0
    with urllib.request.urlopen(_request(remote.url, have), timeout=PATIENCE) as answer:  # noqa: S310 - http(s) only
        if answer.status != 206:  # the whole file, whatever was asked for
            have = 0
        total = have + int(answer.headers.get("Content-Length") or 0)
        with open(part, "ab" if have else "wb") as file:
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                if progress:
                    progress(remote.name, have, max(total, have))
    if have < total:
        raise ConnectionError(f"ended after {have:,} of {total:,} bytes")


def _get(url: str) -> bytes:
    try:
        with urllib.request.urlopen(_request(url, 0), timeout=PATIENCE) as answer:  # noqa: S310 - http(s) only
            content: bytes = answer.read(1 << 24)
    except (OSError, HTTPException) as error:
        raise MissingData(f"{url}: could not be read ({error}); is there a network, and such a dump?") from None
    return content


def _request(url: str, have: int) -> Any:
    if not url.startswith(("https://", "http://")):
        raise ConfigError(f"{url}: a server's address begins with https:// or http://.")
    headers = {"User-Agent": AGENT} | ({"Range": f"bytes={have}-"} if have else {})
    return urllib.request.Request(url, headers=headers)  # noqa: S310 - see above


def _sha1(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()
