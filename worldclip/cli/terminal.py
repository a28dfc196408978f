"""What every command says and how: progress bars or plain lines, tables or JSON, errors without tracebacks."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec

import click
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from worldclip.errors import WorldclipError

P = ParamSpec("P")

#: Lines a piece of work gets where there is no terminal to draw a bar on.
PLAIN_STEPS = 10

#: Seconds after which there is a line in any case.
PLAIN_SECONDS = 60.0


#: Such amounts, as of bytes, are told in thousands, millions or billions.
MANY = 10_000_000


class TerminalReporter:
    """Progress bars on a terminal, plain lines elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._bars = Progress(
            TextColumn("{task.description:<9}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[part]}"),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=self.console,
        )
        self._ids: dict[str, TaskID] = {}
        self._told: dict[str, tuple[int, float]] = {}
        self._first: dict[str, tuple[int, float]] = {}
        self._began = time.monotonic()

    def __enter__(self) -> TerminalReporter:
        if self.console.is_terminal:
            self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.console.is_terminal:
            self._bars.stop()

    def line(self, text: str) -> None:
        """Say something once, with the seconds since the command began."""
        self.console.print(
            f"[dim]{time.monotonic() - self._began:6.1f} s[/dim]  {escaped(text)}",
            highlight=False,
            soft_wrap=not self.console.is_terminal,
        )

    def progress(self, what: str, done: int, total: int, note: str = "") -> None:
        """So much of a piece of work is done."""
        note = f"{note} {self._pace(what, done, total)}".strip()
        amount = f"{done:,} of {total:,}" if total < MANY else f"{_short(done)} of {_short(total)}"
        if self.console.is_terminal:
            if what not in self._ids:
                self._ids[what] = self._bars.add_task(what, total=total, part=amount, note=note)
            self._bars.update(self._ids[what], completed=done, total=total, part=amount, note=note)
            if done >= total:  # A finished bar gives its room to the next and leaves a line.
                self._bars.remove_task(self._ids.pop(what))
                self.line(f"{what}: {amount} {note}".rstrip())
            return
        part, now = done * PLAIN_STEPS // max(total, 1), time.monotonic()
        told, when = self._told.get(what, (-1, now))
        if part != told or now - when > PLAIN_SECONDS:
            self._told[what] = part, now
            self.line(f"{what}: {amount} {note}".rstrip())

    def _pace(self, what: str, done: int, total: int) -> str:
        """How fast this goes, and where there is no bar how long it will still take."""
        now = time.monotonic()
        if what not in self._first or done < self._first[what][0]:  # A new piece of work of the same name.
            self._first[what] = done, now
        first, began = self._first[what]
        if done == first:
            return ""
        rate = (done - first) / max(now - began, 1e-3)
        left = timedelta(seconds=round((total - done) / rate))
        pace = f"{_short(rate)}/s"
        return f"({pace})" if done >= total or self.console.is_terminal else f"({pace}, {left} left)"


def _short(number: float) -> str:
    """Four figures at most, and a letter for thousands, millions, billions: 12.35M."""
    power = min(int(math.log10(max(number, 1))) // 3, 4)
    return f"{number / 1000**power:.4g}{' kMGT'[power]}".rstrip()


def told(function: Callable[P, None]) -> Callable[P, None]:
    """Turn worldclip's errors into a message and an exit code, never a traceback."""

    @wraps(function)
    def told(*arguments: P.args, **options: P.kwargs) -> None:
        try:
            function(*arguments, **options)
        except WorldclipError as error:
            Console(stderr=True).print(
                f"[bold red]error:[/bold red] {escaped(str(error))}", highlight=False, soft_wrap=True
            )
            sys.exit(error.exit_code)
        except BrokenPipeError:
            raise  # Who reads our output has read enough: click ends quietly.
        except OSError as error:
            Console(stderr=True).print(
                f"[bold red]error:[/bold red] {escaped(str(error))}", highlight=False, soft_wrap=True
            )
            sys.exit(WorldclipError.exit_code)
        except KeyboardInterrupt:
            Console(stderr=True).print("stopped; the same command goes on where this one was")
            sys.exit(130)

    return told


def escaped(text: str) -> str:
    """Text as it is: rich would read what stands in brackets as a style."""
    return text.replace("[", r"\[")


def show(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print rows as a table, whose words are never cut short, or as JSON for a machine."""
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
        return
    console, table = Console(), Table(header_style="bold", box=None)
    cells = [
        [
            f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
            for value in row.values()
        ]
        for row in rows
    ]
    needed = 0
    for at, (name, value) in enumerate(rows[0].items() if rows else ()):
        texts = [name.replace("_", "\n"), *(row[at] for row in cells)]
        table.add_column(
            texts[0],
            justify="right" if isinstance(value, int | float) else "left",
            no_wrap=not any(" " in text for text in texts),
        )
        needed += 2 + max(map(cell_len, " ".join(texts).split()), default=0)
    for row in cells:
        table.add_row(*row)
    console.width = max(console.width, needed)
    console.print(table)


def show_summary(summary: dict[str, Any], as_json: bool) -> None:
    """Print a summary's figures, reasons below them, or all of it as JSON."""
    if as_json:
        click.echo(json.dumps(summary, ensure_ascii=False))
        return
    figures = {name: value for name, value in summary.items() if isinstance(value, int | float)}
    reasons = {
        reason: count for value in summary.values() if isinstance(value, dict) for reason, count in value.items()
    }
    show([{"figure": name, "value": value} for name, value in (figures | reasons).items()], as_json=False)
