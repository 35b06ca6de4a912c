"""Sketch of a program whose stages share their outer axes: all stages run row by row (or block of rows by block), so
that what passes between them stays in the nearest cache.

Stages are plain stores or reductions along inner axes. The vector loop of each stage is its innermost contiguous axis;
where that is one of the shared axes, a block of rows forms the vector and inner axes are walked one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..devices.spec import DeviceSpec
from ..ir.schedule import Schedule
from ..ir.steps import (
    ComputeAt,
    Parallel,
    ReadAhead,
    RegisterTile,
    Reorder,
    Segment,
    Split,
    Step,
    StoreHint,
    Tile,
    Unroll,
)
from .facts import UNKNOWN, Access, Facts, Stage
from .machine import Machine
from .maps import cuts
from .sketch import Point, Priced, grid, select, vectorized

AHEAD = 30  # cycles a row to ask for the next one
TWICE = 0.98  # of the arithmetic, where a statement is of two vectors and addresses are computed half as often
CROWDED = 1.5  # how much slower stages run whose lines push each other out of the first cache


@dataclass(frozen=True)
class RowsSketch:
    """Holes: vectors a step in reductions (`red`) and in stores (`map`), whether results bypass the caches (`nt`),
    chunks of rows (`block`), whether one row's arithmetic asks for the next row (`ahead`), lines of results whose
    windows are computed together (`lines`)."""

    facts: Facts
    rows: tuple[str, ...]
    across: bool
    spec: DeviceSpec
    threads: int
    name: str = "rows"

    @cached_property
    def last(self) -> Stage:
        return self.facts.stages[-1]

    @cached_property
    def lanes(self) -> int:
        widest = max((s.widest for s in self.facts.stages), key=lambda d: d.bits)
        full = self.spec.lanes(widest)
        longest = self.last.extents[self.rows[-1]] if self.across else max(
            (s.extents[a] for s in self.facts.stages for a in [self.vector_axis(s)] if a), default=1)  # fmt: skip
        return full if longest >= full else 1 << max(longest - 1, 0).bit_length()

    def vector_axis(self, stage: Stage) -> str | None:
        """The inner axis that a stage's vectors run along: contiguous in most of its accesses."""
        if self.slides(stage):
            return stage.axes[-1]
        inner = [a for a in (*stage.axes, *stage.reduce_axes) if a not in self.rows]
        accesses = [*stage.loads, *([] if stage.is_reduction else [stage.store])]
        score = {
            a: (sum(x.contiguous(a) for x in accesses) - sum(x.uses(a) and not x.contiguous(a) for x in accesses))
            for a in inner
        }
        reduced = [a for a in inner if a in stage.reduce_axes]
        if stage.is_reduction:
            inner = [a for a in inner if a in reduced] or inner
        return max(inner, key=lambda a: (score[a], stage.extents[a]), default=None)

    def slides(self, stage: Stage) -> bool:
        return stage.slides and not self.across and not {*stage.axes[-2:]} & {*self.rows}

    def priced(self) -> Priced:
        mach = Machine(self.spec, self.threads, self.last.widest)
        longest = max((s.extents[a] for s in self.facts.stages for a in [self.vector_axis(s)] if a), default=1)
        if self.across:
            longest = self.last.extents[self.rows[-1]]
        several = tuple(x for x in (1, 2, 4, 8) if x == 1 or x * self.lanes <= longest)
        big = sum(b.bytes for b in self.facts.program.buffers if b.scope == "output") > mach.l2
        columns = grid(
            red=several, map=several[:3], nt=(0, 1) if big and self._whole else (0,),
            wide=(1, 2) if longest >= 2 * self.lanes else (1,),
            block=(1, 2, 4) if self.shared else (1,), ahead=(0, 1) if self.streamed else (0,),
            lines=(1, 2, 4, 7, 8) if any(map(self.slides, self.facts.stages)) else (1,),
        )  # fmt: skip
        keep = (columns["red"] % columns["wide"] == 0) & (columns["map"] % columns["wide"] == 0)
        columns = select(columns, keep)
        red, mapped, nt = (columns[c].astype(float) for c in ("red", "map", "nt"))
        compute = np.zeros_like(red)
        # What every row reads again comes from the second cache once a row where the first holds no two rows of
        # anything.
        again = sum(a.buffer.bytes for a in self.shared)
        spilled = again + 3 * longest * self.last.dtype.bytes > mach.l1
        refetch = again * self.last.compute.points / longest / np.where(columns["block"] > 1, 2, 1) if spilled else 0.0
        compute = compute + refetch * mach.byte("L2")
        for s in self.facts.stages:
            vectors = s.compute.points / self.lanes
            inner = s.compute.points / max(_product(s, self.rows), 1)
            v = self.rows[-1] if self.across else self.vector_axis(s) or ""
            cut = bool(cuts(s, s.axes))
            once = len(self.shared) * (1 - 1 / columns["block"]) if s is self.last else 0.0
            loads = s.load_slots(v, self.lanes, cut) + (not s.is_reduction) - once
            work = ((1 if cut else s.light) + 14 * s.heavy) / mach.fma_per_cycle
            least = np.maximum(work, loads / mach.loads_per_cycle)
            chain = 1e9 if self.across else inner / self.lanes * (s.light + 14 * s.heavy)
            if self.slides(s):
                lines = columns["lines"].astype(float)
                # Lines below each other share what windows of the one above have loaded.
                tall, work = max(s.extents[a] for a in s.reduce_axes), work - 1 / mach.fma_per_cycle
                ports = 2 * loads * (lines + tall - 1) / (lines * tall) + 1 / (red * lines)
                least = np.maximum(max(work, 1 / mach.fma_per_cycle), ports / mach.loads_per_cycle)
                one = np.maximum(least, mach.fma_latency / (red * lines))
                spilled = red * lines + red * 2 > self.spec.vector_registers
                one, overhead = one * np.where(spilled, 3.0, 1.0), np.full_like(red, 8.0)
            elif s.is_reduction:
                one = np.maximum(least, mach.latency(chain) / red) + 2.0 / red
                # The end of one row's reduction runs beside the next row's beginning.
                rest = np.where(inner % (red * self.lanes) > 0, red * one, 0)
                overhead = red * 3.5 + 25 / columns["block"] + rest
            else:
                one = least + 3.0 / mapped + np.where(mapped > 2, 0.3 * s.heavy, 0.0)
                overhead = 8 + np.where(inner % (mapped * self.lanes) > 0, mapped * one, 0)
            count = 1.0 if self.across else s.compute.points / max(inner, 1)
            compute = compute + (vectors * one + count * overhead) * mach.cycle
        compute = compute + columns["ahead"] * AHEAD * _product(self.last, self.rows) * mach.cycle
        moved = float(self.facts.program.bytes)
        home = mach.level(moved)
        written = float(sum(b.bytes for b in self.facts.program.buffers if b.scope == "output"))
        memory = (moved - written) * mach.byte(home) + written * mach.byte(home, "write") * mach.bypass(moved, nt)
        share = 1.0 / min(self.threads, max(1, _product(self.last, self.rows)))
        compute = compute * np.where(self._crowded(columns["block"], mach), CROWDED, 1.0)
        compute = compute * np.where(columns["wide"] == 2, TWICE, 1.0)
        busy, memory = compute * share, memory * max(share, 1.0 / mach.streams)
        # Of the shorter one, what the longer one does not hide; reading ahead is worth something where memory is far,
        # and where so much is computed between two lines that nothing foresees them.
        heavy = any(self.facts.by_name[name].heavy for name, _ in self.streamed)
        apart = np.where((columns["ahead"] == 1) & (home == "DRAM" or (home == "L3" and heavy)), 0.1, 0.25)
        seconds = np.maximum(busy, memory) + apart * np.minimum(busy, memory) + mach.launch(self.threads)
        return Priced(columns, seconds, {"compute": compute, "memory": memory}, {"vectors": int((~keep).sum())})

    @property
    def _whole(self) -> bool:
        """Whether every row of results begins at a line. A line that is written past the caches in two parts, with
        another row's reading between them, is read and merged by the memory: 250 ns a row."""
        moving = (self.last.store.apart(a) for a in self.last.axes if not self.last.store.contiguous(a))
        return all(apart % self.spec.line == 0 for apart in moving)

    def _crowded(self, block: NDArray[Any], mach: Machine) -> NDArray[Any]:
        """Whether lines that a block of rows is at are more than a set of the first cache holds: rows a multiple of a
        page apart are all in one set."""
        moving = [a for a in (*self.last.loads, self.last.store) if len(a.strides) > 1]
        crowd = sum(mach.aliased(a.apart(self.rows[-1])) for a in moving)
        return np.asarray(block * crowd + len(self.shared) > mach.l1_ways)

    @cached_property
    def shared(self) -> tuple[Access, ...]:
        """Operands of the last stage that all rows read alike, where rows can be taken several at a time to share
        them."""
        v, before = self.vector_axis(self.last), self.facts.stages[:-1]
        alone = self.across or self.last.is_reduction or v is None or not before
        if alone or not all(s.is_reduction or self.vector_axis(s) is None for s in before):
            return ()
        rows = self.rows[-1]
        return tuple(a for a in self.last.loads if v is not None and a.contiguous(v) and not a.uses(rows))

    @cached_property
    def streamed(self) -> tuple[tuple[str, str], ...]:
        """(stage, input) for each input that passes by row by row: the stage with the most work among its readers."""
        found: dict[str, Stage] = {}
        for s in self.facts.stages if not self.across else ():
            v = self.vector_axis(s)
            for a in s.loads:
                if a.buffer.scope == "input" and v and a.contiguous(v) and a.uses(self.rows[-1]):
                    best = found.setdefault(a.buffer.name, s)
                    found[a.buffer.name] = max(best, s, key=lambda x: (x.heavy, x is s))
        return tuple((s.name, name) for name, s in found.items())

    # ---- schedule ----

    def schedule(self, point: Point) -> Schedule:
        lanes = self.lanes * point["wide"]
        steps: list[Step] = []
        at = self.rows[-1]
        block = 1 if self.across else point["block"]
        for s in self.facts.stages:
            if block > 1:
                steps.append(Split(s.name, at, block))
            if block > 1 and s is self.last:
                steps += self._together(s, point, lanes)
            else:
                steps += self._across(s, point, lanes) if self.across else self._along(s, point, lanes)
        inner, at = (f"{at}.1", f"{at}.0") if block > 1 else (at, at)
        if self.across:
            at = f"{at}.0"
        into, loop = self.last.name, at
        for s in reversed(self.facts.stages[:-1]):
            steps.append(ComputeAt(s.name, into, loop))
            if block > 1:  # the stages before the last run row by row inside the block
                into, loop = self.facts.stages[-2].name, inner
        if point["ahead"]:
            sizes = {b.name: b.dtype.bytes for b in self.facts.program.buffers}
            steps += [ReadAhead(s, x, at, max(1, self.spec.line // sizes[x])) for s, x in self.streamed]
        if point["nt"]:
            steps += [
                StoreHint(s.name)
                for s in self.facts.stages
                if s.name in self.facts.program.outputs and not s.is_reduction
            ]
        if self.threads > 1:
            outer = self.rows[0] if len(self.rows) > 1 else at
            if not self.across or len(self.rows) > 1 or self.last.extents[self.rows[0]] > point["map"] * lanes:
                steps.append(Parallel(self.last.name, outer))
        return Schedule(tuple(steps))

    def _along(self, s: Stage, point: Point, lanes: int) -> list[Step]:
        """Vectors along an inner axis."""
        v = self.vector_axis(s)
        if v is None:
            return []
        if self.slides(s):
            return self._windows(s, v, point, lanes)
        inner = [a for a in (*s.axes, *s.reduce_axes) if a not in self.rows and a != v]
        steps: list[Step] = [Reorder(s.name, (*inner, v))] if inner else []
        if s.is_reduction:
            count = point["red"] // point["wide"]
            steps.append(RegisterTile(s.name, ((v, max(1, count) * lanes),)))
        else:
            inside = tuple(a for a in s.axes if a not in self.rows)
            steps += [Segment(s.name, axis, at) for axis, at in cuts(s, inside).items()]
            steps.append(Tile(s.name, ((v, max(1, point["map"] // point["wide"]) * lanes),)))
        return [*steps, *vectorized(s.name, f"{v}.1", lanes)]

    def _windows(self, s: Stage, v: str, point: Point, lanes: int) -> list[Step]:
        """Vectors of whole results, several lines at once, windows written out."""
        inner, u = [a for a in s.axes if a not in self.rows], s.axes[-2]
        tile = ((u, point["lines"]), (v, max(1, point["red"] // point["wide"]) * lanes))
        taps = tuple((a, s.extents[a]) for a in s.reduce_axes)
        # Taps below each other are innermost: of what lines share, little has to be held at a time.
        moving = [a for a in s.loads if a.uses(v)]
        order = sorted(s.reduce_axes, key=lambda x: min(abs(a.strides.get(x, UNKNOWN)) for a in moving))
        return [
            Reorder(s.name, (*inner, *order)), RegisterTile(s.name, tile, taps),
            *(Unroll(s.name, f"{a}.1") for a in (*s.reduce_axes, u)), *vectorized(s.name, f"{v}.1", lanes),
        ]  # fmt: skip

    def _together(self, s: Stage, point: Point, lanes: int) -> list[Step]:
        """The last stage over a block of rows: one load of what they share serves them all."""
        v, row = self.vector_axis(s), f"{self.rows[-1]}.1"
        assert v is not None  # nothing is shared otherwise
        inner = [a for a in s.axes if a not in self.rows and a != v]
        wide = max(1, point["map"] // point["wide"]) * lanes
        return [
            Reorder(s.name, (f"{self.rows[-1]}.0", *inner, row, v)), Tile(s.name, ((row, point["block"]), (v, wide))),
            Unroll(s.name, f"{row}.1"), *vectorized(s.name, f"{v}.1", lanes),
        ]  # fmt: skip

    def _across(self, s: Stage, point: Point, lanes: int) -> list[Step]:
        """A block of the last shared axis is the vector; inner axes are walked outside of it."""
        v = self.rows[-1]
        block = max(1, point["map"] // point["wide"]) * lanes
        inner = [a for a in (*s.axes, *s.reduce_axes) if a not in self.rows]
        steps: list[Step] = [Split(s.name, v, block)]
        outer = (*self.rows[:-1], f"{v}.0")
        if s.is_reduction:
            steps += [Reorder(s.name, (*outer, f"{v}.1", *inner)), RegisterTile(s.name, ((f"{v}.1", block),))]
        else:
            steps += [Reorder(s.name, (*outer, *inner, f"{v}.1")), Tile(s.name, ((f"{v}.1", block),))]
        return [*steps, *vectorized(s.name, f"{v}.1.1", lanes)]


def _product(stage: Stage, axes: tuple[str, ...]) -> int:
    out = 1
    for a in axes:
        out *= stage.extents[a]
    return out


def rows_sketches(facts: Facts, spec: DeviceSpec, threads: int) -> list[RowsSketch]:
    """Sketches for programs with shared outer axes: rows one by one, and blocks of rows where those are contiguous."""
    rows = facts.shared_outer
    if not rows:
        return []
    last = facts.stages[-1]
    found = []
    windows = [s for s in facts.stages if s.slides]
    few = rows[: min((len(s.axes) - 2 for s in windows), default=len(rows))]
    if few and few != rows:
        found.append(RowsSketch(facts, few, False, spec, threads, "windows"))
    if any(set(s.axes + s.reduce_axes) - set(rows) for s in facts.stages):
        found.append(RowsSketch(facts, rows, False, spec, threads))
        # Where the last stage is a plain store, its innermost axis may be a vector of independent rows.
    shared = tuple(a for a in last.axes if all(a in s.axes for s in facts.stages))
    for axes in dict.fromkeys((rows, shared)):
        if last.store.contiguous(axes[-1]) and any(a.contiguous(axes[-1]) for s in facts.stages for a in s.loads):
            found.append(RowsSketch(facts, axes, True, spec, threads, "columns"))
            break
    return found
