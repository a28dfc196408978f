"""What counts as an occurrence of an entry in a text (paper, section 3.2): its rule, and the corrected one.

`paper`. A text is put between two spaces, each of `, . ; : ? ! `` ` `` is surrounded by spaces, tabs and line ends
become spaces. An entry gets a leading space unless its first character is *unspaced* (of a script written without
spaces, or punctuation), and a trailing one unless its last is. It occurs where that is a substring.

`unicode`. Both sides are normalised (NFC, one space for a run of white space). An entry occurs where it is a substring
and a border lies on either side of it: everywhere but between two characters of one word of a spaced script, before a
combining mark, a variation selector or a small kana, and on either side of a zero-width joiner.

Both cut a text into *units*, and an entry into the same units wherever it stands: maximal runs of characters without a
border between them. `prepare.py` does so; matching (`trie.py`, `search.py`) knows nothing of either rule.
"""

from __future__ import annotations

import string
import unicodedata
from functools import cache

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worldclip.curation.texts import buffers
from worldclip.curation.wide import kernel

RULES = ("paper", "unicode")

#: Scripts written without spaces, as the paper's release lists them (kana is not among them).
UNSPACED_RANGES = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0x2CEB0, 0x2EBEF), (0xF900, 0xFAFF), (0x2E80, 0x2EFF), (0x2F00, 0x2FDF), (0x2FF0, 0x2FFF),
    (0x0E00, 0x0E7F), (0x0E80, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x0F00, 0x0FFF),
)  # fmt: skip
UNSPACED_MARKS = frozenset(string.punctuation + "，。、；：？！“”‘’（）【】《》〈〉「」『』～—.")
WRAPPED_MARKS = ",.;:?!`"
BLANKS = "\t\n\r"

#: Unicode's Line_Break classes SA and ID of letters, with kana, by block: scripts whose words no space divides.
#: Tibetan is not among them: its syllables end in a mark, which is a border anyway.
_SCRIPTS_WITHOUT_SPACES = (
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F), (0x1780, 0x17FF), (0x1950, 0x19DF),
    (0x1A20, 0x1AAF), (0xAA80, 0xAADF), (0x11700, 0x1174F),  # Thai, Lao, Burmese, Khmer, Tai scripts, Ahom
    (0x2E80, 0x2FDF), (0x3005, 0x3007), (0x3021, 0x3029), (0x3040, 0x30FF), (0x3100, 0x312F), (0x31A0, 0x31BF),
    (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA000, 0xA4CF), (0xF900, 0xFAFF), (0xFF66, 0xFF9F),
    (0x17000, 0x18DFF), (0x1AFF0, 0x1B2FF), (0x20000, 0x323AF),
)  # fmt: skip
#: Line_Break=CJ: small kana and the long vowel mark, which belong to the character before them.
_SMALL_KANA = "ぁぃぅぇぉっゃゅょゎゕゖァィゥェォッャュョヮヵヶㇰㇱㇲㇳㇴㇵㇶㇷㇸㇹㇺㇻㇼㇽㇾㇿーｧｨｩｪｫｬｭｮｯｰ"
_JOINER, _ZERO_WIDTH_SPACE = 0x200D, 0x200B
_LAST = 0x110000

#: Classes of the corrected rule: an ideograph or a mark, of a word, part of what it follows, a joiner, white, a border.
OTHER, WORD, EXTENDS, JOINS, WHITE, BREAKS = range(6)
#: Bits of a paper class; without one of them, letters and the space are as they are.
UNSPACED, TURNS_BLANK = 1, 2


def unspaced(character: str) -> bool:
    """Whether, by the paper's rule, a character needs no space beside it to be the border of an entry."""
    code = ord(character)
    return character in UNSPACED_MARKS or any(low <= code <= high for low, high in UNSPACED_RANGES)


def padded(entry: str) -> str:
    """An entry with the spaces that the paper's rule asks for; the empty entry, which never matches, stays empty."""
    if not entry:
        return ""
    return f"{'' if unspaced(entry[0]) else ' '}{entry}{'' if unspaced(entry[-1]) else ' '}"


def dead(entries: pa.Array | pa.ChunkedArray, rule: str) -> pa.BooleanArray:
    """Which entries no text can hold, bool [n]: by the paper's rule those with a wrapped mark that is not alone, by the
    corrected one only those of nothing but white space.
    """
    if rule == "paper":
        held = pc.match_substring_regex(entries, rf"[{BLANKS}]|[^ ][{WRAPPED_MARKS}]|[{WRAPPED_MARKS}][^ ]|^$")
    else:
        held = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(pc.replace_substring(entries, "\u200b", ""))), 0)
    return held.combine_chunks() if isinstance(held, pa.ChunkedArray) else held


@cache
def classes(rule: str) -> np.ndarray:
    """The class of each code point under a rule, uint8 [0x110000]."""
    table = np.zeros(_LAST, np.uint8)
    if rule == "paper":
        for low, high in UNSPACED_RANGES:
            table[low : high + 1] = UNSPACED
        table[[ord(mark) for mark in UNSPACED_MARKS]] = UNSPACED
        table[[ord(blank) for blank in BLANKS]] = TURNS_BLANK
        return table
    # Beyond these planes are variation selectors (below) and characters for private use.
    for code in range(0x32400):
        category = unicodedata.category(chr(code))
        if category[0] in "LN":
            table[code] = WORD
        elif category[0] == "M":
            table[code] = EXTENDS
        elif category[0] == "Z" or 9 <= code <= 13 or 28 <= code <= 31 or code == 0x85:
            table[code] = WHITE
    for low, high in _SCRIPTS_WITHOUT_SPACES:
        own = table[low : high + 1]
        own[own == WORD] = OTHER  # A unit by itself, as punctuation is.
    table[[ord(kana) for kana in _SMALL_KANA]] = EXTENDS
    table[0x1F3FB:0x1F400] = EXTENDS  # skin tones
    table[0x200C] = EXTENDS  # zero-width non-joiner
    table[0xE0020:0xE01F0] = EXTENDS  # tags and variation selectors
    table[_JOINER], table[_ZERO_WIDTH_SPACE] = JOINS, BREAKS
    return table


@cache
def folding(fold_case: bool) -> np.ndarray:
    """What each code point becomes, int32 [0x110000] when case is folded (one character for one), else [0]."""
    if not fold_case:
        return np.zeros(0, np.int32)
    table = np.arange(_LAST, dtype=np.int32)
    for code in range(0x1E944):  # no letter beyond has case
        if 0xD800 <= code < 0xE000:
            continue
        folded = chr(code).casefold()
        if len(folded) == 1:
            table[code] = ord(folded)
    return table


@cache
def _composition() -> np.ndarray:
    """Unicode's quick check of NFC, uint16 [0x32400]: the combining class, with 256 added where it cannot be "yes"."""
    table = np.zeros(0x32400, np.uint16)
    for code in range(0xC0, len(table)):
        if 0xAC00 <= code <= 0xD7A3 or 0xD800 <= code < 0xE000:
            continue
        character = chr(code)
        table[code] |= unicodedata.combining(character)
        decomposed = unicodedata.decomposition(character)
        if not decomposed or decomposed[0] == "<":
            continue
        if unicodedata.normalize("NFC", character) != character:
            table[code] |= 256
        elif len(parts := decomposed.split()) == 2:
            table[int(parts[1], 16)] |= 256  # It may compose with what stands before it.
    table[0x1161:0x1176] |= 256  # Hangul vowels and final consonants
    table[0x11A8:0x11C3] |= 256
    return table


def composed(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    """Texts in Unicode's normal form NFC; only those that may not be in it already are rewritten."""
    data, offsets = buffers(texts)
    doubtful = _doubtful(data, offsets, _composition())
    if not doubtful.any():
        return texts
    mask = pa.array(doubtful)
    return pc.replace_with_mask(texts, mask, pc.utf8_normalize(texts.filter(mask), form="NFC"))


@kernel
def decode(data, at):  # type: ignore[no-untyped-def]
    """The code point of valid UTF-8 at a position, and its length in bytes."""
    first = np.int64(data[at])
    if first < 0x80:
        return first, 1
    if first < 0xE0:
        return (first & 0x1F) << 6 | (np.int64(data[at + 1]) & 0x3F), 2
    if first < 0xF0:
        return (first & 0x0F) << 12 | (np.int64(data[at + 1]) & 0x3F) << 6 | (np.int64(data[at + 2]) & 0x3F), 3
    code = (first & 0x07) << 18 | (np.int64(data[at + 1]) & 0x3F) << 12
    return code | (np.int64(data[at + 2]) & 0x3F) << 6 | (np.int64(data[at + 3]) & 0x3F), 4


@numba.njit(cache=True, nogil=True)
def _doubtful(data, offsets, composition):  # type: ignore[no-untyped-def]
    """Bool [n]: texts that Unicode's quick check does not find to be in NFC."""
    doubtful = np.zeros(len(offsets) - 1, np.bool_)
    for row in range(len(offsets) - 1):
        at, last = offsets[row], 0
        while at < offsets[row + 1]:
            if data[at] < 0xC3:  # ASCII and what is below the first letter that decomposes
                at += 1 if data[at] < 0x80 else 2
                last = 0
                continue
            code, length = decode(data, at)
            kind = np.int64(composition[code]) if code < len(composition) else 0
            own = kind & 255
            if kind >= 256 or (own != 0 and own < last):
                doubtful[row] = True
                break
            last = own
            at += length
    return doubtful
