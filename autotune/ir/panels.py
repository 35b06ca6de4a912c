"""Arrays that do not change between calls, read in panels that were made before: a kernel's program for them.

A panel holds `width` neighbours along one dimension side by side, so that a vector of results finds its operands in one
place. Only the program changes: what schedules, proves or measures kernels knows nothing of it. Who makes the panels,
and when they are made anew, is the caller's business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from .affine import Affine, var
from .expr import Expr, Index, Load, gathers, loads, transform
from .program import Axis, Buffer, Compute, TensorProgram

LEAST = 16  # results that share an element, below which a panel is not worth its memory
Place = tuple[str, str]  # a Compute and one of its axes


@dataclass(frozen=True, slots=True)
class Panels:
    """Array `name`: `source` with its dimension `dim` cut into panels of `width`: the number of a panel comes first,
    the position in it last, the other dimensions in their order in between."""

    name: str
    source: str
    dim: int
    width: int


def paneled(kernel: TensorProgram, widths: Mapping[str, int]) -> tuple[TensorProgram, tuple[Panels, ...]]:
    """The kernel with inputs in panels where that serves it; they come last among its inputs. `widths`: of the panels
    of each input in question. The memory of all other arrays stays what it is. Kernels of several sums stay as they
    are: their loops are shared, and panels would part them."""
    if sum(bool(c.reduce_axes) for c in kernel.computes) != 1:
        return kernel, ()
    for source in [b for b in kernel.inputs if b.name in widths]:
        read = _read(kernel, source)
        dim = _dimension(*read, widths[source.name]) if read else None
        if read is None or dim is None:
            continue
        cut = _cut(kernel, (read[0].name, read[0].axes[-1].name), widths[source.name])
        if cut is not None:
            panels = Panels(f"{source.name}.{dim}.{widths[source.name]}", source.name, dim, widths[source.name])
            return _replaced(cut, source, panels), (panels,)
    return kernel, ()


def _read(kernel: TensorProgram, source: Buffer) -> tuple[Compute, tuple[Affine, ...]] | None:
    """The only Compute that reads the source, and where, if that is a sum in which many results share each element."""
    found = {(c.name, ld.index) for c in kernel.computes for ld in loads(c.body) if ld.buffer == source.name}
    if len(found) != 1 or source.strides is not None:
        return None
    ((name, index),) = found
    c = kernel.compute(name)
    names = frozenset[str]().union(*(a.names() for a in index))
    shared = prod(a.extent for a in c.axes if a.name not in names)
    direct = all(s.buffer != source.name for s, *_ in gathers(c.body))
    return (c, index) if c.reduce_axes and shared >= LEAST and direct else None


def _dimension(c: Compute, index: tuple[Affine, ...], width: int) -> int | None:
    """The dimension along the last axis of the results, if the others are summed over and panels of this width fit."""
    last, reduced = c.axes[-1], {a.name for a in c.reduce_axes}
    along = [d for d, a in enumerate(index) if a.single() == last.name]
    rest = [a.single() for d, a in enumerate(index) if d not in along]
    fits = last.extent % width == 0 and last.extent > width
    return along[0] if len(along) == 1 and fits and {*rest} <= reduced and len({*rest}) == len(rest) else None


def _cut(kernel: TensorProgram, start: Place, width: int) -> TensorProgram | None:
    """The kernel with an axis as two, panels and positions inside them, and with it every axis that stands for the same
    dimension of an array between Computes; None where something else than an axis does."""
    places = _same(kernel, start)
    if places is None:
        return None
    computes = {c.name: c for c in kernel.computes}

    def parts(c: Compute, axis: Axis) -> tuple[Axis, ...]:
        if (c.name, axis.name) not in places:
            return (axis,)
        return Axis(f"{axis.name}.0", axis.extent // width), Axis(f"{axis.name}.1", width)

    def rewritten(c: Compute) -> Compute:
        values = {n: var(f"{n}.0") * width + var(f"{n}.1") for owner, n in places if owner == c.name}

        def leaf(node: Expr) -> Expr | None:
            if isinstance(node, Index):
                return Index(node.value.substitute(values))
            if not isinstance(node, Load):
                return None
            index: list[Affine] = []
            for d, a in enumerate(node.index):
                owner = computes.get(node.buffer)
                if owner is not None and (owner.name, owner.axes[d].name) in places:
                    index += [var(f"{a.single()}.0"), var(f"{a.single()}.1")]
                else:
                    index.append(a.substitute(values))
            return Load(node.buffer, tuple(index), node.dtype)

        axes = tuple(p for a in c.axes for p in parts(c, a))
        return Compute(c.name, c.dtype, axes, transform(c.body, leaf), c.reduce_axes, c.combiner)

    return TensorProgram(kernel.inputs, tuple(map(rewritten, kernel.computes)), kernel.outputs)


def _same(kernel: TensorProgram, start: Place) -> set[Place] | None:
    """All axes that run along the same dimension of some array between Computes as `start`, it included; None where
    something else than an axis does."""
    computes = {c.name: c for c in kernel.computes}
    seen, todo = set[Place](), [start]
    while todo:
        place = todo.pop()
        if place in seen:
            continue
        seen.add(place)
        c = computes[place[0]]
        for ld in loads(c.body):
            if ld.buffer in computes:
                axes = computes[ld.buffer].axes
                todo += [(ld.buffer, axes[d].name) for d, a in enumerate(ld.index) if a.single() == place[1]]
        for d in (d for d, a in enumerate(c.axes) if a.name == place[1]):
            for reader in kernel.computes:
                named = [ld.index[d].single() for ld in loads(reader.body) if ld.buffer == c.name]
                if None in named:
                    return None
                todo += [(reader.name, name) for name in named if name]
    return seen


def _replaced(kernel: TensorProgram, source: Buffer, panels: Panels) -> TensorProgram:
    """The kernel with panels in place of their source, along the last two axes of what reads it."""

    def read(c: Compute) -> Compute:
        def leaf(node: Expr) -> Expr | None:
            if not isinstance(node, Load) or node.buffer != source.name:
                return None
            others = tuple(a for d, a in enumerate(node.index) if d != panels.dim)
            number, position = (var(a.name) for a in c.axes[-2:])
            return Load(panels.name, (number, *others, position), node.dtype)

        return Compute(c.name, c.dtype, c.axes, transform(c.body, leaf), c.reduce_axes, c.combiner)

    extents = tuple(e for d, e in enumerate(source.shape) if d != panels.dim)
    shape = (source.shape[panels.dim] // panels.width, *extents, panels.width)
    inputs = (*(b for b in kernel.inputs if b is not source), Buffer(panels.name, source.dtype, shape, "input"))
    return TensorProgram(inputs, tuple(map(read, kernel.computes)), kernel.outputs)
