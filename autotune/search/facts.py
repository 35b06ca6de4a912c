"""What a sketch needs to know about a program: its stages, and how each access moves in memory with each axis.

Everything here is read off the index expressions. There is no knowledge of operations: a stage is described by which
axes its loads share and along which of them they are contiguous.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ..ir.affine import Affine
from ..ir.dtypes import DType
from ..ir.expr import HEAVY, Op, distinct, loads, walk
from ..ir.lower import with_shared_axes
from ..ir.program import Buffer, Compute, TensorProgram

# Stands for a stride that is only known at run time, or for an index that is not linear in the axis: never contiguous.
UNKNOWN = 1 << 40
NEAR = 4  # elements between lanes that whole vectors are loaded for
TAPS = 64  # points of a reduction that is written out whole


@dataclass(frozen=True)
class Access:
    """One load (or the store) of a stage: elements moved by one step of each axis; axes that do not occur are absent.
    `dims`: the dimension whose index is this axis alone; `offset`: where it is this axis and a multiple of others."""

    ordinal: int
    buffer: Buffer
    strides: Mapping[str, int]
    dims: Mapping[str, int]
    offset: Mapping[str, int]

    def contiguous(self, axis: str) -> bool:
        return self.strides.get(axis) == 1

    def uses(self, axis: str) -> bool:
        return axis in self.strides

    def apart(self, axis: str) -> int:
        """Bytes that one step of an axis moves; 0 where it moves nothing."""
        return self.strides.get(axis, 0) * self.buffer.dtype.bytes

    def panel_dim(self, axis: str) -> int | None:
        """The dimension whose index is this axis alone (plus a constant), where there is one."""
        return self.dims.get(axis)


@dataclass(frozen=True)
class Stage:
    """A Compute with its accesses: `loads` as the body is written out, `reads` each once. `heavy` counts expensive
    primitives of its body, `light` the others."""

    compute: Compute
    loads: tuple[Access, ...]
    reads: tuple[Access, ...]
    store: Access
    light: int
    heavy: int

    @property
    def name(self) -> str:
        return self.compute.name

    @property
    def dtype(self) -> DType:
        return self.compute.dtype

    @cached_property
    def extents(self) -> dict[str, int]:
        return {a.name: a.extent for a in self.compute.all_axes}

    @property
    def axes(self) -> tuple[str, ...]:
        return tuple(a.name for a in self.compute.axes)

    @property
    def reduce_axes(self) -> tuple[str, ...]:
        return tuple(a.name for a in self.compute.reduce_axes)

    def load_slots(self, axis: str, lanes: int, cut: bool = False) -> int:
        """Load instructions for one vector along an axis: one where it is contiguous; whole vectors, and lanes picked
        from them, where elements are near; each lane by itself, and put in its place, elsewhere. `cut`: in parts
        between which remainders wrap around."""
        steps = [1 if cut and a.strides[axis] == UNKNOWN else a.strides[axis] for a in self.reads if a.uses(axis)]
        return sum(2 * step - 1 if 1 <= step <= NEAR else 2 * lanes for step in steps)

    @cached_property
    def slides(self) -> bool:
        """A short reduction of windows: its operands move with every long axis of the result, or with neither of the
        last two, and vectors run along the last axis of the result."""
        c, e = self.compute, self.extents
        if c.combiner is None or len(self.axes) < 2 or math.prod(a.extent for a in c.reduce_axes) > TAPS:
            return False
        v = self.axes[-1]
        long = {a for a in self.axes if e[a] > 1}
        whole = [a for a in self.loads if long <= a.strides.keys()]
        near = all(1 <= a.strides[v] <= NEAR for a in self.loads if a.uses(v))
        return near and self.store.contiguous(v) and any(a.dims.keys() != a.strides.keys() for a in whole)

    @property
    def is_reduction(self) -> bool:
        return self.compute.combiner is not None

    @cached_property
    def widest(self) -> DType:
        """The widest type that the stage computes with: it decides how many lanes a vector has. What is computed from
        positions alone is not counted: it is cheap beside the rest."""
        kinds = [node.dtype for node in walk(self.compute.body) if loads(node)] + [self.dtype]
        return max(kinds, key=lambda d: d.bits)


@dataclass(frozen=True)
class Facts:
    """A program under its shared axis names, with every stage described."""

    program: TensorProgram
    stages: tuple[Stage, ...]

    @cached_property
    def by_name(self) -> dict[str, Stage]:
        return {s.name: s for s in self.stages}

    @cached_property
    def temps(self) -> frozenset[str]:
        return frozenset(c.name for c in self.program.computes) - frozenset(self.program.outputs)

    @cached_property
    def shared_outer(self) -> tuple[str, ...]:
        """Axes that every stage has as a result axis, in a common order, before any other of its axes: the rows."""
        common: list[str] = []
        for names in zip(*(s.axes for s in self.stages)):
            if len(set(names)) != 1:
                break
            common.append(names[0])
        return tuple(common)


def facts(program: TensorProgram) -> Facts:
    shared = with_shared_axes(program)
    buffers = {b.name: b for b in shared.buffers}
    return Facts(shared, tuple(described(c, buffers) for c in shared.computes))


def described(c: Compute, buffers: Mapping[str, Buffer]) -> Stage:
    """A Compute's accesses and operations, those of equal subexpressions once. `buffers`: by name, all that it uses."""
    written = loads(c.body)
    read = tuple(_access(n, buffers[ld.buffer], ld.index) for n, ld in enumerate(written))
    once = tuple(read[n] for n in {ld: n for n, ld in reversed([*enumerate(written)])}.values())
    operations = [node for node in distinct(c.body) if isinstance(node, Op)]
    heavy = sum(node.name in HEAVY for node in operations)
    light = len(operations) - heavy + (c.combiner is not None)
    return Stage(c, read, once, _access(-1, buffers[c.name], c.index), light, heavy)


def _access(ordinal: int, buffer: Buffer, index: tuple[Affine, ...]) -> Access:
    strides: dict[str, int] = {}
    dims: dict[str, int] = {}
    offset: dict[str, int] = {}
    for d, (a, s) in enumerate(zip(index, buffer.element_strides)):
        if buffer.shape[d] == 1:
            continue
        step = s if isinstance(s, int) else UNKNOWN
        linear = a.is_linear
        for name in a.names():
            move = a.coefficient(name) * step if linear else UNKNOWN
            strides[name] = strides.get(name, 0) + move
            if linear and a.coefficient(name) == 1:
                offset.setdefault(name, d)
                if len(a.terms) == 1:
                    dims.setdefault(name, d)
    return Access(ordinal, buffer, {n: s for n, s in strides.items() if s}, dims, offset)
