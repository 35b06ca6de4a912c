"""Nest -> text in a language of the C family, with blocks and threads: what OpenCL, CUDA and HIP share.

Every top-level statement of the nest becomes a kernel of
its own; a `Text` says how each is launched. Decides nothing about speed and knows no operation: loops, arrays and
barriers are where the nest has them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import gcd, prod

from ..ir.affine import Affine, affine, const
from ..ir.bounds import domain
from ..ir.dtypes import F32
from ..ir.errors import BuildError
from ..ir.expr import Index, Load, distinct, gathers, loads, names
from ..ir.instructions import use
from ..ir.nest import BLOCK_KINDS, THREAD_KINDS, Alloc, Guard, Loop, Nest, Reduce, Stmt, Store, leaves, reads, walk
from ..ir.program import Buffer
from ..ir.spmd import AXES, Entry, bound, grids, launch, spread, threaded
from .chelpers import needed
from .cvalues import Dialect, Values, c_name

VECTOR_BYTES = 16  # the widest load or store that every one of the languages has


@dataclass(frozen=True)
class Text:
    """Kernels of one nest, run one after another on `buffers`: the nest's, and what they hand on. `source` makes a
    file."""

    body: str
    entries: tuple[Entry, ...]
    buffers: tuple[Buffer, ...]


def render(nest: Nest, dialect: Dialect, symbol: str = "kernel0") -> Text:
    """The text of a verified nest. Raises BuildError for what the language cannot express (with a reason code)."""
    parts, entries = list[str](), list[Entry]()
    all_grids = list(grids(nest.body))
    handed = {b.name: replace(b, scope="temp") for _, around in all_grids for b in around}
    buffers = (*nest.buffers, *handed.values())
    for n, (stmt, _) in enumerate(all_grids):
        name = symbol if len(all_grids) == 1 else f"{symbol}_{n}"
        made = _Kernel(buffers, stmt, dialect, name)
        parts.append(made.text())
        entries.append(made.entry)
    return Text("\n".join(parts), tuple(entries), buffers)


def source(made: Sequence[Text], dialect: Dialect) -> str:
    """A file with all these kernels: the language's prelude, the helpers that they call, and them."""
    body = "\n".join(text.body for text in made)
    helpers = needed(body, dialect.types, dialect.atoms["function"], dialect.atoms["fmod"], dialect.helpers)
    return "\n".join(part for part in (dialect.prelude, helpers, body) if part)


class _Kernel(Values):
    """One top-level statement."""

    def __init__(self, buffers: Sequence[Buffer], stmt: Stmt, dialect: Dialect, symbol: str) -> None:
        super().__init__(dialect)
        self.stmt, self.symbol = stmt, symbol
        self.launch = launch(stmt)
        used = {name for leaf in leaves((stmt,)) for name in (leaf.buffer, *(b for b, _ in reads(leaf)))}
        self.outer = [b for b in buffers if b.name in used]
        self.written = {leaf.buffer for leaf in leaves((stmt,)) if isinstance(leaf, (Store, Reduce))}
        self.strides = list(dict.fromkeys(s for b in self.outer for s in b.strides or () if isinstance(s, str)))
        self.buffers = {b.name: b for b in self.outer}
        self.aligned: set[str] = set()
        copies = "at_copy_wait" in dialect.helpers
        under_way = [s.asynchronous for s in leaves((stmt,)) if isinstance(s, Store) and s.asynchronous]
        self.late = min(under_way, default=0) if copies else 0  # meetings of threads until a copy is there

    @property
    def entry(self) -> Entry:
        names = tuple(b.name for b in self.outer)
        return Entry(self.symbol, self.launch, names, tuple(self.strides), tuple(sorted(self.aligned)))

    def text(self) -> str:
        a = self.d.atoms
        shared: dict[str, Buffer] = {}
        for s, _ in walk((self.stmt,)):
            if isinstance(s, Alloc) and s.buffer.scope == "shared":
                old = shared.setdefault(s.buffer.name, s.buffer)
                shared[s.buffer.name] = max(old, s.buffer, key=lambda b: b.size)
        for b in shared.values():
            self.line(f"{a['shared']} {self.d.storage(b.dtype)} {c_name(b.name)}[{max(b.size, 1)}];")
        if any(isinstance(s, Loop) and s.kind == "thread" for s, _ in walk((self.stmt,))):
            x, y, _ = self.launch.block
            ids = [a[f"thread.{axis}"] for axis in AXES]
            self.line(f"const int at_thread = {ids[0]} + {x} * ({ids[1]} + {y} * {ids[2]});")
        self.statements((self.stmt,), set())
        arguments = [
            f"{a['global']}{'' if b.name in self.written else 'const '}{self.d.storage(b.dtype)}* {a['restrict']} "
            f"{c_name(b.name)}" for b in self.outer
        ] + [f"const {self.d.types['i64']} {c_name(s)}" for s in self.strides]  # fmt: skip
        head = a["kernel"].format(threads=self.launch.threads, block=", ".join(map(str, self.launch.block)))
        return "\n".join([f"{head} {self.symbol}({', '.join(arguments)}) {{", *self.lines, "}", ""])

    # ---- lines ------------------------------------------------------------------------------------------------------

    @contextmanager
    def braces(self, head: str) -> Iterator[None]:
        self.line(f"{head} {{" if head else "{")
        self.depth += 1
        yield
        self.depth -= 1
        self.line("}")

    # ---- statements -------------------------------------------------------------------------------------------------

    def statements(self, body: Sequence[Stmt], bound_axes: set[str]) -> None:
        """`bound_axes`: along these the threads that are here are told apart; along others only number 0 may act."""
        for stmt in body:
            block_level = isinstance(stmt, (Loop, Alloc, Guard)) and threaded(stmt)
            missing = [x for x, n in zip(AXES, self.launch.block) if n > 1 and x not in bound_axes]
            if isinstance(stmt, Loop) and stmt.barrier:
                if self.late:
                    self.line(f"at_copy_wait{self.late - 1 or ''}();")
                self.line(self.d.atoms["barrier"])
            if missing and not block_level:
                tests = " && ".join(f"{self.d.atoms[f'thread.{x}']} == 0" for x in missing)
                with self.braces(f"if ({tests})"):
                    self.statement(stmt, {*bound_axes, *missing})
            else:
                self.statement(stmt, bound_axes)

    def statement(self, stmt: Stmt, bound_axes: set[str]) -> None:
        match stmt:
            case Loop():
                self.loop(stmt, bound_axes)
            case Alloc():
                self.alloc(stmt, bound_axes)
            case Guard():
                tests = " && ".join(f"{self.affine(c)} >= 0" for c in stmt.conditions)
                with self.braces(f"if ({tests})"):
                    self.guards += stmt.conditions
                    self.statements(stmt.body, bound_axes)
                    del self.guards[len(self.guards) - len(stmt.conditions) :]
            case Store() | Reduce():
                begun = len(self.lines)
                with self.braces(""):
                    self.leaf(stmt)
                if len(self.lines) == begun + 3:  # nothing was named: no braces are needed
                    self.lines[begun:] = [self.lines[begun + 1][2:]]

    def alloc(self, stmt: Alloc, bound_axes: set[str]) -> None:
        b = stmt.buffer
        outer = self.buffers.get(b.name), self.dropped.get(b.name, set())
        own = {0: ()} if b.scope == "warp" else spread(stmt) if b.scope == "register" and threaded(stmt) else {}
        self.buffers[b.name], self.dropped[b.name] = b, set(own or {})
        with self.braces(""):
            if b.scope != "shared":
                size = prod(n for d, n in enumerate(b.shape) if d not in self.dropped[b.name])
                self.line(f"{self.d.storage(b.dtype)} {c_name(b.name)}[{max(size, 1)}];")
            self.statements(stmt.body, bound_axes)
        if outer[0] is not None:
            self.buffers[b.name], self.dropped[b.name] = outer[0], outer[1]

    def loop(self, stmt: Loop, bound_axes: set[str]) -> None:
        name, kind = c_name(stmt.name), stmt.kind
        extent = self.minimum(stmt.extents)
        self.path.append(stmt)
        if kind in BLOCK_KINDS or kind in THREAD_KINDS:
            axes = set(AXES) if kind == "thread" else {kind[-1]} if kind in THREAD_KINDS else set()
            sizes = self.launch.grid if kind in BLOCK_KINDS else self.launch.block
            have = self.launch.threads if kind == "thread" else sizes[AXES.index(kind[-1])]
            with self.braces(""):
                self.line(f"const int {name} = {self.number(stmt)};")
                self.shuffles(stmt)
                if kind == "thread" or kind in THREAD_KINDS and stmt.constant != have:
                    with self.braces(f"if ({name} < {extent})"):
                        self.statements(stmt.body, bound_axes | axes)
                else:
                    self.statements(stmt.body, bound_axes | axes)
        elif kind == "vector" and self.vector(stmt):
            pass
        elif kind == "tensor":
            self.tensor(stmt)
        else:
            if kind in ("unroll", "vector"):
                self.line(self.d.atoms["unroll"])
            with self.braces(f"for (int {name} = 0; {name} < {extent}; ++{name})"):
                self.statements(stmt.body, bound_axes)
        self.path.pop()

    def shuffles(self, stmt: Loop) -> None:
        """What the lanes of a warp read of each other, before any of them turns away."""
        self.lent = {}
        for leaf in leaves(stmt.body):
            for name, index in reads(leaf):
                b = self.buffers.get(name)
                if b is None or b.scope != "warp" or not (ahead := (index[-1] - affine(stmt.name)).const):
                    continue
                function = f"at_shuffle_{b.dtype.name}"
                if function not in self.d.helpers:
                    raise BuildError(f"{self.d.name} has no {function}", reason="no-function")
                lent, own = self.fresh(), self.element(name, (const(0),))
                self.lent[name, index] = lent
                self.line(f"const {self.type(b.dtype)} {lent} = {function}({own}, {ahead});")

    def number(self, stmt: Loop) -> str:
        """Which iteration is this block's or thread's."""
        if stmt.kind != "thread":
            sizes = self.launch.grid if stmt.kind in BLOCK_KINDS else self.launch.block
            return self.d.atoms[stmt.kind] if sizes[AXES.index(stmt.kind[-1])] > 1 else "0"
        inner = prod(bound(s) for s, _ in walk(stmt.body) if isinstance(s, Loop) and s.kind == "thread")
        outermost = not any(b.kind == "thread" for b in self.path[:-1])
        text = f"at_thread / {inner}" if inner > 1 else "at_thread"
        return text if outermost else f"({text}) % {bound(stmt)}"

    # ---- vectors ----------------------------------------------------------------------------------------------------

    def vector(self, stmt: Loop) -> bool:
        """A loop over neighbours as one vector load an operand and one vector store; False where that does not fit."""
        leaf = stmt.body[0] if len(stmt.body) == 1 else None
        n, atoms = stmt.constant, self.d.atoms
        if not isinstance(leaf, Store) or n is None:
            return False
        if isinstance(leaf.value, Load) and self.moved(leaf, leaf.value, stmt.name, n):
            return True
        if n not in (2, 4) or self.buffers[leaf.buffer].dtype != F32:
            return False
        found = dict.fromkeys(loads(leaf.value))
        lane = stmt.name
        if any(lane in names(source) | names(at) for source, _, at in gathers(leaf.value)):
            return False
        places = [(leaf.buffer, leaf.index), *((ld.buffer, ld.index) for ld in found)]
        moving = [p for p in places if any(lane in a.names() for a in p[1])]
        if any(self.buffers[name].dtype != F32 for name, _ in moving):
            return False
        if places[0] not in moving or not all(self.whole(name, index, lane, n) for name, index in moving):
            return False
        if any(isinstance(node, Index) and lane in node.value.names() for node in distinct(leaf.value)):
            return False
        zero = {lane: const(0)}
        with self.braces(""):
            texts: dict[Load, list[str]] = {}
            for ld in found:
                if (ld.buffer, ld.index) not in moving:
                    continue
                v = self.fresh()
                kind = self.vector_type(ld.buffer, n)
                at = self.place(ld.buffer, tuple(a.substitute(zero) for a in ld.index))
                self.line(f"const {kind} {v} = {self.space(ld.buffer, atoms['load']).format(type=kind, n=n, at=at)};")
                texts[ld] = [f"{v}.{c}" for c in "xyzw"[:n]]
            out, kind = self.fresh(), self.vector_type(leaf.buffer, n)
            self.line(f"{kind} {out};")
            for i, c in enumerate("xyzw"[:n]):
                value = self.value(leaf.value, {ld: row[i] for ld, row in texts.items()})
                self.line(f"{out}.{c} = {value};")
            at = self.place(leaf.buffer, tuple(a.substitute(zero) for a in leaf.index))
            store = self.space(leaf.buffer, atoms["store"])
            self.line(f"{store.format(type=kind, n=n, at=at, value=out)};")
        return True

    def moved(self, leaf: Store, load: Load, lane: str, n: int) -> bool:
        """A copy of neighbours as one word of 4, 8 or 16 bytes, whatever they are."""
        kind = {4: "u32", 8: "f32", 16: "f32"}.get(n * load.dtype.bytes)
        places = [(leaf.buffer, leaf.index), (load.buffer, load.index)]
        if kind is None or not all(self.whole(name, index, lane, n) for name, index in places):
            return False
        size = n * load.dtype.bytes
        word = self.d.types[kind] + {8: "2", 16: "4"}.get(size, "")
        zero = {lane: const(0)}
        to, source = (self.place(name, tuple(a.substitute(zero) for a in index)) for name, index in places)
        if self.late and leaf.asynchronous:
            self.line(f"at_copy_async{size}({to}, {source});")
            return True
        into, out = (self.space(name, "{space}") for name, _ in places)
        self.line(f"*({into} {word}*)({to}) = *({out} const {word}*)({source});".replace("( ", "("))
        return True

    def whole(self, name: str, index: tuple[Affine, ...], lane: str, n: int) -> bool:
        """Neighbouring elements, starting at a multiple of the vector's size."""
        b, flat = self.buffers[name], self.flat(name, index)
        if b.scope == "register" or flat is None or flat.coefficient(lane) != 1:
            return False
        rest = flat - affine(lane)
        if lane in rest.names() or gcd(rest.const, *(c for _, c in rest.terms)) % n:
            return False
        if n * b.dtype.bytes > VECTOR_BYTES:
            return False
        if b.scope in ("input", "output", "temp"):
            self.aligned.add(name)
        return True

    def vector_type(self, name: str, n: int) -> str:
        return f"{self.d.storage(self.buffers[name].dtype)}{n}"

    def space(self, name: str, text: str) -> str:
        local = self.buffers[name].scope == "shared"
        return text.replace("{space}", self.d.atoms["local" if local else "global"].strip())

    # ---- matrix instructions ----------------------------------------------------------------------------------------

    def tensor(self, stmt: Loop) -> None:
        """Operands into registers, as the instruction wants them, and a call of its function."""
        found = use(stmt, self.path[:-1])
        if isinstance(found, str) or f"at_{found.instruction.name}" not in self.d.helpers:
            raise BuildError(f"{self.d.name} has no {stmt.instruction}", reason="no-instruction")
        known, leaf, word = found.instruction, found.leaf, self.d.types["u32"]
        with self.braces(""):
            for which, fragment in (("a", known.a), ("b", known.b)):
                per = 32 // known.operand.bits
                load = (found.a if which == "a" else found.b)[0]
                rows = [[found.index(which, e) for e in range(at, at + per)] for at in range(0, fragment.elements, per)]
                words = ", ".join(self.packed(load, row) for row in rows)
                self.line(f"const {word} {which}[{len(rows)}] = {{{words}}};")
            place = self.place(leaf.buffer, (*leaf.index[:-1], const(0)))
            self.line(f"at_{known.name}({place}, a, b);")

    def packed(self, load: Load, indices: list[tuple[Affine, ...]]) -> str:
        """Elements side by side in 32 bits, the first one lowest; neighbours in memory are one load."""
        word, bits = self.d.types["u32"], load.dtype.bits
        flats = [self.flat(load.buffer, index) for index in indices]
        first = flats[0]
        if len(flats) > 1 and first is not None and all(f == first + n for n, f in enumerate(flats)):
            where = domain(tuple(self.path), tuple(self.guards))
            first = where.simplify(first)
            if not gcd(first.const, *(c for _, c in first.terms)) % len(flats):
                return f"*(const {word}*)({self.place(load.buffer, indices[0])})"
        texts = [self.element(load.buffer, index) for index in indices]
        if load.dtype.bits == 32:
            return f"at_bits({texts[0]})"
        kind = self.d.types[f"u{bits}"]
        return " | ".join(f"({word})({kind}){text} << {n * bits}" if n else f"({word})({kind}){text}"
                          for n, text in enumerate(texts))  # fmt: skip


__all__ = ["Dialect", "Text", "render", "source"]
