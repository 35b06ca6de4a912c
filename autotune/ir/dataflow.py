"""What a nest writes, how often, and what it reads before: coverage, initialisation, defined-before-read, partial sums.

Sites are statements with their place in the tree; a buffer allocated in several bodies is several buffers, one an Alloc. Everything
is about one *instance*: one run of the loops outside the Alloc (all of the nest for inputs, outputs and temporaries). This room
knows no step and never looks at values: that the right thing is computed is the equivalence check's to say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .affine import Affine, FloorDiv, const, var
from .bounds import Domain, domain, domain_of
from .expr import loads
from .lower import with_shared_axes
from .nest import Alloc, Block, Guard, Leaf, Loop, Nest, Prefetch, Reduce, Store, show_stmts
from .points import Grid, Space, TooManyPoints, clusters, count, grid, space, table
from .program import Buffer, TensorProgram

Key = tuple[str, tuple[int, ...]]  # a buffer's name and the position of its Alloc (empty for those of the whole program)
Body = tuple[tuple[Affine, ...], Space]


@dataclass(frozen=True, slots=True)
class Violation:
    """`kind` is a short code that can be counted; `witness` a point of the loops, or an element, where the rule is broken."""

    kind: str
    message: str
    witness: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        at = f" (at {', '.join(f'{n}={v}' for n, v in self.witness)})" if self.witness else ""
        return f"{self.kind}: {self.message}{at}"


@dataclass(frozen=True)
class Site:
    """A leaf, the blocks around it, and its place: the child's number at each level."""

    leaf: Leaf
    path: tuple[Block, ...]
    position: tuple[int, ...]

    @property
    def write(self) -> Store | Reduce:
        assert not isinstance(self.leaf, Prefetch)
        return self.leaf

    @cached_property
    def domain(self) -> Domain:
        guards = tuple(c for b in self.path if isinstance(b, Guard) for c in b.conditions)
        return domain(tuple(b for b in self.path if isinstance(b, Loop)), guards)

    @cached_property
    def space(self) -> Space:
        return space(self.path)

    def level(self, buffer: str) -> int:
        """The number of blocks outside the buffer's Alloc, and the Alloc; 0 for a buffer of the whole program."""
        named = (n + 1 for n, b in enumerate(self.path) if isinstance(b, Alloc) and b.buffer.name == buffer)
        return next(named, 0)

    def buffer(self, nest: Nest, name: str) -> Buffer:
        level = self.level(name)
        block = self.path[level - 1] if level else None
        return block.buffer if isinstance(block, Alloc) else nest.all_buffers[name]

    def key(self, buffer: str) -> Key:
        return buffer, self.position[: self.level(buffer)]

    def common(self, other: Site) -> int:
        """The number of blocks around both statements."""
        return next(n for n, (a, b) in enumerate(zip(self.position, other.position)) if a != b)

    def __str__(self) -> str:
        inside = " > ".join(b.name for b in self.path if isinstance(b, Loop))
        return f"`{next(show_stmts((self.leaf,)))}` in {inside or 'no loop'}"


def outside(site: Site, a: Affine, size: int, what: str) -> Violation | None:
    """A violation unless 0 <= a < size at every point: by bounds, else by looking at every point."""
    low, high = site.domain.lower(a), site.domain.upper(a)
    if site.domain.empty or (low is not None and low >= 0 and high is not None and high < size):
        return None
    try:
        if count(site.space) == 0:
            return None
        mine = [p for p in clusters(site.space, (a,)) if any(n in a.names() for n, _ in p.loops)]
        env, rows = table(Space(tuple(lp for p in mine for lp in p.loops), tuple(g for p in mine for g in p.guards)))
    except TooManyPoints:
        return Violation("undecided", f"{what} {a} in {site}: too many points to tell whether it stays below {size}")
    bad = np.flatnonzero(np.broadcast_to((values := a.evaluate(env)) < 0, rows) | np.broadcast_to(values >= size, rows))
    if not len(bad):
        return None
    witness = tuple((n, int(v[bad[0]])) for n, v in env.items())
    return Violation("bounds", f"{what} {a} leaves 0 .. {size - 1} in {site}", witness)


class Dataflow:
    """The checks over one nest that is well formed and in bounds."""

    def __init__(self, program: TensorProgram, nest: Nest, sites: Sequence[Site]) -> None:
        self.program, self.nest = program, nest
        self.sites = [s for s in sites if not isinstance(s.write, Prefetch) and not s.domain.empty]
        self.writes: dict[Key, list[Site]] = defaultdict(list)
        for s in self.sites:
            self.writes[s.key(s.write.buffer)].append(s)
        self.complete: set[Key] = set()

    def violations(self) -> Iterator[Violation]:
        yield from self._coverage()
        for key, writes in self.writes.items():
            yield from self._initialised(key, writes)
        seen: set[tuple[Key, tuple[Affine, ...], tuple[int, ...]]] = set()
        for s in self.sites:
            for buffer, index, own in _needs(s):
                if s.buffer(self.nest, buffer).scope == "input":
                    continue
                key = s.key(buffer)
                if not own:
                    yield from self._partial(key, s, index)
                if (key, index, s.position[:-1]) not in seen:
                    seen.add((key, index, s.position[:-1]))
                    yield from self._defined(key, s, index)

    # ---- coverage ---------------------------------------------------------------------------------------------------

    def _coverage(self) -> Iterator[Violation]:
        """Every point of every stage is evaluated once (for a private result: once an instance, or not at all)."""
        whole = {b.name for b in self.nest.buffers}
        for c in with_shared_axes(self.program).computes:
            axes = c.axes if any(a.extent == 0 for a in c.reduce_axes) else c.all_axes
            own = [s for s in self.sites if s.write.tag == c.name and s.write.role == "compute"]
            if any(a.extent == 0 for a in c.axes) or (not own and c.name not in self.nest.all_buffers):
                continue  # nothing to do, or inlined into its readers
            coordinates = [tuple(dict(s.write.origin).get(a.name, const(-1)) for a in axes) for s in own]
            shape = tuple(a.extent for a in axes)
            if wrong := [
                v for s, row in zip(own, coordinates) for a, n in zip(row, shape) if (v := outside(s, a, n, "coordinate"))
            ]:
                yield wrong[0]
                continue
            what = f"stage {c.name}, point ({', '.join(a.name for a in axes)})"
            try:
                g = grid([(row, s.space) for s, row in zip(own, coordinates)], shape)
                if bool((g.total == 1).all()):
                    continue
                if c.name not in whole and own:
                    per = per_instance(
                        [(row, s.space) for s, row in zip(own, coordinates)], shape,
                        [_outer(s, s.level(c.name) or s.level(s.write.buffer)) for s in own],
                    )  # fmt: skip
                    reducing = tuple(
                        n for n, (dims, _, _) in enumerate(per.axes) if any(len(c.axes) <= d < len(shape) for d in dims)
                    )
                    mixed = any(min(per.axes[n][0]) < len(c.axes) for n in reducing)
                    same = per.total == per.total.max(axis=reducing, keepdims=True) if reducing else True
                    if not mixed and bool((per.total <= 1).all() and np.all(same)):
                        continue
                yield _visits(g, what, "evaluated", tuple(a.name for a in axes))
            except TooManyPoints:
                yield Violation("undecided", f"{what}: too many points to count how often each is evaluated")

    def _initialised(self, key: Key, writes: list[Site]) -> Iterator[Violation]:
        """Every element of a result, or of what a Reduce updates, starts once: by a Store, or where `first` is zero."""
        buffer = writes[0].buffer(self.nest, key[0])
        if (key[1] and not any(isinstance(s.write, Reduce) for s in writes)) or buffer.size == 0:
            return
        bodies, starts = [], []
        for s in writes:
            first = s.write.first if isinstance(s.write, Reduce) else ()
            if first is None:
                continue
            for a in first:
                if not s.domain.nonnegative(a) or any(c < 0 for _, c in a.terms):
                    yield Violation("order", f"first({a}) may be zero after other contributions, in {s}")
                    return
            starts.append(s)
            bodies.append((s.write.index, s.space.at_zero(first)))
        try:
            if not key[1]:
                g = grid(bodies, buffer.shape)
                good = bool((g.total == 1).all())
            else:
                g = per_instance(bodies, buffer.shape, [_outer(s, len(key[1])) for s in starts])
                good = bool((g.total <= 1).all())
        except TooManyPoints:
            yield Violation("undecided", f"{key[0]}: too many points to count how often each element starts")
            return
        if bool((g.total == 1).all()):
            self.complete.add(key)
        if not good:
            names = tuple(f"dim{d}" for d in range(len(buffer.shape)))
            yield _visits(g, f"{buffer.scope} {buffer.name}, element", "initialised", names)

    # ---- order ------------------------------------------------------------------------------------------------------

    def _defined(self, key: Key, site: Site, index: tuple[Affine, ...]) -> Iterator[Violation]:
        """What is read has been written before, in the same iteration of the loops around both."""
        before = [w for w in self.writes[key] if w.position < site.position]
        starts = [w for w in self.writes[key] if not (isinstance(w.write, Reduce) and w.write.first is None)]
        if key in self.complete and all(
            w.position < site.position and not any(isinstance(b, Loop) for b in w.path[len(key[1]) : w.common(site)])
            for w in starts
        ):
            return
        if any(_covers(w, site, index) for w in reversed(before)):
            return
        what = f"{key[0]}[{', '.join(map(str, index))}] is read before it is written in {site}"
        try:
            bad = self._gap(before, site, index) if before else ()
        except TooManyPoints:
            yield Violation("undecided", f"{what}, or not: too many points to tell")
            return
        if bad is not None:
            yield Violation("undefined", what, bad)

    def _gap(self, before: list[Site], site: Site, index: tuple[Affine, ...]) -> tuple[tuple[str, int], ...] | None:
        """An element that is read and that no statement of `before` writes; None if there is none."""
        depth = max(w.common(site) for w in before)
        shared = site.path[:depth]
        bodies: list[Body] = [(index, site.space)]
        for w in before:
            inner = w.path[w.common(site) :]
            fresh = {b.name: var(f"{b.name}'") for b in inner if isinstance(b, Loop)}
            loops = [(f"{b.name}'", tuple(e.substitute(fresh) for e in b.extents)) for b in inner if isinstance(b, Loop)]
            guards = [c.substitute(fresh) for b in inner if isinstance(b, Guard) for c in b.conditions]
            around = space(shared)
            where = Space((*around.loops, *loops), (*around.guards, *guards)).normal()
            bodies.append((tuple(a.substitute(fresh) for a in w.write.index), where))
        shape = self.nest.all_buffers[before[0].leaf.buffer].shape
        outer = tuple(b.name for b in shared if isinstance(b, Loop))
        g = per_instance(bodies, shape, [outer] * len(bodies))
        bad = np.argwhere((g.rows[0] > 0) & (sum(g.rows[1:]) == 0))
        return tuple((f"dim{d}", v) for d, v in enumerate(g.point(bad[0])[: len(shape)])) if len(bad) else None

    def _partial(self, key: Key, site: Site, index: tuple[Affine, ...]) -> Iterator[Violation]:
        """A reduced buffer is read only when its reduction is over."""
        for w in self.writes[key]:
            if not isinstance(w.write, Reduce):
                continue
            if w is site:
                yield Violation("partial", f"{site} reads what it updates")
                continue
            moved = frozenset().union(*(a.names() for a in w.write.index))
            carried = frozenset().union(*(a.names() for a in w.write.first or ()))
            for b in site.path[len(key[1]) : w.common(site)]:
                if not isinstance(b, Loop) or (b.name in moved and b.name not in carried) or b.constant == 1:
                    continue
                if not any(site.domain.nonnegative(var(b.name) - e + 1) for e in b.extents):
                    yield Violation("partial", f"{key[0]} is read before {b.name}, which its reduction runs over, has ended: {site}")
            if site.position < w.position and not _apart(site, index, w):
                yield Violation("partial", f"{key[0]} is read in {site} before its last update in {w}")


def per_instance(bodies: Sequence[Body], shape: tuple[int, ...], outer: Sequence[tuple[str, ...]]) -> Grid:
    """A grid with further dimensions: the outer loops that the inner ones, or the coordinates, depend on."""
    parts = [[(frozenset(n for n, _ in p.loops), p) for p in clusters(where, at)] for at, where in bodies]
    inner = [
        [names for names, _ in own if not names.issubset(o) or any(names & a.names() for a in at)]
        for own, o, (at, _) in zip(parts, outer, bodies)
    ]
    linked = frozenset().union(*(names.intersection(o) for held, o in zip(inner, outer) for names in held))
    extra = tuple(dict.fromkeys(n for o in outer for n in o if n in linked))
    made, sizes = [], dict.fromkeys(extra, 1)
    for (at, where), own, held, o in zip(bodies, parts, inner, outer):
        kept = [p for names, p in own if names in held or names & linked or not names]
        names = frozenset(n for p in kept for n, _ in p.loops)
        loops = tuple(lp for lp in where.loops if lp[0] in names)
        made.append(((*at, *(var(n) if n in o else const(0) for n in extra)), Space(loops, tuple(g for p in kept for g in p.guards))))
        for n in linked.intersection(o):
            sizes[n] = max(sizes[n], 1 + (domain_of(where.loops, where.guards).upper(var(n)) or 0))
    return grid(made, (*shape, *sizes.values()))


def _outer(site: Site, level: int) -> tuple[str, ...]:
    return tuple(b.name for b in site.path[:level] if isinstance(b, Loop))


def _needs(site: Site) -> Iterator[tuple[str, tuple[Affine, ...], bool]]:
    """(buffer, index, whether it is the statement's own target) of everything that must be defined."""
    leaf = site.write
    for ld in loads(leaf.value):
        yield ld.buffer, ld.index, False
    if isinstance(leaf, Reduce) and (leaf.first is None or any(site.domain.nonnegative(a - 1) for a in leaf.first)):
        yield leaf.buffer, leaf.index, True


def _visits(g: Grid, what: str, verb: str, names: tuple[str, ...]) -> Violation:
    cell = tuple(int(v) for v in np.argwhere(g.total != 1)[0])
    if bool((g.total > 1).any()):
        cell = tuple(int(v) for v in np.argwhere(g.total > 1)[0])
    return Violation("coverage", f"{what} is {verb} {int(g.total[cell])} times", tuple(zip(names, g.point(cell))))


def _covers(w: Site, site: Site, index: tuple[Affine, ...]) -> bool:
    """Proved: for every read there is an iteration of the loops around `w` alone that writes the element.

    The iteration is solved for: an index with the coefficients c1 > c2 > ... gives the digits of what is read in that mixed radix,
    and x // d in one dimension with x % d in another give x.
    """
    inner = w.path[w.common(site) :]
    extents = {b.name: b.extents for b in inner if isinstance(b, Loop)}
    pairs = {(w.domain.simplify(a), read) for a, read in zip(w.write.index, index)}
    made = dict(pairs)
    if len(made) < len(pairs):
        return False
    must: list[Affine] = []
    for a in list(made):
        atom = a.terms[0][0] if len(a.terms) == 1 else ""
        whole = isinstance(atom, FloorDiv) and a == atom.arg // atom.divisor and atom.arg % atom.divisor
        if isinstance(atom, FloorDiv) and isinstance(whole, Affine) and whole in made:
            must += [made[whole], atom.divisor - 1 - made[whole]]
            made[atom.arg] = made.pop(a) * atom.divisor + made.pop(whole)
    solved: dict[str, Affine] = {}
    for written, read in made.items():
        digits = sorted(((c, n) for n, c in written.terms if isinstance(n, str) and n in extents), reverse=True)
        rest = read - Affine(tuple((n, c) for n, c in written.terms if n not in extents), written.const)
        if not all(isinstance(t, str) or extents.keys().isdisjoint(t.arg.names()) for t, _ in written.terms):
            return False
        for c, n in digits:
            if c < 1 or n in solved:
                return False
            solved[n], rest = site.domain.simplify(rest // c), site.domain.simplify(rest % c)
        if rest != const(0):
            return False
    at = {n: solved.get(n, const(0)) for n in extents}
    must += [*solved.values(), *(e.substitute(at) - 1 - at[n] for n, es in extents.items() for e in es)]
    must += [c.substitute(at) for b in inner if isinstance(b, Guard) for c in b.conditions]
    return all(map(site.domain.nonnegative, must))


def _apart(site: Site, index: tuple[Affine, ...], w: Site) -> bool:
    """Proved: in some dimension all of what is read lies below, or above, all that `w` writes."""
    for a, b in zip(index, w.write.index):
        (low, high), (least, most) = ((s.domain.lower(x), s.domain.upper(x)) for s, x in ((site, a), (w, b)))
        if None not in (low, high, least, most) and (high < least or most < low):  # type: ignore[operator]
            return True
    return False
