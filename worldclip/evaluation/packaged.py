"""The packaged pictures that are never trained on: a whole drawing style, some stamps, all photographs.

A model comes in as two functions from pictures and from texts to unit vectors. What a language's names are comes from
the packages' own labels; what the model was trained on never does.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from worldclip.curation.sample import id_keys
from worldclip.errors import DataError
from worldclip.evaluation.metrics import Floats
from worldclip.evaluation.tasks import EncodeTexts, Suite, classify_suite, retrieve_suite
from worldclip.storage import read_table

EncodeImages = Callable[[Iterable[Image.Image]], Floats]

#: Held-out pictures shown in a report, and the languages, one a script, that it names them in.
SHOWN = 24
SHOWN_LANGUAGES = ("en", "ar", "bn", "el", "he", "hi", "ja", "ko", "ru", "th", "zh")

#: What the report looks for, each in one of the languages: concepts, by their English names.
QUERIES = {
    "ar": "elephant",
    "es": "bicycle",
    "hi": "red apple",
    "ja": "fish",
    "ru": "evergreen tree",
    "th": "dog",
    "zh": "locomotive",
    "fr": "sunflower",
}


@dataclass(frozen=True, kw_only=True)
class TestPictures:
    """Test pictures of one set, with their names by language."""

    ids: list[str]
    concepts: list[str]
    pngs: list[bytes]
    texts: dict[str, dict[str, dict[str, str]]]  #: kind -> language -> id -> text, the first of its kind

    def features(self, encode_images: EncodeImages) -> Floats:
        """Embed them: float32 [n, d]."""
        return encode_images(Image.open(io.BytesIO(png)) for png in self.pngs)


def read_test(path: Path) -> dict[str, TestPictures]:
    """Read what `pairs.packaged.build` wrote as `test.parquet`: set -> its pictures.

    Raises:
        DataError: a column is missing.
    """
    table = read_table(path)
    for name in ("id", "set", "concept", "png", "texts"):
        if name not in table.schema.names:
            raise DataError(
                f"{path}: lacks the column {name!r}; found {', '.join(table.schema.names)}. Make the pairs again."
            )
    sets: dict[str, TestPictures] = {}
    for name in sorted(set(table.column("set").to_pylist())):
        rows = table.filter(pc.equal(table.column("set"), name)).to_pylist()
        texts: dict[str, dict[str, dict[str, str]]] = {}
        for row in rows:
            for text in row["texts"]:
                texts.setdefault(text["kind"], {}).setdefault(text["lang"], {}).setdefault(row["id"], text["text"])
        sets[name] = TestPictures(
            ids=[row["id"] for row in rows],
            concepts=[row["concept"] for row in rows],
            pngs=[row["png"] for row in rows],
            texts=texts,
        )
    return sets


def evaluate(
    sets: Mapping[str, TestPictures], encode_images: EncodeImages, encode_texts: EncodeTexts, trained: Collection[str]
) -> dict[str, Any]:
    """Score a model on every set, in every language.

    Args:
        trained: the concepts of the emoji drawings that were trained on, in other styles.

    Returns:
        The part `evaluation` of results.json for one model, see docs/results.md.
    """
    found: dict[str, Any] = {}
    if "emoji" in sets:
        emoji = sets["emoji"]
        names = {
            lang: {concept: own[at] for at, concept in zip(emoji.ids, emoji.concepts, strict=True) if at in own}
            for lang, own in emoji.texts["title"].items()
        }
        suite = classify_suite(encode_texts, emoji.features(encode_images), emoji.concepts, names, trained=trained)
        found["heldout_emoji"] = _record(suite, len(emoji.ids))
    for name, kind in (("stamps", "caption"), ("photographs", "title")):
        if name in sets:
            pictures = sets[name]
            suite = retrieve_suite(
                encode_texts,
                pictures.features(encode_images),
                pictures.ids,
                pictures.texts.get(kind, {}),
                descriptions=pictures.texts.get("description"),
            )
            found[name] = _record(suite, len(pictures.ids))
    return found


def _record(suite: Suite, images: int) -> dict[str, Any]:
    english = suite.records.get("en", {})
    return {
        "images": images,
        "classes": english.get("classes"),
        "chance_top1": english.get("chance_top1"),
        "languages": suite.records,
        "absent": suite.absent,
    }


def examples(
    sets: Mapping[str, TestPictures],
    encode_images: EncodeImages,
    encode_texts: EncodeTexts,
    trained: Collection[str],
    logit_scale: float,
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Pictures for the report: the best name of some held-out drawings in several scripts, and what some names find.

    Which drawings are shown is decided by a hash of their ids, not by how well they do.

    Returns:
        The part `examples` of results.json, and the PNGs of the pictures that it names.
    """
    emoji = sets["emoji"]
    features = emoji.features(encode_images)
    order = np.argsort(id_keys(emoji.ids), kind="stable")
    chosen = [int(row) for row in order if emoji.concepts[row] in trained][:SHOWN]
    titles = emoji.texts["title"]
    shown: list[dict[str, Any]] = [{"id": emoji.ids[row], "truth": {}, "predictions": {}} for row in chosen]
    for lang in SHOWN_LANGUAGES:
        names = titles.get(lang, {})
        rows = [row for row, at in enumerate(emoji.ids) if at in names and emoji.concepts[row] in trained]
        if not rows:
            continue
        texts = [names[emoji.ids[row]] for row in rows]
        logits = logit_scale * features[chosen].astype(np.float64) @ encode_texts(texts).T.astype(np.float64)
        probabilities = np.exp(logits - logits.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        for place, row in enumerate(chosen):
            best = int(probabilities[place].argmax())
            shown[place]["truth"][lang] = names.get(emoji.ids[row])
            shown[place]["predictions"][lang] = [texts[best], round(float(probabilities[place, best]), 4)]

    everything = [
        (at, concept) for name in sorted(sets) for at, concept in zip(sets[name].ids, sets[name].concepts, strict=True)
    ]
    pool = np.concatenate([sets[name].features(encode_images) for name in sorted(sets)])
    id_of = dict(zip(emoji.concepts, emoji.ids, strict=True))
    retrieved = []
    for lang, concept in QUERIES.items():
        query = titles.get(lang, {}).get(id_of.get(concept, ""))
        if query is None:
            continue
        best_rows = np.argsort(-(pool @ encode_texts([query])[0]), kind="stable")[:5]
        retrieved.append(
            {
                "lang": lang,
                "query": query,
                "ids": [everything[row][0] for row in best_rows],
                "hits": [everything[row][1] == concept for row in best_rows],
            }
        )
    needed = {entry["id"] for entry in shown} | {at for entry in retrieved for at in entry["ids"]}
    pngs = {at: png for name in sets for at, png in zip(sets[name].ids, sets[name].pngs, strict=True) if at in needed}
    return {"classify": shown, "retrieve": retrieved}, pngs


def lid_accuracy(matches: Sequence[Path]) -> dict[str, Any]:
    """How often the language identifier agrees with the package's label, by distinct text and label."""
    seen: set[tuple[str, str, str]] = set()
    for path in matches:
        table = read_table(path)
        if "labels" not in table.schema.names:
            continue
        texts = table.column("texts").combine_chunks().flatten()
        labels = table.column("labels").combine_chunks().flatten()
        distinct = (
            pa.table({"text": texts.field("text"), "lang": texts.field("lang"), "label": labels})
            .group_by(["text", "lang", "label"])
            .aggregate([])
        )
        seen.update(zip(*(distinct.column(name).to_pylist() for name in ("text", "lang", "label")), strict=True))
    total: dict[str, list[int]] = {}
    for _, lang, label in seen:
        counts = total.setdefault(label, [0, 0])
        counts[0] += lang == label
        counts[1] += 1
    right, asked = (sum(counts[at] for counts in total.values()) for at in (0, 1))
    return {
        "texts": asked,
        "accuracy": right / asked if asked else None,
        "languages": {label: right / asked for label, (right, asked) in sorted(total.items())},
    }
