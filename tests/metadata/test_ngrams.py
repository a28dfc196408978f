"""Words and pairs: tokens, exact counts whatever the memory, PMI that is nltk's, on small texts and the real dumps."""

from __future__ import annotations

import gc
import random
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import nltk.collocations
import numpy as np
import pytest
from dumps import read, real_dumps
from hypothesis import given
from hypothesis import strategies as st

from worldclip.metadata import ngrams
from worldclip.metadata.counts import merged, read_blocks
from worldclip.metadata.ngrams import PAIR, Limits, count_ngrams, pmi, segmented, tokens, top_pairs

#: Category P of Unicode and these ASCII signs are marks, as `string.punctuation` has it.
SIGNS = set("$+<=>^`|~")


def counts_of(path: Path) -> dict[str, int]:
    rows = [row for block in read_blocks(path) for row in block.to_pylist()]
    assert [row["key"] for row in rows] == sorted({row["key"] for row in rows})
    return {row["key"]: row["count"] for row in rows}


def is_mark(token: str) -> bool:
    import unicodedata

    return len(token) == 1 and (unicodedata.category(token)[0] == "P" or token in SIGNS)


def naive(texts: list[str]) -> tuple[Counter[str], Counter[tuple[str, str]]]:
    """Words and pairs by the plain rule: pairs of neighbours, neither of them a mark."""
    words: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for text in texts:
        split = tokens(text)
        words.update(token for token in split if not is_mark(token))
        pairs.update((one, two) for one, two in pairwise(split) if not is_mark(one) and not is_mark(two))
    return words, pairs


def test_tokens() -> None:
    assert tokens("Ein <b>Hund</b>, don't-stop!") == ["Ein", "Hund", ",", "don", "'", "t", "-", "stop", "!"]
    assert tokens("我爱北京 ABC中x ไทย\U00020000y") == [*"我爱北京", "ABC", "中", "x", *"ไทย", "\U00020000", "y"]
    assert tokens("a\x01b\x1fc\u3000d <!-- no --> 5€ 𐏐x") == ["a", "b", "c", "d", "5€", "𐏐", "x"]
    split = segmented(lambda line: [line[:2], line[2:]])
    assert split("我爱北京 ABC（京（ 我爱）") == ["我爱", "北京", ".", "ABC", ".", "京", ".", ".", "我爱", ".", "."]
    assert "." in split("(a")


@given(st.lists(st.text(alphabet="ab .,猫\U0001f600ßé\n-", max_size=30), max_size=12), st.integers(1, 6))
def test_counts_are_those_of_plain_loops(tmp_path_factory: pytest.TempPathFactory, texts: list[str], few: int) -> None:
    words, pairs = naive(texts)
    folder = tmp_path_factory.mktemp("counts")
    total = count_ngrams(texts, tokens, folder, Limits(words=few, pairs=few))
    assert total == words.total()
    assert counts_of(folder / "words.parquet") == words
    assert counts_of(folder / "pairs.parquet") == {PAIR.join(pair): count for pair, count in pairs.items()}


def test_the_same_bytes_whatever_the_memory_and_nothing_left_over(tmp_path: Path) -> None:
    rng = random.Random(7)
    words = ["dog", "Dog", "猫", "café", ".", ",", "x\U0001f600", "naïve", "zz", "«", "zz\U0001f600", "zz!"]
    texts = [" ".join(rng.choices(words, k=rng.randrange(60))) for _ in range(300)]
    folders = {name: tmp_path / name for name in ("large", "small")}
    for folder, limits in zip(folders.values(), (Limits(), Limits(words=3, pairs=50)), strict=True):
        count_ngrams(texts, tokens, folder, limits)
        assert {path.name for path in folder.iterdir()} == {"words.parquet", "pairs.parquet"}
        assert counts_of(folder / "words.parquet") == naive(texts)[0]
    for kind in ("words", "pairs"):
        assert list(counts_of(folders["large"] / f"{kind}.parquet").items()) == list(
            counts_of(folders["small"] / f"{kind}.parquet").items()
        )


def test_words_leave_memory_with_their_run(tmp_path: Path) -> None:
    def held() -> int:
        return sum(type(each) is defaultdict for each in gc.get_objects())

    gc.disable()  # which would find cycles, but only now and then
    try:
        before = held()
        count_ngrams(["a b c d"] * 20, tokens, tmp_path, Limits(words=2, pairs=2))
        assert held() == before
    finally:
        gc.enable()


def nltk_pmi(texts: list[str]) -> dict[str, float]:
    """PMI by nltk, of pairs within stretches between marks; its N counts the words, as ours does."""
    finder = nltk.collocations.BigramCollocationFinder(nltk.FreqDist(), nltk.FreqDist())
    words, pairs = naive(texts)
    finder.word_fd.update(words)
    finder.ngram_fd.update(pairs)
    finder.N = words.total()
    return {" ".join(pair): score for pair, score in finder.score_ngrams(nltk.collocations.BigramAssocMeasures.pmi)}


def our_pmi(folder: Path, total: int, **options: float) -> dict[str, float]:
    choice = {"least_count": 1, "threshold": None, "cap": 10**7, "joint": " ", "folder": folder} | options
    return dict(top_pairs(merged([folder / "pairs.parquet"]), merged([folder / "words.parquet"]), total, **choice))


@pytest.mark.parametrize("at_once", [500_000, 7])
def test_pmi_is_that_of_nltk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(ngrams, "_RANKED", at_once)
    monkeypatch.setattr(ngrams, "ROWS", at_once)
    rng = random.Random(3)
    documents = [[f"w{int(rng.paretovariate(0.7)) % 50}" for _ in range(40)] for _ in range(50)]
    finder = nltk.collocations.BigramCollocationFinder.from_documents(documents)
    theirs = {f"{a} {b}": score for (a, b), score in finder.score_ngrams(nltk.collocations.BigramAssocMeasures.pmi)}
    total = count_ngrams(map(" ".join, documents), tokens, tmp_path)
    ours = our_pmi(tmp_path, total)
    assert ours.keys() == theirs.keys()
    assert all(abs(ours[pair] - theirs[pair]) < 1e-9 for pair in ours)
    ranked = sorted(ours, key=lambda pair: (-ours[pair], pair))
    assert list(our_pmi(tmp_path, total, cap=17)) == ranked[:17]
    assert list(our_pmi(tmp_path, total, threshold=2.0)) == [pair for pair in ranked if ours[pair] >= 2]
    often = our_pmi(tmp_path, total, least_count=5)
    assert often == {pair: ours[pair] for pair in often}
    assert len(often) == sum(count >= 5 for count in finder.ngram_fd.values())
    one = np.array([1.0])
    assert pmi(one, one, one, 2**29) == 29  # so 30 bits admit nothing below 2^30 tokens
    assert pmi(one, one, one, 2**30) == 30


@pytest.mark.packages
def test_counts_and_pmi_of_the_real_dumps(tmp_path: Path) -> None:
    texts = [text for path in real_dumps() for _, text in read(path)[0]]
    words, pairs = naive(texts)
    assert words.total() > 400_000
    total = count_ngrams(texts, tokens, tmp_path, Limits(words=20_000, pairs=40_000))
    assert total == words.total()
    assert counts_of(tmp_path / "words.parquet") == words
    assert counts_of(tmp_path / "pairs.parquet") == {PAIR.join(pair): count for pair, count in pairs.items()}
    theirs, ours = nltk_pmi(texts), our_pmi(tmp_path, total)
    assert len(ours) > 200_000
    assert ours.keys() == theirs.keys()
    assert max(abs(ours[pair] - theirs[pair]) for pair in ours) < 1e-9
