"""Horizontal reductions: the lanes of one vector into a scalar, or of several vectors into one vector of results.

Knows an Evaluator's operations and shuffles; what is reduced is none of its business.
"""

from __future__ import annotations

from .function import Value
from .values import Evaluator, scalar_type, wide


def folded(ev: Evaluator, primitive: str, vector: Value) -> Value:
    """The lanes combined pairwise, halving the vector until one is left."""
    while vector.lanes > 1:
        half = vector.lanes // 2
        parts = [_pick(ev, vector, vector, list(range(start, start + half))) for start in (0, half)]
        vector = ev.operation(primitive, vector.dtype, *parts)
    return vector


def folded_rows(ev: Evaluator, primitive: str, rows: list[Value]) -> Value:
    """One vector whose lane r is the combination of the lanes of `rows[r]`; their number is a power of two up to their
    lanes. Two rows at a time share a register, so that n rows cost about as much as two."""
    lanes = rows[0].lanes
    groups = 1  # each register holds the partial results of `groups` rows side by side
    while len(rows) > 1:
        part = lanes // groups // 2
        halves = [[g * 2 * part + side * part + i for g in range(groups) for i in range(part)] for side in (0, 1)]
        # Row a in the first half of each register and row b in the second keeps rows in order at the end.
        rows = [
            ev.operation(primitive, a.dtype, *(_pick(ev, a, b, picks + [lanes + p for p in picks]) for picks in halves))
            for a, b in zip(rows[::2], rows[1::2])
        ]
        groups *= 2
    vector = rows[0]
    while vector.lanes > groups:
        part = vector.lanes // groups // 2
        sides = [[g * 2 * part + side * part + i for g in range(groups) for i in range(part)] for side in (0, 1)]
        vector = ev.operation(primitive, vector.dtype, *(_pick(ev, vector, vector, picks) for picks in sides))
    return vector


def _pick(ev: Evaluator, a: Value, b: Value, lanes: list[int]) -> Value:
    """The chosen lanes of two vectors laid end to end; a scalar if it is one lane."""
    kind, row, level = scalar_type(a.dtype), wide(scalar_type(a.dtype), a.lanes), max(a.level, b.level)
    picks = ", ".join(f"i32 {n}" for n in lanes)
    other = "poison" if b is a else b.text
    text = ev.fn.emit(f"shufflevector {row} {a.text}, {row} {other}, <{len(lanes)} x i32> <{picks}>", level)
    if len(lanes) == 1:
        text = ev.fn.emit(f"extractelement <1 x {kind}> {text}, i64 0", level)
    return Value(text, a.dtype, len(lanes), level)
