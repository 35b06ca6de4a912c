"""Pack: stage an operand of a stage in scratch memory, in the order in which the stage will read it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from ..affine import Affine, const, var
from ..dtypes import DType
from ..dtypes import dtype as parse_dtype
from ..expr import Const, Expr, Load, Op, loads, names, substitute, transform
from ..expr import walk as walk_expr
from ..nest import Alloc, Guard, Loop, Nest, Reduce, Stmt, Store, leaves, map_leaves, tags, walk, with_body
from ..program import Buffer
from .base import Path, Step, enclosing, prune_terms, rewrite_loops


def copy_loop(cache: str, dim: int) -> str:
    """The loop of a copy that walks dimension `dim` of the array that is copied."""
    return f"{cache}.{'abcdefgh'[dim]}"


@dataclass(frozen=True)
class Pack(Step, kind="pack"):
    """for k: for j: C += A * B[k,j]  -->  for k: { P[j/w, k, j%w] = B[k,j] for the block below; for j: C += A * P }

    `load` counts the loads of the stage's expression from the left; what is staged is the largest subexpression that
    varies with the same loops, so a prologue is computed once an element (`bare`: the operand alone, and as the wider
    type `dtype` if that is given and all it meets is a cast). `at` names the loop inside which one block is staged
    ("" = before all loops). `panels` gives (dimension of the load, width): such a dimension is cut into panels; panel
    numbers are outermost and the positions inside panels innermost, in the order given. The copy is a stage of its
    own, `<stage>.load<n>`, with a loop `<stage>.load<n>.a`, `.b`, ... for each dimension; cut a panel dimension by its
    width (`tile`) and the panel arithmetic disappears.

    `loops`: the copy has these inner loops for dimensions, in this order, in place of the operand's own. What several
    loops reach (the windows of an image) is then copied once for each of them: every access to the copy is to
    neighbours, whatever the steps of the windows.
    """

    load: int
    at: str
    panels: tuple[tuple[int, int], ...] = ()
    bare: bool = False
    dtype: str = ""
    loops: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.stage}.load{self.load}"

    def apply(self, nest: Nest) -> Nest:
        if self.name in nest.all_buffers:
            raise self.fail("this operand is packed already", "already-packed")
        if self.at:
            return rewrite_loops(self, nest, self.at, partial(self._inside, nest))
        body: list[Stmt] = []
        for stmt in nest.body:
            if self.stage in tags(stmt):
                body.append(self._stage(nest, (stmt,), ()))
            else:
                body.append(stmt)
        if not any(self.stage in tags(s) for s in body):
            raise self.fail("no such stage", "no-such-loop")
        return Nest(nest.buffers, tuple(body))

    def _inside(self, nest: Nest, loop: Loop, path: Path) -> tuple[Stmt, ...]:
        return (replace(loop, body=(self._stage(nest, loop.body, (*path, loop)),)),)

    def _stage(self, nest: Nest, body: tuple[Stmt, ...], path: Path) -> Alloc:
        found = [
            (s, p)
            for s, p in walk(body)
            if isinstance(s, (Store, Reduce)) and s.tag == self.stage and s.role == "compute"
        ]
        if len(found) != 1:
            raise self.fail(
                f"needs one statement of the stage below {self.at or 'the top'}, found {len(found)}", "imperfect"
            )
        leaf, inside = found[0]
        all_loads = loads(leaf.value)
        if not 0 <= self.load < len(all_loads):
            raise self.fail(f"the stage's expression has {len(all_loads)} loads", "no-such-load")
        target = all_loads[self.load]
        inner = tuple(b for b in inside if isinstance(b, Loop))
        outer, guards = enclosing(path)
        inner_names = {b.name for b in inner}
        source = nest.all_buffers[target.buffer]
        if any(leaf.buffer == target.buffer for leaf in leaves(body)):
            raise self.fail(f"{target.buffer} is computed inside {self.at or 'the same nest'}", "made-inside")
        block = [(const(0), var(name)) for name in self.loops] or [_separate(a, inner_names) for a in target.index]
        if self.loops:
            self._covered(target, inside, outer)
        widths = dict(self.panels)
        if any(not 0 <= d < len(block) or w < 1 for d, w in self.panels):
            raise self.fail(f"panels name dimensions 0..{len(block) - 1} and positive widths", "bad-panel")

        extents: list[tuple[Affine, ...]] = []
        sizes = [*source.shape] if not self.loops else [None] * len(block)
        for (base, local), size in zip(block, sizes):
            terms = _extent_terms(local, inner)
            terms = prune_terms((*terms, const(size) - base) if size is not None else terms, outer, guards)
            if len(terms) > 2:
                raise self.fail(f"the block's extent would be the minimum of {len(terms)} terms", "ragged")
            extents.append(terms)

        position = [var(copy_loop(self.name, d)) for d in range(len(block))]
        caches = frozenset(n for n, b in nest.all_buffers.items() if b.scope in ("scratch", "register"))
        whole = target if self.bare else staged(leaf.value, target, caches)
        value = (
            substitute(whole, {b.name: const(0) for b in inner} | dict(zip(self.loops, position)))
            if self.loops
            else self._operand(whole, target, [b for b, _ in block], position, inner_names)
        )
        if self.dtype:
            value = Op("cast", (value,), self._wider(leaf.value, target))
        cache = Buffer(self.name, value.dtype, _shape(extents, widths, value.dtype.bytes), "scratch")
        boxes = [_constant(terms) for terms in extents]
        fill: Stmt = Store(self.name, _cell(position, widths, boxes), value, self.name, (), "copy")
        for at, terms in reversed(list(zip(position, extents))):
            fill = Loop(str(at), terms, (fill,))
        slots = _cell([local for _, local in block], widths, boxes)
        read = Load(self.name, slots, value.dtype)

        def use(stmt: Stmt) -> tuple[Stmt, ...]:
            if stmt is not leaf:
                return (stmt,)
            new = transform(leaf.value, lambda node: read if node is whole else None)
            return (replace(leaf, value=new),)

        return Alloc(cache, (fill, *map_leaves(body, use)))

    def _wider(self, value: Expr, target: Load) -> DType:
        """`dtype`, which has every value of the operand and takes part in nothing but a cast."""
        kind, old = parse_dtype(self.dtype), target.dtype
        holds = kind.bits > old.bits and (kind.kind == old.kind or (old.kind, kind.kind) == ("u", "i"))
        users = [node for node in walk_expr(value) if isinstance(node, Op) and target in node.args]
        if not self.bare or not holds or any(node.name != "cast" for node in users):
            raise self.fail(f"{old} cannot be kept as {kind} here", "bad-type")
        return kind

    def _covered(self, target: Load, inside: Path, outer: tuple[Loop, ...]) -> None:
        """Refuses where `loops` are not all the inner loops that move the operand, each once and of its own extent."""
        inner, known = [b for b in inside if isinstance(b, Loop)], {b.name for b in outer}
        if any(isinstance(b, Guard) for b in inside):
            raise self.fail("a guard inside says which iterations there are", "ragged")
        wanted = names(target) & {b.name for b in inner if b.constant != 1}
        still = {b.name for b in inner if b.constant == 1}
        if set(self.loops) - still != wanted or len({*self.loops}) != len(self.loops):
            raise self.fail(f"the operand moves with {', '.join(sorted(wanted)) or 'no inner loop'}", "loops-differ")
        if any(not t.names() <= known for b in inner if b.name in self.loops for t in b.extents):
            raise self.fail("the extent of an inner loop depends on another inner loop", "dependent")

    def _operand(
        self, whole: Expr, target: Load, bases: list[Affine], position: list[Affine], inner_names: set[str]
    ) -> Expr:
        """The staged expression with inner loops replaced by the copy's coordinates."""
        at_position = Load(target.buffer, tuple(b + p for b, p in zip(bases, position)), target.dtype)
        if not names(transform(whole, lambda node: Const(0, node.dtype) if node is target else None)):
            return transform(whole, lambda node: at_position if node is target else None)
        values: dict[str, Affine] = {}
        for a, base, at in zip(target.index, bases, position):
            local = (a - base).single()
            if local is None and (a - base) != const(0):
                raise self.fail(
                    f"a prologue can be packed only where {a} is one loop inside {self.at or 'the top'}", "prologue"
                )
            if local is not None:
                values[local] = at
        if missing := (names(whole) & inner_names) - values.keys():
            raise self.fail(f"the prologue depends on {sorted(missing)[0]}", "prologue")
        return substitute(whole, values)


@dataclass(frozen=True)
class Pad(Step, kind="pad"):
    """alloc P[m, n]  -->  alloc P[m, n + elements]: rows of a copy start in other banks of shared memory."""

    elements: int

    def apply(self, nest: Nest) -> Nest:
        b = nest.all_buffers.get(self.stage)
        if b is None or b.scope not in ("scratch", "shared") or b in nest.buffers or not b.shape:
            raise self.fail("no copy of that name is here", "no-such-stage")
        if self.elements < 1:
            raise self.fail("needs at least one element", "bad-factor")
        return Nest(nest.buffers, self._visit(nest.body))

    def _visit(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        out: list[Stmt] = []
        for stmt in body:
            if isinstance(stmt, (Loop, Alloc, Guard)):
                stmt = with_body(stmt, self._visit(stmt.body))
            if isinstance(stmt, Alloc) and stmt.buffer.name == self.stage:
                shape = (*stmt.buffer.shape[:-1], stmt.buffer.shape[-1] + self.elements)
                stmt = replace(stmt, buffer=replace(stmt.buffer, shape=shape))
            out.append(stmt)
        return tuple(out)


def staged(value: Expr, target: Load, caches: frozenset[str] = frozenset()) -> Expr:
    """What a Pack of `target` computes: the largest subexpression around it that varies with no other loops and reads
    none of the `caches`, which may be made further in."""
    ours = names(target)

    def takes(node: Expr) -> bool:
        return names(node) <= ours and not any(ld.buffer in caches for ld in loads(node))

    def visit(node: Expr) -> Expr | None:
        if node is target:
            return node
        if isinstance(node, Op):
            for arg in node.args:
                found = visit(arg)
                if found is not None:
                    return node if found is arg and takes(node) else found
        return None

    return visit(value) or target


def _shape(extents: list[tuple[Affine, ...]], widths: dict[int, int], size: int) -> tuple[int, ...]:
    """Panel counts, then the dimensions that are not cut, then panel widths, as the panels are listed. Rows of a plain
    copy are a line longer where they would otherwise lie a multiple of 1 KiB apart, which puts them all into a few sets
    of a cache."""
    boxes = [_constant(terms) for terms in extents]
    if not widths and len(boxes) > 1 and boxes[-1] * size % 1024 == 0:
        boxes[-1] += max(1, 64 // size)
    panels = [-(-boxes[d] // w) for d, w in widths.items()]
    plain = [box for d, box in enumerate(boxes) if d not in widths]
    return (*panels, *plain, *widths.values())


def _cell(position: list[Affine], widths: dict[int, int], boxes: list[int]) -> tuple[Affine, ...]:
    """Where the cache keeps the element at a block coordinate; a panel as wide as the block has no number."""
    one = {d for d, w in widths.items() if boxes[d] <= w}
    panels = [const(0) if d in one else position[d] // w for d, w in widths.items()]
    plain = [p for d, p in enumerate(position) if d not in widths]
    return (*panels, *plain, *(position[d] if d in one else position[d] % w for d, w in widths.items()))


def _separate(a: Affine, inner: set[str]) -> tuple[Affine, Affine]:
    """The part of an index that inner loops do not move, and the rest."""
    base = Affine(tuple((t, c) for t, c in a.terms if not (Affine(((t, 1),)).names() & inner)), a.const)
    return base, a - base


def _extent_terms(local: Affine, inner: tuple[Loop, ...]) -> tuple[Affine, ...]:
    """Affines in outer loops, each above every value of `local` (exclusive)."""
    terms = {local + 1}
    for loop in reversed(inner):
        found: set[Affine] = set()
        for t in terms:
            c = t.coefficient(loop.name)
            if c > 0:
                found |= {t.substitute({loop.name: e - 1}) for e in loop.extents}
            else:
                found.add(t.substitute({loop.name: const(0)}))
        terms = found
    return tuple(sorted(terms, key=str))


def _constant(terms: tuple[Affine, ...]) -> int:
    bound = min((t.const for t in terms if t.is_const), default=None)
    if bound is None:
        # Loops start at 0 and offsets only shrink the rest of a buffer, so a term's constant is its greatest value.
        bound = min(t.const for t in terms)
    return max(bound, 1)
