"""Hygiene over shards, on an engine: look at each image once, then remove by what was seen and by what pairs say.

    look         images -> <out>/looks-*.parquet: content hash, 64-bit code, scores, faces of each image
    remove       pairs (and looks) -> <out>/removals.parquet: id, reason, detail; <out>/pairs/: what is left
    restore      the same folder, some reasons left out
    blur_faces   images and looks -> tars with faces blurred

The steps themselves (`hygiene/`) are pure; this package reads, writes and hands shards to the engine.
"""

from __future__ import annotations

from worldclip.clean.blur import blur_faces
from worldclip.clean.look import Embedder, Eyes, look
from worldclip.clean.remove import Rules, remove, restore

__all__ = ["Embedder", "Eyes", "Rules", "blur_faces", "look", "remove", "restore"]
