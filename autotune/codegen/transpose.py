"""Transposing a block of vectors in registers, with shuffles that machines have as single instructions.

Inside 128-bit units by interleaving (x86 unpack, Arm zip), then whole units between registers. Knows shuffles only.
"""

from __future__ import annotations

from collections.abc import Callable

Emit = Callable[[str], str]


def transpose(emit: Emit, kind: str, size: int, columns: list[str], height: int, width: int) -> list[str]:
    """`columns[j]` holds element i of column j in lane i (`height` lanes). Returns `height` rows of `width` lanes, row
    i holding element i of every column; lanes beyond the number of columns are undefined. `size`: bytes of an
    element."""
    lanes = max(height, width)
    unit = min(max(16 // size, 1), lanes)
    rows = [_resize(emit, kind, c, height, lanes) for c in columns]
    rows += ["poison"] * (lanes - len(rows))
    units = lanes // unit
    low = [x for u in range(0, lanes, unit) for n in range(u, u + unit // 2) for x in (n, lanes + n)]
    high = [x for u in range(0, lanes, unit) for n in range(u + unit // 2, u + unit) for x in (n, lanes + n)]
    # A perfect shuffle of the rows of each group, log2 times: row j then holds column j of every unit.
    for start in range(0, lanes, unit):
        group = rows[start : start + unit]
        for _ in range(unit.bit_length() - 1):
            half, woven = unit // 2, list[str]()
            for a, b in zip(group[:half], group[half:]):
                woven += [_shuffle(emit, kind, lanes, a, b, low), _shuffle(emit, kind, lanes, a, b, high)]
            group = woven
        rows[start : start + unit] = group
    out = [""] * lanes
    for j in range(unit):
        for q, row in enumerate(_blocks(emit, kind, lanes, unit, [rows[g * unit + j] for g in range(units)])):
            out[q * unit + j] = row
    return [_resize(emit, kind, r, lanes, width) for r in out[:height]]


def interleave(emit: Emit, kind: str, parts: list[str], lanes: int) -> str:
    """One vector of the first lanes of all parts (a power of two of them), then the second lanes, and so on."""
    if len(parts) == 1:
        return parts[0]
    even, odd = (interleave(emit, kind, parts[n::2], lanes) for n in (0, 1))
    width = lanes * len(parts) // 2
    return _shuffle(emit, kind, width, even, odd, [n for i in range(width) for n in (i, width + i)])


def _blocks(emit: Emit, kind: str, lanes: int, unit: int, rows: list[str]) -> list[str]:
    """Transpose a square of units: first halves of rows against halves, then within each half."""
    count = len(rows)
    if count == 1:
        return rows
    half = count // 2

    def pick(a: str, b: str, blocks: list[int]) -> str:
        return _shuffle(emit, kind, lanes, a, b, [block * unit + n for block in blocks for n in range(unit)])

    joined = [
        (
            pick(a, b, [*range(half), *range(count, count + half)]),
            pick(a, b, [*range(half, count), *range(count + half, 2 * count)]),
        )
        for a, b in zip(rows[::2], rows[1::2])
    ]
    if count == 2:
        return [joined[0][0], joined[0][1]]
    if count == 4:
        even, odd = [0, 2, 4, 6], [1, 3, 5, 7]
        (x, y), (z, w) = joined
        return [pick(x, z, even), pick(x, z, odd), pick(y, w, even), pick(y, w, odd)]
    # Wider than machines are: exchange off-diagonal blocks pairwise.
    for step in (1 << s for s in range(count.bit_length() - 1)):
        for i in range(count):
            if i & step == 0:
                first = [n if n & step == 0 else count + n - step for n in range(count)]
                second = [n + step if n & step == 0 else count + n for n in range(count)]
                rows[i], rows[i + step] = pick(rows[i], rows[i + step], first), pick(rows[i], rows[i + step], second)
    return rows


def _shuffle(emit: Emit, kind: str, lanes: int, a: str, b: str, picks: list[int]) -> str:
    if a == b == "poison":
        return a
    mask = ", ".join(f"i32 {p}" if p >= 0 else "i32 poison" for p in picks)
    return emit(f"shufflevector <{lanes} x {kind}> {a}, <{lanes} x {kind}> {b}, <{len(picks)} x i32> <{mask}>")


def _resize(emit: Emit, kind: str, row: str, have: int, want: int) -> str:
    if have == want or row == "poison":
        return row
    return _shuffle(emit, kind, have, row, "poison", [n if n < have else -1 for n in range(want)])
