"""Tokenizers of others: SentencePiece's own encoding judges what is read from its files."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import XLMRobertaTokenizer

from worldclip.errors import ConfigError, DataError, MissingData
from worldclip.tokenizer import OURS, SpecialIds, encode, special_ids, train_tokenizer
from worldclip.tokenizer.files import CONVENTIONS, open_tokenizer

TEXTS = [
    *("A small dog runs.", "Ein kleiner Hund läuft", "子犬と猫が走る", "หมากับแมว", "маленькая собака", "كلب صغير"),
    *(
        "chó con",
        "강아지",
        "ｆｕｌｌ　ｗｉｄｔｈ",
        "snow ☃ man",
        "don't stop",
        "12,345.6",
        "köpek yavrusu",
        "mbwa mdogo",
    ),
] * 5
CONTEXT = 24

XLM = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}  # the file's ids; the model's are others
MT5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
GEMMA = {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, "eos_piece": "<eos>", "bos_piece": "<bos>"}
FAMILIES = {
    "xlm": (XLM, {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc"}),
    "t5": (MT5, {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc", "byte_fallback": True}),
    "gemma": (
        GEMMA,
        {
            "model_type": "bpe",
            "normalization_rule_name": "identity",
            "byte_fallback": True,
            "add_dummy_prefix": False,
            "remove_extra_whitespaces": False,
        },
    ),
}


def trained(family: str) -> bytes:
    ids, options = FAMILIES[family]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        vocab_size=500,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
        **ids,
        **options,
    )
    return model.getvalue()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes, Tokenizer]:
    model = trained(request.param)
    path = tmp_path_factory.mktemp(request.param) / "sentencepiece.model"
    path.write_bytes(model)
    return request.param, model, open_tokenizer(path, CONTEXT)


WORDS = st.lists(
    st.sampled_from([*" \n\t", "  ", "a", "dog", "Hund", "子犬", "หมา", "☃", "é", "e\u0301", "ﬁ", "１", "§", "🐶"]),
    max_size=14,
).map("".join)


@settings(max_examples=300)
@given(text=WORDS | st.sampled_from(TEXTS))
def test_pieces_are_those_of_sentencepiece(family: tuple[str, bytes, Tokenizer], text: str) -> None:
    name, model, tokenizer = family
    judge = sentencepiece.SentencePieceProcessor(model_proto=model)
    free = Tokenizer.from_str(tokenizer.to_str())
    free.no_truncation()
    free.no_padding()
    expected = judge.encode(text, out_type=int)
    if name == "xlm":
        expected = [at + 1 if at else 3 for at in expected]
    start = CONVENTIONS[name][0] is not None
    assert free.encode(text).ids[start:-1] == expected


def test_xlm_files_give_the_ids_that_transformers_gives(tmp_path: Path) -> None:
    (tmp_path / "sentencepiece.bpe.model").write_bytes(trained("xlm"))
    theirs = XLMRobertaTokenizer.from_pretrained(tmp_path)
    ours = open_tokenizer(tmp_path, CONTEXT)
    assert special_ids(ours) == OURS
    assert len(theirs) == ours.get_vocab_size()
    assert theirs.convert_tokens_to_ids("<mask>") == ours.token_to_id("<mask>")
    for text in TEXTS:
        expected = theirs(text, padding="max_length", truncation=True, max_length=CONTEXT)["input_ids"]
        assert encode(ours, [text])[0].tolist() == expected


@given(texts=st.lists(st.text() | WORDS, max_size=4))
def test_rows_begin_end_and_are_padded_by_the_one_rule(family: tuple[str, bytes, Tokenizer], texts: list[str]) -> None:
    name, _, tokenizer = family
    special = special_ids(tokenizer)
    assert (
        special
        == {"xlm": OURS, "t5": SpecialIds(start=None, pad=0, end=1), "gemma": SpecialIds(start=2, pad=0, end=1)}[name]
    )
    ids = encode(tokenizer, [*texts, "a" * 500, *CONVENTIONS[name][1:], f"x{CONVENTIONS[name][2]}y"])
    assert ids.shape[1] == CONTEXT
    for row in ids.tolist():
        assert row.count(special.end) == 1
        assert special.start is None or (row[0] == special.start and row.count(special.start) == 1)
        at = row.index(special.end)
        assert row[at + 1 :] == [special.pad] * (CONTEXT - 1 - at)
        assert special.pad not in row[:at]


def test_padding_that_is_the_end(tmp_path: Path) -> None:
    (tmp_path / "x.model").write_bytes(trained("t5"))
    tokenizer = open_tokenizer(tmp_path, 10, convention="siglip")
    assert special_ids(tokenizer) == SpecialIds(start=None, pad=1, end=1)
    row = encode(tokenizer, ["a </s> dog"])[0].tolist()
    assert row[row.index(1) :] == [1] * (10 - row.index(1))
    assert row.index(1) > 4
    assert encode(tokenizer, ["dog " * 50])[0].tolist().index(1) == 9


def test_bytes_of_clip(tmp_path: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(f"{each}</w>" for each in alphabet), "do", "dog</w>", "<|startoftext|>", "<|endoftext|>"]
    model = models.BPE(
        vocab={word: at for at, word in enumerate(words)},
        merges=[("d", "o"), ("do", "g</w>")],
        end_of_word_suffix="</w>",
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    opened = open_tokenizer(tmp_path / "tokenizer.json", 12)
    start, end = words.index("<|startoftext|>"), words.index("<|endoftext|>")
    assert encode(opened, ["dog"])[0].tolist() == [start, words.index("dog</w>"), *[end] * 10]
    assert encode(opened, ["<|endoftext|>"])[0].tolist().count(end) == 1


def test_a_file_of_ours_is_read_as_it_was(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, 300, CONTEXT)
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    opened = open_tokenizer(tmp_path, CONTEXT)
    assert json.loads(opened.to_str())["pre_tokenizer"] == json.loads(tokenizer.to_str())["pre_tokenizer"]
    assert encode(opened, TEXTS).tolist() == encode(tokenizer, TEXTS).tolist()


@pytest.mark.parametrize(
    ("name", "content", "error", "told"),
    [
        ("tokenizer.json", b"{}", DataError, "is not a tokenizer.json"),
        ("x.model", b"\xff\xff not a model", DataError, "is neither a tokenizer.json nor a SentencePiece model"),
        ("x.model", b"", DataError, "of 0 pieces"),
        ("other.txt", b"", MissingData, "holds 0 tokenizers"),
    ],
)
def test_files_that_hold_no_tokenizer(
    tmp_path: Path, name: str, content: bytes, error: type[Exception], told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=told):
        open_tokenizer(tmp_path, CONTEXT)


def test_what_is_asked_for_and_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="no such file"):
        open_tokenizer(tmp_path / "x.model", CONTEXT)
    (tmp_path / "x.model").write_bytes(trained("t5"))
    with pytest.raises(ConfigError, match="allowed are gemma, xlm, clip, t5, siglip, siglip2"):
        open_tokenizer(tmp_path, CONTEXT, convention="bert")
    with pytest.raises(DataError, match="It needs those of one of: gemma: <bos> <pad> <eos>"):
        open_tokenizer(tmp_path, CONTEXT, convention="gemma")
    with pytest.raises(ConfigError, match=r"context_length: is 1; needs more than the 1 special token"):
        open_tokenizer(tmp_path, 1)
