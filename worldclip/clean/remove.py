"""Remove what must go: opt-outs, unsafe images, copies, evaluation images; and bring it back by reason.

    <out>/removals.parquet     id, reason and detail of everything that is removed
    <out>/pairs/               what is left of each file of pairs
    <out>/summary.json         pairs before and left, images removed by reason
    <out>/steps/               what each step found; the same command after kill -9 goes on from there

The driver holds eight bytes a row (of pairs, and of images), and the ids of what is removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from worldclip.clean.copies import evaluation_images, keys_of, near_images, same_values, write_keys
from worldclip.clean.look import ask, told_of
from worldclip.clean.removed import RemovedIds
from worldclip.clean.steps import Report, Steps
from worldclip.engines import Engine
from worldclip.errors import ConfigError, DataError, MissingData
from worldclip.hygiene.optout import SIGNALS, OptOut, signalled
from worldclip.hygiene.removals import counts, gathered, leaving_out, removals
from worldclip.storage import file_digest, read_json, read_table, replacing, write_json, write_table


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What to remove. `unsafe` maps a classifier's label to the score from which on an image goes; radii are in bits.

    A false alarm needs one near image among all that are compared: what a pool of a billion allows (0, the paper's
    look-up) is less than what a thousand evaluation images allow. `signals` honours what pages said of their images
    (`noai`, `noimageai`, `tdm_reserved`).
    """

    opt_out: Path | None = None
    signals: bool = True
    radius: int = 0
    evaluation_radius: int = 3
    unsafe: tuple[tuple[str, float], ...] = ()


def remove(
    pairs: Sequence[Path],
    out: Path,
    rules: Rules,
    *,
    looks: Sequence[Path] = (),
    evaluation: Sequence[Path] = (),
    engine: Engine,
    report: Report | None = None,
) -> dict[str, Any]:
    """Find what must go, write it down, write the pairs without it, and return the summary.

    Args:
        pairs: Parquet files of pairs; they stay as they are.
        looks: what `look` wrote of their images; without it there is no removal by content, copies or scores.
        evaluation: what `look` wrote of the evaluation images, with the same model and seed.

    Raises:
        MissingData: there are no pairs.
        ConfigError: evaluation images without looks, an unsafe label that no image was scored for.
        DataError: looks and evaluation do not go together, or have no codes; a table has no ids.
        InputError: `out` holds another answer.
        ShardsFailed: some shards failed every try.
    """
    if not pairs:
        raise MissingData(f"There are no pairs to clean for {out}.")
    _check(pairs, looks, evaluation, rules)
    asked = [file_digest(path) for path in (*pairs, *looks, *evaluation)]
    listed = file_digest(rules.opt_out) if rules.opt_out else ""
    ask(out, [*asked, listed, str((rules.signals, rules.radius, rules.evaluation_radius, rules.unsafe))])
    steps = Steps(folder=out / "steps", engine=engine, report=report)
    told = steps.run("pairs", _told_by_pairs, pairs, rules)
    parts = [read_table(path) for path in told]
    urls = [(path, keys_of(output)) for path, output in zip(pairs, told, strict=True) if "url" in _names(path)]
    parts.append(same_values(steps, "url", "same URL", [path for path, _ in urls], [keys for _, keys in urls]))
    if looks:
        told = steps.run("looks", _told_by_looks, looks, rules)
        parts += [read_table(path) for path in told]
        parts.append(same_values(steps, "sha256", "same bytes", looks, list(map(keys_of, told))))
        if told_of(looks[0])["codes"]:
            parts.append(near_images(steps, looks, rules.radius))
        if evaluation:
            parts += evaluation_images(steps, looks, evaluation, rules.evaluation_radius)
    removed = gathered(parts)
    write_table(out / "removals.parquet", removed)
    write_json(out / "pairs.json", [str(path.resolve()) for path in pairs])
    return _apply(out, removed, engine, report)


def restore(out: Path, reasons: Sequence[str], *, engine: Engine, report: Report | None = None) -> dict[str, Any]:
    """Write the pairs of a folder that `remove` wrote again, with what some reasons alone had removed.

    `removals.parquet` stays whole; called without reasons, all of it is removed again.

    Raises:
        ConfigError: nothing was removed for such a reason; names those that there are.
        MissingData: the folder, or the pairs it was made of, are not there.
    """
    removed = read_table(out / "removals.parquet")
    known = counts(removed)
    if unknown := sorted(set(reasons) - set(known)):
        raise ConfigError(f"{out}: nothing was removed for {unknown[0]!r}; reasons are {', '.join(known) or 'none'}.")
    return _apply(out, leaving_out(removed, reasons), engine, report)


def _apply(out: Path, removed: pa.Table, engine: Engine, report: Report | None) -> dict[str, Any]:
    pairs = [Path(path) for path in read_json(out / "pairs.json")]
    if missing := [path for path in pairs if not path.is_file()]:
        raise MissingData(f"{missing[0]}: the pairs that {out} was made of are gone.")
    (out / "summary.json").unlink(missing_ok=True)
    outputs = [out / "pairs" / f"pairs-{number:05d}-of-{len(pairs):05d}.parquet" for number in range(len(pairs))]
    for path in outputs:
        path.unlink(missing_ok=True)
    RemovedIds.write(removed, out / "steps")
    steps = Steps(folder=out, engine=engine, report=report)
    steps.into("write", _write_left, pairs, outputs, out / "steps")
    before = sum(pq.read_metadata(path).num_rows for path in pairs)
    left = sum(pq.read_metadata(path).num_rows for path in outputs)
    summary = {"pairs": before, "left": left, "removed": before - left, "reasons": counts(removed)}
    write_json(out / "summary.json", summary)
    return summary


def _write_left(pairs: Path, removed: Path, out: Path) -> None:
    gone = RemovedIds.open(removed)
    with (
        pq.ParquetFile(pairs) as table,
        replacing(out) as temporary,
        pq.ParquetWriter(temporary, table.schema_arrow, compression="zstd") as file,
    ):
        for batch in table.iter_batches(batch_size=65536):
            file.write_table(gone.without(pa.Table.from_batches([batch])))


def _told_by_pairs(pairs: Path, rules: Rules, out: Path) -> None:
    names = pq.read_schema(pairs).names
    table = read_table(pairs, [name for name in ("id", "url", "sha256", *SIGNALS) if name in names])
    if nulls := table.column("id").null_count:
        raise DataError(f"{pairs}: column 'id' must name each image; found {nulls} nulls among {len(table)} rows.")
    parts = [signalled(table)] if rules.signals else []
    if rules.opt_out:
        parts.append(OptOut.read(rules.opt_out).found_in(table))
    write_keys(table, "url", out)
    write_table(out, gathered(parts))


def _told_by_looks(looks: Path, rules: Rules, out: Path) -> None:
    table = read_table(looks, ["id", "sha256", "scores"])
    parts = [OptOut.read(rules.opt_out).found_in(table)] if rules.opt_out else []
    limits = dict(rules.unsafe)
    parts.append(
        removals(
            (image, f"unsafe ({each['label']})", f"{each['score']:.3f}")
            for image, scores in zip(table.column("id").to_pylist(), table.column("scores").to_pylist(), strict=True)
            for each in scores or ()
            if each["score"] >= limits.get(each["label"], float("inf"))
        )
    )
    write_keys(table, "sha256", out)
    write_table(out, gathered(parts))


def _check(pairs: Sequence[Path], looks: Sequence[Path], evaluation: Sequence[Path], rules: Rules) -> None:
    """Refuse what cannot be answered before anything is begun."""
    if rules.opt_out:
        OptOut.read(rules.opt_out)
    for path in pairs:
        names = _names(path)
        if "id" not in names:
            raise DataError(f"{path}: needs a column 'id'; found {', '.join(names) or 'no columns'}.")
    if (evaluation or rules.unsafe) and not looks:
        raise ConfigError("Evaluation images and unsafe labels ask for what images look like: give --looks of them.")
    made = {told_of(path)["codes"]: path for path in (*looks, *evaluation)}
    if len(made) > 1:
        one, other = list(made)[:2]
        raise DataError(
            f"{made[one]} and {made[other]}: their codes cannot be compared, as they were made with "
            f"{one or 'no model'} and {other or 'no model'}. Look at both with the same model and seed."
        )
    if evaluation and made.keys() == {""}:
        raise DataError(f"{evaluation[0]}: has no codes to compare. Look at the images with a model.")
    for label, _ in rules.unsafe:
        known = _labels(looks)
        if known and label not in known:
            raise ConfigError(f"unsafe: no image was scored for {label!r}; labels are {', '.join(known)}.")


def _names(path: Path) -> list[str]:
    try:
        return list(pq.read_schema(path).names)
    except FileNotFoundError:
        raise MissingData(f"{path}: not found. Give a Parquet file of pairs, or a folder of them.") from None
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error}).") from None


def _labels(looks: Sequence[Path]) -> list[str]:
    """The labels that the first image that was looked at was scored for; none where there is no image."""
    for path in looks:
        for row in read_table(path, ["scores"]).slice(0, 1).column("scores").to_pylist():
            return [each["label"] for each in row or ()] or ["none: look at them with a classifier"]
    return []
