"""The page of an evaluation: what it says is what the records say, and a browser shows it without a complaint."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from browser import browse, needs_chromium

from worldclip.errors import MissingData
from worldclip.evaluation.page import language_name, write_page
from worldclip.evaluation.records import Record, write_record
from worldclip.languages import LANGUAGES
from worldclip.storage import write_json


def part(value: float, n: int = 100) -> dict[str, float]:
    return {"n": n, "acc1": value, "acc1_low": max(0.0, value - 4), "acc1_high": min(100.0, value + 4)}


def results(folder: Path) -> Path:
    """An evaluation of 290 languages, 36 locales, six regions and a thousand classes."""
    draw = np.random.default_rng(0)
    codes = [code.upper() for code in LANGUAGES][:290]
    shares = draw.uniform(1, 80, 290).tolist()
    locales = ["ar", "bn", "fil", "mi", "quz", "sw", "zh", "en"]
    regions = ["Africa", "Americas", "East Asia", "Europe", "South-East Asia", "West Asia"]
    records = [
        Record(
            task="babel-imagenet", metric="babel_90", value=50.25, n=50_000, values={"babel_90": 50.25},
            intervals={"babel_90": (49.9, 50.6)}, settings={"complete": True},
            per_language={code: part(share) for code, share in zip(codes, shares, strict=True)},
        ),
        Record(
            task="xm3600", metric="t2i_r1", value=31.2, n=3600, values={"t2i_r1": 31.2, "i2t_r1": 40.9},
            intervals={"t2i_r1": (30.5, 31.9), "i2t_r1": (40.0, 41.8)}, settings={"complete": False},
            per_language={
                code: {"n": 3600, "t2i_r1": 10.0 + at, "t2i_r1_low": 9.0 + at, "t2i_r1_high": 11.0 + at,
                       "t2i_r5": 30.0 + at, "t2i_r5_low": 29.0 + at, "t2i_r5_high": 31.0 + at}
                for at, code in enumerate(locales)
            },
        ),
        Record(
            task="geode", metric="acc1", value=88.8, n=61_940, values={"acc1": 88.8}, intervals={"acc1": (88.5, 89.0)},
            per_group={region: part(80 + at) for at, region in enumerate(regions)},
        ),
        Record(
            task="imagenet", metric="acc1", value=61.0, n=50_000, values={"acc1": 61.0, "acc5": 85.5},
            intervals={"acc1": (60.5, 61.5)}, per_class={f"class <{at}>": part(at % 100, 50) for at in range(1000)},
        ),
    ]  # fmt: skip
    for record in records:
        write_record(folder / "records", record)
    write_json(
        folder / "model.json",
        {"folder": "models/<mine>", "fingerprint": "0" * 64, "settings": {"resize": "shortest"}, "notes": []},
    )
    return folder


def section(html: str, name: str) -> str:
    return html.partition(f'<section id="{name}">')[2].partition("</section>")[0]


def test_the_page_says_what_the_records_say(tmp_path: Path) -> None:
    html = write_page(results(tmp_path)).read_text("utf-8")
    paper = section(html, "paper")
    assert re.findall(r"<th>([^<]+)</th>", paper.partition("</thead>")[0]) == [
        "Model", "IN", "Babel", "XM3600 T→I †", "XM3600 I→T †", "GeoDE",
    ]  # fmt: skip
    assert re.findall(r">([\d.–]+)</td>", paper.partition("</tr>\n</tr>")[0].partition("this model")[2])[:5] == [
        "61.0", "50.2", "31.2", "40.9", "88.8",
    ]  # fmt: skip
    row = paper.partition("MetaCLIP 2 H/14 WW 29B")[2].partition("</tr>")[0]
    assert re.findall(r">([\d.–]+)</td>", row) == ["81.3", "50.2", "51.5", "64.3", "93.4"]
    languages = section(html, "languages")
    babel, locales = languages.split("<h3>")[1:]
    assert babel.count("<li>") == 290
    values = [float(value) for value in re.findall(r'<span class="number">([\d.]+)</span></li>', babel)]
    assert values == sorted(values), "worst first"
    assert re.findall(r'"lang" title="[^"]+">([^<]+)<', locales) == [
        "Arabic", "Bengali", "Tagalog", "Māori", "Quechua", "Swahili", "Chinese", "English",
    ]  # fmt: skip
    assert locales.count('class="dot" style="left:') == 8
    assert re.findall(r'"lang" title="[^"]+">([^<]+)<', section(html, "groups"))[0] == "Africa"
    assert "class &lt;0&gt;" in section(html, "classes")
    assert section(html, "classes").count("<li>") == 20
    assert "models/&lt;mine&gt;" in html
    assert section(html, "all").count("<tr>") == 1 + 6


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    first = write_page(results(tmp_path / "a")).read_bytes()
    assert write_page(results(tmp_path / "b")).read_bytes() == first


def test_nothing_is_loaded_from_anywhere(tmp_path: Path) -> None:
    html = write_page(results(tmp_path)).read_text("utf-8")
    assert not re.findall(r"""(?:src|href|action|data|poster)\s*=\s*["'](?!#)[^"']*""", html)
    assert not re.findall(r"url\(|@import|https?:|//[a-z]+\.", html)


def test_a_folder_without_results_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="no results there"):
        write_page(tmp_path)


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("DE", "German"),
        ("fil", "Tagalog"),
        ("jp", "Japanese"),
        ("eng_Latn", "English (Latn)"),
        ("quz", "Quechua"),
        ("als_Latn", "Albanian (Latn)"),  # Wikipedia's `als` is Alemannic.
        ("deu_Latn", "German (Latn)"),
        ("zho_Hant", "Chinese (Hant)"),
        ("zh_yue", "Cantonese"),
        ("xyz_Cyrl", "xyz_Cyrl"),
    ],
)
def test_languages_are_named_however_a_benchmark_writes_them(code: str, name: str) -> None:
    assert language_name(code) == name


@pytest.mark.chromium
@needs_chromium
def test_a_browser_shows_it_without_a_complaint(tmp_path: Path) -> None:
    html = write_page(results(tmp_path)).read_text("utf-8")
    probe = (
        "document.querySelectorAll('#all thead th')[2].click();"
        "document.title = document.documentElement.scrollWidth <= innerWidth ? 'fits' : 'too wide';"
    )
    for width in (390, 1280):
        shown, complaints = browse(tmp_path, html.replace("</body>", f"<script>{probe}</script></body>"), width)
        assert not complaints
        assert "<title>fits</title>" in shown, width
        table = shown[shown.index('<section id="all">') :].partition("</table>")[0]
        values = [float(re.findall(r'data-v="([^"]*)"', row)[0]) for row in table.split("<tr>")[2:]]
        assert values == sorted(values, reverse=True)
