"""GCompris's described photographs, from Qt's binary formats, read without Qt.

    <activity>.rcc (resource tree: boards, photographs)  +  gcompris_<label>.qm (translations)  ->  Photograph

A board (QML) lists items with an English title, an English description and a picture. Qt looks a translation up by
the English string and the board's name. Both formats are those of Qt 5 and 6, all integers big-endian.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from worldclip.errors import DataError

#: The activities whose pictures are whole photographs, and how many each has: 82 in all.
ACTIVITIES = {
    "explore_farm_animals": 9,
    "explore_monuments": 49,
    "explore_world_animals": 15,
    "explore_world_music": 9,
}

_ITEM = re.compile(
    r'"title":\s*qsTr\(("(?:[^"\\]|\\.)*")\),\s*'
    r'"text":\s*qsTr\(("(?:[^"\\]|\\.)*")\),.*?'
    r'"image2":\s*"qrc:([^"]+\.webp)"',
    re.DOTALL,
)


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """One photograph: `key` is its path in the activity without suffix, `board` the context of its translations."""

    activity: str
    key: str
    board: str
    title: str
    description: str
    image: bytes


def photographs(rcc: Path) -> Iterator[Photograph]:
    """The photographs of one activity's resource file, ordered by key.

    Raises:
        DataError: the file is not a Qt resource, or a board names a picture that it does not hold.
    """
    files = read_rcc(rcc.read_bytes(), str(rcc))
    found: list[Photograph] = []
    for name, content in files.items():
        board = PurePosixPath(name)
        if not re.fullmatch(r"board\d+\.qml", board.name):
            continue
        for title, description, image in _ITEM.findall(content.decode("utf-8", "replace")):
            if image not in files:
                raise DataError(f"{rcc}: board {name} names the picture {image}, which the file does not hold.")
            key = image.removesuffix(".webp").partition("/resource/")[2]
            found.append(
                Photograph(
                    activity=rcc.stem,
                    key=key,
                    board=board.stem,
                    title=json.loads(title),
                    description=json.loads(description),
                    image=files[image],
                )
            )
    return iter(sorted(found, key=lambda photograph: photograph.key))


def read_rcc(data: bytes, where: str) -> dict[str, bytes]:
    """All files of a Qt binary resource, by absolute path, uncompressed.

    Raises:
        DataError: not a Qt resource, cut short, or compressed otherwise than with zlib.
    """
    files: dict[str, bytes] = {}
    try:
        magic, version, tree, contents, names = struct.unpack_from(">4sIIII", data)
        if magic != b"qres" or version not in (1, 2, 3):
            raise DataError(f"{where}: is not a Qt resource of version 1 to 3, it begins with {data[:8]!r}.")
        node = 14 if version == 1 else 22  # later versions add the file's time
        todo = [(0, "")]
        while todo:
            index, path = todo.pop()
            at = tree + index * node
            name, flags, first, second = struct.unpack_from(">IHII", data, at)
            if index:
                (length,) = struct.unpack_from(">H", data, names + name)
                start = names + name + 6  # after the length and a hash
                path += "/" + data[start : start + 2 * length].decode("utf-16-be")
            if flags & 2:  # a folder: number of children, index of the first
                if second <= index:
                    raise DataError(f"{where}: is not a Qt resource tree: {path or '/'} is inside itself.")
                todo += [(child, path) for child in range(second, second + first)]
                continue
            (offset,) = struct.unpack_from(">I", data, at + 10)  # after the locale's two half-words
            (size,) = struct.unpack_from(">I", data, contents + offset)
            content = data[contents + offset + 4 : contents + offset + 4 + size]
            if flags & 4 or len(content) != size:
                raise DataError(f"{where}: {path} is {'compressed with zstd' if flags & 4 else 'cut short'}.")
            files[path] = zlib.decompress(content[4:]) if flags & 1 else content
    except (struct.error, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{where}: is not a whole Qt resource ({error}).") from None
    return dict(sorted(files.items()))


@dataclass(frozen=True)
class Messages:
    """A Qt message catalogue: translations by hash of the source text, told apart by context and source."""

    _by_hash: dict[int, tuple[dict[int, bytes], ...]]

    def translate(self, context: str, source: str) -> str | None:
        """The translation of `source` in `context`, or None. A message that leaves its context out fits any."""
        wanted = {_CONTEXT: context.encode(), _SOURCE: source.encode(), _COMMENT: b""}
        for message in self._by_hash.get(_elf_hash(source.encode()), ()):
            if all(message.get(tag, value) == value for tag, value in wanted.items()) and message.get(_TRANSLATION):
                return message[_TRANSLATION].decode("utf-16-be")
        return None


_QM_MAGIC = bytes.fromhex("3cb86418caef9c95cd211cbf60a1bddd")
_HASHES, _MESSAGES = 0x42, 0x69
_END, _TRANSLATION, _SOURCE, _CONTEXT, _COMMENT = 1, 3, 6, 7, 8


def read_qm(data: bytes, where: str) -> Messages:
    """Read a Qt message catalogue.

    Raises:
        DataError: not a catalogue, or cut short.
    """
    if not data.startswith(_QM_MAGIC):
        raise DataError(f"{where}: is not a Qt message catalogue, it begins with {data[:8]!r}.")
    sections: dict[int, bytes] = {}
    found: dict[int, list[dict[int, bytes]]] = {}
    try:
        at = len(_QM_MAGIC)
        while at < len(data):
            tag, length = struct.unpack_from(">BI", data, at)
            sections[tag] = data[at + 5 : at + 5 + length]
            at += 5 + length
        if at != len(data):
            raise DataError(f"{where}: is a Qt message catalogue cut short.")
        for key, offset in struct.iter_unpack(">II", sections.get(_HASHES, b"")):
            found.setdefault(key, []).append(_message(sections.get(_MESSAGES, b""), offset))
    except (struct.error, IndexError) as error:
        raise DataError(f"{where}: is not a whole Qt message catalogue ({error}).") from None
    return Messages({key: tuple(messages) for key, messages in found.items()})


def _message(data: bytes, at: int) -> dict[int, bytes]:
    fields: dict[int, bytes] = {}
    while (tag := data[at]) != _END:
        (length,) = struct.unpack_from(">I", data, at + 1)
        # The first translation is the singular or only one; plural forms follow under the same tag.
        fields.setdefault(tag, data[at + 5 : at + 5 + length])
        at += 5 + length
    return fields


def _elf_hash(text: bytes) -> int:
    """The hash of the ELF object format, as Qt's catalogues use it."""
    state = 0
    for byte in text:
        state = (state << 4) + byte
        high = state & 0xF0000000
        state = (state ^ (high >> 24)) & ~high
    return state or 1
