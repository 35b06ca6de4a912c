"""Axes that are one run of memory wherever they occur become one axis: a program of fewer, longer loops.

A batch of rows, the axes of an elementwise function, several reduced axes: what is written with many dimensions is
mostly the same kernel as with few. Only names and shapes change, never an address: the same pointers, and the same
run-time strides in the same order, go to the collapsed program.
"""

from __future__ import annotations

from itertools import takewhile
from math import prod

from .affine import Affine, const, var
from .expr import Expr, Index, Load, gathers, loads, substitute, transform, walk
from .lower import with_shared_axes
from .program import Axis, Buffer, Compute, TensorProgram, canonical_names

Dim = tuple[str, int]  # a buffer, and the first of two neighbouring dimensions
Pair = tuple[str, str, str]  # a Compute, and two of its axes, the second directly inside the first


def normal_form(program: TensorProgram) -> TensorProgram:
    """As few axes as there can be, under canonical names: what is scheduled, measured and stored."""
    return canonical_names(collapse(program))


def squeeze(program: TensorProgram) -> TensorProgram:
    """The program without axes of one iteration and dimensions of one element: a batch of one is none. Arrays whose
    places are data keep theirs, strides that are known at run time only theirs, a reduction its last axis, and Computes
    that have one row in common, and nothing else, that row."""
    gathered = {source.buffer for c in program.computes for source, *_ in gathers(c.body)}
    kept = {b.name: [d for d, n in enumerate(b.shape) if n != 1 or b.name in gathered or not _fixed(b, d)]
            for b in program.buffers}  # fmt: skip
    if _one_row(program):
        kept |= {c.name: [0, *kept[c.name]] for c in program.computes if 0 not in kept[c.name]}

    def load(node: Expr) -> Expr | None:
        if not isinstance(node, Load) or len(kept[node.buffer]) == len(node.index):
            return None
        return Load(node.buffer, tuple(node.index[d] for d in kept[node.buffer]), node.dtype)

    def compute(c: Compute) -> Compute:
        reduced = tuple(a for a in c.reduce_axes if a.extent != 1) or c.reduce_axes[:1]
        axes = tuple(c.axes[d] for d in kept[c.name])
        gone = {a.name: const(0) for a in c.all_axes if a not in (*axes, *reduced)}
        return Compute(c.name, c.dtype, axes, transform(substitute(c.body, gone), load), reduced, c.combiner)

    def buffer(b: Buffer) -> Buffer:
        strides = None if b.strides is None else tuple(b.strides[d] for d in kept[b.name])
        return Buffer(b.name, b.dtype, tuple(b.shape[d] for d in kept[b.name]), b.scope, strides)

    return TensorProgram(tuple(map(buffer, program.inputs)), tuple(map(compute, program.computes)), program.outputs)


def collapse(program: TensorProgram) -> TensorProgram:
    """The program with every such run of axes merged into the first of them; names of buffers are kept."""
    program = squeeze(program)
    buffers = {b.name: b for b in program.buffers}
    accesses = {c.name: [(c.name, c.index), *((ld.buffer, ld.index) for ld in dict.fromkeys(loads(c.body)))]
                for c in program.computes}  # fmt: skip
    extents = {c.name: {a.name: a.extent for a in c.all_axes} for c in program.computes}
    indexed = {c.name: frozenset().union(*(n.value.names() for n in walk(c.body) if isinstance(n, Index)))
               for c in program.computes}  # fmt: skip
    gathered = {source.buffer for c in program.computes for source, *_ in gathers(c.body)}
    whole = [b for b in buffers.values() if b.name not in gathered]
    dims = {(b.name, d) for b in whole for d in range(len(b.shape) - 1) if _one_run(b, d)}
    pairs = {(c.name, p.name, q.name) for c in program.computes for axes in (c.axes, c.reduce_axes)
             for p, q in zip(axes, axes[1:]) if not {p.name, q.name} & indexed[c.name]}  # fmt: skip

    def at(pair: Pair, name: str, index: tuple[Affine, ...], d: int) -> bool:
        """Do these two dimensions of an access run over exactly this pair of axes?"""
        size = extents[pair[0]]
        return (name, d) in dims and all(
            buffers[name].shape[d + n] == size[axis] and index[d + n].single() == axis
            for n, axis in enumerate(pair[1:])
        )

    def together(pair: Pair) -> bool:
        """Every access of the Compute that uses one of the axes uses both, side by side, and nowhere else."""
        used = False
        for name, index in accesses[pair[0]]:
            places = {d for d, a in enumerate(index) if a.names() & {*pair[1:]}}
            run = next((d for d in range(len(index) - 1) if at(pair, name, index, d)), None)
            if places and (run is None or places - {run, run + 1}):
                return False
            used |= bool(places)
        return used

    def everywhere(dim: Dim) -> bool:
        """Every access of the buffer runs over a pair of axes here."""
        found = [(c, index) for c, rows in accesses.items() for name, index in rows if name == dim[0]]
        return bool(found) and all(any(p[0] == c and at(p, dim[0], index, dim[1]) for p in pairs) for c, index in found)

    before = -1
    while before != len(dims) + len(pairs):
        before = len(dims) + len(pairs)
        pairs = {pair for pair in pairs if together(pair)}
        dims = {dim for dim in dims if everywhere(dim)}
    if not pairs:
        return program

    def merged(b: Buffer) -> Buffer:
        runs = _runs(len(b.shape), [(b.name, d) in dims for d in range(len(b.shape) - 1)])
        strides = None if b.strides is None else tuple(b.strides[run[-1]] for run in runs)
        return Buffer(b.name, b.dtype, tuple(prod(b.shape[d] for d in run) for run in runs), b.scope, strides)

    def compute(c: Compute) -> Compute:
        head: dict[str, str] = {}

        def axes(given: tuple[Axis, ...]) -> tuple[Axis, ...]:
            runs = _runs(len(given), [(c.name, p.name, q.name) in pairs for p, q in zip(given, given[1:])])
            head.update({given[n].name: given[run[0]].name for run in runs for n in run})
            return tuple(Axis(given[run[0]].name, prod(given[n].extent for n in run)) for run in runs)

        def load(node: Expr) -> Expr | None:
            if not isinstance(node, Load):
                return None
            runs = _runs(len(node.index), [(node.buffer, d) in dims for d in range(len(node.index) - 1)])
            index = tuple(_along(node.index, run, head) for run in runs)
            return Load(node.buffer, index, node.dtype)

        own, reduced = axes(c.axes), axes(c.reduce_axes)
        return Compute(c.name, c.dtype, own, transform(c.body, load), reduced, c.combiner)

    return TensorProgram(tuple(map(merged, program.inputs)), tuple(map(compute, program.computes)), program.outputs)


def _one_row(program: TensorProgram) -> bool:
    """Several Computes share their outermost axis, it has one iteration, and so has all else that they share."""
    outer = list(zip(*(c.axes for c in with_shared_axes(program).computes))) if len(program.computes) > 1 else []
    shared = list(takewhile(lambda axes: len({a.name for a in axes}) == 1, outer))
    return bool(shared) and all(axes[0].extent == 1 for axes in shared)


def _fixed(b: Buffer, d: int) -> bool:
    return b.strides is None or isinstance(b.strides[d], int)


def _one_run(b: Buffer, d: int) -> bool:
    """One step of dimension d is as far as all of dimension d + 1."""
    outer, inner = b.element_strides[d : d + 2]
    return isinstance(outer, int) and isinstance(inner, int) and outer == inner * b.shape[d + 1]


def _runs(count: int, joined: list[bool]) -> list[list[int]]:
    """0 .. count - 1 in runs; `joined[n]` says whether n and n + 1 belong together."""
    runs: list[list[int]] = []
    for n in range(count):
        if n and joined[n - 1]:
            runs[-1].append(n)
        else:
            runs.append([n])
    return runs


def _along(index: tuple[Affine, ...], run: list[int], head: dict[str, str]) -> Affine:
    """The index of a merged dimension: its axes' one axis; anything else stands alone and stays."""
    if len(run) == 1:
        return index[run[0]]
    names = [name for d in run for name in index[d].names()]
    return var(head[names[0]]) if names else const(0)
