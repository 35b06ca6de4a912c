"""What NumPy functions record that place elements by their position: padding, joining, repeating, positions, prefixes.

A load whose index is `(i - p) % n` is inside its array for every i, so that where an element comes from is chosen by
comparing positions with constants. Knows NumPy's signatures and the Recorder. Must not know which Computes remain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from .ir.affine import Affine, const, var
from .ir.dtypes import BOOL, I8, I32, I64
from .ir.expr import Const, Expr, Index, Load, cast, gather, op
from .ir.program import COMBINERS
from .tracer import Recorder, Tracer, constant, convert, fail

_np: Any = np  # its stubs do not know what implements the protocols
BLOCK = 16  # elements whose prefixes are sums of their own


def _axis(what: str, axis: Any, ndim: int) -> int:
    try:
        return int(normalize_axis_index(axis, ndim))
    except (ValueError, TypeError) as error:
        fail(f"{what}: {error}")


def _axes(ndim: int) -> list[Affine]:
    return [var(f"a{i}") for i in range(ndim)]


def _below(position: Affine, end: int) -> Expr:
    return op("lt", Index(position), Const(end, I64))


# ---- padding --------------------------------------------------------------------------------------------------------


def _widths(value: Any, ndim: int, what: str) -> list[tuple[Any, Any]]:
    """(before, after) for each axis, from what np.pad accepts: a number, a pair, or pairs."""
    try:
        return [tuple(row) for row in np.broadcast_to(np.asarray(value), (ndim, 2)).tolist()]
    except (ValueError, TypeError):
        fail(f"np.pad: {what}={value!r} is no number, pair or {ndim} pairs")


def pad(rec: Recorder, array: Any, pad_width: Any, mode: str = "constant", **options: Any) -> Tracer:
    x = rec.array(array)
    if isinstance(pad_width, dict):
        given = {_axis("np.pad", d, x.ndim): w for d, w in pad_width.items()}
        pad_width = [given.get(d, (0, 0)) if np.ndim(given.get(d, ())) else (given[d],) * 2 for d in range(x.ndim)]
    widths = _widths(pad_width, x.ndim, "pad_width")
    if not all(isinstance(w, int) and w >= 0 for pair in widths for w in pair):
        fail(f"np.pad: pad_width={pad_width!r}: widths are integers, 0 or more; slices make an array smaller")
    if unknown := set(options) - ({"constant_values"} if mode == "constant" else {"reflect_type"}):
        fail(f"np.pad: {min(unknown)}= has no meaning for mode={mode!r}, or it cannot be traced")
    if mode == "constant":
        fills = _widths(options.get("constant_values", 0), x.ndim, "constant_values")
        if len({value for pair in fills for value in pair}) <= 1 and x.size:
            return _filled(rec, x, widths, fills[0][0] if fills else 0)
        for d, (width, fill) in enumerate(zip(widths, fills)):
            for (before, after), value in (((width[0], 0), fill[0]), ((0, width[1]), fill[1])):
                x = _filled(rec, x, [(before, after) if e == d else (0, 0) for e in range(x.ndim)], value)
        return x
    if mode not in _MODES or options.get("reflect_type", "even") != "even":
        fail(f"np.pad with mode={mode!r} cannot be traced; constant, edge, wrap, reflect and symmetric can")
    for d, (before, after) in enumerate(widths):
        if (n := x.shape[d]) == 0 and before + after:
            fail(f"np.pad: axis {d} is empty; only mode='constant' can extend it")
        if before + after:
            left, right = _axes(x.ndim)[:d], _axes(x.ndim)[d + 1 :]
            load = lambda at, x=x, left=left, right=right: convert(x.load((*left, at, *right)), x.type.compute)
            body = convert(_MODES[mode](load, var(f"a{d}") - before, n), x.type)
            x = rec.define((*x.shape[:d], before + n + after, *x.shape[d + 1 :]), body)
    return x


def _filled(rec: Recorder, x: Tracer, widths: Sequence[tuple[int, int]], value: Any) -> Tracer:
    """The array inside a frame of one constant."""
    shape = [before + n + after for n, (before, after) in zip(x.shape, widths)]
    if not any(map(any, widths)):
        return x
    try:
        fill: Expr = constant(value, x.type)
    except (OverflowError, ValueError, TypeError) as error:
        fail(f"np.pad: constant_values={value!r}: {error}")
    if not x.size:
        return rec.define(shape, convert(fill, x.type))
    inside: Expr | None = None
    index = _axes(x.ndim)
    for d, (n, (before, after)) in enumerate(zip(x.shape, widths)):
        at = index[d]
        checks: list[Expr] = [op("le", Const(before, I64), Index(at))] if before else []
        checks += [_below(at, before + n)] if after else []
        for each in checks:
            inside = each if inside is None else op("and", inside, each)
        index[d] = (at - before) % n if before or after else at
    assert inside is not None
    return rec.define(shape, convert(op("where", inside, convert(x.load(tuple(index)), fill.dtype), fill), x.type))


def _edge(load: Callable[[Affine], Expr], at: Affine, n: int) -> Expr:
    inner = op("where", _below(at, n), load(at % n), load(const(n - 1)))
    return op("where", _below(at, 0), load(const(0)), inner)


def _mirror(load: Callable[[Affine], Expr], at: Affine, n: int, shared: int) -> Expr:
    """There and back again, the ends once where `shared` is 1, else twice."""
    if n == 1:
        return load(const(0))
    turn = at % (2 * (n - shared))
    return op("where", _below(turn, n), load(turn % n), load((2 * n - 1 - shared - turn) % n))


_MODES: dict[str, Callable[[Callable[[Affine], Expr], Affine, int], Expr]] = {
    "wrap": lambda load, at, n: load(at % n), "edge": _edge,
    "reflect": lambda load, at, n: _mirror(load, at, n, 1), "symmetric": lambda load, at, n: _mirror(load, at, n, 0),
}  # fmt: skip

# ---- joining and repeating ------------------------------------------------------------------------------------------


def concatenate(rec: Recorder, arrays: Any, axis: Any = 0, out: Any = None, *, dtype: Any = None) -> Tracer:
    if out is not None:
        fail("out=... writes into an array; use the result instead")
    if isinstance(arrays, Tracer) or not len(arrays):
        fail("np.concatenate: give a list of at least one array; iterate with static indices t[0], t[1]")
    parts = [rec.array(a).ravel() if axis is None else rec.array(a) for a in arrays]
    return _join(rec, "np.concatenate", parts, 0 if axis is None else axis, dtype)


def _join(rec: Recorder, what: str, parts: Sequence[Tracer], axis: int, dtype: Any = None) -> Tracer:
    if not parts[0].ndim:
        fail(f"{what} of arrays of no dimension; use np.stack")
    d = _axis(what, axis, parts[0].ndim)
    rest = parts[0].shape[:d] + parts[0].shape[d + 1 :]
    if any(p.ndim != parts[0].ndim or p.shape[:d] + p.shape[d + 1 :] != rest for p in parts):
        shapes = ", ".join(str(p.shape) for p in parts)
        fail(f"{what} of shapes {shapes}: all extents but those of axis {d} must agree")
    type = rec.dtype(np.result_type(*(p.dtype for p in parts)) if dtype is None else dtype)
    shape = (*parts[0].shape[:d], sum(p.shape[d] for p in parts), *parts[0].shape[d + 1 :])
    filled = [p for p in parts if p.shape[d]] or list(parts[:1])
    end, body = shape[d], None
    for p in reversed(filled):
        start = end - p.shape[d]
        index = _axes(p.ndim)
        index[d] = (index[d] - start) % max(p.shape[d], 1)
        value = convert(p.load(tuple(index)), type.compute)
        body = value if body is None else op("where", _below(var(f"a{d}"), end), value, body)
        end = start
    assert body is not None
    return rec.define(shape, convert(body, type))


def stack(rec: Recorder, arrays: Any, axis: int = 0, out: Any = None, *, dtype: Any = None) -> Tracer:
    if out is not None or isinstance(arrays, Tracer) or not len(arrays):
        fail("np.stack: give a list of at least one array, and no out=")
    parts = [rec.array(a) for a in arrays]
    if len({p.shape for p in parts}) != 1:
        fail(f"np.stack of shapes {', '.join(str(p.shape) for p in parts)}: they must be equal")
    d = _axis("np.stack", axis, parts[0].ndim + 1)
    return _join(rec, "np.stack", [_np.expand_dims(p, d) for p in parts], d, dtype)


def _at_least(x: Tracer, ndim: int) -> Tracer:
    """With axes of one in front, as np.atleast_1d and np.atleast_2d put them."""
    return x if x.ndim >= ndim else x.reshape((1,) * (ndim - x.ndim) + x.shape)


def hstack(rec: Recorder, tup: Any, *, dtype: Any = None) -> Tracer:
    parts = [_at_least(rec.array(a), 1) for a in tup]
    return _join(rec, "np.hstack", parts, 0 if parts[0].ndim == 1 else 1, dtype)


def vstack(rec: Recorder, tup: Any, *, dtype: Any = None) -> Tracer:
    return _join(rec, "np.vstack", [_at_least(rec.array(a), 2) for a in tup], 0, dtype)


def append(rec: Recorder, arr: Any, values: Any, axis: Any = None) -> Tracer:
    return concatenate(rec, [arr, values], axis)


def roll(rec: Recorder, a: Any, shift: Any, axis: Any = None) -> Any:
    x = rec.array(a)
    if axis is None:
        return roll(rec, x.ravel(), shift, 0).reshape(x.shape)
    index = _axes(x.ndim)
    for by, d in np.broadcast(shift, axis):
        at = _axis("np.roll", int(d), x.ndim)
        index[at] = (index[at] - int(by)) % max(x.shape[at], 1)
    return rec.define(x.shape, x.load(tuple(index)))


def tile(rec: Recorder, A: Any, reps: Any) -> Tracer:
    counts = tuple(np.atleast_1d(reps).tolist())
    x = _at_least(rec.array(A), len(counts))
    counts = (1,) * (x.ndim - len(counts)) + counts
    if any(c < 0 for c in counts):
        fail(f"np.tile: reps={reps!r}: a count is negative")
    index = tuple(at % max(n, 1) for at, n in zip(_axes(x.ndim), x.shape))
    return rec.define([n * c for n, c in zip(x.shape, counts)], x.load(index))


def repeat(rec: Recorder, a: Any, repeats: Any, axis: Any = None) -> Tracer:
    x = rec.array(a).ravel() if axis is None else rec.array(a)
    if not isinstance(repeats, (int, np.integer)) or repeats < 0:
        fail("np.repeat: repeats is one static integer, 0 or more; otherwise the shape would depend on data")
    d, index = _axis("np.repeat", 0 if axis is None else axis, x.ndim), _axes(x.ndim)
    index[d] = index[d] // max(int(repeats), 1)
    return rec.define((*x.shape[:d], x.shape[d] * int(repeats), *x.shape[d + 1 :]), x.load(tuple(index)))


def take(rec: Recorder, a: Any, indices: Any, axis: Any = None, out: Any = None, mode: str = "raise") -> Any:
    """Elements at places that are data: clamped to the extent, as a kernel cannot raise an error about an element."""
    if out is not None or mode != "clip":
        fail('np.take of traced places: mode="clip" only, and no out=; a kernel cannot raise an error about an element')
    x, places = rec.array(a), rec.array(indices)
    if axis is None:
        x, axis = x.ravel(), 0
    if not places.type.is_integer:
        fail(f"np.take: places of {places.type} are no integers")
    d, n = _axis("np.take", axis, x.ndim), places.ndim
    shape = (*x.shape[:d], *places.shape, *x.shape[d + 1 :])
    if not x.size or not math.prod(shape):
        if math.prod(shape):
            fail(f"np.take along an empty axis of shape {x.shape}")
        return rec.define(shape, convert(constant(0, x.type), x.type))
    at = _axes(len(shape))
    source = x.load((*at[:d], const(0), *at[d + n :]))
    assert isinstance(source, Load)
    return rec.define(shape, gather(source, d, convert(places.load(tuple(at[d : d + n])), I64)))


# ---- positions ------------------------------------------------------------------------------------------------------


def arange(rec: Recorder, *args: Any, dtype: Any = None, device: Any = None) -> Tracer:
    """np.arange(..., like=a traced array): positions that are computed, not an array that is read."""
    ghost = np.arange(*args, dtype=dtype)
    if ghost.dtype.kind not in "iu" or not all(isinstance(a, (int, np.integer)) for a in args):
        fail("np.arange(..., like=) of integers only; multiply it, or .astype(np.float32), for others")
    start, step = (int(ghost[0]), int(ghost[1] - ghost[0]) if len(ghost) > 1 else 0) if len(ghost) else (0, 0)
    return rec.define(ghost.shape, convert(Index(var("a0") * step + start), rec.dtype(ghost.dtype)))


def _triangle(lower: bool) -> Callable[..., Any]:
    def keep(rec: Recorder, m: Any, k: int = 0) -> Any:
        x = rec.array(m)
        if x.ndim < 2:
            fail("np.tril and np.triu of an array of fewer than two dimensions")
        row, column = _axes(x.ndim)[-2:]
        low, high = (column, row + k) if lower else (row + k, column)
        value = convert(x.load(tuple(_axes(x.ndim))), x.type.compute)
        kept = op("where", op("le", Index(low), Index(high)), value, constant(0, x.type))
        return rec.define(x.shape, convert(kept, x.type))

    return keep


def _filling(value: Any = None) -> Callable[..., Any]:
    def made(rec: Recorder, shape: Any, *args: Any, dtype: Any = None, **_: Any) -> Any:
        fill, *types = args if value is None else (value, *args)
        dtype = types[0] if types else dtype
        x = rec.array(fill)
        kept = x.type if value is None else rec.dtype(np.float64)
        return _np.broadcast_to(rec.cast(x, kept if dtype is None else rec.dtype(dtype)), shape)

    return made


def _extreme_at(combiner: str) -> Callable[..., Any]:
    """np.argmax and np.argmin: the extreme, then the least position that holds it; NaN is the extreme of all."""
    what = f"np.arg{combiner}"

    def position(rec: Recorder, a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = False) -> Any:
        if out is not None:
            fail("out=... writes into an array; use the result instead")
        x = rec.array(a)
        flat = x.ravel() if axis is None else x
        d = _axis(what, 0 if axis is None else axis, flat.ndim)
        if (n := flat.shape[d]) == 0:
            fail(f"{what} over an empty axis of shape {x.shape} has no value")
        kept = [*flat.shape[:d], *flat.shape[d + 1 :]]
        index = _axes(len(kept))
        index.insert(d, var("r0"))
        body = convert(flat.load(tuple(index)), I8 if x.type == BOOL else x.type.compute)
        best = rec.define(kept, body, [n], combiner)
        found: Expr = op("eq", body, best.load(best.axes))
        if x.type.is_float:
            found = op("or", found, op("ne", body, body))
        type = I32 if n < 1 << 31 else I64
        here = op("where", found, cast(Index(var("r0")), type), Const(n - 1, type))
        result = rec.cast(rec.define(kept, here, [n], "min"), I64)
        if not keepdims:
            return result
        return result.reshape((1,) * x.ndim) if axis is None else _np.expand_dims(result, d)

    return position


# ---- prefixes -------------------------------------------------------------------------------------------------------


def accumulate(
    rec: Recorder, ufunc: Any, combiner: str, a: Any, axis: Any = 0, dtype: Any = None, out: Any = None
) -> Tracer:
    """ufunc.accumulate: running sums, products or extremes, inside blocks and over the blocks' totals likewise."""
    if out is not None:
        fail("out=... writes into an array; use the result instead")
    x = rec.array(a)
    what = f"np.{ufunc.__name__}.accumulate"
    type = rec.dtype(ufunc.accumulate(np.ones(1, x.dtype), dtype=dtype).dtype)
    return rec.cast(_scan(rec, combiner, rec.cast(rec.cast(x, type), type.compute), _axis(what, axis, x.ndim)), type)


def _scan(rec: Recorder, combiner: str, x: Tracer, d: int) -> Tracer:
    n = x.shape[d]
    if n <= 1:
        return x
    identity = Const(COMBINERS[combiner].identity(x.type), x.type)
    size = n if n <= 2 * BLOCK else BLOCK
    blocks = -(-n // size)
    # inner[.., b, i, ..]: over the elements up to i of block b. What lies behind the last element is never read.
    shape = (*x.shape[:d], blocks, size, *x.shape[d + 1 :])
    index = _axes(len(shape))
    b, i, r = index[d], index[d + 1], var("r0")
    index[d : d + 2] = [(b * size + r) % n]
    body = op("where", op("le", Index(r), Index(i)), x.load(tuple(index)), identity)
    inner = rec.define(shape, body, [size], combiner)
    index = _axes(x.ndim)
    at, others = index[d], index[d + 1 :]
    value = inner.load((*index[:d], at // size, at % size, *others))
    if blocks > 1:
        end = rec.define(
            (*x.shape[:d], blocks, *x.shape[d + 1 :]), inner.load((*index[: d + 1], const(size - 1), *others))
        )
        total = _scan(rec, combiner, end, d)
        before = total.load((*index[:d], (at // size - 1) % blocks, *others))
        before = op("where", _below(at, size), identity, before)
        value = op(COMBINERS[combiner].primitive, value, before)
    return rec.define(x.shape, value)


def _running(combiner: str, ufunc: Any) -> Callable[..., Any]:
    def made(rec: Recorder, a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Tracer:
        x = rec.array(a).ravel() if axis is None else rec.array(a)
        return accumulate(rec, ufunc, combiner, x, 0 if axis is None else axis, dtype, out)

    return made


FUNCTIONS: dict[Any, Callable[..., Any]] = {
    np.pad: pad, np.concatenate: concatenate, np.stack: stack, np.hstack: hstack, np.vstack: vstack, np.append: append,
    np.take: take, np.roll: roll, np.tile: tile, np.repeat: repeat, np.arange: arange, np.tril: _triangle(True),
    np.triu: _triangle(False), np.full: _filling(), np.zeros: _filling(0), np.ones: _filling(1),
    np.argmax: _extreme_at("max"), np.argmin: _extreme_at("min"),
    np.cumsum: _running("sum", np.add), np.cumprod: _running("prod", np.multiply),
}  # fmt: skip
