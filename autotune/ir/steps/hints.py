"""Hints: what to fetch early and what not to keep. None of these steps changes a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

from ..affine import Affine, const, var
from ..nest import Alloc, Guard, Loop, Nest, Reduce, Stmt, Store, leaves, map_leaves, reads, with_body
from ..nest import Prefetch as PrefetchStmt
from .base import Path, Step, final_stores, perfect_band


@dataclass(frozen=True)
class Prefetch(Step, kind="prefetch"):
    """Asks for the cache lines of a register tile's results before its reduction starts.

    The write then finds them near.
    """

    def apply(self, nest: Nest) -> Nest:
        name = f"{self.stage}.acc"
        if name not in nest.all_buffers:
            raise self.fail("the stage has no accumulators; apply register_tile first", "no-accumulators")
        return Nest(nest.buffers, self._visit(nest.body, name))

    def _visit(self, body: tuple[Stmt, ...], name: str) -> tuple[Stmt, ...]:
        out: list[Stmt] = []
        for stmt in body:
            inner: tuple[Stmt, ...] = getattr(stmt, "body", ())
            if isinstance(stmt, Alloc) and stmt.buffer.name == name:
                write = [s for s in stmt.body if any(leaf.role == "write" for leaf in _stores(s))]
                out.append(replace(stmt, body=(*stmt.body[:1], *self._hints(tuple(write)), *stmt.body[1:])))
            elif inner:
                out.append(replace(stmt, body=self._visit(inner, name)))  # type: ignore[arg-type]
            else:
                out.append(stmt)
        return tuple(out)

    def _hints(self, write: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        """The write's loops with the innermost one replaced by its first and last iteration: the lines at both ends."""
        out: list[Stmt] = []
        for stmt in write:
            if not isinstance(stmt, Loop):
                continue
            inner = self._hints(stmt.body)
            if inner:
                out.append(replace(stmt, body=inner))
                continue
            ends = sorted({0, (stmt.constant or 1) - 1})
            for at in ends:
                out.extend(map_leaves(stmt.body, partial(self._hint, stmt.name, at)))
        return tuple(out)

    def _hint(self, name: str, at: int, leaf: Stmt) -> tuple[Stmt, ...]:
        if isinstance(leaf, (Store, Reduce)):
            return (PrefetchStmt(leaf.buffer, tuple(a.substitute({name: const(at)}) for a in leaf.index), leaf.tag),)
        return ()


def _stores(stmt: Stmt) -> list[Store | Reduce]:
    return [leaf for leaf in leaves((stmt,)) if isinstance(leaf, (Store, Reduce))]


@dataclass(frozen=True)
class StoreHint(Step, kind="store_hint"):
    """Writes the stage's results past the caches (non-temporal stores).

    For results much larger than the last-level cache.
    """

    def apply(self, nest: Nest) -> Nest:
        if not any(isinstance(leaf, Store) for leaf, _ in final_stores(nest, self.stage)):
            raise self.fail("the stage has no plain store of its result", "no-store")
        mark: Callable[[Stmt], tuple[Stmt, ...]] = lambda leaf: (  # noqa: E731
            (replace(leaf, nontemporal=True),)
            if isinstance(leaf, Store) and leaf.tag == self.stage and leaf.buffer == self.stage
            else (leaf,)
        )
        return Nest(nest.buffers, map_leaves(nest.body, mark))


@dataclass(frozen=True)
class ReadAhead(Step, kind="read_ahead"):
    """Every iteration of `loop` asks for what the stage reads of `buffer` in the next one, in lines of `line` elements.

    The hints stand in front of the vectors and unrolled loops that read the same place one iteration earlier: the
    arithmetic of one row hides the memory of the next. Loops without a constant extent are left as they are.
    """

    buffer: str
    loop: str
    line: int

    def apply(self, nest: Nest) -> Nest:
        if self.line < 1:
            raise self.fail("a line has at least one element", "bad-factor")
        body, count = self._visit(nest.body, ())
        if not count:
            why = f"{self.stage} reads {self.buffer} in no vector or loop of constant extent inside {self.loop}"
            raise self.fail(why, "no-such-loop")
        return Nest(nest.buffers, body)

    def _visit(self, body: tuple[Stmt, ...], path: Path) -> tuple[tuple[Stmt, ...], int]:
        out: list[Stmt] = []
        count = 0
        for stmt in body:
            if not isinstance(stmt, (Loop, Alloc, Guard)):
                out.append(stmt)
                continue
            hints = self._hints(stmt, path) if isinstance(stmt, Loop) else None
            if hints is not None:
                count += 1
                out += [*self._where_next(hints, path), stmt]
                continue
            inner, found = self._visit(stmt.body, (*path, stmt))
            count += found
            out.append(with_body(stmt, inner))
        return tuple(out), count

    def _hints(self, top: Loop, path: Path) -> tuple[Stmt, ...] | None:
        """For a nest of expanded loops around one statement that reads the buffer; None for anything else."""
        band, body = perfect_band(top)
        moving = any(isinstance(b, Loop) and b.name == self.loop for b in path)
        expanded = all(b.constant is not None for b in band) and all(b.kind in ("unroll", "vector") for b in band[:-1])
        leaf = body[0] if moving and expanded and len(body) == 1 else None
        if not isinstance(leaf, (Store, Reduce)) or leaf.tag != self.stage:
            return None
        read = dict.fromkeys(index for name, index in reads(leaf) if name == self.buffer)
        places = product(*(range(0, b.constant or 0, self.line if b is band[-1] else 1) for b in band))
        where = [{b.name: const(at) for b, at in zip(band, place)} for place in places]
        found = dict.fromkeys(
            tuple(a.substitute({**at, self.loop: var(self.loop) + 1}) for a in index)
            for at in where for index in read if any(self.loop in a.names() for a in index)
        )  # fmt: skip
        return tuple(PrefetchStmt(self.buffer, index, self.stage, write=False) for index in found) if read else None

    def _where_next(self, hints: tuple[Stmt, ...], path: Path) -> tuple[Stmt, ...]:
        """Only if the next iteration comes here too: it exists, and so do those of the loops and guards inside."""
        here = next(n for n, b in enumerate(path) if isinstance(b, Loop) and b.name == self.loop)
        exists: list[Affine] = []
        for block in path[here:]:
            if isinstance(block, Loop):
                exists += [extent - var(block.name) - 1 for extent in block.extents]
            elif isinstance(block, Guard):
                exists += block.conditions
        moved = [c.substitute({self.loop: var(self.loop) + 1}) for c in exists if self.loop in c.names()]
        return (Guard(tuple(moved), hints),) if hints else ()
