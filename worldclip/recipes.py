"""Whole recipes: functions that return every setting of a run. Print one with `worldclip recipe NAME`."""

from __future__ import annotations

import dataclasses

from worldclip.config import (
    CurationConfig,
    MetadataConfig,
    ModelConfig,
    PairsConfig,
    Recipe,
    TokenizerConfig,
    TowerConfig,
    TrainConfig,
)
from worldclip.errors import ConfigError

#: Languages of the quickstart: the most spoken, in eleven scripts, with names for nearly every drawing.
QUICKSTART_LANGUAGES = (
    *("ar", "bn", "cs", "de", "el", "en", "es", "fa", "fi", "fr", "he", "hi", "hu", "id"),
    *("it", "ja", "ko", "nl", "pl", "pt", "ro", "ru", "sv", "th", "tr", "uk", "vi", "zh"),
)


def quickstart() -> Recipe:
    """The whole recipe on packaged pictures, sized for two cores and minutes.

    Command: `worldclip quickstart`.
    """
    return Recipe(
        name="quickstart",
        metadata=MetadataConfig(),
        pairs=PairsConfig(languages=QUICKSTART_LANGUAGES),
        curation=CurationConfig(draw="by_kind"),
        tokenizer=TokenizerConfig(vocab_size=40_000),
        model=ModelConfig(
            vision=TowerConfig(layers=3, width=128, heads=2, mlp_ratio=2.0),
            text=TowerConfig(layers=1, width=128, heads=2, mlp_ratio=2.0),
            embedding=128,
            image_size=32,
            patch_size=8,
        ),
        train=TrainConfig(
            seen_pairs=1_900_000,
            batch_size=1_024,
            texts_per_image=4,
            shared_texts="positives",
            text_tokens=12,
            optimizer="muon",
            lr=3e-3,
            warmup_steps=100,
            crop_scale=0.75,
            color_jitter=0.15,
        ),
    )


#: The five rows of the paper's ablation (its Table 2): what is curated with what.
ABLATION_ROWS = {
    1: CurationConfig(texts="english", metadata="english", thresholds="t_en"),
    2: CurationConfig(texts="all", metadata="english", thresholds="t_en"),
    3: CurationConfig(texts="all", metadata="merged", thresholds="t_en"),
    4: CurationConfig(texts="all", metadata="per_language", thresholds="t_en"),
    5: CurationConfig(texts="all", metadata="per_language", thresholds="t_lang"),
}


def with_curation_row(recipe: Recipe, row: int, t_en: int | None) -> Recipe:
    """`recipe` with the curation of one row of the paper's ablation, and the same `t_en` in all of them."""
    of_row = ABLATION_ROWS[row]
    curation = dataclasses.replace(
        recipe.curation, texts=of_row.texts, metadata=of_row.metadata, thresholds=of_row.thresholds, t_en=t_en
    )
    return dataclasses.replace(recipe, name=f"{recipe.name}-row{row}", curation=curation)


def scaled(recipe: Recipe, english_share: float) -> Recipe:
    """Seen pairs as the recipe's `train.scale` says (paper, section 3.3).

    "english_share": its batch and seen pairs are those of an English model; both are divided by the share of English
    among the pairs to be seen, so that as many English pairs are seen as by that model, in as many steps.

    Raises:
        ConfigError: no English pair is among the data.
    """
    if recipe.train.scale == "none":
        return recipe
    if not english_share:
        raise ConfigError("train.scale=english_share: the data hold no English pair. Set train.scale=none.")
    train = dataclasses.replace(
        recipe.train,
        seen_pairs=round(recipe.train.seen_pairs / english_share),
        batch_size=round(recipe.train.batch_size / english_share),
        scale="none",
    )
    return dataclasses.replace(recipe, train=train)


def english_only(recipe: Recipe, english_share: float) -> Recipe:
    """The English model of the same English exposures: row 1, as many steps, batch times the English share."""
    train = dataclasses.replace(
        recipe.train,
        seen_pairs=max(1, round(recipe.train.seen_pairs * english_share)),
        batch_size=max(2, round(recipe.train.batch_size * english_share)),
        texts_per_image=1,
    )
    return dataclasses.replace(
        with_curation_row(recipe, 1, recipe.curation.t_en), name=f"{recipe.name}-english", train=train
    )
