"""The fast search judged by `reference.match`: one table of named cases, and texts made to provoke trouble."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st

from worldclip.curation import Index
from worldclip.curation.prepare import KINDS, lifted, prepare_paper, take
from worldclip.curation.rules import classes, unspaced
from worldclip.curation.texts import buffers
from worldclip.curation.wide import SLACK
from worldclip.errors import DataError, MissingData

#: name: (entries, text, ids that the rule of the paper finds)
CASES: dict[str, tuple[list[str], str, list[int]]] = {
    "spaced word": (["dog", "do", "og"], "a dog runs", [0]),
    "spaced at the borders": (["a", "runs"], "a dog runs", [0, 1]),
    "spaced phrase": (["hot dog", "dog", "hot"], "one hot dog", [0, 1, 2]),
    "spaced phrase, two spaces in the text": (["hot dog"], "hot  dog", []),
    "case counts": (["Dog", "dog"], "Dog", [0]),
    "several times, once": (["dog"], "dog dog dog", [0]),
    "entries that overlap": (["a b", "b c", "a b c"], "a b c", [0, 1, 2]),
    "one is the beginning of the other": (["new", "new york", "new york city"], "new york", [0, 1]),
    "hyphen is no border": (["dog"], "dog-house", []),
    "apostrophe is no border": (["dog"], "dog's", []),
    "parenthesis is no border": (["dog"], "(dog)", []),
    "CJK inside of a sentence": (["犬", "猫", "子犬"], "白い子犬がいる", [0, 2]),
    "CJK beside Latin": (["犬", "dog"], "犬dog犬", [0]),
    "CJK entry with a Latin end": (["卡拉OK"], "去卡拉OK吧", []),
    "CJK entry with a Latin end, at a space": (["卡拉OK"], "去卡拉OK 吧", [0]),
    "CJK extensions and radicals": (["𠀀", "㐀", "⺀", "豈"], "x𠀀㐀⺀豈y", [0, 1, 2, 3]),
    "kana is spaced": (["すし", "アニメ"], "おいしいすしとアニメ", []),
    "kana alone": (["すし", "アニメ"], "すし アニメ", [0, 1]),
    "kana before CJK": (["お茶"], "お茶会", [0]),
    "kana after CJK": (["食べ"], "食べる", []),
    "iteration mark is spaced": (["人々"], "人々の", []),
    "Thai": (["หมา", "แมว", "มา"], "หมากับแมว", [0, 1, 2]),
    "Lao": (["ໝາ", "ແມວ"], "ໝາແລະແມວ", [0, 1]),
    "Khmer": (["ឆ្កែ", "ឆ្មា"], "ឆ្កែនិងឆ្មា", [0, 1]),
    "Burmese": (["ခွေး", "ကြောင်"], "ခွေးနှင့်ကြောင်", [0, 1]),
    "Tibetan": (["ཁྱི", "བྱི་ལ"], "ཁྱི་དང་བྱི་ལ།", [0, 1]),
    "Hangul is spaced": (["개", "고양이"], "개와 고양이", [1]),
    "Arabic is spaced": (["كلب", "قط"], "كلب وقط", [0]),
    "Arabic comma is no mark of the rule": (["كلب"], "كلب، قطة", []),
    "Hebrew is spaced": (["כלב"], "כלב והכלב", [0]),
    "Devanagari": (["कुत्ता", "बिल्ली"], "कुत्ता और बिल्ली।", [0]),
    "Cyrillic": (["собака", "кошка"], "собака, кошка", [0, 1]),
    "emoji is spaced": (["🐶", "🐱"], "🐶 🐱🐭", [0]),
    "emoji sequence is one word": (["👩", "👩‍🚀", "🚀"], "👩‍🚀", [1]),
    "emoji with a variation selector": (["❤", "❤️"], "❤️", [1]),
    "flags": (["🇩🇪", "🇪🇩"], "🇩🇪🇩🇪", []),
    "combining mark follows": (["e"], "e\u0301", []),
    "composed and decomposed differ": (["café"], "cafe\u0301 café", [0]),
    "decomposed": (["cafe\u0301"], "cafe\u0301", [0]),
    "zero-width space is a letter to the rule": (["dog"], "dog\u200b", []),
    "no-break space is a letter to the rule": (["dog"], "a\u00a0dog", []),
    "tab": (["dog", "cat"], "dog\tcat", [0, 1]),
    "newline": (["dog", "cat"], "dog\ncat", [0, 1]),
    "carriage return": (["dog", "cat"], "dog\r\ncat", [0, 1]),
    "vertical tab is no blank": (["dog", "cat"], "dog\vcat", []),
    "phrase over a newline": (["hot dog"], "hot\ndog", [0]),
    "phrase over CR LF": (["hot dog", "hot  dog"], "hot\r\ndog", [1]),
    "newline inside an entry": (["hot\ndog"], "hot\ndog", []),
    "NUL": (["a\0b", "a", "\0"], "a\0b \0", [0, 2]),
    "punctuation is unspaced": (["#", "@", "$5"], "a#b@c $5", [0, 1, 2]),
    "quotation marks are unspaced": (["“犬”", "「"], "x“犬”「y", [0, 1]),
    "long dash and tilde": (["—", "～"], "a—b～c", [0, 1]),
    "full-width comma is not wrapped": (["dog"], "dog，cat", []),
    "entry with a wrapped mark inside": (["U.S.", "St. Louis", "C++"], "U.S. St. Louis C++", [2]),
    "entry made as a text is prepared": (["U . S .", "U .  S ."], "U.S.", [0]),
    "entry with the spaces of a mark": (["St .  Louis"], "St. Louis", [0]),
    "space inside": (["a  b"], "a  b", [0]),
    "space before": ([" dog"], "a dog", []),
    "space before, two in the text": ([" dog"], "a  dog", [0]),
    "space after": (["dog "], "dog  b", [0]),
    "space only": ([" "], "a b", []),
    "space only, three in the text": ([" "], "a b   c", [0]),
    "space only, empty text": ([" "], "", []),
    "space only, one space": ([" "], " ", [0]),
    "empty text": (["dog", "犬", "."], "", []),
    "empty entry": (["", "dog", ""], "dog", [1]),
    "nothing but empty entries": (["", ""], "dog", []),
    "no entries": ([], "dog", []),
    "duplicates keep their own ids": (["dog", "cat", "dog"], "dog", [0, 2]),
    "duplicates after padding only": (["dog", " dog", "dog "], " dog ", [0, 1, 2]),
    "numbers": (["1", "12", "2"], "12 1,2", [0, 1, 2]),
    "very long text": (["dog", "犬", "x"], "x" * 100_000 + " 犬 " + "y" * 100_000 + " dog", [0, 1]),
    "very long entry": (["d" * 10_000, "d" * 9_999], "a " + "d" * 10_000, [0]),
    "entry longer than the text": (["dogs and cats"], "dogs and", []),
    "text ends within an entry": (["犬猫鳥"], "犬猫", []),
    "borders of the ranges": (
        ["一", "鿿", "\u4dff", "\ua000"],
        "x一y鿿z\u4dffx\ua000y",
        [0, 1],
    ),
} | {
    f"wrapped mark {mark}": ([mark, "dog", "cat", f"dog{mark}"], f"dog{mark}cat", [0, 1, 2])
    for mark in ",.;:?!`"
}  # fmt: skip


def found(index: Index, texts: Any) -> list[list[int] | None]:
    matches = index.match(texts)
    assert matches.type == pa.list_(pa.uint32())
    matches.validate(full=True)
    result: list[list[int] | None] = matches.to_pylist()
    return result


@pytest.mark.parametrize("name", CASES)
def test_cases(name: str) -> None:
    entries, text, ids = CASES[name]
    assert reference.match(entries, [text]) == [ids]
    assert found(Index.build(entries), [text]) == [ids]


def test_all_cases_in_one_index_and_one_call() -> None:
    entries = [entry for entries, _, _ in CASES.values() for entry in entries if len(entry) < 1000]
    texts = [text for _, text, _ in CASES.values()]
    assert found(Index.build(entries), texts) == reference.match(entries, texts)


def test_every_character_is_classed_as_the_reference_does() -> None:
    assert [code for code in range(0x30000) if unspaced(chr(code)) != reference.unspaced(chr(code))] == []


#: Few characters, so that entries occur and overlap; every class of the rule, and UTF-8 that shares its first bytes.
TROUBLE = "ab犬猫すหມ '.,;!`-“，\n\t\r\0e\u0301é𠀀𠀁🐶\u200d"
WORDS = st.text(TROUBLE, max_size=5)


@settings(max_examples=400)
@given(entries=st.lists(WORDS, max_size=12), texts=st.lists(st.text(TROUBLE, max_size=24), max_size=6))
def test_like_the_reference(entries: list[str], texts: list[str]) -> None:
    assert found(Index.build(entries), texts) == reference.match(entries, texts)


@settings(max_examples=200)
@given(entries=st.lists(WORDS, min_size=1, max_size=12), data=st.data())
def test_texts_made_of_entries(entries: list[str], data: st.DataObject) -> None:
    parts = data.draw(st.lists(st.sampled_from([*entries, " ", "", ".", "x"]), max_size=12))
    texts = ["".join(parts), " ".join(parts)]
    assert found(Index.build(entries), texts) == reference.match(entries, texts)


@settings(max_examples=200)
@given(entries=st.lists(st.text(max_size=4), max_size=8), texts=st.lists(st.text(max_size=12), max_size=4))
def test_any_unicode(entries: list[str], texts: list[str]) -> None:
    assert found(Index.build(entries), texts) == reference.match(entries, texts)


ENTRIES = ["dog", "犬", "hot dog", ".", "cat"]
TEXTS = ["a dog.", None, "hot dog 犬", "", "cat", None, "犬犬"]
EXPECTED = [None if text is None else reference.match(ENTRIES, [text])[0] for text in TEXTS]


def chunked(texts: Sequence[str | None]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(texts[:3]), pa.array([], pa.string()), pa.array(texts[3:], pa.string())])


LAYOUTS: dict[str, Callable[[], Any]] = {
    "list": lambda: TEXTS,
    "tuple": lambda: tuple(TEXTS),
    "string": lambda: pa.array(TEXTS, pa.string()),
    "large_string": lambda: pa.array(TEXTS, pa.large_string()),
    "string_view": lambda: pa.array(TEXTS, pa.string_view()),
    "dictionary": lambda: pa.array(TEXTS, pa.string()).dictionary_encode(),
    "chunked": lambda: chunked(TEXTS),
    "chunked, sliced": lambda: chunked(["x", *TEXTS, "dog"])[1:-1],
    "chunked large_string": lambda: chunked(TEXTS).cast(pa.large_string()),
    "sliced string": lambda: pa.array(["dog", *TEXTS, "dog"], pa.string())[1:-1],
    "sliced large_string": lambda: pa.array(["dog", *TEXTS, "dog"], pa.large_string())[1:-1],
    "sliced string_view": lambda: pa.array(["dog", *TEXTS, "dog"], pa.string_view())[1:-1],
    "column of a table": lambda: pa.table({"text": TEXTS}).column("text"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name: str) -> None:
    index = Index.build(ENTRIES)
    assert found(index, LAYOUTS[name]()) == EXPECTED


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_entries(name: str) -> None:
    entries = [text or "犬" for text in TEXTS]
    with pytest.MonkeyPatch.context() as patch:  # the same layouts, of texts without nulls
        patch.setitem(globals(), "TEXTS", entries)
        layout = LAYOUTS[name]()
    index = Index.build(layout)
    assert len(index) == len(entries)
    assert index.header == Index.build(entries).header
    assert found(index, ["a dog . cat"]) == reference.match(entries, ["a dog . cat"])


def test_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    assert found(Index.build(pandas.Series(ENTRIES)), pandas.Series(TEXTS, dtype=object)) == EXPECTED
    assert found(Index.build(ENTRIES), pandas.Series(TEXTS, index=range(7, 0, -1), dtype="string")) == EXPECTED


@pytest.mark.parametrize(
    "empty", [[], pa.array([], pa.string()), pa.chunked_array([], pa.string()), pa.array(["a"])[:0], pa.nulls(0)]
)
def test_no_texts(empty: Any) -> None:
    assert found(Index.build(ENTRIES), empty) == []


def test_nothing_but_nulls() -> None:
    assert found(Index.build(ENTRIES), [None, None]) == [None, None]
    assert found(Index.build(ENTRIES), pa.nulls(2)) == [None, None]


@pytest.mark.parametrize(
    "texts",
    [
        [1, 2],
        ["a", b"\xff"],
        ["a", 1.5],
        ["\ud800"],
        [["a"]],
        pa.array([1, 2]),
        pa.array([[1]]),
        pa.array([b"a", b"\xff"]),
    ],
    ids=["numbers", "bytes", "mixed", "surrogate", "lists", "Arrow numbers", "Arrow lists", "Arrow bytes"],
)
def test_what_is_not_text_is_refused(texts: Any) -> None:
    with pytest.raises(DataError, match="must be text"):
        Index.build(["a"]).match(texts)
    with pytest.raises(DataError, match="must be text"):
        Index.build(texts)


def as_strings(texts: list[bytes]) -> pa.LargeStringArray:
    """Bytes that are said to be strings, which nothing checks, with one more at either end that are not theirs."""
    offsets = np.cumsum([1, *map(len, texts)]).astype(np.int64)
    data = pa.py_buffer(b"\xf0" + b"".join(texts) + b"\x80")
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(offsets), data)


@pytest.mark.parametrize("rule", ["paper", "unicode"])
@pytest.mark.parametrize(
    "wrong",
    [
        b"\x80", b"\xc0\x80", b"\xc1\xbf", b"\xc3", b"\xe0\x9f\xbf", b"\xe7\x8a", b"\xed\xa0\x80", b"\xf0", b"\xff",
        b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xe7\x8a\xac\xac", b"\xf0\xa0\x80",
    ],
)  # fmt: skip
def test_what_is_not_utf8_is_refused_and_found(wrong: bytes, rule: str) -> None:
    index = Index.build(["dog", "犬"], rule)
    byte = 6 if wrong.startswith("犬".encode()) else 3
    for before in (0, 1, 60, 61, 62, 63, 64, 127):
        texts = [b"x" * before, b"dog" + wrong, b"", "犬".encode()]
        with pytest.raises(DataError, match=rf"Index.match: text 1 is not UTF-8: .* at byte {byte}\."):
            index.match(as_strings(texts))
        with pytest.raises(DataError, match=r"Index.build: entry 1 is not UTF-8"):
            Index.build(as_strings(texts), rule)


@given(st.lists(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode)), max_size=4))
def test_texts_are_utf8_where_python_says_so(texts: list[bytes]) -> None:
    def decodes(text: bytes) -> bool:
        try:
            return bool(text.decode()) or True
        except UnicodeDecodeError:
            return False

    array = as_strings(texts)
    if all(map(decodes, texts)):
        assert len(Index.build(ENTRIES).match(array)) == len(texts)
    else:
        with pytest.raises(DataError, match=f"text {[decodes(text) for text in texts].index(False)} is not UTF-8"):
            Index.build(ENTRIES).match(array)


def test_one_string_is_not_a_list_of_texts() -> None:
    with pytest.raises(DataError, match="must be text"):
        Index.build(["a"]).match("a dog")


def test_null_entries_and_unknown_rules_are_refused() -> None:
    with pytest.raises(DataError, match="entry 1 is null"):
        Index.build(["a", None])  # type: ignore[list-item]
    with pytest.raises(DataError, match="rule is 'loose'; allowed: 'paper', 'unicode'"):
        Index.build(["a"], rule="loose")
    with pytest.raises(DataError, match="fold_case goes with rule='unicode'"):
        Index.build(["a"], fold_case=True)


@pytest.mark.parametrize("rule", ["paper", "unicode"])
@pytest.mark.parametrize("entries", [ENTRIES, [], [""]], ids=["some", "none", "empty"])
def test_save_and_open(tmp_path: Path, entries: list[str], rule: str) -> None:
    built = Index.build(entries, rule)
    built.save(tmp_path / "index")
    opened = Index.open(tmp_path / "index")
    assert (len(opened), opened.header) == (len(entries), built.header)
    assert found(opened, TEXTS) == found(built, TEXTS)
    opened.save(tmp_path / "again")
    assert (tmp_path / "index").read_bytes() == (tmp_path / "again").read_bytes()


def test_save_replaces_what_is_there_and_leaves_nothing_else(tmp_path: Path) -> None:
    Index.build(["cat"]).save(tmp_path / "index")
    Index.build(ENTRIES).save(tmp_path / "index")
    assert found(Index.open(tmp_path / "index"), TEXTS) == EXPECTED
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_an_index_is_mapped_not_read(tmp_path: Path) -> None:
    Index.build(ENTRIES).save(tmp_path / "index")
    index = Index.open(tmp_path / "index")
    assert all(isinstance(array.base, np.memmap) for array in index._arrays)


def test_the_header_tells_lists_apart() -> None:
    lists = [["a", "b"], ["b", "a"], ["ab"], ["a", "b", ""], ["", "a", "b"], []]
    assert len({Index.build(entries).header["entries_hash"] for entries in lists}) == len(lists)


def test_truncated_and_longer_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "index"
    Index.build(ENTRIES).save(path)
    whole = path.read_bytes()
    for length in (0, 5, 70, 4095):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"is no worldclip-index|cut short"):
            Index.open(path)
    for changed in (whole[:4096], whole[:-1], whole[:-4], whole + b"\0"):
        path.write_bytes(changed)
        with pytest.raises(DataError, match="cut short or was changed"):
            Index.open(path)


LENGTHS = '"lengths": {"firsts": 256, "table": 8, "bits": 1, "records": 0}'


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("", "is no worldclip-index"),
        ("\0", "is no worldclip-index"),
        ("[1]", "is no worldclip-index"),
        ('{"format": "other", "version": 4}', "is no worldclip-index"),
        ('{"format": "worldclip-index", "version": 2}', "index version 2; this worldclip reads 4"),
        ('{"format": "worldclip-index", "version": 4}', "not whole"),
        ('{"format": "worldclip-index", "version": 4, "rule": "x", "fold_case": false, "entries": 0, ' + LENGTHS + "}",
         "not whole"),
        ('{"format": "worldclip-index", "version": 4, "rule": "paper", "fold_case": false, "entries": 0, '
         '"lengths": {"firsts": 256, "table": -8, "bits": 1, "records": 0}}', "not whole"),
    ],
)  # fmt: skip
def test_headers_of_something_else_are_refused(tmp_path: Path, header: str, says: str) -> None:
    (tmp_path / "index").write_bytes(header.encode().ljust(4096))
    with pytest.raises(DataError, match=says):
        Index.open(tmp_path / "index")


def test_no_index(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="no index here"):
        Index.open(tmp_path)
    with pytest.raises(MissingData, match="no index here"):
        Index.open(tmp_path / "nowhere")


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_table_gives_answers_or_none_but_reads_nothing_else(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "index"
    Index.build([entry for entries, _, _ in CASES.values() for entry in entries if len(entry) < 100]).save(path)
    damaged = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    for at in random.integers(4096, len(damaged), 1 + len(damaged) // 10):
        damaged[at] = random.integers(256)
    path.write_bytes(damaged)
    assert len(Index.open(path).match([text for _, text, _ in CASES.values()])) == len(CASES)


#: Sixteen letters and digits each, found by search: their keys are the same 64 bits.
COLLIDING = ["collisioncollide", "Ptu3mVfpIYWSk5yP", "PVe8lGB0IOf28Gl8", "dRljVd4aehYiVytm"]


def test_keys_that_collide_change_no_answer() -> None:
    assert (Index.build(COLLIDING)._arrays[-1][1] & 0x80000000) != 0  # They do share a node.
    entries = [COLLIDING[0], f"{COLLIDING[1]} x", COLLIDING[1], f"{COLLIDING[0]} y", f"x {COLLIDING[2]}", COLLIDING[0]]
    texts = [*entries, *COLLIDING, f"x {COLLIDING[3]}", f"{COLLIDING[3]} x", f"{COLLIDING[1]} y"]
    for size in range(1, len(entries) + 1):
        assert found(Index.build(entries[:size]), texts) == reference.match(entries[:size], texts)


@pytest.mark.parametrize("shift", range(0, 64, 7))
def test_every_character_is_prepared_as_the_reference_does(shift: int) -> None:
    codes = [*range(0xD800), *range(0xE000, 0x10000), *range(0x1F000, 0x20000, 7), *range(0x20000, 0x32000, 97)]
    text = "x" * shift + "".join(f"{chr(code)}xy{chr(code)}" for code in codes if code)
    data, offsets = buffers(pa.array([text], pa.large_string()))
    raw, kinds = np.zeros(len(data) + 2 * SLACK, np.uint8), np.zeros((KINDS, len(data) // 64 + 3), np.uint64)
    assert take(data, offsets, 0, len(data), raw) == 1
    prepared = np.zeros(3 * len(data) + SLACK, np.uint8)
    borders, barred = np.zeros((2, len(prepared) // 64), np.uint64)
    start = (np.uint64(0), np.uint64(0), np.uint64(0))
    pen = prepare_paper(
        raw, kinds, offsets, False, classes("paper"), prepared, borders, barred, np.zeros(1, np.int64), start
    )
    used = lifted(borders, barred, pen)
    expected = reference.prepare(text)
    assert prepared[:used].tobytes() == expected.encode() + b"\xff"
    bits = [np.unpackbits(each.view(np.uint8), bitorder="little")[:used] for each in (borders, barred)]
    wanted = np.zeros((2, used), np.uint8)
    wanted[:, -1], at, before = 1, 0, "x"
    for character in expected:
        alone, after = character == " " or reference.unspaced(character), before != " " and reference.unspaced(before)
        wanted[:, at] = alone or after or before == " ", after and not alone
        at, before = at + len(character.encode()), character
    assert np.array_equal(wanted, bits)


def test_entries_of_every_length() -> None:
    entries = [("abcdefghij" * 10)[:length] for length in range(1, 100)]
    entries += [f"{entry} {entry}" for entry in entries] + [f"犬{entry}" for entry in entries]
    texts = [f"{entry} z {entry}" for entry in entries] + [f"{entry[:-1]}Z" for entry in entries]
    assert found(Index.build(entries), texts) == reference.match(entries, texts)


def test_texts_with_any_number_of_matches() -> None:
    entries = [f"{letter}{number}" for number in range(700) for letter in "ab"]
    texts = [
        " ".join(entries[7 * count % 90 :][:count] * (1 + count % 3)) for count in (*range(70), 256, 257, 500, 1300)
    ]
    assert found(Index.build(entries), texts) == reference.match(entries, texts)


def test_threads_give_the_same_answer() -> None:
    index = Index.build(ENTRIES)
    texts = [f"{text or ''} {number} {ENTRIES[number % 5]}" for number in range(500) for text in TEXTS]
    expected = index.match(texts)
    with ThreadPoolExecutor(4) as pool:
        assert all(matches.equals(expected) for matches in pool.map(index.match, [texts] * 16))


def test_other_threads_run_while_it_matches() -> None:
    index = Index.build(ENTRIES)
    texts = pa.array(["dog " * 250_000] * 10)
    ticks, done = 0, threading.Event()
    thread = threading.Thread(target=lambda: (index.match(texts), done.set()))
    thread.start()
    while not done.wait(0.001):
        ticks += 1
    thread.join()
    assert ticks > 3


def test_the_header_is_plain_json(tmp_path: Path) -> None:
    Index.build(ENTRIES).save(tmp_path / "index")
    header = json.loads((tmp_path / "index").read_bytes()[:4096])
    assert (header["format"], header["version"], header["rule"], header["entries"]) == (
        "worldclip-index",
        4,
        "paper",
        5,
    )
