"""Write images again with their faces made unrecognisable."""

from __future__ import annotations

import io
import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from worldclip.clean.look import told_of
from worldclip.clean.steps import Report, Steps
from worldclip.engines import Engine
from worldclip.errors import DataError
from worldclip.hygiene.faces import blur
from worldclip.hygiene.onnx_models import open_picture
from worldclip.pairs.tables import IMAGE_SUFFIXES
from worldclip.storage import read_table, replacing


def blur_faces(looks: Sequence[Path], out: Path, *, engine: Engine, report: Report | None = None) -> dict[str, Any]:
    """Write the tars that were looked at again, with faces blurred; return how many images were changed.

    All other members are copied byte for byte. JPEG and WebP are written at quality 95.

    Raises:
        DataError: looks without faces, or of folders instead of tars.
        ShardsFailed: some tars failed every try.
    """
    places = [Path(told_of(path)["place"]) for path in looks]
    if folder := next((place for place in places if not place.is_file()), None):
        raise DataError(f"{folder}: is no tar; faces are blurred in WebDataset tars.")
    if twice := [name for name, count in Counter(place.name for place in places).items() if count > 1]:
        raise DataError(f"Two tars are called {twice[0]}; blur each folder of them by itself.")
    faces = [pc.list_value_length(read_table(path, ["faces"]).column("faces")) for path in looks]
    if unseen := next((path for path, counted in zip(looks, faces, strict=True) if counted.null_count), None):
        raise DataError(f"{unseen}: faces were not looked for. Run `worldclip clean look` with --faces first.")
    steps = Steps(folder=out, engine=engine, report=report)
    steps.into("blur", _blur_tar, list(zip(places, looks, strict=True)), [out / place.name for place in places])
    return {
        "tars": len(places),
        "images": sum(int((counted.to_numpy() > 0).sum()) for counted in faces),
        "faces": sum(pc.sum(counted).as_py() or 0 for counted in faces),
    }


def _blur_tar(place_and_looks: tuple[Path, Path], out: Path) -> None:
    place, looks = place_and_looks
    boxes: defaultdict[str, list[list[float]]] = defaultdict(list)
    for row in read_table(looks, ["key", "faces"]).to_pylist():
        if row["faces"]:
            boxes[row["key"]] += row["faces"]
    with replacing(out) as temporary, tarfile.open(place, "r|*") as source, tarfile.open(temporary, "w") as target:
        for member, data in _members(source):
            key, _, suffix = member.name.rpartition("/")[2].partition(".")
            content = data
            if key in boxes and suffix.lower() in IMAGE_SUFFIXES:
                content = _blurred(data, np.array(boxes[key]))
                member.size = len(content)
            target.addfile(member, io.BytesIO(content))


def _members(source: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    for member in source:
        content = source.extractfile(member) if member.isreg() else None
        if content is not None:
            yield member, content.read()


def _blurred(data: bytes, boxes: np.ndarray) -> bytes:
    kind = Image.open(io.BytesIO(data)).format
    file = io.BytesIO()
    blur(open_picture(data), boxes).save(file, kind, **({"quality": 95} if kind in ("JPEG", "WEBP") else {}))
    return file.getvalue()
