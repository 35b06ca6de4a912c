"""Steps that cut several loops of a band at once: Tile, RegisterTile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..affine import Affine, const, var
from ..expr import Const, Load
from ..expr import substitute as substitute_expr
from ..nest import Alloc, Guard, Loop, Nest, Reduce, Stmt, Store, leaves, substitute_leaf
from ..program import COMBINERS, Buffer
from .base import Path, Step, is_leaf, perfect_band, rewrite_loops, simplified
from .loops import cut_loop

Context = dict[str, Affine]


@dataclass(frozen=True)
class Tile(Step, kind="tile"):
    """for i: for j: S(i, j)  -->  for i.0: for j.0: for i.1: for j.1: S(f*i.0 + i.1, g*j.0 + j.1)

    Each loop is cut into whole tiles and one short tile, and the loops inside a tile are sunk to the inside, in the
    order of `tiles`: every body has constant tile extents. For stages of one plain store; reductions have
    `register_tile`.
    """

    tiles: tuple[tuple[str, int], ...]

    def apply(self, nest: Nest) -> Nest:
        if not self.tiles or any(f < 1 for _, f in self.tiles):
            raise self.fail("needs at least one tile, and factors of at least 1", "bad-factor")
        top = next((s.name for s in _stage_loops(nest.body, self.stage) if s.name in dict(self.tiles)), None)
        if top is None:
            raise self.fail(f"stage {self.stage} has none of the loops {', '.join(dict(self.tiles))}", "no-such-loop")
        return rewrite_loops(self, nest, top, self._band)

    def _band(self, loop: Loop, path: Path) -> tuple[Stmt, ...]:
        band, body = perfect_band(loop)
        factors = dict(self.tiles)
        if len(body) != 1 or not is_leaf(body[0]) or isinstance(body[0], (Loop, Alloc, Guard)):
            raise self.fail("needs a perfect band around one statement", "imperfect")
        if missing := factors.keys() - {b.name for b in band}:
            raise self.fail(
                f"{sorted(missing)[0]} is not in the perfect band {', '.join(b.name for b in band)}", "imperfect"
            )
        leaf = body[0]
        require_independent(self, band, factors)

        def cut(pending: tuple[Loop, ...], context: Context, sizes: dict[str, int], path: Path) -> tuple[Stmt, ...]:
            if not pending:
                loops = [b for b in path if isinstance(b, Loop)]
                loops += [Loop(f"{n}.1", (const(sizes[n]),), ()) for n, _ in self.tiles]
                out: Stmt = simplified(substitute_leaf(leaf, context), loops)
                for name, _ in reversed(self.tiles):
                    out = Loop(f"{name}.1", (const(sizes[name]),), (out,))
                return (out,)
            head, rest = pending[0], pending[1:]
            head = replace(head, extents=tuple(t.substitute(context) for t in head.extents), body=())
            if head.name not in factors:
                return (replace(head, body=cut(rest, context, sizes, (*path, head))),)

            def tile(base: Affine, extent: int) -> tuple[Stmt, ...]:
                here = {**context, head.name: base + var(f"{head.name}.1")}
                return cut(rest, here, {**sizes, head.name: extent}, path)

            return cut_loop(self, head, factors[head.name], path, tile)

        return cut(band, {}, {}, path)


def require_independent(step: Step, band: tuple[Loop, ...], factors: Mapping[str, int]) -> None:
    """Loops that are cut together must not bound each other: sinking one would take its name out of the other's
    sight."""
    for b in band:
        needed = frozenset().union(*(t.names() for t in b.extents)) & factors.keys()
        if needed:
            raise step.fail(f"the extent of {b.name} depends on {sorted(needed)[0]}, which is cut too", "dependent")


@dataclass(frozen=True)
class RegisterTile(Step, kind="register_tile"):
    """Holds a tile of a reduction's results in registers while the reduction runs.

    for i: for j: for k: C[i,j] += v  -->  for i.0: for j.0: { acc = 0; for k, i.1, j.1: acc[i.1,j.1] += v; C += acc }

    `tiles` gives (loop, factor), the vector loop last; loops are cut into whole tiles and one short tile. A
    *reduction* loop may be tiled too: its lanes then accumulate separately and the write combines them. `unroll` cuts
    further reduction loops, without accumulators of their own. Loops of the result that are not named become tiles of
    one.
    """

    tiles: tuple[tuple[str, int], ...]
    unroll: tuple[tuple[str, int], ...] = ()

    def apply(self, nest: Nest) -> Nest:
        if not self.tiles or any(f < 1 for _, f in (*self.tiles, *self.unroll)):
            raise self.fail("needs at least one tile, and factors of at least 1", "bad-factor")
        if f"{self.stage}.acc" in nest.all_buffers:
            raise self.fail("the stage already has accumulators", "already-tiled")
        named = {name for name, _ in self.tiles} | {name for name, _ in self.unroll}
        top = next((s.name for s in _stage_loops(nest.body, self.stage) if s.name in named), None)
        if top is None:
            raise self.fail(f"stage {self.stage} has none of the loops {', '.join(sorted(named))}", "no-such-loop")
        return rewrite_loops(self, nest, top, lambda loop, path: _Tiling(self, loop, path, nest).statements())


def _stage_loops(body: tuple[Stmt, ...], stage: str) -> list[Loop]:
    out: list[Loop] = []
    for stmt in body:
        inner = getattr(stmt, "body", ())
        if inner and any(leaf.tag == stage for leaf in leaves(inner)):
            out += [stmt] if isinstance(stmt, Loop) else []
            out += _stage_loops(inner, stage)
    return out


class _Tiling:
    """One application of RegisterTile to a perfect band."""

    def __init__(self, step: RegisterTile, loop: Loop, path: Path, nest: Nest) -> None:
        self.step, self.path = step, path
        self.band, body = perfect_band(loop)
        leaf = body[0] if len(body) == 1 else None
        if not isinstance(leaf, Reduce) or leaf.tag != step.stage or leaf.first is None:
            raise step.fail("needs a perfect band around one reduction", "no-reduction")
        self.leaf: Reduce = leaf
        self.loops = {b.name: b for b in self.band}
        factors, unroll = dict(step.tiles), dict(step.unroll)
        if missing := [n for n in (*factors, *unroll) if n not in self.loops]:
            raise step.fail(f"{missing[0]} is not in the perfect band {', '.join(self.loops)}", "imperfect")
        require_independent(step, self.band, factors | unroll)
        in_result = frozenset().union(*(a.names() for a in leaf.index))
        for b in self.band:
            if b.name in in_result:
                factors.setdefault(b.name, 1)
        if wrong := [n for n in unroll if n in in_result or n in factors]:
            raise step.fail(f"{wrong[0]} is not a plain reduction loop", "bad-tile")
        order = [n for n, _ in step.tiles]
        self.results = [n for n in factors if n in in_result and n not in order] + [n for n in order if n in in_result]
        self.lanes = [n for n in order if n not in in_result]
        self.dims = [n for n in self.results if n not in order] + order
        self.factors, self.unroll = factors, unroll
        self.dtype = leaf.value.dtype
        self.acc = Buffer(f"{step.stage}.acc", self.dtype, tuple(factors[n] for n in self.dims), "register")

    def statements(self) -> tuple[Stmt, ...]:
        return self._cut([b.name for b in self.band if b.name in self.results], {}, {}, self.path)

    def _cut(self, pending: list[str], context: Context, sizes: dict[str, int], path: Path) -> tuple[Stmt, ...]:
        if not pending:
            return self._tile(context, sizes, path)
        name, rest = pending[0], pending[1:]
        original = self.loops[name]
        loop = replace(original, extents=tuple(t.substitute(context) for t in original.extents), body=())

        def tile(base: Affine, extent: int) -> tuple[Stmt, ...]:
            point = base + var(f"{name}.1")
            return self._cut(rest, {**context, name: point}, {**sizes, name: extent}, path)

        return cut_loop(self.step, loop, self.factors[name], path, tile)

    def _tile(self, context: Context, sizes: dict[str, int], path: Path) -> tuple[Stmt, ...]:
        """One tile: accumulators, their initial value, the reduction, and the write of the result."""
        leaf, combiner = self.leaf, COMBINERS[self.leaf.combiner]
        sizes = {**sizes, **{n: self.factors[n] for n in self.lanes}}
        slot = tuple(var(f"{n}.1") for n in self.dims)
        identity = Const(combiner.identity(self.dtype), self.dtype)
        init = self._over(self.dims, sizes, Store(self.acc.name, slot, identity, leaf.tag, (), "init"))
        reductions = [b.name for b in self.band if b.name not in self.results]
        update = self._reduce(reductions, context, sizes, slot)
        start = {**context, **{n: const(0) for n in reductions}}
        first = tuple(a.substitute(start) for a in leaf.first or ())
        index = tuple(a.substitute(context) for a in leaf.index)
        reduced = {n for n, a in leaf.origin if not set(a.names()).isdisjoint(reductions) or a in (leaf.first or ())}
        origin = tuple((n, a.substitute(context)) for n, a in leaf.origin if n not in reduced)
        total = Load(self.acc.name, slot, self.dtype)
        write: Stmt
        if not self.lanes and all(a == const(0) for a in first):
            write = Store(leaf.buffer, index, total, leaf.tag, origin, "write")
        else:
            first += tuple(var(f"{n}.1") for n in self.lanes)
            write = Reduce(leaf.buffer, index, leaf.combiner, total, first, leaf.tag, origin, "write")
        return (Alloc(self.acc, (*init, *update, *self._over(self.dims, sizes, write))),)

    def _over(self, names: list[str], sizes: dict[str, int], leaf: Stmt) -> tuple[Stmt, ...]:
        for name in reversed(names):
            leaf = Loop(f"{name}.1", (const(sizes[name]),), (leaf,))
        return (leaf,)

    def _reduce(
        self,
        pending: list[str],
        context: Context,
        sizes: dict[str, int],
        slot: tuple[Affine, ...],
        inner: tuple[Loop, ...] = (),
    ) -> tuple[Stmt, ...]:
        leaf = self.leaf
        if not pending:
            value = substitute_expr(leaf.value, context)
            origin = tuple((n, a.substitute(context)) for n, a in leaf.origin)
            loops = [b for b in self.path if isinstance(b, Loop)]
            loops += [Loop(f"{n}.1", (const(size),), ()) for n, size in sizes.items()]
            update = Reduce(self.acc.name, slot, leaf.combiner, value, None, leaf.tag, origin)
            body: tuple[Stmt, ...] = (simplified(update, loops),)
            body = self._over(self.dims, sizes, body[0])
            for loop in reversed(inner):
                body = (replace(loop, body=body),)
            return body
        name, rest = pending[0], pending[1:]
        original = self.loops[name]
        loop = replace(original, extents=tuple(t.substitute(context) for t in original.extents), body=())
        factor = self.factors.get(name) or self.unroll.get(name, 0)
        if not factor:
            return (replace(loop, body=self._reduce(rest, context, sizes, slot, inner)),)

        def tile(base: Affine, extent: int) -> tuple[Stmt, ...]:
            here = {**context, name: base + var(f"{name}.1")}
            if name in self.lanes:
                return self._reduce(rest, here, {**sizes, name: extent}, slot, inner)
            return self._reduce(rest, here, sizes, slot, (*inner, Loop(f"{name}.1", (const(extent),), ())))

        return cut_loop(self.step, loop, factor, self.path, tile)
