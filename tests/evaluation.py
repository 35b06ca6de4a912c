"""The meaning of a TensorProgram, for tests: NumPy over whole index grids, one Compute after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autotune.ir.dtypes import BOOL, DType
from autotune.ir.expr import HEAVY, Const, Expr, Index, Load, gathers
from autotune.ir.program import COMBINERS, TensorProgram
from autotune.tracer import trace


def _shift(function: Any) -> Callable[..., Any]:
    def shifted(a: Any, count: Any) -> Any:
        assert np.all((count >= 0) & (count < a.dtype.itemsize * 8)), "shift count out of the type's width"
        return function(a, count)

    return shifted


def _heavy(function: Any) -> Callable[..., Any]:
    """Correctly rounded in f32."""
    return lambda a: function(a.astype(np.float64)).astype(a.dtype)


def _fma(a: Any, b: Any, c: Any) -> Any:
    wide = np.float64 if a.dtype == np.float32 else np.longdouble
    return (a.astype(wide) * b.astype(wide) + c.astype(wide)).astype(a.dtype)


PRIMITIVES: dict[str, Any] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "mod": np.remainder, "max": np.maximum, "min": np.minimum,
    "div": lambda a, b: a / b if a.dtype.kind == "f" else a // b, "fma": _fma,
    "neg": np.negative, "abs": np.absolute, "sqrt": np.sqrt, "recip": lambda a: 1 / a, "floor": np.floor,
    "rint": np.rint,
    "lt": np.less, "le": np.less_equal, "eq": np.equal, "ne": np.not_equal, "where": np.where,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert,
    "shl": _shift(np.left_shift), "shr": _shift(np.right_shift),
} | {name: _heavy(getattr(np, name)) for name in HEAVY}  # fmt: skip


def _cast(value: Any, dtype: DType, numpy: np.dtype[Any]) -> Any:
    if value.dtype.kind == "f" and dtype.is_integer:  # truncate and saturate
        info = np.iinfo(numpy)
        clipped = np.clip(np.nan_to_num(np.trunc(value), nan=0.0), info.min, float(info.max))
        return np.where(clipped >= info.max, info.max, clipped.astype(np.int64)).astype(numpy)
    return value != 0 if dtype == BOOL else value.astype(numpy)


def evaluate(program: TensorProgram, arrays: Sequence[Any], wide: bool = True) -> list[np.ndarray]:
    """The outputs, given one array for each program input.

    wide: floats of every type are float64 throughout and never rounded; else each operation is done in its own type.
    Asserts what a program promises: operand types agree, no arithmetic in 16-bit floats, no load out of bounds.
    """

    def numpy(dtype: DType) -> np.dtype[Any]:
        return np.dtype(np.float64) if wide and dtype.is_float else dtype.numpy

    buffers = {b.name: b for b in program.buffers}
    stored: dict[str, np.ndarray] = {}
    assert len(arrays) == len(program.inputs)
    for buffer, array in zip(program.inputs, arrays):
        assert array.shape == buffer.shape and array.dtype == buffer.dtype.numpy, buffer
        stored[buffer.name] = array.astype(numpy(buffer.dtype))

    def point(node: Expr, env: dict[str, Any], done: dict[int, Any]) -> Any:
        if id(node) not in done:
            done[id(node)] = one(node, env, [point(a, env, done) for a in getattr(node, "args", ())])
        return done[id(node)]

    def one(node: Expr, env: dict[str, Any], args: list[Any]) -> Any:
        if isinstance(node, Const):
            assert node.dtype == node.dtype.compute
            return np.asarray(node.value, numpy(node.dtype))
        if isinstance(node, Index):
            return np.asarray(node.value.evaluate(env), np.int64)
        if isinstance(node, Load):
            buffer = buffers[node.buffer]
            assert node.dtype == buffer.dtype and len(node.index) == len(buffer.shape), (node, buffer)
            index = tuple(np.asarray(a.evaluate(env)) for a in node.index)
            assert all(i.min() >= 0 and i.max() < e for i, e in zip(index, buffer.shape)), f"{node}: out of bounds"
            return stored[node.buffer][index]
        if node.name == "gather":
            ((source, dim, _),) = list(gathers(node))[-1:]
            assert source.index[dim].is_const
            places = [np.asarray(a.evaluate(env)) for a in source.index]
            places[dim] = np.clip(args[2].astype(np.int64), 0, buffers[source.buffer].shape[dim] - 1)
            return stored[source.buffer][tuple(places)]
        if node.name == "cast":
            return _cast(args[0], node.dtype, numpy(node.dtype))
        types = {a.dtype for a in (node.args[1:] if node.name == "where" else node.args)}
        assert len(types) == 1, f"{node.name} of different types {types}"
        assert all(t == t.compute for t in types), f"{node.name} in a 16-bit float"
        return np.asarray(PRIMITIVES[node.name](*args))

    for c in program.computes:
        shape = tuple(a.extent for a in c.all_axes)
        grid = np.ogrid[tuple(slice(e) for e in shape)] if shape else []
        env: dict[str, Any] = {a.name: g for a, g in zip(c.all_axes, grid)}
        assert len(env) == len(shape) and c.body.dtype == c.dtype, c
        storage = numpy(c.dtype)
        with np.errstate(all="ignore"):
            body = np.broadcast_to(point(c.body, env, {}), shape) if 0 not in shape else np.zeros(shape, storage)
            if c.combiner:
                combiner = COMBINERS[c.combiner]
                over = tuple(range(len(c.axes), len(shape)))
                identity = storage.type(combiner.identity(c.dtype))
                body = PRIMITIVES[combiner.primitive].reduce(body, axis=over, dtype=storage, initial=identity)
        stored[c.name] = np.array(body, dtype=storage)
        assert stored[c.name].shape == c.shape
    return [stored[name] for name in program.outputs]


def run(fn: Callable[..., Any], *args: Any, wide: bool = True, **kwargs: Any) -> Any:
    """fn(*args, **kwargs) by tracing it and evaluating the program."""
    traced = trace(fn, args, kwargs)

    def fetch(source: tuple[Any, ...]) -> Any:
        if source[0] == "hidden":
            return source[1]
        value = kwargs[source[1]] if isinstance(source[1], str) else args[source[1]]
        for key in source[2]:
            value = value[key]
        return value

    outputs = evaluate(traced.program, [fetch(source) for source in traced.arguments], wide)
    types = {b.name: b.dtype.numpy for b in traced.program.buffers}
    with np.errstate(over="ignore"):
        return traced.rebuild([o.astype(types[name]) for o, name in zip(outputs, traced.program.outputs)])


def values(dtype: np.dtype[Any], shape: tuple[int, ...] = (3, 4), seed: int = 0) -> np.ndarray:
    """Small random numbers of any dtype."""
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
    bits = {2: 7 if expected.dtype.name == "bfloat16" else 10, 4: 22, 8: 50}[expected.dtype.itemsize]
    limit = tolerance or 2.0**-bits * 8
    np.testing.assert_allclose(got.astype(np.float64), expected.astype(np.float64), rtol=limit, atol=limit)


def check(fn: Callable[..., Any], *args: Any, tolerance: float | None = None) -> None:
    """The traced function computes what the function computes."""
    with np.errstate(all="ignore"):
        same(run(fn, *args), fn(*args), tolerance)
