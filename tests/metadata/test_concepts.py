"""Your own concepts: the three forms, rows that are none."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from worldclip.errors import DataError, MissingData
from worldclip.metadata.concepts import own_concepts


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
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        list(own_concepts(tmp_path / "b.txt", set_aside))
    with pytest.raises(MissingData, match="not found"):
        list(own_concepts(tmp_path / "c.txt", set_aside))
