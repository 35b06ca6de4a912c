"""Writing values to memory: whole vectors, masked or in pieces where lanes are missing, one by one where apart.

Knows buffers, lanes and what the machine's stores can do; not which statement a value comes from.
"""

from __future__ import annotations

from ..ir.errors import BuildError
from ..ir.program import Buffer
from .function import Flat, Value
from .values import Evaluator, Lanes, memory_bytes, memory_type


class Stores:
    """Stores of one function. `masked`: masked stores are as fast as others here; `nontemporal`: hints are honoured."""

    def __init__(self, ev: Evaluator, masked: bool, nontemporal: bool) -> None:
        self.ev, self.masked, self.nontemporal = ev, masked, nontemporal

    def write(self, buffer: Buffer, flat: Flat, value: Value, nontemporal: bool) -> None:
        ev, fn, lanes = self.ev, self.ev.fn, self.ev.lanes
        if value.dtype != buffer.dtype:
            value = ev.cast(value, buffer.dtype)
        if lanes is None:
            text = value.text
            if buffer.dtype.kind == "b":
                text = fn.emit(f"zext i1 {text} to i8")
            pointer, shift, level = fn.address(buffer, flat)
            place = fn.place(pointer, shift, level)
            fn.forget(buffer.name)
            fn.line(f"store {memory_type(buffer.dtype)} {text}, ptr {place}, align {memory_bytes(buffer)}")
            return
        text = ev.widen(value, lanes.width)
        if buffer.dtype.kind == "b":
            text = fn.emit(f"zext <{lanes.width} x i1> {text} to <{lanes.width} x i8>")
        if ev.lane_step(flat) == memory_bytes(buffer):
            self.put(buffer, flat, text, lanes.width, nontemporal)
        else:
            self.scatter(buffer, flat, text, lanes)
        fn.forget(buffer.name)

    def put(self, buffer: Buffer, flat: Flat, text: str, width: int, nontemporal: bool) -> None:
        """Store a vector to neighbouring elements: whole, masked, or in power-of-two pieces."""
        fn, lanes = self.ev.fn, self.ev.lanes
        assert lanes is not None
        pointer, shift, level = fn.address(buffer, flat, lanes.name)
        place = fn.place(pointer, shift, level)
        kind, size = memory_type(buffer.dtype), memory_bytes(buffer)
        if lanes.mask and buffer.name in self.ev.kept_rows:
            old = fn.emit(f"load <{width} x {kind}>, ptr {place}, align {size}")
            mask = f"<{width} x i1> {lanes.mask}"
            text = fn.emit(f"select {mask}, <{width} x {kind}> {text}, <{width} x {kind}> {old}")
            fn.line(f"store <{width} x {kind}> {text}, ptr {place}, align {size}")
            return
        if not lanes.mask or buffer.name in self.ev.whole_rows:
            hint, align = "", size
            if nontemporal and self.nontemporal and self._aligned(flat, width * size, lanes.name):
                hint, align = ", !nontemporal !{i32 1}", min(width * size, 64)
            fn.line(f"store <{width} x {kind}> {text}, ptr {place}, align {align}{hint}")
            return
        if lanes.active is None or self.masked or buffer.scope == "register":
            suffix = ("f" + str(buffer.dtype.bits)) if kind in ("half", "float", "double") else kind
            name = f"llvm.masked.store.v{width}{suffix}.p0"
            fn.declarations.add(f"declare void @{name}(<{width} x {kind}>, ptr, i32, <{width} x i1>)")
            fn.line(
                f"call void @{name}(<{width} x {kind}> {text}, ptr {place}, i32 {size}, <{width} x i1> {lanes.mask})"
            )
            return
        at = 0
        while at < lanes.active:
            n = 1 << (lanes.active - at).bit_length() - 1
            picks = ", ".join(f"i32 {at + i}" for i in range(n))
            piece = fn.emit(
                f"shufflevector <{width} x {kind}> {text}, <{width} x {kind}> poison, <{n} x i32> <{picks}>"
            )
            spot = fn.emit(f"getelementptr i8, ptr {place}, i64 {at * size}")
            fn.line(f"store <{n} x {kind}> {piece}, ptr {spot}, align {size}")
            at += n

    def _aligned(self, flat: Flat, size: int, lane: str) -> bool:
        """Every address of the access is a multiple of the vector's size, if the buffer's start is."""
        steps = [flat.const, *(s for n, s in flat.terms if n != lane)]
        return not flat.odd and all(isinstance(s, int) and s % min(size, 64) == 0 for s in steps) and size >= 16

    def scatter(self, buffer: Buffer, flat: Flat, text: str, lanes: Lanes) -> None:
        fn = self.ev.fn
        if lanes.active is None:
            raise BuildError("a strided vector store needs a constant number of lanes", reason="lanes")
        kind = memory_type(buffer.dtype)
        for n in range(lanes.active):
            one = fn.emit(f"extractelement <{lanes.width} x {kind}> {text}, i64 {n}")
            fn.fixed[lanes.name] = n
            pointer, shift, level = fn.address(buffer, flat)
            place = fn.place(pointer, shift, level)
            del fn.fixed[lanes.name]
            fn.line(f"store {kind} {one}, ptr {place}, align {memory_bytes(buffer)}")
