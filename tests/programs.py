"""Small programs for tests that need a TensorProgram and no tracer."""

from __future__ import annotations

from autotune.ir.affine import var
from autotune.ir.dtypes import F32, DType
from autotune.ir.expr import Const, Expr, Load, cast, op
from autotune.ir.program import Axis, Buffer, Compute, TensorProgram


def load(buffer: str, *names: str, dtype: DType = F32) -> Load:
    return Load(buffer, tuple(var(n) for n in names), dtype)


def elementwise(n: int, dtype: DType = F32, name: str = "add") -> TensorProgram:
    body = op(name, load("a", "i", dtype=dtype), load("b", "i", dtype=dtype))
    return TensorProgram(
        (Buffer("a", dtype, (n,)), Buffer("b", dtype, (n,))), (Compute("t", dtype, (Axis("i", n),), body),), ("t",)
    )


def unary(n: int, fn: str, source: DType = F32, target: DType | None = None) -> TensorProgram:
    x: Expr = load("x", "i", dtype=source)
    body = cast(x, target) if target else op(fn, x)
    return TensorProgram((Buffer("x", source, (n,)),), (Compute("t", body.dtype, (Axis("i", n),), body),), ("t",))


def gemm(m: int, n: int, k: int, source: DType = F32, total: DType = F32, relu: bool = False) -> TensorProgram:
    body = op("mul", *(cast(load(b, *ix, dtype=source), total) for b, ix in (("a", "ik"), ("b", "kj"))))
    ij = (Axis("i", m), Axis("j", n))
    computes = [Compute("t0", total, ij, body, (Axis("k", k),), "sum")]
    if relu:
        computes.append(Compute("t1", total, ij, op("max", load("t0", "i", "j", dtype=total), Const(0.0, total))))
    inputs = (Buffer("a", source, (m, k)), Buffer("b", source, (k, n)))
    return TensorProgram(inputs, tuple(computes), (computes[-1].name,))


def softmax(m: int, n: int) -> TensorProgram:
    i, j = Axis("i", m), Axis("j", n)
    x, top, e, s = load("x", "i", "j"), load("top", "i"), load("e", "i", "j"), load("s", "i")
    computes = (
        Compute("top", F32, (i,), x, (j,), "max"),
        Compute("e", F32, (i, j), op("exp", op("sub", x, top))),
        Compute("s", F32, (i,), e, (j,), "sum"),
        Compute("y", F32, (i, j), op("div", e, s)),
    )
    return TensorProgram((Buffer("x", F32, (m, n)),), computes, ("y",))


def reduction(shape: tuple[int, int], combiner: str, dtype: DType = F32, over: str = "j") -> TensorProgram:
    axes = {"i": Axis("i", shape[0]), "j": Axis("j", shape[1])}
    kept, summed = tuple(a for n, a in axes.items() if n not in over), tuple(a for n, a in axes.items() if n in over)
    c = Compute("s", dtype, kept, load("x", "i", "j", dtype=dtype), summed, combiner)
    return TensorProgram((Buffer("x", dtype, shape),), (c,), ("s",))
