"""Blocks and threads: which arrays they share, where threads must meet, and how many of them a nest asks for.

Nests keep the order of a sequential program: thread loops stand inside the loops of a block, one after another, and
each is a *region*. That is what makes these questions decidable: two regions need a barrier between them exactly where
threads that may differ touch the same element of an array that they share, and one of them writes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import lcm, prod

import numpy as np

from .affine import Mod, const, var
from .dataflow import Access, Site, Violation, apart, sites
from .expr import Load
from .flight import early
from .nest import (
    BLOCK_KINDS,
    THREAD_KINDS,
    Alloc,
    Block,
    Guard,
    Leaf,
    Loop,
    Nest,
    Prefetch,
    Reduce,
    Stmt,
    Store,
    reads,
    walk,
    with_body,
)
from .program import Buffer
from .races import separate

Position = tuple[int, ...]
AXES = ("x", "y", "z")


@dataclass(frozen=True)
class Launch:
    """What one top-level statement runs on: blocks and threads along x, y, z, and bytes of shared memory a block."""

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int

    @property
    def threads(self) -> int:
        return prod(self.block)


@dataclass(frozen=True)
class Entry:
    """One kernel of a text: its symbol, launch, and arguments in order: buffers, then run-time strides as 64-bit
    integers. `aligned` buffers must start at multiples of 16 bytes."""

    symbol: str
    launch: Launch
    buffers: tuple[str, ...]
    strides: tuple[str, ...]
    aligned: tuple[str, ...] = ()


def grids(body: tuple[Stmt, ...]) -> Iterator[tuple[Stmt, tuple[Buffer, ...]]]:
    """Every statement that is launched by itself, with the arrays that stand around it: what grids hand on."""
    for stmt in body:
        if isinstance(stmt, Alloc) and _gridded(stmt):
            for inner, around in grids(stmt.body):
                yield inner, (stmt.buffer, *around)
        else:
            yield stmt, ()


def _gridded(stmt: Stmt) -> bool:
    """Is there a loop over blocks in here?"""
    return any(isinstance(s, Loop) and s.kind in BLOCK_KINDS for s, _ in walk((stmt,)))


def threaded(stmt: Stmt) -> bool:
    """Is there a thread loop in here?"""
    return any(isinstance(s, Loop) and s.kind in THREAD_KINDS for s, _ in walk((stmt,)))


def synchronised(nest: Nest) -> Nest:
    """The nest with shared arrays marked and barriers where threads must meet; unchanged where there are no threads."""
    if not any(map(threaded, nest.body)):
        return nest
    nest = Nest(nest.buffers, _scoped(tuple(s for stmt in nest.body for s in _grids(stmt))))
    while True:
        missing = {place for place, _ in _clashes(nest)} or set(early(nest))
        fenced = Nest(nest.buffers, _fenced(nest.body, (), missing)) if missing else nest
        if fenced == nest:
            return nest
        nest = fenced


def hazards(nest: Nest) -> Iterator[Violation]:
    """Regions that a barrier is missing between; and barriers that not all threads of a block would reach."""
    for stmt, path in walk(nest.body):
        inside = any(isinstance(b, Loop) and b.kind in THREAD_KINDS for b in path)
        if inside and isinstance(stmt, Loop) and stmt.barrier:
            yield Violation("barrier", f"the barrier before {stmt.name} stands inside a loop over threads")
    if any(map(threaded, nest.body)):
        for _, message in _clashes(nest):
            yield Violation("race", message)
        yield from _under_way(nest)
        for message in early(nest).values():
            yield Violation("race", message)
        yield from _Order(nest).inside(nest.body, (), ())


def _under_way(nest: Nest) -> Iterator[Violation]:
    """Asynchronous stores that are no copies into shared memory, or whose target their own region touches again."""
    every = [s for s in sites(nest.body) if not isinstance(s.leaf, Prefetch)]
    for s in every:
        if not isinstance(s.leaf, Store) or not s.leaf.asynchronous:
            continue
        name, region = s.leaf.buffer, _region(s)
        if not isinstance(s.leaf.value, Load) or s.buffer(nest, name).scope != "shared" or len(region) > len(s.path):
            yield Violation("race", f"{s} is asynchronous, and no copy by threads into shared memory")
        beside = [o.leaf for o in every if o is not s and _region(o) == region]
        source = {b for b, _ in reads(s.leaf)}
        if any(name == leaf.buffer or name in {b for b, _ in reads(leaf)} or leaf.buffer in source for leaf in beside):
            yield Violation("race", f"{s} may be under way when the same threads use {name}, or its source, again")
        for n, b in enumerate(s.path):
            if n < len(region) or not isinstance(b, Loop) or b.kind in THREAD_KINDS or b.constant == 1:
                continue
            if not separate(b, n, [(s, s.leaf.index)], s.leaf.index, s.buffer(nest, name)):
                yield Violation("race", f"{s} may be under way when the next iteration of {b.name} writes the same")


def _region(site: Site) -> Position:
    """The position of the outermost loop over threads around a statement; of the statement itself where there is
    none."""
    found = (n for n, b in enumerate(site.path) if isinstance(b, Loop) and b.kind in THREAD_KINDS)
    return site.position[: next(found, len(site.path)) + 1]


def launch(stmt: Stmt) -> Launch:
    """The blocks and threads that a statement asks for; one of each where it has no such loops."""
    grid, block, together = dict.fromkeys(AXES, 1), dict.fromkeys(AXES, 1), 1
    shared: dict[str, int] = {}
    for s, path in walk((stmt,)):
        if isinstance(s, Alloc) and s.buffer.scope == "shared":
            shared[s.buffer.name] = max(shared.get(s.buffer.name, 0), s.buffer.bytes)
        if not isinstance(s, Loop) or s.kind not in (*BLOCK_KINDS, *THREAD_KINDS):
            continue
        if s.kind == "thread":
            chain = [b for b in (*path, s) if isinstance(b, Loop) and b.kind == "thread"]
            together = max(together, prod(map(bound, chain)))
        else:
            sizes = grid if s.kind in BLOCK_KINDS else block
            sizes[s.kind[-1]] = max(sizes[s.kind[-1]], bound(s))
    block["x"] = max(block["x"], -(-together // (block["y"] * block["z"])))
    one, two = ((sizes["x"], sizes["y"], sizes["z"]) for sizes in (grid, block))
    return Launch(one, two, sum((n + 15) // 16 * 16 for n in shared.values()))


def bound(loop: Loop) -> int:
    """The most iterations that a loop can have, as its extents say; 0 where they do not."""
    return min((t.const for t in loop.extents if t.is_const), default=0)


def spread(stmt: Alloc) -> dict[int, tuple[str, ...]] | None:
    """Of an array outside of thread loops: the dimensions that are the threads' own, each with the kind of its loop;
    None where threads reach each other's elements."""
    found: list[dict[int, tuple[str, ...]]] = []
    for leaf, path in walk(stmt.body):
        if isinstance(leaf, (Loop, Alloc, Guard)):
            continue
        threads = [b for b in path if isinstance(b, Loop) and b.kind in THREAD_KINDS and b.constant != 1]
        for name, index in ((leaf.buffer, leaf.index), *reads(leaf)):
            if name != stmt.buffer.name:
                continue
            dims: dict[int, tuple[str, ...]] = {}
            for n, loop in enumerate(threads):
                d = next((d for d, a in enumerate(index) if a == var(loop.name)), None)
                if d is None:
                    return None
                inner = [str(bound(b)) for b in threads[n + 1 :] if b.kind == "thread"]
                dims[d] = (loop.kind, *(inner if loop.kind == "thread" else ()))
            if any(a.names() & {b.name for b in threads} for d, a in enumerate(index) if d not in dims):
                return None
            found.append(dims)
    return found[0] if found and all(dims == found[0] for dims in found) else {} if not found else None


def _grids(stmt: Stmt) -> tuple[Stmt, ...]:
    """What a block does one after another and needs nothing of each other becomes several grids: a remainder of a grid
    is a grid of its own."""
    if isinstance(stmt, Alloc) and _gridded(stmt):
        return (with_body(stmt, tuple(part for inner in stmt.body for part in _grids(inner))),)
    if not isinstance(stmt, Loop) or stmt.kind not in BLOCK_KINDS:
        return (stmt,)
    return tuple(with_body(stmt, (part,)) for inner in stmt.body for part in _grids(inner))


# ---- scopes ---------------------------------------------------------------------------------------------------------


def _scoped(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """Arrays around thread loops are shared, but for registers that are spread over the threads."""
    out: list[Stmt] = []
    for stmt in body:
        if not isinstance(stmt, (Loop, Alloc, Guard)) or isinstance(stmt, Loop) and stmt.kind in THREAD_KINDS:
            out.append(stmt)
            continue
        own = isinstance(stmt, Alloc) and (stmt.buffer.scope == "warp" or _gridded(stmt))
        if isinstance(stmt, Alloc) and not own and threaded(stmt) and (
            stmt.buffer.scope != "register" or spread(stmt) is None
        ):
            stmt = replace(stmt, buffer=replace(stmt.buffer, scope="shared"))
        out.append(with_body(stmt, _scoped(stmt.body)))
    return tuple(out)


# ---- barriers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Use:
    """An access inside a region; `moved`: loops of the block that have gone on since, `write` or read."""

    access: Access
    name: str
    write: bool
    moved: frozenset[str] = frozenset()


def _fenced(body: tuple[Stmt, ...], position: Position, places: set[Position]) -> tuple[Stmt, ...]:
    out: list[Stmt] = []
    for n, stmt in enumerate(body):
        here = (*position, n)
        if here in places:
            if isinstance(stmt, Loop):
                stmt = replace(stmt, barrier=True)
            else:  # what one thread does gets a loop to stand behind a barrier
                tag = next(s.tag for s, _ in walk((stmt,)) if isinstance(s, (Store, Reduce, Prefetch)))
                stmt = Loop(f"{tag}.one", (const(1),), (stmt,), "thread.x", barrier=True)
        elif isinstance(stmt, (Loop, Alloc, Guard)):
            stmt = with_body(stmt, _fenced(stmt.body, here, places))
        out.append(stmt)
    return tuple(out)


def _clashes(nest: Nest) -> Iterator[tuple[Position, str]]:
    """Regions (by position) that need a barrier which is not there, with the reason."""
    order = _Order(nest)
    order.run(nest.body, (), (), [])
    yield from order.found.items()


class _Order:
    """Regions in the order in which a block runs them, with what they touched since the last barrier."""

    def __init__(self, nest: Nest) -> None:
        self.nest = nest
        self.found: dict[Position, str] = {}

    def run(
        self, body: tuple[Stmt, ...], position: Position, path: tuple[Block, ...], pending: list[_Use]
    ) -> list[_Use]:
        for n, stmt in enumerate(body):
            here = (*position, n)
            region = isinstance(stmt, Loop) and stmt.kind in THREAD_KINDS
            if region or not isinstance(stmt, (Loop, Alloc, Guard)) or not threaded(stmt):
                pending = self._region_of(stmt, here, path, pending)
                continue
            around = (*path, stmt)
            if isinstance(stmt, Guard):
                pending = _merged(pending, self.run(stmt.body, here, around, pending))
            elif isinstance(stmt, Loop) and stmt.kind in BLOCK_KINDS:
                self.run(stmt.body, here, around, [])
            elif isinstance(stmt, Loop):
                pending = self._loop(stmt, here, path, pending)
            else:
                pending = self.run(stmt.body, here, around, pending)
        return pending

    def _loop(self, stmt: Loop, here: Position, path: tuple[Block, ...], pending: list[_Use]) -> list[_Use]:
        """A loop of the whole block: twice, so that an iteration meets what the one before it left. Where iterations do
        not meet each other one barrier before the loop serves them all."""
        around = (*path, stmt)
        separated = self._separated(stmt, here, path)
        uses = list(self._uses(stmt, here, path))
        if stmt.barrier or {u.name for u in uses if u.write} <= separated:
            pending = self._met(stmt, here, pending, uses)
        once = self.run(stmt.body, here, around, pending)
        twice: list[_Use] = []
        if stmt.constant != 1:
            left = [replace(u, moved=u.moved | _begun(u, len(path))) for u in once if u.name not in separated]
            twice = self.run(stmt.body, here, around, left)
        return _merged(pending if (stmt.constant or 0) < 1 else [], once, twice)

    def _separated(self, stmt: Loop, here: Position, path: tuple[Block, ...]) -> frozenset[str]:
        """Arrays of which the iterations of a loop touch separate parts."""
        uses = list(self._uses(stmt, here, path))
        found = set()
        for name in {u.name for u in uses if u.write}:
            accesses = [u.access for u in uses if u.name == name]
            model = next(u.access for u in uses if u.name == name and u.write)
            if separate(stmt, len(here) - 1, accesses, model[1], model[0].buffer(self.nest, name)):
                found.add(name)
        return frozenset(found)

    def _uses(self, stmt: Stmt, here: Position, path: tuple[Block, ...]) -> Iterator[_Use]:
        """Every access in here to an array that threads share."""

        for site in sites((stmt,), path, here[:-1]):
            leaf: Leaf = site.leaf
            if isinstance(leaf, Prefetch):
                continue
            site = replace(site, position=(*here, *site.position[len(here) :]))
            for name, index, write in ((leaf.buffer, leaf.index, True), *((b, i, False) for b, i in reads(leaf))):
                scope = site.buffer(self.nest, name).scope
                outside = scope == "scratch" and site.level(name) <= len(path)
                if outside or scope in ("shared", "temp", "output"):
                    yield _Use((site, index), name, write)

    def _region_of(self, stmt: Stmt, here: Position, path: tuple[Block, ...], pending: list[_Use]) -> list[_Use]:
        uses = list(self._uses(stmt, here, path))
        return _merged(self._met(stmt, here, pending, uses), uses)

    def _met(self, stmt: Stmt, here: Position, pending: list[_Use], uses: list[_Use]) -> list[_Use]:
        """What is pending before a statement with these uses: nothing, where threads meet or should meet."""
        if isinstance(stmt, Loop) and stmt.barrier:
            return []
        for earlier in pending:
            for use in uses:
                meet = earlier.name == use.name and (earlier.write or use.write)
                if not meet:
                    continue
                layouts = {u.access[0].buffer(self.nest, u.name).contiguous_strides for u in (earlier, use)}
                late = getattr(earlier.access[0].leaf, "asynchronous", False) or len(layouts) > 1  # of one name
                if len(layouts) == 1 and (apart(earlier.access, use.access) or _other_half(earlier, use)):
                    continue
                if late or not _same_thread(earlier, use):
                    what = "writes" if use.write else "reads"
                    self.found.setdefault(here, (
                        f"{use.access[0]} {what} {use.name}, which other threads touched in {earlier.access[0]}, "
                        "and no barrier stands between"
                    ))  # fmt: skip
                    return []
        return pending

    def inside(self, body: tuple[Stmt, ...], position: Position, path: tuple[Block, ...]) -> Iterator[Violation]:
        """Regions in which threads touch what others write, in other iterations of loops between the thread loops or in
        other thread loops: nothing orders them. (Iterations of each thread loop alone are `races`' business.)"""
        for n, stmt in enumerate(body):
            here = (*position, n)
            if isinstance(stmt, (Loop, Alloc, Guard)) and not (isinstance(stmt, Loop) and stmt.kind in THREAD_KINDS):
                yield from self.inside(stmt.body, here, (*path, stmt))
            elif isinstance(stmt, Loop):
                uses = list(self._uses(stmt, here, path))
                for name in {u.name for u in uses if u.write}:
                    own = [u for u in uses if u.name == name]
                    pairs = ((u, v) for u in own for v in own if u.write or v.write)
                    if clash := next((u for u, v in pairs if self._crossed(u, v, own)), None):
                        yield Violation("race", f"threads of one region share {name}: {clash.access[0]}")

    def _crossed(self, one: _Use, two: _Use, every: list[_Use]) -> bool:
        """Not proved: within a region both touch the same element in the same thread alone."""
        a, b = one.access[0], two.access[0]
        common = a.common(b)
        moved: set[str] = set()
        for s in (a, b):
            places = [n for n, lp in enumerate(s.path) if isinstance(lp, Loop) and lp.kind in THREAD_KINDS]
            for n in range(places[0], places[-1]):
                lp = s.path[n]
                if not isinstance(lp, Loop) or lp.kind in THREAD_KINDS or lp.constant == 1:
                    continue
                held = [u.access for u in every if u.access[0].position[: n + 1] == s.position[: n + 1]]
                if n >= common or not separate(lp, n, held, one.access[1], a.buffer(self.nest, one.name)):
                    moved.add(lp.name)
        # Thread loops around both have their iterations apart, whatever stands inside of them.
        fixed = next((n for n, lp in enumerate(a.path) if isinstance(lp, Loop) and lp.name in moved), common)
        if not any(map(_numbers, (*a.path[min(fixed, common) :], *b.path[min(fixed, common) :]))):
            return False
        if apart(one.access, two.access):
            return False
        return not _same_thread(replace(one, moved=frozenset(moved)), two)


def _numbers(block: Block) -> bool:
    """Is this a loop over several threads?"""
    return isinstance(block, Loop) and block.kind in THREAD_KINDS and block.constant != 1


def _begun(use: _Use, level: int) -> frozenset[str]:
    """The loops of a block around a use, from the given level on: that one has gone on, the others begin again."""
    site = use.access[0]
    return frozenset(b.name for b in site.path[level : len(_region(site)) - 1] if isinstance(b, Loop))


def _merged(*rows: list[_Use]) -> list[_Use]:
    found = {(u.access[0].position, u.access[1], u.name, u.write, u.moved): u for row in rows for u in row}
    return list(found.values())  # (what stands at one position is one statement, and costly to compare)


def _other_half(earlier: _Use, use: _Use) -> bool:
    """Proved: in one dimension both name a remainder of the same loop, in the same iteration, and never the same."""
    (one, index), (two, other) = earlier.access, use.access
    level = min(one.common(two), len(_region(one)) - 1, len(_region(two)) - 1)  # threads are not in the same iteration
    around = {b.name for b in two.path[:level] if isinstance(b, Loop)} - earlier.moved
    for a, b in zip(index, other):
        names = a.names() | b.names()
        divisors = [t.divisor for t, _ in (*a.terms, *b.terms) if isinstance(t, Mod) and t.arg.is_linear]
        if len(names) == 1 and names <= around and 0 < len(divisors) == len(a.terms) + len(b.terms):
            at = {next(iter(names)): np.arange(lcm(*divisors))}
            if bool(np.all(a.evaluate(at) != b.evaluate(at))):
                return True
    return False


def _same_thread(earlier: _Use, use: _Use) -> bool:
    """Proved: what both touch is the same thread's.

    Threads are numbered alike in both regions, and both index alike, by their numbers, by loops inside of a thread and
    by loops around both that have not gone on; that no two threads of one region share an element that is written is
    proved for each region alone.
    """
    (one, index), (two, other) = earlier.access, use.access
    loops = [[b for b in s.path if isinstance(b, Loop)] for s in (one, two)]
    threads = [list(filter(_numbers, row)) for row in loops]
    if not any(threads):
        return True  # thread 0 does both
    alike = [[(b.kind, b.extents if b.kind == "thread" else ()) for b in row] for row in threads]
    renamed = {a.name: var(b.name) for a, b in zip(*threads)}
    if alike[0] != alike[1] or tuple(a.substitute(renamed) for a in index) != other:
        return False
    numbers = {b.name for b in threads[1]}
    used: frozenset[str] = frozenset().union(*(a.names() for a in other))
    around = {b.name for b in two.path[: one.common(two)] if isinstance(b, Loop)} - earlier.moved
    inside = [{b.name: b.extents for b in row[row.index(own[0]) :]} if own else {} for row, own in zip(loops, threads)]
    rest = used - numbers - around
    if inside[0].keys() - renamed.keys() & numbers or rest & earlier.moved or not numbers <= used:
        return False  # (a name of the one's own would be taken for a thread of the other)
    if not all(n in inside[1] and inside[0].get(n) == inside[1][n] for n in rest):
        return False
    if all(var(n) in other for n in numbers):
        return True
    pairs = [(u, v) for u, v in ((earlier, use), (use, earlier)) if u.write]
    return any(_no_more(v.access[0], u.access[0]) for u, v in pairs)


def _no_more(one: Site, two: Site) -> bool:
    """Proved: whatever the threads of the first statement's region are, those of the second one's are, too."""
    conditions = [{c for b in s.path if isinstance(b, Guard) for c in b.conditions} for s in (one, two)]
    threads = [[b for b in s.path if isinstance(b, Loop) and _numbers(b)] for s in (one, two)]
    fits = [a.extents == b.extents or bound(a) <= (b.constant or 0) for a, b in zip(*threads)]
    return conditions[1] <= conditions[0] and all(fits)


__all__ = [
    "AXES", "Entry", "Launch", "Position", "bound", "grids", "hazards", "launch", "spread", "synchronised", "threaded",
]  # fmt: skip
