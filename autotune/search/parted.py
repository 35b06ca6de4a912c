"""The sketch of a long reduction to few results: parts of it on blocks of their own, each combined by its threads."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from ..devices.spec import DeviceSpec
from ..ir.schedule import Schedule
from ..ir.steps import Bind, ComputeAt, RegisterTile, Reorder, SplitReduction, Step, Tile, TreeReduce
from .facts import Facts, Stage
from .sketch import Point, Priced, grid, select
from .traffic import IN_FLIGHT, arithmetic, asked, beginning, latency, memory, resident, together

LONG = 2048  # contributions to one result from which on parts pay


def lent(spec: DeviceSpec, stage: Stage) -> int:
    """Lanes that read a stage's results of each other, where registers of its type can be read so."""
    return spec.shuffles if stage.dtype.bits in (32, 64) else 1


@dataclass(frozen=True)
class PartedSketch:
    """Holes: `threads` of a block along the reduction's axis `k`, neighbouring results `across` it, and
    `parts` of the reduction."""

    facts: Facts
    stage: Stage
    k: str
    epilogues: tuple[str, ...]
    spec: DeviceSpec
    name: str = "parted"

    @cached_property
    def results(self) -> int:
        return prod(self.stage.extents[a] for a in self.stage.axes)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Results that a block may have."""
        s = self.stage
        row = s.axes[-1] if s.axes else ""
        along, across = (sum(a.buffer.bytes for a in s.reads if a.contiguous(x)) for x in (self.k, row))
        if across <= along:
            return (1,)
        return tuple(n for n in (1, 16, 32, 64) if n <= s.extents[row])

    def priced(self) -> Priced:
        spec, s, size = self.spec, self.stage, self.stage.extents[self.k]
        most = max(2, 8 * spec.cores * self.widths[-1] // self.results)
        divisors = [n for n in range(2, min(most, size // 64) + 1) if size % n == 0]
        chosen = tuple(divisors[n] for n in sorted({len(divisors) * i // 12 for i in range(12)})) if divisors else ()
        columns = grid(threads=(4, 8, 16, 32, 64, 128, 256, 512), across=self.widths, parts=chosen)
        threads, across, parts = columns.values()
        block = threads * across
        rules = {
            "threads": (block >= 64) & (block <= spec.threads_per_block),
            "parts": (size // np.maximum(parts, 1) >= threads) & (parts * self.results <= 8 * spec.cores * across),
        }
        keep = np.logical_and.reduce([*rules.values()])
        columns = select(columns, keep)
        threads, across, parts = (c.astype(float) for c in columns.values())
        blocks, moved = parts * np.ceil(self.results / across), float(self.facts.program.bytes)
        rest = [a for a in s.reduce_axes if a != self.k]
        rounds = np.ceil(size / parts / threads) * prod(s.extents[a] for a in rest)
        waves = np.ceil(blocks / (spec.cores * resident(spec, threads * across)))
        waited = waves * latency(spec) * np.maximum(1.0, rounds / IN_FLIGHT)
        of = asked(s, [*([(s.axes[-1], across)] if s.axes else []), (self.k, threads)], rest)
        moving = memory(spec, s, blocks, of, moved, moved)
        busy = arithmetic(spec, s, blocks, threads * across, 0.5)
        meeting = (np.log2(threads) + np.log2(parts) + parts / 256) * 40 / spec.frequency_hz + latency(spec)
        seconds = together(waited, moving, busy, beginning(spec, blocks)) + meeting + 2 * spec.launch_seconds
        return Priced(columns, seconds, {"meeting": meeting}, {why: int((~ok).sum()) for why, ok in rules.items()})

    def schedule(self, point: Point) -> Schedule:
        s, k, warp, across = self.stage, self.k, lent(self.spec, self.stage), point["across"]
        name, total, part = s.name, f"{s.name}.total", f"{self.k}.part"
        rest, row = [a for a in s.reduce_axes if a != k], s.axes[-1] if s.axes else ""
        steps: list[Step] = [SplitReduction(name, k, point["parts"])]
        steps += [Reorder(name, (*s.axes, *rest, k))] if rest else []
        wide, to = (((row, across),), "thread.y") if across > 1 else ((), "thread.x")
        steps += [RegisterTile(name, ((k, point["threads"]), *wide)), TreeReduce(name, 1 if wide else warp, to)]
        if wide:
            steps += [Tile(total, ((row, 64),)), Reorder(total, (f"{row}.1", part))]
            steps += [RegisterTile(total, ((f"{row}.1", 1),)), Bind(name, f"{row}.1", "thread.x")]
            steps.append(Bind(total, f"{row}.1.0", "thread.x"))
        else:
            each = 1 << min(8, (point["parts"] - 1).bit_length())
            steps += [RegisterTile(total, ((part, each),)), TreeReduce(total, warp if each % warp == 0 else 1)]
            steps.append(Bind(total, f"{part}.1", "thread.x"))
        steps += [ComputeAt(e, name) for e in self.epilogues]
        steps += [Bind(name, f"{k}.1", to), Bind(name, part, "block.x")]
        axes = [*s.axes[:-1], f"{row}.0"] if wide else s.axes
        for stage in (name, total):
            steps += [Bind(stage, a, f"block.{x}") for a, x in zip(axes, "yz")]
        return Schedule(tuple(steps))


def parted(facts: Facts, s: Stage, epilogues: tuple[str, ...], spec: DeviceSpec) -> PartedSketch | None:
    """For a first stage that reduces much to less than what the multiprocessors could share."""
    if not s.is_reduction or len(s.axes) > 2:
        return None
    k = max(s.reduce_axes, key=lambda a: (sum(x.contiguous(a) for x in s.reads), s.extents[a]))
    found = PartedSketch(facts, s, k, epilogues, spec)
    return found if s.extents[k] >= LONG and found.results <= spec.cores * found.widths[-1] else None
