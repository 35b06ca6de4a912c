"""One LLVM function being written: blocks, loops, pointers that advance with their loops, and where a value may be
computed.

Every value has a *level*: the depth of the innermost loop or branch that it depends on. It is emitted there, in front
of the loops that it does not depend on, so that what is invariant is computed once without an optimiser. Addresses
never multiply: each (loop, buffer, stride) has one pointer that advances by a constant step; what is left are constant
displacements. Knows loops, buffers and strides; nothing of expressions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..ir.affine import Affine, FloorDiv
from ..ir.bounds import prove_nonnegative
from ..ir.dtypes import I64, DType
from ..ir.nest import Loop
from ..ir.program import Buffer

# A stride or displacement in bytes: an int, or a sum of int * run-time stride as ((name or "", factor), ...).
Bytes = int | tuple[tuple[str, int], ...]


class Value(NamedTuple):
    """An SSA operand: its text, type, number of lanes (1 = the same for all lanes) and level."""

    text: str
    dtype: DType
    lanes: int
    level: int


@dataclass
class Frame:
    """A loop or a branch that is being written. `before` is the code just in front of it."""

    kind: str
    lines: list[Any] = field(default_factory=list)
    before: list[Any] = field(default_factory=list)
    known: dict[Any, Value] = field(default_factory=dict)
    loads: dict[str, dict[Any, Value]] = field(default_factory=dict)
    written: frozenset[str] = frozenset()
    loop: Loop | None = None
    counter: str = ""
    start: str = "0"
    phis: list[Any] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    pointers: dict[Any, str] = field(default_factory=dict)
    entries: list[tuple[str, str, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Flat:
    """An access as bytes from its buffer's start: coefficient by loop, constant, and the parts that are not linear."""

    terms: tuple[tuple[str, Bytes], ...]
    const: Bytes
    odd: tuple[tuple[Any, Bytes], ...]
    index: tuple[Affine, ...]


def plus(a: Bytes, b: Bytes) -> Bytes:
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    total: dict[str, int] = {}
    for name, factor in (*_parts(a), *_parts(b)):
        total[name] = total.get(name, 0) + factor
    return tuple(sorted((n, f) for n, f in total.items() if f)) or 0


def times(a: Bytes, factor: int) -> Bytes:
    if isinstance(a, int):
        return a * factor
    return tuple((n, f * factor) for n, f in a) if factor else 0


def _parts(a: Bytes) -> tuple[tuple[str, int], ...]:
    return (("", a),) if isinstance(a, int) else a


class Function:
    """The blocks of one function; `frames[0]` is the function itself."""

    def __init__(self, bases: dict[str, str], strides: dict[str, str]) -> None:
        self.frames = [Frame("function")]
        self.allocas: list[str] = []
        self.declarations: set[str] = set()
        self.bases = bases
        self.strides = strides
        self.label = "entry"
        self.fixed: dict[str, int] = {}
        self.loops: dict[str, int] = {}
        self.path: list[Loop] = []
        self.guards: list[Affine] = []
        self._count = 0
        self._flats: dict[tuple[int, str], Flat] = {}

    @property
    def level(self) -> int:
        return len(self.frames) - 1

    def fresh(self) -> str:
        self._count += 1
        return f"%v{self._count}"

    def emit(self, text: str, level: int | None = None) -> str:
        """Append `%n = text` at a level and return %n."""
        name = self.fresh()
        self.line(f"{name} = {text}", level)
        return name

    def line(self, text: str, level: int | None = None) -> None:
        if level is None or level >= self.level:
            self.frames[-1].lines.append(text)
        else:
            self.frames[level + 1].before.append(text)

    # ---- values that are known already ----

    def recall(self, key: Any, level: int) -> Value | None:
        for frame in self.frames[level:]:
            if key in frame.known:
                return frame.known[key]
        return None

    def remember(self, key: Any, value: Value) -> Value:
        self.frames[min(value.level, self.level)].known[key] = value
        return value

    def recall_load(self, buffer: str, key: Any, level: int) -> Value | None:
        for frame in self.frames[level:]:
            if (found := frame.loads.get(buffer)) and key in found:
                return found[key]
        return None

    def remember_load(self, buffer: str, key: Any, value: Value) -> Value:
        self.frames[min(value.level, self.level)].loads.setdefault(buffer, {})[key] = value
        return value

    def forget(self, buffer: str) -> None:
        """A store: loads of this buffer must be made again."""
        for frame in self.frames:
            frame.loads.pop(buffer, None)

    def load_level(self, buffer: str) -> int:
        """The outermost level at which a load of the buffer gives the same value: inside branches and loops that write
        it."""
        for level in range(self.level, 0, -1):
            frame = self.frames[level]
            if frame.kind != "loop" or buffer in frame.written:
                return level
        return 0

    # ---- blocks ----

    def open_loop(self, loop: Loop, count: str, start: str, written: frozenset[str]) -> None:
        """Begin `for loop.name in start .. count` (at least one iteration)."""
        frame = Frame("loop", written=written, loop=loop, counter=self.fresh(), start=start)
        header, number = f"L{self._count}", self._count
        parent = self.frames[-1].lines
        parent += [frame.before, f"br label %{header}", f"{header}:", frame.phis, frame.lines]
        self.frames.append(frame)
        self.loops[loop.name] = self.level
        self.path.append(loop)
        frame.entries.append((frame.counter, "i64", start, f"%n{number}"))
        frame.steps.append(f"%n{number} = add nuw nsw i64 {frame.counter}, 1")
        frame.pointers["from"] = self.label
        frame.pointers["header"] = header
        frame.pointers["count"] = count
        frame.pointers["next"] = f"%n{number}"
        self.label = header

    def close_loop(self) -> None:
        frame = self.frames.pop()
        assert frame.loop is not None
        info = frame.pointers
        for dest, kind, first, following in frame.entries:
            frame.phis.append(f"{dest} = phi {kind} [ {first}, %{info['from']} ], [ {following}, %{self.label} ]")
        self._count += 1
        out, test = f"X{self._count}", f"%t{self._count}"
        self.frames[-1].lines += [
            *frame.steps, f"{test} = icmp slt i64 {info['next']}, {info['count']}",
            f"br i1 {test}, label %{info['header']}, label %{out}", f"{out}:",
        ]  # fmt: skip
        self.label = out
        del self.loops[frame.loop.name]
        self.path.pop()

    def open_branch(self, condition: str) -> str:
        """Begin a block that runs if the i1 is true; returns the label at which the code goes on."""
        self._count += 1
        then, out = f"T{self._count}", f"J{self._count}"
        frame = Frame("branch")
        self.frames[-1].lines += [
            frame.before,
            f"br i1 {condition}, label %{then}, label %{out}",
            f"{then}:",
            frame.lines,
        ]
        self.frames.append(frame)
        self.label = then
        return out

    def close_branch(self, out: str) -> None:
        self.frames.pop()
        self.frames[-1].lines += [f"br label %{out}", f"{out}:"]
        self.label = out

    def text(self) -> Iterator[str]:
        yield from self.allocas
        yield from _flatten(self.frames[0].lines)

    # ---- integers ----

    def integer(self, a: Affine) -> Value:
        """The value of an affine (i64), at the outermost level where its loops are known."""
        const, parts = a.const, []
        for atom, c in a.terms:
            if isinstance(atom, str):
                if atom in self.fixed:
                    const += c * self.fixed[atom]
                    continue
                level = self.loops[atom]
                parts.append((Value(self.frames[level].counter, I64, 1, level), c))
            else:
                inner = self.integer(atom.arg)
                if not inner.text.startswith("%"):
                    number = int(inner.text)
                    const += c * (number // atom.divisor if isinstance(atom, FloorDiv) else number % atom.divisor)
                    continue
                parts.append((self._divided(atom, inner), c))
        if not parts:
            return Value(str(const), I64, 1, 0)
        total: Value | None = None
        for value, c in sorted(parts, key=lambda p: p[0].level):
            if c != 1:
                value = self.arithmetic("mul", value, Value(str(c), I64, 1, 0))
            total = value if total is None else self.arithmetic("add", total, value)
        assert total is not None
        return total if const == 0 else self.arithmetic("add", total, Value(str(const), I64, 1, 0))

    def _divided(self, atom: Any, inner: Value) -> Value:
        """Floor division or remainder by a positive constant, for arguments that may be negative."""
        d = Value(str(atom.divisor), I64, 1, 0)
        known = atom.arg.substitute({name: Affine((), value) for name, value in self.fixed.items()})
        if prove_nonnegative(known, tuple(self.path), tuple(self.guards)):
            return self.arithmetic("udiv" if isinstance(atom, FloorDiv) else "urem", inner, d)
        rest = self.arithmetic("srem", inner, d)
        shifted = self.arithmetic("add", rest, d)
        negative = self.emit(f"icmp slt i64 {rest.text}, 0", rest.level)
        mod = Value(
            self.emit(f"select i1 {negative}, i64 {shifted.text}, i64 {rest.text}", rest.level), I64, 1, rest.level
        )
        if not isinstance(atom, FloorDiv):
            return mod
        return self.arithmetic("sdiv", self.arithmetic("sub", inner, mod), d)

    def arithmetic(self, name: str, a: Value, b: Value) -> Value:
        level = max(a.level, b.level)
        key = ("i64", name, a.text, b.text)
        known = self.recall(key, level)
        return known or self.remember(key, Value(self.emit(f"{name} i64 {a.text}, {b.text}", level), I64, 1, level))

    def minimum(self, terms: Sequence[Affine]) -> Value:
        values = [self.integer(t) for t in terms]
        least = values[0]
        for v in values[1:]:
            level = max(least.level, v.level)
            test = self.emit(f"icmp slt i64 {v.text}, {least.text}", level)
            least = Value(self.emit(f"select i1 {test}, i64 {v.text}, i64 {least.text}", level), I64, 1, level)
        return least

    # ---- addresses ----

    def flat(self, buffer: Buffer, index: tuple[Affine, ...]) -> Flat:
        key = (id(index), buffer.name)
        found = self._flats.get(key)
        if found is None:
            found = self._flats[key] = _flatten_access(buffer, index)
        return found

    def address(self, buffer: Buffer, flat: Flat, skip: str = "") -> tuple[str, Bytes, int]:
        """(pointer, displacement in bytes, level) of an access at the current point; the loop `skip` is taken as 0."""
        const, active = flat.const, []
        for name, step in flat.terms:
            if name == skip:
                continue
            if name in self.fixed:
                const = plus(const, times(step, self.fixed[name]))
            else:
                active.append((self.loops[name], name, step))
        active.sort()
        pointer = self._pointer(buffer.name, tuple((name, step) for _, name, step in active))
        level = active[-1][0] if active else 0
        for atom, step in flat.odd:
            inner = self.integer(Affine(((atom, 1),)))
            if not inner.text.startswith("%"):
                const = plus(const, times(step, int(inner.text)))
                continue
            offset = self.arithmetic("mul", inner, Value(self._bytes(step), I64, 1, 0))
            level = max(level, offset.level)
            pointer = self._gep(pointer, offset.text, level)
        return pointer, const, level

    def step(self, buffer: Buffer, dim: int) -> str:
        """Bytes between neighbours along a dimension."""
        stride, size = buffer.element_strides[dim], 1 if buffer.dtype.kind == "b" else buffer.dtype.bytes
        return self._bytes(stride * size if isinstance(stride, int) else ((stride, size),))

    def beyond(self, pointer: str, offset: Value, level: int) -> tuple[str, int]:
        """The pointer some bytes further on, and the level at which it is known."""
        level = max(level, offset.level)
        return self._gep(pointer, offset.text, level), level

    def place(self, pointer: str, displacement: Bytes, level: int) -> str:
        return pointer if displacement == 0 else self._gep(pointer, self._bytes(displacement), level)

    def _gep(self, pointer: str, offset: str, level: int) -> str:
        key = ("gep", pointer, offset)
        known = self.recall(key, level)
        if known is None:
            text = self.emit(f"getelementptr i8, ptr {pointer}, i64 {offset}", level)
            known = self.remember(key, Value(text, I64, 1, level))
        return known.text

    def _pointer(self, buffer: str, terms: tuple[tuple[str, Bytes], ...]) -> str:
        """The buffer's start advanced by the loops of `terms`, outermost first; made in the loop's header when first
        needed."""
        if not terms:
            return self.bases[buffer]
        name, step = terms[-1]
        frame = self.frames[self.loops[name]]
        key = (buffer, terms)
        if key not in frame.pointers:
            outer = self._pointer(buffer, terms[:-1])
            amount = self._bytes(step)
            if frame.start != "0":
                offset = self.emit(f"mul i64 {frame.start}, {amount}", self.loops[name] - 1)
                outer = self.emit(f"getelementptr i8, ptr {outer}, i64 {offset}", self.loops[name] - 1)
            dest = self.fresh()
            frame.pointers[key] = dest
            frame.entries.append((dest, "ptr", outer, f"{dest}n"))
            frame.steps.append(f"{dest}n = getelementptr i8, ptr {dest}, i64 {amount}")
        return frame.pointers[key]

    def _bytes(self, amount: Bytes) -> str:
        """An i64 operand; sums of run-time strides are made once, at the function's entry."""
        if isinstance(amount, int):
            return str(amount)
        key = ("bytes", amount)
        known = self.recall(key, 0)
        if known is None:
            total = ""
            for name, factor in amount:
                term = self.emit(f"mul i64 {self.strides[name]}, {factor}", 0) if name else str(factor)
                total = term if not total else self.emit(f"add i64 {total}, {term}", 0)
            known = self.remember(key, Value(total, I64, 1, 0))
        return known.text


def _flatten(lines: list[Any]) -> Iterator[str]:
    for item in lines:
        if isinstance(item, list):
            yield from _flatten(item)
        else:
            yield item


def _flatten_access(buffer: Buffer, index: tuple[Affine, ...]) -> Flat:
    size = 1 if buffer.dtype.kind == "b" else buffer.dtype.bytes
    total: dict[Any, Bytes] = {}
    const: Bytes = 0
    # Where strides are known numbers, the sum is made in Affine arithmetic first: a fused loop's quotient and
    # remainder cancel.
    if all(isinstance(s, int) for s in buffer.element_strides):
        joined = Affine()
        for a, s in zip(index, buffer.element_strides):
            joined = joined + a * (int(s) * size)
        total, const = dict(joined.terms), joined.const
    else:
        for a, s in zip(index, buffer.element_strides):
            step: Bytes = s * size if isinstance(s, int) else ((s, size),)
            const = plus(const, times(step, a.const))
            for atom, c in a.terms:
                total[atom] = plus(total.get(atom, 0), times(step, c))
    linear = tuple((n, s) for n, s in total.items() if isinstance(n, str) and s != 0)
    odd = tuple((n, s) for n, s in total.items() if not isinstance(n, str) and s != 0)
    return Flat(linear, const, odd, index)
