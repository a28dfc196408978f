"""A smaller vocabulary: covered texts keep their pieces, others their characters."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from worldclip.errors import DataError
from worldclip.tokenizer import OURS, UNKNOWN, encode, special_ids, train_tokenizer, with_rows
from worldclip.tokenizer.trim import trim

TEXTS = [
    *("a small dog runs", "ein kleiner hund läuft", "子犬と猫が走る", "หมากับแมว", "маленькая собака", "كلب صغير"),
    *("the small cat walks", "der hund und die katze", "猫と犬", "แมว", "большая собака и кошка", "dogs and cats"),
] * 4


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    kind: Literal["unigram", "bpe"] = request.param
    return train_tokenizer(TEXTS, 220, 16, kind)


@given(covered=st.lists(st.sampled_from(TEXTS), max_size=5), other=st.text(max_size=20) | st.sampled_from(TEXTS))
def test_covered_texts_keep_their_pieces_and_others_their_characters(
    tokenizer: Tokenizer, covered: list[str], other: str
) -> None:
    smaller, old = trim(tokenizer, covered)
    assert smaller.get_vocab_size() == len(old) <= tokenizer.get_vocab_size()
    assert special_ids(smaller) == OURS
    if covered:
        assert old[encode(smaller, covered)].tolist() == encode(tokenizer, covered).tolist()
    before, after = encode(tokenizer, [other])[0], encode(smaller, [other])[0]
    assert (UNKNOWN in after) <= (UNKNOWN in before) or len(before[before == 1]) == 0  # a cut may move
    assert np.count_nonzero(after == 2) == 1


def test_it_becomes_smaller(tokenizer: Tokenizer) -> None:
    smaller, old = trim(tokenizer, TEXTS[:1])
    assert len(old) < tokenizer.get_vocab_size()
    assert smaller.token_to_id("▁dog") is not None or smaller.token_to_id("dog") is not None
    assert smaller.token_to_id("▁собака") is None
    assert old.tolist() == sorted(set(old.tolist()))


def test_it_may_be_trimmed_again_and_saved(tokenizer: Tokenizer) -> None:
    smaller, old = trim(tokenizer, TEXTS)
    again, older = trim(Tokenizer.from_str(smaller.to_str()), TEXTS[:2])
    assert old[older][encode(again, TEXTS[:2])].tolist() == encode(tokenizer, TEXTS[:2]).tolist()


def test_special_ids_are_numbered_anew() -> None:
    tokenizer = train_tokenizer(TEXTS, 220, 16)
    pieces = [(tokenizer.id_to_token(at), float(-at)) for at in range(tokenizer.get_vocab_size())]
    order = [*range(3, len(pieces)), 0, 1, 2]  # the special tokens last, as CLIP has them
    moved = Tokenizer(models.Unigram([pieces[at] for at in order], unk_id=0))
    moved.pre_tokenizer = tokenizer.pre_tokenizer
    ids = {name: moved.token_to_id(name) for name in ("<s>", "<pad>", "</s>")}
    special = type(OURS)(start=ids["<s>"], pad=ids["<pad>"], end=ids["</s>"])
    with_rows(moved, special, 16)
    smaller, old = trim(moved, TEXTS[:2])
    found = special_ids(smaller)
    assert [old[at] for at in (found.start, found.pad, found.end)] == [special.start, special.pad, special.end]
    assert old[encode(smaller, TEXTS[:2])].tolist() == encode(moved, TEXTS[:2]).tolist()


def test_other_models_are_refused() -> None:
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "dog": 4}
    tokenizer = with_rows(Tokenizer(models.WordLevel(words, unk_token="<unk>")), OURS, 8)
    with pytest.raises(DataError, match="a WordLevel model cannot be trimmed; Unigram and BPE can"):
        trim(tokenizer, ["dog"])
