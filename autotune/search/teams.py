"""The sketch of rows that the threads of a block compute together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from ..devices.spec import DeviceSpec
from ..ir.schedule import Schedule
from ..ir.steps import Bind, ComputeAt, RegisterTile, Reorder, Split, Step, Tile, TreeReduce
from .facts import Facts, Stage
from .parted import lent
from .sketch import Point, Priced, grid, select
from .traffic import IN_FLIGHT, arithmetic, asked, beginning, latency, memory, resident, together


@dataclass(frozen=True)
class TeamSketch:
    """A block a row, or `across` neighbouring ones where rows are what memory has side by side: its `threads` walk
    along each stage's inner axis, reductions meet in a tree. Both are holes."""

    facts: Facts
    rows: tuple[str, ...]
    spec: DeviceSpec
    name: str = "team"

    def inner(self, s: Stage) -> str | None:
        inside = [a for a in (*s.axes, *s.reduce_axes) if a not in self.rows]
        inside = [a for a in inside if a in s.reduce_axes] or inside if s.is_reduction else inside
        return max(inside, key=lambda a: (sum(x.contiguous(a) for x in s.reads), s.extents[a]), default=None)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Rows that a block may take: more than one where they are neighbours in memory."""
        row, last = self.rows[-1], self.facts.stages[-1]
        temps = self.facts.temps
        accesses = [(s, a) for s in self.facts.stages for a in (*s.reads, s.store) if a.buffer.name not in temps]
        along = sum(a.buffer.bytes for s, a in accesses if (v := self.inner(s)) and a.contiguous(v))
        near = sum(a.buffer.bytes for _, a in accesses if a.contiguous(row)) > along
        alone, n = len(self.facts.stages) == 1, last.extents[row]  # stages meet in whole blocks of rows only
        return tuple(w for w in (1, 8, 16, 32, 64) if w == 1 or near and (n % w == 0 or alone and n > w))

    def priced(self) -> Priced:
        columns = grid(threads=(2, 4, 8, 16, 32, 64, 128, 256, 512), across=self.widths)
        threads, across = columns.values()
        shared, block = across * sum(self._held(s, threads) for s in self.facts.stages), threads * across
        rules = {
            "threads": (block <= self.spec.threads_per_block) & (block >= np.where(across > 1, 64, 32)),
            "shared": (shared <= self.spec.shared_bytes) | (across == 1),
        }
        keep = np.logical_and.reduce([*rules.values()])
        columns = select(columns, keep)
        threads, across = (c.astype(float) for c in columns.values())
        spec, row = self.spec, self.rows[-1]
        blocks = prod(self.facts.stages[-1].extents[a] for a in self.rows) / across
        levels = np.log2(threads) * sum(s.is_reduction for s in self.facts.stages)
        waves = np.ceil(blocks / (spec.cores * resident(spec, threads * across)))
        meeting = waves * (levels + 2 * len(self.facts.stages)) * 40 / spec.frequency_hz
        size = float(self.facts.program.bytes)
        waited, busy, moving, seen = meeting, np.zeros(len(threads)), np.zeros(len(threads)), set[str]()
        for s in self.facts.stages:
            v = self.inner(s)
            rounds = np.ceil(s.extents[v] / threads) if v else 1 + 0 * threads
            waste = rounds * threads / s.extents[v] if v else 1.0
            inside = [a for a in (*s.axes, *s.reduce_axes) if a not in self.rows and a != v]
            each = rounds * prod(s.extents[a] for a in inside)
            again = {a.buffer.name for a in s.reads} <= seen  # the nearest cache may still have it
            seen |= {a.buffer.name for a in (*s.reads, s.store)}
            waited = waited + waves * latency(spec) * np.maximum(1.0, each / IN_FLIGHT) / (3 if again else 1)
            busy = busy + arithmetic(spec, s, blocks, threads * across, 0.5 / waste)
            of = asked(s, [(row, across), *([(v, threads)] if v else [])], inside)
            moving = moving + memory(spec, s, blocks, of, size / len(self.facts.stages), size)
        seconds = together(waited, busy, moving, beginning(spec, blocks)) + spec.launch_seconds
        return Priced(columns, seconds, {"meeting": meeting}, {why: int((~ok).sum()) for why, ok in rules.items()})

    def _held(self, s: Stage, threads: Any) -> Any:
        """Bytes of shared memory that a row's accumulators, and what is handed to a later stage, take."""
        kept = prod(s.extents[a] for a in s.axes if a not in self.rows) if s.name in self.facts.temps else 0
        return (kept + (threads if s.is_reduction else 0)) * s.dtype.compute.bytes

    def schedule(self, point: Point) -> Schedule:
        steps: list[Step] = []
        across, last, row = point["across"], self.facts.stages[-1].name, self.rows[-1]
        for s in self.facts.stages:
            steps += self._stage(s, point["threads"], across)
        at = f"{row}.0" if across > 1 else row
        steps += [ComputeAt(s.name, last, at) for s in reversed(self.facts.stages[:-1])]
        axes = "zyx"[-min(3, len(self.rows)) :]
        return Schedule((*steps, *(Bind(last, a, f"block.{x}") for a, x in zip((*self.rows[:-1], at), axes))))

    def _stage(self, s: Stage, threads: int, across: int) -> list[Step]:
        name, v, row = s.name, self.inner(s), self.rows[-1]
        rest = [a for a in (*s.axes, *s.reduce_axes) if a not in self.rows and a != v]
        steps: list[Step] = [Reorder(name, (*rest, v))] if rest and v else []
        if across > 1 and (v is None or len(self.facts.stages) > 1):
            steps.append(Split(name, row, across))
        if v is None:
            return [*steps, *([Bind(name, f"{row}.1", "thread.x")] if across > 1 else [])]
        to, beside = ("thread.y", f"{row}.1" if len(self.facts.stages) > 1 else row) if across > 1 else ("thread.x", "")
        tiles = ((v, threads), *([(beside, across)] if beside else []))
        steps.append(RegisterTile(name, tiles) if s.is_reduction else Tile(name, tiles))
        if v in s.reduce_axes:
            warp = lent(self.spec, s) if across == 1 else 1
            steps.append(TreeReduce(name, warp if threads % warp == 0 else 1, to))
        return [*steps, Bind(name, f"{v}.1", to), *([Bind(name, f"{beside}.1", "thread.x")] if beside else [])]
