"""Words and pairs of words of running text, counted exactly in bounded memory, and the pairs worth an entry.

Section 1 of the recipe: HTML tags are removed; text is split on white space, and every character of a script without
spaces and every punctuation mark is a token of its own. Languages with a segmenter (`segment.py`) use that instead.
Punctuation divides: no pair reaches over it, and it is no word.

Counts are kept in memory until there are too many distinct words or pairs, then written as a sorted run; runs are
merged as streams. So counts are exact whatever the limits are, which decide only how much memory is used.
"""

from __future__ import annotations

import heapq
import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from math import log2
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from worldclip.errors import DataError
from worldclip.storage import replacing

Tokenizer = Callable[[str], list[str]]
Counts = Iterator[tuple[str, int]]

#: Stands between the words of a pair in counts; no token holds it, as it is white space to `split`.
PAIR = "\x1f"

#: Letters of scripts whose characters are tokens of their own: CJK, Thai, Lao, Tibetan, Burmese, Khmer.
_UNSPACED = (
    "\u4e00-\u9fff\u3400-\u4dbf\U00020000-\U0002ebef\uf900-\ufaff\u2e80-\u2fdf\u2ff0-\u2fff"
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"
)
_PUNCTUATION = "".join(
    re.escape(chr(code)) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] == "P"
) + re.escape("$+<=>^`|~")
_TOKEN = re.compile(f"[{_UNSPACED}]|[{_PUNCTUATION}]|[^\\s{_UNSPACED}{_PUNCTUATION}]+")
_MARKS = re.compile(f"[{_PUNCTUATION}]+")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,1000}>|<!--.{0,10000}?-->", re.DOTALL)
_BRACKETS = {"(": ")", "[": "]", "{": "}", "（": "）", "【": "】", "「": "」", "『": "』", "《": "》", "〈": "〉"}

_COUNTED = pa.schema([("key", pa.string()), ("count", pa.int64())])
_BATCH = 16_384


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most distinct words and pairs that counting holds in memory: about 150 bytes a word, 40 a pair."""

    words: int = 1_000_000
    pairs: int = 8_000_000


def tokens(text: str) -> list[str]:
    """The tokens of a text by the recipe's rule, punctuation marks among them."""
    return _TOKEN.findall(_TAG.sub(" ", text))


def segmented(segment: Callable[[str], Sequence[str]]) -> Tokenizer:
    """The tokens of a language without spaces by its segmenter.

    White space and line ends divide as punctuation does. What begins with punctuation or holds an unpaired bracket
    divides too and is no word.
    """

    def split(text: str) -> list[str]:
        found: list[str] = []
        for line in _TAG.sub(" ", text).split():
            found += (token if _sound(token) else "." for token in map(str.strip, segment(line)) if token)
            found.append(".")
        return found

    return split


def _sound(token: str) -> bool:
    return not _MARKS.match(token) and all(
        token.count(opening) == token.count(closing) for opening, closing in _BRACKETS.items()
    )


def count_ngrams(texts: Iterable[str], split: Tokenizer, folder: Path, limits: Limits | None = None) -> int:
    """Count the words and pairs of the texts into `folder/words.parquet` and `folder/pairs.parquet`.

    Each file holds (key, count), sorted by key's UTF-8; a pair's key is its words with `PAIR` between them. No pair
    reaches from one text into the next. Runs lie in the folder meanwhile.

    Returns:
        The number of word tokens, N of the PMI.
    """
    limits = limits or Limits()
    folder.mkdir(parents=True, exist_ok=True)
    counter = _Counter(folder, limits)
    for text in texts:
        counter.add(split(text))
    counter.spill()
    for kind in ("words", "pairs"):
        runs = sorted(folder.glob(f"{kind}.run-*"))
        write_counts(folder / f"{kind}.parquet", merged(runs))
        for run in runs:
            run.unlink()
    return counter.total


class _Counter:
    """Counts by word numbers, which last until the next spill."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._runs = 0
        self.total = 0
        self._begin()

    def _begin(self) -> None:
        self._number: defaultdict[str, int] = defaultdict()
        self._number.default_factory = self._number.__len__
        self._chunks: list[np.ndarray] = []
        self._waiting = 0
        self._keys = self._counts = np.zeros(0, np.int64)
        self._words = np.zeros(0, np.int64)

    def add(self, text: list[str]) -> None:
        """Count one text's tokens."""
        if text:
            # -1 parts texts; it and punctuation end a pair.
            numbers = np.fromiter(map(self._number.__getitem__, text), np.int64, len(text))
            self._chunks += (numbers, np.array([-1]))
            self._waiting += len(text)
        if self._waiting >= min(2_000_000, self._limits.pairs):
            self._compact()
            if len(self._keys) > self._limits.pairs or len(self._number) > self._limits.words:
                self.spill()

    def _compact(self) -> None:
        """Fold the waiting tokens into the counts."""
        if not self._chunks:
            return
        numbers = np.concatenate(self._chunks)
        self._chunks, self._waiting = [], 0
        known = len(self._words)
        fresh = list(self._number)[known:]
        self._words = np.concatenate([self._words, np.zeros(len(fresh), np.int64)])
        self._words += np.bincount(numbers[numbers >= 0], minlength=len(self._words))
        mark = np.fromiter((_MARKS.fullmatch(word) is not None for word in self._number), bool, len(self._number))
        word = (numbers >= 0) & ~mark[numbers]
        self.total += int(word.sum())
        both = word[:-1] & word[1:]
        keys, counts = np.unique((numbers[:-1][both] << 32) | numbers[1:][both], return_counts=True)
        self._keys, where = np.unique(np.concatenate([self._keys, keys]), return_inverse=True)
        summed = np.zeros(len(self._keys), np.int64)
        np.add.at(summed, where, np.concatenate([self._counts, counts]))
        self._counts = summed

    def spill(self) -> None:
        """Write all counts as sorted runs and begin anew."""
        self._compact()
        words = list(self._number)
        order = sorted(range(len(words)), key=words.__getitem__)
        rank = np.empty(len(words), np.int64)
        rank[order] = np.arange(len(words))
        listed = ((words[at], int(self._words[at])) for at in order if not _MARKS.fullmatch(words[at]))
        write_counts(self._folder / f"words.run-{self._runs:05d}", listed)
        # `PAIR` sorts before every character of a token, so the order of words is that of keys.
        first, second = rank[self._keys >> 32], rank[self._keys & 0xFFFFFFFF]
        by_words = np.lexsort((second, first))
        names = [words[at] for at in order]
        pairs = (
            (f"{names[a]}{PAIR}{names[b]}", count)
            for start in range(0, len(by_words), _BATCH)
            for part in (by_words[start : start + _BATCH],)
            for a, b, count in zip(
                first[part].tolist(), second[part].tolist(), self._counts[part].tolist(), strict=True
            )
        )
        write_counts(self._folder / f"pairs.run-{self._runs:05d}", pairs)
        self._runs += 1
        self._begin()


def write_counts(path: Path, counts: Iterable[tuple[str, int]]) -> None:
    """Write (key, count) as Parquet in the given order, a batch at a time."""
    with replacing(path) as temporary, pq.ParquetWriter(temporary, _COUNTED, compression="zstd") as writer:
        keys: list[str] = []
        numbers: list[int] = []
        for key, number in counts:
            keys.append(key)
            numbers.append(number)
            if len(keys) == 4 * _BATCH:
                writer.write_table(pa.table([keys, numbers], schema=_COUNTED))
                keys, numbers = [], []
        writer.write_table(pa.table([keys, numbers], schema=_COUNTED))


def read_counts(path: Path) -> Counts:
    """(key, count) of a file in its order, a batch at a time.

    Raises:
        DataError: it is no such file.
    """
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_BATCH, use_threads=False):
                yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as counts ({error}); delete it and build again.") from None


def merged(runs: Sequence[Path]) -> Counts:
    """The counts of sorted files added up, in the same order: a stream that holds one batch a file."""
    with ExitStack() as stack:
        streams = [stack.enter_context(_closing(read_counts(run))) for run in runs]
        for key, group in groupby(heapq.merge(*streams, key=itemgetter(0)), key=itemgetter(0)):
            yield key, sum(count for _, count in group)


class _closing:  # noqa: N801 - as contextlib.closing, which does not know that a Counts can be closed
    def __init__(self, stream: Counts) -> None:
        self._stream = stream

    def __enter__(self) -> Counts:
        return self._stream

    def __exit__(self, *_: object) -> None:
        close = getattr(self._stream, "close", None)
        if close:
            close()


def pmi(pair: int, first: int, second: int, total: int) -> float:
    """Pointwise mutual information in bits: log2(N c(xy) / (c(x) c(y))); at most log2 N."""
    return log2(total * pair / (first * second))


def top_words(counts: Counts, share: float, cap: int) -> list[tuple[str, int]]:
    """The most frequent `share` of the distinct words, at most `cap`; by falling count, then by code points."""
    kept: list[tuple[int, str]] = []
    distinct = 0
    # A heap of (count, negated order) would need a key a word; the cut is made on twice the cap instead.
    for word, count in counts:
        distinct += 1
        kept.append((-count, word))
        if len(kept) >= 2 * cap + 2:
            kept.sort()
            del kept[cap:]
    kept.sort()
    return [(word, -count) for count, word in kept[: min(cap, ceil_share(distinct, share))]]


def ceil_share(number: int, share: float) -> int:
    """So much of a number, rounded up: of ten words, 10 % is one."""
    return -int(-number * share // 1)


def top_pairs(
    pairs: Counts,
    words: Mapping[str, int],
    total: int,
    *,
    least_count: int,
    threshold: float | None,
    cap: int,
    joint: str,
) -> list[tuple[str, float]]:
    """The pairs of highest PMI, with it; equal ones by code points.

    Args:
        pairs: counts of pairs.
        words: counts of words, at least of those seen `least_count` times.
        total: N.
        least_count: pairs seen less often are left out.
        threshold: pairs must reach this PMI (the release: 30 bits); None ranks alone.
        cap: the most pairs.
        joint: stands between the words of an entry: a space, or nothing in languages without.
    """
    kept: list[tuple[float, str]] = []
    for key, count in pairs:
        if count < least_count:
            continue
        first, _, second = key.partition(PAIR)
        value = pmi(count, words[first], words[second], total)
        if threshold is None or value >= threshold:
            kept.append((-value, f"{first}{joint}{second}"))
            if len(kept) >= 2 * cap + 2:
                kept.sort()
                del kept[cap:]
    kept.sort()
    return [(entry, -value) for value, entry in kept[:cap]]
