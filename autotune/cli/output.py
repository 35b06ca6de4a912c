"""How records are shown: tables, JSON, JSON lines and CSV on standard output, progress on standard error.

Knows formats and terminals; must not know what a record means beyond the names of its fields.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from ..ir.errors import UsageError
from ..report import duration

FORMATS = ("table", "json", "jsonl", "csv")
Row = dict[str, Any]
_NUMBER = re.compile(r"-?|[\d.,e+-]+( ?[a-zA-Z%]{1,2})?")


def say(message: str) -> None:
    """A line for people, on standard error."""
    print(message, file=sys.stderr, flush=True)


def aligned(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in plain text; columns of numbers stand to the right."""
    table = [list(heads), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table)]
    left = [not all(_NUMBER.fullmatch(c) for c in column[1:]) for column in zip(*table)]
    put = lambda cell, width, first: cell.ljust(width) if first else cell.rjust(width)
    return "".join("  ".join(map(put, row, widths, left)).rstrip() + "\n" for row in table)


def clean(text: str) -> str:
    """One line without characters that steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def words(params: Any) -> str:
    return " ".join(f"{k}={v}" for k, v in params.items()) if isinstance(params, dict) else str(params)


def number(value: Any) -> str:
    return "-" if value is None else f"{value:.3g}" if value < 1e3 else f"{value:.0f}"


class Writer:
    """Writes records in one format, each at once where the format allows it, the others at the end."""

    def __init__(self, form: str, fields: Sequence[str], table: Callable[[list[Row]], str], path: Path | None) -> None:
        self.form, self.fields, self.table = form, fields, table
        self.rows: list[Row] = []
        try:
            self.file: TextIO = open(path, "w", encoding="utf-8") if path else sys.stdout  # noqa: SIM115
        except OSError as error:
            raise UsageError(f"-o {path}: {error.strerror}") from None

    def __enter__(self) -> Writer:
        if self.form == "csv":
            self._emit(_csv([self.fields]))
        return self

    def write(self, row: Row) -> None:
        self.rows.append(row)
        if self.form == "jsonl":
            self._emit(json.dumps(row) + "\n")
        elif self.form == "csv":
            self._emit(_csv([[_cell(row.get(name)) for name in self.fields]]))

    def _emit(self, text: str) -> None:
        self.file.write(text)
        self.file.flush()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if self.form == "json":
                self._emit(json.dumps(self.rows, indent=1) + "\n")
            elif self.form == "table" and self.rows:
                self._emit(self.table(self.rows))
        finally:
            if self.file is not sys.stdout:
                self.file.close()


def _cell(value: Any) -> Any:
    return words(value) if isinstance(value, dict) else "" if value is None else value


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def sweep_table(rows: list[Row]) -> str:
    peers = list(dict.fromkeys(name for row in rows for name in row.get("peers", {})))
    heads = ["case", "dtype", "status", "source", "winner", "time", "default", "GFLOP/s", "GB/s", "% roof", "trials"]
    lines = []
    for r in rows:
        share = None if r["roofline_fraction"] is None else 100 * r["roofline_fraction"]
        line = [f"{r['op']} {words(r['params'])}", r["dtype"], r["status"], r["source"] or "-", r["winner"] or "-",
                duration(r["seconds"]), duration(r["default_seconds"]), *map(number, (r["gflops"], r["gbytes_per_s"], share)),
                str(r["trials"])]  # fmt: skip
        for name in peers:
            peer = r.get("peers", {}).get(name)
            line += [duration(peer["seconds"]), f"{peer['ratio']:.2f}x"] if peer else ["-", "-"]
        lines.append(line)
    for name in peers:
        heads += [name, "ratio"]
    notes = [f"{r['op']} {words(r['params'])}: {clean(r['message'].splitlines()[0])}\n" for r in rows if r["message"]]
    return aligned(heads, lines) + "".join(notes)


class Progress:
    """What a sweep is doing: on a terminal a bar with the best so far and the time left, else a line a finished case."""

    def __init__(self, cases: int, quiet: bool = False, color: bool = True) -> None:
        self.cases, self.done, self.quiet, self.best = cases, 0, quiet, float("inf")
        self.bar: Any = None
        if sys.stderr.isatty() and not quiet:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            console = Console(file=sys.stderr, no_color=not color)
            columns = (BarColumn(24), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
            self.bar = Bar(*columns, console=console, transient=True)
            self.task = self.bar.add_task("", total=cases)

    def __enter__(self) -> Progress:
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def start(self, title: str, budget: float) -> None:
        self.title, self.best, self.begun, self.budget = clean(title), float("inf"), time.monotonic(), budget
        self._show(0)

    def trial(self, trials: int, best: float) -> None:
        """One batch of candidates of the present case has been measured."""
        self.best = best
        self._show(trials)

    def _show(self, trials: int) -> None:
        if self.bar is None:
            return
        part = min((time.monotonic() - self.begun) / self.budget, 0.99)
        best = f", best so far {duration(self.best)} of {trials} trials" if trials else ""
        self.bar.update(self.task, completed=self.done + part, description=f"{self.title}{best}")

    def finish(self, row: Row) -> None:
        self.done += 1
        if self.bar is not None:
            self.bar.update(self.task, completed=self.done)
        elif not self.quiet:
            failed = clean(f"{row['status']} {row['message']}".splitlines()[0])
            found = failed if row["status"] != "ok" else f"{duration(row['seconds'])}, {row['trials']} trials"
            say(f"[{self.done}/{self.cases}] {self.title}: {found}")


def save(path: Path, text: str) -> None:
    """Write a whole file, or nothing of it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, "utf-8")
    draft.replace(path)
