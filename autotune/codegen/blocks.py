"""Two or three vector loops around one store: a block of elements that is turned or woven in registers.

Knows loops, lanes and shuffles; nothing of what is computed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..ir.affine import const, var
from ..ir.errors import BuildError
from ..ir.expr import Load, loads, names, substitute
from ..ir.nest import Loop, Store
from .function import Flat, Value
from .transpose import interleave, transpose
from .values import Lanes, memory_bytes, memory_type

if TYPE_CHECKING:
    from .writer import Writer


def block(w: Writer, outer: Loop, inner: Loop) -> None:
    """Two vector loops around one store: a block that is transposed in registers where the lanes of its loads and
    of its stores run along different loops."""
    leaf = inner.body[0] if len(inner.body) == 1 else None
    if isinstance(leaf, Loop):
        _grouped(w, outer, inner, leaf)
        return
    rows, columns = w.constant(outer), w.constant(inner)
    if not isinstance(leaf, Store) or rows is None or columns is None:
        raise BuildError("a vector of two loops needs one store, constant extents", reason="vector-not-innermost")
    fn, ev = w.fn, w.ev
    target = fn.flat(w.buffers[leaf.buffer], leaf.index)
    unit = memory_bytes(w.buffers[leaf.buffer])
    if step_along(target, outer.name) == unit:
        outer, inner, rows, columns = inner, outer, columns, rows
    stores_inner = step_along(target, inner.name) == unit
    across = [ld for ld in loads(leaf.value) if _loads_along(w, ld, outer.name)]
    whole = all(n > 1 and n & (n - 1) == 0 for n in (rows, columns)) and leaf.value.dtype.kind != "b"
    if stores_inner and across and whole and step_along(target, outer.name) == unit * columns:
        _woven(w, leaf, outer, inner, rows, columns)
        return
    if not stores_inner or not across or min(rows, columns) < 2:
        for i in range(rows):
            fn.fixed[outer.name] = i
            w.vector(replace(inner, body=(leaf,)))
        fn.fixed.pop(outer.name, None)
        return
    ev.lanes = w.lanes(outer)
    assert ev.lanes is not None
    width = ev.lanes.width
    made = []
    for j in range(columns):
        fn.fixed[inner.name] = j
        value = ev.value(leaf.value)
        made.append(Value(ev.widen(value, width), value.dtype, width, value.level))
    fn.fixed.pop(inner.name)
    lanes = w.lanes(inner)
    assert lanes is not None
    kind = memory_type(made[0].dtype)
    if made[0].dtype.kind == "b":
        made = [
            Value(fn.emit(f"zext <{width} x i1> {v.text} to <{width} x i8>"), v.dtype, width, v.level) for v in made
        ]
    turned = transpose(fn.emit, kind, made[0].dtype.bytes, [v.text for v in made], width, lanes.width)
    ev.lanes = lanes
    for i in range(rows):
        fn.fixed[outer.name] = i
        w.stores.put(w.buffers[leaf.buffer], target, turned[i], lanes.width, leaf.nontemporal)
    fn.fixed.pop(outer.name)
    ev.lanes = None
    fn.forget(leaf.buffer)


def _woven(w: Writer, leaf: Store, outer: Loop, inner: Loop, rows: int, columns: int) -> None:
    """A block that is one run of memory: a vector of `rows` for each of its columns, and these interleaved."""
    fn, ev = w.fn, w.ev
    ev.lanes = Lanes(outer.name, rows, rows, "")
    parts = []
    for j in range(columns):
        fn.fixed[inner.name] = j
        value = ev.value(leaf.value)
        parts.append(ev.widen(value, rows))
    fn.fixed.pop(inner.name)
    buffer = w.buffers[leaf.buffer]
    text = interleave(fn.emit, memory_type(buffer.dtype), parts, rows)
    start = {outer.name: const(0), inner.name: const(0)}
    index = tuple(a.substitute(start) for a in leaf.index)
    ev.lanes = Lanes(outer.name, rows * columns, rows * columns, "")
    w.stores.put(buffer, fn.flat(buffer, index), text, rows * columns, leaf.nontemporal)
    ev.lanes = None
    fn.forget(leaf.buffer)


def _grouped(w: Writer, outer: Loop, inner: Loop, group: Loop) -> None:
    """Three vector loops, of which the innermost is over neighbours in what is loaded and in what is stored: a
    block of groups, each moved as one number of 16 to 64 bits, is transposed."""
    fn, ev, leaf = w.fn, w.ev, group.body[0]
    sizes = [w.constant(lp) for lp in (outer, inner, group)]
    if not isinstance(leaf, Store) or None in sizes:
        raise BuildError("a vector of three loops needs one store, constant extents", reason="vector-not-innermost")
    rows, columns, each = (n or 0 for n in sizes)
    buffer = w.buffers[leaf.buffer]
    target, unit = fn.flat(buffer, leaf.index), memory_bytes(buffer)
    along = {inner.name: const(0), group.name: var(inner.name)}

    def beside(flat: Flat, size: int) -> bool:
        return step_along(flat, group.name) == size and step_along(flat, inner.name) == size * each

    reads = [(w.buffers[ld.buffer], fn.flat(w.buffers[ld.buffer], ld.index)) for ld in loads(leaf.value)]
    square = all(n > 1 and n & (n - 1) == 0 for n in (rows, columns, each)) and unit * each in (2, 4, 8)
    stored = step_along(target, group.name) == unit and step_along(target, outer.name) == unit * each
    if not (square and stored and leaf.value.dtype.kind != "b" and not names(leaf.value) & {inner.name, group.name}
            and reads and all(beside(flat, memory_bytes(b)) for b, flat in reads)):  # fmt: skip
        for i in range(rows):
            fn.fixed[outer.name] = i
            block(w, inner, group)
        fn.fixed.pop(outer.name, None)
        return
    value = substitute(leaf.value, along)
    ev.lanes = Lanes(inner.name, columns * each, columns * each, "")
    word, narrow = f"<{columns} x i{8 * unit * each}>", f"<{columns * each} x {memory_type(buffer.dtype)}>"
    made = []
    for i in range(rows):
        fn.fixed[outer.name] = i
        row = ev.widen(ev.value(value), columns * each)
        made.append(fn.emit(f"bitcast {narrow} {row} to {word}"))
    fn.fixed.pop(outer.name)
    turned = transpose(fn.emit, f"i{8 * unit * each}", unit * each, made, columns, rows)
    wide_row = f"<{rows * each} x {memory_type(buffer.dtype)}>"
    for j in range(columns):
        fn.fixed[inner.name] = j
        text = fn.emit(f"bitcast <{rows} x i{8 * unit * each}> {turned[j]} to {wide_row}")
        at = tuple(a.substitute({outer.name: const(0), group.name: const(0)}) for a in leaf.index)
        ev.lanes = Lanes(outer.name, rows * each, rows * each, "")
        w.stores.put(buffer, fn.flat(buffer, at), text, rows * each, leaf.nontemporal)
    fn.fixed.pop(inner.name)
    ev.lanes = None
    fn.forget(leaf.buffer)


def step_along(flat: Flat, name: str) -> object:
    return next((s for n, s in flat.terms if n == name), 0)


def _loads_along(w: Writer, ld: Load, name: str) -> bool:
    buffer = w.buffers[ld.buffer]
    return step_along(w.fn.flat(buffer, ld.index), name) == memory_bytes(buffer)
