"""Do iterations that run at once keep out of each other's way? Proved for each array and each concurrent loop."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import gcd

from .affine import Affine, Atom, FloorDiv, Mod, affine
from .bounds import Domain
from .dataflow import Access, Site, Violation
from .nest import BLOCK_KINDS, THREAD_KINDS, Loop, Nest, Reduce, reads
from .program import Buffer

CONCURRENT = frozenset({"parallel", "vector", *BLOCK_KINDS, *THREAD_KINDS})


def races(nest: Nest, sites: list[Site]) -> Iterator[Violation]:
    """No element that one iteration of a concurrent loop writes is touched by another one of the same loop. (What
    threads of a block do before and after a barrier is `spmd.hazards`' business.)"""
    inside: dict[tuple[int, ...], list[Site]] = defaultdict(list)
    for s in sites:
        for level, b in enumerate(s.path):
            if isinstance(b, Loop) and b.kind in CONCURRENT and b.constant != 1 and not s.domain.empty:
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
            if not separate(lp, level, touched[name], writes[0][1], writes[0][0].buffer(nest, name)):
                yield Violation("race", f"iterations of {lp.kind} loop {lp.name} may share {name}: {writes[0][0]}")


def separate(lp: Loop, level: int, accesses: list[Access], model: tuple[Affine, ...], buffer: Buffer) -> bool:
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
        # Or the rest is a small part, below |c|, and a multiple of some period that c * digit and it stay below.
        most = abs(step) * max(where.upper(Affine(((digit, 1),))) or 0 for where, _ in rests)
        return step != 0 and any(_within(rests, period, abs(step), most) for period in _periods(rests, most))

    return any(all(any(decided(v, d) for d in range(len(flat[0]))) for v in row) for row in ((lp.name,), *digits))


def _periods(rests: list[tuple[Domain, Affine]], most: int) -> set[int]:
    """Numbers of which large coefficients, or all of them and what sets the rests apart, are multiples."""
    steps = {abs(c) for _, r in rests for _, c in r.terms}
    large = {c for c in steps if c > most}
    return {gcd(*steps, *(r.const - rests[0][1].const for _, r in rests)), gcd(*large), *large} - {0}


def _within(rests: list[tuple[Domain, Affine]], period: int, step: int, most: int) -> bool:
    """But for multiples of the period all rests lie in a span below `step`, `most` and the span below the period."""
    ends = []
    for where, rest in rests:
        start = (rest.const - rests[0][1].const) % period
        small = Affine(tuple((t, c) for t, c in rest.terms if c % period), start)
        low, high = where.lower(small), where.upper(small)
        if low is None or high is None:
            return False
        ends.append((low, high))
    span = max(high for _, high in ends) - min(low for low, _ in ends)
    return span < step and most + span < period
