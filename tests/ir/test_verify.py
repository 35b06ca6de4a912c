"""The verifier, one rule at a time, on nests written by hand; what it must accept; its counts against enumeration."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.ir.affine import Affine, affine, var
from autotune.ir.counts import count_nest
from autotune.ir.dtypes import F32, F64
from autotune.ir.errors import VerifyError
from autotune.ir.expr import Const, Load, loads, op
from autotune.ir.limits import Limits
from autotune.ir.lower import lower
from autotune.ir.nest import Alloc, Guard, Loop, Nest, Prefetch, Reduce, Stmt, Store, loop, walk
from autotune.ir.points import Space, TooManyPoints, count, grid, profile
from autotune.ir.program import Axis, Buffer, Compute, TensorProgram
from autotune.ir.steps import Split
from autotune.ir.verify import verify

from .nests import SCHEDULES, blocked, scheduled
from .programs import array, product, row_sum, scale, shifted
from .test_bounds import affines, domains, points

i, j, k = var("i"), var("j"), var("k")
COPY = TensorProgram((array("a", 8),), (Compute("t0", F32, (Axis("i", 8),), Load("a", (i,), F32)),), ("t0",))


def store(at: Affine | int = i, read: Affine | int = i, **fields: Any) -> Store:
    base = Store("t0", (affine(at),), Load("a", (affine(read),), F32), "t0", (("i", affine(at)),))
    return replace(base, **fields)


def kinds(body: tuple[Stmt, ...], program: TensorProgram = COPY, limits: Limits | None = None) -> set[str]:
    report = verify(program, Nest(program.buffers, body), limits or Limits())
    return {v.kind for v in report.violations}


def split(fn: Any, extents: tuple[Affine | int, ...], kind: str = "serial", lanes: int = 0) -> tuple[Stmt, ...]:
    """for o < 3: for x < min(extents): fn(3 o + x)"""
    inner = Loop("x", tuple(map(affine, extents)), (fn(3 * var("o") + var("x")),), kind, lanes)
    return (loop("o", 3, (inner,)),)


# ---- what is accepted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULES)
def test_scheduled_nests_are_accepted(name: str) -> None:
    program, nest = scheduled(name)
    report = verify(program, nest, Limits())
    report.check()


@pytest.mark.parametrize("shape", [(64, 64, 64), (1000, 1000, 1000), (255, 255, 255), (1, 96, 33), (31, 57, 1)])
def test_real_sizes_are_accepted(shape: tuple[int, int, int]) -> None:
    program = product(*shape)
    nest = lower(program)
    for step in blocked("t0", 96, 100, 48, 6, 32, 16):
        nest = step.apply(nest)
    report = verify(program, nest, Limits(bodies=4))
    report.check()
    counts = count_nest(nest)
    assert counts.of("t0").footprint == shape[0] * shape[1]
    assert counts.of("a").footprint == shape[0] * shape[2]


def test_empty_and_single_extents() -> None:
    for program in (product(0, 4, 3), product(4, 5, 0), product(1, 1, 1), row_sum(3, 0), scale(1), scale(0)):
        verify(program, lower(program), Limits()).check()


def test_hand_written_splits() -> None:
    whole, rest = 3, 8 - 3 * var("o")
    assert kinds(split(lambda p: store(p, p), (whole, rest))) == set()
    assert kinds(split(lambda p: Guard((7 - p,), (store(p, p),)), (whole,))) == set()
    assert (
        kinds(
            (
                *split(lambda p: store(p, p), (whole, 6 - 3 * var("o"))),
                loop("x", 2, (store(6 + var("x"), 6 + var("x")),)),
            )
        )
        == set()
    )


# ---- one rule at a time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("bounds", (loop("i", 9, (store(),)),)),
        ("bounds", (loop("i", 8, (store(read=i - 1),)),)),
        ("bounds", (loop("i", 8, (store(), Prefetch("t0", (i + 1,), "t0"))),)),
        ("bounds", split(lambda p: store(p, p), (3,))),
        ("coverage", (loop("i", 7, (store(),)),)),
        ("coverage", (loop("i", 4, (store(2 * i, 2 * i),)),)),
        ("coverage", (loop("i", 8, (store(), store())),)),
        ("coverage", (loop("i", 8, (loop("z", 2, (store(),)),)),)),
        ("coverage", (loop("i", 8, (Guard((i - 1,), (store(),)),)),)),
        ("coverage", (loop("i", 8, (store(i, origin=(("i", 0 * i),)),)),)),
        ("coverage", (loop("i", 8, (store(i, origin=()),)),)),
        ("names", (loop("i", 8, (store(j),)),)),
        ("names", (loop("i", 8, (loop("i", 1, (store(),)),)),)),
        ("names", (loop("i", j, (store(),)),)),
        ("names", (loop("i", 8, (Guard((j,), (store(),)),)),)),
        ("buffers", (loop("i", 8, (store(buffer="a"),)),)),
        ("buffers", (loop("i", 8, (store(buffer="none"),)),)),
        ("buffers", (loop("i", 8, (store(index=(i, i)),)),)),
        ("buffers", (loop("i", 8, (store(value=Const(0.0, F64)),)),)),
        ("buffers", (Alloc(array("a", 8), (loop("i", 8, (store(),)),)),)),
        ("combiner", (loop("i", 8, (Reduce("t0", (i,), "mean", Load("a", (i,), F32), (), "t0", (("i", i),)),)),)),
        ("kind", (Loop("i", (affine(8),), (store(),), "simd"),)),
        ("kind", (loop("z", 1, (Loop("i", (affine(8),), (store(),), "parallel"),)),)),
        ("kind", (loop("z", 1, (Loop("i", (8 - var("z"),), (store(),), "unroll"),)),)),
        ("lanes", (Loop("i", (affine(8),), (store(),), "vector", 4),)),
        ("lanes", (Loop("i", (affine(8),), (store(),), "vector", 12),)),
    ],
)
def test_one_rule(kind: str, body: tuple[Stmt, ...]) -> None:
    assert kind in kinds(body)


def test_a_witness_names_the_point() -> None:
    report = verify(COPY, Nest(COPY.buffers, split(lambda p: store(p, p), (3,))), Limits())
    assert report.violations[0].witness == (("o", 2), ("x", 2))
    with pytest.raises(VerifyError, match=r"bounds: index 0 of t0, 3\*o \+ x leaves 0 \.\. 7 in .*o=2, x=2"):
        report.check()
    report = verify(COPY, Nest(COPY.buffers, (loop("i", 8, (Guard((i - 5,), (store(),)),)),)), Limits())
    assert report.violations[0].witness == (("i", 0),)


def test_undecided_is_a_violation() -> None:
    # Rational bounds of 7*(i//7) + i%5 exceed the buffer; exact ones would need four million points.
    n = 4_000_000
    program = TensorProgram((array("a", n),), (Compute("t0", F32, (Axis("i", n),), Load("a", (i,), F32)),), ("t0",))
    body = (loop("i", n, (store(i, 7 * (i // 7) + i % 5),)),)
    assert kinds(body, program) <= {"undecided"}
    small = 70
    program = TensorProgram(
        (array("a", small),), (Compute("t0", F32, (Axis("i", small),), Load("a", (i,), F32)),), ("t0",)
    )
    assert kinds((loop("i", small, (store(i, 7 * (i // 7) + i % 5),)),), program) == set()


def test_races() -> None:
    def run(fn: Any, kind: str, lanes: int = 0) -> set[str]:
        return kinds((Loop("o", (affine(4),), (loop("x", 2, (fn(var("o"), var("x")),)),), kind, lanes),))

    assert run(lambda o, x: store(2 * o + x, 2 * o + x), "parallel") == set()
    assert run(lambda o, x: store(o + 4 * x, o + 4 * x), "parallel") == set()
    assert "race" in run(lambda o, x: store(o + x, o + x), "parallel")
    assert "race" in run(lambda o, x: store(x, x), "parallel")
    lane = Loop("i", (affine(8),), (store(7 - i, 7 - i),), "vector", 8)
    assert kinds((lane,)) == set()
    assert "race" in kinds((replace(lane, body=(store(0 * i, i),)),))
    # A scratch cell outside a parallel loop is shared, inside it is private.
    cell = Buffer("c", F32, (1,), "scratch")
    through = (
        Store("c", (affine(0),), Load("a", (i,), F32), "c", (), "copy"),
        store(value=Load("c", (affine(0),), F32)),
    )
    body = Loop("i", (affine(8),), (Alloc(cell, through),), "parallel")
    assert kinds((body,)) == set()
    assert "race" in kinds((Alloc(cell, (replace(body, body=through),)),))


def test_reductions_in_parallel_and_in_lanes() -> None:
    program = row_sum(4, 8)
    add = Reduce("t0", (i,), "sum", Load("a", (i, k), F32), (k,), "t0", (("i", i), ("k", k)))

    def rows(kind: str, lanes: int = 0) -> tuple[Stmt, ...]:
        return (loop("i", 4, (Loop("k", (affine(8),), (add,), kind, lanes),)),)

    assert kinds(rows("serial"), program) == kinds(rows("vector", 8), program) == set()
    turned = (Loop("k", (affine(8),), (loop("i", 4, (add,)),), "parallel"),)
    assert kinds(turned, program) == {"race"}
    assert "order" in kinds((loop("i", 4, (loop("k", 8, (replace(add, first=(7 - k,)),)),)),), program)
    assert "undefined" in kinds((loop("i", 4, (loop("k", 8, (replace(add, first=(k + 1,)),)),)),), program)
    assert "coverage" in kinds((loop("i", 4, (loop("k", 8, (replace(add, first=(k // 2,)),)),)),), program)
    tail = replace(add, value=Load("a", (i, k + 6), F32), first=(k + 6,), origin=(("i", i), ("k", k + 6)))
    main_part, rest = loop("k", 6, (add,)), loop("k", 2, (tail,))
    assert kinds((loop("i", 4, (main_part, rest)),), program) == set()
    assert "undefined" in kinds((loop("i", 4, (rest, main_part)),), program)


def test_defined_before_read() -> None:
    row = Buffer("c", F32, (2, 4), "scratch")
    p, o, x = var("p"), var("o"), var("x")

    def fill(at: tuple[Affine, ...], n: int) -> tuple[Stmt, ...]:
        return (loop("p", n, (Store("c", at, Load("a", (4 * o + p,), F32), "c", (), "copy"),)),)

    def run(made: tuple[Stmt, ...]) -> set[str]:
        return kinds((loop("o", 2, (Alloc(row, (*made, use)),)),))

    use = loop("x", 4, (store(4 * o + x, 0, value=Load("c", (x // 2, x % 2), F32)),))
    assert run(fill((p // 2, p % 2), 4)) == set()
    assert run((*fill((affine(0), p), 2), *fill((affine(1), p), 2))) == set()
    assert run((*fill((affine(0), p), 2), *fill((affine(1), p), 1))) == {"undefined"}
    assert run(fill((affine(0), p), 4)) == {"undefined"}
    assert kinds((loop("o", 2, (Alloc(row, (use, *fill((p // 2, p % 2), 4))),)),)) == {"undefined"}
    # Filled in one iteration and read in the next: not defined in the first one.
    late = loop("x", 4, (store(4 * o + x, 0, value=Load("c", (x // 2, x % 2), F32)),))
    once = Guard((o - 1,), fill((p // 2, p % 2), 4))
    assert kinds((Alloc(row, (loop("o", 2, (once, late)),)),)) == {"undefined"}


def test_scratch_is_not_carried_over_between_runs_of_an_alloc() -> None:
    cell = Buffer("c", F32, (), "register")
    write, read = Store("c", (), Load("a", (i,), F32), "c", (), "copy"), store(value=Load("c", (), F32))
    assert kinds((loop("i", 8, (Alloc(cell, (write, read)),)),)) == set()
    assert kinds((loop("i", 8, (Alloc(cell, (write,)), Alloc(cell, (read,)))),)) == {"undefined"}


def test_registers_are_indexed_by_unrolled_loops_only() -> None:
    row = Buffer("c", F32, (8,), "register")
    fill, use = Store("c", (i,), Load("a", (i,), F32), "c", (), "copy"), store(value=Load("c", (i,), F32))

    def nest(kind: str, lanes: int = 0) -> tuple[Stmt, ...]:
        return (Alloc(row, tuple(Loop("i", (affine(8),), (s,), kind, lanes) for s in (fill, use))),)

    assert kinds(nest("unroll")) == kinds(nest("vector", 8)) == set()
    assert kinds(nest("serial")) == {"register"}


def test_limits() -> None:
    program, nest = scheduled("packed")
    size = nest.all_buffers["t0.load1"].bytes
    assert verify(program, nest, Limits(scratch_bytes=size)).ok
    assert [v.kind for v in verify(program, nest, Limits(scratch_bytes=size - 1)).violations] == ["limit"]
    assert [v.kind for v in verify(program, nest, Limits(bodies=3)).violations] == ["limit"]
    assert [v.kind for v in verify(program, nest, Limits(instances=50)).violations] == ["limit"]


# ---- counts ---------------------------------------------------------------------------------------------------------


def executed(nest: Nest) -> Iterator[tuple[Any, dict[str, int]]]:
    """Every execution of every statement."""
    for s, path in walk(nest.body):
        if not isinstance(s, (Loop, Alloc, Guard, Prefetch)):
            loops = tuple(b for b in path if isinstance(b, Loop))
            guards = tuple(c for b in path if isinstance(b, Guard) for c in b.conditions)
            yield from ((s, env) for env in points(loops, guards))


@pytest.mark.parametrize("name", SCHEDULES)
def test_counts_are_those_of_an_execution(name: str) -> None:
    nest = scheduled(name)[1]
    loaded: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    touched: dict[str, set[tuple[int, ...]]] = {b: set() for b in nest.all_buffers}
    statements = 0
    for s, env in executed(nest):
        statements += 1
        stored[s.buffer] += 1
        touched[s.buffer].add(tuple(a.evaluate(env) for a in s.index))
        for ld in dict.fromkeys(loads(s.value)):  # a machine keeps what it has loaded for a statement
            loaded[ld.buffer] += 1
            touched[ld.buffer].add(tuple(a.evaluate(env) for a in ld.index))
        loaded[s.buffer] += isinstance(s, Reduce) and (s.first is None or any(a.evaluate(env) for a in s.first))
    counts = count_nest(nest)
    assert counts.statements == statements
    for t in counts.traffic:
        assert (t.loads, t.stores) == (loaded[t.buffer], stored[t.buffer]), t.buffer
        assert t.bytes == 4 * (t.loads + t.stores)
        assert t.footprint == (len(touched[t.buffer]) if t.scope in ("input", "output", "temp") else 0), t.buffer
    assert json.loads(json.dumps(counts.to_json()))["statements"] == statements


@pytest.mark.parametrize("program", [product(3, 5, 7), shifted(4, 6), row_sum(3, 9)])
def test_a_lowered_program_does_exactly_its_flops(program: TensorProgram) -> None:
    assert count_nest(lower(program)).flops == program.flops


def test_masked_lanes() -> None:
    program = scale(21)
    nest = lower(program)
    nest = Split("t0", "i", 8).apply(nest)
    outer = nest.body[0]
    assert isinstance(outer, Loop) and isinstance(inner := outer.body[0], Loop)
    counts = count_nest(Nest(nest.buffers, (replace(outer, body=(replace(inner, kind="vector", lanes=8),)),)))
    assert (counts.statements, counts.vectors, counts.masked) == (21, 3, 3)


# ---- exact counting of points ---------------------------------------------------------------------------------------


def space_of(where: tuple[tuple[Loop, ...], tuple[Affine, ...]]) -> Space:
    return Space(tuple((lp.name, lp.extents) for lp in where[0]), where[1]).normal()


@settings(max_examples=80, deadline=None)
@given(domains(), affines(("a", "b", "c")))
def test_points_and_profiles(where: tuple[tuple[Loop, ...], tuple[Affine, ...]], a: Affine) -> None:
    values = Counter(a.evaluate(env) for env in points(*where))
    assert count(space_of(where)) == sum(values.values())
    breaks, counts = profile(a, space_of(where))
    found = {v: int(c) for low, high, c in zip(breaks, breaks[1:], counts) for v in range(low, high) if c}
    assert found == dict(values)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(domains(), affines(("a", "b"), 0), affines(("b", "c"), 0)), min_size=1, max_size=3))
def test_grids(bodies: list[tuple[tuple[tuple[Loop, ...], tuple[Affine, ...]], Affine, Affine]]) -> None:
    shape = (6, 9)
    wanted = np.zeros(shape, np.int64)
    made = []
    for (loops, guards), x, y in bodies:
        guards = (*guards, x, 5 - x, y, 8 - y)
        made.append(((x, y), space_of((loops, guards))))
        for env in points(loops, guards):
            wanted[x.evaluate(env), y.evaluate(env)] += 1
    g = grid(made, shape)
    assert g.distinct == int((wanted > 0).sum())
    cells = {g.point(cell): int(g.total[cell]) for cell in itertools.product(*map(range, g.total.shape))}
    assert all(wanted[p] == n for p, n in cells.items())
    assert sorted(set(cells.values())) == sorted(set(wanted.reshape(-1).tolist()))


def test_the_cap() -> None:
    long = Space((("a", (affine(10_000),)), ("b", (10_000 - var("a"),))), (3 * var("a") - var("b") * 7 % 11,))
    with pytest.raises(TooManyPoints):
        profile(var("a") + 2 * var("b"), long)
    plain = Space((("a", (affine(10**6),)), ("b", (affine(10**6),))))
    assert count(plain) == 10**12


def test_expressions_are_counted() -> None:
    body = op("fma", Load("a", (i,), F32), Const(2.0, F32), Const(1.0, F32))
    program = TensorProgram((array("a", 10),), (Compute("t0", F32, (Axis("i", 10),), body),), ("t0",))
    assert count_nest(lower(program)).flops == 20
