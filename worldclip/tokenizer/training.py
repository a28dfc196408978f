"""A tokenizer of one's own, from curated text: Unigram (as XLM-V's and mT5's) or BPE (as Gemma's)."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Literal

import sentencepiece
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from worldclip.errors import ConfigError, DataError
from worldclip.tokenizer.rows import END, OURS, PAD, SPECIAL_TOKENS, START, UNKNOWN, spell_out, with_rows


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, context_length: int, kind: Literal["unigram", "bpe"] = "unigram"
) -> Tokenizer:
    """Train a tokenizer on texts of any language; texts are folded by NFKC and to lower case.

    Args:
        texts: each text as often as it should weigh; the order does not change the result.
        vocab_size: pieces, special tokens included; fewer are made where the texts hold fewer.
        context_length: ids a row, special tokens included.

    Raises:
        ConfigError: `vocab_size` is too small for the number of different characters.
        DataError: there is no text to learn from.
    """
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    pieces = _pieces(sorted(normalizer.normalize_str(text) for text in texts), vocab_size, kind)
    tokenizer = Tokenizer(
        models.Unigram(pieces, unk_id=UNKNOWN, byte_fallback=False) if kind == "unigram" else bpe_model(pieces)
    )
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    spell_out(tokenizer, SPECIAL_TOKENS)
    return with_rows(tokenizer, OURS, context_length)


def bpe_model(
    pieces: Sequence[tuple[str, float]], unknown: str = SPECIAL_TOKENS[UNKNOWN], *, byte_fallback: bool = False
) -> models.BPE:
    """SentencePiece's BPE: pieces whose scores say in which order pairs are merged, best first."""
    ids = {piece: at for at, (piece, _) in enumerate(pieces)}
    merges = []
    for piece, score in pieces:
        splits = [(piece[:at], piece[at:]) for at in range(1, len(piece))]
        merges += [
            (-score, ids[left], ids[right], left, right) for left, right in splits if left in ids and right in ids
        ]
    return models.BPE(
        vocab=ids,
        merges=[(left, right) for *_, left, right in sorted(merges)],
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=byte_fallback,
    )


def _pieces(texts: Sequence[str], vocab_size: int, kind: str) -> list[tuple[str, float]]:
    """Pieces with their scores. SentencePiece's trainer is used because that of `tokenizers` gives other
    scores and another order each time; with one thread this one always gives the same.
    """
    if not any(text.strip() for text in texts):
        raise DataError("tokenizer: there is no text to learn from. Check what curation kept.")
    least = len(set().union(*texts)) + len(SPECIAL_TOKENS) + 1
    if vocab_size < least:
        raise ConfigError(
            f"tokenizer.vocab_size: is {vocab_size}; the texts hold so many different characters that it needs {least}."
        )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            model_type=kind,
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            # A longer one would be left out.
            max_sentence_length=max(10, 1 + max(len(text.encode()) for text in texts)),
            normalization_rule_name="identity",
            shuffle_input_sentence=False,
            num_threads=1,
            minloglevel=2,
            bos_id=START,
            pad_id=PAD,
            eos_id=END,
            unk_id=UNKNOWN,
        )
    except RuntimeError as error:
        raise ConfigError(f"tokenizer: SentencePiece's {kind} trainer refused ({error}).") from error
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [(trained.id_to_piece(at), trained.get_score(at)) for at in range(len(trained))]
