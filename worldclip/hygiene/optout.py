"""Opt-outs: lists of URLs, domains and content hashes whose images are not used, and what pages say themselves.

A list is a text file, one entry a line, `#` before a comment:

    https://example.com/a.jpg      this image, and every URL that is the same by the WHATWG standard
    example.com                    every image of this host and of hosts below it (img.example.com)
    sha256:9f86d081...             every image of these bytes (64 hex digits, the prefix may be left out)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ada_url
import pyarrow as pa

from worldclip.errors import DataError, MissingData
from worldclip.hygiene.removals import removals

#: Columns of crawls that say that a page does not want its images to be used, see `pairs.crawl`.
SIGNALS = ("noai", "noimageai", "tdm_reserved")

_HASH = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True)
class OptOut:
    """A list that has been read. Hosts are in Punycode, URLs normalised and without fragment."""

    urls: frozenset[str]
    domains: frozenset[str]
    hashes: frozenset[str]

    @staticmethod
    def read(path: Path) -> OptOut:
        """Read a list.

        Raises:
            MissingData: it is not there.
            DataError: a line is none of the three; names it. A wrong line is never passed over: it is somebody's wish.
        """
        try:
            return OptOut.parse(path.read_text("utf-8-sig").splitlines(), str(path))
        except FileNotFoundError:
            raise MissingData(f"{path}: not found.") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is not UTF-8 ({error}).") from None

    @staticmethod
    def parse(lines: Iterable[str], where: str) -> OptOut:
        """See `read`."""
        urls, domains, hashes = set(), set(), set()
        for number, line in enumerate(lines, 1):
            # A fragment says nothing of an image, so a comment may follow an URL.
            entry = line.partition("#")[0].strip()
            if not entry:
                continue
            if found := _HASH.fullmatch(entry.lower()):
                hashes.add(found[1])
            elif "://" in entry and (parsed := _parsed(entry)):
                urls.add(parsed[0])
            elif "/" not in entry and "." in entry and (parsed := _parsed(f"http://{entry.removeprefix('*.')}")):
                domains.add(parsed[1])
            else:
                raise DataError(
                    f"{where}: line {number} is {entry!r}; allowed are an http(s) URL, a domain, or a SHA-256 of 64 "
                    "hex digits."
                )
        return OptOut(urls=frozenset(urls), domains=frozenset(domains), hashes=frozenset(hashes))

    def found_in(self, table: pa.Table, column_of_hash: str = "sha256") -> pa.Table:
        """Removals among rows with `id` and, where there are, `url` and a SHA-256 of the image's bytes (hex)."""
        return removals(self._found(table, column_of_hash))

    def _found(self, table: pa.Table, column_of_hash: str) -> Iterator[tuple[str, str, str]]:
        ids = table.column("id").to_pylist()
        nothing = [None] * len(ids)
        urls = table.column("url").to_pylist() if "url" in table.column_names else nothing
        hashed = table.column(column_of_hash).to_pylist() if column_of_hash in table.column_names else nothing
        for image, url, sha256 in zip(ids, urls, hashed, strict=True):
            if sha256 is not None and sha256.lower() in self.hashes:
                yield image, "opted out by content hash", sha256.lower()
            if url is None or not (self.urls or self.domains) or not (parsed := _parsed(url)):
                continue
            if parsed[0] in self.urls:
                yield image, "opted out by URL", parsed[0]
            if domain := self._domain(parsed[1]):
                yield image, "opted out by domain", domain

    def _domain(self, host: str) -> str | None:
        while host:
            if host in self.domains:
                return host
            host = host.partition(".")[2]
        return None


def signalled(table: pa.Table, columns: Sequence[str] = SIGNALS) -> pa.Table:
    """Removals of images whose page opted out; columns that the table has not are passed over."""
    ids = table.column("id").to_pylist()
    return removals(
        (image, f"opted out by its page ({name})", name)
        for name in columns
        if name in table.column_names
        for image, said in zip(ids, table.column(name).to_pylist(), strict=True)
        if said
    )


def _parsed(url: str) -> tuple[str, str] | None:
    """An http(s) URL by the WHATWG standard without its fragment, and its host; None if it is none."""
    try:
        parsed = ada_url.URL(url)
    except ValueError:
        return None
    host = str(parsed.hostname).rstrip(".")
    return (str(parsed.href).partition("#")[0], host) if parsed.protocol in ("http:", "https:") and host else None
