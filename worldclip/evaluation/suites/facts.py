"""Tables of facts that lie beside the suites: tab-separated, with a header."""

from __future__ import annotations

import csv
import io
from functools import cache
from importlib.resources import files


@cache
def read_facts(name: str) -> tuple[dict[str, str], ...]:
    """The rows of a table."""
    text = files("worldclip.evaluation.suites").joinpath(name).read_text("utf-8")
    return tuple(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
