"""Tokenizers of others: any `tokenizer.json` or SentencePiece `.model`, made to write rows by our one rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from worldclip.errors import ConfigError, DataError, MissingData
from worldclip.tokenizer.rows import SPECIAL_TOKENS, UNKNOWN, SpecialIds, spell_out, with_rows
from worldclip.tokenizer.training import bpe_model

#: How families spell a row: start (None: rows begin with the text), padding, end. The first whose tokens a tokenizer
#: has is taken where none is asked for.
CONVENTIONS: dict[str, tuple[str | None, str, str]] = {
    "gemma": ("<bos>", "<pad>", "<eos>"),
    "xlm": ("<s>", "<pad>", "</s>"),  # XLM-R, XLM-V, and what is trained here
    "clip": ("<|startoftext|>", "<|endoftext|>", "<|endoftext|>"),
    "t5": (None, "<pad>", "</s>"),
    "siglip": (None, "</s>", "</s>"),  # mT5's vocabulary as SigLIP's multilingual models use it
    "siglip2": (None, "<pad>", "<eos>"),  # Gemma's vocabulary as SigLIP 2 uses it
}

#: Kinds of a SentencePiece piece, and of a model.
_BYTE, _UNIGRAM, _BPE = 6, 1, 2


def open_tokenizer(path: Path, context_length: int, convention: str | None = None) -> Tokenizer:
    """Read a tokenizer from a file, or from the folder that holds one.

    Args:
        path: `tokenizer.json` of `tokenizers`, or a SentencePiece model. A model whose first pieces are `<unk>`, `<s>`
            and `</s>` and that has no padding gets the ids of XLM-R and XLM-V: `<s>`, `<pad>`, `</s>`, `<unk>`, its
            own pieces, `<mask>`.
        context_length: ids a row, special tokens included.
        convention: one of CONVENTIONS; None takes the first that fits.

    Raises:
        MissingData: there is no such file.
        DataError: it is neither kind of file, or lacks the tokens of the convention.
        ConfigError: there is no such convention.
    """
    if convention is not None and convention not in CONVENTIONS:
        raise ConfigError(f"tokenizer convention {convention!r}: allowed are {', '.join(CONVENTIONS)}.")
    tokenizer = read_tokenizer(path)
    names = [convention] if convention else list(CONVENTIONS)
    for name in names:
        first, padding, last = CONVENTIONS[name]
        start = tokenizer.token_to_id(first) if first else None
        pad, end = tokenizer.token_to_id(padding), tokenizer.token_to_id(last)
        if pad is not None and end is not None and (first is None or start is not None):
            break
    else:
        wanted = "; ".join(f"{name}: {' '.join(filter(None, CONVENTIONS[name]))}" for name in names)
        raise DataError(f"{path}: lacks the tokens of a row. It needs those of one of: {wanted}.")
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    spell_out(tokenizer, {*filter(None, CONVENTIONS[name]), *added})
    return with_rows(tokenizer, SpecialIds(start=start, pad=pad, end=end), context_length)


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a file or folder as it is, before it writes rows.

    Raises:
        MissingData: there is no such file.
        DataError: it is neither kind of file.
    """
    file = _file(path)
    return _from_json(file) if file.suffix == ".json" else from_sentencepiece(_bytes(file), str(file))


def _file(path: Path) -> Path:
    if path.is_dir():
        found = [path / "tokenizer.json"] if (path / "tokenizer.json").exists() else sorted(path.glob("*.model"))
        if len(found) != 1:
            raise MissingData(
                f"{path}: holds {len(found)} tokenizers. Give a folder with one tokenizer.json or *.model."
            )
        return found[0]
    if not path.is_file():
        raise MissingData(f"{path}: no such file. Give a tokenizer.json, a SentencePiece .model, or a folder with one.")
    return path


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _from_json(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_str(_bytes(path).decode())
    except Exception as error:  # tokenizers raises a bare Exception
        raise DataError(f"{path}: is not a tokenizer.json of tokenizers ({str(error)[:200]}).") from error


def from_sentencepiece(model: bytes, where: str) -> Tokenizer:
    """A SentencePiece model (Unigram or BPE) as a `Tokenizer` of the same pieces, normaliser and white space.

    Raises:
        DataError: the bytes are not such a model.
    """
    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(model)
    except DecodeError as error:
        raise DataError(f"{where}: is neither a tokenizer.json nor a SentencePiece model ({error}).") from error
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    if not pieces or proto.trainer_spec.model_type not in {_UNIGRAM, _BPE}:
        raise DataError(f"{where}: a SentencePiece model of {len(pieces)} pieces that is neither Unigram nor BPE.")
    bytewise = any(piece.type == _BYTE for piece in proto.pieces)
    unknown = next(at for at, piece in enumerate(proto.pieces) if piece.type == 2)
    if [piece for piece, _ in pieces[:3]] == ["<unk>", "<s>", "</s>"] and "<pad>" not in dict(pieces):
        pieces = [(token, 0.0) for token in SPECIAL_TOKENS] + pieces[3:] + [("<mask>", 0.0)]
        unknown = UNKNOWN
    if proto.trainer_spec.model_type == _UNIGRAM:
        tokenizer = Tokenizer(models.Unigram(pieces, unk_id=unknown, byte_fallback=bytewise))
    else:
        tokenizer = Tokenizer(bpe_model(pieces, pieces[unknown][0], byte_fallback=bytewise))
    _spell_as(tokenizer, proto.normalizer_spec, inner_space=any("▁" in piece[1:] for piece, _ in pieces))
    return tokenizer


def _spell_as(tokenizer: Tokenizer, spec: Any, *, inner_space: bool) -> None:
    """Normalise and mark white space as a SentencePiece model does. Words are cut apart where no piece spans two."""
    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    if steps:
        tokenizer.normalizer = normalizers.Sequence(steps)
    scheme = "always" if spec.add_dummy_prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=not inner_space)
