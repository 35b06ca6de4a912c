"""The verifier: is a nest well formed, in bounds, free of races, complete, and small enough for the machine?

It takes the very nest that is rendered and knows nothing of the steps that made it. What it cannot decide it rejects.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd, prod

from .affine import Affine, Atom, FloorDiv, Mod, affine
from .dataflow import Access, Dataflow, Site, Violation, outside
from .errors import VerifyError
from .expr import names
from .limits import Limits
from .nest import LOOP_KINDS, Alloc, Block, Guard, Loop, Nest, Prefetch, Reduce, Stmt, reads
from .program import COMBINERS, Buffer, TensorProgram


@dataclass(frozen=True, slots=True)
class Report:
    """What is wrong: nothing, if the nest may run. (What it does is counted by `counts.count_nest`.)"""

    violations: tuple[Violation, ...]

    @property
    def ok(self) -> bool:
        return not self.violations

    def check(self) -> None:
        """Raises VerifyError if anything is wrong."""
        if self.violations:
            raise VerifyError("; ".join(map(str, self.violations[:4])))


def verify(program: TensorProgram, nest: Nest, limits: Limits) -> Report:
    """All checks. The first group that fails ends the verification: later ones rely on what earlier ones prove."""
    sites: list[Site] = []
    found = list(_Structure(program, nest, sites).violations())
    if found:
        return Report(tuple(found))
    found = list(_limits(nest, sites, limits)) + list(_bounds(nest, sites))
    if not found:
        statements = [s for s in sites if not isinstance(s.leaf, Prefetch)]
        found = [*_races(nest, statements), *Dataflow(program, nest, statements).violations()]
    return Report(tuple(dict.fromkeys(found)))


class _Structure:
    """Names, kinds, ranks, types and scopes; collects the sites on the way."""

    def __init__(self, program: TensorProgram, nest: Nest, sites: list[Site]) -> None:
        self.program, self.nest, self.sites = program, nest, sites

    def violations(self) -> Iterator[Violation]:
        declared = {b.name: b for b in self.nest.buffers}
        wanted = {b.name: b for b in self.program.buffers}
        for b in self.nest.buffers:
            if wanted.get(b.name) != b or sum(o.name == b.name for o in self.nest.buffers) > 1:
                yield Violation("buffers", f"{b.scope} {b.name} is not the program's, or declared twice")
        for b in self.program.buffers:
            if b.scope != "temp" and b.name not in declared:
                yield Violation("buffers", f"{b.scope} {b.name} is missing")
        yield from self._visit(self.nest.body, (), (), {}, declared)

    def _visit(
        self, body: tuple[Stmt, ...], path: tuple[Block, ...], position: tuple[int, ...], loops: dict[str, Loop],
        buffers: dict[str, Buffer],
    ) -> Iterator[Violation]:  # fmt: skip
        for n, stmt in enumerate(body):
            here = (*position, n)
            match stmt:
                case Loop(name=name):
                    yield from self._loop(stmt, loops)
                    yield from self._visit(stmt.body, (*path, stmt), here, {**loops, name: stmt}, buffers)
                case Guard(conditions=conditions):
                    yield from _bound(conditions, loops, "a guard")
                    yield from self._visit(stmt.body, (*path, stmt), here, loops, buffers)
                case Alloc(buffer=b):
                    if b.name in buffers or b.scope not in ("scratch", "register") or b.strides:
                        yield Violation("buffers", f"alloc of {b.scope} {b.name}: taken name, wrong scope, or strides")
                    yield from self._visit(stmt.body, (*path, stmt), here, loops, {**buffers, b.name: b})
                case _:
                    site = Site(stmt, path, here)
                    yield from self._leaf(site, loops, buffers)
                    self.sites.append(site)

    def _loop(self, lp: Loop, loops: dict[str, Loop]) -> Iterator[Violation]:
        if lp.name in loops or not lp.extents:
            yield Violation("names", f"loop {lp.name} repeats a name of its path, or has no extent")
        yield from _bound(lp.extents, loops, lp.name)
        most = min((e.const for e in lp.extents if e.is_const), default=None)
        inside = [k.kind for k in loops.values()]
        bad = (lp.kind == "parallel" and inside) or (lp.kind != "vector" and "vector" in inside)
        if lp.kind not in LOOP_KINDS or bad:
            yield Violation("kind", f"loop {lp.name} cannot be {lp.kind} inside {', '.join(inside) or 'no'} loops")
        if lp.kind in ("unroll", "vector") and most is None:
            yield Violation("kind", f"{lp.kind} loop {lp.name} has no constant bound")
        if lp.kind == "vector":
            if lp.lanes < 1 or lp.lanes & (lp.lanes - 1) or (most is not None and most > lp.lanes):
                yield Violation("lanes", f"{lp.lanes} lanes of {lp.name} are not a power of two that its extent fits")
            if any(isinstance(s, (Alloc, Guard)) for s in lp.body):
                yield Violation("kind", f"vector loop {lp.name} holds more than statements and vector loops")

    def _leaf(self, site: Site, loops: dict[str, Loop], buffers: dict[str, Buffer]) -> Iterator[Violation]:
        leaf = site.leaf
        yield from _bound(leaf.index, loops, site)
        target = buffers.get(leaf.buffer)
        if not isinstance(leaf, Prefetch):
            yield from _bound((*(a for _, a in leaf.origin), *(getattr(leaf, "first", None) or ())), loops, site)
            if unbound := names(leaf.value) - loops.keys():
                yield Violation("names", f"{sorted(unbound)[0]} is not a loop around {site}")
            if target and (target.scope == "input" or target.dtype != leaf.value.dtype):
                yield Violation("buffers", f"{site} writes an input, or {leaf.value.dtype} into {target.dtype}")
            if isinstance(leaf, Reduce) and leaf.combiner not in COMBINERS:
                yield Violation("combiner", f"{leaf.combiner} in {site}")
        for name, index in ((leaf.buffer, leaf.index), *reads(leaf)):
            buffer = buffers.get(name)
            if buffer is None or len(index) != len(buffer.shape):
                yield Violation("buffers", f"{name} is not allocated here, or not of rank {len(index)}, in {site}")
            elif buffer.scope == "register":
                for n in frozenset().union(*(a.names() for a in index)) & loops.keys():
                    if loops[n].kind not in ("unroll", "vector") and loops[n].constant != 1:
                        yield Violation("register", f"register {name} is indexed by {loops[n].kind} loop {n} in {site}")


def _bound(values: tuple[Affine, ...], loops: dict[str, Loop], what: object) -> Iterator[Violation]:
    for a in values:
        if unbound := a.names() - loops.keys():
            yield Violation("names", f"{sorted(unbound)[0]} is not a loop around {what}")


def _limits(nest: Nest, sites: list[Site], limits: Limits) -> Iterator[Violation]:
    def live(body: tuple[Stmt, ...]) -> int:
        inner = [(s, live(s.body)) for s in body if isinstance(s, (Loop, Alloc, Guard))]
        scratch = [isinstance(s, Alloc) and s.buffer.scope == "scratch" and s.buffer.bytes for s, _ in inner]
        return max((n + own for (_, n), own in zip(inner, scratch)), default=0)

    bodies: dict[str, int] = defaultdict(int)
    instances = 0
    for s in sites:
        bodies[s.leaf.tag] += getattr(s.leaf, "role", "") == "compute"
        unrolled = (b.extents for b in s.path if isinstance(b, Loop) and b.kind == "unroll")
        instances += prod(min(e.const for e in extents if e.is_const) for extents in unrolled)
    if (most := max(bodies, key=bodies.__getitem__, default="")) and bodies[most] > limits.bodies:
        yield Violation("limit", f"stage {most} has {bodies[most]} bodies; at most {limits.bodies}")
    if instances > limits.instances:
        yield Violation("limit", f"{instances} statements after unrolling; at most {limits.instances}")
    if (size := live(nest.body)) > limits.scratch_bytes:
        yield Violation("limit", f"{size} bytes of scratch memory; at most {limits.scratch_bytes}")


def _bounds(nest: Nest, sites: list[Site]) -> Iterator[Violation]:
    for s in sites:
        for name, index in dict.fromkeys(((s.leaf.buffer, s.leaf.index), *reads(s.leaf))):
            for d, (a, size) in enumerate(zip(index, s.buffer(nest, name).shape)):
                if violation := outside(s, a, size, f"index {d} of {name},"):
                    yield violation


# ---- races ----------------------------------------------------------------------------------------------------------


def _races(nest: Nest, sites: list[Site]) -> Iterator[Violation]:
    """No element that one iteration of a parallel or vector loop writes is touched by another one."""
    inside: dict[tuple[int, ...], list[Site]] = defaultdict(list)
    for s in sites:
        for level, b in enumerate(s.path):
            if isinstance(b, Loop) and b.kind in ("parallel", "vector") and b.constant != 1 and not s.domain.empty:
                inside[s.position[: level + 1]].append(s)
    for place, held in inside.items():
        level = len(place) - 1
        lp = held[0].path[level]
        written: dict[str, list[Access]] = defaultdict(list)
        touched: dict[str, list[Access]] = defaultdict(list)
        for s in held:
            for name, index in ((s.leaf.buffer, s.leaf.index), *reads(s.leaf)):
                if s.level(name) <= level:
                    touched[name].append((s, index))
            if s.level(s.leaf.buffer) <= level:
                written[s.leaf.buffer].append((s, s.leaf.index))
        for name, writes in written.items():
            assert isinstance(lp, Loop)
            alone = len(touched[name]) == 1 and isinstance(writes[0][0].leaf, Reduce)
            if lp.kind == "vector" and alone and not any(lp.name in a.names() for a in writes[0][1]):
                continue  # a horizontal reduction
            if not _separate(lp, level, touched[name], writes[0][1], writes[0][0].buffer(nest, name)):
                yield Violation("race", f"iterations of {lp.kind} loop {lp.name} may share {name}: {writes[0][0]}")


def _separate(lp: Loop, level: int, accesses: list[Access], model: tuple[Affine, ...], buffer: Buffer) -> bool:
    """Proved: two iterations differ in a digit (the loop itself, or its quotient and remainder by some n), and each
    digit decides a dimension: index = c * digit + (the same for all) + rest, the rest spread over less than |c|."""
    own = affine(lp.name)
    atoms = [t for _, index in accesses for a in index for t, _ in a.terms if not isinstance(t, str)]
    digits: list[tuple[Atom, ...]] = [(FloorDiv(own, t.divisor), Mod(own, t.divisor)) for t in atoms if t.arg == own]
    flat: list[tuple[Affine, ...]] = []
    for index in (model, *(index for _, index in accesses)):
        total = Affine()
        for a, stride in zip(index, buffer.contiguous_strides):
            total += a * stride
        flat.append((*index, total))
    outer = {b.name for b in accesses[0][0].path[:level] if isinstance(b, Loop)}

    def decided(digit: Atom, d: int) -> bool:
        step = flat[0][d].coefficient(digit)
        shared = Affine(tuple((t, c) for t, c in flat[0][d].terms if Affine(((t, 1),)).names() <= outer))
        rests = [(s.domain, index[d] - shared - Affine(((digit, step),))) for (s, _), index in zip(accesses, flat[1:])]
        ends = [(where.lower(rest), where.upper(rest)) for where, rest in rests]
        low, high = [e[0] for e in ends if e[0] is not None], [e[1] for e in ends if e[1] is not None]
        if step != 0 and len(low) == len(high) == len(ends) and max(high) - min(low) < abs(step):
            return True
        # Or all rests are equal modulo something that c * digit stays below.
        most = max(where.upper(Affine(((digit, 1),))) or 0 for where, _ in rests)
        period = gcd(*(c for _, r in rests for _, c in r.terms), *(r.const - rests[0][1].const for _, r in rests))
        return step != 0 and abs(step) * most < period

    return any(all(any(decided(v, d) for d in range(len(flat[0]))) for v in row) for row in ((lp.name,), *digits))
