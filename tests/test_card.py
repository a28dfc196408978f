"""The data card: it tells what curation wrote, whatever the pairs were, and a browser shows it at any width."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from browser import browse, needs_chromium

from worldclip import card
from worldclip.clean import Rules, remove
from worldclip.config import CurationConfig
from worldclip.curate import curate, entry_lists
from worldclip.engines import LocalEngine
from worldclip.errors import DataError, MissingData
from worldclip.metadata.entries import Metadata
from worldclip.storage import read_json, read_table, write_json, write_table

ENGLISH = ["dog", "cat", "red <b>", "New York", "never", "house"]
THAI = ["หมา", "แมว", "บ้าน", "ต้นไม้"]

TEXTS = [
    *["a dog in the house"] * 30, *["the cat and the dog sleep"] * 12, *["a house in New York city"] * 2,
    *["หมาอยู่ในบ้าน"] * 8, "แมวกับหมาน่ารัก", "ต้นไม้ใหญ่หน้าบ้านของเรา", *["nothing of this is listed anywhere"] * 3,
    "<script>alert(1)</script> a red <b> dog", "x" * 1000 + " dog is what this long text of a page is about",
]  # fmt: skip


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs that hygiene has cleaned, then curated."""
    root = tmp_path_factory.mktemp("card")
    rows = [
        {"id": f"{at:03d}", "url": f"https://{'no.org' if at == 0 else 'example.com'}/{at}", "text": text}
        for at, text in enumerate(TEXTS)
    ]
    write_table(root / "raw/pairs-0.parquet", pa.Table.from_pylist(rows))
    write_json(root / "raw/summary.json", {"records": 70, "images": len(rows), "texts": len(rows),
                                           "set_aside": {"text: longer than 64 KiB": 4}})  # fmt: skip
    (root / "list.txt").write_text("no.org\n")
    engine = LocalEngine(workers=0)
    remove([root / "raw/pairs-0.parquet"], root / "clean", Rules(opt_out=root / "list.txt"), engine=engine)
    metadata = Metadata(
        entries={"en": pa.chunked_array([pa.array(ENGLISH)]), "th": pa.chunked_array([pa.array(THAI)])}, hash="c0ffee"
    )
    config = CurationConfig(t_en=10)
    curate(sorted((root / "clean/pairs").glob("*")), metadata, root / "out", config, seed=0, engine=engine)
    card.write(root / "out", entry_lists(metadata, config), root / "clean/pairs")
    return root / "out"


def words(html: str) -> str:
    body = re.sub(r"<(style|script)>.*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_the_card_tells_what_was_written(curated: Path) -> None:
    told, summary = read_json(curated / "card.json"), read_json(curated / "summary.json")
    assert told["languages"] == summary["languages"]
    assert told["figures"]["kept"] == summary["kept"]
    assert told["thresholds"] == read_table(curated / "thresholds.parquet").to_pylist()
    with np.load(curated / "counts.npz", allow_pickle=False) as file:
        counts = {name: file[name].tolist() for name in ("en", "th")}
    for name, vector in counts.items():
        assert [count for _, count in told["curves"][name]["counts"]] == sorted(filter(None, vector), reverse=True)
    english = next(row for row in told["concepts"] if row["list"] == "en")
    assert english["t"] == 10
    assert english["most"][0] == ["dog", counts["en"][0]]
    assert english["least"][0] == ["New York", 2] or english["least"][0][1] == 1
    assert (english["never"], english["entries"]) == (counts["en"].count(0), 6)
    assert told["before"] == {
        "hygiene": {"pairs": len(TEXTS), "left": len(TEXTS) - 1, "reasons": {"opted out by domain": 1}},
        "extraction": {
            "records": 70,
            "images": len(TEXTS),
            "texts": len(TEXTS),
            "set_aside": {"text: longer than 64 KiB": 4},
        },
    }


def test_samples_are_as_the_tables_say(curated: Path) -> None:
    told = read_json(curated / "card.json")
    rows = [row for path in sorted(curated.glob("curated-*")) for row in read_table(path).to_pylist()]
    with np.load(curated / "counts.npz", allow_pickle=False) as file:
        counts = {name: file[name] for name in ("en", "th")}
    limits = {row["lang"]: row["t"] for row in told["thresholds"]}
    names = {"en": ENGLISH, "th": THAI}
    assert {sample["lang"] for sample in told["samples"]["kept"]} >= {"en", "th"}
    for kind in ("kept", "dropped"):
        for sample in told["samples"][kind]:
            alike = [row for row in rows if row["text"][: card.LONGEST] == sample["text"]]
            assert (kind == "kept") in {row["kept"] for row in alike}
            missed = 1.0
            for name, count, probability in sample["concepts"]:
                vector = counts[sample["lang"]]
                assert count == vector[names[sample["lang"]].index(name)]
                assert probability == pytest.approx(min(1, limits[sample["lang"]] / count))
                missed *= 1 - probability
            assert sample["probability"] == pytest.approx(1 - missed)
    assert [sample["text"] for sample in told["samples"]["unmatched"]] == ["nothing of this is listed anywhere"]


def test_the_page_says_it_in_words_and_escapes_what_pages_wrote(curated: Path) -> None:
    html = (curated / "card.html").read_text(encoding="utf-8")
    text = words(html)
    for said in (
        "Thai th",
        "1 opted out by domain",
        "4 text: longer than 64 KiB",
        "texts that were not drawn",
        "c0ffee",
        "At t = 10",
    ):
        assert said in text, said
    assert "<script>alert" not in html
    assert "None" not in text
    assert not re.findall(r"""(?:src|href|action|data|poster)\s*=\s*["'](?!#)[^"']*""", html)
    assert not re.findall(r"url\(|@import", html)


def test_the_same_folder_gives_the_same_bytes(curated: Path, tmp_path: Path) -> None:
    for name in ("card.json", "card.html"):
        (tmp_path / name).write_bytes((curated / name).read_bytes())
    (curated / "card.html").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "worldclip", "report", "--curated", str(curated)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(curated / "card.html"))
    assert (curated / "card.html").read_bytes() == (tmp_path / "card.html").read_bytes()


def test_the_work_is_bounded_however_large_the_folder_is(
    curated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in curated.glob("*"):
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    for name in ("matches", "curated"):
        (first,) = tmp_path.glob(f"{name}-*.parquet")
        for number in range(1, 40):
            (tmp_path / f"{name}-{number:05d}-of-00040.parquet").write_bytes(first.read_bytes())
    read: list[Path] = []
    whole = card._first_rows
    monkeypatch.setattr(card, "_first_rows", lambda path, *more: (read.append(path), whole(path, *more))[1])
    card.write(tmp_path, {"en": pa.array(ENGLISH), "th": pa.array(THAI)})
    assert len(read) <= 2 * card.SHARDS
    assert read_json(tmp_path / "card.json")["samples"]["kept"]


def test_an_empty_result_has_a_card_too(tmp_path: Path) -> None:
    write_table(tmp_path / "pairs.parquet", pa.table({"id": ["a"], "text": ["zzz qqq"]}))
    metadata = Metadata(entries={"en": pa.chunked_array([pa.array(["dog"])])}, hash="0")
    engine = LocalEngine(workers=0)
    curate([tmp_path / "pairs.parquet"], metadata, tmp_path / "out", CurationConfig(), seed=0, engine=engine)
    text = words(card.write(tmp_path / "out", metadata.entries).read_text(encoding="utf-8"))
    assert "0 texts kept of 1" in text
    assert "None" not in re.sub(r"None\.", "", text)


def test_what_is_no_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"card\.json"):
        card.render(tmp_path)
    write_json(tmp_path / "card.json", {"schema": 2})
    with pytest.raises(DataError, match="is not of schema 1"):
        card.render(tmp_path)
    with pytest.raises(MissingData, match=r"summary\.json"):
        card.gather(tmp_path, {})


@pytest.mark.chromium
@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_a_complaint_and_without_scrolling_sideways(
    curated: Path, tmp_path: Path, width: int
) -> None:
    # Headless Chromium's window is at least 500 pixels wide: a frame has any width.
    page = (curated / "card.html").read_text(encoding="utf-8")
    probe = "for (const part of document.querySelectorAll('details')) part.open = true;"
    probe += "document.querySelectorAll('#thresholds thead th')[1].click(); const root = document.documentElement;"
    probe += "document.title = JSON.stringify([root.clientWidth, root.scrollWidth, "
    probe += "[...document.querySelectorAll('#thresholds tbody tr')].map(row => Number(row.cells[1].dataset.v))]);"
    probe += "parent.postMessage(document.title, '*');"
    inner = page.replace("</body>", f"<script>{probe}</script></body>").replace("&", "&amp;").replace('"', "&quot;")
    outer = f'<title></title><iframe style="border:0;width:{width}px;height:900px" srcdoc="{inner}"></iframe>'
    outer += "<script>addEventListener('message', told => { document.title = told.data; });</script>"
    shown, complaints = browse(tmp_path, outer, width=1400)
    assert not complaints
    found: list[Any] = json.loads(re.findall(r"<title>(.*?)</title>", shown)[0])
    assert found[0] <= width
    assert found[1] <= found[0]
    assert found[2] == sorted(found[2], reverse=True)
    assert len(found[2]) == 2
