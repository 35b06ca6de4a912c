"""Transposing a block of vectors in registers, with shuffles that machines have as single instructions."""

from __future__ import annotations

from collections.abc import Callable

Row = list[tuple[int, int] | None]


def transpose(
    emit: Callable[[str], str], kind: str, size: int, columns: list[str], height: int, width: int
) -> list[str]:
    """`columns[j]` holds element i of column j in lane i (`height` lanes). Returns `height` rows of `width` lanes, row i holding
    element i of every column; lanes beyond the number of columns are undefined.

    First inside 128-bit lanes (interleaving pairs), then whole 128-bit lanes between registers: log2 steps of each.
    """
    lanes = max(height, width)
    unit = min(max(16 // size, 1), lanes)
    rows = [_resize(emit, kind, c, height, lanes) for c in columns]
    rows += ["poison"] * (lanes - len(rows))
    # Inside 128-bit lanes: after each step, neighbours 2^s apart have been exchanged.
    for low in _powers(unit):
        for i in range(lanes):
            if i & low == 0:
                a, b = rows[i], rows[i + low]
                rows[i], rows[i + low] = _pair(emit, kind, lanes, a, b, low)
    for low in _powers(lanes // unit):
        step = low * unit
        for i in range(lanes):
            if i & step == 0:
                rows[i], rows[i + step] = _pair(emit, kind, lanes, rows[i], rows[i + step], step)
    return [_resize(emit, kind, r, lanes, width) for r in rows[:height]]


def _powers(n: int) -> list[int]:
    return [1 << s for s in range(n.bit_length() - 1)]


def _pair(emit: Callable[[str], str], kind: str, lanes: int, a: str, b: str, step: int) -> tuple[str, str]:
    """Exchange the off-diagonal blocks of size `step` between two rows."""
    if a == b == "poison":
        return a, b
    first = [n if n & step == 0 else lanes + n - step for n in range(lanes)]
    second = [n + step if n & step == 0 else lanes + n for n in range(lanes)]
    return _shuffle(emit, kind, lanes, a, b, first), _shuffle(emit, kind, lanes, a, b, second)


def _shuffle(emit: Callable[[str], str], kind: str, lanes: int, a: str, b: str, picks: list[int]) -> str:
    mask = ", ".join(f"i32 {p}" if p >= 0 else "i32 poison" for p in picks)
    return emit(f"shufflevector <{lanes} x {kind}> {a}, <{lanes} x {kind}> {b}, <{len(picks)} x i32> <{mask}>")


def _resize(emit: Callable[[str], str], kind: str, row: str, have: int, want: int) -> str:
    if have == want or row == "poison":
        return row
    return _shuffle(emit, kind, have, row, "poison", [n if n < have else -1 for n in range(want)])
