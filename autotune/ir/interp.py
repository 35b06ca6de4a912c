"""What a nest computes, exactly: evaluates any Nest with NumPy, in one of the arithmetics of domains.py.

One statement in a perfect band of loops runs as one NumPy operation over the band. Two statements never run at once:
loops around several are iterated in order, parallel loops in a shuffled one. Reading what was not written, or outside of a
buffer, raises VerifyError. This room knows no step, no schedule, and nothing of how a nest is rendered.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from .affine import Affine
from .domains import Array, Float64, Monoid, Residues
from .dtypes import DType
from .errors import VerifyError
from .expr import Const, Expr, Load, Op, loads
from .expr import Index as IndexOf
from .nest import Alloc, Guard, Leaf, Loop, Nest, Prefetch, Reduce, Stmt, show_stmts
from .program import Buffer

Env = dict[str, int]

MAX_POINTS = 1 << 21  # larger bands run one iteration of their outermost loop at a time
CONTRACT_POINTS = 1 << 15  # larger sums of products become matrix products


@dataclass(slots=True)
class Memory:
    """One buffer: flat contents, and which elements hold a value (None: all of them)."""

    buffer: Buffer
    data: Array
    defined: Array | None


class _Part:
    """An affine cut into what the loops of a band move and the rest; `mixed` if a division keeps the two together."""

    __slots__ = ("const", "divisions", "inner", "mixed", "terms", "whole")

    def __init__(self, value: Affine, band: frozenset[str]) -> None:
        self.whole, self.const = value, value.const
        moved = [t for t in value.terms if (t[0] in band if isinstance(t[0], str) else t[0].arg.names() & band)]
        rest = [t for t in value.terms if t not in moved]
        self.inner = Affine(tuple(moved))
        self.mixed = not self.inner.names() <= band
        self.terms = [(n, c) for n, c in rest if isinstance(n, str)]
        self.divisions = Affine(tuple(t for t in rest if not isinstance(t[0], str)))

    def base(self, env: Env) -> int:
        """The value without what the band moves."""
        total = self.const
        for name, c in self.terms:
            total += c * env[name]
        return total + int(self.divisions.evaluate(env)) if self.divisions.terms else total


@dataclass(eq=False, slots=True)
class _Grid:
    """The points of a band for one set of extents: broadcastable values of its loops, and what follows from them.

    A `box` has one dimension a loop; otherwise every point is listed, in one dimension.
    """

    values: dict[str, Array]
    shape: tuple[int, ...]
    box: bool
    cache: dict[Any, Any] = field(default_factory=dict)

    def of(self, part: _Part, env: Env) -> Any:
        """The value of an affine: an integer, or an array that broadcasts over the grid."""
        if not part.inner.terms:
            return part.base(env)
        if part.mixed:
            return part.whole.evaluate({**env, **self.values})
        if part not in self.cache:
            self.cache[part] = part.inner.evaluate(self.values)
        return self.cache[part] + part.base(env)


class _Access:
    """buffer[index] inside a band: flat offsets, checked against the bounds."""

    def __init__(self, index: tuple[Affine, ...], band: frozenset[str]) -> None:
        self.parts = [_Part(a, band) for a in index]
        self.mixed = any(p.mixed for p in self.parts)

    def offsets(self, buffer: Buffer, grid: _Grid, env: Env) -> Array:
        shape = buffer.shape
        if self.mixed:
            values = [np.asarray(grid.of(p, env)) for p in self.parts]
            flat, ends = self._flat(buffer, grid, values)
            bases = [0] * len(shape)
        else:
            cached = grid.cache.get(self)
            if cached is None or cached[0] != shape:
                values = [np.asarray(p.inner.evaluate(grid.values)) for p in self.parts]
                cached = grid.cache[self] = (shape, *self._flat(buffer, grid, values))
            _, flat, ends = cached
            bases = [p.base(env) for p in self.parts]
        start = 0
        for d, (base, (low, high, stride)) in enumerate(zip(bases, ends)):
            if base + low < 0 or base + high >= shape[d]:
                at = base + low if base + low < 0 else base + high
                raise VerifyError(f"index {d} of {buffer.name}{list(shape)} is {at}")
            start += base * stride
        return flat + start if start else flat  # type: ignore[no-any-return]

    def _flat(self, buffer: Buffer, grid: _Grid, values: list[Array]) -> tuple[Array, list[tuple[int, int, int]]]:
        if len(values) != len(buffer.shape):
            raise VerifyError(f"{buffer.name} has {len(buffer.shape)} dimensions, its index has {len(values)}")
        strides = buffer.contiguous_strides
        blank = np.zeros((1,) * len(grid.shape), np.int64)
        flat = sum((v * s for v, s in zip(values, strides)), blank)
        return flat, [(int(v.min()), int(v.max()), s) for v, s in zip(values, strides)]


class _Band:
    """A perfect band of loops and guards around one statement, cut from the loops that enclose it."""

    def __init__(self, blocks: tuple[Loop | Guard, ...], leaf: Leaf) -> None:
        self.leaf = leaf
        self.loops = [b for b in blocks if isinstance(b, Loop)]
        self.names = names = frozenset(b.name for b in self.loops)
        self.extents = [[_Part(e, names) for e in b.extents] for b in self.loops]
        self.conditions = [_Part(c, names) for b in blocks if isinstance(b, Guard) for c in b.conditions]
        self.target = _Access(leaf.index, names)
        reads = () if isinstance(leaf, Prefetch) else loads(leaf.value)
        self.accesses = {id(ld): _Access(ld.index, names) for ld in reads}
        self.own = [ld for ld in reads if ld.buffer == leaf.buffer]
        self.first = [_Part(a, names) for a in leaf.first or ()] if isinstance(leaf, Reduce) else []
        self.indices: dict[int, _Part] = {}
        self._parts = [p for row in self.extents for p in row] + self.conditions
        self._box = not any(p.inner.terms for p in self._parts)
        self._grids: dict[Any, _Grid | None] = {}

    def grid(self, env: Env) -> _Grid | None:
        """The points to run, None if there are none."""
        key: Any
        if self._box:
            if self.conditions and any(c.base(env) < 0 for c in self.conditions):
                return None
            key = tuple([row[0].base(env) if len(row) == 1 else min([e.base(env) for e in row]) for row in self.extents])
        else:
            outer = [env[n] for p in self._parts if p.mixed for n in sorted(p.whole.names() - self.names)]
            key = (*[p.base(env) for p in self._parts if not p.mixed], *outer)
        if key not in self._grids:
            self._grids[key] = self._rectangle(key) if self._box else self._points(env)
        return self._grids[key]

    def _rectangle(self, shape: tuple[int, ...]) -> _Grid | None:
        axes = np.ix_(*(np.arange(n) for n in shape)) if shape else ()
        return _Grid({b.name: a for b, a in zip(self.loops, axes)}, shape, True) if min(shape, default=1) > 0 else None

    def _points(self, env: Env) -> _Grid | None:
        """Loops whose extents or guards depend on one another: every point listed, in order."""
        values: dict[str, Array] = {}
        count = 1
        for b in self.loops:
            terms = [np.broadcast_to(e.evaluate({**env, **values}), count) for e in b.extents]
            extent = np.maximum(np.minimum.reduce(terms), 0)
            rows = np.repeat(np.arange(count), extent)
            values = {n: v[rows] for n, v in values.items()}
            values[b.name] = np.arange(rows.size) - np.repeat(np.cumsum(extent) - extent, extent)
            count = rows.size
        keep = np.ones(count, bool)
        for c in self.conditions:
            keep &= c.whole.evaluate({**env, **values}) >= 0
        count = int(keep.sum())
        return _Grid({n: v[keep] for n, v in values.items()}, (count,), False) if count else None


class Interpreter:
    """One nest, prepared once and run on any number of inputs. Loops in `sampled` (by identity) run only their first,
    middle and last iterations."""

    def __init__(self, nest: Nest, sampled: frozenset[int] = frozenset()) -> None:
        self.nest, self._sampled = nest, sampled
        self._bands: dict[int, _Band | None] = {}

    def run(
        self, arrays: Mapping[str, Any], domain: Float64, before: Callable[[Stmt, dict[str, Memory]], None] | None = None
    ) -> dict[str, Memory]:
        """Every buffer of the nest after running it; `before` may look at them, and fill them, before each top statement."""
        self._domain, self._memory = domain, {}
        self._constants: dict[int, Array] = {}
        self._monoids: dict[int, Monoid] = {}
        self._order = random.Random(domain.seed)
        for b in self.nest.buffers:
            if b.scope != "input":
                self._memory[b.name] = self._fresh(b)
                continue
            data = domain.encode(arrays[b.name], b.dtype)
            if data.shape != b.shape:
                raise ValueError(f"input {b.name} has shape {data.shape}, the nest asks for {b.shape}")
            self._memory[b.name] = Memory(b, data.reshape(-1), None)
        with np.errstate(all="ignore"):
            for stmt in self.nest.body:
                if before:
                    before(stmt, self._memory)
                self._run(stmt, {})
        return self._memory

    def _fresh(self, b: Buffer) -> Memory:
        return Memory(b, np.zeros(b.size, self._domain.storage(b.dtype)), np.zeros(b.size, bool))

    def _run(self, stmt: Stmt, env: Env) -> None:
        key = id(stmt)
        if key not in self._bands:
            self._bands[key] = self._band(stmt)
        band = self._bands[key]
        if band is not None and self._vectorised(band, env):
            return
        if isinstance(stmt, Loop):
            for i in self._iterations(stmt, min(e.evaluate(env) for e in stmt.extents)):
                env[stmt.name] = i
                for s in stmt.body:
                    self._run(s, env)
            env.pop(stmt.name, None)
        elif isinstance(stmt, Guard):
            if all(c.evaluate(env) >= 0 for c in stmt.conditions):
                for s in stmt.body:
                    self._run(s, env)
        elif isinstance(stmt, Alloc):
            outer = self._memory.get(stmt.buffer.name)
            self._memory[stmt.buffer.name] = self._fresh(stmt.buffer)
            for s in stmt.body:
                self._run(s, env)
            del self._memory[stmt.buffer.name]
            if outer is not None:
                self._memory[stmt.buffer.name] = outer

    def _iterations(self, loop: Loop, n: int) -> list[int]:
        order = sorted({0, n // 2, n - 1}) if id(loop) in self._sampled and n > 0 else list(range(n))
        if loop.kind == "parallel":
            self._order.shuffle(order)
            if order == sorted(order):
                order.reverse()
        return order

    def _band(self, stmt: Stmt) -> _Band | None:
        blocks: list[Loop | Guard] = []
        while isinstance(stmt, (Loop, Guard)):
            if len(stmt.body) != 1 or id(stmt) in self._sampled or getattr(stmt, "kind", "") == "parallel":
                return None
            blocks.append(stmt)
            stmt = stmt.body[0]
        return None if isinstance(stmt, Alloc) else _Band(tuple(blocks), stmt)

    def _vectorised(self, band: _Band, env: Env) -> bool:
        """Run a band at once. False, with nothing done, if the order of its iterations matters or if it is too large."""
        leaf = band.leaf
        try:
            grid = band.grid(env)
            if grid is None:
                return True
            memory = self._memory[leaf.buffer]
            offsets = band.target.offsets(memory.buffer, grid, env)
            if isinstance(leaf, Prefetch):
                return True
            size = prod(grid.shape)
            if band.own and size > 1:  # reads its own buffer: at most the very element that it writes, and each once
                if isinstance(leaf, Reduce) or any(ld.index != leaf.index for ld in band.own):
                    return False
                if offsets.size < size or not self._injective(band, grid, memory, offsets):
                    return False
            if isinstance(leaf, Reduce):
                return self._reduce(band, leaf, grid, env, memory, offsets, size)
            if size > MAX_POINTS:
                return False
            self._write(memory, offsets, self._value(leaf.value, band, grid, env))
            return True
        except KeyError as missing:
            raise VerifyError(f"{_describe(leaf, env)}: {missing} is no loop or buffer here") from None
        except VerifyError as error:
            raise VerifyError(f"{_describe(leaf, env)}: {error}") from None

    def _injective(self, band: _Band, grid: _Grid, memory: Memory, offsets: Array) -> bool:
        """No two points of the loops that the target names share an element."""
        key = (band.target, memory.buffer.shape)
        if band.target.mixed or key not in grid.cache:
            grid.cache[key] = np.unique(offsets).size == offsets.size
        return bool(grid.cache[key])

    # ---- values ----

    def _value(self, expr: Expr, band: _Band, grid: _Grid, env: Env) -> Array:
        if isinstance(expr, Op):
            return self._domain.apply(expr, [self._value(a, band, grid, env) for a in expr.args])
        if isinstance(expr, Load):
            memory = self._memory[expr.buffer]
            return self._read(memory, band.accesses[id(expr)].offsets(memory.buffer, grid, env))
        if isinstance(expr, Const):
            if id(expr) not in self._constants:
                self._constants[id(expr)] = self._domain.constant(expr.value, expr.dtype)
            return self._constants[id(expr)]
        if id(expr) not in band.indices:
            band.indices[id(expr)] = _Part(expr.value, band.names)
        return np.asarray(grid.of(band.indices[id(expr)], env), np.int64)

    def _read(self, memory: Memory, offsets: Array, spare: Array | None = None) -> Array:
        """The elements at `offsets`; those in the mask `spare` may be undefined."""
        if memory.defined is not None:
            defined = memory.defined.take(offsets)
            if spare is not None:
                defined = defined | spare
            if not defined.all():
                flat = np.broadcast_to(offsets, defined.shape)[~defined][0]
                where = [int(i) for i in np.unravel_index(flat, memory.buffer.shape or (1,))]
                raise VerifyError(f"{memory.buffer.name}{where} is read before it is written")
        return memory.data.take(offsets)  # type: ignore[no-any-return]

    def _write(self, memory: Memory, offsets: Array, value: Array) -> None:
        if memory.defined is None:
            raise VerifyError(f"the input {memory.buffer.name} is written")
        if value.dtype != memory.data.dtype:
            raise VerifyError(f"a value of {value.dtype} is stored into {memory.buffer.name}: {memory.buffer.dtype}")
        if value.ndim and value.shape != offsets.shape:
            shape = np.broadcast_shapes(value.shape, offsets.shape)
            value, offsets = np.broadcast_to(value, shape), np.broadcast_to(offsets, shape)
        at = offsets.reshape(-1)  # flat, so that of equal offsets the last one wins
        memory.data[at] = value.reshape(-1)
        memory.defined[at] = True

    # ---- reductions ----

    def _reduce(
        self, band: _Band, leaf: Reduce, grid: _Grid, env: Env, memory: Memory, offsets: Array, size: int
    ) -> bool:
        starts = np.asarray(leaf.first is not None)
        for part in band.first:
            starts = starts & (np.asarray(grid.of(part, env)) == 0)
        if not grid.box or not self._injective(band, grid, memory, offsets):
            return size <= MAX_POINTS and self._scattered(band, leaf, grid, env, memory, offsets, starts)
        axes = tuple([d for d, n in enumerate(offsets.shape) if n < grid.shape[d]])
        if axes and starts.any():
            # Only the first contribution to an element may initialise it; otherwise the order of iterations decides.
            starts = _stretch(starts, axes, grid.shape)
            head = starts[tuple(slice(0, 1) if d in axes else slice(None) for d in range(starts.ndim))]
            if head.sum() != starts.sum():
                return False
            starts = head
        value = leaf.value
        if axes and size > CONTRACT_POINTS and leaf.combiner == "sum" and isinstance(value, Op):
            if value.name == "mul" and value.dtype.is_float:
                factors = [self._value(a, band, grid, env) for a in value.args]
                self._combine(leaf, memory, offsets, self._contract(factors, axes, grid.shape), starts)
                return True
        if size > MAX_POINTS:
            return False
        total = self._value(value, band, grid, env)
        if axes:
            ufunc, encode, decode = self._monoid(leaf)
            total = encode(_stretch(total, axes, grid.shape))
            total = decode(ufunc.reduce(total, axis=axes, keepdims=True, dtype=total.dtype))
        self._combine(leaf, memory, offsets, total, starts)
        return True

    def _monoid(self, leaf: Reduce) -> Monoid:
        if id(leaf) not in self._monoids:
            self._monoids[id(leaf)] = self._domain.monoid(leaf.combiner, leaf.value.dtype)
        return self._monoids[id(leaf)]

    def _combine(self, leaf: Reduce, memory: Memory, offsets: Array, value: Array, starts: Array) -> None:
        """One contribution an element: stored where its reduction starts, else combined with what is there."""
        if not starts.all():
            ufunc, encode, decode = self._monoid(leaf)
            mixed = bool(starts.any())
            total = decode(np.asarray(ufunc(encode(self._read(memory, offsets, starts if mixed else None)), encode(value))))
            value = np.where(starts, value, total) if mixed else total
        self._write(memory, offsets, value)

    def _contract(self, factors: list[Array], axes: tuple[int, ...], shape: tuple[int, ...]) -> Array:
        x, y = (f.reshape(f.shape or (1,) * len(shape)) for f in factors)
        x = _stretch(x, tuple(d for d in axes if y.shape[d] == 1), shape)
        letters = "abcdefghijklmnopqrstuvwxyz"[: len(shape)]
        ours, theirs = ("".join(c for c, n in zip(letters, f.shape) if n > 1) for f in (x, y))
        kept = "".join(c for d, c in enumerate(letters) if d not in axes and c in ours + theirs)
        total = self._domain.contract(x.squeeze(), y.squeeze(), f"{ours},{theirs}->{kept}")
        return total.reshape([n if c in kept else 1 for c, n in zip(letters, shape)])

    def _scattered(
        self, band: _Band, leaf: Reduce, grid: _Grid, env: Env, memory: Memory, offsets: Array, starts: Array
    ) -> bool:
        """A reduction whose points share elements in no regular way: sorted by element, then combined run by run."""
        every = lambda x: np.broadcast_to(x, grid.shape).reshape(-1)  # noqa: E731
        order = np.argsort(every(offsets), kind="stable")
        flat, starts = every(offsets)[order], every(starts)[order]
        heads = np.flatnonzero(np.diff(flat, prepend=-1))
        if starts.sum() != starts[heads].sum():
            return False
        ufunc, encode, decode = self._monoid(leaf)
        value = encode(every(self._value(leaf.value, band, grid, env))[order])
        value = decode(ufunc.reduceat(value, heads, dtype=value.dtype))
        self._combine(leaf, memory, flat[heads], value, starts[heads])
        return True


def _stretch(x: Array, axes: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """Broadcast to the full extent of `axes` only."""
    own = x.shape or (1,) * len(shape)
    return np.broadcast_to(x, [n if d in axes else own[d] for d, n in enumerate(shape)])


def _describe(leaf: Leaf, env: Mapping[str, int]) -> str:
    at = f" at {', '.join(f'{n}={v}' for n, v in env.items())}" if env else ""
    return next(iter(show_stmts((leaf,)))) + at


def interpret(nest: Nest, arrays: Mapping[str, Any], domain: Float64 | None = None) -> dict[str, Array]:
    """The outputs of a nest for the given inputs, in the domain's representation (by default float64 for floats).

    Raises VerifyError where the nest reads undefined memory, leaves a buffer's bounds, or misses an element of an output.
    """
    memory = Interpreter(nest).run(arrays, domain or Float64())
    return {b.name: complete(memory[b.name]) for b in nest.buffers if b.scope == "output"}


def complete(memory: Memory) -> Array:
    """The contents in their shape; raises VerifyError if an element was never written."""
    b = memory.buffer
    if memory.defined is not None and not memory.defined.all():
        where = [int(i) for i in np.unravel_index(int(np.argmin(memory.defined)), b.shape or (1,))]
        raise VerifyError(f"{b.name}{where} is never written")
    return memory.data.reshape(b.shape)
