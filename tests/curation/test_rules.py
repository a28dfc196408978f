"""The corrected rule, judged by a search that tries every position; entries that are dead under each rule."""

from __future__ import annotations

import unicodedata

import pyarrow as pa
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from worldclip.curation import Index
from worldclip.curation.rules import composed, dead

SMALL_KANA = "ぁっゃー"


def kind(character: str) -> str:
    """The class of a character, for the few scripts that these tests use."""
    code = ord(character)
    if character == "\u200b":
        return "break"
    if character == "\u200d":
        return "joiner"
    if character in SMALL_KANA or character in "\ufe0f\u200c" or 0x1F3FB <= code <= 0x1F3FF:
        return "extends"
    category = unicodedata.category(character)[0]
    if category == "M":
        return "extends"
    if category == "Z" or character in "\t\n\r\v":
        return "white"
    without_spaces = (0xE00, 0xEFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x4E00, 0x9FFF)
    without_spaces += ((0x20000, 0x323AF),)
    if any(low <= code <= high for low, high in without_spaces):
        return "alone"
    return "word" if category in "LN" else "alone"


def normal(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    return " ".join("".join(" " if kind(character) == "white" else character for character in text).split(" ")).strip()


def single_spaced(text: str) -> str:
    return " ".join(part for part in normal(text).split(" ") if part)


def border(text: str, at: int) -> bool:
    """Whether a border lies before position `at` of a normalised text."""
    if at in (0, len(text)) or text[at] == " " or text[at - 1] == " ":
        return True
    after = kind(text[at])
    base = at - 1
    while base >= 0 and kind(text[base]) in ("extends", "joiner"):
        base -= 1
    before = kind(text[base]) if base >= 0 and text[base] != " " else "alone"
    if kind(text[at - 1]) == "joiner" or after in ("extends", "joiner"):
        return False
    return not (before == "word" and after == "word")


def occurs(entry: str, text: str) -> bool:
    entry, text = single_spaced(entry.replace("\u200b", "")), single_spaced(text)
    return bool(entry) and any(
        text.startswith(entry, at) and border(text, at) and border(text, at + len(entry)) for at in range(len(text))
    )


#: name: (entries, text, ids found)
CASES: dict[str, tuple[list[str], str, list[int]]] = {
    "kana in a sentence": (["すし", "アニメ"], "おいしいすしとアニメだ", [0, 1]),
    "small kana are not cut off": (["き", "きゃ", "ス", "スー", "パ"], "きゃ、スーパー", [1, 3]),
    "iteration mark": (["人々", "人"], "人々の", [0, 1]),
    "CJK beside Latin": (["T恤", "卡拉OK", "恤"], "买T恤去卡拉OK吧", [0, 1, 2]),
    "Thai": (["หมา", "แมว"], "หมากับแมว", [0, 1]),
    "Thai vowel above stays": (["ก", "กิ"], "กิน", [1]),
    "Tibetan syllables": (["ཁྱི", "བྱི་ལ"], "ཁྱི་དང་བྱི་ལ།", [0, 1]),
    "Hangul is spaced": (["개", "고양이"], "개와 고양이", [1]),
    "marks inside": (["U.S.", "St. Louis", "Yahoo!", "C++"], "U.S. team in St. Louis, Yahoo! uses C++.", [0, 1, 2, 3]),
    "marks are borders": (["dog"], "(dog)", [0]),
    "apostrophe": (["dog"], "the dog's bone", [0]),
    "hyphen": (["dog", "house", "dog-house"], "dog-house", [0, 1, 2]),
    "digits are of the word": (["4", "4K", "K"], "4K", [1]),
    "inside of a word": (["dog"], "dogs hotdog", []),
    "composed and decomposed": (["café", "cafe\u0301"], "cafe\u0301 x", [0, 1]),
    "a combining mark belongs to its letter": (["q"], "q\u0323", []),
    "Devanagari vowels": (["कुत्ता", "कु", "क"], "कुत्ता और", [0]),
    "white space": (["hot dog", " hot\tdog "], "hot\u00a0\u3000\n dog", [0, 1]),
    "emoji side by side": (["🐶", "🐱"], "🐶🐱", [0, 1]),
    "emoji sequence": (["👩", "👩\u200d🚀", "🚀"], "👩\u200d🚀", [1]),
    "skin tone": (["👍", "👍🏽"], "👍🏽", [1]),
    "variation selector": (["❤", "❤\ufe0f"], "❤\ufe0f", [1]),
    "zero-width space is a border": (["ខ្ញុំ", "dog"], "dog\u200bhouse", [1]),
    "case counts": (["dog"], "Dog", []),
    "nothing to find": (["", " ", "\u200b"], " ", []),
    "no text": (["dog"], "", []),
    "Arabic comma": (["كلب"], "كلب، قطة", [0]),
    "full-width comma": (["dog"], "dog，cat", [0]),
}


@pytest.mark.parametrize("name", CASES)
def test_cases(name: str) -> None:
    entries, text, ids = CASES[name]
    assert [position for position, entry in enumerate(entries) if occurs(entry, text)] == ids
    assert Index.build(entries, "unicode").match([text]).to_pylist() == [ids]


def test_all_cases_in_one_index_and_one_call() -> None:
    entries = [entry for entries, _, _ in CASES.values() for entry in entries]
    texts = [text for _, text, _ in CASES.values()]
    expected = [[at for at, entry in enumerate(entries) if occurs(entry, text)] for text in texts]
    assert Index.build(entries, "unicode").match(texts).to_pylist() == expected


TROUBLE = "abé1犬すっーหิ 'e\u0301\u0323.,\t\u200b\u200d\ufe0f🐶🏽क्가\u1100\u1161"


@settings(max_examples=500)
@given(
    entries=st.lists(st.text(TROUBLE, max_size=4), max_size=10),
    texts=st.lists(st.text(TROUBLE, max_size=16), max_size=5),
)
def test_like_the_search_at_every_position(entries: list[str], texts: list[str]) -> None:
    # A zero-width space is dropped from both sides, which a search for substrings cannot say.
    entries = [entry for entry in entries if "\u200b" not in entry]
    texts = [text.replace("\u200b", "") for text in texts]
    expected = [[at for at, entry in enumerate(entries) if occurs(entry, text)] for text in texts]
    assert Index.build(entries, "unicode").match(texts).to_pylist() == expected


@settings(max_examples=200)
@given(texts=st.lists(st.text(max_size=12) | st.text(TROUBLE, max_size=12), max_size=6))
def test_composed_is_nfc(texts: list[str]) -> None:
    array = pa.array(texts, pa.large_string())
    assert composed(array).to_pylist() == [unicodedata.normalize("NFC", text) for text in texts]


def test_case_may_be_folded() -> None:
    entries = ["Dog", "dog", "ΟΔΟΣ", "Straße"]
    index = Index.build(entries, "unicode", fold_case=True)
    assert index.match(["DOG", "οδος", "οδός", "STRAßE", "Ⱥ" * 99]).to_pylist() == [[0, 1], [2], [], [3], []]


def test_dead_entries_never_match_and_others_do() -> None:
    entries = ["U.S.", "dog", ".", "..", ".com", "a . b", "a .b", "St .  Louis", "x\ty", "", " ", "\u3000", "!", "hi!"]
    paper = dead(pa.array(entries), "paper").to_pylist()
    assert [entry for entry, is_dead in zip(entries, paper, strict=True) if is_dead] == [
        "U.S.", "..", ".com", "a .b", "x\ty", "", "hi!",
    ]  # fmt: skip
    makers = [*entries, "a.b", "St. Louis", "a   b", "a\u3000b"]
    alive = {position for ids in reference.match(entries, makers) for position in ids}
    assert alive == {position for position, is_dead in enumerate(paper) if not is_dead}
    unicode = dead(pa.array(entries), "unicode").to_pylist()
    assert [entry for entry, is_dead in zip(entries, unicode, strict=True) if is_dead] == ["", " ", "\u3000"]
    alive = {position for ids in Index.build(entries, "unicode").match(entries).to_pylist() for position in ids}
    assert alive == {position for position, is_dead in enumerate(unicode) if not is_dead}
