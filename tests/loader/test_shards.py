"""Batches from tars: what curation kept and how often, each image once an epoch, the same on any ranks and workers."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import tarfile
import threading
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from transformers import MetaClip2Model

from worldclip.config import ModelConfig, TowerConfig, TrainConfig
from worldclip.curation.sample import id_keys
from worldclip.engines.local import LocalEngine
from worldclip.errors import DataError, MissingData, WorldclipError
from worldclip.loader.batches import Cursor, batches
from worldclip.loader.parts import Loaded, Part
from worldclip.loader.shards import ShardSet
from worldclip.loader.workers import ShardLoader
from worldclip.model.sizes import build_model
from worldclip.shards import expanded, index_shards
from worldclip.storage import write_json, write_table
from worldclip.tokenizer import train_tokenizer
from worldclip.train import loop

IMAGES, TARS, SIZE = 60, 4, 16
LANGS = ("de", "en")
WORDS = ["dog", "cat", "house", "tree", "red", "blue", "Hund", "Katze", "Haus", "Baum"]
PART = Part(images=10, texts_per_image=2, size=SIZE, crop_scale=0.75, seed=0)


def picture(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(pixels).resize((40, 30)).save(file, "JPEG" if number % 2 else "PNG")
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def curated(folder: Path) -> Path:
    """What `curate` writes: image i has one to three texts; those of image 7 match nothing, a third of the rest."""
    texts_of = [
        [
            {
                "kind": "alt",
                "text": f"{WORDS[(i + j) % 10]} {i}",
                "lang": LANGS[(i + j) % 2],
                "matches": [] if i == 7 or (j and (i + j) % 3 == 0) else sorted({i % 5, (i + j) % 5}),
            }
            for j in range(1 + i % 3)
        ]
        for i in range(IMAGES)
    ]
    for shard in range(2):
        rows = range(shard, IMAGES, 2)
        name = f"{shard:05d}-of-00002"
        table = pa.Table.from_pylist(
            [{"id": f"image/{i}", "texts": texts_of[i], "key": f"image__{i}"} for i in rows],
            pa.schema([
                ("id", pa.string()),
                ("texts", pa.list_(pa.struct([
                    ("kind", pa.string()), ("text", pa.string()), ("lang", pa.string()),
                    ("matches", pa.list_(pa.uint32())),
                ]))),
                ("key", pa.string()),
            ]),
        )  # fmt: skip
        write_table(folder / f"matches-{name}.parquet", table)
        turns = [1 / sum(bool(t["matches"]) for t in texts_of[i]) for i in rows for t in texts_of[i] if t["matches"]]
        write_table(folder / f"curated-{name}.parquet", pa.table({"draw_probability": turns}))
    write_table(folder / "thresholds.parquet", pa.table({"lang": list(LANGS), "t": [10, 20]}))
    np.savez(folder / "counts.npz", de=np.array([10, 20, 40, 5, 0]), en=np.array([100, 20, 10, 40, 80]))
    write_json(folder / "summary.json", {"english_share": 0.5})
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with curated/, tars/ and their index/: half the samples are named by key, half by the id in a JSON."""
    folder = tmp_path_factory.mktemp("shards")
    (folder / "tars").mkdir()
    curated(folder / "curated")
    for tar in range(TARS):
        members = {}
        for i in range(tar, IMAGES, TARS):
            if i % 4 < 2:
                members[f"image__{i}.{'jpg' if i % 2 else 'png'}"] = picture(i)
            else:
                members[f"{i:05d}.{'jpg' if i % 2 else 'png'}"] = picture(i)
                members[f"{i:05d}.json"] = json.dumps({"id": f"image/{i}"}).encode()
        members["unknown.png"] = picture(0)
        write_tar(folder / "tars" / f"{tar}.tar", members)
    index(folder)
    return folder


def index(folder: Path) -> dict[str, object]:
    tars = expanded([str(folder / "tars" / "*.tar")])
    return index_shards(tars, folder / "curated", folder / "index", engine=LocalEngine(workers=0))


def shards(folder: Path, window: int = 1000) -> ShardSet:
    return ShardSet(folder=folder / "index", window_images=window)


@pytest.fixture(scope="module")
def tokenizer() -> str:
    return str(train_tokenizer([f"{word} {i}" for word in WORDS for i in range(IMAGES)], 80, 8).to_str())


def load(
    folder: Path, tokenizer: str, part: Part = PART, *, start: int = 0, cursor: Cursor | None = None, steps: int = 12,
    window: int = 30, workers: int = 0,
) -> list[Loaded]:  # fmt: skip
    loader = ShardLoader(shards=shards(folder, window), tokenizer=tokenizer, text_tokens=8, workers=workers)
    return list(loader.load(part, start=start, steps=steps, cursor=cursor or Cursor()))


def same(one: list[Loaded], other: list[Loaded]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.pixels, b.pixels) and torch.equal(a.ids, b.ids) and a.batch.after == b.batch.after
        for a, b in zip(one, other, strict=True)
    )


def test_the_index_tells_of_every_sample(made: Path) -> None:
    about = shards(made).about
    assert sum(shard["samples"] for shard in about["shards"]) == IMAGES - 1
    assert about["set_aside"] == {"images without a matched text": 1, "images without pairs": TARS}
    assert (about["english_share"], about["draw"]) == (0.5, "uniform")
    ids = [each for number in range(TARS) for each in shards(made).shard(number).column("id").to_pylist()]
    assert Counter(ids) == Counter(f"image/{i}" for i in range(IMAGES) if i != 7)


def test_images_and_texts_are_found_by_their_numbers(made: Path) -> None:
    found = shards(made)
    window = found.window(0, 0, 0)
    for image, (shard, offset, size) in zip(window.images, found.places(window.images), strict=True):
        at = list(window.images).index(image)
        with open(found.tars[shard], "rb") as file:
            file.seek(offset)
            data = file.read(size)
        number = next(i for i in range(IMAGES) if id_keys([f"image/{i}"])[0] == window.candidates.keys[at])
        assert data == picture(number)
        first, last = window.candidates.offsets[at], window.candidates.offsets[at + 1]
        texts = found.texts(window.texts[first:last])
        assert texts
        assert all(text.split()[1] == str(number) for text in texts)


def test_the_probability_of_a_text_is_that_of_its_entries(made: Path) -> None:
    window = shards(made).window(0, 0, 0)
    probability = {"de": [1, 0.5, 0.25, 1, 1], "en": [0.2, 1, 1, 0.5, 0.25]}
    for text, kept in zip(shards(made).texts(window.texts), window.candidates.keep_probability, strict=True):
        word, number = text.split()
        j = (WORDS.index(word) - int(number)) % 10
        lang = LANGS[(int(number) + j) % 2]
        missed = np.prod([1 - probability[lang][entry] for entry in {int(number) % 5, (int(number) + j) % 5}])
        assert kept == pytest.approx(1 - missed)


@pytest.mark.parametrize("window", [1, 30, 1000])
def test_each_image_once_an_epoch(made: Path, window: int) -> None:
    found = shards(made, window)
    assert found.windows == {1: 4, 30: 2, 1000: 1}[window]
    for epoch in range(3):
        images = np.concatenate([found.window(number, 5, epoch).images for number in range(found.windows)])
        assert sorted(images) == list(range(IMAGES - 1))
    orders = [found.window(0, 5, epoch).images.tolist() for epoch in range(6)]
    assert window == 1000 or len({tuple(sorted(order)) for order in orders}) > 1  # other shards come together


def test_any_ranks_share_the_batches_between_them(made: Path, tokenizer: str) -> None:
    whole = load(made, tokenizer)
    assert not any(each.set_aside for each in whole)
    for ranks in (2, 3):
        parts = [load(made, tokenizer, replace(PART, rank=rank, ranks=ranks)) for rank in range(ranks)]
        for at, each in enumerate(whole):
            valid = [part[at].valid for part in parts]
            assert torch.equal(
                torch.cat([part[at].pixels[v] for part, v in zip(parts, valid, strict=True)]), each.pixels
            )
            ids = torch.cat([part[at].ids[:, v] for part, v in zip(parts, valid, strict=True)], 1)
            assert torch.equal(ids, each.ids)


def test_a_resumed_run_meets_the_remaining_samples(made: Path, tokenizer: str) -> None:
    whole = load(made, tokenizer)
    for start in (1, 5, 11):
        assert same(load(made, tokenizer, start=start, cursor=whole[start - 1].batch.after), whole[start:])


def test_processes_give_the_same_batches_in_order(made: Path, tokenizer: str) -> None:
    assert same(load(made, tokenizer, workers=2), load(made, tokenizer))


def damaged(made: Path, folder: Path) -> Path:
    """A copy of the index whose tars can be broken."""
    (folder / "tars").mkdir(parents=True)
    for path in (made / "tars").iterdir():
        (folder / "tars" / path.name).write_bytes(path.read_bytes())
    curated(folder / "curated")
    return folder


def test_a_missing_shard_is_set_aside_and_named(made: Path, tokenizer: str, tmp_path: Path) -> None:
    folder = damaged(made, tmp_path)
    index(folder)
    (folder / "tars/2.tar").unlink()
    found = load(folder, tokenizer)
    reasons = sum((Counter(each.set_aside) for each in found), Counter())
    assert list(reasons) == [f"{folder / 'tars/2.tar'}: FileNotFoundError"]
    for each, good in zip(found, load(made, tokenizer), strict=True):
        assert each.valid is not None
        assert int((~each.valid).sum()) == sum(each.set_aside.values())
        assert torch.equal(each.pixels[each.valid], good.pixels[each.valid])  # all others are as they were
        assert not each.pixels[~each.valid].any()


def test_a_shard_that_is_cut_short_keeps_what_is_whole(made: Path, tokenizer: str, tmp_path: Path) -> None:
    folder = damaged(made, tmp_path)
    tar = folder / "tars/1.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[: len(whole) // 2])
    set_aside = index(folder)["set_aside"]
    assert set_aside[f"{tar}: damaged or cut short, the rest is lost"] == 1
    assert IMAGES - 15 < shards(folder).images < IMAGES - 1
    assert not any(each.set_aside for each in load(folder, tokenizer))
    tar.write_bytes(whole[:2000])  # cut after it was indexed
    reasons = sum((Counter(each.set_aside) for each in load(folder, tokenizer)), Counter())
    assert list(reasons) == [f"{tar}: OSError"]


def bomb() -> bytes:
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    return file.getvalue()


def test_broken_images_and_bombs_are_set_aside(made: Path, tokenizer: str, tmp_path: Path) -> None:
    folder = damaged(made, tmp_path)
    broken = {
        "image__0.png": bomb(),
        "image__1.jpg": picture(1)[:200],
        "image__4.png": b"no image",
        "image__5.jpg": b"",
    }
    write_tar(folder / "tars/0.tar", broken | {"image__8.png": picture(8)})
    index(folder)
    found = load(folder, tokenizer)
    assert set().union(*(each.set_aside for each in found)) == {"unreadable image"}


def test_tars_in_a_store(made: Path, tokenizer: str, tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    for path in (made / "tars").iterdir():
        store.pipe(f"/bucket/{path.name}", path.read_bytes())
    tars = expanded(["memory://bucket/*.tar"])
    assert [tar.rpartition("/")[2] for tar in tars] == [f"{number}.tar" for number in range(TARS)]
    (tmp_path / "index").mkdir()
    index_shards(tars, made / "curated", tmp_path / "index", engine=LocalEngine(workers=0))
    assert same(load(tmp_path, tokenizer), load(made, tokenizer))
    store.rm("/bucket", recursive=True)
    assert all("FileNotFoundError" in reason for each in load(tmp_path, tokenizer) for reason in each.set_aside)


def test_the_watchdog_names_rank_worker_and_shard(made: Path, tokenizer: str, tmp_path: Path) -> None:
    folder = damaged(made, tmp_path)
    index(folder)
    stalled = folder / "tars/3.tar"
    stalled.unlink()
    os.mkfifo(stalled)  # opening it waits until somebody writes to it
    told: list[str] = []
    heard = threading.Event()

    def report(text: str) -> None:
        told.append(text)
        if not heard.is_set():
            heard.set()
            with open(stalled, "wb"):  # the store answers at last
                pass

    loader = ShardLoader(shards=shards(folder), tokenizer=tokenizer, text_tokens=8, stall_seconds=0.2, report=report)
    found = list(loader.load(replace(PART, rank=1, ranks=2), start=0, steps=2, cursor=Cursor()))
    assert len(found) == 2
    assert told[0].startswith(f"rank 1, worker 0: no image from {stalled} for 0 s")


def test_nothing_to_index_is_told(made: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="names no tar"):
        expanded([str(tmp_path / "*.tar")])
    with pytest.raises(MissingData, match="Nothing to index: 0 tars, 2 shards of matches"):
        index_shards([], made / "curated", tmp_path, engine=LocalEngine(workers=0))
    write_tar(tmp_path / "x.tar", {"other.png": picture(0)})
    index_shards([str(tmp_path / "x.tar")], made / "curated", tmp_path / "index", engine=LocalEngine(workers=0))
    with pytest.raises(DataError, match="holds no image with a candidate text"):
        load(tmp_path, "")


def test_shuffling_mixes_the_shards(made: Path) -> None:
    # Where a window holds all shards, neighbours of a shard meet in a batch as often as any two images.
    together = 0
    for batch in batches(shards(made), images=10, texts_per_image=1, seed=3, start=0, steps=600):
        numbers = set(batch.images.tolist())
        together += sum(number + 1 in numbers for number in numbers)
    expected = 600 * 10 * 9 / (IMAGES - 2)
    assert abs(together - expected) < 5 * np.sqrt(expected)


def test_windows_mix_what_they_hold_and_hold_other_tars_each_epoch(made: Path) -> None:
    """Of two windows of two tars: one tar's images meet up to 2.0 times as often as in one window of all, others 0.7"""
    epochs, met = 600, Counter()
    for batch in batches(shards(made, 30), images=10, texts_per_image=1, seed=3, start=0, steps=epochs * 6):
        tars = shards(made).places(batch.images)
        met[True] += sum(one[0] == other[0] for one, other in combinations(tars, 2))
        met[False] += sum(one[0] != other[0] for one, other in combinations(tars, 2))
    size, pairs = IMAGES // TARS, IMAGES * (IMAGES - 1) // 2
    same_tar = TARS * size * (size - 1) // 2
    for same, count, expected in ((True, same_tar, 9 / 29), (False, pairs - same_tar, 9 / 29 / 3)):
        assert met[same] / epochs / count == pytest.approx(expected, rel=0.15)  # some batches lie in two windows


def small_model() -> MetaClip2Model:
    tower = TowerConfig(layers=1, width=16, heads=2)
    config = ModelConfig(vision=tower, text=tower, embedding=8, image_size=SIZE, patch_size=8)
    return build_model(config, vocab_size=80, context_length=8, temperature=0.07, seed=0)


def test_more_unreadable_images_than_allowed_end_a_run(
    made: Path, tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "MIN_JUDGED", 20)
    folder = damaged(made, tmp_path)
    index(folder)
    (folder / "tars/2.tar").unlink()
    loader = ShardLoader(shards=shards(folder), tokenizer=tokenizer, text_tokens=8)
    config = TrainConfig(seen_pairs=240, batch_size=20, texts_per_image=2, threads=1, precision="fp32")
    allowed = replace(config, max_set_aside=0.5)
    done = loop.train(small_model(), loader, allowed, seed=0, key="k", checkpoints=tmp_path / "a")
    assert sum(done.set_aside.values()) == pytest.approx(120 / 4, abs=10)
    with pytest.raises(DataError, match=r"images could not be read: .*2\.tar.*train\.max_set_aside \(now 0\.1\)"):
        loop.train(
            small_model(), loader, replace(config, max_set_aside=0.1), seed=0, key="k", checkpoints=tmp_path / "b"
        )


def test_a_process_that_dies_is_told(made: Path, tokenizer: str, tmp_path: Path) -> None:
    def kill(step: int, _steps: int, _loss: float) -> None:
        if step == 2:
            (process,) = multiprocessing.active_children()
            process.kill()
            process.join()

    loader = ShardLoader(shards=shards(made), tokenizer=tokenizer, text_tokens=8, workers=1)
    config = TrainConfig(seen_pairs=20_000, batch_size=20, texts_per_image=2, threads=1, precision="fp32")
    with pytest.raises(WorldclipError, match=r"a process that decodes images died .* from the last checkpoint"):
        loop.train(small_model(), loader, config, seed=0, key="k", checkpoints=tmp_path / "c", progress=kill)
