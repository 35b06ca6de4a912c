"""Sketch of a chain with contractions inside: all stages of a block of rows follow each other while what passes between
them is in the second cache.

A contraction multiplies the block's rows ("tall") with an operand that all blocks share ("wide"): register tiles over
both, the wide operand packed once around the blocks where it does not lie in vectors already. Other stages run along
their rows. Nothing says what a stage is for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..devices.spec import DeviceSpec
from ..ir.schedule import Schedule
from ..ir.steps import ComputeAt, Pack, Parallel, RegisterTile, Reorder, Split, Step, Tile, Unroll, Vectorize, copy_loop
from .facts import Access, Facts, Stage
from .machine import Machine
from .rows import RowsSketch
from .sketch import Column, Point, Priced, broken, grid, select, vectorized

BLOCKS = (8, 16, 32, 64)


@dataclass(frozen=True)
class ChainSketch:
    """Holes: rows of a block, rows (`mr`) and vectors (`nv`) of a register tile, and whether the stages between two
    contractions run row by row (`rowwise`)."""

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

    def wide(self, s: Stage) -> Access:
        """The operand that all rows share."""
        return next(a for a in s.loads if not a.uses(self.at) and a.uses(s.axes[-1]))

    def priced(self) -> Priced:
        lanes = self.plain.lanes
        columns = grid(block=BLOCKS, mr=(4, 6, 8, 12, 14), nv=(1, 2, 3, 4), rowwise=(0, 1) if self._runs() else (0,))
        mr, nv, block = columns["mr"], columns["nv"], columns["block"]
        rows = self.facts.stages[-1].extents[self.at]
        shortest = min(s.extents[s.axes[-1]] for s in self.contractions)
        rules = {
            "registers": mr * nv + nv + 1 <= self.spec.vector_registers, "rows": (mr <= block) & (block < 2 * rows),
            "whole tiles": (rows % block == 0) | (block % mr == 0), "columns": (nv == 1) | (nv * lanes <= shortest),
        }  # fmt: skip
        legal = rules["registers"]
        keep = np.logical_and.reduce([*rules.values()]) if self.pruned else legal
        why = broken({name: ok[legal] for name, ok in rules.items()}) if not self.pruned else None
        columns = select(columns, keep)
        mr, nv, block = (c.astype(float) for c in (columns["mr"], columns["nv"], columns["block"]))
        mach = Machine(self.spec, self.threads, self.facts.stages[-1].widest)
        total: Column = np.zeros_like(mr)
        for s in self.facts.stages:
            vectors = s.compute.points / lanes
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
        share = 1.0 / min(self.threads, max(1, int(np.ceil(self._instances() / 8))))
        memory = np.where(columns["rowwise"] == 1, 0.6, 1.0) * memory
        seconds: Column = (total * mach.cycle + 0.5 * memory) * share + mach.launch(self.threads)
        rejected = {reason: int((~ok).sum()) for reason, ok in rules.items()}
        compute: Column = total * mach.cycle
        return Priced(columns, seconds, {"compute": compute, "memory": memory}, rejected, why)

    def _instances(self) -> int:
        out = 1
        for a in self.rows:
            out *= self.facts.stages[-1].extents[a]
        return out

    def schedule(self, point: Point) -> Schedule:
        stages, last = self.facts.stages, self.facts.stages[-1]
        lanes, block = self.plain.lanes, f"{self.at}.0"
        steps: list[Step] = [Split(s.name, self.at, point["block"]) for s in stages]
        joined = set[str]()
        for run in self._runs() if point["rowwise"] else ():  # row by row, while a row is in the first cache
            steps += [ComputeAt(s.name, run[-1].name, f"{self.at}.1") for s in reversed(run[:-1])]
            joined |= {s.name for s in run[:-1]}
        steps += [ComputeAt(s.name, last.name, block) for s in reversed(stages[:-1]) if s.name not in joined]
        for s in stages:
            if s in self.contractions:
                steps += self._contraction(s, point, lanes)
            else:
                steps += self._along(s, lanes)
        if self.threads > 1:
            outer = self.rows[0] if len(self.rows) > 1 else block
            steps.append(Parallel(last.name, outer, 1))
        return Schedule(tuple(steps))

    def _runs(self) -> list[list[Stage]]:
        """Stages between contractions that can share their loop over rows: none but the last is read outside."""
        found: list[list[Stage]] = [[]]
        for s in self.facts.stages:
            if s in self.contractions:
                found.append([])
            else:
                found[-1].append(s)
        runs = [run for run in found if len(run) > 1 and run[-1] is not self.facts.stages[-1]]
        return [run for run in runs if not any(self._read_outside(s, run) for s in run[:-1])]

    def _read_outside(self, stage: Stage, run: list[Stage]) -> bool:
        others = [s for s in self.facts.stages if s not in run]
        return stage.name in self.facts.program.outputs or any(
            a.buffer.name == stage.name for s in others for a in s.loads
        )

    def _along(self, s: Stage, lanes: int) -> list[Step]:
        return self.plain._along(s, {"red": 4, "map": 2, "wide": 1}, lanes)

    def _contraction(self, s: Stage, point: Point, lanes: int) -> list[Step]:
        v, k, row = s.axes[-1], s.reduce_axes[0], f"{self.at}.1"
        width, wide = point["nv"] * lanes, self.wide(s)
        steps: list[Step] = [Reorder(s.name, (v, row, k))]
        if not wide.contiguous(v):
            outside = "" if self.threads == 1 else f"{self.at}.0"  # a loop that runs in parallel is outermost
            around = next((a for a in reversed(self.rows[:-1]) if wide.uses(a)), outside)
            steps.append(Pack(s.name, wide.ordinal, around, ((wide.dims[v], width),)))
            cache = f"{s.name}.load{wide.ordinal}"
            panel, other = copy_loop(cache, wide.dims[v]), copy_loop(cache, wide.dims[k])
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
    return wide[0].panel_dim(v) is not None and wide[0].panel_dim(k) is not None and (
        wide[0].contiguous(v) or wide[0].contiguous(k)
    )


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
