"""Nests written to deceive the verifier, one for each argument that its proofs make: it refuses them, and takes their
honest twins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from autotune.ir.affine import Affine, affine, const, var
from autotune.ir.dtypes import F16, F32
from autotune.ir.expr import Expr, Load, cast, op, transform
from autotune.ir.instructions import INSTRUCTIONS
from autotune.ir.limits import Limits
from autotune.ir.nest import Alloc, Guard, Loop, Nest, Reduce, Stmt, Store, with_body
from autotune.ir.program import Axis, Buffer, Compute, TensorProgram
from autotune.ir.verify import verify

from .test_spmd import made

LIMITS = Limits(instructions=tuple(INSTRUCTIONS), warp=4)
x, y, k, o, p, q, r = map(var, "xykopqr")
b = var("b")
Case = tuple[TensorProgram, tuple[Stmt, ...]]


def at(name: str, *index: Affine | int) -> Load:
    return Load(name, tuple(map(affine, index)), F32)


def put(name: str, index: tuple[Affine | int, ...], value: Expr, **fields: Any) -> Store:
    """A copy into an array that is no stage's."""
    return Store(name, tuple(map(affine, index)), value, name, (), "copy", **fields)


def result(value: Expr, *index: Affine | int, stage: str = "t0") -> Store:
    names = "ijl"[: len(index)]
    return Store(stage, tuple(map(affine, index)), value, stage, tuple(zip(names, map(affine, index))))


Extent = int | Affine | tuple[int | Affine, ...]


def over(name: str, extents: Extent, *body: Stmt, kind: str = "serial") -> Loop:
    row = extents if isinstance(extents, tuple) else (extents,)
    return Loop(name, tuple(map(affine, row)), body, kind)


def threads(name: str, extent: int, *body: Stmt, kind: str = "thread.x") -> Loop:
    return over(name, extent, *body, kind=kind)


def met(stmt: Loop) -> Loop:
    return replace(stmt, barrier=True)


def shared(name: str, *shape: int, body: tuple[Stmt, ...], scope: str = "shared") -> Alloc:
    return Alloc(Buffer(name, F32, shape, scope), body)


def program(*extents: int, a: tuple[int, ...] = (64,)) -> TensorProgram:
    """t0 over axes x, y, ... with an input a; what it is does not matter to the verifier."""
    axes = tuple(Axis(n, e) for n, e in zip("xyz", extents))
    inputs = (Buffer("a", F32, a),)
    return TensorProgram(inputs, (Compute("t0", F32, axes, Load("a", (const(0),) * len(a), F32)),), ("t0",))


def two(*extents: int) -> TensorProgram:
    """The same twice: t1 of t0, which a nest keeps."""
    first = program(*extents)
    axes = first.computes[0].axes
    load = Load("t0", tuple(var(a.name) for a in axes), F32)
    return TensorProgram(first.inputs, (*first.computes, Compute("t1", F32, axes, load)), ("t1",))


def kinds(case: Case) -> set[str]:
    given, body = case
    nest = Nest(given.buffers, body)
    return {v.kind for v in verify(given, nest, LIMITS).violations}


# ---- threads inside one region --------------------------------------------------------------------------------------


def rows_of_threads(write: Affine | int, read: Affine | int, inner: int = 4) -> Case:
    """Two loops over threads in a loop over other threads: nothing stands between them."""
    fill = threads("x", inner, put("s", (y, write), at("a", x)))
    use = threads("x", 4, result(at("s", y, read), y, x))
    return program(2, 4), (shared("s", 2, 4, body=(threads("y", 2, fill, use, kind="thread.y"),)),)


def one_thread_for_all() -> Case:
    fill = put("s", (y,), at("a", y))
    use = threads("x", 4, result(at("s", y), y, x))
    return program(2, 4), (shared("s", 2, body=(threads("y", 2, fill, use, kind="thread.y"),)),)


def serial_between(step: int) -> Case:
    """A thread writes what another one wrote in the iteration before, all in one region."""
    fill = threads("y", 2, over("k", 2, threads("x", 4, put("s", (y, x + step * k), at("a", x)))), kind="thread.y")
    use = met(threads("y", 2, threads("x", 4, result(at("s", y, x + step), y, x)), kind="thread.y"))
    return program(2, 4), (shared("s", 2, 8, body=(fill, use)),)


def flat_side_by_side() -> Case:
    """Numbers of threads are counted over all loops inside: two loops side by side number them twice."""
    inner = [threads(n, 4, put("s", (y, var(n) + e), at("a", var(n))), kind="thread") for n, e in (("x", 0), ("q", 4))]
    use = met(threads("x", 4, over("y", 2, result(at("s", y, x), y, x))))
    return program(2, 4), (shared("s", 2, 8, body=(threads("y", 2, *inner, kind="thread"), use)),)


def flat_and_alone() -> Case:
    inner = threads("x", 4, put("s", (y, x), at("a", x)), kind="thread")
    alone = Reduce("c", (y,), "sum", at("a", y), None, "c", (), "combine")
    use = met(threads("x", 4, over("y", 2, result(op("add", at("s", y, x), at("c", y)), y, x))))
    start = threads("y", 2, put("c", (y,), at("a", y)))
    region = met(threads("y", 2, alone, inner, kind="thread"))
    return program(2, 4), (shared("s", 2, 4, body=(shared("c", 2, body=(start, region, use)),)),)


# ---- blocks ---------------------------------------------------------------------------------------------------------


def blocks(name: str, extent: int | tuple[int | Affine, ...], *body: Stmt, axis: str = "x") -> Loop:
    return over(name, extent, *body, kind=f"block.{axis}")


def grids_in_a_block() -> Case:
    first = blocks("x", 4, result(at("a", x), y, x))
    second = blocks("x", 4, result(at("t0", y, 3 - x), y, x, stage="t1"))
    return two(2, 4), (blocks("y", 2, first, second, axis="y"),)


def a_leaf_beside_blocks() -> Case:
    first = over("x", 4, result(at("a", x), y, x))
    second = blocks("x", 4, result(at("t0", y, 3 - x), y, x, stage="t1"))
    return two(2, 4), (blocks("y", 2, first, second, axis="y"),)


def blocks_of_no_number() -> Case:
    """A grid is a box: the text has no condition on the number of a block."""
    return program(2, 4), (blocks("y", 2, blocks("x", (4, 4 - y), result(at("a", x), y, x)),
                                  axis="y"), over("q", 1, result(at("a", 0), 1, 3 + 0 * q)))  # fmt: skip


def handed(scope: str, ahead: int = 0, count: int = 1) -> Case:
    """An array around grids, which is one for all blocks, in a scope that is not."""
    fill = blocks("b", count, threads("x", 4, put("w", (x,), at("a", x))))
    use = blocks("b", count, threads("x", 4 - ahead, result(at("w", x + ahead), x)))
    return program(4 - ahead), (Alloc(Buffer("w", F32, (4,), scope), (fill, use)),)


# ---- barriers -------------------------------------------------------------------------------------------------------


def captured(name: str) -> Case:
    """Both regions name 5 * thread once the first one's serial loop is taken for the second one's threads."""
    fill = threads("p", 4, over(name, 8, put("s", (p + 4 * var(name),), at("a", p))))
    use = threads("q", 5, result(at("s", 5 * q), q))
    return program(5), (shared("s", 32, body=(fill, use)),)


def halves(extent: int, one: Affine, two: Affine, size: int, between: bool = False) -> Case:
    """In each iteration a part is written by its threads and another one read, written before all."""
    start = threads("x", 4, over("p", size, put("s", (p, x), at("a", x))))
    fill = met(threads("x", 4, put("s", (one, x), at("a", x))))
    use = threads("x", 4, result(at("s", two, 3 - x), k, x))
    turns = over("k", extent, fill, met(use) if between else use)
    return program(extent, 4), (shared("s", size, 4, body=(start, turns)),)


def restarted(fenced: bool) -> Case:
    """A loop that has begun again stands at another iteration."""
    start = threads("x", 4, over("p", 4, over("q", 2, put("s", (p, q, x), at("a", x)))))
    fill = threads("x", 4, put("s", (k + o, k % 2, x), at("a", x)))
    use = met(threads("x", 4, result(at("s", k + o, (k + 1) % 2, 3 - x), o, k, x)))
    inner = over("k", 2, fill, use)
    body = (start, met(over("o", 3, met(inner) if fenced else inner)))
    return program(3, 2, 4), (shared("s", 4, 2, 4, body=body),)


def reshaped(other: int) -> Case:
    """Arrays of one name are one memory, whatever their shapes."""
    first = shared("s", 4, 4, body=(
        threads("x", 4, over("p", 4, put("s", (x, p), at("a", p)))),
        threads("x", 4, over("p", 4, result(at("s", x, p), 0, x, p))),
    ))  # fmt: skip
    second = shared("s", 4, other, body=(
        threads("x", 4, over("p", 4, put("s", (x, p), at("a", p)))),
        threads("x", 4, over("p", 4, result(at("s", x, p), 1, x, p))),
    ))  # fmt: skip
    return program(2, 4, 4), (blocks("b", 1, first, second),)


def more_threads(count: int, guard: bool = False) -> Case:
    """x - 4 * (x // 4) is each thread's own among four of them."""
    index = x - 4 * (x // 4)
    store: Stmt = put("s", (index,), at("a", x))
    fill = threads("x", 8, Guard((3 - x,), (store,))) if guard else threads("x", 4, store)
    return program(count), (shared("s", 4, body=(fill, threads("x", count, result(at("s", index), x)))),)


def private_row(read: Affine, scope: str) -> Case:
    """An array in a loop over threads is one of each thread."""
    body = (threads("x", 4, put("c", (x,), at("a", x))), threads("x", 4, result(at("c", read), y, x)))
    row = threads("y", 2, Alloc(Buffer("c", F32, (4,), scope), body), kind="thread.y")
    return program(2, 4), (row,)


def retyped() -> Case:
    given, body = reshaped(4)
    (block,) = body
    assert isinstance(block, Loop)
    half = Alloc(Buffer("s", F16, (32,), "shared"), (
        met(threads("x", 4, Store("s", (x,), cast(at("a", x), F16), "s", (), "copy"))),
        met(threads("x", 4, over("p", 4, result(cast(Load("s", (x,), F16), F32), 1, x, p)))),
    ))  # fmt: skip
    return given, (replace(block, body=(block.body[0], half)),)


# ---- asynchronous copies --------------------------------------------------------------------------------------------


def copied_twice(step: int) -> Case:
    """Of two copies under way to one place nobody knows which arrives last."""
    fill = threads("x", 4, over("k", 2, put("s", (x + step * k,), at("a", x + 4 * k), asynchronous=True)))
    use = met(threads("x", 4, result(at("s", x + step), x)))
    return program(4), (shared("s", 8, body=(fill, use)),)


def used_after(meetings: int, late: int, parts: int = 3) -> Case:
    """A loop that copies two iterations ahead and uses what is `late` iterations old, of so many `parts`; copies take
    so many meetings."""
    ahead = put("s", ((k + 2) % parts, x), at("a", x + 4 * k), asynchronous=meetings)
    use = threads("x", 4, result(at("s", (k + 2 - late) % parts, x), k, x))
    first = [threads("x", 4, put("s", (n, x), at("a", x + 16 + n))) for n in range(3)]
    return program(6, 4), (shared("s", 3, 4, body=(*first, over("k", 6, met(threads("x", 4, ahead)), met(use)))),)


def source_overwritten(where: str, meetings: int = 1) -> Case:
    """A copy under way may read its source late."""
    copy, new = put("s", (x,), at("w", x), asynchronous=meetings), put("w", (x,), at("a", x + 4))
    rows = {"here": (threads("x", 4, copy, new),), "next": (threads("x", 4, copy), threads("x", 4, new)),
            "behind a barrier": (threads("x", 4, copy), met(threads("x", 4, new)))}[where]  # fmt: skip
    use = met(threads("x", 4, result(at("s", x), x)))
    first = blocks("b", 1, threads("x", 4, put("w", (x,), at("a", x))))
    second = blocks("b", 1, shared("s", 4, body=(*rows, use)))
    return program(4), (Alloc(Buffer("w", F32, (4,), "scratch"), (first, second)),)


# ---- reductions and what is read before -----------------------------------------------------------------------------


def guarded_before(start: bool) -> Case:
    """Read in odd iterations only, and written in them: what the one before did not write."""
    head: tuple[Stmt, ...] = (Guard((-k,), (put("c", (), at("a", k)),)),) if start else ()
    odd = Guard((k % 2 - 1,), (result(at("c"), k), put("c", (), at("a", k))))
    even = Guard((-(k % 2),), (result(at("a", k), k),))
    return program(4), (Alloc(Buffer("c", F32, (), "register"), (over("k", 4, *head, odd, even),)),)


def turn_before(extent: Affine | int) -> Case:
    """Read first, then written in an inner loop that may be empty."""
    head = Guard((-k,), (put("c", (0,), at("a", k)),))
    body = (head, result(at("c", 0), k), over("p", extent, put("c", (0 * p,), at("a", k))))
    return program(4), (Alloc(Buffer("c", F32, (1,), "register"), (over("k", 4, *body),)),)


def turn_unwritten(extent: Affine | int) -> Case:
    body = (Guard((k - 1,), (result(at("c", 0), k),)), Guard((-k,), (result(at("a", 0), k),)),
            over("p", extent, put("c", (0 * p,), at("a", k))))  # fmt: skip
    return program(4), (Alloc(Buffer("c", F32, (1,), "register"), (over("k", 4, *body),)),)


def any_order(kind: str) -> Case:
    """The turn before is none where turns run at once."""
    head = Guard((-k,), (put("c", (k,), at("a", k)),))
    body = (head, result(at("c", k), k), Guard((2 - k,), (put("c", (k + 1,), at("a", k)),)))
    return program(4), (Alloc(Buffer("c", F32, (5,), "scratch"), (over("k", 4, *body, kind=kind),)),)


def row_of(m: int, n: int) -> TensorProgram:
    body = at("a", x, k)
    sums = Compute("t0", F32, (Axis("x", m),), body, (Axis("k", n),), "sum")
    return TensorProgram((Buffer("a", F32, (m, n)),), (sums,), ("t0",))


def summed(*first: Affine) -> Case:
    add = Reduce("t0", (x,), "sum", at("a", x, k), first, "t0", (("i", x), ("k", k)))
    return row_of(3, 4), (over("x", 3, over("k", 4, add)),)


def in_lines(*conditions: Affine, outer: int = 2) -> Case:
    """Two loops sum up, the outer one named in no coordinate: a guard may take the first start away."""
    add = Reduce("t0", (x,), "sum", at("a", x, 2 * r + k), (k,), "t0", (("i", x), ("k", 2 * r + k)))
    guarded: Stmt = Guard(conditions, (add,)) if conditions else add
    skipped = Reduce("t0", (x,), "sum", at("a", x, 0 * x), None, "t0", (("i", x), ("k", 0 * x)))
    return row_of(3, 2 * outer), (over("x", 3, over("r", outer, over("k", 2, guarded)), skipped),)


def along_diagonals() -> Case:
    """Contributions to x + k: an element's start, at k = 0, comes last."""
    add = Reduce("c", (x + k,), "sum", at("a", x, k), (k,), "c", (), "combine")
    rest = over("p", 2, put("c", (p + 3,), at("a", 0, 0)))
    use = over("x", 5, result(at("c", x), x))
    return program(5, a=(3, 3)), (shared("c", 5, body=(rest, over("x", 3, over("k", 3, add)), use), scope="scratch"),)


def fused(outer: int, inner: int, x_of: Affine) -> Case:
    """Rows of 3 in one loop, and that one cut in two."""
    row, at_k = x_of // 3, x_of % 3
    add = Reduce("t0", (row,), "sum", at("a", row, at_k), (at_k,), "t0", (("i", row), ("k", at_k)))
    return row_of(4, 3), (over("o", outer, over("p", inner, add)),)


def read_too_soon(last: Affine) -> Case:
    """A sum that one iteration of a loop makes, and all of them read."""
    add = Reduce("c", (), "sum", at("a", 0, p), (p,), "c", (), "combine")
    body = (Guard((k - 2, 2 - k), (over("p", 4, replace(add, first=None)),)), Guard((last,), (result(at("c"), k),)))
    rest = Guard((-1 - last,), (result(at("a", 0, 0), k),))
    start = put("c", (), at("a", 0, 0))
    return program(4, a=(1, 4)), (Alloc(Buffer("c", F32, (), "register"), (start, over("k", 4, *body, rest))),)


# ---- names ----------------------------------------------------------------------------------------------------------


def primed() -> Case:
    """Proofs make names of their own: the digits of x are x'0 and x'1."""
    digit = var("x'0")
    return program(8, 2), (threads("x", 8, over("x'0", 2, result(at("a", 4 * (x // 4) + x % 4), x, digit))),)


# ---- warps and matrix instructions ----------------------------------------------------------------------------------


def lanes(read: Affine, count: int = 2, kind: str = "thread.x", scope: str = "warp") -> Case:
    fill = threads("x", 4, put("w", (x,), at("a", x)))
    use = threads("x", count, result(at("w", read), x), kind=kind)
    return program(count), (shared("w", 4, body=(fill, use), scope=scope),)


def beside_a_product(count: int, kind: str = "thread.x") -> Case:
    """A row of 32 threads is a warp only where all rows are of 32 n: here other threads make them longer."""
    given, nest = made("matrix")
    extra = threads("q", count, Store("v", (q,), Load("a", (const(0), q % 32), F16), "v", (), "copy"), kind=kind)
    return given, _inside_blocks(nest.body, lambda body: (Alloc(Buffer("v", F16, (count,), "shared"), (extra, *body)),))


def _inside_blocks(body: tuple[Stmt, ...], fn: Callable[[tuple[Stmt, ...]], tuple[Stmt, ...]]) -> tuple[Stmt, ...]:
    (outer,) = body
    if isinstance(outer, Loop) and outer.kind.startswith("block"):
        return (replace(outer, body=_inside_blocks(outer.body, fn)),)
    return fn(body)


def private_operand() -> Case:
    """Lanes give each other's instructions their operands: arrays of their own hold what each of them made of them."""
    given, nest = made("matrix")
    m, n = var("m"), var("n")
    fill = over("m", 16, over("n", 16, Store("mine", (m, n), Load("a", (m, n), F16), "mine", (), "copy")))

    def own(node: Expr) -> Expr | None:
        if not isinstance(node, Load) or node.buffer != "t0.load0":
            return None
        return Load("mine", (node.index[1] - 16 * var("i.1.0") - 16 * var("i.1.1.0"), var("k.1.1")), F16)

    def inside(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        out: list[Stmt] = []
        for s in body:
            if isinstance(s, Reduce):
                s = replace(s, value=transform(s.value, own))
            elif isinstance(s, (Loop, Alloc, Guard)):
                s = with_body(s, inside(s.body))
            if isinstance(s, Loop) and s.kind == "tensor":
                s = Alloc(Buffer("mine", F16, (16, 16), "scratch"), (fill, s))
            out.append(s)
        return tuple(out)

    return given, inside(nest.body)


# What each argument of the proofs takes, and what it must not.
HONEST: dict[str, Case] = {
    "rows of threads": rows_of_threads(x, x),
    "serial between": serial_between(4),
    "a handed array": handed("scratch"),
    "as many threads": more_threads(4),
    "a private row": private_row(x, "register"),
    "halves": halves(6, k % 2, (k + 1) % 2, 2),
    "thirds": halves(6, (k + 1) % 3, k % 3, 3, True),
    "restarted": restarted(True),
    "of one shape": reshaped(4),
    "copied once": copied_twice(4),
    "source overwritten": source_overwritten("behind a barrier"),
    "used two meetings later": used_after(2, 1), "used three meetings later": used_after(3, 2),
    "written before": turn_before(4),
    "unwritten in the first turn": turn_unwritten(1),
    "in turns": any_order("serial"),
    "summed": summed(k),
    "fused": fused(3, 4, 4 * o + p),
    "summed by digits": summed(k // 2, k % 2),
    "read at last": read_too_soon(k - 2),
    "lanes": lanes(x + 2),
    "beside a product": beside_a_product(32),
}
DECEITFUL: dict[str, Case] = {
    "rows of threads": rows_of_threads(x, 3 - x),
    "one thread for all": one_thread_for_all(),
    "serial between": serial_between(1),
    "flat side by side": flat_side_by_side(),
    "flat and alone": flat_and_alone(),
    "grids in a block": grids_in_a_block(),
    "a leaf beside blocks": a_leaf_beside_blocks(),
    "blocks of no number": blocks_of_no_number(),
    "more threads": more_threads(8),
    "more threads, guarded": more_threads(8, True),
    "a private row": private_row(3 - x, "scratch"),
    "a private register": private_row(3 - x, "register"),
    "a handed shared array": handed("shared"),
    "a handed register": handed("register"),
    "a handed warp": handed("warp", 1),
    "captured": captured("q"),
    "halves by quotient": halves(6, k // 4, k % 2 + 1, 3),
    "halves of quotients": halves(4, (k // 2) % 2, const(1) + 0 * k, 2),
    "halves at other times": halves(4, k % 2, k // 2 % 2, 2),
    "no halves": halves(4, k % 2, (k + 2) % 2, 2),
    "restarted": restarted(False),
    "of other shapes": reshaped(8),
    "of other types": retyped(),
    "copied twice": copied_twice(0),
    "source overwritten": source_overwritten("here"),
    "source overwritten later": source_overwritten("next"),
    "source overwritten too early": source_overwritten("behind a barrier", 2),
    "used one meeting later": used_after(2, 0), "used two of three meetings later": used_after(4, 1),
    "copied again too early": used_after(7, 2),
    "guarded alike": guarded_before(True),
    "guarded alike, never begun": guarded_before(False),
    "unwritten in the first turn": turn_unwritten(k),
    "turns at once": any_order("parallel"),
    "in turns, by threads": any_order("thread.x"),
    "summed out of order": summed((k + 1) % 4),
    "summed along rows": summed((k + x) % 4),
    "the start taken away": in_lines(r + k - 1),
    "along diagonals": along_diagonals(),
    "fused the other way": fused(4, 3, o + 4 * p),
    "read too soon": read_too_soon(k - 1),
    "primed": primed(),
    "lanes before": lanes(3 - x),
    "lanes along y": lanes(x + 2, kind="thread.y"),
    "flat lanes": lanes(x + 2, kind="thread"),
    "beside longer rows": beside_a_product(48),
    "beside many threads": beside_a_product(130, "thread"),
    "private operands": private_operand(),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_nests_are_taken(name: str) -> None:
    assert kinds(HONEST[name]) == set()


@pytest.mark.parametrize("name", DECEITFUL)
def test_deceitful_nests_are_refused(name: str) -> None:
    assert kinds(DECEITFUL[name])
