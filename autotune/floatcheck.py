"""Does a built kernel compute its program? A float64 evaluation with error bounds, on inputs made to reveal faults.

Knows programs and NumPy; nothing of schedules, kernels or devices: it is handed a function that runs one. Every value
travels with a bound on what a right kernel may differ by (`Value`): forward error analysis, with exact zero where the
arithmetic is exact. Sums may be reordered and products contracted into fma, and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from string import ascii_letters
from typing import Any

import numpy as np

from .ir.domains import Float64
from .ir.dtypes import DType
from .ir.expr import HEAVY, Const, Expr, Index, Load, Op, loads, names, walk
from .ir.points import distinct
from .ir.program import COMBINERS, Compute, TensorProgram

Array = np.ndarray[Any, Any]
Runner = Callable[[list[Array]], Sequence[Array]]
Rows = Mapping[str, tuple[int, Array]]  # a buffer evaluated in part: the dimension, and the coordinates along it

QUICK = ("random", "integers")
THOROUGH = (*QUICK, "position", "magnitudes", "zeros", "special", "positive", "negative")
SECONDS = 0.05  # of evaluation a case, about; programs that cost more are compared on a sample of rows
FEW = 8  # rows at least, of as many as there are
LARGE = 32 << 20  # bytes of inputs above which the quick check is of one case: making them takes longer than the kernel
CHUNK = 1 << 20  # points of a domain evaluated at once
BLOCK = 262139  # random elements drawn; longer inputs repeat them (a prime, so that rows differ)
_MANTISSA = {"f16": 11, "bf16": 8, "f32": 24, "f64": 53}
_LARGEST = {"f16": 65504.0, "bf16": 3.38e38, "f32": 3.4028234e38, "f64": math.inf}
_SMALLEST = {"f16": 2.0**-24, "bf16": 2.0**-133, "f32": 2.0**-149, "f64": 2.0**-1074}
# Units in the last place that an operation may lose; those that lose none are exact, and 1 is a correct rounding.
_LOSS = dict.fromkeys(("add", "sub", "mul", "div", "sqrt", "recip", "fma", "cast"), 1)
_LOSS |= dict.fromkeys(("mod", *HEAVY), 4)
_EXACT = Float64()


@dataclass(frozen=True, slots=True)
class Value:
    """`v`: float64 for floats, the type itself for integers and booleans. `e`: finite, it says that a right result is
    NaN where v is NaN, v where v is infinite, and within e of it elsewhere; infinite, it says nothing."""

    v: Array
    e: Array | float = 0.0


def check(program: TensorProgram, run: Runner, rng: np.random.Generator, thorough: bool) -> str | None:
    """None where the outputs of `run(inputs)` are those of `program`, else a sentence that says how they differ."""
    return Checker(program, int(rng.integers(1 << 31))).check(run, thorough)


class Checker:
    """The cases of one program; expected values are computed once and serve every candidate."""

    def __init__(self, program: TensorProgram, seed: int = 0, seconds: float = SECONDS) -> None:
        self.program, self.seed = program, seed
        self._rows = _sampled_rows(program, seconds, seed)
        self._expected: dict[str, list[Value]] = {}

    def inputs(self, case: str) -> list[Array]:
        rng = np.random.default_rng([self.seed, THOROUGH.index(case)])
        return [_repeated(_fill(case, b.shape, b.dtype, rng), b.strides) for b in self.program.inputs]

    def check(self, run: Runner, thorough: bool = False, cases: Sequence[str] = ()) -> str | None:
        large = sum(b.bytes for b in self.program.inputs) > LARGE
        for case in THOROUGH if thorough else cases or QUICK[: 1 if large else 2]:
            inputs = self.inputs(case)
            if case not in self._expected:
                self._expected[case] = evaluate(self.program, inputs, self._rows)
            outputs = run(inputs)
            for name, got, want in zip(self.program.outputs, outputs, self._expected[case], strict=True):
                if (message := _difference(name, got, want, self._rows.get(name))) is not None:
                    return f"{message} ({case} inputs)"
        return None


def _difference(name: str, got: Array, want: Value, rows: tuple[int, Array] | None) -> str | None:
    if rows is not None:
        got = got.take(rows[1], rows[0])
    if got.shape != want.v.shape:
        return f"{name} has shape {got.shape}, expected {want.v.shape}"
    if got.dtype.kind not in "iub":
        got = got.astype(np.float64)
    with np.errstate(all="ignore"):
        wrong = got != want.v
        if not wrong.any():
            return None
        wrong &= ~(np.isnan(got) & np.isnan(want.v)) if got.dtype.kind == "f" else True
        off = np.abs(got.astype(np.float64) - want.v.astype(np.float64))
        # A bound of NaN or infinity compares as "within"; an infinite or NaN distance under a finite bound does not.
        wrong &= ~(off <= want.e) & ~np.isinf(want.e)
    if not wrong.any():
        return None
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    bound = float(np.broadcast_to(want.e, wrong.shape)[at])
    real = at if rows is None else tuple(int(rows[1][i]) if d == rows[0] else i for d, i in enumerate(at))
    return (
        f"{name}{list(real)} is {got[at]:.9g}, expected {want.v[at]:.9g} within {bound:.2g}; "
        f"{int(wrong.sum())} of {wrong.size} compared elements are wrong"
    )


# ---- inputs ---------------------------------------------------------------------------------------------------------


def cycled(row: Array, shape: tuple[int, ...]) -> Array:
    """An array that repeats `row` in C order. (np.resize does so too, four times slower.)"""
    out = np.empty(math.prod(shape), row.dtype)
    done = min(len(row), out.size)
    out[:done] = row[:done]
    while 0 < done < out.size:
        more = min(done, out.size - done)
        out[done : done + more] = out[:more]
        done += more
    return out.reshape(shape)


def _repeated(a: Array, strides: tuple[int | str, ...] | None) -> Array:
    """The array as a layout with strides of 0 can hold it: the same along those axes."""
    for d, step in enumerate(strides or ()):
        if step == 0:
            a = np.broadcast_to(a.take([0], d), a.shape)
    return a


def _fill(case: str, shape: tuple[int, ...], dtype: DType, rng: np.random.Generator) -> Array:
    size = math.prod(shape)
    n = min(size, BLOCK)
    if case == "position":
        row: Array = np.arange(min(size, 127)) * 37 % 127 - 63
    elif not dtype.is_float:
        high = 1 << (dtype.bits - 1) if case == "random" and dtype.is_integer else 5
        row = rng.integers(-high if dtype.kind == "i" else 0, high, n)
    elif case == "integers":
        row = rng.integers(-4, 5, n)
    elif case == "zeros":
        row = rng.choice([0.0, -0.0, 1.0, -1.0, 5 * _SMALLEST[dtype.name]], n)
    else:
        row = rng.standard_normal(n)
        if case == "magnitudes":
            span = int(math.log2(min(_LARGEST[dtype.name], 1e300))) // 6
            row = row * np.exp2(rng.integers(-span, span + 1, n))
        if case in ("positive", "negative"):  # a wrong initial value of a reduction shows
            row = np.copysign(np.abs(row) + 0.5, 1 if case == "positive" else -1)
    out = cycled(row.astype(dtype.numpy) if dtype.kind != "b" else row % 2 == 1, shape)
    if case == "special" and dtype.is_float and size:
        out.flat[rng.integers(0, size, 3)] = np.array([np.nan, np.inf, -np.inf], dtype.numpy)
    return out


# ---- which rows -----------------------------------------------------------------------------------------------------


def _factors(c: Compute) -> list[Expr] | None:
    """The factors of a sum of products, where the sum is one that einsum can do."""

    def split(node: Expr) -> list[Expr]:
        if isinstance(node, Op) and node.name == "mul" and node.dtype == c.dtype:
            return split(node.args[0]) + split(node.args[1])
        return [node]

    found = split(c.body)
    reduced = {a.name for a in c.reduce_axes}
    small = all(len(names(f)) < len(c.all_axes) for f in found) or all(isinstance(f, Load) for f in found)
    covered = frozenset().union(*map(names, found))
    return found if c.combiner == "sum" and c.dtype.kind != "b" and small and reduced <= covered else None


def _cost(c: Compute) -> float:
    """Seconds that an evaluation takes, roughly."""
    if factors := _factors(c):
        extents = {a.name: a.extent for a in c.all_axes}
        read = sum(math.prod(extents[n] for n in names(f)) for f in factors)
        return read * 2e-8 + c.points * 1e-10 * (len(factors) > 1)
    # An operation on values that may be off is evaluated at the corners of what its operands may be.
    work = sum((12 if n.name in HEAVY else 4) if isinstance(n, Op) else 1 for n in walk(c.body))
    return c.points * 1e-8 * (1 + work)


def _wanted(program: TensorProgram, dim: int) -> dict[str, int | None]:
    """The dimension of each buffer along which a part of it is enough where outputs are compared along `dim`, or their
    longest one where they have no such dimension; None: all of it is read."""
    wanted: dict[str, int | None] = {}
    for c in reversed(program.computes):
        if c.name in program.outputs and c.name not in wanted and c.axes:
            wanted[c.name] = dim if 0 <= dim < len(c.axes) else max(range(len(c.axes)), key=lambda d: c.shape[d])
        mine = wanted.setdefault(c.name, None)
        axis = None if mine is None else c.axes[mine].name
        for ld in loads(c.body):
            at = [d for d, a in enumerate(ld.index) if axis is not None and axis in a.names()]
            its = at[0] if len(at) == 1 and ld.index[at[0]].single() == axis else None
            wanted[ld.buffer] = its if wanted.get(ld.buffer, its) == its else None
    return wanted


def _sampled_rows(program: TensorProgram, seconds: float, seed: int) -> dict[str, tuple[int, Array]]:
    """For each computed buffer that is evaluated in part only: the dimension, and the coordinates along it.

    The first and last are among them. A producer is cut down where its readers' rows are all that is read of it.
    """
    costs = {c.name: _cost(c) for c in program.computes}
    share = seconds / max(sum(costs.values()), 1e-12)
    if share >= 1:
        return {}
    ranks = range(-1, max(len(program.compute(name).axes) for name in program.outputs))
    choices = [_wanted(program, dim) for dim in ranks]  # the longest dimension unless another one cuts down more

    def left(wanted: Mapping[str, int | None]) -> float:
        """What is left of the cost."""
        cut = {c.name for c in program.computes if (d := wanted[c.name]) is not None and c.shape[d] > FEW}
        return sum(cost * (share if name in cut else 1.0) for name, cost in costs.items())

    wanted = min(choices, key=left)
    rng, out = np.random.default_rng(seed), {}
    rows: dict[int, Array] = {}
    for c in program.computes:
        dim = wanted[c.name]
        if dim is None or (extent := c.shape[dim]) <= FEW:
            continue
        if extent not in rows:
            count = min(extent, max(FEW, int(extent * share)))
            picked = rng.integers(0, extent, count)  # (choice without replacement would permute the whole extent)
            rows[extent] = distinct(np.concatenate([picked, [0, 1, extent - 2, extent - 1]]))
        out[c.name] = (dim, rows[extent])
    return out


# ---- evaluation -----------------------------------------------------------------------------------------------------


def evaluate(program: TensorProgram, inputs: Sequence[Array], rows: Rows | None = None) -> list[Value]:
    """The outputs with their error bounds; `rows` restricts buffers to some coordinates along one dimension."""
    known = {b.name: Value(a) for b, a in zip(program.inputs, inputs, strict=True)}
    with np.errstate(all="ignore"):
        for c in program.computes:
            known[c.name] = _Evaluation(c, known, rows or {}).result()
    return [known[name] for name in program.outputs]


class _Evaluation:
    """One Compute over its domain: axes, then reduce axes, each an array dimension in that order."""

    def __init__(self, c: Compute, known: Mapping[str, Value], rows: Rows) -> None:
        self.c, self.known, self.rows = c, known, rows
        self.order = [a.name for a in c.all_axes]
        dim, picked = rows.get(c.name, (-1, None))
        self.points = [picked if d == dim and picked is not None else np.arange(a.extent)
                       for d, a in enumerate(c.all_axes)]  # coordinates  # fmt: skip

    def result(self) -> Value:
        c, whole = self.c, list(self.points)
        if (factors := _factors(c)) and (value := self._contract(factors)) is not None:
            return value
        sizes = [len(p) for p in whole]
        if not c.all_axes or not all(sizes):
            return self._finish(*self._part())
        dim = max(range(len(sizes)), key=lambda d: sizes[d])
        step = max(1, CHUNK * sizes[dim] // math.prod(sizes))
        parts = []
        for lo in range(0, sizes[dim], step):
            self.points[dim] = whole[dim][lo : lo + step]
            parts.append(self._part())
        if dim < len(c.axes):
            v, e, mag = (np.concatenate([p[i] for p in parts], axis=dim) for i in range(3))
            return self._finish(v, e, mag)
        v, e, mag = parts[0]
        for pv, pe, pm in parts[1:]:
            v, e, mag = self._fold()(v, pv), (e + pe if mag.dtype.kind == "c" else np.maximum(e, pe)), mag + pm
        return self._finish(v, e, mag)

    def _fold(self) -> np.ufunc:
        return _EXACT.monoid(self.c.combiner or "sum", self.c.dtype)[0]

    def _part(self) -> tuple[Array, Array, Array]:
        """The body over the present points, reduced: values, errors, and the sizes that `_finish` needs.

        Sums: the magnitudes, and as imaginary part how many terms are no exact integers. Products: errors are relative,
        and the sizes are the sums of the positive and of the negative logarithms.
        """
        c, shape = self.c, tuple(len(p) for p in self.points)
        value = self.expr(c.body if c.body.dtype == c.dtype else Op("cast", (c.body,), c.dtype))
        v, e = np.broadcast_to(value.v, shape), np.broadcast_to(np.asarray(value.e), shape)
        if c.combiner is None:
            return v, e, np.zeros(shape)
        over = tuple(range(len(c.axes), len(shape)))
        first = COMBINERS[c.combiner].identity(c.dtype)
        reduced = np.asarray(self._fold().reduce(v, axis=over, dtype=v.dtype, initial=first))
        if not c.dtype.is_float or c.combiner not in ("sum", "prod"):
            return reduced, e.max(axis=over, initial=0.0), np.zeros(reduced.shape)
        size = np.abs(v)
        if c.combiner == "sum":
            rough = (v != np.rint(v)) | (e != 0)
            return reduced, e.sum(axis=over), size.sum(axis=over) + 1j * rough.sum(axis=over)
        logs = np.where(size > 0, np.log2(size), 0)
        sizes = np.maximum(logs, 0).sum(axis=over) + 1j * np.minimum(logs, 0).sum(axis=over)
        return reduced, np.where(e > 0, e / size, 0.0).sum(axis=over), sizes

    def _finish(self, v: Array, e: Array, mag: Array) -> Value:
        """Add what the reduction itself loses: rounding in any order, and the overflow of a partial result."""
        c = self.c
        if mag.dtype.kind != "c":
            return Value(v, e if np.any(e) else 0.0)
        n, unit, largest = _terms(c), _unit(c.dtype), _LARGEST[c.dtype.name]
        if c.combiner == "prod":
            low = math.log2(_SMALLEST[c.dtype.name]) + _MANTISSA[c.dtype.name]
            out = (mag.real > math.log2(min(largest, 1e308))) | (mag.imag < low)
            e = np.where(out, np.inf, np.abs(v) * (np.expm1(np.minimum(e, 700)) + n * unit))
        else:
            exact = (mag.imag == 0) & (mag.real <= 2.0 ** _MANTISSA[c.dtype.name])
            e = e + np.where(exact, 0.0, _spread(n) * unit * mag.real)
            e = np.where(np.isfinite(v), np.where(mag.real > largest, np.inf, e), np.where(np.isfinite(e), 0.0, np.inf))
        return _settled(v, e, c.dtype)

    def _contract(self, factors: list[Expr]) -> Value | None:
        """A sum of products by einsum; its bound: the sum of magnitudes, and the worst of the factors' errors."""
        c = self.c
        letters = ascii_letters[: len(self.order)]
        values = [self.expr(f) for f in factors]
        used = ["".join(x for x, n in zip(letters, f.v.shape) if n > 1) for f in values]
        covered = set("".join(used))
        if any(len(p) == 0 or (len(p) > 1 and x not in covered) for x, p in zip(letters, self.points)):
            return None  # nothing to sum, or all factors constant along an axis: left to the general path
        kept = "".join(x for x in letters[: len(c.axes)] if x in covered)

        def einsum(arrays: Sequence[Array]) -> Array:
            cut = [np.asarray(a, np.float64).reshape([n for n in a.shape if n > 1]) for a in arrays]
            result = np.einsum(f"{','.join(used)}->{kept}", *cut, optimize=len(cut) > 1)
            return np.asarray(result).reshape([len(p) for p in self.points[: len(c.axes)]])

        size = [np.abs(f.v, dtype=np.float64) for f in values]
        v, mag = einsum([f.v for f in values]), einsum(size)
        erring = any(np.any(f.e) for f in values)
        if not c.dtype.is_float:
            return None if erring or mag.max() >= 2.0**53 else Value(v.astype(np.int64).astype(c.dtype.numpy))
        n = _terms(c)
        e = (_spread(n) + len(factors) - 1) * _unit(c.dtype) * mag + n * _SMALLEST[c.dtype.name]
        if not erring and all(bool((f.v == np.rint(f.v)).all()) for f in values):
            e = np.where(mag <= 2.0 ** _MANTISSA[c.dtype.name], 0.0, e)
        if erring:
            e = e + einsum([s + f.e for s, f in zip(size, values)]) - mag
        e = np.where(np.isfinite(v), np.where(mag > _LARGEST[c.dtype.name], np.inf, e), np.inf if erring else 0.0)
        return _settled(v, e, c.dtype)

    def expr(self, node: Expr) -> Value:
        """The value over the present points: dimensions that the node does not depend on have size 1."""
        ones = (1,) * len(self.order)
        match node:
            case Const(value=value, dtype=dtype):
                return Value(_EXACT.encode(np.asarray(value, dtype.numpy), dtype).reshape(ones))
            case Index(value=value):
                at = np.asarray(value.evaluate(self._env()), np.int64)
                return Value(at.reshape(ones) if value.is_const else at)
            case Op(name="gather", args=(Load() as source, Const(value=dim), index)):
                place = self.expr(index)
                read = self._element(source, {int(dim): place.v.astype(np.int64)})
                return Value(read.v, np.where(np.asarray(place.e) > 0, np.inf, read.e) if np.any(place.e) else read.e)
            case Op():
                return _apply(node, [self.expr(a) for a in node.args])
            case Load():
                return self._element(node, {})

    def _element(self, node: Load, given: Mapping[int, Array]) -> Value:
        """What the Load reads; `given`: the index along some dimensions, from data."""
        ones = (1,) * len(self.order)
        env = self._env()
        source, part = self.known[node.buffer], self.rows.get(node.buffer)
        if not source.v.size:  # nothing is read of it: the domain is empty, too, or the branch is not taken
            return Value(_EXACT.encode(np.zeros(ones, node.dtype.numpy), node.dtype))
        index = [given.get(d, np.asarray(a.evaluate(env))) for d, a in enumerate(node.index)]
        if part is not None:  # readers of these rows only: from coordinates to positions
            index[part[0]] = np.searchsorted(part[1], index[part[0]])
        # An unselected branch may point outside.
        key = tuple(np.clip(at, 0, n - 1).reshape(at.shape or ones) for at, n in zip(index, source.v.shape))
        v, e = (x if isinstance(x, float) else x[key] if key else x.reshape(ones) for x in (source.v, source.e))
        return Value(_EXACT.encode(v, node.dtype), e)

    def _env(self) -> dict[str, Array]:
        ones = (1,) * len(self.order)
        return {n: p.reshape(ones[:d] + (-1,) + ones[d + 1 :]) for d, (n, p) in enumerate(zip(self.order, self.points))}


def _terms(c: Compute) -> int:
    return math.prod(a.extent for a in c.reduce_axes)


def _unit(dtype: DType) -> float:
    return 2.0 ** (1 - _MANTISSA[dtype.name])


def _spread(n: int) -> float:
    """Rounding errors of n additions in any order, in units: the worst case, or well above the likely."""
    return float(min(n, 8 + 4 * math.sqrt(n)))


def _settled(v: Array, e: Array, dtype: DType) -> Value:
    """Nothing is known where an error is NaN, or where finite numbers may have overflowed."""
    e = np.where(np.isnan(e) | (np.isfinite(v) & (np.abs(v) + e > _LARGEST[dtype.name])), np.inf, e)
    return Value(v, e if e.any() else 0.0)


def _apply(node: Op, args: list[Value]) -> Value:
    """One primitive: what its operands' errors do to it, found at the corners of their box, and its own rounding."""
    name, kind, v = node.name, node.args[-1].dtype, _EXACT.apply(node, [a.v for a in args])
    inexact = [i for i, a in enumerate(args) if np.any(a.e)]
    e: Array | float = 0.0
    if inexact and name == "where":
        e = np.where(args[0].v, args[1].e, args[2].e)
        e = np.where(np.asarray(args[0].e) > 0, _apart(args[1].v, args[2].v) + args[1].e + args[2].e, e)
    elif inexact and name == "sin":
        e = np.minimum(args[0].e, 2.0)
    elif inexact and name in ("eq", "ne") and kind.is_float:
        slack = np.asarray(args[0].e) + args[1].e
        e = np.where((slack > 0) & ~(np.abs(args[0].v - args[1].v) > slack), np.inf, 0.0)
    elif inexact:
        for signs in product((-1, 1), repeat=len(inexact)) if kind.is_float else ():
            moved = [a.v for a in args]
            for i, sign in zip(inexact, signs):
                moved[i] = moved[i] + sign * np.asarray(args[i].e)
            e = np.maximum(e, _apart(_EXACT.apply(node, moved), v))
        lost = np.any([np.broadcast_to(np.isinf(args[i].e), v.shape) for i in inexact], axis=0)
        if name == "mod":  # it jumps: known for exact operands only
            lost = np.any([np.broadcast_to(args[i].e, v.shape) > 0 for i in inexact], axis=0)
        if name in ("div", "recip"):
            lost = lost | (np.abs(args[-1].v) <= args[-1].e) & (np.asarray(args[-1].e) > 0)
        e = np.where(lost, np.inf, e)
    if not node.dtype.is_float:
        return Value(v, np.where(np.asarray(e) > 0, np.inf, 0.0) if np.any(e) else 0.0)
    units, unit = _LOSS.get(name, 0), _unit(node.dtype)
    if name in ("sin", "mod"):
        e = e + 4 * unit * np.abs(args[0].v)
    if units:
        step = units * unit * np.abs(v) + _SMALLEST[node.dtype.name]
        if units == 1:  # an exact result that is a number of the type stays exact
            # (Every float64 is a number of f64: of those, small integers are taken to be exact.)
            whole = (v == np.rint(v)) & (np.abs(v) < 2.0**53)
            held = (v == v.astype(node.dtype.numpy) if node.dtype.bits < 64 else whole) | ~np.isfinite(v)
            step = np.where(held & (np.asarray(e) == 0), 0.0, step)
        e = e + np.where(np.isfinite(v), step, 0.0)
    return _settled(v, np.asarray(e), node.dtype) if units or np.any(e) else Value(v)


def _apart(a: Array, b: Array) -> Array:
    """How far values lie apart: 0 for the same, NaN and infinities included; infinity for integers that differ."""
    if a.dtype.kind != "f":
        return np.where(a != b, np.inf, 0.0)
    gap = np.abs(a - b)
    return np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.where(np.isnan(gap), np.inf, gap))
