"""Padding, joining, repeating, positions and prefixes against NumPy, as programs and as machine code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autotune.ir.errors import TraceError
from autotune.tracer import trace

from .evaluation import check, values
from .machine import check as check_machine

_np: Any = np  # its stubs refuse what these tests give it
TYPES = [np.dtype(t) for t in ("f4", "f8", "f2", "i1", "u1", "i2", "i4", "i8", "?")]
rng = np.random.default_rng(0)
A, C = (rng.standard_normal((4, 6)).astype(np.float32) for _ in range(2))
X3 = rng.standard_normal((2, 3, 4)).astype(np.float32)
NANS = np.where(rng.random((5, 7)) < 0.1, np.nan, rng.integers(-2, 3, (5, 7))).astype(np.float32)
MODES = ["constant", "edge", "wrap", "reflect", "symmetric"]

JOINS: list[Callable[..., Any]] = [
    lambda a, c: np.concatenate([a, c[:1], a[2:]]), lambda a, c: np.concatenate((a, c[:, :1], c[:, 2:5]), axis=1),
    lambda a, c: np.concatenate([a, c], axis=None), lambda a, c: np.concatenate([a[:0], c]),
    lambda a, c: np.concatenate([a[:0], c[:0]]), lambda a, c: np.concatenate([a]), lambda a, c: np.append(a, c),
    lambda a, c: np.concatenate([a, c.astype("f8")], -1), lambda a, c: np.concatenate([a, c], dtype="f8"),
    lambda a, c: np.append(a, c[1:], axis=0), lambda a, c: np.hstack([a, c[:, 1:]]), lambda a, c: np.vstack([a[0], c]),
    lambda a, c: np.hstack([a[0], c[1]]), lambda a, c: np.stack([a, c, a + c], axis=1), lambda a, c: np.stack([a, c]),
    lambda a, c: np.concatenate([a * 2, np.exp(c[1:])]) * 3, lambda a, c: np.concatenate([a, c[:2]]).sum(0),
    lambda a, c: np.concatenate([a, c[:2]]).T @ np.concatenate([a[:2], c]), lambda a, c: np.stack([a[0, 0], c[0, 0]]),
    lambda a, c: np.roll(a, 2), lambda a, c: np.roll(a, -1, 0), lambda a, c: np.roll(a, (1, 7), (0, 1)),
    lambda a, c: np.tile(a, 2), lambda a, c: np.tile(a, (2, 1, 3)), lambda a, c: np.tile(a[0], (0, 2)),
    lambda a, c: np.repeat(a, 3, axis=1), lambda a, c: a.repeat(2), lambda a, c: np.repeat(a, 0, 0),
    lambda a, c: np.tril(a), lambda a, c: np.triu(a @ c.T, 1), lambda a, c: np.tril(a.astype("i4"), -1),
    lambda a, c: np.flip(a), lambda a, c: a[::-1], lambda a, c: np.flip(a, 1)[1:, ::2], lambda a, c: a[:, -2:0:-2],
    lambda a, c: a.T[::-1] @ c, lambda a, c: a.reshape(2, 2, 6)[:, ::-1].reshape(4, 6)[::-1],
    lambda a, c: np.arange(6, like=a) * a, lambda a, c: np.arange(3, 15, 2, like=a), lambda a, c: np.arange(0, like=a),
    lambda a, c: np.where(np.arange(4, like=a)[:, None] >= np.arange(6, like=a), a, 0),
    lambda a, c: np.full((2, 3), 4, like=a), lambda a, c: np.arange(4, dtype="i4", like=a)[::-1],
    lambda a, c: np.zeros((2, 3), like=a) + np.ones(3, "i4", like=a),
]  # fmt: skip


@pytest.mark.parametrize("fn", JOINS, ids=range(len(JOINS)))
def test_joins_repeats_and_positions(fn: Callable[..., Any]) -> None:
    check(fn, A, C)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(5,), (1,), (3, 4), (2, 1, 5)], ids=str)
def test_padding(mode: str, shape: tuple[int, ...]) -> None:
    x = values(np.dtype("f4"), shape)
    wide = [(d, 2 * d + 1) for d in range(len(shape))]
    for width in (0, 1, (2, 0), wide, 7):
        check(lambda x, width=width: _np.pad(x, width, mode), x)
    check(lambda x: _np.pad(x, {-1: (1, 2)}, mode), x)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_padding_of_every_dtype(dtype: np.dtype[Any]) -> None:
    x = values(dtype)
    check(lambda x: np.pad(x, ((1, 2), (0, 3)), constant_values=1), x)
    check(lambda x: np.pad(x, 1, constant_values=((1, 2), (3, 4))), x)
    check(lambda x: np.pad(x, 2, mode="edge"), x)
    check(lambda x: np.concatenate([x, x[:1]]), x)


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("function", [np.argmax, np.argmin])
def test_positions_of_extremes(function: Any, axis: Any) -> None:
    with_infinities = np.where(NANS == 2, np.inf, np.where(NANS == -2, -np.inf, NANS))
    for x in (NANS, np.nan_to_num(NANS), with_infinities, np.full((3, 4), -np.inf, "f4"), np.full((2, 3), np.nan)):
        check(lambda x: function(x, axis), x)
    for dtype in TYPES:
        check(lambda x: function(x, axis=axis, keepdims=True), values(dtype, (5, 9)))
    check(lambda x: (function(x * 2 + 1, axis), function(x[:, ::2], axis)), A)


@pytest.mark.parametrize("n", [0, 1, 2, 8, 9, 31, 32, 33, 100, 1025, 3000])
@pytest.mark.parametrize("function", [np.cumsum, np.cumprod])
def test_prefixes(function: Any, n: int) -> None:
    x = values(np.dtype("f8"), (n,)) / 3
    check(lambda x: function(x), x, tolerance=1e-11)
    check(lambda x: function(x), np.random.default_rng(n).integers(-3, 4, n).astype("i4"))


def test_prefixes_along_axes_and_of_dtypes() -> None:
    for axis in (None, 0, 1, 2, -1):
        check(lambda x, axis=axis: (np.cumsum(x, axis), x.cumprod(axis)), X3, tolerance=1e-5)
        check(lambda x, axis=axis: np.cumsum(x, axis), values(np.dtype("i2"), (3, 70, 2)))
    for dtype in TYPES:
        if dtype != np.uint8:
            check(lambda x: np.cumsum(x), values(dtype, (50,)), tolerance=0.1 if dtype.itemsize == 2 else None)
    check(lambda x: (np.maximum.accumulate(x, 1), np.minimum.accumulate(x), np.add.accumulate(x)), NANS, tolerance=1e-5)
    check(lambda x: np.cumsum(x, dtype="f8"), A, tolerance=1e-6)
    endless = np.array([1, np.inf, 2, 3] * 20, "f4")
    check(lambda x: np.cumsum(x), np.append(endless, -endless))


REFUSED: list[tuple[Callable[..., Any], str]] = [
    (lambda t: np.pad(t, -1), "0 or more"), (lambda t: _np.pad(t, 1.5), "0 or more"),
    (lambda t: np.pad(t, (1, 2, 3)), "no number, pair or 2 pairs"), (lambda t: np.pad(t, 1 << 62), "too large"),
    (lambda t: np.pad(t, 1, "linear_ramp"), "edge, wrap"), (lambda t: np.pad(t, 1, "edge", end_values=3), "end_values"),
    (lambda t: np.pad(t, 1, "reflect", reflect_type="odd"), "cannot be traced"),
    (lambda t: np.pad(t[:0], 1, "edge"), "empty"), (lambda t: np.pad(t.astype("i1"), 1, constant_values=300), "300"),
    (lambda t: np.pad(t, {5: 1}), "out of bounds"), (lambda t: np.concatenate([t, t[0]]), "must agree"),
    (lambda t: np.concatenate([t, t[:, :2]]), "axis 0 must agree"),
    (lambda t: np.concatenate([t, t], 2), "out of bounds"),
    (lambda t: np.concatenate(t), "list of at least one"), (lambda t: np.stack([t, t[:1]]), "must be equal"),
    (lambda t: np.concatenate([t[0, 0], t[0, 0]]), "np.stack"), (lambda t: np.argmax(t[:, :0], 1), "empty axis"),
    (lambda t: np.argmax(t, 2), "out of bounds"), (lambda t: np.repeat(t, [1, 2, 3, 4], 0), "one static integer"),
    (lambda t: np.arange(2.5, like=t), "integers only"), (lambda t: np.tile(t, -1), "negative"),
    (lambda t: np.cumsum(t.astype("u1")), "uint64"), (lambda t: np.tril(t[0]), "two dimensions"),
]  # fmt: skip


@pytest.mark.parametrize("fn, message", REFUSED, ids=range(len(REFUSED)))
def test_refusals(fn: Callable[..., Any], message: str) -> None:
    with pytest.raises(TraceError, match=message):
        trace(fn, (A,))


MACHINE: list[Callable[..., Any]] = [
    lambda x: np.pad(x, ((1, 2), (3, 0))), lambda x: np.pad(x, 2, "edge"), lambda x: np.pad(x, 9, "wrap"),
    lambda x: np.pad(x, 9, "reflect"), lambda x: np.pad(x, 3, "symmetric"), lambda x: np.concatenate([x, x[1:]]),
    lambda x: np.concatenate([x * 2, x[:, :3], np.exp(x)], 1), lambda x: np.pad(x, 1) @ np.pad(x, 1).T,
    lambda x: (x.argmax(), x.argmin(1)), lambda x: np.argmax(x, 0), lambda x: np.cumsum(x), lambda x: np.cumsum(x, 0),
    lambda x: np.cumsum(x, 1) * 2, lambda x: np.flip(x) + x, lambda x: x[:, ::-1] @ x.T, lambda x: np.roll(x, 3, 1),
    lambda x: np.repeat(np.tile(x, (1, 2)), 3, 0), lambda x: np.tril(x) * np.arange(x.shape[1], like=x),
]  # fmt: skip


@pytest.mark.parametrize("fn", MACHINE, ids=range(len(MACHINE)))
def test_machine_code(fn: Callable[..., Any]) -> None:
    for shape in ((5, 37), (1, 1), (33, 8)):
        check_machine(fn, rng.standard_normal(shape).astype("f4"))
    check_machine(fn, rng.integers(-9, 9, (7, 11)).astype("i4"))
    check_machine(fn, rng.standard_normal((20, 18))[::2, 1::2])
