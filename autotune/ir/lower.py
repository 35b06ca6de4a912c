"""TensorProgram -> Nest: one plain loop nest a Compute, in program order. The starting point of every schedule.

The same logical axis gets the same loop name in every stage: where a stage reads an earlier one at a plain axis
variable, both loops are one class. That is what lets stages be fused without a map between their coordinates.
"""

from __future__ import annotations

from collections.abc import Iterator

from .affine import affine, var
from .expr import Const, Load, walk
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
    """The program with every axis renamed: equal names where a producer is read at a consumer's plain axis."""
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
                ours, theirs = find((c.name, name)), find((producer.name, axis.name))
                # Two axes of one stage never share a name: x @ x.T keeps its i and j apart.
                if ours != theirs and not (members[ours].keys() & members[theirs].keys()):
                    parent[theirs] = ours
                    members[ours] |= members.pop(theirs)

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


def _fresh(letters: str) -> Iterator[str]:
    yield from letters
    n = 0
    while True:
        yield f"{letters[0]}{n}"
        n += 1
