"""The sketch of a map that reads along one axis and writes along another: tiles pass through shared memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from ..devices.spec import DeviceSpec
from ..ir.schedule import Schedule
from ..ir.steps import Bind, Pack, Pad, Reorder, Split, Step, Tile, Unroll, copy_loop
from .facts import Access, Facts, Stage
from .sketch import Point, Priced, grid, select
from .traffic import beginning, latency, memory, moved, plain, resident, together

WORD = 4  # bytes of a bank of shared memory


@dataclass(frozen=True)
class TurnedSketch:
    """A block a square of the axes `u` (which loads run along) and `v` (which the store runs along). Holes: its `side`,
    and the rows of threads (`ty`); as many threads as are in a side make a row."""

    facts: Facts
    stage: Stage
    u: str
    spec: DeviceSpec
    name: str = "turned"

    @property
    def v(self) -> str:
        return self.stage.axes[-1]

    @cached_property
    def turned(self) -> tuple[Access, ...]:
        return tuple(a for a in self.stage.loads if turned(a, self.u, self.v))

    def priced(self) -> Priced:
        spec, s, e = self.spec, self.stage, self.stage.extents
        columns = grid(side=(16, 32, 64), ty=(2, 4, 8, 16))
        side, ty = columns.values()
        shared = np.add.reduce([(side + self._pad(a)) * side * a.buffer.dtype.bytes for a in self.turned])
        rules = {
            "threads": (side * ty >= 64) & (side * ty <= min(512, spec.threads_per_block)) & (ty <= side // 2),
            "shared": shared <= spec.shared_bytes,
        }
        keep = np.logical_and.reduce([*rules.values()])
        columns = select(columns, keep)
        side, ty, shared = (c[keep].astype(float) for c in (side, ty, shared))
        rest = prod(e[a] for a in s.axes if a not in (self.u, self.v))
        blocks = rest * np.ceil(e[self.u] / side) * np.ceil(e[self.v] / side)
        waste = blocks * side * side / s.compute.points
        size = moved([s])
        moving = memory(spec, s, blocks, plain(s, side, 2 * len(self.turned)), size * waste, size)
        waves = np.ceil(blocks / (spec.cores * resident(spec, side * ty, shared)))
        waited = waves * latency(spec) * (1 + side / ty / 16)
        seconds = together(moving, waited, beginning(spec, blocks)) + spec.launch_seconds
        return Priced(columns, seconds, {"moving": moving}, {why: int((~ok).sum()) for why, ok in rules.items()})

    def _pad(self, a: Access) -> int:
        """Elements by which rows are longer, so that threads which walk down a column meet every bank."""
        return max(1, WORD // a.buffer.dtype.bytes)

    def schedule(self, point: Point) -> Schedule:
        s, u, v, side, ty = self.stage, self.u, self.v, point["side"], point["ty"]
        name, rest = s.name, [a for a in s.axes if a not in (u, v)]
        order = (*rest[:1], u, v, *rest[1:])
        steps: list[Step] = [Reorder(name, order)] if order != s.axes else []
        steps += [Tile(name, ((u, side), (v, side))), Split(name, f"{u}.1", ty)]
        at = rest[-1] if rest[1:] else f"{v}.0"
        steps += [Pack(name, a.ordinal, at, (), True) for a in reversed(self.turned)]
        for a in self.turned:
            cache = f"{name}.load{a.ordinal}"
            along, down = copy_loop(cache, a.dims[u]), copy_loop(cache, a.dims[v])
            steps += [Split(cache, down, ty), Unroll(cache, f"{down}.0"), Bind(cache, f"{down}.1", "thread.y")]
            steps += [Bind(cache, along, "thread.x"), Pad(cache, self._pad(a))]
        steps += [Unroll(name, f"{u}.1.0"), Bind(name, f"{u}.1.1", "thread.y"), Bind(name, f"{v}.1", "thread.x")]
        steps += [Bind(name, a, "block.z") for a in rest[:1]]
        return Schedule((*steps, Bind(name, f"{u}.0", "block.y"), Bind(name, f"{v}.0", "block.x")))


def turned(a: Access, u: str, v: str) -> bool:
    """Does an operand run along `u`, and move with `v` too?"""
    return a.contiguous(u) and a.panel_dim(u) is not None and a.panel_dim(v) is not None


def turned_sketch(facts: Facts, s: Stage, spec: DeviceSpec) -> TurnedSketch | None:
    """For a plain store along its last axis, some of whose loads run along another one."""
    if s.is_reduction or len(facts.stages) > 1 or len(s.axes) < 2 or not s.store.contiguous(s.axes[-1]):
        return None
    v = s.axes[-1]
    found = {u: sum(a.buffer.bytes for a in s.loads if turned(a, u, v)) for u in s.axes[:-1]}
    u = max(found, key=lambda a: found[a])
    return TurnedSketch(facts, s, u, spec) if found[u] and min(s.extents[u], s.extents[v]) >= 8 else None
