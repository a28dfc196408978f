"""Finding the entries of a trie (`trie.py`) in many texts at once.

Texts are searched by the chunk of some thousand units, in steps, each a loop of its own over all units of the chunk:
prepare, cut into units, make keys, look them up, take ids, read records, sort. So the memory works on many look-ups at
once, and loops are short enough for a processor to keep what they need in registers, and often to do eight at a time.

What is found in a text cannot be foreseen, and a wrong guess costs a processor as much as a look-up. So what is found
is told by bits, sixty-four at once, and only what was found is gone through. Matches are sorted in `sort.py`.
"""

from __future__ import annotations

import numba
import numpy as np

from worldclip.curation.prepare import BLANK, END, KINDS, bit, lifted, prepare_paper, prepare_unicode, take
from worldclip.curation.sort import by_row
from worldclip.curation.trie import (
    CONTINUES,
    IS_ID,
    MORE,
    MOST_IDS,
    MOST_RECORDS,
    NO_RECORD,
    SPACE_FOLLOWS,
    bit_of,
    bucket_of,
    child_of,
    find,
    key_of,
    may_be,
    place_of,
    step_of,
    word_of,
)
from worldclip.curation.wide import (
    SLACK,
    fetch,
    having,
    kernel,
    lowest,
    ones,
    same,
    within,
)

#: Bytes of prepared text in hand, whose units' cache lines must fit the second-level cache. A longer text is alone.
_CHUNK = 1 << 14
_AHEAD = np.uint64(96)  #: Nodes whose cache lines are on their way.
#: What is told of a unit, bits; an end is listed as a unit, too.
_GAP, _ENDS, _NO_ENTRY = 1, 2, 4
#: What is told of a node that was found, bits.
_HAS_ID, _HAS_RECORD, _LEADS_ON = 1, 2, 4
_U0, _U1, _U2, _U3, _U4, _U6, _U8, _U15, _U16, _U31, _U32, _U63, _U64 = (
    np.uint64(value) for value in (0, 1, 2, 3, 4, 6, 8, 15, 16, 31, 32, 63, 64)
)
_HALF, _ALL, _SLACK = np.uint64(0xFFFFFFFF), np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(SLACK)
_IS_ID, _NO_RECORD, _IDS = np.uint64(IS_ID), np.uint64(NO_RECORD), np.uint64(MOST_IDS)


@numba.njit(cache=True, nogil=True)
def search(data, offsets, paper, classes, folding, firsts, table, bits, records, record_bytes):  # type: ignore[no-untyped-def]
    """Find all entries in all texts.

    Args:
        data, offsets: the texts, uint8 and int64 [n + 1].
        firsts: bool [256], whether an entry's first unit begins with this byte.
        table, bits, records: as built; `record_bytes` is the memory of `records`, uint8.

    Returns:
        offsets int64 [n + 1], ids uint32: sorted and unique of each text; int64 [2]: nodes looked up, records read.
    """
    n, work = len(offsets) - 1, np.zeros(2, np.int64)
    longest = 0
    for row in range(n):
        longest = max(longest, offsets[row + 1] - offsets[row])
    chunk = max(min(_CHUNK, offsets[n] - offsets[0] + n), longest + 1)
    raw, kinds = np.empty(chunk + 2 * SLACK, np.uint8), np.empty((KINDS, chunk // 64 + 3), np.uint64)
    room = 3 * chunk
    text = np.empty(room + SLACK, np.uint8)
    borders, barred = np.empty(room // 64 + 2, np.uint64), np.empty(room // 64 + 2, np.uint64)
    # Of units: where each begins, its row in the chunk, how it follows another.
    starts, rows, steps = np.empty(room + 17, np.uint64), np.empty(room, np.uint64), np.empty(room + 1, np.uint64)
    # Of phrases: their first and their last unit, the key of their node, and the step that follows.
    spans, keys, nexts = np.empty(room, np.uint64), np.zeros(room + int(_AHEAD), np.uint64), np.empty(room, np.uint64)
    # What is told of each, what is found there, and what is told of that.
    told, values, verdicts = (
        np.empty(room + SLACK, np.uint8),
        np.empty(room, np.uint64),
        np.empty(room + SLACK, np.uint8),
    )
    asked = np.empty(room, np.uint64)  # of nodes with a record: the first unit, the record
    beginning = np.where(firsts, 0, _NO_ENTRY).astype(np.uint8)  # what a unit's first byte tells of it
    beginning[END] |= _ENDS
    hits = np.empty(4096, np.uint64)  # row, id
    found, found_offsets = np.empty(0, np.uint32), np.zeros(n + 1, np.int64)
    first, used_found = 0, 0
    while first < n:
        pen, last = (_U0, _U0, _U0), take(data, offsets, first, chunk, raw)
        own, ends = offsets[first : last + 1], found_offsets[first + 1 : last + 1]  # the latter written over at last
        if paper:
            pen = prepare_paper(raw, kinds, own, False, classes, text, borders, barred, ends, pen)
        else:
            pen = prepare_unicode(raw, own, False, classes, folding, text, borders, barred, ends, pen)
        used = lifted(borders, barred, pen)
        left = _units(text, borders, used, starts)
        _keys(text, barred, beginning, left, starts, rows, told, keys)
        _phrases(told, left, keys, steps, spans, nexts)
        number = 0
        while left:
            hits = _roomier(hits, number + left)
            work[0] += _look_up(table, keys, told, left, values)
            _judge(values, nexts, left, verdicts)
            number = _take_ids(values, verdicts, left, spans, rows, hits, number)
            questions, question = _take_records(values, verdicts, left, spans, records, asked), 0
            work[1] += questions
            left = _go_on(verdicts, left, steps, bits, spans, keys, nexts, told)
            while question < questions:
                hits = _roomier(hits, number + questions)
                question, number = _compare(
                    records, record_bytes, text, borders, used, starts, rows, asked, question, questions, hits, number
                )
        if used_found + number > len(found):  # About as much room as all texts will take.
            longer = np.empty((used_found + number) * (n + n // 16) // last + 1024, np.uint32)
            longer[:used_found] = found[:used_found]
            found = longer
        hits = _roomier(hits, number + 3)
        used_found = by_row(hits, number, found, used_found, found_offsets[first : last + 1])
        first = last
    if len(found) - used_found > used_found // 8:
        found = found[:used_found].copy()
    return found_offsets, found[:used_found], work


@numba.njit(cache=True, nogil=True)
def _roomier(hits, number):  # type: ignore[no-untyped-def]
    """The same array, with room for so many."""
    while number > len(hits):
        hits = np.concatenate((hits, np.empty_like(hits)))
    return hits


# --- units ----------------------------------------------------------------------------------------------------------


@kernel
def _units(text, borders, used, starts):  # type: ignore[no-untyped-def]
    """List where units begin, and the end of each text as one more; return how many there are.

    Between two spaces there is an empty unit, at the second one. A text's first space is none.
    """
    count, before = _U0, _U0
    for word in range(np.uint64(used) + _U63 >> _U6):
        spaces = within(text, word << _U6, BLANK, BLANK)
        begins = borders[word] & ~(spaces & ~(spaces << _U1 | before))
        before = spaces >> _U63
        more = count + ones(begins)
        while begins:
            for at in range(_U16):  # Those that are none are written over.
                starts[count + at] = word << _U6 | lowest(begins)
                begins &= begins - _U1
            count += _U16
        count = more
    starts[count] = used
    return np.int64(count)


@kernel
def _keys(text, barred, beginning, count, starts, rows, told, keys):  # type: ignore[no-untyped-def]
    """Tell of each unit its row, its key, whether a space is before it, and whether an entry may begin there."""
    gap, row, at = _U1, _U0, starts[0]
    for unit in range(np.uint64(count)):
        after, first = starts[unit + _U1], np.uint64(beginning[text[at]])
        told[unit], rows[unit] = gap | first | bit(barred, at) << _U2, row
        row += first >> _U1 & _U1
        gap = np.uint64(text[after - _U1] == BLANK)
        keys[unit] = word_of(text, at, after - gap)
        at = after
    for unit in range(np.uint64(count)):
        keys[unit] = key_of(keys[unit])


@kernel
def _phrases(told, count, keys, steps, spans, nexts):  # type: ignore[no-untyped-def]
    """Make a phrase of each unit. Its step, from another, is 0 or 1 if it is an end: but for the space before it."""
    for unit in range(np.uint64(count)):
        own = np.uint64(told[unit])
        steps[unit] = step_of(keys[unit], own & _U1) & (own >> _U1 & _U1) - _U1 | own & _U1
        spans[unit] = unit << _U32 | unit
    steps[np.uint64(count)] = 0
    for unit in range(np.uint64(count)):
        nexts[unit] = steps[unit + _U1]


# --- looking up -----------------------------------------------------------------------------------------------------


@kernel
def _look_up(table, keys, told, left, values):  # type: ignore[no-untyped-def]
    """Read the values of nodes, but of those that no entry may begin with; return how many."""
    left, count = np.uint64(left), _U0
    for item in range(left):
        values[item] = NO_RECORD
    for item in range(min(_AHEAD, left)):
        fetch(table, bucket_of(keys[item], table))
    for first in range(_U0, left, _U64):
        wanted = ~having(told, first, _NO_ENTRY)
        if left - first < _U64:
            wanted &= (_U1 << left - first) - _U1
        count += ones(wanted)
        while wanted:
            item = first + lowest(wanted)
            wanted &= wanted - _U1
            fetch(table, bucket_of(keys[item + _AHEAD], table))
            values[item] = table[find(table, keys[item])]
    return np.int64(count)


@kernel
def _judge(values, nexts, left, verdicts):  # type: ignore[no-untyped-def]
    """Tell of each node whether an id or a record is to be had, and whether it may lead further."""
    for item in range(np.uint64(left)):
        value, step = values[item], nexts[item]
        record = value & _HALF
        has_id = np.uint64((record >= _IS_ID) & (record != _NO_RECORD))
        has_id &= np.uint64(record & np.uint64(SPACE_FOLLOWS) == _U0) | step
        follows = value >> _U32 >> bit_of(step) & np.uint64(step > _U1)
        has_record, goes_on = np.uint64(record < _IS_ID), np.uint64(record & np.uint64(CONTINUES) != _U0)
        has_record &= follows | ~goes_on
        leads_on = follows & ~(has_record & goes_on)
        verdicts[item] = has_id | has_record << _U1 | leads_on << _U2 & _U4
    for item in range(np.uint64(left), np.uint64(left) + _SLACK):
        verdicts[item] = 0


@kernel
def _take_ids(values, verdicts, left, spans, rows, hits, number):  # type: ignore[no-untyped-def]
    """Append the ids of nodes to the hits, whose number is returned."""
    number = np.uint64(number)
    for first in range(_U0, np.uint64(left), _U64):
        own = having(verdicts, first, _HAS_ID)
        while own:
            item = first + lowest(own)
            own &= own - _U1
            hits[number] = rows[spans[item] >> _U32] << _U32 | values[item] & _IDS
            number += _U1
    return np.int64(number)


@kernel
def _take_records(values, verdicts, left, spans, records, asked):  # type: ignore[no-untyped-def]
    """List nodes with a record; return how many they are."""
    questions = _U0
    for first in range(_U0, np.uint64(left), _U64):
        own = having(verdicts, first, _HAS_RECORD)
        while own:
            item = first + lowest(own)
            own &= own - _U1
            record = values[item] & np.uint64(MOST_RECORDS)
            fetch(records, record)
            fetch(records, record + _U8)  # most end before
            asked[questions] = spans[item] >> _U32 << _U32 | record
            questions += _U1
    return np.int64(questions)


@kernel
def _go_on(verdicts, left, steps, bits, spans, keys, nexts, told):  # type: ignore[no-untyped-def]
    """Of phrases that may lead further make those of one unit more; return how many they are."""
    may, below = _U0, _U0
    for first in range(_U0, np.uint64(left), _U64):
        own = having(verdicts, first, _LEADS_ON)
        while own:
            item = first + lowest(own)
            own &= own - _U1
            key = child_of(keys[item], nexts[item])
            fetch(bits, place_of(bits, key))
            spans[may], keys[may] = spans[item] + _U1, key
            may += _U1
    for item in range(may):
        span, key = spans[item], keys[item]
        spans[below], keys[below], nexts[below] = span, key, steps[(span & _HALF) + _U1]
        below += np.uint64(may_be(bits, key))
    for item in range(below):
        told[item] = 0
    return np.int64(below)


# --- comparing ------------------------------------------------------------------------------------------------------


@kernel
def _compare(records, record_bytes, text, borders, used, starts, rows, asked, question, questions, hits, number):  # type: ignore[no-untyped-def]
    """Compare records with the text, and append hits while there is room; return where to go on and how many there are.

    An index that was damaged may tell of records that are none: they are no hits.
    """
    number, size, used = np.uint64(number), np.uint64(len(record_bytes)), np.uint64(used)
    for each in range(np.uint64(question), np.uint64(questions)):
        at, unit = (asked[each] & _HALF) << _U2, asked[each] >> _U32
        while at + _U8 + _SLACK <= size:
            own, length = np.uint64(records[at >> _U2]), np.uint64(records[(at >> _U2) + _U1])
            more, length, at = length & np.uint64(MORE), length & np.uint64(MORE - 1), at + _U8
            if at + length + _SLACK > size:
                break
            if number == np.uint64(len(hits)):
                return np.int64(each), np.int64(number)
            hits[number] = rows[unit] << _U32 | own & _IDS
            start = starts[unit] - np.uint64(record_bytes[at] == BLANK)
            if start + length < used:  # It ends where a unit ends: what follows begins another.
                number += _equal(record_bytes, at, text, start, length) & bit(borders, start + length)
            if not more:
                break
            at += length + _U3 & ~_U3
    return questions, np.int64(number)


@kernel
def _equal(ours, at, theirs, there, length):  # type: ignore[no-untyped-def]
    """Whether two stretches of bytes are equal, 0 or 1; `SLACK` more bytes can be read of either."""
    equal = _HALF
    while length > _U31:
        equal &= same(ours, at, theirs, there)
        at, there, length = at + _U32, there + _U32, length - _U32
    return np.uint64(equal & (same(ours, at, theirs, there) | _ALL << length) == _HALF)
