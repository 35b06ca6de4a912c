"""Where the arrays that kernels pass to each other lie in one piece of memory, so that one that nobody will read any
more gives its place to others.

Knows which kernel writes and reads which array, and their sizes; nothing of what kernels do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .program import Buffer, TensorProgram

LINE = 64  # arrays begin at multiples of it, and a line apart


@dataclass(frozen=True, slots=True)
class Slot:
    """`bytes` at `offset` are one array's from kernel `first`, which writes it, to kernel `last`, which reads it."""

    name: str
    offset: int
    bytes: int
    first: int
    last: int

    def meets(self, other: Slot) -> bool:
        """Are both alive while some kernel runs?"""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class Memory:
    """A place for each array between kernels. `peak`: bytes in all; `apart`: what they would be side by side."""

    slots: tuple[Slot, ...] = ()

    @property
    def peak(self) -> int:
        return max((s.offset + s.bytes for s in self.slots), default=0)

    @property
    def apart(self) -> int:
        return sum(s.bytes for s in self.slots)

    @property
    def offsets(self) -> dict[str, int]:
        return {s.name: s.offset for s in self.slots}


def memory(program: TensorProgram, kernels: Sequence[TensorProgram]) -> Memory:
    """The memory of what kernels pass to each other when they run in this order."""
    outer = {b.name for b in program.inputs} | set(program.outputs)
    sizes = {b.name: _whole_lines(b) for b in program.buffers}
    first = {name: n for n, k in enumerate(kernels) for name in k.outputs if name not in outer}
    last = dict(first)
    for n, k in enumerate(kernels):
        last |= {b.name: n for b in k.inputs if b.name in first}
    return place([Slot(name, 0, sizes[name], n, last[name]) for name, n in first.items()])


def place(slots: Sequence[Slot]) -> Memory:
    """Best fit, the largest first: each goes into the tightest gap between those that are alive at the same time."""
    placed: list[Slot] = []
    for s in sorted(slots, key=lambda s: (-s.bytes, s.first, s.name)):
        gaps: list[tuple[int, int]] = []
        end = 0
        for other in sorted((p for p in placed if p.meets(s)), key=lambda p: p.offset):
            if other.offset - end >= s.bytes:
                gaps.append((other.offset - end, end))
            end = max(end, other.offset + other.bytes)
        placed.append(Slot(s.name, min(gaps)[1] if gaps else end, s.bytes, s.first, s.last))
    return Memory(tuple(sorted(placed, key=lambda p: (p.first, p.offset, p.name))))


def _whole_lines(b: Buffer) -> int:
    return -(-b.bytes // LINE) * LINE + LINE
