"""Cutting a program into kernels: which Computes share one nest. Knows only which axes and arrays they share.

Three patterns make a kernel of several Computes: plain stores that read a contraction point by point (its epilogue);
stages that all have the same outer axes, so that they can run row by row (norms, softmax, chains of reductions and
stores); and, where a machine runs them so, chains with contractions inside, block of rows by block of rows, whose
arrays in between are larger than all that goes in and out.
"""

from __future__ import annotations

from itertools import takewhile

from .affine import Affine
from .collapse import collapse
from .expr import Load, gathers, loads
from .lower import with_shared_axes
from .program import Buffer, Compute, TensorProgram

MAX_STAGES = 12
MIN_ROWS = 8  # of a chain with contractions


def partition(program: TensorProgram, chains: bool = False) -> tuple[TensorProgram, ...]:
    """One-kernel programs in the order in which they run. Arrays that pass between them keep their names: an output of
    one is an input of the next. `chains`: contractions may follow each other in one kernel."""
    shared = {c.name: c for c in with_shared_axes(program).computes}
    groups: list[list[str]] = []
    where: dict[str, int] = {}
    # What reads no other comes first: between what is made and what reads it, it would keep them apart.
    later = lambda c: bool(c.combiner) or any(ld.buffer in shared for ld in loads(c.body))
    for c in sorted(program.computes, key=later):
        reads = {ld.buffer for ld in loads(c.body)}
        behind = max((where[name] for name in reads if name in where), default=None)
        if behind is not None and _joins(shared[c.name], [shared[n] for n in groups[behind]], chains):
            groups[behind].append(c.name)
            where[c.name] = behind
        else:
            where[c.name] = len(groups)
            groups.append([c.name])
    if chains and len(groups) > 1:
        groups = _chained(program, shared, groups)
    if len(groups) <= 1:
        return (program,)
    return tuple(_kernel(program, names) for names in groups)


def _chained(program: TensorProgram, shared: dict[str, Compute], groups: list[list[str]]) -> list[list[str]]:
    """Groups that follow each other made one where that saves more traffic than what remains; the longest runs."""
    buffers = {b.name: b for b in program.buffers}
    out: list[list[str]] = []
    n = 0
    while n < len(groups):
        end = n + 1
        for last in range(n + 2, len(groups) + 1):
            names = [name for g in groups[n:last] for name in g]
            if len(names) > MAX_STAGES or not _rowwise([shared[name] for name in names]):
                break
            kernel = _kernel(program, names)
            if not _by_blocks(kernel):
                continue
            gone = {b for g in groups[n:last] for b in _kernel(program, g).outputs} - set(kernel.outputs)
            moved = sum(b.bytes for b in kernel.inputs) + sum(buffers[name].bytes for name in kernel.outputs)
            if gone and sum(buffers[name].bytes for name in gone) > moved:
                end = last
        out.append([name for g in groups[n:end] for name in g])
        n = end
    return out


def _by_blocks(kernel: TensorProgram) -> bool:
    """There are rows enough to take them in blocks, and inside a row each member is a vector or a product of them."""
    members = with_shared_axes(collapse(kernel)).computes
    rows = list(takewhile(lambda a: all(a in m.axes for m in members), members[0].axes))
    inside = [len(m.all_axes) - len(rows) for m in members]
    return bool(rows) and rows[-1].extent >= MIN_ROWS and all(
        n <= 1 + reuses_operands(m) for n, m in zip(inside, members)
    )


def _rowwise(members: list[Compute]) -> bool:
    """All have the same outer axes; what passes between them is read at the same row, and no row reduces over rows."""
    rows = 0
    for names in zip(*([a.name for a in m.axes] for m in members)):
        if len(set(names)) != 1:
            break
        rows += 1
    common = {a.name for a in members[0].axes[:rows]}
    made = {m.name: m for m in members}
    for m in members:
        for ld in loads(m.body):
            if ld.buffer in made and any(
                index.single() != axis.name
                for index, axis in zip(ld.index, made[ld.buffer].axes) if axis.name in common
            ):  # fmt: skip
                return False
    return rows > 0 and all(not ({a.name for a in m.reduce_axes} & common) for m in members)


def reuses_operands(c: Compute) -> bool:
    """A reduction with an operand that several results share: every element of it is read many times."""
    if c.combiner is None:
        return False
    reduced = {a.name for a in c.reduce_axes if a.extent > 1}
    results = {a.name for a in c.axes if a.extent > 1}
    for ld in loads(c.body):
        used = _names(ld)
        if used & reduced and results - used:
            return True
    return False


def slides(c: Compute) -> bool:
    """A reduction of windows of an operand that moves with every axis of the result: neighbours share what they read
    of it, and nothing else is worth keeping near."""
    reduced = {a.name for a in c.reduce_axes if a.extent > 1}
    results = {a.name for a in c.axes if a.extent > 1}
    return c.combiner is not None and any(
        results <= _names(ld) and any(i.names() & reduced and i.names() & results for i in ld.index)
        for ld in loads(c.body)
    )


def _joins(c: Compute, group: list[Compute], rows: bool) -> bool:
    """`rows`: where windows slide over what is made row by row, they join it."""
    first = group[0]

    def contracts(c: Compute) -> bool:
        return reuses_operands(c) and not (rows and slides(c))

    if len(group) >= MAX_STAGES or {source.buffer for source, *_ in gathers(c.body)} & {g.name for g in group}:
        return False  # what is gathered from is finished before
    if contracts(first):
        return not contracts(c) and _pointwise(c, first, {g.name for g in group})
    if any(map(contracts, (*group, c))):
        return False
    return _rowwise([*group, c])


def _pointwise(c: Compute, first: Compute, group: set[str]) -> bool:
    """A plain store over the very axes of `first`, reading it (and nothing else of the group) at its own point."""
    if c.combiner is not None or [a.name for a in c.axes] != [a.name for a in first.axes]:
        return False
    own = [ld for ld in loads(c.body) if ld.buffer in group]
    return all(ld.buffer == first.name and ld.index == first.index for ld in own)


def _names(ld: Load) -> frozenset[str]:
    found: frozenset[str] = frozenset()
    index: Affine
    for index in ld.index:
        found |= index.names()
    return found


def _kernel(program: TensorProgram, names: list[str]) -> TensorProgram:
    """The program of one group: what it reads from outside are inputs, what others need are outputs."""
    inside = set(names)
    computes = tuple(c for c in program.computes if c.name in inside)
    available = {b.name: b for b in program.buffers}
    needed = dict.fromkeys(ld.buffer for c in computes for ld in loads(c.body) if ld.buffer not in inside)
    inputs = tuple(Buffer(b.name, b.dtype, b.shape, "input", b.strides) for b in (available[n] for n in needed))
    wanted = set(program.outputs) | {
        ld.buffer for c in program.computes if c.name not in inside for ld in loads(c.body) if ld.buffer in inside
    }
    return TensorProgram(inputs, computes, tuple(n for n in names if n in wanted))
