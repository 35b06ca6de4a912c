"""Wrong nests, each a small change of a right one: the verifier or the equivalence check must catch every one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from autotune.ir.affine import Affine, FloorDiv, affine, const, var
from autotune.ir.dtypes import F32
from autotune.ir.equiv import difference
from autotune.ir.expr import Const, op
from autotune.ir.limits import Limits
from autotune.ir.lower import lower, with_shared_axes
from autotune.ir.nest import Alloc, Guard, Loop, Nest, Reduce, Stmt, map_leaves, substitute, with_body
from autotune.ir.verify import verify

from .mutate import (
    Mutant,
    block,
    blocks,
    having,
    into,
    leaf,
    load,
    operation,
    order,
    renamed,
    role,
    statements,
    uses,
    value,
)  # fmt: skip
from .nests import SCHEDULES, scheduled

compute, write, init, copy = map(role, ("compute", "write", "init", "copy"))
parallel = having(kind="parallel")


def without(name: str) -> Any:
    """The written index forgets a loop."""
    return lambda s: (replace(s, index=tuple(a - var(name) * a.coefficient(name) for a in s.index)),)


def index(*new: Affine | None) -> Any:
    """The written index, with some dimensions replaced."""
    return lambda s: (replace(s, index=tuple(a if n is None else n for n, a in zip(new, s.index))),)


def stale_pack(s: Any) -> tuple[Stmt, ...]:
    """The pack leaves the loop whose block it holds, and keeps the first block."""
    alloc = s.body[0]
    return (Alloc(alloc.buffer, (*substitute(alloc.body[:1], {s.name: const(0)}), replace(s, body=alloc.body[1:]))),)


def initialised_once(s: Any) -> tuple[Stmt, ...]:
    """The accumulators of one tile live through all tiles of a loop."""
    alloc = s.body[0]
    return (Alloc(alloc.buffer, (alloc.body[0], replace(s, body=alloc.body[1:]))),)


def holds_accumulators(s: Any) -> bool:
    return isinstance(s, Loop) and isinstance(s.body[0], Alloc) and s.body[0].buffer.name == "t0.acc"


def outermost(name: str) -> Any:
    """A private buffer is allocated once, outside all loops."""

    def change(nest: Nest) -> Nest:
        buffer = replace(nest.all_buffers[name], scope="scratch")
        inner = block(name, lambda s: s.body)(nest)
        return Nest(nest.buffers, (Alloc(buffer, inner.body),))

    return change


def epilogue_at(first: int, last: int) -> Any:
    """The epilogue moves into the loop over the reduction's blocks, and runs for some of them."""

    def fn(s: Any) -> tuple[Stmt, ...]:
        loop = s.body[0]
        inside = Guard((var(loop.name) - first, last - var(loop.name)), s.body[1:])
        return (Alloc(s.buffer, (replace(loop, body=(*loop.body, inside)),)),)

    return fn


def too_deep(s: Any) -> tuple[Stmt, ...]:
    """The block of results is allocated anew for each block of the reduction, with the epilogue at the last one."""
    loop = s.body[0]
    return (replace(loop, body=(Alloc(s.buffer, (*loop.body, Guard((var(loop.name) - 2,), s.body[1:]))),)),)


def overlapping(nest: Nest) -> Nest:
    """Fused blocks of 8 start 7 apart."""

    def fn(a: Affine) -> Affine:
        atom: Any = a.terms[0][0]
        arg: Affine = atom.arg - var("i_j.0")
        return arg // atom.divisor if isinstance(atom, FloorDiv) else arg % atom.divisor

    return Nest(nest.buffers, map_leaves(nest.body, lambda s: (replace(s, index=tuple(map(fn, s.index))),)))


def one_lane(s: Stmt) -> Stmt:
    if not isinstance(s, Loop):
        return s
    return replace(s, body=tuple(map(one_lane, s.body)), extents=(const(1),) if s.kind == "vector" else s.extents)


def early_tail(s: Any) -> tuple[Stmt, ...]:
    """The last row starts one early, in what is read and in what is written."""

    def at(index: tuple[Affine, ...]) -> tuple[Affine, ...]:
        return tuple(a - 1 if a.const == 24 and a.coefficient("i.1.1") else a for a in index)

    new = replace(s, index=at(s.index))
    return load("a", at)(new) if hasattr(s, "value") else (new,)


SINGLE: dict[str, tuple[Mutant, ...]] = {
    "plain": (
        ("the reduction runs in parallel", block("k", parallel)),
        ("a result loop is parallel inside another", block("j", parallel)),
        ("the result is transposed", leaf(compute, lambda s: (replace(s, index=s.index[::-1]),))),
        ("an index uses a loop that does not exist", leaf(compute, index(var("z")))),
        ("two loops of one path have one name", block("j", having(name="i"))),
        ("the nest runs twice", block("i", lambda s: (s, s))),
        ("every point is visited twice", block("j", lambda s: (Loop("x", (const(2),), (s,)),))),
        ("the result is a constant", leaf(compute, having(value=op("add", Const(0.0, F32), Const(1.0, F32))))),
        ("an operand is transposed", leaf(compute, load("a", lambda i: i[::-1]))),
        ("a product becomes a sum", leaf(compute, operation("mul", renamed("add")))),
        (
            "an operand takes the place of the other",
            leaf(compute, operation("mul", lambda e: op("mul", e.args[0], e.args[0]))),
        ),
        ("a load has too few indices", leaf(compute, load("a", lambda i: i[:1]))),
        ("an input is written", leaf(compute, having(buffer="a"))),
        ("an unknown buffer is written", leaf(compute, having(buffer="q"))),
        ("the reduction counts down", leaf(compute, having(first=(6 - var("k"),)))),
        ("the extent depends on an inner loop", block("i", having(extents=(var("k"),)))),
        ("an output is not declared", lambda n: Nest(n.buffers[:-1], n.body)),
        ("nothing is left", lambda n: Nest(n.buffers, ())),
    ),
    "packed": (
        ("stale pack", block("k.0", stale_pack)),
        ("the pack comes after its use", block("t0.load1", order(0, 1))),
        ("the pack starts at the wrong row", leaf(copy, load("b", lambda i: (i[0] - 8 * var("k.0"), i[1])))),
        ("the pack starts at the wrong column", leaf(copy, load("b", lambda i: (i[0], i[1] - 24 * var("j.0"))))),
        ("the pack is shared by the threads", outermost("t0.load1")),
        ("the accumulators are shared by the threads", outermost("t0.acc")),
        ("the accumulators outlive their tile", block(holds_accumulators, initialised_once)),
        ("the accumulators are initialised inside the reduction", block("t0.acc", into(0, 2))),
        ("the accumulators start at one", leaf(init, having(value=Const(1.0, F32)))),
        ("the tile is written inside the reduction", block("t0.acc", into(3, 2))),
        ("the tile is written before the reduction", block("t0.acc", order(2, 3))),
        ("the tile is initialised after the reduction", block("t0.acc", order(0, 2))),
        ("the tile is written twice", block("t0.acc", lambda s: (with_body(s, (*s.body, s.body[-1])),))),
        (
            "the reduction's blocks run in parallel",
            lambda n: block("k.0", parallel)(block("j.0", having(kind="serial"))(n)),
        ),
        ("the reduction is a vector loop", block("k.1", having(kind="vector", lanes=8))),
        ("register rows are a serial loop", block("i.1.1", having(kind="serial"))),
        ("lanes are no power of two", block("j.1.1.1", having(lanes=12))),
        (
            "the tiles of a block read the same rows",
            leaf(compute, load("a", lambda i: (i[0] - 4 * var("i.1.0"), i[1]))),
        ),
        ("the tiles of a block write the same columns", leaf(write, without("j.1.0"))),
        ("every block of the reduction initialises", leaf(write, having(first=(const(0),)))),
        ("the last row starts one early", lambda n: Nest(n.buffers, map_leaves(n.body, early_tail))),
    ),
    "registers": (
        ("relu is gone", leaf(uses("max"), operation("max", lambda e: e.args[0]))),
        ("relu of the other sign", leaf(uses("max"), operation("max", renamed("min")))),
        ("relu at one", leaf(uses("max"), value(lambda e: Const(1.0, F32) if isinstance(e, Const) else None))),
        ("the epilogue runs inside the reduction", block("t0.acc", into(2, 1))),
        ("the epilogue runs first", block("t0.acc", order(1, 2))),
    ),
    "last block": (
        ("the epilogue runs after every block", block("t0", into(1, 0))),
        ("the epilogue runs after the first block", block("t0", epilogue_at(0, 0))),
        ("the epilogue runs after the last two blocks", block("t0", epilogue_at(1, 2))),
        ("the epilogue runs first", block("t0", order(0, 1))),
        ("each block of the reduction has its own results", block("t0", too_deep)),
    ),
    "rows": (
        ("the maximum is read before it is known", block("t1", order(0, 1))),
        ("rows share their sum", outermost("t1")),
        ("the difference is turned around", leaf(uses("sub"), operation("sub", lambda e: op("sub", *e.args[::-1])))),
        ("the quotient is turned around", leaf(uses("div"), operation("div", lambda e: op("div", *e.args[::-1])))),
        ("exp becomes exp2", leaf(uses("exp"), operation("exp", renamed("exp2")))),
        (
            "the lanes are combined without a start",
            leaf(lambda s: isinstance(s, Reduce) and s.buffer == "t0", having(first=(const(1),))),
        ),
    ),
    "row blocks": (("parallel blocks share their sums", lambda n: block("i.0", parallel)(outermost("t1")(n))),),
    "chain": (
        ("threads share the value between the stages", outermost("t0")),
        ("the stages change places", block("t0", order(0, 1))),
    ),
    "two nests": (
        ("the stages change places", lambda n: Nest(n.buffers, n.body[::-1])),
        ("the first stage is gone", lambda n: Nest(n.buffers, n.body[1:])),
        ("the second stage is gone", lambda n: Nest(n.buffers, n.body[:1])),
    ),
    "transposed": (
        ("the operand is read as it is written", leaf(compute, load("a", lambda i: i[::-1]))),
        ("lanes write one column", leaf(compute, without("j.1"))),
    ),
    "fused": (
        ("rows are taken by the wrong width", leaf(compute, index((8 * var("i_j.0") + var("i_j.1")) // 10, None))),
        ("blocks overlap", overlapping),
    ),
    "fused blocks": (
        ("all block rows write the first", leaf(compute, index(var("i.1"), None))),
        (
            "blocks are counted by the wrong number",
            leaf(compute, index(4 * (affine("i.0_j.0") // 4) + var("i.1"), None)),
        ),
    ),
    "window": (("the window is one wide", leaf(compute, load("a", lambda i: (i[0] - var("k"),)))),),
    "sums": (
        ("only one lane is written", block("t0.acc", lambda s: (with_body(s, (*s.body[:-1], one_lane(s.body[-1]))),))),
    ),
}


def mutants(name: str) -> Iterator[Mutant]:
    yield from SINGLE.get(name, ())
    yield from statements(scheduled(name)[1])
    yield from blocks(scheduled(name)[1])


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_mutant_is_caught(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, right = scheduled(name)
    source = lower(with_shared_axes(program))
    assert verify(program, right, Limits()).ok and not difference(source, right)
    rows: list[tuple[str, str]] = []
    for label, change in mutants(name):
        wrong = change(right)
        assert wrong != right, f"{label} changes nothing"
        found = verify(program, wrong, Limits()).violations
        rows.append(
            (label, f"verifier, {found[0].kind}" if found else "equivalence" if difference(source, wrong) else "")
        )
    print(f"\n{name}: {len(rows)} mutants; {', '.join(f'{by} {n}' for by, n in Counter(by for _, by in rows).items())}")
    for label, by in rows:
        print(f"    {label:64s}{by or 'NOT CAUGHT'}")
    assert not [label for label, by in rows if not by]


def test_there_are_enough() -> None:
    assert sum(map(len, SINGLE.values())) >= 60
    assert sum(len(list(mutants(name))) for name in SCHEDULES) >= 300
