"""The sketch of a product on a device with matrix instructions: a block a tile, a warp a part of it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ..devices.spec import DeviceSpec
from ..ir.expr import Load, Op
from ..ir.instructions import INSTRUCTIONS, Instruction
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
    SplitReduction,
    Step,
    Tensorize,
    Tile,
    Vectorize,
    copy_loop,
)
from .facts import Access, Facts, Stage
from .sketch import Point, Priced, grid, select
from .traffic import beginning, fetched, resident, waiting

ADDRESSES = 40  # registers of a thread that are neither accumulators nor operands
MEETING_CYCLES = 100  # to meet once, and to turn the loop
LINE = 16  # bytes that one load or store moves, and by which rows in shared memory are padded


def fitting(stage: Stage, spec: DeviceSpec) -> tuple[Instruction, float] | None:
    """The device's instruction for a stage that sums products of two loads, and its rate: only one that takes what is
    stored, as it is stored; rounding operands first would be another function."""
    body = stage.compute.body
    if not isinstance(body, Op) or body.name != "mul" or stage.compute.combiner != "sum":
        return None
    factors = [x.args[0] if isinstance(x, Op) and x.name == "cast" else x for x in body.args]
    for name, peak in spec.matrix:
        known = INSTRUCTIONS[name]
        exact = known.operand != known.result  # a narrower product of the result's own type rounds its operands
        if exact and known.result == stage.dtype and all(
            isinstance(x, Load) and x.dtype == known.operand for x in factors
        ):
            return known, peak
    return None


def copied(cache: str, along: int, across: int, run: int, rows: int, size: int, threads: int) -> list[Step]:
    """All threads of a block copy `rows` runs of `run` neighbouring elements of `size` bytes, 16 bytes at a time.
    `along` and `across`: dimensions of the array that is copied."""
    vector = next(v for v in (LINE // size, 4, 2, 1) if v * size <= LINE and run % v == 0)
    a, b = copy_loop(cache, along), copy_loop(cache, across)
    each = min(rows, max(1, threads * vector // run))
    return [
        Split(cache, a, vector), Split(cache, b, each), Reorder(cache, (f"{b}.0", f"{b}.1", f"{a}.0", f"{a}.1")),
        Vectorize(cache, f"{a}.1", vector), Bind(cache, f"{b}.1", "thread"), Bind(cache, f"{a}.0", "thread"),
    ]  # fmt: skip


PARTS = (1, 2, 4, 8)


def split(
    stage: str, u: str, v: str, k: str, parts: int, epilogues: tuple[str, ...]
) -> tuple[list[Step], list[Step], list[str]]:
    """A reduction in parts on blocks of their own: steps before all others, steps after them that add the parts up (and
    apply what follows), and the loop that counts them. Nothing where there is one part."""
    if parts == 1:
        return [], [], []
    total = f"{stage}.total"
    after: list[Step] = [
        Tile(total, ((u, 8), (v, 32))), Reorder(total, (f"{u}.1", f"{v}.1", f"{k}.part")),
        RegisterTile(total, ((f"{v}.1", 1),)), *(ComputeAt(e, stage) for e in epilogues),
        Bind(total, f"{v}.1.0", "thread.x"), Bind(total, f"{u}.1", "thread.y"), Bind(total, f"{u}.0", "block.y"),
        Bind(total, f"{v}.0", "block.x"),
    ]  # fmt: skip
    return [SplitReduction(stage, k, parts)], after, [f"{k}.part"]


def split_seconds(spec: DeviceSpec, stage: Stage, parts: Any, results: float) -> Any:
    """What adding up the parts costs: they are written, read, and there is one more launch."""
    moved = (2 * parts + 1) * results * stage.dtype.bytes
    return np.where(parts > 1, moved / spec.bytes_per_second("DRAM", "copy") + spec.launch_seconds, 0.0)


@dataclass(frozen=True)
class MatrixSketch:
    """Holes: warps along rows and columns (`wy`, `wx`), instructions a warp has along each (`ty`, `tx`), depth of a
    block of the reduction in instructions (`depth`), how many of the next ones are copied meanwhile (`ahead`), and
    `parts` of the reduction side by side."""

    facts: Facts
    stage: Stage
    v: str
    u: str
    k: str
    epilogues: tuple[str, ...]
    spec: DeviceSpec
    instruction: Instruction
    rate: float
    name: str = "matrix"

    def priced(self) -> Priced:
        e, s, known = self.stage.extents, self.stage, self.instruction
        m, n, k = e[self.u], e[self.v], e[self.k]
        batch = prod(e[a] for a in s.axes if a not in (self.u, self.v))
        columns = grid(wy=(1, 2, 4), wx=(1, 2, 4), ty=(1, 2, 4), tx=(1, 2, 4, 8), depth=(1, 2, 4),
                       ahead=tuple(range(self.spec.ahead + 1)), parts=PARTS)  # fmt: skip
        wy, wx, ty, tx, depth, ahead, parts = columns.values()
        high, wide, deep = wy * ty * known.shape[0], wx * tx * known.shape[1], depth * known.shape[2]
        threads, size = wy * wx * known.lanes, known.operand.bytes
        shared = (1 + ahead) * sum(
            (self._run(a, high, wide, deep) * size + LINE) * self._rows(a, high, wide, deep) for a in self.operands
        )
        fits = np.ones(len(wy), bool)
        for a in self.operands:
            run = self._run(a, high, wide, deep)
            chunks = np.maximum(1, run * size // LINE)
            fits &= (run * size % LINE == 0) & (threads % chunks == 0) & (threads // chunks >= 1)
        held = self.spec.core.registers // threads if self.spec.core else 255
        room = np.minimum(held, 160 + ADDRESSES)
        rules = {
            "threads": (threads >= 64) & (threads <= min(512, self.spec.threads_per_block)),
            "registers": ty * tx * known.c.elements + ADDRESSES
            + depth * (ty * known.a.words(known.operand) + tx * known.b.words(known.operand)) <= room,
            "shared": shared <= self.spec.shared_bytes, "copy": fits,
            "whole tiles": (m % high == 0) & (n % wide == 0) & (k % deep == 0),
            "ahead": (ahead == 0) | (deep * (ahead + 1) * parts <= k),
            "parts": (parts == 1) | ((k % (deep * parts) == 0) & (len(s.axes) == 2)
                                     & (m * n < high * wide * self.spec.cores)),
        }  # fmt: skip
        keep = np.logical_and.reduce([*rules.values()])
        columns = select(columns, keep)
        rejected = {reason: int((~ok).sum()) for reason, ok in rules.items()}
        wy, wx, ty, tx, depth, ahead, parts = (c.astype(float) for c in columns.values())
        high, wide, deep = wy * ty * known.shape[0], wx * tx * known.shape[1], depth * known.shape[2]
        blocks, warps = batch * (m / high) * (n / wide) * parts, wy * wx
        multiply = 2.0 * high * wide * deep / self.rate  # of one block, one step of the reduction
        near = 128.0 * self.spec.frequency_hz  # bytes a second that shared memory delivers to one multiprocessor
        loads = [(a, *((known.b, tx) if a.uses(self.v) else (known.a, ty))) for a in self.operands]
        words = sum(n * (f.words(known.operand) if a.contiguous(self.k) else f.elements) for a, f, n in loads)
        fetch = (warps * depth * words * 128 + (high + wide) * deep * size) / near
        shared = select({"shared": shared}, keep)["shared"]
        registers = ty * tx * known.c.elements + ADDRESSES + ty * known.a.elements / 2 + tx * known.b.elements
        held = resident(self.spec, warps * known.lanes, shared, registers)
        held = np.minimum(held, np.maximum(1.0, blocks / self.spec.cores))
        work = held * (np.maximum(multiply, fetch) + 0.5 * np.minimum(multiply, fetch))
        step = waiting(self.spec, work + MEETING_CYCLES / self.spec.frequency_hz, ahead)
        waves = np.maximum(1.0, np.ceil(blocks / self.spec.cores) / held)
        traffic = batch * size * (m * k * (n / wide) + k * n * (m / high)) + batch * s.dtype.bytes * m * n
        moving = fetched(self.spec, traffic, batch * (size * (m * k + k * n) + s.dtype.bytes * float(m * n)))
        steps = k / deep / parts
        seconds = np.maximum(waves * step * steps, moving) + self.spec.launch_seconds
        seconds += beginning(self.spec, blocks)
        seconds += split_seconds(self.spec, s, parts, float(m * n))
        return Priced(columns, seconds, {"moving": moving, "multiply": waves * held * multiply * steps}, rejected)

    @property
    def operands(self) -> tuple[Access, ...]:
        return self.stage.loads

    def _run(self, a: Access, high: Any, wide: Any, deep: Any) -> Any:
        """Neighbouring elements of an operand's block."""
        return deep if a.contiguous(self.k) else wide if a.uses(self.v) else high

    def _rows(self, a: Access, high: Any, wide: Any, deep: Any) -> Any:
        """How many such runs a block has."""
        return (wide if a.uses(self.v) else high) if a.contiguous(self.k) else deep

    def schedule(self, point: Point) -> Schedule:
        s, v, u, k, known = self.stage, self.v, self.u, self.k, self.instruction
        name, threads = s.name, point["wy"] * point["wx"] * known.lanes
        tall, broad = point["ty"] * known.shape[0], point["tx"] * known.shape[1]
        high, wide, deep = point["wy"] * tall, point["wx"] * broad, point["depth"] * known.shape[2]
        before, after, apart = split(name, u, v, k, point["parts"], self.epilogues)
        batch = [*(a for a in s.axes if a not in (u, v)), *apart]
        steps: list[Step] = [*before, Reorder(name, (*batch, u, v, k)), Tile(name, ((u, high), (v, wide)))]
        steps += [Reorder(name, (f"{u}.1", f"{v}.1", k)), Split(name, k, deep)]
        steps.append(RegisterTile(name, ((f"{u}.1", tall), (f"{v}.1", broad))))
        steps.append(Distribute(name, (f"{u}.1.0", f"{v}.1.0"), f"{k}.0"))
        steps += [Pack(name, a.ordinal, f"{k}.0", (), True) for a in reversed(s.loads)]
        for a in reversed(s.loads):
            axis, rows = (v, wide) if a.uses(v) else (u, high)
            cache, near = f"{name}.load{a.ordinal}", a.contiguous(k)
            along, across = (a.dims[k], a.dims[axis]) if near else (a.dims[axis], a.dims[k])
            run, other = (deep, rows) if near else (rows, deep)
            steps += copied(cache, along, across, run, other, known.operand.bytes, threads)
            steps.append(Pad(cache, LINE // known.operand.bytes))
        if point["ahead"]:
            steps.append(Pipeline(name, f"{k}.0", True, point["ahead"]))
        inside = self.epilogues if not apart else ()
        steps += [ComputeAt(e, name) for e in inside]
        steps.append(Tensorize(name, known.name, f"{u}.1.1", f"{v}.1.1", f"{k}.1"))
        for stage in [name, *inside] if name in self.facts.temps else [name]:
            steps += [Bind(stage, f"{u}.1.0", "thread.z"), Bind(stage, f"{v}.1.0", "thread.y")]
        steps += [Bind(name, a, "block.z") for a in batch]
        return Schedule((*steps, Bind(name, f"{u}.0", "block.y"), Bind(name, f"{v}.0", "block.x"), *after))
