"""Sketch of a chain with contractions inside: all stages of a block of rows follow each other while what passes between
them is in the second cache.

A contraction multiplies the block's rows ("tall") with an operand that all blocks share ("wide"): register tiles over
both, the wide operand packed once around the blocks where it does not lie in vectors already. Other stages run along
their rows. Nothing says what a stage is for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..devices.spec import DeviceSpec
from ..ir.idle import needed
from ..ir.schedule import Schedule
from ..ir.steps import (
    Clip,
    ComputeAt,
    Pack,
    Parallel,
    RegisterTile,
    Reorder,
    Split,
    Step,
    Tile,
    Unroll,
    Vectorize,
    copy_loop,
)
from .facts import Access, Facts, Stage
from .machine import PAGE, Machine
from .rows import RowsSketch
from .sketch import Column, Point, Priced, broken, grid, select, vectorized

BLOCKS = (8, 16, 32, 64)
COPY = 0.4  # cycles an element that is copied and turned


@dataclass(frozen=True)
class ChainSketch:
    """Holes: rows of a block, rows (`mr`) and vectors (`nv`) of a register tile, whether the stages between two
    contractions run row by row (`rowwise`), whether loops end early (`clip`), and whether threads share blocks of rows
    instead of the axis around them (`across`)."""

    facts: Facts
    rows: tuple[str, ...]
    spec: DeviceSpec
    threads: int
    name: str = "chain"
    pruned: bool = True

    @cached_property
    def plain(self) -> RowsSketch:
        """How the stages that are no contractions run along their rows."""
        return RowsSketch(self.facts, self.rows, False, self.spec, self.threads)

    @property
    def at(self) -> str:
        return self.rows[-1]

    @cached_property
    def contractions(self) -> tuple[Stage, ...]:
        return tuple(s for s in self.facts.stages if contracts(s, self.at))

    @cached_property
    def clipped(self) -> tuple[Stage, ...]:
        """Reductions of which a block of rows needs a part only, because positions decide that the rest is idle."""
        made = {s.name: s.compute for s in self.facts.stages if not s.is_reduction}
        return tuple(s for s in self.facts.stages if needed(s.compute, made))

    def wide(self, s: Stage) -> Access:
        """The operand that all rows share."""
        return next(a for a in s.loads if not a.uses(self.at) and a.uses(s.axes[-1]))

    def priced(self) -> Priced:
        lanes = self.plain.lanes
        columns = grid(block=BLOCKS, mr=(4, 6, 8, 12, 14), nv=(1, 2, 3, 4), rowwise=(0, 1) if self._runs() else (0,),
                       **({"clip": (0, 1)} if self.clipped else {}),
                       **({"across": (0, 1)} if self.threads > 1 < len(self.rows) else {}))  # fmt: skip
        mr, nv, block = columns["mr"], columns["nv"], columns["block"]
        rows = self.facts.stages[-1].extents[self.at]
        shortest = min(s.extents[s.axes[-1]] for s in self.contractions)
        rules = {
            "registers": mr * nv + nv + 1 <= self.spec.vector_registers, "rows": (mr <= block) & (block < 2 * rows),
            "whole tiles": (rows % block == 0) | (block % mr == 0), "columns": (nv == 1) | (nv * lanes <= shortest),
        }  # fmt: skip
        legal = rules["registers"]
        if self.clipped:  # what is cut short must end with whole tiles
            units = (nv * lanes, self.plain.lanes * 4)
            rules["clip"] = (columns["clip"] == 0) | np.logical_and.reduce([block % unit == 0 for unit in units])
            legal = legal & rules["clip"]
        keep = np.logical_and.reduce([*rules.values()]) if self.pruned else legal
        why = broken({name: ok[legal] for name, ok in rules.items()}) if not self.pruned else None
        columns = select(columns, keep)
        mr, nv, block = (c.astype(float) for c in (columns["mr"], columns["nv"], columns["block"]))
        mach = Machine(self.spec, self.threads, self.facts.stages[-1].widest)
        total: Column = np.zeros_like(mr)
        ended = {name for name, _ in self._ends()}
        for s in self.facts.stages:
            part = np.where(columns["clip"] == 1, self._part(block), 1.0) if s.name in ended else 1.0
            vectors = part * s.compute.points / lanes
            if s in self.contractions:
                step = np.maximum(mr * nv / mach.fma_per_cycle, (mr + nv) / mach.loads_per_cycle) + 0.08 * (mr + nv)
                whole = np.ceil(block / mr) * mr / block
                total = total + vectors * np.maximum(step, mach.fma_latency) / (mr * nv) * whole
            else:
                total = total + vectors * ((s.light + 14 * s.heavy) / mach.fma_per_cycle + 1)
        between = sum(b.bytes for b in self.facts.program.buffers if b.scope == "temp")
        held = between / max(self._instances(), 1) * block
        level = np.where(held < 0.6 * mach.l2, mach.byte("L2"), mach.byte("L3"))
        memory = self.facts.program.bytes * mach.byte(mach.level(self.facts.program.bytes)) + 2 * between * level
        memory = memory + self._again(block, mr, mach) * mach.byte(self._home(mach))
        turns: Column = np.ceil(rows / block)
        if "across" in columns:  # what is copied once around the blocks is copied for each
            copied = sum(self.wide(s).buffer.size for s in self.contractions if not self.wide(s).contiguous(s.axes[-1]))
            total = total + np.where(columns["across"] == 1, turns - 1, 0) * copied * COPY
            turns = np.where(columns["across"] == 1, turns, self.facts.stages[-1].extents[self.rows[0]])
        share = np.ceil(turns / self.threads) / turns
        memory = np.where(columns["rowwise"] == 1, 0.6, 1.0) * memory
        seconds: Column = (total * mach.cycle + 0.5 * memory) * share + mach.launch(self.threads)
        rejected = {reason: int((~ok).sum()) for reason, ok in rules.items()}
        compute: Column = total * mach.cycle
        return Priced(columns, seconds, {"compute": compute, "memory": memory}, rejected, why)

    def _part(self, block: NDArray[Any]) -> Column:
        """About which share of a loop that ends early is run."""
        s, rows = self.clipped[0], self.facts.stages[-1].extents[self.at]
        length = s.extents[s.reduce_axes[0]]
        a = needed(s.compute, {o.name: o.compute for o in self.facts.stages if not o.is_reduction})[0]
        ends = a.coefficient(self.at) * np.arange(rows) + a.const + 1
        share: Column = np.minimum(1.0, np.clip(ends, 0, length).mean() / length + 0.5 * block / length)
        return share

    def _again(self, block: NDArray[Any], mr: NDArray[Any], mach: Machine) -> Column:
        """Bytes of wide operands that blocks read after the first; and, where its rows meet in a few sets of the second
        cache, that each tile reads anew."""
        total: Column = np.zeros(len(block))
        for s in self.contractions:
            k, v, wide = s.reduce_axes[0], s.axes[-1], self.wide(s)
            times = np.ceil(s.extents[self.at] / block)
            if wide.contiguous(v) and mach.aliased(wide.apart(k)) and s.extents[k] * PAGE > mach.l2:
                times = np.ceil(s.extents[self.at] / mr)
            total = total + wide.buffer.bytes * (times - 1)
        return total

    def _home(self, mach: Machine) -> str:
        """The cache that holds the wide operands of all contractions of a block."""
        each = 0.0
        for s in self.contractions:
            wide = self.wide(s)
            each += wide.buffer.bytes / math.prod(s.extents[a] for a in self.rows[:-1] if wide.uses(a))
        return "L2" if each < 0.6 * mach.l2 else mach.level(self.facts.program.bytes)

    def _instances(self) -> int:
        out = 1
        for a in self.rows:
            out *= self.facts.stages[-1].extents[a]
        return out

    def schedule(self, point: Point) -> Schedule:
        stages, last = self.facts.stages, self.facts.stages[-1]
        lanes, block = self.plain.lanes, f"{self.at}.0"
        steps: list[Step] = [Split(s.name, self.at, point["block"]) for s in stages]
        inner = block
        if point.get("across"):
            inner = self.rows[-2]
            steps += [Reorder(s.name, (block, *self.rows[:-1])) for s in stages]
        if point.get("clip"):
            steps += [Clip(s, axis, f"{self.at}.1") for s, axis in self._ends()]
        joined = set[str]()
        for run in self._runs() if point["rowwise"] else ():  # row by row, while a row is in the first cache
            steps += [ComputeAt(s.name, run[-1].name, f"{self.at}.1") for s in reversed(run[:-1])]
            joined |= {s.name for s in run[:-1]}
        steps += [ComputeAt(s.name, last.name, inner) for s in reversed(stages[:-1]) if s.name not in joined]
        for s in stages:
            if s in self.contractions:
                steps += self._contraction(s, point, lanes)
            else:
                steps += self._along(s, lanes)
        if self.threads > 1:
            outer = self.rows[0] if len(self.rows) > 1 and not point.get("across") else block
            steps.append(Parallel(last.name, outer, 1))
        return Schedule(tuple(steps))

    def _ends(self) -> Iterator[tuple[str, str]]:
        """Loops that end early: of reductions, and of what only these read, the last stage first."""
        ended: dict[str, str] = {}
        for s in reversed(self.facts.stages):
            readers = [(r, a) for r in self.facts.stages for a in r.loads if a.buffer.name == s.name]
            axes = {r.name in ended and ended[r.name] in a.dims and s.axes[a.dims[ended[r.name]]] for r, a in readers}
            if s in self.clipped:
                ended[s.name] = s.reduce_axes[0]
            elif len(axes) == 1 and (axis := axes.pop()):
                ended[s.name] = axis
            if s.name in ended:
                yield s.name, ended[s.name]

    def _runs(self) -> list[list[Stage]]:
        """Stages between contractions, as far as only the last of them is read by what follows."""
        found: list[list[Stage]] = [[]]
        for s in self.facts.stages:
            if s in self.contractions:
                found.append([])
            else:
                found[-1].append(s)
                if any(a.buffer.name == s.name for c in self.contractions for a in c.loads):
                    found.append([])  # what is read outside of the run cannot be inside its rows
        found = [run[: next(n for n in range(len(run), -1, -1) if self._closed(run[:n]))] for run in found]
        return [run for run in found if len(run) > 1 and run[-1] is not self.facts.stages[-1]]

    def _closed(self, run: list[Stage]) -> bool:
        inside, kept = {s.name for s in run}, {s.name for s in run[:-1]}
        read = {a.buffer.name for s in self.facts.stages if s.name not in inside for a in s.loads}
        return not kept & (read | set(self.facts.program.outputs))

    def _along(self, s: Stage, lanes: int) -> list[Step]:
        return self.plain._along(s, {"red": 4, "map": 2, "wide": 1}, lanes)

    def _contraction(self, s: Stage, point: Point, lanes: int) -> list[Step]:
        v, k, row = s.axes[-1], s.reduce_axes[0], f"{self.at}.1"
        width, wide = point["nv"] * lanes, self.wide(s)
        steps: list[Step] = [Reorder(s.name, (v, row, k))]
        if not wide.contiguous(v):
            outside = "" if self.threads == 1 else f"{self.at}.0"  # a loop that runs in parallel is outermost
            around = next((a for a in reversed(self.rows[:-1]) if wide.uses(a)), outside)
            steps.append(Pack(s.name, wide.ordinal, around, ((wide.offset[v], width),)))
            cache = f"{s.name}.load{wide.ordinal}"
            panel, other = copy_loop(cache, wide.offset[v]), copy_loop(cache, wide.offset[k])
            steps += [
                Tile(cache, ((panel, width), (other, lanes))), Split(cache, f"{panel}.1", lanes, "cut"),
                Vectorize(cache, f"{other}.1", lanes), Vectorize(cache, f"{panel}.1.1", lanes),
            ]  # fmt: skip
        steps.append(RegisterTile(s.name, ((row, point["mr"]), (v, width))))
        return [*steps, Unroll(s.name, f"{row}.1"), *vectorized(s.name, f"{v}.1", lanes)]


def contracts(s: Stage, row: str) -> bool:
    """A sum over one axis of products of an operand that moves with the rows and one that does not."""
    if not s.is_reduction or len(s.reduce_axes) != 1 or len(s.axes) < 2 or s.axes[-1] == row:
        return False
    k, v = s.reduce_axes[0], s.axes[-1]
    wide = [a for a in s.loads if a.uses(v) and not a.uses(row)]
    tall = [a for a in s.loads if a.uses(row) and not a.uses(v)]
    if len(wide) != 1 or not tall or len(wide) + len(tall) != len(s.loads) or not s.store.contiguous(v):
        return False
    return v in wide[0].offset and k in wide[0].offset and (wide[0].contiguous(v) or wide[0].contiguous(k))


def chain_sketches(facts: Facts, spec: DeviceSpec, threads: int) -> list[ChainSketch]:
    """For stages with shared outer axes of which some contract."""
    rows = facts.shared_outer
    if not rows or not any(contracts(s, rows[-1]) for s in facts.stages):
        return []
    if facts.stages[-1].extents[rows[-1]] < BLOCKS[0]:
        return []
    others = [s for s in facts.stages if not contracts(s, rows[-1])]
    if any(len([a for a in (*s.axes, *s.reduce_axes) if a not in rows]) > 1 for s in others):
        return []
    if any(len(s.axes) != len(rows) + 1 for s in facts.stages if contracts(s, rows[-1])):
        return []
    return [ChainSketch(facts, rows, spec, threads)]
