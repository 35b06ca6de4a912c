"""Exact counting of the integer points of loops and guards, mostly without visiting them. Knows no buffers, no stages.

Loops that share no extent, guard or coordinate are independent, so counts multiply; loops whose coefficients chain (1,
then 16 below an extent of 16, ...) make one interval. What remains is enumerated with NumPy, up to a cap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, reduce
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from .affine import Affine, const, var
from .errors import VerifyError
from .nest import Guard, Loop, Stmt

Array = npt.NDArray[np.int64]
CAP = 1_000_000


class TooManyPoints(VerifyError):
    """An exact answer would need more than CAP points."""


@dataclass(frozen=True)
class Space:
    """Loops (name, extents), outermost first, and guards: affines >= 0."""

    loops: tuple[tuple[str, tuple[Affine, ...]], ...]
    guards: tuple[Affine, ...] = ()

    @cached_property
    def _hash(self) -> int:
        return hash((self.loops, self.guards))

    def __hash__(self) -> int:
        return self._hash

    def at_zero(self, coordinates: Iterable[Affine]) -> Space:
        """The points at which all coordinates, none of them ever negative, are zero."""
        pinned: set[str] = set()
        guards = self.guards
        for a in coordinates:
            if a.is_linear and a.const == 0 and all(c > 0 for _, c in a.terms):
                pinned |= a.names()
            else:
                guards += (-a,)
        loops = tuple((n, (*e, const(1)) if n in pinned else e) for n, e in self.loops)
        return Space(loops, guards).normal()

    def normal(self) -> Space:
        """The same points, with guards that bound their innermost loop from above turned into extents of it."""
        if not self.guards:
            return self
        order = [n for n, _ in self.loops]
        extents, kept = dict(self.loops), []
        for g in self.guards:
            x = max(g.names(), key=order.index, default="")
            c = g.coefficient(x)
            if c < 0 and x not in (rest := g - var(x) * c).names():
                extents[x] = (*extents[x], rest // -c + 1)
            else:
                kept.append(g)
        return Space(tuple(extents.items()), tuple(kept))


def space(path: Sequence[Stmt]) -> Space:
    loops = tuple((b.name, b.extents) for b in path if isinstance(b, Loop))
    return Space(loops, tuple(c for b in path if isinstance(b, Guard) for c in b.conditions)).normal()


def joined(sets: Iterable[frozenset[Any]]) -> list[frozenset[Any]]:
    """The finest partition in which every given set lies inside one part."""
    parts: list[frozenset[Any]] = []
    for s in sets:
        apart = [p for p in parts if p.isdisjoint(s)]
        if len(apart) < len(parts):
            s = s.union(*(p for p in parts if not p.isdisjoint(s)))
        parts = [*apart, s]
    return parts


@lru_cache(maxsize=4096)
def clusters(where: Space, coordinates: tuple[Affine, ...] = ()) -> tuple[Space, ...]:
    """Independent factors: loops that no extent, guard or coordinate connects are apart."""
    links = [frozenset({name}).union(*(e.names() for e in extents)) for name, extents in where.loops]
    parts = joined([*links, *(g.names() for g in where.guards), *(a.names() for a in coordinates)])
    found = [
        Space(tuple(lp for lp in where.loops if lp[0] in part), tuple(g for g in where.guards if g.names() <= part))
        for part in parts
        if part
    ]
    return (*found, *(Space((), (g,)) for g in where.guards if g.is_const))


def merged(where: Space, parts: Iterable[Space]) -> Space:
    """Some clusters of a space as one, its loops in their order."""
    names = frozenset(n for p in parts for n, _ in p.loops)
    guards = tuple(g for g in where.guards if g.names() <= names)
    return Space(tuple(lp for lp in where.loops if lp[0] in names), guards)


def table(where: Space) -> tuple[dict[str, Array], int]:
    """Every point: one column a loop, and the number of rows."""
    env: dict[str, Array] = {}
    rows = int(all(g.const >= 0 for g in where.guards if g.is_const))
    for name, extents in where.loops:
        sizes = lengths(extents, env, rows)
        rows = int(sizes.sum())
        if rows > CAP:
            raise TooManyPoints
        env = {n: np.repeat(v, sizes) for n, v in env.items()}
        env[name] = np.arange(rows) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        for g in where.guards:
            if name in g.names() and g.names() <= env.keys():
                kept = g.evaluate(env) >= 0
                env, rows = {n: v[kept] for n, v in env.items()}, int(kept.sum())
    return env, rows


def lengths(extents: tuple[Affine, ...], env: dict[str, Array], rows: int) -> Array:
    least: Any = reduce(np.minimum, [e.evaluate(env) for e in extents])
    return np.broadcast_to(np.maximum(least, 0), rows)


def count(where: Space) -> int:
    """The number of points."""
    return prod(map(_count, clusters(where)))


@lru_cache(maxsize=4096)
def _count(where: Space) -> int:
    used = frozenset().union(*(g.names() for g in where.guards), *(e.names() for _, es in where.loops for e in es))
    env, rows = table(replace(where, loops=tuple(lp for lp in where.loops if lp[0] in used)))
    free = (lengths(extents, env, rows) for name, extents in where.loops if name not in used)
    return int(reduce(np.multiply, free, np.ones(rows, np.int64)).sum())


# ---- multiplicities -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def profile(a: Affine, where: Space) -> tuple[Array, Array]:
    """How often `a` takes each value: breaks b and counts c, with c[i] for each value in b[i] .. b[i+1] - 1."""
    loops = dict(where.loops)
    used = frozenset().union(*(g.names() for g in where.guards), *(e.names() for es in loops.values() for e in es))
    used = used.union(*(t.arg.names() for t, _ in a.terms if not isinstance(t, str)))
    free = [n for n in loops if n not in used]
    sizes = {n: max(0, min(e.const for e in loops[n])) for n in free if all(e.is_const for e in loops[n])}
    length, weight = 1, 1
    while name := next((n for n, size in sizes.items() if a.coefficient(n) in (0, length) or size <= 1), ""):
        size, c = sizes.pop(name), a.coefficient(name)
        length, weight = (length * size, weight) if c == length else (length, weight * size)
        a = a - var(name) * c
        del loops[name]
    ragged = [n for n in free if n in loops and n not in sizes]
    tail = next((n for n in ragged if a.coefficient(n) == length), "")
    idle = [n for n in ragged if a.coefficient(n) == 0]
    env, rows = table(Space(tuple((n, es) for n, es in loops.items() if n != tail and n not in idle), where.guards))
    starts = np.broadcast_to(np.asarray((a - var(tail) * length if tail else a).evaluate(env), np.int64), rows)
    stops = starts + (lengths(loops[tail], env, rows) * length if tail else length)
    weights = reduce(np.multiply, (lengths(loops[n], env, rows) for n in idle), np.full(rows, weight))
    breaks = distinct(np.concatenate((starts, stops)))
    steps = np.zeros(len(breaks), np.int64)
    np.add.at(steps, np.searchsorted(breaks, starts), weights)
    np.subtract.at(steps, np.searchsorted(breaks, stops), weights)
    kept = steps != 0
    return breaks[kept], np.cumsum(steps[kept])[:-1]


@dataclass(frozen=True)
class Grid:
    """How often several bodies visit each point of a box. `axes`: which dimensions of the box an axis of `total` joins,
    the cells' first (flattened) coordinates and their sizes; cells that no body tells apart are one."""

    shape: tuple[int, ...]
    axes: tuple[tuple[tuple[int, ...], Array, Array], ...]
    total: Array
    rows: tuple[Array, ...]  # one array like `total` a body

    def point(self, cell: Sequence[int]) -> tuple[int, ...]:
        """The first point of a cell."""
        found = dict.fromkeys(range(len(self.shape)), 0)
        for (dims, starts, _), at in zip(self.axes, cell):
            value = int(starts[at])
            for d in reversed(dims[1:]):
                value, found[d] = divmod(value, self.shape[d])
            found[dims[0]] = value
        return tuple(found.values())

    @property
    def distinct(self) -> int:
        """The number of different points that are visited at all."""
        sizes = reduce(np.multiply.outer, (s for _, _, s in self.axes), np.ones((), np.int64))
        return int(sizes[self.total > 0].sum())


def grid(bodies: Sequence[tuple[tuple[Affine, ...], Space]], shape: tuple[int, ...], outer: int = 0) -> Grid:
    """Visits of the box `shape` by bodies (coordinates, space); coordinates in joined dimensions must lie inside it.
    The last `outer` dimensions come first where some are joined: what follows each other along the others is a run."""
    parts = [clusters(where, coordinates) for coordinates, where in bodies]
    names = [[frozenset(n for n, _ in part.loops) for part in own] for own in parts]
    links = [
        frozenset(d for d, a in enumerate(coordinates) if not part.isdisjoint(a.names()))
        for (coordinates, _), own in zip(bodies, names)
        for part in own
    ]
    rank = [*range(len(shape) - outer, len(shape)), *range(len(shape) - outer)]
    parted = joined([*(frozenset({d}) for d in range(len(shape))), *links])
    joint = sorted((tuple(sorted(s, key=rank.index)) for s in parted if s), key=min)
    weights = [
        prod(count(p) for p, held in zip(own, inside) if not any(held & a.names() for a in coordinates))
        for (coordinates, _), own, inside in zip(bodies, parts, names)
    ]
    axes, factors = [], []
    for dims in joint:
        profiles = []
        for (coordinates, where), own, inside in zip(bodies, parts, names):
            flat = coordinates[dims[0]]
            for d in dims[1:]:
                flat = flat * shape[d] + coordinates[d]
            mine = [p for p, held in zip(own, inside) if any(held & coordinates[d].names() for d in dims)]
            profiles.append(profile(flat, merged(where, mine)))
        ends = np.array([0, prod(shape[d] for d in dims)])
        breaks = distinct(np.concatenate((ends, *(b for b, _ in profiles))))
        starts, sizes = breaks[:-1], np.diff(breaks)
        matrix = np.array([_sample(b, c, starts) for b, c in profiles], np.int64).reshape(len(bodies), len(starts))
        if len(starts) > 8:
            order = np.lexsort(matrix)
            fresh = np.concatenate(([True], (np.diff(matrix[:, order]) != 0).any(axis=0)))
            back = np.empty(len(order), np.int64)
            back[order] = np.cumsum(fresh) - 1
            matrix, starts = matrix[:, order[fresh]], starts[order[fresh]]
            sizes = np.bincount(back, sizes).astype(np.int64)
        axes.append((dims, starts, sizes))
        factors.append(matrix)
    if prod(len(s) for _, s, _ in axes) * (len(bodies) + 1) > CAP:
        raise TooManyPoints
    rows = tuple(reduce(np.multiply.outer, (f[n] for f in factors), np.array(w)) for n, w in enumerate(weights))
    return Grid(shape, tuple(axes), sum(rows, np.zeros([len(s) for _, s, _ in axes], np.int64)), rows)


def distinct(a: Array) -> Array:
    """The different values in order. (np.unique imports numpy.ma, which costs as much as verifying a nest.)"""
    row = np.sort(a, axis=None)
    return row[np.concatenate(([True], row[1:] != row[:-1]))] if row.size else row


def _sample(breaks: Array, counts: Array, at: Array) -> Array:
    slots = np.searchsorted(breaks, at, "right")
    padded = np.concatenate(([0], counts, [0]))
    return padded[slots] if len(breaks) else np.zeros(len(at), np.int64)
