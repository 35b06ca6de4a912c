"""Windows of an image that a contraction reads, as an array of their own: where that is worth its copy, the contraction
is a plain product of matrices, whatever the windows' steps and however short the image's rows.

Knows Computes and index affines; nothing of what they are for, of schedules or devices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .ir.affine import Affine, var
from .ir.expr import Expr, Load, loads, transform
from .ir.program import Axis, Compute

USES = 64  # of each copied element, from which on the copy costs little beside them
LARGEST = 8 << 20  # bytes of such an array: beyond, it would pass through memory
SHORT = 32  # elements: rows from that length on are as good as the copy's


def spread(computes: Sequence[Compute]) -> list[Compute]:
    """The same computations, such windows copied first: the copy's axes are in the order in which a product of
    matrices has them, so that rows of the result are one axis, and all that is summed is another."""
    out: list[Compute] = []
    for c in computes:
        extents = {a.name: a.extent for a in c.all_axes}
        found = dict.fromkeys(ld for ld in loads(c.body) if _worthwhile(c, ld, extents))
        for n, ld in enumerate(found):
            other = next((x for x in loads(c.body) if x not in found), None)
            if other is None:
                break
            summed = tuple(sorted(c.reduce_axes, key=lambda a: _place(other, a.name)))
            axes = _order(c, ld, summed)
            copy = Compute(f"{c.name}.windows{n}", ld.dtype, axes, ld)
            out.append(copy)
            c = Compute(c.name, c.dtype, c.axes, _instead(c.body, ld, copy), summed, c.combiner)
        out.append(c)
    return out


def overlap(index: Affine, extents: Mapping[str, int]) -> bool:
    """Different values of the names may meet at one place: windows whose step is less than their size."""
    reach = 0
    for c, name in sorted((abs(c), atom) for atom, c in index.terms if isinstance(atom, str) and extents[atom] > 1):
        if c <= reach:
            return True
        reach += c * (extents[name] - 1)
    return False


def _worthwhile(c: Compute, ld: Load, extents: Mapping[str, int]) -> bool:
    names = frozenset[str]().union(*(i.names() for i in ld.index))
    if c.combiner is None or not all(i.is_linear and all(k > 0 for _, k in i.terms) for i in ld.index):
        return False
    if not any(overlap(i, extents) or (len(i.terms) == 1 and i.terms[0][1] > 1) for i in ld.index):
        return False
    uses = math.prod(a.extent for a in c.axes if a.name not in names)
    size = math.prod(extents[name] for name in names) * ld.dtype.bytes
    last = next((a for a in reversed(c.axes) if a.extent > 1), None)
    if last is None or last.name not in names or uses < USES or size > LARGEST:
        return False
    return last.extent < SHORT


def _order(c: Compute, ld: Load, summed: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """What the result has before the axes that the operand lacks, what is summed, and what the result has behind."""
    mine = [ld.index and any(a.name in i.names() for i in ld.index) for a in c.axes]
    at = mine.index(False) if False in mine else 0
    own = [a for a, used in zip(c.axes, mine) if used]
    first = [a for a in c.axes[:at] if a in own]
    summed = tuple(a for a in summed if any(a.name in i.names() for i in ld.index))
    return (*first, *summed, *(a for a in own if a not in first))


def _place(ld: Load, name: str) -> int:
    return next((d for d, i in enumerate(ld.index) if name in i.names()), len(ld.index))


def _instead(body: Expr, ld: Load, copy: Compute) -> Expr:
    read = Load(copy.name, tuple(var(a.name) for a in copy.axes), ld.dtype)
    return transform(body, lambda node: read if node == ld else None)
