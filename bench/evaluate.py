"""Evaluation: a Babel-ImageNet's texts beside the plain loop over classes, and retrieval in 36 locales within 2 GB.

The texts have the benchmark's structure at a smaller scale: a third of the languages have 80 prompts a class, the
others the bare name; classes are those that a language has a name for. Names are real ones, of drawings; the prompts
are the 80 English ones, for no package has translated ones. The loop is what evaluations commonly do: class by class,
every prompt padded to the context.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worldclip.config import ModelConfig, TowerConfig
from worldclip.errors import WorldclipError
from worldclip.evaluation.benchmark import Options
from worldclip.evaluation.features import EncoderFeatures
from worldclip.evaluation.pictures import Pictures
from worldclip.evaluation.scoring import Captioned, embed_classes, retrieve
from worldclip.evaluation.suites.imagenet import templates
from worldclip.model.encoder import Encoder
from worldclip.model.sizes import build_model, save_model
from worldclip.packages import Cache, cache_folder
from worldclip.tokenizer import train_tokenizer

Floats = NDArray[np.float32]

#: Languages, and classes of each at most: 298 and 1,000 in the benchmark.
LANGUAGES, CLASSES = 30, 12
CHECK_LANGUAGES, CHECK_CLASSES = 6, 4

#: Tokens of a row, as the paper's models have them; pieces of the tokenizer that is trained on the names.
CONTEXT, VOCABULARY = 77, 24_000

#: Retrieval as in XM3600, with embeddings as wide as those of H/14.
LOCALES, IMAGES, WIDTH = 36, 3600, 1024
CHECK_LOCALES, CHECK_IMAGES = 3, 200

#: What retrieval may use, MiB.
MEMORY = 2048

_RETRIEVAL = """
import json, sys, time
from bench import evaluate, peak_mb
began = time.perf_counter()
values = evaluate.retrieve_all(*map(int, sys.argv[1:]))
print(json.dumps({"seconds": round(time.perf_counter() - began, 1), "peak_mb": round(peak_mb()), "values": values}))
"""


def run(*, check: bool) -> Iterator[dict[str, Any]]:
    """One row for the texts, one for retrieval.

    Raises:
        WorldclipError: the loop gives other features or recalls, or retrieval uses too much memory.
    """
    yield _texts(*((CHECK_LANGUAGES, CHECK_CLASSES) if check else (LANGUAGES, CLASSES)))
    yield _retrieval(*((CHECK_LOCALES, CHECK_IMAGES) if check else (LOCALES, IMAGES)))


def _names(languages: int) -> dict[str, list[str]]:
    """Each language's names of drawings, a thousand at least."""
    folder = Cache(cache_folder()).path("cldr-annotations") / "annotations"
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("*/annotations.json")):
        drawings = json.loads(path.read_bytes())["annotations"].get("annotations", {}).values()
        names = [each["tts"][0] for each in drawings if each.get("tts")]
        if len(names) >= 1000:
            found[path.parent.name] = names
    step = max(1, len(found) // languages)
    return {language: found[language] for language in list(found)[::step][:languages]}


def _texts(languages: int, classes: int) -> dict[str, Any]:
    known = _names(languages)
    names = {language: own[:: len(own) // classes][:classes] for language, own in known.items()}
    prompts = {language: templates(Options()) if at % 3 == 0 else ["{}"] for at, language in enumerate(names)}
    tower = TowerConfig(layers=4, width=256, heads=4)
    with tempfile.TemporaryDirectory() as root:
        # All names, and each prompt often: a vocabulary that cuts them as coarsely as the paper's 900,000 pieces would.
        words = [name for own in known.values() for name in own] + 100 * templates(Options())
        tokenizer = train_tokenizer(words, VOCABULARY, CONTEXT)
        model = build_model(
            ModelConfig(vision=tower, text=tower, embedding=256, image_size=32, patch_size=16),
            vocab_size=tokenizer.get_vocab_size(),
            context_length=CONTEXT,
            temperature=0.07,
            seed=0,
        )
        save_model(model, tokenizer, Path(root, "model"))
        encoder = Encoder.open(Path(root, "model"))
        texts = [
            prompt.replace("{}", name) for language in names for name in names[language] for prompt in prompts[language]
        ]
        tokens = float(np.mean(encoder.towers.lengths(texts)))
        encoder.texts(texts[:64])  # whatever happens only once has happened

        began = time.perf_counter()
        plain = {language: _loop(encoder, names[language], prompts[language]) for language in names}
        loop_seconds = time.perf_counter() - began
        seconds = []
        for _ in range(2):  # the second time everything has been kept
            features = EncoderFeatures.open(encoder, Path(root, "features"), threads=2)
            began = time.perf_counter()
            ours = {
                language: embed_classes(features, [(name,) for name in own], prompts[language])
                for language, own in names.items()
            }
            seconds.append(time.perf_counter() - began)
    apart = max(float(np.abs(ours[language] - plain[language]).max()) for language in names)
    if apart > 1e-5:
        raise WorldclipError(f"bench: evaluate: class embeddings differ by {apart} from the plain loop's.")
    return {
        "languages": len(names),
        "texts": len(texts),
        "mean_tokens": round(tokens, 1),
        "loop_seconds": round(loop_seconds, 2),
        "seconds": round(seconds[0], 2),
        "ratio": round(loop_seconds / seconds[0], 1),
        "seconds_when_kept": round(seconds[1], 2),
        "largest_difference": apart,
    }


@torch.inference_mode()
def _loop(encoder: Encoder, names: Sequence[str], prompts: Sequence[str]) -> Floats:
    """Class after class: all its prompts, padded to the context, averaged as unit vectors."""
    found = []
    for name in names:
        rows = encoder.towers.tokenize([prompt.replace("{}", name) for prompt in prompts])
        padded = torch.tensor([row + [1] * (CONTEXT - len(row)) for row in rows])
        features = torch.nn.functional.normalize(encoder.towers.texts(padded), dim=-1)
        found.append(torch.nn.functional.normalize(features.mean(0), dim=-1))
    return torch.stack(found).numpy()


class Drawn:
    """Random unit vectors: an image's texts lie near it."""

    def __init__(self, images: int) -> None:
        self.own = _unit(np.random.default_rng(0).normal(size=(images, WIDTH)))

    def images(self, pictures: Pictures) -> Floats:
        """All of them."""
        del pictures
        return self.own

    def texts(self, texts: Sequence[str]) -> Floats:
        """A text's second word is the number of its image."""
        owner = [int(text.split()[1]) for text in texts]
        noise = np.random.default_rng(len(texts)).normal(size=(len(texts), WIDTH))
        return _unit(self.own[owner] + 0.3 * noise)

    def truncated(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """None."""
        return np.zeros(len(texts), bool)


def _unit(rows: NDArray[np.float64]) -> Floats:
    unit: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def _captions(locales: int, images: int) -> dict[str, list[list[str]]]:
    """About two of each image, as many in all as the data set has in a locale."""
    return {
        f"l{locale}": [[f"l{locale} {at} {turn}" for turn in range(1 + (at + locale) % 3)] for at in range(images)]
        for locale in range(locales)
    }


def retrieve_all(locales: int, images: int) -> dict[str, float]:
    """Score retrieval as the suite does."""
    keys = tuple(map(str, range(images)))
    pictures = Pictures(name="drawn", keys=keys, read=lambda rows: iter([b""] * len(rows)))
    data = Captioned(pictures=pictures, captions=_captions(locales, images))
    return dict(retrieve("drawn", data, Drawn(images), Options()).values)


def _retrieval(locales: int, images: int) -> dict[str, Any]:
    arguments = [sys.executable, "-c", _RETRIEVAL, str(locales), str(images)]
    told = json.loads(subprocess.run(arguments, capture_output=True, text=True, check=True).stdout)
    plain = _plain_recall(locales, images)
    if abs(plain - told["values"]["t2i_r1"]) > 1e-9:
        raise WorldclipError(f"bench: evaluate: recall is {told['values']['t2i_r1']}, plain loops give {plain}.")
    if told["peak_mb"] > MEMORY:
        raise WorldclipError(f"bench: evaluate: retrieval took {told['peak_mb']} MiB; {MEMORY} are allowed.")
    return {
        "locales": locales,
        "images": images,
        "captions": sum(len(each) for own in _captions(locales, images).values() for each in own),
        "seconds": told["seconds"],
        "peak_mb": told["peak_mb"],
        "t2i_r1": round(told["values"]["t2i_r1"], 3),
        "answers": "equal",
    }


def _plain_recall(locales: int, images: int) -> float:
    """Text to image at 1, in percent: argmax over the images, mean over captions, then over locales."""
    drawn = Drawn(images)
    recalls = []
    for own in _captions(locales, images).values():
        owner = np.array([at for at, each in enumerate(own) for _ in each])
        texts = drawn.texts([text for each in own for text in each])
        hits = [(texts[low : low + 512] @ drawn.own.T).argmax(1) for low in range(0, len(texts), 512)]
        recalls.append(100 * float((np.concatenate(hits) == owner).mean()))
    return float(np.mean(recalls))
