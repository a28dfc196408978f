"""Pictures with texts: counts on the whole packages, everything else on a small cache cut from them."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from worldclip.errors import ConfigError, DataError, MissingData
from worldclip.languages import LANGUAGES
from worldclip.packages import Cache
from worldclip.pairs import gcompris
from worldclip.pairs.drawing import Broken, draw
from worldclip.pairs.icons import code_of, codes_by_icon_name, drawings, picture_files
from worldclip.pairs.packaged import STYLES, build, emoji, key_of, language_of, photographs, stamps
from worldclip.schema import PAIRS, validate
from worldclip.storage import read_json, read_table

NEEDED = frozenset({"cldr-annotations", "stamps", "photographs", *(f"emoji-{style}" for style in STYLES)})
CONCEPTS = {"1f34e": "red apple", "1f436": "dog face", "1f34c": "banana", "2764": "red heart"}
LANGS = ["en", "es", "he", "no", "pt", "sw", "tl", "zh", "zh_yue"]
needs_packages = pytest.mark.packages


@pytest.fixture(scope="module")
def icons(cache: Cache) -> dict[str, dict[str, bytes]]:
    """Style -> code -> drawing, from the whole packages."""
    folders = {style: cache.path(f"emoji-{style}") for style in STYLES}
    annotations = read_json(cache.path("cldr-annotations") / "annotations/en/annotations.json")
    names = {emoji: entry["tts"][0] for emoji, entry in annotations["annotations"]["annotations"].items()}
    codes = {code_of(emoji): emoji for emoji in names}
    by_name = codes_by_icon_name(folders.values(), names)
    return {
        style: picture_files(folder, codes) if style == "fluent-emoji-3d" else drawings(folder, codes, by_name)
        for style, folder in folders.items()
    }


@pytest.fixture(scope="module")
def small(cache: Cache, icons: dict[str, dict[str, bytes]], tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Four emoji in eight styles, the fruit stamps with three broken ones, one activity's photographs."""
    small = Cache(tmp_path_factory.mktemp("small"))
    for name in NEEDED:
        (small.packages / cache.path(name).name).mkdir(parents=True)
    for lang in ("en", "es", "he", "no", "pt", "pt-PT", "sw", "fil", "zh", "zh-Hant", "yue"):
        path = Path("annotations", lang, "annotations.json")
        (small.path("cldr-annotations") / path).parent.mkdir(parents=True)
        shutil.copy(cache.path("cldr-annotations") / path, small.path("cldr-annotations") / path)
    (small.path("cldr-annotations") / "annotations/he/annotations.json").write_text("{ cut short")
    for style in STYLES:
        folder = small.path(f"emoji-{style}")
        if style == "fluent-emoji-3d":
            (folder / "assets").mkdir()
            for code in CONCEPTS:
                (folder / "assets" / f"{code}-fe0f.webp").write_bytes(icons[style][code])
            continue
        svgs = {code: svg.decode() for code, svg in icons[style].items() if code in CONCEPTS}
        icon_set = {"icons": {f"icon-{code}": {"body": svg} for code, svg in svgs.items()}, "width": 32, "height": 32}
        (folder / "icons.json").write_text(json.dumps(icon_set))
        (folder / "chars.json").write_text(json.dumps({code: f"icon-{code}" for code in svgs}))
    fruit = Path("usr/share/tuxpaint/stamps/food/fruit")
    shutil.copytree(cache.path("stamps") / fruit, small.path("stamps") / fruit)
    for name, caption, drawing in (
        ("broken", b"A broken thing.\n", b"\x89PNG\r\n\x1a\n and no more"),
        ("latin", "Une pêche.\n".encode("latin-1"), b"<svg/>"),
        ("wordless", b"\nfr.utf8=Rien.\n", b"<svg/>"),
    ):
        (small.path("stamps") / fruit / f"{name}.txt").write_bytes(caption)
        (small.path("stamps") / fruit / f"{name}.png").write_bytes(drawing)
    (small.path("stamps") / fruit / "alone.txt").write_text("No picture.\n")
    photos = Path("usr/share/gcompris-qt")
    translations = photos / "translations"
    shutil.copytree(cache.path("photographs") / translations, small.path("photographs") / translations)
    (small.path("photographs") / photos / "rcc").mkdir()
    activity = photos / "rcc/explore_farm_animals.rcc"
    shutil.copy(cache.path("photographs") / activity, small.path("photographs") / activity)
    return small


@pytest.fixture(scope="module")
def built(small: Cache, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    folder, lines = tmp_path_factory.mktemp("pairs"), list[str]()
    (folder / "pairs-00000-of-00009.parquet").write_bytes(b"of an earlier run")
    counts = build(small, folder, languages=LANGS, size=24, shards=3, workers=1, report=lines.append)
    return folder, counts, lines


def _rows(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(path).to_pylist()
    return rows


@needs_packages
def test_drawings_of_each_style(icons: dict[str, dict[str, bytes]]) -> None:
    assert {style: len(found) for style, found in icons.items()} == {
        "noto": 1588, "twemoji": 1588, "openmoji": 1597, "fluent-emoji-flat": 1562, "fluent-emoji": 1562,
        "fluent-emoji-3d": 1563, "noto-v1": 1191, "emojione": 1069,
    }  # fmt: skip
    assert all(set(CONCEPTS) <= set(found) for found in icons.values())


@needs_packages
def test_a_mirrored_icon_is_drawn_mirrored(icons: dict[str, dict[str, bytes]]) -> None:
    left, right = (draw(icons["fluent-emoji-flat"][code], 32) for code in ("1f448", "1f449"))
    assert isinstance(left, bytes)
    assert isinstance(right, bytes)
    mirrored = Image.open(io.BytesIO(left)).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pairs = zip(mirrored.tobytes(), Image.open(io.BytesIO(right)).tobytes(), strict=True)
    assert max(abs(a - b) for a, b in pairs) <= 24


@needs_packages
def test_all_stamps_are_split_by_their_english_caption(cache: Cache) -> None:
    pictures = list(stamps(cache, list(LANGUAGES), 8, workers=1))
    assert len(pictures) == 701
    splits: dict[str, set[str]] = {}
    for picture in pictures:
        assert picture.style != "symbols"
        splits.setdefault(picture.concept, set()).add(picture.split)
        english = [text.text for text in picture.texts if text.lang == "en"]
        assert len(english) == 1
        assert all(text.lang == "en" or text.text not in english for text in picture.texts)
    assert all(len(split) == 1 for split in splits.values())
    assert 0.15 < sum(picture.split == "test" for picture in pictures) / len(pictures) < 0.25
    apple = next(picture for picture in pictures if picture.id == "stamps/food/fruit/apple_red")
    assert {text.lang: text.text for text in apple.texts}["no"] == "Et rødt eple."
    assert len({text.lang for picture in pictures for text in picture.texts}) >= 65


@needs_packages
def test_all_photographs_with_titles_and_descriptions(cache: Cache) -> None:
    pictures = list(photographs(cache, list(LANGUAGES), 8))
    assert len(pictures) == len({picture.concept for picture in pictures}) == 82
    assert {picture.split for picture in pictures} == {"test"}
    count = Counter((text.lang, text.kind) for picture in pictures for text in picture.texts)
    assert len({lang for lang, _ in count}) == 34  # 37 labels, of which en_GB, pt_BR and ca@valencia are variants
    assert count["he", "title"] == count["he", "description"] == count["zh", "title"] == 82
    assert (count["cs", "title"], count["cs", "description"]) == (47, 25)
    cat = next(picture for picture in pictures if picture.concept == "Cat")
    assert {text.lang: text.text for text in cat.texts if text.kind == "title"}["he"] == "חתול"


@needs_packages
@pytest.mark.parametrize("workers", [2, 3])
def test_the_same_bytes_for_any_number_of_workers(
    workers: int, small: Cache, built: tuple[Path, dict[str, Any], list[str]], tmp_path: Path
) -> None:
    folder, counts, lines = built
    said: list[str] = []
    again = build(small, tmp_path, languages=LANGS[::-1], size=24, shards=3, workers=workers, report=said.append)
    assert (again, said) == (counts, lines)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(path.name for path in tmp_path.iterdir())
    for name in names:
        digests = {hashlib.sha256((where / name).read_bytes()).hexdigest() for where in (folder, tmp_path)}
        assert len(digests) == 1, name


@needs_packages
def test_train_pairs_and_images_beside_them(built: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, counts, _ = built
    shards = sorted(folder.glob("pairs-*.parquet"))
    assert [shard.name for shard in shards] == [f"pairs-{shard:05d}-of-00003.parquet" for shard in range(3)]
    ids: list[str] = []
    for shard in shards:
        rows = validate(read_table(shard), PAIRS, shard.name).to_pylist()
        with tarfile.open(shard.with_name(shard.name.replace("pairs", "images")).with_suffix(".tar")) as tar:
            members = tar.getmembers()
            assert tar.getnames() == sorted(tar.getnames())
            assert tar.getnames() == [f"{row['key']}.png" for row in rows]
            assert {(member.mtime, member.uid, member.mode) for member in members} == {(0, 0, 0o644)}
            for member in members:
                file = tar.extractfile(member)
                assert file is not None
                with Image.open(file) as image:
                    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (24, 24))
        for row in rows:
            assert row["key"] == key_of(row["id"])
            assert row["style"] != "twemoji"
            assert row["set"] != "photographs"
            labelled = list(zip(row["labels"], map(str, row["texts"]), strict=True))
            assert len(labelled) == len(set(labelled)) > 0
            order = list(zip(row["labels"], (text["kind"] for text in row["texts"]), strict=True))
            assert order == sorted(order)
        ids += [row["id"] for row in rows]
    assert len(ids) == len(set(ids)) == counts["pairs"] == sum(counts["train"].values())
    assert sum(name.startswith("emoji/") for name in ids) == 7 * len(CONCEPTS)


@needs_packages
def test_names_and_keywords_of_an_emoji(built: tuple[Path, dict[str, Any], list[str]]) -> None:
    rows = {row["id"]: row for shard in sorted(built[0].glob("pairs-*")) for row in _rows(shard)}
    apple = rows["emoji/openmoji/1f34e"]
    assert apple["concept"] == "red apple"
    texts = list(zip(apple["labels"], (tuple(text.values()) for text in apple["texts"]), strict=True))
    assert ("sw", ("title", "tufaha jekundu")) in texts
    assert ("sw", ("keyword", "tunda")) in texts
    assert ("tl", ("title", "pulang mansanas")) in texts
    assert Counter(lang for lang, (kind, _) in texts if kind == "title") == dict.fromkeys(set(LANGS) - {"he"}, 1)
    assert {lang: text for lang, (kind, text) in texts if kind == "title"}["zh"] == "红苹果"


@needs_packages
def test_test_pictures(built: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, counts, _ = built
    schema = pq.read_schema(folder / "test.parquet")
    assert str(schema.field("texts").type).startswith("list<")
    assert [field.name for field in schema.field("texts").type.value_type] == ["kind", "lang", "text"]
    rows = _rows(folder / "test.parquet")
    assert {row["style"] for row in rows if row["set"] == "emoji"} == {"twemoji"}
    assert {row["concept"] for row in rows if row["set"] == "emoji"} == set(CONCEPTS.values())
    assert Counter(row["set"] for row in rows) == counts["test"]
    assert counts["test"]["photographs"] == 9
    assert all(Image.open(io.BytesIO(row["png"])).size == (24, 24) for row in rows)


@needs_packages
def test_what_is_broken_is_set_aside_and_counted(built: tuple[Path, dict[str, Any], list[str]]) -> None:
    _, counts, lines = built
    reasons = {why: n for why, n in counts["set_aside"].items() if not why.startswith("text left out")}
    assert reasons == {
        "caption file has no English caption": 1,
        "caption file is not UTF-8": 1,
        "caption without a picture": 1,
        "names cannot be read": 1,
        "photographs cannot be read": 3,
        "picture cannot be drawn (UnidentifiedImageError)": 1,
    }
    assert "stamps/food/fruit/latin: set aside: caption file is not UTF-8" in lines
    assert counts["missing"] == []


@needs_packages
def test_missing_sets(small: Cache, tmp_path: Path) -> None:
    some = Cache(tmp_path / "cache")
    for name in ("cldr-annotations", "emoji-twemoji", "emoji-emojione"):
        shutil.copytree(small.path(name), some.packages / small.path(name).name)
    counts = build(some, tmp_path / "pairs", languages=["sw"], size=8, shards=5, workers=1, report=lambda _: None)
    assert counts["train"] == counts["test"] == {"emoji": 4}
    assert counts["missing"] == sorted(NEEDED - {"cldr-annotations", "emoji-twemoji", "emoji-emojione"})
    assert sum(len(_rows(shard)) for shard in (tmp_path / "pairs").glob("pairs-*")) == 4
    for name in ("emoji-twemoji", "emoji-emojione"):
        shutil.rmtree(some.path(name))
    with pytest.raises(MissingData, match="worldclip pairs fetch"):
        next(emoji(some, ["sw"], 8, 1))
    with pytest.raises(MissingData, match="worldclip pairs fetch"):
        next(stamps(some, ["sw"], 8))


@needs_packages
def test_a_damaged_cache_is_named(small: Cache, tmp_path: Path) -> None:
    some = Cache(tmp_path / "cache")
    for name in ("cldr-annotations", "emoji-noto"):
        shutil.copytree(small.path(name), some.packages / small.path(name).name)
    (some.path("emoji-noto") / "icons.json").write_text("{")
    with pytest.raises(DataError, match=r"icons\.json"):
        list(emoji(some, ["sw"], 8, 1))


@needs_packages
def test_wrong_wishes(small: Cache, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nb"):
        build(small, tmp_path, languages=["en", "nb"], size=8, shards=1, workers=1, report=lambda _: None)
    with pytest.raises(ConfigError, match="at least 1"):
        build(small, tmp_path, languages=["en"], size=8, shards=0, workers=1, report=lambda _: None)


@needs_packages
def test_qt_files_cut_short_are_refused(cache: Cache) -> None:
    folder = cache.path("photographs") / "usr/share/gcompris-qt"
    rcc = (folder / "rcc/explore_farm_animals.rcc").read_bytes()
    qm = (folder / "translations/gcompris_be.qm").read_bytes()
    for part in range(40):
        with pytest.raises(DataError):
            gcompris.read_rcc(rcc[: len(rcc) * part // 40], "cut.rcc")
        with pytest.raises(DataError):
            gcompris.read_qm(qm[: len(qm) * part // 40], "cut.qm")
    for data in (b"", b"qres", b"qres" + bytes(100), b"PK\x03\x04" + bytes(100)):
        with pytest.raises(DataError):
            gcompris.read_rcc(data, "odd.rcc")
    loop = struct.pack(">4sIIIIIHII", b"qres", 1, 20, 0, 0, 0, 2, 1, 0)  # a folder whose only child is itself
    with pytest.raises(DataError, match="inside itself"):
        gcompris.read_rcc(loop, "loop.rcc")


SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{0}pt" height="{1}pt">'
    '<rect width="400" height="400" fill="red"/></svg>'
)


@pytest.mark.parametrize(("width", "height"), [(40, 20), (20, 40), (30, 30), (300, 1)])
def test_pictures_are_fitted_on_white_not_distorted(width: int, height: int) -> None:
    file = io.BytesIO()
    Image.new("LA", (width, height), (0, 255)).save(file, "PNG")
    for source, colour in ((SVG.format(width, height).encode(), (255, 0, 0)), (file.getvalue(), (0, 0, 0))):
        png = draw(source, 20)
        assert isinstance(png, bytes)
        image = Image.open(io.BytesIO(png))
        assert (image.size, image.mode) == ((20, 20), "RGB")
        assert image.getpixel((10, 9)) == colour  # the middle row of one row among 20
        drawn = sum(pixel == colour for pixel in zip(*[iter(image.tobytes())] * 3, strict=True))
        assert drawn == 20 * max(1, 20 * min(width, height) // max(width, height))
        assert image.getpixel((0, 0)) == ((255, 255, 255) if width != height else colour)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"", "cannot be drawn"),
        (b"<svg", "cannot be drawn"),
        (b"\xff\xfe\x00", "cannot be drawn"),
        (b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"/>', "shows nothing"),
    ],
)
def test_what_cannot_be_drawn_has_a_reason(source: bytes, reason: str) -> None:
    broken = draw(source, 16)
    assert isinstance(broken, Broken)
    assert reason in broken.reason


@pytest.mark.parametrize(
    ("label", "code"),
    [
        ("nb", "no"), ("no", "no"), ("nn", "nn"), ("fil", "tl"), ("pt_BR", "pt"), ("zh_TW", "zh"), ("zh-Hant-HK", "zh"),
        ("ca@valencia", "ca"), ("ca-ES-valencia", "ca"), ("sr@latin", "sr"), ("sr-Cyrl-BA", "sr"), ("yue", "zh_yue"),
        ("pa-Arab", "pnb"), ("zu", "zu"), ("en_AU", "en"), ("shs", None), ("und", "other"),
    ],
)  # fmt: skip
def test_labels_fold_to_wikipedia_codes(label: str, code: str | None) -> None:
    assert language_of(label) == code


@given(st.text(), st.text())
def test_keys_are_file_names_and_tell_ids_apart(one: str, other: str) -> None:
    assert (key_of(one) == key_of(other)) == (one == other)
    assert set(key_of(one)) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
