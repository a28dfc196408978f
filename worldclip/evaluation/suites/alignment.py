"""Alignment and uniformity of 5,000 image-text pairs (Wang & Isola, 2020): no percent; less is better."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from worldclip.errors import DataError
from worldclip.evaluation import bootstrap
from worldclip.evaluation.benchmark import Benchmark, Options, Source
from worldclip.evaluation.pictures import Features
from worldclip.evaluation.records import Record
from worldclip.evaluation.scores import alignment, uniformity
from worldclip.evaluation.scoring import embed_pictures, embed_texts, fingerprint
from worldclip.evaluation.suites.datacomp import read_captioned
from worldclip.storage import digest

PAIRS = 5_000

#: The reference implementation's constants; the paper prints none.
ALPHA, T = 2.0, 2.0


def score(folders: Sequence[Path], features: Features, options: Options) -> list[Record]:
    """Measure pairs of an image and its first caption; of more than 5,000 those whose keys hash lowest."""
    pictures, captions = read_captioned(folders[0])
    captioned = [row for row, each in enumerate(captions) if each]
    rows = sorted(sorted(captioned, key=lambda row: digest(pictures.keys[row]))[:PAIRS])
    if len(rows) < 2:
        raise DataError(f"{folders[0]}: {len(rows)} images with a caption; needs two at least.")
    chosen = pictures.take(rows)
    images, readable, left_out = embed_pictures(features, chosen)
    texts = embed_texts(features, [captions[rows[row]][0] for row in readable])
    values = {
        "alignment": alignment(images, texts, ALPHA),
        "uniformity": uniformity(images, T),
        "text_uniformity": uniformity(texts, T),
    }
    values["sum"] = values["alignment"] + values["uniformity"]
    distances = np.linalg.norm(images.astype(np.float64) - texts, axis=1) ** ALPHA
    draws = bootstrap.resampled_ratios(
        distances[:, None], np.ones((len(distances), 1)), seed=options.seed, resamples=options.resamples
    )
    return [
        Record(
            task="alignment",
            metric="alignment",
            value=values["alignment"],
            n=len(images),
            values=values,
            intervals={"alignment": bootstrap.interval(draws[:, 0])},
            left_out=left_out,
            settings={"alpha": ALPHA, "t": T, "pairs_of": folders[0].name},
            fingerprint=fingerprint(chosen),
        )
    ]


BENCHMARKS = (
    Benchmark(
        name="alignment",
        suites=("alignment", "paper"),
        metrics=("alignment", "uniformity", "text_uniformity", "sum"),
        folders=(
            (
                "alignment",
                "wds_mscoco_captions_test",
                "wds_mscoco_captions",
                "mscoco_2014_5k_test_image_text_retrieval",
            ),
        ),
        n=PAIRS,
        source=Source(
            names="the authors' pairs are private: any 5,000 held-out pairs, such as MSCOCO's test images",
            layout="alignment/ as WebDataset with .txt, or Parquet (image, caption); else MSCOCO's folder",
            licence="each data set's own",
        ),
        score=score,
    ),
)
