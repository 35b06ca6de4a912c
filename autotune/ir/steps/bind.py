"""Steps for devices with blocks and threads: Bind, Distribute, TreeReduce. Barriers and shared memory follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from ..affine import Affine, const, var
from ..expr import Expr, Load, transform
from ..nest import (
    BLOCK_KINDS,
    THREAD_KINDS,
    Alloc,
    Guard,
    Leaf,
    Loop,
    Nest,
    Reduce,
    Stmt,
    Store,
    map_leaves,
    tags,
    walk,
    with_body,
)
from ..program import Buffer
from .base import Path, Step, perfect_band, rewrite_loops


@dataclass(frozen=True)
class Bind(Step, kind="bind"):
    """Gives the iterations of a loop to the blocks of a grid (`to` block.x, block.y, block.z) or to the threads of a
    block (thread.x, thread.y, thread.z; `thread` counts all of them).

    Where threads must wait for each other, and which arrays they share, is found out afterwards.
    """

    loop: str
    to: str

    def apply(self, nest: Nest) -> Nest:
        if self.to not in (*BLOCK_KINDS, *THREAD_KINDS):
            raise self.fail(f"to is one of {', '.join((*BLOCK_KINDS, *THREAD_KINDS))}", "bad-kind")

        def mark(loop: Loop, path: Path) -> tuple[Stmt, ...]:
            if self.to in BLOCK_KINDS and any(isinstance(b, Loop) and b.kind not in BLOCK_KINDS for b in path):
                raise self.fail(f"{loop.name} is inside a loop that is no block loop", "not-outermost")
            if loop.kind != "serial":
                raise self.fail(f"{loop.name} is {loop.kind} already", "bad-kind")
            return (replace(loop, kind=self.to),)

        return rewrite_loops(self, nest, self.loop, mark)


@dataclass(frozen=True)
class Distribute(Step, kind="distribute"):
    """for t: { alloc c; A(t); for k: B(t, k); C(t) }  -->  alloc c[t]; { for t: A; for k: for t: B; for t: C }

    Moves `loops`, whose iterations are independent, inside the loop `at` and around everything beside it; arrays that
    were allocated inside them get a dimension for each. What happens once for all iterations of `loops` can then stand
    in `at`: threads share a copy.
    """

    loops: tuple[str, ...]
    at: str

    def apply(self, nest: Nest) -> Nest:
        held = [s for s, _ in walk(nest.body) if isinstance(s, Loop) and s.name in self.loops and self.stage in tags(s)]
        if not held:
            raise self.fail(f"stage {self.stage} has none of the loops {', '.join(self.loops)}", "no-such-loop")
        if not any(self._holds(s) for s in held):
            raise self.fail(f"{self.at} is not inside {held[0].name}", "no-such-loop")
        return Nest(nest.buffers, self._visit(nest.body, ()))

    def _holds(self, stmt: Stmt) -> bool:
        return any(isinstance(s, Loop) and s.name == self.at for s, _ in walk((stmt,)))

    def _visit(self, body: tuple[Stmt, ...], moved: tuple[Loop, ...]) -> tuple[Stmt, ...]:
        """The statements, with the loops `moved` that stood around them put inside."""
        out: list[Stmt] = []
        beside: list[Stmt] = []

        def settle() -> None:
            inner = tuple(beside)
            for loop in reversed(moved if beside else ()):
                inner = (replace(loop, body=inner),)
            out.extend(inner)
            beside.clear()

        for stmt in body:
            if isinstance(stmt, Loop) and stmt.name in self.loops and self.stage in tags(stmt):
                settle()
                out += self._visit(stmt.body, (*moved, replace(stmt, body=())))
            elif isinstance(stmt, (Loop, Guard, Alloc)) and (self._holds(stmt) or not moved):
                settle()
                out.append(self._through(stmt, moved))
            else:
                beside.append(stmt)
        settle()
        return tuple(out)

    def _through(self, stmt: Loop | Guard | Alloc, moved: tuple[Loop, ...]) -> Stmt:
        names = {loop.name for loop in moved}
        match stmt:
            case Alloc():
                return self._widened(stmt, moved) if moved else with_body(stmt, self._visit(stmt.body, moved))
            case Loop(extents=fixed) | Guard(conditions=fixed):
                if any(a.names() & names for a in fixed):
                    raise self.fail(f"{getattr(stmt, 'name', 'a guard')} depends on {sorted(names)[0]}", "dependent")
        return with_body(stmt, self._visit(stmt.body, moved))

    def _widened(self, stmt: Alloc, moved: tuple[Loop, ...]) -> Stmt:
        """An array that each iteration had of its own becomes one with a dimension for each of the loops."""
        b = stmt.buffer
        sizes = [min((t.const for t in loop.extents if t.is_const), default=0) for loop in moved]
        if 0 in sizes:
            raise self.fail(f"the extent of {moved[sizes.index(0)].name} has no constant bound", "ragged")
        wide = Buffer(b.name, b.dtype, (*sizes, *b.shape), b.scope)
        body = map_leaves(stmt.body, partial(self._indexed, b.name, tuple(var(loop.name) for loop in moved)))
        return Alloc(wide, self._visit(body, moved))

    def _indexed(self, name: str, own: tuple[Affine, ...], leaf: Leaf) -> tuple[Stmt, ...]:
        def load(node: Expr) -> Expr | None:
            if isinstance(node, Load) and node.buffer == name:
                return Load(name, (*own, *node.index), node.dtype)
            return None

        index = (*own, *leaf.index) if leaf.buffer == name else leaf.index
        if isinstance(leaf, (Store, Reduce)):
            return (replace(leaf, index=index, value=transform(leaf.value, load)),)
        return (replace(leaf, index=index),)


@dataclass(frozen=True)
class TreeReduce(Step, kind="tree_reduce"):
    """for t < 2n: C += acc[t]  -->  for t < n, thread.x: acc[t] += acc[t + n]; ...; C += acc[0]

    The accumulators of a reduction that is tiled along its own axis (`register_tile`) are combined by threads, half of
    them at a time, instead of by one after another. The last `warp` of them pass from register to register, where
    there is one result. `to`: the threads that do it; loops over several results stay inside.
    """

    warp: int = 1
    to: str = "thread.x"

    def apply(self, nest: Nest) -> Nest:
        name = f"{self.stage}.acc"
        if name not in nest.all_buffers:
            raise self.fail("the stage has no accumulators; apply register_tile first", "no-accumulators")
        body, count = self._visit(nest.body, name)
        if not count:
            raise self.fail("no reduction loop of the stage is tiled", "no-lanes")
        return Nest(nest.buffers, body)

    def _visit(self, body: tuple[Stmt, ...], name: str) -> tuple[tuple[Stmt, ...], int]:
        out: list[Stmt] = []
        count = 0
        for stmt in body:
            band, inner = perfect_band(stmt) if isinstance(stmt, Loop) else ((), ())
            leaf = inner[0] if len(inner) == 1 else None
            lanes = (
                isinstance(stmt, Loop) and isinstance(leaf, Reduce) and leaf.tag == self.stage and leaf.role == "write"
                and isinstance(leaf.value, Load) and leaf.value.buffer == name
                and [b.name for b in band if not any(b.name in a.names() for a in leaf.index)] == [stmt.name]
            )  # fmt: skip
            if lanes:
                assert isinstance(stmt, Loop) and isinstance(leaf, Reduce)
                out += self._tree(stmt, band[1:], leaf)
                count += 1
            elif isinstance(stmt, (Loop, Alloc, Guard)):
                within, found = self._visit(stmt.body, name)
                out.append(with_body(stmt, within))
                count += found
            else:
                out.append(stmt)
        return tuple(out), count

    def _tree(self, stmt: Loop, inside: tuple[Loop, ...], leaf: Reduce) -> list[Stmt]:
        n, total = stmt.constant, leaf.value
        assert isinstance(total, Load)
        if n is None:
            raise self.fail(f"the extent of {stmt.name} is not constant", "ragged")
        start = {stmt.name: const(0)}
        if self.warp > 1 and (inside or self.to != "thread.x"):
            raise self.fail("lanes of a warp pass on parts of one result only, along thread.x", "bad-kind")
        out, rest = self._halved(stmt, inside, leaf, total, n, max(1, self.warp))
        if rest > 1:
            lanes = Buffer(f"{self.stage}.warp", total.dtype, (rest,), "warp")
            loop = f"{stmt.name}.lane"
            filled = Load(total.buffer, tuple(a.substitute({stmt.name: var(loop)}) for a in total.index), total.dtype)
            fill = Store(lanes.name, (var(loop),), filled, leaf.tag, (), "copy")
            total = Load(lanes.name, (var(stmt.name),), total.dtype)
            inner, _ = self._halved(stmt, (), leaf, total, rest, 1)
            last = Load(lanes.name, (const(0),), total.dtype)
            within = (Loop(loop, (const(rest),), (fill,), self.to), *inner, self._written(leaf, last, start))
            return [*out, Alloc(lanes, within)]
        last = Load(total.buffer, tuple(a.substitute(start) for a in total.index), total.dtype)
        return [*out, *_within(inside, self._written(leaf, last, start))]

    def _written(self, leaf: Reduce, total: Load, start: Mapping[str, Affine]) -> Stmt:
        first = None if leaf.first is None else tuple(a.substitute(start) for a in leaf.first)
        if first is not None and all(a == const(0) for a in first):
            return Store(leaf.buffer, leaf.index, total, leaf.tag, leaf.origin, leaf.role)
        return replace(leaf, value=total, first=first)

    def _halved(
        self, stmt: Loop, inside: tuple[Loop, ...], leaf: Reduce, total: Load, n: int, least: int
    ) -> tuple[list[Stmt], int]:
        """Statements that leave the sum of n accumulators in the first `least` of them, and how many these are."""
        out: list[Stmt] = []
        while n > least:
            half = (n + 1) // 2
            loop = f"{stmt.name}.{half}"
            mine, other = ({stmt.name: var(loop) + shift} for shift in (0, half))
            index, source = (tuple(a.substitute(at) for a in total.index) for at in (mine, other))
            step = Reduce(total.buffer, index, leaf.combiner, Load(total.buffer, source, total.dtype), None, leaf.tag,
                          (), "combine")  # fmt: skip
            out.append(Loop(loop, (const(n - half),), _within(inside, step), self.to))
            n = half
        return out, n


def _within(loops: tuple[Loop, ...], stmt: Stmt) -> tuple[Stmt, ...]:
    for b in reversed(loops):
        stmt = replace(b, body=(stmt,))
    return (stmt,)
