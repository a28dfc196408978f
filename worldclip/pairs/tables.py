"""Images with texts from tables and shards: Parquet, JSON lines, WebDataset tars.

Layouts that are read as they are: img2dataset's output (`url, caption, key, status, sha256, ...`), LAION's metadata
(`URL, TEXT, WIDTH, ...`), DataComp's (`uid, url, text, sha256, ...`), and our own pairs (`id, texts`).

An image's id is the table's own `id` if it is text; else it is made from its URL (`rows.url_id`); else it is `uid`,
`sha256` (in a tar without one: of the image's own bytes) or `key`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from worldclip.errors import DataError
from worldclip.pairs.crawl import CRAWL_ROWS
from worldclip.pairs.rows import LONGEST_TEXT, ROWS, TOO_LONG, Rows, Tally, normalised, url_id
from worldclip.schema import PLAIN_TEXT_COLUMNS, TEXT, only_utf8

#: Columns that hold an image's URL, in order of preference.
URL_COLUMNS = ("url", "URL", "image_url")

#: Columns that name an image where it has neither an id nor a URL.
NAME_COLUMNS = ("uid", "sha256", "key")

#: What img2dataset writes of how a download went; the rest of such a table is of downloaded images alone.
STATUS, DOWNLOADED, ERROR = "status", "success", "error_message"

#: Columns that pass through from JSON, whose values carry no types of their own.
JSON_FIELDS: dict[str, pa.DataType] = {
    **{name: pa.string() for name in ("key", "shard", "sha256", "uid", "LICENSE", "NSFW")},
    **{name: pa.int64() for name in ("width", "height", "original_width", "original_height", "WIDTH", "HEIGHT")},
    **{name: pa.float64() for name in ("similarity", "punsafe", "pwatermark", "AESTHETIC_SCORE")},
    **{field.name: field.type for field in CRAWL_ROWS if field.name not in ROWS.names},
}

#: Rows of JSON lines and of tars.
JSON_ROWS = pa.schema([*ROWS, *(pa.field(name, kind) for name, kind in JSON_FIELDS.items())])

#: Longer lines of JSON, and longer texts or JSON in a tar, are set aside (bytes).
LONGEST_RECORD = 16 * 2**20

#: Rows of a table that are held at once.
BATCH = 8192

IMAGE_SUFFIXES = ("bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp")


# Parquet.


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a table keeps what. `schema` is that of the rows it gives."""

    texts: tuple[str, ...]
    url: str | None
    names: tuple[str, ...]
    extras: Mapping[str, str]  #: its column -> ours
    schema: pa.Schema


def layout_of(schema: pa.Schema, where: str) -> Layout:
    """Find out how a table is laid out.

    Raises:
        DataError: it has no text, or nothing that names an image; tells what was found and what is allowed.
    """
    names = schema.names
    found = ", ".join(names) or "no columns"
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{where}: column {repeated[0]!r} stands there twice; found {found}.")
    texts = ("texts",) if "texts" in names else tuple(name for name in PLAIN_TEXT_COLUMNS if name in names)
    if not texts:
        raise DataError(
            f"{where}: no text column; needs `texts` (list of kind and text) or one of "
            f"{', '.join(PLAIN_TEXT_COLUMNS)}; found {found}."
        )
    for name in texts:
        kind = schema.field(name).type
        if not (_is_texts(kind) if name == "texts" else _is_text(kind)):
            wanted = "list<struct<kind: string, text: string>>" if name == "texts" else "string"
            raise DataError(f"{where}: column {name!r} is {kind}, not {wanted}.")
    url = next((name for name in URL_COLUMNS if name in names and _is_text(schema.field(name).type)), None)
    own = ("id",) if "id" in names and _is_text(schema.field("id").type) else ()
    others = tuple(name for name in NAME_COLUMNS if name in names and _is_text(schema.field(name).type))
    if not (own or url or others):
        raise DataError(
            f"{where}: nothing names an image; needs a text column `id`, or {', '.join(URL_COLUMNS)}, or "
            f"{', '.join(NAME_COLUMNS)}; found {found}."
        )
    left_out = {*texts, url, STATUS, ERROR, *own}
    extras = {
        # A number is no id: every table begins to count anew.
        name: {"id": "source_id", "kind": "source_kind", "text": "source_text", "url": "source_url"}.get(name, name)
        for name in names
        if name not in left_out and not pa.types.is_null(schema.field(name).type)
    }
    fields = [pa.field(ours, _plain(schema.field(name).type)) for name, ours in extras.items()]
    if STATUS in names and "key" in names and "shard" not in names:
        fields.append(pa.field("shard", pa.string()))
    return Layout(texts=texts, url=url, names=(*own, *others), extras=extras, schema=pa.schema([*ROWS, *fields]))


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_texts(kind: pa.DataType) -> bool:
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)) or not pa.types.is_struct(kind.value_type):
        return False
    return all(kind.value_type.get_field_index(field.name) >= 0 for field in TEXT)


def _plain(kind: pa.DataType) -> pa.DataType:
    return pa.string() if _is_text(kind) else kind.value_type if pa.types.is_dictionary(kind) else kind


def read_schema(file: IO[bytes], where: str) -> pa.Schema:
    """The columns of a Parquet file.

    Raises:
        DataError: it is not Parquet, or is cut short.
    """
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{where}: cannot be read as Parquet ({error}). Mend it or take it away.") from None


def read_parquet(file: IO[bytes], where: str, tally: Tally) -> Iterator[pa.Table]:
    """Rows of a Parquet file in any layout, a batch at a time.

    Args:
        where: its name, for errors; the `shard` of what img2dataset has written is its stem.

    Raises:
        DataError: it cannot be read, or has not the columns it needs (`layout_of`).
    """
    layout = layout_of(read_schema(file, where), where)
    file.seek(0)
    wanted = [*dict.fromkeys([*layout.texts, *layout.names, *layout.extras, *([layout.url] if layout.url else [])])]
    try:
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20) as table:
            wanted += [name for name in (STATUS, ERROR) if name in table.schema_arrow.names]
            for batch in table.iter_batches(batch_size=BATCH, columns=wanted):
                yield from _rows_of(pa.Table.from_batches([batch]), layout, PurePosixPath(where).stem, tally)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{where}: cannot be read as Parquet ({error}). Mend it or take it away.") from None


def _rows_of(table: pa.Table, layout: Layout, stem: str, tally: Tally) -> Iterator[pa.Table]:
    tally.records += len(table)
    table = _downloaded(table, tally)
    urls: list[str | None] = [None] * len(table)
    if layout.url:
        urls = [each and normalised(each) for each in _strings(table, layout.url, tally).to_pylist()]
    own, *names = [_strings(table, name, tally).to_pylist() for name in layout.names] or [[None] * len(table)]
    if layout.names[:1] != ("id",):
        own, names = [None] * len(table), [own, *names]
    ids = [
        mine or (url and url_id(url)) or next((each[row] for each in names if each[row]), None)
        for row, (mine, url) in enumerate(zip(own, urls, strict=True))
    ]
    columns = {"id": pa.array(ids, pa.string()), "url": pa.array(urls, pa.string())}
    for name, ours in layout.extras.items():
        kind = layout.schema.field(ours).type
        columns[ours] = _strings(table, name, tally) if kind == pa.string() else table.column(name).cast(kind)
    if "shard" in layout.schema.names and "shard" not in columns:
        columns["shard"] = pa.repeat(pa.scalar(stem, pa.string()), len(table))
    rows = pa.table(columns)

    named = np.array([each is not None for each in ids], bool)
    if count := int((~named).sum()):
        tally.set_aside["record: nothing names its image (no id, no URL of http or https)"] += count
    with_text = np.zeros(len(table), bool)
    for kinds, texts, at in _candidates(table, layout, tally):
        present = _present(texts) & named[at]
        with_text[at[present]] = True
        fits = present & _fits(texts, present, tally)
        found = rows.take(pa.array(at[fits]))
        found = found.append_column("kind", kinds.filter(pa.array(fits)))
        yield found.append_column("text", texts.filter(pa.array(fits))).select(layout.schema.names).cast(layout.schema)
    if count := int((named & ~with_text).sum()):
        tally.set_aside["record: image without text"] += count


def _downloaded(table: pa.Table, tally: Tally) -> pa.Table:
    """Without the rows whose image img2dataset could not get."""
    if STATUS not in table.column_names:
        return table
    status = table.column(STATUS).to_pylist()
    reasons = table.column(ERROR).to_pylist() if ERROR in table.column_names else [None] * len(status)
    for state, reason in zip(status, reasons, strict=True):
        if state != DOWNLOADED:
            tally.set_aside[_not_downloaded(state, reason)] += 1
    return table.filter(pa.array([state == DOWNLOADED for state in status], pa.bool_()))


def _not_downloaded(state: Any, reason: Any) -> str:
    # Errors name hosts and numbers: without these the reasons can be counted.
    told = re.sub(r"\d+", "N", str(reason or "")).partition(":")[0][:60].strip("<> ")
    return f"record: not downloaded ({state}{', ' if told else ''}{told})"


def _strings(table: pa.Table, name: str, tally: Tally, reason: str = "") -> pa.Array:
    """A column of text as plain strings; values that are not UTF-8 become null and are counted."""
    column = table.column(name)
    column = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    return _utf8(column.combine_chunks(), reason or f"value: column {name!r} is not UTF-8", tally)


def _utf8(strings: pa.Array, reason: str, tally: Tally) -> pa.Array:
    plain = only_utf8(pc.cast(strings, options=pc.CastOptions(pa.string(), allow_invalid_utf8=True)))
    if lost := plain.null_count - strings.null_count:
        tally.set_aside[reason] += lost
        if reason.startswith("text:"):
            tally.texts += lost
    return plain


_NO_UTF8 = "text: not UTF-8"


def _candidates(table: pa.Table, layout: Layout, tally: Tally) -> Iterator[tuple[pa.Array, pa.Array, np.ndarray]]:
    """Kind, text and row of each candidate text."""
    if layout.texts != ("texts",):
        for name in layout.texts:
            kind = pa.repeat(pa.scalar(name, pa.string()), len(table))
            yield kind, _strings(table, name, tally, _NO_UTF8), np.arange(len(table))
        return
    lists = table.column("texts").combine_chunks()
    flat = lists.flatten()
    kinds = _utf8(pc.struct_field(flat, "kind"), "value: kind of a text is not UTF-8", tally).fill_null("text")
    yield kinds, _utf8(pc.struct_field(flat, "text"), _NO_UTF8, tally), pc.list_parent_indices(lists).to_numpy()


def _present(texts: pa.Array) -> np.ndarray:
    lengths = pc.binary_length(pc.utf8_trim_whitespace(texts)).fill_null(0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False) > 0)


def _fits(texts: pa.Array, present: np.ndarray, tally: Tally) -> np.ndarray:
    fits = pc.binary_length(texts).fill_null(0).to_numpy(zero_copy_only=False) <= LONGEST_TEXT
    tally.texts += int(present.sum())
    if count := int((present & ~fits).sum()):
        tally.set_aside[TOO_LONG] += count
    return np.asarray(fits)


# JSON: lines, and the samples of a tar.


def read_json_lines(file: IO[bytes], where: str, tally: Tally) -> Iterator[pa.Table]:
    """Rows (`JSON_ROWS`) of a file of one JSON object a line, plain or gzip, read as far as it goes if cut short."""
    lines = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if where.lower().endswith(".gz") else file
    rows = Rows(JSON_ROWS)
    try:
        while line := lines.readline(LONGEST_RECORD + 1):
            if len(line) > LONGEST_RECORD:
                while line and not line.endswith(b"\n"):
                    line = lines.readline(LONGEST_RECORD)
                tally.records += 1
                tally.set_aside["record: longer than 16 MiB"] += 1
            elif line.strip():
                tally.records += 1
                _add_json(rows, line, {}, tally)
            if rows.full():
                yield rows.take()
    except (EOFError, OSError, zlib.error) as error:
        tally.set_aside[_cut_short(error)] += 1
    yield rows.take()


def _cut_short(error: Exception) -> str:
    return f"file: damaged or cut short, the rest is lost ({type(error).__name__})"


def read_tar(file: IO[bytes], where: str, tally: Tally) -> Iterator[pa.Table]:
    """Rows (`JSON_ROWS`) of a WebDataset tar: members that share a name up to its first dot are one sample.

    Of a sample its `.txt` is a text and its `.json` a record; of its image only the bytes' SHA-256 is taken. `shard` is
    the tar's stem and `key` the sample's name.
    """
    rows, sample = Rows(JSON_ROWS), _Sample(key="")
    try:
        with tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                if not member.isreg():
                    continue
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                if key != sample.key:
                    _add_sample(rows, sample, where, tally)
                    sample = _Sample(key=key)
                content = tar.extractfile(member)
                if content is not None:
                    sample.read(suffix.lower(), member.size, content)
                if rows.full():
                    yield rows.take()
        _add_sample(rows, sample, where, tally)
    except (EOFError, OSError, zlib.error, tarfile.TarError) as error:
        # The sample at the cut may lack a part: it is not used.
        tally.set_aside[_cut_short(error)] += 1
    yield rows.take()


@dataclass
class _Sample:
    """What a tar holds under one name."""

    key: str
    text: bytes | None = None
    record: bytes | None = None
    sha256: str | None = None
    too_long: bool = False

    def read(self, suffix: str, size: int, content: IO[bytes]) -> None:
        if suffix in ("txt", "json") and size > LONGEST_RECORD:
            self.too_long = True
        elif suffix == "txt":
            self.text = content.read()
        elif suffix == "json":
            self.record = content.read()
        elif suffix in IMAGE_SUFFIXES:
            state = hashlib.sha256()
            while data := content.read(2**20):
                state.update(data)
            self.sha256 = state.hexdigest()


def _add_sample(rows: Rows, sample: _Sample, where: str, tally: Tally) -> None:
    if not sample.key:
        return
    tally.records += 1
    known: dict[str, Any] = {"shard": PurePosixPath(where).name.partition(".")[0], "key": sample.key}
    if sample.sha256:
        known["sha256"] = sample.sha256
    if sample.text is not None:
        try:
            known["text"] = sample.text.decode()
        except UnicodeDecodeError:
            tally.texts += 1
            tally.set_aside[_NO_UTF8] += 1
    if sample.too_long:
        tally.set_aside["record: longer than 16 MiB"] += 1
    else:
        _add_json(rows, sample.record if sample.record is not None else b"{}", known, tally)


def _add_json(rows: Rows, line: bytes, known: Mapping[str, Any], tally: Tally) -> None:
    """Add a row for each text of a JSON record, or count why there is none. What the record tells goes before `known`.

    Of a sample's key and shard it is the other way round: where the image lies is what the tar says.
    """
    try:
        record = json.loads(line)
    except UnicodeDecodeError:
        tally.set_aside["record: not UTF-8"] += 1
        return
    except (ValueError, RecursionError):
        tally.set_aside["record: not JSON"] += 1
        return
    if not isinstance(record, dict):
        tally.set_aside["record: JSON, but no object"] += 1
        return
    if record.get(STATUS, DOWNLOADED) != DOWNLOADED:
        tally.set_aside[_not_downloaded(record[STATUS], record.get(ERROR))] += 1
        return
    texts = _json_texts(record)
    if isinstance(known.get("text"), str):
        texts.append(("text", known["text"]))
    record = {**known, **record, **{name: known[name] for name in ("key", "shard") if name in known}}
    fields = {name: _as(kind, record.get(name)) for name, kind in JSON_FIELDS.items()}
    given = next((record[name] for name in URL_COLUMNS if isinstance(record.get(name), str)), None)
    url = normalised(given) if given else None
    own = record.get("id") if isinstance(record.get("id"), str) else None
    name = own or (url and url_id(url)) or next((fields[each] for each in NAME_COLUMNS if fields[each]), None)
    if name is None or not _is_unicode(name):
        tally.set_aside["record: nothing names its image (no id, no URL of http or https)"] += 1
        return
    if not any(text.strip() for _, text in texts):
        tally.set_aside["record: image without text"] += 1
        return
    for kind, text in texts:
        if tally.text_fits(text) and _is_unicode(kind):
            rows.add({**fields, "id": name, "kind": kind, "text": text, "url": url})


def _json_texts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    texts = record.get("texts")
    if isinstance(texts, list):
        return [
            (str(each.get("kind") or "text"), each["text"])
            for each in texts
            if isinstance(each, dict) and isinstance(each.get("text"), str)
        ]
    return [(name, record[name]) for name in PLAIN_TEXT_COLUMNS if isinstance(record.get(name), str)]


def _as(kind: pa.DataType, value: Any) -> Any:
    """A JSON value as a column's type, None where it is of another."""
    if pa.types.is_string(kind):
        return value if isinstance(value, str) and _is_unicode(value) else None
    if pa.types.is_boolean(kind):
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if pa.types.is_integer(kind):
        return int(value) if abs(value) < 2**63 and value == int(value) else None
    return float(value) if abs(value) < 1e300 else None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
