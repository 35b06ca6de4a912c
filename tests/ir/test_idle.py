"""Reductions that end early: what is idle, what the verifier accepts of it, and what it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotune.ir.affine import affine, var
from autotune.ir.equiv import difference
from autotune.ir.errors import ScheduleError
from autotune.ir.expr import Const, Expr, Index, op
from autotune.ir.idle import needed
from autotune.ir.lower import lower
from autotune.ir.nest import Loop, Nest, Stmt, walk
from autotune.ir.program import Compute, TensorProgram
from autotune.ir.steps import Clip, Split
from autotune.ir.verify import verify
from tests.ir.programs import LIMITS, array, at, axes, compute, number, triangle

INF = float("inf")


def ending(program: TensorProgram, end: str | int) -> Nest:
    """The nest whose reduction of t1 over j ends at `end`."""

    def visit(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        out: list[Stmt] = []
        for s in body:
            if isinstance(s, Loop):
                extents = s.extents
                if s.name == "j" and any(getattr(leaf, "buffer", "") == "t1" for leaf, _ in walk(s.body)):
                    extents += (affine(end) if isinstance(end, int) else var("i") + int(end),)
                s = replace(s, extents=extents, body=visit(s.body))
            out.append(s)
        return tuple(out)

    nest = lower(program)
    return Nest(nest.buffers, visit(nest.body))


@pytest.mark.parametrize("m, n, late", [(6, 6, 0), (6, 9, 3), (9, 4, 0), (7, 5, -2), (1, 1, 0)])
def test_a_loop_may_end_where_the_rest_is_idle_and_not_before(m: int, n: int, late: int) -> None:
    program = triangle(m, n, late)
    for more in (-1, 0, 1, 3):
        nest = ending(program, str(late + 1 + more))
        kinds = {v.kind for v in verify(program, nest, LIMITS).violations}
        enough = more >= 0 and late >= 0  # with late < 0 the first rows have no contribution, and so no beginning
        cut = any(late + 1 + more + i < min(n, late + 1 + i) for i in range(m))
        if cut:
            assert "coverage" in kinds, (more, kinds)
        elif enough:
            assert not kinds, (more, kinds)
            assert not difference(lower(program), nest)
    assert {v.kind for v in verify(program, ending(program, 0), LIMITS).violations} >= {"coverage"}


SEEN = op("le", Index(var("k")), Index(var("i")))
BELOW = op("lt", Index(var("k")), Index(var("i")))


def reduced(body: Expr, combiner: str = "sum", m: int = 6) -> Compute:
    return compute("t", axes(i=m), body, axes(k=m), combiner)


@pytest.mark.parametrize(
    "body, combiner, wanted",
    [
        (op("where", SEEN, at("a", "i", "k"), number(0.0)), "sum", ["i - k"]),
        (op("where", BELOW, at("a", "i", "k"), number(0.0)), "sum", ["i - k - 1"]),
        (op("where", SEEN, at("a", "i", "k"), number(-INF)), "max", ["i - k"]),
        (op("where", SEEN, at("a", "i", "k"), number(0.0)), "max", []),
        (op("where", SEEN, at("a", "i", "k"), number(-INF)), "sum", []),
        (op("where", SEEN, number(0.0), at("a", "i", "k")), "sum", []),
        (op("mul", at("a", "i", "k"), op("where", SEEN, at("b", "k"), number(0.0))), "sum", ["i - k"]),
        (op("add", at("a", "i", "k"), op("where", SEEN, at("b", "k"), number(0.0))), "sum", []),
        (op("where", SEEN, op("mul", at("a", "i", "k"), number(2.0)), number(1.0)), "prod", ["i - k"]),
        (op("where", op("and", SEEN, BELOW), at("a", "i", "k"), number(0.0)), "sum", ["i - k", "i - k - 1"]),
        (op("where", op("or", SEEN, BELOW), at("a", "i", "k"), number(0.0)), "sum", []),
        (op("where", op("lt", at("a", "i", "k"), number(0.0)), at("b", "k"), number(0.0)), "sum", []),
    ],
)  # fmt: skip
def test_what_is_idle(body: Expr, combiner: str, wanted: list[str]) -> None:
    found = {a.substitute({}) for a in needed(reduced(body, combiner), {})}
    i, k = var("i"), var("k")
    known = {"i - k": i - k, "i - k - 1": i - k - 1}
    assert found == {known[text] for text in wanted}


def test_a_choice_in_a_stage_that_is_read_turned() -> None:
    """t0[i, j] is 0 for j > i; the sum over i of t0[i, j] may begin late, which is no early end."""
    program = triangle(5, 5)
    down = compute("t1", axes(j=5), at("t0", "i", "j"), axes(i=5))
    turned = TensorProgram((array("a", 5, 5),), (program.computes[0], down), ("t1",))
    (a,) = needed(turned.computes[1], {"t0": turned.computes[0]})
    assert a == var("i") - var("j")
    nest = lower(turned)
    outer, inner = [s.name for s, _ in walk(nest.body[1:]) if isinstance(s, Loop)]
    with pytest.raises(ScheduleError, match="nothing shows"):
        Clip("t1", inner, outer).apply(nest)


def test_integers_are_left_alone() -> None:
    from autotune.ir.dtypes import I64
    from autotune.ir.expr import Load
    from autotune.ir.program import Axis

    body = op("where", SEEN, Load("a", (var("i"), var("k")), I64), Const(0, I64))
    assert not needed(Compute("t", I64, (Axis("i", 4),), body, (Axis("k", 4),), "sum"), {})


@pytest.mark.parametrize("late", [0, 1, 5])
def test_blocks_of_rows(late: int) -> None:
    program = triangle(12, 12, late)
    nest = lower(program)
    for step in (Split("t0", "i", 4), Split("t1", "i", 4), Clip("t1", "j", "i.1")):
        nest = step.apply(nest)
    assert not verify(program, nest, LIMITS).violations
    assert not difference(lower(program), nest)
    ends = {str(e) for s, _ in walk(nest.body) if isinstance(s, Loop) and s.name == "j" for e in s.extents}
    assert f"4*i.0 + {4 + late}" in ends
