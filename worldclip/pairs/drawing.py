"""Drawings and pictures of any format and shape -> square RGB PNG, in worker processes.

The picture is fitted into the square, never distorted, and lies on white: transparency becomes paper.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait

import resvg_py
from PIL import Image


@dataclass(frozen=True)
class Broken:
    """What stands in the place of a picture that could not be drawn, and why."""

    reason: str


@dataclass(frozen=True)
class Drawer:
    """Draws pictures of `size` x `size` pixels, in order; `_pool` is None to draw in this very process."""

    size: int
    _pool: ProcessPoolExecutor | None

    def __call__(self, sources: Iterable[bytes]) -> Iterator[bytes | Broken]:
        """PNG of each source (SVG, PNG, WebP ... as a file's bytes); the same for any number of workers."""
        task = partial(draw, size=self.size)
        if self._pool is None:
            return map(task, sources)
        return self._pool.map(task, sources, chunksize=32)


@contextmanager
def drawer(size: int, workers: int) -> Iterator[Drawer]:
    """A `Drawer` with its worker processes (one worker: none, all is drawn here). They end with this process."""
    if workers <= 1:
        yield Drawer(size, None)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        yield Drawer(size, pool)


def draw(source: bytes, size: int) -> bytes | Broken:
    """One picture as PNG: RGB, `size` x `size`, on white; `Broken` if it cannot be read or shows nothing."""
    try:
        if source.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            # Twice the size, then averaged: smoother than the renderer's own edges. Fonts differ between machines.
            text = source.decode("utf-8-sig")
            box = 2 * size
            source = resvg_py.svg_to_bytes(svg_string=text, width=box, height=box, dpi=96, skip_system_fonts=True)
        with Image.open(io.BytesIO(source)) as image:
            picture = image.convert("RGBA")
        if picture.getchannel("A").getextrema()[1] == 0:
            return Broken("picture shows nothing")
        scale = size / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
        # Pillow weighs colours by their opacity here, so that hidden colours do not bleed into the edges.
        exact = picture.size == (2 * width, 2 * height)
        picture = picture.resize((width, height), Image.Resampling.BOX if exact else Image.Resampling.LANCZOS)
        paper = Image.new("RGB", (size, size), "white")
        paper.paste(picture, ((size - width) // 2, (size - height) // 2), picture)
        file = io.BytesIO()
        paper.save(file, "PNG")
        return file.getvalue()
    except Exception as error:  # foreign bytes meet two foreign decoders here: whatever they raise is a reason
        return Broken(f"picture cannot be drawn ({type(error).__name__})")


def _end_with_parent() -> None:
    """In a worker: end when the parent is gone, however it went."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_and_exit, args=(parent.sentinel,), daemon=True).start()


def _wait_and_exit(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
