"""Segmenters on sentences whose words were divided by hand; what none of them may lose; one that is missing."""

from __future__ import annotations

import sys

import pytest

from worldclip.errors import MissingData
from worldclip.metadata.ngrams import segmented
from worldclip.metadata.segment import segmenter

#: Words by hand; of Tibetan, which is cut into syllables, these.
GOLD = {
    "ja": ["私 は 学生 です", "猫 が 木 の 下 で 眠っ て いる", "東京 で 寿司 を 食べ まし た"],
    "ryu": ["沖縄 の 言葉", "琉球 の 歴史 と 文化"],
    "zh": [
        "我 爱 北京 天安门", "他们 在 图书馆 学习 中文", "一只 黑色 的 狗 在 公园 里 跑", "我 来到 北京 清华大学",
        "他們 在 圖書館 學習 中文", "一隻 黑色 的 狗 在 公園 裡 跑",
    ],
    "zh_yue": ["我 來到 香港", "佢 喺 圖書館 睇書", "香港 係 國際 城市"],
    "zh_classical": ["學 而 時 習 之", "不 亦 樂 乎", "君子 坦蕩蕩"],
    "th": ["แมว กิน ปลา", "วันนี้ อากาศ ดี มาก", "ฉัน อยาก ไป โรงเรียน"],
    "lo": ["ຂ້ອຍ ກິນ ເຂົ້າ", "ຂ້ອຍ ຢາກ ໄປ ໂຮງຮຽນ", "ປະເທດ ລາວ"],
    "km": ["ខ្ញុំ ស្រលាញ់ ប្រទេស កម្ពុជា", "ខ្ញុំ ចង់ ទៅ សាលារៀន", "ឆ្មា ស៊ី ត្រី"],
    "my": ["ကျွန်တော် ထမင်း စား သည်", "ကျွန်တော် ကျောင်း သွား ချင်တယ်", "မြန်မာ နိုင်ငံ"],
    "bo": ["བོད ་ ཡིག", "བཀྲ ་ ཤིས ་ བདེ ་ ལེགས", "ང ་ སློབ ་ གྲྭར"],
    "dz": ["འབྲུག ་ ཡུལ", "རྫོང ་ ཁ"],
}  # fmt: skip

#: F1 of words, over the sentences.
LEAST = {
    "ja": 0.85, "ryu": 1.0, "zh": 1.0, "zh_yue": 0.8, "zh_classical": 0.5, "th": 0.8, "lo": 0.6, "km": 0.8, "my": 0.6,
    "bo": 1.0, "dz": 1.0,
}  # fmt: skip


def spans(words: list[str]) -> set[tuple[int, int]]:
    found, at = set(), 0
    for word in words:
        found.add((at, at + len(word)))
        at += len(word)
    return found


def f1(code: str) -> float:
    """F1 of the words' places in the sentences."""
    segment = segmenter(code)
    assert segment
    right = found = gold = 0
    for at, sentence in enumerate(GOLD[code]):
        words = sentence.split()
        made = segment("".join(words))
        if code in {"bo", "dz"}:  # what stands between syllables is not of them
            words, mine = words[::2], set(enumerate(made))
            theirs = set(enumerate(words))
        else:
            mine, theirs = spans(made), spans(words)
        assert made, at
        right, found, gold = right + len(mine & theirs), found + len(mine), gold + len(theirs)
    return 2 * right / (found + gold)


@pytest.mark.filterwarnings("ignore")  # of the segmenters themselves
@pytest.mark.parametrize("code", GOLD)
def test_words_are_those_divided_by_hand(code: str) -> None:
    assert f1(code) >= LEAST[code]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("code", GOLD)
def test_other_scripts_and_signs_are_kept_apart(code: str) -> None:
    segment = segmenter(code)
    assert segment
    sentence = GOLD[code][0].replace(" ", "")
    found = segmented(segment)(f"{sentence}(ABC)x1, {sentence}дом")
    assert {"ABC", "x1"} <= set(found)
    assert found[-1] == "."
    assert any("дом" in token for token in found)
    assert not any(mark in token for token in found for mark in "(),")
    inside = "".join(token for token in found if token != ".")
    assert inside == f"{sentence}ABCx1{sentence}дом".replace("་", "")


def test_a_missing_segmenter_names_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "khmercut", None)
    with pytest.raises(MissingData, match=r"language km.*worldclip\[segment\]"):
        segmenter("km")
    monkeypatch.setitem(sys.modules, "ckip_transformers", None)
    with pytest.raises(MissingData, match=r"language zh.*pip install 'ckip-transformers'"):
        segmenter("zh", "ckip")
    assert segmenter("sw") is None
    assert segmenter("sw", "ckip") is None
