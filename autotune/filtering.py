"""Sums over windows of three, two results at a time: minimal filtering, with fewer multiplications than products.

y[2t] and y[2t+1] of y[i] = sum over r < 3 of x[i + r] w[r] need 4 products of sums of x by sums of w, not 6 of x by w;
along two axes that is 16, not 36. The sums are arrays of their own, and what is left is one contraction for each of the
4 or 16 places: the same function over the reals, with other roundings (and NaN where x is infinite). Knows Computes and
index affines; nothing of what they are for, of schedules or devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from functools import cached_property, partial

from .ir.affine import Affine, const, var
from .ir.dtypes import I64
from .ir.expr import Const, Expr, Index, Load, Op, distinct, loads, names, op, substitute, transform
from .ir.program import Axis, Compute

TAPS, STEP, PLACES = 3, 2, 4
# What an element costs on its way to a place or back, in products: of windows, of results, of taps.
WINDOW, RESULT, TAP = 60.0, 60.0, 200.0
WORTH = 0.85  # of the price of the plain sum

Sums = tuple[tuple[float, ...], ...]
# Places as sums of four x and as sums of three w, results as sums of places.
_X: Sums = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_W: Sums = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_Y: Sums = ((1, 1, 1, 0), (0, 1, -1, -1))


def filtered(computes: Sequence[Compute], outputs: AbstractSet[str]) -> list[Compute]:
    """The same computations, sums over windows of three by minimal filtering where that pays."""
    out: list[Compute] = []
    moved: dict[str, Compute] = {}  # results put in order, which plain stores need not wait for
    for c in computes:
        if c.combiner is None and moved:
            c = replace(c, body=transform(c.body, partial(_in_place, moved)))
        found = _windows(c)
        if found is None or not found.pays:
            out.append(c)
            continue
        out += found.computes()
        moved[c.name] = out[-1]
    read = {ld.buffer for c in out for ld in loads(c.body)}
    return [c for c in out if c.name not in moved or c.name in read | outputs]


@dataclass(frozen=True)
class _Windows:
    """A sum of products x * w: x moves with axis + tap for each of `pairs`, w with the taps alone."""

    c: Compute
    x: Expr
    w: Expr
    pairs: tuple[tuple[Axis, Axis], ...]

    @cached_property
    def both(self) -> list[Axis]:
        """Result axes that both sides move with."""
        return [a for a in self.c.axes if a.name in names(self.x) & names(self.w)]

    @cached_property
    def summed(self) -> list[Axis]:
        return [a for a in self.c.reduce_axes if a not in [tap for _, tap in self.pairs]]

    @cached_property
    def steps(self) -> dict[str, Axis]:
        return {a.name: Axis(a.name, -(-a.extent // STEP)) for a, _ in self.pairs}

    @cached_property
    def windows(self) -> list[Axis]:
        """Result axes that x alone moves with; of those in pairs, the steps."""
        return [self.steps.get(a.name, a) for a in self.c.axes if a not in self.both and a.name in names(self.x)]

    @cached_property
    def others(self) -> list[Axis]:
        return [a for a in self.c.axes if a not in self.both and a.name not in names(self.x)]

    @cached_property
    def places(self) -> list[Axis]:
        return [Axis(f"p{n}", PLACES) for n in range(len(self.pairs))]

    @property
    def pays(self) -> bool:
        """By the products that are saved and the elements that are moved."""
        both, summed, windows, others = map(_size, (self.both, self.summed, self.windows, self.others))
        plain = _size(self.c.all_axes)
        moved = STEP ** len(self.pairs) * windows * (summed * WINDOW + others * RESULT) + summed * others * TAP
        return bool(both * (PLACES ** len(self.pairs) * summed * windows * others + moved) < WORTH * plain)

    def computes(self) -> list[Compute]:
        """Sums of x, sums of w, their products at each place, sums of these by steps, and the results as they were."""
        c, rows = self.c, self.c.axes[-1] in self.others  # what lies next to each other in the result does everywhere
        inner = [*self.summed, *self.windows], [*self.others, *self.summed], [*self.others, *self.windows]
        if rows:
            inner = [*self.windows, *self.summed], [*self.summed, *self.others], [*self.windows, *self.others]
        ax, aw, ay = ((*self.places, *self.both, *axes) for axes in inner)

        def windows(at: Sequence[int]) -> Expr:
            return substitute(self.x, {k: v for pair, i in zip(self.pairs, at) for k, v in _window(*pair, i).items()})

        def taps(at: Sequence[int]) -> Expr:
            return substitute(self.w, {tap.name: const(i) for (_, tap), i in zip(self.pairs, at)})

        x = Compute(f"{c.name}.x", c.dtype, ax, _chosen(self.places, _X, windows))
        w = Compute(f"{c.name}.w", c.dtype, aw, _chosen(self.places, _W, taps))
        product = op("mul", _load(x), _load(w))
        y = Compute(f"{c.name}.y", c.dtype, ay, product, tuple(self.summed), "sum")
        offsets = [Axis(f"q{n}", STEP) for n in range(len(self.pairs))]

        def results(at: Sequence[int]) -> Expr:
            return Load(y.name, (*map(const, at), *(var(a.name) for a in ay[len(at) :])), c.dtype)

        steps = (*offsets, *ay[len(self.places) :])
        z = Compute(f"{c.name}.z", c.dtype, steps, _chosen(offsets, _Y, results))
        index = [var(a.name) // STEP if a.name in self.steps else var(a.name) for a in steps[len(offsets) :]]
        moved = Load(z.name, (*(var(a.name) % STEP for a, _ in self.pairs), *index), c.dtype)
        return [x, w, y, z, Compute(c.name, c.dtype, c.axes, moved)]


def _windows(c: Compute) -> _Windows | None:
    if c.combiner != "sum" or not c.dtype.is_float or not isinstance(c.body, Op) or c.body.name != "mul":
        return None
    left, right = c.body.args
    if any(node.dtype != c.dtype for side in (left, right) for node in distinct(side) if not isinstance(node, Index)):
        return None
    for x, w in ((left, right), (right, left)):
        pairs = tuple(pair for tap in c.reduce_axes if (pair := _pair(c, x, w, tap)))
        if pairs and len({a for a, _ in pairs}) == len(pairs):
            found = _Windows(c, x, w, pairs)
            sums, mine, others = {a.name for a in found.summed if a.extent > 1}, names(x), names(w)
            if sums <= mine & others and {a.name for a in found.others} <= others:
                return found
    return None


def _pair(c: Compute, x: Expr, w: Expr, tap: Axis) -> tuple[Axis, Axis] | None:
    """The result axis with which x moves as it does with the tap, by their sum alone."""
    if tap.extent != TAPS or tap.name not in names(w):
        return None
    for a in c.axes:
        if a.extent > 1 and a.name not in names(w) and tap.name in names(x) and _by_sum(x, a.name, tap.name):
            return a, tap
    return None


def _by_sum(x: Expr, a: str, tap: str) -> bool:
    """x depends on a + tap only."""
    index = [i for node in distinct(x) for i in _indices(node) if i.names() & {a, tap}]
    return all(i.is_linear and i.coefficient(a) == i.coefficient(tap) for i in index)


def _indices(node: Expr) -> tuple[Affine, ...]:
    return node.index if isinstance(node, Load) else (node.value,) if isinstance(node, Index) else ()


def _window(axis: Axis, tap: Axis, place: int) -> dict[str, Affine]:
    """Where x is read for a place of a step; what is beyond the last window goes into no result: anything will do."""
    at = var(axis.name) * STEP + place
    beyond = axis.extent % STEP and place == PLACES - 1
    return {axis.name: at % (axis.extent + TAPS - 1) if beyond else at, tap.name: const(0)}


def _chosen(axes: Sequence[Axis], sums: Sums, part: Callable[[Sequence[int]], Expr], at: tuple[int, ...] = ()) -> Expr:
    """The sum that the positions along `axes` name, of parts that are numbered along each."""
    if len(at) == len(axes):
        return _sum(sums, at, part, ())
    index = Index(var(axes[len(at)].name))
    *rest, chosen = (_chosen(axes, sums, part, (*at, n)) for n in range(len(sums)))
    for n in reversed(range(len(rest))):
        chosen = op("where", op("lt", index, Const(n + 1, I64)), rest[n], chosen)
    return chosen


def _sum(sums: Sums, rows: tuple[int, ...], part: Callable[[Sequence[int]], Expr], at: tuple[int, ...]) -> Expr:
    if len(at) == len(rows):
        return part(at)
    row = sums[rows[len(at)]]
    terms = sorted(((k, n) for n, k in enumerate(row) if k), key=lambda t: t[0] < 0)  # begins with a positive one
    total: Expr | None = None
    for k, n in terms:
        term = _sum(sums, rows, part, (*at, n))
        total = term if total is None else op("add" if k > 0 else "sub", total, term)
    assert total is not None
    return total if abs(terms[0][0]) == 1 else op("mul", total, Const(abs(terms[0][0]), total.dtype))


def _in_place(moved: Mapping[str, Compute], node: Expr) -> Expr | None:
    """The element where it lies by steps, if its position is a plain one."""
    if not isinstance(node, Load) or node.buffer not in moved or any(i.terms and not i.single() for i in node.index):
        return None
    source = moved[node.buffer]
    return substitute(source.body, {a.name: i for a, i in zip(source.axes, node.index)})


def _load(c: Compute) -> Load:
    return Load(c.name, tuple(var(a.name) for a in c.axes), c.dtype)


def _size(axes: Sequence[Axis]) -> int:
    return math.prod(a.extent for a in axes)
