"""TensorProgram -> Nest: one plain loop nest a Compute, in program order. The starting point of every schedule.

The same logical axis gets the same loop name in every stage: where a stage reads an earlier one at a plain axis
variable, both loops are one class. That is what lets stages be fused without a map between their coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator

from .affine import affine, var
from .expr import Const, Load, loads, walk
from .nest import Loop, Nest, Reduce, Stmt, Store
from .program import COMBINERS, Compute, TensorProgram

_LETTERS = "ijlmnopquv"
_REDUCTION_LETTERS = "krst"


def lower(program: TensorProgram) -> Nest:
    """The unscheduled nest of a program; loop names are those of `with_shared_axes`."""
    body: list[Stmt] = []
    for compute in with_shared_axes(program).computes:
        body.extend(_stage(compute))
    return Nest(program.buffers, tuple(body))


def _stage(c: Compute) -> tuple[Stmt, ...]:
    if any(a.extent == 0 for a in c.axes):
        return ()
    loops = c.all_axes
    origin = tuple((a.name, var(a.name)) for a in loops)
    leaf: Stmt
    if c.combiner is None:
        leaf = Store(c.name, c.index, c.body, c.name, origin)
    elif any(a.extent == 0 for a in c.reduce_axes):
        loops = c.axes
        identity = Const(COMBINERS[c.combiner].identity(c.dtype), c.dtype)
        leaf = Store(c.name, c.index, identity, c.name, origin[: len(loops)])
    else:
        first = tuple(var(a.name) for a in c.reduce_axes)
        leaf = Reduce(c.name, c.index, c.combiner, c.body, first, c.name, origin)
    for axis in reversed(loops):
        leaf = Loop(axis.name, (affine(axis.extent),), (leaf,))
    return (leaf,)


def with_shared_axes(program: TensorProgram) -> TensorProgram:
    """The program with every axis renamed: equal names where a producer is read at a consumer's plain axis, and where
    parts of the program that have nothing else in common read one input, at the same dimension."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}
    members: dict[tuple[str, str], dict[str, str]] = {}
    for c in program.computes:
        for a in c.all_axes:
            parent[c.name, a.name] = (c.name, a.name)
            members[c.name, a.name] = {c.name: a.name}

    def find(x: tuple[str, str]) -> tuple[str, str]:
        while parent[x] != x:
            x = parent[x]
        return x

    def unite(ours: tuple[str, str], theirs: tuple[str, str]) -> None:
        ours, theirs = find(ours), find(theirs)
        # Two axes of one stage never share a name: x @ x.T keeps its i and j apart.
        if ours != theirs and not (members[ours].keys() & members[theirs].keys()):
            parent[theirs] = ours
            members[ours] |= members.pop(theirs)

    made = {c.name: c for c in program.computes}
    for c in program.computes:
        extents = {a.name: a.extent for a in c.all_axes}
        for node in walk(c.body):
            producer = made.get(node.buffer) if isinstance(node, Load) else None
            if producer is None or not isinstance(node, Load):
                continue
            for axis, index in zip(producer.axes, node.index):
                name = index.single()
                if name is None or extents[name] != axis.extent:
                    continue
                unite((c.name, name), (producer.name, axis.name))
    part = _parts(program)
    first: dict[tuple[str, int, int], tuple[str, str]] = {}  # by input, dimension and extent: who reads it so
    for c in program.computes if len(set(part.values())) > 1 else ():
        extents = {a.name: a.extent for a in c.axes}
        for ld in loads(c.body):
            for d, index in enumerate(ld.index if ld.buffer not in made else ()):
                if (name := index.single()) in extents and name is not None:
                    before = first.setdefault((ld.buffer, d, extents[name]), (c.name, name))
                    if part[before[0]] != part[c.name]:
                        unite((c.name, name), before)

    reduce_only = {root: True for root in members}
    for c in program.computes:
        for a in c.axes:
            reduce_only[find((c.name, a.name))] = False
    names: dict[tuple[str, str], str] = {}
    plain, reducing = _fresh(_LETTERS), _fresh(_REDUCTION_LETTERS)
    for c in reversed(program.computes):
        for a in c.all_axes:
            root = find((c.name, a.name))
            if root not in names:
                names[root] = next(reducing if reduce_only[root] else plain)
    computes = tuple(c.renamed({a.name: names[find((c.name, a.name))] for a in c.all_axes}) for c in program.computes)
    return TensorProgram(program.inputs, computes, program.outputs)


def _parts(program: TensorProgram) -> dict[str, str]:
    """For each Compute the first one that it is linked with, by who reads whom in whichever direction."""
    part = {c.name: c.name for c in program.computes}
    for c in program.computes:
        linked = {part[ld.buffer] for ld in loads(c.body) if ld.buffer in part} | {c.name}
        head = next(name for name in part if name in linked)
        part = {name: head if p in linked else p for name, p in part.items()}
    return part


def _fresh(letters: str) -> Iterator[str]:
    yield from letters
    n = 0
    while True:
        yield f"{letters[0]}{n}"
        n += 1
