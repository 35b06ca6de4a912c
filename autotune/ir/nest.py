"""Nest: the static loop-nest IR. A tree of immutable statements over buffers; the one thing that is verified and
rendered.

Loops start at 0 and have step 1. A loop's extent is the minimum of its `extents`, affine in enclosing loops (clipped
blocks need two). Names are stable: `i`, then `i.0` and `i.1` after a split; one name may occur in several sibling
bodies (main and tail), and is unique along any path from the root.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Union

from .affine import Affine, affine
from .expr import Expr, loads, show
from .expr import substitute as substitute_expr
from .program import Buffer

BLOCK_KINDS = ("block.x", "block.y", "block.z")
THREAD_KINDS = ("thread.x", "thread.y", "thread.z", "thread")
LOOP_KINDS = ("serial", "unroll", "vector", "parallel", "tensor", "dot", *BLOCK_KINDS, *THREAD_KINDS)


@dataclass(frozen=True, slots=True)
class Loop:
    """for name in 0 .. min(extents): body.

    kind "unroll": expanded when rendered. "vector": all iterations at once in a vector of `lanes` (a power of two >=
    the extent); iterations must not depend on each other. "parallel": iterations may run at once on several threads,
    `chunk` at a time taken from a shared counter, or in equal static blocks when chunk is 0. "block.x", ...: one
    iteration a block of a grid. "thread.x", ...: one iteration a thread of its block; nested loops of kind "thread"
    count all threads of a block together, the innermost fastest. What stands in no thread loop of an axis is done by
    the threads that are number 0 along it. `barrier`: all threads of the block meet before the loop begins.
    "tensor": with what it holds, the matrix instruction `instruction` (`instructions.py`); "dot": with its statement,
    the dot instruction of that name (`dots.py`).
    """

    name: str
    extents: tuple[Affine, ...]
    body: tuple[Stmt, ...]
    kind: str = "serial"
    lanes: int = 0
    chunk: int = 0
    barrier: bool = False
    instruction: str = ""

    @property
    def constant(self) -> int | None:
        """The extent, where it is one constant."""
        return self.extents[0].const if len(self.extents) == 1 and self.extents[0].is_const else None


@dataclass(frozen=True, slots=True)
class Store:
    """buffer[index] = value.

    `tag` is the stage (the Compute, or a cache of one of its operands) that the statement belongs to. `origin` maps
    axes of that stage to the affine coordinates of the point being computed. `role`: "compute" evaluates the stage's
    body; "init", "write" move an accumulator, "combine" adds one to another; "copy" fills a cache. `asynchronous`: may
    be under way until threads have met so many times.
    """

    buffer: str
    index: tuple[Affine, ...]
    value: Expr
    tag: str
    origin: tuple[tuple[str, Affine], ...] = ()
    role: str = "compute"
    nontemporal: bool = False
    asynchronous: int = 0


@dataclass(frozen=True, slots=True)
class Reduce:
    """buffer[index] = combiner(buffer[index], value).

    `first`: the affine coordinates of this contribution inside its reduction; it *initialises* (a plain store) exactly
    when all of them are zero. None: the buffer was initialised by another statement. An empty tuple: always
    initialises.
    """

    buffer: str
    index: tuple[Affine, ...]
    combiner: str
    value: Expr
    first: tuple[Affine, ...] | None
    tag: str
    origin: tuple[tuple[str, Affine], ...] = ()
    role: str = "compute"


@dataclass(frozen=True, slots=True)
class Alloc:
    """A scratch, register or shared buffer that lives for one execution of `body`; its contents start undefined.

    "shared" is one array a block; a "register" array outside of thread loops is spread over the threads: the dimensions
    that thread loops index are theirs.
    """

    buffer: Buffer
    body: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class Guard:
    """if all conditions >= 0: body."""

    conditions: tuple[Affine, ...]
    body: tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class Prefetch:
    """A hint that buffer[index] will be written (or read) soon. No effect on values; the address must be in bounds."""

    buffer: str
    index: tuple[Affine, ...]
    tag: str
    write: bool = True


Leaf = Union[Store, Reduce, Prefetch]
Block = Union[Loop, Alloc, Guard]
Stmt = Union[Loop, Alloc, Guard, Store, Reduce, Prefetch]


@dataclass(frozen=True)
class Nest:
    """`buffers` are the inputs, outputs and program-wide temporaries; `body` runs in order."""

    buffers: tuple[Buffer, ...]
    body: tuple[Stmt, ...]

    @cached_property
    def all_buffers(self) -> dict[str, Buffer]:
        """Every buffer by name, the allocated ones too."""
        found = {b.name: b for b in self.buffers}
        for stmt, _ in walk(self.body):
            if isinstance(stmt, Alloc):
                found[stmt.buffer.name] = stmt.buffer
        return found

    def __str__(self) -> str:
        return show_nest(self)


def walk(body: tuple[Stmt, ...], path: tuple[Block, ...] = ()) -> Iterator[tuple[Stmt, tuple[Block, ...]]]:
    """Every statement in program order with the blocks that enclose it, outermost first."""
    for stmt in body:
        yield stmt, path
        if isinstance(stmt, (Loop, Alloc, Guard)):
            yield from walk(stmt.body, (*path, stmt))


def leaves(body: tuple[Stmt, ...]) -> Iterator[Leaf]:
    for stmt in body:
        if isinstance(stmt, (Loop, Alloc, Guard)):
            yield from leaves(stmt.body)
        else:
            yield stmt


def tags(stmt: Stmt) -> frozenset[str]:
    """The stages that have a statement in here."""
    return frozenset(leaf.tag for leaf in leaves((stmt,)))


def reads(leaf: Leaf) -> tuple[tuple[str, tuple[Affine, ...]], ...]:
    """(buffer, index) of every load of a leaf's value; a Reduce's own accumulator is not among them."""
    if isinstance(leaf, Prefetch):
        return ()
    return tuple((ld.buffer, ld.index) for ld in loads(leaf.value))


def with_body(block: Block, body: tuple[Stmt, ...]) -> Block:
    return replace(block, body=body)


def map_leaves(body: tuple[Stmt, ...], fn: Callable[[Leaf], tuple[Stmt, ...]]) -> tuple[Stmt, ...]:
    """Rebuild with every leaf replaced by fn(leaf); blocks left empty disappear."""
    out: list[Stmt] = []
    for stmt in body:
        if isinstance(stmt, (Loop, Alloc, Guard)):
            inner = map_leaves(stmt.body, fn)
            if inner:
                out.append(with_body(stmt, inner))
        else:
            out.extend(fn(stmt))
    return tuple(out)


def substitute_leaf(leaf: Leaf, values: Mapping[str, Affine]) -> Leaf:
    index = tuple(a.substitute(values) for a in leaf.index)
    if isinstance(leaf, Prefetch):
        return replace(leaf, index=index)
    origin = tuple((n, a.substitute(values)) for n, a in leaf.origin)
    value = substitute_expr(leaf.value, values)
    if isinstance(leaf, Store):
        return replace(leaf, index=index, value=value, origin=origin)
    first = None if leaf.first is None else tuple(a.substitute(values) for a in leaf.first)
    return replace(leaf, index=index, value=value, origin=origin, first=first)


def substitute(body: tuple[Stmt, ...], values: Mapping[str, Affine]) -> tuple[Stmt, ...]:
    """Replace loop names by affines in indices, extents, guards, origins and `first`."""
    out: list[Stmt] = []
    for stmt in body:
        if isinstance(stmt, Loop):
            extents = tuple(a.substitute(values) for a in stmt.extents)
            out.append(replace(stmt, extents=extents, body=substitute(stmt.body, values)))
        elif isinstance(stmt, Guard):
            conditions = tuple(a.substitute(values) for a in stmt.conditions)
            out.append(Guard(conditions, substitute(stmt.body, values)))
        elif isinstance(stmt, Alloc):
            out.append(Alloc(stmt.buffer, substitute(stmt.body, values)))
        else:
            out.append(substitute_leaf(stmt, values))
    return tuple(out)


def loop(name: str, extent: Affine | int, body: tuple[Stmt, ...]) -> Loop:
    return Loop(name, (affine(extent),), body)


# ---- text -----------------------------------------------------------------------------------------------------------


def show_stmts(body: tuple[Stmt, ...], indent: int = 0) -> Iterator[str]:
    pad = "  " * indent
    for stmt in body:
        match stmt:
            case Loop():
                extent = ", ".join(map(str, stmt.extents))
                extent = f"min({extent})" if len(stmt.extents) > 1 else extent
                kind = "" if stmt.kind == "serial" else f" {stmt.kind}" + (f"({stmt.lanes})" if stmt.lanes else "")
                kind += " after a barrier" if stmt.barrier else ""
                kind += f" {stmt.instruction}" if stmt.instruction else ""
                yield f"{pad}for {stmt.name} < {extent}{kind}:"
                yield from show_stmts(stmt.body, indent + 1)
            case Alloc(buffer=b):
                yield f"{pad}alloc {b.name}: {b.dtype}{list(b.shape)} {b.scope}"
                yield from show_stmts(stmt.body, indent)
            case Guard():
                yield f"{pad}if {' and '.join(f'{c} >= 0' for c in stmt.conditions)}:"
                yield from show_stmts(stmt.body, indent + 1)
            case Prefetch():
                yield f"{pad}prefetch {stmt.buffer}[{', '.join(map(str, stmt.index))}]"
            case Store():
                late = f" asynchronous({stmt.asynchronous})" if stmt.asynchronous > 1 else " asynchronous"
                hint = " nontemporal" if stmt.nontemporal else late if stmt.asynchronous else ""
                yield f"{pad}{stmt.buffer}[{', '.join(map(str, stmt.index))}] = {show(stmt.value)}{hint}"
            case Reduce():
                where = "" if stmt.first is None else f"  first({', '.join(map(str, stmt.first))})"
                index = ", ".join(map(str, stmt.index))
                yield f"{pad}{stmt.buffer}[{index}] {stmt.combiner}= {show(stmt.value)}{where}"


def show_nest(nest: Nest) -> str:
    head = [f"{b.scope} {b.name}: {b.dtype}{list(b.shape)}" for b in nest.buffers]
    return "\n".join([*head, *show_stmts(nest.body)]) + "\n"
