"""Texts to train on, to trim for and to count: from a table or from lines, by language where it is told."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from worldclip.errors import DataError, MissingData

#: The language of texts of which it is not told.
UNTOLD = "all"


def read_texts(path: Path) -> dict[str, list[str]]:
    """Texts of each language: of a Parquet file or a folder of them, with the column `text` and perhaps `lang`; or of a
    file with one text a line. Of curated pairs those that are kept.

    Raises:
        MissingData: there is no such file.
        DataError: it is not such a file.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise MissingData(f"{path}: no texts there. Give a Parquet file, a folder of them, or a file of lines.")
    if files[0].suffix != ".parquet":
        try:
            lines = files[0].read_text("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: is not UTF-8 ({error}).") from error
        return {UNTOLD: [line for line in lines if line.strip()]}
    found: dict[str, list[str]] = {}
    for file in files:
        table = _table(file)
        languages = table.column("lang") if "lang" in table.column_names else pa.array([UNTOLD] * len(table))
        for lang, text in zip(languages.to_pylist(), table.column("text").to_pylist(), strict=True):
            if text:
                found.setdefault(lang or UNTOLD, []).append(text)
    return dict(sorted(found.items()))


def _table(file: Path) -> pa.Table:
    try:
        names = pq.read_schema(file).names
        if "text" not in names:
            raise DataError(f"{file}: has no column text; it has {', '.join(names)}.")
        table = pq.read_table(file, columns=[name for name in ("text", "lang", "kept") if name in names])
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file}: cannot be read as Parquet ({error}).") from error
    return table.filter(pc.fill_null(table.column("kept"), False)) if "kept" in table.column_names else table
