"""Words and pairs of words of running text, counted exactly in bounded memory, and those worth an entry.

Section 1 of the recipe: HTML tags are removed; text is split on white space, and every character of a script without
spaces and every punctuation mark is a token of its own. Languages with a segmenter (`segment.py`) use that instead.
Punctuation divides: no pair reaches over it, and it is no word.

Counts are kept in memory until there are too many distinct words or pairs, then written as a sorted run; runs are
merged as streams (`counts.py`). So counts are exact whatever the limits are, which decide only how much memory is used.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worldclip.metadata.counts import BLOCK, COUNTED, ROWS, Blocks, merge_runs, ranked, read_blocks, write_blocks
from worldclip.storage import TEMPORARY

Tokenizer = Callable[[str], list[str]]

#: Stands between the words of a pair in counts. No token holds it or anything that sorts before it.
PAIR = "\x1f"

#: Letters of scripts whose characters are tokens of their own: CJK, Thai, Lao, Tibetan, Burmese, Khmer.
_UNSPACED = (
    "\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u2e80-\u2fdf\u2ff0-\u2fff"
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"
)
_UNSPACED_ASTRAL = "\U00020000-\U0002ebef"

_MARKS = frozenset(
    character
    for character in map(chr, range(sys.maxunicode + 1))
    if unicodedata.category(character)[0] == "P" or character in "$+<=>^`|~"
)
_BMP = "".join(re.escape(mark) for mark in sorted(_MARKS) if mark <= "\uffff")
_ASTRAL = "".join(mark for mark in sorted(_MARKS) if mark > "\uffff")
# Characters beyond the BMP make a set slow, so they are looked at only where there is one.
_OWN_TOKEN = re.compile(f"([{_UNSPACED}{_BMP}]|(?=[\U00010000-\U0010ffff])[{_UNSPACED_ASTRAL}{_ASTRAL}])")
#: What a segmenter is not asked about, and what it is. Tibetan's marks part its syllables: its segmenter takes them.
_ALONE = "".join(re.escape(mark) for mark in sorted(_MARKS) if mark <= "\uffff" and not "\u0f00" <= mark <= "\u0fff")
_SPACED = "0-9A-Za-z\u00c0-\u024f\u0370-\u052f"
_RUN = re.compile(f"([{_SPACED}]+|[{_ALONE}])|([^{_SPACED}{_ALONE}]+)")
#: HTML tags, and control characters, which are in no word.
_NO_TEXT = re.compile(r"</?[A-Za-z][^<>]{0,1000}>|<!--.{0,10000}?-->|[\x00-\x1b\x7f]", re.DOTALL)
_BRACKETS = {"(": ")", "[": "]", "{": "}", "（": "）", "【": "】", "「": "」", "『": "』", "《": "》", "〈": "〉"}

#: Tokens after which those that wait are folded into the counts.
_FOLD = 1_000_000

#: Pairs that are ranked at once.
_RANKED = 500_000
_SCORED = pa.schema([("key", pa.string()), ("pmi", pa.float64())])


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most distinct words and pairs that counting holds in memory: about 150 bytes a word, 50 a pair."""

    words: int = 1_000_000
    pairs: int = 4_000_000


def tokens(text: str) -> list[str]:
    """The tokens of a text by the recipe's rule, punctuation marks among them."""
    return " ".join(_OWN_TOKEN.split(_NO_TEXT.sub(" ", text))).split()


def segmented(segment: Callable[[str], Sequence[str]]) -> Tokenizer:
    """The tokens of a language without spaces by its segmenter.

    White space and line ends divide as punctuation does. What begins with punctuation or holds an unpaired bracket
    divides too and is no word. Digits and Latin, Greek and Cyrillic letters are words of their own: segmenters join
    them to what stands beside them, take them apart or leave them out.
    """

    def split(text: str) -> list[str]:
        found: list[str] = []
        for line in _NO_TEXT.sub(" ", text).split():
            for own, run in _RUN.findall(line):
                found += (
                    token if _sound(token) else "." for token in ([own] if own else segment(run)) if token.strip()
                )
            found.append(".")
        return found

    return split


def _sound(token: str) -> bool:
    return token[0] not in _MARKS and all(
        token.count(opening) == token.count(closing) for opening, closing in _BRACKETS.items()
    )


def count_ngrams(texts: Iterable[str], split: Tokenizer, folder: Path, limits: Limits | None = None) -> int:
    """Count the words and pairs of the texts into `folder/words.parquet` and `folder/pairs.parquet`.

    Each file holds (key, count), sorted by key's UTF-8; a pair's key is its words with `PAIR` between them. No pair
    reaches from one text into the next. Runs lie in the folder meanwhile.

    Returns:
        The number of word tokens, N of the PMI.
    """
    folder.mkdir(parents=True, exist_ok=True)
    counter = _Counter(folder, limits or Limits())
    for text in texts:
        counter.add(split(text))
    counter.spill()
    for kind in ("words", "pairs"):
        merge_runs(sorted(folder.glob(f"{kind}.run-*")), folder / f"{kind}.parquet")
    return counter.total


class _Counter:
    """Counts by word numbers, which last until the next spill."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder, self._limits = folder, limits
        self._runs = 0
        self.total = 0
        self._begin()

    def _begin(self) -> None:
        # Not its own `__len__`: in a cycle, words would stay in memory until Python happens to look for such.
        self._number: defaultdict[str, int] = defaultdict(count().__next__)
        self._chunks: list[np.ndarray] = []
        self._waiting = 0
        self._is_word = np.zeros(0, bool)
        self._words = np.zeros(0, np.int64)
        self._pairs: list[tuple[np.ndarray, np.ndarray]] = []  # keys and counts of folded chunks

    def add(self, text: list[str]) -> None:
        """Count one text's tokens."""
        # -1 parts texts; it and punctuation end a pair.
        self._chunks += (np.fromiter(map(self._number.__getitem__, text), np.int64, len(text)), np.array([-1]))
        self._waiting += len(text)
        if self._waiting >= min(_FOLD, self._limits.pairs):
            self._fold()
            if sum(len(keys) for keys, _ in self._pairs) > self._limits.pairs:
                self._pairs = [_added(self._pairs)]
            # Adding up brought little where more than half are distinct: it would be done again and again.
            full = len(self._pairs) == 1 and 2 * len(self._pairs[0][0]) > self._limits.pairs
            if full or len(self._number) > self._limits.words:
                self.spill()

    def _fold(self) -> None:
        """Count the tokens that wait."""
        if not self._chunks:
            return
        numbers = np.concatenate(self._chunks)
        self._chunks, self._waiting = [], 0
        fresh = list(self._number)[len(self._words) :]
        self._is_word = np.concatenate([self._is_word, np.array([word not in _MARKS for word in fresh], bool)])
        self._words = np.concatenate([self._words, np.zeros(len(fresh), np.int64)])
        self._words += np.bincount(numbers[numbers >= 0], minlength=len(self._words))
        word = (numbers >= 0) & self._is_word[numbers] if len(self._words) else numbers >= 0
        self.total += int(word.sum())
        both = word[:-1] & word[1:]
        self._pairs.append(np.unique((numbers[:-1][both] << 32) | numbers[1:][both], return_counts=True))

    def spill(self) -> None:
        """Write all counts as sorted runs and begin anew."""
        self._fold()
        words = pa.array(self._number, pa.string())
        order = pc.sort_indices(words).to_numpy()
        listed = order[self._is_word[order]]
        self._write("words", ((words.take(part), self._words[part]) for part in _parts(listed)))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        keys, counts = _added(self._pairs)
        # `PAIR` sorts before every character of a token, so the order of pairs is that of first and second words.
        by_words = np.argsort((rank[keys >> 32] << 32) | rank[keys & 0xFFFFFFFF])
        self._write("pairs", ((_joined(words, keys[part]), counts[part]) for part in _parts(by_words)))
        self._runs += 1
        self._begin()

    def _write(self, kind: str, parts: Iterator[tuple[pa.Array, np.ndarray]]) -> None:
        write_blocks(
            self._folder / f"{kind}.run-{self._runs:05d}", (pa.table(list(part), schema=COUNTED) for part in parts)
        )


def _parts(rows: np.ndarray) -> Iterator[np.ndarray]:
    return (rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK))


def _joined(words: pa.Array, keys: np.ndarray) -> pa.Array:
    return pc.binary_join_element_wise(words.take(keys >> 32), words.take(keys & 0xFFFFFFFF), PAIR)


def _added(counted: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Keys and counts of several chunks as one."""
    if len(counted) < 2:
        return counted[0] if counted else (np.zeros(0, np.int64), np.zeros(0, np.int64))
    keys, where = np.unique(np.concatenate([keys for keys, _ in counted]), return_inverse=True)
    summed = np.zeros(len(keys), np.int64)
    np.add.at(summed, where, np.concatenate([counts for _, counts in counted]))
    return keys, summed


def pmi(pair: np.ndarray, first: np.ndarray, second: np.ndarray, total: int) -> np.ndarray:
    """Pointwise mutual information in bits: log2(N c(xy) / (c(x) c(y))); at most log2 N.

    Counts are float64, so that their products cannot overflow.
    """
    value: np.ndarray = np.log2(total * pair / (first * second))
    return value


def top_pairs(
    pairs: Blocks,
    words: Blocks,
    total: int,
    *,
    least_count: int,
    threshold: float | None,
    cap: int,
    joint: str,
    folder: Path,
) -> list[tuple[str, float]]:
    """The pairs of highest PMI, with it; equal ones by code points.

    Args:
        pairs: counts of pairs.
        words: counts of words; those of some pairs are in memory at once.
        total: N.
        least_count: pairs seen less often are left out.
        threshold: pairs must reach this PMI (the release: 30 bits); None ranks alone.
        cap: the most pairs.
        joint: stands between the words of an entry: a space, or nothing in languages without.
        folder: exists; the words that are seen so often lie in it meanwhile.
    """
    kept = _SCORED.empty_table()
    with TemporaryDirectory(dir=folder, suffix=TEMPORARY) as temporary:
        often = Path(temporary, "words.parquet")
        write_blocks(often, _often(words, least_count))  # a pair's words are seen as often as the pair
        for rows in _often(pairs, least_count):
            scored = _scored(rows, often, total, joint)
            if threshold is not None:
                scored = scored.filter(pc.greater_equal(scored.column("pmi"), threshold))
            kept = ranked(pa.concat_tables([kept, scored]), "pmi", cap)
    return list(zip(kept.column("key").to_pylist(), kept.column("pmi").to_pylist(), strict=True))


def _often(blocks: Blocks, least_count: int) -> Blocks:
    """The rows that are seen so often, many at a time."""
    waiting, rows = [COUNTED.empty_table()], 0
    for block in blocks:
        waiting.append(block.filter(pc.greater_equal(block.column("count"), least_count)))
        rows += len(waiting[-1])
        if rows >= _RANKED:
            yield pa.concat_tables(waiting)
            waiting, rows = [COUNTED.empty_table()], 0
    yield pa.concat_tables(waiting)


def _scored(pairs: pa.Table, often: Path, total: int, joint: str) -> pa.Table:
    halves = pc.split_pattern(pairs.column("key").combine_chunks(), PAIR).flatten()
    wanted = halves.unique()
    found = (block.filter(pc.is_in(block.column("key"), value_set=wanted)) for block in read_blocks(often, ROWS))
    known = pa.concat_tables([COUNTED.empty_table(), *found]).combine_chunks()
    words = [halves.take(pa.array(np.arange(start, len(halves), 2))) for start in (0, 1)]
    counts = known.column("count").to_numpy().astype(np.float64)
    first, second = (counts[pc.index_in(word, value_set=known.column("key")).to_numpy()] for word in words)
    # The last bits of a logarithm differ from machine to machine; the order of the pairs must not.
    value = pmi(pairs.column("count").to_numpy().astype(np.float64), first, second, total).round(10)
    return pa.table([pc.binary_join_element_wise(*words, joint), value], schema=_SCORED)
