"""The verifier: is a nest well formed, in bounds, free of races, complete, and small enough for the machine?

It takes the very nest that is rendered and knows nothing of the steps that made it. What it cannot decide it rejects.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from .affine import Affine, const, var
from .dataflow import Dataflow, Site, Violation, outside
from .dataflow import sites as all_sites
from .digits import digits
from .dots import misuse
from .errors import VerifyError
from .expr import gathers, names
from .instructions import INSTRUCTIONS, use
from .limits import Limits
from .nest import (
    BLOCK_KINDS,
    LOOP_KINDS,
    THREAD_KINDS,
    Alloc,
    Block,
    Guard,
    Loop,
    Nest,
    Prefetch,
    Reduce,
    Stmt,
    reads,
    walk,
)
from .program import COMBINERS, Buffer, TensorProgram
from .races import races
from .spmd import Position, grids, hazards, launch, spread, threaded


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
    found = [*_Structure(program, nest, sites).violations(), *_numbered(nest)]
    if found:
        return Report(tuple(found))
    found = list(_limits(nest, sites, limits)) + list(_bounds(nest, sites))
    if not found:
        plain = digits(nest)
        statements = [s for s in all_sites(plain.body) if not isinstance(s.leaf, Prefetch)]
        found = [*races(plain, statements), *hazards(nest), *Dataflow(program, plain, statements).violations()]
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
                    yield from self._loop(stmt, path, loops)
                    yield from self._visit(stmt.body, (*path, stmt), here, {**loops, name: stmt}, buffers)
                case Guard(conditions=conditions):
                    yield from _bound(conditions, loops, "a guard")
                    yield from self._visit(stmt.body, (*path, stmt), here, loops, buffers)
                case Alloc(buffer=b):
                    if b.name in buffers or b.scope not in ("scratch", "register", "shared", "warp") or b.strides:
                        yield Violation("buffers", f"alloc of {b.scope} {b.name}: taken name, wrong scope, or strides")
                    yield from _shares(stmt, path)
                    yield from self._visit(stmt.body, (*path, stmt), here, loops, {**buffers, b.name: b})
                case _:
                    site = Site(stmt, path, here)
                    yield from self._leaf(site, loops, buffers)
                    self.sites.append(site)

    def _loop(self, lp: Loop, path: tuple[Block, ...], loops: dict[str, Loop]) -> Iterator[Violation]:
        if lp.name in loops or not lp.extents or "'" in lp.name:  # names with a prime are the proofs' own
            yield Violation("names", f"loop {lp.name} repeats a name of its path, has a prime in it, or no extent")
        yield from _bound(lp.extents, loops, lp.name)
        if lp.kind == "tensor" and isinstance(why := use(lp, path), str):
            yield Violation("tensor", f"{lp.name}: {why}")
        if lp.kind == "dot" and (why := misuse(lp, path)):
            yield Violation("dot", f"{lp.name}: {why}")
        most = min((e.const for e in lp.extents if e.is_const), default=None)
        inside = [k.kind for k in loops.values()]
        bad = (lp.kind == "parallel" and bool(inside)) or (lp.kind not in ("vector", "dot") and "vector" in inside)
        bad |= "tensor" in inside and lp.kind not in ("serial", "unroll")
        if lp.kind in BLOCK_KINDS:  # blocks are outermost, one loop an axis; a grid is a box, and has no condition
            bad = lp.kind in inside or not set(inside) <= set(BLOCK_KINDS) or not lp.constant
        if lp.kind in THREAD_KINDS:
            threads = [k for k in inside if k in THREAD_KINDS]
            bad = bool(set(inside) - {"serial", "unroll", *BLOCK_KINDS, *THREAD_KINDS})
            bad |= lp.kind in threads if lp.kind != "thread" else set(threads) > {"thread"}
            bad |= lp.kind != "thread" and "thread" in threads
        if lp.kind not in LOOP_KINDS or bad:
            yield Violation("kind", f"loop {lp.name} cannot be {lp.kind} inside {', '.join(inside) or 'no'} loops")
        if lp.kind in ("unroll", "vector", "tensor", *BLOCK_KINDS, *THREAD_KINDS) and most is None:
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
            for source, dim, _ in gathers(leaf.value):
                read = buffers.get(source.buffer)
                if read is None or read.scope != "input" or source.index[dim] != const(0):
                    yield Violation("buffers", f"{source.buffer} is gathered from and no input, in {site}")
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
                    own = loops[n].kind in THREAD_KINDS and var(n) in index
                    if loops[n].kind not in ("unroll", "vector", "tensor") and loops[n].constant != 1 and not own:
                        yield Violation("register", f"register {name} is indexed by {loops[n].kind} loop {n} in {site}")


def _shares(stmt: Alloc, path: tuple[Block, ...]) -> Iterator[Violation]:
    """Shared arrays stand around thread loops, others outside of them are spread over the threads."""
    alone = any(isinstance(b, Loop) and b.kind in THREAD_KINDS for b in path)
    if stmt.buffer.scope != "scratch" and any(inside for _, inside in grids((stmt,))):
        yield Violation("buffers", f"{stmt.buffer.scope} {stmt.buffer.name} stands around grids")
    elif stmt.buffer.scope == "shared":
        if alone or not any(isinstance(b, Loop) and b.kind in BLOCK_KINDS for b in path) and not threaded(stmt):
            yield Violation("buffers", f"shared {stmt.buffer.name} is allocated by one thread")
    elif stmt.buffer.scope == "scratch" and any(inside for _, inside in grids((stmt,))):
        if any(not isinstance(b, Alloc) for b in path):
            yield Violation("buffers", f"{stmt.buffer.name} stands around grids, and inside a loop or a guard")
    elif stmt.buffer.scope == "warp":
        yield from _lanes(stmt, path)
    elif threaded(stmt) and (stmt.buffer.scope != "register" or spread(stmt) is None):
        yield Violation("buffers", f"{stmt.buffer.scope} {stmt.buffer.name} is reached by several threads")


def _lanes(stmt: Alloc, path: tuple[Block, ...]) -> Iterator[Violation]:
    """An array with an element in each lane of a warp: a lane writes its own, and reads one further on only where all
    lanes of the warp are."""
    name = stmt.buffer.name
    for leaf, inside in walk(stmt.body, (*path, stmt)):
        if isinstance(leaf, (Loop, Alloc, Guard)):
            continue
        around = [b for b in inside if isinstance(b, Loop) and b.kind in THREAD_KINDS]
        together = any(isinstance(b, Guard) for b in inside) or any(b.kind != "thread.x" for b in around)
        for n, (buffer, index) in enumerate(((leaf.buffer, leaf.index), *reads(leaf))):
            if buffer != name:
                continue
            own = var(around[0].name) if around else const(0)
            ahead = (index[-1] - own) if len(index) == 1 else own + var("?")
            if not ahead.is_const or ahead.const < 0 or (ahead.const and (n == 0 or together)):
                yield Violation("warp", f"{name}[{', '.join(map(str, index))}] is no lane's own, nor one further on")


def _numbered(nest: Nest) -> Iterator[Violation]:
    """All that one launch does is done by the same blocks: none waits for another; and in a region that counts threads
    through several loops, by the same of these loops."""
    for stmt, _ in grids(nest.body):
        blocks: set[tuple[Position, ...]] = set()
        together: dict[Position, set[tuple[Position, ...]]] = defaultdict(set)
        for s in all_sites((stmt,)):
            blocks.add(_places(s, BLOCK_KINDS))
            if threads := _places(s, THREAD_KINDS):
                together[threads[0]].add(_places(s, ("thread",)))
        if len(blocks) > 1:
            yield Violation("kind", "blocks of one launch do different things, one after another")
        if any(len(chains) > 1 for chains in together.values()):
            yield Violation("kind", "loops that count threads together stand side by side")


def _places(site: Site, kinds: tuple[str, ...]) -> tuple[Position, ...]:
    """The positions of the loops of some kinds around a statement."""
    found = (n for n, b in enumerate(site.path) if isinstance(b, Loop) and b.kind in kinds)
    return tuple(site.position[: n + 1] for n in found)


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
    wanted = {b.instruction for s in sites for b in s.path if isinstance(b, Loop) and b.instruction}
    if missing := wanted - set(limits.instructions):
        yield Violation("limit", f"the device has no instruction {sorted(missing)[0]}")
    for stmt, _ in grids(nest.body):
        asked = launch(stmt)
        if asked.threads > limits.threads:
            yield Violation("limit", f"{asked.threads} threads a block; at most {limits.threads}")
        held = [s.buffer for s, _ in walk((stmt,)) if isinstance(s, Alloc) and s.buffer.scope == "warp"]
        lanes = max((b.size for b in held), default=0)
        if held and (lanes > limits.warp or asked.threads % limits.warp or asked.block[1:] != (1, 1)):
            yield Violation("limit", f"{held[0].name} needs whole warps of {lanes} or more threads, along x alone")
        tensors = [s for s, _ in walk((stmt,)) if isinstance(s, Loop) and s.kind == "tensor"]
        for n in {INSTRUCTIONS[s.instruction].lanes for s in tensors}:
            if asked.block[0] % n and asked.block[1:] != (1, 1):
                yield Violation("tensor", f"{n} threads along x are no warp where {asked.block[0]} are in a row")
        held = [s.buffer for s, _ in walk((stmt,)) if isinstance(s, Alloc) and s.buffer.scope == "shared"]
        if len({(b.name, b.dtype) for b in held}) > len({b.name for b in held}):
            yield Violation("buffers", "shared arrays of one name, and so of one memory, have several types")
        if asked.shared_bytes > limits.shared_bytes:
            yield Violation("limit", f"{asked.shared_bytes} bytes of shared memory; at most {limits.shared_bytes}")
        for axis, blocks, room in zip("xyz", asked.grid, limits.grid):
            if blocks > room:
                yield Violation("limit", f"{blocks} blocks along {axis}; at most {room}")
    if (size := live(nest.body)) > limits.scratch_bytes:
        yield Violation("limit", f"{size} bytes of scratch memory; at most {limits.scratch_bytes}")


def _bounds(nest: Nest, sites: list[Site]) -> Iterator[Violation]:
    for s in sites:
        for name, index in dict.fromkeys(((s.leaf.buffer, s.leaf.index), *reads(s.leaf))):
            for d, (a, size) in enumerate(zip(index, s.buffer(nest, name).shape)):
                if violation := outside(s, a, size, f"index {d} of {name},"):
                    yield violation
