"""Pipeline: the next block of an operand is copied while the present one is used."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..affine import Affine, const, var
from ..expr import Expr, Load, transform
from ..nest import Alloc, Leaf, Loop, Nest, Prefetch, Stmt, Store, leaves, map_leaves, reads, substitute
from ..program import Buffer
from .base import Path, Step, rewrite_loops


@dataclass(frozen=True)
class Pipeline(Step, kind="pipeline"):
    """for k: { P = copy(k); use(P) }
    -->  P[0] = copy(0); for k < n - 1: { P[(k + 1) % 2] = copy(k + 1); use(P[k % 2]) }; use(P[(n - 1) % 2])

    Every array that the loop fills and uses anew in each iteration (`pack`) gets a second half. `asynchronous`: plain
    copies may be under way until threads meet next. `ahead`: how many iterations are copied before they are used, with
    a part of the array for each and one more; threads then meet between the first copies, so that each has been begun
    `ahead` meetings before it is used.
    """

    loop: str
    asynchronous: bool = False
    ahead: int = 1

    def apply(self, nest: Nest) -> Nest:
        return rewrite_loops(self, nest, self.loop, self._pipelined)

    def _pipelined(self, loop: Loop, path: Path) -> tuple[Stmt, ...]:
        n = loop.constant
        if n is None or loop.kind != "serial":
            raise self.fail(f"{loop.name} is {loop.kind}, or its extent is no constant", "ragged")
        if n < 2:
            return (loop,)
        caches: list[Buffer] = []
        copies: list[Stmt] = []
        body = loop.body
        while True:  # copies stand before and inside the arrays that they fill
            held = {b.name for b in caches}
            while body and held and {leaf.buffer for leaf in leaves(body[:1])} <= held:
                copies.append(body[0])
                body = body[1:]
            if len(body) != 1 or not isinstance(body[0], Alloc) or body[0].buffer.scope == "register":
                break
            caches.append(body[0].buffer)
            body = body[0].body
        names = {b.name for b in caches}
        if not copies or names - {leaf.buffer for leaf in leaves(tuple(copies))}:
            raise self.fail(f"{loop.name} does not begin with copies into arrays of its own", "no-copies")
        inside = {leaf.buffer for leaf in leaves(loop.body)}
        for leaf in leaves(tuple(copies)):
            if isinstance(leaf, Prefetch) or inside & {b for b, _ in reads(leaf)}:
                raise self.fail(f"a copy into {leaf.buffer} reads what {loop.name} makes", "made-inside")
        if any(leaf.buffer in names for leaf in leaves(body)):
            raise self.fail(f"{loop.name} writes its copies again", "made-inside")
        k, ahead = var(loop.name), min(self.ahead, n - 1)
        if ahead < 1:
            raise self.fail("copies at least one iteration ahead", "bad-factor")
        late = ahead if self.asynchronous else 0

        def fill(at: Affine) -> tuple[Stmt, ...]:
            moved = map_leaves(tuple(copies), lambda leaf: (_slot(leaf, names, k % (ahead + 1), late),))
            return substitute(moved, {loop.name: at})

        used = map_leaves(body, lambda leaf: (_slot(leaf, names, k % (ahead + 1), 0),))
        around = replace(loop, extents=(const(n - ahead),), body=(*fill(k + ahead), *used))
        begun = [fill(const(0)), *(self._met(fill(const(n)), late) for n in range(1, ahead))]
        rest = substitute(used, {loop.name: (const(0) if ahead == 1 else k) + (n - ahead)})
        if ahead > 1:
            rest = (replace(loop, extents=(const(ahead),), body=rest),)
        out: tuple[Stmt, ...] = (*(s for row in begun for s in row), around, *rest)
        for b in reversed(caches):
            out = (Alloc(replace(b, shape=(ahead + 1, *b.shape)), out),)
        return out


    def _met(self, copies: tuple[Stmt, ...], late: int) -> tuple[Stmt, ...]:
        """The copies, with a meeting of threads before them where they stay under way."""
        if not late:
            return copies
        if not isinstance(copies[0], Loop):
            raise self.fail("a copy of one element is nothing to meet before", "no-copies")
        return (replace(copies[0], barrier=True), *copies[1:])


def _slot(leaf: Leaf, names: set[str], at: Affine, asynchronous: int) -> Leaf:
    """The statement with `at` as a new first dimension of these arrays."""

    def load(node: Expr) -> Expr | None:
        mine = isinstance(node, Load) and node.buffer in names
        return replace(node, index=(at, *node.index)) if isinstance(node, Load) and mine else None

    index = (at, *leaf.index) if leaf.buffer in names else leaf.index
    if isinstance(leaf, Prefetch):
        return replace(leaf, index=index)
    made = replace(leaf, index=index, value=transform(leaf.value, load))
    if asynchronous and isinstance(made, Store) and isinstance(made.value, Load):
        return replace(made, asynchronous=asynchronous)
    return made


__all__ = ["Pipeline"]
