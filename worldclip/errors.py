"""Every error that worldclip raises on purpose, in one tree.

    WorldclipError                exit code 1: the run failed
    ├── InputError                exit code 2: something the user gave is wrong
    │   ├── ConfigError           a recipe field, an option or a value of one
    │   ├── DataError             a file, row or column that does not hold what it should
    │   └── MissingData           a file, package or cache that is not there
    ├── StorageError              a disk or object store refused to read or write
    └── ShardsFailed              an engine gave up on some shards; the others are done

A message says what is wrong, where, what was found, what is allowed and what to do. Code that can set a bad row
aside does so and counts it; it raises only when nothing sensible can follow.
"""

from __future__ import annotations

from collections.abc import Mapping


class WorldclipError(Exception):
    """Base of all errors raised on purpose. `exit_code` is what the command line ends with."""

    exit_code = 1


class InputError(WorldclipError):
    """Something the user gave is wrong."""

    exit_code = 2


class ConfigError(InputError):
    """A recipe field, an option, or a value of one."""


class DataError(InputError):
    """A file, row or column does not hold what it should."""


class MissingData(InputError):
    """A file, package or cache is not there."""


class StorageError(WorldclipError):
    """A disk or object store refused to read or write."""


class ShardsFailed(WorldclipError):
    """Some shards failed every try. `failures` maps a shard's name to its last error."""

    def __init__(self, failures: Mapping[str, str]) -> None:
        self.failures = dict(failures)
        shown = "\n".join(f"  {name}: {error}" for name, error in sorted(self.failures.items())[:20])
        more = f"\n  ... and {len(self.failures) - 20} more" if len(self.failures) > 20 else ""
        super().__init__(
            f"{len(self.failures)} shard(s) failed every try; all other shards are done and kept:\n{shown}{more}\n"
            "Mend or remove what they name and run the same command again: only these shards are redone."
        )
