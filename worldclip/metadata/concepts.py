"""Your own concepts, as a fifth source: a text file, CSV or Parquet."""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Iterator
from io import TextIOWrapper
from itertools import repeat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from worldclip.errors import DataError, MissingData
from worldclip.languages import LANGUAGES
from worldclip.metadata.reading import batches, opened


def own_concepts(path: Path, set_aside: Counter[str]) -> Iterator[tuple[str, str, float]]:
    """(list, concept, score) of each row; a row without a score scores 1.

    Parquet and CSV have columns `lang` and `entry`, and may have `score`. A text file has a list's code, a tab and a
    concept a line; where it is named after a list (`birds.sw.txt`), a concept a line.

    Raises:
        MissingData: it is not there.
        DataError: it is none of these, or a column is missing.
    """
    if not path.is_file():
        raise MissingData(f"{path}: not found; --concepts takes a text file, CSV or Parquet.")
    for lang, entry, raw in _rows(path):
        try:
            score = 1.0 if raw in (None, "") else float(str(raw))
        except ValueError:
            score = math.nan
        if not isinstance(entry, str) or not math.isfinite(score):
            set_aside["c: malformed row"] += 1
        elif lang not in LANGUAGES:
            set_aside["c: unknown list"] += 1
        else:
            yield str(lang), entry, score


def _rows(path: Path) -> Iterator[tuple[object, object, object]]:
    if path.suffix == ".parquet":
        try:
            with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as parquet:  # as pages are needed
                _need(path, parquet.schema_arrow.names)
                for batch in batches(path, parquet):
                    table = batch.to_pydict()
                    yield from zip(table["lang"], table["entry"], table.get("score", repeat(None)), strict=False)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as Parquet ({error}).") from None
        return
    try:
        with opened(path) as raw, TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file:
            if path.suffix == ".csv":
                reader = csv.DictReader(file)
                _need(path, reader.fieldnames or ())
                for row in reader:
                    yield row["lang"], row["entry"], row.get("score")
                return
            named = path.stem.rpartition(".")[2]
            for line in file:
                if entry := line.rstrip("\r\n"):
                    lang, tab, concept = entry.partition("\t")
                    yield (lang, concept, None) if tab else (named, entry, None)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}); concepts are UTF-8 text, CSV or Parquet.") from None


def _need(path: Path, names: object) -> None:
    found = list(names) if isinstance(names, list | tuple) else []
    if not {"lang", "entry"} <= set(found):
        raise DataError(f"{path}: needs columns lang and entry, may have score; found {', '.join(found) or 'none'}.")
