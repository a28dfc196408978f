"""Towers by onnxruntime beside torch, on one CPU thread and on all: milliseconds, bytes, and what precision costs.

Latency is of ViT-B/32 with 32,768 random words: more words cost memory, no time. What fp16 and int8 lose is
measured with a trained model on the packaged test pictures: that of `runs/quickstart`, or of the run that the
environment's WORLDCLIP_RUN names. With --check a small random model alone, and answers only.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldclip.errors import MissingData, WorldclipError
from worldclip.evaluation.packaged import evaluate, read_test
from worldclip.model.encoder import Encoder
from worldclip.model.export import onnx_differences, write_onnx
from worldclip.model.features import image_features, text_features
from worldclip.model.pretrained import Golden, Pretrained, read
from worldclip.model.released import RELEASED
from worldclip.model.serve import OnnxEncoder
from worldclip.model.sizes import build_model
from worldclip.tokenizer import train_tokenizer

PRECISIONS = ("fp32", "fp16", "int8")

#: The largest difference of an embedding's number from torch's, of random weights.
BOUNDS = {"fp32": 1e-5, "fp16": 5e-3, "int8": 5e-2}


def run(*, check: bool) -> Iterator[dict[str, Any]]:
    """Rows of latency, then of accuracy.

    Raises:
        WorldclipError: a graph is further from torch than its precision explains.
        MissingData: there is no trained run.
    """
    yield from _latency(check=check)
    if not check:
        yield from _accuracy(Path(os.environ.get("WORLDCLIP_RUN", "runs/quickstart")))


def _latency(*, check: bool) -> Iterator[dict[str, Any]]:
    config = RELEASED["ViT-B-32-worldwide"].model
    if check:
        config = dataclasses.replace(
            config,
            vision=dataclasses.replace(config.vision, layers=2),
            text=dataclasses.replace(config.text, layers=2),
        )
    model = build_model(config, vocab_size=32_768, context_length=77, temperature=0.07, seed=0).eval()
    found = Pretrained(model=model, tokenizer=train_tokenizer(["a dog", "ein Hund"] * 4, 40, 77), crop=True)
    golden = Golden.of(model)
    with tempfile.TemporaryDirectory() as place:
        for precision in PRECISIONS:
            folder = Path(place) / precision
            write_onnx(found, folder, precision)
            apart = onnx_differences(found, folder)
            if max(apart["images"], apart["texts"]) > BOUNDS[precision]:
                raise WorldclipError(f"bench: export: {precision} differs from torch by {apart}.")
            row = {"model": "ViT-B/32, 32,768 words", "precision": precision, "answers": apart}
            if check:
                yield row
                continue
            size = sum(path.stat().st_size for path in folder.glob("*.onnx*"))
            for threads in sorted({1, os.cpu_count() or 1}):
                torch.set_num_threads(threads)
                encoder = OnnxEncoder.open(folder, threads)
                for batch in (1, 16):
                    yield row | {
                        "MB": round(size / 1e6, 1),
                        "threads": threads,
                        "batch": batch,
                        **_times(encoder, model, golden, batch),
                    }


def _times(encoder: OnnxEncoder, model: Any, golden: Golden, batch: int) -> dict[str, float]:
    pixels, ids = golden.pixels[:1].repeat(batch, 1, 1, 1), golden.ids[2:3].repeat(batch, 1)
    length = int((ids == 2).int().argmax(1).max()) + 1
    ids = ids[:, :length]
    inputs = {"pixel_values": pixels.numpy()}, {"input_ids": ids.numpy()}

    @torch.inference_mode()
    def images() -> None:
        image_features(model, pixels)

    @torch.inference_mode()
    def texts() -> None:
        text_features(model, ids)

    told = {}
    for what, ours, theirs in (
        ("image", lambda: encoder.image_session.run(None, inputs[0]), images),
        (f"text of {length} tokens", lambda: encoder.text_session.run(None, inputs[1]), texts),
    ):
        one, two = _milliseconds(ours), _milliseconds(theirs)
        told |= {f"{what}, ms": one, f"{what}, torch ms": two, f"{what}, ratio": round(two / one, 2)}
    return told


def _milliseconds(act: Callable[[], object]) -> float:
    """The median of some runs, after one that is not counted."""
    act()
    took = []
    while len(took) < 5 or (sum(took) < 1 and len(took) < 30):
        began = time.perf_counter()
        act()
        took.append(time.perf_counter() - began)
    return round(1000 * float(np.median(took)), 2)


def _accuracy(folder: Path) -> Iterator[dict[str, Any]]:
    if not (folder / "model" / "model.safetensors").exists():
        raise MissingData(
            f"{folder}: holds no trained model. Run `worldclip quickstart`, or name a run: WORLDCLIP_RUN."
        )
    sets = read_test(folder / "pairs" / "test.parquet")
    found = read(folder / "model")
    with tempfile.TemporaryDirectory() as place:
        encoders: dict[str, Any] = {"torch fp32": Encoder.open(folder / "model")}
        for precision in PRECISIONS:
            write_onnx(found, Path(place) / precision, precision)
            encoders[precision] = OnnxEncoder.open(Path(place) / precision)
        for name, encoder in encoders.items():
            scores = evaluate(sets, encoder.images, encoder.texts, set())
            for part, each in scores.items():
                top1 = [row["top1"] for row in each["languages"].values() if row.get("top1") is not None]
                if top1:
                    yield {
                        "model": str(folder / "model"),
                        "precision": name,
                        "set": part,
                        "languages": len(top1),
                        "top1, mean of languages": round(float(np.mean(top1)), 4),
                    }
