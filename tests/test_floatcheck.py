"""The float check: right kernels pass whatever their order of summation, wrong ones do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autotune.floatcheck import Checker, check, evaluate
from autotune.ir.affine import affine, var
from autotune.ir.dtypes import BOOL, F16, F32, F64, I8, I32, I64, U8
from autotune.ir.expr import Const, Index, Load, Op, op
from autotune.ir.program import Axis, Buffer, Compute, TensorProgram

from . import programs

Array = np.ndarray[Any, Any]
Kernel = Callable[[list[Array]], list[Array]]


def quiet(fn: Callable[..., Any]) -> Kernel:
    def run(inputs: list[Array]) -> list[Array]:
        with np.errstate(all="ignore"):
            return [np.asarray(fn(*inputs))]

    return run


def soft(x: Array) -> Array:
    e = np.exp(x - x.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True, dtype=np.float32))


def blocked(a: Array, b: Array) -> Array:
    """Another order of summation than NumPy's: blocks of 7, last first."""
    out = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    for k in reversed(range(0, a.shape[1], 7)):
        out += a[:, k : k + 7] @ b[k : k + 7]
    return out


def sequential(x: Array) -> Array:
    out = np.zeros(x.shape[0], x.dtype)
    for j in range(x.shape[1]):
        out = out + x[:, j]
    return out


RIGHT: list[tuple[str, TensorProgram, Callable[..., Any]]] = [
    ("add", programs.elementwise(1000), np.add),
    ("divide", programs.elementwise(1000, F32, "div"), np.divide),
    ("integer division", programs.elementwise(1000, I32, "div"), np.floor_divide),
    ("wrap", programs.elementwise(300, I8, "mul"), np.multiply),
    ("u8", programs.elementwise(300, U8, "sub"), np.subtract),
    ("bool", programs.elementwise(300, BOOL, "xor"), np.logical_xor),
    ("nan max", programs.elementwise(1000, F32, "max"), np.maximum),
    ("f64", programs.elementwise(1000, F64, "mul"), np.multiply),
    ("exp", programs.unary(999, "exp"), np.exp),
    ("log", programs.unary(999, "log"), np.log),
    ("sin", programs.unary(999, "sin"), np.sin),
    ("to f16", programs.unary(999, "", F32, F16), lambda x: x.astype(np.float16)),
    ("to bool", programs.unary(999, "", F32, BOOL), lambda x: x != 0),
    ("gemm", programs.gemm(17, 33, 250), np.matmul),
    ("gemm in blocks", programs.gemm(17, 33, 250), blocked),
    ("gemm f64", programs.gemm(17, 33, 250, F64, F64), blocked),
    ("gemm f16", programs.gemm(17, 33, 64, F16, F32), lambda a, b: blocked(a.astype("f4"), b.astype("f4"))),
    ("gemm i8", programs.gemm(9, 8, 77, I8, I32), lambda a, b: a.astype("i4") @ b.astype("i4")),
    ("gemm i64", programs.gemm(9, 8, 77, I64, I64), np.matmul),
    ("gemv", programs.gemm(1, 130, 70, relu=True), lambda a, b: np.maximum(a @ b, 0)),
    ("softmax", programs.softmax(12, 130), soft),
    ("sum", programs.reduction((20, 3000), "sum"), sequential),
    ("column sum", programs.reduction((300, 20), "sum", over="i"), lambda x: sequential(x.T)),
    ("total", programs.reduction((300, 20), "sum", over="ij"), lambda x: x.sum(dtype=np.float32)),
    ("product", programs.reduction((5, 9), "prod"), lambda x: x.prod(1, dtype=np.float32)),
    ("max", programs.reduction((5, 900), "max"), lambda x: x.max(1)),
    ("min i32", programs.reduction((5, 900), "min", I32), lambda x: x.min(1)),
    ("any", programs.reduction((5, 9), "any", BOOL), lambda x: x.any(1)),
    ("empty sum", programs.reduction((5, 0), "sum"), lambda x: x.sum(1)),
    ("empty max", programs.reduction((5, 0), "max"), lambda x: np.full(5, -np.inf, "f4")),
    ("no rows", programs.gemm(0, 4, 3), np.matmul),
]


@pytest.mark.parametrize(("program", "fn"), [r[1:] for r in RIGHT], ids=[r[0] for r in RIGHT])
def test_right_kernels_pass(program: TensorProgram, fn: Callable[..., Any]) -> None:
    assert check(program, quiet(fn), np.random.default_rng(1), thorough=True) is None


@pytest.mark.parametrize("seconds", [1e-9, 1e-4, 10.0])
def test_a_sample_of_rows_is_enough_for_right_kernels(seconds: float) -> None:
    for program, fn in ((programs.softmax(300, 40), soft), (programs.gemm(90, 70, 30), np.matmul)):
        assert Checker(program, seconds=seconds).check(quiet(fn), thorough=True) is None


def without(x: Array, *at: int) -> Array:
    y = x.copy()
    y[at] = 0
    return y


WRONG: list[tuple[str, TensorProgram, Callable[..., Any]]] = [
    ("one term dropped", programs.gemm(16, 16, 1024), lambda a, b: a[:, :-1] @ b[:-1]),
    ("one term twice", programs.gemm(16, 16, 1024), lambda a, b: a @ b + a[:, :1] @ b[:1]),
    ("transposed operand", programs.gemm(16, 16, 16), lambda a, b: a @ b.T),
    ("last row of a tile", programs.gemm(25, 16, 64), lambda a, b: np.vstack([(a @ b)[:-1], (a @ b)[:1]])),
    ("neighbours swapped", programs.gemm(16, 16, 64), lambda a, b: (a @ b)[:, [1, 0, *range(2, 16)]]),
    ("f16 accumulation", programs.gemm(16, 16, 512), lambda a, b: blocked(a.astype("f2"), b.astype("f2")).astype("f4")),
    ("one ulp in an exact sum", programs.reduction((4, 64), "sum"), lambda x: np.nextafter(x.sum(1), np.float32(9e9))),
    ("nan ignored", programs.elementwise(100, F32, "max"), np.fmax),
    ("infinity lost", programs.elementwise(100), lambda a, b: np.clip(a + b, -3e38, 3e38)),
    ("denormals flushed", programs.elementwise(100), lambda a, b: np.where(abs(a + b) < 1.2e-38, 0, a + b)),
    ("integer saturated", programs.elementwise(300, I8, "add"), lambda a, b: np.clip(a.astype(int) + b, -128, 127)),
    ("identity", programs.reduction((5, 9), "max"), lambda x: np.maximum(x.max(1), 0)),
    ("relu dropped", programs.gemm(5, 6, 7, relu=True), np.matmul),
    ("softmax without max", programs.softmax(4, 20), lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
    ("coarse exp", programs.unary(200, "exp"), lambda x: np.exp(x) * np.float32(1 + 4e-6)),
]  # fmt: skip


@pytest.mark.parametrize(("program", "fn"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_wrong_kernels_are_told_apart(program: TensorProgram, fn: Callable[..., Any]) -> None:
    run = quiet(lambda *x: np.asarray(fn(*x), np.float32) if program.inputs[0].dtype is F32 else fn(*x))
    message = check(program, run, np.random.default_rng(1), thorough=True)
    assert message is not None and "expected" in message and "inputs)" in message


def test_the_message_names_element_values_and_case() -> None:
    program = programs.gemm(64, 5, 8)
    message = Checker(program, seconds=1e-9).check(quiet(lambda a, b: np.vstack([(a @ b)[:-1], 7 + (a @ b)[-1:]])))
    assert message is not None and message.startswith("t0[63, 0] is ") and "(random inputs)" in message


def test_wrong_shape() -> None:
    message = Checker(programs.elementwise(8)).check(lambda x: [x[0][:4]])
    assert message == "t has shape (4,), expected (8,) (random inputs)"


def test_uncertain_comparisons_do_not_reject() -> None:
    """floor(a*b + a*b) may differ by one where a contracted product lands on the other side of an integer."""
    i = Axis("i", 4000)
    a, b = programs.load("a", "i"), programs.load("b", "i")
    body = op("floor", op("add", op("mul", a, b), op("mul", a, b)))
    program = TensorProgram(programs.elementwise(4000).inputs, (Compute("t", F32, (i,), body),), ("t",))
    exact = quiet(lambda a, b: np.floor((a.astype("f8") * b + a * b).astype("f4")))
    assert check(program, exact, np.random.default_rng(0), True) is None


def test_guarded_loads_and_index_values() -> None:
    """A padded shift: where(i >= 1, x[i - 1], 0) + i, whose load points outside where it is not selected."""
    i = var("i")
    shifted = Load("x", (i - 1,), F32)
    inside = Op("le", (Const(1, I64), Index(i)), BOOL)
    body = op("add", op("where", inside, shifted, Const(0.0, F32)), Op("cast", (Index(i),), F32))
    program = TensorProgram((Buffer("x", F32, (50,)),), (Compute("t", F32, (Axis("i", 50),), body),), ("t",))
    run = quiet(lambda x: np.concatenate([[np.float32(0)], x[:-1]]) + np.arange(50, dtype="f4"))
    assert check(program, run, np.random.default_rng(0), True) is None


def test_windows_and_divisions_in_indices() -> None:
    """A convolution over pairs: sum_k x[2*i + k] * w[k // 2]."""
    body = op("mul", Load("x", (affine("i") * 2 + var("k"),), F32), Load("w", (var("k") // 2,), F32))
    c = Compute("t", F32, (Axis("i", 20),), body, (Axis("k", 4),), "sum")
    program = TensorProgram((Buffer("x", F32, (42,)), Buffer("w", F32, (2,))), (c,), ("t",))
    windows = np.arange(20)[:, None] * 2 + np.arange(4)
    for order, right in (([0, 0, 1, 1], True), ([0, 1, 0, 1], False)):
        run = quiet(lambda x, w, order=order: (x[windows] * w[order]).sum(1))
        assert (check(program, run, np.random.default_rng(0), True) is None) == right


def test_exact_arithmetic_has_no_tolerance() -> None:
    program = programs.gemm(8, 8, 100)
    whole = [np.full((8, 100), 3, "f4"), np.full((100, 8), -2, "f4")]
    assert evaluate(program, whole)[0].e == 0.0
    assert np.all(np.asarray(evaluate(program, [w + np.float32(0.1) for w in whole])[0].e) > 0)
