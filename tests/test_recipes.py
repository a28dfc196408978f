"""Recipes: the five rows of the paper's ablation, and the English model that is compared."""

from __future__ import annotations

import dataclasses

import pytest

from worldclip.config import config_hash
from worldclip.languages import LANGUAGES
from worldclip.recipes import ABLATION_ROWS, QUICKSTART_LANGUAGES, english_only, quickstart, with_curation_row


def test_the_rows_are_the_papers() -> None:
    said = {
        # row: texts, metadata, thresholds (the paper's Table 2)
        1: ("english", "english", "t_en"),
        2: ("all", "english", "t_en"),
        3: ("all", "merged", "t_en"),
        4: ("all", "per_language", "t_en"),
        5: ("all", "per_language", "t_lang"),
    }
    assert {n: (row.texts, row.metadata, row.thresholds) for n, row in ABLATION_ROWS.items()} == said
    assert dataclasses.replace(quickstart().curation, draw="uniform") == ABLATION_ROWS[5]


@pytest.mark.parametrize("row", ABLATION_ROWS)
def test_a_row_changes_the_curation_alone(row: int) -> None:
    recipe = quickstart()
    changed = with_curation_row(recipe, row, 40)
    assert changed.curation == dataclasses.replace(ABLATION_ROWS[row], t_en=40, draw=recipe.curation.draw)
    assert changed.name == f"quickstart-row{row}"
    assert dataclasses.replace(changed, name=recipe.name, curation=recipe.curation) == recipe


def test_a_row_keeps_the_recipes_own_tail_share() -> None:
    recipe = quickstart()
    recipe = dataclasses.replace(recipe, curation=dataclasses.replace(recipe.curation, tail_share=0.2))
    assert with_curation_row(recipe, 1, None).curation.tail_share == 0.2


def test_the_quickstart_trains_many_known_languages() -> None:
    assert len(set(QUICKSTART_LANGUAGES)) == len(QUICKSTART_LANGUAGES) >= 24
    assert all(LANGUAGES[lang].lid for lang in QUICKSTART_LANGUAGES)
    assert "en" in QUICKSTART_LANGUAGES
    assert len({LANGUAGES[lang].script for lang in QUICKSTART_LANGUAGES}) >= 11


@pytest.mark.parametrize("share", [0.44, 0.07, 1.0, 1e-9])
def test_the_english_model_takes_as_many_steps_over_its_share_of_the_pairs(share: float) -> None:
    recipe = quickstart()
    english = english_only(recipe, share)
    assert english.curation.texts == english.curation.metadata == "english"
    assert english.train.batch_size == max(2, round(share * recipe.train.batch_size))
    assert english.train.seen_pairs == max(1, round(share * recipe.train.seen_pairs))
    if share > 0.01:
        steps = recipe.train.seen_pairs / recipe.train.batch_size
        assert english.train.seen_pairs / english.train.batch_size == pytest.approx(steps, rel=0.01)
    assert (english.model, english.pairs, english.seed) == (recipe.model, recipe.pairs, recipe.seed)
    assert config_hash(english) != config_hash(recipe)
