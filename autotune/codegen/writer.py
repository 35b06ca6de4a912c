"""The statements of one part of a nest, written into a Function: unrolled loops expanded, vector loops as vector
instructions.

Knows statements and the order in which they run; values and addresses come from the Evaluator and the Function.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..devices.spec import DeviceSpec
from ..ir.affine import Affine, const
from ..ir.bounds import lower
from ..ir.choices import chooses
from ..ir.choices import folded as chosen
from ..ir.errors import BuildError
from ..ir.expr import Expr, Load, Op, loads, names, substitute
from ..ir.expr import walk as walk_expr
from ..ir.nest import Alloc, Guard, Leaf, Loop, Nest, Prefetch, Reduce, Stmt, Store, leaves, walk
from ..ir.program import COMBINERS, Buffer
from .blocks import block, step_along
from .dots import dotted
from .folding import folded, folded_rows
from .function import Flat, Function, Value
from .stores import Stores
from .values import Evaluator, Lanes, literal, memory_bytes, memory_type, scalar_type, wide


class Writer:
    """Statements of one part."""

    def __init__(self, fn: Function, nest: Nest, spec: DeviceSpec, nontemporal: bool) -> None:
        self.fn = fn
        self.buffers = nest.all_buffers
        self.ev = Evaluator(fn, self.buffers, spec.features)
        self.stores = Stores(self.ev, "+avx512vl" in spec.features, nontemporal)
        self.decided: dict[tuple[Affine, ...], bool] = {}

    def statements(self, body: Sequence[Stmt]) -> None:
        for stmt in body:
            match stmt:
                case Loop():
                    self.loop(stmt)
                case Alloc():
                    self.alloc(stmt)
                case Guard():
                    self.guard(stmt)
                case Prefetch():
                    self.prefetch(stmt)
                case Store() | Reduce():
                    self.leaf(stmt)

    def alloc(self, stmt: Alloc) -> None:
        b = stmt.buffer
        if b.scope == "register":
            slot = self.fn.fresh()
            self.fn.allocas.append(f"{slot} = alloca [{max(b.size, 1)} x {memory_type(b.dtype)}], align 64")
            self.fn.bases[b.name] = slot
            # Where every vector access covers the same lanes, what lies beyond them is never looked at: no masks are
            # needed. Elsewhere it is kept by writing it back: memory that is accessed by masks stays memory.
            extents = {
                lp
                for s, path in walk(stmt.body)
                if isinstance(s, (Store, Reduce)) and _touches(s, b.name)
                for lp in [
                    next((p.extents for p in reversed(path) if isinstance(p, Loop) and p.kind == "vector"), None)
                ]
            }
            rows = b.shape[-1] if b.shape else 1
            lanes = {p.lanes for s, path in walk(stmt.body) for p in path if isinstance(p, Loop) and p.kind == "vector"}
            if all(rows % n == 0 for n in lanes):
                (self.ev.whole_rows if len(extents) == 1 else self.ev.kept_rows).add(b.name)
        self.statements(stmt.body)
        if b.scope == "register":
            self.fn.forget(b.name)
            self.ev.whole_rows.discard(b.name)
            self.ev.kept_rows.discard(b.name)

    def guard(self, stmt: Guard) -> None:
        fn = self.fn
        test = ""
        for c in stmt.conditions:
            value = fn.integer(c)
            if not value.text.startswith("%"):
                if int(value.text) < 0:
                    return
                continue
            one = fn.emit(f"icmp sge i64 {value.text}, 0")
            test = fn.emit(f"and i1 {test}, {one}") if test else one
        if not test:
            self.statements(stmt.body)
            return
        out = fn.open_branch(test)
        fn.guards.extend(stmt.conditions)
        self.statements(stmt.body)
        del fn.guards[len(fn.guards) - len(stmt.conditions) :]
        fn.close_branch(out)

    # ---- loops ----

    def loop(self, stmt: Loop) -> None:
        if not self.ev.divisors and (divisor := self._divisor(stmt)) is not None:
            self._divide(stmt, divisor)
            return
        if stmt.kind in ("unroll", "vector") and self._decide(stmt):
            return
        if stmt.kind == "vector":
            self.vector(stmt)
        elif stmt.kind == "unroll":
            self.unrolled(stmt)
        else:
            self.counted(stmt)

    def _divisor(self, stmt: Loop) -> Expr | None:
        """A divisor of vectors below that is one number for the whole loop: its reciprocal can be taken once."""
        inside = {lp.name for lp, _ in walk((stmt,)) if isinstance(lp, Loop)}
        if not any(isinstance(lp, Loop) and lp.kind == "vector" for lp, _ in walk((stmt,))):
            return None
        written = {leaf.buffer for leaf in leaves((stmt,))}
        for leaf in leaves((stmt,)):
            for node in walk_expr(leaf.value) if isinstance(leaf, (Store, Reduce)) else ():
                if not (isinstance(node, Op) and node.name == "div" and node.dtype.is_float):
                    continue
                y = node.args[1]
                read = {ld.buffer for ld in loads(y)}
                if read and not names(y) & inside and not read & written and names(node.args[0]) & inside:
                    return y
        return None

    def _divide(self, stmt: Loop, divisor: Expr) -> None:
        """The loop twice: by multiplication with the reciprocal where that is exact division, else by division."""
        fn, ev = self.fn, self.ev
        value = ev.value(divisor)
        size = ev.intrinsic("fabs", value.dtype, value)
        kind, far = scalar_type(value.dtype), 2.0 ** (100 if value.dtype.bits == 32 else 900)
        above = fn.emit(f"fcmp oge {kind} {size.text}, {literal(1 / far, value.dtype)}")
        below = fn.emit(f"fcmp ole {kind} {size.text}, {literal(far, value.dtype)}")
        safe = fn.emit(f"and i1 {above}, {below}")
        other = fn.emit(f"xor i1 {safe}, true")
        for test, exact in ((safe, True), (other, False)):
            out = fn.open_branch(test)
            ev.divisors[divisor] = exact
            self.loop(stmt)
            ev.divisors.clear()
            fn.close_branch(out)

    def unrolled(self, stmt: Loop) -> None:
        fn = self.fn
        n = self.constant(stmt)
        if n is None:
            self.counted(stmt)
            return
        if self._rows(stmt, n):
            return
        for i in range(n):
            fn.fixed[stmt.name] = i
            self.statements(stmt.body)
        fn.fixed.pop(stmt.name, None)

    def _rows(self, stmt: Loop, n: int) -> bool:
        """If the loop is over neighbouring results that are each a horizontal reduction of an accumulator's lanes,
        reduce them together into one vector, and store that; whether it was so."""
        ev, fn = self.ev, self.fn
        inner = [stmt]
        while len(inner[-1].body) == 1 and isinstance(inner[-1].body[0], Loop):
            inner.append(inner[-1].body[0])
        leaf = inner[-1].body[0] if len(inner[-1].body) == 1 else None
        if not isinstance(leaf, Reduce) or leaf.first is None or len(inner) not in (2, 3) or n < 2 or n & (n - 1):
            return False
        lanes, counts = inner[-1], [self.constant(lp) for lp in inner[1:]]
        buffer, source = self.buffers[leaf.buffer], leaf.value
        across = {lp.name for lp in inner[1:]}
        flat = fn.flat(buffer, leaf.index)
        if (
            lanes.kind != "vector" or counts[-1] != lanes.lanes or n > lanes.lanes or counts[0] is None
            or not isinstance(source, Load) or self.buffers[source.buffer].scope != "register"
            or any(a.names() & across for a in leaf.index) or flat.odd
            or step_along(flat, stmt.name) != memory_bytes(buffer) or buffer.dtype != source.dtype
        ):  # fmt: skip
            return False
        start = {lp.name: const(0) for lp in inner}
        rest = tuple(a for a in (b.substitute(start) for b in self._substituted(leaf.first)) if a != const(0))
        answer = self.decided.get(rest, self._initialises(rest))
        if answer is None:
            return False
        primitive, rows = COMBINERS[leaf.combiner].primitive, []
        ev.lanes = Lanes(lanes.name, lanes.lanes, lanes.lanes, "")
        for i in range(n):
            fn.fixed[stmt.name] = i
            total: Value | None = None
            for part in range(counts[0] if len(inner) == 3 else 1):
                fn.fixed[inner[1].name] = part
                if len(inner) == 2:
                    del fn.fixed[inner[1].name]
                value = ev.value(source)
                total = value if total is None else ev.operation(primitive, value.dtype, total, value)
            assert total is not None
            rows.append(total)
            fn.fixed.pop(inner[1].name, None)
        del fn.fixed[stmt.name]
        result = folded_rows(ev, primitive, rows)
        ev.lanes = Lanes(stmt.name, n, n, "")
        if not answer:
            result = ev.operation(primitive, buffer.dtype, ev.load(buffer, leaf.index), result)
        self.stores.write(buffer, flat, result, False)
        ev.lanes = None
        return True

    def constant(self, stmt: Loop) -> int | None:
        """The extent as a number, with unrolled loops at their current values; 0 if it is less."""
        fixed = {name: const(v) for name, v in self.fn.fixed.items()}
        terms = [t.substitute(fixed) for t in stmt.extents]
        return max(0, min(t.const for t in terms)) if all(t.is_const for t in terms) else None

    def counted(self, stmt: Loop) -> None:
        fn = self.fn
        n = self.constant(stmt)
        if n == 0:
            return
        parallel = stmt.kind == "parallel"
        if n == 1 and not parallel:
            fn.fixed[stmt.name] = 0
            self.statements(stmt.body)
            del fn.fixed[stmt.name]
            return
        written = frozenset(leaf.buffer for leaf in leaves(stmt.body) if not isinstance(leaf, Prefetch))
        out = ""
        if parallel:
            count, start = "%hi", "%lo"
        else:
            value = fn.minimum(stmt.extents)
            count, start = value.text, "0"
            if n is None and not self._nonempty(stmt):
                out = fn.open_branch(fn.emit(f"icmp sgt i64 {count}, 0"))
        fn.open_loop(stmt, count, start, written)
        self.statements(stmt.body)
        fn.close_loop()
        if out:
            fn.close_branch(out)
        for name in written:
            fn.forget(name)

    def _nonempty(self, stmt: Loop) -> bool:
        path, guards = tuple(self.fn.path), tuple(self.fn.guards)
        return all((lower(t, path, guards) or 0) >= 1 for t in self._substituted(stmt.extents))

    def _substituted(self, terms: tuple[Affine, ...]) -> tuple[Affine, ...]:
        fixed = {name: const(v) for name, v in self.fn.fixed.items()}
        return tuple(t.substitute(fixed) for t in terms)

    def vector(self, stmt: Loop) -> None:
        inner = stmt.body[0] if len(stmt.body) == 1 else None
        if isinstance(inner, Loop) and inner.kind == "vector":
            block(self, stmt, inner)
            return
        if isinstance(inner, Loop) and inner.kind == "dot":
            self.dot(stmt, inner)
            return
        if not all(isinstance(s, (Store, Reduce)) for s in stmt.body):
            raise BuildError(f"vector loop {stmt.name} is not innermost", reason="vector-not-innermost")
        if self.constant(stmt) == 1:
            self.unrolled(stmt)
            return
        self.ev.lanes = self.lanes(stmt)
        if self.ev.lanes is not None:
            self.statements(stmt.body)
        self.ev.lanes = None

    def dot(self, stmt: Loop, inner: Loop) -> None:
        """A dot instruction; where there is none for such lanes and operands, its products in turn."""
        ev, leaf = self.ev, inner.body[0]
        assert isinstance(leaf, Reduce)
        ev.lanes = self.lanes(stmt)
        made = dotted(ev, inner) if ev.lanes is not None else None
        if made is not None:
            buffer = self.buffers[leaf.buffer]
            self.stores.write(buffer, self.fn.flat(buffer, leaf.index), made, False)
            ev.lanes = None
            return
        ev.lanes = None
        for i in range(inner.constant or 0):
            self.fn.fixed[inner.name] = i
            self.vector(replace(stmt, body=(leaf,)))
        self.fn.fixed.pop(inner.name, None)

    def lanes(self, stmt: Loop) -> Lanes | None:
        """The lanes of a vector loop at this point; None if there are none. A power of two below `lanes` needs no
        mask."""
        n = self.constant(stmt)
        if n is not None:
            if n & (n - 1) == 0:
                return Lanes(stmt.name, n, n, "") if n else None
            width = min(stmt.lanes, 1 << n.bit_length())
            bits = ", ".join(f"i1 {'true' if i < n else 'false'}" for i in range(width))
            return Lanes(stmt.name, width, n, f"<{bits}>")
        count, width = self.fn.minimum(stmt.extents), stmt.lanes
        narrow = self.fn.emit(f"trunc i64 {count.text} to i32")
        row = f"<{width} x i32>"
        one = self.fn.emit(f"insertelement {row} poison, i32 {narrow}, i64 0")
        splat = self.fn.emit(f"shufflevector {row} {one}, {row} poison, {row} zeroinitializer")
        ramp = ", ".join(f"i32 {i}" for i in range(width))
        return Lanes(stmt.name, width, None, self.fn.emit(f"icmp slt {row} <{ramp}>, {splat}"))

    # ---- leaves ----

    def _decide(self, stmt: Loop) -> bool:
        """If whether a contribution is the first of its reduction is known only at run time, write the statement twice
        under one branch; True if that was done."""
        inside = {lp.name for lp, _ in walk((stmt,)) if isinstance(lp, Loop)}
        for leaf in leaves((stmt,)):
            if isinstance(leaf, Reduce) and leaf.first is not None and self._branch((stmt,), leaf.first, inside):
                return True
        return False

    def _branch(self, body: tuple[Stmt, ...], first: tuple[Affine, ...], inside: set[str]) -> bool:
        fn = self.fn
        outer = tuple(a for a in self._outside(first, inside))
        if outer in self.decided or self._initialises(outer) is not None:
            return False
        test = ""
        for a in outer:
            value = fn.integer(a)
            if value.text.startswith("%"):
                one = fn.emit(f"icmp eq i64 {value.text}, 0")
                test = fn.emit(f"and i1 {test}, {one}") if test else one
        opposite = fn.emit(f"xor i1 {test}, true")
        for condition, answer in ((test, True), (opposite, False)):
            out = fn.open_branch(condition)
            self.decided[outer] = answer
            self.statements(body)
            fn.close_branch(out)
        del self.decided[outer]
        return True

    def _outside(self, first: tuple[Affine, ...], inside: set[str]) -> list[Affine]:
        return [a for a in self._substituted(first) if not (a.names() & inside) and a != const(0)]

    def _initialises(self, first: tuple[Affine, ...]) -> bool | None:
        """Whether all coordinates are zero, where that can be proved."""
        if not first:
            return True
        path, guards = tuple(self.fn.path), tuple(self.fn.guards)
        if any((lower(a, path, guards) or 0) > 0 for a in first):
            return False
        return None

    def leaf(self, leaf: Store | Reduce) -> None:
        ev, fn = self.ev, self.fn
        if fn.fixed and chooses(leaf.value):
            leaf = replace(leaf, value=chosen(substitute(leaf.value, {n: const(at) for n, at in fn.fixed.items()})))
        buffer = self.buffers[leaf.buffer]
        flat = fn.flat(buffer, leaf.index)
        lanes = ev.lanes
        if isinstance(leaf, Store):
            self.stores.write(buffer, flat, ev.value(leaf.value), leaf.nontemporal)
            return
        step = ev.lane_step(flat)
        if lanes is not None and step == 0:
            self.horizontal(leaf, buffer, flat)
            return
        if leaf.first is not None:
            fixed = self._substituted(leaf.first)
            rest = tuple(a for a in fixed if a != const(0))
            answer = self.decided.get(rest, self._initialises(rest))
            if answer is None:
                if lanes is not None:
                    raise BuildError("a vector statement's first contribution depends on its lanes", reason="first")
                self._branch((leaf,), leaf.first, set())
                return
            if answer:
                self.stores.write(buffer, flat, ev.value(leaf.value), False)
                return
        old = ev.load(buffer, leaf.index)
        self.stores.write(buffer, flat, ev.combine(leaf.combiner, old, leaf.value), False)

    def horizontal(self, leaf: Reduce, buffer: Buffer, flat: Flat) -> None:
        """All lanes reduce into one element."""
        ev, fn, lanes = self.ev, self.fn, self.ev.lanes
        assert lanes is not None
        combiner = COMBINERS[leaf.combiner]
        value = ev.value(leaf.value)
        vector = Value(ev.widen(value, lanes.width), value.dtype, lanes.width, value.level)
        if lanes.mask:
            identity = Value(literal(combiner.identity(buffer.dtype), buffer.dtype), buffer.dtype, 1, 0)
            kind = wide(scalar_type(buffer.dtype), lanes.width)
            neutral = ev.widen(identity, lanes.width)
            text = fn.emit(f"select <{lanes.width} x i1> {lanes.mask}, {kind} {vector.text}, {kind} {neutral}")
            vector = Value(text, vector.dtype, lanes.width, fn.level)
        total = folded(ev, combiner.primitive, vector)
        if leaf.first is None:
            answer: bool | None = False
        else:
            start = {lanes.name: const(0)}
            rest = tuple(a for a in (b.substitute(start) for b in self._substituted(leaf.first)) if a != const(0))
            answer = self.decided.get(rest, self._initialises(rest))
        if answer is None:
            raise BuildError("a horizontal reduction's first contribution is not decided", reason="first")
        ev.lanes = None
        if not answer:
            total = ev.operation(combiner.primitive, buffer.dtype, ev.load(buffer, leaf.index), total)
        self.stores.write(buffer, flat, total, False)
        ev.lanes = lanes

    def prefetch(self, stmt: Prefetch) -> None:
        fn, buffer = self.fn, self.buffers[stmt.buffer]
        pointer, shift, level = fn.address(buffer, fn.flat(buffer, stmt.index))
        fn.declarations.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        place = fn.place(pointer, shift, level)
        fn.line(f"call void @llvm.prefetch.p0(ptr {place}, i32 {int(stmt.write)}, i32 3, i32 1)")


def _touches(leaf: Leaf, name: str) -> bool:
    return leaf.buffer == name or (
        not isinstance(leaf, Prefetch) and any(ld.buffer == name for ld in loads(leaf.value))
    )
