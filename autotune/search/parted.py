"""The sketch of a long reduction to few results: parts of it on blocks of their own, each combined by its threads."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from ..devices.spec import DeviceSpec
from ..ir.schedule import Schedule
from ..ir.steps import Bind, ComputeAt, RegisterTile, Reorder, SplitReduction, Step, TreeReduce
from .facts import Facts, Stage
from .sketch import Point, Priced, grid, select
from .traffic import beginning

LONG = 2048  # contributions to one result from which on parts pay


def lent(spec: DeviceSpec, stage: Stage) -> int:
    """Lanes that read a stage's results of each other, where registers of its type can be read so."""
    return spec.shuffles if stage.dtype.bits in (32, 64) else 1


@dataclass(frozen=True)
class PartedSketch:
    """Holes: threads of a block, and parts of the reduction along its inner axis `k`."""

    facts: Facts
    stage: Stage
    k: str
    epilogues: tuple[str, ...]
    spec: DeviceSpec
    name: str = "parted"

    def priced(self) -> Priced:
        size, results = self.stage.extents[self.k], prod(self.stage.extents[a] for a in self.stage.axes)
        most = max(2, 8 * self.spec.cores // results)
        divisors = [n for n in range(2, min(most, size // 64) + 1) if size % n == 0]
        chosen = tuple(divisors[n] for n in sorted({len(divisors) * i // 12 for i in range(12)})) if divisors else ()
        columns = grid(threads=(64, 128, 256, 512), parts=chosen)
        threads, parts = columns["threads"], columns["parts"]
        keep = (threads <= self.spec.threads_per_block) & (size // np.maximum(parts, 1) >= threads)
        columns = select(columns, keep)
        threads, parts = (c.astype(float) for c in columns.values())
        warps = np.minimum(1.0, threads * np.maximum(1.0, parts * results / self.spec.cores) / 1024)
        share = np.minimum(1.0, parts * results / self.spec.cores) * warps
        moved = float(self.facts.program.bytes) / self.spec.bytes_per_second("DRAM", "read")
        meeting = (np.log2(threads) + np.log2(parts) + parts / 256) * 40 / self.spec.frequency_hz
        seconds = moved / np.maximum(share, 0.01) + meeting + 2 * self.spec.launch_seconds
        seconds = seconds + beginning(self.spec, parts * results)
        return Priced(columns, seconds, {"meeting": meeting}, {"threads": int((~keep).sum())})

    def schedule(self, point: Point) -> Schedule:
        s, k, warp = self.stage, self.k, lent(self.spec, self.stage)
        name, total, part = s.name, f"{s.name}.total", f"{self.k}.part"
        rest = [a for a in s.reduce_axes if a != k]
        steps: list[Step] = [SplitReduction(name, k, point["parts"])]
        steps += [Reorder(name, (*s.axes, *rest, k))] if rest else []
        together = 1 << min(8, (point["parts"] - 1).bit_length())
        steps += [RegisterTile(name, ((k, point["threads"]),)), TreeReduce(name, warp)]
        steps += [RegisterTile(total, ((part, together),)), TreeReduce(total, warp if together % warp == 0 else 1)]
        steps += [ComputeAt(e, name) for e in self.epilogues]
        steps += [Bind(name, f"{k}.1", "thread.x"), Bind(total, f"{part}.1", "thread.x"), Bind(name, part, "block.x")]
        for stage in (name, total):
            steps += [Bind(stage, a, f"block.{x}") for a, x in zip(s.axes, "yz")]
        return Schedule(tuple(steps))


def parted(facts: Facts, s: Stage, epilogues: tuple[str, ...], spec: DeviceSpec) -> PartedSketch | None:
    """For a first stage that reduces much to less than what the multiprocessors could share."""
    results = prod(s.extents[a] for a in s.axes)
    if not s.is_reduction or len(s.axes) > 2 or results > spec.cores:
        return None
    k = max(s.reduce_axes, key=lambda a: (sum(x.contiguous(a) for x in s.reads), s.extents[a]))
    return PartedSketch(facts, s, k, epilogues, spec) if s.extents[k] >= LONG else None
