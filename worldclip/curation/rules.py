"""What counts as an occurrence of an entry in a text (paper, section 3.2): its rule, and the corrected one.

`paper`. A text is put between two spaces, each of `, . ; : ? ! `` ` `` is surrounded by spaces, tabs and line ends
become spaces. An entry gets a leading space unless its first character is *unspaced* (of a script written without
spaces, or punctuation), and a trailing one unless its last is. It occurs where that is a substring.

`unicode`. Both sides are normalised (NFC, one space for a run of white space). An entry occurs where it is a substring
and a border lies on either side of it: everywhere but between two characters of one word of a spaced script, before a
combining mark, a variation selector or a small kana, and on either side of a zero-width joiner.

Both cut a text into *units*, and an entry into the same units wherever it stands: maximal runs of characters without a
border between them. Texts are prepared as two arrays of bytes: the text, and a mark for each byte, which tells where
units begin. Matching (`trie.py`) knows nothing else of either rule.
"""

from __future__ import annotations

import string
import unicodedata
from functools import cache
from typing import Any

import numba
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from worldclip.curation.texts import buffers

RULES = ("paper", "unicode")

#: Marks of prepared bytes. Only a spaced word that no space precedes cannot begin an entry of the paper's rule. The
#: last one follows each text, on a byte that occurs in no UTF-8.
INSIDE, BEGINS, SPACE, CANNOT_BEGIN, ENDS = 0, 1, 2, 3, 4
END = 0xFF
_BLANK = 32

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

_OTHER, _WORD, _EXTENDS, _JOINS, _WHITE, _BREAKS = range(6)
#: Bits of a paper class; without one of them, letters and the space are as they are.
_UNSPACED, _WRAPPED, _TURNS_BLANK = 1, 2, 4

#: Positions are unsigned in kernels: of a signed one numba asks each time whether it counts from the end.
_U1, _U2, _U7, _U8, _U56 = np.uint64(1), np.uint64(2), np.uint64(7), np.uint64(8), np.uint64(56)
#: A byte of 1, eight times: what is multiplied with it is repeated.
EACH = np.uint64(0x0101010101010101)
_HIGH, _LOW, _BLANKS = EACH * np.uint64(0x80), EACH * np.uint64(0x7F), EACH * np.uint64(_BLANK)


@intrinsic  # type: ignore[untyped-decorator]
def eight(_typing: Any, data: Any, at: Any) -> Any:  # noqa: ARG001
    """Eight bytes of an array of bytes from any position on, the first lowest. Nothing checks that they are there."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, values[0])
        place = builder.gep(array.data, [values[1]])
        return builder.load(builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(data, types.uint64), code


@intrinsic  # type: ignore[untyped-decorator]
def put_eight(_typing: Any, data: Any, at: Any, word: Any) -> Any:  # noqa: ARG001
    """Write eight bytes, the lowest first. Nothing checks that there is room."""

    def code(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, values[0])
        place = builder.gep(array.data, [values[1]])
        builder.store(values[2], builder.bitcast(place, ir.IntType(64).as_pointer()), align=1)
        return context.get_dummy_value()

    return types.none(data, types.uint64, types.uint64), code


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
            table[low : high + 1] = _UNSPACED
        table[[ord(mark) for mark in UNSPACED_MARKS]] = _UNSPACED
        table[[ord(mark) for mark in WRAPPED_MARKS]] |= _WRAPPED
        table[[ord(blank) for blank in BLANKS]] = _TURNS_BLANK
        return table
    # Beyond these planes are variation selectors (below) and characters for private use.
    for code in range(0x32400):
        category = unicodedata.category(chr(code))
        if category[0] in "LN":
            table[code] = _WORD
        elif category[0] == "M":
            table[code] = _EXTENDS
        elif category[0] == "Z" or 9 <= code <= 13 or 28 <= code <= 31 or code == 0x85:
            table[code] = _WHITE
    for low, high in _SCRIPTS_WITHOUT_SPACES:
        own = table[low : high + 1]
        own[own == _WORD] = _OTHER  # A unit by itself, as punctuation is.
    table[[ord(kana) for kana in _SMALL_KANA]] = _EXTENDS
    table[0x1F3FB:0x1F400] = _EXTENDS  # skin tones
    table[0x200C] = _EXTENDS  # zero-width non-joiner
    table[0xE0020:0xE01F0] = _EXTENDS  # tags and variation selectors
    table[_JOINER], table[_ZERO_WIDTH_SPACE] = _JOINS, _BREAKS
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


@numba.njit(cache=True, nogil=True)
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


@numba.njit(cache=True, nogil=True)
def _others(word):  # type: ignore[no-untyped-def]
    """The high bit of each of eight bytes that is no letter or digit of ASCII, and no space."""
    # Sums reach a byte's high bit where it is not less than some character; capitals, digits and spaces as small ones.
    small = (word | _BLANKS) & _LOW
    letters = (small + EACH * np.uint64(0x80 - 0x61)) & ~(small + EACH * np.uint64(0x80 - 0x7B))
    digits = (small + EACH * np.uint64(0x80 - 0x30)) & ~(small + EACH * np.uint64(0x80 - 0x3A))
    spaces = ~(small + EACH * np.uint64(0x80 - 0x21))
    return ~((letters | digits | spaces) & ~word) & _HIGH


@numba.njit(cache=True, nogil=True)
def prepare_paper(data, begin, end, is_entry, classes, text, mark, at):  # type: ignore[no-untyped-def]
    """Write one text, or one entry, by the paper's rule from `at`; return where it ends.

    A text becomes at most three times as long, and two bytes more, and there is room for eight more. Entries are
    padded, and keep their marks.
    """
    at, position, end = np.uint64(at), np.uint64(begin), np.uint64(end)
    following = INSIDE  # the mark of a letter that comes next
    if not is_entry or not classes[decode(data, position)[0]] & _UNSPACED:
        text[at], mark[at] = _BLANK, SPACE
        at += _U1
        following = BEGINS
    while position < end:
        byte = data[position]
        if byte < 0x80 and position + _U8 <= np.uint64(len(data)):
            word = eight(data, position)
            others = _others(word)
            blank = ~(((word ^ _BLANKS) & _LOW) + _LOW) >> _U7 & EACH
            begins = (blank << _U8 | np.uint64(following)) & ~(blank * np.uint64(0xFF))
            put_eight(text, at, word)  # What is written beyond is written over.
            put_eight(mark, at, begins | blank << _U1)
            if not others and position + _U8 <= end:
                following = blank >> _U56
                at += _U8
                position += _U8
                continue
            below = (others - _U1) & ~others
            plain = min((below >> _U7 & EACH) * EACH >> _U56, end - position)
            if plain:
                following = blank >> (plain * _U8 - _U8) & _U1
                at += plain
                position += plain
                if position == end:
                    break
                byte = data[position]
        code, length = np.int64(byte), _U1
        if byte >= 0x80:
            code, many = decode(data, position)
            length = np.uint64(many)
        kind = classes[code]
        if kind == 0:  # Spaces come as they please: no branch is made for them.
            text[at], mark[at] = byte, SPACE if byte == _BLANK else following
            following = BEGINS if byte == _BLANK else INSIDE
        elif not is_entry and kind & _TURNS_BLANK:
            text[at], mark[at] = _BLANK, SPACE
            following = BEGINS
        elif not is_entry and kind & _WRAPPED:
            text[at], mark[at] = _BLANK, SPACE
            text[at + _U1], mark[at + _U1] = byte, BEGINS
            text[at + _U2], mark[at + _U2] = _BLANK, SPACE
            at += _U2
            following = BEGINS
        else:
            text[at], mark[at] = byte, BEGINS if kind & _UNSPACED else following
            following = CANNOT_BEGIN if kind & _UNSPACED else INSIDE
        for more in range(_U1, length):
            text[at + more], mark[at + more] = data[position + more], INSIDE
        at += length
        position += length
    if not is_entry or following != CANNOT_BEGIN:
        text[at], mark[at] = _BLANK, SPACE
        at += _U1
    return np.int64(at)


@numba.njit(cache=True, nogil=True)
def _encode(code, text, at):  # type: ignore[no-untyped-def]
    """Write a code point as UTF-8; return its length."""
    if code < 0x80:
        text[at] = code
        return 1
    if code < 0x800:
        text[at], text[at + 1] = 0xC0 | code >> 6, 0x80 | code & 0x3F
        return 2
    if code < 0x10000:
        text[at], text[at + 1], text[at + 2] = 0xE0 | code >> 12, 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F
        return 3
    text[at], text[at + 1] = 0xF0 | code >> 18, 0x80 | code >> 12 & 0x3F
    text[at + 2], text[at + 3] = 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F
    return 4


@numba.njit(cache=True, nogil=True)
def prepare_unicode(data, begin, end, is_entry, classes, folding, text, mark, at):  # type: ignore[no-untyped-def]
    """Write one text, or one entry, by the corrected rule from `at`; return where it ends.

    A text stands between single spaces, an entry between none. Folding may lengthen a character by a byte.
    """
    first = at
    if not is_entry:
        text[at], mark[at] = _BLANK, SPACE
        at += 1
    before = _WHITE  # the class of the unit that is open
    joined = False
    position = begin
    while position < end:
        code, length = decode(data, position)
        kind = classes[code]
        if kind == _WHITE:
            if before != _WHITE:
                text[at], mark[at] = _BLANK, SPACE
                at += 1
                before = _WHITE
            joined = False
        elif kind == _BREAKS:
            before = _OTHER if before == _WORD else before
            joined = False
        else:
            if len(folding):
                written = _encode(folding[code], text, at)
            else:
                for more in range(length):
                    text[at + more] = data[position + more]
                written = length
            extends = kind in (_EXTENDS, _JOINS)
            inside = before != _WHITE and (extends or joined or (kind == _WORD and before == _WORD))
            mark[at] = INSIDE if inside else BEGINS
            for more in range(1, written):
                mark[at + more] = INSIDE
            at += written
            if not extends:
                before = kind
            elif before == _WHITE:
                before = _OTHER
            joined = kind == _JOINS
        position += length
    if is_entry:
        return at - 1 if at > first and mark[at - 1] == SPACE else at
    if before != _WHITE:
        text[at], mark[at] = _BLANK, SPACE
        at += 1
    return at
