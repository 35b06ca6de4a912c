"""Activations, products, rows, reductions, placing of elements, and chains written as text: plain NumPy functions.

Knows NumPy. Must not know how anything is compiled: to the compiler these are functions like any other. 16-bit floats
are computed in f32, products of 8- and 16-bit integers accumulated in i32.
"""

from __future__ import annotations

import ast
import inspect
import operator
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import numpy as np

from .. import mathfn
from ..ir.dtypes import dtype as parse_dtype
from ..ir.errors import SignatureError, UsageError

Array = Any  # an ndarray, or a tracer of one


def in_f32(function: Callable[..., Array]) -> Callable[..., Array]:
    """Compute 16-bit floats in f32; the result is rounded to the first argument's dtype."""

    @wraps(function)
    def wrapped(x: Array, *arrays: Any, **options: Any) -> Array:
        if x.dtype.name not in ("float16", "bfloat16"):
            return function(x, *arrays, **options)
        wide = (a.astype(np.float32) if hasattr(a, "astype") and a.dtype.kind not in "iub" else a for a in (x, *arrays))
        return function(*wide, **options).astype(x.dtype)

    return wrapped


def accumulating(x: Array) -> Array:
    """The array in the type in which its products are summed."""
    return x.astype(np.int32) if x.dtype.kind in "iu" and x.dtype.itemsize < 4 else x


# ---- activations ----------------------------------------------------------------------------------------------------


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


@in_f32
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))"""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


@in_f32
def silu(x: Array) -> Array:
    """x / (1 + exp(-x))"""
    with np.errstate(over="ignore"):
        return x / (1 + np.exp(-x))


@in_f32
def erf(x: Array) -> Array:
    """The error function of floats, within 1.5 ulp."""
    return mathfn.erf(x)


@in_f32
def gelu(x: Array) -> Array:
    """x / 2 * (1 + erf(x / sqrt(2)))"""
    return 0.5 * x * (1 + mathfn.erf(x * 0.7071067811865476))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "none": lambda x: x, "relu": relu, "gelu": gelu, "silu": silu, "sigmoid": sigmoid, "tanh": np.tanh,
}  # fmt: skip

# ---- products -------------------------------------------------------------------------------------------------------


def gemm(a: Array, b: Array, bias: Array = None, *, ta: bool = False, tb: bool = False, act: str = "none") -> Array:
    """act(a @ b + bias); `ta` and `tb`: the last two axes of that operand are exchanged."""
    left, right = (np.swapaxes(x, -1, -2) if t else x for x, t in ((a, ta), (b, tb)))
    product = accumulating(left) @ accumulating(right)
    return ACTIVATIONS[act](product if bias is None else product + bias)


def bmm(a: Array, b: Array) -> Array:
    """A batch of products: (b, m, k) @ (b, k, n)."""
    return gemm(a, b)


def gemv(a: Array, x: Array) -> Array:
    """(m, k) @ (k,)"""
    return gemm(a, x)


def linear(x: Array, w: Array, bias: Array = None, *, act: str = "none") -> Array:
    """act(x @ w.T + bias)"""
    return gemm(x, w, bias, tb=True, act=act)


# ---- rows -----------------------------------------------------------------------------------------------------------


@in_f32
def softmax(x: Array, axis: int = -1) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e * (1 / e.sum(axis=axis, keepdims=True))


@in_f32
def log_softmax(x: Array, axis: int = -1) -> Array:
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


@in_f32
def logsumexp(x: Array, axis: int = -1) -> Array:
    high = x.max(axis=axis, keepdims=True)
    return np.log(np.exp(x - high).sum(axis=axis)) + high.squeeze(axis)


@in_f32
def layer_norm(x: Array, weight: Array, bias: Array, eps: float = 1e-5) -> Array:
    """Over the last axis, mean first and then the variance of what is left."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred * (1 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)) * weight + bias


@in_f32
def rms_norm(x: Array, weight: Array, eps: float = 1e-6) -> Array:
    return x * (1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)) * weight


# ---- the rest -------------------------------------------------------------------------------------------------------


def _position(function: Callable[..., Array]) -> Callable[..., Array]:
    def found(x: Array, axis: tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
        if axis is not None and len(axis) != 1:
            raise SignatureError(f"{function.__name__} over axes {axis}: give one axis, or none for all elements")
        return function(x, axis=None if axis is None else axis[0], keepdims=keepdims)

    return found


REDUCTIONS: dict[str, Callable[..., Array]] = {
    "sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min, "mean": np.mean, "var": np.var, "std": np.std,
    "any": np.any, "all": np.all, "argmax": _position(np.argmax), "argmin": _position(np.argmin),
}  # fmt: skip


def reduce(x: Array, op: str = "sum", axes: tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
    """`op` over the axes, over all where they are None; argmax and argmin take one axis and give i64 positions."""
    return REDUCTIONS[op](x, axis=axes, keepdims=keepdims)


def argmax(x: Array, axis: int | None = None) -> Array:
    """The first position of the largest element; NaN is larger than all."""
    return np.argmax(x, axis=axis)


def argmin(x: Array, axis: int | None = None) -> Array:
    """The first position of the smallest element; NaN is smaller than all."""
    return np.argmin(x, axis=axis)


@in_f32
def cumsum(x: Array, axis: int = -1) -> Array:
    """Running sums; of integers below 64 bits and of bool in i64."""
    return np.cumsum(x, axis=axis)


def transpose(x: Array, perm: tuple[int, ...] | None = None) -> Array:
    """The axes in the order `perm`, as an array of its own once compiled."""
    return np.transpose(x, perm)


def concat(*arrays: Array, axis: int = 0) -> Array:
    """The arrays one behind the other along `axis`."""
    return np.concatenate(arrays, axis=axis)


def gather(x: Array, idx: Array, axis: int = 0) -> Array:
    """The elements of x at integer places `idx` along `axis`, clamped to its extent: np.take(..., mode="clip")."""
    return np.take(x, idx, axis=axis, mode="clip")


def pad(x: Array, width: Any, mode: Any = "constant", value: float = 0) -> Array:
    """np.pad: `width` for all sides, a pair (before, after), or a pair for each axis; `value` for mode="constant"."""
    return np.pad(x, width, mode, **({"constant_values": value} if mode == "constant" else {}))


def cast(x: Array, dtype: Any) -> Array:
    return x.astype(parse_dtype(dtype).numpy)


_CALLS: dict[str, Callable[..., Array]] = {
    **{name: act for name, act in ACTIVATIONS.items() if name != "none"}, "erf": erf, "where": np.where,
    "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "sin": np.sin, "cos": np.cos, "abs": np.abs, "maximum": np.maximum,
    "minimum": np.minimum, "floor": np.floor, "rint": np.rint, "exp2": np.exp2, "log2": np.log2,
}  # fmt: skip
_SYMBOLS: dict[type, Callable[..., Array]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Pow: operator.pow, ast.USub: operator.neg, ast.Lt: operator.lt, ast.Gt: operator.gt,
}  # fmt: skip


def elementwise(expr: str) -> Callable[..., Array]:
    """The function of the single-letter names in an expression such as "gelu(a*b+c)", in alphabetical order.

    Numbers, + - * / ** < > and the functions of `_CALLS` may occur; the text is parsed, never evaluated as Python.
    """
    try:
        tree = ast.parse(expr.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"expr={expr!r}: {error}") from None
    called = {id(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    names = sorted({n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in called})
    if not names or any(len(name) > 1 for name in names):
        raise UsageError(f"expr={expr!r}: arrays are single letters a, b, c, ... and there is at least one")

    def value(node: ast.AST, arrays: Mapping[str, Array]) -> Array:
        match node:
            case ast.Name(id=name) if name in arrays:
                return arrays[name]
            case ast.Constant(value=number) if type(number) in (int, float):
                return number
            case ast.UnaryOp(op=symbol, operand=x) if type(symbol) in _SYMBOLS:
                return _SYMBOLS[type(symbol)](value(x, arrays))
            case ast.BinOp(left=x, op=symbol, right=y) if type(symbol) in _SYMBOLS:
                return _SYMBOLS[type(symbol)](value(x, arrays), value(y, arrays))
            case ast.Compare(left=x, ops=[symbol], comparators=[y]) if type(symbol) in _SYMBOLS:
                return _SYMBOLS[type(symbol)](value(x, arrays), value(y, arrays))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _CALLS:
                return _CALLS[name](*(value(x, arrays) for x in args))
        raise UsageError(f"expr={expr!r}: `{ast.unparse(node)}` is not allowed; functions: {', '.join(sorted(_CALLS))}")

    def chain(*arrays: Array) -> Array:
        return value(tree.body, dict(zip(names, arrays)))

    try:
        chain(*[np.ones(1, np.float32)] * len(names))  # refuse at once what is not allowed
    except (TypeError, ValueError) as error:
        raise UsageError(f"expr={expr!r}: {error}") from None
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in names]
    chain.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return chain
