"""Segment: a loop in parts between which conditions on it do not change."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..affine import const, var
from ..choices import folded
from ..nest import Alloc, Guard, Loop, Nest, Prefetch, Stmt, substitute, with_body
from .base import Path, Step, enclosing, rewrite_loops


@dataclass(frozen=True)
class Segment(Step, kind="segment"):
    """for i < n: S(i)  -->  for i < c: S(i); for i < n - c: S(c + i), a loop for each part between `cuts`

    Selections that a part decides are gone from it, and remainders that do not wrap around in it are plain indices.
    Cuts outside of the loop are none.
    """

    loop: str
    cuts: tuple[int, ...]

    def apply(self, nest: Nest) -> Nest:
        return rewrite_loops(self, nest, self.loop, self._parts)

    def _parts(self, loop: Loop, path: Path) -> tuple[Stmt, ...]:
        n = loop.constant
        if n is None or loop.kind != "serial":
            raise self.fail(f"{loop.name} is {loop.kind}, or its extent is no constant", "ragged")
        ends = sorted({0, n, *(c for c in self.cuts if 0 < c < n)})
        if len(ends) == 2 and not self.cuts:
            raise self.fail("names no point to cut at", "bad-factor")
        out: list[Stmt] = []
        for low, high in zip(ends, ends[1:]):
            body = substitute(loop.body, {loop.name: var(loop.name) + low}) if low else loop.body
            part = replace(loop, extents=(const(high - low),), body=())
            out.append(replace(part, body=decided(body, (*path, part))))
        return tuple(out)


def decided(body: tuple[Stmt, ...], path: Path) -> tuple[Stmt, ...]:
    """The statements without what their loops decide."""
    out: list[Stmt] = []
    for stmt in body:
        if isinstance(stmt, (Loop, Guard, Alloc)):
            out.append(with_body(stmt, decided(stmt.body, (*path, stmt))))
        elif isinstance(stmt, Prefetch):
            out.append(stmt)
        else:
            out.append(replace(stmt, value=folded(stmt.value, *enclosing(path))))
    return tuple(out)
