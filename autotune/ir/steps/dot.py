"""DotProduct: the innermost products of a vectorised sum in groups, each a dot instruction."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..affine import Affine, var
from ..dots import DOTS, misuse
from ..nest import Loop, Nest, Reduce, Stmt, substitute_leaf, walk
from .base import Path, Step, perfect_band, rewrite_loops, simplified


@dataclass(frozen=True)
class DotProduct(Step, kind="dot_product"):
    """for k: for i unroll: for v vector: acc[i,v] += a * b
    -->  for k.0: for i unroll: for v vector: for k.1 < 2 dot: acc[i,v] += a * b
    """

    loop: str
    instruction: str

    def apply(self, nest: Nest) -> Nest:
        made = rewrite_loops(self, nest, self.loop, self._cut)
        for stmt, path in walk(made.body):
            if isinstance(stmt, Loop) and stmt.kind == "dot" and (why := misuse(stmt, path)):
                raise self.fail(why, "no-match")
        return made

    def _cut(self, loop: Loop, path: Path) -> tuple[Stmt, ...]:
        known = DOTS.get(self.instruction)
        if known is None:
            raise self.fail(f"the instructions are {', '.join(DOTS)}", "no-instruction")
        band, body = perfect_band(loop)
        n = known.length
        if len(body) != 1 or not isinstance(body[0], Reduce) or loop.kind != "serial":
            raise self.fail(f"{self.loop} is no serial loop around one sum", "imperfect")
        if any(v % n for e in loop.extents for v in (e.const, *(c for _, c in e.terms))):
            raise self.fail(f"the extent of {self.loop} is no multiple of {n}", "ragged")
        if any(self.loop in e.names() for b in band for e in b.extents):
            raise self.fail(f"a loop inside {self.loop} depends on it", "imperfect")
        outer, inner = f"{self.loop}.0", f"{self.loop}.1"
        shorter = tuple(Affine(tuple((t, c // n) for t, c in e.terms), e.const // n) for e in loop.extents)
        group = Loop(inner, (Affine((), n),), (), "dot", instruction=self.instruction)
        loops = [replace(loop, name=outer, extents=shorter, body=()), *band[1:], group]
        values = {self.loop: var(outer) * n + var(inner)}
        leaf = substitute_leaf(body[0], values)
        around = [b for b in path if isinstance(b, Loop)]
        made: Stmt = simplified(leaf, [*around, *loops])
        for lp in reversed(loops):
            made = replace(lp, body=(made,))
        return (made,)
