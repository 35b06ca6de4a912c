"""A dot instruction on the lanes of a vector loop: operands as pairs of narrow numbers in words of 32 bits."""

from __future__ import annotations

from ..ir.affine import const
from ..ir.dots import DOTS, Dot, factors
from ..ir.dtypes import I32
from ..ir.expr import Load
from ..ir.nest import Loop, Reduce
from .function import Value
from .values import Evaluator, memory_bytes, scalar_type, wide

# Words of 32 bits serve every version of these: older forms are upgraded when the text is read.
_SYMBOLS = {"dpbf16": "llvm.x86.avx512bf16.dpbf16ps", "dpwssd": "llvm.x86.avx512.vpdpwssd"}
_WIDTHS = (4, 8, 16)


def dotted(ev: Evaluator, loop: Loop) -> Value | None:
    """The new value of the result; None where operands lie so that there is no instruction for them: the caller then
    takes the products one by one."""
    leaf, known, lanes = loop.body[0], DOTS[loop.instruction], ev.lanes
    assert isinstance(leaf, Reduce) and lanes is not None
    pair = factors(leaf.value, known.result)
    assert pair is not None
    if lanes.width not in _WIDTHS:
        return None
    words = [_words(ev, loop.name, known, ld) for ld in pair]
    if None in words:
        return None
    fn, width = ev.fn, lanes.width
    old = ev.load(ev.buffers[leaf.buffer], leaf.index)
    result, word = wide(scalar_type(known.result), width), wide("i32", width)
    symbol = f"{_SYMBOLS[known.name]}.{32 * width}"
    fn.declarations.add(f"declare {result} @{symbol}({result}, {word}, {word})")
    a, b = (ev.widen(w, width) for w in words if w is not None)
    text = fn.emit(f"call {result} @{symbol}({result} {ev.widen(old, width)}, {word} {a}, {word} {b})")
    return Value(text, known.result, width, fn.level)


def _words(ev: Evaluator, name: str, known: Dot, ld: Load) -> Value | None:
    """The group of one operand in each lane: the same for all, or neighbours in memory."""
    fn, lanes, buffer = ev.fn, ev.lanes, ev.buffers[ld.buffer]
    assert lanes is not None
    flat = fn.flat(buffer, tuple(a.substitute({name: const(0)}) for a in ld.index))
    whole = fn.flat(buffer, ld.index)
    unit, step = memory_bytes(buffer), ev.lane_step(flat)
    beside = next((s for n, s in whole.terms if n == name), 0)
    if whole.odd or beside != unit or step not in (0, unit * known.length):
        return None
    return ev.words(buffer, flat, I32)


__all__ = ["dotted"]
