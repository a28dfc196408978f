"""The first 64 bits of the SHA-256 (FIPS 180-4) of many strings, without a Python object for each."""

from __future__ import annotations

import numba
import numpy as np

_ROUNDS = np.array(
    [
        0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xE9B5DBA5, 0x3956C25B, 0x59F111F1, 0x923F82A4, 0xAB1C5ED5,
        0xD807AA98, 0x12835B01, 0x243185BE, 0x550C7DC3, 0x72BE5D74, 0x80DEB1FE, 0x9BDC06A7, 0xC19BF174,
        0xE49B69C1, 0xEFBE4786, 0x0FC19DC6, 0x240CA1CC, 0x2DE92C6F, 0x4A7484AA, 0x5CB0A9DC, 0x76F988DA,
        0x983E5152, 0xA831C66D, 0xB00327C8, 0xBF597FC7, 0xC6E00BF3, 0xD5A79147, 0x06CA6351, 0x14292967,
        0x27B70A85, 0x2E1B2138, 0x4D2C6DFC, 0x53380D13, 0x650A7354, 0x766A0ABB, 0x81C2C92E, 0x92722C85,
        0xA2BFE8A1, 0xA81A664B, 0xC24B8B70, 0xC76C51A3, 0xD192E819, 0xD6990624, 0xF40E3585, 0x106AA070,
        0x19A4C116, 0x1E376C08, 0x2748774C, 0x34B0BCB5, 0x391C0CB3, 0x4ED8AA4A, 0x5B9CCA4F, 0x682E6FF3,
        0x748F82EE, 0x78A5636F, 0x84C87814, 0x8CC70208, 0x90BEFFFA, 0xA4506CEB, 0xBEF9A3F7, 0xC67178F2,
    ],
    np.uint32,
)  # fmt: skip
_START = np.array(
    [0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19], np.uint32
)


@numba.njit(cache=True, nogil=True, inline="always")
def _turned(word, by):  # type: ignore[no-untyped-def]
    return np.uint32(word >> np.uint32(by)) | np.uint32(word << np.uint32(32 - by))


@numba.njit(cache=True, nogil=True)
def _compress(block, words, state):  # type: ignore[no-untyped-def]
    """Take one block of 64 bytes into the state; `words` is room for 64."""
    for i in range(16):
        words[i] = (
            np.uint32(block[4 * i]) << np.uint32(24)
            | np.uint32(block[4 * i + 1]) << np.uint32(16)
            | np.uint32(block[4 * i + 2]) << np.uint32(8)
            | np.uint32(block[4 * i + 3])
        )
    for i in range(16, 64):
        early, late = words[i - 15], words[i - 2]
        s0 = _turned(early, 7) ^ _turned(early, 18) ^ np.uint32(early >> np.uint32(3))
        s1 = _turned(late, 17) ^ _turned(late, 19) ^ np.uint32(late >> np.uint32(10))
        words[i] = np.uint32(words[i - 16] + s0 + words[i - 7] + s1)
    a, b, c, d, e, f, g, h = state
    for i in range(64):
        s1 = _turned(e, 6) ^ _turned(e, 11) ^ _turned(e, 25)
        first = np.uint32(h + s1 + ((e & f) ^ (~e & g)) + _ROUNDS[i] + words[i])
        s0 = _turned(a, 2) ^ _turned(a, 13) ^ _turned(a, 22)
        second = np.uint32(s0 + ((a & b) ^ (a & c) ^ (b & c)))
        h, g, f, e = g, f, e, np.uint32(d + first)
        d, c, b, a = c, b, a, np.uint32(first + second)
    state[0] += a
    state[1] += b
    state[2] += c
    state[3] += d
    state[4] += e
    state[5] += f
    state[6] += g
    state[7] += h


@numba.njit(cache=True, nogil=True)
def first_64_bits(data, offsets):  # type: ignore[no-untyped-def]
    """The first eight bytes of each string's SHA-256, as little-endian uint64 [n].

    Args:
        data, offsets: the strings' bytes, uint8, and where each begins, int64 [n + 1].
    """
    n = len(offsets) - 1
    keys = np.empty(n, np.uint64)
    words, block, state = np.empty(64, np.uint32), np.empty(64, np.uint8), np.empty(8, np.uint32)
    for row in range(n):
        at, end = offsets[row], offsets[row + 1]
        bits = np.uint64(end - at) * np.uint64(8)
        state[:] = _START
        while at + 64 <= end:
            block[:] = data[at : at + 64]
            _compress(block, words, state)
            at += 64
        left = end - at
        block[:] = 0
        block[:left] = data[at:end]
        block[left] = 0x80
        if left >= 56:
            _compress(block, words, state)
            block[:] = 0
        for i in range(8):
            block[63 - i] = np.uint8(bits >> np.uint64(8 * i) & np.uint64(255))
        _compress(block, words, state)
        key = np.uint64(0)
        for i in range(8):
            byte = np.uint64(state[i // 4] >> np.uint32(24 - 8 * (i % 4))) & np.uint64(255)
            key |= byte << np.uint64(8 * i)
        keys[row] = key
    return keys
