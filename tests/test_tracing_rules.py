"""The rules of tracing against NumPy: values and dtypes of every function, and the errors of composed ones."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from autotune import mathfn
from autotune.ir.dtypes import ALL
from autotune.ir.errors import TraceError
from autotune.ir.expr import Op, walk
from autotune.tracer import spec, trace

from .evaluation import check, run, same, values

TYPES = [d.numpy for d in ALL]
BF16 = np.dtype(ml_dtypes.bfloat16)
rng = np.random.default_rng(0)
A, C = (rng.standard_normal((4, 6)).astype(np.float32) for _ in range(2))
X3 = rng.standard_normal((2, 3, 4)).astype(np.float32)

# ---- values of every rule -------------------------------------------------------------------------------------------

FLOAT_UNARY = [
    "negative", "positive", "absolute", "fabs", "square", "sqrt", "exp", "exp2", "expm1", "log", "log2", "log10",
    "log1p", "sin", "cos", "tanh", "sinh", "cosh", "arctan", "floor", "ceil", "trunc", "rint", "sign", "reciprocal",
    "isnan", "isinf", "isfinite", "logical_not", "conjugate",
]  # fmt: skip
BINARY = [
    "add", "subtract", "multiply", "divide", "floor_divide", "remainder", "maximum", "minimum", "less", "less_equal",
    "greater", "greater_equal", "equal", "not_equal", "logical_and", "logical_or", "logical_xor", "power",
]  # fmt: skip
BITWISE = ["bitwise_and", "bitwise_or", "bitwise_xor", "left_shift", "right_shift", "floor_divide", "remainder"]
ON_INTEGERS = ["negative", "absolute", "square", "sign", "floor", "rint", "isnan", "isfinite", "invert", "exp", "sqrt"]
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, np.inf, -np.inf, np.nan, 7.25, -80.0], np.float32)


@pytest.mark.parametrize("name", FLOAT_UNARY)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_unary_floats(name: str, dtype: type) -> None:
    function = getattr(np, name)
    special: Any = SPECIAL[np.isfinite(SPECIAL)] if name in ("sin", "cos") and dtype == np.float16 else SPECIAL
    for data in (values(np.dtype(dtype)), special.astype(dtype), np.abs(values(np.dtype(dtype)))):
        with np.errstate(all="ignore"):
            same(run(lambda x: function(x), data, wide=False), function(data), 4e-3 if dtype == np.float16 else None)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binary_floats_of_special_values(name: str, dtype: type) -> None:
    function = getattr(np, name)
    special: Any = SPECIAL.astype(dtype)
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


@pytest.mark.parametrize("name", BITWISE)
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "i4", "i8", "?"])
def test_integers(name: str, dtype: str) -> None:
    function, x = getattr(np, name), values(np.dtype(dtype), (5, 40))
    y = values(np.dtype(dtype), (5, 40), 1)
    if "shift" in name and dtype != "?":
        y = np.random.default_rng(1).integers(-3 if dtype != "u1" else 0, 80, (5, 40)).astype(dtype)
    check(lambda a, b: function(a, b), x, y)
    if "bitwise" not in name and dtype != "?":
        check(lambda a: function(a, 3), x)


@pytest.mark.parametrize("name", ON_INTEGERS)
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "i4", "i8"])
def test_unary_integers(name: str, dtype: str) -> None:
    function = getattr(np, name)
    check(lambda a: function(a), np.abs(values(np.dtype(dtype))) if name == "sqrt" else values(np.dtype(dtype)))


def outcome(fn: Callable[..., Any], *args: Any) -> Any:
    """The result's dtype, or the refusal."""
    try:
        with np.errstate(all="ignore"):
            return fn(*args).dtype
    except (TypeError, ValueError, TraceError):
        return "refused"


@pytest.mark.parametrize("name", [n for n in BINARY if n != "power"] + ["bitwise_and", "left_shift"])
def test_promotion_of_all_dtype_pairs(name: str) -> None:
    function: Callable[..., Any] = lambda p, q: getattr(np, name)(p, q)
    for a, b in itertools.product(TYPES, TYPES):
        x, y = values(a), values(b, seed=1)
        got, expected = outcome(partial(run, function), x, y), outcome(function, x, y)
        assert got == expected, f"{name}({a}, {b}): {got}, NumPy: {expected}"
        if got != "refused" and not {BF16, np.dtype(np.float16)} & {a, b}:
            check(function, x, y)


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
    check(lambda x: [function(x, axis=axis, keepdims=keep) for keep in (False, True)], X3)
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


MATMULS = [
    ((3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((4,), (4,)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)),
    ((7, 1, 3, 4), (2, 4, 5)), ((1, 4), (4, 1)), ((2, 3, 4), (4,)), ((4,), (2, 4, 5)), ((3, 1), (1, 5)),
]  # fmt: skip


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
    lambda a, b: np.vdot(a, b), lambda a, b: np.outer(a, b), lambda a, b: np.multiply.outer(a, b),
    lambda a, b: np.dot(a, b), lambda a, b: np.einsum("ij,jk->ik", a, b), lambda a, b: np.einsum("ij,ij", a, b),
    lambda a, b: np.einsum("ij,jk", a, b), lambda a, b: np.einsum("ij,kl->jk", a, b),
    lambda a, b: np.einsum("ij,jk->ik", a, b, dtype=np.float64), lambda a, b: np.einsum("ij->ji", a),
    lambda a, b: np.einsum("ii->i", a),
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
    lambda x: x.swapaxes(0, 2), lambda x: np.expand_dims(x, (0, 2)), lambda x: x[None, :, 0].squeeze(0),
    lambda x: x.mT, lambda x: np.broadcast_to(x, (5, 2, 3, 4)), lambda x: x.reshape(6, 4), lambda x: x.reshape(-1),
    lambda x: x.ravel(), lambda x: x.reshape(4, -1, 1), lambda x: x.reshape((2, 12)), lambda x: x.flatten(),
    lambda x: x.T.reshape(8, 3), lambda x: x.reshape(4, 6).T.reshape(3, 8)[1:], lambda x: x[1], lambda x: x[..., -1],
    lambda x: x[:, 1:, ::2], lambda x: x[-1, :2, None, 3], lambda x: x[:, 5:], lambda x: x[0:1, 1, 1:3],
    lambda x: np.diagonal(x, axis1=1, axis2=2), lambda x: np.split(x, 2, axis=2),
    lambda x: tuple(np.array_split(x, 3, axis=2)), lambda x: np.rollaxis(x, 2),
    lambda x: np.lib.stride_tricks.sliding_window_view(x, (2, 3), axis=(1, 2)),
    lambda x: np.stack([x, x * 2, x + 1], axis=1), lambda x: np.stack((x, x), -1),
    lambda x: np.concatenate([x, -x], axis=1), lambda x: x.copy(), lambda x: x[1, -1, 2] * x[0, 0, 1],
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
    lambda a, c: np.round(a, 2), lambda a, c: a.round(), lambda a, c: np.round(a * 100, -1),
    lambda a, c: np.add(a, c, dtype=np.float64), lambda a, c: a**2, lambda a, c: a**-1, lambda a, c: abs(a) ** 0.5,
    lambda a, c: a**3, lambda a, c: abs(a) ** 1.7, lambda a, c: abs(a) ** c, lambda a, c: 2.0**a, lambda a, c: a**0,
    lambda a, c: a // c, lambda a, c: a % c, lambda a, c: divmod(a, 0.5), lambda a, c: a.astype(np.int32) ** 3,
    lambda a, c: a.astype(np.float16).astype(np.float32), lambda a, c: (a > 0) & (c > 0) | ~(a > c) ^ (c < 1),
    lambda a, c: -a + +c, lambda a, c: abs(a), lambda a, c: a != c, lambda a, c: a.astype(bool) + (c > 0),
    lambda a, c: 1 - (1 / a) - (2 * c), lambda a, c: [1, 2, 3, 4, 5, 6] * a, lambda a, c: np.sum(a > 0, axis=0),
    lambda a, c: a.astype(np.float64).astype(np.int8), lambda a, c: np.round(a).astype(np.int16) << 2,
    lambda a, c: (a > 0).astype(np.float32) * c, lambda a, c: 3.0 - a, lambda a, c: a.shape[0] * a,
    lambda a, c: np.shape(a)[1] + len(a) + a,
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


# ---- composed functions over their range ----------------------------------------------------------------------------


def ulps(got: np.ndarray, exact: np.ndarray) -> float:
    """The largest error in units of the last place of got's type, subnormal results left out."""
    info = np.finfo(got.dtype)
    keep = np.isfinite(exact) & (np.abs(exact) < info.max) & (np.abs(exact) > info.tiny)
    with np.errstate(all="ignore"):
        unit = np.spacing(np.abs(exact[keep]).astype(got.dtype)).astype(exact.dtype)
        return float(np.max(np.abs(got[keep].astype(exact.dtype) - exact[keep]) / unit))


def span(low: float, high: float, dtype: Any, count: int = 40001) -> Any:
    """Points dense near zero and over the whole interval."""
    tiny = np.logspace(-30, math.log10(high), count)
    x = np.concatenate([np.linspace(low, high, count), tiny, -tiny if low < 0 else tiny])
    return x[(x >= low) & (x <= high)].astype(dtype)


RANGES = {
    "tanh": (-20, 20, 2), "expm1": (-80, 88, 3), "log1p": (-0.99999, 1e30, 3), "log10": (1e-30, 1e30, 3),
    "sinh": (-89, 89, 5), "cosh": (-89, 89, 5), "cos": (-1e4, 1e4, 2), "arctan": (-1e9, 1e9, 3), "erf": (-6, 6, 6),
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
    x, y = span(1e-3, 1e3, np.float32), span(-9, 9, np.float32)
    count = min(len(x), len(y))
    x, y = x[:count], y[-count:]
    exact = x.astype(np.float64) ** y.astype(np.float64)
    assert ulps(run(lambda x, y: x**y, x, y, wide=False), exact) <= 1
    assert ulps(run(lambda x: x**2.75, x, wide=False), x.astype(np.float64) ** 2.75) <= 1
