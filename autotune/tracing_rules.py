"""What each NumPy function records: ufuncs as scalar expressions, others as reductions, products, views, compositions.

Knows NumPy's signatures, dtypes and broadcasting and the Recorder. Must not know which recorded Computes remain.
Promotion is not restated here: NumPy is asked, by `ufunc.resolve_dtypes`, `np.result_type`, or a call on one element.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple
from numpy.lib.stride_tricks import sliding_window_view

from . import mathfn, tracing_joins
from .ir.affine import const, var
from .ir.dtypes import BOOL, I8, DType
from .ir.expr import Const, Expr, op
from .tracer import Recorder, Tracer, convert, fail

# ---- ufuncs ---------------------------------------------------------------------------------------------------------

_INF = float("inf")
_INSTEAD = "compute it outside the function and pass the result as an argument"


def _like(value: float, x: Expr) -> Const:
    return Const((float if x.dtype.is_float else bool if x.dtype == BOOL else int)(value), x.dtype)


def _primitive(name: str, on_bools: str = "") -> Callable[..., Expr]:
    return lambda *args: op(on_bools if on_bools and args[0].dtype == BOOL else name, *args)


def _logical(name: str) -> Callable[..., Expr]:
    return lambda *args: op(name, *(convert(a, BOOL) for a in args))


def _compare(name: str, swapped: bool = False) -> Callable[..., Expr]:
    def build(a: Expr, b: Expr) -> Expr:
        a, b = (b, a) if swapped else (a, b)
        return op(name, convert(a, I8), convert(b, I8)) if a.dtype == BOOL else op(name, a, b)

    return build


def _of_float(build: Callable[[Expr], Expr], otherwise: bool | None = None) -> Callable[[Expr], Expr]:
    """`build` for floats; integers give the constant `otherwise`, or themselves where it is None."""
    return lambda x: build(x) if x.dtype.is_float else x if otherwise is None else Const(otherwise, BOOL)


def _ceil(x: Expr) -> Expr:
    return op("neg", op("floor", op("neg", x)))


def _sign(x: Expr) -> Expr:
    zero = _like(0, x)
    below = x if x.dtype.kind == "u" else op("where", op("lt", x, zero), _like(-1, x), x)
    return op("where", op("lt", zero, x), _like(1, x), below)


def _divmod(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """Floor division and remainder. Of floats the remainder is exact while |a / b| < 2^24 (f32), 2^53 (f64)."""
    if not a.dtype.is_float:
        return op("div", a, b), op("mod", a, b)
    zero, one, infinite, ratio = _like(0, a), _like(1, a), _like(_INF, a), op("div", a, b)
    q = op("floor", ratio)
    r = op("fma", op("neg", q), b, a)
    # The rounded ratio may have crossed an integer: then r has the wrong sign or is not below b.
    low = op("and", op("ne", r, zero), op("xor", op("lt", r, zero), op("lt", b, zero)))
    high = op("le", op("abs", b), op("abs", r))
    q = op("where", low, op("sub", q, one), op("where", high, op("add", q, one), q))
    r = op("where", low, op("add", r, b), op("where", high, op("sub", r, b), r))
    # A finite a by an infinite b; an infinite or NaN a; b = 0.
    endless = op("and", op("eq", op("abs", b), infinite), op("lt", op("abs", a), infinite))
    across = op("lt", op("mul", a, b), zero)
    q = op("where", endless, op("where", across, _like(-1, a), zero), op("where", op("ne", r, r), r, q))
    return op("where", op("eq", b, zero), ratio, q), op("where", endless, op("where", across, b, a), r)


def _shift(name: str) -> Callable[[Expr, Expr], Expr]:
    def build(a: Expr, count: Expr) -> Expr:
        bits, last = a.dtype.bits, _like(a.dtype.bits - 1, a)
        if isinstance(count, Const) and 0 <= count.value < bits:
            return op(name, a, count)
        empty = op(name, a, last) if name == "shr" and a.dtype.kind == "i" else _like(0, a)
        valid = op("and", op("le", _like(0, a), count), op("le", count, last))
        return op("where", valid, op(name, a, op("and", count, last)), empty)

    return build


EXPRESSIONS: dict[str, Callable[..., Expr]] = {
    "add": _primitive("add", "or"), "subtract": _primitive("sub"), "multiply": _primitive("mul", "and"),
    "divide": _primitive("div"), "maximum": _primitive("max", "or"), "minimum": _primitive("min", "and"),
    **{name: _primitive(name) for name in ("exp", "exp2", "log", "log2", "sqrt", "sin")},
    "negative": _primitive("neg"), "fabs": _primitive("abs"), "invert": _primitive("not"),
    "absolute": lambda x: op("abs", x) if x.dtype.kind in "fi" else x, "sign": _sign,
    "square": lambda x: _primitive("mul", "and")(x, x), "positive": lambda x: x, "conjugate": lambda x: x,
    "reciprocal": lambda x: op("div", _like(1, x), x) if x.dtype.is_float else fail("np.reciprocal of integers"),
    "floor": _of_float(_primitive("floor")), "rint": _of_float(_primitive("rint")), "ceil": _of_float(_ceil),
    "trunc": _of_float(lambda x: op("where", op("lt", x, _like(0, x)), _ceil(x), op("floor", x))),
    "isnan": _of_float(lambda x: op("ne", x, x), False),
    "isinf": _of_float(lambda x: op("eq", op("abs", x), _like(_INF, x)), False),
    "isfinite": _of_float(lambda x: op("lt", op("abs", x), _like(_INF, x)), True),
    "floor_divide": lambda a, b: _divmod(a, b)[0], "remainder": lambda a, b: _divmod(a, b)[1],
    "bitwise_and": _primitive("and"), "bitwise_or": _primitive("or"), "bitwise_xor": _primitive("xor"),
    "left_shift": _shift("shl"), "right_shift": _shift("shr"),
    "less": _compare("lt"), "less_equal": _compare("le"), "greater": _compare("lt", True), "equal": _compare("eq"),
    "greater_equal": _compare("le", True), "not_equal": _compare("ne"), "logical_and": _logical("and"),
    "logical_or": _logical("or"), "logical_xor": _logical("xor"), "logical_not": _logical("not"),
}  # fmt: skip
COMPOSED = ("tanh", "expm1", "log1p", "log10", "sinh", "cosh", "cos", "arctan", "power")


def call_ufunc(rec: Recorder, ufunc: np.ufunc, method: str, inputs: Sequence[Any], options: dict[str, Any]) -> Any:
    name = ufunc.__name__
    if method == "reduce" and name in _FOLDS:
        return _fold(name, rec, *inputs, **{"axis": 0, **options} if len(inputs) == 1 else options)
    if method == "accumulate" and name in _FOLDS and not _FOLDS[name][3]:
        combiner = _FOLDS[name][1]
        return tracing_joins.accumulate(rec, ufunc, combiner, *inputs, **options)
    if method == "outer" and not options:
        a, b = map(rec.array, inputs)
        return ufunc(a.reshape(a.shape + (1,) * b.ndim), b)
    dtype = options.pop("dtype", None)
    if method != "__call__" or options:
        what = f"np.{name}.{method}" if method != "__call__" else f"np.{name}(..., {', '.join(options)}=...)"
        fail(f"{what} cannot be traced; use the plain call, and np.where(mask, a, b) for where=")
    operands = [rec.operand(x) for x in inputs]
    if name == "divmod":
        return np.floor_divide(*operands, dtype=dtype), np.remainder(*operands, dtype=dtype)
    seen = tuple(_promoted_as(x) for x in operands)
    signature = (None,) * ufunc.nin + ((None if dtype is None else np.dtype(dtype)),) * ufunc.nout
    try:
        loop = ufunc.resolve_dtypes((*seen, *(None,) * ufunc.nout), signature=signature)
    except TypeError as error:
        fail(f"np.{name} of {', '.join(map(str, seen))}: {error}")
    types = [rec.dtype(each) for each in loop]
    if name == "matmul":
        return _matmul(rec, rec.array(operands[0]), rec.array(operands[1]), types[-1])
    if name in EXPRESSIONS:
        return rec.map(f"np.{name}", EXPRESSIONS[name], operands, types, types[-1])
    if name not in COMPOSED:
        fail(f"np.{name} cannot be traced; {_INSTEAD}")
    return _composed(rec, name, operands, types)


def _promoted_as(value: Any) -> Any:
    """What NumPy's promotion looks at: a dtype, or the type of a Python number."""
    if isinstance(value, (Tracer, np.generic)):
        return value.dtype
    return np.dtype(bool) if isinstance(value, bool) else type(value)


def _composed(rec: Recorder, name: str, operands: Sequence[Any], types: Sequence[DType]) -> Tracer:
    out = types[-1]
    if not isinstance(operands[0], Tracer):  # a constant base: the functions look at their first argument's dtype
        operands = [rec.array(types[0].numpy.type(operands[0])), *operands[1:]]
    values = [rec.cast(o, t.compute) if isinstance(o, Tracer) else o for o, t in zip(operands, types)]
    if out.is_integer:
        if isinstance(operands[1], Tracer) or not 0 <= operands[1] <= 64:
            fail("np.power of integers: the exponent must be a constant from 0 to 64, or the base .astype(np.float64)")
        return mathfn.integer_power(values[0], int(operands[1]))  # type: ignore[no-any-return]
    return rec.cast(getattr(mathfn, name)(*values), out)


# ---- products -------------------------------------------------------------------------------------------------------

Term = tuple[Tracer, Sequence[Any]]  # an array and one label a dimension; equal labels are one axis


def _product(rec: Recorder, what: str, terms: Sequence[Term], out: Sequence[Any], type: DType) -> Tracer:
    """Sum over the labels not in `out` of the product of one or two terms, accumulated in the type's arithmetic."""
    if len(terms) == 2:  # what only one term has is summed there, not once for each element of the other
        kept = [[x for x in own if x in out or x in other] for (_, own), (_, other) in (terms, terms[::-1])]
        terms = [(_product(rec, what, [t], k, type), k) if len(k) < len(t[1]) else t for t, k in zip(terms, kept)]
    extents: dict[Any, int] = {}
    for t, labels in terms:
        for label, extent in zip(labels, t.shape):
            if extents.setdefault(label, extent) == 1:
                extents[label] = extent
            elif extent not in (1, extents[label]):
                shapes = " and ".join(str(t.shape) for t, _ in terms)
                fail(f"{what}: shapes {shapes} do not match: {extents[label]} and {extent}")
    reduced = [x for x in extents if x not in out]
    axis = {x: var(f"a{i}") for i, x in enumerate(out)} | {x: var(f"r{i}") for i, x in enumerate(reduced)}
    factors = [
        convert(t.load(tuple(axis[x] if e == extents[x] else const(0) for x, e in zip(labels, t.shape))), type.compute)
        for t, labels in terms
    ]
    body = factors[0] if len(factors) == 1 else _primitive("mul", "and")(*factors)
    combiner = "any" if type == BOOL else "sum"
    return rec.cast(rec.define([extents[x] for x in out], body, [extents[x] for x in reduced], combiner), type)


def _matmul(rec: Recorder, a: Tracer, b: Tracer, type: DType) -> Tracer:
    if not a.ndim or not b.ndim:
        fail("matmul of an array of no dimension; use * instead")
    m, n = a.shape[-1], b.shape[-2 if b.ndim > 1 else 0]
    if m != n:
        fail(f"matmul: shapes {a.shape} and {b.shape}: the inner extents {m} and {n} differ")
    batch = range(-len(rec.broadcast([a.shape[:-2], b.shape[:-2]], "matmul (batch dimensions)")), 0)
    left = (*batch[len(batch) - a.ndim + 2 :], "i", "k") if a.ndim > 1 else ("k",)
    right = (*batch[len(batch) - b.ndim + 2 :], "k", "j") if b.ndim > 1 else ("k",)
    out = [x for x in (*batch, "i", "j") if x in left or x in right]
    return _product(rec, "matmul", [(a, left), (b, right)], out, type)


def tensordot(rec: Recorder, a: Any, b: Any, axes: Any = 2) -> Tracer:
    x, y = rec.array(a), rec.array(b)
    if isinstance(axes, int):
        axes = (tuple(range(x.ndim - axes, x.ndim)), tuple(range(axes)))
    over = [normalize_axis_tuple(own, t.ndim) for own, t in zip(axes, (x, y))]
    if [x.shape[i] for i in over[0]] != [y.shape[i] for i in over[1]]:
        fail(f"tensordot: shapes {x.shape} and {y.shape} differ along axes {over[0]} and {over[1]}")
    left, right = [("a", i) for i in range(x.ndim)], [("b", i) for i in range(y.ndim)]
    for i, j in zip(*over):
        right[j] = left[i]
    out = [p for p in left if p not in right] + [p for p in right if p not in left]
    return _product(rec, "tensordot", [(x, left), (y, right)], out, rec.dtype(np.result_type(x.dtype, y.dtype)))


def dot(rec: Recorder, a: Any, b: Any, last: bool = False) -> Any:
    """np.dot, or np.inner where `last`."""
    x, y = rec.array(a), rec.array(b)
    if not x.ndim or not y.ndim:
        return np.multiply(x, y)
    return tensordot(rec, x, y, ((-1,), (-1 if last or y.ndim == 1 else -2,)))


def einsum(rec: Recorder, subscripts: str, *operands: Any, optimize: Any = False, dtype: Any = None) -> Tracer:
    """Contracted from left to right, two operands at a time."""
    if not isinstance(subscripts, str):
        fail("np.einsum: give the subscripts as one string")
    sources, arrow, target = subscripts.replace(" ", "").partition("->")
    groups, arrays = sources.split(","), [rec.array(x) for x in operands]
    if len(groups) != len(arrays):
        fail(f"np.einsum: {len(groups)} groups of subscripts for {len(arrays)} operands")
    terms: list[Term] = []
    for group, t in zip(groups, arrays):
        before, dots, after = group.partition("...")
        extra = t.ndim - len(before + after)  # dimensions of the ellipsis, labelled ..., -2, -1
        if extra < 0 or (extra and not dots):
            fail(f"np.einsum: subscripts {group!r} do not fit shape {t.shape}")
        terms.append((t, (*before, *range(-extra, 0), *after)))
    letters = sources.replace(",", "").replace("...", "")
    if not arrow:
        target = "..." + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    before, dots, after = target.partition("...")
    shared = range(min((x for _, labels in terms for x in labels if isinstance(x, int)), default=0), 0)
    out = (*before, *(shared if dots else ()), *after)
    if not set(before + after) <= set(letters) or len(set(out)) < len(out):
        fail(f"np.einsum: output subscripts {target!r} repeat, or are not among the inputs'")
    type = rec.dtype(np.result_type(*(t.dtype for t in arrays)) if dtype is None else dtype)
    while len(terms) > 2:
        first, second, *rest = terms
        wanted = {*out, *(x for _, labels in rest for x in labels)}
        keep = [x for x in dict.fromkeys((*first[1], *second[1])) if x in wanted]
        terms = [(_product(rec, "np.einsum", [first, second], keep, type), keep), *rest]
    return _product(rec, "np.einsum", terms, out, type)


# ---- reductions -----------------------------------------------------------------------------------------------------


def _reduce(rec: Recorder, what: str, combiner: str, x: Tracer, axis: Any, keepdims: Any, type: DType) -> Any:
    try:
        axes = sorted(normalize_axis_tuple(range(x.ndim) if axis is None else axis, x.ndim))
    except (ValueError, TypeError) as error:
        fail(f"{what} over axis {axis} of shape {x.shape}: {error}")
    kept = [d for d in range(x.ndim) if d not in axes]
    name = {d: var(f"a{i}") for i, d in enumerate(kept)} | {d: var(f"r{i}") for i, d in enumerate(axes)}
    reduced = [x.shape[d] for d in axes]
    if combiner in ("max", "min") and 0 in reduced:
        fail(f"{what} over an empty axis of shape {x.shape} has no value")
    body = convert(x.load(tuple(name[d] for d in range(x.ndim))), type.compute)
    if type == BOOL:
        combiner = {"max": "any", "min": "all"}.get(combiner, combiner)
    result = rec.cast(rec.define([x.shape[d] for d in kept], body, reduced, combiner), type)
    return np.expand_dims(result, tuple(axes)) if keepdims else result


def _result_type(rec: Recorder, function: Any, x: Tracer, dtype: Any) -> DType:
    """The dtype that NumPy gives the result: asked with one element."""
    result = function(np.ones(1, x.dtype), dtype=dtype).dtype
    if result == np.uint64:
        fail(f"np.{function.__name__} of {x.type} is uint64, which is not supported; pass dtype=np.int64")
    return rec.dtype(result)


# name of the ufunc -> NumPy's function, combiner, whether it selects an element, whether it is logical
_FOLDS: dict[str, tuple[Any, str, bool, bool]] = {
    "add": (np.sum, "sum", False, False), "multiply": (np.prod, "prod", False, False),
    "maximum": (np.max, "max", True, False), "minimum": (np.min, "min", True, False),
    "logical_or": (np.any, "any", True, True), "logical_and": (np.all, "all", True, True),
}  # fmt: skip


def _fold(
    ufunc: str, rec: Recorder, a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False
) -> Any:
    function, combiner, selects, logical = _FOLDS[ufunc]
    x = rec.array(_no_out(a, out))
    given = x.type if dtype is None else rec.dtype(dtype)
    type = BOOL if logical else given if selects else _result_type(rec, function, x, dtype)
    return _reduce(rec, f"np.{function.__name__}", combiner, x, axis, keepdims, type)


def _no_out(value: Any, out: Any) -> Any:
    return value if out is None else fail("out=... writes into an array; use the result instead")


def mean(rec: Recorder, a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False) -> Any:
    x = rec.array(_no_out(a, out))
    type = _result_type(rec, np.mean, x, dtype)
    total = _reduce(rec, "np.mean", "sum", x, axis, keepdims, type.compute)
    return rec.cast(total / float(x.size // total.size if total.size else 0), type)


def variance(
    rec: Recorder, a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: float = 0, keepdims: Any = False
) -> Any:
    x = rec.array(_no_out(a, out))
    type = _result_type(rec, np.var, x, dtype)
    wide = rec.cast(x, type.compute)
    total = np.square(wide - wide.mean(axis, keepdims=True)).sum(axis, keepdims=keepdims)
    return rec.cast(total / float(max((x.size // total.size if total.size else 0) - ddof, 0)), type)


# ---- selection, creation, views -------------------------------------------------------------------------------------


def where(rec: Recorder, condition: Any, x: Any = None, y: Any = None) -> Tracer:
    if x is None or y is None:
        fail("np.where(condition) alone has a shape that depends on data; use np.where(condition, a, b)")
    operands = [rec.operand(v) for v in (condition, x, y)]
    type = rec.dtype(np.result_type(*(v.dtype if isinstance(v, Tracer) else v for v in operands[1:])))
    return rec.map("np.where", _primitive("where"), operands, (BOOL, type, type), type)


def clip(
    rec: Recorder, a: Any, a_min: Any = None, a_max: Any = None, out: Any = None, *, min: Any = None, max: Any = None
) -> Any:
    result, low, high = rec.array(_no_out(a, out)), a_min if min is None else min, a_max if max is None else max
    type = np.result_type(result.dtype, *(getattr(v, "dtype", v) for v in (low, high) if v is not None))
    for limit, bound in ((np.maximum, low), (np.minimum, high)):
        result = result if bound is None else limit(result, bound, dtype=type)
    return result


def full_like(rec: Recorder, a: Any, fill_value: Any, dtype: Any = None) -> Any:
    x = rec.array(a)
    type = x.type if dtype is None else rec.dtype(dtype)
    return np.broadcast_to(rec.cast(rec.array(fill_value), type), x.shape)


def round_(rec: Recorder, a: Any, decimals: int = 0, out: Any = None) -> Any:
    x = rec.array(_no_out(a, out))
    if not x.type.is_float:
        return x if decimals >= 0 else fail("np.round of integers to tens")
    scale = 10.0 ** abs(decimals)
    return np.rint(x * scale) / scale if decimals > 0 else np.rint(x / scale) * scale


def reshape(rec: Recorder, a: Any, shape: Any, order: str = "C") -> Any:
    if order != "C":
        fail('an order other than "C"; transpose before and after it')
    return rec.view(f"reshape to {shape}", np.reshape, rec.array(a), shape)


def _view(function: Any) -> Callable[..., Any]:
    what = f"np.{function.__name__}"
    return lambda rec, array, *args, **kwargs: rec.view(what, function, rec.array(array), *args, **kwargs)


# Functions that answer with views of their first argument and never read an element.
_VIEWS = (
    np.transpose, np.matrix_transpose, np.moveaxis, np.rollaxis, np.swapaxes, np.expand_dims, np.squeeze, np.diagonal,
    np.broadcast_to, np.split, np.array_split, np.hsplit, np.vsplit, np.flip, sliding_window_view,
)  # fmt: skip
FUNCTIONS: dict[Any, Callable[..., Any]] = {
    **{function: _view(function) for function in _VIEWS},
    **{function: partial(_fold, ufunc) for ufunc, (function, *_) in _FOLDS.items()},
    np.mean: mean, np.var: variance, np.std: lambda *args, **kwargs: np.sqrt(variance(*args, **kwargs)),
    np.dot: dot, np.inner: partial(dot, last=True), np.tensordot: tensordot, np.einsum: einsum,
    np.outer: lambda rec, a, b: np.multiply.outer(*(rec.array(x).ravel() for x in (a, b))),
    np.vdot: lambda rec, a, b: dot(rec, *(rec.array(x).ravel() for x in (a, b))),
    np.where: where, np.clip: clip, np.round: round_, np.around: round_, **tracing_joins.FUNCTIONS,
    np.full_like: full_like,
    np.zeros_like: lambda rec, a, dtype=None: full_like(rec, a, 0, dtype),
    np.ones_like: lambda rec, a, dtype=None: full_like(rec, a, 1, dtype),
    np.reshape: reshape, np.ravel: lambda rec, a, order="C": reshape(rec, a, (-1,), order),
    np.copy: lambda rec, a: rec.array(a), np.astype: lambda rec, x, dtype: rec.array(x).astype(dtype),
    np.shape: lambda rec, a: a.shape, np.ndim: lambda rec, a: a.ndim, np.size: lambda rec, a: a.size,
    np.result_type: lambda rec, *values: np.result_type(*(getattr(v, "dtype", v) for v in values)),
}  # fmt: skip
_signature = lru_cache(maxsize=None)(inspect.signature)


def call_function(rec: Recorder, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = f"{function.__module__}.{function.__name__}".replace("numpy", "np", 1)
    rule = FUNCTIONS.get(function)
    if rule is None:
        fail(f"{name} cannot be traced; {_INSTEAD}")
    try:
        _signature(rule).bind(rec, *args, **kwargs)
    except TypeError as error:
        fail(f"{name}: {error}, or it cannot be traced")
    return rule(rec, *args, **kwargs)
