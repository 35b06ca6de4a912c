"""Named operations: plain NumPy functions, on arrays as when traced, and the parameters of their cases in a sweep.

Knows NumPy, Specs and how parameters are written. Must not know how anything is compiled: to the compiler these are
functions like any other. 16-bit floats are computed in f32, products of 8- and 16-bit integers accumulated in i32.
"""

from __future__ import annotations

import ast
import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import numpy as np

from .. import mathfn
from ..ir.dtypes import dtype as parse_dtype
from ..ir.errors import SignatureError, UsageError
from ..tracer import Spec, spec

Array = Any  # an ndarray, or a tracer of one


def _in_f32(function: Callable[..., Array]) -> Callable[..., Array]:
    """Compute 16-bit floats in f32; the result is rounded to the first argument's dtype."""

    @wraps(function)
    def wrapped(x: Array, *arrays: Any, **options: Any) -> Array:
        if x.dtype.name not in ("float16", "bfloat16"):
            return function(x, *arrays, **options)
        wide = (a.astype(np.float32) if hasattr(a, "astype") else a for a in (x, *arrays))
        return function(*wide, **options).astype(x.dtype)

    return wrapped


# ---- activations ----------------------------------------------------------------------------------------------------


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


@_in_f32
def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))"""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


@_in_f32
def silu(x: Array) -> Array:
    """x / (1 + exp(-x))"""
    with np.errstate(over="ignore"):
        return x / (1 + np.exp(-x))


@_in_f32
def erf(x: Array) -> Array:
    """The error function of floats, within 1.5 ulp."""
    return mathfn.erf(x)


@_in_f32
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
    if a.dtype.kind in "iu" and a.dtype.itemsize < 4:
        left, right = left.astype(np.int32), right.astype(np.int32)
    product = left @ right
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


@_in_f32
def softmax(x: Array, axis: int = -1) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e * (1 / e.sum(axis=axis, keepdims=True))


@_in_f32
def log_softmax(x: Array, axis: int = -1) -> Array:
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


@_in_f32
def logsumexp(x: Array, axis: int = -1) -> Array:
    high = x.max(axis=axis, keepdims=True)
    return np.log(np.exp(x - high).sum(axis=axis)) + high.squeeze(axis)


@_in_f32
def layer_norm(x: Array, weight: Array, bias: Array, eps: float = 1e-5) -> Array:
    """Over the last axis, mean first and then the variance of what is left."""
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred * (1 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)) * weight + bias


@_in_f32
def rms_norm(x: Array, weight: Array, eps: float = 1e-6) -> Array:
    return x * (1 / np.sqrt((x * x).mean(axis=-1, keepdims=True) + eps)) * weight


# ---- the rest -------------------------------------------------------------------------------------------------------

REDUCTIONS: dict[str, Callable[..., Array]] = {
    "sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min, "mean": np.mean, "var": np.var, "std": np.std,
    "any": np.any, "all": np.all,
}  # fmt: skip


def reduce(x: Array, op: str = "sum", axes: tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
    return REDUCTIONS[op](x, axis=axes, keepdims=keepdims)


def transpose(x: Array, perm: tuple[int, ...] | None = None) -> Array:
    """The axes in the order `perm`, as an array of its own once compiled."""
    return np.transpose(x, perm)


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


# ---- what a sweep may ask for ---------------------------------------------------------------------------------------

Case = tuple[Callable[..., Array], tuple[Spec, ...]]
Parser = Callable[[str], Any]
REQUIRED: Any = inspect.Parameter.empty


@dataclass(frozen=True)
class OpDef:
    """An operation and its parameters: name -> (default or REQUIRED, parser of its text)."""

    name: str
    params: Mapping[str, tuple[Any, Parser]]
    build: Callable[[Mapping[str, Any], Callable[..., Spec]], Case]

    def bind(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters with their values. Raises UsageError for unknown, missing and malformed ones."""
        if unknown := [name for name in given if name not in self.params]:
            raise UsageError(f"{self.name} has no parameter {unknown[0]!r}; it takes {', '.join(self.params)}")
        bound = {}
        for name, (default, parse) in self.params.items():
            if name not in given and default is REQUIRED:
                raise UsageError(f"{self.name} needs {name}=...; it takes {', '.join(self.params)}")
            try:
                bound[name] = parse(str(given[name])) if name in given else default
            except (ValueError, SignatureError) as error:
                raise UsageError(f"{self.name} {name}={given[name]}: {error}") from None
        return bound

    def make(self, given: Mapping[str, Any], dtype: Any) -> Case:
        """The function and the Specs of its arguments for one case."""
        return self.build(self.bind(given), partial(spec, dtype))


def _extent(text: str) -> int:
    if (value := int(text)) < 0:
        raise ValueError("an extent is negative")
    return value


def _choice(names: Mapping[str, Any]) -> Parser:
    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"choose from {', '.join(names)}")
        return text

    return parse


def _flag(text: str) -> bool:
    return _choice(dict.fromkeys(("0", "1", "True", "False")))(text) in ("1", "True")


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.strip("()").split(",") if part)


def _shape(text: str) -> tuple[int, ...]:
    return tuple(_extent(part) for part in text.split("x"))


def _gemm(p: Mapping[str, Any], array: Callable[..., Spec]) -> Case:
    a, b = (p["k"], p["m"]) if p["ta"] else (p["m"], p["k"]), (p["n"], p["k"]) if p["tb"] else (p["k"], p["n"])
    function = partial(gemm, ta=p["ta"], tb=p["tb"], act=p["act"])
    return function, (array(a), array(b), *((array(p["n"]),) if p["bias"] else ()))


def _norm(function: Callable[..., Array], weights: int) -> OpDef:
    build = lambda p, array: (function, (array((p["m"], p["n"])), *[array(p["n"])] * weights))
    return OpDef(function.__name__, _MN, build)


def _elementwise(p: Mapping[str, Any], array: Callable[..., Spec]) -> Case:
    chain = elementwise(p["expr"])
    return chain, (array(p["n"]),) * len(inspect.signature(chain).parameters)


def _rows(function: Callable[..., Array]) -> OpDef:
    build = lambda p, array: (partial(function, axis=p["axis"]), (array((p["m"], p["n"])),))
    return OpDef(function.__name__, {**_MN, "axis": (-1, int)}, build)


def _shaped(function: Callable[..., Array], **params: tuple[Any, Parser]) -> OpDef:
    def build(p: Mapping[str, Any], array: Callable[..., Spec]) -> Case:
        return partial(function, **{name: p[name] for name in params}), (array(p["shape"]),)

    return OpDef(function.__name__, {"shape": (REQUIRED, _shape), **params}, build)


_SIZE: tuple[Any, Parser] = (REQUIRED, _extent)
_NO: tuple[Any, Parser] = (False, _flag)
_MNK, _MN = dict.fromkeys("mnk", _SIZE), dict.fromkeys("mn", _SIZE)
_EPILOGUE: dict[str, tuple[Any, Parser]] = {"bias": _NO, "act": ("none", _choice(ACTIVATIONS))}

_DEFINED = (
    OpDef("gemm", {**_MNK, "ta": _NO, "tb": _NO, **_EPILOGUE}, _gemm),
    OpDef("bmm", {"b": _SIZE, **_MNK},
          lambda p, array: (bmm, (array((p["b"], p["m"], p["k"])), array((p["b"], p["k"], p["n"]))))),
    OpDef("gemv", {"m": _SIZE, "k": _SIZE}, lambda p, array: (gemv, (array((p["m"], p["k"])), array(p["k"])))),
    OpDef("linear", {**_MNK, **_EPILOGUE}, lambda p, array: _gemm({**p, "ta": False, "tb": True}, array)),
    _rows(softmax), _rows(log_softmax), _rows(logsumexp), _norm(layer_norm, 2), _norm(rms_norm, 1),
    _shaped(reduce, axes=(None, _integers), op=("sum", _choice(REDUCTIONS))),
    _shaped(transpose, perm=(None, _integers)),
    _shaped(cast, dtype=(REQUIRED, lambda text: parse_dtype(text).name)),
    OpDef("elementwise", {"n": _SIZE, "expr": (REQUIRED, str)}, _elementwise),
)  # fmt: skip
OPS: dict[str, OpDef] = {definition.name: definition for definition in _DEFINED}
