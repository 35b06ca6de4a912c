"""What a process has launched, as a drawing that is written again when something new is launched, and at its end.

Knows prepared programs and the order in which they were first launched. A program's kernels are joined by the arrays
that pass between them; what passes between two programs is not known here.
"""

from __future__ import annotations

import atexit
import functools
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..devices.records import median
from ..report import counted, duration
from .graph import Edge, Node, draw

if TYPE_CHECKING:
    from ..session import Prepared

KEPT = 101  # launches of a program whose times are looked at
LINES = 6  # of operations in one box


def boxes(
    prepared: Prepared, names: Sequence[str], seconds: Sequence[float | None], prefix: str = "",
    first: int | None = None,
) -> list[Node]:  # fmt: skip
    """The kernels of a program with what each computes and how long it takes; a kernel's key is prefix and number.
    `first`: the number in the report of the first one, if there is one."""
    found = []
    for n, (k, name, spent) in enumerate(zip(prepared.kernels, names, seconds)):
        rates = f", {k.program.flops / spent / 1e9:.1f} GFLOP/s" if spent and k.program.flops else ""
        tail = [f"{duration(spent)}{rates}"] if spent else []
        rows = (name, *_rows(prepared.operations(n)), *tail)
        found.append(Node(f"{prefix}{n}", rows, spent or 0.0, None if first is None else first + n))
    return found


def _rows(operations: Sequence[str]) -> list[str]:
    """The operations in a few lines of about equal length."""
    names = counted(operations).split(", ") if operations else []
    rows: list[str] = []
    for name in names:
        if rows and len(rows[-1]) + len(name) < 34:
            rows[-1] += f", {name}"
        else:
            rows.append(name)
    return rows if len(rows) <= LINES else [*rows[: LINES - 1], f"and {len(rows) - LINES + 1} lines more"]


def numbered(prepared: Prepared) -> list[str]:
    """The program's title, with a number where it is several kernels."""
    title, count = prepared.said.title, len(prepared.kernels)
    return [f"{title} {n}" for n in range(count)] if count > 1 else [title]


def joints(prepared: Prepared, prefix: str = "") -> list[Edge]:
    """What kernels of a program pass to each other."""
    made = {name: n for n, k in enumerate(prepared.kernels) for name in k.original.outputs}
    found = []
    for n, k in enumerate(prepared.kernels):
        for b in k.original.inputs:
            if b.name in made:
                shape = "x".join(map(str, b.shape))
                found.append(Edge(f"{prefix}{made[b.name]}", f"{prefix}{n}", f"{b.dtype} {shape}"))
    return found


@dataclass
class _Seen:
    prepared: Prepared
    count: int
    seconds: list[list[float]]


class Launches:
    """The programs that were launched, in the order of their first launch."""

    def __init__(self, path: Path) -> None:
        self.path, self._seen, self._process = path, dict[int, _Seen](), os.getpid()
        self._working = True

    def add(self, prepared: Prepared, seconds: Sequence[float]) -> None:
        """A program was launched, and its kernels took so long."""
        seen = self._seen.setdefault(id(prepared), _Seen(prepared, 0, []))
        seen.count += 1
        if seen.seconds and len(seen.seconds[-1]) != len(seconds):
            seen.seconds.clear()  # it is cut into other kernels since it was tuned
        seen.seconds = [*seen.seconds[-KEPT + 1 :], [*seconds]]
        if seen.count == 1:
            self.write()

    def svg(self) -> str:
        nodes, edges = list[Node](), list[Edge]()
        for n, seen in enumerate(self._seen.values()):
            spent = [median(row) for row in zip(*seen.seconds)]
            times = f"launched {seen.count} time{'s' * (seen.count != 1)}"
            made = boxes(seen.prepared, numbered(seen.prepared), spent, f"{n}.")
            nodes += [replace(node, lines=(*node.lines, times)) for node in made]
            edges += joints(seen.prepared, f"{n}.")
        return draw(nodes, edges, f"launched by process {self._process}")

    def write(self) -> None:
        """Write the file; where that cannot be, say so once, and let the kernels run on."""
        if not self._working or os.getpid() != self._process:  # a forked child has launches of its own
            return
        try:
            self.path.write_text(self.svg(), "utf-8")
        except OSError as error:
            self._working = False
            problem = f"AUTOTUNE_GRAPH={self.path} cannot be written: {error.strerror}"
            warnings.warn(f"{problem}; name a file in a folder of yours", RuntimeWarning, stacklevel=2)


@functools.cache
def launches(path: str) -> Launches:
    """Those that are drawn in this file."""
    made = Launches(Path(path))
    atexit.register(made.write)
    return made
