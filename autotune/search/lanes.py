"""Sketch of a reduction whose vector loop is a reduction axis: every lane accumulates its own part, and the lanes meet
at the end.

For row sums and for products whose operands are contiguous along the reduction. Several results at once share loads,
keep several streams of memory going and hide the latency of the accumulators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..devices.spec import DeviceSpec
from ..ir.schedule import Schedule
from ..ir.steps import ComputeAt, Parallel, RegisterTile, Reorder, Split, Step, Unroll
from .facts import Facts, Stage
from .machine import Machine
from .panel import MAX_STATEMENTS
from .sketch import Point, Priced, broken, grid, select, vectorized

LATE = 0.004  # how much slower what is nearer than memory is read for each row more that is read at once
CROWDED = 1.25  # how much slower a step is whose lines push each other out of the first cache


@dataclass(frozen=True)
class LanesSketch:
    """Holes: rows (of `u`) and columns (of `w`) computed at once, vectors of accumulators each, block of `u` for
    threads."""

    facts: Facts
    stage: Stage
    k: str
    u: str | None
    w: str | None
    epilogues: tuple[str, ...]
    spec: DeviceSpec
    threads: int
    name: str = "lanes"
    pruned: bool = True

    @property
    def lanes(self) -> int:
        full, n = self.spec.lanes(self.stage.widest), self.stage.extents[self.k]
        return full if n >= full else 1 << max(n - 1, 0).bit_length()

    @property
    def _crossing(self) -> bool:
        """Full vectors are as wide as a cache line."""
        return self.spec.vector_bits // 8 >= self.spec.line

    def _bytes(self, axis: str) -> int:
        return sum(a.buffer.bytes for a in self.stage.loads if a.uses(axis))

    def _crowd(self, mach: Machine, rows: NDArray[Any], columns: NDArray[Any]) -> NDArray[Any]:
        """How many lines the streams of a step want in one set of the first cache."""
        def streams(axis: str | None, several: NDArray[Any]) -> Any:
            return several * any(mach.aliased(a.apart(axis)) for a in self.stage.reads) if axis else 1

        return np.asarray(streams(self.u, rows) + streams(self.w, columns))

    def _loads(self, axis: str | None) -> int:
        return sum(a.uses(axis) for a in self.stage.reads) if axis else 0

    def priced(self) -> Priced:
        e, lanes, stage = self.stage.extents, self.lanes, self.stage
        m, n, k = e[self.u] if self.u else 1, e[self.w] if self.w else 1, e[self.k]
        rows = tuple(r for r in (1, 2, 3, 4, 6, 8) if r == 1 or r <= m)
        columns = grid(
            mr=rows, nr=tuple(r for r in (1, 2, 3, 4, 6, 8) if r == 1 or r <= n) if self.w else (1,),
            nv=tuple(x for x in (1, 2, 4, 8) if x == 1 or x * lanes <= k),
            half=(0, 1) if lanes > 4 and self._crossing else (0,),
        )  # fmt: skip
        chains = columns["mr"] * columns["nr"] * columns["nv"]
        used = chains + columns["mr"] * columns["nv"] + 1
        rules = {"registers": used <= self.spec.vector_registers, "size": chains * 4 <= MAX_STATEMENTS}
        keep = rules["registers"] & (rules["size"] | (not self.pruned))
        rejected = {reason: int((~ok).sum()) for reason, ok in rules.items()}
        why = broken({"size": rules["size"][keep]}) if not self.pruned else None
        columns = select(columns, keep)
        mach = Machine(self.spec, self.threads, stage.widest)
        mr, nr, nv = (columns[c].astype(float) for c in ("mr", "nr", "nv"))
        width = lanes // (1 + columns["half"].astype(float))
        size = stage.dtype.compute.bytes
        others = float(stage.compute.points) / (m * n * k)
        chains = mr * nr * nv
        by_u, by_w = self._loads(self.u), self._loads(self.w)
        if self.w:
            vector_loads = nv * (mr * min(by_u, 1) + nr * min(by_w, 1))
        else:
            vector_loads = nv * (mr * by_u + len(stage.reads) - by_u)
        # Arrays start anywhere: vectors as wide as a line lie across two of them. A machine that issues one full vector
        # a cycle issues two of half the width.
        half = columns["half"]
        crossing = 1.5 if self._crossing or (k * size) % 64 else 1.0
        fma = np.where(mach.fma_per_cycle <= 1, mach.fma_per_cycle * (1 + half), mach.fma_per_cycle)
        issued = np.where(mach.loads_per_cycle <= 1, mach.loads_per_cycle * (1 + half), mach.loads_per_cycle)
        ops = max(stage.light - 1, 1) + 12 * stage.heavy
        chain = np.ceil(k / (nv * width)) * (chains * ops + vector_loads)
        step = np.maximum(np.maximum(chains * ops / fma, vector_loads * crossing / issued), mach.latency(chain))
        step = np.maximum(step, (chains * ops + vector_loads + 3) / 5.0)
        tiles = np.ceil(m / mr) * np.ceil(n / nr) * others
        compute = tiles * np.ceil(k / (nv * width)) * step * mach.cycle
        tail = tiles * (mr * nr * 10 + chains * 2 + 15 + np.where(k % (nv * width) > 0, step + 5, 0)) * mach.cycle
        bytes_in = sum(min(float(a.buffer.bytes), 1e18) for a in stage.loads)
        home = mach.level(bytes_in)
        streams = np.maximum(mr * nr, 1)
        # Memory needs several streams to be busy.
        flow = np.where(streams >= 4, 1.0, 0.8) if home == "DRAM" else 1 / (1 + LATE * np.minimum(streams - 1, 8))
        crowded = np.where(self._crowd(mach, mr, nr) > mach.l1_ways, CROWDED, 1.0)
        compute, memory = compute * crowded, bytes_in * mach.byte(home) / flow * crowded
        share = 1.0 / self.threads if m * others >= self.threads * 2 else 1.0
        busy = (compute + tail) * share
        memory = memory * max(share, 1.0 / mach.streams) + 0.0 * mr
        # The end of one row runs beside the reading of the next.
        leak = 0.15 * np.minimum(compute * share, memory) + 0.03 * tail * share
        seconds = np.maximum(busy, memory) + leak + mach.launch(self.threads)
        return Priced(columns, seconds, {"compute": compute, "combine": tail, "memory": memory}, rejected, why)

    def schedule(self, point: Point) -> Schedule:
        s, k, lanes = self.stage.name, self.k, self.lanes // (1 + point["half"])
        outer = [a for a in self.stage.axes if a not in (self.u, self.w)]
        inner = [a for a in self.stage.reduce_axes if a != k]
        tiled = [(a, f) for a, f in ((self.u, point["mr"]), (self.w, point["nr"])) if a]
        # The larger operand's axis is outermost: that operand then passes by once, and the other comes from near.
        tiled.sort(key=lambda t: -self._bytes(t[0]))
        steps: list[Step] = []
        first = (outer + [a for a, _ in tiled] or [None])[0]  # type: ignore[list-item]
        parallel = self.threads > 1 and first is not None and self.stage.extents[first] >= self.threads
        order = outer + [a for a, _ in tiled] + inner + [k]
        blocked = bool(tiled) and (bool(self.epilogues) or (parallel and not outer))
        if blocked:
            # Threads, and stages that follow, take whole blocks of results; the register tile is cut inside them.
            n, f = self.stage.extents[tiled[0][0]], tiled[0][1]
            block = max(f, -(-min(64, -(-n // (4 * self.threads))) // f) * f)
            steps.append(Split(s, tiled[0][0], block))
            name = tiled[0][0]
            tiled[0] = (f"{name}.1", f)
            order = [*outer, f"{name}.0", f"{name}.1", *order[len(outer) + 1 :]]
            first = outer[0] if outer else f"{name}.0"
        steps.append(Reorder(s, tuple(order)))
        steps.append(RegisterTile(s, (*tiled, (k, point["nv"] * lanes))))
        steps += [Unroll(s, f"{a}.1") for a, _ in tiled]
        steps += vectorized(s, f"{k}.1", lanes)
        if self.epilogues:
            steps += [
                ComputeAt(e, s, f"{tiled[0][0].removesuffix('.1')}.0" if tiled else outer[-1]) for e in self.epilogues
            ]
        if parallel and first:
            steps.append(Parallel(s, first))
        return Schedule(tuple(steps))


def lanes_sketches(
    facts: Facts, stage: Stage, epilogues: tuple[str, ...], spec: DeviceSpec, threads: int
) -> list[LanesSketch]:
    """One for each reduction axis along which every load that moves with it is contiguous."""
    found = []
    for k in stage.reduce_axes:
        moving = [a for a in stage.loads if a.uses(k)]
        if not moving or not all(a.contiguous(k) for a in moving):
            continue
        axes = sorted(stage.axes, key=lambda a: -stage.extents[a])
        axes = [a for a in axes if stage.extents[a] > 1]
        w = next((a for a in axes if any(not ld.uses(a) for ld in moving)), None)
        u = next((a for a in axes if a != w), None)
        if u is None and w is not None:
            u, w = w, None
        if epilogues and not axes:
            continue
        found.append(LanesSketch(facts, stage, k, u, w, epilogues, spec, threads))
    return found
