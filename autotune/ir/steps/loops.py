"""Steps on single loops: Split, Reorder, Fuse, Vectorize, Unroll, Parallel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..affine import Affine, affine, const, var
from ..nest import Guard, Loop, Nest, Reduce, Stmt, Store, substitute, tags
from .base import Path, Step, enclosing, perfect_band, prune_terms, rewrite_loops

MAX_UNROLL = 512


@dataclass(frozen=True)
class Split(Step, kind="split"):
    """for x < N: S(x)  -->  for x.0: for x.1: S(factor*x.0 + x.1), with the remainder handled as `tail` says.

    clip: x.1 < min(factor, N - factor*x.0); no code is copied. cut: whole tiles in a loop, the remainder as a second
    body of constant extent. exact: refuses a remainder. guard: x.1 < factor under a condition.
    """

    loop: str
    factor: int
    tail: str = "clip"

    def apply(self, nest: Nest) -> Nest:
        if self.factor < 1:
            raise self.fail("the factor must be at least 1", "bad-factor")
        make = {"clip": self._clip, "cut": self._cut, "exact": self._exact, "guard": self._guard}.get(self.tail)
        if make is None:
            raise self.fail("tail is one of clip, cut, exact, guard", "bad-tail")
        return rewrite_loops(self, nest, self.loop, make)

    def _pair(self, loop: Loop, outer: tuple[Affine, ...], inner: tuple[Affine, ...], body: tuple[Stmt, ...]) -> Loop:
        return replace(loop, name=f"{loop.name}.0", extents=outer, body=(Loop(f"{loop.name}.1", inner, body),))

    def _joined(self, loop: Loop) -> tuple[Stmt, ...]:
        return substitute(loop.body, {loop.name: var(f"{loop.name}.0") * self.factor + var(f"{loop.name}.1")})

    def _clip(self, loop: Loop, path: Path) -> tuple[Stmt, ...]:
        f = self.factor
        if any(t.is_const and t.const <= f for t in loop.extents):
            # One short block: the outer loop stays, so that later steps find its name, but it moves nothing.
            body = substitute(loop.body, {loop.name: var(f"{loop.name}.1")})
            return (self._pair(loop, (const(1),), loop.extents, body),)
        require_divisible(self, loop, f)
        outer = tuple((t + (f - 1)) // f for t in loop.extents)
        loops, guards = enclosing(path)
        context = (*loops, Loop(f"{loop.name}.0", outer, ()))
        inner = prune_terms((const(f), *(t - var(f"{loop.name}.0") * f for t in loop.extents)), context, guards)
        if len(inner) > 2:
            raise self.fail(f"the inner extent would be the minimum of {len(inner)} terms", "ragged")
        return (self._pair(loop, outer, inner, self._joined(loop)),)

    def _cut(self, loop: Loop, path: Path) -> tuple[Stmt, ...]:
        def tile(base: Affine, extent: int) -> tuple[Stmt, ...]:
            inner = Loop(f"{loop.name}.1", (const(extent),), loop.body)
            return (replace(inner, body=substitute(loop.body, {loop.name: base + var(inner.name)})),)

        return cut_loop(self, loop, self.factor, path, tile)

    def _exact(self, loop: Loop, path: Path) -> tuple[Stmt, ...]:
        f = self.factor
        for t in loop.extents:
            if (t % f) != const(0):
                factors = [d for d in range(1, t.const + 1) if t.const % d == 0][:24] if t.is_const else []
                hint = f", or a factor in {{{','.join(map(str, factors))}}}" if factors else ""
                raise self.fail(f'extent {t} is not a multiple of {f}; use tail="clip"{hint}', "not-divisible")
        return (self._pair(loop, tuple(t // f for t in loop.extents), (const(f),), self._joined(loop)),)

    def _guard(self, loop: Loop, path: Path) -> tuple[Stmt, ...]:
        f = self.factor
        require_divisible(self, loop, f)
        point = var(f"{loop.name}.0") * f + var(f"{loop.name}.1")
        inside = Guard(tuple(t - 1 - point for t in loop.extents), self._joined(loop))
        return (self._pair(loop, tuple((t + (f - 1)) // f for t in loop.extents), (const(f),), (inside,)),)


def require_divisible(step: Step, loop: Loop, f: int) -> None:
    """A ragged extent splits exactly only if the factor divides every coefficient: ceil and floor then commute with
    it."""
    for t in loop.extents:
        if any(c % f for _, c in t.terms):
            raise step.fail(f"extent {t} of {loop.name} varies by steps that {f} does not divide", "ragged")


def cut_loop(
    step: Step, loop: Loop, f: int, path: Path, tile: Callable[[Affine, int], tuple[Stmt, ...]]
) -> tuple[Stmt, ...]:
    """Whole tiles of `f` in a loop `name.0`, then one body for the remainder. `tile(base, extent)` makes a body whose
    iterations are base .. base + extent - 1. A loop shorter than one tile becomes `name.0 < 1` around one short
    tile."""
    outer, n = f"{loop.name}.0", loop.constant
    if n is not None and n <= f:
        return (replace(loop, name=outer, extents=(const(1),), body=tile(const(0), n)),)
    require_divisible(step, loop, f)
    whole = replace(loop, name=outer, extents=tuple(t // f for t in loop.extents), body=tile(var(outer) * f, f))
    ragged = [t for t in loop.extents if t.const % f]
    if not ragged:
        return (whole,)
    if len(ragged) > 1:
        raise step.fail(f"min({', '.join(map(str, loop.extents))}) can leave two remainders by {f}", "ragged")
    # The remainder exists where the ragged term is the smaller one; its length is then that term modulo f, a constant.
    term = ragged[0]
    rest: tuple[Stmt, ...] = tile((term // f) * f, term.const % f)
    others = tuple(t - 1 - term for t in loop.extents if t is not term)
    if others:
        rest = (Guard(others, rest),)
    return (whole, *rest)


@dataclass(frozen=True)
class Reorder(Step, kind="reorder"):
    """Permutes loops of one perfect band into the given order, outermost first; loops not named keep their places."""

    order: tuple[str, ...]

    def apply(self, nest: Nest) -> Nest:
        if len(set(self.order)) != len(self.order) or not self.order:
            raise self.fail("names each loop once", "bad-order")
        top = self._topmost(nest.body)
        if top is None:
            raise self.fail(f"stage {self.stage} has none of these loops", "no-such-loop")
        return rewrite_loops(self, nest, top, self._permute)

    def _topmost(self, body: tuple[Stmt, ...]) -> str | None:
        for stmt in body:
            if self.stage in tags(stmt):
                if isinstance(stmt, Loop) and stmt.name in self.order:
                    return stmt.name
                inner = getattr(stmt, "body", ())
                if inner and (found := self._topmost(inner)):
                    return found
        return None

    def _permute(self, loop: Loop, path: Path) -> tuple[Stmt, ...]:
        band, body = perfect_band(loop)
        by_name = {b.name: b for b in band}
        missing = [n for n in self.order if n not in by_name]
        if missing:
            raise self.fail(f"{missing[0]} is not in the perfect band {', '.join(by_name)}", "imperfect")
        slots = iter(self.order)
        new = [by_name[next(slots)] if b.name in self.order else b for b in band]
        outside = {b.name for b in path if isinstance(b, Loop)}
        inner = {b.name for b in new}
        for b in new:
            inner.discard(b.name)
            needs = frozenset().union(*(t.names() for t in b.extents))
            if needs & inner:
                raise self.fail(
                    f"the extent of {b.name} depends on {sorted(needs & inner)[0]}, which would be inside", "order"
                )
            outside.add(b.name)
        for b in reversed(new):
            body = (replace(b, body=body),)
        return body


@dataclass(frozen=True)
class Fuse(Step, kind="fuse"):
    """for x < N: for y < M: S(x, y)  -->  for x_y < N*M: S(x_y // M, x_y % M)

    Contiguous indices become linear again.
    """

    outer: str
    inner: str

    def apply(self, nest: Nest) -> Nest:
        return rewrite_loops(self, nest, self.outer, self._join)

    def _join(self, loop: Loop, path: Path) -> tuple[Stmt, ...]:
        child = loop.body[0] if len(loop.body) == 1 else None
        if not isinstance(child, Loop) or child.name != self.inner:
            raise self.fail(f"{self.inner} is not the only statement of {self.outer}", "imperfect")
        n, m = loop.constant, child.constant
        if n is None or m is None or m == 0:
            raise self.fail("both extents must be constants", "ragged")
        name = f"{loop.name}_{child.name}"
        values = {loop.name: var(name) // m, child.name: var(name) % m}
        return (replace(loop, name=name, extents=(affine(n * m),), body=substitute(child.body, values)),)


@dataclass(frozen=True)
class Vectorize(Step, kind="vectorize"):
    """Runs all iterations of a loop at once, as vectors of `lanes` elements.

    `lanes` is a power of two that the extent never exceeds.
    """

    loop: str
    lanes: int

    def apply(self, nest: Nest) -> Nest:
        if self.lanes < 1 or self.lanes & (self.lanes - 1):
            raise self.fail("lanes must be a power of two", "lanes")
        return rewrite_loops(self, nest, self.loop, self._mark)

    def _mark(self, loop: Loop, path: Path) -> tuple[Stmt, ...]:
        if not any(t.is_const and t.const <= self.lanes for t in loop.extents):
            raise self.fail(f"extent {', '.join(map(str, loop.extents))} is not bounded by {self.lanes}", "lanes")
        if not all(isinstance(s, (Store, Reduce)) or isinstance(s, Loop) and s.kind == "vector" for s in loop.body):
            raise self.fail(f"{loop.name} is not innermost", "not-innermost")
        return (replace(loop, kind="vector", lanes=self.lanes),)


@dataclass(frozen=True)
class Unroll(Step, kind="unroll"):
    """Expands a loop of constant extent into copies of its body."""

    loop: str

    def apply(self, nest: Nest) -> Nest:
        def mark(loop: Loop, path: Path) -> tuple[Stmt, ...]:
            bound = min((t.const for t in loop.extents if t.is_const), default=None)
            if bound is None or bound > MAX_UNROLL:
                raise self.fail(
                    f"extent {', '.join(map(str, loop.extents))} is not a constant up to {MAX_UNROLL}", "unroll"
                )
            return (replace(loop, kind="unroll"),)

        return rewrite_loops(self, nest, self.loop, mark)


@dataclass(frozen=True)
class Parallel(Step, kind="parallel"):
    """Runs the iterations of an outermost loop on several threads.

    Each gets one block of them (chunk 0), or `chunk` at a time on demand.
    """

    loop: str
    chunk: int = 0

    def apply(self, nest: Nest) -> Nest:
        def mark(loop: Loop, path: Path) -> tuple[Stmt, ...]:
            if path:
                raise self.fail(
                    f"{loop.name} is inside another loop or block; only outermost loops run in parallel",
                    "not-outermost",
                )
            return (replace(loop, kind="parallel", chunk=self.chunk),)

        return rewrite_loops(self, nest, self.loop, mark)
