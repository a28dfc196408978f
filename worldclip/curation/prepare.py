"""Texts and entries as matching reads them, by either rule (`rules.py`): bytes, and two bits for each of them.

One tells whether a unit begins there (spaces do, too), the other whether no entry may begin there.
"""

from __future__ import annotations

import numpy as np

from worldclip.curation.rules import BREAKS, EXTENDS, JOINS, OTHER, TURNS_BLANK, UNSPACED, WHITE, WORD, decode
from worldclip.curation.wide import SLACK, copy, eight, highest, kernel, lowest, put_eight, within

#: What follows each text: a byte that occurs in no UTF-8.
END = 0xFF
BLANK = 32
#: Kinds of bytes in a text, by the paper's rule: spaces; what continues a character; wrapped marks; what begins an
#: unspaced character of one byte, and of three; what begins a character that must be looked at alone.
_BLANKS, _INSIDE, _WRAPS, _ONES, _THREES, _ALONE = range(6)
KINDS = 6
#: A space, a mark and a space, but for the mark.
_WRAP = np.uint64(0x200020)
#: The space behind a text, and what follows it.
_LAST_TWO = np.uint64(END << 8 | BLANK)
_U0, _U1, _U2, _U3, _U6, _U7, _U8, _U63, _U64 = (np.uint64(value) for value in (0, 1, 2, 3, 6, 7, 8, 63, 64))
_SLACK, _ALL = np.uint64(SLACK), np.uint64(0xFFFFFFFFFFFFFFFF)


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
        if not are_entries or (position < end and not classes[decode(raw, position)[0]] & UNSPACED):
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
                blank, own = np.uint64(not are_entries and kind & TURNS_BLANK != 0), np.uint64(kind & UNSPACED)
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
        before = WHITE  # the class of the unit that is open
        joined, gap = False, not are_entries  # A space is written before what follows it.
        while position < end:
            code, length = decode(raw, position)
            kind, length = classes[code], np.uint64(length)
            if kind == WHITE:
                gap |= before != WHITE
                before, joined = WHITE, False
            elif kind == BREAKS:
                before = OTHER if before == WORD else before
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
                extends = kind in (EXTENDS, JOINS)
                inside = before != WHITE and (extends or joined or (kind == WORD and before == WORD))
                pen = _told(borders, barred, pen, np.uint64(not inside), _U0, written)
                if not extends:
                    before = kind
                elif before == WHITE:
                    before = OTHER
                joined = kind == JOINS
            position += length
        if not are_entries:
            put_eight(text, pen[0], _LAST_TWO)
            pen = _told(borders, barred, pen, _U3, _U2, _U2)
        ends[row] = pen[0]
    return pen
