"""Sketch of a single plain store: vectors along a contiguous axis, or blocks transposed in registers where the result
and an operand are contiguous along different axes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..devices.spec import DeviceSpec
from ..ir.affine import const
from ..ir.choices import changes, folded
from ..ir.expr import Expr, op, substitute
from ..ir.schedule import Schedule
from ..ir.steps import Parallel, Reorder, Segment, Split, Step, StoreHint, Tile, Unroll, Vectorize
from .facts import Access, Facts, Stage, described
from .machine import Machine
from .sketch import Point, Priced, grid, vectorized

PARTS = 16  # bodies that choosing by position may make


def cuts(stage: Stage, axes: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Where axes are cut because the stage chooses by position, in few parts: a part chooses nothing."""
    found: dict[str, tuple[int, ...]] = {}
    parts = 1
    for axis in reversed(axes):
        n = stage.extents[axis]
        at = tuple(sorted({c for c in changes(stage.compute.body, axis, n) if 0 < c < n}))
        if at and parts * (len(at) + 1) <= PARTS:
            found[axis], parts = at, parts * (len(at) + 1)
    return found


@dataclass(frozen=True)
class MapSketch:
    """Holes: vectors a step (`map`), bypass of the caches (`nt`), block of the two axes where the block is turned
    (`bi`, `bj`), whether the loops go as the result lies or as the largest operand does (`order`), and whether a vector
    of positions has all its choices computed at once (`near`)."""

    facts: Facts
    stage: Stage
    spec: DeviceSpec
    threads: int
    name: str = "map"

    @cached_property
    def cuts(self) -> dict[str, tuple[int, ...]]:
        return cuts(self.stage, self.stage.axes)

    @cached_property
    def choices(self) -> tuple[str, ...]:
        """Axes of which each position is a choice of its own; choices for the same place share what they read."""
        s = self.stage
        whole = [a for a in s.axes[:-1] if len(self.cuts.get(a, ())) + 1 == s.extents[a] > 1]
        return tuple(whole) if len(whole) < len(s.axes) and s.axes[-1] not in self.cuts else ()

    @cached_property
    def work(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Of a vector (light operations, heavy ones, load instructions): each choice by itself, and all of a place at
        once."""
        s, buffers = self.stage, {b.name: b for b in self.facts.program.buffers}
        axes = tuple(a for a in s.compute.axes if a.name not in self.choices)

        def counted(body: Expr) -> NDArray[Any]:
            part = described(replace(s.compute, axes=axes, body=body), buffers)
            if self.turned or not s.axes:
                return np.array([part.light, part.heavy, len(part.reads)])
            return np.array([part.light, part.heavy, part.load_slots(s.axes[-1], self.lanes, bool(self.cuts))])

        places = product(*(range(s.extents[a]) for a in self.choices))
        parts = [folded(substitute(s.compute.body, dict(zip(self.choices, map(const, at))))) for at in places]
        if len(parts) == 1:
            return (alone := counted(s.compute.body)), alone
        together = counted(reduce(partial(op, "add"), parts)) - (len(parts) - 1, 0, 0)
        return np.mean([counted(part) for part in parts], axis=0), together / len(parts)

    @cached_property
    def turned(self) -> str | None:
        """The axis along which an operand is contiguous while the result is not."""
        s = self.stage
        if not s.axes or self.cuts:
            return None
        v = s.axes[-1]
        for a in s.loads:
            for axis in s.axes[:-1]:
                if (
                    a.contiguous(axis)
                    and a.strides.get(v, 0) not in (0, 1)
                    and s.extents[axis] >= 4
                    and s.extents[v] >= 4
                ):
                    return axis
        return None

    @cached_property
    def shared(self) -> tuple[Access, ...]:
        """Operands that the rows of the innermost loop read alike: several rows at a time share their loads."""
        s = self.stage
        if self.turned or self.moved or len(s.axes) < 2 or s.extents[s.axes[-2]] < 4:
            return ()
        return tuple(a for a in s.loads if a.contiguous(s.axes[-1]) and not a.uses(s.axes[-2]))

    @cached_property
    def moved(self) -> tuple[str, ...]:
        """The axes in the order in which the largest operand lies, where that is another than the result's and vectors
        run along both."""
        s = self.stage
        if self.turned or self.cuts or len(s.axes) < 3:
            return ()
        source = max(s.reads, key=lambda a: a.buffer.bytes, default=None)
        if source is None or not source.contiguous(s.axes[-1]) or any(source.strides.get(a, 0) < 1 for a in s.axes):
            return ()
        order = tuple(sorted(s.axes, key=lambda a: -source.strides[a]))
        return order if order != s.axes and order[-1] == s.axes[-1] else ()

    @cached_property
    def lanes(self) -> int:
        full, n = self.spec.lanes(self.stage.widest), self._length
        if self.turned:
            full = min(full, 16)  # a square of registers is turned at a time: more of them than there are do not pay
        return full if n >= full else 1 << max(n - 1, 0).bit_length()

    @property
    def _length(self) -> int:
        return self.stage.extents[self.stage.axes[-1]] if self.stage.axes else 1

    def priced(self) -> Priced:
        s, mach = self.stage, Machine(self.spec, self.threads, self.stage.widest)
        moved = float(self.facts.program.bytes)
        home = mach.level(moved)
        written = float(s.store.buffer.bytes)
        several = tuple(x for x in (1, 2, 4) if x == 1 or x * self.lanes <= self._length)
        blocks = (32, 64, 128, 256) if self.turned else (1,)
        columns = grid(
            map=(1,) if self.turned else several, nt=(0, 1) if written >= mach.l3 // 8 else (0,), bi=blocks, bj=blocks,
            rows=(1, 4) if self.shared and not self.choices else (1,), order=(0, 1) if self.moved else (0,),
            near=(0, 1) if self.choices else (0,),
        )  # fmt: skip
        mapped, nt = columns["map"].astype(float), columns["nt"]
        vectors = s.compute.points / self.lanes
        light, heavy, slots = np.stack(self.work)[columns["near"]].T
        work = np.maximum((light + 14 * heavy) / mach.fma_per_cycle, (slots + 1) / mach.loads_per_cycle)
        one = work + 2.0 / mapped + np.where(mapped > 2, 0.3 * heavy, 0.0) + (6.0 if self.turned else 0.0)
        compute = vectors * one * mach.cycle
        again = sum(a.buffer.bytes for a in self.shared)
        if again + 2 * self._length * s.dtype.bytes > mach.l1:
            compute = compute + again * s.compute.points / self._length / columns["rows"] * mach.byte("L2")
        if self.turned:
            near = columns["bi"] * columns["bj"] * s.dtype.bytes * 2 < mach.l2 / 2
            compute = compute * np.where(near, 1.0, 1.3) * np.where(columns["bi"] * columns["bj"] < 4096, 1.1, 1.0)
        memory = (moved - written) * mach.byte(home) + written * mach.byte(home, "write") * mach.bypass(moved, nt)
        if self.moved:  # reads that jump are not fetched ahead; writes that jump matter less past the caches
            memory = memory * np.where(columns["order"] == 0, 1.8, np.where(nt == 1, 1.0, 1.5))
        share = 1.0 / self.threads if s.compute.points > 4096 * self.threads else 1.0
        busy, memory = compute * share, memory * max(share, 1.0 / mach.streams)
        seconds = np.maximum(busy, memory) + 0.25 * np.minimum(busy, memory) + mach.launch(self.threads)
        return Priced(columns, seconds, {"compute": compute, "memory": memory})

    def schedule(self, point: Point) -> Schedule:
        s, lanes = self.stage, self.lanes
        name, axes = s.name, list(s.axes)
        if not axes:
            return Schedule()
        inside = self.choices if point["near"] else ()
        steps: list[Step] = [Segment(name, axis, at) for axis, at in self.cuts.items() if axis not in inside]
        if self.turned:
            steps += self._turn(self.turned, axes[-1], point)
            outer = next((a for a in axes if a not in (self.turned, axes[-1])), f"{self.turned}.0")
        else:
            if point["order"]:
                axes = list(self.moved)
                steps.append(Reorder(name, self.moved))
            *around, v = [a for a in axes if a not in inside]
            if self.threads > 1 and not around:
                block = -(-self._length // (4 * self.threads) // (4 * lanes)) * 4 * lanes or lanes
                steps.append(Split(name, v, max(block, 4 * lanes)))
                around, v = [f"{v}.0"], f"{v}.1"
            outer = around[0] if around else v
            tiles: tuple[tuple[str, int], ...] = ((v, point["map"] * lanes),)
            if inside:
                steps.append(Reorder(name, (*around, *inside, v)))
                tiles = (*((a, s.extents[a]) for a in inside), *tiles)
            elif point["rows"] > 1:
                tiles = ((axes[-2], point["rows"]), *tiles)
                outer = axes[0] if len(axes) > 2 else f"{axes[0]}.0"
            steps += [Tile(name, tiles), *vectorized(name, f"{v}.1", lanes)]
            steps += [Unroll(name, f"{a}.1") for a, _ in tiles[:-1]]
        if point["nt"]:
            steps.append(StoreHint(name))
        if self.threads > 1 and s.compute.points > 4096 * self.threads and (outer != axes[-1]):
            steps.append(Parallel(name, outer))
        return Schedule(tuple(steps))

    def _turn(self, i: str, j: str, point: Point) -> list[Step]:
        name, lanes = self.stage.name, self.lanes
        rest = [a for a in self.stage.axes if a not in (i, j)]
        return [
            Split(name, i, point["bi"]), Split(name, j, point["bj"]),
            Reorder(name, (*rest, f"{i}.0", f"{j}.0", f"{i}.1", f"{j}.1")),
            Tile(name, ((f"{i}.1", lanes), (f"{j}.1", lanes))),
            Vectorize(name, f"{j}.1.1", lanes), Vectorize(name, f"{i}.1.1", lanes),
        ]  # fmt: skip

