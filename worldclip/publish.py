"""Finished folders to any store that fsspec knows: whole files, and the list of them last.

    <url>/...                  the files of the folder
    <url>/published.json       size and SHA-256 of each; removed first, written last
    <folder>/.published/...    what has been sent, so that the same command goes on where it stopped

All that worldclip writes is renamed into place on a local or mounted disk, which object stores cannot do. So a folder
is made there and sent when it is finished. Who reads `published.json` first, and then the files that it names, never
meets half a folder: a place without that file is not finished.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from worldclip.engines import Engine, Task
from worldclip.errors import InputError, MissingData, StorageError
from worldclip.pairs.sources import store_of
from worldclip.storage import TEMPORARY, digest, file_digest, read_json, write_json

MANIFEST = "published.json"

Report = Callable[[str, int, int], None]


def publish(folder: Path, url: str, *, engine: Engine, report: Report | None = None) -> dict[str, Any]:
    """Copy a finished folder to `url`; what was sent before and has not changed, here or there, is not sent again.

    Hidden and temporary files stay. Each file is a task, so that workers send side by side.

    Args:
        report: called with a step's name, bytes sent and bytes in all.

    Returns:
        What `published.json` holds: `files`, name -> `size` and `sha256`.

    Raises:
        MissingData: there is nothing to send, or the stage that writes the folder is not finished.
        InputError: `url` holds other files.
        ConfigError: fsspec does not know the store.
        StorageError: the store refuses.
        ShardsFailed: some files could not be sent; all others are.
    """
    url = url.rstrip("/")
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files = {name: path for name, path in files.items() if not _stays(name)}
    if not files:
        raise MissingData(f"{folder}: there is nothing to publish.")
    if "question.json" in files and "summary.json" not in files:
        raise MissingData(f"{folder}: is not finished. Run the command that writes it again, then publish.")
    there = _sizes(url)
    if other := sorted(there.keys() - files.keys() - {MANIFEST}):
        raise InputError(f"{url}: holds other files ({', '.join(other[:3])}). Choose a place of its own, or empty it.")
    if MANIFEST in there:
        remove(f"{url}/{MANIFEST}")
    notes = {name: folder / ".published" / digest(url)[:16] / f"{name}.json" for name in files}
    for name, note in notes.items():
        now = _state(files[name])
        if note.exists() and (there.get(name) != now["size"] or not now.items() <= read_json(note).items()):
            note.unlink()
    engine.run(
        [
            Task(name=name, function=_send, arguments=(path, f"{url}/{name}", notes[name]), output=notes[name],
                 size=path.stat().st_size)
            for name, path in files.items()
        ],
        partial(report, "publish") if report else None,
    )  # fmt: skip
    told = {name: read_json(note) for name, note in notes.items()}
    about = {"files": {name: {key: each[key] for key in ("size", "sha256")} for name, each in told.items()}}
    manifest = folder / ".published" / MANIFEST
    write_json(manifest, about)
    send(manifest, f"{url}/{MANIFEST}")
    return about


def send(path: Path, url: str) -> None:
    """Copy one file to a URL.

    Raises:
        ConfigError: fsspec does not know the store.
        StorageError: the store refuses, or does not hold the file whole.
    """
    store, name = store_of(url)
    try:
        store.makedirs(name.rpartition("/")[0], exist_ok=True)
        store.put_file(str(path), name)
        store.invalidate_cache()
        size = store.info(name)["size"]
    except OSError as error:
        raise StorageError(f"{url}: cannot be written ({error}).") from error
    if size != path.stat().st_size:
        raise StorageError(f"{url}: holds {size:,} bytes of {path}, which has {path.stat().st_size:,}. Publish again.")


def _send(path: Path, url: str, note: Path) -> None:
    about = {**_state(path), "sha256": file_digest(path)}
    send(path, url)
    write_json(note, about)


def _stays(name: str) -> bool:
    return name == MANIFEST or name.endswith(TEMPORARY) or any(part.startswith(".") for part in name.split("/"))


def _state(path: Path) -> dict[str, int]:
    """What changes when a file does."""
    return {"size": path.stat().st_size, "changed": path.stat().st_mtime_ns}


def _sizes(url: str) -> dict[str, int]:
    """Every file below a URL, by its name from there."""
    store, root = store_of(url)
    try:
        store.invalidate_cache()
        found = store.find(root, detail=True)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StorageError(f"{url}: cannot be listed ({error}).") from error
    return {name.removeprefix(root.rstrip("/") + "/"): int(info["size"]) for name, info in found.items()}


def remove(url: str) -> None:
    """Remove one file of a store.

    Raises:
        StorageError: the store refuses.
    """
    store, name = store_of(url)
    try:
        store.rm_file(name)
    except OSError as error:
        raise StorageError(f"{url}: cannot be removed ({error}).") from error
