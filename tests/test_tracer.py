"""The tracer against NumPy: every rule's values and dtypes, the shape of the programs, and what is refused with which line."""

from __future__ import annotations

import inspect
import itertools
import math
import os
import random
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from autotune import mathfn
from autotune.inlining import MAX_OPS, simplify
from autotune.ir.affine import var
from autotune.ir.dtypes import ALL, F32
from autotune.ir.errors import SignatureError, TraceError
from autotune.ir.expr import Op, walk
from autotune.ir.program import Compute, TensorProgram
from autotune.tracer import Tracer, spec, trace

from .evaluation import evaluate, run

TYPES = [d.numpy for d in ALL]
BF16 = np.dtype(ml_dtypes.bfloat16)
rng = np.random.default_rng(0)
A, B, C = (rng.standard_normal(s).astype(np.float32) for s in ((4, 6), (6, 5), (4, 6)))
X3 = rng.standard_normal((2, 3, 4)).astype(np.float32)
ROW, COLUMN = A[0].copy(), A[:, :1].copy()
GLOBAL = rng.standard_normal(6).astype(np.float32)


def values(dtype: np.dtype[Any], shape: tuple[int, ...] = (3, 4), seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    if dtype.kind == "b":
        return draw.random(shape) < 0.5
    low = 0 if dtype.kind == "u" else -5
    return (draw.integers(low, 7, shape) if dtype.kind in "iu" else draw.standard_normal(shape) * 3).astype(dtype)


def same(got: Any, expected: Any, tolerance: float | None = None) -> None:
    """Equal structure, dtypes and shapes; equal values, floats within what their type's rounding leaves."""
    if isinstance(expected, (tuple, list)):
        assert type(got) is type(expected) and len(got) == len(expected)
        for g, e in zip(got, expected):
            same(g, e, tolerance)
        return
    expected = np.asarray(expected)
    assert got.dtype == expected.dtype and got.shape == expected.shape
    if expected.dtype.kind in "biu":
        np.testing.assert_array_equal(got, expected)
        return
    size = expected.dtype.itemsize
    bits = {2: 7 if expected.dtype == BF16 else 10, 4: 22, 8: 50}[size]
    limit = tolerance or 2.0**-bits * 8
    np.testing.assert_allclose(got.astype(np.float64), expected.astype(np.float64), rtol=limit, atol=limit)


def check(fn: Callable[..., Any], *args: Any, tolerance: float | None = None) -> None:
    with np.errstate(all="ignore"):
        same(run(fn, *args), fn(*args), tolerance)


# ---- values of every rule -----------------------------------------------------------------------------------------------

FLOAT_UNARY = (
    "negative positive absolute fabs square sqrt exp exp2 expm1 log log2 log10 log1p sin cos tanh sinh cosh arctan "
    "floor ceil trunc rint sign reciprocal isnan isinf isfinite logical_not conjugate"
).split()
BINARY = (
    "add subtract multiply divide floor_divide remainder maximum minimum less less_equal greater greater_equal "
    "equal not_equal logical_and logical_or logical_xor power"
).split()
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, np.inf, -np.inf, np.nan, 7.25, -80.0], np.float32)


@pytest.mark.parametrize("name", FLOAT_UNARY)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_unary_floats(name: str, dtype: type) -> None:
    function = getattr(np, name)
    special = SPECIAL[np.isfinite(SPECIAL)] if name in ("sin", "cos") and dtype == np.float16 else SPECIAL
    for data in (values(np.dtype(dtype)), special.astype(dtype), np.abs(values(np.dtype(dtype)))):
        with np.errstate(all="ignore"):
            same(run(lambda x: function(x), data, wide=False), function(data), 4e-3 if dtype == np.float16 else None)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binary_floats_of_special_values(name: str, dtype: type) -> None:
    function, special = getattr(np, name), SPECIAL.astype(dtype)
    x, y = (m.copy() for m in np.meshgrid(special, special))
    if name == "power":  # -0.0 counts as 0.0
        x = x + 0.0
    with np.errstate(all="ignore"):
        same(run(lambda a, b: function(a, b), x, y, wide=False), function(x, y))


@pytest.mark.parametrize("name", ["floor_divide", "remainder", "divmod"])
def test_float_division_with_remainder_is_exact(name: str) -> None:
    function = getattr(np, name)
    x = (rng.standard_normal(4000) * 10.0 ** rng.integers(-2, 5, 4000)).astype(np.float32)
    y = np.where(np.arange(4000) % 3, rng.standard_normal(4000), 0.1).astype(np.float32)
    y = np.where(np.abs(x / y) < 2**23, y, 1).astype(np.float32)
    got, expected = run(lambda a, b: function(a, b), x, y, wide=False), function(x, y)
    for g, e in zip(got, expected) if isinstance(expected, tuple) else [(got, expected)]:
        np.testing.assert_array_equal(g, e)


@pytest.mark.parametrize(
    "name", "bitwise_and bitwise_or bitwise_xor left_shift right_shift floor_divide remainder".split()
)
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "i4", "i8", "?"])
def test_integers(name: str, dtype: str) -> None:
    function, x = getattr(np, name), values(np.dtype(dtype), (5, 40))
    y = values(np.dtype(dtype), (5, 40), 1)
    if "shift" in name and dtype != "?":
        y = np.random.default_rng(1).integers(-3 if dtype != "u1" else 0, 80, (5, 40)).astype(dtype)
    check(lambda a, b: function(a, b), x, y)
    if "bitwise" not in name and dtype != "?":
        check(lambda a: function(a, 3), x)


@pytest.mark.parametrize("name", "negative absolute square sign floor ceil rint isnan isfinite invert exp sqrt".split())
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "i4", "i8"])
def test_unary_integers(name: str, dtype: str) -> None:
    function = getattr(np, name)
    check(lambda a: function(a), np.abs(values(np.dtype(dtype))) if name == "sqrt" else values(np.dtype(dtype)))


def outcome(fn: Callable[[], Any]) -> Any:
    """The result's dtype, or the refusal."""
    try:
        with np.errstate(all="ignore"):
            result = fn()
    except (TypeError, ValueError, TraceError):
        return "refused"
    return np.dtype(result.dtype)


@pytest.mark.parametrize("name", [n for n in BINARY if n != "power"] + ["bitwise_and", "left_shift"])
def test_promotion_of_all_dtype_pairs(name: str) -> None:
    function = getattr(np, name)
    for a, b in itertools.product(TYPES, TYPES):
        x, y = values(a), values(b, seed=1)
        expected = outcome(lambda: function(x, y))
        got = outcome(lambda: trace(lambda p, q: function(p, q), (x, y)).program.buffers[-1].dtype.numpy.type(0))
        assert got == expected or np.dtype(np.uint64) == expected, f"{name}({a}, {b}): {got}, NumPy: {expected}"
        if got != "refused" and BF16 not in (a, b) and np.float16 not in (a, b):
            check(lambda p, q: function(p, q), x, y)


@pytest.mark.parametrize(
    "scalar", [2, 2.5, True, np.float32(1.5), np.float64(1.5), np.int8(3), np.int64(3), np.bool_(True)]
)
@pytest.mark.parametrize("name", ["add", "multiply", "divide", "maximum", "less"])
def test_promotion_of_scalars(name: str, scalar: Any) -> None:
    function = getattr(np, name)
    for dtype in TYPES:
        x = values(dtype)
        check(lambda p: function(p, scalar), x)
        check(lambda p: function(scalar, p), x)
    check(lambda p: (p + scalar, scalar - p, scalar * p), values(np.dtype("f4")))


REDUCTIONS: list[Callable[..., Any]] = [np.sum, np.prod, np.max, np.min, np.mean, np.any, np.all, np.var, np.std]


@pytest.mark.parametrize("function", REDUCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (2, 1, 0), ()], ids=str)
def test_reductions(function: Callable[..., Any], axis: Any) -> None:
    for keepdims in (False, True):
        check(lambda x: function(x, axis=axis, keepdims=keepdims), X3)
    check(lambda x: function(x, axis), X3)


@pytest.mark.parametrize("function", REDUCTIONS, ids=lambda f: f.__name__)
def test_reductions_of_every_dtype(function: Callable[..., Any]) -> None:
    for dtype in TYPES:
        x = values(dtype)
        with np.errstate(all="ignore"):
            expected = np.asarray(function(x, axis=1))
        if expected.dtype == np.uint64:
            with pytest.raises(TraceError, match="dtype=np.int64"):
                trace(lambda x: function(x, axis=1), (x,))
            check(lambda x: function(x, axis=1, dtype=np.int64), x)
        else:
            check(lambda x: function(x, axis=1), x, tolerance=0.15 if dtype.itemsize == 2 else None)
    check(lambda x: (x.sum(dtype=np.float64), np.mean(x, 1, np.float64), x.sum(1, dtype="i4")), A)
    check(lambda x: (np.var(x, 1, ddof=1), x.std(0, ddof=2), x.mean(0, keepdims=True)), A)


def test_reductions_by_method_of_a_ufunc_and_over_nothing() -> None:
    check(lambda x: (np.add.reduce(x), np.maximum.reduce(x, axis=1), np.multiply.reduce(x, 1, keepdims=True)), A)
    check(lambda x: (np.logical_or.reduce(x > 1, axis=None), np.minimum.reduce(x, axis=(0, 1))), A)
    check(lambda x: (x.sum(1), x.prod(1), x.any(1), x.all(1), x.sum()), np.zeros((3, 0), np.float32))
    check(lambda x: (x + 1, x.sum(0), x.max(1), x.T @ x, x @ x.T, x.reshape(0, 9)), np.zeros((0, 3), np.float32))
    check(lambda x: (x.sum(), x * 2, x.max()), np.float32(3).reshape(()))


MATMULS = [((3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)),
           ((7, 1, 3, 4), (2, 4, 5)), ((1, 4), (4, 1)), ((2, 3, 4), (4,)), ((4,), (2, 4, 5)), ((3, 1), (1, 5))]  # fmt: skip


@pytest.mark.parametrize("a, b", MATMULS, ids=str)
def test_matmul(a: Any, b: Any) -> None:
    x, y = values(np.dtype("f4"), a), values(np.dtype("f4"), b, 1)
    check(lambda p, q: p @ q, x, y)
    check(lambda p, q: np.dot(p, q), x, y)
    if x.ndim > 1 and y.ndim == 2:
        check(lambda p, q: np.matmul(q.T, np.swapaxes(p, -1, -2)), x, y)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_matmul_of_every_dtype(dtype: np.dtype[Any]) -> None:
    x, y = values(dtype, (3, 9)), values(dtype, (9, 2), 1)
    check(lambda p, q: p @ q, x, y, tolerance=0.1 if dtype.itemsize == 2 else None)


PRODUCTS: list[Callable[..., Any]] = [
    lambda a, b: np.tensordot(a, b, 1), lambda a, b: np.tensordot(a, b, ((0, 1), (0, 1))),
    lambda a, b: np.tensordot(a, b, ((1,), (1,))), lambda a, b: np.tensordot(a, b, 0), lambda a, b: np.inner(a, b),
    lambda a, b: np.vdot(a, b), lambda a, b: np.outer(a, b), lambda a, b: np.multiply.outer(a, b), lambda a, b: np.dot(a, b),
    lambda a, b: np.einsum("ij,jk->ik", a, b), lambda a, b: np.einsum("ij,ij", a, b), lambda a, b: np.einsum("ij,jk", a, b),
    lambda a, b: np.einsum("ij,kl->jk", a, b), lambda a, b: np.einsum("ii->i", a), lambda a, b: np.einsum("ij->ji", a),
    lambda a, b: np.einsum("...j,...j->...", a, b), lambda a, b: np.einsum("ij,jk,kl->il", a, b, a),
    lambda a, b: np.einsum("ij, j -> i", a, b[0]), lambda a, b: np.einsum("ij->", a),
    lambda a, b: np.einsum("b...,bk->...k", a[None, :, :] * b, a[:1]),
]  # fmt: skip


@pytest.mark.parametrize("fn", PRODUCTS, ids=range(len(PRODUCTS)))
def test_products(fn: Callable[..., Any]) -> None:
    x, y = values(np.dtype("f4"), (4, 4)), values(np.dtype("f4"), (4, 4), 1)
    check(fn, x, y)


VIEWS: list[Callable[..., Any]] = [
    lambda x: x.T, lambda x: x.transpose(1, 0, 2), lambda x: x.transpose((2, 0, 1)), lambda x: np.moveaxis(x, 0, -1),
    lambda x: x.swapaxes(0, 2), lambda x: np.expand_dims(x, (0, 2)), lambda x: x[None, :, 0].squeeze(0), lambda x: x.mT,
    lambda x: np.broadcast_to(x, (5, 2, 3, 4)), lambda x: x.reshape(6, 4), lambda x: x.reshape(-1), lambda x: x.ravel(),
    lambda x: x.reshape(4, -1, 1), lambda x: x.reshape((2, 12)), lambda x: x.flatten(), lambda x: x.T.reshape(8, 3),
    lambda x: x.reshape(4, 6).T.reshape(3, 8)[1:], lambda x: x[1], lambda x: x[..., -1], lambda x: x[:, 1:, ::2],
    lambda x: x[-1, :2, None, 3], lambda x: x[:, 5:], lambda x: x[0:1, 1, 1:3], lambda x: np.diagonal(x, axis1=1, axis2=2),
    lambda x: np.split(x, 2, axis=2), lambda x: tuple(np.array_split(x, 3, axis=2)), lambda x: np.rollaxis(x, 2),
    lambda x: np.lib.stride_tricks.sliding_window_view(x, (2, 3), axis=(1, 2)),
    lambda x: np.stack([x, x * 2, x + 1], axis=1), lambda x: np.stack((x, x), -1), lambda x: np.concatenate([x, -x], axis=1),
    lambda x: x.copy(), lambda x: x[1, -1, 2] * x[0, 0, 1], lambda x: np.tril(x, -1), lambda x: np.triu(x),
    lambda x: x.reshape(2, 12).reshape(24).reshape(3, 8).T.ravel(),
]  # fmt: skip


@pytest.mark.parametrize("fn", VIEWS, ids=range(len(VIEWS)))
def test_views(fn: Callable[..., Any]) -> None:
    check(fn, X3)
    check(lambda x: np.exp(fn(x * 2) if not isinstance(fn(x), (list, tuple)) else fn(x * 2)[-1]), X3)


OTHERS: list[Callable[..., Any]] = [
    lambda a, c: np.where(a > c, a, c), lambda a, c: np.where(a > 0, 1, 0), lambda a, c: np.where(a > 0, a, 0.0),
    lambda a, c: np.where(a, np.float64(1), c), lambda a, c: np.clip(a, -1, 1), lambda a, c: a.clip(None, 0.5),
    lambda a, c: np.clip(a, c, c + 1), lambda a, c: np.clip(a, min=0), lambda a, c: np.full_like(a, 7),
    lambda a, c: np.zeros_like(a, dtype=np.int32) + np.ones_like(c), lambda a, c: np.full_like(a, 2.5, dtype="f8"),
    lambda a, c: np.round(a, 2), lambda a, c: a.round(), lambda a, c: np.round(a * 100, -1), lambda a, c: np.add(a, c, dtype=np.float64),
    lambda a, c: a**2, lambda a, c: a**-1, lambda a, c: abs(a) ** 0.5, lambda a, c: a**3, lambda a, c: abs(a) ** 1.7,
    lambda a, c: abs(a) ** c, lambda a, c: 2.0**a, lambda a, c: a**0, lambda a, c: a // c, lambda a, c: a % c,
    lambda a, c: divmod(a, 0.5), lambda a, c: a.astype(np.int32) ** 3, lambda a, c: a.astype(np.float16).astype(np.float32),
    lambda a, c: (a > 0) & (c > 0) | ~(a > c) ^ (c < 1), lambda a, c: -a + +c, lambda a, c: abs(a), lambda a, c: a != c,
    lambda a, c: a.astype(bool) + (c > 0), lambda a, c: 1 - (1 / a) - (2 * c), lambda a, c: [1, 2, 3, 4, 5, 6] * a,
    lambda a, c: np.sum(a > 0, axis=0), lambda a, c: a.astype(np.float64).astype(np.int8), lambda a, c: np.round(a).astype(np.int16) << 2,
    lambda a, c: (a > 0).astype(np.float32) * c, lambda a, c: 3 < a, lambda a, c: a.shape[0] * a, lambda a, c: np.shape(a)[1] + len(a) + a,
]  # fmt: skip


@pytest.mark.parametrize("fn", OTHERS, ids=range(len(OTHERS)))
def test_other_functions(fn: Callable[..., Any]) -> None:
    check(fn, A, C, tolerance=1e-3 if fn is OTHERS[27] else None)


def test_an_explicit_cast_to_f16_rounds_and_an_implicit_one_between_operations_does_not() -> None:
    def body(fn: Callable[..., Any]) -> list[str]:
        program = trace(fn, (spec("f16", 8), spec("f16", 8))).program
        return [n.dtype.name for c in program.computes for n in walk(c.body) if isinstance(n, Op) and n.name == "cast"]

    assert body(lambda x, y: x * y + x) == ["f32", "f32", "f32", "f16"]
    assert body(lambda x, y: (x * y).reshape(2, 4).T + x.reshape(2, 4).T) == ["f32", "f32", "f32", "f16"]
    assert body(lambda x, y: x.astype("f4").astype("f2").reshape(2, 4).astype("f4")).count("f16") == 1
    x, y = values(np.dtype("f2"), (8,)), values(np.dtype("f2"), (8,), 1)
    np.testing.assert_array_equal(
        run(lambda x: x.astype(np.float16) * np.float32(3), A, wide=False), A.astype("f2") * np.float32(3)
    )
    same(run(lambda x, y: x * y, x, y, wide=False), x * y, 1e-9)


# ---- composed functions over their range ----------------------------------------------------------------------------------


def ulps(got: np.ndarray, exact: np.ndarray) -> float:
    """The largest error in units of the last place of got's type, subnormal results left out."""
    info = np.finfo(got.dtype)
    keep = np.isfinite(exact) & (np.abs(exact) < info.max) & (np.abs(exact) > info.tiny)
    with np.errstate(all="ignore"):
        unit = np.spacing(np.abs(exact[keep]).astype(got.dtype)).astype(exact.dtype)
        return float(np.max(np.abs(got[keep].astype(exact.dtype) - exact[keep]) / unit))


def span(low: float, high: float, dtype: type, count: int = 40001) -> np.ndarray:
    """Points dense near zero and over the whole interval."""
    tiny = np.logspace(-30, math.log10(high), count)
    x = np.concatenate([np.linspace(low, high, count), tiny, -tiny if low < 0 else tiny])
    return x[(x >= low) & (x <= high)].astype(dtype)


RANGES = {
    "tanh": (-20, 20, 2), "expm1": (-80, 88, 3), "log1p": (-0.99999, 1e30, 3), "log10": (1e-30, 1e30, 3), "sinh": (-89, 89, 5),
    "cosh": (-89, 89, 5), "cos": (-1e4, 1e4, 2), "arctan": (-1e9, 1e9, 3), "erf": (-6, 6, 1.5),
}  # fmt: skip


@pytest.mark.parametrize("name", RANGES)
def test_composed_functions_in_f32(name: str) -> None:
    """The stated error, of the traced program evaluated in f32; and the same from the function on arrays."""
    low, high, limit = RANGES[name]
    function: Callable[..., Any] = getattr(mathfn, name)
    x = span(low, high, np.float32)
    reference: Callable[..., Any] = np.vectorize(math.erf) if name == "erf" else getattr(np, name)
    exact = reference(x.astype(np.float64))
    got = run(lambda x: function(x), x, wide=False)
    assert got.dtype == np.float32 and f"{limit:g} ulp" in str(function.__doc__)
    assert ulps(got, exact) <= limit
    with np.errstate(all="ignore"):  # NumPy's own f32 exp is good to 2.5 ulp
        assert ulps(function(x), exact) <= limit + 2


@pytest.mark.parametrize("name", RANGES)
def test_composed_functions_in_f64(name: str) -> None:
    """1e-15 relative, against 40 digits."""
    mpmath = pytest.importorskip("mpmath", reason="40-digit references need mpmath")
    low, high, limit = RANGES[name]
    x = span(low, high, np.float64, 700)
    with mpmath.workdps(40):
        exact = np.array([np.longdouble(str(getattr(mpmath, {"arctan": "atan"}.get(name, name))(mpmath.mpf(float(v)))))
                          for v in x])  # fmt: skip
    function: Callable[..., Any] = getattr(mathfn, name)
    assert ulps(run(lambda x: function(x), x, wide=False), exact) <= limit


def test_power_in_f32() -> None:
    x, y = np.abs(span(1e-3, 1e3, np.float32)), np.float32(span(-9, 9, np.float32))
    count = min(len(x), len(y))
    x, y = x[:count], y[-count:]
    exact = x.astype(np.float64) ** y.astype(np.float64)
    assert ulps(run(lambda x, y: x**y, x, y, wide=False), exact) <= 1
    assert ulps(run(lambda x: x**2.75, x, wide=False), x.astype(np.float64) ** 2.75) <= 1


# ---- structure of programs ------------------------------------------------------------------------------------------------


def shown(program: TensorProgram) -> list[str]:
    from autotune.ir.expr import show

    def line(c: Compute) -> str:
        combiner = f"{c.combiner}({', '.join(a.name for a in c.reduce_axes)}) " if c.combiner else ""
        return f"{c.name}[{', '.join(a.name for a in c.axes)}] = {combiner}{show(c.body)}"

    return [line(c) for c in program.computes]


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def test_softmax_is_four_computes() -> None:
    assert shown(trace(softmax, (spec("f32", (8, 16)),)).program) == [
        "t0[a0] = max(r0) x[a0, r0]",
        "t1[a0, a1] = exp((x[a0, a1] - t0[a0]))",
        "t2[a0] = sum(r0) t1[a0, r0]",
        "t3[a0, a1] = (t1[a0, a1] / t2[a0])",
    ]
    check(softmax, A)


def test_layer_norm_recomputes_the_cheap_difference_and_keeps_the_row_statistics() -> None:
    def layer_norm(x: Any, w: Any, b: Any) -> Any:
        d = x - x.mean(-1, keepdims=True)
        return d / np.sqrt(np.mean(d * d, -1, keepdims=True) + 1e-5) * w + b

    assert shown(trace(layer_norm, (spec("f32", (8, 16)), spec("f32", 16), spec("f32", 16))).program) == [
        "t0[a0] = sum(r0) x[a0, r0]",
        "t1[a0] = (t0[a0] / 16)",
        "t2[a0] = sum(r0) ((x[a0, r0] - t1[a0]) * (x[a0, r0] - t1[a0]))",
        "t3[a0] = sqrt(((t2[a0] / 16) + 1e-05))",
        "t4[a0, a1] = ((((x[a0, a1] - t1[a0]) / t3[a0]) * w[a1]) + b[a1])",
    ]
    check(layer_norm, A, ROW, ROW)


def test_dense_layer_keeps_casts_in_the_product_and_one_epilogue() -> None:
    dense = lambda x, w, b: np.maximum(x @ w + b, 0)  # noqa: E731
    assert shown(trace(dense, (spec("f16", (1, 8)), spec("f16", (8, 3)), spec("f16", 3))).program) == [
        "t0[a0, a1] = sum(r0) (cast_f32(x[a0, r0]) * cast_f32(w[r0, a1]))",
        "t1[a0, a1] = cast_f16(max((t0[a0, a1] + cast_f32(b[a1])), 0))",
    ]


@pytest.mark.parametrize(
    "fn, expected",
    [
        (lambda x, w: (x @ w).T, ["t0[a0, a1] = sum(r0) (x[a1, r0] * w[r0, a0])"]),
        (lambda x, w: x.sum(0, keepdims=True), ["t0[a0, a1] = sum(r0) x[r0, a1]"]),
        (lambda x, w: np.maximum(x, 0) @ w, ["t0[a0, a1] = max(x[a0, a1], 0)", "t1[a0, a1] = sum(r0) (t0[a0, r0] * w[r0, a1])"]),
        (lambda x, w: x, ["t0[a0, a1] = x[a0, a1]"]),
        (lambda x, w: (x[0], x[0] + 1), ["t0[a0] = x[0, a0]", "t1[a0] = (x[0, a0] + 1)"]),
        (lambda x, w: ((y := x * 2), y), ["t0[a0, a1] = (x[a0, a1] * 2)"]),
        (lambda x, w: np.exp(x).sum() + 0 * np.sin(x)[0, 0] * 0, None),
        (lambda x, w: x.reshape(2, 2, 8)[:, 1].reshape(16) * 1.5, ["t0[a0] = (x[2*(a0)//8 + 1, (a0)%8] * 1.5)"]),
        (lambda x, w: x.reshape(32).reshape(4, 8) + x.T.T, ["t0[a0, a1] = (x[a0, a1] + x[a0, a1])"]),
        (lambda x, w: (h := x * x + 1).sum(1) + h.max(1), None),
    ],
)  # fmt: skip
def test_shape_of_programs(fn: Any, expected: list[str] | None) -> None:
    program = trace(fn, (spec("f32", (4, 8)), spec("f32", (8, 3)))).program
    assert expected is None or shown(program) == expected
    check(fn, values(np.dtype("f4"), (4, 8)), values(np.dtype("f4"), (8, 3)))


def test_an_expression_used_by_two_reductions_is_stored_once() -> None:
    program = trace(lambda x: (h := x * x + 1).sum(1) + h.max(1), (spec("f32", (4, 8)),)).program
    assert shown(program)[0] == "t0[a0, a1] = ((x[a0, a1] * x[a0, a1]) + 1)" and len(program.computes) == 4


@pytest.mark.parametrize(
    "step", [lambda t: t * t * 0.5, lambda t: np.tanh(t) + t, lambda t: t + 1], ids=["square", "tanh", "add"]
)
def test_long_chains_are_cut(step: Callable[[Any], Any]) -> None:
    def chain(x: Any) -> Any:
        for _ in range(60):
            x = step(x)
        return x

    program = trace(chain, (spec("f64", 5),)).program
    assert 1 <= len(program.computes) < 60
    for c in program.computes:
        assert len({n for n in walk(c.body) if isinstance(n, Op)}) <= MAX_OPS
    x = np.linspace(-0.9, 0.9, 5)
    check(chain, x)


def test_unused_operations_leave_no_trace_and_unused_arguments_stay() -> None:
    program = trace(lambda x, y: (np.exp(y).sum(), x + 1)[1], (spec("f32", 3), spec("f32", 4))).program
    assert shown(program) == ["t0[a0] = (x[a0] + 1)"] and [b.name for b in program.inputs] == ["x", "y"]


def test_digest_ignores_names_and_is_kept_by_json() -> None:
    from autotune.ir.program import from_json, to_json

    one = trace(lambda x, y: softmax(x) * y, (spec("f32", (3, 4)), spec("f32", 4))).program
    two = trace(lambda t0, b: softmax(t0) * b, (spec("f32", (3, 4)), spec("f32", 4))).program
    assert one.digest == two.digest == from_json(to_json(one)).digest
    assert one.digest != trace(lambda x, y: softmax(x) + y, (spec("f32", (3, 4)), spec("f32", 4))).program.digest


def test_simplify_keeps_the_value() -> None:
    extents = {"a": 5, "b": 3, "c": 4}
    draw = random.Random(1)
    grid = dict(zip(extents, np.ogrid[:5, :3, :4]))
    for _ in range(300):
        value = sum((var(n) * draw.randint(-3, 12) for n in extents), var("a") * 0) + draw.randint(-5, 20)
        for _ in range(draw.randint(1, 3)):
            value = (value // draw.randint(1, 12)) if draw.random() < 0.5 else (value % draw.randint(1, 12)) + var("b")
        np.testing.assert_array_equal(
            *np.broadcast_arrays(simplify(value, extents).evaluate(grid), value.evaluate(grid))
        )
    flat = var("a") * 12 + var("b") * 4 + var("c")
    assert [str(simplify(e, extents)) for e in (flat // 12, flat // 4 % 3, flat % 4, flat // 4)] == [
        "a",
        "b",
        "c",
        "3*a + b",
    ]


# ---- arguments, hidden inputs, results --------------------------------------------------------------------------------------


def test_arguments_results_and_static_values() -> None:
    Pair = namedtuple("Pair", "left right")

    def fn(x: Any, many: Any, *rest: Any, scale: float, table: Any = None, mode: str) -> Any:
        assert mode == "double" and isinstance(x, Tracer)
        return {"sum": x + many[0], "pair": Pair(many[1]["w"] * scale, rest[0] + table), "scale": scale, "none": None}

    traced = trace(fn, (A, [C, {"w": ROW}], ROW), {"scale": 3.0, "table": ROW, "mode": "double"}, name="named")
    assert traced.name == "named"
    assert [b.name for b in traced.program.inputs] == ["x", "many_0", "many_1_w", "rest0", "table"]
    assert traced.arguments == (
        ("arg", 0, ()), ("arg", 1, (0,)), ("arg", 1, (1, "w")), ("arg", 2, ()), ("arg", "table", ()),
    )  # fmt: skip
    result = traced.rebuild(evaluate(traced.program, [A, C, ROW, ROW, ROW], wide=False))
    assert list(result) == ["sum", "pair", "scale", "none"] and result["scale"] == 3.0 and result["none"] is None
    np.testing.assert_array_equal(result["pair"].left, ROW * 3)
    np.testing.assert_array_equal(result["sum"], A + C)


def test_captured_arrays_are_hidden_inputs_by_identity() -> None:
    local = ROW.copy()

    def fn(x: Any) -> Any:
        return x * local + GLOBAL - local + np.arange(6, dtype=np.float32)

    traced = trace(fn, (A,))
    assert [source[0] for source in traced.arguments] == ["arg", "hidden", "hidden", "hidden"]
    assert traced.arguments[1][1] is local and traced.arguments[2][1] is GLOBAL
    check(fn, A)
    assert run(lambda x: (x, GLOBAL), A)[1] is not GLOBAL
    check(lambda x: x + np.float64(1).reshape(()), A)  # an array of no dimension promotes like one
    with pytest.raises(TraceError, match="matrix"):
        trace(lambda x: x + np.matrix([1.0]), (A,))
    with pytest.raises(TraceError, match="byte order"):
        trace(lambda x: x + ROW.astype(">f4"), (A,))


def test_ufuncs_builtins_and_lambdas_trace() -> None:
    same(run(np.add, A, C), A + C)
    same(run(abs, A), np.abs(A))
    same(run(lambda *a: a[0] - a[1], A, C), A - C)


def test_spec() -> None:
    made = spec("f32", (128, 768))
    assert (made.dtype, made.shape, made.strides, str(made)) == (F32, (128, 768), None, "f32[128, 768]")
    assert spec(np.int8, 5, [2]).strides == (2,) and spec("bool", ()).size == 1
    for bad in (lambda: spec("complex64", 3), lambda: spec("f32", (-1,)), lambda: spec("f32", (1 << 40, 1 << 40)),
                lambda: spec("f32", (3, 4), (1,)), lambda: trace(abs, (np.zeros(3, object),))):  # fmt: skip
        with pytest.raises(SignatureError):
            bad()


def test_rebinding_operators_are_not_assignments() -> None:
    def fn(x: Any, y: Any) -> Any:
        total = x
        total += y
        total *= 2
        return total

    check(fn, A, C)


# ---- refusals ---------------------------------------------------------------------------------------------------------------


def branch(t: Any) -> Any:
    if t.sum() > 0:
        return t
    return -t


REFUSED: list[tuple[Callable[[Any], Any], str]] = [
    (branch, "np.where"), (lambda t: float(t[0, 0]), r"np\.exp"), (lambda t: int(t[0, 0]), "astype"),
    (lambda t: [1, 2][t[0, 0]], "static|Python integers"), (lambda t: np.asarray(t), "as it is"), (lambda t: math.exp(t[0, 0]), r"np\.exp"),
    (lambda t: np.array([t, t]), r"np\.stack"), (lambda t: t.__setitem__(0, 1), r"np\.where"), (lambda t: [r for r in t], "reductions"),
    (lambda t: 1.0 in t, r"np\.any"), (lambda t: np.sort(t), "np.sort cannot be traced"), (lambda t: t.cumsum(), "cumsum"),
    (lambda t: t @ t, r"\(4, 6\) and \(4, 6\).*6 and 4"), (lambda t: t + np.zeros(5), r"\(4, 6\) and \(5,\)"),
    (lambda t: t[t > 0], r"np\.where\(mask"), (lambda t: t[[0, 1]], "static"), (lambda t: t[np.array([0, 1])], "static"),
    (lambda t: GLOBAL[t], "index|NumPy array"), (lambda t: np.add(t, t, out=np.zeros((4, 6), np.float32)), "out="),
    (lambda t: np.add(t, t, out=t), "out="), (lambda t: np.sum(t, axis=0, out=GLOBAL), "out="), (lambda t: t[9], "out of bounds"),
    (lambda t: t[0, 0, 0], "too many indices"), (lambda t: t[::-1], "negative step"), (lambda t: t.reshape(5, 5), "reshape"),
    (lambda t: t.reshape(6, 4, order="F"), "order"), (lambda t: np.sum(t, axis=7), "axis 7"), (lambda t: t.sum(where=t > 0), "where"),
    (lambda t: np.where(t > 0), "depends on data"), (lambda t: np.arctan2(t, t), "arctan2"), (lambda t: np.add.accumulate(t), "accumulate"),
    (lambda t: np.random.default_rng(0).normal(t), "NumPy array"), (lambda t: t + 1j, "complex"), (lambda t: t + None, "NoneType"),
    (lambda t: t + "a", "str"), (lambda t: t & t, "bitwise_and"), (lambda t: t.tolist(), "tolist"), (lambda t: t.item(), "item"),
    (lambda t: np.zeros((0, 3)).max(axis=0) + t if t.shape == () else t[:0].max(axis=0), "empty axis"),
    (lambda t: np.einsum("ij,jk", t, t), "do not match"), (lambda t: np.einsum("ijk->i", t), "do not fit"),
    (lambda t: np.concatenate([t, t[:1]]), "equal shapes"), (lambda t: t.astype(np.int8) + 300, "300"), (lambda t: t.astype("c8"), "complex"),
    (lambda t: t.astype(np.int32) ** t.astype(np.int32), "exponent"), (lambda t: np.outer(np.outer(t, t), np.outer(t, t)).shape and
     np.broadcast_to(t[0, 0], (1 << 40, 1 << 40)), "too large|too big|dimension"), (lambda t: t @ np.float32(2), "no dimension"),
    (lambda t: np.add(t, 1, where=t > 0), "where"), (lambda t: np.broadcast_to(t, (3, 3)), "broadcast"), (lambda t: np.ones(6, np.float32)
     .__iadd__(t), "out="),
]  # fmt: skip


@pytest.mark.parametrize("fn, message", REFUSED, ids=range(len(REFUSED)))
def test_refusals_name_the_line_and_the_alternative(fn: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(TraceError, match=message) as caught:
        trace(fn, (A,))
    line = fn.__code__.co_firstlineno
    lines, _ = inspect.getsourcelines(fn)
    found = str(caught.value).split(" in ")[0]
    path, _, number = found.rpartition(":")
    assert os.path.samefile(path, __file__) and line <= int(number) <= line + max(len(lines), 2) - 1, str(caught.value)


def test_the_line_of_a_statement_in_the_middle_and_of_a_helper() -> None:
    def helper(t: Any) -> Any:
        u = t * 2
        return u if u.any() else t

    def fn(t: Any) -> Any:
        t = t + 1
        t = helper(t)
        return t

    with pytest.raises(TraceError) as caught:
        trace(fn, (A,))
    line = inspect.getsourcelines(helper)[1] + 2
    assert f"test_tracer.py:{line} in helper (`return u if u.any() else t`)" in str(caught.value)


def test_a_traced_array_does_not_outlive_its_trace() -> None:
    kept: list[Any] = []
    trace(lambda x: kept.append(x) or x, (A,))
    with pytest.raises(TraceError, match="earlier call"):
        trace(lambda x: x + kept[0], (A,))


def test_random_numbers_from_the_global_generators_are_refused() -> None:
    with pytest.raises(TraceError, match="random"):
        trace(lambda x: x + np.random.rand(6), (A,))
    with pytest.raises(TraceError, match="random"):
        trace(lambda x: x + random.random(), (A,))


def test_the_functions_own_exceptions_pass() -> None:
    def fn(x: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        trace(fn, (A,))
    assert not hasattr(Tracer, "__array_interface__")
