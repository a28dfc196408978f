"""The two matching rules side by side: dead entries of each list, and the matches that each finds in packaged texts.

Lists are the starter lists; texts the names and keywords of drawings in the list's language.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from worldclip.curation import Index
from worldclip.curation.rules import RULES, dead
from worldclip.languages import list_of_locale
from worldclip.metadata import starter
from worldclip.packages import Cache, cache_folder

CHECK_LANGUAGES = ("en", "ja", "th")


def run(*, check: bool) -> Iterator[dict[str, Any]]:
    """One row a language: entries, those that no text can hold, texts with a match and matches, by each rule."""
    cache = Cache(cache_folder())
    texts = _texts(cache)
    codes = CHECK_LANGUAGES if check else tuple(sorted(texts))
    with tempfile.TemporaryDirectory() as folder:
        lists = starter.build(cache, Path(folder), languages=codes, report=lambda _: None).entries
        for code in codes:
            if code not in lists or code not in texts:
                continue
            row: dict[str, Any] = {"lang": code, "entries": len(lists[code]), "texts": len(texts[code])}
            for rule in RULES:
                found = Index.build(lists[code], rule).match(texts[code])
                row[f"dead_{rule}"] = dead(lists[code], rule).true_count
                row[f"matched_texts_{rule}"] = int(np.count_nonzero(np.diff(found.offsets.to_numpy())))
                row[f"matches_{rule}"] = len(found.flatten())
            yield row


def _texts(cache: Cache) -> dict[str, list[str]]:
    """Distinct names and keywords by list."""
    found: dict[str, dict[str, None]] = {}
    for path in sorted((cache.path("cldr-annotations") / "annotations").glob("*/annotations.json")):
        drawings = json.loads(path.read_bytes())["annotations"].get("annotations", {}).values()
        told = (text for each in drawings for text in (*each.get("tts", ()), *each.get("default", ())))
        found.setdefault(list_of_locale(path.parent.name), {}).update(dict.fromkeys(told))
    return {code: list(texts) for code, texts in found.items()}
