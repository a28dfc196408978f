"""The road from packages to a trained and tested model: the stages in order, each once, in one folder.

metadata/    concept lists of each language
pairs/       pictures with texts, to train on and to test on
curated/     Algorithm 1: matches, counts, thresholds, curated texts
tokenizer/   trained on the curated texts
model/       the trained model, as transformers loads it
results.json, report.html
"""

from __future__ import annotations

import dataclasses
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from worldclip import __version__, card
from worldclip.config import CurationConfig, as_dict, config_hash
from worldclip.curate import curate, entry_lists, read_counts
from worldclip.curation.lid import packaged_model
from worldclip.engines import Engine
from worldclip.errors import ConfigError, InputError, MissingData
from worldclip.extract import check_tables
from worldclip.metadata import starter
from worldclip.metadata.entries import read_manifest, read_metadata
from worldclip.packages import PACKAGES
from worldclip.pairs import packaged
from worldclip.pairs.sources import Source, find_sources, opened
from worldclip.pairs.tables import read_schema
from worldclip.recipes import ABLATION_ROWS, english_only, with_curation_row
from worldclip.report import curve, render
from worldclip.run import STAGES, Reporter, Run, curated_shards
from worldclip.schema import as_pairs
from worldclip.stages import input_hash
from worldclip.storage import (
    file_digest,
    read_json,
    read_table,
    stream_digest,
    write_bytes,
    write_json,
    write_table,
)
from worldclip.tokenizer import encode, lengths, special_ids, train_tokenizer
from worldclip.tokenizer.files import open_tokenizer

# torch is imported where a model is made: all stages before run without it.


def build_metadata(run: Run) -> None:
    """Concept lists from packaged wordnets, word lists and names."""

    def work() -> dict[str, Any]:
        config = run.recipe.metadata
        metadata = starter.build(
            run.cache,
            run.path("metadata"),
            languages=config.languages,
            free_only=config.free_only,
            report=run.reporter.line,
        )
        entries = sum(map(len, metadata.entries.values()))
        run.reporter.line(f"metadata: {entries:,} entries in {len(metadata.entries)} languages")
        return {"languages": len(metadata.entries), "entries": entries, "hash": metadata.hash}

    run.stage("metadata", work)


def build_pairs(run: Run) -> None:
    """Packaged pictures with their texts, to train on and to test on."""

    def work() -> dict[str, Any]:
        config = run.recipe.pairs
        figures = packaged.build(
            run.cache,
            run.path("pairs"),
            languages=config.languages,
            size=config.image_size,
            shards=config.shards,
            workers=run.engine.workers,
            report=run.reporter.line,
        )
        return dict(figures)

    run.stage("pairs", work)


def curate_pairs(run: Run) -> None:
    """Algorithm 1."""

    def work() -> dict[str, Any]:
        run.figures("metadata"), run.figures("pairs")
        lists = read_metadata(run.path("metadata"))
        summary = curate(
            sorted(run.path("pairs").glob("pairs-*.parquet")),
            lists,
            run.path("curate"),
            run.recipe.curation,
            seed=run.recipe.curation.seed,
            engine=run.engine,
            report=run.reporter.progress,
        )
        card.write(run.path("curate"), entry_lists(lists, run.recipe.curation), run.path("pairs"))
        run.reporter.line(
            f"curate: {summary['texts']:,} texts of {summary['images']:,} images, "
            f"{summary['matched_texts']:,} matched, "
            f"English share of the pairs to be seen {summary['english_share']:.1%}"
        )
        return {
            name: summary[name]
            for name in ("images", "texts", "matched_texts", "expected_kept", "kept", "english_share")
        }

    run.stage("curate", work)


def build_tokenizer(run: Run) -> None:
    """A tokenizer trained on the distinct curated texts."""

    def work() -> dict[str, Any]:
        config, path = run.recipe.tokenizer, run.path("tokenizer") / "tokenizer.json"
        if config.file:
            tokenizer = open_tokenizer(Path(config.file), config.context_length)
            write_bytes(path, tokenizer.to_str(pretty=True).encode())
            return {"vocab_size": tokenizer.get_vocab_size()}
        run.figures("curate")
        texts = pa.concat_arrays(
            [pc.unique(read_table(path, ["text"]).column("text")) for path in curated_shards(run)]
        ).unique()
        tokenizer = train_tokenizer(texts.to_pylist(), config.vocab_size, config.context_length, config.kind)
        write_bytes(path, tokenizer.to_str(pretty=True).encode())
        tokens = lengths(encode(tokenizer, texts.to_pylist()), special_ids(tokenizer))
        cut = float((tokens > run.recipe.train.text_tokens).mean())
        run.reporter.line(
            f"tokenizer: {tokenizer.get_vocab_size():,} pieces from {len(texts):,} texts, "
            f"mean {tokens.mean():.1f} tokens, "
            f"{cut:.1%} cut to {run.recipe.train.text_tokens} when training"
        )
        return {
            "vocab_size": tokenizer.get_vocab_size(),
            "texts": len(texts),
            "mean_tokens": float(tokens.mean()),
            "cut": cut,
        }

    run.stage("tokenizer", work)


def index_images(run: Run) -> None:
    """Index the run's own pictures for training from their shards."""
    from worldclip.shards import index_shards

    run.figures("curate")
    about = index_shards(
        [str(path) for path in sorted(run.path("pairs").glob("images-*.tar"))],
        run.path("curate"),
        run.folder / "shards",
        engine=run.engine,
        report=run.reporter.progress,
    )
    run.reporter.line(
        f"shards: {sum(shard['samples'] for shard in about['shards']):,} images in {run.folder / 'shards'}"
    )


def english_run(run: Run) -> Run:
    """The run of the English-only model that saw the same English pairs as often, beside `run`."""
    recipe = english_only(run.recipe, run.figures("curate")["english_share"])
    home = {stage: run.home(stage) for stage in ("metadata", "pairs")}
    return dataclasses.replace(run, folder=run.folder / "english", recipe=recipe, elsewhere=home)


def evaluate_model(run: Run) -> None:
    """Zero-shot and retrieval in every language on the pictures that were not trained on."""
    pictures = run.folder / "examples.parquet"

    def work() -> dict[str, Any]:
        from worldclip.evaluation.packaged import evaluate, examples, read_test
        from worldclip.model.encoder import Encoder

        run.figures("train")
        encoder = Encoder.open(run.path("train"))
        sets = read_test(run.path("pairs") / "test.parquet")
        trained = _trained_concepts(run)
        found = evaluate(sets, encoder.images, encoder.texts, trained)
        shown, pngs = examples(sets, encoder.images, encoder.texts, trained, encoder.logit_scale)
        write_table(pictures, pa.table({"id": sorted(pngs), "png": [pngs[at] for at in sorted(pngs)]}))
        languages = found["heldout_emoji"]["languages"]
        mean = float(np.mean([row["top1"] for row in languages.values()]))
        run.reporter.line(
            f"evaluate: held-out drawings, top-1: English {languages['en']['top1']:.1%}, "
            f"mean of {len(languages)} languages {mean:.1%}"
        )
        return found | {"examples": shown}

    run.stage("evaluate", work, [pictures])


def forgotten(run: Run) -> list[dict[str, Any]]:
    """What tuning gained and lost: top-1 of the model before and after, for each held-out set and language.

    Also written to `forgotten.json` of the run.

    Raises:
        ConfigError: the run does not tune a model (`train.start`).
        MissingData: a stage before has not run.
    """
    from worldclip.evaluation.packaged import evaluate, read_test
    from worldclip.model.encoder import Encoder

    start = run.recipe.train.start
    if start is None:
        raise ConfigError("The run begins with random weights (train.start is null): there is nothing to forget.")
    run.figures("train"), run.figures("pairs")
    sets, trained = read_test(run.path("pairs") / "test.parquet"), _trained_concepts(run)
    scores = []
    for folder in (Path(start), run.path("train")):
        encoder = Encoder.open(folder)
        scores.append(evaluate(sets, encoder.images, encoder.texts, trained))
    rows = [
        {
            "set": name,
            "lang": lang,
            "before": before["top1"],
            "after": scores[1][name]["languages"][lang]["top1"],
            "change": scores[1][name]["languages"][lang]["top1"] - before["top1"],
        }
        for name, found in scores[0].items()
        for lang, before in found["languages"].items()
        if "top1" in before
    ]
    write_json(run.folder / "forgotten.json", rows)
    return rows


def _trained_concepts(run: Run) -> set[str]:
    """The concepts of the emoji drawings that there are to train on."""
    concepts: set[str] = set()
    for path in sorted(run.path("pairs").glob("pairs-*.parquet")):
        table = read_table(path, ["set", "concept"])
        concepts.update(pc.unique(table.filter(pc.equal(table.column("set"), "emoji")).column("concept")).to_pylist())
    return concepts


def _models(run: Run) -> dict[str, Run]:
    """The run, and its English-only companion where that one is evaluated too."""
    models = {"worldwide": run}
    if (run.folder / "english" / "recipe.json").exists() and english_run(run).finished("evaluate"):
        models["english"] = english_run(run)
    return models


def write_results(run: Run) -> dict[str, Any]:
    """Put the figures of all stages, and of the English-only model if there is one, together (docs/results.md)."""
    from worldclip.evaluation.packaged import lid_accuracy

    languages = run.figures("evaluate")["heldout_emoji"]["languages"]
    models = _models(run)
    summary = read_json(run.path("curate") / "summary.json")
    counts = read_counts(run.path("curate") / "counts.npz")
    made = run.figures("pairs")
    trained = set(run.recipe.pairs.languages)
    limits = {row["lang"]: row["t"] for row in summary["languages"] if "t" in row}
    stages = [read_json(run.marker(stage)) for stage in STAGES if stage != "report"]
    present = run.cache.present()
    results = {
        "schema": 1,
        "worldclip": __version__,
        "config": as_dict(run.recipe),
        "config_hash": config_hash(run.recipe),
        "machine": machine() | {"precision": run.figures("train")["precision"]},
        "data": {
            "sets": [
                {name: getattr(package, name) for name in ("name", "package", "version", "licence", "about")}
                for package in PACKAGES
                if package.name in present
            ],
            "missing": {package.name: "not in the cache" for package in PACKAGES if package.name not in present},
            "set_aside": made["set_aside"] | summary["dropped"] | run.figures("train")["set_aside"],
            "metadata": run.figures("metadata"),
            "pairs": {
                name: summary[name]
                for name in ("images", "texts", "matched_texts", "expected_kept", "kept", "english_share")
            },
            "languages": summary["languages"],
            "curves": {
                lang: {"t": limits[lang], "counts": curve(counts[lang])}
                for lang in sorted(trained & counts.keys() & limits.keys())
            },
            "lid": lid_accuracy(sorted(run.path("curate").glob("matches-*.parquet"))),
        },
        "training": {name: each.figures("train") for name, each in models.items()},
        "evaluation": {
            name: {part: value for part, value in each.figures("evaluate").items() if part != "examples"}
            for name, each in models.items()
        },
        "examples": run.figures("evaluate")["examples"],
        "summary": {
            "heldout_emoji_top1_en": languages["en"]["top1"],
            "heldout_emoji_top1_mean": float(np.mean([row["top1"] for row in languages.values()])),
            "languages": len(languages),
            "train_seconds": run.figures("train")["seconds"],
            "total_seconds": round(sum(stage["seconds"] for stage in stages), 3),
            "peak_rss_mb": max(stage["peak_rss_mb"] for stage in stages),
        },
    }
    write_json(run.folder / "results.json", results)
    return results


def machine() -> dict[str, Any]:
    """The processor that the figures were measured on."""
    from torch import __version__ as torch_version

    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cores": os.cpu_count(), "cpu": names[0] if names else platform.processor(), "torch": str(torch_version)}


def write_report(run: Run) -> None:
    """results.json and the pictures it names, as one HTML page."""
    page = run.folder / "report.html"

    def work() -> dict[str, Any]:
        results = write_results(run)
        pictures = read_table(run.folder / "examples.parquet")
        pngs = dict(zip(pictures.column("id").to_pylist(), pictures.column("png").to_pylist(), strict=True))
        render(results, pngs, page)
        return {}

    results = run.folder / "results.json"
    if results.exists() and set(read_json(results)["training"]) != set(_models(run)):
        run.marker("report").unlink(missing_ok=True)  # It was written before the English-only model, or without it.
    run.stage("report", work, [results, page])


def quickstart(run: Run, *, compare_english: bool) -> None:
    """All stages in order; with `compare_english`, the English-only model too."""
    from worldclip.train.stage import train_model

    build_metadata(run)
    build_pairs(run)
    curate_pairs(run)
    build_tokenizer(run)
    train_model(run)
    evaluate_model(run)
    if compare_english:
        run.reporter.line("English-only model of the same English exposures")
        english = english_run(run)
        write_json(english.folder / "recipe.json", as_dict(english.recipe))
        for stage in (curate_pairs, build_tokenizer, train_model, evaluate_model):
            stage(english)
    write_report(run)


def curate_tables(
    pairs: str, metadata: Path, out: Path, config: CurationConfig, *, engine: Engine, reporter: Reporter
) -> dict[str, Any]:
    """Algorithm 1 on pairs and metadata of the user's own; `out` must be of the same question, or empty.

    Args:
        pairs: a Parquet file, a folder or a pattern of them, local or of a store that fsspec knows.

    Raises:
        InputError: `out` holds the answer to another question; the metadata was changed meanwhile.
        DataError: no shard can be read as pairs.
        ShardsFailed: some shards are quarantined.
    """
    shards = [source for source in find_sources([pairs]) if source.kind == "parquet"]
    if not shards:
        raise MissingData(f"{pairs}: no Parquet file there. `worldclip pairs extract` makes them of other files.")
    check_tables([shard.path for shard in shards], _check_columns)
    lists = read_metadata(metadata)
    _check_question(out, shards, lists.hash, config)
    summary = curate(
        [shard.path for shard in shards],
        lists,
        out,
        config,
        seed=config.seed,
        engine=engine,
        report=reporter.progress,
    )
    if read_manifest(metadata)["hash"] != lists.hash:
        (out / "summary.json").unlink()
        raise InputError(f"{metadata}: was changed while {out} was made of it. Give another --out, or put it back.")
    page = card.write(out, entry_lists(lists, config), Path(pairs))
    reporter.line(f"data card: {page}")
    reporter.line(f"kept {summary['kept']:,} of {summary['texts']:,} texts, {summary['images']:,} images: {out}")
    return summary


def _check_question(out: Path, shards: Sequence[Source], metadata: str, config: CurationConfig) -> None:
    """Tell whether a folder belongs to another question, before any work is begun.

    A shard of pairs that was quarantined may have been mended since; one that was matched must be what it was.
    """
    lid = file_digest(Path(config.lid) if config.lid else packaged_model())
    key = config_hash(config, metadata, lid, [shard.path for shard in shards])
    now = {shard.path: [shard.size, shard.changed] for shard in shards}
    marker = out / "question.json"
    before: dict[str, Any] = read_json(marker) if marker.exists() else {"key": key, "pairs": {}}
    if before["key"] != key:
        raise InputError(
            f"{out}: holds the answer to another question (other pairs, metadata or settings). Choose another --out."
        )
    for number, shard in enumerate(shards):
        matches = out / f"matches-{number:05d}-of-{len(shards):05d}.parquet"
        if before["pairs"].get(shard.path) != now[shard.path] and matches.exists():
            with opened(shard.path) as file:
                same = stream_digest(file) == input_hash(matches)
            if not same:
                raise InputError(f"{shard.path}: has changed since {out} was begun. Choose another --out.")
    write_json(marker, {"key": key, "pairs": now})


def _check_columns(path: str) -> None:
    with opened(path) as file:
        as_pairs(read_schema(file, path).empty_table(), path)


def ablate(run: Run, seeds: int) -> list[dict[str, Any]]:
    """The five rows of the paper's ablation: each row's mean over seeds and 95 % interval (Student's t), in percent.

    All rows share metadata, pairs and t_en. Row 1 sees as many English pairs as row 5 expects to (batch and pairs times
    the English share, as many steps); all others see as many pairs as row 5.
    """
    from worldclip.train.stage import train_model

    build_metadata(run)
    build_pairs(run)
    curate_pairs(run)
    t_en = next(row["t"] for row in read_json(run.path("curate") / "summary.json")["languages"] if row["lang"] == "en")
    share = run.figures("curate")["english_share"]
    home = {stage: run.home(stage) for stage in ("metadata", "pairs")}
    rows = []
    for row in ABLATION_ROWS:
        recipe = english_only(run.recipe, share) if row == 1 else run.recipe
        folder = run.folder / "ablation" / f"row{row}"
        curated = dataclasses.replace(run, folder=folder, recipe=with_curation_row(recipe, row, t_en), elsewhere=home)
        run.reporter.line(f"ablation row {row}")
        curate_pairs(curated)
        build_tokenizer(curated)
        found = []
        for seed in range(seeds):
            each = dataclasses.replace(
                curated,
                folder=folder / f"seed{seed}",
                recipe=dataclasses.replace(curated.recipe, seed=seed),
                elsewhere=home | {"curate": folder, "tokenizer": folder},
            )
            train_model(each)
            evaluate_model(each)
            found.append(_english_and_others(each.figures("evaluate")))
        rows.append({"row": row, **{name: _mean_interval([each[name] for each in found]) for name in found[0]}})
    write_json(run.folder / "ablation.json", rows)
    return rows


def _english_and_others(found: Mapping[str, Any]) -> dict[str, float]:
    """Top-1 in percent of English and of the mean over all other languages, on drawings and on stamps."""
    scores = {}
    for name, part in (("drawings", "heldout_emoji"), ("stamps", "stamps")):
        tops = {lang: 100 * record["top1"] for lang, record in found.get(part, {"languages": {}})["languages"].items()}
        if "en" in tops:
            scores[f"{name}, English"] = tops.pop("en")
            scores[f"{name}, others"] = float(np.mean(list(tops.values())))
    return scores


def _mean_interval(values: list[float]) -> str:
    """Mean and half-width of the 95 % interval of the mean over a few seeds."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return f"{mean:.1f}"
    from scipy.stats import sem, t

    return f"{mean:.1f} ± {t.ppf(0.975, len(values) - 1) * sem(values):.1f}"
