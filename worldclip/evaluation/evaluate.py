"""Evaluate one model on the suites whose data is there: what is finished is not computed again.

OUT/model.json            which model, and how its pictures and texts were prepared
OUT/records/TASK.json     one record a task
OUT/finished/NAME.json    which benchmarks are done, with the tasks of each
OUT/features/             embeddings, shared by all benchmarks; may be deleted
OUT/report.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldclip.errors import ConfigError, DataError, InputError, MissingData
from worldclip.evaluation.averages import alarms
from worldclip.evaluation.benchmarks import BENCHMARKS, SUITES, Benchmark, Options, Record, run, summaries
from worldclip.evaluation.features import EncoderFeatures
from worldclip.evaluation.records import read_record, read_records, write_record
from worldclip.storage import digest, read_json, write_json

if TYPE_CHECKING:
    from worldclip.model.encoder import Encoder


@dataclass(kw_only=True)
class Evaluation:
    """What an evaluation found: records by task; why benchmarks were not run, by name.

    `missing`: their data is not there, with where users get it. `failed`: it is not what it should be.
    """

    records: dict[str, Record] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def choose(names: str, exclude: Sequence[str] = ()) -> list[Benchmark]:
    """The benchmarks of suites or single benchmarks, separated by commas, each once, less those to leave out.

    Args:
        exclude: names of benchmarks, as `excluded` gives them.

    Raises:
        ConfigError: there is none of that name, or none is left; tells all that there are.
    """
    chosen = _named("--suite", names)
    if not chosen:
        raise ConfigError(f"--suite {names!r}: names no suite. Suites: {', '.join(SUITES)}.")
    left = [BENCHMARKS[name] for name in chosen if name not in set(exclude)]
    if not left:
        raise ConfigError(f"--suite {names}: --exclude leaves nothing of it. Exclude less, or choose another suite.")
    return left


def excluded(names: Iterable[str]) -> list[str]:
    """The names of the benchmarks that `--exclude` names, each a benchmark or a suite, or several by commas.

    Raises:
        ConfigError: there is none of that name; tells all that there are.
    """
    return _named("--exclude", ",".join(names))


def _named(option: str, names: str) -> list[str]:
    found: dict[str, None] = {}
    for name in filter(None, (part.strip() for part in names.split(","))):
        if name not in SUITES and name not in BENCHMARKS:
            single = sorted(set(BENCHMARKS) - set(SUITES))
            raise ConfigError(
                f"{option} {name}: there is none. Suites: {', '.join(SUITES)}. Single benchmarks: {', '.join(single)}."
            )
        found |= dict.fromkeys(SUITES.get(name, (name,)))
    return list(found)


def check_folder(out: Path, encoder: Encoder, notes: Sequence[str] = ()) -> None:
    """Note which model a folder of results is of.

    Raises:
        ConfigError: it holds the results of another model, or of the same one prepared otherwise.
    """
    path = out / "model.json"
    if path.exists() and (of := read_json(path))["fingerprint"] != encoder.fingerprint:
        raise ConfigError(
            f"{out}: holds the results of {of['folder']} ({of['fingerprint'][:12]}, {of['settings']}), not of "
            f"{encoder.folder} ({encoder.fingerprint[:12]}) as it is prepared now. Choose another --out."
        )
    write_json(
        path,
        {
            "folder": str(encoder.folder),
            "fingerprint": encoder.fingerprint,
            "settings": encoder.towers.settings,
            "notes": list(notes),
        },
    )


def evaluate(
    benchmarks: Iterable[Benchmark],
    data: Path,
    out: Path,
    features: EncoderFeatures,
    options: Options,
    tell: Callable[[str], None],
    exclude: Sequence[str] = (),
) -> Evaluation:
    """Score a model on benchmarks whose data lies below `data`, one after another.

    Args:
        exclude: names of benchmarks to leave out of averages, though an earlier command may have scored them.

    Raises:
        MissingData: the data of none of them is there; tells where users get each.
    """
    found = Evaluation()
    writes = features.processes.rank == 0
    say = tell if writes else _silent
    todo = {each.name: _finished(each, out, features.encoder, options) for each in benchmarks}
    features.processes.barrier()  # All have looked before the first writes.
    for name, done in todo.items():
        if done:
            say(f"{name}: done before")
            found.records |= {record.task: record for record in done}
            continue
        try:
            records = _told(run(BENCHMARKS[name], data, features, options=options), features.encoder)
        except MissingData as error:
            found.missing[name] = str(error)
            continue
        except DataError as error:
            found.failed[name] = str(error)
            say(f"{name}: {error}")
            continue
        if writes:
            _write(name, records, out, features.encoder, options)
        for record in records:
            say(f"{record.task}: {record.metric} {record.value:.2f} ({record.n:,})")
        found.records |= {record.task: record for record in records}
    if found.missing and not found.records and not found.failed:
        raise MissingData("\n".join(found.missing.values()))
    found.records |= _averages(out, features, exclude)
    for alarm in alarms(found.records.values()):
        say(alarm)
    return found


def _averages(out: Path, features: EncoderFeatures, exclude: Sequence[str]) -> dict[str, Record]:
    """The suites' averages over all records of the folder, also those of earlier commands."""
    records = summaries(read_records(out / "records"), exclude) if (out / "records").is_dir() else []
    told = {record.task: record for record in _told(records, features.encoder)}
    if features.processes.rank == 0:
        for record in told.values():
            write_record(out / "records", record)
    return told


def _silent(text: str) -> None:
    """The first process speaks for all."""


def _key(benchmark: str, encoder: Encoder, options: Options) -> str:
    files = [path.read_bytes() for path in (options.classnames, options.templates) if path]
    return digest(benchmark, encoder.fingerprint, repr(options), *files)


def _finished(benchmark: Benchmark, out: Path, encoder: Encoder, options: Options) -> list[Record]:
    """The records of a benchmark that was scored with this model and these options; none where it was not."""
    marker = out / "finished" / f"{benchmark.name}.json"
    if not marker.exists() or (done := read_json(marker))["key"] != _key(benchmark.name, encoder, options):
        return []
    paths = [out / "records" / name for name in done["records"]]
    return [read_record(path) for path in paths] if all(path.is_file() for path in paths) else []


def _write(benchmark: str, records: Sequence[Record], out: Path, encoder: Encoder, options: Options) -> None:
    """The records first, then the marker that says that they are all there."""
    paths = [write_record(out / "records", record) for record in records]
    write_json(
        out / "finished" / f"{benchmark}.json",
        {"key": _key(benchmark, encoder, options), "records": [path.name for path in paths]},
    )


def _told(records: Sequence[Record], encoder: Encoder) -> list[Record]:
    """The records, with what was done to pictures and texts among their settings."""
    settings = {"model": encoder.fingerprint, **encoder.towers.settings}
    return [replace(record, settings={**record.settings, **settings}) for record in records]


def read_results(folder: Path) -> tuple[dict[str, Record], Mapping[str, Any]]:
    """The records by task that an evaluation left in `folder`, and what it says of the model.

    Raises:
        MissingData: no evaluation was written there.
    """
    records = {record.task: record for record in read_records(folder / "records")}
    if not records or not (folder / "model.json").is_file():
        raise MissingData(f"{folder}: no results there. Give what `worldclip evaluate --out` wrote.")
    return records, read_json(folder / "model.json")


def raise_failures(found: Evaluation) -> None:
    """End with an error where data was not what it should be; all other benchmarks are done.

    Raises:
        InputError: names them.
    """
    if found.failed:
        raise InputError(
            f"{len(found.failed)} benchmark(s) could not be scored, the others are done: {', '.join(found.failed)}. "
            "Mend their data and run the same command again."
        )
