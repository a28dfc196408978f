"""What counts as an occurrence of an entry in a text (paper, section 3.2): its rule, and the corrected one.

`paper`. A text is put between two spaces, each of `, . ; : ? ! `` ` `` is surrounded by spaces, tabs and line ends
become spaces. An entry gets a leading space unless its first character is *unspaced* (of a script written without
spaces, or punctuation), and a trailing one unless its last is. It occurs where that is a substring.

`unicode`. Both sides are normalised (NFC, one space for a run of white space). An entry occurs where it is a substring
and a border lies on either side of it: everywhere but between two characters of one word of a spaced script, before a
combining mark, a variation selector or a small kana, and on either side of a zero-width joiner.

Both cut a text into *units*, and an entry into the same units wherever it stands: maximal runs of characters without a
border between them. Texts are prepared as bytes and two bits for each: whether it begins a unit (spaces do, too), and
whether no entry may begin there. Matching (`trie.py`, `search.py`) knows nothing else of either rule.
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
from worldclip.curation.wide import SLACK, copy, eight, highest, kernel, lowest, put_eight, within

RULES = ("paper", "unicode")

#: What follows each text: a byte that occurs in no UTF-8.
END = 0xFF
BLANK = 32

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

_U0, _U1, _U2, _U3, _U6, _U7, _U8, _U63, _U64 = (np.uint64(value) for value in (0, 1, 2, 3, 6, 7, 8, 63, 64))
_SLACK, _ALL = np.uint64(SLACK), np.uint64(0xFFFFFFFFFFFFFFFF)
#: Kinds of bytes in a text, by the paper's rule: spaces; what continues a character; wrapped marks; what begins an
#: unspaced character of one byte, and of three; what begins a character that must be looked at alone.
_BLANKS, _INSIDE, _WRAPS, _ONES, _THREES, _ALONE = range(6)
KINDS = 6
#: A space, a mark and a space, but for the mark.
_WRAP = np.uint64(0x200020)
#: The space behind a text, and what follows it.
_LAST_TWO = np.uint64(END << 8 | BLANK)


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


@kernel
def _told(borders, barred, pen, begin, bar, count):  # type: ignore[no-untyped-def]
    """Write two bits for each of the next bytes, the lowest first; return the pen behind them.

    A pen is where the next byte comes, and what the words hold so far in which its bits come: they are in hand, so that
    no write waits for the one before.
    """
    at, last_begin, last_bar = pen
    word, shift = at >> _U6, at & _U63
    last_begin, last_bar = last_begin | begin << shift, last_bar | bar << shift
    borders[word], barred[word] = last_begin, last_bar
    if shift + count >= _U64:
        last_begin, last_bar = begin >> _U1 >> (_U63 - shift), bar >> _U1 >> (_U63 - shift)
    return at + count, last_begin, last_bar


@kernel
def lifted(borders, barred, pen):  # type: ignore[no-untyped-def]
    """Write what a pen has in hand; return where it is."""
    borders[pen[0] >> _U6], barred[pen[0] >> _U6] = pen[1], pen[2]
    return np.int64(pen[0])


@kernel
def bit(bits, at):  # type: ignore[no-untyped-def]
    """One of a row of bits, 0 or 1."""
    return bits[at >> _U6] >> (at & _U63) & _U1


@kernel
def take(data, offsets, first, room, raw):  # type: ignore[no-untyped-def]
    """Copy texts from `first` on, at least one and as many as have so much room, a byte more for each.

    Args:
        raw: uint8, with `SLACK` beyond the room.

    Returns:
        which text is the first that was not taken.
    """
    last = first + 1
    while last + 1 < len(offsets) and offsets[last + 1] - offsets[first] + last + 1 - first <= room:
        last += 1
    begin, size = np.uint64(offsets[first]), np.uint64(offsets[last] - offsets[first])
    for at in range(size):
        raw[at] = data[begin + at]
    raw[size : size + _SLACK] = 0
    return last


@kernel
def _kinds_of(raw, size, kinds):  # type: ignore[no-untyped-def]
    """Tell of so many bytes what they are by the paper's rule: of each kind a bit for each byte, uint64 [6, words]."""
    words = size + _U63 >> _U6
    for word in range(words):
        _tell_kinds(raw, word << _U6, word, kinds)
    kinds[:, words] = 0  # is read, but of no text


@kernel
def _tell_kinds(raw, at, word, kinds):  # type: ignore[no-untyped-def]
    """Tell of 64 bytes what they are by the paper's rule."""
    kinds[_BLANKS, word] = within(raw, at, BLANK, BLANK)
    kinds[_INSIDE, word] = within(raw, at, 0x80, 0xBF)
    kinds[_WRAPS, word] = (
        within(raw, at, 0x2C, 0x2C) | within(raw, at, 0x2E, 0x2E) | within(raw, at, 0x3A, 0x3B)
        | within(raw, at, 0x3F, 0x3F) | within(raw, at, 0x21, 0x21) | within(raw, at, 0x60, 0x60)
    )  # fmt: skip
    kinds[_ONES, word] = (
        within(raw, at, 0x21, 0x2F) | within(raw, at, 0x3A, 0x40)
        | within(raw, at, 0x5B, 0x60) | within(raw, at, 0x7B, 0x7E)
    )  # fmt: skip
    high, alone, threes = within(raw, at, 0xE0, 0xFF), within(raw, at, 0x09, 0x0D), _U0
    if high:
        # Of two bytes, all are letters. Of three, U+0800 to U+0DFF are letters, all to U+0FFF unspaced; of U+3000 to
        # U+3FFF kana are letters; all of U+5000 to U+9FFF are unspaced, and all of U+A000 to U+DFFF letters.
        after = at + _U1
        mixed, kana = within(raw, at, 0xE0, 0xE0), within(raw, at, 0xE3, 0xE3)
        threes = mixed & within(raw, after, 0xB8, 0xBF) | within(raw, at, 0xE5, 0xE9)
        letters = within(raw, at, 0xEA, 0xED) | kana & within(raw, after, 0x81, 0x83)
        alone |= high & ~(mixed | threes | letters)
    kinds[_THREES, word], kinds[_ALONE, word] = threes, alone


@kernel
def prepare_paper(raw, kinds, offsets, are_entries, classes, text, borders, barred, ends, pen):  # type: ignore[no-untyped-def]
    """Write texts, or entries, by the paper's rule, and where each ends; return the pen behind them.

    A text becomes at most three times as long, and three bytes more; there is `SLACK` beyond. Entries are padded, and
    keep their marks; empty ones stay so. Only a spaced character that no space precedes cannot begin an entry: it is
    barred. `kinds` is written over: uint64 [`KINDS`, a word for 64 bytes and one more].
    """
    _kinds_of(raw, np.uint64(offsets[-1] - offsets[0]), kinds)
    for row in range(np.uint64(len(ends))):
        position, end = np.uint64(offsets[row] - offsets[0]), np.uint64(offsets[row + _U1] - offsets[0])
        spaced, unspaced = _U0, _U0  # whether a space comes before, or an unspaced character
        if not are_entries or (position < end and not classes[decode(raw, position)[0]] & _UNSPACED):
            text[pen[0]], spaced = BLANK, _U1
            pen = _told(borders, barred, pen, _U1, _U0, _U1)
        while position < end:
            word, shift = position >> _U6, position & _U63
            blanks, wraps, alone = (
                kinds[_BLANKS, word] >> shift,
                kinds[_WRAPS, word] >> shift,
                kinds[_ALONE, word] >> shift,
            )
            ones, threes = kinds[_ONES, word] >> shift, kinds[_THREES, word] >> shift
            if are_entries:
                wraps = _U0
            left = min(end - position, _U64 - shift, _U63)
            if bit(kinds[_INSIDE], position + left):  # no more than whole characters
                left = highest(~kinds[_INSIDE, word] & _ALL >> (_U64 - shift - left)) - shift
            one_goes_on = left == _U0
            while left:
                plain = min(lowest(wraps | alone), left)
                own = (_U1 << plain) - _U1
                after, follow = blanks << _U1 | spaced, ones << _U1 | threes << _U3 | unspaced
                begin = blanks | ones | threes
                copy(raw, position, text, pen[0])  # What is written beyond is written over.
                pen = _told(borders, barred, pen, (begin | follow | after) & own, follow & ~begin & own, plain)
                spaced, unspaced = after >> plain & _U1, follow >> plain & _U1
                position, left = position + plain, left - plain
                if not left or not wraps >> plain & _U1:
                    break
                put_eight(text, pen[0], _WRAP | np.uint64(raw[position]) << _U8)
                pen = _told(borders, barred, pen, _U7, _U0, _U3)
                spaced, unspaced = _U1, _U0
                position, left, plain = position + _U1, left - _U1, plain + _U1
                blanks, wraps, alone = blanks >> plain, wraps >> plain, alone >> plain
                ones, threes = ones >> plain, threes >> plain
            if left or one_goes_on:
                code, length = decode(raw, position)
                kind, length = classes[code], np.uint64(length)
                blank, own = np.uint64(not are_entries and kind & _TURNS_BLANK != 0), np.uint64(kind & _UNSPACED)
                put_eight(text, pen[0], eight(raw, position))
                if blank:
                    text[pen[0]] = BLANK
                begin = blank | own
                pen = _told(borders, barred, pen, begin | spaced | unspaced, unspaced & ~begin, length)
                position, spaced, unspaced = position + length, blank, own
        if not are_entries:
            put_eight(text, pen[0], _LAST_TWO)
            pen = _told(borders, barred, pen, _U3, _U2, _U2)
        elif not unspaced and offsets[row] < offsets[row + _U1]:
            text[pen[0]] = BLANK
            pen = _told(borders, barred, pen, _U1, _U0, _U1)
        ends[row] = pen[0]
    return pen


@kernel
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


@kernel
def prepare_unicode(raw, offsets, are_entries, classes, folding, text, borders, barred, ends, pen):  # type: ignore[no-untyped-def]
    """Write texts, or entries, by the corrected rule, and where each ends; return the pen behind them.

    A text stands between single spaces, an entry between none. Folding may lengthen a character by a byte.
    """
    for row in range(np.uint64(len(ends))):
        position, end = np.uint64(offsets[row] - offsets[0]), np.uint64(offsets[row + _U1] - offsets[0])
        before = _WHITE  # the class of the unit that is open
        joined, gap = False, not are_entries  # A space is written before what follows it.
        while position < end:
            code, length = decode(raw, position)
            kind, length = classes[code], np.uint64(length)
            if kind == _WHITE:
                gap |= before != _WHITE
                before, joined = _WHITE, False
            elif kind == _BREAKS:
                before = _OTHER if before == _WORD else before
                joined = False
            else:
                if gap:
                    text[pen[0]] = BLANK
                    pen = _told(borders, barred, pen, _U1, _U0, _U1)
                    gap = False
                written = length
                if len(folding):
                    written = np.uint64(_encode(folding[code], text, np.int64(pen[0])))
                else:
                    put_eight(text, pen[0], eight(raw, position))
                extends = kind in (_EXTENDS, _JOINS)
                inside = before != _WHITE and (extends or joined or (kind == _WORD and before == _WORD))
                pen = _told(borders, barred, pen, np.uint64(not inside), _U0, written)
                if not extends:
                    before = kind
                elif before == _WHITE:
                    before = _OTHER
                joined = kind == _JOINS
            position += length
        if not are_entries:
            put_eight(text, pen[0], _LAST_TWO)
            pen = _told(borders, barred, pen, _U3, _U2, _U2)
        ends[row] = pen[0]
    return pen
