"""Sketch of a reduction whose vector loop is an axis of the result: register tile, three levels of blocking, packed
operands.

`v` is the vector axis, `u` a second axis of the result (the rows of the register tile), `k` the reduction axis that is
blocked. Operands are known only by which of these they move with: "wide" loads move with v and not with u, "tall" ones
with u and not v.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..devices.spec import DeviceSpec
from ..ir.dots import Dot, factors
from ..ir.expr import loads, names
from ..ir.schedule import Schedule
from ..ir.steps import (
    ComputeAt,
    DotProduct,
    Pack,
    Parallel,
    Prefetch,
    RegisterTile,
    Reorder,
    Split,
    Step,
    Tile,
    Unroll,
    Vectorize,
    copy_loop,
)
from ..ir.steps.pack import staged
from .facts import NEAR, UNKNOWN, Access, Facts, Stage
from .machine import Machine
from .panel_model import PORTS, STREAMS, price
from .sketch import Columns, Point, Priced, broken, ceil_div, grid, select, unique, vectorized

_ORDERS = (("v", "k", "u"), ("u", "k", "v"))
MAX_STATEMENTS = 900
MAX_TILES = 10


@dataclass(frozen=True)
class PanelSketch:
    """Holes: order, rows (mr), vectors (nv), kc, mc, nc, ku, pack of wide and of tall loads, prefetch, epilogue
    placement."""

    facts: Facts
    stage: Stage
    v: str
    u: str | None
    k: str
    epilogues: tuple[str, ...]
    spec: DeviceSpec
    threads: int
    name: str = "panel"
    pruned: bool = True

    @cached_property
    def lanes(self) -> int:
        full, n = self.spec.lanes(self.stage.widest), self.stage.extents[self.v]
        return full if n >= full else 1 << max(n - 1, 0).bit_length()

    @cached_property
    def wide(self) -> tuple[Access, ...]:
        return tuple(a for a in self.stage.loads if a.uses(self.v) and not (self.u and a.uses(self.u)))

    @cached_property
    def tall(self) -> tuple[Access, ...]:
        return tuple(a for a in self.stage.loads if self.u and a.uses(self.u) and not a.uses(self.v))

    @cached_property
    def batch(self) -> tuple[str, ...]:
        return tuple(a for a in self.stage.axes if a not in (self.v, self.u))

    @cached_property
    def near(self) -> tuple[str, ...]:
        """Of these, axes that no wide operand moves with: what is packed of it serves them all."""
        found = [a for a in self.batch if not any(ld.uses(a) for ld in self.wide)]
        return tuple(sorted(found, key=lambda a: -self.stage.extents[a]))

    @cached_property
    def far(self) -> tuple[str, ...]:
        return tuple(a for a in self.batch if a not in self.near)

    @cached_property
    def inner_reductions(self) -> tuple[str, ...]:
        return tuple(a for a in self.stage.reduce_axes if a != self.k)

    def _packable(self, accesses: tuple[Access, ...], axis: str | None) -> bool:
        return bool(accesses) and axis is not None and all(a.panel_dim(axis) is not None for a in accesses)

    def _alone(self, *groups: tuple[Access, ...]) -> list[Access]:
        """The operands to pack, last load first: none that another one's copy takes in, as part of a prologue."""
        body, found, covered = self.stage.compute.body, list[Access](), set[int]()
        every = loads(body)
        inside = {a.ordinal: {id(ld) for ld in loads(staged(body, every[a.ordinal]))} for g in groups for a in g}
        for a in sorted((a for g in groups for a in g), key=lambda a: -len(inside[a.ordinal])):
            if id(every[a.ordinal]) not in covered:
                covered |= inside[a.ordinal]
                found.append(a)
        return sorted(found, key=lambda a: -a.ordinal)

    @cached_property
    def windowed(self) -> bool:
        """Of a wide operand, other loops reach the same elements: a copy of it has a dimension for each loop."""
        return any(a.panel_dim(self.v) is None for a in self.wide)

    @cached_property
    def spaced(self) -> bool:
        """A wide operand is not contiguous along the vectors: it must be packed."""
        return any(not a.contiguous(self.v) for a in self.wide)

    @cached_property
    def dot(self) -> Dot | None:
        """The dot instruction that computes this sum of products of narrow numbers, along the blocked axis."""
        c, k = self.stage.compute, self.k
        pair = factors(c.body, c.dtype) if c.combiner == "sum" else None
        if pair is None or len(self.wide) != 1 or len(self.tall) != 1 or not self.tall[0].contiguous(k):
            return None
        if any(a.panel_dim(x) is None for a, x in ((self.wide[0], self.v), (self.wide[0], k), (self.tall[0], k))):
            return None
        return next((d for d in self.spec.dots if d.result == c.dtype and self.stage.extents[k] % d.length == 0
                     and all(d.takes(ld.dtype) for ld in pair)), None)  # fmt: skip

    @cached_property
    def strided(self) -> bool:
        """It must be packed through a transposition."""
        return self.spaced and not self.windowed

    # ---- points ----

    def _columns(self) -> tuple[Columns, dict[str, int], NDArray[np.str_] | None]:
        e, lanes = self.stage.extents, self.lanes
        m, n, k = e[self.u] if self.u else 1, e[self.v], e[self.k]
        vectors = tuple(x for x in (1, 2, 3, 4, 6, 8) if x == 1 or x <= -(-n // lanes))
        rows = (
            tuple(r for r in (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28) if r == 1 or r <= m)
            if self.u
            else (1,)
        )
        wide_modes = (2,) if self.strided else (3,) if self.spaced else (0, 3) if self.windowed else (
            (0, 1, 8) if self._packable(self.wide, self.v) else (0,)
        )  # fmt: skip
        tall_modes: tuple[int, ...] = (0, 1, 2) if self._packable(self.tall, self.u) else (0,)
        if not any(a.contiguous(self.k) for a in self.tall):
            tall_modes = tall_modes[:2]
        blocks = tuple(dict.fromkeys((k, *_depths(k, 4 * lanes), *((4, 8, 16) if k > 64 and m <= 32 else ()))))
        tiles, rejected = self._tiles(rows, vectors, m, n)
        small = (m * k + k * n + m * n) * self.stage.dtype.compute.bytes < (
            self.spec.caches[1].bytes if len(self.spec.caches) > 1 else 1 << 19
        )
        columns = grid(
            order=(0, 1) if self.u else (0,), tile=tuple(range(len(tiles))), kc=blocks,
            mb=(1,) if small else (1, 2, 4, 8), nb=(1, 2) if small and self.threads == 1 else (1, 2, 4, 8),
            wide=wide_modes, tall=tall_modes, epi=(0, 1) if self.epilogues else (0,),
            **({"dot": (0, 1)} if self.dot else {}),
        )  # fmt: skip
        if self.dot:  # columns are packed in groups, rows are read as they lie or kept as wider numbers
            kept = int(self.tall[0].buffer.dtype != self.dot.operand)
            grouped = (columns["wide"] % 8 > 0) & (columns["tall"] == kept) & (columns["kc"] % self.dot.length == 0)
            fits = (columns["dot"] == 0) | (grouped & ((columns["kc"] > STREAMS) | (columns["kc"] >= k)))
            rejected["dot"] = int((~fits).sum())
            columns = select(columns, fits)
        table = np.array(tiles, dtype=np.int64)
        tile = columns.pop("tile")
        columns["mr"], columns["nv"] = table[tile, 0], table[tile, 1]
        mr, nv = columns["mr"], columns["nv"]
        heavy = any(self.facts.by_name[e].heavy for e in self.epilogues)
        rules = {
            "slow-tile": tile < MAX_TILES,
            "epilogue-stream": (columns["kc"] > STREAMS) | (columns["kc"] >= k) | (not self.epilogues),
            "epilogue-late": (columns["epi"] == 0) | (columns["kc"] < k) | heavy,
            "stream": (columns["kc"] > STREAMS)
            | (columns["kc"] >= k)
            | ((columns["wide"] == 0) & (columns["tall"] == 0) & (columns["nb"] == 1) & (m <= 32)),
            # What is read once, by one row, is not worth a copy.
            "copy": (columns["wide"] == 0) | self.spaced | (m > 1),
            "row-block": (columns["mb"] == 1) | (m >= columns["mb"] * mr),
            "column-block": (columns["nb"] == 1) | (n >= columns["nb"] * nv * lanes),
        }
        why = broken(rules) if not self.pruned else None
        keep = np.ones(len(mr), dtype=bool)
        for reason, ok in rules.items():
            rejected[reason] = rejected.get(reason, 0) + int((keep & ~ok).sum())
            keep &= ok
        columns = columns if why is not None else select(columns, keep)
        mr, nr = columns["mr"], columns["nv"] * lanes
        columns["mc"] = ceil_div(ceil_div(m, columns.pop("mb")), mr) * mr
        columns["nc"] = ceil_div(ceil_div(n, columns.pop("nb")), nr) * nr
        if self.threads > 1 and not self.far:
            units = np.where(columns["order"] == 0, ceil_div(n, columns["nc"]), ceil_div(m, columns["mc"]))
            idle = units < min(self.threads, units.max())  # some threads would have nothing to do
            rejected["idle-threads"] = int(idle.sum())
            if why is not None:
                why = np.where((why == "") & idle, "idle-threads", why)
            else:
                columns = select(columns, ~idle)
        if why is not None:  # of equal points the one that is kept comes first
            order = np.argsort(why != "", kind="stable")
            columns, why = select(columns, order), why[order]
        once = unique(columns)
        return select(columns, once), rejected, None if why is None else why[once]

    def _tiles(
        self, rows: tuple[int, ...], vectors: tuple[int, ...], m: int, n: int
    ) -> tuple[list[tuple[int, int]], dict[str, int]]:
        """The register tiles worth combining with blockings: those that fit, by the cycles they spend on the whole
        result."""
        mach = Machine(self.spec, 1, self.stage.widest)
        fits = [(r, w) for r in rows for w in vectors if r * w + w + 1 <= self.spec.vector_registers]
        spills = len(rows) * len(vectors) - len(fits)

        def cycles(r: int, w: int) -> float:
            full, rest = divmod(m, r)
            columns: list[float] = [w] * (n // (w * self.lanes))
            columns += [mach.vectors(n % (w * self.lanes), self.lanes)] if n % (w * self.lanes) else []
            far = self.stage.extents[self.k] * w * self.lanes * self.stage.dtype.compute.bytes > mach.l1
            return sum(times * (max(h * c / mach.fma_per_cycle, float(mach.loading(c, h)), mach.fma_latency,
                                    float(mach.refill(c, self.lanes)) if far else 0.0) + PORTS * (h + c))
                       for h, times in ((r, full), (rest, 1)) if h for c in columns)  # fmt: skip

        ranked = sorted(fits, key=lambda t: (cycles(*t), -t[0] * t[1]))
        kept = ranked[:MAX_TILES] if self.pruned else ranked
        return kept, {"registers": spills, "slow-tile": len(ranked) - len(kept)}

    def priced(self) -> Priced:
        columns, rejected, why = self._columns()
        seconds, terms = price(self, columns)
        return Priced(columns, seconds, terms, rejected, why)

    # ---- schedule ----

    def schedule(self, point: Point) -> Schedule:
        s, v, u, k, lanes = self.stage.name, self.v, self.u, self.k, self.lanes
        mr, nr, kc, nc = point["mr"], point["nv"] * lanes, point["kc"], point["nc"]
        axis = {"v": v, "u": u, "k": k}
        steps: list[Step] = [Split(s, v, nc), Split(s, k, kc)]
        steps += [Split(s, u, point["mc"])] if u else []
        outer = [f"{axis[a]}.0" for a in _ORDERS[point["order"]] if axis[a]]
        inner = [f"{v}.1"] + ([f"{u}.1"] if u else [])
        # The order that has columns outermost packs the wide operand there, around what it serves.
        head = [*self.far, *self.near, *outer] if point["order"] else [*self.far, *outer[:2], *self.near, *outer[2:]]
        steps.append(Reorder(s, (*head, *inner, *self.inner_reductions, f"{k}.1")))

        def inside(name: str) -> str:
            return max(f"{name}.0", f"{k}.0", key=outer.index)

        dot = self.dot if point.get("dot") else None
        packs, cached = self._groups(point, inside, dot) if dot else self._operands(point, inside)
        steps += packs
        tiles = (((f"{u}.1", mr),) if u else ()) + ((f"{v}.1", nr),)
        stream = kc <= STREAMS and kc < self.stage.extents[k] and not self.inner_reductions
        steps.append(RegisterTile(s, tiles, ((f"{k}.1", kc),) if stream else ()))
        steps += [Unroll(s, f"{k}.1.1")] if stream else []
        if (
            self.stage.extents[v] * (self.stage.extents[u] if u else 1) > 4096
            and self.stage.compute.points > 1 << 20
        ):
            steps.append(Prefetch(s))
        marked = [s]
        for e in self.epilogues:
            where = "" if point["epi"] == 0 else next(n for n in reversed(outer) if n != f"{k}.0")
            steps.append(ComputeAt(e, s, where))
            if where:
                # Blocks that are cut again must be whole tiles, but for the last one.
                width = 4 * lanes if nc >= self.stage.extents[v] or nc % (4 * lanes) == 0 else nr
                cached += [Tile(e, ((f"{v}.e", width),)), *vectorized(e, f"{v}.e.1", lanes)]
            elif s in self.facts.temps:
                marked.append(e)
        for stage in marked:
            if u:
                steps.append(Unroll(stage, f"{u}.1.1"))
            steps += vectorized(stage, f"{v}.1.1", lanes)
        steps += [DotProduct(s, f"{k}.1", dot.name)] if dot else []
        steps += cached
        if self.threads > 1:
            steps.append(Parallel(s, head[0], 1))
        return Schedule(tuple(steps))

    def _operands(self, point: Point, inside: Callable[[str], str]) -> tuple[list[Step], list[Step]]:
        """The packs of operands, and the steps of their copies."""
        packs, copies, nr = list[Step](), list[Step](), point["nv"] * self.lanes
        # From the last load to the first: an operand that is packed counts as one load from then on.
        for a in self._alone(self.wide if point["wide"] else (), self.tall if point["tall"] else ()):
            if a in self.wide and point["wide"] == 3:
                copy = self._windows(a, inside(self.v), nr)
                panel = copy_loop(copy.name, len(copy.loops) - 1)
                packs.append(copy)
                copies += [Tile(copy.name, ((panel, nr),)), *vectorized(copy.name, f"{panel}.1", self.lanes)]
            elif a in self.wide:
                packs.append(Pack(self.stage.name, a.ordinal, inside(self.v), ((a.dims[self.v], nr),)))
                copies += self._copy(a, self.v, nr, point["wide"], not a.contiguous(self.v))
            elif self.u is not None:
                panels = ((a.dims[self.u], point["mr"]),) if point["tall"] == 2 and a.contiguous(self.k) else ()
                packs.append(Pack(self.stage.name, a.ordinal, inside(self.u), panels))
                copies += self._copy(a, self.u, point["mr"], 1, True) if panels else self._rows(a)
        return packs, copies

    def _groups(self, point: Point, inside: Callable[[str], str], dot: Dot) -> tuple[list[Step], list[Step]]:
        """The same for a dot instruction: a panel's columns hold neighbours of the reduction together, rows woven or
        groups turned as they are; rows are read as they lie, or kept as the instruction's numbers."""
        packs, copies, lanes, group = list[Step](), list[Step](), self.lanes, dot.length
        for a in sorted((*self.wide, *self.tall), key=lambda a: -a.ordinal):
            kept = "" if a.buffer.dtype == dot.operand else dot.operand.name
            cache = f"{self.stage.name}.load{a.ordinal}"
            if a in self.tall:
                if point["tall"] and self.u:
                    packs.append(Pack(self.stage.name, a.ordinal, inside(self.u), (), True, kept))
                    copies += self._rows(a)
                continue
            width, turned = point["nv"] * lanes, a.contiguous(self.k)
            panels = ((a.dims[self.v], width), (a.dims[self.k], group))
            packs.append(Pack(self.stage.name, a.ordinal, inside(self.v), panels, True, kept))
            panel, depth = copy_loop(cache, a.dims[self.v]), copy_loop(cache, a.dims[self.k])
            copies.append(Tile(cache, ((panel, width), (depth, lanes * group if turned else group))))
            copies.append(Split(cache, f"{panel}.1", lanes, "cut"))
            if turned:
                copies += [Split(cache, f"{depth}.1", group), Vectorize(cache, f"{depth}.1.1", group)]
            copies.append(Vectorize(cache, f"{depth}.1.0" if turned else f"{depth}.1", lanes if turned else group))
            copies.append(Vectorize(cache, f"{panel}.1.1", lanes))
        return packs, copies

    def _windows(self, a: Access, at: str, width: int) -> Pack:
        """The copy of an operand's windows, the vector loop's panels innermost."""
        inner = [x for x in (*self.inner_reductions, f"{self.k}.1") if a.uses(x.removesuffix(".1"))]
        loops = (*inner, f"{self.v}.1")
        return Pack(self.stage.name, a.ordinal, at, ((len(loops) - 1, width),), loops=loops)

    def _copy(self, a: Access, axis: str, width: int, mode: int, turned: bool) -> list[Step]:
        """The copy of an operand into panels of `width` along `axis`: row by row, `mode` rows at once, or
        transposed."""
        cache = f"{self.stage.name}.load{a.ordinal}"
        panel, lanes = copy_loop(cache, a.dims[axis]), self.lanes
        other = self._dim(a, cache)
        if turned and other and a.contiguous(self.k):
            # A block is read along the operand's own contiguous axis and written along the panel: two vector loops.
            return [
                Tile(cache, ((panel, width), (other, lanes))),
                Split(cache, f"{panel}.1", lanes, "cut"),
                Vectorize(cache, f"{other}.1", lanes),
                Vectorize(cache, f"{panel}.1.1", lanes),
            ]
        if turned and other:
            # Nothing runs along the reduction: one vector of the panel walks along the operand's own order, so that as
            # few of its lines as there are lanes are wanted at a time.
            inner = [copy_loop(cache, d) for d in range(len(a.buffer.shape)) if copy_loop(cache, d) != panel]
            return [
                Tile(cache, ((panel, width),)),
                Split(cache, f"{panel}.1", lanes, "cut"),
                Reorder(cache, (f"{panel}.1.0", *inner, f"{panel}.1.1")),
                Vectorize(cache, f"{panel}.1.1", lanes),
            ]
        if mode == 8 and other:
            return [
                Tile(cache, ((other, 8), (panel, width))),
                Unroll(cache, f"{other}.1"),
                *vectorized(cache, f"{panel}.1", lanes),
            ]
        head: list[Step] = [Reorder(cache, (panel, other))] if other and panel > other else []
        return [*head, Tile(cache, ((panel, width),)), *vectorized(cache, f"{panel}.1", lanes)]

    def _dim(self, a: Access, cache: str) -> str | None:
        d = a.panel_dim(self.k)
        return None if d is None else copy_loop(cache, d)

    def _rows(self, a: Access) -> list[Step]:
        """A copy that keeps the operand's order: vectors along its contiguous axis."""
        cache = f"{self.stage.name}.load{a.ordinal}"
        axis = next((x for x in a.dims if a.contiguous(x)), None)
        if axis is None:
            return []
        loop = copy_loop(cache, a.dims[axis])
        return [Tile(cache, ((loop, 4 * self.lanes),)), *vectorized(cache, f"{loop}.1", self.lanes)]


def _depths(k: int, unit: int) -> tuple[int, ...]:
    """Blocks of a reduction axis: nearly equal ones of about 192 to 512, of whole units."""
    return tuple(dict.fromkeys(-(-k // -(-k // size) // unit) * unit for size in (192, 256, 384, 512) if size < k))


def _wasteful(stage: Stage, v: str, lanes: int) -> bool:
    """Are vectors along this axis far from full, or loaded from every second element?"""
    n = stage.extents[v]
    return -(-n // lanes) * lanes > 1.1 * n or any(a.strides.get(v, 1) != 1 for a in stage.loads)


def panel_sketches(
    facts: Facts, stage: Stage, epilogues: tuple[str, ...], spec: DeviceSpec, threads: int
) -> list[PanelSketch]:
    """The panel sketches of a reduction: vector axes along which the result, or failing that an operand, is
    contiguous."""
    candidates = [a for a in stage.axes if stage.store.contiguous(a)]
    candidates = candidates or [a for a in stage.axes if any(ld.contiguous(a) for ld in stage.loads)]
    lanes = spec.lanes(stage.widest)
    if all(_wasteful(stage, v, lanes) for v in candidates):
        # Results are written apart then, once each; vectors are full and operands packed for them.
        candidates += [a for a in stage.axes if a not in candidates and stage.extents[a] >= lanes]
    found = []
    for v in candidates:
        placed = not any(ld.uses(v) for ld in stage.loads)  # results differ by their positions alone
        if not stage.loads or (placed and v not in names(stage.compute.body)):
            continue
        if any(
            ld.strides.get(v, 1) != 1
            and (ld.strides[v] == UNKNOWN or (ld.panel_dim(v) is None and not 1 < ld.strides[v] <= NEAR))
            for ld in stage.loads
        ):
            continue
        # Operands that move with both axes of the tile are reused by neither; such an axis is no use as rows.
        shared = [a for a in stage.axes
                  if a != v and (placed or any(ld.uses(v) and not ld.uses(a) for ld in stage.loads))]  # fmt: skip
        u = max(shared, key=lambda a: stage.extents[a], default=None)
        if u is not None and stage.extents[u] == 1:
            u = None
        # An operand that must be turned is worth it only where every element is used again.
        if any(ld.strides.get(v, 1) != 1 and (u is None or ld.uses(u)) for ld in stage.loads):
            continue
        k = max(stage.reduce_axes, key=lambda a: stage.extents[a])
        found.append(PanelSketch(facts, stage, v, u, k, epilogues, spec, threads))
    return found
