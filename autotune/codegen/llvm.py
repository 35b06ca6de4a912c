"""Nest -> LLVM text for a CPU. One internal function a top-level nest, and an entry that calls them.

Everything that makes the code fast is decided by the nest: this file expands unrolled loops, turns vector loops into
vector instructions, keeps register buffers in stack slots that `sroa` turns into registers, and knows no stage by name.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..devices.spec import DeviceSpec
from ..ir.errors import BuildError
from ..ir.nest import Alloc, Loop, Nest, Stmt, Store, leaves, walk
from ..ir.program import Buffer
from .function import Function
from .values import memory_bytes
from .writer import Writer


@dataclass(frozen=True)
class Source:
    """LLVM text with the entry `void symbol(ptr buffers, ptr params, i64 threads)`: see `ir.program.Buffer` for the
    strides that `params` holds, in the order of `strides`."""

    text: str
    symbol: str
    buffers: tuple[str, ...]
    strides: tuple[str, ...]
    scratch_bytes: int


def render(nest: Nest, spec: DeviceSpec, symbol: str = "kernel", threads: int = 1) -> Source:
    """The text of a verified nest. Raises BuildError for what cannot be expressed (with a reason code)."""
    return _Module(nest, spec, symbol, threads).source()


class _Module:
    def __init__(self, nest: Nest, spec: DeviceSpec, symbol: str, threads: int) -> None:
        self.nest, self.spec, self.symbol, self.threads = nest, spec, symbol, threads
        for stmt, path in walk(nest.body):
            if path and isinstance(stmt, Loop) and stmt.kind == "parallel":
                raise BuildError(f"parallel loop {stmt.name} is inside another statement", reason="parallel-inside")
        self.outer = [b for b in nest.buffers if b.scope in ("input", "output")]
        self.strides = list(dict.fromkeys(s for b in self.outer for s in b.strides or () if isinstance(s, str)))
        self.temps = [b for b in nest.buffers if b.scope == "temp"]
        self.declarations: set[str] = set()
        self.offsets: dict[str, int] = {}
        self.shared = 0
        for b in self.temps:
            self.offsets[b.name] = self.shared
            self.shared += _padded(b)
        self.private = max((self._place(stmt, 0) for stmt in nest.body), default=0)

    def _place(self, stmt: Stmt, at: int) -> int:
        """Give every scratch buffer below a statement its offset in the thread's area; returns the end."""
        end = at
        if isinstance(stmt, Alloc) and stmt.buffer.scope == "scratch":
            self.offsets[stmt.buffer.name] = at
            at += _padded(stmt.buffer)
            end = at
        for inner in getattr(stmt, "body", ()):
            end = max(end, self._place(inner, at))
        return end

    def source(self) -> Source:
        parts = []
        hinted = any(isinstance(s, Store) and s.nontemporal for s in leaves(self.nest.body))
        for n, stmt in enumerate(self.nest.body):
            parts.append(self._part(n, stmt, nontemporal=False))
            if hinted:
                parts.append(self._part(n, stmt, nontemporal=True))
        entry = self._entry(hinted)
        text = "\n".join([*parts, *entry, *sorted(self.declarations), ""])
        names = tuple(b.name for b in self.outer)
        return Source(text, self.symbol, names, tuple(self.strides), self.shared + self.private * self.threads)

    def _signature(self, typed: bool) -> str:
        kind = "ptr noalias " if typed else "ptr "
        arguments = [f"{kind}%b{n}" for n in range(len(self.outer))]
        arguments += [f"i64 %s{n}" for n in range(len(self.strides))]
        return ", ".join([*arguments, f"{kind}%shared", f"{kind}%private", "i64 %lo", "i64 %hi"])

    def _part(self, n: int, stmt: Stmt, nontemporal: bool) -> str:
        bases = {b.name: f"%b{i}" for i, b in enumerate(self.outer)}
        fn = Function(bases, {s: f"%s{i}" for i, s in enumerate(self.strides)})
        shared = {b.name for b in self.temps}
        for name, offset in self.offsets.items():
            area = "%shared" if name in shared else "%private"
            bases[name] = fn.emit(f"getelementptr i8, ptr {area}, i64 {offset}", 0)
        writer = Writer(fn, self.nest, self.spec, nontemporal)
        writer.statements((stmt,))
        self.declarations |= fn.declarations
        suffix = ".nt" if nontemporal else ""
        head = f"define internal void @{self.symbol}.part{n}{suffix}({self._signature(True)}) {{"
        part = "\n".join([head, "entry:", *fn.text(), "ret void", "}"])
        if _parallel(stmt):
            part += "\n" + "\n".join(self._region(n, suffix))
        return part

    def _unpack(self) -> list[str]:
        """Pointers and strides out of the two argument arrays."""
        lines = []
        for n in range(len(self.outer)):
            lines += [f"%p{n} = getelementptr ptr, ptr %buffers, i64 {n}", f"%b{n} = load ptr, ptr %p{n}"]
        for n in range(len(self.strides)):
            lines += [f"%q{n} = getelementptr i64, ptr %params, i64 {n}", f"%s{n} = load i64, ptr %q{n}"]
        return lines

    def _region(self, n: int, suffix: str) -> list[str]:
        """What a pool thread runs: the same part over a range of the parallel loop, with scratch of its own."""
        return [
            f"define internal void @{self.symbol}.region{n}{suffix}(ptr %context, i64 %lo, i64 %hi, i64 %thread) {{",
            "%buffers = load ptr, ptr %context",
            "%c1 = getelementptr ptr, ptr %context, i64 1", "%params = load ptr, ptr %c1",
            "%c2 = getelementptr ptr, ptr %context, i64 2", "%shared = load ptr, ptr %c2",
            f"%offset = mul i64 %thread, {self.private}", f"%at = add i64 %offset, {self.shared}",
            "%private = getelementptr i8, ptr %shared, i64 %at", *self._unpack(),
            f"call void @{self.symbol}.part{n}{suffix}({self._signature(False)})", "ret void", "}",
        ]  # fmt: skip

    def _entry(self, hinted: bool) -> list[str]:
        total = self.shared + self.private * self.threads
        lines = [f"define void @{self.symbol}(ptr %buffers, ptr %params, i64 %threads) {{", "entry:", *self._unpack()]
        if total:
            self.declarations |= {"declare ptr @at_scratch_acquire(i64)", "declare void @at_scratch_release(ptr, i64)"}
            lines.append(f"%shared = call ptr @at_scratch_acquire(i64 {total})")
        else:
            lines.append("%shared = getelementptr i8, ptr %buffers, i64 0")
        lines.append(f"%private = getelementptr i8, ptr %shared, i64 {self.shared}")
        if any(map(_parallel, self.nest.body)):
            self.declarations.add("declare void @at_parallel(ptr, ptr, i64, i64, i64)")
            lines += ["%context = alloca [3 x ptr]", "store ptr %buffers, ptr %context",
                      "%c1 = getelementptr ptr, ptr %context, i64 1", "store ptr %params, ptr %c1",
                      "%c2 = getelementptr ptr, ptr %context, i64 2", "store ptr %shared, ptr %c2"]  # fmt: skip
        if hinted:
            outputs = [n for n, b in enumerate(self.outer) if b.scope == "output"]
            lines += [f"%i{n} = ptrtoint ptr %b{n} to i64" for n in outputs]
            joined = f"%i{outputs[0]}"
            for n in outputs[1:]:
                lines.append(f"%o{n} = or i64 {joined}, %i{n}")
                joined = f"%o{n}"
            lines += [f"%low = and i64 {joined}, 63", "%aligned = icmp eq i64 %low, 0",
                      "br i1 %aligned, label %fast, label %plain",
                      "fast:", *self._calls(".nt"), "br label %done",
                      "plain:", *self._calls(""), "br label %done", "done:"]  # fmt: skip
        else:
            lines += self._calls("")
        if total:
            lines.append(f"call void @at_scratch_release(ptr %shared, i64 {total})")
        return [*lines, "ret void", "}"]

    def _calls(self, suffix: str) -> list[str]:
        lines = []
        for n, stmt in enumerate(self.nest.body):
            loop = _parallel(stmt)
            if loop is not None:
                count = min(t.const for t in loop.extents)
                region = f"ptr @{self.symbol}.region{n}{suffix}, ptr %context"
                lines.append(f"call void @at_parallel({region}, i64 {count}, i64 {loop.chunk}, i64 %threads)")
            else:
                call = self._signature(False).replace("i64 %lo", "i64 0").replace("i64 %hi", "i64 0")
                lines.append(f"call void @{self.symbol}.part{n}{suffix}({call})")
        return lines


def _padded(b: Buffer) -> int:
    # An odd number of lines apart: blocks whose rows are powers of two must not fall on the same cache sets.
    return (memory_bytes(b) * max(b.size, 1) + 63) // 64 * 64 + 64 * 5


def _parallel(stmt: Stmt) -> Loop | None:
    return stmt if isinstance(stmt, Loop) and stmt.kind == "parallel" else None
