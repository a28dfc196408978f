"""Real pictures with texts in many languages, from packages: the pairs of `worldclip quickstart`.

    emoji        8 styles of drawings   x  CLDR names (title) and keywords (keyword)      style twemoji is test
    stamps       Tux Paint's stamps     x  captions                                       one in five is test
    photographs  GCompris's photographs x  titles and descriptions                        all are test

The split is by drawing and by image, never by text. The true language of each text is carried beside it: training
never reads it, it names the language in evaluation and scores the language identifier.
"""

from __future__ import annotations

import re
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from worldclip.errors import ConfigError, DataError, MissingData
from worldclip.languages import LANGUAGES
from worldclip.packages import Cache
from worldclip.pairs import gcompris
from worldclip.pairs.drawing import Broken, Drawer, drawer
from worldclip.pairs.icons import code_of, codes_by_icon_name, drawings, picture_files
from worldclip.schema import PAIRS, TEXT
from worldclip.storage import digest, read_json, replacing, sweep, write_table

#: Emoji styles in the order of reading, and the one that is never trained on.
STYLES = (
    "noto",
    "twemoji",
    "openmoji",
    "fluent-emoji-flat",
    "fluent-emoji",
    "fluent-emoji-3d",
    "noto-v1",
    "emojione",
)
HELD_OUT_STYLE = "twemoji"

#: Told for whatever is left out: what, and why.
SetAside = Callable[[str, str], None]


def _untold(_what: str, _why: str) -> None:
    """For callers who do not ask what is left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PackagedText:
    """A text of a picture. `lang` is its true language as a Wikipedia code; it is never shown to training."""

    kind: str
    lang: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture with its texts, ordered by language, kind and place in the package.

    `id` is stable, `concept` the English name or caption, `split` "train" or "test", `png` a square RGB picture on
    white.
    """

    id: str
    set: str
    style: str
    concept: str
    split: str
    png: bytes
    texts: tuple[PackagedText, ...]


def emoji(
    cache: Cache, languages: Sequence[str], size: int, workers: int, set_aside: SetAside = _untold
) -> Iterator[Picture]:
    """Emoji of all styles in the cache: those without modifiers that have an English CLDR name.

    Raises:
        ConfigError: a language that is not a Wikipedia code.
        MissingData: the names, or every style, are not in the cache.
        DataError: the names or a style in the cache are damaged.
    """
    styles = [style for style in STYLES if f"emoji-{style}" in cache.present()]
    annotations = cache.path("cldr-annotations") / "annotations"
    if not styles:
        cache.path(f"emoji-{STYLES[0]}")
    named = _read_annotations(annotations, "en")
    names = {emoji: str(entry["tts"][0]) for emoji, entry in named.items() if entry.get("tts")}
    texts = _emoji_texts(annotations, _wanted(languages), names, set_aside)
    codes = {code_of(emoji): emoji for emoji in names}
    by_name = codes_by_icon_name([cache.path(f"emoji-{style}") for style in styles], names)
    with drawer(size, workers) as draw:
        for style in styles:
            folder = cache.path(f"emoji-{style}")
            sources = picture_files(folder, codes) if style == "fluent-emoji-3d" else drawings(folder, codes, by_name)
            for code, png in _drawn(draw, f"emoji/{style}", sources, set_aside):
                yield Picture(
                    id=f"emoji/{style}/{code}",
                    set="emoji",
                    style=style,
                    concept=names[codes[code]],
                    split="test" if style == HELD_OUT_STYLE else "train",
                    png=png,
                    texts=texts[codes[code]],
                )


def stamps(
    cache: Cache, languages: Sequence[str], size: int, workers: int = 1, set_aside: SetAside = _untold
) -> Iterator[Picture]:
    """Tux Paint's stamps without letters and digits; the split is by a hash of the English caption.

    Raises:
        ConfigError: a language that is not a Wikipedia code.
        MissingData: the package is not in the cache.
    """
    folder = cache.path("stamps") / "usr/share/tuxpaint/stamps"
    wanted = _wanted(languages)
    captions: dict[str, dict[str, str]] = {}
    sources: dict[str, bytes] = {}
    for file in sorted(folder.rglob("*.txt")):
        key = file.relative_to(folder).with_suffix("").as_posix()
        if key.startswith("symbols/"):
            continue
        try:
            captions[key] = _read_captions(file)
            drawings = (file.with_suffix(end) for end in (".png", ".svg"))
            sources[key] = next(drawing for drawing in drawings if drawing.exists()).read_bytes()
        except UnicodeDecodeError:
            set_aside(f"stamps/{key}", "caption file is not UTF-8")
        except DataError:
            set_aside(f"stamps/{key}", "caption file has no English caption")
        except StopIteration:
            set_aside(f"stamps/{key}", "caption without a picture")
    with drawer(size, workers) as draw:
        for key, png in _drawn(draw, "stamps", sources, set_aside):
            english = captions[key]["en"]
            concept = unicodedata.normalize("NFC", english).casefold().strip(" .!")
            texts = []
            for lang, caption in _by_language(captions[key], wanted).items():
                if lang != "en" and caption == english:
                    set_aside(f"stamps/{key}", "text left out: caption equal to the English one")
                else:
                    texts.append(PackagedText(kind="caption", lang=lang, text=caption))
            yield Picture(
                id=f"stamps/{key}",
                set="stamps",
                style=key.partition("/")[0],
                concept=concept,
                split="test" if _share(concept) < 0.2 else "train",
                png=png,
                texts=tuple(texts),
            )


def photographs(
    cache: Cache, languages: Sequence[str], size: int, workers: int = 1, set_aside: SetAside = _untold
) -> Iterator[Picture]:
    """GCompris's 82 photographs; all are test.

    Raises:
        ConfigError: a language that is not a Wikipedia code.
        MissingData: the package is not in the cache.
    """
    folder = cache.path("photographs") / "usr/share/gcompris-qt"
    catalogues: dict[str, gcompris.Messages] = {}
    for file in sorted((folder / "translations").glob("gcompris_*.qm")):
        try:
            catalogues[file.stem.removeprefix("gcompris_")] = gcompris.read_qm(file.read_bytes(), str(file))
        except DataError:
            set_aside(f"photographs/{file.name}", "translations cannot be read")
    wanted = _wanted(languages)
    with drawer(size, workers) as draw:
        for activity in gcompris.ACTIVITIES:
            try:
                found = {item.key: item for item in gcompris.photographs(folder / "rcc" / f"{activity}.rcc")}
            except (DataError, FileNotFoundError):
                set_aside(f"photographs/{activity}", "photographs cannot be read")
                continue
            sources = {key: item.image for key, item in found.items()}
            for key, png in _drawn(draw, f"photographs/{activity}", sources, set_aside):
                item = found[key]
                texts = []
                for kind, english in (("description", item.description), ("title", item.title)):
                    said = {label: messages.translate(item.board, english) for label, messages in catalogues.items()}
                    said["en"] = english
                    chosen = _by_language({label: text for label, text in said.items() if text}, wanted)
                    texts += [PackagedText(kind=kind, lang=lang, text=text) for lang, text in chosen.items()]
                yield Picture(
                    id=f"photographs/{activity}/{key}",
                    set="photographs",
                    style=activity,
                    concept=item.title,
                    split="test",
                    png=png,
                    texts=tuple(sorted(texts, key=lambda text: (text.lang, text.kind))),
                )


# Languages: package labels (CLDR locales, Tux Paint's and GCompris's codes) -> Wikipedia codes.

_CODES = {code.replace("_", "-"): code for code in LANGUAGES} | {
    tag: language.code for language in LANGUAGES.values() for tag in language.tags
}


def language_of(label: str) -> str | None:
    """The Wikipedia code of a package's label (nb -> no, fil -> tl, pt_BR -> pt, ca@valencia -> ca), or None."""
    subtags = re.split("[-_@]", label.lower())
    tags = ("-".join(subtags[:length]) for length in range(len(subtags), 0, -1))
    return next((_CODES[tag] for tag in tags if tag in _CODES), None)


def _wanted(languages: Sequence[str]) -> frozenset[str]:
    unknown = sorted(set(languages) - set(LANGUAGES))
    if unknown:
        raise ConfigError(
            f"languages: {', '.join(unknown)}: no Wikipedia code; such are en, zh, no (Bokmål), tl (Filipino), zh_yue."
        )
    return frozenset(languages)


def _by_language(texts: Mapping[str, str], wanted: frozenset[str]) -> dict[str, str]:
    """One text a wanted language, ordered by language: of the plainest label that has one (pt before pt_BR)."""
    chosen: dict[str, str] = {}
    for label in sorted(texts, key=_plainness):
        code = language_of(label)
        if code in wanted:
            chosen.setdefault(code, texts[label])
    return dict(sorted(chosen.items()))


def _plainness(label: str) -> tuple[int, str]:
    return len(re.split("[-_@]", label)), label


# Emoji.


def _read_annotations(folder: Path, locale: str) -> dict[str, Any]:
    """Emoji -> {"tts": [name], "default": keywords} of one locale, variation selectors removed."""
    content = read_json(folder / locale / "annotations.json")
    entries = content["annotations"].get("annotations", {})
    return {emoji.replace("\ufe0f", ""): entry for emoji, entry in entries.items()}


def _emoji_texts(
    folder: Path, wanted: frozenset[str], names: Mapping[str, str], set_aside: SetAside
) -> dict[str, tuple[PackagedText, ...]]:
    """Texts of each emoji, from the plainest locale of each wanted language."""
    locales = _by_language({path.name: path.name for path in folder.iterdir() if path.is_dir()}, wanted)
    texts: dict[str, list[PackagedText]] = {emoji: [] for emoji in names}
    for lang, locale in locales.items():
        try:
            entries = _read_annotations(folder, locale)
        except (DataError, MissingData):
            set_aside(f"emoji/{locale}", "names cannot be read")
            continue
        for emoji, entry in ((emoji, entries[emoji]) for emoji in names if emoji in entries):
            title = _clean(next(iter(entry.get("tts", ())), ""))
            keywords = dict.fromkeys(_clean(text) for text in entry.get("default", ()))
            if title in keywords:
                set_aside(f"emoji/{code_of(emoji)}", "text left out: keyword equal to the name")
            texts[emoji] += [
                PackagedText(kind="keyword", lang=lang, text=text) for text in keywords if text and text != title
            ]
            if title:
                texts[emoji].append(PackagedText(kind="title", lang=lang, text=title))
    return {emoji: tuple(of_emoji) for emoji, of_emoji in texts.items()}


def _clean(text: str) -> str:
    return " ".join(text.split())


# Stamps.


def _read_captions(file: Path) -> dict[str, str]:
    """Label -> caption: the first line is English, the others are `label.utf8=caption`."""
    first, *others = file.read_text("utf-8-sig").splitlines() or [""]
    if not _clean(first):
        raise DataError(f"{file}: the first line must be the English caption; it is empty.")
    captions = {"en": _clean(first)}
    for line in others:
        label, equals, caption = line.partition(".utf8=")
        if equals and _clean(caption):
            captions.setdefault(label.strip(), _clean(caption))
    return captions


def _share(key: str) -> float:
    """A fixed draw in [0, 1) for a key."""
    return int(digest(key)[:8], 16) / 2**32


def _drawn(draw: Drawer, where: str, sources: Mapping[str, bytes], set_aside: SetAside) -> Iterator[tuple[str, bytes]]:
    for key, png in zip(sources, draw(sources.values()), strict=True):
        if isinstance(png, Broken):
            set_aside(f"{where}/{key}", png.reason)
        else:
            yield key, png


# Files.


def build(
    cache: Cache,
    folder: Path,
    *,
    languages: Sequence[str],
    size: int,
    shards: int,
    workers: int,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Write the pairs of every set in the cache to `folder`; the same bytes for any number of workers.

    `pairs-?????-of-?????.parquet` holds the train pictures: `PAIRS`, then `key`, `set`, `style`, `concept` and
    `labels` (list<string>: the true language of each text). `images-?????-of-?????.tar` beside it (WebDataset) holds
    `<key>.png` in the order of its rows. A picture's shard is a hash of its id. `test.parquet` holds the test
    pictures: id, set, style, concept, png (binary), texts (list<struct<kind, lang, text>>).

    Returns:
        Counts: `train` and `test` (pictures by set, and `styles` of emoji), `texts` by language of the train pictures,
        `set_aside` by reason, `missing` packages, and `pairs`, the number of train pictures.

    Raises:
        ConfigError: a language that is not a Wikipedia code, or a size or number of shards below 1.
        MissingData: the emoji names, or all emoji styles, are not in the cache.
        DataError: they are damaged.
        StorageError: the folder cannot be written to.
    """
    if size < 1 or shards < 1:
        raise ConfigError(f"pictures need a size and a number of shards of at least 1; found {size} and {shards}.")
    reasons: Counter[str] = Counter()

    def set_aside(what: str, why: str) -> None:
        reasons[why] += 1
        if not why.startswith("text left out"):
            report(f"{what}: set aside: {why}")

    present = cache.present()
    pictures: list[Picture] = []
    for picture in emoji(cache, languages, size, workers, set_aside):
        if not pictures or pictures[-1].style != picture.style:
            report(f"drawing emoji of style {picture.style}")
        pictures.append(picture)
    for name, read in (("stamps", stamps), ("photographs", photographs)):
        if name in present:
            report(f"drawing {name}")
            pictures += read(cache, languages, size, workers, set_aside)
    for picture in pictures:
        if not picture.texts:
            reasons["picture without a text in these languages"] += 1
    pictures = [picture for picture in pictures if picture.texts]
    train = [picture for picture in pictures if picture.split == "train"]
    test = [picture for picture in pictures if picture.split == "test"]
    _write_train(folder, train, shards)
    write_table(folder / "test.parquet", _test_table(sorted(test, key=lambda picture: picture.id)))
    return {
        "pairs": len(train),
        "train": dict(sorted(Counter(picture.set for picture in train).items())),
        "test": dict(sorted(Counter(picture.set for picture in test).items())),
        "styles": {style: sum(picture.style == style for picture in pictures) for style in STYLES},
        "texts": dict(sorted(_count_languages(train).items())),
        "set_aside": dict(sorted(reasons.items())),
        "missing": sorted({"stamps", "photographs", *(f"emoji-{style}" for style in STYLES)} - present),
    }


def _count_languages(pictures: Iterable[Picture]) -> Counter[str]:
    return sum((Counter(text.lang for text in picture.texts) for picture in pictures), Counter())


def key_of(picture_id: str) -> str:
    """An id as the name of a WebDataset member: `/` becomes `__`, all but letters, digits and `-` becomes `_hex`."""
    return re.sub(r"[^A-Za-z0-9-]", lambda char: "__" if char[0] == "/" else "_" + char[0].encode().hex(), picture_id)


def _write_train(folder: Path, train: Sequence[Picture], shards: int) -> None:
    rows: list[list[Picture]] = [[] for _ in range(shards)]
    for picture in train:
        rows[int(digest(picture.id)[:16], 16) % shards].append(picture)
    stems = [f"{shard:05d}-of-{shards:05d}" for shard in range(shards)]
    sweep(folder)
    # Shards of an earlier run with another number of them would be read together with these.
    for old in [*folder.glob("pairs-*.parquet"), *folder.glob("images-*.tar")]:
        if old.stem.partition("-")[2] not in stems:
            old.unlink()
    arrays: Column = {}
    for stem, pictures in zip(stems, rows, strict=True):
        pictures.sort(key=lambda picture: key_of(picture.id))
        with replacing(folder / f"images-{stem}.tar") as path:
            _write_images(path, pictures)
        write_table(folder / f"pairs-{stem}.parquet", _train_table(pictures, arrays))


def _write_images(path: Path, pictures: Sequence[Picture]) -> None:
    """A WebDataset tar; a member's time, mode and owner are the same always."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for picture in pictures:
            member = tarfile.TarInfo(f"{key_of(picture.id)}.png")
            member.size = len(picture.png)
            tar.addfile(member, BytesIO(picture.png))


Column = dict[int, "pa.ListArray[Any]"]


def _text_column(pictures: Sequence[Picture], fields: Sequence[str], made: Column) -> pa.ListArray[Any]:
    """list<struct> column; all pictures of an emoji share one tuple of texts, which is converted once."""
    for picture in pictures:
        if id(picture.texts) not in made:
            values = [pa.array([getattr(text, field) for text in picture.texts], pa.string()) for field in fields]
            structs = pa.StructArray.from_arrays(values, list(fields))
            made[id(picture.texts)] = pa.ListArray.from_arrays(pa.array([0, len(structs)], pa.int32()), structs)
    kind = pa.list_(pa.struct([(field, pa.string()) for field in fields]))
    empty = pa.ListArray.from_arrays(pa.array([0], pa.int32()), pa.array([], kind.value_type))
    return pa.concat_arrays([empty, *(made[id(picture.texts)] for picture in pictures)])


def _train_table(pictures: Sequence[Picture], made: Column) -> pa.Table:
    column = _text_column(pictures, ("kind", "text", "lang"), made)
    kind, text, lang = (pc.struct_field(column.values, name) for name in ("kind", "text", "lang"))
    candidates = pa.StructArray.from_arrays([kind, text], fields=list(TEXT))
    return pa.table(
        {
            "id": pa.array([picture.id for picture in pictures], pa.string()),
            "texts": pa.ListArray.from_arrays(column.offsets, candidates, type=PAIRS.field("texts").type),
            **_plain_columns(pictures),
            "labels": pa.ListArray.from_arrays(column.offsets, lang),
        }
    )


def _test_table(pictures: Sequence[Picture]) -> pa.Table:
    return pa.table(
        {
            "id": pa.array([picture.id for picture in pictures], pa.string()),
            **_plain_columns(pictures),
            "png": pa.array([picture.png for picture in pictures], pa.binary()),
            "texts": _text_column(pictures, ("kind", "lang", "text"), {}),
        }
    )


def _plain_columns(pictures: Sequence[Picture]) -> dict[str, pa.Array[Any]]:
    return {
        "key": pa.array([key_of(picture.id) for picture in pictures], pa.string()),
        **{
            name: pa.array([getattr(picture, name) for picture in pictures], pa.string())
            for name in ("set", "style", "concept")
        },
    }
