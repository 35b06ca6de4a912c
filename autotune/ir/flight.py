"""Copies that stay under way while threads meet several times: a block is followed step by step, with the numbers that
its loops have.

A copy that is `asynchronous` n times over is there once threads have met n times after it began. Until then nobody may
touch its target, nor write its source. (Of those that are there at the next meeting `spmd` knows.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import lcm

from .affine import Affine, Mod, const
from .bounds import lower, upper
from .dataflow import Site, sites
from .nest import THREAD_KINDS, Alloc, Guard, Loop, Nest, Prefetch, Stmt, Store, leaves, reads, walk

Position = tuple[int, ...]
STEPS = 50_000  # of a block that are followed
FAR = 1 << 62
Numbers = Mapping[str, Affine]
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Copy:
    """One that is under way: where its numbers put it, what it reads, and how often threads have to meet."""

    text: str
    name: str
    index: Ranges
    sources: frozenset[str]
    meets: int


def early(nest: Nest) -> dict[Position, str]:
    """Places (with the reason) where something is touched that a copy under way writes, or written that one reads."""
    if not any(isinstance(s, Store) and s.asynchronous > 1 for s in leaves(nest.body)):
        return {}
    block = _Block()
    for n, stmt in enumerate(nest.body):
        block.run((stmt,), (n,), {}, ())
    return block.found


class _Block:
    def __init__(self) -> None:
        self.found: dict[Position, str] = {}
        self.left = STEPS
        self._uses: dict[Position, _Region] = {}

    def run(
        self, body: tuple[Stmt, ...], first: Position, at: Numbers, flying: tuple[_Copy, ...]
    ) -> tuple[_Copy, ...]:
        """What is under way after the statements, of which `first` is the first one's position."""
        for n, stmt in enumerate(body):
            here = (*first[:-1], first[-1] + n)
            self.left -= 1
            if isinstance(stmt, Loop) and stmt.barrier:
                flying = tuple(replace(c, meets=c.meets - 1) for c in flying if c.meets > 1)
            inside = isinstance(stmt, (Loop, Alloc, Guard)) and not (
                isinstance(stmt, Loop) and stmt.kind in THREAD_KINDS)  # fmt: skip
            if isinstance(stmt, (Loop, Alloc, Guard)) and inside:
                flying = self._through(stmt, here, at, flying)
            else:
                flying = self._region(stmt, here, at, flying)
        return flying

    def _through(
        self, stmt: Loop | Alloc | Guard, here: Position, at: Numbers, flying: tuple[_Copy, ...]
    ) -> tuple[_Copy, ...]:
        inner = (*here, 0)
        if isinstance(stmt, Alloc):
            return self.run(stmt.body, inner, at, flying)
        if isinstance(stmt, Guard):
            after = self.run(stmt.body, inner, at, flying)
            return tuple(dict.fromkeys((*flying, *after)))  # either way
        if stmt.kind.startswith("block"):
            self.run(stmt.body, inner, at, ())
            return ()
        if stmt.constant is None:
            if flying or any(isinstance(s, Store) and s.asynchronous > 1 for s in leaves(stmt.body)):
                self.found.setdefault(here, f"copies are under way in {stmt.name}, whose extent is no constant")
            return flying
        period, seen, t = _period(stmt), dict[tuple[int, frozenset[_Copy]], int](), 0
        while t < stmt.constant:
            if self.left < 0:
                self.found.setdefault(here, f"copies are under way in {stmt.name}, which is too long to follow")
                return flying
            flying = self.run(stmt.body, inner, {**at, stmt.name: const(t)}, flying)
            t += 1
            if period and (before := seen.setdefault((t % period, frozenset(flying)), t)) < t:
                t += (stmt.constant - t) // (t - before) * (t - before)  # it goes on as it did
                seen.clear()
        return flying

    def _region(self, stmt: Stmt, here: Position, at: Numbers, flying: tuple[_Copy, ...]) -> tuple[_Copy, ...]:
        """Something that threads do without meeting."""
        region = self._uses.get(here)
        if region is None:
            region = self._uses[here] = _Region(stmt)
        for site, name, index, write in region.touched:
            where: Ranges | None = None
            for c in flying:
                if name == c.name:
                    where = where or _placed(index, at, region.inside(site))
                if write and name in c.sources or where and name == c.name and not _differ(where, c.index):
                    self.found.setdefault(here, f"{site} touches what a copy under way, {c.text}, does")
        return tuple(dict.fromkeys((*flying, *(region.begun(s, at) for s in region.copies))))


@dataclass(frozen=True)
class _Region:
    stmt: Stmt

    @cached_property
    def _sites(self) -> list[Site]:
        return [s for s in sites((self.stmt,)) if not isinstance(s.leaf, Prefetch)]

    @cached_property
    def touched(self) -> list[tuple[Site, str, tuple[Affine, ...], bool]]:
        """(statement, array, index, written) of every access."""
        rows = []
        for s in self._sites:
            rows += [(s, s.leaf.buffer, s.leaf.index, True), *((s, b, index, False) for b, index in reads(s.leaf))]
        return rows

    @cached_property
    def copies(self) -> list[Site]:
        return [s for s in self._sites if isinstance(s.leaf, Store) and s.leaf.asynchronous > 1]

    @staticmethod
    def inside(site: Site) -> tuple[Loop, ...]:
        return tuple(b for b in site.path if isinstance(b, Loop))

    def begun(self, site: Site, at: Numbers) -> _Copy:
        leaf = site.leaf
        assert isinstance(leaf, Store)
        sources = frozenset(b for b, _ in reads(leaf))
        return _Copy(str(site), leaf.buffer, _placed(leaf.index, at, self.inside(site)), sources, leaf.asynchronous)


def _placed(index: tuple[Affine, ...], at: Numbers, inside: tuple[Loop, ...]) -> Ranges:
    """Of each dimension the least and the greatest value, over the loops that threads run by themselves."""
    found = []
    for a in (a.substitute(at) for a in index):
        low, high = lower(a, inside), upper(a, inside)
        found.append((-FAR if low is None else low, FAR if high is None else high))
    return tuple(found)


def _differ(one: Ranges, two: Ranges) -> bool:
    """Proved: in one dimension all of one lies below all of the other."""
    return any(a[1] < b[0] or b[1] < a[0] for a, b in zip(one, two))


def _period(loop: Loop) -> int:
    """Iterations after which every index that has this loop in a remainder has it again; 0 where one of an array that
    is copied into has it in another way too."""
    into = {s.buffer for s in leaves(loop.body) if isinstance(s, Store) and s.asynchronous > 1}
    found = 1
    for leaf, _ in walk(loop.body):
        if isinstance(leaf, (Loop, Alloc, Guard)):
            continue
        for name, index in ((leaf.buffer, leaf.index), *reads(leaf)):
            for term, _ in (t for a in index for t in a.terms if name in into):
                if isinstance(term, Mod) and loop.name in term.arg.names():
                    found = lcm(found, term.divisor)
                elif term == loop.name or not isinstance(term, str) and loop.name in term.arg.names():
                    return 0
    return found
