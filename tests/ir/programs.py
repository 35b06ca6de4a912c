"""Small programs that tests of the IR share, written out without a tracer, and checks on their nests."""

from __future__ import annotations

from dataclasses import replace

from autotune.ir.affine import Affine, affine, var
from autotune.ir.dots import DOTS
from autotune.ir.dtypes import F16, F32, I64, DType
from autotune.ir.equiv import difference
from autotune.ir.expr import Const, Expr, Index, Load, cast, op
from autotune.ir.instructions import INSTRUCTIONS
from autotune.ir.limits import Limits
from autotune.ir.lower import lower
from autotune.ir.nest import Alloc, Guard, Loop, Nest, Stmt, leaves, reads, with_body
from autotune.ir.program import Axis, Buffer, Compute, TensorProgram
from autotune.ir.schedule import Schedule
from autotune.ir.steps import Step
from autotune.ir.verify import verify


def at(buffer: str, *index: str | int | Affine, dtype: DType = F32) -> Load:
    """A load; indices are axis names, integers or affines."""
    return Load(buffer, tuple(affine(i) for i in index), dtype)


def axes(**extents: int) -> tuple[Axis, ...]:
    return tuple(Axis(name, extent) for name, extent in extents.items())


def number(value: float) -> Const:
    return Const(value, F32)


def compute(
    name: str, over: tuple[Axis, ...], body: Expr, reduce: tuple[Axis, ...] = (), combiner: str = "sum"
) -> Compute:
    return Compute(name, F32, over, body, reduce, combiner if reduce else None)


def array(name: str, *shape: int) -> Buffer:
    return Buffer(name, F32, shape)


def scale(n: int) -> TensorProgram:
    """t0[i] = 2 * a[i]"""
    return TensorProgram((array("a", n),), (compute("t0", axes(i=n), op("mul", at("a", "i"), number(2.0))),), ("t0",))


def shifted(m: int, n: int) -> TensorProgram:
    """t0[i, j] = a[i, j] + b[j]"""
    body = op("add", at("a", "i", "j"), at("b", "j"))
    return TensorProgram((array("a", m, n), array("b", n)), (compute("t0", axes(i=m, j=n), body),), ("t0",))


def transposed(m: int, n: int) -> TensorProgram:
    """t0[i, j] = a[j, i]"""
    return TensorProgram((array("a", n, m),), (compute("t0", axes(i=m, j=n), at("a", "j", "i")),), ("t0",))


def product(m: int, n: int, k: int, prologue: bool = False) -> TensorProgram:
    """t0[i, j] = sum over k of a[i, k] * b[k, j]; with a prologue of a[i, k] * max(b[k, j] + d[j], 0)"""
    right: Expr = at("b", "k", "j")
    if prologue:
        right = op("max", op("add", right, at("d", "j")), number(0.0))
    body = op("mul", at("a", "i", "k"), right)
    inputs = (array("a", m, k), array("b", k, n), *((array("d", n),) if prologue else ()))
    return TensorProgram(inputs, (compute("t0", axes(i=m, j=n), body, axes(k=k)),), ("t0",))


def half_product(m: int, n: int, k: int, half: DType = F16) -> TensorProgram:
    """t0[i, j] = sum over k of a[i, k] * b[k, j], of 16-bit floats into f32"""
    loads = [cast(Load(name, (var(x), var(y)), half), F32) for name, x, y in (("a", "i", "k"), ("b", "k", "j"))]
    inputs = (Buffer("a", half, (m, k)), Buffer("b", half, (k, n)))
    return TensorProgram(inputs, (compute("t0", axes(i=m, j=n), op("mul", *loads), axes(k=k)),), ("t0",))


def biased(m: int, n: int, k: int) -> TensorProgram:
    """t1[i, j] = max(t0[i, j] + c[j], 0) for a product t0"""
    plain = product(m, n, k)
    body = op("max", op("add", at("t0", "i", "j"), at("c", "j")), number(0.0))
    return TensorProgram(
        (*plain.inputs, array("c", n)), (*plain.computes, compute("t1", axes(i=m, j=n), body)), ("t1",)
    )


def row_sum(m: int, n: int) -> TensorProgram:
    """t0[i] = sum over j of a[i, j]"""
    return TensorProgram((array("a", m, n),), (compute("t0", axes(i=m), at("a", "i", "j"), axes(j=n)),), ("t0",))


def column_sum(m: int, n: int) -> TensorProgram:
    """t0[j] = sum over i of a[i, j]"""
    return TensorProgram((array("a", m, n),), (compute("t0", axes(j=n), at("a", "i", "j"), axes(i=m)),), ("t0",))


def triangle(m: int, n: int, late: int = 0) -> TensorProgram:
    """t1[i] = sum over j <= i + late of t0[i, j] = 2 * a[i, j], which is 0 elsewhere"""
    seen = op("le", Index(var("j")), Index(var("i") + late))
    body = op("where", seen, op("mul", at("a", "i", "j"), number(2.0)), number(0.0))
    stages = compute("t0", axes(i=m, j=n), body), compute("t1", axes(i=m), at("t0", "i", "j"), axes(j=n))
    return TensorProgram((array("a", m, n),), stages, ("t1",))


def normalised(m: int, n: int) -> TensorProgram:
    """Three stages a row: t0 = max of a, t1 = sum of exp(a - t0), t2 = exp(a - t0) / t1"""
    e = op("exp", op("sub", at("a", "i", "j"), at("t0", "i")))
    stages = (
        compute("t0", axes(i=m), at("a", "i", "j"), axes(j=n), "max"),
        compute("t1", axes(i=m), e, axes(j=n)),
        compute("t2", axes(i=m, j=n), op("div", e, at("t1", "i"))),
    )
    return TensorProgram((array("a", m, n),), stages, ("t2",))


def chained(n: int) -> TensorProgram:
    """t1[i] = t0[i] * t0[i] for t0[i] = a[i] + b[i]"""
    first = compute("t0", axes(i=n), op("add", at("a", "i"), at("b", "i")))
    second = compute("t1", axes(i=n), op("mul", at("t0", "i"), at("t0", "i")))
    return TensorProgram((array("a", n), array("b", n)), (first, second), ("t1",))


def unrelated(n: int) -> TensorProgram:
    """t0[i] = 2 * a[i], t1[i] = 3 * a[i]: two results"""
    stages = tuple(compute(f"t{c - 2}", axes(i=n), op("mul", at("a", "i"), number(c))) for c in (2, 3))
    return TensorProgram((array("a", n),), stages, ("t0", "t1"))


def in_turn(n: int) -> TensorProgram:
    """t0[i] = 2 * a[i], t1[i] = 2 * t0[i], t2[i] = 2 * t1[i]"""
    reads = ("a", "t0", "t1")
    stages = tuple(compute(f"t{k}", axes(i=n), op("mul", at(b, "i"), number(2))) for k, b in enumerate(reads))
    return TensorProgram((array("a", n),), stages, ("t2",))


def framed(n: int) -> TensorProgram:
    """t0[i] = a[i - 2] where there is such an element, else 7: two elements more at both ends"""
    inside = op("and", op("le", Const(2, I64), Index(var("i"))), op("lt", Index(var("i")), Const(n - 2, I64)))
    body = op("where", inside, at("a", (var("i") - 2) % (n - 4)), number(7.0))
    return TensorProgram((array("a", n - 4),), (compute("t0", axes(i=n), body),), ("t0",))


def window(n: int, taps: int) -> TensorProgram:
    """t0[i] = sum over k of a[i + k] * w[k]"""
    body = op("mul", at("a", var("i") + var("k")), at("w", "k"))
    return TensorProgram(
        (array("a", n + taps - 1), array("w", taps)), (compute("t0", axes(i=n), body, axes(k=taps)),), ("t0",)
    )


# ---- checks on scheduled nests --------------------------------------------------------------------------------------

LIMITS = Limits(
    scratch_bytes=1 << 20, bodies=64, instances=1 << 16, instructions=(*INSTRUCTIONS, *DOTS), warp=4
)


def unrolled(nest: Nest) -> Nest:
    """The nest with every serial loop that indexes a register buffer unrolled, as every complete schedule leaves it."""
    registers = {b.name for b in nest.all_buffers.values() if b.scope == "register"}
    used = {
        name
        for leaf in leaves(nest.body)
        for buffer, index in ((leaf.buffer, leaf.index), *reads(leaf))
        if buffer in registers
        for a in index
        for name in a.names()
    }

    def visit(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        out: list[Stmt] = []
        for s in body:
            if isinstance(s, Loop) and s.name in used and s.kind == "serial":
                s = replace(s, kind="unroll")
            out.append(with_body(s, visit(s.body)) if isinstance(s, (Loop, Alloc, Guard)) else s)
        return tuple(out)

    return Nest(nest.buffers, visit(nest.body))


def sound(program: TensorProgram, nest: Nest) -> Nest:
    """The nest, having shown that it computes what the program means and that the verifier accepts it."""
    assert difference(lower(program), nest, seeds=1) == "", f"computes something else:\n{nest}"
    assert [str(v) for v in verify(program, unrolled(nest), LIMITS).violations] == [], f"not accepted:\n{nest}"
    return nest


def scheduled(program: TensorProgram, *steps: Step) -> Nest:
    return sound(program, Schedule(steps).apply(lower(program)))
