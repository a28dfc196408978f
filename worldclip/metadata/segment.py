"""Words of languages written without spaces, by segmenters that their own communities keep.

One protocol: a `Segmenter` takes a text and returns its words in order; white space may be among them. All but CKIP
come with their models inside the package, in the extra `worldclip[segment]`; nothing is fetched when one is opened.

    bo dz  botok, syllables: its word dictionary is not packaged      ja ryu  MeCab (fugashi) with ipadic
    km     khmercut (CRF)      lo  LaoNLP      my  burmesenlp      th  PyThaiNLP, newmm
    zh zh_classical zh_yue  jieba, over OpenCC's simplified characters; or CKIP, the paper's, which fetches its model
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from worldclip.errors import MissingData

Segmenter = Callable[[str], list[str]]

#: jieba brings its words with it; CKIP, the paper's, fetches a model and needs torch.
Chinese = Literal["jieba", "ckip"]


def segmenter(code: str, chinese: Chinese = "jieba") -> Segmenter | None:
    """The segmenter of a Wikipedia by its dump code; None where the recipe's general rule holds.

    Raises:
        MissingData: its package is not installed, and what brings it; or the model of CKIP is not there.
    """
    make = _MAKERS.get(code)
    if make is _chinese and chinese == "ckip":
        make = _ckip
    return make(code) if make else None


def _module(name: str, package: str, code: str, brought_by: str = "worldclip[segment]") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingData(
            f"language {code}: words need the package {package} ({error}). "
            f"`pip install '{brought_by}'` brings it; or leave {code} out."
        ) from None


def _tibetan(code: str) -> Segmenter:
    chunks = _module("botok", "botok", code).TokChunks

    def cut(text: str) -> list[str]:
        found: list[str] = []
        # botok's syllables are those of Tibetan letters alone: signs that end a sentence and other scripts are kept.
        for tibetan, other in _TIBETAN.findall(text):
            if tibetan:
                made = chunks(tibetan)
                made.serve_syls_to_trie()
                found += made.get_syls()
            else:
                found.append(other)
        return found

    return cut


#: Letters and what stands between syllables; words and signs of all else.
_TIBETAN = re.compile("([\u0f00-\u0f0c\u0f15-\u0f39\u0f3e-\u0fcf\u0fd5-\u0fff]+)|([^\\W\u0f00-\u0fff]+|\\S)")


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
    lexicon = _module("burmesenlp.lexicon", "burmesenlp", code).Lexicon.default()  # or it is read again at each call
    return lambda text: list(cut(text, lexicon=lexicon))


def _thai(code: str) -> Segmenter:
    cut = _module("pythainlp.tokenize", "pythainlp", code).word_tokenize
    return lambda text: list(cut(text, engine="newmm", keep_whitespace=False))


def _chinese(code: str) -> Segmenter:
    jieba = _module("jieba", "jieba", code)
    jieba.setLogLevel(logging.WARNING)
    # jieba's words are simplified, Wikipedia's text is in both: what is cut is the simplified text, character by
    # character as long as the other.
    simplified = _module("opencc", "opencc", code).OpenCC("t2s").convert
    guess = code != "zh_classical"  # words that the dictionary lacks, by a model of today's language

    def cut(text: str) -> list[str]:
        read = simplified(text)
        found, at = [], 0
        for word in jieba.cut(read if len(read) == len(text) else text, HMM=guess):
            found.append(text[at : at + len(word)])
            at += len(word)
        return found

    return cut


def _ckip(code: str) -> Segmenter:
    words = _module("ckip_transformers.nlp", "ckip-transformers", code, "ckip-transformers").CkipWordSegmenter
    try:
        driver = words(model="bert-base")
    except OSError as error:
        raise MissingData(
            f"language {code}: the model of CKIP is not on this machine and cannot be fetched ({error}). "
            "Fetch ckiplab/bert-base-chinese-ws first, or leave out metadata.chinese=ckip."
        ) from None
    return lambda text: list(driver([text], show_progress=False)[0])


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
