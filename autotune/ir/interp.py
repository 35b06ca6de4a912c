"""What a nest computes, exactly: evaluates any Nest with NumPy, in one of the arithmetics of domains.py.

One statement in a perfect band of loops runs as one NumPy operation over the band. Two statements never run at once:
loops around several are iterated in order, parallel loops in a shuffled one. Reading what was not written, or outside
of a buffer, raises VerifyError. This room knows no step, no schedule, and nothing of how a nest is rendered.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, TypeGuard

import numpy as np

from .affine import Affine
from .domains import Array, Float64, Monoid
from .errors import VerifyError
from .expr import Const, Expr, Load, Op, gathers, loads, walk
from .expr import Index as IndexOf
from .nest import Alloc, Guard, Leaf, Loop, Nest, Prefetch, Reduce, Stmt, show_stmts
from .points import distinct
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

    def array(self) -> Array:
        """The contents in their shape; raises VerifyError if an element was never written."""
        if self.defined is not None and not self.defined.all():
            raise VerifyError(f"{self.element(int(np.argmin(self.defined)))} is never written")
        return self.data.reshape(self.buffer.shape)

    def element(self, flat: int) -> str:
        where = np.unravel_index(flat, self.buffer.shape) if self.buffer.shape else ()
        return f"{self.buffer.name}{[int(i) for i in where]}"


class _Part:
    """An affine cut into what the loops of a band move and the rest; `mixed` if a division keeps the two together."""

    __slots__ = ("base", "inner", "mixed", "whole")

    def __init__(self, value: Affine, band: frozenset[str]) -> None:
        moved = tuple(t for t in value.terms if (t[0] in band if isinstance(t[0], str) else t[0].arg.names() & band))
        self.whole, self.inner = value, Affine(moved)
        self.base = Affine(tuple(t for t in value.terms if t not in moved), value.const)
        self.mixed = not self.inner.names() <= band


class _Grid:
    """The points of a band for one set of extents: one dimension a loop, its values, and what follows from them."""

    def __init__(self, names: list[str], shape: tuple[int, ...]) -> None:
        self.shape, self.size = shape, prod(shape)
        self.values: dict[str, Array] = dict(zip(names, np.ix_(*map(np.arange, shape)) if shape else ()))
        self.blank = np.zeros((1,) * len(shape), np.int64)
        self.cache: dict[Any, Any] = {}

    def of(self, part: _Part, env: Env) -> Any:
        """The value of an affine: an integer, or an array that broadcasts over the grid."""
        if not part.inner.terms:
            return part.base.evaluate(env)
        if part.mixed:
            return part.whole.evaluate({**env, **self.values})
        if part not in self.cache:
            self.cache[part] = part.inner.evaluate(self.values)
        return self.cache[part] + part.base.evaluate(env)


class _Access:
    """buffer[index] inside a band: flat offsets, checked against the bounds."""

    __slots__ = ("mixed", "parts", "static")

    def __init__(self, index: tuple[Affine, ...], band: frozenset[str]) -> None:
        self.parts = [_Part(a, band) for a in index]
        self.mixed = any(p.mixed for p in self.parts)
        self.static = not any(p.base.terms or p.mixed for p in self.parts)

    def offsets(self, buffer: Buffer, grid: _Grid, env: Env) -> Array:
        shape, found = buffer.shape, grid.cache.get(self)
        if found is None or found[0] != shape or self.mixed:
            if len(shape) != len(self.parts):
                raise VerifyError(f"{buffer.name} has {len(shape)} dimensions, its index has {len(self.parts)}")
            whole = {**env, **grid.values} if self.mixed else grid.values
            values = [np.asarray((p.whole if self.mixed else p.inner).evaluate(whole)) for p in self.parts]
            strides = buffer.contiguous_strides
            flat = sum((v * s for v, s in zip(values, strides)), grid.blank)
            found = shape, flat, [(int(v.min()), int(v.max()), n, s) for v, n, s in zip(values, shape, strides)]
        elif self.static:
            return found[1]  # type: ignore[no-any-return]
        start = 0
        for part, (low, high, n, stride) in zip(self.parts, found[2]):
            base = 0 if self.mixed else part.base.evaluate(env)
            if base + low < 0 or base + high >= n:
                at = base + low if base + low < 0 else base + high
                raise VerifyError(f"{buffer.name}{list(shape)} has no index {at} = {part.whole}")
            start += base * stride
        offsets: Array = found[1] + start if start else found[1]
        grid.cache[self] = (shape, offsets if self.static else found[1], found[2])
        return offsets


class _Band:
    """A perfect band of loops and guards around one statement, cut from the loops that enclose it."""

    def __init__(self, blocks: list[Loop | Guard], leaf: Leaf) -> None:
        self.leaf, self.names = leaf, [b.name for b in blocks if isinstance(b, Loop)]
        inside = frozenset(self.names)
        self.conditions = [c for b in blocks if isinstance(b, Guard) for c in b.conditions]
        self.extents = [b.extents for b in blocks if isinstance(b, Loop)]
        self.target = _Access(leaf.index, inside)
        nodes = [] if isinstance(leaf, Prefetch) else list(walk(leaf.value))
        self.accesses = {id(n): _Access(n.index, inside) for n in nodes if isinstance(n, Load)}
        self.indices = {id(n): _Part(n.value, inside) for n in nodes if isinstance(n, IndexOf)}
        self.first = [_Part(a, inside) for a in leaf.first or ()] if isinstance(leaf, Reduce) else []
        # A statement that reads its own buffer runs at once only if each point reads just the element that it writes.
        own = () if isinstance(leaf, Prefetch) else [n for n in loads(leaf.value) if n.buffer == leaf.buffer]
        self.reads_own = bool(own)
        self.pointwise = not isinstance(leaf, Reduce) and all(n.index == leaf.index for n in own)
        self.grids: dict[tuple[int, ...], _Grid] = {}

    @property
    def regular(self) -> bool:
        """No extent or guard depends on a loop of the band."""
        names = [a.names() for row in self.extents for a in row] + [c.names() for c in self.conditions]
        return frozenset().union(*names).isdisjoint(self.names)

    def grid(self, env: Env) -> _Grid | None:
        """The points to run, None if there are none."""
        if self.conditions and any(c.evaluate(env) < 0 for c in self.conditions):
            return None
        shape = tuple([min([e.evaluate(env) for e in row]) for row in self.extents])
        if shape not in self.grids:
            if min(shape, default=1) <= 0:
                return None
            self.grids[shape] = _Grid(self.names, shape)
        return self.grids[shape]


class Interpreter:
    """One nest, prepared once and run on any number of inputs. Loops in `sampled` (by identity) run only their first,
    middle and last iterations."""

    def __init__(self, nest: Nest, sampled: frozenset[int] = frozenset()) -> None:
        self.nest, self._sampled = nest, sampled
        self._bands: dict[int, _Band | None] = {}

    def run(
        self, arrays: Mapping[str, Any], domain: Float64, after: Callable[[dict[str, Memory]], None] | None = None
    ) -> dict[str, Memory]:
        """Every buffer of the nest after running it; `after` sees them, and may fill them, after each top statement."""
        self._domain, self._order = domain, random.Random(domain.seed)
        self._constants: dict[int, Array] = {}
        self._monoids: dict[int, Monoid] = {}
        self._memory = {b.name: self._fresh(b) for b in self.nest.buffers if b.scope != "input"}
        for b in self.nest.buffers:
            if b.scope == "input":
                data = domain.encode(arrays[b.name], b.dtype)
                if data.shape != b.shape:
                    raise ValueError(f"input {b.name} has shape {data.shape}, the nest asks for {b.shape}")
                self._memory[b.name] = Memory(b, data.reshape(-1), None)
        with np.errstate(all="ignore"):
            for stmt in self.nest.body:
                try:
                    self._run(stmt, {})
                except KeyError as missing:
                    raise VerifyError(f"{missing} is no loop or buffer where it is used") from None
                if after:
                    after(self._memory)
        return self._memory

    def _fresh(self, b: Buffer) -> Memory:
        return Memory(b, np.zeros(b.size, self._domain.storage(b.dtype)), np.zeros(b.size, bool))

    def _run(self, stmt: Stmt, env: Env) -> None:
        key = id(stmt)
        if key not in self._bands:
            self._bands[key] = self._band(stmt)
        band = self._bands[key]
        if band is not None and self._at_once(band, env):
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
            if len(stmt.body) != 1 or id(stmt) in self._sampled or isinstance(stmt, Loop) and stmt.kind == "parallel":
                return None
            blocks.append(stmt)
            stmt = stmt.body[0]
        if isinstance(stmt, Alloc):
            return None
        band = _Band(blocks, stmt)
        return band if band.regular else None

    def _at_once(self, band: _Band, env: Env) -> bool:
        """Run a band. False, with nothing done, if the order of its iterations matters or if it is too large."""
        leaf = band.leaf
        try:
            grid = band.grid(env)
            if grid is None:
                return True
            memory = self._memory[leaf.buffer]
            at = band.target.offsets(memory.buffer, grid, env)
            if isinstance(leaf, Prefetch):
                return True
            if band.reads_own and not (band.pointwise and at.size == grid.size) and grid.size > 1:
                return False
            if band.reads_own and not self._injective(band, grid, memory, at):
                return False
            if isinstance(leaf, Reduce):
                return self._reduce(band, leaf, grid, env, memory, at)
            if grid.size > MAX_POINTS:
                return False
            self._write(memory, at, self._value(leaf.value, band, grid, env))
            return True
        except VerifyError as error:
            raise VerifyError(f"{_describe(leaf, env)}: {error}") from None

    def _injective(self, band: _Band, grid: _Grid, memory: Memory, at: Array) -> bool:
        """No two points of the loops that the target names share an element."""
        key = (band.target, memory.buffer.shape)
        if band.target.mixed or key not in grid.cache:
            grid.cache[key] = distinct(np.asarray(at)).size == np.size(at)
        return bool(grid.cache[key])

    def _value(self, expr: Expr, band: _Band, grid: _Grid, env: Env) -> Array:
        if isinstance(expr, Op) and expr.name == "gather":
            return self._gather(expr, band, grid, env)
        if isinstance(expr, Op):
            return self._domain.apply(expr, [self._value(a, band, grid, env) for a in expr.args])
        if isinstance(expr, Load):
            memory = self._memory[expr.buffer]
            return self._read(memory, band.accesses[id(expr)].offsets(memory.buffer, grid, env))
        if isinstance(expr, Const):
            if id(expr) not in self._constants:
                self._constants[id(expr)] = self._domain.constant(expr.value, expr.dtype)
            return self._constants[id(expr)]
        return np.asarray(grid.of(band.indices[id(expr)], env), np.int64)

    def _gather(self, expr: Op, band: _Band, grid: _Grid, env: Env) -> Array:
        source, dim, index = list(gathers(expr))[-1]  # the outermost
        memory = self._memory[source.buffer]
        at = np.clip(self._value(index, band, grid, env).astype(np.int64), 0, memory.buffer.shape[dim] - 1)
        start = band.accesses[id(source)].offsets(memory.buffer, grid, env)
        return self._read(memory, start + at * memory.buffer.contiguous_strides[dim])

    def _read(self, memory: Memory, at: Array, spare: Any = False) -> Array:
        """The elements at offsets; those under the mask `spare` may be undefined."""
        if memory.defined is not None:
            good = memory.defined.take(at) if spare is False else memory.defined.take(at) | spare
            if not good.all():
                flat = np.broadcast_to(at, good.shape)[~good][0]
                raise VerifyError(f"{memory.element(flat)} is read before it is written")
        return memory.data.take(at)

    def _write(self, memory: Memory, at: Array, value: Array) -> None:
        if memory.defined is None:
            raise VerifyError(f"the input {memory.buffer.name} is written")
        if value.dtype != memory.data.dtype:
            raise VerifyError(f"a value of {value.dtype} is stored into {memory.buffer.name}: {memory.buffer.dtype}")
        if value.ndim and value.shape != at.shape:
            value, at = np.broadcast_arrays(value, at)
        at = at.reshape(-1)  # flat, so that of equal offsets the last one wins
        memory.data[at] = value.reshape(-1)
        memory.defined[at] = True

    def _reduce(self, band: _Band, leaf: Reduce, grid: _Grid, env: Env, memory: Memory, at: Array) -> bool:
        if not self._injective(band, grid, memory, at):
            return False
        axes = tuple([d for d, n in enumerate(at.shape) if n < grid.shape[d]])
        starts = np.asarray(leaf.first is not None)
        for part in band.first:
            starts = starts & (np.asarray(grid.of(part, env)) == 0)
        if axes and starts.any():
            # Only the first contribution to an element may initialise it; otherwise the order of iterations decides.
            starts = _stretch(starts, axes, grid.shape)
            head = starts[tuple(slice(0, 1) if d in axes else slice(None) for d in range(starts.ndim))]
            if head.sum() != starts.sum():
                return False
            starts = head
        if id(leaf) not in self._monoids:
            self._monoids[id(leaf)] = self._domain.monoid(leaf.combiner, leaf.value.dtype)
        ufunc, encode, decode = self._monoids[id(leaf)]
        if axes and grid.size > CONTRACT_POINTS and leaf.combiner == "sum" and _is_product(leaf.value):
            value = self._contract([self._value(a, band, grid, env) for a in leaf.value.args], axes, grid.shape)
        elif grid.size > MAX_POINTS:
            return False
        else:
            value = self._value(leaf.value, band, grid, env)
            if axes:
                value = encode(_stretch(value, axes, grid.shape))
                value = decode(ufunc.reduce(value, axis=axes, keepdims=True, dtype=value.dtype))
        if not starts.any():
            value = decode(np.asarray(ufunc(encode(self._read(memory, at)), encode(value))))
        elif not starts.all():
            old = self._read(memory, at, starts)
            value = np.where(starts, value, decode(np.asarray(ufunc(encode(old), encode(value)))))
        self._write(memory, at, value)
        return True

    def _contract(self, factors: list[Array], axes: tuple[int, ...], shape: tuple[int, ...]) -> Array:
        x, y = (f.reshape(f.shape or (1,) * len(shape)) for f in factors)
        x = _stretch(x, tuple(d for d in axes if y.shape[d] == 1), shape)
        letters = "abcdefghijklmnopqrstuvwxyz"[: len(shape)]
        ours, theirs = ("".join(c for c, n in zip(letters, f.shape) if n > 1) for f in (x, y))
        kept = "".join(c for d, c in enumerate(letters) if d not in axes and c in ours + theirs)
        total = self._domain.contract(x.squeeze(), y.squeeze(), f"{ours},{theirs}->{kept}")
        return total.reshape([n if c in kept else 1 for c, n in zip(letters, shape)])


def _is_product(value: Expr) -> TypeGuard[Op]:
    return isinstance(value, Op) and value.name == "mul" and value.dtype.is_float


def _stretch(x: Array, axes: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """Broadcast to the full extent of `axes` only."""
    own = x.shape or (1,) * len(shape)
    return np.broadcast_to(x, [n if d in axes else own[d] for d, n in enumerate(shape)])


def _describe(leaf: Leaf, env: Mapping[str, int]) -> str:
    at = f" at {', '.join(f'{n}={v}' for n, v in env.items())}" if env else ""
    return next(iter(show_stmts((leaf,)))) + at


def interpret(nest: Nest, arrays: Mapping[str, Any], domain: Float64 | None = None) -> dict[str, Array]:
    """The outputs of a nest for the given inputs, in the domain's representation (by default float64 for floats).

    Raises VerifyError where the nest reads undefined memory, leaves a buffer, or misses an element of an output.
    """
    memory = Interpreter(nest).run(arrays, domain or Float64())
    return {b.name: memory[b.name].array() for b in nest.buffers if b.scope == "output"}
