"""Using a model: real MetaClip2 and CLIP folders, small and untrained, judged by direct calls of transformers."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import model_folders
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from model_folders import LABELS, picture
from PIL import Image
from transformers import pipeline

from worldclip import use
from worldclip.errors import ConfigError, DataError, MissingData, StorageError
from worldclip.model.encoder import Encoder
from worldclip.model.pixels import read_picture


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.open(model_folders.save("metaclip2", tmp_path_factory.mktemp("models") / "metaclip2"))


def test_classify_is_what_the_zero_shot_pipeline_says(encoder: Encoder, tmp_path: Path) -> None:
    picture(3).save(tmp_path / "a.png")
    ours = use.classify(encoder, tmp_path / "a.png", LABELS)
    zero_shot = pipeline("zero-shot-image-classification", model=str(encoder.folder))
    theirs = zero_shot(str(tmp_path / "a.png"), candidate_labels=LABELS, hypothesis_template="{}")
    assert [label for label, _ in ours] == [answer["label"] for answer in theirs]
    np.testing.assert_allclose([p for _, p in ours], [answer["score"] for answer in theirs], atol=1e-5)
    assert sum(p for _, p in ours) == pytest.approx(1)


def test_ties_keep_the_order_of_the_labels(encoder: Encoder, tmp_path: Path) -> None:
    picture(3).save(tmp_path / "a.png")
    answers = use.classify(encoder, tmp_path / "a.png", ["犬", "犬", "犬"])
    assert [p for _, p in answers] == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("labels", [[], ["dog", "  "]])
def test_labels_must_be_words(encoder: Encoder, tmp_path: Path, labels: list[str]) -> None:
    picture(3).save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="labels"):
        use.classify(encoder, tmp_path / "a.png", labels)


def fill(folder: Path) -> dict[str, int]:
    """Pictures good and bad; the names of the good ones with what was drawn."""
    good = {"b.png": 1, "a/c.JPG": 2, "a/d.webp": 3, "e.gif": 4, "z.bmp": 5}
    (folder / "a").mkdir(parents=True)
    for name, at in good.items():
        picture(at).save(folder / name)
    (folder / "broken.png").write_bytes((folder / "b.png").read_bytes()[:60])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "words.png").write_text("not a picture")
    Image.new("RGB", (1, 600)).save(folder / "line.png")
    (folder / "notes.txt").write_text("not looked at")
    return good


def test_embed_writes_a_sorted_table_and_counts_what_it_sets_aside(encoder: Encoder, tmp_path: Path) -> None:
    good = fill(tmp_path / "in")
    seen: list[tuple[int, int]] = []
    report = use.embed(encoder, tmp_path / "in", tmp_path / "out.parquet", lambda *at: seen.append(at))
    assert seen == [(at, 9) for at in range(1, 10)]
    assert report.embedded == 5
    assert report.dimension == 24
    assert [Path(name).name for name, _ in report.set_aside] == ["broken.png", "empty.jpg", "line.png", "words.png"]
    assert report.reasons == {"not readable as a picture": 4}
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.types == [pa.string(), pa.string(), pa.list_(pa.float32(), 24)]
    assert table.schema.metadata[use.MODEL_KEY.encode()].decode() == encoder.fingerprint
    paths = [Path(name) for name in table["path"].to_pylist()]
    assert [path.as_posix() for path in paths] == sorted((tmp_path / "in" / name).as_posix() for name in good)
    assert table["sha256"].to_pylist() == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    expected = encoder.images(read_picture(path.read_bytes(), path) for path in paths)
    np.testing.assert_allclose(np.array(table["embedding"].to_pylist()), expected, atol=1e-6)


def test_embed_gives_the_same_bytes_whatever_the_row_groups_hold(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "in")
    use.embed(encoder, tmp_path / "in", tmp_path / "one.parquet")
    use.embed(encoder, tmp_path / "in", tmp_path / "two.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    monkeypatch.setattr(use, "_GROUP", 2)
    use.embed(encoder, tmp_path / "in", tmp_path / "three.parquet")
    one, three = pq.read_table(tmp_path / "one.parquet"), pq.read_table(tmp_path / "three.parquet")
    assert pq.ParquetFile(tmp_path / "three.parquet").num_row_groups == 3
    assert one.drop(["embedding"]).equals(three.drop(["embedding"]))
    np.testing.assert_allclose(
        np.array(one["embedding"].to_pylist()), np.array(three["embedding"].to_pylist()), atol=1e-6
    )


@pytest.mark.skipif(os.name != "posix", reason="names are bytes only on POSIX")
def test_a_name_that_is_not_utf8_is_set_aside(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    picture(1).save(tmp_path / "in" / "a.png")
    Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"/\xff.png")).write_bytes((tmp_path / "in" / "a.png").read_bytes())
    report = use.embed(encoder, tmp_path / "in", tmp_path / "out.parquet")
    assert (report.embedded, report.reasons) == (1, {"name is not UTF-8": 1})


def test_embed_says_when_there_is_nothing_to_embed(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="no such folder"):
        use.embed(encoder, tmp_path / "nowhere", tmp_path / "out.parquet")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("not a picture")
    with pytest.raises(DataError, match="1 files there"):
        use.embed(encoder, tmp_path / "in", tmp_path / "out.parquet")
    (tmp_path / "out.parquet").mkdir()
    picture(1).save(tmp_path / "in" / "b.png")
    with pytest.raises(StorageError, match=r"out\.parquet"):
        use.embed(encoder, tmp_path / "in", tmp_path / "out.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.parquet"]


def test_search_finds_the_nearest(encoder: Encoder, tmp_path: Path) -> None:
    fill(tmp_path / "in")
    use.embed(encoder, tmp_path / "in", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    scores = np.array(table["embedding"].to_pylist(), np.float32) @ encoder.texts(["หมา"])[0]
    order = sorted(range(5), key=lambda at: (-scores[at], at))
    hits = use.search(encoder, "หมา", tmp_path / "out.parquet", 3)
    assert [path for path, _ in hits] == [table["path"][at].as_py() for at in order[:3]]
    np.testing.assert_allclose([score for _, score in hits], scores[order[:3]], atol=1e-6)
    assert len(use.search(encoder, "หมา", tmp_path / "out.parquet", 99)) == 5


def test_search_refuses_what_it_cannot_compare(encoder: Encoder, tmp_path: Path) -> None:
    fill(tmp_path / "in")
    other = Encoder.open(model_folders.save("metaclip2", tmp_path / "other", seed=1))
    use.embed(other, tmp_path / "in", tmp_path / "other.parquet")
    with pytest.raises(DataError, match=rf"model {other.fingerprint[:12]}, not by .*Embed the pictures again"):
        use.search(encoder, "หมา", tmp_path / "other.parquet", 3)
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "plain.parquet")
    with pytest.raises(DataError, match="made by something else"):
        use.search(encoder, "หมา", tmp_path / "plain.parquet", 3)
    with pytest.raises(MissingData):
        use.search(encoder, "หมา", tmp_path / "nowhere.parquet", 3)
    for query, k in (("หมา", 0), (" ", 3)):
        with pytest.raises(ConfigError, match="needed"):
            use.search(encoder, query, tmp_path / "other.parquet", k)


def test_a_missing_or_broken_picture_is_named(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"nowhere\.png"):
        use.classify(encoder, tmp_path / "nowhere.png", LABELS)
    with pytest.raises(DataError, match="Give the path of a picture"):
        use.classify(encoder, tmp_path, LABELS)
    (tmp_path / "bad.png").write_text("words")
    with pytest.raises(DataError, match=r"bad\.png: cannot be read as a picture"):
        use.classify(encoder, tmp_path / "bad.png", LABELS)


def test_pages_hold_their_pictures(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    use.html_page(tmp_path / "c.html", "كلب", [("<b>犬</b>", 0.91), ("cat", 0.09)], tmp_path / "a.png")
    use.html_page(tmp_path / "s.html", "หมา", [(str(tmp_path / "a.png"), 0.31), (str(tmp_path / "gone.png"), 0.2)])
    classified, found = (
        (tmp_path / "c.html").read_text(encoding="utf-8"),
        (tmp_path / "s.html").read_text(encoding="utf-8"),
    )
    assert "&lt;b&gt;犬&lt;/b&gt;" in classified
    assert "91.0 %" in classified
    assert '<h1 dir="auto">كلب</h1>' in classified
    assert classified.count("data:image/png;base64,") == found.count("data:image/png;base64,") == 1
    assert "no picture" in found
    assert "0.310" in found
    for page in (classified, found):
        assert "http:" not in page
        assert "https:" not in page
        assert "<script" not in page
