"""Bank conflicts and coalescing: what the threads of a warp ask of memory at once, counted exactly, access by access.

Knows blocks, threads, warps and how wide an access is; no device beyond the four numbers of `Shape`, no time. An access
is taken as the renderer writes it: a loop over neighbouring elements is one access of 8 or 16 bytes. Threads of a warp
are neighbours in the number x + bx (y + by z).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import gcd, prod
from typing import Any

import numpy as np

from .affine import Affine, affine, const, var
from .dtypes import F32
from .expr import Expr, Index, Load, loads
from .expr import distinct as nodes
from .instructions import use
from .nest import Alloc, Block, Guard, Loop, Nest, Reduce, Store, walk
from .points import CAP, Array, Space, TooManyPoints, clusters, count, distinct, lengths, merged
from .program import Buffer
from .spmd import Launch, bound, grids, launch

THREAD = "@thread"  # the number of a thread in its block, as if it were a loop
VECTOR_BYTES = 16
SCOPES = {"shared": "shared", "input": "global", "output": "global", "temp": "global"}


@dataclass(frozen=True, slots=True)
class Shape:
    """Of the memory: threads that run in step, banks of shared memory and the bytes of each, bytes of a sector (the
    least that is fetched of global memory)."""

    warp: int = 32
    banks: int = 32
    bank_bytes: int = 4
    sector_bytes: int = 32


@dataclass(frozen=True, slots=True)
class Row:
    """One load or store of a statement, of `bytes` a thread. `executed`: accesses of whole warps, in all blocks
    together. `least`: of shared memory, the passes that their width takes anyway; of global memory, the sectors that
    hold the bytes; `taken`: what they take really. `known`: all strides are numbers; `exact`: nothing was sampled.
    """

    buffer: str
    statement: str
    write: bool
    scope: str
    bytes: int
    executed: int
    least: int
    taken: int
    known: bool = True
    exact: bool = True

    @property
    def ratio(self) -> float:
        """Of shared memory the degree of its bank conflicts, of global memory sectors over the least; 1.0 is best."""
        return self.taken / self.least if self.least else 1.0

    def __str__(self) -> str:
        verb = "store to" if self.write else "load of"
        found = f"{self.ratio:.3g} x the least"
        if self.scope == "shared":
            found = f"{self.ratio:.3g}-way bank conflict" if self.taken > self.least else "no bank conflict"
        return f"{self.bytes}-byte {verb} {self.buffer} in {self.statement}, {found}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ratio": round(self.ratio, 4)}


@dataclass(frozen=True)
class Conflicts:
    """All accesses of a nest's threads to shared and global memory."""

    rows: tuple[Row, ...]

    def of(self, scope: str) -> list[Row]:
        return [row for row in self.rows if row.scope == scope and row.known]

    def ratio(self, scope: str) -> float:
        """What all accesses to "shared" or "global" memory take over the least."""
        rows = self.of(scope)
        least = sum(row.least for row in rows)
        return sum(row.taken for row in rows) / least if least else 1.0

    def worst(self, scope: str) -> Row | None:
        """The access that costs most beyond the least; None where none does."""
        row = max(self.of(scope), key=lambda row: row.taken - row.least, default=None)
        return row if row is not None and row.taken > row.least else None

    def summary(self) -> str:
        """For people, one line."""
        near, far = self.worst("shared"), self.worst("global")
        shared = "no bank conflict" if self.of("shared") else "not used"
        if near:
            shared = f"{self.ratio('shared'):.3g} x the least passes, worst the {near}"
        wide = "all that is fetched is used" if far is None else (
            f"{self.ratio('global'):.3g} x the least sectors, worst the {far}")  # fmt: skip
        return f"shared memory: {shared}; global memory: {wide}"

    def to_json(self) -> dict[str, Any]:
        return {"shared": round(self.ratio("shared"), 4), "global": round(self.ratio("global"), 4),
                "accesses": [row.to_json() for row in self.rows]}  # fmt: skip


def conflicts(nest: Nest, shape: Shape = Shape(), joined: bool = True) -> Conflicts:
    """The rows of a well-formed nest, in program order; of statements without threads too (one thread acts then). Where
    points are too many to count, the first, middle and last of each loop stand for all (`exact` is False).

    `joined`: neighbouring loads of an unrolled loop are one wide load, as compilers make them where a shared array's
    alignment shows it; else as the text has them.
    """
    rows: list[Row] = []
    for stmt, handed in grids(nest.body):
        asked = launch(stmt)
        inside = {b.name: b for b in nest.buffers} | {b.name: replace(b, scope="temp") for b in handed}
        for leaf, path in walk((stmt,)):
            if isinstance(leaf, Alloc):
                inside[leaf.buffer.name] = leaf.buffer
            elif isinstance(leaf, (Store, Reduce)):
                matrix = next((n for n, b in enumerate(path) if isinstance(b, Loop) and b.kind == "tensor"), None)
                places = _places(leaf) if matrix is None else _words(path[matrix], path[:matrix], inside)
                found = (p for p in places if inside[p.buffer].scope in SCOPES)
                rows += (_Access(leaf, path[:matrix], asked, inside, place, shape, joined).row for place in found)
    return Conflicts(tuple(rows))


@dataclass(frozen=True, slots=True)
class _Place:
    """What one leaf loads or stores; `where` >= 0 are conditions of its own; `bytes`, where they are not an element's.
    """

    buffer: str
    index: tuple[Affine, ...]
    write: bool = False
    where: tuple[Affine, ...] = ()
    bytes: int = 0


def _words(element: Block, path: tuple[Block, ...], buffers: Mapping[str, Buffer]) -> Iterator[_Place]:
    """What a lane loads of the operands of a matrix instruction: 32 bits at a time where elements lie side by side."""
    assert isinstance(element, Loop)
    found = use(element, path)
    if isinstance(found, str):
        return
    for which in ("a", "b"):
        load = (found.a if which == "a" else found.b)[0]
        fragment = found.instruction.a if which == "a" else found.instruction.b
        per, buffer = 32 // load.dtype.bits, buffers[load.buffer]
        for at in range(0, fragment.elements, per):
            indices = [found.index(which, e) for e in range(at, at + per)]
            offsets = [flat(buffer, index) for index in indices]
            first = offsets[0]
            beside = first is not None and all(o == first + n for n, o in enumerate(offsets))
            if beside:
                yield _Place(load.buffer, indices[0], bytes=4)
            else:
                yield from (_Place(load.buffer, index) for index in indices)


def _places(leaf: Store | Reduce) -> Iterator[_Place]:
    """What a statement loads, each once, then what it stores."""
    found = dict.fromkeys(_Place(ld.buffer, ld.index) for ld in loads(leaf.value))
    if isinstance(leaf, Reduce) and leaf.first != ():  # where it is not the first contribution, it reads what is there
        later = () if leaf.first is None else (sum(leaf.first, const(-1)),)
        found[_Place(leaf.buffer, leaf.index, False, later)] = None
    yield from found
    yield _Place(leaf.buffer, leaf.index, True)


def flat(buffer: Buffer, index: Sequence[Affine]) -> Affine | None:
    """The offset in elements, where all strides are numbers."""
    strides = buffer.element_strides if buffer.scope != "shared" else None
    total, step = Affine(), 1
    for d in reversed(range(len(buffer.shape))):
        stride = step if strides is None else strides[d]
        if not isinstance(stride, int):
            return None
        total, step = total + index[d] * stride, step * buffer.shape[d]
    return total


def whole(buffer: Buffer, offset: Affine | None, lane: str, n: int) -> bool:
    """Are n neighbours along `lane` one aligned access?"""
    if offset is None or offset.coefficient(lane) != 1 or n * buffer.dtype.bytes > VECTOR_BYTES:
        return False
    rest = offset - affine(lane)
    return lane not in rest.names() and gcd(rest.const, *(c for _, c in rest.terms)) % n == 0


class _Access:
    """One access: its row is worked out here."""

    def __init__(
        self, leaf: Store | Reduce, path: tuple[Block, ...], asked: Launch, buffers: Mapping[str, Buffer],
        place: _Place, shape: Shape, joined: bool,
    ) -> None:  # fmt: skip
        self.leaf, self.path, self.asked, self.buffers, self.place, self.shape = (
            leaf, path, asked, buffers, place, shape)  # fmt: skip
        self.buffer = buffers[place.buffer]
        self.loops = [b for b in path if isinstance(b, Loop)]
        offset = flat(self.buffer, place.index)
        self.known, self.offset = offset is not None, offset or Affine()
        self.width, self.gone = self.buffer.dtype.bytes, dict[str, int]()
        if place.bytes:
            self.width = place.bytes
        else:
            self._widen(joined)
        self.space = self._points()
        self.tied, self.free = self._factors()

    @property
    def row(self) -> Row:
        b, s = self.buffer, self.shape
        scope = SCOPES[b.scope]
        unit = s.bank_bytes if scope == "shared" else s.sector_bytes
        env, weights, exact = self._all(self.tied)
        moved, points, all_ = self._moved(unit)
        zeros = {n: 0 for part in self.free for n, _ in part.loops}
        threads, instance = env[THREAD], env["@instance"]
        at = np.broadcast_to(np.asarray(self.offset.evaluate({**env, **zeros}), np.int64), len(threads))
        at = at * b.dtype.bytes
        at = at - (at.min() // _TURN * _TURN if len(at) else 0)
        warp = instance * -(-self.asked.threads // s.warp) + threads // s.warp
        served = partial(self._passes, instance, threads) if scope == "shared" else partial(self._sectors, warp)
        least = taken = 0
        for r in np.flatnonzero(moved) if len(at) else ():
            one, two = served(at + r, weights)
            taken, least = taken + one * int(moved[r]), least + two * int(moved[r])
        whole, times = int(moved.sum()), int(_first(warp, weights).sum()) * points
        taken, least = taken * points // whole, least * points // whole
        statement = f"{self.leaf.tag} ({self.leaf.role})"
        return Row(b.name, statement, self.place.write, scope, self.width, times, least, taken, self.known,
                   exact and all_)  # fmt: skip

    # ---- how wide ----------------------------------------------------------------------------------------------------

    def _widen(self, joined: bool) -> None:
        """A vector loop that the renderer makes one access of, or an unrolled one whose loads a compiler joins."""
        last = self.loops[-1] if self.loops else None
        if last is not None and last.kind == "vector" and self._vector(last):
            self._join(last.name, last.constant or 1)
        elif joined and not self.place.write and self.buffer.scope == "shared":
            for lp in reversed(self.loops):
                if lp.kind != "unroll":
                    break
                for part in (8, 4, 2):
                    if (lp.constant or 1) % part == 0 and whole(self.buffer, self.offset, lp.name, part):
                        return self._join(lp.name, part)

    def _join(self, name: str, n: int) -> None:
        self.width *= n if self.offset.coefficient(name) else 1
        self.gone[name] = n

    def _vector(self, lp: Loop) -> bool:
        """One store of 2 or 4 values of 32 bits, of operands that are whole or do not move with the lane; or a copy of
        4, 8 or 16 bytes of any type."""
        n, leaf, name = lp.constant or 0, self.leaf, lp.name
        if isinstance(leaf, Store) and isinstance(leaf.value, Load) and n * leaf.value.dtype.bytes in (4, 8, 16):
            held = [(self.buffers[p.buffer], p.index) for p in _places(leaf)]
            if all(b.scope != "register" and whole(b, flat(b, index), name, n) for b, index in held):
                return True
        if n not in (2, 4) or not isinstance(leaf, Store) or len(lp.body) != 1 or name in _indices(leaf.value):
            return False
        moving = [p for p in _places(leaf) if any(name in a.names() for a in p.index)]
        return any(p.write for p in moving) and all(
            (b := self.buffers[p.buffer]).scope != "register" and b.dtype == F32 and whole(b, flat(b, p.index), name, n)
            for p in moving
        )

    # ---- who takes part ----------------------------------------------------------------------------------------------

    def _points(self) -> Space:
        """The thread's number and all loops that are none of threads; loops of threads become functions of it."""
        x, y, z = self.asked.block
        me = var(THREAD)
        along = {"thread.x": me % x, "thread.y": me // x % y, "thread.z": me // (x * y) % z}
        kinds = {lp.kind for lp in self.loops}
        guards = [*self.place.where, *(c for b in self.path if isinstance(b, Guard) for c in b.conditions)]
        values = {lp.name: along[lp.kind] for lp in self.loops if lp.kind in along}
        chain = [lp for lp in self.loops if lp.kind == "thread"]
        for n, lp in enumerate(chain):
            inner = prod(map(bound, chain[n + 1 :]))
            values[lp.name] = me // inner % bound(lp) if n else me // inner
        if not chain:  # what stands in no loop of an axis is number 0's
            guards += [-along[k] for k, n in zip(along, self.asked.block) if n > 1 and k not in kinds]
        guards += [e - 1 - var(lp.name) for lp in self.loops if lp.name in values for e in lp.extents]
        used = self.offset.names().union(*(g.names() for g in guards), *(e.names() for lp in self.loops
                                                                          for e in lp.extents))  # fmt: skip
        loops: list[tuple[str, tuple[Affine, ...]]] = [(THREAD, (const(self.asked.threads),))]
        for lp in self.loops:
            part = self.gone.get(lp.name, 1)
            if lp.name in values or lp.kind in ("unroll", "vector") and lp.name not in used:
                continue  # what does not change in an unrolled loop is in a register
            if part > 1:
                values[lp.name] = var(lp.name) * part
            loops.append((lp.name, tuple((e + (part - 1)) // part for e in lp.extents)))
        self.offset = self.offset.substitute(values)
        fixed = tuple((n, tuple(e.substitute(values) for e in extents)) for n, extents in loops)
        return Space(fixed, tuple(g.substitute(values) for g in guards))

    def _factors(self) -> tuple[Space, list[Space]]:
        """What extents, guards and the address's divisions tie to the thread; and what is free of it."""
        mixed = tuple(Affine(((atom, 1),)) for atom, _ in self.offset.terms if not isinstance(atom, str))
        parts = clusters(self.space, mixed)
        tied = [p for p in parts if any(n == THREAD for n, _ in p.loops)]
        return merged(self.space, tied), [p for p in parts if p not in tied]

    @staticmethod
    def _all(where: Space) -> tuple[dict[str, Array], Array, bool]:
        """Points: columns of the loops and of `@instance`, which tells apart all but threads; how many each stands for;
        whether these are all points."""
        made = _enumerate(where, CAP)
        return (*made, True) if made is not None else (*_sampled(where), False)

    def _moved(self, unit: int) -> tuple[Array, int, bool]:
        """How often, relative to each other, the loops that are free of the threads move the address by each remainder
        of a unit; how many points they have; whether nothing was sampled."""
        size, moved, points, exact = self.buffer.dtype.bytes, np.zeros(unit, np.int64), 1, True
        moved[0] = 1
        for part in self.free:
            names = {n for n, _ in part.loops}
            own = Affine(tuple((a, c) for a, c in self.offset.terms
                               if not names.isdisjoint({a} if isinstance(a, str) else a.arg.names())))  # fmt: skip
            try:
                here = count(part)
            except TooManyPoints:
                here, exact = int(_sampled(part)[1].sum()), False
            points *= here
            if here and any(c * size % unit for _, c in own.terms):
                env, weights, all_ = self._all(part)
                exact &= all_
                by = (np.asarray(own.evaluate(env), np.int64) - own.evaluate(dict.fromkeys(names, 0))) * size % unit
                mine = np.zeros(unit, np.int64)
                np.add.at(mine, np.broadcast_to(by, len(weights)), weights)
                mine = mine // gcd(*map(int, mine))
                moved = np.sum([np.roll(moved, r) * mine[r] for r in np.flatnonzero(mine)], axis=0)
        return moved, points, exact

    # ---- what it takes -----------------------------------------------------------------------------------------------

    def _passes(self, instance: Array, threads: Array, at: Array, weights: Array) -> tuple[int, int]:
        """Passes of shared memory, and the least. Threads that fill all banks by their width are served together; those
        that reach for the same word count once."""
        s = self.shape
        together = min(s.banks * s.bank_bytes // max(self.width, s.bank_bytes), s.warp)
        order, key = _numbered(instance * -(-self.asked.threads // together) + threads // together)
        words, wide = at // s.bank_bytes, max(self.width // s.bank_bytes, 1)
        span = int(words.max()) + wide
        pairs = distinct(np.concatenate([key * span + words + j for j in range(wide)]))
        slots = np.bincount(pairs // span * s.banks + pairs % span % s.banks, minlength=len(order) * s.banks)
        times = _first(key, weights)
        return int((slots.reshape(-1, s.banks).max(axis=1) * times).sum()), int(times.sum())

    def _sectors(self, warp: Array, at: Array, weights: Array) -> tuple[int, int]:
        """Sectors that warps touch, and the least that hold as many different bytes."""
        size = self.shape.sector_bytes
        order, key = _numbered(warp)
        times, span = _first(key, weights), int(at.max()) + self.width
        touched = distinct(np.concatenate([key * span + (at + j) // size for j in (0, self.width - 1)])) // span
        held = np.bincount(distinct(key * span + at) // span, minlength=len(order)) * self.width
        return int((np.bincount(touched, minlength=len(order)) * times).sum()), int((-(-held // size) * times).sum())


_TURN = 1 << 12  # bytes: whole turns of the banks and whole sectors, which change nothing


def _indices(value: Expr) -> frozenset[str]:
    """The loops whose numbers a value contains."""
    return frozenset().union(*(n.value.names() for n in nodes(value) if isinstance(n, Index)))


def _enumerate(
    where: Space, most: int, picked: Callable[[str, int], tuple[Array, Array]] | None = None
) -> tuple[dict[str, Array], Array] | None:
    """Every point, and how often it counts; None where these are more than `most`. `picked`: of a loop and its extent,
    the values that stand for all, and how many each stands for."""
    env, instance, weights = dict[str, Array](), np.zeros(1, np.int64), np.ones(1, np.int64)
    if any(g.is_const and g.const < 0 for g in where.guards):
        weights = instance = weights[:0]
    for name, extents in where.loops:
        rows = len(weights)
        sizes = lengths(extents, env, rows)
        longest = int(sizes.max()) if rows else 0
        values, times = picked(name, longest) if picked else (np.arange(longest), np.ones(longest, np.int64))
        n = len(values)
        if rows * n > most:
            return None
        env = {k: np.repeat(v, n) for k, v in env.items()} | {name: np.tile(values, rows)}
        weights, instance = np.repeat(weights, n) * np.tile(times, rows), np.repeat(instance, n)
        if name != THREAD:
            instance = instance * n + np.tile(np.arange(n), rows)
        kept = env[name] < np.repeat(sizes, n)
        for g in where.guards:
            if name in g.names() and g.names() <= env.keys():
                kept &= g.evaluate(env) >= 0
        env, weights, instance = {k: v[kept] for k, v in env.items()}, weights[kept], instance[kept]
    return {**env, "@instance": instance}, weights


def _sampled(where: Space) -> tuple[dict[str, Array], Array]:
    """The first, a middle and the last value of each loop stand for all; all threads."""

    def few(name: str, n: int) -> tuple[Array, Array]:
        if name == THREAD or n <= 3:
            return np.arange(n), np.ones(n, np.int64)
        return np.array([0, n // 2, n - 1]), np.array([1, n - 2, 1])

    made = _enumerate(where, 1 << 62, few)
    assert made is not None
    return made


def _numbered(key: Array) -> tuple[Array, Array]:
    """The different keys in order, and each key as its number among them."""
    names = distinct(key)
    return names, np.searchsorted(names, key)


def _first(key: Array, weights: Array) -> Array:
    """What stands first of each different key, in the order of keys."""
    order = np.argsort(key, kind="stable")
    row = key[order]
    return weights[order][np.concatenate(([True], row[1:] != row[:-1])) if len(row) else []]


__all__ = ["Conflicts", "Row", "Shape", "conflicts"]
