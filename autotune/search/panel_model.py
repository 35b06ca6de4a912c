"""The price of a panel sketch's points: cycles of the register tile, traffic at each level of memory, copies, threads.

The constants were found by ablation on AVX2 and AVX-512 machines (what one choice costs with all others at their best);
they are ratios and cycles, and what differs between machines comes from the device. Prices rank; they never decide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..ir.expr import HEAVY, Op, distinct, names
from .machine import PAGE, Machine
from .sketch import Column, Columns, select

if TYPE_CHECKING:
    from ..ir.dots import Dot
    from .panel import PanelSketch

WRITE_CYCLES, TILE_CYCLES = 2.2, 14  # to write back one accumulator, and to begin and end one tile
STREAMS = 16  # rows of the wide operand at most that are walked along all at once, not panel by panel
CROWD = 0.12  # how much slower a tile is for each of its rows that finds no way left in a set of the first cache
PORTS = 0.04  # cycles that a load takes from multiplications
CAST_CYCLES = 2.0  # an operation on one number that is then spread over the lanes
SCATTER_CYCLES = 1.5  # to write one lane by itself
WIDE_COPY = {1: 0.42, 2: 0.42, 3: 0.42, 8: 0.42}  # cycles an element of 16 lanes, by mode
TURNED_COPY = 0.15  # more, for a turn
TALL_COPY = {1: 0.5, 2: 0.5}  # rows kept as they are, and turned into panels
SCATTERED = {"L2": 0.8, "L3": 0.6, "DRAM": 0.3}  # share of a level's bandwidth that the shortest runs get
RUN = {"L2": 5.0, "L3": 28.0, "DRAM": 150.0}  # cycles to begin a run of bytes in another page, by where it lies
PAGES, WALK = 1024, 45.0  # pages whose places are known, and cycles to find that of another one
SHORT_RUN = 2048  # bytes: the prefetcher needs runs of about so much
OVERLAP = 0.15  # of the lesser of arithmetic and traffic that the greater does not hide


@dataclass(frozen=True)
class _Shape:
    """A sketch in numbers: extents (m rows, n columns, k blocked, depth of all reductions), and columns as floats."""

    m: int
    n: int
    k: int
    depth: int
    batch: int
    size: int  # bytes of an element of the operands
    written: int  # bytes of an element of the result
    group: int  # products of one instruction's lane
    wide_loads: int
    tall_loads: int
    span: int  # bytes between rows of the wide operand
    stride: int  # bytes between rows of the tall operand
    strided: bool
    lanes: int
    mr: Column
    nv: Column
    kc: Column
    mc: Column
    nc: Column
    wide: Column
    tall: Column
    order: Column

    @property
    def nr(self) -> Column:
        return self.nv * self.lanes

    @property
    def row_blocks(self) -> Column:
        return np.ceil(self.m / self.mc)

    @property
    def column_blocks(self) -> Column:
        return np.ceil(self.n / self.nc)

    @property
    def passes(self) -> Column:
        """How often the result is visited: once a block of the reduction."""
        return np.ceil(self.k / self.kc)

    @property
    def tall_passes(self) -> Column:
        """How often the tall operand passes by (and is packed)."""
        return np.where(self.order == 0, self.column_blocks, 1.0)


def price(sketch: PanelSketch, columns: Columns) -> tuple[Column, dict[str, Column]]:
    """Seconds of every point, and the terms that they are made of."""
    if sketch.dot is None:
        return _price(sketch, columns, None)
    seconds, terms = np.zeros(len(columns["dot"])), dict[str, Column]()
    for flag, dot in enumerate((None, sketch.dot)):
        rows = columns["dot"] == flag
        seconds[rows], found = _price(sketch, select(columns, rows), dot)
        for name, column in found.items():
            terms.setdefault(name, np.zeros(len(rows)))[rows] = column
    return seconds, terms


def _price(sketch: PanelSketch, columns: Columns, dot: Dot | None) -> tuple[Column, dict[str, Column]]:
    mach, s = Machine(sketch.spec, sketch.threads, sketch.stage.widest), _shape(sketch, columns, dot)
    steps = s.depth / (dot.length if dot else 1)
    compute = steps * _cycles(_work(sketch, s, dot), mach, s) * _conflicts(mach, s) * s.batch * mach.cycle
    tiles = np.ceil(s.m / s.mr) * np.ceil(s.n / s.nr) * s.passes
    apart = 0.0 if sketch.stage.store.contiguous(sketch.v) else SCATTER_CYCLES * s.lanes
    tile = tiles * ((WRITE_CYCLES + apart) * s.mr * s.nv + TILE_CYCLES) * s.batch * mach.cycle
    near = math.prod(sketch.stage.extents[a] for a in sketch.near)
    wide, tall = _copies(s)
    copies = (wide * np.where(s.order == 0, 1.0, near) + tall * near) * s.batch / near
    pack = copies * 16 / max(sketch.spec.lanes(sketch.stage.widest), 1) * mach.cycle
    epilogue = 0.0 * s.mr
    if sketch.epilogues:
        late = np.where(columns["epi"] == 1, 3.0, 0.5)
        epilogue = s.m * s.n * s.batch * late * mach.cycle / s.lanes
    share = _share(sketch, columns, s)
    busy = (compute + tile + pack + epilogue) * share
    memory = _traffic(mach, s) * s.batch * np.maximum(share, 1.0 / mach.streams)
    seconds = np.maximum(busy, memory) + OVERLAP * np.minimum(busy, memory) + mach.launch(sketch.threads)
    return seconds, {"compute": compute, "tile": tile, "pack": pack, "memory": memory}


def _shape(sketch: PanelSketch, columns: Columns, dot: Dot | None) -> _Shape:
    stage, e, u = sketch.stage, sketch.stage.extents, sketch.u
    size = dot.operand.bytes if dot else stage.dtype.compute.bytes
    inner = math.prod(e[a] for a in sketch.inner_reductions)
    mr, nv, kc, mc, nc, wide, tall, order = (
        columns[c].astype(float) for c in ("mr", "nv", "kc", "mc", "nc", "wide", "tall", "order")
    )
    return _Shape(
        m=e[u] if u else 1, n=e[sketch.v], k=e[sketch.k], depth=e[sketch.k] * inner,
        batch=math.prod(e[a] for a in sketch.batch), size=size, written=stage.dtype.bytes,
        group=dot.length if dot else 1,
        wide_loads=max(len(sketch.wide), 1), tall_loads=len(sketch.tall),
        span=min((a.strides.get(sketch.k, 1) for a in sketch.wide), default=1) * size,
        stride=min((a.strides.get(u or "", 1) for a in sketch.tall), default=1) * size,
        strided=sketch.strided, lanes=sketch.lanes, mr=mr, nv=nv, kc=kc, mc=mc, nc=nc, wide=wide, tall=tall,
        order=order,
    )  # fmt: skip


def _work(sketch: PanelSketch, s: _Shape, dot: Dot | None) -> tuple[Column, Column, float]:
    """Operations of one step by how often they are done: for each vector of columns, for each row, for both. What a
    copy takes in is done there."""
    if dot:
        return 0.0 * s.mr, 0.0 * s.mr, 1.0
    cost = {"wide": 0.0, "tall": 0.0, "both": 0.0}
    for node in distinct(sketch.stage.compute.body):
        if isinstance(node, Op):
            used = names(node)
            where = "tall" if sketch.v not in used else "both" if sketch.u in used else "wide"
            cost[where] += 13 if node.name in HEAVY else 1
    wide, tall = np.where(s.wide > 0, 0.0, cost["wide"]), np.where(s.tall > 0, 0.0, CAST_CYCLES * cost["tall"])
    return wide, tall, max(cost["both"], 1.0)


def _cycles(operations: tuple[Column, Column, float], mach: Machine, s: _Shape) -> Column:
    """Cycles of one step of the reduction over all tiles, the short ones at the edges by themselves."""
    crossing = 1.0 if (s.n * s.size) % 64 == 0 or s.lanes * s.size < 64 else 2.0  # vectors that straddle two lines
    wide, tall, both = operations

    def step(rows: Column, vectors: Column) -> Column:
        work = rows * vectors * both + vectors * wide + rows * tall
        full, narrow = vectors * s.wide_loads * np.where(s.wide == 0, crossing, 1.0), rows * max(s.tall_loads, 1)
        ports = full + narrow
        # Loads and multiplications share issue slots and the first cache's port with what is being fetched into it.
        cycles = np.maximum(work / mach.fma_per_cycle, mach.loading(full, narrow)) + PORTS * ports
        # A panel that the first cache does not hold comes from the second again for the next rows.
        cycles = np.maximum(cycles, np.where(s.kc * s.nr * s.size > mach.l1, mach.refill(vectors, s.lanes), 0.0))
        chain = s.kc * (s.depth / s.k) * (work + ports)
        return np.maximum(np.maximum(cycles, mach.latency(chain)), (work + ports + 3) / 5.0)

    full_rows, rest_rows = np.floor(s.m / s.mr), s.m % s.mr
    full_columns, rest_columns = np.floor(s.n / s.nr), np.ceil((s.n % s.nr) / s.lanes)
    rest_columns -= np.where(rest_columns > 0, -(-s.n // s.lanes) - mach.vectors(s.n, s.lanes), 0.0)
    total = full_rows * full_columns * step(s.mr, s.nv)
    total += np.where(rest_columns > 0, full_rows * step(s.mr, rest_columns), 0.0)
    total += np.where(rest_rows > 0, full_columns * step(rest_rows, s.nv), 0.0)
    total += np.where((rest_rows > 0) & (rest_columns > 0), step(rest_rows, rest_columns), 0.0)
    return total


def _conflicts(mach: Machine, s: _Shape) -> Column:
    """How much slower the tile runs where its operands do not stay in the first cache."""
    crowd = np.where((s.tall == 0) & (s.stride % PAGE == 0), np.maximum(s.mr - mach.l1_ways - 1, 0.0), 0.0)
    factor = 1 + CROWD * crowd
    factor *= np.where((s.tall == 0) & (s.stride >= 2048) & (s.m * s.depth * s.size > mach.l2), 1.02, 1.0)
    # The wide operand is read again for the next rows, as it lies: few registers are few rows, and many readings.
    again = np.where(s.wide == 0, 1 - 1 / np.ceil(s.m / s.mr), 0.0)
    for slower, where in (
        (0.05, (s.kc > 64) & (s.span >= PAGE // 2) & (s.span < PAGE)), (0.08, s.kc * s.nr * s.size > mach.l1),
    ):  # fmt: skip
        factor *= 1 + np.where(where, slower * again, 0.0)
    return factor


def _traffic(mach: Machine, s: _Shape) -> Column:
    """Seconds to move the operands and the result between the levels that hold them."""
    tall, wide, result = (
        s.m * s.depth * s.size * s.tall_loads, s.depth * s.n * s.size * s.wide_loads, s.m * s.n * s.written,
    )  # fmt: skip
    wide_passes = np.where((s.order == 0) & (s.wide > 0), 1.0, s.row_blocks)
    block = s.kc * s.nc * s.size
    near = block + s.kc * s.mc * s.size < 0.8 * mach.l2
    again = np.where(near, 0.0, np.where(block < 0.5 * mach.l3, s.row_blocks - 1, 0.0))
    level = mach.level(tall + wide + result)
    home, flow = mach.byte(level), _flow(mach, s, SCATTERED.get(level, 1.0))
    read = wide * wide_passes / flow * home + wide * again * mach.byte("L3")
    total = tall * s.tall_passes * home + np.where(_apart(s), np.maximum(wide * home, _begun(mach, s, level)), read)
    # A packed block that the second cache cannot hold is written out and read back.
    beyond = np.where(block < 0.5 * mach.l3, mach.byte("L3"), 2 * mach.byte("DRAM"))
    total += np.where((s.wide > 0) & (block > 0.7 * mach.l2), 2.5 * wide * beyond, 0.0)
    total += np.where((s.tall > 0) & (s.mc * s.kc * s.size > 0.7 * mach.l2), 2 * tall * mach.byte("L3"), 0.0)
    # What writing it back takes where it stays in the first cache is part of the tile.
    visits = 0.0 * s.passes if mach.level(result) == "L1" else 2 * s.passes - 1
    return np.asarray(total + result * visits * mach.byte(mach.level(result)))


def _apart(s: _Shape) -> Column:
    """Whether the wide operand is read as it lies in runs that are pages apart."""
    return np.asarray((s.wide == 0) & (s.kc > STREAMS) & (s.span >= PAGE) & (not s.strided))


def _begun(mach: Machine, s: _Shape, level: str) -> Column:
    """Seconds to begin the runs of such an operand: nothing foresees them. Those of a panel are begun again for each
    tile of rows where the first cache does not hold them, those of a block for each block of rows."""
    first, near = RUN.get(level, RUN["L2"]) + np.where(s.kc > PAGES, WALK, 0.0), RUN["L2"]
    tiles = np.where(s.kc > mach.held("L1", s.span, s.nr * s.size), np.ceil(s.mc / s.mr) - 1, 0.0) * near
    blocks = np.where(s.kc <= mach.held("L2", s.span, s.nc * s.size), near, first)
    runs = s.depth * np.ceil(s.n / s.nr) * s.wide_loads
    return runs * (first + (s.row_blocks - 1) * blocks + s.row_blocks * tiles) * mach.cycle


def _flow(mach: Machine, s: _Shape, short: float) -> Column:
    """The share of its home's bandwidth at which the wide operand is read: short runs defeat the prefetcher (`short` is
    left of it), and more rows than ways a multiple of a page apart push each other out of the first cache."""
    plain = np.where(s.wide == 0, np.where(s.kc <= STREAMS, s.nc, s.nr), np.where(s.wide == 1, s.nr, s.nc))
    run = (s.kc if s.strided else plain) * s.size
    flow = short + (1 - short) * np.minimum(run, SHORT_RUN) / SHORT_RUN
    # Rows that are read at once share their sets of it with the row of results.
    most = np.where(s.kc <= STREAMS, mach.held("L1", s.span, 0 * s.kc) - 1, np.inf if s.span % PAGE else mach.l1_ways)
    crowded = (s.wide == 0) & (s.kc > most) & (not s.strided)
    return flow * np.where(crowded, 0.65, 1.0) * np.where((s.kc <= STREAMS) & (s.nv > 4), 0.93, 1.0)


def _copies(s: _Shape) -> tuple[Column, Column]:
    """Cycles of packing the wide and the tall operands once, for vectors of 16 elements."""
    turned = TURNED_COPY if s.strided else 0.0
    each = 1.0 / s.group
    wide = np.select([s.wide == mode for mode in WIDE_COPY], [cost + turned for cost in WIDE_COPY.values()], 0.0)
    tall = np.select([s.tall == mode for mode in TALL_COPY], list(TALL_COPY.values()), 0.0)
    again = np.where(s.order == 0, 1.0, s.row_blocks)
    wide, tall = each * wide * s.wide_loads, each * tall * max(s.tall_loads, 1)
    return s.depth * s.n * wide * again, s.m * s.depth * tall * s.tall_passes


def _share(sketch: PanelSketch, columns: Columns, s: _Shape) -> Column:
    """The busiest thread's share of the work."""
    if sketch.threads == 1:
        return np.ones(len(s.mr))
    if sketch.far:
        first = sketch.stage.extents[sketch.far[0]]
        return np.full(len(s.mr), -(-first // sketch.threads) / first)
    # Blocks are equal but for the last: a thread with the most of them has so much of the axis.
    across = s.order == 0
    units, size = np.where(across, s.column_blocks, s.row_blocks), np.where(across, s.nc, s.mc)
    return np.minimum(1.0, np.ceil(units / sketch.threads) * size / np.where(across, s.n, s.m))
