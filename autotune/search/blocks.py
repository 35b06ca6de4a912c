"""Sketches for devices with blocks and threads: whatever a CPU runs in loops, spread over a grid.

Three shapes cover every stage: a result that each thread computes by itself (`points`), rows that the threads of a
block compute together (`team`), and a product whose operands a block shares (`tile`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..devices.spec import DeviceSpec
from ..ir.schedule import Schedule
from ..ir.steps import (
    Bind,
    ComputeAt,
    Distribute,
    Pack,
    Pad,
    Pipeline,
    RegisterTile,
    Reorder,
    Split,
    Step,
    Tile,
    Unroll,
    Vectorize,
)
from .facts import Access, Facts, Stage
from .matrices import LINE, PARTS, MatrixSketch, copied, fitting, split, split_seconds
from .parted import parted
from .sketch import Column, Point, Priced, Sketch, grid, select
from .teams import TeamSketch
from .traffic import (
    IN_FLIGHT,
    arithmetic,
    asked,
    beginning,
    fetched,
    latency,
    memory,
    moved,
    resident,
    together,
    waiting,
)
from .turned import turned_sketch

VECTOR = 4  # elements of 32 bits that one load or store moves
MEETING = 2.6  # steps of a product's reduction that it takes to meet and to turn the loop


def _counted(rules: Mapping[str, NDArray[np.bool_]]) -> dict[str, int]:
    return {reason: int((~ok).sum()) for reason, ok in rules.items()}


@dataclass(frozen=True)
class PointsSketch:
    """One thread a few neighbouring results, stage after stage. Holes: threads along a row and across rows, results a
    thread (`vector`)."""

    facts: Facts
    spec: DeviceSpec
    name: str = "points"

    def priced(self) -> Priced:
        last = self.facts.stages[-1]
        n = last.extents[last.axes[-1]] if last.axes else 1
        columns = grid(tx=(32, 64, 128, 256), ty=(1, 2, 4, 8), vector=(1, 2, 4))
        tx, ty, vector = (columns[c] for c in ("tx", "ty", "vector"))
        rules = {
            "threads": tx * ty <= min(256, self.spec.threads_per_block),
            "vector": (vector == 1) | (n % vector == 0),
            "rows": (ty == 1) | (len(last.axes) > 1),
        }
        keep = np.logical_and.reduce([*rules.values()])
        columns = select(columns, keep)
        tx, ty, vector = (columns[c].astype(float) for c in ("tx", "ty", "vector"))
        seconds = np.zeros(len(tx))
        for s in self.facts.stages:
            if s.axes:
                seconds = seconds + self._stage_seconds(s, tx, ty, vector)
        seconds = seconds * (1 + 0.02 * np.abs(np.log2(tx * ty / 256)))  # few large blocks fill a multiprocessor
        return Priced(columns, seconds, {}, _counted(rules))

    def _stage_seconds(self, s: Stage, tx: Any, ty: Any, vector: Any) -> Column:
        """Of one stage, which is a kernel of its own."""
        spec, v, u = self.spec, s.axes[-1], s.axes[-2] if len(s.axes) > 1 else None
        n, threads = s.extents[v], tx * ty * (vector if s.reduce_axes else 1)
        wide = np.ceil(n / (tx * vector))
        high = np.ceil(s.extents[u] / ty) if u else 1.0
        blocks = np.maximum(1.0, wide * high * prod(s.extents[a] for a in s.axes[:-2]))
        waste = wide * tx * vector / n
        size = moved([s])
        of = asked(s, [(v, tx)], s.reduce_axes, u, ty)
        moving = memory(spec, s, blocks, of, size * waste / np.where(vector > 1, 1.0, 0.85), size)
        walked = prod(s.extents[a] for a in s.reduce_axes) / IN_FLIGHT if s.reduce_axes else 1.0
        waves = np.ceil(blocks / (spec.cores * resident(spec, threads)))
        waited = waves * walked * latency(spec)
        busy = arithmetic(spec, s, blocks, threads, 0.5)
        return together(busy, moving, waited, beginning(spec, blocks)) + spec.launch_seconds

    def schedule(self, point: Point) -> Schedule:
        return Schedule(tuple(step for s in self.facts.stages for step in self._stage(s, point)))

    def _stage(self, s: Stage, point: Point) -> list[Step]:
        name, axes = s.name, list(s.axes)
        if not axes:
            return []
        v, u = axes[-1], axes[-2] if len(axes) > 1 else None
        rest = axes[:-2]
        order = [*rest[:1], *([u] if u else []), v, *rest[1:]]
        width = point["tx"] * point["vector"]
        tiles = (((u, point["ty"]),) if u else ()) + ((v, width),)
        steps: list[Step] = []
        if order != axes or s.reduce_axes:
            steps.append(Reorder(name, (*order, *s.reduce_axes)))
        steps.append(Tile(name, tiles))
        inner = ([f"{u}.1"] if u else []) + [f"{v}.1"]
        if s.reduce_axes:
            steps += [Reorder(name, (*inner, *s.reduce_axes)), RegisterTile(name, ((f"{v}.1", 1),))]
            steps.append(Bind(name, f"{v}.1.0", "thread.x"))
        elif point["vector"] > 1:
            steps += [Split(name, f"{v}.1", point["vector"]), Bind(name, f"{v}.1.0", "thread.x")]
            steps.append(Vectorize(name, f"{v}.1.1", point["vector"]))
        else:
            steps.append(Bind(name, f"{v}.1", "thread.x"))
        steps += [Bind(name, a, "block.z") for a in rest[:1]]  # from the outermost loop inwards
        if u:
            steps += [Bind(name, f"{u}.0", "block.y"), Bind(name, f"{u}.1", "thread.y")]
        return [*steps, Bind(name, f"{v}.0", "block.x")]


@dataclass(frozen=True)
class TileSketch:
    """A block a tile of a product, its operands in shared memory as they lie in memory. Holes: threads along rows and
    columns, results of a thread (`tm`, `tn`), depth of a block of the reduction (`depth`), how many of the next
    blocks are copied meanwhile (`ahead`), and `parts` of the reduction side by side.

    Where tiles are whole, a thread's columns are groups that lie apart, so that neighbouring threads read neighbouring
    words; and four steps of the reduction are written out, which read a row of four at once where it lies that way.
    """

    facts: Facts
    stage: Stage
    v: str
    u: str
    k: str
    epilogues: tuple[str, ...]
    spec: DeviceSpec
    name: str = "tile"

    @property
    def size(self) -> int:
        return self.stage.dtype.compute.bytes

    def priced(self) -> Priced:
        e, s, vector = self.stage.extents, self.stage, max(1, LINE // self.size)
        m, n, k = e[self.u], e[self.v], e[self.k]
        batch = prod(e[a] for a in s.axes if a not in (self.u, self.v))
        columns = grid(ty=(4, 8, 16), tx=(8, 16, 32), tm=(2, 4, 8), tn=(2, 4, 8), depth=(8, 16, 32),
                       ahead=tuple(range(self.spec.ahead + 1)), parts=PARTS)  # fmt: skip
        ty, tx, tm, tn, depth, ahead, parts = columns.values()
        threads, size = ty * tx, self.size
        shared = (1 + ahead) * sum((self._rows(a, ty * tm, tx * tn, depth) * (self._run(a, ty * tm, tx * tn, depth)
                                    + (vector if a.contiguous(self.k) and a.uses(self.v) else 0)))
                                   for a in s.loads) * size  # fmt: skip
        fits = np.ones(len(ty), bool)
        for a in s.loads:
            chunks = np.maximum(1, self._run(a, ty * tm, tx * tn, depth) // vector)
            fits &= (threads % chunks == 0) & (threads >= chunks)
        rules = {
            "threads": (threads >= 32) & (threads <= min(256, self.spec.threads_per_block)),
            "registers": (tm * tn + tm + tn) * size <= 400,
            "shared": shared <= self.spec.shared_bytes, "copy": fits,
            "depth": (depth == 8) | (depth <= k),
            "ahead": (ahead == 0) | (k % depth == 0) & ((ahead + 1) * depth * parts <= k),
            "parts": (parts == 1) | ((k % (depth * parts) == 0) & (len(s.axes) == 2)
                                     & (m * n < ty * tm * tx * tn * self.spec.cores)),
            "rows": (ty * tm <= 2 * m) | (ty == 4), "columns": (tx * tn <= 2 * n) | (tx == 8),
        }  # fmt: skip
        keep = np.logical_and.reduce([*rules.values()])
        columns = select(columns, keep)
        ty, tx, tm, tn, depth, ahead, parts = (c.astype(float) for c in columns.values())
        rows, wide = np.ceil(m / (ty * tm)), np.ceil(n / (tx * tn))
        blocks = rows * wide * batch * parts
        share = 0.95 * tm * tn / (tm * tn + 2.0 * (tm + tn) / vector + 1)  # of issue slots that multiply
        # A warp's operands come at 128 bytes a cycle; neighbouring threads of a row share theirs.
        fetch = (tn + tm * np.maximum(0.25, 1 / tx)) * size * 32 / 128
        lanes = self.spec.peak("f32") / 2 / self.spec.frequency_hz
        share = share * np.minimum(1.0, tm * tn * 32 / lanes / fetch)
        traffic = batch * size * (m * k * wide + k * n * rows + 2.0 * m * n)
        shared = select({"shared": shared}, keep)["shared"]
        held = resident(self.spec, ty * tx, shared, tm * tn + 40)
        held = np.minimum(held, np.maximum(1.0, blocks / self.spec.cores))
        share = share * np.minimum(1.0, ty * tx * held / 192)
        flops = 2.0 * ty * tm * tx * tn * depth / (self.spec.peak("f32") * share)
        step = waiting(self.spec, flops * held * (1 + MEETING / depth), ahead)
        waves = np.maximum(1.0, np.ceil(blocks / self.spec.cores) / held)
        moving = fetched(self.spec, traffic, float(size * batch * (m * k + k * n + m * n)))
        seconds = np.maximum(waves * step * k / depth / parts, moving) + self.spec.launch_seconds
        seconds = seconds + beginning(self.spec, blocks)
        seconds = seconds + split_seconds(self.spec, s, parts, float(m * n))
        return Priced(columns, seconds, {"traffic": traffic}, _counted(rules))

    def _run(self, a: Access, high: Any, wide: Any, deep: Any) -> Any:
        """Neighbouring elements of an operand's block."""
        return deep if a.contiguous(self.k) else wide if a.uses(self.v) else high

    def _rows(self, a: Access, high: Any, wide: Any, deep: Any) -> Any:
        """How many such runs a block has."""
        return (wide if a.uses(self.v) else high) if a.contiguous(self.k) else deep

    def schedule(self, point: Point) -> Schedule:
        s, v, u, k = self.stage, self.v, self.u, self.k
        name, threads, deep = s.name, point["ty"] * point["tx"], point["depth"]
        high, wide = point["ty"] * point["tm"], point["tx"] * point["tn"]
        before, after, parted = split(name, u, v, k, point["parts"], self.epilogues)
        batch = [*(a for a in s.axes if a not in (u, v)), *parted]
        apart = next(a.contiguous(k) for a in s.loads if a.uses(v))
        group = min(4, point["tn"]) if not apart else 1
        grouped = s.extents[v] % wide == 0 and point["tn"] > group
        steps: list[Step] = [*before, Reorder(name, (*batch, u, v, k)), Tile(name, ((u, high), (v, wide)))]
        steps += [Reorder(name, (f"{u}.1", f"{v}.1", k)), Split(name, k, deep)]
        if grouped:
            steps.append(Split(name, f"{v}.1", group * point["tx"]))
            steps.append(Reorder(name, (f"{u}.1", f"{v}.1.1", f"{v}.1.0", f"{k}.0", f"{k}.1")))
            tiles = [(f"{v}.1.0", point["tn"] // group), (f"{u}.1", point["tm"]), (f"{v}.1.1", group)]
            owners = {f"{u}.1.0": "thread.y", f"{v}.1.1.0": "thread.x", f"{v}.1.0.0": "thread.z"}
        else:
            tiles = [(f"{u}.1", point["tm"]), (f"{v}.1", point["tn"])]
            owners = {f"{u}.1.0": "thread.y", f"{v}.1.0": "thread.x"}
        whole = s.extents[k] // point["parts"] % deep == 0
        steps.append(RegisterTile(name, tuple(tiles), ((f"{k}.1", 4),) if whole else ()))
        steps.append(Distribute(name, tuple(owners), f"{k}.0"))
        steps += [Pack(name, a.ordinal, f"{k}.0") for a in reversed(s.loads)]
        for a in reversed(s.loads):
            axis, cache, near = v if a.uses(v) else u, f"{name}.load{a.ordinal}", a.contiguous(k)
            along, across = (a.dims[k], a.dims[axis]) if near else (a.dims[axis], a.dims[k])
            run, other = self._run(a, high, wide, deep), self._rows(a, high, wide, deep)
            steps += copied(cache, along, across, run, other, self.size, threads)
            steps += [Pad(cache, max(1, LINE // self.size))] if near and axis == v else []  # threads read apart rows
        steps += [Pipeline(name, f"{k}.0", True, point["ahead"])] if point["ahead"] else []
        inside = self.epilogues if not parted else ()
        steps += [ComputeAt(e, name) for e in inside]
        if whole:
            steps.append(Unroll(name, f"{k}.1.1"))
        for stage in [name, *inside] if name in self.facts.temps else [name]:
            steps += [Unroll(stage, f"{loop}.1") for loop, _ in tiles]
            steps += [Bind(stage, loop, to) for loop, to in owners.items()]
        steps += [Bind(name, a, "block.z") for a in batch]
        return Schedule((*steps, Bind(name, f"{u}.0", "block.y"), Bind(name, f"{v}.0", "block.x"), *after))


def block_sketches(facts: Facts, epilogues: tuple[str, ...] | None, spec: DeviceSpec) -> list[Sketch]:
    """The sketches of a program on a device with blocks. `epilogues`: the stages after the first one, where all of them
    are plain stores that read it point by point."""
    found: list[Sketch] = []
    first = facts.stages[0]
    if epilogues is not None and (tile := _tile(facts, first, epilogues, spec)):
        found.append(tile)
        if known := fitting(first, spec):
            found.append(MatrixSketch(facts, first, tile.v, tile.u, tile.k, epilogues, spec, *known))
    if turned := turned_sketch(facts, first, spec):
        found.append(turned)
    if epilogues is not None and (long := parted(facts, first, epilogues, spec)):
        found.append(long)
    rows = facts.shared_outer
    apart = any(a.buffer.name in facts.by_name and set(a.dims) & set(rows) != set(rows)
                for s in facts.stages for a in s.loads)  # fmt: skip
    if rows and not apart and any(set(s.axes + s.reduce_axes) - set(rows) for s in facts.stages):
        found.append(TeamSketch(facts, rows, spec))
    return [*found, PointsSketch(facts, spec)]


def _tile(facts: Facts, s: Stage, epilogues: tuple[str, ...], spec: DeviceSpec) -> TileSketch | None:
    """A sum over one axis of operands that each move with one of two axes of the result, of a tile's worth each."""
    if not s.is_reduction or len(s.reduce_axes) != 1 or len(s.axes) < 2 or len({a.ordinal for a in s.loads}) != 2:
        return None
    k, v = s.reduce_axes[0], s.axes[-1]
    wide = [a for a in s.loads if a.uses(v)]
    tall = [a for a in s.loads if not a.uses(v)]
    if len(wide) != 1 or len(tall) != 1:
        return None
    rows = [a for a in s.axes[:-1] if tall[0].uses(a) and not wide[0].uses(a)]
    u = max(rows, key=lambda a: s.extents[a], default=None)
    if u is None or min(s.extents[u], s.extents[v]) < 8 or len(s.axes) > 3:
        return None
    for a, axis in ((wide[0], v), (tall[0], u)):
        if a.panel_dim(axis) is None or a.panel_dim(k) is None or not (a.contiguous(axis) or a.contiguous(k)):
            return None
        if len([x for x in s.axes if a.uses(x)]) > len(s.axes) - 1:
            return None
    return TileSketch(facts, s, v, u, k, epilogues, spec)

