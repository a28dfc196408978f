"""Multilingual tokenizers with one end-of-sequence rule (paper, section 4.1, and its tokenizer ablation).

Every row of ids begins with <s>, ends its text with exactly one </s>, also after truncation, and is padded with
<pad>. The text tower reads its feature at the first </s>. A literal "</s>" inside a text is text, not a token.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence

import numpy as np
import sentencepiece
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from worldclip.errors import ConfigError, DataError

#: As XLM-V and XLM-R number them, and as SentencePiece spells them.
START, PAD, END, UNKNOWN = 0, 1, 2, 3
BATCH = 4096  #: texts encoded at a time

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")


def train_tokenizer(texts: Iterable[str], vocab_size: int, context_length: int) -> Tokenizer:
    """Train a Unigram tokenizer (SentencePiece's kind, as XLM-V's) on texts of any language.

    Args:
        texts: each text as often as it should weigh; the order does not change the result.
        vocab_size: pieces, special tokens included; fewer are made where the texts hold fewer.
        context_length: ids a row, special tokens included.

    Raises:
        ConfigError: `vocab_size` is too small for the number of different characters.
        DataError: there is no text to learn from.
    """
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    pieces = _unigram_pieces(sorted(normalizer.normalize_str(text) for text in texts), vocab_size)
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=UNKNOWN, byte_fallback=False))
    tokenizer.normalizer = normalizer
    # The special tokens are among the model's pieces: cut around "<", no text can spell one.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Split("<", behavior="isolated")]
    )
    return with_special_tokens(tokenizer, context_length)


def _unigram_pieces(texts: Sequence[str], vocab_size: int) -> list[tuple[str, float]]:
    """Pieces with their log-probabilities. SentencePiece's trainer is used because that of `tokenizers` gives other
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
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        character_coverage=1.0,
        max_sentence_length=max(10, 1 + max(len(text.encode()) for text in texts)),  # a longer one would be left out
        normalization_rule_name="identity",
        shuffle_input_sentence=False,
        num_threads=1,
        minloglevel=2,
        bos_id=START,
        pad_id=PAD,
        eos_id=END,
        unk_id=UNKNOWN,
    )
    trained = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return [(trained.id_to_piece(at), trained.get_score(at)) for at in range(len(trained))]


def with_special_tokens(tokenizer: Tokenizer, context_length: int) -> Tokenizer:
    """Make a tokenizer add <s> and </s>, truncate before </s>, and pad to `context_length`."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", START), ("</s>", END)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.enable_truncation(context_length)
    tokenizer.enable_padding(pad_id=PAD, pad_token=SPECIAL_TOKENS[PAD], length=context_length)
    return tokenizer


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    """Token ids, int64 [n, context_length]."""
    tokenizer.encode_special_tokens = True  # A literal "</s>" is text; tokenizer.json does not hold this setting.
    length = (tokenizer.truncation or {})["max_length"]
    ids = np.empty((len(texts), length), np.int64)
    for start in range(0, len(texts), BATCH):  # An encoding holds far more than its ids: a few at a time.
        encoded = tokenizer.encode_batch(list(texts[start : start + BATCH]))
        ids[start : start + len(encoded)] = [encoding.ids for encoding in encoded]
    return ids


def truncated(ids: np.ndarray, length: int) -> np.ndarray:
    """Ids cut to [n, length], the last one of a longer text replaced by </s>."""
    ids = ids[:, :length].copy()
    ids[(ids[:, -1] != PAD) & (ids[:, -1] != END), -1] = END
    return ids
