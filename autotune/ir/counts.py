"""Counts: exactly what one execution of a nest does. No device, no time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from .affine import Affine
from .expr import distinct
from .nest import Alloc, Guard, Loop, Nest, Prefetch, Reduce, reads, walk
from .points import Space, TooManyPoints, count, grid, space
from .program import operation_flops

Accesses = dict[tuple[tuple[Affine, ...], Space], None]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Elements of one buffer: `loads` and `stores` executed, `bytes` that these move, `footprint` = different elements
    touched (of inputs, outputs and temporaries; the buffer's size where an exact figure would take too long)."""

    buffer: str
    scope: str
    loads: int
    stores: int
    bytes: int
    footprint: int


@dataclass(frozen=True, slots=True)
class Counts:
    """`flops` as `TensorProgram.flops` counts them (an initialising Reduce too); `statements` executed; `vectors`:
    vector statements executed; `masked`: their lanes that do no work."""

    flops: int = 0
    statements: int = 0
    vectors: int = 0
    masked: int = 0
    traffic: tuple[Traffic, ...] = ()

    def of(self, buffer: str) -> Traffic:
        return next(t for t in self.traffic if t.buffer == buffer)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def count_nest(nest: Nest) -> Counts:
    """Exact counts of a well-formed nest. Raises TooManyPoints where they are out of reach."""
    flops = statements = vectors = masked = 0
    loads, stores = dict.fromkeys(nest.all_buffers, 0), dict.fromkeys(nest.all_buffers, 0)
    touched: dict[str, Accesses] = {b.name: {} for b in nest.buffers}
    for leaf, path in walk(nest.body):
        if isinstance(leaf, (Loop, Alloc, Guard, Prefetch)):
            continue
        where = space(path)
        times = count(where)
        statements += times
        flops += times * (sum(map(operation_flops, distinct(leaf.value))) + isinstance(leaf, Reduce))
        lanes = {b.name: b.lanes for b in path if isinstance(b, Loop) and b.kind == "vector"}
        if lanes:
            some = tuple(e - 1 for n, es in where.loops if n in lanes for e in es if not e.is_const)
            outer = tuple(lp for lp in where.loops if lp[0] not in lanes)
            issued = count(Space(outer, (*where.guards, *some)).normal())
            vectors += issued
            masked += issued * prod(lanes.values()) - times
        stores[leaf.buffer] += times
        for buffer, index in ((leaf.buffer, leaf.index), *reads(leaf)):
            if buffer in touched:
                touched[buffer][index, where] = None
        for buffer, _ in dict.fromkeys(reads(leaf)):  # a value that is used twice is loaded once
            loads[buffer] += times
        if isinstance(leaf, Reduce):
            loads[leaf.buffer] += times - (count(where.at_zero(leaf.first)) if leaf.first is not None else 0)
    return Counts(flops, statements, vectors, masked, tuple(
        Traffic(name, b.scope, loads[name], stores[name], (loads[name] + stores[name]) * b.dtype.bytes,
                _footprint(tuple(touched[name]), b.shape) if name in touched else 0)
        for name, b in nest.all_buffers.items()
    ))  # fmt: skip


def _footprint(accesses: tuple[tuple[tuple[Affine, ...], Space], ...], shape: tuple[int, ...]) -> int:
    try:
        return grid(accesses, shape).distinct if accesses else 0
    except TooManyPoints:
        return prod(shape)
