"""Equivalence: right schedules pass, at small instances of the same structure; planted bugs are all caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from autotune.ir import equiv
from autotune.ir.affine import Affine, affine, const, var
from autotune.ir.dtypes import BOOL, F16, F32, I8, I32, I64
from autotune.ir.equiv import difference, equivalent
from autotune.ir.errors import ScheduleError
from autotune.ir.expr import Const, Expr, Index, Load, Op, cast, op, transform
from autotune.ir.lower import lower
from autotune.ir.nest import Alloc, Guard, Leaf, Loop, Nest, Reduce, Stmt, Store, leaves, map_leaves, substitute
from autotune.ir.nest import with_body as rebuilt
from autotune.ir.program import Axis, Buffer, Compute, TensorProgram
from autotune.ir.schedule import Schedule
from autotune.ir.steps import ComputeAt, Fuse, Parallel, RegisterTile, Reorder, Split, Step, Tile, Unroll

from .nests import SCHEDULES, blocked, lanes_of, scheduled
from .programs import array, at, axes, biased, chained, compute, normalised, number, product, row_sum, shifted, window

# ---- right schedules ------------------------------------------------------------------------------------------------

REAL: dict[str, tuple[TensorProgram, tuple[Step, ...]]] = {
    **SCHEDULES,
    "1000^3": (product(1000, 1000, 1000), blocked("t0", 512, 256, 144, 6, 32, 16)),
    "255^3": (product(255, 255, 255), blocked("t0", 64, 96, 48, 6, 32, 16)),
    "192^3": (product(192, 192, 192), blocked("t0", 192, 192, 192, 6, 32, 16)),
    "31x57x93": (product(31, 57, 93), blocked("t0", 57, 93, 31, 14, 16, 16)),
    "one row": (product(1, 4096, 4096), blocked("t0", 512, 256, 6, 6, 32, 16)),
    "k unrolled": (product(100, 90, 103), (RegisterTile("t0", (("i", 6), ("j", 32)), (("k", 4),)),)),
    "dense": (biased(128, 768, 768), (
        Split("t0", "i", 48), RegisterTile("t0", (("i.1", 6), ("j", 32))), ComputeAt("t1", "t0"),
        *lanes_of("t0", "j.1", 16), Parallel("t0", "i.0"),
    )),
    "flat": (shifted(4096, 1000), (Fuse("t0", "i", "j"), Split("t0", "i_j", 65536), *lanes_of("t0", "i_j.1", 64))),
    "flat cut": (shifted(101, 1023), (Fuse("t0", "i", "j"), Split("t0", "i_j", 16, "cut"))),
    "guard": (shifted(101, 1023), (Split("t0", "j", 16, "guard"),)),
    "tiles": (shifted(101, 1023), (Tile("t0", (("i", 4), ("j", 16))), Unroll("t0", "i.1"))),
    "rows 1024": (normalised(1024, 1024), SCHEDULES["rows"][1]),
    "row sums": (row_sum(4096, 4099), (RegisterTile("t0", (("i", 4), ("k", 32))),)),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_right_schedules_pass_at_a_small_instance(name: str) -> None:
    program, steps = REAL[name]
    report = equivalent(program, Schedule(steps))
    assert report.ok and not report.message and not report.sampled, report
    assert all(n <= 64 for _, n in report.extents), report.extents


def test_the_instance_keeps_blocks_tails_and_divisibilities() -> None:
    program, steps = REAL["1000^3"]
    full = Schedule(steps).apply(lower(program))
    small, nest = equiv._instance(program, Schedule(steps), full)
    extents = {a.name: a.extent for a in small.computes[0].all_axes}
    assert equiv._skeleton(nest.body) == equiv._skeleton(full.body)
    made = dict[str, int]()
    for loop in _loops(nest):
        made.setdefault(loop.name, max((t.const for t in loop.extents if t.is_const), default=0))
    block = made["i.1.1"] * 2  # 144 = 24 * 6: several tiles a block; 1000 = 6 * 144 + 22 * 6 + 4: blocks, tiles, a rest
    assert made["i.1.0"] >= 2 and extents["i"] // block >= 2 and extents["i"] % block > made["i.1.1"]
    assert made["j.1.1.0"] == 2 and extents["k"] % made["k.1"] and len(set(extents.values())) == 3


def _loops(nest: Nest) -> list[Loop]:
    def visit(body: tuple[Stmt, ...]) -> list[Loop]:
        found: list[Loop] = []
        for s in body:
            found += [s] if isinstance(s, Loop) else []
            found += visit(getattr(s, "body", ()))
        return found

    return visit(nest.body)


def test_coupled_axes_shrink_together() -> None:
    """A window, a slice with room to spare, a strided read, and a stage that reads another one through a reshape."""
    wide = compute("t0", axes(i=400, j=512), op("mul", at("a", "i", "j"), number(2.0)))
    folded = at("t0", var("p"), var("q") * 64 + var("r"))
    heads = compute("t1", axes(p=400, q=8, r=64), op("add", folded, at("b", var("r") * 3 + 5)))
    flat = compute("t2", axes(f=400 * 64), at("t1", var("f") // 64, affine(3), var("f") % 64))
    program = TensorProgram((array("a", 500, 512), array("b", 300)), (wide, heads, flat), ("t2", "t1"))
    report = equivalent(program, Schedule((Split("t0", "j", 64),)))
    assert report.ok and not report.sampled, report
    assert max(n for _, n in report.extents) < 400
    steps = (Reorder("t0", ("k", "i")), Split("t0", "i", 64), *lanes_of("t0", "i.1", 16))
    report = equivalent(window(4096, 9), Schedule(steps))
    assert report.ok and dict(report.extents)["i"] < 40, report


def test_other_types_are_exact() -> None:
    i = Axis("i", 300)
    a, b = Load("a", (var("i"),), I8), Load("b", (var("i"),), F16)
    narrow = cast(op("mul", cast(b, F32), number(0.1)), F16)
    picked = Op("where", (op("lt", Index(var("i") % 7), Const(3, I64)), cast(a, I32), Const(-1, I32)), I32)
    stages = (
        Compute("t0", F16, (i,), narrow),
        Compute("t1", I32, (), Op("cast", (picked,), I32), (i,), "sum"),
        Compute("t2", BOOL, (), op("ne", a, Const(0, I8)), (i,), "any"),
    )
    program = TensorProgram((Buffer("a", I8, (300,)), Buffer("b", F16, (300,))), stages, ("t0", "t1", "t2"))
    loop = {nest.body[0].tag: nest.name for nest in _loops(lower(program))}  # type: ignore[union-attr]
    tiles = [RegisterTile(stage, ((loop[stage], n),)) for stage, n in (("t1", 16), ("t2", 8))]
    report = equivalent(program, Schedule((Split("t0", loop["t0"], 32), *tiles)))
    assert report.ok and not report.sampled, report


def test_empty_and_single_axes() -> None:
    for program in (product(3, 4, 0), product(0, 4, 5), product(1, 1, 1)):
        assert equivalent(program, Schedule()).ok
    assert equivalent(product(1, 16, 9), Schedule((Split("t0", "i", 4), RegisterTile("t0", (("i.1", 4), ("j", 8)))))).ok


def test_a_schedule_that_does_not_apply_is_an_error() -> None:
    with pytest.raises(ScheduleError, match="no loop"):
        equivalent(product(4, 4, 4), Schedule((Split("t0", "zz", 4),)))


# ---- planted bugs ---------------------------------------------------------------------------------------------------

Mutation = Callable[[Nest], Nest]
Change = Callable[[Store | Reduce], tuple[Stmt, ...]]


def edit(pick: Callable[[Store | Reduce], bool], change: Change, only: int = -1) -> Mutation:
    """Changes every statement that `pick` takes, or just the n-th of them."""

    def mutate(nest: Nest) -> Nest:
        hits = 0

        def visit(leaf: Leaf) -> tuple[Stmt, ...]:
            nonlocal hits
            if not isinstance(leaf, (Store, Reduce)) or not pick(leaf):
                return (leaf,)
            hits += 1
            return change(leaf) if only in (-1, hits - 1) else (leaf,)

        made = Nest(nest.buffers, map_leaves(nest.body, visit))
        assert hits > max(only, 0)
        return made

    return mutate


def blocks(change: Callable[[Stmt], tuple[Stmt, ...] | None]) -> Mutation:
    """Replaces the statements for which `change` gives something."""

    def mutate(nest: Nest) -> Nest:
        def visit(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
            out: list[Stmt] = []
            for s in body:
                new = change(s)
                if new is not None:
                    out += new
                elif isinstance(s, (Loop, Alloc, Guard)):
                    out.append(rebuilt(s, visit(s.body)))
                else:
                    out.append(s)
            return tuple(out)

        return Nest(nest.buffers, visit(nest.body))

    return mutate


def index(buffer: str, change: Callable[[tuple[Affine, ...]], tuple[Affine, ...]]) -> Callable[[Expr], Expr | None]:
    def visit(e: Expr) -> Expr | None:
        return Load(e.buffer, change(e.index), e.dtype) if isinstance(e, Load) and e.buffer == buffer else None

    return visit


def value(change: Callable[[Expr], Expr | None]) -> Change:
    return lambda leaf: (replace(leaf, value=transform(leaf.value, change)),)


def operation(name: str, change: Callable[[Op], Expr]) -> Change:
    return value(lambda e: change(e) if isinstance(e, Op) and e.name == name else None)


def renamed(name: str) -> Callable[[Op], Expr]:
    return lambda e: Op(name, e.args, e.dtype)


def first_argument(e: Op) -> Expr:
    return e.args[0]


def swapped(e: Op) -> Expr:
    return Op(e.name, e.args[::-1], e.dtype)


def to(**fields: object) -> Change:
    return lambda leaf: (replace(leaf, **fields),)  # type: ignore[arg-type]


def role(name: str, tag: str = "") -> Callable[[Store | Reduce], bool]:
    return lambda leaf: leaf.role == name and tag in ("", leaf.tag)


def every(name: str, change: Callable[[Loop], Loop]) -> Mutation:
    """Changes every loop of that name."""
    return blocks(lambda s: (change(s),) if isinstance(s, Loop) and s.name == name else None)


def stale_pack(nest: Nest) -> Nest:
    """The operand is packed once, before the loop over blocks of the reduction."""

    def change(s: Stmt) -> tuple[Stmt, ...] | None:
        if isinstance(s, Loop) and s.name == "k.0" and isinstance(s.body[0], Alloc):
            cache, (fill, *rest) = s.body[0].buffer, s.body[0].body
            return (Alloc(cache, (*substitute((fill,), {"k.0": const(0)}), replace(s, body=tuple(rest)))),)
        return None

    return blocks(change)(nest)


def hoisted_accumulators(nest: Nest) -> Nest:
    """One set of accumulators, initialised once, for all tiles of a column."""

    def change(s: Stmt) -> tuple[Stmt, ...] | None:
        if isinstance(s, Loop) and s.name == "i.1.0" and isinstance(s.body[0], Alloc):
            init, *rest = s.body[0].body
            return (Alloc(s.body[0].buffer, (init, replace(s, body=tuple(rest)))),)
        return None

    return blocks(change)(nest)


def accumulators(change: Callable[[tuple[Stmt, ...]], tuple[Stmt, ...]]) -> Mutation:
    """Rearranges what a tile does: initial value, hints, reductions, write."""
    return blocks(
        lambda s: (rebuilt(s, change(s.body)),) if isinstance(s, Alloc) and s.buffer.name == "t0.acc" else None
    )


def extents(name: str, by: int) -> Mutation:
    return every(name, lambda loop: replace(loop, extents=tuple(e + by for e in loop.extents)))


def sized(name: str, change: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Mutation:
    def visit(s: Stmt) -> tuple[Stmt, ...] | None:
        if not isinstance(s, Alloc) or s.buffer.name != name:
            return None
        return (replace(s, buffer=replace(s.buffer, shape=change(s.buffer.shape))),)

    return blocks(visit)


def reversed_body(owner: Callable[[Stmt], bool]) -> Mutation:
    return blocks(lambda s: (rebuilt(s, s.body[::-1]),) if isinstance(s, (Loop, Alloc, Guard)) and owner(s) else None)


UPDATE = role("compute", "t0")
PRODUCT: dict[str, Mutation] = {
    "stale pack": stale_pack,
    "pack from the next row": edit(role("copy"), value(index("b", lambda i: ((i[0] + 1) % 17, i[1])))),
    "pack from the next column": edit(role("copy"), value(index("b", lambda i: (i[0], (i[1] + 1) % 39)))),
    "pack transposed": edit(role("copy"), lambda s: (replace(s, index=(s.index[0], s.index[2], s.index[1])),)),
    "panel of another tile": edit(UPDATE, value(index("t0.load1", lambda i: (const(0), *i[1:])))),
    "lane of another column": edit(UPDATE, value(index("t0.load1", lambda i: (*i[:2], (i[2] + 1) % 8)))),
    "row of another tile": edit(UPDATE, value(index("a", lambda i: ((i[0] + 4) % 25, i[1])))),
    "wrong row in a tail body": edit(UPDATE, value(index("a", lambda i: (i[0] - 1, i[1]))), only=1),
    "wrong column in a tail body": edit(UPDATE, value(index("t0.load1", lambda i: (i[0] - 1, *i[1:]))), only=2),
    "another k of a": edit(UPDATE, value(index("a", lambda i: (i[0], (i[1] + 1) % 17)))),
    "a transposed": edit(UPDATE, value(index("a", lambda i: (i[1], i[0] % 17)))),
    "max for sum": edit(UPDATE, to(combiner="max")),
    "max for sum in a tail": edit(UPDATE, to(combiner="max"), only=3),
    "max for sum in the write": edit(role("write"), to(combiner="max")),
    "add for mul": edit(UPDATE, operation("mul", renamed("add"))),
    "one operand twice": edit(UPDATE, operation("mul", lambda e: op("mul", e.args[0], e.args[0]))),
    "initial value 1": edit(role("init"), to(value=number(1.0))),
    "no initial value": edit(role("init"), lambda s: ()),
    "no initial value in a tail": edit(role("init"), lambda s: (), only=1),
    "initialised after the reduction": accumulators(lambda b: (*b[1:-1], b[0], b[-1])),
    "written before the reduction": accumulators(lambda b: (b[0], b[-1], *b[1:-1])),
    "reduced twice": accumulators(lambda b: (*b[:-1], *b[-2:])),
    "written twice": accumulators(lambda b: (*b, b[-1])),
    "not written": accumulators(lambda b: b[:-1]),
    "accumulators outside of the tile": hoisted_accumulators,
    "every block starts the result": edit(role("write"), to(first=())),
    "no block starts the result": edit(role("write"), to(first=None)),
    "the second block starts the result": edit(role("write"), to(first=(var("k.0") - 1,))),
    "write to another row": edit(role("write"), lambda s: (replace(s, index=((s.index[0] + 4) % 25, s.index[1])),)),
    "write of another accumulator": edit(role("write"), value(index("t0.acc", lambda i: (i[0], const(0))))),
    "last block of k skipped": extents("k.0", -1),
    "last of k skipped": extents("k.1", -1),
    "last lane skipped": extents("j.1.1.1", -1),
    "last row skipped": extents("i.1.1", -1),
    "one k too many": extents("k.1", 1),
    "packed block too short": extents("t0.load1.a", -1),
    "tail always": blocks(lambda s: s.body if isinstance(s, Guard) else None),
    "tail never": blocks(lambda s: () if isinstance(s, Guard) else None),
    "pack buffer one row short": sized("t0.load1", lambda n: (n[0], n[1] - 1, n[2])),
    "too few accumulators": sized("t0.acc", lambda n: (n[0], n[1] - 1)),
    "blocks of the reduction in parallel": every("k.0", lambda loop: replace(loop, kind="parallel")),
    "pack after its use": reversed_body(lambda s: isinstance(s, Alloc) and s.buffer.name == "t0.load1"),
}  # fmt: skip


def packed() -> tuple[Nest, Nest]:
    program, nest = scheduled("packed")
    return lower(program), nest


@pytest.mark.parametrize("name", PRODUCT)
def test_planted_bugs_in_a_blocked_product_are_caught(name: str) -> None:
    source, nest = packed()
    wrong = PRODUCT[name](nest)
    assert wrong != nest and difference(source, nest) == ""
    assert difference(source, wrong), f"{name} was not caught"


@pytest.mark.parametrize("name", PRODUCT)
def test_the_small_instance_of_a_large_product_catches_them_too(name: str) -> None:
    program, steps = REAL["1000^3"]
    small, nest = equiv._instance(program, Schedule(steps), Schedule(steps).apply(lower(program)))
    assert difference(lower(small), PRODUCT[name](nest)), f"{name} was not caught"


EPILOGUE: dict[str, Mutation] = {
    "relu dropped": edit(role("compute", "t1"), operation("max", first_argument)),
    "min for max": edit(role("compute", "t1"), operation("max", renamed("min"))),
    "bias dropped": edit(role("compute", "t1"), operation("add", first_argument)),
    "bias subtracted": edit(role("compute", "t1"), operation("add", renamed("sub"))),
    "bias of another column": edit(role("compute", "t1"), value(index("c", lambda i: ((i[0] + 1) % 15,)))),
    "bias by row": edit(role("compute", "t1"), lambda s: value(index("c", lambda i: (s.index[0],)))(s)),
    "wrong row in the epilogue's tail": edit(
        role("compute", "t1"), lambda s: (replace(s, index=(s.index[0] - 1, s.index[1])),), only=2
    ),
    "relu against 1": edit(role("compute", "t1"), value(lambda e: number(1.0) if isinstance(e, Const) else None)),
}  # fmt: skip


@pytest.mark.parametrize("name", EPILOGUE)
def test_planted_bugs_in_an_epilogue_are_caught(name: str) -> None:
    program, nest = scheduled("registers")
    wrong = EPILOGUE[name](nest)
    assert wrong != nest and difference(lower(program), wrong), f"{name} was not caught"


def writes(s: Stmt, stage: str) -> bool:
    return any(leaf.tag == stage and leaf.buffer == stage for leaf in leaves((s,)))


def epilogue_first(nest: Nest) -> Nest:
    """The epilogue of a block runs before the block's results are written back."""

    def change(s: Stmt) -> tuple[Stmt, ...] | None:
        if isinstance(s, (Loop, Alloc)) and len(s.body) > 1 and writes(s.body[-1], "t1"):
            return (rebuilt(s, (s.body[-1], *s.body[:-1])),)
        return None

    return blocks(change)(nest)


def after_first_block(nest: Nest) -> Nest:
    """The epilogue runs in the loop over blocks of the reduction, after the first of them."""

    def change(s: Stmt) -> tuple[Stmt, ...] | None:
        if isinstance(s, Alloc) and s.buffer.name == "t0":
            blocks_, last = s.body
            assert isinstance(blocks_, Loop)
            return (rebuilt(s, (rebuilt(blocks_, (*blocks_.body, Guard((-var(blocks_.name),), (last,)))),)),)
        return None

    return blocks(change)(nest)


LAST_BLOCK: dict[str, Mutation] = {
    "epilogue before the write": epilogue_first,
    "epilogue after the first block": after_first_block,
    "epilogue of half a block": extents("i.e", -1),
    "epilogue reads another row": edit(role("compute", "t1"), value(index("t0", lambda i: ((i[0] + 1) % 4, i[1])))),
}  # fmt: skip


@pytest.mark.parametrize("name", LAST_BLOCK)
def test_planted_bugs_around_the_last_block_are_caught(name: str) -> None:
    program, nest = scheduled("last block")
    wrong = LAST_BLOCK[name](nest)
    assert wrong != nest and difference(lower(program), nest) == ""
    assert difference(lower(program), wrong), f"{name} was not caught"


def by_maximum(e: Op) -> Expr:
    return op("div", e.args[0], at("t0", 0))


ROWS: dict[str, Mutation] = {
    "operands of sub swapped": edit(role("compute", "t1"), operation("sub", swapped)),
    "operands of div swapped": edit(role("compute", "t2"), operation("div", swapped)),
    "maximum not subtracted": edit(role("compute", "t2"), operation("sub", first_argument)),
    "exp2 for exp": edit(role("compute", "t2"), operation("exp", renamed("exp2"))),
    "maximum starts at 0": edit(role("init", "t0"), to(value=number(0.0))),
    "min for max": edit(role("compute", "t0"), to(combiner="min")),
    "divided by the maximum": edit(role("compute", "t2"), operation("div", by_maximum)),
    "every lane starts the sum": edit(role("write", "t1"), to(first=())),
    "stages out of order": reversed_body(lambda s: isinstance(s, Alloc) and s.buffer.name == "t1"),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_planted_bugs_in_fused_rows_are_caught(name: str) -> None:
    program, nest = scheduled("rows")
    wrong = ROWS[name](nest)
    assert wrong != nest and difference(lower(program), nest) == ""
    assert difference(lower(program), wrong), f"{name} was not caught"


def test_a_wrong_step_fails_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in a step itself is caught through `equivalent`, at the shrunk instance, with a message that places it."""
    right = Split._joined
    monkeypatch.setattr(Split, "_joined", lambda self, loop: right(replace(self, factor=self.factor - 1), loop))
    program, steps = REAL["1000^3"]
    report = equivalent(program, Schedule(steps))
    assert not report.ok and report.message


def test_the_message_places_the_difference() -> None:
    source = lower(chained(9))
    wrong = edit(role("compute", "t1"), value(lambda e: at("a", "i") if isinstance(e, Load) else None))(source)
    message = difference(source, wrong)
    assert message.startswith("t1[0] is ") and "9 of 9 elements differ" in message and "the program gives" in message


# ---- sampling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["packed", "last block", "rows", "two nests", "registers", "window"])
def test_sampled_nests_pass(name: str) -> None:
    program, nest = scheduled(name)
    assert difference(lower(program), nest, sampled=True) == ""


@pytest.mark.parametrize("name", ["max for sum", "row of another tile", "no block starts the result", "stale pack"])
def test_sampling_still_catches_bugs(name: str) -> None:
    source, nest = packed()
    assert difference(source, PRODUCT[name](nest), sampled=True)


def test_what_cannot_shrink_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    program, steps = product(96, 64, 40), blocked("t0", 32, 16, 24, 6, 8, 4)
    monkeypatch.setattr(equiv, "_instance", lambda program, schedule, full: (program, full))
    monkeypatch.setattr(equiv, "MAX_POINTS", 10_000)
    report = equivalent(program, Schedule(steps))
    assert report.ok and report.sampled and dict(report.extents) == {"i": 96, "j": 64, "k": 40}


def test_loops_that_carry_a_reduction_are_not_sampled() -> None:
    _, nest = packed()
    chosen = set(equiv._sampled_loops(nest))
    names = {loop.name for loop in _loops(nest) if id(loop) in chosen}
    assert {"i.0", "j.0", "i.1.0"} <= names and not {"k.0", "k.1", "i.1.1", "t0.load1.a"} & names


def test_inputs_are_the_same_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seeds differ, and the second has zeros for comparisons to meet."""
    b = array("a", 1000)
    first, second = (equiv._random(np.random.default_rng(s), b, s) for s in (0, 1))
    assert (first == second).sum() < 10 and 50 < (second == 0).sum() < 200
