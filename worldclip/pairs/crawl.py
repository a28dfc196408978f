"""Images with texts from crawl archives: WARC (whole pages) and WAT (their links, as Common Crawl gives them).

Of each `img` of each page that was found (status 200, HTML): its URL, resolved against the page or its `<base>`, and
its `alt`, `title` and `data-image-title`. Where `src` is missing or a `data:` placeholder, as on pages that load images
late, `data-src` stands in.

What a page or its server says of its use goes along as columns, nothing is removed for it here:

    page           URL of the page
    robots         directives of `<meta name="robots">` and the X-Robots-Tag header, lower case, sorted, joined by ","
    noai           whether `noai` is among them, for whatever robot
    noimageai      the same for `noimageai`
    tdm_reserved   whether `tdm-reservation: 1` is a header or meta (W3C TDM Reservation Protocol)
    tdm_policy     the URL that `tdm-policy` gives
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any

import pyarrow as pa
from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType
from resiliparse.parse.encoding import detect_encoding
from resiliparse.parse.html import HTMLTree

from worldclip.pairs.rows import KINDS, ROWS, Rows, Tally, normalised, url_id

#: Rows of a crawl archive.
CRAWL_ROWS = pa.schema(
    [
        *ROWS,
        pa.field("page", pa.string()),
        pa.field("robots", pa.string()),
        pa.field("noai", pa.bool_()),
        pa.field("noimageai", pa.bool_()),
        pa.field("tdm_reserved", pa.bool_()),
        pa.field("tdm_policy", pa.string()),
    ]
)

#: Longer pages, and longer WAT records, are set aside (bytes).
LONGEST_PAGE = 16 * 2**20

#: Where pages that load images late keep the image's URL.
LATE = ("data-src", "data-original", "data-lazy-src")

#: Directives of X-Robots-Tag that have a colon of their own; before any other colon stands a robot's name.
_WITH_VALUE = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")

_HTML = ("text/html", "application/xhtml+xml")


def read_archive(file: IO[bytes], size: int, tally: Tally) -> Iterator[pa.Table]:
    """Rows (`CRAWL_ROWS`) of a WARC or WAT file, plain or compressed (gzip, zstd, LZ4).

    What is cut short or damaged is read as far as it goes, and counted; that zstd or LZ4 is cut between two of its
    frames cannot be seen.

    Args:
        file: can seek.
        size: its length in bytes.
        tally: is given every `img` as a record.
    """
    rows, begun = Rows(CRAWL_ROWS), 0
    end = 0  # where the last record should end, in an archive that is not compressed
    kinds = WarcRecordType.response | WarcRecordType.metadata | WarcRecordType.resource
    try:
        for record in ArchiveIterator(file, parse_http=True, record_types=WarcRecordType.any_type):
            begun, end = record.stream_pos, record.stream_pos + record.content_length
            if not record.record_type & kinds:
                continue
            for image in _images(record, tally):
                _add(rows, image, tally)
            if rows.full():
                yield rows.take()
    except (OSError, ValueError, EOFError) as error:
        tally.set_aside[f"file: damaged, the rest is lost ({_first_line(error)})"] += 1
    else:
        if size and (_gzip_is_cut(file, begun) or _plain_is_cut(file, size, end)):
            tally.set_aside["file: cut short, the rest is lost"] += 1
    yield rows.take()


def _first_line(error: Exception) -> str:
    return f"{error}".partition("\n")[0][:100]


def _is_gzip(file: IO[bytes]) -> bool:
    file.seek(0)
    return file.read(2) == b"\x1f\x8b"


def _plain_is_cut(file: IO[bytes], size: int, end: int) -> bool:
    """Whether an archive that is not compressed ends within a record: two line ends must follow the last one."""
    file.seek(0)
    if file.read(5) != b"WARC/":
        return False
    file.seek(size - 4)
    return end > size or file.read(4) != b"\r\n\r\n"


def _gzip_is_cut(file: IO[bytes], begun: int) -> bool:
    """Whether a gzip file ends within a member. fastwarc takes the end of the file for the end of the archive.

    Args:
        begun: where a member begins, the last one known: only what follows is read.
    """
    if not _is_gzip(file):
        return False
    file.seek(begun)
    member = zlib.decompressobj(wbits=31)
    whole = True
    while data := file.read(2**20):
        while data:
            try:
                member.decompress(data, 2**20)
                while member.unconsumed_tail:
                    member.decompress(member.unconsumed_tail, 2**20)
            except zlib.error:
                return True
            data, whole = member.unused_data, member.eof
            if member.eof:
                member = zlib.decompressobj(wbits=31)
    return not whole


#: An image as a page shows it: attributes, its page, and what the page says of its use.
_Image = tuple[Mapping[str, str], str, str, Mapping[str, Any]]


def _images(record: WarcRecord, tally: Tally) -> Iterable[_Image]:  # noqa: PLR0911 - one a reason
    """The images of a record, if it is a page or the WAT record of one."""
    page = str(record.headers.get("WARC-Target-URI") or "").strip("<>")
    if record.record_type == WarcRecordType.metadata:
        if "json" not in str(record.headers.get("Content-Type") or ""):
            return ()
        body = record.reader.read(LONGEST_PAGE + 1)
        if len(body) > LONGEST_PAGE:
            tally.set_aside["page: longer than 16 MiB"] += 1
            return ()
        try:
            return _of_wat(json.loads(body), page)
        except (ValueError, AttributeError, TypeError, KeyError):
            tally.set_aside["page: WAT record is not as it should be"] += 1
            return ()
    http = record.http_headers
    if http is None or http.status_code != 200 or str(record.http_content_type or "").lower() not in _HTML:
        return ()
    body = record.reader.read(LONGEST_PAGE + 1)
    if len(body) > LONGEST_PAGE:
        tally.set_aside["page: longer than 16 MiB"] += 1
        return ()
    headers = [(name.lower(), value) for name, value in http]
    decoded = _decoded(body, dict(headers))
    if decoded is None:
        tally.set_aside["page: content encoding cannot be undone"] += 1
        return ()
    body = decoded
    if b"<img" not in body.lower():
        return ()
    encoding = str(record.http_charset or "") or detect_encoding(body, from_html_meta=True) or "utf-8"
    try:
        tree = HTMLTree.parse_from_bytes(body, encoding, errors="replace")
    except (ValueError, LookupError):
        tally.set_aside["page: HTML cannot be parsed"] += 1
        return ()
    return _of_page(tree, page, headers)


def _decoded(body: bytes, headers: Mapping[str, str]) -> bytes | None:
    """A page's bytes without chunks and compression, None if that is not to be had.

    Crawlers often undo both and keep the headers, so each is undone only where the bytes look it.
    """
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _unchunked(body)
    encoding = headers.get("content-encoding", "").strip().lower()
    undone = encoding in ("gzip", "x-gzip") and body[:2] != b"\x1f\x8b"
    if undone or encoding in ("", "identity") or body.lstrip()[:1] == b"<":
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return None
    try:
        return zlib.decompressobj(wbits=47).decompress(body, LONGEST_PAGE)
    except zlib.error:
        return None


_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})[^\r\n]*\r\n")


def _unchunked(body: bytes) -> bytes:
    """The data of a chunked body (RFC 9112, 7.1); the body as it is where it has no chunks."""
    parts, at = [], 0
    while (head := _CHUNK.match(body, at)) is not None:
        size = int(head[1], 16)
        parts.append(body[head.end() : head.end() + size])
        at = head.end() + size + 2
    return b"".join(parts) if parts else body


def _of_page(tree: HTMLTree, page: str, headers: list[tuple[str, str]]) -> Iterator[_Image]:
    document = tree.document
    if document is None:
        return
    metas = [
        ((meta.getattr("name") or meta.getattr("http-equiv") or "").lower(), meta.getattr("content") or "")
        for meta in document.get_elements_by_tag_name("meta")
    ]
    bases = (base.getattr("href") for base in document.get_elements_by_tag_name("base"))
    base = next((href for href in bases if href), "")
    said = signals(headers, metas)
    for image in document.get_elements_by_tag_name("img"):
        yield {name: image.getattr(name) or "" for name in ("src", *LATE, *KINDS)}, page, base, said


def _of_wat(content: Mapping[str, Any], page: str) -> list[_Image]:
    envelope = content["Envelope"]
    page = envelope.get("WARC-Header-Metadata", {}).get("WARC-Target-URI") or page
    response = envelope.get("Payload-Metadata", {}).get("HTTP-Response-Metadata", {})
    html = response.get("HTML-Metadata", {})
    if str(response.get("Response-Message", {}).get("Status", "200")) != "200" or "Links" not in html:
        return []
    head = html.get("Head", {})
    headers = [(name.lower(), _joined(value)) for name, value in response.get("Headers", {}).items()]
    metas = [((meta.get("name") or "").lower(), meta.get("content") or "") for meta in head.get("Metas", ())]
    said = signals(headers, metas)
    images: list[_Image] = []
    for link in html["Links"]:
        place, _, attribute = str(link.get("path", "")).partition("@/")
        if place == "IMG" and attribute in ("src", *LATE):
            values = {name: str(link[name]) for name in KINDS if link.get(name)}
            images.append((values | {attribute: str(link.get("url") or "")}, page, head.get("Base") or "", said))
    return images


def _joined(value: Any) -> str:
    """A header that stood there several times is a list in some WAT files."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def signals(headers: Iterable[tuple[str, str]], metas: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """What a page's headers and metas (lower-case name, value) say of its use: columns `robots` to `tdm_policy`."""
    directives: set[str] = set()
    reserved, policy = False, None
    for from_header, entries in ((True, headers), (False, metas)):
        for name, value in entries:
            if name == ("x-robots-tag" if from_header else "robots"):
                directives |= set(_directives(value))
            elif name == "tdm-reservation":
                reserved |= value.strip() == "1"
            elif name == "tdm-policy" and value.strip():
                policy = policy or value.strip()
    return {
        "robots": ",".join(sorted(directives)) or None,
        "noai": "noai" in directives,
        "noimageai": "noimageai" in directives,
        "tdm_reserved": reserved,
        "tdm_policy": policy,
    }


def _directives(value: str) -> Iterator[str]:
    for part in value.lower().split(","):
        before, colon, after = part.partition(":")
        named = colon and before.strip() not in _WITH_VALUE
        if directive := (after if named else part).strip():
            yield directive


def _add(rows: Rows, image: _Image, tally: Tally) -> None:
    """Add a row for each text of an image, or count why there is none."""
    attributes, page, base, said = image
    tally.records += 1
    source = attributes.get("src", "").strip()
    if not source or source[:5].lower() == "data:":
        late = (attributes.get(name, "").strip() for name in LATE)
        source = next((each for each in late if each), source)
    if not source:
        tally.set_aside["record: image without a URL"] += 1
        return
    if source[:5].lower() == "data:":
        tally.set_aside["record: image inside the page (data: URL)"] += 1
        return
    # A base may itself be relative to the page (HTML standard, 4.2.3).
    url = normalised(source, (normalised(base, page) if base else None) or page)
    if url is None:
        tally.set_aside["record: URL that cannot be resolved to http or https"] += 1
        return
    texts = {kind: " ".join(attributes.get(kind, "").split()) for kind in KINDS}
    if not any(texts.values()):
        tally.set_aside["record: image without text"] += 1
        return
    for kind, text in texts.items():
        if tally.text_fits(text):
            rows.add({"id": url_id(url), "kind": kind, "text": text, "url": url, "page": page, **said})
