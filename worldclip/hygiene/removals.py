"""What is removed and why, in a table that can be taken back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

#: One row an image and reason; `detail` says what it was found by: the copy that stays, the rule, the score.
REMOVALS = pa.schema([("id", pa.string()), ("reason", pa.string()), ("detail", pa.string())])


def removals(rows: Iterable[tuple[str, str, str]]) -> pa.Table:
    """A table of (id, reason, detail)."""
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=REMOVALS)


def gathered(parts: Sequence[pa.Table]) -> pa.Table:
    """All removals, sorted, each once; an image may be removed for several reasons."""
    table = pa.concat_tables([REMOVALS.empty_table(), *parts])
    found = table.group_by(["id", "reason"], use_threads=False).aggregate([("detail", "min")])
    found = found.rename_columns(["id", "reason", "detail"]).select(REMOVALS.names).cast(REMOVALS)
    return found.sort_by([("id", "ascending"), ("reason", "ascending")])


def counts(removed: pa.Table) -> dict[str, int]:
    """Images by reason, sorted; one that is removed for two reasons counts for both."""
    counted = removed.column("reason").value_counts()
    return dict(sorted(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True)))


def leaving_out(removed: pa.Table, reasons: Sequence[str]) -> pa.Table:
    """The removals without those of some reasons: what they alone removed is back."""
    return removed.filter(pc.invert(pc.is_in(removed.column("reason"), pa.array(reasons, pa.string()))))
