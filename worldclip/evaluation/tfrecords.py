"""Examples of TensorFlow Datasets, read without TensorFlow: TFRecord files whose records are `tf.train.Example`.

A record is its length (8 bytes, little-endian), a checksum of that (4), the message, and a checksum of it (4). The
checksums are not looked at; a length that does not fit, or a message that is no example, is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from worldclip.errors import DataError, MissingData
from worldclip.evaluation.pictures import Place, check_pointer

#: How a file is called: name of the data set, split, number, of how many.
_FILE = re.compile(r".+-(?P<split>\w+)\.tfrecord-(?P<number>\d{5})-of-(?P<count>\d{5})", re.ASCII)

#: Those parts of tf.train.Example that hold bytes: message -> its field, the field's type, whether it is repeated.
_SCHEMA = {
    "BytesList": (("value", "bytes", True),),
    "Feature": (("bytes_list", "BytesList", False),),
    "Entry": (("key", "string", False), ("value", "Feature", False)),
    "Features": (("feature", "Entry", True),),
    "Example": (("features", "Features", False),),
}


def find_splits(folder: Path) -> dict[str, list[Path]]:
    """The files of each split, below `folder` (of several versions the last), in order.

    Raises:
        MissingData: a file is missing of those that the others' names count.
    """
    named = {path: match for path in folder.rglob("*.tfrecord-*") if (match := _FILE.fullmatch(path.name))}
    version = max((path.parent for path in named), default=folder)
    found: dict[str, list[Path]] = {}
    for path in sorted(path for path in named if path.parent == version):
        found.setdefault(named[path]["split"], []).append(path)
    for split, files in found.items():
        if len(files) != int(named[files[0]]["count"]):
            raise MissingData(f"{version}: {len(files)} files of split {split}, not {int(named[files[0]]['count'])}.")
    return found


def read_examples(path: Path) -> Iterator[tuple[Mapping[str, list[bytes]], Mapping[str, Place]]]:
    """The features of each example that hold bytes, by name, and where the first value of each lies in the file.

    Raises:
        DataError: a record is cut short, or holds no example.
    """
    end = path.stat().st_size
    with open(path, "rb") as file:
        check_pointer(file.read(64), path)
        at = 0
        while at < end:
            file.seek(at)
            size = int.from_bytes(file.read(8), "little")
            if at + size + 16 > end:
                raise DataError(f"{path}: the record at byte {at} is cut short, or this is no TFRecord file.")
            file.seek(4, 1)
            data = file.read(size)
            try:
                entries = _example().FromString(data).features.feature
            except DecodeError as error:
                raise DataError(f"{path}: the record at byte {at} is no tf.train.Example ({error}).") from None
            values = {entry.key: list(entry.value.bytes_list.value) for entry in entries}
            yield (
                values,
                {key: Place(path, at + 12 + data.index(own[0]), len(own[0])) for key, own in values.items() if own},
            )
            at += size + 16


@cache
def _example() -> Any:
    file = FileDescriptorProto(name="worldclip/example.proto", package="worldclip", syntax="proto3")
    for message, fields in _SCHEMA.items():
        kind = file.message_type.add(name=message)
        for number, (name, of, repeated) in enumerate(fields, 1):
            field = kind.field.add(name=name, number=number)
            field.label = FieldDescriptorProto.LABEL_REPEATED if repeated else FieldDescriptorProto.LABEL_OPTIONAL
            if of in _SCHEMA:
                field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".worldclip.{of}"
            else:
                field.type = FieldDescriptorProto.Type.Value(f"TYPE_{of.upper()}")
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("worldclip.Example"))
