"""Words of languages written without spaces, by segmenters that their own communities keep.

One protocol: a `Segmenter` takes a text and returns its words in order; white space may be among them. All come with
their models inside the package, in the extra `worldclip[segment]`; nothing is fetched when one is opened.

    bo dz  botok, syllables: its word dictionary is not packaged      ja ryu  MeCab (fugashi) with ipadic
    km     khmercut (CRF)      lo  LaoNLP      my  burmesenlp      th  PyThaiNLP, newmm
    zh zh_classical zh_yue  jieba (the paper: CKIP, which needs a download)
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from typing import Any

from worldclip.errors import MissingData

Segmenter = Callable[[str], list[str]]

EXTRA = "segment"


def segmenter(code: str) -> Segmenter | None:
    """The segmenter of a Wikipedia by its dump code; None where the recipe's general rule holds.

    Raises:
        MissingData: its package is not installed; names the extra that brings it.
    """
    make = _MAKERS.get(code)
    return make(code) if make else None


def _module(name: str, package: str, code: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingData(
            f"language {code}: words need the package {package} ({error}). "
            f"`pip install 'worldclip[{EXTRA}]'` brings it; or leave {code} out."
        ) from None


def _tibetan(code: str) -> Segmenter:
    chunks = _module("botok", "botok", code).TokChunks

    def cut(text: str) -> list[str]:
        made = chunks(text)
        made.serve_syls_to_trie()
        return list(made.get_syls())

    return cut


def _japanese(code: str) -> Segmenter:
    fugashi = _module("fugashi", "fugashi", code)
    ipadic = _module("ipadic", "ipadic", code)
    tagger = fugashi.GenericTagger(ipadic.MECAB_ARGS)
    return lambda text: [word.surface for word in tagger(text)]


def _khmer(code: str) -> Segmenter:
    cut = _module("khmercut", "khmercut", code).tokenize
    return lambda text: list(cut(text))


def _lao(code: str) -> Segmenter:
    cut = _module("laonlp.tokenize", "laonlp", code).word_tokenize
    return lambda text: list(cut(text))


def _burmese(code: str) -> Segmenter:
    cut = _module("burmesenlp.tokenize", "burmesenlp", code).word_tokenize
    return lambda text: list(cut(text))


def _thai(code: str) -> Segmenter:
    cut = _module("pythainlp.tokenize", "pythainlp", code).word_tokenize
    return lambda text: list(cut(text, engine="newmm", keep_whitespace=False))


def _chinese(code: str) -> Segmenter:
    jieba = _module("jieba", "jieba", code)
    jieba.setLogLevel(logging.WARNING)
    return lambda text: list(jieba.lcut(text, HMM=True))


_MAKERS: Mapping[str, Callable[[str], Segmenter]] = {
    "bo": _tibetan,
    "dz": _tibetan,
    "ja": _japanese,
    "ryu": _japanese,
    "km": _khmer,
    "lo": _lao,
    "my": _burmese,
    "th": _thai,
    "zh": _chinese,
    "zh_classical": _chinese,
    "zh_yue": _chinese,
}
