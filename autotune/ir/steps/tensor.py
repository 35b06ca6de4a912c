"""Tensorize: a tile of a sum of products becomes matrix instructions of a warp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

from ..affine import Affine, const, var
from ..expr import Expr, Load, transform
from ..instructions import INSTRUCTIONS, Instruction, use
from ..nest import (
    Alloc,
    Guard,
    Leaf,
    Loop,
    Nest,
    Prefetch,
    Stmt,
    leaves,
    map_leaves,
    reads,
    substitute_leaf,
    walk,
    with_body,
)
from ..program import Buffer
from .base import Step, perfect_band


@dataclass(frozen=True)
class Tensorize(Step, kind="tensorize"):
    """for k: for i < 32: for j < 16: acc[i,j] += A * B
    -->  for lane, thread.x: for k.0, i.0 < 2, j.0 < 2: for r, tensor: for k.1 < 16: acc[i.0,j.0,lane,r] += A * B

    Cuts the loops `rows`, `columns` and `depth` of a stage whose results are held in registers (`register_tile`) by the
    shape of a matrix instruction. What is left of a tile is spread over the lanes of a warp as the instruction has it;
    where the tile is filled and written, lanes walk it in the same way.
    """

    instruction: str
    rows: str
    columns: str
    depth: str

    @property
    def known(self) -> Instruction:
        found = INSTRUCTIONS.get(self.instruction)
        if found is None:
            raise self.fail(f"the instructions are {', '.join(INSTRUCTIONS)}", "no-instruction")
        return found

    def apply(self, nest: Nest) -> Nest:
        name, known = f"{self.stage}.acc", self.known
        if name not in nest.all_buffers:
            raise self.fail("the stage has no accumulators; apply register_tile first", "no-accumulators")
        made = Nest(nest.buffers, self._visit(nest.body, name, known))
        for stmt, path in walk(made.body):
            if isinstance(stmt, Loop) and stmt.kind == "tensor" and isinstance(why := use(stmt, path), str):
                raise self.fail(why, "no-match")
        return made

    def _visit(self, body: tuple[Stmt, ...], name: str, known: Instruction) -> tuple[Stmt, ...]:
        out: list[Stmt] = []
        for stmt in body:
            if isinstance(stmt, Alloc) and stmt.buffer.name == name:
                out.append(self._tile(stmt, known))
            elif isinstance(stmt, (Loop, Alloc, Guard)):
                out.append(with_body(stmt, self._visit(stmt.body, name, known)))
            else:
                out.append(stmt)
        return tuple(out)

    def _tile(self, stmt: Alloc, known: Instruction) -> Stmt:
        """One array of accumulators and all that happens to it."""
        b = stmt.buffer
        own = next((s for s in leaves(stmt.body) if s.buffer == b.name and s.tag == self.stage), None)
        dims = [d for n in (self.rows, self.columns) for d, a in enumerate(own.index if own else ()) if a == var(n)]
        if len(dims) != 2:
            raise self.fail(f"{b.name} has no dimension for each of {self.rows} and {self.columns}", "bad-tile")
        sizes = [b.shape[d] for d in dims]
        if any(size % n for size, n in zip(sizes, known.shape)):
            raise self.fail(f"a tile of {sizes[0]} by {sizes[1]} is no multiple of {known.shape[:2]}", "ragged")
        kept = [n for d, n in enumerate(b.shape) if d not in dims]
        shape = (*kept, sizes[0] // known.shape[0], sizes[1] // known.shape[1], known.lanes, known.c.elements)
        return Alloc(Buffer(b.name, b.dtype, shape, b.scope), self._spread(stmt.body, b.name, dims, known))

    def _spread(self, body: tuple[Stmt, ...], name: str, dims: list[int], known: Instruction) -> tuple[Stmt, ...]:
        """The statements with every band that walks the tile given to the lanes."""
        out: list[Stmt] = []
        for stmt in body:
            mine = isinstance(stmt, Loop) and stmt.name in (self.rows, self.columns, self.depth)
            if isinstance(stmt, Loop) and mine and self._touches(stmt, name):
                out.append(self._lanes(stmt, name, dims, known))
            elif isinstance(stmt, (Loop, Guard, Alloc)):
                out.append(with_body(stmt, self._spread(stmt.body, name, dims, known)))
            else:
                out.append(stmt)
        return tuple(out)

    def _touches(self, stmt: Loop, name: str) -> bool:
        return any(name in (leaf.buffer, *(b for b, _ in reads(leaf))) for leaf in leaves((stmt,)))

    def _lanes(self, stmt: Loop, name: str, dims: list[int], known: Instruction) -> Stmt:
        band, body = perfect_band(stmt)
        loops = {b.name: b for b in band}
        if not {self.rows, self.columns} <= loops.keys():
            raise self.fail(f"{self.rows} and {self.columns} are not in one perfect band", "imperfect")
        lane, element = f"{self.stage}.lane", f"{self.stage}.element"
        row, column = known.c.at(var(lane), var(element))
        cut = [(self.rows, row), (self.columns, column)]
        update = self.depth in loops
        if update:
            cut.append((self.depth, var(f"{self.depth}.1")))
        values: dict[str, Affine] = {}
        outer: list[Loop] = []
        for (n, inside), size in zip(cut, known.shape):
            extent = loops[n].constant
            if extent is None or extent % size:
                raise self.fail(f"the extent of {n} is no multiple of {size}", "ragged")
            values[n] = var(f"{n}.0") * size + inside
            outer.append(Loop(f"{n}.0", (const(extent // size),), (), "serial" if n == self.depth else "unroll"))
        others = [replace(b, body=()) for b in band if b.name not in values]
        tile = (var(f"{self.rows}.0"), var(f"{self.columns}.0"), var(lane), var(element))
        body = map_leaves(body, partial(self._moved, name, dims, tile, values))
        if update:
            body = (Loop(f"{self.depth}.1", (const(known.shape[2]),), body),)
        kind, which = ("tensor", known.name) if update else ("unroll", "")
        body = (Loop(element, (const(known.c.elements),), body, kind, instruction=which),)
        for loop in (*reversed(outer[:2]), *outer[2:], *reversed(others)):
            body = (replace(loop, body=body),)
        return Loop(lane, (const(known.lanes),), body, "thread.x")

    def _moved(
        self, name: str, dims: list[int], tile: tuple[Affine, ...], values: Mapping[str, Affine], leaf: Leaf
    ) -> tuple[Stmt, ...]:
        """A statement on the tile as the lanes see it."""

        def place(index: tuple[Affine, ...]) -> tuple[Affine, ...]:
            if [index[d] for d in dims] != [var(self.rows), var(self.columns)]:
                raise self.fail(f"{name} is not indexed by {self.rows} and {self.columns} alone", "bad-tile")
            return (*(a for d, a in enumerate(index) if d not in dims), *tile)

        def load(node: Expr) -> Expr | None:
            return Load(name, place(node.index), node.dtype) if isinstance(node, Load) and node.buffer == name else None

        index = place(leaf.index) if leaf.buffer == name else leaf.index
        if isinstance(leaf, Prefetch):
            return (substitute_leaf(replace(leaf, index=index), values),)
        return (substitute_leaf(replace(leaf, index=index, value=transform(leaf.value, load)), values),)
