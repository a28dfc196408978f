"""The report: what it says, that it copes with what is absent, and that a browser shows it without a complaint."""

from __future__ import annotations

import copy
import io
import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
from browser import browse, needs_chromium
from PIL import Image, ImageDraw

from worldclip import report
from worldclip.errors import DataError, StorageError

LANGUAGES = [
    "en", "de", "fr", "es", "pt", "it", "nl", "sv", "da", "no", "fi", "pl", "cs", "sk", "sl", "hr", "hu", "ro",
    "bg", "ru", "uk", "el", "tr", "ar", "fa", "he", "ur", "hi", "bn", "ta", "te", "ml", "mr", "gu", "pa", "th",
    "vi", "id", "ms", "ja", "ko", "zh", "ka", "hy", "az", "kk", "uz", "sw", "am", "cy", "ga", "eu", "ca", "gl",
    "is", "et", "lv", "lt", "sq", "mk",
]  # fmt: skip

NAMES = {
    "red apple": {
        "en": "red apple",
        "hi": "लाल सेब",
        "th": "แอปเปิลสีแดง",
        "ar": "تفاحة حمراء",
        "ja": "赤りんご",
        "he": "תפוח אדום",
    },
    "dog": {"en": "dog", "hi": "कुत्ता", "th": "สุนัข", "ar": "كلب", "ja": "犬", "he": "כלב"},
    "house": {"en": "house", "hi": "मकान", "th": "บ้าน", "ar": "منزل", "ja": "家", "he": "בית"},
    "sun": {"en": "sun", "hi": "सूरज", "th": "ดวงอาทิตย์", "ar": "شمس", "ja": "太陽", "he": "שמש"},
}


def png(hue: int) -> bytes:
    picture = Image.new("RGBA", (72, 72))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((6, 6, 66, 66), fill=f"hsl({hue}, 70%, 55%)")
    draw.ellipse((24, 20, 48, 44), fill=f"hsl({(hue + 50) % 360}, 80%, 75%)")
    data = io.BytesIO()
    picture.save(data, "PNG")
    return data.getvalue()


PICTURES = {f"emoji/twemoji/{at}": png(at * 37) for at in range(12)}


def scores(draw: random.Random, best: float, n: int) -> dict[str, Any]:
    found = {}
    for at, lang in enumerate(LANGUAGES):
        top1 = best * (1 - at / 90) * draw.uniform(0.75, 1)
        half = 1.96 * math.sqrt(top1 * (1 - top1) / n)
        found[lang] = {"n": n, "top1": top1, "top5": min(0.95, 1.8 * top1), "top1_interval": [top1 - half, top1 + half]}
    return found


def retrieval(draw: random.Random, n: int) -> dict[str, Any]:
    languages = scores(draw, 0.2, n)
    for score in languages.values():
        top1 = score["top1"]
        score |= {"classes": n, "chance_top1": 1 / n}
        score |= {
            f"{way}_r{k}": min(1.0, top1 * rise) for way in ("i2t", "t2i") for k, rise in ((1, 1), (5, 1.7), (10, 2.2))
        }
    return {"images": n, "languages": dict(list(languages.items())[:14])}


def training(draw: random.Random, seen: int) -> dict[str, Any]:
    loss = [[seen * at // 80, 5.5 * math.exp(-at / 35) + 1.4 + draw.gauss(0, 0.04)] for at in range(81)]
    return {
        "seen_pairs": seen, "images": 9120, "steps": seen // 256, "batch_size": 256, "texts_per_image": 2,
        "english_share": 0.058, "scale_factor": 2.4, "params": 3_412_345, "seconds": 391.6, "loss": loss,
    }  # fmt: skip


def results() -> dict[str, Any]:
    """A whole results.json, as docs/results.md describes it."""
    draw = random.Random(7)
    rows = []
    for lang in LANGUAGES:
        texts = draw.randrange(9_000, 60_000)
        entries = draw.randrange(4_000, 90_000)
        rows.append(
            {"lang": lang, "texts": texts, "matched": int(texts * 0.8), "kept": int(texts * 0.4),
             "expected_kept": texts * 0.4, "t": draw.randrange(20, 200), "p": draw.uniform(0.03, 0.2),
             "entries": entries, "head": 180, "tail": entries - 180}
        )  # fmt: skip
    curves = {}
    for lang, top in (("en", 41_000), ("th", 9_000), ("ar", 12_500), ("hi", 8_100), ("ja", 15_000), ("sw", 900)):
        ranks = sorted({round(10 ** (at / 25)) for at in range(100)})
        curves[lang] = {"t": top // 60, "counts": [[rank, max(0, round(top / rank**0.9))] for rank in ranks]}
    emoji = {"images": 1570, "classes": 1570, "chance_top1": 1 / 1570}
    return {
        "schema": 1,
        "worldclip": "0.1.0",
        "config": {"seed": 0, "model": {"width": 128, "layers": 3}, "train": {"lr": 0.003, "languages": ["en", "th"]}},
        "config_hash": "3f9ab2c47de1",
        "machine": {"cores": 2, "cpu": "a common processor", "torch": "2.13.0", "precision": "bf16"},
        "data": {
            "sets": [
                {"name": "twemoji", "package": "emoji-pictures", "version": "15.1.0", "licence": "CC-BY-4.0",
                 "about": "Drawings of emoji in one style; never trained on."},
                {"name": "names", "package": "cldr-names", "version": "48.0.0", "licence": "Unicode-3.0",
                 "about": "Names and keywords of emoji in 115 languages."},
            ],
            "missing": {"stamps": "the package client is not on this machine"},
            "set_aside": {"drawing without a name": 84, "broken image": 2},
            "metadata": {"languages": 118, "entries": 1_234_567, "hash": "77e2c0"},
            "pairs": {"images": 10_500, "texts": 2_031_112, "matched_texts": 1_611_004, "expected_kept": 702_511.4,
                      "kept": 702_160, "english_share": 0.058},
            "languages": rows,
            "curves": curves,
            "lid": {"texts": 120_000, "accuracy": 0.57, "languages": {"en": 0.8, "th": 0.99}},
        },
        "training": {"worldwide": training(draw, 525_000), "english": training(draw, 218_000)},
        "evaluation": {
            "worldwide": {"heldout_emoji": emoji | {"languages": scores(draw, 0.38, 1570)},
                          "stamps": retrieval(draw, 120), "photographs": retrieval(draw, 82)},
            "english": {"heldout_emoji": emoji | {"languages": {"en": scores(draw, 0.33, 1570)["en"]}}},
        },
        "examples": {
            "classify": [
                {"id": f"emoji/twemoji/{at}", "truth": NAMES[name],
                 "predictions": {lang: [NAMES[name if draw.random() < 0.7 else "dog"][lang], draw.uniform(0.2, 0.99)]
                                 for lang in NAMES[name]}}
                for at, name in enumerate(["red apple", "dog", "house", "sun", "red apple", "house"])
            ],
            "retrieve": [
                {"lang": lang, "query": NAMES["dog"][lang], "ids": [f"emoji/twemoji/{at + k}" for k in range(5)],
                 "hits": [draw.random() < 0.5 for _ in range(5)]}
                for at, lang in enumerate(["th", "ar", "ja", "he"])
            ],
        },
        "summary": {"heldout_emoji_top1_en": 0.3123, "heldout_emoji_top1_mean": 0.1674, "train_seconds": 391.6,
                    "total_seconds": 811.0, "peak_rss_mb": 3120.5},
    }  # fmt: skip


def page(tmp_path: Path, found: dict[str, Any]) -> str:
    report.render(found, PICTURES, tmp_path / "report.html")
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def words(html: str) -> str:
    """What a reader sees: no markup, single spaces."""
    body = re.sub(r"<(style|script)>.*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_numbers_are_written_for_a_reader() -> None:
    assert [report.whole(1234567), report.whole(None), report.whole(float("nan"))] == ["1,234,567", "–", "–"]
    assert [words(report.short(value)) for value in (0, 950, 9999, 12345, 525000, 1234567, 2.9e10, 0.25)] == [
        "0", "950", "9,999", "12.3 k", "525 k", "1.23 M", "29.0 bn", "0.25"
    ]  # fmt: skip
    assert [words(report.percent(value)) for value in (0, 0.3123, 1, 1 / 1570, None)] == [
        "0.0 %", "31.2 %", "100.0 %", "0.06 %", "–"
    ]  # fmt: skip
    assert [words(report.duration(value)) for value in (7.6, 391.6, 7262)] == ["8 s", "6 min 32 s", "2 h 1 min"]
    assert " " not in report.short(1e7) + report.percent(0.5) + report.duration(391.6)
    assert report.flat({"a": {"b": 1, "c": {"d": [1, 2]}}, "e": None}) == [
        ("a.b", "1"),
        ("a.c.d", "1, 2"),
        ("e", "None"),
    ]


def test_the_page_says_what_was_measured(tmp_path: Path) -> None:
    text = words(page(tmp_path, results()))
    for said in (
        "31.2 % right at the first try", "16.7 % the same", "6 min 32 s of training; 13 min 31 s", "3.0 GiB",
        "1.23 M concepts in 118 languages", "2.03 M texts on 10,500 pictures", "1.61 M texts mention a concept: 79.3 %",
        "702 k texts drawn: 43.6 % of those matched; 5.8 % are English", "2.4 times", "chance, 0.06 %",
        "agrees with the label in 57.0 %", "86 items", "84 drawing without a name", "CC-BY-4.0", "Thai",
        "the package client is not on this machine", "train.lr = 0.003", "แอปเปิลสีแดง", "218 k pairs",
    ):  # fmt: skip
        assert said in text, said


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    assert page(tmp_path, results()) == page(tmp_path, json.loads(json.dumps(results())))


def test_bars_are_sorted_and_in_proportion() -> None:
    found = results()
    bars = report.accuracy_bars(found)
    assert bars is not None
    languages = found["evaluation"]["worldwide"]["heldout_emoji"]["languages"]
    assert [bar.lang for bar in bars.rows] == sorted(languages, key=lambda lang: (-languages[lang]["top1"], lang))
    assert max(bar.top5 or 0 for bar in bars.rows) <= 100
    for bar in bars.rows:
        score = languages[bar.lang]
        assert bar.width == pytest.approx(100 * score["top1"] / bars.scale, abs=0.01)
        assert bar.low is not None
        assert bar.high is not None
        assert bar.low < bar.width < bar.high
        assert (bar.english is not None) == (bar.lang == "en")
    assert bars.chance == pytest.approx(100 / 1570 / bars.scale, abs=0.01)


def test_curves_meet_the_threshold() -> None:
    plots = report.head_tail_plots(
        {"data": {"curves": {"en": {"t": 100, "counts": [[1, 10_000], [10, 100], [1000, 1]]}}}}
    )
    (plot,) = plots
    before, after = plot.lines[1], plot.lines[2]
    assert before.path == "M0.00,0.00L33.33,50.00L100.00,100.00"
    assert after.path == "M0.00,50.00L33.33,50.00L100.00,100.00"
    assert plot.rule == 50
    assert [label for _, label in plot.x_ticks] == ["1", "10", "100", "1k"]


def test_english_is_beside_worldwide_only_where_it_was_trained(tmp_path: Path) -> None:
    found = results()
    languages = found["evaluation"]["worldwide"]["heldout_emoji"]["languages"]
    ((name, worldwide, english), (_, others, none)) = report.comparison_rows(found)
    assert (name, worldwide) == ("Held-out drawings, English", languages["en"]["top1"])
    assert english == found["evaluation"]["english"]["heldout_emoji"]["languages"]["en"]["top1"]
    rest = [score["top1"] for lang, score in languages.items() if lang != "en"]
    assert others == pytest.approx(sum(rest) / len(rest))
    assert none is None
    assert "Against English only" in page(tmp_path, found)
    del found["training"]["english"], found["evaluation"]["english"]
    assert "English only" not in words(page(tmp_path, found))


def test_absent_parts_are_left_out(tmp_path: Path) -> None:
    """Whatever key is missing, alone or with all others, there is a page without a traceback or a None."""
    whole = results()
    cut: list[dict[str, Any]] = [
        {"schema": 1},
        {"schema": 1, "data": {}, "evaluation": {}, "training": {}, "summary": {}},
    ]
    for key in whole:
        if key != "schema":
            cut.append({name: value for name, value in whole.items() if name != key})
            if isinstance(whole[key], dict):
                for inner in whole[key]:
                    one = copy.deepcopy(whole)
                    del one[key][inner]
                    cut.append(one)
    bare = copy.deepcopy(whole)
    bare["data"]["languages"] = [{"lang": "en"}]
    bare["evaluation"]["worldwide"]["heldout_emoji"]["languages"] = {"en": {"top1": 0.1}, "th": {"top1": None}}
    bare["training"]["worldwide"]["loss"] = [[0, float("nan")], [256, 3.0]]
    bare["examples"]["classify"][0]["id"] = "no such picture"
    cut.append(bare)
    for one in cut:
        text = words(page(tmp_path, one))
        assert "worldclip" in text
        assert "None" not in text
        assert "nan" not in text.split()
        assert "Undefined" not in text


def test_texts_are_escaped_and_right_to_left_is_left_to_the_browser(tmp_path: Path) -> None:
    found = results()
    found["examples"]["retrieve"][0]["query"] = "<script>alert(1)</script>"
    html = page(tmp_path, found)
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert f'<bdi dir="auto" lang="ar">{NAMES["red apple"]["ar"]}</bdi>' in html


def keys(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(keys, value))
    if not isinstance(value, dict):
        return set()
    return {key for key in value if " " not in key}.union(*map(keys, value.values()))


def test_every_key_is_documented() -> None:
    found = results()
    found["config"] = found["data"]["missing"] = found["data"]["curves"] = {}
    named = set(re.findall(r"`(\w+)`", (Path(__file__).parents[1] / "docs" / "results.md").read_text(encoding="utf-8")))
    assert keys(found) - named - set(LANGUAGES) == set()


def test_another_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"schema is 2.*reads schema 1"):
        report.render({"schema": 2}, {}, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def test_an_unwritable_target_is_named(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(StorageError, match=r"report\.html"):
        report.render(results(), PICTURES, tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_nothing_is_loaded_from_anywhere(tmp_path: Path) -> None:
    html = page(tmp_path, results())
    assert not re.findall(r"""(?:src|href|action|data|poster)\s*=\s*["'](?!data:image/png;base64,|#)[^"']*""", html)
    assert not re.findall(r"url\(|@import|https?:|//[a-z]+\.", html)


@pytest.mark.chromium
@needs_chromium
def test_a_browser_shows_it_without_a_complaint(tmp_path: Path) -> None:
    html = page(tmp_path, results())
    probe = "document.querySelectorAll('#languages thead th')[5].click(); document.title = 'sorted';"
    shown, complaints = browse(tmp_path, html.replace("</body>", f"<script>{probe}</script></body>"))
    assert not complaints
    assert "<title>sorted</title>" in shown
    table = shown[shown.index('<section id="languages">') :].partition("</table>")[0]
    assert table.count('aria-sort="descending"') == 1
    thresholds = [int(re.findall(r'data-v="([^"]*)"', row)[4]) for row in table.split("<tr>")[2:]]
    assert thresholds == sorted((row["t"] for row in results()["data"]["languages"]), reverse=True)


@pytest.mark.chromium
@needs_chromium
def test_a_browser_complains_of_what_is_wrong(tmp_path: Path) -> None:
    """So that the silence above means something: a script error, and a resource that the page's policy refuses."""
    wrong = '<img src="http://127.0.0.1:9/a.png"><script>undefinedFunction()</script></body>'
    _, complaints = browse(tmp_path, page(tmp_path, results()).replace("</body>", wrong))
    assert any("undefinedFunction is not defined" in line for line in complaints)
    assert any("Content Security Policy" in line for line in complaints)
