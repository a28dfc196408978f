"""Images of crawl archives: a real one against a plain reader, and pages with every trap."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin

import pyarrow as pa
import pytest

from worldclip.pairs.crawl import CRAWL_ROWS, read_archive, signals
from worldclip.pairs.rows import Tally, url_id

PAGE = "https://example.org/news/page.html"


class Plain(HTMLParser):
    """The images of a page, as Python's own parser finds them."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[dict[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append({name: value or "" for name, value in attrs})


def plainly(data: bytes) -> tuple[int, Counter[tuple[str, str]]]:
    """Images, and (URL, alt), of the pages of an archive: headers and lengths read by hand."""
    images, found = 0, Counter[tuple[str, str]]()
    while data:
        head, _, rest = data.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        body, data = rest[: int(fields["Content-Length"])], rest[int(fields["Content-Length"]) :].lstrip(b"\r\n")
        if fields.get("WARC-Type") != "response":
            continue
        http, _, html = body.partition(b"\r\n\r\n")
        lines = http.decode("latin-1").lower().split("\r\n")
        if " 200 " not in lines[0] + " " or not any(each.startswith("content-type: text/html") for each in lines):
            continue
        if any(each.startswith("content-encoding: gzip") for each in lines) and html[:2] == b"\x1f\x8b":
            html = zlib.decompress(html, wbits=47)
        parser = Plain()
        parser.feed(html.decode("utf-8", "replace"))
        images += len(parser.images)
        for image in parser.images:
            if image.get("alt", "").strip():
                url = urldefrag(urljoin(fields["WARC-Target-URI"].strip("<>"), image["src"])).url
                found[url, " ".join(image["alt"].split())] += 1
    return images, found


def read(data: bytes) -> tuple[list[dict[str, Any]], Tally]:
    tally = Tally()
    tables = list(read_archive(io.BytesIO(data), len(data), tally))
    assert all(table.schema == CRAWL_ROWS for table in tables)
    return pa.concat_tables(tables).to_pylist(), tally


@pytest.mark.packages
def test_a_real_crawl(optional_package: Callable[[str], Path]) -> None:
    data = (optional_package("crawl-sample") / "sample_archive/warcs/iana.warc.gz").read_bytes()
    rows, tally = read(data)
    images, expected = plainly(gzip.decompress(data))
    assert (tally.records, images) == (32, 32)
    assert Counter((row["url"], row["text"]) for row in rows if row["kind"] == "alt") == expected
    assert {row["text"] for row in rows} == {"Homepage", "Map of RIRs"}
    assert tally.records == len(rows) + sum(tally.set_aside.values())  # one text an image at most here
    assert all(row["id"] == url_id(row["url"]) for row in rows)


def record(kind: str, content_type: str, body: bytes, uri: str = PAGE) -> bytes:
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Target-URI: {uri}\r\nWARC-Date: 2024-01-01T00:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-000000000001>\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body + b"\r\n\r\n"


def response(html: bytes, *headers: str, status: str = "200 OK", kind: str = "text/html; charset=utf-8") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", *headers]
    return record("response", "application/http; msgtype=response", "\r\n".join(lines).encode() + b"\r\n\r\n" + html)


def texts(data: bytes) -> list[tuple[str, str, str]]:
    return [(row["url"], row["kind"], row["text"]) for row in read(data)[0]]


def test_the_texts_and_urls_of_images() -> None:
    html = """<html><body>
    <img src="a.jpg" alt=" two
       words ">  <img src="/b.jpg#part" title="B" alt=""><img src="//cdn.example.net/c c.png" data-image-title="ü">
    <img src="HTTP://EXAMPLE.org:80/x/../d.jpg" alt="d" title="d too">
    <img src="data:image/gif;base64,R0" data-src="late.jpg" alt="late"><img data-original="later.jpg" alt="later">
    <img src="data:image/gif;base64,R0" alt="inside"><img alt="no source"><img src="e.jpg"><img src="f.jpg" alt="  ">
    <img src="mailto:x" alt="no page"></body></html>"""
    rows, tally = read(response(html.encode()))
    assert [(row["url"], row["kind"], row["text"]) for row in rows] == [
        ("https://example.org/news/a.jpg", "alt", "two words"),
        ("https://example.org/b.jpg", "title", "B"),
        ("https://cdn.example.net/c%20c.png", "data-image-title", "ü"),
        ("http://example.org/d.jpg", "alt", "d"),
        ("http://example.org/d.jpg", "title", "d too"),
        ("https://example.org/news/late.jpg", "alt", "late"),
        ("https://example.org/news/later.jpg", "alt", "later"),
    ]
    assert tally.records == 11
    assert dict(tally.set_aside) == {
        "record: image inside the page (data: URL)": 1,
        "record: image without a URL": 1,
        "record: image without text": 2,
        "record: URL that cannot be resolved to http or https": 1,
    }
    assert {row["page"] for row in rows} == {PAGE}


@pytest.mark.parametrize(
    ("base", "url"),
    [("/other/", "https://example.org/other/a.jpg"), ("https://x.org/y/z.html", "https://x.org/y/a.jpg"),
     ("", "https://example.org/news/a.jpg")],
)  # fmt: skip
def test_a_page_may_name_its_base(base: str, url: str) -> None:
    html = f'<head><base href="{base}"></head><img src="a.jpg" alt="a">'
    assert texts(response(html.encode())) == [(url, "alt", "a")]


def test_only_pages_that_were_found() -> None:
    html = b'<img src="a.jpg" alt="a">'
    data = (
        response(html, status="404 Not Found")
        + response(html, kind="application/json")
        + response(html, kind="text/html")
    )
    data += record("request", "application/http; msgtype=request", b"GET / HTTP/1.1\r\n\r\n")
    data += response(html, kind="application/xhtml+xml")
    assert len(texts(data)) == 2


def test_encodings_of_text_and_transfer() -> None:
    page = '<img src="a.jpg" alt="Zoë 日本">'.encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (page[:7], page[7:])) + b"0\r\n\r\n"
    cases = [
        response(page),
        response(chunks, "Transfer-Encoding: chunked"),
        response(page, "Transfer-Encoding: chunked"),  # undone already by the crawler
        response(gzip.compress(page), "Content-Encoding: gzip"),
        response(page, "Content-Encoding: gzip"),
        response(zlib.compress(page), "Content-Encoding: deflate"),
    ]
    for case in cases:
        assert texts(case) == [("https://example.org/news/a.jpg", "alt", "Zoë 日本")]
    latin = response('<img src="a.jpg" alt="Zoë">'.encode("latin-1"), kind="text/html; charset=iso-8859-1")
    assert texts(latin)[0][2] == "Zoë"
    _, tally = read(response(b"\x00\x01\x02", "Content-Encoding: br"))
    assert dict(tally.set_aside) == {"page: content encoding cannot be undone": 1}


def test_signals_of_pages_and_headers() -> None:
    html = b"""<meta name="robots" content="noindex, NoAI"><meta name="tdm-policy" content="https://example.org/tdm">
    <img src="a.jpg" alt="a">"""
    (row,), _ = read(response(html, "X-Robots-Tag: otherbot: noimageai", "tdm-reservation: 1"))
    names = ("robots", "noai", "noimageai", "tdm_reserved", "tdm_policy")
    assert [row[name] for name in names] == ["noai,noimageai,noindex", True, True, True, "https://example.org/tdm"]
    assert signals([], []) == {
        "robots": None,
        "noai": False,
        "noimageai": False,
        "tdm_reserved": False,
        "tdm_policy": None,
    }
    assert signals([("x-robots-tag", "unavailable_after: 2030")], [])["robots"] == "unavailable_after: 2030"


def wat(links: list[dict[str, str]], **more: Any) -> bytes:
    html = {"Links": links, "Head": more.get("head", {})}
    message = {
        "Response-Message": {"Status": more.get("status", "200")},
        "HTML-Metadata": html,
        "Headers": more.get("headers", {}),
    }
    envelope = {
        "WARC-Header-Metadata": {"WARC-Target-URI": PAGE},
        "Payload-Metadata": {"HTTP-Response-Metadata": message},
    }
    return record("metadata", "application/json", json.dumps({"Envelope": envelope}).encode())


def test_wat_records_give_what_their_pages_give() -> None:
    links = [
        {"path": "IMG@/src", "url": "a.jpg", "alt": "A", "title": "T"},
        {"path": "A@/href", "url": "b.html", "text": "no image"},
        {"path": "IMG@/src", "url": "c.jpg"},
    ]
    head = {"Base": "/img/", "Metas": [{"name": "robots", "content": "noai"}]}
    rows, tally = read(wat(links, head=head, headers={"X-Robots-Tag": ["noindex", "noimageai"]}))
    assert [(row["url"], row["kind"], row["text"]) for row in rows] == [
        ("https://example.org/img/a.jpg", "alt", "A"),
        ("https://example.org/img/a.jpg", "title", "T"),
    ]
    assert rows[0]["robots"] == "noai,noimageai,noindex"
    assert (tally.records, dict(tally.set_aside)) == (2, {"record: image without text": 1})
    assert read(wat(links, status="404"))[0] == []
    broken = record("metadata", "application/json", b'{"Envelope": 7}')
    assert dict(read(broken)[1].set_aside) == {"page: WAT record is not as it should be": 1}


@pytest.mark.parametrize("form", ["plain", "gzip"])
@pytest.mark.parametrize("share", [0.6, 0.62, 0.63, 0.64, 0.66])
def test_an_archive_that_is_cut_short_is_read_as_far_as_it_goes(form: str, share: float) -> None:
    pages = [response(b'<img src="%d.jpg" alt="number %d">' % (each, each)) for each in range(50)]
    data = b"".join(gzip.compress(page) if form == "gzip" else page for page in pages)
    whole, tally = read(data)
    assert (len(whole), dict(tally.set_aside)) == (50, {})
    part, tally = read(data[: int(len(data) * share)])
    assert 27 <= len(part) <= 34
    assert [row["url"] for row in part] == [row["url"] for row in whole[: len(part)]]
    assert any(reason.startswith("file:") for reason in tally.set_aside)


def test_pages_and_texts_that_are_too_long() -> None:
    long = b'<img src="a.jpg" alt="' + b"x" * 70_000 + b'"><img src="b.jpg" alt="b">'
    rows, tally = read(response(long))
    assert ([row["text"] for row in rows], dict(tally.set_aside)) == (["b"], {"text: longer than 64 KiB": 1})
    _, tally = read(response(b"<img src=a.jpg alt=a>" + b" " * (16 * 2**20)))
    assert dict(tally.set_aside) == {"page: longer than 16 MiB": 1}
