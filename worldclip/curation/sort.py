"""The matches of many texts, sorted and unique, text by text.

Sixteen texts of about as many matches are sorted side by side, as columns, by steps that are the same whatever there is
to sort: a wrong guess costs a processor as much as many steps.
"""

from __future__ import annotations

import numba
import numpy as np

from worldclip.curation.wide import LANES, count_changes, exchange, kernel

_MOST = 1024  #: Matches of a text that are sorted beside those of others; more are sorted alone.
_NONE = np.uint32(0xFFFFFFFF)  #: What fills columns up: greater than all ids.
_U0, _U1, _U2, _U3, _U4, _U15, _U16, _U32 = (np.uint64(value) for value in (0, 1, 2, 3, 4, 15, 16, 32))
_HALF = np.uint64(0xFFFFFFFF)


@numba.njit(cache=True, nogil=True)
def by_row(hits, number, found, used, offsets):  # type: ignore[no-untyped-def]
    """Append hits to `found` row by row, sorted, each once; write where each row ends, and return where the last does.

    Args:
        hits: uint64, row << 32 | id, the first `number` of them, and room for three more.
        found: uint32, ids, of which `used` are there.
        offsets: int64 [rows + 1], written from its second on.
    """
    count, number = np.uint64(len(offsets)), np.uint64(number)  # with a row that is none, whose hits fill up
    hits[number : number + _U3] = (count - _U1) << _U32
    part = number + _U3 >> _U2
    counts, slots, places = np.zeros(count, np.uint64), np.empty(count, np.uint64), np.empty(count, np.uint64)
    blocks = count + _U15 >> _U4
    order, most, begins = np.full(blocks << _U4, count), np.zeros(blocks, np.uint64), np.zeros(blocks + _U1, np.uint64)
    _count(hits, part, counts)
    _alike(counts, np.zeros(65, np.uint64), order, slots)
    _blocks(counts, slots, most, begins, places)
    columns, changes = np.full(begins[blocks], _NONE, np.uint32), np.zeros(blocks << _U4, np.uint32)
    _put(hits, part, places, columns)
    for block in range(blocks):
        if most[block] > np.uint64(_MOST):
            for lane in range(LANES):
                columns[begins[block] + np.uint64(lane) : begins[block + _U1] : LANES].sort()
        else:
            _sort(columns, begins[block], most[block])
    _count_unique(columns, begins, changes)
    place = _end_rows(counts, slots, most, changes, np.uint64(used), places, offsets)
    _write(columns, begins, order, counts, places, found)
    return np.int64(place)


@kernel
def _count(hits, part, counts):  # type: ignore[no-untyped-def]
    """Count the hits of each row.

    Those of a row stand together, and each count waits for the one before: so those of four places are counted in turn.
    """
    for hit in range(part):
        counts[hits[hit] >> _U32] += _U1
        counts[hits[hit + part] >> _U32] += _U1
        counts[hits[hit + part * _U2] >> _U32] += _U1
        counts[hits[hit + part * _U3] >> _U32] += _U1


@kernel
def _alike(counts, tally, order, slots):  # type: ignore[no-untyped-def]
    """Order rows by how many hits they have: the row in each slot, and the slot of each row."""
    most = np.uint64(len(tally)) - _U1
    for row in range(np.uint64(len(counts))):
        tally[min(counts[row], most)] += _U1
    before = _U0
    for many in range(np.uint64(len(tally))):
        tally[many], before = before, before + tally[many]
    for row in range(np.uint64(len(counts))):
        slot = tally[min(counts[row], most)]
        tally[min(counts[row], most)] = slot + _U1
        order[slot], slots[row] = row, slot


@kernel
def _blocks(counts, slots, most, begins, places):  # type: ignore[no-untyped-def]
    """How many hits the rows of each block have at most, where in the columns it begins, and where each row does."""
    for row in range(np.uint64(len(slots))):
        block = slots[row] >> _U4
        most[block] = max(most[block], counts[row])
    for block in range(np.uint64(len(most))):
        begins[block + _U1] = begins[block] + (most[block] << _U4)
    for row in range(np.uint64(len(slots))):
        places[row] = begins[slots[row] >> _U4] + (slots[row] & _U15)


@kernel
def _put(hits, part, places, columns):  # type: ignore[no-untyped-def]
    """Write the ids of hits into the columns of their rows; places are those of the next ones."""
    for hit in range(part):
        _put_one(hits[hit], places, columns)
        _put_one(hits[hit + part], places, columns)
        _put_one(hits[hit + part * _U2], places, columns)
        _put_one(hits[hit + part * _U3], places, columns)


@kernel
def _put_one(hit, places, columns):  # type: ignore[no-untyped-def]
    place = places[hit >> _U32]
    columns[place] = np.uint32(hit & _HALF)
    places[hit >> _U32] = place + _U16


@kernel
def _sort(columns, begin, count):  # type: ignore[no-untyped-def]
    """Sort sixteen columns of so many ids at once: Batcher's merge exchange (Knuth, algorithm 5.2.2M)."""
    top = _U1
    while top << _U1 < count:
        top <<= _U1
    size = top if count > _U1 else _U0
    while size:
        far, odd, apart = top, _U0, size
        while apart:
            for low in range(odd, count - min(apart, count)):
                if low & size == odd:
                    exchange(columns, begin + (low << _U4), begin + (low + apart << _U4))
            apart, odd = far - size, size
            far >>= _U1
        size >>= _U1


@kernel
def _count_unique(columns, begins, changes):  # type: ignore[no-untyped-def]
    """Count how often, down each column, a number differs from the one above it."""
    for block in range(np.uint64(len(begins)) - _U1):
        for at in range(begins[block] + _U16, begins[block + _U1], _U16):
            count_changes(columns, at - _U16, changes, block << _U4)


@kernel
def _end_rows(counts, slots, most, changes, place, places, offsets):  # type: ignore[no-untyped-def]
    """Write where each row begins and ends in what is found; return where the last one ends."""
    for row in range(np.uint64(len(offsets)) - _U1):
        slot = slots[row]
        filled_up = np.uint64(counts[row] < most[slot >> _U4])  # which is a change, too
        places[row] = place
        place += changes[slot] + _U1 - filled_up if counts[row] else _U0
        offsets[row + _U1] = place
    return place


@kernel
def _write(columns, begins, order, counts, places, found):  # type: ignore[no-untyped-def]
    """Write the ids of each row from its place on, each once."""
    for slot in range(np.uint64(len(order))):
        row = order[slot]
        if row < np.uint64(len(counts)) - _U1:
            place, last, at = places[row] - _U1, _NONE, begins[slot >> _U4] + (slot & _U15)
            for _ in range(counts[row]):
                own = columns[at]
                place += np.uint64(own != last)
                found[place] = own
                last = own
                at += _U16
