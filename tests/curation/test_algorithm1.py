"""Algorithm 1, part by part and whole, judged by `reference`."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import plain
import pyarrow as pa
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from plain import SEED, World, assert_same, contents, curated, plain_uniform, plainly, world_of, write_pairs

from worldclip.config import CurationConfig
from worldclip.curate import ENGLISH, MERGED, curate, entry_lists, read_counts
from worldclip.curation import entry_probability, keep_probability, tail_share, tail_threshold
from worldclip.curation.count import count
from worldclip.curation.sample import Candidates, draw_probability, id_keys, uniform
from worldclip.engines import LocalEngine
from worldclip.errors import ConfigError, MissingData, ShardsFailed
from worldclip.metadata.entries import Metadata
from worldclip.packages import Cache
from worldclip.recipes import ABLATION_ROWS
from worldclip.schema import CURATED, MATCHES, PAIRS, THRESHOLDS
from worldclip.storage import read_table, write_table

COUNTS = st.lists(st.integers(0, 40) | st.integers(0, 10**12), max_size=30)
SHARES = st.floats(0, 1) | st.sampled_from([0.06, 0.5, 1 / 3])

# The parts.


@given(counts=COUNTS, t=st.integers(0, 50) | st.integers(0, 10**13))
def test_share_of_the_tail(counts: list[int], t: int) -> None:
    assert tail_share(t, np.array(counts, np.int64)) == reference.t_to_p(t, counts)


@given(counts=COUNTS, p=SHARES)
def test_threshold_of_a_share(counts: list[int], p: float) -> None:
    assert tail_threshold(p, np.array(counts, np.int64)) == reference.p_to_t(p, counts)


@given(counts=COUNTS, t=st.integers(0, 50) | st.integers(0, 10**13))
def test_probability_of_entries(counts: list[int], t: int) -> None:
    probability = entry_probability(t, np.array(counts, np.int64))
    assert probability.dtype == np.float64
    assert probability.tolist() == [1.0 if c < t else t / c if c else 0 for c in counts]
    if t:
        assert probability.tolist() == reference.probabilities(t, counts)


@given(size=st.integers(1, 20), data=st.data())
def test_counts_and_probability_of_texts(size: int, data: st.DataObject) -> None:
    ids = st.lists(st.integers(0, size - 1), unique=True).map(sorted)
    matches = data.draw(st.lists(st.none() | ids, max_size=12))
    probability = data.draw(st.lists(st.floats(0, 1), min_size=size, max_size=size))
    array = pa.array(matches, pa.list_(pa.uint32()))
    for found in (array, pa.concat_arrays([array, array])[len(array) :]):  # a slice, too
        counted = count(found, size)
        assert counted.dtype == np.int64
        assert counted.tolist() == reference.count(size, [each or [] for each in matches])
        kept = keep_probability(found, np.array(probability))
        expected = [reference.keep_probability(each or [], probability) for each in matches]
        np.testing.assert_allclose(kept, expected, rtol=0, atol=1e-12)


@given(counts=COUNTS.filter(any))
def test_english_keeps_its_own_threshold(counts: list[int]) -> None:
    # A share that comes from a threshold among the counts gives counts of the same share back.
    t = max(counts)
    p = tail_share(t, np.array(counts))
    assert tail_share(tail_threshold(p, np.array(counts)), np.array(counts)) <= p


@pytest.mark.parametrize(
    ("p", "counts", "t"),
    [
        (0.5, [1, 1], 1),
        (0.25, [4, 2, 2], 2),  # shares 1/4, 1/2, 1
        (0.375, [4, 2, 2], 2),  # as near to 1/4 as to 1/2: the first
        (0.75, [4, 2, 2], 2),  # as near to 1/2 as to 1
        (0.76, [4, 2, 2], 4),
        (0.0, [0, 0, 5], 0),
        (1.0, [5, 0, 0], 5),
        (0.06, [], 0),
        (0.06, [0, 0], 0),
        (0.06, [7], 7),
    ],
)
def test_ties_and_empties(p: float, counts: list[int], t: int) -> None:
    assert tail_threshold(p, np.array(counts, np.int64)) == reference.p_to_t(p, counts) == t


def test_a_language_without_matches() -> None:
    assert tail_share(10, np.zeros(3, np.int64)) == 0
    assert entry_probability(0, np.zeros(3, np.int64)).tolist() == [0, 0, 0]
    assert count(pa.array([[], None], pa.list_(pa.uint32())), 3).tolist() == [0, 0, 0]


def test_probabilities_at_the_border() -> None:
    assert entry_probability(10, np.array([9, 10, 11, 20])).tolist() == [1, 1, 10 / 11, 0.5]


# The draws.


@given(ids=st.lists(st.text(), max_size=8), seed=st.integers(0, 2**40), epoch=st.integers(0, 2**20))
def test_draws_are_what_they_say(ids: list[str], seed: int, epoch: int) -> None:
    drawn = uniform(id_keys(ids), seed, epoch, 7)
    assert drawn.tolist() == [plain_uniform(each, seed, epoch, 7) for each in ids]


MANY = [f"https://example.org/{number}.jpg" for number in range(20_000)]


def chi_square(observed: Sequence[float], shares: Sequence[float]) -> float:
    total = sum(observed)
    expected = [share / sum(shares) * total for share in shares]
    return sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True))


@pytest.mark.parametrize("where", [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (12345, 99, 1 << 20)])
def test_draws_are_uniform(where: tuple[int, int, int]) -> None:
    drawn = uniform(id_keys(MANY), *where)
    assert ((drawn >= 0) & (drawn < 1)).all()
    histogram = np.bincount((drawn * 50).astype(int), minlength=50)
    assert chi_square(histogram, [1] * 50) < 94  # 49 degrees of freedom: 1 in 10,000


def test_seed_epoch_and_stream_matter() -> None:
    keys = id_keys(MANY)
    draws = [uniform(keys, *where) for where in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1))]
    bound = 4 / sqrt(len(keys))
    for number, one in enumerate(draws):
        for other in draws[:number]:
            assert not (one == other).any()
            assert abs(np.corrcoef(one, other)[0, 1]) < bound


def candidates(probability: Sequence[Sequence[float]], ids: Sequence[str]) -> Candidates:
    """Images with as many texts as each has probabilities."""
    offsets = np.cumsum([0, *map(len, probability)])
    return Candidates(keys=id_keys(ids), offsets=offsets, keep_probability=np.concatenate(probability))


SKEWED = [0.9, 0.05, 0.3, 1.0, 0.0]
SAME = candidates([SKEWED] * len(MANY), MANY)


def test_the_first_text_is_drawn_uniformly_and_that_one_decides() -> None:
    images = np.arange(len(MANY))
    texts, kept = SAME.draw(images, 0, 0)
    assert (texts // len(SKEWED) == images).all()
    place = texts % len(SKEWED)
    drawn, chosen = np.bincount(place), np.bincount(place[kept], minlength=len(SKEWED))
    assert chi_square(drawn, [1] * 5) < 23.5  # 4 degrees of freedom: 1 in 10,000
    for share, of, out_of in zip(SKEWED, chosen, drawn, strict=True):
        assert abs(of - share * out_of) <= 4 * sqrt(out_of * share * (1 - share))
    mean = sum(SKEWED) / len(SKEWED)
    assert abs(kept.sum() - mean * len(MANY)) < 4 * sqrt(len(MANY) * mean * (1 - mean))


def test_further_texts_are_drawn_as_the_first_is_given_that_it_was_kept() -> None:
    images = np.arange(len(MANY))
    texts, kept = SAME.draw(images, 3, 5)
    first = texts[kept] % len(SKEWED)
    positive = [share for share in SKEWED if share]
    further = [SAME.draw_more(images[kept], 3, 5, stream) for stream in (1, 2)]
    for place in (first, *(each % len(SKEWED) for each in further)):
        observed = np.bincount(place, minlength=len(SKEWED))
        assert observed[4] == 0
        assert chi_square(observed[:4], positive) < 21.1  # 3 degrees of freedom: 1 in 10,000
    assert (further[0] // len(SKEWED) == images[kept]).all()
    # They are drawn anew: as often the same as chance has it.
    chance = sum(share**2 for share in SKEWED) / sum(SKEWED) ** 2
    for one, other in ((first, further[0]), (first, further[1]), (further[0], further[1])):
        same = (one % len(SKEWED) == other % len(SKEWED)).mean()
        assert abs(same - chance) < 4 * sqrt(chance * (1 - chance) / len(first))


@given(data=st.data())
def test_draws_do_not_depend_on_order_or_company(data: st.DataObject) -> None:
    shares = st.lists(st.floats(0, 1), min_size=1, max_size=4)
    rows = data.draw(st.dictionaries(st.text(max_size=3), shares, min_size=1, max_size=8))
    ids = list(rows)
    other = data.draw(st.permutations(ids))
    one, two = candidates(list(rows.values()), ids), candidates([rows[each] for each in other], other)
    images = np.arange(len(ids))
    answers = []
    for each, names in ((one, ids), (two, other)):
        texts, kept = each.draw(images, 1, 2)
        more = each.draw_more(images, 1, 2, 1)
        starts = each.offsets[:-1]
        assert ((starts <= more) & (more < each.offsets[1:])).all()
        answers.append({name: (int(t - s), bool(k)) for name, t, s, k in zip(names, texts, starts, kept, strict=True)})
    assert answers[0] == answers[1]
    for name, (place, keep) in answers[0].items():
        expected = int(plain_uniform(name, 1, 2, 0) * len(rows[name]))
        assert (place, keep) == (expected, plain_uniform(name, 1, 2, 1) < rows[name][expected])


def test_each_epoch_draws_anew() -> None:
    images = np.arange(len(MANY))
    (_, first), (_, second) = SAME.draw(images, 0, 0), SAME.draw(images, 0, 1)
    both, share = (first & second).mean(), sum(SKEWED) / len(SKEWED)
    assert abs(both - share**2) < 4 * sqrt(share**2 * (1 - share**2) / len(MANY))


# The whole, on real names and keywords of emoji in six languages, against starter metadata.


@pytest.fixture(scope="module")
def world(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> World:
    return world_of(cache, tmp_path_factory.mktemp("metadata"))


def run(world: World, folder: Path, config: CurationConfig, *, shards: int = 1, workers: int = 0) -> dict[str, Any]:
    return plain.run(world, folder, config, shards, LocalEngine(workers=workers, tries=1))


@pytest.mark.packages
@pytest.mark.parametrize("row", [*ABLATION_ROWS, "tail share"])
def test_every_row_of_the_ablation(world: World, tmp_path: Path, row: int | str) -> None:
    config = CurationConfig(tail_share=0.3) if row == "tail share" else replace(ABLATION_ROWS[int(row)], t_en=6)
    expected = plainly(world, config)
    summary = run(world, tmp_path, config)

    counts = read_counts(tmp_path / "curated" / "counts.npz")
    assert {name: vector.tolist() for name, vector in counts.items()} == expected.counts
    table = read_table(tmp_path / "curated" / "thresholds.parquet")
    assert table.schema.remove_metadata() == THRESHOLDS
    limits = {each["lang"]: each for each in table.to_pylist()}
    assert {name: each["t"] for name, each in limits.items()} == expected.limits
    assert_same(curated(tmp_path), expected.rows)

    # The sample is one that can show a mistake: heads and tails, texts of many languages, some kept and some not.
    texts = [text for texts in expected.rows.values() for text in texts]
    assert len(texts) > (100 if row == 1 else 300)
    assert any(0 < text[3] < 1 for text in texts)
    assert {text[4] for text in texts} == {True, False}
    assert len({text[2] for text in texts}) == 1 if row == 1 else len({text[2] for text in texts}) >= 6

    # Nothing vanishes.
    said = sum(len(texts) for _, texts in world.rows)
    assert (summary["images"], summary["texts"]) == (len(world.rows), said)
    assert summary["matched_texts"] == len(texts) == said - summary["dropped"]["texts without a matched entry"]
    assert len(expected.rows) == len(world.rows) - summary["dropped"]["images without such a text"]
    assert summary["kept"] == sum(text[4] for text in texts)
    assert summary["expected_kept"] == pytest.approx(sum(text[3] for text in texts))
    for of_all, of_language in (("texts", "texts"), ("matched_texts", "matched"), ("kept", "kept")):
        assert summary[of_all] == sum(each[of_language] for each in summary["languages"])
    by_language = Counter(text[2] for text in texts)
    assert {each["lang"]: each["matched"] for each in summary["languages"] if each["matched"]} == by_language
    assert sum(each["seen_share"] for each in summary["languages"]) == pytest.approx(1)

    # The table of thresholds speaks of lists: what was matched against each.
    for name, each in limits.items():
        vector = expected.counts[name]
        assert (each["entries"], each["head"] + each["tail"]) == (len(vector), len(vector))
        assert each["matches"] == sum(vector)
        assert each["p"] == reference.t_to_p(expected.limits[name], vector)
        if each["matches"]:
            assert each["head"] == sum(c >= expected.limits[name] for c in vector)
    assert sum(each["pairs"] for each in limits.values()) == len(texts)
    assert sum(each["expected_kept"] for each in limits.values()) == pytest.approx(summary["expected_kept"])


@pytest.mark.packages
def test_english_share_is_what_the_loader_will_draw(world: World, tmp_path: Path) -> None:
    summary = run(world, tmp_path, CurationConfig(t_en=6))
    seen: Counter[str] = Counter()
    for texts in curated(tmp_path).values():
        for _, _, lang, share, _ in texts:
            seen[lang] += share / len(texts)  # type: ignore[assignment]
    total = sum(seen.values())
    assert summary["english_share"] == pytest.approx(seen["en"] / total)
    for each in summary["languages"]:
        assert each["seen_share"] == pytest.approx(seen[each["lang"]] / total)


@pytest.mark.packages
@pytest.mark.parametrize(("shards", "workers", "shuffled"), [(2, 0, True), (5, 0, False), (2, 2, False), (25, 0, True)])
def test_sharding_order_and_workers_change_nothing(
    world: World, tmp_path: Path, shards: int, workers: int, shuffled: bool
) -> None:
    config = CurationConfig(t_en=6)
    if shards == 25:  # more shards than rows: some are empty
        world = replace(world, rows=world.rows[:20])
    rows = random.Random(1).sample(world.rows, len(world.rows)) if shuffled else world.rows
    expected = plainly(world, config)
    summary = run(replace(world, rows=rows), tmp_path / "other", config, shards=shards, workers=workers)
    assert_same(curated(tmp_path / "other"), expected.rows)
    one = run(world, tmp_path / "one", config)
    assert summary == one
    for name in ("counts.npz", "thresholds.parquet", "summary.json"):
        assert (tmp_path / "other/curated" / name).read_bytes() == (tmp_path / "one/curated" / name).read_bytes()


@pytest.mark.packages
def test_kept_fractions_are_within_binomial_bounds(world: World, tmp_path: Path) -> None:
    texts = sorted({(kind, text) for _, texts in world.rows for kind, text in texts})[::3]
    rows = [(f"{number}/{copy}", [each]) for number, each in enumerate(texts) for copy in range(20)]
    copies = replace(world, rows=rows)
    run(copies, tmp_path, CurationConfig(t_en=15))
    by_concept: defaultdict[tuple[str, int], list[tuple[float, bool]]] = defaultdict(list)
    alone: defaultdict[tuple[str, int], list[bool]] = defaultdict(list)
    (matches,) = (tmp_path / "curated").glob("matches-*.parquet")
    found = {row["id"]: row["texts"][0] for row in read_table(matches, ["id", "texts"]).to_pylist()}
    for name, ((_, _, lang, share, kept),) in curated(tmp_path).items():
        for entry in found[name]["matches"]:
            by_concept[lang, entry].append((share, kept))
        if len(found[name]["matches"]) == 1:
            alone[lang, found[name]["matches"][0]].append(kept)
    # Five standard deviations (1 in 1.7 million each) and one text, for some thousand concepts.
    between = 0
    for drawn in by_concept.values():
        expected, variance = sum(p for p, _ in drawn), sum(p * (1 - p) for p, _ in drawn)
        between += variance > 0
        assert abs(sum(kept for _, kept in drawn) - expected) <= 5 * sqrt(variance) + 1
    assert between > 100
    # A text with one concept is kept with the probability of that concept.
    counts = read_counts(tmp_path / "curated" / "counts.npz")
    limits = {row["lang"]: row["t"] for row in read_table(tmp_path / "curated" / "thresholds.parquet").to_pylist()}
    for (lang, entry), kept in alone.items():
        p = entry_probability(limits[lang], counts[lang])[entry]
        assert abs(sum(kept) - p * len(kept)) <= 5 * sqrt(len(kept) * p * (1 - p)) + 1
    assert len(alone) > 50


@pytest.mark.packages
@pytest.mark.parametrize("share", [0.06, 0.2, 0.5])
def test_the_tails_share_is_within_one_entry_of_p(world: World, tmp_path: Path, share: float) -> None:
    run(world, tmp_path, CurationConfig(tail_share=share))
    counts = read_counts(tmp_path / "curated" / "counts.npz")
    table = {row["lang"]: row for row in read_table(tmp_path / "curated" / "thresholds.parquet").to_pylist()}
    p = table["en"]["p"]
    assert table.keys() == world.lists.keys()
    for name, row in table.items():
        ordered = np.sort(counts[name])
        cumulated = np.cumsum(ordered) / ordered.sum()
        # Entries counted exactly t times are as much tail as head: the tail may end before, after or among them.
        tied = np.flatnonzero(ordered == row["t"])
        one_entry = ordered[min(tied[-1] + 1, len(ordered) - 1)] / ordered.sum()
        assert cumulated[tied[0]] - row["t"] / ordered.sum() == pytest.approx(row["p"])
        assert row["p"] - one_entry <= p <= cumulated[tied[-1]] + one_entry


@pytest.mark.packages
def test_the_references_answer_and_the_same_bytes_under_any_hash_seed(world: World, tmp_path: Path) -> None:
    rows = random.Random(2).sample(world.rows, len(world.rows))
    expected = plainly(world, plain.CONFIG)
    for hash_seed in ("1", "2"):
        plain.driven(replace(world, rows=rows), tmp_path / hash_seed, hash_seed)
    for shards in map(str, plain.SHARDS):
        assert_same(curated(tmp_path / "1" / shards), expected.rows)
        assert contents(tmp_path / "1" / shards) == contents(tmp_path / "2" / shards)


@pytest.mark.packages
def test_a_second_call_redoes_nothing_and_another_seed_draws_anew(world: World, tmp_path: Path) -> None:
    config = CurationConfig(t_en=6)
    small = replace(world, rows=world.rows[:40])
    run(small, tmp_path, config, shards=2)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "curated").rglob("*.npy")}
    before |= {path: path.stat().st_mtime_ns for path in (tmp_path / "curated").glob("*-of-*")}
    run(small, tmp_path, config, shards=2)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    pairs = sorted(tmp_path.glob("pairs-*.parquet"))
    curate(pairs, small.metadata, tmp_path / "other" / "curated", config, seed=SEED + 1, engine=LocalEngine(workers=0))
    one, other = curated(tmp_path), curated(tmp_path / "other")
    assert {name: [row[:4] for row in rows] for name, rows in one.items()} == {
        name: [row[:4] for row in rows] for name, rows in other.items()
    }
    assert one != other


def test_the_folder_can_be_emptied_and_used_for_other_metadata(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path, [("1", [("alt", "the quick brown fox jumps over the lazy dog")])], 1)
    engine = LocalEngine(workers=0)
    for word in ("dog", "fox"):
        metadata = Metadata(entries={"en": pa.chunked_array([["zebra", word]])}, hash=word)
        folder = tmp_path / "curated"
        curate(pairs, metadata, folder, CurationConfig(t_en=1), seed=0, engine=engine)
        assert read_counts(folder / "counts.npz")["en"].tolist() == [0, 1]
        (matches,) = folder.glob("matches-*.parquet")
        assert read_table(matches).column("texts").to_pylist()[0][0]["matches"] == [1]
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


def test_odd_rows_are_counted_not_fatal(tmp_path: Path) -> None:
    english = "the quick brown fox jumps over the lazy dog"
    good = {"kind": "alt", "text": english}
    rows = [
        {"id": "good", "texts": [good, good], "kept": 3, "lang": "xx", "tags": ["a"]},
        {"id": "null list", "texts": None},
        {"id": "empty list", "texts": []},
        {"id": "null text", "texts": [{"kind": "alt", "text": None}, good]},
        {"id": "null struct", "texts": [None, good]},
        {"id": "null kind", "texts": [{"kind": None, "text": english}]},
        {"id": "empty text", "texts": [{"kind": "alt", "text": ""}]},
    ]
    fields = [*PAIRS, ("kept", pa.int64()), ("lang", pa.string()), ("tags", pa.list_(pa.string()))]
    write_table(tmp_path / "pairs.parquet", pa.Table.from_pylist(rows, pa.schema(fields)))
    metadata = Metadata(entries={"en": pa.chunked_array([["dog", "fox"]])}, hash="0")
    folder = tmp_path / "curated"
    config = CurationConfig(t_en=1)
    summary = curate([tmp_path / "pairs.parquet"], metadata, folder, config, seed=0, engine=LocalEngine(workers=0))
    assert (summary["images"], summary["texts"], summary["matched_texts"]) == (7, 8, 5)
    assert summary["dropped"] == {
        "texts without a matched entry": 1,
        "texts that are null": 2,
        "images without such a text": 3,
    }
    (path,) = folder.glob("curated-*.parquet")
    table = read_table(path)
    assert table.column("id").to_pylist() == ["good", "good", "null text", "null struct", "null kind"]
    columns = ["id", "kind", "text", "lang", "keep_probability", "draw_probability", "kept"]
    assert table.schema.names == columns
    assert table.column("lang").to_pylist() == ["en"] * 5
    (path,) = folder.glob("matches-*.parquet")
    assert read_table(path).schema.field("texts").type == MATCHES.field("texts").type
    assert set(CURATED.names) <= set(table.schema.names)


@pytest.mark.parametrize("kind", ["img2dataset", "large types", "dictionary"])
def test_tables_in_the_wild(tmp_path: Path, kind: str) -> None:
    texts = ["the quick brown fox jumps over the lazy dog", None, "nothing to be found in here"]
    columns = {
        "img2dataset": lambda: {"id": ["a", "b", "c"], "caption": texts, "width": [1, 2, 3]},
        "large types": lambda: {
            "id": pa.array(["a", "b", "c"], pa.large_string()),
            "text": pa.array(texts, pa.large_string()),
        },
        "dictionary": lambda: {"id": ["a", "b", "c"], "alt": pa.array(texts).dictionary_encode()},
    }[kind]()
    write_table(tmp_path / "table.parquet", pa.table(columns))
    metadata = Metadata(entries={"en": pa.chunked_array([["dog", "fox"]])}, hash="0")
    folder = tmp_path / "curated"
    config = CurationConfig(t_en=1)
    summary = curate([tmp_path / "table.parquet"], metadata, folder, config, seed=0, engine=LocalEngine(workers=0))
    assert (summary["images"], summary["texts"], summary["matched_texts"]) == (3, 2, 1)
    (path,) = folder.glob("curated-*.parquet")
    row = read_table(path).to_pylist()[0]
    assert (row["id"], row["text"], row["keep_probability"]) == ("a", texts[0], 1.0)
    assert row.get("width") == (1 if kind == "img2dataset" else None)


def test_a_bad_shard_is_named_and_the_others_are_done(tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path, [(str(n), [("alt", "a lazy dog is sleeping in here")]) for n in range(3)], 3)
    pairs[1].write_bytes(b"PAR1 no table")
    metadata = Metadata(entries={"en": pa.chunked_array([["dog"]])}, hash="0")
    config = CurationConfig(t_en=1)
    with pytest.raises(ShardsFailed, match=r"pairs-1\.parquet: cannot be read as Parquet"):
        curate(pairs, metadata, tmp_path / "curated", config, seed=0, engine=LocalEngine(workers=0))
    assert len(list((tmp_path / "curated").glob("matches-*"))) == 2


def test_what_cannot_be_curated(tmp_path: Path) -> None:
    english = Metadata(entries={"en": pa.chunked_array([["dog"]])}, hash="0")
    german = Metadata(entries={"de": pa.chunked_array([["Hund"]])}, hash="0")
    engine = LocalEngine(workers=0)
    with pytest.raises(MissingData, match="no pairs"):
        curate([], english, tmp_path / "curated", CurationConfig(), seed=0, engine=engine)
    pairs = write_pairs(tmp_path, [("1", [("alt", "a dog")])], 1)
    with pytest.raises(ConfigError, match=r"no list 'en'"):
        curate(pairs, german, tmp_path / "curated", CurationConfig(), seed=0, engine=engine)
    with pytest.raises(ConfigError, match=r"give curation\.t_en"):
        curate(pairs, english, tmp_path / "curated", CurationConfig(metadata="merged"), seed=0, engine=engine)


def test_merged_lists_keep_each_entry_once(tmp_path: Path) -> None:
    entries = {"de": pa.chunked_array([["mit", "Hund"]]), "en": pa.chunked_array([["dog"], ["mit"]])}
    lists = entry_lists(Metadata(entries=entries, hash="0"), CurationConfig(metadata="merged"))
    assert {name: each.to_pylist() for name, each in lists.items()} == {MERGED: ["mit", "Hund", "dog"]}
    assert list(entry_lists(Metadata(entries=entries, hash="0"), CurationConfig(metadata="english"))) == [ENGLISH]
    assert set(entry_lists(Metadata(entries=entries, hash="0"), CurationConfig())) == {"de", "en"}


def test_each_kind_gets_one_turn_shared_by_its_texts() -> None:
    image = np.array([0, 0, 0, 1, 2, 2])
    kind = np.array([0, 1, 1, 1, 0, 1])
    assert draw_probability(image, kind).tolist() == [0.5, 0.25, 0.25, 1.0, 0.5, 0.5]
    assert draw_probability(image, None).tolist() == [1 / 3] * 3 + [1.0, 0.5, 0.5]


def test_draws_follow_their_probability() -> None:
    images = 20_000
    turns = np.tile([0.5, 0.25, 0.25], images)
    candidates = Candidates(
        keys=id_keys(map(str, range(images))),
        offsets=np.arange(0, 3 * images + 1, 3),
        keep_probability=np.tile([0.5, 1.0, 1.0], images),
        draw_probability=turns,
    )
    texts, kept = candidates.draw(np.arange(images), 0, 0)
    share = np.bincount(texts % 3, minlength=3) / images
    assert np.allclose(share, [0.5, 0.25, 0.25], atol=0.015)
    first = np.bincount(texts[kept] % 3, minlength=3) / kept.sum()
    more = np.bincount(candidates.draw_more(np.arange(images), 0, 0, 1) % 3, minlength=3) / images
    assert np.allclose(first, 1 / 3, atol=0.015)  # drawn x kept: 0.25 each
    assert np.allclose(more, 1 / 3, atol=0.015)
