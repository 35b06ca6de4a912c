"""Blocks and threads: barriers stand where they must, and no mutant of a nest with threads gets past the two checks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest

from autotune.ir.affine import Affine, const
from autotune.ir.equiv import difference
from autotune.ir.expr import Expr, Load, transform
from autotune.ir.flight import early
from autotune.ir.limits import Limits
from autotune.ir.lower import lower
from autotune.ir.nest import (
    BLOCK_KINDS,
    THREAD_KINDS,
    Alloc,
    Guard,
    Leaf,
    Loop,
    Nest,
    Reduce,
    Stmt,
    Store,
    map_leaves,
    substitute,
    walk,
    with_body,
)
from autotune.ir.program import Buffer, TensorProgram
from autotune.ir.schedule import Schedule
from autotune.ir.spmd import launch, spread
from autotune.ir.steps import (
    Bind,
    ComputeAt,
    Distribute,
    Pack,
    Pipeline,
    RegisterTile,
    Reorder,
    Split,
    SplitReduction,
    Step,
    Tensorize,
    Tile,
    TreeReduce,
    Unroll,
    Vectorize,
    copy_loop,
)
from autotune.ir.verify import verify
from tests.ir.programs import column_sum, half_product, normalised, product, row_sum

LIMITS = Limits(instructions=("mma_m16n8k16_f16",), warp=4)
PRODUCT: tuple[Step, ...] = (
    Tile("t0", (("i", 8), ("j", 8))), Reorder("t0", ("i.1", "j.1", "k")), Split("t0", "k", 4),
    RegisterTile("t0", (("i.1", 2), ("j.1", 2))), Distribute("t0", ("i.1.0", "j.1.0"), "k.0"),
    Pack("t0", 1, "k.0"), Pack("t0", 0, "k.0", ((0, 8),)),
    Unroll("t0", "i.1.1"), Unroll("t0", "j.1.1"),
    Bind("t0.load0", "t0.load0.a", "thread"), Bind("t0.load0", "t0.load0.b", "thread"),
    Bind("t0.load1", "t0.load1.a", "thread"), Bind("t0.load1", "t0.load1.b", "thread"),
    Bind("t0", "i.0", "block.y"), Bind("t0", "j.0", "block.x"),
    Bind("t0", "i.1.0", "thread.y"), Bind("t0", "j.1.0", "thread.x"),
)  # fmt: skip
ROW: tuple[Step, ...] = (
    RegisterTile("t0", (("k", 4),)), TreeReduce("t0"), Bind("t0", "k.1", "thread.x"), Bind("t0", "i", "block.x"),
)  # fmt: skip
NORM: tuple[Step, ...] = (
    RegisterTile("t0", (("r", 4),)), TreeReduce("t0"), Bind("t0", "r.1", "thread.x"),
    RegisterTile("t1", (("k", 4),)), TreeReduce("t1"), Bind("t1", "k.1", "thread.x"),
    Tile("t2", (("j", 4),)), Bind("t2", "j.1", "thread.x"),
    ComputeAt("t1", "t2", "i"), ComputeAt("t0", "t2", "i"), Bind("t2", "i", "block.x"),
)  # fmt: skip
COPIES: tuple[Step, ...] = (
    *(Split(c, copy_loop(c, 1), 4) for c in ("t0.load0", "t0.load1")),
    *(Vectorize(c, f"{copy_loop(c, 1)}.1", 4) for c in ("t0.load0", "t0.load1")),
    *(Bind(c, copy_loop(c, 0), "thread") for c in ("t0.load0", "t0.load1")),
    *(Bind(c, f"{copy_loop(c, 1)}.0", "thread") for c in ("t0.load0", "t0.load1")),
)
MATRIX: tuple[Step, ...] = (
    Tile("t0", (("i", 32), ("j", 16))), Reorder("t0", ("i.1", "j.1", "k")), Split("t0", "k", 16),
    RegisterTile("t0", (("i.1", 16), ("j.1", 8))), Distribute("t0", ("i.1.0", "j.1.0"), "k.0"),
    Pack("t0", 1, "k.0", (), True), Pack("t0", 0, "k.0", (), True), *COPIES,
    Pipeline("t0", "k.0", True),
    Tensorize("t0", "mma_m16n8k16_f16", "i.1.1", "j.1.1", "k.1"),
    Bind("t0", "i.1.0", "thread.z"), Bind("t0", "j.1.0", "thread.y"), Bind("t0", "i.0", "block.y"),
    Bind("t0", "j.0", "block.x"),
)  # fmt: skip
def matrix(ahead: int) -> tuple[Step, ...]:
    """The same with several blocks of operands under way."""
    return tuple(replace(s, ahead=ahead) if isinstance(s, Pipeline) else s for s in MATRIX)


WARP: tuple[Step, ...] = (
    RegisterTile("t0", (("k", 8),)), TreeReduce("t0", 4), Bind("t0", "k.1", "thread.x"), Bind("t0", "i", "block.x"),
)  # fmt: skip
COLUMNS: tuple[Step, ...] = (
    RegisterTile("t0", (("k", 4), ("i", 8))), TreeReduce("t0", 1, "thread.y"), Bind("t0", "k.1", "thread.y"),
    Bind("t0", "i.1", "thread.x"), Bind("t0", "i.0", "block.x"),
)  # fmt: skip
PARTED: tuple[Step, ...] = (
    SplitReduction("t0", "k", 3), Bind("t0", "k.part", "block.z"), Bind("t0", "i", "block.y"),
    Bind("t0", "j", "thread.x"), Bind("t0.total", "i", "block.y"), Bind("t0.total", "j", "thread.x"),
)  # fmt: skip
NESTS: dict[str, tuple[TensorProgram, tuple[Step, ...]]] = {
    "product": (product(16, 16, 12), PRODUCT), "ragged product": (product(11, 13, 10), PRODUCT),
    "row": (row_sum(5, 22), ROW), "norm": (normalised(5, 10), NORM),
    "matrix": (half_product(32, 32, 48), MATRIX), "warp": (row_sum(5, 22), WARP),
    "staged": (half_product(32, 32, 80), matrix(2)),
    "parted": (product(4, 6, 12), PARTED), "columns": (column_sum(22, 16), COLUMNS),
}  # fmt: skip

# What only some of the languages can say.
LANGUAGES = {"matrix": ("cuda",), "staged": ("cuda",), "warp": ("cuda", "hip")}


def made(name: str) -> tuple[TensorProgram, Nest]:
    program, steps = NESTS[name]
    return program, Schedule(steps).apply(lower(program))


def problem(program: TensorProgram, nest: Nest) -> str:
    """Which of the two checks refuses a nest, if any."""
    if verify(program, nest, LIMITS).violations:
        return "verifier"
    return "equivalence" if difference(lower(program), nest) else ""


@pytest.mark.parametrize("name", NESTS)
def test_what_is_derived_is_accepted(name: str) -> None:
    program, nest = made(name)
    assert problem(program, nest) == ""


def fenced(nest: Nest) -> list[str]:
    return [s.name for s, _ in walk(nest.body) if isinstance(s, Loop) and s.barrier]


def test_barriers_stand_where_threads_must_meet_and_nowhere_else() -> None:
    assert fenced(made("product")[1]) == ["t0.load0.a", "i.1.0"]  # after the tile before was read; before this one is
    assert fenced(made("row")[1]) == ["k.1.2", "k.1.1"]


def test_a_remainder_of_the_grid_is_a_grid_of_its_own() -> None:
    grids = [launch(stmt).grid for stmt in made("ragged product")[1].body]
    assert grids == [(1, 1, 1)] * 9  # of 8, 2 and 1 rows by 8, 4 and 1 columns
    assert launch(made("product")[1].body[0]).grid == (2, 2, 1)


def test_a_launch_has_room_for_every_thread_loop() -> None:
    asked = launch(made("product")[1].body[0])
    assert asked.block == (8, 4, 1) and asked.threads == 32, "a copy of 4 x 8 elements needs more than 4 x 4 tiles"
    assert asked.shared_bytes == 2 * 4 * 8 * 4


def test_accumulators_of_threads_are_registers_and_those_of_all_are_shared() -> None:
    scopes = {n: {b.name: b.scope for b in made(n)[1].all_buffers.values()} for n in NESTS}
    assert scopes["product"]["t0.acc"] == "register" and scopes["product"]["t0.load1"] == "shared"
    assert scopes["row"]["t0.acc"] == "shared"
    held = next(s for s, _ in walk(made("product")[1].body) if isinstance(s, Alloc) and s.buffer.name == "t0.acc")
    assert spread(held) == {0: ("thread.y",), 1: ("thread.x",)}


# ---- mutants --------------------------------------------------------------------------------------------------------


def changed(body: tuple[Stmt, ...], at: tuple[int, ...], new: Stmt) -> tuple[Stmt, ...]:
    out, stmt = list(body), body[at[0]]
    if at[1:]:
        assert isinstance(stmt, (Loop, Alloc, Guard))
        new = with_body(stmt, changed(stmt.body, at[1:], new))
    out[at[0]] = new
    return tuple(out)


def places(body: tuple[Stmt, ...], at: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Stmt]]:
    for n, stmt in enumerate(body):
        yield (*at, n), stmt
        if isinstance(stmt, (Loop, Alloc, Guard)):
            yield from places(stmt.body, (*at, n))


def mutants(nest: Nest) -> Iterator[tuple[str, Nest]]:
    """One thing wrong in each: a barrier less, an index shifted, a loop longer, threads of another axis, an array too
    small, a barrier that not all threads reach, the same element for all threads."""
    shared = {b.name for b in nest.all_buffers.values() if b.scope == "shared"}
    for at, stmt in places(nest.body):
        variants: list[tuple[str, Stmt]] = []
        match stmt:
            case Loop():
                if stmt.barrier:
                    variants.append((f"no barrier before {stmt.name}", replace(stmt, barrier=False)))
                variants.append((f"{stmt.name} is longer", replace(stmt, extents=tuple(e + 1 for e in stmt.extents))))
                if stmt.constant and stmt.constant > 1:
                    variants.append((f"{stmt.name} is shorter", replace(stmt, extents=(const(stmt.constant - 1),))))
                if stmt.kind == "thread.x":
                    inner = stmt.body[0]
                    if isinstance(inner, Loop):
                        inside = replace(stmt, body=(replace(inner, barrier=True),))
                        variants.append((f"barrier inside {stmt.name}", inside))
                if stmt.kind == "tensor":
                    other = "mma_m16n8k16_bf16"
                    variants.append((f"another instruction for {stmt.name}", replace(stmt, instruction=other)))
                    variants.append((f"{stmt.name} serial", replace(stmt, kind="serial", instruction="")))
                if stmt.kind in ("thread.x", "thread.y", "block.x", "block.y") and stmt.constant != 1:
                    other = {"x": "y", "y": "x"}[stmt.kind[-1]]
                    variants.append((f"{stmt.name} along {other}", replace(stmt, kind=stmt.kind[:-1] + other)))
            case Alloc(buffer=b) if b.scope == "shared" and b.shape:
                if b.shape[0] == 2 and len(b.shape) == 3:  # two halves of a pipeline
                    for half in (0, 1):
                        variants.append((f"all copies in half {half} of {b.name}", _one_half(stmt, half)))
                small = Buffer(b.name, b.dtype, (*b.shape[:-1], b.shape[-1] - 1), b.scope)
                variants.append((f"{b.name} is smaller", replace(stmt, buffer=small)))
                variants.append((f"{b.name} in registers", replace(stmt, buffer=replace(b, scope="register"))))
            case Store() | Reduce():
                variants += [(f"{what} of {stmt.buffer}", leaf) for what, leaf in shifted(stmt, shared)]
        for what, new in variants:
            yield f"{what} at {at}", Nest(nest.buffers, changed(nest.body, at, new))


def _one_half(stmt: Alloc, half: int) -> Alloc:
    """The same with every use of the array in one half."""
    name = stmt.buffer.name

    def still(leaf: Leaf) -> tuple[Stmt, ...]:
        fixed = partial(_moved_load, name, lambda index: (const(half), *index[1:]))
        index = (const(half), *leaf.index[1:]) if leaf.buffer == name else leaf.index
        if isinstance(leaf, (Store, Reduce)):
            return (replace(leaf, index=index, value=transform(leaf.value, fixed)),)
        return (replace(leaf, index=index),)

    return replace(stmt, body=map_leaves(stmt.body, still))


def _moved_load(name: str, fn: Callable[[tuple[Affine, ...]], tuple[Affine, ...]], node: Expr) -> Expr | None:
    return Load(name, fn(node.index), node.dtype) if isinstance(node, Load) and node.buffer == name else None


def shifted(leaf: Store | Reduce, shared: set[str]) -> Iterator[tuple[str, Leaf]]:
    def moved(index: tuple[Affine, ...]) -> tuple[Affine, ...]:
        return (*index[:-1], index[-1] + 1)

    def still(index: tuple[Affine, ...]) -> tuple[Affine, ...]:
        return (*index[:-1], const(0))

    for what, fn in (("shifted", moved), ("one element for all", still)):
        if leaf.index and fn(leaf.index) != leaf.index:
            yield f"{what} store", replace(leaf, index=fn(leaf.index))
        for name in sorted(shared):
            value = transform(leaf.value, partial(_moved_load, name, fn))
            if value != leaf.value:
                yield f"{what} load of {name}", replace(leaf, value=value)


def test_every_mutant_is_caught() -> None:
    """By the verifier, or by the equivalence check where it is safe but computes something else."""
    caught: dict[str, int] = {"verifier": 0, "equivalence": 0}
    for name in ("product", "row", "norm", "matrix", "staged", "warp", "parted", "columns"):
        program, nest = made(name)
        for what, mutant in mutants(nest):
            found = problem(program, mutant)
            assert found or harmless(nest, mutant), f"{name}: {what} passes:\n{mutant}"
            caught[found or "verifier"] += 1
    assert sum(caught.values()) >= 40 and all(caught.values()), caught


@pytest.mark.parametrize("meetings", [1, 3])
def test_a_copy_is_there_when_it_is_used_and_not_before(meetings: int) -> None:
    """Of copies that take two meetings: fewer would do, one more is one too many somewhere; and no meeting is idle but
    in the loop that empties the last parts."""

    def taking(n: int) -> Callable[[Leaf], tuple[Stmt, ...]]:
        return lambda s: (replace(s, asynchronous=n) if isinstance(s, Store) and s.asynchronous else s,)

    program, nest = made("staged")
    found = verify(program, Nest(nest.buffers, map_leaves(nest.body, taking(meetings))), LIMITS).violations
    assert [v.kind for v in found] == ([] if meetings == 1 else ["race"] * len(found)) and bool(found) == (meetings > 2)
    assert all("under way" in str(v) for v in found)


def test_a_block_that_is_long_is_followed_by_what_repeats() -> None:
    """A thousand blocks of the reduction, of which a few are looked at."""
    program = half_product(32, 32, 16 * 1000)
    nest = Schedule(matrix(3)).apply(lower(program))
    assert not early(nest)
    late = Nest(nest.buffers, map_leaves(nest.body, lambda s: (replace(s, asynchronous=4) if isinstance(
        s, Store) and s.asynchronous else s,)))  # fmt: skip
    assert early(late)


def harmless(nest: Nest, mutant: Nest) -> bool:
    """Threads that are only numbered along another axis, all of them, do the same; and the number of a loop's only
    iteration is zero."""
    return _unnumbered(nest.body) == _unnumbered(mutant.body)


def _unnumbered(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """Without the axes that thread and block loops are numbered along, and without the numbers of only iterations."""
    out: list[Stmt] = []
    for s in body:
        if isinstance(s, (Loop, Alloc, Guard)):
            once = {s.name: const(0)} if isinstance(s, Loop) and s.constant == 1 else {}
            s = with_body(s, _unnumbered(substitute(s.body, once)))
        if isinstance(s, Loop) and s.kind in (*THREAD_KINDS, *BLOCK_KINDS):
            s = replace(s, kind=s.kind.split(".")[0])
        out.append(s)
    return tuple(out)
