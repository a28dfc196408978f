"""The tokenizer: one end of sequence, whatever the text; and the same bytes each time it is trained."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from worldclip.errors import ConfigError, DataError
from worldclip.packages import Cache
from worldclip.tokenizer import END, PAD, SPECIAL_TOKENS, START, UNKNOWN, encode, train_tokenizer, truncated

LENGTH = 16
TEXTS = [
    "a small dog",
    "ein kleiner Hund",
    "子犬と猫",
    "หมากับแมว",
    "маленькая собака",
    "</s> <b>bold</b> & <s>",
    "كلب صغير",
] * 3


def reloaded(tokenizer: Tokenizer) -> Tokenizer:
    """As the next stage finds it: read from its file."""
    return Tokenizer.from_str(tokenizer.to_str(pretty=True))


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return reloaded(train_tokenizer(TEXTS, 120, LENGTH))


@pytest.fixture(scope="module")
def names(cache: Cache) -> list[str]:
    """Names and keywords of emoji in nine languages and seven scripts."""
    texts = set()
    for lang in ("ar", "de", "en", "hi", "ja", "ko", "ru", "th", "zh"):
        path = cache.path("cldr-annotations") / "annotations" / lang / "annotations.json"
        for entry in json.loads(path.read_text("utf-8"))["annotations"]["annotations"].values():
            texts.update(entry.get("tts", ()), entry.get("default", ())[:1])
    return sorted(texts)


def test_ids_of_special_tokens(small: Tokenizer) -> None:
    assert [small.token_to_id(token) for token in SPECIAL_TOKENS] == [START, PAD, END, UNKNOWN] == [0, 1, 2, 3]


ANY_TEXT = st.text() | st.lists(
    st.sampled_from([*SPECIAL_TOKENS, "＜/s＞", "</S>", " ", "a", "犬", "\n"]), max_size=24
).map("".join)


@given(texts=st.lists(ANY_TEXT, max_size=5))
def test_one_start_one_end_then_padding(small: Tokenizer, texts: list[str]) -> None:
    ids = encode(small, texts)
    assert (ids.shape, ids.dtype) == ((len(texts), LENGTH), np.int64)
    for row in ids.tolist():
        assert row[0] == START
        assert row.count(START) == row.count(END) == 1
        assert row[row.index(END) + 1 :] == [PAD] * (LENGTH - 1 - row.index(END))
        assert PAD not in row[: row.index(END)]


@pytest.mark.parametrize("text", ["dog " * 100, "</s>" * 100, "犬" * 100, "dog" * 3_000])
def test_a_long_text_is_cut_before_its_end(small: Tokenizer, text: str) -> None:
    (ids,) = encode(small, [text])
    assert (ids[0], ids[-1]) == (START, END)
    assert not set(ids[1:-1].tolist()) & {START, PAD, END}


@pytest.mark.parametrize("token", [*SPECIAL_TOKENS, "＜/s＞", "</S>"])
def test_a_literal_special_token_is_text(small: Tokenizer, token: str) -> None:
    for text in (token, f"a{token}b", f"a {token} b"):
        row = encode(small, [text])[0].tolist()
        pieces = [small.id_to_token(at) for at in row[1 : row.index(END)]]
        spelled = "".join(pieces).replace("▁", " ").strip()
        assert spelled == unicodedata.normalize("NFKC", text).lower() or UNKNOWN in row
        assert pieces[-1] not in SPECIAL_TOKENS or pieces[-1] == "<unk>"
        assert len(pieces) >= 3


def test_texts_differ_where_a_special_token_is_spelled(small: Tokenizer) -> None:
    ids = encode(small, ["a", "a</s>", "a<s>", "a<pad>"])
    assert len({tuple(row) for row in ids.tolist()}) == 4


def test_case_and_compatibility_forms_are_the_same(small: Tokenizer) -> None:
    ids = encode(small, ["a small dog", "A SMALL DOG", "ａ　ｓｍａｌｌ　ｄｏｇ"])
    assert (ids == ids[0]).all()
    assert (encode(small, ["が"]) == encode(small, ["か\u3099"])).all()


@given(text=ANY_TEXT, length=st.integers(2, LENGTH))
def test_cutting_ids_is_cutting_the_text(small: Tokenizer, text: str, length: int) -> None:
    short = reloaded(small)
    short.enable_truncation(length)
    short.enable_padding(pad_id=PAD, pad_token=SPECIAL_TOKENS[PAD], length=length)
    ids = encode(small, [text])
    before = ids.copy()
    assert truncated(ids, length).tolist() == encode(short, [text]).tolist()
    assert (ids == before).all()


def test_no_texts(small: Tokenizer) -> None:
    assert encode(small, []).shape == (0, LENGTH)
    assert truncated(encode(small, []), 4).shape == (0, 4)


@pytest.mark.packages
def test_real_names_are_told_apart_and_spelled_back(names: list[str]) -> None:
    assert len(names) > 10_000
    tokenizer = reloaded(train_tokenizer(names, 8_000, 77))
    assert tokenizer.get_vocab_size() == 8_000
    ids = encode(tokenizer, names)
    normal = [" ".join(unicodedata.normalize("NFKC", name).lower().split()) for name in names]
    assert not (ids == UNKNOWN).any()
    spelled = ["".join(map(tokenizer.id_to_token, row[row > UNKNOWN])).replace("▁", " ").strip() for row in ids]
    different = [(name, found) for name, found in zip(normal, spelled, strict=True) if name != found]
    assert different == []
    assert (ids != PAD).sum(1).mean() < 7  # pieces of several characters: a mean name has 11


TRAIN = """
import json, sys
from worldclip.tokenizer import train_tokenizer
texts = json.load(sys.stdin)
sys.stdout.buffer.write(train_tokenizer(texts, 3000, 77).to_str(pretty=True).encode())
"""


@pytest.mark.packages
def test_trained_in_other_processes_and_orders_it_is_the_same_bytes(names: list[str]) -> None:
    texts = [name for name in names if name.isascii() or len(name) % 3 == 0][:6000]
    found = set()
    for seed, threads, order in (("0", "1", 1), ("1", "2", -1)):
        env = {**os.environ, "PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        env["PYTHONPATH"] = str(Path(__file__).parents[2])
        done = subprocess.run(
            [sys.executable, "-c", TRAIN],
            input=json.dumps(texts[::order]).encode(),
            stdout=subprocess.PIPE,
            env=env,
            check=True,
        )
        found.add(hashlib.sha256(done.stdout).hexdigest())
    found.add(hashlib.sha256(train_tokenizer(texts, 3000, 77).to_str(pretty=True).encode()).hexdigest())
    assert len(found) == 1


def test_how_often_a_text_stands_there_counts() -> None:
    rare, often = ["ab cd"] * 2 + ["xy"] * 200, ["ab cd"] * 200 + ["xy"] * 2
    assert train_tokenizer(rare, 40, 8).to_str() != train_tokenizer(often, 40, 8).to_str()


def test_fewer_pieces_where_the_texts_hold_fewer() -> None:
    assert 10 < train_tokenizer(["abc abd abc"], 1_000, 8).get_vocab_size() < 20


def test_a_very_long_text_is_learned_from() -> None:
    tokenizer = train_tokenizer(["dog " * 5_000 + "犬"], 20, 8)
    assert UNKNOWN not in encode(tokenizer, ["犬"])


@pytest.mark.parametrize("texts", [[], ["", "  \n"]])
def test_nothing_to_learn_from(texts: list[str]) -> None:
    with pytest.raises(DataError, match="there is no text to learn from"):
        train_tokenizer(texts, 100, 8)


def test_a_vocabulary_smaller_than_the_alphabet() -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.vocab_size: is 8; .* it needs 10"):
        train_tokenizer(["abcde"], 8, 8)
    assert train_tokenizer(["abcde"], 10, 8).get_vocab_size() == 10
