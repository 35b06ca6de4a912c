"""ComputeAt: run one stage inside the loops of another, and keep what passes between them near."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..affine import Affine, const, var
from ..bounds import upper
from ..expr import Expr, Load, loads, substitute, transform
from ..nest import (
    Alloc,
    Block,
    Guard,
    Leaf,
    Loop,
    Nest,
    Reduce,
    Stmt,
    Store,
    leaves,
    map_leaves,
    reads,
    tags,
    walk,
    with_body,
)
from ..program import Buffer
from .base import Path, Step, enclosing, final_stores, prune_terms


@dataclass(frozen=True)
class ComputeAt(Step, kind="compute_at"):
    """Moves a stage into the loops of the stage `into`.

    A *producer* (`into` reads it): both nests begin with the same loops down to `loop`; they become one, the
    producer's part first, and its array shrinks to what one iteration of `loop` uses.
    An *epilogue* (it reads `into`): with loop "" it takes over the stores of `into` while the value is still in a
    register; with a loop name it runs after each iteration's block of results is complete.
    A *sibling* (neither reads the other): loops become one as with a producer, so that what both read is still near.
    """

    into: str
    loop: str = ""

    def apply(self, nest: Nest) -> Nest:
        ours = [s for s in nest.body if self.stage in tags(s)]
        theirs = [s for s in nest.body if self.into in tags(s)]
        many = len(theirs) != 1 and bool(self.loop)  # (a remainder is a nest beside the whole tiles')
        if len(ours) != 1 or not theirs or many or ours[0] in theirs:
            raise self.fail("both stages must be nests of their own", "not-separate")
        source, target = ours[0], theirs[0]
        rest = tuple(s for s in nest.body if s is not source)
        sibling = bool(self.loop) and not (self.stage in _inputs(target) or self.into in _inputs(source))
        if self.stage in _inputs(target) or sibling:
            if others := [s for s in rest if s is not target and self.stage in _inputs(s)]:
                reader = sorted(tags(others[0]))[0]
                raise self.fail(f"{reader} reads {self.stage} too, outside of {self.into}'s loops", "other-reader")
            after = nest.body[nest.body.index(target) :] if sibling else ()
            if late := {leaf.buffer for leaf in leaves(after)} & _inputs(source):
                raise self.fail(f"{sorted(late)[0]}, which {self.stage} reads, is made after {self.into}", "not-ready")
            made = self._merge(source, target, sibling)
            nest = Nest(nest.buffers, tuple(made if s is target else s for s in rest))
            return self._privatise(nest, self.stage)
        if self.into in _inputs(source):
            epilogue = _Epilogue(self, nest, source)
            place = epilogue.at_loop if self.loop else epilogue.in_registers
            nest = Nest(nest.buffers, tuple(place(s) if s in theirs else s for s in rest))
            return self._privatise(nest, self.into) if self.loop else self._forget(nest)
        raise self.fail("neither stage reads the other: only a loop can hold both", "not-related")

    # ---- producer into consumer ----

    def _merge(self, source: Stmt, target: Stmt, sibling: bool) -> Stmt:
        while isinstance(source, Alloc):
            raise self.fail("the producer's outermost statement must be a loop", "imperfect")
        if isinstance(target, (Alloc, Guard)):
            inside = (self._merge(source, s, sibling) if self.into in tags(s) else s for s in target.body)
            return with_body(target, tuple(inside))
        if not isinstance(source, Loop) or not isinstance(target, Loop):
            raise self.fail(f"ran out of loops before {self.loop}", "no-such-loop")
        if (source.name, source.extents) != (target.name, target.extents):
            raise self.fail(
                f"loops differ: {source.name} < {source.extents[0]} and {target.name} < {target.extents[0]}",
                "loops-differ",
            )
        if source.name == self.loop:
            both = (*source.body, *target.body) if sibling else self._before(source.body, target.body)
            return replace(target, body=both)
        if len(source.body) != 1:
            raise self.fail(f"the producer has several statements in {source.name}", "imperfect")
        inner = tuple(self._merge(source.body[0], s, sibling) if self.into in tags(s) else s for s in target.body)
        return replace(target, body=inner)

    def _before(self, made: tuple[Stmt, ...], body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        """Before the first statement that reads the stage, inside the buffers that are allocated here."""
        if len(body) == 1 and isinstance(body[0], Alloc) and not body[0].buffer.name.endswith(".acc"):
            return (replace(body[0], body=self._before(made, body[0].body)),)
        at = next((n for n, s in enumerate(body) if self.stage in _inputs(s)), None)
        if at is None:
            raise self.fail(f"{self.into} does not read {self.stage} inside {self.loop}", "read-elsewhere")
        return (*body[:at], *made, *body[at:])

    def _privatise(self, nest: Nest, name: str) -> Nest:
        """Shrink a temporary that lives inside one iteration of `loop` to that iteration's block, allocated there."""
        buffer = nest.all_buffers[name]
        if buffer.scope != "temp":
            return nest
        uses = [(index, path) for s, path in walk(nest.body) for b, index in _accesses(s) if b == name]
        if not all(any(isinstance(b, Loop) and b.name == self.loop for b in path) for _, path in uses):
            return nest
        bases: list[tuple[Affine, ...]] = []
        shape: list[int] = [1] * len(buffer.shape)
        for index, path in uses:
            loops, guards = enclosing(path)
            at = next(n for n, b in enumerate(loops) if b.name == self.loop)
            outer = {b.name for b in loops[: at + 1]}
            base = tuple(Affine(tuple((t, c) for t, c in a.terms if Affine(((t, 1),)).names() <= outer)) for a in index)
            bases.append(base)
            for d, (a, b) in enumerate(zip(index, base)):
                most = upper(a - b, loops, guards)
                shape[d] = max(shape[d], 1 + (most if most is not None else buffer.shape[d] - 1))
        if len(set(bases)) != 1:
            return nest
        base = bases[0]
        # An enclosing loop that does not move the block comes back to it: the values must outlive its iterations.
        moving = {n for a in base for n in a.names()}
        if any(b.name not in moving and b.constant != 1 for b in loops[: at + 1]):
            return nest
        scope = "register" if all(n == 1 for n in shape) else "scratch"
        small = Buffer(name, buffer.dtype, tuple(shape), scope)

        def moved(index: tuple[Affine, ...]) -> tuple[Affine, ...]:
            return tuple(a - b for a, b in zip(index, base))

        def shift(leaf: Leaf) -> tuple[Stmt, ...]:
            new = replace(leaf, index=moved(leaf.index)) if leaf.buffer == name else leaf
            if isinstance(new, (Store, Reduce)):
                value = transform(new.value, lambda n: Load(name, moved(n.index), n.dtype)
                                  if isinstance(n, Load) and n.buffer == name else None)  # fmt: skip
                new = replace(new, value=value)
            return (new,)

        def place(body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
            out: list[Stmt] = []
            for s in body:
                if isinstance(s, Loop) and s.name == self.loop and any(name in _inputs(x) for x in s.body):
                    out.append(replace(s, body=(Alloc(small, map_leaves(s.body, shift)),)))
                elif isinstance(s, (Loop, Alloc, Guard)):
                    out.append(with_body(s, place(s.body)))
                else:
                    out.append(s)
            return tuple(out)

        return Nest(tuple(b for b in nest.buffers if b.name != name), place(nest.body))

    def _forget(self, nest: Nest) -> Nest:
        """Drop the stores of a temporary that nothing reads any more."""
        name = self.into
        if nest.all_buffers[name].scope != "temp" or any(name in _inputs(s) for s in nest.body):
            return nest
        body = map_leaves(nest.body, lambda leaf: () if leaf.buffer == name else (leaf,))
        return Nest(tuple(b for b in nest.buffers if b.name != name), body)


class _Epilogue:
    """Places the one plain Store of a stage behind the stores of the stage that it reads."""

    def __init__(self, step: ComputeAt, nest: Nest, source: Stmt) -> None:
        self.step, self.nest = step, nest
        path = [(s, p) for s, p in walk((source,)) if isinstance(s, (Store, Reduce))]
        if len(path) != 1 or not isinstance(path[0][0], Store):
            raise step.fail("an epilogue is one plain store", "not-elementwise")
        self.leaf: Store = path[0][0]
        blocks = path[0][1]
        axes = {b.name for b in blocks if isinstance(b, Loop)}
        read = {ld.index for ld in loads(self.leaf.value) if ld.buffer == step.into}
        index = next(iter(read))
        variables = [a.single() for a in index]
        if len(read) != 1 or None in variables or set(variables) != axes or len(set(variables)) != len(variables):
            raise step.fail(
                f"{step.into} must be read at one place, with every loop of the epilogue as an index", "not-pointwise"
            )
        self.variables = [v for v in variables if v is not None]

    def stored(self, index: tuple[Affine, ...], value: Expr | None) -> Store:
        """The epilogue's store where `into` has the given index; `value` replaces the load of it."""
        where = dict(zip(self.variables, index))
        body = substitute(self.leaf.value, where)
        if value is not None:
            body = transform(body, lambda n: value if isinstance(n, Load) and n.buffer == self.step.into else None)
        target = tuple(a.substitute(where) for a in self.leaf.index)
        origin = tuple((n, a.substitute(where)) for n, a in self.leaf.origin)
        return replace(self.leaf, index=target, value=body, origin=origin)

    def in_registers(self, target: Stmt) -> Stmt:
        """In place of every store of the result, while its value is in a register. Where the reduction runs in blocks,
        behind the last block's part of each tile, while the result is in the first cache."""
        into = self.step.into

        def writes(stmt: Stmt) -> list[Leaf]:
            return [leaf for leaf in leaves((stmt,)) if leaf.buffer == into and isinstance(leaf, (Store, Reduce))]

        def visit(body: tuple[Stmt, ...], path: Path) -> tuple[Stmt, ...]:
            out: list[Stmt] = []
            for stmt in body:
                own = writes(stmt)
                if own and all(isinstance(leaf, Reduce) and leaf.role == "write" for leaf in own) and _is_tile(stmt):
                    out += self._last_block(stmt, path, own)
                elif isinstance(stmt, (Loop, Alloc, Guard)):
                    out.append(with_body(stmt, visit(stmt.body, (*path, stmt))))
                elif own and isinstance(stmt, Store):
                    out += [stmt, self.stored(stmt.index, stmt.value)]
                elif own:
                    why = "the reduction is not complete in registers; name a loop instead"
                    raise self.step.fail(why, "incomplete")
                else:
                    out.append(stmt)
            return tuple(out)

        return visit((target,), ())[0]

    def _last_block(self, stmt: Stmt, path: Path, own: list[Leaf]) -> list[Stmt]:
        """The nest that adds one block's part to the result and, for the last block, this tile's epilogue behind it."""
        loops, _ = enclosing(path)
        outer = {b.name: b.constant for b in loops}
        carried = {n for leaf in own if isinstance(leaf, Reduce) for a in leaf.first or () for n in a.names()}
        if not carried or any(outer.get(n) is None for n in carried):
            raise self.step.fail("no loops around the tile count the reduction's blocks", "incomplete")
        last = tuple(var(n) - ((outer[n] or 1) - 1) for n in sorted(carried))
        return [stmt, Guard(last, map_leaves((stmt,), lambda leaf: (self.stored(leaf.index, None),)))]

    def at_loop(self, target: Stmt) -> Stmt:
        step = self.step
        stores = [(s, p) for s, p in final_stores(self.nest, step.into)]

        def place(body: tuple[Stmt, ...], path: Path) -> tuple[Stmt, ...]:
            out: list[Stmt] = []
            for s in body:
                if isinstance(s, Loop) and s.name == step.loop and step.into in tags(s):
                    out.append(replace(s, body=(*s.body, *self.block(s, path, stores))))
                elif isinstance(s, (Loop, Alloc, Guard)):
                    out.append(with_body(s, place(s.body, (*path, s))))
                else:
                    out.append(s)
            return tuple(out)

        made = place((target,), ())
        if made == (target,):
            raise step.fail(f"stage {step.into} has no loop {step.loop!r}", "no-such-loop")
        return made[0]

    def block(self, loop: Loop, path: Path, stores: list[tuple[Store | Reduce, Path]]) -> tuple[Stmt, ...]:
        """The epilogue over all results of one iteration of `loop`, after the last block of the reduction."""
        outer, guards = enclosing((*path, loop))
        names = {b.name for b in outer}
        whole = self.nest.all_buffers[self.step.into].shape
        base = _common_base([s.index for s, _ in stores], names)
        terms: list[tuple[Affine, ...]] = []
        for d, start in enumerate(base):
            sizes = {_extent(s.index[d] - start, p, names) for s, p in stores}
            known = [n for n in sizes if n is not None]
            if len(known) != len(sizes):
                raise self.step.fail("the block of results has no constant bound", "no-region")
            terms.append(prune_terms((const(max(known)), const(whole[d]) - start), outer, guards))
        loops = tuple(Loop(f"{v}.e", t, ()) for v, t in zip(self.variables, terms))
        body: tuple[Stmt, ...] = (self.stored(tuple(b + var(f"{v}.e") for b, v in zip(base, self.variables)), None),)
        for lp in reversed(loops):
            body = (replace(lp, body=body),)
        used = {n for s, _ in stores for a in s.index for n in a.names()}
        last = []
        for b in outer:
            if b.name not in used and b is outer[-1] and b.constant != 1:
                raise self.step.fail(
                    f"{b.name} carries the reduction of {self.step.into}; name a loop around it", "carried"
                )
            if b.name not in used:
                if b.constant is None:
                    raise self.step.fail(f"the reduction loop {b.name} has no constant extent", "no-region")
                if b.constant > 1:
                    last.append(var(b.name) - (b.constant - 1))
        return (Guard(tuple(last), body),) if last else body


def _is_tile(stmt: Stmt) -> bool:
    """A nest of plain loops around one statement: the write of a register tile."""
    while isinstance(stmt, Loop) and len(stmt.body) == 1:
        stmt = stmt.body[0]
    return not isinstance(stmt, (Loop, Alloc, Guard))


def _common_base(indices: list[tuple[Affine, ...]], names: set[str]) -> tuple[Affine, ...]:
    """The part of the indices that only the given loops move. Bodies of remainders start at a constant further on: the
    whole tiles, which move with most loops, say where a block begins."""

    def part(a: Affine) -> Affine:
        return Affine(tuple((t, c) for t, c in a.terms if Affine(((t, 1),)).names() <= names))

    return max((tuple(map(part, index)) for index in indices), key=lambda base: sum(len(a.terms) for a in base))


def _extent(local: Affine, path: Path, names: set[str]) -> int | None:
    loops, guards = enclosing(path)
    most = upper(local, loops, guards)
    return None if most is None else most + 1


def _inputs(stmt: Stmt) -> set[str]:
    return {b for s, _ in walk((stmt,)) if not isinstance(s, (Loop, Alloc, Guard)) for b, _ in reads(s)}


def _accesses(stmt: Stmt) -> tuple[tuple[str, tuple[Affine, ...]], ...]:
    if isinstance(stmt, (Loop, Alloc, Guard)):
        return ()
    return ((stmt.buffer, stmt.index), *reads(stmt))


__all__ = ["Block", "ComputeAt"]
