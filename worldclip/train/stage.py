"""The training stage of a run: its data, its first model, its teacher, its students (paper, section 3.3)."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer
from transformers import MetaClip2Model

from worldclip.config import Recipe, config_hash, override
from worldclip.errors import ConfigError, MissingData
from worldclip.loader.images import read_images
from worldclip.loader.memory import MemoryImages
from worldclip.loader.parts import Loader
from worldclip.loader.shards import ShardSet
from worldclip.loader.workers import ShardLoader
from worldclip.model.encoder import Encoder
from worldclip.model.golden import FILE as GOLDEN
from worldclip.model.golden import write_golden
from worldclip.model.pretrained import read
from worldclip.model.sizes import build_model, save_model
from worldclip.model.start import lock_image_tower, started
from worldclip.pairs import packaged
from worldclip.recipes import scaled
from worldclip.run import Run, curated_shards
from worldclip.stages import candidates_of
from worldclip.storage import digest, read_table
from worldclip.tokenizer import encode, special_ids, truncated
from worldclip.train.distill import Teacher, frozen, known_features
from worldclip.train.loop import Student, Validation, train_students
from worldclip.train.optim import hardware_precision
from worldclip.train.ranks import Ranks
from worldclip.train.validate import retrieval


def train_model(run: Run, ranks: Ranks | None = None, students: Sequence[Run] = ()) -> None:
    """CLIP from random weights on the curated pairs; under torchrun every rank calls it, and rank 0 writes.

    Args:
        students: further runs, see `student_run`, that are trained on the same batches and see the same teacher.
    """
    ranks = ranks or Ranks()
    runs = [run, *students]
    finished = ranks.broadcast([each.finished("train") for each in runs] if ranks.rank == 0 else None)
    waiting = [each for each, done in zip(runs, finished, strict=True) if not done]
    if not waiting:
        run.reporter.line("train: done before")
    elif len(waiting) < len(runs):
        run.reporter.line(f"train: {len(runs) - len(waiting)} of {len(runs)} models done before")
    if waiting:
        _train_as_stages(waiting, waiting, ranks)
    ranks.barrier()


def _train_as_stages(runs: Sequence[Run], left: Sequence[Run], ranks: Ranks) -> list[dict[str, Any]]:
    """Train all runs at once, each in a stage of its own, one in the other; the figures of each."""
    if not left or ranks.rank > 0:
        return _train(runs, ranks)
    figures: list[dict[str, Any]] = []

    def work() -> dict[str, Any]:
        figures.extend(_train_as_stages(runs, left[1:], ranks))
        return figures[len(runs) - len(left)]

    left[0].stage("train", work)
    return figures


def student_run(run: Run, name: str, settings: Sequence[str]) -> Run:
    """A further model of a run's data, in `students/<name>` of its folder.

    Raises:
        ConfigError: something else than the model is to differ.
    """
    recipe = override(run.recipe, settings)
    if dataclasses.replace(recipe, model=run.recipe.model) != run.recipe:
        raise ConfigError(
            f"student {name}: students that are trained together differ in `model` alone, for example "
            f"{name}:model.vision.width=64. Train it in a run of its own, with train.teacher_cache."
        )
    home = {stage: run.home(stage) for stage in ("metadata", "pairs", "curate", "tokenizer")}
    return dataclasses.replace(run, folder=run.folder / "students" / name, recipe=recipe, elsewhere=home)


def _first_model(recipe: Recipe, tokenizer: Tokenizer) -> MetaClip2Model:
    """What training begins with: random weights, or a model to be tuned."""
    if recipe.train.start is None:
        model = build_model(
            recipe.model,
            vocab_size=tokenizer.get_vocab_size(),
            context_length=recipe.tokenizer.context_length,
            temperature=recipe.train.init_temperature,
            seed=recipe.seed,
            special=special_ids(tokenizer),
        )
    else:
        model = started(
            Path(recipe.train.start),
            recipe.model,
            vocab_size=tokenizer.get_vocab_size(),
            special=special_ids(tokenizer),
        )
    if recipe.train.locked_image:
        lock_image_tower(model)
    return model


def _teacher(run: Run, loader: Loader, tokenizer: Tokenizer, ranks: Ranks) -> Teacher | None:
    """The model that `train.teacher` names, with its own ids of the texts that are known."""
    config = run.recipe.train
    if config.teacher is None:
        return None
    found = read(Path(config.teacher))
    if found.tokenizer is None:
        raise MissingData(f"train.teacher: {config.teacher} comes without a tokenizer. Put it beside the model.")
    model, scale = frozen(found.model, ranks.device), float(found.model.logit_scale.exp())
    if not isinstance(loader, MemoryImages):
        if found.tokenizer.to_str() != tokenizer.to_str() or config.teacher_cache:
            raise ConfigError(
                "train.teacher: with images in shards the teacher must have the student's tokenizer, and its features "
                f"are not kept. Set tokenizer.file={config.teacher} and no train.teacher_cache, or train from memory."
            )
        return Teacher(model=model, scale=scale)
    ids = encode(found.tokenizer, _distinct_texts(run)).astype(np.int32)
    known = None
    if config.teacher_cache:
        # The model as it was read, and what it looked at.
        weights = digest(*(value.cpu().numpy().tobytes() for value in model.state_dict().values()))
        key = digest(weights, loader.candidates.keys.tobytes(), ids.tobytes())[:16]
        known = known_features(
            model,
            loader.pixels,
            ids,
            [Path(config.teacher_cache) / f"{key}-{what}.npy" for what in ("images", "texts")],
            lambda done, total: run.reporter.progress("teacher", done, total),
        )
    return Teacher(model=model, scale=scale, ids=ids, text_of_candidate=loader.text_of_candidate, known=known)


def _train(runs: Sequence[Run], ranks: Ranks) -> list[dict[str, Any]]:
    """Train the models of runs that share all but the model; the figures of each."""
    ranks.barrier()  # Rank 0 has emptied the stages' folders, if it had to.
    run = runs[0]
    run.figures("tokenizer")
    recipe = run.recipe
    tokenizer = Tokenizer.from_file(str(run.path("tokenizer") / "tokenizer.json"))
    loader: Loader
    data: tuple[str, ...] = ()
    if recipe.train.data is None:
        loader, set_aside = images_in_memory(run, tokenizer)
        share, images = run.figures("curate")["english_share"], len(loader.pixels)
    else:
        loader = images_in_shards(run, tokenizer, recipe.train.data)
        share, images = loader.shards.about["english_share"], loader.shards.images
        set_aside, data = dict(loader.shards.about["set_aside"]), (loader.shards.digest,)
    config = scaled(recipe, share).train

    def tell(step: int, steps: int, loss: float) -> None:
        run.reporter.progress("train", step, steps, f"loss {loss:.3f}")

    students = [
        Student(
            model=_first_model(each.recipe, tokenizer),
            key=config_hash(each.key("train"), *data) if data else each.key("train"),
            checkpoints=each.path("train") / "checkpoints",
            validate=_validation(each, tokenizer, ranks),
            progress=tell if each is run else None,
        )
        for each in runs
    ]
    done = train_students(
        students, loader, config, seed=recipe.seed, ranks=ranks, teacher=_teacher(run, loader, tokenizer, ranks)
    )
    if ranks.rank == 0:
        for each, student in zip(runs, students, strict=True):
            save_model(student.model, tokenizer, each.path("train"))
            write_golden(Encoder.open(each.path("train")), each.path("train") / GOLDEN)
            shutil.rmtree(student.checkpoints, ignore_errors=True)
    return [
        {
            "seen_pairs": int(progress.losses[-1][0]),
            "images": images,
            "steps": progress.step,
            "batch_size": config.batch_size // config.texts_per_image * config.texts_per_image,
            "texts_per_image": config.texts_per_image,
            "english_share": share,
            "scale_factor": 1 / share if share else None,
            "params": sum(parameter.numel() for parameter in student.model.parameters()),
            "seconds": round(progress.seconds, 3),
            "precision": hardware_precision() if config.precision == "auto" else config.precision,
            "loss": progress.losses,
            "set_aside": set_aside | progress.set_aside,
            "bad_steps": progress.bad_steps,
            "processes": ranks.size,
        }
        | ({"validation": progress.validation} if progress.validation else {})
        for student, progress in zip(students, done, strict=True)
    ]


def _validation(run: Run, tokenizer: Tokenizer, ranks: Ranks) -> Validation | None:
    """What the loop asks of held-out pairs now and then."""
    config = run.recipe.train
    if config.validation is None:
        return None
    held_out = images_in_shards(run, tokenizer, config.validation)
    return retrieval(held_out, images=config.validate_images, size=run.recipe.model.image_size, ranks=ranks)


def _distinct_texts(run: Run) -> list[str]:
    """The curated texts in the order in which `images_in_memory` numbers them."""
    tables = [read_table(path, ["text"]) for path in curated_shards(run)]
    texts: list[str] = (
        pa.concat_tables(tables).column("text").combine_chunks().dictionary_encode().dictionary.to_pylist()
    )
    return texts


def images_in_memory(run: Run, tokenizer: Tokenizer) -> tuple[MemoryImages, dict[str, int]]:
    """Decoded images with their candidate texts, and how many were set aside by reason."""
    pictures = read_images(sorted(run.path("pairs").glob("images-*.tar")), run.recipe.pairs.image_size)
    table = pa.concat_tables(
        [read_table(path, ["id", "text", "keep_probability", "draw_probability"]) for path in curated_shards(run)]
    )
    image_of = {key: row for row, key in enumerate(pictures.keys)}
    ids = table.column("id").combine_chunks().dictionary_encode()
    names = ids.dictionary.to_pylist()
    image = np.array([image_of.get(packaged.key_of(name), -1) for name in names])[ids.indices.to_numpy()]
    order = np.argsort(image, kind="stable")[int((image < 0).sum()) :]  # Texts whose image could not be read go.
    texts = table.column("text").combine_chunks().dictionary_encode()
    name_of = dict(zip(image[order].tolist(), table.column("id").take(order).to_pylist(), strict=True))
    data = MemoryImages(
        pixels=pictures.pixels,
        candidates=candidates_of(
            [name_of.get(row, key) for row, key in enumerate(pictures.keys)],
            image[order],
            table.column("keep_probability").to_numpy()[order],
            table.column("draw_probability").to_numpy()[order] if run.recipe.curation.draw == "by_kind" else None,
        ),
        token_ids=truncated(
            encode(tokenizer, texts.dictionary.to_pylist()), run.recipe.train.text_tokens, special_ids(tokenizer)
        ).astype(np.int32),
        text_of_candidate=texts.indices.to_numpy().astype(np.int64)[order],
    )
    return data, {
        "images that could not be read": len(pictures.set_aside),
        "texts of such images": int((image < 0).sum()),
    }


def images_in_shards(run: Run, tokenizer: Tokenizer, folder: str) -> ShardLoader:
    """Images that stay in their tars, with their candidate texts, as `worldclip shards` indexed them."""
    config = run.recipe.train
    return ShardLoader(
        shards=ShardSet(folder=Path(folder), window_images=config.window_images),
        tokenizer=tokenizer.to_str(),
        text_tokens=config.text_tokens,
        workers=config.workers,
        stall_seconds=config.stall_seconds,
    )
