"""Clip: a reduction stops where contributions no longer change its result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from ..affine import Affine
from ..idle import last, needed
from ..nest import Loop, Nest, Reduce, Stmt, Store, leaves, reads, walk
from .base import Path, Step, enclosing, prune_terms, rewrite_loops


@dataclass(frozen=True)
class Clip(Step, kind="clip"):
    """for i.0: for i.1 < 8: for k < N: C += where(k <= 8*i.0 + i.1, v, 0)
    -->  for i.0: for i.1 < 8: for k < min(N, 8*i.0 + 8): C += where(k <= 8*i.0 + i.1, v, 0)

    A reduction's `loop` ends where nothing follows that changes the result, at one place for all iterations of `within`
    and the loops inside it. What the choice is made of may be in stages that it reads. The loop of another stage ends
    where those of the same name end around everything that reads it.
    """

    loop: str
    within: str

    def apply(self, nest: Nest) -> Nest:
        return rewrite_loops(self, nest, self.loop, partial(self._end, nest))

    def _end(self, nest: Nest, loop: Loop, path: Path) -> tuple[Stmt, ...]:
        around, guards = enclosing(path)
        names = [b.name for b in around]
        if self.within not in names:
            raise self.fail(f"{loop.name} is not inside {self.within}", "no-such-loop")
        own = [(s, inner) for s, inner in walk(loop.body) if isinstance(s, (Store, Reduce)) and s.tag == self.stage]
        if len(own) != 1:
            raise self.fail(f"needs one statement of the stage in {loop.name}", "imperfect")
        (leaf, inner), outside = own[0], names.index(self.within)
        made = {s.buffer: s for s in leaves(nest.body) if isinstance(s, Store)}
        inside = [*around[outside:], *(b for b in inner if isinstance(b, Loop))]
        needs = needed(leaf, made) if isinstance(leaf, Reduce) else ()
        ends = [e for a in needs if (e := last(a, loop.name, inside)) is not None]
        if not ends and any(self.loop in a.names() for a in leaf.index):
            ends = _readers_end(nest, leaf.buffer, loop.name)
        ends = [e for e in ends if e.names() <= set(names[:outside]) and e not in loop.extents]
        if not ends:
            raise self.fail(f"nothing shows that {loop.name} may end early", "not-idle")
        return (replace(loop, extents=prune_terms((*loop.extents, *ends), around, guards)),)


def _readers_end(nest: Nest, buffer: str, loop: str) -> list[Affine]:
    """The terms that all loops of that name around the readers of a buffer have in common."""
    found = [
        {e for b in path if isinstance(b, Loop) and b.name == loop for e in b.extents}
        for s, path in walk(nest.body) if isinstance(s, (Store, Reduce)) and any(name == buffer for name, _ in reads(s))
    ]  # fmt: skip
    return sorted(set.intersection(*found), key=str) if found else []
