"""What a nest writes, how often, and what it reads before: coverage, initialisation, defined-before-read, partial sums.

Sites are statements with their place in the tree; a buffer allocated in several bodies is several buffers, one an
Alloc. Everything is about one *instance*: one run of the loops outside the Alloc (all of the nest for inputs, outputs
and temporaries). This room knows no step and never looks at values: they are the equivalence check's business.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from .affine import Affine, Atom, FloorDiv, Mod, const, var
from .bounds import Domain, domain, domain_of
from .expr import loads
from .idle import idle_points
from .lower import with_shared_axes
from .nest import Alloc, Block, Guard, Leaf, Loop, Nest, Prefetch, Reduce, Stmt, Store, show_stmts
from .points import Array, Grid, Space, TooManyPoints, clusters, count, grid, merged, space, table
from .program import Buffer, Compute, TensorProgram

TURNS = 5  # parts at most that an array has for iterations in turn
Index = tuple[Affine, ...]
Body = tuple[Index, Space]
Key = tuple[str, tuple[int, ...]]  # a buffer's name and the position of its Alloc (empty: the whole program's)


@dataclass(frozen=True, slots=True)
class Violation:
    """`kind` is a short code that can be counted; `witness`: a point of the loops, or an element, that shows it."""

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
        return domain(tuple(b for b in self.path if isinstance(b, Loop)), _conditions(self.path))

    @cached_property
    def space(self) -> Space:
        return space(self.path)

    def level(self, buffer: str) -> int:
        """The number of blocks down to the buffer's Alloc; 0 for a buffer of the whole program."""
        found = (n + 1 for n, b in enumerate(self.path) if isinstance(b, Alloc) and b.buffer.name == buffer)
        return next(found, 0)

    def buffer(self, nest: Nest, name: str) -> Buffer:
        block = self.path[level - 1] if (level := self.level(name)) else None
        return block.buffer if isinstance(block, Alloc) else nest.all_buffers[name]

    def key(self, buffer: str) -> Key:
        return buffer, self.position[: self.level(buffer)]

    def common(self, other: Site) -> int:
        """The number of blocks around both statements."""
        apart = (n for n, (a, b) in enumerate(zip(self.position, other.position)) if a != b)
        return next(apart, len(self.path))

    def outer(self, level: int) -> tuple[str, ...]:
        return tuple(b.name for b in self.path[:level] if isinstance(b, Loop))

    def __str__(self) -> str:
        return f"`{next(show_stmts((self.leaf,)))}` in {' > '.join(self.outer(len(self.path))) or 'no loop'}"


Access = tuple[Site, Index]


def sites(body: tuple[Stmt, ...], path: tuple[Block, ...] = (), position: tuple[int, ...] = ()) -> Iterator[Site]:
    """Every statement with its place, in program order."""
    for n, stmt in enumerate(body):
        if isinstance(stmt, (Loop, Alloc, Guard)):
            yield from sites(stmt.body, (*path, stmt), (*position, n))
        else:
            yield Site(stmt, path, (*position, n))


def outside(site: Site, a: Affine, size: int, what: str) -> Violation | None:
    """A violation unless 0 <= a < size at every point: by bounds, else by looking at every point."""
    low, high = site.domain.lower(a), site.domain.upper(a)
    if site.domain.empty or (low is not None and low >= 0 and high is not None and high < size):
        return None
    try:
        if count(site.space) == 0:
            return None
        mine = [p for p in clusters(site.space, (a,)) if any(n in a.names() for n, _ in p.loops)]
        env, rows = table(merged(site.space, mine))
    except TooManyPoints:
        return Violation("undecided", f"{what} {a} in {site}: too many points to tell whether it stays below {size}")
    values = np.broadcast_to(a.evaluate(env), rows)
    bad = np.flatnonzero((values < 0) | (values >= size))
    if not len(bad):
        return None
    witness = tuple((n, int(v[bad[0]])) for n, v in env.items())
    return Violation("bounds", f"{what} {a} leaves 0 .. {size - 1} in {site}", witness)


class Dataflow:
    """The checks over one nest that is well formed and in bounds."""

    def __init__(self, program: TensorProgram, nest: Nest, sites: Sequence[Site]) -> None:
        self.computes = with_shared_axes(program).computes
        self.nest = nest
        self.sites = [s for s in sites if not s.domain.empty]
        self.writes: dict[Key, list[Access]] = defaultdict(list)
        self.reads: dict[Key, list[Access]] = defaultdict(list)
        for s in self.sites:
            self.writes[s.key(s.write.buffer)].append((s, s.write.index))
            for ld in loads(s.write.value):
                if s.buffer(nest, ld.buffer).scope != "input":
                    self.reads[s.key(ld.buffer)].append((s, ld.index))
        self.complete: set[Key] = set()

    def violations(self) -> Iterator[Violation]:
        stages = {c.name: c for c in self.computes}
        for c in self.computes:
            yield from self._evaluated(c)
        results: dict[Key, list[Access]] = {(b.name, ()): [] for b in self.nest.buffers if b.scope == "output"}
        for key, writes in (results | self.writes).items():
            yield from self._initialised(key, [s for s, _ in writes])
        for key, reads in self.reads.items():
            for s, index in dict.fromkeys(reads):
                yield from self._partial(key, s, index)
                yield from self._defined(key, s, index)
        for key, writes in self.writes.items():
            for s, index in writes:
                if not isinstance(s.write, Reduce):
                    continue
                first = s.write.first
                if first is None or any(s.domain.nonnegative(a - 1) for a in first):
                    yield from self._defined(key, s, index)  # it never initialises, so it reads its target
                if key[1] and key[0] not in stages:
                    yield from self._used(key, s, index)

    # ---- coverage ---------------------------------------------------------------------------------------------------

    def _evaluated(self, c: Compute) -> Iterator[Violation]:
        """Every point of a stage is evaluated once (for a private result: once an instance, or not at all)."""
        axes = c.axes if any(a.extent == 0 for a in c.reduce_axes) else c.all_axes
        own = [s for s in self.sites if s.write.tag == c.name and s.write.role == "compute"]
        if any(a.extent == 0 for a in c.axes) or (not own and c.name not in self.nest.all_buffers):
            return  # nothing to do, or inlined into its readers
        shape, names = tuple(a.extent for a in axes), tuple(a.name for a in axes)
        bodies = [(tuple(dict(s.write.origin).get(n, const(-1)) for n in names), s.space) for s in own]
        for s, (at, _) in zip(own, bodies):
            for a, n in zip(at, shape):
                if violation := outside(s, a, n, f"coordinate of {c.name}"):
                    yield replace(violation, kind="coverage")
                    return
        what = f"stage {c.name}, point ({', '.join(names)})"
        try:
            g = grid(bodies, shape)
            whole = bool((g.total == 1).all())
            if not whole and own and all(b.name != c.name for b in self.nest.buffers):
                levels = [s.level(c.name) or s.level(s.write.buffer) for s in own]
                per = per_instance(bodies, shape, [s.outer(n) for s, n in zip(own, levels)])
                inside = range(len(c.axes), len(shape))
                reducing = [n for n, (dims, _, _) in enumerate(per.axes) if any(d in inside for d in dims)]
                apart = all(min(per.axes[n][0]) >= len(c.axes) for n in reducing)
                most = per.total.max(axis=tuple(reducing), keepdims=True) if reducing else per.total
                whole = apart and bool((per.total <= 1).all() and (per.total == most).all())
            if not whole and not self._idle(c, bodies, shape):
                yield _visits(g, g.total, what, "evaluated", names)
        except TooManyPoints:
            yield Violation("undecided", f"{what}: too many points to count how often each is evaluated")

    def _idle(self, c: Compute, bodies: list[Body], shape: tuple[int, ...]) -> bool:
        """Is every point evaluated once, but for contributions that change nothing?"""
        spare = list(idle_points(c, {o.name: o for o in self.computes if o.combiner is None}))
        if not spare or not bodies:
            return False
        g = grid([*bodies, *spare], shape)
        times = sum(g.rows[: len(bodies)], np.zeros_like(g.total))
        return bool(((times == 1) | ((times == 0) & (g.total > 0))).all())

    def _initialised(self, key: Key, writes: list[Site]) -> Iterator[Violation]:
        """Every element of a result, or of what a Reduce updates, starts once: by a Store, or where `first` is zero."""
        buffer = writes[0].buffer(self.nest, key[0]) if writes else self.nest.all_buffers[key[0]]
        if key[1] and not any(isinstance(s.write, Reduce) for s in writes):
            return
        starts: list[Site] = []
        bodies: list[Body] = []
        for s in writes:
            first = s.write.first if isinstance(s.write, Reduce) else ()
            for a in first or ():
                if not s.domain.nonnegative(a) or any(c < 0 for _, c in a.terms):
                    yield Violation("order", f"first({a}) may be zero after other contributions, in {s}")
                    return
            if first is not None:
                starts.append(s)
                bodies.append((s.write.index, s.space.at_zero(first)))
        updates = [s for s in starts if key[1] and isinstance(s.write, Reduce)]
        bodies += [(s.write.index, s.space) for s in updates]
        try:
            g = per_instance(bodies, buffer.shape, [s.outer(len(key[1])) for s in (*starts, *updates)])
        except TooManyPoints:
            yield Violation("undecided", f"{key[0]}: too many points to count how often each element starts")
            return
        for s in starts:
            if isinstance(s.write, Reduce) and (late := _unordered(s)) is not None:
                yield Violation("order", f"first({late}) may be zero after other contributions, in {s}")
        times = sum(g.rows[: len(starts)], np.zeros_like(g.total))
        what, dims = f"{buffer.scope} {buffer.name}, element", tuple(f"dim{d}" for d in range(len(buffer.shape)))
        if bool((times == 1).all()):
            self.complete.add(key)
        elif not key[1] or bool((times > 1).any()):
            yield _visits(g, times, what, "initialised", dims)
        elif bool(((times == 0) & (g.total > 0)).any()):
            yield _visits(g, np.where(g.total > 0, times, 1), what, "updated, and initialised", dims)

    # ---- order ------------------------------------------------------------------------------------------------------

    def _defined(self, key: Key, site: Site, index: Index) -> Iterator[Violation]:
        """What is read has been written before, in the same iteration of the loops around both."""
        writes = self.writes[key]
        if key in self.complete and all(
            w.position < site.position and not any(isinstance(b, Loop) for b in w.path[len(key[1]) : w.common(site)])
            for w, _ in writes
            if not (isinstance(w.write, Reduce) and w.write.first is None)
        ):
            return
        before = [(w, at) for w, at in writes if w.position < site.position]
        carried = [(w, at) for w, at in writes if _carried(w, site, len(key[1]))]
        yield from self._met("undefined", "is read before it is written", before, (site, index), key[0], carried)

    def _used(self, key: Key, site: Site, index: Index) -> Iterator[Violation]:
        """What is accumulated is read afterwards (a maximum that loses a lane is seldom seen from outside)."""
        more = [(w, at) for w, at in self.writes[key] if isinstance(w.write, Reduce) and w.write.role == "combine"]
        after = [(r, at) for r, at in (*self.reads[key], *more) if r.position > site.position]
        yield from self._met("unused", "is not read after its update", after, (site, index), key[0])

    def _met(
        self, kind: str, what: str, others: list[Access], access: Access, name: str, carried: Sequence[Access] = ()
    ) -> Iterator[Violation]:
        """A violation unless every element of the access is one of the others', in one iteration of common loops, or
        one that an iteration before touched in `carried`: the last one, or as many as a remainder in the index turns
        through."""
        if any(_covers(other, access) for other in reversed(others)):
            return
        what = f"{name}[{', '.join(map(str, access[1]))}] {what} in {access[0]}"
        try:
            shape = access[0].buffer(self.nest, name).shape
            rows = [(other, 0) for other in others]
            missing = _missing(rows, access, shape) if others else ()
            turns = [t.divisor - 1 for a in access[1] for t, _ in a.terms if isinstance(t, Mod) and t.divisor <= TURNS]
            for back in range(1, max(1, *turns, 0) + 1 if carried else 1):
                if missing is not None:
                    rows += [(other, back) for other in carried]
                    missing = _missing(rows, access, shape)
        except TooManyPoints:
            yield Violation("undecided", f"{what}, or not: too many points to tell")
            return
        if missing is not None:
            yield Violation(kind, what, missing)

    def _partial(self, key: Key, site: Site, index: Index) -> Iterator[Violation]:
        """A reduced buffer is read only when its reduction is over."""
        for w, written in self.writes[key]:
            if not isinstance(w.write, Reduce):
                continue
            if w is site:
                if not apart((site, index), (w, written)):
                    yield Violation("partial", f"{site} reads what it updates")
                continue
            moved = frozenset().union(*(a.names() for a in written))
            moved -= frozenset().union(*(a.names() for a in w.write.first or ()))
            for b in site.path[len(key[1]) : w.common(site)]:
                if not isinstance(b, Loop) or b.name in moved or b.constant == 1:
                    continue
                only = w.domain.upper(var(b.name))
                if only is not None and only == w.domain.lower(var(b.name)):
                    loops = tuple(lp for lp in site.path if isinstance(lp, Loop))
                    early = domain(loops, (*_conditions(site.path), var(b.name) * -1 + (only - 1)))
                    if early.empty or _off(early, index, w.domain, written):
                        continue  # the update runs in one iteration alone (a remainder's), and is read from then on
                if not any(site.domain.nonnegative(var(b.name) - e + 1) for e in b.extents):
                    yield Violation("partial", f"{key[0]} is read before its reduction over {b.name} ends, in {site}")
            if site.position < w.position and not apart((site, index), (w, written)):
                yield Violation("partial", f"{key[0]} is read in {site} before its last update in {w}")


def per_instance(bodies: Sequence[Body], shape: tuple[int, ...], outer: Sequence[tuple[str, ...]]) -> Grid:
    """A grid with further dimensions: the outer loops that the inner ones, the coordinates or some bodies depend on."""
    parts = [[(frozenset(n for n, _ in p.loops), p) for p in clusters(where, at)] for at, where in bodies]
    alike = set(parts[0]).intersection(*parts[1:]) if parts else set()
    inner = [
        [p[0] for p in own if p not in alike or not p[0].issubset(o) or any(p[0] & a.names() for a in at)]
        for own, o, (at, _) in zip(parts, outer, bodies)
    ]
    linked = frozenset().union(*(names.intersection(o) for held, o in zip(inner, outer) for names in held))
    extra = tuple(dict.fromkeys(n for o in outer for n in o if n in linked))
    made, sizes = [], dict.fromkeys(extra, 1)
    for (at, where), own, held, o in zip(bodies, parts, inner, outer):
        kept = [p for names, p in own if names in held or names & linked or not names]
        made.append(((*at, *(var(n) if n in o else const(0) for n in extra)), merged(where, kept)))
        for n in linked.intersection(o):
            sizes[n] = max(sizes[n], 1 + (domain_of(where.loops, where.guards).upper(var(n)) or 0))
    return grid(made, (*shape, *sizes.values()), len(sizes))


def _conditions(path: Sequence[Block]) -> tuple[Affine, ...]:
    return tuple(c for b in path if isinstance(b, Guard) for c in b.conditions)


def _visits(g: Grid, times: Array, what: str, verb: str, names: tuple[str, ...]) -> Violation:
    wrong = np.argwhere(times > 1 if bool((times > 1).any()) else times != 1)
    cell = tuple(int(v) for v in wrong[0])
    return Violation("coverage", f"{what} is {verb} {int(times[cell])} times", tuple(zip(names, g.point(cell))))


def _unordered(site: Site) -> Affine | None:
    """A coordinate of `first` that is not proved to be zero before all other contributions to an element.

    Proved: with the loops that it names at zero a contribution is one to the same element, exists, and is a start; of
    starts there is one. Or the loops count x, and the element is that of x // d: it starts at the least x, where x % d
    is zero."""
    write = site.write
    assert isinstance(write, Reduce) and write.first is not None
    if any(site.domain.nonnegative(a - 1) for a in write.first):
        return None  # no contribution starts an element
    found, reset = list(write.first), set[str]()
    for a in write.first:
        if isinstance(atom := _only(a), Mod) and (quotient := atom.arg // atom.divisor) in found:
            found.remove(a)  # what fused loops leave: x // d and x % d are zero where x is
            found[found.index(quotient)] = atom.arg
    index = frozenset().union(*(a.names() for a in write.index))
    for a in found:
        if isinstance(atom := _only(a), Mod) and atom.arg // atom.divisor in write.index and _counts(atom.arg, site):
            reset |= atom.arg.names()
        elif a.is_linear and a.const == 0 and all(c > 0 for _, c in a.terms) and not _moving(site, a.names() & index):
            reset |= a.names()
        else:
            return a
    bounds = [*_conditions(site.path), *(e for b in site.path if isinstance(b, Loop) for e in b.extents)]
    more = any(
        atom.arg.names() & reset if not isinstance(atom, str) else c > 0 and atom in reset
        for a in bounds for atom, c in a.terms
    )  # fmt: skip
    return write.first[0] if more else None


def _only(a: Affine) -> Atom:
    """The atom that an affine is, "" if it is none."""
    return a.terms[0][0] if a.const == 0 and len(a.terms) == 1 and a.terms[0][1] == 1 else ""


def _moving(site: Site, names: frozenset[str]) -> bool:
    return any(site.domain.upper(var(n)) != 0 for n in names)


def _counts(a: Affine, site: Site) -> bool:
    """Each iteration of the loops that it names has a larger value than those before."""
    below = 0
    for n in reversed([b.name for b in site.path if isinstance(b, Loop) and b.name in a.names()]):
        if not a.is_linear or a.coefficient(n) <= below:
            return False
        below += a.coefficient(n) * (site.domain.upper(var(n)) or 0)
    return True


def _carried(write: Site, read: Site, level: int) -> bool:
    """Is the innermost loop around both, below the buffer's Alloc, one whose iterations follow each other?"""
    common = [b for b in read.path[level : write.common(read)] if isinstance(b, Loop)]
    return bool(common) and common[-1].kind in ("serial", "unroll") and common[-1].constant != 1


def _missing(
    others: list[tuple[Access, int]], access: Access, shape: tuple[int, ...]
) -> tuple[tuple[str, int], ...] | None:
    """An element of the access that none of the others touches in the same iteration of common loops, or in one so many
    iterations before of the innermost of them; None if there is no such element."""
    site, index = access
    shared = site.path[: max(o.common(site) for (o, _), _ in others)]
    around = space(shared)
    bodies: list[Body] = [(index, site.space)]
    for (o, touched), back in others:
        inner = o.path[o.common(site) :]
        innermost = next((b.name for b in reversed(o.path[: o.common(site)]) if isinstance(b, Loop)), "")
        before = {innermost: var(innermost) - back} if back else {}
        fresh = {b.name: var(f"{b.name}'") for b in inner if isinstance(b, Loop)}
        loops = [(b.name, b.extents) for b in inner if isinstance(b, Loop)]
        own = [(f"{n}'", tuple(e.substitute(fresh | before) for e in extents)) for n, extents in loops]
        guards = [c.substitute(fresh | before) for c in _conditions(o.path if back else inner)]
        guards += [var(innermost) - back] if back else []
        where = Space((*around.loops, *own), (*around.guards, *guards)).normal()
        bodies.append((tuple(a.substitute(fresh | before) for a in touched), where))
    g = per_instance(bodies, shape, [tuple(n for n, _ in around.loops)] * len(bodies))
    bad = np.argwhere((g.rows[0] > 0) & (sum(g.rows[1:]) == 0))
    return tuple((f"dim{d}", v) for d, v in enumerate(g.point(bad[0])[: len(shape)])) if len(bad) else None


def _covers(other: Access, access: Access) -> bool:
    """Proved: every element of the access is touched by the other in an iteration of the loops around that alone.

    The iteration is solved for: an index with the coefficients c1 > c2 > ... gives the digits of the element's in that
    mixed radix, and x // d in one dimension with x % d in another give x.
    """
    (o, touched), (site, index) = other, access
    inner = o.path[o.common(site) :]
    extents = {b.name: b.extents for b in inner if isinstance(b, Loop)}
    around = {(b.name, b.extents) for b in site.path if isinstance(b, Loop)}
    if touched == index and extents.items() <= around and not _conditions(inner):
        return True
    pairs = {(o.domain.simplify(a), at) for a, at in zip(touched, index)}
    equal = dict(pairs)
    if len(equal) < len(pairs):
        return False
    must: list[Affine] = []
    for a in list(equal):
        atom = a.terms[0][0] if len(a.terms) == 1 else ""
        if isinstance(atom, FloorDiv) and a == atom.arg // atom.divisor and (rest := atom.arg % atom.divisor) in equal:
            must += [equal[rest], atom.divisor - 1 - equal[rest]]
            equal[atom.arg] = equal.pop(a) * atom.divisor + equal.pop(rest)
    solved: dict[str, Affine] = {}
    for a, at in equal.items():
        if any(not isinstance(t, str) and not extents.keys().isdisjoint(t.arg.names()) for t, _ in a.terms):
            return False
        rest = at - Affine(tuple((t, c) for t, c in a.terms if t not in extents), a.const)
        for c, n in sorted(((c, n) for n, c in a.terms if isinstance(n, str) and n in extents), reverse=True):
            if c < 1 or n in solved:
                return False
            solved[n], rest = site.domain.simplify(rest // c), site.domain.simplify(rest % c)
        if rest != const(0):
            return False
    value = {n: solved.get(n, const(0)) for n in extents}
    must += [*solved.values(), *(e.substitute(value) - 1 - value[n] for n, es in extents.items() for e in es)]
    must += [c.substitute(value) for c in _conditions(inner)]
    return all(map(site.domain.nonnegative, must))


def apart(one: Access, two: Access) -> bool:
    """Proved: in some dimension all of one access lies below, or above, all of the other."""
    return _off(one[0].domain, one[1], two[0].domain, two[1])


def _off(one: Domain, index: Index, two: Domain, other: Index) -> bool:
    for a, b in zip(index, other):
        (low, high), (least, most) = ((where.lower(x), where.upper(x)) for where, x in ((one, a), (two, b)))
        if None not in (low, high, least, most) and (high < least or most < low):  # type: ignore[operator]
            return True
    return False
