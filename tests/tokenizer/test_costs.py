"""What texts cost: counted by hand on small ones."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from worldclip.tokenizer import OURS, train_tokenizer, with_rows
from worldclip.tokenizer.costs import Cost, text_costs


def test_counted_by_hand() -> None:
    words = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "dog": 5}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with_rows(tokenizer, OURS, 5)
    texts = {"en": ["a dog"] * 18 + ["a dog a dog", "a a a a a a"], "de": ["ein Hund"], "fr": []}
    english, german = text_costs(tokenizer, texts)
    assert english == Cost(
        lang="en",
        texts=20,
        tokens=(18 * 4 + 6 + 8) / 20,
        p95=6,
        truncated=0.1,
        unknown=0.0,
        characters=(18 * 5 + 11 + 11) / (18 * 4 + 6 + 8),
    )
    assert (german.tokens, german.unknown, german.truncated) == (4.0, 0.5, 0.0)
    assert tokenizer.truncation is not None  # as it was


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_unknown_characters_are_counted_in_either_kind(kind: str) -> None:
    tokenizer = train_tokenizer(["a dog", "a cat"] * 5, 30, 8, kind)
    (found,) = text_costs(tokenizer, {"ja": ["犬"]})
    assert found.unknown > 0
    (found,) = text_costs(tokenizer, {"en": ["a dog"]})
    assert found.unknown == 0
