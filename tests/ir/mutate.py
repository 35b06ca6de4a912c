"""Small changes to nests, for tests that must see them caught."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from autotune.ir.affine import Affine, const
from autotune.ir.bounds import upper
from autotune.ir.expr import Expr, Load, Op, loads, op, transform
from autotune.ir.nest import (
    Alloc,
    Guard,
    Loop,
    Nest,
    Prefetch,
    Reduce,
    Stmt,
    leaves,
    map_leaves,
    reads,
    walk,
    with_body,
)

Change = Callable[[Nest], Nest]
Mutant = tuple[str, Change]  # what is wrong, and the change that makes it so
LeafEdit = Callable[[Any], tuple[Stmt, ...]]
BlockEdit = Callable[[Any], tuple[Stmt, ...]]


def is_block(s: Stmt) -> bool:
    return isinstance(s, (Loop, Alloc, Guard))


def leaf_at(number: int, fn: LeafEdit) -> Change:
    """Change the leaf with this number, in program order."""

    def change(nest: Nest) -> Nest:
        at = iter(range(10_000))
        return Nest(nest.buffers, map_leaves(nest.body, lambda s: fn(s) if next(at) == number else (s,)))

    return change


def block_at(number: int, fn: BlockEdit) -> Change:
    """Change the loop, guard or alloc with this number, in program order."""

    def change(nest: Nest) -> Nest:
        at = iter(range(10_000))

        def visit(body: tuple[Stmt, ...]) -> Iterator[Stmt]:
            for s in body:
                if not isinstance(s, (Loop, Alloc, Guard)):
                    yield s
                elif next(at) == number:
                    yield from fn(s)
                else:
                    yield with_body(s, tuple(visit(s.body)))

        return Nest(nest.buffers, tuple(visit(nest.body)))

    return change


def leaf(test: Callable[[Any], bool], fn: LeafEdit) -> Change:
    """Change the first leaf that passes the test."""
    return lambda nest: leaf_at(next(n for n, s in enumerate(leaves(nest.body)) if test(s)), fn)(nest)


def block(test: Callable[[Any], bool] | str, fn: BlockEdit) -> Change:
    """Change the first block that passes the test, or has the name."""

    def change(nest: Nest) -> Nest:
        blocks = [s for s, _ in walk(nest.body) if is_block(s)]
        names = [s.buffer.name if isinstance(s, Alloc) else getattr(s, "name", "") for s in blocks]
        hits = [test(s) if callable(test) else name == test for s, name in zip(blocks, names)]
        return block_at(hits.index(True), fn)(nest)

    return change


# ---- edits ----------------------------------------------------------------------------------------------------------


def having(**fields: Any) -> LeafEdit:
    return lambda s: (replace(s, **fields),)


def value(fn: Callable[[Any], Expr | None]) -> LeafEdit:
    return lambda s: (replace(s, value=transform(s.value, fn)),)


def load(buffer: str, fn: Callable[[tuple[Affine, ...]], tuple[Affine, ...]]) -> LeafEdit:
    """Change the index of the loads of a buffer."""
    return value(lambda e: replace(e, index=fn(e.index)) if isinstance(e, Load) and e.buffer == buffer else None)


def operation(name: str, fn: Callable[[Op], Expr]) -> LeafEdit:
    return value(lambda e: fn(e) if isinstance(e, Op) and e.name == name else None)


def uses(name: str) -> Callable[[Any], bool]:
    def inside(e: Expr) -> bool:
        return isinstance(e, Op) and (e.name == name or any(map(inside, e.args)))

    return lambda s: not isinstance(s, Prefetch) and inside(s.value)


def role(name: str) -> Callable[[Any], bool]:
    return lambda s: getattr(s, "role", "") == name


def renamed(new: str) -> Callable[[Op], Expr]:
    return lambda e: op(new, *e.args)


def order(a: int, b: int) -> BlockEdit:
    """Two statements of a block change places."""

    def fn(s: Any) -> tuple[Stmt, ...]:
        row = list(s.body)
        row[a], row[b] = row[b], row[a]
        return (with_body(s, tuple(row)),)

    return fn


def into(child: int, target: int) -> BlockEdit:
    """A statement of a block moves to the end of the loop that is another one."""

    def fn(s: Any) -> tuple[Stmt, ...]:
        row = list(s.body)
        row[target] = with_body(row[target], (*row[target].body, row[child]))
        return (with_body(s, (*row[:child], *row[child + 1 :])),)

    return fn


def bumped(index: tuple[Affine, ...], d: int) -> tuple[Affine, ...]:
    return (*index[:d], index[d] + 1, *index[d + 1 :])


# ---- families: every statement, index, loop, guard and allocation of a nest -----------------------------------------


def statements(nest: Nest) -> Iterator[Mutant]:
    sites: list[tuple[Any, tuple[Any, ...]]] = [(s, path) for s, path in walk(nest.body) if not is_block(s)]
    for number, (s, path) in enumerate(sites):
        what = f"statement {number}"
        if isinstance(s, Prefetch):
            if number % 4 == 0:
                yield (
                    f"{what}: prefetch out of bounds",
                    leaf_at(number, having(index=(*s.index[:-1], s.index[-1] + 64))),
                )
            continue
        yield f"{what}: dropped", leaf_at(number, lambda s: ())
        for d in range(len(s.index)):
            if not _some_lanes(s, path, d):
                yield f"{what}: writes one further in dimension {d}", leaf_at(number, having(index=bumped(s.index, d)))
        for n in range(len(loads(s.value))):
            yield f"{what}: reads load {n} one further", leaf_at(number, partial(_shifted, number=n))
        if isinstance(s, Reduce):
            yield f"{what}: always initialises", leaf_at(number, having(first=()))
            other = "min" if s.combiner != "min" else "max"
            yield f"{what}: combines by {other}", leaf_at(number, having(combiner=other))
            if s.first is not None:
                yield f"{what}: never initialises", leaf_at(number, having(first=None))
                yield f"{what}: initialises too late", leaf_at(number, having(first=bumped(s.first, 0)))


def _some_lanes(s: Any, path: tuple[Any, ...], d: int) -> bool:
    """The tail of a reduction in some of the accumulator's lanes: it may use any lanes."""
    loops = {b.name: b for b in path if isinstance(b, Loop)}
    some = {n for n in s.index[d].names() if loops[n].kind == "vector" and loops[n].constant != loops[n].lanes}
    return isinstance(s, Reduce) and s.first is None and any(not any(n in a.names() for a in _result(s)) for n in some)


def _result(s: Reduce) -> tuple[Affine, ...]:
    """The coordinates of the result among those of the point: all but the last, in the programs of these tests."""
    return tuple(a for _, a in s.origin[:-1])


def _shifted(s: Any, number: int) -> tuple[Stmt, ...]:
    at = iter(range(100))

    def fn(e: Expr) -> Expr | None:
        hit = isinstance(e, Load) and next(at) == number
        return replace(e, index=bumped(e.index, len(e.index) - 1)) if hit and isinstance(e, Load) else None

    return (replace(s, value=transform(s.value, fn)),)


def blocks(nest: Nest) -> Iterator[Mutant]:
    for n, (s, path) in enumerate((s, path) for s, path in walk(nest.body) if is_block(s)):
        match s:
            case Loop(name=name, extents=extents):
                if s.constant == 1 or all(isinstance(leaf, Prefetch) for leaf in leaves(s.body)):
                    continue
                yield f"loop {n} ({name}): ends one early", block_at(n, having(extents=tuple(e - 1 for e in extents)))
                fills = any(getattr(leaf, "role", "") == "init" for leaf in leaves(s.body))
                for k in range(len(extents) if len(extents) > 1 and not fills and not _bounds_others(s) else 0):
                    yield f"loop {n} ({name}): only bound {k}", block_at(n, having(extents=extents[k : k + 1]))
                if s.kind == "vector" and (s.constant or s.lanes) > s.lanes // 2:
                    yield f"loop {n} ({name}): half the lanes", block_at(n, having(lanes=s.lanes // 2))
            case Alloc(buffer=b):
                for d, size in enumerate(_used(s, path)):
                    smaller = replace(b, shape=(*b.shape[:d], size - 1, *b.shape[d + 1 :]))
                    yield f"alloc {n} ({b.name}): too small in dimension {d}", block_at(n, having(buffer=smaller))
                shorter = lambda s: (with_body(s, s.body[:-1]), s.body[-1])
                yield f"alloc {n} ({b.name}): ends early", block_at(n, shorter)
            case Guard(conditions=conditions):
                yield f"guard {n}: gone", block_at(n, lambda s: s.body)
                yield f"guard {n}: never true", block_at(n, having(conditions=(*conditions, const(-1))))


def _bounds_others(loop: Loop) -> bool:
    return any(isinstance(s, Loop) and any(loop.name in e.names() for e in s.extents) for s, _ in walk(loop.body))


def _used(alloc: Alloc, path: tuple[Any, ...]) -> list[int]:
    """How much of each dimension is ever touched."""
    used = [0] * len(alloc.buffer.shape)
    for s, inner in walk(alloc.body):
        if isinstance(s, (Loop, Alloc, Guard)):
            continue
        around = (*path, *inner)
        loops = tuple(b for b in around if isinstance(b, Loop))
        guards = tuple(c for b in around if isinstance(b, Guard) for c in b.conditions)
        for name, index in ((s.buffer, s.index), *reads(s)):
            if name == alloc.buffer.name:
                used = [max(n, 1 + (upper(a, loops, guards) or 0)) for n, a in zip(used, index)]
    return used
