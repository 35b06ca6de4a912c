"""How records are shown: tables, JSON, JSON lines and CSV on standard output, progress on standard error.

Knows formats and terminals; must not know what a record means beyond the names of its fields.
"""

from __future__ import annotations

import csv
import json
import re
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TextIO

import click

from ..ir.errors import UsageError
from ..report import duration

FORMATS = ("table", "json", "jsonl", "csv")
FORMAT = click.option("--format", "form", type=click.Choice(FORMATS[:2]), default="table", show_default=True)
Row = dict[str, Any]
_NUMBER = re.compile(r"-?|[\d.,e+-]+( ?[a-zA-Z%]{1,2})?")


def say(message: str) -> None:
    """A line for people, on standard error."""
    print(message, file=sys.stderr, flush=True)


def clean(text: str) -> str:
    """Without characters that steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def words(params: Any) -> str:
    return " ".join(f"{name}={value}" for name, value in params.items())


def aligned(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in plain text; columns of numbers stand to the right."""
    table = [list(heads), *(list(map(clean, row)) for row in rows)]
    columns = list(zip(*table))
    widths = [max(map(len, column)) for column in columns]
    ends = [all(map(_NUMBER.fullmatch, column[1:])) for column in columns]
    lines = ([c.rjust(w) if end else c.ljust(w) for c, w, end in zip(row, widths, ends)] for row in table)
    return "".join("  ".join(line).rstrip() + "\n" for line in lines)


def sweep_table(rows: Sequence[Row]) -> str:
    peers = list(dict.fromkeys(name for row in rows for name in row.get("peers", {})))
    number = lambda value: "-" if value is None else f"{value:.3g}" if value < 1e3 else f"{value:.0f}"
    heads = ["case", "dtype", "status", "source", "winner", "time", "default", "GFLOP/s", "GB/s", "% roof", "trials"]
    table, notes = [], ""
    for r in rows:
        share = None if r["roofline_fraction"] is None else 100 * r["roofline_fraction"]
        line = [f"{r['op']} {words(r['params'])}", r["dtype"], r["status"], r["source"] or "-", r["winner"] or "-"]
        line += [duration(r["seconds"]), duration(r["default_seconds"])]
        line += [*map(number, (r["gflops"], r["gbytes_per_s"], share)), str(r["trials"])]
        for name in peers:
            peer = r["peers"].get(name)
            line += [duration(peer["seconds"]), f"{peer['ratio']:.2f}x"] if peer else ["-", "-"]
        table.append(line)
        notes += f"{line[0]}: {clean(r['message'].splitlines()[0])}\n" if r["message"] else ""
    return aligned([*heads, *(head for name in peers for head in (name, "ratio"))], table) + notes


class Writer:
    """Writes records in one format, each at once where the format allows it, the others at the end."""

    def __init__(self, form: str, fields: Sequence[str], path: Path | None) -> None:
        self.form, self.rows = form, list[Row]()
        try:
            self.file: TextIO = open(path, "w", encoding="utf-8") if path else sys.stdout  # noqa: SIM115
        except OSError as error:
            raise UsageError(f"-o {path}: {error.strerror}") from None
        self.csv = csv.DictWriter(self.file, fields, lineterminator="\n")

    def __enter__(self) -> Writer:
        if self.form == "csv":
            self.csv.writeheader()
        return self

    def write(self, row: Row) -> None:
        self.rows.append(row)
        if self.form == "jsonl":
            self.file.write(json.dumps(row) + "\n")
        elif self.form == "csv":
            flat = {"params": words(row["params"]), "peers": json.dumps(row.get("peers"))}
            self.csv.writerow({name: flat.get(name, value) for name, value in row.items()})
        self.file.flush()

    def __exit__(self, *error: object) -> None:
        if self.form == "json":
            self.file.write(json.dumps(self.rows, indent=1) + "\n")
        elif self.form == "table" and self.rows:
            self.file.write(sweep_table(self.rows))
        self.file.flush()
        if self.file is not sys.stdout:
            self.file.close()


class Progress:
    """What is being done: on a terminal a bar with the best so far and the time left, else a line a finished case."""

    def __init__(self, cases: int, quiet: bool, color: bool) -> None:
        self.cases, self.quiet, self.done = cases, quiet, 0
        self.bar: Any = None
        if sys.stderr.isatty() and not quiet:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
            console = Console(stderr=True, no_color=not color)
            self.bar = Bar(*columns, console=console, transient=True, redirect_stdout=False)
            self.task = self.bar.add_task("", total=cases)

            self.bar.start()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()

    def start(self, title: str, budget: float) -> None:
        self.title, self.begun, self.budget = clean(title), time.monotonic(), budget
        self._show(0, self.title)

    def trial(self, trials: int, best: float) -> None:
        """Candidates of the present case have been measured."""
        part = (time.monotonic() - self.begun) / self.budget
        self._show(part, f"{self.title}: best so far {duration(best)} of {trials} trials")

    def _show(self, part: float, text: str) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done + min(part, 0.99), description=text, refresh=True)

    def finish(self, row: Row) -> None:
        self.done += 1
        self._show(0, self.title)
        if self.bar is None and not self.quiet:
            failed = clean(f"{row['status']} {row['message']}".splitlines()[0])
            found = failed if row["status"] != "ok" else f"{duration(row['seconds'])}, {row['trials']} trials"
            say(f"[{self.done}/{self.cases}] {self.title}: {found}")
