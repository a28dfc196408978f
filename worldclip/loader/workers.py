"""Processes that read and decode the parts of coming batches, and the watchdog that tells which of them stalls."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import fsspec
import numpy as np
import torch
from tokenizers import Tokenizer
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from worldclip.errors import WorldclipError
from worldclip.loader.batches import Batch, Cursor, batches
from worldclip.loader.images import UNREADABLE, Crops, decode_crop
from worldclip.loader.parts import Loaded, Part
from worldclip.loader.shards import ShardSet
from worldclip.tokenizer import encode, truncated

_OPEN = 128  #: tars that a process keeps open
_log = logging.getLogger("worldclip.loader")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What one process reads and decodes at once: a rank's part of a batch."""

    images: np.ndarray  #: int64 [n], numbers
    keys: np.ndarray  #: uint64 [n]
    epochs: np.ndarray  #: int64 [n]
    texts: np.ndarray  #: int64 [k, n], numbers


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a request."""

    pixels: torch.Tensor  #: uint8 [n, 3, size, size]
    ids: torch.Tensor  #: int64 [k, n, length]
    readable: torch.Tensor  #: bool [n]
    set_aside: dict[str, int]  #: images that could not be read, by reason


@dataclass(frozen=True, kw_only=True)
class ShardLoader:
    """Batches from an indexed set of tars."""

    shards: ShardSet
    tokenizer: str  #: the content of tokenizer.json
    text_tokens: int  #: a longer text is cut to so many
    workers: int = 0  #: processes; 0: this one
    stall_seconds: float = 60.0
    report: Callable[[str], None] = field(default=_log.warning)

    def load(self, part: Part, *, start: int, steps: int, cursor: Cursor) -> Iterator[Loaded]:
        """A rank's part of each batch from `start` to `steps`; processes work ahead, in order."""
        rows, beyond = part.rows()
        waiting: deque[Batch] = deque()

        def requests() -> Iterator[Request]:
            for batch in batches(
                self.shards,
                images=part.images,
                texts_per_image=part.texts_per_image,
                seed=part.seed,
                start=start,
                steps=steps,
                cursor=cursor,
            ):
                waiting.append(batch)
                yield Request(
                    images=batch.images[rows],
                    keys=batch.keys[rows],
                    epochs=batch.epochs[rows],
                    texts=batch.texts[:, rows],
                )

        beats = torch.full((max(1, self.workers), 2), -1.0, dtype=torch.float64)
        beats.share_memory_()  # type: ignore[no-untyped-call]
        reader = _Reader(self.shards, self.tokenizer, self.text_tokens, part, beats)
        with self._watched(beats, part.rank):
            for answer in self._answers(reader, requests()):
                valid = None if beyond is None else beyond & answer.readable
                yield Loaded(
                    batch=waiting.popleft(),
                    pixels=answer.pixels,
                    ids=answer.ids,
                    valid=answer.readable if valid is None else valid,
                    set_aside=answer.set_aside,
                )

    def _answers(self, reader: _Reader, requests: Iterator[Request]) -> Iterator[Answer]:
        if not self.workers:
            yield from map(reader.__getitem__, requests)
            return
        yield from DataLoader(
            reader,
            batch_size=None,
            sampler=_Requests(requests),
            num_workers=self.workers,
            multiprocessing_context="spawn",
            pin_memory=torch.cuda.is_available(),
        )

    @contextmanager
    def _watched(self, beats: torch.Tensor, rank: int) -> Iterator[None]:
        """While this lasts, a process that is at one image for too long is told of, with its shard."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(min(1.0, self.stall_seconds)):
                for worker, (shard, since) in enumerate(beats.tolist()):
                    waited = time.monotonic() - since
                    if shard >= 0 and waited > self.stall_seconds:
                        beats[worker, 1] = time.monotonic()  # told once in so long
                        self.report(
                            f"rank {rank}, worker {worker}: no image from {self.shards.tars[int(shard)]} for "
                            f"{waited:.0f} s; still waiting."
                        )

        thread = threading.Thread(target=watch, name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@contextmanager
def deaths_told(rank: int) -> Iterator[None]:
    """While this lasts, a decoding process that dies ends in an error that says so: torch's can come anywhere.

    Raises:
        WorldclipError: a process died.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise WorldclipError(
            f"rank {rank}: a process that decodes images died ({error}). If memory ran out, lower train.workers; "
            "the same command goes on from the last checkpoint."
        ) from error


class _Requests(Sampler[Request]):
    """Requests in their order, made when a process is free for them."""

    def __init__(self, requests: Iterator[Request]) -> None:
        self._requests = requests

    def __iter__(self) -> Iterator[Request]:
        return self._requests


class _NoBytes(Exception):
    """The tar gave no bytes, or too few."""


class _Reader(Dataset[Answer]):
    """Answers requests; each process has one, with tars of its own open."""

    def __init__(self, shards: ShardSet, tokenizer: str, text_tokens: int, part: Part, beats: torch.Tensor) -> None:
        self._shards, self._tokenizer_json, self._text_tokens = shards, tokenizer, text_tokens
        self._part, self._beats = part, beats
        self._tokenizer: Tokenizer | None = None
        self._files: OrderedDict[str, int] = OrderedDict()

    def __getitem__(self, request: Request) -> Answer:
        size = self._part.size
        pixels = np.zeros((len(request.images), 3, size, size), np.uint8)
        readable = torch.ones(len(request.images), dtype=torch.bool)
        set_aside: Counter[str] = Counter()
        crops = {
            epoch: Crops.draw(request.keys, self._part.seed, epoch, self._part.crop_scale)
            for epoch in np.unique(request.epochs).tolist()
        }
        places = self._shards.places(request.images)
        for at, (data, (shard, _, _)) in enumerate(zip(self._files_of(places), places, strict=True)):
            self._beat(shard)
            try:
                if isinstance(data, Exception):
                    raise _NoBytes(f"{self._shards.tars[shard]}: {type(data).__name__}") from data
                pixels[at] = decode_crop(data, size, crops[int(request.epochs[at])], at).transpose(2, 0, 1)
            except (*UNREADABLE, _NoBytes) as error:
                readable[at] = False
                set_aside[str(error) if isinstance(error, _NoBytes) else "unreadable image"] += 1
        self._beat(-1)
        return Answer(
            pixels=torch.from_numpy(pixels), ids=self._ids(request.texts), readable=readable, set_aside=dict(set_aside)
        )

    def _ids(self, texts: np.ndarray) -> torch.Tensor:
        self._tokenizer = self._tokenizer or Tokenizer.from_str(self._tokenizer_json)
        ids = truncated(encode(self._tokenizer, self._shards.texts(texts.ravel())), self._text_tokens)
        return torch.from_numpy(ids).view(*texts.shape, -1)

    def _beat(self, shard: int) -> None:
        worker = get_worker_info()
        self._beats[worker.id if worker else 0] = torch.tensor([shard, time.monotonic()], dtype=torch.float64)

    def _files_of(self, places: list[tuple[int, int, int]]) -> Iterator[bytes | Exception]:
        """The bytes of each image, or why there are none. Those in a store are asked for together."""
        tars = self._shards.tars
        remote = [at for at, (shard, _, _) in enumerate(places) if "://" in tars[shard]]
        fetched: dict[int, bytes | Exception] = {}
        if remote:
            self._beat(places[remote[0]][0])
            store, _ = fsspec.core.url_to_fs(tars[places[remote[0]][0]])
            urls = [store._strip_protocol(tars[places[at][0]]) for at in remote]
            first = [places[at][1] for at in remote]
            last = [places[at][1] + places[at][2] for at in remote]
            fetched = dict(zip(remote, store.cat_ranges(urls, first, last, on_error="return"), strict=True))
        for at, (shard, offset, size) in enumerate(places):
            self._beat(shard)
            data = fetched[at] if at in fetched else self._local(tars[shard], offset, size)
            short = not isinstance(data, Exception) and len(data) < size
            yield OSError("cut short") if short else data

    def _local(self, path: str, offset: int, size: int) -> bytes | Exception:
        try:
            if path not in self._files:
                self._files[path] = os.open(path, os.O_RDONLY)
            self._files.move_to_end(path)
            if len(self._files) > _OPEN:
                os.close(self._files.popitem(last=False)[1])
            return os.pread(self._files[path], size, offset)
        except OSError as error:
            return error
