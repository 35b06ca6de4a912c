"""Bank conflicts and coalescing: known figures of small nests, and any nest against a simulation thread by thread."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import product as points
from typing import Any

import pytest

from autotune.devices import device
from autotune.ir.affine import Affine, affine, const, var
from autotune.ir.banks import Conflicts, Row, Shape, conflicts, flat
from autotune.ir.dtypes import DType, dtype
from autotune.ir.expr import Load, loads
from autotune.ir.lower import lower
from autotune.ir.nest import Alloc, Guard, Loop, Nest, Reduce, Stmt, Store, loop
from autotune.ir.program import Buffer
from autotune.ir.schedule import Schedule
from autotune.ir.spmd import bound, launch
from autotune.ir.steps import Pad, Pipeline
from autotune.search.ranking import Ranking
from autotune.shipping import texts
from tests.ir.programs import normalised, product, row_sum, transposed
from tests.ir.test_spmd import NESTS

F32 = dtype("f32")
USUAL = Shape()
t, u, v = var("t"), var("u"), var("v")


def moved(
    read: tuple[Affine | int, ...], shape: tuple[int, ...], threads: int = 32, kind: DType = F32, *, lanes: int = 1,
    around: int = 1, scope: str = "shared", limit: Affine | None = None,
) -> Nest:  # fmt: skip
    """for u < around: thread t reads a[read] and writes y[u, t]; with `lanes`, neighbours v of both; t < limit."""
    source = Buffer("a", kind, shape, "input" if scope == "global" else "shared")
    target = Buffer("y", kind, (around, threads * lanes), "output")
    value = Load("a", tuple(map(affine, read)), kind)
    body: tuple[Stmt, ...] = (Store("y", (u, t * lanes + (v if lanes > 1 else 0)), value, "y"),)
    if lanes > 1:
        body = (Loop("v", (const(lanes),), body, "vector", lanes),)
    extents = (const(threads), *(() if limit is None else (limit,)))
    body = (loop("u", around, (Loop("t", extents, body, "thread.x"),)),)
    if scope == "global":
        return Nest((source, target), body)
    return Nest((target,), (Alloc(source, body),))


def of(nest: Nest, buffer: str = "a", shape: Shape = USUAL) -> Row:
    (row,) = (row for row in conflicts(nest, shape).rows if row.buffer == buffer)
    assert row.exact and row.known
    return row


SHARED: dict[str, tuple[Nest, float]] = {
    "row": (moved((u, t), (4, 32), around=4), 1),
    "column of a square": (moved((t, u), (32, 32), around=4), 32),
    "column of a padded square": (moved((t, u), (32, 33), around=4), 1),
    "every other word": (moved((t * 2,), (64,)), 2),
    "three apart": (moved((t * 3,), (96,)), 1),
    "one word for all": (moved((u,), (4,), around=4), 1),
    "one word for each pair": (moved((t // 2,), (16,)), 1),
    "two rows of a half warp": (moved((t // 16, t % 16), (2, 64)), 2),
    "two rows of a half warp, padded": (moved((t // 16, t % 16), (2, 48)), 1),
    "rows of four": (moved((t * 4 + v,), (128,), lanes=4), 1),
    "rows of four, two rows apart": (moved((t, v), (32, 8), lanes=4), 2),
    "pairs": (moved((t * 2 + v,), (64,), lanes=2), 1),
    "halves": (moved((t,), (32,), kind=dtype("f16")), 1),
    "halves of a column": (moved((t, u), (32, 2), kind=dtype("f16"), around=2), 1),
    "halves of a wide column": (moved((t, u), (32, 64), kind=dtype("f16"), around=3), 32),
    "doubles": (moved((t,), (32,), kind=dtype("f64")), 1),
    "doubles of a column": (moved((t, u), (32, 16), kind=dtype("f64"), around=2), 16),
    "a part of a warp": (moved((t, u), (8, 32), 8, around=2), 8),
    "a warp and a part": (moved((t, u), (40, 32), 40, around=2), 20),
    "fewer and fewer": (moved((t, u), (32, 32), around=4, limit=8 * (4 - u)), (32 + 24 + 16 + 8) / 4),
}
FAR: dict[str, tuple[Nest, float]] = {
    "row": (moved((u, t), (4, 32), around=4, scope="global"), 1),
    "column": (moved((t, u), (32, 32), around=4, scope="global"), 32 / 4),
    "a row that starts anywhere": (moved((t + u,), (40,), around=8, scope="global"), (4 + 7 * 5) / (8 * 4)),
    "one word for all": (moved((u,), (4,), around=4, scope="global"), 1),
    "rows of four": (moved((t * 4 + v,), (128,), lanes=4, scope="global"), 1),
    "rows of four, apart": (moved((t, v), (32, 8), lanes=4, scope="global"), 2),
    "bytes": (moved((t,), (32,), kind=dtype("u8"), scope="global"), 1),
    "bytes of a column": (moved((t, u), (32, 64), kind=dtype("u8"), scope="global"), 32),
}


@pytest.mark.parametrize("name", SHARED)
def test_degrees(name: str) -> None:
    nest, degree = SHARED[name]
    assert of(nest).ratio == pytest.approx(degree)


@pytest.mark.parametrize("name", FAR)
def test_sectors(name: str) -> None:
    nest, ratio = FAR[name]
    assert of(nest).ratio == pytest.approx(ratio)


def test_what_is_executed() -> None:
    row = of(moved((t, u), (40, 32), 40, around=3))
    assert (row.executed, row.least, row.taken, row.bytes, row.write) == (6, 6, 3 * 40, 4, False)
    wide = of(moved((t * 4 + v,), (128,), lanes=4))
    assert (wide.executed, wide.least, wide.bytes) == (1, 4, 16)


def test_another_machine() -> None:
    square = moved((t, u), (64, 32), 64, around=2)
    assert of(square, shape=Shape(warp=64)).ratio == 32, "half of a warp of 64 is served at a time"
    assert of(square, shape=Shape(warp=64, banks=64)).ratio == 32
    assert of(square, shape=Shape(banks=16)).ratio == 16
    assert of(square, shape=Shape(warp=1)).ratio == of(square, shape=Shape(warp=1), buffer="y").ratio == 1


def test_a_thread_alone_conflicts_with_nobody() -> None:
    nest = moved((t, u), (1, 32), 1, around=5)
    assert [(row.ratio, row.executed) for row in conflicts(nest).rows] == [(1, 5), (1, 5)]


def test_neighbours_of_an_unrolled_loop_are_joined() -> None:
    copy = Store("y", (t * 4 + v,), Load("a", (t * 4 + v,), F32), "y")
    inner = Loop("t", (const(32),), (Loop("v", (const(4),), (copy,), "unroll"),), "thread.x")
    a, y = Buffer("a", F32, (128,), "shared"), Buffer("y", F32, (128,), "output")
    nest = Nest((y,), (Alloc(a, (inner,)),))
    apart, joined = (conflicts(nest, joined=j).rows[0] for j in (False, True))
    assert (apart.ratio, apart.bytes, apart.executed) == (4, 4, 4)
    assert (joined.ratio, joined.bytes, joined.executed) == (1, 16, 1)


def test_points_beyond_counting_are_sampled() -> None:
    nest = moved((t, (t + u) % 32), (32, 32), around=1 << 16)
    (row, _) = conflicts(nest).rows
    assert not row.exact and row.executed == 1 << 16 and 1 <= row.ratio <= 32
    n = 1 << 21  # one thread adds them all: the sum is loaded at all points but the first
    (_, old, new) = conflicts(lower(product(1, 1, n))).rows[-3:]
    assert not old.exact and (old.buffer, old.executed, new.executed) == (new.buffer, n - 1, n)


def test_summary() -> None:
    bad, good = (conflicts(SHARED[name][0]) for name in ("column of a square", "row"))
    assert bad.ratio("shared") == 32 and "4-byte load of a in y (compute), 32-way bank conflict" in bad.summary()
    assert good.worst("shared") is None and good.worst("global") is None
    assert good.summary() == "shared memory: no bank conflict; global memory: all that is fetched is used"
    assert conflicts(FAR["row"][0]).summary().startswith("shared memory: not used")
    assert bad.to_json()["accesses"][0]["ratio"] == 32


def test_operands_of_a_matrix_instruction() -> None:
    """Rows of 32 bytes put four rows of a fragment into the same banks; 16 bytes more keep all apart."""
    program, steps = NESTS["matrix"]
    at = next(n for n, step in enumerate(steps) if isinstance(step, Pipeline))
    padded = (*steps[:at], Pad("t0.load0", 8), Pad("t0.load1", 8), *steps[at:])
    for made, worst in ((steps, 2.0), (padded, 1.0)):
        rows = conflicts(Schedule(made).apply(lower(program))).of("shared")
        reads = [row for row in rows if row.statement == "t0 (compute)"]
        assert {row.bytes for row in reads if row.buffer == "t0.load0"} == {4}, "two halves at a time"
        assert {row.bytes for row in reads if row.buffer == "t0.load1"} == {2}, "halves of two rows"
        assert max(row.ratio for row in reads) == worst


# ---- against a simulation -------------------------------------------------------------------------------------------


class Simulation:
    """Every thread of every block walks through the nest by itself and notes where it reaches."""

    def __init__(self, nest: Nest, rows: Conflicts, shape: Shape) -> None:
        self.nest, self.shape = nest, shape
        self.seen: dict[tuple[int, bool, str, tuple[Affine, ...]], dict[Any, dict[int, int]]] = {}
        self.order: list[tuple[int, bool, str, tuple[Affine, ...]]] = []
        self.wide = any(row.bytes > 4 for row in rows.rows)
        for stmt in nest.body:
            self.asked = launch(stmt)
            self.collect(stmt, dict(nest.all_buffers))
            grids = sorted({lp.kind: bound(lp) for lp, _ in self.loops(stmt) if lp.kind.startswith("block")}.items())
            for block in points(*(range(n) for _, n in grids)):
                x, y, z = self.asked.block
                for number in range(self.asked.threads):
                    env = {k: i for (k, _), i in zip(grids, block)}
                    env |= {"thread.x": number % x, "thread.y": number // x % y, "thread.z": number // (x * y)}
                    self.visit(stmt, {}, env, number, ((None, block),), ())

    def loops(self, stmt: Stmt) -> Iterator[tuple[Loop, int]]:
        if isinstance(stmt, (Loop, Alloc, Guard)):
            if isinstance(stmt, Loop):
                yield stmt, 0
            for inner in stmt.body:
                yield from self.loops(inner)

    def collect(self, stmt: Stmt, buffers: Mapping[str, Buffer]) -> None:
        if isinstance(stmt, (Loop, Alloc, Guard)):
            for inner in stmt.body:
                self.collect(inner, buffers)
        elif isinstance(stmt, (Store, Reduce)):
            keys = [(id(stmt), False, ld.buffer, ld.index) for ld in dict.fromkeys(loads(stmt.value))]
            if isinstance(stmt, Reduce) and stmt.first != ():
                keys += [k for k in [(id(stmt), False, stmt.buffer, stmt.index)] if k not in keys]
            for key in [*keys, (id(stmt), True, stmt.buffer, stmt.index)]:
                if buffers[key[2]].scope not in ("register", "scratch", "warp"):
                    self.order.append(key)
                    self.seen[key] = defaultdict(dict)

    def visit(
        self, stmt: Stmt, env: dict[str, int], at: dict[str, int], number: int, when: tuple[Any, ...],
        kinds: tuple[str, ...],
    ) -> None:  # fmt: skip
        if isinstance(stmt, Loop):
            n = min(e.evaluate(env) for e in stmt.extents)
            if stmt.kind == "thread":
                inner = 1
                for lp, _ in list(self.loops(stmt))[1:]:
                    inner *= bound(lp) if lp.kind == "thread" else 1
                i = number // inner if "thread" not in kinds else number // inner % bound(stmt)
                steps = [i] if i < n else []
            elif stmt.kind in at:
                steps = [at[stmt.kind]] if at[stmt.kind] < n else []
            else:
                steps = list(range(1 if stmt.kind == "vector" and self.wide else n))
            own = stmt.kind in at or stmt.kind == "thread"
            for i in steps:
                for s in stmt.body:
                    self.visit(
                        s, {**env, stmt.name: i}, at, number, when if own else (*when, (stmt, i)), (*kinds, stmt.kind)
                    )
        elif isinstance(stmt, Guard):
            if all(c.evaluate(env) >= 0 for c in stmt.conditions):
                for s in stmt.body:
                    self.visit(s, env, at, number, when, kinds)
        elif isinstance(stmt, Alloc):
            for s in stmt.body:
                self.visit(s, env, at, number, when, kinds)
        elif isinstance(stmt, (Store, Reduce)):
            if "thread" not in kinds and any(at[f"thread.{x}"] for x in "xyz" if f"thread.{x}" not in kinds):
                return
            warp = number // self.shape.warp
            for key in self.order:
                if key[0] != id(stmt):
                    continue
                firsts = getattr(stmt, "first", None)
                reads_itself = not key[1] and isinstance(stmt, Reduce) and key[2:] == (stmt.buffer, stmt.index)
                if reads_itself and firsts and not any(a.evaluate(env) for a in firsts):
                    continue
                buffer = self.nest.all_buffers[key[2]]
                where = flat(buffer, key[3])
                assert where is not None
                used = frozenset().union(*(a.names() for a in key[3]))
                moment = tuple(
                    i for lp, i in when if not isinstance(lp, Loop) or lp.kind != "unroll" or lp.name in used
                )
                self.seen[key][moment, warp][number] = where.evaluate(env) * buffer.dtype.bytes

    def figures(self, key: tuple[int, bool, str, tuple[Affine, ...]], row: Row) -> tuple[int, int, int]:
        """Accesses of warps, the least, and what is taken."""
        s, least, taken = self.shape, 0, 0
        for lanes in self.seen[key].values():
            if row.scope == "global":
                inside = {b for a in lanes.values() for b in range(a, a + row.bytes)}
                least, taken = least - (-len(inside) // 32), taken + len({b // 32 for b in inside})
                continue
            together = min(s.banks * s.bank_bytes // max(row.bytes, s.bank_bytes), s.warp)
            for group in {n // together for n in lanes}:
                words = {(a + j) // 4 for n, a in lanes.items() if n // together == group for j in range(row.bytes)}
                least, taken = least + 1, taken + max(sum(w % s.banks == b for w in words) for b in range(s.banks))
        return len(self.seen[key]), least, taken


def _simulated() -> Iterator[tuple[str, Nest]]:
    for name, (program, steps) in NESTS.items():
        if name in ("matrix", "staged", "parted"):  # no thread's own: an instruction's loads, arrays between grids
            continue
        yield name, Schedule(steps).apply(lower(program))
    for name, program in {
        "tiles": product(40, 24, 20), "a transposed operand": transposed(12, 20), "rows": row_sum(6, 40),
        "norms": normalised(3, 37), "ragged tiles": product(21, 19, 17),
    }.items():  # fmt: skip
        for n, candidate in zip(range(2), Ranking(program, device("cuda:sm_80"), 1).best()):
            yield f"{name} {n}", candidate.schedule.apply(lower(program))


_CASES = dict(_simulated())


@pytest.mark.parametrize("name", _CASES)
@pytest.mark.parametrize("shape", [Shape(), Shape(warp=64)], ids=["32", "64"])
def test_counts_are_those_of_a_simulation(name: str, shape: Shape) -> None:
    nest = _CASES[name]
    found = conflicts(nest, shape, joined=False)
    simulated = Simulation(nest, found, shape)
    assert len(found.rows) == len(simulated.order) > 1
    for key, row in zip(simulated.order, found.rows):
        assert (row.buffer, row.write, row.exact) == (key[2], key[1], True)
        assert (row.executed, row.least, row.taken) == simulated.figures(key, row), row


def test_the_model_s_product_for_a_usual_device() -> None:
    (made,) = texts(product(512, 512, 512), "cuda", device("cuda:sm_80"))
    found = conflicts(made.nest, device("cuda:sm_80").memory())
    print(found.summary())
    assert all(row.exact for row in found.rows) and {row.scope for row in found.rows} == {"shared", "global"}
    wide = next(row for row in found.rows if row.bytes == 16 and row.scope == "shared")
    assert wide.ratio == 1, "rows of four words fill the banks"
