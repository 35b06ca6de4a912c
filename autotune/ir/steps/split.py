"""SplitReduction: parts of one reduction side by side, and their sum afterwards."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..affine import const, var
from ..expr import Load
from ..nest import Alloc, Loop, Nest, Reduce, Stmt, substitute_leaf
from ..program import Buffer
from .base import Step, perfect_band


@dataclass(frozen=True)
class SplitReduction(Step, kind="split_reduction"):
    """for i: for k: C[i] += v  -->  { for p < n: for i: for k < K/n: C.part[p,i] += v; for i: for p: C[i] += C.part }

    Cuts the reduction `loop` of a stage that is not scheduled yet into `parts` equal ones, which may run on blocks of
    their own; loop `<loop>.part` counts them. Adding them up is a stage, `<stage>.total`.
    """

    loop: str
    parts: int

    def apply(self, nest: Nest) -> Nest:
        body: list[Stmt] = []
        hits = 0
        for stmt in nest.body:
            band, inner = perfect_band(stmt) if isinstance(stmt, Loop) else ((), ())
            leaf = inner[0] if len(inner) == 1 else None
            if isinstance(leaf, Reduce) and leaf.tag == self.stage and leaf.buffer == self.stage:
                body.append(self._split(nest, band, leaf))
                hits += 1
            else:
                body.append(stmt)
        if not hits:
            raise self.fail("the stage is no reduction in one perfect band of its own", "no-reduction")
        return Nest(nest.buffers, tuple(body))

    def _split(self, nest: Nest, band: tuple[Loop, ...], leaf: Reduce) -> Stmt:
        reduced = [b for b in band if not any(b.name in a.names() for a in leaf.index)]
        loop = next((b for b in reduced if b.name == self.loop), None)
        if loop is None:
            raise self.fail(f"{self.loop} is no reduction loop; those are {', '.join(b.name for b in reduced)}",
                            "no-such-loop")  # fmt: skip
        size = loop.constant
        if size is None or self.parts < 2 or size % self.parts:
            raise self.fail(f"the extent of {self.loop} is no multiple of {self.parts}, or that is below 2", "ragged")
        kept = [replace(b, body=()) for b in band if b not in reduced]
        total = nest.all_buffers[self.stage]
        part, number = f"{self.stage}.part", f"{self.loop}.part"
        parts = Buffer(part, total.dtype, (self.parts, *total.shape), "scratch")
        own = substitute_leaf(leaf, {self.loop: var(number) * (size // self.parts) + var(self.loop)})
        assert isinstance(own, Reduce)
        begins = tuple(var(b.name) for b in reduced)
        inner: tuple[Stmt, ...] = (replace(own, buffer=part, index=(var(number), *leaf.index), first=begins),)
        for b in reversed(band):
            b = replace(b, extents=(const(size // self.parts),)) if b is loop else b
            inner = (replace(b, body=inner),)
        made = Loop(number, (const(self.parts),), inner)
        read = Load(part, (var(number), *leaf.index), total.dtype)
        tag = f"{self.stage}.total"
        first = (var(number),)
        added: tuple[Stmt, ...] = (Reduce(total.name, leaf.index, leaf.combiner, read, first, tag, (), "write"),)
        for b in (*kept, Loop(number, (const(self.parts),), ()))[::-1]:
            added = (replace(b, body=added),)
        return Alloc(parts, (made, *added))
