"""`python -m bench [CASE ...] [--check]`: run cases; with --check, small inputs and only the answers count."""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

#: Each is a module beside this one with `run(*, check: bool)`, which yields one row a measurement.
CASES = (
    "evaluate",
    "export",
    "lid",
    "match",
    "metadata",
    "curate",
    "memory",
    "rules",
    "loader",
    "train",
    "hygiene",
    "leakage",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"one or more of {', '.join(CASES)}; default: all")
    parser.add_argument("--check", action="store_true", help="small inputs: check the answers, not the time")
    parser.add_argument(
        "--markdown", action="store_true", help="print tables, as docs have them, not a line of JSON a row"
    )
    arguments = parser.parse_args()
    if unknown := sorted(set(arguments.cases) - set(CASES)):
        parser.error(f"no such case: {', '.join(unknown)}; there are {', '.join(CASES)}")
    rows = _rows(arguments.cases or CASES, check=arguments.check)
    if not arguments.markdown:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False), flush=True)
        return
    for columns, table in itertools.groupby(rows, key=tuple):
        print("\n|", " | ".join(columns), "|\n|", " | ".join("---" for _ in columns), "|")
        for row in table:
            print(
                "|",
                " | ".join(f"{each:,}" if isinstance(each, int) else str(each) for each in row.values()),
                "|",
                flush=True,
            )


def _rows(cases: list[str] | tuple[str, ...], *, check: bool) -> Iterator[dict[str, Any]]:
    yield {"cores": os.cpu_count()}
    for name in cases:
        for row in importlib.import_module(f"bench.{name}").run(check=check):
            yield {"case": name, **row}


main()
